package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs beside the test. Not safe for concurrent use.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended and been reaped
	err  error         // valid after done
}

// startProcess starts a program whose output is appended to the file log. Should
// the test's process die, the program gets SIGTERM.
func startProcess(log, name string, args ...string) (*process, error) {
	return startProcessAs(nil, log, name, args...)
}

// startProcessAs is startProcess for a program of another user; nil: of this one.
func startProcessAs(user *syscall.Credential, log, name string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: user}
	started := make(chan error)
	go func() {
		defer close(p.done)
		defer f.Close()
		// Pdeathsig comes when the thread that started the program ends: this
		// one is kept for as long as the program runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(tb TB, sig syscall.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		tb.Fatalf("%v to %s: %v", sig, p.cmd.Path, err)
	}
}

// freeze stops the program by SIGSTOP and waits until all of its threads have
// stopped: the signal alone lets those that run go on for a moment.
func (p *process) freeze(tb TB) {
	tb.Helper()
	p.signal(tb, syscall.SIGSTOP)
	if !poll(10*time.Second, func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid()))
		for _, t := range threads {
			b, err := os.ReadFile(t)
			// "tid (name) state ...": the name may contain anything.
			if i := bytes.LastIndexByte(b, ')'); err == nil && (i < 0 || i+2 >= len(b) || b[i+2] != 'T') {
				return false
			}
		}
		return len(threads) > 0
	}) {
		tb.Fatalf("%s does not stop on SIGSTOP", p.cmd.Path)
	}
}

// stop sends SIGTERM, and SIGKILL when the program is still there after grace.
// It reports whether SIGTERM was enough.
func (p *process) stop(grace time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a frozen one would not see it
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return true
	case <-time.After(grace):
		p.kill()
		return false
	}
}

// kill sends SIGKILL and waits.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// poll calls ok until it returns true, at most for limit. Programs outside the
// test give no other sign. Looking takes a quarter of the time at most: what is
// waited for may need the processor itself.
func poll(limit time.Duration, ok func() bool) bool {
	const pause = 20 * time.Millisecond
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		began := time.Now()
		if ok() {
			return true
		}
		select {
		case <-time.After(max(pause, 3*time.Since(began))):
		case <-deadline.C:
			return ok()
		}
	}
}

// showLog prints the end of a log file when the test has failed.
func showLog(tb TB, what, path string, drop ...string) {
	tb.Helper()
	if !tb.Failed() {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		tb.Logf("no log of %s: %v", what, err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		tb.Logf("log of %s: %v", what, err)
	}
	var kept []string
lines:
	for l := range strings.Lines(string(text)) {
		for _, d := range drop {
			if strings.Contains(l, d) {
				continue lines
			}
		}
		kept = append(kept, l)
	}
	const last = 100
	if len(kept) > last {
		kept = kept[len(kept)-last:]
	}
	tb.Logf("last lines of the log of %s:\n%s", what, strings.Join(kept, ""))
}
