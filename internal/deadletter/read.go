package deadletter

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
)

// Stored is a record as it was found.
type Stored struct {
	Record
	// Line is the record as it stands in its file, without what is around it. It is
	// good until the function that was given it returns.
	Line []byte
	// Replayed is set when a replay has sent the record and the store took it.
	Replayed bool

	sum sum
}

// Filter chooses records; an empty field lets all pass.
type Filter struct {
	// Container is a pattern of path.Match for the container's name, or the
	// beginning of its ID.
	Container string
	Kind      Kind
	// Since: only records written then or later.
	Since time.Time
}

// Check reports a pattern that is none.
func (f Filter) Check() error {
	if _, err := path.Match(f.Container, ""); err != nil {
		return fmt.Errorf("%q is no pattern for the names of containers: %w", f.Container, err)
	}
	return nil
}

// Takes reports whether a record is chosen.
func (f Filter) Takes(r *Record) bool {
	if f.Container != "" {
		named, err := path.Match(f.Container, r.ContainerName)
		if !(err == nil && named) && !strings.HasPrefix(r.ContainerID, f.Container) {
			return false
		}
	}
	return (f.Kind == "" || f.Kind == r.Kind) && !r.Time.Before(f.Since)
}

// Each calls f with every record in dataDir, in the order in which they were
// written, whether an agent writes there or not: it takes no lock and changes
// nothing. What the agent appends while Each runs may be among them or not. bad is the
// number of lines that are no records; what follows the last line end of a file
// that is being written is none of them. An error of f ends it and is given back
// as it is.
func Each(dataDir string, f func(*Stored) error) (bad int, err error) {
	if _, err := os.Stat(dataDir); err != nil {
		return 0, fmt.Errorf("read the dead letters (is it the agent's data_dir?): %w", err)
	}
	return EachIn(disk.OS(filepath.Join(dataDir, dirName)), f)
}

// EachIn is Each in the directory of the dead letters itself.
func EachIn(dir disk.Dir, f func(*Stored) error) (bad int, err error) {
	done, err := readMark(dir)
	if err != nil {
		return 0, err
	}
	return each(dir, done, f)
}

// each is Each with the records that were replayed.
func each(dir disk.Dir, done map[sum]bool, f func(*Stored) error) (bad int, err error) {
	var failed error // f's own
	count := func(n int, err error) error {
		bad += n
		if err != nil && failed == nil {
			return fmt.Errorf("read the dead letters: %w", err)
		}
		return err
	}
	give := func(s *Stored) error {
		failed = f(s)
		return failed
	}
	// The file that is written is opened first: should it be set aside now, it
	// is found once, under either name.
	current, err := dir.Open(fileName, os.O_RDONLY)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, count(0, err)
	}
	if current != nil {
		defer func() { _ = current.Close() }() // only read from
	}
	files, err := setAsides(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, count(0, err)
	}
	for _, a := range files {
		file, err := dir.Open(a.name, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the agent has made room
		}
		if err == nil && current != nil && same(file, current) {
			_ = file.Close() // only read from
			continue
		}
		if err == nil {
			var n int
			n, err = records(file, done, give)
			_ = file.Close() // only read from
			bad += n
		}
		if err != nil {
			return bad, count(0, err)
		}
	}
	if current == nil {
		return bad, nil
	}
	n, err := records(current, done, give)
	return bad + n, count(0, err)
}

func same(a, b disk.File) bool {
	x, err := a.Info()
	y, err2 := b.Info()
	return err == nil && err2 == nil && x.Inode == y.Inode
}

// records calls f with each record of a file.
func records(file disk.File, done map[sum]bool, f func(*Stored) error) (bad int, err error) {
	err = lines(disk.Reader(file), func(line []byte, ended bool) error {
		// JSON has no NULs. They are what a power loss leaves of a write that was never
		// synced, line end and all; what follows was synced.
		line = line[bytes.LastIndexByte(line, 0)+1:]
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		s := Stored{Line: line}
		if json.Unmarshal(line, &s.Record) != nil || s.Kind == "" {
			if ended {
				bad++
			}
			return nil // torn, or being written
		}
		// Before there was a field for it, this told a copy; inodes came later.
		s.Copy = s.Copy || s.Kind == Malformed && s.Position != "" && s.Inode == 0
		s.sum = sumOf(line)
		s.Replayed = done[s.sum]
		return f(&s)
	})
	return bad, err
}

// unsent counts, by kind, the records of a file that nobody else has: neither
// copies nor replayed. What cannot be read of it is not counted.
func unsent(dir disk.Dir, name string) (map[Kind]int, error) {
	file, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read from
	done, err := readMark(dir)
	if err != nil {
		done = nil // too many is better said than too few
	}
	lost := map[Kind]int{}
	_, _ = records(file, done, func(s *Stored) error { // it is deleted all the same
		if !s.Copy && !s.Replayed {
			lost[s.Kind]++
		}
		return nil
	})
	return lost, nil
}

// sum tells records apart. Two that are the same to the byte are one to a
// store, too.
type sum [16]byte

func sumOf(line []byte) (s sum) {
	all := sha256.Sum256(line)
	copy(s[:], all[:])
	return s
}
