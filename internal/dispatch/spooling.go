package dispatch

import (
	"cmp"
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

const (
	// spoolRetry is the pause after the spool could not be read.
	spoolRetry = time.Second
	// asidePatience is for how long what is in the side is waited for.
	asidePatience = time.Hour
)

// spooling stands between the lanes and the sink. What the store does not take it
// keeps in the spool, and as long as a lane has anything there, all that follows
// goes there as well, so that the order is kept. A second dispatcher, with lanes
// of its own, brings what is in the spool to the sink, by the same rules for
// refused streams and lines as the first one.
//
//	lane --Push--> spooling --------------------------------> Sink
//	                  |  fails, or is silent, for a second, or    ^
//	                  |  is slow, or there are frames             |
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
// frames follows, and what comes from readers is refused: they are held. Only what
// cannot be read again, or stays behind when the agent stops, follows from there, too.
type spooling struct {
	sink  Sink
	d     *Dispatcher // whose sink this is
	back  *Dispatcher
	lanes []*spoolLane
	begun *trouble
	// unread: the disk does not give back what is in the spool.
	unread *trouble

	// used is closed by use, once something is in the spool.
	used chan struct{}
	use  func()

	mu sync.Mutex
	// parts are the sections of frames that are on their way, by the number of
	// their span: in the place of positions the frame is acknowledged, when all
	// its parts are done.
	parts    map[uint64]*frame
	lastPart uint64
	hurried  time.Time // since when the dispatcher is being drained; zero: it is not
}

// frame is one that is on its way.
type frame struct {
	lane *spoolLane
	seq  uint64
	left int // parts that are not done
	// streams are those that it has lines of, if it is of the side.
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
	why     error     // what is read goes to the spool, as of the last time that it began

	// keeping guards out, and is held while something is written to the queue, for what
	// goes aside comes from two senders. It is taken before mu of any lane.
	keeping sync.Mutex
	out     []byte // a frame's payload, reused

	// Owned by the reader.
	in      []byte
	decoder entry.Decoder
	scratch entry.Batch

	// known is closed once aside tells of all that is in the side; one channel for a lane
	// and its side. Until then nothing is sent, nor read from the queues.
	known chan struct{}

	mu   sync.Mutex
	pace pace
	// aside counts the frames in the side by the streams of the store, by their
	// labels, that have lines in them.
	aside map[string]int
}

// SpoolLanes is the number of lanes that the spool of a dispatcher has.
func SpoolLanes(lanes int) int { return 2 * lanes }

func newSpooling(d *Dispatcher) *spooling {
	cfg := d.cfg
	s := &spooling{
		sink: cfg.Sink, d: d, parts: make(map[uint64]*frame),
		begun: newTrouble(cfg.Spool.Lanes()), unread: newTrouble(cfg.Spool.Lanes()),
		used: make(chan struct{}),
	}
	s.use = sync.OnceFunc(func() { close(s.used) })
	back := cfg
	back.Lanes = cfg.Spool.Lanes() // an earlier agent may have had more
	back.BatchWait, back.BatchesPerLane = 0, 2
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
			decoder: entry.Decoder{Lane: i, Stats: cfg.Stats}, known: make(chan struct{}), aside: make(map[string]int),
		})
	}
	for i, l := range s.lanes[:cfg.Lanes] {
		l.side = s.lanes[cfg.Lanes+i]
		l.side.main = l
		l.side.known = l.known
	}
	for _, l := range s.lanes {
		if l.main == nil && (l.side == nil || l.side.queue.Empty()) {
			close(l.known)
		}
		if !l.queue.Empty() {
			s.use()
		}
	}
	return s
}

// run drains the spool until ctx ends. Where nothing has ever gone there no goroutine
// but this one runs for it.
func (s *spooling) run(ctx context.Context) {
	select {
	case <-s.used:
	case <-ctx.Done():
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.back.Run(ctx) })
	for _, l := range s.lanes {
		wg.Go(func() { s.read(ctx, l) })
	}
	wg.Wait()
}

// hurry sees to it that what is left can be kept within the grace period: what a
// request does not bring home now goes to the spool, and soon all goes there
// without one. A request that is under way has its time all the same.
func (s *spooling) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried = time.Now()
}

// inHurry reports whether the dispatcher is being drained, and whether so long that
// no more requests are begun.
func (s *spooling) inHurry() (hurry, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hurry = !s.hurried.IsZero()
	return hurry, hurry && time.Since(s.hurried) >= spoolAfter
}

// passage gives what the way of a batch depends on.
func (s *spooling) passage(l *spoolLane, b *entry.Batch) (p passage) {
	// First of all: once nothing comes from the queue only the lane's sender can
	// fill it, and what its last frame has put aside is known.
	p.empty = l.queue.Empty()
	p.known = l.isKnown()
	p.slow = l.isSlow()
	p.unlinked = unlinked(b, entry.PartPending)
	p.draining, p.late = s.inHurry()
	if !l.failing.IsZero() {
		p.failing = time.Since(l.failing)
	}
	return p
}

