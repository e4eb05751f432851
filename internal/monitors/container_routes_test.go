package monitors

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
)

// with adds a container that differs from the usual one.
func (c *containers) with(id string, change func(*docker.Container)) {
	d := c.add(id)
	change(&d)
	c.engine.set(d)
}

// wantBreaks compares how many containers went away from their file, and came back.
func (c *containers) wantBreaks(away, back float64) {
	c.t.Helper()
	a, b := counterOf(c.t, c.cm.breaks.WithLabelValues(MethodStreaming)), counterOf(c.t, c.cm.breaks.WithLabelValues(MethodFileMonitor))
	if a != away || b != back {
		c.t.Errorf("%v went away and %v came back, want %v and %v", a, b, away, back)
	}
}

// status gives what is told of a container.
func (c *containers) status(id string) ContainerStatus {
	c.t.Helper()
	for _, s := range c.cm.Containers() {
		if s.ID == id {
			return s
		}
	}
	c.t.Fatalf("nothing is told of container %s", id)
	return ContainerStatus{}
}

// post does what others have left for the loop.
func (c *containers) post() {
	for calls := c.cm.posted.take(); len(calls) > 0; calls = c.cm.posted.take() {
		for _, f := range calls {
			f()
		}
	}
}

func TestContainerMonitorRoutes(t *testing.T) {
	c := newContainers(t, nil)
	c.add("file")
	c.with("local", func(d *docker.Container) { d.Driver = "local" })
	c.with("none", func(d *docker.Container) { d.Driver = "none" })
	c.with("plugin", func(d *docker.Container) { d.Driver = "vendor/plugin:latest" })
	c.resync()
	for id, want := range map[string]string{
		"file": MethodFileMonitor, "local": MethodStreaming, "none": "none", "plugin": MethodStreaming,
	} {
		if s := c.status(id); s.Method != want || s.Reason == "" {
			t.Errorf("%s: %s, %q", id, s.Method, s.Reason)
		}
	}
	if got := c.streams.ids(); len(got) != 2 || !slices.Contains(got, "local") {
		t.Errorf("streamed: %q", got)
	}
	if h := c.cm.Health(); len(h.NotCaptured) != 1 || h.NotCaptured["none"] != 1 {
		t.Errorf("%+v", h)
	}
	if n := metric(t, c.reg, "routing_decision_total"); n != 3 {
		t.Errorf("%v decisions", n)
	}
	if n := counterOf(t, c.cm.routing.WithLabelValues("other", MethodStreaming)); n != 1 {
		t.Errorf("%v decisions for plugins", n)
	}
	// The file of one that is streamed is nobody's business.
	c.event(docker.ActionDie, "local")
	if s := c.status("local"); s.Running {
		t.Error("it runs")
	}
	c.engine.remove("local")
	c.event(docker.ActionDestroy, "local")
	if got := c.streams.ids(); len(got) != 1 {
		t.Errorf("streamed: %q", got)
	}
}

func TestContainerMonitorSelection(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) {
		cfg.Selection.Exclude = []Rule{{Field: "name", Pattern: "secret*"}}
	})
	c.add("web")
	c.write("web", jsonEntry("stdout", "zero\n", at(0)))
	c.with("shy", func(d *docker.Container) { d.Labels = map[string]string{"log_capturer.enable": "false"} })
	c.add("secret-1")
	c.resync()
	if got := c.monitored(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("%q", got)
	}
	if h := c.cm.Health(); h.Excluded != 2 || len(h.NotCaptured) != 0 {
		t.Errorf("%+v", h)
	}
	if e, n := metric(t, c.reg, "containers_excluded"), metric(t, c.reg, "containers_not_captured"); e != 2 || n != 0 {
		t.Errorf("%v excluded, %v not captured", e, n)
	}
	if s := c.status("secret-1"); s.Method != "none" || s.Reason != "excluded by name=secret*" {
		t.Errorf("%s, %q", s.Method, s.Reason)
	}
	// A rename counts from the next start.
	c.with("web", func(d *docker.Container) { d.Name = "secret-2" })
	c.event(docker.ActionRename, "web")
	c.resync()
	c.write("web", jsonEntry("stdout", "one\n", at(1)))
	if got := texts(c.work()); !slices.Equal(got, []string{"zero", "one"}) {
		t.Errorf("%q", got)
	}
	if s := c.status("web"); s.Name != "web" || s.Method != MethodFileMonitor {
		t.Errorf("%s, %s", s.Name, s.Method)
	}
	// What it wrote before is still read, but nothing behind it, though the reader
	// comes to both at once.
	c.write("web", jsonEntry("stdout", "two\n", at(2)), jsonEntry("stderr", "half", at(3)))
	c.event(docker.ActionDie, "web")
	c.with("web", func(d *docker.Container) { d.Name, d.StartedAt, d.FinishedAt = "secret-2", at(20), at(10) })
	c.event(docker.ActionStart, "web")
	c.write("web", jsonEntry("stdout", "hush\n", at(21)), jsonEntry("stderr", "hush\n", at(22)))
	c.resync()
	lines := c.work()
	if got := texts(lines); !slices.Equal(got, []string{"two", "half"}) || lines[0].name != "web" {
		t.Errorf("%+v", lines)
	}
	c.write("web", jsonEntry("stdout", "hush\n", at(23)))
	c.resync()
	c.m.poll()
	if got := c.work(); len(got) != 0 || len(c.monitored()) != 0 {
		t.Errorf("%+v, %q", got, c.monitored())
	}
	if s := c.status("web"); s.Method != "none" {
		t.Errorf("%s", s.Method)
	}
}

