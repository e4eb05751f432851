package loki

import (
	"context"
	"fmt"
	"testing"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// mixed makes a batch of about n bytes that looks like containers' logs.
func mixed(n int) *entry.Batch {
	b := new(entry.Batch)
	var sources []*entry.Source
	for i := range 4 {
		sources = append(sources, labelled(fmt.Sprint("web", i), entry.Label{Name: "image", Value: "images.example/team/web:1.2.3"}))
	}
	for i := 0; len(b.Text) < n; i++ {
		b.Begin(sources[i%len(sources)])
		for k := range 100 {
			off := len(b.Text)
			b.Text = fmt.Appendf(b.Text, `10.0.%d.%d - - "GET /api/v1/items/%d?page=%d HTTP/1.1" 200 %d "-" "curl/8.%d" %.6f request_id=%x`,
				i%256, k, i*7919+k, k%9, k*977, k%10, float64(k)*0.00317, uint64(i*100+k)*0x9e3779b97f4a7c15)
			b.Add(start.UnixNano()+int64(i*100+k)*1_234_567, off, entry.Class(k&1), 0)
		}
		b.End()
	}
	return b
}

func BenchmarkEncode(bm *testing.B) {
	b := mixed(1 << 20)
	l := new(lane)
	for _, meta := range []bool{false, true} {
		bm.Run(fmt.Sprint("metadata=", meta), func(bm *testing.B) {
			bm.SetBytes(int64(len(b.Text)))
			bm.ReportAllocs()
			wire := 0
			for bm.Loop() {
				p, _ := encodeAll(l, b, meta)
				wire = len(p)
			}
			bm.ReportMetric(float64(len(b.Text))/float64(wire), "ratio")
			bm.ReportMetric(float64(len(b.Lines)), "lines/op")
		})
	}
}

// BenchmarkPush is the whole way to a stand-in in this process that throws the
// body away.
func BenchmarkPush(bm *testing.B) {
	srv := lokitest.New(lokitest.Default())
	defer srv.Close()
	srv.Always(&lokitest.Fault{Status: 204, Discard: true})
	c, err := New(Config{URL: srv.URL, BatchBytes: 3 << 20})
	if err != nil {
		bm.Fatal(err)
	}
	defer c.Close()
	b := mixed(1 << 20)
	bm.SetBytes(int64(len(b.Text)))
	bm.ReportAllocs()
	for bm.Loop() {
		pend(b)
		if out := c.Push(context.Background(), b, ignore); out.Err != nil {
			bm.Fatal(out.Err)
		}
	}
}

// pend makes all parts of a batch pending again.
func pend(b *entry.Batch) {
	for i := range b.Sections {
		for c := range b.Sections[i].State {
			if b.Sections[i].State[c] != entry.PartEmpty {
				b.Sections[i].State[c] = entry.PartPending
			}
		}
	}
}

// TestNoAllocationPerLine: what a push allocates does not depend on the number
// of its lines, and encoding allocates nothing.
func TestNoAllocationPerLine(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := mixed(1 << 20)
	l := new(lane)
	encodeAll(l, b, true)
	if n := testing.AllocsPerRun(20, func() { encodeAll(l, b, true) }); n > 0 {
		t.Errorf("encoding %d lines: %.1f allocations", len(b.Lines), n)
	}

	srv := lokitest.New(lokitest.Default())
	defer srv.Close()
	srv.Always(&lokitest.Fault{Status: 204, Discard: true})
	c, err := New(Config{URL: srv.URL, StructuredMetadata: true, BatchBytes: 3 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	perPush := func(b *entry.Batch) float64 {
		return testing.AllocsPerRun(50, func() {
			pend(b)
			if out := c.Push(context.Background(), b, ignore); out.Err != nil {
				t.Fatal(out.Err)
			}
		})
	}
	large := perPush(b)
	if lines := len(b.Lines); large > float64(lines)/10 {
		t.Errorf("a push of %d lines: %.1f allocations", lines, large)
	}
	t.Logf("a push of %d lines allocates %.0f times, client and server together", len(b.Lines), large)
}
