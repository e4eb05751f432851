package loki

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// A store is served by functions here: one connection each, written by hand.

// script is what a store does with its nth connection (from 0).
type script func(n int, c *peer)

// peer is the store's end of a connection. Its errors are the scripts' business:
// most scripts end by one.
type peer struct {
	net.Conn // TLS or not
	tcp      *net.TCPConn
	below    *gather
	r        *bufio.Reader
}

// gather keeps what is written until it is let go, so that it goes in one piece.
type gather struct {
	net.Conn
	hold bool
	kept []byte
}

func (g *gather) Write(b []byte) (int, error) {
	if g.hold {
		g.kept = append(g.kept, b...)
		return len(b), nil
	}
	return g.Conn.Write(b)
}

func (g *gather) letGo() {
	g.hold = false
	_ = g.SetWriteDeadline(time.Time{}) // tls.Conn has set one behind its farewell
	_, _ = g.Write(g.kept)
	g.kept = nil
}

// request reads a request, and gives its payload; false if none came.
func (p *peer) request() (*http.Request, []byte, bool) {
	req, err := http.ReadRequest(p.r)
	if err != nil {
		return nil, nil, false
	}
	b, err := io.ReadAll(req.Body)
	return req, b, err == nil
}

func (p *peer) say(text string) { _, _ = io.WriteString(p, text) }

// reset closes the connection with an RST.
func (p *peer) reset() { _ = p.tcp.SetLinger(0); _ = p.tcp.Close() }

// closed waits until the other side has closed the connection.
func (p *peer) closed() { _, _ = io.Copy(io.Discard, p.r) }

// gone waits for that, too, and reads nothing.
func (p *peer) gone() {
	raw, err := p.tcp.SyscallConn()
	if err != nil {
		return
	}
	for gone := false; !gone; <-time.After(time.Millisecond) {
		err := raw.Control(func(fd uintptr) {
			info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
			gone = err != nil || byte(info) != 1 // TCP_ESTABLISHED
		})
		gone = gone || err != nil
	}
}

const noContent = "HTTP/1.1 204 No Content\r\n\r\n"

// badStore is a listener that follows a script.
type badStore struct {
	address string
	opened  atomic.Int32
}

