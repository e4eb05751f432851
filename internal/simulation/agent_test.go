package simulation

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/monitors/waketest"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/spool"
	"github.com/log-capturer/log_capturer/internal/tail"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

const (
	lanes = 2
	// tick is sinks.loki.batch_wait, by default.
	tick = 140 * time.Millisecond
)

// agent is one run of the agent: the real components, wired as internal/app does
// it, between an engine, a store and a disk of the simulation.
type agent struct {
	s    *sim
	run  int
	over atomic.Bool // it was killed: nothing that it still does has an effect
	disk disk.Dir
	wake *waketest.Source[monitors.WakeEvent]

	registry   *prometheus.Registry
	ledger     *ledger
	spool      *spool.Spool // nil without one
	letters    *deadletter.Log
	dispatcher *dispatch.Dispatcher
	files      *monitors.FileMonitor
	streams    *monitors.StreamMonitor
	containers *monitors.ContainerMonitor
	spooled    uint64 // lines in the spool at the start

	stopReading, stopSending, stopSaving context.CancelFunc
	reading, sending, saving             sync.WaitGroup
}

// variant is a way to break the agent that the simulation has to find. The zero
// value breaks nothing.
type variant struct {
	disk   func(disk.Dir) disk.Dir
	acks   func(dispatch.Acks) dispatch.Acks
	spans  func(*ledger) monitors.Spans
	outlet func(*ledger, *dispatch.Dispatcher) monitors.Outlet
	sink   func(dispatch.Sink) dispatch.Sink
	letter func(dispatch.DeadLetters) dispatch.DeadLetters
	engine func(monitors.EngineWatcher) monitors.EngineWatcher
	notes  func(*ledger) monitors.Registry
}

// open makes the components; nothing runs yet. An error is one of the disk.
func (s *sim) open(mount disk.Dir) (a *agent, err error) {
	s.runs++
	a = &agent{s: s, run: s.runs, registry: prometheus.NewRegistry(), disk: mount}
	a.wake = waketest.New(func(e *monitors.WakeEvent) (wd *int, written bool) { return &e.WD, e.Written })
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if s.v.disk != nil {
		mount = s.v.disk(mount)
	}
	logger := slog.New(&recorder{s: s, run: a.run})
	store, err := positions.Open(positions.Config{Files: mount, Logger: logger, Registerer: a.registry})
	if err != nil {
		return a, err
	}
	a.ledger = newLedger(store, a)
	if a.letters, err = deadletter.Open("", deadletter.Options{Files: mount, Logger: logger, Registerer: a.registry}); err != nil {
		return a, err
	}
	if s.p.spoolBytes > 0 {
		a.spool, err = spool.Open(spool.Config{
			Files: mount, Lanes: dispatch.SpoolLanes(lanes), MaxBytes: s.p.spoolBytes, MinFreeBytes: -1,
			Logger: logger, Registerer: a.registry,
		})
		if err != nil {
			return a, err
		}
		a.spooled = a.spool.Health().Records
	}
	letters := &deadLetters{a}
	cfg := dispatch.Config{
		Lanes: lanes, BatchBytes: s.p.batchBytes, BatchWait: dispatch.BatchWait(tick), BatchesPerLane: s.p.batches, ParkedBytes: s.p.parkedBytes,
		Sink: sink{s, a}, Spool: a.spool, Stats: func(id, _ string) *entry.Stats { return a.containers.Stats(id) },
		Acks: a.ledger, DeadLetters: letters,
		Wake: func(src *entry.Source) {
			if src.Method == monitors.MethodStreaming {
				a.streams.Wake(src)
			} else {
				a.files.Wake(src)
			}
		},
		Random: func() float64 { return float64(s.seed%16) / 16 },
		Logger: logger, Registerer: a.registry,
	}
	if s.v.acks != nil {
		cfg.Acks = s.v.acks(cfg.Acks)
	}
	if s.v.sink != nil {
		cfg.Sink = s.v.sink(cfg.Sink)
	}
	if s.v.letter != nil {
		cfg.DeadLetters = s.v.letter(cfg.DeadLetters)
	}
	a.dispatcher = dispatch.New(cfg)
	logs := monitors.LogConfig{
		Outlet: a.dispatcher, Registry: a.ledger, Spans: a.ledger,
		MaxLineBytes: s.p.maxLine,
		FirstStart:   store.FirstStart(), Logger: logger, Lines: monitors.NewLineMetrics(a.registry),
	}
	if s.v.spans != nil {
		logs.Spans = s.v.spans(a.ledger)
	}
	if s.v.notes != nil {
		logs.Registry = s.v.notes(a.ledger)
	}
	if s.v.outlet != nil {
		logs.Outlet = s.v.outlet(a.ledger, a.dispatcher)
	}
	a.files = monitors.NewFileMonitor(monitors.FileMonitorConfig{
		LogConfig: logs, Malformed: letters, Tick: tick, ShipMalformed: true,
		Metrics: monitors.NewFileMetrics(a.registry), Wake: a.wake, Settled: s.settled(),
		Access: func(id string, err error) { a.containers.FileAccess(id, err) },
	})
	s.damaged = s.damaged || a.metric("positions_skipped_records_total", "reason", "damaged") > 0
	var engine monitors.EngineWatcher = view{s.engine, a.run, func(id string) bool {
		_, met := a.ledger.Lookup(id)
		return met && !s.damaged
	}}
	if s.v.engine != nil {
		engine = s.v.engine(engine)
	}
	a.streams = monitors.NewStreamMonitor(monitors.StreamMonitorConfig{
		LogConfig: logs, Open: s.openLog, MaxStreams: s.p.maxStreams, Metrics: monitors.NewStreamMetrics(a.registry),
	})
	a.containers, err = monitors.NewContainerMonitor(monitors.ContainerMonitorConfig{
		Engine: engine, Files: a.files, Streams: a.streams, Saved: a.ledger,
		Cache: monitors.NewContainerMetadataCache(0, a.registry),
		Routing: monitors.RoutingConfig{
			Files: s.byFile, LogDrivers: []string{monitors.DriverJSONFile}, Fallback: true, Streaming: true,
		},
		ContainersDir: s.engine.dir, Logger: logger, Registerer: a.registry,
	})
	return a, err
}

