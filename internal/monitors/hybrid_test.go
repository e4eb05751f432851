package monitors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
)

// Nothing of a run that is excluded is read when that ends.
func TestHybridExcludedStreamReadAtExit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newContainers(t, func(cfg *ContainerMonitorConfig) {
			cfg.Selection.Exclude = []Rule{{Field: "name", Pattern: "secret*"}}
		})
		c.with("web", func(d *docker.Container) { d.Driver = "local" })
		c.api.start("web")
		c.api.write("web", at(1), "public\n")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.streams.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		c.resync()
		waitFor(t, func() bool { return c.streams.Health().Following == 1 })
		c.api.exit("web")
		c.event(docker.ActionDie, "web")
		waitFor(t, func() bool { return c.streams.Health().Following == 0 })
		c.with("web", func(d *docker.Container) {
			d.Driver, d.Name, d.StartedAt, d.FinishedAt = "local", "secret-2", at(20), at(10)
		})
		c.event(docker.ActionRename, "web")
		c.api.start("web")
		c.event(docker.ActionStart, "web")
		if s := c.status("web"); s.Method != "none" {
			t.Fatalf("%s", s.Method)
		}
		c.api.write("web", at(21), "hush\n")
		c.api.exit("web")
		c.event(docker.ActionDie, "web")
		time.Sleep(time.Second)
		if got := texts(c.outlet.take()); len(got) != 1 {
			t.Errorf("captured %q", got)
		}
	})
}

// Nothing of an excluded run is followed, though the exit before was missed.
func TestHybridExcludedStreamFollowedOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newContainers(t, func(cfg *ContainerMonitorConfig) {
			cfg.Selection.Exclude = []Rule{{Field: "name", Pattern: "secret*"}}
		})
		c.with("web", func(d *docker.Container) { d.Driver = "local" })
		c.add("file")
		c.write("file", jsonEntry("stdout", "public\n", at(1)))
		c.api.start("web")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.streams.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		c.resync()
		c.ack(c.work())
		waitFor(t, func() bool { return c.streams.Health().Following == 1 })
		c.api.exit("web")
		c.api.start("web")
		for _, id := range []string{"web", "file"} {
			c.with(id, func(d *docker.Container) {
				if id == "web" {
					d.Driver = "local"
				}
				d.Name, d.StartedAt, d.FinishedAt = "secret-"+id, at(20), at(10)
			})
		}
		c.resync() // the name is new, so it is inspected
		if a, b := c.status("web").Method, c.status("file").Method; a != "none" || b != "none" {
			t.Fatalf("%s %s", a, b)
		}
		c.api.write("web", at(21), "hush\n")
		c.write("file", jsonEntry("stdout", "hush\n", at(21)))
		c.m.poll()
		c.m.tick(nil)
		if got := texts(c.work()); len(got) != 0 {
			t.Errorf("file captured %q", got)
		}
		time.Sleep(4 * time.Second)
		if got := texts(c.outlet.take()); len(got) != 0 {
			t.Errorf("stream captured %q", got)
		}
	})
}

// A running container whose directory cannot be seen fails, and is told.
func TestHybridRunningWithoutFile(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) { cfg.ContainersDir = t.TempDir() })
	c.m.cfg.Access = func(id string, err error) { c.cm.FileAccess(id, err) }
	c.add("a")
	c.resync()
	for range 40 {
		c.due("a")
		c.m.poll()
		c.work()
		c.post()
	}
	s := c.status("a")
	h := c.m.Health()
	t.Logf("method=%s reason=%q lag=%v err=%v; failed=%d; dirErr=%v", s.Method, s.Reason, s.Lag, s.LastErr, h.Failed, c.cm.Health().DirErr)
	if s.Method != MethodStreaming && h.Failed == 0 {
		t.Errorf("nothing is captured and nothing is said")
	}
}

