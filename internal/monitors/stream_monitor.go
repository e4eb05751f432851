package monitors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
)

const (
	// exitTold is how long the end of a stream waits for the engine to say that
	// the container has exited: the event comes within milliseconds. Without it
	// the engine has only been shut down.
	exitTold = 2 * time.Second

	// streamGrace is how long a stream of a container that is no more may go on:
	// what the engine has sent is still to be read.
	streamGrace = 10 * time.Second

	// turnSilence is for how long the engine may send nothing in a turn, which it
	// ends by itself otherwise. It may have to pass over a large log first.
	turnSilence = time.Minute

	// Pauses before a container is tried again whose stream has failed.
	streamRetryFirst = 500 * time.Millisecond
	streamRetryMax   = 30 * time.Second
	// exitedRetryMax is that for one that has exited, which may be half removed
	// for good: each try may cost another one its connection.
	exitedRetryMax = 10 * time.Minute

	// followEvery is the least time from the start of a connection that follows
	// to that of the next: each costs the engine a read of the whole log, and a
	// container may be restarted in a loop.
	followEvery = time.Second

	// removalTries is how often a container may be found to be going before that
	// is a failure: some stay half removed.
	removalTries = 3

	// streamLived is from how long on a stream counts as one that worked: its
	// end is no reason for a longer pause.
	streamLived = 10 * time.Second
)

// LogStream is the open log of a container: docker.LogStream.
type LogStream interface {
	Next() (docker.Frame, error)
	Buffered() bool
	Close() error
}

// StreamMonitorConfig is what a StreamMonitor is made of.
type StreamMonitorConfig struct {
	LogConfig
	// Open opens a container's log: docker.Client.Logs.
	Open func(ctx context.Context, id string, o docker.LogsOptions) (LogStream, error)
	// MaxStreams bounds the connections.
	MaxStreams int
	Metrics    *StreamMetrics
}

// StreamMonitor reads logs through the Docker API: those that have no file that
// can be read. One goroutine decides which containers are followed and which are
// read in turns (planStreams); each open stream has one of its own, that the
// former has started and waits for.
//
// A stream keeps nothing between two connections but its name: each begins where
// the positions say that reading had stopped.
type StreamMonitor struct {
	cfg       StreamMonitorConfig
	news      chan struct{} // has room for one: plan again
	forgotten *forgetter

	mu   sync.Mutex
	logs map[string]*streamLog // by container ID
	// failed are the containers that cannot be streamed now, and why.
	failed logProblems[*streamLog]
	gapAt  time.Time // when lines were last found to be lost
}

// streamLog is one container's log being streamed. The goroutine of its stream
// owns containerLog, if there is one; StreamMonitor.mu guards the rest.
type streamLog struct {
	containerLog
	created int64         // when the container was, Unix ns
	waked   chan struct{} // has room for one: the store takes its lines again
	told    chan struct{} // has room for one: the engine has told something of it

	startNames
	tty     bool
	addedAt time.Time
	running bool
	// exits counts the exits that are known, readExits is up to which of them
	// the log has been read to its end.
	exits, readExits int
	// noLog: the engine cannot read its log back. Told anew at each start.
	noLog bool
	// excluded: nothing of its present start is captured.
	excluded bool
	// removed: it will never run again. endBy is when its stream is cut off.
	removed bool
	endBy   time.Time
	// leaving, unless nil, is called when the log is let go to the other road.
	leaving func()

	conn   streamKind
	cancel context.CancelFunc // ends the stream
	// held: the store refuses it for now. waits: that, or there is no room
	// before the store. heardAt is when the engine last sent anything.
	held, waits bool
	heardAt     time.Time
	hung        bool      // it was cut off because the engine sent nothing
	readAt      time.Time // when it was last known to be read to its end
	turnAt      time.Time // when its last turn began
	retryAt     time.Time
	fails       int // in a row
	logFailures
}

type streamKind uint8

const (
	streamNone streamKind = iota
	streamFollow
	streamTurn
)

// NewStreamMonitor makes a StreamMonitor. It starts nothing.
func NewStreamMonitor(cfg StreamMonitorConfig) *StreamMonitor {
	m := &StreamMonitor{
		cfg: cfg, news: make(chan struct{}, 1), forgotten: newForgetter(&cfg.LogConfig),
		logs: make(map[string]*streamLog), failed: make(logProblems[*streamLog]),
	}
	m.observe(cfg.Metrics.reg)
	return m
}

