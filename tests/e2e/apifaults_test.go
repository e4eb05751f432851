package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// edit replaces text in an agent's configuration file, where it must be.
func edit(t *testing.T, a *harness.Agent, before, after string) {
	t.Helper()
	text, err := os.ReadFile(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), before) {
		t.Fatalf("%q is not in the configuration:\n%s", before, text)
	}
	if err := os.WriteFile(a.Config, []byte(strings.Replace(string(text), before, after, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// behindProxy starts an agent that reaches the engine through a proxy.
func (w *world) behindProxy(extra string) (*harness.APIProxy, *harness.Agent) {
	w.t.Helper()
	return w.behindProxyTo(w.s.PushURL(), extra)
}

// behindProxyTo is behindProxy for any address of a sink.
func (w *world) behindProxyTo(url, extra string) (*harness.APIProxy, *harness.Agent) {
	w.t.Helper()
	p := harness.StartAPIProxy(w.t, w.d.Host)
	a := w.agentTo(url, extra, "")
	edit(w.t, a, w.d.Host, p.Host)
	a.Start()
	return p, a
}

// apiWriters are two containers, one with a terminal, that write 500 lines/s without
// end and are streamed.
func (w *world) apiWriters() (all []output, ids []string) {
	frames := output{name: "frames", size: 100, stderrEvery: 3}
	tty := output{name: "terminal", size: 100, tty: true}
	ids = []string{w.run(streamed(frames, "-rate", "500")), w.run(terminal(streamed(tty, "-rate", "500")))}
	return []output{frames, tty}, ids
}

// every calls f at an interval, n times.
func every(t *testing.T, interval time.Duration, n int, f func()) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for range n {
		select {
		case <-tick.C:
			f()
		case <-t.Context().Done():
			return
		}
	}
}

// TestAPIStreamsCut: streams that are cut again and again. The lines reach the
// store in their order.
func TestAPIStreamsCut(t *testing.T) {
	t.Parallel()
	opt := lokitest.Default()
	opt.Limits.HeadBlock = 0 // keeps what comes twice
	l := lokitest.New(opt)
	defer l.Close()
	w := &world{t: t, d: sharedEngine(t)}
	t.Cleanup(w.removeContainers)
	p, a := w.behindProxyTo(l.URL, "")
	all, ids := w.apiWriters()
	w.streamDelivered(a, 100)
	cut := 0
	every(t, 300*time.Millisecond, 20, func() { cut += p.Cut(harness.APILogs) })
	// A stream that has brought something is opened again soon, however often that
	// comes.
	if cut < 11 {
		t.Errorf("only %d streams were there to be cut", cut)
	}
	for _, o := range w.end(all, ids) {
		var c outcome
		harness.Within(40*time.Second, func() bool {
			c = compare(o.want(), fromStandIn(t, l, "container_name", o.name))
			return c.nMissing == 0
		})
		if !c.lossless() || c.doubled > 0 {
			t.Errorf("container %s: %s", o.name, &c)
		}
	}
	w.streamsBalanced(a)
	if n := a.Metrics()[metricStreamsOpen]; int(n) != p.Open(harness.APILogs) {
		t.Errorf("%v streams are open, the proxy sees %d", n, p.Open(harness.APILogs))
	}
}

// TestAPIHalfFrames: answers that end within their header, and after some entries
// within a chunk's size, a frame's header, a time, a text. Those that have brought
// something are no reason for longer and longer pauses.
func TestAPIHalfFrames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, a := w.behindProxy("")
	all, ids := w.apiWriters()
	w.streamDelivered(a, 100)
	for _, n := range []int{20, 1000, 1005, 1010, 1030, 1100, 5003, 50_021} {
		p.Fault(harness.APILogs, harness.APIFault{CutAfter: n})
		before := p.Requests(harness.APILogs)
		p.Cut(harness.APILogs)
		harness.Eventually(t, 20*time.Second, "new tries", func() bool { return p.Requests(harness.APILogs) >= before+3 })
	}
	p.Fault(harness.APILogs, harness.APIFault{})
	w.once(w.end(all, ids)...)
	w.streamsBalanced(a)
}

// TestAPIStalled: the engine is silent for a while on open connections and does
// not answer on new ones.
func TestAPIStalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{engineGone}
	p, a := w.behindProxy("")
	all, ids := w.apiWriters()
	w.streamDelivered(a, 100)
	kinds := []harness.APIKind{harness.APILogs, harness.APIEvents, harness.APIOther}
	for _, k := range kinds {
		p.Fault(k, harness.APIFault{Stall: true})
	}
	late := output{name: "late", lines: 200, stderrEvery: 2}
	w.run(streamed(late))
	file := output{name: "late-file", lines: 200}
	w.run(file.spec())
	open := p.Open(harness.APILogs)
	every(t, 5*time.Second, 1, func() {})
	if n := p.Open(harness.APILogs); n != open {
		t.Errorf("%d streams after the stall, %d before: silence is no reason to close one", n, open)
	}
	for _, k := range kinds {
		p.Fault(k, harness.APIFault{})
	}
	w.once(append(w.end(all, ids), late, file)...)
	w.streamsBalanced(a)
}