// An exit that is told twice is one: no gap at the removal.
func TestHybridFalseGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		created := s.info("a")
		created.StartedAt = time.Time{}
		s.m.add(created) // create
		s.api.start("a")
		s.api.write("a", at(1), "one\n")
		s.api.exit("a")
		info := s.info("a")
		info.Running, info.FinishedAt = false, at(2)
		_ = info
		// the create's inspection came late: container met exited
		s2 := s.info("b")
		s2.Running, s2.FinishedAt = false, at(2)
		s.api.start("b")
		s.api.write("b", at(1), "two\n")
		s.api.exit("b")
		s.m.add(s2)
		s.want("two")
		s.m.containerExited("b") // the die event behind the inspection
		synctest.Wait()
		s.m.containerRemoved("b")
		time.Sleep(time.Second)
		if n := metric(t, s.reg, "stream_gaps_total"); n != 0 {
			t.Errorf("%v gaps, of a log that was read to its end", n)
		}
	})
}

// The same when the inspection at the start has shown the exit already.
func TestHybridFalseGapRunning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a") // create+start
		s.api.write("a", at(1), "one\n")
		s.api.exit("a")
		info := s.info("a")
		info.Running, info.FinishedAt = false, at(2)
		s.m.add(info) // resync or inspection of a replayed start
		s.want("one")
		s.m.containerExited("a")
		synctest.Wait()
		s.m.containerRemoved("a")
		time.Sleep(time.Second)
		if n := metric(t, s.reg, "stream_gaps_total"); n != 0 {
			t.Errorf("%v gaps, of a log that was read to its end", n)
		}
	})
}

// A run while the engine could not be heard is read.
func TestHybridRunWhileDisconnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newContainers(t, nil)
		c.with("job", func(d *docker.Container) {
			d.Driver, d.Running, d.Status, d.FinishedAt = "local", false, "exited", at(5)
		})
		c.api.start("job")
		c.api.write("job", at(1), "first\n")
		c.api.exit("job")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.streams.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		c.resync()
		waitFor(t, func() bool { return len(c.outlet.peek()) == 1 })
		(&engineNews{m: c.cm}).Disconnected(errors.New("lost"))
		c.api.start("job")
		c.api.write("job", at(20), "second\n")
		c.api.exit("job")
		c.with("job", func(d *docker.Container) {
			d.Driver, d.Running, d.Status, d.StartedAt, d.FinishedAt = "local", false, "exited", at(19), at(25)
		})
		c.resync()
		time.Sleep(12 * time.Second) // turnEvery
		got := texts(c.outlet.take())
		if len(got) != 2 {
			t.Errorf("captured %q", got)
		}
		c.engine.remove("job")
		c.event(docker.ActionDestroy, "job")
		if h := c.streams.Health(); len(got) != 2 && h.GapAt.IsZero() {
			t.Errorf("and no gap is told at its removal")
		}
	})
}

func (o *fakeOutlet) peek() []shipped { o.mu.Lock(); defer o.mu.Unlock(); return o.lines }

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// With read_from: end a stream whose first turn comes late begins where the agent did.
func TestHybridFromEndFirstTryLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		block := make(chan struct{})
		s := newStreaming(t, func(c *StreamMonitorConfig) {
			c.FromEnd, c.FirstStart, c.MaxStreams = true, time.Now(), 1
			open := c.Open
			c.Open = func(ctx context.Context, id string, o docker.LogsOptions) (LogStream, error) {
				if id == "c0" {
					select {
					case <-block:
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(10 * time.Second):
						return nil, docker.ErrUnavailable
					}
				}
				return open(ctx, id, o)
			}
		})
		time.Sleep(time.Second)
		for i := range 2 {
			id := fmt.Sprint("c", i)
			info := s.info(id)
			info.Created = time.Now().Add(-time.Hour)
			info.StartedAt = info.Created
			s.api.start(id)
			s.m.add(info)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		s.api.write("c1", time.Now(), "after the start\n")
		time.Sleep(2 * time.Minute)
		if got := s.lines(); len(got) != 1 {
			t.Errorf("%q", got)
		}
	})
}

// Pauses begin anew after a stream that lived long.
func TestHybridPauseAfterLongLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.api.failing(docker.ErrUnavailable)
		s.run("a")
		time.Sleep(2 * time.Minute)
		s.api.failing(nil)
		time.Sleep(24 * time.Hour)
		if s.m.Health().Following != 1 {
			t.Fatal()
		}
		s.api.cut("a", io.ErrUnexpectedEOF)
		synctest.Wait()
		s.m.mu.Lock()
		pause := time.Until(s.m.logs["a"].retryAt)
		s.m.mu.Unlock()
		if pause > time.Second {
			t.Errorf("a pause of %v after a day without trouble", pause)
		}
	})
}