// Run streams until ctx ends, and returns when every stream has.
func (m *StreamMonitor) Run(ctx context.Context) error {
	var streams sync.WaitGroup
	defer streams.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		m.forgotten.again()
		timer.Reset(m.plan(ctx, &streams))
		select {
		case <-ctx.Done():
			return nil
		case <-m.news:
		case <-timer.C:
		}
	}
}

// plan opens and ends streams as planStreams says, and gives how long it may
// take until the next plan.
func (m *StreamMonitor) plan(ctx context.Context, streams *sync.WaitGroup) (pause time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	views := make([]streamView, 0, len(m.logs))
	next := now.Add(time.Minute)
	soon := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if m.forgotten.waiting() {
		soon(now.Add(pollInterval))
	}
	for _, lg := range m.logs {
		if end := lg.cutAt(); lg.conn != streamNone && !end.IsZero() {
			switch {
			case lg.waits: // not for the engine
				soon(now.Add(streamGrace))
			case now.Before(end):
				soon(end)
			default:
				lg.hung = lg.endBy.IsZero()
				lg.cancel()
			}
		}
		if lg.conn == streamNone && lg.retryAt.After(now) {
			soon(lg.retryAt)
		}
		views = append(views, streamView{
			id: lg.id, running: lg.running, unread: lg.unread() && !lg.retryAt.After(now),
			following: lg.conn == streamFollow, turning: lg.conn == streamTurn,
			readAt: later(lg.readAt, lg.addedAt), turnAt: lg.turnAt, retryAt: lg.retryAt,
			stopped: lg.noLog || lg.leaving != nil || lg.conn == streamNone && (lg.removed || lg.src.Held.Load()),
		})
	}
	p := planStreams(views, m.cfg.MaxStreams, now)
	if len(p.stop) > 0 {
		for _, id := range p.stop {
			m.logs[id].cancel()
		}
		// Each tells when it has ended: only then is there room for others.
		p = streamPlan{next: p.next}
	}
	begin := func(id string, kind streamKind) {
		lg := m.logs[id]
		streamCtx, cancel := context.WithCancel(ctx)
		lg.conn, lg.cancel = kind, cancel
		lg.endBy, lg.hung, lg.heardAt = time.Time{}, false, now
		if kind == streamTurn {
			lg.turnAt = now
			m.cfg.Metrics.turns.Inc()
		}
		streams.Go(func() { m.monitor(streamCtx, lg, kind == streamFollow) })
	}
	for _, id := range p.follow {
		begin(id, streamFollow)
	}
	for _, id := range p.turn {
		begin(id, streamTurn)
	}
	if !p.next.IsZero() {
		soon(p.next)
	}
	return max(next.Sub(now), time.Millisecond)
}

// unread reports whether a container that has exited has to be read once more.
func (lg *streamLog) unread() bool { return !lg.running && lg.readExits < lg.exits }

// cutAt is when the stream is to be cut off unless more comes; zero: never.
func (lg *streamLog) cutAt() time.Time {
	switch {
	case !lg.endBy.IsZero():
		return later(lg.endBy, lg.heardAt.Add(streamGrace))
	case lg.conn == streamTurn:
		return lg.heardAt.Add(turnSilence)
	}
	return time.Time{}
}

// signal lets the plan be made again.
func (m *StreamMonitor) signal() { tell(m.news) }

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add begins to stream a container's log, or goes on if it is streamed already: a
// start of the container, or one more look at the list.
func (m *StreamMonitor) add(info ContainerLogFileInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.signal()
	// One that was only created has nothing to read.
	running := info.Running && !info.StartedAt.IsZero()
	lg := m.logs[info.ID]
	if lg == nil {
		lg = &streamLog{
			created: info.Created.UnixNano(), waked: make(chan struct{}, 1), told: make(chan struct{}, 1),
			addedAt: time.Now(), tty: info.TTY,
		}
		lg.containerLog, lg.startNames = m.cfg.newLog(info, MethodStreaming)
		m.logs[info.ID] = lg
		if !running && !info.StartedAt.IsZero() {
			lg.exits++ // what it wrote while nobody looked
		}
	} else {
		again := lg.startedAgain(&m.cfg.LogConfig, &lg.containerLog, info)
		if again {
			lg.noLog = false
		}
		// Nobody has told: of the run that was known, and of one that came and went since.
		if lg.running && (again || !running) {
			lg.exits++
		}
		if again && !running {
			lg.exits++
		}
		if lg.fails > 0 {
			lg.retryAt = time.Time{} // the engine answers: no reason to wait any longer
		}
		tell(lg.told)
	}
	lg.running = running
}

