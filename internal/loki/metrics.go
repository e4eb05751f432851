package loki

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	sent     prometheus.Counter
	errors   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	sink := prometheus.Labels{"sink": "loki"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "log_capturer_sink_requests_total",
			Help:        "Requests to the log store, by the status of the answer; error: no answer.",
			ConstLabels: sink,
		}, []string{"code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:        "log_capturer_sink_request_seconds",
			Help:        "Time of a request to the log store, to the last byte of the answer.",
			ConstLabels: sink,
			Buckets:     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "log_capturer_sink_sent_bytes_total",
			Help:        "Bytes of request bodies that the log store has answered, compressed.",
			ConstLabels: sink,
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "log_capturer_sink_errors_total",
			Help:        "Requests that were not accepted whole, by reason; credentials: the file with them could not be read, and those read before were sent.",
			ConstLabels: sink,
		}, []string{"reason"}),
	}
	for _, r := range []string{
		reasonConfig, reasonRetry, reasonNetwork, reasonTimeout, reasonPause, reasonStream, reasonTooLarge, reasonLines, reasonUnknown, reasonSecret,
	} {
		m.errors.WithLabelValues(r)
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.requests, m.seconds, m.sent, m.errors} {
			if err := reg.Register(c); err != nil {
				return nil, fmt.Errorf("register the metrics of the Loki sink: %w", err)
			}
		}
	}
	return m, nil
}

// Health is how the store has been doing, for /health.
type Health struct {
	// LastSuccess is when the store last accepted lines; zero: never.
	LastSuccess time.Time
	// LastError is the last failure's text, kept after recovery; LastErrorAt
	// its time.
	LastError   string
	LastErrorAt time.Time
	// FailingSince is when the first push failed since LastSuccess; zero while
	// the store accepts.
	FailingSince time.Time
	// Config is set while the last failure, not yet followed by a success, can
	// only be healed by a change of configuration.
	Config bool
	// Held is why a stream was last refused alone (rate, number of streams,
	// labels), HeldAt when; other streams go on.
	Held   string
	HeldAt time.Time
}

// health is safe for concurrent use.
type health struct {
	mu sync.Mutex
	h  Health
}

func (h *health) success(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.h.LastSuccess = now
	h.h.FailingSince = time.Time{}
	h.h.Config = false
}

func (h *health) failure(now time.Time, text string, config bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.h.LastError, h.h.LastErrorAt, h.h.Config = text, now, config
	if h.h.FailingSince.IsZero() {
		h.h.FailingSince = now
	}
}

func (h *health) held(now time.Time, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.h.Held, h.h.HeldAt = text, now
}

func (h *health) get() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.h
}