// The stream of a removed container is not cut off while it waits for the store.
func TestHybridRemovedWhileHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "one\n")
		s.want("one")
		s.m.mu.Lock()
		src := s.m.logs["a"].src
		s.m.mu.Unlock()
		src.Held.Store(true)
		s.api.write("a", at(2), "two\n")
		s.api.exit("a")
		synctest.Wait()
		s.m.containerExited("a")
		s.m.containerRemoved("a")
		time.Sleep(11 * time.Second)
		src.Held.Store(false)
		s.m.Wake(src)
		s.want("two")
	})
}

type slowSink struct{}

func (slowSink) Push(ctx context.Context, b *entry.Batch, _ func(context.Context)) entry.Outcome {
	time.Sleep(100 * time.Millisecond)
	for i := range b.Sections {
		for c := range b.Sections[i].State {
			if b.Sections[i].State[c] == entry.PartPending {
				b.Sections[i].State[c] = entry.PartAccepted
			}
		}
	}
	return entry.Outcome{}
}

// A stream is opened anew while the dispatcher has its lines: for the race detector.
func TestHybridRaceOnSourceLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		api := newFakeAPI()
		s := &streaming{t: t, data: t.TempDir(), api: api}
		s.start(nil)
		s.stop()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		var d *dispatch.Dispatcher
		s.start(func(c *StreamMonitorConfig) {
			d = dispatch.New(dispatch.Config{Sink: slowSink{}, Acks: s.store})
			c.Outlet = d
		})
		wg.Go(func() { _ = d.Run(ctx) })
		defer func() { s.stop() }()
		api.start("a")
		s.m.add(s.info("a"))
		for i := range 6 {
			api.write("a", at(i+1), "x\n")
			time.Sleep(20 * time.Millisecond)
			api.write("a", at(i+1).Add(time.Millisecond), "y\n")
			api.cut("a", io.ErrUnexpectedEOF)
			time.Sleep(20 * time.Millisecond)
			s.m.add(s.info("a"))
			time.Sleep(200 * time.Millisecond)
		}
	})
}

// An excluded container is not one that is streamed instead of its file.
func TestHybridBrokenExcluded(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) {
		cfg.ContainersDir = "/nowhere/containers"
		cfg.Selection.Exclude = []Rule{{Field: "name", Pattern: "*"}}
	})
	c.add("a")
	c.resync()
	if h := c.cm.Health(); h.Broken != 0 {
		t.Errorf("%d containers are streamed instead, but none is", h.Broken)
	}
}

// Never two roads at a time: from the stream to excluded to the file.
func TestHybridTwoRoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		base := t.TempDir()
		hidden := filepath.Join(base, "containers")
		c := newContainers(t, func(cfg *ContainerMonitorConfig) {
			cfg.ContainersDir = hidden
			cfg.Selection.Exclude = []Rule{{Field: "name", Pattern: "secret*"}}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.streams.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		c.add("web")
		c.api.start("web")
		c.resync()
		waitFor(t, func() bool { return c.streams.Health().Following == 1 })
		c.api.exit("web")
		c.event(docker.ActionDie, "web")
		waitFor(t, func() bool { return c.streams.Health().Following == 0 })
		// renamed to an excluded name, started
		c.with("web", func(d *docker.Container) { d.Name, d.StartedAt, d.FinishedAt = "secret", at(20), at(10) })
		c.event(docker.ActionRename, "web")
		c.event(docker.ActionStart, "web")
		c.event(docker.ActionDie, "web")
		time.Sleep(100 * time.Millisecond)
		// the directory comes back
		if err := os.Rename(c.dir, hidden); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(hidden, "web", "web-json.log")
		appendTo(t, path, jsonEntry("stdout", "zero\n", at(21)))
		c.cm.probe(time.Now().Add(time.Hour))
		c.post()
		// and its old name
		c.with("web", func(d *docker.Container) { d.Name, d.StartedAt, d.FinishedAt = "web", at(40), at(30) })
		c.event(docker.ActionRename, "web")
		c.event(docker.ActionStart, "web")
		c.api.start("web")
		c.post()
		t.Logf("%s; files %q, streams %q", c.status("web").Method, c.monitored(), c.streams.ids())
		if got := c.streams.ids(); len(got) != 0 && len(c.monitored()) != 0 {
			t.Errorf("on both roads")
		}
		c.work() // the file's road is placed
		c.api.write("web", at(41), "one\n", "two\n")
		appendTo(t, path, jsonEntry("stdout", "one\n", at(41)), jsonEntry("stdout", "two\n", at(41).Add(1)))
		c.api.exit("web")
		c.event(docker.ActionDie, "web")
		time.Sleep(11 * time.Second)
		got := texts(c.outlet.take())
		got = append(got, texts(c.work())...)
		slices.Sort(got)
		t.Logf("%q", got)
		if len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("doubled")
		}
	})
}

