package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

// takesLong is a store that takes all, after a while; also when nobody waits for the
// answer any more, if stubborn.
func (r *rig) takesLong(after time.Duration, stubborn bool) func(context.Context, *entry.Batch) entry.Outcome {
	return func(ctx context.Context, b *entry.Batch) entry.Outcome {
		answer := time.NewTimer(after)
		defer answer.Stop()
		select {
		case <-answer.C:
			return r.takeAll(ctx, b)
		case <-ctx.Done():
		}
		if stubborn {
			eachPending(b, func(_ *entry.Section, l *entry.Line) {
				r.mu.Lock()
				r.took = append(r.took, string(b.Message(l)))
				r.mu.Unlock()
			})
		}
		return entry.Outcome{Err: ctx.Err()}
	}
}

// doubled counts the lines that came more than once, and fails if one came more than twice.
func doubled(t *testing.T, lines []string) (n int) {
	t.Helper()
	times := map[string]int{}
	for _, l := range lines {
		if times[l]++; times[l] == 2 {
			n++
		} else if times[l] > 2 {
			t.Errorf("%s came %d times", l, times[l])
		}
	}
	return n
}

// A store that hangs is given up after the second, and what it has not taken is kept.
func TestSpoolingHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(r.takesLong(10*time.Second, false)) // its time-out
		src := newSource(1, 0)
		r.send(src, "o:0")
		passTime(spoolAfter - 1)
		if got := r.ackedSpans(); got != "" {
			t.Errorf("acknowledged before the second was over: %s", got)
		}
		passTime(1)
		if got := r.ackedSpans(); got != "1/stdout/1" || sp.Health().Records != 1 {
			t.Errorf("acknowledged: %q, %+v", got, sp.Health())
		}
		if n := r.said("has not answered in time"); n != 1 {
			t.Errorf("said %d times:\n%s", n, r.logs)
		}
		for i := range 9 { // nobody waits for the second again
			r.send(src, fmt.Sprintf("o:%d", 1+i))
			passTime(100 * time.Millisecond)
			if got := strings.Count(r.ackedSpans(), "/"); got != 2*(2+i) {
				t.Errorf("%d: %s", i, r.ackedSpans())
			}
		}
		r.setPush(r.takeAll)
		passTime(time.Minute)
		r.send(src, "o:10")
		passTime(time.Second)
		if got := strings.Join(r.delivered(), " "); got != "o:0 o:1 o:2 o:3 o:4 o:5 o:6 o:7 o:8 o:9 o:10" || src.Stats.Delivered.Load() != 1 {
			t.Errorf("%s, %d of them directly", got, src.Stats.Delivered.Load())
		}
		if n := r.said("spool is drained"); n != 1 {
			t.Errorf("said %d times:\n%s", n, r.logs)
		}
	})
}

// A store that is slow, not down, gets one request twice and then no more: its
// lines go by way of the spool, where nobody hurries it, until it is quick.
func TestSpoolingSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		reg := prometheus.NewRegistry()
		r := newRig(t, Config{Spool: sp, Registerer: reg})
		r.setPush(r.takesLong(1500*time.Millisecond, true))
		src := newSource(1, 0)
		sent := 0
		send := func(n int, every time.Duration) {
			for range n {
				r.send(src, fmt.Sprintf("o:%d", sent))
				sent++
				passTime(every)
			}
		}
		send(100, 5*time.Second) // the queue is empty between them
		send(100, 300*time.Millisecond)
		passTime(time.Minute)
		if got := doubled(t, r.delivered()); got != 1 {
			t.Errorf("%d lines came twice", got)
		}
		if n := src.Stats.Delivered.Load(); n != 0 || !r.Health()[0].Slow {
			t.Errorf("%d lines went directly, %+v", n, r.Health())
		}
		if m := laneMetrics(t, reg); !strings.HasSuffix(m, " slow 1") {
			t.Error(m)
		}
		r.setPush(r.takesLong(quickBelow, true)) // is not quick
		send(5, 5*time.Second)
		if n := src.Stats.Delivered.Load(); n != 0 {
			t.Errorf("%d lines went directly", n)
		}
		if n := r.said("spool is drained"); n != 0 {
			t.Errorf("said while lines go through the spool:\n%s", r.logs)
		}
		r.setPush(r.takesLong(quickBelow-1, true))
		send(5, 5*time.Second)
		if n := src.Stats.Delivered.Load(); n != 4 || r.said("spool is drained") != 1 || r.Health()[0].Slow {
			t.Errorf("%d lines went directly:\n%s", n, r.logs)
		}
		if m := laneMetrics(t, reg); !strings.HasSuffix(m, " slow 0") {
			t.Error(m)
		}
		if got := r.delivered(); doubled(t, got) != 1 || len(got) != sent+1 {
			t.Errorf("%d lines of %d, %d of them twice", len(got), sent, doubled(t, got))
		}
	})
}

