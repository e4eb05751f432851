package simulation

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/positions"
)

// profile is what a seed decides before anything happens.
type profile struct {
	// lossless: no file is taken away that the agent has not read, so that
	// nothing may be lost.
	lossless         bool
	maxFiles         int
	compress, unlink bool
	containers       int
	batchBytes       int
	batches          int
	parkedBytes      int
	maxLine          int
	maxStreams       int
	spoolBytes       int64 // 0: there is none
	fragments        bool
	malformed        bool
	poison           bool
	roads            bool // the file road is switched off and on
	renames          bool // containers are renamed
	power            bool // the power fails at times
	faults           bool // the disk fails at times
	steps            int
}

func drawProfile(r *rand.Rand) profile {
	p := profile{
		lossless: r.IntN(4) > 0, compress: r.IntN(3) == 0, unlink: r.IntN(2) == 0,
		containers:  1 + r.IntN(4),
		batchBytes:  []int{1, 300, 2000, 1 << 20}[r.IntN(4)],
		batches:     1 + r.IntN(4),
		parkedBytes: []int{1, 1000, 8 << 20}[r.IntN(3)],
		maxLine:     []int{60, 1 << 20}[min(1, r.IntN(4))],
		maxStreams:  1 + r.IntN(4),
		spoolBytes:  []int64{0, 64 << 20, 64 << 20, 64 << 20}[r.IntN(4)],
		fragments:   r.IntN(2) == 0, malformed: r.IntN(3) == 0, poison: r.IntN(3) == 0,
		power: r.IntN(2) == 0, faults: r.IntN(3) == 0,
		renames: r.IntN(2) == 0,
		steps:   20 + r.IntN(100),
	}
	p.roads = p.lossless && r.IntN(4) == 0 // of what the engine has no more it says nothing
	p.malformed = p.malformed && !p.roads  // nor of what is no entry
	p.maxFiles = 8
	if !p.lossless {
		p.maxFiles = 1 + r.IntN(3)
	}
	return p
}

// sim is one run of the simulation.
type sim struct {
	seed uint64
	r    *rand.Rand // the scheduler's
	p    profile
	v    variant
	keep bool // the trace is wanted
	root string

	engine *engine
	disk   *disktest.Disk
	agent  *agent // nil while it is down
	runs   int
	byFile bool
	made   int
	all    []*container
	// deaf: notifications were later than the kernel's ever are, so that files which
	// come and go between two looks are not counted.
	deaf   bool
	silent int  // lines that were lost so
	faulty bool // the disk has failed since the agent was started
	// damaged: the power has taken records out of the middle of the journal, so
	// that positions may be there without their names.
	damaged bool

	began time.Time
	over  bool

	// mu guards what follows, and every output.
	mu          sync.Mutex
	mode        mode
	heldStreams map[string]bool
	unread      bool // files could not be opened: the agent does not know then of which streams older lines are in the spool
	torn        int  // lines of which only a part was there
	asked       map[uint64]int
	failure     string
	delivered   int
	doubled     int
	excused     int
	reports     float64 // of losses
	gaps        float64 // of files rotated away

	traceMu sync.Mutex
	trace   []string
	hashes  map[string]uint64
}

// result is what a run has come to.
type result struct {
	failure                     string
	trace                       []string
	hash                        uint64 // of the trace without the agent's own log
	written, delivered, doubled int
	excused, missing, starts    int
	silent                      int
}

