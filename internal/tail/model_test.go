package tail

import (
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// TestModelRotation lets Docker's steps fall between any two of ours, those
// inside Refresh included, and restarts the reader from what it had read. While
// no more rotations pass between two looks than there are files, every line
// arrives once and in order.
func TestModelRotation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "lc")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		maxFiles := rapid.IntRange(1, 4).Draw(rt, "max-file")
		w := newDockerWriter(t, dir, maxFiles, maxFiles > 1 && rapid.Bool().Draw(rt, "compress"), rapid.Bool().Draw(rt, "unlink"))
		defer w.Close()
		looked := 0       // rotations done when the last Refresh that is complete began
		limit := maxFiles // how many more there may be before the next one

		write := func() {
			switch rapid.IntRange(0, 5).Draw(rt, "writer") {
			case 0, 1:
				w.line(rapid.IntRange(0, 40).Draw(rt, "size"))
			case 2:
				if w.Rotations-looked < limit {
					w.Rotate()
				}
			default:
				w.Step()
			}
		}
		opt := Options{between: func() {
			for range rapid.IntRange(0, 3).Draw(rt, "meanwhile") {
				write()
			}
		}}
		open := func() *Log {
			// Nothing is held yet: what the last of that many rotations
			// unlinks, nobody can have.
			for w.Rotating() {
				w.Step()
			}
			limit = maxFiles - 1
			defer func() { limit = maxFiles }()
			for {
				looked = w.Done()
				if l, err := Open(w.Path, opt); err == nil {
					return l
				}
				w.Step() // the moment in which there is no file at all
			}
		}
		l := open()
		defer func() { l.Close() }()
		r := &lineReader{t: t, buf: make([]byte, 256)}
		refresh := func() {
			began := w.Done()
			if _, err := l.Refresh(); err != nil {
				rt.Fatal(err)
			}
			looked = began
		}
		restart := func() {
			// What was read and is still on disk can be found again.
			id, _, off := l.Where()
			if id.Print == 0 || !onDisk(rt, l, id) || w.Rotations-looked >= maxFiles-1 || l.Held() > 1 {
				return
			}
			between := opt.between
			opt.between = nil // the reader is down, nothing is promised for what is unlinked now
			l.Close()
			l = open()
			opt.between, l.opt.between = between, between
			seq, ok := l.Find(id)
			if !ok {
				rt.Fatalf("%+v not found again", id)
			}
			if ok, err := l.SeekTo(seq, off); err != nil || !ok {
				rt.Fatal("seek", ok, err)
			}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "turns") {
			switch rapid.IntRange(0, 5).Draw(rt, "turn") {
			case 0:
				refresh()
			case 1, 2:
				r.read(l)
			case 3:
				restart()
			default:
				write()
			}
		}
		opt.between, l.opt.between = nil, nil
		w.Finish()
		refresh()
		r.all(l, w.next)
	})
}

// onDisk reports whether the file is still one of the log's parts and whole.
func onDisk(rt *rapid.T, l *Log, id entry.FileID) bool {
	parts, err := (&snapshot{log: l}).list()
	if err != nil {
		rt.Fatal(err)
	}
	for _, p := range parts {
		if p.ino == id.Inode {
			return true
		}
	}
	return false
}
