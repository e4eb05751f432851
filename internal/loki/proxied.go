package loki

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// proxied sends requests by way of a proxy, with net/http.
type proxied struct {
	url       *url.URL
	header    http.Header // of all requests
	transport *http.Transport
}

func newProxied(u, proxy *url.URL, header http.Header, t *tls.Config, timeout time.Duration) *proxied {
	return &proxied{url: u, header: header, transport: &http.Transport{
		Proxy:                  http.ProxyURL(proxy),
		DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        t,
		TLSHandshakeTimeout:    timeout,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleFor,
		MaxResponseHeaderBytes: maxHeader,
		WriteBufferSize:        64 << 10,
		DisableCompression:     true,
	}}
}

// maxIdle is how many connections to a proxy are kept: more than there are lanes.
const maxIdle = 8

// send is poster. net/http would need a goroutine for each request on its way: here the answer
// is waited for at once.
func (p *proxied) send(ctx context.Context, deadline time.Time, authorization string, payload []byte) exchange {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	h := p.header.Clone()
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	var bodies sync.WaitGroup // that net/http may still read
	newBody := func() (io.ReadCloser, error) {
		bodies.Add(1)
		b := &body{done: &bodies}
		b.Reset(payload)
		return b, nil
	}
	first, _ := newBody() // it never fails
	req := (&http.Request{
		Method: http.MethodPost, URL: p.url, Host: p.url.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: first, ContentLength: int64(len(payload)), GetBody: newBody,
	}).WithContext(ctx)
	var e received
	// The transport itself: unlike http.Client it follows no redirect.
	res, err := p.transport.RoundTrip(req)
	if err == nil {
		e.status, e.header = res.StatusCode, res.Header
		e.text, e.cut, err = readText(nil, res.Body)
		_ = res.Body.Close() // it was read; nothing hangs on it
	}
	e.err = err
	bodies.Wait()
	return &e
}

// received is an exchange that is over.
type received struct {
	reply
	text []byte
	err  error
}

func (e *received) answered() bool { return true }

func (e *received) receive(_ context.Context, l *lane) (reply, error) {
	l.answer = e.text
	return e.reply, e.err
}

// close is poster.
func (p *proxied) close() { p.transport.CloseIdleConnections() }

// body is a request's body. net/http may read it until it is closed, which can
// be after the answer has come (an early 413): its memory is free only then.
type body struct {
	bytes.Reader
	done *sync.WaitGroup
	once atomic.Bool
}

func (b *body) Close() error {
	if b.once.CompareAndSwap(false, true) {
		b.done.Done()
	}
	return nil
}
