// Package disktest is a disk in memory for tests: it fails on demand, and a power
// loss takes from it what was not synced. Durability is modelled as the kernel
// gives it:
//
//   - of the writes and truncations since a file's last sync, a power loss keeps
//     any, in whole or in part, in any order: what is missing is NULs where a later
//     one made the file longer; a write into one sector that is there is kept whole
//     or not;
//   - a sync that fails has lost its writes for good: they stay readable, but no
//     later sync brings them to the disk;
//   - a new, renamed or removed name is on the disk after a sync of its directory;
//     before, a power loss keeps the first few of them, in order.
//
// A test mounts the disk for each run of what it tests. After Kill, PowerLoss or
// the end that DieAfter has set, whatever still holds an earlier mount or one of its
// files gets ErrDead, and changes nothing.
package disktest

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/log-capturer/log_capturer/internal/disk"
)

// ErrDead is what the dead get.
var ErrDead = errors.New("the process is dead")

// Op is what can fail; several are or-ed.
type Op uint

// The operations. Open is of files and of directories.
const (
	Open Op = 1 << iota
	Read
	Write
	Truncate
	Sync
	SyncDir
	Rename
	Remove
)

// Counts are of operations that succeeded.
type Counts struct{ Writes, Syncs, DirSyncs int }

// Disk is a disk. All methods are safe for concurrent use.
type Disk struct {
	mu     sync.Mutex
	root   *node
	life   int // of the mounts that are alive
	locks  map[lock]bool
	inodes uint64
	counts Counts

	fail  Op
	limit int64 // of Used; < 0: none
	// readOnly: mounted so.
	readOnly bool
	// dieIn: after so many changes more it is over; < 0: it lives. part: of the
	// write that is cut then, the per cent that get through.
	dieIn, part int
	during      func()
}

type lock struct {
	dir  *node
	name string
}

// New gives an empty disk.
func New() *Disk {
	d := &Disk{limit: -1, dieIn: -1, locks: map[lock]bool{}}
	d.root = d.newNode(true)
	return d
}

// Mount gives the root directory to a new run.
func (d *Disk) Mount() disk.Dir {
	d.mu.Lock()
	defer d.mu.Unlock()
	return dir{d, d.life, d.root}
}

// Kill ends all runs: kill -9. What they wrote is there, synced or not.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kill()
}

func (d *Disk) kill() {
	d.life++
	d.dieIn = -1
	clear(d.locks)
}

// PowerLoss ends all runs and leaves what was on the disk and, as choose says, part
// of the rest: choose(what, n) gives a number from 0, the least, to n. It must not
// use the disk. Faults stay.
func (d *Disk) PowerLoss(choose func(what string, n int) int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kill()
	d.root.lose(choose)
}

// Fail makes operations fail with EIO, besides those that do already.
func (d *Disk) Fail(ops Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail |= ops
}

// Fill leaves room for so many bytes more; a write that needs more is short and gives
// ENOSPC. What is truncated or removed makes room.
func (d *Disk) Fill(room int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = d.root.used() + room
}

// ReadOnly lets nothing be changed any more: EROFS, also for files that are open.
func (d *Disk) ReadOnly() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readOnly = true
}

// DieAfter ends all runs in the change after so many more. If that is a write, part of
// it gets through, in per cent.
func (d *Disk) DieAfter(changes, part int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dieIn, d.part = changes, part
}

// DuringSync has f called once, in the middle of the next sync of a file: what it
// writes is not covered by that sync.
func (d *Disk) DuringSync(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.during = f
}

// Heal ends all faults.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.limit, d.dieIn, d.during, d.readOnly = 0, -1, -1, nil, false
}

// Failing gives the operations that fail; full reports whether room is limited.
func (d *Disk) Failing() (ops Op, full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fail, d.limit >= 0
}

// Counts gives what has succeeded so far.
func (d *Disk) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// Used is the size of all files, in bytes.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.used()
}

// Read gives the bytes of a file as they are seen, and as they would be after a power
// loss that takes all it can; nil, nil without the file.
func (d *Disk) Read(name string) (seen, synced []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.root
	for part := range strings.SplitSeq(name, "/") {
		if n = n.names[part]; n == nil {
			return nil, nil
		}
	}
	return slices.Clone(n.data), slices.Clone(n.disk)
}

// Put makes a file, and the directories above it, that are on the disk.
func (d *Disk) Put(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.root
	parent, base := path.Split(name)
	for part := range strings.FieldsFuncSeq(parent, func(r rune) bool { return r == '/' }) {
		if at.names[part] == nil {
			at.put(part, d.newNode(true))
		}
		at = at.names[part]
	}
	n := d.newNode(false)
	n.data, n.disk = slices.Clone(data), slices.Clone(data)
	at.put(base, n)
}

