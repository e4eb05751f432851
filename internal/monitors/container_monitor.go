package monitors

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
)

// enableLabel is the container label by which a container says whether it wants
// to be captured; the agent's own must say so.
const enableLabel = "log_capturer.enable"

// Pauses between tries to learn about a container.
const (
	retryFirst = 500 * time.Millisecond
	retryMax   = 30 * time.Second
)

// directoryEvery is how often a directory that cannot be read is looked at again.
const directoryEvery = 10 * time.Second

// EngineWatcher follows the containers of a Docker engine.
type EngineWatcher interface {
	Engine
	Info(ctx context.Context) (docker.Info, error)
	Watch(ctx context.Context, w docker.Watcher) error
}

// ContainerMonitorConfig is what a ContainerMonitor is made of.
type ContainerMonitorConfig struct {
	Engine  EngineWatcher
	Files   *FileMonitor
	Streams *StreamMonitor
	Cache   *ContainerMetadataCache
	// Saved knows for which containers there are positions.
	Saved interface {
		Keys() []string
		Lookup(key string) (positions.Saved, bool)
	}
	// Routing says which road a container takes, Selection which ones are
	// captured at all.
	Routing   RoutingConfig
	Selection Selection
	// ContainersDir is where this process sees the engine's directory of
	// containers; empty: where the engine sees it.
	ContainersDir string
	// Host is the value of the label host; empty: the engine's name.
	Host string
	// Self is the container that the agent itself runs in.
	Self Self

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// ContainerMonitor follows the engine and decides for each container how its
// log is read.
type ContainerMonitor struct {
	cfg     ContainerMonitorConfig
	routing *prometheus.CounterVec
	breaks  *prometheus.CounterVec
	unseen  prometheus.Counter

	// Owned by the goroutine of loop.
	retry map[string]*retrying // containers that could not be inspected
	info  docker.Info          // what the engine says of itself
	// dirAt is when to look again at a directory that cannot be read; zero: it
	// can.
	dirAt time.Time

	posted mailbox // what others have for the loop to do

	// mu guards what follows. The loop alone changes routes and what they hold.
	mu     sync.Mutex
	engine error     // why the engine cannot be reached; nil if it can
	since  time.Time // of engine
	synced bool      // a list has been dealt with
	routes map[string]*containerRoute
	dirErr error // why the directory of containers cannot be read; nil if it can
}

type retrying struct {
	at    time.Time
	pause time.Duration
}

// containerRoute is how a container's log is read.
type containerRoute struct {
	info ContainerLogFileInfo // as it was told last
	// name is that of the container's latest start, which selection goes by.
	name     string
	excluded string // why it is not to be captured; empty if it is
	route    Route
	reason   string
	// decided: route has been decided once.
	decided bool
	breaker breaker
	broken  error // why the breaker has opened
	// moving: it is on its way from its stream to its file.
	moving bool
}

// NewContainerMonitor makes a ContainerMonitor. It starts nothing.
func NewContainerMonitor(cfg ContainerMonitorConfig) (*ContainerMonitor, error) {
	if err := CheckLogDrivers(cfg.Routing.LogDrivers); err != nil {
		return nil, err
	}
	m := &ContainerMonitor{
		cfg: cfg,
		routing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_routing_decision_total",
			Help: "Decisions how a container's log is read, by log driver and method.",
		}, []string{"driver", "method"}),
		breaks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_breaker_changes_total",
			Help: "Containers that went to streaming because their file could not be read, and that came back to it.",
		}, []string{"to"}),
		unseen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_containers_removed_unseen_total",
			Help: "Containers that were removed while the agent was down: what they had written since it stopped is lost.",
		}),
		retry:  make(map[string]*retrying),
		posted: mailbox{signal: make(chan struct{}, 1)},
		routes: make(map[string]*containerRoute),
		since:  time.Now(),
		engine: errors.New("not connected yet"),
	}
	for _, to := range []string{MethodFileMonitor, MethodStreaming} {
		m.breaks.WithLabelValues(to)
	}
	gauge := func(name, help string, f func(ContainerHealth) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "log_capturer_" + name, Help: help},
			func() float64 { return float64(f(m.Health())) })
	}
	cfg.Registerer.MustRegister(m.routing, m.breaks, m.unseen,
		gauge("containers_not_captured", "Containers whose logs cannot be read as the agent is configured.", func(h ContainerHealth) (n int) {
			for _, of := range h.NotCaptured {
				n += of
			}
			return n
		}),
		gauge("containers_excluded", "Containers that are not to be captured: by include, exclude, or their own label.", func(h ContainerHealth) int { return h.Excluded }),
		gauge("breaker_open", "Containers that are streamed because their file cannot be read.", func(h ContainerHealth) int { return h.Broken }),
	)
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
		if at := m.nextProbe(); !at.IsZero() && at.Before(next) {
			next = at
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return nil
		case f := <-inbox.calls:
			f(ctx)
		case <-m.posted.signal:
			for _, f := range m.posted.take() {
				f()
			}
		case <-timer.C:
			m.retryDue(ctx)
			m.probe(time.Now())
		}
	}
}

