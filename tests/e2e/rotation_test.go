package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// rotations are how the logs of TestRotation are kept.
var rotations = []struct {
	name, size, files string
	compress          bool
	least             float64 // files made by rotation, of 100,000 lines
}{
	{"1mx3", "1m", "3", false, 15},
	{"1mx3gz", "1m", "3", true, 15},
	{"1mx1", "1m", "1", false, 15},
	{"100kx10", "100k", "10", false, 150},
}

// TestRotation: logs that rotate as fast as the engine writes, one after the
// other, then all at once at 8,000 lines/s each.
func TestRotation(t *testing.T) {
	const n = 100_000
	w := newWorld(t)
	a := w.agent("")
	gaps := func() float64 { return a.Metrics()["log_capturer_file_gaps_total"] }
	for _, r := range rotations {
		t.Run("full speed "+r.name, func(t *testing.T) {
			// Ten files of 100 kB are gone within 25 ms while the engine empties a
			// pipe in one go: less than the kernel may keep the agent waiting for a
			// processor when all are busy. Lines may be missing then, once and
			// again, but never in silence.
			const tries = 3
			for try := 1; ; try++ {
				m := a.Metrics()
				o := output{name: fmt.Sprintf("full-%s-%d", r.name, try), lines: n, size: 100, stderrEvery: 10}
				began := time.Now()
				id := w.run(rotated(o.spec(), r.size, r.files, r.compress))
				w.d.Wait(t, id, time.Minute)
				took := time.Since(began)
				harness.Within(40*time.Second, func() bool {
					return w.counts()[o.name] == n || gaps() > m["log_capturer_file_gaps_total"] && a.Metrics()[metricMonitored] == 0
				})
				made := a.Metrics()[metricRotations] - m[metricRotations]
				t.Logf("%.0f lines/s, %v files made by rotation", n/took.Seconds(), made)
				if made < r.least {
					t.Errorf("only %v files were made by rotation: the test proves little", made)
				}
				if gaps() == m["log_capturer_file_gaps_total"] || w.counts()[o.name] >= n || try == tries {
					w.once(o)
					return
				}
				c := compare(o.want(), w.found(o.name))
				if c.nForeign > 0 || c.doubled > 0 || len(c.disordered) > 0 {
					t.Errorf("with a gap: %s", &c)
				}
				t.Logf("%d lines are missing, and the agent says so; once more", c.nMissing)
			}
		})
	}
	t.Run("8000 a second each", func(t *testing.T) {
		var all []output
		var ids []string
		began := time.Now()
		for _, r := range rotations {
			o := output{name: "rate-" + r.name, lines: n, size: 100, stderrEvery: 10}
			ids = append(ids, w.run(rotated(o.spec("-rate", "8000"), r.size, r.files, r.compress)))
			all = append(all, o)
		}
		for _, id := range ids {
			w.d.Wait(t, id, time.Minute)
		}
		t.Logf("%.0f lines/s in all", float64(len(all)*n)/time.Since(began).Seconds())
		w.once(all...)
	})
}

// TestRotationWhileDown: the agent finds its place in a chain of files, some of
// them compressed, that have moved on while it was down.
func TestRotationWhileDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newAgent("", "")
	for i, compress := range []bool{false, true} {
		o := output{name: fmt.Sprintf("down%d", i), lines: 30_000, size: 100, stderrEvery: 4}
		a.Start()
		id := w.run(rotated(o.spec("-rate", "12000"), "1m", "10", compress))
		w.delivered(a, 4000)
		if i == 0 {
			a.Kill9()
		} else {
			a.Stop()
		}
		at := w.counts()[o.name]
		w.d.Wait(t, id, time.Minute)
		if files := len(logFiles(t, w.d, id)); files < 4 {
			t.Errorf("%d files: the log has hardly rotated while the agent was down", files)
		}
		a.Start()
		doubled := w.arrived(o.name, o.want())
		t.Logf("compressed: %v; %d of %d lines had arrived before, %d doubled", compress, at, o.lines, doubled)
		if i == 1 && doubled != 0 && !w.cut() {
			t.Errorf("%d lines doubled after an orderly stop", doubled)
		}
		w.balanced(a)
		a.Stop()
	}
}

