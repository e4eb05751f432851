package monitors

import (
	"bytes"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/tail"
)

// fileLog is one container's log being read. Who holds it (the reader of its
// lane, or whoever opens it before) owns every field but those of schedule,
// which belong to FileMonitor.mu.
type fileLog struct {
	// What never changes: the container's ID and its name when it was met, the
	// path, the lane, the counters.
	id, name, path string
	lane           int
	stats          *entry.Stats

	log  uint32 // number in the positions
	src  *entry.Source
	tail *tail.Log
	// note is kept with the position: it says the source's name.
	note string
	// next, unless nil, is the start whose entries come next.
	next *nextStart

	streams [entry.NumStreams]streamState
	// lastTime is the latest of the entries before, for lines that have none.
	// Positions tell it again after a restart, the last entry's they do not:
	// stdout and stderr are not in the order of their times.
	lastTime int64
	// ignoreBefore: entries older than this (Unix ns) are skipped and counted.
	// It never changes for a container, so a restart skips the same ones.
	ignoreBefore int64
	ignored      int64 // entries skipped so
	fromEnd      bool  // what is there at the first start is not wanted
	placed       bool  // reading goes on from where delivery had stopped

	schedule
}

// nextStart is another start of a log's container: the source from the first
// entry on that is not older than since (Unix ns), and its note.
type nextStart struct {
	src   *entry.Source
	since int64
	note  string
}

// then gives what is to come of two starts of which the first, nil if there was
// none, has not been met in the log yet.
func (n *nextStart) then(later *nextStart) *nextStart {
	if n != nil && n.src.Name == later.src.Name {
		later.since = n.since
	}
	return later
}

// streamState is where one stream of a log stands.
type streamState struct {
	// time and ordinal are those of the last entry consumed (entry.Position).
	time    int64
	ordinal uint32
	// saved is the position from which reading was resumed; skip says what is
	// already delivered behind the place where reading began.
	saved entry.Position
	skip  skipRule
	// frag is the open fragment: what has come of a line whose end has not.
	// before is the stream's position ahead of it, fragSeq the file it began in.
	open    bool
	cut     bool // a piece of this line has been shipped
	frag    []byte
	fragT   int64
	before  entry.Position
	fragSeq int64
}

// skipRule says which entries of a stream have been delivered already.
type skipRule struct {
	kind skipKind
	// by offset: everything in files before seq, and in it up to offset.
	seq, offset int64
	// by time: everything before time, and so many entries of exactly time.
	time int64
	left uint32
}

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

