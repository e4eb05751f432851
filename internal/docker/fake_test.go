package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeEngine speaks as much of the Engine API as the package uses, over pipes,
// so that it works inside a synctest bubble with its fake clock.
type fakeEngine struct {
	conns  chan net.Conn
	closed chan struct{}
	subs   chan *subscription // every accepted /events, in order

	mu       sync.Mutex
	requests []string                    // "METHOD /path"
	version  string                      // announced API version
	list     []map[string]any            // answer of /containers/json
	hooks    map[string]http.HandlerFunc // by path suffix: answers instead
	inspect  map[string]map[string]any   // by ID
	refuse   bool                        // connections are refused
}

// subscription is one event stream, from the engine's side.
type subscription struct {
	query string
	write chan string // raw text, sent and flushed
	end   chan bool   // true: clean end, false: cut
}

func newFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	e := &fakeEngine{
		conns: make(chan net.Conn), closed: make(chan struct{}), subs: make(chan *subscription, 1000), version: "1.41",
		hooks: map[string]http.HandlerFunc{}, inspect: map[string]map[string]any{},
	}
	srv := &http.Server{Handler: e}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(e) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return e
}

// Accept, Close and Addr make the engine a net.Listener.
func (e *fakeEngine) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}
func (e *fakeEngine) Close() error   { close(e.closed); return nil }
func (e *fakeEngine) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "unix"} }

func (e *fakeEngine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	e.mu.Lock()
	refuse := e.refuse
	e.mu.Unlock()
	if refuse {
		return nil, fmt.Errorf("dial unix: connection refused")
	}
	here, there := net.Pipe()
	select {
	case e.conns <- there:
		return here, nil
	case <-e.closed: // a client that is about to be closed may still dial
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// client gives a Client of the engine.
func (e *fakeEngine) client(t *testing.T, opts ...Option) *Client {
	t.Helper()
	c, err := New("unix:///fake/docker.sock", append(opts, func(s *settings) { s.dial = e.dial })...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// set changes the engine under its lock.
func (e *fakeEngine) set(f func()) { e.mu.Lock(); defer e.mu.Unlock(); f() }

// seen gives the requests so far, without versions, and forgets them.
func (e *fakeEngine) seen() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.requests
	e.requests = nil
	return r
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	e.mu.Lock()
	e.requests = append(e.requests, r.Method+" "+path)
	if strings.HasPrefix(path, "/v") {
		_, path, _ = strings.Cut(path[1:], "/")
		path = "/" + path
	}
	hook, list, version := e.hooks[path], e.list, e.version
	inspect := e.inspect[strings.TrimSuffix(strings.TrimPrefix(path, "/containers/"), "/json")]
	e.mu.Unlock()
	w.Header().Set("Api-Version", version)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case hook != nil:
		hook(w, r)
	case path == "/_ping":
	case path == "/events":
		e.serveEvents(w, r)
	case path == "/containers/json":
		_ = json.NewEncoder(w).Encode(list)
	case path == "/info":
		_, _ = w.Write([]byte(`{"Name":"host1","DockerRootDir":"/var/lib/docker","ServerVersion":"20.10.24","LoggingDriver":"json-file"}`))
	case inspect != nil:
		_ = json.NewEncoder(w).Encode(inspect)
	default:
		http.Error(w, `{"message":"No such container: x"}`, http.StatusNotFound)
	}
}

func (e *fakeEngine) serveEvents(w http.ResponseWriter, r *http.Request) {
	s := &subscription{query: r.URL.RawQuery, write: make(chan string), end: make(chan bool)}
	rc := http.NewResponseController(w)
	if err := rc.Flush(); err != nil {
		return
	}
	e.subs <- s
	for {
		select {
		case text := <-s.write:
			if _, err := w.Write([]byte(text)); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
		case clean := <-s.end:
			if !clean {
				panic(http.ErrAbortHandler)
			}
			return
		case <-r.Context().Done():
			return
		}
	}
}

// hang answers nothing until the client goes away.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// status answers with an error of the engine.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"message":"made to fail with %d"}`, code)
	}
}

// message gives the JSON of one event.
func message(action, id string) string {
	return fmt.Sprintf(`{"Type":"container","Action":%q,"Actor":{"ID":%q,"Attributes":{"image":"app:1","name":"n-%s","tier":"web"}},"time":1,"timeNano":1000000001}`+"\n", action, id, id)
}
