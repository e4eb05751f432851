package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// writers are three containers that write 1,000 lines/s each, without end.
func (w *world) writers() (all []output, ids []string) {
	for i := range 3 {
		o := output{name: fmt.Sprintf("writer%d", i), size: 600, stderrEvery: 3 + i}
		ids = append(ids, w.run(rotated(o.spec("-rate", "1000"), "2m", "20", i == 1)))
		all = append(all, o)
	}
	return all, ids
}

// stillRunning fails the test when the writers have ended: what it has done was
// not done while they wrote.
func (w *world) stillRunning(ids []string) {
	w.t.Helper()
	for _, id := range ids {
		if running, _ := w.d.Running(w.t, id); !running {
			w.t.Errorf("container %.12s has ended too soon: the test proves little", id)
		}
	}
}

// end stops writers that have no end, and gives what they have written: by the number
// of the last line that the engine has.
func (w *world) end(all []output, ids []string) []output {
	w.t.Helper()
	w.stillRunning(ids)
	w.each(ids, w.d.TermNow)
	all = slices.Clone(all)
	for i, id := range ids {
		o := &all[i]
		w.d.Wait(w.t, id, 20*time.Second)
		for _, l := range w.engineLog(id, o.tty) {
			var n int
			if _, err := fmt.Sscanf(l.text, o.name+" %d", &n); err != nil {
				w.t.Fatalf("container %s has written %q", o.name, l.text)
			}
			o.lines = max(o.lines, n)
		}
		if o.lines == 0 {
			w.t.Errorf("container %s has written nothing: the test proves little", o.name)
		}
	}
	return all
}

// TestKill9: the agent is killed ten times while three containers write.
func TestKill9(t *testing.T) {
	t.Parallel()
	const kills = 10
	w := newWorld(t)
	a := w.agent("")
	all, ids := w.writers()
	for i := range kills {
		w.delivered(a, float64(300*(i%4)+50))
		a.Kill9()
		a.Start()
	}
	all = w.end(all, ids)
	total, doubled := 0, 0
	for _, o := range all {
		n := w.arrived(o.name, o.want())
		t.Logf("%s: %d of %d lines doubled", o.name, n, o.lines)
		total, doubled = total+o.lines, doubled+n
	}
	if most := kills * lanes * batchLines(all[0]); doubled > most {
		t.Errorf("%d of %d lines doubled, more than the %d that can have been in flight", doubled, total, most)
	}
}

// TestKill9InFlight: the store has taken a push and the agent is killed before
// it hears so. What is doubled then was in the batches that were in flight, one
// a lane.
func TestKill9InFlight(t *testing.T) {
	t.Parallel()
	opt := lokitest.Default()
	opt.Limits.HeadBlock = 0 // keeps what comes twice
	l := lokitest.New(opt)
	defer l.Close()
	w := &world{t: t, d: sharedEngine(t)}
	t.Cleanup(w.removeContainers)
	a := w.agentTo(l.URL, "", "")
	a.Start()
	all, ids := w.writers()
	const kills = 5
	inFlight := 0
	for i := range kills {
		w.delivered(a, float64(200*(i+1)))
		// The store takes a push, and the agent is killed before it hears so.
		reached := make(chan struct{})
		l.Next(lokitest.Fault{Store: true, Hang: true, Reached: reached})
		<-reached
		a.Kill9()
		harness.Eventually(t, 10*time.Second, "the store sees that the agent is gone", func() bool { return unanswered(l.Requests()) == i+1 })
		reqs := l.Requests()
		for _, r := range reqs[max(0, len(reqs)-lanes):] {
			inFlight += r.Lines
		}
		a.Start()
	}
	all = w.end(all, ids)
	doubled := 0
	for _, o := range all {
		want := o.want()
		var got []line
		harness.Within(40*time.Second, func() bool {
			got = fromStandIn(t, l, "container_name", o.name)
			c := compare(want, got)
			return c.nMissing == 0
		})
		c := compare(want, got)
		if c.nMissing+c.nForeign > 0 {
			t.Errorf("%s: %s", o.name, &c)
		}
		doubled += c.doubled
	}
	t.Logf("%d lines doubled; the last requests before the kills had %d", doubled, inFlight)
	if most := kills * lanes * batchLines(all[0]); doubled > most {
		t.Errorf("%d lines doubled, more than the %d that can have been in flight", doubled, most)
	}
	if doubled == 0 {
		t.Error("no line doubled: the test proves nothing")
	}
}

// unanswered counts the pushes that got no answer.
func unanswered(all []lokitest.Request) (n int) {
	for _, r := range all {
		if r.Status == 0 {
			n++
		}
	}
	return n
}

// TestStopAndStart: each line once, however often the agent is stopped.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("")
	all, ids := w.writers()
	for i := range 5 {
		w.delivered(a, float64(500*(i%3)+50))
		began := time.Now()
		a.Stop()
		if code, took := a.Exit(time.Second), time.Since(began); code != 0 || took > 3*time.Second {
			t.Errorf("exit status %d after %v", code, took)
		}
		a.Start()
	}
	w.once(w.end(all, ids)...)
}

// stuck lets an agent with the given grace have lines on their way to a store
// that hangs.
func (w *world) stuck(a *harness.Agent, name string) output {
	w.t.Helper()
	w.s.Freeze()
	o := output{name: name, lines: 2000}
	w.run(o.spec())
	harness.Eventually(w.t, 20*time.Second, "lines are on their way", func() bool {
		m := a.Metrics()
		return m[metricRead] >= m[metricDelivered]+float64(o.lines)
	})
	return o
}

// TestStopWithStuckStore: SIGTERM ends the agent within the grace period though
// the store hangs, a second signal at once; nothing is lost by either.
func TestStopWithStuckStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mayLog = []string{"log_capturer has failed"}
	// With a spool it would not have to wait.
	a := w.agent("spool: {max_bytes: 0}\nshutdown_grace: 1s")
	o1 := w.stuck(a, "grace")
	began := time.Now()
	a.Signal(syscall.SIGTERM)
	code := a.Exit(10 * time.Second)
	if took := time.Since(began); code != 0 || took < time.Second || took > 3*time.Second {
		t.Errorf("exit status %d after %v, want 0 after 1 s:\n%s", code, took, a.Log())
	}
	w.s.Thaw()
	a.Start()
	w.arrived(o1.name, o1.want())
	a.Stop()

	b := w.agent("shutdown_grace: 60s")
	w.arrived(o1.name, o1.want()) // anew: it is another data_dir
	o2 := w.stuck(b, "twice")
	b.Signal(syscall.SIGTERM)
	harness.Eventually(t, 5*time.Second, "the stop begins", func() bool {
		return contains(b.Log(), "a second signal stops at once")
	})
	began = time.Now()
	b.Signal(syscall.SIGTERM)
	code = b.Exit(10 * time.Second)
	if took := time.Since(began); code != 1 || took > time.Second {
		t.Errorf("exit status %d after %v, want 1 at once:\n%s", code, took, b.Log())
	}
	w.s.Thaw()
	b.Start()
	w.arrived(o2.name, o2.want())
}