// exclude says that a container is not captured from its present start on: what it
// wrote before is still read.
func (m *StreamMonitor) exclude(info ContainerLogFileInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lg := m.logs[info.ID]
	if lg == nil || lg.excluded {
		return
	}
	lg.stopAt(info)
	if lg.running {
		lg.exits++ // nobody has told
	}
	lg.running, lg.excluded = false, true
	if lg.conn == streamNone && !lg.unread() {
		m.leave(lg)
		return
	}
	if lg.conn == streamFollow {
		lg.endBy = time.Now().Add(streamGrace)
	}
	tell(lg.told)
	m.signal()
}

// containerExited says that a container runs no more: its log is read to its end.
func (m *StreamMonitor) containerExited(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lg := m.logs[id]
	if lg == nil || lg.excluded || !lg.running && !lg.names.started.IsZero() {
		return // known already
	}
	lg.running = false
	lg.exits++
	if lg.conn == streamFollow {
		lg.endBy = time.Now().Add(streamGrace) // its end should come by itself
	}
	tell(lg.told)
	m.signal()
}

// containerRemoved says that a container is no more: what its open stream still
// brings is read, then everything about it is forgotten. It is false, and does
// nothing, if the container is not streamed.
func (m *StreamMonitor) containerRemoved(id string) bool {
	m.mu.Lock()
	lg := m.logs[id]
	if lg == nil {
		m.mu.Unlock()
		return false
	}
	if lg.running {
		lg.exits++
	}
	lg.running, lg.removed = false, true
	tell(lg.told)
	if lg.conn != streamNone {
		lg.endBy = time.Now().Add(streamGrace)
		m.mu.Unlock()
		m.signal()
		return true
	}
	m.drop(lg)
	m.mu.Unlock()
	m.forgotten.forget(id)
	m.signal() // it may have to be tried again
	return true
}

// drop lets the log of a container that is no more go. mu is held.
func (m *StreamMonitor) drop(lg *streamLog) {
	delete(m.logs, lg.id)
	m.recovered(lg)
	if lg.unread() && !lg.noLog {
		m.gapAt = time.Now()
		m.cfg.Metrics.gaps.Inc()
		m.cfg.Logger.Warn("container was removed before its log had been streamed to its end: its last lines may be lost; the log driver json-file prevents it, and a higher streaming.max_streams may",
			"container", lg.name)
	}
}

// release gives a container to the other road. done is called when nothing of it
// is read here any more, perhaps before release returns.
func (m *StreamMonitor) release(id string, done func()) {
	m.mu.Lock()
	lg := m.logs[id]
	switch {
	case lg == nil:
	case lg.conn != streamNone:
		lg.leaving = done
		lg.cancel()
		m.mu.Unlock()
		return
	default:
		m.leave(lg)
	}
	m.mu.Unlock()
	done()
}

// leave takes a log off the monitor; its position stays. mu is held.
func (m *StreamMonitor) leave(lg *streamLog) {
	delete(m.logs, lg.id)
	m.recovered(lg)
	if lg.log != 0 {
		m.cfg.Registry.Unregister(lg.log)
	}
}

// Wake says that the store takes a source's lines again.
func (m *StreamMonitor) Wake(src *entry.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lg := m.logs[src.ID]; lg != nil {
		tell(lg.waked)
		m.signal()
	}
}

// has reports whether a container is the monitor's.
func (m *StreamMonitor) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[id] != nil
}

// ids gives the containers whose logs are streamed.
func (m *StreamMonitor) ids() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.logs))
}

