package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// The model: readers append numbered lines of several sources, the store answers
// as a script says and then accepts everything. What every attempt, every
// acknowledgement and every dead letter may be follows from what happened before;
// see world.

// answer is how the store answers one attempt.
type answer int

const (
	answerAccept  answer = iota
	answerSlowly         // accept after a while
	answerDown           // nothing stored
	answerAfter          // everything stored, then the connection broke
	answerHang           // until the sink's time-out, or ctx
	answerConfig         // nothing stored, a matter of configuration
	answerLater          // nothing stored, Retry-After
	answerByParts        // each stream its own way
	answerHold           // one source is held, the rest accepted
	answerSteps          // part by part with word of it, then as stepEnds says
	numAnswers
)

// plan is one run of the model.
type plan struct {
	lanes, batches    int
	batchBytes, cap   int
	sources           int
	readers           int // per lane
	reads             []read
	answers           []answer // by attempt, then answerAccept
	deadFails         []bool   // by Append
	ackFails          []bool   // by Ack
	seed              uint64   // for what happens within an attempt
	refuse            int      // one line in so many is refused for good; 0: none
	cut               time.Duration
	ignoreHeldForever bool // readers do not look at Held
}

// read is one reading of one source.
type read struct {
	source int
	lines  []int // class + 3*padding
	think  time.Duration
	empty  bool // give an empty batch back first
}

func drawPlan(t *rapid.T) plan {
	p := plan{
		lanes:             rapid.IntRange(1, 2).Draw(t, "lanes"),
		batches:           rapid.IntRange(1, 4).Draw(t, "batches"),
		batchBytes:        rapid.SampledFrom([]int{1, 100, 300, 2000}).Draw(t, "batchBytes"),
		cap:               rapid.SampledFrom([]int{1, 400, 1 << 20}).Draw(t, "parkedBytes"),
		sources:           rapid.IntRange(1, 6).Draw(t, "sources"),
		readers:           rapid.IntRange(1, 2).Draw(t, "readers"),
		answers:           rapid.SliceOfN(rapid.Custom(func(t *rapid.T) answer { return answer(rapid.IntRange(0, int(numAnswers)-1).Draw(t, "answer")) }), 0, 30).Draw(t, "answers"),
		deadFails:         rapid.SliceOfN(rapid.Bool(), 0, 5).Draw(t, "deadFails"),
		ackFails:          rapid.SliceOfN(rapid.Bool(), 0, 5).Draw(t, "ackFails"),
		seed:              rapid.Uint64().Draw(t, "seed"),
		refuse:            rapid.SampledFrom([]int{0, 2, 10}).Draw(t, "refuse"),
		ignoreHeldForever: rapid.Bool().Draw(t, "ignoreHeld"),
	}
	if rapid.IntRange(0, 4).Draw(t, "cutShort") == 0 {
		p.cut = time.Duration(rapid.IntRange(1, 60_000).Draw(t, "cut")) * time.Millisecond
	}
	one := rapid.Custom(func(t *rapid.T) read {
		return read{
			source: rapid.IntRange(0, p.sources-1).Draw(t, "source"),
			lines:  rapid.SliceOfN(rapid.IntRange(0, 60*3-1), 1, 8).Draw(t, "lines"),
			think:  time.Duration(rapid.SampledFrom([]int{0, 0, 1, 40, 300, 5000}).Draw(t, "think")) * time.Millisecond,
			empty:  rapid.IntRange(0, 9).Draw(t, "empty") == 0,
		}
	})
	p.reads = rapid.SliceOfN(one, 1, 60).Draw(t, "reads")
	return p
}

// key is one part's stream: what has to stay in order.
type key struct {
	src   *entry.Source
	class entry.Class
}

// lineState is what has become of a line.
type lineState struct {
	accepted bool // the store took it and said so
	unsure   bool // the store took it and did not say so
	taken    bool // it was accepted with FlagTaken: it is not to come again
	refused  bool // the store will never take it
	dead     bool // it is a dead letter
	held     bool // its stream was refused for now
}

// stream is the truth about a key's lines, which are numbered from 0.
type stream struct {
	lines []lineState
	// next is the first that is neither accepted nor refused.
	next int
}

