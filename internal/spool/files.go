package spool

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// files is what a lane needs of the directory it lives in. Tests put a file
// system there that fails and crashes.
type files interface {
	// List gives the names of the directory's files, in any order.
	List() ([]string, error)
	// Open opens a file for reading and writing; flag adds to that.
	Open(name string, flag int) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes new, renamed and removed names last through a power loss.
	SyncDir() error
}

// file is an open file of a lane.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
}

// osFiles are the files of a directory.
type osFiles struct{ dir string }

func (o osFiles) List() (names []string, err error) {
	entries, err := os.ReadDir(o.dir)
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (o osFiles) Open(name string, flag int) (file, error) {
	f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return osFile{f}, nil
}

func (o osFiles) Rename(from, to string) error {
	return os.Rename(filepath.Join(o.dir, from), filepath.Join(o.dir, to))
}

func (o osFiles) Remove(name string) error { return os.Remove(filepath.Join(o.dir, name)) }

func (o osFiles) SyncDir() error { return syncDir(o.dir) }

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a directory whose parent is there, and sees to it that it lasts;
// also if it is there: who made it may have been killed before that.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// freeBytes is the space that the agent may still use on a file system.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // other types on other architectures
}

// noSpace reports whether a write failed for want of space.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
