package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The binary form of a batch, for the spool; docs/formats/spool.md has it as a
// table. Integers are varints, as encoding/binary writes them; a string is its
// length and its bytes.
//
//	version  one byte, 2
//	sources  number; each: length in bytes (4, little-endian), then id, name,
//	         method, for each class its labels, the metadata, path; a list of
//	         labels is its number and name, value of each
//	sections number; each: index of the source, number of lines by class, From
//	         and, for each stream, Open: a place is inode number and offset
//	lines    each: class | flags<<2 (one byte), time less that of the line
//	         before (signed), length of the text, At less that of the line
//	         before (signed)
//	text     of all lines, to the end
//
// Version 1, which is still read, has no paths, no places and no At.
const (
	binaryVersion = 2
	// firstBinaryVersion is the oldest that is read.
	firstBinaryVersion = 1
	classBits          = 2
	// maxLabels bounds the labels of one set that a decoder believes in.
	maxLabels = 1024
	// maxKnownSources bounds what a Decoder remembers between batches.
	maxKnownSources = 4096
)

// ErrBinaryVersion is given for a batch in a form that this agent does not know:
// a newer one wrote it.
var ErrBinaryVersion = errors.New("batch in an unknown version of the binary form")

// errDamaged is wrapped by every other error of a Decoder.
var errDamaged = errors.New("damaged batch")

// AppendParts appends the binary form of the parts of the batch that are in a
// state to dst, without lines that bear one of FlagsDone. It gives the number of lines, and the time of the oldest. Without
// a line there is nothing to keep, and dst comes back as it was.
//
// Spans, part states and refusals are not kept: whoever keeps the bytes answers
// for the lines from then on.
func (b *Batch) AppendParts(dst []byte, in PartState) (out []byte, lines int, oldest int64) {
	index := make(map[*Source]int, len(b.Sections))
	var sources []*Source
	sections := 0
	for i := range b.Sections {
		s := &b.Sections[i]
		if n := b.linesIn(s, in); n != [NumClasses]int{} {
			sections++
			if _, known := index[s.Source]; !known {
				index[s.Source] = len(sources)
				sources = append(sources, s.Source)
			}
		}
	}
	if sections == 0 {
		return dst, 0, 0
	}
	dst = append(dst, binaryVersion)
	dst = binary.AppendUvarint(dst, uint64(len(sources)))
	for _, src := range sources {
		at := len(dst)
		dst = appendSource(append(dst, 0, 0, 0, 0), src)
		binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	dst = binary.AppendUvarint(dst, uint64(sections))
	for i := range b.Sections {
		s := &b.Sections[i]
		n := b.linesIn(s, in)
		if n == [NumClasses]int{} {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(index[s.Source]))
		for _, n := range n {
			dst = binary.AppendUvarint(dst, uint64(n))
		}
		dst = appendPlace(dst, s.From)
		for _, p := range s.Open {
			dst = appendPlace(dst, p)
		}
	}
	oldest = math.MaxInt64
	last, lastAt := int64(0), int64(0)
	b.eachIn(in, func(l *Line) {
		dst = append(dst, byte(l.Class)|byte(l.Flags)<<classBits)
		dst = binary.AppendVarint(dst, l.Time-last)
		dst = binary.AppendUvarint(dst, uint64(l.Len))
		dst = binary.AppendVarint(dst, int64(l.At)-lastAt)
		last, lastAt = l.Time, int64(l.At)
		oldest = min(oldest, l.Time)
		lines++
	})
	b.eachIn(in, func(l *Line) { dst = append(dst, b.Message(l)...) })
	return dst, lines, oldest
}

// has reports whether a line is in a part in that state.
func (s *Section) has(l *Line, in PartState) bool {
	return s.State[l.Class] == in && l.Flags&FlagsDone == 0
}

func (b *Batch) linesIn(s *Section, in PartState) (n [NumClasses]int) {
	lines := b.SectionLines(s)
	for i := range lines {
		if s.has(&lines[i], in) {
			n[lines[i].Class]++
		}
	}
	return n
}

func (b *Batch) eachIn(in PartState, f func(*Line)) {
	for i := range b.Sections {
		s := &b.Sections[i]
		lines := b.SectionLines(s)
		for j := range lines {
			if s.has(&lines[j], in) {
				f(&lines[j])
			}
		}
	}
}

func appendSource(dst []byte, src *Source) []byte {
	dst = appendString(dst, src.ID)
	dst = appendString(dst, src.Name)
	dst = appendString(dst, src.Method)
	for _, l := range src.Labels {
		dst = appendLabels(dst, l.Pairs())
	}
	dst = appendLabels(dst, src.Metadata)
	return appendString(dst, src.Path)
}

func appendPlace(dst []byte, p Place) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, p.Inode), uint64(p.Offset))
}

