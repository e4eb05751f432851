package simulation

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/positions"
)

// broken are agents that do one thing wrong. The simulation is worth something only
// as long as it finds each of them within so many seeds.
var broken = []struct {
	name  string
	seeds int
	variant
}{
	{"position saved on read", 30, variant{
		spans: func(l *ledger) monitors.Spans { return savedOnRead{l} },
	}},
	{"position saved on hand-over", 30, variant{
		outlet: func(l *ledger, d *dispatch.Dispatcher) monitors.Outlet { return savedOnSubmit{d, l} },
	}},
	{"acknowledged before the store has answered", 60, variant{
		sink: func(s dispatch.Sink) dispatch.Sink { return hasty{s, func(*entry.Section) bool { return true }} },
	}},
	{"spool frame acknowledged before the store has accepted it", 200, variant{
		sink: func(s dispatch.Sink) dispatch.Sink {
			return hasty{s, func(sec *entry.Section) bool { return sec.Source.Log == 0 }}
		},
	}},
	{"spool acknowledges before the sync", 400, variant{
		disk: func(d disk.Dir) disk.Dir {
			return lyingDir{d, func(path string) bool { return strings.HasPrefix(path, "/spool/") }, ""}
		},
	}},
	{"new journal not synced before its rename", 400, variant{
		disk: func(d disk.Dir) disk.Dir {
			return lyingDir{d, func(path string) bool { return path == "/positions.journal.tmp" }, ""}
		},
	}},
	{"dead letters not synced", 400, variant{
		disk: func(d disk.Dir) disk.Dir {
			return lyingDir{d, func(path string) bool { return strings.HasPrefix(path, "/dead_letters/") }, ""}
		},
	}},
	{"acknowledgements lost", 60, variant{
		acks: func(dispatch.Acks) dispatch.Acks { return deafAcks{} },
	}},
	{"refused lines not kept", 60, variant{
		letter: func(dispatch.DeadLetters) dispatch.DeadLetters { return noLetters{} },
	}},
	{"newer lines sent before older ones", 30, variant{
		outlet: func(_ *ledger, d *dispatch.Dispatcher) monitors.Outlet { return reversing{d} },
	}},
	{"held lines passed by", 100, variant{
		sink: func(s dispatch.Sink) dispatch.Sink { return &passing{Sink: s, held: make(map[string]bool)} },
	}},
	{"side queue forgotten at a start", 400, variant{
		disk: func(d disk.Dir) disk.Dir { return lyingDir{d, nil, "lane-"} },
	}},
	{"a section dropped", 30, variant{
		outlet: func(_ *ledger, d *dispatch.Dispatcher) monitors.Outlet { return &dropping{Dispatcher: d} },
	}},
	{"lines said to stand where another log is", 100, variant{
		outlet: func(_ *ledger, d *dispatch.Dispatcher) monitors.Outlet { return misplacing{d} },
	}},
	{"a rename ignored", 100, variant{
		engine: func(e monitors.EngineWatcher) monitors.EngineWatcher {
			return &ignoring{EngineWatcher: e}
		},
	}},
	{"names beside positions not believed", 400, variant{
		notes: func(l *ledger) monitors.Registry { return noteless{l} },
	}},
	{"a section sent twice", 30, variant{
		sink: func(s dispatch.Sink) dispatch.Sink { return &stuttering{Sink: s} },
	}},
}

// TestBroken checks that the simulation can fail.
func TestBroken(t *testing.T) {
	root := tempRoot(t)
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			for seed := range uint64(b.seeds) {
				if res := runSeed(t, root, seed+1, b.variant, false); res.failure != "" {
					t.Logf("found with seed %d: %s", seed+1, res.failure)
					return
				}
			}
			t.Errorf("%d seeds have not found it", b.seeds)
		})
	}
}

// savedOnRead acknowledges lines when they have been read.
type savedOnRead struct{ *ledger }

func (l savedOnRead) Begin(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) [entry.NumStreams]uint64 {
	seqs := l.ledger.Begin(log, ends, lines)
	for s, seq := range seqs {
		_ = l.Store.Ack([]entry.Span{{Log: log, Stream: entry.Stream(s), Seq: seq}})
	}
	return seqs
}

// savedOnSubmit acknowledges lines when they have been handed on.
type savedOnSubmit struct {
	*dispatch.Dispatcher
	l *ledger
}

func (o savedOnSubmit) Submit(lane int, b *entry.Batch) {
	for i := range b.Sections {
		sec := &b.Sections[i]
		for s, seq := range sec.Seq {
			_ = o.l.Store.Ack([]entry.Span{{Log: sec.Source.Log, Stream: entry.Stream(s), Seq: seq}})
		}
	}
	o.Dispatcher.Submit(lane, b)
}

// hasty says of some sections that they are accepted before the store has them; if
// it does not take them the first time, that is it.
type hasty struct {
	dispatch.Sink
	of func(*entry.Section) bool
}

func (h hasty) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	out := h.Sink.Push(ctx, b, progress)
	for i := range b.Sections {
		sec := &b.Sections[i]
		for c, st := range sec.State {
			if h.of(sec) && (st == entry.PartPending || st == entry.PartHeld) {
				sec.State[c] = entry.PartAccepted
			}
		}
	}
	return out
}

