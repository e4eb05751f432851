package server

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// limited lets at most n requests into a handler at once, those whose clients
// take their time to read the answer included. One more gets 503.
func limited(n int, next http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			reply(w, http.StatusServiceUnavailable, textType,
				fmt.Appendf(nil, "no more than %d such requests are answered at once: try again\n", n))
		}
	})
}

// limitListener accepts a connection only while fewer than a limit are open;
// others wait in the kernel's backlog, where they cost no descriptor.
type limitListener struct {
	net.Listener
	// slots has one element per open connection, and one for an Accept that
	// waits for the next connection.
	slots chan struct{}
	open  atomic.Int64 // connections accepted and not yet closed
	// closed ends an Accept that waits for a slot.
	closed    chan struct{}
	closeOnce sync.Once
}

func newLimitListener(l net.Listener, limit int) *limitListener {
	return &limitListener{Listener: l, slots: make(chan struct{}, limit), closed: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.open.Add(1)
	return &limitConn{Conn: c, release: sync.OnceFunc(func() {
		l.open.Add(-1)
		<-l.slots
	})}, nil
}

// crowded reports whether more than half of the connections that may be open
// are. The slots do not tell: whether the next Accept has taken one is a matter
// of which goroutine comes first.
func (l *limitListener) crowded() bool { return l.open.Load() > int64(cap(l.slots)/2) }

func (l *limitListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitConn gives its slot back when it is closed, once.
type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
