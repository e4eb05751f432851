package monitors

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// idle reads a new log until its writes are watched.
func (f *fixture) idle(id string) ContainerLogFileInfo {
	f.t.Helper()
	info := f.info(id)
	f.write(id, jsonEntry("stdout", "first\n", at(0)))
	f.m.add(info)
	for range 2 + quietTicks {
		f.work()
		f.m.tick(nil)
	}
	f.wantWatched(id, stateIdle)
	return info
}

// wantWatched checks the state of a log, and that its writes are watched.
func (f *fixture) wantWatched(id string, want logState) {
	f.t.Helper()
	if _, writes := f.wake.Watched(filepath.Dir(f.path(id))); !writes || f.state(id) != want {
		f.t.Errorf("state %d, writes watched: %v; want %d, watched", f.state(id), writes, want)
	}
}

// told writes to a log and lets the monitor have what the kernel would say.
func (f *fixture) told(info ContainerLogFileInfo, text string) {
	f.t.Helper()
	f.write(info.ID, jsonEntry("stdout", text+"\n", at(1)))
	f.wake.Tell(filepath.Dir(info.LogPath), WakeEvent{Written: true})
	events, err := f.m.wake.wait(time.Now(), true, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.m.handle(events)
}

// TestBusyLogIsNotLeftToItsOldWatch: the reader is done with a log before its watch is
// taken away, and took it for a quiet one, since the tick had come late.
func TestBusyLogIsNotLeftToItsOldWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		info := f.idle("c")
		for range busyReads {
			time.Sleep(f.m.cfg.Tick)
			f.told(info, "x")
			f.m.tick(nil)
			f.work()
		}
		f.wantWatched("c", stateActive) // until the next tick
		time.Sleep(3 * f.m.cfg.Tick)
		f.write("c", jsonEntry("stdout", "late\n", at(1)))
		logs, _ := f.m.enqueueActive(nil)
		if got := texts(f.work()); !slices.Equal(got, []string{"late"}) {
			t.Errorf("got %q", got)
		}
		f.m.changeWatches(logs)
		if _, writes := f.wake.Watched(filepath.Dir(info.LogPath)); writes || f.state("c") != stateActive {
			t.Errorf("state %d, writes watched: %v; want it read on each tick", f.state("c"), writes)
		}
		f.m.logs["c"].tail.Close()
	})
}

// TestWriteWhileALogBecomesQuiet: it is read on each tick again.
func TestWriteWhileALogBecomesQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		info := f.info("c")
		f.write("c", jsonEntry("stdout", "1\n", at(1)))
		f.m.add(info)
		f.work()
		for range quietTicks {
			time.Sleep(f.m.cfg.Tick)
			f.m.tick(nil)
			f.work()
		}
		time.Sleep(f.m.cfg.Tick)
		f.write("c", jsonEntry("stdout", "2\n", at(2)))
		f.m.tick(nil)
		if got := texts(f.work()); !slices.Equal(got, []string{"2"}) {
			t.Errorf("got %q", got)
		}
		if _, writes := f.wake.Watched(filepath.Dir(info.LogPath)); writes || f.state("c") != stateActive {
			t.Errorf("state %d, writes watched: %v", f.state("c"), writes)
		}
		f.m.logs["c"].tail.Close()
	})
}

// lossyWake drops what it is to tell once a poll asks for it.
type lossyWake struct {
	wakeSource
	fake *fakeWake
	lose bool
}

func (w *lossyWake) wait(until time.Time, writes bool, events []WakeEvent) ([]WakeEvent, error) {
	if w.lose && !until.After(time.Now()) {
		w.lose = false
		w.fake.Overflow(WakeEvent{Overflow: true, Written: true})
	}
	return w.wakeSource.wait(until, writes, events)
}

// TestOverflowDuringAPoll: what is lost while a poll looks is looked for at once.
func TestOverflowDuringAPoll(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.idle("c")
	f.m.wake = &lossyWake{wakeSource: f.m.wake, fake: f.wake, lose: true}
	f.write("c", jsonEntry("stdout", "1\n", at(1)))
	if overflow := f.m.poll(); !overflow {
		t.Error("nobody is told of it")
	}
	f.work()
	if overflow := f.m.poll(); overflow {
		t.Error("told twice")
	}
	f.m.logs[info.ID].tail.Close()
}

