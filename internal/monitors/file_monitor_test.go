package monitors

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// run runs the monitor until the function that it gives is called.
func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.m.Run(ctx) }()
	return func() {
		f.t.Helper()
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
		if n := f.m.descriptors.Open(); n != 0 {
			f.t.Errorf("%d descriptors held after the end", n)
		}
	}
}

func (f *fixture) want(lines ...string) {
	f.t.Helper()
	if got := texts(f.outlet.take()); !slices.Equal(got, lines) {
		f.t.Errorf("got %q, want %q", got, lines)
	}
}

func (f *fixture) wantMetric(name string, want float64) {
	f.t.Helper()
	if got := metric(f.t, f.reg, name); got != want {
		f.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func (f *fixture) state(id string) logState {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if lg := f.m.logs[id]; lg != nil {
		return lg.state
	}
	return stateGone
}

func TestFileMonitorLifeOfALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		info := f.info("c")
		dir := filepath.Dir(info.LogPath)
		stop := f.run()
		defer stop()

		// Added before its file is there.
		f.m.add(info)
		synctest.Wait()
		f.wantMetric("files_monitored", 1)
		f.write("c", jsonEntry("stdout", "1\n", at(1)))
		f.wake.Tell(dir, WakeEvent{Appeared: true})
		synctest.Wait()
		f.want("1")

		// While it is written to, it is read on ticks, and not watched.
		if _, writes := f.wake.Watched(dir); writes {
			t.Error("writes of a busy log are watched")
		}
		f.write("c", jsonEntry("stdout", "2\n", at(2)))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		f.want("2")

		// Quiet: its writes are watched, and read at once.
		time.Sleep(time.Second)
		synctest.Wait()
		if ok, writes := f.wake.Watched(dir); !ok || !writes || f.state("c") != stateIdle {
			t.Errorf("quiet log: watched %v, writes %v, state %d", ok, writes, f.state("c"))
		}
		f.write("c", jsonEntry("stdout", "3\n", at(3)))
		f.wake.Tell(dir, WakeEvent{Written: true})
		synctest.Wait()
		f.want("3")
		f.wantMetric("file_events_missed_total", 0)

		// An event is lost: the poll finds the line within 2 s, and counts.
		time.Sleep(time.Second)
		f.write("c", jsonEntry("stdout", "4\n", at(4)))
		time.Sleep(pollInterval)
		synctest.Wait()
		f.want("4")
		f.wantMetric("file_events_missed_total", 1)

		// So is a rotation.
		time.Sleep(time.Second)
		if err := os.Rename(info.LogPath, info.LogPath+".1"); err != nil {
			t.Fatal(err)
		}
		f.write("c", jsonEntry("stdout", "5\n", at(5)))
		time.Sleep(pollInterval)
		synctest.Wait()
		f.want("5")
		f.wantMetric("file_events_missed_total", 2)
		f.wantMetric("file_rotation_total", 1)

		// A rotation that is told.
		time.Sleep(time.Second)
		if err := os.Rename(info.LogPath, info.LogPath+".1"); err != nil {
			t.Fatal(err)
		}
		f.write("c", jsonEntry("stdout", "6\n", at(6)))
		f.wake.Tell(dir, WakeEvent{Appeared: true})
		synctest.Wait()
		f.want("6")
		time.Sleep(3 * pollInterval)
		synctest.Wait()
		f.wantMetric("file_events_missed_total", 2)

		// Notifications overflow: looked at once, not in 2 s.
		f.write("c", jsonEntry("stdout", "7\n", at(7)))
		f.wake.Overflow(WakeEvent{Overflow: true})
		synctest.Wait()
		f.want("7")

		// Exit: the last words, then it is let go.
		f.write("c", jsonEntry("stdout", "8", at(8)))
		f.m.containerExited("c")
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		f.want("8")
		f.wantMetric("files_monitored", 0)
		f.wantMetric("files_held", 0)
		if ok, _ := f.wake.Watched(dir); ok {
			t.Error("the watch is left")
		}

		// And started again.
		info.StartedAt, info.FinishedAt = at(20), at(10)
		f.m.add(info)
		f.write("c", jsonEntry("stdout", "9\n", at(21)))
		time.Sleep(pollInterval)
		synctest.Wait()
		f.want("9")
		f.wantMetric("files_monitored", 1)
		f.wantMetric("file_read_bytes_total", float64(f.written)) // no byte twice
		f.wantMetric("lines_already_delivered_total", 0)          // it went on from its offset
		f.wantMetric("file_events_total", 4)                      // all that were told
	})
}

func TestFileMonitorRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		info := f.info("c")
		f.write("c", jsonEntry("stdout", "1\n", at(1)))
		stop := f.run()
		defer stop()
		f.m.add(info)
		synctest.Wait()
		f.ack(f.outlet.take())
		// The last lines come, and then everything goes.
		f.write("c", jsonEntry("stdout", "2\n", at(2)), jsonEntry("stdout", "op", at(3)), `{"log":"ha`)
		if err := os.RemoveAll(filepath.Dir(info.LogPath)); err != nil {
			t.Fatal(err)
		}
		f.wake.Tell(filepath.Dir(info.LogPath), WakeEvent{Ended: true})
		f.m.containerRemoved("c")
		synctest.Wait()
		lines := f.outlet.take()
		if got := texts(lines); !reflect.DeepEqual(got, []string{"2", `{"log":"ha`, "op"}) {
			t.Errorf("got %q", got)
		}
		f.wantMetric("files_monitored", 0)
		f.wantMetric("files_held", 0)
		if len(f.store.Keys()) != 1 {
			t.Error("forgotten before its lines were delivered")
		}
		f.ack(lines)
		time.Sleep(pollInterval)
		synctest.Wait()
		if keys := f.store.Keys(); len(keys) != 0 {
			t.Errorf("positions left: %q", keys)
		}
		// Once more, and of one that never was.
		f.m.containerRemoved("c")
		f.m.containerRemoved("unknown")
		f.m.containerExited("unknown")
	})
}

// TestFileMonitorLastRotation lets a container rotate its log, write its last
// words and exit before any event of its files was handled.
func TestFileMonitorLastRotation(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "1\n", at(1)), jsonEntry("stdout", "a", at(2)))
	f.m.add(info)
	f.work()
	if err := os.Rename(info.LogPath, info.LogPath+".1"); err != nil {
		t.Fatal(err)
	}
	f.write("c", jsonEntry("stdout", "b\n", at(2)), jsonEntry("stdout", "last\n", at(3)))
	f.m.tick(nil)
	f.m.containerExited("c")
	if got := texts(f.work()); !reflect.DeepEqual(got, []string{"ab", "last"}) {
		t.Errorf("got %q", got)
	}
	if len(f.m.logs) != 0 {
		t.Error("not let go")
	}
}

// TestFileMonitorHalfLineAtExit: what a start of the container may complete
// neither keeps the log in hand nor is it shipped in two.
func TestFileMonitorHalfLineAtExit(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	e := jsonEntry("stdout", "1\n", at(1))
	f.write("c", e[:20])
	f.m.add(info)
	f.m.containerExited("c")
	if got := f.work(); len(got) != 0 || len(f.m.logs) != 0 {
		t.Errorf("%d lines, %d logs", len(got), len(f.m.logs))
	}
	f.wantMetric("file_read_bytes_total", 0) // half a line is looked at, again and again
	f.write("c", e[20:])
	f.m.add(info)
	if got := texts(f.work()); !reflect.DeepEqual(got, []string{"1"}) {
		t.Errorf("got %q", got)
	}
	f.wantMetric("file_read_bytes_total", float64(len(e)))
	f.m.logs["c"].tail.Close()
}

