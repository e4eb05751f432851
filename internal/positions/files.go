package positions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	journalName = "positions.journal"
	tempName    = journalName + ".tmp" // one agent per directory: one name is enough
	lockName    = "lock"
	keepAside   = 3 // copies of damaged journals
)

// setAside keeps a copy of a journal that cannot be used as it is, and only the
// newest few such copies of a kind. It gives the copy's path.
func (s *Store) setAside(kind string, data []byte) (string, error) {
	prefix := journalName + "." + kind + "-"
	// Fixed width, so that names sort by time.
	name := prefix + s.now().UTC().Format("20060102T150405.000000000Z")
	f, err := s.files.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt(data, 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = s.files.Remove(name) // half a copy helps no one; the first error is told
		return "", err
	}
	all, _ := s.files.List() // of a directory that cannot be read all are kept
	var old []string
	for _, f := range all {
		if strings.HasPrefix(f.Name, prefix) && f.Name != name { // the clock may have been set back
			old = append(old, f.Name)
		}
	}
	for _, n := range old[:max(0, len(old)+1-keepAside)] {
		_ = s.files.Remove(n) // one copy too many does no harm
	}
	return filepath.Join(s.dir, name), nil
}

// LockedError says that another agent uses the directory.
type LockedError struct {
	Dir string
	PID int // 0 if the holder did not say
}

func (e *LockedError) Error() string {
	who := "another log_capturer"
	if e.PID != 0 {
		who += fmt.Sprintf(" (pid %d as it sees itself)", e.PID)
	}
	return fmt.Sprintf("data_dir %s is in use by %s: stop that one, or give this one a data_dir of its own", e.Dir, who)
}
