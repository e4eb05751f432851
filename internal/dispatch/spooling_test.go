package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

var errDown = errors.New("store is down")

func down(_ context.Context, _ *entry.Batch) entry.Outcome { return entry.Outcome{Err: errDown} }

// openSpool opens a spool that is closed at the test's end.
func openSpool(t *testing.T, dir string, maxBytes int64) *spool.Spool {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: dir, Lanes: SpoolLanes(1), MaxBytes: maxBytes, MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// pass lets time go by.
func passTime(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) delivered() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.took)
}

// wantProcessed compares what was counted of lines from files.
func (r *rig) wantProcessed(spooled, delivered, deadLettered float64) {
	r.t.Helper()
	m := r.metrics.file
	for _, c := range []struct {
		name string
		c    prometheus.Counter
		want float64
	}{{"spooled", m.spooled, spooled}, {"delivered", m.delivered, delivered}, {"dead_lettered", m.deadLettered, deadLettered}} {
		if got := testutil.ToFloat64(c.c); got != c.want {
			r.t.Errorf("%v lines are counted as %s, want %v", got, c.name, c.want)
		}
	}
}

// takeAll is a store that notes what it takes.
func (r *rig) takeAll(_ context.Context, b *entry.Batch) entry.Outcome {
	eachPending(b, func(_ *entry.Section, l *entry.Line) {
		r.mu.Lock()
		r.took = append(r.took, string(b.Message(l)))
		r.mu.Unlock()
	})
	return acceptAll(b)
}

func TestSpoolingOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		live := &entry.Stats{}
		r := newRig(t, Config{Spool: sp, Stats: func(string, string) *entry.Stats { return live }})
		r.setPush(down)
		src := newSource(1, 0)
		r.send(src, "o:1", "e:2")
		passTime(500 * time.Millisecond)
		if got := r.ackedSpans(); got != "" {
			t.Errorf("acknowledged before the second was over: %s", got)
		}
		passTime(4 * time.Second)
		if got := r.ackedSpans(); got != "1/stdout/1 1/stderr/1" {
			t.Errorf("acknowledged: %q", got)
		}
		for i := range 20 { // more than fit into the lane: nobody waits
			r.send(src, fmt.Sprintf("o:%d", 3+i))
			passTime(200 * time.Millisecond)
		}
		if h := sp.Health(); h.Records != 22 {
			t.Errorf("%+v", h)
		}
		if h := r.Health()[0]; h.FailingSince.IsZero() || h.LastError != errDown.Error() {
			t.Errorf("%+v", h)
		}
		// Also the one after which the lines went to the spool; not what went there at once.
		if n := testutil.ToFloat64(r.metrics.failed); n != float64(len(r.sent())) {
			t.Errorf("%v failed attempts counted of %d", n, len(r.sent()))
		}
		if n := src.Stats.Delivered.Load(); n != 0 {
			t.Errorf("%d lines delivered", n)
		}
		r.wantProcessed(22, 0, 0)
		if n := r.said("what is read goes to the spool"); n != 1 {
			t.Errorf("said %d times:\n%s", n, r.logs)
		}
		r.setPush(r.takeAll)
		passTime(time.Minute)
		want := []string{"o:1", "e:2"}
		for i := range 20 {
			want = append(want, fmt.Sprintf("o:%d", 3+i))
		}
		if got := r.delivered(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if h := sp.Health(); h.State != spool.Empty || live.Delivered.Load() != 22 {
			t.Errorf("%+v, %d delivered", h, live.Delivered.Load())
		}
		if h := r.Health()[0]; !h.FailingSince.IsZero() || h.PendingBytes != 0 {
			t.Errorf("%+v", h)
		}
		// The memory of the outage is given back.
		l := r.spooling.lanes[0]
		warm := cap(l.in) + cap(l.out) + cap(l.scratch.Text)
		for _, sl := range r.spooling.back.lanes[0].free {
			warm += cap(sl.Text)
		}
		if warm != 0 || len(r.spooling.back.lanes[0].free) == 0 {
			t.Errorf("%d bytes are kept", warm)
		}
		// Directly again.
		r.send(src, "o:last")
		passTime(time.Second)
		if h := sp.Health(); h.Records != 0 || src.Stats.Delivered.Load() != 1 {
			t.Errorf("%+v", h)
		}
		if r.said("spool is drained") != 1 {
			t.Errorf("the recovery is not told:\n%s", r.logs)
		}
		r.wantProcessed(22, 23, 0)
	})
}

