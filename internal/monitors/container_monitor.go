package monitors

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/internal/docker"
)

// enableLabel is the container label by which a container says that it wants to
// be captured, which the agent's own container must.
const enableLabel = "log_capturer.enable"

// Pauses between tries to learn about a container.
const (
	retryFirst = 500 * time.Millisecond
	retryMax   = 30 * time.Second
)

// EngineWatcher follows the containers of a Docker engine.
type EngineWatcher interface {
	Engine
	Info(ctx context.Context) (docker.Info, error)
	Watch(ctx context.Context, w docker.Watcher) error
}

// ContainerMonitorConfig is what a ContainerMonitor is made of.
type ContainerMonitorConfig struct {
	Engine EngineWatcher
	Files  *FileMonitor
	Cache  *ContainerMetadataCache
	// Saved knows for which containers there are positions.
	Saved interface{ Keys() []string }
	// LogDrivers are the drivers whose files are read.
	LogDrivers []string
	// ContainersDir is where this process sees the engine's directory of
	// containers; empty: where the engine sees it.
	ContainersDir string
	// Host is the value of the label host; empty: the engine's name.
	Host string
	// SelfID is the ID of the container that the agent itself runs in, or "".
	SelfID string

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// ContainerMonitor follows the engine and decides for each container how its
// log is read.
type ContainerMonitor struct {
	cfg     ContainerMonitorConfig
	routing *prometheus.CounterVec

	// Owned by the goroutine of loop.
	seen  map[string]bool      // containers whose route has been counted
	retry map[string]*retrying // containers that could not be inspected
	// info is what the engine says of itself; asked for, at askAt unless that is
	// zero, until it has answered.
	info  docker.Info
	askAt time.Time

	mu      sync.Mutex
	engine  error             // why the engine cannot be reached; nil if it can
	since   time.Time         // of engine
	synced  bool              // a list has been dealt with
	skipped map[string]string // containers that are not captured: ID to driver
}

type retrying struct {
	at    time.Time
	pause time.Duration
}

// NewContainerMonitor makes a ContainerMonitor. It starts nothing.
func NewContainerMonitor(cfg ContainerMonitorConfig) (*ContainerMonitor, error) {
	if err := CheckLogDrivers(cfg.LogDrivers); err != nil {
		return nil, err
	}
	m := &ContainerMonitor{
		cfg: cfg,
		routing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_routing_decision_total",
			Help: "Containers by log driver and by how their log is read.",
		}, []string{"driver", "method"}),
		seen:    make(map[string]bool),
		retry:   make(map[string]*retrying),
		skipped: make(map[string]string),
		since:   time.Now(),
		engine:  errors.New("not connected yet"),
	}
	cfg.Registerer.MustRegister(m.routing, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "log_capturer_containers_not_captured",
		Help: "Containers whose log driver keeps no file that can be read.",
	}, func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(m.skipped))
	}))
	return m, nil
}

// Run follows the engine until ctx ends.
func (m *ContainerMonitor) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	inbox := engineInbox{calls: make(chan func(context.Context))}
	g.Go(func() error { return m.cfg.Engine.Watch(ctx, &engineNews{m, inbox}) })
	g.Go(func() error { return m.loop(ctx, inbox) })
	return g.Wait()
}

// engineInbox carries what the engine tells to the loop, in order. The sender
// waits: the events that come meanwhile are kept by internal/docker.
type engineInbox struct{ calls chan func(context.Context) }

func (i engineInbox) send(ctx context.Context, f func(context.Context)) {
	select {
	case i.calls <- f:
	case <-ctx.Done():
	}
}

// engineNews is the docker.Watcher.
type engineNews struct {
	m     *ContainerMonitor
	inbox engineInbox
}

// Resync is docker.Watcher.
func (n *engineNews) Resync(ctx context.Context, all []docker.Summary) {
	n.inbox.send(ctx, func(ctx context.Context) { n.m.resync(ctx, all) })
}

// Event is docker.Watcher.
func (n *engineNews) Event(ctx context.Context, e docker.Event) {
	n.inbox.send(ctx, func(ctx context.Context) { n.m.event(ctx, e) })
}

