package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// limit is for one call of the engine's API, which may be down.
const limit = 30 * time.Second

// recipe makes containers of a sort: what it writes, how fast, and what Docker keeps
// of it.
type recipe struct {
	name        string
	kind        string // of lines; "": plain
	size        int
	rate        float64 // lines per second
	stderrEvery int
	driver      string // "": json-file
	maxSize     string // "": no rotation
	maxFile     int
	compress    bool
}

// usual are recipes of containers of different rates, on files that rotate every few
// seconds, and one that is streamed.
func usual() []recipe {
	return []recipe{
		{name: "fast", size: 300, rate: 800, stderrEvery: 7, maxSize: "400k", maxFile: 40},
		{name: "medium", size: 120, rate: 200, stderrEvery: 3, maxSize: "100k", maxFile: 60},
		{name: "packed", size: 200, rate: 200, maxSize: "200k", maxFile: 40, compress: true},
		{name: "long", kind: lines.Long, rate: 4, stderrEvery: 2, maxSize: "1m", maxFile: 20},
		{name: "slow", size: 60, rate: 5, stderrEvery: 2},
		// The engine loses lines of a follower where such a log rotates: it does not.
		{name: "local", size: 100, rate: 100, stderrEvery: 4, driver: "local"},
	}
}

// filesOnly leaves those that are read from files.
func filesOnly(all []recipe) []recipe {
	return slices.DeleteFunc(all, func(k recipe) bool { return k.driver != "" })
}

// shortLines leaves those whose lines Docker does not split.
func shortLines(all []recipe) []recipe {
	return slices.DeleteFunc(all, func(k recipe) bool { return k.kind != "" })
}

// unrotated leaves those whose logs do not rotate.
func unrotated(all []recipe) []recipe {
	return slices.DeleteFunc(all, func(k recipe) bool { return k.maxSize != "" })
}

// writer is a container.
type writer struct {
	out    output
	recipe recipe
	id     string // "" if the engine has not said
	remove bool   // docker run --rm
}

func (w *writer) spec() harness.ContainerSpec {
	s := harness.ContainerSpec{Name: w.out.name, Driver: w.recipe.driver, AutoRemove: w.remove, Cmd: []string{
		"-prefix", w.out.name, "-lines", strconv.Itoa(w.out.lines), "-size", strconv.Itoa(w.out.size),
		"-stderr-every", strconv.Itoa(w.out.stderrEvery), "-kind", w.out.kind,
		"-rate", strconv.FormatFloat(w.recipe.rate, 'f', -1, 64),
	}}
	if w.recipe.maxSize != "" {
		s.LogOpts = map[string]string{"max-size": w.recipe.maxSize, "max-file": strconv.Itoa(w.recipe.maxFile)}
		if w.recipe.compress {
			s.LogOpts["compress"] = "true"
		}
	}
	return s
}

// fleet are the containers of a scenario. Its methods may be called from any
// goroutine.
type fleet struct {
	d      *harness.Dockerd
	ledger *ledger

	mu      sync.Mutex
	random  *rand.Rand
	numbers map[string]int
	writers map[string]*writer // by name; those that have been closed are gone
	ended   int                // containers that have been closed
}

func newFleet(d *harness.Dockerd, l *ledger, seed uint64) *fleet {
	return &fleet{
		d: d, ledger: l, random: rand.New(rand.NewPCG(seed, 2)),
		numbers: make(map[string]int), writers: make(map[string]*writer),
	}
}

// between gives a random number from low to high.
func (f *fleet) between(low, high int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return low + f.random.IntN(high-low+1)
}

// start creates and starts a container; with an error too it may write,
// or have written. n is how many lines it is to write; 0: until it is stopped.
func (f *fleet) start(ctx context.Context, k recipe, n int, remove bool) (*writer, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f.mu.Lock()
	f.numbers[k.name]++
	w := &writer{recipe: k, remove: remove, out: output{
		name: fmt.Sprintf("%s%d", k.name, f.numbers[k.name]), kind: k.kind, size: k.size, stderrEvery: k.stderrEvery, lines: n,
	}}
	if w.out.kind == "" {
		w.out.kind = lines.Plain
	}
	f.writers[w.out.name] = w
	f.mu.Unlock()
	f.ledger.open(w.out)
	id, err := f.d.CreateNow(ctx, w.spec())
	if err != nil {
		return w, fmt.Errorf("create %s: %w", w.out.name, err)
	}
	f.mu.Lock()
	w.id = id
	f.mu.Unlock()
	if err := f.d.StartNow(ctx, id); err != nil {
		return w, fmt.Errorf("start %s: %w", w.out.name, err)
	}
	return w, nil
}

// all gives the containers that have not been closed, and the engine's word of
// them; those that it does not know are not in the map.
func (f *fleet) all(ctx context.Context) ([]*writer, map[string]harness.ContainerState, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// The list comes first: what is created after it is not looked for in it.
	f.mu.Lock()
	writers := slices.Collect(maps.Values(f.writers))
	f.mu.Unlock()
	list, err := f.d.ListNow(ctx)
	if err != nil {
		return nil, nil, err
	}
	states := make(map[string]harness.ContainerState)
	for _, s := range list {
		states[s.Name] = s
	}
	return writers, states, nil
}

