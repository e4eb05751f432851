package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options() Options {
	return Options{
		Address: "127.0.0.1:0",
		Health:  func(context.Context) Health { return Health{Status: StatusOK} },
		Ready:   func(context.Context) error { return nil },
		Reload:  func(context.Context) error { return nil },
		Metrics: prometheus.NewRegistry(),
		Log:     slog.New(slog.DiscardHandler),
	}
}

// syncBuffer is a buffer that a logger writes and a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestRoutes(t *testing.T) {
	h := handler(options())
	for _, c := range []struct {
		method, path string
		code         int
		contentType  string
		body         string // begins so
	}{
		{"GET", "/", 200, textType, "log_capturer\n"},
		{"GET", "/livez", 200, textType, "alive\n"},
		{"GET", "/readyz", 200, textType, "ready\n"},
		{"GET", "/health", 200, "application/json; charset=utf-8", "{\n  \"status\": \"ok\","},
		{"GET", "/health?x=y", 200, "application/json; charset=utf-8", "{"},
		{"GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", ""},
		{"HEAD", "/livez", 200, textType, "alive\n"}, // net/http leaves the body out, see TestHead
		{"GET", "/livez/", 404, textType, "404"},
		{"GET", "/favicon.ico", 404, textType, "404"},
		{"GET", "/debug/pprof/", 404, textType, "404"},
		{"POST", "/", 405, textType, "Method Not Allowed"},
		{"POST", "/health", 405, textType, "Method Not Allowed"},
		{"PUT", "/metrics", 405, textType, "Method Not Allowed"},
		{"DELETE", "/livez", 405, textType, "Method Not Allowed"},
		{"OPTIONS", "/readyz", 405, textType, "Method Not Allowed"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.code || w.Header().Get("Content-Type") != c.contentType || !strings.HasPrefix(w.Body.String(), c.body) {
			t.Errorf("%s %s: got %d, %q, %q", c.method, c.path, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if c.code == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, w.Header().Get("Allow"))
		}
	}
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		health Health
		code   int
		body   string
	}{
		{
			Health{Status: StatusOK}, 200,
			`{"status":"ok","monitors":{},"sinks":{},"problems":[]}`,
		},
		{
			Health{
				Status:   StatusDegraded,
				Monitors: map[string]any{"file_monitor": struct{ Files int }{3}},
				Docker:   map[string]string{"host": "unix:///a"},
				Sinks:    map[string]any{"loki": nil},
				Problems: []Problem{{What: "a <line> is malformed", Remedy: "look"}},
			}, 200,
			`{"status":"degraded","monitors":{"file_monitor":{"Files":3}},"docker":{"host":"unix:///a"},"sinks":{"loki":null},` +
				`"problems":[{"what":"a <line> is malformed","remedy":"look"}]}`,
		},
		{
			Health{Status: StatusUnhealthy}, 503,
			`{"status":"unhealthy","monitors":{},"sinks":{},"problems":[]}`,
		},
		{
			Health{}, 503, // a mistake in the agent must not look healthy
			`{"status":"","monitors":{},"sinks":{},"problems":[]}`,
		},
		{
			Health{Status: StatusOK, Docker: math.NaN()}, 503,
			`{"status":"unhealthy","monitors":{},"sinks":{},"problems":[{"what":"the health of a component cannot be shown: json: unsupported value: NaN",` +
				`"remedy":"report this as a mistake in log_capturer; the metrics are not affected"}]}`,
		},
	} {
		o := options()
		o.Health = func(ctx context.Context) Health {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the context has no deadline")
			}
			return c.health
		}
		w := httptest.NewRecorder()
		handler(o).ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
		var got bytes.Buffer
		if err := json.Compact(&got, w.Body.Bytes()); err != nil {
			t.Fatal(err)
		}
		if w.Code != c.code || got.String() != c.body {
			t.Errorf("got %d\n%s\nwant %d\n%s", w.Code, &got, c.code, c.body)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("headers %v", w.Header())
		}
	}
}

