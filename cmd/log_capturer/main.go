// Command log_capturer ships the logs of all Docker containers of a host to
// Loki.
//
//	arguments, signals --> main --(configuration, logger)--> app
//
// This package knows flags, subcommands, signals and exit statuses; what the
// agent does is elsewhere.
//
// Exit statuses: 0 after a stop that was asked for, 1 after a failure or when a
// second signal cut the stop short, 2 when the configuration or the command
// line is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/log-capturer/log_capturer/internal/app"
	"github.com/log-capturer/log_capturer/internal/config"
)

// version is the release; set with -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	tuneMemory(os.LookupEnv)
	bi, _ := debug.ReadBuildInfo() // nil without modules: buildInfo copes
	build := buildInfo(version, bi)
	p := program{
		out:    os.Stdout,
		err:    os.Stderr,
		env:    os.LookupEnv,
		build:  build,
		notify: notifySignals,
		timers: coarseTimers,
		run: func(ctx context.Context, r running) error {
			var processors *app.Processors
			if os.Getenv("GOMAXPROCS") == "" {
				processors = app.NewProcessors()
			}
			return app.Run(ctx, app.Options{
				Config: r.config, Build: build, NewLogger: r.newLogger, Out: os.Stdout,
				Load: r.load, Reload: r.reload, Hard: r.hard, Processors: processors,
			})
		},
	}
	os.Exit(p.main(context.Background(), os.Args))
}

// gcPercent is how much the heap may grow between collections, in percent. The agent
// allocates little: with half of Go's default it takes 2 to 4 MB less at any load, and no
// more CPU time that could be measured (docs/reports/performance.md).
const gcPercent = 50

// tuneMemory sets gcPercent, unless the environment has GOGC.
func tuneMemory(env func(string) (string, bool)) {
	if v, _ := env("GOGC"); v == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// notifySignals begins to deliver the signals that stop the agent or let it read
// its configuration anew. The channel has room for those that matter.
func notifySignals() (signals <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 3)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return ch, func() { signal.Stop(ch) }
}

// The exit statuses.
const (
	exitOK    = 0
	exitFail  = 1
	exitUsage = 2
)

// defaultConfig is the configuration file when none is named.
const defaultConfig = "/etc/log_capturer/config.yaml"

// cutShort is how long the agent may take to close its files after a second
// signal. It is not for delivering anything.
const cutShort = 500 * time.Millisecond

// build is what the program was built from. An alias, so that it can be given
// to whoever has a type of its own with these fields.
type build = struct {
	Version   string // such as v1.2.3
	Revision  string // of the source
	GoVersion string
}

// program is one run of the command, with all that it takes from its
// surroundings.
type program struct {
	out, err io.Writer
	env      func(string) (string, bool)
	build    build
	notify   func() (signals <-chan os.Signal, stop func())
	// timers makes the timers coarse. It may begin the program anew.
	timers func() error
	// run is the agent. It returns nil once ctx has ended and what was under
	// way is delivered or kept.
	run func(ctx context.Context, r running) error
}

// running is what the agent is run with.
type running struct {
	config *config.Config
	// newLogger makes the agent's own log as a configuration wants it, which is in force
	// from then on.
	newLogger func(*config.Config) *slog.Logger
	// load reads the configuration file again; reload has an element when that
	// is to be done.
	load   func() (*config.Config, error)
	reload <-chan struct{}
	// hard, when closed, lets the agent return without delay.
	hard <-chan struct{}
}

// statusError is an error that has been reported and only has its exit status
// left to say.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// main runs the command and gives the exit status.
func (p *program) main(ctx context.Context, args []string) int {
	err := p.command().Run(ctx, args)
	var status statusError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	default: // the command line
		p.complain("log_capturer: %v\nlog_capturer: try log_capturer --help\n", err)
		return exitUsage
	}
}

// complain writes to standard error; that this fails can be told to nobody.
func (p *program) complain(format string, args ...any) { _, _ = fmt.Fprintf(p.err, format, args...) }

