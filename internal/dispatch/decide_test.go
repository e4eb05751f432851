package dispatch

import (
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	now := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
	soon, later := now.Add(time.Second), now.Add(2*time.Second)
	for _, c := range []struct {
		name  string
		v     view
		want  step
		until time.Time
	}{
		{"nothing there", view{}, stepWait, time.Time{}},
		{"nothing there, not ripe", view{ripe: soon}, stepWait, time.Time{}},
		{"idle line", view{queued: true}, stepTake, time.Time{}},
		{"idle line at the very moment", view{queued: true, ripe: now}, stepTake, time.Time{}},
		{"not ripe", view{queued: true, ripe: soon}, stepWait, soon},
		{"not ripe but full", view{queued: true, full: true, ripe: soon}, stepTake, time.Time{}},
		{"not ripe but draining", view{queued: true, draining: true, ripe: soon}, stepTake, time.Time{}},
		{"paused, all else ready", view{paused: soon, hand: true, queued: true, full: true, draining: true, parkedDue: now}, stepWait, soon},
		{"pause over", view{paused: now, hand: true}, stepResend, time.Time{}},
		{"hand first", view{hand: true, queued: true, full: true, parkedDue: now}, stepResend, time.Time{}},
		{"parked due", view{parkedDue: now}, stepParked, time.Time{}},
		{"parked not due", view{parkedDue: soon}, stepWait, soon},
		{"parked before a ready batch", view{parkedDue: now, queued: true}, stepParked, time.Time{}},
		{"but not twice", view{parkedDue: now, queued: true, afterParked: true}, stepTake, time.Time{}},
		{"twice when no batch is ready", view{parkedDue: now, queued: true, ripe: soon, afterParked: true}, stepParked, time.Time{}},
		{"earlier of the two", view{parkedDue: later, queued: true, ripe: soon}, stepWait, soon},
		{"earlier of the two, the other way", view{parkedDue: soon, queued: true, ripe: later}, stepWait, soon},
		{"too much parked", view{blocked: true, queued: true, full: true, draining: true, parkedDue: later, ripe: soon}, stepWait, later},
		{"too much parked, due", view{blocked: true, queued: true, full: true, parkedDue: now, afterParked: true}, stepParked, time.Time{}},
	} {
		c.v.now = now
		got, until := decide(c.v)
		if got != c.want || !until.Equal(c.until) {
			t.Errorf("%s: step %d until %v, want %d until %v", c.name, got, until, c.want, c.until)
		}
	}
}

func TestPause(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		fails      int
		config     bool
		retryAfter time.Duration
		random     float64
		want       time.Duration
	}{
		{1, false, 0, 0, s / 4},
		{2, false, 0, 0, s / 2},
		{3, false, 0, 0, s},
		{6, false, 0, 0, 8 * s},
		{7, false, 0, 0, 10 * s},
		{1 << 30, false, 0, 0, 10 * s},
		{7, false, 0, 0.5, 8750 * time.Millisecond},
		{1, true, 0, 0, 5 * s},
		{4, true, 0, 0, 40 * s},
		{5, true, 0, 0, 60 * s},
		{1, false, 20 * s, 0.5, 20 * s},
		{1, false, time.Hour, 0, 60 * s},
		{7, false, s, 0, 10 * s},
	} {
		if got := pause(c.fails, c.config, c.retryAfter, c.random); got != c.want {
			t.Errorf("pause(%d, %t, %v, %v) = %v, want %v", c.fails, c.config, c.retryAfter, c.random, got, c.want)
		}
	}
}

func TestTrouble(t *testing.T) {
	now := time.Now()
	tr := newTrouble(2, time.Minute)
	expect := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: say = %t", what, got)
		}
	}
	end := func(lane int, after time.Duration) bool {
		say, lasted := tr.end(lane, now.Add(after))
		if say && lasted != 5*time.Second {
			t.Errorf("lasted %v", lasted)
		}
		return say
	}
	expect("begins", tr.begin(0, false, now), true)
	expect("goes on", tr.begin(0, false, now), false)
	expect("second lane", tr.begin(1, false, now), false)
	expect("becomes one of configuration", tr.begin(1, true, now), true)
	expect("is one of configuration", tr.begin(0, true, now), false)
	expect("first lane ends", end(0, 4*time.Second), false)
	expect("last lane ends", end(1, 5*time.Second), true)
	expect("is over", end(1, 6*time.Second), false)
	expect("again too soon", tr.begin(0, false, now.Add(10*time.Second)), false)
	expect("ends unsaid", end(0, 15*time.Second), false)
	expect("again later", tr.begin(0, false, now.Add(70*time.Second)), true)
	expect("ends", end(0, 75*time.Second), true)
}
