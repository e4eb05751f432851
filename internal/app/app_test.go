package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testConfig is the configuration of an agent whose engine is not there.
func testConfig(t *testing.T, dataDir, url string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("data_dir: %s\nserver: {port: 0}\ndocker: {host: \"unix://%s/absent.sock\"}\nsinks: {loki: {url: %q}}\n", dataDir, t.TempDir(), url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func quiet(*config.Config) *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// start runs an agent and waits until it serves.
func start(t testing.TB, cfg *config.Config, hard <-chan struct{}) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	listening, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			Config: cfg, NewLogger: quiet, Out: io.Discard, Hard: hard,
			Listening: func(addr string) { listening <- addr },
		})
	}()
	select {
	case addr = <-listening:
	case err := <-done:
		t.Fatal(err)
	}
	return addr, func() error { cancel(); return <-done }
}

// get asks an agent.
func get(t testing.TB, addr, path string) (code int, body string) {
	t.Helper()
	return ask(t, addr, "GET", path, nil)
}

// ask asks an agent, over a connection of its own.
func ask(t testing.TB, addr, method, path string, header http.Header) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Two agents fit into one process; without an engine they serve, and say what is
// wrong; they stop and leave no goroutine.
func TestTwoAgentsWithoutDocker(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	var addrs []string
	var stops []func() error
	defer func() {
		for _, stop := range stops {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 2 {
		addr, stop := start(t, testConfig(t, t.TempDir(), s.URL), nil)
		addrs = append(addrs, addr)
		stops = append(stops, stop)
	}
	for _, addr := range addrs {
		code, body := get(t, addr, "/health")
		var h struct {
			Status   string
			Problems []struct{ What, Remedy string }
		}
		if err := json.Unmarshal([]byte(body), &h); err != nil {
			t.Fatal(err)
		}
		if code != http.StatusServiceUnavailable || h.Status != "unhealthy" || len(h.Problems) != 1 || !strings.Contains(h.Problems[0].What, "Docker cannot be reached") {
			t.Errorf("%d %s", code, body)
		}
		if code, _ := get(t, addr, "/livez"); code != http.StatusOK {
			t.Errorf("/livez: %d", code)
		}
		if code, _ := get(t, addr, "/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("/readyz: %d", code)
		}
		_, metrics := get(t, addr, "/metrics")
		for _, name := range []string{
			"log_capturer_goroutines", "log_capturer_open_fds", "log_capturer_memory_bytes",
			"log_capturer_file_monitor_latency_seconds_bucket", `log_capturer_logs_processed_total{method="file_monitor",result="delivered"}`,
			"log_capturer_files_monitored", "log_capturer_file_events_total", "log_capturer_file_events_missed_total",
			"log_capturer_file_rotation_total", "log_capturer_metadata_cache_hits_total", "log_capturer_metadata_cache_misses_total",
			"log_capturer_docker_events_total", "log_capturer_parse_errors_total", "log_capturer_dead_letters_total",
		} {
			if !strings.Contains(metrics, "\n"+name) {
				t.Errorf("/metrics lacks %s", name)
			}
		}
	}
}

func TestOneDataDirForTwo(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	dir := t.TempDir()
	_, stop := start(t, testConfig(t, dir, s.URL), nil)
	err := Run(t.Context(), Options{
		Config: testConfig(t, dir, s.URL), NewLogger: quiet, Out: io.Discard,
	})
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("the second agent on %s: %v", dir, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestPortTaken(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	addr, stop := start(t, testConfig(t, t.TempDir(), s.URL), nil)
	cfg := testConfig(t, t.TempDir(), s.URL)
	if _, err := fmt.Sscan(addr[strings.LastIndexByte(addr, ':')+1:], &cfg.Server.Port); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{Config: cfg, NewLogger: quiet, Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "server.port") {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A reload is refused while the configuration has faults, goes back to the old
// one if the new one cannot be started, and otherwise takes over.
func TestReload(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	dir := t.TempDir()
	first := testConfig(t, dir, s.URL)
	faulty := errors.New("f:1: host: is a list")
	var next *config.Config
	ctx, cancel := context.WithCancel(t.Context())
	reload, listening, done := make(chan struct{}), make(chan string, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			Config: first, NewLogger: quiet, Out: io.Discard, Reload: reload,
			Load: func() (*config.Config, error) {
				if next == nil {
					return nil, faulty
				}
				return next, nil
			},
			Listening: func(addr string) { listening <- addr },
		})
	}()
	addr := <-listening
	post := func() (int, string) {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Post("http://"+addr+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := post(); code != http.StatusBadRequest || !strings.Contains(body, faulty.Error()) {
		t.Errorf("with faults: %d %s", code, body)
	}
	if code, _ := get(t, addr, "/livez"); code != http.StatusOK {
		t.Fatal("the old agent is gone")
	}

	next = testConfig(t, dir, s.URL)
	next.Host = "renamed"
	if code, body := post(); code != http.StatusAccepted {
		t.Errorf("without faults: %d %s", code, body)
	}
	addr = <-listening
	if code, _ := get(t, addr, "/livez"); code != http.StatusOK {
		t.Fatal("the new agent does not serve")
	}

	next = testConfig(t, dir, s.URL)
	next.Sinks.Loki.TLS.CAFile = filepath.Join(dir, "absent.pem")
	reload <- struct{}{}
	addr = <-listening // the one before again
	if code, _ := get(t, addr, "/livez"); code != http.StatusOK {
		t.Fatal("no agent after a configuration that cannot be started")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
