package dispatch

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

const (
	// spoolAfter is for how long the store may fail before a batch goes to the
	// spool: the readers must not wait, for rotation does not.
	spoolAfter = time.Second

	// cutAfter is how long a request may take once the dispatcher is drained.
	cutAfter = time.Second

	// spoolRetry is the pause after the spool could not be read.
	spoolRetry = time.Second
)

// spooling stands between the lanes and the sink. What the store does not take it
// keeps in the spool, and as long as a lane has anything there, all that follows
// goes there as well, so that the order is kept. A second dispatcher, with lanes
// of its own, brings what is in the spool to the sink, by the same rules for
// refused streams and lines as the first one.
//
//	lane --Push--> spooling --------------------------------> Sink
//	                  |  fails for a second, or there are frames: ^
//	                  v                                           |
//	               spool --Next--> reader --> back: lane ---------+
//	                  ^                                  |
//	                  +------ Ack of whole frames -------+
//
// So at any time a lane's lines come to the sink from one side only: directly
// while the lane's queue is empty, which it is only when everything that has come
// from it is done.
//
// A stream that the store refuses alone must not hold up the frames behind it:
// its lines go from there to a second queue of the lane, the side, which is
// drained by itself. As long as a stream has lines there, what comes of it in
// frames follows, and what comes from readers is refused: they are held.
type spooling struct {
	sink  Sink
	d     *Dispatcher // whose sink this is
	back  *Dispatcher
	lanes []*spoolLane
	begun *trouble

	mu sync.Mutex
	// parts are the sections of frames that are on their way, by the number of
	// their span: in the place of positions the frame is acknowledged, when all
	// its parts are done.
	parts    map[uint64]*frame
	lastPart uint64
	hurried  bool // the dispatcher is being drained
}

// frame is one that is on its way.
type frame struct {
	lane *spoolLane
	seq  uint64
	left int // parts that are not done
	// streams are those that it has lines of, if it is of the side and that is
	// counted.
	streams []string
}

// spoolLane is one lane's way through the spool.
type spoolLane struct {
	index int
	queue *spool.Lane
	side  *spoolLane // nil: it is one, of main
	main  *spoolLane
	// appended has room for one: there is a frame to be read.
	appended chan struct{}

	// Owned by the lane's sender.
	failing time.Time // since when the store has failed without a break; zero: it does not

	// keeping guards out: what goes aside comes from two senders.
	keeping sync.Mutex
	out     []byte // a frame's payload, reused

	// Owned by the reader.
	in      []byte
	decoder entry.Decoder
	scratch entry.Batch

	mu  sync.Mutex
	cut func() // cancels the request in flight
	// aside counts the frames in the side by the streams of the store, by their
	// labels, that have lines in them. foreign: there are frames of an earlier run
	// as well. Of these the streams are not known until the store refuses them
	// again: what it takes of them now comes before.
	aside   map[string]int
	foreign bool
}

// SpoolLanes is the number of lanes that the spool of a dispatcher has.
func SpoolLanes(lanes int) int { return 2 * lanes }

func newSpooling(d *Dispatcher) *spooling {
	cfg := d.cfg
	s := &spooling{
		sink: cfg.Sink, d: d, parts: make(map[uint64]*frame), begun: newTrouble(cfg.Spool.Lanes(), 0),
	}
	back := cfg
	back.Lanes = cfg.Spool.Lanes() // an earlier agent may have had more
	back.BatchWait, back.BatchesPerLane = -1, 2
	back.Acks = s
	back.Sink = fromSpool{s}
	back.Spool, back.Registerer = nil, nil
	back.Wake = func(*entry.Source) {} // nobody reads by these sources
	back.Logger = cfg.Logger.With("from", "spool")
	s.back = New(back)
	s.back.metrics, s.back.drains = d.metrics, true
	for i := range back.Lanes {
		s.lanes = append(s.lanes, &spoolLane{
			index: i, queue: cfg.Spool.Lane(i), appended: make(chan struct{}, 1),
			decoder: entry.Decoder{Lane: i, Stats: cfg.Stats}, aside: make(map[string]int),
		})
	}
	for i, l := range s.lanes[:cfg.Lanes] {
		l.side = s.lanes[cfg.Lanes+i]
		l.side.main = l
		l.foreign = !l.side.queue.Empty()
	}
	return s
}

// run drains the spool until ctx ends.
func (s *spooling) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.back.Run(ctx) })
	for _, l := range s.lanes {
		wg.Go(func() { s.read(ctx, l) })
	}
	wg.Wait()
}

// hurry lets requests end soon, so that what is left can be kept within the grace
// period.
func (s *spooling) hurry() {
	s.mu.Lock()
	s.hurried = true
	s.mu.Unlock()
	for _, l := range s.lanes {
		time.AfterFunc(cutAfter, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.cut != nil {
				l.cut()
			}
		})
	}
}