// Clone is the disk as it would be found after a kill now, without faults.
func (d *Disk) Clone() *Disk {
	c := New()
	d.mu.Lock()
	defer d.mu.Unlock()
	c.root = d.root.clone()
	c.inodes = d.inodes
	return c
}

// node is a file or a directory.
type node struct {
	inode uint64
	isDir bool

	// Of a directory: as seen, as it is on the disk, and what makes the one of the other.
	names, durable map[string]*node
	renames        []func(map[string]*node)

	// Of a file, likewise.
	data, disk []byte
	changes    []change
	gone       int // changes that were before these
}

func (d *Disk) newNode(isDir bool) *node {
	d.inodes++
	n := &node{inode: d.inodes, isDir: isDir}
	if isDir {
		n.names, n.durable = map[string]*node{}, map[string]*node{}
	}
	return n
}

func (n *node) put(name string, child *node) { n.names[name], n.durable[name] = child, child }

// rename changes names.
func (n *node) rename(op func(map[string]*node)) {
	op(n.names)
	n.renames = append(n.renames, op)
}

// write changes bytes.
func (n *node) write(c change) {
	n.data = c.apply(n.data)
	n.changes = append(n.changes, c)
}

func (n *node) used() (bytes int64) {
	for _, c := range n.names {
		bytes += c.used()
	}
	return bytes + int64(len(n.data))
}

func (n *node) clone() *node {
	c := &node{inode: n.inode, isDir: n.isDir, data: slices.Clone(n.data), disk: slices.Clone(n.data)}
	if n.isDir {
		c.names = map[string]*node{}
		for name, child := range n.names {
			c.names[name] = child.clone()
		}
		c.durable = maps.Clone(c.names)
	}
	return c
}

// lose is a power loss.
func (n *node) lose(choose func(string, int) int) {
	if n.isDir {
		for _, op := range n.renames[:choose("names kept", len(n.renames))] {
			op(n.durable)
		}
		n.renames, n.names = nil, maps.Clone(n.durable)
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			n.names[name].lose(choose)
		}
		return
	}
	for _, c := range n.changes {
		switch choose("change kept", 2) {
		case 1: // a part of it
			if c.b != nil && !c.inSector(n.disk) {
				from := choose("from", len(c.b))
				to := from + choose("bytes", len(c.b)-from)
				if from < to {
					n.disk = change{off: c.off + int64(from), b: c.b[from:to]}.apply(n.disk)
				}
			}
		case 2: // all of it
			n.disk = c.apply(n.disk)
		}
	}
	n.data, n.changes = slices.Clone(n.disk), nil
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

// use begins an operation of a run. Called with mu held.
func (d *Disk) use(life int, op Op) error {
	switch {
	case life != d.life:
		return ErrDead
	case d.fail&op != 0:
		return syscall.EIO
	case d.readOnly && op&(Write|Truncate|Rename|Remove) != 0:
		return syscall.EROFS
	}
	return nil
}

// change begins an operation that changes something; after an error it does not
// happen. Called with mu held.
func (d *Disk) change(life int, op Op) error {
	if life == d.life && d.dieIn >= 0 {
		if d.dieIn == 0 {
			d.kill()
		} else {
			d.dieIn--
		}
	}
	return d.use(life, op)
}

// dir is a directory in one run.
type dir struct {
	d    *Disk
	life int
	n    *node
}

func (d dir) List() (all []disk.Info, err error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if err := d.d.use(d.life, Read); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(d.n.names)) {
		all = append(all, d.n.names[name].info(name))
	}
	return all, nil
}

func (n *node) info(name string) disk.Info {
	return disk.Info{Name: name, Size: int64(len(n.data)), Inode: n.inode, IsDir: n.isDir}
}

func (d dir) Open(name string, flag int) (disk.File, error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if err := d.d.use(d.life, Open); err != nil {
		return nil, err
	}
	n := d.n.names[name]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case d.d.readOnly && (n == nil || flag&(os.O_WRONLY|os.O_RDWR) != 0):
		return nil, syscall.EROFS
	case n == nil:
		var err error
		if n, err = d.create(name, false); err != nil {
			return nil, err
		}
	case n.isDir:
		return nil, syscall.EISDIR
	case flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case flag&os.O_TRUNC != 0 && len(n.data) > 0:
		if err := d.d.change(d.life, Open); err != nil {
			return nil, err
		}
		n.write(change{})
	}
	return &file{d: d.d, life: d.life, n: n, name: name, flag: flag}, nil
}

func (d dir) Rename(from, to string) error {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if err := d.d.change(d.life, Rename); err != nil {
		return err
	}
	n := d.n.names[from]
	if n == nil {
		return fs.ErrNotExist
	}
	d.n.rename(func(names map[string]*node) {
		delete(names, from)
		names[to] = n
	})
	return nil
}

func (d dir) Remove(name string) error {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if err := d.d.change(d.life, Remove); err != nil {
		return err
	}
	if d.n.names[name] == nil {
		return fs.ErrNotExist
	}
	d.n.rename(func(names map[string]*node) { delete(names, name) })
	return nil
}