// TestSpoolDrainsInLargeBatches: what an outage has left goes to a store that is far away in batches of many
// frames.
func TestSpoolDrainsInLargeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Spool: openSpool(t, t.TempDir(), 0)})
		r.setPush(down)
		src := newSource(1, 0)
		const frames = 20
		for range frames {
			r.send(src, "o:"+strings.Repeat("x", DefaultBatchBytes))
			passTime(2 * time.Second)
		}
		largest, pushes := 0, 0
		r.setPush(farAway(50*time.Millisecond, func(_ context.Context, b *entry.Batch) entry.Outcome {
			largest = max(largest, b.Size())
			pushes++
			return acceptAll(b)
		}))
		passTime(time.Minute)
		r.wantProcessed(frames, frames, 0)
		if largest < mostFromSpool || largest > mostFromSpool+2*DefaultBatchBytes {
			t.Errorf("the largest batch has %d bytes", largest)
		}
		if pushes > frames/2 {
			t.Errorf("%d frames took %d pushes", frames, pushes)
		}
	})
}

// TestSilentStoreGetsSmallBatches: what a store may have that was quick is not what one gets that has
// fallen silent, although the spool takes all and nothing fails.
func TestSilentStoreGetsSmallBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Spool: openSpool(t, t.TempDir(), 0)})
		r.setPush(farAway(50*time.Millisecond, r.takeAll))
		src := newSource(1, 0)
		limit := func() int {
			r.lanes[0].mu.Lock()
			defer r.lanes[0].mu.Unlock()
			return r.lanes[0].limit
		}
		for range 20 {
			r.send(src, "o:"+strings.Repeat("x", limit()))
			passTime(time.Second)
		}
		if n := limit(); n <= 2*DefaultBatchBytes {
			t.Fatalf("a batch may have %d bytes", n)
		}
		r.setPush(func(ctx context.Context, _ *entry.Batch) entry.Outcome {
			<-ctx.Done()
			return entry.Outcome{Err: ctx.Err()}
		})
		r.send(src, "o:1")
		passTime(5 * time.Second)
		if n := limit(); n != DefaultBatchBytes {
			t.Errorf("a batch may have %d bytes", n)
		}
		r.setPush(nil)
		passTime(time.Hour)
	})
}

// TestSecondOutageIsTold: one that begins soon after another was told of is told of, too, when it lasts.
func TestSecondOutageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Spool: openSpool(t, t.TempDir(), 0)})
		src := newSource(1, 0)
		n := 0
		run := func(seconds int) {
			for range seconds {
				n++
				r.send(src, fmt.Sprint("o:", n))
				passTime(time.Second)
			}
		}
		for outage := range 2 {
			r.setPush(down)
			run(8)
			if said := r.said("what is read goes to the spool"); said != outage+1 {
				t.Errorf("outage %d: said %d times:\n%s", outage, said, r.logs)
			}
			r.setPush(r.takeAll)
			run(15)
			if said := r.said("spool is drained"); said != outage+1 {
				t.Errorf("outage %d: its end was said %d times:\n%s", outage, said, r.logs)
			}
		}
		passTime(time.Minute)
		if got := len(r.delivered()); got != n {
			t.Errorf("%d lines of %d", got, n)
		}
	})
}

// TestTakenLinesAreProgress: of a stream that is refused each time after some lines were taken the pauses
// stay short.
func TestTakenLinesAreProgress(t *testing.T) {
	for _, state := range []entry.PartState{entry.PartHeld, entry.PartPending} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{})
			var lines []string
			for i := range 20 {
				lines = append(lines, fmt.Sprint("o:", i))
			}
			tries := 0
			r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
				tries++
				took := 0
				eachPending(b, func(_ *entry.Section, l *entry.Line) {
					if took < 2 {
						took++
						l.Flags |= entry.FlagTaken
						b.Taken = true
					}
				})
				if tries == 10 {
					return acceptAll(b)
				}
				setParts(b, state, all)
				return entry.Outcome{Err: errDown, Took: true}
			})
			r.send(newSource(1, 0), lines...)
			passTime(10 * pauseMin * 2)
			if tries != 10 {
				t.Errorf("state %v: %d tries", state, tries)
			}
			passTime(time.Minute)
		})
	}
}

