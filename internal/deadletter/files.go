package deadletter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/log-capturer/log_capturer/internal/disk"
)

const (
	// freshName is a file that is to become the one that is written.
	freshName = fileName + ".new"
	// A file that was set aside is named dead_letters-00000001.jsonl; a higher
	// number is newer.
	asidePrefix, asideSuffix = "dead_letters-", ".jsonl"
)

// aside is a file that was set aside.
type aside struct {
	name string
	n    int
	size int64
}

// setAsides gives the files that were set aside, oldest first.
func setAsides(dir disk.Dir) ([]aside, error) {
	files, err := dir.List()
	if err != nil {
		return nil, err
	}
	var all []aside
	for _, f := range files {
		number, ok := strings.CutPrefix(f.Name, asidePrefix)
		if !ok {
			continue
		}
		number, ok = strings.CutSuffix(number, asideSuffix)
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 0 || f.IsDir {
			continue
		}
		all = append(all, aside{f.Name, n, f.Size})
	}
	slices.SortFunc(all, func(a, b aside) int { return a.n - b.n })
	return all, nil
}

// setAside gives the file that is written a name of its own, and an empty one
// in its place, open for appending. The new one is made first: without room for
// it nothing changes. The directory is not synced.
func setAside(dir disk.Dir) (disk.File, error) {
	files, err := setAsides(dir)
	if err != nil {
		return nil, err
	}
	n := 1
	if len(files) > 0 {
		n = files[len(files)-1].n + 1
	}
	old := fmt.Sprintf("%s%08d%s", asidePrefix, n, asideSuffix)
	f, err := dir.Open(freshName, appending|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	// Without the old one, somebody has deleted it under the agent.
	if err := dir.Rename(fileName, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, f.Close(), dir.Remove(freshName))
	}
	if err := dir.Rename(freshName, fileName); err != nil {
		return nil, errors.Join(err, dir.Rename(old, fileName), f.Close(), dir.Remove(freshName))
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
