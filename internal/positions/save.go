package positions

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
)

// appending is how the journal is open: after Truncate the next write goes to the
// new end.
const appending = os.O_WRONLY | os.O_APPEND

// This file is the way from memory to the journal: write, sync, renew.

// touch makes a record dirty and sees to it that it is written in time.
// Called with mu held.
func (s *Store) touch(r *record) {
	if !r.dirty {
		r.dirty = true
		s.dirty = append(s.dirty, r)
	}
	s.arm()
}

// arm wakes Run, unless it is awake. Called with mu held.
func (s *Store) arm() {
	if s.armed {
		return
	}
	s.armed = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write appends every dirty record to the journal with one write. Called with
// mu held.
func (s *Store) write() error {
	if len(s.dirty) == 0 {
		return nil
	}
	if s.f == nil {
		return errClosed
	}
	b := s.buf[:0]
	if s.torn {
		b = append(b, '\n')
	}
	for _, r := range s.dirty {
		b = r.append(b, false)
	}
	s.buf = b
	n, err := s.f.Write(b)
	if err != nil {
		// Half a write must not be joined with the next one. (What of it are
		// whole records is true and may stay.)
		if n > 0 && s.f.Truncate(s.size) != nil {
			s.torn = true
			s.setSize(s.size + int64(n))
		}
		s.m.writeErrors.Inc()
		s.note(&s.writeErr, fmt.Errorf("write to the positions journal: %w", err))
		s.arm()
		return s.writeErr
	}
	s.torn = false
	s.unsynced = true
	s.setSize(s.size + int64(len(b)))
	if s.rewriting {
		s.delta = append(s.delta, b...)
	}
	for _, r := range s.dirty {
		r.dirty, r.newNote = false, false
	}
	clear(s.dirty) // records that are gone can go
	s.dirty = s.dirty[:0]
	s.m.writes.Inc()
	s.note(&s.writeErr, nil)
	s.arm() // for the sync
	return nil
}

func (s *Store) setSize(n int64) {
	s.size = n
	s.m.journalBytes.Set(float64(n))
}

// note keeps the outcome of a write or sync in which, and tells the operator
// when positions stop being saved and when they are saved again. Called with mu
// held.
func (s *Store) note(which *error, err error) {
	*which = err
	was, now := s.failing.Load(), cmp.Or(s.writeErr, s.syncErr)
	switch {
	case now == nil && was == nil:
	case now == nil:
		s.failing.Store(nil)
		s.log.Info("positions are saved again", "failed_for", s.now().Sub(was.Since).Round(time.Millisecond))
	case was == nil:
		s.failing.Store(&SaveError{Since: s.now(), Err: now})
		s.log.Error("positions cannot be saved: delivery goes on, after a crash lines would be sent twice", "error", now, "hint", disk.Hint(now))
	default:
		s.failing.Store(&SaveError{Since: was.Since, Err: now})
	}
}

// flush writes what is dirty, rewrites the journal if that is due, and syncs.
func (s *Store) flush() error {
	s.maint.Lock()
	defer s.maint.Unlock()
	s.mu.Lock()
	s.armed = false
	if s.f == nil {
		s.mu.Unlock()
		return errClosed
	}
	err := s.write()
	// A file that cannot be written, or lost what it was given, is replaced.
	broken := err != nil || s.suspect
	compact := !broken && s.size > s.rewrite && !s.now().Before(s.compactAfter)
	s.mu.Unlock()

	if broken || compact {
		rerr := s.renew()
		switch {
		case rerr == nil:
			// What could not be written to the old file is in the new one, or is
			// written here; the new file is known to take it.
			s.mu.Lock()
			err = s.write()
			s.mu.Unlock()
		case broken:
			s.mu.Lock()
			if s.writeErr == nil && s.syncErr == nil { // a rename of which the outcome is not certain
				s.note(&s.syncErr, rerr)
			}
			s.arm() // try again in a second
			s.mu.Unlock()
			return errors.Join(err, rerr)
		default:
			s.compactAfter = s.now().Add(compactRetry)
			s.log.Warn("positions journal could not be compacted: it grows until that succeeds", "error", rerr, "hint", disk.Hint(rerr))
		}
	}
	return errors.Join(err, s.sync())
}

// sync syncs the journal if it has changed, and the directory after a rename.
// Called with maint held.
func (s *Store) sync() error {
	s.mu.Lock()
	f, unsynced := s.f, s.unsynced
	s.unsynced = false
	s.mu.Unlock()
	if !unsynced && !s.dirUnsynced {
		return nil
	}
	// The two are kept apart: the kernel may drop what it could not write, so
	// that a second sync of the file proves nothing, but one of the directory
	// does.
	var fileErr, dirErr error
	if unsynced {
		fileErr = f.Sync()
	}
	if s.dirUnsynced {
		dirErr = s.files.Sync()
		s.dirUnsynced = dirErr != nil
	}
	err := errors.Join(fileErr, dirErr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("sync the positions journal: %w", err)
		s.suspect = s.suspect || fileErr != nil
		s.m.syncErrors.Inc()
		s.arm()
	} else {
		s.m.syncs.Inc()
	}
	s.note(&s.syncErr, err)
	return err
}

// snapshot appends a journal of all that is known. Called with mu held, or
// before the store is shared.
func (s *Store) snapshot(b []byte) []byte {
	b = append(b, header...)
	b = appendStart(b, s.firstStart)
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		b = s.keys[key].append(b, true)
	}
	return b
}

// renew writes the journal anew: a temporary file, synced, in the old one's
// place. What is written to the old one meanwhile follows at the end. It leaves
// the sync of the directory to sync. Called with maint held, or before the
// store is shared.
func (s *Store) renew() error {
	s.mu.Lock()
	snap := s.snapshot(nil)
	s.rewriting, s.delta = true, s.delta[:0]
	s.mu.Unlock()

	f, err := s.files.Open(tempName, appending|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		if _, err = f.Write(snap); err == nil {
			err = f.Sync()
		}
	}

	s.mu.Lock()
	s.rewriting = false
	if err == nil && len(s.delta) > 0 {
		// It needs no sync before the rename: whatever of it is lost with the
		// power is newer than the last sync, for only this goroutine syncs.
		_, err = f.Write(s.delta)
	}
	if err != nil {
		s.mu.Unlock()
		if f != nil {
			_ = f.Truncate(0) // gives the space back; the first error is told
			_ = f.Close()
		}
		s.m.writeErrors.Inc()
		return fmt.Errorf("write the positions journal anew: %w", err)
	}
	if err := s.files.Rename(tempName, journalName); err != nil {
		// Whether it has happened is not certain after an error of the disk.
		s.suspect = true
		s.arm()
		s.mu.Unlock()
		_ = f.Close()
		s.m.writeErrors.Inc()
		return fmt.Errorf("write the positions journal anew: %w", err)
	}
	old := s.f
	s.f = f
	s.setSize(int64(len(snap) + len(s.delta)))
	s.rewrite = max(s.compactMin, compactFactor*int64(len(snap)))
	s.torn, s.suspect = false, false
	s.delta = nil
	s.m.rewrites.Inc()
	s.dirUnsynced = true
	s.mu.Unlock()
	if old != nil {
		_ = old.Close() // nothing of it is needed
	}
	return nil
}
