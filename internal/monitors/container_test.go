package monitors

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
)

// fakeEngine is a Docker engine with containers that a test sets.
type fakeEngine struct {
	mu         sync.Mutex
	containers map[string]docker.Container
	order      []string
	info       docker.Info
	infoErr    error
	listErr    error
	broken     map[string]error // by container: what an inspection gives
	inspected  map[string]int

	watching chan docker.Watcher // given to whoever tells events
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		containers: make(map[string]docker.Container), broken: make(map[string]error), inspected: make(map[string]int),
		info: docker.Info{Name: "engine-host", RootDir: "/nowhere"}, watching: make(chan docker.Watcher, 1),
	}
}

func (e *fakeEngine) set(c docker.Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.containers[c.ID]; !ok {
		e.order = append(e.order, c.ID)
	}
	e.containers[c.ID] = c
}

func (e *fakeEngine) remove(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.containers, id)
	e.order = slices.DeleteFunc(e.order, func(o string) bool { return o == id })
}

func (e *fakeEngine) fail(id string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken[id] = err
}

func (e *fakeEngine) inspections(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inspected[id]
}

func (e *fakeEngine) Inspect(_ context.Context, id string) (docker.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inspected[id]++
	if err := e.broken[id]; err != nil {
		return docker.Container{}, err
	}
	c, ok := e.containers[id]
	if !ok {
		return docker.Container{}, docker.ErrNotFound
	}
	return c, nil
}

func (e *fakeEngine) List(context.Context) ([]docker.Summary, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listErr != nil {
		return nil, e.listErr
	}
	return e.summaries(), nil
}

func (e *fakeEngine) summaries() (all []docker.Summary) {
	for _, id := range e.order {
		c := e.containers[id]
		all = append(all, docker.Summary{ID: c.ID, Name: c.Name, Image: c.Image, Labels: c.Labels, Status: c.Status, Running: c.Running, Created: c.Created})
	}
	return all
}

func (e *fakeEngine) Info(context.Context) (docker.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.info, e.infoErr
}

func (e *fakeEngine) Watch(ctx context.Context, w docker.Watcher) error {
	e.watching <- w
	<-ctx.Done()
	return nil
}