// monitor is the goroutine of a stream.
func (m *StreamMonitor) monitor(ctx context.Context, lg *streamLog, follow bool) {
	opened := time.Now()
	m.cfg.Metrics.open.Inc()
	read, err := m.stream(ctx, lg, follow)
	m.cfg.Metrics.open.Dec()
	m.mu.Lock()
	stopped := ctx.Err() != nil
	lg.cancel()
	lg.conn, lg.endBy, lg.held, lg.waits = streamNone, time.Time{}, false, false
	now := time.Now()
	if read.some || !read.opened.IsZero() && now.Sub(read.opened) > streamLived {
		lg.fails = 0 // it has worked
	}
	switch {
	case read.toEnd:
		lg.readAt = opened
		if follow {
			lg.readAt = now
		}
		lg.readExits = max(lg.readExits, read.exits)
	case follow && read.some:
		lg.readAt = now
	}
	switch {
	case stopped && lg.hung:
		m.failedBy(lg, fmt.Errorf("the engine has sent nothing for %v", turnSilence))
	case stopped:
	case errors.Is(err, docker.ErrNotReadable):
		lg.noLog = true
		lg.lastErr, lg.lastErrAt = err, now
		m.cfg.Logger.Warn("container is not captured: the engine cannot read its log back; use another log driver, or leave cache-disabled out of its log-opts",
			"container", lg.name, "error", err)
	case err != nil && lg.removed:
	case lg.fails < removalTries && (errors.Is(err, docker.ErrNotFound) || errors.Is(err, docker.ErrConflict)):
		lg.pause() // it is being removed: the engine will say so
	case err != nil:
		m.failedBy(lg, err)
	default:
		m.recovered(lg)
		switch {
		case read.toEnd:
			lg.fails = 0
			if follow {
				lg.retryAt = opened.Add(followEvery)
			}
		case follow:
			// The engine ends streams without an exit: it is being shut down.
			lg.pause()
		}
	}
	var leaving func()
	removed := false
	switch {
	case lg.leaving != nil:
		leaving = lg.leaving
		if lg.removed {
			m.drop(lg) // who takes it over forgets it
		} else {
			m.leave(lg)
		}
	case lg.removed:
		removed = true
		m.drop(lg)
	case lg.excluded && read.toEnd:
		m.leave(lg)
	}
	m.mu.Unlock()
	if removed {
		m.forgotten.forget(lg.id)
	}
	if leaving != nil {
		leaving()
	}
	m.signal()
}

// pause sets the time of the next try. mu is held.
func (lg *streamLog) pause() {
	lg.fails++
	longest := streamRetryMax
	if !lg.running {
		longest = exitedRetryMax
	}
	pause := longest
	if lg.fails < 12 {
		pause = min(streamRetryFirst<<(lg.fails-1), longest)
	}
	lg.retryAt = time.Now().Add(pause)
}

// failedBy notes that a log cannot be streamed and says so the first time. mu is
// held.
func (m *StreamMonitor) failedBy(lg *streamLog, err error) {
	m.cfg.Metrics.errors.Inc()
	lg.noteFailure(err)
	if fresh, first := m.failed.begin(lg, fmt.Errorf("log of container %s: %w", lg.name, err)); fresh {
		level := slog.LevelDebug
		if first {
			level = slog.LevelWarn
		}
		m.cfg.Logger.Log(context.Background(), level, "log cannot be streamed; it will be tried again", "container", lg.name, "error", err)
	}
	lg.pause()
}

// recovered notes that a log can be streamed, or need not. mu is held.
func (m *StreamMonitor) recovered(lg *streamLog) {
	if _, all, after := m.failed.end(lg); all {
		m.cfg.Logger.Info("all logs can be streamed again", "after", after)
	}
}

// streamed is what a connection came to.
type streamed struct {
	opened time.Time // when the connection stood; zero: it never did
	some   bool      // entries have come
	// toEnd: the log has been read to its end, as it was when the connection was
	// opened, or at the exit number exits.
	toEnd bool
	exits int
}

// stream opens a connection and reads it to its end. The error says why it could
// not be opened, or what broke it.
//
// At an exit an engine ends a stream that follows, in order, and leaves out what
// it had not sent yet: all of a log of 300 KB that was written at full speed, in
// five runs of six (measured on 20.10). So the log is then read once more from
// where that has ended.
func (m *StreamMonitor) stream(ctx context.Context, lg *streamLog, follow bool) (r streamed, err error) {
	m.mu.Lock()
	run := streamRun{follow: follow, running: lg.running, exits: lg.exits}
	lg.hand(&lg.containerLog)
	o := docker.LogsOptions{Follow: follow, TTY: lg.tty, StartedAt: lg.names.started}
	m.mu.Unlock()
	s, err := m.open(ctx, lg, o)
	if err != nil {
		return r, err
	}
	r.opened = time.Now()
	m.mu.Lock()
	m.recovered(lg)
	m.mu.Unlock()
	j := &joiner{maxLine: m.cfg.MaxLineBytes, begin: m.cfg.Spans.Begin, started: m.cfg.startedAgain}
	if r.some, err = m.readOut(ctx, lg, j, s); err != nil {
		return r, err
	}
	if !lg.over && !m.exited(ctx, lg, run) {
		r.toEnd = !follow
		return r, nil
	}
	if follow && run.running && !lg.over && !m.runs(lg) {
		o.Follow = false
		switch s, err := m.open(ctx, lg, o); {
		case errors.Is(err, docker.ErrNotFound), errors.Is(err, docker.ErrConflict):
			// It is removed already; what has come has to do.
		case err != nil:
			return r, err
		default:
			if _, err := m.readOut(ctx, lg, j, s); err != nil {
				return r, err
			}
		}
	}
	if err := m.endLines(ctx, lg, j); err != nil {
		return r, err
	}
	r.toEnd, r.exits = true, run.exits
	if run.running {
		r.exits++ // the one that this stream has ended with
	}
	return r, nil
}

