package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestReadFromEnd: what was there before the first start is left alone, all that
// comes later is not.
func TestReadFromEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	exited := output{name: "exited", lines: 100}
	w.d.Wait(t, w.run(exited.spec()), 20*time.Second)
	running := w.run(harness.ContainerSpec{Name: "running", Cmd: []string{"-prefix", "r", "-lines", "0", "-rate", "200"}})
	path := w.d.LogPath(running)
	harness.Eventually(t, 20*time.Second, "lines before the start", func() bool {
		st, err := os.Stat(path)
		return err == nil && st.Size() > 5000
	})
	before := len(onDisk(t, path))
	a := w.agent("monitors: {container: {read_from: end}}")
	after := output{name: "after", lines: 500}
	w.run(after.spec())
	w.once(after)
	w.more("running", 200)
	// The choice is of the first start only.
	a.Stop()
	later := output{name: "later", lines: 100}
	w.d.Wait(t, w.run(later.spec()), 20*time.Second)
	a.Start()
	w.once(later)
	w.more("running", 100)
	w.d.StopContainer(t, running, 5*time.Second)
	all := onDisk(t, path)
	// From some line on everything has arrived, and nothing before.
	harness.Eventually(t, 20*time.Second, "the last line", func() bool {
		got := w.found("running")
		return len(got) > 0 && got[len(got)-1].text == all[len(all)-1].text
	})
	got := w.found("running")
	if len(got) > len(all)-before {
		t.Errorf("%d lines have arrived, %d of %d were written before the start", len(got), before, len(all))
	}
	if c := compare(all[len(all)-len(got):], got); !c.lossless() || c.doubled > 0 {
		t.Errorf("the end: %s", &c)
	}
	if n := w.counts()["exited"]; n != 0 {
		t.Errorf("%d lines that were there before the first start", n)
	}
}

// TestIgnoreOlderThan: old lines are skipped at the first start, and counted.
func TestIgnoreOlderThan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now()
	var text strings.Builder
	var want []line
	for i := range 20 {
		at := now.Add(-2 * time.Hour).Add(time.Duration(i) * 10 * time.Minute) // the last ones: 10 min ahead at most
		if at.After(now) {
			break
		}
		l := line{stream: "stdout", text: fmt.Sprintf("line %d", i), at: at}
		text.WriteString(crafted(l.text, l.stream, l.at))
		if i >= 6 {
			want = append(want, l)
		}
	}
	w.stopped("old", text.String())
	a := w.agent("monitors: {container: {ignore_older_than: 65m}}")
	w.onceLines("old", want)
	if n := a.Metrics()["log_capturer_lines_ignored_total"]; n != 6 {
		t.Errorf("%v lines ignored, want 6", n)
	}
	if n := strings.Count(a.Log(), "entries older than ignore_older_than are skipped"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestLabels: labels from the configuration and of containers.
func TestLabels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newAgent("host: box-1\nmonitors: {container: {container_labels: [com.example.team, tier]}}", "labels: {env: test, dc: north}")
	a.Start()
	o := output{name: "labelled", lines: 10, stderrEvery: 2}
	s := o.spec()
	s.Labels = map[string]string{"com.example.team": "pay \"ment\"", "tier": "", "other": "x"}
	w.run(s)
	w.once(o)
	for _, l := range w.labelled("labelled") {
		want := fmt.Sprintf(`{com_example_team="pay \"ment\"",container_name="labelled",dc="north",env="test",host="box-1",image="logwriter",job="log_capturer",stream=%q}`, l.stream)
		if l.labels != want {
			t.Fatalf("labels %s, want %s", l.labels, want)
		}
	}
}

