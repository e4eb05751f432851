package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// world is what a scenario has: an engine, an agent and a store of its own, and
// containers that write.
type world struct {
	tb     harness.TB
	ctx    context.Context //nolint:containedctx // of the whole run: it ends when somebody interrupts it
	random *rand.Rand
	scale  scale

	d      *harness.Dockerd
	a      *harness.Agent
	store  *store
	ledger *ledger
	fleet  *fleet

	background sync.WaitGroup
	stop       context.CancelFunc // ends what was begun by churn
	churning   context.Context    //nolint:containedctx // see stop

	// mayNever says that Docker itself may lose lines in this scenario.
	mayNever bool
	// mayReport says that lines may be lost if the agent tells of it.
	mayReport bool
	// notes are said with the result.
	notes []string
}

// scale is how much a scenario does.
type scale struct {
	kills int
	// hold is how long a fault of the store lasts, pause the time between two.
	hold, pause time.Duration
	// faults is how many of the store's faults come; 0: all.
	faults int
	// rounds is how often what is repeated is repeated.
	rounds int
	// keep is called at the end of a scenario, before its files are removed; nil:
	// nothing.
	keep func(a *harness.Agent)
}

// agentTimeout is put into the agent's configuration of the store: one that hangs is
// to be noticed within the time that a scenario has.
const agentTimeout = "timeout: 2s, "

// newWorld starts everything but containers. before is called when the agent has
// been configured and not started; nil: nothing.
func newWorld(ctx context.Context, tb harness.TB, seed uint64, s scale, extra string, before func(w *world), opts ...harness.Option) *world {
	tb.Helper()
	w := &world{tb: tb, ctx: ctx, random: rand.New(rand.NewPCG(seed, 0)), scale: s, ledger: newLedger()}
	w.churning, w.stop = context.WithCancel(ctx)
	w.d = harness.StartDockerd(tb, opts...)
	var err error
	if w.store, err = newStore(w.ledger, seed); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.store.close)
	w.fleet = newFleet(w.d, w.ledger, seed)
	tb.Cleanup(func() {
		w.stop()
		w.background.Wait()
	})
	w.a = harness.NewAgent(tb, w.d.Host, w.store.url, extra)
	text, err := os.ReadFile(w.a.Config)
	if err == nil {
		text = bytes.Replace(text, []byte("sinks: {loki: {"), []byte("sinks: {loki: {"+agentTimeout), 1)
		err = os.WriteFile(w.a.Config, text, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if s.keep != nil {
		tb.Cleanup(func() { s.keep(w.a) })
	}
	if before != nil {
		before(w)
	}
	w.a.Start()
	return w
}

// sleep waits; an interrupt ends the scenario.
func (w *world) sleep(d time.Duration) {
	w.tb.Helper()
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
		w.tb.Fatal("interrupted")
	}
}

// between gives a random time.
func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.random.Int64N(int64(high-low)+1))
}

// write starts containers.
func (w *world) write(recipes []recipe) (all []*writer) {
	w.tb.Helper()
	for _, k := range recipes {
		wr, err := w.fleet.start(w.ctx, k, 0, false)
		if err != nil {
			w.tb.Fatal(err)
		}
		all = append(all, wr)
	}
	return all
}

// churn lets containers come and go beside what the scenario does.
func (w *world) churn(pause time.Duration, remove bool) {
	w.background.Go(func() { w.fleet.churn(w.churning, pause, remove) })
}

// fault sets what the store does.
func (w *world) fault(f fault) {
	w.tb.Helper()
	if err := w.store.set(f); err != nil {
		w.tb.Fatal(err)
	}
}

// flowing waits until the store has got some more lines.
func (w *world) flowing(n int) {
	w.tb.Helper()
	before := w.ledger.count()
	if !harness.Within(30*time.Second, func() bool { return w.ledger.count() >= before+n || w.ctx.Err() != nil }) {
		w.tb.Fatalf("the store has not got %d more lines within 30 s", n)
	}
}

