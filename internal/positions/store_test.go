package positions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk/casetest"
	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var t0 = time.Date(2025, 11, 7, 12, 0, 0, 123, time.UTC)

func clock() time.Time { return t0 }

func at(n int64) entry.Position {
	return entry.Position{File: entry.FileID{Inode: 7, Handle: 0xab, Print: 0xcd}, Offset: n, Time: n, Ordinal: 1}
}

func ends(out, errs int64) [entry.NumStreams]entry.Position {
	return [entry.NumStreams]entry.Position{at(out), at(errs)}
}

type lines = [entry.NumStreams]int

// openDir opens a store on a directory and closes it with the test.
func openDir(t testing.TB, dir string, log *slog.Logger) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, Now: clock, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // tests that care close it themselves
	return s
}

// openMem opens a store on a disk in memory; the one before is killed.
func openMem(t testing.TB, d *disktest.Disk, log *slog.Logger) *Store {
	t.Helper()
	d.Kill()
	s, err := Open(Config{Files: d.Mount(), Now: clock, Logger: log})
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, s *Store, key string, out, errs int64) {
	t.Helper()
	saved, ok := s.Lookup(key)
	if want := ends(out, errs); !ok || saved.Positions != want {
		t.Fatalf("%s: known %v, delivered %v, want %v", key, ok, saved.Positions, want)
	}
}

// bodies gives the journal's lines behind the header, without checksums.
func bodies(t testing.TB, data []byte) (out []string) {
	t.Helper()
	text := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if text[0]+"\n" != header {
		t.Fatalf("header %q", text[0])
	}
	for _, l := range text[1:] {
		record, err := unseal([]byte(l))
		must(t, err)
		out = append(out, string(record))
	}
	return out
}

// journal gives the bytes of the journal.
func journal(d *disktest.Disk) []byte {
	data, _ := d.Read(journalName)
	return data
}

func sameLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Fatalf("got\n%s\nwant\n%s", g, w)
	}
}

func TestJournalText(t *testing.T) {
	files := disktest.New()
	s := openMem(t, files, nil)
	a := s.Register("abc", "web@1", [entry.NumStreams]entry.Position{})
	b := s.Register("b c", "", ends(5, 6))
	seq := s.Begin(a, ends(10, 10), lines{1, 0}) // stderr has nothing in flight and goes on at once
	must(t, s.Ack([]entry.Span{{Log: a, Seq: seq[0]}}))
	s.Register("abc", "web@2", ends(10, 10))
	s.Unregister(b)
	must(t, s.Forget("b c"))
	sameLines(t, bodies(t, journal(files)),
		"start 2025-11-07T12:00:00.000000123Z",
		`log abc - - "web@1"`,
		`log "b c" 7:ab:cd:5:5:1 7:ab:cd:6:6:1 ""`,
		"pos abc 7:ab:cd:10:10:1 7:ab:cd:10:10:1",
		`log abc 7:ab:cd:10:10:1 7:ab:cd:10:10:1 "web@2"`,
		`del "b c"`)

	s = openMem(t, files, nil) // compacted
	sameLines(t, bodies(t, journal(files)),
		"start 2025-11-07T12:00:00.000000123Z",
		`log abc 7:ab:cd:10:10:1 7:ab:cd:10:10:1 "web@2"`)
	if keys := fmt.Sprint(s.Keys()); keys != "[abc]" {
		t.Fatal(keys)
	}
}

func TestOneWritePerAck(t *testing.T) {
	files := disktest.New()
	s := openMem(t, files, nil)
	var spans []entry.Span
	for i := range 50 {
		n := s.Register(fmt.Sprint("log", i), "", ends(0, 0))
		seq := s.Begin(n, ends(1, 1), lines{1, 2})
		spans = append(spans, entry.Span{Log: n, Stream: entry.Stdout, Seq: seq[0]}, entry.Span{Log: n, Stream: entry.Stderr, Seq: seq[1]})
	}
	before := files.Counts()
	must(t, s.Ack(spans))
	must(t, s.Ack(spans)) // duplicates: nothing to write
	if after := files.Counts(); after.Writes-before.Writes != 1 || after.Syncs != before.Syncs {
		t.Fatalf("%+v, and before %+v: want one write more", after, before)
	}
	check(t, s, "log49", 1, 1)
	if s.inFlight != 0 {
		t.Fatal(s.inFlight)
	}
}

