package loki

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// idleFor is how long a connection is kept without a request.
	idleFor = 90 * time.Second
	// maxHeader is how long the header of an answer may be, in bytes, together with
	// the answers of 1xx before it.
	maxHeader = 64 << 10
	// lastWord is the time for reading what a store had said before a request failed, or was
	// given up.
	lastWord = 100 * time.Millisecond
)

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// reply is an answer without its text, which is in lane.answer.
type reply struct {
	status int // 0: none came
	header http.Header
	cut    bool // there is more text than lane.answer has
}

// poster sends requests. Safe for concurrent use.
type poster interface {
	// send sends a payload, until ctx ends or the deadline has passed: what fails is told with
	// the answer. The payload's memory is the caller's again afterwards.
	send(ctx context.Context, deadline time.Time, authorization string, payload []byte) exchange
	// close closes what is idle. No exchange may be under way.
	close()
}

// exchange is a request that has been sent. It belongs to one goroutine, which must receive
// the answer, once.
type exchange interface {
	// answered reports whether receive has something to read, or to tell, at once.
	answered() bool
	// receive reads the answer, its text into the lane, until the context that the request was
	// sent with ends, or its deadline has passed. If that is so already it reads what has come.
	// An error says that no answer came, or not all of it; status is 0 then, or that of what came.
	receive(ctx context.Context, l *lane) (reply, error)
}

// unsent is a request that has not been sent at all.
type unsent struct{ why error }

func (u unsent) answered() bool { return true }

func (u unsent) receive(context.Context, *lane) (reply, error) { return reply{}, u.why }

// connections are those to the store that are open and idle: HTTP/1.1, one request at
// a time on each. net/http has two goroutines for a connection, so that a request and
// its answer are handed over four times; here who pushes writes and reads himself,
// which takes half the time (docs/adr/0012-one-goroutine-per-request.md).
type connections struct {
	address string      // host:port
	tls     *tls.Config // nil: plain HTTP
	idleFor time.Duration
	dialer  net.Dialer
	request []byte // the beginning of each: request line, and the fields that do not change

	mu     sync.Mutex
	idle   []*connection // the one used last is the last
	expiry *time.Timer   // closes them idleFor after the last use of any; nil while there was none
}

// connection is one to the store, and the exchange that is under way on it. Who has taken it
// from connections owns it.
type connection struct {
	net.Conn
	tcp   *net.TCPConn // below TLS
	limit io.LimitedReader
	r     *bufio.Reader // of limit
	out   []byte        // the request up to the payload
	used  time.Time     // last
	whole bool          // the last request was sent and its answer read, all of both

	// Of the exchange.
	home     *connections // where the connection goes back to
	deadline time.Time
	sent     error       // of sending
	stop     func() bool // what context.AfterFunc gave for giveUp

	mu   sync.Mutex
	last bool // what has come is read now: giveUp has no say any more
}

// newConnections is for a URL that is reached without a proxy. header is that of all
// requests, without what frames them.
func newConnections(u *url.URL, header http.Header, t *tls.Config, timeout time.Duration) *connections {
	c := &connections{idleFor: idleFor, dialer: net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
		c.tls = t.Clone()
		c.tls.ServerName = cmp.Or(c.tls.ServerName, u.Hostname())
		c.tls.NextProtos = []string{"http/1.1"}
	}
	c.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\n", u.RequestURI(), withoutZone(u.Host))
	_ = header.Write(&b) // a Buffer takes everything
	c.request = b.Bytes()
	return c
}

// withoutZone leaves the zone of an IPv6 address out: it means something on this
// machine only (RFC 6874, 4).
func withoutZone(host string) string {
	before, after, ok := strings.Cut(host, "%")
	if !ok {
		return host
	}
	_, port, _ := strings.Cut(after, "]")
	return before + "]" + port
}

// send is poster.
func (c *connections) send(ctx context.Context, deadline time.Time, authorization string, payload []byte) exchange {
	if err := ctx.Err(); err != nil {
		return unsent{err} // else the request could be gone before its end is noticed
	}
	conn, err := c.take(ctx, deadline)
	if err != nil {
		return unsent{err}
	}
	conn.home, conn.deadline, conn.last = c, deadline, false
	_ = conn.SetDeadline(deadline) // of one that is closed already nothing will come
	conn.stop = context.AfterFunc(ctx, conn.giveUp)
	conn.write(c.request, authorization, payload)
	return conn
}

// take gives a connection, an open one if there is one that the store has not closed.
func (c *connections) take(ctx context.Context, deadline time.Time) (*connection, error) {
	for {
		conn := c.last()
		if conn == nil {
			return c.dial(ctx, deadline)
		}
		if conn.silent() {
			return conn, nil
		}
		conn.drop() // the store has
	}
}

// last takes the idle connection that was used last; nil if there is none.
func (c *connections) last() *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return nil
	}
	conn := c.idle[n-1]
	c.idle[n-1] = nil
	c.idle = c.idle[:n-1]
	return conn
}

// give keeps a connection, and closes what is idle for long.
func (c *connections) give(conn *connection) {
	now := time.Now()
	conn.used = now
	_ = conn.SetDeadline(time.Time{}) // one that has passed would make it look closed (see quiet)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
	if first := c.idle[0]; now.Sub(first.used) >= c.idleFor {
		_ = first.Close()
		c.idle = append(c.idle[:0], c.idle[1:]...)
	}
	if c.expiry == nil {
		c.expiry = time.AfterFunc(c.idleFor, c.closeIdle)
		return
	}
	c.expiry.Reset(c.idleFor)
}

