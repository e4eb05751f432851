package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/tests/harness"
)

const metricBreaker = `log_capturer_breaker_open`

const rollback = "monitors: {container: {file_based_monitoring: {enabled: true}}}"

// reload changes an agent's configuration file, sends SIGHUP and waits until the
// agent has begun anew.
func (w *world) reload(a *harness.Agent, before, after string) {
	w.t.Helper()
	const begun = "shipping begins"
	n := strings.Count(a.Log(), begun)
	edit(w.t, a, before, after)
	a.Signal(syscall.SIGHUP)
	harness.Eventually(w.t, 15*time.Second, "the agent begins anew", func() bool { return strings.Count(a.Log(), begun) > n })
}

// TestRollbackSwitch: everything goes to streaming and back while containers
// write; each line once.
func TestRollbackSwitch(t *testing.T) {
	t.Parallel()
	const on, off = "{enabled: true}", "{enabled: false}"
	w := newWorld(t)
	a := w.agent(rollback)
	exited := output{name: "exited", lines: 500, stderrEvery: 3}
	w.d.Wait(t, w.run(exited.spec()), 20*time.Second)
	silent := output{name: "silent", lines: 500, stderrEvery: 500} // its last line is on the other stream
	w.run(silent.spec("-sleep-after", "-1s"))
	local := output{name: "local", stderrEvery: 4}
	ids := []string{w.run(streamed(local, "-rate", "1000"))}
	w.once(exited, silent)
	all := []output{local}
	var names []string
	for i := range 3 { // without rotation, at which the engine itself loses lines of a follower
		o := output{name: fmt.Sprintf("writer%d", i), size: 100, stderrEvery: 3 + i}
		ids = append(ids, w.run(o.spec("-rate", "1000")))
		all, names = append(all, o), append(names, o.name)
	}
	w.delivered(a, 3000)
	w.method(a, 10*time.Second, byFile, names...)

	w.reload(a, on, off)
	w.method(a, 10*time.Second, byStream, append(names, "silent")...)
	w.streamDelivered(a, 4000)
	if m := a.Metrics(); m[metricMonitored] != 0 || m[metricStreaming] < 4 {
		t.Errorf("%v files are monitored and %v containers streamed", m[metricMonitored], m[metricStreaming])
	}
	w.reload(a, off, on)
	w.method(a, 10*time.Second, byFile, append(names, "silent")...)
	w.delivered(a, 3000)
	w.reload(a, on, off)
	w.reload(a, off, on) // at once
	w.delivered(a, 1000)
	// The same by a restart.
	a.Stop()
	edit(t, a, on, off)
	a.Start()
	w.streamDelivered(a, 2000)
	a.Stop()
	edit(t, a, off, on)
	a.Start()
	w.once(append(w.end(all, ids), exited, silent)...)
	if m := a.Metrics(); gaps(m) > 0 {
		t.Errorf("%v gaps", gaps(m))
	}
}

// TestRollbackSwitchKill9: the agent is killed on one road and goes on on the
// other; nothing is missing.
func TestRollbackSwitchKill9(t *testing.T) {
	t.Parallel()
	const on, off = "{enabled: true}", "{enabled: false}"
	const kills = 4
	w := newWorld(t)
	a := w.agent(rollback)
	o := output{name: "writer", size: 100, stderrEvery: 3}
	id := w.run(o.spec("-rate", "1000"))
	for i := range kills {
		if i%2 == 0 {
			w.delivered(a, 700)
		} else {
			w.streamDelivered(a, 700)
		}
		a.Kill9()
		if i%2 == 0 {
			edit(t, a, on, off)
		} else {
			edit(t, a, off, on)
		}
		a.Start()
	}
	o = w.end([]output{o}, []string{id})[0]
	n := w.arrived(o.name, o.want())
	if n > kills*1000 {
		t.Errorf("%d lines doubled, more than those of a second each time", n)
	}
	t.Logf("%d lines doubled", n)
}

