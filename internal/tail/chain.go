package tail

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Change is what a Refresh found.
type Change struct {
	// Files is the number of files that were new. Each but the very first
	// stands for one rotation.
	Files int
	// Gap is set when the file that was the newest is no longer among the
	// parts of the log: those that came directly after it may have been
	// unlinked before they were seen. It is told again until nothing is behind.
	Gap bool
	// Behind is set when there are more files that are not held yet, KeptOut when
	// there were, since the last look after which there were none.
	Behind, KeptOut bool
}

// add adds what a later look has found.
func (c *Change) add(later Change) {
	c.Files += later.Files
	c.Gap = c.Gap || later.Gap
	c.KeptOut = c.KeptOut || later.KeptOut
	c.Behind = later.Behind
}

// snapshotTries bounds how often a directory is read again because a rotation
// was under way. A rotation takes less than 2 ms, a try some 50 us.
const snapshotTries = 50

// part is one name of the log in its directory.
type part struct {
	index    int // 0: the log itself, 1: the newest rotated part, ...
	gz       bool
	dev, ino uint64
}

// fileKey identifies a file while somebody holds it open.
type fileKey struct{ dev, ino uint64 }

func (p part) key() fileKey { return fileKey{p.dev, p.ino} }

func (f *file) key() fileKey { return fileKey{f.dev, f.ino} }

// Refresh looks at the directory and takes hold of the files that are newer than
// those held. It may be called at any time, from any goroutine.
func (l *Log) Refresh() (Change, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ch Change
	if l.closed {
		return ch, nil
	}
	snap := snapshot{log: l, opened: make(map[fileKey]*file)}
	parts, err := snap.take()
	if err != nil {
		snap.closeAll()
		if errors.Is(err, fs.ErrNotExist) {
			// The directory has gone: with its container, or because a file
			// system was unmounted. The owner learns the former from Docker.
			l.named = l.seq + 1
			err = nil
		}
		return ch, err
	}
	fresh, found := snap.newer(parts)
	if n := len(l.chain); n > 0 {
		newest := l.chain[n-1]
		l.gap = l.gap || !found && len(fresh) > 0
		if len(parts) == 0 || parts[0].index > 0 || parts[0].key() != newest.key() {
			newest.final = true
		}
	}
	l.behind = false
	for _, f := range fresh {
		if n := len(l.chain); n >= l.opt.MaxHeld {
			l.behind = true
			l.chain[n-1].final = true // what is kept out is newer
			break
		}
		delete(snap.opened, f.key())
		if f.gz != nil {
			f.fillPrint()
		}
		l.seq++
		f.seq = l.seq
		if n := len(l.chain); n > 0 {
			l.chain[n-1].final = true
		}
		l.chain = append(l.chain, f)
		ch.Files++
	}
	if snap.refused {
		l.behind = true
		err = ErrDescriptors
	}
	l.keptOut = l.keptOut || l.behind
	ch.Gap, ch.Behind, ch.KeptOut = l.gap, l.behind, l.keptOut
	if !l.behind {
		l.gap, l.keptOut = false, false
	}
	l.named = l.oldestNamed(parts)
	snap.closeAll()
	return ch, err
}

// oldestNamed gives the number of the oldest of the parts, newest first: rotation
// unlinks the oldest, so that those with a name are the last in a row. If none of
// them is held, all that are held come before. mu is held.
func (l *Log) oldestNamed(parts []part) int64 {
	if l.removed {
		return l.seq + 1
	}
	for i, p := range parts {
		for _, f := range l.chain {
			if f.key() == p.key() {
				return f.seq - int64(len(parts)-1-i)
			}
		}
	}
	return l.seq + 1
}

func (o *Options) step() {
	if o.between != nil {
		o.between()
	}
}

// snapshot is one attempt to see all parts of a log at one moment.
type snapshot struct {
	log    *Log
	opened map[fileKey]*file // all that were opened on the way and are not in the chain
	first  map[fileKey]bool  // what the first listing had
	last   map[fileKey]sight // where each file was seen last
	lists  int               // listings made
	// refused: a file was left out because of the bound on descriptors.
	refused bool
}

