package monitoring

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// prometheus is a Prometheus of the test's own.
type prometheus struct {
	t    *testing.T
	base string // of its API
}

// startPrometheus starts Prometheus with the example of a configuration, that scrapes
// targets instead, each second, and stops it when the test ends.
func startPrometheus(t *testing.T, targets ...string) *prometheus {
	t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal([]byte(harness.ReadFile(t, "deploy/prometheus/prometheus.yml")), &config); err != nil {
		t.Fatal(err)
	}
	config["global"] = map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}
	files, ok := config["rule_files"].([]any)
	if !ok || len(files) != 1 {
		t.Fatalf("rule_files: %v", config["rule_files"])
	}
	config["rule_files"] = []string{filepath.Join(harness.Root(t), "deploy", "prometheus", fmt.Sprint(files[0]))}
	jobs, ok := config["scrape_configs"].([]any)
	if !ok || len(jobs) != 1 {
		t.Fatalf("scrape_configs: %v", config["scrape_configs"])
	}
	job, ok := jobs[0].(map[string]any)
	if !ok {
		t.Fatalf("scrape_configs: %v", jobs)
	}
	job["static_configs"] = []any{map[string]any{"targets": targets}}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	// Another process could take the port in the meantime; Prometheus says so then.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "prometheus", "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second // then SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the test's context has ended by now
		_ = cmd.Wait()
		_ = output.Close()
		if log, err := os.ReadFile(output.Name()); t.Failed() {
			t.Logf("Prometheus' log (%v):\n%s", err, log)
		}
	})
	p := &prometheus{t: t, base: "http://" + addr}
	harness.Eventually(t, 15*time.Second, "Prometheus is ready", func() bool {
		resp, err := http.Get(p.base + "/-/ready")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	return p
}

// get asks the API and decodes the data of the answer into to.
func (p *prometheus) get(path string, args url.Values, to any) error {
	resp, err := http.Get(p.base + path + "?" + args.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, to)
}

// query evaluates a query now and gives how many series there are that have a number.
func (p *prometheus) query(expr string) (n int, err error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := p.get("/api/v1/query", url.Values{"query": {expr}}, &data); err != nil {
		return 0, err
	}
	for _, r := range data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return 0, err
		}
		if !math.IsNaN(v) {
			n++
		}
	}
	return n, nil
}

// values gives the values of a label, of the series that match; all if match is empty.
func (p *prometheus) values(label, match string) (all []string) {
	p.t.Helper()
	args := url.Values{}
	if match != "" {
		args.Set("match[]", match)
	}
	if err := p.get("/api/v1/label/"+label+"/values", args, &all); err != nil {
		p.t.Fatalf("values of %s of %s: %v", label, match, err)
	}
	return all
}

