package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// written is what Docker has of one container: the oracle wherever Docker itself
// may have lost lines, and for where the lines end.
type written struct {
	have  set
	first int             // the lowest number; 0: none
	last  [numStreams]int // the highest
	torn  int             // lines that are no entries of Docker's
}

func (w *written) add(o *output, n int) {
	w.have.add(n)
	if w.first == 0 || n < w.first {
		w.first = n
	}
	s := o.stream(n)
	w.last[s] = max(w.last[s], n)
}

// end is the number of the last line.
func (w *written) end() int { return max(w.last[stdout], w.last[stderr]) }

// holes gives the lines of an output that Docker has not written: those that it
// does not have, though it has some of before and of after. final says that the
// container has ended. Of what rotation has removed nothing can be said.
func (w *written) holes(o *output, final bool) (never []int) {
	if w.first == 0 {
		return nil
	}
	// stdout and stderr may have overtaken one another where rotation has cut.
	const overtaken = 50
	from := 1
	if !w.have.has(1) {
		from = w.first + overtaken
	}
	for n := from; n <= w.end(); n++ {
		if !w.have.has(n) && (final || n < w.last[o.stream(n)]) {
			never = append(never, n)
		}
	}
	return never
}

// parseEntries reads entries of the json-file driver. An entry that is cut, with
// another one glued on, as a full disk leaves it, is passed over.
func (w *written) parseEntries(o *output, text []byte) {
	const start = `{"log":"`
	var open [numStreams]int // number of a line of which only a part has come
	for l := range bytes.Lines(text) {
		if i := bytes.LastIndex(l, []byte(start)); i > 0 {
			w.torn++
			l = l[i:]
		}
		var e struct{ Log, Stream string }
		if err := json.Unmarshal(l, &e); err != nil || !bytes.HasSuffix(l, []byte("\n")) {
			w.torn++
			continue
		}
		s := stdout
		if e.Stream == streamNames[stderr] {
			s = stderr
		}
		if n := o.number(e.Log); n > 0 {
			open[s] = n
		}
		if strings.HasSuffix(e.Log, "\n") && open[s] > 0 {
			w.add(o, open[s])
			open[s] = 0
		}
	}
}

// parsePlain reads what the engine gives of a log.
func (w *written) parsePlain(o *output, text []byte) {
	for l := range bytes.Lines(text) {
		if n := o.number(strings.TrimSuffix(string(l), "\n")); n > 0 {
			w.add(o, n)
		}
	}
}

// readLog reads all files of a json-file log, oldest first.
func readLog(o *output, path string) (*written, error) {
	texts, err := readChain(path)
	if err != nil {
		return nil, err
	}
	w := new(written)
	w.parseEntries(o, slices.Concat(texts...))
	return w, nil
}

// readChain gives the contents of all files of a log, oldest first, as they are
// at one moment.
func readChain(path string) ([][]byte, error) {
	var err error
	for range 20 { // rotation may come between
		var before, after []chainFile
		var texts [][]byte
		if before, err = chain(path); err != nil {
			continue
		}
		for _, f := range before {
			var text []byte
			if text, err = f.read(); err != nil {
				break
			}
			texts = append(texts, text)
		}
		if err != nil {
			continue
		}
		if after, err = chain(path); err == nil && slices.Equal(before, after) {
			return texts, nil
		}
	}
	return nil, fmt.Errorf("%s changes faster than it can be read: %w", path, err)
}

// chainFile is a file of a log.
type chainFile struct {
	path  string
	inode uint64
}

func (f chainFile) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if !strings.HasSuffix(f.path, ".gz") {
		return io.ReadAll(file)
	}
	z, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// chain gives the files of a log, oldest first. Of a file and its archive it is
// the file: the archive may not be finished.
func chain(path string) ([]chainFile, error) {
	all, err := filepath.Glob(path + "*")
	if err != nil {
		return nil, err
	}
	numbered := map[int]string{}
	for _, f := range all {
		rest := strings.TrimPrefix(f, path)
		if rest == "" {
			numbered[0] = f
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rest, "."), ".gz"))
		if err != nil { // a temporary file of the engine's readers
			continue
		}
		if was, ok := numbered[n]; !ok || len(f) < len(was) {
			numbered[n] = f
		}
	}
	var files []chainFile
	for _, f := range numbered {
		info, err := os.Stat(f)
		if err != nil {
			return nil, err
		}
		sys, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil, errors.New("no inode numbers here")
		}
		files = append(files, chainFile{f, sys.Ino})
	}
	slices.SortFunc(files, func(a, b chainFile) int { return partNumber(path, b.path) - partNumber(path, a.path) })
	return files, nil
}

// partNumber is N of path.N and path.N.gz, and 0 of path.
func partNumber(path, part string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(part, path), "."), ".gz"))
	return n
}