// serve starts one, with TLS if conf says so. A script's end closes its connection.
func serve(t *testing.T, conf *tls.Config, s script) *badStore {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &badStore{address: l.Addr().String()}
	var open sync.WaitGroup
	var mu sync.Mutex
	var all []net.Conn
	open.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			tcp := raw.(*net.TCPConn)
			mu.Lock()
			all = append(all, tcp)
			mu.Unlock()
			n := int(b.opened.Add(1)) - 1
			open.Go(func() {
				defer tcp.Close()
				p := &peer{Conn: tcp, tcp: tcp, below: &gather{Conn: tcp}}
				if conf != nil {
					p.Conn = tls.Server(p.below, conf)
				}
				p.r = bufio.NewReader(p.Conn)
				s(n, p)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range all {
			_ = c.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	return b
}

// trusted is TLS's settings of both sides.
func trusted(t *testing.T) (store, ours *tls.Config) {
	t.Helper()
	ca := newAuthority(t)
	c, k := ca.issue("127.0.0.1")
	pair, err := tls.X509KeyPair([]byte(c), []byte(k))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// bothWays runs a test with and without TLS.
func bothWays(t *testing.T, f func(t *testing.T, store, ours *tls.Config)) {
	t.Run("plain", func(t *testing.T) { f(t, nil, nil) })
	t.Run("TLS", func(t *testing.T) {
		store, ours := trusted(t)
		f(t, store, ours)
	})
}

// connect gives connections to a store.
func connect(t *testing.T, b *badStore, ours *tls.Config) *connections {
	t.Helper()
	u := &url.URL{Scheme: "http", Host: b.address, Path: "/push"}
	if ours != nil {
		u.Scheme = "https"
	}
	c := newConnections(u, http.Header{}, ours, 10*time.Second)
	t.Cleanup(c.close)
	return c
}

// post sends a payload and reads the answer.
func (c *connections) post(ctx context.Context, l *lane, authorization string, payload []byte) (reply, error) {
	return c.send(ctx, time.Now().Add(time.Hour), authorization, payload).receive(ctx, l)
}

// post is that of connections, on one that is there.
func (c *connection) post(l *lane, payload []byte) (a reply, keep bool, err error) {
	c.deadline = time.Now().Add(time.Hour)
	c.write([]byte("POST / HTTP/1.1\r\n"), "", payload)
	return c.read(context.Background(), l)
}

// soon is a context that ends long after everything should be over.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until waits for what gives no other sign.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestStoreClosesIdle: whatever a store does to a connection between two requests is
// noticed before the second, which is neither lost nor sent twice.
func TestStoreClosesIdle(t *testing.T) {
	timeout := "HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	whole := func(text string, then func(p *peer)) func(*peer) {
		return func(p *peer) {
			p.below.hold = true
			p.say(text)
			then(p)
			p.below.letGo()
		}
	}
	notify := func(p *peer) {
		if c, ok := p.Conn.(*tls.Conn); ok {
			_ = c.CloseWrite()
		} else {
			_ = p.tcp.CloseWrite()
		}
	}
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		for name, after := range map[string]func(p *peer){
			"closed":                     func(p *peer) { p.say(noContent); _ = p.Close() },
			"closed without a word":      func(p *peer) { p.say(noContent); _ = p.tcp.Close() },
			"reset":                      func(p *peer) { p.say(noContent); p.reset() },
			"half closed":                func(p *peer) { p.say(noContent); notify(p); p.closed() },
			"half closed, in one piece":  func(p *peer) { whole(noContent, notify)(p); p.closed() },
			"408":                        func(p *peer) { p.say(noContent); p.say(timeout); _ = p.Close() },
			"408, left open":             func(p *peer) { p.say(noContent); p.say(timeout); p.closed() },
			"one answer too many":        func(p *peer) { p.say(noContent + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); p.closed() },
			"one too many, in one piece": func(p *peer) { whole(noContent, func(p *peer) { p.say(timeout) })(p); p.closed() },
			"a text where none may be":   func(p *peer) { p.say("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nno"); p.closed() },
			"chunks where no text may be": func(p *peer) {
				p.say("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
				p.closed()
			},
			"more text than Content-Length": func(p *peer) { p.say("HTTP/1.1 204 No Content\r\n\r\n" + strings.Repeat("x", 9000)); p.closed() },
		} {
			t.Run(name, func(t *testing.T) {
				var got atomic.Int32
				done := make(chan struct{})
				b := serve(t, store, func(n int, p *peer) {
					for {
						if _, _, ok := p.request(); !ok {
							return
						}
						got.Add(1)
						if n == 0 {
							after(p)
							close(done)
							return
						}
						p.say("HTTP/1.1 429 Second\r\nContent-Length: 2\r\n\r\nhi")
					}
				})
				c := connect(t, b, ours)
				l := new(lane)
				if a, err := c.post(soon(t), l, "", []byte("one")); err != nil || a.status != 204 {
					t.Fatalf("%+v, %v", a, err)
				}
				// What TLS has read with the answer is there; the rest needs a moment.
				if len(c.idle) == 1 && (store == nil || !strings.HasSuffix(name, "in one piece")) {
					until(t, "the store's sign", func() bool { return !c.idle[0].silent() })
				}
				a, err := c.post(soon(t), l, "", []byte("two"))
				if err != nil || a.status != 429 || string(l.answer) != "hi" {
					t.Fatalf("the second: %+v, %v, %q", a, err, l.answer)
				}
				<-done
				if n := got.Load(); n != 2 || b.opened.Load() != 2 {
					t.Errorf("%d requests over %d connections", n, b.opened.Load())
				}
			})
		}
	})
}

// TestReuse: many requests need one connection, however the answers are framed.
func TestReuse(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		texts := []string{
			noContent,
			"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nwhat?",
			"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwha\r\n2;x=y\r\nt?\r\n0\r\nTrailer: t\r\n\r\n",
			"HTTP/1.1 500 Oh\r\nContent-Length: 90000\r\n\r\n" + strings.Repeat("x", 90000),
			"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 100 Continue\r\n\r\n" + noContent,
		}
		b := serve(t, store, func(_ int, p *peer) {
			for i := 0; ; i++ {
				req, payload, ok := p.request()
				if !ok {
					return
				}
				if string(payload) != fmt.Sprint("payload ", i) || req.Header.Get("Authorization") != fmt.Sprint("Bearer ", i) {
					t.Errorf("request %d: %q, %v", i, payload, req.Header)
				}
				p.say(texts[i%len(texts)])
			}
		})
		c := connect(t, b, ours)
		l := new(lane)
		for i := range 50 * len(texts) {
			if _, err := c.post(soon(t), l, fmt.Sprint("Bearer ", i), fmt.Append(nil, "payload ", i)); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.opened.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestAnswers: what is taken from an answer, and whether the connection is used again.
func TestAnswers(t *testing.T) {
	type want struct {
		status int
		text   string
		err    string // a part of it
		reused bool
	}
	many := strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100)
	for name, tt := range map[string]struct {
		answer string
		want
	}{
		"204":                     {noContent, want{204, "", "", true}},
		"200 with a text":         {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", want{200, "abc", "", true}},
		"chunks":                  {"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want{400, "abc", "", true}},
		"until the end":           {"HTTP/1.1 400 Bad\r\n\r\nabc", want{400, "abc", "", false}},
		"Connection: close":       {"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", want{503, "abc", "", false}},
		"HTTP/1.0":                {"HTTP/1.0 204 No Content\r\n\r\n", want{204, "", "", false}},
		"100 first":               {"HTTP/1.1 100 Continue\r\n\r\n" + noContent, want{204, "", "", true}},
		"103 and 100 first":       {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + noContent, want{204, "", "", true}},
		"many first":              {many + noContent, want{204, "", "", true}},
		"1xx without end":         {strings.Repeat(many, 30), want{0, "", "longer than 65536 bytes", false}},
		"only 100":                {"HTTP/1.1 100 Continue\r\n\r\n", want{0, "", "EOF", false}},
		"101":                     {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", want{101, "", "", false}},
		"099":                     {"HTTP/1.1 099 Odd\r\nContent-Length: 3\r\n\r\nabc", want{99, "abc", "", true}},
		"999":                     {"HTTP/1.1 999 Odd\r\nContent-Length: 3\r\n\r\nabc", want{999, "abc", "", true}},
		"nothing":                 {"", want{0, "", "EOF", false}},
		"half a line":             {"HTTP/1.1 20", want{0, "", "malformed", false}},
		"half a header":           {"HTTP/1.1 204 No Content\r\nDate: ", want{0, "", "EOF", false}},
		"less than said":          {"HTTP/1.1 400 Bad\r\nContent-Length: 10\r\n\r\nabc", want{400, "abc", "EOF", false}},
		"half of a chunk":         {"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", want{400, "abc", "EOF", false}},
		"no last chunk":           {"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", want{400, "abc", "EOF", false}},
		"a bad chunk":             {"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n", want{400, "", "invalid byte in chunk length", false}},
		"a long trailer":          {"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", want{400, "abc", "trailer", false}},
		"two lengths":             {"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", want{0, "", "Content-Length", false}},
		"length and chunks":       {"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want{400, "abc", "", true}},
		"negative length":         {"HTTP/1.1 400 Bad\r\nContent-Length: -3\r\n\r\nabc", want{0, "", "Content-Length", false}},
		"a longer header":         {"HTTP/1.1 204 No Content\r\nA: " + strings.Repeat("x", maxHeader) + "\r\n\r\n", want{0, "", "longer than 65536 bytes", false}},
		"many fields":             {"HTTP/1.1 204 No Content\r\n" + strings.Repeat("A: b\r\n", maxHeader/6) + "\r\n", want{0, "", "longer than 65536 bytes", false}},
		"a long header":           {"HTTP/1.1 204 No Content\r\nA: " + strings.Repeat("x", maxHeader-100) + "\r\n\r\n", want{204, "", "", true}},
		"no line end":             {strings.Repeat("x", 1<<20), want{0, "", "longer than 65536 bytes", false}},
		"line ends":               {strings.Repeat("\r\n", 1<<16), want{0, "", "malformed", false}},
		"zeros":                   {strings.Repeat("\x00", 1000), want{0, "", "malformed", false}},
		"TLS of another port":     {"\x15\x03\x01\x00\x02\x02\x46\r\n", want{0, "", "malformed", false}},
		"HTTP/2":                  {"HTTP/2 204 No Content\r\n\r\n", want{0, "", "malformed", false}},
		"HTTP/2's first frame":    {"\x00\x00\x12\x04\x00\x00\x00\x00\x00\n", want{0, "", "malformed", false}},
		"as much as is read":      {"HTTP/1.1 400 Bad\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", maxAnswer), want{400, strings.Repeat("x", maxAnswer), "", true}},
		"one more than that":      {"HTTP/1.1 400 Bad\r\nContent-Length: 1048577\r\n\r\n" + strings.Repeat("x", maxAnswer+1), want{400, strings.Repeat("x", maxAnswer), "", false}},
		"a text of two GB, of it": {"HTTP/1.1 400 Bad\r\nContent-Length: 2147483648\r\n\r\n" + strings.Repeat("x", maxAnswer+5000), want{400, strings.Repeat("x", maxAnswer), "", false}},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil, func(n int, p *peer) {
				for {
					if _, _, ok := p.request(); !ok {
						return
					}
					p.say(tt.answer)
					if !tt.reused {
						// Its end is told, and it is not waited for.
						_ = p.tcp.CloseWrite()
						p.closed()
						return
					}
				}
			})
			c := connect(t, b, nil)
			for range 2 {
				l := new(lane)
				a, err := c.post(soon(t), l, "", []byte("x"))
				if a.status != tt.status || string(l.answer) != tt.text && err == nil || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("%d, %d bytes, %.300v", a.status, len(l.answer), err)
				}
				if cut := strings.Contains(tt.answer, "Content-Length: 1048577") || strings.Contains(tt.answer, "2147483648"); a.cut != cut {
					t.Errorf("cut %v", a.cut)
				}
			}
			if n := b.opened.Load(); tt.reused != (n == 1) {
				t.Errorf("%d connections", n)
			}
			if !tt.reused && len(c.idle) != 0 {
				t.Error("the connection is kept")
			}
		})
	}
}

// TestEnd: a store that closes behind its answer sees an end, one whose answer was not
// waited for a reset, so that it gets nothing more of the request.
func TestEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		for name, answers := range map[string]bool{"answered": true, "given up": false} {
			t.Run(name, func(t *testing.T) {
				asked, seen := make(chan struct{}), make(chan error, 1)
				b := serve(t, store, func(_ int, p *peer) {
					_, _, _ = p.request()
					close(asked)
					if answers {
						p.say("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
					}
					_, err := io.Copy(io.Discard, p.tcp)
					seen <- err
				})
				c := connect(t, b, ours)
				ctx, cancel := context.WithCancel(soon(t))
				defer cancel()
				if !answers {
					go func() { <-asked; cancel() }()
				}
				if _, err := c.post(ctx, new(lane), "", []byte("x")); (err == nil) != answers {
					t.Fatal(err)
				}
				if err := <-seen; (err == nil) != answers || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("it sees %v", err)
				}
			})
		}
	})
}

