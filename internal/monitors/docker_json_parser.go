package monitors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// What ParseDockerJSONLogLine returns for a line that is no entry. Both are
// sentinels: a disk full of broken lines costs no allocation either.
var (
	// errJSONMalformed: the bytes in Raw are not an entry of Docker's json-file
	// driver. Raw is empty when the line was.
	errJSONMalformed = errors.New("not an entry of Docker's json-file log driver")
	// errJSONNULs: the line held nothing but NUL bytes, as a power loss or a
	// truncation under Docker's open descriptor leaves behind. There is nothing
	// to ship; DockerJSONLogLine.NULs says how many there were.
	errJSONNULs = errors.New("nothing but NUL bytes where a log entry was expected")
)

// DockerJSONLogLine is one decoded entry of Docker's json-file driver, or what
// could be saved of a line that is none.
//
// The zero value is ready. It is meant to be used for one call after the other:
// it keeps what the next entry probably has in common with the last (the minute
// of the time, the attrs), so one per reading goroutine is best. It belongs to
// one goroutine at a time.
type DockerJSONLogLine struct {
	// LogEntry is the entry. Message is the end of the arena that Parse gave
	// back, without the final "\n" (a "\r" before it is still there: only who
	// joins fragments knows the end of a line). Stream is Stdout unless the
	// entry says "stderr". Time is 0 when the entry has no time or none that
	// fits into 64 bits of nanoseconds: the caller takes that of the entry
	// before.
	entry.LogEntry
	// Fragment is set when the log had no final "\n": a piece of a line that
	// Docker split at 16 KiB, or the last words before an exit. An entry with
	// absent or empty log is an empty fragment.
	Fragment bool
	// Attrs is the raw JSON object of "attrs", a slice of data; nil if absent.
	Attrs []byte
	// Raw is, with an error, the line as it stands without its "\n" and without
	// NUL bytes at either end: a slice of data, not necessarily valid UTF-8.
	Raw []byte
	// NULs is the number of NUL bytes that the call passed over.
	NULs int

	// The first 16 bytes of the last time, "2025-11-07T12:00", and the Unix
	// nanoseconds at which that minute began. Zero matches no text.
	minuteHi, minuteLo uint64
	minuteNs           int64
	// A copy of the last valid attrs. A container writes the same in each entry.
	lastAttrs []byte
}

const (
	// jsonEntryStart begins each entry that has a log. Docker escapes quotes in
	// text, so within an entry it can only stand in attrs, if a container label
	// of the name "log" sorts first there.
	jsonEntryStart = `{"log":"`

	// jsonMinRoom is what the fast path wants free in the arena to go on, in
	// bytes: it stores two words and up to three bytes of escapes, and lets
	// the next store overwrite the surplus.
	jsonMinRoom = 24

	// jsonText takes texts in blocks of jsonBlock bytes, at most jsonMaxBlocks at once, so
	// that not much more than the text is looked at. Both are for speed only.
	jsonBlock     = 64
	jsonMaxBlocks = 8

	// jsonMaxDepth bounds nesting inside attrs and unknown keys. Docker's attrs
	// are one flat object.
	jsonMaxDepth = 64

	// jsonMaxResync bounds how many places in a broken line are tried as the
	// start of a good entry, so that no line costs quadratic time.
	jsonMaxResync = 16

	// jsonHole is the shortest run of NUL bytes inside a broken line that is
	// taken for a hole in the file, at which the line is cut: a disk sector.
	jsonHole = 512
)

