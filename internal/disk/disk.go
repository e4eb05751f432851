package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is one directory. Names are of files in it, without a path.
type Dir interface {
	// List gives the files and directories in it, sorted by name. What is neither is
	// left out.
	List() ([]Info, error)
	// Open opens a file as os.OpenFile does; a new one is for the agent's user alone.
	Open(name string, flag int) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes new, renamed and removed names last through a power loss.
	Sync() error
	// Sub gives a directory in it, makes it if need be and sees to it that it
	// lasts: also if it is there, for who made it may have been killed before that.
	Sub(name string) (Dir, error)
	// Free is the space that the agent may still use on the file system, in bytes.
	Free() (int64, error)
	// Lock keeps others out who lock the same name, here and in other processes,
	// until it is closed or the process ends, however it ends. It gives a
	// *LockedError when somebody else has it, and waits for nobody.
	Lock(name string) (io.Closer, error)
}

// File is an open file. A write that does not write all has an error.
type File interface {
	io.ReaderAt
	io.WriterAt  // not if it was opened with os.O_APPEND
	io.Writer    // only then
	io.Closer    // without a sync
	Sync() error // makes the bytes last, not the name
	Truncate(size int64) error
	Info() (Info, error)
}

// Info is what is known of a file.
type Info struct {
	Name string
	Size int64 // bytes
	// Inode tells files of a directory apart, as long as they are there or open.
	Inode uint64
	IsDir bool
}

// LockedError says that somebody else holds a lock.
type LockedError struct {
	PID int // as the holder sees itself; 0 if it did not say
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "locked by another process"
	}
	return fmt.Sprintf("locked by another process (pid %d as it sees itself)", e.PID)
}

// OS gives a real directory, which need not be there.
func OS(path string) Dir { return osDir(path) }

// Make is OS with a directory that is made, with its parents, if it is not there.
func Make(path string) (Dir, error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return osDir(path), err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return osDir(path), osDir(filepath.Dir(path)).Sync()
}

type osDir string

func (d osDir) path(name string) string { return filepath.Join(string(d), name) }

func (d osDir) List() ([]Info, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, e := range entries {
		if !e.Type().IsRegular() && !e.IsDir() {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		all = append(all, infoOf(fi))
	}
	return all, nil
}

func infoOf(fi fs.FileInfo) Info {
	i := Info{Name: fi.Name(), Size: fi.Size(), IsDir: fi.IsDir()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.Inode = st.Ino
	}
	return i
}

func (d osDir) Open(name string, flag int) (File, error) {
	f, err := os.OpenFile(d.path(name), flag, 0o600)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return osFile{f}, nil
}

func (d osDir) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d osDir) Remove(name string) error { return os.Remove(d.path(name)) }

func (d osDir) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d osDir) Sub(name string) (Dir, error) {
	if err := os.Mkdir(d.path(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return osDir(d.path(name)), d.Sync()
}

func (d osDir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(string(d), &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: string(d), Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // other types on other architectures
}

// Lock leaves the file there: a lock on a removed name excludes no one.
func (d osDir) Lock(name string) (_ io.Closer, err error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if ReadOnly(err) {
		f, err = os.Open(d.path(name))
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is told
		}
	}()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, &LockedError{PID: readPID(f)}
	case err != nil:
		return nil, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	// The number only helps a person; a full disk must not stop the start.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	return f, nil
}

func readPID(f *os.File) int {
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0) // io.EOF as a rule
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}

type osFile struct{ *os.File }

func (f osFile) Info() (Info, error) {
	fi, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

// Reader reads a file from its beginning.
func Reader(f File) io.Reader { return io.NewSectionReader(f, 0, math.MaxInt64) }

// ReadFile reads a whole file.
func ReadFile(d Dir, name string) ([]byte, error) {
	f, err := d.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return io.ReadAll(Reader(f))
}

// NoSpace reports whether something failed for want of space.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ReadOnly reports whether something failed for the file system is mounted read-only,
// as Linux does by itself after some errors of a disk.
func ReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// Hint says what an operator can do about an error of the disk.
func Hint(err error) string {
	switch {
	case NoSpace(err):
		return "free space on the file system of data_dir"
	case ReadOnly(err):
		return "mount the file system of data_dir for writing; if it was, its disk had errors"
	case errors.Is(err, fs.ErrPermission):
		return "make data_dir writable for the agent"
	default:
		return "check the disk of data_dir"
	}
}