// TestRotatedAway: what rotation has unlinked while the agent was down is lost,
// and that is said; all that is left arrives once.
func TestRotatedAway(t *testing.T) {
	w := newWorld(t)
	a := w.agent("")
	o := output{name: "away", lines: 40_000, size: 100}
	id := w.run(rotated(o.spec("-rate", "20000"), "1m", "3", false))
	w.delivered(a, 2000)
	a.Stop()
	had := w.found(o.name)
	w.d.Wait(t, id, time.Minute)
	a.Start()
	want := slices.Concat(o.want()[:len(had)], onDisk(t, logFiles(t, w.d, id)...))
	for i := range want {
		want[i].at = time.Time{}
	}
	if len(want) >= o.lines {
		t.Fatal("nothing has been rotated away")
	}
	w.onceLines(o.name, want)
	w.health(a, 5*time.Second, 503, "unhealthy", func(b map[string]any) bool {
		return contains(problems(b), "lines were lost") && contains(problems(b), "max-size")
	})
	if n := a.Metrics()["log_capturer_file_gaps_total"]; n != 1 {
		t.Errorf("%v gaps", n)
	}
	if n := strings.Count(a.Log(), "the file in which reading had stopped is gone"); n != 1 {
		t.Errorf("said %d times", n)
	}
	w.wantGap(a, o.name, onDisk(t, logFiles(t, w.d, id)...)[0].at)
}

// wantGap wants the API to show one gap of a container, in front of the line with
// a time.
func (w *world) wantGap(a *harness.Agent, container string, before time.Time) {
	w.t.Helper()
	c := shown(w.t, a)[container]
	if c.Gaps != 1 || c.GapBefore == nil || !c.GapBefore.Equal(before) || c.GapAfter != nil && !c.GapAfter.Before(before) {
		w.t.Errorf("container %s is shown with %d gaps, between %v and %v; want one before %v", container, c.Gaps, c.GapAfter, c.GapBefore, before)
	}
}

// TestLostAtAStop: an agent that is stopped while the store hangs, and that has no
// spool, lets go of files that rotation has deleted. It says how many bytes nobody
// had read; the next start, that there is a gap.
func TestLostAtAStop(t *testing.T) {
	w := newWorld(t)
	a := w.agent("spool: {max_bytes: 0}\nshutdown_grace: 3s")
	w.s.Freeze()
	o := output{name: "held", lines: 120_000, size: 100}
	id := w.run(rotated(o.spec("-rate", "20000"), "1m", "2", false))
	w.d.Wait(t, id, time.Minute)
	var unread float64
	harness.Eventually(t, 30*time.Second, "the reader waits", func() bool {
		before := unread
		unread = a.Metrics()[metricUnread]
		return unread > 0 && unread == before
	})
	named := int64(0)
	for _, f := range logFiles(t, w.d, id) {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		named += st.Size()
	}
	a.Signal(syscall.SIGTERM)
	lost := 0.0
	harness.Eventually(t, 3*time.Second, "the loss is counted while the agent stops", func() bool {
		lost = a.Metrics()[`log_capturer_lost_bytes_total{reason="stopped"}`]
		return lost > 0
	})
	if code := a.Exit(10 * time.Second); code != 0 {
		t.Errorf("exit status %d", code)
	}
	said := regexp.MustCompile(`the agent stops before it has read .* container=held bytes=(\d+)\n`).FindAllStringSubmatch(a.Log(), -1)
	if want := int64(unread) - named; len(said) != 1 || said[0][1] != strconv.FormatInt(want, 10) || int64(lost) != want {
		t.Errorf("said %q, and counted %v; want %d bytes: %v were unread, %d of them in files with names", said, lost, want, unread, named)
	}
	w.s.Thaw()
	a.Start()
	kept := onDisk(t, logFiles(t, w.d, id)...)
	harness.Eventually(t, 30*time.Second, "what Docker has kept arrives", func() bool {
		c := compare(kept, w.found(o.name))
		return c.nMissing == 0 && len(c.disordered) == 0
	})
	w.wantGap(a, o.name, kept[0].at)
	w.health(a, 5*time.Second, 503, "unhealthy", func(b map[string]any) bool { return contains(problems(b), "lines were lost") })
}
