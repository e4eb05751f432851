package monitors

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// TestModelFollow lets a writer that does what Docker does, the monitors' own
// steps, deliveries, acknowledgements, events of the engine (late) and of the
// kernel (late or lost), hand-overs between the file and the stream, and crashes
// of the agent come in any order. The oracle is the list of lines written. As
// long as every file was on disk when it was looked for, and nothing rotates
// while the log is streamed (the engine itself loses lines then):
//
//   - no line is missing, and each stream's come in order;
//   - no line comes twice, except those that were not acknowledged at a crash;
//   - what comes bears the text, the time and the name that it had when written;
//   - it is counted, and nothing is counted as lost.
//
// What is lost when there is no such mercy is TestModelLosses.
func TestModelFollow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		defer m.close()
		for range rapid.IntRange(1, 120).Draw(rt, "steps") {
			m.step()
		}
		m.end()
	})
}

// place is how far a stream's lines have come: line i, of which off bytes have
// been shipped as pieces.
type place struct{ i, off int }

// modelLine is a line as the container wrote it.
type modelLine struct {
	text  string
	time  int64
	name  string
	ended bool // its newline was written
	run   int
}

// modelSpan is the lines of a stream in one section, on their way.
type modelSpan struct {
	span  entry.Span
	lines []shipped
	after place // once delivered
	bad   int   // malformed lines delivered with it and before
}

// modelStream is one output of the container.
type modelStream struct {
	written []modelLine
	open    bool // the last line is a fragment so far
	clock   int64
	// on are the spans on their way, in order: first those that are delivered
	// and not acknowledged, then those that are not delivered.
	on        []*modelSpan
	delivered int // of on
	// first says after how many rotations the first entry of a time was written.
	first map[int64]int
	at    place // of what has been delivered
	acked place
}

type model struct {
	rt       *rapid.T
	dir      string // of the container
	data     string // of the positions
	starts   int    // of the agent
	w        *dockertest.Writer
	clock    int64
	streams  [entry.NumStreams]modelStream
	full     bool     // there are malformed lines; of those, times say nothing
	garbage  []string // malformed lines written
	badSeen  int      // malformed lines delivered, the repeated ones counted once
	badAt    int      // the next one expected; -1: any that is not behind badAcked
	badAcked int

	pace int64 // nanoseconds between lines, times 0 to 3

	// The container as the engine knows it, and what the agent has not been
	// told yet.
	name                string
	renamed             bool // at the latest start
	run                 int
	startedAt, finished int64
	news                []func()

	store  *positions.Store
	wake   *fakeWake
	fm     *FileMonitor
	j      *joiner
	buf    []byte
	looked int // rotations done when the agent had last seen every file

	// What has been read, by the container's counters and by the lines that came.
	stats *entry.Stats
	came  int64

	// The other road.
	road Route
	api  *fakeAPI
	sm   *StreamMonitor
	sj   *joiner
	conn *fakeStream // nil: not connected
	sr   streamRun   // of conn
	// A position without a file is good for timeLeft rotations after timeAt.
	timeLeft, timeAt int
}

// modelOutlet gives the model what is submitted.
type modelOutlet struct {
	*fakeOutlet
	m *model
}

func (o modelOutlet) Submit(_ int, b *entry.Batch) { o.m.sent(b) }

const modelID = "0123456789abcdef"

func newModel(rt *rapid.T) *model {
	root, err := os.MkdirTemp("", "lc")
	if err != nil {
		rt.Fatal(err)
	}
	m := &model{
		rt: rt, dir: filepath.Join(root, modelID), data: filepath.Join(root, "data-0"),
		clock: t0.UnixNano(), name: "web", road: routeFile, api: newFakeAPI(), stats: &entry.Stats{},
		buf: make([]byte, rapid.SampledFrom([]int{400, 700, 2000}).Draw(rt, "buffer")),
	}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		rt.Fatal(err)
	}
	m.full = rapid.Bool().Draw(rt, "malformed lines")
	maxFiles := rapid.IntRange(1, 4).Draw(rt, "max-file")
	m.w = dockertest.New(rt, filepath.Join(m.dir, modelID+"-json.log"), maxFiles,
		rapid.Bool().Draw(rt, "compress"), rapid.Bool().Draw(rt, "unlink"))
	m.pace = rapid.SampledFrom([]int64{1, crossStreams * 3 / 5}).Draw(rt, "pace")
	m.startedAt = m.clock
	for s := range m.streams {
		m.streams[s].first = make(map[int64]int)
	}
	m.api.firstMatch = rapid.Bool().Draw(rt, "since ends at its first match")
	m.api.start(modelID)
	m.startAgent()
	m.add()
	return m
}

