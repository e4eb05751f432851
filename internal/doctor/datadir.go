package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/config"
)

const (
	// slowSync is how long an fsync does not take on a disk that is well. Each
	// batch that goes to the spool waits for one.
	slowSync = 200 * time.Millisecond
	// leastFree is the space that positions and dead letters need, without a spool.
	leastFree = 64 << 20
	// probeBytes is what is written for a try.
	probeBytes = 4 << 10
)

// dataDirFacts is what there is of data_dir.
type dataDirFacts struct {
	Path string
	// Absent: it is not there. Parent is then the first directory above it that
	// is, and ParentErr why the agent could not make it there.
	Absent    bool
	Parent    string
	ParentErr error
	// Err is why it cannot be used.
	Err error
	// ProbeErr is why a file could not be made, written, synced or removed.
	ProbeErr error
	Sync     time.Duration // how long the fsync took
	// Locked: an agent uses it; PID is what that said it is, 0 if nothing.
	Locked bool
	PID    int
	// FileSystem is the magic number of statfs. Free is the space that the agent
	// may still use and Inodes how many files, of which there is no number if
	// Inodes is below 0; StatErr is why they are not known.
	FileSystem   int64
	Free, Inodes int64
	StatErr      error
	// Spooled is what lies in the spool and is to be sent, in bytes.
	Spooled int64
}

// gatherDataDir tries what an agent does in its directory, and leaves nothing
// behind. A directory that is not there is not made.
func gatherDataDir(dir string) dataDirFacts {
	d := dataDirFacts{Path: dir}
	at := dir
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.Absent = true
		d.Parent, d.ParentErr = parentOf(dir)
		at = d.Parent
	case err != nil:
		d.Err = err
	case !st.IsDir():
		d.Err = &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	default:
		d.Locked, d.PID = locked(filepath.Join(dir, "lock"))
		d.Sync, d.ProbeErr = probe(dir)
		d.Spooled = spooled(filepath.Join(dir, "spool"))
	}
	var s unix.Statfs_t
	if err := unix.Statfs(at, &s); err != nil {
		d.StatErr = &fs.PathError{Op: "statfs", Path: at, Err: err}
		return d
	}
	d.FileSystem = int64(s.Type)              //nolint:unconvert // other types on other architectures
	d.Free = int64(s.Bavail) * int64(s.Bsize) //nolint:unconvert // as above
	d.Inodes = int64(s.Ffree)
	if s.Files == 0 {
		d.Inodes = -1
	}
	return d
}

// parentOf gives the first directory above a path that is there, and why nothing
// can be made in it.
func parentOf(path string) (string, error) {
	for p := filepath.Dir(path); ; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist) && p != filepath.Dir(p):
			continue
		case err == nil && !st.IsDir():
			err = unix.ENOTDIR
		case err == nil:
			err = unix.Faccessat(unix.AT_FDCWD, p, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		}
		if err != nil {
			err = &fs.PathError{Op: "mkdir in", Path: p, Err: underlying(err)}
		}
		return p, err
	}
}

// underlying is the error without the path.
func underlying(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// locked says whether an agent holds the lock of data_dir. The lock is shared, and
// held for a moment only: no more is needed to see whether there is another.
func locked(name string) (held bool, pid int) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, 0 // never used, or not to be looked at: the probe tells
	}
	defer f.Close() //nolint:errcheck // nothing was written; it gives the lock back
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return false, 0
	}
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0) // io.EOF as a rule
	pid, err = strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		pid = 0
	}
	return true, pid
}

// probe makes a file, writes and syncs it. It has no name any more by then, so that
// nothing is left behind whatever happens. sync is how long the sync took.
func probe(dir string) (sync time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-probe-*")
	if err != nil {
		return 0, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(make([]byte, probeBytes))
	}
	if err == nil {
		began := time.Now()
		err = f.Sync()
		sync = time.Since(began)
	}
	return sync, cmp.Or(err, f.Close())
}

// spooled gives the size of the segments in the spool's directory, as far as they can be
// seen: not of those that were set aside under other names, which are beside its limit.
func spooled(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it counts what it sees
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && strings.HasSuffix(e.Name(), ".seg") {
			n += info.Size()
		}
		return nil
	})
	return n
}

