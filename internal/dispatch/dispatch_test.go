package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/log-capturer/log_capturer/internal/entry"
)

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func same[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// pass lets time go by, and everything happen that happens meanwhile.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLaneOfIsStable(t *testing.T) {
	d := New(Config{})
	same(t, "lanes", d.Lanes(), 2)
	// Written down: another hash would send a container's lines down another lane
	// than those that a spool still holds.
	for name, want := range map[string]int{"web-1": 0, "db": 0, "cache": 1, "": 1} {
		same(t, name, d.LaneOf(name), want)
	}
}

func TestIdleLineLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		a := newSource(1, 0)
		pass(time.Hour)
		r.send(a, "o:1")
		synctest.Wait()
		pass(time.Hour)
		r.send(a, "o:2", "e:1")
		synctest.Wait()
		equal(t, "sent", r.sent(), []string{"o:1", "o:2 e:1"})
		equal(t, "at", r.times(), []time.Duration{time.Hour, 2 * time.Hour})
		same(t, "acked", r.ackedSpans(), "1/stdout/1 1/stdout/2 1/stderr/1")
		same(t, "delivered", a.Stats.Delivered.Load(), 3)
	})
}

func TestSteadyLoadIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		a := newSource(1, 0)
		for i := range 100 {
			r.send(a, fmt.Sprint("o:", i))
			pass(10 * time.Millisecond)
		}
		pass(time.Second)
		times := r.times()
		same(t, "first", times[0], 0)
		for i := 1; i < len(times); i++ {
			same(t, "gap", times[i]-times[i-1], batchWait)
		}
		same(t, "attempts", len(times), 11)
		same(t, "lines", len(strings.Fields(strings.Join(r.sent(), " "))), 100)
	})
}

// TestTickLeavesAtOnce: what is read at a tick waits for no timer, though the tick before
// was late.
func TestTickLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tick, late = 100 * time.Millisecond, 25 * time.Millisecond
		r := newRig(t, Config{BatchWait: BatchWait(tick)})
		a := newSource(1, 0)
		var read []time.Duration
		for i := range 10 {
			read = append(read, time.Since(r.started))
			r.send(a, fmt.Sprint("o:", i))
			if i%2 == 0 {
				pass(tick - late)
			} else {
				pass(tick + late)
			}
		}
		equal(t, "left at", r.times(), read)
	})
}

func TestFullBatchDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{BatchBytes: 100, BatchWait: time.Hour})
		a := newSource(1, 0)
		r.send(a, "o:1")
		synctest.Wait()
		r.send(a, "o:2")
		synctest.Wait()
		equal(t, "not full", r.sent(), []string{"o:1"})
		r.send(a, "o:"+strings.Repeat("x", 100))
		r.send(a, "o:3")
		synctest.Wait()
		equal(t, "full", r.sent(), []string{"o:1", "o:2 o:" + strings.Repeat("x", 100)})
		pass(time.Hour)
		same(t, "attempts", len(r.sent()), 3)
	})
}

// While the sender is busy, what comes in goes into one batch; it leaves as soon
// as the sender is free.
func TestBatchFillsWhileTheLaneIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			time.Sleep(time.Second)
			return acceptAll(b)
		})
		a := newSource(1, 0)
		r.send(a, "o:1")
		synctest.Wait()
		r.send(a, "o:2")
		r.send(a, "o:3")
		pass(3 * time.Second)
		equal(t, "sent", r.sent(), []string{"o:1", "o:2 o:3"})
		equal(t, "at", r.times(), []time.Duration{0, time.Second})
	})
}

func TestReserveWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{BatchBytes: 1, BatchesPerLane: 3})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			<-ctx.Done()
			return entry.Outcome{Err: ctx.Err()}
		})
		a := newSource(1, 0)
		for i := range 3 {
			r.send(a, fmt.Sprint("o:", i))
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if _, err := r.Reserve(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reserve of a full lane: %v", err)
		}
		same(t, "waited", time.Since(begun), time.Minute)
		if _, err := r.Reserve(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reserve after the end: %v", err)
		}
		same(t, "batches", r.lanes[0].made, 3)
		same(t, "waiters", len(r.lanes[0].waiters), 0)
	})
}

// A container that fills each batch as soon as there is one, and a store that is
// slower: a line of another one waits for the batch under way and for one more.
func TestLoudContainerDelaysByTwoBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{BatchBytes: 1})
		answers := make(chan struct{})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			select {
			case <-answers:
				return acceptAll(b)
			case <-ctx.Done():
				return entry.Outcome{Err: ctx.Err()}
			}
		})
		loud, quiet := newSource(1, 0), newSource(2, 0)
		var written atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { // the lane's reader
			for {
				b, err := r.Reserve(ctx, 0)
				if err != nil {
					return
				}
				if written.CompareAndSwap(true, false) {
					r.fill(b, quiet, "o:quiet")
				} else {
					r.fill(b, loud, "o:loud")
				}
				r.Submit(0, b)
			}
		})
		synctest.Wait() // the lane is full
		written.Store(true)
		for range 3 { // two of the loud one's, and its own
			answers <- struct{}{}
			synctest.Wait()
		}
		if n := quiet.Stats.Delivered.Load(); n != 1 {
			t.Errorf("the quiet container's line is not among the first three batches: %q", r.sent())
		}
		cancel()
		wg.Wait()
	})
}