func (s *spooling) inHurry() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hurried
}

// Push is Sink: it sends the batch, or keeps it. What is kept is PartKept, and
// the outcome says so.
func (s *spooling) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	l := s.lanes[b.Sections[0].Source.Lane]
	// First of all: once nothing comes from the queue only this goroutine can
	// fill it, and what its last frame has put aside is known.
	direct, hurry := l.queue.Empty(), s.inHurry()
	var kept entry.Outcome
	// In a hurry nothing passes by what is in the queue to get aside.
	if (direct || !hurry) && l.divert(b) {
		kept.Err = errAside
		kept.Kept = hurry && s.putHeldAside(l, b)
		if !b.Pending() {
			return kept
		}
	}
	if !direct {
		if err := s.keep(l, b, entry.PartPending); err != nil {
			return entry.Outcome{Err: cmp.Or(kept.Err, err)}
		}
		kept.Kept = true
		return kept
	}
	began := time.Now()
	out := s.send(ctx, l, b, progress)
	if l.unknown() {
		l.putAside(held(b)) // it may have older lines there
	}
	if s.inHurry() && s.putHeldAside(l, b) {
		out.Kept = true
	}
	out.Err = cmp.Or(out.Err, kept.Err)
	if !b.Pending() {
		l.failing = time.Time{}
		return out
	}
	if l.failing.IsZero() {
		l.failing = began
	}
	// To ask again within the second makes sense only if the store may have
	// changed its mind.
	again := !out.Config && out.RetryAfter < spoolAfter && time.Since(l.failing) < spoolAfter
	if ctx.Err() != nil || again && !s.inHurry() {
		return out
	}
	say := s.begun.begin(l.index, false, time.Now())
	if s.keep(l, b, entry.PartPending) != nil {
		s.begun.end(l.index, time.Now())
		return out // which is the better reason; the spool has told its own
	}
	if say {
		s.d.cfg.Logger.Warn("log store does not take lines for long: what is read goes to the spool", "error", reason(out))
	}
	l.failing = time.Time{}
	out.Kept = true
	return out
}

// errAside is why lines of a stream are held back.
var errAside = errors.New("older lines of this stream wait in the spool, since the store refuses them for now")

// divert holds the pending parts whose stream is aside, and reports whether there
// are any.
func (l *spoolLane) divert(b *entry.Batch) (found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.foreign && l.side.queue.Empty() {
		clear(l.aside)
		l.foreign = false
	}
	if len(l.aside) == 0 {
		return false
	}
	for i := range b.Sections {
		sec := &b.Sections[i]
		for c, state := range sec.State {
			if state != entry.PartPending {
				continue
			}
			if l.aside[sec.Source.Labels[c].String()] > 0 {
				sec.State[c] = entry.PartHeld
				found = true
			}
		}
	}
	return found
}

// putAside notes streams of which a frame is in the side.
func (l *spoolLane) putAside(streams []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, labels := range streams {
		l.aside[labels]++
	}
}

// takeBack notes that a frame of the side is done with. It may be told before the
// frame is noted.
func (l *spoolLane) takeBack(streams []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, labels := range streams {
		if l.aside[labels]--; l.aside[labels] == 0 {
			delete(l.aside, labels)
		}
	}
}

// unknown reports whether the side may hold lines of an earlier run.
func (l *spoolLane) unknown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.foreign
}

// held gives the streams of which parts are held, each once.
func held(b *entry.Batch) []string { return streamsIn(b, entry.PartHeld) }

// streamsIn gives the streams of which parts are in a state, each once.
func streamsIn(b *entry.Batch, in entry.PartState) (streams []string) {
	for i := range b.Sections {
		sec := &b.Sections[i]
		for c, state := range sec.State {
			if state != in {
				continue
			}
			if labels := sec.Source.Labels[c].String(); !slices.Contains(streams, labels) {
				streams = append(streams, labels)
			}
		}
	}
	return streams
}

// fromSpool is the sink of the second dispatcher.
type fromSpool struct{ *spooling }

// Push is Sink: what the store refuses alone goes aside.
func (s fromSpool) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	l := s.lanes[b.Sections[0].Source.Lane]
	if l.side == nil {
		return s.sink.Push(ctx, b, progress)
	}
	l.divert(b)
	var out entry.Outcome
	if b.Pending() {
		out = s.sink.Push(ctx, b, progress)
	}
	out.Err = cmp.Or(out.Err, errAside) // of use only if anything is left
	if ctx.Err() == nil && s.putHeldAside(l, b) {
		out.Kept = true
	}
	return out
}

// putHeldAside moves the parts that are held to the side, and reports whether it
// has.
func (s *spooling) putHeldAside(l *spoolLane, b *entry.Batch) bool {
	streams := held(b)
	if len(streams) == 0 || s.keep(l.side, b, entry.PartHeld) != nil {
		return false
	}
	l.putAside(streams)
	return true
}

