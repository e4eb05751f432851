package genlog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2025, 11, 7, 12, 0, 0, 120_000_000, time.UTC)

// decoded reads entries with the standard library, the oracle.
func decoded(t *testing.T, entries []byte) (text string, pieces int) {
	t.Helper()
	for l := range bytes.Lines(entries) {
		var e struct {
			Log, Stream string
			Time        time.Time
		}
		if err := json.Unmarshal(l, &e); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		if !e.Time.Equal(noon) || e.Stream != "stdout" && e.Stream != "stderr" {
			t.Fatalf("time %v, stream %q", e.Time, e.Stream)
		}
		text += e.Log
		pieces++
	}
	return text, pieces
}

func TestEntriesAreDockersOfTheText(t *testing.T) {
	g := New(1)
	var kinds [6]int
	for n := range 3000 {
		text := string(g.Text(7, n))
		got, pieces := decoded(t, g.Append(nil, 7, n, noon))
		if got != text+"\n" {
			t.Fatalf("line %d: decoded\n%q\nwritten\n%q", n, got, text)
		}
		if (pieces > 1) != Long(n) {
			t.Fatalf("line %d has %d entries", n, pieces)
		}
		switch {
		case strings.Contains(text, `"level"`):
			kinds[0]++
		case strings.Contains(text, "HTTP/1.1"):
			kinds[1]++
		case strings.Contains(text, "worker"):
			kinds[2]++
		case strings.Contains(text, "\tat "):
			kinds[3]++
		case strings.Contains(text, "\x1b"):
			kinds[4]++
		default:
			kinds[5]++
		}
	}
	for k, n := range kinds {
		if n < 30 {
			t.Errorf("only %d lines of kind %d", n, k)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, text := range []string{"plain", "\"\\\n\r\t\x00\x1f<>&", "\u2028x\u2029", "ü漢🚀"} {
		var want bytes.Buffer
		if err := json.NewEncoder(&want).Encode(text); err != nil {
			t.Fatal(err)
		}
		var got string
		escaped := escape(nil, []byte(text))
		if err := json.Unmarshal([]byte(`"`+string(escaped)+`"`), &got); err != nil || got != text {
			t.Errorf("%q became %s: %q, %v", text, escaped, got, err)
		}
	}
	if got := string(escape(nil, []byte("\t<\u2028"))); got != `\u0009\u003c\u2028` {
		t.Errorf("not Docker's way: %s", got)
	}
}

func TestDeterministicBySeed(t *testing.T) {
	a, b := New(5), New(5)
	b.Text(9, 9) // what came before does not matter
	if !bytes.Equal(a.Append(nil, 1, 2, noon), b.Append(nil, 1, 2, noon)) {
		t.Error("one seed, two texts")
	}
	if bytes.Equal(New(6).Text(1, 2), New(5).Text(1, 2)) || bytes.Equal(New(5).Text(1, 3)[prefixBytes:], New(5).Text(1, 2)[prefixBytes:]) {
		t.Error("two seeds or lines, one text")
	}
}

func TestIdentity(t *testing.T) {
	g := New(1)
	line := bytes.Clone(g.Text(12, 345))
	id, ok := Parse(line)
	if want := (Identity{12, 345, true}); !ok || id != want {
		t.Fatalf("%v, %v", id, ok)
	}
	if id, ok = Parse(append(bytes.Clone(line), '\n')); !ok || !id.Whole {
		t.Errorf("with the line end: %v, %v", id, ok)
	}
	for i := range line {
		changed := bytes.Clone(line)
		changed[i] ^= 1
		if id, ok := Parse(changed); ok && id.Whole {
			t.Errorf("byte %d changed and not noticed", i)
		}
	}
	if id, ok := Parse(line[:len(line)-1]); !ok || id.Whole {
		t.Errorf("cut: %v, %v", id, ok)
	}
	if _, ok := Parse([]byte("some other text that is long enough for it")); ok {
		t.Error("an identity where none is")
	}
	long := g.Text(0, LongEvery-1)
	if Continuation(long) || !Continuation(long[pieceBytes:]) {
		t.Error("pieces of a long line are not told apart")
	}
}

func BenchmarkAppend(b *testing.B) {
	g := New(1)
	var dst []byte
	var bytes int64
	for i := range b.N {
		dst = g.Append(dst[:0], i%50, i/50, noon)
		bytes += int64(len(dst))
	}
	b.SetBytes(bytes / int64(b.N))
}
