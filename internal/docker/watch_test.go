package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// recorder is a Watcher that writes down what it is told.
type recorder struct {
	mu    sync.Mutex // guards the next three
	calls []string
	errs  []error
	times []time.Time // of every call

	block chan struct{} // when set, Event waits for it
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, s)
	r.times = append(r.times, time.Now())
}

func (r *recorder) Resync(_ context.Context, all []Summary) {
	s := "resync"
	for _, c := range all {
		s += " " + c.ID
	}
	r.note(s)
}

func (r *recorder) Event(_ context.Context, e Event) {
	if r.block != nil {
		<-r.block
	}
	r.note(e.Action + " " + e.ID)
}

func (r *recorder) Disconnected(err error) {
	r.mu.Lock()
	r.errs = append(r.errs, err)
	r.mu.Unlock()
	r.note("disconnected")
}

// err gives the last error of Disconnected.
func (r *recorder) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) == 0 {
		return nil
	}
	return r.errs[len(r.errs)-1]
}

// at gives the time of the first call that says s.
func (r *recorder) at(s string) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.calls, s); i >= 0 {
		return r.times[i], true
	}
	return time.Time{}, false
}

// take gives the calls so far and forgets them.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.calls
	r.calls, r.times = nil, nil
	return c
}

// watching starts Watch and ends it, waiting for it, when the test ends.
func watching(t *testing.T, c *Client, w Watcher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, w) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch returned %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func wantCalls(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("the watcher was told\n  %q\nwant\n  %q", got, want)
	}
}

func one(id string) []map[string]any {
	return []map[string]any{{"Id": id, "Names": []string{"/n-" + id}, "State": "running"}}
}

func TestWatchSubscribesBeforeListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{}
		// The list is made, then a container is created, then the list goes out.
		release := make(chan struct{})
		e.set(func() {
			e.hooks["/containers/json"] = func(w http.ResponseWriter, _ *http.Request) {
				<-release
				_, _ = w.Write([]byte(`[{"Id":"a","Names":["/n-a"],"State":"running"}]`))
			}
		})
		watching(t, e.client(t), r)
		synctest.Wait()
		sub := <-e.subs
		sub.write <- message("create", "b")
		sub.write <- message("start", "b")
		synctest.Wait()
		wantCalls(t, r.take()) // nothing before the list
		close(release)
		synctest.Wait()
		wantCalls(t, r.take(), "resync a", "create b", "start b")

		got := slices.DeleteFunc(e.seen(), func(s string) bool { return strings.HasSuffix(s, "_ping") })
		if want := []string{"GET /v1.41/events", "GET /v1.41/containers/json"}; !slices.Equal(got, want) {
			t.Errorf("requests %q, want %q", got, want)
		}
		q, err := url.ParseQuery(sub.query)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d.000000000", time.Now().Unix()-1); q.Get("since") != want {
			t.Errorf("since=%s, want %s: one second before the subscription", q.Get("since"), want)
		}
		for _, want := range []string{`"type":{"container":true}`, `"start":true`, `"die":true`, `"destroy":true`, `"rename":true`} {
			if !strings.Contains(q.Get("filters"), want) {
				t.Errorf("filters %s lack %s", q.Get("filters"), want)
			}
		}
	})
}

