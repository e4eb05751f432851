package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// Names of metrics of the streaming road.
const (
	metricStreamRead      = `log_capturer_lines_read_total{method="streaming"}`
	metricStreamDelivered = `log_capturer_logs_processed_total{method="streaming",result="delivered"}`
	metricStreamDead      = `log_capturer_logs_processed_total{method="streaming",result="dead_lettered"}`
	metricStreamsOpen     = `log_capturer_streams_open`
	metricStreaming       = `log_capturer_streaming_containers`
	metricTurns           = `log_capturer_stream_turns_total`
	metricGaps            = `log_capturer_stream_gaps_total`
)

// The methods of a container.
const (
	byFile    = "file_monitor"
	byStream  = "streaming"
	byNothing = "none"
)

// captured is a container as GET /api/v1/containers shows it.
type captured struct {
	ID, Name, Image, Driver, Method, Reason, State string

	Position map[string]struct {
		Time   *time.Time
		Offset *int64
	}
	LagSeconds        float64 `json:"lag_seconds"`
	UnreadBytes       *int64  `json:"unread_bytes"`
	LinesRead         int64   `json:"lines_read"`
	LinesDelivered    int64   `json:"lines_delivered"`
	LinesDeadLettered int64   `json:"lines_dead_lettered"`
	BytesLost         int64   `json:"bytes_lost"`
	Gaps              int64
	GapAfter          *time.Time `json:"gap_after"`
	GapBefore         *time.Time `json:"gap_before"`
	Errors            int64
	LastError         string `json:"last_error"`
}

// shown gives what the API says of the containers, by name.
func shown(t *testing.T, a *harness.Agent) map[string]captured {
	t.Helper()
	all := make(map[string]captured)
	for _, c := range listed(t, a) {
		all[c.Name] = c
	}
	return all
}

// listed gives what the API says of the containers, in its order.
func listed(t *testing.T, a *harness.Agent) []captured {
	t.Helper()
	resp, err := http.Get("http://" + a.Addr + "/api/v1/containers")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct{ Containers []captured }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return body.Containers
}

// method waits until the API shows containers with a method, and a reason.
func (w *world) method(a *harness.Agent, limit time.Duration, method string, names ...string) {
	w.t.Helper()
	var all map[string]captured
	if !harness.Within(limit, func() bool {
		all = shown(w.t, a)
		for _, n := range names {
			if all[n].Method != method || all[n].Reason == "" {
				return false
			}
		}
		return true
	}) {
		for n, c := range all {
			w.t.Logf("%s: %+v", n, c)
		}
		w.t.Fatalf("not all of %v have the method %s within %v", names, method, limit)
	}
}

// streamed is a container that writes an output and keeps no json-file.
func streamed(o output, more ...string) harness.ContainerSpec {
	s := o.spec(more...)
	s.Driver = "local"
	return s
}

// terminal is a container with a TTY. All that it writes is stdout.
func terminal(s harness.ContainerSpec) harness.ContainerSpec {
	s.TTY = true
	return s
}

// syslog is a container of which only the engine's cache can be read.
func (w *world) syslog(o output, more ...string) harness.ContainerSpec {
	w.t.Helper()
	sink, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody reads; the engine does not mind
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = sink.Close() })
	s := o.spec(more...)
	s.Driver, s.LogOpts = "syslog", map[string]string{"syslog-address": "udp://" + sink.LocalAddr().String()}
	return s
}

// streamsBalanced waits until nothing that was streamed is on its way, and adds up. Of
// what was in the spool at the start nothing is known but how much it was.
func (w *world) streamsBalanced(a *harness.Agent) {
	w.t.Helper()
	found := spooledAtStart(w.t, a.Log())
	var m map[string]float64
	if !harness.Within(20*time.Second, func() bool {
		m = a.Metrics()
		more := m[metricStreamDelivered] + m[metricStreamDead] - m[metricStreamRead]
		return m[metricStreamRead] > 0 && more >= 0 && more <= found
	}) {
		w.t.Errorf("it does not add up: streamed %v, in the spool at the start %v, delivered %v, dead-lettered %v", m[metricStreamRead], found, m[metricStreamDelivered], m[metricStreamDead])
	}
}

