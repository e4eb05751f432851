package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

const (
	// upLimit is how long a daemon may take to answer. It takes 0.5 s alone on
	// the machine.
	upLimit = 60 * time.Second
	// stopGrace is how long it may take to stop before it is killed. It gives
	// its containers 10 s.
	stopGrace = 30 * time.Second
	// apiLimit is for one call of the API.
	apiLimit = 60 * time.Second
)

// The environment may choose other parts of the engine than those installed.
// With LOG_CAPTURER_RUNC containers run without a seccomp profile: runc can be
// built without libseccomp. Engine 20.10 cannot be told so and does not start.
const (
	dockerdEnv = "LOG_CAPTURER_DOCKERD"
	runcEnv    = "LOG_CAPTURER_RUNC"
)

// dockerdBin and runcBin give names for exec.LookPath.
func dockerdBin() string { return cmp.Or(os.Getenv(dockerdEnv), "dockerd") }
func runcBin() string    { return cmp.Or(os.Getenv(runcEnv), "runc") }

// chosenRuntime is what the engine calls the runtime of LOG_CAPTURER_RUNC.
const chosenRuntime = "chosen"

// runtimeArgs gives the arguments of dockerd for a runtime at the path runc;
// none when that is empty.
func runtimeArgs(runc string) []string {
	if runc == "" {
		return nil
	}
	return []string{"--add-runtime", chosenRuntime + "=" + runc, "--default-runtime", chosenRuntime, "--seccomp-profile=unconfined"}
}

// Dockerd is a Docker engine of the test's own. Its methods fail the test when
// something goes wrong, and belong to the test's goroutine.
type Dockerd struct {
	// Host is the address of its API, unix:///….
	Host string
	// DataRoot is its data directory: containers' logs lie in
	// DataRoot/containers/<id>/<id>-json.log.
	DataRoot string
	// API is a client of the daemon, for what the methods do not offer.
	API *client.Client

	tb     TB
	dir    string
	cgroup string // parent of all containers' cgroups, as a path of the cgroup file systems
	args   []string
	proc   *process
}

// Option changes how a daemon is started.
type Option func(*Dockerd)

// WithArgs adds arguments of dockerd's command line.
func WithArgs(args ...string) Option {
	return func(d *Dockerd) { d.args = append(d.args, args...) }
}

// WithLiveRestore lets containers outlive the daemon.
func WithLiveRestore() Option { return WithArgs("--live-restore") }

// StartDockerd starts a Docker engine on its own socket and data, with the image
// Image in it, and stops it with everything it has started when the test ends.
func StartDockerd(tb TB, opts ...Option) *Dockerd {
	tb.Helper()
	NeedDocker(tb)
	// Not tb.TempDir: a socket's path may have 107 bytes.
	dir, err := os.MkdirTemp("", "lc")
	if err != nil {
		tb.Fatal(err)
	}
	d := &Dockerd{
		Host: "unix://" + dir + "/d.sock", DataRoot: dir + "/data",
		tb: tb, dir: dir, cgroup: "/" + filepath.Base(dir),
	}
	d.args = []string{
		"--host", d.Host, "--data-root", d.DataRoot, "--exec-root", dir + "/exec", "--pidfile", dir + "/d.pid",
		"--bridge=none", "--iptables=false", "--ip6tables=false",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", d.cgroup,
	}
	d.args = append(d.args, runtimeArgs(os.Getenv(runcEnv))...)
	for _, o := range opts {
		o(d)
	}
	if d.API, err = client.New(client.WithHost(d.Host)); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.cleanup)

	if err := d.start(); err != nil {
		// The engine chooses overlay2 where it can; where it thought so wrongly,
		// vfs works everywhere.
		d.args = append(d.args, "--storage-driver", "vfs")
		if err2 := d.start(); err2 != nil {
			tb.Fatalf("dockerd does not start: %v; with --storage-driver vfs: %v", err, err2)
		}
		tb.Logf("dockerd started with --storage-driver vfs only: %v", err)
	}
	d.importImage()
	return d
}

