package monitors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail"
)

const (
	// MethodFileMonitor is the road of logs read from their files.
	MethodFileMonitor = "file_monitor"
	// MethodStreaming is that of logs that the Docker API streams.
	MethodStreaming = "streaming"

	// readBytes is how much of one log is read at a time, if the batch has room
	// for it. It bounds how long the others wait, and is the longest entry that is
	// one.
	readBytes = 512 << 10
	// minReadBytes is the room in a batch below which it is handed on. It is
	// longer than Docker's longest message: an entry that is longer still is read
	// beyond the room.
	minReadBytes = 128 << 10

	// pollInterval is how often each log is looked at although nothing told us
	// to. The contract promises 2 s.
	pollInterval = 2 * time.Second

	// pathPolls is in how many polls each log is looked at by its path at least once, and
	// pathLooks how many at least are in each poll, if there are so many. For the others a look at
	// the file held will do, which costs a fraction and shows all but what befalls
	// directories: docs/adr/0011-idle-logs-are-looked-at-by-descriptor.md.
	pathPolls, pathLooks = 15, 16

	// busyReads is after how many reads with news, a tick apart, a log's writes are
	// no longer watched, and it is read on each tick instead. Changing the watch
	// costs as much as some reads.
	busyReads = 4

	// quietTicks is after how many reads without news its writes are watched again.
	quietTicks = 2

	// unseenPolls is after how many polls in a row that could not see a log's
	// path reading it counts as failed, though what is held can be read on: 4 to 6 s
	// after the path has gone if the log is written to now and then, 2 s later if it is one
	// of many that are idle, and as much as 34 s if no other has gone.
	unseenPolls = 3

	// openRetryMax is the longest pause between tries to open a log that cannot
	// be read, or to go on after a read error.
	openRetryMax = time.Minute
)

// Outlet takes the batches: the dispatcher.
type Outlet interface {
	Lanes() int
	LaneOf(containerName string) int
	// Reserve gives a lane's open batch, waiting until there is room behind it.
	Reserve(ctx context.Context, lane int) (*entry.Batch, error)
	Submit(lane int, b *entry.Batch)
}

// Registry knows how far each log has been read and delivered.
type Registry interface {
	Lookup(key string) (positions.Saved, bool)
	Register(key, note string, start [entry.NumStreams]entry.Position) (log uint32)
	Unregister(log uint32)
	Forget(key string) error
}

// Spans is told of lines that are on their way.
type Spans interface {
	Begin(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) (seqs [entry.NumStreams]uint64)
}

// MalformedCopies keeps copies of lines that were shipped raw. What fails there
// is not the reader's to mend.
type MalformedCopies interface {
	CopyMalformed(lines []MalformedLine)
}

// FileMonitorConfig is what a FileMonitor is made of.
type FileMonitorConfig struct {
	LogConfig
	Malformed MalformedCopies

	// Tick is how often logs that are being written to are read. Where all have been
	// quiet of late, a write is noticed at once.
	Tick time.Duration
	// ShipMalformed ships what is no entry of Docker's with a label of its own;
	// otherwise it goes to the dead letters alone.
	ShipMalformed bool
	// MaxDescriptors bounds the log files held open at a time; 0: no bound.
	MaxDescriptors int64
	// Access, unless nil, is told of each failure to read a container's log, and
	// with nil when it can be read again. It must neither block nor call back.
	Access func(id string, err error)
	// Wake, unless nil, takes the place of the kernel's inotify.
	Wake WakeSource
	// Settled, unless zero, takes the place of tail.DefaultSettled, for tests.
	Settled time.Duration

	Metrics *FileMetrics
}

// FileMonitor reads the logs of any number of containers from their files. One
// goroutine waits for news, one per lane reads; a log is in the hands of one
// reader at a time, for one buffer, then goes to the back of its lane's queue.
type FileMonitor struct {
	cfg         FileMonitorConfig
	wake        wakeSource
	descriptors *tail.Descriptors
	forgotten   *forgetter

	mu     sync.Mutex
	logs   map[string]*fileLog   // by container ID
	order  []*fileLog            // for inOrder; nil: not known
	byWD   map[int]*fileLog      // by watch
	active map[*fileLog]struct{} // those that the next tick looks at: stateActive
	// ticking: watchLoop will look at active at the next tick, unasked.
	ticking bool
	ready   []laneQueue           // by lane
	said    map[string]struct{}   // problems that were logged and are not over
	failed  logProblems[*fileLog] // logs that cannot be read now
	ended   bool                  // Run has: nothing is opened any more
	polls   int                   // those begun
	turns   int                   // those given to logs, for pathTurn
	anyGone bool                  // a path was not seen in the last poll that had been before
	gapAt   time.Time             // when files were last found to be lost that were never seen
	lostAt  time.Time             // when the rest of a file was last lost that was
}

// logState says whose a log is.
type logState uint8

const (
	stateClosed  logState = iota // no file yet, or none that can be read: the poll tries again
	stateOpening                 // in the hands of open, or of letGo
	stateQueued                  // in its lane's queue
	stateReading                 // in the hands of its lane's reader
	stateActive                  // the next tick looks at it: it is busy, or a write was told
	stateIdle                    // read to its end; its writes are watched
	stateHeld                    // the store refuses it for now: dispatch says when to go on
	stateFailed                  // a read failed: the poll tries again
	stateGone                    // no longer one of the monitor's
)

