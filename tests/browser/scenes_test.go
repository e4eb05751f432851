package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/server"
)

// scene is what an agent could say of itself. It may be changed while it is served.
type scene struct {
	mu sync.Mutex
	o  server.Overview
}

func (s *scene) change(f func(*server.Overview)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.o)
}

// overview gives a copy that the server may sort.
func (s *scene) overview(context.Context) server.Overview {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.o
	o.Containers = append([]server.ContainerStatus(nil), o.Containers...)
	o.Time = time.Now()
	return o
}

// serve serves a scene until the test ends.
func serve(t *testing.T, s *scene) (url string) {
	t.Helper()
	srv := server.New(server.Options{
		Address:  "127.0.0.1:0",
		Health:   func(ctx context.Context) server.Health { return s.overview(ctx).Health },
		Ready:    func(context.Context) error { return nil },
		Reload:   func(context.Context) error { return nil },
		Overview: s.overview,
		Metrics:  prometheus.NewRegistry(),
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err := srv.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + srv.Addr().String()
}

// base is an agent with no containers of which all is well.
func base() server.Overview {
	return server.Overview{
		Started: time.Now().Add(-53 * time.Hour),
		Build:   server.Build{Version: "v1.4.0", Revision: "3f9c2ab81d07", GoVersion: "go1.26.0"},
		Health: server.Health{
			Status: server.StatusOK,
			Monitors: map[string]any{
				"file_monitor": json.RawMessage(`{"state":"ok","files_monitored":9,"files_failed":0,"files_held":9,"logs_held_by_store":0,"file_system_access":"ok","lag_bytes":512,"lag_seconds":0.08}`),
				"streaming":    json.RawMessage(`{"state":"ok","containers":2,"following":2,"in_turns":0,"max_streams":50,"failed":0,"logs_held_by_store":0,"instead_of_files":0,"lag_seconds":0}`),
			},
			Docker: json.RawMessage(`{"state":"ok","synced":true,"not_captured":{"none":1},"excluded":0}`),
			Spool:  json.RawMessage(`{"state":"empty","frames":0,"records":0,"bytes":0,"disk_bytes":0,"max_bytes":1073741824}`),
			Sinks: map[string]any{
				"loki": json.RawMessage(`{"state":"ok","last_success":"` + time.Now().UTC().Format(time.RFC3339) + `","pending_bytes":18211,"parked_bytes":0,"dead_letters":0}`),
			},
		},
		LagSeconds: 0.08,
		Positions:  json.RawMessage(`{"state":"ok","data_dir":"/var/lib/log_capturer"}`),
	}
}

func container(i int, name, image, driver, method, reason string) server.ContainerStatus {
	unread := int64(0)
	c := server.ContainerStatus{Container: server.Container{
		ID: fmt.Sprintf("%064x", 0xabc0000+i), Name: name, Image: image, Driver: driver, Method: method, Reason: reason, State: server.StateRunning,
		LinesRead: int64(91817 + i*911), LinesDelivered: int64(91817 + i*911),
	}}
	switch method {
	case server.MethodFileMonitor:
		c.UnreadBytes = &unread
		fallthrough
	case server.MethodStreaming:
		c.DeliveredPerSecond = float64((i*37)%230) + 0.4
		c.ReadPerSecond = c.DeliveredPerSecond
	case server.MethodNone:
		c.LinesRead, c.LinesDelivered = 0, 0
	}
	return c
}

const keepsFile = "log driver json-file keeps a file"

// well is a small host.
func well() *scene {
	o := base()
	for i, name := range []string{"api-1", "api-2", "cache", "db", "frontend", "gateway", "ledger", "mailer", "worker-1"} {
		o.Containers = append(o.Containers, container(i, name, "images.example/shop/"+strings.TrimRight(name, "-12")+":1.29.3", "json-file", server.MethodFileMonitor, keepsFile))
	}
	o.Containers = append(o.Containers,
		container(20, "legacy", "example.com/legacy:7", "local", server.MethodStreaming, "log driver local keeps no file that can be read"),
		container(21, "syslogd", "example.com/syslogd:2", "journald", server.MethodStreaming, "log driver journald keeps no file that can be read"),
		container(22, "probe", "busybox:1.36", "none", server.MethodNone, "log driver none keeps nothing"),
	)
	o.Containers[6].State = server.StateExited
	return &scene{o: o}
}

// trouble is the same host on a bad day.
func trouble() *scene {
	s := well()
	s.change(func(o *server.Overview) {
		now := time.Now().UTC()
		o.LagSeconds = 184
		o.Health.Status = server.StatusUnhealthy
		store := "the store does not accept lines: push to https://loki.example.com/loki/api/v1/push: 503 Service Unavailable: too many outstanding requests"
		rest := "lines were lost: the rest of log files had to be given up"
		stream := "1 containers are streamed because their log files cannot be read: open /var/lib/docker/containers/abc/abc-json.log: input/output error"
		o.Health.Problems = []server.Problem{
			{What: store, Remedy: "nothing is lost while there is room for it; the agent goes on trying"},
			{What: rest, Remedy: "the log says of each container why, and what would have saved it"},
			{What: stream, Remedy: "see the message; the files are tried again by themselves"},
		}
		var h server.History
		h.Observe(now.Add(-26*time.Hour), []server.Problem{{What: "Docker cannot be reached: dial unix /var/run/docker.sock: connect: no such file or directory", Remedy: "start Docker, or set docker.host; the agent goes on trying, and reads the logs it knows"}})
		h.Observe(now.Add(-26*time.Hour+95*time.Second), nil)
		h.Observe(now.Add(-4*time.Minute), o.Health.Problems)
		o.Events = h.Events()
		o.Health.Sinks["loki"] = json.RawMessage(`{"state":"unhealthy","failing_since":"` + now.Add(-4*time.Minute).Format(time.RFC3339) + `","last_success":"` + now.Add(-4*time.Minute).Format(time.RFC3339) + `","last_error":"push to https://loki.example.com/loki/api/v1/push: 503 Service Unavailable: too many outstanding requests","pending_bytes":1948211,"parked_bytes":0,"dead_letters":12}`)
		o.Health.Spool = json.RawMessage(`{"state":"filling","frames":812,"records":1318221,"bytes":732211200,"disk_bytes":741211200,"max_bytes":1073741824,"oldest":"` + now.Add(-4*time.Minute).Format(time.RFC3339) + `","time_left_seconds":5580}`)
		unread := int64(28 << 20)
		c := &o.Containers[3]
		c.LagSeconds, c.UnreadBytes, c.DeliveredPerSecond = 184, &unread, 0
		c.BytesLost, c.Gaps = 3<<20, 2
		after, before := now.Add(-3*time.Hour), now.Add(-3*time.Hour+12*time.Second)
		c.GapAfter, c.GapBefore = &after, &before
		e := &o.Containers[4]
		at := now.Add(-90 * time.Second)
		e.Method, e.Reason, e.UnreadBytes = server.MethodStreaming, "the log file cannot be read", nil
		e.Errors, e.LastError, e.LastErrorAt = 3, "open /var/lib/docker/containers/abc/abc-json.log: input/output error", &at
		o.Containers[5].LinesDeadLettered = 12
		o.Containers[5].LinesMalformed = 3
	})
	return s
}

// thousand is a host with as many containers as it is made for.
func thousand() *scene {
	o := base()
	for i := range 1000 {
		o.Containers = append(o.Containers, container(i, fmt.Sprintf("service-%04d", i), "images.example/fleet/service:1.0", "json-file", server.MethodFileMonitor, keepsFile))
	}
	return &scene{o: o}
}

// The text of a host whose containers want to do harm.
const (
	script  = `<script>window.harm = 1</script><img src=x onerror="window.harm = 1">"'><b>bold`
	turning = "abc\u202egpj.exe\u2066"
	control = "nul\x00esc\x1b[31mbell\x07\r\nnext\xff"
)

func hostile() *scene {
	o := base()
	long := strings.Repeat("x", 64<<10)
	for i, text := range []string{script, turning, control, long, strings.Repeat("e\u0301\u0302\u0303", 40), "{{.Verdict}} ${x}", ""} {
		at := time.Now()
		c := container(i, text, text, text, server.MethodFileMonitor, text)
		c.LastError, c.Errors, c.LastErrorAt, c.State = text, 1, &at, text
		o.Containers = append(o.Containers, c)
		o.Health.Problems = append(o.Health.Problems, server.Problem{What: text + ": " + text, Remedy: text})
	}
	o.Health.Status = server.StatusUnhealthy
	part, err := json.Marshal(map[string]any{"state": script, "error": long, "last_error": control, "not_captured": map[string]int{script: 1, turning: 2}})
	if err != nil {
		panic(err)
	}
	o.Health.Docker = json.RawMessage(part)
	o.Build.Version = script
	var h server.History
	h.Observe(time.Now(), o.Health.Problems)
	o.Events = h.Events()
	return &scene{o: o}
}