// unreadable is how messages begin that tell of a log file that cannot be read.
const unreadable = "log cannot be read"

// asNobody gives an agent that is to run as a user who may ask the engine and enter
// its directory of containers, but none of these.
func (w *world) asNobody(extra string) *harness.Agent {
	w.t.Helper()
	const nobody = 65534
	w.mode(filepath.Dir(w.d.DataRoot), 0o711)
	w.mode(w.d.DataRoot, 0o711)
	w.mode(w.d.ContainersDir(), 0o755)
	w.mode(strings.TrimPrefix(w.d.Host, "unix://"), 0o666)
	a := w.newAgent(extra, "")
	dir, err := os.MkdirTemp("", "lc-nobody")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	edit(w.t, a, a.DataDir(), filepath.Join(dir, "data"))
	for from, to := range map[*string]string{&a.Bin: "log_capturer", &a.Config: "config.yaml"} {
		b, err := os.ReadFile(*from)
		if err != nil {
			w.t.Fatal(err)
		}
		*from = filepath.Join(dir, to)
		if err := os.WriteFile(*from, b, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		w.t.Fatal(err)
	}
	a.User = &syscall.Credential{Uid: nobody, Gid: nobody}
	return a
}

// mode changes the mode of a file until the test ends.
func (w *world) mode(path string, m os.FileMode) {
	w.t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(path, m); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.Chmod(path, st.Mode().Perm()) }) // it may have gone
}

// open lets everybody read a container's log.
func (w *world) openLog(id string) {
	w.t.Helper()
	w.mode(w.d.LogPath(id), 0o644)
	w.mode(filepath.Dir(w.d.LogPath(id)), 0o755)
}

// TestBreaker: a container whose file cannot be read is streamed, and comes back
// to its file when it can; each line once.
func TestBreaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{unreadable}
	a := w.asNobody("")
	endless := func(name string) string {
		return w.run(harness.ContainerSpec{Name: name, Cmd: []string{"-prefix", name, "-lines", "0", "-rate", "200", "-stderr-every", "3"}})
	}
	good, bad := endless("good"), endless("bad")
	w.openLog(good)
	a.Start()
	began := time.Now()
	w.method(a, 20*time.Second, byStream, "bad")
	t.Logf("streamed after %v", time.Since(began).Round(100*time.Millisecond))
	w.more("bad", 200)
	w.health(a, 10*time.Second, 200, "degraded", func(b map[string]any) bool {
		return contains(problems(b), "CAP_DAC_READ_SEARCH") || contains(problems(b), "chmod")
	})
	if m := a.Metrics(); m[metricBreaker] != 1 || m[metricMonitored] != 1 || m[metricStreaming] != 1 {
		t.Errorf("breaker open: %v; files monitored: %v; containers streamed: %v; want 1 of each", m[metricBreaker], m[metricMonitored], m[metricStreaming])
	}
	all := shown(t, a)
	if c := all["bad"]; !contains(c.Reason, "cannot be read") || !contains(c.Reason+c.LastError, "permission denied") {
		t.Errorf("the reason of the bad one is %q, its last error %q", c.Reason, c.LastError)
	}
	if c := all["good"]; c.Method != byFile {
		t.Errorf("the good one is shown as %+v", c)
	}

	w.openLog(bad)
	began = time.Now()
	w.method(a, 60*time.Second, byFile, "bad") // the first probe comes after 30 s
	t.Logf("back after %v", time.Since(began).Round(100*time.Millisecond))
	w.more("bad", 200)
	w.health(a, 10*time.Second, 200, "ok", nil)
	if m := a.Metrics(); m[metricBreaker] != 0 || m[metricMonitored] != 2 || m[metricStreaming] != 0 {
		t.Errorf("breaker open: %v; files monitored: %v; containers streamed: %v; want 0, 2, 0", m[metricBreaker], m[metricMonitored], m[metricStreaming])
	}
	for name, id := range map[string]string{"good": good, "bad": bad} {
		w.d.StopContainer(t, id, 5*time.Second)
		w.onceLines(name, onDisk(t, w.d.LogPath(id)))
	}
	// Each change is said once.
	for l, n := range wordsOf(a.Log(), "container=bad") {
		if n > 1 {
			t.Errorf("said %d times: %s", n, l)
		}
	}
}