const description = `Reads the logs of Docker's containers, from their files where there are some and
through the Docker API else, and sends them to Loki. A line is taken for
delivered only when Loki has accepted it.

Examples:

  log_capturer -config config.yaml            run in the foreground
  log_capturer validate -config config.yaml   only check the configuration
  log_capturer doctor -config config.yaml     look for what is wrong on this machine
  log_capturer containers                     see what a running agent captures
  log_capturer dlq list                       see the lines that no store would take
  curl http://127.0.0.1:8401/health           see how a running agent is
  source <(log_capturer completion bash)      complete commands in this shell

SIGTERM or SIGINT stops the agent: what is under way is delivered first, for at
most shutdown_grace. A second signal stops it at once.

Exit status: 0 stopped as asked; 1 failed, or cut short by a second signal;
2 the configuration or the command line is wrong.`

// command is the command line. It is made anew for each run: the library keeps
// the state of a run in it.
func (p *program) command() *cli.Command {
	asItIs := func(_ context.Context, _ *cli.Command, err error, _ bool) error { return err }
	return &cli.Command{
		Name:        "log_capturer",
		Usage:       "ship the logs of all Docker containers of a host to Loki",
		UsageText:   "log_capturer [-config FILE]\nlog_capturer validate [-config FILE]\nlog_capturer doctor [-config FILE] [--json] [--push-test]\nlog_capturer containers [--url URL | --config FILE] [--json] [--method METHOD] [NAME]\nlog_capturer dlq list\nlog_capturer dlq replay\nlog_capturer healthcheck [-config FILE]\nlog_capturer version",
		Description: description,
		Version:     fmt.Sprintf("%s (revision %s, %s)", p.build.Version, p.build.Revision, p.build.GoVersion),
		Writer:      p.out,
		ErrWriter:   p.err,
		Flags: []cli.Flag{&cli.StringFlag{
			Name:      "config",
			Aliases:   []string{"c"},
			Usage:     "read the configuration from `FILE`; -config does as well",
			Value:     defaultConfig,
			TakesFile: true,
		}},
		EnableShellCompletion:           true,
		ConfigureShellCompletionCommand: func(c *cli.Command) { c.Hidden = false },
		// Exit statuses are main's to give; the library would call os.Exit.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		OnUsageError:   asItIs,
		Action:         p.agent,
		Commands: []*cli.Command{
			{
				Name:         "validate",
				Usage:        "check the configuration, and do nothing else",
				UsageText:    "log_capturer validate [-config FILE]",
				Description:  "Prints \"FILE: ok\", or one line per mistake and exits with status 2.\nNeither Docker nor Loki is asked; variables must be set as for the agent.",
				OnUsageError: asItIs,
				Action:       p.validate,
			},
			p.doctorCommand(asItIs),
			p.containersCommand(asItIs),
			p.dlqCommand(asItIs),
			p.healthcheckCommand(asItIs),
			{
				Name:         "version",
				Usage:        "print the version",
				UsageText:    "log_capturer version",
				OnUsageError: asItIs,
				Action: func(_ context.Context, c *cli.Command) error {
					if err := noArguments(c); err != nil {
						return err
					}
					cli.ShowVersion(c.Root())
					return nil
				},
			},
		},
	}
}

// noArguments refuses arguments beside flags: they are mistakes, such as a
// misspelt command.
func noArguments(c *cli.Command) error {
	if !c.Args().Present() {
		return nil
	}
	if c.Root() == c {
		return fmt.Errorf("unknown command %q", c.Args().First())
	}
	return fmt.Errorf("%s: unexpected argument %q", c.Name, c.Args().First())
}

// load reads the configuration that the command line names. What is wrong with
// it is reported here, as it is: one line per mistake.
func (p *program) load(c *cli.Command) (path string, cfg *config.Config, err error) {
	if err := noArguments(c); err != nil {
		return "", nil, err
	}
	path = c.String("config")
	cfg, err = config.Load(path, p.env)
	if err != nil {
		p.complain("%v\n", err)
		return path, nil, statusError(exitUsage)
	}
	return path, cfg, nil
}

