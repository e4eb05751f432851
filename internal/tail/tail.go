package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// DefaultMaxHeld is how many files of one log are held open at most.
const DefaultMaxHeld = 64

// DefaultSettled is more than the time within which two changes of a file may have
// the same time: a tick of the kernel (up to 10 ms) mostly, a second on ext4 with
// small inodes and where a network file system has such a server.
const DefaultSettled = 2 * time.Second

// maxPast is how many files that were read are remembered, to know their
// archives again.
const maxPast = 128

// Descriptors bounds and counts the descriptors that all logs together hold.
// Safe for concurrent use.
type Descriptors struct {
	// Max is the bound; 0 means none. Set before use.
	Max  int64
	open atomic.Int64
}

// Open gives the number of descriptors held now.
func (d *Descriptors) Open() int64 { return d.open.Load() }

func (d *Descriptors) take() bool {
	if n := d.open.Add(1); d.Max > 0 && n > d.Max {
		d.open.Add(-1)
		return false
	}
	return true
}

func (d *Descriptors) give() { d.open.Add(-1) }

// ErrDescriptors says that the bound of Descriptors is reached.
var ErrDescriptors = errors.New("the bound on open log files is reached: raise the limit on open files (LimitNOFILE, ulimit -n)")

// Options of a Log.
type Options struct {
	// MaxHeld bounds the open files of this log; 0 means DefaultMaxHeld.
	MaxHeld int
	// between is called between the steps of a Refresh, for tests.
	between func()
	// Descriptors is shared by all logs; nil means no bound.
	Descriptors *Descriptors
	// Settled is how long ago a file must have been changed last for Untouched to
	// vouch for it; 0 means DefaultSettled. Below zero it vouches for any, as befits
	// a test whose files change at another pace than its clock.
	Settled time.Duration
}

// file is one part of the chain. Its descriptor is held from the moment the
// file was seen until it has been read, so that its inode can neither vanish
// nor be reused meanwhile.
type file struct {
	fd       int
	dev, ino uint64
	seq      int64
	handle   uint64
	print    uint64   // 0: not known yet; an archive's is known once it is in a chain
	gz       *archive // nil for a plain file; used by the reader alone
	name     string   // when it was opened; for messages
	offset   int64    // of the first byte not consumed; written by the reader under Log.mu
	seen     int64    // how far the reader has looked, if beyond offset: half a line; as offset
	size     int64    // how large others have seen it, if beyond offset
	ctime    int64    // as Check saw it Unchanged, for Untouched to compare with; 0: it has not, or was read since
	final    bool     // its path has moved on: nobody writes to it any more
	givenUp  bool     // its rest cannot be read: it counts as read to its end
}

func (f *file) id() entry.FileID {
	return entry.FileID{Inode: f.ino, Handle: f.handle, Print: f.print}
}

func (f *file) readAt(buf []byte, off int64) (int, error) {
	if f.givenUp {
		return 0, io.EOF
	}
	if f.gz != nil {
		return f.gz.readAt(buf, off)
	}
	return pread(f.fd, buf, off)
}

// fillPrint computes the print if it is not known and can be.
func (f *file) fillPrint() {
	if f.print == 0 {
		// What cannot be read now shows when it is read for its lines.
		f.print, _ = printOf(f.readAt)
		if f.gz != nil && f.print == 0 {
			f.print = 1 // empty or broken: known, and like no other
		}
	}
}

// Log is one log. Next, Advance, Find, SeekTo and SeekEnd belong to one reader at a
// time; Check, Refresh, Unread and MarkFinal may be called by others meanwhile.
type Log struct {
	path string // of the log itself
	dir  string
	base string
	opt  Options

	mu     sync.Mutex
	chain  []*file  // oldest first; chain[0] is being read. Only the reader removes
	seq    int64    // of the newest file ever in the chain
	past   []uint64 // prints of the files read and left behind, the last maxPast of them
	behind bool     // newer files exist that MaxHeld or Descriptors kept out
	// gap and keptOut say what Change is to say once nothing is behind any more.
	gap, keptOut bool
	named        int64 // number of the oldest file that has a name
	removed      bool  // all are about to lose theirs
	closed       bool
}

