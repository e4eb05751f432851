package loki

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// slowPoster is a way to a store that takes a request when its answer is waited for: as many are
// on their way as may be.
type slowPoster struct{ poster }

func (p slowPoster) send(_ context.Context, deadline time.Time, authorization string, payload []byte) exchange {
	return &slowExchange{p.poster, deadline, authorization, bytes.Clone(payload)}
}

type slowExchange struct {
	p             poster
	deadline      time.Time
	authorization string
	payload       []byte
}

func (*slowExchange) answered() bool { return false }

func (e *slowExchange) receive(ctx context.Context, l *lane) (reply, error) {
	return e.p.send(ctx, e.deadline, e.authorization, e.payload).receive(ctx, l)
}

// watchedPoster tells of each payload that is sent, and of each whose answer has come.
type watchedPoster struct {
	poster
	sent, landed func(payload []byte)
}

func (p watchedPoster) send(ctx context.Context, deadline time.Time, authorization string, payload []byte) exchange {
	payload = bytes.Clone(payload)
	p.sent(payload)
	return watchedExchange{p.poster.send(ctx, deadline, authorization, payload), func() { p.landed(payload) }}
}

type watchedExchange struct {
	exchange
	landed func()
}

func (e watchedExchange) receive(ctx context.Context, l *lane) (reply, error) {
	defer e.landed()
	return e.exchange.receive(ctx, l)
}

// slow makes requests of a rig overlap, n of them, or two after a first answer if n is 1, and has each
// told of.
func (r *rig) slow(n int, sent, landed func(payload []byte)) {
	r.c.window.n, r.c.window.most = n, max(n, 2)
	r.c.poster = watchedPoster{slowPoster{r.c.poster}, sent, landed}
}

func nobody([]byte) {}

// beside is slow, and tells of each request how many others were on their way when it was sent.
func (r *rig) beside(n int) *[]int {
	up := 0
	var others []int
	r.slow(n, func([]byte) {
		others = append(others, up)
		up++
	}, func([]byte) { up-- })
	return &others
}

// streamsOf makes a batch with a line of each of n streams.
func streamsOf(n int) *entry.Batch {
	b := new(entry.Batch)
	for i := range n {
		appendSection(b, labelled(fmt.Sprint(i)), line(start, "x"))
	}
	return b
}

// TestFlights: a store that waits for maxFlights requests before it answers any gets them.
func TestFlights(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		var mu sync.Mutex
		n, open, most := 0, 0, 0
		full := make(chan struct{})
		var once sync.Once
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			n++
			if open++; open == maxFlights {
				once.Do(func() { close(full) })
			}
			most = max(most, open)
			mu.Unlock()
			select {
			case <-full:
			case <-req.Context().Done():
			}
			mu.Lock()
			open--
			mu.Unlock()
			w.WriteHeader(http.StatusNoContent)
		}))
		if store == nil {
			srv.Start()
		} else {
			srv.TLS = store
			srv.StartTLS()
		}
		defer srv.Close()
		c, err := New(Config{URL: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		if ours != nil {
			conns, ok := c.poster.(*connections)
			if !ok {
				t.Fatalf("%T", c.poster)
			}
			conns.tls.RootCAs = ours.RootCAs
		}
		defer c.Close()
		c.window.n = maxFlights
		b := streamsOf(maxFlights + 3)
		if out := c.Push(soon(t), b, ignore); out.Err != nil || n != maxFlights+3 || most != maxFlights {
			t.Fatalf("%v; %d requests, %d at once", out.Err, n, most)
		}
	})
}

// TestFlightsOfOneStream: lines of one stream are never in two requests at once, and come in
// their order.
func TestFlightsOfOneStream(t *testing.T) {
	r := newRig(t, nil, func(c *Config) { c.BatchBytes = 200 })
	up := map[string]bool{}
	most := 0
	name := func(payload []byte) string { return decode(t, payload).Streams[0].Labels }
	r.slow(3, func(payload []byte) {
		if up[name(payload)] {
			t.Errorf("a second request of %s", name(payload))
		}
		up[name(payload)] = true
		most = max(most, len(up))
	}, func(payload []byte) { delete(up, name(payload)) })
	var want []string
	b := new(entry.Batch)
	for _, stream := range []string{"a", "b", "c"} {
		lines, texts := numbered(start, 20, "line of "+stream+" ")
		appendSection(b, labelled(stream), lines...)
		want = append(want, texts...)
	}
	r.accepted(b, r.push(b))
	r.stored(want)
	if n := r.requests(); n < 10 || most < 2 {
		t.Fatalf("%d requests, %d at once", n, most)
	}
}

