package docker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

const (
	// frameHeader is [type, 0, 0, 0, length: 4 bytes, big-endian] (moby
	// api/pkg/stdcopy).
	frameHeader = 8
	// maxEntry limits an entry with its time. No engine comes near: 48 KiB.
	maxEntry = 1 << 20
	// fragmentSize is where the engine splits a line: so many bytes as the
	// container wrote them (moby daemon/logger/copier.go, defaultBufSize).
	fragmentSize = 16 << 10
	// stampMin and stampMax are the lengths of a time with the space behind it,
	// as the engine writes it: nine digits of fraction, Z or an offset (the
	// local driver gives times in the engine's zone).
	stampMin = len("2006-01-02T15:04:05.000000000Z ")
	stampMax = len("2006-01-02T15:04:05.000000000+07:00 ")
	// grabError begins the text of an error in mid-stream (moby WriteLogStream).
	grabError = "Error grabbing logs: "
)

// Frame is one entry as the engine has stored it: a line, or a fragment of one.
type Frame struct {
	// Time is when the engine got it, in Unix nanoseconds; all fragments of a
	// line have that of the first. 0: the engine does not know (it found an
	// entry without a time in its file).
	Time int64
	// Stderr: else stdout. A TTY's is all stdout.
	Stderr bool
	// Fragment: Text has no "\n" at its end. The line goes on in the next entry
	// of this stream if that has the same time; else this was its end: at the
	// container's exit, and always with the local driver of 20.10 (see cutText).
	Fragment bool
	// Text is without the time and with the "\n", if there. Valid until the
	// next call of Next.
	Text []byte
}

// cutFrame takes one frame off a multiplexed stream; see LogStream.cut.
func cutFrame(b []byte, _ bool) (f Frame, n int, ok bool, err error) {
	if len(b) < frameHeader {
		return Frame{}, 0, false, nil
	}
	kind, size := b[0], binary.BigEndian.Uint32(b[4:])
	if kind > 3 || b[1]|b[2]|b[3] != 0 || size > maxEntry {
		return Frame{}, 0, false, fmt.Errorf("%w: frame header % x", ErrProtocol, b[:frameHeader])
	}
	if len(b) < frameHeader+int(size) {
		return Frame{}, 0, false, nil
	}
	n = frameHeader + int(size)
	text := b[frameHeader:n:n]
	switch {
	case kind == 3:
		return Frame{}, n, false, &DaemonError{Text: strings.TrimSpace(string(text))}
	case size == 0: // no entry: even an empty line has a time
		return Frame{}, n, false, nil
	}
	at, k := stamp(text)
	if k == 0 {
		return Frame{}, 0, false, fmt.Errorf("%w: an entry without a time: %.40q", ErrProtocol, text)
	}
	text = text[k:]
	return Frame{Time: at, Stderr: kind == 2, Text: text, Fragment: !hasEnd(text)}, n, true, nil
}

// ttyCutter recovers the entries of a TTY's stream, which is nothing but times
// and texts.
type ttyCutter struct {
	startedAt int64        // the container's last start; 0: not known
	now       func() int64 // the time, in Unix nanoseconds

	scanned  int   // so many bytes of the entry's text have been seen to have no newline
	last     int64 // the time of the entry before
	fragment bool  // the entry before was a fragment
	rest     bool  // an entry of more than maxEntry goes on: no time comes before it
}

// cutText takes one entry off; see LogStream.cut. A time is looked for
//   - in the beginning and behind each newline: what stands there is the
//     engine's, whatever the container wrote;
//   - behind exactly 16 KiB of text, where the engine ends a fragment: the
//     fragment's own time, or one between that and now (where a driver gives
//     each fragment a time of its own, journald). But the json-file driver
//     stores U+FFFD, 3 bytes, for each byte that is no UTF-8 (of a rune cut at
//     the border, too): with some of them in it the fragment may end later, and
//     the text up to there is the container's. Here only the very time of the
//     fragment counts, which all fragments of a line share and a container
//     cannot guess;
//   - anywhere in two kinds of entries that may have no end: the last piece of a
//     split line (the local driver of 20.10 leaves its newline out; measured),
//     and any line of an earlier run than the present one (the last of a run is
//     often a prompt). It must lie between the entry's own time and now.
//
// So what can still be wrong:
//   - entries of these two kinds that contain such a time of their own, with
//     nine digits and the space, are split there (lines of an earlier run: not
//     when they are read during that run);
//   - with StartedAt not known the last line of a run and the first of the next
//     are one entry;
//   - the text of an engine's error in mid-line is part of the line;
//   - journald's fragments with U+FFFD in them are not found;
//   - an engine's clock that is ahead of ours leaves no time between.
//
// None of it loses text; but who resumes skips entries, not text.
func (c *ttyCutter) cutText(b []byte, eof bool) (f Frame, n int, ok bool, err error) {
	if len(b) == 0 {
		return Frame{}, 0, false, nil
	}
	at, k := c.last, 0
	if !c.rest {
		if at, k = stamp(b); k == 0 {
			return c.noStamp(b, eof)
		}
	}
	text := b[k:]
	end := bytes.IndexByte(text[c.scanned:], '\n')
	if end >= 0 {
		end += c.scanned + 1
		text = text[:end]
	}
	full := end < 0 && len(b) >= maxEntry
	if border := c.border(b[:k], at, text, end >= 0 || eof); border >= 0 {
		end, full = border, false
	}
	switch {
	case full, end < 0 && eof:
		end = len(text)
	case end < 0:
		c.scanned = len(text)
		return Frame{}, 0, false, nil
	}
	text = text[:end:end]
	f = Frame{Time: at, Text: text, Fragment: !hasEnd(text)}
	c.scanned, c.last, c.fragment, c.rest = 0, at, f.Fragment, full || c.rest && f.Fragment
	return f, k + end, true, nil
}

