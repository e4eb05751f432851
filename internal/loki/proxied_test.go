package loki

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// proxy is an HTTP proxy that wants to know who asks.
type proxy struct {
	url     *url.URL // with user and password
	mu      sync.Mutex
	seen    []string // method and target of each request
	tunnels sync.WaitGroup
}

func newProxy(t *testing.T, refuse bool) *proxy {
	t.Helper()
	p := new(proxy)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:pr0xy-word"))
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.Header.Del("Proxy-Authorization") }}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.RequestURI)
		p.mu.Unlock()
		got := r.Header.Get("Proxy-Authorization")
		if refuse || got != want {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			// It repeats what it got, where it can.
			_, _ = io.WriteString(conn, "HTTP/1.1 407 Not "+got+" pr0xy-word\r\nContent-Length: 10\r\n\r\npr0xy-word")
			_ = conn.Close()
			return
		}
		if r.Method != http.MethodConnect {
			forward.ServeHTTP(w, r)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		both := func(a, b net.Conn) { _, _ = io.Copy(a, b); _ = a.Close(); _ = b.Close() }
		p.mu.Lock()
		defer p.mu.Unlock()
		p.tunnels.Go(func() { both(to, from) })
		p.tunnels.Go(func() { both(from, to) })
	}))
	t.Cleanup(func() {
		srv.Close() // it does not wait for tunnels
		p.mu.Lock()
		defer p.mu.Unlock()
		p.tunnels.Wait()
	})
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "pr0xy-word")
	p.url = u
	return p
}

// by makes a rig's client go by way of a proxy.
func (r *rig) by(proxy *url.URL, cfg Config) {
	r.t.Helper()
	c, err := newClient(cfg, http.ProxyURL(proxy))
	if err != nil {
		r.t.Fatal(err)
	}
	c.now = r.now
	r.c.Close()
	r.c = c
	r.t.Cleanup(c.Close)
}

// TestProxy: pushes by way of a proxy, with and without TLS behind it.
func TestProxy(t *testing.T) {
	for _, secure := range []bool{false, true} {
		p := newProxy(t, false)
		cfg := Config{Username: "agent", Password: "s3cret-word", Timeout: 5 * time.Second, Headers: map[string]string{"X-A": "b"}}
		want := "POST http://"
		r := newRig(t, func(o *lokitest.Options) {
			if !secure {
				return
			}
			want = "CONNECT 127.0.0.1:"
			ca := newAuthority(t)
			certPEM, keyPEM := ca.issue("127.0.0.1")
			pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
			if err != nil {
				t.Fatal(err)
			}
			o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			cfg.TLS.CAFile = writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
		}, nil)
		cfg.URL = r.srv.URL
		r.by(p.url, cfg)
		for _, text := range []string{"one", "two"} {
			b := batchOf(labelled("a"), line(start, text))
			r.accepted(b, r.push(b))
		}
		r.stored([]string{"one", "two"})
		q := r.srv.Requests()[1]
		if user, password, ok := (&http.Request{Header: q.Header}).BasicAuth(); !ok || user != "agent" || password != "s3cret-word" || q.Header.Get("X-A") != "b" || q.Header.Get("Proxy-Authorization") != "" {
			t.Errorf("%v", q.Header)
		}
		p.mu.Lock()
		seen := p.seen
		p.mu.Unlock()
		if len(seen) == 0 || secure != (len(seen) == 1) || !strings.HasPrefix(seen[0], want) {
			t.Errorf("the proxy has seen %q", seen)
		}
		if _, at := r.c.Address(); at != p.url.Host {
			t.Errorf("told as %q", at)
		}
		r.c.Close()
	}
}

// TestProxyRefuses: what a proxy says is told without its secrets, also when there is none.
func TestProxyRefuses(t *testing.T) {
	refuses := newProxy(t, true)
	none := &url.URL{Scheme: "http", Host: "127.0.0.1:1", User: refuses.url.User}
	for name, tt := range map[string]struct {
		store string
		proxy *url.URL
		told  string
	}{
		"plain, refused":   {"http://store.example/push", refuses.url, "answer 407: [redacted]"},
		"CONNECT, refused": {"https://store.example/push", refuses.url, "Not Basic [redacted] [redacted]"},
		"plain, none":      {"http://store.example/push", none, "refused"},
		"CONNECT, none":    {"https://store.example/push", none, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, nil)
			r.by(tt.proxy, Config{URL: tt.store, Timeout: 5 * time.Second})
			out := r.push(batchOf(labelled("a"), line(start, "x")))
			if out.Err == nil || !strings.Contains(out.Err.Error(), tt.told) {
				t.Fatalf("%v", out.Err)
			}
			_, err := r.c.Probe(t.Context())
			for _, s := range []string{out.Err.Error(), r.c.Health().LastError, errorText(err)} {
				if strings.Contains(s, "pr0xy-word") || strings.Contains(s, base64.StdEncoding.EncodeToString([]byte("me:pr0xy-word"))) {
					t.Errorf("a secret is told: %s", s)
				}
			}
		})
	}
	t.Run("no URL", func(t *testing.T) {
		_, err := newClient(Config{URL: "http://loki"}, func(*http.Request) (*url.URL, error) {
			return nil, errors.New(`parse "http://me:pr0xy-word@[": missing ']' in host`)
		})
		if err == nil || strings.Contains(err.Error(), "pr0xy") {
			t.Errorf("%v", err)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestProxyAnswersEarly: an answer that comes while the payload is still written is
// found, and the payload is the caller's again.
func TestProxyAnswersEarly(t *testing.T) {
	for _, reads := range []bool{true, false} {
		b := serve(t, nil, func(_ int, p *peer) {
			for {
				req, err := http.ReadRequest(p.r)
				if err != nil {
					return
				}
				p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
				if !reads {
					p.gone()
					return
				}
				if _, err := io.Copy(io.Discard, req.Body); err != nil {
					return
				}
			}
		})
		u := &url.URL{Scheme: "http", Host: "store.example", Path: "/push"}
		p := newProxied(u, &url.URL{Scheme: "http", Host: b.address}, http.Header{}, nil, 5*time.Second)
		t.Cleanup(p.close)
		payload := bytes.Repeat([]byte("x"), 24<<20)
		for range 3 {
			l := new(lane)
			a, err := p.send(soon(t), time.Now().Add(time.Hour), "", payload).receive(soon(t), l)
			clear(payload)
			if err != nil || a.status != 413 || string(l.answer) != "big" {
				t.Fatalf("reads %v: %+v, %v, %q", reads, a, err, l.answer)
			}
		}
	}
}