// add tells the road that the log takes of the container as it is now.
func (m *model) add() {
	if m.road == routeStream {
		m.sm.add(m.info())
	} else {
		m.fm.add(m.info())
	}
}

func (m *model) close() {
	m.w.Close()
	m.stopAgent()
	_ = m.store.Close()
	_ = os.RemoveAll(filepath.Dir(m.dir))
}

// log gives what the agent has of the log; nil if it has nothing in hand.
func (m *model) log() *fileLog { return m.fm.logs[modelID] }

func (m *model) held() *tail.Log {
	if lg := m.log(); lg != nil {
		return lg.tail
	}
	return nil
}

// info is what an inspection of the container gives now.
func (m *model) info() ContainerLogFileInfo {
	i := ContainerLogFileInfo{
		ID: modelID, Name: m.name, Image: "repo/app:1", Host: "h", Driver: DriverJSONFile, LogPath: m.w.Path,
		Running: !m.w.Stopped(), Created: t0, StartedAt: time.Unix(0, m.startedAt), stats: m.stats,
	}
	if m.finished > 0 {
		i.FinishedAt = time.Unix(0, m.finished)
	}
	return i
}

func (m *model) startAgent() {
	var err error
	m.store, err = positions.Open(positions.Config{Dir: m.data, Logger: discardLogger()})
	if err != nil {
		m.rt.Fatal(err)
	}
	m.wake = newFakeWake()
	reg := prometheus.NewRegistry()
	m.fm = NewFileMonitor(FileMonitorConfig{
		LogConfig: LogConfig{
			Outlet: newFakeOutlet(1), Registry: m.store, Spans: m.store, MaxLineBytes: 1 << 20,
			FirstStart: t0.Add(-time.Hour), Logger: discardLogger(), Lines: NewLineMetrics(reg),
		},
		Malformed: &fakeCopies{}, Tick: time.Second, ShipMalformed: true, Metrics: NewFileMetrics(reg), Wake: m.wake,
		Settled: settledIn(m.rt, filepath.Dir(m.data)),
	})
	logs := m.fm.cfg.LogConfig
	logs.Outlet = modelOutlet{newFakeOutlet(1), m}
	m.sm = NewStreamMonitor(StreamMonitorConfig{LogConfig: logs, Open: m.api.Open, MaxStreams: 1, Metrics: NewStreamMetrics(reg)})
	m.conn = nil
	m.j = &joiner{maxLine: 1 << 20, shipMalformed: true, begin: m.store.Begin, started: m.fm.cfg.startedAgain}
}

func (m *model) stopAgent() {
	for _, lg := range m.fm.logs {
		if lg.tail != nil {
			lg.tail.Close()
		}
	}
}

// account holds the container's counters against what has come: as long as no line
// is missing no byte is lost.
func (m *model) account() {
	if read, lost := m.stats.Read.Load(), m.stats.LostBytes.Load(); read != m.came || lost != 0 {
		m.rt.Fatalf("%d lines came, %d were counted; %d bytes are counted as lost", m.came, read, lost)
	}
}

// look notes when the agent has seen every file there is. In mid-rotation there
// may be no log, and nothing to be seen of that.
func (m *model) look() {
	if t := m.held(); t != nil && !m.w.Rotating() {
		if state, err := t.Check(); err == nil && state != tail.Rotated {
			m.looked = m.w.Done()
		}
	}
}

