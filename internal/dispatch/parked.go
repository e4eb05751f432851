package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// parkedGap is the least time from a refused attempt with a parked part to the
// lane's next attempt with one: with many streams held, the store is asked about
// them at most 20 times a second by a lane.
const parkedGap = 50 * time.Millisecond

// parkedStream is the lines of one stream of the store that it refuses for now,
// in order.
type parkedStream struct {
	labels string
	chunks []*slot // oldest first; each has sections of one class
	since  time.Time
	due    time.Time
	fails  int // attempts in a row that brought nothing home
	config bool
}

// parkingLot is the part of a lane's state that is about parked lines. It
// belongs to the sender.
//
// Lines are parked by stream of the store, that is by their labels: a source and
// class have one, and those of a recreated container have the same one, whose
// lines must not pass those of its predecessor.
type parkingLot struct {
	streams     []*parkedStream // in the order in which they were parked
	byLabels    map[string]*parkedStream
	parkedBytes int // of all chunks, until they are done
	notBefore   time.Time
	lastErr     string
	// parts counts, by source, the sections in chunks that are not done. A source
	// is held as long as it is in there.
	parts map[*entry.Source]int
	// shared counts, for a span whose lines are in more than one place (its
	// stdout parked, its malformed lines not), the places that are not done.
	shared map[entry.Span]int
}

func newParkingLot() parkingLot {
	return parkingLot{
		byLabels: make(map[string]*parkedStream),
		parts:    make(map[*entry.Source]int),
		shared:   make(map[entry.Span]int),
	}
}

// parkedDue is when a parked part may be tried; zero: there is none.
func (p *parkingLot) parkedDue() time.Time {
	s := p.first()
	switch {
	case s == nil:
		return time.Time{}
	case s.due.Before(p.notBefore):
		return p.notBefore
	}
	return s.due
}

// first is the stream that is due first.
func (p *parkingLot) first() (first *parkedStream) {
	for _, s := range p.streams {
		if first == nil || s.due.Before(first.due) {
			first = s
		}
	}
	return first
}

// publishParked brings the lane's health up to date. Called with mu held.
func (l *lane) publishParked() {
	l.health.HeldStreams = len(l.streams)
	l.health.ParkedBytes = l.parkedBytes
	l.health.HeldConfig = false
	l.health.HeldError = l.lastErr
	l.oldest = time.Time{}
	for _, s := range l.streams {
		l.health.HeldConfig = l.health.HeldConfig || s.config
		if l.oldest.IsZero() || s.since.Before(l.oldest) {
			l.oldest = s.since
		}
	}
}

// divert moves out of a batch what the store has just refused for now, and all
// that has to stay behind lines that are parked.
func (l *lane) divert(sl *slot, out entry.Outcome, now time.Time) {
	for s, c := range partsIn(&sl.Batch, entry.PartHeld) {
		l.hold(s.Source.Labels[c].String(), sl.since, out, now)
	}
	if len(l.streams) == 0 {
		return
	}
	for s, c := range partsIn(&sl.Batch, entry.PartHeld, entry.PartPending) {
		if p := l.byLabels[s.Source.Labels[c].String()]; p != nil {
			l.park(p, sl, s, c)
		}
	}
	// A stream of which only refused lines were left has nothing to wait for.
	for i := len(l.streams) - 1; i >= 0; i-- {
		if len(l.streams[i].chunks) == 0 {
			l.drop(l.streams[i], now)
		}
	}
}

// hold opens a parked stream, unless it is open.
func (l *lane) hold(labels string, since time.Time, out entry.Outcome, now time.Time) {
	if l.byLabels[labels] != nil {
		return
	}
	p := &parkedStream{labels: labels, since: since}
	l.streams = append(l.streams, p)
	l.byLabels[labels] = p
	l.d.metrics.holds.Inc()
	l.postpone(p, out, now)
	if l.d.heldTrouble.begin(l.index, false, now) {
		l.d.cfg.Logger.Warn("log store refuses a stream for now; its log waits, the others go on",
			"stream", labels, "error", reason(out))
	}
}