// alertsOf gives the alerts that are pending or firing for an instance, sorted.
func (p *prometheus) alertsOf(instance string) (names []string) {
	p.t.Helper()
	var data struct {
		Alerts []struct{ Labels map[string]string }
	}
	if err := p.get("/api/v1/alerts", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	for _, a := range data.Alerts {
		if a.Labels["instance"] == instance {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return names
}

// TestPrometheus lets a real Prometheus scrape two agents: one that is well, with
// containers on both roads, and one that does not reach Docker. All queries of the
// dashboards have data; the alerts and the queries of the runbooks can be evaluated;
// nothing is wrong with the first agent, and of the second it is said what is; the
// commands of the runbooks run.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	needPrometheus(t)
	harness.NeedDocker(t)
	d := harness.StartDockerd(t)
	loki := lokitest.New(lokitest.Default())
	t.Cleanup(loki.Close)
	d.Run(t, harness.ContainerSpec{Name: "web", Cmd: []string{"-lines", "0", "-rate", "50"}})
	d.Run(t, harness.ContainerSpec{Name: "db", Driver: "local", Cmd: []string{"-lines", "0", "-rate", "20"}})
	well := harness.StartAgent(t, d.Host, loki.URL, "")
	lost := harness.StartAgent(t, "unix:///nonexistent.sock", loki.URL, "")
	p := startPrometheus(t, well.Addr, lost.Addr)

	dashboards := readDashboards(t)
	t.Run("variables", func(t *testing.T) {
		for name, dash := range dashboards {
			for _, v := range dash.Templating.List {
				checkVariable(t, p, name, v, well.Addr, lost.Addr)
			}
		}
	})
	t.Run("panels", func(t *testing.T) {
		queries := make(map[string]string)
		for name, dash := range dashboards {
			for _, panel := range dash.Panels {
				for _, q := range panel.Targets {
					what := name + ": " + panel.Title + ": " + q.RefID
					queries[what] = asQueried(q.Expr, ".+")
					// All is well with that one: there is no alert to show.
					if panel.Title != "Alerts" {
						queries[what+", of one agent"] = asQueried(q.Expr, regexp.QuoteMeta(well.Addr))
					}
				}
			}
		}
		haveData(t, p, queries)
	})
	runbooks := readRunbooks(t)
	t.Run("runbooks", func(t *testing.T) {
		for name, text := range runbooks {
			for _, expr := range blocks(text, "promql") {
				if _, err := p.query(expr); err != nil {
					t.Errorf("%s: %s: %v", name, expr, err)
				}
			}
		}
	})
	t.Run("alerts", func(t *testing.T) {
		harness.Eventually(t, 10*time.Second, "an alert tells that Docker is not reached", func() bool {
			return slices.Equal(p.alertsOf(lost.Addr), []string{"LogCapturerDockerUnreachable"})
		})
		if wrong := p.alertsOf(well.Addr); len(wrong) > 0 {
			t.Errorf("nothing is wrong, and yet there are the alerts %q", wrong)
		}
		checkRules(t, p)
	})
	t.Run("metrics", func(t *testing.T) {
		served := p.values("__name__", "")
		for name := range queried(t, dashboards, runbooks) {
			if !slices.Contains(served, name) {
				t.Errorf("no agent serves %s", name)
			}
		}
	})
	t.Run("commands", func(t *testing.T) {
		var lines []string
		for _, text := range runbooks {
			lines = append(lines, blocks(text, "sh")...)
		}
		slices.Sort(lines)
		for _, line := range slices.Compact(lines) {
			runCommand(t, well, d, line)
		}
	})
}

// asQueried gives a panel's query as Grafana sends it.
func asQueried(expr, instance string) string {
	return strings.NewReplacer(
		"$__rate_interval", "5s", "$__range", "10s",
		"$job", "log_capturer", "$instance", strings.ReplaceAll(instance, `\`, `\\`),
	).Replace(expr)
}

// haveData waits until all queries, by what they are of, have given a number.
func haveData(t *testing.T, p *prometheus, queries map[string]string) {
	t.Helper()
	if !harness.Within(15*time.Second, func() bool {
		for what, expr := range queries {
			n, err := p.query(expr)
			if err != nil {
				t.Errorf("%s: %v: %s", what, err, expr)
			}
			if n > 0 || err != nil {
				delete(queries, what)
			}
		}
		return len(queries) == 0
	}) {
		for what, expr := range queries {
			t.Errorf("%s: no data: %s", what, expr)
		}
	}
}

// checkVariable: what Grafana offers as values of a variable.
func checkVariable(t *testing.T, p *prometheus, file string, v variable, instances ...string) {
	t.Helper()
	if v.Type != "query" {
		return
	}
	m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition)
	if len(m) != 3 || m[2] != v.Name {
		t.Errorf("%s: variable %s is %q", file, v.Name, v.Definition)
		return
	}
	want := []string{"log_capturer"}
	if v.Name == "instance" {
		want = slices.Sorted(slices.Values(instances))
	}
	match := strings.ReplaceAll(m[1], "$job", "log_capturer")
	harness.Eventually(t, 15*time.Second, "the values of "+v.Name, func() bool {
		return slices.Equal(p.values(m[2], match), want)
	})
}

// checkRules: Prometheus has evaluated every rule without an error.
func checkRules(t *testing.T, p *prometheus) {
	t.Helper()
	type evaluated struct{ Name, Health, LastError string }
	var data struct {
		Groups []struct{ Rules []evaluated }
	}
	all := func() (rules []evaluated) {
		data.Groups = nil
		if err := p.get("/api/v1/rules", nil, &data); err != nil {
			t.Fatal(err)
		}
		for _, g := range data.Groups {
			rules = append(rules, g.Rules...)
		}
		return rules
	}
	harness.Eventually(t, 10*time.Second, "all rules have been evaluated", func() bool {
		return !slices.ContainsFunc(all(), func(r evaluated) bool { return r.Health == "unknown" })
	})
	rules := all()
	for _, r := range rules {
		if r.Health != "ok" {
			t.Errorf("rule %s: %s: %s", r.Name, r.Health, r.LastError)
		}
	}
	if want := len(readRules(t)); len(rules) != want {
		t.Errorf("Prometheus has %d rules, not %d", len(rules), want)
	}
}

// queried gives the metrics that anything delivered here queries.
func queried(t *testing.T, dashboards map[string]dashboard, runbooks map[string]string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	add := func(expr string) {
		for _, name := range metricsIn(expr) {
			names[name] = true
		}
	}
	for _, d := range dashboards {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				add(q.Expr)
			}
		}
	}
	for _, r := range readRules(t) {
		add(r.Expr)
	}
	for _, text := range runbooks {
		for _, expr := range blocks(text, "promql") {
			add(expr)
		}
	}
	if len(names) < 50 {
		t.Errorf("only %d metrics are queried: %q", len(names), slices.Sorted(maps.Keys(names)))
	}
	return names
}

// runCommand runs a command of a runbook against an agent and its engine. NAME in it
// is a container.
func runCommand(t *testing.T, a *harness.Agent, d *harness.Dockerd, line string) {
	t.Helper()
	word, _, _ := strings.Cut(line, " ")
	if slices.Contains(ofTheHost, word) {
		return
	}
	if word == "docker" {
		if _, err := exec.LookPath(word); err != nil {
			t.Logf("not run, for there is no docker: %s", line)
			return
		}
	}
	if args, ok := strings.CutPrefix(line, "log_capturer "); ok {
		line = a.Bin + " " + args + " --config " + a.Config
	}
	line = strings.NewReplacer("http://127.0.0.1:8401", "http://"+a.Addr, "NAME", "web").Replace(line)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}
