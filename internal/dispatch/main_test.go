package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/testbuffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a dispatcher with a store, positions and dead letters that write down
// what they are given. Its fields are guarded by mu.
type rig struct {
	t *testing.T
	*Dispatcher
	logs *testbuffer.Buffer
	stop func()

	mu      sync.Mutex
	pushes  []push
	acked   []entry.Span
	dead    []string
	took    []string // by takeAll
	woken   []*entry.Source
	seq     map[entry.Span]uint64 // of a span without Seq, the last one used
	onPush  pushFunc
	onAck   func() error
	onDead  func() error
	started time.Time
}

// said is how many log lines contain text.
func (r *rig) said(text string) int { return strings.Count(r.logs.String(), text) }

// pushFunc is a store's part in one attempt.
type pushFunc func(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome

// push is one attempt: when, after the rig's start, and the pending lines.
type push struct {
	at    time.Duration
	lines []string
}

// batchWait is the BatchWait of the tests, where it is nothing else.
const batchWait = 100 * time.Millisecond

// newRig makes and runs a dispatcher of one lane and batchWait, unless cfg says otherwise. It
// is to be used in a synctest bubble, and stops at the test's end.
func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	return newRigOn(t, cfg, nil)
}

// newRigOn is newRig on a store that does this from the first moment on.
func newRigOn(t *testing.T, cfg Config, onPush pushFunc) *rig {
	t.Helper()
	r := &rig{t: t, logs: &testbuffer.Buffer{}, seq: map[entry.Span]uint64{}, started: time.Now(), onPush: onPush}
	if cfg.Lanes == 0 {
		cfg.Lanes = 1
	}
	if cfg.BatchWait == 0 {
		cfg.BatchWait = batchWait
	}
	cfg.Sink, cfg.Acks, cfg.DeadLetters = r, r, r
	cfg.Wake = func(s *entry.Source) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.woken = append(r.woken, s)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(r.logs, nil))
	r.Dispatcher = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	p := push{at: time.Since(r.started)}
	eachPending(b, func(s *entry.Section, l *entry.Line) {
		p.lines = append(p.lines, string(b.Message(l)))
	})
	r.mu.Lock()
	r.pushes = append(r.pushes, p)
	f := r.onPush
	r.mu.Unlock()
	if f == nil {
		return acceptAll(b)
	}
	return f(ctx, b, progress)
}

func (r *rig) Ack(spans []entry.Span) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.onAck != nil {
		if err := r.onAck(); err != nil {
			return err
		}
	}
	r.acked = append(r.acked, spans...)
	return nil
}

func (r *rig) Append(b *entry.Batch, refusals []entry.Refusal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.onDead != nil {
		if err := r.onDead(); err != nil {
			return err
		}
	}
	for _, f := range refusals {
		r.dead = append(r.dead, string(b.Message(&b.Lines[f.Line])))
	}
	return nil
}

// farAway makes a store answer after a time of a bubble, and has it told as its distance.
func farAway(distance time.Duration, push func(context.Context, *entry.Batch) entry.Outcome) func(context.Context, *entry.Batch) entry.Outcome {
	return func(ctx context.Context, b *entry.Batch) entry.Outcome {
		time.Sleep(distance)
		out := push(ctx, b)
		out.Distance = distance
		return out
	}
}

func (r *rig) setPush(f func(ctx context.Context, b *entry.Batch) entry.Outcome) {
	if f == nil {
		f = func(_ context.Context, b *entry.Batch) entry.Outcome { return acceptAll(b) }
	}
	r.setSteps(func(ctx context.Context, b *entry.Batch, _ func(context.Context)) entry.Outcome { return f(ctx, b) })
}

func (r *rig) setSteps(f pushFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onPush = f
}

// send appends the lines of one section ("o:" to stdout, "e:" to stderr, "m:"
// malformed) and submits.
func (r *rig) send(src *entry.Source, lines ...string) {
	r.t.Helper()
	b, err := r.Reserve(r.t.Context(), src.Lane)
	if err != nil {
		r.t.Fatal(err)
	}
	r.fill(b, src, lines...)
	r.Submit(src.Lane, b)
}

func (r *rig) fill(b *entry.Batch, src *entry.Source, lines ...string) {
	b.Begin(src)
	for _, text := range lines {
		class := map[byte]entry.Class{'o': entry.ClassStdout, 'e': entry.ClassStderr, 'm': entry.ClassMalformed}[text[0]]
		off := len(b.Text)
		b.Text = append(b.Text, text...)
		b.Add(time.Now().UnixNano(), off, class, 0)
		src.Stats.Read.Add(1)
	}
	s := b.End()
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, n := range s.Lines {
		if st := entry.Class(c).Stream(); n > 0 && s.Seq[st] == 0 {
			key := entry.Span{Log: src.Log, Stream: st}
			r.seq[key]++
			s.Seq[st] = r.seq[key]
		}
	}
}

// sent gives the lines of every attempt so far, one string each.
func (r *rig) sent() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, p := range r.pushes {
		all = append(all, strings.Join(p.lines, " "))
	}
	return all
}

func (r *rig) times() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []time.Duration
	for _, p := range r.pushes {
		all = append(all, p.at)
	}
	return all
}

func (r *rig) ackedSpans() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, s := range r.acked {
		all = append(all, fmt.Sprintf("%d/%s/%d", s.Log, s.Stream, s.Seq))
	}
	return strings.Join(all, " ")
}

func newSource(log uint32, lane int) *entry.Source {
	s := &entry.Source{Name: fmt.Sprintf("c%d", log), Log: log, Lane: lane, Method: methodFile, Stats: new(entry.Stats)}
	label(s, s.Name)
	return s
}

func label(s *entry.Source, name string) {
	for c, stream := range []string{"stdout", "stderr", "malformed"} {
		s.Labels[c] = entry.NewLabels(entry.Label{Name: "container_name", Value: name}, entry.Label{Name: "stream", Value: stream})
	}
}

// eachPending calls f for every line that is to be sent, in order.
func eachPending(b *entry.Batch, f func(*entry.Section, *entry.Line)) {
	for i := range b.Sections {
		s := &b.Sections[i]
		lines := b.SectionLines(s)
		for j := range lines {
			if s.State[lines[j].Class] == entry.PartPending && lines[j].Flags&entry.FlagsDone == 0 {
				f(s, &lines[j])
			}
		}
	}
}

// setParts sets the state of every pending part for which want is true.
func setParts(b *entry.Batch, state entry.PartState, want func(*entry.Section, entry.Class) bool) {
	for i := range b.Sections {
		s := &b.Sections[i]
		for c := range s.State {
			if s.State[c] == entry.PartPending && want(s, entry.Class(c)) {
				s.State[c] = state
			}
		}
	}
}

func all(*entry.Section, entry.Class) bool { return true }

func acceptAll(b *entry.Batch) entry.Outcome {
	setParts(b, entry.PartAccepted, all)
	return entry.Outcome{}
}