// TestSpoolingAsideFull: what cannot go aside, for want of room, is held for the lines that it waits for.
func TestSpoolingAsideFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(r.takeAll)
		waits, goes := newSource(1, 0), newSource(2, 0)
		r.spooling.lanes[0].noteAside([]string{waits.Labels[entry.ClassStdout].String()}, 1)
		if err := sp.Close(); err != nil { // as if it were full
			t.Fatal(err)
		}
		for _, others := range []bool{false, true} {
			var b entry.Batch
			r.fill(&b, waits, "o:waits")
			if others {
				r.fill(&b, goes, "o:goes")
			}
			out := fromSpool{r.spooling}.Push(t.Context(), &b, nil)
			if !errors.Is(out.Err, errAside) || out.Kept || b.Sections[0].State[entry.ClassStdout] != entry.PartHeld {
				t.Errorf("with others %v: %+v, state %v", others, out, b.Sections[0].State)
			}
		}
		if got := r.delivered(); !slices.Equal(got, []string{"o:goes"}) {
			t.Errorf("delivered: %q", got)
		}
		clear(r.spooling.lanes[0].aside)
	})
}

// TestSpoolingGoroutines: nothing runs for a spool that was never used; one that an
// earlier agent has left something in is drained from the start.
func TestSpoolingGoroutines(t *testing.T) {
	readers := func() int {
		synctest.Wait()
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "dispatch.(*spooling).read(")
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, dir, 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(r.takeAll)
		r.send(newSource(1, 0), "o:1")
		passTime(time.Second)
		if n := readers(); n != 0 || len(r.delivered()) != 1 {
			t.Errorf("%d goroutines read an empty spool", n)
		}
		r.setPush(down)
		r.send(newSource(2, 0), "o:2")
		passTime(10 * time.Second)
		if n := readers(); n != SpoolLanes(1) || sp.Health().Records != 1 {
			t.Errorf("%d goroutines read the spool", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Spool: openSpool(t, dir, 0)})
		passTime(time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.pushes) != 1 || !slices.Equal(r.pushes[0].lines, []string{"o:2"}) {
			t.Errorf("%+v", r.pushes)
		}
	})
}

// TestSpoolingHeldAndDown has the store refuse the first part of a stream and then fail
// before it has said anything of the second: that must not get to the spool, and from
// there to the store, before the first.
func TestSpoolingHeldAndDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
			for i := range b.Sections {
				if b.Sections[i].State[entry.ClassStdout] == entry.PartPending {
					b.Sections[i].State[entry.ClassStdout] = entry.PartHeld
					break
				}
			}
			return entry.Outcome{Err: errDown, RetryAfter: spoolAfter}
		})
		src := newSource(1, 0)
		r.send(src, "o:1")
		r.send(src, "o:2")
		passTime(10 * time.Second)
		r.setPush(r.takeAll)
		passTime(2 * time.Minute)
		if got := r.delivered(); !slices.Equal(got, []string{"o:1", "o:2"}) {
			t.Errorf("%q", got)
		}
	})
}

// What was spooled comes first after a restart, in order, and each frame stays
// until all of it is done.
func TestSpoolingRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		sp := openSpool(t, dir, 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(down)
		src := newSource(1, 0)
		for i := range 5 {
			r.send(src, fmt.Sprintf("o:%d", i))
			passTime(3 * time.Second)
		}
		r.stop()
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
		sp = openSpool(t, dir, 0)
		var mu sync.Mutex
		var took []string
		r = newRigOn(t, Config{Spool: sp}, func(_ context.Context, b *entry.Batch, _ func(context.Context)) entry.Outcome {
			mu.Lock()
			defer mu.Unlock()
			eachPending(b, func(_ *entry.Section, l *entry.Line) { took = append(took, string(b.Message(l))) })
			return acceptAll(b)
		})
		r.send(newSource(9, 0), "o:new")
		passTime(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(took, " "); got != "o:0 o:1 o:2 o:3 o:4 o:new" {
			t.Errorf("%s", got)
		}
		if h := sp.Health(); h.Frames != 0 {
			t.Errorf("%+v", h)
		}
	})
}

