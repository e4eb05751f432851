package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// Names of metrics.
const (
	metricSpooled = `log_capturer_logs_processed_total{method="file_monitor",result="spooled"}`
	metricMissed  = `log_capturer_file_gaps_total`
	metricUnread  = `log_capturer_files_unread_bytes`
)

// down is the answer of a store that is away behind its proxy.
var down = lokitest.Fault{Status: http.StatusServiceUnavailable, Body: "at least 2 live replicas required, could only find 1"}

// patient starts a stand-in for Loki that takes any amount at once and keeps what
// comes twice.
func patient(t *testing.T) (*world, *lokitest.Server) {
	t.Helper()
	opt := lokitest.Default()
	opt.Limits.HeadBlock, opt.Limits.StreamRate, opt.Limits.TenantRate = 0, 0, 0
	l := lokitest.New(opt)
	t.Cleanup(l.Close)
	w := &world{t: t, d: sharedEngine(t)}
	t.Cleanup(w.removeContainers)
	return w, l
}

// gate stands before a stand-in for Loki. While it is shut, connections are
// refused.
type gate struct {
	t    *testing.T
	url  string // of the push API
	addr string
	to   *url.URL
	http *http.Server  // nil: shut
	done chan struct{} // closed when http serves no more
}

// newGate gives an open one.
func newGate(t *testing.T, l *lokitest.Server) *gate {
	t.Helper()
	to, err := url.Parse(l.URL)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := harness.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, addr: addr, to: &url.URL{Scheme: to.Scheme, Host: to.Host}}
	g.open()
	g.url = "http://" + g.addr + to.Path
	t.Cleanup(g.shut)
	return g
}

func (g *gate) open() {
	g.t.Helper()
	var cfg net.ListenConfig
	listener, err := cfg.Listen(context.Background(), "tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.http, g.done = &http.Server{Handler: httputil.NewSingleHostReverseProxy(g.to), ReadHeaderTimeout: time.Minute}, make(chan struct{})
	go func(server *http.Server, done chan<- struct{}) {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			g.t.Errorf("the gate before the store: %v", err)
		}
	}(g.http, g.done)
}

// shut also breaks the connections that are open.
func (g *gate) shut() {
	if g.http == nil {
		return
	}
	_ = g.http.Close() // the listener goes, whatever it says
	<-g.done
	g.http = nil
}

// read waits until the agent has read so many lines since its start, spooled
// until it has spooled so many.
func (w *world) read(a *harness.Agent, n int) {
	w.t.Helper()
	harness.Eventually(w.t, 40*time.Second, fmt.Sprintf("%d lines read", n), func() bool { return a.Metrics()[metricRead] >= float64(n) })
}

func (w *world) spooled(a *harness.Agent, n int) {
	w.t.Helper()
	if !harness.Within(40*time.Second, func() bool { return a.Metrics()[metricSpooled] >= float64(n) }) {
		m := a.Metrics()
		w.t.Fatalf("%v lines are spooled, want %d; read %v, delivered %v, gaps %v", m[metricSpooled], n, m[metricRead], m[metricDelivered], m[metricMissed])
	}
}

// spool waits until /health says so of the spool; records below zero: any number
// of lines.
func (w *world) spool(a *harness.Agent, limit time.Duration, state string, records int) {
	w.t.Helper()
	var body map[string]any
	if !harness.Within(limit, func() bool {
		_, body = a.Health()
		return at(body, "spool", "state") == state && (records < 0 || at(body, "spool", "records") == float64(records))
	}) {
		w.t.Fatalf("the spool is not %s with %d lines, but %v", state, records, at(body, "spool"))
	}
	frames, bytes := at(body, "spool", "frames"), at(body, "spool", "bytes")
	if (state == "empty") != (frames == 0.0) || (state == "empty") != (bytes == 0.0) {
		w.t.Errorf("the spool is %s with %v frames of %v bytes", state, frames, bytes)
	}
}

// arrival holds what the stand-in has of a container against what was written:
// the order is that in which each line came first, for a frame comes twice after
// a kill.
func arrival(t *testing.T, l *lokitest.Server, container string, want []line) outcome {
	t.Helper()
	got := fromStandIn(t, l, "container_name", container)
	seen := make(map[string]bool, len(got))
	first := slices.DeleteFunc(slices.Clone(got), func(x line) bool {
		key := x.stream + " " + x.text + x.at.String()
		twice := seen[key]
		seen[key] = true
		return twice
	})
	if timed := len(want) > 0 && !want[0].at.IsZero(); !timed {
		for i := range first {
			first[i].at = time.Time{}
		}
	}
	c := compare(want, first)
	c.doubled += len(got) - len(first)
	return c
}

