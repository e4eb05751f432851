package monitors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
)

// streaming is a StreamMonitor that runs on a fake API.
type streaming struct {
	t      *testing.T
	data   string
	api    *fakeAPI
	outlet *fakeOutlet
	store  *positions.Store
	reg    *prometheus.Registry
	m      *StreamMonitor
	stop   func()
}

// newStreaming is for use in a bubble of synctest.
func newStreaming(t *testing.T, change func(*StreamMonitorConfig)) *streaming {
	s := &streaming{t: t, data: t.TempDir(), api: newFakeAPI()}
	s.start(change)
	t.Cleanup(func() { s.stop() })
	return s
}

// start starts the agent (again).
func (s *streaming) start(change func(*StreamMonitorConfig)) {
	s.t.Helper()
	var err error
	s.store, err = positions.Open(positions.Config{Dir: s.data, Logger: discardLogger()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.outlet, s.reg = newFakeOutlet(2), prometheus.NewRegistry()
	cfg := StreamMonitorConfig{
		LogConfig: LogConfig{
			Outlet: s.outlet, Registry: s.store, Spans: s.store, MaxLineBytes: 256 << 10,
			FirstStart: t0.Add(-time.Hour), Logger: discardLogger(), Lines: NewLineMetrics(s.reg),
		},
		Open: s.api.Open, MaxStreams: 10, Metrics: NewStreamMetrics(s.reg),
	}
	if change != nil {
		change(&cfg)
	}
	s.m = NewStreamMonitor(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.m.Run(ctx) })
	s.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			s.t.Error(err)
		}
		if err := s.store.Close(); err != nil {
			s.t.Error(err)
		}
		if _, open := s.api.tries(""); open != 0 {
			s.t.Errorf("%d streams were left open", open)
		}
		s.stop = func() {}
	}
}

// restart stops the agent, in order, and starts it again.
func (s *streaming) restart() {
	s.stop()
	s.start(nil)
}

// info is what an inspection gives of a running container.
func (s *streaming) info(id string) ContainerLogFileInfo {
	return ContainerLogFileInfo{ID: id, Name: id, Driver: "local", Running: true, Created: t0, StartedAt: t0}
}

// run makes a running container and tells of it.
func (s *streaming) run(id string) {
	s.api.start(id)
	s.m.add(s.info(id))
	synctest.Wait()
}

// lines acknowledges what has come and gives its texts.
func (s *streaming) lines() []string {
	s.t.Helper()
	synctest.Wait()
	lines := s.outlet.take()
	for _, l := range lines {
		if err := s.store.Ack([]entry.Span{l.span}); err != nil {
			s.t.Fatal(err)
		}
	}
	return texts(lines)
}

func (s *streaming) wantMetric(name string, want float64) {
	s.t.Helper()
	if got := metric(s.t, s.reg, name); got != want {
		s.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func (s *streaming) want(lines ...string) {
	s.t.Helper()
	if got := s.lines(); !slices.Equal(got, lines) {
		s.t.Fatalf("got %q, want %q", got, lines)
	}
}

// bubble runs a test in a bubble of synctest.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestStreamFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.api.write("a", at(1), "before\n")
		s.run("a")
		s.want("before")
		s.api.write("a", at(2), "one\n", "!two\n")
		s.want("one", "two")
		s.api.write("a", at(5), "a fragment, ")
		s.want()
		s.api.change("a", func(l *fakeAPILog) { // fragments have the first one's time
			l.entries = append(l.entries, apiEntry{time: at(5).UnixNano(), text: "and its end\r\n"})
		})
		s.want("a fragment, and its end")
		// Silent for a week.
		time.Sleep(7 * 24 * time.Hour)
		s.api.write("a", at(1000), "still there\n")
		s.want("still there")
		if n, _ := s.api.tries("a"); n != 1 {
			t.Errorf("opened %d times", n)
		}
		if n := metric(t, s.reg, "streams_open"); n != 1 {
			t.Errorf("%v streams open", n)
		}
	})
}

