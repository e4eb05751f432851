package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/log-capturer/log_capturer/internal/disk"
)

// The layout of segments and of the cursor, described in docs/formats/spool.md.
// Numbers are little-endian.
const (
	version      = 1
	segmentMagic = "LCSPOOL\x00"
	frameMagic   = "LCFR"
	cursorMagic  = "LCCU"

	segmentHeaderLen = 24 // magic, version, first number, checksum
	frameHeaderLen   = 44
	cursorSlotLen    = 24 // magic, generation, number, checksum

	cursorName    = "cursor"
	segmentSuffix = ".seg"
)

// What stands behind a dot at the end of the name of a segment that is kept and not used.
const (
	keptVersion = "unknown-version" // another agent can read it
	keptDamaged = "damaged"         // nothing in it could be read at a start
	keptLost    = "lost-frames"     // some frames could not be read; the others are done
)

// castagnoli is CRC-32C; the table is shared and read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segmentName names a segment by the number of its first frame.
func segmentName(first uint64) string { return fmt.Sprintf("%016x%s", first, segmentSuffix) }

// parseSegmentName gives false for any other name.
func parseSegmentName(name string) (first uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	first, err := strconv.ParseUint(hex, 16, 64)
	return first, err == nil && first > 0
}

// errVersion says that a segment was written by an agent whose format this one does not
// know.
var errVersion = errors.New("unknown version")

func appendSegmentHeader(b []byte, first uint64) []byte {
	at := len(b)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, first)
	return binary.LittleEndian.AppendUint32(b, checksum(b[at:]))
}

// checkSegmentHeader gives an errVersion for a sound header of another
// version. A damaged one is no error: the frames behind it speak for themselves.
func checkSegmentHeader(b []byte) error {
	const sum = segmentHeaderLen - 4
	if len(b) < segmentHeaderLen || string(b[:len(segmentMagic)]) != segmentMagic || binary.LittleEndian.Uint32(b[sum:]) != checksum(b[:sum]) {
		return nil
	}
	if v := binary.LittleEndian.Uint32(b[len(segmentMagic):]); v != version {
		return fmt.Errorf("%w: the segment has %d, this agent knows %d", errVersion, v, version)
	}
	return nil
}

// header stands before each frame. One with length 0 is the seal at the end of a
// segment that was completed: its before is the number of all records, its
// oldest the oldest of all.
type header struct {
	length  uint32 // of the payload as it is in the file
	seq     uint64 // the frame's number; of a seal, that of the frame that would follow
	oldest  int64  // time of its oldest line, nanoseconds since the Unix epoch
	records uint32 // in it
	before  uint32 // records of the segment in the frames before it
	back    uint32 // frames before it that were appended, and synced, together with it
	sum     uint32 // of the payload
}

func (h *header) isSeal() bool { return h.length == 0 }

// size is that of the header and the payload.
func (h *header) size() int64 { return frameHeaderLen + int64(h.length) }

// put writes the header to the front of b.
func (h *header) put(b []byte) {
	copy(b, frameMagic)
	binary.LittleEndian.PutUint32(b[4:], h.length)
	binary.LittleEndian.PutUint64(b[8:], h.seq)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.oldest))
	binary.LittleEndian.PutUint32(b[24:], h.records)
	binary.LittleEndian.PutUint32(b[28:], h.before)
	binary.LittleEndian.PutUint32(b[32:], h.back)
	binary.LittleEndian.PutUint32(b[36:], h.sum)
	binary.LittleEndian.PutUint32(b[40:], checksum(b[:40]))
}

// parseHeader reads a header from the front of b; false: there is none.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < frameHeaderLen || string(b[:4]) != frameMagic || binary.LittleEndian.Uint32(b[40:]) != checksum(b[:40]) {
		return header{}, false
	}
	return header{
		length:  binary.LittleEndian.Uint32(b[4:]),
		seq:     binary.LittleEndian.Uint64(b[8:]),
		oldest:  int64(binary.LittleEndian.Uint64(b[16:])),
		records: binary.LittleEndian.Uint32(b[24:]),
		before:  binary.LittleEndian.Uint32(b[28:]),
		back:    binary.LittleEndian.Uint32(b[32:]),
		sum:     binary.LittleEndian.Uint32(b[36:]),
	}, true
}