// simulate runs one seed in a bubble of its own, whose only goroutines are those of
// this run.
func simulate(seed uint64, v variant, keep bool, root string) (res result) {
	s := &sim{
		seed: seed, r: rand.New(rand.NewPCG(seed, 1)), v: v, keep: keep, root: root, byFile: true,
		heldStreams: make(map[string]bool), asked: make(map[uint64]int), began: time.Now(), disk: disktest.New(), hashes: make(map[string]uint64),
	}
	s.p = drawProfile(s.r)
	s.engine = newEngine(filepath.Join(root, "containers"))
	s.check(os.Mkdir(s.engine.dir, 0o700))
	s.tracef("profile %+v", s.p)
	s.startAgent()
	for i := 0; i < s.p.steps && !s.failed(); i++ {
		s.step()
	}
	missing := 0
	if !s.failed() {
		missing = s.end()
	}
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	if s.agent != nil {
		s.agent.kill()
	}
	for _, c := range s.all {
		if c.w != nil {
			c.w.Close()
		}
	}
	res = result{
		failure: s.failure, trace: s.trace, delivered: s.delivered, doubled: s.doubled,
		excused: s.excused, missing: missing, starts: s.runs, silent: s.silent,
	}
	for stream, h := range s.hashes {
		for _, b := range []byte(stream) {
			h = (h ^ uint64(b)) * 1099511628211
		}
		res.hash += h
	}
	for _, c := range s.all {
		res.written += len(c.out[0].lines) + len(c.out[1].lines) + len(c.bad.lines)
	}
	return res
}

func (s *sim) check(err error) {
	if err != nil {
		panic(err) // of the simulation's own files
	}
}

// wrong notes the first thing that is. Called with mu held.
func (s *sim) wrong(format string, args ...any) {
	if s.failure == "" && !s.over {
		s.failure = fmt.Sprintf(format, args...)
		s.tracef("WRONG: %s", s.failure)
	}
}

func (s *sim) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure != ""
}

func (s *sim) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong(format, args...)
}

// tracef adds to the trace.
func (s *sim) tracef(format string, args ...any) { s.traceIn("", format, args...) }

// traceIn adds to the trace of one stream: what happens there keeps its order, and
// no order with what happens elsewhere at the same moment.
func (s *sim) traceIn(stream, format string, args ...any) {
	s.traceMu.Lock()
	defer s.traceMu.Unlock()
	text := fmt.Sprintf(format, args...)
	h := s.hashes[stream]
	for _, b := range []byte(text) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	s.hashes[stream] = h
	s.add(text)
}

// logf adds to the trace what need not be the same in each run of a seed.
func (s *sim) logf(format string, args ...any) {
	s.traceMu.Lock()
	defer s.traceMu.Unlock()
	s.add(fmt.Sprintf(format, args...))
}

func (s *sim) add(text string) {
	if s.keep {
		s.trace = append(s.trace, fmt.Sprintf("%10.3fs %s", time.Since(s.began).Seconds(), text))
	}
}

// late is how long the agent waits for an event.
func (s *sim) late() time.Duration {
	return []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 400 * time.Millisecond, 3 * time.Second}[s.r.IntN(5)]
}

// step does one thing at random and lets the agent come to rest.
func (s *sim) step() {
	if s.agent == nil && s.r.IntN(4) == 0 {
		s.startAgent()
	}
	switch k := s.r.IntN(100); {
	case k < 32:
		s.write()
	case k < 42:
		s.rotate()
	case k < 48:
		s.dockerSteps()
	case k < 66:
		s.advance()
	case k < 76:
		s.lifecycle()
	case k < 84:
		s.storeStep()
	case k < 87:
		s.wakeStep()
	case k < 90:
		s.engineStep()
	case k < 93:
		s.crash()
	case k < 95:
		s.stopAgent()
	default:
		s.diskStep()
	}
	synctest.Wait()
	s.meet()
}

// meet notes since when the agent knows of a container: what rotation took away
// before, nobody can tell of.
func (s *sim) meet() {
	if s.agent == nil {
		return
	}
	for _, c := range s.all {
		if _, known := s.agent.ledger.Lookup(c.id); known && !c.met {
			c.met = true
			for _, o := range []*output{c.out[0], c.out[1], c.bad} {
				o.met = len(o.lines)
			}
		}
	}
}

