package loki

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// labelled makes a source with labels for all classes.
func labelled(name string, metadata ...entry.Label) *entry.Source {
	s := &entry.Source{ID: "id-" + name, Name: name, Metadata: metadata, Stats: new(entry.Stats)}
	s.Labels[entry.ClassStdout] = entry.NewLabels(entry.Label{Name: "container_name", Value: name}, entry.Label{Name: "stream", Value: "stdout"})
	s.Labels[entry.ClassStderr] = entry.NewLabels(entry.Label{Name: "container_name", Value: name}, entry.Label{Name: "stream", Value: "stderr"})
	s.Labels[entry.ClassMalformed] = entry.NewLabels(entry.Label{Name: "container_name", Value: name}, entry.Label{Name: "malformed", Value: "true"})
	return s
}

type testLine struct {
	at    int64
	text  string
	class entry.Class
	flags entry.Flags
}

func appendSection(b *entry.Batch, src *entry.Source, lines ...testLine) {
	b.Begin(src)
	for _, l := range lines {
		off := len(b.Text)
		b.Text = append(b.Text, l.text...)
		b.Add(l.at, off, l.class, l.flags)
	}
	b.End()
}

// encodeAll encodes all of a batch as one request.
func encodeAll(l *lane, b *entry.Batch, withMeta bool) ([]byte, int) {
	l.release()
	l.collect(b, withMeta)
	l.fill()
	from := len(l.spans)
	for i := range l.streams {
		st := &l.streams[i]
		if st.lo < st.hi {
			l.spans = append(l.spans, span{stream: int32(i), lo: st.lo, hi: st.hi, size: st.size, n: st.hi - st.lo})
		}
	}
	r := request{from: int32(from), to: int32(len(l.spans)), split: -1}
	return l.encode(r), l.bytes(r)
}

func decode(t interface{ Fatalf(string, ...any) }, wire []byte) *push.PushRequest {
	plain, err := snappy.Decode(nil, wire)
	if err != nil {
		t.Fatalf("snappy: %v", err)
	}
	again, err := s2.Decode(nil, wire)
	if err != nil || !bytes.Equal(plain, again) {
		t.Fatalf("two decoders differ: %v", err)
	}
	req := new(push.PushRequest)
	if err := req.Unmarshal(plain); err != nil {
		t.Fatalf("protobuf: %v", err)
	}
	return req
}

