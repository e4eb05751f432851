package entry

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestNewLabels(t *testing.T) {
	tests := []struct {
		name string
		in   []Label
		want []Label
		text string
	}{
		{name: "none", text: `{}`},
		{
			name: "one", in: []Label{{"a", "1"}},
			want: []Label{{"a", "1"}}, text: `{a="1"}`,
		},
		{
			name: "sorted by name", in: []Label{{"c", "1"}, {"a", "3"}, {"b", "2"}, {"B", "4"}, {"aa", "5"}},
			want: []Label{{"B", "4"}, {"a", "3"}, {"aa", "5"}, {"b", "2"}, {"c", "1"}},
			text: `{B="4", a="3", aa="5", b="2", c="1"}`,
		},
		{
			name: "the later wins", in: []Label{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"a", "4"}},
			want: []Label{{"a", "4"}, {"b", "2"}}, text: `{a="4", b="2"}`,
		},
		{
			name: "empty left out", in: []Label{{"a", ""}, {"b", "2"}, {"c", ""}},
			want: []Label{{"b", "2"}}, text: `{b="2"}`,
		},
		{name: "all empty", in: []Label{{"a", ""}}, text: `{}`},
		{
			name: "a later empty one takes the label away", in: []Label{{"a", "1"}, {"b", "2"}, {"a", ""}},
			want: []Label{{"b", "2"}}, text: `{b="2"}`,
		},
		{
			name: "a value after an empty one", in: []Label{{"a", ""}, {"a", "1"}},
			want: []Label{{"a", "1"}}, text: `{a="1"}`,
		},
		{
			name: "a space is a value", in: []Label{{"a", " "}},
			want: []Label{{"a", " "}}, text: `{a=" "}`,
		},
		{
			name: "invalid UTF-8", in: []Label{{"a", "x\xffy"}, {"b", "\x80"}, {"c", "\xe2\x82"}},
			want: []Label{{"a", "x\ufffdy"}, {"b", "\ufffd"}, {"c", "\ufffd"}},
			text: "{a=\"x\ufffdy\", b=\"\ufffd\", c=\"\ufffd\"}",
		},
		{
			name: "quotes and backslashes", in: []Label{{"a", `"`}, {"b", `\`}, {"c", `\"`}, {"d", "`'"}},
			want: []Label{{"a", `"`}, {"b", `\`}, {"c", `\"`}, {"d", "`'"}},
			text: `{a="\"", b="\\", c="\\\"", d="` + "`'" + `"}`,
		},
		{
			name: "another selector", in: []Label{{"a", `1", b="2"} |= "x`}},
			want: []Label{{"a", `1", b="2"} |= "x`}}, text: `{a="1\", b=\"2\"} |= \"x"}`,
		},
		{
			name: "control characters", in: []Label{{"a", "1\n2\r3\t4"}, {"b", "x\x00y"}, {"c", "\x1b[31m\x7f"}},
			want: []Label{{"a", "1\n2\r3\t4"}, {"b", "x\x00y"}, {"c", "\x1b[31m\x7f"}},
			text: `{a="1\n2\r3\t4", b="x\x00y", c="\x1b[31m\x7f"}`,
		},
		{
			name: "letters of the world stay readable", in: []Label{{"a", "größe 日本 🙂"}},
			want: []Label{{"a", "größe 日本 🙂"}}, text: `{a="größe 日本 🙂"}`,
		},
		{
			name: "characters nobody sees", in: []Label{{"a", "\u202egnp.\u200b"}},
			want: []Label{{"a", "\u202egnp.\u200b"}}, text: `{a="\u202egnp.\u200b"}`,
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			before := slices.Clone(tc.in)
			l := NewLabels(tc.in...)
			if !slices.Equal(l.Pairs(), tc.want) {
				t.Errorf("pairs are %q, want %q", l.Pairs(), tc.want)
			}
			if l.String() != tc.text {
				t.Errorf("text is %s, want %s", l, tc.text)
			}
			for _, p := range tc.want {
				if got := l.Get(p.Name); got != p.Value {
					t.Errorf("Get(%q) gives %q, want %q", p.Name, got, p.Value)
				}
			}
			if got := l.Get("none"); got != "" {
				t.Errorf("Get of what is not there gives %q", got)
			}
			if !slices.Equal(tc.in, before) {
				t.Errorf("the caller's labels became %q", tc.in)
			}
		})
	}
}

// A set that was built is not changed through what it was built from.
func TestLabelsAreImmutable(t *testing.T) {
	in := []Label{{"b", "2"}, {"a", "1"}}
	l := NewLabels(in...)
	in[0].Value, in[1].Name = "changed", "changed"
	if want := []Label{{"a", "1"}, {"b", "2"}}; !slices.Equal(l.Pairs(), want) || l.String() != `{a="1", b="2"}` {
		t.Errorf("got %q, %s", l.Pairs(), l)
	}
}

func TestCleanValueCutsAtARune(t *testing.T) {
	const limit = 2048 // as Loki's default
	x := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, in, want string
	}{
		{"empty", "", ""},
		{"exactly full", x(limit), x(limit)},
		{"one too many", x(limit + 1), x(limit)},
		{"far too many", x(10 * limit), x(limit)},
		{"a rune that just fits", x(limit-3) + "€", x(limit-3) + "€"},
		{"a rune of 2 over the edge", x(limit-1) + "ä", x(limit - 1)},
		{"a rune of 3 over the edge by 1", x(limit-2) + "€", x(limit - 2)},
		{"a rune of 3 over the edge by 2", x(limit-1) + "€", x(limit - 1)},
		{"a rune of 4 over the edge by 1", x(limit-3) + "🙂", x(limit - 3)},
		{"a rune of 4 over the edge by 3", x(limit-1) + "🙂z", x(limit - 1)},
		{"a rune that fits, and more", x(limit-4) + "🙂🙂", x(limit-4) + "🙂"},
		{"runes only", strings.Repeat("€", limit), strings.Repeat("€", limit/3)},
		// Replacing makes it longer: the limit is of what is sent.
		{"invalid bytes over the edge", x(limit-2) + "\xff", x(limit - 2)},
		{"invalid bytes apart", strings.Repeat("a\xff", limit/2), strings.Repeat("a\ufffd", limit/4)},
		{"a run of invalid bytes becomes one", strings.Repeat("\xff", 3*limit), "\ufffd"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := CleanValue(tc.in); got != tc.want {
				t.Errorf("got %d bytes that end in %q, want %d that end in %q", len(got), tail(got), len(tc.want), tail(tc.want))
			}
			if got := NewLabels(Label{"a", tc.in}).Get("a"); got != tc.want {
				t.Errorf("a label's value is %d bytes that end in %q", len(got), tail(got))
			}
		})
	}
}

