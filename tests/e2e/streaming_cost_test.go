package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/s2"
	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// measureEnv, set to 1, lets TestMeasureStreaming run.
const measureEnv = "LOG_CAPTURER_MEASURE"

// allStreamed is the rollback switch.
const allStreamed = "monitors: {container: {file_based_monitoring: {enabled: false}}}"

// TestMeasureStreaming measures what streaming costs beside reading files, with
// the real agent and an engine that does nothing else. Its figures are what
// docs/reports/streaming.md is made of; it fails where lines that were written
// do not arrive, or where something leaks. It takes up to half an hour,
// and wants the machine to itself.
func TestMeasureStreaming(t *testing.T) {
	if os.Getenv(measureEnv) != "1" {
		t.Skipf("it measures for half an hour; make measure-streaming runs it (%s=1)", measureEnv)
	}
	t.Run("cost", measureCost)
	t.Run("churn", measureChurn)
	t.Run("turns", measureTurns)
	t.Run("rotation", measureRotation)
}

// clock is a log store that accepts everything, and knows how long after its
// time each line came.
type clock struct {
	url string

	mu        sync.Mutex
	keep      bool
	n         int               // lines so far
	lines     map[string][]line // by container, unless they are not kept
	latencies []time.Duration   // since they were last asked for
}

// startClock starts a clock that ends with the test. It has the lines themselves
// only if they are kept.
func startClock(t *testing.T, keep bool) *clock {
	c := &clock{keep: keep, lines: make(map[string][]line)}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	c.url = s.URL + "/loki/api/v1/push"
	return c
}

// readPush gives what a request to the push API brings.
func readPush(r *http.Request) (req push.PushRequest, err error) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		body, err = s2.Decode(nil, body)
	}
	if err == nil {
		err = req.Unmarshal(body)
	}
	return req, err
}

func (c *clock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := readPush(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, s := range req.Streams {
		labels, err := lokitest.ParseLabels(s.Labels)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		name, stream := labels["container_name"], labels["stream"]
		for _, e := range s.Entries {
			c.n++
			c.latencies = append(c.latencies, now.Sub(e.Timestamp))
			if c.keep {
				c.lines[name] = append(c.lines[name], line{stream: stream, text: e.Line, at: e.Timestamp})
			}
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// total gives how many lines have come.
func (c *clock) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// of gives the lines of a container, in the order in which they came.
func (c *clock) of(container string) []line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines[container])
}

// delays gives, sorted, how late the lines were that have come since it was last
// called.
func (c *clock) delays() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.latencies
	c.latencies = nil
	slices.Sort(d)
	return d
}

// quantile gives the q-th quantile of sorted durations; zero if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

// cpu gives how much of the processors a process has had so far, the kernel's
// work for it included.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// "pid (name) state ...": the name may contain anything.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3 // as proc(5) counts, from the state on
	if len(f) <= stime {
		t.Fatalf("/proc/%d/stat: %q", pid, text)
	}
	var ticks int
	for _, s := range []string{f[utime], f[stime]} {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("/proc/%d/stat: %v", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ
}

// residentMB gives the memory of a process that is resident now.
func residentMB(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		t.Fatalf("/proc/%d/statm: %q", pid, text)
	}
	pages, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// descriptors gives how many descriptors a process has open.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// load gives the load average of the last minute. Beside a latency it tells how
// far that can be trusted.
func load(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	one, _, _ := strings.Cut(string(text), " ")
	return fmt.Sprintf("%s on %d cores", one, runtime.NumCPU())
}

// measured is what a span of time has cost agent and engine.
type measured struct {
	took          time.Duration
	agent, engine time.Duration // CPU
}

// percent gives a CPU time in percent of one core.
func (m *measured) percent(cpu time.Duration) float64 { return 100 * cpu.Seconds() / m.took.Seconds() }

// measure gives what agent (nil: there is none) and engine use while f runs.
func (w *world) measure(a *harness.Agent, f func()) measured {
	w.t.Helper()
	agent := func() time.Duration {
		if a == nil {
			return 0
		}
		return cpu(w.t, a.Pid())
	}
	began, a0, e0 := time.Now(), agent(), cpu(w.t, w.d.Pid())
	f()
	return measured{took: time.Since(began), agent: agent() - a0, engine: cpu(w.t, w.d.Pid()) - e0}
}

// newMeasuredWorld has an engine of its own, and no store.
func newMeasuredWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, d: harness.StartDockerd(t)}
	t.Cleanup(w.removeContainers)
	return w
}