// noStamp says what it means that no time is in the beginning of b.
func (*ttyCutter) noStamp(b []byte, eof bool) (Frame, int, bool, error) {
	nl := bytes.IndexByte(b, '\n')
	switch {
	case bytes.HasPrefix(b, []byte(grabError)):
		if nl < 0 && !eof {
			return Frame{}, 0, false, nil
		}
		return Frame{}, len(b), false, &DaemonError{Text: strings.TrimSpace(string(b))}
	case nl < 0 && len(b) < stampMax: // half a time; at the end of the stream it is a cut one
		return Frame{}, 0, false, nil
	default:
		return Frame{}, 0, false, fmt.Errorf("%w: an entry without a time: %.40q", ErrProtocol, b)
	}
}

// border gives where the entry with the time at, written as own, ends without a
// newline; -1: nowhere in text. text is whole when it goes up to the newline or
// to the end of the stream. However the stream comes in pieces, the answer is the same.
func (c *ttyCutter) border(own []byte, at int64, text []byte, whole bool) int {
	if len(own) == 0 {
		return -1
	}
	replaced := []byte("\uFFFD")
	need := fragmentSize + stampMax // so much tells whether this is a fragment of 16 KiB
	if bytes.Contains(text[:min(len(text), fragmentSize+2)], replaced) {
		need += 2 * fragmentSize
	}
	lastPiece := c.fragment && at == c.last
	mayLackEnd := lastPiece || at < c.startedAt
	if len(text) > fragmentSize {
		if i := bytes.Index(text[fragmentSize:min(len(text), need)], own); i >= 0 {
			return fragmentSize + i
		}
		if t, k := stamp(text[fragmentSize:]); !mayLackEnd && k > 0 && t > at && t <= c.now() && !bytes.Contains(text[:fragmentSize], replaced) {
			return fragmentSize
		}
	}
	if !mayLackEnd || !whole && len(text) < need {
		return -1
	}
	const year = len("2006-01-02")
	i := year
	if !lastPiece { // only a last piece can be empty
		i++
	}
	for ; i < len(text); i++ {
		j := bytes.IndexByte(text[i:], 'T')
		if j < 0 {
			break
		}
		i += j
		if t, k := stamp(text[i-year:]); k >= stampMin && t > at && t <= c.now() {
			return i - year
		}
	}
	return -1
}

// stamp reads a time and the space behind it, RFC 3339 with up to nine digits of
// fraction, and gives the length of both; 0 when there is none. A time beyond what
// nanoseconds can say (year 1, for an entry without a time) is given as 0.
func stamp(b []byte) (at int64, n int) {
	const seconds = len("2006-01-02T15:04:05")
	if len(b) < seconds+2 || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, 0
	}
	good := true
	num := func(from, to int) int {
		v := 0
		for _, ch := range b[from:to] {
			good = good && '0' <= ch && ch <= '9'
			v = v*10 + int(ch-'0')
		}
		return v
	}
	year, month, day := num(0, 4), num(5, 7), num(8, 10)
	hour, minute, sec := num(11, 13), num(14, 16), num(17, 19)
	if !good || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || sec > 59 {
		return 0, 0
	}
	i, nano := seconds, 0
	if b[i] == '.' {
		first := i + 1
		i = first
		for scale := 100_000_000; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
			nano += scale * int(b[i]-'0') // of a tenth digit nothing counts
			scale /= 10
		}
		if i == first || i > first+9 {
			return 0, 0
		}
	}
	east := 0
	switch rest := b[i:]; {
	case len(rest) >= 2 && rest[0] == 'Z' && rest[1] == ' ':
		i += 2
	case len(rest) >= 7 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':' && rest[6] == ' ':
		h, m := num(i+1, i+3), num(i+4, i+6)
		if !good || h > 23 || m > 59 {
			return 0, 0
		}
		if east = h*3600 + m*60; rest[0] == '-' {
			east = -east
		}
		i += 7
	default:
		return 0, 0
	}
	t := time.Date(year, time.Month(month), day, hour, minute, sec, 0, time.UTC)
	if t.Day() != day { // 30 February
		return 0, 0
	}
	if u := t.Unix() - int64(east); u > math.MinInt64/1_000_000_000 && u < math.MaxInt64/1_000_000_000 {
		at = u*1_000_000_000 + int64(nano)
	}
	return at, i
}

// hasEnd reports whether text ends a line.
func hasEnd(text []byte) bool { return len(text) > 0 && text[len(text)-1] == '\n' }