// TestFlightsInTrouble: what becomes of the requests that are on their way with one that is
// refused, and of those that are not sent yet.
func TestFlightsInTrouble(t *testing.T) {
	five := func() *entry.Batch {
		b := new(entry.Batch)
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			appendSection(b, labelled(name), line(start, name))
		}
		return b
	}
	t.Run("nothing is known of the store", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.slow(1, nobody, nobody)
		r.srv.Always(&lokitest.Fault{Status: 503})
		b := five()
		if out := r.push(b); out.Err == nil || r.requests() != 1 {
			t.Fatalf("%v after %d requests", out.Err, r.requests())
		}
		r.srv.Always(nil)
		r.srv.Next(lokitest.Fault{}, lokitest.Fault{Status: 503})
		if out := r.push(b); out.Err == nil || r.requests() != 4 {
			t.Fatalf("%v after %d requests", out.Err, r.requests())
		}
		r.states(b, entry.PartAccepted, entry.PartPending, entry.PartAccepted, entry.PartPending, entry.PartPending)
		if out := r.push(b); out.Err != nil || r.requests() != 7 {
			t.Fatalf("%v after %d requests", out.Err, r.requests())
		}
		r.stored([]string{"a", "c", "b", "d", "e"})
	})
	t.Run("two reasons", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.slow(3, nobody, nobody)
		r.srv.Next(
			lokitest.Fault{}, lokitest.Fault{Status: 503, Body: "the first", Header: http.Header{"Retry-After": {"3"}}},
			lokitest.Fault{}, lokitest.Fault{Status: 401, Body: "the second"})
		b := five()
		out := r.push(b)
		if out.Err == nil || !strings.Contains(out.Err.Error(), "the first") || out.Config || out.RetryAfter != 3*time.Second {
			t.Fatalf("%+v", out)
		}
		r.states(b, entry.PartAccepted, entry.PartPending, entry.PartAccepted, entry.PartPending, entry.PartPending)
		if n := r.requests(); n != 4 {
			t.Fatalf("%d requests", n)
		}
		if h := r.c.Health(); h.FailingSince.IsZero() || h.LastSuccess.IsZero() {
			t.Fatalf("%+v", h)
		}
	})
	t.Run("a stream is refused", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.srv.Next(lokitest.Fault{}, lokitest.Fault{Status: 429, Body: "Maximum active stream limit exceeded"})
		beside := r.beside(3)
		b := five()
		if out := r.push(b); out.Err == nil || out.Config {
			t.Fatalf("%+v", out)
		}
		r.states(b, entry.PartAccepted, entry.PartHeld, entry.PartAccepted)
		// The last waits until nothing is in doubt any more.
		if want := []int{0, 1, 2, 2, 0}; !slices.Equal(*beside, want) {
			t.Fatalf("sent beside %v others, not %v", *beside, want)
		}
	})
	t.Run("the store takes no metadata", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Limits.NoMetadata, o.Limits.HeadBlock = true, 0 }, nil)
		r.slow(3, nobody, nobody)
		// What has none is stored at once, what has some in the same request is not.
		b := batchOf(labelled("first"), line(start, "first"))
		for i := range 3 {
			src := labelled(fmt.Sprint(i))
			appendSection(b, src, line(start, fmt.Sprint("whole ", i)), testLine{at: start.UnixNano() + 1, text: fmt.Sprint("part ", i), flags: entry.FlagPartial})
		}
		r.accepted(b, r.push(b))
		got := r.srv.Texts()
		slices.Sort(got)
		if want := []string{"first", "part 0", "part 1", "part 2", "whole 0", "whole 1", "whole 2"}; !slices.Equal(got, want) {
			t.Fatalf("stored %q", got)
		}
	})
	t.Run("given up after the store's failure", func(t *testing.T) {
		r := newRig(t, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		r.slow(3, nobody, func([]byte) {
			if n++; n == 3 {
				cancel()
			}
		})
		r.srv.Next(lokitest.Fault{}, lokitest.Fault{Status: 503, Body: "the store"})
		if out := r.c.Push(ctx, five(), ignore); out.Err == nil || !strings.Contains(out.Err.Error(), "the store") {
			t.Fatalf("%+v", out)
		}
		if h := r.c.Health(); h.FailingSince.IsZero() {
			t.Fatalf("the store's failure is forgotten: %+v", h)
		}
	})
	t.Run("the agent stops", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.slow(3, nobody, nobody)
		b := five()
		told := 0
		out := r.c.Push(t.Context(), b, func(context.Context) {
			told++
			b.Enough = true
		})
		// Three were on their way then.
		if out.Err == nil || out.Config || r.requests() != 3 || told != 1 {
			t.Fatalf("%+v after %d requests, told %d times", out, r.requests(), told)
		}
		r.states(b, entry.PartAccepted, entry.PartAccepted, entry.PartAccepted, entry.PartPending)
		if h := r.c.Health(); !h.FailingSince.IsZero() {
			t.Fatalf("our own end counts as the store's: %+v", h)
		}
	})
	t.Run("given up", func(t *testing.T) {
		r := newRig(t, nil, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		n := 0
		r.slow(3, func([]byte) {
			if n++; n == 4 {
				cancel(errors.New("enough"))
			}
		}, nobody)
		b := five()
		out := r.c.Push(ctx, b, ignore)
		if out.Err == nil || !strings.Contains(out.Err.Error(), "given up: enough") {
			t.Fatalf("%+v", out)
		}
		r.states(b, entry.PartAccepted, entry.PartPending)
		if h := r.c.Health(); !h.FailingSince.IsZero() {
			t.Fatalf("our own end counts as the store's: %+v", h)
		}
		r.c.poster = r.c.poster.(watchedPoster).poster
		r.accepted(b, r.push(b))
		r.stored([]string{"a", "b", "c", "d", "e"})
	})
}