// rotationsLeft is how many more rotations leave everything within the agent's
// reach: while it holds the newest file, as many as there are files; else the
// file in which its position is must stay on disk.
func (m *model) rotationsLeft() int {
	switch {
	case m.road == routeStream:
		return 0
	case m.held() != nil:
		return m.w.MaxFiles - (m.w.Rotations - m.looked)
	}
	return m.w.LastPart() - (m.w.Rotations - m.looked)
}

func (m *model) step() {
	switch rapid.IntRange(0, 20).Draw(m.rt, "step") {
	case 0, 1, 2, 3, 4, 5:
		m.write()
	case 6, 7, 8, 9:
		m.read()
	case 10, 11:
		m.kernel()
	case 12, 13, 14:
		m.deliver(entry.Stream(rapid.IntRange(0, 1).Draw(m.rt, "stream")))
	case 15, 16:
		m.ack(entry.Stream(rapid.IntRange(0, 1).Draw(m.rt, "stream")))
	case 17:
		m.tell()
	case 18:
		m.containerStep()
	case 19:
		m.restart()
	case 20:
		m.handOver()
	}
	m.look()
}

// write does one thing that Docker's logger does.
func (m *model) write() {
	switch k := rapid.IntRange(0, 9).Draw(m.rt, "write"); {
	case k < 4:
		m.writeEntry(entry.Stream(rapid.IntRange(0, 1).Draw(m.rt, "stream")))
	case k == 4:
		if m.rotationsLeft() > 0 {
			m.w.Rotate()
		}
	case k == 5 && m.full:
		text := fmt.Sprintf("garbage %d", len(m.garbage))
		if m.w.Write([]byte(text + "\n")) {
			m.garbage = append(m.garbage, text)
			m.rt.Logf("written: malformed %q after %d rotations", text, m.w.Rotations)
			m.wake.Tell(m.dir, WakeEvent{Written: true})
		}
	default:
		m.docker()
	}
}

// docker does one step of a rotation or compression.
func (m *model) docker() {
	if m.w.Step() {
		// One event may stand for several, or be lost.
		if rapid.IntRange(0, 3).Draw(m.rt, "lost") > 0 {
			m.wake.Tell(m.dir, WakeEvent{Appeared: true})
		}
	}
}

// writeEntry writes a line of a stream, a fragment of one, or the rest of one.
func (m *model) writeEntry(s entry.Stream) {
	st := &m.streams[s]
	shape := rapid.IntRange(0, 5).Draw(m.rt, "shape")
	text := ""
	if size := rapid.IntRange(0, 24).Draw(m.rt, "size"); size > 0 {
		text = strings.Repeat(string(rune('a'+size)), size-1) + rapid.SampledFrom([]string{"x", "\"", "\u00fc", "\\"}).Draw(m.rt, "last")
	}
	ended := shape > 1
	at := st.clock
	if !st.open {
		m.clock += m.pace * rapid.Int64Range(0, 3).Draw(m.rt, "later")
		// The streams race for the writer: across them times may fall.
		at = max(st.clock, m.clock-rapid.Int64Range(0, 2).Draw(m.rt, "behind"), m.startedAt)
		text = fmt.Sprintf("%v %d ", s, len(st.written)) + text
	}
	raw := text
	if ended {
		raw += "\n"
	}
	if ended && shape == 5 {
		raw = text + "\r\n"
	}
	e := jsonEntry(s.String(), raw, time.Unix(0, at))
	if raw == "" {
		e = fmt.Sprintf("{\"stream\":%q,\"time\":%q}\n", s.String(), time.Unix(0, at).UTC().Format(time.RFC3339Nano))
	}
	if shape == 4 {
		e = strings.Replace(e, `,"time"`, `,"attrs":{"env":"prod"},"time"`, 1)
	}
	if !m.w.Write([]byte(e)) {
		return
	}
	m.wake.Tell(m.dir, WakeEvent{Written: true})
	m.rt.Logf("written: %v %q, time %d, after %d rotations", s, raw, at-t0.UnixNano(), m.w.Rotations)
	m.api.change(modelID, func(l *fakeAPILog) {
		l.entries = append(l.entries, apiEntry{stderr: s == entry.Stderr, time: at, text: raw})
	})
	st.clock = at
	if _, known := st.first[at]; !known {
		st.first[at] = m.w.Rotations
	}
	if !st.open {
		st.written = append(st.written, modelLine{time: at, name: m.name, run: m.run})
	}
	l := &st.written[len(st.written)-1]
	l.text += text
	l.ended = ended
	st.open = !ended
}

