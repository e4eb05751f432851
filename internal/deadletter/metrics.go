package deadletter

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the log counts. Every field is safe for concurrent use.
type metrics struct {
	bytes                   prometheus.Gauge
	total                   *prometheus.CounterVec
	writeErrors, copiesLost prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "log_capturer_dead_letters_bytes", Help: "Size of the file of dead letters.",
		}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_total", Help: "Lines written to the file of dead letters: refused by the store, or copies of malformed ones.",
		}, []string{"reason"}),
		writeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_write_errors_total", Help: "Writes or syncs of the file of dead letters that failed.",
		}),
		copiesLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_copies_lost_total", Help: "Copies of malformed lines that could not be written. The lines were shipped.",
		}),
	}
	for _, k := range []Kind{Refused, Malformed} {
		m.total.WithLabelValues(string(k)) // there from the start, as 0
	}
	return m
}

// count counts a record under one of few reasons.
func (m *metrics) count(k Kind) {
	if k != Refused && k != Malformed {
		k = "other"
	}
	m.total.WithLabelValues(string(k)).Inc()
}

// register registers everything, or nothing and gives an error.
func (m *metrics) register(reg prometheus.Registerer) error {
	all := []prometheus.Collector{m.bytes, m.total, m.writeErrors, m.copiesLost}
	for i, c := range all {
		if err := reg.Register(c); err != nil {
			for _, done := range all[:i] {
				reg.Unregister(done)
			}
			return fmt.Errorf("register the metrics of dead letters: %w", err)
		}
	}
	return nil
}
