package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/server"
	"github.com/log-capturer/log_capturer/internal/spool"
	"github.com/log-capturer/log_capturer/internal/stdout"
)

// lanes is the number of ordered lanes: of batches under way and of readers.
const lanes = 2

// Options are what Run needs.
type Options struct {
	Config *config.Config
	Build  server.Build
	// NewLogger makes the agent's own log as a configuration wants it, which is in
	// force from then on.
	NewLogger func(*config.Config) *slog.Logger
	// Load reads the configuration anew, for a reload, and Reload asks for one
	// (SIGHUP). Without Load there is none.
	Load   func() (*config.Config, error)
	Reload <-chan struct{}
	// Out is where the stdout sink writes.
	Out io.Writer
	// Processors, unless nil, is told of each look.
	Processors *Processors
	// Hard, when closed, cuts the stop short: nothing more is delivered.
	Hard <-chan struct{}
	// Listening, unless nil, is called with the address once HTTP is served.
	Listening func(addr string)
}

// agent is one running agent, from one configuration.
type agent struct {
	cfg *config.Config
	log *slog.Logger

	registry   *prometheus.Registry
	positions  *positions.Store
	dead       *deadLetters
	loki       *loki.Client // nil with the stdout sink
	spool      *spool.Spool // nil without one
	dispatcher *dispatch.Dispatcher
	engine     *docker.Client
	files      *monitors.FileMonitor
	streams    *monitors.StreamMonitor
	containers *monitors.ContainerMonitor // nil when monitors.container.enabled is false
	server     *server.Server
	reloads    chan reload

	// What the agent shows of itself.
	buildInfo server.Build
	started   time.Time
	rates     *rates
	history   server.History
}

// Run runs the agent until ctx ends, then stops it within the grace period. The
// error says why it could not start, or what made it stop.
//
// A reload is a stop and a start inside the process: what was under way is
// delivered, the positions are saved, and the new agent goes on from there. A
// configuration with faults changes nothing; one that cannot be started gives
// way to the one before.
func Run(ctx context.Context, o Options) error {
	cfg := o.Config
	var before *config.Config // nil unless cfg is of a reload and has not run yet
	for {
		next, err := runOne(ctx, o, cfg)
		var failed *startError
		switch {
		case next != nil:
			before, cfg = cfg, next
		case before != nil && errors.As(err, &failed):
			o.NewLogger(before).Error("agent cannot be started with the new configuration and goes on with the old one", "error", err)
			before, cfg = nil, before
		default:
			return err
		}
	}
}

// startError says that an agent could not be started.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// runOne runs one agent. next is the configuration to go on with, nil if there
// is to be no further one.
func runOne(ctx context.Context, o Options, cfg *config.Config) (next *config.Config, err error) {
	now := time.Now()
	a := &agent{
		cfg: cfg, log: o.NewLogger(cfg), registry: prometheus.NewRegistry(), reloads: make(chan reload),
		buildInfo: o.Build, started: now, rates: newRates(now),
	}
	a.registry.MustRegister(collectors.NewGoCollector(), server.NewProcessCollector(o.Build, now))
	defer a.close()
	if err := a.build(o.Out); err != nil {
		return nil, &startError{err}
	}
	if err := a.server.Listen(ctx); err != nil {
		return nil, &startError{err}
	}
	if o.Listening != nil {
		o.Listening(a.server.Addr().String())
	}
	if a.containers == nil {
		a.log.Warn("no container is captured: monitors.container.enabled is false")
	}
	a.log.Info("shipping begins", "sink", a.sinkName(), "data_dir", a.cfg.DataDir)
	return a.run(ctx, o)
}

func (a *agent) sinkName() string {
	if a.loki == nil {
		return "stdout"
	}
	return "loki"
}

