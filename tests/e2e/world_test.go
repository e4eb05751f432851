package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// Names of metrics.
const (
	metricRead       = `log_capturer_lines_read_total{method="file_monitor"}`
	metricDelivered  = `log_capturer_logs_processed_total{method="file_monitor",result="delivered"}`
	metricDead       = `log_capturer_logs_processed_total{method="file_monitor",result="dead_lettered"}`
	metricLatency    = `log_capturer_file_monitor_latency_seconds_count`
	metricGoroutines = `log_capturer_goroutines`
	metricFDs        = `log_capturer_open_fds`
	metricMonitored  = `log_capturer_files_monitored`
	metricRotations  = `log_capturer_file_rotation_total`
)

// lanes is how many requests the agent has in flight at most.
const lanes = 2

// world is what a test has around the agent.
type world struct {
	t *testing.T
	d *harness.Dockerd
	s *harness.Store // nil where the stand-in for Loki is used

	containers []string // to be removed at the end
	agents     []*harness.Agent
	mayLog     []string // parts of errors that the agent is expected to log
}

// newWorld gives a test the shared engine and a store of its own.
func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, sharedEngine(t))
}

func newWorldOn(t *testing.T, d *harness.Dockerd) *world {
	t.Helper()
	w := &world{t: t, d: d, s: harness.StartStore(t)}
	t.Cleanup(w.removeContainers)
	return w
}

// run creates and starts a container that is removed when the test ends.
func (w *world) run(spec harness.ContainerSpec) string {
	w.t.Helper()
	id := w.create(spec)
	w.d.StartContainer(w.t, id)
	return id
}

func (w *world) create(spec harness.ContainerSpec) string {
	w.t.Helper()
	id := w.d.Create(w.t, spec)
	w.containers = append(w.containers, id)
	return id
}

// each calls f for all ids, some at a time, and fails the test on errors.
func (w *world) each(ids []string, f func(ctx context.Context, id string) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, id := range ids {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f(ctx, id); err != nil {
				w.t.Errorf("container %.12s: %v", id, err)
			}
		})
	}
	wg.Wait()
}

// killContainers ends those that run, so that the agent comes to its peace while
// it still shows them.
func (w *world) killContainers() {
	w.each(w.containers, func(ctx context.Context, id string) error {
		err := w.d.KillNow(ctx, id)
		if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
			return nil // it runs no more
		}
		return err
	})
}

func (w *world) removeContainers() {
	w.each(w.containers, w.d.RemoveNow)
	w.containers = nil
}

// agent starts an agent with the store as its sink. extra is YAML for the top
// level of its configuration.
func (w *world) agent(extra string) *harness.Agent {
	w.t.Helper()
	a := w.newAgent(extra, "")
	a.Start()
	return a
}

// newAgent is agent without the start. loki is YAML for within sinks.loki.
func (w *world) newAgent(extra, loki string) *harness.Agent {
	w.t.Helper()
	return w.agentTo(w.s.PushURL(), extra, loki)
}

