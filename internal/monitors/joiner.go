package monitors

import (
	"bytes"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/tail"
)

// maxSpare bounds what is kept for the next open fragment: longer lines are rare.
const maxSpare = 64 << 10

// joiner turns consumed entries into lines of a batch: it joins fragments, cuts
// what is too long, and keeps the streams' places, whichever road the entries
// came. It is the reader's: there is one per lane of files, and one per stream.
type joiner struct {
	line    DockerJSONLogLine // the entry that is being dealt with
	maxLine int
	// seq and from are where the open section begins: the number of the file in its
	// log, and the offset in it; 0 for a stream.
	seq, from int64
	// begin is told where the streams of a log stand, and how many lines of
	// each are on their way with it (positions.Store.Begin).
	begin func(log uint32, ends [entry.NumStreams]entry.Position, lines [entry.NumStreams]int) (seqs [entry.NumStreams]uint64)
	// started is told that a log goes on under the labels of a new start.
	started func(lg *containerLog, at int64)
	// shipMalformed: false sends malformed lines to the dead letters alone.
	shipMalformed bool
	counts        visitCounts
	message       []byte // of the entry that special deals with; reused
	spare         []byte // memory for the next open fragment, at most maxSpare; nil: there is none
	// malformed are raw copies for the dead-letter file, reused.
	malformed []MalformedLine
}

// MalformedLine is a line that is no entry of Docker's, as it stood in the file.
type MalformedLine struct {
	Source *entry.Source
	Place  entry.Place // of the line in its file
	Time   int64       // that of the entry before
	Raw    []byte
}

// visitCounts are what one visit of a log came to; added to metrics at its end.
type visitCounts struct {
	bytes, lines, parseErrors, nuls, cutLines, skipped, ignored int
}

// beginSection opens a section for what is read of a log from an offset of its
// present file on.
func (j *joiner) beginSection(lg *containerLog, b *entry.Batch, seq, offset int64) {
	j.seq, j.from = seq, offset
	b.BeginAt(lg.src, entry.Place{Inode: lg.file.Inode, Offset: offset})
}

// endSection closes the section of what has been read of a log, up to an offset
// of a file, and lets the positions know of it before anyone else can.
func (j *joiner) endSection(lg *containerLog, b *entry.Batch, seq, offset int64) {
	section := b.End()
	for s := range lg.streams {
		lg.streams[s].skip.pass(seq, offset, lg.lastTime)
	}
	ends := lg.ends(offset)
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

// read parses a chunk of a file into the open section of the batch.
func (j *joiner) read(lg *containerLog, b *entry.Batch, c tail.Chunk) {
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
		b.Text = text
		if l.NULs > 0 {
			j.counts.nuls += l.NULs
			at += int64(jsonLeadingNULs(data[:n])) // people look for the line there
		}
		if err != nil {
			j.broken(lg, b, l.Raw, c.Seq, at, end)
		} else {
			j.entry(lg, b, off, c.Seq, at, end)
		}
		data = data[n:]
		at = end
	}
}

// entry deals with the entry in line, whose message is the batch's text from off
// on. at and end are where it lies in the file.
func (j *joiner) entry(lg *containerLog, b *entry.Batch, off int, seq, at, end int64) {
	l := &j.line
	st := &lg.streams[l.Stream]
	if l.Fragment || st.open || st.skip.kind != skipNothing || l.Time < lg.ignoreBefore ||
		len(l.Message) > j.maxLine || l.Time == 0 || lg.next != nil && l.Time >= lg.next.since {
		b.Text = b.Text[:off]
		j.special(lg, b, seq, at, end)
		return
	}
	// The common case: a whole line.
	if m := len(b.Text); m > off && b.Text[m-1] == '\r' {
		b.Text = b.Text[:m-1]
	}
	st.note(l.Time)
	place := uint32(at - j.from)
	if lg.byTime {
		place = st.ordinal
	}
	b.AddAt(l.Time, off, entry.Class(l.Stream), 0, place)
	st.unended = false
	lg.latest = l.Time
	lg.lastTime = max(lg.lastTime, l.Time)
}