// A start that is told after the file monitor has stopped leaves no descriptor.
func TestHybridAddAfterRun(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.info("a")
	f.write("a", jsonEntry("stdout", "1\n", at(1)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = f.m.Run(ctx)
	f.m.add(f.info("a"))
	if n := f.m.descriptors.Open(); n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// A turn on an engine that hangs in mid-stream is cut off.
func TestHybridTurnHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, func(c *StreamMonitorConfig) {
			c.MaxStreams = 1
			open := c.Open
			c.Open = func(ctx context.Context, id string, o docker.LogsOptions) (LogStream, error) {
				if id == "hung" {
					return hungStream{ctx}, nil
				}
				return open(ctx, id, o)
			}
		})
		hung := s.info("hung")
		hung.Running, hung.FinishedAt = false, at(1)
		s.m.add(hung)
		synctest.Wait()
		s.run("b")
		s.api.write("b", at(2), "one\n")
		time.Sleep(time.Hour)
		if got := s.lines(); len(got) != 1 {
			t.Errorf("an hour later: %q; %+v", got, s.m.Health())
		}
	})
}

type hungStream struct{ ctx context.Context } //nolint:containedctx // that of the stream's whole life

func (h hungStream) Next() (docker.Frame, error) { <-h.ctx.Done(); return docker.Frame{}, h.ctx.Err() }
func (hungStream) Buffered() bool                { return false }
func (hungStream) Close() error                  { return nil }

// A hand-over with a fragment open, entries of one nanosecond, and lines in flight.
func TestHybridHandOverInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newContainers(t, func(cfg *ContainerMonitorConfig) {})
		c.m.cfg.Access = func(id string, err error) { c.cm.FileAccess(id, err) }
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.streams.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		c.add("a")
		c.api.start("a")
		both := func(stream, text string, at time.Time) {
			c.write("a", jsonEntry(stream, text, at))
			c.api.change("a", func(l *fakeAPILog) {
				l.entries = append(l.entries, apiEntry{stderr: stream == "stderr", time: at.UnixNano(), text: text})
			})
		}
		both("stdout", "one\n", at(1))
		both("stdout", "two\n", at(1))
		both("stderr", "err\n", at(1))
		both("stdout", "frag", at(2))
		c.resync()
		lines := c.work() // not acknowledged
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
		if s := c.status("a"); s.Method != MethodStreaming {
			t.Fatalf("%s", s.Method)
		}
		c.api.change("a", func(l *fakeAPILog) {
			l.entries = append(l.entries, apiEntry{time: at(2).UnixNano(), text: "ment\n"}, apiEntry{time: at(2).UnixNano() + 1, text: "three\n"})
		})
		appendTo(t, filepath.Join(away, "a-json.log"), jsonEntry("stdout", "ment\n", at(2)), jsonEntry("stdout", "three\n", at(2).Add(1)))
		waitFor(t, func() bool { return len(c.outlet.peek()) >= 2 })
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		c.cm.probe(time.Now().Add(time.Hour))
		waitFor(t, func() bool { c.post(); return len(c.streams.ids()) == 0 })
		both("stdout", "four\n", at(3))
		c.post()
		got := append(texts(lines), texts(c.outlet.take())...)
		got = append(got, texts(c.work())...)
		if want := []string{"one", "two", "err", "fragment", "three", "four"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		_ = entry.Position{}
	})
}

