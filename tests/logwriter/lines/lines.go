// Package lines makes the lines that tests/logwriter writes, so that a test can
// make the same again and compare: everything in a line follows from the
// arguments. It imports nothing but the standard library, being linked into the
// writer.
package lines

import (
	"fmt"
	"strconv"
	"strings"
)

// The kinds of lines. All but JSON begin with the prefix, a space and the
// number.
const (
	Plain     = "plain"
	JSON      = "json"      // an object; the value of its first key is prefix and number
	Long      = "long"      // at least LongBytes long
	Multibyte = "multibyte" // runes of two, three and four bytes
	NoNewline = "nonl"      // as plain; the writer leaves the last line without its end
)

// Kinds gives all kinds.
func Kinds() []string { return []string{Plain, JSON, Long, Multibyte, NoNewline} }

// LongBytes is the length of a line of kind Long: three fragments of Docker's
// 16 KiB.
const LongBytes = 40_000

// Line gives line number n without its end, size bytes long: shorter only by
// less than a rune, longer only where prefix and number need more.
func Line(kind, prefix string, n, size int) string {
	head := prefix + " " + strconv.Itoa(n)
	switch kind {
	case JSON:
		const tail = `"}`
		return fill(fmt.Sprintf(`{"line":%q,"level":"info","msg":"a \"quoted\" <text> & a\ttab`, head), "x", size-len(tail)) + tail
	case Long:
		return fill(head, "0123456789abcdef", max(size, LongBytes))
	case Multibyte:
		// Nine bytes in turn: the border of a 16 KiB fragment falls into a rune
		// for most lengths of the head.
		return fill(head+" äöü€漢字😀", "é漢😀", size)
	default:
		return fill(head, "x", size)
	}
}

// fill appends a space and repetitions of pattern up to size bytes, and never
// half a rune.
func fill(s, pattern string, size int) string {
	room := size - len(s) - 1
	if room <= 0 {
		return s
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(s)
	b.WriteByte(' ')
	for ; room >= len(pattern); room -= len(pattern) {
		b.WriteString(pattern)
	}
	for _, r := range pattern {
		if room -= len(string(r)); room < 0 {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
