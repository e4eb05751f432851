package packaging

import (
	"strings"
	"testing"
)

// TestConfigurations: the agent takes the configurations that lie in deploy, with
// the variables that whoever runs them sets and with no others.
func TestConfigurations(t *testing.T) {
	for _, c := range []struct {
		file string
		env  []string
	}{
		{"configs/config.yaml", nil},
		{"deploy/compose/log_capturer.yaml", nil},
		{"deploy/kubernetes/base/config.yaml", []string{"LOKI_URL=http://loki:3100", "NODE_NAME=node-1"}},
		// The rollback switch of docs/rollout.md.
		{"deploy/kubernetes/base/config.yaml", []string{"LOKI_URL=http://loki:3100", "NODE_NAME=node-1", "LOG_CAPTURER_FILES=false"}},
	} {
		if out := command(t, c.env, agentBin(t), "validate", "--config", c.file); out != c.file+": ok\n" {
			t.Errorf("%s with %q: %s", c.file, c.env, out)
		}
	}
	for _, wrong := range []string{"LOG_CAPTURER_FILES=sometimes", "LOKI_URL=nowhere"} {
		env := []string{"LOKI_URL=http://loki:3100", "NODE_NAME=node-1", wrong}
		key, _, _ := strings.Cut(wrong, "=")
		if _, err := try(t, env, agentBin(t), "validate", "--config", "deploy/kubernetes/base/config.yaml"); err == nil {
			t.Errorf("%s is not used: %s is taken", key, wrong)
		}
	}
}