// build makes all components; nothing runs yet.
func (a *agent) build(out io.Writer) error {
	var err error
	a.positions, err = positions.Open(positions.Config{Dir: a.cfg.DataDir, Logger: a.log, Registerer: a.registry})
	if err != nil {
		return err
	}
	dead, err := deadletter.Open(a.cfg.DataDir, deadletter.Options{Logger: a.log, Registerer: a.registry})
	if err != nil {
		return err
	}
	a.dead = &deadLetters{log: dead}
	sink, err := a.buildSink(out)
	if err != nil {
		return err
	}
	if a.loki != nil && a.cfg.Spool.MaxBytes > 0 {
		a.spool, err = spool.Open(spool.Config{
			Dir: a.cfg.DataDir, Lanes: dispatch.SpoolLanes(lanes), MaxBytes: a.cfg.Spool.MaxBytes,
			MinFreeBytes: cmp.Or(a.cfg.Spool.MinFreeBytes, -1), // of which 0 is the default
			Logger:       a.log, Registerer: a.registry,
		})
		if err != nil {
			return err
		}
	}
	c, l := a.cfg.Monitors.Container, a.cfg.Sinks.Loki
	a.dispatcher = dispatch.New(dispatch.Config{
		Lanes: lanes, BatchBytes: l.BatchBytes, BatchWait: dispatch.BatchWait(l.BatchWait),
		Sink: sink, Spool: a.spool, Stats: a.stats, Acks: a.positions, DeadLetters: a.dead,
		Wake: func(s *entrySource) {
			if s.Method == monitors.MethodStreaming {
				a.streams.Wake(s)
			} else {
				a.files.Wake(s)
			}
		},
		Logger: a.log, Registerer: a.registry,
	})
	labels := monitors.LabelConfig{Static: l.Labels}
	for _, cl := range c.ContainerLabels {
		labels.ContainerLabels = append(labels.ContainerLabels, monitors.ContainerLabel(cl))
	}
	logs := monitors.LogConfig{
		Outlet: a.dispatcher, Registry: a.positions, Spans: a.positions, Labels: labels,
		MaxLineBytes: c.MaxLineBytes,
		FirstStart:   a.positions.FirstStart(), FromEnd: c.ReadFrom == config.FromEnd, IgnoreOlderThan: c.IgnoreOlderThan,
		Logger: a.log, Lines: monitors.NewLineMetrics(a.registry),
	}
	a.files = monitors.NewFileMonitor(monitors.FileMonitorConfig{
		LogConfig: logs, Malformed: a.dead, Tick: l.BatchWait, ShipMalformed: l.ShipMalformed,
		MaxDescriptors: maxLogFiles(), Metrics: monitors.NewFileMetrics(a.registry),
		Access: func(id string, err error) { a.containers.FileAccess(id, err) },
	})
	a.engine, err = docker.New(a.cfg.Docker.Host, docker.WithLogger(a.log), docker.WithRegisterer(a.registry))
	if err != nil {
		return err
	}
	a.streams = monitors.NewStreamMonitor(monitors.StreamMonitorConfig{
		LogConfig: logs, Open: a.openLog, MaxStreams: c.Streaming.MaxStreams, Metrics: monitors.NewStreamMetrics(a.registry),
	})
	if c.Enabled {
		f := forecast(a.cfg)
		a.containers, err = monitors.NewContainerMonitor(monitors.ContainerMonitorConfig{
			Engine: a.engine, Files: a.files, Streams: a.streams, Saved: a.positions,
			Cache:   monitors.NewContainerMetadataCache(0, a.registry),
			Routing: f.Routing, Selection: f.Selection, ContainersDir: f.ContainersDir, Self: f.Self, Host: a.cfg.Host,
			Logger: a.log, Registerer: a.registry,
		})
		if err != nil {
			return err
		}
	}
	a.server = server.New(server.Options{
		Address: a.cfg.Server.Address(), Health: a.health, Ready: a.ready,
		Reload: a.reload, Metrics: a.registry, Log: a.log, Containers: a.listContainers,
		Overview: a.overview, Config: func() any { return a.cfg.Effective() },
		TokenFile: a.cfg.Server.TokenFile, Pprof: a.cfg.Server.Pprof,
	})
	return nil
}

// stats gives the counters of a container, nil if it is not known.
func (a *agent) stats(containerID, _ string) *entry.Stats {
	if a.containers == nil {
		return nil
	}
	return a.containers.Stats(containerID)
}

// openLog opens a container's log at the engine.
func (a *agent) openLog(ctx context.Context, id string, o docker.LogsOptions) (monitors.LogStream, error) {
	s, err := a.engine.Logs(ctx, id, o)
	if err != nil {
		return nil, err // not a LogStream that is nil
	}
	return s, nil
}

func (a *agent) buildSink(out io.Writer) (dispatch.Sink, error) {
	if a.cfg.Sinks.Stdout.Enabled {
		return stdout.New(out), nil
	}
	cfg := LokiConfig(a.cfg.Sinks.Loki)
	cfg.Logger, cfg.Registerer = a.log, a.registry
	var err error
	a.loki, err = loki.New(cfg)
	return a.loki, err
}

