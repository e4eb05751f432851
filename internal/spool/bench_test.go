package spool

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// lines gives about n bytes of text like that of logs.
func lines(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for i := 0; len(b) < n; i++ {
		switch rnd.IntN(3) {
		case 0:
			b = fmt.Appendf(b, `10.%d.%d.%d - - [07/Nov/2025:12:00:%02d +0000] "GET /orders/%d/items HTTP/1.1" %d %d "-" "Mozilla/5.0 (X11; Linux x86_64)"`,
				rnd.IntN(255), rnd.IntN(255), rnd.IntN(255), i%60, rnd.IntN(100000), 200+100*rnd.IntN(4), rnd.IntN(100000))
		case 1:
			b = fmt.Appendf(b, `{"level":"info","msg":"request served","trace_id":"%016x%016x","ms":%d}`, rnd.Uint64(), rnd.Uint64(), rnd.IntN(500))
		case 2:
			b = fmt.Appendf(b, "WARN worker-%d: retrying job %d after error: connection refused", rnd.IntN(16), rnd.IntN(1000000))
		}
	}
	return b
}

func benchSpool(b *testing.B) *Spool {
	s, err := Open(Config{Dir: b.TempDir(), Lanes: 1, MaxBytes: 1 << 40, MinFreeBytes: -1, segmentBytes: segmentBytes})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	return s
}

// BenchmarkAppend appends batches of 1 MiB; with an fsync each, as in the product.
func BenchmarkAppend(b *testing.B) {
	for _, group := range []int{1, 4} {
		b.Run(fmt.Sprint("group=", group), func(b *testing.B) {
			l := benchSpool(b).Lane(0)
			payload := lines(1 << 20)
			var frames []Frame
			for range group {
				frames = append(frames, Frame{Payload: payload, Records: 1, Oldest: 1})
			}
			b.SetBytes(int64(group * len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				must(b, l.Append(frames...))
				b.StopTimer()
				for range group { // lest the disk fill
					f, _, err := l.Next(payload[:0:0])
					must(b, err)
					must(b, l.Ack(f.Seq))
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkNext reads batches of 1 MiB and acknowledges them.
func BenchmarkNext(b *testing.B) {
	l := benchSpool(b).Lane(0)
	payload := lines(1 << 20)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	left := 0
	var buf []byte
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			for range 32 {
				must(b, l.Append(Frame{Payload: payload, Records: 1, Oldest: 1}))
			}
			left = 32
			b.StartTimer()
		}
		f, ok, err := l.Next(buf)
		if !ok {
			b.Fatal("nothing to read", err)
		}
		buf = f.Payload
		must(b, l.Ack(f.Seq))
		left--
	}
}

// BenchmarkOpen opens 1 GiB in two lanes: 31 complete segments and one that was
// being written in each.
func BenchmarkOpen(b *testing.B) {
	const frames, complete = 64, 31
	cfg := Config{Dir: b.TempDir(), Lanes: 2, MaxBytes: 2 << 30, MinFreeBytes: -1, segmentBytes: segmentBytes}
	s, err := Open(cfg)
	must(b, err)
	payload := []byte(random(segmentBytes/frames - 1000))
	for i := range 2 {
		l := s.Lane(i)
		l.next = complete*frames + 1
		for range frames {
			must(b, l.Append(Frame{Payload: payload, Records: 1, Oldest: 1}))
		}
		dir := filepath.Join(cfg.Dir, dirName, laneDir(i))
		must(b, os.Truncate(filepath.Join(dir, segmentName(complete*frames+1)), l.segs[0].size))
		// The seal of a complete segment is all that is read of it: the rest may
		// be a hole.
		for n := range complete {
			f, err := os.Create(filepath.Join(dir, segmentName(uint64(n*frames+1))))
			must(b, err)
			var seal [frameHeaderLen]byte
			h := header{seq: uint64((n+1)*frames + 1), before: frames, oldest: 1}
			h.put(seal[:])
			_, err = f.WriteAt(seal[:], segmentBytes)
			must(b, err)
			must(b, f.Close())
		}
		must(b, l.active.Close()) // killed: it gets no seal
		l.active = nil
	}
	for b.Loop() {
		s, err := Open(cfg)
		must(b, err)
		if h := s.Health(); h.DiskBytes < 1000<<20 || h.Frames != 2*(complete+1)*frames {
			b.Fatalf("%+v", h)
		}
		b.StopTimer()
		must(b, s.Close())
		b.StartTimer()
	}
}