// A reservation that is granted at the very moment its context ends is passed
// on.
func TestReserveGrantedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Lanes: 1, BatchesPerLane: 1})
		for range 50 {
			b, err := d.Reserve(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if b, err := d.Reserve(ctx, 0); err == nil {
					d.Submit(0, b)
				}
			})
			synctest.Wait()
			// Both happen before the waiter runs.
			d.lanes[0].mu.Lock()
			cancel()
			d.lanes[0].mu.Unlock()
			d.Submit(0, b)
			wg.Wait()
			same(t, "free", len(d.lanes[0].free), 1)
		}
	})
}

func TestReserveIsExclusiveAndFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		a := newSource(1, 0)
		first, err := r.Reserve(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				// In twice: the second time behind all the others.
				for range 2 {
					b, err := r.Reserve(t.Context(), 0)
					if err != nil {
						t.Error(err)
						return
					}
					order = append(order, i) // a race unless Reserve is exclusive
					r.fill(b, a, fmt.Sprint("o:", i))
					r.Submit(0, b)
				}
			})
			synctest.Wait()
		}
		r.Submit(0, first)
		wg.Wait()
		equal(t, "first round", order[:5], []int{0, 1, 2, 3, 4})
		rest := slices.Sorted(slices.Values(order[5:]))
		equal(t, "second round", rest, []int{0, 1, 2, 3, 4})
	})
}

// Readers that leave no moment between two reservations do not keep a batch that
// is ripe from leaving.
func TestBusyReadersDoNotStarveTheSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			src := newSource(uint32(i+1), 0)
			wg.Go(func() {
				for ctx.Err() == nil {
					b, err := r.Reserve(ctx, 0)
					if err != nil {
						return
					}
					r.fill(b, src, "o:x")
					time.Sleep(time.Millisecond)
					r.Submit(0, b)
				}
			})
		}
		pass(10 * time.Second)
		cancel()
		wg.Wait()
		times := r.times()
		if len(times) < 90 {
			t.Errorf("%d departures in 10 s", len(times))
		}
		for i := 1; i < len(times); i++ {
			if gap := times[i] - times[i-1]; gap < batchWait || gap > batchWait+5*time.Millisecond {
				t.Errorf("gap of %v", gap)
			}
		}
	})
}

func TestSubmitOfAnotherBatchPanics(t *testing.T) {
	d := New(Config{Lanes: 1})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	d.Submit(0, new(entry.Batch))
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Lanes: 2})
		var down atomic.Bool
		down.Store(true)
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			if down.Load() {
				return entry.Outcome{Err: errors.New("connection refused")}
			}
			return acceptAll(b)
		})
		a, other := newSource(1, 0), newSource(2, 1)
		r.send(a, "o:1")
		r.send(other, "o:1")
		synctest.Wait()
		pass(time.Minute)
		h := r.Health()[0]
		same(t, "failing since", h.FailingSince, r.started)
		same(t, "error", h.LastError, "connection refused")
		same(t, "config", h.Config, false)
		same(t, "oldest", h.OldestPending, time.Minute)
		same(t, "pending", h.PendingBytes > 0, true)

		down.Store(false)
		pass(pauseMax)
		same(t, "healthy", r.Health()[0], LaneHealth{})
		same(t, "acked", len(strings.Fields(r.ackedSpans())), 2)
		same(t, "said", r.said("log store does not take lines"), 1)
		same(t, "said the end", r.said("log store takes lines again"), 1)
		if !strings.Contains(r.logs.String(), "after=1m") {
			t.Error("no duration in", r.logs)
		}
		same(t, "failed attempts", testutil.ToFloat64(r.metrics.failed), float64(len(r.times())-2))
		// 0.25+0.5+1+2+4+8 s, then 10 s each, less up to a quarter.
		if n := len(r.times()); n < 2*10 || n > 2*15 {
			t.Errorf("%d attempts in a minute", n)
		}
	})
}

func TestPausesOfRetryAfterAndConfig(t *testing.T) {
	for _, c := range []struct {
		name     string
		out      entry.Outcome
		min, max time.Duration
		said     string
	}{
		{"retry after", entry.Outcome{Err: errors.New("429"), RetryAfter: 20 * time.Second}, 20 * time.Second, 20 * time.Second, "log store does not take lines"},
		{"retry after an hour", entry.Outcome{Err: errors.New("429"), RetryAfter: time.Hour}, time.Minute, time.Minute, "log store does not take lines"},
		{"config", entry.Outcome{Err: errors.New("401"), Config: true}, 3750 * time.Millisecond, 5 * time.Second, "log store refuses all lines"},
		{"no reason", entry.Outcome{}, 180 * time.Millisecond, 250 * time.Millisecond, "without giving a reason"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{})
				r.setPush(func(context.Context, *entry.Batch) entry.Outcome { return c.out })
				r.send(newSource(1, 0), "o:1")
				synctest.Wait()
				same(t, "config in health", r.Health()[0].Config, c.out.Config)
				pass(c.max)
				if at := r.times(); len(at) < 2 || at[1] < c.min || at[1] > c.max {
					t.Errorf("attempts at %v", at)
				}
				same(t, "said", r.said(c.said), 1)
			})
		})
	}
}

