package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Agent is the real binary of the agent.
type Agent struct {
	tb   TB
	proc *process

	// Bin is its binary. User, unless nil, is the user that Start starts it as.
	Bin  string
	User *syscall.Credential
	// Dir holds its configuration, data_dir and log.
	Dir string
	// Addr is where it serves HTTP.
	Addr string
	// Config is its configuration file; written by StartAgent, free to be
	// changed between Stop and Start.
	Config string
}

// StartAgent starts the agent for an engine and a push URL, and stops it when
// the test ends. extra is YAML that is added at the top level; a key there may
// not be one of those the harness sets (data_dir, server, docker, sinks).
// The binary is LOG_CAPTURER_BIN, else bin/log_capturer.
func StartAgent(tb TB, dockerHost, pushURL, extra string) *Agent {
	tb.Helper()
	a := NewAgent(tb, dockerHost, pushURL, extra)
	a.Start()
	return a
}

// NewAgent is StartAgent without the start.
func NewAgent(tb TB, dockerHost, pushURL, extra string) *Agent {
	tb.Helper()
	bin := os.Getenv("LOG_CAPTURER_BIN")
	if bin == "" {
		bin = filepath.Join(Root(tb), "bin", "log_capturer")
	}
	if _, err := os.Stat(bin); err != nil {
		missing(tb, "the agent's binary is missing (make build): "+err.Error())
	}
	addr, err := FreeAddr()
	if err != nil {
		tb.Fatal(err)
	}
	a := &Agent{tb: tb, Bin: bin, Dir: tb.TempDir(), Addr: addr}
	host, port, _ := strings.Cut(addr, ":")
	a.Config = filepath.Join(a.Dir, "config.yaml")
	text := fmt.Sprintf("data_dir: %s\nserver: {host: %s, port: %s}\ndocker: {host: %q}\nsinks: {loki: {url: %q}}\n%s\n",
		filepath.Join(a.Dir, "data"), host, port, dockerHost, pushURL, extra)
	if err := os.WriteFile(a.Config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if a.proc != nil && a.proc.running() && !a.stop() {
			tb.Error("the agent did not stop on SIGTERM and was killed")
		}
		showLog(tb, "agent", a.logFile())
	})
	return a
}

func (a *Agent) logFile() string { return filepath.Join(a.Dir, "agent.log") }

// DataDir is the agent's data_dir.
func (a *Agent) DataDir() string { return filepath.Join(a.Dir, "data") }

// Launch starts the agent and does not wait for it.
func (a *Agent) Launch() {
	a.tb.Helper()
	var err error
	if a.proc, err = startProcessAs(a.User, a.logFile(), a.Bin, "-config", a.Config); err != nil {
		a.tb.Fatal(err)
	}
}

// Start starts the agent and waits until it serves HTTP.
func (a *Agent) Start() {
	a.tb.Helper()
	a.Launch()
	if !poll(10*time.Second, func() bool {
		resp, err := http.Get("http://" + a.Addr + "/livez")
		if err != nil {
			return !a.proc.running()
		}
		_ = resp.Body.Close()
		return true
	}) || !a.proc.running() {
		a.tb.Fatalf("the agent does not serve:\n%s", a.Log())
	}
}

// Stop stops the agent with SIGTERM and waits for it.
func (a *Agent) Stop() {
	a.tb.Helper()
	if !a.stop() {
		a.tb.Fatalf("the agent did not stop on SIGTERM:\n%s", a.Log())
	}
}

// stop has a last look at the metrics, if the agent can answer, and ends it. It
// reports whether SIGTERM was enough.
func (a *Agent) stop() bool {
	_, _ = a.scrape(hastyHTTP)
	return a.proc.stop(15 * time.Second)
}

// Kill9 kills the agent with SIGKILL and waits for it.
func (a *Agent) Kill9() { a.proc.kill() }

// Exit waits until the process has ended, and gives its exit status; -1 after a
// signal. It fails the test when that takes longer than limit.
func (a *Agent) Exit(limit time.Duration) int {
	a.tb.Helper()
	Eventually(a.tb, limit, "the agent ends", func() bool { return !a.proc.running() })
	return a.proc.cmd.ProcessState.ExitCode()
}

// Pid is the process ID.
func (a *Agent) Pid() int { return a.proc.pid() }

// Running reports whether the process lives.
func (a *Agent) Running() bool { return a.proc.running() }

// Signal sends a signal.
func (a *Agent) Signal(sig syscall.Signal) { a.proc.signal(a.tb, sig) }

// Freeze stops the agent by SIGSTOP. Thaw lets it go on.
func (a *Agent) Freeze() {
	a.tb.Helper()
	a.proc.freeze(a.tb)
}

// Thaw ends Freeze.
func (a *Agent) Thaw() { a.Signal(syscall.SIGCONT) }

// Log gives what the agent has logged so far.
func (a *Agent) Log() string {
	b, err := os.ReadFile(a.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// agentHTTP keeps no connection, which a restart of the agent would break, and
// waits for no agent that is frozen.
var agentHTTP = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// hastyHTTP is for what may as well not be known.
var hastyHTTP = &http.Client{Timeout: time.Second, Transport: agentHTTP.Transport}

func (a *Agent) get(client *http.Client, path string) (int, []byte, error) {
	resp, err := client.Get("http://" + a.Addr + path)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// Health gives the status code and the decoded body of /health.
func (a *Agent) Health() (code int, body map[string]any) {
	a.tb.Helper()
	code, b, err := a.get(agentHTTP, "/health")
	if err != nil {
		a.tb.Fatal(err)
	}
	if err := json.Unmarshal(b, &body); err != nil {
		a.tb.Fatalf("%v: %s", err, b)
	}
	return code, body
}

// Metrics gives every sample of /metrics: name{label="value",...} to value;
// of histograms and summaries the _sum and _count.
func (a *Agent) Metrics() map[string]float64 {
	a.tb.Helper()
	all, err := a.Scrape()
	if err != nil {
		a.tb.Fatal(err)
	}
	return all
}

// Scrape is Metrics for an agent that may not answer, and for any goroutine.
func (a *Agent) Scrape() (map[string]float64, error) { return a.scrape(agentHTTP) }

func (a *Agent) scrape(client *http.Client) (map[string]float64, error) {
	_, b, err := a.get(client, "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	moved.see(families)
	all := make(map[string]float64)
	for name, f := range families {
		for _, m := range f.GetMetric() {
			suffix := labelsOf(m)
			switch {
			case m.Counter != nil:
				all[name+suffix] = m.Counter.GetValue()
			case m.Gauge != nil:
				all[name+suffix] = m.Gauge.GetValue()
			case m.Histogram != nil:
				all[name+"_sum"+suffix] = m.Histogram.GetSampleSum()
				all[name+"_count"+suffix] = float64(m.Histogram.GetSampleCount())
			case m.Untyped != nil:
				all[name+suffix] = m.Untyped.GetValue()
			}
		}
	}
	return all, nil
}

// Within waits until ok holds, at most for limit, and reports whether it does.
func Within(limit time.Duration, ok func() bool) bool { return poll(limit, ok) }

// Eventually waits until ok holds, and fails the test if it does not in time.
func Eventually(tb TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	if !poll(limit, ok) {
		tb.Fatalf("not within %v: %s", limit, what)
	}
}
