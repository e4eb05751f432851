package deadletter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	dirName  = "dead_letters"
	fileName = "dead_letters.jsonl"
	// keepBuffer is the largest buffer kept between two appends, in bytes.
	keepBuffer = 1 << 20
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
	Time          time.Time `json:"time"`
	Kind          Kind      `json:"kind"`
	ContainerID   string    `json:"container_id"`
	ContainerName string    `json:"container_name"`
	// Stream is "stdout" or "stderr", or "" when it could not be told.
	Stream string `json:"stream"`
	// LineTime is the line's own; zero when it could not be told.
	LineTime time.Time `json:"line_time,omitzero"`
	// Reason is for people: the store's words, or the parser's.
	Reason string `json:"reason"`
	// Position is where the line was read, if that is known.
	Position string `json:"position,omitempty"`
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

// file is the open file of dead letters. Writes append.
type file interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

// Options are what a Log may be given.
type Options struct {
	Logger     *slog.Logger          // for the operator; nil discards
	Registerer prometheus.Registerer // nil registers no metrics
	Now        func() time.Time      // the clock; nil is time.Now
}

// Log is the file of dead letters. All methods are safe for concurrent use.
type Log struct {
	log *slog.Logger
	now func() time.Time
	m   *metrics

	// mu guards what follows. It is held for a sync too: whether that went well
	// must be known before anything is written behind it.
	mu     sync.Mutex
	f      file // nil when closed
	size   int64
	torn   bool // the file ends inside a line
	buf    bytes.Buffer
	losing bool // the last copy could not be written
}

// Open opens data_dir/dead_letters/dead_letters.jsonl and makes what is missing
// of the path. A record that was half-written when the agent was killed stays,
// and the next begins on a line of its own.
func Open(dataDir string, o Options) (*Log, error) {
	dir := filepath.Join(dataDir, dirName)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make the directory of dead letters (data_dir must be writable for the agent): %w", err)
	}
	name := filepath.Join(dir, fileName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the dead letters (data_dir must be writable for the agent): %w", err)
	}
	size, torn, err := end(f)
	if err == nil {
		err = syncDir(dir) // the name must last as long as the records
	}
	var l *Log
	if err == nil {
		l, err = newLog(f, size, torn, o)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the dead letters %s: %w", name, err), f.Close())
	}
	return l, nil
}

// newLog is Open on any file.
func newLog(f file, size int64, torn bool, o Options) (*Log, error) {
	l := &Log{log: o.Logger, now: o.Now, m: newMetrics(), f: f, torn: torn}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.setSize(size)
	if o.Registerer != nil {
		if err := l.m.register(o.Registerer); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// end tells how long a file is and whether it ends inside a line.
func end(f *os.File) (size int64, torn bool, err error) {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return 0, false, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], fi.Size()-1); err != nil {
		return 0, false, err
	}
	return fi.Size(), last[0] != '\n', nil
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

// AppendUnsynced writes copies of lines that go their way besides. What cannot
// be written is counted and logged, and otherwise let go.
func (l *Log) AppendUnsynced(records []Record) {
	if len(records) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.append(records, false)
	switch {
	case err == nil && l.losing:
		l.log.Info("copies of malformed lines are kept again")
	case err != nil && !l.losing:
		l.log.Warn("copies of malformed lines cannot be kept: the lines are shipped all the same", "error", err,
			"hint", "check space and disk of data_dir")
	}
	l.losing = err != nil
	if err != nil {
		l.m.copiesLost.Add(float64(len(records)))
	}
}

// append writes records in one call. Called with mu held.
func (l *Log) append(records []Record, sync bool) error {
	if l.f == nil {
		return os.ErrClosed
	}
	b, err := l.encode(records)
	if err != nil {
		return err
	}
	n, err := l.f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil && sync {
		err = l.f.Sync()
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
	l.setSize(l.size + int64(n))
	for i := range records {
		l.m.count(records[i].Kind)
	}
	return nil
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
	l.m.bytes.Set(float64(n))
}

// Close syncs and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
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