func TestIgnoredAcks(t *testing.T) {
	s := openMem(t, disktest.New(), nil)
	n := s.Register("a", "", ends(0, 0))
	seq := s.Begin(n, ends(1, 0), lines{1, 0})[0]
	for _, c := range []struct {
		name               string
		span               entry.Span
		duplicate, unknown float64
	}{
		{"no span", entry.Span{Log: n}, 0, 0},
		{"unknown log", entry.Span{Log: n + 1, Seq: 1}, 0, 1},
		{"unknown stream", entry.Span{Log: n, Stream: 9, Seq: 1}, 0, 2},
		{"not begun", entry.Span{Log: n, Seq: seq + 1}, 0, 3},
		{"other stream", entry.Span{Log: n, Stream: entry.Stderr, Seq: seq}, 0, 4},
		{"right", entry.Span{Log: n, Seq: seq}, 0, 4},
		{"again", entry.Span{Log: n, Seq: seq}, 1, 4},
	} {
		must(t, s.Ack([]entry.Span{c.span}))
		if d, u := testutil.ToFloat64(s.m.duplicateAcks), testutil.ToFloat64(s.m.unknownAcks); d != c.duplicate || u != c.unknown {
			t.Errorf("%s: %v duplicate, %v unknown; want %v and %v", c.name, d, u, c.duplicate, c.unknown)
		}
	}
	check(t, s, "a", 1, 0)
}

// TestFaultsAreCounted: of the disk, and of the agent.
func TestFaultsAreCounted(t *testing.T) {
	files := disktest.New()
	s := openMem(t, files, nil)
	n := s.Register("a", "", ends(0, 0))
	s.Begin(n+1, ends(1, 0), lines{1, 0})
	if got := testutil.ToFloat64(s.m.strayLines); got != 1 {
		t.Errorf("%v reads of logs that are not registered", got)
	}
	must(t, s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(1, 0), lines{1, 0})[0]}}))
	files.Fail(disktest.Sync)
	if err := s.flush(); err == nil {
		t.Error("no error of a sync that failed")
	}
	files.Heal()
	if got := testutil.ToFloat64(s.m.syncErrors); got != 1 {
		t.Errorf("%v syncs failed", got)
	}
}

// A container that stops and starts again while its lines are on their way.
func TestRegisterWithSpansInFlight(t *testing.T) {
	s := openMem(t, disktest.New(), nil)
	n := s.Register("a", "web@1", ends(0, 0))
	one := s.Begin(n, ends(10, 0), lines{1, 0})[0]
	s.Unregister(n)
	if got := s.Begin(n, ends(99, 99), lines{1, 1}); got != [entry.NumStreams]uint64{} {
		t.Fatalf("spans %v for a log that is not registered", got)
	}
	saved, _ := s.Lookup("a")
	if saved.Positions != ends(0, 0) || saved.Read != ends(10, 0) {
		t.Fatalf("%+v", saved)
	}
	if again := s.Register("a", "web@2", saved.Read); again != n {
		t.Fatalf("number %d, was %d", again, n)
	}
	two := s.Begin(n, ends(20, 0), lines{1, 0})[0]
	if two != one+1 {
		t.Fatalf("spans %d, %d", one, two)
	}
	must(t, s.Ack([]entry.Span{{Log: n, Seq: two}}))
	check(t, s, "a", 0, 0)
	if err := s.Forget("a"); !errors.Is(err, ErrInFlight) {
		t.Fatal(err)
	}
	must(t, s.Ack([]entry.Span{{Log: n, Seq: one}}))
	check(t, s, "a", 20, 0)
	s.Unregister(n)
	if m := s.Register("a", "web@2", ends(20, 0)); m == n {
		t.Fatal("a number was used again at once")
	}
}

func TestNumbersWrap(t *testing.T) {
	s := openMem(t, disktest.New(), nil)
	s.Register("one", "", ends(0, 0))
	s.lastLog = ^uint32(0)
	if n := s.Register("two", "", ends(0, 0)); n != 2 {
		t.Fatalf("number %d, want 2: neither 0 nor one that is taken", n)
	}
}