// agentTo is newAgent for any address of a sink.
func (w *world) agentTo(url, extra, loki string) *harness.Agent {
	w.t.Helper()
	a := harness.NewAgent(w.t, w.d.Host, url, extra)
	w.agents = append(w.agents, a)
	if loki != "" {
		text, err := os.ReadFile(a.Config)
		if err != nil {
			w.t.Fatal(err)
		}
		text = bytes.Replace(text, []byte("sinks: {loki: {"), []byte("sinks: {loki: {"+loki+", "), 1)
		if err := os.WriteFile(a.Config, text, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Cleanup(func() {
		if !a.Running() {
			w.sane(a)
			return
		}
		if !w.t.Failed() {
			w.killContainers()
			w.balanced(a)
		}
		w.sane(a)
	})
	return a
}

var foundAtStart = regexp.MustCompile(`spool holds lines of an earlier run.* records=(\d+)`)

// spooledAtStart gives how many lines an agent has found in the spool at its last
// start.
func spooledAtStart(t *testing.T, log string) float64 {
	t.Helper()
	log = log[max(0, strings.LastIndex(log, "log_capturer is starting")):]
	m := foundAtStart.FindStringSubmatch(log)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return float64(n)
}

// sane looks for what the agent should not have logged.
func (w *world) sane(a *harness.Agent) {
	w.t.Helper()
lines:
	for l := range strings.Lines(a.Log()) {
		if !strings.Contains(l, "level=ERROR") && !strings.Contains(l, "panic") && !strings.Contains(l, "goroutine ") {
			continue
		}
		for _, may := range w.mayLog {
			if strings.Contains(l, may) {
				continue lines
			}
		}
		w.t.Errorf("the agent logs: %s", strings.TrimSpace(l))
	}
}

// line is a line that was written, or has arrived.
type line struct {
	stream string // stdout, stderr, or "" for a malformed one
	text   string
	at     time.Time // zero: not known

	labels    string // as a selector, {a="b",c="d"}; of those that have arrived
	container string // ID
	fields    map[string]string
}

// output is what a container is to write: the flags of logwriter. With no lines it
// writes without end; end tells how many they have become.
type output struct {
	name, kind  string
	lines, size int
	stderrEvery int
	from        int  // first line to be expected; 0: the first of all
	tty         bool // the container has a terminal
}

// cmd gives logwriter's flags.
func (o output) cmd(more ...string) []string {
	return append([]string{
		"-prefix", o.name, "-lines", strconv.Itoa(o.lines), "-kind", cmp.Or(o.kind, lines.Plain),
		"-size", strconv.Itoa(o.size), "-stderr-every", strconv.Itoa(o.stderrEvery),
	}, more...)
}

// spec is a container that writes it.
func (o output) spec(more ...string) harness.ContainerSpec {
	return harness.ContainerSpec{Name: o.name, Cmd: o.cmd(more...)}
}

// want gives the lines.
func (o output) want() []line {
	var all []line
	for n := max(o.from, 1); n <= o.lines; n++ {
		l := line{stream: "stdout", text: lines.Line(cmp.Or(o.kind, lines.Plain), o.name, n, o.size)}
		if o.stderrEvery > 0 && n%o.stderrEvery == 0 {
			l.stream = "stderr"
		}
		all = append(all, l)
	}
	return all
}

// rotated is spec with a log that rotates.
func rotated(s harness.ContainerSpec, size, files string, compress bool) harness.ContainerSpec {
	s.LogOpts = map[string]string{"max-size": size, "max-file": files}
	if compress {
		s.LogOpts["compress"] = "true"
	}
	return s
}

// onDisk reads log files of one container, oldest first, as Docker reads them.
func onDisk(t *testing.T, files ...string) []line {
	t.Helper()
	var text []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	return entries(t, text)
}

// entries decodes entries of Docker's json-file driver and joins fragments.
func entries(t *testing.T, text []byte) []line {
	t.Helper()
	type entry struct {
		Log, Stream string
		Time        time.Time
	}
	var all []line
	open := map[string]*line{}
	for l := range bytes.Lines(text) {
		var e entry
		if err := json.Unmarshal(l, &e); err != nil {
			t.Fatalf("%.200q: %v", l, err)
		}
		if o := open[e.Stream]; o != nil && !o.at.Equal(e.Time) {
			all = append(all, *o)
			delete(open, e.Stream)
		}
		if open[e.Stream] == nil {
			open[e.Stream] = &line{stream: e.Stream, at: e.Time}
		}
		o := open[e.Stream]
		whole := strings.HasSuffix(e.Log, "\n")
		o.text += strings.TrimSuffix(e.Log, "\n")
		if whole {
			o.text = strings.TrimSuffix(o.text, "\r")
			all = append(all, *o)
			delete(open, e.Stream)
		}
	}
	for _, o := range open {
		all = append(all, *o)
	}
	return all
}

// noMessage is what VictoriaLogs puts in the place of an empty text.
const noMessage = "missing _msg field; see https://docs.victoriametrics.com/victorialogs/keyconcepts/#message-field"

// found gives what the store has of a container, in the order of time: times,
// texts and streams.
func (w *world) found(container string) []line {
	return w.query(container, " | fields _time, _msg, stream")
}

// labelled is found with labels and structured metadata.
func (w *world) labelled(container string) []line { return w.query(container, "") }

func (w *world) query(container, more string) []line {
	w.t.Helper()
	rows := w.s.Query(w.t, fmt.Sprintf(`{job="log_capturer",container_name=%q}`, container)+more)
	all := make([]line, 0, len(rows))
	for _, r := range rows {
		at, err := time.Parse(time.RFC3339Nano, r["_time"])
		if err != nil {
			w.t.Fatal(err)
		}
		l := line{stream: r["stream"], text: r["_msg"], at: at, labels: r["_stream"], container: r["container_id"], fields: r}
		if l.text == noMessage {
			l.text = ""
		}
		all = append(all, l)
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.at.Compare(b.at) })
	return all
}

// counts gives how many lines the store has of each container.
func (w *world) counts() map[string]int {
	w.t.Helper()
	n := map[string]int{}
	for _, r := range w.s.Query(w.t, `{job="log_capturer"} | stats by (container_name) count() as n`) {
		n[r["container_name"]], _ = strconv.Atoi(r["n"])
	}
	return n
}

// outcome is what became of lines.
type outcome struct {
	doubled                      int
	missing, foreign, disordered []string // the first few
	nMissing, nForeign           int
}

func (o *outcome) lossless() bool { return o.nMissing+o.nForeign == 0 && len(o.disordered) == 0 }

func (o *outcome) String() string {
	return fmt.Sprintf("%d missing %.80q, %d foreign %.80q, %d doubled, out of order: %.80q",
		o.nMissing, o.missing, o.nForeign, o.foreign, o.doubled, o.disordered)
}

// compare holds what has arrived against what was written, stream by stream.
// Texts that occur more than once must come with their times.
func compare(want, got []line) outcome {
	const few = 5
	var o outcome
	type key struct {
		stream, text string
		at           int64
	}
	timed := len(want) > 0 && !want[0].at.IsZero()
	keyOf := func(l *line) key {
		k := key{stream: l.stream, text: l.text}
		if timed {
			k.at = l.at.UnixNano()
		}
		return k
	}
	index := make(map[key]int, len(want))
	for i := range want {
		index[keyOf(&want[i])] = i
	}
	seen := make([]int, len(want))
	last := map[string]int{}
	for i := range got {
		l := &got[i]
		n, ok := index[keyOf(l)]
		if !ok {
			if o.nForeign++; o.nForeign <= few {
				o.foreign = append(o.foreign, l.stream+" "+l.text)
			}
			continue
		}
		if seen[n]++; seen[n] > 1 {
			o.doubled++
		}
		if before, ok := last[l.stream]; ok && n < before && len(o.disordered) < few {
			o.disordered = append(o.disordered, l.text)
		}
		last[l.stream] = n
	}
	for i, n := range seen {
		if n == 0 && index[keyOf(&want[i])] == i {
			if o.nMissing++; o.nMissing <= few {
				o.missing = append(o.missing, want[i].stream+" "+want[i].text)
			}
		}
	}
	return o
}

// arrived waits until the store has as many lines of a container as were
// written, and compares. It gives how many are doubled; the rest fails the test.
func (w *world) arrived(container string, want []line) (doubled int) {
	w.t.Helper()
	harness.Within(40*time.Second, func() bool { return w.counts()[container] >= len(want) })
	o := compare(want, w.found(container))
	for range 3 { // doubled ones may have made up the number
		if o.nMissing == 0 || o.doubled == 0 {
			break
		}
		harness.Within(2*time.Second, func() bool { o = compare(want, w.found(container)); return o.nMissing == 0 })
	}
	if !o.lossless() {
		w.t.Errorf("container %s: of %d lines %s", container, len(want), &o)
	}
	return o.doubled
}

// once is arrived for each of some containers, with no line doubled.
func (w *world) once(all ...output) {
	w.t.Helper()
	for _, o := range all {
		w.onceLines(o.name, o.want())
	}
}

func (w *world) onceLines(container string, want []line) {
	w.t.Helper()
	switch n := w.arrived(container, want); {
	case n > 0 && w.cut():
		w.t.Logf("container %s: %d lines doubled: the store took them and did not answer within a second, so busy is the machine", container, n)
	case n > 0:
		w.t.Errorf("container %s: %d lines doubled", container, n)
	}
}

// cut reports whether an agent has given up waiting for an answer of the store. What
// it had sent may have been accepted, and is sent again.
func (w *world) cut() bool {
	return slices.ContainsFunc(w.agents, func(a *harness.Agent) bool {
		return strings.Contains(a.Log(), "the store has not answered in time")
	})
}

// delivered waits until the agent has delivered so many lines since its start.
func (w *world) delivered(a *harness.Agent, n float64) {
	w.t.Helper()
	harness.Eventually(w.t, 20*time.Second, fmt.Sprintf("%v lines delivered", n), func() bool { return a.Metrics()[metricDelivered] >= n })
}

// at walks down a decoded JSON object; nil where there is nothing.
func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// healthy waits until /health says ok, or degraded where that is enough.
func (w *world) health(a *harness.Agent, limit time.Duration, code int, status string, more func(body map[string]any) bool) {
	w.t.Helper()
	var c int
	var body map[string]any
	if !harness.Within(limit, func() bool {
		c, body = a.Health()
		return c == code && body["status"] == status && (more == nil || more(body))
	}) {
		text, _ := json.MarshalIndent(body, "", " ")
		w.t.Fatalf("/health is not %d %s as expected, but %d:\n%s", code, status, c, text)
	}
}

// problems gives the texts of the problems in /health.
func problems(body map[string]any) string {
	var b strings.Builder
	list, _ := body["problems"].([]any)
	for _, p := range list {
		fmt.Fprintf(&b, "%v: %v\n", at(p, "what"), at(p, "remedy"))
	}
	return b.String()
}

// deadLetter is a record of the dead-letter file.
type deadLetter struct {
	Kind, Reason, Stream string
	ContainerID          string    `json:"container_id"`
	ContainerName        string    `json:"container_name"`
	LineTime             time.Time `json:"line_time"`
	Position             string
	Inode                uint64
	Raw                  []byte
}

// wantPlace checks that the position of a dead letter leads to its line: in the file
// that has its inode number, the entry there is one that the line begins with.
func (d *deadLetter) wantPlace(t *testing.T, logPath string) {
	t.Helper()
	digits, named := strings.CutPrefix(d.Position, logPath+"@")
	offset, err := strconv.Atoi(digits)
	if !named || err != nil {
		t.Errorf("dead letter %q has the position %q, of %s", d.Raw, d.Position, logPath)
		return
	}
	files, err := filepath.Glob(logPath + "*") // it may have been rotated since
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		fi, err := os.Stat(path)
		if err != nil {
			continue
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Ino != d.Inode {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil || offset >= len(text) {
			t.Fatalf("%d bytes in %s, position %s: %v", len(text), path, d.Position, err)
		}
		text, _, _ = bytes.Cut(text[offset:], []byte("\n"))
		var e struct {
			Log, Stream string
			Time        time.Time
		}
		switch {
		case d.Kind == "malformed" && bytes.HasPrefix(text, d.Raw):
		case json.Unmarshal(text, &e) == nil && strings.HasPrefix(string(d.Raw), strings.TrimSuffix(e.Log, "\n")) && e.Stream == d.Stream && e.Time.Equal(d.LineTime):
		default:
			t.Errorf("dead letter %+v %q: at its position stands %q", d, d.Raw, text)
		}
		return
	}
	t.Errorf("dead letter %q: none of %v has the inode number %d", d.Raw, files, d.Inode)
}

func deadLetters(t *testing.T, a *harness.Agent) []deadLetter {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.DataDir(), "dead_letters", "dead_letters.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var all []deadLetter
	for l := range bytes.Lines(text) {
		var d deadLetter
		if err := json.Unmarshal(l, &d); err != nil {
			t.Fatalf("dead letter %q: %v", l, err)
		}
		all = append(all, d)
	}
	return all
}

// crafted gives an entry of Docker's.
func crafted(text, stream string, at time.Time) string {
	b, err := json.Marshal(struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}{text + "\n", stream, at.UTC()})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

// appendTo appends to a file, as somebody does who should not.
func appendTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := cmp.Or(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// truncate is truncate -s 0.
func truncate(t *testing.T, file string) {
	t.Helper()
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
}
