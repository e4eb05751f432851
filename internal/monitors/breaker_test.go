package monitors

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBreaker tells a breaker what happens, and when, and compares what it says.
func TestBreaker(t *testing.T) {
	const (
		fail, succeed, down, good, bad = "fail", "succeed", "openNow", "probe succeeds", "probe fails"

		s = time.Second
		m = time.Minute
	)
	type step struct {
		after   time.Duration // since the step before
		what    string
		changed bool
		probe   time.Duration // from now; -1: closed
	}
	for name, steps := range map[string][]step{
		"three in a row": {{s, fail, false, -1}, {s, fail, false, -1}, {s, fail, true, 30 * s}},
		"not in a row":   {{s, fail, false, -1}, {s, fail, false, -1}, {s, succeed, false, -1}, {s, fail, false, -1}, {s, fail, false, -1}, {s, fail, true, 30 * s}},
		"at once":        {{0, down, true, 30 * s}, {10 * s, down, false, 20 * s}},
		"at once after two": {{s, fail, false, -1}, {s, fail, false, -1}, {s, down, true, 30 * s}, {30 * s, good, true, -1},
			{s, fail, false, -1}, {s, fail, false, -1}, {s, fail, true, m}},
		"late news":             {{0, down, true, 30 * s}, {s, fail, false, 29 * s}, {s, succeed, false, 28 * s}, {s, fail, false, 27 * s}, {s, fail, false, 26 * s}},
		"a probe of a good one": {{s, bad, false, -1}, {s, good, false, -1}, {s, fail, false, -1}, {s, bad, false, -1}, {s, fail, false, -1}, {s, good, false, -1}, {s, fail, true, 30 * s}},
		"pauses": {{0, down, true, 30 * s}, {30 * s, bad, false, m}, {m, bad, false, 2 * m}, {2 * m, bad, false, 4 * m}, {5 * m, bad, false, 8 * m},
			{8 * m, bad, false, 10 * m}, {10 * m, bad, false, 10 * m}, {10 * m, good, true, -1}, {s, succeed, false, -1}},
		"flapping": {{0, down, true, 30 * s}, {30 * s, good, true, -1}, {10 * m, down, true, m}, {m, good, true, -1}, {m, down, true, 2 * m},
			{2 * m, bad, false, 4 * m}, {4 * m, good, true, -1}, {0, down, true, 8 * m}, {8 * m, good, true, -1}, {s, down, true, 10 * m},
			{10 * m, good, true, -1}, {9 * m, down, true, 10 * m}},
		"calm": {{0, down, true, 30 * s}, {30 * s, bad, false, m}, {m, good, true, -1}, {10*m + 1, down, true, 30 * s}},
		"calm is counted from closing": {{0, down, true, 30 * s}, {30 * s, good, true, -1}, {8 * m, fail, false, -1}, {m, fail, false, -1},
			{2 * m, fail, true, 30 * s}},
		"a probe too early": {{0, down, true, 30 * s}, {s, bad, false, m}, {s, good, true, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			now := t0
			for i, st := range steps {
				now = now.Add(st.after)
				changed := false
				switch st.what {
				case fail:
					changed = b.fail(now)
				case succeed:
					b.succeed()
				case down:
					changed = b.openNow(now)
				default:
					changed = b.probed(now, st.what == good)
				}
				var probe time.Time
				if st.probe >= 0 {
					probe = now.Add(st.probe)
				}
				if changed != st.changed || b.isOpen() != (st.probe >= 0) || !b.probeAt().Equal(probe) {
					t.Fatalf("step %d, %s: changed %t, open %t, probed in %v", i, st.what, changed, b.isOpen(), b.probeAt().Sub(now))
				}
			}
		})
	}
}

// TestBreakerModel tells a breaker of a file that fails and recovers at random,
// with probes at the time that it asks for or when there is news, and holds it
// against what has happened so far.
func TestBreakerModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var b breaker
		now := t0
		// The oracle.
		open := false
		row := 0   // failures in a row
		waits := 0 // pauses that were promised, without a calm between
		var probe, closedAt time.Time
		promise := func() {
			waits++
			pause := 30 * time.Second << min(waits-1, 5)
			if pause > 10*time.Minute {
				pause = 10 * time.Minute
			}
			probe = now.Add(pause)
		}
		opens := func() {
			open = true
			if !closedAt.IsZero() && now.Sub(closedAt) > 10*time.Minute {
				waits = 0
			}
			promise()
		}
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(4*time.Minute)).Draw(rt, "time passes")))
			got, want := false, false
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0, 1, 2, 3:
				got = b.fail(now)
				if row++; !open && row == 3 {
					want = true
					opens()
				}
			case 4:
				b.succeed()
				row = 0
			case 5:
				got, want = b.openNow(now), !open
				if !open {
					opens()
				}
			case 6:
				ok := rapid.Bool().Draw(rt, "there is news, and it")
				got, want = b.probed(now, ok), open && ok
				if open {
					if ok {
						open, closedAt = false, now
					} else {
						promise()
					}
				}
			default:
				at := b.probeAt()
				if at.IsZero() {
					continue
				}
				if at.After(now) {
					now = at
				}
				ok := rapid.Bool().Draw(rt, "it")
				got, want = b.probed(now, ok), ok
				if ok {
					open, closedAt = false, now
				} else {
					promise()
				}
			}
			if open {
				row = 0 // only those of a time when it is closed count
			}
			if got != want || b.isOpen() != open {
				rt.Fatalf("changed %t instead of %t, open %t instead of %t", got, want, b.isOpen(), open)
			}
			if !open {
				if !b.probeAt().IsZero() {
					rt.Fatalf("closed, and to be probed at %v", b.probeAt())
				}
				continue
			}
			if !b.probeAt().Equal(probe) {
				rt.Fatalf("probed in %v instead of %v", b.probeAt().Sub(now), probe.Sub(now))
			}
			if pause := b.probeAt().Sub(now); pause > 10*time.Minute {
				rt.Fatalf("probed in %v", pause)
			}
		}
	})
}
