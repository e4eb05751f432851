package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, path string, opt Options) *Log {
	t.Helper()
	l, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func next(t testing.TB, l *Log, size int) Chunk {
	t.Helper()
	c, err := l.Next(make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	l.Advance(len(c.Data))
	return c
}

// drain gives everything there is, with the marks of chunks that are no lines.
func drain(t testing.TB, l *Log, size int) string {
	t.Helper()
	var all strings.Builder
	for range 10000 {
		c := next(t, l, size)
		if c.Truncated {
			all.WriteString("<truncated>")
		}
		if c.Hole > 0 {
			fmt.Fprintf(&all, "<hole %d>", c.Hole)
		}
		all.Write(c.Data)
		if c.Rest {
			all.WriteString("<rest>")
		}
		if c.Long {
			all.WriteString("<long>")
		}
		if len(c.Data) == 0 && c.Hole == 0 {
			return all.String()
		}
	}
	t.Fatal("no end")
	return ""
}

func check(t testing.TB, l *Log, want State) {
	t.Helper()
	if got, err := l.Check(); err != nil || got != want {
		t.Errorf("Check gives %d, %v instead of %d", got, err, want)
	}
}

func TestTruncatedInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "one\ntwo\n")
	l := mustOpen(t, path, Options{})
	if got := drain(t, l, 100); got != "one\ntwo\n" {
		t.Fatalf("%q", got)
	}
	id, _, _ := l.Where()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	check(t, l, Grown)
	if c := next(t, l, 100); !c.Truncated || len(c.Data) > 0 {
		t.Fatalf("%+v", c)
	}
	check(t, l, Unchanged)
	write(t, path, "3\n")
	if got := drain(t, l, 100); got != "3\n" {
		t.Fatalf("%q", got)
	}
	if now, _, _ := l.Where(); now.Print == id.Print || now.Handle != id.Handle {
		t.Errorf("%+v became %+v", id, now)
	}
	if _, ok := l.Find(id); ok {
		t.Error("what was there before the truncation is found")
	}
	// Truncated and written anew in one.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, path, "4")
	if got := drain(t, l, 100); got != "<truncated>" {
		t.Fatalf("%q", got)
	}
	write(t, path, "\n")
	if got := drain(t, l, 100); got != "4\n" {
		t.Fatalf("%q", got)
	}
}

// TestHole truncates a log under a descriptor that keeps its offset, as Docker's
// does after a rotation.
func TestHole(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 2, false, false)
	defer w.Close()
	w.rotate()
	l := mustOpen(t, w.Path, Options{})
	const size = 1 << 20
	w.Write(append(bytes.Repeat([]byte{'x'}, size-1), '\n'))
	for range 17 {
		next(t, l, 64<<10)
	}
	if _, _, offset := l.Where(); offset != size {
		t.Fatalf("read up to %d", offset)
	}
	if err := os.Truncate(w.Path, 0); err != nil {
		t.Fatal(err)
	}
	if c := next(t, l, 100); !c.Truncated {
		t.Fatalf("%+v", c)
	}
	w.Write([]byte("after\n"))
	got := drain(t, l, 4096)
	if want := fmt.Sprintf("<hole %d>after\n", size); got != want {
		t.Fatalf("%q instead of %q", got, want)
	}
}

// TestHugeHole would take hours if it were read.
func TestHugeHole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "a\n")
	const size = 1 << 40
	if err := os.Truncate(path, size); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	write(t, path, "b\n")
	l := mustOpen(t, path, Options{})
	if got := drain(t, l, 4096); !strings.HasSuffix(got, "b\n") || len(got) > 200 {
		t.Fatalf("%.200q", got)
	}
}

func TestHalfLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "one\nha")
	l := mustOpen(t, path, Options{})
	if got := drain(t, l, 100); got != "one\n" {
		t.Fatalf("%q", got)
	}
	check(t, l, Unchanged) // nothing new to read
	if !l.Quiet() || l.Unread() != 2 {
		t.Errorf("quiet %v, unread %d", l.Quiet(), l.Unread())
	}
	write(t, path, "lf")
	check(t, l, Grown)
	if l.Quiet() {
		t.Error("quiet although it has grown")
	}
	if got := drain(t, l, 100); got != "" {
		t.Fatalf("%q", got)
	}
	write(t, path, "\nre")
	if got := drain(t, l, 100); got != "half\n" {
		t.Fatalf("%q", got)
	}
	// Its path moves on: nobody will finish it.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "new\n")
	check(t, l, Rotated)
	if _, err := l.Refresh(); err != nil {
		t.Fatal(err)
	}
	check(t, l, Grown)
	if got := drain(t, l, 100); got != "re<rest>new\n" {
		t.Fatalf("%q", got)
	}
	check(t, l, Unchanged)
	l.MarkFinal()
	write(t, path, "last words")
	if got := drain(t, l, 100); got != "last words<rest>" {
		t.Fatalf("%q", got)
	}
}

func TestLongLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "0123456789abc\nshort\n")
	l := mustOpen(t, path, Options{})
	if got := drain(t, l, 5); got != "01234<long>56789<long>abc\nshort<long>\n" {
		t.Fatalf("%q", got)
	}
}

// TestLongerLineThanRoom: whether a line is too long does not depend on the room that
// there is by chance.
func TestLongerLineThanRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "0123456789abc\nshort\n")
	l := mustOpen(t, path, Options{})
	buf := make([]byte, 16)
	if c, err := l.Next(buf[:5]); err != nil || c.Long || string(c.Data) != "0123456789abc\n" {
		t.Errorf("%q, long: %v, %v", c.Data, c.Long, err)
	}
	if c, err := l.Next(buf[:5:12]); err != nil || !c.Long || string(c.Data) != "0123456789ab" {
		t.Errorf("%q, long: %v, %v", c.Data, c.Long, err)
	}
}

func TestSeek(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path+".1", "a\nb\nhalf")
	write(t, path, "c\nd\n\x00\x00e\n")
	for _, c := range []struct {
		file, offset int64
		ok           bool
		rest         string
	}{
		{0, 0, true, "a\nb\nhalf<rest>c\nd\n\x00\x00e\n"},
		{0, 2, true, "b\nhalf<rest>c\nd\n\x00\x00e\n"},
		{0, 8, true, "c\nd\n\x00\x00e\n"},                     // half a line was taken
		{0, 6, false, "a\nb\nhalf<rest>c\nd\n\x00\x00e\n"},    // inside a line
		{0, 1000, false, "a\nb\nhalf<rest>c\nd\n\x00\x00e\n"}, // behind the end
		{1, 4, true, "\x00\x00e\n"},
		{1, 5, true, "\x00e\n"},
		{1, 3, false, "c\nd\n\x00\x00e\n"},
		{1, 1000, false, "c\nd\n\x00\x00e\n"},
	} {
		l := mustOpen(t, path, Options{})
		ok, err := l.SeekTo(l.Oldest()+c.file, c.offset)
		if err != nil || ok != c.ok {
			t.Errorf("%+v: %v, %v", c, ok, err)
		}
		if got := drain(t, l, 100); got != c.rest {
			t.Errorf("%+v: then %q", c, got)
		}
		if _, err := l.SeekTo(l.Oldest()-1, 0); err == nil {
			t.Error("a file that was left is found")
		}
	}
	l := mustOpen(t, path, Options{})
	write(t, path, "half")
	if err := l.SeekEnd(); err != nil {
		t.Fatal(err)
	}
	write(t, path, " line\n")
	if got := drain(t, l, 100); got != "half line\n" {
		t.Errorf("from the end: %q", got)
	}
}

func TestSeekEndWithoutLineEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, strings.Repeat("x", 200<<10))
	l := mustOpen(t, path, Options{})
	if err := l.SeekEnd(); err != nil {
		t.Fatal(err)
	}
	if _, _, offset := l.Where(); offset != 0 {
		t.Errorf("at %d", offset)
	}
}

func TestArchives(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	var old strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&old, "old %d\n", i)
	}
	write(t, path+".2.gz", string(dockertest.Gzip(t, []byte(old.String()))))
	write(t, path+".1", "one\n")
	write(t, path, "live\n")
	write(t, path+".2.gz.tmp", "left by docker logs")
	write(t, path+".01", "no part")
	write(t, path+".x", "no part")
	l := mustOpen(t, path, Options{})
	if got := drain(t, l, 5000); got != old.String()+"one\nlive\n" {
		t.Fatalf("%d bytes", len(got))
	}
	// In the middle, from what was known when it was not compressed yet.
	id := entry.FileID{Inode: 1, Handle: 1, Print: hashLine([]byte("old 0\n"))}
	at := strings.Index(old.String(), "old 15000\n")
	l = mustOpen(t, path, Options{})
	seq, ok := l.Find(id)
	if !ok {
		t.Fatal("archive not found by its first line")
	}
	if ok, err := l.SeekTo(seq, int64(at)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got := drain(t, l, 5000); got != old.String()[at:]+"one\nlive\n" {
		t.Fatalf("%d bytes", len(got))
	}
	if ok, err := mustOpen(t, path, Options{}).SeekTo(1, int64(old.Len())+5); ok || err != nil {
		t.Errorf("behind the end of an archive: %v, %v", ok, err)
	}
}