// pick gives one of the containers that are so, nil if none is.
func (s *sim) pick(want func(*container) bool) *container {
	var some []*container
	for _, c := range s.all {
		if !c.removed && want(c) {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[s.r.IntN(len(some))]
}

// write lets a container write some lines.
func (s *sim) write() {
	c := s.pick((*container).running)
	if c == nil {
		s.lifecycle()
		return
	}
	n := 1 + s.r.IntN(6)
	for range n {
		s.writeOne(c)
	}
	s.tracef("%s (%d) writes %d entries: %d, %d, %d bad", c.name, c.number, n, len(c.out[0].lines), len(c.out[1].lines), len(c.bad.lines))
	s.tellWritten(c)
}

func (s *sim) tellWritten(c *container) {
	if s.agent != nil {
		s.agent.wake.Tell(c.dir, monitors.WakeEvent{Written: true})
	}
}

// writeOne lets a container write one entry.
func (s *sim) writeOne(c *container) {
	if c.w != nil {
		for c.w.Rotating() {
			s.dockerStep(c)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p.malformed && c.w != nil && s.r.IntN(8) == 0 {
		text := fmt.Sprintf("%s%d {\"log\":\"", c.bad.tag, len(c.bad.lines))
		file := c.end()
		c.w.Write([]byte(text + "\n"))
		c.bad.lines = append(c.bad.lines, &line{text: text, ended: true, run: c.run, places: []spot{{file: file}}})
		return
	}
	stream := entry.Stream(s.r.IntN(2))
	o := c.out[stream]
	at := o.time
	text := s.words(s.r.IntN(40))
	if !o.open {
		// Entries of one stream may have the same time; across the two, times
		// fall by up to 2 ms.
		c.clock = max(c.clock+int64(s.r.IntN(2)), time.Now().UnixNano())
		at = max(o.time, c.clock-int64(s.r.IntN(2))*int64(s.r.IntN(1500))*int64(time.Microsecond), c.startedAt.UnixNano())
		if n := len(o.lines); n > 0 && (!o.lines[n-1].ended || len(o.lines[n-1].entries) > 0) {
			at = max(at, o.time+1) // else it would go on with that line, whose end may be rotated away
		}
		text = fmt.Sprintf("%s%d ", o.tag, len(o.lines)) + text
	}
	ended := o.open && s.r.IntN(3) > 0 || !o.open && (!s.canFragment(c) || s.r.IntN(4) > 0)
	poison := !o.open && ended && s.p.poison && s.r.IntN(10) == 0
	if poison {
		text += " poison"
	}
	raw := text
	if ended {
		raw += "\n"
	}
	var file entry.Place
	if c.w != nil {
		file = c.end()
		c.w.Write(entryOf(stream, raw, at))
	}
	c.api.change(func() { c.api.entries = append(c.api.entries, apiEntry{stream, at, raw}) })
	if at == o.time {
		o.ordinal++
	} else {
		o.time, o.ordinal = at, 1
	}
	if !o.open {
		o.lines = append(o.lines, &line{time: at, run: c.run, knew: s.knows(c), poison: poison})
	}
	l := o.lines[len(o.lines)-1]
	if o.open {
		l.entries = append(l.entries, len(l.text))
	}
	l.places = append(l.places, spot{len(l.text), file, o.ordinal})
	l.text += text
	l.ended, l.ordinal = ended, o.ordinal
	if len(l.entries) > 0 || !ended {
		s.tracef("%s%d: entry %q", o.tag, len(o.lines)-1, raw)
	}
	o.open = !ended
}

// words gives n bytes of text, no piece of which is like another.
func (s *sim) words(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz0123456789\"\\"[s.r.IntN(38)]
	}
	return string(b)
}

// canFragment reports whether a line may be begun without an end. If the agent still
// takes the container for one that has exited it ships what there is of it; the run
// before the one that it knows of would end with it.
func (s *sim) canFragment(c *container) bool {
	if !s.p.fragments {
		return false
	}
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.agent == nil || c.told == s.agent.run
}

// knows gives the agent's run if it has the name of a container's present run, else 0.
func (s *sim) knows(c *container) int {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	if s.agent == nil || c.knows != c.run {
		return 0
	}
	return s.agent.run
}

// rotate lets Docker rotate a log: it does so because a line comes, which is written
// to the new file before anybody sees it empty.
func (s *sim) rotate() {
	c := s.pick(func(c *container) bool { return c.w != nil && c.running() && s.mayRotate(c) })
	if c == nil || !c.w.Rotate() {
		s.dockerSteps()
		return
	}
	s.tracef("%s (%d) rotates: %v", c.name, c.number, c.w)
	pause := s.r.IntN(3) == 0
	for c.w.Rotating() {
		s.dockerStep(c)
		if pause && c.w.Rotating() {
			synctest.Wait()
			if s.r.IntN(3) == 0 {
				time.Sleep(time.Duration(s.r.IntN(200)) * time.Millisecond)
				synctest.Wait()
			}
		}
	}
	s.writeOne(c)
	s.tellWritten(c)
}

// mayRotate reports whether a rotation takes nothing away that is to be kept.
func (s *sim) mayRotate(c *container) bool {
	if st, err := os.Stat(c.path()); err != nil || st.Size() == 0 {
		return false // Docker rotates what is full
	}
	return !s.p.lossless || c.w.Rotations < s.p.maxFiles-1
}

// dockerSteps does some of what Docker does by itself.
func (s *sim) dockerSteps() {
	c := s.pick(func(c *container) bool { return c.w != nil && (c.w.Rotating() || c.w.Compressing()) })
	if c == nil {
		s.write()
		return
	}
	n := 1 + s.r.IntN(3)
	s.tracef("%s (%d): %d steps of Docker", c.name, c.number, n)
	for range n {
		s.dockerStep(c)
	}
}

func (s *sim) advance() {
	spans := []time.Duration{
		time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	}
	d := spans[s.r.IntN(len(spans))]
	d = d/2 + time.Duration(s.r.Int64N(int64(d)))
	s.tracef("%v pass", d)
	time.Sleep(d)
}

// lifecycle starts, ends, makes or removes a container.
func (s *sim) lifecycle() {
	there := 0
	for _, c := range s.all {
		if !c.removed {
			there++
		}
	}
	if there == 0 || there < s.p.containers && s.r.IntN(2) == 0 {
		driver := monitors.DriverJSONFile
		if s.r.IntN(6) == 0 {
			driver = "local"
		}
		c := s.create(s.freeName(), driver)
		s.tracef("%s (%d, %s) is created", c.name, c.number, driver)
		if s.r.IntN(4) > 0 {
			s.start(c)
			s.tracef("%s (%d) starts", c.name, c.number)
		}
		return
	}
	c := s.pick(func(*container) bool { return true })
	if s.p.renames && s.r.IntN(3) == 0 {
		s.rename(c)
	}
	switch k := s.r.IntN(6); {
	case !c.running() && k == 0:
		s.removeContainer(c)
	case !c.running():
		s.start(c)
		s.tracef("%s (%d) starts", c.name, c.number)
	case k < 3:
		s.exit(c)
		s.tracef("%s (%d) exits", c.name, c.number)
	case k == 3:
		s.exit(c)
		s.tracef("%s (%d) exits", c.name, c.number)
		s.removeContainer(c)
	default:
		s.writeOne(c)
		s.tracef("%s (%d) writes", c.name, c.number)
		s.tellWritten(c)
	}
}

// freeName is one that no container has: mostly one that another had.
func (s *sim) freeName() string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("app%d", (i+s.r.IntN(3))%8)
		if s.pickName(name) == nil {
			return name
		}
	}
}

func (s *sim) pickName(name string) *container {
	for _, c := range s.all {
		if !c.removed && c.name == name {
			return c
		}
	}
	return nil
}

// removeContainer removes a container that has exited. What the agent does not have
// in its hands then is lost.
func (s *sim) removeContainer(c *container) {
	s.engine.mu.Lock()
	known := s.agent != nil && c.told == s.agent.run
	s.engine.mu.Unlock()
	s.tracef("%s (%d) is removed", c.name, c.number)
	if !known || c.w == nil || !s.byFile || !s.seesFiles() {
		s.excuse(c, "its container was removed before the agent could have it")
	}
	if !s.engine.up {
		s.excuseRests(c)
	}
	s.remove(c)
}

// seesFiles reports whether the agent hears of new files at once.
func (s *sim) seesFiles() bool {
	return s.agent.wake.Hears()
}

func (s *sim) excuse(c *container, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range []*output{c.out[0], c.out[1], c.bad} {
		o.excuse(why)
	}
}

// excuseRemoved excuses what no one holds any more after the end of the agent.
func (s *sim) excuseRemoved() {
	for _, c := range s.all {
		if c.removed {
			s.excuse(c, "its container was removed, and the agent that held it has ended")
		}
	}
}

func (s *sim) storeStep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r.IntN(3) == 0 {
		clear(s.heldStreams)
		if c := s.pick(func(*container) bool { return true }); c != nil && s.r.IntN(3) > 0 {
			class := entry.Class(s.r.IntN(2))
			labels := wantLabels(c.out[class], c.name, class)
			s.heldStreams[labels] = true
			s.tracef("the store refuses the stream %s", labels)
			return
		}
		s.tracef("the store refuses no stream")
		return
	}
	s.mode = modeOK
	if s.r.IntN(3) > 0 {
		s.mode = mode(s.r.IntN(int(numModes)))
	}
	s.tracef("the store is %v", s.mode)
}

