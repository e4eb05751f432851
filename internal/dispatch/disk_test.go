package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

// openSpoolOn opens a spool on a disk in memory, and closes it at the test's end.
func openSpoolOn(t *testing.T, d *disktest.Disk) *spool.Spool {
	t.Helper()
	s, err := spool.Open(spool.Config{Files: d.Mount(), Lanes: SpoolLanes(1), MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// What a full disk has kept out of the spool in an outage gets in when there is room, and
// is forgotten: long after it a store that takes its time is not cut sooner for it.
func TestSpoolingPatienceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disktest.New()
		sp := openSpoolOn(t, d)
		r := newRig(t, Config{Spool: sp})
		r.setPush(func(ctx context.Context, b *entry.Batch) entry.Outcome {
			wait(ctx, 3*time.Second, nil)
			return down(ctx, b)
		})
		src := newSource(1, 0)
		d.Fill(0)
		r.send(src, "o:0")
		passTime(4300 * time.Millisecond) // in a pause after the second attempt
		d.Heal()
		r.setPush(down)
		passTime(time.Hour)
		if h := sp.Health(); h.Records != 1 {
			t.Fatalf("%+v", h)
		}
		r.setPush(r.takeAll)
		passTime(time.Minute)
		r.setPush(r.takesLong(400*time.Millisecond, true))
		r.send(src, "o:1")
		passTime(time.Minute)
		if got := r.delivered(); !slices.Equal(got, []string{"o:0", "o:1"}) || r.Health()[0].Slow {
			t.Errorf("%q, %+v", got, r.Health()[0])
		}
	})
}

// A disk that was full while it was needed, and is not needed any more, is not said to
// be full for ever.
func TestSpoolingFullNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disktest.New()
		sp := openSpoolOn(t, d)
		r := newRig(t, Config{Spool: sp})
		r.setPush(down)
		d.Fill(0)
		src := newSource(1, 0)
		r.send(src, "o:0")
		for range 300 { // as long as it is needed it is full
			passTime(time.Second)
			if h := sp.Health(); h.State != spool.Full && time.Since(r.started) > 2*time.Second {
				t.Fatalf("%+v", h)
			}
		}
		r.setPush(r.takeAll)
		d.Heal()
		passTime(5 * time.Minute)
		if h := sp.Health(); h.State != spool.Empty || !slices.Equal(r.delivered(), []string{"o:0"}) {
			t.Errorf("%+v, %q", h, r.delivered())
		}
	})
}

// The disk does not give back what is in the spool for less than an hour: nothing is
// lost, order holds, and it is said once.
func TestSpoolingDiskAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disktest.New()
		r := newRig(t, Config{Spool: openSpoolOn(t, d)})
		r.setPush(down)
		a, b := newSource(1, 0), newSource(2, 0)
		send := func(r *rig, n int) {
			r.send(a, fmt.Sprintf("o:a%d", n))
			r.send(b, fmt.Sprintf("o:b%d", n))
			passTime(3 * time.Second)
		}
		send(r, 0)
		send(r, 1)
		r.setPush(func(ctx context.Context, batch *entry.Batch) entry.Outcome {
			setParts(batch, entry.PartHeld, func(s *entry.Section, _ entry.Class) bool { return s.Source.Name == "c1" })
			out := r.takeAll(ctx, batch)
			out.Err = errors.New("429")
			return out
		})
		passTime(time.Minute) // a is in the side
		r.setPush(down)
		send(r, 2)
		r.stop()
		d.Kill()
		sp := openSpoolOn(t, d)
		d.Fail(disktest.Read)
		store := r
		a, b = newSource(1, 0), newSource(2, 0)
		r = newRigOn(t, Config{Spool: sp}, func(ctx context.Context, batch *entry.Batch, _ func(context.Context)) entry.Outcome {
			return store.takeAll(ctx, batch)
		})
		passTime(10 * time.Minute)
		r.send(a, "o:a2") // was held, and is read again
		send(r, 3)
		passTime(40 * time.Minute)
		if n := r.said("level=ERROR"); n < 1 || n > 2 {
			t.Errorf("%d errors:\n%s", n, r.logs)
		}
		d.Heal()
		passTime(2 * time.Minute)
		var of [2][]string
		for _, line := range store.delivered() {
			i := strings.IndexByte("ab", line[2])
			of[i] = append(of[i], line)
		}
		want := func(name string, n int) (all []string) {
			for i := range n {
				all = append(all, fmt.Sprintf("o:%s%d", name, i))
			}
			return all
		}
		if !slices.Equal(of[0], want("a", 4)) || !slices.Equal(of[1], want("b", 4)) {
			t.Errorf("%q\n%s", of, r.logs)
		}
		if h := sp.Health(); h.Frames != 0 {
			t.Errorf("%+v", h)
		}
	})
}

