package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
)

// fakeAPI answers as an engine would: /info at once, /logs and /events with a
// line for each element of lines, until the client goes.
type fakeAPI struct {
	host  string
	lines chan string
	asked atomic.Int32 // requests
	open  atomic.Int32 // streams
}

func startFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	dir, err := os.MkdirTemp("", "lcf")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "f.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAPI{host: "unix://" + path, lines: make(chan string)}
	stream := func(w http.ResponseWriter, r *http.Request) {
		f.open.Add(1)
		defer f.open.Add(-1)
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		for {
			select {
			case s := <-f.lines:
				_, _ = io.WriteString(w, s+"\n")
				_ = flush.Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/containers/{id}/logs", stream)
	mux.HandleFunc("/v1/events", stream)
	mux.HandleFunc("/v1/info", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "info "+string(body))
	})
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		mux.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return f
}

// apiClient is an HTTP client of a Unix socket.
func apiClient(t *testing.T, host string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func get(t *testing.T, c *http.Client, path string) (*http.Response, error) {
	t.Helper()
	resp, err := c.Get("http://docker" + path)
	if err == nil {
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	return resp, err
}

// follow opens a stream that is to be there.
func follow(t *testing.T, c *http.Client, path string) (*http.Response, *bufio.Reader) {
	t.Helper()
	resp, err := get(t, c, path)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	return resp, bufio.NewReader(resp.Body)
}

// says lets the engine say a line, and reads it.
func says(t *testing.T, f *fakeAPI, r *bufio.Reader, text string) {
	t.Helper()
	select {
	case f.lines <- text:
	case <-time.After(10 * time.Second):
		t.Fatal("the engine has no stream")
	}
	if l, err := r.ReadString('\n'); err != nil || l != text+"\n" {
		t.Fatalf("read %q, %v; want %q", l, err, text)
	}
}

const someLog = "/v1/containers/abc/logs"

func TestAPIProxyForwards(t *testing.T) {
	f := startFakeAPI(t)
	p := StartAPIProxy(t, f.host)
	c := apiClient(t, p.Host)
	for i := range 3 { // on one connection
		resp, err := c.Post("http://docker/v1/info", "text/plain", strings.NewReader("please"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(b) != "info please" || err != nil {
			t.Errorf("answer %d: %q, %v", i, b, err)
		}
	}
	if n, most, reqs := p.Open(APIOther), p.MostOpen(APIOther), p.Requests(APIOther); n != 1 || most != 1 || reqs != 3 {
		t.Errorf("%d open, %d at most, %d requests; want 1, 1, 3", n, most, reqs)
	}
	logs, lr := follow(t, c, someLog) // on that connection, which is of its last request's kind
	_, er := follow(t, c, "/v1/events")
	if p.Open(APILogs) != 1 || p.Open(APIEvents) != 1 || p.Open(APIOther) != 0 {
		t.Errorf("open: %d logs, %d events, %d other; want 1, 1, 0", p.Open(APILogs), p.Open(APIEvents), p.Open(APIOther))
	}
	if n := p.Cut(APIEvents); n != 1 {
		t.Errorf("%d connections cut, want 1", n)
	}
	if _, err := er.ReadString('\n'); err == nil {
		t.Error("the events go on")
	}
	Eventually(t, 10*time.Second, "the engine sees it", func() bool { return f.open.Load() == 1 })
	says(t, f, lr, "one")
	_ = logs.Body.Close()
	// The client closes it in a goroutine of its own.
	Eventually(t, 10*time.Second, "all see that, too", func() bool { return p.Open(APILogs) == 0 && f.open.Load() == 0 })
}

// TestAPIProxyCounts: a connection that the client has closed is not counted
// beside the next.
func TestAPIProxyCounts(t *testing.T) {
	f := startFakeAPI(t)
	p := StartAPIProxy(t, f.host)
	c := apiClient(t, p.Host)
	for range 100 {
		resp, _ := follow(t, c, someLog)
		_ = resp.Body.Close()
		Eventually(t, 10*time.Second, "no connection", func() bool { return p.Open(APILogs) == 0 })
	}
	if most := p.MostOpen(APILogs); most != 1 {
		t.Errorf("%d open at most, want 1", most)
	}
	follow(t, c, someLog)
	follow(t, c, someLog)
	if most, n := p.MostOpen(APILogs), p.Requests(APILogs); most != 2 || n != 102 {
		t.Errorf("%d open at most, %d requests; want 2, 102", most, n)
	}
}

func TestAPIProxyRefuses(t *testing.T) {
	f := startFakeAPI(t)
	p := StartAPIProxy(t, f.host)
	c := apiClient(t, p.Host)
	_, r := follow(t, c, someLog)
	for range 3 {
		p.Refuse()
		if _, err := get(t, apiClient(t, p.Host), "/v1/info"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("refused: %v", err)
		}
		says(t, f, r, "still there")
		p.Accept()
		if resp, err := get(t, apiClient(t, p.Host), "/v1/info"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("accepted again: %v", err)
		}
	}
}

func TestAPIProxyAnswers(t *testing.T) {
	f := startFakeAPI(t)
	p := StartAPIProxy(t, f.host)
	c := apiClient(t, p.Host)
	for _, status := range []int{404, 409, 500} {
		p.Fault(APILogs, APIFault{Status: status})
		before := f.asked.Load()
		resp, err := get(t, c, someLog)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if resp.StatusCode != status || !strings.HasPrefix(string(b), `{"message":`) || err != nil {
			t.Errorf("%s: %q, %v; want status %d", resp.Status, b, err, status)
		}
		if f.asked.Load() != before {
			t.Error("the engine was asked")
		}
		if resp, err := get(t, c, "/v1/info"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("another kind: %v", err)
		}
	}
	p.Fault(APILogs, APIFault{})
	follow(t, c, someLog)
}

func TestAPIProxyCutsAfter(t *testing.T) {
	f := startFakeAPI(t)
	p := StartAPIProxy(t, f.host)
	c := apiClient(t, p.Host)
	_, before := follow(t, c, someLog)
	p.Fault(APILogs, APIFault{CutAfter: 20})
	if resp, err := get(t, c, someLog); err == nil {
		t.Errorf("half a header: %s", resp.Status)
	}
	says(t, f, before, "an older answer goes on")

	// The header as the server writes it, and half a chunk.
	conn, err := net.Dial("unix", strings.TrimPrefix(f.host, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET "+someLog+" HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
	header := 0
	for r := bufio.NewReader(conn); ; {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if header += len(l); l == "\r\n" {
			break
		}
	}
	_ = conn.Close()
	Eventually(t, 10*time.Second, "one stream", func() bool { return f.open.Load() == 1 })
	p.CutAll()
	Eventually(t, 10*time.Second, "no stream", func() bool { return f.open.Load() == 0 })
	// The size of a chunk, \r\n, half of its bytes; "Connection: close" is not asked for.
	p.Fault(APILogs, APIFault{CutAfter: header - len("Connection: close\r\n") + len("6\r\n12")})
	_, r := follow(t, c, someLog)
	f.lines <- "12345"
	if l, err := r.ReadString('\n'); l != "12" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v", l, err)
	}
}

func TestAPIProxyStalls(t *testing.T) {
	f := startFakeAPI(t)
	p := StartAPIProxy(t, f.host)
	c := apiClient(t, p.Host)
	_, r := follow(t, c, someLog)
	p.Fault(APILogs, APIFault{Stall: true})
	f.lines <- "late"
	got := make(chan string, 2)
	go func() {
		l, _ := r.ReadString('\n')
		got <- l
	}()
	before := f.asked.Load()
	// A client that goes is seen to go.
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+someLog, http.NoBody)
		if err == nil {
			_, err = c.Do(req)
		}
		left <- err
	}()
	Eventually(t, 10*time.Second, "two connections", func() bool { return p.Open(APILogs) == 2 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("in the stall: %v", err)
	}
	Eventually(t, 10*time.Second, "one connection", func() bool { return p.Open(APILogs) == 1 })
	if f.asked.Load() != before {
		t.Error("a request got through")
	}
	select {
	case l := <-got:
		t.Errorf("%q got through", l)
	default:
	}
	p.Fault(APILogs, APIFault{})
	if l := <-got; l != "late\n" {
		t.Errorf("after the stall: %q", l)
	}
	says(t, f, r, "on")

	p.Fault(APIOther, APIFault{Delay: 100 * time.Millisecond})
	began := time.Now()
	if _, err := get(t, c, "/v1/info"); err != nil || time.Since(began) < 100*time.Millisecond {
		t.Errorf("delayed: %v after %v", err, time.Since(began))
	}
	// Close ends what is stalled.
	p.Fault(APIEvents, APIFault{Stall: true})
	go func() {
		_, err := c.Get("http://docker/v1/events")
		left <- err
	}()
	Eventually(t, 10*time.Second, "it is held up", func() bool { return p.Open(APIEvents) == 1 })
	p.Close()
	if err := <-left; err == nil {
		t.Error("an answer without an engine")
	}
}

func TestAPIProxyWithoutEngine(t *testing.T) {
	p := StartAPIProxy(t, "unix:///nowhere/d.sock")
	if _, err := get(t, apiClient(t, p.Host), "/v1/info"); !errors.Is(err, io.EOF) {
		t.Errorf("no engine: %v", err)
	}
}

// TestAPIProxyEngine: the product's client at a real engine behind the proxy, with
// the log of a driver that only the engine's cache can be read of.
func TestAPIProxyEngine(t *testing.T) {
	d := StartDockerd(t)
	p := StartAPIProxy(t, d.Host)
	sink, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody reads; the engine does not mind
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	c, err := docker.New(p.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	const n = 300
	id := d.Run(t, ContainerSpec{
		Name: "cached", Driver: "syslog", LogOpts: map[string]string{"syslog-address": "udp://" + sink.LocalAddr().String()},
		Cmd: []string{"-lines", fmt.Sprint(n), "-rate", "300", "-stderr-every", "3", "-sleep-after", "-1s"},
	})
	s := openLogs(t, c, id, docker.LogsOptions{Follow: true})
	all, err := readStream(s, n)
	if err != nil {
		t.Fatal(err)
	}
	stderr := 0
	for i, e := range all {
		if e.stderr {
			stderr++
		}
		if e.fragment || !strings.HasPrefix(e.text, "line ") {
			t.Errorf("entry %d is %+v", i, e)
		}
	}
	if stderr != n/3 {
		t.Errorf("%d lines of stderr, want %d", stderr, n/3)
	}
	if p.Open(APILogs) != 1 || p.Requests(APILogs) != 1 {
		t.Errorf("%d streams open, %d asked for; want 1, 1", p.Open(APILogs), p.Requests(APILogs))
	}
	p.Cut(APILogs)
	if _, err := s.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream was cut: %v", err)
	}
	p.Fault(APILogs, APIFault{Status: http.StatusConflict})
	if _, err := c.Logs(t.Context(), id, docker.LogsOptions{}); !errors.Is(err, docker.ErrConflict) || !strings.Contains(err.Error(), "the proxy says 409") {
		t.Errorf("refused: %v", err)
	}
	p.Refuse()
	if _, err := c.Logs(t.Context(), id, docker.LogsOptions{}); !docker.IsUnavailable(err) {
		t.Errorf("nobody listens: %v", err)
	}
}
