package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestPerformanceReport: what the scripts measure goes between its marks in the
// report, again and again, and leaves the rest as it is. Without the marks it would
// take the report's place.
func TestPerformanceReport(t *testing.T) {
	root := harness.Root(t)
	was, err := os.ReadFile(filepath.Join(root, "docs", "reports", "hybrid-monitor-performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.md")
	if err := os.WriteFile(file, was, 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(file, name, text string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", `. "$1"; put_report "$2" "$3"`, "bash", filepath.Join(root, "tests", "report.sh"), file, name)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		now, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(now)
	}
	want := string(was)
	for _, name := range []string{"load_test streaming", "load_test files", "monitor_leaks"} {
		begin, end := "<!-- "+name+": begin -->\n", "\n<!-- "+name+": end -->\n"
		before, rest, _ := strings.Cut(want, begin)
		_, after, ok := strings.Cut(rest, end)
		if !ok {
			t.Fatalf("no place for %s", name)
		}
		put(file, name, "an older one\n")
		got := put(file, name, "| 100 & \\1 |\n")
		want = before + begin + "\n| 100 & \\1 |\n" + end + after
		if got != want {
			t.Fatalf("%s: the report is now\n%s", name, got)
		}
	}
	if got := put(filepath.Join(t.TempDir(), "new.md"), "monitor_leaks", "text\n"); got != "text\n" {
		t.Errorf("a new file has %q", got)
	}
}
