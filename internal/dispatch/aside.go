package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

// What the store refuses alone, beside the way through the spool: see spooling. A lane
// knows which streams have lines in its side, by their labels; what comes of them must not
// pass these.

// errAside is why lines of a stream are held back.
var errAside = errors.New("older lines of this stream wait in the spool, since the store refuses them for now")

// divert holds the pending parts whose stream is aside, and reports whether there
// are any.
func (l *spoolLane) divert(b *entry.Batch) (found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.aside) > 0 && holdStreams(b, func(labels string) bool { return l.aside[labels] > 0 })
}

// holdBehind holds the pending parts of streams of which parts are held: what goes to
// a queue without those would pass by them.
func holdBehind(b *entry.Batch) {
	if streams := streamsIn(b, entry.PartHeld); len(streams) > 0 {
		holdStreams(b, func(labels string) bool { return slices.Contains(streams, labels) })
	}
}

// holdStreams holds the pending parts of some streams, and reports whether there are any.
func holdStreams(b *entry.Batch, of func(labels string) bool) (found bool) {
	for sec, c := range partsIn(b, entry.PartPending) {
		if of(sec.Source.Labels[c].String()) {
			sec.State[c] = entry.PartHeld
			found = true
		}
	}
	return found
}

// hurryAside moves the parts that are held to the side, if they cannot wait in
// memory, and reports whether it has.
func (s *spooling) hurryAside(l *spoolLane, b *entry.Batch) bool {
	hurry, _ := s.inHurry()
	return (hurry || unlinked(b, entry.PartHeld)) && s.putHeldAside(l, b, (*spool.Lane).Append)
}

// putHeldAside writes the parts that are held to the side, and reports whether it
// has.
func (s *spooling) putHeldAside(l *spoolLane, b *entry.Batch, write func(*spool.Lane, ...spool.Frame) error) bool {
	streams := streamsIn(b, entry.PartHeld)
	if len(streams) == 0 {
		return false
	}
	l.side.keeping.Lock()
	defer l.side.keeping.Unlock()
	l.noteAside(streams, 1)
	if s.write(l.side, b, entry.PartHeld, write) != nil {
		l.noteAside(streams, -1)
		return false
	}
	return true
}

// noteAside notes that one frame more, or less, in the side has lines of streams: more
// before it goes there, less when it is done.
func (l *spoolLane) noteAside(streams []string, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, labels := range streams {
		if l.aside[labels] += more; l.aside[labels] <= 0 { // below: it could not be read at the start
			delete(l.aside, labels)
		}
	}
}

// forgetAside forgets the streams of what was in the side when nothing is there any more:
// frames that were lost there are never done. Called with the side.
func (l *spoolLane) forgetAside() {
	l.keeping.Lock()
	defer l.keeping.Unlock()
	if l.queue.Empty() {
		l.main.mu.Lock()
		defer l.main.mu.Unlock()
		clear(l.main.aside)
	}
}

// streamsIn gives the streams, each once, of which lines are in parts in a state.
func streamsIn(b *entry.Batch, in entry.PartState) (streams []string) {
	for sec, c := range partsIn(b, in) {
		labels := sec.Source.Labels[c].String()
		if refused, taken := doneLines(b, sec, c); !slices.Contains(streams, labels) && refused+taken < int(sec.Lines[c]) {
			streams = append(streams, labels)
		}
	}
	return streams
}

// isKnown reports whether aside tells of all that is in the side.
func (l *spoolLane) isKnown() bool {
	select {
	case <-l.known:
		return true
	default:
		return false
	}
}

// findAside learns which streams an earlier run has left lines of in the side. If some
// of it cannot be read for long, newer lines of these streams may come before.
func (s *spooling) findAside(ctx context.Context, l *spoolLane) {
	decoder := entry.Decoder{Lane: l.index}
	for began := time.Now(); ; {
		err := l.side.queue.Scan(func(f spool.Frame) error {
			if decoder.Decode(&l.scratch, f.Payload) == nil { // else it will be told when its turn comes
				l.noteAside(streamsIn(&l.scratch, entry.PartPending), 1)
			}
			return ctx.Err()
		})
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.readable(l)
		case time.Since(began) < asidePatience:
			l.mu.Lock()
			clear(l.aside)
			l.mu.Unlock()
			s.unreadable(ctx, l, err)
			continue
		default:
			s.d.cfg.Logger.Error("spool cannot be read: of streams that wait there newer lines may be sent first", "error", err)
		}
		close(l.known)
		return
	}
}