func (c *connections) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		_ = conn.Close() // nothing hangs on it
	}
	clear(c.idle)
	c.idle = c.idle[:0]
}

// close is poster.
func (c *connections) close() {
	c.closeIdle()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expiry != nil {
		c.expiry.Stop()
		c.expiry = nil
	}
}

func (c *connections) dial(ctx context.Context, deadline time.Time) (*connection, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	raw, err := c.dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		_ = raw.Close()
		return nil, fmt.Errorf("dial %s: a %T is not a TCP connection", c.address, raw)
	}
	conn := &connection{Conn: tcp, tcp: tcp}
	if c.tls != nil {
		if conn.Conn, err = secure(ctx, tcp, c.tls); err != nil {
			_ = tcp.Close()
			return nil, err
		}
	}
	conn.limit.R = conn.Conn
	conn.r = bufio.NewReader(&conn.limit)
	return conn, nil
}

// secure shakes hands, and tells who traces it, as net/http does.
func secure(ctx context.Context, tcp *net.TCPConn, t *tls.Config) (net.Conn, error) {
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	conn := tls.Client(tcp, t)
	err := conn.HandshakeContext(ctx)
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(conn.ConnectionState(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return conn, nil
}

// drop closes a connection on which nothing is to come any more: with a reset, unless
// all has come. What the kernel has not sent yet of a request that was given up is
// thrown away then: it will be sent again. It does without TLS's farewell, for which
// tls.Conn waits 5 s where the store reads nothing.
func (c *connection) drop() {
	if !c.whole {
		_ = c.tcp.SetLinger(0)
	}
	_ = c.tcp.Close()
}

// silent reports whether the store has sent nothing since its last answer, not even
// that it closes the connection: a request that is sent after that may have been
// stored or not. One that is closed at this very moment cannot be told.
func (c *connection) silent() bool {
	if c.r.Buffered() > 0 || !c.quiet() {
		return false
	}
	if c.Conn == net.Conn(c.tcp) {
		return true
	}
	// TLS may have read more than the answer with it.
	_ = c.SetReadDeadline(past)
	_, err := c.r.Peek(1)
	_ = c.SetReadDeadline(time.Time{})
	return isTimeout(err)
}

// quiet reports whether the kernel has nothing to tell: no byte, no end, no error.
func (c *connection) quiet() bool {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return false
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, failed = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && failed == syscall.EAGAIN
}

// write sends a request.
func (c *connection) write(request []byte, authorization string, payload []byte) {
	c.whole = false
	b := c.out[:0]
	b = append(b, request...)
	if authorization != "" {
		b = append(append(append(b, "Authorization: "...), authorization...), "\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, "\r\n\r\n"...)
	c.out = b
	parts := net.Buffers{b, payload}
	_, c.sent = parts.WriteTo(c.Conn)
}

// giveUp ends what is under way.
func (c *connection) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last {
		_ = c.SetDeadline(past) // of one that is closed already nothing is
	}
}

// answered is exchange.
func (c *connection) answered() bool {
	return c.sent != nil || c.r.Buffered() > 0 || !c.quiet()
}

// receive is exchange. The connection is given back, or closed.
func (c *connection) receive(ctx context.Context, l *lane) (reply, error) {
	a, keep, err := c.read(ctx, l)
	if c.stop() && keep {
		c.home.give(c)
	} else {
		c.drop()
	}
	return a, err
}

// read reads the answer. keep tells that another request may follow.
func (c *connection) read(ctx context.Context, l *lane) (a reply, keep bool, err error) {
	switch {
	case c.sent != nil:
		// A store that refuses a request early may close the connection without reading
		// all of it, or neither read nor close until our time is over. What it has said
		// is there to be read.
		if !c.lastWords() {
			return reply{}, false, c.sent
		}
	case ctx.Err() != nil:
		if !c.lastWords() {
			return reply{}, false, ctx.Err()
		}
	case !time.Now().Before(c.deadline):
		// It has passed while answers of other requests were waited for.
		if !c.lastWords() {
			return reply{}, false, os.ErrDeadlineExceeded
		}
	}
	res, err := c.answer() //nolint:bodyclose // closing would read all of it, also what is cut off
	switch {
	case err != nil:
		return reply{}, false, cmp.Or(c.sent, err)
	case c.sent != nil && res.StatusCode < 300:
		return reply{}, false, fmt.Errorf("answer %d to half a request: %w", res.StatusCode, c.sent)
	}
	a.status, a.header = res.StatusCode, res.Header
	l.answer, a.cut, err = readText(l.answer, res.Body)
	c.whole = err == nil && c.sent == nil && !a.cut
	return a, c.whole && !res.Close && a.status != http.StatusSwitchingProtocols, err
}

// lastWords reports whether the store has said something already, which is to be read then:
// there is a moment for it, whatever ends meanwhile.
func (c *connection) lastWords() bool {
	c.mu.Lock()
	c.last = true
	_ = c.SetReadDeadline(time.Now().Add(lastWord))
	c.mu.Unlock()
	return c.r.Buffered() > 0 || !c.quiet()
}

// answer reads the header of the answer that counts. It is of a POST, which is all
// that ReadResponse wants to know.
func (c *connection) answer() (*http.Response, error) {
	c.limit.N = maxHeader
	for {
		res, err := http.ReadResponse(c.r, nil)
		switch {
		case err != nil && c.limit.N <= 0:
			return nil, fmt.Errorf("the header of the answer is longer than %d bytes", maxHeader)
		case err != nil:
			return nil, err
		case res.StatusCode < 100 || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols:
			c.limit.N = math.MaxInt64
			return res, nil
		}
	}
}