func TestRunSyncsOnceASecondAndOnlyWhenDirty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := disktest.New()
		s, err := Open(Config{Files: files.Mount()})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()

		syncs := files.Counts().Syncs
		time.Sleep(time.Hour) // of the bubble: no one waits
		if files.Counts().Syncs != syncs {
			t.Fatalf("%d syncs of an idle journal", files.Counts().Syncs-syncs)
		}
		n := s.Register("a", "", ends(0, 0))
		for i := range int64(50) { // 5 s of 10 acks/s
			seq := s.Begin(n, ends(i, 0), lines{1, 0})[0]
			must(t, s.Ack([]entry.Span{{Log: n, Seq: seq}}))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		if got := files.Counts().Syncs - syncs; got < 4 || got > 6 {
			t.Fatalf("%d syncs in 5 s", got)
		}
		// A read without lines is saved within a second, without an Ack.
		syncs = files.Counts().Syncs
		s.Begin(n, ends(100, 100), lines{})
		time.Sleep(syncEvery + time.Millisecond)
		if files.Counts().Syncs != syncs+1 {
			t.Fatalf("%d syncs", files.Counts().Syncs-syncs)
		}
		cancel()
		must(t, <-done)
		files.PowerLoss(func(string, int) int { return 0 })
		s, err = Open(Config{Files: files.Mount()})
		must(t, err)
		check(t, s, "a", 100, 100)
	})
}

func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := disktest.New()
		var out bytes.Buffer
		s, err := Open(Config{Files: files.Mount(), Logger: slog.New(slog.NewTextHandler(&out, nil))})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); must(t, <-done) }()
		n := s.Register("a", "", ends(0, 0))
		deliver := func(end int64) error {
			return s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(end, 0), lines{1, 0})[0]}})
		}
		must(t, deliver(1))
		time.Sleep(2 * time.Second)
		full := time.Now()
		files.Fill(20)
		for i := int64(2); i < 60; i++ {
			if err := deliver(i); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("ack on a full disk: %v", err)
			}
			check(t, s, "a", i, 0) // delivery goes on
			time.Sleep(time.Second)
		}
		var failing *SaveError
		if err := s.Health(); !errors.As(err, &failing) || !failing.Since.Equal(full) || !errors.Is(err, syscall.ENOSPC) ||
			!strings.Contains(err.Error(), "free space") {
			t.Fatalf("health %v, full since %v", s.Health(), full)
		}
		check(t, openMem(t, files.Clone(), nil), "a", 1, 0) // kill -9 now
		files.Heal()
		time.Sleep(3 * time.Second) // Run writes it without another Ack
		synctest.Wait()
		must(t, s.Health())
		check(t, openMem(t, files.Clone(), nil), "a", 59, 0)
		if got := strings.Count(out.String(), "positions cannot be saved"); got != 1 {
			t.Errorf("the failure was logged %d times:\n%s", got, &out)
		}
		if got := strings.Count(out.String(), "positions are saved again"); got != 1 {
			t.Errorf("the recovery was logged %d times:\n%s", got, &out)
		}
	})
}

// The journal of a start with a full disk: half-written and not replaceable.
func TestOpenWithoutRoom(t *testing.T) {
	files := disktest.New()
	s := openMem(t, files, nil)
	s.Register("a", "", ends(0, 0))
	files.Put(journalName, append(journal(files), "0123abcd pos a 7:"...))

	files.Fail(disktest.Rename)
	s = openMem(t, files, nil)
	if s.Health() == nil {
		t.Fatal("healthy, with a journal that could not be replaced")
	}
	n := s.Register("a", "", ends(0, 0))
	must(t, s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(3, 0), lines{1, 0})[0]}}))
	check(t, openMem(t, files.Clone(), nil), "a", 3, 0)
	if s.flush() == nil || s.Health() == nil {
		t.Fatal("healthy, with a journal that could not be replaced")
	}
	files.Heal()
	must(t, s.flush())
	must(t, s.Health())

	// A new data_dir has nothing to go on with.
	files = disktest.New()
	files.Fill(3)
	if _, err := Open(Config{Files: files.Mount()}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space") {
		t.Fatal(err)
	}
}