// A store that hangs is cut off when the dispatcher is drained, and what it did
// not take is kept; so it is in a long pause after failures.
func TestSpoolingDrain(t *testing.T) {
	for _, paused := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sp := openSpool(t, t.TempDir(), 0)
			r := newRig(t, Config{Spool: sp})
			if paused {
				r.setPush(func(context.Context, *entry.Batch) entry.Outcome {
					return entry.Outcome{Err: errDown, RetryAfter: time.Minute}
				})
			} else {
				r.setPush(func(ctx context.Context, _ *entry.Batch) entry.Outcome {
					<-ctx.Done()
					return entry.Outcome{Err: ctx.Err()}
				})
			}
			src := newSource(1, 0)
			r.send(src, "o:1")
			passTime(300 * time.Millisecond)
			r.send(src, "o:2")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := r.Drain(ctx); err != nil {
				t.Error(err)
			}
			if h := sp.Health(); h.Records != 2 || r.ackedSpans() != "1/stdout/1 1/stdout/2" {
				t.Errorf("paused: %v: %+v, %s", paused, h, r.ackedSpans())
			}
		})
	}
}

// So is a stream that the store refuses alone.
func TestSpoolingDrainRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
			setParts(b, entry.PartHeld, all)
			return entry.Outcome{Err: errors.New("429"), RetryAfter: time.Minute}
		})
		src := newSource(1, 0)
		r.send(src, "o:1")
		passTime(time.Second)
		r.send(src, "o:2") // was read before
		passTime(time.Second)
		began := time.Now()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if h := sp.Health(); h.Records != 2 || r.ackedSpans() != "1/stdout/1 1/stdout/2" || time.Since(began) > 2*time.Second {
			t.Errorf("%+v, %s, after %v", h, r.ackedSpans(), time.Since(began))
		}
	})
}

// A full spool takes nothing: the batches wait, and nothing is lost.
func TestSpoolingFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 1)
		r := newRig(t, Config{Spool: sp})
		r.setPush(down)
		src := newSource(1, 0)
		r.send(src, "o:1")
		passTime(time.Minute)
		if h := sp.Health(); h.State != spool.Full || !errors.Is(h.Full, spool.ErrFull) || r.ackedSpans() != "" {
			t.Errorf("%+v, %s", h, r.ackedSpans())
		}
		if h := r.Health()[0]; h.LastError != errDown.Error() {
			t.Errorf("%+v", h)
		}
		if n := testutil.ToFloat64(r.metrics.failed); n != float64(len(r.sent())) {
			t.Errorf("%v failed attempts counted of %d", n, len(r.sent()))
		}
		r.setPush(r.takeAll)
		passTime(time.Minute)
		if got := r.delivered(); !slices.Equal(got, []string{"o:1"}) || r.ackedSpans() != "1/stdout/1" {
			t.Errorf("%q, %s", got, r.ackedSpans())
		}
	})
}

// TestTakenLines: a line that the store has taken, of a part that it has not, is not sent again and
// counts once, whether the rest waits in its lane, alone, in the spool or aside there.
func TestTakenLines(t *testing.T) {
	for name, c := range map[string]struct {
		spool, held, drained bool
		spooled              float64
	}{
		"in its lane": {},
		"held":        {held: true},
		"spool":       {spool: true, spooled: 2},
		"aside":       {spool: true, drained: true, held: true, spooled: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Config{}
				live := &entry.Stats{}
				if c.spool {
					cfg.Spool, cfg.Stats = openSpool(t, t.TempDir(), 0), func(string, string) *entry.Stats { return live }
				}
				r := newRig(t, cfg)
				src := newSource(1, 0)
				some := func(_ context.Context, b *entry.Batch) entry.Outcome {
					left := 0
					eachPending(b, func(_ *entry.Section, l *entry.Line) {
						if text := string(b.Message(l)); text == "o:1" {
							r.mu.Lock()
							r.took = append(r.took, text)
							r.mu.Unlock()
							l.Flags |= entry.FlagTaken
							b.Taken = true
						} else {
							left++
						}
					})
					if left != 2 {
						t.Errorf("%d lines are left", left)
					}
					if c.held {
						setParts(b, entry.PartHeld, all)
					}
					return entry.Outcome{Err: errDown}
				}
				if c.drained {
					r.setPush(down)
				} else {
					r.setPush(some)
				}
				r.send(src, "o:1", "o:2", "o:3")
				passTime(5 * time.Second)
				r.setPush(some)
				passTime(30 * time.Second)
				r.setPush(r.takeAll)
				passTime(5 * time.Minute)
				if got := strings.Join(r.delivered(), " "); got != "o:1 o:2 o:3" {
					t.Errorf("sent %s", got)
				}
				r.wantProcessed(c.spooled, 3, 0)
				if n := src.Stats.Delivered.Load() + live.Delivered.Load(); n != 3 {
					t.Errorf("%d lines delivered", n)
				}
				if h := r.Health()[0]; h.PendingBytes != 0 || h.ParkedBytes != 0 || h.HeldStreams != 0 || src.Held.Load() {
					t.Errorf("%+v", h)
				}
				if c.spool && cfg.Spool.Health().State != spool.Empty {
					t.Errorf("%+v", cfg.Spool.Health())
				}
			})
		})
	}
}