// streamDelivered waits until the agent has delivered so many streamed lines since
// its start.
func (w *world) streamDelivered(a *harness.Agent, n float64) {
	w.t.Helper()
	harness.Eventually(w.t, 20*time.Second, fmt.Sprintf("%v streamed lines delivered", n), func() bool { return a.Metrics()[metricStreamDelivered] >= n })
}

// gaps gives how often the agent knows that streamed lines are missing.
func gaps(m map[string]float64) (n float64) {
	for k, v := range m {
		if strings.HasPrefix(k, metricGaps) {
			n += v
		}
	}
	return n
}

// engineLog gives the lines of a container's log as the engine has them now.
func (w *world) engineLog(id string, tty bool) []line {
	w.t.Helper()
	c, err := docker.New(w.d.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Logs(w.t.Context(), id, docker.LogsOptions{TTY: tty})
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	var all []line
	open := map[string]*line{}
	for {
		f, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatalf("after %d lines: %v", len(all), err)
		}
		stream, at := "stdout", time.Unix(0, f.Time)
		if f.Stderr {
			stream = "stderr"
		}
		if o := open[stream]; o != nil && !o.at.Equal(at) {
			all = append(all, *o)
			delete(open, stream)
		}
		if open[stream] == nil {
			open[stream] = &line{stream: stream, at: at}
		}
		o := open[stream]
		o.text += strings.TrimSuffix(string(f.Text), "\n")
		if !f.Fragment {
			o.text = strings.TrimSuffix(o.text, "\r")
			all = append(all, *o)
			delete(open, stream)
		}
	}
	for _, o := range open {
		all = append(all, *o)
	}
	return all
}

