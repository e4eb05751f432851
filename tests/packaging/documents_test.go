package packaging

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestDocuments: the files and targets that commands for other machines name are
// there, and the commands are shell.
func TestDocuments(t *testing.T) {
	makefile := harness.ReadFile(t, "Makefile")
	for _, document := range []string{"README.md", "docs/rollout.md"} {
		text := strings.Join(blocks(t, document), "\n")
		if text == "" {
			t.Errorf("%s has no commands", document)
		}
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := try(t, nil, "bash", "-n", script); err != nil || out != "" {
			t.Errorf("%s: %s %v", document, out, err)
		}
		for _, target := range regexp.MustCompile(`(?m)^make (\S+)`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+target[1]+":") {
				t.Errorf("%s: make has no target %s", document, target[1])
			}
		}
		for _, file := range regexp.MustCompile(`deploy/[\w./-]+\w`).FindAllString(harness.ReadFile(t, document), -1) {
			if _, err := os.Stat(filepath.Join(harness.Root(t), file)); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}

// TestRolloutNames: what docs/rollout.md asks kubectl for has the names that the
// manifests give.
func TestRolloutNames(t *testing.T) {
	text := harness.ReadFile(t, "docs/rollout.md")
	daemonSet := harness.ReadFile(t, "deploy/kubernetes/base/daemonset.yaml")
	named := regexp.MustCompile(`kubectl --namespace (\S+) .*?daemonset/([\w-]+)`).FindAllStringSubmatch(text, -1)
	if len(named) < 4 {
		t.Fatalf("%d commands", len(named))
	}
	for _, m := range named {
		if !strings.Contains(harness.ReadFile(t, "deploy/kubernetes/base/kustomization.yaml"), "\nnamespace: "+m[1]+"\n") ||
			!strings.Contains(daemonSet, "\n  name: "+m[2]+"\n") {
			t.Errorf("%s", m[0])
		}
	}
	variables := regexp.MustCompile(`daemonset/log-capturer (\w+)=false`).FindAllStringSubmatch(text, -1)
	if len(variables) != 1 {
		t.Fatalf("rollback switches: %q", variables)
	}
	if enabled := "enabled: ${" + variables[0][1] + ":-true}"; !strings.Contains(harness.ReadFile(t, "deploy/kubernetes/base/config.yaml"), enabled) {
		t.Errorf("the configuration has no %q", enabled)
	}
}

// TestRolloutHosts runs what chooses a tenth of the hosts.
func TestRolloutHosts(t *testing.T) {
	var choose string
	for _, b := range blocks(t, "docs/rollout.md") {
		if strings.Contains(b, "hosts.txt") {
			choose = b
		}
	}
	var chosen []string
	for _, hosts := range []string{"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n", "k\nj\ni\nh\ng\nf\ne\nd\nc\nb\na\na\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "hosts.txt"), []byte(hosts), 0o600); err != nil {
			t.Fatal(err)
		}
		chosen = append(chosen, command(t, nil, "bash", "-c", "cd '"+dir+"'\n"+choose))
	}
	if len(strings.Fields(chosen[0])) != 2 || !slices.Equal(chosen[:1], chosen[1:]) {
		t.Errorf("a tenth of eleven hosts is %q", chosen)
	}
}
