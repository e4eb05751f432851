package monitors

import "time"

const (
	// breakerTries is how many times in a row a file must fail to be read
	// before its container is streamed: a rotation or a restart of the engine
	// can take a file away for a moment.
	breakerTries = 3

	// breakerFirst is the pause before the first probe of a file that cannot be
	// read; it doubles with each that fails, up to breakerMax. A move to the
	// file and back costs the engine a read of the container's whole history,
	// so it must not come often.
	breakerFirst = 30 * time.Second
	breakerMax   = 10 * time.Minute

	// breakerCalm is how long a file must have been read again for what was
	// before to be forgotten. One that fails sooner flaps: its pauses go on
	// from where they were.
	breakerCalm = 10 * time.Minute
)

// breaker decides for one container whether its log is read from its file or,
// since that cannot be read, streamed. While it is closed the file is read;
// while it is open the container is streamed and the file is probed now and
// then.
//
//	closed --- breakerTries failures in a row, or openNow ---> open
//	open ----- a probe that succeeds ------------------------> closed
//
// The zero breaker is closed. It has no clock and does nothing by itself: the
// caller tells it what happened, and when. It is not safe for concurrent use.
type breaker struct {
	open  bool
	fails int // in a row; begins anew when it is closed
	// pause is the last one before a probe, of the times it has been open
	// without a calm between; 0: it has not been open.
	pause    time.Duration
	probe    time.Time // not before; while open
	closedAt time.Time // when it was last closed
}

// isOpen says whether the container is to be streamed.
func (b *breaker) isOpen() bool { return b.open }

// succeed tells that the file was read. While the breaker is open only a probe
// counts.
func (b *breaker) succeed() { b.fails = 0 }

// fail tells that the file could not be read, and gives whether that has opened
// the breaker. What was still under way when it opened changes nothing.
func (b *breaker) fail(now time.Time) (opened bool) {
	b.fails++
	return b.fails >= breakerTries && b.openNow(now)
}

// openNow opens the breaker without further tries, for a file of which it is
// known that it cannot be read: its directory cannot. It gives whether the
// breaker was closed before.
func (b *breaker) openNow(now time.Time) (opened bool) {
	if b.open {
		return false
	}
	if now.Sub(b.closedAt) > breakerCalm {
		b.pause = 0
	}
	b.open = true
	b.probeLater(now)
	return true
}

// probeAt is when the file is to be probed; the zero time while the breaker is
// closed. An earlier probe, when there is news of the file, does no harm.
func (b *breaker) probeAt() time.Time {
	if !b.open {
		return time.Time{}
	}
	return b.probe
}

// probed tells how a probe of the file went, and gives whether that has closed
// the breaker. It changes nothing while the breaker is closed.
func (b *breaker) probed(now time.Time, ok bool) (closed bool) {
	if !b.open {
		return false
	}
	if !ok {
		b.probeLater(now)
		return false
	}
	b.open, b.fails, b.closedAt = false, 0, now
	return true
}

func (b *breaker) probeLater(now time.Time) {
	b.pause = min(max(2*b.pause, breakerFirst), breakerMax)
	b.probe = now.Add(b.pause)
}