func TestStreamOfExitedContainer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.api.start("a")
		s.api.write("a", at(1), "one\n", "no end")
		s.api.exit("a")
		info := s.info("a")
		info.Running, info.FinishedAt = false, at(9)
		s.m.add(info)
		s.want("one", "no end")
		// One more look at the list costs the engine nothing.
		for range 5 {
			s.m.add(info)
			time.Sleep(time.Minute)
		}
		s.want()
		if n, _ := s.api.tries("a"); n != 1 {
			t.Errorf("opened %d times", n)
		}
		s.wantMetric("stream_turns_total", 1)
		s.wantMetric("streaming_containers", 0)
		// After a restart of the agent it is looked at once, and nothing comes twice.
		s.restart()
		s.m.add(info)
		s.want()
		s.wantMetric("stream_turns_total", 1)
		// It is started again.
		s.api.start("a")
		s.api.write("a", at(20), "three\n")
		info.Running, info.StartedAt = true, at(15)
		s.m.add(info)
		s.want("three")
		s.wantMetric("stream_turns_total", 1) // now it is followed
		s.wantMetric("streaming_containers", 1)
	})
}

func TestStreamExitAndRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		info := s.info("a")
		for i := range 5 {
			s.api.write("a", at(10*i+1), fmt.Sprintf("run %d\n", i), "cut off")
			s.api.exit("a")
			synctest.Wait()
			// The stream has ended; whether the container has is told later.
			if i%2 == 0 {
				time.Sleep(50 * time.Millisecond)
			}
			s.m.containerExited("a")
			s.want(fmt.Sprintf("run %d", i), "cut off")
			s.api.start("a")
			info.StartedAt, info.FinishedAt = at(10*i+8), at(10*i+5)
			s.m.add(info)
			time.Sleep(followEvery)
			synctest.Wait()
			if n, _ := s.api.tries("a"); n != 2*(i+1)+1 { // each run is read once more at its end
				t.Fatalf("run %d: opened %d times", i, n)
			}
		}
	})
}

// The engine ends all streams in order when it is shut down, and goes on: what
// had no end yet is not cut.
func TestStreamEngineShutDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "one\n", "first half, ")
		s.want("one")
		s.api.cut("a", io.EOF)
		time.Sleep(5 * time.Second)
		s.api.change("a", func(l *fakeAPILog) {
			l.entries = append(l.entries, apiEntry{time: at(1).UnixNano() + 1, text: "second half\n"})
		})
		time.Sleep(30 * time.Second)
		s.want("first half, second half")
		// And when it dies.
		s.api.write("a", at(3), "two\n", "third half, ")
		s.want("two")
		s.api.cut("a", io.ErrUnexpectedEOF)
		synctest.Wait()
		s.api.failing(docker.ErrUnavailable)
		time.Sleep(time.Minute)
		if h := s.m.Health(); h.Failed != 1 || !errors.Is(h.FailedBy, docker.ErrUnavailable) || h.Lag < time.Minute/2 {
			t.Errorf("%+v", h)
		}
		s.api.change("a", func(l *fakeAPILog) {
			l.entries = append(l.entries, apiEntry{time: at(3).UnixNano() + 1, text: "fourth half\n"})
		})
		s.api.failing(nil)
		s.m.add(s.info("a")) // the list comes as soon as the engine answers
		s.want("third half, fourth half")
		if h := s.m.Health(); h.Failed != 0 || h.Lag != 0 || h.Following != 1 {
			t.Errorf("%+v", h)
		}
		if n := metric(t, s.reg, "stream_errors_total"); n < 2 {
			t.Errorf("%v errors", n)
		}
	})
}

func TestStreamPausesAfterErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.api.failing(docker.ErrUnavailable)
		s.run("a")
		time.Sleep(streamRetryMax)
		early, _ := s.api.tries("a")
		time.Sleep(10 * streamRetryMax)
		all, _ := s.api.tries("a")
		if late := all - early; early < 5 || early > 7 || late < 9 || late > 11 {
			t.Errorf("%d tries within %v, %d within 10 times as long", early, streamRetryMax, late)
		}
		s.wantMetric("stream_errors_total", float64(all))
		s.wantMetric("streams_failed", 1)
		s.wantMetric("streaming_containers", 1)
		s.api.failing(nil)
		time.Sleep(streamRetryMax)
		s.wantMetric("stream_errors_total", float64(all))
		s.wantMetric("streams_failed", 0)
	})
}

