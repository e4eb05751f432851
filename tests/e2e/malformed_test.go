package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestMalformed: what is no entry of Docker's is shipped raw with a label of its
// own, copied to the dead letters, and shown in /health; the lines around it are
// not affected.
func TestMalformed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	exited := output{name: "exited", lines: 50}
	idExited := w.run(exited.spec())
	w.d.Wait(t, idExited, 20*time.Second)
	running := output{name: "running", lines: 300}
	idRunning := w.run(running.spec("-rate", "100", "-sleep-after", "-1s"))
	w.once(exited)

	// By another program, while Docker writes.
	garbage := []string{`not JSON at all`, `{"level":"info","msg":"somebody else's JSON"}`, `{"log":"cut in the mid`}
	harness.Eventually(t, 20*time.Second, "the running one writes", func() bool { return w.counts()["running"] > 20 })
	for _, g := range garbage {
		appendTo(t, w.d.LogPath(idRunning), g+"\n")
	}
	malformed := func(container string, n int) []string {
		t.Helper()
		var texts []string
		harness.Within(20*time.Second, func() bool {
			texts = nil
			for _, l := range w.labelled(container) {
				if l.fields["malformed"] == "true" {
					texts = append(texts, l.text)
					if l.stream != "" || l.container == "" || !contains(l.labels, `malformed="true"`) {
						t.Fatalf("a malformed line bears %s", l.labels)
					}
				}
			}
			return len(texts) >= n
		})
		slices.Sort(texts)
		return texts
	}
	want := slices.Clone(garbage)
	slices.Sort(want)
	if got := malformed("running", 3); !slices.Equal(got, want) {
		t.Errorf("running: malformed %q, want %q", got, want)
	}

	// After a full disk, and after a power loss, found at the next start.
	a.Stop()
	now := time.Now().Truncate(time.Millisecond)
	glued := `{"log":"the disk was fu` + crafted("after the full disk", "stderr", now)
	appendTo(t, w.d.LogPath(idExited), glued+strings.Repeat("\x00", 3000)+crafted("after the power loss", "stdout", now.Add(time.Millisecond))+"last words\n")
	a.Start()

	wantExited := []string{"last words", `{"log":"the disk was fu`}
	slices.Sort(wantExited)
	if got := malformed("exited", 2); !slices.Equal(got, wantExited) {
		t.Errorf("exited: malformed %q, want %q", got, wantExited)
	}

	// The others, without the malformed ones.
	proper := func(container string, n int) (all []line) {
		harness.Within(20*time.Second, func() bool {
			all = slices.DeleteFunc(w.found(container), func(l line) bool { return l.stream == "" })
			return len(all) >= n
		})
		return all
	}
	if c := compare(running.want(), proper("running", running.lines)); !c.lossless() || c.doubled > 0 {
		t.Errorf("running: %s", &c)
	}
	wantLines := append(exited.want(), line{stream: "stderr", text: "after the full disk"}, line{stream: "stdout", text: "after the power loss"})
	if c := compare(wantLines, proper("exited", len(wantLines))); !c.lossless() || c.doubled > 0 {
		t.Errorf("exited: %s", &c)
	}

	var copies []string
	for _, d := range deadLetters(t, a) {
		if d.Kind != "malformed" || d.Reason != "malformed" || d.ContainerID != map[string]string{"running": idRunning, "exited": idExited}[d.ContainerName] {
			t.Errorf("dead letter %+v", d)
		}
		d.wantPlace(t, w.d.LogPath(d.ContainerID))
		copies = append(copies, string(d.Raw))
	}
	all := slices.Concat(want, wantExited)
	slices.Sort(all)
	slices.Sort(copies)
	if !slices.Equal(copies, all) {
		t.Errorf("dead letters %q, want %q", copies, all)
	}
	w.health(a, 5*time.Second, 200, "degraded", func(b map[string]any) bool {
		return contains(problems(b), "no entries of Docker's") && at(b, "monitors", "file_monitor", "state") == "degraded"
	})
	m := a.Metrics()
	if m["log_capturer_parse_errors_total"] != 2 || m["log_capturer_nul_bytes_total"] != 3000 ||
		m[`log_capturer_logs_processed_total{method="file_monitor",result="malformed"}`] != 2 || m[metricDead] != 0 {
		t.Errorf("since the restart: parse errors %v, NULs %v, malformed %v, dead-lettered %v", m["log_capturer_parse_errors_total"],
			m["log_capturer_nul_bytes_total"], m[`log_capturer_logs_processed_total{method="file_monitor",result="malformed"}`], m[metricDead])
	}
}

// TestMalformedNotShipped: ship_malformed: false leaves them to the dead letters
// alone.
func TestMalformedNotShipped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newAgent("", "ship_malformed: false")
	o := output{name: "some", lines: 20}
	id := w.run(o.spec())
	w.d.Wait(t, id, 20*time.Second)
	appendTo(t, w.d.LogPath(id), "garbage\n")
	a.Start()
	harness.Eventually(t, 20*time.Second, "a dead letter", func() bool { return a.Metrics()[metricDead] == 1 })
	w.once(o)
	d := deadLetters(t, a)
	if len(d) != 1 || d[0].Kind != "malformed" || string(d[0].Raw) != "garbage" {
		t.Fatalf("dead letters %+v", d)
	}
	d[0].wantPlace(t, w.d.LogPath(id))
}

// TestCutWhileDown: a log that somebody has cut while the agent was down, and that has
// been written on, is resumed by the times of its lines: each comes once.
func TestCutWhileDown(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	a := w.agentTo(l.URL, "", "")
	now := time.Now()
	text := func(from, to int) string {
		var b strings.Builder
		for n := from; n <= to; n++ {
			b.WriteString(crafted(fmt.Sprint("line ", n), "stdout", now.Add(time.Duration(n)*time.Millisecond)))
		}
		return b.String()
	}
	id := w.stopped("cut", text(1, 10))
	a.Start()
	arrived := func(n int) func() bool {
		return func() bool { return len(l.Lines("container_name", "cut")) == n }
	}
	harness.Eventually(t, 20*time.Second, "the first lines", arrived(10))
	a.Stop()
	if err := os.WriteFile(w.d.LogPath(id), []byte(text(1, 1)+text(11, 13)), 0o640); err != nil {
		t.Fatal(err)
	}
	a.Start()
	harness.Eventually(t, 20*time.Second, "what was written after the cut", arrived(13))
	w.drained(a)
	if n := a.Metrics()["log_capturer_resumes_by_time_total"]; n != 1 || !arrived(13)() {
		t.Errorf("%v logs resumed by time, %d lines arrived", n, len(l.Lines("container_name", "cut")))
	}
}

// TestTruncated: truncation by somebody else is survived, and what Docker writes
// afterwards arrives.
func TestTruncated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("")
	id := w.run(harness.ContainerSpec{Name: "truncated", Cmd: []string{"-prefix", "truncated", "-lines", "2000", "-rate", "500"}})
	w.more("truncated", 300)
	truncate(t, w.d.LogPath(id))
	w.more("truncated", 300)
	w.d.Wait(t, id, 20*time.Second)
	want := onDisk(t, w.d.LogPath(id))
	if len(want) == 0 || len(want) >= 2000 {
		t.Fatalf("%d lines on disk", len(want))
	}
	harness.Eventually(t, 20*time.Second, "what came after the truncation", func() bool {
		got := w.found("truncated")
		c := compare(want, got[max(0, len(got)-len(want)):])
		return c.lossless() && c.doubled == 0
	})
}