var (
	// errNoFrame and errChecksum are damage.
	errNoFrame  = errors.New("there is no frame where one should be")
	errChecksum = errors.New("the checksum of a frame differs")
	// errUnread is what an error of the disk is, which may pass: unlike damage.
	errUnread = errors.New("the disk does not give it back")
)

// readAt reads what a file has at off, as far as it goes: not all of b where the file
// ends. An error is errUnread.
func readAt(r io.ReaderAt, b []byte, off int64) ([]byte, error) {
	n, err := r.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	return b[:n], nil
}

// position is a place in a segment: before a frame, or at the end.
type position struct {
	off    int64
	seq    uint64 // the number of the frame that follows
	before uint32 // records of the segment before it
}

const scanChunk = 64 << 10

// find gives the header of the first frame at p or behind it that ends by end and whose
// number is from p.seq to most, and the position behind that frame. It stands at p unless
// something is damaged there. Seals are none. errNoFrame: there is none; errUnread: nobody can tell.
func find(r io.ReaderAt, p position, end int64, most uint64) (h header, behind position, err error) {
	size := int64(frameHeaderLen) // as a rule one look is enough
	var b []byte
	for off := p.off; end-off >= frameHeaderLen; off += int64(len(b)) - frameHeaderLen + 1 {
		n := int(min(size, end-off))
		if b, err = readAt(r, slices.Grow(b[:0], n)[:n], off); err != nil {
			return header{}, position{}, err
		}
		if len(b) < n { // the file is shorter than it was said to be
			end = off + int64(len(b))
		}
		for i := 0; ; i++ {
			j := bytes.Index(b[i:], []byte(frameMagic))
			if j < 0 {
				break
			}
			i += j
			h, ok := parseHeader(b[i:])
			behind := position{off + int64(i) + h.size(), h.seq + 1, h.before + h.records}
			if ok && !h.isSeal() && h.seq >= p.seq && h.seq <= most && behind.off <= end {
				return h, behind, nil
			}
		}
		size = scanChunk
	}
	return header{}, position{}, errNoFrame
}

// payload reads and verifies the payload of a frame as it lies there, before the
// position behind the frame. b is used for it if it is large enough.
func (h *header) payload(r io.ReaderAt, behind position, b []byte) ([]byte, error) {
	b, err := readAt(r, slices.Grow(b[:0], int(h.length))[:h.length], behind.off-int64(h.length))
	if err == nil && checksum(b) != h.sum {
		err = errChecksum
	}
	return b, err
}

// cursor is the number up to which every frame is done, on disk: two slots that
// are written in turn, so that half a write leaves the other. It is not synced
// but at the end: an old one costs frames that are sent twice.
type cursor struct {
	f          disk.File // nil: not opened yet
	generation uint64    // of the last write
	seq        uint64
}

// load reads the slots. sound is false where there are bytes and none of them is a cursor.
func (c *cursor) load(b []byte) (sound bool) {
	sound = len(b) == 0
	for len(b) >= cursorSlotLen {
		s := b[:cursorSlotLen]
		b = b[cursorSlotLen:]
		if string(s[:4]) != cursorMagic || binary.LittleEndian.Uint32(s[20:]) != checksum(s[:20]) {
			continue
		}
		sound = true
		if g := binary.LittleEndian.Uint64(s[4:]); g > c.generation {
			c.generation, c.seq = g, binary.LittleEndian.Uint64(s[12:])
		}
	}
	return sound
}

// save writes seq to the slot with the older number, in the directory of a lane.
func (c *cursor) save(lane disk.Dir) (err error) {
	if c.f == nil {
		if c.f, err = lane.Open(cursorName, os.O_RDWR|os.O_CREATE); err != nil {
			return err
		}
	}
	var b [cursorSlotLen]byte
	copy(b[:], cursorMagic)
	binary.LittleEndian.PutUint64(b[4:], c.generation+1)
	binary.LittleEndian.PutUint64(b[12:], c.seq)
	binary.LittleEndian.PutUint32(b[20:], checksum(b[:20]))
	if _, err := c.f.WriteAt(b[:], int64(c.generation%2)*cursorSlotLen); err != nil {
		return err
	}
	c.generation++
	return nil
}