func TestStreamResumesPerStream(t *testing.T) {
	for _, first := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s := newStreaming(t, nil)
			s.api.firstMatch = first
			s.run("a")
			// Of one nanosecond there may be several, and across the streams
			// times fall.
			s.api.change("a", func(l *fakeAPILog) {
				l.entries = append(
					l.entries,
					apiEntry{false, at(5).UnixNano(), "o1\n"}, apiEntry{true, at(4).UnixNano(), "e1\n"}, apiEntry{false, at(5).UnixNano(), "o2\n"},
					apiEntry{true, at(6).UnixNano(), "e2\n"}, apiEntry{false, at(5).UnixNano(), "o3\n"},
				)
			})
			s.want("o1", "e1", "o2", "e2", "o3")
			s.restart()
			s.api.change("a", func(l *fakeAPILog) {
				l.entries = append(l.entries, apiEntry{false, at(5).UnixNano(), "o4\n"}, apiEntry{true, at(6).UnixNano(), "e3\n"})
			})
			s.m.add(s.info("a"))
			s.want("o4", "e3")
			s.api.write("a", at(7), "o5\n")
			s.want("o5")
			again := 4.0 // what is not older than the earlier of the streams, o3
			if first {
				again++ // e1
			}
			s.wantMetric("lines_already_delivered_total", again)
			s.wantMetric("lines_read_total", 3)
		})
	}
}

// A stream that is silent does not hold the other one's position back.
func TestStreamSilentStderr(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "!the only one\n")
		for i := range 100 {
			s.api.write("a", t0.Add(time.Duration(i)*time.Minute), fmt.Sprintf("%d\n", i))
		}
		if n := len(s.lines()); n != 101 {
			t.Fatalf("%d lines", n)
		}
		saved, _ := s.store.Lookup("a")
		if since := time.Unix(0, sinceOf(saved.Read)); since.Before(t0.Add(98 * time.Minute)) {
			t.Errorf("it would be resumed at %v", since.UTC())
		}
	})
}

func TestStreamMaxStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n, limit = 25, 5
		s := newStreaming(t, func(c *StreamMonitorConfig) { c.MaxStreams = limit })
		want := 0
		for i := range n {
			s.run(fmt.Sprintf("c%02d", i))
		}
		lag := 0.0
		for round := range 6 {
			for i := range n {
				s.api.write(fmt.Sprintf("c%02d", i), at(100*round), "x\n")
				want++
			}
			for range 10 {
				time.Sleep(time.Second)
				lag = max(lag, metric(t, s.reg, "stream_lag_seconds"))
			}
		}
		if lag < 5 || lag > 60 {
			t.Errorf("the lag seen is %v s", lag)
		}
		time.Sleep(2 * time.Minute)
		if got := len(s.lines()); got != want {
			t.Errorf("%d lines, want %d", got, want)
		}
		if s.api.most > limit {
			t.Errorf("%d connections at a time", s.api.most)
		}
		s.wantMetric("streaming_containers", n)
		h := s.m.Health()
		if h.Following == 0 || h.Following > limit || h.Lag > 2*time.Minute {
			t.Errorf("%+v", h)
		}
		// They exit, with last words.
		for i := range n {
			id := fmt.Sprintf("c%02d", i)
			s.api.write(id, at(1000), "last\n")
			s.api.exit(id)
			s.m.containerExited(id)
		}
		time.Sleep(5 * time.Minute)
		if got := len(s.lines()); got != n {
			t.Errorf("%d last lines, want %d", got, n)
		}
		if open := metric(t, s.reg, "streams_open"); open != 0 {
			t.Errorf("%v streams open", open)
		}
		s.wantMetric("streaming_containers", 0)
	})
}

func TestStreamRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("read")
		s.api.write("read", at(1), "one\n")
		s.api.exit("read")
		s.m.containerExited("read")
		synctest.Wait()
		s.m.containerRemoved("read") // its line is still on its way
		s.want("one")
		time.Sleep(5 * time.Second)
		if keys := s.store.Keys(); len(keys) != 0 {
			t.Errorf("positions left: %q", keys)
		}
		if n := metric(t, s.reg, "stream_gaps_total"); n != 0 {
			t.Errorf("%v gaps", n)
		}
		// One of whose run nothing could be read.
		s.api.failing(docker.ErrUnavailable)
		s.run("lost")
		s.m.containerExited("lost")
		s.m.containerRemoved("lost")
		time.Sleep(time.Minute)
		if n := metric(t, s.reg, "stream_gaps_total"); n != 1 {
			t.Errorf("%v gaps", n)
		}
		if h := s.m.Health(); len(s.m.ids()) != 0 || h.Failed != 0 || h.GapAt.IsZero() {
			t.Errorf("%+v", h)
		}
	})
}