// world is the store, the positions, the dead letters and the oracle.
type world struct {
	plan plan
	d    *Dispatcher

	mu       sync.Mutex
	problems []string
	streams  map[key]*stream
	sources  []*entry.Source
	seq      map[entry.Span]uint64
	spans    map[entry.Span][]lineRef // the lines of a span
	acked    map[entry.Span]bool
	inFlight []int                   // attempts, by lane
	holders  []bool                  // readers with a reservation, by lane
	batches  []map[*entry.Batch]bool // seen, by lane
	attempts int
	appends  int
	acks     int
	failAcks map[entry.Span]bool // given to an Ack that failed
	calm     bool                // the script is over
	rands    []*rand.Rand        // by lane
	changed  []chan struct{}     // by lane and reader: some source was woken
}

type lineRef struct {
	k key
	n int
}

func (w *world) wrong(format string, args ...any) {
	if len(w.problems) < 10 {
		w.problems = append(w.problems, fmt.Sprintf(format, args...))
	}
}

func newWorld(p plan) *world {
	w := &world{
		plan: p, streams: map[key]*stream{}, seq: map[entry.Span]uint64{},
		spans: map[entry.Span][]lineRef{}, acked: map[entry.Span]bool{}, failAcks: map[entry.Span]bool{},
		inFlight: make([]int, p.lanes), holders: make([]bool, p.lanes),
	}
	for i := range p.sources {
		src := newSource(uint32(i+1), i%p.lanes)
		w.sources = append(w.sources, src)
		for c := range entry.Class(entry.NumClasses) {
			w.streams[key{src, c}] = &stream{}
		}
	}
	for i := range p.lanes {
		w.batches = append(w.batches, map[*entry.Batch]bool{})
		w.rands = append(w.rands, rand.New(rand.NewPCG(p.seed, uint64(i))))
		for range p.readers {
			w.changed = append(w.changed, make(chan struct{}, 1))
		}
	}
	w.d = New(Config{
		Lanes: p.lanes, BatchBytes: p.batchBytes, BatchWait: batchWait, BatchesPerLane: p.batches, ParkedBytes: p.cap,
		Sink: w, Acks: w, DeadLetters: w, Wake: w.wake,
	})
	w.d.random = func() float64 { return 0.5 } // for the sake of shrinking
	return w
}

// name is a line's text, less its padding.
func name(r lineRef) string { return fmt.Sprintf("%d/%d/%d/", r.k.src.Log, r.k.class, r.n) }

func (w *world) lineOf(b *entry.Batch, l *entry.Line) lineRef {
	var log, class, n int
	if _, err := fmt.Sscanf(string(b.Message(l)), "%d/%d/%d/", &log, &class, &n); err != nil || log < 1 || log > len(w.sources) {
		w.wrong("text of a line spoilt: %q", b.Message(l))
		return lineRef{key{w.sources[0], 0}, 0}
	}
	if class != int(l.Class) {
		w.wrong("class of %q is %d", b.Message(l), l.Class)
	}
	if l.Time != int64(n) {
		w.wrong("time of %q is %d", b.Message(l), l.Time)
	}
	return lineRef{key{w.sources[log-1], entry.Class(class)}, n}
}

func (w *world) state(r lineRef) *lineState { return &w.streams[r.k].lines[r.n] }