// special deals with an entry that is not simply a whole line. Its message lies
// behind the end of the batch's text.
func (j *joiner) special(lg *containerLog, b *entry.Batch, seq, at, end int64) {
	l := &j.line
	// What is shipped before it is written over it.
	j.message = append(j.message[:0], l.Message...)
	l.Message = j.message
	t := l.Time
	if t == 0 {
		t = lg.lastTime
	}
	lg.latest = t
	lg.lastTime = max(lg.lastTime, t)
	if lg.next != nil && t >= lg.next.since {
		if lg.next.src == nil {
			lg.over = true
			return
		}
		j.switchSource(lg, b, seq, at)
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
		before := lg.position(l.Stream, at)
		st.open, st.cut, st.fragT, st.fragSeq, st.before = true, false, t, seq, before
		st.frag, j.spare = j.spare, nil
	}
	st.note(t)
	st.unended = l.Fragment
	if len(st.frag) > 0 && len(st.frag)+len(l.Message) > j.maxLine {
		j.ship(lg, b, l.Stream, st.frag, entry.FlagPartial)
		st.frag = st.frag[:0]
		st.cut = true
	}
	if len(st.frag) == 0 {
		st.fragAt = textStart{seq: seq, place: entry.Place{Inode: lg.file.Inode, Offset: at}, ordinal: st.ordinal}
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
		st.before, st.fragSeq = entry.Position{File: lg.file, Offset: end, Time: st.time, Ordinal: st.ordinal}, seq
	} else if st.cut && len(st.frag) == len(l.Message) {
		// All but this entry has been shipped.
		st.before, st.fragSeq = entry.Position{File: lg.file, Offset: at, Time: st.time, Ordinal: st.ordinal - 1}, seq
	}
}

// endLine ships the open line of a stream, if there is one.
func (j *joiner) endLine(lg *containerLog, b *entry.Batch, s entry.Stream, flags entry.Flags) {
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
	// Logs are many, and few have an open fragment: only these have memory for one.
	if n := cap(st.frag); n > cap(j.spare) && n <= maxSpare {
		j.spare = st.frag[:0]
	}
	st.open, st.cut, st.frag = false, false, nil
}

// ship adds text as a line, or as several if it is longer than a line may be.
func (j *joiner) ship(lg *containerLog, b *entry.Batch, s entry.Stream, text []byte, flags entry.Flags) {
	for len(text) > j.maxLine {
		n := cutAtRune(text, j.maxLine)
		j.add(lg, b, s, text[:n], flags|entry.FlagPartial)
		text = text[n:]
	}
	j.add(lg, b, s, text, flags)
}

// add adds text that begins where the open text of its stream does.
func (j *joiner) add(lg *containerLog, b *entry.Batch, s entry.Stream, text []byte, flags entry.Flags) {
	st := &lg.streams[s]
	off := len(b.Text)
	b.Text = append(b.Text, text...)
	switch at := &st.fragAt; {
	case lg.byTime:
		b.AddAt(st.fragT, off, entry.Class(s), flags, at.ordinal)
	case at.seq == j.seq && at.place.Offset >= j.from:
		b.AddAt(st.fragT, off, entry.Class(s), flags, uint32(at.place.Offset-j.from))
	default:
		b.AddOpen(st.fragT, off, entry.Class(s), flags, at.place)
	}
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
func (j *joiner) broken(lg *containerLog, b *entry.Batch, raw []byte, seq, at, end int64) {
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
		b.AddAt(lg.lastTime, off, entry.ClassMalformed, entry.FlagRefused, uint32(at-j.from))
		b.Refusals = append(b.Refusals, entry.Refusal{
			Section: len(b.Sections) - 1, Line: len(b.Lines) - 1, Reason: ReasonMalformed,
		})
		return
	}
	j.malformed = append(j.malformed, MalformedLine{
		Source: lg.src, Place: entry.Place{Inode: lg.file.Inode, Offset: at}, Time: lg.lastTime, Raw: bytes.Clone(raw),
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
		b.AddAt(lg.lastTime, off, entry.ClassMalformed, flags, uint32(at-j.from))
		text = text[n:]
	}
}

// ReasonMalformed is the reason of a dead letter that is no entry of Docker's.
const ReasonMalformed = "malformed"

// switchSource lets the lines from an offset on bear the labels of the
// container's latest start.
func (j *joiner) switchSource(lg *containerLog, b *entry.Batch, seq, at int64) {
	for s := range lg.streams {
		if lg.streams[s].fragT < lg.next.ended {
			j.endLine(lg, b, entry.Stream(s), 0)
		}
	}
	j.endSection(lg, b, seq, at)
	next := lg.next
	next.src.Log = lg.src.Log
	lg.src, lg.note, lg.next = next.src, next.note, nil
	j.started(lg, at)
	j.beginSection(lg, b, seq, at)
}