// arrives waits until a container's lines are at the stand-in, in order, and
// gives how many of them are there twice.
func arrives(t *testing.T, l *lokitest.Server, container string, want []line) (doubled int) {
	t.Helper()
	harness.Within(60*time.Second, func() bool { return len(l.Lines("container_name", container)) >= len(want) })
	var c outcome
	harness.Within(20*time.Second, func() bool { c = arrival(t, l, container, want); return c.nMissing == 0 })
	if !c.lossless() {
		t.Errorf("%s: of %d lines %s", container, len(want), &c)
	}
	return c.doubled
}

func arrivesOnce(t *testing.T, l *lokitest.Server, container string, want []line) {
	t.Helper()
	if n := arrives(t, l, container, want); n > 0 {
		t.Errorf("%s: %d lines doubled", container, n)
	}
}

// stopSpooled stops an agent that has the default grace period of 5 s, and wants
// everything that it had read to be delivered or spooled.
func (w *world) stopSpooled(a *harness.Agent) {
	w.t.Helper()
	logged, began := len(a.Log()), time.Now()
	a.Signal(syscall.SIGTERM)
	code := a.Exit(15 * time.Second)
	took := time.Since(began)
	w.t.Logf("stopped after %v", took.Round(time.Millisecond))
	if text := a.Log()[logged:]; code != 0 || took > 5*time.Second || contains(text, "not everything could be delivered") {
		w.t.Errorf("exit status %d after %v:\n%s", code, took, text)
	}
}

// drained waits until what was read and what lay in the spool at the start is
// delivered.
func (w *world) drained(a *harness.Agent) {
	w.t.Helper()
	w.balanced(a)
	w.spool(a, 5*time.Second, "empty", 0)
}

// positionOf gives a log's saved position, as the journal has it; "" before the
// first.
func positionOf(t *testing.T, a *harness.Agent, id string) (position string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.DataDir(), "positions.journal"))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) >= 5 && (f[1] == "pos" || f[1] == "log") && f[2] == id {
			position = f[3] + " " + f[4]
		}
	}
	return position
}

// TestSpoolOutageWithRotation: the store refuses connections while a container
// writes fifty times what its log files hold.
func TestSpoolOutageWithRotation(t *testing.T) {
	const n = 50_000
	w, l := patient(t)
	g := newGate(t, l)
	a := w.agentTo(g.url, "", "")
	a.Start()
	first := output{name: "first", lines: 100}
	w.run(first.spec())
	inOrder(t, l, first)
	w.spool(a, 5*time.Second, "empty", 0)
	w.delivered(a, 100) // no request is in flight that would come twice
	g.shut()

	o := output{name: "through", lines: n, size: 100, stderrEvery: 10}
	id := w.run(rotated(o.spec("-rate", "5000"), "100k", "2", false))
	w.spooled(a, n/5)
	harness.Eventually(t, 10*time.Second, "it is known how long there will be room", func() bool {
		return a.Metrics()["log_capturer_spool_time_left_seconds"] > 0
	})
	early := positionOf(t, a, id)
	w.d.Wait(t, id, time.Minute)
	w.spooled(a, n)
	late := positionOf(t, a, id)
	if early == "" || early == "- -" || early == late {
		t.Errorf("the position does not move during the outage: %q, then %q", early, late)
	}
	if left := len(onDisk(t, logFiles(t, w.d, id)...)); left > n/20 {
		t.Errorf("Docker still has %d of the lines: the test proves little", left)
	}
	w.spool(a, 5*time.Second, "filling", n)

	l.Always(&lokitest.Fault{Delay: time.Second}) // so that the drain can be seen
	g.open()
	w.spool(a, 20*time.Second, "draining", -1)
	l.Always(nil)
	w.spool(a, 30*time.Second, "empty", 0)
	arrivesOnce(t, l, o.name, o.want())
	w.health(a, 15*time.Second, 200, "ok", nil)

	// All goes straight to the store again.
	spooled := a.Metrics()[metricSpooled]
	after := output{name: "after", lines: 1000}
	w.run(after.spec())
	arrivesOnce(t, l, after.name, after.want())
	if m := a.Metrics(); m[metricSpooled] != spooled || m[metricMissed] != 0 {
		t.Errorf("%v more lines spooled after the outage, %v gaps", m[metricSpooled]-spooled, m[metricMissed])
	}
}