// Push is the store. It first checks what it is given against all that happened
// before: one request in flight by lane; every stream's lines go on exactly
// where the last accepted line was, whatever the answer will be.
func (w *world) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	w.mu.Lock()
	lane := b.Sections[0].Source.Lane
	w.inFlight[lane]++
	if w.inFlight[lane] > 1 {
		w.wrong("two requests in flight in lane %d", lane)
	}
	w.checkAttempt(lane, b)
	do := answerAccept
	if w.attempts < len(w.plan.answers) && !w.calm {
		do = w.plan.answers[w.attempts]
	}
	w.attempts++
	w.mu.Unlock()

	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	switch do {
	case answerSlowly:
		wait(70 * time.Millisecond)
	case answerHang:
		wait(10 * time.Second)
	default:
		wait(time.Millisecond)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	rnd := w.rands[lane]
	if do == answerSteps {
		do = w.steps(ctx, rnd, lane, b, progress)
	}
	w.inFlight[lane]--
	down := entry.Outcome{Err: errors.New("down")}
	if ctx.Err() != nil && rnd.IntN(2) == 0 {
		return down
	}
	switch do {
	case answerDown, answerHang:
		return down
	case answerConfig:
		down.Config = true
		return down
	case answerLater:
		down.RetryAfter = 15 * time.Second
		return down
	case answerAfter:
		eachPending(b, func(_ *entry.Section, l *entry.Line) { w.state(w.lineOf(b, l)).unsure = true })
		return down
	case answerByParts:
		w.byParts(rnd, b, func(key) int { return []int{0, 1, 2, 3, 4, 6}[rnd.IntN(6)] })
	case answerHold:
		src := w.sources[rnd.IntN(len(w.sources))]
		w.byParts(rnd, b, func(k key) int {
			if k.src == src {
				return 1
			}
			return 0
		})
	default:
		w.byParts(rnd, b, func(key) int { return 0 })
	}
	undelivered := false
	for i := range b.Sections {
		for _, st := range b.Sections[i].State {
			undelivered = undelivered || st == entry.PartPending || st == entry.PartHeld
		}
	}
	if !undelivered {
		return entry.Outcome{Distance: time.Duration(rnd.IntN(70)) * time.Millisecond}
	}
	return entry.Outcome{Err: errors.New("some parts")}
}