func TestReady(t *testing.T) {
	o := options()
	o.Ready = func(context.Context) error { return errors.New("Docker does not answer") }
	w := httptest.NewRecorder()
	handler(o).ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	if w.Code != 503 || w.Body.String() != "not ready: Docker does not answer\n" {
		t.Errorf("got %d, %q", w.Code, w.Body)
	}
	// The agent is alive all the same.
	w = httptest.NewRecorder()
	handler(o).ServeHTTP(w, httptest.NewRequest("GET", "/livez", nil))
	if w.Code != 200 {
		t.Errorf("livez: got %d", w.Code)
	}
}

// brokenCollector fails at every scrape.
type brokenCollector struct{ desc *prometheus.Desc }

func (c brokenCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(c.desc, errors.New("cannot be read"))
}

func TestMetricsSurviveABrokenCollector(t *testing.T) {
	var log syncBuffer
	o := options()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	reg := prometheus.NewRegistry()
	reg.MustRegister(brokenCollector{prometheus.NewDesc("broken", "Broken.", nil, nil)}, NewProcessCollector(Build{"v1", "abc", "go1"}, time.Now()))
	o.Metrics = reg
	w := httptest.NewRecorder()
	handler(o).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `log_capturer_build_info{goversion="go1",revision="abc",version="v1"} 1`) {
		t.Errorf("got %d, %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "cannot be read") || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", log.String())
	}
}

// blockingCollector is a collector whose scrapes last until they are released.
type blockingCollector struct {
	desc             *prometheus.Desc
	entered, release chan struct{}
}

func (c blockingCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c blockingCollector) Collect(ch chan<- prometheus.Metric) {
	c.entered <- struct{}{}
	<-c.release
	ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, 1)
}

func TestScrapeLimit(t *testing.T) {
	g := blockingCollector{prometheus.NewDesc("slow", "Slow.", nil, nil), make(chan struct{}), make(chan struct{})}
	reg := prometheus.NewRegistry()
	reg.MustRegister(g)
	o := options()
	o.Metrics = reg
	wantLimit(t, handler(o), "/metrics", maxScrapes, g.entered, g.release)
}

// wantLimit makes so many requests at a time and one more, which must be refused, and
// gives the answer to that. A request that is let in must tell entered and last until
// release is closed.
func wantLimit(t *testing.T, h http.Handler, path string, limit int, entered <-chan struct{}, release chan<- struct{}) (refusal *httptest.ResponseRecorder) {
	t.Helper()
	request := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	var requests sync.WaitGroup
	for range limit {
		requests.Go(func() {
			if w := request(); w.Code != http.StatusOK {
				t.Errorf("got %d", w.Code)
			}
		})
		<-entered
	}
	refused := make(chan *httptest.ResponseRecorder, 1)
	go func() { refused <- request() }()
	select {
	case refusal = <-refused:
		if refusal.Code != http.StatusServiceUnavailable {
			t.Errorf("one too many: got %d", refusal.Code)
		}
	case <-entered:
		t.Fatal("one too many was let in")
	}
	close(release)
	requests.Wait()
	return refusal
}

// TestAcceptErrorsKeepTheirSlot: a listener that has failed many times can
// still accept as many connections as before.
func TestAcceptErrorsKeepTheirSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newPipeListener()
		l := newLimitListener(inner, 1)
		for range 3 {
			go func() { inner.fail <- errors.New("too many open files") }()
			if _, err := l.Accept(); err == nil {
				t.Fatal("no error")
			}
		}
		var client net.Conn
		var dialing sync.WaitGroup
		dialing.Go(func() { client = inner.dial() })
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		dialing.Wait()
		// Closed twice, as net/http does; that must give one slot back, not two.
		_ = c.Close()
		_ = c.Close()
		_ = client.Close()
		if len(l.slots) != 0 {
			t.Errorf("%d slots are taken", len(l.slots))
		}
	})
}

// start listens and runs a server; stop ends it and gives Run's error.
func start(t *testing.T, o Options) (url string, stop func() error) {
	t.Helper()
	s := New(o)
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "http://" + s.Addr().String(), stop
}

// client has connections of its own, which end with the test.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, method, url string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if e := res.Body.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
	return res.StatusCode, string(body), res.Header
}