func TestDiscoverContainerLogFiles(t *testing.T) {
	dir := t.TempDir()
	e := newFakeEngine()
	file := func(id, content string) string {
		if err := os.MkdirAll(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, id, id+"-json.log")
		if content != "" {
			appendTo(t, path, content)
		}
		return path
	}
	e.set(docker.Container{ID: "b", Name: "b-running", Driver: "json-file", Running: true, Image: "app:1", Labels: map[string]string{"k": "v"},
		LogPath: file("b", "x\n"), Created: at(1), StartedAt: at(2), FinishedAt: at(3)})
	e.set(docker.Container{ID: "a", Name: "a-exited", Driver: "json-file", LogPath: file("a", "x\n"), Status: "exited"})
	e.set(docker.Container{ID: "c", Name: "c-missing", Driver: "json-file", LogPath: file("c", ""), Running: true})
	e.set(docker.Container{ID: "d", Name: "d-created", Driver: "json-file", Status: "created"})
	link := file("e", "")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	e.set(docker.Container{ID: "e", Name: "e-link", Driver: "json-file", LogPath: link, Running: true})
	e.set(docker.Container{ID: "x", Name: "x-local", Driver: "local", Running: true})
	e.set(docker.Container{ID: "v", Name: "v-vanished", Driver: "json-file", Running: true})
	e.fail("v", docker.ErrNotFound)

	infos, err := DiscoverContainerLogFiles(t.Context(), e, []string{"json-file"}, "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	if want := []string{"a-exited", "b-running", "c-missing", "d-created", "e-link"}; !reflect.DeepEqual(names, want) {
		t.Fatalf("got %q, want %q", names, want)
	}
	if i := infos[0]; i.Running || i.Err != nil {
		t.Errorf("exited container: %+v", i)
	}
	if i := infos[1]; !i.Running || i.Err != nil || i.Driver != "json-file" || i.LogPath != filepath.Join(dir, "b", "b-json.log") ||
		i.Image != "app:1" || i.Labels["k"] != "v" || !i.Created.Equal(at(1)) || !i.StartedAt.Equal(at(2)) || !i.FinishedAt.Equal(at(3)) {
		t.Errorf("running container: %+v", i)
	}
	if i := infos[2]; !errors.Is(i.Err, fs.ErrNotExist) {
		t.Errorf("missing log: %v", i.Err)
	}
	if i := infos[3]; !i.Running || i.LogPath != "" || !errors.Is(i.Err, fs.ErrNotExist) {
		t.Errorf("container that was never started: %+v", i)
	}
	if infos[4].Err == nil {
		t.Error("a symbolic link is read as a log")
	}

	// Where the engine's directory is mounted, its own path means nothing.
	infos, err = DiscoverContainerLogFiles(t.Context(), e, []string{"json-file"}, "/elsewhere")
	if err != nil || infos[1].LogPath != "/elsewhere/b/b-json.log" || !strings.Contains(infos[1].Err.Error(), "mount") {
		t.Errorf("%v, %+v", err, infos[1])
	}

	if _, err := DiscoverContainerLogFiles(t.Context(), e, []string{"json-file", "local"}, ""); err == nil {
		t.Error("a driver whose files are not read is accepted")
	}
	broken := errors.New("engine on fire")
	e.fail("a", broken)
	infos, err = DiscoverContainerLogFiles(t.Context(), e, []string{"json-file"}, "")
	if !errors.Is(err, broken) || len(infos) != 4 {
		t.Errorf("%v, %d logs: one that cannot be inspected hides the others", err, len(infos))
	}
	e.listErr = broken
	if _, err := DiscoverContainerLogFiles(t.Context(), e, []string{"json-file"}, ""); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestContainerMetadataCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		c := NewContainerMetadataCache(time.Minute, reg)
		if _, ok := c.Get("a"); ok {
			t.Error("an empty cache knows a container")
		}
		c.Set(docker.Container{ID: "a", Name: "one"})
		if got, ok := c.Get("a"); !ok || got.Name != "one" {
			t.Errorf("%+v, %v", got, ok)
		}
		c.Set(docker.Container{ID: "a", Name: "two"})
		if got, _ := c.Get("a"); got.Name != "two" {
			t.Errorf("%+v: the later one counts", got)
		}
		c.Delete("a")
		c.Delete("never there")
		if _, ok := c.Get("a"); ok || c.Len() != 0 {
			t.Error("deleted and still there")
		}
		if h, m := metric(t, reg, "metadata_cache_hits_total"), metric(t, reg, "metadata_cache_misses_total"); h != 2 || m != 2 {
			t.Errorf("%v hits, %v misses", h, m)
		}
		c.Set(docker.Container{ID: "a"})
		time.Sleep(time.Minute - 1)
		if _, ok := c.Get("a"); !ok {
			t.Error("forgotten too early")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := c.Get("a"); ok || c.Len() != 0 {
			t.Error("too old and still there")
		}
		// What nobody asks for any more does not pile up.
		for i := range 100 {
			c.Set(docker.Container{ID: string(rune('A' + i))})
		}
		time.Sleep(time.Minute)
		c.Set(docker.Container{ID: "b"})
		if c.Len() != 1 {
			t.Errorf("%d containers remembered", c.Len())
		}
	})
	t.Run("concurrent", func(t *testing.T) {
		c := NewContainerMetadataCache(0, nil)
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				id := string(rune('a' + g%4))
				for range 500 {
					c.Set(docker.Container{ID: id, Name: id})
					if got, ok := c.Get(id); ok && got.Name != id {
						t.Errorf("%q is named %q", id, got.Name)
					}
					c.Delete(id)
				}
			})
		}
		wg.Wait()
		if c.Len() > 4 {
			t.Errorf("%d containers", c.Len())
		}
	})
}