// TestStreamedDrivers: every driver by the road that it allows: each line once,
// with the right labels and stream.
func TestStreamedDrivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")

	plain := output{name: "local-plain", lines: 2000, stderrEvery: 3}
	w.run(streamed(plain, "-sleep-after", "-1s"))
	// Several fragments each, stdout and stderr between one another; runes are cut
	// at the borders. That the driver of 20.10 does not say where such a line ends
	// is made up for by its time.
	long := output{name: "local-long", kind: lines.Long, lines: 40, stderrEvery: 4}
	w.run(streamed(long))
	runes := output{name: "local-runes", kind: lines.Multibyte, size: 40_000, lines: 20, stderrEvery: 3}
	w.run(streamed(runes))
	localTTY := output{name: "local-tty", lines: 200}
	w.run(terminal(streamed(localTTY)))
	// The engine's cache.
	cached := output{name: "syslog", lines: 500, stderrEvery: 5}
	w.run(w.syslog(cached, "-rate", "1000", "-sleep-after", "-1s"))

	fileTTY := output{name: "file-tty", lines: 200}
	w.run(terminal(fileTTY.spec()))
	file := output{name: "file", lines: 500, stderrEvery: 2}
	w.run(file.spec("-sleep-after", "-1s"))
	w.run(harness.ContainerSpec{Name: "none", Driver: "none", Cmd: []string{"-lines", "3", "-sleep-after", "-1s"}})

	w.once(plain, long, runes, localTTY, cached, fileTTY, file)
	w.streamsBalanced(a)
	for _, name := range []string{plain.name, cached.name, file.name} {
		for _, l := range w.labelled(name) {
			// host is the engine's own name.
			labels, ok := strings.CutPrefix(l.labels, fmt.Sprintf(`{container_name=%q,host="`, name))
			if _, rest, _ := strings.Cut(labels, `"`); !ok || rest != fmt.Sprintf(`,image="logwriter",job="log_capturer",stream=%q}`, l.stream) {
				t.Fatalf("%s: labels %s", name, l.labels)
			}
			if l.container == "" || l.fields["image_ref"] != "" && l.fields["image_ref"] != harness.Image {
				t.Fatalf("%s: structured metadata %v", name, l.fields)
			}
		}
	}

	w.method(a, 10*time.Second, byStream, plain.name, long.name, runes.name, localTTY.name, cached.name)
	w.method(a, 10*time.Second, byFile, fileTTY.name, file.name)
	w.method(a, 10*time.Second, byNothing, "none")
	all := shown(t, a)
	for name, want := range map[string]captured{
		plain.name:  {Driver: "local", State: "running", LinesRead: 2000},
		long.name:   {Driver: "local", State: "exited", LinesRead: 40},
		cached.name: {Driver: "syslog", State: "running", LinesRead: 500},
		file.name:   {Driver: "json-file", State: "running", LinesRead: 500},
		"none":      {Driver: "none", State: "running"},
	} {
		got := all[name]
		if got.Driver != want.Driver || got.State != want.State || got.LinesRead != want.LinesRead ||
			got.LinesDelivered != want.LinesRead || got.Errors != 0 || got.Image != harness.Image || got.ID == "" {
			t.Errorf("%s is shown as %+v", name, got)
		}
		if p := got.Position; want.LinesRead > 0 && (p["stdout"].Time == nil || p["stderr"].Time == nil) {
			t.Errorf("%s has the position %+v", name, p)
		}
	}
	m := a.Metrics()
	for driver, method := range map[string]string{"local": byStream, "syslog": byStream, "json-file": byFile} {
		if n := m[fmt.Sprintf(`log_capturer_routing_decision_total{driver=%q,method=%q}`, driver, method)]; n < 1 {
			t.Errorf("%v decisions for %s and %s", n, driver, method)
		}
	}
	// Who takes the driver none wants nothing to be kept: that is told, but is no problem.
	w.health(a, 10*time.Second, 200, "ok", func(b map[string]any) bool {
		return at(b, "docker", "not_captured", "none") == 1.0 && at(b, "docker", "not_captured", "local") == nil && at(b, "docker", "not_captured", "syslog") == nil
	})

	code, out, stderr := command(t, a, "containers", "-config", a.Config)
	if code != 0 {
		t.Errorf("log_capturer containers: exit status %d: %s", code, stderr)
	}
	for name, c := range all {
		found := false
		for row := range strings.Lines(out) {
			f := strings.Fields(row)
			if len(f) > 2 && f[0] == name {
				found = strings.Contains(row, c.Driver) && strings.Contains(row, c.Method)
			}
		}
		if !found {
			t.Errorf("log_capturer containers does not show %s with %s and %s:\n%s", name, c.Driver, c.Method, out)
		}
	}
	w.removeContainers()
	w.health(a, 15*time.Second, 200, "ok", nil)
	harness.Eventually(t, 15*time.Second, "no stream is left", func() bool {
		m := a.Metrics()
		return m[metricStreaming] == 0 && m[metricStreamsOpen] == 0 && len(shown(t, a)) == 0
	})
}

// TestStreamedExited: what ran before the agent's first start and while it was
// down is read out, also what ran twice.
func TestStreamedExited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := output{name: "before", lines: 500, stderrEvery: 4}
	w.d.Wait(t, w.run(streamed(before)), 20*time.Second)
	a := w.agent("")
	w.once(before)
	going := output{name: "going", lines: 300, stderrEvery: 4}
	id := w.run(streamed(going, "-rate", "200"))
	w.more(going.name, 50)
	a.Stop()
	while := output{name: "while", lines: 500, stderrEvery: 4}
	w.d.Wait(t, w.run(streamed(while)), 20*time.Second)
	twice := w.run(streamed(output{name: "twice", lines: 100}))
	w.d.Wait(t, twice, 20*time.Second)
	w.d.StartContainer(t, twice)
	w.d.Wait(t, twice, 20*time.Second)
	w.d.Wait(t, id, 20*time.Second)
	a.Start()
	w.once(before, going, while)
	want := w.engineLog(twice, false)
	if len(want) != 200 {
		t.Errorf("%d lines of two runs with 100 each", len(want))
	}
	w.onceLines("twice", want)
	// What has been read out stays read, and costs no connection.
	a.Stop()
	a.Start()
	marker := output{name: "marker", lines: 10}
	w.run(streamed(marker))
	w.once(before, going, while, marker)
	w.onceLines("twice", want)
	harness.Eventually(t, 20*time.Second, "no stream is open", func() bool { return a.Metrics()[metricStreamsOpen] == 0 })
}