func (l *spoolLane) isSlow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pace.slow
}

// unlinked reports whether parts in a state have lines that are in no file with a name.
func unlinked(b *entry.Batch, in entry.PartState) bool {
	for sec := range partsIn(b, in) {
		if sec.Source.Unlinked.Load() {
			return true
		}
	}
	return false
}

// Push is Sink: it sends the batch, or keeps it. What is kept is PartKept, and
// the outcome says so.
func (s *spooling) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	l := s.lanes[b.Sections[0].Source.Lane]
	p := s.passage(l, b)
	w := p.way()
	var kept entry.Outcome
	if w.divert && l.divert(b) {
		kept.Err = errAside
		kept.Kept = s.hurryAside(l, b)
		if !b.Pending() {
			return kept
		}
	}
	if w.spool {
		err := s.keep(l, b)
		if err == nil {
			s.sayBegun(l, s.begun.lasts(l.index, time.Now()))
			kept.Kept = true
			l.failing = time.Time{}
			return kept
		}
		if !w.store {
			return entry.Outcome{Err: err}
		}
	}
	out, asked := s.attempt(ctx, l, b, progress, p)
	if s.hurryAside(l, b) {
		out.Kept = true
	}
	out.Err = cmp.Or(out.Err, kept.Err)
	if !b.Pending() {
		l.failing = time.Time{}
		return out
	}
	if l.failing.IsZero() {
		l.failing = asked
	}
	if p = s.passage(l, b); ctx.Err() != nil || !p.keeps(out) {
		return out
	}
	say := s.begun.begin(l.index, false, time.Now())
	if s.keep(l, b) != nil {
		s.begun.end(l.index, time.Now())
		return out // which is the better reason; the spool has told its own
	}
	s.d.metrics.failed.Inc()
	l.why = reason(out)
	s.sayBegun(l, say)
	l.failing = time.Time{}
	out.Kept = true
	return out
}

// sayBegun says that what is read goes to the spool, if it is to be said.
func (s *spooling) sayBegun(l *spoolLane, say bool) {
	if say {
		s.d.cfg.Logger.Warn("log store does not take lines for long: what is read goes to the spool", "error", l.why)
	}
}

// fromSpool is the sink of the second dispatcher.
type fromSpool struct{ *spooling }

// Push is Sink: what the store refuses alone goes aside.
func (s fromSpool) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	l := s.lanes[b.Sections[0].Source.Lane]
	if l.side == nil {
		return s.sink.Push(ctx, b, progress)
	}
	var out entry.Outcome
	held := l.divert(b)
	if b.Pending() {
		out, _ = s.attempt(ctx, l, b, progress, passage{})
	}
	if held {
		out.Err = cmp.Or(out.Err, errAside)
	}
	// It leaves the queue for that, so there is room for it when there is none.
	if ctx.Err() == nil && s.putHeldAside(l, b, (*spool.Lane).AppendReserved) {
		out.Kept = true
	}
	return out
}

var errSilent = errors.New("the store has not answered in time")

// attempt makes one attempt at the sink, which is cut when the store is silent for
// longer than the passage has patience. It notes how quick the store was, and gives
// when the last request began.
func (s *spooling) attempt(ctx context.Context, l *spoolLane, b *entry.Batch, progress func(context.Context), p passage) (out entry.Outcome, asked time.Time) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := func() time.Duration { return cmp.Or(p.way().patience, math.MaxInt64) }
	longest := time.Duration(0)
	asked = time.Now()
	silence := time.AfterFunc(limit(), func() { cancel(errSilent) })
	defer silence.Stop()
	b.Enough = false
	out = s.sink.Push(ctx, b, func(ctx context.Context) {
		longest = max(longest, time.Since(asked))
		silence.Stop()
		progress(ctx)
		asked = time.Now()
		p.failing = 0
		if _, late := s.inHurry(); late && limit() != math.MaxInt64 {
			b.Enough = true
		}
		silence.Reset(limit())
	})
	longest = max(longest, time.Since(asked))
	holdBehind(b)
	switch {
	case !b.Pending() && longest < quickBelow:
		s.note(l, pace.quick)
	case b.Pending() && errors.Is(context.Cause(ctx), errSilent):
		out.Err = errSilent
		s.note(l, pace.cut)
	}
	return out, asked
}

// note brings the pace of a lane up to date.
func (s *spooling) note(l *spoolLane, change func(pace, time.Time) pace) {
	l.mu.Lock()
	l.pace = change(l.pace, time.Now())
	l.mu.Unlock()
	s.drained(l)
}

