package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/internal/config"
)

// actAs, in the environment, makes the test binary be the command, with an
// agent that behaves as its value says: see TestSignalsOfAProcess.
const actAs = "LOG_CAPTURER_TEST_AGENT"

// noRaceDelay keeps the race detector from waiting a second at each exit.
const noRaceDelay = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if mode, ok := os.LookupEnv(actAs); ok {
		p := program{
			out: os.Stdout, err: os.Stderr, env: os.LookupEnv, notify: notifySignals, timers: coarseTimers,
			run: func(ctx context.Context, r running) error {
				fmt.Println("running")
				<-ctx.Done()
				fmt.Println("draining")
				if mode == "drains" {
					return nil
				}
				<-r.hard
				if mode == "obeys" {
					fmt.Println("cut short")
					return nil
				}
				select {} // deaf
			},
		}
		os.Exit(p.main(context.Background(), os.Args))
	}
	if value, ok := os.LookupEnv(askTimers); ok {
		sayTimers(value)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

type runFunc func(context.Context, running) error

// fixture is a program whose surroundings a test holds.
type fixture struct {
	program
	out, err bytes.Buffer
	signals  chan os.Signal
	stopped  bool // notify's stop was called
}

func newFixture(run runFunc) *fixture {
	f := &fixture{signals: make(chan os.Signal, 2)}
	f.program = program{
		out: &f.out, err: &f.err, run: run,
		env:    func(string) (string, bool) { return "", false },
		build:  build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"},
		timers: func() error { return nil },
		notify: func() (<-chan os.Signal, func()) { return f.signals, func() { f.stopped = true } },
	}
	return f
}

// now gives an empty configuration that is in force.
func (f *fixture) now() *current {
	var now current
	now.set(&f.err, &config.Config{})
	return &now
}

// subcommand runs log_capturer with one.
func subcommand(t *testing.T, name string, args ...string) (status int, out, err string) {
	t.Helper()
	f := newFixture(nil)
	status = f.main(t.Context(), append([]string{"log_capturer", name}, args...))
	return status, f.out.String(), f.err.String()
}

// files writes a right and a wrong configuration.
func files(t *testing.T) (ok, bad string) {
	t.Helper()
	dir := t.TempDir()
	ok, bad = filepath.Join(dir, "ok.yaml"), filepath.Join(dir, "bad.yaml")
	for path, data := range map[string]string{
		ok:  "host: h\nlog: {level: debug, format: json}\nsinks: {stdout: {enabled: true}}\n",
		bad: "host: [h]\nserver: {port: x}\nsinks: {stdout: {enabled: true}}\n",
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ok, bad
}

func TestCommandLine(t *testing.T) {
	ok, bad := files(t)
	mistakes := bad + ":1: host: is a list; a label value: text of one line, at most 2048 bytes, or \"\" for none\n" +
		bad + ":2: server.port: \"x\" is not a whole number; a whole number from 0 to 65535\n"
	const try = "log_capturer: try log_capturer --help\n"
	for _, c := range []struct {
		args     string
		status   int
		ran      bool
		out, err string // "..." at the end: begins so
	}{
		{"-config " + ok, 0, true, "", "{..."},
		{"--config " + ok, 0, true, "", "{..."},
		{"-config=" + ok, 0, true, "", "{..."},
		{"--config=" + ok, 0, true, "", "{..."},
		{"-c " + ok, 0, true, "", "{..."},
		{"-config " + bad, 2, false, "", mistakes},
		{"--config " + bad, 2, false, "", mistakes},
		{"-config " + ok + ".none", 2, false, "", "read configuration: open " + ok + ".none: no such file or directory: name the file with -config FILE\n"},

		{"validate -config " + ok, 0, false, ok + ": ok\n", ""},
		{"validate --config " + ok, 0, false, ok + ": ok\n", ""},
		{"-config " + ok + " validate", 0, false, ok + ": ok\n", ""},
		{"validate -config " + bad, 2, false, "", mistakes},
		{"validate --config=" + bad, 2, false, "", mistakes},
		{"validate -config " + ok + ".none", 2, false, "", "read configuration: open ..."},
		{"validate " + ok, 2, false, "", "log_capturer: validate: unexpected argument \"" + ok + "\"\n" + try},

		{"version", 0, false, "log_capturer version v1.2.3 (revision abc, go1.26)\n", ""},
		{"--version", 0, false, "log_capturer version v1.2.3 (revision abc, go1.26)\n", ""},
		{"version x", 2, false, "", "log_capturer: version: unexpected argument \"x\"\n" + try},

		{"--help", 0, false, "NAME:\n   log_capturer - ship the logs...", ""},
		{"-h", 0, false, "NAME:\n   log_capturer - ship the logs...", ""},
		{"help validate", 0, false, "NAME:\n   log_capturer validate - ...", ""},
		{"validate --help", 0, false, "NAME:\n   log_capturer validate - ...", ""},
		{"help containers", 0, false, "NAME:\n   log_capturer containers - ...", ""},
		{"help dlq", 0, false, "NAME:\n   log_capturer dlq - ...", ""},
		{"dlq list --help", 0, false, "NAME:\n   log_capturer dlq list - ...", ""},
		{"dlq replay --help", 0, false, "NAME:\n   log_capturer dlq replay - ...", ""},
		{"completion bash", 0, false, "# This is a shell completion script...", ""},
		{"completion zsh", 0, false, "#compdef log_capturer\n...", ""},
		{"completion fish", 0, false, "# This is a shell completion script...", ""},

		{"vaildate", 2, false, "", "log_capturer: unknown command \"vaildate\"\n" + try},
		{"help vaildate", 2, false, "", "log_capturer: No help topic for 'vaildate'\n" + try},
		{"-conf x", 2, false, "", "log_capturer: flag provided but not defined: -conf\n" + try},
		{"validate --force", 2, false, "", "log_capturer: flag provided but not defined: -force\n" + try},
		{"-config", 2, false, "", "log_capturer: flag needs an argument: -config\n" + try},
	} {
		ran := false
		f := newFixture(func(_ context.Context, r running) error {
			cfg := r.config
			ran = cfg.Host == "h"
			return nil
		})
		status := f.main(t.Context(), append([]string{"log_capturer"}, strings.Fields(c.args)...))
		if status != c.status || ran != c.ran {
			t.Errorf("%s: status %d, ran %v; want %d, %v", c.args, status, ran, c.status, c.ran)
		}
		for name, x := range map[string][2]string{"stdout": {f.out.String(), c.out}, "stderr": {f.err.String(), c.err}} {
			begin, open := strings.CutSuffix(x[1], "...")
			if open && !strings.HasPrefix(x[0], begin) || !open && x[0] != x[1] {
				t.Errorf("%s: %s: got\n%s\nwant\n%s", c.args, name, x[0], x[1])
			}
		}
	}
}

// TestHelpShows: what one needs to begin is in the help.
func TestHelpShows(t *testing.T) {
	f := newFixture(nil)
	f.main(t.Context(), []string{"log_capturer", "--help"})
	for _, want := range []string{"Examples:", "-config config.yaml", "completion bash", "validate", "log_capturer containers", "log_capturer dlq list", "Exit status", defaultConfig, "SIGTERM"} {
		if !strings.Contains(f.out.String(), want) {
			t.Errorf("no %q in\n%s", want, &f.out)
		}
	}
}

// TestCompletion asks a process, as a shell does: the library looks at the
// arguments of its process.
func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"--generate-shell-completion":            "validate:check the configuration, and do nothing else\ndoctor:look for what keeps logs from being captured here\ncontainers:show how a running agent captures each container\ndlq:look at the dead letters, or send them again\nhealthcheck:ask the running agent whether it lives; for a container's HEALTHCHECK\nversion:print the version\nhelp:",
		"-co --generate-shell-completion":        "--config:read the configuration from",
		"validate - --generate-shell-completion": "--help:show help\n--config:read the configuration from",
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], strings.Fields(args)...)
		cmd.Env = append(os.Environ(), actAs+"=drains", noRaceDelay)
		out, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: got %q, %v", args, out, err)
		}
	}
}

