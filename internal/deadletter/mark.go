package deadletter

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/log-capturer/log_capturer/internal/disk"
)

const (
	markName   = "replayed"
	markHeader = "log_capturer replayed dead letters v1"
	lockName   = "replay.lock"
)

// readMark gives the records that a replay has sent and the store has taken;
// none without a mark.
func readMark(dir disk.Dir) (map[sum]bool, error) {
	data, err := disk.ReadFile(dir, markName)
	if errors.Is(err, fs.ErrNotExist) {
		return map[sum]bool{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which dead letters were replayed: %w", err)
	}
	return parseMark(data)
}

// parseMark reads a mark. What is no sum was half-written by a replay that was
// killed: that record is sent again.
func parseMark(data []byte) (map[sum]bool, error) {
	done := map[sum]bool{}
	header, rest, _ := bytes.Cut(data, []byte("\n"))
	if len(header) < len(markHeader) && bytes.HasPrefix([]byte(markHeader), header) {
		return done, nil // killed in the first write
	}
	if string(header) != markHeader {
		return nil, fmt.Errorf("the file %s of the dead letters is of a version that is not known here: use the log_capturer that wrote it", markName)
	}
	for line := range bytes.Lines(rest) {
		var s sum
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) != hex.EncodedLen(len(s)) {
			continue
		}
		if _, err := hex.Decode(s[:], line); err == nil {
			done[s] = true
		}
	}
	return done, nil
}

// mark remembers on disk what a replay has got rid of. One replay at a time has
// it: it holds a lock, of which the agent knows nothing.
type mark struct {
	dir  disk.Dir
	done map[sum]bool
	lock io.Closer
	f    disk.File
	buf  []byte
}

// openMark locks the dead letters against another replay and makes sure that
// what is sent can be remembered. Close it.
func openMark(dir disk.Dir) (*mark, error) {
	lock, err := dir.Lock(lockName)
	var locked *disk.LockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("another replay of these dead letters is under way, wait for its end: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the dead letters against another replay (run it as the agent's user or root): %w", err)
	}
	m := &mark{dir: dir, lock: lock}
	if m.done, err = readMark(dir); err == nil {
		err = m.write(m.done) // anew, so that it ends with a line end
	}
	if err != nil {
		_ = m.close() // nothing was written
		return nil, err
	}
	return m, nil
}

// add remembers records, for good when it returns nil.
func (m *mark) add(sums []sum) error {
	m.buf = m.buf[:0]
	for _, s := range sums {
		m.buf = append(hex.AppendEncode(m.buf, s[:]), '\n')
		m.done[s] = true
	}
	if len(m.buf) == 0 {
		return nil
	}
	_, err := m.f.Write(m.buf)
	if err == nil {
		err = m.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("remember what was sent (%d records may be sent again by the next replay; check space and disk of data_dir): %w", len(sums), err)
	}
	return nil
}

// keep forgets all but these: the others' records have been deleted.
func (m *mark) keep(there map[sum]bool) error {
	before := len(m.done)
	for s := range m.done {
		if !there[s] {
			delete(m.done, s)
		}
	}
	if len(m.done) == before {
		return nil
	}
	return m.write(m.done)
}

// write replaces the mark by one of these records.
func (m *mark) write(done map[sum]bool) error {
	buf := append([]byte(markHeader), '\n')
	for s := range done {
		buf = append(hex.AppendEncode(buf, s[:]), '\n')
	}
	const temp = markName + ".tmp"
	f, err := m.dir.Open(temp, appending|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		_, err = f.Write(buf)
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = m.dir.Rename(temp, markName)
		}
		if err == nil {
			err = m.dir.Sync()
		}
		if err != nil {
			_ = f.Close() // of no use
		}
	}
	if err != nil {
		return fmt.Errorf("write which dead letters were replayed (check space and disk of data_dir): %w", err)
	}
	if m.f != nil {
		_ = m.f.Close() // replaced
	}
	m.f = f
	return nil
}

// close gives the lock back.
func (m *mark) close() error {
	var err error
	if m.f != nil {
		err = m.f.Close()
	}
	return errors.Join(err, m.lock.Close())
}
