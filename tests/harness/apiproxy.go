package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// APIKind says what a request of the engine's API is for.
type APIKind string

// The kinds of requests.
const (
	APILogs   APIKind = "logs"   // a container's log
	APIEvents APIKind = "events" // the stream of events
	APIOther  APIKind = "other"  // the rest, and connections without a request so far
)

// APIFault is what an APIProxy does to requests of one kind. The zero value: nothing.
type APIFault struct {
	// Stall holds everything up, in both directions, also on connections that are
	// open already.
	Stall bool
	// Status, unless 0, is the answer to each request; it does not reach the
	// engine, and the connection is closed.
	Status int
	// CutAfter, unless 0, cuts each connection after so many bytes of an answer,
	// header included. Answers that have begun before are not affected.
	CutAfter int
	// Delay is for how long each request is held up.
	Delay time.Duration
}

// APIProxy stands between the product and an engine's Unix socket, and can be
// told to misbehave. It handles what the product asks: requests one after the
// other on a connection, no upgrades. A connection is of its last request's kind.
// Methods may be called at any time and from any goroutine, but for Refuse,
// Accept and Close, which are the test's.
type APIProxy struct {
	// Host is the address for the product, unix:///….
	Host string

	tb             TB
	path, upstream string // sockets
	wg             sync.WaitGroup

	mu       sync.Mutex
	listener *net.UnixListener // nil: refuses
	conns    map[*apiConn]struct{}
	faults   map[APIKind]APIFault
	requests map[APIKind]int
	most     map[APIKind]int
	changed  chan struct{} // closed and replaced when faults change
}

// apiConn is one connection of the product with that to the engine.
type apiConn struct {
	p      *APIProxy
	client *net.UnixConn
	done   chan struct{} // closed when it is to end
	once   sync.Once

	// Under p.mu.
	kind   APIKind
	engine net.Conn // nil before the first request
	left   int      // bytes until the answer is cut; negative: it is not
}

// StartAPIProxy starts a proxy for the engine at host (unix:///…), which need not be
// there, and closes it when the test ends.
func StartAPIProxy(tb TB, host string) *APIProxy {
	tb.Helper()
	upstream, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		tb.Fatalf("%s is no Unix socket", host)
	}
	dir, err := os.MkdirTemp("", "lcp") // not tb.TempDir: a socket's path may have 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "p.sock")
	p := &APIProxy{
		Host: "unix://" + path, tb: tb, path: path, upstream: upstream,
		conns: make(map[*apiConn]struct{}), faults: make(map[APIKind]APIFault),
		requests: make(map[APIKind]int), most: make(map[APIKind]int), changed: make(chan struct{}),
	}
	tb.Cleanup(func() {
		p.Close()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	p.Accept()
	return p
}

// Close ends all connections and waits for everything that the proxy has started.
func (p *APIProxy) Close() {
	p.Refuse()
	p.CutAll()
	p.wg.Wait()
}

// Refuse refuses new connections, as a socket does that nobody listens on, until
// Accept. Open ones go on.
func (p *APIProxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// Accept ends Refuse.
func (p *APIProxy) Accept() {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.tb.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		p.tb.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(p.path, 0o666); err != nil { //nolint:gosec // the product may be another user
		p.tb.Fatal(err)
	}
	p.listener = l
	p.wg.Go(func() { p.accept(l) })
}

// Fault sets what is done to requests of a kind, in the place of what was set before.
func (p *APIProxy) Fault(kind APIKind, f APIFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[kind] = f
	close(p.changed)
	p.changed = make(chan struct{})
}

// Cut cuts the open connections of a kind, and gives how many they were.
func (p *APIProxy) Cut(kind APIKind) int {
	return p.cut(func(c *apiConn) bool { return c.kind == kind })
}

// CutAll cuts all open connections.
func (p *APIProxy) CutAll() int { return p.cut(func(*apiConn) bool { return true }) }

func (p *APIProxy) cut(which func(*apiConn) bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if which(c) {
			c.end()
			n++
		}
	}
	return n
}

// Open gives how many connections of a kind are open on the product's side.
func (p *APIProxy) Open(kind APIKind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open(kind)
}

// MostOpen gives how many there were at most at any time.
func (p *APIProxy) MostOpen(kind APIKind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most[kind]
}

// Requests gives how many requests of a kind have been made.
func (p *APIProxy) Requests(kind APIKind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[kind]
}

// open asks the kernel, since the proxy learns of a closed connection a moment
// after the product may have opened the next.
func (p *APIProxy) open(kind APIKind) (n int) {
	for c := range p.conns {
		if c.kind == kind && !hungUp(c.client) {
			n++
		}
	}
	return n
}

func (p *APIProxy) accept(l *net.UnixListener) {
	for {
		client, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.tb.Errorf("proxy: %v", err)
			return
		}
		c := &apiConn{p: p, client: client, done: make(chan struct{}), kind: APIOther, left: -1}
		p.mu.Lock()
		if p.listener != l { // Refuse was quicker: nobody would end it
			p.mu.Unlock()
			_ = client.Close()
			return
		}
		p.conns[c] = struct{}{}
		p.most[APIOther] = max(p.most[APIOther], p.open(APIOther))
		p.mu.Unlock()
		requests := make(chan *http.Request)
		p.wg.Go(func() { c.read(requests) })
		p.wg.Go(func() { c.forward(requests) })
	}
}