// An engine that does not end the stream of a container that is no more.
func TestStreamThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "one\n")
		s.want("one")
		s.m.containerExited("a") // and the API goes on
		synctest.Wait()
		s.m.containerRemoved("a")
		time.Sleep(streamGrace + time.Second)
		synctest.Wait()
		if _, open := s.api.tries("a"); len(s.m.ids()) != 0 || open != 0 {
			t.Errorf("%+v, %d open", s.m.Health(), open)
		}
		s.want()
	})
}

func TestStreamNotReadable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.api.failing(docker.ErrNotReadable)
		s.run("a")
		for range 10 {
			time.Sleep(time.Minute)
			s.m.add(s.info("a"))
		}
		if n, _ := s.api.tries("a"); n != 1 {
			t.Errorf("tried %d times", n)
		}
		s.wantMetric("streaming_containers", 0)
		s.wantMetric("streams_failed", 0)
		s.wantMetric("stream_errors_total", 0)
		if st, ok := s.m.status("a", time.Now()); !ok || !st.noLog || st.lag != 0 {
			t.Errorf("%+v", st)
		}
		if got := s.m.noLog(); !reflect.DeepEqual(got, map[string]bool{"a": true}) {
			t.Errorf("%v", got)
		}
		// Its next start is a new chance.
		s.api.failing(nil)
		s.api.write("a", at(30), "one\n")
		info := s.info("a")
		info.StartedAt = at(20)
		s.m.add(info)
		s.want("one")
	})
}

func TestStreamHeldByStore(t *testing.T) {
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
		time.Sleep(time.Minute)
		s.want()
		if h := s.m.Health(); h.Held != 1 || h.Lag < time.Minute/2 {
			t.Errorf("%+v", h)
		}
		src.Held.Store(false)
		s.m.Wake(src)
		s.want("two")
		// Held with no connection: none is opened until the store takes its lines.
		src.Held.Store(true)
		s.api.cut("a", io.ErrUnexpectedEOF)
		s.api.write("a", at(3), "three\n")
		time.Sleep(time.Minute)
		s.want()
		if _, open := s.api.tries("a"); open != 0 {
			t.Error("a connection is open")
		}
		src.Held.Store(false)
		s.m.Wake(src)
		s.want("three")
	})
}

func TestStreamReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "one\n", "open")
		s.want("one")
		released := make(chan struct{})
		s.m.release("a", func() { close(released) })
		<-released
		if _, open := s.api.tries("a"); len(s.m.ids()) != 0 || open != 0 {
			t.Errorf("%q, %d open", s.m.ids(), open)
		}
		saved, ok := s.store.Lookup("a")
		if !ok || saved.Read[0].Time != at(1).UnixNano() {
			t.Errorf("%+v", saved)
		}
		again := make(chan struct{})
		s.m.release("a", func() { close(again) })
		<-again // of one that is not there at once
	})
}

func TestStreamFromEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, func(c *StreamMonitorConfig) {
			c.FromEnd, c.FirstStart = true, time.Now().Add(-time.Second)
		})
		old := s.info("old")
		old.Created = time.Now().Add(-time.Hour)
		s.api.start("old")
		s.api.write("old", time.Now().Add(-time.Minute), "before\n")
		s.m.add(old)
		s.want()
		s.api.write("old", time.Now().Add(time.Millisecond), "after\n")
		s.want("after")
	})
}

func TestStreamNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "old\n")
		s.api.exit("a")
		s.m.containerExited("a")
		synctest.Wait()
		info := s.info("a")
		info.Name, info.StartedAt, info.FinishedAt = "renamed", at(20), at(10)
		s.api.start("a")
		s.api.write("a", at(21), "new\n")
		s.m.add(info)
		time.Sleep(followEvery)
		synctest.Wait()
		lines := s.outlet.take()
		if len(lines) != 2 || lines[0].name != "a" || lines[1].name != "renamed" {
			t.Errorf("%+v", lines)
		}
	})
}