// validate is the subcommand of that name.
func (p *program) validate(_ context.Context, c *cli.Command) error {
	path, _, err := p.load(c)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(p.out, "%s: ok\n", path); err != nil {
		p.complain("log_capturer: write the result: %v\n", err)
		return statusError(exitFail)
	}
	return nil
}

// agent runs the agent: the command without a subcommand.
func (p *program) agent(ctx context.Context, c *cli.Command) error {
	// Before anything is read: a configuration that comes through a pipe is there once.
	coarse := p.timers()
	path, cfg, err := p.load(c)
	if err != nil {
		return err
	}
	var now current
	log := now.set(p.err, cfg)
	log.Info("log_capturer is starting", "version", p.build.Version, "revision", p.build.Revision, "config", path)
	if coarse != nil {
		log.Debug("timers are as precise as they were, which costs some CPU time", "error", coarse)
	}
	err = p.serve(ctx, path, &now)
	log = now.Load().log
	if err != nil {
		log.Error("log_capturer has failed", "error", err)
		return statusError(exitFail)
	}
	log.Info("log_capturer has stopped")
	return nil
}

// current is what is in force: a reload changes it. It is safe for concurrent use.
type current struct{ atomic.Pointer[inForce] }

// inForce is a configuration, and the agent's own log as that wants it.
type inForce struct {
	cfg *config.Config
	log *slog.Logger
}

// set puts a configuration in force and gives its log.
func (c *current) set(w io.Writer, cfg *config.Config) *slog.Logger {
	log := newLogger(w, cfg.Log)
	c.Store(&inForce{cfg, log})
	return log
}

// errCutShort is the failure after a second signal.
var errCutShort = errors.New("a second signal cut the stop short: lines that were under way are sent again at the next start")

// serve runs the agent until it ends or is stopped by signals: the first ends
// its context, the second closes its hard channel, and then it is waited for
// no longer than it takes to close files. SIGHUP reads the configuration anew.
func (p *program) serve(ctx context.Context, path string, now *current) error {
	signals, stop := p.notify()
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hard, reload := make(chan struct{}), make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- p.run(ctx, running{
			config:    now.Load().cfg,
			newLogger: func(c *config.Config) *slog.Logger { return now.set(p.err, c) },
			load:      func() (*config.Config, error) { return config.Load(path, p.env) },
			reload:    reload,
			hard:      hard,
		})
	}()

	for stopping := false; !stopping; {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				select {
				case reload <- struct{}{}:
				default: // one is asked for already
				}
				continue
			}
			at := now.Load()
			at.log.Info("stopping: what is under way is delivered first; a second signal stops at once",
				"signal", s.String(), "grace", at.cfg.ShutdownGrace.String())
			stopping = true
			cancel()
		}
	}
	for cut := false; !cut; {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			cut = s != syscall.SIGHUP // there is nothing to reload any more
		}
	}
	close(hard)
	timer := time.NewTimer(cutShort)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%w: %w", errCutShort, err)
		}
	case <-timer.C: // the agent ends with the process
	}
	return errCutShort
}

// newLogger makes the agent's own log.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.Level}
	if c.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// buildInfo says what the program was built from: the release that was linked
// in, else the module's version (go install), else "dev". bi may be nil.
func buildInfo(release string, bi *debug.BuildInfo) build {
	b := build{Version: release, Revision: "unknown", GoVersion: "unknown"}
	if bi != nil {
		b.GoVersion = bi.GoVersion
		if b.Version == "" && bi.Main.Version != "(devel)" {
			b.Version = bi.Main.Version
		}
		dirty := false
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				dirty = s.Value == "true"
			}
		}
		if dirty && b.Revision != "unknown" {
			b.Revision += "-dirty"
		}
	}
	if b.Version == "" {
		b.Version = "dev"
	}
	return b
}
