package positions

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// The journal's text, described in docs/formats/positions.md:
//
//	log_capturer positions v1
//	<crc> start <time>
//	<crc> log <key> <stdout> <stderr> <quoted note>
//	<crc> pos <key> <stdout> <stderr>
//	<crc> del <key>
const (
	headerPrefix = "log_capturer positions v"
	version      = "1"
	header       = headerPrefix + version + "\n"
)

// castagnoli is CRC-32C; the table is shared and read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// VersionError says that the journal was written by an agent whose format this
// one does not know.
type VersionError struct{ Version string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("positions journal has version %q, this agent knows version %s", e.Version, version)
}

// CorruptError says where the journal is damaged.
type CorruptError struct {
	Line   int   // counted from 1
	Offset int64 // of the line's first byte
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("positions journal is damaged at line %d (byte %d): %s", e.Line, e.Offset, e.Reason)
}

// contents is what a journal says.
type contents struct {
	firstStart time.Time // zero if the record is lost
	logs       map[string]*Saved
	// good is the length up to the last line end; torn bytes follow, the rest
	// of a write that did not complete.
	good, torn int64
	unknown    int           // records with the right checksum of a kind not known
	bad        int           // damaged places
	firstBad   *CorruptError // the first of them
}

func (c *contents) damage(line int, offset int64, reason string) {
	c.bad++
	if c.firstBad == nil {
		c.firstBad = &CorruptError{Line: line, Offset: offset, Reason: reason}
	}
}

// decode reads a journal. It uses every record that verifies; damage is
// reported in the contents. The only error is a *VersionError.
func decode(data []byte) (*contents, error) {
	c := &contents{logs: make(map[string]*Saved)}
	c.good = int64(bytes.LastIndexByte(data, '\n') + 1)
	c.torn = int64(len(data)) - c.good
	line, offset := 0, int64(0)
	for rest := data[:c.good]; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n')
		text := rest[:n]
		line++
		switch {
		case line == 1:
			if v, ok := bytes.CutPrefix(text, []byte(headerPrefix)); !ok {
				c.damage(line, offset, "the header is missing")
				if r, err := unseal(text); err == nil { // the header alone was cut out
					_ = c.apply(r) // what does not apply has been counted with the header
				}
			} else if string(v) != version {
				return nil, &VersionError{Version: strings.ToValidUTF8(string(v[:min(len(v), 32)]), "?")}
			}
		case n == 0: // the writer ends a torn line so
		default:
			record, err := unseal(text)
			if err == nil {
				err = c.apply(record)
			}
			if err != nil {
				c.damage(line, offset, err.Error())
			}
		}
		rest = rest[n+1:]
		offset += int64(n + 1)
	}
	if line == 0 {
		c.damage(1, 0, "the header is missing")
	} else if c.firstStart.IsZero() {
		c.damage(line, c.good, "the record of the first start is missing")
	}
	return c, nil
}

const crcDigits = 8

// seal ends the record that was appended to b behind start: it puts the
// checksum, for which open has left room, in front and a newline behind.
func seal(b []byte, start int) []byte {
	var sum [crcDigits / 2]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(b[start+crcDigits+1:], castagnoli))
	hex.Encode(b[start:start+crcDigits], sum[:])
	return append(b, '\n')
}

// open begins a record of a kind.
func open(b []byte, kind string) []byte {
	b = append(b, "00000000 "...)
	return append(b, kind...)
}

var errChecksum = errors.New("the checksum differs")

// unseal verifies a line without its newline and gives the record in it.
func unseal(line []byte) ([]byte, error) {
	if len(line) < crcDigits+1 || line[crcDigits] != ' ' {
		return nil, errors.New("not a record")
	}
	var sum [crcDigits / 2]byte
	if _, err := hex.Decode(sum[:], line[:crcDigits]); err != nil {
		return nil, errors.New("not a record")
	}
	record := line[crcDigits+1:]
	if crc32.Checksum(record, castagnoli) != binary.BigEndian.Uint32(sum[:]) {
		return nil, errChecksum
	}
	return record, nil
}

