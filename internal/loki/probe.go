package loki

import (
	"context"
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
	if c.proxy != nil {
		proxy = c.proxy.Host
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
	l := c.take()
	defer c.give(l)
	r, err := c.poster.send(ctx, time.Now().Add(c.cfg.Timeout), authorization, []byte(nothing)).receive(ctx, l)
	switch {
	case ctx.Err() != nil:
		return Answer{}, context.Cause(ctx)
	case err != nil:
		return Answer{}, &probeError{c.scrub(shorten([]byte(err.Error()))), err}
	}
	a := Answer{Status: r.status, Text: c.scrub(shorten(l.answer))}
	a.Date, err = http.ParseTime(r.header.Get("Date"))
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
