package tail

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// dockerWriter writes numbered lines.
type dockerWriter struct {
	*dockertest.Writer
	next int // number of the newest line
}

func newDockerWriter(t testing.TB, dir string, maxFiles int, compress, unlink bool) *dockerWriter {
	return &dockerWriter{Writer: dockertest.New(t, filepath.Join(dir, "id-json.log"), maxFiles, compress, unlink)}
}

// line writes the next line, if no rotation is under way.
func (w *dockerWriter) line(size int) {
	if w.Write(fmt.Appendf(nil, "%d %s\n", w.next+1, bytes.Repeat([]byte{'x'}, size))) {
		w.next++
	}
}

// rotate does a whole rotation, its compression excluded.
func (w *dockerWriter) rotate() {
	w.Rotate()
	for w.Rotating() {
		w.Step()
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

// all reads to the end and compares with the numbers 1 to n.
func (r *lineReader) all(l *Log, n int) {
	r.t.Helper()
	for r.read(l) {
	}
	for i, k := range r.got {
		if k != i+1 {
			r.t.Fatalf("line %d stands where %d should: %v", k, i+1, r.got)
		}
	}
	if len(r.got) != n {
		r.t.Fatalf("%d lines read, %d written", len(r.got), n)
	}
}