// containerStep lets the container exit, or start again, perhaps renamed.
func (m *model) containerStep() {
	switch {
	case m.w.Stopped():
		m.start()
	case !m.rotatedEmpty():
		m.exit()
	}
	m.rt.Logf("container stopped: %v", m.w.Stopped())
}

// rotatedEmpty reports whether a rotation has just made the log. Docker rotates
// because a line comes, so that it is empty for microseconds only; an empty file
// that is compressed later would not be known again.
func (m *model) rotatedEmpty() bool {
	st, err := os.Stat(m.w.Path)
	return m.w.Rotating() || m.w.Rotations > 0 && (err != nil || st.Size() == 0)
}

func (m *model) exit() {
	m.w.Stop()
	for s := range m.streams {
		m.streams[s].open = false
	}
	m.clock += 5
	m.finished = m.clock
	m.api.exit(modelID)
	m.news = append(m.news, func() {
		m.fm.containerExited(modelID)
		m.sm.containerExited(modelID)
	})
}

func (m *model) start() {
	if m.w.Compressing() {
		m.w.Finish()
	}
	// A rename counts from the next start. The position knows two names: those
	// of the latest start and of what came before it. Of a log that was never
	// read nothing is known.
	before, _ := m.store.Lookup(modelID)
	settled := before.Note != "" && len(m.news) == 0
	for s := range m.streams {
		st := &m.streams[s]
		for _, l := range st.written[min(st.acked.i, len(st.written)):] {
			settled = settled && l.run == m.run
		}
	}
	lg, names := m.core()
	switching := lg != nil && (names.coming != nil || lg.next != nil)
	if m.renamed && (switching || len(m.news) > 0) {
		return // of three names at a time the middle one may not be used
	}
	settled = settled && !switching
	m.renamed = settled && rapid.Bool().Draw(m.rt, "renamed")
	if m.renamed {
		m.name = fmt.Sprintf("web%d", m.run)
	}
	m.run++
	m.clock += 5
	m.startedAt = m.clock
	m.w.Start()
	m.api.start(modelID)
	m.news = append(m.news, m.add)
	if m.renamed && lg != nil {
		m.tell() // the first lines of a start that is not known bear the name before
	}
	m.settle()
}

// core is what the road of the log has of it; nil if nothing.
func (m *model) core() (*containerLog, *startNames) {
	if m.road == routeStream {
		if lg := m.sm.logs[modelID]; lg != nil {
			return &lg.containerLog, &lg.startNames
		}
	} else if lg := m.log(); lg != nil {
		return &lg.containerLog, &lg.startNames
	}
	return nil, nil
}

// settle tells of a start before the agent takes its first fragment for the last
// one of the run before: in that moment a line may be cut in two.
func (m *model) settle() {
	for lg := m.log(); lg != nil && lg.exited && !m.w.Stopped() && len(m.news) > 0; lg = m.log() {
		m.tell()
	}
}

// tell lets the agent hear the engine's next event.
func (m *model) tell() {
	if len(m.news) > 0 {
		f := m.news[0]
		m.news = m.news[1:]
		f()
		m.settle()
	}
}

// kernel lets the agent hear of files, or look without having heard.
func (m *model) kernel() {
	switch rapid.IntRange(0, 3).Draw(m.rt, "wake") {
	case 0:
		m.fm.handle(m.wake.Wait(time.Time{}, nil))
	case 1:
		m.fm.poll()
	case 2:
		m.fm.tick(nil)
	case 3:
		m.add() // one more look at the list
	}
}

