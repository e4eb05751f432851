package dispatch

import (
	"sync"
	"time"
)

const (
	// repeatEvery is how often something that stays or comes back is said again.
	repeatEvery = time.Minute
	// lasting is for how long something that came back sooner goes wrong until it is said all the
	// same: a store that limits the rate refuses and accepts several times a second.
	lasting = 5 * time.Second
)

// trouble is something that goes wrong for a while in some of the lanes. It
// tells who is to say so: a lane in which it goes wrong, and the last one in which
// it ends. Safe for concurrent use.
type trouble struct {
	mu     sync.Mutex
	lanes  []bool // in which it goes wrong
	count  int    // of them
	since  time.Time
	said   bool      // the present trouble was said
	config bool      // as one of configuration
	saidAt time.Time // when something was said last; zero: never
}

func newTrouble(lanes int) *trouble { return &trouble{lanes: make([]bool, lanes)} }

// begin notes that it goes wrong in a lane, or still does, and reports whether to say so: once
// for all lanes, and once more when it turns out to be one of configuration.
func (t *trouble) begin(lane int, config bool, now time.Time) (say bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		t.since, t.said, t.config = now, false, false
	}
	if t.said {
		say = config && !t.config
	} else {
		say = t.saidAt.IsZero() || now.Sub(t.saidAt) >= repeatEvery || now.Sub(t.since) >= lasting
	}
	if !t.lanes[lane] {
		t.lanes[lane] = true
		t.count++
	}
	if say {
		t.said, t.config, t.saidAt = true, config, now
	}
	return say
}

// lasts reports whether to say now that it goes wrong: it has begun in this lane, so soon after
// the last time that it was not to be said, and has stayed.
func (t *trouble) lasts(lane int, now time.Time) (say bool) {
	t.mu.Lock()
	begun := t.lanes[lane]
	t.mu.Unlock()
	return begun && t.begin(lane, false, now)
}

// end notes that all is well in a lane, and reports whether to say so, and how
// long it took: when it was the last lane, and the beginning was said.
func (t *trouble) end(lane int, now time.Time) (say bool, lasted time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.lanes[lane] {
		return false, 0
	}
	t.lanes[lane] = false
	t.count--
	return t.count == 0 && t.said, now.Sub(t.since)
}
