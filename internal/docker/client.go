package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"
	"github.com/prometheus/client_golang/prometheus"
)

// callTimeout limits every call but the event stream. A list of 1,000
// containers takes an idle engine about 0.1 s.
const callTimeout = 10 * time.Second

// DefaultResyncEvery is how often Watch lists all containers although nothing
// seems to be wrong: the engine drops events in silence.
const DefaultResyncEvery = 5 * time.Minute

// Client talks to one engine. It is safe for concurrent use.
type Client struct {
	// host is what is dialled: unix:///path or tcp://host:port.
	host string
	opts []client.Opt

	log         *slog.Logger
	resyncEvery time.Duration
	metrics     metrics

	// current is the connected client; nil until an engine has answered. Its
	// version does not change any more: moby's client reads it unlocked, so
	// that another version takes another client.
	current atomic.Pointer[connected]
	// connecting is held (one token) by who makes a new current.
	connecting chan struct{}
}

// connected is a moby client that has negotiated its API version.
type connected struct {
	api *client.Client
	// announced is the API version that the engine said it has.
	announced string
}

// Option changes a Client.
type Option func(*settings)

type settings struct {
	log         *slog.Logger
	reg         prometheus.Registerer
	resyncEvery time.Duration
	dial        func(ctx context.Context, network, addr string) (net.Conn, error)
}

// WithLogger says where Watch logs outages; the default is nowhere.
func WithLogger(l *slog.Logger) Option { return func(s *settings) { s.log = l } }

// WithRegisterer registers the metrics of Watch; the default is nowhere. One
// registerer takes one Client.
func WithRegisterer(r prometheus.Registerer) Option { return func(s *settings) { s.reg = r } }

// WithResyncEvery sets how often Watch lists without a cause; more than 0.
func WithResyncEvery(d time.Duration) Option { return func(s *settings) { s.resyncEvery = d } }

// New makes a client for the engine at host, unix:///path or tcp://host:port.
// An empty host takes DOCKER_HOST, else unix:///var/run/docker.sock.
// DOCKER_CERT_PATH and DOCKER_TLS_VERIFY count for tcp; DOCKER_API_VERSION
// switches negotiation off. New does not connect: no engine need be there.
func New(host string, opts ...Option) (*Client, error) {
	s := settings{log: slog.New(slog.DiscardHandler), resyncEvery: DefaultResyncEvery}
	for _, o := range opts {
		o(&s)
	}
	if s.resyncEvery <= 0 {
		return nil, fmt.Errorf("docker: the resync interval must be more than 0, not %v", s.resyncEvery)
	}
	host = cmp.Or(host, os.Getenv(client.EnvOverrideHost), client.DefaultDockerHost)
	u, err := url.Parse(host)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the address, which may hold a password
		}
		return nil, fmt.Errorf("docker: cannot parse the host (docker.host or DOCKER_HOST): %w", err)
	}
	c := &Client{
		host: host, log: s.log, resyncEvery: s.resyncEvery, connecting: make(chan struct{}, 1),
	}
	switch {
	case u.Scheme == "unix" && u.Path != "" && u.Host == "" && u.User == nil:
		c.opts = []client.Opt{client.WithHost(host)}
	case u.Scheme == "tcp" && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "":
		// TLS first: it replaces the transport that WithHost then sets up.
		c.opts = []client.Opt{client.WithTLSClientConfigFromEnv(), client.WithHost(host)}
	default:
		// Its text is not repeated: it may hold a password.
		return nil, errors.New("docker: the host (docker.host or DOCKER_HOST) is neither unix:///path nor tcp://host:port, without user and query")
	}
	if s.dial != nil {
		c.opts = append(c.opts, client.WithDialContext(s.dial))
	}
	c.opts = append(c.opts, client.WithAPIVersionFromEnv(), client.WithHTTPResponseHook(noteAccepted))
	if c.metrics, err = newMetrics(s.reg); err != nil {
		return nil, fmt.Errorf("docker: register metrics: %w", err)
	}
	// What is wrong with certificates or DOCKER_API_VERSION is said at once.
	api, err := client.New(c.opts...)
	if err != nil {
		return nil, fmt.Errorf("docker: client for %s: %w", host, err)
	}
	return c, api.Close()
}

// Host gives the address of the engine.
func (c *Client) Host() string { return c.host }

// Close closes idle connections. Calls under way and Watch end by their
// contexts.
func (c *Client) Close() error {
	if cur := c.current.Swap(nil); cur != nil {
		return cur.api.Close()
	}
	return nil
}

// connect gives a client that has negotiated with the engine.
func (c *Client) connect(ctx context.Context) (*connected, error) {
	if cur := c.current.Load(); cur != nil {
		return cur, nil
	}
	select {
	case c.connecting <- struct{}{}:
		defer func() { <-c.connecting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if cur := c.current.Load(); cur != nil {
		return cur, nil
	}
	api, err := client.New(c.opts...)
	if err != nil {
		return nil, err
	}
	ping, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		return nil, errors.Join(err, api.Close())
	}
	cur := &connected{api: api, announced: ping.APIVersion}
	c.current.Store(cur)
	return cur, nil
}

// ping asks whether the engine answers. When it announces another API version
// than before, the next call negotiates anew.
func (c *Client) ping(ctx context.Context) error {
	return c.call(ctx, "ping", func(ctx context.Context, cur *connected) error {
		ping, err := cur.api.Ping(ctx, client.PingOptions{})
		if err != nil {
			return err
		}
		if ping.APIVersion != cur.announced && c.current.CompareAndSwap(cur, nil) {
			return cur.api.Close()
		}
		return nil
	})
}

// call runs f under the time limit and wraps its error.
func (c *Client) call(ctx context.Context, what string, f func(context.Context, *connected) error) error {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cur, err := c.connect(limited)
	if err == nil {
		err = f(limited, cur)
	}
	if err == nil {
		return nil
	}
	if limited.Err() != nil {
		err = limited.Err() // not all of moby's errors wrap it
	}
	return c.fail(ctx, what, err)
}

// Info asks the engine about itself.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var out Info
	err := c.call(ctx, "get info", func(ctx context.Context, cur *connected) error {
		r, err := cur.api.Info(ctx, client.InfoOptions{})
		out = toInfo(r.Info, cur.api.ClientVersion())
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return out, nil
}

// List gives all containers, exited ones too.
func (c *Client) List(ctx context.Context) ([]Summary, error) {
	var out []Summary
	err := c.call(ctx, "list containers", func(ctx context.Context, cur *connected) error {
		r, err := cur.api.ContainerList(ctx, client.ContainerListOptions{All: true})
		out = make([]Summary, len(r.Items))
		for i, s := range r.Items {
			out[i] = toSummary(s)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Inspect gives one container, by ID or name; ErrNotFound when there is none.
func (c *Client) Inspect(ctx context.Context, id string) (Container, error) {
	var out Container
	err := c.call(ctx, "inspect container "+id, func(ctx context.Context, cur *connected) error {
		r, err := cur.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		out = toContainer(r.Container)
		return err
	})
	if err != nil {
		return Container{}, err
	}
	return out, nil
}
