package monitors

import (
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// skipRule says which entries of a stream have been delivered already.
type skipRule struct {
	kind skipKind
	// by offset: everything in files before seq, and in it up to offset.
	seq, offset int64
	// by time: everything before time, and so many entries of exactly time.
	time int64
	left uint32
	// passed: by time, and reading has come so far that most probably nothing
	// is left to cover: the stream's position is not held back any more. The end
	// of a line that was long in coming has the time of its beginning, though.
	passed bool
}

// holds reports whether the stream is still short of what has been delivered.
func (s *skipRule) holds() bool { return s.kind != skipNothing && !s.passed }

type skipKind uint8

const (
	skipNothing skipKind = iota
	skipByOffset
	skipByTime
)

// covers reports whether an entry that ends at an offset of file seq has been
// delivered. The first that has not ends the rule. t is 0 for a line without
// time.
func (s *skipRule) covers(seq, end, t int64) bool {
	switch s.kind {
	case skipByOffset:
		if seq < s.seq || seq == s.seq && end <= s.offset {
			return true
		}
	case skipByTime:
		if t < s.time {
			return true
		}
		if t == s.time && s.left > 0 {
			if s.left--; s.left == 0 {
				s.kind = skipNothing // that was the last one
			}
			return true
		}
	case skipNothing:
		return false
	}
	s.kind = skipNothing
	return false
}

// crossStreams is by how much times may fall from an entry to one of the other
// stream behind it: some milliseconds (measured: 2), and a margin.
const crossStreams = int64(time.Second)

// pass lets the position go when reading has come to where nothing that the rule
// covers is to be expected, though no entry of its stream has come: a stream that
// stays silent must not hold its position back for ever. last is the time of the
// last entry of any stream.
func (s *skipRule) pass(seq, offset, last int64) {
	switch s.kind {
	case skipByOffset:
		if seq > s.seq || seq == s.seq && offset >= s.offset {
			s.kind = skipNothing
		}
	case skipByTime:
		s.passed = s.passed || last > s.time+crossStreams
	case skipNothing:
	}
}

// resumePlan is where to begin reading and what to skip from there.
type resumePlan struct {
	seq, offset int64 // seq 0: the oldest file
	skip        [entry.NumStreams]skipRule
	// lost is set for a stream whose file is no longer there: what it still
	// held cannot be read any more.
	lost [entry.NumStreams]bool
}

// planResume decides how a log is resumed. find looks a file up in the chain.
//
// Both streams lie in the same files, and may have been delivered up to
// different places: reading begins at the earlier one, and what the other
// stream has delivered behind it is skipped.
func planResume(saved [entry.NumStreams]entry.Position, find func(entry.FileID) (int64, bool)) resumePlan {
	var p resumePlan
	begin := false // at the oldest file
	for s, pos := range saved {
		if pos.IsZero() {
			begin = true // nothing delivered of this stream
			continue
		}
		seq, ok := find(pos.File)
		if !ok {
			begin = true
			// Of what came through the API no file is known, and none missed.
			p.lost[s] = pos.File != entry.FileID{}
			p.skip[s] = byTime(pos)
			continue
		}
		p.skip[s] = skipRule{kind: skipByOffset, seq: seq, offset: pos.Offset}
		if p.seq == 0 || seq < p.seq || seq == p.seq && pos.Offset < p.offset {
			p.seq, p.offset = seq, pos.Offset
		}
	}
	if begin {
		p.seq, p.offset = 0, 0
	}
	return p
}

// timeBefore gives the time of what lies before the place where reading begins,
// as far as the positions tell.
func (p *resumePlan) timeBefore(saved [entry.NumStreams]entry.Position) int64 {
	var here, earlier int64
	for s, pos := range saved {
		if sk := p.skip[s]; p.seq > 0 && sk.kind == skipByOffset && sk.seq == p.seq && sk.offset == p.offset {
			here = max(here, pos.Time)
		}
		if pos.Time > 0 && (earlier == 0 || pos.Time < earlier) {
			earlier = pos.Time
		}
	}
	if here > 0 {
		return here
	}
	if p.skip[entry.Stdout].kind == skipByTime {
		return 0 // malformed lines are judged by it
	}
	return earlier
}

// byTime skips what lies up to a position, judged by the entries' times: for a
// file in which the position cannot be found. Docker's times never fall within
// one stream, unless the clock is set back.
func byTime(pos entry.Position) skipRule {
	if pos.Time == 0 {
		return skipRule{}
	}
	return skipRule{kind: skipByTime, time: pos.Time, left: pos.Ordinal}
}

// sinceOf gives the time (Unix ns) from which on a log that has been read up to
// the positions is to be asked of the API; 0: from its beginning.
func sinceOf(saved [entry.NumStreams]entry.Position) int64 {
	out, err := saved[entry.Stdout], saved[entry.Stderr]
	switch {
	case out.IsZero() || err.IsZero():
		return 0
	case out.File != entry.FileID{} && out.File == err.File && out.Offset == err.Offset:
		// Both have been read up to one place of a file, behind which nothing
		// is older than what lies before it, but for the race of the streams:
		// one that is silent for a week does not need a week's log.
		return max(0, max(out.Time, err.Time)-crossStreams)
	}
	return min(out.Time, err.Time)
}