// ParseDockerJSONLogLine decodes the entry at the start of data and appends its
// message to arena. It returns the number of bytes consumed and the arena,
// longer by exactly l.Message; with an error it is as long as before. The
// unused capacity of arena is scratch. Messages of earlier calls stay readable
// when the arena grows, but only those at the same offsets of the new arena are
// part of it.
//
// data begins at the start of a line and should hold at least one '\n': what
// comes after the first is not looked at. Without any (the rest of a file that
// no one will finish) all of data is the line. Some progress is made by every
// call unless data is empty.
//
// Keys may come in any order, unknown ones are skipped, null is absent, the last
// of equal ones wins, and strings decode as in encoding/json: unpaired
// surrogates and invalid UTF-8 become U+FFFD. Key names must match exactly. An
// object is an entry if it has a log, a stream or a valid time.
//
// A line that is none gives an error, Raw, and usually the whole line as
// consumed. These are the exceptions, all left by full disks and power losses:
//   - an entry was cut and good ones are glued on, {"log":"xx{"log":"a\n",...}:
//     Raw ends before the last one that is good, which the next call parses;
//   - a good entry lost its newline, and another or NUL bytes follow: it is
//     returned without error, and what follows is left to the next call;
//   - NUL bytes around a line, good or bad, are dropped and counted in NULs; a
//     line of nothing else is errJSONNULs with empty Raw. At a hole of a disk
//     sector or more inside a bad line the line is cut in two.
func ParseDockerJSONLogLine(l *DockerJSONLogLine, data, arena []byte) (n int, newArena []byte, err error) {
	n, newArena, ok := jsonFastLine(l, data, arena)
	if ok {
		return n, newArena, nil
	}
	return jsonCarefulLine(l, data, newArena)
}

// jsonSpecial marks (in the top bits of bytes) the bytes of w that cannot be
// copied from a JSON string as they are: quote, backslash and controls below
// 0x20. The lowest mark is exact, marks above it may be false (borrows).
func jsonSpecial(w uint64) uint64 {
	const ones = 0x0101010101010101
	// x^2 < 0x21 is true for 0x00-0x1f and for the quote (0x22), and not for
	// the space (0x20). x^'\\' < 1 is the backslash.
	return ((w ^ 0x02*ones - 0x21*ones) | (w ^ '\\'*ones - ones)) &^ w & (0x80 * ones)
}