// A thin uplink: small requests are quick, large ones are not. What comes twice
// becomes rare.
func TestSpoolingThinUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			return r.takesLong(time.Duration(b.Size())*time.Millisecond, true)(ctx, b)
		})
		src := newSource(1, 0)
		for i := range 400 {
			text := fmt.Sprintf("o:%d", i)
			if i%2 == 1 {
				text += strings.Repeat(" ", 2000)
			}
			r.send(src, text)
			passTime(6 * time.Second)
		}
		passTime(time.Minute)
		got := r.delivered()
		if n := doubled(t, got); n < 2 || n > 20 || len(got) != 400+n {
			t.Errorf("%d lines, %d of them twice", len(got), n)
		}
	})
}

// While a store that is slow cannot have its lines by way of the spool, which is
// full, it may take its time directly.
func TestSpoolingSlowAndFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 1)
		r := newRig(t, Config{Spool: sp})
		r.setPush(r.takesLong(5*time.Second, false))
		src := newSource(1, 0)
		for i := range 3 {
			r.send(src, fmt.Sprintf("o:%d", i))
			passTime(10 * time.Second)
		}
		if got := r.delivered(); !slices.Equal(got, []string{"o:0", "o:1", "o:2"}) {
			t.Errorf("%q", got)
		}
	})
}

// inTurn is a store that takes each section by a request of its own.
func inTurn(takes func(section int) time.Duration) pushFunc {
	return func(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
		for i := range b.Sections {
			if b.Sections[i].State[entry.ClassStdout] != entry.PartPending {
				continue
			}
			select {
			case <-time.After(takes(i)):
			case <-ctx.Done():
				return entry.Outcome{Err: ctx.Err()}
			}
			b.Sections[i].State[entry.ClassStdout] = entry.PartAccepted
			if progress(ctx); b.Enough {
				return entry.Outcome{Err: errors.New("enough")}
			}
		}
		return entry.Outcome{}
	}
}

// sendTogether sends one line, and then others that go in one batch at the end of
// the two seconds after it.
func (r *rig) sendTogether(src *entry.Source, n int) {
	r.send(src, "o:first")
	passTime(time.Second)
	for i := range n {
		r.send(src, fmt.Sprintf("o:%d", i))
	}
}

// An attempt of many requests is not cut as long as each brings something home; of
// one that is, only the rest is kept.
func TestSpoolingProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp, BatchWait: 2 * time.Second})
		r.setSteps(inTurn(func(section int) time.Duration {
			if section > 3 {
				return 10 * time.Second
			}
			return 900 * time.Millisecond
		}))
		src := newSource(1, 0)
		r.sendTogether(src, 6)
		passTime(4700 * time.Millisecond)
		if n := src.Stats.Delivered.Load(); n != 5 || sp.Health().Frames != 0 {
			t.Errorf("%d delivered, %+v", n, sp.Health())
		}
		passTime(2 * time.Second)
		if n := src.Stats.Delivered.Load(); n != 5 || sp.Health().Records != 2 {
			t.Errorf("%d delivered, %+v", n, sp.Health())
		}
	})
}

// An attempt of many requests does not go on for as long as it likes when the
// dispatcher is drained; no request of it is cut.
func TestSpoolingDrainProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp, BatchWait: 2 * time.Second})
		r.setSteps(inTurn(func(int) time.Duration { return 700 * time.Millisecond }))
		src := newSource(1, 0)
		r.sendTogether(src, 6)
		passTime(time.Second)
		began := time.Now()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		// Answers come at 0.7 and 1.4 s.
		if took := time.Since(began); took != 1400*time.Millisecond || src.Stats.Delivered.Load() != 3 || sp.Health().Records != 4 || r.Health()[0].Slow {
			t.Errorf("after %v: %d delivered, %+v", took, src.Stats.Delivered.Load(), sp.Health())
		}
	})
}