// TestCutArchive is what a SIGKILL of dockerd leaves.
func TestCutArchive(t *testing.T) {
	whole := dockertest.Gzip(t, []byte(strings.Repeat("line\n", 1000)))
	t.Run("beside its original", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "log")
		write(t, path+".1", "whole\n")
		write(t, path+".1.gz", string(whole[:len(whole)/2]))
		write(t, path, "live\n")
		if got := drain(t, mustOpen(t, path, Options{}), 100); got != "whole\nlive\n" {
			t.Errorf("%q", got)
		}
	})
	for name, content := range map[string][]byte{"half": whole[:len(whole)-6], "empty": nil, "no gzip": []byte("rubbish, and more of it")} {
		t.Run("alone, "+name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			write(t, path+".1.gz", string(content))
			write(t, path, "live\n")
			l := mustOpen(t, path, Options{})
			failures, lost := 0, 0
			var got strings.Builder
			for range 100 {
				c, err := l.Next(make([]byte, 1000))
				if err != nil {
					failures++
					if !strings.Contains(err.Error(), "log.1.gz") {
						t.Errorf("%v does not name the file", err)
					}
				}
				if c.LostArchive {
					lost++
				}
				got.Write(c.Data)
				l.Advance(len(c.Data))
			}
			if failures != 1 || lost != 1 || !strings.HasSuffix(got.String(), "live\n") {
				t.Errorf("%d failures, %d times a loss, then %q", failures, lost, got.String())
			}
		})
	}
}

// TestMaxHeld lets more files pile up than may be held: none is missed as long
// as Docker keeps them.
func TestMaxHeld(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 20, false, false)
	defer w.Close()
	d := &Descriptors{}
	l := mustOpen(t, w.Path, Options{MaxHeld: 3, Descriptors: d})
	for range 12 {
		w.line(10)
		w.rotate()
		if _, err := l.Refresh(); err != nil {
			t.Fatal(err)
		}
		if l.Held() > 3 || d.Open() > 3 {
			t.Fatalf("%d files held, %d descriptors", l.Held(), d.Open())
		}
	}
	check(t, l, Grown)
	w.line(10)
	r := &lineReader{t: t, buf: make([]byte, 100)}
	r.all(l, w.next)
	check(t, l, Unchanged)
}

func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	d := &Descriptors{Max: 2}
	write(t, filepath.Join(dir, "b"), "b\n")
	other := mustOpen(t, filepath.Join(dir, "b"), Options{Descriptors: d})
	path := filepath.Join(dir, "a")
	write(t, path, "1\n")
	l := mustOpen(t, path, Options{Descriptors: d})
	if _, err := Open(path, Options{Descriptors: d}); !errors.Is(err, ErrDescriptors) {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "2\n")
	if _, err := l.Refresh(); !errors.Is(err, ErrDescriptors) {
		t.Fatal(err)
	}
	check(t, l, Grown)
	if got := drain(t, l, 100); got != "1\n" {
		t.Fatalf("%q", got)
	}
	other.Close()
	if got := drain(t, l, 100); got != "2\n" {
		t.Fatalf("%q", got)
	}
	l.Close()
	if d.Open() != 0 {
		t.Errorf("%d descriptors held", d.Open())
	}
}

func TestUnlinkedLiveLog(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 3, false, false)
	defer w.Close()
	l := mustOpen(t, w.Path, Options{})
	r := &lineReader{t: t, buf: make([]byte, 100)}
	w.line(1)
	if err := os.Remove(w.Path); err != nil {
		t.Fatal(err)
	}
	check(t, l, Rotated)
	if _, err := l.Refresh(); err != nil {
		t.Fatal(err)
	}
	r.all(l, w.next)
	check(t, l, Unchanged)
	w.line(1) // Docker does not know
	check(t, l, Grown)
	r.all(l, w.next)
	check(t, l, Unchanged)
	w.rotate()
	w.line(1)
	check(t, l, Rotated)
	if _, err := l.Refresh(); err != nil {
		t.Fatal(err)
	}
	r.all(l, w.next)
}