// TestFileMonitorExitMeetsStart: the start comes while the reader lets the log
// go. The log must be registered afterwards, or its position would never move.
func TestFileMonitorExitMeetsStart(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "1\n", at(1)))
	reg := &unregisterHook{Store: f.store}
	f.m.cfg.Registry = reg
	f.m.add(info)
	f.ack(f.work())
	f.m.containerExited("c")
	started := false
	reg.hook = func() {
		if f.m.mu.TryLock() { // a start need not wait for the reader: it comes now
			f.m.mu.Unlock()
			f.m.add(info)
			started = true
		}
	}
	f.work()
	if !started {
		f.m.add(info)
	}
	f.write("c", jsonEntry("stdout", "2\n", at(2)))
	lines := f.work()
	f.m.poll()
	f.m.tick(nil)
	lines = append(lines, f.work()...)
	if len(lines) != 1 || lines[0].span.Seq == 0 {
		t.Fatalf("%+v: lines without a span", lines)
	}
	f.ack(lines)
	saved, _ := f.store.Lookup("c")
	if saved.Positions[0].Time != at(2).UnixNano() {
		t.Errorf("position %v has not moved", saved.Positions[0])
	}
	f.m.logs["c"].tail.Close()
}

type unregisterHook struct {
	*positions.Store
	hook func()
}

func (u *unregisterHook) Unregister(log uint32) {
	if u.hook != nil {
		u.hook()
	}
	u.Store.Unregister(log)
}

func TestFileMonitorHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		f.write(f.info("a").ID, jsonEntry("stdout", "a1\n", at(1)))
		f.write(f.info("b").ID, jsonEntry("stdout", "b1\n", at(1)))
		stop := f.run()
		defer stop()
		f.m.add(f.info("a"))
		f.m.add(f.info("b"))
		synctest.Wait()
		f.outlet.take()
		f.m.mu.Lock()
		src := f.m.logs["a"].src
		f.m.mu.Unlock()
		src.Held.Store(true)
		f.write("a", jsonEntry("stdout", "a2\n", at(2)))
		f.write("b", jsonEntry("stdout", "b2\n", at(2)))
		time.Sleep(2 * pollInterval)
		synctest.Wait()
		f.want("b2") // the other one goes on
		if h := f.m.Health(); h.Held != 1 || h.UnreadBytes == 0 {
			t.Errorf("%+v", h)
		}
		f.m.Wake(src) // too early: still refused
		synctest.Wait()
		f.want()
		src.Held.Store(false)
		f.m.Wake(src)
		synctest.Wait()
		f.want("a2")
		f.m.Wake(src) // nothing is held: nothing happens
		f.m.Wake(&entry.Source{ID: "unknown"})
		// Held when its container goes: read once it is let go.
		src.Held.Store(true)
		f.write("a", jsonEntry("stdout", "a3\n", at(3)))
		f.m.containerRemoved("a")
		synctest.Wait()
		f.want()
		src.Held.Store(false)
		f.m.Wake(src)
		synctest.Wait()
		f.want("a3")
		f.wantMetric("files_monitored", 1)
	})
}

func TestFileMonitorCannotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		info := f.info("c")
		// Permissions do not stop root: something that is no file does.
		if err := os.Mkdir(info.LogPath, 0o700); err != nil {
			t.Fatal(err)
		}
		stop := f.run()
		defer stop()
		f.m.add(info)
		synctest.Wait()
		if h := f.m.Health(); h.Failed != 1 || h.FailedBy == nil || !strings.Contains(h.FailedBy.Error(), info.LogPath) {
			t.Errorf("%+v", h)
		}
		f.wantMetric("files_failed", 1)
		f.wantMetric("files_monitored", 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := metric(t, f.reg, "file_read_errors_total"); n < 4 || n > 8 {
			t.Errorf("tried %v times in a minute", n)
		}
		if err := os.Remove(info.LogPath); err != nil {
			t.Fatal(err)
		}
		f.write("c", jsonEntry("stdout", "1\n", at(1)))
		time.Sleep(openRetryMax + pollInterval)
		synctest.Wait()
		f.want("1")
		if h := f.m.Health(); h.Failed != 0 || h.FailedBy != nil {
			t.Errorf("%+v", h)
		}
		f.wantMetric("files_failed", 0)
	})
}

func TestFileMonitorDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, func(cfg *FileMonitorConfig) { cfg.MaxDescriptors = 3 })
		stop := f.run()
		defer stop()
		for i := range 5 {
			info := f.info(fmt.Sprintf("c%d", i))
			f.write(info.ID, jsonEntry("stdout", info.ID+"\n", at(1)))
			f.m.add(info)
		}
		synctest.Wait()
		f.want("c0", "c1", "c2")
		if h := f.m.Health(); h.Failed != 2 || h.FilesHeld != 3 || !strings.Contains(fmt.Sprint(h.FailedBy), "LimitNOFILE") {
			t.Errorf("%+v", h)
		}
		f.m.containerExited("c0")
		f.m.containerExited("c1")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		got := texts(f.outlet.take())
		slices.Sort(got) // the poll has no order
		if !slices.Equal(got, []string{"c3", "c4"}) {
			t.Errorf("got %q", got)
		}
		if h := f.m.Health(); h.Failed != 0 || h.FilesHeld != 3 {
			t.Errorf("%+v", h)
		}
	})
}

// TestFileMonitorWatchFails: without watches everything is found by the poll.
func TestFileMonitorWatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newPollOnly(), nil)
		info := f.info("c")
		f.write("c", jsonEntry("stdout", "1\n", at(1)))
		stop := f.run()
		defer stop()
		f.m.add(info)
		synctest.Wait()
		time.Sleep(time.Second)
		f.write("c", jsonEntry("stdout", "2\n", at(2)))
		time.Sleep(pollInterval)
		synctest.Wait()
		f.want("1", "2")
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		f.wake.Fail(errors.New("no space left on device"))
		info := f.info("c")
		f.write("c", jsonEntry("stdout", "1\n", at(1)))
		stop := f.run()
		defer stop()
		f.m.add(info)
		time.Sleep(2 * pollInterval)
		synctest.Wait()
		f.want("1")
		if metric(t, f.reg, "file_watch_errors_total") == 0 {
			t.Error("not counted")
		}
	})
}

// TestFileMonitorFairness: a log with much to read lets another one in between.
func TestFileMonitorFairness(t *testing.T) {
	f := newFixture(t, nil, nil)
	noisy, quiet := f.info("noisy"), f.info("quiet")
	long := jsonEntry("stdout", strings.Repeat("x", 1000)+"\n", at(1))
	f.write("noisy", strings.Repeat(long, 2000)) // 2 MB
	f.write("quiet", jsonEntry("stdout", "here\n", at(1)))
	f.m.add(noisy)
	f.m.add(quiet)
	lines := f.work()
	i := slices.Index(texts(lines), "here")
	if len(lines) != 2001 || i < 0 || i > readBytes/1000 {
		t.Errorf("%d lines, the quiet container's is number %d", len(lines), i)
	}
	for _, lg := range f.m.logs {
		lg.tail.Close()
	}
}

// until waits for lines until there are n, and fails after a minute.
func (f *fixture) until(n int) (lines []shipped) {
	f.t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		if lines = append(lines, f.outlet.take()...); len(lines) >= n {
			return lines
		}
		select {
		case <-f.outlet.news:
		case <-timeout.C:
			f.t.Fatalf("%d lines of %d came: %q", len(lines), n, texts(lines))
		}
	}
}

// TestFileMonitorInotify uses the kernel.
func TestFileMonitorInotify(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, n, func(cfg *FileMonitorConfig) { cfg.Tick = time.Millisecond })
	stop := f.run()
	defer stop()
	info := f.info("c")
	f.m.add(info)
	f.write("c", jsonEntry("stdout", "1\n", at(1)))
	f.until(1)
	for i := range 20 {
		// Some of these come while it is idle, some while it is not.
		for f.state("c") != stateIdle && i%2 == 0 {
			runtime.Gosched()
		}
		if i%5 == 4 {
			if err := os.Rename(info.LogPath, info.LogPath+".1"); err != nil {
				t.Fatal(err)
			}
		}
		text := fmt.Sprint("line ", i)
		f.write("c", jsonEntry("stdout", text+"\n", at(i)))
		if got := f.until(1); got[0].text != text {
			t.Fatalf("%q instead of %q", got[0].text, text)
		}
	}
	f.wantMetric("file_events_missed_total", 0)
	if err := os.RemoveAll(filepath.Dir(info.LogPath)); err != nil {
		t.Fatal(err)
	}
	f.m.containerRemoved("c")
	for f.state("c") != stateGone {
		runtime.Gosched()
	}
}

