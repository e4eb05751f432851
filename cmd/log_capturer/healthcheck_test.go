package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/log-capturer/log_capturer/internal/config"
)

// serverConfig writes a configuration of an agent at an address.
func serverConfig(t *testing.T, host, port string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("server: {host: %q, port: %s}\nsinks: {stdout: {enabled: true}}\n", host, port)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHealthcheck(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0") // nothing answers there
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	_, nobodysPort, _ := net.SplitHostPort(nobody)
	_, bad := files(t)

	for _, c := range []struct {
		name   string
		answer int    // of the agent; 0: none is asked
		host   string // of the configuration, with the agent's port
		config string // in its place
		status int
		err    string // a part
	}{
		{name: "it lives", answer: 200, host: "127.0.0.1"},
		{name: "it listens on all addresses", answer: 200, host: "0.0.0.0"},
		{name: "it says no", answer: 503, host: "127.0.0.1", status: 1, err: "answers 503 Service Unavailable: a?b\n"},
		{name: "a redirect is no yes", answer: 302, host: "127.0.0.1", status: 1, err: "answers 302 Found"},
		{name: "nobody is there", config: serverConfig(t, "127.0.0.1", nobodysPort), status: 1, err: "no agent answers at " + nobody + ": dial tcp "},
		{name: "any port", config: serverConfig(t, "127.0.0.1", "0"), status: 1, err: "server.port is 0"},
		{name: "a wrong configuration", config: bad, status: 1, err: bad + ":1: host: "},
		{name: "no configuration", config: bad + ".none", status: 1, err: "no such file or directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := c.config
			if path == "" {
				a := newAgentServer(t, c.answer, "a\nb")
				_, port, _ := net.SplitHostPort(a.Listener.Addr().String())
				path = serverConfig(t, c.host, port)
				defer func() {
					if len(a.asked) != 1 || a.asked[0] != "GET /livez" {
						t.Errorf("asked for %q", a.asked)
					}
				}()
			}
			status, out, stderr := subcommand(t, "healthcheck", "--config", path)
			if status != c.status || out != "" || !strings.Contains(stderr, c.err) || (c.err == "") != (stderr == "") {
				t.Errorf("status %d, %q, %q; want %d and %q", status, out, stderr, c.status, c.err)
			}
		})
	}

	if status, _, stderr := subcommand(t, "healthcheck", "web"); status != 2 || !strings.Contains(stderr, `unexpected argument "web"`) {
		t.Errorf("an argument: status %d, %q", status, stderr)
	}
}

// TestHealthcheckHostileText: what answers may be anybody, and say anything in
// place of "Not Found".
func TestHealthcheckHostileText(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 404 no\x1b[2J\u009b31m\r\nConnection: close\r\n\r\ngone\x07")
			_ = c.Close()
		}
		served <- err
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	status, _, stderr := subcommand(t, "healthcheck", "--config", serverConfig(t, "127.0.0.1", port))
	if err := <-served; err != nil {
		t.Error(err)
	}
	if status != 1 || !strings.HasSuffix(stderr, " answers 404 no?[2J?31m: gone?\n") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// silent is an agent that accepts a question and never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func TestHealthcheckTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := alive(t.Context(), silent{}, config.Server{Host: "127.0.0.1", Port: 8401})
		if want := "the agent at 127.0.0.1:8401 has not answered within 3s"; err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	})
}