// checkDataDir: can the agent keep what it must remember?
func checkDataDir(d dataDirFacts) Check {
	err := cmp.Or(d.Err, d.ParentErr, d.ProbeErr)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return Check{nameDataDir, Fail, fmt.Sprintf("%v (as user %d)", err, os.Geteuid()), fmt.Sprintf("make %s, writable for the agent's user (chown); run this command as that user", d.Path)}
	case errors.Is(err, syscall.EROFS):
		return Check{nameDataDir, Fail, err.Error(), "set data_dir to a place that can be written, or mount a volume there"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Check{nameDataDir, Fail, err.Error(), "free space on the file system of data_dir"}
	case errors.Is(err, syscall.ENOTDIR):
		return Check{nameDataDir, Fail, err.Error(), "set data_dir to a directory"}
	case err != nil:
		return Check{nameDataDir, Fail, err.Error(), "check the disk of data_dir"}
	}
	message := fmt.Sprintf("%s can be written, fsync takes %s", d.Path, took(d.Sync))
	if d.Absent {
		message = fmt.Sprintf("%s is not there yet and can be made in %s", d.Path, d.Parent)
	}
	if d.Locked {
		message += "; in use by a running agent"
		if d.PID != 0 {
			message += fmt.Sprintf(" (pid %d as it sees itself)", d.PID)
		}
	}
	switch {
	case d.Sync > slowSync:
		return Check{nameDataDir, Warn, message, "use a faster disk: in an outage of the store the spool waits for each fsync"}
	case volatileFS[d.FileSystem] != "":
		return Check{nameDataDir, Warn, message + ", but it is on " + volatileFS[d.FileSystem], "put it on a local disk that lasts (in a container: a volume), or lines are read again or lost"}
	}
	return Check{Name: nameDataDir, Status: OK, Message: message}
}

// volatileFS are file systems on which data_dir does not belong, by magic number.
var volatileFS = map[int64]string{
	unix.TMPFS_MAGIC:           "tmpfs, which a reboot empties",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs, which goes with the container",
	unix.NFS_SUPER_MAGIC:       "NFS, where locks and syncs are not to be relied on",
	unix.CIFS_SUPER_MAGIC:      "CIFS, where locks and syncs are not to be relied on",
	unix.SMB2_SUPER_MAGIC:      "SMB, where locks and syncs are not to be relied on",
}

// checkSpace: is there room for the spool? With the stdout sink there is none.
func checkSpace(d dataDirFacts, s config.Spool, stdout bool) Check {
	free := size(d.Free) + " free"
	room := d.Free - s.MinFreeBytes
	switch {
	case d.StatErr != nil:
		return Check{nameSpace, Fail, d.StatErr.Error(), "see data_dir"}
	case d.Inodes == 0:
		return Check{nameSpace, Fail, "the file system has no inode left: no file can be made", "remove files there, or make a file system with more inodes"}
	case s.MaxBytes == 0 || stdout:
		if d.Free < leastFree {
			return Check{nameSpace, Warn, free + ", for positions and dead letters", "free space on the file system of data_dir: " + size(leastFree) + " at least"}
		}
		return Check{Name: nameSpace, Status: OK, Message: free + "; there is no spool"}
	case room <= 0:
		return Check{nameSpace, Fail, fmt.Sprintf("%s, which is less than spool.min_free_bytes (%s): the spool takes nothing, and an outage of the store may lose lines", free, size(s.MinFreeBytes)),
			"free space on the file system of data_dir, or lower spool.min_free_bytes"}
	case room+d.Spooled < s.MaxBytes:
		return Check{nameSpace, Warn, fmt.Sprintf("%s: the spool can have %s, less than spool.max_bytes (%s)", free, size(room+d.Spooled), size(s.MaxBytes)),
			"free space on the file system of data_dir, or lower spool.max_bytes to what is to be expected"}
	}
	return Check{Name: nameSpace, Status: OK, Message: fmt.Sprintf("%s, enough for a spool of %s; %s are in it", free, size(s.MaxBytes), size(d.Spooled))}
}