// TestEncodeAgainstOracle: any batch encoded by us and decoded by Loki's own
// package is the same lines in the same order.
func TestEncodeAgainstOracle(t *testing.T) {
	l := new(lane)
	rapid.Check(t, func(rt *rapid.T) {
		var sources []*entry.Source
		for i := range rapid.IntRange(1, 4).Draw(rt, "sources") {
			var meta []entry.Label
			for k := range rapid.IntRange(0, 3).Draw(rt, "pairs") {
				meta = append(meta, entry.Label{Name: fmt.Sprintf("m%d", k), Value: rapid.StringN(0, 40, -1).Draw(rt, "value")})
			}
			// Some sources share their labels, as a container that was
			// started again does.
			sources = append(sources, labelled(fmt.Sprintf("c%d", i/2), meta...))
		}
		withMeta := rapid.Bool().Draw(rt, "withMeta")
		b := new(entry.Batch)
		type want struct {
			at   int64
			text string
			meta push.LabelsAdapter
		}
		wants := map[string][]want{}
		for range rapid.IntRange(1, 6).Draw(rt, "sections") {
			src := sources[rapid.IntRange(0, len(sources)-1).Draw(rt, "source")]
			var lines []testLine
			for range rapid.IntRange(1, 8).Draw(rt, "lines") {
				text := rapid.StringN(0, 60, -1).Draw(rt, "text")
				if rapid.IntRange(0, 9).Draw(rt, "long") == 0 {
					text = string(bytes.Repeat([]byte(text+"x"), rapid.IntRange(1, 4000).Draw(rt, "times")))
				}
				lines = append(lines, testLine{
					at:    rapid.OneOf(rapid.Int64Range(-1<<62, 1<<62), rapid.Int64Range(-3e9, 3e9)).Draw(rt, "time"),
					text:  text,
					class: entry.Class(rapid.IntRange(0, entry.NumClasses-1).Draw(rt, "class")),
					flags: entry.Flags(rapid.IntRange(0, 3).Draw(rt, "flags")),
				})
			}
			appendSection(b, src, lines...)
			for c := range entry.Class(entry.NumClasses) {
				for _, ln := range lines {
					if ln.class != c || ln.flags&entry.FlagRefused != 0 {
						continue
					}
					w := want{at: ln.at, text: ln.text}
					if withMeta {
						for _, m := range src.Metadata {
							w.meta = append(w.meta, push.LabelAdapter(m))
						}
						if ln.flags&entry.FlagPartial != 0 {
							w.meta = append(w.meta, push.LabelAdapter{Name: "partial", Value: "true"})
						}
					}
					key := src.Labels[c].String()
					wants[key] = append(wants[key], w)
				}
			}
		}
		wire, size := encodeAll(l, b, withMeta)
		if n, err := snappy.DecodedLen(wire); err != nil || n != size {
			rt.Fatalf("size foretold %d, made %d (%v)", size, n, err)
		}
		req := decode(rt, wire)
		if len(req.Streams) != len(wants) {
			rt.Fatalf("%d streams, want %d", len(req.Streams), len(wants))
		}
		for _, s := range req.Streams {
			ws := wants[s.Labels]
			if len(ws) != len(s.Entries) {
				rt.Fatalf("stream %s: %d entries, want %d", s.Labels, len(s.Entries), len(ws))
			}
			for i, w := range ws {
				e := s.Entries[i]
				if !e.Timestamp.Equal(time.Unix(0, w.at)) || e.Line != w.text || len(e.StructuredMetadata) != len(w.meta) {
					rt.Fatalf("stream %s entry %d: got %v %q, want %v %q", s.Labels, i, e.Timestamp, e.Line, time.Unix(0, w.at), w.text)
				}
				for k := range w.meta {
					if e.StructuredMetadata[k] != w.meta[k] {
						rt.Fatalf("metadata %v, want %v", e.StructuredMetadata[k], w.meta[k])
					}
				}
			}
		}
	})
}

// FuzzEncode: whatever the texts, times and sizes, also around the borders of a
// piece.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("hello"), int64(0), uint32(3), uint32(0), true)
	f.Add([]byte{0xff, 0}, int64(-1), uint32(70000), uint32(65500), true)
	f.Add([]byte("abcabcabc"), int64(1e18), uint32(1), uint32(pieceBytes), false)
	l := new(lane)
	f.Fuzz(func(t *testing.T, text []byte, at int64, n, lead uint32, partial bool) {
		src := labelled("fuzz", entry.Label{Name: "image", Value: "docker.io/library/x:1"})
		b := new(entry.Batch)
		b.Begin(src)
		b.Text = append(b.Text, bytes.Repeat([]byte{'.'}, int(lead%(2*pieceBytes)))...)
		b.Add(at, 0, entry.ClassStdout, 0)
		var flags entry.Flags
		if partial {
			flags = entry.FlagPartial
		}
		for range n % 3000 {
			off := len(b.Text)
			if off > 8<<20 {
				break
			}
			b.Text = append(b.Text, text...)
			b.Add(at, off, entry.ClassStdout, flags)
		}
		b.End()
		wire, size := encodeAll(l, b, true)
		req := decode(t, wire)
		if got, _ := snappy.DecodedLen(wire); got != size {
			t.Fatalf("size foretold %d, made %d", size, got)
		}
		if len(req.Streams) != 1 || len(req.Streams[0].Entries) != len(b.Lines) {
			t.Fatal("lines are missing")
		}
		for i, e := range req.Streams[0].Entries {
			if e.Line != string(b.Message(&b.Lines[i])) || !e.Timestamp.Equal(time.Unix(0, at)) {
				t.Fatalf("entry %d differs", i)
			}
			if want := 1 + int(b.Lines[i].Flags&entry.FlagPartial); len(e.StructuredMetadata) != want {
				t.Fatalf("entry %d has %d pairs of metadata, want %d", i, len(e.StructuredMetadata), want)
			}
		}
	})
}
