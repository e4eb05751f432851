package monitors

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/positions"
)

// benchLines are what containers write, in the proportions of a usual host.
var benchLines = []string{
	`10.1.2.3 - - [07/Nov/2025:12:00:00 +0000] \"GET /api/v1/orders/8c1f?expand=items HTTP/1.1\" 200 5123 \"-\" \"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0\"`,
	`{\"level\":\"info\",\"ts\":\"2025-11-07T12:00:00.123Z\",\"caller\":\"http/server.go:217\",\"msg\":\"request done\",\"method\":\"GET\",\"path\":\"/api/v1/orders\",\"status\":200,\"ms\":12.7}`,
	`worker 7: done`,
	`\tat com.example.orders.OrderService.lambda$list$3(OrderService.java:142) ~[orders.jar:1.4.2]`,
	`Größe der Anfrage: 4711 Bytes, Gerät „Küche“, Zustand übernommen`,
	`2025-11-07 12:00:00,123 INFO  [main] o.e.j.s.Server - Started @2131ms in mode=production with 42 beans and 7 warnings; see the log for details`,
}

// writeBenchLog writes a json-file log of about size bytes.
func writeBenchLog(b *testing.B, path string, size int, start time.Time) (bytes int64, lines int) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	for text.Len() < size {
		stream := "stdout"
		if lines%17 == 0 {
			stream = "stderr"
		}
		t := start.Add(time.Duration(lines) * 37 * time.Microsecond)
		fmt.Fprintf(&text, `{"log":"%s\n","stream":"%s","time":"%s"}`+"\n", benchLines[lines%len(benchLines)], stream, t.UTC().Format(time.RFC3339Nano))
		lines++
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	return int64(text.Len()), lines
}

// BenchmarkFileToStore is the whole way: from files through parser, dispatcher
// and encoder to an HTTP server that throws the requests away. It reports MB of
// Docker JSON per CPU second of this process, the server's share included, and
// allocations per line.
func BenchmarkFileToStore(b *testing.B) {
	discard := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer discard.Close()
	dir := b.TempDir()
	const logs, size = 8, 32 << 20
	now := time.Now().Add(-time.Hour)
	var infos []ContainerLogFileInfo
	var total int64
	lines := 0
	for i := range logs {
		id := fmt.Sprintf("%064d", i)
		info := ContainerLogFileInfo{
			ID: id, Name: fmt.Sprintf("bench-%d", i), Image: "images.example/bench:1.2", Host: "host",
			LogPath: filepath.Join(dir, "containers", id, id+"-json.log"), Running: true, Created: now, StartedAt: now,
		}
		n, k := writeBenchLog(b, info.LogPath, size, now)
		total += n
		lines += k
		infos = append(infos, info)
	}
	for _, metadata := range []bool{false, true} {
		b.Run(fmt.Sprintf("metadata=%v", metadata), func(b *testing.B) {
			b.SetBytes(total)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			cpu := cpuTime(b)
			for i := range b.N {
				runWay(b, discard.URL+"/loki/api/v1/push", filepath.Join(b.TempDir(), fmt.Sprint(i)), infos, lines, metadata)
			}
			used := cpuTime(b) - cpu
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(total)*float64(b.N)/1e6/used.Seconds(), "MB/cpu-s")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N)/float64(lines), "allocs/line")
			b.ReportMetric(float64(lines)*float64(b.N)/used.Seconds(), "lines/cpu-s")
		})
	}
}

func runWay(b *testing.B, url, dataDir string, infos []ContainerLogFileInfo, lines int, metadata bool) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	reg := prometheus.NewRegistry()
	store, err := positions.Open(positions.Config{Dir: dataDir, Logger: log, Registerer: reg})
	if err != nil {
		b.Fatal(err)
	}
	sink, err := loki.New(loki.Config{URL: url, StructuredMetadata: metadata, Logger: log, Registerer: reg})
	if err != nil {
		b.Fatal(err)
	}
	acked := &countingAcks{Store: store, left: int64(lines), done: make(chan struct{})}
	const tick = 140 * time.Millisecond
	d := dispatch.New(dispatch.Config{Lanes: 2, BatchWait: dispatch.BatchWait(tick), Sink: sink, Acks: acked, DeadLetters: noDeadLetters{}, Logger: log, Registerer: reg})
	m := NewFileMonitor(FileMonitorConfig{
		LogConfig: LogConfig{
			Outlet: d, Registry: store, Spans: acked, MaxLineBytes: 256 << 10,
			FirstStart: store.FirstStart(), Logger: log, Lines: NewLineMetrics(reg),
		},
		Tick: tick, ShipMalformed: true, Metrics: NewFileMetrics(reg),
	})
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	g.Go(func() error { return d.Run(ctx) })
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return store.Run(ctx) })
	for _, info := range infos {
		m.add(info)
	}
	<-acked.done
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	sink.Close()
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
}

// countingAcks closes done when spans with as many lines as left have been
// begun, and all spans begun have been acknowledged.
type countingAcks struct {
	*positions.Store
	done chan struct{}

	mu        sync.Mutex
	left      int64 // lines not begun yet
	on        int   // spans begun and not acknowledged
	completed bool
}

func (c *countingAcks) Begin(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) [entry.NumStreams]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range lines {
		c.left -= int64(n)
		if n > 0 {
			c.on++
		}
	}
	return c.Store.Begin(log, ends, lines)
}

func (c *countingAcks) Ack(spans []entry.Span) error {
	err := c.Store.Ack(spans)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on -= len(spans)
	if c.left == 0 && c.on == 0 && !c.completed {
		c.completed = true
		close(c.done)
	}
	return err
}

type noDeadLetters struct{}

func (noDeadLetters) Append(*entry.Batch, []entry.Refusal) error { return nil }

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
