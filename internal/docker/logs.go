package docker

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-connections/tlsconfig"
	"github.com/moby/moby/client"
)

const (
	// logReadSize is the buffer below HTTP, and what a stream's own buffer
	// starts with. The latter grows to the largest entry seen: an engine's has
	// at most 48 KiB (16 KiB of bytes that are no UTF-8).
	logReadSize = 16 << 10
	// maxErrorBody limits what is read of an engine's error message.
	maxErrorBody = 64 << 10
)

// LogsOptions says which entries of a container's log are wanted.
type LogsOptions struct {
	// Since leaves out entries before it; one of the same nanosecond is given.
	// Zero: from the beginning. The engine decodes the log from its beginning
	// in any case.
	Since time.Time
	// Follow waits for further entries until the container exits. For one that
	// is not running it changes nothing.
	Follow bool
	// TTY is Container.TTY: such a log comes without frames.
	TTY bool
	// StartedAt is Container.StartedAt, of use for a TTY only: it lets the last
	// line of an earlier run be told from the first of the next one when the
	// former has no end (doc of cutText). Zero: they come as one entry.
	StartedAt time.Time
}

// DaemonError is what the engine says in mid-stream, after which it ends the
// stream: it cannot read its log any further.
type DaemonError struct{ Text string }

func (e *DaemonError) Error() string { return "the engine cannot read the log: " + e.Text }

// Logs opens the log of a container. ctx rules the whole life of the stream,
// not only the opening. Opening ends after 10 s; a stream has no time limit of
// any kind. An engine sends the header at once, before it looks into the log
// (moby WriteLogStream; 1-3 ms on 20.10); one with moby issue 47448 (early 2024)
// sends it with the first entry only: there, opening a silent container's log
// fails with ErrUnavailable.
//
// The error is ErrNotFound, ErrConflict (the container is being removed),
// ErrNotReadable (a log driver that cannot be read back), ErrUnavailable or
// that of ctx, for errors.Is.
//
// The connection is made here rather than by moby's client, which has two
// goroutines and two buffers for each and closes it some time after Close. As
// with moby's own hijacked connections, HTTP proxies are not used.
func (c *Client) Logs(ctx context.Context, id string, o LogsOptions) (*LogStream, error) {
	what := "read logs of container " + id
	where := fmt.Sprintf("docker: %s at %s", what, c.host)
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	fail := func(err error) error {
		// Of these the first to end may be any.
		if ctx.Err() != nil || limited.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return c.fail(ctx, what, context.DeadlineExceeded)
		}
		return fmt.Errorf("%s: %w", where, err)
	}
	cur, err := c.connect(limited)
	if err != nil {
		if limited.Err() != nil {
			err = limited.Err() // not all of moby's errors wrap it
		}
		return nil, c.fail(ctx, what, err)
	}
	req, err := c.logsRequest(limited, cur.api.ClientVersion(), id, o)
	if err != nil {
		return nil, fail(err)
	}
	conn, err := c.dialLogs(limited, cur.api)
	if err != nil {
		if hint := socketHint(c.host, err); hint != "" {
			return nil, fail(fmt.Errorf("%w: %s", ErrUnavailable, hint))
		}
		return nil, fail(fmt.Errorf("%w: %w", ErrUnavailable, err))
	}
	s := &LogStream{
		what: where, conn: conn,
		cause: func() error { return context.Cause(ctx) },
		buf:   make([]byte, logReadSize),
		cut:   cutFrame,
	}
	if o.TTY {
		tty := &ttyCutter{now: func() int64 { return time.Now().UnixNano() }}
		if !o.StartedAt.IsZero() {
			tty.startedAt = o.StartedAt.UnixNano()
		}
		s.cut = tty.cutText
	}
	s.forget = context.AfterFunc(ctx, func() { _ = s.disconnect() })
	if err = s.ask(limited, req); err == nil {
		err = ctx.Err() // the answer may have been the quicker one
	}
	if err != nil {
		return nil, errors.Join(fail(err), s.Close())
	}
	return s, nil
}

