package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestVulncheck: clean, vulnerable and could not check are told apart, by the last
// line and by the status. What govulncheck is asked is not asked here: its database
// is on the network.
func TestVulncheck(t *testing.T) {
	root := harness.Root(t)
	for _, c := range []struct {
		name, govulncheck string
		status            int
		last              string
	}{
		{"clean", `echo "No vulnerabilities found."`, 0, "vulncheck: clean"},
		{"vulnerable", `echo "Vulnerability #1: GO-2026-0001"; exit 3`, 1, "vulncheck: VULNERABLE: see above"},
		{"no database", `echo 'govulncheck: fetching vulnerabilities: Get "https://db.example.com/index": no such host' >&2; exit 1`, 2,
			"vulncheck: COULD NOT CHECK: the vulnerability database https://db.example.com cannot be reached; set GOVULNDB to one that can"},
		{"does not build", `echo 'x.go:1: undefined: y' >&2; exit 1`, 2, "vulncheck: COULD NOT CHECK: govulncheck failed with status 1"},
		{"killed", `kill -9 $$`, 2, "vulncheck: COULD NOT CHECK: govulncheck failed with status 137"},
		{"asked rightly", `[ "$*" = "-db https://db.example.com ./..." ] || exit 1`, 0, "vulncheck: clean"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stub := filepath.Join(t.TempDir(), "govulncheck")
			if err := os.WriteFile(stub, []byte("#!/bin/sh\n"+c.govulncheck+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(root, "scripts", "vulncheck.sh"))
			cmd.Env = append(os.Environ(), "GOVULNCHECK="+stub, "GOVULNDB=https://db.example.com")
			out, err := cmd.CombinedOutput()
			status := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				status = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if last := lines[len(lines)-1]; status != c.status || last != c.last {
				t.Errorf("status %d, want %d; %q, want %q", status, c.status, last, c.last)
			}
		})
	}
}
