package harness

import (
	"reflect"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func TestContractMetrics(t *testing.T) {
	const text = "`log_capturer_before{reason}`\n\n## Metrics\n\n" +
		"| name | meaning |\n|---|---|\n" +
		"| `log_capturer_a_bytes`, `log_capturer_b_total` | bytes, see `max_bytes` |\n" +
		"| `log_capturer_c_total{method,result}` | `result` is `done`, or `too_long2`, which `log_capturer_b_total` has not |\n" +
		"| `log_capturer_d{lane}`, `log_capturer_e_total` | how much |\n" +
		"\n`lane` is `0` or `1`; `method` is `only`.\n" +
		"\n## More\n\n| `log_capturer_behind` | x |\n"
	want := []ContractMetric{
		{Name: "log_capturer_a_bytes"},
		{Name: "log_capturer_b_total"},
		{Name: "log_capturer_c_total", Values: []string{"done", "only", "too_long2"}},
		{Name: "log_capturer_d"},
		{Name: "log_capturer_e_total"},
	}
	if got := contractMetrics(text); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestMovements(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "counter"}, []string{"reason", "sink"})
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gauge"}, []string{"lane"})
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "histogram"})
	reg.MustRegister(counter, gauge, histogram)
	var m movements
	see := func() []string {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string]*dto.MetricFamily)
		for _, f := range families {
			all[f.GetName()] = f
		}
		m.see(all)
		var moved []string
		for _, s := range []series{
			{"counter", ""}, {"counter", "network"}, {"counter", "server"}, {"counter", "loki"},
			{"gauge", ""}, {"gauge", "0"}, {"gauge", "1"}, {"histogram", ""},
		} {
			if m.has(s) {
				moved = append(moved, s.name+"{"+s.value+"}")
			}
		}
		return moved
	}
	wants := func(want ...string) {
		t.Helper()
		if got := see(); !slices.Equal(got, want) {
			t.Errorf("moved are %q, want %q", got, want)
		}
	}
	counter.WithLabelValues("network", "loki")
	counter.WithLabelValues("server", "loki")
	gauge.WithLabelValues("0").Set(5) // the two differ, but none moves
	gauge.WithLabelValues("1").Set(6)
	wants()
	counter.WithLabelValues("server", "loki").Inc()
	gauge.WithLabelValues("1").Set(0)
	wants("counter{}", "counter{server}", "counter{loki}", "gauge{}", "gauge{1}")
	counter.Reset() // as another agent has it
	gauge.WithLabelValues("1").Set(6)
	histogram.Observe(1)
	wants("counter{}", "counter{server}", "counter{loki}", "gauge{}", "gauge{1}", "histogram{}")
}