// open opens a container's log where reading has stopped. What was open of a line
// comes again: if the log cannot be opened it stays.
func (m *StreamMonitor) open(ctx context.Context, lg *streamLog, o docker.LogsOptions) (LogStream, error) {
	saved, known := m.cfg.Registry.Lookup(lg.id)
	if !known && lg.fromEnd {
		// Not now: a stream may have waited long for its first turn.
		end := entry.Position{Time: m.cfg.FirstStart.UnixNano()}
		saved.Read = [entry.NumStreams]entry.Position{end, end}
	}
	since := sinceOf(saved.Read)
	if since > 0 {
		o.Since = time.Unix(0, since)
	}
	s, err := m.cfg.Open(ctx, lg.id, o)
	if err != nil {
		return nil, err
	}
	m.resume(lg, saved.Read, since)
	return s, nil
}

// resume lets a log go on where reading has stopped; since is the time from which
// on it comes.
func (m *StreamMonitor) resume(lg *streamLog, saved [entry.NumStreams]entry.Position, since int64) {
	plan := planResume(saved, func(entry.FileID) (int64, bool) { return 0, false })
	m.cfg.resume(&lg.containerLog, saved, &plan)
	// Nothing later than that has been seen by this connection.
	lg.lastTime = max(lg.created, since)
	lg.latest = lg.lastTime
}

// runs reports whether the container does, as far as is known.
func (m *StreamMonitor) runs(lg *streamLog) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return lg.running
}

// readOut reads an open log to its clean end, or as far as it is wanted, and
// closes it.
func (m *StreamMonitor) readOut(ctx context.Context, lg *streamLog, j *joiner, s LogStream) (some bool, err error) {
	defer s.Close() //nolint:errcheck // nothing was written
	for !lg.over {
		f, err := s.Next()
		if err == io.EOF { //nolint:errorlint // as it is: the clean end
			break
		}
		if err != nil {
			return some, err
		}
		if err := m.take(ctx, lg, j, s, f); err != nil {
			return some, err
		}
		some = true
	}
	return some, nil
}

// take reads what there is, from entry f on, into a batch.
func (m *StreamMonitor) take(ctx context.Context, lg *streamLog, j *joiner, s LogStream, f docker.Frame) error {
	held := lg.src.Held.Load()
	m.mu.Lock()
	lg.held, lg.waits = held, true
	m.mu.Unlock()
	for lg.src.Held.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lg.waked:
		}
	}
	b, err := m.cfg.Outlet.Reserve(ctx, lg.src.Lane)
	if err != nil {
		return err
	}
	m.mu.Lock()
	lg.held, lg.waits, lg.heardAt = false, false, time.Now()
	lg.hand(&lg.containerLog)
	m.mu.Unlock()
	before, ignored := b.Size(), lg.ignored
	j.beginSection(&lg.containerLog, b, 0, 0)
	for {
		j.frame(&lg.containerLog, b, f)
		if !s.Buffered() || b.Size() >= b.Limit || b.Size()-before >= readBytes {
			break
		}
		if f, err = s.Next(); err != nil {
			break
		}
	}
	m.submit(lg, j, b)
	m.cfg.sayIgnored(&lg.containerLog, ignored)
	return nil //nolint:nilerr // the next call of Next tells it again
}

// submit ends the section and hands the batch on.
func (m *StreamMonitor) submit(lg *streamLog, j *joiner, b *entry.Batch) {
	lane := lg.src.Lane
	j.endSection(&lg.containerLog, b, 0, 0)
	m.cfg.Lines.add(MethodStreaming, &j.counts)
	m.cfg.Outlet.Submit(lane, b)
}