// Open takes hold of the log at path and of all its older parts. It gives an
// error that is fs.ErrNotExist while there is none of them. Reading begins at
// the start of the oldest part until SeekTo or SeekEnd.
func Open(path string, opt Options) (*Log, error) {
	if opt.MaxHeld <= 0 {
		opt.MaxHeld = DefaultMaxHeld
	}
	if opt.Descriptors == nil {
		opt.Descriptors = &Descriptors{}
	}
	if opt.Settled == 0 {
		opt.Settled = DefaultSettled
	}
	l := &Log{path: path, dir: filepath.Dir(path), base: filepath.Base(path), opt: opt}
	if _, err := l.Refresh(); err != nil {
		l.Close()
		return nil, err
	}
	if len(l.chain) == 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return l, nil
}

// Close gives all descriptors back. No other method may run then or later.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, f := range l.chain {
		l.release(f)
	}
	l.chain = nil
}

// Left gives what Close would take from everybody: what is unread in files that
// have no name, nor an archive that has one. archives is the number of such files
// that are compressed: how much is unread in them is not known. As Next, it belongs
// to the reader.
func (l *Log) Left() (bytes int64, archives int) {
	_, err := l.Refresh() // what could be compressed meanwhile is known then
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.chain {
		var st unix.Stat_t
		switch {
		case f.givenUp || unix.Fstat(f.fd, &st) != nil || st.Nlink > 0:
		case err == nil && f.seq >= l.named: // compressed meanwhile
		case f.gz == nil:
			bytes += max(0, st.Size-f.offset)
		case !f.gz.readOut(f.offset):
			archives++
		}
	}
	return bytes, archives
}

func (l *Log) release(f *file) {
	// Read-only: close has nothing to report.
	_ = unix.Close(f.fd)
	l.opt.Descriptors.give()
}

// Path gives the path of the log itself.
func (l *Log) Path() string { return l.path }

// State is what Check saw.
type State uint8

// The states.
const (
	Unchanged State = iota // nothing to read that was not known
	Grown                  // there is something to read
	Rotated                // the path leads to another file, or to none for the moment
	Gone                   // neither the log nor its directory can be seen: removed, or unmounted
)

// Check compares the path with what is held: one stat(2).
func (l *Log) Check() (State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chain) == 0 {
		return Unchanged, nil // closed
	}
	newest := l.chain[len(l.chain)-1]
	newest.ctime = 0
	known := Unchanged
	if len(l.chain) > 1 {
		known = Grown
	}
	now := time.Now() // before the look: what changes after it must be known to be later
	var st unix.Stat_t
	err := stat(l.path, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if newest.final {
			// Known to have moved on, and nothing has come after it. Somebody
			// else than Docker may have unlinked it: then it still grows.
			if unix.Fstat(newest.fd, &st) == nil && st.Size != max(newest.offset, newest.seen) {
				return Grown, nil
			}
			return known, nil
		}
		if err := stat(l.dir, &st); errors.Is(err, fs.ErrNotExist) {
			return Gone, nil
		}
		return Rotated, nil
	case err != nil:
		return Unchanged, &fs.PathError{Op: "stat", Path: l.path, Err: err}
	case l.behind:
		return Grown, nil // Next comes to what was kept out
	case st.Ino != newest.ino || st.Dev != newest.dev:
		return Rotated, nil
	case st.Size != max(newest.offset, newest.seen):
		newest.size = st.Size
		return Grown, nil // or truncated: the reader finds out
	}
	if ctime := st.Ctim.Nano(); known == Unchanged && settled(ctime, now.UnixNano(), l.opt.Settled) {
		newest.ctime = ctime
	}
	return known, nil
}

// Untouched reports whether Check would find the log Unchanged once more, as far as
// one fstat(2) can tell, which costs a fraction of a stat(2): whatever is done to a
// file, to rename or unlink it included, sets its ctime. If it is false only Check
// can tell. It does not see what befalls the directories above: that they are moved,
// closed, or mounted over.
func (l *Log) Untouched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chain) != 1 || l.behind {
		return false
	}
	f := l.chain[0]
	var st unix.Stat_t
	return f.ctime != 0 && unix.Fstat(f.fd, &st) == nil &&
		st.Ctim.Nano() == f.ctime && st.Size == max(f.offset, f.seen)
}

