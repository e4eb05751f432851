package monitors

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/positions"
	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

func TestMissed(t *testing.T) {
	for _, c := range []struct {
		name                string
		created, seq, first int64
		gap, blind          bool
		want                int64
	}{
		{"none", 2, 5, 3, false, false, 0},
		{"two", 4, 5, 3, true, false, 2},
		{"told by notifications alone", 4, 5, 3, false, false, 2},
		{"all were found after all", 2, 5, 3, true, false, 0},
		{"nobody tells", 0, 5, 3, true, true, 1},
		{"nobody tells, and there is no gap", 0, 5, 3, false, true, 0},
		{"some were told", 3, 5, 3, true, true, 1},
	} {
		if got := missed(c.created, c.seq, c.first, c.gap, c.blind); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestNeeded(t *testing.T) {
	id := func(n uint64) entry.FileID { return entry.FileID{Inode: n, Handle: 10 * n} }
	pos := func(file uint64, offset int64) entry.Position {
		return entry.Position{File: id(file), Offset: offset}
	}
	files := []passed{{id(1), 4}, {id(2), 5}, {id(3), 6}}
	printed := pos(2, 7)
	printed.File.Print = 99
	for _, c := range []struct {
		name          string
		unread        bool
		acked0, read0 entry.Position
		acked1, read1 entry.Position
		want          int64
	}{
		{"all is delivered", false, pos(1, 7), pos(1, 7), pos(3, 9), pos(3, 9), math.MaxInt64},
		{"and there is more to read", true, pos(1, 7), pos(1, 7), pos(3, 9), pos(3, 9), 6},
		{"one stream is on its way", true, pos(3, 7), pos(3, 8), pos(1, 9), pos(1, 9), 6},
		{"the other one is, from an older file", false, pos(3, 7), pos(3, 8), pos(2, 9), pos(3, 8), 5},
		{"a print has become known", false, printed, pos(3, 8), pos(3, 8), pos(3, 8), 5},
		{"nothing was delivered", false, entry.Position{}, pos(3, 8), pos(3, 8), pos(3, 8), 4},
	} {
		saved := positions.Saved{
			Positions: [entry.NumStreams]entry.Position{c.acked0, c.acked1},
			Read:      [entry.NumStreams]entry.Position{c.read0, c.read1},
		}
		if got := needed(6, c.unread, saved, files); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// rotatingLog is a container's log that a test rotates and whose agent sees it at
// once, unless it is not let.
type rotatingLog struct {
	*fixture
	w    *dockertest.Writer
	info ContainerLogFileInfo
	n    int
}

func newRotatingLog(t *testing.T, maxFiles int, change func(*FileMonitorConfig)) *rotatingLog {
	t.Helper()
	f := newFixture(t, nil, change)
	r := &rotatingLog{fixture: f, info: f.info("c")}
	r.w = dockertest.New(t, r.info.LogPath, maxFiles, false, false)
	t.Cleanup(r.w.Close)
	return r
}

// line writes a line and gives the bytes of its entry.
func (r *rotatingLog) line() int64 {
	r.n++
	e := jsonEntry("stdout", fmt.Sprintf("%d\n", r.n), at(r.n))
	r.w.Write([]byte(e))
	return int64(len(e))
}

func (r *rotatingLog) rotate() {
	r.w.Rotate()
	r.w.Finish()
	r.wake.Tell(filepath.Dir(r.w.Path), WakeEvent{Appeared: true, Created: true})
}

func (r *rotatingLog) handle() {
	r.m.handle(r.wake.Wait(time.Time{}, nil))
}

// wantLost holds what is counted against what was lost: in the metrics, by the
// container, in the state for /health.
func (r *rotatingLog) wantLost(reason lossReason, bytes, gaps int64) {
	r.t.Helper()
	r.wantMetric("lost_bytes_total", float64(bytes))
	r.wantMetric("file_gaps_total", float64(gaps))
	if got := counterOf(r.t, r.m.cfg.Metrics.lostBytes.WithLabelValues(string(reason))); got != float64(bytes) {
		r.t.Errorf("%v bytes lost as %s, want %d", got, reason, bytes)
	}
	if s := r.info.stats; s.LostBytes.Load() != bytes || s.Gaps.Load() != gaps {
		r.t.Errorf("by container %d bytes and %d gaps, want %d and %d", s.LostBytes.Load(), s.Gaps.Load(), bytes, gaps)
	}
	if h := r.m.Health(); h.LostAt.IsZero() != (bytes == 0) || h.GapAt.IsZero() != (gaps == 0) {
		r.t.Errorf("/health is told of a rest at %v and of a gap at %v", h.LostAt, h.GapAt)
	}
}

func counterOf(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func (r *rotatingLog) add() {
	r.info.stats = &entry.Stats{}
	r.m.add(r.info)
}

// TestLostToTheStream: a container that leaves its file leaves behind what only the
// agent still held.
func TestLostToTheStream(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	if got := texts(r.work()); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("%q", got)
	}
	lost := r.line()
	for range 2 {
		r.rotate()
		r.handle()
		r.line() // the engine still has these
	}
	r.m.ready[0].logs = nil
	r.m.logs["c"].state = stateFailed
	if !r.m.release("c") {
		t.Fatal("not released")
	}
	r.wantLost(lostStreamed, lost, 0)
}

// TestLostAtAStop: so does an agent that stops.
func TestLostAtAStop(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	r.work()
	lost := r.line() + r.line()
	for range 2 {
		r.rotate()
		r.handle()
		r.line()
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := r.m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	r.wantLost(lostStopped, lost, 0)
	// The next start finds the place gone.
	r.start(nil, nil)
	r.add()
	if got := texts(r.work()); !slices.Equal(got, []string{"4", "5"}) {
		t.Errorf("%q", got)
	}
	r.wantLost(lostStopped, 0, 1)
}

// TestLostBeforeTheFirstLine: a log that was begun, and taken by rotation before
// anything was delivered, is missed after a crash.
func TestLostBeforeTheFirstLine(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	r.work() // on its way
	for range 2 {
		r.rotate()
		r.line()
	}
	r.m.logs["c"].tail.Close()
	r.start(nil, nil)
	r.add()
	if got := texts(r.work()); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("%q", got)
	}
	r.wantLost(lostStopped, 0, 1)
	if s := r.info.stats; s.GapAfter.Load() != 0 || s.GapBefore.Load() != at(2).UnixNano() {
		t.Errorf("the gap lies between %d and %d", s.GapAfter.Load(), s.GapBefore.Load())
	}
}

// TestLostToTruncation: what is known to have been there is counted.
func TestLostToTruncation(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	r.work()
	r.m.tick(nil) // active: the poll looks and does not read
	lost := r.line()
	r.m.poll()
	if err := os.Truncate(r.w.Path, 0); err != nil {
		t.Fatal(err)
	}
	r.m.tick(nil)
	r.work()
	r.wantMetric("file_truncations_total", 1)
	r.wantLost(lostTruncated, lost, 0)
}

// TestLostUnreadable: what the disk does not give back of a file that rotation has left
// behind is given up, and reading goes on in the next one.
func TestLostUnreadable(t *testing.T) {
	r := newRotatingLog(t, 3, nil)
	r.line()
	r.add()
	r.work()
	lost := r.line()
	forbidReads(t, r.w.Path)
	r.rotate()
	r.handle()
	r.line()
	lines := r.work()
	r.m.logs["c"].retryAt = time.Time{}
	r.m.poll()
	if got := texts(append(lines, r.work()...)); !slices.Equal(got, []string{"3"}) {
		t.Errorf("%q", got)
	}
	r.wantLost(lostUnreadable, lost, 0)
}

// forbidReads makes every descriptor that this process has of a file one that cannot
// be read from.
func forbidReads(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		fd, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(link); err == nil && to == path && fd != int(f.Fd()) {
			if err := unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLostAfterAnExit: what comes to a log that somebody has deleted between the last
// look at it and its end is lost.
func TestLostAfterAnExit(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	r.ack(r.work())
	if err := os.Remove(r.w.Path); err != nil {
		t.Fatal(err)
	}
	lost := r.line()
	lg := r.m.logs["c"]
	lg.exited = true
	r.m.letGo(lg, false)
	r.wantLost(lostExited, lost, 0)
}

// TestLostArchive: of an archive that breaks nobody knows how much is lost.
func TestLostArchive(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	info.stats = &entry.Stats{}
	z := dockertest.Gzip(t, []byte(jsonEntry("stdout", "1\n", at(1))))
	if err := os.WriteFile(info.LogPath+".1.gz", z[:len(z)-4], 0o600); err != nil {
		t.Fatal(err)
	}
	f.write("c", jsonEntry("stdout", "2\n", at(2)))
	f.m.add(info)
	lines := f.work()
	f.m.logs["c"].retryAt = time.Time{}
	f.m.poll()
	if got := texts(append(lines, f.work()...)); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%q", got)
	}
	f.wantMetric("file_gaps_total", 1)
	if info.stats.Gaps.Load() != 1 || f.m.Health().LostAt.IsZero() {
		t.Errorf("%d gaps by container, told at %v", info.stats.Gaps.Load(), f.m.Health().LostAt)
	}
}

// TestNeverOpened: a container that is removed before its log could be opened is a
// gap, if it ran.
func TestNeverOpened(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *rotatingLog)
		gaps   int64
	}{
		{"never started", func(r *rotatingLog) { r.info.StartedAt = time.Time{} }, 0},
		{"too fast for us", func(*rotatingLog) {}, 1},
		{"no file but a link", func(r *rotatingLog) {
			r.info.StartedAt = time.Time{}
			if err := os.Symlink("/dev/null", r.w.Path); err != nil {
				r.t.Fatal(err)
			}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRotatingLog(t, 2, nil)
			if err := os.Remove(r.w.Path); err != nil {
				t.Fatal(err)
			}
			c.change(r)
			r.add()
			r.m.containerRemoved("c")
			r.wantLost(lostStopped, 0, c.gaps)
			if len(r.m.ids()) > 0 {
				t.Error("it is not forgotten")
			}
		})
	}
}

// TestGapTimes: a gap lies between the entry before it and the one behind it,
// though it is found before either has been read.
func TestGapTimes(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	r.work()
	r.line()
	for range 4 { // 3 and 4 are never seen
		r.rotate()
		r.line()
	}
	r.handle()
	s := r.info.stats
	if s.GapAfter.Load() != 0 || s.GapBefore.Load() != 0 {
		t.Error("the gap has times before reading has come there")
	}
	if got := texts(r.work()); !slices.Equal(got, []string{"2", "5", "6"}) {
		t.Fatalf("%q", got)
	}
	r.wantLost(lostStopped, 0, 2)
	if s.GapAfter.Load() != at(2).UnixNano() || s.GapBefore.Load() != at(5).UnixNano() {
		t.Errorf("the gap lies between %d and %d", s.GapAfter.Load(), s.GapBefore.Load())
	}
}

// TestGapUntold: where notifications are lost, or there are none, a gap is at
// least one file.
func TestGapUntold(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *rotatingLog)
		gaps   int64
	}{
		{"no watch", func(r *rotatingLog) { r.wake.Fail(os.ErrPermission) }, 1},
		{"overflow", func(r *rotatingLog) { r.wake.Overflow(WakeEvent{Overflow: true}) }, 1},
		{"all was told", func(*rotatingLog) {}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRotatingLog(t, 2, nil)
			c.change(r)
			r.line()
			r.add()
			r.work()
			r.handle()
			for range 4 {
				r.rotate()
				r.line()
			}
			if c.gaps == 1 {
				r.wake.Wait(time.Time{}, nil) // nobody hears it
			}
			r.handle()
			r.m.poll()
			r.wantLost(lostStopped, 0, c.gaps)
			// What is known again is exact again.
			r.work()
			r.m.poll()
			if lg := r.m.logs["c"]; lg.blind != (lg.wd < 0) {
				t.Errorf("watched by %d, blind: %v", lg.wd, lg.blind)
			}
		})
	}
}