// LokiConfig gives the client's settings as the configuration has them; logger
// and metrics are the caller's to add.
func LokiConfig(l config.Loki) loki.Config {
	headers := make(map[string]string, len(l.Headers))
	for name, value := range l.Headers {
		headers[name] = value.Reveal()
	}
	return loki.Config{
		URL: l.PushURL(), TenantID: l.TenantID,
		Username: l.BasicAuth.Username, Password: l.BasicAuth.Password.Reveal(), PasswordFile: l.BasicAuth.PasswordFile,
		BearerTokenFile: l.BearerTokenFile,
		TLS: loki.TLS{
			CAFile: l.TLS.CAFile, CertFile: l.TLS.CertFile, KeyFile: l.TLS.KeyFile,
			ServerName: l.TLS.ServerName, InsecureSkipVerify: l.TLS.InsecureSkipVerify,
		},
		Headers: headers, StructuredMetadata: l.StructuredMetadata,
		BatchBytes: l.BatchBytes, Timeout: l.Timeout,
	}
}

// maxLogFiles leaves some of the descriptors that this process may have for
// everything that is no log file. The Go runtime has raised the soft limit to
// the hard one.
func maxLogFiles() int64 {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur > 1<<20 {
		return 1 << 20
	}
	return max(int64(lim.Cur)-64, int64(lim.Cur)/2)
}

// errCutShort says that a second signal ended the stop.
var errCutShort = errors.New("stopped at once: what was on its way will be sent again at the next start")

// run starts everything, waits for the end of ctx or a reload, and stops
// upstream first.
func (a *agent) run(ctx context.Context, o Options) (next *config.Config, err error) {
	// Each stage has a context of its own, cancelled when the one before has
	// stopped. A stage that fails stops the agent.
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	base := context.WithoutCancel(ctx)
	stage := func(g *errgroup.Group, name string, stageCtx context.Context, run func(context.Context) error) {
		g.Go(func() error {
			err := run(stageCtx)
			if err != nil && stageCtx.Err() == nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
			return err
		})
	}
	var serving, saving, sending, reading errgroup.Group
	serveCtx, stopServing := context.WithCancel(base)
	defer stopServing()
	saveCtx, stopSaving := context.WithCancel(base)
	defer stopSaving()
	sendCtx, stopSending := context.WithCancel(base)
	defer stopSending()
	readCtx, stopReading := context.WithCancel(base)
	defer stopReading()
	stage(&serving, "http server", serveCtx, a.server.Run)
	stage(&saving, "positions", saveCtx, a.positions.Run)
	stage(&sending, "dispatcher", sendCtx, a.dispatcher.Run)
	stage(&reading, "file monitor", readCtx, a.files.Run)
	stage(&reading, "stream monitor", readCtx, a.streams.Run)
	if a.containers != nil {
		stage(&reading, "container monitor", readCtx, a.containers.Run)
	}

	next = a.wait(failed, o)
	began := time.Now()
	drainCtx, cancelDrain := context.WithTimeout(base, a.cfg.ShutdownGrace)
	defer cancelDrain()
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		select {
		case <-o.Hard:
			cancelDrain()
			stopSending()
		case <-drainCtx.Done():
		}
	}()
	stopReading()
	errs := []error{reading.Wait()}
	if err := a.dispatcher.Drain(drainCtx); err != nil {
		select {
		case <-o.Hard:
			errs = append(errs, errCutShort)
			next = nil
		default:
			a.log.Warn("not everything could be delivered in time; it will be read again", "error", err)
		}
	}
	cancelDrain()
	<-cut
	stopSending()
	errs = append(errs, sending.Wait())
	stopSaving()
	errs = append(errs, saving.Wait())
	stopServing()
	errs = append(errs, serving.Wait())
	a.log.Debug("all stages have stopped", "after", time.Since(began).Round(time.Millisecond))
	if next == nil && ctx.Err() == nil {
		return nil, context.Cause(failed)
	}
	return next, errors.Join(errs...)
}

// close gives back what build has taken, in the opposite order.
func (a *agent) close() {
	if a.server != nil {
		_ = a.server.Close() // closed already when it has run
	}
	if a.engine != nil {
		_ = a.engine.Close() // idle connections
	}
	if a.loki != nil {
		a.loki.Close()
	}
	if a.spool != nil {
		if err := a.spool.Close(); err != nil {
			a.log.Warn("spool could not be closed", "error", err)
		}
	}
	if a.dead != nil {
		if err := a.dead.log.Close(); err != nil {
			a.log.Warn("dead-letter file could not be closed", "error", err)
		}
	}
	if a.positions != nil {
		if err := a.positions.Close(); err != nil {
			a.log.Error("positions could not be saved; lines may be sent twice after the next start", "error", err)
		}
	}
}