// settled reports whether what changes a file after now, in nanoseconds, is sure to
// give it another ctime than the present one: that must be at least age old. One that
// lies in the future never is: a clock was set back, or is a server's.
func settled(ctime, now int64, age time.Duration) bool {
	return age < 0 || now-ctime >= int64(age)
}

// Quiet reports whether the newest file is no longer than what has been read of
// it: one fstat(2). It does not notice that the log was renamed.
func (l *Log) Quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chain) != 1 {
		return false
	}
	var st unix.Stat_t
	f := l.chain[0]
	return unix.Fstat(f.fd, &st) == nil && st.Size == max(f.offset, f.seen)
}

// MarkFinal says that nothing will be written to the log any more: its
// container has been removed.
func (l *Log) MarkFinal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.chain {
		f.final = true
	}
	l.removed, l.named = true, l.seq+1
}

// Named gives the number of the oldest file that has a name, as of the last look:
// those before it are there as long as they are held and no longer.
func (l *Log) Named() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.named
}

// Chunk is what Next found.
type Chunk struct {
	// Data is complete lines, each with its newline; empty at the end of what
	// there is. It is valid until the next call of Next.
	Data []byte
	// Seq numbers the files of the log in their order; Offset is that of
	// Data[0] in the file.
	Seq    int64
	Offset int64
	// Rest is set when Data is the last bytes of a file that nobody will
	// finish: there is no newline.
	Rest bool
	// Long is set when Data is a piece of a line longer than the buffer's capacity:
	// there is no newline, more of the line follows.
	Long bool
	// Hole is the number of NUL bytes that were skipped before Data: a hole
	// that truncation from outside left, or a power loss.
	Hole int64
	// Truncated is set when the file was found shorter than what had been
	// read of it and is read anew from its start.
	Truncated bool
	// Lost is the number of bytes that will never be read: with an error the rest
	// of a file that is given up, with Truncated what is known to have been
	// unread. LostArchive is set for the rest of an archive, of unknown size.
	Lost        int64
	LostArchive bool
	// Change is what was found when a file was left and others had been kept out.
	Change Change
	// End is set when there was no more in the newest file at that moment.
	End bool
}

// Next gives the next lines, at most as many as fit into buf, and does not move
// on: Advance does. A line that is longer than buf may take all of its capacity:
// how much room there is by chance must not decide whether it is Long. At the end of a file that is final it goes to the next
// newer one. An error concerns the file that is being read; what is left of it is
// given up if it is final, so that a repeated call makes progress.
func (l *Log) Next(buf []byte) (Chunk, error) {
	var c Chunk
	for {
		l.mu.Lock()
		if len(l.chain) == 0 {
			l.mu.Unlock()
			return c, nil
		}
		f := l.chain[0]
		// Taken before the read: only then does an empty read of a final file
		// mean that it has been read to its end.
		final := f.final
		f.ctime = 0 // there may be more than Check saw
		l.mu.Unlock()

		c.Seq, c.Offset = f.seq, f.offset
		n, err := f.readAt(buf, f.offset)
		if n == 0 && err != nil && !errors.Is(err, io.EOF) {
			err = fmt.Errorf("read %s at offset %d: %w", filepath.Join(l.dir, f.name), f.offset, err)
			if f.gz != nil || (final && !isTransient(err)) {
				// A cut archive is never repaired.
				l.giveUp(f, &c)
			}
			return c, err
		}
		if n == 0 {
			if final {
				if !l.dropOldest(&c) {
					return c, nil
				}
				continue
			}
			var st unix.Stat_t
			if err := unix.Fstat(f.fd, &st); err != nil {
				return c, fmt.Errorf("fstat %s: %w", l.path, err)
			}
			if st.Size >= f.offset {
				c.End = true
				return c, nil
			}
			l.mu.Lock()
			c.Lost += max(0, max(f.seen, f.size)-f.offset)
			f.offset, f.seen, f.size, f.print = 0, 0, 0, 0
			l.mu.Unlock()
			c.Truncated = true
			continue
		}
		data := buf[:n]
		if f.offset == 0 {
			l.mu.Lock()
			if f.print != 0 {
				// Known.
			} else if i := bytes.IndexByte(data, '\n'); i >= 0 && i < maxPrintBytes {
				f.print = hashLine(data[:i+1])
			} else {
				f.fillPrint()
			}
			l.mu.Unlock()
		}
		if cut := bytes.LastIndexByte(data, '\n'); cut >= 0 {
			c.Data = data[:cut+1]
			c.End = !final && n < len(buf)
			return c, nil
		}
		if n < len(buf) {
			if final {
				c.Data, c.Rest = data, true
				return c, nil
			}
			// Half a line: its rest will come, or the file becomes final.
			l.mu.Lock()
			f.seen = f.offset + int64(n)
			l.mu.Unlock()
			return c, nil
		}
		if !allZero(data) {
			if len(buf) < cap(buf) {
				buf = buf[:cap(buf)]
				continue
			}
			c.Data, c.Long = data, true
			return c, nil
		}
		skipped := l.skipHole(f, int64(n))
		c.Hole += skipped
		if c.Hole >= 64<<20 {
			c.Offset = f.offset
			return c, nil // others want to be read, too
		}
	}
}

