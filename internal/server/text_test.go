package server

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestVisible(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 5, ""},
		{"web-1", 5, "web-1"},
		{"web-12", 5, "web-1…"},
		{"Grüße 世界 😀", 99, "Grüße 世界 😀"},
		{"<b>&\"'", 99, "<b>&\"'"}, // the template's to escape
		{"a\x00\x1b[31m\r\n\t\x7f", 99, `a\x00\x1b[31m\r\n\t\x7f`},
		{"abc\u202egpj.exe\u2066", 99, `abc\u202egpj.exe\u2066`},
		{"a\u200bb\u00a0c\ufeff", 99, `a\u200bb\u00a0c\ufeff`},
		{"\U000e0041", 99, `\U000e0041`},
		{"a\xffb\xc2", 99, `a\xffb\xc2`},
		{"\ufffd", 99, "\ufffd"},
		{"\x00\x00\x00", 2, `\x00\x00…`},
		{"世界世界", 3, "世界世…"},
	} {
		if got := visible(c.in, c.limit); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

// FuzzVisible: whatever comes, it can be seen, is not long, and is shown the same
// when it is shown again.
func FuzzVisible(f *testing.F) {
	for _, s := range []string{"web", "a\x00\xff\u202e", strings.Repeat("x", 300), "\xc2\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := visible(in, 50)
		if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", in, out)
		}
		if n := utf8.RuneCountInString(out); n > 50*len(`\U000e0041`)+1 {
			t.Errorf("%q became %d runes", in, n)
		}
		if again := visible(out, 1000); again != out {
			t.Errorf("%q became %q", out, again)
		}
	})
}

func TestFigures(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -999: "-999", -1000: "-1,000"} {
		if got := count(n); got != want {
			t.Errorf("count %d: got %q", n, got)
		}
	}
	for n, want := range map[float64]string{0: "0", 0.04: "0", 0.06: "0.1", 0.96: "1", 2.34: "2.3", 9.96: "10", 1034.4: "1,034"} {
		if got := perSecond(n); got != want {
			t.Errorf("perSecond %v: got %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB", 1 << 20: "1.0 MiB", 3 << 29: "1.5 GiB", 5 << 40: "5.0 TiB", 5 << 50: "5,120 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size %d: got %q, want %q", n, got, want)
		}
	}
	for n, want := range map[float64]string{-1: "0 s", 0: "0 s", 0.08: "0.1 s", 9.5: "9.5 s", 12.5: "12 s", 60: "1 min 0 s", 3599: "59 min 59 s", 3600: "1 h 0 min", 200000: "2 d 7 h"} {
		if got := span(n); got != want {
			t.Errorf("span %v: got %q, want %q", n, got, want)
		}
	}
	if got := clock(time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))); got != "2026-01-02 02:04:05 UTC" {
		t.Errorf("clock: got %q", got)
	}
}

func TestFactsOf(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	facts, err := factsOf(struct {
		State      string         `json:"state"`
		Failed     int            `json:"files_failed"`
		LagSeconds float64        `json:"lag_seconds"`
		LagBytes   int64          `json:"lag_bytes"`
		Synced     bool           `json:"synced"`
		Since      time.Time      `json:"since"`
		Missing    map[string]int `json:"not_captured"`
		None       map[string]int `json:"none"`
		Error      string         `json:"error"`
		List       []int          `json:"list"`
		Huge       float64        `json:"huge"`
	}{"degraded", 1234, 12.5, 2048, true, now.Add(-time.Minute), map[string]int{"local": 2, "<b>\u202e": 1}, nil, "a\nb", []int{1}, 1e300}, now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range facts {
		got = append(got, f.Label+"="+f.Value+"|"+f.Tone)
	}
	want := []string{
		"State=degraded|warn", "Files failed=1,234|", "Lag=12 s|", "Lag bytes=2.0 KiB|", "Synced=yes|", "Since=1 min 0 s ago, 2026-01-02 03:03:05 UTC|",
		`Not captured=<b>\u202e: 1, local: 2|`, "None=none|", `Error=a\nb|bad`, "List=[1]|", "Huge=1e+300|",
	}
	if strings.Join(got[:len(want)], "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	for state, tone := range map[string]string{"ok": toneOK, "unhealthy": toneBad, "full": toneBad, "filling": toneWarn, "draining": toneWarn, "empty": ""} {
		if f := factOf("state", state, now); f.Tone != tone {
			t.Errorf("%s has the tone %q", state, f.Tone)
		}
	}
	for _, v := range []any{[]int{1}, "text", nil, make(chan int)} {
		if f, err := factsOf(v, now); err == nil {
			t.Errorf("%T: got %v", v, f)
		}
	}
}