// jsonSimpleEscapes gives the byte that a backslash and the index stand for, 0
// where that is not a single byte. Read only; jsonText reads it, too.
var jsonSimpleEscapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// jsonFastLine parses an entry in exactly the form in which Docker writes it:
// log, stream, perhaps attrs, time in UTC, no spaces, newline. It goes over the
// bytes once, where the processor can (jsonVectors) over 64 of the text at a time, else
// and for what jsonText leaves over 16. At anything else it gives up, leaves the fields
// of l undefined and returns the arena at its old length (it may have been moved).
func jsonFastLine(l *DockerJSONLogLine, data, arena []byte) (n int, newArena []byte, ok bool) {
	if len(data) < 64 || string(data[:8]) != jsonEntryStart {
		return 0, arena, false
	}
	start := len(arena)
	dst := arena[:cap(arena)]
	i, j := len(jsonEntryStart), start // next byte to read, to write
	high := uint64(0)                  // the top bit of some byte is set: not all of the text is ASCII
	fragment := true

text:
	for {
		for jsonVectors && len(data)-i > jsonBlock {
			most := min((len(data)-i)/jsonBlock, jsonMaxBlocks) * jsonBlock
			if j+most > len(dst) {
				dst = jsonGrow(dst, j, most)
			}
			read, wrote, some := jsonText(&dst[j], &data[i], most/jsonBlock)
			i, j = i+read, j+wrote
			if some != 0 {
				high = 0x8080808080808080
			}
			if read < most-1 { // it met something
				break
			}
		}
		// Two words a round; each is stored whole, then cut back at the first
		// special byte. A valid entry has more than 16 bytes after its text.
		for {
			if i+16 > len(data) {
				return 0, dst[:start], false
			}
			if j+jsonMinRoom > len(dst) {
				dst = jsonGrow(dst, j, 1024)
			}
			s, d := data[i:i+16], dst[j:j+jsonMinRoom]
			w := binary.LittleEndian.Uint64(s)
			binary.LittleEndian.PutUint64(d, w)
			high |= w
			if m := jsonSpecial(w); m != 0 {
				k := bits.TrailingZeros64(m) >> 3
				i, j = i+k, j+k
				break
			}
			w = binary.LittleEndian.Uint64(s[8:])
			binary.LittleEndian.PutUint64(d[8:], w)
			high |= w
			if m := jsonSpecial(w); m != 0 {
				k := bits.TrailingZeros64(m)>>3 + 8
				i, j = i+k, j+k
				break
			}
			i, j = i+16, j+16
		}
		// At most 15 bytes on: i < len(data), j < len(dst).
		switch data[i] {
		case '"':
			if j > start && dst[j-1] == '\n' { // written \u000a, which Docker does not
				fragment = false
				j--
			}
			break text
		case '\\':
		default: // a raw control byte, the end of the line perhaps
			return 0, dst[:start], false
		}
		if len(data)-i < 16 {
			return 0, dst[:start], false
		}
		e := data[i : i+16]
		if c := jsonSimpleEscapes[e[1]]; c != 0 {
			if c == '\n' && e[2] == '"' {
				fragment = false
				i += 2
				break text
			}
			// What costs is the way from one escape to the next, about 7 ns.
			// Text that is JSON itself is full of ":" and ",": one step each
			// makes it a fifth faster.
			switch binary.LittleEndian.Uint32(e[1:]) {
			case '"' | ':'<<8 | '\\'<<16 | '"'<<24, '"' | ','<<8 | '\\'<<16 | '"'<<24:
				d := dst[j : j+3]
				d[0], d[1], d[2] = '"', e[2], '"'
				i, j = i+5, j+3
				continue
			}
			dst[j] = c
			i, j = i+2, j+1
			continue
		}
		r, size := jsonEscape(e)
		if size == 0 {
			return 0, dst[:start], false
		}
		if r < utf8.RuneSelf {
			dst[j] = byte(r)
			i, j = i+size, j+1
			continue
		}
		// Never longer than what it was written as, but there may be no more
		// than one byte of room here.
		dst = utf8.AppendRune(dst[:j], r)
		i, j = i+size, len(dst)
		dst = dst[:cap(dst)]
	}

	// i is at the quote that ends the text.
	newArena = dst[:start]
	s := data[i:]
	if len(s) < 28 || string(s[:8]) != `","strea` {
		return 0, newArena, false
	}
	stream := entry.Stdout
	if string(s[8:18]) != `m":"stdout` {
		if string(s[8:18]) != `m":"stderr` {
			return 0, newArena, false
		}
		stream = entry.Stderr
	}
	l.Attrs = nil
	if string(s[18:28]) == `","time":"` {
		i += 28
	} else {
		if string(s[18:28]) != `","attrs":` {
			return 0, newArena, false
		}
		size := l.jsonAttrs(s[28:])
		if size == 0 || len(s) < 28+size+9 || string(s[28+size:28+size+9]) != `,"time":"` {
			return 0, newArena, false
		}
		l.Attrs = s[28 : 28+size : 28+size]
		i += 28 + size + 9
	}

	t := data[i:]
	ns, size := l.rfc3339(t)
	if size == 0 || len(t) < size+3 || string(t[size:size+3]) != "\"}\n" {
		return 0, newArena, false
	}
	if high&0x8080808080808080 != 0 && !jsonValidUTF8(dst[start:j]) {
		return 0, newArena, false
	}
	l.Time = ns
	l.Stream = stream
	l.Message = dst[start:j:j]
	l.Fragment = fragment
	l.Raw = nil
	l.NULs = 0
	return i + size + 3, dst[:j], true
}

// jsonValidUTF8 is utf8.Valid.
func jsonValidUTF8(text []byte) bool {
	if jsonVectors && len(text) > 0 {
		return jsonUTF8(&text[0], len(text))
	}
	return utf8.Valid(text)
}

// jsonGrow makes room for as many bytes behind the first n of buf and returns it at its
// full capacity. Growth is proportional, so a batch's arena soon stops growing.
//
//go:noinline
func jsonGrow(buf []byte, n, room int) []byte {
	buf = slices.Grow(buf[:n], room)
	return buf[:cap(buf)]
}