// On a file system that is read-only the agent goes on from where it was, says so, and
// saves all as soon as it can.
func TestReadOnly(t *testing.T) {
	d := disktest.New()
	s := openMem(t, d, nil)
	s.Register("a", "note", ends(1, 1))
	must(t, s.Close())
	d.ReadOnly()
	var out bytes.Buffer
	s = openMem(t, d, slog.New(slog.NewTextHandler(&out, nil)))
	check(t, s, "a", 1, 1)
	log := s.Register("a", "note", ends(1, 1))
	seqs := s.Begin(log, ends(2, 1), [entry.NumStreams]int{1, 0})
	if err := s.Ack([]entry.Span{{Log: log, Stream: entry.Stdout, Seq: seqs[0]}}); !errors.Is(err, syscall.EROFS) {
		t.Error(err)
	}
	if err := s.flush(); !errors.Is(err, syscall.EROFS) {
		t.Error(err)
	}
	if err := s.Health(); err == nil || !strings.Contains(err.Error(), "mount the file system of data_dir for writing") || !strings.Contains(out.String(), "positions cannot be saved") {
		t.Errorf("%v, said: %s", err, &out)
	}
	d.Heal()
	must(t, s.flush())
	must(t, s.Health())
	d.Kill()
	check(t, openMem(t, d, nil), "a", 2, 1)

	d = disktest.New()
	d.ReadOnly()
	if _, err := Open(Config{Files: d.Mount()}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a new data_dir: %v", err)
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir, nil)
	n := s.Register("a", "", ends(0, 0))
	name := filepath.Join(dir, journalName)
	size := func() int64 {
		fi, err := os.Stat(name)
		must(t, err)
		if fi.Size() != s.size || testutil.ToFloat64(s.m.journalBytes) != float64(s.size) {
			t.Fatalf("the file has %d bytes, the store thinks %d", fi.Size(), s.size)
		}
		return fi.Size()
	}
	end := int64(0)
	for size() <= compactBytes {
		for range 500 {
			end++
			must(t, s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(end, 0), lines{1, 0})[0]}}))
		}
	}
	must(t, s.flush())
	if got := size(); got > 1000 {
		t.Fatalf("%d bytes after compaction", got)
	}
	end++
	must(t, s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(end, 0), lines{1, 0})[0]}}))
	must(t, s.Close())
	check(t, openDir(t, dir, nil), "a", end, 0)
	fi, err := os.Stat(name)
	must(t, err)
	if fi.Mode().Perm() != 0o600 {
		t.Fatal(fi.Mode())
	}
}

func TestCompactionThatFailsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := disktest.New()
		var out bytes.Buffer
		s, err := Open(Config{Files: files.Mount(), compactBytes: 1, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		must(t, err)
		n := s.Register("a", "", ends(0, 0))
		s.rewrite = 0
		files.Fail(disktest.Open)
		for i := range int64(30) {
			must(t, s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(i+1, 0), lines{1, 0})[0]}}))
			must(t, s.flush()) // the old file does as well
			time.Sleep(time.Second)
		}
		if got := strings.Count(out.String(), "could not be compacted"); got != 1 {
			t.Fatalf("tried %d times in 30 s:\n%s", got, &out)
		}
		must(t, s.Health())
		files.Heal()
		time.Sleep(compactRetry)
		before := testutil.ToFloat64(s.m.rewrites)
		must(t, s.flush())
		if testutil.ToFloat64(s.m.rewrites) != before+1 {
			t.Fatal("not compacted when the disk was sound again")
		}
		check(t, s, "a", 30, 0)
	})
}

// TestJournalIsCounted: its size, the times that it was written anew, and what failed,
// each once.
func TestJournalIsCounted(t *testing.T) {
	files := disktest.New()
	var out bytes.Buffer
	s := openMem(t, files, slog.New(slog.NewTextHandler(&out, nil)))
	want := func(when string, rewrites, writeErrors float64) {
		t.Helper()
		for _, m := range []struct {
			name string
			c    prometheus.Collector
			want float64
		}{
			{"journal_bytes", s.m.journalBytes, float64(len(journal(files)))},
			{"rewrites_total", s.m.rewrites, rewrites},
			{"write_errors_total", s.m.writeErrors, writeErrors},
		} {
			if got := testutil.ToFloat64(m.c); got != m.want {
				t.Errorf("%s: %s is %v, want %v", when, m.name, got, m.want)
			}
		}
	}
	want("a start", 1, 0)
	n := s.Register("a", "", ends(0, 0))
	end := int64(0)
	ack := func() error {
		end++
		return s.Ack([]entry.Span{{Log: n, Seq: s.Begin(n, ends(end, 0), lines{1, 0})[0]}})
	}
	must(t, ack())
	want("a write", 1, 0)

	fails := func(when string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", when)
		}
	}
	files.Fill(20)
	fails("half a write", ack())
	want("half a write", 1, 1)
	files.Fail(disktest.Truncate)
	fails("half a write that stays", ack())
	want("half a write that stays", 1, 2)
	fails("neither a write nor a new journal", s.flush())
	want("neither a write nor a new journal", 1, 4)
	files.Heal()
	must(t, s.flush())
	want("room again", 1, 4)

	s.rewrite = 0
	must(t, s.flush())
	want("compacted", 2, 4)
	s.rewrite = 0
	files.DuringSync(func() {
		files.Fail(disktest.Write)
		fails("while it is compacted", ack())
	})
	fails("compacted, but for what came meanwhile", s.flush())
	want("compacted, but for what came meanwhile", 3, 6)

	if strings.Contains(out.String(), "could not be compacted") {
		t.Errorf("it was compacted, and it says\n%s", &out)
	}

	files.Heal()
	must(t, s.flush())
	files.Put(journalName, append(journal(files), "half a record"...))
	files.Fail(disktest.Rename)
	s = openMem(t, files, nil)
	want("a start that cannot write it anew", 0, 1)
	fails("still not", s.flush())
	want("still not", 0, 2)
	files.Heal()
	must(t, s.flush())
	want("repaired", 1, 2)
	check(t, s, "a", end, 0)
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := openDir(t, dir, nil)
	_, err := Open(Config{Dir: dir})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("second agent: %v", err)
	}
	must(t, s.Close())
	must(t, s.Close()) // a second time does nothing
	s2 := openDir(t, dir, nil)
	if !s2.FirstStart().Equal(t0) {
		t.Fatal(s2.FirstStart())
	}
	fi, err := os.Stat(dir)
	must(t, err)
	if fi.Mode().Perm() != 0o700 {
		t.Fatal(fi.Mode())
	}
}