// deafAcks forgets what it is told.
type deafAcks struct{}

func (deafAcks) Ack([]entry.Span) error { return nil }

// noLetters keeps nothing.
type noLetters struct{}

func (noLetters) Append(*entry.Batch, []entry.Refusal) error { return nil }

// reversing hands the sections of a log on in the wrong order.
type reversing struct{ *dispatch.Dispatcher }

func (o reversing) Submit(lane int, b *entry.Batch) {
	if n := len(b.Sections); n > 1 && b.Sections[n-1].Source == b.Sections[n-2].Source {
		b.Sections[n-1], b.Sections[n-2] = b.Sections[n-2], b.Sections[n-1]
	}
	o.Dispatcher.Submit(lane, b)
}

// passing lets the lines of a stream that is held be taken again although older ones
// still wait.
type passing struct {
	dispatch.Sink
	mu   sync.Mutex
	held map[string]bool
}

func (p *passing) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	out := p.Sink.Push(ctx, b, progress)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range b.Sections {
		sec := &b.Sections[i]
		for c, st := range sec.State {
			if st != entry.PartHeld {
				continue
			}
			if labels := sec.Source.Labels[c].String(); !p.held[labels] {
				p.held[labels] = true
				sec.State[c] = entry.PartAccepted // the first of them are forgotten
			}
		}
	}
	return out
}

// dropping loses a section now and then, and acknowledges nothing of it.
type dropping struct {
	*dispatch.Dispatcher
	mu sync.Mutex
	n  int
}

func (o *dropping) Submit(lane int, b *entry.Batch) {
	o.mu.Lock()
	o.n++
	drop := o.n%5 == 0 && len(b.Sections) > 1
	o.mu.Unlock()
	if drop {
		b.Sections = b.Sections[:len(b.Sections)-1]
	}
	o.Dispatcher.Submit(lane, b)
}

// misplacing gives all sections of a batch the place of the first one.
type misplacing struct{ *dispatch.Dispatcher }

func (o misplacing) Submit(lane int, b *entry.Batch) {
	for i := range b.Sections {
		b.Sections[i].From = b.Sections[0].From
	}
	o.Dispatcher.Submit(lane, b)
}

// ignoring believes the first name of each container for ever.
type ignoring struct {
	monitors.EngineWatcher
	names sync.Map
}

func (e *ignoring) Inspect(ctx context.Context, id string) (docker.Container, error) {
	d, err := e.EngineWatcher.Inspect(ctx, id)
	if err == nil {
		first, _ := e.names.LoadOrStore(id, d.Name)
		d.Name, _ = first.(string)
	}
	return d, err
}

// noteless finds positions without their names.
type noteless struct{ *ledger }

func (l noteless) Lookup(key string) (positions.Saved, bool) {
	saved, ok := l.ledger.Lookup(key)
	saved.Note = ""
	return saved, ok
}

// stuttering sends what was accepted once more now and then.
type stuttering struct {
	dispatch.Sink
	mu sync.Mutex
	n  int
}

func (p *stuttering) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	p.mu.Lock()
	p.n++
	twice := p.n%7 == 0
	p.mu.Unlock()
	if !twice {
		return p.Sink.Push(ctx, b, progress)
	}
	var again entry.Batch
	for i := range b.Sections {
		again.CopySection(b, &b.Sections[i], nil)
	}
	out := p.Sink.Push(ctx, b, progress)
	_ = p.Sink.Push(ctx, &again, func(context.Context) {})
	return out
}

// lyingDir is a directory some files of which are never synced, or in which the
// directories of side queues are always found empty.
type lyingDir struct {
	disk.Dir
	lies func(path string) bool // nil: it tells the truth
	hide string
}

func (d lyingDir) Sub(name string) (disk.Dir, error) { return d.sub("/", name) }

func (d lyingDir) sub(at, name string) (disk.Dir, error) {
	sub, err := d.Dir.Sub(name)
	if err != nil {
		return nil, err
	}
	return lyingSub{lyingDir{sub, d.lies, d.hide}, at + name + "/"}, nil
}

func (d lyingDir) Open(name string, flag int) (disk.File, error) { return d.open("/", name, flag) }

func (d lyingDir) open(at, name string, flag int) (disk.File, error) {
	f, err := d.Dir.Open(name, flag)
	if err == nil && d.lies != nil && d.lies(at+name) {
		f = lyingFile{f}
	}
	return f, err
}

// lyingSub is a directory in a lyingDir.
type lyingSub struct {
	lyingDir
	path string
}

func (d lyingSub) Sub(name string) (disk.Dir, error) { return d.sub(d.path, name) }

func (d lyingSub) Open(name string, flag int) (disk.File, error) { return d.open(d.path, name, flag) }

func (d lyingSub) List() ([]disk.Info, error) {
	if d.hide != "" && (strings.HasSuffix(d.path, d.hide+"2/") || strings.HasSuffix(d.path, d.hide+"3/")) {
		return nil, nil
	}
	return d.Dir.List()
}

// lyingFile is a file whose bytes do not last.
type lyingFile struct{ disk.File }

func (lyingFile) Sync() error { return nil }