// wordsOf counts the messages of those lines of a log that contain part.
func wordsOf(log, part string) map[string]int {
	n := map[string]int{}
	for l := range strings.Lines(log) {
		if _, msg, ok := strings.Cut(l, " msg="); ok && strings.Contains(l, part) {
			msg, _, _ = strings.Cut(msg, " container")
			n[msg]++
		}
	}
	return n
}

// mounted gives an agent that looks for the containers in a directory where the
// engine's own one is mounted, and what takes that away.
func (w *world) mounted() (a *harness.Agent, dir string, unmount func()) {
	w.t.Helper()
	dir = w.t.TempDir()
	a = w.newAgent("", "")
	edit(w.t, a, "docker: {", fmt.Sprintf("docker: {containers_dir: %q, ", dir))
	if err := unix.Mount(w.d.ContainersDir(), dir, "", unix.MS_BIND, ""); err != nil {
		w.t.Fatal(err)
	}
	there := true
	unmount = func() {
		if !there {
			return
		}
		there = false
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Cleanup(unmount)
	return a, dir, unmount
}

// TestMountGone: the directory of the containers goes away under the agent. Who
// starts then cannot be read from a file and is streamed; files that are open are
// read on.
func TestMountGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{unreadable, "the directory of Docker's containers cannot be read"}
	a, _, unmount := w.mounted()
	a.Start()
	before := output{name: "before", stderrEvery: 3}
	id := w.run(before.spec("-rate", "200"))
	w.delivered(a, 200)
	w.method(a, 10*time.Second, byFile, before.name)
	unmount()
	brief := output{name: "brief", lines: 100, stderrEvery: 4}
	w.run(brief.spec())
	late := output{name: "late", lines: 400, stderrEvery: 4}
	w.run(late.spec("-rate", "200", "-sleep-after", "-1s"))
	w.method(a, 20*time.Second, byStream, late.name, brief.name)
	w.more(before.name, 100)
	before = w.end([]output{before}, []string{id})[0]
	w.once(before, late, brief)
}

// TestMountMissing: the directory of the containers is not mounted where the agent
// looks: all are streamed from where their files had been read to, and that is
// said once, with what to do.
func TestMountMissing(t *testing.T) {
	t.Parallel()
	t.Run("an empty directory", func(t *testing.T) { testMountMissing(t, false) })
	t.Run("no directory", func(t *testing.T) { testMountMissing(t, true) })
}

func testMountMissing(t *testing.T, absent bool) {
	t.Parallel()
	const n = 8
	w := newWorld(t)
	w.mayLog = []string{"cannot be read"}
	a, dir, unmount := w.mounted()
	a.Start()
	var all []output
	var names, ids []string
	for i := range n {
		o := output{name: fmt.Sprintf("one%d", i), stderrEvery: 3}
		ids = append(ids, w.run(o.spec("-rate", "200")))
		all, names = append(all, o), append(names, o.name)
	}
	w.delivered(a, 1000)
	a.Stop()
	unmount()
	if absent {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	logged := len(a.Log())
	began := time.Now()
	a.Start()
	w.method(a, 20*time.Second, byStream, names...)
	t.Logf("streamed after %v", time.Since(began).Round(100*time.Millisecond))
	w.once(w.end(all, ids)...)
	_, body := a.Health()
	if p := problems(body); !contains(p, dir) || !contains(p, "mount Docker's directory") {
		t.Errorf("the problems should name %s and what to mount:\n%s", dir, p)
	}
	text := a.Log()[logged:]
	if said := strings.Count(text, "level=WARN") + strings.Count(text, "level=ERROR"); said == 0 || said > 2 {
		t.Errorf("%d warnings for %d containers:\n%.2000s", said, n, text)
	}
}
