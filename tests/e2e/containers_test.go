package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// logFiles gives the uncompressed files of a container's log, oldest first.
func logFiles(t *testing.T, d *harness.Dockerd, id string) []string {
	t.Helper()
	files, err := filepath.Glob(d.LogPath(id) + "*")
	if err != nil {
		t.Fatal(err)
	}
	number := func(f string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(f, d.LogPath(id)+"."), ".gz"))
		return n
	}
	slices.SortFunc(files, func(a, b string) int { return number(b) - number(a) })
	return files
}

// TestShortLived: docker run --rm of containers that live half a second.
func TestShortLived(t *testing.T) {
	const n = 30
	w := newWorld(t)
	a := w.agent("")
	var all []output
	var ids []string
	for i := range n {
		o := output{name: fmt.Sprintf("short%d", i), lines: 50, stderrEvery: 5}
		s := o.spec("-rate", "100")
		s.AutoRemove = true
		ids = append(ids, w.create(s))
		all = append(all, o)
	}
	began := time.Now()
	w.each(ids, w.d.StartNow)
	t.Logf("started within %v", time.Since(began).Round(time.Millisecond))
	w.once(all...)
	harness.Eventually(t, 30*time.Second, "no file is monitored any more", func() bool {
		m := a.Metrics()
		return m[metricMonitored] == 0 && m["log_capturer_files_held"] == 0
	})
}

// TestRemovedWithRest: a container is removed while the agent is behind; what it
// has not read yet is nowhere but behind its descriptor. With a spool the agent would
// not be behind.
func TestRemovedWithRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("spool: {max_bytes: 0}")
	quiet := output{name: "quiet", lines: 10}
	w.run(quiet.spec())
	w.once(quiet)

	w.s.Freeze()
	name := "removed"
	id := w.run(harness.ContainerSpec{Name: name, Cmd: []string{"-prefix", name, "-lines", "0", "-size", "1000", "-rate", "20000"}})
	// More than the agent takes into its memory.
	const least = 14 << 20
	path := w.d.LogPath(id)
	harness.Eventually(t, 30*time.Second, "a large log", func() bool {
		st, err := os.Stat(path)
		return err == nil && st.Size() > least
	})
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.d.Remove(t, id)
	if _, err := os.Stat(path); err == nil {
		t.Error("the log has not been removed")
	}
	unread := a.Metrics()["log_capturer_files_unread_bytes"]
	if unread < 1<<20 {
		t.Errorf("the agent is behind by %v bytes only: the test proves little", unread)
	}
	w.s.Thaw()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	want := entries(t, text)
	w.onceLines(name, want)
	t.Logf("%d lines, %v bytes unread at the removal", len(want), unread)
	harness.Eventually(t, 20*time.Second, "the descriptor is closed", func() bool {
		m := a.Metrics()
		return m["log_capturer_files_held"] == 0 && m["log_capturer_files_unread_bytes"] == 0
	})
	harness.Eventually(t, 20*time.Second, "its position is forgotten", func() bool {
		b, err := os.ReadFile(filepath.Join(a.DataDir(), "positions.journal"))
		return err == nil && strings.Contains(string(b), " del "+id)
	})
}

// TestRename: a new name counts from the container's next start, also when the
// agent is restarted in between.
func TestRename(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	endless := func(name string) harness.ContainerSpec {
		return harness.ContainerSpec{Name: name, Cmd: []string{"-prefix", "p", "-lines", "0", "-rate", "200"}}
	}
	id := w.run(endless("old"))
	more := func(name string) {
		t.Helper()
		before := w.counts()[name]
		harness.Eventually(t, 20*time.Second, "more lines of "+name, func() bool { return w.counts()[name] >= before+50 })
	}
	more("old")
	w.d.Rename(t, id, "new")
	more("old")
	a.Stop()
	a.Start()
	more("old")
	if n := w.counts()["new"]; n != 0 {
		t.Errorf("%d lines bear the new name before the next start", n)
	}
	w.d.StopContainer(t, id, 5*time.Second)
	first := onDisk(t, w.d.LogPath(id))
	w.d.StartContainer(t, id)
	more("new")
	w.d.StopContainer(t, id, 5*time.Second)
	all := onDisk(t, w.d.LogPath(id))
	w.onceLines("old", first)
	w.onceLines("new", all[len(first):])
}

// TestRestarts: a restart policy and docker restart; all runs are in one log.
func TestRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	policy := harness.ContainerSpec{
		Name: "policy", Restart: "on-failure", LogOpts: map[string]string{"max-size": "1m", "max-file": "5"},
		Cmd: []string{"-prefix", "p", "-lines", "3000", "-size", "100", "-exit", "1"},
	}
	id := w.run(policy)
	id2 := w.run(harness.ContainerSpec{Name: "restarted", Cmd: []string{"-prefix", "r", "-lines", "0", "-rate", "500"}})
	// A line without end, and the next run's behind it.
	id3 := w.run(harness.ContainerSpec{Name: "unended", Cmd: []string{"-prefix", "u", "-lines", "3", "-kind", lines.NoNewline, "-stderr-every", "2"}})
	for range 2 {
		w.d.Wait(t, id3, 20*time.Second)
		w.d.StartContainer(t, id3)
	}
	w.d.Wait(t, id3, 20*time.Second)
	w.delivered(a, 500)
	w.d.RestartContainer(t, id2, 5*time.Second)
	harness.Eventually(t, 30*time.Second, "three runs", func() bool {
		_, restarts := w.d.Running(t, id)
		return restarts >= 3
	})
	w.d.StopContainer(t, id, 5*time.Second)
	w.d.StopContainer(t, id2, 5*time.Second)
	w.onceLines("policy", onDisk(t, logFiles(t, w.d, id)...))
	w.onceLines("restarted", onDisk(t, w.d.LogPath(id2)))
	want := onDisk(t, w.d.LogPath(id3))
	if len(want) != 9 {
		t.Errorf("%d lines in three runs of three lines", len(want))
	}
	w.onceLines("unended", want)
	if want := onDisk(t, logFiles(t, w.d, id)...); len(want) < 9000 {
		t.Errorf("only %d lines", len(want))
	}
}