func TestAfterClose(t *testing.T) {
	s := openDir(t, t.TempDir(), nil)
	n := s.Register("a", "", ends(0, 0))
	seq := s.Begin(n, ends(1, 0), lines{1, 0})[0]
	must(t, s.Close())
	if err := s.Ack([]entry.Span{{Log: n, Seq: seq}}); !errors.Is(err, errClosed) {
		t.Fatal(err)
	}
}

func TestMetricsAreRegistered(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir, Registerer: reg})
	must(t, err)
	n := s.Register("a", "", ends(0, 0))
	s.Begin(n, ends(1, 1), lines{1, 1})
	must(t, s.flush())
	const want = `
# HELP log_capturer_positions_spans_in_flight Spans of lines that were read and are not acknowledged yet.
# TYPE log_capturer_positions_spans_in_flight gauge
log_capturer_positions_spans_in_flight 2
# HELP log_capturer_positions_syncs_total Syncs of the positions journal that succeeded.
# TYPE log_capturer_positions_syncs_total counter
log_capturer_positions_syncs_total 2
# HELP log_capturer_positions_writes_total Writes to the positions journal that succeeded.
# TYPE log_capturer_positions_writes_total counter
log_capturer_positions_writes_total 1
`
	must(t, testutil.GatherAndCompare(reg, strings.NewReader(want), "log_capturer_positions_spans_in_flight",
		"log_capturer_positions_syncs_total", "log_capturer_positions_writes_total"))
	must(t, s.Close())
	// Names that are taken: an error, and data_dir is free again.
	if _, err := Open(Config{Dir: dir, Registerer: reg}); err == nil {
		t.Fatal("registered twice")
	}
	openDir(t, dir, nil)
}

// TestCases opens the journals of testdata. Each case has a README that says
// what happened to the journal, and in want what the agent must make of it: the
// counts, and the journal it leaves.
func TestCases(t *testing.T) {
	casetest.Run(t, 8, func(t *testing.T, c casetest.Case) []byte {
		dir := t.TempDir()
		c.Copy(t, dir)
		data, err := os.ReadFile(filepath.Join(dir, journalName))
		must(t, err)
		var out bytes.Buffer
		s := openDir(t, dir, slog.New(slog.NewTextHandler(&out, nil)))
		after, err := os.ReadFile(filepath.Join(dir, journalName))
		must(t, err)
		copies, err := filepath.Glob(filepath.Join(dir, journalName+".*"))
		must(t, err)
		kinds := "none"
		if len(copies) == 1 {
			kinds, _, _ = strings.Cut(strings.TrimPrefix(copies[0], filepath.Join(dir, journalName)+"."), "-2025")
			kept, err := os.ReadFile(copies[0])
			must(t, err)
			if !bytes.Equal(kept, data) {
				t.Error("the copy is not the journal")
			}
		} else if len(copies) > 1 {
			t.Errorf("copies %v", copies)
		}
		return fmt.Appendf(nil, "damaged=%v torn=%v unknown=%v copy=%s warnings=%d\n%s",
			testutil.ToFloat64(s.m.badRecords), testutil.ToFloat64(s.m.tornTails), testutil.ToFloat64(s.m.unknownRecords), kinds,
			strings.Count(out.String(), "level=WARN")+strings.Count(out.String(), "level=ERROR"), after)
	})
}