func (d dir) Sync() error {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	return d.sync()
}

func (d dir) sync() error {
	if err := d.d.change(d.life, SyncDir); err != nil {
		return err
	}
	d.n.durable, d.n.renames = maps.Clone(d.n.names), nil
	d.d.counts.DirSyncs++
	return nil
}

// create makes a file or a directory. Called with mu held.
func (d dir) create(name string, isDir bool) (*node, error) {
	if err := d.d.change(d.life, Open); err != nil {
		return nil, err
	}
	n := d.d.newNode(isDir)
	d.n.rename(func(names map[string]*node) { names[name] = n })
	return n, nil
}

func (d dir) Sub(name string) (disk.Dir, error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	n := d.n.names[name]
	switch {
	case n == nil && d.d.readOnly:
		return nil, syscall.EROFS
	case n == nil:
		var err error
		if n, err = d.create(name, true); err != nil {
			return nil, err
		}
	case !n.isDir:
		return nil, syscall.ENOTDIR
	}
	if err := d.sync(); err != nil {
		return nil, err
	}
	return dir{d.d, d.life, n}, nil
}

func (d dir) Free() (int64, error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if err := d.d.use(d.life, 0); err != nil {
		return 0, err
	}
	return d.d.room(), nil
}

// room is by how much files may grow. Called with mu held.
func (d *Disk) room() int64 {
	if d.limit < 0 {
		return 1 << 40
	}
	return max(0, d.limit-d.root.used())
}

// Lock makes no file.
func (d dir) Lock(name string) (io.Closer, error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	if err := d.d.use(d.life, Open); err != nil {
		return nil, err
	}
	l := lock{d.n, name}
	if d.d.locks[l] {
		return nil, &disk.LockedError{}
	}
	d.d.locks[l] = true
	return held{d.d, d.life, l}, nil
}

// held is a lock in one run.
type held struct {
	d    *Disk
	life int
	lock lock
}

func (h held) Close() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.d.use(h.life, 0); err != nil {
		return err
	}
	delete(h.d.locks, h.lock)
	return nil
}

// file is an open file in one run.
type file struct {
	d      *Disk
	life   int
	n      *node
	name   string
	flag   int
	closed bool
}

// use is Disk.use on an open file. Called with mu held.
func (f *file) use(op Op) error {
	if f.closed {
		return os.ErrClosed
	}
	return f.d.use(f.life, op)
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(Read); err != nil {
		return 0, err
	}
	if f.flag&os.O_WRONLY != 0 {
		return 0, syscall.EBADF
	}
	n := copy(b, f.n.data[min(off, int64(len(f.n.data))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.write(b, int64(len(f.n.data)), os.O_APPEND)
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.write(b, off, 0)
}

func (f *file) write(b []byte, off int64, mode int) (int, error) {
	if err := f.use(Write); err != nil {
		return 0, err
	}
	if f.flag&(os.O_WRONLY|os.O_RDWR) == 0 || f.flag&os.O_APPEND != mode {
		return 0, syscall.EBADF
	}
	n := int64(len(b))
	dying := f.d.dieIn == 0
	if dying {
		n = n * int64(f.d.part) / 100
	}
	if over := off + n - int64(len(f.n.data)) - f.d.room(); over > 0 {
		n = max(0, n-over)
	}
	if n > 0 {
		f.n.write(change{off: off, b: slices.Clone(b[:n])})
	}
	if err := f.d.change(f.life, 0); err != nil {
		return 0, err
	}
	if n < int64(len(b)) {
		return int(n), syscall.ENOSPC
	}
	f.d.counts.Writes++
	return int(n), nil
}

func (f *file) Info() (disk.Info, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.n.info(f.name), f.use(0)
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.change(Truncate); err != nil {
		return err
	}
	if size > int64(len(f.n.data)) {
		return errors.New("the file would grow")
	}
	f.n.write(change{off: size})
	return nil
}

// change is Disk.change on an open file. Called with mu held.
func (f *file) change(op Op) error {
	if f.closed {
		return os.ErrClosed
	}
	return f.d.change(f.life, op)
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.change(Sync)
	upTo := f.n.gone + len(f.n.changes)
	if during := f.d.during; during != nil {
		f.d.during = nil
		f.d.mu.Unlock()
		during()
		f.d.mu.Lock()
	}
	if e := f.use(0); e != nil { // by now
		return e
	}
	n := max(0, upTo-f.n.gone) // others may have synced meanwhile
	if err == nil {
		for _, c := range f.n.changes[:n] {
			f.n.disk = c.apply(f.n.disk)
		}
		f.d.counts.Syncs++
	}
	f.n.changes, f.n.gone = f.n.changes[n:], f.n.gone+n
	return err
}

func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(0); err != nil {
		return err
	}
	f.closed = true
	return nil
}
