package loki

import (
	"hash/fnv"
	"sync"
	"time"
)

const (
	// maxStreams bounds what is remembered. What is forgotten costs a push of
	// its own for the stream's next lines, nothing else.
	maxStreams = 20_000
	// forgetAfter is when a stream that sends nothing is forgotten: what is known of it
	// counts no more. Containers that come and go leave some hundred bytes each until then.
	forgetAfter = togetherFor
	sweepEvery  = 10 * time.Minute
)

// streamState is what is remembered of a stream. Guarded by streamTable.mu.
type streamState struct {
	proven time.Time // last accepted in a push of its own
	spread time.Duration
	sent   int64     // newest line accepted, ns since the epoch
	used   time.Time // last planned or accepted
	bare   bool      // its structured metadata was refused as too large
	most   int       // bytes that a request may have of it, 0: any number; see shrink
}

// streamTable remembers streams by their label text. Safe for concurrent use;
// the lock is held for map look-ups only, a few times a request.
type streamTable struct {
	mu    sync.Mutex
	m     map[string]*streamState
	swept time.Time
}

// get gives the state of a stream, new or old. The caller holds mu.
func (t *streamTable) get(text string, now time.Time) *streamState {
	s := t.m[text]
	if s == nil {
		if t.m == nil {
			t.m = make(map[string]*streamState)
		}
		t.sweep(now)
		h := fnv.New64a()
		_, _ = h.Write([]byte(text)) // never fails
		s = &streamState{spread: time.Duration(h.Sum64() % uint64(spreadFor))}
		t.m[text] = s
	}
	s.used = now
	return s
}

// sweep forgets idle streams from time to time, and any when there are too
// many. It is called before a stream is added: without new streams nothing
// grows. The caller holds mu.
func (t *streamTable) sweep(now time.Time) {
	if len(t.m) < maxStreams && now.Sub(t.swept) < sweepEvery {
		return
	}
	t.swept = now
	for text, s := range t.m {
		if now.Sub(s.used) > forgetAfter {
			delete(t.m, text)
		}
	}
	if len(t.m) < maxStreams {
		return
	}
	for text := range t.m { // in the map's random order
		if len(t.m) <= maxStreams*3/4 {
			return
		}
		delete(t.m, text)
	}
}

// accepted notes that lines up to the time newest were accepted.
func (t *streamTable) accepted(text string, newest int64, alone bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.get(text, now)
	if s.proven.IsZero() || newest > s.sent {
		s.sent = newest
	}
	if alone {
		s.proven = now
	}
}

const (
	// leastBytes is what a request may have of a stream at least; above mostBytes it is not
	// bounded, as no request is as large.
	leastBytes, mostBytes = 16 << 10, 4 << 20
)

// shrink notes that a request with so many bytes of a stream was more than its rate allows. Loki takes
// all of a stream's lines in a request or none where it shards streams, which it does by default
// (pkg/ingester/stream.go, validateEntries): what is more than per_stream_rate_limit_burst it would never take.
func (t *streamTable) shrink(text string, size int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(text, now).most = max(size/2, leastBytes)
}

// grow notes that so many bytes of a bounded stream were accepted by now in one attempt. Requests of
// one attempt follow each other at once: what they have taken together, one might have.
func (t *streamTable) grow(text string, took int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.get(text, now)
	if took < s.most/2 {
		return // it says nothing
	}
	if s.most *= 2; s.most > mostBytes {
		s.most = 0
	}
}

// strip notes that a stream is to be sent without metadata. It reports whether
// that is new.
func (t *streamTable) strip(text string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.get(text, now)
	was := s.bare
	s.bare = true
	return !was
}