// read lets the lane's reader visit some logs.
func (m *model) read() {
	if m.road == routeStream {
		m.readStream()
		return
	}
	var b entry.Batch
	for range rapid.IntRange(1, 3).Draw(m.rt, "visits") {
		lg := m.fm.take(0)
		if lg == nil {
			break
		}
		m.fm.read(m.j, lg, &b, m.buf)
		m.look()
	}
	m.j.counts, m.j.malformed = visitCounts{}, nil
	m.sent(&b)
}

// readStream lets a stream be opened, or read as far as it goes without waiting.
func (m *model) readStream() {
	lg := m.sm.logs[modelID]
	if m.conn == nil {
		for !lg.running && !m.w.Stopped() && len(m.news) > 0 {
			m.tell() // else a fragment of the new run may be taken for the last one of that before
		}
		if !lg.running && !lg.unread() {
			return
		}
		m.sr = streamRun{follow: rapid.Bool().Draw(m.rt, "follow"), running: lg.running, exits: lg.exits}
		lg.hand(&lg.containerLog)
		s, err := m.sm.open(context.Background(), lg, docker.LogsOptions{Follow: m.sr.follow})
		if err != nil {
			m.rt.Fatal(err)
		}
		m.conn, _ = s.(*fakeStream)
		m.sj = &joiner{maxLine: 1 << 20, begin: m.store.Begin, started: m.sm.cfg.startedAgain}
	}
	for range rapid.IntRange(1, 20).Draw(m.rt, "entries") {
		if !m.conn.Buffered() && !m.conn.ended() {
			return
		}
		f, err := m.conn.Next()
		if err != nil {
			m.endStream(lg)
			return
		}
		if err := m.sm.take(context.Background(), lg, m.sj, &oneEntry{m.conn}, f); err != nil {
			m.rt.Fatal(err)
		}
	}
}

// oneEntry is a stream whose entries come one by one.
type oneEntry struct{ *fakeStream }

func (oneEntry) Buffered() bool { return false }

// endStream is what StreamMonitor.stream does at a clean end, without waiting.
func (m *model) endStream(lg *streamLog) {
	m.conn = nil
	m.rt.Logf("stream has ended: %+v, %d exits are known", m.sr, lg.exits)
	if !m.sr.over(lg.exits) {
		return
	}
	if err := m.sm.endLines(context.Background(), lg, m.sj); err != nil {
		m.rt.Fatal(err)
	}
	lg.readExits = m.sr.exits
	if m.sr.running {
		lg.readExits++
	}
}

// handOver lets the log change its road in the middle of everything.
func (m *model) handOver() {
	if m.full {
		return // the API stops at malformed lines
	}
	if rapid.Bool().Draw(m.rt, "all is told") {
		for len(m.news) > 0 {
			m.tell()
		}
	}
	if m.road == routeStream {
		m.sm.release(modelID, func() {})
		m.conn, m.road = nil, routeFile
		m.add()
		m.rt.Log("to the file")
		return
	}
	for m.w.Rotating() {
		m.w.Step()
	}
	if !m.canStream(m.data) {
		return
	}
	m.fm.ready[0].logs = nil
	if lg := m.log(); lg != nil {
		lg.state = stateFailed
	}
	if !m.fm.release(modelID) {
		m.rt.Fatal("not released")
	}
	m.road = routeStream
	m.add()
	m.rt.Log("to the stream")
}

// canStream reports whether everything that is not delivered is on disk, so that
// the engine can give it, and notes how long that will be so.
func (m *model) canStream(data string) bool {
	saved, left := m.find(data)
	if left < 0 || !m.whole(saved) {
		return false
	}
	if now, known := m.store.Lookup(modelID); known && !m.whole(now) || m.pieces() {
		return false
	}
	m.timeLeft, m.timeAt = left, m.w.Rotations
	return true
}

// pieces reports whether a part of a line has been shipped and the rest has not:
// by time alone the rest cannot always be told from what was before.
func (m *model) pieces() bool {
	for s := range m.streams {
		st := &m.streams[s]
		if st.at.off > 0 || st.acked.off > 0 {
			return true
		}
		for _, sp := range st.on {
			if n := len(sp.lines); n > 0 && sp.lines[n-1].flags&entry.FlagPartial != 0 {
				return true
			}
		}
	}
	return false
}

