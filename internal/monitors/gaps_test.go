package monitors

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// TestFileGaps: files that rotation makes and takes away between two looks are
// counted as lost, exactly; others are not, however fast they come.
func TestFileGaps(t *testing.T) {
	for _, c := range []struct {
		name            string
		maxFiles        int
		unlink          bool
		rotations, lost int
	}{
		{"one rotation", 3, false, 1, 0},
		{"as many as there are files", 3, false, 3, 0},
		{"one too many", 3, false, 4, 1},
		{"many too many", 3, false, 9, 6},
		{"max-file=1, unlinked, once", 1, true, 1, 0},
		{"max-file=1, unlinked, three times", 1, true, 3, 2},
		{"max-file=1, renamed, twice", 1, false, 2, 0},
		{"max-file=1, renamed, three times", 1, false, 3, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := newInotify()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = n.close() }()
			f := newFixture(t, n, nil)
			info := f.info("c")
			w := dockertest.New(t, info.LogPath, c.maxFiles, false, c.unlink)
			defer w.Close()
			line := 0
			write := func() {
				line++
				w.Write([]byte(jsonEntry("stdout", fmt.Sprint(line, "\n"), at(line))))
			}
			write()
			f.m.add(info)
			f.work()
			for range 2 { // the second round shows that the first has been settled
				for range c.rotations {
					w.Rotate()
					w.Finish()
					write()
				}
				before := f.m.gapAt
				events, err := n.wait(time.Now().Add(time.Minute), true, nil)
				if err != nil {
					t.Fatal(err)
				}
				f.m.handle(events)
				f.work()
				if (f.m.gapAt != before) != (c.lost > 0) {
					t.Errorf("a gap is told: %v, want %v", f.m.gapAt != before, c.lost > 0)
				}
			}
			f.wantMetric("file_gaps_total", float64(2*c.lost))
		})
	}
}

// TestFileGapsAtTheStart: a log that was rotated through all its files before the
// first of them could be taken hold of.
func TestFileGapsAtTheStart(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.close() }()
	f := newFixture(t, n, nil)
	info := f.info("c")
	f.m.add(info) // created, not started
	w := dockertest.New(t, info.LogPath, 3, false, false)
	defer w.Close()
	for i := range 8 {
		w.Write([]byte(jsonEntry("stdout", fmt.Sprint(i, "\n"), at(i))))
		w.Rotate()
		w.Finish()
	}
	events, err := n.wait(time.Now().Add(time.Minute), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.m.handle(events)
	if got := texts(f.work()); !slices.Equal(got, []string{"6", "7"}) {
		t.Errorf("got %q", got)
	}
	f.wantMetric("file_gaps_total", 6)
	if f.m.Health().GapAt.IsZero() {
		t.Error("lines were lost and nothing is said of it")
	}
}
