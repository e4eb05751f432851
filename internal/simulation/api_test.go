package simulation

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// apiLog is a container's log as the engine's API gives it.
type apiLog struct {
	mu      sync.Mutex
	entries []apiEntry
	running bool
	gone    bool
	ends    []int         // how many entries there were at each exit
	changed chan struct{} // closed at each change
}

// apiEntry is an entry as the engine has stored it.
type apiEntry struct {
	stream entry.Stream
	time   int64
	text   string // with its "\n", if it has one
}

// change changes the log and lets its readers look.
func (l *apiLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// openLog is monitors.StreamMonitorConfig.Open.
func (s *sim) openLog(ctx context.Context, id string, o docker.LogsOptions) (monitors.LogStream, error) {
	s.engine.mu.Lock()
	up := s.engine.up
	var l *apiLog
	for _, c := range s.engine.containers {
		if c.id == id {
			l = &c.api
		}
	}
	s.engine.mu.Unlock()
	switch {
	case !up:
		return nil, errEngine
	case l == nil:
		return nil, docker.ErrNotFound
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st := &stream{log: l, ctx: ctx, end: -1, exits: len(l.ends)}
	if !o.Follow || !l.running {
		st.end = len(l.entries)
	}
	if !o.Since.IsZero() {
		st.since = o.Since.UnixNano()
	}
	return st, nil
}

// stream is an open log.
type stream struct {
	log   *apiLog
	ctx   context.Context //nolint:containedctx // that of the stream's whole life
	since int64
	next  int // of the entries
	end   int // -1: not known yet
	exits int // of the container, when it was opened
}

// Next gives the next entry, or waits for it.
func (s *stream) Next() (docker.Frame, error) {
	for {
		if err := s.ctx.Err(); err != nil {
			return docker.Frame{}, err
		}
		s.log.mu.Lock()
		e, ok := s.peek()
		if ok {
			s.next++
		}
		over := s.end >= 0 && s.next >= s.end || s.log.gone
		changed := s.log.changed
		s.log.mu.Unlock()
		switch {
		case ok:
			return docker.Frame{Time: e.time, Stderr: e.stream == entry.Stderr, Text: []byte(e.text), Fragment: !strings.HasSuffix(e.text, "\n")}, nil
		case over:
			return docker.Frame{}, io.EOF
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
		}
	}
}

// peek gives the next entry if there is one. The log's mutex is held.
func (s *stream) peek() (apiEntry, bool) {
	if s.end < 0 && len(s.log.ends) > s.exits {
		s.end = s.log.ends[s.exits]
	}
	for ; s.next < len(s.log.entries) && (s.end < 0 || s.next < s.end); s.next++ {
		if e := s.log.entries[s.next]; e.time >= s.since {
			return e, true
		}
	}
	return apiEntry{}, false
}

// Buffered reports whether Next would not wait.
func (s *stream) Buffered() bool {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	_, ok := s.peek()
	return ok && s.ctx.Err() == nil
}

// Close closes the stream.
func (s *stream) Close() error { return nil }