// Of what comes from the spool a refused stream waits alone, and a line refused
// for good is a dead letter.
func TestSpoolingRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := openSpool(t, t.TempDir(), 0)
		r := newRig(t, Config{Spool: sp})
		r.setPush(down)
		a, b := newSource(1, 0), newSource(2, 0)
		for i := range 4 {
			r.send(a, fmt.Sprintf("o:a%d", i))
			r.send(b, fmt.Sprintf("o:b%d", i), "e:bad")
			passTime(3 * time.Second)
		}
		held := true
		r.setPush(func(ctx context.Context, batch *entry.Batch) entry.Outcome {
			for i := range batch.Sections {
				s := &batch.Sections[i]
				for k := range batch.SectionLines(s) {
					l := &batch.SectionLines(s)[k]
					if string(batch.Message(l)) == "e:bad" && s.State[l.Class] == entry.PartPending && l.Flags&entry.FlagRefused == 0 {
						l.Flags |= entry.FlagRefused
						batch.Refusals = append(batch.Refusals, entry.Refusal{Section: i, Line: s.First + k, Reason: "no"})
					}
				}
			}
			r.mu.Lock()
			hold := held
			r.mu.Unlock()
			if hold {
				setParts(batch, entry.PartHeld, func(s *entry.Section, _ entry.Class) bool { return s.Source.Name == "c1" })
			}
			out := r.takeAll(ctx, batch)
			if hold {
				out.Err = errors.New("429")
			}
			return out
		})
		passTime(time.Minute)
		if got := strings.Join(r.delivered(), " "); got != "o:b0 o:b1 o:b2 o:b3" {
			t.Errorf("%s", got)
		}
		if h := r.Health()[0]; h.HeldStreams != 1 || sp.Health().Frames == 0 || !sp.Lane(0).Empty() || sp.Lane(1).Empty() {
			t.Errorf("%+v, %+v", h, sp.Health())
		}
		// What comes from its reader is held; the others go directly.
		r.send(a, "o:a4")
		r.send(b, "o:b4")
		passTime(10 * time.Second)
		if !a.Held.Load() || b.Held.Load() {
			t.Errorf("held: %v, %v", a.Held.Load(), b.Held.Load())
		}
		if n := testutil.ToFloat64(r.metrics.holds); n != 2 { // of the side, and of the readers
			t.Errorf("%v holds counted", n)
		}
		r.mu.Lock()
		held = false
		r.mu.Unlock()
		passTime(3 * time.Minute)
		if got := strings.Join(r.delivered(), " "); got != "o:b0 o:b1 o:b2 o:b3 o:b4 o:a0 o:a1 o:a2 o:a3 o:a4" {
			t.Errorf("%s", got)
		}
		if a.Held.Load() {
			t.Error("still held")
		}
		r.mu.Lock()
		dead := len(r.dead)
		r.mu.Unlock()
		if dead != 4 || sp.Health().Frames != 0 {
			t.Errorf("%d dead letters, %+v", dead, sp.Health())
		}
		r.wantProcessed(12, 10, 4) // what went aside went there once, as counted
	})
}

