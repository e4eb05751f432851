package dispatch

import (
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

func TestWay(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		p    passage
		want way
	}{
		{"all is well", passage{empty: true, known: true}, way{divert: true, store: true, patience: spoolAfter}},
		{"failing", passage{empty: true, known: true, failing: 300 * ms}, way{divert: true, store: true, patience: 700 * ms}},
		{"failing for long, the spool takes nothing", passage{empty: true, known: true, failing: time.Hour}, way{divert: true, store: true, patience: leastPatience}},
		{"unlinked", passage{empty: true, known: true, unlinked: true}, way{divert: true, store: true, patience: leastPatience}},
		{"draining", passage{empty: true, known: true, draining: true}, way{divert: true, store: true, patience: spoolAfter}},
		{"draining for long", passage{empty: true, known: true, draining: true, late: true}, way{divert: true, spool: true, store: true}},
		{"slow", passage{empty: true, known: true, slow: true}, way{divert: true, spool: true, store: true}},
		{"slow and unlinked", passage{empty: true, known: true, slow: true, unlinked: true}, way{divert: true, spool: true, store: true}},
		{"behind the queue", passage{known: true}, way{divert: true, spool: true}},
		{"behind the queue, unlinked", passage{known: true, unlinked: true}, way{spool: true}},
		{"behind the queue, draining", passage{known: true, draining: true}, way{spool: true}},
		{"the side is not read yet", passage{empty: true}, way{spool: true}},
	} {
		if got := c.p.way(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestKeeps(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		p    passage
		out  entry.Outcome
		want bool
	}{
		{"first failure", passage{}, entry.Outcome{}, false},
		{"a little later", passage{failing: 400 * ms}, entry.Outcome{}, false},
		{"no time for one more", passage{failing: 500 * ms}, entry.Outcome{}, true},
		{"silent for the second", passage{failing: time.Second}, entry.Outcome{}, true},
		{"is to be asked soon", passage{failing: 100 * ms}, entry.Outcome{RetryAfter: 800 * ms}, false},
		{"is to be left alone", passage{failing: 100 * ms}, entry.Outcome{RetryAfter: 900 * ms}, true},
		{"configuration", passage{}, entry.Outcome{Config: true}, true},
		{"unlinked", passage{unlinked: true}, entry.Outcome{}, true},
		{"draining", passage{draining: true}, entry.Outcome{}, true},
	} {
		if got := c.p.keeps(c.out); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestPace(t *testing.T) {
	now := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
	var p pace
	check := func(what string, slow bool) {
		t.Helper()
		if p.slow != slow {
			t.Errorf("%s: %+v", what, p)
		}
	}
	if p.quick(now) != p {
		t.Error("quick all the time, and something changes")
	}
	p = p.cut(now)
	check("cut", true)
	p = p.quick(now)
	check("quick the next time", false)
	for _, seconds := range []int{10, 20, 40, 80, 160, 320, 600, 600} {
		wait := time.Duration(seconds) * time.Second
		now = now.Add(5 * time.Minute)
		p = p.cut(now)
		now = now.Add(wait - 1)
		p = p.quick(now)
		check("quick too soon after "+wait.String(), true)
		now = now.Add(1)
		p = p.quick(now)
		check("quick after all", false)
	}
	now = now.Add(paceWaitMax)
	p = p.cut(now).quick(now)
	check("cut again after a long time", false)
}
