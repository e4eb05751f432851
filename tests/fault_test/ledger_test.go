package main

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// ours is what the tests' container writes.
var ours = output{name: "c1", kind: lines.Plain, size: 20, stderrEvery: 3}

// arrive delivers lines of ours.
func arrive(l *ledger, numbers ...int) {
	for _, n := range numbers {
		l.deliver([]delivered{{container: ours.name, stream: streamNames[ours.stream(n)], text: ours.line(n)}})
	}
}

func nobody(string) bool    { return false }
func everybody(string) bool { return true }

// TestLedger: whatever is wrong with the lines is seen.
func TestLedger(t *testing.T) {
	for _, c := range []struct {
		what     string
		happens  func(l *ledger)
		reported func(string) bool
		want     figures
		good     bool
	}{
		{"all arrive", func(l *ledger) { arrive(l, 1, 2, 3, 4, 5) }, nobody, figures{written: 5, delivered: 5}, true},
		{"stderr behind stdout", func(l *ledger) { arrive(l, 1, 2, 4, 5, 3) }, nobody, figures{written: 5, delivered: 5}, true},
		{"the first is missing", func(l *ledger) { arrive(l, 2, 3, 4, 5) }, nobody, figures{written: 5, delivered: 4, lost: 1}, false},
		{"one is missing", func(l *ledger) { arrive(l, 1, 2, 3, 5) }, nobody, figures{written: 5, delivered: 4, lost: 1}, false},
		{"the last is missing", func(l *ledger) { arrive(l, 1, 2, 3, 4) }, nobody, figures{written: 5, delivered: 4, lost: 1}, false},
		{"all are missing", func(*ledger) {}, nobody, figures{written: 5, lost: 5}, false},
		{"one is missing, and the agent says so", func(l *ledger) { arrive(l, 1, 2, 3, 5) }, everybody, figures{written: 5, delivered: 4, reported: 1}, true},
		{"one comes twice", func(l *ledger) { arrive(l, 1, 2, 3, 2, 4, 5) }, nobody, figures{written: 5, delivered: 5, doubled: 1}, true},
		{"one comes twice and one is missing", func(l *ledger) { arrive(l, 1, 2, 2, 3, 4) }, nobody, figures{written: 5, delivered: 4, doubled: 1, lost: 1}, false},
		{"out of order", func(l *ledger) { arrive(l, 1, 2, 5, 3, 4) }, nobody, figures{written: 5, delivered: 5, disordered: 1}, false},
		{"one more than was written", func(l *ledger) { arrive(l, 1, 2, 3, 4, 5, 6) }, nobody, figures{written: 5, delivered: 5, foreign: 1}, false},
		{"a dead letter", func(l *ledger) { arrive(l, 1, 2, 3, 5); l.deadLetter("c1", ours.line(4)) }, nobody, figures{written: 5, delivered: 4, dead: 1}, true},
		{"half a dead letter", func(l *ledger) { arrive(l, 1, 2, 3, 5); l.deadLetter("c1", "c1 4") }, nobody, figures{written: 5, delivered: 4, lost: 1}, false},
		{"one that Docker has not written", func(l *ledger) { arrive(l, 1, 2, 3, 5); l.excuse("c1", []int{4}) }, nobody, figures{written: 4, delivered: 4, never: 1}, true},
		{"changed text", func(l *ledger) {
			arrive(l, 1, 2, 3, 5)
			l.deliver([]delivered{{container: "c1", stream: "stdout", text: ours.line(4) + "x"}})
		}, nobody, figures{written: 5, delivered: 4, foreign: 1, lost: 1}, false},
		{"the other stream", func(l *ledger) {
			arrive(l, 1, 2, 3, 5)
			l.deliver([]delivered{{container: "c1", stream: "stderr", text: ours.line(4)}})
		}, nobody, figures{written: 5, delivered: 4, foreign: 1, lost: 1}, false},
		{"another container", func(l *ledger) {
			arrive(l, 1, 2, 3, 4, 5)
			l.deliver([]delivered{{container: "c2", stream: "stdout", text: ours.line(4)}})
		}, nobody, figures{written: 5, delivered: 5, foreign: 1}, false},
	} {
		l := newLedger()
		l.open(ours)
		c.happens(l)
		if l.complete("c1") {
			t.Errorf("%s: complete, before it is known what was written", c.what)
		}
		l.close("c1", 5)
		got, trouble := l.account(c.reported)
		if got != c.want || got.good() != c.good {
			t.Errorf("%s: %+v, good: %v; want %+v, %v", c.what, got, got.good(), c.want, c.good)
		}
		if !c.good && len(trouble) == 0 && c.what != "one more than was written" {
			t.Errorf("%s: nothing is said of it", c.what)
		}
		if l.complete("c1") != (c.want.lost+c.want.reported == 0) {
			t.Errorf("%s: complete is %v", c.what, !l.complete("c1"))
		}
	}
}

// TestVerdict: the last line and the exit status.
func TestVerdict(t *testing.T) {
	whole := figures{written: 10, delivered: 9, dead: 1, doubled: 3}
	for _, c := range []struct {
		all  []result
		code int
		want string
	}{
		{[]result{{ok: true, f: whole}, {ok: true, f: whole}}, 0, "fault_test: written 20, delivered 18, dead-lettered 2, doubled 6, lost 0, lost and reported 0: ok\n"},
		{[]result{{ok: true, f: figures{written: 5, delivered: 3, reported: 2}}}, 0, "fault_test: written 5, delivered 3, dead-lettered 0, doubled 0, lost 0, lost and reported 2: ok\n"},
		{[]result{{ok: true, f: whole}, {f: whole}}, 1, "fault_test: written 20, delivered 18, dead-lettered 2, doubled 6, lost 0, lost and reported 0: FAILED\n"},
		{[]result{{ok: true, f: figures{written: 5, delivered: 4, lost: 1}}}, 1, "fault_test: written 5, delivered 4, dead-lettered 0, doubled 0, lost 1, lost and reported 0: FAILED\n"},
	} {
		var out strings.Builder
		if code := verdict(&out, c.all); code != c.code || out.String() != c.want {
			t.Errorf("%d %q, want %d %q", code, out.String(), c.code, c.want)
		}
	}
}

// TestSet holds the set of numbers against a map.
func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s set
		in := map[int]bool{}
		for _, n := range rapid.SliceOf(rapid.IntRange(1, 300)).Draw(t, "numbers") {
			if s.add(n) == in[n] {
				t.Fatalf("add(%d) is wrong about whether it is new", n)
			}
			in[n] = true
		}
		for n := range 320 {
			if s.has(n) != in[n] {
				t.Fatalf("has(%d) is %v", n, s.has(n))
			}
		}
		if s.count() != len(in) {
			t.Fatalf("%d numbers, want %d", s.count(), len(in))
		}
	})
}

func TestGrow(t *testing.T) {
	var all []span
	for _, n := range []int{2, 3, 4, 9, 11, 12} {
		all = grow(all, n)
	}
	if want := []span{{2, 4}, {9, 9}, {11, 12}}; !slices.Equal(all, want) {
		t.Errorf("%v, want %v", all, want)
	}
}
