package monitors

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// TestModelLosses is TestModelFollow without mercy: a log that rotates as it
// likes, whatever the agent has seen, and leaves for the other road; the agent is
// stopped and killed. Lines may be missing then, but:
//
//   - if no gap is told, what is missing is counted, to the byte;
//   - with a gap at least as much is missing as is counted;
//   - if nothing is missing no bytes are counted, and a gap only where reading was
//     resumed in a file that is gone: whether it had been read to its end is not
//     known then;
//   - the container's own figures are those of all;
//   - no line in flight lies in a file without a name, after a look, unless its
//     source says so.
func TestModelLosses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newLossModel(rt)
		defer m.close()
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			m.step()
		}
		m.end()
	})
}

// lossLine is a line as it was written.
type lossLine struct {
	bytes int64 // of its entry
	file  int   // number of rotations before it
	state lossState
	away  bool // its log has left the road, in flight
}

type lossState uint8

const (
	lossUnread lossState = iota
	lossInFlight
	lossDelivered
)

type lossModel struct {
	rt         *rapid.T
	root, data string
	starts     int
	info       ContainerLogFileInfo
	w          *dockertest.Writer
	lines      []lossLine
	inFile     int // bytes since the last rotation: Docker rotates no empty file

	store    *positions.Store
	wake     *fakeWake
	reg      *prometheus.Registry
	m        *FileMonitor
	j        *joiner
	buf      []byte
	inFlight []shipped

	bytes, gaps float64 // counted by agents before
	doubt       bool    // reading was resumed: a gap may be told for nothing
}

func newLossModel(rt *rapid.T) *lossModel {
	root, err := os.MkdirTemp("", "lc")
	if err != nil {
		rt.Fatal(err)
	}
	m := &lossModel{rt: rt, root: root, data: filepath.Join(root, "data-0"), buf: make([]byte, rapid.SampledFrom([]int{300, 1000}).Draw(rt, "buffer"))}
	m.info = ContainerLogFileInfo{
		ID: "c", Name: "c", Host: "h", Image: "repo/app:1", Driver: DriverJSONFile, LogPath: filepath.Join(root, "c", "c-json.log"),
		Running: true, Created: t0, StartedAt: t0,
	}
	if err := os.Mkdir(filepath.Join(root, "c"), 0o700); err != nil {
		rt.Fatal(err)
	}
	m.w = dockertest.New(rt, m.info.LogPath, rapid.IntRange(1, 3).Draw(rt, "max-file"), rapid.Bool().Draw(rt, "compress"), rapid.Bool().Draw(rt, "unlink"))
	m.start()
	m.read(1) // before the first look at a log nobody knows what it has lost
	return m
}

func (m *lossModel) close() {
	m.w.Close()
	for _, lg := range m.m.logs {
		if lg.tail != nil {
			lg.tail.Close()
		}
	}
	_ = m.store.Close()
	_ = os.RemoveAll(m.root)
}

// start is a start of the agent.
func (m *lossModel) start() {
	var err error
	if m.store, err = positions.Open(positions.Config{Dir: m.data, Logger: discardLogger()}); err != nil {
		m.rt.Fatal(err)
	}
	m.wake, m.reg = newFakeWake(), prometheus.NewRegistry()
	m.m = NewFileMonitor(FileMonitorConfig{
		LogConfig: LogConfig{
			Outlet: newFakeOutlet(1), Registry: m.store, Spans: m.store, MaxLineBytes: 1 << 20,
			FirstStart: t0.Add(-time.Hour), Logger: discardLogger(), Lines: NewLineMetrics(m.reg),
		},
		Malformed: &fakeCopies{}, Tick: time.Second, ShipMalformed: true, Metrics: NewFileMetrics(m.reg), Wake: m.wake,
		Settled: settledIn(m.rt, m.root),
	})
	m.j = &joiner{maxLine: 1 << 20, shipMalformed: true, begin: m.store.Begin, started: m.m.cfg.startedAgain}
	m.info.stats = &entry.Stats{}
	m.m.add(m.info)
}