// jsonAttrs gives the length of the JSON object at the start of s, 0 if there is
// none.
func (l *DockerJSONLogLine) jsonAttrs(s []byte) int {
	// A JSON object says itself where it ends: if s begins with the bytes of a
	// valid one, then that is the one.
	if n := len(l.lastAttrs); n > 0 && len(s) >= n && string(s[:n]) == string(l.lastAttrs) {
		return n
	}
	if len(s) == 0 || s[0] != '{' {
		return 0
	}
	n, ok := jsonSkipValue(s, 0)
	// Spaces may be anything, but a newline ends the entry.
	if !ok || bytes.IndexByte(s[:n], '\n') >= 0 {
		return 0
	}
	l.lastAttrs = append(l.lastAttrs[:0], s[:n]...)
	return n
}

// rfc3339 reads a time as Docker writes it, "2025-11-07T12:00:00.123456789Z"
// with 0-9 digits after the point, at the start of s, where at least 8 bytes
// follow the first digit of the fraction. It returns Unix nanoseconds and the
// length of the text, 0 if it is anything else.
func (l *DockerJSONLogLine) rfc3339(s []byte) (ns int64, size int) {
	if len(s) < 28 {
		return 0, 0
	}
	hi, lo := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])
	if hi != l.minuteHi || lo != l.minuteLo {
		ns, ok := rfc3339Minute(s[:16])
		if !ok {
			return 0, 0
		}
		l.minuteHi, l.minuteLo, l.minuteNs = hi, lo, ns
	}
	tens, units := s[17]-'0', s[18]-'0'
	if s[16] != ':' || tens > 5 || units > 9 {
		return 0, 0
	}
	ns = l.minuteNs + (int64(tens)*10+int64(units))*1e9
	if s[19] != '.' {
		if s[19] != 'Z' {
			return 0, 0
		}
		return ns, 20
	}
	// Up to eight digits at once: those that are missing become '0', and then
	// pairs, fours and all eight are multiplied together.
	w := binary.LittleEndian.Uint64(s[20:])
	const zeros = 0x3030303030303030
	x := w ^ zeros // digits become 0-9
	other := (x + 0x7676767676767676) | x
	digits := bits.TrailingZeros64(other&0x8080808080808080) >> 3 // 8 if all are
	if digits == 0 {
		return 0, 0
	}
	x &= ^uint64(0) >> (64 - 8*digits)
	x = x*10 + x>>8
	x = (x&0x000000ff000000ff*(100+1000000<<32) + x>>16&0x000000ff000000ff*(1+10000<<32)) >> 32
	x *= 10
	if digits == 8 && len(s) > 28 {
		if d := s[28] - '0'; d <= 9 {
			x += uint64(d)
			digits = 9
		}
	}
	size = 20 + digits
	if len(s) <= size || s[size] != 'Z' {
		return 0, 0
	}
	return ns + int64(x), size + 1
}

// rfc3339Minute reads "2025-11-07T12:00" into the Unix nanoseconds at which
// that minute begins. It takes the years 1970 to 2261, all of which fit.
func rfc3339Minute(s []byte) (ns int64, ok bool) {
	const form = "0000-00-00T00:00"
	if len(s) != len(form) {
		return 0, false
	}
	var n [5]int // year, month, day, hour, minute
	field := 0
	for i := range len(form) {
		switch d := s[i] - '0'; {
		case form[i] != '0':
			if s[i] != form[i] {
				return 0, false
			}
			field++
		case d > 9:
			return 0, false
		default:
			n[field] = n[field]*10 + int(d)
		}
	}
	year, month, day, hour, minute := n[0], n[1], n[2], n[3], n[4]
	if year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, 0, 0, time.UTC)
	if t.Day() != day { // time.Date took 30 February for 2 March
		return 0, false
	}
	return t.UnixNano(), true
}

// rfc3339Any is rfc3339 for every text that time.Parse takes and that fits into
// 64 bits of nanoseconds; s is the whole text.
func (l *DockerJSONLogLine) rfc3339Any(s []byte) (ns int64, ok bool) {
	var padded [64]byte // for the words that rfc3339 loads; no time needs as much
	if len(s) > len(padded) {
		return 0, false
	}
	copy(padded[:], s)
	if ns, size := l.rfc3339(padded[:]); size > 0 && size == len(s) {
		return ns, true
	}
	// Not UTC, not of our days, or no time at all. Docker writes no such thing,
	// so the string may cost an allocation.
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil || t.Before(time.Unix(0, -1<<63)) || t.After(time.Unix(0, 1<<63-1)) {
		return 0, false
	}
	return t.UnixNano(), true
}

