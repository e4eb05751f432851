package positions

import "github.com/log-capturer/log_capturer/internal/entry"

// span is some lines on their way.
type span struct {
	end  entry.Position // where the stream stands once they are delivered
	done bool
}

// track follows one stream of one log: the end of the contiguous acknowledged
// prefix, and the spans behind it. It is not safe for concurrent use.
type track struct {
	pos entry.Position
	// Spans first <= seq < next are in flight. Both start at 1 and only grow.
	first, next uint64
	// ring holds span seq at seq & (len(ring)-1); its length is 0 or a power of
	// two. It grows as needed and lives as long as the log is registered: its
	// size is bounded by what may be in flight.
	ring []span
}

// verdict says what an acknowledgement was.
type verdict uint8

const (
	ackTaken verdict = iota
	ackDuplicate
	ackUnknown
)

func newTrack(pos entry.Position) track { return track{pos: pos, first: 1, next: 1} }

func (t *track) inFlight() int { return int(t.next - t.first) }

func (t *track) at(seq uint64) *span { return &t.ring[seq&uint64(len(t.ring)-1)] }

// tip is where the reader stands: behind the newest span in flight.
func (t *track) tip() entry.Position {
	if t.inFlight() == 0 {
		return t.pos
	}
	return t.at(t.next - 1).end
}

// push puts lines that end at end in flight and gives their number.
func (t *track) push(end entry.Position) uint64 {
	if t.inFlight() == len(t.ring) {
		t.grow()
	}
	seq := t.next
	t.next++
	*t.at(seq) = span{end: end}
	return seq
}

func (t *track) grow() {
	old := *t
	t.ring = make([]span, max(8, 2*len(old.ring)))
	for seq := old.first; seq < old.next; seq++ {
		*t.at(seq) = *old.at(seq)
	}
}

// move notes that the reader has gone to end without reading a line of the
// stream. It reports whether pos has changed.
func (t *track) move(end entry.Position) (changed bool) {
	if t.inFlight() > 0 {
		// Before the lines in flight are delivered, nothing behind them counts.
		// The newest span cannot be done and passed: it would not be in flight.
		t.at(t.next - 1).end = end
		return false
	}
	changed = t.pos != end
	t.pos = end
	return changed
}

// ack marks a span as delivered. advanced is the number of spans that pos has
// gone over with it.
func (t *track) ack(seq uint64) (v verdict, advanced int) {
	switch {
	case seq == 0 || seq >= t.next:
		return ackUnknown, 0
	case seq < t.first || t.at(seq).done:
		return ackDuplicate, 0
	}
	t.at(seq).done = true
	for ; t.first < t.next && t.at(t.first).done; advanced++ {
		t.pos = t.at(t.first).end
		t.first++
	}
	return ackTaken, advanced
}
