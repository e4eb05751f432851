package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// requireEnv, set to 1, turns what would skip a test into a failure.
const requireEnv = "LOG_CAPTURER_REQUIRE_DOCKER"

// NeedDocker skips the test unless a Docker engine can be started here.
func NeedDocker(tb TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		missing(tb, "a Docker engine of the test's own needs root")
	}
	for _, name := range []string{dockerdBin(), "containerd", runcBin()} {
		if _, err := exec.LookPath(name); err != nil {
			missing(tb, fmt.Sprintf("%s is not installed (Debian: apt-get install docker.io containerd runc iptables): %v", name, err))
		}
	}
}

// Required reports whether a test that cannot run here is to fail, not to skip.
func Required() bool { return os.Getenv(requireEnv) == "1" }

func missing(tb TB, why string) {
	tb.Helper()
	if Required() {
		tb.Fatalf("%s=1, but %s", requireEnv, why)
	}
	tb.Skipf("%s (%s=1 makes this a failure)", why, requireEnv)
}

// moduleRoot gives the directory of the go.mod above the working directory,
// which is the package's during its test.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}

// Root is the directory of the repository.
func Root(tb TB) string {
	tb.Helper()
	root, err := moduleRoot()
	if err != nil {
		tb.Fatal(err)
	}
	return root
}

// ReadFile gives the text of a file of the repository.
func ReadFile(tb TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(Root(tb), name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}
