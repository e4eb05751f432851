package monitoring

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/log-capturer/log_capturer/tests/harness"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// rule is a rule of Prometheus: an alert, or a recording rule.
type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

// target is a query of a panel.
type target struct {
	RefID        string `json:"refId"`
	Datasource   datasource
	Expr         string
	LegendFormat string
	Instant      bool
	Range        bool
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []target
	FieldConfig              struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
		}
	}
}

type variable struct {
	Name, Type string
	Datasource datasource
	Definition string
	AllValue   string `json:"allValue"`
}

type dashboard struct {
	UID, Title, Description string
	SchemaVersion           int
	Tags                    []string
	Templating              struct{ List []variable }
	Panels                  []panel
}

// readRules gives the rules of alerts.yml, in their order.
func readRules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal([]byte(harness.ReadFile(t, "deploy/prometheus/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("alerts.yml has no rules")
	}
	return all
}

// readDashboards gives the dashboards by the names of their files.
func readDashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(harness.Root(t), "deploy", "grafana", "dashboards", "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	all := make(map[string]dashboard)
	for _, name := range names {
		var d dashboard
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[filepath.Base(name)] = d
	}
	return all
}

// readRunbooks gives the runbooks' texts by the names of their alerts.
func readRunbooks(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(harness.Root(t), "docs", "runbooks", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".md")
		if base != "README" {
			all[base] = harness.ReadFile(t, filepath.Join("docs", "runbooks", base+".md"))
		}
	}
	return all
}

// blocks gives the lines of a document's code blocks of a language.
func blocks(text, language string) (lines []string) {
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

var (
	quoted     = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	metricName = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
)

// metricsIn gives the names of the metrics of this product and of the Go runtime in a
// query, sorted, as they are queried: of a histogram with its suffix.
func metricsIn(query string) []string {
	names := make(map[string]bool)
	for _, name := range metricName.FindAllString(quoted.ReplaceAllString(query, `""`), -1) {
		if strings.HasPrefix(name, "log_capturer_") || strings.HasPrefix(name, "go_") {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// contract gives the metrics that docs/contract.md promises.
func contract(t *testing.T) map[string]bool {
	t.Helper()
	promised, err := harness.ContractMetrics()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, m := range promised {
		all[m.Name] = true
	}
	return all
}

// promised reports whether the contract has a metric of a query, or the histogram that
// it is of. Of those of the Go runtime it says nothing.
func promised(contract map[string]bool, name string) bool {
	if strings.HasPrefix(name, "go_") || contract[name] {
		return true
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && contract[base] {
			return true
		}
	}
	return false
}

func TestMetricsIn(t *testing.T) {
	got := metricsIn(`histogram_quantile(0.9, rate(log_capturer_a_bucket{job=~"log_capturer_no"}[5m])) / go_x + instance:log_capturer_b:c + log_capturer_a_bucket`)
	if want := []string{"go_x", "log_capturer_a_bucket"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