// sight says in which listing a file was seen last, and under which index.
type sight struct{ list, index int }

// older compares two files that are no longer among the parts: the one written
// to earlier, by a clock that may not tell (some kernels tick every 4 ms), the
// one that vanished first, the one that was seen under the higher number.
func (s *snapshot) older(a, b *file) int {
	x, y := s.last[a.key()], s.last[b.key()]
	return cmp.Or(cmp.Compare(a.mtime(), b.mtime()), cmp.Compare(x.list, y.list), cmp.Compare(y.index, x.index))
}

// take lists and opens until two listings agree. It gives the parts newest
// first; those that are not in the chain are in opened.
//
// The order of the steps matters: a listing goes from the newest name to the
// oldest while rotation renames from the oldest to the newest, so a file that
// moves is seen twice rather than not at all, and the comparison shows it.
func (s *snapshot) take() ([]part, error) {
	held := make(map[fileKey]bool, len(s.log.chain))
	for _, f := range s.log.chain {
		held[f.key()] = true
	}
	var parts []part
	for range snapshotTries {
		var err error
		if parts, err = s.list(); err != nil {
			return nil, err
		}
		if s.first == nil {
			s.first = make(map[fileKey]bool, len(parts))
			for _, p := range parts {
				s.first[p.key()] = true
			}
		}
		s.log.opt.step()
		complete := true
		for _, p := range parts {
			if held[p.key()] {
				break // what is older has been dealt with
			}
			if s.opened[p.key()] != nil {
				continue
			}
			ok, err := s.open(p)
			if err != nil {
				return nil, err
			}
			complete = complete && ok
		}
		s.log.opt.step()
		again, err := s.list()
		if err != nil {
			return nil, err
		}
		if complete && slices.Equal(parts, again) {
			return parts, nil
		}
	}
	return nil, fmt.Errorf("%s: the files of the log changed during each of %d looks at them", s.log.path, snapshotTries)
}

// open takes hold of a part. It is false when the name led to another file by
// then.
func (s *snapshot) open(p part) (bool, error) {
	l := s.log
	if !l.opt.Descriptors.take() {
		s.refused = true
		return true, nil
	}
	l.opt.step()
	name := p.name(l.base)
	fd, err := open(filepath.Join(l.dir, name))
	if err != nil {
		l.opt.Descriptors.give()
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	f := &file{fd: fd, name: name, final: p.index > 0}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		l.release(f)
		if err == nil {
			err = errors.New("not a regular file")
		}
		return false, &os.PathError{Op: "open", Path: filepath.Join(l.dir, name), Err: err}
	}
	f.dev, f.ino = st.Dev, st.Ino
	if f.key() != p.key() {
		l.release(f)
		return false, nil
	}
	f.handle = handleOf(fd, st.Ino)
	if p.gz {
		f.gz = &archive{fd: fd}
	}
	s.opened[f.key()] = f
	return true, nil
}

// newer gives the opened files that are newer than the newest one held, oldest
// first, and whether that one is still among the parts.
func (s *snapshot) newer(parts []part) (fresh []*file, found bool) {
	l := s.log
	var newest *file
	if n := len(l.chain); n > 0 {
		newest = l.chain[n-1]
	}
	listed := make(map[fileKey]bool, len(parts))
	for _, p := range parts { // newest first
		if newest != nil && p.key() == newest.key() {
			found = true
			break
		}
		f := s.opened[p.key()]
		if f == nil {
			continue // kept out by the bound on descriptors
		}
		if newest != nil && (p.gz || f.mtime() < newest.mtime()) {
			// The newest one held may have been compressed meanwhile, or
			// (if that one is empty) one before it. Or it was removed before
			// older ones, with its container.
			if f.fillPrint(); l.knows(f.print) {
				found = true
				break
			}
		}
		listed[f.key()] = true
		fresh = append(fresh, f)
	}
	if s.refused && len(fresh) > 0 {
		// Those kept out may be older than those that were opened; order goes
		// before haste.
		fresh = nil
	}
	slices.Reverse(fresh)
	if found {
		return fresh, true
	}
	// Files that were unlinked while we looked are older than all that are
	// left, and in the order of their last writes.
	var gone []*file
	for _, f := range s.opened {
		if listed[f.key()] || f.gz != nil {
			continue
		}
		f.final = true
		if (newest == nil || s.older(newest, f) < 0) && !archived(f, fresh) {
			gone = append(gone, f)
		}
	}
	slices.SortFunc(gone, s.older)
	return append(gone, fresh...), newest != nil && s.first[newest.key()]
}

