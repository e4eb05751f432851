// Package dockertest writes a container's log file as Docker does, for tests:
// one small step at a time, so that a test can look between any two of them.
//
// The steps and their order are those of moby, daemon/logger/loggerutils/logfile.go
// (WriteLogEntry, checkCapacityAndRotate, rotate, compressFile).
package dockertest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// TB is what a Writer needs of a test.
type TB interface {
	Helper()
	Fatal(args ...any)
}

// Writer is Docker's side of one log. It belongs to one goroutine at a time.
type Writer struct {
	// Path is the log itself. MaxFiles is the option max-file; Compress the
	// option compress, which Docker refuses with one file only.
	Path     string
	MaxFiles int
	Compress bool
	// Unlink is what Engine 23 and later do with max-file=1: the log is
	// unlinked. Before, it was renamed to a part that nobody unlinked.
	Unlink bool
	// Rotations counts those that were begun.
	Rotations int

	t       TB
	f       *os.File
	steps   []func() // what is left of the rotation under way
	gzSteps []func() // what is left of the compression under way
}

// New begins a log, or goes on with it as after a start of its container.
func New(t TB, path string, maxFiles int, compress, unlink bool) *Writer {
	w := &Writer{Path: path, MaxFiles: maxFiles, Compress: compress && maxFiles > 1, Unlink: unlink, t: t}
	w.Start()
	return w
}

func (w *Writer) check(err error) {
	w.t.Helper()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
}