// TestEndlessAnswer: an answer that goes on and on is left when enough of it is read.
func TestEndlessAnswer(t *testing.T) {
	for name, text := range map[string]string{
		"header":           "HTTP/1.1 204 No Content\r\n",
		"chunks":           "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n",
		"until it is done": "HTTP/1.1 400 Bad\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan int, 1)
			b := serve(t, nil, func(_ int, p *peer) {
				_, _, _ = p.request()
				p.say(text)
				for n := 0; ; n++ {
					if _, err := io.WriteString(p, "8\r\n: 345678\r\n"); err != nil {
						sent <- n
						return
					}
				}
			})
			l := new(lane)
			began := time.Now()
			a, err := connect(t, b, nil).post(soon(t), l, "", []byte("x"))
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if name == "header" && err == nil || name != "header" && (err != nil || !a.cut || len(l.answer) != maxAnswer) {
				t.Errorf("%+v, %v, %d bytes", a, err, len(l.answer))
			}
			<-sent // the connection is closed
		})
	}
}

// TestEarlyAnswer: an answer that comes while the payload is still written is found,
// whatever the store does then.
func TestEarlyAnswer(t *testing.T) {
	const tooLarge = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
	payload := bytes.Repeat([]byte("x"), 24<<20) // more than the kernel's buffers take
	early := func(text string, then func(*peer)) script {
		return func(_ int, p *peer) {
			for {
				req, err := http.ReadRequest(p.r)
				if err != nil {
					return
				}
				p.say(text)
				then(p)
				if _, err := io.Copy(io.Discard, req.Body); err != nil {
					return
				}
			}
		}
	}
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		t.Run("the rest is read", func(t *testing.T) {
			b := serve(t, store, early(tooLarge, func(*peer) {}))
			c := connect(t, b, ours)
			for range 3 {
				l := new(lane)
				if a, err := c.post(soon(t), l, "", payload); err != nil || a.status != 413 || string(l.answer) != "big" {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			if n := b.opened.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
		t.Run("closed at once", func(t *testing.T) { // with an RST: not all is read
			b := serve(t, store, early(tooLarge, func(p *peer) { _ = p.tcp.Close() }))
			c := connect(t, b, ours)
			for range 10 {
				l := new(lane)
				if a, err := c.post(soon(t), l, "", payload); err != nil || a.status != 413 || string(l.answer) != "big" {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			if len(c.idle) != 0 {
				t.Error("the connection is kept")
			}
		})
		t.Run("closed without an answer", func(t *testing.T) {
			b := serve(t, store, early("", func(p *peer) { _ = p.tcp.Close() }))
			if a, err := connect(t, b, ours).post(soon(t), new(lane), "", payload); err == nil || a.status != 0 {
				t.Fatalf("%+v, %v", a, err)
			}
		})
		t.Run("neither read nor closed", func(t *testing.T) {
			hang := make(chan struct{})
			b := serve(t, store, early(tooLarge, func(*peer) { <-hang }))
			t.Cleanup(func() { close(hang) })
			c := connect(t, b, ours)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			l := new(lane)
			began := time.Now()
			a, err := c.post(ctx, l, "", payload)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
			if err != nil || a.status != 413 || string(l.answer) != "big" || len(c.idle) != 0 {
				t.Errorf("%+v, %v, %q", a, err, l.answer)
			}
		})
		t.Run("half an answer", func(t *testing.T) {
			hang := make(chan struct{})
			b := serve(t, store, early(tooLarge[:len(tooLarge)-1], func(*peer) { <-hang }))
			t.Cleanup(func() { close(hang) })
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			a, err := connect(t, b, ours).post(ctx, new(lane), "", payload)
			if took := time.Since(began); took > 3*time.Second || err == nil || a.status != 413 {
				t.Errorf("after %v: %+v, %v", took, a, err)
			}
		})
		t.Run("accepted unread", func(t *testing.T) {
			b := serve(t, store, early(noContent, func(p *peer) { _ = p.tcp.Close() }))
			if a, err := connect(t, b, ours).post(soon(t), new(lane), "", payload); err == nil {
				t.Errorf("what the store cannot have is taken for stored: %+v", a)
			}
		})
	})
}

// TestGivenUp: a request that is given up, wherever it is, returns at once, closes its
// connection and has nothing to do with the payload any more.
func TestGivenUp(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 24<<20)
	type stage struct {
		name   string
		tls    bool // only with it
		script func(p *peer, reached func())
	}
	stages := []stage{
		{"handshake", true, func(p *peer, reached func()) {
			_, _ = p.tcp.Read(make([]byte, 1))
			reached()
			_, _ = io.Copy(io.Discard, p.tcp)
		}},
		{"writing", false, func(p *peer, reached func()) {
			_, _ = http.ReadRequest(p.r)
			reached()
			p.gone()
		}},
		{"reading", false, func(p *peer, reached func()) {
			_, _, _ = p.request()
			reached()
			p.closed()
		}},
		{"reading the text", false, func(p *peer, reached func()) {
			_, _, _ = p.request()
			p.say("HTTP/1.1 400 Bad\r\nContent-Length: 10\r\n\r\nabc")
			reached()
			p.closed()
		}},
	}
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		for _, st := range stages {
			if st.tls && store == nil {
				continue
			}
			t.Run(st.name, func(t *testing.T) {
				reached, closed := make(chan struct{}), make(chan struct{})
				b := serve(t, store, func(_ int, p *peer) {
					st.script(p, func() { close(reached) })
					close(closed)
				})
				c := connect(t, b, ours)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var gone time.Time
				go func() {
					<-reached
					gone = time.Now()
					cancel(errors.New("enough"))
				}()
				mine := []byte("x")
				if st.name == "writing" {
					mine = bytes.Clone(payload)
				}
				a, err := c.post(ctx, new(lane), "", mine)
				clear(mine) // the race detector sees who else reads it
				if err == nil || ctx.Err() == nil {
					t.Fatalf("%+v, %v", a, err)
				}
				if took := time.Since(gone); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
				if v := (&Client{}).broken(ctx, err, a.status); v.kind != kindRetry || v.reason != reasonTimeout || !strings.HasSuffix(v.text, "given up: enough") {
					t.Errorf("told as %+v", v)
				}
				<-closed
				if len(c.idle) != 0 {
					t.Error("the connection is kept")
				}
			})
		}
	})
	t.Run("dialling", func(t *testing.T) {
		b := &badStore{address: deaf(t)}
		c := connect(t, b, nil)
		began := time.Now()
		_, err := c.send(t.Context(), began.Add(100*time.Millisecond), "", payload).receive(t.Context(), new(lane))
		if took := time.Since(began); err == nil || took > 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		v := (&Client{cfg: Config{Timeout: time.Second}}).broken(t.Context(), err, 0)
		if v.kind != kindRetry || v.reason != reasonTimeout || v.text != "no answer within 1s" {
			t.Errorf("told as %+v", v)
		}
	})
	t.Run("before", func(t *testing.T) {
		var got atomic.Int32
		b := serve(t, nil, func(_ int, p *peer) {
			for {
				if _, _, ok := p.request(); !ok {
					return
				}
				got.Add(1)
				p.say(noContent)
			}
		})
		c := connect(t, b, nil)
		if _, err := c.post(soon(t), new(lane), "", nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 {
			if _, err := c.post(ctx, new(lane), "", nil); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if _, err := c.post(soon(t), new(lane), "", nil); err != nil || got.Load() != 2 || b.opened.Load() != 1 {
			t.Errorf("%v: %d requests over %d connections", err, got.Load(), b.opened.Load())
		}
	})
}

// TestDropWaitsForNobody: not for a store that reads nothing, so that TLS's farewell
// cannot be sent.
func TestDropWaitsForNobody(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		closed := make(chan struct{})
		b := serve(t, store, func(_ int, p *peer) {
			if c, ok := p.Conn.(*tls.Conn); ok {
				_ = c.Handshake()
			}
			p.gone()
			close(closed)
		})
		conn, err := connect(t, b, ours).dial(soon(t), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for n := 1 << 20; n > 0; n /= 2 { // until not a byte has room
			_ = conn.tcp.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			for err = nil; err == nil; _, err = conn.tcp.Write(make([]byte, n)) {
			}
		}
		_ = conn.tcp.SetWriteDeadline(time.Time{})
		began := time.Now()
		conn.drop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		<-closed
	})
}

// deaf gives an address where connecting hangs: its queue is full.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in, ok := at.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatalf("%T", at)
	}
	address := fmt.Sprintf("127.0.0.1:%d", in.Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this kernel's queue does not fill up")
	return ""
}

// TestReuseAfterDeadline: a connection is good for another request when the time of the last one
// has passed, also of one whose answer was read after that.
func TestReuseAfterDeadline(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		b := serve(t, store, func(_ int, p *peer) {
			for {
				if _, _, ok := p.request(); !ok {
					return
				}
				p.say(noContent)
			}
		})
		c := connect(t, b, ours)
		l := new(lane)
		for _, late := range []bool{false, true} {
			deadline := time.Now().Add(200 * time.Millisecond)
			e := c.send(soon(t), deadline, "", []byte("x"))
			if late {
				until(t, "the deadline", func() bool { return time.Now().After(deadline) })
			}
			if a, err := e.receive(soon(t), l); err != nil || a.status != 204 {
				t.Fatalf("%+v, %v", a, err)
			}
			until(t, "the deadline of lastWords, too", func() bool { return time.Now().After(deadline.Add(2 * lastWord)) })
			if _, err := c.post(soon(t), l, "", []byte("x")); err != nil || b.opened.Load() != 1 {
				t.Fatalf("late %v: %v, %d connections", late, err, b.opened.Load())
			}
		}
	})
}