// TestSpoolKill9: the agent is killed three times during an outage, and once
// while it drains the spool.
func TestSpoolKill9(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	l.Always(&down)
	a := w.agentTo(l.URL, "", "")
	a.Start()
	all, ids := w.writers()
	kills := []struct {
		metric string
		n      float64
	}{
		{metricRead, 100},     // nothing is in the spool yet
		{metricSpooled, 1},    // its first frames are being written
		{metricSpooled, 3000}, // behind those of an earlier run
	}
	for _, k := range kills {
		harness.Eventually(t, 20*time.Second, fmt.Sprintf("%s is %v", k.metric, k.n), func() bool { return a.Metrics()[k.metric] >= k.n })
		a.Kill9()
		a.Start()
	}
	w.spooled(a, 1000)

	// The store takes a push of what is drained, and the agent is killed before
	// it hears so.
	reached := make(chan struct{})
	l.Next(lokitest.Fault{Store: true, Hang: true, Reached: reached})
	l.Always(nil)
	<-reached
	a.Kill9()
	harness.Eventually(t, 10*time.Second, "the store sees that the agent is gone", func() bool { return unanswered(l.Requests()) == 1 })
	inFlight, visible := 0, 0
	for _, r := range l.Requests() {
		if r.Status == 0 {
			visible += r.Lines - len(r.Streams) // what repeats the last line of a stream is dropped
		}
		if r.Status == 0 || r.Status == http.StatusNoContent { // of the other lane
			inFlight += r.Lines
		}
	}
	a.Start()
	doubled := 0
	for _, o := range w.end(all, ids) {
		doubled += arrives(t, l, o.name, o.want())
	}
	t.Logf("%d lines doubled; the requests of the drain before the kill had %d", doubled, inFlight)
	// At each kill during the outage one frame of a lane can have been in the
	// spool of which the positions did not know.
	if most := inFlight + len(kills)*lanes*batchLines(all[0]); doubled > most {
		t.Errorf("%d lines doubled, more than the %d that can have been in flight", doubled, most)
	}
	if doubled == 0 && visible > 0 {
		t.Error("no line doubled: the kill has not hit the drain")
	}
	w.drained(a)
}

// TestSpoolStop: during an outage a stop puts into the spool what has been read,
// so that it outlives its container. It comes before what is written later.
func TestSpoolStop(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name string
		down func(*gate, *lokitest.Server)
	}{
		{"refused", func(g *gate, _ *lokitest.Server) { g.shut() }},
		{"hangs", func(_ *gate, l *lokitest.Server) { l.Always(&lokitest.Fault{Hang: true}) }},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			const n = 3000
			w, l := patient(t)
			g := newGate(t, l)
			how.down(g, l)
			a := w.agentTo(g.url, "", "")
			a.Start()
			read := 0
			// gone writes lines that nobody but the agent has when it starts again.
			gone := func(o output) {
				t.Helper()
				id := w.run(o.spec())
				w.d.Wait(t, id, 20*time.Second)
				w.read(a, o.lines)
				w.stopSpooled(a)
				w.d.Remove(t, id)
				a.Start()
				read += o.lines
				if got := a.Metrics()["log_capturer_spool_records"]; got != float64(read) {
					t.Errorf("%v lines are in the spool, want %d", got, read)
				}
			}
			// First there is nothing in the spool, then something is.
			same, other := output{name: "same", lines: n, size: 200, stderrEvery: 3}, output{name: "other", lines: n}
			gone(same)
			gone(other)

			// A container of the same name and so of the same streams.
			again := output{name: "again", lines: n, stderrEvery: 2}
			s := again.spec()
			s.Name = same.name
			w.run(s)
			w.read(a, n)
			l.Always(nil)
			g.shut()
			g.open()
			arrivesOnce(t, l, same.name, slices.Concat(same.want(), again.want()))
			arrivesOnce(t, l, other.name, other.want())
			w.drained(a)
		})
	}
}