// A directory is looked at again although there is nothing to fall back to.
func TestHybridDirErrStays(t *testing.T) {
	base := filepath.Join(t.TempDir(), "containers")
	c := newContainers(t, func(cfg *ContainerMonitorConfig) {
		cfg.ContainersDir, cfg.Routing.Fallback = base, false
	})
	c.add("a")
	c.resync()
	if c.cm.Health().DirErr == nil {
		t.Fatal()
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		t.Fatal(err)
	}
	c.cm.retryDue(t.Context())
	c.cm.probe(time.Now().Add(time.Hour))
	if at := c.cm.nextProbe(); at.IsZero() && c.cm.Health().DirErr != nil {
		t.Errorf("nobody looks at the directory again before the next list (5 min): %v", c.cm.Health().DirErr)
	}
}

// The clock is set back an hour and the stream breaks: nothing is missing.
func TestHybridClockSetBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", t0.Add(time.Hour), "a\n")
		s.want("a")
		s.api.write("a", t0.Add(10*time.Second), "b\n")
		s.want("b")
		saved, _ := s.store.Lookup("a")
		t.Log(saved.Read[0].Time-t0.UnixNano(), saved.Read[1].Time-t0.UnixNano())
		s.api.cut("a", io.ErrUnexpectedEOF)
		s.api.write("a", t0.Add(11*time.Second), "c\n")
		time.Sleep(5 * time.Second)
		if got := s.lines(); !slices.Contains(got, "c") {
			t.Errorf("%q", got)
		}
	})
}

// A stop while a log is being opened, held, waits for room, or for an exit.
func TestHybridShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, func(c *StreamMonitorConfig) {
			open := c.Open
			c.Open = func(ctx context.Context, id string, o docker.LogsOptions) (LogStream, error) {
				if id == "hang" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return open(ctx, id, o)
			}
		})
		s.run("hang")
		s.run("held")
		s.api.write("held", at(1), "x\n")
		s.want("x")
		s.m.mu.Lock()
		s.m.logs["held"].src.Held.Store(true)
		s.m.mu.Unlock()
		s.api.write("held", at(2), "y\n")
		s.run("eof")
		s.api.exit("eof")
		s.outlet.room = make(chan struct{})
		s.run("room")
		s.api.write("room", at(1), "z\n")
		synctest.Wait()
		began := time.Now()
		s.stop()
		if d := time.Since(began); d > 0 {
			t.Errorf("took %v", d)
		}
	})
}

// Events in any order against a real loop, for the race detector.
func TestHybridStorm(t *testing.T) {
	c := newContainers(t, func(cfg *ContainerMonitorConfig) {
		cfg.Selection.Exclude = []Rule{{Field: "name", Pattern: "x*"}}
	})
	c.m.cfg.Access = func(id string, err error) { c.cm.FileAccess(id, err) }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.streams.Run(ctx) })
	wg.Go(func() { _ = c.m.Run(ctx) })
	calls := engineInbox{calls: make(chan func(context.Context))}
	wg.Go(func() { _ = c.cm.loop(ctx, calls) })
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				c.cm.Health()
				c.cm.Containers()
				c.streams.Health()
				c.m.Health()
				_, _ = c.reg.Gather()
				runtime.Gosched()
			}
		})
	}
	ids := []string{"a", "b", "l1", "l2", "x1"}
	for _, id := range ids {
		c.with(id, func(d *docker.Container) {
			if id[0] == 'l' {
				d.Driver = "local"
			}
		})
		c.api.start(id)
	}
	n := &engineNews{c.cm, calls}
	end := time.Now().Add(4 * time.Second)
	for i := 0; time.Now().Before(end); i++ {
		id := ids[i%len(ids)]
		switch i % 7 {
		case 0:
			n.Resync(ctx, c.engine.summaries())
		case 1:
			c.api.exit(id)
			n.Event(ctx, docker.Event{Action: docker.ActionDie, ID: id})
		case 2:
			c.with(id, func(d *docker.Container) {
				if id[0] == 'l' {
					d.Driver = "local"
				}
				d.StartedAt = at(i)
			})
			c.api.start(id)
			n.Event(ctx, docker.Event{Action: docker.ActionStart, ID: id})
		case 3:
			for range 3 {
				c.cm.FileAccess(id, errors.New("x"))
			}
		case 4:
			calls.send(ctx, func(context.Context) { c.cm.probe(time.Now().Add(time.Hour)) })
		case 5:
			c.api.write(id, at(i), "x\n")
			c.write(id, jsonEntry("stdout", "x\n", at(i)))
		case 6:
			n.Event(ctx, docker.Event{Action: docker.ActionDestroy, ID: id})
		}
	}
	cancel()
	wg.Wait()
	both := 0
	for _, id := range c.streams.ids() {
		if slices.Contains(c.m.ids(), id) {
			both++
		}
	}
	t.Log(both)
	if _, open := c.api.tries(""); open != 0 {
		t.Errorf("%d open", open)
	}
}