// TestIdle: as many connections are kept as were in use at once, and they are closed
// when nobody uses them.
func TestIdle(t *testing.T) {
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		const n = 4
		var gone atomic.Int32
		var in atomic.Pointer[sync.WaitGroup] // until all are there
		b := serve(t, store, func(_ int, p *peer) {
			defer gone.Add(1)
			for {
				if _, payload, ok := p.request(); !ok {
					return
				} else if len(payload) > 0 {
					all := in.Load()
					all.Done()
					all.Wait()
				}
				p.say(noContent)
			}
		})
		c := connect(t, b, ours)
		ctx := soon(t)
		for range 3 {
			all := new(sync.WaitGroup)
			all.Add(n)
			in.Store(all)
			var out sync.WaitGroup
			for range n {
				out.Go(func() {
					if _, err := c.post(ctx, new(lane), "", []byte("together")); err != nil {
						t.Error(err)
					}
				})
			}
			out.Wait()
		}
		if b.opened.Load() != n || len(c.idle) != n {
			t.Fatalf("%d opened, %d idle", b.opened.Load(), len(c.idle))
		}
		// One is in use all the time; the others go one after the other.
		for i := range n - 1 {
			for _, conn := range c.idle {
				conn.used = conn.used.Add(-idleFor)
			}
			if _, err := c.post(ctx, new(lane), "", nil); err != nil || len(c.idle) != n-1-i {
				t.Fatalf("%v, %d idle", err, len(c.idle))
			}
		}
		until(t, "the store sees it", func() bool { return gone.Load() == n-1 })
		// None is in use.
		c.idleFor = time.Millisecond
		if _, err := c.post(ctx, new(lane), "", nil); err != nil || b.opened.Load() != n {
			t.Fatalf("%v, %d opened", err, b.opened.Load())
		}
		until(t, "the last is closed", func() bool { return gone.Load() == n })
		if _, err := c.post(ctx, new(lane), "", nil); err != nil || b.opened.Load() != n+1 {
			t.Fatalf("%v, %d opened", err, b.opened.Load())
		}
		c.close()
		until(t, "and at the end, too", func() bool { return gone.Load() == n+1 })
		// One that is used once only.
		once := connect(t, b, ours)
		once.idleFor = time.Millisecond
		if _, err := once.post(ctx, new(lane), "", nil); err != nil {
			t.Fatal(err)
		}
		until(t, "one used once is closed", func() bool { return gone.Load() == n+2 })
	})
}

