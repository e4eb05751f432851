package docker

import "sync"

// queueCap is how many events may wait for a slow watcher: about 5 MB.
const queueCap = 10_000

// queue takes events from the reader of the stream, which must never wait, to
// Watch. What does not fit is dropped together with all that waits; Watch then
// lists instead, which costs less than 10,000 stale events.
type queue struct {
	// wake has a token whenever there may be something new for take.
	wake chan struct{}

	mu       sync.Mutex
	events   []Event // guarded by mu
	overflow bool    // guarded by mu: events were dropped since the last take
	err      error   // guarded by mu: why the stream ended
	max      int
}

func newQueue(max int) *queue { return &queue{wake: make(chan struct{}, 1), max: max} }

// push appends an event.
func (q *queue) push(e Event) {
	q.mu.Lock()
	if len(q.events) >= q.max {
		q.events, q.overflow = nil, true
	}
	q.events = append(q.events, e)
	q.mu.Unlock()
	q.signal()
}

// close says that no event will follow.
func (q *queue) close(err error) {
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// item is what take gives. At most one field is set, in this order: events
// lost, the next event, why the stream ended.
type item struct {
	overflow bool
	event    *Event
	err      error
}

// take gives the next item without waiting; the zero item when there is none.
func (q *queue) take() item {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.overflow {
		q.overflow = false
		return item{overflow: true}
	}
	if len(q.events) > 0 {
		e := q.events[0]
		q.events[0] = Event{} // its labels may go
		if q.events = q.events[1:]; len(q.events) == 0 {
			q.events = nil
		}
		return item{event: &e}
	}
	return item{err: q.err}
}
