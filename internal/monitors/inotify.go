package monitors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
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
	// time or a kick. Without writes it goes on waiting when only data has been
	// written.
	wait(until time.Time, writes bool, events []WakeEvent) ([]WakeEvent, error)
	// kick ends the present wait, or the next.
	kick()
	close() error
}

// WakeEvent is one notification.
type WakeEvent struct {
	WD       int
	Appeared bool // a file was created or renamed
	Created  bool // and it is a new log
	Written  bool // data was written
	Ended    bool // the watch is no more: the directory is gone
	// Overflow: events were lost; WD says nothing. With Written they were of
	// writes alone.
	Overflow bool
}

// inotify is the kernel's wakeSource: two instances, since the one must wake at once
// and the other need not. There is one watch per container of files that appear, and
// one more of writes while its log is quiet. golang.org/x/sys is used directly; see
// docs/adr/0002-one-inotify-watch-per-container.md and what has changed since,
// docs/adr/0010-writes-wake-only-who-sleeps.md.
//
//	files  --+
//	         +--> gate (epoll) --> the runtime's poller
//	writes --+    one event, then none until wait lets it through again
type inotify struct {
	gate *os.File // in the runtime's poller
	conn syscall.RawConn
	// The descriptors; open while gate is.
	gateFD, filesFD, writesFD int
	buf                       []byte

	// mu orders kick and wait's new deadline, keeps the descriptors from being closed
	// while they are used, and guards the maps.
	mu             sync.Mutex
	kicked, closed bool
	// A watch of writes by that of files, and the other way.
	writesOf, filesOf map[int]int
}

func newInotify() (_ *inotify, err error) {
	n := &inotify{buf: make([]byte, 64<<10), writesOf: make(map[int]int), filesOf: make(map[int]int), filesFD: -1, writesFD: -1}
	defer func() {
		if err != nil {
			for _, fd := range []int{n.filesFD, n.writesFD} {
				if fd >= 0 {
					_ = unix.Close(fd)
				}
			}
		}
	}()
	for _, fd := range []*int{&n.filesFD, &n.writesFD} {
		if *fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			hint := ""
			if errors.Is(err, unix.EMFILE) {
				hint = ": raise fs.inotify.max_user_instances"
			}
			return nil, fmt.Errorf("inotify_init1: %w%s", err, hint)
		}
	}
	gate, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	n.gateFD = gate
	if err = unix.SetNonblock(gate, true); err == nil { // for os.NewFile to poll it
		err = unix.EpollCtl(gate, unix.EPOLL_CTL_ADD, n.filesFD, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(n.filesFD)})
	}
	if err == nil {
		err = unix.EpollCtl(gate, unix.EPOLL_CTL_ADD, n.writesFD, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(n.writesFD)})
	}
	if err != nil {
		_ = unix.Close(gate)
		return nil, fmt.Errorf("set up epoll: %w", err)
	}
	n.gate = os.NewFile(uintptr(gate), "inotify")
	if n.conn, err = n.gate.SyscallConn(); err != nil {
		_ = n.gate.Close()
		return nil, err
	}
	return n, nil
}

func (n *inotify) watch(dir string, writes bool) (int, error) {
	// IN_DELETE is of no use itself, but keeps the kernel from taking two logs
	// created one after the other for one event.
	const files = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return -1, os.ErrClosed
	}
	wd, err := addWatch(n.filesFD, dir, files)
	if err != nil {
		return -1, err
	}
	if !writes {
		n.noWrites(wd)
		return wd, nil
	}
	w, err := addWatch(n.writesFD, dir, unix.IN_MODIFY|unix.IN_ONLYDIR|unix.IN_EXCL_UNLINK)
	if err != nil {
		return -1, err
	}
	n.writesOf[wd], n.filesOf[w] = w, wd
	return wd, nil
}

func addWatch(fd int, dir string, mask uint32) (int, error) {
	wd, err := unix.InotifyAddWatch(fd, dir, mask)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.ENOSPC) {
			hint = ": raise fs.inotify.max_user_watches"
		}
		return -1, fmt.Errorf("inotify_add_watch %s: %w%s", dir, err, hint)
	}
	return wd, nil
}

// noWrites ends the watch of writes that goes with one of files. mu is held.
func (n *inotify) noWrites(wd int) {
	if w, ok := n.writesOf[wd]; ok {
		delete(n.writesOf, wd)
		delete(n.filesOf, w)
		// EINVAL: the directory is gone, and the watch with it.
		_, _ = unix.InotifyRmWatch(n.writesFD, uint32(w))
	}
}