func (m *lossModel) step() {
	switch rapid.IntRange(0, 11).Draw(m.rt, "step") {
	case 0, 1, 2:
		m.write()
	case 3, 4:
		m.rotate()
	case 5:
		m.handle()
	case 6:
		m.look()
	case 7, 8:
		m.read(1)
	case 9:
		m.ack()
	case 10:
		m.leave()
	case 11:
		m.restart(rapid.Bool().Draw(m.rt, "kill -9"))
	}
}

func (m *lossModel) write() {
	n := len(m.lines)
	e := jsonEntry("stdout", fmt.Sprintf("%d %s\n", n, strings.Repeat("x", rapid.IntRange(0, 150).Draw(m.rt, "size"))), at(n))
	if m.w.Write([]byte(e)) {
		m.lines = append(m.lines, lossLine{bytes: int64(len(e)), file: m.w.Rotations})
		m.inFile += len(e)
		m.wake.Tell(filepath.Dir(m.w.Path), WakeEvent{Written: true})
	}
}

// rotate is one rotation, with the line that has caused it.
func (m *lossModel) rotate() {
	if m.inFile == 0 {
		return
	}
	if m.w.Compressing() {
		m.w.Finish()
	}
	m.w.Rotate()
	for m.w.Rotating() {
		m.w.Step()
	}
	m.wake.Tell(filepath.Dir(m.w.Path), WakeEvent{Appeared: true, Created: true})
	m.inFile = 0
	m.write()
}

func (m *lossModel) handle() {
	m.m.handle(m.wake.Wait(time.Time{}, nil))
}

// look is the poll, after which a source is known to be unlinked.
func (m *lossModel) look() {
	m.m.poll()
	lg := m.m.logs["c"]
	if lg == nil || lg.tail == nil || lg.current.Unlinked.Load() {
		return
	}
	named := m.w.Rotations - m.w.LastPart()
	for _, l := range m.lines {
		if l.state == lossInFlight && !l.away && l.file < named {
			m.rt.Fatalf("a line of file %d is in flight, %d is the oldest with a name, and its source does not say so", l.file, named)
		}
	}
}

func (m *lossModel) read(visits int) {
	var b entry.Batch
	visited := false
	for range visits {
		lg := m.m.take(0)
		if lg == nil {
			break
		}
		m.m.read(m.j, lg, &b, m.buf)
		visited = true
	}
	m.j.counts, m.j.malformed = visitCounts{}, nil
	for _, l := range linesOf(&b) {
		var n int
		if l.class == entry.ClassMalformed {
			m.rt.Fatalf("malformed: %q", l.text)
		}
		if _, err := fmt.Sscan(l.text, &n); err != nil {
			m.rt.Fatal(err)
		}
		if m.lines[n].state != lossUnread {
			m.rt.Fatalf("line %d comes twice", n)
		}
		m.lines[n].state = lossInFlight
		m.inFlight = append(m.inFlight, l)
	}
	if lg := m.m.logs["c"]; lg != nil && visited && len(m.inFlight) == 0 && lg.state == stateActive && lg.tail.Held() == 1 && lg.current.Unlinked.Load() {
		saved, _ := m.store.Lookup("c")
		m.rt.Fatalf("all is read and delivered, and the source is marked: needed %d, named %d, %+v", lg.needed, lg.tail.Named(), saved)
	}
}

// ack delivers what is on its way.
func (m *lossModel) ack() {
	for _, l := range m.inFlight {
		var n int
		_, _ = fmt.Sscan(l.text, &n)
		m.lines[n].state = lossDelivered
		if err := m.store.Ack([]entry.Span{l.span}); err != nil {
			m.rt.Fatal(err)
		}
	}
	m.inFlight = nil
}

