package waketest

import (
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// event is a notification: what is of which watch.
type event struct {
	wd      int
	what    string
	written bool
}

func newSource() *Source[event] {
	return New(func(e *event) (wd *int, written bool) { return &e.wd, e.written })
}

func watch(t *testing.T, s *Source[event], dir string, writes bool) int {
	t.Helper()
	wd, err := s.Watch(dir, writes)
	if err != nil || wd < 0 {
		t.Fatalf("watch %s: %d, %v", dir, wd, err)
	}
	return wd
}

// given says what is given now, without waiting.
func given(t *testing.T, s *Source[event], want ...event) {
	t.Helper()
	if got := s.Wait(time.Time{}, nil); !slices.Equal(got, want) {
		t.Errorf("given %v, not %v", got, want)
	}
}

func watched(t *testing.T, s *Source[event], dir string, want, wantWrites bool) {
	t.Helper()
	if ok, writes := s.Watched(dir); ok != want || writes != wantWrites {
		t.Errorf("watched %v, for writes %v; not %v, %v", ok, writes, want, wantWrites)
	}
}

// TestWatches: of a directory comes what it is watched for, with the number of its watch, as
// long as it is watched.
func TestWatches(t *testing.T) {
	s := newSource()
	a, b := t.TempDir(), t.TempDir()
	appeared, written := event{what: "appeared"}, event{what: "written", written: true}
	of := func(wd int, e event) event { e.wd = wd; return e }

	watched(t, s, a, false, false)
	s.Tell(a, appeared)
	given(t, s)

	wa, wb := watch(t, s, a, false), watch(t, s, b, true)
	if wa == wb {
		t.Fatalf("two directories have the watch %d", wa)
	}
	watched(t, s, a, true, false)
	watched(t, s, b, true, true)
	for _, dir := range []string{a, b} {
		s.Tell(dir, written)
		s.Tell(dir, appeared)
	}
	given(t, s, of(wa, appeared), of(wb, written), of(wb, appeared))
	given(t, s) // once

	// Watched again, for something else.
	if wd := watch(t, s, a, true); wd != wa {
		t.Errorf("watched again as %d, not %d", wd, wa)
	}
	if wd := watch(t, s, b, false); wd != wb {
		t.Errorf("watched again as %d, not %d", wd, wb)
	}
	s.Tell(a, written)
	s.Tell(b, written)
	given(t, s, of(wa, written))

	// What was under way still comes.
	s.Tell(a, appeared)
	s.Forget(wa)
	watched(t, s, a, false, false)
	s.Tell(a, appeared)
	s.Tell(a, written)
	given(t, s, of(wa, appeared))

	s.End(a, event{what: "ended"}) // which is watched no more
	s.End(b, event{what: "ended"})
	watched(t, s, b, false, false)
	s.Tell(b, appeared)
	s.End(b, event{what: "ended"})
	given(t, s, event{wd: wb, what: "ended"})

	// A number is not used twice: what is late for the old watch ends no new one.
	again := watch(t, s, b, true)
	if again == wa || again == wb {
		t.Errorf("the watch %d was another's", again)
	}
	s.Forget(wb)
	watched(t, s, b, true, true)
	s.Tell(b, written)
	given(t, s, of(again, written))
}

func TestWatchFails(t *testing.T) {
	s := newSource()
	dir := t.TempDir()
	if wd, err := s.Watch(filepath.Join(dir, "none"), true); err == nil || wd >= 0 {
		t.Errorf("a directory that is not there: %d, %v", wd, err)
	}
	full := errors.New("no space left on device")
	s.Fail(full)
	if wd, err := s.Watch(dir, true); !errors.Is(err, full) || wd >= 0 {
		t.Errorf("%d, %v", wd, err)
	}
	watched(t, s, dir, false, false)
	s.Fail(nil)
	watch(t, s, dir, true)
}

// TestHold: what is held back comes later, all of it and in its order.
func TestHold(t *testing.T) {
	s := newSource()
	dir := t.TempDir()
	wd := watch(t, s, dir, true)
	s.Tell(dir, event{what: "1"})
	s.Hold(true)
	s.Tell(dir, event{what: "2"})
	if s.Hears() {
		t.Error("hears what is held back")
	}
	given(t, s)
	s.Hold(false)
	if !s.Hears() {
		t.Error("does not hear, though nothing is held back")
	}
	given(t, s, event{wd: wd, what: "1"}, event{wd: wd, what: "2"})
}

// TestOverflow: what had not been given is lost, and Hears says so for ever.
func TestOverflow(t *testing.T) {
	s := newSource()
	dir := t.TempDir()
	wd := watch(t, s, dir, true)
	if !s.Hears() {
		t.Error("does not hear from the start")
	}
	s.Tell(dir, event{what: "1"})
	s.Tell(dir, event{what: "2"})
	s.Overflow(event{what: "overflow"})
	s.Tell(dir, event{what: "3"})
	given(t, s, event{wd: -1, what: "overflow"}, event{wd: wd, what: "3"})
	if s.Hears() {
		t.Error("hears what was dropped")
	}
	watched(t, s, dir, true, true)
}

// TestWait: it takes until the time, a kick, or something to give.
func TestWait(t *testing.T) {
	dir := t.TempDir()
	happens := func(f func(s *Source[event])) func(*Source[event], chan struct{}) {
		return func(s *Source[event], _ chan struct{}) { f(s) }
	}
	tell := func(s *Source[event]) { s.Tell(dir, event{what: "told", written: true}) }
	for _, c := range []struct {
		name   string
		writes bool
		after  func(s *Source[event], kicks chan struct{}) // a second
		want   time.Duration
		given  string
	}{
		{"nothing", true, happens(func(*Source[event]) {}), time.Minute, ""},
		{"kick", true, func(_ *Source[event], kicks chan struct{}) { kicks <- struct{}{} }, time.Second, ""},
		{"told", true, happens(tell), time.Second, "told"},
		{"not watched for that", false, happens(tell), time.Minute, ""},
		{"ended", false, happens(func(s *Source[event]) { s.End(dir, event{what: "ended"}) }), time.Second, "ended"},
		{"overflow", false, happens(func(s *Source[event]) { s.Overflow(event{what: "overflow"}) }), time.Second, "overflow"},
		{"held back", true, happens(func(s *Source[event]) { s.Hold(true); tell(s) }), time.Minute, ""},
		{"held back for a second", true, happens(func(s *Source[event]) {
			s.Hold(true)
			tell(s)
			time.AfterFunc(time.Second, func() { s.Hold(false) })
		}), 2 * time.Second, "told"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				wd := watch(t, s, dir, c.writes)
				s.Tell(dir, event{what: "before"})
				given(t, s, event{wd: wd, what: "before"}) // which wakes nobody any more
				kicks := make(chan struct{}, 1)
				time.AfterFunc(time.Second, func() { c.after(s, kicks) })
				begun := time.Now()
				got := s.Wait(begun.Add(time.Minute), kicks)
				if d := time.Since(begun); d != c.want {
					t.Errorf("waited %v, not %v", d, c.want)
				}
				if c.given == "" && len(got) != 0 || c.given != "" && (len(got) != 1 || got[0].what != c.given) {
					t.Errorf("given %v, not %q", got, c.given)
				}
			})
		})
	}
}

// TestToldByMany: what many tell at once is given once, and by each in its order.
func TestToldByMany(t *testing.T) {
	const tellers, each = 4, 1000
	s := newSource()
	var wg sync.WaitGroup
	for range tellers {
		dir := t.TempDir()
		watch(t, s, dir, true)
		wg.Go(func() {
			for i := range each {
				s.Tell(dir, event{what: strconv.Itoa(i)})
			}
		})
	}
	next := make(map[int]int)
	deadline := time.Now().Add(time.Minute)
	for n := 0; n < tellers*each; {
		events := s.Wait(deadline, nil)
		if len(events) == 0 && time.Now().After(deadline) {
			t.Fatalf("%d of %d were given", n, tellers*each)
		}
		for _, e := range events {
			if e.what != strconv.Itoa(next[e.wd]) {
				t.Fatalf("watch %d: %q after %d others", e.wd, e.what, next[e.wd])
			}
			next[e.wd]++
		}
		n += len(events)
	}
	wg.Wait()
	given(t, s)
}