// schedule is the part of a log that FileMonitor.mu guards.
type schedule struct {
	state logState
	// again: there was news while it was in somebody's hands. written: a write was
	// told meanwhile, for the next tick.
	again, written bool
	// exited: its container does not run. removed: nor will it ever again.
	exited, removed bool
	// wd is its watch, -1 without one; writes: it tells of writes, too.
	wd     int
	writes bool
	// busy counts the reads with news that were about a tick apart, the last of
	// them at newsRead.
	busy     int
	newsRead time.Time
	startNames
	// created counts the log files that were made since the log was opened, as
	// far as notifications have told; firstSeq is tail.Seq at that time.
	created, firstSeq int64
	// exact: the log was watched before there was a file, so that every one was
	// told. blind: some were not told, or may not have been.
	exact, blind bool
	// gapAhead: reading has not come to the latest gap yet, which lies behind the
	// file with the number gapSeq.
	gapAhead bool
	gapSeq   int64
	// current is the source of the lines that are read, and needed the number of
	// the oldest file that would be read again after a kill.
	current *entry.Source
	needed  int64
	// quiet counts the reads in a row that brought nothing, unseen the polls
	// that could not see the path, or its directory, though the container is
	// there.
	quiet, unseen int
	turn          int // for pathTurn and inOrder; later ones are higher
	// fails and retryAt are of stateClosed and stateFailed.
	fails   int
	retryAt time.Time
	// newsAt is since when there has been something to read; zero: nothing.
	newsAt time.Time
	logFailures
}

// laneQueue holds the logs of a lane that have something to read.
type laneQueue struct {
	logs   []*fileLog
	signal chan struct{} // has room for one: logs is not empty
}

// NewFileMonitor makes a FileMonitor. It starts nothing but asks the kernel for
// two inotify instances, unless Config.Wake takes its place; without one the monitor
// only polls.
func NewFileMonitor(cfg FileMonitorConfig) *FileMonitor {
	if cfg.Wake != nil {
		return newFileMonitor(cfg, outside{newPollOnly(), cfg.Wake})
	}
	var wake wakeSource
	n, err := newInotify()
	if err != nil {
		cfg.Logger.Warn("inotify is not to be had: logs are read every 2 s only", "error", err)
		wake = newPollOnly()
	} else {
		wake = n
	}
	return newFileMonitor(cfg, wake)
}

func newFileMonitor(cfg FileMonitorConfig, wake wakeSource) *FileMonitor {
	m := &FileMonitor{
		cfg:         cfg,
		wake:        wake,
		descriptors: &tail.Descriptors{Max: cfg.MaxDescriptors},
		forgotten:   newForgetter(&cfg.LogConfig),
		logs:        make(map[string]*fileLog),
		byWD:        make(map[int]*fileLog),
		active:      make(map[*fileLog]struct{}),
		said:        make(map[string]struct{}),
		failed:      make(logProblems[*fileLog]),
	}
	for range cfg.Outlet.Lanes() {
		m.ready = append(m.ready, laneQueue{signal: make(chan struct{}, 1)})
	}
	m.observe(cfg.Metrics.reg)
	return m
}

// Run reads until ctx ends, and returns nil unless something is broken that
// cannot be helped.
func (m *FileMonitor) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, m.wake.kick)
	defer stop()
	g.Go(func() error { return m.watchLoop(ctx) })
	for lane := range m.ready {
		g.Go(func() error { return m.readLane(ctx, lane) })
	}
	err := g.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	for _, lg := range m.logs {
		if lg.tail != nil {
			m.close(lg, lostStopped)
		}
	}
	clear(m.logs)
	m.order = nil
	clear(m.active)
	return errors.Join(err, m.wake.close())
}

// add begins to read a container's log, or goes on if it is read already: a start
// of the container, or one more look at the list. It may be called from any
// goroutine; of one container by one at a time.
func (m *FileMonitor) add(info ContainerLogFileInfo) {
	m.mu.Lock()
	if lg := m.logs[info.ID]; lg != nil {
		lg.exited = !info.Running
		lg.startedAgain(&m.cfg.LogConfig, &lg.containerLog, info)
		open := lg.state == stateClosed
		m.news(lg)
		m.mu.Unlock()
		if open {
			m.open(lg)
		}
		return
	}
	m.mu.Unlock()
	lg := &fileLog{}
	lg.containerLog, lg.startNames = m.cfg.newLog(info, MethodFileMonitor)
	lg.wd, lg.exited, lg.lane, lg.current = -1, !info.Running, lg.src.Lane, lg.src
	m.mu.Lock()
	m.logs[info.ID] = lg
	m.order = nil
	lg.turn = m.turns
	m.turns++
	m.mu.Unlock()
	m.open(lg)
}

// exclude says that a container is not captured from its present start on: what it
// wrote before is still read.
func (m *FileMonitor) exclude(info ContainerLogFileInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lg := m.logs[info.ID]; lg != nil {
		lg.stopAt(info)
		lg.exited = true
		m.news(lg)
	}
}

// containerExited says that a container runs no more: its log is read to its
// end, then let go.
func (m *FileMonitor) containerExited(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lg := m.logs[id]; lg != nil && !lg.exited {
		lg.exited = true
		m.news(lg)
	}
}

