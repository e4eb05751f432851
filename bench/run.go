package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/bench/internal/engine"
	"github.com/log-capturer/log_capturer/bench/internal/genlog"
	"github.com/log-capturer/log_capturer/bench/internal/measure"
	"github.com/log-capturer/log_capturer/bench/internal/sink"
)

const (
	// askEvery is how often the sink is asked how far things are. Each time takes a millisecond of a
	// core that the agent may have use for; when the last line came the sink knows itself.
	askEvery = 100 * time.Millisecond
	// stalled is after how long without a request nothing more is expected.
	stalled = 30 * time.Second
)

// options is what is to be measured.
type options struct {
	sizes     sizes
	workloads []workload
	agents    []agent
	repeat    int
	seed      uint64
	bin, dir  string
	profiles  string // directory; "": none are made
}

// Result is what one agent needed for one workload once.
type Result struct {
	Workload, What, Agent string
	// Cores is how many the agent had.
	Cores, Containers int
	// Lines and Bytes are those of Docker's files that were measured.
	Lines int
	Bytes int64
	// CPU and Wall are the agent's for these: from its start, or in the window.
	CPU, Wall time.Duration
	// Resident is at the end of the measuring, Peak the highest of all.
	measure.Memory
	// WakeUps is how often its threads waited for something, in the window.
	WakeUps int64
	// Goroutines of an agent that tells, else 0.
	Goroutines int
	// Latency is from written to accepted, in the window.
	Latency measure.Latency
	// Wire is the bytes of Requests, packed, until the end.
	Wire     int64
	Requests int
	// What became of all lines.
	sink.Tally
	Missing int
	// Late is by how much the writer was behind its plan at most.
	Late time.Duration
	// SinkCPU is what the sink used to take what came in the time of CPU: the agent
	// could not have it, where they share cores. Only while a backlog is read.
	SinkCPU time.Duration
	// Load is the machine's load average at the end: above the number of its cores
	// somebody else was there.
	Load float64
	// Problem says why there is nothing more; else empty.
	Problem string
}

// wrong says what the agent has done to lines that it must not.
func (r *Result) wrong() string {
	switch {
	case r.Problem != "":
		return r.Problem
	case r.Missing+r.Doubled+r.Disordered+r.Altered+r.Foreign > 0:
		return fmt.Sprintf("%d lines missing, %d doubled, %d out of order, %d altered, %d foreign", r.Missing, r.Doubled, r.Disordered, r.Altered, r.Foreign)
	default:
		return ""
	}
}

// Run is one run of the benchmark.
type Run struct {
	Machine
	Results []Result
}

// bad says what the product has done wrong; other agents are only shown.
func (r *Run) bad() error {
	var errs []error
	for _, x := range r.Results {
		if why := x.wrong(); x.Agent == agentOurs && why != "" {
			errs = append(errs, fmt.Errorf("%s: %s", x.Workload, why))
		}
	}
	return errors.Join(errs...)
}