func appendLabels(dst []byte, labels []Label) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(labels)))
	for _, l := range labels {
		dst = appendString(appendString(dst, l.Name), l.Value)
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Decoder reads batches in their binary form. It remembers their sources, so
// that all batches of one container under one set of labels share one Source,
// and reading into a batch that has been used before allocates nothing for what
// is known. It belongs to one goroutine; its exported fields are set before the
// first Decode.
type Decoder struct {
	// Lane is the Lane of the sources.
	Lane int
	// Stats gives the counters of a container, by its ID and name; it is called
	// when a source is met that the decoder does not remember. One for which it
	// gives nil gets counters of its own and is not remembered. If it is nil,
	// each source gets counters of its own.
	Stats func(id, name string) *Stats

	known   map[string]*Source // by its binary form
	sources []*Source          // of the present batch
}

// Decode reads a batch into b, which it empties first. Every part with lines is
// pending and no section has spans; the sources have log number 0. b keeps
// nothing of data. After an error b is empty; the error is ErrBinaryVersion, or
// the bytes are not what AppendParts wrote.
func (d *Decoder) Decode(b *Batch, data []byte) error {
	b.Reset()
	if len(data) == 0 {
		return fmt.Errorf("%w: no bytes", errDamaged)
	}
	if data[0] < firstBinaryVersion || data[0] > binaryVersion {
		return fmt.Errorf("%w: %d, this agent knows %d to %d", ErrBinaryVersion, data[0], firstBinaryVersion, binaryVersion)
	}
	r := reader{data: data[1:], places: data[0] > 1}
	d.readSources(&r)
	lines := d.readSections(&r, b)
	r.readLines(b, lines)
	clear(d.sources)
	d.sources = d.sources[:0]
	if r.bad != "" {
		b.Reset()
		return fmt.Errorf("%w: %s, %d bytes before the end", errDamaged, r.bad, len(r.data))
	}
	return nil
}

func (d *Decoder) readSources(r *reader) {
	for range r.count("number of sources", 4) {
		if len(r.data) < 4 {
			r.fail("a source is cut")
			return
		}
		n := binary.LittleEndian.Uint32(r.data)
		r.data = r.data[4:]
		blob := r.take("length of a source", uint64(n))
		src := d.known[string(blob)] // of either version: with the path it is longer
		if src == nil {
			if src = d.source(r, blob); src == nil {
				return
			}
		}
		d.sources = append(d.sources, src)
	}
}

// source makes a Source from its binary form, or gives nil and fails r.
func (d *Decoder) source(r *reader, blob []byte) *Source {
	f := reader{data: blob, places: r.places}
	src := &Source{Lane: d.Lane, ID: f.string("ID"), Name: f.string("name"), Method: f.string("method")}
	for c := range src.Labels {
		pairs := f.labels("labels")
		src.Labels[c] = NewLabels(pairs...)
	}
	src.Metadata = f.labels("metadata")
	if f.places {
		src.Path = f.string("path")
	}
	if f.bad == "" && len(f.data) > 0 {
		f.fail("bytes behind a source")
	}
	if f.bad != "" || r.bad != "" {
		r.fail(f.bad)
		return nil
	}
	if d.Stats != nil {
		if src.Stats = d.Stats(src.ID, src.Name); src.Stats == nil {
			src.Stats = new(Stats)
			return src // it may be known the next time
		}
	} else {
		src.Stats = new(Stats)
	}
	if d.known == nil || len(d.known) >= maxKnownSources {
		d.known = make(map[string]*Source)
	}
	d.known[string(blob)] = src
	return src
}

// readSections gives the number of lines that the sections are to have.
func (d *Decoder) readSections(r *reader, b *Batch) (lines int) {
	for range r.count("number of sections", 1+NumClasses) {
		i := r.uvarint("source of a section")
		if i >= uint64(len(d.sources)) {
			r.fail("a section of no source")
			return 0
		}
		s := Section{Source: d.sources[i], First: lines}
		for c := range s.Lines {
			n := r.count("number of lines", minLine)
			s.Count += n
			s.Lines[c] = int32(n)
			if n > 0 {
				s.State[c] = PartPending
			}
		}
		if r.places {
			s.From = r.place()
			for i := range s.Open {
				s.Open[i] = r.place()
			}
		}
		if lines += s.Count; s.Count == 0 || lines > len(r.data)/minLine {
			r.fail("sections of too few or too many lines")
			return 0
		}
		b.Sections = append(b.Sections, s)
	}
	return lines
}

// minLine is the least size of a line, in bytes.
const minLine = 3

func (r *reader) readLines(b *Batch, lines int) {
	off, last, at := uint64(0), int64(0), int64(0)
	for i := range b.Sections {
		s := &b.Sections[i]
		var n [NumClasses]int32
		for range s.Count {
			tag := r.take("class of a line", 1)
			delta := r.varint("time of a line")
			size := r.uvarint("length of a line")
			if r.places {
				at += r.varint("place of a line")
			}
			if r.bad != "" {
				return
			}
			class := Class(tag[0] & (1<<classBits - 1))
			if class >= NumClasses || size > math.MaxInt32 || off+size > uint64(len(r.data)) || at < 0 || at > math.MaxUint32 {
				r.fail("a line of no class, too long, or of no place")
				return
			}
			last += delta
			b.Lines = append(b.Lines, Line{
				Time: last, Off: uint32(off), Len: uint32(size), At: uint32(at), Class: class, Flags: Flags(tag[0] >> classBits),
			})
			off += size
			n[class]++ //nolint:gosec // is below NumClasses, see above
			s.Bytes[class] += int64(size)
		}
		if n != s.Lines {
			r.fail("a section with other lines than it says")
			return
		}
	}
	if len(b.Lines) != lines || off != uint64(len(r.data)) {
		r.fail("more or less text than the lines have")
		return
	}
	b.Text = append(b.Text, r.data...)
}

// reader takes values off the front of data. After the first that is not there
// bad says which, and everything is zero.
type reader struct {
	data   []byte
	bad    string
	places bool // the data has paths and places: it is not of version 1
}

func (r *reader) fail(what string) {
	if r.bad == "" {
		r.bad = what
	}
}

func (r *reader) uvarint(what string) uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || r.bad != "" {
		r.fail(what)
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) varint(what string) int64 {
	v, n := binary.Varint(r.data)
	if n <= 0 || r.bad != "" {
		r.fail(what)
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) place() Place {
	return Place{Inode: r.uvarint("inode number of a place"), Offset: int64(r.uvarint("offset of a place"))}
}

// count gives a number of things, each of which takes at least so many bytes.
func (r *reader) count(what string, least int) int {
	n := r.uvarint(what)
	if n > uint64(len(r.data)/least) {
		r.fail(what)
		return 0
	}
	return int(n)
}

func (r *reader) take(what string, n uint64) []byte {
	if n > uint64(len(r.data)) || r.bad != "" {
		r.fail(what)
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) string(what string) string {
	return string(r.take(what, r.uvarint(what)))
}

func (r *reader) labels(what string) (labels []Label) {
	n := r.count(what, 2)
	if n > maxLabels {
		r.fail(what)
		return nil
	}
	for range n {
		labels = append(labels, Label{Name: r.string(what), Value: r.string(what)})
	}
	return labels
}