// containerRemoved says that a container is no more: what is left of its log is
// read through the descriptors held, then everything about it is forgotten.
func (m *FileMonitor) containerRemoved(id string) {
	m.mu.Lock()
	lg := m.logs[id]
	if lg == nil {
		m.mu.Unlock()
		m.forgotten.forget(id)
		return
	}
	lg.exited, lg.removed = true, true
	if lg.state == stateClosed {
		m.neverOpened(lg)
		m.drop(lg, lostNothing)
		m.mu.Unlock()
		m.forgotten.forget(id)
		return
	}
	if lg.tail != nil {
		lg.tail.MarkFinal()
		lg.flagUnlinked()
	}
	m.news(lg)
	m.mu.Unlock()
}

// release gives a container whose log cannot be read to the other road. It is
// false if the log is being read after all.
func (m *FileMonitor) release(id string) bool {
	m.mu.Lock()
	lg := m.logs[id]
	if lg == nil {
		m.mu.Unlock()
		return true
	}
	if lg.state != stateClosed && lg.state != stateFailed {
		m.mu.Unlock()
		return false
	}
	m.drop(lg, lostStreamed)
	lg.current.Unlinked.Store(true) // nobody sees any more whether they are
	m.mu.Unlock()
	if lg.placed {
		m.cfg.Registry.Unregister(lg.log)
	}
	return true
}

// status gives what is to be told of a container's log; false if it is not one of
// the monitor's.
func (m *FileMonitor) status(id string, now time.Time) (logStatus, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lg := m.logs[id]
	if lg == nil {
		return logStatus{}, false
	}
	st := logStatus{logFailures: lg.logFailures}
	if !lg.newsAt.IsZero() {
		st.lag = now.Sub(lg.newsAt)
	}
	if lg.tail != nil {
		st.unreadBytes = lg.tail.Unread()
	}
	return st, true
}

// Wake says that the store takes a source's lines again.
func (m *FileMonitor) Wake(src *entry.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lg := m.logs[src.ID]; lg != nil && lg.state == stateHeld {
		m.enqueue(lg)
	}
}

// ids gives the containers whose logs are read.
func (m *FileMonitor) ids() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.logs))
}

// news lets a log be read (again). mu is held.
func (m *FileMonitor) news(lg *fileLog) {
	switch lg.state {
	case stateActive:
		delete(m.active, lg)
		m.enqueue(lg)
	case stateIdle:
		m.enqueue(lg)
	case stateQueued, stateReading, stateOpening:
		lg.again = true
	case stateClosed, stateHeld, stateFailed, stateGone:
		// Somebody else decides when.
	}
}

