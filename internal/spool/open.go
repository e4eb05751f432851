package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
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
	l := &Lane{s: s, index: index, files: files, next: 1, off: segmentHeaderLen}
	firsts, err := segments(files)
	if err != nil {
		return nil, err
	}
	done := l.openCursor()
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
	if n := len(l.segs); n > 0 && done >= l.next {
		// Somebody has put back an older directory, or the newest frames were
		// cut off: better twice than never.
		done = l.segs[0].first - 1
		l.cursor.seq = done
		s.log.Warn("spool cursor is behind the last frame on disk: not believed, frames may be sent twice", "lane", index)
	}
	l.next = max(l.next, done+1)
	l.expect = done + 1
	if len(l.segs) > 0 {
		l.expect = max(l.expect, l.segs[0].first)
	}
	l.cursorQ = true // written anew: a failed sync may have lost what was read
	if err := l.saveCursor(); err != nil {
		s.log.Warn("spool cursor cannot be written: frames may be sent twice after a restart", "lane", index, "error", err)
	}
	l.drop()
	l.skip()
	l.publish()
	return l, nil
}

// openCursor gives the number up to which all is done.
func (l *Lane) openCursor() uint64 {
	b, err := disk.ReadFile(l.files, cursorName)
	if err == nil && !l.cursor.load(b) {
		err = errors.New("it is damaged")
		l.s.m.damagedCursors.Inc()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.s.log.Warn("spool cursor cannot be read: frames of the oldest segment may be sent twice", "lane", l.index, "error", err)
	}
	return l.cursor.seq
}

// skip walks over the frames of the first segment that are done, which a restart
// leaves in it.
func (l *Lane) skip() {
	if len(l.segs) == 0 || l.expect <= l.segs[0].first {
		return
	}
	sg := l.segs[0]
	f, err := l.files.Open(sg.name, os.O_RDONLY)
	if err != nil {
		return // Next tells
	}
	defer f.Close() //nolint:errcheck // it was only read
	for least := sg.first; ; {
		h, at, err := find(f, l.off, sg.size, least, sg.last)
		if err != nil || h.isSeal() {
			return
		}
		if h.seq >= l.expect {
			l.before = h.before
			return
		}
		l.off, l.before = at+frameHeaderLen+int64(h.length), h.before+h.records
		least = h.seq + 1
	}
}

// adopt takes over the segment that begins with the number first and can hold
// frames up to most. It gives nil where there is nothing in it to be read.
func (l *Lane) adopt(first, most uint64, newest bool) *segment {
	name := segmentName(first)
	sg, torn, err := l.examine(name, first, most, newest)
	var unknown *VersionError
	switch {
	case errors.As(err, &unknown):
		l.putAside(name, "unknown-version", err)
		return nil
	case errors.Is(err, errUnread) && !newest:
		// A disk that is away for a moment: Next has more patience.
		return &segment{name: name, first: first, last: most, size: sg.disk, disk: sg.disk, oldest: l.s.cfg.Now().UnixNano()}
	case err != nil || sg.last < first && !newest:
		if !newest && most > l.cursor.seq {
			l.s.m.lostFrames.Add(float64(most - max(first-1, l.cursor.seq)))
		}
		l.putAside(name, "damaged", err)
		return nil
	}
	if torn > 0 {
		l.s.m.torn.Inc()
		l.s.log.Info("spool ended inside a write that was never confirmed: cut off", "lane", l.index, "segment", name, "bytes", torn)
	}
	if sg.last < first {
		_ = l.files.Remove(name) // next time, then
		return nil
	}
	if !newest {
		sg.last = most
	}
	return sg
}

func (l *Lane) putAside(name, kind string, why error) {
	err := l.files.Rename(name, name+"."+kind)
	l.s.m.setAside.Inc()
	l.s.log.Error("spool segment cannot be used: it is kept under another name and its lines are not sent",
		"lane", l.index, "segment", name, "kept_as", name+"."+kind, "error", errors.Join(why, err))
}

// examine reads what a segment file holds. Of the newest one what lies behind the last
// good frame is cut off; torn says how many bytes.
func (l *Lane) examine(name string, first, most uint64, newest bool) (sg *segment, torn int64, err error) {
	f, err := l.files.Open(name, os.O_RDWR)
	if disk.ReadOnly(err) {
		f, err = l.files.Open(name, os.O_RDONLY)
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Info()
	if err != nil {
		return nil, 0, err
	}
	size := info.Size
	sg = &segment{name: name, first: first, last: first - 1, disk: size, oldest: math.MaxInt64}
	var b [max(segmentHeaderLen, frameHeaderLen)]byte
	if size >= segmentHeaderLen {
		if _, err := f.ReadAt(b[:segmentHeaderLen], 0); err != nil {
			return sg, 0, fmt.Errorf("%w: %w", errUnread, err)
		}
		if err := checkSegmentHeader(b[:]); err != nil {
			return nil, 0, err
		}
	}
	if size >= segmentHeaderLen+frameHeaderLen {
		if _, err := f.ReadAt(b[:frameHeaderLen], size-frameHeaderLen); err != nil {
			return sg, 0, fmt.Errorf("%w: %w", errUnread, err)
		}
		if h, ok := parseHeader(b[:frameHeaderLen]); ok && h.isSeal() && h.seq > first && h.seq <= most+1 {
			sg.last, sg.size, sg.records, sg.oldest = h.seq-1, size, h.before, h.oldest
			return sg, 0, nil
		}
	}
	if err := sg.scan(f, size, most, newest); err != nil {
		return sg, 0, err
	}
	if !newest {
		return sg, 0, nil
	}
	if torn = size - sg.size; torn > 0 && f.Truncate(sg.size) == nil {
		sg.disk = sg.size
	}
	// What a killed process had not synced counts from now on.
	return sg, torn, f.Sync()
}

// scan finds the frames of a segment that has no seal, up to the last good one. In the
// newest one a frame is good only if its payload is. One that is not, with good ones
// behind it, is damage, and is left to Next; unless these were appended together with it:
// that write was never confirmed.
func (sg *segment) scan(f disk.File, size int64, most uint64, verify bool) error {
	sg.size = min(size, segmentHeaderLen)
	off, expect, bad := int64(segmentHeaderLen), sg.first, uint64(0)
	var payload []byte
	for {
		h, at, err := find(f, off, size, expect, most)
		if errors.Is(err, io.EOF) || err == nil && h.isSeal() {
			return nil
		}
		if err != nil {
			return err
		}
		off = at + frameHeaderLen + int64(h.length)
		if bad == 0 && h.seq > expect {
			bad = expect
		}
		expect = h.seq + 1
		if verify {
			payload = slices.Grow(payload[:0], int(h.length))[:h.length]
			if n, err := f.ReadAt(payload, at+frameHeaderLen); n < len(payload) {
				return fmt.Errorf("read frame %d: %w", h.seq, err)
			}
			if checksum(payload) != h.sum {
				if bad == 0 {
					bad = h.seq
				}
				continue
			}
			if bad != 0 && bad+uint64(h.back) >= h.seq {
				continue
			}
			bad = 0
		}
		sg.last, sg.size = h.seq, off
		sg.records = h.before + h.records
		sg.oldest = min(sg.oldest, h.oldest)
	}
}