func TestInotify(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	wd, err := n.watch(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	wait := func() WakeEvent {
		t.Helper()
		events, err := n.wait(time.Now().Add(10*time.Second), true, nil)
		if err != nil {
			t.Fatal(err)
		}
		var all WakeEvent
		for _, e := range events {
			all.WD = e.WD
			all.Appeared = all.Appeared || e.Appeared
			all.Written = all.Written || e.Written
			all.Ended = all.Ended || e.Ended
		}
		return all
	}
	path := filepath.Join(dir, "f")
	appendTo(t, path, "x")
	if e := wait(); e != (WakeEvent{WD: wd, Appeared: true}) {
		t.Errorf("created: %+v", e)
	}
	if again, err := n.watch(dir, true); err != nil || again != wd {
		t.Errorf("watched again: %d, %v", again, err)
	}
	appendTo(t, path, "x")
	if e := wait(); e != (WakeEvent{WD: wd, Written: true}) {
		t.Errorf("written: %+v", e)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if e := wait(); e != (WakeEvent{WD: wd, Appeared: true}) {
		t.Errorf("renamed: %+v", e)
	}
	// A kick ends the wait, and hides nothing.
	n.kick()
	appendTo(t, path+".1", "x")
	if e := wait(); !e.Written && !wait().Written {
		t.Error("an event was lost with a kick")
	}
	n.kick()
	if events, err := n.wait(time.Now().Add(time.Minute), true, nil); err != nil || len(events) != 0 {
		t.Errorf("%v, %v", events, err)
	}
	if events, err := n.wait(time.Now(), true, nil); err != nil || len(events) != 0 {
		t.Errorf("nothing has happened: %v, %v", events, err)
	}
	n.forget(wd)
	if e := wait(); !e.Ended {
		t.Errorf("forgotten: %+v", e)
	}
	n.forget(wd) // once more
	if _, err := n.watch(filepath.Join(dir, "absent"), true); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
	if _, err := n.wait(time.Now().Add(time.Minute), true, nil); err == nil {
		t.Error("a closed instance waits")
	}
}

func TestParseInotifyRubbish(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, make([]byte, 15), append(make([]byte, 12), 0xff, 0xff, 0, 0)} {
		if got := parseInotify(b, nil); len(got) != 0 {
			t.Errorf("%v: %+v", b, got)
		}
	}
}

// TestFileMonitorThousandLogs: goroutines do not depend on the number of logs,
// and descriptors go when containers do.
func TestFileMonitorThousandLogs(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	const logs = 1000
	f := newFixture(t, n, func(cfg *FileMonitorConfig) { cfg.Outlet = newFakeOutlet(2) })
	stop := f.run()
	defer stop()
	add := func(from, to int) {
		for i := from; i < to; i++ {
			info := f.info(fmt.Sprintf("c%d", i))
			f.write(info.ID, jsonEntry("stdout", info.ID+"\n", at(1)))
			f.m.add(info)
		}
	}
	const few = 20 // in both lanes, so that all goroutines have been begun
	add(0, few)
	f.until(few)
	before := ourGoroutines()
	add(few, logs)
	f.until(logs - few)
	if now := ourGoroutines(); now > before {
		t.Errorf("%d goroutines with %d logs, %d with %d", before, few, now, logs)
	}
	if h := f.m.Health(); h.FilesMonitored != logs || h.FilesHeld != logs || h.UnreadBytes != 0 {
		t.Errorf("%+v", h)
	}
	for i := range logs {
		id := fmt.Sprintf("c%d", i)
		if i%2 == 0 {
			f.m.containerExited(id)
		} else {
			f.m.containerRemoved(id)
		}
	}
	for f.m.Health().FilesMonitored > 0 {
		runtime.Gosched()
	}
	if n := f.m.descriptors.Open(); n != 0 {
		t.Errorf("%d descriptors held", n)
	}
	if n := len(f.m.byWD); n != 0 {
		t.Errorf("%d watches left", n)
	}
}

// TestFileMonitorFullSpeed lets logs rotate at full speed under a running
// monitor. The writers go on when the monitor has seen their latest file, so
// that nothing depends on the clock.
func TestFileMonitorFullSpeed(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	const rotations, lines = 40, 50
	f := newFixture(t, n, func(cfg *FileMonitorConfig) { cfg.Tick = time.Millisecond })
	stop := f.run()
	defer stop()
	kinds := []struct {
		name             string
		maxFiles         int
		compress, unlink bool
	}{{"plain", 3, false, false}, {"compressed", 3, true, false}, {"unlinked", 1, false, true}, {"renamed", 1, false, false}}
	var finished atomic.Int32
	for _, k := range kinds {
		info := f.info(k.name)
		w := dockertest.New(t, info.LogPath, k.maxFiles, k.compress, k.unlink)
		f.m.add(info)
		go func() {
			defer finished.Add(1)
			defer w.Close()
			for r := range rotations {
				for i := range lines {
					k := r*lines + i
					w.Write([]byte(jsonEntry("stdout", fmt.Sprint(k, "\n"), at(k))))
				}
				for seen := false; !seen; runtime.Gosched() {
					f.m.mu.Lock()
					held := f.m.logs[info.ID].tail
					f.m.mu.Unlock()
					if held != nil {
						state, err := held.Check()
						seen = err == nil && state != tail.Rotated
					}
				}
				w.Rotate()
				w.Finish()
			}
		}()
	}
	got := make(map[string][]string)
	for total := 0; total < len(kinds)*rotations*lines; {
		for _, l := range f.until(1) {
			got[l.name] = append(got[l.name], l.text)
			total++
		}
	}
	for _, k := range kinds {
		for i, text := range got[k.name] {
			if text != fmt.Sprint(i) {
				t.Fatalf("%s: %q is line number %d", k.name, text, i)
			}
		}
	}
	for finished.Load() < int32(len(kinds)) {
		runtime.Gosched()
	}
}

// startingRegistry lets a container start in the moment in which its log is let
// go.
type startingRegistry struct {
	Registry
	start func()
}

func (r *startingRegistry) Unregister(log uint32) {
	r.Registry.Unregister(log)
	if start := r.start; start != nil {
		r.start = nil
		start()
	}
}

func TestFileMonitorStartWhileLettingGo(t *testing.T) {
	f := newFixture(t, nil, nil)
	reg := &startingRegistry{Registry: f.store}
	f.m.cfg.Registry = reg
	info := f.info("a")
	f.write("a", jsonEntry("stdout", "one\n", at(1)))
	f.m.add(info)
	first := f.work()
	if got := texts(first); !reflect.DeepEqual(got, []string{"one"}) {
		t.Fatalf("%q", got)
	}
	f.ack(first)
	again := info
	again.Name, again.StartedAt, again.FinishedAt = "renamed", at(20), at(10)
	reg.start = func() {
		f.write("a", jsonEntry("stdout", "two\n", at(21)))
		f.m.add(again)
	}
	f.m.containerExited("a")
	lines := f.work()
	lines = append(lines, f.work()...)
	if len(lines) != 1 || lines[0].text != "two" || lines[0].name != "renamed" {
		t.Errorf("%+v", lines)
	}
	// And one that is removed in it.
	reg.start = func() { f.m.containerRemoved("a") }
	f.m.containerExited("a")
	f.ack(lines)
	f.work()
	f.m.poll()
	if ids, keys := f.m.ids(), f.store.Keys(); len(ids) != 0 || len(keys) != 0 {
		t.Errorf("%q, positions %q", ids, keys)
	}
}
