package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"
)

// ContractMetric is a metric that docs/contract.md promises.
type ContractMetric struct {
	Name string
	// Values are those of its labels that the contract names, sorted; without
	// numbers, as lanes have: it is chance which one a container comes to.
	Values []string
}

var (
	contractRow   = regexp.MustCompile("(?m)^\\| (`log_capturer_[^|]*) \\| (.*) \\|$")
	contractName  = regexp.MustCompile("`(log_capturer_\\w+)(?:\\{([\\w,]+)\\})?`")
	contractValue = regexp.MustCompile("`([a-z]\\w*)`")
	contractLabel = regexp.MustCompile("`([a-z]+)` is `([a-z]\\w*)`(?: or `([a-z]\\w*)`)?")
)

// ContractMetrics reads docs/contract.md: the rows of its tables of metrics, sorted by
// name. Values of labels are what stands in backquotes in the row of a metric that
// has labels, and where a sentence outside of the tables says what a label is.
func ContractMetrics() ([]ContractMetric, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(root, "docs", "contract.md"))
	if err != nil {
		return nil, err
	}
	all := contractMetrics(string(b))
	if len(all) == 0 {
		return nil, errors.New("docs/contract.md has no metrics")
	}
	return all, nil
}

func contractMetrics(text string) (all []ContractMetric) {
	_, text, _ = strings.Cut(text, "\n## Metrics\n")
	text, _, _ = strings.Cut(text, "\n## ")
	rows := contractRow.FindAllStringSubmatch(text, -1)
	ofLabel := make(map[string][]string)
	for _, m := range contractLabel.FindAllStringSubmatch(contractRow.ReplaceAllString(text, ""), -1) {
		for _, v := range m[2:] {
			if v != "" {
				ofLabel[m[1]] = append(ofLabel[m[1]], v)
			}
		}
	}
	for _, row := range rows {
		for _, name := range contractName.FindAllStringSubmatch(row[1], -1) {
			c := ContractMetric{Name: name[1]}
			if name[2] != "" {
				labels := strings.Split(name[2], ",")
				for _, v := range contractValue.FindAllStringSubmatch(row[2], -1) {
					if !slices.Contains(labels, v[1]) && !strings.HasPrefix(v[1], "log_capturer_") {
						c.Values = append(c.Values, v[1])
					}
				}
				for _, l := range labels {
					c.Values = append(c.Values, ofLabel[l]...)
				}
			}
			slices.Sort(c.Values)
			c.Values = slices.Compact(c.Values)
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b ContractMetric) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// series are those of a metric of which a label has a value; with no value, all of it.
type series struct{ name, value string }

// movements remembers which metrics have moved. Safe for concurrent use.
type movements struct {
	mu    sync.Mutex
	first map[string]float64 // of each gauge, by name and labels
	moved map[series]bool
}

// moved is of all agents that this process has run.
var moved movements

// Moved reports whether a metric was seen to move at any agent that this process has
// run: a counter above 0, a histogram that is not empty, a gauge with two values. With
// a value, only those series count of which a label has it. What is seen are the
// answers to Metrics and Scrape, and one at each Stop and at the end of a test.
func Moved(name, value string) bool { return moved.has(series{name, value}) }

func (m *movements) has(s series) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moved[s]
}

// see takes one answer of /metrics.
func (m *movements) see(families map[string]*dto.MetricFamily) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moved == nil {
		m.first, m.moved = make(map[string]float64), make(map[series]bool)
	}
	for name, f := range families {
		for _, sample := range f.GetMetric() {
			if !m.moves(name, sample) {
				continue
			}
			m.moved[series{name, ""}] = true
			for _, l := range sample.GetLabel() {
				m.moved[series{name, l.GetValue()}] = true
			}
		}
	}
}

// moves is called with m.mu.
func (m *movements) moves(name string, sample *dto.Metric) bool {
	switch {
	case sample.Counter != nil:
		return sample.Counter.GetValue() > 0
	case sample.Histogram != nil:
		return sample.Histogram.GetSampleCount() > 0
	case sample.Gauge != nil:
		key := name + labelsOf(sample)
		first, seen := m.first[key]
		if !seen {
			m.first[key] = sample.Gauge.GetValue()
		}
		return seen && first != sample.Gauge.GetValue()
	}
	return false
}

// labelsOf gives a sample's labels as {name="value",...}; nothing if it has none.
func labelsOf(sample *dto.Metric) string {
	var labels []string
	for _, l := range sample.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if len(labels) == 0 {
		return ""
	}
	return "{" + strings.Join(labels, ",") + "}"
}