// TestAPIErrors: the engine refuses logs for a while, and those of a container until it
// is removed.
func TestAPIErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{"the proxy says"}
	p, a := w.behindProxy("")
	all, ids := w.apiWriters()
	w.streamDelivered(a, 100)
	for _, status := range []int{500, 409} {
		p.Fault(harness.APILogs, harness.APIFault{Status: status})
		p.Cut(harness.APILogs)
		before := p.Requests(harness.APILogs)
		harness.Eventually(t, 30*time.Second, "it is tried again, and shown", func() bool {
			c := shown(t, a)[all[0].name]
			// A conflict is the way of a container that is being removed, and no error.
			told := status == 409 || c.Errors > 0 && strings.Contains(c.LastError, "the proxy says 500") && a.Metrics()["log_capturer_streams_failed"] > 0
			return told && p.Requests(harness.APILogs) >= before+4
		})
		if n := p.Requests(harness.APILogs) - before; n > 200 {
			t.Errorf("%d tries: that is no pause", n)
		}
		p.Fault(harness.APILogs, harness.APIFault{})
		w.more(all[0].name, 200)
	}
	w.once(w.end(all, ids)...)
	w.streamsBalanced(a)

	// One that is removed before its log could be read.
	p.Fault(harness.APILogs, harness.APIFault{Status: 500})
	gone := output{name: "gone", lines: 10}
	id := w.run(streamed(gone, "-sleep-after", "-1s"))
	harness.Eventually(t, 30*time.Second, "it is tried", func() bool { return shown(t, a)[gone.name].Errors > 0 })
	w.each([]string{id}, w.d.RemoveNow)
	harness.Eventually(t, 20*time.Second, "its lines are counted as lost", func() bool { return a.Metrics()["log_capturer_stream_gaps_total"] == 1 })
}

// TestAPIEventsCut: the stream of events is cut, and the engine refuses
// connections, while containers come and go on both roads.
func TestAPIEventsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{engineGone}
	p, a := w.behindProxy("")
	all, ids := w.apiWriters()
	w.streamDelivered(a, 100)
	var amid []output
	for i := range 12 {
		o := output{name: fmt.Sprintf("amid%d", i), lines: 100, stderrEvery: 4}
		s := o.spec("-rate", "500")
		if i%2 == 0 {
			s.Driver = "local"
		}
		id := w.create(s)
		p.Cut(harness.APIEvents)
		if i == 6 {
			p.Refuse()
			p.CutAll()
		}
		w.d.StartContainer(t, id)
		if i == 9 {
			p.Accept()
		}
		amid = append(amid, o)
	}
	// How often it has come back by now depends on its pauses.
	harness.Eventually(t, 30*time.Second, "the agent hears events again", func() bool { return p.Open(harness.APIEvents) == 1 })
	before := p.Requests(harness.APIEvents)
	p.Cut(harness.APIEvents)
	harness.Eventually(t, 30*time.Second, "and once more", func() bool {
		return p.Requests(harness.APIEvents) > before && p.Open(harness.APIEvents) == 1
	})
	w.once(append(w.end(all, ids), amid...)...)
	w.health(a, 30*time.Second, 200, "ok", nil)
	w.streamsBalanced(a)
	if n := p.Open(harness.APIEvents); n != 1 {
		t.Errorf("%d connections for events", n)
	}
}

// TestAPIRunUnseen: containers that are known start and exit while the engine
// cannot be reached, for the first time and once more.
func TestAPIRunUnseen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{engineGone}
	p, a := w.behindProxy("")
	var ids, names []string
	for _, driver := range []string{"local", "json-file"} {
		o := output{name: "unseen-" + driver, lines: 100, stderrEvery: 4}
		s := o.spec()
		s.Driver = driver
		ids, names = append(ids, w.create(s)), append(names, o.name)
	}
	harness.Eventually(t, 20*time.Second, "both are known", func() bool { return len(shown(t, a)) == 2 })
	for run := 1; run <= 2; run++ {
		p.Refuse()
		p.CutAll()
		for _, id := range ids {
			w.d.StartContainer(t, id)
			w.d.Wait(t, id, 20*time.Second)
		}
		p.Accept()
		for i, id := range ids {
			want := w.engineLog(id, false)
			if len(want) != 100*run {
				t.Errorf("%s has %d lines in the engine after %d runs", names[i], len(want), run)
			}
			w.onceLines(names[i], want)
		}
	}
}
