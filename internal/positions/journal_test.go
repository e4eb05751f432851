package positions

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

func TestTrack(t *testing.T) {
	type step struct {
		op    string // push, move, ack
		n     int64  // position, or sequence number
		pos   int64  // afterwards
		tip   int64
		in    int
		is    verdict
		moved bool
	}
	for name, steps := range map[string][]step{
		"in order": {
			{op: "push", n: 1, tip: 1, in: 1}, {op: "push", n: 2, tip: 2, in: 2},
			{op: "ack", n: 1, pos: 1, tip: 2, in: 1}, {op: "ack", n: 2, pos: 2, tip: 2},
		},
		"out of order": {
			{op: "push", n: 1, tip: 1, in: 1}, {op: "push", n: 2, tip: 2, in: 2}, {op: "push", n: 3, tip: 3, in: 3},
			{op: "ack", n: 3, tip: 3, in: 3}, {op: "ack", n: 1, pos: 1, tip: 3, in: 2}, {op: "ack", n: 2, pos: 3, tip: 3},
		},
		"no lines, nothing in flight": {
			{op: "move", n: 5, pos: 5, tip: 5, moved: true}, {op: "move", n: 5, pos: 5, tip: 5},
		},
		"no lines behind lines in flight": {
			{op: "push", n: 1, tip: 1, in: 1}, {op: "push", n: 2, tip: 2, in: 2}, {op: "move", n: 9, tip: 9, in: 2},
			{op: "ack", n: 1, pos: 1, tip: 9, in: 1}, {op: "ack", n: 2, pos: 9, tip: 9},
		},
		"no lines behind a span that is done but not passed": {
			{op: "push", n: 1, tip: 1, in: 1}, {op: "push", n: 2, tip: 2, in: 2}, {op: "ack", n: 2, tip: 2, in: 2},
			{op: "move", n: 9, tip: 9, in: 2}, {op: "ack", n: 1, pos: 9, tip: 9},
		},
		"twice and never": {
			{op: "ack", n: 1, is: ackUnknown}, {op: "push", n: 1, tip: 1, in: 1}, {op: "push", n: 2, tip: 2, in: 2},
			{op: "ack", n: 0, tip: 2, in: 2, is: ackUnknown}, {op: "ack", n: 3, tip: 2, in: 2, is: ackUnknown},
			{op: "ack", n: 2, tip: 2, in: 2}, {op: "ack", n: 2, tip: 2, in: 2, is: ackDuplicate},
			{op: "ack", n: 1, pos: 2, tip: 2}, {op: "ack", n: 1, pos: 2, tip: 2, is: ackDuplicate},
		},
	} {
		t.Run(name, func(t *testing.T) {
			end := func(n int64) entry.Position { return entry.Position{Offset: n} }
			tr := newTrack(entry.Position{})
			pushed := uint64(0)
			for i, s := range steps {
				switch s.op {
				case "push":
					pushed++
					if seq := tr.push(end(s.n)); seq != pushed {
						t.Fatalf("step %d: number %d, want %d", i, seq, pushed)
					}
				case "move":
					if got := tr.move(end(s.n)); got != s.moved {
						t.Fatalf("step %d: moved %v", i, got)
					}
				case "ack":
					if got, _ := tr.ack(uint64(s.n)); got != s.is {
						t.Fatalf("step %d: verdict %d, want %d", i, got, s.is)
					}
				}
				if tr.pos != end(s.pos) || tr.tip() != end(s.tip) || tr.inFlight() != s.in {
					t.Fatalf("step %d: pos %v, tip %v, %d in flight; want %+v", i, tr.pos, tr.tip(), tr.inFlight(), s)
				}
			}
		})
	}
}

// The ring grows while its spans lie around its end.
func TestTrackGrows(t *testing.T) {
	tr := newTrack(entry.Position{})
	var next, acked int64
	for range 6 {
		tr.push(entry.Position{Offset: next + 1})
		next++
	}
	for acked < 3 {
		acked++
		tr.ack(uint64(acked))
	}
	for range 1000 {
		next++
		tr.push(entry.Position{Offset: next})
	}
	for acked < next {
		acked++
		tr.ack(uint64(acked))
		if tr.pos.Offset != acked {
			t.Fatalf("position %d, want %d", tr.pos.Offset, acked)
		}
	}
}

func sealed(body string) string {
	return string(seal(append(open(nil, ""), body...), 0))
}

