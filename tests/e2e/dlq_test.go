package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// dlq runs the subcommand with the agent's configuration, and gives its exit
// status and what it prints.
func dlq(t *testing.T, a *harness.Agent, args ...string) (status int, out string) {
	t.Helper()
	cmd := exec.Command(a.Bin, append([]string{"dlq", args[0], "-config", a.Config}, args[1:]...)...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// TestDeadLettersReplayed: lines that the store refuses are shown, are refused
// again, and, once the store's limit is raised, delivered exactly once, while
// the agent goes on beside.
func TestDeadLettersReplayed(t *testing.T) {
	t.Parallel()
	w, l, a := standIn(t, "host: here\nmonitors: {container: {ignore_older_than: 0}}")
	old := time.Now().Add(-8 * 24 * time.Hour).Truncate(time.Millisecond)
	id := w.stopped("old", crafted("old one", "stdout", old)+crafted("old two", "stderr", old.Add(time.Second)))
	a.Start()
	busy := output{name: "busy", lines: 1000}
	w.run(busy.spec("-rate", "200"))
	harness.Eventually(t, 20*time.Second, "two dead letters", func() bool { return a.Metrics()[metricDead] == 2 })

	status, out := dlq(t, a, "list")
	if rows := strings.Split(strings.TrimSpace(out), "\n"); status != 0 || len(rows) != 3 ||
		!contains(rows[1], "  old        refused  timestamp too old, ") || !strings.HasSuffix(rows[1], "  7     old one") || !strings.HasSuffix(rows[2], "  7     old two") {
		t.Errorf("dlq list: status %d\n%s", status, out)
	}
	if status, out := dlq(t, a, "replay"); status != 1 || !strings.HasPrefix(out, "sent and accepted: 0\n") || !contains(out, "not accepted, kept: old: timestamp too old, ") {
		t.Errorf("a replay that is refused: status %d\n%s", status, out)
	}

	limits := lokitest.DefaultLimits()
	limits.MaxAge = 0
	l.SetLimits(limits)
	if status, out := dlq(t, a, "replay", "--dry-run"); status != 0 || !strings.HasPrefix(out, "would be sent: 2\n") {
		t.Errorf("a dry run: status %d\n%s", status, out)
	}
	if status, out := dlq(t, a, "replay"); status != 0 || out != "sent and accepted: 2\n" {
		t.Errorf("a replay: status %d\n%s", status, out)
	}
	status, out = dlq(t, a, "replay")
	if status != 0 || out != "sent and accepted: 0\nleft out, an earlier replay has sent them: 2\n" {
		t.Errorf("a second replay: status %d\n%s", status, out)
	}
	if status, out := dlq(t, a, "list"); status != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("what is left: status %d\n%s", status, out)
	}

	got := fromStandIn(t, l, "container_name", "old")
	for i, want := range []line{{stream: "stdout", text: "old one", at: old}, {stream: "stderr", text: "old two", at: old.Add(time.Second)}} {
		if len(got) != 2 || got[i].stream != want.stream || got[i].text != want.text || !got[i].at.Equal(want.at) || got[i].container != id ||
			got[i].labels != `{container_name="old", host="here", image="logwriter", job="log_capturer", stream="`+want.stream+`"}` || got[i].fields["image_ref"] != harness.Image {
			t.Fatalf("stored: %+v", got)
		}
	}
	sent := 0
	for _, r := range l.Requests() {
		for _, s := range r.Streams {
			if r.Status < 300 && contains(s, `container_name="old"`) {
				sent++
			}
		}
	}
	if sent != 2 {
		t.Errorf("they were accepted in %d streams, want 2", sent)
	}
	inOrder(t, l, busy)
}
