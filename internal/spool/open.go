package spool

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/log-capturer/log_capturer/internal/disk"
)

// newestFrames bounds the numbers that are believed in the newest segment.
const newestFrames = 1 << 32

// segments gives the numbers of the first frames of the segments, oldest first.
func segments(lane disk.Dir) (firsts []uint64, err error) {
	all, err := lane.List()
	for _, f := range all {
		if first, ok := parseSegmentName(f.Name); ok && !f.IsDir {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, err
}

// openLane reads what an earlier process has left: of complete segments the
// seal, of others the headers, of the newest every byte.
func openLane(s *Spool, index int, files disk.Dir) (*Lane, error) {
	l := &Lane{s: s, index: index, files: files, next: 1}
	firsts, err := segments(files)
	if err != nil {
		return nil, err
	}
	l.openCursor()
	for i, first := range firsts {
		newest := i == len(firsts)-1
		most := first + newestFrames
		if !newest {
			most = firsts[i+1] - 1
		}
		if sg := l.adopt(first, most, newest); sg != nil {
			l.segs = append(l.segs, sg)
			s.used += sg.disk
			l.next = sg.last + 1
		}
	}
	if len(l.segs) > 0 && l.cursor.seq >= l.next {
		// Somebody has put back an older directory, or the newest frames were
		// cut off: better twice than never.
		l.cursor.seq = l.segs[0].first - 1
		s.log.Warn("spool cursor is behind the last frame on disk: not believed, frames may be sent twice", "lane", index)
	}
	l.next = max(l.next, l.cursor.seq+1)
	for _, sg := range l.segs {
		l.skip(sg, l.cursor.seq)
	}
	// Written anew: a failed sync may have lost what was read.
	if err := l.cursor.save(files); err != nil {
		s.log.Warn("spool cursor cannot be written: frames may be sent twice after a restart", "lane", index, "error", err)
	}
	l.drop()
	l.publish()
	return l, nil
}

// openCursor reads the number up to which all is done.
func (l *Lane) openCursor() {
	b, err := disk.ReadFile(l.files, cursorName)
	if err == nil && !l.cursor.load(b) {
		err = errors.New("it is damaged")
		l.s.m.damagedCursors.Inc()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.s.log.Warn("spool cursor cannot be read: frames of the oldest segment may be sent twice", "lane", l.index, "error", err)
	}
}

// skip goes on behind the frames of a segment that are done: up to a number.
func (l *Lane) skip(sg *segment, done uint64) {
	if done < sg.first {
		return
	}
	if done >= sg.last {
		sg.read = sg.end()
		return
	}
	if r, err := l.files.Open(sg.name(), os.O_RDONLY); err == nil { // else Next tells
		defer r.Close() //nolint:errcheck // it was only read
		for sg.read.seq <= done {
			h, behind, err := find(r, sg.read, sg.size, sg.last)
			if err != nil {
				break
			}
			if h.seq > done { // those that are done are damaged
				sg.read.before = h.before
				break
			}
			sg.read = behind
		}
	}
	sg.read.seq = done + 1
}

// adopt takes over the segment that begins with the number first and can hold
// frames up to most. It gives nil where there is nothing in it to be read.
func (l *Lane) adopt(first, most uint64, newest bool) *segment {
	sg := newSegment(first)
	torn, err := l.examine(sg, most, newest)
	switch {
	case errors.Is(err, errVersion):
		l.putAside(sg, keptVersion, err)
		return nil
	case errors.Is(err, errUnread) && !newest:
		// A disk that is away for a moment: Next has more patience.
		whole := newSegment(first)
		whole.last, whole.size, whole.disk, whole.oldest = most, sg.disk, sg.disk, l.s.cfg.Now().UnixNano()
		return whole
	case err != nil || sg.last < first && !newest:
		if !newest && most > l.cursor.seq {
			l.s.m.lostFrames.Add(float64(most - max(first-1, l.cursor.seq)))
		}
		l.putAside(sg, keptDamaged, err)
		return nil
	}
	if torn > 0 {
		l.s.m.torn.Inc()
		l.s.log.Info("spool ended inside a write that was never confirmed: cut off", "lane", l.index, "segment", sg.name(), "bytes", torn)
	}
	if sg.last < first {
		_ = l.files.Remove(sg.name()) // next time, then
		return nil
	}
	if !newest {
		sg.last = most
	}
	return sg
}

func (l *Lane) putAside(sg *segment, kind string, why error) {
	kept := l.keptName(sg, kind)
	err := l.files.Rename(sg.name(), kept)
	l.s.m.setAside.Inc()
	l.s.log.Error("spool segment cannot be used: it is kept under another name and its lines are not sent",
		"lane", l.index, "segment", sg.name(), "kept_as", kept, "error", errors.Join(why, err))
}

// examine learns what the file of a segment holds. Of the newest one what lies behind the
// last good frame is cut off; torn says how many bytes.
func (l *Lane) examine(sg *segment, most uint64, newest bool) (torn int64, err error) {
	f, err := l.files.Open(sg.name(), os.O_RDWR)
	if disk.ReadOnly(err) {
		f, err = l.files.Open(sg.name(), os.O_RDONLY)
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Info()
	if err != nil {
		return 0, err
	}
	sg.disk = info.Size
	b, err := readAt(f, make([]byte, segmentHeaderLen), 0)
	if err == nil {
		err = checkSegmentHeader(b)
	}
	if err != nil {
		return 0, err
	}
	b, err = readAt(f, make([]byte, frameHeaderLen), max(segmentHeaderLen, sg.disk-frameHeaderLen))
	if err != nil {
		return 0, err
	}
	if h, ok := parseHeader(b); ok && h.isSeal() && h.seq > sg.first && h.seq <= most+1 {
		sg.last, sg.size, sg.records, sg.oldest = h.seq-1, sg.disk, h.before, h.oldest
		return 0, nil
	}
	if err := sg.scan(f, most, newest); err != nil || !newest {
		return 0, err
	}
	if torn = sg.disk - sg.size; torn > 0 && f.Truncate(sg.size) == nil {
		sg.disk = sg.size
	}
	// What a killed process had not synced counts from now on.
	return torn, f.Sync()
}

// scan finds the frames of a segment that has no seal, up to the last good one. In the
// newest one a frame is good only if its payload is. One that is not, with good ones
// behind it, is damage, and is left to Next; unless these were appended together with it:
// that write was never confirmed.
func (sg *segment) scan(f disk.File, most uint64, verify bool) error {
	sg.size = min(sg.disk, segmentHeaderLen)
	bad := uint64(0) // the first of those that are not good, since the last good one
	var payload []byte
	for p := sg.read; ; {
		h, behind, err := find(f, p, sg.disk, most)
		if errors.Is(err, errNoFrame) {
			return nil
		}
		if err != nil {
			return err
		}
		if bad == 0 && h.seq > p.seq {
			bad = p.seq
		}
		p = behind
		if verify {
			payload, err = h.payload(f, behind, payload)
			if errors.Is(err, errUnread) {
				return err
			}
			if err != nil {
				bad = cmp.Or(bad, h.seq)
				continue
			}
			if bad != 0 && bad+uint64(h.back) >= h.seq {
				continue
			}
			bad = 0
		}
		sg.last, sg.size, sg.records = h.seq, behind.off, behind.before
		sg.oldest = min(sg.oldest, h.oldest)
	}
}
