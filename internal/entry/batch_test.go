package entry

import (
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// add appends a line with a text.
func add(b *Batch, time int64, class Class, text string) {
	off := len(b.Text)
	b.Text = append(b.Text, text...)
	b.Add(time, off, class, 0)
}

func TestStreamOfClass(t *testing.T) {
	tests := []struct {
		class  Class
		stream Stream
		text   string
	}{
		{ClassStdout, Stdout, "stdout"},
		{ClassStderr, Stderr, "stderr"},
		{ClassMalformed, Stdout, "stdout"}, // it must be covered by some position
	}
	if len(tests) != NumClasses {
		t.Fatalf("%d classes tested of %d", len(tests), NumClasses)
	}
	for _, tc := range tests {
		if s := tc.class.Stream(); s != tc.stream || s.String() != tc.text || int(s) >= NumStreams {
			t.Errorf("class %d is of stream %d, %q; want %d, %q", tc.class, s, s, tc.stream, tc.text)
		}
	}
}

func TestBatchSections(t *testing.T) {
	var b Batch
	web, db := &Source{ID: "1", Name: "web"}, &Source{ID: "2", Name: "db"}

	b.Begin(web)
	add(&b, 1, ClassStdout, "one")
	add(&b, 2, ClassStderr, "three")
	add(&b, 3, ClassStdout, "")
	off := len(b.Text)
	b.Text = append(b.Text, "piece"...)
	b.Add(4, off, ClassStdout, FlagPartial)
	first := *b.End()

	b.Begin(db)
	add(&b, 5, ClassMalformed, "{broken")
	second := *b.End()

	if len(b.Sections) != 2 {
		t.Fatalf("%d sections", len(b.Sections))
	}
	want := Section{
		Source: web, First: 0, Count: 4,
		Lines: [NumClasses]int32{ClassStdout: 3, ClassStderr: 1},
		Bytes: [NumClasses]int64{ClassStdout: 8, ClassStderr: 5},
		State: [NumClasses]PartState{ClassStdout: PartPending, ClassStderr: PartPending, ClassMalformed: PartEmpty},
	}
	if first != want || b.Sections[0] != want {
		t.Errorf("the first section is %+v\nwant %+v", b.Sections[0], want)
	}
	want = Section{
		Source: db, First: 4, Count: 1,
		Lines: [NumClasses]int32{ClassMalformed: 1},
		Bytes: [NumClasses]int64{ClassMalformed: 7},
		State: [NumClasses]PartState{ClassMalformed: PartPending},
	}
	if second != want || b.Sections[1] != want {
		t.Errorf("the second section is %+v\nwant %+v", b.Sections[1], want)
	}

	type line struct {
		time  int64
		class Class
		flags Flags
		text  string
	}
	wantLines := [][]line{
		{{1, ClassStdout, 0, "one"}, {2, ClassStderr, 0, "three"}, {3, ClassStdout, 0, ""}, {4, ClassStdout, FlagPartial, "piece"}},
		{{5, ClassMalformed, 0, "{broken"}},
	}
	for i := range b.Sections {
		lines := b.SectionLines(&b.Sections[i])
		if len(lines) != len(wantLines[i]) {
			t.Fatalf("section %d has %d lines", i, len(lines))
		}
		for k := range lines {
			l := &lines[k]
			if got := (line{l.Time, l.Class, l.Flags, string(b.Message(l))}); got != wantLines[i][k] {
				t.Errorf("section %d, line %d: %+v, want %+v", i, k, got, wantLines[i][k])
			}
		}
	}
}

// End gives the batch's own section: what dispatch writes there counts.
func TestBatchEndGivesTheSection(t *testing.T) {
	var b Batch
	b.Begin(&Source{})
	add(&b, 1, ClassStderr, "x")
	s := b.End()
	s.Seq[Stderr] = 7
	if b.Sections[0].Seq[Stderr] != 7 {
		t.Error("it is a copy")
	}
}

func TestBatchTakesEmptySectionBack(t *testing.T) {
	var b Batch
	kept := &Source{ID: "kept"}
	b.Begin(kept)
	add(&b, 1, ClassStdout, "x")
	b.End()

	b.Begin(&Source{ID: "gone"})
	if s := b.End(); s != nil {
		t.Fatalf("a section without lines is %+v", s)
	}
	if len(b.Sections) != 1 || b.Sections[0].Source != kept {
		t.Fatalf("sections: %+v", b.Sections)
	}
	if all := b.Sections[:2]; all[1] != (Section{}) {
		t.Errorf("its source is still referred to: %+v", all[1])
	}

	b.Begin(kept)
	add(&b, 2, ClassStderr, "yz")
	if s := b.End(); s == nil || s.First != 1 || s.Count != 1 || s.Bytes != [NumClasses]int64{ClassStderr: 2} {
		t.Errorf("the next section is %+v", s)
	}
}

func TestBatchReset(t *testing.T) {
	var b Batch
	for i := range 3 {
		b.Begin(&Source{})
		add(&b, int64(i), ClassStdout, "some text")
		b.End()
		b.Refusals = append(b.Refusals, Refusal{Section: i, Line: i, Reason: "too old"})
	}
	before := b
	b.Reset()

	if len(b.Text) != 0 || len(b.Lines) != 0 || len(b.Sections) != 0 || len(b.Refusals) != 0 || b.Size() != 0 || b.Pending() {
		t.Errorf("not empty: %+v", b)
	}
	// Memory: the same arrays, of the same size.
	if unsafe.SliceData(b.Text) != unsafe.SliceData(before.Text) || cap(b.Text) != cap(before.Text) {
		t.Error("the text's memory is gone")
	}
	if unsafe.SliceData(b.Lines) != unsafe.SliceData(before.Lines) || cap(b.Lines) != cap(before.Lines) {
		t.Error("the lines' memory is gone")
	}
	if unsafe.SliceData(b.Sections) != unsafe.SliceData(before.Sections) || cap(b.Sections) != cap(before.Sections) {
		t.Error("the sections' memory is gone")
	}
	if unsafe.SliceData(b.Refusals) != unsafe.SliceData(before.Refusals) || cap(b.Refusals) != cap(before.Refusals) {
		t.Error("the refusals' memory is gone")
	}
	// References: none, so that a container's source and a store's words may go.
	for i, s := range b.Sections[:cap(b.Sections)] {
		if s != (Section{}) {
			t.Errorf("section %d keeps %+v", i, s)
		}
	}
	for i, r := range b.Refusals[:cap(b.Refusals)] {
		if r != (Refusal{}) {
			t.Errorf("refusal %d keeps %+v", i, r)
		}
	}

	// Nothing of before shows in what comes next.
	src := &Source{}
	b.Begin(src)
	add(&b, 9, ClassStderr, "new")
	want := Section{
		Source: src, Count: 1,
		Lines: [NumClasses]int32{ClassStderr: 1}, Bytes: [NumClasses]int64{ClassStderr: 3},
		State: [NumClasses]PartState{ClassStderr: PartPending},
	}
	if s := b.End(); *s != want {
		t.Errorf("after Reset a section is %+v, want %+v", *s, want)
	}
	if got := string(b.Message(&b.Lines[0])); got != "new" {
		t.Errorf("after Reset a line is %q", got)
	}
}

func TestBatchSize(t *testing.T) {
	var b Batch
	if b.Size() != 0 {
		t.Errorf("the empty batch has size %d", b.Size())
	}
	b.Begin(&Source{})
	add(&b, 1, ClassStdout, "12345")
	one := b.Size()
	if one != 5+lineOverhead {
		t.Errorf("a line of 5 bytes has size %d", one)
	}
	// An empty line costs, too: a batch of nothing else must get full.
	add(&b, 2, ClassStdout, "")
	if b.Size() != one+lineOverhead {
		t.Errorf("an empty line adds %d", b.Size()-one)
	}
	b.End()
	if b.Size() != one+lineOverhead {
		t.Errorf("End adds %d", b.Size()-one-lineOverhead)
	}
	b.Begin(&Source{Metadata: []Label{{Name: "abc", Value: "12345"}, {Name: "d", Value: ""}}})
	add(&b, 3, ClassStdout, "")
	add(&b, 4, ClassStderr, "")
	b.End()
	if want := one + 3*lineOverhead + 2*(8+1+2*pairOverhead); b.Size() != want {
		t.Errorf("the size is %d with metadata, want %d", b.Size(), want)
	}
	b.Reset()
	if b.Size() != 0 {
		t.Errorf("the size is %d after Reset", b.Size())
	}
}

func TestPlace(t *testing.T) {
	var b Batch
	b.BeginAt(&Source{}, Place{Inode: 7, Offset: 100})
	b.AddOpen(1, 0, ClassStderr, FlagPartial, Place{Inode: 6, Offset: 900})
	b.AddAt(1, 0, ClassStdout, 0, 20)
	b.AddOpen(1, 0, ClassStdout, 0, Place{Inode: 7, Offset: 90})
	b.AddAt(2, 0, ClassMalformed, 0, 0)
	b.End()
	b.Begin(&Source{}) // a stream's
	b.AddAt(3, 0, ClassStdout, 0, 2)
	b.End()
	var copied Batch
	for i := range b.Sections {
		copied.CopySection(&b, &b.Sections[i], nil)
	}
	want := []Place{{6, 900}, {7, 120}, {7, 90}, {7, 100}, {}}
	for _, b := range []*Batch{&b, &copied} {
		var got []Place
		for i := range b.Sections {
			s := &b.Sections[i]
			for k := range b.SectionLines(s) {
				got = append(got, s.Place(&b.SectionLines(s)[k]))
			}
		}
		if !slices.Equal(got, want) || b.Lines[0].Flags&FlagPartial == 0 || b.Lines[4].At != 2 {
			t.Errorf("places %v, want %v; %+v", got, want, b.Lines)
		}
	}
}

func TestBatchPending(t *testing.T) {
	var b Batch
	if b.Pending() {
		t.Error("the empty batch is pending")
	}
	for range 2 {
		b.Begin(&Source{})
		add(&b, 1, ClassStdout, "x")
		add(&b, 2, ClassMalformed, "y")
		b.End()
	}
	steps := []struct {
		section int
		class   Class
		state   PartState
		want    bool
	}{
		{0, ClassStdout, PartAccepted, true},
		{0, ClassMalformed, PartHeld, true},
		{1, ClassStdout, PartEmpty, true}, // the last part of the last section is left
		{1, ClassMalformed, PartAccepted, false},
		{0, ClassMalformed, PartPending, true},
	}
	if !b.Pending() {
		t.Error("a new batch is not pending")
	}
	for i, s := range steps {
		b.Sections[s.section].State[s.class] = s.state
		if b.Pending() != s.want {
			t.Errorf("after step %d Pending gives %v", i, b.Pending())
		}
	}
}

// Sections as they come, against plain lists: every line is in the section it
// was added to, in order, and the counts add up.
func TestBatchModel(t *testing.T) {
	type line struct {
		time  int64
		class Class
		flags Flags
		text  string
	}
	type section struct {
		src   *Source
		lines []line
	}
	sources := []*Source{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	var b Batch
	rapid.Check(t, func(t *rapid.T) {
		b.Reset() // one batch for all, as in use
		var model []section
		size := 0
		for range rapid.IntRange(0, 6).Draw(t, "sections") {
			sec := section{src: rapid.SampledFrom(sources).Draw(t, "source")}
			b.Begin(sec.src)
			for range rapid.IntRange(0, 6).Draw(t, "lines") {
				l := line{
					rapid.Int64().Draw(t, "time"), Class(rapid.IntRange(0, NumClasses-1).Draw(t, "class")),
					rapid.SampledFrom([]Flags{0, FlagPartial}).Draw(t, "flags"), rapid.String().Draw(t, "text"),
				}
				sec.lines = append(sec.lines, l)
				off := len(b.Text)
				b.Text = append(b.Text, l.text...)
				b.Add(l.time, off, l.class, l.flags)
				size += len(l.text) + lineOverhead
			}
			if s := b.End(); (s == nil) != (len(sec.lines) == 0) {
				t.Fatalf("End gives %+v after %d lines", s, len(sec.lines))
			}
			if len(sec.lines) > 0 {
				model = append(model, sec)
			}
		}

		if b.Size() != size || b.Pending() != (len(model) > 0) || len(b.Sections) != len(model) {
			t.Fatalf("size %d, pending %v, %d sections; want %d, %v, %d",
				b.Size(), b.Pending(), len(b.Sections), size, len(model) > 0, len(model))
		}
		for i, m := range model {
			s := &b.Sections[i]
			if s.Source != m.src || s.Count != len(m.lines) {
				t.Fatalf("section %d has %d lines of %s, want %d of %s", i, s.Count, s.Source.ID, len(m.lines), m.src.ID)
			}
			var lines [NumClasses]int32
			var bytes [NumClasses]int64
			for k, l := range b.SectionLines(s) {
				if got := (line{l.Time, l.Class, l.Flags, string(b.Message(&l))}); got != m.lines[k] {
					t.Fatalf("section %d, line %d: %+v, want %+v", i, k, got, m.lines[k])
				}
				lines[l.Class]++
				bytes[l.Class] += int64(l.Len)
			}
			if s.Lines != lines || s.Bytes != bytes {
				t.Fatalf("section %d counts %v lines, %v bytes; want %v, %v", i, s.Lines, s.Bytes, lines, bytes)
			}
			for c, n := range lines {
				if (s.State[c] == PartPending) != (n > 0) || (s.State[c] == PartEmpty) != (n == 0) {
					t.Fatalf("section %d, class %d: state %d with %d lines", i, c, s.State[c], n)
				}
			}
		}
	})
}

// fill puts n lines of one text into sections of 100.
func fill(b *Batch, src *Source, n int) {
	const text = "a line of ordinary length, as a web server writes one for every request"
	for i := range n {
		if i%100 == 0 {
			b.Begin(src)
		}
		off := len(b.Text)
		b.Text = append(b.Text, text...)
		b.Add(int64(i), off, Class(i%NumClasses), 0)
		if i%100 == 99 {
			b.End()
		}
	}
}

// A batch that has been used once takes as much again without the heap.
func TestBatchAllocatesNothing(t *testing.T) {
	var b Batch
	src := &Source{}
	use := func() {
		b.Reset()
		fill(&b, src, 1000)
		for i := range b.Sections {
			lines := b.SectionLines(&b.Sections[i])
			for k := range lines {
				if len(b.Message(&lines[k])) == 0 {
					t.Fatal("an empty line")
				}
			}
		}
		if b.Size() == 0 || !b.Pending() {
			t.Fatal("nothing in it")
		}
	}
	use()
	if n := testing.AllocsPerRun(50, use); n != 0 {
		t.Errorf("%v allocations for 1000 lines", n)
	}
}

func BenchmarkBatch(b *testing.B) {
	var batch Batch
	src := &Source{}
	fill(&batch, src, 1000)
	b.SetBytes(int64(len(batch.Text)))
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		fill(&batch, src, 1000)
	}
}
