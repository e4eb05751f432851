package server

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

// fakeProc makes a directory that looks like /proc/self.
func fakeProc(t *testing.T, statm string, fds ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "fd"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := os.WriteFile(filepath.Join(dir, "fd", fd), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "statm"), []byte(statm), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestProcessCollector(t *testing.T) {
	c := newProcessCollector(Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"}, time.UnixMilli(1_700_000_000_250), fakeProc(t, "900 30 7 6 0 5 0\n", "0", "1", "2", "3"))
	c.pageSize = 4096
	if err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP log_capturer_build_info Always 1; the labels say what the agent was built from.
# TYPE log_capturer_build_info gauge
log_capturer_build_info{goversion="go1.26",revision="abc",version="v1.2.3"} 1
# HELP log_capturer_memory_bytes Resident memory of the agent in bytes.
# TYPE log_capturer_memory_bytes gauge
log_capturer_memory_bytes 122880
# HELP log_capturer_open_fds Open file descriptors of the agent.
# TYPE log_capturer_open_fds gauge
log_capturer_open_fds 3
# HELP log_capturer_start_time_seconds When the agent was started, or last reloaded: when its counters began at 0. Unix time.
# TYPE log_capturer_start_time_seconds gauge
log_capturer_start_time_seconds 1.70000000025e+09
`), "log_capturer_build_info", "log_capturer_memory_bytes", "log_capturer_open_fds", "log_capturer_start_time_seconds"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// gather gives the values of the gauges without labels.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return values
}

// TestProcessCollectorOfThisProcess: what is taken shows, what is given back no
// longer.
func TestProcessCollectorOfThisProcess(t *testing.T) {
	// What earlier tests have left is given back now, not while this one measures.
	debug.FreeOSMemory()
	c := NewProcessCollector(Build{}, time.Now())
	before := gather(t, c)
	if n := before["log_capturer_goroutines"]; n < 2 || n > float64(runtime.NumGoroutine()+10) {
		t.Errorf("%v goroutines", n)
	}
	const files = 300 // more than one read of the directory
	var open []*os.File
	for range files {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, f)
	}
	// Mapped, not allocated: the heap may have room that is already resident.
	memory, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	// Many: some of other tests may end meanwhile.
	const goroutines = 1000
	var waiting sync.WaitGroup
	stop := make(chan struct{})
	for range goroutines {
		waiting.Go(func() { <-stop })
	}
	during := gather(t, c)
	close(stop)
	waiting.Wait()
	if err := unix.Munmap(memory); err != nil {
		t.Fatal(err)
	}
	for _, f := range open {
		_ = f.Close()
	}
	if n := during["log_capturer_open_fds"] - before["log_capturer_open_fds"]; n != files {
		t.Errorf("%v descriptors more, want %d", n, files)
	}
	if n := during["log_capturer_memory_bytes"] - before["log_capturer_memory_bytes"]; n < 60<<20 {
		t.Errorf("%v bytes more, want about %d", n, 64<<20)
	}
	if n := during["log_capturer_goroutines"] - before["log_capturer_goroutines"]; n < goroutines-50 {
		t.Errorf("%v goroutines more, want about %d", n, goroutines)
	}
	if n := gather(t, c)["log_capturer_open_fds"] - before["log_capturer_open_fds"]; n != 0 {
		t.Errorf("%v descriptors more at the end", n)
	}
}

func TestProcessCollectorErrors(t *testing.T) {
	for _, c := range []struct{ name, proc, want string }{
		{"no proc", filepath.Join(t.TempDir(), "none"), "count open descriptors: open "},
		{"no proc, memory", filepath.Join(t.TempDir(), "none"), "read resident memory: open "},
		{"short", fakeProc(t, "900\n"), "has 1 fields, at least 2 expected"},
		{"no number", fakeProc(t, "900 x\n"), `parsing "x": invalid syntax`},
	} {
		reg := prometheus.NewRegistry()
		reg.MustRegister(newProcessCollector(Build{}, time.Now(), c.proc))
		families, err := reg.Gather()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		for _, f := range families {
			if f.GetName() == "log_capturer_memory_bytes" {
				t.Errorf("%s: a figure all the same: %v", c.name, f)
			}
		}
	}
	file := filepath.Join(fakeProc(t, ""), "statm")
	if _, err := openFDs(file); err == nil {
		t.Error("counted the entries of a file")
	}
}

func BenchmarkProcessCollector(b *testing.B) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewProcessCollector(Build{}, time.Now()))
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
