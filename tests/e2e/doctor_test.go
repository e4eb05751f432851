package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/doctor"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// diagnosis is what `log_capturer doctor` has said.
type diagnosis struct {
	t      *testing.T
	status int
	report doctor.Report
}

// diagnose runs doctor with an agent's binary and configuration, as its user.
func diagnose(t *testing.T, a *harness.Agent, args ...string) diagnosis {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.Bin, append([]string{"doctor", "--json", "--config", a.Config}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.User}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	d := diagnosis{t: t, status: cmd.ProcessState.ExitCode()}
	if err := json.Unmarshal(out.Bytes(), &d.report); err != nil || errs.Len() > 0 {
		t.Fatalf("status %d, %v: %s\n%s", d.status, err, &errs, &out)
	}
	return d
}

// check gives one of the checks.
func (d diagnosis) check(name string) doctor.Check {
	d.t.Helper()
	i := slices.IndexFunc(d.report.Checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		d.t.Fatalf("no check %s: %+v", name, d.report.Checks)
	}
	return d.report.Checks[i]
}

// says expects of a check its status, and words of its message or remedy.
func (d diagnosis) says(name string, status doctor.Status, parts ...string) {
	d.t.Helper()
	c := d.check(name)
	ok := c.Status == status
	for _, p := range parts {
		ok = ok && strings.Contains(c.Message+" -> "+c.Remedy, p)
	}
	if !ok {
		d.t.Errorf("%+v, want %v %q", c, status, parts)
	}
}

// shows expects of a container how it is captured.
func (d diagnosis) shows(name, method string, status doctor.Status, parts ...string) {
	d.t.Helper()
	i := slices.IndexFunc(d.report.Containers, func(c doctor.Container) bool { return c.Name == name })
	if i < 0 {
		d.t.Errorf("no container %s: %+v", name, d.report.Containers)
		return
	}
	c := d.report.Containers[i]
	ok := c.Status == status && c.Method == method
	for _, p := range parts {
		ok = ok && strings.Contains(c.Message+" -> "+c.Remedy, p)
	}
	if !ok {
		d.t.Errorf("%+v, want %s %v %q", c, method, status, parts)
	}
}

// ends expects an exit status.
func (d diagnosis) ends(status int) {
	d.t.Helper()
	if d.status != status {
		d.t.Errorf("exit status %d, want %d: %+v", d.status, status, d.report)
	}
}

// moderate are log-opts that nothing is to be said of.
var moderate = map[string]string{"max-size": "50m", "max-file": "3"}

// smallSpool finds room on any disk.
const smallSpool = "spool: {max_bytes: 16MiB, min_free_bytes: 0}"

