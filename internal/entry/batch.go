package entry

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Source is one log as the way behind the monitors sees it: what its lines are
// labelled with, and where to count them. All fields but the counters are
// immutable once lines have been appended; a container that is started again
// under other labels gets a new Source.
type Source struct {
	// ID is the container's full ID, Name its name without the slash.
	ID, Name string
	// Log is the number of the log in the positions.
	Log uint32
	// Lane is the index of the ordered lane that carries the log.
	Lane int
	// Method is how the log is read: "file_monitor" or "streaming".
	Method string
	// Path is the log's file, by the name that it has while it is written to; empty for
	// a log that is streamed, and where it is not known.
	Path string
	// Labels are the label sets by class.
	Labels [NumClasses]Labels
	// Metadata accompanies every line: Loki's structured metadata.
	Metadata []Label
	// Stats are the counters of the log; never nil once lines are appended.
	Stats *Stats
	// Held is set by dispatch while the store refuses a stream of this log
	// alone: nobody reads the log then. Only dispatch writes it.
	Held atomic.Bool
	// Unlinked says that its lines are in a file that has no name any more: nobody
	// can read them again after a kill. Only its reader's side writes it.
	Unlinked atomic.Bool
}

// Stats count one log's lines since the agent started, and what was lost of it.
// Safe for concurrent use. Read + lines found in the spool at the start = Delivered +
// DeadLettered + lines still on their way, in the spool, or lost in it: of those
// nobody knows any more whose they were.
type Stats struct {
	Read         atomic.Int64 // lines appended to a batch
	Delivered    atomic.Int64 // lines that the store accepted
	DeadLettered atomic.Int64 // lines that the store refused for good, now in the dead-letter file
	Malformed    atomic.Int64 // of Read: lines shipped raw
	ReadBytes    atomic.Int64 // text bytes of Read
	// LostBytes are bytes of log files that the agent had open and could not read
	// to their ends.
	LostBytes atomic.Int64
	// Gaps counts the places where lines are missing that were never seen. The
	// latest gap lies between GapAfter and GapBefore, times of entries (Unix ns; 0:
	// not known, or not yet).
	Gaps, GapAfter, GapBefore atomic.Int64
}

// Flags mark a line.
type Flags uint8

const (
	// FlagPartial marks a piece of a line that was cut: longer than
	// max_line_bytes, or its rest never came.
	FlagPartial Flags = 1 << iota
	// FlagRefused marks a line that the store will never take. Set by a sink,
	// which adds a Refusal to the batch.
	FlagRefused
	// FlagOpen marks a line of which the text began to come before its section did:
	// it begins at Section.Open of its stream.
	FlagOpen
	// FlagTaken marks a line that the store has accepted while its part is still to be sent: it is
	// not sent again. Set by a sink, which sets Batch.Taken, too.
	FlagTaken

	// FlagsDone are those of lines that are not sent any more.
	FlagsDone = FlagRefused | FlagTaken
)

// Line is one line of a batch; its text is Batch.Text[Off:Off+Len].
type Line struct {
	Time int64 // nanoseconds since the Unix epoch
	Off  uint32
	Len  uint32
	// At tells where the line begins: in a file, as many bytes behind Section.From
	// (Section.Place adds them up); of a log that is streamed, the ordinal of its entry among
	// those of its stream and Time, as in Position. 0 also where that is not known.
	At    uint32
	Class Class
	Flags Flags
}

// Place is a place in a file of a log, for people who look a line up there. It
// is no Position: an inode number may be another file's by then.
type Place struct {
	// Inode is the file's inode number; 0: the place is not known.
	Inode uint64
	// Offset is the number of bytes of the file (uncompressed) before the place.
	Offset int64
}

// PartState says where the lines of one class in a section are.
type PartState uint8