// ContainersDir is where containers' directories are.
func (d *Dockerd) ContainersDir() string { return filepath.Join(d.DataRoot, "containers") }

// LogPath gives the json-file log of a container.
func (d *Dockerd) LogPath(id string) string {
	return filepath.Join(d.ContainersDir(), id, id+"-json.log")
}

// Pid is the daemon's process ID.
func (d *Dockerd) Pid() int { return d.proc.pid() }

// Start starts the daemon again after Stop or Kill9, and waits until it answers.
func (d *Dockerd) Start() {
	d.tb.Helper()
	if d.proc != nil && d.proc.running() {
		d.tb.Fatal("dockerd is running already")
	}
	if err := d.start(); err != nil {
		d.tb.Fatalf("start dockerd again: %v", err)
	}
}

// Stop ends the daemon by SIGTERM. Its containers end too, unless it was started
// WithLiveRestore.
func (d *Dockerd) Stop() {
	d.tb.Helper()
	if !d.proc.stop(stopGrace) {
		d.tb.Errorf("dockerd did not stop within %v and was killed", stopGrace)
	}
	d.waitContainerd()
}

// Kill9 kills the daemon. Containers go on until it starts again (and longer
// WithLiveRestore); what they write meanwhile waits in their pipes.
func (d *Dockerd) Kill9() {
	d.tb.Helper()
	d.proc.kill()
	d.waitContainerd()
}

// Restart is Stop and Start.
func (d *Dockerd) Restart() {
	d.tb.Helper()
	d.Stop()
	d.Start()
}

// Freeze stops the daemon by SIGSTOP: it accepts connections and does not
// answer. Thaw lets it go on.
func (d *Dockerd) Freeze() {
	d.tb.Helper()
	d.proc.freeze(d.tb)
}

// Thaw ends Freeze.
func (d *Dockerd) Thaw() {
	d.tb.Helper()
	d.proc.signal(d.tb, syscall.SIGCONT)
}

func (d *Dockerd) logFile() string { return filepath.Join(d.dir, "dockerd.log") }

// start runs dockerd and waits until it answers.
func (d *Dockerd) start() error {
	proc, err := startProcess(d.logFile(), dockerdBin(), d.args...)
	if err != nil {
		return err
	}
	d.proc = proc
	up := poll(upLimit, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := d.API.Ping(ctx, client.PingOptions{})
		return err == nil || !proc.running()
	})
	if up && proc.running() {
		return nil
	}
	if !proc.running() {
		return fmt.Errorf("dockerd ended: %w", errors.Join(proc.err, d.lastError()))
	}
	proc.stop(stopGrace)
	return fmt.Errorf("dockerd did not answer within %v", upLimit)
}

// lastError gives the last line of the daemon's log.
func (d *Dockerd) lastError() error {
	text, err := os.ReadFile(d.logFile())
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return errors.New(lines[len(lines)-1])
}

// waitContainerd waits until the daemon's containerd has ended: the kernel kills
// it when the daemon dies, which takes a moment. Its pid file goes too: where
// process 1 does not reap, as in many containers, it stays a zombie, and the next
// daemon takes that for a living one and waits for it in vain.
func (d *Dockerd) waitContainerd() {
	d.tb.Helper()
	if !poll(10*time.Second, func() bool { return len(d.containerds()) == 0 }) {
		d.tb.Errorf("containerd outlives dockerd; killing %v", d.containerds())
		for _, pid := range d.containerds() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err := os.Remove(filepath.Join(d.dir, "exec", "containerd", "containerd.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.tb.Error(err)
	}
}

func (d *Dockerd) containerds() []int {
	return processesWith(func(args []string) bool {
		return filepath.Base(args[0]) == "containerd" && slices.Contains(args, d.dir+"/exec/containerd/containerd.toml")
	})
}

// shims are the processes that hold the daemon's containers.
func (d *Dockerd) shims() []int {
	return processesWith(func(args []string) bool {
		return strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") &&
			slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, d.dir+"/") })
	})
}