func (m *ContainerMonitor) retryDue(ctx context.Context) {
	now := time.Now()
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
	m.checkDirectory(len(all) > 0)
	there := make(map[string]bool, len(all))
	var unknown []string
	for _, s := range all {
		there[s.ID] = true
		if c, ok := m.cfg.Cache.Get(s.ID); ok && c.Name == s.Name {
			if s.Running != c.Running || !s.Running && m.streamed(s.ID) {
				// It was started or has exited since, or perhaps both: the times
				// have changed. In a file that would be seen.
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
	saved := m.cfg.Saved.Keys()
	m.countUnseen(saved, there)
	for _, id := range slices.Concat(m.known(), saved) {
		if !there[id] {
			m.gone(id)
		}
	}
	for id := range m.retry {
		if !there[id] {
			delete(m.retry, id)
		}
	}
	m.mu.Lock()
	m.synced = true
	m.mu.Unlock()
}

// countUnseen counts, at the first list, the containers with a saved position that
// are no more: whether they had written anything behind it, nobody can tell.
func (m *ContainerMonitor) countUnseen(saved []string, there map[string]bool) {
	m.mu.Lock()
	first := !m.synced
	m.mu.Unlock()
	if !first {
		return // saved are also those of which the last lines are on their way
	}
	n := 0
	for _, id := range saved {
		if !there[id] {
			n++
		}
	}
	if n > 0 {
		m.unseen.Add(float64(n))
		m.cfg.Logger.Info("containers were removed while the agent was down: what they had written since it stopped is lost", "containers", n)
	}
}

// streamed reports whether a container's log is streamed.
func (m *ContainerMonitor) streamed(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.routes[id]
	return r != nil && r.route == routeStream
}

// known gives the containers that have been met.
func (m *ContainerMonitor) known() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := slices.Collect(maps.Keys(m.routes))
	for _, road := range [][]string{m.cfg.Files.ids(), m.cfg.Streams.ids()} {
		ids = append(ids, road...) // they may be at the rest of a log that is no more
	}
	return ids
}

// knowEngine asks the engine for its name and directory, without which nothing
// can be labelled, until it answers. What it tells meanwhile waits. It is false
// if ctx has ended.
func (m *ContainerMonitor) knowEngine(ctx context.Context) bool {
	for pause := retryFirst; m.info.Name == ""; pause = min(2*pause, retryMax) {
		info, err := m.cfg.Engine.Info(ctx)
		if err == nil {
			info.Name = cmp.Or(info.Name, "unknown")
			m.info = info
			break
		}
		if pause == retryFirst && ctx.Err() == nil {
			m.cfg.Logger.Warn("the Docker engine does not tell about itself; it will be asked again", "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	return true
}

// containersDir is where this process sees the containers' directories.
func (m *ContainerMonitor) containersDir() string {
	return containersDirOf(m.cfg.ContainersDir, m.info.RootDir)
}

// fileInfo says where a container's log is and how it is labelled.
func (m *ContainerMonitor) fileInfo(c docker.Container) ContainerLogFileInfo {
	info := fileInfoFor(m.cfg.ContainersDir, m.info.RootDir, c)
	info.Host = cmp.Or(m.cfg.Host, m.info.Name)
	return info
}

// event deals with one event. A list, before which nothing is dealt with until the
// engine is known, has always come first.
func (m *ContainerMonitor) event(ctx context.Context, e docker.Event) {
	switch e.Action {
	case docker.ActionCreate, docker.ActionStart:
		// A container that is removed on exit may be gone before the answer
		// to a start comes; what the create brought is good enough then.
		m.inspect(ctx, []string{e.ID})
	case docker.ActionDie, docker.ActionStop:
		if m.stale(e) {
			return
		}
		if c, ok := m.cfg.Cache.Get(e.ID); ok {
			c.Running = false
			m.cfg.Cache.Set(c)
		}
		if e.Action == docker.ActionDie {
			m.exited(e.ID)
		}
	case docker.ActionRename:
		// The new name counts from the next start.
		m.cfg.Cache.Delete(e.ID)
	case docker.ActionDestroy:
		m.gone(e.ID)
	}
}

// stale reports whether an event is of a run before the one that is known: the
// container was inspected when it had been started again.
func (m *ContainerMonitor) stale(e docker.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.routes[e.ID]
	return r != nil && !e.Time.IsZero() && e.Time.Before(r.info.StartedAt)
}

// exited says that a container runs no more.
func (m *ContainerMonitor) exited(id string) {
	m.mu.Lock()
	if r := m.routes[id]; r != nil {
		r.info.Running = false
	}
	m.mu.Unlock()
	m.cfg.Files.containerExited(id)
	m.cfg.Streams.containerExited(id)
}

// gone forgets a container that is no more.
func (m *ContainerMonitor) gone(id string) {
	m.cfg.Cache.Delete(id)
	delete(m.retry, id)
	m.mu.Lock()
	delete(m.routes, id)
	m.mu.Unlock()
	if !m.cfg.Streams.containerRemoved(id) {
		m.cfg.Files.containerRemoved(id)
	}
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
// goes on, to read it: at each start, and at each look at the list.
func (m *ContainerMonitor) startContainerMonitoring(c docker.Container) {
	info := m.fileInfo(c)
	m.mu.Lock()
	r := m.routes[c.ID]
	if r == nil {
		r = &containerRoute{}
		info.stats = &entry.Stats{}
		m.routes[c.ID] = r
	} else {
		info.stats = r.info.stats
	}
	// A rename counts from the next start.
	again := !r.decided || r.info.StartedAt.Before(info.StartedAt)
	first := !r.decided
	r.info = info
	m.mu.Unlock()
	if again {
		m.selectContainer(r)
	}
	if first && r.excluded == "" && m.dirErr != nil && m.cfg.Routing.fallsBack() && slices.Contains(m.cfg.Routing.LogDrivers, c.Driver) {
		m.mu.Lock()
		r.broken = m.dirErr
		r.breaker.openNow(time.Now())
		m.mu.Unlock()
		m.breaks.WithLabelValues(MethodStreaming).Inc()
	}
	m.takeRoute(r)
}

// selectContainer decides whether a container is captured at all.
func (m *ContainerMonitor) selectContainer(r *containerRoute) {
	c := r.info
	saved, _ := m.cfg.Saved.Lookup(c.ID)
	name := namesOf(c, saved.Note).name
	reason := m.cfg.Selection.excludes(name, c, m.cfg.Self)
	m.mu.Lock()
	defer m.mu.Unlock()
	r.name, r.excluded = name, reason
}

// takeRoute lets a container's log be read on the road that is right for it now.
func (m *ContainerMonitor) takeRoute(r *containerRoute) {
	route, reason := decideRoute(m.cfg.Routing, r.info.Driver, !r.breaker.isOpen())
	if r.excluded != "" {
		route, reason = routeNone, r.excluded
	}
	before, decided := r.route, r.decided
	if r.moving {
		return // moved comes here again
	}
	if route == routeStream && !m.cfg.Files.release(r.info.ID) {
		return // it is being read after all
	}
	m.mu.Lock()
	r.route, r.reason, r.decided = route, reason, true
	// It may still be at the rest of an excluded container's log.
	r.moving = route == routeFile && m.cfg.Streams.has(r.info.ID)
	moving := r.moving
	m.mu.Unlock()
	if !decided || route != before {
		m.routed(r)
	}
	switch {
	case route == routeNone:
		m.cfg.Files.exclude(r.info)
		m.cfg.Streams.exclude(r.info)
	case moving:
		m.cfg.Streams.release(r.info.ID, func() { m.posted.post(func() { m.moved(r) }) })
	case route == routeFile:
		m.addContainerLogFile(r.info)
	case route == routeStream:
		m.monitorContainerStream(r.info)
	}
}

// moved goes on with a container whose stream has come to its end, so that its
// file can be read.
func (m *ContainerMonitor) moved(r *containerRoute) {
	m.mu.Lock()
	r.moving = false
	there := m.routes[r.info.ID] == r
	m.mu.Unlock()
	if !there {
		m.cfg.Files.containerRemoved(r.info.ID)
		return
	}
	m.takeRoute(r)
}

// addContainerLogFile lets a container's log be read from its file.
func (m *ContainerMonitor) addContainerLogFile(info ContainerLogFileInfo) { m.cfg.Files.add(info) }

// monitorContainerStream lets a container's log be read through the Docker API.
func (m *ContainerMonitor) monitorContainerStream(info ContainerLogFileInfo) { m.cfg.Streams.add(info) }

// routed counts a decision, and says what an operator may not expect.
func (m *ContainerMonitor) routed(r *containerRoute) {
	switch {
	case r.excluded != "":
		m.cfg.Logger.Info("container is not captured", "container", r.name, "reason", r.excluded)
		return
	case r.route == routeNone && r.info.Driver != driverNone:
		m.cfg.Logger.Warn("container is not captured", "container", r.name, "driver", r.info.Driver, "reason", r.reason)
		return
	case r.route == routeNone:
		return
	}
	m.routing.WithLabelValues(driverName(r.info.Driver), r.route.method()).Inc()
}

// FileAccess says that a container's file could not be read, or, with nil, that
// it can be again. It may be called from any goroutine and does not block.
func (m *ContainerMonitor) FileAccess(id string, err error) {
	m.posted.post(func() { m.fileAccess(id, err) })
}

func (m *ContainerMonitor) fileAccess(id string, err error) {
	m.mu.Lock()
	r := m.routes[id]
	m.mu.Unlock()
	if r == nil || r.route != routeFile {
		return
	}
	opened := false
	m.mu.Lock()
	switch {
	case err == nil:
		r.breaker.succeed()
	case m.cfg.Routing.fallsBack(): // else it is tried again by itself
		opened = r.breaker.fail(time.Now())
	}
	m.mu.Unlock()
	switch {
	case opened:
		m.broken(r, err)
	case err == nil && m.dirErr != nil:
		m.checkDirectory(true)
	}
}

// broken lets a container be streamed whose breaker has opened.
func (m *ContainerMonitor) broken(r *containerRoute, err error) {
	m.checkDirectory(true)
	m.mu.Lock()
	r.broken = err
	dir := m.dirErr != nil
	m.mu.Unlock()
	m.takeRoute(r)
	if r.route != routeStream {
		// It is being read after all.
		m.mu.Lock()
		r.broken, r.breaker = nil, breaker{}
		m.mu.Unlock()
		return
	}
	m.breaks.WithLabelValues(MethodStreaming).Inc()
	level := slog.LevelWarn
	if dir {
		level = slog.LevelDebug // said of all together
	}
	m.cfg.Logger.Log(context.Background(), level, "log file cannot be read: the container is streamed through the Docker API until it can be",
		"container", r.name, "error", err)
}

// checkDirectory finds out whether the directory of containers can be read, which
// is not empty if there are containers. If it cannot, that is one problem, and
// who is met then is streamed at once; who is on the file's road comes to it by
// its own failures.
func (m *ContainerMonitor) checkDirectory(containers bool) {
	if !m.cfg.Routing.Files {
		return
	}
	m.dirAt = time.Time{}
	err := checkContainersDir(m.containersDir(), containers)
	m.mu.Lock()
	before := m.dirErr
	m.dirErr = err
	m.mu.Unlock()
	if err != nil {
		m.dirAt = time.Now().Add(directoryEvery)
	}
	switch {
	case !m.cfg.Routing.fallsBack(): // the first log that cannot be read says it
	case err != nil && before == nil:
		m.cfg.Logger.Error("the directory of Docker's containers cannot be read: all logs are streamed through the Docker API until it can be", "error", err)
	case err == nil && before != nil:
		m.cfg.Logger.Info("the directory of Docker's containers can be read again")
	}
}

// nextProbe is when the file of a container that is streamed instead, or the
// directory, is to be tried next; zero: there is none.
func (m *ContainerMonitor) nextProbe() (next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next = m.dirAt
	for _, r := range m.routes {
		if at := r.breaker.probeAt(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// probe tries the files that are due, all of them if the directory can be read
// again, and lets those that can be read come back.
func (m *ContainerMonitor) probe(now time.Time) {
	if at := m.nextProbe(); at.IsZero() || now.Before(at) {
		return
	}
	before := m.dirErr
	m.checkDirectory(true)
	m.mu.Lock()
	all := before != nil && m.dirErr == nil
	var due []*containerRoute
	for _, r := range m.routes {
		if at := r.breaker.probeAt(); !at.IsZero() && (all || !now.Before(at)) {
			due = append(due, r)
		}
	}
	m.mu.Unlock()
	for _, r := range due {
		err := m.dirErr
		if err == nil {
			err = tryLog(r.info.LogPath)
		}
		m.mu.Lock()
		closed := r.breaker.probed(now, err == nil)
		if closed {
			r.broken = nil
		} else {
			r.broken = err
		}
		m.mu.Unlock()
		if closed {
			m.breaks.WithLabelValues(MethodFileMonitor).Inc()
			m.cfg.Logger.Info("log file can be read again: the container comes back from streaming", "container", r.name)
			m.takeRoute(r)
		}
	}
}

// driverName bounds the label: Docker's own drivers by name, plugins together.
func driverName(driver string) string {
	switch driver {
	case "json-file", "local", "journald", "syslog", "gelf", "fluentd", "awslogs", "splunk", "etwlogs", "gcplogs", "none":
		return driver
	}
	return "other"
}

// ContainerHealth is the state of the engine and of the routes as the agent sees
// them, for /health.
type ContainerHealth struct {
	// Err says why the engine cannot be reached, since Since; nil if it can.
	Err   error
	Since time.Time
	// Synced is set once the first list of containers has been dealt with.
	Synced bool
	// NotCaptured counts containers whose logs cannot be read, by log driver;
	// those with driver none have none.
	NotCaptured map[string]int
	// Excluded counts containers that are not to be captured.
	Excluded int
	// DirErr is why the directory of containers cannot be read; nil if it can.
	DirErr error
	// Broken counts the containers that are streamed because their file cannot
	// be read, and BrokenBy is why one of them is.
	Broken   int
	BrokenBy error
}

// Health gives the engine's state.
func (m *ContainerMonitor) Health() ContainerHealth {
	noLog := m.cfg.Streams.noLog()
	m.mu.Lock()
	defer m.mu.Unlock()
	h := ContainerHealth{Err: m.engine, Since: m.since, Synced: m.synced, NotCaptured: make(map[string]int), DirErr: m.dirErr}
	for id, r := range m.routes {
		switch {
		case r.excluded != "":
			h.Excluded++
		case r.decided && r.route == routeNone, noLog[id]:
			h.NotCaptured[r.info.Driver]++
		}
		if r.breaker.isOpen() && r.route == routeStream {
			h.Broken++
			h.BrokenBy = cmp.Or(h.BrokenBy, r.broken)
		}
	}
	return h
}

// ContainerStatus is how a container's log is read.
type ContainerStatus struct {
	ContainerLogFileInfo
	Method, Reason string
	// Delivered is how far the store has taken each stream.
	Delivered [entry.NumStreams]entry.Position
	// Lag is for how long there has been something that is not read, UnreadBytes
	// how much that is, of files only.
	Lag         time.Duration
	UnreadBytes int64
	// Stats are the container's lines since the agent's start.
	Stats *entry.Stats
	// Errors counts failures to read the log since then, LastErr is the last one.
	Errors    int64
	LastErr   error
	LastErrAt time.Time
}

// Containers tells of every container that the engine has, in no order.
func (m *ContainerMonitor) Containers() []ContainerStatus {
	m.mu.Lock()
	all := make([]ContainerStatus, 0, len(m.routes))
	for _, r := range m.routes {
		if !r.decided {
			continue
		}
		info := r.info
		info.Name, info.Err = r.name, r.broken
		all = append(all, ContainerStatus{ContainerLogFileInfo: info, Method: r.route.method(), Reason: r.reason, Stats: info.stats})
	}
	m.mu.Unlock()
	now := time.Now()
	for i := range all {
		c := &all[i]
		var st logStatus
		switch c.Method {
		case MethodFileMonitor:
			st, _ = m.cfg.Files.status(c.ID, now)
		case MethodStreaming:
			if st, _ = m.cfg.Streams.status(c.ID, now); st.noLog {
				c.Method, c.Reason = routeNone.method(), noLogReason
			}
		}
		c.Lag, c.UnreadBytes, c.Errors, c.LastErr, c.LastErrAt = st.lag, st.unreadBytes, st.errors, st.lastErr, st.lastErrAt
		if saved, known := m.cfg.Saved.Lookup(c.ID); known {
			c.Delivered = saved.Positions
		}
	}
	return all
}

// Counters gives the counters of all containers, in any order. Unlike Containers it
// looks at no file.
func (m *ContainerMonitor) Counters() []*entry.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*entry.Stats, 0, len(m.routes))
	for _, r := range m.routes {
		if r.decided {
			all = append(all, r.info.stats)
		}
	}
	return all
}

// Stats gives a container's counters; nil if it is not known.
func (m *ContainerMonitor) Stats(id string) *entry.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.routes[id]; r != nil {
		return r.info.stats
	}
	return nil
}

// mailbox takes what a loop is to do from others, who do not wait for it.
type mailbox struct {
	signal chan struct{} // has room for one: there is something

	mu    sync.Mutex
	calls []func()
}

func (b *mailbox) post(f func()) {
	b.mu.Lock()
	b.calls = append(b.calls, f)
	b.mu.Unlock()
	tell(b.signal)
}

func (b *mailbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls = nil
	return calls
}
