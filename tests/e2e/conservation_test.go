package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// total adds up the series of a metric.
func total(m map[string]float64, name string) (sum float64) {
	for k, v := range m {
		if k == name || strings.HasPrefix(k, name+"{") {
			sum += v
		}
	}
	return sum
}

// unbalanced says what does not add up in the figures of an agent that has nothing
// under way: m is its metrics, containers what its API shows, and found how many
// lines were in its spool when it started. What has been read, and what was found,
// is delivered, dead-lettered, in the spool, or counted as lost: in all, and by
// container as far as the API tells. Nothing may be under way: that is also said.
func unbalanced(found float64, m map[string]float64, containers []captured) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	total := func(name string) float64 { return total(m, name) }
	result := func(method, result string) float64 {
		return m[fmt.Sprintf("log_capturer_logs_processed_total{method=%q,result=%q}", method, result)]
	}
	for _, name := range []string{"log_capturer_files_unread_bytes", "log_capturer_dispatch_pending_bytes", "log_capturer_dispatch_parked_bytes"} {
		if n := total(name); n != 0 {
			complain("%s is %v", name, n)
		}
	}
	read := total("log_capturer_lines_read_total")
	spooled := m["log_capturer_spool_records"]
	lost := total("log_capturer_lost_lines_total") + m["log_capturer_spool_lost_records_total"]
	done, methods := 0.0, []string{byFile, byStream}
	for _, method := range methods {
		done += result(method, "delivered") + result(method, "dead_lettered")
	}
	if read+found != done+spooled+lost {
		complain("read %v + found in the spool %v, but delivered or dead-lettered %v + in the spool %v + lost %v", read, found, done, spooled, lost)
	}
	if timed := m["log_capturer_file_monitor_latency_seconds_count"]; timed != result(byFile, "delivered") {
		complain("latency is known of %v lines from files, %v are delivered", timed, result(byFile, "delivered"))
	}
	// What was found, or is left, in the spool has no method and no container here.
	elsewhere := found + spooled + lost
	if elsewhere == 0 {
		for _, method := range methods {
			if n := m[fmt.Sprintf("log_capturer_lines_read_total{method=%q}", method)]; n != result(method, "delivered")+result(method, "dead_lettered") {
				complain("%s: read %v, but delivered %v and dead-lettered %v", method, n, result(method, "delivered"), result(method, "dead_lettered"))
			}
		}
	}
	var sum captured
	for _, c := range containers {
		sum.LinesRead += c.LinesRead
		sum.BytesLost += c.BytesLost
		sum.Gaps += c.Gaps
		sum.LinesDelivered += c.LinesDelivered
		sum.LinesDeadLettered += c.LinesDeadLettered
		if n := c.LinesDelivered + c.LinesDeadLettered; elsewhere == 0 && c.LinesRead != n || float64(max(n-c.LinesRead, c.LinesRead-n)) > elsewhere {
			complain("container %s: read %d, but delivered %d and dead-lettered %d", c.Name, c.LinesRead, c.LinesDelivered, c.LinesDeadLettered)
		}
	}
	// Containers that are no more are in the metrics alone.
	all := m[`log_capturer_docker_events_total{action="destroy"}`]+m["log_capturer_docker_reconnects_total"] == 0
	for _, s := range []struct {
		what             string
		shown, inMetrics float64
		exact            bool
	}{
		{"lines read", float64(sum.LinesRead), read, all},
		{"bytes lost", float64(sum.BytesLost), total("log_capturer_lost_bytes_total"), all},
		{"gaps", float64(sum.Gaps), m["log_capturer_file_gaps_total"], all},
		{"lines done", float64(sum.LinesDelivered + sum.LinesDeadLettered), done, all && found == 0},
	} {
		if s.shown > s.inMetrics || s.exact && s.shown != s.inMetrics {
			complain("%s: %v by the metrics, %v by containers", s.what, s.inMetrics, s.shown)
		}
	}
	return wrong
}

// balanced waits until the agent has nothing under way, and adds up.
func (w *world) balanced(a *harness.Agent) {
	w.t.Helper()
	found := spooledAtStart(w.t, a.Log())
	var wrong []string
	if !harness.Within(20*time.Second, func() bool {
		// The containers first and last: the two are not of one moment.
		before := listed(w.t, a)
		m := a.Metrics()
		containers := listed(w.t, a)
		wrong = unbalanced(found, m, containers)
		return len(wrong) == 0 && slices.EqualFunc(before, containers, func(x, y captured) bool { return x.LinesRead == y.LinesRead })
	}) {
		w.t.Errorf("the agent's figures do not add up:\n%s", strings.Join(wrong, "\n"))
	}
}

