package monitors

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
)

// apiEntry is an entry as the engine has stored it.
type apiEntry struct {
	stderr bool
	time   int64
	text   string // with its "\n", if it has one
}

// fakeAPI is the logs of an engine's containers, as the API gives them.
type fakeAPI struct {
	mu   sync.Mutex
	logs map[string]*fakeAPILog
	// fail, unless nil, is what Open gives.
	fail error
	// firstMatch: since stops filtering at the first match, as from 24.0 on.
	firstMatch bool
	open, most int // connections, now and at most
	opened     map[string]int
}

type fakeAPILog struct {
	entries []apiEntry
	running bool
	ends    []int         // how many entries there were at each exit
	changed chan struct{} // closed at each change
	streams []*fakeStream // all that were opened
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{logs: make(map[string]*fakeAPILog), opened: make(map[string]int)}
}

// change changes a container's log.
func (a *fakeAPI) change(id string, f func(l *fakeAPILog)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.logs[id]
	if l == nil {
		l = &fakeAPILog{changed: make(chan struct{})}
		a.logs[id] = l
	}
	f(l)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (a *fakeAPI) start(id string) { a.change(id, func(l *fakeAPILog) { l.running = true }) }

func (a *fakeAPI) exit(id string) {
	a.change(id, func(l *fakeAPILog) { l.running, l.ends = false, append(l.ends, len(l.entries)) })
}

// write appends entries of stdout, or of stderr if they begin with "!".
func (a *fakeAPI) write(id string, at time.Time, texts ...string) {
	a.change(id, func(l *fakeAPILog) {
		for i, text := range texts {
			text, stderr := strings.CutPrefix(text, "!")
			l.entries = append(l.entries, apiEntry{stderr: stderr, time: at.UnixNano() + int64(i), text: text})
		}
	})
}

// cut breaks all open streams of a container.
func (a *fakeAPI) cut(id string, err error) {
	a.change(id, func(l *fakeAPILog) {
		for _, s := range l.streams {
			s.err = err
		}
	})
}

// failing lets Open fail; nil: no longer.
func (a *fakeAPI) failing(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = err
}

// tries gives how often a container's log was opened, and how many are open now.
func (a *fakeAPI) tries(id string) (opened, open int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened[id], a.open
}

// Open is StreamMonitorConfig.Open.
func (a *fakeAPI) Open(ctx context.Context, id string, o docker.LogsOptions) (LogStream, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened[id]++
	if a.fail != nil {
		return nil, a.fail
	}
	l := a.logs[id]
	if l == nil {
		return nil, docker.ErrNotFound
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &fakeStream{api: a, log: l, ctx: ctx, follow: o.Follow && l.running, end: -1, exits: len(l.ends)}
	if !s.follow {
		s.end = len(l.entries)
	}
	if !o.Since.IsZero() {
		s.since = o.Since.UnixNano()
	}
	l.streams = append(l.streams, s)
	a.open++
	a.most = max(a.most, a.open)
	return s, nil
}

// fakeStream is an open log.
type fakeStream struct {
	api     *fakeAPI
	log     *fakeAPILog
	ctx     context.Context //nolint:containedctx // that of the stream's whole life
	follow  bool
	since   int64
	matched bool
	next    int // of the entries
	end     int // -1: not known yet
	exits   int // of the container, when it was opened
	closed  bool
	err     error
}

// Next gives the next entry, or waits for it.
func (s *fakeStream) Next() (docker.Frame, error) {
	for {
		s.api.mu.Lock()
		f, ok := s.step()
		changed := s.log.changed
		err := s.err
		s.api.mu.Unlock()
		switch {
		case ok:
			return f, nil
		case err != nil:
			return docker.Frame{}, err
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return docker.Frame{}, s.ctx.Err()
		}
	}
}

// step gives the next entry if there is one.
func (s *fakeStream) step() (docker.Frame, bool) {
	if err := s.ctx.Err(); err != nil {
		s.err = err
	}
	if s.err != nil {
		return docker.Frame{}, false
	}
	if s.end < 0 && len(s.log.ends) > s.exits {
		s.end = s.log.ends[s.exits]
	}
	for s.next < len(s.log.entries) && (s.end < 0 || s.next < s.end) {
		e := &s.log.entries[s.next]
		s.next++
		if e.time < s.since && !(s.api.firstMatch && s.matched) {
			continue
		}
		s.matched = true
		return docker.Frame{Time: e.time, Stderr: e.stderr, Text: []byte(e.text), Fragment: !strings.HasSuffix(e.text, "\n")}, true
	}
	if s.end >= 0 && s.next >= s.end {
		s.err = io.EOF
	}
	return docker.Frame{}, false
}

// Buffered reports whether Next would not wait.
func (s *fakeStream) Buffered() bool {
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	limit := len(s.log.entries)
	if s.end >= 0 {
		limit = min(limit, s.end)
	}
	for i := s.next; i < limit; i++ {
		if s.log.entries[i].time >= s.since || s.api.firstMatch && s.matched {
			return s.ctx.Err() == nil
		}
	}
	return false
}

// ended reports whether the clean end is what comes next.
func (s *fakeStream) ended() bool {
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	return s.end >= 0 || len(s.log.ends) > s.exits
}

// Close closes the stream.
func (s *fakeStream) Close() error {
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.api.open--
	}
	return nil
}