// What a batch's first attempt brought home is neither sent nor acknowledged
// again.
func TestPartialSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		n := 0
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			if n++; n == 1 {
				setParts(b, entry.PartAccepted, func(s *entry.Section, c entry.Class) bool { return c == entry.ClassStderr })
				return entry.Outcome{Err: errors.New("503")}
			}
			return acceptAll(b)
		})
		a := newSource(1, 0)
		r.send(a, "o:1", "e:1", "m:1")
		synctest.Wait()
		same(t, "acked", r.ackedSpans(), "1/stderr/1")
		same(t, "delivered", a.Stats.Delivered.Load(), 1)
		pass(time.Second)
		equal(t, "sent", r.sent(), []string{"o:1 e:1 m:1", "o:1 m:1"})
		same(t, "acked", r.ackedSpans(), "1/stderr/1 1/stdout/1")
		same(t, "delivered", a.Stats.Delivered.Load(), 3)
	})
}

// What is accepted while the attempt goes on is acknowledged at once, behind its
// dead letters, and is no end of the attempt: nothing is paused or counted.
func TestProgressIsAcknowledgedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		a, b, c := newSource(1, 0), newSource(2, 0), newSource(3, 0)
		r.onAck = func() error { // with mu held
			if len(r.dead) == 0 {
				t.Error("acknowledged before the dead letter was written")
			}
			return nil
		}
		r.setSteps(func(ctx context.Context, batch *entry.Batch, progress func(context.Context)) entry.Outcome {
			setParts(batch, entry.PartAccepted, func(s *entry.Section, class entry.Class) bool { return s.Source == a && class == entry.ClassStdout })
			batch.Lines[0].Flags |= entry.FlagRefused
			batch.Refusals = append(batch.Refusals, entry.Refusal{Section: 0, Line: 0, Reason: "too old"})
			progress(ctx)
			if len(batch.Refusals) != 0 {
				t.Error("refusals are left")
			}
			setParts(batch, entry.PartAccepted, func(s *entry.Section, _ entry.Class) bool { return s.Source == b })
			progress(ctx)
			<-ctx.Done()
			return entry.Outcome{Err: ctx.Err()}
		})
		l, err := r.Reserve(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		r.fill(l, a, "o:1", "o:2", "e:1")
		r.fill(l, a, "o:3", "m:1") // one span of two streams of the store
		r.fill(l, b, "o:4")
		r.fill(l, c, "o:5")
		r.Submit(0, l)
		pass(time.Hour)
		same(t, "acked during the attempt", r.ackedSpans(), "1/stdout/1 2/stdout/1")
		equal(t, "dead", r.dead, []string{"o:1"})
		same(t, "delivered of a", a.Stats.Delivered.Load(), 2)
		same(t, "dead letters of a", a.Stats.DeadLettered.Load(), 1)
		same(t, "delivered of b", b.Stats.Delivered.Load(), 1)
		same(t, "attempts", len(r.sent()), 1)
		if h := r.Health()[0]; !h.FailingSince.IsZero() || h.OldestPending != time.Hour || h.PendingBytes == 0 {
			t.Errorf("health %+v", h)
		}
		r.stop()
		same(t, "acked in the end", r.ackedSpans(), "1/stdout/1 2/stdout/1")
		same(t, "dead letters in the end", len(r.dead), 1)
	})
}

// An attempt that failed in the end is followed by the shortest pause when
// anything was accepted in between, and only what is left is sent again.
func TestProgressThenFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.random = func() float64 { return 0 }
		var left []*entry.Source
		for i := range 4 {
			left = append(left, newSource(uint32(i+1), 0))
		}
		r.setSteps(func(ctx context.Context, batch *entry.Batch, progress func(context.Context)) entry.Outcome {
			setParts(batch, entry.PartAccepted, func(s *entry.Section, _ entry.Class) bool { return s.Source == left[0] })
			left = left[1:]
			progress(ctx)
			if len(left) == 0 {
				return entry.Outcome{}
			}
			return entry.Outcome{Err: errors.New("down")}
		})
		l, err := r.Reserve(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, src := range left {
			r.fill(l, src, fmt.Sprint("o:", i))
		}
		r.Submit(0, l)
		pass(time.Minute)
		equal(t, "sent", r.sent(), []string{"o:0 o:1 o:2 o:3", "o:1 o:2 o:3", "o:2 o:3", "o:3"})
		equal(t, "at", r.times(), []time.Duration{0, pauseMin, 2 * pauseMin, 3 * pauseMin})
		same(t, "acked", r.ackedSpans(), "1/stdout/1 2/stdout/1 3/stdout/1 4/stdout/1")
		same(t, "health", r.Health()[0], LaneHealth{})
	})
}

func TestDeadLettersComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		full := true
		r.onDead = func() error {
			if full {
				return errors.New("no space left on device")
			}
			return nil
		}
		a := newSource(1, 0)
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			for i := range b.Lines {
				if string(b.Message(&b.Lines[i])) == "o:2" {
					b.Lines[i].Flags |= entry.FlagRefused
					b.Refusals = append(b.Refusals, entry.Refusal{Section: 0, Line: i, Reason: "too old"})
				}
			}
			return acceptAll(b)
		})
		r.send(a, "o:1", "o:2", "o:3")
		pass(5 * time.Minute)
		same(t, "acked without dead letter", r.ackedSpans(), "")
		h := r.Health()[0]
		same(t, "dead letters fail since", h.DeadLettersSince, r.started)
		same(t, "dead letters' error", h.DeadLettersError, "no space left on device")
		if n := r.said("dead-letter file cannot be written"); n < 4 || n > 6 {
			t.Errorf("said %d times in 5 minutes", n)
		}
		r.mu.Lock()
		full = false
		r.mu.Unlock()
		pass(pauseMax)
		equal(t, "dead", r.dead, []string{"o:2"})
		same(t, "acked", r.ackedSpans(), "1/stdout/1")
		same(t, "delivered", a.Stats.Delivered.Load(), 2)
		same(t, "dead-lettered", a.Stats.DeadLettered.Load(), 1)
		same(t, "healthy", r.Health()[0], LaneHealth{})
		same(t, "said the end", r.said("dead-letter file can be written again"), 1)
	})
}

func TestAckErrorIsNotFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		broken := true
		r.onAck = func() error {
			if broken {
				return errors.New("read-only file system")
			}
			return nil
		}
		a := newSource(1, 0)
		for range 3 {
			r.send(a, "o:x")
			pass(time.Second)
		}
		r.mu.Lock()
		broken = false
		r.mu.Unlock()
		r.send(a, "o:x")
		pass(time.Second)
		same(t, "attempts", len(r.sent()), 4)
		same(t, "acked", r.ackedSpans(), "1/stdout/4")
		same(t, "said", r.said("positions cannot be written"), 1)
		same(t, "said the end", r.said("positions can be written again"), 1)
		same(t, "counted", testutil.ToFloat64(r.metrics.ackErrors), 3)
	})
}

// holdSource makes the store refuse one source's stdout as long as held is true.
func holdSource(src *entry.Source, held *atomic.Bool) func(context.Context, *entry.Batch) entry.Outcome {
	return func(_ context.Context, b *entry.Batch) entry.Outcome {
		if !held.Load() {
			return acceptAll(b)
		}
		mine := func(s *entry.Section, c entry.Class) bool { return s.Source == src && c == entry.ClassStdout }
		any := false
		setParts(b, entry.PartHeld, func(s *entry.Section, c entry.Class) bool {
			any = any || mine(s, c)
			return mine(s, c)
		})
		acceptAll(b)
		if any {
			return entry.Outcome{Err: errors.New("per stream rate limit")}
		}
		return entry.Outcome{}
	}
}

func TestHeldStreamDoesNotBlockTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		var held atomic.Bool
		held.Store(true)
		a, b := newSource(1, 0), newSource(2, 0)
		r.setPush(holdSource(a, &held))
		r.send(a, "o:1", "m:1", "e:1")
		synctest.Wait()
		same(t, "held", a.Held.Load(), true)
		// The stdout position also covers the malformed line: not yet.
		same(t, "acked", r.ackedSpans(), "1/stderr/1")
		// Already read when the source was held: stays behind.
		r.send(a, "o:2", "m:2")
		same(t, "the other is held", b.Held.Load(), false)
		for i := range 100 {
			begun := time.Now()
			r.send(b, fmt.Sprint("o:b", i))
			pass(batchWait)
			same(t, "delivered at once", b.Stats.Delivered.Load(), int64(i+1))
			same(t, "time", time.Since(begun), batchWait)
		}
		h := r.Health()[0]
		same(t, "store fails", h.FailingSince.IsZero(), true)
		same(t, "streams", h.HeldStreams, 1)
		same(t, "held error", h.HeldError, "per stream rate limit")
		same(t, "parked bytes", h.ParkedBytes, 2*(3+24))
		same(t, "oldest", h.OldestPending, time.Since(r.started))
		for _, s := range r.sent() {
			if strings.Contains(s, "o:2") && s != "o:1 o:2" {
				t.Errorf("sent past parked lines: %q", s)
			}
		}
		held.Store(false)
		pass(pauseMax)
		same(t, "held", a.Held.Load(), false)
		equal(t, "woken", r.woken, []*entry.Source{a})
		same(t, "delivered", a.Stats.Delivered.Load(), 5)
		r.mu.Lock()
		last := r.pushes[len(r.pushes)-1]
		r.mu.Unlock()
		equal(t, "last attempt", last.lines, []string{"o:1", "o:2"})
		if s := r.ackedSpans(); !strings.HasSuffix(s, "1/stdout/1 1/stdout/2") || strings.Count(s, "1/stdout/1") != 1 {
			t.Errorf("acked %s", s)
		}
		same(t, "streams", r.Health()[0].HeldStreams, 0)
		same(t, "said", r.said("log store refuses a stream for now"), 1)
		same(t, "said the end", r.said("log store takes all streams again"), 1)
		same(t, "counted", testutil.ToFloat64(r.metrics.holds), 1)
		same(t, "failed attempts", testutil.ToFloat64(r.metrics.failed), 0)
	})
}

