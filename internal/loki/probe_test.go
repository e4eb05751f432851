package loki

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// probing makes a client for an address.
func probing(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestProbe: it goes the way of a push, with everything that one has, and leaves
// nothing behind.
func TestProbe(t *testing.T) {
	opt := lokitest.Default()
	opt.User, opt.Password, opt.Tenant = "me", "open-sesame", "t1"
	s := lokitest.New(opt)
	t.Cleanup(s.Close)
	cfg := Config{URL: s.URL, Username: "me", Password: "open-sesame", TenantID: "t1", Headers: map[string]string{"X-More": "more"}}
	before := time.Now().Add(-time.Second)
	a, err := probing(t, cfg).Probe(t.Context())
	if err != nil || a.Status != http.StatusUnprocessableEntity || !strings.Contains(a.Text, "at least one valid stream") || a.Date.Before(before.Truncate(time.Second)) {
		t.Errorf("%+v, %v", a, err)
	}
	r := s.Requests()
	if len(r) != 1 || len(r[0].Streams) != 0 || r[0].Bytes != 0 || r[0].Header.Get("X-More") != "more" || r[0].Header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("%+v", r)
	}
	cfg.TenantID = ""
	if a, err := probing(t, cfg).Probe(t.Context()); err != nil || a.Status != http.StatusUnauthorized || a.Text != "no org id" {
		t.Errorf("without a tenant: %+v, %v", a, err)
	}

	s.Always(&lokitest.Fault{Status: 400, Body: "I know open-sesame", Header: http.Header{"Date": {"yesterday"}}})
	if a, err := probing(t, cfg).Probe(t.Context()); err != nil || a.Text != "I know [redacted]" || !a.Date.IsZero() {
		t.Errorf("an echo: %+v, %v", a, err)
	}
	s.Always(&lokitest.Fault{Reset: true})
	if a, err := probing(t, cfg).Probe(t.Context()); err == nil {
		t.Errorf("no answer: %+v", a)
	}
	s.Always(&lokitest.Fault{Hang: true})
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, late)
	defer cancel()
	if a, err := probing(t, cfg).Probe(ctx); !errors.Is(err, late) {
		t.Errorf("hangs: %+v, %v", a, err)
	}

	// Loki before 3.0, and many others, take a push of nothing.
	s.Always(&lokitest.Fault{Status: 204})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := probing(t, Config{URL: s.URL, BearerTokenFile: file})
	if a, err := c.Probe(t.Context()); err != nil || a.Status != 204 || a.Text != "" {
		t.Errorf("%+v, %v", a, err)
	}
	if got := s.Requests(); got[len(got)-1].Header.Get("Authorization") != "Bearer t" {
		t.Errorf("%+v", got[len(got)-1])
	}
}

// TestAddress shows no secret.
func TestAddress(t *testing.T) {
	t.Setenv("NO_PROXY", "")
	c := probing(t, Config{URL: "http://me:secret@loki:3100/push?token=secret"})
	to, _ := c.Address()
	if to.String() != "http://loki:3100/push" {
		t.Errorf("%s", to)
	}
}
