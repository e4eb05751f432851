package entry

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Label is one name and value.
type Label struct{ Name, Value string }

// MaxLabelValueBytes is the longest label value that is kept: Loki's default
// max_label_value_length. A longer one is cut at a rune.
const MaxLabelValueBytes = 2048

// Labels is a set of labels, sorted by name, without empty values. It is
// immutable and safe for concurrent use.
type Labels struct {
	pairs []Label
	text  string
}

// NewLabels builds a set. Empty values are left out, invalid UTF-8 is replaced
// by U+FFFD, values are cut to MaxLabelValueBytes. Of two labels of one name
// the later wins.
func NewLabels(pairs ...Label) Labels {
	kept := make([]Label, 0, len(pairs))
	for _, l := range pairs {
		l.Value = CleanValue(l.Value)
		kept = slices.DeleteFunc(kept, func(k Label) bool { return k.Name == l.Name })
		if l.Value != "" {
			kept = append(kept, l)
		}
	}
	slices.SortFunc(kept, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	text := []byte{'{'}
	for i, l := range kept {
		if i > 0 {
			text = append(text, ", "...)
		}
		text = append(text, l.Name...)
		text = append(text, '=')
		text = strconv.AppendQuote(text, l.Value)
	}
	return Labels{pairs: kept, text: string(append(text, '}'))}
}

// CleanValue makes a label value that every store takes: valid UTF-8, at most
// MaxLabelValueBytes long.
func CleanValue(v string) string {
	v = strings.ToValidUTF8(v, "\ufffd")
	if len(v) <= MaxLabelValueBytes {
		return v
	}
	n := MaxLabelValueBytes
	for n > 0 && !utf8.RuneStart(v[n]) {
		n--
	}
	return v[:n]
}

// String gives the set as a stream selector, {a="b", c="d"}, the form in which
// Loki's push protocol names a stream.
func (l Labels) String() string { return l.text }

// Pairs gives the labels sorted by name. The slice must not be changed.
func (l Labels) Pairs() []Label { return l.pairs }

// Get gives the value of a label, or "".
func (l Labels) Get(name string) string {
	for _, p := range l.pairs {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}
