package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

func engineState(body map[string]any) any { return at(body, "docker", "state") }

// away and back wait for what /health says of the engine.
func (w *world) away(a *harness.Agent) {
	w.t.Helper()
	w.health(a, 15*time.Second, 503, "unhealthy", func(b map[string]any) bool {
		return engineState(b) == "unhealthy" && at(b, "docker", "error") != nil && strings.Contains(problems(b), "Docker cannot be reached")
	})
	if !a.Running() {
		w.t.Fatal("the agent has ended")
	}
}

func (w *world) back(a *harness.Agent) {
	w.t.Helper()
	w.health(a, 30*time.Second, 200, "ok", func(b map[string]any) bool { return engineState(b) == "ok" })
}

// more waits until the store has so many more lines of a container.
func (w *world) more(container string, n int) {
	w.t.Helper()
	before := w.counts()[container]
	harness.Eventually(w.t, 30*time.Second, fmt.Sprintf("%d more lines of %s", n, container), func() bool { return w.counts()[container] >= before+n })
}

const engineGone = "the Docker engine is not reachable"

// TestEngine: the engine is not there at first, is restarted, and killed; its
// containers end with it.
func TestEngine(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, harness.StartDockerd(t))
	w.mayLog = []string{engineGone}
	w.d.Stop()
	a := w.agent("")
	w.away(a)
	// Many tries later it has been said once.
	m0 := time.Now()
	harness.Eventually(t, 10*time.Second, "some time", func() bool { w.away(a); return time.Since(m0) > 3*time.Second })
	if n := strings.Count(a.Log(), engineGone); n != 1 {
		t.Errorf("that there is no engine is said %d times:\n%s", n, a.Log())
	}
	w.d.Start()
	w.back(a)

	endless := harness.ContainerSpec{Name: "endless", Cmd: []string{"-prefix", "e", "-lines", "0", "-rate", "500", "-stderr-every", "3"}}
	id := w.run(endless)
	w.more("endless", 200)
	w.d.Stop()
	w.away(a)
	w.d.Start()
	w.back(a)
	w.d.StartContainer(t, id)
	w.more("endless", 200)

	w.d.Kill9()
	w.away(a)
	w.d.Start()
	w.back(a)
	after := output{name: "after", lines: 500}
	w.run(after.spec())
	w.once(after)
	harness.Eventually(t, 20*time.Second, "the engine has ended what it had left", func() bool {
		running, _ := w.d.Running(t, id)
		return !running
	})
	w.d.StartContainer(t, id)
	w.more("endless", 200)
	w.d.StopContainer(t, id, 5*time.Second)
	w.onceLines("endless", onDisk(t, w.d.LogPath(id)))
	if n := strings.Count(a.Log(), engineGone); n != 3 {
		t.Errorf("three outages are said %d times", n)
	}
	if n := strings.Count(a.Log(), "the Docker engine is back"); n != 3 {
		t.Errorf("three returns are said %d times", n)
	}
}

// TestEngineLiveRestore: containers outlive the engine.
func TestEngineLiveRestore(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, harness.StartDockerd(t, harness.WithLiveRestore()))
	w.mayLog = []string{engineGone}
	a := w.agent("")
	id := w.run(rotated(harness.ContainerSpec{Name: "survivor", Cmd: []string{"-prefix", "s", "-lines", "0", "-rate", "1000", "-size", "200"}}, "1m", "20", false))
	w.more("survivor", 500)
	w.d.Restart()
	w.more("survivor", 500)
	w.back(a)
	w.d.Kill9()
	w.away(a)
	w.d.Start()
	w.back(a)
	w.more("survivor", 500)
	// While the agent is down, too.
	a.Stop()
	w.d.Restart()
	a.Start()
	w.more("survivor", 500)
	w.d.StopContainer(t, id, 5*time.Second)
	w.onceLines("survivor", onDisk(t, logFiles(t, w.d, id)...))
}

// TestStoreDown: the store is away while logs rotate, not further than they are
// kept.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	first := output{name: "first", lines: 100}
	w.run(first.spec())
	w.once(first)
	w.s.Stop()

	during := output{name: "during", lines: 12_000, size: 100, stderrEvery: 5} // 2.3 MB
	id := w.run(rotated(during.spec(), "1m", "3", false))
	long := output{name: "through", lines: 4000, stderrEvery: 7} // from outage to recovery
	w.run(long.spec("-rate", "500"))
	w.d.Wait(t, id, 30*time.Second)
	if n := len(logFiles(t, w.d, id)); n != 3 {
		t.Errorf("%d files, want 3", n)
	}
	w.health(a, 15*time.Second, 200, "degraded", func(b map[string]any) bool {
		return at(b, "sinks", "loki", "state") == "degraded" && at(b, "sinks", "loki", "failing_since") != nil &&
			strings.Contains(problems(b), "the store does not accept lines")
	})
	if m := a.Metrics(); m[`log_capturer_dispatch_failing{lane="0"}`]+m[`log_capturer_dispatch_failing{lane="1"}`] == 0 {
		t.Error("no lane is failing")
	}
	// What is in memory is not needed: it is read again.
	a.Stop()
	a.Start()
	w.health(a, 15*time.Second, 200, "degraded", nil)
	w.s.Start()
	w.once(during, long)
	w.health(a, 15*time.Second, 200, "ok", nil)
}

// TestStoreStopsUnderWay: requests are in flight when the store stops.
func TestStoreStopsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("")
	o := output{name: "through", lines: 20_000, size: 300, stderrEvery: 5}
	w.run(o.spec("-rate", "4000"))
	for range 2 {
		w.more("through", 2000)
		w.s.Stop()
		w.s.Start()
	}
	doubled := w.arrived(o.name, o.want())
	t.Logf("%d of %d lines doubled", doubled, o.lines)
	// A request that was accepted while its answer was lost: at most one a lane
	// each time.
	if most := 2 * batchLines(o); doubled > most {
		t.Errorf("%d lines doubled, more than the %d of two requests", doubled, most)
	}
}

// batchLines is how many of its lines a batch holds at most.
func batchLines(o output) int { return 1<<20/(max(o.size, len(o.name)+2)+24) + 1 }