// TestSpoolFull: the outage is longer than the spool is large. What does not fit is
// not read any more, and /health says so all the time, though the few lines of a
// quiet container still fit. What Docker still has when the store is back arrives.
func TestSpoolFull(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	w.mayLog = []string{"spool takes no more"}
	l.Always(&down)
	fills := w.incompressible("fill0", "fill2", "fill5") // in one lane
	a := w.agentTo(l.URL, "spool: {max_bytes: 16MiB, min_free_bytes: 1MiB}", "")
	a.Start()
	isFull := func(b map[string]any) bool {
		return at(b, "spool", "state") == "full" && contains(problems(b), "spool.max_bytes")
	}
	w.health(a, 40*time.Second, 503, "unhealthy", isFull)
	quiet := output{name: "quiet0"} // in the other lane
	quietID := w.run(quiet.spec("-rate", "20"))
	// A container that goes on writing beyond what Docker keeps of it.
	live := output{name: "live", lines: 20_000, size: 100}
	id := w.run(rotated(live.spec("-rate", "10000"), "1m", "2", false))
	w.d.Wait(t, id, time.Minute)

	var unread float64
	for stopped := false; !stopped; {
		unread = a.Metrics()[metricUnread]
		stopped = !harness.Within(2*time.Second, func() bool { return a.Metrics()[metricUnread] < unread-1<<16 })
	}
	if unread < 10<<20 {
		t.Errorf("%v bytes unread: the readers have not stopped", unread)
	}
	answers, full503 := 0, 0
	harness.Within(3*time.Second, func() bool {
		code, body := a.Health()
		answers++
		if code == 503 && isFull(body) {
			full503++
		}
		return false
	})
	if full503 != answers {
		t.Errorf("of %d answers of /health while readers wait only %d say that the spool is full", answers, full503)
	}
	if n := strings.Count(a.Log(), w.mayLog[0]); n != 1 {
		t.Errorf("that the spool is full is said %d times", n)
	}
	quiet = w.end([]output{quiet}, []string{quietID})[0]
	m := a.Metrics()
	t.Logf("full with %v lines read, %v spooled, %v bytes unread, %v bytes on disk", m[metricRead], m[metricSpooled], unread, m["log_capturer_spool_bytes"])
	if m["log_capturer_spool_full"] != 1 {
		t.Error("the metrics do not say that the spool is full")
	}
	// At most a quarter is kept free for what has to be moved, and a batch of 2 MiB did not fit.
	if b := m["log_capturer_spool_bytes"]; b > 16<<20 || b < 9<<20 {
		t.Errorf("%v bytes in the spool of 16 MiB", b)
	}

	kept := onDisk(t, logFiles(t, w.d, id)...)
	l.Always(nil)
	for name, want := range fills {
		arrivesOnce(t, l, name, want)
	}
	arrivesOnce(t, l, quiet.name, quiet.want())
	var missing outcome
	harness.Within(20*time.Second, func() bool { missing = arrival(t, l, live.name, kept); return missing.nMissing == 0 })
	if missing.nMissing > 0 {
		t.Errorf("of %d lines that Docker had when the store came back %d are missing: %.80q", len(kept), missing.nMissing, missing.missing)
	}
	w.spool(a, 30*time.Second, "empty", 0)
	c, gaps := arrival(t, l, live.name, live.want()), a.Metrics()[metricMissed]
	t.Logf("of %d lines Docker had kept %d; %s; %v gaps", live.lines, len(kept), &c, gaps)
	if c.nForeign > 0 || c.doubled > 0 || len(c.disordered) > 0 {
		t.Errorf("%s: %s", live.name, &c)
	}
	if (c.nMissing > 0) != (gaps > 0) {
		t.Errorf("%d lines that Docker had removed are missing, and the agent knows of %v gaps", c.nMissing, gaps)
	}
}

// incompressible makes stopped containers with 2,000 lines each that take as much
// room in the spool as in their logs, 16 MB.
func (w *world) incompressible(names ...string) map[string][]line {
	w.t.Helper()
	random := rand.New(rand.NewChaCha8([32]byte{4}))
	now := time.Now()
	all := map[string][]line{}
	for _, name := range names {
		var text strings.Builder
		for k := range 2000 {
			raw := make([]byte, 6000)
			for i := range raw {
				raw[i] = byte(random.Uint32())
			}
			o := line{stream: "stdout", text: base64.StdEncoding.EncodeToString(raw), at: now.Add(time.Duration(k))}
			text.WriteString(crafted(o.text, o.stream, o.at))
			all[name] = append(all[name], o)
		}
		w.stopped(name, text.String())
	}
	return all
}