// Lines that are in no file with a name are on the disk as soon as the store does
// not take them at once; those of a stream that is refused alone, too, and then its
// log is read on.
func TestSpoolingUnlinked(t *testing.T) {
	for name, c := range map[string]struct {
		push   func(r *rig) func(context.Context, *entry.Batch) entry.Outcome
		within time.Duration
	}{
		"down": {func(*rig) func(context.Context, *entry.Batch) entry.Outcome { return down }, 0},
		"hangs": {func(r *rig) func(context.Context, *entry.Batch) entry.Outcome {
			return r.takesLong(10*time.Second, false)
		}, leastPatience},
		"refuses it": {func(*rig) func(context.Context, *entry.Batch) entry.Outcome {
			return func(_ context.Context, b *entry.Batch) entry.Outcome {
				setParts(b, entry.PartHeld, all)
				return entry.Outcome{Err: errors.New("429"), RetryAfter: time.Minute}
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sp := openSpool(t, t.TempDir(), 0)
				r := newRig(t, Config{Spool: sp})
				r.setPush(c.push(r))
				src := newSource(1, 0)
				src.Unlinked.Store(true)
				r.send(src, "o:0")
				passTime(c.within)
				if got := r.ackedSpans(); got != "1/stdout/1" || sp.Health().Records != 1 || src.Held.Load() {
					t.Errorf("acknowledged: %q, %+v, held: %v", got, sp.Health(), src.Held.Load())
				}
				passTime(time.Second)
				r.send(src, "o:1")
				passTime(c.within)
				if got := r.ackedSpans(); got != "1/stdout/1 1/stdout/2" || src.Held.Load() {
					t.Errorf("acknowledged: %q, held: %v", got, src.Held.Load())
				}
				r.setPush(r.takeAll)
				passTime(2 * time.Minute)
				if got := r.delivered(); !slices.Equal(got, []string{"o:0", "o:1"}) {
					t.Errorf("%q", got)
				}
			})
		})
	}
}

// A request that has just begun when the dispatcher is drained has its second; no
// new one begins late.
func TestSpoolingDrainYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp, BatchesPerLane: 8, BatchBytes: 1})
		r.setPush(r.takesLong(700*time.Millisecond, true))
		src := newSource(1, 0)
		for i := range 5 { // each fills a batch
			r.send(src, fmt.Sprintf("o:%d", i))
		}
		passTime(600 * time.Millisecond)
		began := time.Now()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		// 0 at 0.7 s, 1 at 1.4 s, 2 (begun within the second) at 2.1 s.
		if took := time.Since(began); took > 2*spoolAfter || sp.Health().Records != 2 {
			t.Errorf("after %v: %+v", took, sp.Health())
		}
		if got := r.delivered(); !slices.Equal(got, []string{"o:0", "o:1", "o:2"}) {
			t.Errorf("%q", got)
		}
	})
}

// noise is a line that does not get smaller on disk.
func noise(name string, size int) string {
	rnd := rand.New(rand.NewPCG(uint64(len(name)), uint64(size)))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte('!' + rnd.IntN(90))
	}
	return "o:" + name + " " + string(b)
}

// With a full spool and one stream refused for an hour, the others of its lane are
// delivered all the same.
func TestSpoolingFullAndRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 1<<20)
		r := newRig(t, Config{Spool: sp, BatchBytes: 10 << 10, ParkedBytes: DefaultBatchesPerLane * nearFactor * 10 << 10})
		r.setPush(down)
		a, b := newSource(1, 0), newSource(2, 0)
		written := 0
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for { // until the spool is full and the lane, too
			batch, err := r.Reserve(ctx, 0)
			if err != nil {
				break
			}
			r.fill(batch, a, noise(fmt.Sprintf("a%d", written), 4<<10))
			r.fill(batch, b, noise(fmt.Sprintf("b%d", written), 6<<10))
			written++
			r.Submit(0, batch)
		}
		if h := sp.Health(); h.State != spool.Full || h.Records < 100 {
			t.Fatalf("%+v", h)
		}
		refuse := func(ctx context.Context, batch *entry.Batch) entry.Outcome {
			setParts(batch, entry.PartHeld, func(s *entry.Section, _ entry.Class) bool { return s.Source.Name == "c1" })
			out := r.takeAll(ctx, batch)
			out.Err = errors.New("429")
			return out
		}
		r.setPush(refuse)
		names := func(prefix string) (n int) {
			for _, l := range r.delivered() {
				if strings.HasPrefix(l, "o:"+prefix+fmt.Sprint(n)+" ") {
					n++
				}
			}
			return n
		}
		passTime(3 * time.Minute)
		if n := names("b"); n != written {
			t.Fatalf("%d lines of %d of the other stream are delivered, %+v", n, written, sp.Health())
		}
		for i := range 10 {
			r.send(b, noise(fmt.Sprintf("b%d", written+i), 100))
			passTime(time.Minute)
		}
		passTime(46 * time.Minute)
		if n := names("b"); n != written+10 || names("a") != 0 {
			t.Errorf("%d lines of %d are delivered, %d that are refused", n, written, names("a"))
		}
		r.setPush(r.takeAll)
		passTime(5 * time.Minute)
		if n := names("a"); n != written || sp.Health().Frames != 0 || a.Held.Load() {
			t.Errorf("%d lines of %d are delivered in order, %+v", n, written, sp.Health())
		}
	})
}