func (s *sim) wakeStep() {
	if s.agent == nil {
		return
	}
	switch s.r.IntN(3) {
	case 0:
		s.tracef("notifications are held back")
		s.deaf = true
		s.agent.wake.Hold(true)
	case 1:
		s.tracef("notifications come")
		s.agent.wake.Hold(false)
	case 2:
		s.tracef("notifications overflow")
		s.agent.wake.Overflow(monitors.WakeEvent{Overflow: true})
	}
}

func (s *sim) engineStep() {
	up := s.r.IntN(2) == 0
	s.tracef("the engine is %s", mark(up, "connected anew")+mark(!up, "away"))
	s.engine.connect(up)
	for _, c := range s.all {
		if c.removed {
			s.excuseRests(c)
		}
	}
}

// excuseRests excuses the lines without an end of a container of whose removal the
// engine does not tell: its log goes to the stream without them, which is reported.
func (s *sim) excuseRests(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range c.out {
		for _, l := range o.lines {
			if !l.ended && l.copies == 0 {
				l.lost = "the engine did not tell that its container was removed"
			}
		}
	}
}

// diskStep lets the disk of data_dir fail, or no longer.
func (s *sim) diskStep() {
	if !s.p.faults || s.agent == nil {
		s.advance()
		return
	}
	if ops, full := s.disk.Failing(); ops != 0 || full {
		s.tracef("the disk is well")
		s.disk.Heal()
		return
	}
	s.faulty = true
	switch s.r.IntN(4) {
	case 0:
		room := int64(s.r.IntN(2000))
		s.tracef("the disk has room for %d bytes", room)
		s.disk.Fill(room)
	case 1:
		s.tracef("the disk does not sync")
		s.disk.Fail(disktest.Sync | disktest.SyncDir)
	case 2:
		s.tracef("the disk does not write")
		s.disk.Fail(disktest.Write)
	default:
		s.tracef("the disk fails")
		s.mu.Lock()
		s.unread = true
		s.mu.Unlock()
		s.disk.Fail(disktest.Write | disktest.Truncate | disktest.Sync | disktest.SyncDir | disktest.Rename | disktest.Remove | disktest.Open)
	}
}