// sockets counts this process' own.
func sockets(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// TestNoDescriptorLeaks: thousands of requests with errors of all kinds, several at
// once, and each has its own answer.
func TestNoDescriptorLeaks(t *testing.T) {
	before := sockets(t)
	bothWays(t, func(t *testing.T, store, ours *tls.Config) {
		b := serve(t, store, func(n int, p *peer) {
			if n%50 == 7 {
				return // in the handshake, with TLS
			}
			for i := 0; ; i++ {
				_, payload, ok := p.request()
				if !ok {
					return
				}
				text := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(payload), payload)
				switch (n + i) % 11 {
				case 1:
					p.say("HTTP/1.1 400 Bad\r\nConnection: close\r\n" + text)
					return
				case 2:
					p.say("HTTP/1.1 400 Bad\r\n" + text)
					p.reset()
					return
				case 3:
					p.say("HTTP/1.1 400 Bad\r\n" + text + "HTTP/1.1 204 Stray\r\n\r\n")
					p.closed()
					return
				case 4:
					p.say("rubbish\r\n")
					return
				case 5:
					p.reset()
					return
				case 6:
					p.say("HTTP/1.1 400 Bad\r\nContent-Length: 1000\r\n\r\n")
					return
				default:
					p.say("HTTP/1.1 400 Bad\r\n" + text)
				}
			}
		})
		c := connect(t, b, ours)
		ctx := soon(t)
		const lanes, each = 6, 300
		var out sync.WaitGroup
		var good atomic.Int32
		for i := range lanes {
			out.Go(func() {
				l := new(lane)
				for k := range each {
					if k%10 == 9 {
						given, cancel := context.WithCancel(ctx)
						cancel()
						_, _ = c.post(given, l, "", nil)
						continue
					}
					payload := fmt.Sprint(i, "-", k)
					a, err := c.post(ctx, l, "", []byte(payload))
					if err == nil && (a.status != 400 || string(l.answer) != payload) {
						t.Errorf("%q was answered with %d %q", payload, a.status, l.answer)
					}
					if err == nil {
						good.Add(1)
					}
				}
			})
		}
		out.Wait()
		if n := good.Load(); n < lanes*each/2 {
			t.Errorf("%d answers", n)
		}
		if len(c.idle) > lanes {
			t.Errorf("%d idle", len(c.idle))
		}
		c.close()
	})
	until(t, "no descriptor is left", func() bool { return sockets(t) <= before })
}

