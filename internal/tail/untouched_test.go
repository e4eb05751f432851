package tail

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// fileSystems gives a directory on each kind of file system that is to be had here;
// TMPDIR chooses the first.
func fileSystems(t *testing.T) map[string]string {
	dirs := map[string]string{"temporary": t.TempDir()}
	if dir, err := os.MkdirTemp("/dev/shm", "lc"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		dirs["tmpfs"] = dir
	}
	var st unix.Statfs_t
	base := t.TempDir()
	if unix.Statfs(base, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC && dirs["tmpfs"] != "" {
		base = dirs["tmpfs"] // an overlay does not lie on another
	}
	root := filepath.Join(base, "overlay")
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(root, "merged")
	opts := "lowerdir=" + root + "/lower,upperdir=" + root + "/upper,workdir=" + root + "/work"
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		t.Logf("no overlay: %v", err)
		return dirs
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	dirs["overlay"] = merged
	return dirs
}

// TestUntouched does to a log what Docker and others do. The file held must show it,
// and where it does not that must be known.
func TestUntouched(t *testing.T) {
	const text = "one\ntwo\n"
	for fs, root := range fileSystems(t) {
		for _, c := range []struct {
			name   string
			do     func(path string) error
			hidden bool  // the file held does not show it
			want   State // what Check finds
		}{
			{name: "nothing", do: func(string) error { return nil }, hidden: true},
			{name: "written", do: func(path string) error {
				write(t, path, "three\n")
				return nil
			}, want: Grown},
			{name: "truncated", do: func(path string) error { return os.Truncate(path, 0) }, want: Grown},
			{name: "truncated and written anew to the same length", do: func(path string) error {
				return os.WriteFile(path, []byte("ONE\nTWO\n"), 0o640)
			}, want: Unchanged},
			{name: "renamed", do: func(path string) error { return os.Rename(path, path+".1") }, want: Rotated},
			{name: "renamed and made anew", do: func(path string) error {
				err := os.Rename(path, path+".1")
				write(t, path, text)
				return err
			}, want: Rotated},
			{name: "unlinked", do: os.Remove, want: Rotated},
			{name: "unlinked while it has another name", do: func(path string) error {
				if err := os.Link(path, path+".1"); err != nil {
					return err
				}
				return os.Remove(path)
			}, want: Rotated},
			{name: "replaced", do: func(path string) error {
				write(t, path+".new", text)
				return os.Rename(path+".new", path)
			}, want: Rotated},
			{name: "removed with its directory", do: func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, want: Gone},
			{name: "directory moved away", do: func(path string) error {
				return os.Rename(filepath.Dir(path), filepath.Dir(path)+".away")
			}, hidden: true, want: Gone},
		} {
			t.Run(fs+"/"+c.name, func(t *testing.T) {
				dir, err := os.MkdirTemp(root, "log")
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "log")
				write(t, path, text)
				l := mustOpen(t, path, Options{Settled: -1})
				if l.Untouched() {
					t.Error("untouched before the first look")
				}
				check(t, l, Grown)
				if l.Untouched() {
					t.Error("untouched although there is something to read")
				}
				drain(t, l, 100)
				for range 2 {
					check(t, l, Unchanged)
					if !l.Untouched() {
						t.Fatal("touched by looks")
					}
				}
				dockertest.AwaitTick(t, root)
				if err := c.do(path); err != nil {
					t.Fatal(err)
				}
				if got := l.Untouched(); got != c.hidden {
					t.Errorf("untouched: %v", got)
				}
				check(t, l, c.want)
				if c.want != Unchanged && l.Untouched() {
					t.Error("untouched after a look that has found something")
				}
			})
		}
	}
}

// lookedAt gives a log that has been read as far as it goes, and then looked at.
func lookedAt(t *testing.T, text string) (path string, l *Log) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log")
	write(t, path, text)
	l = mustOpen(t, path, Options{Settled: -1})
	drain(t, l, 100)
	check(t, l, Unchanged)
	return path, l
}

// TestUntouchedOffset: half a line that has been looked at is nothing new; what the
// reader goes back to is.
func TestUntouchedOffset(t *testing.T) {
	_, l := lookedAt(t, "one\nha")
	if !l.Untouched() {
		t.Error("touched")
	}
	_, l = lookedAt(t, "one\n")
	if ok, err := l.SeekTo(l.Seq(), 0); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if l.Untouched() {
		t.Error("untouched although there is something to read again")
	}
}

// TestUntouchedNewFile: what was said of a file is not said of the next.
func TestUntouchedNewFile(t *testing.T) {
	path, l := lookedAt(t, "one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "two\n")
	if _, err := l.Refresh(); err != nil {
		t.Fatal(err)
	}
	if l.Untouched() {
		t.Error("untouched while two files are held")
	}
	drain(t, l, 100)
	if l.Untouched() {
		t.Error("untouched before a look at the new file")
	}
	check(t, l, Unchanged)
	if !l.Untouched() {
		t.Error("touched")
	}
}

func TestSettled(t *testing.T) {
	const s = int64(time.Second)
	for _, c := range []struct {
		ctime, now int64
		age        time.Duration
		want       bool
	}{
		{10 * s, 20 * s, 2 * time.Second, true},
		{18 * s, 20 * s, 2 * time.Second, true},
		{18*s + 1, 20 * s, 2 * time.Second, false}, // its tick may not be over
		{20 * s, 20 * s, 2 * time.Second, false},
		{30 * s, 20 * s, 2 * time.Second, false}, // a clock was set back
		{30 * s, 20 * s, -1, true},
	} {
		if got := settled(c.ctime, c.now, c.age); got != c.want {
			t.Errorf("ctime %d at %d, age %v: %v", c.ctime, c.now, c.age, got)
		}
	}
	// A file that has just been written is not vouched for.
	began := time.Now()
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "one\n")
	l := mustOpen(t, path, Options{})
	drain(t, l, 100)
	check(t, l, Unchanged)
	if l.Untouched() && time.Since(began) < DefaultSettled {
		t.Error("a file is vouched for that may change again within the same tick")
	}
}