// Disconnected is docker.Watcher.
func (n *engineNews) Disconnected(err error) {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	if n.m.engine == nil {
		n.m.since = time.Now()
	}
	n.m.engine = err
}

// loop does one thing after the other: what the engine tells, and retries.
func (m *ContainerMonitor) loop(ctx context.Context, inbox engineInbox) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := time.Now().Add(time.Hour)
		for _, r := range m.retry {
			if r.at.Before(next) {
				next = r.at
			}
		}
		if !m.askAt.IsZero() && m.askAt.Before(next) {
			next = m.askAt
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return nil
		case f := <-inbox.calls:
			f(ctx)
		case <-timer.C:
			m.retryDue(ctx)
		}
	}
}

func (m *ContainerMonitor) retryDue(ctx context.Context) {
	now := time.Now()
	if !m.askAt.IsZero() && !now.Before(m.askAt) {
		m.askAt = now.Add(retryFirst)
		if list, err := m.cfg.Engine.List(ctx); err == nil {
			m.resync(ctx, list)
		}
	}
	var due []string
	for id, r := range m.retry {
		if !now.Before(r.at) {
			due = append(due, id)
		}
	}
	m.inspect(ctx, due)
}

// resync deals with the list of all containers there are.
func (m *ContainerMonitor) resync(ctx context.Context, all []docker.Summary) {
	m.mu.Lock()
	m.engine = nil
	m.mu.Unlock()
	if !m.knowEngine(ctx) {
		return
	}
	there := make(map[string]bool, len(all))
	var unknown []string
	for _, s := range all {
		there[s.ID] = true
		if c, ok := m.cfg.Cache.Get(s.ID); ok && c.Name == s.Name {
			if s.Running != c.Running {
				// It was started or has exited since: the times have changed.
				unknown = append(unknown, s.ID)
				continue
			}
			m.startContainerMonitoring(c)
			continue
		}
		unknown = append(unknown, s.ID)
	}
	m.inspect(ctx, unknown)
	// What was destroyed while nobody told us: while the agent or the engine
	// was down.
	for _, id := range append(m.cfg.Files.ids(), m.cfg.Saved.Keys()...) {
		if !there[id] {
			m.gone(id)
		}
	}
	m.mu.Lock()
	for id := range m.skipped {
		if !there[id] {
			delete(m.skipped, id)
		}
	}
	m.synced = true
	m.mu.Unlock()
	for id := range m.seen {
		if !there[id] {
			delete(m.seen, id)
		}
	}
	for id := range m.retry {
		if !there[id] {
			delete(m.retry, id)
		}
	}
}

// knowEngine asks the engine for its name and directory, without which nothing
// can be labelled. If it does not answer, both it and the list are asked for
// again soon.
func (m *ContainerMonitor) knowEngine(ctx context.Context) bool {
	if m.info.Name != "" {
		return true
	}
	info, err := m.cfg.Engine.Info(ctx)
	if err != nil {
		if m.askAt.IsZero() && ctx.Err() == nil {
			m.cfg.Logger.Warn("the Docker engine does not tell about itself; it will be asked again", "error", err)
		}
		m.askAt = time.Now().Add(retryFirst)
		return false
	}
	info.Name = cmp.Or(info.Name, "unknown")
	m.info, m.askAt = info, time.Time{}
	return true
}

// fileInfo says where a container's log is and how it is labelled.
func (m *ContainerMonitor) fileInfo(c docker.Container) ContainerLogFileInfo {
	dir := m.cfg.ContainersDir
	if dir == "" && c.LogPath == "" {
		dir = filepath.Join(m.info.RootDir, "containers")
	}
	info := fileInfoOf(dir, c)
	info.Host = cmp.Or(m.cfg.Host, m.info.Name)
	return info
}

