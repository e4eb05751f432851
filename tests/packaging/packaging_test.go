// Package packaging tries what the agent is installed with: the image and its
// Dockerfile, the systemd unit, what lies in deploy; with the build tag packaging,
// which is `make test-packaging`, also the Debian package and the release.
package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agentBin is the agent's binary: LOG_CAPTURER_BIN, else bin/log_capturer.
func agentBin(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("LOG_CAPTURER_BIN")
	if bin == "" {
		bin = filepath.Join(harness.Root(t), "bin", "log_capturer")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("the agent's binary is missing (make build): %v", err)
	}
	return bin
}

// need gives the path of a program, and skips the test without it; with
// LOG_CAPTURER_REQUIRE_DOCKER=1 in the environment it fails.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	switch {
	case err == nil:
	case os.Getenv("LOG_CAPTURER_REQUIRE_DOCKER") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

// command runs a program in the repository and gives its standard output. It fails
// the test when the program fails.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(t, env, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is command for a program that may fail.
func try(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = harness.Root(t)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %q: %w\n%s%s", name, args, err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// blocks gives the bash blocks of a document: commands for another machine than the
// one that reads it. Lines that are continued are joined.
func blocks(t *testing.T, document string) (all []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)```bash\n(.*?)```").FindAllStringSubmatch(harness.ReadFile(t, document), -1) {
		all = append(all, strings.ReplaceAll(m[1], "\\\n", ""))
	}
	return all
}

// documented gives the one line of a document's bash blocks that begins so.
func documented(t *testing.T, document, prefix string) string {
	t.Helper()
	var found []string
	for _, b := range blocks(t, document) {
		for line := range strings.Lines(b) {
			if strings.HasPrefix(line, prefix) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d commands that begin with %q", document, len(found), prefix)
	}
	return found[0]
}

// replaced replaces each old text, which must be there, by the new one after it.
func replaced(t *testing.T, s string, oldNew ...string) string {
	t.Helper()
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(s, oldNew[i]) {
			t.Fatalf("no %q in %q", oldNew[i], s)
		}
		s = strings.ReplaceAll(s, oldNew[i], oldNew[i+1])
	}
	return s
}
