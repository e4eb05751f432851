package dispatch

import (
	"sync"
	"time"
)

// repeatEvery is how often something that stays or comes back is said again.
const repeatEvery = time.Minute

// trouble is something that goes wrong for a while in some of the lanes. It
// tells who is to say so: the lane in which it begins, and the last one in which
// it ends. Safe for concurrent use.
type trouble struct {
	every time.Duration // at least, from one beginning that is said to the next

	mu     sync.Mutex
	lanes  []bool // in which it goes wrong
	count  int    // of them
	since  time.Time
	said   bool      // the present trouble was said
	config bool      // and that it is one of configuration
	saidAt time.Time // when something was said last; zero: never
}

func newTrouble(lanes int, every time.Duration) *trouble {
	return &trouble{every: every, lanes: make([]bool, lanes)}
}

// begin notes that it goes wrong in a lane, and reports whether to say so: once
// for all lanes, and once more when it turns out to be one of configuration.
func (t *trouble) begin(lane int, config bool, now time.Time) (say bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		t.since, t.config = now, config
		t.said = t.saidAt.IsZero() || now.Sub(t.saidAt) >= t.every
		say = t.said
	} else if config && !t.config && t.said {
		t.config, say = true, true
	}
	if !t.lanes[lane] {
		t.lanes[lane] = true
		t.count++
	}
	if say {
		t.saidAt = now
	}
	return say
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
