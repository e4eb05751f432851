package sink

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answers are what a push is answered, by path.
var answers = map[string]string{
	protocolLoki:   "HTTP/1.1 204 No Content\r\n\r\n",
	protocolNative: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	protocolOTLP:   "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}

const (
	// refusal is for everything else. The connection ends with it.
	refusal = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	// atOnce is how much of a body is waited for: each time the sink is woken takes
	// the core from the agent on a machine with two.
	atOnce = 128 << 10
)

// ServePushes takes the pushes that come over a listener's connections, until ctx ends.
// It closes the listener. It does what net/http's server does for half of the CPU time.
func (s *Server) ServePushes(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		wg.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			defer c.Close() //nolint:errcheck // all that matters has been answered
			s.serve(ctx, c)
		})
	}
}

// serve takes the pushes of one connection until it ends.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return // as every connection ends
		}
		answer, ok := answers[r.URL.Path]
		if !ok || r.Method != http.MethodPost || r.ContentLength > maxRequestBytes {
			_, _ = io.WriteString(c, refusal)
			return
		}
		body, err := s.read(c, in, r)
		if err != nil {
			return // the agent sends it again
		}
		if s.answer > 0 {
			select {
			case <-time.After(s.answer):
			case <-ctx.Done():
				return
			}
		}
		s.keep(&request{protocol: r.URL.Path, encoding: r.Header.Get("Content-Encoding"), body: body, at: time.Now()})
		if _, err := io.WriteString(c, answer); err != nil || r.Close {
			return
		}
	}
}

// read reads the body of a request, the begin of which is in a buffer.
func (s *Server) read(c net.Conn, in *bufio.Reader, r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 { // in chunks
		return io.ReadAll(io.LimitReader(r.Body, maxRequestBytes))
	}
	body := s.bodyOf(int(r.ContentLength))
	n, err := io.ReadFull(in, body[:min(len(body), in.Buffered())])
	if err != nil || n == len(body) {
		return body, err
	}
	for n < len(body) {
		if err := awaitBytes(c, min(len(body)-n, atOnce)); err != nil {
			return nil, err
		}
		k, err := c.Read(body[n:])
		if n += k; err != nil && n < len(body) {
			return nil, err
		}
	}
	return body, awaitBytes(c, 1)
}

// awaitBytes lets reading from a connection wait until so much has come (SO_RCVLOWAT in
// socket(7); the kernel sees to it that its buffer is large enough).
func awaitBytes(c net.Conn, n int) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) }); err != nil {
		return err
	}
	return set
}