// postpone sets when a stream is tried next, after the store has refused it.
func (l *lane) postpone(p *parkedStream, out entry.Outcome, now time.Time) {
	p.fails++
	p.config = out.Config
	p.due = now.Add(pause(p.fails, out.Config, out.RetryAfter, l.d.random()))
	l.lastErr = reason(out).Error()
}

// drop closes a parked stream of which nothing is left.
func (l *lane) drop(p *parkedStream, now time.Time) {
	l.streams = slices.DeleteFunc(l.streams, func(s *parkedStream) bool { return s == p })
	delete(l.byLabels, p.labels)
	if len(l.streams) > 0 {
		return
	}
	l.lastErr = ""
	if say, lasted := l.d.heldTrouble.end(l.index, now); say {
		l.d.cfg.Logger.Info("log store takes all streams again", "after", lasted)
	}
}

// park copies a part behind what is parked of its stream, and marks it empty in
// the batch. Lines refused for good are dead letters already, and those
// that are accepted are counted here: both stay behind.
func (l *lane) park(p *parkedStream, sl *slot, s *entry.Section, class entry.Class) {
	s.State[class] = entry.PartEmpty
	refused, taken := sl.done(s, class)
	l.delivered(s.Source, class, taken)
	if refused+taken == int(s.Lines[class]) {
		return
	}
	var chunk *slot
	if n := len(p.chunks); n > 0 {
		chunk = p.chunks[n-1]
	}
	if chunk == nil || chunk.Size()+int(s.Bytes[class]) > l.d.cfg.BatchBytes {
		chunk = &slot{parked: true}
		p.chunks = append(p.chunks, chunk)
	}
	before := chunk.Size()
	part := chunk.CopySection(&sl.Batch, s, func(line *entry.Line) bool {
		return line.Class == class && line.Flags&entry.FlagsDone == 0
	})
	l.parkedBytes += chunk.Size() - before

	stream := class.Stream()
	if seq := s.Seq[stream]; seq != 0 {
		part.Seq[stream] = seq
		if undone(s, stream) {
			span := entry.Span{Log: s.Source.Log, Stream: stream, Seq: seq}
			l.shared[span] = max(l.shared[span], 1) + 1
		} else {
			s.Seq[stream] = 0 // the span moves altogether
		}
	}
	l.parts[s.Source]++
	s.Source.Held.Store(true)
}

// lastPlace reports whether a span that is done in one place is done everywhere.
func (l *lane) lastPlace(span entry.Span) bool {
	n, split := l.shared[span]
	if !split {
		return true
	}
	if n > 1 {
		l.shared[span] = n - 1
		return false
	}
	delete(l.shared, span)
	return true
}

// unpark notes that one parked section of a source is done, and reports whether it was
// the last one.
func (l *lane) unpark(src *entry.Source) bool {
	l.parts[src]--
	if l.parts[src] > 0 {
		return false
	}
	delete(l.parts, src)
	return true
}

// sendParked makes one attempt with the oldest lines of the parked stream that
// is due.
func (l *lane) sendParked(ctx context.Context) {
	p := l.first()
	sl := p.chunks[0]
	out := l.push(ctx, sl)
	now := time.Now()
	if !l.bury(ctx, sl) {
		return
	}
	held := reopen(sl)
	l.settle(sl, now)
	if l.progress {
		p.fails = 0
	}
	switch {
	case !sl.Pending():
		l.parkedBytes -= sl.Size()
		p.chunks = slices.Delete(p.chunks, 0, 1)
		p.due, p.config = now, false
		if len(p.chunks) == 0 {
			l.drop(p, now)
		}
		l.succeed(now, out.Kept)
	case ctx.Err() != nil:
	case held:
		l.postpone(p, out, now)
		l.notBefore = now.Add(parkedGap)
		l.succeed(now, false) // the store as a whole is well
	default:
		l.fail(out, now)
	}
}

// reopen makes held parts of a chunk pending again, and reports whether there
// were any. One of which every line was refused for good has nothing to be held.
func reopen(sl *slot) (held bool) {
	for s, c := range partsIn(&sl.Batch, entry.PartHeld) {
		if sl.left(s, c) == 0 {
			s.State[c] = entry.PartAccepted
		} else {
			s.State[c] = entry.PartPending
			held = true
		}
	}
	return held
}