func TestImageRepository(t *testing.T) {
	for ref, want := range map[string]string{
		"":                                   "",
		"nginx":                              "nginx",
		"nginx:1.27":                         "nginx",
		"library/nginx:1.27":                 "library/nginx",
		"host:5000/team/app":                 "host:5000/team/app",
		"host:5000/team/app:1.2":             "host:5000/team/app",
		"host:5000/team/app:1.2@sha256:0123": "host:5000/team/app",
		"nginx@sha256:0123":                  "nginx",
		"sha256:0123abcd":                    "sha256:0123abcd",
	} {
		if got := ImageRepository(ref); got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
	}
}

func TestLabelsOf(t *testing.T) {
	cfg := LabelConfig{
		ContainerLabels: []ContainerLabel{{Container: "org.example.team", Label: "org_example_team"}, {Container: "absent", Label: "absent"}},
		Static:          map[string]string{"region": "north", "job": "not this one"},
	}
	c := ContainerLogFileInfo{ID: "0123456789abcdef", Name: "web", Host: "h1", Image: "reg:5000/app:1@sha256:00", Labels: map[string]string{
		"org.example.team": "blue", "com.docker.compose.project": "shop", "com.docker.compose.service": "front", "other": "not asked for",
	}}
	labels, metadata := labelsOf(cfg, c)
	base := `{compose_project="shop", compose_service="front", container_name="web", host="h1", image="reg:5000/app", job="log_capturer", `
	for class, want := range map[entry.Class]string{
		entry.ClassStdout:    base + `org_example_team="blue", region="north", stream="stdout"}`,
		entry.ClassStderr:    base + `org_example_team="blue", region="north", stream="stderr"}`,
		entry.ClassMalformed: base + `malformed="true", org_example_team="blue", region="north"}`,
	} {
		if got := labels[class].String(); got != want {
			t.Errorf("class %d:\n%s\nwant\n%s", class, got, want)
		}
	}
	if want := []entry.Label{{Name: "container_id", Value: "0123456789abcdef"}, {Name: "image_ref", Value: "reg:5000/app:1@sha256:00"}}; !reflect.DeepEqual(metadata, want) {
		t.Errorf("%v", metadata)
	}
	labels, metadata = labelsOf(LabelConfig{}, ContainerLogFileInfo{ID: "x", Name: "bare", Host: "h1"})
	if got := labels[entry.ClassStdout].String(); got != `{container_name="bare", host="h1", job="log_capturer", stream="stdout"}` || len(metadata) != 1 {
		t.Errorf("%s, %v", got, metadata)
	}
}

// containers is a ContainerMonitor on a fake engine, with the files beside it.
type containers struct {
	*fixture
	engine  *fakeEngine
	api     *fakeAPI
	streams *StreamMonitor
	reg     *prometheus.Registry
	cm      *ContainerMonitor
}

func newContainers(t *testing.T, change func(*ContainerMonitorConfig)) *containers {
	t.Helper()
	c := &containers{fixture: newFixture(t, nil, nil), engine: newFakeEngine(), api: newFakeAPI(), reg: prometheus.NewRegistry()}
	c.streams = NewStreamMonitor(StreamMonitorConfig{
		LogConfig: c.m.cfg.LogConfig, Open: c.api.Open, MaxStreams: 10, Metrics: NewStreamMetrics(c.reg),
	})
	c.make(change)
	return c
}

