package monitors

import (
	"math"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail"
)

// What the system takes before it is read is counted: in bytes where the agent
// had the file open, else as a gap.

// lossReason is why bytes of a file that was open will never be read: the label
// of log_capturer_lost_bytes_total.
type lossReason string

// The reasons.
const (
	// lostStopped: the agent stopped, or read its configuration anew, and let go
	// of files that rotation had unlinked.
	lostStopped lossReason = "stopped"
	// lostStreamed: the same because its container is streamed from now on.
	lostStreamed lossReason = "streamed"
	// lostUnreadable: reading failed in a file to which nobody writes any more.
	lostUnreadable lossReason = "unreadable"
	// lostTruncated: somebody else truncated the file.
	lostTruncated lossReason = "truncated"
	// lostExited: the log of a container that has exited was unlinked by somebody
	// else, with half a line at its end.
	lostExited lossReason = "exited"
	// lostNothing: what is left is not wanted.
	lostNothing lossReason = ""
)

var lossReasons = []lossReason{lostStopped, lostStreamed, lostUnreadable, lostTruncated, lostExited}

// close lets go of the files of a log, and counts what is lost by that. mu is held.
func (m *FileMonitor) close(lg *fileLog, reason lossReason) {
	if reason != lostNothing {
		bytes, archives := lg.tail.Left()
		if !lg.placed && bytes > 0 {
			bytes, archives = 0, archives+1 // how much of it had been delivered is not known
		}
		m.lost(lg, reason, bytes, archives)
	}
	lg.tail.Close()
}

// lost counts what was lost of files that were open, and says so; of archives it
// is not known how much that is. mu is held.
func (m *FileMonitor) lost(lg *fileLog, reason lossReason, bytes int64, archives int) {
	if bytes == 0 && archives == 0 {
		return
	}
	m.lostAt = time.Now()
	m.cfg.Metrics.lostBytes.WithLabelValues(string(reason)).Add(float64(bytes))
	lg.stats.LostBytes.Add(bytes)
	m.cfg.Metrics.gaps.Add(float64(archives))
	lg.stats.Gaps.Add(int64(archives))
	args := []any{"container", lg.name, "bytes", bytes}
	if archives > 0 {
		args = append(args, "files_of_unknown_rest", archives)
	}
	switch reason {
	case lostStopped:
		m.cfg.Logger.Warn("the agent stops before it has read log files to their ends that rotation has deleted: the rest is lost; room in the spool (spool.max_bytes) lets them be read in time, larger or more log files (log-opts max-size, max-file) keep them", args...)
	case lostStreamed:
		m.cfg.Logger.Warn("a container is streamed from now on, and the rest of its log files that rotation has deleted is lost; fallback_to_streaming: false waits for the file instead, larger or more log files (log-opts max-size, max-file) keep it", args...)
	case lostUnreadable:
		m.cfg.Logger.Error("the rest of a log file cannot be read and is lost; check the disk", args...)
	case lostExited:
		m.cfg.Logger.Warn("the log file of an exited container was deleted by somebody else, and its last words are lost; leave the files to Docker (log-opts max-size, max-file)", args...)
	case lostTruncated, lostNothing: // said of the truncation itself
	}
}

// countLost counts what a visit has found to be lost, and passes a gap; latest is
// the time of the entry before the visit. mu is held.
func (m *FileMonitor) countLost(lg *fileLog, r *visitResult, latest int64) {
	archives := 0
	if r.chunk.LostArchive {
		archives = 1
	}
	reason := lostUnreadable
	if r.chunk.Truncated {
		reason = lostTruncated
	}
	m.lost(lg, reason, r.chunk.Lost, archives)
	m.passGap(lg, r.chunk, latest)
}

// gap counts log files that were never seen: they came after the one with a
// number. after is the time (Unix ns) of the last entry before them, as far as it
// is known; that of the next one is told by passGap. mu is held.
func (m *FileMonitor) gap(lg *fileLog, files, seq, after int64) {
	m.gapAt = time.Now()
	m.cfg.Metrics.gaps.Add(float64(files))
	lg.stats.Gaps.Add(files)
	lg.stats.GapAfter.Store(after)
	lg.stats.GapBefore.Store(0)
	lg.gapAhead, lg.gapSeq = true, seq
}

