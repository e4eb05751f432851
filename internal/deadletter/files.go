package deadletter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// freshName is a file that is to become the one that is written.
	freshName = fileName + ".new"
	// A file that was set aside is named dead_letters-00000001.jsonl; a higher
	// number is newer.
	asidePrefix, asideSuffix = "dead_letters-", ".jsonl"
)

// state is what a writer must know of a file that is there.
type state struct {
	size   int64
	torn   bool      // it ends inside a line
	copies int64     // bytes of copies, about
	began  time.Time // time of the first record; zero without any
}

// stateOf reads a file through once. It decodes only until it has a time: a
// file may be of some MiB, and the agent wants to start.
func stateOf(f *os.File) (state, error) {
	var st state
	err := lines(f, func(line []byte, _ bool) error {
		// The kind stands near the front of what Append wrote.
		if bytes.Contains(line[:min(len(line), 100)], []byte(`"kind":"malformed"`)) {
			st.copies += int64(len(line)) + 1
		}
		var r struct{ Time time.Time }
		if st.began.IsZero() && json.Unmarshal(line, &r) == nil {
			st.began = r.Time
		}
		return nil
	})
	if err != nil {
		return state{}, err
	}
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return state{}, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], fi.Size()-1); err != nil {
		return state{}, err
	}
	st.size, st.torn = fi.Size(), last[0] != '\n'
	return st, nil
}

// aside is a file that was set aside.
type aside struct {
	name string
	n    int
	size int64
}

// setAsides gives the files that were set aside, oldest first.
func setAsides(dir string) ([]aside, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []aside
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), asidePrefix)
		if !ok {
			continue
		}
		number, ok = strings.CutSuffix(number, asideSuffix)
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 0 || !e.Type().IsRegular() {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		all = append(all, aside{e.Name(), n, fi.Size()})
	}
	slices.SortFunc(all, func(a, b aside) int { return a.n - b.n })
	return all, nil
}

// setAside gives the file that is written a name of its own, and an empty one
// in its place, open for appending. The new one is made first: without room for
// it nothing changes. The directory is not synced.
func setAside(dir string) (*os.File, error) {
	files, err := setAsides(dir)
	if err != nil {
		return nil, err
	}
	n := 1
	if len(files) > 0 {
		n = files[len(files)-1].n + 1
	}
	fresh, now := filepath.Join(dir, freshName), filepath.Join(dir, fileName)
	old := filepath.Join(dir, fmt.Sprintf("%s%08d%s", asidePrefix, n, asideSuffix))
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	// Without the old one, somebody has deleted it under the agent.
	if err := os.Rename(now, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, f.Close(), os.Remove(fresh))
	}
	if err := os.Rename(fresh, now); err != nil {
		return nil, errors.Join(err, os.Rename(old, now), f.Close(), os.Remove(fresh))
	}
	return f, nil
}

// maxLine is the longest line that is read. max_line_bytes is at most 1 MiB, and
// base64 makes a third more of it.
const maxLine = 8 << 20

// lines calls f with each line of r, without its end. ended is false for what
// follows the last line end, if anything does. A line above maxLine is passed
// over. The line is good until f returns.
func lines(r io.Reader, f func(line []byte, ended bool) error) error {
	buf := make([]byte, 0, 64<<10)
	skip := false // inside a line that is too long
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, cap(buf))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		done := len(buf)
		buf = buf[:done+n]
		from := 0
		for {
			i := bytes.IndexByte(buf[done:], '\n')
			if i < 0 {
				break
			}
			if !skip {
				if err := f(buf[from:done+i], true); err != nil {
					return err
				}
			}
			skip = false
			done += i + 1
			from = done
		}
		buf = append(buf[:0], buf[from:]...)
		if len(buf) > maxLine {
			buf, skip = buf[:0], true
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(buf) > 0 && !skip {
				return f(buf, false)
			}
			return nil
		case err != nil:
			return err
		}
	}
}
