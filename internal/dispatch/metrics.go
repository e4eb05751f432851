package dispatch

import (
	"math"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// The values of entry.Source.Method, which are those of the label "method".
const (
	methodFile   = "file_monitor"
	methodStream = "streaming"
)

// metrics are the counters of all lanes.
type metrics struct {
	processed    *prometheus.CounterVec
	file, stream methodCounters
	failed       prometheus.Counter
	ackErrors    prometheus.Counter
	holds        prometheus.Counter
	lostLines    *prometheus.CounterVec
	lostFrames   prometheus.Counter // the child of lostLines for the spool
}

// methodCounters are the children of log_capturer_logs_processed_total for one
// method, looked up once.
type methodCounters struct {
	delivered, deadLettered, malformed, spooled prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		processed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_logs_processed_total",
			Help: "Lines done with: delivered to the store, or dead_lettered because the store refused them; malformed is the part of delivered that was shipped raw. spooled went to the spool, and is counted again when it is done with.",
		}, []string{"method", "result"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dispatch_failed_attempts_total",
			Help: "Attempts after which lines had to be sent again because the store failed, or a spool behind which they wait had no room; not those that left only single streams refused.",
		}),
		ackErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dispatch_ack_errors_total",
			Help: "Deliveries that could not be written to the positions.",
		}),
		holds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_dispatch_holds_total",
			Help: "Times that a single stream was parked because the store refused it for now, one with lines in the spool there and among what is read.",
		}),
	}
	m.lostLines = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "log_capturer_lost_lines_total",
		Help: "Lines that had been read and were lost, by reason.",
	}, []string{"reason"})
	m.lostFrames = m.lostLines.WithLabelValues("spool_unreadable")
	m.file, m.stream = m.resolve(methodFile), m.resolve(methodStream)
	return m
}

func (m *metrics) resolve(method string) methodCounters {
	return methodCounters{
		delivered:    m.processed.WithLabelValues(method, "delivered"),
		deadLettered: m.processed.WithLabelValues(method, "dead_lettered"),
		malformed:    m.processed.WithLabelValues(method, "malformed"),
		spooled:      m.processed.WithLabelValues(method, "spooled"),
	}
}

func (m *metrics) of(method string) methodCounters {
	switch method {
	case methodFile:
		return m.file
	case methodStream:
		return m.stream
	}
	return m.resolve(method)
}

func (m *metrics) register(r prometheus.Registerer, d *Dispatcher) {
	r.MustRegister(m.processed, m.failed, m.ackErrors, m.holds, m.lostLines, newCollector(d))
}

// collector gives what is counted by lane: the latency, and the lanes' state.
type collector struct {
	d                                                     *Dispatcher
	latency, pending, oldest, parked, held, failing, slow *prometheus.Desc
}

func newCollector(d *Dispatcher) *collector {
	lane := []string{"lane"}
	return &collector{
		d: d,
		latency: prometheus.NewDesc("log_capturer_file_monitor_latency_seconds",
			"From a line's being written by its container to its being accepted by the store, for logs read from files.", nil, nil),
		pending: prometheus.NewDesc("log_capturer_dispatch_pending_bytes",
			"Approximate bytes that wait in a lane or are being sent.", lane, nil),
		oldest: prometheus.NewDesc("log_capturer_dispatch_oldest_pending_seconds",
			"How long the oldest lines of a lane have been in it.", lane, nil),
		parked: prometheus.NewDesc("log_capturer_dispatch_parked_bytes",
			"Approximate bytes of streams that the store refuses for now.", lane, nil),
		held: prometheus.NewDesc("log_capturer_dispatch_held_streams",
			"Streams that the store refuses for now.", lane, nil),
		failing: prometheus.NewDesc("log_capturer_dispatch_failing",
			"1 while the store fails for a lane.", lane, nil),
		slow: prometheus.NewDesc("log_capturer_dispatch_slow",
			"1 while lines of a lane go by way of the spool because the store takes long to answer.", lane, nil),
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.latency, c.pending, c.oldest, c.parked, c.held, c.failing, c.slow} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ch <- c.collectLatency()
	for i, h := range c.d.Health() {
		lane := strconv.Itoa(i)
		gauge := func(desc *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, lane)
		}
		flag := func(desc *prometheus.Desc, on bool) {
			v := 0.0
			if on {
				v = 1
			}
			gauge(desc, v)
		}
		gauge(c.pending, float64(h.PendingBytes))
		gauge(c.oldest, h.OldestPending.Seconds())
		gauge(c.parked, float64(h.ParkedBytes))
		gauge(c.held, float64(h.HeldStreams))
		flag(c.failing, !h.FailingSince.IsZero())
		flag(c.slow, h.Slow)
	}
}