// enqueue puts a log at the back of its lane's queue. mu is held.
func (m *FileMonitor) enqueue(lg *fileLog) {
	lg.state, lg.again, lg.written = stateQueued, false, false
	if lg.newsAt.IsZero() {
		lg.newsAt = time.Now()
	}
	q := &m.ready[lg.lane]
	q.logs = append(q.logs, lg)
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// activate lets the next tick look at a log. mu is held.
func (m *FileMonitor) activate(lg *fileLog) {
	lg.state = stateActive
	m.active[lg] = struct{}{}
	if !m.ticking {
		m.ticking = true
		m.wake.kick()
	}
}

// take gives the next log of a lane to its reader, or nil. more keeps the signal
// up for those that are left.
func (m *FileMonitor) take(lane int) *fileLog {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := &m.ready[lane]
	if len(q.logs) == 0 {
		return nil
	}
	lg := q.logs[0]
	q.logs = append(q.logs[:0], q.logs[1:]...)
	lg.state, lg.again = stateReading, false
	return lg
}

// drop lets a log go for good; what is lost by that counts under a reason. mu is
// held, and nobody else has it in hand.
func (m *FileMonitor) drop(lg *fileLog, reason lossReason) {
	lg.state = stateGone
	if m.logs[lg.id] == lg {
		delete(m.logs, lg.id)
		m.order = nil
	}
	delete(m.active, lg)
	delete(m.failed, lg)
	if lg.wd >= 0 {
		if m.byWD[lg.wd] == lg {
			delete(m.byWD, lg.wd)
		}
		m.wake.forget(lg.wd)
		lg.wd = -1
	}
	if lg.tail != nil {
		m.close(lg, reason)
	}
}

// open takes hold of a log's files and lets it be read. Where to begin is the
// reader's to find out: it may wait for the positions, and meanwhile rotation
// would take away what is not held. Without a file it stays
// closed until one appears.
func (m *FileMonitor) open(lg *fileLog) {
	m.mu.Lock()
	if lg.state != stateClosed {
		lg.again = true
		m.mu.Unlock()
		return
	}
	lg.state = stateOpening
	m.mu.Unlock()
	for {
		// The watch first: what appears after the look is told.
		m.setWatch(lg, false)
		t, err := tail.Open(lg.path, tail.Options{Descriptors: m.descriptors, Settled: m.cfg.Settled})
		m.mu.Lock()
		if err == nil && m.ended {
			t.Close()
			lg.state = stateGone
			m.mu.Unlock()
			return
		}
		if err == nil {
			lg.tail, lg.unseen, lg.passed, lg.needed = t, 0, nil, t.Oldest()
			lg.blind = lg.blind || lg.wd < 0
			if !lg.exact {
				lg.created, lg.firstSeq = 0, t.Seq()
			}
			lg.fails = 0
			m.recovered(lg)
			if lg.removed {
				t.MarkFinal()
			}
			m.enqueue(lg)
			exact := lg.exact
			m.mu.Unlock()
			if exact {
				m.missedFiles(lg, t, tail.Change{Files: t.Held()})
			}
			return
		}
		if lg.again && errors.Is(err, fs.ErrNotExist) && !lg.removed {
			lg.again = false
			m.mu.Unlock()
			continue
		}
		lg.state = stateClosed
		switch {
		case lg.removed:
			m.neverOpened(lg)
			m.drop(lg, lostNothing)
			m.mu.Unlock()
			m.forgotten.forget(lg.id)
			return
		case !errors.Is(err, fs.ErrNotExist):
			m.failedBy(lg, fmt.Errorf("log of container %s: %w", lg.name, explain(err)))
		case lg.exited && exists(filepath.Dir(lg.path)):
			// Its log was deleted, or it never wrote one; a start brings it back.
			m.drop(lg, lostNothing)
			m.cfg.Logger.Debug("exited container has no log file", "container", lg.name, "path", lg.path)
		case exists(filepath.Dir(lg.path)):
			// Not started yet. What comes is all new.
			lg.retryAt, lg.fromEnd, lg.exact = time.Now(), false, true
		case lg.unseen < unseenPolls && exists(filepath.Dir(filepath.Dir(lg.path))):
			// Removed, most probably: the engine is about to say so.
			lg.unseen++
			lg.retryAt = time.Now()
		default:
			m.failedBy(lg, fmt.Errorf("log of container %s: %w", lg.name, explain(err)))
		}
		m.mu.Unlock()
		return
	}
}

// resume places a log where its delivery has stopped.
func (m *FileMonitor) resume(lg *fileLog, t *tail.Log) error {
	saved, known := m.cfg.Registry.Lookup(lg.id)
	plan := planResume(saved.Read, t.Find)
	switch {
	case plan.seq > 0:
		ok, err := t.SeekTo(plan.seq, plan.offset)
		if err != nil {
			return err
		}
		if !ok {
			m.cfg.Metrics.resumesByTime.Inc()
			m.cfg.Logger.Warn("saved offset does not fit the log file; it is read from its start, and lines are recognised by their times",
				"container", lg.name, "path", lg.path, "offset", plan.offset)
			for s := range plan.skip {
				plan.skip[s] = byTime(saved.Read[s])
			}
		}
	case !known && lg.fromEnd:
		if err := t.SeekEnd(); err != nil {
			return err
		}
		id, _, offset := t.Where()
		// The time is for the other road.
		end := entry.Position{File: id, Offset: offset, Time: time.Now().UnixNano()}
		saved.Read = [entry.NumStreams]entry.Position{end, end}
	default:
		if _, err := t.SeekTo(t.Oldest(), 0); err != nil {
			return err
		}
		// Where reading begins: else it would not be known after a crash that
		// rotation has taken it before anything was delivered.
		id, _, _ := t.Where()
		for s, pos := range saved.Read {
			if pos.IsZero() {
				saved.Read[s] = entry.Position{File: id}
			}
		}
	}
	if plan.lost != ([entry.NumStreams]bool{}) {
		last := max(saved.Read[0].Time, saved.Read[1].Time)
		m.mu.Lock()
		m.gap(lg, 1, t.Oldest()-1, last)
		m.mu.Unlock()
		m.cfg.Logger.Warn("the file in which reading had stopped is gone: what was written to it afterwards is lost; larger or more log files (log-opts max-size, max-file) bridge longer outages",
			"container", lg.name, "path", lg.path, "last_line", time.Unix(0, last).UTC())
	}
	m.cfg.resume(&lg.containerLog, saved.Read, &plan)
	return nil
}

// setWatch watches a log's directory, with or without writes. It is false if
// there is no watch: the poll must do.
func (m *FileMonitor) setWatch(lg *fileLog, writes bool) bool {
	// With mu held: a log of the same directory that came after this one must
	// not lose its watch.
	m.mu.Lock()
	defer m.mu.Unlock()
	if lg.state == stateGone {
		return false
	}
	wd, err := m.wake.watch(filepath.Dir(lg.path), writes)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.cfg.Metrics.watchErrors.Inc()
			// Without permission it cannot be opened either, which is said.
			if !errors.Is(err, fs.ErrPermission) && m.first("watch") {
				m.cfg.Logger.Warn("a log cannot be watched and is read every 2 s only", "error", err)
			}
		}
		return false
	}
	if wd < 0 {
		return false
	}
	if lg.wd >= 0 && lg.wd != wd {
		// The directory is another one than before.
		delete(m.byWD, lg.wd)
		m.wake.forget(lg.wd)
	}
	lg.wd, lg.writes = wd, writes
	m.byWD[wd] = lg
	return true
}

// first is true the first time that a problem of the whole monitor is to be
// said. mu is held.
func (m *FileMonitor) first(problem string) bool {
	_, said := m.said[problem]
	m.said[problem] = struct{}{}
	return !said
}

