package dispatch

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/entry"
)

type nullStore struct{}

func (nullStore) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	out := acceptAll(b)
	progress(ctx)
	return out
}
func (nullStore) Ack([]entry.Span) error                     { return nil }
func (nullStore) Append(*entry.Batch, []entry.Refusal) error { return nil }

// runNull runs a dispatcher of one lane that sends to nowhere, until f returns.
func runNull(tb testing.TB, f func(d *Dispatcher)) {
	d := New(Config{Lanes: 1, BatchBytes: 64 << 10, BatchWait: batchWait, Sink: nullStore{}, Acks: nullStore{}, DeadLetters: nullStore{},
		Registerer: prometheus.NewRegistry()})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	f(d)
	if err := d.Drain(context.Background()); err != nil {
		tb.Error(err)
	}
	cancel()
	wg.Wait()
}

// reading is one reading of a log: 40 lines of 100 bytes.
func reading(tb testing.TB, d *Dispatcher, src *entry.Source, seq uint64, now int64, text []byte) {
	b, err := d.Reserve(context.Background(), 0)
	if err != nil {
		tb.Fatal(err)
	}
	b.Begin(src)
	for range 40 {
		off := len(b.Text)
		b.Text = append(b.Text, text...)
		b.Add(now, off, entry.ClassStdout, 0)
	}
	b.End().Seq[entry.Stdout] = seq
	d.Submit(0, b)
}

// BenchmarkLane is the way of a reading through a lane. One op is 40 lines.
func BenchmarkLane(b *testing.B) {
	src, text := newSource(1, 0), make([]byte, 100)
	runNull(b, func(d *Dispatcher) {
		now := time.Now().UnixNano()
		b.ReportAllocs()
		b.SetBytes(int64(40 * len(text)))
		for seq := uint64(1); b.Loop(); seq++ {
			reading(b, d, src, seq, now, text)
		}
	})
}

// BenchmarkLatency is the worst case of the histogram: a section over several
// buckets. One op is 1,000 lines.
func BenchmarkLatency(b *testing.B) {
	var batch entry.Batch
	batch.Begin(newSource(1, 0))
	for i := range int64(1000) {
		batch.Add(i*1e6, 0, entry.ClassStdout, 0)
	}
	s := batch.End()
	var h latency
	b.ReportAllocs()
	for b.Loop() {
		h.observe(&batch, s, [entry.NumClasses]bool{true}, 1000, 1000e6)
	}
}

// In steady state no batch costs an allocation, from Reserve to Ack.
func TestNoAllocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, text := newSource(1, 0), make([]byte, 100)
		runNull(t, func(d *Dispatcher) {
			seq := uint64(0)
			// Every run is two readings, and a departure at least.
			once := func() {
				for range 2 {
					seq++
					reading(t, d, src, seq, time.Now().UnixNano(), text)
				}
				time.Sleep(2 * batchWait)
				synctest.Wait()
			}
			for range 100 {
				once()
			}
			before := src.Stats.Delivered.Load()
			if n := testing.AllocsPerRun(100, once); n >= 1 {
				t.Errorf("%v allocations per batch", n)
			}
			if n := src.Stats.Delivered.Load() - before; n != 101*2*40 {
				t.Errorf("%d lines delivered", n)
			}
		})
	})
}