// settled has the poll look at the files held, as it does most of the time, though the
// simulation's clock is not that of its files: wherever these show every change.
func (s *sim) settled() time.Duration {
	if dockertest.FineTimes(fatal{}, s.root) {
		return -1
	}
	return tail.DefaultSettled
}

// dead reports whether the agent was killed, perhaps by its disk.
func (a *agent) dead() bool {
	if !a.over.Load() {
		_, err := a.disk.Free()
		return errors.Is(err, disktest.ErrDead)
	}
	return true
}

// begin runs the components.
func (a *agent) begin() {
	stage := func(g *sync.WaitGroup, run ...func(context.Context) error) context.CancelFunc {
		ctx, cancel := context.WithCancel(context.Background())
		for _, f := range run {
			g.Go(func() {
				if err := f(ctx); err != nil {
					a.s.mu.Lock()
					defer a.s.mu.Unlock()
					a.s.wrong("a component of run %d has ended: %v", a.run, err)
				}
			})
		}
		return cancel
	}
	a.stopSaving = stage(&a.saving, a.ledger.Run)
	a.stopSending = stage(&a.sending, a.dispatcher.Run)
	a.stopReading = stage(&a.reading, a.files.Run, a.streams.Run, a.containers.Run)
}

// kill ends the run in the middle of everything.
func (a *agent) kill() {
	a.over.Store(true)
	a.stopReading()
	a.stopSending()
	a.stopSaving()
	a.reading.Wait()
	a.sending.Wait()
	a.saving.Wait()
	a.close()
}

// stop ends the run as a signal does: upstream first, within the grace period.
func (a *agent) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a.stopReading()
	a.reading.Wait()
	if err := a.dispatcher.Drain(ctx); err != nil {
		a.s.tracef("  %v", err)
	}
	a.stopSending()
	a.sending.Wait()
	a.stopSaving()
	a.saving.Wait()
	a.close()
}

// close gives back what open has taken. Errors are the disk's, which fails at times.
func (a *agent) close() {
	if a.spool != nil {
		_ = a.spool.Close()
	}
	if a.letters != nil {
		_ = a.letters.Close()
	}
	if a.ledger != nil {
		_ = a.ledger.Close()
	}
}

// metric gives a counter or gauge, summed over its labels but those that are to
// have a value: pairs of name and value.
func (a *agent) metric(name string, with ...string) (sum float64) {
	families, err := a.registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() != "log_capturer_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if labelled(m, with) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func labelled(m *dto.Metric, with []string) bool {
	for i := 0; i+1 < len(with); i += 2 {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == with[i] && l.GetValue() == with[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// reported sums everything that says that lines were lost, and alone what says that
// of files which rotation has taken away.
func (a *agent) reported() (sum, files float64) {
	families, err := a.registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if n := f.GetName(); strings.Contains(n, "_gaps") || strings.Contains(n, "_lost") && !strings.Contains(n, "copies") {
			for _, m := range f.GetMetric() {
				if v := m.GetCounter().GetValue(); v > 0 {
					sum += v
					if n == "log_capturer_file_gaps_total" {
						files += v
					}
					a.s.logf("    run %d reports %v of %s %v", a.run, v, n, m.GetLabel())
				}
			}
		}
	}
	return sum, files
}

// ledger is the positions, and what they should hold: what an acknowledgement that
// was written has promised.
type ledger struct {
	*positions.Store
	a *agent

	mu    sync.Mutex
	keys  map[uint32]string
	spans map[entry.Span]entry.Position // where those in flight end
	acked map[entry.Span]bool           // those of which one before is in flight
	next  map[entry.Span]uint64         // by log and stream
	done  map[string]*[entry.NumStreams][]promise
}

// promise is a position of which an acknowledgement says that it is saved.
type promise struct {
	at  time.Time
	pos entry.Position
}

func newLedger(store *positions.Store, a *agent) *ledger {
	l := &ledger{
		Store: store, a: a, keys: make(map[uint32]string), spans: make(map[entry.Span]entry.Position),
		acked: make(map[entry.Span]bool), next: make(map[entry.Span]uint64),
		done: make(map[string]*[entry.NumStreams][]promise),
	}
	for _, key := range store.Keys() {
		saved, _ := store.Lookup(key)
		l.done[key] = new([entry.NumStreams][]promise)
		for i, pos := range saved.Positions {
			l.done[key][i] = []promise{{pos: pos}} // the journal was written anew, and synced
		}
	}
	return l
}

// promised gives what was acknowledged until a time, by container.
func (l *ledger) promised(until time.Time) map[string][entry.NumStreams]entry.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string][entry.NumStreams]entry.Position)
	for key, streams := range l.done {
		var at [entry.NumStreams]entry.Position
		for i, list := range streams {
			for _, p := range list {
				if !p.at.After(until) {
					at[i] = p.pos
				}
			}
		}
		all[key] = at
	}
	return all
}

