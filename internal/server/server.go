package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The bounds of what a client can take up.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // with the body, which nobody wants
	writeTimeout      = 15 * time.Second
	idleTimeout       = 60 * time.Second // longer than the usual scrape interval of 15 s
	maxHeaderBytes    = 8 << 10
	maxConnections    = 64
	maxScrapes        = 4
	// drainTimeout is how long requests under way may take once Run's context
	// has ended.
	drainTimeout = 2 * time.Second
)

// Options are what a Server shows and where. All fields are required, except
// where it is said.
type Options struct {
	// Address is host:port; port 0 takes a free one.
	Address string
	// Health gives the state for /health, Ready why the agent is not ready for
	// /readyz (nil: it is). Both are called by several goroutines at once, must
	// not block, and must return when the context ends.
	Health func(context.Context) Health
	Ready  func(context.Context) error
	// Reload reads the configuration anew and gives its faults.
	Reload func(context.Context) error
	// Containers gives how each container's log is captured, in any order, in
	// memory that the caller may keep and change. As for Health, it must not
	// block. Without it ContainersPath is not served.
	Containers func(context.Context) []Container
	// Overview gives everything for the status page and StatusPath, as Containers
	// does. Without it neither is served.
	Overview func(context.Context) Overview
	// Config gives the configuration in force, encodable as JSON and without
	// secrets. Without it ConfigPath is not served.
	Config func() any
	// TokenFile holds what lets other machines reload and see Config and profiles;
	// empty: they may not. Pprof serves the profiles.
	TokenFile string
	Pprof     bool
	// Metrics is what /metrics shows.
	Metrics prometheus.Gatherer
	Log     *slog.Logger
}

// Server is the HTTP server. Listen and Run are called once each, in this order.
type Server struct {
	address string
	// tokenFile is looked at when the server begins.
	tokenFile string
	log       *slog.Logger
	http      http.Server
	listener  *limitListener
	// conns counts the goroutines of net/http that serve connections.
	conns sync.WaitGroup
}

// New makes a server that does not listen yet.
func New(o Options) *Server {
	s := &Server{address: o.Address, log: o.Log, tokenFile: o.TokenFile}
	errorLog := slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn)
	s.http = http.Server{
		Handler:           s.inTurns(handler(o)),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog,
		ConnState: func(_ net.Conn, st http.ConnState) {
			// StateNew comes from Serve, before the connection's goroutine
			// begins; StateClosed from that goroutine, as its last act.
			switch st {
			case http.StateNew:
				s.conns.Add(1)
			case http.StateClosed:
				s.conns.Done()
			}
		},
	}
	return s
}

// inTurns lets no client keep a connection that it does not need while many are
// open: those who ask now and then would keep out a health check, whose caller
// then restarts the agent.
func (s *Server) inTurns(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.listener.crowded() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// index is what / gives to programs that want no HTML.
const index = `log_capturer

/         the status page, for browsers
/health   how the agent is, as JSON; 503 when lines are not delivered
/livez    200 as long as the process serves: for container health checks
/readyz   200 while Docker is reached and its containers are known
/metrics  for Prometheus

/api/v1/status       everything that the status page shows, as JSON
/api/v1/containers   how each container's log is captured, as JSON

From this machine, or with the token of server.token_file:

/api/v1/config   the configuration in force, as JSON, without secrets
POST /-/reload   read the configuration anew
/debug/pprof/    profiles, if server.pprof is true
`

// handler is the server's routes. A pattern with GET takes HEAD as well; other
// methods get 405, other paths 404.
func handler(o Options) http.Handler {
	mux := http.NewServeMux()
	g := &guard{tokenFile: o.TokenFile, log: o.Log}
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, textType, []byte(body)) }
	}
	mux.Handle("GET /livez", text("alive\n"))
	mux.Handle("GET /readyz", readyHandler(o.Ready))
	mux.Handle("POST /-/reload", g.wrap(reloadHandler(o.Reload)))
	mux.Handle("GET /health", healthHandler(o.Health))
	if o.Containers != nil {
		mux.Handle("GET "+ContainersPath, limited(maxListings, containersHandler(o.Containers)))
	}
	if o.Overview != nil {
		mux.Handle("GET "+StatusPath, limited(maxListings, statusHandler(o.Overview)))
		mustUI().register(mux, o.Overview)
	} else {
		mux.Handle("GET /{$}", text(index))
	}
	if o.Config != nil {
		mux.Handle("GET "+ConfigPath, g.wrap(configHandler(o.Config)))
	}
	if o.Pprof {
		mux.Handle("GET "+profilesPath, g.wrap(profilesHandler()))
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		// What one collector cannot say must not hide what the others say.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		// Scrapes are local; a compressor would cost a megabyte.
		DisableCompression: true,
	}))
	return mux
}

// Listen takes the address, so that one that cannot be had stops the start.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w: %s", s.address, err, remedy(err))
	}
	s.listener = newLimitListener(l, maxConnections)
	return nil
}

// remedy says what to do when listening failed.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process has this port, perhaps another log_capturer: stop it, or set server.port to a free one"
	case errors.Is(err, syscall.EACCES):
		return "set server.port to 1024 or higher"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "set server.host to an address of this machine"
	default:
		return "see server.host and server.port"
	}
}

// Addr is the address that the server listens on; nil before Listen.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close gives the address back after a Listen that no Run has followed.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Run serves until ctx ends, then lets the requests under way finish for a
// short time, cuts off the rest and returns nil. It returns an error when
// serving failed. When it returns, no goroutine of the server is left.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		return errors.New("serve HTTP: Listen has not been called")
	}
	s.log.Info("serving HTTP", "address", s.listener.Addr().String())
	if s.tokenFile != "" {
		if _, err := readToken(s.tokenFile); err != nil {
			s.log.Warn("token cannot be used: requests from other machines that need it are refused until it can", "error", err)
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()

	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		if e := s.http.Shutdown(grace); e != nil {
			s.log.Warn("HTTP requests were cut off by the stop", "error", e)
		}
		cancel()
		err = <-served
	}
	// Whatever is left: connections that a failed Serve leaves open, requests
	// that took too long. Their contexts end.
	if e := s.http.Close(); e != nil {
		s.log.Debug("closing HTTP connections failed", "error", e)
	}
	s.conns.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP on %s: %w", s.address, err)
}
