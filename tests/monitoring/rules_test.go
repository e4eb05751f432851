package monitoring

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/log-capturer/log_capturer/tests/harness"
)

const runbookBase = "https://github.com/log-capturer/log_capturer/blob/main/docs/runbooks/"

// TestAlerts: each alert says how bad it is, what happened where, what to do and where
// more of that stands.
func TestAlerts(t *testing.T) {
	promises := contract(t)
	recorded := make(map[string]bool)
	seen := make(map[string]string) // expressions, names, summaries: to what they belong
	once := func(r rule, what string) {
		if other := seen[what]; other != "" {
			t.Errorf("%s and %s have in common: %s", other, r.Alert, what)
		}
		seen[what] = r.Alert
	}
	for _, r := range readRules(t) {
		for _, name := range metricsIn(r.Expr) {
			if !promised(promises, name) {
				t.Errorf("%s%s: docs/contract.md has no metric %s", r.Alert, r.Record, name)
			}
		}
		if r.Record != "" {
			recorded[r.Record] = true
			continue
		}
		for _, name := range regexp.MustCompile(`\w+:\w+:\w+`).FindAllString(r.Expr, -1) {
			if !recorded[name] {
				t.Errorf("%s: %s is not recorded before", r.Alert, name)
			}
		}
		once(r, r.Alert)
		once(r, r.Expr)
		once(r, r.Annotations["summary"])
		if !strings.HasPrefix(r.Alert, "LogCapturer") {
			t.Errorf("%s: its name does not say what product it is about", r.Alert)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if got, want := r.Annotations["runbook_url"], runbookBase+r.Alert+".md"; got != want {
			t.Errorf("%s: runbook_url %q, not %q", r.Alert, got, want)
		}
		for _, a := range []string{"summary", "description"} {
			text := expand(t, r, r.Annotations[a])
			// absent() gives no instance.
			if r.Alert != "LogCapturerAbsent" && !strings.Contains(text, "web-1:8401") {
				t.Errorf("%s: its %s does not say where: %q", r.Alert, a, text)
			}
			if text == "" || strings.Contains(text, "<no value>") {
				t.Errorf("%s: its %s is %q", r.Alert, a, text)
			}
		}
	}
}

// expand does what Prometheus does with an annotation; a label that an alert cannot
// have is an error.
func expand(t *testing.T, r rule, text string) string {
	t.Helper()
	text = `{{ $labels := .Labels }}{{ $value := .Value }}` + text
	same := func(v float64) float64 { return v }
	tmpl, err := template.New(r.Alert).Option("missingkey=error").
		Funcs(template.FuncMap{"humanize1024": same, "humanizeDuration": same}).Parse(text)
	if err != nil {
		t.Errorf("%s: %v", r.Alert, err)
		return ""
	}
	var b strings.Builder
	err = tmpl.Execute(&b, map[string]any{
		"Labels": map[string]string{"job": "log_capturer", "instance": "web-1:8401", "reason": "x"},
		"Value":  3.0,
	})
	if err != nil {
		t.Errorf("%s: %v", r.Alert, err)
	}
	return b.String()
}

// ruleTests are the files with the cases of the alerts.
var ruleTests = []string{"alerts_test.yml", "alerts_leaks_test.yml"}

// ruleCase is a case of alerts: which fire at some times.
type ruleCase struct {
	PromQL []struct {
		Samples []struct{ Labels string } `yaml:"exp_samples"`
	} `yaml:"promql_expr_test"`
}

// TestAlertsAreTested: each alert has a case in which it fires, with a time at which it
// does not.
func TestAlertsAreTested(t *testing.T) {
	var cases []ruleCase
	for _, name := range ruleTests {
		var file struct{ Tests []ruleCase }
		if err := yaml.Unmarshal([]byte(harness.ReadFile(t, filepath.Join("deploy", "prometheus", name))), &file); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, file.Tests...)
	}
	fires, keepsQuiet := make(map[string]bool), make(map[string]bool)
	for _, c := range cases {
		times := make(map[string]int)
		for _, at := range c.PromQL {
			for _, s := range at.Samples {
				times[regexp.MustCompile(`alertname="(\w+)"`).FindStringSubmatch(s.Labels)[1]]++
			}
		}
		for alert, n := range times {
			fires[alert] = true
			if n < len(c.PromQL) {
				keepsQuiet[alert] = true
			}
		}
	}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		if !fires[r.Alert] {
			t.Errorf("no case lets %s fire", r.Alert)
		}
		if !keepsQuiet[r.Alert] {
			t.Errorf("no case has a time at which %s does not fire", r.Alert)
		}
	}
}

// TestPromtool runs the cases of the alerts, and checks the rules and the example of a
// configuration.
func TestPromtool(t *testing.T) {
	t.Parallel()
	needPrometheus(t)
	for _, args := range [][]string{
		{"check", "rules", "alerts.yml"},
		{"check", "config", "prometheus.yml"},
		append([]string{"test", "rules"}, ruleTests...),
	} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = filepath.Join(harness.Root(t), "deploy", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// needPrometheus skips the test unless there are Prometheus and promtool.
func needPrometheus(t *testing.T) {
	t.Helper()
	for _, name := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed (Debian: apt-get install --no-install-recommends prometheus): %v", name, err)
		}
	}
}

// sections of each runbook, in their order.
var sections = []string{"Meaning", "Look", "Causes and remedies", "Escalate"}

// TestRunbooks: each alert has a runbook and each runbook an alert; it has all
// sections; its queries name metrics that there are, its commands are those that
// exist. TestPrometheus runs them.
func TestRunbooks(t *testing.T) {
	promises := contract(t)
	runbooks := readRunbooks(t)
	index := harness.ReadFile(t, "docs/runbooks/README.md")
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		text, ok := runbooks[r.Alert]
		delete(runbooks, r.Alert)
		if !ok {
			t.Errorf("%s has no runbook", r.Alert)
			continue
		}
		if !strings.HasPrefix(text, "# "+r.Alert+"\n") {
			t.Errorf("%s: the runbook's first line is not its name", r.Alert)
		}
		if !strings.Contains(index, "["+r.Alert+"]("+r.Alert+".md) | "+r.Labels["severity"]+" |") {
			t.Errorf("docs/runbooks/README.md does not name %s with its severity", r.Alert)
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^## (.*)\n+(.+)`).FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(m[2], "#") {
				got = append(got, m[1])
			}
		}
		if !slices.Equal(got, sections) {
			t.Errorf("%s: the runbook has the sections %q, not %q, each with a text", r.Alert, got, sections)
		}
		if len(blocks(text, "sh"))+len(blocks(text, "promql")) == 0 {
			t.Errorf("%s: the runbook has nothing to look with", r.Alert)
		}
		for _, line := range blocks(text, "sh") {
			if !known(line) {
				t.Errorf("%s: no such command: %s", r.Alert, line)
			}
		}
		for _, name := range metricsIn(text) {
			if strings.HasPrefix(name, "log_capturer_") && !promised(promises, name) {
				t.Errorf("%s: docs/contract.md has no metric %s", r.Alert, name)
			}
		}
	}
	for name := range runbooks {
		t.Errorf("no alert has the runbook %s", name)
	}
}

// ofTheHost are commands of runbooks that are not run by a test: they are about the
// host and its services.
var ofTheHost = []string{"df", "journalctl", "ls", "systemctl", "sysctl", "uptime"}

// known reports whether a command of a runbook is run by TestPrometheus, or is one of
// the host's.
func known(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	return word == "curl" || word == "log_capturer" || word == "docker" || slices.Contains(ofTheHost, word)
}
