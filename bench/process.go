package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/log-capturer/log_capturer/bench/internal/measure"
)

// stopGrace is how long a program has to end.
const stopGrace = 20 * time.Second

// childEnv is set for the program's own children, so that a test can be one.
const childEnv = "LOG_CAPTURER_BENCH_CHILD=1"

// process is a program that runs beside this one.
type process struct {
	cmd  *exec.Cmd
	name string
	log  string        // file with what it prints
	done chan struct{} // closed when it has ended
	err  error         // valid after done
}

// startProcess starts a program on some cores. It dies with this one.
func startProcess(cores []int, log, name string, args ...string) (*process, error) {
	return startWriting(cores, log, nil, name, args...)
}

// startWriting is startProcess with standard output to a file of its own; nil: to the log.
func startWriting(cores []int, log string, out *os.File, name string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	//nolint:noctx // it ends by stop
	p := &process{cmd: exec.Command(name, args...), name: name, log: log, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if out != nil {
		p.cmd.Stdout = out
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(p.done)
		defer f.Close() //nolint:errcheck // the child writes it
		// Pdeathsig comes when the thread that started the program ends: this
		// one is kept for as long as the program runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := measure.StartOn(cores, p.cmd)
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended says that, and why, a program has ended that should not have; nil: it has not.
func (p *process) ended() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		text = []byte(err.Error())
	}
	const tail = 2000
	return fmt.Errorf("%s has ended: %w\n%s", p.name, p.err, text[max(0, len(text)-tail):])
}

// stop ends a program and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// freeAddr gives an address that nobody listens on. Its port is below those that the
// kernel chooses, or a connection might take it before the program that it is for
// (ip_local_port_range in ip(7)).
func freeAddr(ctx context.Context) (string, error) {
	const first, n = 20_000, 12_000
	var err error
	for range 100 {
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(n))); err == nil { //nolint:gosec // any will do
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("no free port: %w", err)
}

func splitPort(addr string) (host, port string, err error) {
	host, port, ok := strings.Cut(addr, ":")
	if !ok {
		return "", "", fmt.Errorf("address %q has no port", addr)
	}
	return host, port, nil
}

// wait waits for a time, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