// Register is monitors.Registry.
func (l *ledger) Register(key, note string, start [entry.NumStreams]entry.Position) uint32 {
	log := l.Store.Register(key, note, start)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[log] = key
	return log
}

// Begin is monitors.Spans.
func (l *ledger) Begin(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) [entry.NumStreams]uint64 {
	seqs := l.Store.Begin(log, ends, lines)
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, seq := range seqs {
		if seq != 0 {
			l.spans[entry.Span{Log: log, Stream: entry.Stream(s), Seq: seq}] = ends[s]
		}
	}
	return seqs
}

// Ack is dispatch.Acks.
func (l *ledger) Ack(spans []entry.Span) error {
	err := l.Store.Ack(spans)
	if err != nil || l.a.dead() {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sp := range spans {
		l.acked[sp] = true
		at := entry.Span{Log: sp.Log, Stream: sp.Stream}
		for {
			one := entry.Span{Log: sp.Log, Stream: sp.Stream, Seq: l.next[at] + 1}
			if !l.acked[one] {
				break
			}
			key := l.keys[sp.Log]
			if l.done[key] == nil {
				l.done[key] = new([entry.NumStreams][]promise)
			}
			l.done[key][sp.Stream] = append(l.done[key][sp.Stream], promise{time.Now(), l.spans[one]})
			delete(l.acked, one)
			delete(l.spans, one)
			l.next[at]++
		}
	}
	return nil
}

// Forget is monitors.Registry.
func (l *ledger) Forget(key string) error {
	err := l.Store.Forget(key)
	if !errors.Is(err, positions.ErrInFlight) { // else it is forgotten, though that may not be saved
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.done, key)
	}
	return err
}

// deadLetters is what internal/app puts between dispatch, monitors and the
// dead-letter file.
type deadLetters struct{ a *agent }

// Append is dispatch.DeadLetters.
func (d *deadLetters) Append(b *entry.Batch, refusals []entry.Refusal) error {
	records := make([]deadletter.Record, 0, len(refusals))
	for _, r := range refusals {
		src, line := b.Sections[r.Section].Source, &b.Lines[r.Line]
		records = append(records, deadletter.Record{
			Kind: deadletter.Refused, ContainerID: src.ID, ContainerName: src.Name,
			LineTime: time.Unix(0, line.Time), Reason: r.Reason, Raw: b.Message(line),
		})
	}
	return d.a.letters.Append(records)
}

// CopyMalformed is monitors.MalformedCopies.
func (d *deadLetters) CopyMalformed(lines []monitors.MalformedLine) {
	records := make([]deadletter.Record, len(lines))
	for i, l := range lines {
		records[i] = deadletter.Record{
			Kind: deadletter.Malformed, ContainerID: l.Source.ID, ContainerName: l.Source.Name,
			Reason: monitors.ReasonMalformed, Raw: l.Raw,
		}
	}
	d.a.letters.AppendUnsynced(records)
}

// recorder takes the agent's own log into the trace.
type recorder struct {
	s   *sim
	run int
}

// Enabled is slog.Handler.
func (r *recorder) Enabled(_ context.Context, level slog.Level) bool {
	return r.s.keep && level >= slog.LevelInfo
}

// Handle is slog.Handler.
func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	rec.Attrs(func(a slog.Attr) bool {
		b.WriteByte(' ')
		b.WriteString(a.String())
		return true
	})
	r.s.logf("    agent %d: %v %s%s", r.run, rec.Level, rec.Message, b.String())
	return nil
}

// WithAttrs is slog.Handler.
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler { return r }

// WithGroup is slog.Handler.
func (r *recorder) WithGroup(string) slog.Handler { return r }
