package positions

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	journalName = "positions.journal"
	tempName    = journalName + ".tmp" // one agent per directory: one name is enough
	lockName    = "lock"
	keepAside   = 3 // copies of damaged journals
)

// files is what the store needs of the directory it lives in. Tests put a file
// system there that fails and crashes.
type files interface {
	ReadFile(name string) ([]byte, error)
	// OpenFile opens a file for appending, mode 0600; flag adds to that.
	OpenFile(name string, flag int) (file, error)
	Rename(from, to string) error
	// SyncDir makes renames and new files last through a power loss.
	SyncDir() error
}

// file is an open journal. Writes append.
type file interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

// osFiles are the files of a directory.
type osFiles struct{ dir string }

func (o osFiles) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(o.dir, name))
}

func (o osFiles) OpenFile(name string, flag int) (file, error) {
	// O_APPEND: after Truncate the next write goes to the new end.
	f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_WRONLY|os.O_APPEND|flag, 0o600)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

func (o osFiles) Rename(from, to string) error {
	return os.Rename(filepath.Join(o.dir, from), filepath.Join(o.dir, to))
}

func (o osFiles) SyncDir() error { return syncDir(o.dir) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// setAside keeps a copy of a journal that cannot be used as it is, and only the
// newest few such copies of a kind. It gives the copy's name.
func (o osFiles) setAside(kind string, data []byte, now time.Time) (string, error) {
	prefix := filepath.Join(o.dir, journalName+"."+kind+"-")
	// Fixed width, so that names sort by time.
	name := prefix + now.UTC().Format("20060102T150405.000000000Z")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(name) // half a copy helps no one; the first error is told
		return "", err
	}
	old, _ := filepath.Glob(prefix + "*") // a directory whose name is a bad pattern: all are kept
	slices.Sort(old)
	for _, n := range old[:max(0, len(old)-keepAside)] {
		_ = os.Remove(n) // one copy too many does no harm
	}
	return name, nil
}

// LockedError says that another agent uses the directory.
type LockedError struct {
	Dir string
	PID int // 0 if the holder did not say
}

func (e *LockedError) Error() string {
	who := "another log_capturer"
	if e.PID != 0 {
		who += fmt.Sprintf(" (pid %d as it sees itself)", e.PID)
	}
	return fmt.Sprintf("data_dir %s is in use by %s: stop that one, or give this one a data_dir of its own", e.Dir, who)
}

// lockDir makes the directory if need be and takes the lock on it, which the
// kernel gives back when the process ends, however it ends. The lock file is
// never removed: a lock on a removed name excludes no one.
func lockDir(dir string) (_ *os.File, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data_dir: %w", err)
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, fmt.Errorf("sync the parent of data_dir: %w", err)
		}
	}
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of data_dir (the agent must be able to write there): %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is told
		}
	}()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, &LockedError{Dir: dir, PID: readPID(f)}
	case err != nil:
		return nil, fmt.Errorf("lock %s (data_dir must be on a file system with flock): %w", name, err)
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

// writeAll writes b in one call. It gives an error for a short write too.
func writeAll(f file, b []byte) (int, error) {
	n, err := f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// hint says what an operator can do about an error of the disk.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the file system of data_dir"
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "make data_dir writable for the agent"
	default:
		return "check the disk of data_dir"
	}
}
