package spool

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
)

// Frame is one payload with what the spool tells of it.
type Frame struct {
	// Seq is the frame's number in its lane: from 1, in the order of Append.
	// Set by Next, ignored by Append.
	Seq uint64
	// Payload is opaque, at most MaxPayloadBytes.
	Payload []byte
	// Records is the number of lines in it, at least 1.
	Records int
	// Oldest is the time of the oldest of them, in nanoseconds since the Unix epoch.
	Oldest int64
}

// segment is a file of frames, named by the number of the first.
type segment struct {
	// first and last are the numbers of its frames. Of a segment before another
	// one last is always the number before the other's first: what is not there is lost.
	first, last uint64
	size        int64 // where its frames end
	disk        int64 // counts against the cap: the file, and the seal to come
	records     uint32
	oldest      int64
	// read is how far it is read: what is before has been given, or passed over.
	read position
	// keepAs is its name when all of it is done, because lines in it were not understood;
	// empty: it is removed then. See willKeep.
	keepAs string
}

// newSegment gives a segment without frames.
func newSegment(first uint64) *segment {
	return &segment{first: first, last: first - 1, oldest: math.MaxInt64, read: position{off: segmentHeaderLen, seq: first}}
}

func (sg *segment) name() string { return segmentName(sg.first) }

// end is the position behind the last frame.
func (sg *segment) end() position { return position{sg.size, sg.last + 1, sg.records} }

// unread is the number of frames from the position on.
func (sg *segment) unread() uint64 { return sg.last + 1 - sg.read.seq }

// handed is a frame that Next has given and whose turn to be done has not come.
type handed struct {
	header
	done bool
}

// Lane is one queue of frames. All methods are safe for concurrent use, and each
// may wait for the disk and for the others.
//
// Its frames have the numbers 1, 2, and so on. Those below next have been appended. Those
// up to where the segments are read have been given, or lost; of these, all up to
// cursor.seq are done, and some behind it.
type Lane struct {
	s     *Spool
	index int
	files disk.Dir

	mu      sync.Mutex
	closed  bool
	segs    []*segment // oldest first
	active  disk.File  // the newest segment, open for appending; nil: the next frame begins a new one
	next    uint64
	handed  []handed // given and not done, and what was done after these; in order
	waiting figures  // of those that are not done, but for the oldest
	cursor  cursor
	out     []byte // reused by Append
	in      []byte // reused by Next
	// unreadSince is since when the disk does not give back what is there; zero: it does.
	unreadSince time.Time
}

// Append adds frames to the end of the queue; when it returns nil they are on the
// disk, with one fsync for all of them. After an error none of them is in the
// queue: an error that is ErrFull says which limit is reached; any other is one of
// the disk. (After a crash that follows an error, one of them may be found all
// the same, when the disk did not even take it back.)
func (l *Lane) Append(frames ...Frame) error { return l.append(frames, false) }

// AppendReserved is Append that finds room also where there is none for Append: in a
// reserve below the cap, and in a part of the floor of free space. It is for frames
// that take the place of others, which are done soon.
func (l *Lane) AppendReserved(frames ...Frame) error { return l.append(frames, true) }

func (l *Lane) append(frames []Frame, reserved bool) error {
	if len(frames) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	sg := l.tail()
	grown := *sg // as it will be
	b, err := l.encode(&grown, frames)
	if err != nil {
		return err
	}
	n := grown.disk - sg.disk
	if err := l.s.take(l.index, n, reserved); err != nil {
		return err
	}
	left, err := l.write(sg, b)
	if err != nil {
		if left {
			sg.disk += n // it is there, and is not read
		} else {
			l.s.release(n)
		}
		return l.s.writeFailed(l.index, err)
	}
	if sg.size == 0 {
		l.segs = append(l.segs, sg)
	}
	l.s.wrote(l.index, grown.records-sg.records, len(frames))
	*sg = grown
	l.next = sg.last + 1
	l.publish()
	return nil
}

// tail gives the segment that the next frames go to. A new one has no file yet, and
// size 0.
func (l *Lane) tail() *segment {
	if l.active != nil {
		if sg := l.segs[len(l.segs)-1]; sg.size < l.s.cfg.segmentBytes {
			return sg
		}
	}
	return newSegment(l.next)
}

