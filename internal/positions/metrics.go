package positions

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the store counts. Every field is safe for concurrent use.
type metrics struct {
	writes, writeErrors, syncs, syncErrors, rewrites prometheus.Counter
	journalBytes, inFlight                           prometheus.Gauge
	duplicateAcks, unknownAcks, strayLines           prometheus.Counter
	tornTails, badRecords, unknownRecords            prometheus.Counter

	all []prometheus.Collector
}

func newMetrics() *metrics {
	m := new(metrics)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "log_capturer_positions_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "log_capturer_positions_" + name, Help: help}, []string{label})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "log_capturer_positions_" + name, Help: help})
		m.all = append(m.all, g)
		return g
	}
	m.writes = counter("writes_total", "Writes to the positions journal that succeeded.")
	m.writeErrors = counter("write_errors_total", "Writes to the positions journal, and attempts to write it anew, that failed.")
	m.syncs = counter("syncs_total", "Syncs of the positions journal that succeeded.")
	m.syncErrors = counter("sync_errors_total", "Syncs of the positions journal that failed.")
	m.rewrites = counter("rewrites_total", "Times the positions journal was written anew: at the start, to compact it, or to repair it.")
	m.journalBytes = gauge("journal_bytes", "Size of the positions journal.")
	m.inFlight = gauge("spans_in_flight", "Spans of lines that were read and are not acknowledged yet.")
	acks := vec("ignored_acks_total", "Acknowledgements that were ignored: of a span acknowledged before, or of one not known.", "reason")
	m.duplicateAcks, m.unknownAcks = acks.WithLabelValues("duplicate"), acks.WithLabelValues("unknown")
	m.strayLines = counter("unregistered_reads_total", "Reads of logs that are not registered: a fault of the agent. Their lines may be sent twice.")
	skipped := vec("skipped_records_total", "Records of the positions journal not used at the start: half-written at the end, damaged, or of an unknown kind.", "reason")
	m.tornTails, m.badRecords, m.unknownRecords = skipped.WithLabelValues("torn"), skipped.WithLabelValues("damaged"), skipped.WithLabelValues("unknown")
	return m
}

// register registers everything, or nothing and gives an error.
func (m *metrics) register(reg prometheus.Registerer) error {
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			for _, done := range m.all[:i] {
				reg.Unregister(done)
			}
			return fmt.Errorf("register the metrics of positions: %w", err)
		}
	}
	return nil
}