// A span that is split between the batch and the parked lines is acknowledged
// when the later of the two is done, whichever it is.
func TestSpanInTwoPlaces(t *testing.T) {
	for _, last := range []string{"parked", "batch", "both parked"} {
		t.Run(last, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{})
				n := 0
				r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
					n++
					is := func(class entry.Class) func(*entry.Section, entry.Class) bool {
						return func(_ *entry.Section, c entry.Class) bool { return c == class }
					}
					stdoutOnly := b.Sections[0].State[entry.ClassStdout] == entry.PartPending
					out := entry.Outcome{Err: errors.New("429")}
					switch {
					case n == 1:
						setParts(b, entry.PartHeld, is(entry.ClassStdout))
						if last == "both parked" {
							setParts(b, entry.PartHeld, is(entry.ClassMalformed))
						}
						return out // malformed is left pending
					case stdoutOnly && last == "parked" && n < 4:
						setParts(b, entry.PartHeld, is(entry.ClassStdout))
						return out
					case !stdoutOnly && last == "batch" && n < 4:
						out.RetryAfter = time.Minute
						return out
					}
					if r.ackedSpans() != "" {
						t.Error("acked before both were done")
					}
					return acceptAll(b)
				})
				a := newSource(1, 0)
				r.send(a, "o:1", "m:1")
				pass(time.Hour)
				same(t, "acked", r.ackedSpans(), "1/stdout/1")
				same(t, "delivered", a.Stats.Delivered.Load(), 2)
				same(t, "held", a.Held.Load(), false)
				equal(t, "woken", r.woken, []*entry.Source{a})
				same(t, "shared", len(r.lanes[0].shared), 0)
			})
		})
	}
}

// The lines of a recreated container belong to the same stream of the store, and
// stay behind those of its predecessor.
func TestSameLabelsStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		var held atomic.Bool
		held.Store(true)
		old, recreated := newSource(1, 0), newSource(2, 0)
		label(recreated, old.Name)
		r.setPush(holdSource(old, &held))
		r.send(old, "o:old")
		synctest.Wait()
		pass(batchWait)
		r.send(recreated, "o:new")
		synctest.Wait()
		same(t, "held", recreated.Held.Load(), true)
		held.Store(false)
		pass(time.Minute)
		sent := r.sent()
		same(t, "last", sent[len(sent)-1], "o:old o:new")
		same(t, "held", old.Held.Load() || recreated.Held.Load(), false)
		equal(t, "woken", r.woken, []*entry.Source{old, recreated})
	})
}

// TestOneHeldStreamOfLargeBatches: where the store is far away and batches are as large as they get, a lane
// that had nothing but lines of one stream when that was refused goes on with the others.
func TestOneHeldStreamOfLargeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const distance = 50 * time.Millisecond
		r := newRig(t, Config{})
		var held atomic.Bool
		a, b := newSource(1, 0), newSource(2, 0)
		hold := holdSource(a, &held)
		r.setPush(farAway(distance, hold))
		r.send(b, "o:"+strings.Repeat("x", DefaultBatchBytes))
		pass(time.Second)
		held.Store(true)
		for range DefaultBatchesPerLane {
			batch, err := r.Reserve(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "size", batch.Limit, mostBytes)
			for batch.Size() < batch.Limit {
				r.fill(batch, a, "o:"+strings.Repeat("x", 256<<10))
			}
			r.Submit(0, batch)
		}
		pass(time.Second)
		same(t, "all is parked", r.Health()[0].ParkedBytes > DefaultBatchesPerLane*mostBytes, true)
		r.send(b, "o:b")
		pass(time.Second)
		same(t, "other lines delivered", b.Stats.Delivered.Load(), 2)
	})
}

func TestTooMuchParkedStopsTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{BatchBytes: 100, ParkedBytes: 200})
		var held atomic.Bool
		held.Store(true)
		a, b := newSource(1, 0), newSource(2, 0)
		r.setPush(holdSource(a, &held))
		for i := range 3 {
			r.send(a, fmt.Sprintf("o:%d%s", i, strings.Repeat("x", 80)))
		}
		synctest.Wait()
		same(t, "parked", r.Health()[0].ParkedBytes, 2*(83+24)) // the third stays in the lane
		r.send(b, "o:b")
		pass(time.Hour)
		same(t, "other lines delivered", b.Stats.Delivered.Load(), 0)
		held.Store(false)
		pass(time.Minute)
		same(t, "other lines delivered", b.Stats.Delivered.Load(), 1)
		same(t, "parked", r.Health()[0].ParkedBytes, 0)
		same(t, "delivered", a.Stats.Delivered.Load(), 3)
	})
}