func TestOnlyThreeCopiesAreKept(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, journalName)
	for i := range 5 {
		must(t, os.WriteFile(name, fmt.Appendf(nil, "damage %d\n", i), 0o600))
		s, err := Open(Config{Dir: dir, Now: func() time.Time { return t0.Add(time.Duration(i) * time.Hour) }})
		must(t, err)
		must(t, s.Close())
	}
	copies, err := filepath.Glob(name + ".corrupt-*")
	must(t, err)
	if len(copies) != keepAside {
		t.Fatalf("%d copies", len(copies))
	}
	for i, c := range copies {
		data, err := os.ReadFile(c)
		must(t, err)
		if want := fmt.Sprintf("damage %d\n", i+2); string(data) != want {
			t.Fatalf("%s is %q, want %q", c, data, want)
		}
	}
	// The clock is set back: the newest copy has the oldest name.
	must(t, os.WriteFile(name, []byte("damage 5\n"), 0o600))
	s, err := Open(Config{Dir: dir, Now: func() time.Time { return t0.Add(-time.Hour) }})
	must(t, err)
	must(t, s.Close())
	copies, err = filepath.Glob(name + ".corrupt-*")
	must(t, err)
	data, err := os.ReadFile(copies[0])
	if err != nil || len(copies) != keepAside || string(data) != "damage 5\n" {
		t.Fatalf("%q is the oldest of %q, %v", data, copies, err)
	}
}

// Readers, lanes and Run at once, on a real disk; then what is read back is
// what was delivered.
func TestConcurrent(t *testing.T) {
	const logs, rounds = 8, 300
	dir := t.TempDir()
	s := openDir(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	spans := make(chan []entry.Span, logs)
	var readers, lanes sync.WaitGroup
	for i := range logs {
		n := s.Register(fmt.Sprint(i), "note", ends(0, 0))
		readers.Go(func() {
			for end := int64(1); end <= rounds; end++ {
				seqs := s.Begin(n, ends(end, end), lines{1, int(end % 2)})
				spans <- []entry.Span{{Log: n, Stream: entry.Stdout, Seq: seqs[0]}, {Log: n, Stream: entry.Stderr, Seq: seqs[1]}}
			}
		})
	}
	for range 3 {
		lanes.Go(func() {
			for sp := range spans {
				if err := s.Ack(sp); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 { // compactions in between
		s.mu.Lock()
		s.rewrite = 0
		s.mu.Unlock()
		must(t, s.flush())
	}
	readers.Wait()
	close(spans)
	lanes.Wait()
	cancel()
	must(t, <-ran)
	must(t, s.Close())
	s = openDir(t, dir, nil)
	for i := range logs {
		check(t, s, fmt.Sprint(i), rounds, rounds)
	}
}

func TestNoAllocations(t *testing.T) {
	s, spans := manyLogs(t, 10)
	for range 20 {
		oneRound(t, s, spans)
	}
	if n := testing.AllocsPerRun(200, func() { oneRound(t, s, spans) }); n != 0 {
		t.Fatalf("%v allocations for a Begin and Ack of 10 logs", n)
	}
}

func manyLogs(t testing.TB, n int) (*Store, []entry.Span) {
	s := openDir(t, t.TempDir(), nil)
	spans := make([]entry.Span, n)
	for i := range spans {
		key := fmt.Sprintf("%064x", i)
		spans[i].Log = s.Register(key, "name@2025", ends(0, 0))
	}
	return s, spans
}

func oneRound(t testing.TB, s *Store, spans []entry.Span) {
	for i := range spans {
		end := int64(spans[i].Seq) + 1
		spans[i].Seq = s.Begin(spans[i].Log, [entry.NumStreams]entry.Position{at(end), at(0)}, lines{1, 0})[0]
	}
	if err := s.Ack(spans); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkAck is one read of each of 100 logs and one Ack for all, with Run
// syncing and compacting beside it.
func BenchmarkAck(b *testing.B) {
	s, spans := manyLogs(b, 100)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	b.ReportAllocs()
	for b.Loop() {
		oneRound(b, s, spans)
	}
	cancel()
	must(b, <-done)
}
