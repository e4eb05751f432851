package positions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// syncEvery is the least time between two syncs, and how long a position
	// may stay unwritten or unsynced.
	syncEvery = time.Second
	// The journal is written anew when it is larger than both.
	compactBytes  = 4 << 20
	compactFactor = 4 // times the live records
	// compactRetry is how long a compaction that failed is left alone.
	compactRetry = time.Minute
)

// ErrInFlight is given for a log that cannot be forgotten yet.
var ErrInFlight = errors.New("lines are still on their way")

// errClosed is given for what comes after Close.
var errClosed = errors.New("the positions are closed")

// Config is what a Store is opened with.
type Config struct {
	// Dir is data_dir. It is made if it does not exist.
	Dir string
	// Files is another data_dir than the real one of that name, for tests; nil: that one.
	Files disk.Dir
	// Logger is for the operator; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	compactBytes int64 // 0: the constant; smaller in tests
}

// Saved is what is known of a log.
type Saved struct {
	// Positions say how far each stream has been delivered: what the journal
	// holds, or will with the next write.
	Positions [entry.NumStreams]entry.Position
	// Read says how far each stream has been read by this process: the end of
	// its newest span in flight, and equal to Positions where none is. A log
	// that is registered again goes on from here, so that what is on its way
	// is not sent twice.
	Read [entry.NumStreams]entry.Position
	// Note is the caller's, kept with the log.
	Note string
}

// SaveError says that positions are not saved.
type SaveError struct {
	Since time.Time // of the first failure
	Err   error     // the last failure
}

func (e *SaveError) Error() string {
	return fmt.Sprintf("positions not saved since %s (%s): %v", e.Since.Format(time.RFC3339), disk.Hint(e.Err), e.Err)
}

func (e *SaveError) Unwrap() error { return e.Err }

// Store holds the positions of all logs. All methods are safe for concurrent
// use; Run is called once, and Close after Run has returned.
type Store struct {
	log        *slog.Logger
	now        func() time.Time
	dir        string // as people know it
	files      disk.Dir
	lock       io.Closer // of data_dir
	m          *metrics
	firstStart time.Time
	compactMin int64 // Config.compactBytes or the constant

	wake chan struct{} // holds one; tells Run that something is to be saved
	// failing is nil while positions can be saved. Written with mu held.
	failing atomic.Pointer[SaveError]

	// maint is held by whoever syncs, rewrites or closes the journal, and is
	// taken before mu. It guards the next two fields.
	maint        sync.Mutex
	dirUnsynced  bool      // a rename may not last through a power loss
	compactAfter time.Time // no compaction before

	// mu guards everything below. A write(2) is done with it held, a sync
	// never.
	mu       sync.Mutex
	keys     map[string]*record // every log that is known
	live     map[uint32]*record // those with a number: registered, or something in flight
	lastLog  uint32
	inFlight int
	// dirty are the records that the journal does not have yet, oldest change
	// first; a record is in it once.
	dirty    []*record
	f        disk.File // nil when closed
	size     int64     // of f
	rewrite  int64     // size from which on the journal is compacted
	torn     bool      // f ends inside a line
	unsynced bool      // f has bytes that were not synced
	suspect  bool      // a sync of f failed: the kernel may have dropped what it had
	armed    bool      // Run has been woken and has not flushed yet
	buf      []byte    // reused by write
	// delta collects what is appended to f while f is being rewritten.
	rewriting bool
	delta     []byte
	writeErr  error // nil after a write that succeeded
	syncErr   error // likewise
	saidStray bool  // Begin for a log that is not registered has been logged
}

// record is a log. It is guarded by Store.mu.
type record struct {
	key, note  string
	number     uint32 // 0: none
	registered bool
	tracks     [entry.NumStreams]track

	// What the journal does not have; dirty if any is set.
	dirty, newNote, gone bool
}

func (r *record) inFlight() (n int) {
	for s := range r.tracks {
		n += r.tracks[s].inFlight()
	}
	return n
}

