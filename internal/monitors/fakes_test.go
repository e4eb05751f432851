package monitors

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors/waketest"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// t0 is when the containers of the tests were created.
var t0 = time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)

func discardLogger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// metric gives the value of a counter or gauge of a registry.
func metric(t testing.TB, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "log_capturer_"+name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			if f.GetType() == dto.MetricType_GAUGE {
				sum += m.GetGauge().GetValue()
			} else {
				sum += m.GetCounter().GetValue()
			}
		}
		return sum
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// jsonEntry is one entry as Docker writes it.
func jsonEntry(stream, log string, t time.Time) string {
	return fmt.Sprintf("{\"log\":%s,\"stream\":%q,\"time\":%q}\n", jsonQuote(log), stream, t.UTC().Format(time.RFC3339Nano))
}

// jsonQuote escapes as Docker does; see docker_json_parser_test.go for the
// characters that tests of joining do not need.
func jsonQuote(s string) string {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		switch c {
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '"', '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// fakeWake is the notifications that a test gives.
type fakeWake = waketest.Source[WakeEvent]

func newFakeWake() *fakeWake {
	return waketest.New(func(e *WakeEvent) (wd *int, written bool) { return &e.WD, e.Written })
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// shipped is a line that an outlet was given.
type shipped struct {
	text, name string
	time       int64
	class      entry.Class
	flags      entry.Flags
	labels     string
	span       entry.Span
	place      entry.Place
}

// fakeOutlet collects the lines.
type fakeOutlet struct {
	lanes  int
	laneOf func(string) int
	// room, unless nil, is received from before a batch is given.
	room chan struct{}
	// news is signalled after each batch with lines.
	news chan struct{}
	// limit is that of the batches.
	limit int

	mu    sync.Mutex
	lines []shipped
}

func newFakeOutlet(lanes int) *fakeOutlet {
	return &fakeOutlet{lanes: lanes, limit: 1 << 20, news: make(chan struct{}, 1)}
}

func (o *fakeOutlet) Lanes() int { return o.lanes }

func (o *fakeOutlet) LaneOf(name string) int {
	if o.laneOf != nil {
		return o.laneOf(name)
	}
	return len(name) % o.lanes
}

func (o *fakeOutlet) Reserve(ctx context.Context, _ int) (*entry.Batch, error) {
	if o.room != nil {
		select {
		case <-o.room:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &entry.Batch{Limit: o.limit}, ctx.Err()
}

func (o *fakeOutlet) Submit(_ int, b *entry.Batch) {
	lines := linesOf(b)
	o.mu.Lock()
	o.lines = append(o.lines, lines...)
	o.mu.Unlock()
	if len(lines) > 0 {
		signal(o.news)
	}
}

// take gives the lines that have come, and forgets them.
func (o *fakeOutlet) take() []shipped {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.lines
	o.lines = nil
	return lines
}

// linesOf copies the lines of a batch.
func linesOf(b *entry.Batch) (lines []shipped) {
	for i := range b.Sections {
		s := &b.Sections[i]
		for k := range b.SectionLines(s) {
			l := &b.SectionLines(s)[k]
			lines = append(lines, shipped{
				text: string(b.Message(l)), name: s.Source.Name, time: l.Time, class: l.Class, flags: l.Flags &^ entry.FlagOpen,
				labels: s.Source.Labels[l.Class].String(),
				span:   entry.Span{Log: s.Source.Log, Stream: l.Class.Stream(), Seq: s.Seq[l.Class.Stream()]},
				place:  s.Place(l),
			})
		}
	}
	return lines
}

func texts(lines []shipped) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.text
	}
	return out
}

// checkPlaces checks that what stands at the places of lines, in one of the files, is
// what they begin with, or are pieces of.
func checkPlaces(t testing.TB, lines []shipped, files ...string) {
	t.Helper()
	for _, l := range lines {
		found := false
		for _, path := range files {
			if inodeOf(t, path) != l.place.Inode {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var e DockerJSONLogLine
			data = data[l.place.Offset:]
			_, message, err := ParseDockerJSONLogLine(&e, data, nil)
			text := string(message)
			if err != nil {
				text = strings.ToValidUTF8(string(e.Raw), "\ufffd")
			}
			if found = data[0] != 0 && (strings.HasPrefix(l.text, strings.TrimSuffix(text, "\r")) || strings.Contains(text, l.text)); !found {
				t.Errorf("%.40q is said to stand where %.40q does", l.text, text)
			}
			found = true
		}
		if !found {
			t.Errorf("%.40q is said to stand in file %+v", l.text, l.place)
		}
	}
}

func inodeOf(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// fakeCopies collects the copies of malformed lines.
type fakeCopies struct {
	mu     sync.Mutex
	copies []MalformedLine
}

func (c *fakeCopies) CopyMalformed(lines []MalformedLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.copies = append(c.copies, lines...)
}

// fixture is a FileMonitor on real files with everything around it fake but the
// positions.
type fixture struct {
	t      testing.TB
	dir    string // Docker's directory of containers
	data   string // of the positions
	store  *positions.Store
	outlet *fakeOutlet
	copies *fakeCopies
	wake   *fakeWake
	reg    *prometheus.Registry
	m      *FileMonitor
	// written is the bytes that write has written.
	written int
}

// newFixture makes a monitor; change may change its configuration.
func newFixture(t testing.TB, wake wakeSource, change func(*FileMonitorConfig)) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), data: t.TempDir(), outlet: newFakeOutlet(1), copies: &fakeCopies{}}
	t.Cleanup(func() { _ = f.store.Close() })
	f.start(wake, change)
	return f
}

// start makes the monitor (again): a start of the agent.
func (f *fixture) start(wake wakeSource, change func(*FileMonitorConfig)) {
	f.t.Helper()
	if f.store != nil {
		if err := f.store.Close(); err != nil {
			f.t.Fatal(err)
		}
	}
	var err error
	f.store, err = positions.Open(positions.Config{Dir: f.data, Logger: discardLogger()})
	if err != nil {
		f.t.Fatal(err)
	}
	f.reg = prometheus.NewRegistry()
	cfg := FileMonitorConfig{
		LogConfig: LogConfig{
			Outlet: f.outlet, Registry: f.store, Spans: f.store, MaxLineBytes: 256 << 10,
			FirstStart: t0.Add(-time.Hour), Logger: discardLogger(), Lines: NewLineMetrics(f.reg),
		},
		Malformed: f.copies, Tick: 100 * time.Millisecond, ShipMalformed: true, Metrics: NewFileMetrics(f.reg),
		Settled: settledIn(f.t, f.dir),
	}
	if change != nil {
		change(&cfg)
	}
	if wake == nil {
		f.wake = newFakeWake()
		wake = outside{newPollOnly(), f.wake}
	}
	f.m = newFileMonitor(cfg, wake)
	f.outlet, _ = cfg.Outlet.(*fakeOutlet)
}

// settledIn is FileMonitorConfig.Settled for a test whose clock is not that of its
// files: the poll looks at the files held wherever that shows every change.
func settledIn(t dockertest.TB, dir string) time.Duration {
	if dockertest.FineTimes(t, dir) {
		return -1
	}
	return tail.DefaultSettled
}

// info describes a running container whose name is its ID, and makes its
// directory.
func (f *fixture) info(id string) ContainerLogFileInfo {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Join(f.dir, id), 0o700); err != nil {
		f.t.Fatal(err)
	}
	return ContainerLogFileInfo{
		ID: id, Name: id, Host: "h", Image: "repo/app:1", Driver: DriverJSONFile, LogPath: f.path(id),
		Running: true, Created: t0, StartedAt: t0,
	}
}

func (f *fixture) path(id string) string { return filepath.Join(f.dir, id, id+"-json.log") }

// write appends to a container's log.
func (f *fixture) write(id string, entries ...string) {
	f.t.Helper()
	appendTo(f.t, f.path(id), entries...)
	for _, e := range entries {
		f.written += len(e)
	}
}

func appendTo(t testing.TB, path string, entries ...string) {
	t.Helper()
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := w.WriteString(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// work reads everything that is queued in the lanes, as the readers would.
func (f *fixture) work() []shipped {
	f.t.Helper()
	var lines []shipped
	for lane := range f.m.ready {
		j := f.joiner()
		buf := make([]byte, readBytes)
		for lg := f.m.take(lane); lg != nil; lg = f.m.take(lane) {
			var b entry.Batch
			f.m.read(j, lg, &b, buf)
			f.copies.CopyMalformed(j.malformed)
			f.m.count(&j.counts)
			j.malformed = nil
			lines = append(lines, linesOf(&b)...)
		}
	}
	return lines
}

func (f *fixture) joiner() *joiner {
	return &joiner{
		maxLine: f.m.cfg.MaxLineBytes, shipMalformed: f.m.cfg.ShipMalformed,
		begin: f.m.cfg.Spans.Begin, started: f.m.cfg.startedAgain,
	}
}

// ack acknowledges the spans of lines.
func (f *fixture) ack(lines []shipped) {
	f.t.Helper()
	seen := make(map[entry.Span]bool)
	for _, l := range lines {
		if !seen[l.span] {
			seen[l.span] = true
			if err := f.store.Ack([]entry.Span{l.span}); err != nil {
				f.t.Fatal(err)
			}
		}
	}
}

// ourGoroutines counts those that have something of this project on their stacks.
// runtime.NumGoroutine will not do: the runtime's own come and go.
func ourGoroutines() (n int) {
	stacks := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(stack, "log_capturer/internal/") {
			n++
		}
	}
	return n
}
