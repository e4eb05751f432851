package lokitest

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/s2"
)

// Limits are what the server refuses by. A zero value switches a limit off.
type Limits struct {
	MaxAge         time.Duration // reject_old_samples_max_age
	MaxAhead       time.Duration // creation_grace_period
	MaxBehind      time.Duration // half of max_chunk_age
	MaxLine        int           // max_line_size, bytes
	MaxLabels      int           // max_label_names_per_series
	MaxLabelName   int           // max_label_name_length, bytes
	MaxLabelValue  int           // max_label_value_length, bytes
	MaxStreams     int           // streams of a tenant
	StreamRate     int           // per_stream_rate_limit, bytes a second
	StreamBurst    int           // per_stream_rate_limit_burst, bytes
	TenantRate     int           // ingestion_rate_mb, bytes a second
	TenantBurst    int           // ingestion_burst_size_mb, bytes
	MaxMessage     int           // uncompressed bytes that gRPC between Loki's parts carries: 500 above
	MaxBody        int           // compressed bytes that a proxy before Loki carries: 413 above
	MaxMetadata    int           // max_structured_metadata_size, bytes a line
	MaxMetadataN   int           // max_structured_metadata_entries_count, a line
	NoMetadata     bool          // allow_structured_metadata: false
	MaxListed      int           // max_returned_stream_errors
	HeadBlock      int           // bytes of a stream's text within which a repeated line is dropped
	WholeStream    bool          // a stream above its rate is refused whole (shard_streams on), not from the first line too many
	ServiceName    bool          // discover_service_name: answers name streams with a label that was not sent
	RequiredLabels []string      // enforced_labels
}

// DefaultLimits are those of Loki 3.6.
func DefaultLimits() Limits {
	return Limits{
		MaxAge: 7 * 24 * time.Hour, MaxAhead: 10 * time.Minute, MaxBehind: time.Hour,
		MaxLine: 256 << 10, MaxLabels: 15, MaxLabelName: 1024, MaxLabelValue: 2048,
		MaxStreams: 5000, StreamRate: 3 << 20, StreamBurst: 15 << 20,
		TenantRate: 4 << 20, TenantBurst: 6 << 20, MaxMessage: 4 << 20,
		MaxMetadata: 64 << 10, MaxMetadataN: 128, MaxListed: 10, HeadBlock: 256 << 10,
		WholeStream: true, ServiceName: true,
	}
}

// Fault is one scripted answer. Without a Status the push is served as usual
// after the Delay.
type Fault struct {
	Status int
	Body   string
	Header http.Header
	// Delay passes before anything else is done.
	Delay time.Duration
	// Hang gives no answer until the client leaves or the server is closed.
	Hang bool
	// Reset breaks the connection (TCP RST) without an answer.
	Reset bool
	// CutBody sends the status and half of the body, then breaks the connection.
	CutBody bool
	// Store takes the lines as usual before the fault: the answer is lost, not
	// the push.
	Store bool
	// Discard leaves the body undecoded and the request unrecorded: for
	// benchmarks. It needs a Status.
	Discard bool
	// Reached, when not nil, receives a value once the fault is met: a barrier
	// for the test. The server waits for the receiver.
	Reached chan<- struct{}
}

// Line is one line that was stored.
type Line struct {
	Time     time.Time
	Text     string
	Metadata map[string]string
	Stream   string
}

// Request is one push that came in.
type Request struct {
	Status  int      // the answer; 0 where none was given
	Answer  string   // the text of the answer
	Streams []string // label texts in their order
	Each    []int    // how many lines of each
	Lines   int      // of all
	Bytes   int      // uncompressed
	Wire    int      // compressed
	Header  http.Header
	Path    string
	Query   string
}

// Options make a server. The zero value is no Loki: start from Default.
type Options struct {
	Limits Limits
	// Now is the server's clock; time.Now when nil.
	Now func() time.Time
	// Tenant is the X-Scope-OrgID that is asked for; "" asks for none.
	Tenant string
	// User and Password are asked for as basic authentication, Token as a
	// bearer token, when not empty. SetToken changes the token.
	User, Password, Token string
	// TLS makes an https server of this configuration.
	TLS *tls.Config
	// Poison makes the server answer 400 with a text that names no limit to
	// a push that has a line of which it says true; nothing is stored.
	Poison func(stream, line string) bool
}

// Default are the options of a Loki out of the box.
func Default() Options { return Options{Limits: DefaultLimits()} }

// Server is the stand-in. All methods are safe for concurrent use.
type Server struct {
	URL string // with the path of the push API

	opt  Options
	http *httptest.Server
	gone chan struct{} // closed by Close: releases what hangs

	mu       sync.Mutex
	token    string
	faults   []Fault
	always   *Fault
	store    store
	requests []Request
	closed   bool
}

// New starts a server. Close it.
func New(opt Options) *Server {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	s := &Server{opt: opt, gone: make(chan struct{}), token: opt.Token}
	s.store = newStore(opt.Limits)
	mux := http.NewServeMux()
	mux.HandleFunc("/loki/api/v1/push", s.push)
	s.http = httptest.NewUnstartedServer(mux)
	if opt.TLS != nil {
		s.http.TLS = opt.TLS
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	s.URL = s.http.URL + "/loki/api/v1/push"
	return s
}

// Close stops the server and waits for its requests.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.gone)
	}
	s.mu.Unlock()
	s.http.Close()
}

// Next scripts the answers to the next pushes, one fault each.
func (s *Server) Next(f ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f...)
}