// streamWriters are three containers, of three kinds, that write 1,000 lines/s each
// without end and are streamed.
func (w *world) streamWriters() (all []output, ids []string) {
	w.t.Helper()
	local := output{name: "local", size: 100, stderrEvery: 3}
	tty := output{name: "terminal", size: 100, tty: true}
	cached := output{name: "cached", size: 100, stderrEvery: 4}
	for _, s := range []harness.ContainerSpec{
		streamed(local, "-rate", "1000"), terminal(streamed(tty, "-rate", "1000")), w.syslog(cached, "-rate", "1000"),
	} {
		ids = append(ids, w.run(s))
	}
	return []output{local, tty, cached}, ids
}

// TestStreamedStopAndStart: each line once, however often the agent is stopped.
func TestStreamedStopAndStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	all, ids := w.streamWriters()
	for i := range 4 {
		w.streamDelivered(a, float64(500*(i%3)+50))
		began := time.Now()
		a.Stop()
		if code, took := a.Exit(time.Second), time.Since(began); code != 0 || took > 3*time.Second {
			t.Errorf("exit status %d after %v", code, took)
		}
		a.Start()
	}
	w.once(w.end(all, ids)...)
	w.streamsBalanced(a)
}

// TestStreamedKill9: nothing is missing when the agent is killed, and no more is
// doubled than can have been in flight.
func TestStreamedKill9(t *testing.T) {
	t.Parallel()
	const kills = 5
	w := newWorld(t)
	a := w.agent("")
	all, ids := w.streamWriters()
	for i := range kills {
		w.streamDelivered(a, float64(300*(i%4)+50))
		a.Kill9()
		a.Start()
	}
	all = w.end(all, ids)
	doubled := 0
	for _, o := range all {
		n := w.arrived(o.name, o.want())
		t.Logf("%s: %d of %d lines doubled", o.name, n, o.lines)
		doubled += n
	}
	// A batch is as old as batch_wait at most where the store keeps up; eight times
	// that is for a machine that does not.
	if most := kills * 3 * 1000; doubled > most {
		t.Errorf("%d lines doubled, more than the %d of a second each time", doubled, most)
	}
	w.streamsBalanced(a)
}

// TestStreamedEngine: the engine is restarted and killed under followed
// containers, which end with it.
func TestStreamedEngine(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, harness.StartDockerd(t))
	w.mayLog = []string{engineGone}
	a := w.agent("")
	id := w.run(harness.ContainerSpec{Name: "endless", Driver: "local", Cmd: []string{"-prefix", "e", "-lines", "0", "-rate", "500", "-stderr-every", "3"}})
	w.more("endless", 200)
	w.d.Restart()
	w.back(a)
	w.d.StartContainer(t, id)
	w.more("endless", 200)

	w.d.Kill9()
	w.away(a)
	w.d.Start()
	w.back(a)
	harness.Eventually(t, 20*time.Second, "the engine has ended what it had left", func() bool {
		running, _ := w.d.Running(t, id)
		return !running
	})
	w.d.StartContainer(t, id)
	w.more("endless", 200)
	w.d.StopContainer(t, id, 5*time.Second)
	w.onceLines("endless", w.engineLog(id, false))
	w.streamsBalanced(a)
}

// TestStreamedLiveRestore: containers outlive the engine; what they wrote
// meanwhile comes in a burst.
func TestStreamedLiveRestore(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, harness.StartDockerd(t, harness.WithLiveRestore()))
	w.mayLog = []string{engineGone}
	a := w.agent("")
	id := w.run(harness.ContainerSpec{Name: "survivor", Driver: "local", Cmd: []string{"-prefix", "s", "-lines", "0", "-rate", "500", "-stderr-every", "3"}})
	w.more("survivor", 200)
	w.d.Restart()
	w.back(a)
	w.more("survivor", 500)
	w.d.Kill9()
	w.away(a)
	w.d.Start()
	w.back(a)
	w.more("survivor", 500)
	w.d.StopContainer(t, id, 5*time.Second)
	w.onceLines("survivor", w.engineLog(id, false))
	w.streamsBalanced(a)
}