// After a restart it is known which streams are aside: their newer lines wait, and
// those of others do not.
func TestSpoolingAsideRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		sp := openSpool(t, dir, 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(down)
		a, b := newSource(1, 0), newSource(2, 0)
		for i := range 3 {
			r.send(a, fmt.Sprintf("o:a%d", i))
			r.send(b, fmt.Sprintf("o:b%d", i))
			passTime(3 * time.Second)
		}
		refuse := func(r *rig) func(context.Context, *entry.Batch) entry.Outcome {
			return func(ctx context.Context, batch *entry.Batch) entry.Outcome {
				setParts(batch, entry.PartHeld, func(s *entry.Section, _ entry.Class) bool { return s.Source.Name == "c1" })
				out := r.takeAll(ctx, batch)
				out.Err = errors.New("429")
				return out
			}
		}
		r.setPush(refuse(r))
		passTime(time.Minute)
		if !sp.Lane(0).Empty() || sp.Lane(1).Empty() {
			t.Fatalf("%+v", sp.Health())
		}
		r.stop()
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
		sp = openSpool(t, dir, 0)
		// Only what comes out of the spool is refused.
		store := &rig{}
		r = newRigOn(t, Config{Spool: sp}, func(ctx context.Context, batch *entry.Batch, _ func(context.Context)) entry.Outcome {
			if batch.Sections[0].Source.Log == 0 {
				return refuse(store)(ctx, batch)
			}
			return store.takeAll(ctx, batch)
		})
		a, b = newSource(1, 0), newSource(2, 0)
		passTime(time.Second)
		r.send(a, "o:a3")
		r.send(b, "o:b3")
		passTime(time.Minute)
		if got := strings.Join(store.delivered(), " "); got != "o:b3" || !a.Held.Load() {
			t.Errorf("%s, held: %v", got, a.Held.Load())
		}
		r.setPush(store.takeAll)
		passTime(2 * time.Minute)
		if got := strings.Join(store.delivered(), " "); got != "o:b3 o:a0 o:a1 o:a2 o:a3" || a.Held.Load() {
			t.Errorf("%s", got)
		}
		r.send(a, "o:a4")
		passTime(time.Second)
		if n := a.Stats.Delivered.Load(); n != 2 {
			t.Errorf("%d lines went directly at the end", n)
		}
	})
}

// A stream that is refused when only lines refused for good are left of it has nothing
// in the side, and what follows does not wait.
func TestSpoolingAsideNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(down)
		src := newSource(1, 0)
		r.send(src, "o:bad")
		passTime(2 * time.Second)
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			if b.Lines[0].Flags&entry.FlagRefused == 0 && string(b.Message(&b.Lines[0])) == "o:bad" {
				b.Lines[0].Flags |= entry.FlagRefused
				b.Refusals = append(b.Refusals, entry.Refusal{Reason: "no"})
				b.Sections[0].State[entry.ClassStdout] = entry.PartHeld
				return entry.Outcome{Err: errors.New("429")}
			}
			return r.takeAll(ctx, b)
		})
		passTime(time.Minute)
		r.send(src, "o:good")
		passTime(time.Minute)
		if got := r.delivered(); !slices.Equal(got, []string{"o:good"}) || src.Held.Load() || sp.Health().Frames != 0 {
			t.Errorf("%q, held: %v, %+v", got, src.Held.Load(), sp.Health())
		}
	})
}