// encode gives the bytes by which a segment grows with frames, and lets it grow.
func (l *Lane) encode(sg *segment, frames []Frame) ([]byte, error) {
	b := l.out[:0]
	if sg.size == 0 {
		b = appendSegmentHeader(b, sg.first)
		sg.disk = frameHeaderLen // for the seal
	}
	for i, f := range frames {
		if len(f.Payload) > MaxPayloadBytes || f.Records < 1 || int64(f.Records) > math.MaxUint32-int64(sg.records) {
			return nil, fmt.Errorf("spool lane %d: a frame of %d bytes and %d records cannot be kept", l.index, len(f.Payload), f.Records)
		}
		at := len(b)
		b = append(b, make([]byte, frameHeaderLen)...)
		b = l.s.enc.EncodeAll(f.Payload, b)
		stored := b[at+frameHeaderLen:]
		sg.last++
		h := header{
			length: uint32(len(stored)), seq: sg.last, oldest: f.Oldest, records: uint32(f.Records),
			before: sg.records, back: uint32(i), sum: checksum(stored),
		}
		h.put(b[at:])
		sg.records += h.records
		sg.oldest = min(sg.oldest, f.Oldest)
	}
	if cap(b) <= keepBuffer {
		l.out = b
	}
	sg.size += int64(len(b))
	sg.disk += int64(len(b))
	return b, nil
}

// write brings bytes to the end of a segment and to the disk. After an error
// nothing more is written to that file: what a failed sync leaves is not known. left
// says that it could not even be taken back.
func (l *Lane) write(sg *segment, b []byte) (left bool, err error) {
	fresh := sg.size == 0
	if fresh {
		l.seal()
		if l.active, err = l.files.Open(sg.name(), os.O_RDWR|os.O_CREATE|os.O_TRUNC); err != nil {
			return false, err
		}
	}
	if _, err = l.active.WriteAt(b, sg.size); err == nil {
		err = l.active.Sync()
	}
	if err == nil && fresh {
		err = l.files.Sync()
	}
	if err == nil {
		return false, nil
	}
	left = l.active.Truncate(sg.size) != nil
	_ = l.active.Close() // the first error is told
	l.active = nil
	if fresh {
		_ = l.files.Remove(sg.name()) // the next attempt takes the same name
		return false, err
	}
	return left, err
}

// seal ends the active segment, if there is one. Without its seal a segment is
// only opened more slowly; so errors are nothing.
func (l *Lane) seal() {
	if l.active == nil {
		return
	}
	sg := l.segs[len(l.segs)-1]
	var b [frameHeaderLen]byte
	h := header{seq: sg.last + 1, oldest: sg.oldest, before: sg.records}
	h.put(b[:])
	_, _ = l.active.WriteAt(b[:], sg.size)
	_ = l.active.Close()
	l.active = nil
}

// Next gives the oldest frame that it has not given yet, and false when there is
// none. The payload is appended to buf[:0]. Frames given may be done in any
// order; after a restart those that are not done are given again.
//
// What is damaged is passed over, counted and logged. An error means that the disk
// does not give back what is there; a later call tries again. What it has not given
// back for readPatience is passed over, too.
func (l *Lane) Next(buf []byte) (f Frame, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Frame{}, false, os.ErrClosed
	}
	defer l.publish()
	for _, sg := range l.segs {
		if sg.unread() == 0 {
			continue
		}
		if f, ok, err := l.nextOf(sg, buf); ok || err != nil {
			return f, ok, err
		}
	}
	l.drop()
	return Frame{}, false, nil
}

// nextOf is Next of one segment.
func (l *Lane) nextOf(sg *segment, buf []byte) (f Frame, ok bool, err error) {
	r, err := l.files.Open(sg.name(), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) { // somebody has removed it
		l.pass(sg, sg.end(), err)
		return Frame{}, false, nil
	}
	if err != nil {
		return Frame{}, false, fmt.Errorf("read lane %d of the spool (it is tried again): %w", l.index, err)
	}
	defer r.Close() //nolint:errcheck // it was only read
	for sg.unread() > 0 {
		f, h, behind, err := l.read(r, sg, sg.read, buf)
		if errors.Is(err, errUnread) && l.patient() {
			return Frame{}, false, fmt.Errorf("read lane %d of the spool (it is tried again; check the disk of data_dir): %w", l.index, err)
		}
		if err != nil {
			l.pass(sg, behind, err)
			continue
		}
		l.pass(sg, position{sg.read.off, h.seq, h.before}, errNoFrame)
		sg.read = behind
		l.unreadSince = time.Time{}
		l.handed = append(l.handed, handed{header: h})
		l.waiting.frames++
		l.waiting.records += uint64(h.records)
		l.waiting.bytes += h.size()
		return f, true, nil
	}
	return Frame{}, false, nil
}