// TestStreamedRestartPolicy: the stream ends at each exit, and goes on with the
// next run.
func TestStreamedRestartPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	id := w.run(harness.ContainerSpec{
		Name: "dying", Driver: "local", Restart: "on-failure",
		Cmd: []string{"-prefix", "d", "-lines", "300", "-stderr-every", "3", "-exit", "1"},
	})
	harness.Eventually(t, 30*time.Second, "six runs", func() bool {
		_, restarts := w.d.Running(t, id)
		return restarts >= 5
	})
	w.d.StopContainer(t, id, 5*time.Second)
	want := w.engineLog(id, false)
	if len(want) < 1500 {
		t.Errorf("only %d lines", len(want))
	}
	w.onceLines("dying", want)
	w.streamsBalanced(a)
}

// TestStreamedSilent: a container that says nothing is followed by one
// connection, which stays as it is.
func TestStreamedSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, a := w.behindProxy("")
	silent := output{name: "silent", lines: 2}
	// The second line comes after 12.5 s: more than an answer may take.
	id := w.run(streamed(silent, "-rate", "0.08", "-sleep-after", "-1s"))
	harness.Eventually(t, 20*time.Second, "its first line", func() bool { return w.counts()[silent.name] == 1 })
	w.run(harness.ContainerSpec{Name: "mute", Driver: "local", Cmd: []string{"-lines", "1", "-sleep-before", "1h"}})
	harness.Eventually(t, 20*time.Second, "two streams", func() bool { return p.Open(harness.APILogs) == 2 })
	before := p.Requests(harness.APILogs)
	w.once(silent)
	if n := p.Requests(harness.APILogs) - before; n > 0 {
		t.Errorf("%d more streams have been opened meanwhile", n)
	}
	if m := a.Metrics(); m[metricStreaming] < 1 {
		t.Errorf("%v containers are streamed", m[metricStreaming])
	}
	w.d.StopContainer(t, id, 5*time.Second)
	harness.Eventually(t, 20*time.Second, "the one that has ended costs no connection", func() bool {
		return p.Open(harness.APILogs) == 1 && a.Metrics()[metricStreamsOpen] == 1
	})
	w.removeContainers()
	harness.Eventually(t, 20*time.Second, "nor does a removed one", func() bool {
		return p.Open(harness.APILogs) == 0 && a.Metrics()[metricStreamsOpen] == 0
	})
}

// TestMaxStreams: more streamed containers than connections.
func TestMaxStreams(t *testing.T) {
	t.Parallel()
	const n, most = 60, 10
	w := newWorld(t)
	p, a := w.behindProxy(fmt.Sprintf("monitors: {container: {streaming: {max_streams: %d}}}", most))
	var all []output
	var ids []string
	for i := range n {
		o := output{name: fmt.Sprintf("many%d", i), lines: 120, stderrEvery: 4}
		all = append(all, o)
		ids = append(ids, w.create(streamed(o, "-rate", "10", "-sleep-after", "-1s")))
	}
	began := time.Now()
	w.each(ids, w.d.StartNow)
	t.Logf("started within %v", time.Since(began).Round(time.Millisecond))
	harness.Eventually(t, 30*time.Second, "all are streamed, and some lag", func() bool {
		lagging := 0
		for _, c := range shown(t, a) {
			if c.LagSeconds > 1 {
				lagging++
			}
		}
		m := a.Metrics()
		return m[metricStreaming] == n && m[metricStreamsOpen] > 0 && m[metricStreamsOpen] <= most && lagging > 0 && m["log_capturer_stream_lag_seconds"] > 1
	})
	w.once(all...)
	t.Logf("all lines are there after %v", time.Since(began).Round(time.Second))
	if got := p.MostOpen(harness.APILogs); got > most || got < most/2 {
		t.Errorf("%d streams were open at the same time, want at most %d, and not much less", got, most)
	}
	if m := a.Metrics(); m[metricTurns] < n-most {
		t.Errorf("%v turns for %d containers and %d streams", m[metricTurns], n, most)
	}
	w.streamsBalanced(a)
	w.each(ids, w.d.KillNow)
	harness.Eventually(t, 60*time.Second, "no stream is open", func() bool {
		return p.Open(harness.APILogs) == 0 && a.Metrics()[metricStreamsOpen] == 0
	})
}