// A line that was begun before the start that Docker tells, of a run that is seen when it
// is over, stays one when the other stream writes in the middle of it.
func TestStreamLineAcrossTheStart(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("run before %v", before), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStreaming(t, nil)
				info := s.info("a")
				if before {
					s.run("a")
					s.api.write("a", at(1), "dead ")
					s.api.exit("a")
					s.m.containerExited("a")
					s.want("dead ")
				} else {
					info.StartedAt = time.Time{}
					s.m.add(info) // created
				}
				began := at(20)
				s.api.start("a")
				s.api.change("a", func(l *fakeAPILog) {
					l.entries = append(l.entries,
						apiEntry{time: began.UnixNano(), text: "begun, "},
						apiEntry{time: began.Add(4 * time.Millisecond).UnixNano(), text: "meanwhile\n", stderr: true},
						apiEntry{time: began.UnixNano(), text: "ended\n"})
				})
				s.api.exit("a")
				info.Running, info.StartedAt, info.FinishedAt = false, began.Add(3*time.Millisecond), at(30)
				s.m.add(info)
				time.Sleep(time.Minute)
				s.want("meanwhile", "begun, ended")
			})
		})
	}
}

// At an exit an engine may end a stream before it has sent all.
func TestStreamEndsShort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		s.api.write("a", at(1), "one\n", "half ")
		s.want("one")
		s.api.change("a", func(l *fakeAPILog) {
			l.running = false
			l.ends = append(l.ends, len(l.entries)) // it sends no more than that
			l.entries = append(l.entries, apiEntry{time: at(1).UnixNano() + 1, text: "of it\n"}, apiEntry{time: at(2).UnixNano(), text: "two\n"})
		})
		s.m.containerExited("a")
		s.want("half of it", "two")
		// One that is removed at once: what has come has to do.
		s.run("b")
		s.api.write("b", at(1), "one\n", "no end")
		s.want("one")
		s.api.exit("b")
		s.api.mu.Lock()
		delete(s.api.logs, "b")
		s.api.mu.Unlock()
		s.m.containerExited("b")
		s.want("no end")
		s.m.containerRemoved("b")
		if n := metric(t, s.reg, "stream_gaps_total"); n != 0 {
			t.Errorf("%v gaps", n)
		}
	})
}

// A container that is not captured from its next start on.
func TestStreamExcluded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.api.start("a")
		s.api.write("a", at(1), "one\n", "no end")
		s.api.exit("a")
		s.api.start("a")
		s.api.write("a", at(21), "hush\n", "!hush\n")
		info := s.info("a")
		s.api.failing(docker.ErrUnavailable)
		s.m.add(info)
		s.m.containerExited("a")
		info.StartedAt, info.FinishedAt = at(20), at(10)
		s.m.exclude(info)
		synctest.Wait()
		s.api.failing(nil)
		time.Sleep(time.Minute)
		s.want("one", "no end")
		s.api.write("a", at(30), "hush\n")
		time.Sleep(time.Hour)
		s.want()
		if n, open := s.api.tries("a"); open != 0 || n > 10 {
			t.Errorf("tried %d times, %d open", n, open)
		}
	})
}

// Exits of which nobody has told are counted by what an inspection shows: of a run that
// came and went unseen, too, so that its log is read although that of the run before was.
func TestStreamExitsCounted(t *testing.T) {
	for _, c := range []struct {
		name           string
		exited         bool // the agent was told of the first run's exit
		again, running bool // what is seen then
		want           int
	}{
		{"still runs", false, false, true, 0},
		{"has exited", false, false, false, 1},
		{"has started again", false, true, true, 1},
		{"has started again and exited", false, true, false, 2},
		{"exit told", true, false, false, 1},
		{"exit told, has started again", true, true, true, 1},
		{"exit told, has started again and exited", true, true, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStreaming(t, nil)
				s.run("a")
				if c.exited {
					s.m.containerExited("a")
				}
				info := s.info("a")
				info.Running = c.running
				if c.again {
					info.StartedAt, info.FinishedAt = at(20), at(10)
				}
				s.m.add(info)
				s.m.mu.Lock()
				defer s.m.mu.Unlock()
				if got := s.m.logs["a"].exits; got != c.want {
					t.Errorf("%d exits, want %d", got, c.want)
				}
			})
		})
	}
}

