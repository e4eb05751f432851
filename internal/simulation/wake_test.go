package simulation

import (
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/monitors"
)

// wake is the notifications of one run of the agent, as inotify would give them:
// what the writer does is told at once, unless the scheduler holds it back or has
// the queue overflow.
type wake struct {
	mu      sync.Mutex
	last    int // wd
	dirs    map[string]int
	writes  map[int]bool
	queue   []monitors.WakeEvent
	held    bool
	whole   bool          // no notification was dropped
	arrived chan struct{} // has room for one
}

func newWake() *wake {
	return &wake{dirs: make(map[string]int), writes: make(map[int]bool), whole: true, arrived: make(chan struct{}, 1)}
}

// Watch is monitors.WakeSource.
func (w *wake) Watch(dir string, writes bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := os.Stat(dir); err != nil {
		return -1, &fs.PathError{Op: "watch", Path: dir, Err: fs.ErrNotExist}
	}
	wd, ok := w.dirs[dir]
	if !ok {
		w.last++
		wd = w.last
		w.dirs[dir] = wd
	}
	w.writes[wd] = writes
	return wd, nil
}

// Forget is monitors.WakeSource.
func (w *wake) Forget(wd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir, d := range w.dirs {
		if d == wd {
			delete(w.dirs, dir)
		}
	}
	delete(w.writes, wd)
}

// Wait is monitors.WakeSource.
func (w *wake) Wait(until time.Time, kicks <-chan struct{}) []monitors.WakeEvent {
	if d := time.Until(until); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-w.arrived:
		case <-kicks:
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held {
		return nil
	}
	events := w.queue
	w.queue = nil
	return events
}

// tell queues what has happened in a directory, if that is watched (for that).
func (w *wake) tell(dir string, e monitors.WakeEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, ok := w.dirs[dir]
	if !ok || e.Written && !w.writes[wd] {
		return
	}
	e.WD = wd
	w.queue = append(w.queue, e)
	w.signal()
}

// gone ends the watch of a directory that is no more.
func (w *wake) gone(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wd, ok := w.dirs[dir]; ok {
		delete(w.dirs, dir)
		delete(w.writes, wd)
		w.queue = append(w.queue, monitors.WakeEvent{WD: wd, Ended: true})
		w.signal()
	}
}

// hold keeps notifications back until it is called with false.
func (w *wake) hold(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = on
	w.signal()
}

// overflow has the kernel drop what it has not told.
func (w *wake) overflow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = false
	w.queue = append(w.queue[:0], monitors.WakeEvent{WD: -1, Overflow: true})
	w.signal()
}

// signal wakes Wait. Called with mu held.
func (w *wake) signal() {
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}