// kindOf tells what a request is for by its path, /v1.41/containers/<id>/logs.
func kindOf(path string) APIKind {
	switch {
	case strings.HasSuffix(path, "/logs"):
		return APILogs
	case strings.HasSuffix(path, "/events"):
		return APIEvents
	default:
		return APIOther
	}
}

// begun counts a request.
func (c *apiConn) begun(kind APIKind) {
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	c.kind = kind
	p.requests[kind]++
	p.most[kind] = max(p.most[kind], p.open(kind))
}

// end lets the connection end; its goroutines do the rest.
func (c *apiConn) end() { c.once.Do(func() { close(c.done) }) }

// read reads requests, one ahead of those that are answered, so that it sees the
// product close the connection whatever else goes on.
func (c *apiConn) read(requests chan<- *http.Request) {
	defer close(requests)
	defer c.end()
	r := bufio.NewReader(c.client)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if len(body) > 0 {
			req.Body = io.NopCloser(bytes.NewReader(body))
		} else {
			req.Body = http.NoBody
		}
		c.begun(kindOf(req.URL.Path))
		select {
		case requests <- req:
		case <-c.done:
			return
		}
	}
}

// forward sends requests on, and closes everything at the end.
func (c *apiConn) forward(requests <-chan *http.Request) {
	defer func() {
		c.p.mu.Lock()
		delete(c.p.conns, c)
		engine := c.engine
		c.p.mu.Unlock()
		_ = c.client.Close() // ends read
		if engine != nil {
			_ = engine.Close() // ends answer
		}
	}()
	defer c.end()
	for {
		var req *http.Request
		select {
		case req = <-requests:
		case <-c.done:
		}
		if req == nil || !c.send(req) {
			return
		}
	}
}

// send sends one request on; false when the connection is to end.
func (c *apiConn) send(req *http.Request) bool {
	f, ok := c.pass()
	if !ok {
		return false
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-c.done:
			return false
		}
	}
	if f.Status != 0 {
		body := fmt.Sprintf(`{"message":"the proxy says %d"}`, f.Status)
		_, _ = fmt.Fprintf(c.client, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
			f.Status, http.StatusText(f.Status), len(body), body)
		return false
	}
	left := -1
	if f.CutAfter > 0 {
		left = f.CutAfter
	}
	c.p.mu.Lock()
	c.left = left
	engine := c.engine
	c.p.mu.Unlock()
	if engine == nil {
		var err error
		if engine, err = net.Dial("unix", c.p.upstream); err != nil {
			return false
		}
		c.p.mu.Lock()
		c.engine = engine
		c.p.mu.Unlock()
		c.p.wg.Go(func() { c.answer(engine) })
	}
	return req.Write(engine) == nil
}

// answer hands the engine's bytes to the product as they are.
func (c *apiConn) answer(engine net.Conn) {
	defer c.end()
	buf := make([]byte, 16<<10)
	for {
		n, err := engine.Read(buf)
		if _, ok := c.pass(); !ok {
			return
		}
		c.p.mu.Lock()
		cut := c.left >= 0 && n >= c.left
		if cut {
			n = c.left
		}
		if c.left >= 0 {
			c.left -= n
		}
		c.p.mu.Unlock()
		if _, werr := c.client.Write(buf[:n]); werr != nil || err != nil || cut {
			return
		}
	}
}

// pass waits while the connection's kind is stalled, and gives its fault; false
// when the connection is to end.
func (c *apiConn) pass() (APIFault, bool) {
	for {
		c.p.mu.Lock()
		f, changed := c.p.faults[c.kind], c.p.changed
		c.p.mu.Unlock()
		if !f.Stall {
			return f, true
		}
		select {
		case <-changed:
		case <-c.done:
			return APIFault{}, false
		}
	}
}

// hungUp reports whether the other side of a connection has closed it.
func hungUp(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}