// TestVariables: the environment of the program reaches the configuration.
func TestVariables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("sinks: {loki: {url: '${LOKI}'}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(nil)
	if status := f.main(t.Context(), []string{"log_capturer", "validate", "-config", path}); status != 2 || !strings.Contains(f.err.String(), "LOKI, which is not set") {
		t.Errorf("got %d, %s", status, &f.err)
	}
	f = newFixture(nil)
	f.env = func(name string) (string, bool) { return "http://loki", name == "LOKI" }
	if status := f.main(t.Context(), []string{"log_capturer", "validate", "-config", path}); status != 0 {
		t.Errorf("got %d, %s", status, &f.err)
	}
}

// failingWriter takes nothing.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space") }

// TestResultCannotBeWritten: a script must not take a full disk for a right
// configuration.
func TestResultCannotBeWritten(t *testing.T) {
	ok, _ := files(t)
	f := newFixture(nil)
	f.program.out = failingWriter{}
	if status := f.main(t.Context(), []string{"log_capturer", "validate", "-config", ok}); status != 1 || !strings.Contains(f.err.String(), "no space") {
		t.Errorf("got %d, %s", status, &f.err)
	}
}

func TestRunFails(t *testing.T) {
	ok, _ := files(t)
	f := newFixture(func(context.Context, running) error {
		return errors.New("the disk is full")
	})
	if status := f.main(t.Context(), []string{"log_capturer", "-config", ok}); status != 1 {
		t.Errorf("status %d", status)
	}
	if !strings.Contains(f.err.String(), `"level":"ERROR","msg":"log_capturer has failed","error":"the disk is full"`) {
		t.Errorf("stderr: %s", &f.err)
	}
	if !f.stopped {
		t.Error("signals are still caught")
	}
}