// jsonCarefulLine parses any line, however it is written or broken.
func jsonCarefulLine(l *DockerJSONLogLine, data, arena []byte) (n int, newArena []byte, err error) {
	line, n := data, len(data)
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		line, n = data[:i], i+1
	}
	lead := jsonLeadingNULs(line)
	body := line[lead:]
	if len(body) == 0 {
		l.jsonFail(body, lead)
		if lead == 0 {
			return n, arena, errJSONMalformed
		}
		return n, arena, errJSONNULs
	}

	end, newArena, o := l.jsonObject(body, arena)
	if o.isEntry() {
		rest := body[end:]
		if nuls := jsonLeadingNULs(rest); nuls == len(rest) {
			l.NULs = lead + nuls
			return n, newArena, nil
		}
		if jsonMayFollow(rest) {
			l.NULs = lead
			return lead + end, newArena, nil
		}
	}

	arena = newArena[:len(arena)]
	raw := body
	if i := jsonFindHole(raw); i > 0 {
		raw, n = raw[:i], lead+i
	}
	cut, arena := l.jsonResync(raw, arena)
	if cut > 0 {
		raw, n = raw[:cut], lead+cut
	}
	trail := 0
	for raw[len(raw)-1-trail] == 0 { // the first byte is not
		trail++
	}
	l.jsonFail(raw[:len(raw)-trail], lead+trail)
	return n, arena, errJSONMalformed
}

// jsonFail makes l say that there is no entry.
func (l *DockerJSONLogLine) jsonFail(raw []byte, nuls int) {
	l.LogEntry = entry.LogEntry{}
	l.Fragment, l.Attrs = false, nil
	l.Raw, l.NULs = raw[:len(raw):len(raw)], nuls
}

func jsonLeadingNULs(s []byte) int {
	n := 0
	for n < len(s) && s[n] == 0 {
		n++
	}
	return n
}

// jsonFindHole gives the index of the first run of jsonHole NUL bytes in s, or
// -1.
func jsonFindHole(s []byte) int {
	for i := 0; ; {
		k := bytes.IndexByte(s[i:], 0)
		if k < 0 {
			return -1
		}
		i += k
		nuls := jsonLeadingNULs(s[i:])
		if nuls >= jsonHole {
			return i
		}
		i += nuls
	}
}

// jsonMayFollow reports whether rest is what may stand behind a good entry that
// lost its newline: nothing, a hole or another entry.
func jsonMayFollow(rest []byte) bool {
	return len(rest) == 0 || rest[0] == 0 || bytes.HasPrefix(rest, []byte(jsonEntryStart))
}

// jsonResync finds the last place behind the start of the broken line s at which
// a good entry begins; 0 if there is none. What it parses stays scratch.
func (l *DockerJSONLogLine) jsonResync(s, arena []byte) (int, []byte) {
	before := s
	for range jsonMaxResync {
		i := bytes.LastIndex(before, []byte(jsonEntryStart))
		if i <= 0 {
			break
		}
		end, grown, o := l.jsonObject(s[i:], arena)
		arena = grown[:len(arena)]
		// Docker writes no entry without time; attrs that begin with a label
		// "log" have none.
		if o.log && o.time && jsonMayFollow(s[i+end:]) {
			return i, arena
		}
		before = s[:i]
	}
	return 0, arena
}

// jsonFound says what an object had that makes an entry of it.
type jsonFound struct{ log, stream, time bool }

func (o jsonFound) isEntry() bool { return o.log || o.stream || o.time }