// command runs the agent's binary to its end.
func command(t *testing.T, a *harness.Agent, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	cmd := exec.CommandContext(t.Context(), a.Bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatal(e)
	}
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// TestBadConfig: one line per fault, with file, line, key and what is allowed;
// exit status 2.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	a := harness.NewAgent(t, "unix:///nowhere.sock", "http://127.0.0.1:1", "")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	text := `server:
  port: eighty
docker:
  hots: unix:///var/run/docker.sock
monitors:
  container:
    read_from: middle
    file_based_monitoring:
      log_drivers: [syslog]
sinks:
  loki:
    url: ftp://loki
    basic_auth: {username: u, password: hunter2, password_file: f}
`
	if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-config", bad}, {"--config", bad}, {"validate", "-config", bad}} {
		code, _, stderr := command(t, a, args...)
		if code != 2 {
			t.Errorf("%v: exit status %d", args, code)
		}
		for _, want := range []string{
			`:2: server\.port: .*eighty.*whole number from 0 to 65535`,
			`:4: docker\.hots: unknown key, did you mean host\?`,
			`:7: monitors\.container\.read_from: .*beginning or end`,
			`:9: monitors\.container\.file_based_monitoring\.log_drivers.*json-file`,
			`:12: sinks\.loki\.url: .*http`,
			`:13: sinks\.loki\.basic_auth`,
		} {
			if n := len(regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(bad)+want).FindAllString(stderr, -1)); n != 1 {
				t.Errorf("%v: %d lines match %s:\n%s", args, n, want, stderr)
			}
		}
		if n := strings.Count(stderr, "\n"); n != 6 {
			t.Errorf("%v: %d lines:\n%s", args, n, stderr)
		}
		if strings.Contains(stderr, "hunter2") {
			t.Error("the password is printed")
		}
	}
	if code, out, stderr := command(t, a, "validate", "-config", a.Config); code != 0 || !strings.Contains(out, "ok") {
		t.Errorf("a good one: exit status %d, %s%s", code, out, stderr)
	}
	if code, _, stderr := command(t, a, "-config", bad+".none"); code != 2 || !strings.Contains(stderr, bad+".none") {
		t.Errorf("no file: exit status %d: %s", code, stderr)
	}
}

// TestTwoAgents: the second on one data_dir refuses to start, and the first goes
// on.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	text, err := os.ReadFile(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "second.yaml")
	text = regexp.MustCompile(`port: \d+`).ReplaceAll(text, []byte("port: 0"))
	if err := os.WriteFile(second, text, 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := command(t, a, "-config", second)
	if code != 1 || !strings.Contains(stderr, a.DataDir()) || !strings.Contains(stderr, fmt.Sprint(a.Pid())) {
		t.Errorf("exit status %d; the text should name the directory and process %d:\n%s", code, a.Pid(), stderr)
	}
	o := output{name: "first", lines: 100}
	w.run(o.spec())
	w.once(o)
	// A killed one leaves no lock.
	a.Kill9()
	a.Start()
}

// TestDrivers: containers of other log drivers are named as not captured.
func TestDrivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newAgent("", "")
	noStreams(t, a)
	a.Start()
	for _, driver := range []string{"local", "none"} {
		w.run(harness.ContainerSpec{Name: "driver-" + driver, Driver: driver, Cmd: []string{"-lines", "3", "-sleep-after", "-1s"}})
	}
	o := output{name: "json-file", lines: 100}
	w.run(o.spec())
	w.once(o)
	w.health(a, 15*time.Second, 200, "degraded", func(b map[string]any) bool {
		return at(b, "docker", "not_captured", "local") == 1.0 && at(b, "docker", "not_captured", "none") == 1.0 && contains(problems(b), "1 containers are not captured")
	})
	// A driver that keeps nothing is what somebody wanted.
	for name, want := range map[string]int{"driver-local": 1, "driver-none": 0} {
		if n := strings.Count(a.Log(), "container="+name); n != want {
			t.Errorf("%s is named %d times in the log, want %d", name, n, want)
		}
	}
	if n := a.Metrics()["log_capturer_containers_not_captured"]; n != 2 {
		t.Errorf("%v containers not captured", n)
	}
	w.removeContainers()
	w.health(a, 15*time.Second, 200, "ok", nil)
}

// noStreams switches streaming off.
func noStreams(t *testing.T, a *harness.Agent) {
	t.Helper()
	edit(t, a, "sinks: {loki: {", "monitors: {container: {streaming: {enabled: false}}}\nsinks: {loki: {")
}

// setMode changes a path's mode until the test has ended.
func setMode(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, st.Mode().Perm()) }) // it may have gone
}

// TestNoPermission: a user that may not enter Docker's directory is told which
// path, which mode and what to do; when that is done the logs are read.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	w := newWorld(t)
	w.mayLog = []string{"log cannot be read"}
	// Docker itself may be asked.
	engine := filepath.Dir(w.d.DataRoot)
	setMode(t, engine, 0o711)
	setMode(t, strings.TrimPrefix(w.d.Host, "unix://"), 0o666)
	a := w.newAgent("", "")
	noStreams(t, a)
	dir, err := os.MkdirTemp("", "lc-nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	bin, err := os.ReadFile(a.Bin)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), a.DataDir(), filepath.Join(dir, "data"), 1))
	a.Bin, a.Config = filepath.Join(dir, "log_capturer"), filepath.Join(dir, "config.yaml")
	for _, err := range []error{os.WriteFile(a.Bin, bin, 0o755), os.WriteFile(a.Config, text, 0o644), os.Chmod(dir, 0o700), os.Chown(dir, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a.User = &syscall.Credential{Uid: nobody, Gid: nobody}
	o := output{name: "closed", lines: 100}
	id := w.run(o.spec("-sleep-after", "-1s"))
	a.Start()
	w.health(a, 15*time.Second, 503, "unhealthy", func(b map[string]any) bool {
		access := fmt.Sprint(at(b, "monitors", "file_monitor", "file_system_access"))
		for _, want := range []string{w.d.DataRoot, "has mode", "uid 65534", "CAP_DAC_READ_SEARCH", "permission denied"} {
			if !contains(access, want) {
				return false
			}
		}
		return contains(problems(b), "no log can be read")
	})
	// The directory is known to be closed before the first log has been tried.
	harness.Eventually(t, 15*time.Second, "it is said of a log", func() bool { return contains(a.Log(), "log cannot be read") })
	if n := strings.Count(a.Log(), "log cannot be read"); n != 1 || !contains(a.Log(), "CAP_DAC_READ_SEARCH") {
		t.Errorf("said %d times:\n%s", n, a.Log())
	}
	if n := a.Metrics()["log_capturer_files_failed"]; n != 1 {
		t.Errorf("%v logs have failed by the metrics", n)
	}
	setMode(t, w.d.DataRoot, 0o711)
	setMode(t, w.d.ContainersDir(), 0o711)
	setMode(t, filepath.Dir(w.d.LogPath(id)), 0o755)
	setMode(t, w.d.LogPath(id), 0o644)
	w.once(o)
	w.health(a, 15*time.Second, 200, "ok", nil)
	if !contains(a.Log(), "all logs can be read again") {
		t.Error("the recovery is not logged")
	}
}