const (
	// PartEmpty: nothing of the class is to be sent from here: there was no
	// line, or what there was has been accounted for or moved elsewhere.
	PartEmpty PartState = iota
	// PartPending: to be sent.
	PartPending
	// PartAccepted: the store has taken the lines, except those with
	// FlagRefused. Set by the sink.
	PartAccepted
	// PartHeld: the store refuses this stream for now; others may go on. Set by
	// the sink; dispatch takes the part out of the batch.
	PartHeld
	// PartKept: the sink has the lines on a disk of ours, synced, and answers for
	// them: they are acknowledged now and counted when they are delivered.
	PartKept
)

// Section is a run of lines that one read of one log gave to a batch:
// Batch.Lines[First:First+Count], in the log's order, classes mixed.
type Section struct {
	Source *Source
	First  int
	Count  int
	// From is the place from which on the lines were read; zero if they were streamed.
	From Place
	// Open is, by stream, where the text of lines with FlagOpen begins.
	Open [NumStreams]Place
	// Lines and Bytes (of text) by class.
	Lines [NumClasses]int32
	Bytes [NumClasses]int64
	// State by class. Set to PartPending by End; changed by sink and dispatch.
	State [NumClasses]PartState
	// Seq is, by stream, the number of the span to acknowledge once every
	// class of the stream is done; 0 where the section has no line.
	Seq [NumStreams]uint64
}

// Refusal says that a store will never take a line.
type Refusal struct {
	// Section and Line are indices into the batch's Sections and Lines.
	Section, Line int
	// Reason is the store's own words, shortened.
	Reason string
}

// Batch is a number of lines of any logs of one lane: an arena of text and
// offsets into it, so that a line costs no allocation. A log's sections stand
// in the order in which they were read. A batch is used by one goroutine at a
// time.
type Batch struct {
	Text     []byte
	Lines    []Line
	Sections []Section
	Refusals []Refusal
	metadata int // what Size counts for the metadata of the lines
	// Limit is the size (see Size) from which the batch is full: whoever fills it hands it on
	// then. Who gives it to be filled sets it.
	Limit int
	// Taken is set when lines bear FlagTaken. Set by a sink.
	Taken bool
	// Enough asks a sink to begin no more requests in its present attempt, when it is set in
	// progress: those under way have their time. Who makes the attempt sets and resets it.
	Enough bool
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Text = b.Text[:0]
	b.Lines = b.Lines[:0]
	b.metadata, b.Taken = 0, false
	clear(b.Sections) // the sources may go
	b.Sections = b.Sections[:0]
	clear(b.Refusals)
	b.Refusals = b.Refusals[:0]
}

// lineOverhead is what a line is taken to cost beyond its text when a batch's
// size is judged: time, lengths and tags of the push protocol.
const lineOverhead = 24

// pairOverhead is the like for each pair of its metadata, beyond name and value.
const pairOverhead = 6

// Size is the approximate size of the batch in a request, in bytes; metadata counts once End has
// closed the section. Exact limits are the sink's to keep.
func (b *Batch) Size() int { return len(b.Text) + lineOverhead*len(b.Lines) + b.metadata }

// Memory gives how much memory the text and the lines of the batch take, and how much there is for
// them, in bytes.
func (b *Batch) Memory() (used, kept int) {
	const line = int(unsafe.Sizeof(Line{}))
	return len(b.Text) + line*len(b.Lines), cap(b.Text) + line*cap(b.Lines)
}

// Begin opens a section for lines of src. Every Begin is followed by an End
// before the next Begin.
func (b *Batch) Begin(src *Source) { b.BeginAt(src, Place{}) }

// BeginAt is Begin for lines that are read from a place of a file on.
func (b *Batch) BeginAt(src *Source, from Place) {
	b.Sections = append(b.Sections, Section{Source: src, First: len(b.Lines), From: from})
}

// Add appends a line to the open section. Its text is what has been appended
// to Text since the offset off.
func (b *Batch) Add(time int64, off int, class Class, flags Flags) {
	b.AddAt(time, off, class, flags, 0)
}