// failedBy notes that a log cannot be read, says so the first time, and sets the
// time of the next try. mu is held.
func (m *FileMonitor) failedBy(lg *fileLog, err error) {
	m.cfg.Metrics.readErrors.Inc()
	lg.noteFailure(err)
	if lg.newsAt.IsZero() {
		lg.newsAt = lg.lastErrAt // for all we know
	}
	if m.cfg.Access != nil {
		m.cfg.Access(lg.id, err)
	}
	if fresh, first := m.failed.begin(lg, err); fresh {
		level := slog.LevelDebug
		if first {
			level = slog.LevelError
		}
		m.cfg.Logger.Log(context.Background(), level, "log cannot be read; it will be tried again", "error", err)
	}
	lg.fails++
	pause := openRetryMax
	if lg.fails < 6 {
		pause = pollInterval << (lg.fails - 1)
	}
	lg.retryAt = time.Now().Add(min(pause, openRetryMax) - pollInterval/2)
}

// recovered notes that a log can be read. mu is held.
func (m *FileMonitor) recovered(lg *fileLog) {
	ended, all, after := m.failed.end(lg)
	if !ended {
		return
	}
	if m.cfg.Access != nil {
		m.cfg.Access(lg.id, nil)
	}
	if all {
		m.cfg.Logger.Info("all logs can be read again", "after", after)
	}
}

// watchLoop waits for news of any log. While logs are active it wakes for ticks,
// and what is written meanwhile does not wake it.
func (m *FileMonitor) watchLoop(ctx context.Context) error {
	var events []WakeEvent
	var logs []*fileLog // reused
	now := time.Now()
	nextPoll, lastTick := now.Add(pollInterval), now
	// lately: the last tick found active logs, or something has been told since.
	// Either may be so again in a moment, or is still in the readers' hands.
	lately := false
	for ctx.Err() == nil {
		m.mu.Lock()
		ticking := lately || len(m.active) > 0
		m.ticking = ticking
		m.mu.Unlock()
		until := nextPoll
		if t := lastTick.Add(m.cfg.Tick); ticking && t.Before(until) {
			until = t
		}
		var err error
		if events, err = m.wake.wait(until, !ticking, events[:0]); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // closed at the end
			}
			return fmt.Errorf("file monitor: %w", err)
		}
		m.mu.Lock()
		m.ticking = true
		m.mu.Unlock()
		overflow := m.handle(events)
		now := time.Now()
		if !now.Before(lastTick.Add(m.cfg.Tick)) {
			lastTick = now
			logs, lately = m.tick(logs[:0])
		}
		lately = lately || len(events) > 0
		if overflow || !now.Before(nextPoll) {
			nextPoll = now.Add(pollInterval)
			if overflow = m.poll(); overflow {
				nextPoll = now
			}
		}
	}
	return nil
}

// handle acts on notifications, and reports whether some were lost.
func (m *FileMonitor) handle(events []WakeEvent) (overflow bool) {
	m.cfg.Metrics.events.Add(float64(len(events)))
	m.countCreated(events)
	for _, e := range events {
		if e.Overflow {
			overflow = true
			continue
		}
		m.mu.Lock()
		lg := m.byWD[e.WD]
		if lg == nil {
			m.mu.Unlock()
			continue
		}
		if e.Ended {
			delete(m.byWD, e.WD)
			if lg.wd == e.WD {
				lg.wd, lg.writes, lg.blind = -1, false, true
			}
		}
		state := lg.state
		m.mu.Unlock()
		switch {
		case state == stateClosed || state == stateOpening:
			if e.Appeared {
				m.open(lg)
			}
		case e.Appeared || e.Ended:
			m.handleLogRotation(lg)
		case e.Written:
			m.written(lg)
		}
	}
	return overflow
}

// written lets the next tick look at a log that was written to: not at once, since
// of many quiet logs some are written to all the time. Where nothing was active of
// late the tick is due.
func (m *FileMonitor) written(lg *fileLog) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch lg.state {
	case stateIdle:
		m.activate(lg)
	case stateQueued, stateReading:
		lg.written = true
	case stateActive, stateClosed, stateOpening, stateHeld, stateFailed, stateGone:
		// It is read anyway, or somebody else decides when.
	}
}

// countCreated counts new log files before any is looked for: a look finds those
// of the notifications behind it as well.
func (m *FileMonitor) countCreated(events []WakeEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range events {
		if e.Overflow && !e.Written {
			for _, lg := range m.logs {
				lg.blind = true
			}
		} else if lg := m.byWD[e.WD]; e.Created && lg != nil {
			lg.created++
		}
	}
}

