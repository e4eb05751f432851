package tail

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// dockerWriter writes and rotates a log as Docker does (moby,
// daemon/logger/loggerutils/logfile.go), one small step at a time, so that a
// test can look between any two of them.
type dockerWriter struct {
	t        testing.TB
	path     string
	maxFiles int
	compress bool
	unlink1  bool // max-file=1 of Engine 23 and later: unlink instead of rename

	f         *os.File
	next      int // number of the next line
	rotations int
	steps     []func() // what is left of the rotation under way
	gzSteps   []func() // what is left of the compression under way
}

func newDockerWriter(t testing.TB, dir string, maxFiles int, compress bool) *dockerWriter {
	w := &dockerWriter{t: t, path: filepath.Join(dir, "id-json.log"), maxFiles: maxFiles, compress: compress}
	w.open()
	return w
}

func (w *dockerWriter) check(err error) {
	if err != nil && !os.IsNotExist(err) {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

func (w *dockerWriter) open() {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE, 0o640)
	w.check(err)
	w.f = f
}

func (w *dockerWriter) ext() string {
	if w.compress {
		return ".gz"
	}
	return ""
}

// line writes the next line, if no rotation is under way.
func (w *dockerWriter) line(size int) {
	if len(w.steps) > 0 {
		return
	}
	w.next++
	_, err := fmt.Fprintf(w.f, "%d %s\n", w.next, bytes.Repeat([]byte{'x'}, size))
	w.check(err)
}

// rotate begins a rotation; step carries it out.
func (w *dockerWriter) rotate() {
	if len(w.steps) > 0 || len(w.gzSteps) > 0 {
		return // Docker waits for the compression before
	}
	w.rotations++
	do := func(f func()) { w.steps = append(w.steps, f) }
	do(func() { w.check(w.f.Close()) })
	switch {
	case w.maxFiles == 1 && w.unlink1:
		do(func() { w.check(os.Remove(w.path)) })
	default:
		if w.maxFiles > 1 {
			last := fmt.Sprintf("%s.%d%s", w.path, w.maxFiles-1, w.ext())
			do(func() { w.check(os.Remove(last)) })
		}
		for i := w.maxFiles - 1; i > 1; i-- {
			do(func() {
				w.check(os.Rename(fmt.Sprintf("%s.%d%s", w.path, i-1, w.ext()), fmt.Sprintf("%s.%d%s", w.path, i, w.ext())))
			})
		}
		do(func() { w.check(os.Rename(w.path, w.path+".1")) })
	}
	do(w.open)
	if w.compress && w.maxFiles > 1 {
		do(func() {
			w.gzSteps = []func(){
				func() { w.gzip(true) }, // half of it
				func() { w.gzip(false) },
				func() { w.check(os.Remove(w.path + ".1")) },
			}
		})
	}
}

func (w *dockerWriter) gzip(half bool) {
	raw, err := os.ReadFile(w.path + ".1")
	w.check(err)
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	zw.Extra = []byte(`{"lastTime":"2025-11-07T12:00:00Z"}`)
	_, err = zw.Write(raw)
	w.check(err)
	w.check(zw.Close())
	out := z.Bytes()
	if half {
		out = out[:len(out)/2]
	}
	// The same file grows: no temporary name.
	f, err := os.OpenFile(w.path+".1.gz", os.O_WRONLY|os.O_CREATE, 0o640)
	w.check(err)
	_, err = f.WriteAt(out, 0)
	w.check(err)
	w.check(f.Close())
}

// step does one step of whatever is under way and reports whether there was one.
func (w *dockerWriter) step() bool {
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

// done counts the rotations that are complete.
func (w *dockerWriter) done() int {
	if len(w.steps) > 0 {
		return w.rotations - 1
	}
	return w.rotations
}

func (w *dockerWriter) finish() {
	for w.step() {
	}
}

// lineReader collects the numbers of the lines that a Log gives.
type lineReader struct {
	t   testing.TB
	got []int
	buf []byte
}

// read takes one chunk and reports whether there was any.
func (r *lineReader) read(l *Log) bool {
	r.t.Helper()
	c, err := l.Next(r.buf)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(c.Data) == 0 {
		return false
	}
	if c.Rest || c.Long || c.Truncated {
		r.t.Fatalf("unexpected chunk %+v", c)
	}
	for line := range bytes.Lines(c.Data) {
		var n int
		if _, err := fmt.Sscanf(string(line), "%d ", &n); err != nil {
			r.t.Fatalf("broken line %q: %v", line, err)
		}
		r.got = append(r.got, n)
		l.Advance(len(line))
	}
	return true
}