func TestRun(t *testing.T) {
	var log syncBuffer
	o := options()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	url, stop := start(t, o)
	c := client(t)
	if code, body, _ := get(t, c, "GET", url+"/livez"); code != 200 || body != "alive\n" {
		t.Errorf("got %d, %q", code, body)
	}
	// HEAD is answered as GET, without the body.
	code, body, header := get(t, c, "HEAD", url+"/health")
	if code != 200 || body != "" || header.Get("Content-Length") == "" || header.Get("Content-Length") == "0" {
		t.Errorf("HEAD: got %d, %q, %v", code, body, header)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := c.Get(url + "/livez"); err == nil {
		t.Error("answered after the end")
	}
	if !strings.Contains(log.String(), `msg="serving HTTP" address=127.0.0.1:`) {
		t.Errorf("log: %s", log.String())
	}
}

func TestHeaderTooLarge(t *testing.T) {
	url, _ := start(t, options())
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d, %v", res.StatusCode, err)
	}
}

// TestDrain: a request under way when the stop comes is answered.
func TestDrain(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	o := options()
	o.Health = func(context.Context) Health {
		close(entered)
		<-release
		return Health{Status: StatusOK}
	}
	url, stop := start(t, o)
	answer := make(chan int, 1)
	c := client(t)
	go func() {
		res, err := c.Get(url + "/health")
		if err != nil {
			t.Error(err)
			answer <- 0
			return
		}
		_ = res.Body.Close()
		answer <- res.StatusCode
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// Once the listener refuses, the stop has begun.
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(release)
	if code := <-answer; code != 200 {
		t.Errorf("got %d", code)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for address, want := range map[string]string{
		taken.Addr().String(): "listen for HTTP on " + taken.Addr().String() + ": listen tcp " + taken.Addr().String() +
			": bind: address already in use: another process has this port, perhaps another log_capturer: stop it, or set server.port to a free one",
		"192.0.2.1:0": "listen for HTTP on 192.0.2.1:0: listen tcp 192.0.2.1:0: bind: cannot assign requested address: " +
			"set server.host to an address of this machine", // TEST-NET-1, RFC 5737
		"127.0.0.1:x": "listen for HTTP on 127.0.0.1:x: listen tcp: lookup tcp/x: unknown port: see server.host and server.port",
	} {
		o := options()
		o.Address = address
		s := New(o)
		if err := s.Listen(t.Context()); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if s.Addr() != nil {
			t.Errorf("%s: has the address %v", address, s.Addr())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "Listen has not been called") {
			t.Errorf("Run: got %v", err)
		}
	}
}

func TestCloseGivesTheAddressBack(t *testing.T) {
	s := New(options())
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// pipeListener hands out in-memory connections, whose deadlines follow the
// clock of synctest.
type pipeListener struct {
	conns chan net.Conn
	fail  chan error
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), fail: make(chan error), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.fail:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial gives the client's end of a connection once it is accepted.
func (l *pipeListener) dial() net.Conn {
	a, b := net.Pipe()
	l.conns <- b
	return a
}

// bubble runs a server on a pipeListener in a synctest bubble, which fails by
// itself when a goroutine is left over.
func bubble(t *testing.T, o Options, test func(t *testing.T, l *pipeListener, stop func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := New(o)
		s.listener = newLimitListener(l, maxConnections)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		stop := sync.OnceValue(func() error {
			cancel()
			return <-done
		})
		test(t, l, stop)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// closedAfter reads until the server closes the connection and gives how long
// that took.
func closedAfter(c net.Conn) time.Duration {
	begin := time.Now()
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
	return time.Since(begin)
}

func TestSlowClients(t *testing.T) {
	t.Run("says nothing", func(t *testing.T) {
		bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
			if d := closedAfter(l.dial()); d != readHeaderTimeout {
				t.Errorf("closed after %v", d)
			}
		})
	})
	t.Run("one byte per second", func(t *testing.T) {
		bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
			c := l.dial()
			begin := time.Now()
			var writer sync.WaitGroup
			writer.Go(func() {
				for _, b := range []byte("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n") {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			})
			closedAfter(c)
			if d := time.Since(begin); d != readHeaderTimeout {
				t.Errorf("closed after %v", d)
			}
			writer.Wait()
		})
	})
	t.Run("never sends its body", func(t *testing.T) {
		bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
			c := l.dial()
			if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if d := closedAfter(c); d != readTimeout {
				t.Errorf("closed after %v", d)
			}
		})
	})
	t.Run("does not read the answer", func(t *testing.T) {
		bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
			c := l.dial()
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(writeTimeout)
			synctest.Wait()
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("still served")
			}
		})
	})
	t.Run("stays without a request", func(t *testing.T) {
		bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
			c := l.dial()
			if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			if d := closedAfter(c); d != idleTimeout {
				t.Errorf("closed after %v", d)
			}
		})
	})
}