func TestSignals(t *testing.T) {
	for _, c := range []struct {
		name    string
		signals int
		run     func(ctx context.Context, hard <-chan struct{}, over <-chan struct{}) error
		want    error
		after   time.Duration
	}{
		{
			"ends by itself", 0,
			func(context.Context, <-chan struct{}, <-chan struct{}) error { return nil }, nil, 0,
		},
		{
			"drains", 1,
			func(ctx context.Context, hard <-chan struct{}, _ <-chan struct{}) error {
				<-ctx.Done()
				time.Sleep(3 * time.Second)
				select {
				case <-hard:
					return errors.New("hard")
				default:
					return nil
				}
			}, nil, 3 * time.Second,
		},
		{
			"fails while it drains", 1,
			func(ctx context.Context, _ <-chan struct{}, _ <-chan struct{}) error {
				<-ctx.Done()
				return io.ErrUnexpectedEOF
			}, io.ErrUnexpectedEOF, 0,
		},
		{
			"is cut short", 2,
			func(ctx context.Context, hard <-chan struct{}, _ <-chan struct{}) error {
				<-ctx.Done()
				<-hard
				time.Sleep(100 * time.Millisecond)
				return nil
			}, errCutShort, 100 * time.Millisecond,
		},
		{
			"is cut short and fails", 2,
			func(_ context.Context, hard <-chan struct{}, _ <-chan struct{}) error {
				<-hard
				return io.ErrUnexpectedEOF
			}, io.ErrUnexpectedEOF, 0,
		},
		{
			"is deaf", 2,
			func(_ context.Context, _ <-chan struct{}, over <-chan struct{}) error {
				<-over
				return nil
			}, errCutShort, cutShort,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan struct{})
				f := newFixture(func(ctx context.Context, r running) error {
					return c.run(ctx, r.hard, over)
				})
				f.signals = make(chan os.Signal, 2)
				for range c.signals {
					f.signals <- syscall.SIGTERM
				}
				begin := time.Now()
				err := f.serve(t.Context(), "", f.now())
				if d := time.Since(begin); !errors.Is(err, c.want) || d != c.after || !f.stopped {
					t.Errorf("got %v after %v, signals given back: %v; want %v after %v", err, d, f.stopped, c.want, c.after)
				}
				close(over)
			})
		})
	}
}

// TestFirstSignalDoesNotCut: between the signals the agent drains, and hard is
// open.
func TestFirstSignalDoesNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended, cut bool
		f := newFixture(func(ctx context.Context, r running) error {
			<-ctx.Done()
			ended = true
			<-r.hard
			cut = true
			return nil
		})
		f.signals = make(chan os.Signal, 2)
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := f.serve(t.Context(), "", f.now()); !errors.Is(err, errCutShort) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		if ended || cut {
			t.Error("stopped without a signal")
		}
		f.signals <- syscall.SIGINT
		time.Sleep(time.Hour)
		synctest.Wait()
		if !ended || cut {
			t.Errorf("after the first signal: context ended %v, cut short %v", ended, cut)
		}
		f.signals <- syscall.SIGTERM
		serving.Wait()
		if !cut {
			t.Error("not cut short by the second signal")
		}
	})
}