// steps accepts some of the first parts of some streams and tells of each: its
// spans are to be acknowledged before the attempt goes on. It gives the answer to
// what is left then. Called, and returns, with mu held.
func (w *world) steps(ctx context.Context, rnd *rand.Rand, lane int, b *entry.Batch, progress func(context.Context)) answer {
	pause := func(d time.Duration) {
		w.mu.Unlock()
		defer w.mu.Lock()
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	for range rnd.IntN(6) {
		var left []key
		eachPending(b, func(s *entry.Section, l *entry.Line) { left = append(left, key{s.Source, l.Class}) })
		if len(left) == 0 || ctx.Err() != nil || b.Enough {
			break
		}
		one := left[rnd.IntN(len(left))]
		w.byParts(rnd, b, func(k key) int {
			if k == one {
				return 5
			}
			return 2
		})
		w.mu.Unlock()
		progress(ctx)
		w.mu.Lock()
		w.checkProgress(ctx, lane, b)
		pause(time.Duration(rnd.IntN(20)) * time.Millisecond)
	}
	ends := []answer{answerAccept, answerDown, answerHang, answerAfter, answerByParts, answerHold}
	do := ends[rnd.IntN(len(ends))]
	if do == answerHang {
		pause(10 * time.Second)
	}
	return do
}

// checkProgress checks what is true once progress has returned: nothing that is
// done waits for the end of the attempt.
func (w *world) checkProgress(ctx context.Context, lane int, b *entry.Batch) {
	if len(b.Refusals) > 0 {
		if ctx.Err() == nil {
			w.wrong("%d refusals are left after progress", len(b.Refusals))
		}
		return // the dead letters failed until the end
	}
	for i := range b.Sections {
		for c, st := range b.Sections[i].State {
			if st != entry.PartEmpty && st != entry.PartPending {
				w.wrong("section %d, class %d: state %d after progress", i, c, st)
			}
		}
	}
	for span, lines := range w.spans {
		if w.acked[span] || w.sources[span.Log-1].Lane != lane {
			continue
		}
		done := true
		for _, r := range lines {
			st := w.state(r)
			done = done && (st.accepted || st.dead)
		}
		if done {
			w.wrong("span %+v is done and not acknowledged while the attempt goes on", span)
		}
	}
}

func (w *world) checkAttempt(lane int, b *entry.Batch) {
	expect := map[key]int{}
	any := false
	eachPending(b, func(s *entry.Section, l *entry.Line) {
		any = true
		r := w.lineOf(b, l)
		if r.k.src != s.Source || s.Source.Lane != lane {
			w.wrong("%s in a section of %s, in an attempt of lane %d", name(r), s.Source.Name, lane)
		}
		st := w.streams[r.k]
		next, ok := expect[r.k]
		if !ok {
			next = st.next
		}
		for next < len(st.lines) && st.lines[next].refused {
			next++
		}
		if r.n != next {
			w.wrong("%s is sent where %d is next", name(r), next)
		}
		expect[r.k] = r.n + 1
	})
	if !any {
		w.wrong("an attempt without lines")
	}
	l := w.d.lanes[lane]
	l.mu.Lock()
	if len(l.waiters) > 0 && l.grantable() != nil {
		w.wrong("lane %d has a batch for a reader and lets it wait", lane)
	}
	l.mu.Unlock()
	held := map[*entry.Source]bool{}
	for k, st := range w.streams {
		if k.src.Lane != lane {
			continue
		}
		for n := range st.lines {
			if l := st.lines[n]; l.held && !l.accepted && !l.refused {
				held[k.src] = true
			}
		}
	}
	for src := range held {
		if !src.Held.Load() {
			w.wrong("%s is read while a stream of it is refused", src.Name)
		}
	}
	for i, h := range w.d.Health() {
		if most := w.plan.cap + farFactor*w.plan.batchBytes + biggestRead; h.ParkedBytes > most {
			w.wrong("lane %d has parked %d bytes of %d", i, h.ParkedBytes, most)
		}
		if most := w.plan.batches * (farFactor*w.plan.batchBytes + biggestRead); h.PendingBytes > most {
			w.wrong("lane %d has %d bytes of %d waiting", i, h.PendingBytes, most)
		}
	}
}

// biggestRead is the most that one reading adds to a batch.
const biggestRead = 8 * (24 + 60 + 20)

// byParts answers for each stream as how says: 0 accept, 1 hold, 2 leave
// pending, 3 accept some and hold the rest, 4 store and leave pending, 5 accept
// the first part and leave the rest pending, 6 accept some lines in front and leave the rest. Of a
// stream nothing is accepted after a part that is not; whether it is marked as
// held or left pending makes no difference.
func (w *world) byParts(rnd *rand.Rand, b *entry.Batch, how func(key) int) {
	ways := map[key]int{}
	for i := range b.Sections {
		s := &b.Sections[i]
		for c := range s.State {
			if s.State[c] != entry.PartPending {
				continue
			}
			k := key{s.Source, entry.Class(c)}
			way, ok := ways[k]
			if !ok {
				way = how(k)
			}
			if way == 3 && rnd.IntN(2) == 0 {
				way = 1
			}
			ways[k] = way
			if way == 5 {
				way, ways[k] = 0, 2
			}
			left := 0
			lines := b.SectionLines(s)
			take := 0 // of the lines in front
			if way == 6 {
				take = rnd.IntN(len(lines) + 1)
				way, ways[k] = 2, 2
			}
			for j := range lines {
				l := &lines[j]
				if l.Class != k.class || l.Flags&entry.FlagsDone != 0 {
					continue
				}
				r := w.lineOf(b, l)
				st := w.state(r)
				if st.taken {
					w.wrong("line %v is sent again", r)
				}
				if j < take {
					l.Flags |= entry.FlagTaken
					b.Taken = true
					st.accepted, st.taken = true, true
					w.advance(k)
					continue
				}
				if w.plan.refuse > 0 && !st.unsure && rnd.IntN(w.plan.refuse) == 0 {
					l.Flags |= entry.FlagRefused
					b.Refusals = append(b.Refusals, entry.Refusal{Section: i, Line: s.First + j, Reason: "too old"})
					st.refused = true
				} else {
					left++
					switch way {
					case 0, 3:
						st.accepted = true
					case 1:
						st.held = true
					case 4:
						st.unsure = true
					}
				}
				w.advance(k)
			}
			switch {
			case way == 0, way == 3, left == 0 && way != 1:
				s.State[c] = entry.PartAccepted
			case way == 1 && (left == 0 || rnd.IntN(4) > 0):
				s.State[c] = entry.PartHeld
			}
		}
	}
	for k, way := range ways {
		if way == 1 {
			w.unholdUnlessHeld(b, k)
		}
	}
}

// unholdUnlessHeld takes the mark from the lines of this attempt if no part of
// the stream has been marked as held after all.
func (w *world) unholdUnlessHeld(b *entry.Batch, k key) {
	for i := range b.Sections {
		s := &b.Sections[i]
		if s.Source == k.src && s.State[k.class] == entry.PartHeld {
			return
		}
	}
	eachPending(b, func(_ *entry.Section, l *entry.Line) {
		if r := w.lineOf(b, l); r.k == k {
			w.state(r).held = false
		}
	})
}

func (w *world) advance(k key) {
	st := w.streams[k]
	for st.next < len(st.lines) && (st.lines[st.next].accepted || st.lines[st.next].refused) {
		st.next++
	}
}

// Append is the dead letters: each refused line once.
func (w *world) Append(b *entry.Batch, refusals []entry.Refusal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.appends++
	if w.appends <= len(w.plan.deadFails) && w.plan.deadFails[w.appends-1] {
		return errors.New("disk full")
	}
	for _, f := range refusals {
		r := w.lineOf(b, &b.Lines[f.Line])
		if r.k.src != b.Sections[f.Section].Source {
			w.wrong("refusal of %s in a section of %s", name(r), b.Sections[f.Section].Source.Name)
		}
		st := w.state(r)
		if !st.refused || st.dead {
			w.wrong("dead letter %s: %+v", name(r), *st)
		}
		st.dead = true
	}
	return nil
}

// Ack is the positions: each span once, and only when all its lines are done.
func (w *world) Ack(spans []entry.Span) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(spans) == 0 {
		w.wrong("an empty acknowledgement")
	}
	w.acks++
	fail := w.acks <= len(w.plan.ackFails) && w.plan.ackFails[w.acks-1]
	for _, span := range spans {
		lines, ok := w.spans[span]
		if !ok || w.acked[span] {
			w.wrong("span %+v acknowledged again, or unknown", span)
		}
		w.acked[span] = true
		for _, r := range lines {
			if st := w.state(r); !st.accepted && !st.dead {
				w.wrong("span %+v acknowledged, but %s is %+v", span, name(r), *st)
			}
		}
	}
	if fail {
		return errors.New("read-only")
	}
	return nil
}

