package monitors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// wakeSource says when to look at which directory. It only wakes: what has
// happened is found out by looking. All methods but wait are safe for
// concurrent use.
type wakeSource interface {
	// watch watches a directory for files that appear or are renamed in it, and
	// with writes for data written to them. Watching it again changes that.
	// wd names it in events.
	watch(dir string, writes bool) (wd int, err error)
	// forget ends a watch. Events under way may still come.
	forget(wd int)
	// wait gives what has happened, appended to events, waiting for it until a
	// time or a kick.
	wait(until time.Time, events []wakeEvent) ([]wakeEvent, error)
	// kick ends the present wait, or the next.
	kick()
	close() error
}

// wakeEvent is one notification.
type wakeEvent struct {
	wd       int
	appeared bool // a file was created or renamed
	created  bool // and it is a new log
	written  bool // data was written
	ended    bool // the watch is no more: the directory is gone
	overflow bool // events were lost; wd says nothing
}

// inotify is the kernel's wakeSource. There is one watch per container, on its
// directory: that of a quiet log tells of writes, that of a busy one only of
// rotations, since an event per line costs more than reading the line.
// golang.org/x/sys is used directly for this change of masks; see
// docs/adr/0002-one-inotify-watch-per-container.md.
type inotify struct {
	f *os.File
	// fd is f's descriptor; f stays open while anything uses it.
	fd  int
	buf []byte

	// mu orders kick and wait's new deadline.
	mu     sync.Mutex
	kicked bool
}

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EMFILE) {
			hint = ": raise fs.inotify.max_user_instances"
		}
		return nil, fmt.Errorf("inotify_init1: %w%s", err, hint)
	}
	return &inotify{f: os.NewFile(uintptr(fd), "inotify"), fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (n *inotify) watch(dir string, writes bool) (int, error) {
	// IN_DELETE is of no use itself, but keeps the kernel from taking two logs
	// created one after the other for one event.
	mask := uint32(unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK)
	if writes {
		mask |= unix.IN_MODIFY
	}
	wd, err := unix.InotifyAddWatch(n.fd, dir, mask)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.ENOSPC) {
			hint = ": raise fs.inotify.max_user_watches"
		}
		return -1, fmt.Errorf("inotify_add_watch %s: %w%s", dir, err, hint)
	}
	return wd, nil
}

func (n *inotify) forget(wd int) {
	// EINVAL: the directory is gone, and the watch with it.
	_, _ = unix.InotifyRmWatch(n.fd, uint32(wd))
}

func (n *inotify) kick() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kicked = true
	_ = n.f.SetReadDeadline(time.Unix(1, 0)) // fails only once closed
}

func (n *inotify) wait(until time.Time, events []wakeEvent) ([]wakeEvent, error) {
	n.mu.Lock()
	if n.kicked {
		until = time.Unix(1, 0)
		n.kicked = false
	}
	err := n.f.SetReadDeadline(until)
	n.mu.Unlock()
	if err != nil {
		return events, err
	}
	k, err := n.f.Read(n.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n.mu.Lock()
		n.kicked = false
		n.mu.Unlock()
		return n.drain(events)
	}
	if err != nil {
		return events, fmt.Errorf("read inotify: %w", err)
	}
	return parseInotify(n.buf[:k], events), nil
}

// drain takes what is there without waiting. A deadline in the past lets
// os.File give up before it has read anything.
func (n *inotify) drain(events []wakeEvent) ([]wakeEvent, error) {
	for {
		k, err := unix.Read(n.fd, n.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return events, nil
		case err != nil:
			return events, fmt.Errorf("read inotify: %w", err)
		}
		return parseInotify(n.buf[:k], events), nil
	}
}

func (n *inotify) close() error { return n.f.Close() }

// logSuffix ends the name of a json-file log (moby, daemon/logger/jsonfilelog).
var logSuffix = []byte("-json.log")

// parseInotify reads struct inotify_event (inotify(7)): wd, mask, cookie, len,
// name.
func parseInotify(b []byte, events []wakeEvent) []wakeEvent {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(b)))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b) {
			break
		}
		name := bytes.TrimRight(b[unix.SizeofInotifyEvent:size], "\x00")
		b = b[size:]
		e := wakeEvent{
			wd:       wd,
			appeared: mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0,
			written:  mask&unix.IN_MODIFY != 0,
			ended:    mask&unix.IN_IGNORED != 0,
			overflow: mask&unix.IN_Q_OVERFLOW != 0,
		}
		e.created = mask&unix.IN_CREATE != 0 && bytes.HasSuffix(name, logSuffix)
		if e == (wakeEvent{wd: wd}) {
			continue // a deletion
		}
		// A burst of writes to one file is one reason to look.
		if k := len(events); e.created || k == 0 || events[k-1] != e {
			events = append(events, e)
		}
	}
	return events
}

// pollOnly is the wakeSource of a system that gives no inotify instance: only
// the poll finds anything.
type pollOnly struct{ kicks chan struct{} }

func newPollOnly() *pollOnly { return &pollOnly{kicks: make(chan struct{}, 1)} }

func (*pollOnly) watch(string, bool) (int, error) { return -1, nil }
func (*pollOnly) forget(int)                      {}
func (*pollOnly) close() error                    { return nil }

func (p *pollOnly) kick() {
	select {
	case p.kicks <- struct{}{}:
	default:
	}
}

func (p *pollOnly) wait(until time.Time, events []wakeEvent) ([]wakeEvent, error) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.kicks:
	}
	return events, nil
}

// WakeSource takes the kernel's place where changes of files are simulated. Like
// inotify it only wakes. Its methods are safe for concurrent use.
type WakeSource interface {
	// Watch watches a directory for files that appear or are renamed in it, and
	// with writes for data written to them. Watching it again changes that. wd
	// names it in events; below zero: it is not watched.
	Watch(dir string, writes bool) (wd int, err error)
	// Forget ends a watch.
	Forget(wd int)
	// Wait gives what has happened, waiting for it until a time or a kick.
	Wait(until time.Time, kicks <-chan struct{}) []WakeEvent
}

// WakeEvent is one notification of a WakeSource.
type WakeEvent struct {
	WD       int
	Appeared bool // a file was created or renamed
	Created  bool // and it is a new log
	Written  bool // data was written
	Ended    bool // the watch is no more: the directory is gone
	Overflow bool // events were lost; WD says nothing
}

// outside is the wakeSource over a WakeSource.
type outside struct {
	*pollOnly
	WakeSource
}

func (o outside) watch(dir string, writes bool) (int, error) { return o.Watch(dir, writes) }
func (o outside) forget(wd int)                              { o.Forget(wd) }

func (o outside) wait(until time.Time, events []wakeEvent) ([]wakeEvent, error) {
	for _, e := range o.Wait(until, o.kicks) {
		events = append(events, wakeEvent{wd: e.WD, appeared: e.Appeared, created: e.Created, written: e.Written, ended: e.Ended, overflow: e.Overflow})
	}
	return events, nil
}
