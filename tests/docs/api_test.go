package docs

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// doctorLine is in the document for trouble only.
const doctorLine = "bin/log_capturer doctor -config configs/config.yaml"

// TestAPI sends what API.md and the document for trouble name to an agent as it
// is by default, on a real engine with a running container. There is no store.
func TestAPI(t *testing.T) {
	harness.NeedDocker(t)
	agent := runningAgent(t, "api")

	says := func(want ...string) func(string) bool {
		return func(out string) bool {
			return !slices.ContainsFunc(want, func(s string) bool { return !strings.Contains(out, s) })
		}
	}
	var metrics []string
	known := map[string]func(out string) bool{
		"curl -sS http://127.0.0.1:8401/health": func(out string) bool {
			var h struct {
				Monitors map[string]any
				Problems []struct{ What, Remedy string }
			}
			return json.Unmarshal([]byte(out), &h) == nil && len(h.Problems) == 1 &&
				strings.HasPrefix(h.Problems[0].What, "the store does not accept lines: ") &&
				slices.Equal(fields(t, out), fields(t, healthExample(t)))
		},
		"curl -sS http://127.0.0.1:8401/livez":  says("alive\n"),
		"curl -sS http://127.0.0.1:8401/readyz": says("ready\n"),
		// A request's code is there once one has been made, and then all metrics are.
		"curl -sS http://127.0.0.1:8401/metrics": func(out string) bool {
			metrics = served(out)
			return strings.Contains(out, "\nlog_capturer_files_monitored 1\n") && strings.Contains(out, "\nlog_capturer_sink_requests_total{")
		},
		"curl -sS http://127.0.0.1:8401/api/v1/containers": says(`"name": "api"`, `"driver": "json-file"`, `"method": "file_monitor"`, `"lines_delivered": 0`),
		"curl -sS http://127.0.0.1:8401/api/v1/status":     says(`"headline": "`, `"captured": 1`, `"name": "api"`, `"remedy": "`, `"see": "https://`),
		"curl -sS http://127.0.0.1:8401/api/v1/config":     says(`"server": {`, `"token_file": ""`, `"pprof": false`),
		"bin/log_capturer containers":                      says("NAME ", "\napi ", " json-file  file_monitor  "),
		doctorLine:                                         says("\nok    docker ", "\nFAIL  store connection ", "  agent                 the agent at 127.0.0.1:8401 is ", "the store does not accept lines: ", "\nwarn  container api "),
		"curl -sS -X POST http://127.0.0.1:8401/-/reload":  says("the new configuration is taken over\n"),
	}
	lines := commands(t, "API.md")
	for _, line := range append(slices.Clone(lines), commands(t, troubleshooting)...) {
		ok := known[line]
		if ok == nil {
			t.Errorf("a document names the command %q, which no test runs", line)
			continue
		}
		t.Run(line, func(t *testing.T) {
			fails := line == doctorLine // for there is no store
			// The store's failure is seen after the first lines.
			if last, answered := agent.answers(t, line, fails, ok); !answered {
				t.Errorf("it does not answer as it should:\n%s", last)
			}
		})
	}
	for line := range known {
		if line != doctorLine && !slices.Contains(lines, line) {
			t.Errorf("API.md no longer names %q", line)
		}
	}
	promised, err := harness.ContractMetrics()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range promised {
		want = append(want, m.Name)
	}
	if !slices.Equal(metrics, want) {
		t.Errorf("/metrics has\n%q\ndocs/contract.md has\n%q", metrics, want)
	}
	agent.ready(t) // again after the reload
}

// healthExample is the answer of /health in API.md.
func healthExample(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile("(?s)```json\n(\\{\n  \"status\".*?)```").FindStringSubmatch(harness.ReadFile(t, "API.md"))
	if m == nil {
		t.Fatal("API.md has no example of /health")
	}
	return m[1]
}

// fields gives the names of all that is in a JSON object, in its order; nil if it is
// none.
func fields(t *testing.T, object string) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^ *"(\w+)":`).FindAllStringSubmatch(object, -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		t.Errorf("no fields in %s", object)
	}
	return names
}

// served gives the agent's own metrics in an answer of /metrics, sorted.
func served(metrics string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (log_capturer_\w+)`).FindAllStringSubmatch(metrics, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}