func TestWatchLosesStream(t *testing.T) {
	for _, tc := range []struct {
		name   string
		lose   func(*subscription)
		reason string
	}{
		{"clean end", func(s *subscription) { s.end <- true }, "closed the event stream"},
		{"cut", func(s *subscription) { s.end <- false }, "was cut"},
		{"half a frame", func(s *subscription) { s.write <- message("die", "a")[:40]; s.end <- false }, "was cut"},
		{"half a frame, clean end", func(s *subscription) { s.write <- message("die", "a")[:40]; s.end <- true }, "was cut"},
		{"no JSON", func(s *subscription) { s.write <- "<html>\n" }, "was lost"},
		{"another type", func(s *subscription) { s.write <- `{"Type":{"a":1}}` + "\n" }, "was lost"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newFakeEngine(t)
				e.set(func() { e.list = one("a") })
				r := &recorder{}
				reg := prometheus.NewRegistry()
				c := e.client(t, WithRegisterer(reg))
				stop := watching(t, c, r)
				sub := <-e.subs
				sub.write <- message("start", "a")
				synctest.Wait()
				if v := testutil.ToFloat64(c.metrics.up); v != 1 {
					t.Errorf("up is %v while connected", v)
				}
				tc.lose(sub)
				synctest.Wait()
				wantCalls(t, r.take(), "resync a", "start a", "disconnected")
				if err := r.err(); !IsUnavailable(err) || !strings.Contains(err.Error(), tc.reason) || !strings.Contains(err.Error(), "unix:///fake/docker.sock") {
					t.Errorf("error %q is not ErrUnavailable, or does not say %q and the host", err, tc.reason)
				}
				if v := testutil.ToFloat64(c.metrics.up); v != 0 {
					t.Errorf("up is %v while disconnected", v)
				}
				e.set(func() { e.list = one("b") })
				sub = <-e.subs
				sub.write <- message("destroy", "b")
				synctest.Wait()
				wantCalls(t, r.take(), "resync b", "destroy b")
				if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP log_capturer_docker_events_total Container events handled, by action.
# TYPE log_capturer_docker_events_total counter
log_capturer_docker_events_total{action="create"} 0
log_capturer_docker_events_total{action="destroy"} 1
log_capturer_docker_events_total{action="die"} 0
log_capturer_docker_events_total{action="rename"} 0
log_capturer_docker_events_total{action="start"} 1
log_capturer_docker_events_total{action="stop"} 0
# HELP log_capturer_docker_reconnects_total Times that the event stream of the Docker engine was set up again after it had been lost.
# TYPE log_capturer_docker_reconnects_total counter
log_capturer_docker_reconnects_total 1
# HELP log_capturer_docker_up 1 while container events are received from the Docker engine, else 0.
# TYPE log_capturer_docker_up gauge
log_capturer_docker_up 1
`)); err != nil {
					t.Error(err)
				}
				stop()
				if v := testutil.ToFloat64(c.metrics.up); v != 0 {
					t.Errorf("up is %v after the end", v)
				}
			})
		})
	}
}

// TestWatchOutage: whatever fails, it is said once, retried with growing pauses
// for as long as it takes, and the recovery is seen.
func TestWatchOutage(t *testing.T) {
	for _, tc := range []struct {
		name        string
		fail, heal  func(*fakeEngine)
		says        string
		unavailable bool
	}{
		{"ping 500", func(e *fakeEngine) { e.hooks["/_ping"] = status(500) }, func(e *fakeEngine) { delete(e.hooks, "/_ping") }, "made to fail", true},
		{"events 500", func(e *fakeEngine) { e.hooks["/events"] = status(500) }, func(e *fakeEngine) { delete(e.hooks, "/events") }, "subscribe to events", true},
		{"events 403", func(e *fakeEngine) { e.hooks["/events"] = status(403) }, func(e *fakeEngine) { delete(e.hooks, "/events") }, "made to fail with 403", false},
		{"list 500", func(e *fakeEngine) { e.hooks["/containers/json"] = status(500) }, func(e *fakeEngine) { delete(e.hooks, "/containers/json") }, "list containers", true},
		{"ping hangs", func(e *fakeEngine) { e.hooks["/_ping"] = hang }, func(e *fakeEngine) { delete(e.hooks, "/_ping") }, "no answer within 10s", true},
		{"events hangs", func(e *fakeEngine) { e.hooks["/events"] = hang }, func(e *fakeEngine) { delete(e.hooks, "/events") }, "no answer within 10s", true},
		{"list hangs", func(e *fakeEngine) { e.hooks["/containers/json"] = hang }, func(e *fakeEngine) { delete(e.hooks, "/containers/json") }, "no answer within 10s", true},
		{"refused", func(e *fakeEngine) { e.refuse = true }, func(e *fakeEngine) { e.refuse = false }, "does not exist", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newFakeEngine(t)
				e.set(func() { tc.fail(e); e.list = one("a") })
				var logs bytes.Buffer
				r := &recorder{}
				c := e.client(t, WithLogger(slog.New(slog.NewTextHandler(&logs, nil))))
				watching(t, c, r)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				wantCalls(t, r.take(), "disconnected")
				if err := r.err(); !strings.Contains(err.Error(), tc.says) || IsUnavailable(err) != tc.unavailable {
					t.Errorf("error %q: want %q in it, IsUnavailable %v", err, tc.says, tc.unavailable)
				}
				if n := strings.Count(logs.String(), "level=ERROR"); n != 1 {
					t.Errorf("logged the outage %d times:\n%s", n, &logs)
				}
				if v := testutil.ToFloat64(c.metrics.up); v != 0 {
					t.Errorf("up is %v in an outage", v)
				}
				e.set(func() { tc.heal(e) })
				time.Sleep(20 * time.Second) // longest pause and a call that still hangs
				synctest.Wait()
				wantCalls(t, r.take(), "resync a")
				if n := strings.Count(logs.String(), "level=INFO msg=\"the Docker engine is back\""); n != 1 {
					t.Errorf("logged the recovery %d times:\n%s", n, &logs)
				}
				if v := testutil.ToFloat64(c.metrics.reconnects); v != 0 {
					t.Errorf("counted %v reconnects although nothing had been connected", v)
				}
			})
		})
	}
}

func TestWatchPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		var at []time.Time
		e.set(func() {
			e.hooks["/_ping"] = func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet { // moby repeats a failed HEAD as GET
					e.set(func() { at = append(at, time.Now()) })
				}
				status(500)(w, r)
			}
		})
		stop := watching(t, e.client(t), &recorder{})
		time.Sleep(10 * time.Minute)
		stop()
		if len(at) < 60 || len(at) > 200 {
			t.Fatalf("%d attempts in 10 minutes of outage", len(at))
		}
		for i := 1; i < len(at); i++ {
			pause := at[i].Sub(at[i-1])
			if pause < 250*time.Millisecond || pause > 10*time.Second {
				t.Errorf("pause %d is %v, want 0.25s to 10s", i, pause)
			}
			if i == 1 && pause > 750*time.Millisecond {
				t.Errorf("the first pause is %v, want at most 0.75s", pause)
			}
			if i > 5 && pause < 3*time.Second {
				t.Errorf("pause %d is %v, want at least 3s", i, pause)
			}
		}
	})
}

// TestWatchFlapping: an engine that accepts and cuts at once is not hammered;
// after a steady connection the first pause is short again.
func TestWatchFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{}
		watching(t, e.client(t), r)
		start := time.Now()
		for range 10 {
			sub := <-e.subs
			synctest.Wait()
			sub.end <- false
		}
		if d := time.Since(start); d < 15*time.Second {
			t.Errorf("10 connections that did not last took only %v", d)
		}
		sub := <-e.subs
		time.Sleep(time.Minute)
		lost := time.Now()
		sub.end <- false
		<-e.subs
		if d := time.Since(lost); d > 750*time.Millisecond {
			t.Errorf("reconnected %v after the loss of a steady connection", d)
		}
	})
}

func TestWatchFrozenEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{}
		watching(t, e.client(t), r)
		<-e.subs
		time.Sleep(45 * time.Second) // one ping was answered
		synctest.Wait()
		wantCalls(t, r.take(), "resync")
		frozen := time.Now()
		e.set(func() { e.hooks["/_ping"] = hang }) // the stream stays open
		time.Sleep(time.Minute)
		synctest.Wait()
		noticed, ok := r.at("disconnected")
		if d := noticed.Sub(frozen); !ok || d > 40*time.Second {
			t.Errorf("noticed after %v (%v), want at most 40s", d, ok)
		}
		wantCalls(t, r.take(), "disconnected")
		if err := r.err(); !IsUnavailable(err) || !strings.Contains(err.Error(), "no answer within 10s") {
			t.Errorf("error %v", err)
		}
	})
}

func TestWatchResyncsPeriodically(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		e.set(func() { e.list = one("a") })
		r := &recorder{}
		watching(t, e.client(t), r)
		sub := <-e.subs
		start := time.Now()
		synctest.Wait()
		wantCalls(t, r.take(), "resync a")
		e.set(func() { e.list = one("b") })
		// Events without a break do not put it off.
		for range 30 {
			time.Sleep(11 * time.Second)
			sub.write <- message("start", "b")
		}
		synctest.Wait()
		at, ok := r.at("resync b")
		if d := at.Sub(start); !ok || d != DefaultResyncEvery {
			t.Errorf("resync after %v (%v), want %v", d, ok, DefaultResyncEvery)
		}
		if n := len(r.take()); n != 31 {
			t.Errorf("told %d things, want 30 events and 1 resync", n)
		}
		time.Sleep(DefaultResyncEvery)
		synctest.Wait()
		wantCalls(t, r.take(), "resync b")
	})
}

// TestWatchResyncIsNotStarved: the interval is configurable, and kept although
// events are waiting.
func TestWatchResyncIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{block: make(chan struct{})}
		watching(t, e.client(t, WithResyncEvery(time.Second)), r)
		sub := <-e.subs
		for range 100 {
			sub.write <- message("start", "a")
		}
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond) // the watcher is in its first event
		r.block <- struct{}{}
		synctest.Wait()
		wantCalls(t, r.take(), "resync", "start a", "resync")
		close(r.block)
		synctest.Wait()
		if got := r.take(); len(got) != 99 {
			t.Errorf("told %d things, want the other 99 events", len(got))
		}
	})
}

// TestWatchOverflow: a watcher that stands still costs bounded memory, and gets
// the truth by a list when it goes on.
func TestWatchOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		var logs bytes.Buffer
		r := &recorder{block: make(chan struct{})}
		watching(t, e.client(t, WithLogger(slog.New(slog.NewTextHandler(&logs, nil)))), r)
		sub := <-e.subs
		sub.write <- message("start", "first")
		synctest.Wait()
		var burst strings.Builder
		for i := range queueCap + 5 {
			burst.WriteString(message("start", fmt.Sprint(i)))
		}
		sub.write <- burst.String()
		synctest.Wait() // the engine was never made to wait
		e.set(func() { e.list = one("truth") })
		close(r.block)
		synctest.Wait()
		wantCalls(t, r.take(), "resync", "start first", "resync truth",
			"start 10000", "start 10001", "start 10002", "start 10003", "start 10004")
		if n := strings.Count(logs.String(), "were dropped"); n != 1 {
			t.Errorf("the overflow was logged %d times", n)
		}
	})
}

func TestWatchNegotiatesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{}
		c := e.client(t)
		watching(t, c, r)
		sub := <-e.subs
		synctest.Wait()
		e.seen()
		for _, version := range []string{"1.44", "1.40", "1.99"} {
			e.set(func() { e.version = version })
			sub.end <- true
			sub = <-e.subs
			synctest.Wait()
			want := "GET /v" + version + "/containers/json"
			if version == "1.99" { // newer than the client knows
				want = "GET /v1.56/containers/json"
			}
			if got := e.seen(); !slices.Contains(got, want) {
				t.Errorf("after an engine of %s came up: %q, want %s", version, got, want)
			}
		}
		e.set(func() { e.version = "1.39" }) // older than the client can
		r.take()
		sub.end <- true
		time.Sleep(time.Minute)
		synctest.Wait()
		wantCalls(t, r.take(), "disconnected")
	})
}

// TestWatchWaitsForItsGoroutines: when Watch has returned, nothing of it runs.
func TestWatchWaitsForItsGoroutines(t *testing.T) {
	stacks := make([]byte, 1<<20)
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			e := newFakeEngine(t)
			stop := watching(t, e.client(t), &recorder{})
			<-e.subs
			synctest.Wait()
			e.set(func() { e.hooks["/_ping"] = hang })
			time.Sleep(pingEvery + time.Second) // a ping hangs
			stop()
			gone := func(functions ...string) {
				now := string(stacks[:runtime.Stack(stacks, true)])
				for _, f := range functions {
					if strings.Contains(now, f) {
						t.Fatalf("%s is still running", f)
					}
				}
			}
			gone("internal/docker.read(", "internal/docker.(*Client).beat(")
			// That of moby has closed its channel, which is what can be waited
			// for, and may be in its last instructions.
			synctest.Wait()
			gone("client.(*Client).Events.func")
		})
	}
}

func TestWatchEndsWhileHandling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{block: make(chan struct{})}
		stop := watching(t, e.client(t), r)
		sub := <-e.subs
		for range 100 {
			sub.write <- message("start", "a")
		}
		synctest.Wait()
		go func() { time.Sleep(time.Second); close(r.block) }()
		stop()
		wantCalls(t, r.take(), "resync", "start a") // and not the rest
	})
}

func TestWatchGoroutinesConstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		r := &recorder{}
		c := e.client(t)
		watching(t, c, r)
		first, stacks := 0, make([]byte, 1<<20)
		for i := range 100 {
			sub := <-e.subs
			for range 20 {
				sub.write <- message("start", "a")
			}
			time.Sleep(45 * time.Second)     // a ping was answered
			_ = c.current.Load().api.Close() // how many connections idle is chance
			synctest.Wait()
			// Not runtime.NumGoroutine: the runtime's own come and go.
			n := strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "synctest bubble")
			if i == 0 {
				first = n
			} else if n != first {
				t.Fatalf("%d goroutines on connection %d, %d on the first", n, i, first)
			}
			sub.end <- i%2 == 0
		}
	})
}

func TestQueue(t *testing.T) {
	q := newQueue(3)
	if it := q.take(); it != (item{}) {
		t.Fatalf("an empty queue gave %+v", it)
	}
	end := errors.New("end")
	for i := range 4 {
		q.push(Event{ID: fmt.Sprint(i)})
	}
	q.close(end)
	if it := q.take(); !it.overflow {
		t.Fatalf("got %+v, want the overflow first", it)
	}
	if it := q.take(); it.event == nil || it.event.ID != "3" {
		t.Fatalf("got %+v, want event 3", it)
	}
	for range 2 {
		if it := q.take(); !errors.Is(it.err, end) {
			t.Fatalf("got %+v, want the end", it)
		}
	}
}