// TestInotifyGate: writes wake only who waits for them, and are told to all.
func TestInotifyGate(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.close() }()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	appendTo(t, path, "x")
	wd, err := n.watch(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(d time.Duration, writes bool) (events []WakeEvent, took time.Duration) {
		t.Helper()
		began := time.Now()
		events, err := n.wait(began.Add(d), writes, nil)
		if err != nil {
			t.Fatal(err)
		}
		return events, time.Since(began)
	}
	const moment, long = 50 * time.Millisecond, time.Minute
	written := []WakeEvent{{WD: wd, Written: true}}
	for i := range 3 {
		appendTo(t, path, "x")
		if events, took := wait(long, true); !slices.Equal(events, written) || took >= long {
			t.Errorf("round %d: told %+v after %v", i, events, took)
		}
		appendTo(t, path, "x")
		if events, took := wait(moment, false); !slices.Equal(events, written) || took < moment {
			t.Errorf("round %d: told %+v, awake after %v", i, events, took)
		}
		// What was written before is waited for, too.
		appendTo(t, path, "x")
		if events, took := wait(moment, false); !slices.Equal(events, written) || took < moment {
			t.Errorf("round %d: told %+v, awake after %v", i, events, took)
		}
		// Files that appear wake, and bring with them what was written.
		appendTo(t, path, "x")
		if err := os.Rename(path, filepath.Join(dir, "g")); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, "f")
		appendTo(t, path, "")
		events, took := wait(long, false)
		if len(events) < 2 || took >= long || !events[0].Appeared || !events[len(events)-1].Written {
			t.Errorf("round %d: told %+v after %v", i, events, took)
		}
	}
	// No more writes: none is told, not even one under way.
	appendTo(t, path, "x")
	if again, err := n.watch(dir, false); err != nil || again != wd {
		t.Errorf("%d, %v", again, err)
	}
	if events, _ := wait(moment, true); len(events) != 0 {
		t.Errorf("told %+v", events)
	}
	if len(n.writesOf)+len(n.filesOf) != 0 {
		t.Errorf("left: %v, %v", n.writesOf, n.filesOf)
	}
	// A directory that is gone takes both watches with it.
	if _, err := n.watch(dir, true); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	ended := false
	for !ended {
		events, took := wait(long, false)
		if took >= long {
			t.Fatal("the end of the watch is not told")
		}
		ended = slices.ContainsFunc(events, func(e WakeEvent) bool { return e.Ended && e.WD == wd })
	}
	if _, err := n.wait(time.Now(), false, nil); err != nil {
		t.Fatal(err)
	}
	if len(n.writesOf)+len(n.filesOf) != 0 {
		t.Errorf("left: %v, %v", n.writesOf, n.filesOf)
	}
}

// TestInotifyWatchesUsedUp: the limit comes between the two watches of a log. It is
// read by the poll, and its rotations are still told.
func TestInotifyWatchesUsedUp(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.close() }()
	dir := t.TempDir()
	wd, err := n.watch(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	writes := n.writesFD
	n.writesFD = -1
	if _, err := n.watch(dir, true); err == nil {
		t.Fatal("watched without an instance")
	}
	n.writesFD = writes
	appendTo(t, filepath.Join(dir, "f"), "x")
	events, err := n.wait(time.Now().Add(time.Minute), false, nil)
	if err != nil || !slices.Equal(events, []WakeEvent{{WD: wd, Appeared: true}}) {
		t.Errorf("%+v, %v", events, err)
	}
	if again, err := n.watch(dir, true); err != nil || again != wd {
		t.Errorf("once there is room: %d, %v", again, err)
	}
}

// TestInotifyOverflowOfWrites: it is told apart from that of files, whose loss may hide
// a rotation.
func TestInotifyOverflowOfWrites(t *testing.T) {
	n, err := newInotify()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.close() }()
	dirs := [2]string{t.TempDir(), t.TempDir()}
	var files [2]int
	for i, dir := range dirs {
		path := filepath.Join(dir, "f")
		appendTo(t, path, "x")
		if _, err := n.watch(dir, true); err != nil {
			t.Fatal(err)
		}
		if files[i], err = unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(files[i]) })
	}
	for range 200_000 { // the kernel puts equal ones together only when one follows the other
		for _, fd := range files {
			if _, err := unix.Write(fd, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	events, err := n.wait(time.Now(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(events, WakeEvent{WD: -1, Overflow: true, Written: true}) || slices.Contains(events, WakeEvent{WD: -1, Overflow: true}) {
		t.Errorf("%d events, none of an overflow of writes, or one of files", len(events))
	}
}

// TestLongEntryWithLittleRoom: an entry with attributes that are longer than the room in
// the batch is one.
func TestLongEntryWithLittleRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		f.outlet.limit = 16 << 10
		stop := f.run()
		defer stop()
		attrs := strings.Repeat("x", readBytes-1024)
		info := f.info("c")
		f.write("c", jsonEntry("stdout", "1\n", at(1)),
			`{"log":"2\n","stream":"stdout","attrs":{"l":"`+attrs+`"},"time":"`+at(2).UTC().Format(time.RFC3339Nano)+"\"}\n",
			jsonEntry("stdout", "3\n", at(3)))
		f.m.add(info)
		synctest.Wait()
		f.want("1", "2", "3")
		f.wantMetric("parse_errors_total", 0)
	})
}