// jsonObject decodes the object at the start of s into l and appends its log to
// arena. It returns the index behind the object and the spaces after it. If it
// is broken, or a known key has a value of another type, nothing is found.
func (l *DockerJSONLogLine) jsonObject(s, arena []byte) (end int, newArena []byte, found jsonFound) {
	start := len(arena)
	l.LogEntry = entry.LogEntry{}
	l.Fragment, l.Attrs, l.Raw, l.NULs = true, nil, nil, 0

	i := jsonSkipSpace(s, 0)
	if i == len(s) || s[i] != '{' {
		return 0, arena, jsonFound{}
	}
	i = jsonSkipSpace(s, i+1)
	if i < len(s) && s[i] == '}' {
		return jsonSkipSpace(s, i+1), arena, jsonFound{}
	}
	for {
		// The key is decoded into scratch behind the message.
		mark := len(arena)
		var ok bool
		if arena, i, ok = jsonAppendString(arena, s, i); !ok {
			return 0, arena[:start], jsonFound{}
		}
		key := arena[mark:]
		arena = arena[:mark]
		i = jsonSkipSpace(s, i)
		if i == len(s) || s[i] != ':' {
			return 0, arena[:start], jsonFound{}
		}
		i = jsonSkipSpace(s, i+1)

		value := i
		null := len(s)-i >= 4 && string(s[i:i+4]) == "null"
		switch string(key) {
		case "log":
			arena = arena[:start]
			found.log = !null
			if ok = null; !null {
				arena, i, ok = jsonAppendString(arena, s, i)
			}
		case "stream":
			l.Stream = entry.Stdout // also for a name that Docker does not have
			found.stream = !null
			if ok = null; !null {
				mark := len(arena)
				arena, i, ok = jsonAppendString(arena, s, i)
				if string(arena[mark:]) == "stderr" {
					l.Stream = entry.Stderr
				}
				arena = arena[:mark]
			}
		case "time":
			l.Time = 0
			found.time = false
			if ok = null; !null {
				mark := len(arena)
				arena, i, ok = jsonAppendString(arena, s, i)
				l.Time, found.time = l.rfc3339Any(arena[mark:])
				arena = arena[:mark]
			}
		case "attrs":
			l.Attrs = nil // what is no object is of no use to anyone
			if i, ok = jsonSkipValue(s, i); ok && s[value] == '{' {
				l.Attrs = s[value:i:i]
			}
			null = false
		default:
			i, ok = jsonSkipValue(s, i)
			null = false
		}
		if !ok {
			return 0, arena[:start], jsonFound{}
		}
		if null {
			i += len("null")
		}

		i = jsonSkipSpace(s, i)
		if i == len(s) {
			return 0, arena[:start], jsonFound{}
		}
		switch s[i] {
		case ',':
			i = jsonSkipSpace(s, i+1)
			continue
		case '}':
			if n := len(arena); n > start && arena[n-1] == '\n' {
				l.Fragment = false
				arena = arena[:n-1]
			}
			l.Message = arena[start:len(arena):len(arena)]
			return jsonSkipSpace(s, i+1), arena, found
		}
		return 0, arena[:start], jsonFound{}
	}
}

// jsonSkipSpace gives the index of the first byte of s at or after i that is not
// JSON's white space.
func jsonSkipSpace(s []byte, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n') {
		i++
	}
	return i
}

// jsonAppendString decodes the string that begins (with its quote) at s[i], and
// appends it to dst. next is the index behind the closing quote.
func jsonAppendString(dst, s []byte, i int) (newDst []byte, next int, ok bool) {
	if i >= len(s) || s[i] != '"' {
		return dst, i, false
	}
	i++
	run := i // where what is not yet copied begins
	for i < len(s) {
		switch c := s[i]; {
		case c == '"':
			return append(dst, s[run:i]...), i + 1, true
		case c == '\\':
			dst = append(dst, s[run:i]...)
			r, size := jsonEscape(s[i:])
			if size == 0 {
				return dst, i, false
			}
			dst = utf8.AppendRune(dst, r)
			i += size
			run = i
		case c < ' ':
			return dst, i, false
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[run:i]...)
				dst = utf8.AppendRune(dst, utf8.RuneError)
				run = i + 1
			}
			i += size
		}
	}
	return dst, i, false
}