// TestUnbalanced: whatever is not counted, or counted twice, is found.
func TestUnbalanced(t *testing.T) {
	t.Parallel()
	metrics := func() map[string]float64 {
		return map[string]float64{
			metricRead: 10, metricDelivered: 8, metricDead: 2, metricLatency: 8,
			metricStreamRead: 5, metricStreamDelivered: 4, metricStreamDead: 1,
			`log_capturer_lost_bytes_total{reason="streamed"}`:  100,
			`log_capturer_lost_bytes_total{reason="truncated"}`: 20,
			`log_capturer_file_gaps_total`:                      3,
			`log_capturer_lost_lines_total{reason="x"}`:         0,
			`log_capturer_spool_lost_records_total`:             0,
			`log_capturer_spool_records`:                        0,
			`log_capturer_files_unread_bytes`:                   0,
			`log_capturer_dispatch_pending_bytes{lane="1"}`:     0,
			`log_capturer_dispatch_parked_bytes{lane="0"}`:      0,
		}
	}
	containers := func() []captured {
		return []captured{
			{Name: "file", LinesRead: 10, LinesDelivered: 8, LinesDeadLettered: 2, BytesLost: 120, Gaps: 3},
			{Name: "stream", LinesRead: 5, LinesDelivered: 4, LinesDeadLettered: 1},
		}
	}
	if wrong := unbalanced(0, metrics(), containers()); wrong != nil {
		t.Fatalf("what adds up does not: %q", wrong)
	}
	for _, name := range slices.Sorted(maps.Keys(metrics())) {
		for _, by := range []float64{-1, 1} {
			m := metrics()
			m[name] += by
			if unbalanced(0, m, containers()) == nil {
				t.Errorf("%s is wrong by %v, and nobody finds it", name, by)
			}
		}
		if m := metrics(); m[name] > 0 {
			delete(m, name)
			if unbalanced(0, m, containers()) == nil {
				t.Errorf("%s is not there, and nobody finds it", name)
			}
		}
	}
	for what, change := range map[string]func(c *captured){
		"read": func(c *captured) { c.LinesRead-- }, "delivered": func(c *captured) { c.LinesDelivered-- },
		"dead-lettered": func(c *captured) { c.LinesDeadLettered++ }, "bytes": func(c *captured) { c.BytesLost = 0 },
		"gaps": func(c *captured) { c.Gaps = 0 },
	} {
		c := containers()
		change(&c[0])
		if unbalanced(0, metrics(), c) == nil {
			t.Errorf("%s of a container is wrong, and nobody finds it", what)
		}
	}

	// Lines that were found in the spool, are there, or were lost in it.
	for _, c := range []struct {
		name                   string
		found, spooled, broken float64
		delivered              float64 // more than were read
		ok                     bool
	}{
		{"found and delivered", 7, 0, 0, 7, true},
		{"found and not delivered", 7, 0, 0, 6, false},
		{"found and still there", 7, 7, 0, 0, true},
		{"read and put there", 0, 3, 0, -3, true},
		{"read and put nowhere", 0, 2, 0, -3, false},
		{"found and lost", 7, 0, 7, 0, true},
		{"found and lost unsaid", 7, 0, 0, 0, false},
	} {
		m, list := metrics(), containers()
		m["log_capturer_spool_records"] = c.spooled
		m["log_capturer_spool_lost_records_total"] = c.broken
		m[metricDelivered] += c.delivered
		m[metricLatency] += c.delivered
		list[0].LinesDelivered += int64(c.delivered)
		if wrong := unbalanced(c.found, m, list); (wrong == nil) != c.ok {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}

	// Of containers that are no more the metrics alone tell; never less.
	m := metrics()
	m[`log_capturer_docker_events_total{action="destroy"}`] = 1
	if wrong := unbalanced(0, m, containers()[1:]); wrong != nil {
		t.Errorf("with a container removed: %q", wrong)
	}
	m[metricRead], m[metricDelivered], m[metricLatency], m[metricDead] = 0, 0, 0, 0
	if unbalanced(0, m, containers()) == nil {
		t.Error("containers show more than the metrics, and nobody finds it")
	}
}
