package doctor

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/positions"
)

func TestCheckDataDir(t *testing.T) {
	on := func(err error) error { return &fs.PathError{Op: "open", Path: "/d", Err: err} }
	for what, c := range map[string]struct {
		d    dataDirFacts
		want want
	}{
		"well":          {dataDirFacts{Path: "/d", Sync: time.Millisecond}, want{OK, "/d can be written, fsync takes 1ms", ""}},
		"in use":        {dataDirFacts{Path: "/d", Locked: true, PID: 7}, want{OK, "in use by a running agent (pid 7", ""}},
		"absent":        {dataDirFacts{Path: "/d", Absent: true, Parent: "/"}, want{OK, "/d is not there yet and can be made in /", ""}},
		"not creatable": {dataDirFacts{Path: "/d", Absent: true, Parent: "/", ParentErr: on(unix.EACCES)}, want{Fail, "permission denied", "writable"}},
		"closed":        {dataDirFacts{Path: "/d", ProbeErr: on(unix.EACCES)}, want{Fail, "permission denied (as user", "make /d, writable"}},
		"read-only":     {dataDirFacts{Path: "/d", ProbeErr: on(unix.EROFS)}, want{Fail, "read-only", "mount a volume"}},
		"full":          {dataDirFacts{Path: "/d", ProbeErr: on(unix.ENOSPC)}, want{Fail, "no space", "free space"}},
		"quota":         {dataDirFacts{Path: "/d", ProbeErr: on(unix.EDQUOT)}, want{Fail, "quota", "free space"}},
		"a file":        {dataDirFacts{Path: "/d", Err: on(unix.ENOTDIR)}, want{Fail, "not a directory", "directory"}},
		"broken":        {dataDirFacts{Path: "/d", ProbeErr: on(unix.EIO)}, want{Fail, "input/output", "check the disk"}},
		"slow":          {dataDirFacts{Path: "/d", Sync: time.Second}, want{Warn, "fsync takes 1s", "faster disk"}},
		"tmpfs":         {dataDirFacts{Path: "/d", FileSystem: unix.TMPFS_MAGIC}, want{Warn, "a reboot empties", "volume"}},
		"overlay":       {dataDirFacts{Path: "/d", FileSystem: unix.OVERLAYFS_SUPER_MAGIC}, want{Warn, "goes with the container", "volume"}},
		"NFS":           {dataDirFacts{Path: "/d", FileSystem: unix.NFS_SUPER_MAGIC}, want{Warn, "NFS", "local disk"}},
	} {
		is(t, what, checkDataDir(c.d), c.want)
	}
}

func TestCheckSpace(t *testing.T) {
	const mib = 1 << 20
	spool := config.Spool{MaxBytes: 100 * mib, MinFreeBytes: 10 * mib}
	for what, c := range map[string]struct {
		d      dataDirFacts
		s      config.Spool
		stdout bool
		want   want
	}{
		"well":         {dataDirFacts{Free: 110 * mib, Inodes: 1}, spool, false, want{OK, "enough for a spool of 100.0 MiB; 0 bytes are in it", ""}},
		"some is used": {dataDirFacts{Free: 60 * mib, Inodes: -1, Spooled: 50 * mib}, spool, false, want{OK, "50.0 MiB are in it", ""}},
		"too little":   {dataDirFacts{Free: 110*mib - 1, Inodes: 1}, spool, false, want{Warn, "less than spool.max_bytes (100.0 MiB)", "lower spool.max_bytes"}},
		"none":         {dataDirFacts{Free: 10 * mib, Inodes: 1}, spool, false, want{Fail, "the spool takes nothing", "spool.min_free_bytes"}},
		"no inode":     {dataDirFacts{Free: 1 << 40}, spool, false, want{Fail, "inode", "inodes"}},
		"no spool":     {dataDirFacts{Free: 64 * mib, Inodes: 1}, config.Spool{MinFreeBytes: 1 << 40}, false, want{OK, "there is no spool", ""}},
		"stdout":       {dataDirFacts{Free: 64 * mib, Inodes: 1}, spool, true, want{OK, "there is no spool", ""}},
		"and no space": {dataDirFacts{Free: 64*mib - 1, Inodes: 1}, config.Spool{}, false, want{Warn, "dead letters", "free space"}},
		"not known":    {dataDirFacts{StatErr: unix.EIO}, spool, false, want{Fail, "input/output", "data_dir"}},
	} {
		is(t, what, checkSpace(c.d, c.s, c.stdout), c.want)
	}
}

// empty fails the test if something was left in a directory.
func empty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%s has %v, %v", dir, entries, err)
	}
}

func TestGatherDataDir(t *testing.T) {
	dir := t.TempDir()
	d := gatherDataDir(dir)
	if d.Absent || d.Err != nil || d.ProbeErr != nil || d.Sync <= 0 || d.StatErr != nil || d.Free <= 0 || d.FileSystem == 0 || d.Locked {
		t.Errorf("%+v", d)
	}
	empty(t, dir)

	absent := filepath.Join(dir, "a", "b")
	if d := gatherDataDir(absent); !d.Absent || d.Parent != dir || d.ParentErr != nil || d.Err != nil || d.Free <= 0 {
		t.Errorf("absent: %+v", d)
	}
	empty(t, dir) // it is not made

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if c := checkDataDir(gatherDataDir(path)); c.Status != Fail || c.Remedy != "set data_dir to a directory" {
			t.Errorf("%s: %+v", path, c)
		}
	}
}

// TestGatherDataDirInUse: an agent that runs is seen, and one can start after.
func TestGatherDataDirInUse(t *testing.T) {
	dir := t.TempDir()
	s, err := positions.Open(positions.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	spool := filepath.Join(dir, "spool", "lane-0")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, bytes := range map[string]int{"1.seg": 700, "2.seg": 300, "0.seg.lost-frames": 5000, "0.seg.unknown-version-2": 5000} {
		if err := os.WriteFile(filepath.Join(spool, name), make([]byte, bytes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if d := gatherDataDir(dir); !d.Locked || d.PID != os.Getpid() || d.ProbeErr != nil || d.Spooled != 1000 {
		t.Errorf("in use: %+v", d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d := gatherDataDir(dir); d.Locked || d.ProbeErr != nil {
		t.Errorf("no more: %+v", d)
	}
	if s, err = positions.Open(positions.Config{Dir: dir}); err != nil {
		t.Fatalf("the lock was kept: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