// leave lets the log go to the stream, of which this model knows nothing but that
// it has what has a name, and come back before the stream has read anything.
func (m *lossModel) leave() {
	lg := m.m.logs["c"]
	if lg == nil || lg.tail == nil || !rapid.Bool().Draw(m.rt, "leave") {
		return
	}
	m.rt.Log("leaves")
	m.m.ready[0].logs = nil
	lg.state = stateFailed
	if !m.m.release("c") {
		m.rt.Fatal("not released")
	}
	for i := range m.lines {
		m.lines[i].away = m.lines[i].state == lossInFlight
	}
	if !lg.current.Unlinked.Load() {
		m.rt.Fatal("nobody looks after the files of what is on its way, and its source does not say so")
	}
	m.doubt = true
	m.m.add(m.info)
}

// counted adds what the agent has counted.
func (m *lossModel) counted() {
	bytes, gaps := sumOf(m.rt, m.reg, "lost_bytes_total"), sumOf(m.rt, m.reg, "file_gaps_total")
	if s := m.info.stats; float64(s.LostBytes.Load()) != bytes || float64(s.Gaps.Load()) != gaps {
		m.rt.Fatalf("by container %d bytes and %d gaps, in all %v and %v", s.LostBytes.Load(), s.Gaps.Load(), bytes, gaps)
	}
	m.bytes += bytes
	m.gaps += gaps
}

// restart ends the agent, in peace or not, and starts it again.
func (m *lossModel) restart(kill bool) {
	m.rt.Logf("restart, killed: %v", kill)
	if m.w.Compressing() {
		m.w.Finish()
	}
	m.starts++
	before := m.data
	if kill {
		m.data = filepath.Join(m.root, fmt.Sprintf("data-%d", m.starts))
		copyDir(m.rt, before, m.data)
	} else if rapid.Bool().Draw(m.rt, "drained") {
		m.ack()
	}
	for _, lg := range m.m.logs {
		if lg.tail == nil {
			continue
		}
		if kill {
			lg.tail.Close()
		} else {
			m.m.mu.Lock()
			m.m.close(lg, lostStopped)
			m.m.mu.Unlock()
		}
	}
	m.m.logs = map[string]*fileLog{}
	m.counted()
	if err := m.store.Close(); err != nil {
		m.rt.Fatal(err)
	}
	for i := range m.lines {
		if m.lines[i].state == lossInFlight {
			m.lines[i].state = lossUnread
		}
	}
	m.inFlight, m.doubt = nil, true
	for range rapid.IntRange(0, 3).Draw(m.rt, "meanwhile") {
		m.rotate()
	}
	m.start()
}

func (m *lossModel) end() {
	m.w.Finish()
	m.handle()
	for range 1000 {
		if m.m.logs["c"] == nil {
			break
		}
		m.m.containerExited("c")
		m.m.poll()
		m.m.tick(nil)
		m.read(10)
	}
	if lg := m.m.logs["c"]; lg != nil {
		m.rt.Fatalf("log is never done: state %d", lg.state)
	}
	m.ack()
	m.counted()
	var missing float64
	for _, l := range m.lines {
		if l.state != lossDelivered {
			missing += float64(l.bytes)
		}
	}
	told := fmt.Sprintf("%v bytes are missing, %v counted, and %v gaps (%v)", missing, m.bytes, m.gaps, m.w)
	if m.bytes > missing || m.gaps == 0 && m.bytes != missing || missing == 0 && m.gaps > 0 && !m.doubt {
		m.rt.Fatal(told)
	}
}

// sumOf is metric for a model.
func sumOf(rt *rapid.T, reg *prometheus.Registry, name string) (sum float64) {
	families, err := reg.Gather()
	if err != nil {
		rt.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "log_capturer_"+name {
			for _, c := range f.GetMetric() {
				sum += c.GetCounter().GetValue()
			}
		}
	}
	return sum
}