// TestGapKeptOut: files that were kept out because too many were open, and taken
// by rotation then, are counted.
func TestGapKeptOut(t *testing.T) {
	r := newRotatingLog(t, 2, func(c *FileMonitorConfig) { c.MaxDescriptors = 3 })
	r.line()
	r.add()
	r.work()
	r.line()
	for range 5 { // at most three are open: 5 is taken
		r.rotate()
		r.line()
		r.handle()
	}
	r.m.poll()
	got := texts(r.work())
	if want := []string{"2", "3", "4", "6", "7"}; !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
	r.wantLost(lostStopped, 0, 1)
}

// TestUnlinked: a source is marked while lines of it are unread, or on their way,
// in files that have no name, and no longer.
func TestUnlinked(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	want := func(src *entry.Source, unlinked bool, when string) {
		t.Helper()
		if src.Unlinked.Load() != unlinked {
			t.Errorf("%s: %v", when, !unlinked)
		}
	}
	r.line()
	r.add()
	src := r.m.logs["c"].src
	first := r.work()
	want(src, false, "its file has a name")
	r.rotate()
	r.line()
	r.handle()
	second := r.work()
	want(src, false, "both files have names")
	r.rotate()
	r.line()
	r.handle()
	want(src, true, "the first file is unlinked, its line on its way")
	third := r.work()
	want(src, true, "all is read")
	r.ack(first)
	r.m.tick(nil)
	r.line()
	third = append(third, r.work()...)
	// The position is at the end of the first file until something of the next is
	// delivered.
	r.ack(second)
	r.m.tick(nil)
	third = append(third, r.work()...)
	want(src, false, "back on files with names")
	r.ack(third)

	r.line()
	if err := os.RemoveAll(filepath.Dir(r.w.Path)); err != nil {
		t.Fatal(err)
	}
	r.m.containerRemoved("c")
	want(src, true, "the container is removed, a line unread")
	if got := r.work(); len(got) != 1 {
		t.Errorf("%q", texts(got))
	}
	want(src, true, "its last line is on its way")
}

