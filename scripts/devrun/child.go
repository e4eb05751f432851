package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// child is a program that was started here.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; cmd.ProcessState is set then
}

func start(name, binary string, args, env []string, stdout, stderr io.Writer) (*child, error) {
	// No CommandContext: a context would kill it, and it is to be stopped gently
	cmd := exec.Command(binary, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // a terminal's ctrl-C is ours to pass on
		Pdeathsig: syscall.SIGKILL, // should we be killed
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		// What there is to know is in ProcessState; stop waits for the end.
		_ = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// code is the exit code of a child that has ended, -1 if a signal killed it.
func (c *child) code() int { return c.cmd.ProcessState.ExitCode() }

// stop asks the child to end, kills it if it does not within the given time,
// and returns its exit code when it is gone. A signal that arrives meanwhile is
// passed on: the agent takes a second one as "at once". A child that has ended
// may be stopped again.
func (c *child) stop(within time.Duration, again <-chan os.Signal) int {
	// An error of Signal says that it has ended: then done is about to close.
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		select {
		case <-c.done:
			return c.code()
		case <-again:
			_ = c.cmd.Process.Signal(syscall.SIGTERM)
		case <-deadline.C:
			_ = c.cmd.Process.Kill()
			<-c.done
			return c.code()
		}
	}
}