// apply adds a verified record to the contents. An error leaves them as they
// were.
func (c *contents) apply(record []byte) error {
	kind, rest, _ := strings.Cut(string(record), " ")
	switch kind {
	case "start":
		t, err := time.Parse(time.RFC3339Nano, rest)
		if err != nil || t.UTC().Format(time.RFC3339Nano) != rest {
			return fmt.Errorf("start: %q is not a time in UTC", rest)
		}
		if c.firstStart.IsZero() || t.Before(c.firstStart) {
			c.firstStart = t.UTC()
		}
		return nil
	case "log", "pos", "del":
	default:
		c.unknown++
		return nil
	}
	key, rest, err := cutKey(rest)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if kind == "del" {
		if rest != "" {
			return fmt.Errorf("del: %q behind the key", rest)
		}
		delete(c.logs, key)
		return nil
	}
	var pos [entry.NumStreams]entry.Position
	for s := range pos {
		var text string
		text, rest, _ = strings.Cut(rest, " ")
		if pos[s], err = entry.ParsePosition(text); err != nil {
			return fmt.Errorf("%s: %s: %w", kind, entry.Stream(s), err)
		}
	}
	if kind == "pos" {
		if rest != "" {
			return fmt.Errorf("pos: %q behind the positions", rest)
		}
		c.log(key).Positions = pos
		return nil
	}
	note, err := strconv.Unquote(rest)
	if err != nil || rest[0] != '"' {
		return fmt.Errorf("log: the note %q is not quoted", rest)
	}
	*c.log(key) = Saved{Positions: pos, Note: note}
	return nil
}

func (c *contents) log(key string) *Saved {
	l := c.logs[key]
	if l == nil {
		l = new(Saved)
		c.logs[key] = l
	}
	return l
}

// cutKey takes the key, plain or quoted, and one space off the front of s.
func cutKey(s string) (key, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		key, rest, _ = strings.Cut(s, " ")
		if !plain(key) {
			return "", "", fmt.Errorf("the key %q is not quoted", key)
		}
		return key, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", errors.New("the key's quotes do not close")
	}
	if key, err = strconv.Unquote(quoted); err != nil {
		return "", "", fmt.Errorf("the key %s: %w", quoted, err)
	}
	rest = s[len(quoted):]
	if rest != "" && rest[0] != ' ' {
		return "", "", errors.New("no space behind the key")
	}
	return key, strings.TrimPrefix(rest, " "), nil
}

// plainBytes are those that a key may have without quotes.
var plainBytes = func() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/@") {
		t[c] = true
	}
	return t
}()

// plain reports whether a key needs no quotes.
func plain(key string) bool {
	for i := range len(key) {
		if !plainBytes[key[i]] {
			return false
		}
	}
	return key != ""
}

func appendKey(b []byte, key string) []byte {
	if plain(key) {
		return append(b, key...)
	}
	return strconv.AppendQuote(b, key)
}

func appendStart(b []byte, t time.Time) []byte {
	at := len(b)
	b = open(b, "start ")
	return seal(t.UTC().AppendFormat(b, time.RFC3339Nano), at)
}

// appendLog appends all that is kept of a log, in one record: half of it must
// not be believed.
func appendLog(b []byte, key string, out, errs entry.Position, note string) []byte {
	at := len(b)
	b = append(appendPositions(open(b, "log "), key, out, errs), ' ')
	return seal(strconv.AppendQuote(b, note), at)
}

func appendPos(b []byte, key string, out, errs entry.Position) []byte {
	at := len(b)
	return seal(appendPositions(open(b, "pos "), key, out, errs), at)
}

func appendPositions(b []byte, key string, out, errs entry.Position) []byte {
	b = append(appendKey(b, key), ' ')
	b = append(out.AppendText(b), ' ')
	return errs.AppendText(b)
}

func appendDel(b []byte, key string) []byte {
	at := len(b)
	return seal(appendKey(open(b, "del "), key), at)
}
