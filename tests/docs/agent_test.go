package docs

import (
	"net/http"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// startedAgent is an agent as it is by default, on a real engine with one running
// container. There is no store.
type startedAgent struct {
	root string   // where its commands are run
	env  []string // in which they find it
}

// runningAgent starts an agent, and waits until it is ready.
func runningAgent(t *testing.T, container string) *startedAgent {
	t.Helper()
	d := harness.StartDockerd(t)
	d.Run(t, harness.ContainerSpec{Name: container, Cmd: []string{"-lines", "0", "-rate", "10", "-prefix", "hello"}})
	a := &startedAgent{
		root: harness.Root(t),
		env:  []string{"DOCKER_HOST=" + d.Host, "LOG_CAPTURER_DATA_DIR=" + t.TempDir(), "LOKI_URL=http://127.0.0.1:1"},
	}
	run(t, a.root, "exec bin/log_capturer -config configs/config.yaml", a.env...)
	a.ready(t)
	return a
}

// ready waits until the agent is ready (again: after a reload it takes a moment).
func (a *startedAgent) ready(t *testing.T) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "the agent is ready", func() bool {
		resp, err := http.Get("http://127.0.0.1:8401/readyz")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
}

// answers runs a command until it ends, with an error if fails, and what it prints is
// ok. It gives what was printed last.
func (a *startedAgent) answers(t *testing.T, line string, fails bool, ok func(out string) bool) (last string, answered bool) {
	t.Helper()
	answered = harness.Within(20*time.Second, func() bool {
		out, wait, _ := run(t, a.root, line, a.env...)
		err := wait()
		last = out.String()
		return (err != nil) == fails && ok(last)
	})
	return last, answered
}