// read reads the first frame of a segment at p or behind it, and gives the position
// behind what it has looked at; with an error, too.
func (l *Lane) read(r disk.File, sg *segment, p position, buf []byte) (f Frame, h header, behind position, err error) {
	h, behind, err = find(r, p, sg.size, sg.last)
	if errors.Is(err, errUnread) {
		p.off += 4 << 10 // there may be frames behind it
		return Frame{}, header{}, p, err
	}
	if err != nil {
		return Frame{}, header{}, sg.end(), err
	}
	stored, err := h.payload(r, behind, l.in)
	if cap(stored) <= keepBuffer {
		l.in = stored
	}
	if err == nil {
		buf, err = l.s.dec.DecodeAll(stored, buf[:0])
	}
	return Frame{Seq: h.seq, Payload: buf, Records: int(h.records), Oldest: h.oldest}, h, behind, err
}

// pass goes on to a position of a segment; what is between is lost.
func (l *Lane) pass(sg *segment, to position, why error) {
	if frames := to.seq - sg.read.seq; frames > 0 {
		l.s.lost(l.index, sg.name(), frames, uint64(to.before)-min(uint64(sg.read.before), uint64(to.before)), why)
		l.willKeep(sg, keptLost)
	}
	sg.read = to
}

// patient reports whether what the disk does not give back is to be tried again.
func (l *Lane) patient() bool {
	now := l.s.cfg.Now()
	if l.unreadSince.IsZero() {
		l.unreadSince = now
	}
	return now.Sub(l.unreadSince) < readPatience
}

// Scan calls f with every frame that Next has still to give, in order, without giving
// it; a payload is f's only until it returns. It ends with the first error of f. What
// is damaged is left out: Next tells of it. Any other error means that the disk does not
// give back some of it. The lane waits meanwhile, and must not be used by f.
func (l *Lane) Scan(f func(Frame) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	var unread error
	for _, sg := range l.segs {
		if err := l.scan(sg, f); errors.Is(err, errUnread) {
			unread = cmp.Or(unread, fmt.Errorf("read lane %d of the spool: %w", l.index, err))
		} else if err != nil {
			return err
		}
	}
	return unread
}