// handleLogRotation looks whether a log's path has moved on, and takes hold of
// the new files at once: the next rotation may unlink them. The readers come to
// them in order.
func (m *FileMonitor) handleLogRotation(lg *fileLog) {
	m.mu.Lock()
	t := lg.tail
	gone := lg.state == stateGone || t == nil
	m.mu.Unlock()
	if gone {
		return
	}
	state, err := m.follow(lg, t)
	if err != nil || state == tail.Gone || state == tail.Unchanged {
		return // whether the container is no more, Docker says
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.news(lg)
}

// follow takes hold of the new files if the path has moved on.
func (m *FileMonitor) follow(lg *fileLog, t *tail.Log) (tail.State, error) {
	state, err := t.Check()
	if err == nil && state == tail.Rotated {
		var change tail.Change
		change, err = t.Refresh()
		m.changed(lg, t, change)
	}
	if err != nil {
		m.cannotLook(err)
	}
	return state, err
}

// changed takes account of what a look at the files has found.
func (m *FileMonitor) changed(lg *fileLog, t *tail.Log, change tail.Change) {
	m.cfg.Metrics.rotations.Add(float64(change.Files))
	if (change.Gap || lg.exact) && !change.Behind {
		m.missedFiles(lg, t, change)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if lg.tail == t {
		lg.flagUnlinked()
	}
}

// missedFiles finds out, after a look, whether more files were made than were
// found: the others are lost.
func (m *FileMonitor) missedFiles(lg *fileLog, t *tail.Log, change tail.Change) {
	m.mu.Lock()
	seq := t.Seq()
	lost := missed(lg.created, seq, lg.firstSeq, change.Gap, lg.blind)
	if lost > 0 {
		lg.created = seq - lg.firstSeq
		m.gap(lg, lost, seq-int64(change.Files), 0)
	}
	m.mu.Unlock()
	switch {
	case lost <= 0:
	case change.KeptOut:
		m.cfg.Logger.Warn("log files were rotated away while no more of them could be held open: their lines are lost; room in the spool (spool.max_bytes) lets the others be read meanwhile, a higher limit on open files (LimitNOFILE, ulimit -n) holds more, larger or more log files (log-opts max-size, max-file) keep them",
			"container", lg.name, "files", lost)
	default:
		m.cfg.Logger.Warn("log files were rotated away faster than they could be taken hold of: their lines are lost; larger or more log files (log-opts max-size, max-file) prevent it",
			"container", lg.name, "files", lost)
	}
}

// cannotLook notes that a rotation may be missed.
func (m *FileMonitor) cannotLook(err error) {
	m.cfg.Metrics.readErrors.Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first("rotation") {
		m.cfg.Logger.Warn("the files of a log cannot be listed", "error", explain(err))
	}
}

// tick lets the logs be read that are busy or have been written to, and changes
// the watch of those that have become busy or quiet.
//
// It reports whether there were any. logs is memory to use.
func (m *FileMonitor) tick(logs []*fileLog) (_ []*fileLog, found bool) {
	logs, found = m.enqueueActive(logs)
	m.changeWatches(logs)
	return logs, found
}

// enqueueActive lets all active logs be read but those that have become quiet. It
// appends the ones whose watch is to change, and reports whether there were any logs.
func (m *FileMonitor) enqueueActive(logs []*fileLog) (_ []*fileLog, found bool) {
	// All at once, so that each reader finds all of its lane's and makes one batch
	// of them.
	m.mu.Lock()
	defer m.mu.Unlock()
	found = len(m.active) > 0
	for lg := range m.active {
		if !lg.writes && lg.quiet >= quietTicks {
			logs = append(logs, lg)
			continue
		}
		if lg.writes && lg.busy >= busyReads {
			// Before the reader has it: it must not leave a log to a watch that is
			// about to be taken away.
			lg.writes = false
			logs = append(logs, lg)
		}
		delete(m.active, lg)
		m.enqueue(lg) // the read itself tells whether there is any
	}
	return logs, found
}

// changeWatches lets go of logs that have become quiet, and watches their writes;
// those of the others, which are busy, it watches no more.
func (m *FileMonitor) changeWatches(logs []*fileLog) {
	for _, lg := range logs {
		m.mu.Lock()
		t, quiet := lg.tail, lg.state == stateActive && lg.quiet >= quietTicks // it may be let go meanwhile
		m.mu.Unlock()
		if !quiet {
			m.setWatch(lg, false)
			continue
		}
		// Watch first, then look once more: a write between the two is told
		// or seen.
		m.setWatch(lg, true)
		quiet = t.Quiet()
		m.mu.Lock()
		idle := quiet && lg.state == stateActive
		if idle {
			delete(m.active, lg)
			lg.state, lg.busy = stateIdle, 0
		} else {
			lg.writes = false // as above
			m.news(lg)
		}
		m.mu.Unlock()
		if !idle {
			m.setWatch(lg, false)
		}
	}
}

// poll is the safety net: it looks at every log, and counts what notifications
// should have told. It reports whether some of those were lost meanwhile.
func (m *FileMonitor) poll() (overflow bool) {
	now := time.Now()
	m.mu.Lock()
	logs := m.inOrder()
	m.polls++
	turn := newPathTurn(m.polls, len(logs), m.anyGone)
	m.anyGone = false
	m.mu.Unlock()
	m.forgotten.again()
	var suspects []*fileLog
	for _, lg := range logs {
		m.mu.Lock()
		t, state, retry := lg.tail, lg.state, !now.Before(lg.retryAt)
		byPath := turn.has(lg.turn, lg.unseen)
		m.mu.Unlock()
		switch state {
		case stateClosed:
			if retry {
				m.open(lg)
			}
		case stateFailed:
			if retry {
				m.mu.Lock()
				if lg.state == stateFailed {
					m.enqueue(lg)
				}
				m.mu.Unlock()
			}
		case stateIdle, stateActive, stateQueued, stateReading, stateHeld:
			found, err := tail.Unchanged, error(nil)
			if byPath || !t.Untouched() {
				found, err = t.Check()
			}
			m.mu.Lock()
			m.countUnseen(lg, err != nil || found == tail.Gone)
			if err == nil && found == tail.Unchanged {
				// Nothing is missing: what notifications have told too
				// often (of files that were found before) does not add up.
				lg.created = t.Seq() - lg.firstSeq
				lg.blind = lg.wd < 0
			}
			m.mu.Unlock()
			switch {
			case err != nil:
				m.cannotLook(err)
			case found == tail.Gone, found == tail.Unchanged:
			case found == tail.Grown && state != stateIdle:
				// A tick or a reader will see it.
			default:
				suspects = append(suspects, lg)
			}
		case stateOpening, stateGone:
		}
	}
	if len(suspects) == 0 {
		return false
	}
	// What has been told meanwhile was not missed.
	var told map[*fileLog]bool
	if events, err := m.wake.wait(now, false, nil); err == nil && len(events) > 0 {
		told = make(map[*fileLog]bool, len(events))
		m.mu.Lock()
		for _, e := range events {
			if lg := m.byWD[e.WD]; lg != nil {
				told[lg] = true
			}
		}
		m.mu.Unlock()
		overflow = m.handle(events)
	}
	for _, lg := range suspects {
		if !told[lg] {
			m.cfg.Metrics.missed.Inc()
		}
		m.handleLogRotation(lg)
	}
	return overflow
}

// inOrder gives the logs in the order in which they came. It matters to nobody but the
// processor: what the kernel and this process know of logs that came one after the other
// mostly lies so in memory, too, and in that order half as much is waited for. The
// slice must not be changed; it may be used without mu, which is held here.
func (m *FileMonitor) inOrder() []*fileLog {
	if m.order == nil {
		m.order = slices.SortedFunc(maps.Values(m.logs), func(a, b *fileLog) int { return cmp.Compare(a.turn, b.turn) })
	}
	return m.order
}

// pathTurn is which logs a poll looks at by their path although their files may be
// untouched. Few logs are looked at by each poll, and many in turns. What befalls one
// directory often befalls others: if the last poll has found one gone, it is all of them.
type pathTurn struct {
	poll  int
	polls int // in how many each log has its turn
	all   bool
}

// newPathTurn is for a poll of so many logs; all: the last one has found a path gone.
func newPathTurn(poll, logs int, all bool) pathTurn {
	p := pathTurn{poll: poll, polls: 1, all: all}
	// All divide pathPolls: the poll in which one of many has its turn would also be its
	// turn among few, so that none misses it where the number of logs goes up and down.
	for _, n := range [...]int{3, 5, pathPolls} {
		if logs >= n*pathLooks {
			p.polls = n
		}
	}
	return p
}

// has decides on the log with a turn, whose path was unseen so many times in a row.
func (p pathTurn) has(turn, unseen int) bool {
	return p.all || unseen > 0 || (p.poll+turn)%p.polls == 0
}

// countUnseen takes account of a look at a log. One whose path cannot be seen for
// long, though its container runs, is handed to the reader, which finds out that
// rotation cannot be followed: its directory was closed or unmounted. mu is held.
func (m *FileMonitor) countUnseen(lg *fileLog, unseen bool) {
	switch {
	case !unseen || lg.exited:
		lg.unseen = 0
	case lg.unseen < unseenPolls:
		m.anyGone = m.anyGone || lg.unseen == 0
		if lg.unseen++; lg.unseen == unseenPolls {
			m.news(lg)
		}
	}
}

// visible says why the path of a log cannot be seen; nil if it can.
func (lg *fileLog) visible() error {
	state, err := lg.tail.Check()
	if err == nil && state == tail.Gone {
		err = &fs.PathError{Op: "stat", Path: lg.path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return explain(err)
	}
	return nil
}

// readLane reads the logs of a lane in turns.
func (m *FileMonitor) readLane(ctx context.Context, lane int) error {
	j := &joiner{
		maxLine: m.cfg.MaxLineBytes, shipMalformed: m.cfg.ShipMalformed,
		begin: m.cfg.Spans.Begin, started: m.cfg.startedAgain,
	}
	buf := make([]byte, readBytes)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.ready[lane].signal:
		}
		for ctx.Err() == nil {
			lg := m.take(lane)
			if lg == nil {
				break
			}
			b, err := m.cfg.Outlet.Reserve(ctx, lane)
			if err != nil {
				return nil //nolint:nilerr // ctx has ended
			}
			for lg != nil {
				m.read(j, lg, b, buf[:min(readBytes, max(minReadBytes, b.Limit-b.Size()))])
				if b.Size()+minReadBytes > b.Limit || ctx.Err() != nil {
					break
				}
				lg = m.take(lane)
			}
			if len(j.malformed) > 0 {
				m.cfg.Malformed.CopyMalformed(j.malformed)
				clear(j.malformed)
				j.malformed = j.malformed[:0]
			}
			m.count(&j.counts)
			m.cfg.Outlet.Submit(lane, b)
		}
	}
}

// count adds what visits have counted to the metrics and sets it to zero.
func (m *FileMonitor) count(c *visitCounts) {
	m.cfg.Metrics.readBytes.Add(float64(c.bytes))
	m.cfg.Lines.add(MethodFileMonitor, c)
}

// read visits one log and decides whose it is then.
func (m *FileMonitor) read(j *joiner, lg *fileLog, b *entry.Batch, buf []byte) {
	if lg.src.Held.Load() {
		m.mu.Lock()
		lg.state = stateHeld
		if !lg.src.Held.Load() { // let go before it could be waked
			m.enqueue(lg)
		}
		m.mu.Unlock()
		return
	}
	m.mu.Lock()
	final := lg.exited // now: the room for the batch may have been long in coming
	lg.hand(&lg.containerLog)
	unseen := lg.unseen == unseenPolls
	m.mu.Unlock()
	if final {
		// Its last rotation may not have been told yet.
		_, err := m.follow(lg, lg.tail)
		final = err == nil
	}
	ignored, latest := lg.ignored, lg.latest
	var r visitResult
	if !lg.placed {
		r.err = m.resume(lg, lg.tail)
		lg.placed = r.err == nil
	}
	if lg.placed {
		r = j.visit(lg, b, buf, final)
		if r.chunk.Change != (tail.Change{}) {
			m.changed(lg, lg.tail, r.chunk.Change)
		}
		m.pass(lg, &r)
	}
	if unseen && !r.news && r.err == nil {
		r.err = lg.visible()
	}
	m.cfg.sayIgnored(&lg.containerLog, ignored)
	if r.chunk.Truncated {
		m.cfg.Metrics.truncations.Inc()
		m.cfg.Logger.Warn("log file was truncated by somebody else; it is read anew from its start", "container", lg.name, "path", lg.path, "lost_bytes", r.chunk.Lost)
	}
	done := false
	if final && !r.news && r.err == nil {
		// Half a line may be left: a next start of the container writes on.
		state, err := lg.tail.Check()
		done = err == nil && (state == tail.Unchanged || state == tail.Gone)
	}

	m.mu.Lock()
	m.countLost(lg, &r, latest)
	if r.err != nil {
		m.failedBy(lg, fmt.Errorf("log of container %s: %w", lg.name, r.err))
		lg.state = stateFailed
		m.mu.Unlock()
		return
	}
	m.recovered(lg)
	lg.fails = 0
	if unseen && !r.news {
		lg.unseen = 0 // the look saw it: that it goes again before the next poll counts anew
	}
	if lg.quiet++; r.news {
		lg.quiet = 0
		now := time.Now()
		if lg.busy++; now.Sub(lg.newsRead) >= 2*m.cfg.Tick {
			lg.busy = 1
		}
		lg.newsRead = now
	}
	switch {
	case !lg.over && (r.more || lg.again):
		m.enqueue(lg)
	case lg.over, done && lg.exited && lg.coming == nil, lg.removed && !r.more:
		lg.state = stateOpening // not yet another's
		removed := lg.removed
		m.mu.Unlock()
		m.letGo(lg, removed)
		return
	default:
		lg.newsAt = time.Time{}
		if lg.writes && !lg.written && lg.busy < busyReads {
			lg.state = stateIdle // what is written since the read will be told
		} else {
			m.activate(lg)
		}
	}
	m.mu.Unlock()
}

// letGo ends the reading of a log that has been read to its end. It waits for the
// positions, so that m.mu must not be held: it would keep rotations waiting.
func (m *FileMonitor) letGo(lg *fileLog, removed bool) {
	if !removed {
		if lg.next != nil && lg.next.src != nil {
			// Nothing has been written since its latest start.
			lg.note = lg.next.note
			var at int64
			lg.file, _, at = lg.tail.Where()
			m.cfg.startedAgain(&lg.containerLog, at)
		}
		m.cfg.Registry.Unregister(lg.log)
	}
	m.mu.Lock()
	reason := lostExited
	if lg.over {
		reason = lostNothing
	}
	if removed || lg.removed || lg.over || lg.exited && lg.coming == nil {
		removed = lg.removed
		m.drop(lg, reason)
		m.mu.Unlock()
		if removed {
			m.forgotten.forget(lg.id)
		}
		return
	}
	// It has been started meanwhile, and goes on from its position.
	m.close(lg, reason)
	lg.tail, lg.placed, lg.state = nil, false, stateClosed
	m.mu.Unlock()
	m.open(lg)
}

// FileHealth is the state of the file monitor, for /health.
type FileHealth struct {
	FilesMonitored int   // containers on this road
	FilesHeld      int64 // descriptors of log files
	UnreadBytes    int64
	// Failed are the logs that cannot be read, and the first of their errors.
	Failed   int
	FailedBy error
	// Held are the logs that the store refuses for now.
	Held int
	// MalformedAt is when a malformed line was last found, GapAt files that were
	// never seen, LostAt the rest of one that was; zero if never.
	MalformedAt, GapAt, LostAt time.Time
}

// Health gives the monitor's state. It costs an fstat for each file held of the logs that
// are not idle.
func (m *FileMonitor) Health() FileHealth {
	m.mu.Lock()
	h := FileHealth{
		FilesMonitored: len(m.logs), FilesHeld: m.descriptors.Open(), Failed: len(m.failed), FailedBy: m.failed.longest(),
		GapAt: m.gapAt, LostAt: m.lostAt, MalformedAt: m.cfg.Lines.malformedAt(),
	}
	tails := make([]*tail.Log, 0, len(m.logs))
	for _, lg := range m.inOrder() {
		if lg.tail != nil {
			tails = append(tails, lg.tail)
		}
		if lg.state == stateHeld {
			h.Held++
		}
	}
	m.mu.Unlock()
	for _, t := range tails {
		h.UnreadBytes += t.Unread()
	}
	return h
}
