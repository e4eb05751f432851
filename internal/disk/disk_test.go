package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is made is for the agent's user alone.
func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var", "data")
	for range 2 { // what is there is taken as it is
		d, err := Make(path)
		must(t, err)
		sub, err := d.Sub("sub")
		must(t, err)
		f, err := sub.Open("file", os.O_WRONLY|os.O_CREATE)
		must(t, err)
		must(t, f.Close())
		must(t, sub.Sync())
	}
	for name, mode := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, "sub": fs.ModeDir | 0o700, "sub/file": 0o600} {
		if fi, err := os.Stat(filepath.Join(path, name)); err != nil || fi.Mode() != mode {
			t.Errorf("%q: %v, %v; want %v", name, fi.Mode(), err, mode)
		}
	}
	if _, err := Make(filepath.Join(path, "sub", "file", "no directory")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("made below a file: %v", err)
	}
}

func TestLockTellsWhoHasIt(t *testing.T) {
	d := OS(t.TempDir())
	lock, err := d.Lock("lock")
	must(t, err)
	var locked *LockedError
	if _, err := d.Lock("lock"); !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Error() != fmt.Sprintf("locked by another process (pid %d as it sees itself)", os.Getpid()) {
		t.Fatal(err)
	}
	must(t, lock.Close())
	lock, err = d.Lock("lock")
	must(t, err)
	must(t, lock.Close())
}

func TestListLeavesOutWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("abc"), 0o600))
	all, err := OS(dir).List()
	if err != nil || len(all) != 1 || all[0].Name != "file" || all[0].Size != 3 || all[0].Inode == 0 {
		t.Fatalf("%+v, %v", all, err)
	}
}

func TestFree(t *testing.T) {
	if n, err := OS(t.TempDir()).Free(); err != nil || n <= 0 {
		t.Fatal(n, err)
	}
	if _, err := OS(filepath.Join(t.TempDir(), "not there")).Free(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestHint(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ENOSPC: "free space on the file system of data_dir",
		syscall.EDQUOT: "free space on the file system of data_dir",
		syscall.EROFS:  "mount the file system of data_dir for writing; if it was, its disk had errors",
		syscall.EACCES: "make data_dir writable for the agent",
		syscall.EIO:    "check the disk of data_dir",
	} {
		if got := Hint(fmt.Errorf("write: %w", err)); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