// TestComeAndGo: containers by the hundred, on both roads; nothing of them stays.
func TestComeAndGo(t *testing.T) {
	const n = 200
	w := newWorld(t)
	a := w.agent("")
	first := output{name: "first-file", lines: 10}
	second := output{name: "first-local", lines: 10}
	w.each([]string{w.create(first.spec()), w.create(streamed(second))}, w.d.StartNow)
	w.once(first, second)
	// quiet waits until nothing is read and figures have not changed for some looks.
	quiet := func() (goroutines, fds float64) {
		t.Helper()
		same := 0
		harness.Eventually(t, 60*time.Second, "nothing is read, and peace", func() bool {
			m := a.Metrics()
			same++
			if m[metricGoroutines] != goroutines || m[metricFDs] != fds || m[metricMonitored]+m[metricStreaming]+m[metricStreamsOpen] > 0 {
				same = 0
			}
			goroutines, fds = m[metricGoroutines], m[metricFDs]
			return same >= 20
		})
		return goroutines, fds
	}
	w.removeContainers()
	goroutines, fds := quiet()

	var whole, removed []output
	var ids []string
	for i := range n {
		o := output{name: fmt.Sprintf("brief%d", i), lines: 50, stderrEvery: 5}
		s := o.spec("-rate", "200")
		s.AutoRemove = i%4 < 2
		if i%2 == 1 {
			s.Driver = "local"
		}
		if s.AutoRemove && s.Driver == "local" {
			removed = append(removed, o)
		} else {
			whole = append(whole, o)
		}
		ids = append(ids, w.create(s))
	}
	began := time.Now()
	w.each(ids, func(ctx context.Context, id string) error { return w.d.StartNow(ctx, id) })
	t.Logf("%d containers within %v", n, time.Since(began).Round(time.Second))
	w.once(whole...)

	// Of what is removed at once the engine may have nothing any more when it is
	// asked. Then that is known.
	complete := func() (n int) {
		counts := w.counts()
		for _, o := range removed {
			if counts[o.name] >= o.lines {
				n++
			}
		}
		return n
	}
	if !harness.Within(20*time.Second, func() bool { return complete()+int(gaps(a.Metrics())) >= len(removed) }) {
		t.Errorf("of %d containers that were removed at once %d are complete, and %v gaps are known", len(removed), complete(), gaps(a.Metrics()))
	}
	for _, o := range removed {
		if c := compare(o.want(), w.found(o.name)); c.nForeign > 0 || c.doubled > 0 || len(c.disordered) > 0 {
			t.Errorf("container %s: %s", o.name, &c)
		}
	}
	t.Logf("of %d containers that were removed at once %d are complete; gaps: %v", len(removed), complete(), gaps(a.Metrics()))
	w.removeContainers()
	g, f := quiet()
	const idle = 8 // connections to the engine that are kept for a while: two goroutines and a descriptor each
	if g > goroutines+2*idle || f > fds+idle {
		t.Errorf("after %d containers: goroutines %v, before %v; descriptors %v, before %v", n, g, goroutines, f, fds)
	}
	t.Logf("goroutines %v, before %v; descriptors %v, before %v", g, goroutines, f, fds)
}