// whole reports whether all entries of exactly the time of a position are on
// disk: they are counted from the first.
func (m *model) whole(saved positions.Saved) bool {
	for s, pos := range saved.Read {
		if first, ok := m.streams[s].first[pos.Time]; ok && m.w.Rotations-first > m.w.LastPart() {
			return false
		}
	}
	return true
}

// sent takes over a batch that is on its way now.
func (m *model) sent(b *entry.Batch) {
	for i := range b.Sections {
		s := &b.Sections[i]
		var spans [entry.NumStreams]*modelSpan
		for k := range s.Seq {
			if s.Seq[k] == 0 {
				continue
			}
			spans[k] = &modelSpan{span: entry.Span{Log: s.Source.Log, Stream: entry.Stream(k), Seq: s.Seq[k]}}
			m.streams[k].on = append(m.streams[k].on, spans[k])
		}
		sec := entry.Batch{Text: b.Text, Lines: b.Lines, Sections: b.Sections[i : i+1]}
		for _, l := range linesOf(&sec) {
			sp := spans[l.span.Stream]
			if sp == nil {
				m.rt.Fatalf("%v: no span covers it", l)
			}
			sp.lines = append(sp.lines, l)
			m.came++
		}
	}
}

// deliver lets the store take the next span of a stream.
func (m *model) deliver(s entry.Stream) {
	st := &m.streams[s]
	if st.delivered == len(st.on) {
		return
	}
	sp := st.on[st.delivered]
	st.delivered++
	for _, l := range sp.lines {
		if l.class == entry.ClassMalformed {
			m.deliverBad(l)
			continue
		}
		m.deliverLine(s, l)
	}
	sp.after, sp.bad = st.at, m.badSeen
}

func (m *model) deliverLine(s entry.Stream, l shipped) {
	m.rt.Logf("delivered: %v %q, flags %v, time %d", s, l.text, l.flags, l.time-t0.UnixNano())
	st := &m.streams[s]
	// A line whose rest never came may have been shipped as a piece.
	if i := st.at.i; i < len(st.written) && st.at.off > 0 && st.at.off == len(st.written[i].text) && !st.written[i].ended &&
		(i+1 < len(st.written) && l.time != st.written[i].time || i+1 < len(st.written) && l.text != "" && !strings.HasPrefix(st.written[i].text[st.at.off:], l.text)) {
		st.at = place{i + 1, 0}
	}
	if st.at.i >= len(st.written) {
		m.rt.Fatalf("%v: %q was not written, or is there twice", s, l.text)
	}
	want := &st.written[st.at.i]
	rest := want.text[st.at.off:]
	switch partial := l.flags&entry.FlagPartial != 0; {
	case partial && strings.HasPrefix(rest, l.text):
		st.at.off += len(l.text)
	case !partial && l.text == rest:
		st.at = place{st.at.i + 1, 0}
	default:
		m.rt.Fatalf("%v: %q (flags %v) stands where %q should (line %d, %d bytes of it shipped)", s, l.text, l.flags, rest, st.at.i, st.at.off)
	}
	if l.time != want.time || l.name != want.name || l.class != entry.Class(s) {
		m.rt.Fatalf("%v: %q has time %d and name %s, written with %d and %s", s, l.text, l.time, l.name, want.time, want.name)
	}
}

// deliverBad takes a malformed line. They share the position of stdout and are
// not part of its lines: one that stands between the fragments of a line may
// come again after a crash.
func (m *model) deliverBad(l shipped) {
	m.rt.Logf("delivered: malformed %q", l.text)
	if m.badAt < 0 { // the first after a crash
		if m.badAt = slices.Index(m.garbage, l.text); m.badAt > m.badAcked {
			m.rt.Fatalf("malformed %q came first after a crash, %d were acknowledged", l.text, m.badAcked)
		}
	}
	if m.badAt < 0 || m.badAt >= len(m.garbage) || l.text != m.garbage[m.badAt] {
		m.rt.Fatalf("malformed %q is not the line number %d of %q", l.text, m.badAt, m.garbage)
	}
	m.badAt++
	m.badSeen = max(m.badSeen, m.badAt)
}