// Streams that break off now and then are not tried ever more slowly.
func TestStreamCutNowAndThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("a")
		for i := range 50 {
			s.api.write("a", at(i), "x\n")
			s.want("x")
			s.api.cut("a", io.ErrUnexpectedEOF)
			time.Sleep(2 * streamRetryFirst)
		}
	})
}

func TestStreamRunOver(t *testing.T) {
	for _, c := range []struct {
		run   streamRun
		exits int
		over  bool
	}{
		{streamRun{follow: true, running: true, exits: 0}, 0, false}, // the engine was shut down
		{streamRun{follow: true, running: true, exits: 0}, 1, true},
		{streamRun{follow: true, running: true, exits: 3}, 3, false},
		{streamRun{follow: false, running: true, exits: 0}, 1, false}, // it exited after the turn began, perhaps with last words
		{streamRun{follow: false, running: false, exits: 1}, 1, true},
		{streamRun{follow: true, running: false, exits: 1}, 1, true},
	} {
		if got := c.run.over(c.exits); got != c.over {
			t.Errorf("%+v with %d exits: %v", c.run, c.exits, got)
		}
	}
}

func TestSinceOf(t *testing.T) {
	file := entry.FileID{Inode: 1, Handle: 2}
	s := int64(time.Second)
	for name, c := range map[string]struct {
		out, err entry.Position
		want     int64
	}{
		"nothing":                      {},
		"one stream only":              {out: entry.Position{Time: 5 * s}},
		"both":                         {entry.Position{Time: 5 * s}, entry.Position{Time: 9 * s}, 5 * s},
		"one place of a file":          {entry.Position{File: file, Offset: 9, Time: 5 * s}, entry.Position{File: file, Offset: 9, Time: 900 * s}, 899 * s},
		"one place, one never came":    {entry.Position{File: file, Offset: 9}, entry.Position{File: file, Offset: 9, Time: 900 * s}, 899 * s},
		"the beginning of a file":      {entry.Position{File: file}, entry.Position{File: file}, 0},
		"two places of a file":         {entry.Position{File: file, Offset: 8, Time: 5 * s}, entry.Position{File: file, Offset: 9, Time: 900 * s}, 5 * s},
		"two places, one never came":   {entry.Position{File: file, Offset: 8}, entry.Position{File: file, Offset: 9, Time: 900 * s}, 0},
		"from a file and from the API": {entry.Position{File: file, Offset: 8, Time: 7 * s}, entry.Position{Time: 6 * s}, 6 * s},
	} {
		if got := sinceOf([2]entry.Position{c.out, c.err}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A thousand containers that come, write, exit and go leave nothing behind:
// neither goroutine nor connection nor position.
func TestStreamThousandStartsAndStops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStreaming(t, nil)
		s.run("stays")
		before := ourGoroutines()
		lines := 0
		for i := range 1000 {
			id := fmt.Sprintf("c%d", i)
			s.run(id)
			s.api.write(id, at(i), "one\n", "!two\n")
			s.api.exit(id)
			s.m.containerExited(id)
			if i%3 > 0 { // the last of three is removed before its stream has ended
				synctest.Wait()
			}
			s.m.containerRemoved(id)
			if i%50 == 49 {
				lines += len(s.lines())
				time.Sleep(streamGrace)
			}
		}
		time.Sleep(time.Minute)
		lines += len(s.lines())
		if after := ourGoroutines(); after != before {
			t.Errorf("%d goroutines, %d before", after, before)
		}
		if _, open := s.api.tries("stays"); open != 1 {
			t.Errorf("%d connections", open)
		}
		if keys, ids := s.store.Keys(), s.m.ids(); len(keys) != 1 || len(ids) != 1 {
			t.Errorf("%d positions, %d logs", len(keys), len(ids))
		}
		if gaps := metric(t, s.reg, "stream_gaps_total"); lines != 2000 || gaps != 0 {
			t.Errorf("%d lines, %v gaps", lines, gaps)
		}
	})
}
