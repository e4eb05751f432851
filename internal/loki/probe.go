package loki

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Answer is what a store has answered to a push of nothing.
type Answer struct {
	Status int
	// Text is the beginning of the answer's text, without secrets.
	Text string
	// Date is the store's clock as it answered, or that of a proxy before it, to
	// the second; zero if it did not say.
	Date time.Time
}

// nothing is a push without streams: the Snappy block of no bytes.
const nothing = "\x00"

// Address gives the URL that is pushed to, without secrets, and the proxy on the
// way there (from the environment, without secrets); "" if there is none.
func (c *Client) Address() (to *url.URL, proxy string) {
	to, err := url.Parse(c.shown)
	if err != nil {
		to = &url.URL{Host: c.url.Host} // a URL without its query is one, too
	}
	p, err := c.transport.Proxy(&http.Request{URL: c.url})
	if err == nil && p != nil {
		proxy = p.Host
	}
	return to, proxy
}

// Probe pushes nothing, in the way in which Push pushes lines: with the same
// connection, TLS, credentials and headers. The store keeps nothing of it. Loki
// answers 204, newer ones 422, which both say that it has taken the credentials.
// An error, without secrets, says that no answer came.
func (c *Client) Probe(ctx context.Context) (Answer, error) {
	authorization, err := c.auth.header(c.now())
	if err != nil {
		return Answer{}, err
	}
	h := c.header.Clone()
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	l := c.take()
	defer c.give(l)
	req := (&http.Request{
		Method: http.MethodPost, URL: c.url, Host: c.url.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: l.newBody([]byte(nothing)), ContentLength: int64(len(nothing)),
		GetBody: func() (io.ReadCloser, error) { return l.newBody([]byte(nothing)), nil },
	}).WithContext(ctx)
	if host := h.Get("Host"); host != "" {
		req.Host = host
	}
	res, err := c.transport.RoundTrip(req)
	if err == nil {
		_, err = l.read(res.Body)
		_ = res.Body.Close() // it was read; nothing hangs on it
	}
	l.bodies.Wait()
	switch {
	case ctx.Err() != nil:
		return Answer{}, context.Cause(ctx)
	case err != nil:
		return Answer{}, &probeError{c.scrub(shorten([]byte(err.Error()))), err}
	}
	a := Answer{Status: res.StatusCode, Text: c.scrub(shorten(l.answer))}
	a.Date, err = http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		a.Date = time.Time{}
	}
	return a, nil
}

// probeError is an error whose text has been cleared of secrets.
type probeError struct {
	text string
	err  error
}

func (e *probeError) Error() string { return e.text }

func (e *probeError) Unwrap() error { return e.err }