func (w *world) wake(src *entry.Source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if src.Held.Load() {
		w.wrong("%s is woken and still held", src.Name)
	}
	for c := range entry.Class(entry.NumClasses) {
		for n, l := range w.streams[key{src, c}].lines {
			if l.held && !l.accepted && !l.dead {
				w.wrong("%s is woken while its line %d/%d is held", src.Name, c, n)
			}
		}
	}
	for _, ch := range w.changed {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// reader carries out its share of the plan's reads: those of its lane's sources
// whose number is its own. A source that is held has to wait.
func (w *world) reader(ctx context.Context, lane, number int) {
	var todo []read
	for _, r := range w.plan.reads {
		if src := w.sources[r.source]; src.Lane == lane && r.source/w.plan.lanes%w.plan.readers == number {
			todo = append(todo, r)
		}
	}
	skipped := 0
	for len(todo) > 0 {
		r := todo[0]
		todo = todo[1:]
		src := w.sources[r.source]
		if src.Held.Load() && !w.plan.ignoreHeldForever {
			todo = append(todo, r)
			if skipped++; skipped >= len(todo) {
				skipped = 0
				select {
				case <-w.changed[lane*w.plan.readers+number]:
				case <-ctx.Done():
					return
				}
			}
			continue
		}
		skipped = 0
		select {
		case <-time.After(r.think):
		case <-ctx.Done():
			return
		}
		if r.empty && !w.append(ctx, lane, func(*entry.Batch) {}) {
			return
		}
		if !w.append(ctx, lane, func(b *entry.Batch) { w.fill(b, src, r.lines) }) {
			return
		}
	}
}

func (w *world) append(ctx context.Context, lane int, fill func(*entry.Batch)) bool {
	b, err := w.d.Reserve(ctx, lane)
	if err != nil {
		return false
	}
	w.mu.Lock()
	if w.holders[lane] {
		w.wrong("lane %d is reserved twice", lane)
	}
	w.holders[lane] = true
	w.batches[lane][b] = true
	if len(w.batches[lane]) > w.plan.batches {
		w.wrong("lane %d has more than %d batches", lane, w.plan.batches)
	}
	if b.Limit < w.plan.batchBytes || b.Limit > farFactor*w.plan.batchBytes || b.Size() >= b.Limit {
		w.wrong("lane %d gave a full batch: %d of %d", lane, b.Size(), b.Limit)
	}
	w.mu.Unlock()
	// As readers do: reading takes time.
	time.Sleep(time.Duration(b.Size()%3) * time.Millisecond)
	w.mu.Lock()
	fill(b)
	w.holders[lane] = false
	w.mu.Unlock()
	w.d.Submit(lane, b)
	return true
}

func (w *world) fill(b *entry.Batch, src *entry.Source, lines []int) {
	var refs [entry.NumStreams][]lineRef
	b.Begin(src)
	for _, l := range lines {
		k := key{src, entry.Class(l % 3)}
		st := w.streams[k]
		r := lineRef{k, len(st.lines)}
		st.lines = append(st.lines, lineState{})
		off := len(b.Text)
		b.Text = append(b.Text, name(r)...)
		b.Text = append(b.Text, strings.Repeat("x", l/3)...)
		b.Add(int64(r.n), off, k.class, 0)
		src.Stats.Read.Add(1)
		refs[k.class.Stream()] = append(refs[k.class.Stream()], r)
	}
	s := b.End()
	for st := range refs {
		if len(refs[st]) == 0 {
			continue
		}
		span := entry.Span{Log: src.Log, Stream: entry.Stream(st)}
		w.seq[span]++
		s.Seq[st] = w.seq[span]
		span.Seq = s.Seq[st]
		w.spans[span] = refs[st]
	}
}

// finish checks that nothing is missing.
func (w *world) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, st := range w.streams {
		for n, l := range st.lines {
			if !l.accepted && !l.dead {
				w.wrong("%s is missing: %+v", name(lineRef{k, n}), l)
			}
		}
	}
	for span := range w.spans {
		if !w.acked[span] {
			w.wrong("span %+v was never acknowledged", span)
		}
	}
	for _, src := range w.sources {
		if src.Held.Load() {
			w.wrong("%s is held for ever", src.Name)
		}
	}
	for i, l := range w.d.lanes {
		if len(l.shared)+len(l.parts)+len(l.streams)+len(l.byLabels)+l.parkedBytes != 0 {
			w.wrong("lane %d remembers what is over: %+v", i, l.parkingLot)
		}
		if len(l.free) != l.made {
			w.wrong("lane %d has %d of %d batches back", i, len(l.free), l.made)
		}
		if h := w.d.Health()[i]; h != (LaneHealth{}) {
			w.wrong("lane %d is not well: %+v", i, h)
		}
	}
	w.checkStats(true)
}

// checkStats compares the counters with the truth. While lines are on their way
// some of a span's may be counted and others not.
func (w *world) checkStats(over bool) {
	for _, src := range w.sources {
		var accepted, dead int64
		for c := range entry.Class(entry.NumClasses) {
			for _, l := range w.streams[key{src, c}].lines {
				if l.accepted {
					accepted++
				}
				if l.dead {
					dead++
				}
			}
		}
		d, x := src.Stats.Delivered.Load(), src.Stats.DeadLettered.Load()
		if d > accepted || x > dead || over && (d != accepted || x != dead) {
			w.wrong("%s: counted %d delivered and %d dead letters instead of %d and %d", src.Name, d, x, accepted, dead)
		}
	}
}

func runModel(t *testing.T, p plan) (problems []string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(p)
		defer func() { problems = w.problems }()
		run, stop := context.WithCancel(context.Background())
		defer stop()
		read, stopReaders := context.WithCancel(context.Background())
		defer stopReaders()
		var senders, readers sync.WaitGroup
		senders.Go(func() {
			if err := w.d.Run(run); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		for lane := range p.lanes {
			for number := range p.readers {
				readers.Go(func() { w.reader(read, lane, number) })
			}
		}
		if p.cut > 0 {
			time.Sleep(p.cut)
			stop() // without a drain, at any moment
			senders.Wait()
			stopReaders()
			readers.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			w.checkStats(false)
			return
		}
		readers.Wait()
		w.mu.Lock()
		w.calm = true
		w.mu.Unlock()
		drain, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := w.d.Drain(drain); err != nil {
			w.mu.Lock()
			w.wrong("%v", err)
			w.mu.Unlock()
		}
		stop()
		senders.Wait()
		w.finish()
	})
	return problems
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		if problems := runModel(t, p); len(problems) > 0 {
			rt.Fatalf("%s", strings.Join(problems, "\n"))
		}
	})
}
