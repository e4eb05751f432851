package entry

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// flat is a line with all that it is shipped with.
type flat struct {
	id, name, method, labels string
	metadata                 []Label
	time                     int64
	class                    Class
	flags                    Flags
	text                     string
	path                     string
	place                    Place
	at                       uint32
}

// pendingOf gives the lines that are still to be sent, in order.
func pendingOf(b *Batch) (out []flat) {
	for i := range b.Sections {
		s := &b.Sections[i]
		for j := range b.SectionLines(s) {
			l := &b.SectionLines(s)[j]
			st := s.State[l.Class]
			if st != PartPending || l.Flags&FlagsDone != 0 {
				continue
			}
			out = append(out, flat{s.Source.ID, s.Source.Name, s.Source.Method, s.Source.Labels[l.Class].String(),
				s.Source.Metadata, l.Time, l.Class, l.Flags, string(b.Message(l)), s.Source.Path, s.Place(l), l.At})
		}
	}
	return out
}

func binarySource(id, name string) *Source {
	src := &Source{ID: id, Name: name, Method: "file_monitor", Stats: new(Stats), Metadata: []Label{{"image", name + ":1"}, {"image", "twice"}, {"", ""}}}
	for c := range src.Labels {
		src.Labels[c] = NewLabels(Label{"container_name", name}, Label{"stream", fmt.Sprint(c)}, Label{"job", "x\xffy"})
	}
	return src
}

// binaryBatch has lines of every class and flag in two sections of one source and one of
// another.
func binaryBatch() *Batch {
	b := new(Batch)
	add := func(src *Source, from Place, lines ...Line) {
		b.BeginAt(src, from)
		for _, l := range lines {
			off := len(b.Text)
			b.Text = fmt.Appendf(b.Text, "%s %d", src.Name, l.Time)[:off+int(l.Len)]
			if l.Flags&FlagOpen != 0 {
				b.AddOpen(l.Time, off, l.Class, l.Flags, Place{77, 1 << 40})
				continue
			}
			b.AddAt(l.Time, off, l.Class, l.Flags, l.At)
		}
		b.End()
	}
	web, db := binarySource("aaaa", "web"), binarySource("bbbb", "db")
	web.Path, db.Method = "/var/lib/docker/containers/aaaa/aaaa-json.log", "streaming"
	add(web, Place{1 << 63, 1 << 41}, Line{Time: 1762516900123000000, Len: 5, At: 300}, Line{Time: 1762516900122000000, Len: 7, At: 70, Class: ClassStderr, Flags: FlagPartial})
	add(db, Place{}, Line{Time: -5, Len: 0, Class: ClassMalformed}, Line{Time: 1 << 62, Len: 4, At: 2})
	add(web, Place{78, 0}, Line{Time: 1762516900124000000, Len: 6, Class: ClassStderr, Flags: FlagOpen}, Line{Time: 1762516900125000000, Len: 6, At: math.MaxUint32})
	return b
}

func TestBinaryRoundTrip(t *testing.T) {
	b := binaryBatch()
	data, lines, oldest := b.AppendParts([]byte("before"), PartPending)
	if lines != 6 || oldest != -5 || !bytes.HasPrefix(data, []byte("before")) {
		t.Fatalf("%d lines, oldest %d", lines, oldest)
	}
	stats := map[string]*Stats{}
	d := Decoder{Lane: 3, Stats: func(id, name string) *Stats { stats[id+name] = new(Stats); return stats[id+name] }}
	got := Batch{Text: []byte("old"), Refusals: []Refusal{{}}}
	for range 2 {
		if err := d.Decode(&got, data[len("before"):]); err != nil {
			t.Fatal(err)
		}
		if g, w := pendingOf(&got), pendingOf(b); !reflect.DeepEqual(g, w) {
			t.Fatalf("got\n%+v\nwant\n%+v", g, w)
		}
	}
	if len(got.Refusals) != 0 || len(stats) != 2 {
		t.Fatalf("%d refusals, %d containers counted", len(got.Refusals), len(stats))
	}
	for i := range got.Sections {
		g, w := got.Sections[i], b.Sections[i]
		if g.First != w.First || g.Count != w.Count || g.Lines != w.Lines || g.Bytes != w.Bytes || g.State != w.State || g.Seq != [NumStreams]uint64{} {
			t.Errorf("section %d is %+v, want %+v", i, g, w)
		}
		if g.Source.Lane != 3 || g.Source.Log != 0 || g.Source.Stats != stats[g.Source.ID+g.Source.Name] {
			t.Errorf("section %d has source %+v", i, g.Source)
		}
	}
	if got.Sections[0].Source != got.Sections[2].Source {
		t.Error("two sources for one container under the same labels")
	}
}