// TestRequest: the bytes that a request begins with.
func TestRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		url     string
		headers map[string]string
		line    string
		host    string
		address string
		more    string
	}{
		"as usual":         {url: "http://loki:3100/loki/api/v1/push", line: "/loki/api/v1/push", host: "loki:3100", address: "loki:3100"},
		"default port":     {url: "http://loki/push", line: "/push", host: "loki", address: "loki:80"},
		"of TLS":           {url: "https://loki/push", line: "/push", host: "loki", address: "loki:443"},
		"empty port":       {url: "http://loki:/push", line: "/push", host: "loki:", address: "loki:80"},
		"no path":          {url: "http://loki", line: "/", host: "loki", address: "loki:80"},
		"IPv6":             {url: "http://[::1]:3100/push", line: "/push", host: "[::1]:3100", address: "[::1]:3100"},
		"IPv6, no port":    {url: "https://[2001:db8::1]/push", line: "/push", host: "[2001:db8::1]", address: "[2001:db8::1]:443"},
		"IPv6 with a zone": {url: "http://[fe80::1%25eth0]:3100/push", line: "/push", host: "[fe80::1]:3100", address: "[fe80::1%eth0]:3100"},
		"query, escapes":   {url: "http://loki/a%2Fb%20c/p%C3%BCsh?x=1&y=%20%0d%0a", line: "/a%2Fb%20c/p%C3%BCsh?x=1&y=%20%0d%0a", host: "loki", address: "loki:80"},
		"raw in the path":  {url: "http://loki/a b/püsh", line: "/a%20b/p%C3%BCsh", host: "loki", address: "loki:80"},
		"user, fragment":   {url: "http://me:secret@loki/push#there", line: "/push", host: "loki", address: "loki:80"},
		"header":           {url: "http://loki/push", headers: map[string]string{"x-a": "b c"}, line: "/push", host: "loki", address: "loki:80", more: "X-A: b c\r\n"},
		"beyond ASCII":     {url: "http://loki/push", headers: map[string]string{"x-a": "b\u0085ü"}, line: "/push", host: "loki", address: "loki:80", more: "X-A: b\u0085ü\r\n"}, // as the configuration allows
		"no Authorization": {url: "http://me:secret@loki/push", headers: map[string]string{"Authorization": "other"}, line: "/push", host: "loki", address: "loki:80"},
		"Authorization":    {url: "http://loki/push", headers: map[string]string{"Authorization": "other"}, line: "/push", host: "loki", address: "loki:80", more: "Authorization: other\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := probing(t, Config{URL: tt.url, Headers: tt.headers, TenantID: "acme"})
			p, ok := c.poster.(*connections)
			if !ok {
				t.Fatalf("%T", c.poster)
			}
			if p.address != tt.address {
				t.Errorf("address %s", p.address)
			}
			fields := "Content-Type: application/x-protobuf\r\nUser-Agent: log_capturer\r\nX-Scope-Orgid: acme\r\n"
			switch before, _, _ := strings.Cut(tt.more, ":"); before {
			case "Authorization":
				fields = tt.more + fields
			case "X-A":
				fields = strings.Replace(fields, "X-Scope", tt.more+"X-Scope", 1)
			}
			want := "POST " + tt.line + " HTTP/1.1\r\nHost: " + tt.host + "\r\n" + fields
			if got := string(p.request); got != want {
				t.Errorf("%q, want\n%q", got, want)
			}
		})
	}
}

