package monitoring

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// units are the units of Grafana in use.
var units = []string{"none", "short", "bytes", "Bps", "cps", "reqps", "s", "percentunit"}

// TestDashboards: what Grafana would otherwise tell whoever opens them.
func TestDashboards(t *testing.T) {
	promises := contract(t)
	runbooks := readRunbooks(t)
	all := readDashboards(t)
	titles := make(map[string]string)
	uids := make(map[string]bool)
	for file, d := range all {
		titles[d.Title] = file
		if !regexp.MustCompile(`^[a-z-]{1,40}$`).MatchString(d.UID) || uids[d.UID] {
			t.Errorf("%s: uid %q is none, or is that of another one", file, d.UID)
		}
		uids[d.UID] = true
		if d.SchemaVersion != 41 || d.Description == "" || !slices.Contains(d.Tags, "log_capturer") {
			t.Errorf("%s: schema %d, tags %q, description %q", file, d.SchemaVersion, d.Tags, d.Description)
		}
		checkVariables(t, file, d)
		checkGrid(t, file, d)
		for i, p := range d.Panels {
			at := file + ": " + p.Title
			if p.Type == "row" {
				if i == 0 && p.Title != "Is all well?" {
					t.Errorf("%s: the first row is %q", file, p.Title)
				}
				continue
			}
			if p.Title == "" || len(p.Targets) == 0 || p.Datasource != fromVariable {
				t.Errorf("%s: no title, no query, or not the data source of the variable", at)
			}
			if p.Description == "" || !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s: no sentence says what it is and what to do", at)
			}
			for _, m := range regexp.MustCompile(`LogCapturer\w+`).FindAllString(p.Description, -1) {
				if runbooks[m] == "" {
					t.Errorf("%s: there is no runbook %s", at, m)
				}
			}
			if u := p.FieldConfig.Defaults.Unit; p.Type != "heatmap" && !slices.Contains(units, u) {
				t.Errorf("%s: unit %q", at, u)
			}
			checkThresholds(t, at, p)
			refs := make(map[string]bool)
			for _, q := range p.Targets {
				if q.Expr == "" || q.Datasource != fromVariable || refs[q.RefID] || q.Instant == q.Range {
					t.Errorf("%s: query %s is empty, double, both or neither of instant and range, or not of the variable's data source", at, q.RefID)
				}
				refs[q.RefID] = true
				if len(p.Targets) > 1 && q.LegendFormat == "" {
					t.Errorf("%s: query %s has no legend", at, q.RefID)
				}
				checkSelectors(t, at, q.Expr)
				for _, name := range metricsIn(q.Expr) {
					if !promised(promises, name) {
						t.Errorf("%s: docs/contract.md has no metric %s", at, name)
					}
				}
			}
		}
	}
	for _, title := range []string{"Hybrid Monitor Health", "File Monitor Performance", "Routing Decision"} {
		if titles[title] == "" {
			t.Errorf("no dashboard %q", title)
		}
	}
}

var fromVariable = datasource{Type: "prometheus", UID: "${datasource}"}

func checkVariables(t *testing.T, file string, d dashboard) {
	t.Helper()
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name+":"+v.Type)
		if v.Type == "query" && (v.Datasource != fromVariable || v.AllValue != ".+") {
			t.Errorf("%s: variable %s: data source %+v, all are %q", file, v.Name, v.Datasource, v.AllValue)
		}
	}
	if want := []string{"datasource:datasource", "job:query", "instance:query"}; !slices.Equal(names, want) {
		t.Errorf("%s: variables %q, not %q", file, names, want)
	}
}

// checkGrid: panels have numbers of their own, lie within the 24 columns and do not
// overlap.
func checkGrid(t *testing.T, file string, d dashboard) {
	t.Helper()
	ids := make(map[int]string)
	type cell struct{ x, y int }
	taken := make(map[cell]string)
	for _, p := range d.Panels {
		if other, ok := ids[p.ID]; ok || p.ID == 0 {
			t.Errorf("%s: %q and %q have the id %d", file, p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
			t.Errorf("%s: %q lies at %+v", file, p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[cell{x, y}]; other != "" {
					t.Fatalf("%s: %q lies on %q", file, p.Title, other)
				}
				taken[cell{x, y}] = p.Title
			}
		}
	}
}

// checkThresholds: they begin without a value, and rise.
func checkThresholds(t *testing.T, at string, p panel) {
	t.Helper()
	steps := p.FieldConfig.Defaults.Thresholds.Steps
	if p.Type == "stat" && len(steps) == 0 {
		t.Errorf("%s: no thresholds", at)
	}
	for i, s := range steps {
		if (i == 0) != (s.Value == nil) || i > 1 && *s.Value <= *steps[i-1].Value {
			t.Errorf("%s: threshold %d (%s) is out of order", at, i, s.Color)
		}
	}
}

var selector = regexp.MustCompile(`\{[^}]*\}`)

// checkSelectors: each selector of a query goes by the variables.
func checkSelectors(t *testing.T, at, expr string) {
	t.Helper()
	const vars = `{job=~"$job", instance=~"$instance"`
	found := selector.FindAllString(expr, -1)
	for _, s := range found {
		if !strings.HasPrefix(s, vars) {
			t.Errorf("%s: selector %s", at, s)
		}
	}
	if n := len(metricName.FindAllString(expr, -1)); n == 0 || len(found) == 0 {
		t.Errorf("%s: %s selects nothing", at, expr)
	}
	// A metric without braces is of all jobs.
	for _, name := range metricsIn(expr) {
		if strings.Count(expr, name+"{") != len(regexp.MustCompile(`\b`+name+`\b`).FindAllString(expr, -1)) {
			t.Errorf("%s: %s has no selector", at, name)
		}
	}
}