// crash ends the agent, or the whole machine, in the middle of everything.
func (s *sim) crash() {
	if s.agent == nil {
		return
	}
	power := s.p.power && s.r.IntN(2) == 0
	after := -1
	if s.r.IntN(3) > 0 {
		after = s.r.IntN(12)
	}
	part := s.r.IntN(101)
	s.tracef("the agent is killed%s, after %d changes of its disk", mark(power, " with the power"), after)
	armed := time.Now()
	if after >= 0 {
		s.disk.DieAfter(after, part)
		s.writeSome()
		time.Sleep(time.Duration(s.r.IntN(3000)) * time.Millisecond)
		synctest.Wait()
	}
	s.endAgent(power, armed)
}

func (s *sim) writeSome() {
	for range 1 + s.r.IntN(4) {
		if c := s.pick((*container).running); c != nil {
			s.writeOne(c)
			s.tellWritten(c)
		}
	}
}

// endAgent kills the agent, whose disk has lived until a time at least.
func (s *sim) endAgent(power bool, lived time.Time) {
	a := s.agent
	a.over.Store(true)
	if power {
		s.disk.PowerLoss(func(_ string, n int) int { return s.r.IntN(n + 1) })
	} else {
		s.disk.Kill()
	}
	promised := a.ledger.promised(time.Now())
	if power {
		promised = a.ledger.promised(lived.Add(-journalLag))
	}
	a.kill()
	s.disk.Heal()
	s.report(a)
	s.agent = nil
	s.excuseRemoved()
	if !s.faulty {
		s.checkPromised(promised)
	}
}

