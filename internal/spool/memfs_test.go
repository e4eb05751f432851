package spool

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
)

// memFiles is a directory in memory that fails on demand and can lose what was
// not synced. Durability is modelled as the kernel gives it:
//
//   - of the writes and truncations since a file's last sync, a power loss keeps
//     any, in whole or in part, in any order: what is missing is NULs where a later one
//     made the file longer; a write into one sector that is there is kept whole or not;
//   - a sync that fails has lost its writes for good: they stay readable, but no
//     later sync brings them to the disk;
//   - a new, renamed or removed name is on the disk after SyncDir; before, a
//     power loss keeps the first few of them, in order.
type memFiles struct {
	mu      sync.Mutex
	names   map[string]*inode // as seen
	durable map[string]*inode // on the disk
	pending []func(map[string]*inode)

	// Faults. room: bytes by which files may still grow; < 0 is no limit.
	room       int64
	failTrunc  bool
	failSync   bool
	failDir    bool // SyncDir
	failOpen   bool
	failRemove bool
	failRead   bool

	// dieIn: after so many changes more the process is dead: nothing it does has
	// any effect. A write may be cut there. < 0: it lives.
	dieIn int
	part  int // of the write that is cut, per cent that get through

	syncs, dirSyncs int // that succeeded
}

var errDead = errors.New("the process is dead")

// step counts a change; err: it does not happen. Called with mu held.
func (m *memFiles) step() error {
	if m.dieIn > 0 {
		m.dieIn--
	} else if m.dieIn == 0 {
		return errDead
	}
	return nil
}

type inode struct {
	data    []byte // as seen
	disk    []byte
	pending []change
}

// change is a write, or a truncation where b is nil.
type change struct {
	off int64
	b   []byte
}

func (c change) apply(to []byte) []byte {
	if c.b == nil {
		return to[:min(int64(len(to)), c.off)]
	}
	if grow := c.off + int64(len(c.b)) - int64(len(to)); grow > 0 {
		to = append(to, make([]byte, grow)...)
	}
	copy(to[c.off:], c.b)
	return to
}

// inSector reports whether a change overwrites bytes of one sector: then all of
// it is written or nothing.
func (c change) inSector(disk []byte) bool {
	last := c.off + int64(len(c.b)) - 1
	return last < int64(len(disk)) && c.off/512 == last/512
}

func newMemFiles() *memFiles {
	return &memFiles{names: map[string]*inode{}, durable: map[string]*inode{}, room: -1, dieIn: -1}
}

func (m *memFiles) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room, m.dieIn = -1, -1
	m.failTrunc, m.failSync, m.failDir, m.failOpen, m.failRemove, m.failRead = false, false, false, false, false, false
}

// sick reports whether any fault is on.
func (m *memFiles) sick() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.room >= 0 || m.dieIn >= 0 || m.failTrunc || m.failSync || m.failDir || m.failOpen || m.failRemove || m.failRead
}

// put makes a file that is on the disk.
func (m *memFiles) put(name string, data []byte) {
	n := &inode{data: slices.Clone(data), disk: slices.Clone(data)}
	m.names[name], m.durable[name] = n, n
}

// powerLoss leaves what was on the disk and, as choose says, part of the rest.
// choose(n) gives a number from 0 to n.
func (m *memFiles) powerLoss(choose func(label string, n int) int) {
	m.heal()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range m.pending[:choose("names kept", len(m.pending))] {
		op(m.durable)
	}
	m.pending = nil
	m.names = maps.Clone(m.durable)
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		n := m.names[name]
		for _, c := range n.pending {
			switch choose("change kept", 2) {
			case 0: // all of it
				n.disk = c.apply(n.disk)
			case 1: // a part of it
				if c.b != nil && !c.inSector(n.disk) {
					from := choose("from", len(c.b))
					to := from + choose("bytes", len(c.b)-from)
					if from < to {
						n.disk = change{off: c.off + int64(from), b: c.b[from:to]}.apply(n.disk)
					}
				}
			}
		}
		n.data, n.pending = slices.Clone(n.disk), nil
	}
}

// used is the size of all files.
func (m *memFiles) used() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.names {
		n += int64(len(f.data))
	}
	return n
}

func (m *memFiles) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.names)), nil
}

func (m *memFiles) Open(name string, flag int) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failOpen {
		return nil, syscall.EMFILE
	}
	n := m.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, fs.ErrNotExist
		}
		if err := m.step(); err != nil {
			return nil, err
		}
		n = new(inode)
		m.change(func(names map[string]*inode) { names[name] = n })
	}
	if flag&os.O_TRUNC != 0 && len(n.data) > 0 {
		if err := m.step(); err != nil {
			return nil, err
		}
		n.change(change{})
	}
	return &memFile{m: m, n: n}, nil
}

func (m *memFiles) change(op func(map[string]*inode)) {
	op(m.names)
	m.pending = append(m.pending, op)
}

func (n *inode) change(c change) {
	n.data = c.apply(n.data)
	n.pending = append(n.pending, c)
}

func (m *memFiles) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step(); err != nil {
		return err
	}
	n := m.names[from]
	if n == nil {
		return fs.ErrNotExist
	}
	m.change(func(names map[string]*inode) {
		delete(names, from)
		names[to] = n
	})
	return nil
}

func (m *memFiles) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step(); err != nil {
		return err
	}
	if m.failRemove {
		return syscall.EROFS
	}
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	m.change(func(names map[string]*inode) { delete(names, name) })
	return nil
}

func (m *memFiles) SyncDir() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step(); err != nil {
		return err
	}
	if m.failDir {
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

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return 0, os.ErrClosed
	}
	if f.m.failRead {
		return 0, syscall.EIO
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return 0, os.ErrClosed
	}
	n := int64(len(b))
	if f.m.dieIn == 0 {
		return 0, errDead
	}
	if f.m.dieIn > 0 {
		f.m.dieIn--
	}
	if f.m.dieIn == 0 {
		n = n * int64(f.m.part) / 100
	}
	if grow := off + n - int64(len(f.n.data)); f.m.room >= 0 && grow > 0 {
		if grow > f.m.room {
			n -= grow - f.m.room
			grow = f.m.room
		}
		f.m.room -= grow
	}
	if n > 0 {
		f.n.change(change{off: off, b: slices.Clone(b[:n])})
	}
	if f.m.dieIn == 0 {
		return 0, errDead
	}
	if n < int64(len(b)) {
		return int(max(n, 0)), syscall.ENOSPC
	}
	return int(n), nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.step(); err != nil {
		return err
	}
	if f.m.failTrunc {
		return syscall.EIO
	}
	f.n.change(change{off: size})
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.step(); err != nil {
		return err
	}
	if f.closed {
		return os.ErrClosed
	}
	if f.m.failSync {
		f.n.pending = nil
		return syscall.EIO
	}
	for _, c := range f.n.pending {
		f.n.disk = c.apply(f.n.disk)
	}
	f.n.pending = nil
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
