package positions

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// memFiles is a directory in memory that fails on demand and can lose what was
// not synced. Durability is modelled as the kernel gives it:
//
//   - a file's bytes up to synced are on the disk; of those behind, a power loss
//     leaves any prefix, or any length with a hole of NULs in it;
//   - a sync that fails loses its bytes for good: they stay readable, but a later
//     sync that succeeds does not bring them to the disk;
//   - a rename or new name is on the disk after SyncDir; before, a power loss
//     keeps the first few of them, in order.
type memFiles struct {
	mu      sync.Mutex
	names   map[string]*inode // as seen
	durable map[string]*inode // on the disk
	pending []func(map[string]*inode)

	// Faults. room: bytes that may still be written; < 0 is no limit.
	room        int
	failTrunc   bool
	failSync    bool
	failRename  bool
	failSyncDir bool
	failOpen    bool
	// during, if set, is called once, in the middle of the next Sync: what it
	// writes is not covered by that sync.
	during func()

	writes, syncs, dirSyncs int // that succeeded
}

type inode struct {
	data   []byte
	synced int   // bytes of data on the disk
	holes  []gap // of those, the ones a failed sync lost
}

type gap struct{ from, to int }

func newMemFiles() *memFiles {
	return &memFiles{names: map[string]*inode{}, durable: map[string]*inode{}, room: -1}
}

func (m *memFiles) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.during = nil
	m.room, m.failTrunc, m.failSync, m.failRename, m.failSyncDir, m.failOpen = -1, false, false, false, false, false
}

// powerLoss leaves what was on the disk and, as choose says, part of the rest.
// choose(n) gives a number from 0 to n.
func (m *memFiles) powerLoss(choose func(label string, n int) int) {
	m.heal()
	for _, op := range m.pending[:choose("renames kept", len(m.pending))] {
		op(m.durable)
	}
	m.pending = nil
	m.names = maps.Clone(m.durable)
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		n := m.names[name]
		tail := len(n.data) - n.synced
		keep := choose("bytes kept", tail)
		n.data = n.data[:n.synced+keep]
		if keep > 0 && choose("hole", 3) == 0 {
			from := choose("hole from", keep)
			to := from + choose("hole bytes", keep-from)
			clear(n.data[n.synced+from : n.synced+to])
		}
		for _, h := range n.holes {
			if h.from < len(n.data) {
				clear(n.data[h.from:min(h.to, len(n.data))])
			}
		}
		n.synced, n.holes = len(n.data), nil
	}
}

// count gives the number of syncs that succeeded.
func (m *memFiles) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncs
}

// fill leaves room for so many bytes.
func (m *memFiles) fill(room int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room = room
}

func (m *memFiles) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(n.data), nil
}

func (m *memFiles) OpenFile(name string, flag int) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failOpen {
		return nil, syscall.EIO
	}
	n := m.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, fs.ErrNotExist
		}
		n = new(inode)
		m.names[name] = n
		m.pending = append(m.pending, func(names map[string]*inode) { names[name] = n })
	}
	if flag&os.O_TRUNC != 0 {
		n.data, n.synced, n.holes = nil, 0, nil
	}
	return &memFile{m: m, n: n}, nil
}

func (m *memFiles) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failRename {
		return syscall.EIO
	}
	n := m.names[from]
	if n == nil {
		return fs.ErrNotExist
	}
	op := func(names map[string]*inode) {
		delete(names, from)
		names[to] = n
	}
	op(m.names)
	m.pending = append(m.pending, op)
	return nil
}

func (m *memFiles) SyncDir() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failSyncDir {
		return syscall.EIO
	}
	m.durable, m.pending = maps.Clone(m.names), nil
	m.dirSyncs++
	return nil
}

type memFile struct {
	m      *memFiles
	n      *inode
	closed bool
}

func (f *memFile) Write(b []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return 0, os.ErrClosed
	}
	n := len(b)
	if f.m.room >= 0 {
		n = min(n, f.m.room)
		f.m.room -= n
	}
	f.n.data = append(f.n.data, b[:n]...)
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	f.m.writes++
	return n, nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.failTrunc {
		return syscall.EIO
	}
	if size > int64(len(f.n.data)) {
		return errors.New("the file would grow")
	}
	if f.m.room >= 0 {
		f.m.room += len(f.n.data) - int(size)
	}
	f.n.data = f.n.data[:size]
	f.n.synced = min(f.n.synced, int(size))
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	size, during := len(f.n.data), f.m.during
	f.m.during = nil
	f.m.mu.Unlock()
	if during != nil {
		during()
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	size = min(size, len(f.n.data))
	if f.closed {
		return os.ErrClosed
	}
	if f.m.failSync {
		f.n.holes = append(f.n.holes, gap{f.n.synced, size})
		f.n.synced = size
		return syscall.EIO
	}
	f.n.synced = size
	f.m.syncs++
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	return nil
}

// noAside stands for the copies of damaged journals.
func noAside(string, []byte, time.Time) (string, error) { return "", nil }

// clone is the directory as another process would find it now.
func (m *memFiles) clone() *memFiles {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemFiles()
	for name, n := range m.names {
		c.names[name] = &inode{data: slices.Clone(n.data)}
	}
	return c
}