// append appends what the journal needs to know of the log, all if all is set
// or the note is new.
func (r *record) append(b []byte, all bool) []byte {
	out, errs := r.tracks[entry.Stdout].pos, r.tracks[entry.Stderr].pos
	switch {
	case r.gone:
		return appendDel(b, r.key)
	case all || r.newNote:
		return appendLog(b, r.key, out, errs, r.note)
	default:
		return appendPos(b, r.key, out, errs)
	}
}

// Open locks data_dir and reads its journal. A journal that is damaged or of
// another version is set aside, and the agent starts with what could be read.
func Open(cfg Config) (*Store, error) {
	files := cfg.Files
	if files == nil {
		var err error
		if files, err = disk.Make(cfg.Dir); err != nil {
			return nil, fmt.Errorf("make data_dir: %w", err)
		}
	}
	lock, err := files.Lock(lockName)
	var locked *disk.LockedError
	switch {
	case errors.As(err, &locked):
		return nil, &LockedError{Dir: cfg.Dir, PID: locked.PID}
	case err != nil:
		return nil, fmt.Errorf("lock data_dir (it must be writable for the agent, on a file system with flock): %w", err)
	}
	s, err := newStore(cfg, files)
	if err == nil && cfg.Registerer != nil {
		if err = s.m.register(cfg.Registerer); err != nil {
			_ = s.f.Close() // what it holds was synced, or belongs to the run before
		}
	}
	if err != nil {
		_ = lock.Close() // nothing was written
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// newStore is Open behind the lock.
func newStore(cfg Config, files disk.Dir) (*Store, error) {
	s := &Store{
		log: cfg.Logger, now: cfg.Now, dir: cfg.Dir, files: files, m: newMetrics(), compactMin: cmp.Or(cfg.compactBytes, compactBytes),
		wake: make(chan struct{}, 1), keys: make(map[string]*record), live: make(map[uint32]*record),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	data, err := disk.ReadFile(files, journalName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the positions (if it cannot be mended, move %s away; lines may then be sent twice): %w", journalName, err)
	}
	c := &contents{}
	if len(data) > 0 {
		c, err = decode(data)
	}
	var other *VersionError
	switch {
	case errors.As(err, &other):
		name, err := s.setAside("unknown-version", data)
		if err != nil {
			return nil, fmt.Errorf("%w; keep a copy of it (move %s away to start anew): %w", other, journalName, err)
		}
		s.log.Error("positions journal is of a version this agent does not know: starting anew, lines may be sent twice or passed over",
			"version", other.Version, "known_version", version, "copy", name)
		c = &contents{}
	case err == nil && len(data) == 0:
		s.log.Warn("positions journal is empty: starting anew")
	}
	s.load(c)
	if c.bad > 0 {
		name, err := s.setAside("corrupt", data)
		attrs := []any{"damaged_records", c.bad, "first", c.firstBad.Error(), "logs_kept", len(s.keys), "copy", name}
		if err != nil {
			attrs = append(attrs, "not_copied", err.Error())
		}
		s.log.Warn("positions journal was damaged: every record that verifies is used, lines may be sent twice", attrs...)
	}
	// The journal is written anew at every start. It is then whole and small,
	// and known to be on the disk: of what the run before left unsynced, or
	// failed to sync, a sync here would prove nothing.
	if err := s.renew(); err == nil {
		_ = s.sync() // told by Health, and retried by Run
	} else if err := s.attach(c, err); err != nil {
		return nil, fmt.Errorf("open the positions journal (%s): %w", disk.Hint(err), err)
	}
	s.log.Info("positions read", "logs", len(s.keys), "journal_bytes", s.size, "first_start", s.firstStart)
	return s, nil
}

// load takes over what a journal says.
func (s *Store) load(c *contents) {
	s.m.badRecords.Add(float64(c.bad))
	s.m.unknownRecords.Add(float64(c.unknown))
	if c.unknown > 0 {
		s.log.Warn("positions journal has records of a kind this agent does not know: left out", "records", c.unknown)
	}
	if c.torn > 0 {
		s.m.tornTails.Inc()
		s.log.Debug("positions journal ended inside a record: cut off", "bytes", c.torn)
	}
	s.firstStart = c.firstStart
	now := s.now().UTC().Round(0) // without the monotonic clock
	switch {
	case s.firstStart.IsZero():
		s.firstStart = now
	case s.firstStart.After(now): // what was written before it may be left out as too old
		s.log.Warn("positions journal begins in the future: the clock was wrong then, or is; this start counts as the first", "first_start", s.firstStart)
		s.firstStart = now
	}
	for key, saved := range c.logs {
		r := &record{key: key, note: saved.Note}
		for i, pos := range saved.Positions {
			r.tracks[i] = newTrack(pos)
		}
		s.keys[key] = r
	}
}

// attach goes on with the journal that was read when none could be written in
// its place, as on a full disk; Run tries again every second. A new data_dir
// has none: the error is given back.
func (s *Store) attach(c *contents, why error) (err error) {
	if c.good+c.torn == 0 {
		return why
	}
	s.f, err = s.files.Open(journalName, appending)
	if disk.ReadOnly(err) {
		s.f, err = unwritable{err: err}, nil
	}
	if err != nil {
		return errors.Join(why, err)
	}
	s.setSize(c.good + c.torn)
	s.torn = c.torn > 0 // the next write begins a new line
	s.suspect = true
	s.note(&s.syncErr, why)
	s.arm()
	return nil
}

// unwritable stands in for the journal on a file system that is read-only, until one can
// be written in its place.
type unwritable struct {
	disk.File
	err error
}

func (u unwritable) Write([]byte) (int, error) { return 0, u.err }
func (u unwritable) Sync() error               { return u.err }
func (unwritable) Close() error                { return nil }

// FirstStart is when this data_dir was first used, in UTC. If the journal has
// lost it, or has a time that is still to come, it is when that was found.
func (s *Store) FirstStart() time.Time { return s.firstStart }

// Lookup gives what is known of a log, registered or not.
func (s *Store) Lookup(key string) (Saved, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.keys[key]
	if r == nil {
		return Saved{}, false
	}
	saved := Saved{Note: r.note}
	for i := range r.tracks {
		saved.Positions[i] = r.tracks[i].pos
		saved.Read[i] = r.tracks[i].tip()
	}
	return saved, true
}

// Keys gives the keys of all logs that are known, sorted.
func (s *Store) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.keys))
}