// measureAll measures everything, each workload by one agent after the other, so that
// what changes on the machine in the meantime touches all of them.
func measureAll(ctx context.Context, o options, out io.Writer) (*Run, error) {
	m, err := thisMachine()
	if err != nil {
		return nil, err
	}
	run := &Run{Machine: m}
	dir, err := os.MkdirTemp(o.dir, "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary
	fmt.Fprintf(out, "%s\n%-16s %-13s %9s %9s %8s %8s %8s %9s %9s %9s %7s\n", m, "workload", "agent", "CPU s", "CPU %", "wakes/s", "MB/CPU s", "peak MB", "p50", "p99", "wire MB", "missing")
	for _, w := range o.workloads {
		data := &dataset{dir: filepath.Join(dir, w.Name), w: w, seed: o.seed}
		for range o.repeat {
			for _, a := range o.agents {
				if !w.suits(a) {
					continue
				}
				if err := data.prepare(); err != nil {
					return nil, fmt.Errorf("write logs: %w", err)
				}
				r, err := measureOne(ctx, &o, data, a)
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if err != nil {
					r.Problem = err.Error()
				}
				run.Results = append(run.Results, r)
				printResult(out, &r)
			}
		}
		if err := os.RemoveAll(data.dir); err != nil {
			return nil, err
		}
	}
	return run, nil
}

func printResult(out io.Writer, r *Result) {
	fmt.Fprintf(out, "%-16s %-13s %9.3f %9.2f %8.0f %8.0f %8.1f %9v %9v %9.2f %7d\n", r.Workload, r.Agent, r.CPU.Seconds(), r.percent(), ratio(float64(r.WakeUps), r.Wall.Seconds()), r.speed(),
		float64(r.Peak)/1e6, r.Latency.P50.Round(time.Millisecond), r.Latency.P99.Round(time.Millisecond), float64(r.Wire)/1e6, r.Missing)
	if why := r.wrong(); why != "" {
		fmt.Fprintf(out, "  %s\n", why)
	}
}

// percent is the CPU time in percent of one core.
func (r *Result) percent() float64 { return ratio(100*r.CPU.Seconds(), r.Wall.Seconds()) }

// speed is megabytes of Docker's files per CPU second.
func (r *Result) speed() float64 { return ratio(float64(r.Bytes)/1e6, r.CPU.Seconds()) }

// pace is megabytes of Docker's files per second.
func (r *Result) pace() float64 { return ratio(float64(r.Bytes)/1e6, r.Wall.Seconds()) }

// ratio is a/b, and 0 without a b.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// dataset is the logs of a workload.
type dataset struct {
	dir   string
	w     workload
	seed  uint64
	bytes int64
	clean bool // the files are there, with the preloaded lines only
}

func (d *dataset) prepare() error {
	if d.clean {
		return nil
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	g := genlog.New(d.seed)
	var buf []byte
	d.bytes = 0
	const past = 30 * time.Minute
	start := time.Now().Add(-past)
	for c := range d.w.containers {
		path := genlog.LogPath(d.dir, c)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as anybody's
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640) //nolint:gosec // as Docker's
		if err != nil {
			return err
		}
		buf = buf[:0]
		for n := range d.w.preload {
			buf = g.Append(buf, c, n, start.Add(past*time.Duration(n)/time.Duration(d.w.preload)))
			if len(buf) > 1<<20 || n == d.w.preload-1 {
				d.bytes += int64(len(buf))
				if _, err := f.Write(buf); err != nil {
					return errors.Join(err, f.Close())
				}
				buf = buf[:0]
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	d.clean = true
	return nil
}

// bench is one agent at one workload.
type bench struct {
	data  *dataset
	agent agent
	place place
	store *http.Client
	proc  *process // the agent
	sink  *process
	// control is where the sink is asked, a URL.
	control string
	res     Result
	// helpers are the cores of the sink and of the writers.
	helpers []int
}

func measureOne(ctx context.Context, o *options, data *dataset, a agent) (res Result, err error) {
	w := &data.w
	b := &bench{data: data, agent: a, store: &http.Client{Timeout: time.Minute}}
	b.res = Result{Workload: w.Name, What: w.what, Agent: a.name, Containers: w.containers}
	defer func() { res = b.res }()
	defer b.store.CloseIdleConnections()

	cores, err := measure.Cores()
	if err != nil {
		return res, err
	}
	own := cores[:min(w.cores, len(cores))]
	b.res.Cores, b.helpers = len(own), cores[len(own):]
	if w.shared || len(b.helpers) == 0 {
		b.helpers = own
	}
	dir, err := os.MkdirTemp("", "lcb") // short: a socket's path may have 107 bytes
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary
	b.place = place{root: data.dir, engine: filepath.Join(dir, "d.sock"), dir: dir}
	if b.place.http, err = freeAddr(ctx); err != nil {
		return res, err
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return res, err
	}
	control, err := freeAddr(ctx)
	if err != nil {
		return res, err
	}
	b.place.sink, b.control = "http://"+addr, "http://"+control
	self, err := os.Executable()
	if err != nil {
		return res, err
	}
	if b.sink, err = startProcess(b.helpers, filepath.Join(dir, "sink.log"), self, "sink", "-addr", addr, "-control", control, "-answer", w.answer.String()); err != nil {
		return res, err
	}
	defer b.sink.stop()
	if err := b.sinkUp(ctx); err != nil {
		return res, err
	}
	stopEngine, err := b.startEngine(ctx)
	if err != nil {
		return res, err
	}
	defer stopEngine()

	args, err := a.args(&b.place)
	if err != nil {
		return res, err
	}
	if w.window == 0 {
		if err := b.post(ctx, fmt.Sprintf("/hold?room=%d", data.bytes/2), nil, nil); err != nil {
			return res, err
		}
	}
	started := time.Now()
	if b.proc, err = startProcess(own, filepath.Join(dir, "agent.log"), filepath.Join(o.bin, a.program), args...); err != nil {
		return res, err
	}
	defer b.proc.stop()
	if err := b.catchUp(ctx, started); err != nil {
		return res, err
	}
	counts := make([]int, w.containers)
	for i := range counts {
		counts[i] = w.preload
	}
	if w.window > 0 {
		if counts, err = b.goOn(ctx, o, self); err != nil {
			return res, err
		}
	}
	return res, b.finish(ctx, counts)
}

// startEngine serves Docker's API until the function it gives is called.
func (b *bench) startEngine(ctx context.Context) (stop func(), err error) {
	e, err := engine.New(b.place.root, b.data.w.containers, time.Now().Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", b.place.engine)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return func() { _ = srv.Close(); <-done }, nil
}

// sinkUp waits until the sink answers.
func (b *bench) sinkUp(ctx context.Context) error {
	for {
		if err := b.sink.ended(); err != nil {
			return err
		}
		if _, err := b.stats(ctx, false); err == nil {
			return nil
		}
		if err := wait(ctx, askEvery); err != nil {
			return err
		}
	}
}

// catchUp waits until all lines have arrived that are there, or no more do.
func (b *bench) catchUp(ctx context.Context, started time.Time) error {
	w := &b.data.w
	total := w.containers * w.preload
	held := w.window == 0
	// Of the last request that has been seen, and what agent and sink had used then.
	requests, at, cpu, sinkCPU := -1, started, time.Duration(0), time.Duration(0)
	sinkBefore, err := measure.CPU(b.sink.pid())
	if err != nil {
		return err
	}
	for {
		if err := b.proc.ended(); err != nil {
			return err
		}
		st, err := b.stats(ctx, false)
		if err != nil {
			return err
		}
		if st.Requests != requests {
			requests, at = st.Requests, time.Now()
			if cpu, err = measure.CPU(b.proc.pid()); err != nil {
				return err
			}
			if sinkCPU, err = measure.CPU(b.sink.pid()); err != nil {
				return err
			}
		}
		still := time.Since(at)
		if held && requests > 0 && still > w.quiet {
			if st, err = b.lookAt(ctx); err != nil {
				return err
			}
			now, err := measure.CPU(b.sink.pid())
			if err != nil {
				return err
			}
			sinkBefore += now - sinkCPU // for looking
			sinkCPU = now
		}
		if st.Lines >= total || still > stalled {
			b.res.Lines, b.res.Bytes, b.res.CPU, b.res.Wall = st.Lines, b.data.bytes, cpu, st.LastAt.Sub(started)
			if held {
				b.res.SinkCPU = sinkCPU - sinkBefore
			}
			return b.memory(ctx)
		}
		if err := wait(ctx, askEvery); err != nil {
			return err
		}
	}
}

// lookAt lets the sink look at all that it has, and hold again.
func (b *bench) lookAt(ctx context.Context) (sink.Stats, error) {
	if err := b.post(ctx, "/release", nil, nil); err != nil {
		return sink.Stats{}, err
	}
	for {
		st, err := b.stats(ctx, false)
		if err != nil {
			return st, err
		}
		if st.Queued == 0 {
			return st, b.post(ctx, "/hold", nil, nil)
		}
		if err := wait(ctx, askEvery); err != nil {
			return st, err
		}
	}
}

// goOn measures the agent in the window, and gives what has been written.
func (b *bench) goOn(ctx context.Context, o *options, self string) ([]int, error) {
	w := &b.data.w
	var done written
	var writer *process
	if w.rate > 0 || w.burst > 0 {
		b.data.clean = false
		plan := writePlan{
			root: b.place.root, containers: w.containers, first: w.preload, rate: w.rate,
			burst: w.burst, burstEvery: w.burstEvery, span: w.warm + w.window + time.Second, seed: b.data.seed,
		}
		name := filepath.Join(b.place.dir, "written.json")
		out, err := os.Create(name)
		if err != nil {
			return nil, err
		}
		defer out.Close() //nolint:errcheck // the child writes it
		writer, err = startWriting(b.helpers, filepath.Join(b.place.dir, "writer.log"), out, self, append([]string{"write"}, plan.args()...)...)
		if err != nil {
			return nil, err
		}
		defer writer.stop()
	}
	if err := wait(ctx, w.warm); err != nil {
		return nil, err
	}
	before, err := b.sample(ctx, true)
	if err != nil {
		return nil, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, o, w) }()
	if err := wait(ctx, w.window); err != nil {
		return nil, errors.Join(err, <-profiled)
	}
	after, err := b.sample(ctx, false)
	if err := errors.Join(err, <-profiled); err != nil {
		return nil, err
	}
	b.res.CPU, b.res.Wall, b.res.Lines = after.cpu-before.cpu, after.at.Sub(before.at), after.lines-before.lines
	b.res.Bytes, b.res.WakeUps = 0, after.woken-before.woken
	if err := b.memory(ctx); err != nil {
		return nil, err
	}
	if writer == nil {
		done.Counts = make([]int, w.containers)
		for i := range done.Counts {
			done.Counts[i] = w.preload
		}
		return done.Counts, nil
	}
	select {
	case <-writer.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if writer.err != nil {
		return nil, writer.ended()
	}
	text, err := os.ReadFile(filepath.Join(b.place.dir, "written.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &done); err != nil {
		return nil, fmt.Errorf("what the writer says: %w", err)
	}
	lines := 0
	for _, n := range done.Counts {
		lines += n - w.preload
	}
	b.res.Late = done.Late
	b.res.Bytes = int64(float64(done.Bytes) * ratio(float64(b.res.Lines), float64(lines)))
	return done.Counts, nil
}

// profile takes a CPU profile of our agent in the window, if that is asked for.
func (b *bench) profile(ctx context.Context, o *options, w *workload) error {
	if o.profiles == "" || b.agent.name != agentOurs {
		return nil
	}
	if err := os.MkdirAll(o.profiles, 0o755); err != nil { //nolint:gosec // as anybody's
		return err
	}
	text, err := b.get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", b.place.http, max(1, w.window.Seconds())))
	if err != nil {
		return fmt.Errorf("profile of %s: %w", b.agent.name, err)
	}
	return os.WriteFile(filepath.Join(o.profiles, w.Name+".pprof"), text, 0o644) //nolint:gosec // as anybody's
}

// sample is what is known at one moment.
type sample struct {
	at    time.Time
	cpu   time.Duration
	woken int64
	lines int
}

// sample takes one; begin: latencies are measured from it on.
func (b *bench) sample(ctx context.Context, begin bool) (s sample, err error) {
	if err := b.proc.ended(); err != nil {
		return s, err
	}
	if begin {
		if err := b.post(ctx, "/measure", nil, nil); err != nil {
			return s, err
		}
	}
	st, err := b.stats(ctx, false)
	if err != nil {
		return s, err
	}
	s.at, s.lines = time.Now(), st.Lines
	if s.woken, err = measure.WakeUps(b.proc.pid()); err != nil {
		return s, err
	}
	s.cpu, err = measure.CPU(b.proc.pid())
	return s, err
}

// memory notes the agent's memory and goroutines.
func (b *bench) memory(ctx context.Context) (err error) {
	if b.res.Memory, err = measure.MemoryOf(b.proc.pid()); err != nil || !b.agent.metrics {
		return err
	}
	text, err := b.get(ctx, "http://"+b.place.http+"/metrics")
	if err != nil {
		return fmt.Errorf("metrics of %s: %w", b.agent.name, err)
	}
	if m := goroutines.FindSubmatch(text); m != nil {
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return err
		}
		b.res.Goroutines = int(n)
	}
	return nil
}

var goroutines = regexp.MustCompile(`(?m)^(?:log_capturer_goroutines|go_goroutines) (\S+)$`)

// finish waits for what is still on its way, and takes account of everything.
func (b *bench) finish(ctx context.Context, counts []int) error {
	total := 0
	for _, n := range counts {
		total += n
	}
	lines, at := 0, time.Now()
	if err := b.post(ctx, "/release", nil, nil); err != nil {
		return err
	}
	for {
		st, err := b.stats(ctx, false)
		if err != nil {
			return err
		}
		if st.Lines != lines {
			lines, at = st.Lines, time.Now()
		}
		if st.Queued == 0 && (lines >= total || time.Since(at) > stalled) {
			break
		}
		if err := errors.Join(b.proc.ended(), wait(ctx, askEvery)); err != nil {
			return err
		}
	}
	st, err := b.stats(ctx, true)
	if err != nil {
		return err
	}
	b.res.Tally, b.res.Wire, b.res.Requests = st.Tally, st.Bytes, st.Requests
	if b.data.w.rate > 0 || b.data.w.burst > 0 {
		b.res.Latency = st.Latency
	}
	if b.res.Load, err = loadAverage(); err != nil {
		return err
	}
	if st.Errors > 0 {
		return fmt.Errorf("%d requests could not be decoded: %s", st.Errors, st.Error)
	}
	body, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	return b.post(ctx, "/missing", body, &b.res.Missing)
}

func (b *bench) stats(ctx context.Context, latency bool) (st sink.Stats, err error) {
	url := b.control + "/stats"
	if latency {
		url += "?latency"
	}
	text, err := b.get(ctx, url)
	if err != nil {
		return st, err
	}
	err = json.Unmarshal(text, &st)
	return st, err
}

func (b *bench) get(ctx context.Context, url string) ([]byte, error) {
	return b.ask(ctx, http.MethodGet, url, nil)
}

// post posts to the sink, and reads the answer into v unless that is nil.
func (b *bench) post(ctx context.Context, path string, body []byte, v any) error {
	text, err := b.ask(ctx, http.MethodPost, b.control+path, body)
	if err != nil || v == nil {
		return err
	}
	return json.Unmarshal(text, v)
}

func (b *bench) ask(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := b.store.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(text)))
	}
	return text, nil
}