// TestModelSpooling lets the store fail and come back, hang, be slow, refuse one of two
// streams, lines come from files with a name or without, and the agent be killed, in any
// order. As long as the spool has room, nothing waits in memory but what is refused
// alone; of that what is unlinked does not. While one stream is refused the other arrives, full spool or not.
// At the end every line that was acknowledged or sent since has been delivered, each
// stream's in order but for what was sent twice.
func TestModelSpooling(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// rapid must not be stopped from within a bubble.
		steps := make([]spoolingStep, rapid.IntRange(1, 40).Draw(rt, "steps"))
		for i := range steps {
			steps[i] = spoolingStep{
				do: rapid.IntRange(0, 14).Draw(rt, "step"), source: rapid.IntRange(0, 1).Draw(rt, "source"),
				size: rapid.IntRange(0, 100).Draw(rt, "size"), ms: rapid.IntRange(1, 5000).Draw(rt, "ms"),
			}
		}
		small := rapid.IntRange(0, 3).Draw(rt, "small spool") == 0
		var failure string
		synctest.Test(t, func(t *testing.T) { failure = modelSpooling(t, steps, small) })
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

type spoolingStep struct{ do, source, size, ms int }

// modelStore is the store of the model. It is down, or hangs until its time-out, or
// takes its time; refuses one stream, or takes one part and fails then.
type modelStore struct {
	mu                              sync.Mutex
	up, hang, slow, refuse, partial bool
	took                            map[string][]int
}

func (m *modelStore) push(ctx context.Context, b *entry.Batch, _ func(context.Context)) entry.Outcome {
	m.mu.Lock()
	wait, answer := time.Duration(0), !m.hang
	switch {
	case m.hang:
		wait = 10 * time.Second
	case m.slow:
		wait = 1500 * time.Millisecond
	}
	m.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done(): // it takes them all the same
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.up || !answer {
		return down(ctx, b)
	}
	var out entry.Outcome
	if m.refuse {
		setParts(b, entry.PartHeld, func(s *entry.Section, _ entry.Class) bool { return s.Source.Name == "c2" })
		out.Err = errors.New("429")
	}
	taken := false
	for i := range b.Sections {
		s := &b.Sections[i]
		if s.State[entry.ClassStdout] != entry.PartPending {
			continue
		}
		if taken && m.partial {
			out.Err = errDown
			break
		}
		taken = true
		for _, l := range b.SectionLines(s) {
			var n int
			if _, err := fmt.Sscanf(string(b.Message(&l)), "o:%d", &n); err != nil {
				n = -1 // is missed
			}
			m.took[s.Source.Name] = append(m.took[s.Source.Name], n)
		}
		if ctx.Err() == nil {
			s.State[entry.ClassStdout] = entry.PartAccepted
		}
	}
	out.Err = cmp.Or(out.Err, ctx.Err())
	return out
}

func (m *modelStore) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// distinct is how many lines of a container have come.
func (m *modelStore) distinct(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[int]bool{}
	for _, n := range m.took[name] {
		seen[n] = true
	}
	return len(seen)
}

func modelSpooling(t *testing.T, steps []spoolingStep, small bool) (failure string) {
	dir, err := os.MkdirTemp("", "lc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store := &modelStore{up: true, took: map[string][]int{}}
	maxBytes, lineBytes := int64(0), 1
	if small { // the least that is cut into segments
		maxBytes, lineBytes = 1<<20, 600
	}
	var sp *spool.Spool
	var r *rig
	start := func() {
		if sp, err = spool.Open(spool.Config{Dir: dir, Lanes: SpoolLanes(1), MaxBytes: maxBytes, MinFreeBytes: -1}); err != nil {
			t.Fatal(err)
		}
		r = newRigOn(t, Config{Spool: sp, BatchBytes: 200, BatchWait: time.Nanosecond}, store.push)
	}
	stop := func() {
		r.stop()
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
	}
	start()
	sources := []*entry.Source{newSource(1, 0), newSource(2, 0)}
	var written, acked [2]int // lines; those that are not acknowledged at a kill are sent again
	count := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, span := range r.acked {
			acked[span.Log-1]++
		}
		r.acked = nil
	}
	for _, step := range steps {
		k := step.source
		switch step.do {
		case 0, 1, 2, 3, 4, 5:
			if sources[k].Held.Load() {
				break
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			b, err := r.Reserve(ctx, 0)
			cancel()
			if err != nil {
				break // no room
			}
			r.fill(b, sources[k], noise(fmt.Sprint(written[k]), step.size*lineBytes))
			written[k]++
			r.Submit(0, b)
		case 6, 7:
			store.set(func() { store.up = !store.up })
		case 8:
			if k == 0 {
				store.set(func() { store.refuse = !store.refuse })
			} else {
				store.set(func() { store.partial = !store.partial })
			}
		case 9:
			if k == 0 {
				store.set(func() { store.hang = !store.hang })
			} else {
				store.set(func() { store.slow = !store.slow })
			}
		case 10:
			passTime(time.Duration(step.ms) * time.Millisecond)
		case 11, 12:
			unlinked := sources[k].Unlinked.Load()
			passTime(20 * time.Second)
			count()
			for j, src := range sources {
				if !small && acked[j] != written[j] && (!src.Held.Load() || j == k && unlinked) {
					stop()
					return fmt.Sprintf("%d lines of %d of c%d are acknowledged after 20 seconds, unlinked: %v", acked[j], written[j], j+1, src.Unlinked.Load())
				}
			}
		case 13:
			sources[k].Unlinked.Store(!sources[k].Unlinked.Load())
		case 14: // kill
			stop()
			count()
			written = acked
			sources = []*entry.Source{newSource(1, 0), newSource(2, 0)}
			start()
		}
	}
	store.set(func() {
		store.up, store.hang, store.slow, store.refuse, store.partial = true, false, false, true, false
	})
	passTime(3 * time.Minute)
	if n := store.distinct("c1"); n < written[0] {
		stop()
		return fmt.Sprintf("%d lines of %d have arrived while the other stream is refused", n, written[0])
	}
	store.set(func() { store.refuse = false })
	passTime(5 * time.Minute)
	count()
	empty := sp.Health().Frames == 0
	stop()
	if acked != written || !empty {
		return fmt.Sprintf("%d lines of %d are acknowledged, spool empty: %v", acked, written, empty)
	}
	for k, name := range []string{"c1", "c2"} {
		seen := map[int]bool{}
		for _, n := range store.took[name] {
			if n > 0 && !seen[n-1] {
				return fmt.Sprintf("%s: line %d came before line %d: %v", name, n, n-1, store.took[name])
			}
			seen[n] = true
		}
		if len(seen) < written[k] {
			return fmt.Sprintf("%s: %d lines of %d have arrived: %v", name, len(seen), written[k], store.took[name])
		}
	}
	return ""
}

// A frame that cannot be read back is counted, said, kept, and holds up nobody.
func TestSpoolingUnreadableFrame(t *testing.T) {
	t.Run("of a newer agent", func(t *testing.T) { unreadableFrame(t, "\xffof another agent", ".unknown-version") })
	t.Run("damaged", func(t *testing.T) { unreadableFrame(t, "\x02", ".lost-frames") })
}

func unreadableFrame(t *testing.T, payload, kind string) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		sp := openSpool(t, dir, 0)
		if err := sp.Lane(0).Append(spool.Frame{Payload: []byte(payload), Records: 3, Oldest: 1}); err != nil {
			t.Fatal(err)
		}
		reg := prometheus.NewRegistry()
		r := newRig(t, Config{Spool: sp, Registerer: reg})
		r.send(newSource(1, 0), "o:1")
		passTime(time.Minute)
		if got := r.sent(); !slices.Equal(got, []string{"o:1"}) || sp.Health().Frames != 0 {
			t.Errorf("%q, %+v", got, sp.Health())
		}
		const want = `
# HELP log_capturer_lost_lines_total Lines that had been read and were lost, by reason.
# TYPE log_capturer_lost_lines_total counter
log_capturer_lost_lines_total{reason="spool_unreadable"} 3
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "log_capturer_lost_lines_total"); err != nil {
			t.Error(err)
		}
		if n := r.said("frame of the spool cannot be read back"); n != 1 {
			t.Errorf("said %d times:\n%s", n, r.logs)
		}
		kept := "lane-0/0000000000000001.seg" + kind
		if n := r.said("kept_as=" + kept); n != 1 {
			t.Errorf("%s is named %d times:\n%s", kept, n, r.logs)
		}
		if _, err := os.Stat(filepath.Join(dir, "spool", kept)); err != nil {
			t.Error(err)
		}
	})
}