// TestIncludeExclude: which containers are captured; a rename counts from the
// next start.
func TestIncludeExclude(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent(`monitors: {container: {include: ["name=in-*", label=team=b*], exclude: ["name=*-debug", label=secret]}}`)
	var in, out []output
	add := func(list *[]output, name string, labels map[string]string) {
		o := output{name: name, lines: 20}
		*list = append(*list, o)
		s := o.spec()
		s.Labels = labels
		w.run(s)
		s.Name, s.Driver = name+"-s", "local"
		if strings.HasSuffix(name, "-debug") {
			s.Name = strings.TrimSuffix(name, "-debug") + "-s-debug"
		}
		o.name = s.Name
		s.Cmd = o.cmd()
		w.run(s)
		*list = append(*list, o)
	}
	add(&out, "outside", nil)
	add(&out, "in-c-debug", nil)
	add(&out, "in-secret", map[string]string{"secret": ""})
	add(&out, "in-off", map[string]string{"log_capturer.enable": "false"})
	add(&out, "red", map[string]string{"team": "red"})
	add(&in, "in-a", nil)
	add(&in, "blue", map[string]string{"team": "blue"})
	add(&in, "asked", map[string]string{"log_capturer.enable": "true"})
	w.once(in...)
	for _, o := range out {
		if n := w.counts()[o.name]; n != 0 {
			t.Errorf("%d lines of %s", n, o.name)
		}
		if c, ok := shown(t, a)[o.name]; ok && c.Method != byNothing {
			t.Errorf("%s is shown as %+v", o.name, c)
		}
	}

	endless := func(name, driver string) string {
		return w.run(harness.ContainerSpec{Name: name, Driver: driver, Cmd: []string{"-prefix", "p", "-lines", "0", "-rate", "200"}})
	}
	for i, driver := range []string{"json-file", "local"} {
		name := fmt.Sprintf("in-r%d", i)
		id := endless(name, driver)
		w.more(name, 50)
		w.d.Rename(t, id, name+"-debug")
		w.more(name, 50)
		w.d.RestartContainer(t, id, 5*time.Second)
		other := fmt.Sprintf("in-x%d-debug", i)
		id2 := endless(other, driver)
		w.d.Rename(t, id2, fmt.Sprintf("in-x%d", i))
		w.d.RestartContainer(t, id2, 5*time.Second)
		w.more(fmt.Sprintf("in-x%d", i), 50)
		if n := w.counts(); n[name+"-debug"]+n[other] > 0 {
			t.Errorf("lines of containers that are excluded: %v", n)
		}
		have := w.counts()[name]
		w.more(fmt.Sprintf("in-x%d", i), 200)
		if more := w.counts()[name] - have; more > 0 {
			t.Errorf("%d more lines of %s after its start under a name that is excluded", more, name)
		}
	}
}

// TestIncludeLabelled: only containers that ask for it.
func TestIncludeLabelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent(`monitors: {container: {include: labelled, exclude: "name=no*"}}`)
	var in []output
	for _, driver := range []string{"json-file", "local"} {
		for name, label := range map[string]string{"yes": "true", "no": "true", "without": "", "false": "false"} {
			o := output{name: name + "-" + driver, lines: 20}
			s := o.spec()
			s.Driver = driver
			if label != "" {
				s.Labels = map[string]string{"log_capturer.enable": label}
			}
			w.d.Wait(t, w.run(s), 20*time.Second)
			if name == "yes" {
				in = append(in, o)
			}
		}
	}
	marker := output{name: "last", lines: 10}
	s := streamed(marker)
	s.Labels = map[string]string{"log_capturer.enable": "true"}
	w.run(s)
	w.once(append(in, marker)...)
	if n := w.counts(); len(n) != 3 {
		t.Errorf("lines of %v", n)
	}
	b := w.agent(`monitors: {container: {exclude: "image=logwriter:*"}}`)
	harness.Eventually(t, 20*time.Second, "the containers are known", func() bool {
		_, body := b.Health()
		return at(body, "docker", "synced") == true
	})
	if m := b.Metrics(); m[metricRead]+m[metricStreamRead]+m[metricMonitored]+m[metricStreaming] > 0 {
		t.Errorf("containers of an excluded image are read: %v", m)
	}
}
