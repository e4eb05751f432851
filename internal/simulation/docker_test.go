package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// container is one as Docker has it: the writer's side of its log. The scheduler
// owns it, but for what the engine's mutex guards.
type container struct {
	number int
	id     string
	dir    string
	driver string
	w      *dockertest.Writer // nil before the first start, and without a file
	clock  int64              // of the last entry
	out    [entry.NumStreams]*output
	bad    *output // malformed lines
	met    bool    // the agent has a position of it, see output.met

	// What an inspection tells; guarded by engine.mu.
	name                string
	status              string
	created             time.Time
	startedAt, finished time.Time
	removed             bool
	run                 int     // how many starts there were, and the creation
	knows               int     // the run whose name the agent has; 0: none
	named               []named // what the agent was told
	// told is the number of the agent's run that knows of the latest start.
	told int
	api  apiLog
}

// named is the name that the agent was told of one of a container's runs.
type named struct {
	name   string
	run    int
	from   int  // the first run whose lines bear it, until the next name
	middle bool // of three names it may be taken for the first, too
}

// tell tells the agent a container's name; met: it has a position of it. The first answer
// of a run counts: a rename does from the next start on. Lines from before that start bear
// the name before, if the agent has met them. Called with engine.mu held.
func (c *container) tell(met bool) {
	if c.knows == c.run {
		return
	}
	c.knows = c.run
	now := named{name: c.name, run: c.run}
	if met {
		now.from = c.run
	}
	if n := len(c.named); n > 1 {
		c.named[n-1].middle = true
	}
	c.named = append(c.named, now)
}

func (c *container) running() bool { return c.status == "running" }

// event is one that is on its way to the agent.
type event struct {
	docker.Event
	due time.Time
	c   *container
}

// engine is the Docker engine as the agent sees it.
type engine struct {
	dir string // of the containers

	mu         sync.Mutex
	up         bool
	containers []*container // that are there, in the order of their creation
	queue      []event      // of the present subscription
	session    int          // counts the connections that were cut
	changed    chan struct{}
	run        int // the agent's that is connected
}

func newEngine(dir string) *engine {
	return &engine{dir: dir, up: true, changed: make(chan struct{})}
}

// change changes something and lets the watcher look.
func (e *engine) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
	close(e.changed)
	e.changed = make(chan struct{})
}

var errEngine = errors.New("the engine does not answer")

// view is the engine in one run of the agent: it is monitors.EngineWatcher.
type view struct {
	*engine
	run int
	met func(id string) bool // the agent has a container's position, with its name
}

// Info is monitors.EngineWatcher.
func (e view) Info(context.Context) (docker.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.up {
		return docker.Info{}, errEngine
	}
	return docker.Info{Name: "host", RootDir: filepath.Dir(e.dir)}, nil
}

// List is monitors.EngineWatcher.
func (e view) List(context.Context) ([]docker.Summary, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.up {
		return nil, errEngine
	}
	return e.list(), nil
}

func (e *engine) list() []docker.Summary {
	all := make([]docker.Summary, 0, len(e.containers))
	for _, c := range e.containers {
		all = append(all, docker.Summary{ID: c.id, Name: c.name, Image: "repo/app:1", Status: c.status, Running: c.running(), Created: c.created})
	}
	return all
}

// Inspect is monitors.EngineWatcher.
func (e view) Inspect(_ context.Context, id string) (docker.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.up {
		return docker.Container{}, errEngine
	}
	for _, c := range e.containers {
		if c.id != id {
			continue
		}
		c.tell(e.met(id))
		d := docker.Container{
			ID: id, Name: c.name, Image: "repo/app:1", Driver: c.driver, Status: c.status, Running: c.running(),
			Created: c.created, StartedAt: c.startedAt, FinishedAt: c.finished,
		}
		if c.driver == monitors.DriverJSONFile && !c.startedAt.IsZero() {
			d.LogPath = c.path()
		}
		return d, nil
	}
	return docker.Container{}, docker.ErrNotFound
}

