package server

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

func TestPrintable(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"a": [1, "b"]}`, `{"a": [1, "b"]}`},
		{"{\n\t\"a\": \"Grüße 世界 😀\"}", "{\n\t\"a\": \"Grüße 世界 😀\"}"},
		{"[\r\n1]", "[\n\n1]"},
		{"\"\x7f\"", `"\u007f"`},
		{"\"\u009b31m\"", `"\u009b31m"`},                   // CSI of eight bits
		{"\"a\u202eb\u2066c\"", `"a\u202eb\u2066c"`},       // the direction of text
		{"\"a\u00a0b\u200bc\"", `"a\u00a0b\u200bc"`},       // space that is none
		{"\"\U000e0041\"", `"\udb40\udc41"`},               // a tag, beyond 16 bits
		{"\"a\xffb\xc2\"", `"a\ufffdb\ufffd"`},             // no UTF-8
		{"\"\ufffd\"", "\"\ufffd\""},                       // is shown
		{"\"\\\\\u0085\\\"\u0085\"", `"\\\u0085\"\u0085"`}, // behind whole escapes
		{``, ``},
	} {
		in := []byte(c.in)
		if got := Printable(in); string(got) != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
		if string(in) != c.in {
			t.Errorf("%q: changed to %q", c.in, in)
		}
	}
}

// FuzzPrintable: the JSON means the same, and a terminal can show it.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{`{"a":[1,"b"]}`, "[\r\n\"\u009b\x7f\xff\"]", "\"\U000e0041\\\\\u202e\"", `"\ud800\u001b"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var want, got any
		if json.Unmarshal(in, &want) != nil {
			return
		}
		out := Printable(bytes.Clone(in))
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q became %q: got %#v, want %#v", in, out, got, want)
		}
		if i := strings.IndexFunc(string(out), func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q became %q", in, out)
		}
		if again := Printable(out); !bytes.Equal(again, out) {
			t.Errorf("%q became %q", out, again)
		}
	})
}
