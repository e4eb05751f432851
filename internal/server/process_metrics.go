package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Build is what the running program was built from.
type Build struct {
	Version   string // such as v1.2.3
	Revision  string // of the source
	GoVersion string
}

// processCollector gives the figures of the process by which leaks are seen.
// Everything is read when it is asked for; between scrapes it costs nothing.
type processCollector struct {
	proc                                         string // where the process is seen: /proc/self
	pageSize                                     uint64 // bytes
	goroutines, openFDs, memory, builds, startAt *prometheus.Desc
	build                                        Build
	started                                      time.Time
}

// NewProcessCollector makes the collector of log_capturer_goroutines,
// log_capturer_open_fds, log_capturer_memory_bytes, log_capturer_build_info and
// log_capturer_start_time_seconds, which is started.
func NewProcessCollector(b Build, started time.Time) prometheus.Collector {
	return newProcessCollector(b, started, "/proc/self")
}

func newProcessCollector(b Build, started time.Time, proc string) *processCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("log_capturer_"+name, help, labels, nil)
	}
	return &processCollector{
		proc:       proc,
		pageSize:   uint64(os.Getpagesize()),
		goroutines: desc("goroutines", "Goroutines of the agent."),
		openFDs:    desc("open_fds", "Open file descriptors of the agent."),
		memory:     desc("memory_bytes", "Resident memory of the agent in bytes."),
		builds:     desc("build_info", "Always 1; the labels say what the agent was built from.", "version", "revision", "goversion"),
		startAt:    desc("start_time_seconds", "When the agent was started, or last reloaded: when its counters began at 0. Unix time."),
		build:      b,
		started:    started,
	}
}

// Describe implements prometheus.Collector.
func (c *processCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.goroutines, c.openFDs, c.memory, c.builds, c.startAt} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A figure that cannot be read is an
// error of the scrape, not a zero.
func (c *processCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, err error, labels ...string) {
		if err != nil {
			ch <- prometheus.NewInvalidMetric(d, err)
			return
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.goroutines, float64(runtime.NumGoroutine()), nil)
	fds, err := openFDs(c.proc + "/fd")
	gauge(c.openFDs, float64(fds), err)
	pages, err := residentPages(c.proc + "/statm")
	gauge(c.memory, float64(pages*c.pageSize), err)
	gauge(c.builds, 1, nil, c.build.Version, c.build.Revision, c.build.GoVersion)
	gauge(c.startAt, float64(c.started.UnixMilli())/1000, nil)
}

// openFDs counts the entries of a /proc/PID/fd directory, without the one that
// the counting itself needs. That directory shows a descriptor per entry
// (proc(5)).
func openFDs(dir string) (int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, fmt.Errorf("count open descriptors: %w", err)
	}
	defer func() { _ = d.Close() }() // only read from
	n := -1
	for {
		names, err := d.Readdirnames(256)
		n += len(names)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, fmt.Errorf("count open descriptors: %w", err)
		}
	}
}

// residentPages reads the second number of a /proc/PID/statm file: the pages
// that are in memory (proc(5)).
func residentPages(file string) (uint64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0, fmt.Errorf("read resident memory: %s has %d fields, at least 2 expected", file, len(fields))
	}
	n, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %s: %w", file, err)
	}
	return n, nil
}