func TestDecodeRecord(t *testing.T) {
	const ok = `log k - - "n"`
	for _, c := range []struct {
		body    string
		reason  string // "" if it is good
		unknown int
	}{
		{body: `log a - - ""`},
		{body: `log "a b" 1:2:3:4:5:6 - "x\ny"`},
		{body: `pos a 1:2:3:4:5:6 1:2:3:4:-5:6`},
		{body: `pos "" - -`},
		{body: "del nothing"},
		{body: "lease a b c", unknown: 1},
		{body: "", unknown: 1},
		{body: "start yesterday", reason: "not a time"},
		{body: "start 2025-11-07T12:00:00+01:00", reason: "not a time in UTC"},
		{body: "pos a -", reason: "stderr"},
		{body: "pos a - - -", reason: "behind the positions"},
		{body: "pos a 1:2:3:4:5 -", reason: "stdout"},
		{body: "pos  - -", reason: "not quoted"},
		{body: "pos a\tb - -", reason: "not quoted"},
		{body: `pos "a - -`, reason: "do not close"},
		{body: `pos "a"- -`, reason: "no space"},
		{body: "log a - - note", reason: "not quoted"},
		{body: "log a - - 'n'", reason: "not quoted"},
		{body: "log a - -", reason: "not quoted"},
		{body: "log a - - `n`", reason: "not quoted"},
		{body: `log a - - "n" "m"`, reason: "not quoted"},
		{body: "del a b", reason: "behind the key"},
		{body: "del", reason: "not quoted"},
	} {
		c1, err := decode([]byte(header + string(appendStart(nil, t0)) + sealed(ok) + sealed(c.body)))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if c1.firstBad != nil {
			got = c1.firstBad.Error()
			if c1.firstBad.Line != 4 {
				t.Errorf("%q: line %d", c.body, c1.firstBad.Line)
			}
		}
		if (got == "") != (c.reason == "") || !strings.Contains(got, c.reason) || c1.unknown != c.unknown {
			t.Errorf("%q: %q, %d unknown; want %q, %d", c.body, got, c1.unknown, c.reason, c.unknown)
		}
		if c1.logs["k"] == nil || c1.logs["k"].Note != "n" {
			t.Errorf("%q: the record before is gone", c.body)
		}
	}
}

func TestDecodeVersion(t *testing.T) {
	_, err := decode([]byte("log_capturer positions v2\nanything\n"))
	var v *VersionError
	if !errors.As(err, &v) || v.Version != "2" {
		t.Fatal(err)
	}
}

// contentsJournal encodes contents as the store does.
func contentsJournal(c *contents) []byte {
	s := &Store{firstStart: c.firstStart, keys: map[string]*record{}, log: nil}
	for k, saved := range c.logs {
		r := &record{key: k, note: saved.Note}
		for i, p := range saved.Positions {
			r.tracks[i] = newTrack(p)
		}
		s.keys[k] = r
	}
	return s.snapshot(nil)
}

// FuzzDecode: no bytes make the decoder panic, and what it decodes is encoded
// and decoded to the same. Every line is also tried with a right checksum, which
// the fuzzer would hardly find.
func FuzzDecode(f *testing.F) {
	var journal []byte
	journal = append(journal, header...)
	journal = appendStart(journal, t0)
	journal = appendLog(journal, "abc", at(1), entry.Position{}, "web@1")
	journal = appendLog(journal, "a b\n\xff", at(1), at(2), "\"\x00\u2028\xfe")
	journal = appendPos(journal, "abc", at(3), at(4))
	journal = appendDel(journal, "abc")
	f.Add(journal)
	f.Add(journal[:len(journal)-3])
	f.Add([]byte("log_capturer positions v1\nstart 2025-11-07T12:00:00Z\nlog a - - \"\"\npos a 1:2:3:4:5:6 -\ndel a\n"))
	f.Add([]byte("log_capturer positions v1\nstart 0000-01-01T00:00:00Z\nlog \"\\xff\" 1:0:0:0:0:0 - \"`\"\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		again(t, data)
		var right []byte
		for i, l := range bytes.Split(data, []byte("\n")) {
			if i == 0 {
				right = append(append(right, l...), '\n')
				continue
			}
			at := len(right)
			right = seal(append(open(right, ""), l...), at)
		}
		again(t, right)
	})
}

func again(t *testing.T, data []byte) {
	c, err := decode(data)
	if err != nil {
		return
	}
	if c.good+c.torn != int64(len(data)) {
		t.Fatalf("%d good, %d torn of %d", c.good, c.torn, len(data))
	}
	if (c.bad > 0) != (c.firstBad != nil) {
		t.Fatalf("%d damaged, first %v", c.bad, c.firstBad)
	}
	lost := c.firstStart.IsZero()
	if lost {
		c.firstStart = t0
	}
	text := contentsJournal(c)
	d, err := decode(text)
	if err != nil || d.bad > 0 || d.torn > 0 || d.unknown > 0 {
		t.Fatalf("encoded again it is %+v, %v:\n%s", d, err, text)
	}
	if !d.firstStart.Equal(c.firstStart) || len(d.logs) != len(c.logs) {
		t.Fatalf("start %v, %d logs; was %v, %d", d.firstStart, len(d.logs), c.firstStart, len(c.logs))
	}
	for k, l := range c.logs {
		if d.logs[k] == nil || *d.logs[k] != *l {
			t.Fatalf("%q is %+v, was %+v", k, d.logs[k], l)
		}
	}
	if !bytes.Equal(contentsJournal(d), text) {
		t.Fatal("the second encoding differs")
	}
}

func BenchmarkDecode(b *testing.B) {
	data := appendStart([]byte(header), time.Unix(0, 0))
	for len(data) < compactBytes {
		data = appendPos(data, strings.Repeat("0123456789abcdef", 4), at(1<<30), at(1<<31))
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if c, err := decode(data); err != nil || c.bad > 0 {
			b.Fatal(err)
		}
	}
}