func (c *containers) make(change func(*ContainerMonitorConfig)) {
	c.t.Helper()
	cfg := ContainerMonitorConfig{
		Engine: c.engine, Files: c.m, Streams: c.streams, Cache: NewContainerMetadataCache(0, nil), Saved: c.store,
		Routing:       RoutingConfig{Files: true, LogDrivers: []string{"json-file"}, Fallback: true, Streaming: true},
		ContainersDir: c.dir, Logger: discardLogger(), Registerer: c.reg,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if c.cm, err = NewContainerMonitor(cfg); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		for _, lg := range c.m.logs {
			if lg.tail != nil {
				lg.tail.Close()
			}
		}
	})
}

// add makes a running container.
func (c *containers) add(id string) docker.Container {
	c.info(id)
	d := docker.Container{ID: id, Name: id, Driver: "json-file", Image: "app:1", Status: "running", Running: true, Created: t0, StartedAt: t0}
	c.engine.set(d)
	return d
}

func (c *containers) resync() { c.cm.resync(c.t.Context(), c.engine.summaries()) }

func (c *containers) event(action, id string) {
	c.cm.event(c.t.Context(), docker.Event{Action: action, ID: id, Name: id, Time: at(1)})
}

func (c *containers) monitored() []string {
	ids := c.m.ids()
	slices.Sort(ids)
	return ids
}

func TestContainerMonitorResync(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) { cfg.Routing.Streaming = false })
	c.add("a")
	c.write("a", jsonEntry("stdout", "1\n", at(1)))
	d := c.add("exited")
	d.Running, d.Status, d.FinishedAt = false, "exited", at(5)
	c.engine.set(d)
	c.write("exited", jsonEntry("stdout", "2\n", at(1)))
	l := c.add("local")
	l.Driver = "local"
	c.engine.set(l)
	p := c.add("plugin")
	p.Driver = "vendor/plugin:latest"
	c.engine.set(p)
	if h := c.cm.Health(); h.Synced || h.Err == nil {
		t.Errorf("before the first list: %+v", h)
	}
	c.resync()
	if got := c.monitored(); !reflect.DeepEqual(got, []string{"a", "exited"}) {
		t.Errorf("monitored: %q", got)
	}
	lines := c.work()
	if len(lines) != 2 || !strings.Contains(lines[0].labels, `host="engine-host"`) {
		t.Fatalf("%+v", lines)
	}
	c.ack(lines)
	if got := c.monitored(); !reflect.DeepEqual(got, []string{"a"}) {
		t.Errorf("monitored after all was read: %q", got)
	}
	h := c.cm.Health()
	if !h.Synced || h.Err != nil || h.NotCaptured["local"] != 1 || h.NotCaptured["vendor/plugin:latest"] != 1 {
		t.Errorf("%+v", h)
	}
	if n := metric(t, c.reg, "containers_not_captured"); n != 2 {
		t.Errorf("%v not captured", n)
	}
	// The list comes again and again: nothing is read or asked twice.
	for range 3 {
		c.resync()
		if lines := c.work(); len(lines) > 0 {
			t.Fatalf("read again: %+v", lines)
		}
	}
	if n := c.engine.inspections("exited"); n != 1 {
		t.Errorf("an exited container was inspected %d times", n)
	}
	if n := metric(t, c.reg, "routing_decision_total"); n != 2 {
		t.Errorf("%v routing decisions", n)
	}
	// One that has stopped and one that has started while events were lost.
	a := c.engine.containers["a"]
	a.Running, a.Status, a.FinishedAt = false, "exited", at(9)
	c.engine.set(a)
	d.Running, d.Status, d.StartedAt = true, "running", at(10)
	c.engine.set(d)
	c.write("exited", jsonEntry("stdout", "3\n", at(11)))
	c.resync()
	if got := texts(c.work()); !reflect.DeepEqual(got, []string{"3"}) {
		t.Errorf("%q", got)
	}
	if got := c.monitored(); !reflect.DeepEqual(got, []string{"exited"}) {
		t.Errorf("monitored: %q", got)
	}
	// Destroyed while nobody told.
	c.engine.remove("exited")
	c.engine.remove("local")
	_ = os.RemoveAll(filepath.Join(c.dir, "exited"))
	c.resync()
	c.work()
	if got := c.monitored(); len(got) != 0 {
		t.Errorf("monitored: %q", got)
	}
	if h := c.cm.Health(); h.NotCaptured["local"] != 0 {
		t.Errorf("%+v", h)
	}
}