// Register says that a log is going to be read from start on, and gives the
// number under which its spans are counted. The caller takes start from Lookup
// (Read) where the log is known. What is new, the note or the place, is written
// at once, so that a log that is begun at its end is not begun at a later end
// after a crash; if that fails it is retried like every write.
//
// A log that is registered, or was and has spans in flight, keeps its number;
// start then counts as Begin without lines. Other numbers are not used again
// before 4 billion others were: a late duplicate acknowledgement meets no
// stranger.
func (s *Store) Register(key, note string, start [entry.NumStreams]entry.Position) (log uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.keys[key]
	if r == nil {
		r = &record{key: key, newNote: true}
		for i := range r.tracks {
			r.tracks[i] = newTrack(start[i])
		}
		s.keys[key] = r
	}
	if r.number == 0 {
		r.number = s.freeNumber()
		s.live[r.number] = r
		for i := range r.tracks {
			r.tracks[i] = newTrack(r.tracks[i].pos)
		}
	}
	r.registered = true
	if r.note != note {
		r.note, r.newNote = note, true
	}
	changed := r.newNote
	for i := range r.tracks {
		changed = r.tracks[i].move(start[i]) || changed
	}
	if changed {
		s.touch(r)
		_ = s.write() // told by Health and the log, and retried
	}
	return r.number
}

func (s *Store) freeNumber() uint32 {
	for {
		s.lastLog++
		if s.lastLog != 0 && s.live[s.lastLog] == nil {
			return s.lastLog
		}
	}
}

// Unregister says that a log is read no longer. Its position stays, and goes on
// while spans in flight are acknowledged.
func (s *Store) Unregister(log uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.live[log]; r != nil {
		r.registered = false
		s.release(r)
	}
}

// release takes back the number of a log that no one uses any more.
func (s *Store) release(r *record) {
	if r.registered || r.inFlight() > 0 {
		return
	}
	delete(s.live, r.number)
	r.number = 0
	for i := range r.tracks {
		r.tracks[i] = newTrack(r.tracks[i].pos) // lets the rings go
	}
}