// what gives what Docker has of a container.
func (f *fleet) what(ctx context.Context, w *writer, id string) (*written, error) {
	if w.recipe.driver == "" {
		return readLog(&w.out, f.d.LogPath(id))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stdout, stderr, err := f.d.LogNow(ctx, id)
	if err != nil {
		return nil, err
	}
	has := new(written)
	has.parsePlain(&w.out, stdout)
	has.parsePlain(&w.out, stderr)
	return has, nil
}

// excuse takes from the books of all containers the lines that Docker has not
// written. It is to be called after each trouble of the engine's, before rotation
// takes what was written around it.
func (f *fleet) excuse(ctx context.Context) error {
	writers, states, err := f.all(ctx)
	if err != nil {
		return err
	}
	for _, w := range writers {
		s, ok := states[w.out.name]
		if !ok {
			continue
		}
		has, err := f.what(ctx, w, s.ID)
		if err != nil {
			return err
		}
		f.ledger.excuse(w.out.name, has.holes(&w.out, false))
	}
	return nil
}

// close finds out what a container that has ended has written.
func (f *fleet) close(ctx context.Context, w *writer, s harness.ContainerState, known bool) error {
	switch {
	case known:
		has, err := f.what(ctx, w, s.ID)
		if err != nil {
			return err
		}
		f.ledger.excuse(w.out.name, has.holes(&w.out, true))
		f.ledger.close(w.out.name, has.end())
	case w.remove && w.id != "":
		f.ledger.close(w.out.name, w.out.lines)
	default: // it was never created
		f.ledger.close(w.out.name, 0)
	}
	f.mu.Lock()
	delete(f.writers, w.out.name)
	f.ended++
	f.mu.Unlock()
	return nil
}

// stop ends all containers and finds out what they have written.
func (f *fleet) stop(ctx context.Context) error {
	var writers []*writer
	var states map[string]harness.ContainerState
	var running []string
	var err error
	// A process that has just begun does not hear SIGTERM yet: it is said again.
	if !harness.Within(3*time.Minute, func() bool {
		if writers, states, err = f.all(ctx); err != nil {
			return ctx.Err() != nil
		}
		running = nil
		for _, w := range writers {
			s, ok := states[w.out.name]
			if !ok || !s.Running {
				continue
			}
			running = append(running, w.out.name)
			// One that the engine removes when it ends must end by itself: nobody
			// could tell how far it has come.
			if !w.remove {
				if err = f.d.TermNow(ctx, s.ID); err != nil {
					return ctx.Err() != nil
				}
			}
		}
		return len(running) == 0
	}) {
		err = errors.Join(err, fmt.Errorf("containers do not end on SIGTERM: %v", running))
	}
	if err != nil {
		return err
	}
	for _, w := range writers {
		s, known := states[w.out.name]
		if err := f.close(ctx, w, s, known); err != nil {
			return err
		}
	}
	return nil
}

// fleeting is the recipe of containers that come and go.
func fleeting() recipe {
	return recipe{name: "fleeting", size: 90, stderrEvery: 5, maxSize: "1m", maxFile: 3}
}

// churn lets short-lived containers come and go, one after the other, until ctx
// ends. With remove they go at once when they end (docker run --rm), else when
// their lines have arrived: a container that is removed while the agent is down
// cannot be read. Troubles of the engine are passed over: what the container has
// written then is looked for at the end.
func (f *fleet) churn(ctx context.Context, pause time.Duration, remove bool) {
	for ctx.Err() == nil {
		w, err := f.start(ctx, fleeting(), f.between(1, 300), remove)
		if err == nil && remove {
			f.waitGone(ctx, w)
		} else if err == nil {
			f.see(ctx, w)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// waitGone waits until a container with --rm is gone.
func (f *fleet) waitGone(ctx context.Context, w *writer) {
	f.until(ctx, func(s harness.ContainerState, known bool) bool { return !known }, w)
	if ctx.Err() == nil {
		_ = f.close(ctx, w, harness.ContainerState{}, false)
	}
}

// see waits until a container has ended and its lines have arrived, and removes
// it.
func (f *fleet) see(ctx context.Context, w *writer) {
	state := f.until(ctx, func(s harness.ContainerState, known bool) bool { return known && !s.Running }, w)
	if ctx.Err() != nil || f.close(ctx, w, state, true) != nil {
		return
	}
	arriving, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	f.untilTrue(arriving, func() bool { return f.ledger.complete(w.out.name) })
	if arriving.Err() == nil { // else it stays, and what is missing is seen at the end
		_ = f.d.RemoveNow(arriving, w.id)
	}
}

// until waits until something holds of a container, or ctx ends.
func (f *fleet) until(ctx context.Context, ok func(s harness.ContainerState, known bool) bool, w *writer) (state harness.ContainerState) {
	f.untilTrue(ctx, func() bool {
		_, states, err := f.all(ctx)
		if err != nil {
			return false
		}
		s, known := states[w.out.name]
		state = s
		return ok(s, known)
	})
	return state
}

func (f *fleet) untilTrue(ctx context.Context, ok func() bool) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
