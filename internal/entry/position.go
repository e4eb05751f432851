package entry

import (
	"fmt"
	"strconv"
)

// FileID tells one file of a log from every other, across renames, reuse of
// inode numbers and restarts of the agent.
type FileID struct {
	// Inode is the inode number: for people who read the positions file, and
	// never enough alone (ext4 gives a freed number back at once).
	Inode uint64
	// Handle is a hash of the kernel's file handle (name_to_handle_at(2):
	// inode and generation), or of inode and birth time where the file system
	// has no handles. 0: unknown, as for the content of an archive.
	Handle uint64
	// Print is a hash of the file's first line, which covers the first
	// entry's time. It survives compression. 0: the file has no complete line
	// yet.
	Print uint64
}

// Position says how far one stream of one log has been delivered. The zero
// value means that nothing has been; so does one with nothing but a File, which is
// where reading began.
//
// It means the same on both roads: a file is resumed by File and Offset, the
// Docker API by Time and Ordinal.
type Position struct {
	// File is the file that Offset is in.
	File FileID
	// Offset is the number of bytes of the file (uncompressed) before the
	// first that is not covered.
	Offset int64
	// Time is that of the last entry covered, in nanoseconds since the Unix
	// epoch; 0 when no entry of the stream has been covered.
	Time int64
	// Ordinal counts the stream's entries of exactly that Time that have been
	// covered, the last included. Fragments of one line count one each.
	Ordinal uint32
}

// IsZero reports whether nothing has been delivered.
func (p Position) IsZero() bool { return p == Position{} }

// AppendText appends the position's text form,
// "inode:handle:print:offset:time:ordinal" (numbers decimal, the two hashes
// hexadecimal), or "-" for the zero position. It contains no space.
func (p Position) AppendText(b []byte) []byte {
	if p.IsZero() {
		return append(b, '-')
	}
	b = strconv.AppendUint(b, p.File.Inode, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, p.File.Handle, 16)
	b = append(b, ':')
	b = strconv.AppendUint(b, p.File.Print, 16)
	b = append(b, ':')
	b = strconv.AppendInt(b, p.Offset, 10)
	b = append(b, ':')
	b = strconv.AppendInt(b, p.Time, 10)
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(p.Ordinal), 10)
}

// String is the text form of AppendText.
func (p Position) String() string { return string(p.AppendText(nil)) }

// ParsePosition reads what AppendText wrote.
func ParsePosition(s string) (Position, error) {
	var p Position
	if s == "-" {
		return p, nil
	}
	var fields [6]string
	n := 0
	for rest, more := s, true; more; n++ {
		if n == len(fields) {
			return Position{}, fmt.Errorf("position %q: more than %d fields", s, len(fields))
		}
		fields[n], rest, more = cutColon(rest)
	}
	if n != len(fields) {
		return Position{}, fmt.Errorf("position %q: %d fields instead of %d", s, n, len(fields))
	}
	var err error
	num := func(i, base, bits int) uint64 {
		v, e := strconv.ParseUint(fields[i], base, bits)
		if e != nil && err == nil {
			err = fmt.Errorf("position %q: field %d: %w", s, i+1, e)
		}
		return v
	}
	p.File.Inode = num(0, 10, 64)
	p.File.Handle = num(1, 16, 64)
	p.File.Print = num(2, 16, 64)
	p.Offset = int64(num(3, 10, 63))
	t, e := strconv.ParseInt(fields[4], 10, 64)
	if e != nil && err == nil {
		err = fmt.Errorf("position %q: field 5: %w", s, e)
	}
	p.Time = t
	p.Ordinal = uint32(num(5, 10, 32))
	if err != nil {
		return Position{}, err
	}
	return p, nil
}

func cutColon(s string) (field, rest string, more bool) {
	for i := range len(s) {
		if s[i] == ':' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// Span names some lines of one stream of one log that are on their way. Whoever
// has delivered all of them acknowledges the span; positions advance over the
// contiguous prefix of acknowledged spans.
type Span struct {
	// Log is the number under which the log is known to its positions.
	Log uint32
	// Stream is the stream of the log.
	Stream Stream
	// Seq numbers the spans of one stream of one log from 1, without gaps.
	Seq uint64
}
