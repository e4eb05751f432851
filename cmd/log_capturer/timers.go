package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the kernel may wake a thread that sleeps until a time. Go's
// runtime has a thread that looks after the others every 20 us while there is anything
// to do; with Linux's default of 50 us it is a seventh of what the agent costs at
// 1,000 lines/s, and half of its wake-ups (docs/adr/0013-coarse-timers.md).
const timerSlack = time.Millisecond

// executedAgain is in the environment of a program that coarseTimers has executed.
const executedAgain = "LOG_CAPTURER_EXECUTED_AGAIN"

// coarseTimers sees to it that all threads have at least timerSlack. A thread has that
// of the one that started it, and the runtime starts some before main: unless whoever
// started the program has seen to it (systemd's TimerSlackNSec), it is executed once
// more, with the same arguments and process ID. If it returns, the timers are coarse,
// or else the error says why not.
func coarseTimers() error {
	again := os.Getenv(executedAgain) != ""
	if err := os.Unsetenv(executedAgain); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	switch slack, err := slackOfThread(); {
	case err != nil:
		return err
	case slack >= timerSlack:
		return nil
	case again:
		return errors.New("the timer slack is not kept over an execve(2)")
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	switch slack, err := slackOfThread(); {
	case err != nil:
		return err
	case slack < timerSlack: // a thread of a real-time class has none
		return fmt.Errorf("the timer slack cannot be set: it is %v", slack)
	}
	// By its own name, which ps shows; /proc/self/exe would be shown as exe.
	path, err := os.Executable()
	if err != nil {
		return err
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	err = fmt.Errorf("execute %s once more: %w", path,
		syscall.Exec(path, os.Args, append(os.Environ(), executedAgain+"=1"))) //nolint:gosec // it is this program
	// Exec has put back the soft limit that the program was started with; the runtime
	// had raised it to the hard one, which as many logs may need.
	if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); back != nil {
		err = errors.Join(err, fmt.Errorf("raise the limit of open files again: %w", back))
	}
	return err
}

// slackOfThread is the timer slack of the calling thread.
func slackOfThread() (time.Duration, error) {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("read the timer slack: %w", err)
	}
	return time.Duration(ns), nil
}