// ack acknowledges one of the spans delivered, not always the oldest.
func (m *model) ack(s entry.Stream) {
	st := &m.streams[s]
	if st.delivered == 0 {
		return
	}
	k := rapid.IntRange(0, st.delivered-1).Draw(m.rt, "span")
	sp := st.on[k]
	if err := m.store.Ack([]entry.Span{sp.span}); err != nil {
		m.rt.Fatal(err)
	}
	sp.span.Seq = 0 // done
	for len(st.on) > 0 && st.on[0].span.Seq == 0 {
		st.acked = st.on[0].after
		if s == entry.Stdout {
			m.badAcked = st.on[0].bad
		}
		st.on = st.on[1:]
		st.delivered--
	}
}

// restart ends the agent and starts it again later, from what is on disk.
func (m *model) restart() {
	for m.w.Rotating() {
		m.w.Step()
	}
	if m.rotatedEmpty() {
		return
	}
	m.starts++
	data := filepath.Join(filepath.Dir(m.dir), fmt.Sprintf("data-%d", m.starts))
	// The disk as it is now: after kill -9 what was not written is lost.
	copyDir(m.rt, m.data, data)
	saved, left := m.find(data)
	if left < 0 {
		// A file that the position needs is held, but no longer on disk: what
		// a crash would lose now is lost indeed.
		return
	}
	m.rt.Logf("restart from %+v", saved)
	m.stopAgent()
	if err := m.store.Close(); err != nil {
		m.rt.Fatal(err)
	}
	if !rapid.Bool().Draw(m.rt, "kill -9") {
		data = m.data
		saved, left = m.find(data)
	}
	m.data = data
	for s := range m.streams {
		st := &m.streams[s]
		st.on, st.delivered, st.at = nil, 0, st.acked
	}
	m.badAt = -1
	m.news = nil
	m.fm.logs = map[string]*fileLog{} // nothing is held while the agent is down
	m.looked = m.w.Rotations - (m.w.LastPart() - left)
	m.wake = newFakeWake()
	if m.road == routeStream {
		m.road = routeFile // while nobody looks
	}
	for range rapid.IntRange(0, 6).Draw(m.rt, "meanwhile") {
		m.write()
	}
	for m.w.Rotating() {
		m.w.Step()
	}
	byTime := !m.full && rapid.IntRange(0, 3).Draw(m.rt, "identity lost") == 0
	if byTime && m.whole(saved) {
		m.loseIdentity(saved)
	}
	streamed := !m.full && rapid.IntRange(0, 2).Draw(m.rt, "another configuration") == 0
	m.startAgent()
	if streamed && m.canStream(m.data) {
		m.road = routeStream
	}
	m.add()
}

// find gives the positions in a directory, and how many rotations leave the
// oldest file that they need on disk; -1 if it is not there.
func (m *model) find(data string) (saved positions.Saved, left int) {
	probe := filepath.Join(filepath.Dir(m.dir), "probe")
	copyDir(m.rt, data, probe)
	defer os.RemoveAll(probe)
	store, err := positions.Open(positions.Config{Dir: probe, Logger: discardLogger()})
	if err != nil {
		m.rt.Fatal(err)
	}
	saved, _ = store.Lookup(modelID)
	_ = store.Close()
	l, err := tail.Open(m.w.Path, tail.Options{})
	if err != nil {
		m.rt.Fatal(err)
	}
	defer l.Close()
	newest := l.Oldest() + int64(l.Held()) - 1
	left = m.w.LastPart()
	for _, pos := range saved.Read {
		if pos.IsZero() {
			left = min(left, m.w.LastPart()-m.w.Rotations)
			continue
		}
		if (pos.File == entry.FileID{}) {
			if left = min(left, m.timeLeft-(m.w.Rotations-m.timeAt)); !m.whole(saved) {
				return saved, -1
			}
			continue
		}
		seq, ok := l.Find(pos.File)
		if !ok {
			return saved, -1
		}
		left = min(left, m.w.LastPart()-int(newest-seq))
	}
	return saved, left
}

