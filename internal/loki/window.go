package loki

import (
	"sync"
	"time"
)

const (
	// maxFlights is how many requests of a lane are on their way at once at most. There is one
	// where the store answers before the next is encoded.
	maxFlights = 16
	// Answers that take less than quickAnswer let the window grow, those that take more than
	// slowAnswer let it shrink: on a thin line, and from a store with too much to do, they take
	// the longer the more there are at once. Dispatch gives up after a second.
	quickAnswer, slowAnswer = 250 * time.Millisecond, 500 * time.Millisecond
	// lowFor is for how long the window grows to half at most of what it was when the store failed: one
	// that takes only so many requests at once would fail again and again.
	lowFor = time.Minute
	// nearestFor is for how long the shortest time of an answer is looked for. What was found counts
	// for as long again.
	nearestFor = 30 * time.Second
)

// window is how many requests each lane may have on their way. Safe for concurrent use.
type window struct {
	mu   sync.Mutex
	n    int
	most int // constant
	// Until then it is half of what it was when the store failed, at most.
	until time.Time
	half  int
	// The shortest times of an answer since a moment, and in the nearestFor before; 0: there was none.
	shortest, shortestBefore time.Duration
	since                    time.Time
}

func (w *window) get() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// note brings it up to date after an answer. narrow tells that another request could have been
// sent but for the window.
func (w *window) note(k kind, took time.Duration, narrow bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n > 1 && failed(k) {
		w.half, w.until = w.n/2, now.Add(lowFor)
	}
	most := w.most
	if now.Before(w.until) {
		most = w.half
	}
	w.n = min(nextWindow(w.n, k, took, narrow), most)
	if k == kindAccepted {
		w.turn(now)
		w.shortest = shorter(w.shortest, took)
	}
}

// distance is how long the store takes to answer however little it is sent: the shortest time of
// an answer of late. 0: there was none.
func (w *window) distance(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn(now)
	return shorter(w.shortest, w.shortestBefore)
}

// turn forgets times that are too old. Called with mu held.
func (w *window) turn(now time.Time) {
	switch age := now.Sub(w.since); {
	case age >= 2*nearestFor:
		w.shortest, w.shortestBefore, w.since = 0, 0, now
	case age >= nearestFor:
		w.shortest, w.shortestBefore, w.since = 0, w.shortest, now
	}
}

// shorter gives the shorter of two times, of those that are known.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// failed reports whether a verdict is on the store, and not on what was sent.
func failed(k kind) bool { return k == kindRetry || k == kindPause || k == kindConfig }

// nextWindow gives the window after an answer. A store that fails is tried with one request.
// One that refuses lines, or a stream, is well. Answers show that it may have one more only where
// one more was to be sent: those to the small requests of quiet times say nothing of many large ones
// at once, and those to what was on its way with a request that has failed nothing of what it takes now.
func nextWindow(n int, k kind, took time.Duration, narrow bool) int {
	switch {
	case failed(k):
		return 1
	case took > slowAnswer:
		return max(1, n/2)
	case narrow && took < quickAnswer && k == kindAccepted:
		return n + 1
	default:
		return n
	}
}