// TestSpoolDiskFull: the file system of data_dir has no space left in an outage,
// for the spool nor for the positions. That is said, and nothing is missing.
func TestSpoolDiskFull(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	w.mayLog = []string{"spool takes no more", "positions cannot be", "spool cannot be written"}
	l.Always(&down)
	fills := w.incompressible("fill0")
	a := w.agentTo(l.URL, "spool: {min_free_bytes: 0}", "")
	if err := os.MkdirAll(a.DataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", a.DataDir(), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(a.DataDir(), unix.MNT_DETACH) })
	a.Start()
	w.health(a, 40*time.Second, 503, "unhealthy", func(b map[string]any) bool {
		return at(b, "spool", "state") == "full" && contains(problems(b), "free space on the file system of data_dir")
	})
	l.Always(nil)
	arrivesOnce(t, l, "fill0", fills["fill0"])
	w.spool(a, 30*time.Second, "empty", 0)
	w.health(a, 15*time.Second, 200, "ok", nil)
	w.drained(a)
	a.Stop()
}

// TestSpoolRefusedStream: while the spool is drained the store refuses one
// container's stream. The others do not wait for it, and it keeps its order, also
// when the agent is stopped and started meanwhile.
func TestSpoolRefusedStream(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	a := w.agentTo(l.URL, "", "")
	a.Start()
	var others []output
	for i := range 3 { // the first is in the lane of the refused one
		o := output{name: fmt.Sprintf("other%d", i), lines: 2000, size: 100}
		w.run(o.spec("-rate", "400"))
		others = append(others, o)
	}
	harness.Eventually(t, 20*time.Second, "the streams of the others", func() bool { return len(l.Streams()) == len(others) })
	l.Always(&down)
	refused := output{name: "refused", size: 100}
	id := w.run(refused.spec("-rate", "400"))
	w.spooled(a, 3000)

	limits := lokitest.DefaultLimits()
	limits.HeadBlock, limits.StreamRate, limits.TenantRate, limits.MaxStreams = 0, 0, 0, len(others)
	l.SetLimits(limits)
	l.Always(nil)
	for _, o := range others {
		arrivesOnce(t, l, o.name, o.want())
	}
	isHeld := func(b map[string]any) bool {
		m := a.Metrics()
		return contains(problems(b), "the store refuses 1 streams for now") && at(b, "spool", "state") != "empty" &&
			at(b, "monitors", "file_monitor", "logs_held_by_store") == 1.0 && // what comes from the file, too
			total(m, "log_capturer_dispatch_held_streams") > 0 && total(m, "log_capturer_dispatch_parked_bytes") > 0
	}
	w.health(a, 15*time.Second, 200, "degraded", isHeld)
	w.stopSpooled(a)
	a.Start()
	w.health(a, 15*time.Second, 200, "degraded", isHeld)
	refused = w.end([]output{refused}, []string{id})[0]
	if n := len(l.Lines("container_name", refused.name)); n != 0 {
		t.Errorf("%d lines of the refused stream: the test proves nothing", n)
	}
	limits.MaxStreams = 0
	l.SetLimits(limits)
	arrivesOnce(t, l, refused.name, refused.want())
	for _, o := range others {
		arrivesOnce(t, l, o.name, o.want())
	}
	w.spool(a, 20*time.Second, "empty", 0)
	w.health(a, 15*time.Second, 200, "ok", nil)
	w.drained(a)
}

// TestSpoolHang: the store takes requests and never answers. That is noticed when
// their time is out.
func TestSpoolHang(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	a := w.agentTo(l.URL, "", "timeout: 2s")
	a.Start()
	reached := make(chan struct{})
	o := output{name: "through", lines: 6000, size: 100, stderrEvery: 3}
	id := w.run(rotated(o.spec("-rate", "1000"), "100k", "4", false))
	w.delivered(a, 500)
	l.Next(lokitest.Fault{Store: true, Hang: true, Reached: reached})
	l.Always(&lokitest.Fault{Hang: true})
	<-reached
	began := time.Now()
	w.spooled(a, 1)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the first line is spooled %v after the first request", took)
	}
	w.d.Wait(t, id, 20*time.Second)
	hung := l.Requests()
	hung = hung[slices.IndexFunc(hung, func(r lokitest.Request) bool { return r.Status == 0 }):]
	harness.Eventually(t, 20*time.Second, "all that was read is delivered or in the spool", func() bool {
		m := a.Metrics()
		return m[metricRead] == float64(o.lines) && m[metricDelivered]+m["log_capturer_spool_records"] == m[metricRead] &&
			total(m, "log_capturer_dispatch_slow") > 0
	})
	w.spool(a, 5*time.Second, "filling", -1)
	l.Always(nil)
	// Of a stream with one line in that request Loki drops the copy, since it equals the
	// stream's last line.
	want := 0
	for _, n := range hung[0].Each {
		if n > 1 {
			want += n
		}
	}
	if doubled := arrives(t, l, o.name, o.want()); doubled != want {
		t.Errorf("%d lines doubled, want the %d of the request that the store took without an answer: of each stream %v", doubled, want, hung[0].Each)
	}
	w.spool(a, 20*time.Second, "empty", 0)
	w.health(a, 15*time.Second, 200, "ok", nil)
}