// TestDoctor: all is well, before the agent runs, while it runs, and with a line
// pushed. The agent is not disturbed.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := output{name: "doc-web", lines: 100}
	spec := web.spec("-sleep-after", "-1s")
	spec.LogOpts = moderate
	w.run(spec)
	w.run(harness.ContainerSpec{Name: "doc-local", Driver: "local", Cmd: []string{"-lines", "1", "-prefix", "l", "-sleep-after", "-1s"}})
	w.run(harness.ContainerSpec{Name: "doc-loose", Cmd: []string{"-lines", "1", "-prefix", "o", "-sleep-after", "-1s"}})
	w.run(harness.ContainerSpec{Name: "doc-lossy", LogOpts: map[string]string{"max-size": "10m", "mode": "non-blocking"}, Cmd: []string{"-lines", "1", "-prefix", "o", "-sleep-after", "-1s"}})
	w.run(harness.ContainerSpec{Name: "doc-out", Labels: map[string]string{"log_capturer.enable": "false"}, Cmd: []string{"-lines", "1", "-prefix", "x"}})
	w.create(harness.ContainerSpec{Name: "doc-new", LogOpts: moderate, Cmd: []string{"-lines", "1", "-prefix", "n"}})
	w.run(harness.ContainerSpec{Name: "doc-none", Driver: "none", Cmd: []string{"-lines", "1", "-prefix", "x"}})
	a := w.newAgent(smallSpool, "")

	captured := func(d diagnosis) {
		t.Helper()
		d.ends(0)
		d.says("docker", doctor.OK, w.d.Host)
		d.says("docker api", doctor.OK, "Engine", "at least 1.40")
		d.says("containers directory", doctor.OK, w.d.ContainersDir(), "is the engine's")
		d.says("log files", doctor.OK, "-json.log")
		d.says("store connection", doctor.OK)
		d.says("store", doctor.OK, "answers a push of nothing")
		d.says("store clock", doctor.OK)
		d.shows("doc-web", "file_monitor", doctor.OK, "keeps a file")
		d.shows("doc-new", "file_monitor", doctor.OK)
		d.shows("doc-local", "streaming", doctor.OK, "keeps no file")
		d.shows("doc-loose", "file_monitor", doctor.Warn, "no max-size", "max-file")
		d.shows("doc-lossy", "file_monitor", doctor.Warn, "mode=non-blocking", "max-file=1")
		d.shows("doc-out", "none", doctor.Skip, "log_capturer.enable=false")
		d.shows("doc-none", "none", doctor.Skip, "keeps nothing")
	}
	d := diagnose(t, a)
	captured(d)
	d.says("agent", doctor.Skip, "no agent runs")
	if _, err := os.Stat(a.DataDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("data_dir has been made: %v", err)
	}

	a.Start()
	w.once(web)
	w.health(a, 15*time.Second, 200, "ok", nil)
	before, err := os.ReadDir(a.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	d = diagnose(t, a, "--push-test")
	captured(d)
	d.says("agent", doctor.OK, "is well")
	if c := d.check("data_dir"); !strings.Contains(c.Message, "in use by a running agent") { // on whatever file system
		t.Errorf("%+v", c)
	}
	d.says("store test push", doctor.OK)
	harness.Eventually(t, 20*time.Second, "the line is in the store", func() bool {
		return w.s.Count(t, `{job="log_capturer_doctor"} "--push-test"`) == 1
	})
	after, err := os.ReadDir(a.DataDir())
	if err != nil || len(after) != len(before) {
		t.Errorf("data_dir has %v, %v; had %v", after, err, before)
	}
	w.health(a, 5*time.Second, 200, "ok", nil)

	// As a person sees it.
	out, err := exec.CommandContext(t.Context(), a.Bin, "doctor", "-config", a.Config).Output()
	if err != nil || !bytes.Contains(out, []byte("\nok    container doc-web     file_monitor: log driver json-file keeps a file\n")) || bytes.Contains(out, []byte("\x1b")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDoctorWrongDirectory: docker.containers_dir is not the engine's.
func TestDoctorWrongDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.run(harness.ContainerSpec{Name: "doc-dir", LogOpts: moderate, Cmd: []string{"-lines", "1", "-prefix", "x", "-sleep-after", "-1s"}})
	a := harness.NewAgent(t, w.d.Host, w.s.PushURL(), smallSpool)
	dir := t.TempDir()
	edit(t, a, "docker: {", "docker: {containers_dir: "+filepath.Join(dir, "c")+", ")
	d := diagnose(t, a)
	d.ends(1)
	d.says("containers directory", doctor.Fail, "no such file", "docker.containers_dir")
	d.shows("doc-dir", "streaming", doctor.Warn, "the log file cannot be read")
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	diagnose(t, a).says("containers directory", doctor.Fail, "is empty, though Docker has containers")
	// A directory with other containers, and one with a copy.
	other := filepath.Join(dir, "c", id)
	if err := os.Mkdir(filepath.Join(dir, "c", "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	diagnose(t, a).says("containers directory", doctor.Fail, "are not in "+filepath.Join(dir, "c"))
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, id+"-json.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d = diagnose(t, a)
	d.ends(1)
	d.says("containers directory", doctor.Fail, "is not the file of that container that the engine", "docker.containers_dir")
	// The same directory at another path is right.
	link := filepath.Join(dir, "link")
	if err := os.Symlink(w.d.ContainersDir(), link); err != nil {
		t.Fatal(err)
	}
	edit(t, a, filepath.Join(dir, "c"), link)
	d = diagnose(t, a)
	d.ends(0)
	d.says("containers directory", doctor.OK, link+" is the engine's")
}

// TestDoctorNoPermission: an ordinary user may neither use Docker's socket nor its
// files nor a data_dir of root's.
func TestDoctorNoPermission(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	w := newWorld(t)
	w.run(harness.ContainerSpec{Name: "doc-closed", LogOpts: moderate, Cmd: []string{"-lines", "1", "-prefix", "x", "-sleep-after", "-1s"}})
	a := harness.NewAgent(t, w.d.Host, w.s.PushURL(), "")
	dir, err := os.MkdirTemp("", "lc-nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	edit(t, a, a.DataDir(), filepath.Join(dir, "data"))
	for from, to := range map[string]string{a.Bin: "log_capturer", a.Config: "config.yaml"} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	setMode(t, dir, 0o755)
	a.Bin, a.Config = filepath.Join(dir, "log_capturer"), filepath.Join(dir, "config.yaml")
	a.User = &syscall.Credential{Uid: nobody, Gid: nobody}

	setMode(t, filepath.Dir(w.d.DataRoot), 0o711)
	d := diagnose(t, a)
	d.ends(1)
	d.says("docker", doctor.Fail, "no permission on "+strings.TrimPrefix(w.d.Host, "unix://")+" as user 65534", "SupplementaryGroups")
	d.says("docker api", doctor.Skip)
	d.says("data_dir", doctor.Fail, "permission denied", "writable for the agent's user")

	setMode(t, strings.TrimPrefix(w.d.Host, "unix://"), 0o666)
	d = diagnose(t, a)
	d.ends(1)
	d.says("docker", doctor.OK)
	d.says("containers directory", doctor.Fail, "permission denied", "CAP_DAC_READ_SEARCH")
	d.shows("doc-closed", "streaming", doctor.Warn, "the log file cannot be read")

	setMode(t, w.d.DataRoot, 0o711)
	setMode(t, w.d.ContainersDir(), 0o711)
	d = diagnose(t, a)
	d.ends(1)
	d.says("log files", doctor.Fail, "1 of 1 cannot be read", "CAP_DAC_READ_SEARCH")
	d.shows("doc-closed", "streaming", doctor.Warn, "uid 65534 may not pass")
}

// TestDoctorEngineHangs: the engine accepts connections and does not answer.
func TestDoctorEngineHangs(t *testing.T) {
	t.Parallel()
	d := harness.StartDockerd(t)
	a := harness.NewAgent(t, d.Host, "http://127.0.0.1:1", smallSpool)
	d.Freeze()
	began := time.Now()
	r := diagnose(t, a)
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("it took %v", took)
	}
	d.Thaw()
	r.ends(1)
	r.says("docker", doctor.Fail, "no answer within", "docker info")
	r.says("containers directory", doctor.Skip)
}

// TestDoctorStore: the store is down, and then it hangs.
func TestDoctorStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := harness.NewAgent(t, w.d.Host, w.s.PushURL(), smallSpool)
	w.s.Freeze()
	began := time.Now()
	d := diagnose(t, a, "--push-test")
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("with a store that hangs it took %v", took)
	}
	w.s.Thaw()
	d.ends(1)
	d.says("store", doctor.Fail, "no answer within")
	d.says("store test push", doctor.Skip)
	w.s.Stop()
	d = diagnose(t, a)
	d.ends(1)
	d.says("store connection", doctor.Fail, "connection refused", "start the store")
	d.says("store", doctor.Skip)
	w.s.Start()
	diagnose(t, a).ends(0)
	edit(t, a, "sinks: {", "unknown: 1\nsinks: {")
	d = diagnose(t, a)
	d.ends(2)
	d.says("configuration", doctor.Fail, "unknown", "validate")
}

// TestDoctorDataDir: a disk that is full, and one that cannot be written.
func TestDoctorDataDir(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := harness.NewAgent(t, w.d.Host, w.s.PushURL(), "")
	if err := os.MkdirAll(a.DataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", a.DataDir(), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(a.DataDir(), unix.MNT_DETACH) })
	d := diagnose(t, a)
	d.ends(1)
	d.says("data_dir", doctor.Warn, "tmpfs")
	d.says("data_dir space", doctor.Fail, "spool.min_free_bytes")
	full := filepath.Join(a.DataDir(), "full")
	if err := os.WriteFile(full, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	d = diagnose(t, a)
	d.ends(1)
	d.says("data_dir", doctor.Fail, "no space left on device", "free space")
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", a.DataDir(), "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1m"); err != nil {
		t.Fatal(err)
	}
	d = diagnose(t, a)
	d.ends(1)
	d.says("data_dir", doctor.Fail, "read-only file system", "mount a volume")
	if entries, err := os.ReadDir(a.DataDir()); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
