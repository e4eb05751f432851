package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/s2"

	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// fault is what the store does with pushes, until another one is set. The zero
// value accepts them.
type fault struct {
	name string
	// status is the answer; nothing is stored.
	status     int
	retryAfter string
	// hang gives no answer for as long as the fault lasts, and none after it.
	hang bool
	// reset breaks the connection without an answer; cut after half of it.
	reset, cut bool
	// stored takes the lines before reset or cut: they come again.
	stored bool
	// down refuses connections.
	down bool
	// delay passes before the answer.
	delay time.Duration
	// refuse answers 400 for a reason that names no limit to pushes that have
	// lines of a container of which it says true; nothing is stored.
	refuse func(container string, n int) bool
	// share is the part of pushes that are hit; 0: all.
	share float64
}

// storeFaults are all ways in which the store can fail, but for those that
// refuse some lines, which need to know a container.
func storeFaults() []fault {
	return []fault{
		{name: "500", status: 500},
		{name: "503", status: 503},
		{name: "429", status: 429},
		{name: "429 with Retry-After", status: 429, retryAfter: "1"},
		{name: "hang", hang: true},
		{name: "reset", reset: true},
		{name: "close in mid-body", cut: true, status: 500},
		{name: "stored, then reset", reset: true, stored: true},
		{name: "stored, then closed in mid-body", cut: true, status: 200, stored: true},
		{name: "down", down: true},
		{name: "slow", delay: 700 * time.Millisecond},
		{name: "half of them 500", status: 500, share: 0.5},
		{name: "half of them stored, then reset", reset: true, stored: true, share: 0.5},
	}
}

// store takes Loki's push protocol and tells a ledger of what it has accepted.
// It keeps nothing itself. Its methods may be called from any goroutine.
type store struct {
	url    string
	addr   string
	ledger *ledger

	mu     sync.Mutex
	random *rand.Rand
	fault  fault
	over   chan struct{} // closed when the fault ends
	http   *http.Server  // nil: down
	done   chan struct{} // closed when http serves no more
}

func newStore(l *ledger, seed uint64) (*store, error) {
	s := &store{addr: "127.0.0.1:0", ledger: l, over: make(chan struct{}), random: rand.New(rand.NewPCG(seed, 1))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.listen(); err != nil {
		return nil, err
	}
	s.url = "http://" + s.addr + "/loki/api/v1/push"
	return s, nil
}

// listen begins to serve. mu is held.
func (s *store) listen() error {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("the store: %w", err)
	}
	s.addr = l.Addr().String()
	server, done := &http.Server{Handler: http.HandlerFunc(s.push), ReadHeaderTimeout: time.Minute}, make(chan struct{})
	s.http, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	return nil
}

// set lets a fault take the place of the one before.
func (s *store) set(f fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.over)
	s.over, s.fault = make(chan struct{}), f
	switch {
	case f.down:
		s.shut()
	case s.http == nil:
		return s.listen()
	}
	return nil
}

// shut also breaks the connections that are open. mu is held.
func (s *store) shut() {
	if s.http != nil {
		_ = s.http.Close()
		<-s.done
		s.http = nil
	}
}

// close ends the store.
func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.over)
	s.over, s.fault = make(chan struct{}), fault{}
	s.shut()
}

func (s *store) current() (fault, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	if f.share > 0 && s.random.Float64() >= f.share {
		f = fault{}
	}
	return f, s.over
}

func (s *store) push(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the agent has left
	}
	f, over := s.current()
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.hang {
		select {
		case <-over:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
	if (f.status == 0 && !f.reset) || f.stored {
		all, err := decode(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if f.refuses(all) {
			http.Error(w, "the moon is in the wrong phase", http.StatusBadRequest)
			return
		}
		s.ledger.deliver(all)
	}
	switch {
	case f.reset:
		breakConnection(w, "")
	case f.cut:
		const text = "the second half of this is never sent"
		breakConnection(w, fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", f.status, http.StatusText(f.status), len(text), text[:len(text)/2]))
	case f.status != 0:
		if f.retryAfter != "" {
			w.Header().Set("Retry-After", f.retryAfter)
		}
		http.Error(w, "so it is for now", f.status)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *fault) refuses(all []delivered) bool {
	if f.refuse == nil {
		return false
	}
	for _, d := range all {
		o := output{name: d.container}
		if f.refuse(d.container, o.number(d.text)) {
			return true
		}
	}
	return false
}

// decode reads a push.
func decode(body []byte) ([]delivered, error) {
	plain, err := s2.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	var req push.PushRequest
	if err := req.Unmarshal(plain); err != nil {
		return nil, err
	}
	var all []delivered
	for _, s := range req.Streams {
		labels, err := lokitest.ParseLabels(s.Labels)
		if err != nil {
			return nil, err
		}
		if labels["container_name"] == "" {
			return nil, errors.New("a stream without the label container_name: " + strconv.Quote(s.Labels))
		}
		for _, e := range s.Entries {
			all = append(all, delivered{
				container: labels["container_name"], stream: labels["stream"], text: e.Line, malformed: labels["malformed"] == "true",
			})
		}
	}
	return all, nil
}

// breakConnection sends some bytes, and then closes the connection, by a reset
// if there are none.
func breakConnection(w http.ResponseWriter, text string) {
	h, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := h.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if text != "" {
		_, _ = io.WriteString(conn, text)
	} else if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