// Start opens the log as a start of its container does.
func (w *Writer) Start() {
	w.t.Helper()
	var err error
	w.f, err = os.OpenFile(w.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
}

// Stop closes the log as an exit of its container does; a rotation under way is
// finished before.
func (w *Writer) Stop() {
	w.t.Helper()
	for w.Rotating() {
		w.Step()
	}
	w.check(w.f.Close())
	w.f = nil
}

// Stopped reports whether the log is closed.
func (w *Writer) Stopped() bool { return w.f == nil }

// create opens the new log of a rotation. Unlike that of a start its descriptor
// does not append: after a truncation from outside it keeps its offset.
func (w *Writer) create() {
	w.t.Helper()
	var err error
	w.f, err = os.OpenFile(w.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
}

// Write appends with one write(2). It is false, and writes nothing, while a
// rotation is under way or the log is closed.
func (w *Writer) Write(p []byte) bool {
	w.t.Helper()
	if w.Rotating() || w.f == nil {
		return false
	}
	_, err := w.f.Write(p)
	w.check(err)
	return true
}

// End gives the log's inode number and size: where the next Write goes. It is zero
// where that would write nothing.
func (w *Writer) End() (inode uint64, size int64) {
	w.t.Helper()
	if w.Rotating() || w.f == nil {
		return 0, 0
	}
	var st unix.Stat_t
	w.check(unix.Fstat(int(w.f.Fd()), &st))
	return st.Ino, st.Size
}

// Part gives the name of a rotated part.
func (w *Writer) Part(i int) string { return w.Path + "." + strconv.Itoa(i) + w.ext() }

func (w *Writer) ext() string {
	if w.Compress {
		return ".gz"
	}
	return ""
}

// LastPart is the highest number that a rotation leaves.
func (w *Writer) LastPart() int {
	if w.MaxFiles == 1 && !w.Unlink {
		return 1
	}
	return w.MaxFiles - 1
}

// Rotating reports whether a rotation is under way.
func (w *Writer) Rotating() bool { return len(w.steps) > 0 }

// Compressing reports whether a compression is under way.
func (w *Writer) Compressing() bool { return len(w.gzSteps) > 0 }

// Rotate begins a rotation, which Step carries out. It is false if one is under
// way or the compression of the one before is, for which Docker waits.
func (w *Writer) Rotate() bool {
	if w.Rotating() || w.Compressing() || w.f == nil {
		return false
	}
	w.Rotations++
	do := func(f func()) { w.steps = append(w.steps, f) }
	do(func() { w.check(w.f.Close()) })
	switch {
	case w.MaxFiles == 1 && w.Unlink:
		do(func() { w.check(os.Remove(w.Path)) })
	default:
		if w.MaxFiles > 1 {
			do(func() { w.check(os.Remove(w.Part(w.MaxFiles - 1))) })
		}
		for i := w.MaxFiles - 1; i > 1; i-- {
			do(func() { w.check(os.Rename(w.Part(i-1), w.Part(i))) })
		}
		do(func() { w.check(os.Rename(w.Path, w.Path+".1")) })
	}
	do(w.create)
	if w.Compress {
		do(func() {
			w.gzSteps = []func(){
				func() { w.gzip(true) },
				func() { w.gzip(false) },
				func() { w.check(os.Remove(w.Path + ".1")) },
			}
		})
	}
	return true
}

// gzip writes the archive of the newest part, or the first half of it. The same
// file grows: it has no temporary name.
func (w *Writer) gzip(half bool) {
	w.t.Helper()
	raw, err := os.ReadFile(w.Path + ".1")
	w.check(err)
	out := Gzip(w.t, raw)
	if half {
		out = out[:len(out)/2]
	}
	f, err := os.OpenFile(w.Path+".1.gz", os.O_WRONLY|os.O_CREATE, 0o600)
	w.check(err)
	_, err = f.WriteAt(out, 0)
	w.check(err)
	w.check(f.Close())
}

// Gzip compresses as Docker does.
func Gzip(t TB, raw []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	zw.Extra = []byte(`{"lastTime":"2025-11-07T12:00:00Z"}`)
	if _, err := zw.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

// Step does one step of whatever is under way and reports whether there was one.
func (w *Writer) Step() bool {
	w.t.Helper()
	todo := &w.steps
	if len(w.steps) == 0 {
		todo = &w.gzSteps
	}
	if len(*todo) == 0 {
		return false
	}
	f := (*todo)[0]
	*todo = (*todo)[1:]
	f()
	return true
}

// Finish does all steps that are left.
func (w *Writer) Finish() {
	w.t.Helper()
	for w.Step() {
	}
}

// Done counts the rotations that are complete.
func (w *Writer) Done() int {
	if w.Rotating() {
		return w.Rotations - 1
	}
	return w.Rotations
}

// Close closes the log at the end of a test.
func (w *Writer) Close() {
	if w.f != nil {
		_ = w.f.Close() // may be closed already, in mid-rotation
		w.f = nil
	}
}

// String is for messages of tests.
func (w *Writer) String() string {
	return fmt.Sprintf("max-file=%d compress=%v unlink=%v rotations=%d", w.MaxFiles, w.Compress, w.Unlink, w.Rotations)
}

// AwaitTick waits until the time has moved on that the kernel gives to what is done to
// files in a directory: milliseconds at most, and nothing where it is finer than that.
func AwaitTick(t TB, dir string) {
	t.Helper()
	p := newProbe(t, dir)
	defer p.close()
	for before := p.touch(t); p.touch(t) == before; {
	}
}

// FineTimes reports whether whatever is done to a file after a look at it gives it
// another ctime, however soon (Linux 6.13 and later, on most file systems). Elsewhere
// that takes a tick of the kernel's clock.
func FineTimes(t TB, dir string) bool {
	t.Helper()
	p := newProbe(t, dir)
	defer p.close()
	last := p.touch(t)
	for range 20 { // a tick may come between two of them
		ctime := p.touch(t)
		if ctime == last {
			return false
		}
		last = ctime
	}
	return true
}

// probe is a file that is there to be touched.
type probe struct{ f *os.File }

func newProbe(t TB, dir string) probe {
	t.Helper()
	f, err := os.CreateTemp(dir, ".probe")
	if err != nil {
		t.Fatal(err)
	}
	return probe{f}
}

// touch changes the file's inode and gives its ctime.
func (p probe) touch(t TB) unix.Timespec {
	t.Helper()
	var st unix.Stat_t
	err := p.f.Chmod(0o600)
	if err == nil {
		err = unix.Fstat(int(p.f.Fd()), &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Ctim
}

func (p probe) close() {
	_ = p.f.Close() // nothing was written
	_ = os.Remove(p.f.Name())
}