// AddAt is Add for a line of which it is known where it begins (Line.At).
func (b *Batch) AddAt(time int64, off int, class Class, flags Flags, at uint32) {
	b.Lines = append(b.Lines, Line{
		Time: time, Off: uint32(off), Len: uint32(len(b.Text) - off), At: at, Class: class, Flags: flags,
	})
}

// AddOpen is Add for a line whose text began to come before its section did, at a
// place. A section has one such line of a stream, or pieces of it.
func (b *Batch) AddOpen(time int64, off int, class Class, flags Flags, began Place) {
	b.Sections[len(b.Sections)-1].Open[class.Stream()] = began
	b.AddAt(time, off, class, flags|FlagOpen, 0)
}

// Place gives where in a file the entry begins with which a line of a section does;
// the zero Place if that is not known.
func (s *Section) Place(l *Line) Place {
	switch {
	case l.Flags&FlagOpen != 0:
		return s.Open[l.Class.Stream()]
	case s.From.Inode == 0:
		return Place{}
	}
	return Place{Inode: s.From.Inode, Offset: s.From.Offset + int64(l.At)}
}

// End closes the open section, counts its lines and gives the section. A
// section without lines is taken back, and nil returned.
func (b *Batch) End() *Section {
	s := &b.Sections[len(b.Sections)-1]
	s.Count = len(b.Lines) - s.First
	if s.Count == 0 {
		b.Sections[len(b.Sections)-1] = Section{}
		b.Sections = b.Sections[:len(b.Sections)-1]
		return nil
	}
	for _, m := range s.Source.Metadata {
		b.metadata += s.Count * (len(m.Name) + len(m.Value) + pairOverhead)
	}
	for i := range b.Lines[s.First:] {
		l := &b.Lines[s.First+i]
		s.Lines[l.Class]++
		s.Bytes[l.Class] += int64(l.Len)
	}
	for c, n := range s.Lines {
		if n > 0 {
			s.State[c] = PartPending
		}
	}
	return s
}

// CopySection appends the lines of a section of another batch that want takes,
// nil: all, as a section of their own, and gives that as End does. Spans are not
// copied.
func (b *Batch) CopySection(from *Batch, s *Section, want func(*Line) bool) *Section {
	b.BeginAt(s.Source, s.From)
	b.Sections[len(b.Sections)-1].Open = s.Open
	lines := from.SectionLines(s)
	for i := range lines {
		l := &lines[i]
		if want != nil && !want(l) {
			continue
		}
		off := len(b.Text)
		b.Text = append(b.Text, from.Message(l)...)
		b.AddAt(l.Time, off, l.Class, l.Flags, l.At)
	}
	return b.End()
}

// SectionLines gives the lines of a section.
func (b *Batch) SectionLines(s *Section) []Line { return b.Lines[s.First : s.First+s.Count] }

// Message gives the text of a line.
func (b *Batch) Message(l *Line) []byte { return b.Text[l.Off : l.Off+l.Len] }

// Pending reports whether any part of the batch is still to be sent.
func (b *Batch) Pending() bool {
	for i := range b.Sections {
		for _, st := range b.Sections[i].State {
			if st == PartPending {
				return true
			}
		}
	}
	return false
}

// Outcome is what one attempt of a sink to deliver a batch came to. The states
// of the parts and the refusals are in the batch itself.
type Outcome struct {
	// Err says why parts are still pending or held; nil when none is. It is
	// written for an operator.
	Err error
	// Config is set when only a change of configuration (here or at the store)
	// will help: the batch is kept and tried again slowly.
	Config bool
	// Kept is set when what was pending is PartKept now: the store has not taken
	// it.
	Kept bool
	// Took is set when the store has accepted lines in this attempt, be it none that
	// completes a part.
	Took bool
	// RetryAfter is how long the store asked to be left alone; 0 when it did
	// not say.
	RetryAfter time.Duration
	// Distance is how far away the store is: the shortest time of an answer of late. It is set only if
	// a larger batch would have had more requests on their way at once; 0 otherwise, or when it is not known.
	Distance time.Duration
}