func isTransient(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) }

// skipHole moves over at least n NUL bytes and, if what follows is a hole in a
// sparse file, to its end.
func (l *Log) skipHole(f *file, n int64) int64 {
	to := f.offset + n
	if f.gz == nil {
		if data, err := unix.Seek(f.fd, to, unix.SEEK_DATA); err == nil && data > to {
			to = data
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n = to - f.offset
	f.offset = to
	return n
}

func allZero(b []byte) bool {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return len(b) == 0
}

// giveUp leaves what cannot be read of a file, and says how much that is.
func (l *Log) giveUp(f *file, c *Chunk) {
	var st unix.Stat_t
	l.mu.Lock()
	defer l.mu.Unlock()
	f.givenUp = true
	switch {
	case f.gz != nil:
		c.LostArchive = true
	case unix.Fstat(f.fd, &st) == nil:
		c.Lost += max(0, st.Size-f.offset)
		f.offset = max(f.offset, st.Size)
	}
}

// dropOldest leaves the file behind that has been read to its end, if a newer
// one is there to go on with.
func (l *Log) dropOldest(c *Chunk) bool {
	look := func() {
		change, _ := l.Refresh() // an error comes again at the next look
		c.Change.add(change)
	}
	l.mu.Lock()
	behind := l.behind
	if behind && len(l.chain) == 1 {
		l.mu.Unlock()
		look()
		l.mu.Lock()
	}
	if len(l.chain) == 1 {
		l.mu.Unlock()
		return false
	}
	left := l.leave()
	l.mu.Unlock()
	// Not with mu held: to close the last descriptor of a file that rotation has
	// unlinked frees its blocks, which may take the file system 100 ms, and
	// meanwhile a Refresh may have to take hold of others.
	l.release(left)
	if behind {
		look() // there is room for one of those that were kept out
	}
	return true
}

// leave takes the oldest file out of the chain. The caller releases it.
func (l *Log) leave() *file {
	f := l.chain[0]
	f.fillPrint()
	if len(l.past) == maxPast {
		l.past = append(l.past[:0], l.past[1:]...)
	}
	l.past = append(l.past, f.print)
	l.chain = append(l.chain[:0], l.chain[1:]...)
	return f
}

// Advance says that n bytes of what Next gave have been dealt with.
func (l *Log) Advance(n int) {
	l.mu.Lock()
	l.chain[0].offset += int64(n)
	l.mu.Unlock()
}

// Where gives the file being read, its number and the offset of the next byte.
func (l *Log) Where() (id entry.FileID, seq, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chain) == 0 {
		return entry.FileID{}, l.seq, 0
	}
	f := l.chain[0]
	return f.id(), f.seq, f.offset
}

// Find looks for a saved file in the chain and gives its number.
func (l *Log) Find(id entry.FileID) (seq int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, want := range []match{matchHandle, matchPrint} {
		for i := len(l.chain) - 1; i >= 0; i-- {
			f := l.chain[i]
			if want == matchPrint || f.handle == id.Handle {
				f.fillPrint()
			}
			if sameFile(id, f.id()) == want {
				return f.seq, true
			}
		}
	}
	return 0, false
}

// Oldest gives the number of the oldest file held.
func (l *Log) Oldest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chain) == 0 {
		return l.seq + 1
	}
	return l.chain[0].seq
}