func TestContainerMonitorForgetsWhatIsGone(t *testing.T) {
	c := newContainers(t, nil)
	c.add("kept")
	c.store.Register("kept", "", [2]entry.Position{{Offset: 1}, {}})
	c.store.Register("gone", "", [2]entry.Position{{Offset: 1}, {}})
	c.resync()
	if got := c.store.Keys(); !reflect.DeepEqual(got, []string{"kept"}) {
		t.Errorf("positions: %q", got)
	}
	// What that one had written last was never seen. Later lists have on them, or
	// not, what is known to be removed.
	if got := metric(t, c.reg, "containers_removed_unseen_total"); got != 1 {
		t.Errorf("%v containers were removed unseen", got)
	}
	c.engine.remove("kept")
	c.resync()
	if got := metric(t, c.reg, "containers_removed_unseen_total"); got != 1 {
		t.Errorf("%v containers were removed unseen, after one that was seen", got)
	}
}

func TestContainerMonitorEvents(t *testing.T) {
	c := newContainers(t, nil)
	c.resync()
	// Created: known before its log is there.
	d := c.add("a")
	d.Running, d.Status, d.StartedAt = false, "created", time.Time{}
	c.engine.set(d)
	c.event(docker.ActionCreate, "a")
	if got := c.monitored(); len(got) != 1 {
		t.Fatalf("monitored: %q", got)
	}
	// Started: lines may be there before the event. It is gone at once (--rm).
	c.write("a", jsonEntry("stdout", "1\n", at(1)))
	c.wake.Tell(filepath.Join(c.dir, "a"), WakeEvent{Appeared: true})
	c.m.handle(c.wake.Wait(time.Time{}, nil))
	c.engine.remove("a")
	c.event(docker.ActionStart, "a")
	c.write("a", jsonEntry("stderr", "2\n", at(2)))
	if err := os.RemoveAll(filepath.Join(c.dir, "a")); err != nil {
		t.Fatal(err)
	}
	c.event(docker.ActionDie, "a")
	c.event(docker.ActionDestroy, "a")
	lines := c.work()
	if got := texts(lines); !reflect.DeepEqual(got, []string{"1", "2"}) {
		t.Errorf("%q", got)
	}
	if got := c.monitored(); len(got) != 0 {
		t.Errorf("monitored: %q", got)
	}
	if got := c.store.Keys(); len(got) != 1 {
		t.Errorf("forgotten while its lines are on their way: %q", got)
	}
	c.ack(lines)
	c.m.poll()
	if got := c.store.Keys(); len(got) != 0 {
		t.Errorf("positions: %q", got)
	}
	if n := c.m.descriptors.Open(); n != 0 {
		t.Errorf("%d descriptors held", n)
	}
}

func TestContainerMonitorDieStartRename(t *testing.T) {
	c := newContainers(t, nil)
	d := c.add("a")
	c.write("a", jsonEntry("stdout", "1\n", at(1)), jsonEntry("stdout", "open", at(2)))
	c.resync()
	if got := texts(c.work()); !reflect.DeepEqual(got, []string{"1"}) {
		t.Errorf("%q", got)
	}
	c.event(docker.ActionDie, "a")
	c.event(docker.ActionStop, "a")
	if got := texts(c.work()); !reflect.DeepEqual(got, []string{"open"}) {
		t.Errorf("at the exit: %q", got)
	}
	if got := c.monitored(); len(got) != 0 {
		t.Errorf("monitored: %q", got)
	}
	c.event(docker.ActionRename, "a")
	d.Name, d.StartedAt, d.FinishedAt = "b", at(20), at(10)
	c.engine.set(d)
	c.event(docker.ActionStart, "a")
	c.write("a", jsonEntry("stdout", "2\n", at(21)))
	c.m.poll()
	lines := c.work()
	if len(lines) != 1 || lines[0].text != "2" || lines[0].name != "b" {
		t.Errorf("%+v", lines)
	}
}

