// Package sink is the store of the benchmark: it takes what agents push, by the
// protocols of Loki, VictoriaLogs and OpenTelemetry, and holds each line against
// what was written.
//
//	agent --push--> ServePushes --(queue)--> decoder --> checker --> Stats <-- driver
//
// A request is answered as soon as it has been read, and looked at later: checking
// must not hold the agent up. While the server is held, it is not looked at at all,
// so that checking does not take the machine from the agent either. For the same
// reason pushes do not go through net/http's server.
package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/bench/internal/measure"
)

// The paths that agents push to.
const (
	protocolLoki   = "/loki/api/v1/push"
	protocolNative = "/insert/native"
	protocolOTLP   = "/v1/logs"
)

// request is a push as it came.
type request struct {
	protocol, encoding string
	body               []byte
	at                 time.Time
}

// Stats is what a Server knows.
type Stats struct {
	Tally
	// Requests and Bytes are those received, packed; headers do not count.
	Requests int   `json:"requests"`
	Bytes    int64 `json:"bytes"`
	// LastAt is when the last request came; zero: none. NewAt is when the last
	// one came with a line that was not there.
	LastAt time.Time `json:"last_at"`
	NewAt  time.Time `json:"new_at"`
	// Queued is how many requests have not been looked at.
	Queued int `json:"queued"`
	// Errors is how many could not be decoded, Error the first one's.
	Errors int    `json:"errors"`
	Error  string `json:"error,omitempty"`
	// Latency is from a line's own time to its request's arrival, of the lines
	// since the last Measure.
	Latency measure.Latency `json:"latency"`
}

// Server is an http.Handler for the driver; ServePushes is for agents. Run must run for
// anything to be looked at.
type Server struct {
	mux  *http.ServeMux
	wake chan struct{}
	// answer is after how long a push is answered.
	answer time.Duration

	mu    sync.Mutex // of what requests change
	queue []*request
	held  bool
	room  []byte // for the bodies of requests, as far as it goes
	stats Stats  // but Tally, NewAt, Errors, Error, Latency
	busy  bool   // a request has been taken from the queue and not been done

	checking sync.Mutex // of what Run changes
	check    checker
	since    time.Time // lines of this time and later are measured
	late     []time.Duration
	newAt    time.Time
	errors   int
	err      string
}

// New makes a Server that answers a push after a time.
func New(answer time.Duration) *Server {
	s := &Server{mux: http.NewServeMux(), wake: make(chan struct{}, 1), answer: answer}
	s.mux.HandleFunc("POST /hold", s.serveHold)
	s.mux.HandleFunc("POST /release", func(http.ResponseWriter, *http.Request) { s.hold(false) })
	s.mux.HandleFunc("POST /measure", func(http.ResponseWriter, *http.Request) { s.measure(time.Now()) })
	s.mux.HandleFunc("GET /stats", s.serveStats)
	s.mux.HandleFunc("POST /missing", s.serveMissing)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// serveHold holds the server, and with ?room=N takes N bytes of memory for what is
// pushed: it costs as much to get as to fill.
func (s *Server) serveHold(w http.ResponseWriter, r *http.Request) {
	if text := r.URL.Query().Get("room"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			http.Error(w, "room is a number of bytes", http.StatusBadRequest)
			return
		}
		room := make([]byte, n)
		for i := 0; i < n; i += os.Getpagesize() {
			room[i] = 1 // the kernel gives a page when it is written to
		}
		s.mu.Lock()
		s.room = room
		s.mu.Unlock()
	}
	s.hold(true)
}

// bodyOf gives memory for a body of n bytes.
func (s *Server) bodyOf(n int) (body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > len(s.room) {
		return make([]byte, n)
	}
	body, s.room = s.room[:n:n], s.room[n:]
	return body
}

// keep takes a request that has been read.
func (s *Server) keep(req *request) {
	s.mu.Lock()
	s.stats.Requests++
	s.stats.Bytes += int64(len(req.body))
	s.stats.LastAt = req.at
	s.queue = append(s.queue, req)
	held := s.held
	s.mu.Unlock()
	if !held {
		s.kick()
	}
}

func (s *Server) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Server) hold(held bool) {
	s.mu.Lock()
	s.held = held
	s.mu.Unlock()
	s.kick()
}

// measure begins anew to measure latencies, of lines written from now on.
func (s *Server) measure(now time.Time) {
	s.checking.Lock()
	defer s.checking.Unlock()
	s.since, s.late = now, s.late[:0]
}

// Run looks at requests until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	d, err := newDecoder()
	if err != nil {
		return err
	}
	defer d.zstd.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		for req := s.take(); req != nil; req = s.take() {
			s.look(d, req)
		}
	}
}

// take gives the next request; nil when there is none to be looked at.
func (s *Server) take() *request {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if s.held || len(s.queue) == 0 {
		return nil
	}
	req := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.busy = true
	return req
}

func (s *Server) look(d *decoder, req *request) {
	s.checking.Lock()
	defer s.checking.Unlock()
	since, at := s.since.UnixNano(), req.at.UnixNano()
	err := d.each(req, func(nanos int64, line []byte) {
		if !s.check.add(line) {
			return
		}
		s.newAt = req.at
		if !s.since.IsZero() && nanos >= since {
			s.late = append(s.late, time.Duration(at-nanos))
		}
	})
	if err != nil {
		s.errors++
		if s.err == "" {
			s.err = err.Error()
		}
	}
}

// Stats gives what is known now; with latency, which costs a sort of all of them.
func (s *Server) Stats(latency bool) Stats {
	s.mu.Lock()
	st := s.stats
	st.Queued = len(s.queue)
	if s.busy {
		st.Queued++
	}
	s.mu.Unlock()
	s.checking.Lock()
	defer s.checking.Unlock()
	st.Tally, st.NewAt, st.Errors, st.Error = s.check.tally, s.newAt, s.errors, s.err
	if latency {
		st.Latency = measure.Summarize(s.late)
	}
	return st
}

func (s *Server) serveStats(w http.ResponseWriter, r *http.Request) {
	answer(w, s.Stats(r.URL.Query().Has("latency")))
}

// serveMissing takes how many lines each container has written.
func (s *Server) serveMissing(w http.ResponseWriter, r *http.Request) {
	var counts []int
	if err := json.NewDecoder(r.Body).Decode(&counts); err != nil {
		http.Error(w, fmt.Sprintf("counts of lines by container: %v", err), http.StatusBadRequest)
		return
	}
	s.checking.Lock()
	defer s.checking.Unlock()
	answer(w, s.check.missing(counts))
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // to the driver, which sees that it is cut
}