// A whole run of which nobody has told.
func TestContainerMonitorRunUnseen(t *testing.T) {
	c := newContainers(t, nil)
	exited := func(start, end time.Time) func(d *docker.Container) {
		return func(d *docker.Container) {
			d.Driver, d.Running, d.Status, d.StartedAt, d.FinishedAt = "local", false, "exited", start, end
		}
	}
	c.with("a", exited(t0, at(5)))
	c.resync()
	exits := func() int {
		c.streams.mu.Lock()
		defer c.streams.mu.Unlock()
		return c.streams.logs["a"].exits
	}
	c.resync()
	if n := exits(); n != 1 {
		t.Errorf("%d exits", n)
	}
	c.with("a", exited(at(10), at(15)))
	c.resync()
	if n := exits(); n != 2 {
		t.Errorf("%d exits", n)
	}
}

// A container whose file cannot be read is streamed, and comes back.
func TestContainerMonitorBreaker(t *testing.T) {
	c := newContainers(t, nil)
	c.m.cfg.Access = func(id string, err error) { c.cm.FileAccess(id, err) }
	c.add("a")
	c.write("a", jsonEntry("stdout", "one\n", at(1)))
	c.resync()
	c.ack(c.work())
	// The directory is gone, as after an unmount, while the container runs.
	dir, away := filepath.Join(c.dir, "a"), filepath.Join(c.dir, "away")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		c.m.poll()
		c.work()
		c.post()
		c.due("a")
	}
	s := c.status("a")
	if s.Method != MethodStreaming || s.Reason != reasonUnreadable || !slices.Contains(c.streams.ids(), "a") || len(c.monitored()) != 0 {
		t.Fatalf("%s, %q, streamed: %q", s.Method, s.Reason, c.streams.ids())
	}
	if s.Err == nil || !strings.Contains(s.Err.Error(), "does not exist") {
		t.Errorf("the reason is not told: %v", s.Err)
	}
	if h := c.cm.Health(); h.Broken != 1 || h.BrokenBy == nil || !strings.Contains(h.BrokenBy.Error(), "does not exist") {
		t.Errorf("%+v", h)
	}
	if n := metric(t, c.reg, "breaker_open"); n != 1 {
		t.Errorf("%v open", n)
	}
	// Looks at the list change nothing, nor do probes in vain.
	c.resync()
	c.cm.probe(time.Now().Add(time.Hour))
	if s := c.status("a"); s.Method != MethodStreaming {
		t.Errorf("%s", s.Method)
	}
	// What it wrote meanwhile was streamed.
	at2 := entry.Position{Time: at(2).UnixNano(), Ordinal: 1}
	c.store.Register("a", "", [2]entry.Position{at2, at2})
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	c.write("a", jsonEntry("stdout", "two\n", at(2)), jsonEntry("stdout", "three\n", at(3)))
	c.cm.probe(time.Now().Add(2 * time.Hour))
	c.post()
	if s := c.status("a"); s.Method != MethodFileMonitor || len(c.streams.ids()) != 0 {
		t.Fatalf("%s, streamed: %q", s.Method, c.streams.ids())
	}
	if got := texts(c.work()); !slices.Equal(got, []string{"three"}) {
		t.Errorf("%q", got)
	}
	if h := c.cm.Health(); h.Broken != 0 || h.BrokenBy != nil {
		t.Errorf("%+v", h)
	}
	c.wantBreaks(1, 1)
	if n := metric(t, c.reg, "breaker_open"); n != 0 {
		t.Errorf("%v are open", n)
	}
	if s := c.status("a"); s.Stats.Read.Load() != 2 {
		t.Errorf("%d lines in all", s.Stats.Read.Load())
	}
}

// due lets a log that has failed be tried again by the next poll.
func (c *containers) due(id string) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if lg := c.m.logs[id]; lg != nil {
		lg.retryAt = time.Time{}
	}
}

// A directory that cannot be read is one problem, known before any file is tried.
func TestContainerMonitorNoDirectory(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) { cfg.ContainersDir = "/nowhere/containers" })
	for _, id := range []string{"a", "b", "c"} {
		c.add(id)
	}
	c.with("local", func(d *docker.Container) { d.Driver = "local" })
	c.resync()
	if got := len(c.streams.ids()); got != 4 || len(c.monitored()) != 0 {
		t.Errorf("%d streamed, %q monitored", got, c.monitored())
	}
	h := c.cm.Health()
	if h.Broken != 3 || h.DirErr == nil || !strings.Contains(h.DirErr.Error(), "mount Docker's directory") {
		t.Errorf("%+v", h)
	}
	// Without streaming they stay on their road, and are tried again.
	c = newContainers(t, func(cfg *ContainerMonitorConfig) {
		cfg.ContainersDir, cfg.Routing.Fallback = "/nowhere/containers", false
	})
	c.add("a")
	c.resync()
	if got := c.monitored(); len(got) != 1 || c.cm.Health().Broken != 0 || c.cm.Health().DirErr == nil {
		t.Errorf("%q, %+v", got, c.cm.Health())
	}
}

// One that goes while it is on its way from its stream to its file.
func TestContainerMonitorGoneWhileMoving(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) { cfg.ContainersDir = "/nowhere/containers" })
	c.add("a")
	c.resync()
	c.store.Register("a", "", [2]entry.Position{})
	c.cm.mu.Lock()
	r := c.cm.routes["a"]
	c.cm.mu.Unlock()
	r.breaker = breaker{}
	c.cm.takeRoute(r)
	if !r.moving {
		t.Fatal("not on its way")
	}
	c.engine.remove("a")
	c.event(docker.ActionDestroy, "a")
	c.post()
	if keys := c.store.Keys(); len(keys) != 0 || len(c.monitored()) != 0 || len(c.streams.ids()) != 0 {
		t.Errorf("%q, %q, %q", keys, c.monitored(), c.streams.ids())
	}
}