// journalLag is within what time an acknowledgement is on the disk.
const journalLag = 2100 * time.Millisecond

// checkPromised checks that the journal holds what was acknowledged before the end.
func (s *sim) checkPromised(promised map[string][entry.NumStreams]entry.Position) {
	store, err := positions.Open(positions.Config{Files: s.disk.Clone().Mount()})
	if err != nil {
		s.fail("the positions cannot be read after a kill: %v", err)
		return
	}
	for key, want := range promised {
		saved, _ := store.Lookup(key)
		for i, pos := range saved.Positions {
			if pos.Time < want[i].Time || pos.Time == want[i].Time && pos.Ordinal < want[i].Ordinal {
				s.fail("position of %s after a kill: %v, acknowledged was %v", key, pos, want[i])
			}
		}
	}
	_ = store.Close()
}

// stopAgent ends the agent by a signal.
func (s *sim) stopAgent() {
	if s.agent == nil {
		return
	}
	s.tracef("the agent is stopped")
	a := s.agent
	a.stop()
	a.over.Store(true)
	s.disk.Kill()
	s.disk.Heal()
	s.report(a)
	s.agent = nil
	s.excuseRemoved()
}

// startAgent starts the agent.
func (s *sim) startAgent() {
	if s.p.roads {
		s.byFile = s.r.IntN(2) == 0
	}
	s.faulty = false
	a, err := s.open(s.disk.Mount())
	if err != nil {
		s.fail("the agent cannot start: %v", err)
		return
	}
	s.tracef("run %d of the agent begins, %d lines in its spool", a.run, a.spooled)
	s.mu.Lock()
	s.setFloors(func(id string) ([entry.NumStreams]entry.Position, bool) {
		saved, ok := a.ledger.Lookup(id)
		return saved.Positions, ok
	})
	s.mu.Unlock()
	for _, c := range s.all {
		if _, known := a.ledger.Lookup(c.id); !known && !c.removed {
			c.met = false // a power loss made the agent forget it
		}
	}
	s.agent = a
	a.begin()
}