// A stream that hangs after its run's exit is cut off, though the next run is told.
func TestHybridHungStreamAndRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := 0
		s := newStreaming(t, func(c *StreamMonitorConfig) {
			open := c.Open
			c.Open = func(ctx context.Context, id string, o docker.LogsOptions) (LogStream, error) {
				if n++; n == 1 {
					return hungStream{ctx}, nil
				}
				return open(ctx, id, o)
			}
		})
		s.run("a")
		s.m.containerExited("a")
		synctest.Wait()
		info := s.info("a")
		info.StartedAt, info.FinishedAt = at(20), at(10)
		s.m.add(info)
		s.api.write("a", at(21), "run 2\n")
		time.Sleep(time.Hour)
		if got := s.lines(); len(got) != 1 {
			t.Errorf("an hour later %q, lag %v", got, s.m.Health().Lag)
		}
	})
}

// Every change of the road is counted, there and back.
func TestHybridBreakerMetric(t *testing.T) {
	base := filepath.Join(t.TempDir(), "containers")
	c := newContainers(t, func(cfg *ContainerMonitorConfig) { cfg.ContainersDir = base })
	c.add("a")
	c.resync()
	if err := os.MkdirAll(filepath.Join(base, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	appendTo(t, filepath.Join(base, "a", "a-json.log"), jsonEntry("stdout", "two\n", at(2)))
	c.cm.probe(time.Now().Add(time.Hour))
	c.post()
	c.wantBreaks(1, 1)
}

// A container that was met when it was created, and whose run was missed.
func TestHybridCreatedThenRunMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		created := s.info("a")
		created.StartedAt = time.Time{} // Running is true: see fileInfoOf
		s.m.add(created)
		s.api.start("a")
		s.api.write("a", at(1), "one\n")
		s.api.exit("a")
		info := s.info("a")
		info.Running, info.FinishedAt = false, at(2)
		s.m.add(info) // inspected after the connection was lost
		time.Sleep(time.Minute)
		s.want("one")
	})
}

// One that is removed, unread, on its way to its file is a gap.
func TestHybridGoneWhileMovingUnread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "one\n")
		s.want("one")
		s.m.mu.Lock()
		src := s.m.logs["a"].src
		s.m.mu.Unlock()
		src.Held.Store(true)
		s.api.write("a", at(2), "two\n")
		synctest.Wait()
		s.m.mu.Lock()
		lg := s.m.logs["a"]
		lg.leaving = func() {}
		s.m.mu.Unlock()
		s.m.containerExited("a")
		s.m.containerRemoved("a") // both before the stream has ended
		s.m.mu.Lock()
		lg.cancel()
		s.m.mu.Unlock()
		synctest.Wait()
		if h := s.m.Health(); h.GapAt.IsZero() {
			t.Errorf("no gap is told")
		}
	})
}

type startsOnLetGo struct {
	Registry
	f func()
}

func (r startsOnLetGo) Unregister(log uint32) { r.Registry.Unregister(log); r.f() }

// Starts in the moment in which a log is let go, under the poll.
func TestHybridLetGoAndPoll(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("a")
	f.write("a", jsonEntry("stdout", "1\n", at(1)))
	n := 0
	f.m.cfg.Registry = startsOnLetGo{f.store, func() {
		n++
		i := info
		i.StartedAt = at(n * 100)
		i.Running = true
		f.m.add(i)
	}}
	f.m.add(info)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				f.m.poll()
			}
		}
	})
	end := time.Now().Add(3 * time.Second)
	for time.Now().Before(end) {
		f.work()
		f.m.containerExited("a")
		f.work()
	}
	close(stop)
	wg.Wait()
	t.Log(n)
}