// logsRequest makes the request.
func (c *Client) logsRequest(ctx context.Context, version, id string, o LogsOptions) (*http.Request, error) {
	if id == "" { // the path would be another one
		return nil, errors.New("no container named")
	}
	u, err := url.Parse(c.host)
	if err != nil {
		return nil, err
	}
	host, base := u.Host, u.Path
	if u.Scheme == "unix" {
		host, base = client.DummyHost, ""
	}
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "timestamps": {"1"}}
	if o.Follow {
		q.Set("follow", "1")
	}
	if !o.Since.IsZero() && o.Since.Unix() >= 0 {
		q.Set("since", fmt.Sprintf("%d.%09d", o.Since.Unix(), o.Since.Nanosecond()))
	}
	where := url.URL{
		Scheme: "http", Host: host, RawQuery: q.Encode(),
		Path: path.Join("/", base, "v"+strings.TrimPrefix(version, "v"), "containers") + "/" + id + "/logs",
	}
	return http.NewRequestWithContext(ctx, http.MethodGet, where.String(), http.NoBody)
}

// dialLogs connects as moby's client does. Its Dialer heeds no context where TLS
// is used, hence the second road.
func (c *Client) dialLogs(ctx context.Context, api *client.Client) (net.Conn, error) {
	dir := os.Getenv(client.EnvOverrideCertPath)
	addr, tcp := strings.CutPrefix(c.host, "tcp://")
	if !tcp || dir == "" {
		return api.Dialer()(ctx)
	}
	conf, err := tlsconfig.Client(tlsconfig.Options{
		CAFile:             filepath.Join(dir, "ca.pem"),
		CertFile:           filepath.Join(dir, "cert.pem"),
		KeyFile:            filepath.Join(dir, "key.pem"),
		InsecureSkipVerify: os.Getenv(client.EnvTLSVerify) == "",
	})
	if err != nil {
		return nil, err
	}
	addr, _, _ = strings.Cut(addr, "/")
	return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", addr)
}

// LogStream is an open log. It has no goroutine. Close may be called at any
// time and from any goroutine; the other methods belong to one.
type LogStream struct {
	what   string       // for errors
	cause  func() error // why the stream's context has ended; nil while it has not
	forget func() bool  // ends the watch over the context

	once   sync.Once // guards the closing of conn
	conn   net.Conn
	closed error // of the closing of conn

	body io.Reader
	// undelimited: the response's end is that of the connection, so that a
	// clean one cannot be told from a cut (a proxy of HTTP/1.0).
	undelimited bool

	// cut takes the first entry off b: n bytes of it have been used, ok says that
	// there is an entry in them. Neither: more bytes are needed. eof says that
	// none will come.
	cut func(b []byte, eof bool) (f Frame, n int, ok bool, err error)

	buf     []byte // buf[r:w] has been read and not yet been given
	r, w    int
	readErr error // why nothing more can be read; io.EOF at the clean end
	err     error // what Next gives from now on

	ahead Frame // the next entry, when Buffered has found one
	have  bool
}

