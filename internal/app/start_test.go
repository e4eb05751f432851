package app

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/internal/server"
	"github.com/log-capturer/log_capturer/internal/spool"
)

// fillSpool puts so many bytes into the spool of a data_dir.
func fillSpool(b *testing.B, dir string, bytes int64) {
	b.Helper()
	s, err := spool.Open(spool.Config{Dir: dir, Lanes: dispatch.SpoolLanes(lanes), MaxBytes: 2 * bytes, MinFreeBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	src := &entry.Source{ID: containerID(0), Name: "web0", Method: "file_monitor", Stats: new(entry.Stats)}
	src.Labels[entry.ClassStdout] = entry.NewLabels(entry.Label{Name: "container_name", Value: "web0"}, entry.Label{Name: "stream", Value: "stdout"})
	for i := 0; s.Health().DiskBytes < bytes; i++ {
		var batch entry.Batch
		batch.Begin(src)
		for len(batch.Text) < 1<<20 {
			off := len(batch.Text)
			for range 100 {
				batch.Text = append(batch.Text, byte(random.Uint32()))
			}
			batch.Add(time.Now().UnixNano(), off, entry.ClassStdout, 0)
		}
		batch.End()
		payload, n, oldest := batch.AppendParts(nil, entry.PartPending)
		if err := s.Lane(i % lanes).Append(spool.Frame{Payload: payload, Records: n, Oldest: oldest}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStart starts an agent on 1,000 containers and a spool of 1 GiB, while the store
// is away. serving-ms is the time until it serves HTTP, reading-ms until it has read what
// each container has written since the last run, to within 50 ms; cpu-ms is what that costs,
// the engine that is played and the looking included. It takes 1 GiB in TMPDIR.
func BenchmarkStart(b *testing.B) {
	many := make([]played, 1000)
	for i := range many {
		many[i].name = fmt.Sprint("web", i)
	}
	e := playEngine(b, "host1", many...)
	store := lokitest.New(lokitest.Options{})
	defer store.Close()

	data := b.TempDir()
	file := filepath.Join(b.TempDir(), "config.yaml")
	text := fmt.Sprintf("data_dir: %s\nserver: {port: 0}\ndocker: {host: %q}\nsinks: {loki: {url: %q}}\nspool: {min_free_bytes: 0, max_bytes: 2147483648}\n", data, e.host, store.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg, err := config.Load(file, func(string) (string, bool) { return "", false })
	if err != nil {
		b.Fatal(err)
	}
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	run := func() (serving, reading, cost time.Duration) {
		for i := range many {
			e.write(b, i, entryText("hello", time.Now()))
		}
		began, before := time.Now(), cpu()
		addr, stop := start(b, cfg, nil)
		serving = time.Since(began)
		look := time.NewTicker(50 * time.Millisecond) // it costs what it measures
		defer look.Stop()
		for read := 0; read < len(many); <-look.C {
			var all struct{ Containers []server.Container }
			_, body := get(b, addr, server.ContainersPath)
			if err := json.Unmarshal([]byte(body), &all); err != nil {
				b.Fatal(err)
			}
			read = 0
			for _, c := range all.Containers {
				read += int(min(1, c.LinesRead))
			}
			if time.Since(began) > time.Minute {
				b.Fatalf("only %d containers are read", read)
			}
		}
		reading, cost = time.Since(began), cpu()-before
		if err := stop(); err != nil {
			b.Fatal(err)
		}
		return serving, reading, cost
	}
	run() // so that there are positions
	store.Always(&lokitest.Fault{Status: http.StatusServiceUnavailable, Body: "away"})
	fillSpool(b, data, 1<<30)
	var serving, reading, cost time.Duration
	for b.Loop() {
		s, r, c := run()
		serving += s
		reading += r
		cost += c
	}
	b.ReportMetric(float64(serving.Milliseconds())/float64(b.N), "serving-ms")
	b.ReportMetric(float64(reading.Milliseconds())/float64(b.N), "reading-ms")
	b.ReportMetric(float64(cost.Milliseconds())/float64(b.N), "cpu-ms")
}