// reconfigured gives an agent other YAML at the top level for its next start.
func reconfigured(t *testing.T, a *harness.Agent, from, to string) {
	t.Helper()
	text, err := os.ReadFile(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	changed, ok := strings.CutSuffix(string(text), from+"\n")
	if !ok {
		t.Fatalf("%q is not the end of the configuration:\n%s", from, text)
	}
	if err := os.WriteFile(a.Config, []byte(changed+to+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// measureCost: 50 containers x 20 lines/s, read from files, the same streamed, and
// 50 of a driver that keeps no json-file.
func measureCost(t *testing.T) {
	const (
		n, rate = 50, 20
		span    = time.Minute
		// without is for how long the engine alone is measured, settle how long the
		// agent has after its start to catch up.
		without, settle = 20 * time.Second, 10 * time.Second
	)
	for _, driver := range []string{"json-file", "local"} {
		t.Run(driver, func(t *testing.T) {
			w := newMeasuredWorld(t)
			c := startClock(t, true)
			roads := []string{byFile, byStream}
			if driver != "json-file" {
				roads = roads[1:]
			}
			// Half as long again: what starts and stops meanwhile takes its time.
			seconds := 1.5 * (without + time.Duration(len(roads))*(settle+span)).Seconds()
			var all []output
			var ids []string
			for i := range n {
				o := output{name: fmt.Sprintf("%s%d", driver, i), lines: int(seconds * rate), size: 150}
				s := o.spec("-rate", strconv.Itoa(rate))
				s.Driver = driver
				all, ids = append(all, o), append(ids, w.create(s))
			}
			w.each(ids, w.d.StartNow)
			alone := w.measure(nil, func() { <-time.After(without) })
			t.Logf("without agent: dockerd %.2f %% of a core, %.0f MB, %d descriptors; load %s",
				alone.percent(alone.engine), residentMB(t, w.d.Pid()), descriptors(t, w.d.Pid()), load(t))

			a := w.agentTo(c.url, "", "")
			for _, road := range roads {
				if road == byStream && len(roads) > 1 {
					a.Stop()
					reconfigured(t, a, "", allStreamed)
				}
				a.Start()
				<-time.After(settle)
				w.methodOf(a, road, n)
				before := c.total()
				c.delays()
				m := w.measure(a, func() { <-time.After(span) })
				late, lines := c.delays(), c.total()-before
				f := a.Metrics()
				t.Logf("%s by %s, %.1f s: agent %.2f s = %.2f %% of a core, %.1f MB, %v goroutines, %v descriptors; dockerd %.2f s = %.2f %%, %.0f MB, %d descriptors; %d lines, late p50 %v p95 %v p99 %v; load %s",
					driver, road, m.took.Seconds(), m.agent.Seconds(), m.percent(m.agent), residentMB(t, a.Pid()), f[metricGoroutines], f[metricFDs],
					m.engine.Seconds(), m.percent(m.engine), residentMB(t, w.d.Pid()), descriptors(t, w.d.Pid()),
					lines, quantile(late, 0.5).Round(time.Millisecond), quantile(late, 0.95).Round(time.Millisecond), quantile(late, 0.99).Round(time.Millisecond), load(t))
				if want := rate * n * int(span/time.Second); lines < want*9/10 {
					t.Errorf("%d lines in %v, want about %d", lines, span, want)
				}
			}
			w.stillRunning(ids)
			harness.Within(2*time.Minute, func() bool { return c.total() >= n*all[0].lines })
			for _, o := range all {
				if r := compare(o.want(), c.of(o.name)); !r.lossless() || r.doubled > 0 {
					t.Errorf("%s: of %d lines %s", o.name, o.lines, &r)
				}
			}
			t.Logf("%d lines written, %d delivered", n*all[0].lines, c.total())
		})
	}
}

// methodOf waits until n containers are captured by a method.
func (w *world) methodOf(a *harness.Agent, method string, n int) {
	w.t.Helper()
	harness.Eventually(w.t, 30*time.Second, fmt.Sprintf("%d containers by %s", n, method), func() bool {
		have := 0
		for _, c := range shown(w.t, a) {
			if c.Method == method {
				have++
			}
		}
		return have == n
	})
}

// measureChurn: what is left of containers that have come and gone.
func measureChurn(t *testing.T) {
	const (
		n     = 20 // of each road, started and ended together
		lines = 5
		// limit is for all of it: as many starts as fit are done, 1,000 of each
		// road at most.
		starts, limit = 1000, 10 * time.Minute
		idle          = 8 // connections to the engine that are kept for a while
	)
	w := newMeasuredWorld(t)
	c := startClock(t, true)
	a := w.agentTo(c.url, "", "")
	a.Start()
	type made struct{ name, id string }
	var all []made
	var ids []string
	for _, driver := range []string{"json-file", "local"} {
		for i := range n {
			o := output{name: fmt.Sprintf("%s%d", driver, i), lines: lines}
			s := o.spec()
			s.Driver = driver
			m := made{o.name, w.create(s)}
			all, ids = append(all, m), append(ids, m.id)
		}
	}
	batch := func() {
		w.each(ids, w.d.StartNow)
		for _, id := range ids {
			w.d.Wait(t, id, time.Minute)
		}
	}
	// quiet gives figures that have not changed for two seconds.
	quiet := func() (goroutines, fds float64) {
		same := 0
		harness.Eventually(t, time.Minute, "nothing is read, and peace", func() bool {
			m := a.Metrics()
			same++
			if m[metricGoroutines] != goroutines || m[metricFDs] != fds || m[metricMonitored]+m[metricStreaming]+m[metricStreamsOpen] > 0 {
				same = 0
			}
			goroutines, fds = m[metricGoroutines], m[metricFDs]
			return same >= 100
		})
		return goroutines, fds
	}
	batch()
	goroutines, fds := quiet()
	memory := residentMB(t, a.Pid())
	began, rounds := time.Now(), 1
	for time.Since(began) < limit && rounds*n < starts+n {
		batch()
		rounds++
	}
	took := time.Since(began)
	harness.Within(time.Minute, func() bool { return c.total() >= rounds*lines*len(all) })
	g, f := quiet()
	t.Logf("%d starts and stops of each road within %v: goroutines %v, before %v; descriptors %v, before %v; %.1f MB, before %.1f; load %s",
		(rounds-1)*n, took.Round(time.Second), g, goroutines, f, fds, residentMB(t, a.Pid()), memory, load(t))
	if g > goroutines+2*idle || f > fds+idle {
		t.Errorf("goroutines %v, before %v; descriptors %v, before %v", g, goroutines, f, fds)
	}
	for _, m := range all {
		want := w.engineLog(m.id, false)
		if r := compare(want, c.of(m.name)); len(want) != rounds*lines || !r.lossless() || r.doubled > 0 {
			t.Errorf("%s: %d lines written, the engine has %d, of which %s", m.name, rounds*lines, len(want), &r)
		}
	}
}

// measureTurns: what a turn costs, by the size of the log.
func measureTurns(t *testing.T) {
	const lineSize = 1000
	for _, c := range []struct {
		driver     string
		mb         int
		n, streams int
		opts       map[string]string
	}{
		{driver: "local", mb: 1, n: 60, streams: 10},
		{driver: "local", mb: 1, n: 12, streams: 1},
		{driver: "local", mb: 5, n: 12, streams: 1},
		{driver: "local", mb: 20, n: 12, streams: 1, opts: map[string]string{"max-size": "100m"}},
		{driver: "local", mb: 20, n: 12, streams: 1, opts: map[string]string{"max-size": "5m"}},
		{driver: "json-file", mb: 20, n: 12, streams: 1},
	} {
		t.Run(fmt.Sprintf("%s-%dMB-%dx%d-%s", c.driver, c.mb, c.n, c.streams, c.opts["max-size"]), func(t *testing.T) {
			w := newMeasuredWorld(t)
			sink := startClock(t, false)
			lines := c.mb << 20 / lineSize
			var ids []string
			for i := range c.n {
				// The last line is one of stderr: both streams have a place near the end,
				// as after hours. Of one that is silent a turn asks for a second more.
				o := output{name: fmt.Sprintf("turn%d", i), lines: lines, size: lineSize, stderrEvery: lines}
				s := o.spec("-sleep-after", "-1s")
				s.Driver, s.LogOpts = c.driver, c.opts
				ids = append(ids, w.create(s))
			}
			w.each(ids, w.d.StartNow)
			w.settled(ids)
			a := w.agentTo(sink.url, fmt.Sprintf("monitors: {container: {file_based_monitoring: {enabled: false}, streaming: {max_streams: %d}}}", c.streams), "")
			a.Start()
			harness.Eventually(t, 3*time.Minute, "all lines", func() bool { return sink.total() >= c.n*lines })
			turns := func() float64 { return a.Metrics()[metricTurns] }
			inTurns := c.n - (c.streams - max(1, c.streams/5))
			first := turns()
			harness.Eventually(t, 2*time.Minute, "a round of turns", func() bool { return turns() >= first+float64(inTurns) })
			from := turns()
			m := w.measure(a, func() { <-time.After(30 * time.Second) }) // /metrics itself costs the agent something
			done := turns() - from
			t.Logf("%.1f MB on disk each: %v turns of %d containers in %.1f s: dockerd %.1f ms each, %.1f %% of a core; agent %.1f ms each; load %s",
				w.onDiskMB(ids[0]), done, inTurns, m.took.Seconds(), 1000*m.engine.Seconds()/done, m.percent(m.engine), 1000*m.agent.Seconds()/done, load(t))
			if done < float64(inTurns) {
				t.Errorf("%v turns of %d containers in half a minute", done, inTurns)
			}
			if got := sink.total(); got != c.n*lines {
				t.Errorf("%d lines delivered of %d written", got, c.n*lines)
			}
		})
	}
}

// settled waits until the logs of containers grow no more.
func (w *world) settled(ids []string) {
	w.t.Helper()
	before, same := -1.0, 0
	harness.Eventually(w.t, 3*time.Minute, "all logs are written", func() bool {
		sum := 0.0
		for _, id := range ids {
			sum += w.onDiskMB(id)
		}
		if same++; sum != before {
			same = 0
		}
		before = sum
		return same >= 100
	})
}

// onDiskMB gives the size of all files of a container's log.
func (w *world) onDiskMB(id string) float64 {
	w.t.Helper()
	var bytes int64
	err := filepath.WalkDir(filepath.Join(w.d.ContainersDir(), id), func(path string, e fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || e.IsDir() || !strings.Contains(name, "-json.log") && !strings.HasPrefix(name, "container.log") {
			return nil //nolint:nilerr // rotated away meanwhile
		}
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return float64(bytes) / (1 << 20)
}

// measureRotation: what the engine itself loses and repeats when a log that
// rotates fast is followed, by the agent and by one plain connection beside it.
func measureRotation(t *testing.T) {
	const n = 100_000
	d := harness.StartDockerd(t)
	for _, c := range []struct {
		driver, size string
		compress     bool
		rate         int // 0: as fast as can be
	}{
		{driver: "json-file", size: "100k"},
		{driver: "local", size: "100k"},
		{driver: "local", size: "100k", compress: true},
		{driver: "json-file", size: "1m", rate: 5000},
		{driver: "local", size: "1m", rate: 5000},
		{driver: "local", size: "1m", compress: true, rate: 5000},
	} {
		what := fmt.Sprintf("%s-%s-compress-%v-%d", c.driver, c.size, c.compress, c.rate)
		t.Run(what, func(t *testing.T) {
			w := &world{t: t, d: d}
			t.Cleanup(w.removeContainers)
			sink := startClock(t, true)
			a := w.agentTo(sink.url, allStreamed, "")
			a.Start()
			o := output{name: "fast", lines: n, size: 100}
			s := rotated(o.spec("-sleep-before", "2s", "-rate", strconv.Itoa(c.rate)), c.size, "3", c.compress)
			s.Driver = c.driver
			if c.driver == "local" {
				s.LogOpts["compress"] = strconv.FormatBool(c.compress) // it does by default
			}
			id := w.run(s)
			plain := compare(o.want(), w.follow(id))
			w.d.Wait(t, id, 3*time.Minute)
			has := w.engineLog(id, false)
			harness.Within(30*time.Second, func() bool {
				m := a.Metrics()
				return m[metricStreamsOpen] == 0 && m[metricStreamRead] == m[metricStreamDelivered] && compare(has, sink.of(o.name)).nMissing == 0
			})
			m, got := a.Metrics(), sink.of(o.name)
			all, left := compare(o.want(), got), compare(has, got)
			t.Logf("%s: of %d lines the agent delivered %d, and %d of them twice; a plain follower got %d, and %d twice; of %d that the engine still had %d are missing; stream errors %v, turns %v, gaps %v; load %s",
				what, n, n-all.nMissing, all.doubled, n-plain.nMissing, plain.doubled, len(has), left.nMissing,
				m["log_capturer_stream_errors_total"], m[metricTurns], gaps(m), load(t))
			if all.nForeign+plain.nForeign > 0 {
				t.Errorf("lines that nobody wrote: agent %q, plain follower %q", all.foreign, plain.foreign)
			}
		})
	}
}

// follow gives what one connection brings until the container exits.
func (w *world) follow(id string) []line {
	w.t.Helper()
	c, err := docker.New(w.d.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Logs(w.t.Context(), id, docker.LogsOptions{Follow: true})
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	var all []line
	for {
		f, err := s.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			w.t.Fatalf("after %d lines: %v", len(all), err)
		}
		all = append(all, line{stream: "stdout", text: strings.TrimSuffix(string(f.Text), "\n"), at: time.Unix(0, f.Time)})
	}
}