// Always makes every push meet the fault once those of Next are used up; nil
// ends that.
func (s *Server) Always(f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = f
}

// SetLimits changes the limits; what is stored stays.
func (s *Server) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opt.Limits = l
	s.store.limits = l
}

// SetToken changes the bearer token that is asked for.
func (s *Server) SetToken(t string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = t
}

// Requests gives the pushes that came in, in the order of their answers.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Lines gives the stored lines of the streams that have all the labels, given
// as name, value, name, value; streams in the order of their first line, lines
// in the order in which they came. Without labels: all lines.
func (s *Server) Lines(labels ...string) []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.lines(labels)
}

// Texts gives the texts of Lines.
func (s *Server) Texts(labels ...string) []string {
	var out []string
	for _, l := range s.Lines(labels...) {
		out = append(out, l.Text)
	}
	return out
}

// Streams gives the label texts of the streams that have lines, in the order
// of their first line.
func (s *Server) Streams() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.store.order...)
}

func (s *Server) push(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	s.mu.Lock()
	var f Fault
	switch {
	case len(s.faults) > 0:
		f, s.faults = s.faults[0], s.faults[1:]
	case s.always != nil:
		f = *s.always
	}
	s.mu.Unlock()

	if f.Reached != nil {
		select {
		case f.Reached <- struct{}{}:
		case <-s.gone:
		}
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		case <-s.gone:
		}
	}
	if f.Discard {
		w.WriteHeader(f.Status)
		return
	}
	rec := Request{Header: r.Header.Clone(), Path: r.URL.Path, Query: r.URL.RawQuery, Wire: len(body)}
	scripted := f.Status != 0 || f.Hang || f.Reset || f.CutBody

	s.mu.Lock()
	status, text := 0, ""
	if scripted && !f.Store {
		s.decode(r, body, &rec) // for the record only
	} else {
		status, text = s.serve(r, body, &rec)
	}
	if scripted {
		status, text = f.Status, f.Body
	}
	rec.Status, rec.Answer = status, text
	s.requests = append(s.requests, rec)
	s.mu.Unlock()

	switch {
	case f.Hang:
		select {
		case <-r.Context().Done():
		case <-s.gone:
		}
		panic(http.ErrAbortHandler)
	case f.Reset:
		breakConn(w, nil)
		return
	case f.CutBody:
		half := text[:len(text)/2]
		head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(text), half)
		breakConn(w, []byte(head))
		return
	}
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(status)
	if text != "" {
		_, _ = io.WriteString(w, text) // a client that has left is its own affair
	}
}

// breakConn sends some bytes and then resets the connection.
func breakConn(w http.ResponseWriter, send []byte) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(send) > 0 {
		_, _ = conn.Write(send)
	} else if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // RST; with bytes to be read it could swallow them
	}
	_ = conn.Close()
}

// decode reads a push and completes the record. The caller holds mu.
func (s *Server) decode(r *http.Request, body []byte, rec *Request) (*push.PushRequest, int, string) {
	if t := r.Header.Get("Content-Type"); t != "application/x-protobuf" {
		return nil, http.StatusUnsupportedMediaType, "Content-Type " + t + " is not supported"
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "snappy" {
		return nil, http.StatusBadRequest, "Content-Encoding \"" + e + "\" not supported"
	}
	plain, err := s2.Decode(nil, body)
	if err != nil {
		return nil, http.StatusBadRequest, "snappy: corrupt input"
	}
	rec.Bytes = len(plain)
	req := new(push.PushRequest)
	if err := req.Unmarshal(plain); err != nil {
		return nil, http.StatusBadRequest, err.Error()
	}
	for _, st := range req.Streams {
		rec.Streams = append(rec.Streams, st.Labels)
		rec.Each = append(rec.Each, len(st.Entries))
		rec.Lines += len(st.Entries)
	}
	return req, 0, ""
}

// serve does what Loki does. The caller holds mu.
func (s *Server) serve(r *http.Request, body []byte, rec *Request) (int, string) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, ""
	}
	if s.opt.User != "" {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(s.opt.User+":"+s.opt.Password))
		if r.Header.Get("Authorization") != want {
			return http.StatusUnauthorized, "invalid authentication"
		}
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		return http.StatusUnauthorized, "invalid token"
	}
	if s.opt.Tenant != "" && r.Header.Get("X-Scope-OrgID") != s.opt.Tenant {
		return http.StatusUnauthorized, "no org id"
	}
	lim := &s.opt.Limits
	if lim.MaxBody > 0 && len(body) > lim.MaxBody {
		return http.StatusRequestEntityTooLarge, "<html><h1>413 Request Entity Too Large</h1></html>"
	}
	req, status, text := s.decode(r, body, rec)
	if status != 0 {
		return status, text
	}
	if lim.MaxMessage > 0 && rec.Bytes > lim.MaxMessage {
		return http.StatusInternalServerError, fmt.Sprintf(
			"rpc error: code = ResourceExhausted desc = trying to send message larger than max (%d vs. %d)", rec.Bytes, lim.MaxMessage)
	}
	if s.opt.Poison != nil {
		for _, st := range req.Streams {
			for _, e := range st.Entries {
				if s.opt.Poison(st.Labels, e.Line) {
					return http.StatusBadRequest, "the moon is in the wrong phase"
				}
			}
		}
	}
	return s.store.push(req, s.opt.Now(), r.Header.Get("X-Scope-OrgID"))
}
