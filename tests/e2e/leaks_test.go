package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// leaksMinutesEnv is for how many minutes TestLeaks has an agent watched. Without it
// the test is skipped.
const leaksMinutesEnv = "LOG_CAPTURER_LEAKS_MINUTES"

// TestLeaks has tests/monitor_leaks.sh watch an agent that reads 50 containers which
// write 1,000 lines/s in all, while others come, write a little and go, half of them
// read from files, half of them streamed. It fails where the script does, and where a
// line does not arrive. make measure-leaks runs it; the script's environment is the
// test's.
func TestLeaks(t *testing.T) {
	const (
		steady, rate, size = 50, 20, 150
		// passing is how many come and go together of each driver.
		passing, lines = 5, 5
		drain          = 2 * time.Minute
	)
	if os.Getenv(leaksMinutesEnv) == "" {
		t.Skipf("it watches an agent for half an hour; make measure-leaks runs it (%s=30)", leaksMinutesEnv)
	}
	minutes := envNumber(t, leaksMinutesEnv)
	root := harness.Root(t)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()

	w := newMeasuredWorld(t)
	c := startClock(t, true)
	a := w.agentTo(c.url, "", "")
	a.Start()
	arrived := make(map[string]int) // lines, by container
	collect := func() {
		c.delays()
		for name, got := range c.take() {
			arrived[name] += len(got)
		}
	}
	ids := make(map[string]string) // of those that stay, by name
	var all []string
	for i := range steady {
		o := output{name: fmt.Sprintf("steady%d", i), size: size}
		ids[o.name] = w.create(rotated(o.spec("-rate", strconv.Itoa(rate)), "1m", "3", false))
		all = append(all, ids[o.name])
	}
	w.each(all, w.d.StartNow)
	w.methodOf(a, byFile, steady)

	round := 0
	// pass lets a few containers come and go, and waits until their lines are there.
	pass := func() {
		round++
		var names, ids []string
		for _, driver := range []string{"json-file", "local"} {
			for i := range passing {
				o := output{name: fmt.Sprintf("passing-%s-%d-%d", driver, round, i), lines: lines}
				s := o.spec()
				s.Driver = driver
				id, err := w.d.CreateNow(ctx, s)
				if err != nil {
					t.Fatal(err)
				}
				names, ids = append(names, o.name), append(ids, id)
			}
		}
		defer w.each(ids, w.d.RemoveNow)
		w.each(ids, w.d.StartNow)
		for i, name := range names {
			harness.Eventually(t, time.Minute, "the lines of "+name+" arrive", func() bool { collect(); return arrived[name] >= lines })
			if arrived[name] != lines {
				t.Errorf("%s (%.12s): %d lines have arrived, %d were written", name, ids[i], arrived[name], lines)
			}
			delete(arrived, name)
		}
	}
	pass() // what is kept from the first on is there before it is measured

	script := exec.CommandContext(ctx, filepath.Join(root, "tests", "monitor_leaks.sh"), strconv.Itoa(minutes))
	script.Env = append(os.Environ(), "LOG_CAPTURER_URL=http://"+a.Addr)
	script.Stdout, script.Stderr = os.Stdout, os.Stderr
	watched, done := context.WithCancel(ctx)
	var leaked error
	go func() {
		defer done()
		leaked = script.Run()
	}()
	defer func() {
		stop()
		<-watched.Done()
	}()
	for watched.Err() == nil {
		pass()
	}
	if ctx.Err() != nil {
		t.Fatal("interrupted")
	}
	if leaked != nil {
		t.Errorf("tests/monitor_leaks.sh: %v", leaked)
	}

	w.stillRunning(all)
	w.each(all, w.d.KillNow)
	written, want := make(map[string]int), 0
	for name, id := range ids {
		w.d.Wait(t, id, time.Minute)
		written[name] = lastWritten(t, w.d.LogPath(id))
		want += written[name]
	}
	sum := func() (n int) {
		collect()
		for _, lines := range arrived {
			n += lines
		}
		return n
	}
	harness.Within(drain, func() bool { return sum() >= want })
	for name, n := range written {
		if arrived[name] != n {
			t.Errorf("%s: %d lines have arrived, %d were written", name, arrived[name], n)
		}
	}
	t.Logf("%d lines of %d containers that stayed, %d that came and went", want, steady, round*2*passing)
}