// keep writes what is pending of a batch to a lane's queue.
func (s *spooling) keep(l *spoolLane, b *entry.Batch) error {
	l.keeping.Lock()
	defer l.keeping.Unlock()
	return s.write(l, b, entry.PartPending, (*spool.Lane).Append)
}

// write writes the parts of a batch that are in a state to a lane of the spool, durably,
// or changes nothing. Called with keeping held.
func (s *spooling) write(l *spoolLane, b *entry.Batch, in entry.PartState, write func(*spool.Lane, ...spool.Frame) error) error {
	out, lines, oldest := b.AppendParts(l.out[:0], in)
	if cap(out) <= 4*s.d.cfg.BatchBytes {
		l.out = out
	}
	if lines > 0 {
		if err := write(l.queue, spool.Frame{Payload: out, Records: lines, Oldest: oldest}); err != nil {
			return err
		}
		select {
		case l.appended <- struct{}{}:
		default:
		}
		s.use()
	}
	for sec, c := range partsIn(b, in) {
		sec.State[c] = entry.PartKept
	}
	return nil
}

// unreadable says that a lane's queue or side cannot be read, and waits before it is
// tried again.
func (s *spooling) unreadable(ctx context.Context, l *spoolLane, err error) {
	if s.unread.begin(l.index, false, time.Now()) {
		s.d.cfg.Logger.Error("spool cannot be read; it will be tried again", "error", err)
	}
	wait(ctx, spoolRetry, nil)
}

// readable says so, once no lane is unreadable.
func (s *spooling) readable(l *spoolLane) {
	if say, lasted := s.unread.end(l.index, time.Now()); say {
		s.d.cfg.Logger.Info("spool can be read again", "after", lasted)
	}
}

// read takes frames from the spool to the second dispatcher, oldest first.
func (s *spooling) read(ctx context.Context, l *spoolLane) {
	if l.side != nil && !l.isKnown() {
		s.findAside(ctx, l)
	}
	select {
	case <-l.known:
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		f, ok, err := l.queue.Next(l.in[:0])
		if err != nil {
			s.unreadable(ctx, l, err)
			continue
		}
		s.readable(l)
		if !ok {
			s.drained(l)
			if !wait(ctx, warmFor, l.appended) {
				s.coolDown(l)
				wait(ctx, time.Hour, l.appended)
			}
			continue
		}
		if cap(f.Payload) <= 4*s.d.cfg.BatchBytes {
			l.in = f.Payload
		}
		fr := &frame{lane: l, seq: f.Seq}
		if err := l.decoder.Decode(&l.scratch, f.Payload); err != nil {
			s.d.metrics.lostFrames.Add(float64(f.Records))
			kept := l.queue.NotUnderstood(f.Seq, errors.Is(err, entry.ErrBinaryVersion))
			s.d.cfg.Logger.Error("frame of the spool cannot be read back; its lines are lost", "lines", f.Records, "kept_as", kept, "error", err)
			s.done(fr)
			continue
		}
		b, err := s.back.Reserve(ctx, l.index)
		if err != nil {
			return // ctx has ended
		}
		s.hand(fr, &l.scratch, b)
		if fr.left == 0 {
			s.done(fr) // there was nothing in it
		}
		s.back.Submit(l.index, b)
	}
}

// wait waits for news, and reports whether there were any before d had passed or
// ctx ended.
func wait(ctx context.Context, d time.Duration, news <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-news:
		return true
	}
	return false
}

// coolDown gives back the memory of a lane of which nothing is being read.
func (s *spooling) coolDown(l *spoolLane) {
	l.in, l.scratch = nil, entry.Batch{}
	l.keeping.Lock()
	l.out = nil
	l.keeping.Unlock()
	s.back.lanes[l.index].dropFree()
}

// hand copies a frame's lines behind those of a batch, and numbers its parts.
func (s *spooling) hand(f *frame, from, to *entry.Batch) {
	if f.lane.main != nil {
		f.streams = streamsIn(from, entry.PartPending)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range from.Sections {
		part := to.CopySection(from, &from.Sections[i], nil)
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
	if f.lane.main != nil {
		f.lane.main.noteAside(f.streams, -1) // before the side may be empty: see forgetAside
	}
	_ = f.lane.queue.Ack(f.seq)
	s.drained(f.lane)
}

// drained tells that a lane's lines go directly again, if they do.
func (s *spooling) drained(l *spoolLane) {
	if l.main != nil {
		l.forgetAside()
	}
	if l.isSlow() || !l.queue.Empty() {
		return
	}
	if say, lasted := s.begun.end(l.index, time.Now()); say {
		s.d.cfg.Logger.Info("spool is drained: lines go to the store directly again", "after", lasted)
	}
}