// TestWindow: the table of nextWindow.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		n    int
		kind kind
		took time.Duration
		want int
	}{
		{1, kindAccepted, time.Millisecond, 2},
		{5, kindAccepted, quickAnswer - 1, 6},
		{5, kindAccepted, quickAnswer, 5},
		{5, kindAccepted, slowAnswer, 5},
		{5, kindAccepted, slowAnswer + 1, 2},
		{1, kindAccepted, time.Minute, 1},
		{5, kindLines, time.Millisecond, 5},
		{5, kindStream, time.Millisecond, 5},
		{5, kindSplit, time.Millisecond, 5},
		{5, kindUnknown, time.Minute, 2},
		{5, kindRetry, time.Millisecond, 1},
		{5, kindPause, time.Millisecond, 1},
		{5, kindConfig, time.Millisecond, 1},
	} {
		if got := nextWindow(c.n, c.kind, c.took, true); got != c.want {
			t.Errorf("%d, kind %d after %v: %d, want %d", c.n, c.kind, c.took, got, c.want)
		}
	}
	if got := nextWindow(5, kindAccepted, time.Millisecond, false); got != 5 {
		t.Errorf("%d after an answer that nothing waited for", got)
	}
	w := window{n: 1, most: maxFlights}
	grows := func(now time.Time, want int) {
		t.Helper()
		for range 2 * maxFlights {
			w.note(kindAccepted, 0, true, now)
		}
		if w.get() != want {
			t.Errorf("it grows to %d, not to %d", w.get(), want)
		}
	}
	grows(start, maxFlights)
	for range 3 { // the answers to what was on its way at once
		w.note(kindRetry, 0, false, start)
	}
	grows(start.Add(lowFor-1), maxFlights/2)
	w.note(kindPause, 0, true, start.Add(lowFor-1))
	grows(start.Add(lowFor), maxFlights/4)
	grows(start.Add(2*lowFor), maxFlights)
}

// TestDistance: the shortest time of an answer of late, of those that accept.
func TestDistance(t *testing.T) {
	const ms = time.Millisecond
	w := window{n: 1, most: 1}
	at := start
	note := func(k kind, took time.Duration) { w.note(k, took, false, at) }
	is := func(want time.Duration) {
		t.Helper()
		if got := w.distance(at); got != want {
			t.Errorf("after %v: %v away, want %v", at.Sub(start), got, want)
		}
	}
	is(0)
	note(kindAccepted, 50*ms)
	note(kindAccepted, 70*ms)
	note(kindRetry, ms)
	note(kindPause, ms)
	is(50 * ms)
	at = at.Add(nearestFor - 1)
	note(kindAccepted, 40*ms)
	at = at.Add(1) // what has come until now still counts, for as long again
	note(kindAccepted, 90*ms)
	is(40 * ms)
	at = at.Add(nearestFor)
	is(90 * ms)
	at = at.Add(2 * nearestFor)
	is(0)
	note(kindAccepted, 60*ms)
	is(60 * ms)
}