// Begin says that the reader of a log has gone on: ends is where each stream
// stands now, lines how many lines of each are on their way. It gives the
// numbers of the new spans, 0 for a stream without lines.
//
// A stream without lines has gone on as well, over bytes that hold nothing of
// it: its position becomes ends if nothing of it is in flight (saved with the
// next write, within a second), else its newest span ends there.
//
// Begins of one log come in the order in which it is read.
func (s *Store) Begin(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) (seqs [entry.NumStreams]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.live[log]
	if r == nil || !r.registered {
		// Without a span the lines move no position: they may be sent twice,
		// never lost.
		s.m.strayLines.Inc()
		if s.saidStray {
			return seqs
		}
		s.saidStray = true
		s.log.Error("lines read for a log that is not registered: this is a fault of the agent, please report it", "log", log)
		return seqs
	}
	for i := range r.tracks {
		if lines[i] > 0 {
			seqs[i] = r.tracks[i].push(ends[i])
			s.inFlight++
		} else if r.tracks[i].move(ends[i]) {
			s.touch(r)
		}
	}
	s.m.inFlight.Set(float64(s.inFlight))
	return seqs
}

// Ack says that the lines of some spans have been delivered: accepted by the
// store, or synced to a disk of ours. Positions advance over what is contiguous
// and are written with one write(2), without a sync. Spans that are not in
// flight are counted and ignored, those with number 0 just ignored.
//
// After an error the acknowledgements count all the same: they are written with
// the next Ack or within about a second, by Run. The error has been logged and
// is told by Health; the caller need do nothing about it.
func (s *Store) Ack(spans []entry.Span) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range spans {
		if sp.Seq != 0 {
			s.ack(sp)
		}
	}
	s.m.inFlight.Set(float64(s.inFlight))
	return s.write()
}

func (s *Store) ack(sp entry.Span) {
	r := s.live[sp.Log]
	if r == nil || sp.Stream >= entry.NumStreams {
		s.m.unknownAcks.Inc()
		return
	}
	v, advanced := r.tracks[sp.Stream].ack(sp.Seq)
	switch v {
	case ackDuplicate:
		s.m.duplicateAcks.Inc()
	case ackUnknown:
		s.m.unknownAcks.Inc()
	}
	if advanced > 0 {
		s.inFlight -= advanced
		s.touch(r)
		s.release(r)
	}
}

// InFlight gives the number of spans of a log that are not behind its position.
func (s *Store) InFlight(log uint32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.live[log]; r != nil {
		return r.inFlight()
	}
	return 0
}

// Forget drops a log of which everything is delivered and nothing will be read
// again, registered or not. It gives ErrInFlight, and does nothing, while spans
// are in flight; any other error is one of writing, as with Ack.
func (s *Store) Forget(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.keys[key]
	if r == nil {
		return nil
	}
	if r.inFlight() > 0 {
		return fmt.Errorf("forget the position of %q: %w", key, ErrInFlight)
	}
	r.registered, r.gone = false, true
	s.release(r)
	delete(s.keys, key)
	s.touch(r)
	return s.write()
}

// Health gives a *SaveError while positions cannot be saved, else nil. It waits
// for no disk.
func (s *Store) Health() error {
	if e := s.failing.Load(); e != nil {
		return e
	}
	return nil
}

// Run saves what no Ack has written and syncs the journal, at most once a
// second and only when there is something to sync; it compacts the journal and
// repairs it after errors. It returns nil when ctx ends, and leaves the last
// write and sync to Close.
func (s *Store) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		timer.Reset(syncEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			_ = s.flush() // logged, told by Health, and retried in a second
		}
	}
}

// Close writes and syncs what is left and gives data_dir free. What is
// acknowledged afterwards is not saved.
func (s *Store) Close() error {
	err := s.flush()
	if errors.Is(err, errClosed) {
		return nil
	}
	s.maint.Lock()
	defer s.maint.Unlock()
	s.mu.Lock()
	f := s.f
	s.f = nil
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	if err = errors.Join(err, f.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("save the positions at the end (lines may be sent twice): %w", err)
	}
	return nil
}
