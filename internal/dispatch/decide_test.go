package dispatch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
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
	tr := newTrouble(2)
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
	expect("and soon after that", tr.begin(0, false, now.Add(80*time.Second)), false)
	expect("in the second lane, too", tr.begin(1, true, now.Add(84*time.Second)), false)
	expect("lasts", tr.begin(0, false, now.Add(85*time.Second)), true)
	expect("is one of configuration, too", tr.begin(1, true, now.Add(85*time.Second)), true)
	expect("one lane ends", end(0, 85*time.Second), false)
	expect("both end", end(1, 85*time.Second), true)
}

func TestNextLimit(t *testing.T) {
	const ms = time.Millisecond
	for least, want := range map[int]int{1 << 20: 6 << 20, 3 << 20: mostBytes, 9 << 20: 9 << 20} {
		if got := nextLimit(least, least, mostBytes, least, 51*ms, 50*ms); got != want {
			t.Errorf("at most %d of %d, want %d", got, least, want)
		}
	}
	for _, c := range []struct {
		size           int
		took, distance time.Duration
		want           int
	}{
		{1000, 0, 0, 3000},
		{1000, 10 * ms, 0, 3000},
		{1000, 40 * ms, 0, 1250},
		{1000, 50 * ms, 0, 1000},
		{2000, 50 * ms, 0, 2000},
		{2000, 80 * ms, 0, 1250},
		{2000, 10 * time.Second, 0, 1000},
		{500, 20 * ms, 0, 1250},
		{499, 0, 0, 1234}, // it says nothing
		{499, 10 * time.Second, 0, 1234},
		// Most of the time is the way to the store.
		{1000, 60 * ms, 50 * ms, 5000},
		{1000, 55 * ms, 50 * ms, 6000},
		{1000, 50 * ms, 50 * ms, 6000},
		{6000, 110 * ms, 50 * ms, 5000},
		{1000, 14 * ms, 10 * ms, 5000},
		{5000, 30 * ms, 10 * ms, 5000},
		// It takes its time for what it is sent.
		{1000, 100 * ms, 20 * ms, 1000},
		{2000, 100 * ms, 20 * ms, 1000},
		{2000, 45 * ms, 1 * ms, 2222},
	} {
		if got := nextLimit(1234, 1000, mostBytes, c.size, c.took, c.distance); got != c.want {
			t.Errorf("%d in %v, %v away: %d, want %d", c.size, c.took, c.distance, got, c.want)
		}
	}
}

// TestBatchesGrow: a lane's batches are larger where the store is quick.
func TestBatchesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{BatchBytes: 1000})
		a := newSource(1, 0)
		limit := func() int {
			b, err := r.Reserve(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Submit(0, b)
			return b.Limit
		}
		same(t, "at first", limit(), 1000)
		took := 10 * time.Millisecond
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
			time.Sleep(took)
			return acceptAll(b)
		})
		full := "o:" + strings.Repeat("x", 1000)
		r.send(a, full)
		pass(time.Second)
		same(t, "after a quick one", limit(), 3000)
		distance := 50 * time.Millisecond
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
			time.Sleep(took)
			out := acceptAll(b)
			out.Distance = distance
			return out
		})
		took = 60 * time.Millisecond
		r.send(a, full)
		pass(time.Second)
		same(t, "after one whose time was the way", limit(), 5130)
		r.send(a, "o:small")
		took = time.Second
		r.send(a, full)
		pass(3 * time.Second)
		same(t, "after a slow one", limit(), 1000)
		took, distance = 40*time.Millisecond, 0
		r.send(a, full)
		pass(time.Second)
		grown := limit()
		if grown <= 1000 || grown >= 2000 {
			t.Fatalf("after one in between: %d", grown)
		}
		r.setPush(func(context.Context, *entry.Batch) entry.Outcome { return entry.Outcome{Err: errors.New("away")} })
		r.send(a, full)
		pass(time.Minute)
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome { return acceptAll(b) })
		pass(time.Minute)
		same(t, "after an outage", limit(), 1000)
	})
}