// TestNoSmuggling: what is configured makes no header of its own, and no request.
func TestNoSmuggling(t *testing.T) {
	const evil = "x\r\nEvil: yes\r\n\r\nGET / HTTP/1.1"
	for name, cfg := range map[string]Config{
		"URL":            {URL: "http://loki/push?" + evil},
		"host":           {URL: "http://loki" + evil + "/push"},
		"header's value": {Headers: map[string]string{"X-A": evil}},
		"line feed":      {Headers: map[string]string{"X-A": "a\nb"}},
		"zero":           {Headers: map[string]string{"X-A": "a\x00b"}},
		"header's name":  {Headers: map[string]string{"X-A: b\r\nEvil": "x"}},
		"space in it":    {Headers: map[string]string{"X A": "x"}},
		"no name":        {Headers: map[string]string{"": "x"}},
		"Host":           {Headers: map[string]string{"Host": evil}},
		"another host":   {Headers: map[string]string{"host": "other"}},
		"length":         {Headers: map[string]string{"content-length": "5"}},
		"encoding":       {Headers: map[string]string{"transfer-encoding": "chunked"}},
		"Connection":     {Headers: map[string]string{"Connection": "upgrade"}},
		"tenant":         {TenantID: evil},
		"user agent":     {UserAgent: evil},
		"token":          {BearerTokenFile: writeFile(t, "token", evil)},
	} {
		cfg.URL = cmp.Or(cfg.URL, "http://loki/push")
		if c, err := New(cfg); err == nil {
			p, ok := c.poster.(*connections)
			t.Errorf("%s: %v %q", name, ok, p.request)
			c.Close()
		} else if strings.Contains(err.Error(), "Evil: yes") {
			t.Errorf("%s: it is told: %v", name, err)
		}
	}
	// Basic authentication takes every user and password, and is one line.
	a, err := newAuth(&Config{Username: "me" + evil, Password: evil})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := a.header(start); err != nil || strings.ContainsAny(v, "\r\n") {
		t.Errorf("%q, %v", v, err)
	}
}

// canned is a store that takes everything and, once it has a request, says its text
// and closes.
type canned struct {
	net.Conn // none
	asked    chan struct{}
	once     sync.Once
	text     io.Reader
	closed   chan struct{}
	shut     sync.Once
}