// send makes one attempt at the sink, a short one if the dispatcher is drained.
func (s *spooling) send(ctx context.Context, l *spoolLane, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.cut = cancel
	l.mu.Unlock()
	if s.inHurry() {
		end := time.AfterFunc(cutAfter, cancel)
		defer end.Stop()
	}
	defer func() {
		l.mu.Lock()
		l.cut = nil
		l.mu.Unlock()
	}()
	return s.sink.Push(ctx, b, progress)
}

// keep writes the parts of a batch that are in a state to the spool, durably, or
// changes nothing.
func (s *spooling) keep(l *spoolLane, b *entry.Batch, in entry.PartState) error {
	l.keeping.Lock()
	defer l.keeping.Unlock()
	out, lines, oldest := b.AppendParts(l.out[:0], in)
	if cap(out) <= 4*s.d.cfg.BatchBytes {
		l.out = out
	}
	if lines > 0 {
		if err := l.queue.Append(spool.Frame{Payload: out, Records: lines, Oldest: oldest}); err != nil {
			return err
		}
		select {
		case l.appended <- struct{}{}:
		default:
		}
	}
	for i := range b.Sections {
		sec := &b.Sections[i]
		for c, state := range sec.State {
			if state == in {
				sec.State[c] = entry.PartKept
			}
		}
	}
	return nil
}

// read takes frames from the spool to the second dispatcher, oldest first.
func (s *spooling) read(ctx context.Context, l *spoolLane) {
	for ctx.Err() == nil {
		f, ok, err := l.queue.Next(l.in[:0])
		switch {
		case err != nil:
			s.d.cfg.Logger.Error("spool cannot be read; it will be tried again", "error", err)
			wait(ctx, spoolRetry, nil)
			continue
		case !ok:
			s.drained(l)
			wait(ctx, time.Hour, l.appended)
			continue
		}
		if cap(f.Payload) <= 4*s.d.cfg.BatchBytes {
			l.in = f.Payload
		}
		if err := l.decoder.Decode(&l.scratch, f.Payload); err != nil {
			s.d.metrics.lostFrames.Add(float64(f.Records))
			s.d.cfg.Logger.Error("frame of the spool cannot be read back; its lines are lost", "lines", f.Records, "error", err)
			s.done(&frame{lane: l, seq: f.Seq})
			continue
		}
		b, err := s.back.Reserve(ctx, l.index)
		if err != nil {
			return // ctx has ended
		}
		fr := &frame{lane: l, seq: f.Seq}
		s.hand(fr, &l.scratch, b)
		if fr.left == 0 {
			s.done(fr) // there was nothing in it
		}
		s.back.Submit(l.index, b)
	}
}

func wait(ctx context.Context, d time.Duration, news <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-news:
	}
}

// hand copies a frame's lines behind those of a batch, and numbers its parts.
func (s *spooling) hand(f *frame, from, to *entry.Batch) {
	if main := f.lane.main; main != nil && !main.unknown() {
		f.streams = streamsIn(from, entry.PartPending)
	}
	first := len(to.Sections)
	for i := range from.Sections {
		to.CopySection(from, &from.Sections[i], nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := first; i < len(to.Sections); i++ {
		part := &to.Sections[i]
		for stream := range part.Seq {
			if !undone(part, entry.Stream(stream)) {
				continue
			}
			s.lastPart++
			part.Seq[stream] = s.lastPart
			s.parts[s.lastPart] = f
			f.left++
		}
	}
}

// Ack is Acks of the second dispatcher: a frame is acknowledged when all its
// parts are done.
func (s *spooling) Ack(spans []entry.Span) error {
	s.mu.Lock()
	var done []*frame
	for _, span := range spans {
		f := s.parts[span.Seq]
		if f == nil {
			continue
		}
		delete(s.parts, span.Seq)
		if f.left--; f.left == 0 {
			done = append(done, f)
		}
	}
	s.mu.Unlock()
	for _, f := range done {
		s.done(f)
	}
	return nil
}

// done takes a frame off the spool. That it cannot be noted is the spool's to
// tell: it would come again after a restart.
func (s *spooling) done(f *frame) {
	_ = f.lane.queue.Ack(f.seq)
	if len(f.streams) > 0 {
		f.lane.main.takeBack(f.streams)
	}
	s.drained(f.lane)
}

// drained tells that a lane's queue is empty, if it is.
func (s *spooling) drained(l *spoolLane) {
	if !l.queue.Empty() {
		return
	}
	if say, lasted := s.begun.end(l.index, time.Now()); say {
		s.d.cfg.Logger.Info("spool is drained: lines go to the store directly again", "after", lasted)
	}
}