// TestBinaryVersion1 reads what an agent wrote that knew no places.
func TestBinaryVersion1(t *testing.T) {
	data, err := os.ReadFile("testdata/version_1/batch")
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	var b Batch
	if err := d.Decode(&b, data); err != nil {
		t.Fatal(err)
	}
	web, db := binarySource("aaaa", "web"), binarySource("bbbb", "db")
	line := func(src *Source, time int64, class Class, flags Flags, text string) flat {
		return flat{
			id: src.ID, name: src.Name, method: src.Method, labels: src.Labels[class].String(), metadata: src.Metadata,
			time: time, class: class, flags: flags, text: text,
		}
	}
	want := []flat{
		line(web, 1762516900123000000, ClassStdout, 0, "web 1"),
		line(web, 1762516900122000000, ClassStderr, FlagPartial, "web 176"),
		line(db, -5, ClassMalformed, 0, ""),
		line(db, 1<<62, ClassStdout, 0, "db 4"),
		line(web, 1762516900124000000, ClassStdout, 0, "web 17"),
	}
	if got := pendingOf(&b); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if len(b.Sections) != 3 || b.Sections[0].Source != b.Sections[2].Source {
		t.Errorf("sections %+v", b.Sections)
	}
	for n := range len(data) {
		if err := d.Decode(&b, data[:n]); !errors.Is(err, errDamaged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestBinaryKeepsWhatIsToBeSent(t *testing.T) {
	for name, change := range map[string]func(*Batch){
		"all": func(*Batch) {},
		"accepted and held": func(b *Batch) {
			b.Sections[0].State[ClassStdout] = PartAccepted
			b.Sections[0].State[ClassStderr] = PartHeld
		},
		"a section that is done": func(b *Batch) { b.Sections[1].State = [NumClasses]PartState{} },
		"refused":                func(b *Batch) { b.Lines[0].Flags |= FlagRefused },
		"taken":                  func(b *Batch) { b.Lines[0].Flags |= FlagTaken },
		"all refused of a section": func(b *Batch) {
			for i := range b.SectionLines(&b.Sections[1]) {
				b.Lines[b.Sections[1].First+i].Flags |= FlagRefused
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := binaryBatch()
			change(b)
			data, lines, _ := b.AppendParts(nil, PartPending)
			var d Decoder
			var got Batch
			if err := d.Decode(&got, data); err != nil {
				t.Fatal(err)
			}
			want := pendingOf(b)
			if g := pendingOf(&got); !reflect.DeepEqual(g, want) || lines != len(want) {
				t.Fatalf("%d lines\n%+v\nwant\n%+v", lines, g, want)
			}
		})
	}
	b := binaryBatch()
	for i := range b.Sections {
		b.Sections[i].State = [NumClasses]PartState{}
	}
	if data, lines, _ := b.AppendParts([]byte("x"), PartPending); string(data) != "x" || lines != 0 {
		t.Fatalf("%d lines in %q of a batch that is done", lines, data)
	}
}

func TestBinaryErrors(t *testing.T) {
	data, _, _ := binaryBatch().AppendParts(nil, PartPending)
	var d Decoder
	b := binaryBatch()
	for _, version := range []byte{firstBinaryVersion - 1, binaryVersion + 1} {
		if err := d.Decode(b, append([]byte{version}, data[1:]...)); !errors.Is(err, ErrBinaryVersion) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	for n := range len(data) {
		if err := d.Decode(b, data[:n]); !errors.Is(err, errDamaged) || len(b.Lines)+len(b.Sections)+len(b.Text) != 0 {
			t.Fatalf("cut to %d bytes: %v, %d lines", n, err, len(b.Lines))
		}
	}
	if err := d.Decode(b, append(slices.Clone(data), 'x')); !errors.Is(err, errDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
	var wide Batch
	src := binarySource("a", "b")
	pairs := make([]Label, maxLabels+1)
	for i := range pairs {
		pairs[i] = Label{fmt.Sprint("l", i), "v"}
	}
	src.Metadata = pairs
	wide.Begin(src)
	wide.Add(1, 0, ClassStdout, 0)
	wide.End()
	data, _, _ = wide.AppendParts(nil, PartPending)
	if err := d.Decode(b, data); err == nil || !strings.Contains(err.Error(), "metadata") {
		t.Errorf("%d labels: %v", len(pairs), err)
	}
}

func TestBinaryModel(t *testing.T) {
	sources := []*Source{binarySource("a", "web"), binarySource("b", "db"), binarySource("c", ""), {Labels: [NumClasses]Labels{NewLabels(), NewLabels(), NewLabels()}}}
	var d Decoder
	var got Batch
	rapid.Check(t, func(t *rapid.T) {
		var b Batch
		for range rapid.IntRange(0, 6).Draw(t, "sections") {
			b.BeginAt(rapid.SampledFrom(sources).Draw(t, "source"), rapid.SampledFrom([]Place{{}, {1, 2}, {math.MaxUint64, math.MaxInt64}}).Draw(t, "place"))
			for range rapid.IntRange(0, 6).Draw(t, "lines") {
				off := len(b.Text)
				b.Text = append(b.Text, rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "text")...)
				time, class := rapid.Int64().Draw(t, "time"), Class(rapid.IntRange(0, NumClasses-1).Draw(t, "class"))
				if flags := Flags(rapid.IntRange(0, 3).Draw(t, "flags")); rapid.IntRange(0, 3).Draw(t, "open") == 0 {
					b.AddOpen(time, off, class, flags, Place{rapid.Uint64().Draw(t, "inode"), 5})
				} else {
					b.AddAt(time, off, class, flags, rapid.Uint32().Draw(t, "at"))
				}
			}
			if s := b.End(); s != nil {
				for c := range s.State {
					if s.State[c] == PartPending {
						s.State[c] = PartState(rapid.IntRange(0, 3).Draw(t, "state"))
					}
				}
			}
		}
		want := pendingOf(&b)
		data, lines, oldest := b.AppendParts(nil, PartPending)
		if lines != len(want) {
			t.Fatalf("%d lines, want %d", lines, len(want))
		}
		if lines == 0 {
			return
		}
		for _, l := range want {
			if oldest > l.time {
				t.Fatalf("oldest %d, and yet there is %d", oldest, l.time)
			}
		}
		if err := d.Decode(&got, data); err != nil {
			t.Fatal(err)
		}
		if g := pendingOf(&got); !reflect.DeepEqual(g, want) {
			t.Fatalf("got\n%+v\nwant\n%+v", g, want)
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	data, _, _ := binaryBatch().AppendParts(nil, PartPending)
	var d Decoder
	var b Batch
	if n := testing.AllocsPerRun(100, func() {
		if err := d.Decode(&b, data); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations to decode into a batch that has been used before", n)
	}
}

// FuzzDecode gives any bytes; what is accepted says the same when it is written again.
func FuzzDecode(f *testing.F) {
	data, _, _ := binaryBatch().AppendParts(nil, PartPending)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte{binaryVersion, 0, 0})
	old, err := os.ReadFile("testdata/version_1/batch")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(old)
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Decoder
		var b, again Batch
		if err := d.Decode(&b, data); err != nil {
			if len(b.Lines)+len(b.Sections)+len(b.Text) != 0 {
				t.Fatal("something is left in the batch after an error")
			}
			return
		}
		for i := range b.Sections {
			s := &b.Sections[i]
			if s.Source == nil || s.First+s.Count > len(b.Lines) {
				t.Fatalf("section %+v of %d lines", s, len(b.Lines))
			}
		}
		out, lines, _ := b.AppendParts(nil, PartPending)
		want := pendingOf(&b)
		if lines != len(want) {
			t.Fatalf("%d lines, want %d", lines, len(want))
		}
		if lines == 0 {
			return
		}
		if err := d.Decode(&again, out); err != nil {
			t.Fatal(err)
		}
		if got := pendingOf(&again); !reflect.DeepEqual(got, want) {
			t.Fatalf("got\n%+v\nwant\n%+v", got, want)
		}
	})
}

func BenchmarkBinary(b *testing.B) {
	var batch Batch
	src := binarySource("aaaa", "web")
	for batch.Size() < 1<<20 {
		batch.BeginAt(src, Place{Inode: 1743662, Offset: int64(len(batch.Text))})
		for k := range 20 {
			off := len(batch.Text)
			batch.Text = append(batch.Text, strings.Repeat("x", 150)...)
			batch.AddAt(int64(off), off, ClassStdout, 0, uint32(222*k))
		}
		batch.End()
	}
	data, _, _ := batch.AppendParts(nil, PartPending)
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			data, _, _ = batch.AppendParts(data[:0], PartPending)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		var d Decoder
		for b.Loop() {
			if err := d.Decode(&batch, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
