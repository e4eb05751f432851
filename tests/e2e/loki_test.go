package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// fromStandIn gives lines that the stand-in for Loki has stored, in the order in
// which they came.
func fromStandIn(t *testing.T, l *lokitest.Server, labels ...string) []line {
	t.Helper()
	var all []line
	for _, s := range l.Lines(labels...) {
		set, err := lokitest.ParseLabels(s.Stream)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, line{stream: set["stream"], text: s.Text, at: s.Time, labels: s.Stream, container: s.Metadata["container_id"], fields: s.Metadata})
	}
	return all
}

// standIn starts a stand-in for Loki, and an agent that pushes to it.
func standIn(t *testing.T, extra string) (*world, *lokitest.Server, *harness.Agent) {
	t.Helper()
	l := lokitest.New(lokitest.Default())
	t.Cleanup(l.Close)
	w := &world{t: t, d: sharedEngine(t)}
	t.Cleanup(w.removeContainers)
	a := w.agentTo(l.URL, extra, "")
	return w, l, a
}

// inOrder waits for the lines of some containers at the stand-in, and wants each
// once, in the order in which they were written.
func inOrder(t *testing.T, l *lokitest.Server, all ...output) {
	t.Helper()
	for _, o := range all {
		want := o.want()
		var got []line
		harness.Within(40*time.Second, func() bool {
			got = fromStandIn(t, l, "container_name", o.name)
			return len(got) >= len(want)
		})
		if c := compare(want, got); !c.lossless() || c.doubled > 0 {
			t.Errorf("%s: of %d lines %s", o.name, len(want), &c)
		}
	}
}

// TestLoki: a Loki with default limits takes all that an agent with default
// settings sends, and gets it in order.
func TestLoki(t *testing.T) {
	t.Parallel()
	w, l, a := standIn(t, "host: here")
	a.Start()
	all := []output{ // below the 6 MB that Loki takes at once
		{name: "one", lines: 10_000, size: 100, stderrEvery: 3},
		{name: "two", lines: 5000, stderrEvery: 2},
		{name: "long", kind: "long", lines: 20, size: 100_000},
		{name: "multibyte", kind: "multibyte", lines: 500, size: 100},
	}
	for _, o := range all {
		w.run(o.spec())
	}
	inOrder(t, l, all...)
	for _, r := range l.Requests() {
		if r.Status != http.StatusNoContent || r.Path != "/loki/api/v1/push" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Fatalf("a push to %s was answered %d %s; headers %v", r.Path, r.Status, r.Answer, r.Header)
		}
	}
	want := map[string]bool{
		`{container_name="one", host="here", image="logwriter", job="log_capturer", stream="stdout"}`:       true,
		`{container_name="one", host="here", image="logwriter", job="log_capturer", stream="stderr"}`:       true,
		`{container_name="two", host="here", image="logwriter", job="log_capturer", stream="stdout"}`:       true,
		`{container_name="two", host="here", image="logwriter", job="log_capturer", stream="stderr"}`:       true,
		`{container_name="long", host="here", image="logwriter", job="log_capturer", stream="stdout"}`:      true,
		`{container_name="multibyte", host="here", image="logwriter", job="log_capturer", stream="stdout"}`: true,
	}
	for _, s := range l.Streams() {
		if !want[s] {
			t.Errorf("unexpected stream %s", s)
		}
		delete(want, s)
	}
	if len(want) > 0 {
		t.Errorf("streams without lines: %v", want)
	}
	m := fromStandIn(t, l, "container_name", "two")[0].fields
	if len(m["container_id"]) != 64 || m["image_ref"] != harness.Image || len(m) != 2 {
		t.Errorf("structured metadata %v", m)
	}
	w.health(a, 5*time.Second, 200, "ok", nil)
}

// TestLokiFaults: answers that refuse for now, then recovery.
func TestLokiFaults(t *testing.T) {
	t.Parallel()
	w, l, a := standIn(t, "")
	first := output{name: "first", lines: 100}
	a.Start()
	w.run(first.spec())
	inOrder(t, l, first)
	reached := make(chan struct{})
	l.Next(
		lokitest.Fault{Status: 429, Body: "Ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec)"},
		lokitest.Fault{Status: 500, Body: "rpc error: code = Unavailable desc = connection refused"},
		lokitest.Fault{Reset: true},
		lokitest.Fault{Status: 503, Body: "at least 2 live replicas required, could only find 1"},
		lokitest.Fault{Status: 500, Body: "empty ring", Reached: reached},
	)
	all := []output{{name: "one", lines: 3000, stderrEvery: 3}, {name: "two", lines: 3000}, {name: "three", lines: 3000}}
	for _, o := range all {
		w.run(o.spec())
	}
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		t.Fatal("the agent has given up")
	}
	w.health(a, 15*time.Second, 200, "ok", nil)
	inOrder(t, l, all...)
	m := a.Metrics()
	limited, failed := m[`log_capturer_sink_requests_total{code="429",sink="loki"}`], m[`log_capturer_sink_requests_total{code="500",sink="loki"}`]
	// On a busy machine an answer can come after the agent has waited long enough: then
	// it has not seen it, and says so.
	cut := contains(a.Log(), "the store has not answered in time")
	if m[metricDead] != 0 || limited > 1 || failed > 2 || !cut && limited+failed != 3 {
		t.Errorf("dead letters %v, answers 429 %v, 500 %v", m[metricDead], limited, failed)
	}
}