func (c *container) path() string { return filepath.Join(c.dir, c.id+"-json.log") }

// end is where the next entry will be.
func (c *container) end() entry.Place {
	inode, size := c.w.End()
	return entry.Place{Inode: inode, Offset: size}
}

// Watch is monitors.EngineWatcher. Events come late, each by its own time.
func (e view) Watch(ctx context.Context, w docker.Watcher) error {
	for ctx.Err() == nil {
		e.mu.Lock()
		up, session, changed, list := e.up, e.session, e.changed, e.list()
		seen := slices.Clone(e.containers)
		if up {
			e.queue, e.engine.run = nil, e.run
		}
		e.mu.Unlock()
		if !up {
			w.Disconnected(errEngine)
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		w.Resync(ctx, list)
		e.mu.Lock()
		for _, c := range seen {
			c.told = e.run
		}
		e.mu.Unlock()
		e.events(ctx, w, session)
		if ctx.Err() != nil {
			break
		}
		w.Disconnected(errEngine)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil //nolint:nilerr // ctx has ended
}

// events tells of events until the connection is cut.
func (e view) events(ctx context.Context, w docker.Watcher, session int) {
	for ctx.Err() == nil {
		e.mu.Lock()
		if e.session != session {
			e.mu.Unlock()
			return
		}
		changed := e.changed
		pause := time.Hour
		var next *event
		if len(e.queue) > 0 {
			if pause = time.Until(e.queue[0].due); pause <= 0 {
				next = &e.queue[0]
				e.queue = e.queue[1:]
			}
		}
		e.mu.Unlock()
		if next != nil {
			w.Event(ctx, next.Event)
			e.mu.Lock()
			if next.Action == docker.ActionStart && next.Time.Equal(next.c.startedAt) {
				next.c.told = e.run
			}
			e.mu.Unlock()
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// happens notes an event, which the agent hears of after a while. mu is held.
func (e *engine) happens(c *container, action string, late time.Duration) {
	now := time.Now()
	ev := event{Event: docker.Event{Action: action, ID: c.id, Name: c.name, Time: now, ExitCode: -1}, due: now.Add(late), c: c}
	if n := len(e.queue); n > 0 && e.queue[n-1].due.After(ev.due) {
		ev.due = e.queue[n-1].due // they stay in order
	}
	e.queue = append(e.queue, ev)
}

// connect ends, or brings back, what the agent has of the engine.
func (e *engine) connect(up bool) {
	e.change(func() {
		e.up = up
		e.session++
		e.queue = nil
	})
}

// entryOf is one entry as Docker writes it.
func entryOf(s entry.Stream, text string, at int64) []byte {
	b := []byte{'{'}
	if text != "" {
		b = append(b, `"log":`...)
		b = appendQuoted(b, text)
		b = append(b, ',')
	}
	b = append(b, `"stream":"`...)
	b = append(b, s.String()...)
	b = append(b, `","time":"`...)
	b = time.Unix(0, at).UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"', '}', '\n')
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch c {
		case '\n':
			b = append(b, `\n`...)
		case '"', '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// fatal is what a dockertest.Writer needs of a test: the simulation's own files
// must not fail.
type fatal struct{}

func (fatal) Helper()           {}
func (fatal) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// create makes a container.
func (s *sim) create(name, driver string) *container {
	s.made++
	c := &container{
		number: s.made, id: fmt.Sprintf("%012x%052d", s.seed&0xffffffffffff, s.made),
		driver: driver, name: name, run: 1, status: "created", created: time.Now(),
	}
	c.dir = filepath.Join(s.engine.dir, c.id)
	c.clock = c.created.UnixNano()
	for i, tag := range []string{"o", "e"} {
		c.out[i] = &output{c: c, tag: tag + strconv.Itoa(c.number) + "."}
	}
	c.bad = &output{c: c, tag: "bad" + strconv.Itoa(c.number) + ".", bad: true}
	s.check(os.Mkdir(c.dir, 0o700))
	s.mu.Lock()
	s.all = append(s.all, c)
	s.mu.Unlock()
	s.engine.change(func() {
		s.engine.containers = append(s.engine.containers, c)
		s.engine.happens(c, docker.ActionCreate, s.late())
	})
	return c
}

// start starts a container.
func (s *sim) start(c *container) {
	time.Sleep(time.Millisecond) // no entry is as old as a start or an exit
	fresh := c.w == nil
	switch {
	case c.driver != monitors.DriverJSONFile:
	case fresh:
		c.w = dockertest.New(fatal{}, c.path(), s.p.maxFiles, s.p.compress, s.p.unlink)
		s.tellCreated(c, true)
	default:
		c.w.Finish()
		_, err := os.Stat(c.path())
		c.w.Start()
		s.tellCreated(c, err != nil)
	}
	s.engine.change(func() {
		c.status, c.startedAt, c.told = "running", time.Now(), 0
		c.run++
		c.clock = max(c.clock, c.startedAt.UnixNano())
		s.engine.happens(c, docker.ActionStart, s.late())
	})
	c.api.change(func() { c.api.running = true })
}

// tellCreated tells that a log file has appeared.
func (s *sim) tellCreated(c *container, created bool) {
	if created && s.agent != nil {
		s.agent.wake.Tell(c.dir, monitors.WakeEvent{Appeared: true, Created: true})
	}
}

// rename gives a container another name, of which the agent hears after a while.
func (s *sim) rename(c *container) {
	name := s.freeName()
	s.tracef("%s (%d) is renamed to %s", c.name, c.number, name)
	s.engine.change(func() {
		c.name = name
		s.engine.happens(c, docker.ActionRename, s.late())
	})
}

// exit ends a container's run.
func (s *sim) exit(c *container) {
	time.Sleep(time.Millisecond)
	if c.w != nil {
		for c.w.Rotating() {
			s.dockerStep(c)
		}
		c.w.Stop()
	}
	s.mu.Lock()
	for _, o := range c.out {
		o.open = false
	}
	s.mu.Unlock()
	s.engine.change(func() {
		c.status, c.finished = "exited", time.Now()
		late := s.late()
		s.engine.happens(c, docker.ActionDie, late)
		s.engine.happens(c, docker.ActionStop, late)
	})
	c.api.change(func() { c.api.running, c.api.ends = false, append(c.api.ends, len(c.api.entries)) })
}

// remove takes a container away.
func (s *sim) remove(c *container) {
	if c.w != nil {
		c.w.Finish()
	}
	synctest.Wait()
	if s.r.IntN(3) == 0 {
		s.removeSlowly(c)
	}
	s.check(os.RemoveAll(c.dir))
	if s.agent != nil {
		s.agent.wake.End(c.dir, monitors.WakeEvent{Ended: true})
	}
	s.engine.change(func() {
		c.removed = true
		s.engine.containers = slices.DeleteFunc(s.engine.containers, func(o *container) bool { return o == c })
		s.engine.happens(c, docker.ActionDestroy, s.late())
	})
	c.api.change(func() { c.api.gone = true })
}

// removeSlowly removes the files of a container one by one, while the agent looks.
func (s *sim) removeSlowly(c *container) {
	names, err := os.ReadDir(c.dir)
	s.check(err)
	s.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, n := range names {
		s.check(os.Remove(filepath.Join(c.dir, n.Name())))
		s.tracef("%s is removed", n.Name()[len(c.id):])
		if s.r.IntN(2) == 0 {
			time.Sleep(time.Duration(s.r.IntN(300)) * time.Millisecond)
			synctest.Wait()
		}
	}
}

// dockerStep does one step of a rotation or a compression.
func (s *sim) dockerStep(c *container) {
	before := c.w.Rotating()
	var had bool
	if before {
		_, err := os.Stat(c.path())
		had = err == nil
	}
	if !c.w.Step() || s.agent == nil {
		return
	}
	ev := monitors.WakeEvent{Appeared: true}
	if before && !had {
		_, err := os.Stat(c.path())
		ev.Created = err == nil
	}
	s.agent.wake.Tell(c.dir, ev)
}
