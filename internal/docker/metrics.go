package docker

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of Watch. The label action has the watched actions only.
type metrics struct {
	events     *prometheus.CounterVec
	reconnects prometheus.Counter
	up         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_docker_events_total",
			Help: "Container events handled, by action.",
		}, []string{"action"}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_docker_reconnects_total",
			Help: "Times that the event stream of the Docker engine was set up again after it had been lost.",
		}),
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "log_capturer_docker_up",
			Help: "1 while container events are received from the Docker engine, else 0.",
		}),
	}
	for _, a := range watchedActions() {
		m.events.WithLabelValues(a) // 0 rather than absent
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.events, m.reconnects, m.up} {
		if err := reg.Register(c); err != nil {
			return metrics{}, err
		}
	}
	return m, nil
}