// TestHangup: SIGHUP asks for the configuration to be read anew, and neither
// stops the agent nor cuts its stop short.
func TestHangup(t *testing.T) {
	ok, _ := files(t)
	synctest.Test(t, func(t *testing.T) {
		loads, drained := 0, make(chan struct{})
		f := newFixture(func(ctx context.Context, r running) error {
			for {
				select {
				case <-r.reload:
					loads++
					if cfg, err := r.load(); err != nil || cfg.Host != "h" {
						t.Errorf("loaded %+v, %v", cfg, err)
					}
				case <-ctx.Done():
					<-drained
					return nil
				case <-r.hard:
					t.Error("cut short")
					return nil
				}
			}
		})
		f.signals = make(chan os.Signal, 3)
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := f.serve(t.Context(), ok, f.now()); err != nil {
				t.Errorf("got %v", err)
			}
		})
		for range 2 {
			f.signals <- syscall.SIGHUP
			synctest.Wait()
		}
		if loads != 2 {
			t.Errorf("%d reloads for two signals", loads)
		}
		f.signals <- syscall.SIGTERM
		f.signals <- syscall.SIGHUP
		synctest.Wait()
		close(drained)
		serving.Wait()
	})
}

// TestReloadedLog: what the command itself logs is as the configuration wants it that a
// reload has put in force, and tells its grace.
func TestReloadedLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text+"sinks: {stdout: {enabled: true}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(func(ctx context.Context, r running) error {
			r.newLogger(r.config)
			<-r.reload
			cfg, err := r.load()
			if err != nil {
				return err
			}
			r.newLogger(cfg)
			<-ctx.Done()
			return nil
		})
		var running sync.WaitGroup
		running.Go(func() {
			if status := f.main(t.Context(), []string{"log_capturer", "-config", path}); status != exitOK {
				t.Errorf("status %d", status)
			}
		})
		synctest.Wait()
		write("log: {format: json}\nshutdown_grace: 7s\n")
		f.signals <- syscall.SIGHUP
		synctest.Wait()
		f.signals <- syscall.SIGTERM
		running.Wait()
		lines := strings.Split(f.err.String(), "\n")
		for i, want := range []string{`level=INFO msg="log_capturer is starting"`, `"signal":"terminated","grace":"7s"}`, `"msg":"log_capturer has stopped"}`, ""} {
			if i >= len(lines) || !strings.Contains(lines[i], want) {
				t.Fatalf("line %d lacks %s:\n%s", i, want, &f.err)
			}
		}
	})
}

// startAgent starts the command as a process of its own, with an agent as actAs says, and
// gives what it writes: standard output line by line, standard error when it has ended.
func startAgent(ctx context.Context, t *testing.T, mode, config string, stdin io.Reader) (cmd *exec.Cmd, lines *bufio.Scanner, stderr *bytes.Buffer) {
	t.Helper()
	cmd, stderr = exec.CommandContext(ctx, os.Args[0], "-config", config), new(bytes.Buffer)
	cmd.Env = append(os.Environ(), actAs+"="+mode, noRaceDelay)
	cmd.Stdin, cmd.Stderr = stdin, stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(stdout), stderr
}

// TestSignalsOfAProcess sends real signals to a real process and looks at its
// exit status.
func TestSignalsOfAProcess(t *testing.T) {
	ok, _ := files(t)
	for _, c := range []struct {
		mode   string
		first  os.Signal
		second os.Signal
		status int
	}{
		{"drains", syscall.SIGTERM, nil, 0},
		{"drains", os.Interrupt, nil, 0},
		{"obeys", syscall.SIGTERM, syscall.SIGTERM, 1},
		{"obeys", os.Interrupt, syscall.SIGTERM, 1},
		{"deaf", syscall.SIGTERM, os.Interrupt, 1},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for a machine that is busy
		cmd, lines, stderr := startAgent(ctx, t, c.mode, ok, nil)
		expect := func(want string) {
			t.Helper()
			if !lines.Scan() || lines.Text() != want {
				t.Errorf("%s: got %q, want %q", c.mode, lines.Text(), want)
			}
		}
		send := func(s os.Signal) {
			t.Helper()
			if err := cmd.Process.Signal(s); err != nil {
				t.Errorf("%s: %v", c.mode, err)
			}
		}
		expect("running")
		send(c.first)
		expect("draining")
		if c.second != nil {
			send(c.second)
		}
		if c.mode == "obeys" {
			expect("cut short")
		}
		if lines.Scan() {
			t.Errorf("%s: more: %q", c.mode, lines.Text())
		}
		_ = cmd.Wait() // the status is looked at
		if got := cmd.ProcessState.ExitCode(); got != c.status {
			t.Errorf("%s: status %d, want %d; %s", c.mode, got, c.status, stderr)
		}
		last := "log_capturer has stopped"
		if c.status != 0 {
			last = errCutShort.Error()
		}
		if !strings.Contains(stderr.String(), last) || !strings.Contains(stderr.String(), "stopping: what is under way") {
			t.Errorf("%s: stderr: %s", c.mode, stderr)
		}
		cancel()
	}
}

