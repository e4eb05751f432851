package spool

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the spool counts. Every field is safe for concurrent use.
type metrics struct {
	appended, appendedRecords, acked prometheus.Counter
	refused, writeErrors             prometheus.Counter
	lostFrames, lostRecords, torn    prometheus.Counter
	setAside, damagedCursors         prometheus.Counter

	all []prometheus.Collector
}

func newMetrics() *metrics {
	m := new(metrics)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "log_capturer_spool_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	m.appended = counter("appended_frames_total", "Batches written to the spool, also those that move within it.")
	m.appendedRecords = counter("appended_records_total", "Lines written to the spool, also those that move within it.")
	m.acked = counter("acked_frames_total", "Batches of the spool that are done: sent, dead letters, moved within the spool because the store refuses a stream alone, or not understood.")
	m.refused = counter("refused_appends_total", "Attempts to write to the spool that found no room: its cap, the floor of free space, or the disk.")
	m.writeErrors = counter("write_errors_total", "Writes or syncs of the spool that failed.")
	m.lostFrames = counter("lost_frames_total", "Batches of the spool that could not be read again.")
	m.lostRecords = counter("lost_records_total", "Lines in them, as far as that can be told.")
	m.torn = counter("torn_tails_total", "Writes cut off at a start because a crash had left half of them. Nothing is lost by it: their lines are read again.")
	m.setAside = counter("set_aside_segments_total", "Files of the spool kept under another name at a start, unsent: not readable, or of an unknown version.")
	m.damagedCursors = counter("damaged_cursors_total", "Read cursors found damaged. Some batches were sent twice.")
	return m
}

// register registers everything, or nothing and gives an error.
func (m *metrics) register(reg prometheus.Registerer, s *Spool) error {
	gauge := func(name, help string, f func(Health) float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "log_capturer_spool_" + name, Help: help},
			func() float64 { return f(s.Health()) }))
	}
	gauge("bytes", "Size of the spool's files.", func(h Health) float64 { return float64(h.DiskBytes) })
	gauge("max_bytes", "Cap of the spool (spool.max_bytes).", func(h Health) float64 { return float64(h.MaxBytes) })
	gauge("frames", "Batches waiting in the spool.", func(h Health) float64 { return float64(h.Frames) })
	gauge("records", "Lines waiting in the spool.", func(h Health) float64 { return float64(h.Records) })
	gauge("full", "1 while the spool takes no more.", func(h Health) float64 {
		if h.State == Full {
			return 1
		}
		return 0
	})
	gauge("oldest_seconds", "Age of the oldest line waiting in the spool; 0: none waits.", func(h Health) float64 {
		if h.Oldest.IsZero() {
			return 0
		}
		return max(0, s.cfg.Now().Sub(h.Oldest).Seconds())
	})
	gauge("time_left_seconds", "How long the spool will have room at the present rate; 0 unless it is filling.", func(h Health) float64 {
		return h.TimeLeft.Seconds()
	})
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			for _, done := range m.all[:i] {
				reg.Unregister(done)
			}
			return fmt.Errorf("register the metrics of the spool: %w", err)
		}
	}
	return nil
}