// While the store as a whole fails, parked lines wait like all others, and many
// held streams are asked about one after the other.
func TestManyHeldStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			setParts(b, entry.PartHeld, all)
			return entry.Outcome{Err: errors.New("maximum active stream limit exceeded"), Config: true}
		})
		const streams = 500
		for i := range streams {
			r.send(newSource(uint32(i+1), 0), "o:x")
		}
		synctest.Wait()
		pass(time.Second) // all taken, whatever the batches
		synctest.Wait()
		before := len(r.sent())
		pass(10 * time.Second)
		h := r.Health()[0]
		same(t, "held", h.HeldStreams, streams)
		same(t, "config", h.HeldConfig, true)
		if n := len(r.sent()) - before; n > 200 {
			t.Errorf("%d attempts in 10 s", n)
		}
		same(t, "said", r.said("log store refuses a stream for now"), 1)
		r.setPush(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := r.Drain(ctx); err != nil {
			t.Error(err)
		}
		same(t, "acked", len(strings.Fields(r.ackedSpans())), streams)
	})
}

func TestParkedAttemptMeetsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		n := 0
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			switch n++; n {
			case 1:
				setParts(b, entry.PartHeld, all)
				return entry.Outcome{Err: errors.New("429")}
			case 2, 3:
				return entry.Outcome{Err: errors.New("connection refused")}
			}
			return acceptAll(b)
		})
		a := newSource(1, 0)
		r.send(a, "o:1")
		pass(250 * time.Millisecond)
		same(t, "failing", r.Health()[0].LastError, "connection refused")
		pass(10 * time.Second)
		equal(t, "sent", r.sent(), []string{"o:1", "o:1", "o:1", "o:1"})
		same(t, "healthy", r.Health()[0], LaneHealth{})
		same(t, "acked", r.ackedSpans(), "1/stdout/1")
	})
}

// A part of which the store refused every line for good has nothing to be held.
func TestHeldPartWithOnlyRefusedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		n := 0
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			if n++; n > 1 {
				return acceptAll(b)
			}
			b.Lines[0].Flags |= entry.FlagRefused
			b.Refusals = append(b.Refusals, entry.Refusal{Reason: "too old"})
			setParts(b, entry.PartHeld, all)
			return entry.Outcome{Err: errors.New("429")}
		})
		a := newSource(1, 0)
		r.send(a, "o:1", "e:1")
		pass(time.Minute)
		equal(t, "sent", r.sent(), []string{"o:1 e:1", "e:1"})
		same(t, "acked", r.ackedSpans(), "1/stdout/1 1/stderr/1")
		equal(t, "dead", r.dead, []string{"o:1"})
		same(t, "delivered", a.Stats.Delivered.Load(), 1)
		same(t, "streams", len(r.lanes[0].streams), 0)
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{BatchWait: time.Hour})
		a := newSource(1, 0)
		r.send(a, "o:1")
		synctest.Wait()
		r.send(a, "o:2")
		begun := time.Now()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		same(t, "took", time.Since(begun), 0)
		equal(t, "sent", r.sent(), []string{"o:1", "o:2"})
		same(t, "acked", r.ackedSpans(), "1/stdout/1 1/stdout/2")
	})
}

func TestDrainIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.setPush(func(context.Context, *entry.Batch) entry.Outcome {
			return entry.Outcome{Err: errors.New("connection refused")}
		})
		r.send(newSource(1, 0), "o:1")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := r.Drain(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 of 1 lanes still hold about 27 bytes") {
			t.Errorf("Drain: %v", err)
		}
		r.stop()
		same(t, "acked", r.ackedSpans(), "")
	})
}

// Run's end cuts the request in flight. What it did not deliver is not
// acknowledged, what it did deliver is.
func TestRunEndsDuringARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			<-ctx.Done()
			setParts(b, entry.PartAccepted, func(_ *entry.Section, c entry.Class) bool { return c == entry.ClassStderr })
			return entry.Outcome{Err: ctx.Err()}
		})
		a := newSource(1, 0)
		r.send(a, "o:1", "e:1")
		synctest.Wait()
		r.send(a, "o:2")
		r.stop()
		same(t, "acked", r.ackedSpans(), "1/stderr/1")
		same(t, "attempts", len(r.sent()), 1)
		same(t, "said", r.logs.String(), "")
	})
}

func TestRunEndsWhileDeadLettersFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.onDead = func() error { return errors.New("no space left on device") }
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			b.Lines[0].Flags |= entry.FlagRefused
			b.Refusals = append(b.Refusals, entry.Refusal{Reason: "too old"})
			return acceptAll(b)
		})
		a := newSource(1, 0)
		r.send(a, "o:1", "e:1")
		pass(time.Second)
		r.stop()
		same(t, "acked", r.ackedSpans(), "")
	})
}

