package server

import (
	"slices"
	"sync"
	"time"
)

const (
	// maxEvents is how many problems are remembered.
	maxEvents = 20
	// flapping: a problem that is back so soon is the one before, once more.
	flapping = 5 * time.Minute
	// maxEventText is the most that is kept of a text, in runes.
	maxEventText = 1000
)

// Event is a problem that there is, or was.
type Event struct {
	Problem
	// See is the address of what is to be done about it.
	See   string    `json:"see"`
	Since time.Time `json:"since"`
	// Until is when it was first seen to be over; nil: there it is.
	Until *time.Time `json:"until,omitempty"`
	// Times is how often it has come, with short pauses.
	Times int `json:"times"`
}

// History remembers the latest problems; as exactly in time as Observe is
// called. It is safe for concurrent use.
type History struct {
	mu     sync.Mutex
	events []remembered // the one that came last is the last
}

type remembered struct {
	Event
	kind string
}

// Observe takes what is wrong now.
func (h *History) Observe(now time.Time, problems []Problem) {
	h.mu.Lock()
	defer h.mu.Unlock()
	present := make(map[string]bool, len(problems))
	// The first is to be the first among what Events gives.
	for _, p := range slices.Backward(problems) {
		kind, see := kindOf(p.What)
		p.What, p.Remedy = visible(p.What, maxEventText), visible(p.Remedy, maxEventText)
		present[kind] = true
		i := h.latest(kind)
		switch {
		case i >= 0 && h.events[i].Until == nil:
			h.events[i].Problem = p
		case i >= 0 && now.Sub(*h.events[i].Until) < flapping:
			e := h.events[i]
			e.Problem, e.Until = p, nil
			e.Times++
			h.events = append(slices.Delete(h.events, i, i+1), e)
		default:
			h.events = append(h.events, remembered{Event{p, see, now, nil, 1}, kind})
		}
	}
	for i := range h.events {
		if e := &h.events[i]; e.Until == nil && !present[e.kind] {
			over := now
			e.Until = &over
		}
	}
	for len(h.events) > maxEvents {
		// What is over is the first to be forgotten.
		i := max(0, slices.IndexFunc(h.events, func(e remembered) bool { return e.Until != nil }))
		h.events = slices.Delete(h.events, i, i+1)
	}
}

// latest finds the newest event of a kind; -1: there is none.
func (h *History) latest(kind string) int {
	for i := len(h.events) - 1; i >= 0; i-- {
		if h.events[i].kind == kind {
			return i
		}
	}
	return -1
}

// Events gives what is remembered, the newest first.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Event, 0, len(h.events))
	for _, e := range slices.Backward(h.events) {
		all = append(all, e.Event)
	}
	return all
}
