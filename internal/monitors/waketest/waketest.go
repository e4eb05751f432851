// Package waketest takes the kernel's place where a test tells a file monitor what
// has happened to files: Source is a monitors.WakeSource.
//
// It does not know that package, whose own tests use it: the type of the
// notifications is a parameter.
package waketest

import (
	"os"
	"sync"
	"time"
)

// Source gives what it is told at once, unless it is held back, and nothing of what is
// not watched. Its methods are safe for concurrent use.
type Source[E any] struct {
	fields func(e *E) (wd *int, written bool)

	mu      sync.Mutex
	last    int // wd
	dirs    map[string]int
	writes  map[int]bool
	queue   []E
	held    bool
	dropped bool
	failing error
	arrived chan struct{} // has room for one: there is something to give
}

// New gives a Source that watches nothing. fields says where a notification names its
// watch, and whether it is of data written.
func New[E any](fields func(e *E) (wd *int, written bool)) *Source[E] {
	return &Source[E]{fields: fields, dirs: make(map[string]int), writes: make(map[int]bool), arrived: make(chan struct{}, 1)}
}

// Watch is of monitors.WakeSource.
func (s *Source[E]) Watch(dir string, writes bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return -1, s.failing
	}
	if _, err := os.Stat(dir); err != nil {
		return -1, err
	}
	wd, ok := s.dirs[dir]
	if !ok {
		s.last++
		wd = s.last
		s.dirs[dir] = wd
	}
	s.writes[wd] = writes
	return wd, nil
}

// Forget is of monitors.WakeSource.
func (s *Source[E]) Forget(wd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for dir, d := range s.dirs {
		if d == wd {
			delete(s.dirs, dir)
		}
	}
	delete(s.writes, wd)
}

// Wait is of monitors.WakeSource.
func (s *Source[E]) Wait(until time.Time, kicks <-chan struct{}) []E {
	if d := time.Until(until); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.arrived:
		case <-kicks:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return nil
	}
	events := s.queue
	s.queue = nil
	s.signal()
	return events
}

// Fail lets Watch fail.
func (s *Source[E]) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err
}

// Watched reports whether a directory is watched, and for writes.
func (s *Source[E]) Watched(dir string) (ok, writes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wd, ok := s.dirs[dir]
	return ok, s.writes[wd]
}

// Tell queues what has happened in a directory, if that is watched (for that).
func (s *Source[E]) Tell(dir string, e E) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wd, ok := s.dirs[dir]
	of, written := s.fields(&e)
	if !ok || written && !s.writes[wd] {
		return
	}
	*of = wd
	s.queue = append(s.queue, e)
	s.signal()
}

// End is Tell of a directory that is no more, whose watch ends so.
func (s *Source[E]) End(dir string, e E) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wd, ok := s.dirs[dir]; ok {
		delete(s.dirs, dir)
		delete(s.writes, wd)
		of, _ := s.fields(&e)
		*of = wd
		s.queue = append(s.queue, e)
		s.signal()
	}
}

// Hold keeps notifications back until it is called with false.
func (s *Source[E]) Hold(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = on
	s.signal()
}

// Overflow has the kernel drop what it has not told; e says so.
func (s *Source[E]) Overflow(e E) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = true
	of, _ := s.fields(&e)
	*of = -1
	s.queue = append(s.queue[:0], e)
	s.signal()
}

// Hears reports whether nothing is held back, and nothing was ever dropped.
func (s *Source[E]) Hears() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.held && !s.dropped
}

// signal has arrived tell whether there is something to give. Called with mu held, by
// which alone it is sent to.
func (s *Source[E]) signal() {
	select {
	case <-s.arrived:
	default:
	}
	if !s.held && len(s.queue) > 0 {
		s.arrived <- struct{}{}
	}
}