// restart ends the agent by SIGTERM, and starts it.
func (w *world) restart() {
	w.tb.Helper()
	w.terminate()
	w.a.Start()
}

func (w *world) terminate() {
	w.tb.Helper()
	w.a.Stop()
	if code := w.a.Exit(time.Second); code != 0 {
		w.tb.Errorf("the agent's exit status after SIGTERM is %d", code)
	}
}

// kill kills the agent with SIGKILL and starts it after a while; one time in four
// it is killed once more while it starts.
func (w *world) kill(down time.Duration) {
	w.tb.Helper()
	w.a.Kill9()
	w.sleep(down)
	if w.random.IntN(4) == 0 {
		w.a.Launch()
		w.sleep(w.between(0, 100*time.Millisecond))
		w.a.Kill9()
	}
	w.a.Start()
}

// reload lets the agent read its configuration anew, and waits until it has.
func (w *world) reload() {
	w.tb.Helper()
	const begun = "shipping begins"
	n := strings.Count(w.a.Log(), begun)
	w.a.Signal(syscall.SIGHUP)
	if !harness.Within(20*time.Second, func() bool { return strings.Count(w.a.Log(), begun) > n }) {
		w.tb.Fatal("the agent does not begin anew within 20 s of SIGHUP")
	}
}

// rotations waits until the log of each container has rotated so often. It looks
// at the files: the agent may be frozen.
func (w *world) rotations(all []*writer, n int, limit time.Duration) {
	w.tb.Helper()
	var watches []*rotation
	for _, wr := range all {
		if wr.recipe.maxSize != "" {
			watches = append(watches, newRotation(w.d.LogPath(wr.id)))
		}
	}
	if !harness.Within(limit, func() bool {
		ok := true
		for _, r := range watches {
			r.look()
			ok = ok && r.n >= n
		}
		return ok || w.ctx.Err() != nil
	}) {
		var seen []string
		for _, r := range watches {
			seen = append(seen, strconv.Itoa(r.n))
		}
		w.tb.Fatalf("logs have not rotated %d times within %v, but %s", n, limit, strings.Join(seen, ", "))
	}
}

// rotation counts the rotations of a log by looking at it often.
type rotation struct {
	path  string
	inode uint64
	n     int
}

func newRotation(path string) *rotation {
	r := &rotation{path: path}
	r.look()
	r.n = 0
	return r
}

func (r *rotation) look() {
	var st syscall.Stat_t
	if syscall.Stat(r.path, &st) == nil && st.Ino != r.inode { // missing for a moment
		r.inode = st.Ino
		r.n++
	}
}

// settle ends the containers, waits until everything has arrived that will, stops
// the agent, and gives the figures. The store, the agent and the engine must be
// well again.
func (w *world) settle() (f figures, good bool) {
	w.tb.Helper()
	w.quiet()
	return w.finish()
}

// quiet is settle's first half: the agent has nothing to do at its end.
func (w *world) quiet() {
	w.tb.Helper()
	w.stop()
	w.background.Wait()
	if err := w.fleet.stop(w.ctx); err != nil {
		w.tb.Fatal(err)
	}
	w.arrive(25 * time.Second)
	w.balance()
}

// finish is the other one.
func (w *world) finish() (f figures, good bool) {
	w.tb.Helper()
	w.terminate()
	f, trouble := w.ledger.account(w.toldOf())
	for _, t := range trouble {
		w.tb.Log(t)
	}
	good = f.good()
	if f.never > 0 && !w.mayNever {
		w.tb.Errorf("Docker has not written %d lines, though nothing was done to it", f.never)
		good = false
	}
	if f.reported > 0 && !w.mayReport {
		w.tb.Errorf("%d lines are lost (the agent says so) where none need be", f.reported)
		good = false
	}
	return f, good
}