// TestLokiAnswers: answers that tell of a wrong configuration, of too large a request
// and of nothing that the agent knows, and a token that cannot be read for a while,
// cost no line and are counted.
func TestLokiAnswers(t *testing.T) {
	t.Parallel()
	l := lokitest.New(lokitest.Default())
	t.Cleanup(l.Close)
	w := &world{t: t, d: sharedEngine(t)}
	t.Cleanup(w.removeContainers)
	token := filepath.Join(t.TempDir(), "token")
	write := func() {
		t.Helper()
		if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	a := w.agentTo(l.URL, "", "bearer_token_file: "+token)
	// All lines are there before the agent is, so that the first request has many: one
	// line alone cannot be split, and "something new" about it looks like a store that
	// refuses everything, which is an error in the log.
	first := output{name: "first", lines: 1000}
	w.d.Wait(t, w.run(first.spec()), 20*time.Second)
	l.Next(
		lokitest.Fault{Status: http.StatusRequestEntityTooLarge, Body: "request body too large"},
		lokitest.Fault{Status: http.StatusBadRequest, Body: "something new"},
		lokitest.Fault{Status: http.StatusUnauthorized, Body: "no org id"},
	)
	a.Start()
	inOrder(t, l, first)
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	second := output{name: "second"}
	id := w.run(second.spec("-rate", "20"))
	counted := func(reason string) func() bool {
		return func() bool {
			return a.Metrics()[fmt.Sprintf(`log_capturer_sink_errors_total{reason=%q,sink="loki"}`, reason)] > 0
		}
	}
	harness.Eventually(t, 20*time.Second, "the token is missed", counted("credentials"))
	write()
	inOrder(t, l, w.end([]output{second}, []string{id})...)
	for _, reason := range []string{"too_large", "unknown_400", "config"} {
		if !counted(reason)() {
			t.Errorf("no request is counted as %s", reason)
		}
	}
}

// stopped gives a container that has ended, whose log is then text.
func (w *world) stopped(name, text string) (id string) {
	w.t.Helper()
	id = w.run(harness.ContainerSpec{Name: name, Cmd: []string{"-lines", "1"}})
	w.d.Wait(w.t, id, 20*time.Second)
	if err := os.WriteFile(w.d.LogPath(id), []byte(text), 0o640); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// TestLokiRefuses: lines that Loki never takes end in the dead-letter file, with
// its reason; the lines around them arrive.
func TestLokiRefuses(t *testing.T) {
	t.Parallel()
	refuses(t, false)
}

// TestLokiRefusesFromTheSpool: as much is known of them when they have been through
// the spool, and the agent was started again meanwhile.
func TestLokiRefusesFromTheSpool(t *testing.T) {
	t.Parallel()
	refuses(t, true)
}

func refuses(t *testing.T, spooled bool) {
	t.Helper()
	w, l, a := standIn(t, "monitors: {container: {ignore_older_than: 0}}")
	now := time.Now()
	old := now.Add(-8 * 24 * time.Hour)
	var text strings.Builder
	for i := range 2 {
		text.WriteString(crafted("old "+string('a'+rune(i)), "stdout", old.Add(time.Duration(i))))
	}
	text.WriteString(strings.Replace(crafted("old", "stdout", old.Add(2)), `\n`, "", 1)) // a fragment
	text.WriteString(crafted("new on stderr", "stderr", now.Add(-time.Minute)))
	text.WriteString(crafted(" c", "stdout", old.Add(2)))
	text.WriteString(crafted("new", "stdout", now.Add(-time.Minute)))
	id := w.stopped("old", text.String())
	if spooled {
		l.Always(&down)
		a.Start()
		w.spooled(a, 5)
		a.Stop()
		l.Always(nil)
	}
	a.Start()
	harness.Eventually(t, 20*time.Second, "three dead letters", func() bool { return a.Metrics()[metricDead] == 3 })
	harness.Eventually(t, 20*time.Second, "two lines", func() bool { return len(l.Lines("container_name", "old")) == 2 })
	for i, d := range deadLetters(t, a) {
		if d.Kind != "refused" || !contains(d.Reason, "timestamp too old") || string(d.Raw) != "old "+string('a'+rune(i)) ||
			d.ContainerID != id || d.ContainerName != "old" || d.Stream != "stdout" || !d.LineTime.Equal(old.Add(time.Duration(i))) {
			t.Errorf("dead letter %d: %+v %q", i, d, d.Raw)
		}
		d.wantPlace(t, w.d.LogPath(id))
	}
	w.health(a, 5*time.Second, 200, "degraded", func(b map[string]any) bool {
		return contains(problems(b), "refused lines for good") && at(b, "sinks", "loki", "dead_letters") == 3.0
	})
	if _, err := os.Stat(filepath.Join(a.DataDir(), "dead_letters")); err != nil {
		t.Error(err)
	}
	// They are done with: a restart does not send them again.
	a.Stop()
	before := len(l.Requests())
	a.Start()
	after := output{name: "after", lines: 10}
	w.run(after.spec())
	inOrder(t, l, after)
	for _, r := range l.Requests()[before:] {
		if r.Status != http.StatusNoContent || r.Lines > 10 {
			t.Errorf("after the restart: %d lines, answer %d %s", r.Lines, r.Status, r.Answer)
		}
	}
}