// end heals everything, gives it time, and compares.
func (s *sim) end() (missing int) {
	s.tracef("all is healed")
	s.mu.Lock()
	s.mode = modeOK
	clear(s.heldStreams)
	s.mu.Unlock()
	s.disk.Heal()
	s.engine.connect(true)
	if s.agent == nil {
		s.startAgent()
	}
	s.agent.wake.Hold(false)
	for _, c := range s.all {
		if !c.removed && c.running() {
			s.exit(c)
		}
	}
	var first string
	for waited := time.Duration(0); ; waited += 2 * time.Second {
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.failed() {
			return 0
		}
		s.readDeadLetters()
		s.excused = 0
		if missing, first = s.missing(); missing == 0 {
			break
		}
		if waited > 3*time.Minute && (!s.p.lossless || waited > 15*time.Minute) {
			break
		}
	}
	s.settle()
	s.report(s.agent)
	if s.p.lossless && s.gaps > 0 && s.mayNotReport() {
		s.fail("nothing is rotated away, and %v files are reported as lost", s.gaps)
	}
	if missing > 0 && !s.p.lossless && s.reports == 0 && s.deaf {
		s.silent += missing
	} else if missing > 0 && (s.p.lossless || s.reports == 0) {
		s.fail("%d lines are missing, first %s", missing, first)
		return missing
	}
	s.tracef("all is there")
	for _, c := range s.all {
		if !c.removed {
			s.remove(c)
		}
	}
	for range 60 {
		if len(s.agent.ledger.Keys()) == 0 {
			break
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
	}
	if keys := s.agent.ledger.Keys(); len(keys) > 0 {
		s.fail("positions are left of containers that are no more: %v", keys)
	}
	s.conserve()
	s.agent.stop()
	s.agent = nil
	return missing
}

// mayNotReport reports whether losses may not be reported where nothing is lost. An
// archive of a file that was empty when the agent last saw it cannot be known again,
// late notifications tell of files that were found before, and of a container that was
// removed the agent may not know whether it had written.
func (s *sim) mayNotReport() bool {
	for _, c := range s.all {
		if c.removed {
			return false
		}
	}
	return !s.p.compress && !s.deaf
}

// report takes account of the losses that a run tells of.
func (s *sim) report(a *agent) {
	all, files := a.reported()
	s.reports += all
	s.gaps += files
}

// settle waits until nothing is on its way.
func (s *sim) settle() {
	for range 120 {
		if s.agent.metric("positions_spans_in_flight") == 0 && (s.agent.spool == nil || s.agent.spool.Health().Frames == 0) {
			return
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
	}
	s.fail("something is on its way for ever: %v spans", s.agent.metric("positions_spans_in_flight"))
}

// conserve checks that the agent's own counters add up.
func (s *sim) conserve() {
	a := s.agent
	in := a.metric("lines_read_total") + float64(a.spooled)
	out := a.metric("logs_processed_total", "result", "delivered") + a.metric("logs_processed_total", "result", "dead_lettered")
	if in != out {
		s.fail("%v lines read and %d in the spool at the start, %v done with", in-float64(a.spooled), a.spooled, out)
	}
}

// readDeadLetters looks for the poison.
func (s *sim) readDeadLetters() {
	if !s.p.poison {
		return
	}
	seen, _ := s.disk.Read("dead_letters/dead_letters.jsonl")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		for _, o := range c.out {
			for _, l := range o.lines {
				l.dead = 0
			}
		}
	}
	for text := range strings.SplitSeq(string(seen), "\n") {
		var r deadletter.Record
		// Copies that were never synced leave NULs, or a piece of themselves and NULs.
		text = text[strings.LastIndexByte(text, 0)+1:]
		if json.Unmarshal([]byte(text), &r) != nil || r.Copy {
			continue
		}
		for _, c := range s.all {
			for _, o := range c.out {
				if n, ok := o.number(string(r.Raw)); ok && c.id == r.ContainerID && o.lines[n].text == string(r.Raw) {
					o.lines[n].dead++
				}
			}
		}
	}
}
