package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestCost: what an agent holds depends neither on how many containers there are
// (but for one descriptor each) nor on how many there have been.
func TestCost(t *testing.T) {
	const n = 50
	// The agent asks the engine about up to so many containers at a time, and
	// keeps the connections for a while: two goroutines and a descriptor each.
	const idle = 8
	about := func(got, want, spare float64) bool { return got >= want-spare && got <= want+spare }
	w := newWorld(t)
	a := w.agent("")
	one := output{name: "one", lines: 100}
	w.run(one.spec("-sleep-after", "-1s"))
	w.once(one)
	// settled gives figures that have not changed for some looks.
	settled := func(monitored float64) (goroutines, fds float64) {
		t.Helper()
		same := 0
		harness.Eventually(t, 30*time.Second, fmt.Sprintf("%v files monitored, and peace", monitored), func() bool {
			m := a.Metrics()
			if m[metricGoroutines] == goroutines && m[metricFDs] == fds && m[metricMonitored] == monitored {
				same++
			} else {
				same = 0
			}
			goroutines, fds = m[metricGoroutines], m[metricFDs]
			return same >= 20
		})
		return goroutines, fds
	}
	goroutines, fds := settled(1)

	var all []output
	var ids []string
	for i := range n {
		o := output{name: fmt.Sprintf("many%d", i), lines: 10}
		all = append(all, o)
		ids = append(ids, w.create(o.spec("-sleep-after", "-1s")))
	}
	w.each(ids, w.d.StartNow)
	w.once(all...)
	g, f := settled(n + 1)
	t.Logf("goroutines with 1 container and with %d: %v, %v; descriptors: %v, %v", n+1, goroutines, g, fds, f)
	if !about(g, goroutines, 2*idle) {
		t.Errorf("%v goroutines with one container, %v with %d", goroutines, g, n+1)
	}
	if f > fds+n+idle {
		t.Errorf("%v descriptors with one container, %v with %d", fds, f, n+1)
	}
	w.each(ids, w.d.KillNow)
	g, f = settled(1)
	if !about(g, goroutines, 2*idle) || !about(f, fds, idle) {
		t.Errorf("after %d starts and stops: goroutines %v, before %v; descriptors %v, before %v", n, g, goroutines, f, fds)
	}
	w.each(ids, w.d.StartNow)
	harness.Eventually(t, 30*time.Second, "all second runs", func() bool {
		counts := w.counts()
		for _, o := range all {
			if counts[o.name] != 2*o.lines {
				return false
			}
		}
		return true
	})
	w.each(ids, w.d.KillNow)
	g, f = settled(1)
	if !about(g, goroutines, 2*idle) || !about(f, fds, idle) {
		t.Errorf("after %d starts and stops: goroutines %v, before %v; descriptors %v, before %v", 2*n, g, goroutines, f, fds)
	}
	if m := a.Metrics()["log_capturer_memory_bytes"]; m > 60<<20 {
		t.Errorf("%.0f MB resident", m/(1<<20))
	} else {
		t.Logf("%.0f MB resident", m/(1<<20))
	}
}