func TestDirectoryGoesAndComesBack(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "c")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	write(t, path, "1\n")
	l := mustOpen(t, path, Options{})
	if err := os.Rename(dir, dir+"-hidden"); err != nil {
		t.Fatal(err)
	}
	check(t, l, Gone)
	if ch, err := l.Refresh(); err != nil || ch != (Change{}) {
		t.Errorf("%+v, %v", ch, err)
	}
	write(t, filepath.Join(dir+"-hidden", "log"), "2\n")
	if got := drain(t, l, 100); got != "1\n2\n" {
		t.Errorf("%q", got)
	}
	if err := os.Rename(dir+"-hidden", dir); err != nil {
		t.Fatal(err)
	}
	check(t, l, Unchanged)
	write(t, path, "3\n")
	check(t, l, Grown)
	if got := drain(t, l, 100); got != "3\n" {
		t.Errorf("%q", got)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	d := &Descriptors{}
	refuse := func(name, path string) {
		t.Helper()
		l, err := Open(path, Options{Descriptors: d})
		if err == nil {
			l.Close()
			t.Errorf("%s is read", name)
		} else if errors.Is(err, fs.ErrNotExist) != (name == "nothing") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refuse("nothing", filepath.Join(dir, "absent"))
	write(t, filepath.Join(dir, "target"), "secret\n")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	refuse("a symbolic link", link)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	refuse("a FIFO", fifo)
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	refuse("a directory", sub)
	if os.Geteuid() != 0 {
		closed := filepath.Join(dir, "closed")
		write(t, closed, "x\n")
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		refuse("a file without permission", closed)
	}
	if d.Open() != 0 {
		t.Errorf("%d descriptors held", d.Open())
	}
}

func TestIdentity(t *testing.T) {
	id := func(handle, print uint64) entry.FileID { return entry.FileID{Inode: 1, Handle: handle, Print: print} }
	for _, c := range []struct {
		saved, have entry.FileID
		want        match
	}{
		{id(5, 7), id(5, 7), matchHandle},
		{id(5, 0), id(5, 7), matchHandle}, // had no line yet
		{id(5, 7), id(5, 8), matchNone},   // truncated and written anew
		{id(5, 7), id(5, 0), matchNone},   // truncated
		{id(5, 7), id(6, 7), matchPrint},  // its archive
		{id(0, 7), id(6, 7), matchPrint},
		{id(0, 0), id(0, 0), matchNone}, // nothing is known: the inode alone says nothing
		{id(5, 0), id(6, 0), matchNone},
		{id(5, 7), id(6, 8), matchNone},
	} {
		if got := sameFile(c.saved, c.have); got != c.want {
			t.Errorf("%+v, %+v: %d, want %d", c.saved, c.have, got, c.want)
		}
	}
	// An inode number that comes back is another file.
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "one\n")
	a := mustOpen(t, path, Options{})
	first := func() entry.FileID { drain(t, a, 100); id, _, _ := a.Where(); return id }()
	a.Close()
	for i := range 20 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, fmt.Sprintf("again %d\n", i))
		b := mustOpen(t, path, Options{})
		if _, ok := b.Find(first); ok {
			t.Fatal("another file is taken for it")
		}
		b.Close()
	}
}