func TestNewLogger(t *testing.T) {
	for _, c := range []struct {
		log  config.Log
		want string
	}{
		{config.Log{Level: slog.LevelInfo, Format: config.FormatText}, "level=INFO msg=i a=1\nlevel=ERROR msg=e\n"},
		{config.Log{Level: slog.LevelError, Format: config.FormatText}, "level=ERROR msg=e\n"},
		{
			config.Log{Level: slog.LevelDebug, Format: config.FormatJSON},
			"{\"level\":\"DEBUG\",\"msg\":\"d\"}\n{\"level\":\"INFO\",\"msg\":\"i\",\"a\":1}\n{\"level\":\"ERROR\",\"msg\":\"e\"}\n",
		},
	} {
		var b bytes.Buffer
		h := newLogger(&b, c.log).Handler()
		for _, r := range []struct {
			level slog.Level
			text  string
			attrs []slog.Attr
		}{{slog.LevelDebug, "d", nil}, {slog.LevelInfo, "i", []slog.Attr{slog.Int("a", 1)}}, {slog.LevelError, "e", nil}} {
			rec := slog.NewRecord(time.Time{}, r.level, r.text, 0) // no time: none is printed
			rec.AddAttrs(r.attrs...)
			if h.Enabled(t.Context(), r.level) {
				if err := h.Handle(t.Context(), rec); err != nil {
					t.Fatal(err)
				}
			}
		}
		if b.String() != c.want {
			t.Errorf("%+v: got\n%swant\n%s", c.log, &b, c.want)
		}
	}
}

func TestBuildInfo(t *testing.T) {
	info := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: version}, Settings: settings}
	}
	rev := debug.BuildSetting{Key: "vcs.revision", Value: "abc"}
	for _, c := range []struct {
		release string
		bi      *debug.BuildInfo
		want    build
	}{
		{"", nil, build{Version: "dev", Revision: "unknown", GoVersion: "unknown"}},
		{"v1", nil, build{Version: "v1", Revision: "unknown", GoVersion: "unknown"}},
		{"", info("(devel)"), build{Version: "dev", Revision: "unknown", GoVersion: "go1.26"}},
		{"", info(""), build{Version: "dev", Revision: "unknown", GoVersion: "go1.26"}},
		{"", info("v2.0.0", rev), build{Version: "v2.0.0", Revision: "abc", GoVersion: "go1.26"}},
		{"v3", info("v2.0.0", rev, debug.BuildSetting{Key: "vcs.modified", Value: "true"}), build{Version: "v3", Revision: "abc-dirty", GoVersion: "go1.26"}},
		{"v3", info("", rev, debug.BuildSetting{Key: "vcs.modified", Value: "false"}), build{Version: "v3", Revision: "abc", GoVersion: "go1.26"}},
		{"v3", info("", debug.BuildSetting{Key: "vcs.modified", Value: "true"}), build{Version: "v3", Revision: "unknown", GoVersion: "go1.26"}},
	} {
		if got := buildInfo(c.release, c.bi); got != c.want {
			t.Errorf("%q, %+v: got %+v, want %+v", c.release, c.bi, got, c.want)
		}
	}
}

// TestTuneMemory: GOGC of the environment goes before ours.
func TestTuneMemory(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	for gogc, want := range map[string]int{"": gcPercent, "200": 100} {
		debug.SetGCPercent(100)
		tuneMemory(func(name string) (string, bool) { return gogc, name == "GOGC" })
		if got := debug.SetGCPercent(100); got != want {
			t.Errorf("GOGC=%q: %d percent, want %d", gogc, got, want)
		}
	}
}