func (n *inotify) forget(wd int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.noWrites(wd)
	_, _ = unix.InotifyRmWatch(n.filesFD, uint32(wd)) // EINVAL: as above
}

func (n *inotify) kick() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kicked = true
	_ = n.gate.SetReadDeadline(time.Unix(1, 0)) // fails only once closed
}

func (n *inotify) wait(until time.Time, writes bool, events []WakeEvent) ([]WakeEvent, error) {
	if writes {
		if err := unix.EpollCtl(n.gateFD, unix.EPOLL_CTL_MOD, n.writesFD, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(n.writesFD)}); err != nil {
			return events, fmt.Errorf("rearm inotify: %w", err)
		}
	}
	n.mu.Lock()
	if n.kicked {
		until = time.Unix(1, 0)
		n.kicked = false
	}
	err := n.gate.SetReadDeadline(until)
	n.mu.Unlock()
	if err != nil {
		return events, err
	}
	var ready [2]unix.EpollEvent
	var failed error
	err = n.conn.Read(func(fd uintptr) bool {
		k, err := unix.EpollWait(int(fd), ready[:], 0)
		if err != nil && err != unix.EINTR {
			failed = err
		}
		return k > 0 || failed != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n.mu.Lock()
		n.kicked = false
		n.mu.Unlock()
		err = nil
	}
	if err = errors.Join(err, failed); err != nil {
		return events, fmt.Errorf("wait for inotify: %w", err)
	}
	return n.drain(events)
}

// drain takes what is there without waiting. All of it, since what is left of the
// writes would wait for the next tick.
func (n *inotify) drain(events []WakeEvent) ([]WakeEvent, error) {
	for _, fd := range []int{n.filesFD, n.writesFD} {
		for {
			k, err := unix.Read(fd, n.buf)
			if err == unix.EINTR {
				continue
			}
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				return events, fmt.Errorf("read inotify: %w", err)
			}
			from := len(events)
			events = parseInotify(n.buf[:k], events)
			if fd == n.writesFD {
				events = n.named(events, from)
			}
			if k < len(n.buf)-unix.SizeofInotifyEvent-unix.NAME_MAX-1 {
				break // that was all
			}
		}
	}
	return events, nil
}

// named gives events of writes the watches of files, and drops those of watches that
// have ended.
func (n *inotify) named(events []WakeEvent, from int) []WakeEvent {
	n.mu.Lock()
	defer n.mu.Unlock()
	kept := events[:from]
	for _, e := range events[from:] {
		wd, ok := n.filesOf[e.WD]
		switch {
		case e.Overflow:
			e.Written = true
		case e.Ended && ok:
			delete(n.filesOf, e.WD)
			delete(n.writesOf, wd)
			continue
		case !ok || e.Ended:
			continue
		default:
			e.WD = wd
		}
		kept = append(kept, e)
	}
	return kept
}

func (n *inotify) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	n.closed = true
	return errors.Join(n.gate.Close(), unix.Close(n.filesFD), unix.Close(n.writesFD))
}

// logSuffix ends the name of a json-file log (moby, daemon/logger/jsonfilelog).
var logSuffix = []byte("-json.log")

// parseInotify reads struct inotify_event (inotify(7)): wd, mask, cookie, len,
// name.
func parseInotify(b []byte, events []WakeEvent) []WakeEvent {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(b)))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b) {
			break
		}
		name := bytes.TrimRight(b[unix.SizeofInotifyEvent:size], "\x00")
		b = b[size:]
		e := WakeEvent{
			WD:       wd,
			Appeared: mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0,
			Written:  mask&unix.IN_MODIFY != 0,
			Ended:    mask&unix.IN_IGNORED != 0,
			Overflow: mask&unix.IN_Q_OVERFLOW != 0,
		}
		e.Created = mask&unix.IN_CREATE != 0 && bytes.HasSuffix(name, logSuffix)
		if e == (WakeEvent{WD: wd}) {
			continue // a deletion
		}
		// A burst of writes to one file is one reason to look.
		if k := len(events); e.Created || k == 0 || events[k-1] != e {
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

func (p *pollOnly) wait(until time.Time, _ bool, events []WakeEvent) ([]WakeEvent, error) {
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

// outside is the wakeSource over a WakeSource.
type outside struct {
	*pollOnly
	WakeSource
}

func (o outside) watch(dir string, writes bool) (int, error) { return o.Watch(dir, writes) }
func (o outside) forget(wd int)                              { o.Forget(wd) }

func (o outside) wait(until time.Time, _ bool, events []WakeEvent) ([]WakeEvent, error) {
	return append(events, o.Wait(until, o.kicks)...), nil
}