// loseIdentity lets the positions name files that do not exist: what is left is
// the time of the entries.
func (m *model) loseIdentity(saved positions.Saved) {
	m.starts++
	m.data = filepath.Join(filepath.Dir(m.dir), fmt.Sprintf("data-%d", m.starts))
	store, err := positions.Open(positions.Config{Dir: m.data, Logger: discardLogger()})
	if err != nil {
		m.rt.Fatal(err)
	}
	for s := range saved.Read {
		if !saved.Read[s].IsZero() {
			saved.Read[s].File = entry.FileID{Inode: 1, Handle: 2, Print: 3}
		}
	}
	store.Register(modelID, saved.Note, saved.Read)
	if err := store.Close(); err != nil {
		m.rt.Fatal(err)
	}
}

func copyDir(rt *rapid.T, from, to string) {
	if err := os.MkdirAll(to, 0o700); err != nil {
		rt.Fatal(err)
	}
	names, err := os.ReadDir(from)
	if err != nil {
		rt.Fatal(err)
	}
	for _, n := range names {
		if n.Name() == "lock" || !n.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, n.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, n.Name()), data, 0o600)
		}
		if err != nil {
			rt.Fatal(err)
		}
	}
}

// end lets the container exit and everything be read and delivered, then
// compares.
func (m *model) end() {
	if !m.w.Stopped() {
		m.exit()
	}
	m.w.Finish()
	for len(m.news) > 0 {
		m.tell()
	}
	if m.road == routeStream {
		for lg := m.sm.logs[modelID]; lg.unread() || m.conn != nil; {
			m.readStream()
		}
		m.sm.release(modelID, func() {})
	}
	for round := 0; len(m.fm.logs) > 0; round++ {
		if round > 1000 {
			m.rt.Fatalf("log is never done: state %d, %+v", m.log().state, m.log().schedule)
		}
		m.fm.poll()
		m.fm.tick(nil)
		var b entry.Batch
		for lg := m.fm.take(0); lg != nil; lg = m.fm.take(0) {
			m.fm.read(m.j, lg, &b, m.buf)
		}
		m.sent(&b)
	}
	for s := range m.streams {
		st := &m.streams[s]
		for st.delivered < len(st.on) {
			m.deliver(entry.Stream(s))
		}
		if i := st.at.i; i < len(st.written) && st.at.off > 0 && st.at.off == len(st.written[i].text) && !st.written[i].ended {
			st.at = place{i + 1, 0}
		}
		if st.at.i != len(st.written) {
			m.rt.Fatalf("%v: %d lines of %d delivered, next is %q", entry.Stream(s), st.at.i, len(st.written), st.written[st.at.i].text)
		}
	}
	if m.badSeen != len(m.garbage) {
		m.rt.Fatalf("%d malformed lines of %d delivered", m.badSeen, len(m.garbage))
	}
	m.account()
	m.fm.containerRemoved(modelID)
	if left := m.store.Keys(); len(left) > 0 && !m.inFlight() {
		m.rt.Fatalf("positions left of a container that is no more: %v", left)
	}
	for s := range m.streams {
		for len(m.streams[s].on) > 0 {
			m.ackAll(entry.Stream(s))
		}
	}
	m.fm.poll()
	if left := m.store.Keys(); len(left) > 0 {
		m.rt.Fatalf("positions left of a container that is no more: %v", left)
	}
}

func (m *model) inFlight() bool {
	return slices.ContainsFunc(m.streams[:], func(st modelStream) bool { return len(st.on) > 0 })
}

func (m *model) ackAll(s entry.Stream) {
	st := &m.streams[s]
	for _, sp := range st.on {
		if err := m.store.Ack([]entry.Span{sp.span}); err != nil {
			m.rt.Fatal(err)
		}
	}
	st.on, st.delivered = nil, 0
}