// TestDistanceIsTold: where several requests were on their way at once, and a larger batch would have
// made more of them.
func TestDistanceIsTold(t *testing.T) {
	r := newRig(t, nil, func(c *Config) { c.BatchBytes = 1000 })
	r.slow(1, nobody, nobody)
	r.c.window.most = maxFlights
	told := func(b *entry.Batch) bool {
		t.Helper()
		out := r.push(b)
		r.accepted(b, out)
		if out.Distance != 0 && out.Distance != r.c.window.distance(time.Now()) {
			t.Errorf("%v away, not %v", out.Distance, r.c.window.distance(time.Now()))
		}
		return out.Distance > 0
	}
	if told(batchOf(labelled("0"), line(start, "x"))) {
		t.Error("of one request")
	}
	if told(streamsOf(1)) || !told(streamsOf(5)) {
		t.Error("not of many requests, or of one")
	}
	b := streamsOf(5)
	appendSection(b, labelled("loud"), line(start, strings.Repeat("x", 600)), line(start, strings.Repeat("y", 600)))
	if told(b) {
		t.Error("of requests of which two are of one stream, and are most")
	}
	r.c.window.n, r.c.window.most = 1, 1
	if told(streamsOf(5)) {
		t.Error("of requests one by one")
	}
}

// TestCutsBetweenParts: what the store has taken of a stream with several requests is not sent
// again when it refuses the next.
func TestCutsBetweenParts(t *testing.T) {
	r := newRig(t, nil, func(c *Config) { c.BatchBytes = 300 })
	b := new(entry.Batch)
	src := labelled("a")
	text := func(s string) string { return strings.Repeat(s, 50) }
	appendSection(b, src, line(start, text("1")), line(start, text("2")))
	appendSection(b, src, line(start, text("3")), line(start, text("4")))
	appendSection(b, src, line(start, text("5")), line(start, text("6")), line(start, text("7")), line(start, text("8")), line(start, text("9")))
	var sent []string
	r.slow(1, func(payload []byte) {
		var of strings.Builder
		for _, e := range decode(t, payload).Streams[0].Entries {
			of.WriteString(e.Line[:1])
		}
		sent = append(sent, of.String())
	}, nobody)
	r.srv.Next(lokitest.Fault{}, lokitest.Fault{Status: 429})
	if out := r.push(b); out.Err == nil {
		t.Fatal("no error")
	}
	r.states(b, entry.PartAccepted, entry.PartPending, entry.PartPending)
	if b.Taken {
		t.Error("lines are marked of parts that are accepted, or of which nothing is")
	}
	// A part that is larger than a request is cut.
	r.srv.Next(lokitest.Fault{}, lokitest.Fault{}, lokitest.Fault{Status: 429})
	if out := r.push(b); out.Err == nil {
		t.Fatal("no error")
	}
	r.states(b, entry.PartAccepted, entry.PartAccepted, entry.PartPending)
	var taken []string
	for i := range b.Lines {
		if l := &b.Lines[i]; l.Flags&entry.FlagTaken != 0 {
			taken = append(taken, string(b.Message(l)[:1]))
		}
	}
	if want := []string{"5", "6", "7"}; !b.Taken || !slices.Equal(taken, want) {
		t.Errorf("taken %v, want %v", taken, want)
	}
	r.accepted(b, r.push(b))
	if want := []string{"12", "34", "34", "567", "89", "89"}; !slices.Equal(sent, want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
}

// TestRounds: streams that take several requests each have them sent in turns, so that they are on
// their way at once; but not where requests are sent one by one.
func TestRounds(t *testing.T) {
	for window, want := range map[int][]string{
		maxFlights: {"a1", "b1", "c1", "d1", "a2", "b2", "c2", "a3", "b3", "c3"},
		1:          {"a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2", "c3", "d1"},
	} {
		r := newRig(t, nil, func(c *Config) { c.BatchBytes = 200 })
		var names []string
		r.slow(maxFlights, func(payload []byte) {
			s := decode(t, payload).Streams[0]
			names = append(names, s.Labels[len(`{container_name="`):][:1]+s.Entries[0].Line[:1])
		}, nobody)
		r.c.window.n, r.c.window.most = window, window
		b := new(entry.Batch)
		for _, name := range []string{"a", "b", "c"} {
			appendSection(b, labelled(name), line(start, strings.Repeat("1", 150)), line(start, strings.Repeat("2", 150)), line(start, strings.Repeat("3", 150)))
		}
		appendSection(b, labelled("d"), line(start, "1"))
		r.accepted(b, r.push(b))
		if !slices.Equal(names, want) {
			t.Errorf("%d at once: sent %v, want %v", window, names, want)
		}
	}
}

// TestWindowOpens: a store that nothing is known of gets one request, then more and more.
func TestWindowOpens(t *testing.T) {
	r := newRig(t, nil, nil)
	beside := r.beside(1)
	r.c.window.most = 4
	b := streamsOf(10)
	r.accepted(b, r.push(b))
	if want := []int{0, 0, 1, 1, 2, 2, 3, 3, 3, 3}; !slices.Equal(*beside, want) {
		t.Errorf("sent beside %v others, not %v", *beside, want)
	}
	if r.srv.Next(lokitest.Fault{Status: 503}); r.push(batchOf(labelled("a"), line(start, "a"))).Err == nil || r.c.window.get() != 1 {
		t.Errorf("a window of %d after a failure", r.c.window.get())
	}
}

// TestWindowStays: it does not grow by answers to requests that no other waits behind, nor by those
// that were on their way with one that has failed.
func TestWindowStays(t *testing.T) {
	r := newRig(t, nil, nil)
	r.slow(1, nobody, nobody)
	r.c.window.most = maxFlights
	for range maxFlights {
		b := batchOf(labelled("quiet"), line(start, "x"))
		r.accepted(b, r.push(b))
	}
	if n := r.c.window.get(); n != 1 {
		t.Errorf("a window of %d after requests one by one", n)
	}
	r.c.window.n = 4
	b := streamsOf(4)
	r.srv.Next(lokitest.Fault{Status: 503})
	if out := r.push(b); out.Err == nil || r.c.window.get() != 1 {
		t.Errorf("%v; a window of %d after the store has failed", out.Err, r.c.window.get())
	}
	r.states(b, entry.PartPending, entry.PartAccepted, entry.PartAccepted, entry.PartAccepted)
}

// TestAnswersThatHaveCome: an answer that is there is read, whatever has ended while those
// of other requests were waited for.
func TestAnswersThatHaveCome(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		ends := map[string]func(context.CancelFunc, time.Time){
			"the agent": func(cancel context.CancelFunc, _ time.Time) { cancel() },
			"the time": func(_ context.CancelFunc, deadline time.Time) {
				until(t, "the deadline", func() bool { return time.Now().After(deadline) })
			},
		}
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				said := make(chan struct{})
				b := serve(t, store, func(_ int, p *peer) {
					for range 2 {
						if _, _, ok := p.request(); !ok {
							return
						}
						p.say("HTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nabc")
						said <- struct{}{}
					}
				})
				c := connect(t, b, ours)
				l := new(lane)
				// TLS sends more than answers at first.
				first := c.send(soon(t), time.Now().Add(time.Hour), "", []byte("x"))
				<-said
				if a, err := first.receive(soon(t), l); err != nil || a.status != 400 {
					t.Fatalf("%+v, %v", a, err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				deadline := time.Now().Add(200 * time.Millisecond)
				e := c.send(ctx, deadline, "", []byte("x"))
				<-said
				until(t, "the answer", e.answered)
				end(cancel, deadline)
				if a, err := e.receive(ctx, l); err != nil || a.status != 400 || string(l.answer) != "abc" {
					t.Fatalf("%+v, %v, %q", a, err, l.answer)
				}
			})
			t.Run(name+", while it is read", func(t *testing.T) {
				b := serve(t, store, func(_ int, p *peer) {
					_, _, _ = p.request()
					p.say(noContent)
					p.closed()
				})
				conn, ok := connect(t, b, ours).send(soon(t), time.Now().Add(time.Hour), "", []byte("x")).(*connection)
				if !ok {
					t.Fatal("not sent")
				}
				until(t, "the answer", conn.answered)
				conn.lastWords()
				conn.giveUp()
				if res, err := conn.answer(); err != nil || res.StatusCode != 204 {
					t.Fatal(err)
				}
				conn.stop()
				conn.drop()
			})
			t.Run(name+", without an answer", func(t *testing.T) {
				b := serve(t, store, func(_ int, p *peer) { _, _, _ = p.request(); p.closed() })
				c := connect(t, b, ours)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				deadline := time.Now().Add(200 * time.Millisecond)
				e := c.send(ctx, deadline, "", []byte("x"))
				end(cancel, deadline)
				began := time.Now()
				if a, err := e.receive(ctx, new(lane)); err == nil || time.Since(began) > 2*time.Second {
					t.Fatalf("%+v after %v", a, time.Since(began))
				}
				if len(c.idle) != 0 {
					t.Fatal("the connection is kept")
				}
			})
		}
	})
}