// pass ends the rule when reading has come to where nothing it covers can
// follow, though no entry of its stream has come: a stream that stays silent
// must not hold its position back for ever. last is the time of the last entry
// of any stream.
func (s *skipRule) pass(seq, offset, last int64) {
	switch s.kind {
	case skipByOffset:
		if seq > s.seq || seq == s.seq && offset >= s.offset {
			s.kind = skipNothing
		}
	case skipByTime:
		if last > s.time+crossStreams {
			s.kind = skipNothing
		}
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
			p.lost[s] = true
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

// joiner turns consumed entries into lines of a batch: it joins fragments, cuts
// what is too long, and keeps the streams' places. It is the reader's; there is
// one per lane.
type joiner struct {
	line    DockerJSONLogLine
	maxLine int
	// begin is told where the streams of a log stand, and how many lines of
	// each are on their way with it (positions.Store.Begin).
	begin func(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) (seqs [entry.NumStreams]uint64)
	// started is told that a log goes on under the labels of a new start.
	started func(lg *fileLog, id entry.FileID, at int64)
	// shipMalformed: false sends malformed lines to the dead letters alone.
	shipMalformed bool
	counts        visitCounts
	message       []byte // of the entry that special deals with; reused
	// malformed are raw copies for the dead-letter file, reused.
	malformed []MalformedLine
}

// MalformedLine is a line that is no entry of Docker's, as it stood in the file.
type MalformedLine struct {
	Source *entry.Source
	File   string
	Offset int64 // of the line in its file
	Time   int64 // that of the entry before
	Raw    []byte
}

// visitCounts are what one visit of a log came to; added to metrics at its end.
type visitCounts struct {
	bytes, lines, parseErrors, nuls, cutLines, skipped, ignored int
}

// visitResult is what one visit of a log came to.
type visitResult struct {
	news      bool // something has been read
	more      bool // there may be more to read at once
	truncated bool
	err       error
}

// visit reads at most one buffer's worth of a log into the batch. final: the
// container has exited, what is there is all there is.
func (j *joiner) visit(lg *fileLog, b *entry.Batch, buf []byte, final bool) (r visitResult) {
	c, err := lg.tail.Next(buf)
	r.err, r.truncated = err, c.Truncated
	j.counts.nuls += int(c.Hole)
	if c.Truncated {
		// What is there now is new content; what was to be skipped is gone.
		for s := range lg.streams {
			lg.streams[s].skip = skipRule{}
		}
	}
	r.news = len(c.Data) > 0 || c.Hole > 0
	// A container that has exited is read until there is nothing: only then are
	// its last words known to be the last.
	r.more = r.news && (!c.End || final)
	ended := false
	if c.End {
		// All that was there when reading began has been looked at, or is in
		// this chunk: no rule has anything left to cover behind it.
		for s := range lg.streams {
			ended = ended || lg.streams[s].skip.kind != skipNothing
		}
	}
	if err != nil || !r.news && !final && !ended {
		return r
	}
	b.Begin(lg.src)
	if r.news {
		j.read(lg, b, c)
		lg.tail.Advance(len(c.Data))
		j.counts.bytes += len(c.Data)
	}
	for s := range lg.streams {
		switch st := &lg.streams[s]; {
		case !st.open:
		case !r.news && final:
			j.endLine(lg, b, entry.Stream(s), 0)
		case st.fragSeq < c.Seq && c.Offset > 0:
			// Its file has been rotated away, and a whole buffer of the next
			// one did not end it: it may be gone before its end comes.
			j.endLine(lg, b, entry.Stream(s), entry.FlagPartial)
		}
	}
	if ended {
		for s := range lg.streams {
			lg.streams[s].skip = skipRule{}
		}
	}
	id, seq, offset := lg.tail.Where()
	j.endSection(lg, b, id, seq, offset)
	return r
}

// endSection closes the section of what has been read of a log, up to an offset
// of a file, and lets the positions know of it before anyone else can.
func (j *joiner) endSection(lg *fileLog, b *entry.Batch, id entry.FileID, seq, offset int64) {
	section := b.End()
	var ends [entry.NumStreams]entry.Position
	for s := range lg.streams {
		st := &lg.streams[s]
		st.skip.pass(seq, offset, lg.lastTime)
		ends[s] = st.position(id, offset)
	}
	var lines [entry.NumStreams]int
	if section != nil {
		for class, n := range section.Lines {
			lines[entry.Class(class).Stream()] += int(n)
		}
	}
	seqs := j.begin(lg.log, ends, lines)
	if section == nil {
		return
	}
	section.Seq = seqs
	stats := lg.src.Stats
	stats.Read.Add(int64(section.Count))
	stats.Malformed.Add(int64(section.Lines[entry.ClassMalformed]))
	var text int64
	for _, n := range section.Bytes {
		text += n
	}
	stats.ReadBytes.Add(text)
	j.counts.lines += section.Count
}

// position gives where the stream stands when everything up to offset has been
// consumed.
func (st *streamState) position(id entry.FileID, offset int64) entry.Position {
	switch {
	case st.skip.kind != skipNothing:
		return st.saved // still short of what was delivered before
	case st.open:
		return st.before
	}
	return entry.Position{File: id, Offset: offset, Time: st.time, Ordinal: st.ordinal}
}

// note takes account of an entry consumed.
func (st *streamState) note(t int64) {
	if t == st.time {
		st.ordinal++
		return
	}
	st.time, st.ordinal = t, 1
}

// read parses a chunk into the open section of the batch.
func (j *joiner) read(lg *fileLog, b *entry.Batch, c tail.Chunk) {
	l := &j.line
	data := c.Data
	at := c.Offset
	if c.Long {
		j.broken(lg, b, data, c.Seq, at, at+int64(len(data)))
		return
	}
	for len(data) > 0 {
		off := len(b.Text)
		n, text, err := ParseDockerJSONLogLine(l, data, b.Text)
		end := at + int64(n)
		j.counts.nuls += l.NULs
		switch st := &lg.streams[l.Stream]; {
		case err != nil:
			b.Text = text
			j.broken(lg, b, l.Raw, c.Seq, at, end)
		case !l.Fragment && !st.open && st.skip.kind == skipNothing && l.Time >= lg.ignoreBefore &&
			len(l.Message) <= j.maxLine && l.Time != 0 && (lg.next == nil || l.Time < lg.next.since):
			// The common case: a whole line.
			if m := len(text); m > off && text[m-1] == '\r' {
				text = text[:m-1]
			}
			b.Text = text
			b.Add(l.Time, off, entry.Class(l.Stream), 0)
			st.note(l.Time)
			lg.lastTime = max(lg.lastTime, l.Time)
		default:
			b.Text = text[:off]
			j.special(lg, b, c.Seq, at, end)
		}
		data = data[n:]
		at = end
	}
}

// special deals with an entry that is not simply a whole line. Its message lies
// behind the end of the batch's text.
func (j *joiner) special(lg *fileLog, b *entry.Batch, seq, at, end int64) {
	l := &j.line
	// What is shipped before it is written over it.
	j.message = append(j.message[:0], l.Message...)
	l.Message = j.message
	t := l.Time
	if t == 0 {
		t = lg.lastTime
	}
	lg.lastTime = max(lg.lastTime, t)
	if lg.next != nil && t >= lg.next.since {
		j.switchSource(lg, b, at)
	}
	st := &lg.streams[l.Stream]
	if st.skip.kind != skipNothing && st.skip.covers(seq, end, t) {
		j.counts.skipped++
		return
	}
	continues := st.open && t == st.fragT
	if st.open && !continues {
		j.endLine(lg, b, l.Stream, 0)
	}
	if t < lg.ignoreBefore {
		st.note(t)
		lg.ignored++
		j.counts.ignored++
		return
	}
	if !st.open {
		id, _, _ := lg.tail.Where()
		before := st.position(id, at)
		st.open, st.cut, st.fragT, st.fragSeq, st.before = true, false, t, seq, before
	}
	st.note(t)
	if len(st.frag) > 0 && len(st.frag)+len(l.Message) > j.maxLine {
		j.ship(lg, b, l.Stream, st.frag, entry.FlagPartial)
		st.frag = st.frag[:0]
		st.cut = true
	}
	st.frag = append(st.frag, l.Message...)
	if !l.Fragment {
		if n := len(st.frag); n > 0 && st.frag[n-1] == '\r' {
			st.frag = st.frag[:n-1] // the line end of a terminal
		}
		j.endLine(lg, b, l.Stream, 0)
		return
	}
	if len(st.frag) > j.maxLine {
		// One entry alone is too long. It is shipped whole, in pieces, so that
		// a position never lies inside an entry.
		j.ship(lg, b, l.Stream, st.frag, entry.FlagPartial)
		st.frag = st.frag[:0]
		st.cut = true
	}
	if st.cut && len(st.frag) == 0 {
		// Everything so far has been shipped.
		id, _, _ := lg.tail.Where()
		st.before, st.fragSeq = entry.Position{File: id, Offset: end, Time: st.time, Ordinal: st.ordinal}, seq
	} else if st.cut && len(st.frag) == len(l.Message) {
		// All but this entry has been shipped.
		id, _, _ := lg.tail.Where()
		st.before, st.fragSeq = entry.Position{File: id, Offset: at, Time: st.time, Ordinal: st.ordinal - 1}, seq
	}
}

// endLine ships the open line of a stream, if there is one.
func (j *joiner) endLine(lg *fileLog, b *entry.Batch, s entry.Stream, flags entry.Flags) {
	st := &lg.streams[s]
	if !st.open {
		return
	}
	if st.cut || len(st.frag) > j.maxLine {
		flags |= entry.FlagPartial
		j.counts.cutLines++
	}
	if len(st.frag) > 0 || !st.cut {
		j.ship(lg, b, s, st.frag, flags)
	}
	st.open, st.cut, st.frag = false, false, st.frag[:0]
	st.shrink()
}

// shrink lets the buffer of a long line go: lines that long are rare, logs many.
func (st *streamState) shrink() {
	if cap(st.frag) > 64<<10 {
		st.frag = nil
	}
}

// ship adds text as a line, or as several if it is longer than a line may be.
func (j *joiner) ship(lg *fileLog, b *entry.Batch, s entry.Stream, text []byte, flags entry.Flags) {
	t := lg.streams[s].fragT
	for len(text) > j.maxLine {
		n := cutAtRune(text, j.maxLine)
		off := len(b.Text)
		b.Text = append(b.Text, text[:n]...)
		b.Add(t, off, entry.Class(s), flags|entry.FlagPartial)
		text = text[n:]
	}
	off := len(b.Text)
	b.Text = append(b.Text, text...)
	b.Add(t, off, entry.Class(s), flags)
}

// cutAtRune gives the largest n <= limit at which valid UTF-8 is not cut inside
// a rune.
func cutAtRune(text []byte, limit int) int {
	n := limit
	for n > limit-4 && n > 1 && text[n]&0xc0 == 0x80 {
		n--
	}
	if text[n]&0xc0 == 0x80 {
		return limit
	}
	return n
}

// broken deals with a line that is no entry. It belongs to stdout where
// positions are concerned.
func (j *joiner) broken(lg *fileLog, b *entry.Batch, raw []byte, seq, at, end int64) {
	st := &lg.streams[entry.Stdout]
	if s := &st.skip; s.kind == skipByTime && lg.lastTime < s.time || s.kind == skipByOffset && s.covers(seq, end, 0) {
		// By time: it stands among lines that have been delivered.
		j.counts.skipped++
		return
	}
	if len(raw) == 0 {
		return // NUL bytes or an empty line
	}
	if lg.lastTime < lg.ignoreBefore {
		lg.ignored++
		j.counts.ignored++
		return
	}
	j.counts.parseErrors++
	if !j.shipMalformed {
		off := len(b.Text)
		b.Text = append(b.Text, raw...)
		b.Add(lg.lastTime, off, entry.ClassMalformed, entry.FlagRefused)
		b.Refusals = append(b.Refusals, entry.Refusal{
			Section: len(b.Sections) - 1, Line: len(b.Lines) - 1, Reason: ReasonMalformed,
		})
		return
	}
	j.malformed = append(j.malformed, MalformedLine{
		Source: lg.src, File: lg.tail.Path(), Offset: at, Time: lg.lastTime, Raw: bytes.Clone(raw),
	})
	text := bytes.ToValidUTF8(raw, []byte("\ufffd"))
	flags := entry.Flags(0)
	if len(text) > j.maxLine {
		flags = entry.FlagPartial
		j.counts.cutLines++
	}
	for len(text) > 0 {
		n := len(text)
		if n > j.maxLine {
			n = cutAtRune(text, j.maxLine)
		}
		off := len(b.Text)
		b.Text = append(b.Text, text[:n]...)
		b.Add(lg.lastTime, off, entry.ClassMalformed, flags)
		text = text[n:]
	}
}

// ReasonMalformed is the reason of a dead letter that is no entry of Docker's.
const ReasonMalformed = "malformed"

// switchSource lets the lines from an offset on bear the labels of the
// container's latest start. The lane stays: two lanes would not keep the order.
func (j *joiner) switchSource(lg *fileLog, b *entry.Batch, at int64) {
	for s := range lg.streams {
		if lg.streams[s].fragT < lg.next.since {
			j.endLine(lg, b, entry.Stream(s), 0) // that process is no more
		}
	}
	id, seq, _ := lg.tail.Where()
	j.endSection(lg, b, id, seq, at)
	next := lg.next
	next.src.Log, next.src.Lane = lg.src.Log, lg.src.Lane
	lg.src, lg.note, lg.next = next.src, next.note, nil
	j.started(lg, id, at)
	b.Begin(lg.src)
}