// latencyBounds are the upper bounds of the buckets, in nanoseconds.
var latencyBounds = [...]int64{
	5e6, 10e6, 25e6, 50e6, 75e6, 100e6, 150e6, 250e6, 500e6,
	1e9, 2.5e9, 5e9, 10e9, 30e9, 60e9, 300e9,
}

// latency is a lane's histogram: written by its sender only, read by anyone.
type latency struct {
	counts [len(latencyBounds) + 1]atomic.Uint64 // not cumulative
	sum    atomic.Uint64                         // bits of a float64, in seconds
}

func bucketOf(ns int64) int {
	for i, bound := range latencyBounds {
		if ns <= bound {
			return i
		}
	}
	return len(latencyBounds)
}

func (h *latency) add(bucket int, n uint64, seconds float64) {
	h.counts[bucket].Add(n)
	h.sum.Store(math.Float64bits(math.Float64frombits(h.sum.Load()) + seconds))
}

// observe counts the n lines of a section that have just been accepted: those of
// the classes in took, without refused ones. Times hardly ever fall within a
// section (docker-facts: by 2 ms across the two streams), so that when the
// first and the last line are in one bucket all are, and the mean of the two is
// good enough for the sum. A time ahead of now (the clock was set back) counts
// as no latency.
func (h *latency) observe(b *entry.Batch, s *entry.Section, took [entry.NumClasses]bool, n int, now int64) {
	lines := b.SectionLines(s)
	oldest, newest := max(0, now-lines[0].Time), max(0, now-lines[len(lines)-1].Time)
	if k := bucketOf(oldest); k == bucketOf(newest) {
		h.add(k, uint64(n), float64(n)*(float64(oldest)+float64(newest))/2/1e9)
		return
	}
	var counts [len(latencyBounds) + 1]uint64
	sum := 0.0
	k := bucketOf(oldest) // of the line before, mostly also of the next
	for i := range lines {
		l := &lines[i]
		if !took[l.Class] || l.Flags&entry.FlagRefused != 0 {
			continue
		}
		ns := max(0, now-l.Time)
		if k == len(latencyBounds) || ns > latencyBounds[k] || k > 0 && ns <= latencyBounds[k-1] {
			k = bucketOf(ns)
		}
		counts[k]++
		sum += float64(ns)
	}
	for k, c := range counts {
		if c > 0 {
			h.add(k, c, 0)
		}
	}
	h.add(0, 0, sum/1e9)
}

func (c *collector) collectLatency() prometheus.Metric {
	buckets := make(map[float64]uint64, len(latencyBounds))
	count, sum := uint64(0), 0.0
	lanes := c.d.lanes
	if c.d.spooling != nil {
		lanes = slices.Concat(lanes, c.d.spooling.back.lanes)
	}
	for k := range len(latencyBounds) + 1 {
		for _, l := range lanes {
			count += l.latency.counts[k].Load()
		}
		if k < len(latencyBounds) {
			buckets[float64(latencyBounds[k])/1e9] = count
		}
	}
	for _, l := range lanes {
		sum += math.Float64frombits(l.latency.sum.Load())
	}
	return prometheus.MustNewConstHistogram(c.latency, count, sum, buckets)
}