// ask sends the request and reads the response's header.
func (s *LogStream) ask(limited context.Context, req *http.Request) error {
	if d, ok := limited.Deadline(); ok {
		if err := s.conn.SetDeadline(d); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if err := req.Write(s.conn); err != nil {
		return fmt.Errorf("%w: send the request: %w", ErrUnavailable, err)
	}
	// The body is not closed: that would read the log to its end. Closing the
	// connection does it.
	resp, err := http.ReadResponse(bufio.NewReaderSize(s.conn, logReadSize), req) //nolint:bodyclose // see above
	if err != nil {
		return fmt.Errorf("%w: no answer: %w", ErrUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	s.body = resp.Body
	s.undelimited = resp.ContentLength < 0 && !slices.Contains(resp.TransferEncoding, "chunked")
	_ = s.conn.SetDeadline(time.Time{}) // fails on a dead connection only, which reading tells better
	return nil
}

// refusal makes an error of an answer that is no log.
func refusal(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return fmt.Errorf("%w: answer %s, and no reason: %w", ErrUnavailable, resp.Status, err)
	}
	var body struct{ Message string }
	if json.Unmarshal(text, &body) != nil || body.Message == "" {
		body.Message = resp.Status // not Docker's: a proxy's page helps nobody
	}
	err = errors.New(strings.TrimSpace(body.Message))
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case code == http.StatusConflict:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	case code == http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", ErrNotReadable, err)
	case code >= http.StatusInternalServerError:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
}

// Next gives the next entry; it waits for one without limit. The error is
//   - io.EOF, as it is: the container has exited, the engine was shut down in
//     order, or the log is at its end and was not to be followed;
//   - io.ErrUnexpectedEOF: the connection was cut (the engine died);
//   - *DaemonError: the engine cannot read its log any further;
//   - ErrProtocol: what came is no log;
//   - that of the stream's context, or net.ErrClosed after Close;
//
// all but the first to be found by errors.Is and errors.As. Everything whole
// that came before is given first, except that the end of the context comes at
// once. After an error, which is final, the connection is closed.
func (s *LogStream) Next() (Frame, error) {
	if s.err == nil {
		if cause := s.cause(); cause != nil {
			s.end(fmt.Errorf("%s: %w", s.what, cause))
		}
	}
	for s.err == nil {
		if s.step(); s.have {
			s.have = false
			return s.ahead, nil
		}
		if s.err != nil {
			break
		}
		if s.readErr != nil {
			s.end(s.explain(s.readErr))
			break
		}
		s.fill()
	}
	return Frame{}, s.err
}

// Buffered reports whether Next would give an entry without waiting. The
// entry that Next gave last stays valid.
func (s *LogStream) Buffered() bool {
	if s.err == nil {
		s.step()
	}
	return s.have
}

// step looks for an entry in what has been read.
func (s *LogStream) step() {
	for !s.have && s.err == nil {
		f, n, ok, err := s.cut(s.buf[s.r:s.w], errors.Is(s.readErr, io.EOF) && !s.undelimited)
		s.r += n
		s.ahead, s.have = f, ok
		if err != nil {
			s.end(fmt.Errorf("%s: %w", s.what, err))
		}
		if n == 0 {
			return
		}
	}
}

// fill reads what there is, at least a byte or an error.
func (s *LogStream) fill() {
	switch {
	case s.r == s.w:
		s.r, s.w = 0, 0
	case s.r > 0 && s.w > len(s.buf)/2:
		s.r, s.w = 0, copy(s.buf, s.buf[s.r:s.w])
	}
	if s.w == len(s.buf) { // one entry fills it; cut bounds how often
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.body.Read(s.buf[s.w:])
	s.w += n
	s.readErr = err
}

// explain says what the end of reading means.
func (s *LogStream) explain(err error) error {
	cause := s.cause()
	switch {
	case cause != nil:
		return fmt.Errorf("%s: %w", s.what, cause)
	case errors.Is(err, io.EOF) && s.r == s.w && !s.undelimited:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the stream was cut (the engine died, or was restarted): %w", s.what, io.ErrUnexpectedEOF)
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("%s: %w", s.what, net.ErrClosed)
	default: // a reset connection, above all
		return fmt.Errorf("%s: the stream was lost: %w: %w", s.what, io.ErrUnexpectedEOF, err)
	}
}

// end makes err the last word.
func (s *LogStream) end(err error) {
	s.err = err
	_ = s.Close() // the reason to end is the better error
}

// Close closes the connection, and ends a Next that waits. Every call gives the
// same error.
func (s *LogStream) Close() error {
	s.forget()
	return s.disconnect()
}

func (s *LogStream) disconnect() error {
	s.once.Do(func() { s.closed = s.conn.Close() })
	return s.closed
}
