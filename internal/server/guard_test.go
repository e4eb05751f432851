package server

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const token = "0123456789abcdef-secret"

// tokenFile writes a token file.
func tokenFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// guarded makes options with everything that is not for everybody.
func guarded(file string) Options {
	o := options()
	o.TokenFile, o.Pprof = file, true
	o.Config = func() any { return map[string]string{"host": "h"} }
	return o
}

// TestGuard: each of what is guarded, by all who may ask.
func TestGuard(t *testing.T) {
	const here, elsewhere = "127.0.0.1:4711", "10.1.2.3:4711"
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	withToken := header("Authorization", "Bearer "+token)
	for _, c := range []struct {
		name, remote, host string
		header             http.Header
		// what comes without and with a token file; 200 is for all that is let in
		without, with int
	}{
		{"here", here, "127.0.0.1:8401", nil, 200, 200},
		{"here, IPv6", "[::1]:4711", "[::1]:8401", nil, 200, 200},
		{"here, by name", here, "localhost:8401", nil, 200, 200},
		{"here, by name, no port", here, "LOCALHOST", nil, 200, 200},
		{"here, by another address of loopback", here, "127.1.2.3:8401", nil, 200, 200},
		{"here, IPv4 in IPv6", "[::ffff:127.0.0.1]:4711", "[::ffff:127.0.0.1]:8401", nil, 200, 200},
		{"here, IPv6 without a port", here, "[::1]", nil, 200, 200},
		{"here, with a wrong token", here, "127.0.0.1:8401", header("Authorization", "Bearer x"), 200, 200},
		{"here, typed into a browser", here, "localhost:8401", header("Sec-Fetch-Site", "none"), 200, 200},
		{"here, from the status page", here, "localhost:8401", header("Sec-Fetch-Site", "same-origin"), 200, 200},
		{"a web page", here, "localhost:8401", header("Origin", "https://example.org"), 403, 401},
		{"a web page in a sandbox", here, "localhost:8401", header("Origin", "null"), 403, 401},
		{"a web page's image", here, "localhost:8401", header("Sec-Fetch-Site", "cross-site"), 403, 401},
		{"a web page of a neighbour", here, "localhost:8401", header("Sec-Fetch-Site", "same-site"), 403, 401},
		{"a name that was made to point here", here, "rebind.example.org:8401", nil, 403, 401},
		{"a name that begins like ours", here, "localhost.example.org", nil, 403, 401},
		{"no host", here, "", nil, 403, 401},
		{"a proxy that runs here", here, "127.0.0.1:8401", header("X-Forwarded-For", "10.1.2.3"), 403, 401},
		{"another proxy", here, "127.0.0.1:8401", header("Forwarded", "for=10.1.2.3"), 403, 401},
		{"a third proxy", here, "127.0.0.1:8401", header("Via", "1.1 p"), 403, 401},
		{"a fourth proxy", here, "127.0.0.1:8401", header("X-Real-Ip", "10.1.2.3"), 403, 401},
		{"a proxy that leaves out the address", here, "127.0.0.1:8401", header("X-Forwarded-Proto", "https"), 403, 401},
		{"a proxy, behind an empty header of its client's", here, "127.0.0.1:8401", http.Header{"X-Forwarded-For": {"", "10.1.2.3"}}, 403, 401},
		{"a tunnel to another address of this machine", here, "192.168.1.5:8401", nil, 403, 401},
		{"unspecified", here, "0.0.0.0:8401", nil, 403, 401},
		{"a web page, behind an empty header", here, "localhost:8401", http.Header{"Sec-Fetch-Site": {"none", "cross-site"}}, 403, 401},
		{"elsewhere", elsewhere, "127.0.0.1:8401", nil, 403, 401},
		{"nowhere", "", "127.0.0.1:8401", nil, 403, 401},
		{"elsewhere, saying it is here", elsewhere, "localhost", header("X-Forwarded-For", "127.0.0.1"), 403, 401},
		{"elsewhere, with the token", elsewhere, "agent.example.org:8401", withToken, 403, 200},
		{"through a proxy, with the token", here, "agent.example.org", http.Header{"X-Forwarded-For": {"10.1.2.3"}, "Authorization": {"bearer  " + token}}, 403, 200},
		{"elsewhere, with a wrong token", elsewhere, "a", header("Authorization", "Bearer "+token[1:]), 403, 401},
		{"elsewhere, with a longer token", elsewhere, "a", header("Authorization", "Bearer "+token+"x"), 403, 401},
		{"elsewhere, with no token", elsewhere, "a", header("Authorization", "Bearer "), 403, 401},
		{"elsewhere, with the token as a user", elsewhere, "a", header("Authorization", "Basic "+token), 403, 401},
		{"elsewhere, with the token alone", elsewhere, "a", header("Authorization", token), 403, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, what := range []struct{ method, path string }{{"POST", "/-/reload"}, {"GET", ConfigPath}, {"GET", profilesPath + "cmdline"}} {
				for file, want := range map[string]int{"": c.without, tokenFile(t, token+"\n"): c.with} {
					reloads := 0
					o := guarded(file)
					o.Reload = func(context.Context) error { reloads++; return nil }
					r := httptest.NewRequestWithContext(t.Context(), what.method, what.path, nil)
					r.RemoteAddr, r.Host = c.remote, c.host
					if c.header != nil {
						r.Header = c.header.Clone()
					}
					w := httptest.NewRecorder()
					handler(o).ServeHTTP(w, r)
					got := w.Code
					if got == http.StatusAccepted {
						got = http.StatusOK
					}
					if got != want || reloads != 0 && want != http.StatusOK {
						t.Errorf("%s %s, token %v: got %d, want %d; %d reloads", what.method, what.path, file != "", w.Code, want, reloads)
					}
					if challenge := w.Header().Get("WWW-Authenticate"); (challenge == "Bearer") != (want == http.StatusUnauthorized) {
						t.Errorf("WWW-Authenticate is %q", challenge)
					}
				}
			}
		})
	}
}