// TestMemoryIsGivenBack: what a backlog has taken, or a giant line, is not kept by batches that need
// much less, whether any come or not.
func TestMemoryIsGivenBack(t *testing.T) {
	const size = 5 * smallBatch
	state := func(r *rig) (kept int, looks bool) {
		l := r.lanes[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, sl := range l.free {
			_, n := sl.Memory()
			kept += n
		}
		return kept, !l.warm.IsZero()
	}
	for name, large := range map[string][]string{
		"a giant line": {"o:" + strings.Repeat("x", size)},
		"short lines":  slices.Repeat([]string{"o"}, size/24),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{BatchBytes: 1 << 20})
				r.send(newSource(1, 0), large...)
				pass(warmFor - time.Second)
				kept, looks := state(r)
				same(t, "kept for a while", kept >= size && looks, true)
				// The look at the end of that finds that it was needed; the next that it was not.
				pass(warmFor + 2*time.Second)
				kept, looks = state(r)
				same(t, "of a lane with nothing to do", kept, 0)
				same(t, "looks again", looks, false)
			})
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{BatchBytes: 1 << 20})
				src := newSource(1, 0)
				for range 4 {
					r.send(src, large...)
					pass(warmFor / 2)
				}
				kept, _ := state(r)
				same(t, "kept while it is used", kept >= size, true)
				for range 30 {
					r.send(src, "o:small")
					pass(warmFor / 10)
				}
				kept, looks := state(r)
				same(t, "of a lane with less to do", kept <= smallBatch, true)
				same(t, "looks again", looks, false)
				r.send(src, "o:"+strings.Repeat("x", smallBatch/2))
				pass(time.Second)
				_, looks = state(r)
				same(t, "looks again after a small one", looks, false)
				same(t, "batches", r.lanes[0].made, 1)
			})
		})
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		r := newRig(t, Config{Registerer: reg})
		a, s := newSource(1, 0), newSource(2, 0)
		s.Method = methodStream
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			time.Sleep(60 * time.Millisecond)
			eachPending(b, func(_ *entry.Section, l *entry.Line) {
				if string(b.Message(l)) == "e:bad" {
					l.Flags |= entry.FlagRefused
					b.Refusals = append(b.Refusals, entry.Refusal{Section: 0, Line: 2, Reason: "too old"})
				}
			})
			return acceptAll(b)
		})
		r.send(a, "o:1", "e:1", "e:bad", "m:1")
		pass(time.Second)
		r.send(s, "o:1")
		pass(time.Second)
		want := `
# HELP log_capturer_file_monitor_latency_seconds From a line's being written by its container to its being accepted by the store, for logs read from files.
# TYPE log_capturer_file_monitor_latency_seconds histogram
log_capturer_file_monitor_latency_seconds_bucket{le="0.005"} 0
log_capturer_file_monitor_latency_seconds_bucket{le="0.01"} 0
log_capturer_file_monitor_latency_seconds_bucket{le="0.025"} 0
log_capturer_file_monitor_latency_seconds_bucket{le="0.05"} 0
log_capturer_file_monitor_latency_seconds_bucket{le="0.075"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="0.1"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="0.15"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="0.25"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="0.5"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="1"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="2.5"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="5"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="10"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="30"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="60"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="300"} 3
log_capturer_file_monitor_latency_seconds_bucket{le="+Inf"} 3
log_capturer_file_monitor_latency_seconds_sum 0.18
log_capturer_file_monitor_latency_seconds_count 3
# HELP log_capturer_logs_processed_total Lines done with: delivered to the store, or dead_lettered because the store refused them; malformed is the part of delivered that was shipped raw. spooled went to the spool, and is counted again when it is done with.
# TYPE log_capturer_logs_processed_total counter
log_capturer_logs_processed_total{method="file_monitor",result="dead_lettered"} 1
log_capturer_logs_processed_total{method="file_monitor",result="delivered"} 3
log_capturer_logs_processed_total{method="file_monitor",result="malformed"} 1
log_capturer_logs_processed_total{method="file_monitor",result="spooled"} 0
log_capturer_logs_processed_total{method="streaming",result="dead_lettered"} 0
log_capturer_logs_processed_total{method="streaming",result="delivered"} 1
log_capturer_logs_processed_total{method="streaming",result="malformed"} 0
log_capturer_logs_processed_total{method="streaming",result="spooled"} 0
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
			"log_capturer_file_monitor_latency_seconds", "log_capturer_logs_processed_total"); err != nil {
			t.Error(err)
		}
		if n, err := testutil.GatherAndCount(reg); err != nil || n != 8+1+3+1+6 {
			t.Errorf("%d metrics, %v", n, err)
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}

// laneMetrics gives the gauges of the lanes: each name with the value of every lane.
func laneMetrics(t *testing.T, reg prometheus.Gatherer) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), "log_capturer_dispatch_")
		if !ok || f.GetType() != dto.MetricType_GAUGE {
			continue
		}
		all = append(all, name)
		for _, m := range f.GetMetric() {
			all = append(all, fmt.Sprint(m.GetGauge().GetValue()))
		}
	}
	return strings.Join(all, " ")
}

// TestLaneMetrics has one lane with a stream that is refused, and one whose store fails.
func TestLaneMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		r := newRig(t, Config{Lanes: 2, Registerer: reg})
		var held atomic.Bool
		held.Store(true)
		a, b := newSource(1, 0), newSource(2, 1)
		refuse := holdSource(a, &held)
		r.setPush(func(ctx context.Context, batch *entry.Batch) entry.Outcome {
			if batch.Sections[0].Source == b && held.Load() {
				return entry.Outcome{Err: errDown}
			}
			return refuse(ctx, batch)
		})
		want := func(text string) {
			t.Helper()
			same(t, "metrics", laneMetrics(t, reg), text)
		}
		r.send(a, "o:refused")
		pass(time.Second)
		r.send(b, "o:1", "o:23")
		pass(10 * time.Second)
		// In bytes the text, and 24 for each line.
		want("failing 0 1 held_streams 1 0 oldest_pending_seconds 11 10 parked_bytes 33 0 pending_bytes 0 55 slow 0 0")
		held.Store(false)
		pass(time.Minute)
		want("failing 0 0 held_streams 0 0 oldest_pending_seconds 0 0 parked_bytes 0 0 pending_bytes 0 0 slow 0 0")
	})
}

func TestLatency(t *testing.T) {
	const ms = int64(1e6)
	var b entry.Batch
	src := newSource(1, 0)
	section := func(ages ...int64) *entry.Section {
		b.Reset()
		b.Begin(src)
		for i, age := range ages {
			b.Add(1000*ms-age*ms, len(b.Text), entry.Class(i%2), 0)
		}
		return b.End()
	}
	check := func(what string, h *latency, want map[int]uint64, sum float64) {
		t.Helper()
		for k := range h.counts {
			same(t, fmt.Sprint(what, " bucket ", k), h.counts[k].Load(), want[k])
		}
		total := math.Float64frombits(h.sum.Load())
		if d := total - sum; d > 1e-9 || d < -1e-9 {
			t.Errorf("%s: sum %v, want %v", what, total, sum)
		}
	}
	both := [entry.NumClasses]bool{true, true}
	var bulk latency
	bulk.observe(&b, section(90, 85, 80), both, 3, 1000*ms)
	check("one bucket", &bulk, map[int]uint64{5: 3}, 0.255)

	var loop latency
	s := section(400, 90, 80, 3)
	b.Lines[2].Flags |= entry.FlagRefused
	loop.observe(&b, s, both, 3, 1000*ms)
	check("several buckets", &loop, map[int]uint64{8: 1, 5: 1, 0: 1}, 0.493)

	var one latency
	one.observe(&b, section(400, 90, 80, 3), [entry.NumClasses]bool{entry.ClassStderr: true}, 2, 1000*ms)
	check("one class", &one, map[int]uint64{5: 1, 0: 1}, 0.093)

	var future latency
	future.observe(&b, section(-5000, -6000), both, 2, 1000*ms)
	check("the clock was set back", &future, map[int]uint64{0: 2}, 0)

	var old latency
	old.observe(&b, section(400_000, 350_000), both, 2, 1000*ms)
	check("beyond the last bound", &old, map[int]uint64{len(latencyBounds): 2}, 750)
}

// Nor has a parked part of which every line is refused for good later: it is
// done, not tried again without lines.
func TestParkedPartWithOnlyRefusedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		n := 0
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			if n++; n == 2 {
				b.Lines[0].Flags |= entry.FlagRefused
				b.Refusals = append(b.Refusals, entry.Refusal{Reason: "too far behind"})
			}
			setParts(b, entry.PartHeld, all)
			return entry.Outcome{Err: errors.New("429")}
		})
		a := newSource(1, 0)
		r.send(a, "o:1")
		pass(time.Hour)
		equal(t, "sent", r.sent(), []string{"o:1", "o:1"})
		equal(t, "dead", r.dead, []string{"o:1"})
		same(t, "acked", r.ackedSpans(), "1/stdout/1")
		same(t, "delivered", a.Stats.Delivered.Load(), 0)
		same(t, "held", a.Held.Load(), false)
		equal(t, "woken", r.woken, []*entry.Source{a})
		same(t, "healthy", r.Health()[0], LaneHealth{})
	})
}

// A batch that was meant for the sender goes to the reader who waits, when a
// parked part turns out to be due first.
func TestFreedClaimServesAWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Lanes: 1, BatchesPerLane: 1}) // not run: the test is the sender
		l := d.lanes[0]
		if step, _ := l.next(time.Now()); step != stepWait || l.wakeOn != wakeAny {
			t.Fatalf("step %d, waking on %d", step, l.wakeOn)
		}
		b, err := d.Reserve(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan *entry.Batch)
		go func() {
			b, err := d.Reserve(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		synctest.Wait()
		b.Begin(newSource(1, 0))
		b.Add(0, 0, entry.ClassStdout, 0)
		b.End()
		d.Submit(0, b)
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("the sender's batch was given away")
		default:
		}
		l.streams = []*parkedStream{{due: time.Now()}}
		if step, _ := l.next(time.Now()); step != stepParked {
			t.Fatalf("step %d", step)
		}
		if second := <-got; second != b {
			t.Error("another batch")
		}
		d.Submit(0, b)
	})
}