// SeekTo lets reading begin at an offset of a file of the chain; older files
// are let go. An offset that does not follow a line end, or lies behind the end
// of the file, cannot be one that was saved for this content (a power loss took
// the file's last blocks, say): reading then begins at the file's start, which
// ok == false tells.
func (l *Log) SeekTo(seq, offset int64) (ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.chain) > 0 && l.chain[0].seq < seq {
		l.release(l.leave())
	}
	if len(l.chain) == 0 || l.chain[0].seq != seq {
		return false, fmt.Errorf("seek in %s: file number %d is not held", l.path, seq)
	}
	f := l.chain[0]
	f.fillPrint()
	f.offset = 0
	if offset == 0 {
		return true, nil
	}
	var b [1]byte
	n, err := f.readAt(b[:], offset-1)
	switch {
	case n == 1 && (b[0] == '\n' || b[0] == 0):
	case n == 1 && f.final:
		// The unfinished last words of a final file end without a newline.
		if m, _ := f.readAt(b[:], offset); m != 0 {
			return false, nil
		}
	case n == 0 && err != nil && !errors.Is(err, io.EOF) && f.gz == nil:
		return false, fmt.Errorf("read %s: %w", filepath.Join(l.dir, f.name), err)
	default:
		return false, nil
	}
	f.offset = offset
	return true, nil
}

// SeekEnd lets reading begin behind the last complete line there is now.
func (l *Log) SeekEnd() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.chain) > 1 {
		l.release(l.leave())
	}
	if len(l.chain) == 0 {
		return nil
	}
	f := l.chain[0]
	f.fillPrint()
	if f.gz != nil {
		return fmt.Errorf("seek to the end of %s: only an archive is left", l.path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("fstat %s: %w", l.path, err)
	}
	buf := make([]byte, 64<<10)
	for end := st.Size; end > 0; {
		from := max(0, end-int64(len(buf)))
		n, err := pread(f.fd, buf[:end-from], from)
		if err != nil {
			return fmt.Errorf("read %s: %w", l.path, err)
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			f.offset = from + int64(i) + 1
			return nil
		}
		end = from
	}
	f.offset = 0
	return nil
}

// Unread gives the number of bytes that are known and not consumed; of archives
// the compressed size is taken. Of a log that nobody has read since Check found it
// Unchanged it is what Check saw, whatever was written since.
func (l *Log) Unread() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chain) == 1 && l.chain[0].ctime != 0 {
		return max(0, l.chain[0].seen-l.chain[0].offset)
	}
	var sum int64
	for _, f := range l.chain {
		var st unix.Stat_t
		if unix.Fstat(f.fd, &st) != nil {
			continue
		}
		if f.gz == nil {
			st.Size -= f.offset
		} else if f.offset > 0 || f.givenUp {
			continue
		}
		sum += max(0, st.Size)
	}
	return sum
}

// Seq gives the number of the newest file that the log has had, counted from 1.
func (l *Log) Seq() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// Held gives the number of files held open.
func (l *Log) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.chain)
}

func stat(path string, st *unix.Stat_t) error {
	for {
		err := unix.Stat(path, st)
		if err != unix.EINTR {
			return err
		}
	}
}

func open(path string) (int, error) {
	for {
		// O_NOFOLLOW: Docker never makes links here, a hostile directory might.
		const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW
		// The time of access is nobody's, and to note it costs a write of the
		// inode now and then. Only the owner and root may leave it out.
		fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
		if errors.Is(err, unix.EPERM) {
			fd, err = unix.Open(path, flags, 0)
		}
		if err != unix.EINTR {
			if err != nil {
				return -1, &os.PathError{Op: "open", Path: path, Err: err}
			}
			return fd, nil
		}
	}
}