// TestGuardOldProtocol: what speaks HTTP/1.0 with a Host is a proxy, as a rule.
func TestGuardOldProtocol(t *testing.T) {
	for file, want := range map[string]int{"": http.StatusForbidden, tokenFile(t, token): http.StatusUnauthorized} {
		url, _ := start(t, guarded(file))
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "GET "+ConfigPath+" HTTP/1.0\r\nHost: 127.0.0.1:8401\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("got %d, want %d", res.StatusCode, want)
		}
	}
}

// TestUnguarded: what is only shown is shown to everybody.
func TestUnguarded(t *testing.T) {
	o := guarded("")
	o.Overview = func(context.Context) Overview { return Overview{Health: Health{Status: StatusOK}} }
	for _, path := range []string{"/", "/health", "/livez", "/readyz", "/metrics", StatusPath, pagePath} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		r.RemoteAddr, r.Host = "10.1.2.3:4711", "agent.example.org"
		r.Header.Set("Origin", "https://example.org")
		w := httptest.NewRecorder()
		handler(o).ServeHTTP(w, r)
		if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %d, %v", path, w.Code, w.Header())
		}
	}
}

// TestToken: a token that changes counts at once; what is wrong with the file is
// said once, and the token itself never.
func TestToken(t *testing.T) {
	var log syncBuffer
	file := filepath.Join(t.TempDir(), "token")
	g := &guard{tokenFile: file, log: slog.New(slog.NewTextHandler(&log, nil))}
	ask := func(token string) bool {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return g.hasToken(r)
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if ask(token) {
			t.Error("taken without a file")
		}
	}
	write(token)
	if !ask(token) || ask("other") {
		t.Error("not as in the file")
	}
	write("fedcba9876543210-secret")
	if ask(token) || !ask("fedcba9876543210-secret") {
		t.Error("not as in the changed file")
	}
	for _, content := range []string{"", "\n\n", "short-secret", "with a space in the secret", "secret-ümlaut-0123456789", strings.Repeat("secret", 1000)} {
		write(content)
		if ask(strings.TrimSpace(content)) || ask("") {
			t.Errorf("%q is taken for a token", content)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	// A pipe without a writer must not hold up the request.
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if ask(token) {
		t.Error("taken from a pipe")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if ask(token) {
		t.Error("taken from a directory")
	}
	text := log.String()
	if strings.Contains(text, "secret") {
		t.Errorf("the log shows a token: %s", text)
	}
	if n := strings.Count(text, "no such file"); n != 1 {
		t.Errorf("said %d times that there is no file: %s", n, text)
	}
	if n := strings.Count(text, "level=WARN"); n != 6 { // no file, short, space or beyond ASCII, large, a pipe is short, directory
		t.Errorf("%d warnings:\n%s", n, text)
	}
}

// TestTokenAtTheStart: a token file that is no good is told when the server begins.
func TestTokenAtTheStart(t *testing.T) {
	var log syncBuffer
	o := guarded(filepath.Join(t.TempDir(), "absent"))
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	_, stop := start(t, o)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "token cannot be used") {
		t.Errorf("log: %s", log.String())
	}
}

// TestProfiles: they are there only when wanted, and one at a time.
func TestProfiles(t *testing.T) {
	ask := func(h http.Handler, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	o := guarded("")
	h := handler(o)
	for path, says := range map[string]string{
		"": "Types of profiles available", "goroutine?debug=1": "goroutine profile:", "heap?debug=1": "heap profile:",
		"cmdline": "-test.", "symbol": "num_symbols", "trace?seconds=0.01": "go 1.",
	} {
		if w := ask(h, profilesPath+path); w.Code != 200 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: got %d, %.100q", path, w.Code, w.Body)
		}
	}
	if w := ask(h, profilesPath+"nonsense"); w.Code != 404 {
		t.Errorf("nonsense: got %d", w.Code)
	}
	o.Pprof = false
	if w := ask(handler(o), profilesPath); w.Code != 404 {
		t.Errorf("switched off: got %d", w.Code)
	}
}

// TestProfilesOneAtATime: while one is made there is no other; who no longer wants
// it makes room.
func TestProfilesOneAtATime(t *testing.T) {
	url, _ := start(t, guarded(""))
	c := client(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- traceUntil(ctx, url) }()
	until := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			code, _, _ := get(t, c, "GET", url+profilesPath+"cmdline")
			if code == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %d, want %d", code, want)
			}
		}
	}
	until(http.StatusServiceUnavailable)
	cancel()
	if err := <-ended; err == nil {
		t.Error("the trace has ended by itself")
	}
	until(http.StatusOK)
}

// traceUntil takes a long trace until ctx ends; until there is room it asks again.
func traceUntil(ctx context.Context, url string) error {
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", url+profilesPath+"trace?seconds=60", nil)
		if err != nil {
			return err
		}
		res, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusServiceUnavailable {
			return err
		}
	}
}