// processesWith gives the processes whose command line satisfies ok.
func processesWith(ok func(args []string) bool) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || len(text) == 0 { // gone, or a zombie
			continue
		}
		if ok(strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// cleanup ends everything and removes every trace, whatever the test has done to
// the daemon.
func (d *Dockerd) cleanup() {
	if d.proc != nil && d.proc.running() {
		_ = syscall.Kill(d.proc.pid(), syscall.SIGCONT)
		d.removeContainers() // quicker than the daemon's own 10 s for each
		if !d.proc.stop(stopGrace) {
			d.tb.Errorf("dockerd did not stop within %v and was killed", stopGrace)
		}
	}
	_ = d.API.Close()
	d.waitContainerd()
	// What a killed or live-restoring daemon has left behind.
	for _, pid := range d.cgroupProcesses() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range d.shims() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if !poll(10*time.Second, func() bool { return len(d.shims())+len(d.cgroupProcesses()) == 0 }) {
		d.tb.Errorf("containers outlive the test: shims %v, processes %v", d.shims(), d.cgroupProcesses())
	}
	showLog(d.tb, "dockerd", d.logFile(), "module=grpc", "loading plugin", "skip loading plugin",
		"signal loop", "shim disconnected", "dead shim", "ignoring event", "cleanup warnings")
	if err := d.removeTraces(); err != nil {
		d.tb.Errorf("clean up after dockerd: %v", err)
	}
}

func (d *Dockerd) removeContainers() {
	ctx, cancel := context.WithTimeout(context.Background(), apiLimit)
	defer cancel()
	all, err := d.API.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		d.tb.Logf("list containers to remove: %v", err)
		return
	}
	for _, c := range all.Items {
		if _, err := d.API.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			d.tb.Logf("remove container %s: %v", c.ID, err) // it may be on its way already
		}
	}
}

// cgroupDirs are the parent cgroups of the containers, in each hierarchy.
func (d *Dockerd) cgroupDirs() []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*" + d.cgroup)
	v2, _ := filepath.Glob("/sys/fs/cgroup" + d.cgroup)
	return append(v1, v2...)
}

// cgroupProcesses are the containers' processes.
func (d *Dockerd) cgroupProcesses() []int {
	var pids []int
	for _, dir := range d.cgroupDirs() {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Name() != "cgroup.procs" {
				return nil //nolint:nilerr // gone meanwhile
			}
			text, _ := os.ReadFile(path) //nolint:gosec // the cgroup file system has no symbolic links
			for f := range strings.FieldsSeq(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// removeTraces removes mounts, cgroups and files.
func (d *Dockerd) removeTraces() error {
	var errs []error
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	var points []string
	for l := range strings.Lines(string(mounts)) {
		// The fifth field; no path of ours has a character that is escaped.
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], d.dir+"/") {
			points = append(points, f[4])
		}
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	for _, dir := range d.cgroupDirs() {
		var sub []string
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				sub = append(sub, path)
			}
			return nil
		})
		for _, s := range slices.Backward(sub) {
			var err error
			if !poll(5*time.Second, func() bool { // a killed process leaves it a moment later
				err = os.Remove(s)
				return err == nil || errors.Is(err, fs.ErrNotExist)
			}) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// buildLogwriter builds the static writer for the image.
func (d *Dockerd) buildLogwriter() []byte {
	d.tb.Helper()
	out := filepath.Join(d.dir, "logwriter")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./tests/logwriter")
	cmd.Dir = Root(d.tb)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		d.tb.Fatalf("build the log writer: %v\n%s", err, text)
	}
	bin, err := os.ReadFile(out)
	if err != nil {
		d.tb.Fatal(err)
	}
	return bin
}