func newCanned(text []byte) *canned {
	return &canned{asked: make(chan struct{}), closed: make(chan struct{}), text: bytes.NewReader(text)}
}

func (c *canned) Read(b []byte) (int, error) {
	select {
	case <-c.asked:
		return c.text.Read(b)
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *canned) Write(b []byte) (int, error) {
	c.once.Do(func() { close(c.asked) })
	return len(b), nil
}
func (c *canned) Close() error { c.shut.Do(func() { close(c.closed) }); return nil }

// TestEncodesAhead: what is made ahead is sent if it is what is sent next.
func TestEncodesAhead(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	b := new(entry.Batch)
	appendSection(b, labelled("one"), line(at, "a"))
	appendSection(b, labelled("two"), line(at, "b"), line(at, "c"))
	start := func() (*lane, request) {
		l := new(lane)
		l.collect(b, true)
		l.fill()
		l.order, l.ends = []int32{0, 1}, []int32{1, 2}
		l.share(defaultBatchBytes, false)
		r := l.stack[1]
		l.stack = l.stack[:1]
		return l, r
	}
	texts := func(wire []byte) (all []string) {
		for _, s := range decode(t, wire).Streams {
			for _, e := range s.Entries {
				all = append(all, e.Line)
			}
		}
		return all
	}

	l, first := start()
	l.body(first)
	l.encodeAhead()
	ahead := l.ahead.bytes
	if got := texts(ahead); !slices.Equal(got, []string{"b", "c"}) {
		t.Fatalf("encoded ahead: %q", got)
	}
	clear(ahead) // encoding it again would mend it
	l.encodeAhead()
	if next := l.body(l.stack[0]); &next[0] != &ahead[0] || next[0] != 0 {
		t.Fatal("it was encoded again")
	}
	// That was the last.
	l.stack = l.stack[:0]
	if l.encodeAhead(); l.ahead.bytes != nil {
		t.Fatalf("ahead %d bytes", len(l.ahead.bytes))
	}

	// The answer makes another request the next.
	l, first = start()
	l.body(first)
	l.encodeAhead()
	if got := texts(l.body(first)); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("of another request: %q", got)
	}
	if got := texts(l.body(l.stack[0])); !slices.Equal(got, []string{"b", "c"}) {
		t.Fatalf("after that: %q", got)
	}
	l, first = start()
	l.body(first)
	l.encodeAhead()
	l.stack[0] = first
	if l.encodeAhead(); !slices.Equal(texts(l.ahead.bytes), []string{"a"}) {
		t.Fatalf("ahead is still %q", texts(l.ahead.bytes))
	}

	// An answer before has changed what is next, which is another once it is pruned.
	l, first = start()
	l.dirty = true
	l.body(first)
	if l.encodeAhead(); l.ahead.bytes != nil {
		t.Fatalf("ahead %d bytes", len(l.ahead.bytes))
	}
}

// FuzzAnswer: whatever a store says is taken as net/http's Transport takes it.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		noContent, "", "HTTP/1.1 ", "HTTP/1.0 200 OK\r\n\r\nabc", "HTTP/1.1 099 x\n\nabc", "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc",
		"HTTP/1.1 204 No Content\r\nA: " + strings.Repeat("x", maxHeader) + "\r\n\r\n",
		"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		strings.Repeat("HTTP/1.1 103 Hints\r\n\r\n", 40) + noContent,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		conn := &connection{Conn: newCanned(text)}
		conn.limit.R = conn.Conn
		conn.r = bufio.NewReader(&conn.limit)
		got := new(lane)
		a, keep, err := conn.post(got, []byte("x"))
		if keep && (err != nil || a.cut) || len(got.answer) > maxAnswer || err == nil && a.header == nil {
			t.Fatalf("%+v, keep %v, %v", a, keep, err)
		}

		tr := &http.Transport{
			DialContext:            func(context.Context, string, string) (net.Conn, error) { return newCanned(text), nil },
			MaxResponseHeaderBytes: maxHeader, DisableCompression: true,
		}
		defer tr.CloseIdleConnections()
		req, err2 := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://store/", strings.NewReader("x"))
		if err2 != nil {
			t.Fatal(err2)
		}
		res, err2 := tr.RoundTrip(req)
		if err2 != nil {
			if err == nil || a.status != 0 {
				t.Fatalf("%+v, %v; net/http: %v", a, err, err2)
			}
			return
		}
		defer res.Body.Close()
		if a.status != res.StatusCode || !maps.EqualFunc(a.header, res.Header, slices.Equal) {
			t.Fatalf("%+v, %v; net/http: %d %v", a, err, res.StatusCode, res.Header)
		}
		if a.status == http.StatusSwitchingProtocols {
			return // net/http gives what comes behind it
		}
		text, cut, err2 := readText(nil, res.Body)
		if cut != a.cut || (err == nil) != (err2 == nil) || !bytes.Equal(got.answer, text) {
			t.Fatalf("cut %v, %v, %q; net/http: %v, %v, %q", a.cut, err, got.answer, cut, err2, text)
		}
	})
}