// If the disk does not give back for an hour which streams are in the side, the others go
// on; nothing is lost, and that newer lines may come first is said.
func TestSpoolingSideUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disktest.New()
		r := newRig(t, Config{Spool: openSpoolOn(t, d)})
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
			setParts(b, entry.PartHeld, all)
			return entry.Outcome{Err: errors.New("429")}
		})
		src := newSource(1, 0)
		src.Unlinked.Store(true)
		r.send(src, "o:0")
		passTime(time.Second)
		r.stop()
		d.Kill()
		sp := openSpoolOn(t, d)
		d.Fail(disktest.Read)
		r = newRig(t, Config{Spool: sp})
		r.setPush(r.takeAll)
		r.send(newSource(1, 0), "o:1")
		const said = "newer lines may be sent first"
		passTime(asidePatience - time.Minute)
		if n := r.said(said); n != 0 || sp.Health().Frames != 2 {
			t.Errorf("said %d times, %+v", n, sp.Health())
		}
		passTime(2 * time.Minute)
		d.Heal()
		passTime(time.Minute)
		got := r.delivered()
		slices.Sort(got)
		if n := r.said(said); n != 1 || !slices.Equal(got, []string{"o:0", "o:1"}) || sp.Health().Frames != 0 {
			t.Errorf("said %d times, %q, %+v", n, got, sp.Health())
		}
	})
}

// What the disk does not give back of the side is lost after an hour, and its stream
// goes on.
func TestSpoolingSideLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disktest.New()
		sp := openSpoolOn(t, d)
		r := newRig(t, Config{Spool: sp})
		r.setPush(func(_ context.Context, b *entry.Batch) entry.Outcome {
			setParts(b, entry.PartHeld, all)
			return entry.Outcome{Err: errors.New("429")}
		})
		d.Fail(disktest.Read)
		src := newSource(1, 0)
		src.Unlinked.Store(true)
		r.send(src, "o:0")
		passTime(2 * time.Hour)
		if h := sp.Health(); r.ackedSpans() != "1/stdout/1" || h.Frames != 0 {
			t.Errorf("acknowledged: %q, %+v", r.ackedSpans(), h)
		}
		d.Heal()
		r.setPush(r.takeAll)
		src.Unlinked.Store(false)
		r.send(src, "o:1")
		passTime(time.Minute)
		if got := r.delivered(); !slices.Equal(got, []string{"o:1"}) || src.Held.Load() {
			t.Errorf("%q, held: %v", got, src.Held.Load())
		}
	})
}

// The agent is killed in any write while one stream of what is in the spool goes aside and
// the other is delivered, or the power fails then: all that was acknowledged comes, and
// what comes for the first time comes in order.
func TestSpoolingKilledAnywhere(t *testing.T) {
	ends := 0
	for changes := 0; changes < 60; changes++ {
		for _, power := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				d := disktest.New()
				r := newRig(t, Config{Spool: openSpoolOn(t, d)})
				r.setPush(down)
				a, b := newSource(1, 0), newSource(2, 0)
				for i := range 4 {
					r.send(a, fmt.Sprintf("o:a%d", i))
					r.send(b, fmt.Sprintf("o:b%d", i))
					passTime(3 * time.Second)
				}
				d.DieAfter(changes, 50)
				refuses := time.Now().Add(20 * time.Second)
				r.setPush(func(ctx context.Context, batch *entry.Batch) entry.Outcome {
					if time.Now().Before(refuses) {
						setParts(batch, entry.PartHeld, func(s *entry.Section, _ entry.Class) bool { return s.Source.Name == "c1" })
					}
					out := r.takeAll(ctx, batch)
					out.Err = errors.New("429")
					return out
				})
				passTime(time.Minute)
				r.stop()
				if power {
					d.PowerLoss(func(_ string, n int) int { return n / 2 })
				} else {
					d.Kill()
				}
				d.Heal()
				store := r
				sp := openSpoolOn(t, d)
				r = newRigOn(t, Config{Spool: sp}, func(ctx context.Context, batch *entry.Batch, _ func(context.Context)) entry.Outcome {
					return store.takeAll(ctx, batch)
				})
				passTime(time.Minute)
				next := map[byte]int{}
				for _, line := range store.delivered() {
					if line == fmt.Sprintf("o:%c%d", line[2], next[line[2]]) {
						next[line[2]]++
					} else if n := int(line[3] - '0'); n > next[line[2]] {
						t.Errorf("killed after %d changes: %s before o:%c%d", changes, line, line[2], next[line[2]])
					}
				}
				if next['a'] != 4 || next['b'] != 4 || sp.Health().Frames != 0 {
					t.Errorf("killed after %d changes: %v, %+v\n%s", changes, next, sp.Health(), r.logs)
				}
				if len(store.delivered()) == 8 {
					ends++
				}
			})
		}
	}
	if ends == 0 || ends == 120 {
		t.Errorf("%d of 120 runs came to their end without a kill: the test proves nothing", ends)
	}
}
