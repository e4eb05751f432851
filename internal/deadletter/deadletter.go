package deadletter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	dirName  = "dead_letters"
	fileName = "dead_letters.jsonl"
	// keepBuffer is the largest buffer kept between two appends, in bytes.
	keepBuffer = 1 << 20
	// defaultMaxBytes is what all files may have together, and filesAtMost the
	// share of it after which a file is set aside and another begun.
	defaultMaxBytes = 256 << 20
	filesAtMost     = 16
	// copiesFor is how long a file whose share of copies is used up takes no
	// more of them. Then it is set aside, and the next has a share of its own:
	// so a flood of malformed lines keeps some of every day, and needs days to
	// push out what the store has refused.
	copiesFor = 24 * time.Hour
)

// Kind is what a record is: few values, for metrics and for whoever picks
// records out of the file. Reason has the details.
type Kind string

const (
	// Refused: the store will not take the line; the record is all there is
	// of it.
	Refused Kind = "refused"
	// Malformed: a line that could not be parsed; a copy of it, as a rule.
	Malformed Kind = "malformed"
)

// Record is one line of the file.
type Record struct {
	// Time is when the record was made; Append fills it in if it is zero.
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	// Copy is set when the line went its way besides; AppendUnsynced sets it.
	Copy          bool   `json:"copy,omitempty"`
	ContainerID   string `json:"container_id"`
	ContainerName string `json:"container_name"`
	// Stream is "stdout" or "stderr", or "" when it could not be told.
	Stream string `json:"stream"`
	// LineTime is the line's own; zero when it could not be told.
	LineTime time.Time `json:"line_time,omitzero"`
	// Reason is for people: the store's words, or the parser's.
	Reason string `json:"reason"`
	// Position is where the line was read, if that is known, and Inode the number of
	// the file, if it was one: it outlives a rotation.
	Position string `json:"position,omitempty"`
	Inode    uint64 `json:"inode,omitempty"`
	// Labels and Metadata are those that the line was to be stored with, and
	// Partial marks a piece of a longer line: Replay sends them again. Without
	// Labels it makes do with what it knows.
	Labels   map[string]string `json:"labels,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Partial  bool              `json:"partial,omitempty"`
	// Raw is the text as it was read, any bytes.
	Raw []byte `json:"raw"`
}

// clean makes a record that JSON can hold.
func (r Record) clean(now func() time.Time) Record {
	if r.Time.IsZero() {
		r.Time = now()
	}
	r.Time, r.LineTime = r.Time.UTC(), r.LineTime.UTC()
	for _, t := range []*time.Time{&r.Time, &r.LineTime} {
		if y := t.Year(); y < 0 || y > 9999 { // RFC 3339 has no others
			*t = time.Time{}
		}
	}
	if r.Raw == nil {
		r.Raw = []byte{} // "" in the file, not null
	}
	return r
}

// Options are what a Log may be given.
type Options struct {
	Logger     *slog.Logger          // for the operator; nil discards
	Registerer prometheus.Registerer // nil registers no metrics
	Now        func() time.Time      // the clock; nil is time.Now
	// MaxBytes is what all files may have together, about: the oldest is deleted
	// when it is exceeded. 0 is 256 MiB.
	MaxBytes int64
	// Files is another data_dir than the real one of that name, for tests; nil: that one.
	Files disk.Dir
}

// Log writes the dead letters. All methods are safe for concurrent use.
type Log struct {
	log      *slog.Logger
	now      func() time.Time
	m        *metrics
	files    disk.Dir // data_dir/dead_letters
	maxBytes int64

	// mu guards what follows. It is held for a sync too: whether that went well
	// must be known before anything is written behind it.
	mu     sync.Mutex
	f      disk.File // nil when closed, and where it could not be opened yet
	closed bool
	size   int64
	torn   bool // the file ends inside a line
	buf    bytes.Buffer
	losing bool // the last copy was not kept

	copies   int64     // bytes of copies in the file
	began    time.Time // when the file was begun, or later; zero when it is empty
	older    int64     // bytes of the files that were set aside
	unsynced bool      // a new file's name may not last yet
	stuck    bool      // the file could not be set aside; said
}

// Open opens data_dir/dead_letters/dead_letters.jsonl and makes what is missing
// of the path. A record that was half-written when the agent was killed stays,
// and the next begins on a line of its own.
func Open(dataDir string, o Options) (*Log, error) {
	data, err := o.Files, error(nil)
	if data == nil {
		data, err = disk.Make(dataDir)
	}
	l := &Log{log: o.Logger, now: o.Now, m: newMetrics(), maxBytes: o.MaxBytes}
	if l.maxBytes <= 0 {
		l.maxBytes = defaultMaxBytes
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	if err == nil {
		l.files, err = data.Sub(dirName)
	}
	if err != nil {
		return nil, fmt.Errorf("make the directory of dead letters (data_dir must be writable for the agent): %w", err)
	}
	if err := l.open(); disk.ReadOnly(err) {
		l.log.Error("dead letters cannot be written: lines that the store refuses for good wait until they can, with their lane", "error", err, "hint", disk.Hint(err))
	} else if err != nil {
		return nil, fmt.Errorf("open the dead letters in %s (%s): %w", filepath.Join(dataDir, dirName), disk.Hint(err), err)
	}
	if o.Registerer != nil {
		if err := l.m.register(o.Registerer); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// open opens the file. One that cannot be read is set aside. Called with mu held, or by
// Open.
func (l *Log) open() (err error) {
	if l.f, err = l.files.Open(fileName, appending|os.O_CREATE); err != nil {
		l.f = nil
		return err
	}
	if err = l.load(); err != nil {
		l.log.Error("dead letters cannot be read: their file is set aside, and another begun", "error", err, "hint", "check the disk of data_dir")
		if l.rotate(); !l.stuck {
			err = nil
		}
	}
	if err == nil {
		err = l.files.Sync() // the name must last as long as the records
	}
	if err != nil {
		err = errors.Join(err, l.f.Close())
		l.f = nil
		return err
	}
	l.trim()
	return nil
}

// appending is how the file is open.
const appending = os.O_RDWR | os.O_APPEND

// load reads the file through once. It decodes only until it has a time: a file
// may be of some MiB, and the agent wants to start.
func (l *Log) load() error {
	l.copies, l.began = 0, time.Time{}
	err := lines(disk.Reader(l.f), func(line []byte, _ bool) error {
		// The kind stands near the front of what Append wrote.
		if bytes.Contains(line[:min(len(line), 100)], []byte(`"kind":"malformed"`)) {
			l.copies += int64(len(line)) + 1
		}
		var r struct{ Time time.Time }
		if l.began.IsZero() && json.Unmarshal(line, &r) == nil {
			l.began = r.Time
		}
		return nil
	})
	if err != nil {
		return err
	}
	fi, err := l.f.Info()
	if err != nil || fi.Size == 0 {
		return err
	}
	var last [1]byte
	if _, err := l.f.ReadAt(last[:], fi.Size-1); err != nil {
		return err
	}
	l.torn = last[0] != '\n'
	l.setSize(fi.Size)
	return nil
}

// Append writes records and syncs them. After an error none of them counts as
// kept: the caller keeps the lines and tries again. (Should the disk fail even
// to take a failed write back, a later try can leave a record twice.)
func (l *Log) Append(records []Record) error {
	if len(records) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(records, true); err != nil {
		return fmt.Errorf("keep %d dead letters (the lines wait; check space and disk of data_dir): %w", len(records), err)
	}
	return nil
}

// errShare says why a copy is not kept although the disk would take it.
var errShare = errors.New("copies have their share of the dead letters for today; the store has the lines, with malformed=\"true\"")

// AppendUnsynced writes copies of lines that go their way besides, as far as
// their share of the file goes, and marks them as Copy. What is not written is
// counted, said once, and otherwise let go.
func (l *Log) AppendUnsynced(records []Record) {
	if len(records) == 0 {
		return
	}
	for i := range records {
		records[i].Copy = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if l.copies >= l.fileBytes()/2 && l.fresh() {
		err = errShare
	} else {
		err = l.append(records, false)
	}
	switch {
	case err == nil && l.losing:
		l.log.Info("copies of malformed lines are kept again")
	case err != nil && !l.losing:
		l.log.Warn("copies of malformed lines cannot be kept: the lines are shipped all the same", "error", err,
			"hint", "unless error says otherwise, check space and disk of data_dir")
	}
	l.losing = err != nil
	if err != nil {
		l.m.copiesLost.Add(float64(len(records)))
	}
}

// fresh reports whether the file was begun within the last day. One from the future was
// not: the clock was wrong then. Called with mu held.
func (l *Log) fresh() bool {
	age := l.now().Sub(l.began)
	return age >= 0 && age < copiesFor
}

// append writes records in one call, to a new file if it is time for one.
// Called with mu held.
func (l *Log) append(records []Record, sync bool) error {
	if l.closed {
		return os.ErrClosed
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			l.m.writeErrors.Inc()
			return err
		}
	}
	if l.size >= l.fileBytes() || l.copies >= l.fileBytes()/2 && !l.fresh() {
		l.rotate()
	}
	b, err := l.encode(records)
	if err != nil {
		return err
	}
	n, err := l.f.Write(b)
	if err == nil && sync {
		err = l.sync()
	}
	if err != nil {
		l.m.writeErrors.Inc()
		// What was not kept must not be found later as if it were. If it
		// cannot be taken back, it is at least ended.
		if n > 0 && l.f.Truncate(l.size) != nil {
			l.torn = b[n-1] != '\n'
			l.setSize(l.size + int64(n))
		}
		return err
	}
	l.torn = false
	if !sync {
		l.copies += int64(n)
	}
	if l.began.IsZero() {
		l.began = l.now()
	}
	l.setSize(l.size + int64(n))
	for i := range records {
		l.m.count(l.m.total, records[i].Kind, 1)
	}
	return nil
}

// sync makes what was written last, and the name of the file with it. Called
// with mu held.
func (l *Log) sync() error {
	if l.unsynced {
		if err := l.files.Sync(); err != nil {
			return err
		}
		l.unsynced = false
	}
	return l.f.Sync()
}

// fileBytes is how large a file grows before another is begun, about.
func (l *Log) fileBytes() int64 { return l.maxBytes / filesAtMost }

// rotate sets the file aside and begins another. If that fails, it is written
// on, and tried again at the next append. Called with mu held.
func (l *Log) rotate() {
	f, err := setAside(l.files)
	if err != nil {
		l.m.writeErrors.Inc()
		if !l.stuck {
			l.log.Warn("no new file of dead letters can be begun: the old one grows beyond its limit until that succeeds", "error", err,
				"hint", "check space and disk of data_dir")
		}
		l.stuck = true
		return
	}
	l.stuck = false
	if err := errors.Join(l.f.Sync(), l.f.Close()); err != nil {
		// What Append took was synced then; of copies some may be missing.
		l.m.writeErrors.Inc()
	}
	l.f, l.torn, l.unsynced = f, false, true
	l.copies, l.began = 0, time.Time{}
	l.setSize(0)
	l.trim()
}

// trim deletes the oldest files until all together have no more than maxBytes,
// and says what is lost by that. Called with mu held, or by Open.
func (l *Log) trim() {
	files, err := setAsides(l.files)
	if err != nil {
		l.log.Warn("the directory of dead letters cannot be read: it grows beyond its limit until it can be", "error", err,
			"hint", "check the disk of data_dir")
		return
	}
	l.older = 0
	for _, f := range files {
		l.older += f.size
	}
	defer func() { l.setSize(l.size) }()
	for _, f := range files {
		if l.older+l.size <= l.maxBytes {
			return
		}
		lost, err := unsent(l.files, f.name)
		if err == nil {
			err = l.files.Remove(f.name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			l.older -= f.size // somebody has made room
			continue
		}
		if err != nil {
			l.log.Warn("the oldest dead letters cannot be deleted: they grow beyond their limit until they can be", "file", f.name, "error", err,
				"hint", "check the disk of data_dir")
			return
		}
		l.older -= f.size
		n := 0
		for kind, k := range lost {
			l.m.count(l.m.dropped, kind, k)
			n += k
		}
		if n > 0 {
			l.log.Error("the oldest dead letters were deleted, for all together had reached their limit: these lines are lost", "file", f.name,
				"records", n, "max_bytes", l.maxBytes, "hint", "see their like with log_capturer dlq list, mend the cause, and send them with log_capturer dlq replay before the limit is reached")
		}
	}
}

// encode gives the records as lines. The slice is good until the next call.
// Called with mu held.
func (l *Log) encode(records []Record) ([]byte, error) {
	if l.buf.Cap() > keepBuffer {
		l.buf = bytes.Buffer{}
	}
	l.buf.Reset()
	if l.torn {
		l.buf.WriteByte('\n')
	}
	enc := json.NewEncoder(&l.buf) // ends each with a newline
	enc.SetEscapeHTML(false)       // people read it
	for i := range records {
		if err := enc.Encode(records[i].clean(l.now)); err != nil {
			return nil, err
		}
	}
	return l.buf.Bytes(), nil
}

func (l *Log) setSize(n int64) {
	l.size = n
	l.m.bytes.Set(float64(l.older + n))
}

// Close syncs and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.f.Sync(), l.f.Close())
	l.f = nil
	if err != nil {
		return fmt.Errorf("close the dead letters (copies of malformed lines may be lost): %w", err)
	}
	return nil
}
