package app

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
)

func TestRates(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var a, b entry.Stats
	one, both := []monitors.ContainerStatus{{Stats: &a}}, []monitors.ContainerStatus{{Stats: &b}, {Stats: &a}}
	r := newRates(begin)
	sample := func(after time.Duration, all ...*entry.Stats) { r.sample(begin.Add(after), all) }
	at := func(after time.Duration, all []monitors.ContainerStatus, want ...rate) {
		t.Helper()
		got := r.at(begin.Add(after), all)
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("after %v: got %v, want %v", after, got, want)
			}
		}
	}
	a.Read.Store(100)
	a.Delivered.Store(50)
	at(0, one, rate{100, 50}) // a moment counts as a second
	at(5*time.Second, one, rate{20, 10})
	sample(10*time.Second, &a)
	at(10*time.Second, one, rate{10, 5}) // from the start
	a.Read.Store(300)
	sample(20*time.Second, &a)
	a.Read.Store(400)
	b.Read.Store(20) // has come since
	at(20*time.Second, both, rate{2, 0}, rate{30, 0})
	sample(30*time.Second, &b, &a)
	at(40*time.Second, both, rate{1, 0}, rate{5, 0})
	sample(40*time.Second, &a)
	sample(50*time.Second, &a)
	at(60*time.Second, one, rate{0, 0})
}

// TestOverview: what nobody has asked about is remembered.
func TestOverview(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	cfg := testConfig(t, t.TempDir(), s.URL)
	now := time.Now()
	a := &agent{cfg: cfg, log: quiet(cfg), registry: prometheus.NewRegistry(), started: now, rates: newRates(now), buildInfo: server.Build{Version: "v1"}}
	defer a.close()
	if err := a.build(io.Discard); err != nil {
		t.Fatal(err)
	}
	a.sample(t.Context())
	if e := a.history.Events(); len(e) != 1 || !strings.HasPrefix(e[0].What, "Docker cannot be reached") {
		t.Errorf("events %+v", e)
	}
	o := a.overview(t.Context())
	if o.Build.Version != "v1" || !o.Started.Equal(now) || len(o.Events) != 1 || o.Events[0].Times != 1 || len(o.Health.Problems) != 1 {
		t.Errorf("%+v", o)
	}
	if p, ok := o.Positions.(positionsView); !ok || p.State != "ok" || p.DataDir != cfg.DataDir {
		t.Errorf("positions %+v", o.Positions)
	}
}

// TestStatusServed: an agent serves its page, its status, and its configuration
// without secrets; the token lets others reload.
func TestStatusServed(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	cfg := testConfig(t, t.TempDir(), s.URL)
	cfg.Sinks.Loki.Headers = map[string]config.Secret{"X-A": "hush"}
	cfg.Sinks.Loki.BasicAuth = config.BasicAuth{Username: "agent", Password: "hush"}
	cfg.Sinks.Loki.URL += "/loki/api/v1/push?token=hush"
	cfg.Server.TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(cfg.Server.TokenFile, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, stop := start(t, cfg, nil)
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	code, body := get(t, addr, server.StatusPath)
	var status server.AgentStatus
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(body, "hush") {
		t.Errorf("a secret is shown: %s", body)
	}
	if code != 200 || !strings.HasPrefix(status.Headline, "In trouble: Docker cannot be reached: 0 containers") || len(status.Problems) != 1 ||
		!strings.HasSuffix(status.Problems[0].See, "#docker-cannot-be-reached--503") {
		t.Errorf("got %d %s", code, body)
	}
	code, body = get(t, addr, server.ConfigPath)
	if code != 200 || strings.Contains(body, "hush") || !strings.Contains(body, `"X-A": "[hidden]"`) || !strings.Contains(body, cfg.DataDir) {
		t.Errorf("got %d %s", code, body)
	}
	if code, _ := get(t, addr, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("profiles that are off: got %d", code)
	}
	if code, body := ask(t, addr, "GET", "/", http.Header{"Accept": {"text/html"}}); code != 200 || !strings.Contains(body, "In trouble: Docker cannot be reached") {
		t.Errorf("the page: got %d %s", code, body)
	}
	// A proxy on this machine tells of somebody elsewhere.
	elsewhere := http.Header{"X-Forwarded-For": {"192.0.2.1"}}
	if code, _ := ask(t, addr, "POST", "/-/reload", elsewhere); code != http.StatusUnauthorized {
		t.Errorf("without the token: got %d", code)
	}
	elsewhere.Set("Authorization", "Bearer 0123456789abcdef")
	// This agent cannot reload; the request got through.
	if code, body := ask(t, addr, "POST", "/-/reload", elsewhere); code != http.StatusBadRequest || !strings.Contains(body, "cannot reload") {
		t.Errorf("with the token: got %d %s", code, body)
	}
}