// TestCutOff: a request that outlasts the grace is cut off, its context ends,
// and Run waits for it.
func TestCutOff(t *testing.T) {
	var log syncBuffer
	o := options()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	entered := false
	returned := false
	o.Ready = func(ctx context.Context) error {
		entered = true
		<-ctx.Done()
		returned = true
		return ctx.Err()
	}
	bubble(t, o, func(t *testing.T, l *pipeListener, stop func() error) {
		c := l.dial()
		if _, err := io.WriteString(c, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !entered {
			t.Fatal("the request is not under way")
		}
		begin := time.Now()
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(begin); d != drainTimeout || !returned {
			t.Errorf("Run ended after %v; request over: %v", d, returned)
		}
		_ = c.Close()
	})
	if !strings.Contains(log.String(), "HTTP requests were cut off by the stop") {
		t.Errorf("log: %s", log.String())
	}
}

// TestConnectionLimit: one connection more than allowed waits until another
// ends; then it is served.
func TestConnectionLimit(t *testing.T) {
	bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
		var conns []net.Conn
		for range maxConnections {
			conns = append(conns, l.dial())
		}
		accepted := make(chan net.Conn, 1)
		go func() { accepted <- l.dial() }()
		synctest.Wait()
		if len(accepted) != 0 {
			t.Fatal("accepted beyond the limit")
		}
		_ = conns[0].Close() // the server notices and closes its end
		c := <-accepted
		if _, err := io.WriteString(c, "GET /livez HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 200 OK") {
			t.Errorf("got %q, %v", answer, err)
		}
		for _, c := range append(conns, c) {
			_ = c.Close()
		}
	})
}

// TestConnectionsInTurns: who asks now and then and keeps the connection does not
// keep out others, however many there are.
func TestConnectionsInTurns(t *testing.T) {
	bubble(t, options(), func(t *testing.T, l *pipeListener, _ func() error) {
		kept := 0
		var conns []net.Conn
		for range 2 * maxConnections {
			c := l.dial()
			conns = append(conns, c)
			if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("got %d, %v", res.StatusCode, err)
			}
			_ = res.Body.Close()
			if !res.Close {
				kept++
			}
			synctest.Wait()
		}
		if kept != maxConnections/2 {
			t.Errorf("%d connections are kept, want %d", kept, maxConnections/2)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
}

// TestStopAtTheLimit: a listener that waits for a free slot stops too.
func TestStopAtTheLimit(t *testing.T) {
	bubble(t, options(), func(t *testing.T, l *pipeListener, stop func() error) {
		var conns []net.Conn
		for range maxConnections {
			conns = append(conns, l.dial())
		}
		synctest.Wait()
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
}

// TestServeFails: an error of the listener ends Run, and the connections.
func TestServeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := New(options())
		s.listener = newLimitListener(l, maxConnections)
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context()) }()
		c := l.dial()
		l.fail <- errors.New("no more")
		if err := <-done; err == nil || err.Error() != "serve HTTP on 127.0.0.1:0: no more" {
			t.Errorf("got %v", err)
		}
		if d := closedAfter(c); d != 0 {
			t.Errorf("closed after %v", d)
		}
	})
}

// askWith sends one header and gives the status.
func askWith(t *testing.T, url, name, value string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(name, value)
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}