// event deals with one event.
func (m *ContainerMonitor) event(ctx context.Context, e docker.Event) {
	if m.info.Name == "" {
		return // a list is asked for as soon as the engine answers
	}
	switch e.Action {
	case docker.ActionCreate, docker.ActionStart:
		// A container that is removed on exit may be gone before the answer
		// to a start comes; what the create brought is good enough then.
		m.inspect(ctx, []string{e.ID})
	case docker.ActionDie, docker.ActionStop:
		if c, ok := m.cfg.Cache.Get(e.ID); ok {
			c.Running = false
			m.cfg.Cache.Set(c)
		}
		if e.Action == docker.ActionDie {
			m.cfg.Files.containerExited(e.ID)
		}
	case docker.ActionRename:
		// The new name counts from the next start.
		m.cfg.Cache.Delete(e.ID)
	case docker.ActionDestroy:
		m.gone(e.ID)
	}
}

// gone forgets a container that is no more.
func (m *ContainerMonitor) gone(id string) {
	m.cfg.Cache.Delete(id)
	m.cfg.Files.containerRemoved(id)
	delete(m.seen, id)
	delete(m.retry, id)
	m.mu.Lock()
	delete(m.skipped, id)
	m.mu.Unlock()
}

// inspect asks the engine about containers and acts on the answers.
func (m *ContainerMonitor) inspect(ctx context.Context, ids []string) {
	inspectAll(ctx, m.cfg.Engine, ids, func(c docker.Container, err error) {
		switch {
		case err == nil:
			delete(m.retry, c.ID)
			m.cfg.Cache.Set(c)
			m.startContainerMonitoring(c)
		case ctx.Err() != nil:
		case errors.Is(err, docker.ErrNotFound):
			delete(m.retry, c.ID) // a destroy comes, or has come
		default:
			m.retryLater(c.ID, err)
		}
	})
}

func (m *ContainerMonitor) retryLater(id string, err error) {
	r := m.retry[id]
	if r == nil {
		r = &retrying{pause: retryFirst / 2}
		m.retry[id] = r
		m.cfg.Logger.Warn("container could not be inspected; it will be tried again", "container_id", shortID(id), "error", err)
	}
	r.pause = min(2*r.pause, retryMax)
	r.at = time.Now().Add(r.pause)
}

// startContainerMonitoring decides how a container's log is read and begins, or
// goes on, to read it.
func (m *ContainerMonitor) startContainerMonitoring(c docker.Container) {
	first := !m.seen[c.ID]
	m.seen[c.ID] = true
	if c.ID == m.cfg.SelfID && c.Labels[enableLabel] != "true" {
		if first {
			m.cfg.Logger.Info("the agent's own container is not captured", "container", c.Name, "to_capture_it", "label "+enableLabel+"=true")
		}
		return
	}
	if !slices.Contains(m.cfg.LogDrivers, c.Driver) {
		m.mu.Lock()
		m.skipped[c.ID] = c.Driver
		m.mu.Unlock()
		if first {
			m.cfg.Logger.Warn("container is not captured: its log driver keeps no file that can be read",
				"container", c.Name, "driver", c.Driver, "readable", m.cfg.LogDrivers)
		}
		return
	}
	if first {
		m.routing.WithLabelValues(driverName(c.Driver), MethodFileMonitor).Inc()
	}
	m.cfg.Files.add(m.fileInfo(c))
}

// driverName bounds the label: Docker's own drivers by name, plugins together.
func driverName(driver string) string {
	switch driver {
	case "json-file", "local", "journald", "syslog", "gelf", "fluentd", "awslogs", "splunk", "etwlogs", "gcplogs", "none":
		return driver
	}
	return "other"
}

// ContainerHealth is the state of the engine as the agent sees it, for /health.
type ContainerHealth struct {
	// Err says why the engine cannot be reached, since Since; nil if it can.
	Err   error
	Since time.Time
	// Synced is set once the first list of containers has been dealt with.
	Synced bool
	// NotCaptured counts containers without a readable file, by log driver.
	NotCaptured map[string]int
}

// Health gives the engine's state.
func (m *ContainerMonitor) Health() ContainerHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := ContainerHealth{Err: m.engine, Since: m.since, Synced: m.synced, NotCaptured: make(map[string]int)}
	for _, driver := range m.skipped {
		h.NotCaptured[driver]++
	}
	return h
}