func TestContainerMonitorOwnContainer(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) { cfg.Self, cfg.Host = Self{ID: "self"}, "configured" })
	d := c.add("self")
	c.add("other")
	c.resync()
	if got := c.monitored(); !reflect.DeepEqual(got, []string{"other"}) {
		t.Errorf("monitored: %q", got)
	}
	d.Labels, d.StartedAt = map[string]string{"log_capturer.enable": "true"}, at(1)
	c.engine.set(d)
	c.write("self", jsonEntry("stdout", "me\n", at(1)))
	c.event(docker.ActionStart, "self")
	lines := c.work()
	if len(lines) != 1 || !strings.Contains(lines[0].labels, `host="configured"`) {
		t.Errorf("%+v", lines)
	}
}

// TestContainerMonitorRun goes through the goroutines: an engine that answers
// late, and containers that cannot be inspected at first.
func TestContainerMonitorRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContainers(t, nil)
		c.add("a")
		c.add("b")
		c.add("v")
		c.engine.fail("b", errors.New("busy"))
		c.engine.fail("v", docker.ErrNotFound)
		c.engine.infoErr = errors.New("starting")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.cm.Run(ctx) }()
		w := <-c.engine.watching
		lost := errors.New("connection refused")
		w.Disconnected(lost)
		if h := c.cm.Health(); !errors.Is(h.Err, lost) || h.Since.IsZero() {
			t.Errorf("%+v", h)
		}
		w.Resync(ctx, c.engine.summaries())
		told := make(chan struct{})
		go func() {
			w.Event(ctx, docker.Event{Action: docker.ActionStart, ID: "a"}) // it waits its turn
			close(told)
		}()
		synctest.Wait()
		if got := c.monitored(); len(got) != 0 {
			t.Errorf("monitored although the engine has not told its name: %q", got)
		}
		c.engine.mu.Lock()
		c.engine.infoErr = nil
		c.engine.mu.Unlock()
		<-told
		synctest.Wait()
		if got := c.monitored(); !reflect.DeepEqual(got, []string{"a"}) {
			t.Errorf("monitored: %q", got)
		}
		if h := c.cm.Health(); h.Err != nil || !h.Synced {
			t.Errorf("%+v", h)
		}
		before := c.engine.inspections("b")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := c.engine.inspections("b") - before; n < 3 || n > 8 {
			t.Errorf("inspected again %d times in 20 s", n)
		}
		if n := c.engine.inspections("v"); n != 1 {
			t.Errorf("a container that has vanished was inspected %d times", n)
		}
		c.engine.fail("b", nil)
		time.Sleep(retryMax + time.Second)
		synctest.Wait()
		if got := c.monitored(); !reflect.DeepEqual(got, []string{"a", "b"}) {
			t.Errorf("monitored: %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		// Nobody receives any more: telling must not hang.
		w.Event(ctx, docker.Event{Action: docker.ActionDie, ID: "a"})
	})
}

func TestNewContainerMonitorRefusesDrivers(t *testing.T) {
	if _, err := NewContainerMonitor(ContainerMonitorConfig{Routing: RoutingConfig{LogDrivers: []string{"journald"}}, Registerer: prometheus.NewRegistry()}); err == nil {
		t.Error("accepted")
	}
}

func TestDriverName(t *testing.T) {
	for driver, want := range map[string]string{"json-file": "json-file", "none": "none", "vendor/x:1": "other", "": "other"} {
		if got := driverName(driver); got != want {
			t.Errorf("%q: %q", driver, got)
		}
	}
}
