package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

const (
	sampleEvery = 10 * time.Second
	bucketOf    = 5 * time.Minute
	// endEvery is about how long an agent lives in the first half of a soak. In the
	// second half it is not stopped: flatness needs a long life.
	endEvery = 5 * time.Minute
	// engineEvery is about how long dockerd lives.
	engineEvery = 7 * time.Minute
)

// sample is what the agent says of itself.
type sample struct {
	at                      time.Duration // since the soak began
	life                    int           // of the agent, from 1; 0: no sample
	goroutines, descriptors float64
	memory, heap            float64 // bytes: resident; at which the heap is collected
	spoolBytes, spoolLines  float64
	arrived                 int // lines accepted by the store so far
}

// soaking is a soak under way.
type soaking struct {
	w      *world
	o      options
	stdout io.Writer
	began  time.Time

	mu      sync.Mutex
	life    int // of the agent
	samples []sample
	faults  map[string]int
	events  []event
	ended   int // containers that have come and gone
}

// event is a fault, and when it began.
type event struct {
	at   time.Duration
	name string
}

// soak runs the agent for long, with containers that come and go, and a fault
// every few seconds.
func soak(ctx context.Context, stdout io.Writer, o options) (r result) {
	r.name = "soak"
	if o.report != "" { // better now than after an hour
		f, err := os.OpenFile(o.report, os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // it is for everybody
		if err != nil {
			fmt.Fprintln(stdout, err)
			return r
		}
		_ = f.Close()
	}
	s := &soaking{o: o, stdout: stdout, began: time.Now(), faults: make(map[string]int), life: 1}
	b := &bench{w: stdout}
	var good bool
	var before, after sample
	ok := b.run(func() {
		sc := scale{keep: func(a *harness.Agent) {
			if o.keep != "" {
				keepLog(a, filepath.Join(o.keep, "soak.log"))
			}
		}}
		w := newWorld(ctx, b, o.seed, sc, "", nil, harness.WithLiveRestore())
		s.w = w
		w.mayNever = true
		before = s.idle(sample{})
		s.populate()
		s.began = time.Now()
		s.loop()
		w.quiet()
		s.mu.Lock()
		s.ended = w.fleet.ended
		s.mu.Unlock()
		after = s.idle(before)
		r.f, good = w.finish()
	})
	r.took = time.Since(s.began)
	lives := judge(s.samples, o.duration)
	r.ok = ok && good
	for _, l := range lives {
		if !l.flat() {
			r.ok = false
		}
	}
	if !settled(before, after) {
		r.ok = false
	}
	if o.report != "" {
		if err := os.WriteFile(o.report, []byte(s.report(&r, lives, before, after)), 0o644); err != nil { //nolint:gosec // it is for everybody
			fmt.Fprintln(stdout, err)
			r.ok = false
		}
	}
	fmt.Fprintf(stdout, "without containers: goroutines %.0f, then %.0f; descriptors %.0f, then %.0f\n", before.goroutines, after.goroutines, before.descriptors, after.descriptors)
	for _, l := range lives {
		fmt.Fprintln(stdout, l.String())
	}
	fmt.Fprintln(stdout, r.String())
	return r
}

// How many more goroutines and descriptors an agent without containers may have
// after a soak than before it, when it had no connection to the store: it keeps up
// to four, and one or two more to the engine, each with two goroutines.
const (
	settledGoroutines  = 12
	settledDescriptors = 6
)

func settled(before, after sample) bool {
	return after.life != 0 && after.goroutines <= before.goroutines+settledGoroutines && after.descriptors <= before.descriptors+settledDescriptors
}

// idle removes all containers and samples the agent, when it has as little as
// before, or after some time.
func (s *soaking) idle(before sample) (now sample) {
	w := s.w
	if _, states, err := w.fleet.all(w.ctx); err == nil {
		for _, c := range states {
			if err := w.d.RemoveNow(w.ctx, c.ID); err != nil {
				w.tb.Error(err)
			}
		}
	}
	if before.life == 0 { // it has just started
		w.sleep(3 * time.Second)
		now, _ = s.sample()
		return now
	}
	// Connections to a store that was slow, up to sixteen of a lane, are kept for 90 s without a request
	// (internal/loki/connections.go).
	harness.Within(2*time.Minute, func() bool {
		now, _ = s.sample()
		return settled(before, now) || w.ctx.Err() != nil
	})
	return now
}

// sample asks the agent; false if it does not answer, or has been started anew
// meanwhile.
func (s *soaking) sample() (sample, bool) {
	life := s.lives(0)
	m, err := s.w.a.Scrape()
	if err != nil || s.lives(0) != life {
		return sample{}, false
	}
	return sample{
		at: time.Since(s.began), life: life, arrived: s.w.ledger.count(),
		goroutines: m["log_capturer_goroutines"], descriptors: m["log_capturer_open_fds"], memory: m["log_capturer_memory_bytes"],
		heap:       m["go_memstats_next_gc_bytes"],
		spoolBytes: m["log_capturer_spool_bytes"], spoolLines: m["log_capturer_spool_records"],
	}, true
}

// lives counts the agent's lives, and some more.
func (s *soaking) lives(more int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life += more
	return s.life
}

// recipe gives those of the long-lived containers: of twenty two have logs that
// rotate every few seconds, one has long lines, one is compressed, one is streamed.
func (s *soaking) recipe(i int) recipe {
	k := recipe{name: "soak", size: 150, stderrEvery: 5, maxSize: "200k", maxFile: 6}
	k.rate = float64(s.o.rate) / float64(s.o.containers) * (0.5 + float64(i%5)*0.25)
	switch i % 20 {
	case 3, 13:
		k.name, k.maxSize, k.maxFile = "tiny", "40k", 20
	case 7:
		k.name, k.compress = "packed", true
	case 17:
		k.name, k.driver, k.maxSize = "local", "local", ""
	case 11:
		k.name, k.kind, k.rate, k.maxSize = "long", lines.Long, max(0.2, k.rate/40), "1m"
	}
	return k
}

// populate starts the containers, lets others take their places when they end,
// and waits until all have been started once.
func (s *soaking) populate() {
	s.w.tb.Helper()
	w := s.w
	var slots []*slot
	for i := range s.o.containers {
		slots = append(slots, &slot{recipe: s.recipe(i)})
	}
	full := make(chan struct{})
	w.background.Go(func() { s.manage(w.churning, slots, full) })
	select {
	case <-full:
	case <-w.ctx.Done():
		w.tb.Fatal("interrupted")
	}
	for range 2 {
		w.churn(3*time.Second, false)
	}
}

// slot is a place for one container after the other.
type slot struct {
	recipe recipe
	w      *writer
	failed bool // it may not have been created, or started
}

// manage sees to it that each slot has a container that writes, until ctx ends.
// It closes full when all have.
func (s *soaking) manage(ctx context.Context, slots []*slot, full chan<- struct{}) {
	f := s.w.fleet
	var leaving []*writer // ended; their lines have not all arrived yet
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for first := true; ; first = false {
		for _, sl := range slots {
			if sl.w == nil && ctx.Err() == nil {
				life := time.Duration(f.between(120, 600)) * time.Second
				w, err := f.start(ctx, sl.recipe, max(1, int(sl.recipe.rate*life.Seconds())), false)
				sl.w, sl.failed = w, err != nil
			}
		}
		if first {
			close(full)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		_, states, err := f.all(ctx)
		if err != nil {
			continue // dockerd is down
		}
		for _, sl := range slots {
			if sl.w == nil {
				continue
			}
			c, known := states[sl.w.out.name]
			if (known && !c.Running) || (!known && sl.failed) {
				if f.close(ctx, sl.w, c, known) == nil {
					if known {
						sl.w.id = c.ID
						leaving = append(leaving, sl.w)
					}
					sl.w = nil
				}
			}
		}
		stay := leaving[:0]
		for _, w := range leaving {
			if !f.ledger.complete(w.out.name) || f.d.RemoveNow(ctx, w.id) != nil {
				stay = append(stay, w)
			}
		}
		leaving = stay
	}
}

// loop brings faults until the time is over, and samples the agent meanwhile.
func (s *soaking) loop() {
	w := s.w
	ctx, stop := context.WithCancel(w.ctx)
	var sampling sync.WaitGroup
	sampling.Go(func() { s.watch(ctx) })
	defer sampling.Wait()
	defer stop()

	w.flowing(s.o.rate)
	end := s.began.Add(s.o.duration)
	half := s.began.Add(s.o.duration / 2)
	nextEnd, nextEngine := time.Now().Add(w.between(time.Minute, endEvery)), time.Now().Add(w.between(time.Minute, engineEvery))
	for engine := 0; time.Now().Before(end); {
		switch now := time.Now(); {
		case now.After(nextEnd) && now.Before(half):
			nextEnd = now.Add(w.between(endEvery/2, endEvery*3/2))
			s.storeFails()
			s.lives(1)
			if w.random.IntN(2) == 0 {
				s.did("SIGKILL of the agent")
				w.kill(w.between(0, time.Second))
			} else {
				s.did("SIGTERM of the agent")
				w.restart()
			}
			w.sleep(w.between(0, 2*time.Second))
			w.fault(fault{})
		case now.After(nextEngine):
			nextEngine = now.Add(w.between(engineEvery/2, engineEvery*3/2))
			if engine++; engine%2 == 1 {
				s.did("SIGTERM of dockerd")
				w.d.Stop()
			} else {
				s.did("SIGKILL of dockerd")
				w.d.Kill9()
			}
			w.sleep(w.between(0, 2*time.Second))
			w.d.Start()
			w.sleep(5 * time.Second) // lines come after the hole
			if err := w.fleet.excuse(w.ctx); err != nil {
				w.tb.Error(err)
			}
		default:
			s.light()
		}
		w.sleep(w.between(500*time.Millisecond, 4*time.Second))
	}
}

// storeFails lets the store fail, and waits a little.
func (s *soaking) storeFails() {
	w := s.w
	all := storeFaults()
	f := all[w.random.IntN(len(all))]
	s.did("store: " + f.name)
	w.fault(f)
	w.sleep(w.between(time.Second, 6*time.Second))
}

// light does to the agent what happens often.
func (s *soaking) light() {
	w := s.w
	switch n := w.random.IntN(100); {
	case n < 4:
		s.did("SIGHUP of the agent")
		w.reload()
	case n < 10:
		s.did("SIGSTOP of the agent")
		w.a.Freeze()
		w.sleep(w.between(time.Second, 6*time.Second))
		w.a.Thaw()
	case n < 16:
		s.did("store: 400 for some lines")
		every := 50 + w.random.IntN(100)
		w.fault(fault{refuse: func(_ string, n int) bool { return n%every == 0 }})
		w.sleep(w.between(time.Second, 4*time.Second))
		w.fault(fault{})
	default:
		s.storeFails()
		w.fault(fault{})
	}
}

func (s *soaking) did(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[name]++
	s.events = append(s.events, event{time.Since(s.began), name})
}

// watch samples the agent until ctx ends. One that is frozen or being restarted
// gives no sample.
func (s *soaking) watch(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	said := s.began
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		x, ok := s.sample()
		if !ok {
			continue
		}
		s.mu.Lock()
		s.samples = append(s.samples, x)
		faults := len(s.events)
		s.mu.Unlock()
		if time.Since(said) >= bucketOf {
			said = time.Now()
			fmt.Fprintf(s.stdout, "%v: %d lines accepted, %d faults, memory %.1f MiB, goroutines %.0f, descriptors %.0f, spool %.1f MiB\n",
				x.at.Round(time.Second), x.arrived, faults, x.memory/(1<<20), x.goroutines, x.descriptors, x.spoolBytes/(1<<20))
		}
	}
}
