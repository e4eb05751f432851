package monitors

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// LineMetrics are the counters of what the lines of both roads come to. None has
// a label that grows with the number of containers.
type LineMetrics struct {
	read                                          *prometheus.CounterVec
	parseErrors, nuls, cutLines, skipped, ignored prometheus.Counter
	malformedNs                                   atomic.Int64
}

// NewLineMetrics registers the counters.
func NewLineMetrics(reg prometheus.Registerer) *LineMetrics {
	counter := counters(reg)
	m := &LineMetrics{
		read: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_capturer_lines_read_total",
			Help: "Lines read and handed on. Read + in the spool at the start = delivered + dead-lettered + on their way + in the spool + lost there.",
		}, []string{"method"}),
		parseErrors: counter("parse_errors_total", "Lines in log files that are no entries of Docker's json-file driver."),
		nuls:        counter("nul_bytes_total", "NUL bytes left out: holes from truncation or power loss."),
		cutLines:    counter("lines_cut_total", "Lines longer than max_line_bytes, shipped in pieces."),
		skipped:     counter("lines_already_delivered_total", "Entries passed over because they had been delivered: after a restart, a change of road, and where a stream is opened anew."),
		ignored:     counter("lines_ignored_total", "Entries passed over because they were older than ignore_older_than at the first start."),
	}
	reg.MustRegister(m.read)
	for _, method := range []string{MethodFileMonitor, MethodStreaming} {
		m.read.WithLabelValues(method)
	}
	return m
}

// counters gives what registers a counter.
func counters(reg prometheus.Registerer) func(name, help string) prometheus.Counter {
	return func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "log_capturer_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
}

// add adds what visits of one road have counted and sets it to zero.
func (m *LineMetrics) add(method string, c *visitCounts) {
	m.read.WithLabelValues(method).Add(float64(c.lines))
	if c.parseErrors|c.nuls|c.cutLines|c.skipped|c.ignored != 0 {
		if c.parseErrors > 0 {
			m.malformedNs.Store(time.Now().UnixNano())
		}
		m.parseErrors.Add(float64(c.parseErrors))
		m.nuls.Add(float64(c.nuls))
		m.cutLines.Add(float64(c.cutLines))
		m.skipped.Add(float64(c.skipped))
		m.ignored.Add(float64(c.ignored))
	}
	*c = visitCounts{}
}

// malformedAt is when a line that is no entry was last read; zero if never.
func (m *LineMetrics) malformedAt() time.Time {
	ns := m.malformedNs.Load()
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// FileMetrics are the counters of the file road.
type FileMetrics struct {
	events, rotations, missed, gaps    prometheus.Counter
	truncations, resumesByTime         prometheus.Counter
	readErrors, watchErrors, readBytes prometheus.Counter
	lostBytes                          *prometheus.CounterVec
	reg                                prometheus.Registerer
}

// NewFileMetrics registers the counters.
func NewFileMetrics(reg prometheus.Registerer) *FileMetrics {
	counter := counters(reg)
	lostBytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "log_capturer_lost_bytes_total",
		Help: "Bytes of log files that were open and could not be read to their ends, by reason.",
	}, []string{"reason"})
	reg.MustRegister(lostBytes)
	for _, reason := range lossReasons {
		lostBytes.WithLabelValues(string(reason))
	}
	return &FileMetrics{
		reg:           reg,
		lostBytes:     lostBytes,
		events:        counter("file_events_total", "Notifications of inotify that were handled."),
		rotations:     counter("file_rotation_total", "Files that rotation made and that were taken hold of."),
		missed:        counter("file_events_missed_total", "Changes of a log that no notification had told, found by the poll."),
		gaps:          counter("file_gaps_total", "Log files that were unlinked unread."),
		truncations:   counter("file_truncations_total", "Log files that somebody else truncated."),
		readErrors:    counter("file_read_errors_total", "Failures to open, list or read log files."),
		watchErrors:   counter("file_watch_errors_total", "Directories that could not be watched."),
		readBytes:     counter("file_read_bytes_total", "Bytes of whole lines read from log files, of archives unpacked; also of lines passed over."),
		resumesByTime: counter("resumes_by_time_total", "Logs in which the saved offset did not fit, resumed by the times of their entries."),
	}
}

// StreamMetrics are the counters of the streams.
type StreamMetrics struct {
	open                prometheus.Gauge
	turns, errors, gaps prometheus.Counter
	reg                 prometheus.Registerer
}

// NewStreamMetrics registers the counters.
func NewStreamMetrics(reg prometheus.Registerer) *StreamMetrics {
	counter := counters(reg)
	m := &StreamMetrics{
		reg:    reg,
		open:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "log_capturer_streams_open", Help: "Logs open through the Docker API now; at most max_streams."}),
		turns:  counter("stream_turns_total", "Logs opened to be read up to their present end, because of max_streams or after an exit."),
		errors: counter("stream_errors_total", "Streams that could not be opened or broke off."),
		gaps:   counter("stream_gaps_total", "Containers that were removed before their stream had been read to its end."),
	}
	reg.MustRegister(m.open)
	return m
}

// observe registers the gauges that the monitor itself answers.
func (m *StreamMonitor) observe(reg prometheus.Registerer) {
	gauge := func(name, help string, f func(StreamHealth) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "log_capturer_" + name, Help: help},
			func() float64 { return f(m.Health()) }))
	}
	gauge("streaming_containers", "Running containers whose logs are read through the Docker API.", func(h StreamHealth) float64 { return float64(h.Running) })
	gauge("streams_failed", "Logs that cannot be streamed now.", func(h StreamHealth) float64 { return float64(h.Failed) })
	gauge("stream_lag_seconds", "For how long the streamed log has not been read of which that is longest.", func(h StreamHealth) float64 { return h.Lag.Seconds() })
}

// observe registers the gauges that the monitor itself answers.
func (m *FileMonitor) observe(reg prometheus.Registerer) {
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "log_capturer_" + name, Help: help}, f))
	}
	gauge("files_monitored", "Containers whose logs are read from their files.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(m.logs))
	})
	gauge("files_held", "Log files held open, those included that rotation has unlinked.", func() float64 {
		return float64(m.descriptors.Open())
	})
	gauge("files_failed", "Logs that cannot be read now.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(m.failed))
	})
	gauge("files_unread_bytes", "Bytes of logs that are not read yet.", func() float64 { return float64(m.Health().UnreadBytes) })
}