// knows reports whether a file with the print is or was in the chain.
func (l *Log) knows(print uint64) bool {
	return print > 1 && (slices.Contains(l.past, print) || slices.ContainsFunc(l.chain, func(f *file) bool {
		if f.gz == nil {
			f.fillPrint()
		}
		return f.print == print
	}))
}

// archived reports whether the content of f is among the files as an archive: it
// was compressed while we looked.
func archived(f *file, among []*file) bool {
	f.fillPrint()
	return f.print != 0 && slices.ContainsFunc(among, func(g *file) bool {
		if g.gz == nil {
			return false
		}
		g.fillPrint()
		return g.print == f.print
	})
}

// mtime gives the time of the last write in nanoseconds.
func (f *file) mtime() int64 {
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil {
		return 0
	}
	return st.Mtim.Nano()
}

func (s *snapshot) closeAll() {
	for _, f := range s.opened {
		s.log.release(f)
	}
	s.opened = nil
}

// list gives the parts of the log, newest first. Of a part and its archive the
// part is taken: the archive may be incomplete. The temporary files that
// Docker's own readers leave (*.tmp) are no parts.
//
// The directory tells only how far the numbers go. Then each name is looked up
// from the newest to the oldest, and one further as long as there is anything:
// a file that rotation moves meanwhile is met again under its next number.
func (s *snapshot) list() ([]part, error) {
	l := s.log
	d, err := os.Open(l.dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close() // opened for reading only
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l.dir, err)
	}
	highest, archives := 0, false
	for _, name := range names {
		if p, ok := parsePart(l.base, name); ok {
			highest = max(highest, p.index)
			archives = archives || p.gz
		}
	}
	if s.last == nil {
		s.last = make(map[fileKey]sight)
	}
	s.lists++
	var parts []part
	for i := 0; i <= highest+1; i++ {
		for _, gz := range []bool{false, true} {
			if gz && (!archives || i == 0) {
				continue
			}
			l.opt.step()
			p := part{index: i, gz: gz}
			var st unix.Stat_t
			if err := stat(filepath.Join(l.dir, p.name(l.base)), &st); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				return nil, &os.PathError{Op: "stat", Path: filepath.Join(l.dir, p.name(l.base)), Err: err}
			}
			highest = max(highest, i)
			p.dev, p.ino = st.Dev, st.Ino
			s.last[p.key()] = sight{s.lists, i}
			parts = append(parts, p)
			break
		}
	}
	return parts, nil
}

func (p part) name(base string) string {
	if p.index == 0 {
		return base
	}
	name := base + "." + strconv.Itoa(p.index)
	if p.gz {
		name += ".gz"
	}
	return name
}

// parsePart reads "base", "base.N" and "base.N.gz".
func parsePart(base, name string) (part, bool) {
	rest, ok := strings.CutPrefix(name, base)
	if !ok {
		return part{}, false
	}
	if rest == "" {
		return part{}, true
	}
	num, ok := strings.CutPrefix(rest, ".")
	if !ok {
		return part{}, false
	}
	num, gz := strings.CutSuffix(num, ".gz")
	index, err := strconv.Atoi(num)
	if err != nil || index < 1 || strconv.Itoa(index) != num {
		return part{}, false
	}
	return part{index: index, gz: gz}, true
}