// jsonEscape decodes the escape sequence at the start of s (two of them if they
// are a surrogate pair). size is its length, 0 if it is not valid. An unpaired
// surrogate is U+FFFD.
func jsonEscape(s []byte) (r rune, size int) {
	if len(s) < 2 {
		return 0, 0
	}
	if s[1] != 'u' {
		if c := jsonSimpleEscapes[s[1]]; c != 0 {
			return rune(c), 2
		}
		return 0, 0
	}
	r, ok := jsonHex4(s)
	if !ok {
		return 0, 0
	}
	if r < 0xd800 || r > 0xdfff {
		return r, 6
	}
	if r < 0xdc00 && len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if low, ok := jsonHex4(s[6:]); ok && low >= 0xdc00 && low <= 0xdfff {
			return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), 12
		}
	}
	return utf8.RuneError, 6
}

// jsonHex4 reads the four hexadecimal digits of the \u escape at the start of s.
func jsonHex4(s []byte) (rune, bool) {
	if len(s) < 6 {
		return 0, false
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' <= 5:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// jsonSkipString gives the index behind the string that begins at s[i].
func jsonSkipString(s []byte, i int) (next int, ok bool) {
	if i >= len(s) || s[i] != '"' {
		return i, false
	}
	i++
	for i < len(s) {
		switch c := s[i]; {
		case c == '"':
			return i + 1, true
		case c == '\\':
			_, size := jsonEscape(s[i:])
			if size == 0 {
				return i, false
			}
			i += size
		case c < ' ':
			return i, false
		default:
			i++
		}
	}
	return i, false
}

// jsonSkipKey gives the index behind the key and the colon that begin at s[i],
// perhaps after spaces.
func jsonSkipKey(s []byte, i int) (next int, ok bool) {
	if i, ok = jsonSkipString(s, jsonSkipSpace(s, i)); !ok {
		return i, false
	}
	i = jsonSkipSpace(s, i)
	if i == len(s) || s[i] != ':' {
		return i, false
	}
	return i + 1, true
}

// jsonSkipValue gives the index behind the JSON value that begins at s[i], and
// whether it is one, nested at most jsonMaxDepth deep.
func jsonSkipValue(s []byte, i int) (next int, ok bool) {
	depth := 0
	objects := uint64(0) // a bit for each open level, the innermost lowest: is it an object?
	for {
		i = jsonSkipSpace(s, i)
		if i >= len(s) {
			return i, false
		}
		switch c := s[i]; c {
		case '{', '[':
			if depth == jsonMaxDepth {
				return i, false
			}
			i = jsonSkipSpace(s, i+1)
			if i < len(s) && s[i] == c+2 { // in ASCII } is {+2 and ] is [+2
				i++
				break
			}
			depth++
			objects <<= 1
			if c == '{' {
				objects |= 1
				if i, ok = jsonSkipKey(s, i); !ok {
					return i, false
				}
			}
			continue
		case '"':
			if i, ok = jsonSkipString(s, i); !ok {
				return i, false
			}
		default:
			if i, ok = jsonSkipScalar(s, i); !ok {
				return i, false
			}
		}
		// Behind a value: out of all levels that end here, then on to the next.
		for {
			if depth == 0 {
				return i, true
			}
			i = jsonSkipSpace(s, i)
			if i == len(s) {
				return i, false
			}
			if s[i] == ',' {
				i++
				break
			}
			closing := byte(']')
			if objects&1 != 0 {
				closing = '}'
			}
			if s[i] != closing {
				return i, false
			}
			i++
			depth--
			objects >>= 1
		}
		if objects&1 != 0 {
			if i, ok = jsonSkipKey(s, i); !ok {
				return i, false
			}
		}
	}
}

// jsonSkipScalar gives the index behind the number or literal that begins at
// s[i].
func jsonSkipScalar(s []byte, i int) (next int, ok bool) {
	for _, literal := range [...]string{"true", "false", "null"} {
		if n := len(literal); len(s)-i >= n && string(s[i:i+n]) == literal {
			return i + n, true
		}
	}
	digits := func() bool {
		from := i
		for i < len(s) && s[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return i, false
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return i, false
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return i, false
		}
	}
	return i, true
}