// TestUnlinkedDeletedLog: a log that somebody has deleted, and to which its
// container goes on writing, is nowhere else for each of its lines.
func TestUnlinkedDeletedLog(t *testing.T) {
	r := newRotatingLog(t, 2, nil)
	r.line()
	r.add()
	r.ack(r.work())
	src := r.m.logs["c"].src
	if err := os.Remove(r.w.Path); err != nil {
		t.Fatal(err)
	}
	r.wake.Tell(filepath.Dir(r.w.Path), WakeEvent{Appeared: true})
	r.handle()
	for range 3 {
		r.line()
		r.m.tick(nil)
		lines := r.work()
		if len(lines) != 1 || !src.Unlinked.Load() {
			t.Fatalf("%q is on its way, and marked: %v", texts(lines), src.Unlinked.Load())
		}
		r.ack(lines)
		r.m.tick(nil)
		r.work()
		if src.Unlinked.Load() {
			t.Fatal("all is delivered, and it is marked")
		}
		r.m.poll()
		r.work()
	}
}

// TestUnlinkedCost: a log that is written to and not rotated asks nobody.
func TestUnlinkedCost(t *testing.T) {
	lookups := &countingRegistry{}
	f := newFixture(t, nil, func(c *FileMonitorConfig) {
		lookups.Registry = c.Registry
		c.Registry = lookups
	})
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "1\n", at(1)))
	f.m.add(info)
	f.work()
	before := lookups.n
	for i := range 10 {
		f.write("c", jsonEntry("stdout", "x\n", at(i)))
		f.m.tick(nil)
		if len(f.work()) != 1 {
			t.Fatal("not read")
		}
	}
	if lookups.n != before {
		t.Errorf("%d questions", lookups.n-before)
	}
}

// countingRegistry counts how often it is asked.
type countingRegistry struct {
	Registry
	n int
}

func (r *countingRegistry) Lookup(key string) (positions.Saved, bool) {
	r.n++
	return r.Registry.Lookup(key)
}
