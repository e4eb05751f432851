package lines

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(Kinds()).Draw(t, "kind")
		prefix := rapid.StringMatching(`[a-z0-9.-]{1,20}`).Draw(t, "prefix")
		n := rapid.IntRange(1, 1e6).Draw(t, "n")
		size := rapid.IntRange(0, 70_000).Draw(t, "size")
		l := Line(kind, prefix, n, size)
		if l != Line(kind, prefix, n, size) {
			t.Fatal("not the same twice")
		}
		if l == Line(kind, prefix, n+1, size) {
			t.Fatal("two numbers, one line")
		}
		if strings.ContainsAny(l, "\r\n") || !utf8.ValidString(l) {
			t.Fatalf("%.80q is not one line of UTF-8", l)
		}
		shortest := len(Line(kind, prefix, n, 0))
		want := max(size, shortest)
		if len(l) > want || len(l) < want-4 {
			t.Fatalf("%d bytes, want %d", len(l), want)
		}
		head := l
		if kind == JSON {
			var v struct{ Line string }
			if err := json.Unmarshal([]byte(l), &v); err != nil {
				t.Fatal(err)
			}
			head = v.Line
		}
		if !strings.HasPrefix(head, prefix+" ") {
			t.Fatalf("%.80q does not begin with prefix and number", l)
		}
	})
}