// endLines ships lines whose end has not come and will not.
func (m *StreamMonitor) endLines(ctx context.Context, lg *streamLog, j *joiner) error {
	open := false
	for s := range lg.streams {
		open = open || lg.streams[s].open
	}
	if !open {
		return nil
	}
	b, err := m.cfg.Outlet.Reserve(ctx, lg.src.Lane)
	if err != nil {
		return err
	}
	j.beginSection(&lg.containerLog, b, 0, 0)
	for s := range lg.streams {
		j.endLine(&lg.containerLog, b, entry.Stream(s), 0)
	}
	m.submit(lg, j, b)
	return nil
}

// streamRun is what was known of a container when its stream was opened.
type streamRun struct {
	follow, running bool
	exits           int
}

// over reports whether what a stream has brought until its clean end is all that
// there is of the run, given how many exits are known now. More may be known a
// moment later.
func (r streamRun) over(exits int) bool {
	return !r.running || r.follow && exits > r.exits
}

// exited reports whether a stream has ended because its container has exited; it
// waits a moment to be told so.
func (m *StreamMonitor) exited(ctx context.Context, lg *streamLog, run streamRun) bool {
	timer := time.NewTimer(exitTold)
	defer timer.Stop()
	for {
		m.mu.Lock()
		over := run.over(lg.exits)
		m.mu.Unlock()
		if over || !run.follow {
			return over
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case <-lg.told:
		}
	}
}

// StreamHealth is the state of the stream monitor, for /health.
type StreamHealth struct {
	Running int // running containers whose logs can be streamed
	// Following and InTurns are the connections, of at most MaxStreams.
	Following, InTurns, MaxStreams int
	// Failed are the logs that cannot be streamed, and the first of their errors.
	Failed   int
	FailedBy error
	// Held are the logs that the store refuses for now.
	Held int
	// Lag is for how long the log has not been read of which that is longest.
	Lag time.Duration
	// GapAt is when lines were last found to be lost; zero if never.
	GapAt time.Time
}

// Health gives the monitor's state.
func (m *StreamMonitor) Health() StreamHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := StreamHealth{MaxStreams: m.cfg.MaxStreams, Failed: len(m.failed), FailedBy: m.failed.longest(), GapAt: m.gapAt}
	now := time.Now()
	for _, lg := range m.logs {
		if lg.running && !lg.noLog {
			h.Running++
		}
		switch lg.conn {
		case streamFollow:
			h.Following++
		case streamTurn:
			h.InTurns++
		case streamNone:
		}
		if lg.held {
			h.Held++
		}
		h.Lag = max(h.Lag, lg.lag(now))
	}
	return h
}

// lag is for how long the log has not been read, as far as that can be known
// without a connection. mu is held.
func (lg *streamLog) lag(now time.Time) time.Duration {
	if lg.noLog || lg.conn == streamFollow && !lg.held || !lg.running && !lg.unread() {
		return 0
	}
	return now.Sub(later(lg.readAt, lg.addedAt))
}

// status gives what is to be told of a container's log; false if it is not one of
// the monitor's.
func (m *StreamMonitor) status(id string, now time.Time) (logStatus, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lg := m.logs[id]
	if lg == nil {
		return logStatus{}, false
	}
	return logStatus{logFailures: lg.logFailures, lag: lg.lag(now), noLog: lg.noLog}, true
}

// noLog gives the containers whose log the engine cannot read back.
func (m *StreamMonitor) noLog() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids map[string]bool
	for id, lg := range m.logs {
		if lg.noLog {
			if ids == nil {
				ids = make(map[string]bool)
			}
			ids[id] = true
		}
	}
	return ids
}

// logStatus is what a road tells of one log.
type logStatus struct {
	lag         time.Duration
	unreadBytes int64 // of a file
	logFailures
	noLog bool // the engine cannot read it back
}

// frame deals with an entry of a stream.
func (j *joiner) frame(lg *containerLog, b *entry.Batch, f docker.Frame) {
	text := f.Text
	if !f.Fragment {
		text = text[:len(text)-1] // its newline
	}
	off := len(b.Text)
	b.Text = append(b.Text, text...)
	j.line = DockerJSONLogLine{
		LogEntry: entry.LogEntry{Time: f.Time, Stream: entry.Stdout, Message: b.Text[off:]},
		Fragment: f.Fragment,
	}
	if f.Stderr {
		j.line.Stream = entry.Stderr
	}
	j.entry(lg, b, off, 0, 0, 0)
}