// arrive waits until nothing is missing any more, or nothing has arrived for so
// long.
func (w *world) arrive(patience time.Duration) {
	w.tb.Helper()
	arrived, missing := w.ledger.progress()
	for missing > 0 && w.ctx.Err() == nil {
		w.readDeadLetters()
		before := arrived
		if !harness.Within(patience, func() bool {
			arrived, missing = w.ledger.progress()
			return arrived > before || missing == 0 || w.ctx.Err() != nil
		}) {
			return
		}
	}
}

// readDeadLetters notes what the agent has kept as undeliverable.
func (w *world) readDeadLetters() {
	files, _ := filepath.Glob(filepath.Join(w.a.DataDir(), "dead_letters", "*.jsonl*"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it was set aside under another name: next time
		}
		for l := range bytes.Lines(text) {
			var d struct {
				Kind          string
				ContainerName string `json:"container_name"`
				Raw           []byte
			}
			if json.Unmarshal(l, &d) == nil && d.Kind != "malformed" {
				w.ledger.deadLetter(d.ContainerName, string(d.Raw))
			}
		}
	}
}

var foundAtStart = regexp.MustCompile(`spool holds lines of an earlier run.* records=(\d+)`)

// spooledAtStart gives how many lines an agent has found in the spool when it last
// began, by a start or a reload: only then its counters begin.
func spooledAtStart(log string) float64 {
	log = log[max(0, strings.LastIndex(log, "log_capturer is starting"), strings.LastIndex(log, "configuration is read anew")):]
	m := foundAtStart.FindStringSubmatch(log)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseFloat(m[1], 64)
	return n
}

// conservation is the agent's account of all lines of one life. They add up to
// nothing if it knows where each is.
type conservation struct{ read, found, delivered, dead, spooled, lost, bytes float64 }

func newConservation(m map[string]float64, log string) (c conservation) {
	c.found = spooledAtStart(log)
	for k, v := range m {
		name, labels, _ := strings.Cut(k, "{")
		switch name {
		case "log_capturer_lines_read_total":
			c.read += v
		case "log_capturer_logs_processed_total":
			switch {
			case strings.Contains(labels, `result="delivered"`):
				c.delivered += v
			case strings.Contains(labels, `result="dead_lettered"`):
				c.dead += v
			}
		case "log_capturer_spool_records":
			c.spooled += v
		case "log_capturer_lost_lines_total", "log_capturer_spool_lost_records_total":
			c.lost += v
		case "log_capturer_dispatch_pending_bytes", "log_capturer_dispatch_parked_bytes", "log_capturer_files_unread_bytes":
			c.bytes += v
		}
	}
	return c
}

func (c *conservation) idle() bool { return c.bytes+c.spooled == 0 }

func (c *conservation) holds() bool {
	return c.read+c.found == c.delivered+c.dead+c.spooled+c.lost
}

// balance waits until the agent has nothing on its way, and lets it add up.
func (w *world) balance() {
	w.tb.Helper()
	var c conservation
	var err error
	if !harness.Within(25*time.Second, func() bool {
		var m map[string]float64
		if m, err = w.a.Scrape(); err != nil {
			return false
		}
		c = newConservation(m, w.a.Log())
		return c.idle() && c.holds()
	}) {
		w.tb.Errorf("the agent's counters do not add up: in the spool at the start %.0f + read %.0f, delivered %.0f + dead-lettered %.0f + in the spool %.0f + lost %.0f; bytes on their way or unread %.0f; %v",
			c.found, c.read, c.delivered, c.dead, c.spooled, c.lost, c.bytes, err)
	}
}

// told matches what the agent logs of lines that are lost.
var told = regexp.MustCompile(`level=(?:WARN|ERROR) .*\b(?:is|are|may be|were) lost\b.*\bcontainer=(\S+)`)

// toldOf reads the agent's log, of all its lives, for the containers of which it
// has said that lines are lost.
func (w *world) toldOf() func(container string) bool {
	names := make(map[string]bool)
	for _, m := range told.FindAllStringSubmatch(w.a.Log(), -1) {
		names[strings.Trim(m[1], `"`)] = true
	}
	return func(container string) bool { return names[container] }
}

// note says something with the result.
func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}