// scan is Scan of one segment; behind a place that the disk does not give back it does
// not look for more.
func (l *Lane) scan(sg *segment, f func(Frame) error) error {
	r, err := l.files.Open(sg.name(), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil // Next tells of it
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	defer r.Close() //nolint:errcheck // it was only read
	var buf []byte
	for p := sg.read; p.seq <= sg.last; {
		fr, _, behind, err := l.read(r, sg, p, buf)
		if errors.Is(err, errUnread) {
			return err
		}
		p = behind
		if err != nil {
			continue // Next tells of it
		}
		buf = fr.Payload
		if err := f(fr); err != nil {
			return err
		}
	}
	return nil
}

// Ack says that a frame which Next has given is done: sent, or safe elsewhere. The
// queue forgets it when all before it are done too, and writes that down without
// a sync: after a power loss some frames are given again, none is missing. An
// error means only that: frames may be given again. ErrNotGiven is a fault of
// the caller.
func (l *Lane) Ack(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	i, found := slices.BinarySearchFunc(l.handed, seq, func(g handed, seq uint64) int { return cmp.Compare(g.seq, seq) })
	if !found || l.handed[i].done {
		return fmt.Errorf("frame %d of spool lane %d: %w", seq, l.index, ErrNotGiven)
	}
	g := &l.handed[i]
	g.done = true
	l.waiting.frames--
	l.waiting.records -= uint64(g.records)
	l.waiting.bytes -= g.size()
	l.s.m.acked.Inc()
	n := 0
	for n < len(l.handed) && l.handed[n].done {
		n++
	}
	if n > 0 {
		l.cursor.seq = l.handed[n-1].seq
		l.handed = l.handed[:copy(l.handed, l.handed[n:])]
	}
	err := l.cursor.save(l.files) // also if it has not moved: the last time may have failed
	l.drop()
	l.publish()
	if err != nil {
		return fmt.Errorf("write the cursor of spool lane %d (frames may be sent twice after a restart; check space and disk of data_dir): %w", l.index, err)
	}
	return nil
}

// NotUnderstood says of a frame that Next has given and that is not acknowledged yet that
// nobody here can make anything of its payload; byNewer, that a newer agent wrote it. It is
// acknowledged as any other, but its segment is kept, under the name that is given, from
// the directory of the spool on. That is empty where there is no such frame.
func (l *Lane) NotUnderstood(seq uint64, byNewer bool) (keptAs string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sg := range l.segs {
		if seq < sg.first || seq > sg.last {
			continue
		}
		kind := keptLost
		if byNewer { // and so is all of the segment: an agent writes to none but its own
			kind = keptVersion
		}
		l.willKeep(sg, kind)
		return laneDir(l.index) + "/" + sg.keepAs
	}
	return ""
}

// drop removes the segments of which every frame is done; the active one, too.
// A name that cannot be removed is tried again with the next.
func (l *Lane) drop() {
	n := len(l.segs)
	for len(l.segs) > 0 {
		sg := l.segs[0]
		if sg.unread() > 0 || len(l.handed) > 0 && l.handed[0].seq <= sg.last {
			break
		}
		if len(l.segs) == 1 && l.active != nil {
			_ = l.active.Close() // it goes
			l.active = nil
		}
		if !l.keep(sg) {
			if err := l.files.Remove(sg.name()); err != nil && !errors.Is(err, os.ErrNotExist) {
				break
			}
		}
		l.s.release(sg.disk)
		l.segs = slices.Delete(l.segs, 0, 1)
	}
	if len(l.segs) == n {
		return
	}
	if len(l.segs) == 0 {
		l.in, l.out = nil, nil // outages are rare
	}
	_ = l.files.Sync() // names that come back are removed at the next start
}

// keptName gives the name under which a segment stays as a kind of file, which is no other's:
// numbers come again where the cursor was lost or a segment was set aside at a start.
func (l *Lane) keptName(sg *segment, kind string) string {
	kept := sg.name() + "." + kind
	all, _ := l.files.List() // as a rule there is none
	for n := 2; slices.ContainsFunc(all, func(f disk.Info) bool { return f.Name == kept }); n++ {
		kept = fmt.Sprintf("%s.%s-%d", sg.name(), kind, n)
	}
	return kept
}

// isKept reports whether a name is that of a file that is kept, of a kind.
func isKept(name, kind string) bool { return strings.Contains(name, segmentSuffix+"."+kind) }

// willKeep has a segment kept when all of it is done. That another agent can read it counts
// more than that this one has lost some of it.
func (l *Lane) willKeep(sg *segment, kind string) {
	if sg.keepAs == "" || kind == keptVersion && !isKept(sg.keepAs, keptVersion) {
		sg.keepAs = l.keptName(sg, kind)
	}
}

// keep gives a segment of which every frame is done another name, if it is to be kept, and
// reports whether it has. The newest few stay of those that this agent cannot read; all that
// another one can.
func (l *Lane) keep(sg *segment) bool {
	if sg.keepAs == "" {
		return false
	}
	kept := sg.keepAs
	if err := l.files.Rename(sg.name(), kept); err != nil {
		if !errors.Is(err, os.ErrNotExist) { // else somebody has removed it, which was told
			l.s.log.Warn("spool segment with lines that could not be read cannot be kept: it is removed",
				"lane", l.index, "segment", sg.name(), "error", err)
		}
		sg.keepAs = "" // room for what comes matters more
		return false
	}
	l.s.log.Warn("spool segment is kept under another name: lines in it could not be read", "lane", l.index, "segment", sg.name(), "kept_as", kept)
	if !isKept(kept, keptLost) {
		return true
	}
	all, _ := l.files.List() // else with the next
	others := slices.DeleteFunc(all, func(f disk.Info) bool {
		return f.IsDir || f.Name == kept || !isKept(f.Name, keptLost)
	})
	for _, old := range others[:max(0, len(others)-(mostKeptLost-1))] {
		_ = l.files.Remove(old.Name) // else with the next
	}
	return true
}

// publish brings the figures of the lane up to date. Called with mu held.
func (l *Lane) publish() {
	f := l.waiting
	if f.frames > 0 {
		f.oldest = l.handed[0].oldest // which is not done
	}
	for _, sg := range l.segs {
		n := sg.unread()
		if n == 0 {
			continue
		}
		if f.frames == 0 {
			f.oldest = sg.oldest
		}
		f.frames += n
		f.records += uint64(sg.records) - min(uint64(sg.read.before), uint64(sg.records))
		f.bytes += sg.size - sg.read.off
	}
	l.s.publish(l.index, f)
}

// Empty reports whether every frame is done.
func (l *Lane) Empty() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.figures[l.index].frames == 0
}

// close seals, syncs and closes what is open.
func (l *Lane) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.seal()
	err := l.cursor.save(l.files)
	if l.cursor.f != nil {
		err = errors.Join(err, l.cursor.f.Sync(), l.cursor.f.Close())
	}
	return errors.Join(err, l.files.Sync())
}