func TestParsePart(t *testing.T) {
	for name, want := range map[string]string{
		"log": "0 false", "log.1": "1 false", "log.12": "12 false", "log.3.gz": "3 true",
		"log.0": "", "log.01": "", "log.1.tmp": "", "log.1.gz.tmp": "", "log.gz": "", "log.-1": "", "logs": "", "other": "", "log.": "",
	} {
		got := ""
		if p, ok := parsePart("log", name); ok {
			got = fmt.Sprint(p.index, " ", p.gz)
			if p.name("log") != name {
				t.Errorf("%q is named %q", name, p.name("log"))
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// TestKnowsArchives rotates twice between two looks, an empty file among them:
// the archive of what was read long ago is known again.
func TestKnowsArchives(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 5, true, false)
	defer w.Close()
	l := mustOpen(t, w.Path, Options{})
	r := &lineReader{t: t, buf: make([]byte, 100)}
	w.line(1)
	r.all(l, w.next)
	w.rotate()
	w.Finish()
	if _, err := l.Refresh(); err != nil {
		t.Fatal(err)
	}
	r.all(l, w.next)
	w.rotate()
	w.Finish()
	w.line(1)
	if _, err := l.Refresh(); err != nil {
		t.Fatal(err)
	}
	r.all(l, w.next)
}

// TestRemovedNewestFirst has the files of a container go one by one, the newest first:
// those that are left are older, and not to be read again.
func TestRemovedNewestFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	at := time.Now().Add(-time.Hour)
	for i, name := range []string{".2", ".1", ""} {
		write(t, path+name, fmt.Sprintf("%d\n", i))
		if err := os.Chtimes(path+name, at, at.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for _, resumed := range []bool{false, true} {
		l := mustOpen(t, path, Options{})
		want := "0\n1\n2\n"
		if resumed {
			want = "2\n"
			if ok, err := l.SeekTo(l.Oldest()+2, 0); err != nil || !ok {
				t.Fatal(ok, err)
			}
		}
		if got := drain(t, l, 100); got != want {
			t.Fatalf("%q", got)
		}
		for _, name := range []string{"", ".1"} {
			if err := os.Rename(path+name, path+name+"-away"); err != nil {
				t.Fatal(err)
			}
		}
		ch, err := l.Refresh()
		if err != nil || ch.Files != 0 || ch.Gap {
			t.Errorf("%+v, %v", ch, err)
		}
		if got := drain(t, l, 100); got != "" {
			t.Errorf("read again: %q", got)
		}
		for _, name := range []string{"", ".1"} {
			if err := os.Rename(path+name+"-away", path+name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestGap rotates through all files between two looks.
func TestGap(t *testing.T) {
	w := newDockerWriter(t, t.TempDir(), 2, false, false)
	defer w.Close()
	w.line(1)
	l := mustOpen(t, w.Path, Options{})
	w.rotate()
	w.line(1)
	if ch, err := l.Refresh(); err != nil || ch != (Change{Files: 1}) {
		t.Errorf("%+v, %v", ch, err)
	}
	for range 3 {
		w.rotate()
		w.line(1)
	}
	ch, err := l.Refresh()
	if err != nil || !ch.Gap || ch.Files != 2 {
		t.Errorf("%+v, %v", ch, err)
	}
}

// TestFullSpeed rotates at full speed while one goroutine looks and another
// reads. The writer waits for a look between two rotations: no line is lost
// then, however fast it is.
func TestFullSpeed(t *testing.T) {
	for _, c := range []struct {
		name             string
		maxFiles, bytes  int
		compress, unlink bool
		rotations        int
	}{
		{"100 kB x 10", 10, 100 << 10, false, false, 60},
		{"100 kB x 10 compressed", 10, 100 << 10, true, false, 30},
		{"1 MB x 3", 3, 1 << 20, false, false, 12},
		{"1 file, unlinked", 1, 20 << 10, false, true, 60},
		{"1 file, renamed", 1, 20 << 10, false, false, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newDockerWriter(t, t.TempDir(), c.maxFiles, c.compress, c.unlink)
			defer w.Close()
			l := mustOpen(t, w.Path, Options{MaxHeld: 1 << 10})
			looked := make(chan struct{}) // received from once for each look that began after the last receive
			done := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() { // the watcher
				for {
					if _, err := l.Refresh(); err != nil && !strings.Contains(err.Error(), "changed during each") {
						t.Error(err)
						return
					} else if err != nil {
						continue
					}
					select {
					case looked <- struct{}{}:
					case <-done:
						return
					default:
						runtime.Gosched()
					}
				}
			})
			wg.Go(func() {
				defer close(done)
				for range c.rotations {
					for n := 0; n < c.bytes; n += 1000 {
						w.line(990)
					}
					// Two looks: the first may have begun before the file was there.
					<-looked
					<-looked
					w.Rotate()
					w.Finish()
				}
			})
			r := &lineReader{t: t, buf: make([]byte, 32<<10)}
			for open := true; open; {
				select {
				case <-done:
					open = false
				default:
				}
				for r.read(l) {
				}
				runtime.Gosched()
			}
			wg.Wait()
			if _, err := l.Refresh(); err != nil {
				t.Fatal(err)
			}
			r.all(l, w.next)
		})
	}
}
