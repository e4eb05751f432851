package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// askTimers, in the environment, makes the test binary say what its timers are.
const askTimers = "LOG_CAPTURER_TEST_TIMERS"

// sayTimers does what the value of askTimers says.
func sayTimers(value string) {
	switch value {
	case "loop": // as if the kernel had forgotten over the execve(2)
		_ = os.Setenv(executedAgain, "1")
	case "refused": // an execve(2) with more than it takes
		_ = os.Setenv("LOG_CAPTURER_TEST_LARGE", strings.Repeat("x", 1<<20))
		before := openFiles()
		err := coarseTimers()
		fmt.Println(err, before > 256, openFiles() == before)
		return
	}
	err := coarseTimers()
	slack, _ := slackOfThread()
	comm, _ := os.ReadFile("/proc/self/comm")
	fmt.Println(os.Getpid(), slack, err, strings.TrimSpace(string(comm)), len(os.Args), os.Getenv(executedAgain) == "")
	tasks, _ := filepath.Glob("/proc/self/task/*/stat")
	for _, t := range tasks { // each can be read as a process of its own
		ns, err := os.ReadFile("/proc/" + filepath.Base(filepath.Dir(t)) + "/timerslack_ns")
		if err == nil {
			fmt.Println("thread", strings.TrimSpace(string(ns)))
		}
	}
}

// openFiles is the soft limit of open files.
func openFiles() uint64 {
	var lim unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	return lim.Cur
}

// TestCoarseTimersRefused: where the program cannot be executed once more it goes on,
// and may open as many files as before.
func TestCoarseTimersRefused(t *testing.T) {
	if slack, err := slackOfThread(); err != nil || slack >= timerSlack {
		t.Skip("who started the tests has set the timer slack:", slack, err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -S -n 256 && exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), askTimers+"=refused", noRaceDelay)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.HasSuffix(string(out), " once more: argument list too long true true\n") {
		t.Errorf("%s", out)
	}
}

// seesThreads reports whether sayTimers may look at all threads: root in a container
// may not.
func seesThreads() bool {
	var caps [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])
	return err == nil && caps[0].Effective&(1<<unix.CAP_SYS_NICE) != 0
}

// TestCoarseTimers: the program is executed once more, as the same process under the
// same name, and then all its threads have the slack; once is enough.
func TestCoarseTimers(t *testing.T) {
	slack, err := slackOfThread()
	if err != nil || slack >= timerSlack {
		t.Skip("there is no timer slack here, or who started the tests has set it:", slack, err)
	}
	run := func(value string) (pid int, out string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "argument")
		cmd.Env = append(os.Environ(), askTimers+"="+value, noRaceDelay)
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return cmd.Process.Pid, string(text)
	}
	name := filepath.Base(os.Args[0])
	name = name[:min(len(name), 15)] // as much as the kernel keeps
	pid, out := run("yes")
	first, threads, _ := strings.Cut(out, "\n")
	if want := fmt.Sprintf("%d %v <nil> %s 2 true", pid, timerSlack, name); first != want {
		t.Errorf("got %q, want %q", first, want)
	}
	for l := range strings.Lines(threads) {
		if l != "thread 1000000\n" {
			t.Errorf("%q", l)
		}
	}
	if n := strings.Count(threads, "thread"); n < 2 && seesThreads() {
		t.Errorf("the slack of %d threads is known: %s", n, threads)
	}
	pid, out = run("loop")
	if want := fmt.Sprintf("%d %v the timer slack is not kept over an execve(2) %s 2 true\n", pid, slack, name); !strings.HasPrefix(out, want) {
		t.Errorf("got %q, want %q", out, want)
	}
}

// TestConfigurationFromPipe: what can be read only once is read only once, though the
// program is executed twice.
func TestConfigurationFromPipe(t *testing.T) {
	text := strings.NewReader("sinks: {stdout: {enabled: true}}\n") // exec makes a pipe of it
	cmd, lines, stderr := startAgent(t.Context(), t, "drains", "/dev/stdin", text)
	if !lines.Scan() || lines.Text() != "running" {
		t.Errorf("it does not run: %q", lines.Text())
	} else if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	for lines.Scan() { // until it has closed its output
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr)
	}
}