// neverOpened counts the log of a container that is no more, if it ran, and its
// file was not there for us or could not be opened. mu is held.
func (m *FileMonitor) neverOpened(lg *fileLog) {
	if _, failed := m.failed[lg]; !failed && lg.names.started.IsZero() {
		return // it was never started: there was no file
	}
	m.gap(lg, 1, 0, 0)
	m.cfg.Logger.Warn("container was removed before its log file could be opened: what it wrote since it was last read is lost", "container", lg.name, "path", lg.path, "error", lg.lastErr)
}

// passGap notes between which times the latest gap lies, once reading has come
// behind it: c is the first chunk from there, before the time of the entry before
// it. mu is held.
func (m *FileMonitor) passGap(lg *fileLog, c tail.Chunk, before int64) {
	if !lg.gapAhead || c.Seq <= lg.gapSeq || len(c.Data) == 0 {
		return
	}
	lg.gapAhead = false
	if before > 0 {
		lg.stats.GapAfter.Store(before)
	}
	var l DockerJSONLogLine
	if _, _, err := ParseDockerJSONLogLine(&l, c.Data, nil); err == nil {
		lg.stats.GapBefore.Store(l.Time)
	}
}

// missed decides how many log files were made and never seen, after a look that
// has found files up to number seq. created is how many notifications have told
// since seq was first. Without notifications a gap is at least one file.
func missed(created, seq, first int64, gap, blind bool) int64 {
	lost := created - (seq - first)
	if lost <= 0 && gap && blind {
		return 1
	}
	return max(0, lost)
}

// passed is a file whose lines may be on their way.
type passed struct {
	id  entry.FileID
	seq int64
}

// needed gives the number of the oldest file that would have to be read again if
// the agent were killed now; a large number if there is none. reading is the
// file that is being read, unread whether it has more. files are those that have
// been read of late, oldest first, with that one.
func needed(reading int64, unread bool, saved positions.Saved, files []passed) int64 {
	oldest := int64(math.MaxInt64)
	if unread {
		oldest = reading
	}
	for s, at := range saved.Positions {
		if at == saved.Read[s] {
			continue // nothing is on its way
		}
		seq := files[0].seq
		for _, f := range files {
			if sameOpenFile(f.id, at.File) {
				seq = f.seq
			}
		}
		oldest = min(oldest, seq)
	}
	return oldest
}

// sameOpenFile compares files of one process, in which a print may have become
// known meanwhile.
func sameOpenFile(a, b entry.FileID) bool {
	return a == b || a.Handle != 0 && a.Handle == b.Handle && a.Inode == b.Inode
}

// pass keeps account of the files that lines on their way are from, after a visit
// that has read from file number seq, and finds out whether all from there and
// before are delivered. The positions are asked only while that may make a
// difference: after a rotation, until its lines are delivered.
func (m *FileMonitor) pass(lg *fileLog, r *visitResult) {
	id, reading, _ := lg.tail.Where()
	if n := len(lg.passed); n == 0 || lg.passed[n-1].seq != reading {
		lg.passed = append(lg.passed, passed{id, reading})
	}
	oldest := lg.needed
	if r.news {
		oldest = min(oldest, r.chunk.Seq)
	}
	if oldest < reading || oldest < lg.tail.Named() {
		saved, _ := m.cfg.Registry.Lookup(lg.id)
		unread := r.more || reading < lg.tail.Seq()
		oldest = needed(reading, unread, saved, lg.passed)
	}
	for len(lg.passed) > 1 && lg.passed[0].seq < oldest {
		lg.passed = append(lg.passed[:0], lg.passed[1:]...)
	}
	m.mu.Lock()
	lg.needed, lg.current = oldest, lg.src
	lg.flagUnlinked()
	m.mu.Unlock()
}

// flagUnlinked lets the way behind know whether the log's lines are in files that
// nobody can read again. FileMonitor.mu is held.
func (lg *fileLog) flagUnlinked() {
	if unlinked := lg.needed < lg.tail.Named(); lg.current.Unlinked.Load() != unlinked {
		lg.current.Unlinked.Store(unlinked)
	}
}
