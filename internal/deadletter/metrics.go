package deadletter

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the log counts. Every field is safe for concurrent use.
type metrics struct {
	bytes                   prometheus.Gauge
	total, dropped          *prometheus.CounterVec
	writeErrors, copiesLost prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "log_capturer_dead_letters_bytes", Help: "Size of the files of dead letters.",
		}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_total", Help: "Lines written to the dead letters: refused by the store, or copies of malformed ones.",
		}, []string{"reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_dropped_total", Help: "Records deleted because all together had reached their limit, without copies and what was sent again: these lines are lost.",
		}, []string{"reason"}),
		writeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_write_errors_total", Help: "Writes, syncs and changes of the files of dead letters that failed.",
		}),
		copiesLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dead_letters_copies_lost_total", Help: "Copies of malformed lines that were not kept. The lines were shipped.",
		}),
	}
	for _, k := range []Kind{Refused, Malformed} {
		m.total.WithLabelValues(string(k)) // there from the start, as 0
		m.dropped.WithLabelValues(string(k))
	}
	return m
}

// count counts n records under one of few reasons.
func (m *metrics) count(in *prometheus.CounterVec, k Kind, n int) {
	if k != Refused && k != Malformed {
		k = "other"
	}
	in.WithLabelValues(string(k)).Add(float64(n))
}

// register registers everything, or nothing and gives an error.
func (m *metrics) register(reg prometheus.Registerer) error {
	all := []prometheus.Collector{m.bytes, m.total, m.dropped, m.writeErrors, m.copiesLost}
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