func tail(s string) string { return s[max(0, len(s)-8):] }

// hostile draws values from the characters that matter, or any.
func hostile() *rapid.Generator[string] {
	pieces := rapid.SampledFrom([]string{
		`"`, `\`, "\n", "\r", "\x00", "\x7f", "`", "'", "{", "}", "=", ",", ", ", `", b="`, "$", "%s",
		"\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "ä", "€", "🙂", "\ufffd", "\ufeff", "\u2028", "\u0085", " ", "x", strings.Repeat("y", 1000),
	})
	return rapid.OneOf(
		rapid.Map(rapid.SliceOfN(pieces, 0, 8), func(s []string) string { return strings.Join(s, "") }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
}

// Whatever the values, the text is one line of valid UTF-8 in which one finds
// exactly the pairs, and the pairs are what a map would have kept.
func TestLabelsHostileValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Label {
			return Label{rapid.SampledFrom([]string{"a", "b", "c", "d_1", "E"}).Draw(t, "name"), hostile().Draw(t, "value")}
		}), 0, 10).Draw(t, "labels")
		model := map[string]string{}
		for _, p := range in {
			model[p.Name] = CleanValue(p.Value)
		}
		for name, v := range model {
			if v == "" {
				delete(model, name)
			}
		}

		l := NewLabels(in...)
		if !slices.IsSortedFunc(l.Pairs(), func(a, b Label) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("not sorted: %q", l.Pairs())
		}
		if len(l.Pairs()) != len(model) {
			t.Fatalf("%q instead of %q", l.Pairs(), model)
		}
		for _, p := range l.Pairs() {
			if model[p.Name] != p.Value || !utf8.ValidString(p.Value) || len(p.Value) > MaxLabelValueBytes {
				t.Fatalf("%s is %q", p.Name, p.Value)
			}
			if CleanValue(p.Value) != p.Value {
				t.Fatalf("cleaned again, %q differs", p.Value)
			}
		}
		text := l.String()
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\n\r\x00\u2028\u0085") {
			t.Fatalf("%q is not one line of text", text)
		}
		got, err := readSelector(text)
		if err != nil || !slices.Equal(got, l.Pairs()) {
			t.Fatalf("%s is read as %q, %v; want %q", text, got, err, l.Pairs())
		}
	})
}

// readSelector reads {a="b", c="d"}, strings quoted as in Go, which is what
// stores take them for.
func readSelector(s string) (pairs []Label, err error) {
	s, ok := strings.CutPrefix(s, "{")
	if !ok {
		return nil, fmt.Errorf("no { before %q", s)
	}
	for s != "}" {
		if len(pairs) > 0 {
			if s, ok = strings.CutPrefix(s, ", "); !ok {
				return nil, fmt.Errorf("no comma before %q", s)
			}
		}
		name, rest, _ := strings.Cut(s, "=")
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, fmt.Errorf("no quoted string before %q: %w", rest, err)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("unquote %s: %w", quoted, err)
		}
		pairs = append(pairs, Label{name, value})
		s = rest[len(quoted):]
	}
	return pairs, nil
}
