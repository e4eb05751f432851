package tail

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// TestLeft: what is unread counts as lost when it lies in files that have no name,
// to the byte.
func TestLeft(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 2, false, false)
	defer w.Close()
	w.line(10)
	l := mustOpen(t, w.Path, Options{})
	want := func(bytes, named int64) {
		t.Helper()
		if got, archives := l.Left(); got != bytes || archives != 0 || l.Named() != named {
			t.Errorf("%d bytes and %d archives would be lost, %d is the oldest with a name; want %d, 0, %d", got, archives, l.Named(), bytes, named)
		}
	}
	rotate := func() {
		t.Helper()
		w.rotate()
		if _, err := l.Refresh(); err != nil {
			t.Fatal(err)
		}
		w.line(10)
	}
	want(0, 1)
	rotate()
	want(0, 1)
	rotate()
	want(13, 2) // "1 xxxxxxxxxx\n"
	rotate()
	want(26, 3)
	if c := next(t, l, 100); string(c.Data) != "1 xxxxxxxxxx\n" {
		t.Fatalf("%+v", c)
	}
	want(13, 3)
	next(t, l, 100)
	want(0, 3)
	l.MarkFinal() // the container is no more
	want(0, 5)
	if err := os.RemoveAll(filepath.Dir(w.Path)); err != nil {
		t.Fatal(err)
	}
	want(26, 5)
	drain(t, l, 100)
	want(0, 5)
}

// TestLeftArchives: how much is left of an archive is not known until it has been
// read to its end.
func TestLeftArchives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path+".2.gz", string(dockertest.Gzip(t, []byte("1\n2\n"))))
	write(t, path+".1.gz", string(dockertest.Gzip(t, []byte("3\n"))))
	l := mustOpen(t, path, Options{})
	want := func(archives int) {
		t.Helper()
		if bytes, got := l.Left(); bytes != 0 || got != archives {
			t.Errorf("%d bytes and %d archives, want 0 and %d", bytes, got, archives)
		}
	}
	want(0)
	for _, n := range []string{".1.gz", ".2.gz"} {
		if err := os.Remove(path + n); err != nil {
			t.Fatal(err)
		}
	}
	want(2)
	next(t, l, 3) // one line of two
	want(2)
	next(t, l, 3)
	next(t, l, 3) // "3\n", and there is no more
	want(0)
}

// TestGiveUp: a file that breaks in the middle is left behind, once, with the
// number of bytes that are lost; reading goes on in the next.
func TestGiveUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path+".1", "read\nlost\n")
	write(t, path, "live\n")
	l := mustOpen(t, path, Options{})
	if c := next(t, l, 9); string(c.Data) != "read\n" {
		t.Fatalf("%+v", c)
	}
	// A descriptor that cannot be read from stands for a broken disk.
	broken, err := unix.Open(path+".1", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Dup3(broken, l.chain[0].fd, unix.O_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(broken)
	if c, err := l.Next(make([]byte, 100)); err == nil || c.Lost != 5 || c.LostArchive || len(c.Data) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if n := l.Unread(); n != 5 {
		t.Errorf("%d bytes unread, want those of the next file", n)
	}
	if got := drain(t, l, 100); got != "live\n" {
		t.Errorf("then %q", got)
	}
}

// TestTruncatedUnread: of what truncation has taken that part is told that had
// been seen.
func TestTruncatedUnread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct {
		name, more string
		check      bool
		lost       int64
	}{
		{"all was read", "", true, 0},
		{"half a line was seen", "half", false, 4},
		{"a line was seen", "2\n3\n", true, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			write(t, path, "1\n")
			l := mustOpen(t, path, Options{})
			drain(t, l, 100)
			write(t, path, c.more)
			if c.check {
				if _, err := l.Check(); err != nil {
					t.Fatal(err)
				}
			} else {
				drain(t, l, 100)
			}
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			if got := next(t, l, 100); !got.Truncated || got.Lost != c.lost {
				t.Errorf("%+v, want %d bytes lost", got, c.lost)
			}
			if got := next(t, l, 100); got.Truncated || got.Lost != 0 {
				t.Errorf("told again: %+v", got)
			}
		})
	}
}

// TestGapWhileBehind: that files were missed is told once nothing is kept out any
// more, however many looks that takes, and that there were too many at a time.
func TestGapWhileBehind(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 3, false, false)
	defer w.Close()
	w.line(1)
	l := mustOpen(t, w.Path, Options{MaxHeld: 2})
	for range 6 {
		w.rotate()
		w.line(1)
		if ch, err := l.Refresh(); err != nil || !ch.Behind && ch.Gap {
			t.Fatalf("%+v, %v", ch, err)
		}
	}
	var all Change
	told := 0
	for range 20 {
		c, err := l.Next(make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		l.Advance(len(c.Data))
		if c.Change != (Change{}) {
			all.add(c.Change)
			if !c.Change.Behind && c.Change.Gap && c.Change.KeptOut {
				told++
			}
		}
	}
	if told != 1 || all.Behind || all.Files != 3 {
		t.Errorf("told %d times: %+v", told, all)
	}
	w.rotate()
	w.line(1)
	if ch, err := l.Refresh(); err != nil || ch != (Change{Files: 1}) {
		t.Errorf("told again: %+v, %v", ch, err)
	}
}
