package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/disk/casetest"
	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

var t0 = time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openMem opens a spool on a disk in memory; the one before is killed.
func openMem(t testing.TB, cfg Config, d *disktest.Disk) *Spool {
	t.Helper()
	d.Kill()
	cfg.Files = d.Mount()
	cfg.Lanes = max(1, cfg.Lanes)
	s, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() }) // tests that care close it themselves
	return s
}

// laneFile is the path of a file of the first lane.
func laneFile(name string) string { return dirName + "/" + laneDir(0) + "/" + name }

// names gives the names of the files in the first lane.
func names(t testing.TB, s *Spool) (out []string) {
	t.Helper()
	all, err := s.Lane(0).files.List()
	must(t, err)
	for _, f := range all {
		out = append(out, f.Name)
	}
	return out
}

// wantCounts compares what was appended, acknowledged and refused since the start, and
// the writes that failed.
func wantCounts(t testing.TB, s *Spool, frames, records, acked, refused, writeErrors float64) {
	t.Helper()
	for _, m := range []struct {
		name string
		c    prometheus.Counter
		want float64
	}{
		{"appended_frames", s.m.appended, frames},
		{"appended_records", s.m.appendedRecords, records},
		{"acked_frames", s.m.acked, acked},
		{"refused_appends", s.m.refused, refused},
		{"write_errors", s.m.writeErrors, writeErrors},
	} {
		if got := testutil.ToFloat64(m.c); got != m.want {
			t.Errorf("%s is %v, want %v", m.name, got, m.want)
		}
	}
}

func frame(text string) Frame { return Frame{Payload: []byte(text), Records: 1, Oldest: t0.UnixNano()} }

// random gives bytes that cannot be compressed.
func random(n int) string {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

// wantNext reads frames and compares their payloads.
func wantNext(t testing.TB, l *Lane, payloads ...string) (seqs []uint64) {
	t.Helper()
	for _, want := range payloads {
		f, ok, err := l.Next(nil)
		if err != nil || !ok || string(f.Payload) != want {
			t.Fatalf("next: %q, %v, %v; want %q", f.Payload, ok, err, want)
		}
		seqs = append(seqs, f.Seq)
	}
	return seqs
}

func wantNothing(t testing.TB, l *Lane) {
	t.Helper()
	if f, ok, err := l.Next(nil); ok || err != nil {
		t.Fatalf("next: %q, %v, %v; want nothing", f.Payload, ok, err)
	}
}

// TestCases opens the directories of testdata. Each has a README that says what
// happened to it; want is what is made of it.
func TestCases(t *testing.T) {
	casetest.Run(t, 20, func(t *testing.T, c casetest.Case) []byte {
		data := t.TempDir()
		lane := filepath.Join(data, dirName, laneDir(0))
		must(t, os.MkdirAll(lane, 0o700))
		c.Copy(t, lane)
		var log bytes.Buffer
		s, err := Open(Config{Dir: data, Lanes: 1, Logger: casetest.Logger(&log)})
		must(t, err)
		var got bytes.Buffer
		h := s.Health()
		fmt.Fprintf(&got, "opened: %d frames, %d records\n", h.Frames, h.Records)
		list := func(when string) {
			fmt.Fprintf(&got, "files %s: %s\n", when, strings.Join(names(t, s), " "))
		}
		list("after opening")
		l := s.Lane(0)
		for {
			f, ok, err := l.Next(nil)
			must(t, err)
			if !ok {
				break
			}
			fmt.Fprintf(&got, "frame %d: %q, %d records, oldest %d\n", f.Seq, f.Payload, f.Records, f.Oldest)
			must(t, l.Ack(f.Seq))
		}
		for _, m := range []struct {
			name string
			c    prometheus.Counter
		}{
			{"frames lost", s.m.lostFrames},
			{"records lost", s.m.lostRecords},
			{"torn", s.m.torn},
			{"set aside", s.m.setAside},
			{"damaged cursors", s.m.damagedCursors},
		} {
			if v := testutil.ToFloat64(m.c); v != 0 {
				fmt.Fprintf(&got, "%s: %v\n", m.name, v)
			}
		}
		if h := s.Health(); h.Frames != 0 || h.Records != 0 || h.State != Empty {
			t.Errorf("read to the end, and yet %+v", h)
		}
		list("at the end")
		must(t, l.Append(frame("new")))
		seqs := wantNext(t, l, "new")
		fmt.Fprintf(&got, "next number: %d\n", seqs[0])
		must(t, s.Close())
		got.WriteString(log.String())

		// The next start finds what was appended, and nothing to complain of.
		log.Reset()
		s, err = Open(Config{Dir: data, Lanes: 1, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		must(t, err)
		wantNext(t, s.Lane(0), "new")
		wantNothing(t, s.Lane(0))
		must(t, s.Close())
		if log.Len() > 0 {
			t.Errorf("the second start says %s", log.String())
		}

		return got.Bytes()
	})
}

func TestInOrderAcrossSegmentsAndRestarts(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{segmentBytes: 200}, dir)
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprint("frame ", i))
		must(t, s.Lane(0).Append(frame(want[i])))
	}
	seqs := wantNext(t, s.Lane(0), want[:10]...)
	for _, seq := range seqs[:7] {
		must(t, s.Lane(0).Ack(seq))
	}
	must(t, s.Lane(0).Ack(seqs[8])) // not before 7 is done
	wantCounts(t, s, 40, 40, 8, 0, 0)
	must(t, s.Close())

	s = openMem(t, Config{segmentBytes: 200}, dir)
	if h := s.Health(); h.Frames != 33 || h.Records != 33 {
		t.Fatalf("%+v", h)
	}
	must(t, s.Lane(0).Append(frame("last")))
	seqs = wantNext(t, s.Lane(0), append(want[7:], "last")...)
	wantNothing(t, s.Lane(0))
	slices.Reverse(seqs) // any order
	for _, seq := range seqs {
		must(t, s.Lane(0).Ack(seq))
	}
	if names := names(t, s); len(names) != 1 || !s.Lane(0).Empty() {
		t.Fatalf("all is done, and there are %v", names)
	}
	must(t, s.Lane(0).Append(frame("again")))
	wantNext(t, s.Lane(0), "again")
	wantCounts(t, s, 2, 2, 34, 0, 0) // what was found there was appended before
}

func TestOneSyncForAGroup(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{}, dir)
	before := dir.Counts()
	since := func(what string, syncs, dirSyncs int) {
		t.Helper()
		if c := dir.Counts(); c.Syncs-before.Syncs != syncs || c.DirSyncs-before.DirSyncs != dirSyncs {
			t.Fatalf("%+v %s, and %+v before", c, what, before)
		}
	}
	must(t, s.Lane(0).Append(frame("a")))
	since("after a new segment", 1, 1)
	must(t, s.Lane(0).Append(frame("b"), frame("c"), frame("d")))
	since("after three frames more", 2, 1)
	for _, seq := range wantNext(t, s.Lane(0), "a", "b") {
		must(t, s.Lane(0).Ack(seq))
	}
	since("after two acks", 2, 1)
}

func TestFull(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		room int64 // in the file system; 0: no limit
		text string
	}{
		"cap":   {cfg: Config{MaxBytes: 1000, MinFreeBytes: -1}, text: "raise spool.max_bytes"},
		"floor": {cfg: Config{MinFreeBytes: 5000}, room: 5500, text: "lower spool.min_free_bytes"},
		"disk":  {cfg: Config{MinFreeBytes: -1}, room: 700, text: "no space left on device; free space on the file system"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c.cfg.Lanes = 2
			c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			reg := prometheus.NewRegistry()
			c.cfg.Registerer = reg
			dir := disktest.New()
			s := openMem(t, c.cfg, dir)
			must(t, s.Lane(0).Append(frame("small")))
			must(t, s.Lane(1).Append(frame("small")))
			if c.room > 0 {
				dir.Fill(c.room)
			}
			used, before := s.Health().DiskBytes, dir.Used()
			for range 2 {
				err := s.Lane(1).Append(frame("also small"), frame(random(800)))
				if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), c.text) {
					t.Fatalf("%v", err)
				}
			}
			h := s.Health()
			if h.State != Full || gaugeOf(t, reg, "full") != 1 || h.Full == nil || h.Frames != 2 || h.DiskBytes != used || dir.Used() != before {
				t.Fatalf("%+v, %d bytes in the lane, %d before", h, dir.Used(), before)
			}
			if n := strings.Count(log.String(), "spool takes no more"); n != 1 {
				t.Fatalf("said %d times:\n%s", n, log.String())
			}
			dir.Heal()
			must(t, s.Lane(1).Append(frame("fits")))
			if h := s.Health(); h.State == Full || gaugeOf(t, reg, "full") != 0 || h.Full != nil || strings.Count(log.String(), "spool takes lines again") != 1 {
				t.Fatalf("%+v\n%s", h, log.String())
			}
			wantNext(t, s.Lane(1), "small", "fits")
			writeErrors := 0.0
			if name == "disk" {
				writeErrors = 2
			}
			wantCounts(t, s, 3, 3, 0, 2, writeErrors) // two attempts of two frames each
		})
	}
}

func TestSpaceComesBack(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{MaxBytes: 3000, MinFreeBytes: -1, segmentBytes: 500}, dir)
	l := s.Lane(0)
	n := 0
	for ; ; n++ {
		if err := l.Append(frame(random(200))); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	for i := range 5 * n { // round and round
		seqs := wantNext(t, l, random(200))
		must(t, l.Ack(seqs[0]))
		if err := l.Append(frame(random(200))); err != nil && i > 3 && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if h := s.Health(); h.Frames < uint64(n)/2 || h.DiskBytes > 3000 {
		t.Fatalf("%d frames fit at first, and now %+v", n, h)
	}
}

func TestBadFrames(t *testing.T) {
	s := openMem(t, Config{}, disktest.New())
	l := s.Lane(0)
	for name, f := range map[string]Frame{
		"no records":       {Payload: []byte("x")},
		"too many records": {Payload: []byte("x"), Records: math.MaxInt},
		"too large":        {Payload: make([]byte, MaxPayloadBytes+1), Records: 1},
	} {
		if err := l.Append(frame("good"), f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	must(t, l.Append())
	wantNothing(t, l)
	if err := l.Ack(1); !errors.Is(err, ErrNotGiven) {
		t.Errorf("ack of what was not given: %v", err)
	}
	must(t, l.Append(frame("")))
	seqs := wantNext(t, l, "")
	must(t, l.Ack(seqs[0]))
	if err := l.Ack(seqs[0]); !errors.Is(err, ErrNotGiven) {
		t.Errorf("second ack: %v", err)
	}
	wantCounts(t, s, 1, 1, 1, 0, 0)
	must(t, s.Close())
	must(t, s.Close())
	if _, _, err := l.Next(nil); !errors.Is(err, os.ErrClosed) || !errors.Is(l.Append(frame("x")), os.ErrClosed) || !errors.Is(l.Ack(1), os.ErrClosed) {
		t.Error("a closed spool works")
	}
}

// TestUnreadable: what the disk does not give back for an hour is lost, and the rest is
// not; what it gives back before that is not lost.
func TestUnreadable(t *testing.T) {
	now := t0
	dir := disktest.New()
	s := openMem(t, Config{segmentBytes: 1, Now: func() time.Time { return now }}, dir)
	l := s.Lane(0)
	for _, text := range []string{"a", "b", "c"} {
		must(t, l.Append(frame(text)))
	}
	wantError := func() {
		t.Helper()
		if _, ok, err := l.Next(nil); ok || err == nil {
			t.Fatalf("%v, %v of a file that cannot be read", ok, err)
		}
		if err := l.Scan(func(Frame) error { return nil }); err == nil {
			t.Fatal("what cannot be read is scanned")
		}
	}
	dir.Fail(disktest.Open)
	wantError()
	dir.Heal()
	dir.Fail(disktest.Read)
	wantError()
	now = now.Add(readPatience - 1)
	wantError()
	dir.Heal()
	wantNext(t, l, "a")
	if f := testutil.ToFloat64(s.m.lostFrames); f != 0 || s.Health().Frames != 3 {
		t.Fatalf("%v frames lost, %+v", f, s.Health())
	}
	dir.Fail(disktest.Read)
	wantError()
	now = now.Add(readPatience)
	wantNothing(t, l)
	dir.Heal()
	must(t, l.Append(frame("d")))
	wantNext(t, l, "d")
	if f, r := testutil.ToFloat64(s.m.lostFrames), testutil.ToFloat64(s.m.lostRecords); f != 2 || r != 2 {
		t.Fatalf("%v frames and %v records lost", f, r)
	}
}

// badSector is a directory on a disk with a place that cannot be read.
type badSector struct {
	disk.Dir
	name     string
	from, to int64
}

func (d badSector) Sub(name string) (disk.Dir, error) {
	sub, err := d.Dir.Sub(name)
	d.Dir = sub
	return d, err
}

func (d badSector) Open(name string, flag int) (disk.File, error) {
	f, err := d.Dir.Open(name, flag)
	if err != nil || name != d.name {
		return f, err
	}
	return badFile{f, d}, nil
}

type badFile struct {
	disk.File
	d badSector
}

func (f badFile) ReadAt(b []byte, off int64) (int, error) {
	if off < f.d.to && off+int64(len(b)) > f.d.from {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(b, off)
}

// TestBadSector: only the frames in it are lost, also when it is found at the start.
func TestBadSector(t *testing.T) {
	now := t0
	data := disktest.New()
	cfg := Config{Now: func() time.Time { return now }, segmentBytes: 100_000}
	s := openMem(t, cfg, data)
	var texts []string
	for i := range 120 { // two segments
		texts = append(texts, fmt.Sprint(i, " ", random(1000)))
		must(t, s.Lane(0).Append(frame(texts[i])))
	}
	for _, restart := range []bool{false, true} {
		c := data
		if restart {
			must(t, s.Close())
			c = data.Clone()
		}
		cfg.Files = badSector{Dir: c.Mount(), name: segmentName(1), from: 40_000, to: 44_096}
		if restart { // the seal, of which the newest bytes are
			cfg.Files = badSector{Dir: c.Mount(), name: segmentName(1), from: 40_000, to: 1 << 30}
		}
		cfg.Lanes = 1
		b, err := Open(cfg)
		must(t, err)
		if h := b.Health(); h.Frames != 120 {
			t.Fatalf("%+v", h)
		}
		l := b.Lane(0)
		var got []string
		for waits := 0; ; {
			f, ok, err := l.Next(nil)
			if err != nil {
				if waits++; waits > 1 {
					t.Fatalf("it is waited for again: %v", err)
				}
				now = now.Add(readPatience)
				continue
			}
			if !ok {
				break
			}
			got = append(got, string(f.Payload))
		}
		lost := int(testutil.ToFloat64(b.m.lostFrames))
		if restart && lost < 50 || !restart && (lost < 4 || lost > 12) || len(got)+lost != 120 || got[len(got)-1] != texts[119] || got[30] != texts[30] {
			t.Errorf("restart %v: %d frames, %d lost", restart, len(got), lost)
		}
		must(t, b.Close())
	}
}

// TestNobodyAsksAgain: what was refused has found another way, and the spool is not
// full for ever.
func TestNobodyAsksAgain(t *testing.T) {
	for name, fault := range map[string]func(*disktest.Disk){
		"full":   func(d *disktest.Disk) { d.Fill(0) },
		"broken": func(d *disktest.Disk) { d.Fail(disktest.Sync) },
	} {
		t.Run(name, func(t *testing.T) {
			now := t0
			dir := disktest.New()
			s := openMem(t, Config{Now: func() time.Time { return now }, MinFreeBytes: -1}, dir)
			fault(dir)
			if err := s.Lane(0).Append(frame("a")); err == nil {
				t.Fatal("appended")
			}
			dir.Heal()
			now = now.Add(askAgainWithin - 1)
			if h := s.Health(); h.Full == nil && h.WriteError == nil {
				t.Errorf("%+v", h)
			}
			now = now.Add(1)
			if h := s.Health(); h.State != Empty || h.Full != nil || h.WriteError != nil {
				t.Errorf("%+v", h)
			}
		})
	}
}

// TestReadOnly: what is in a spool that cannot be written is sent from where the cursor
// stands; nothing new is taken until it can be.
func TestReadOnly(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{segmentBytes: 200}, dir)
	l := s.Lane(0)
	for _, text := range []string{"a", "b", "c", "d", "e", "f"} {
		must(t, l.Append(frame(text)))
	}
	must(t, l.Ack(wantNext(t, l, "a", "b")[0]))
	dir.ReadOnly()
	for range 2 { // the cursor does not move
		s = openMem(t, Config{segmentBytes: 200}, dir)
		l = s.Lane(0)
		if err := l.Append(frame("x")); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "mount the file system of data_dir for writing") {
			t.Fatal(err)
		}
		seqs := wantNext(t, l, "b", "c", "d", "e", "f")
		wantNothing(t, l)
		for _, seq := range seqs[:4] {
			if err := l.Ack(seq); !errors.Is(err, syscall.EROFS) {
				t.Fatal(err)
			}
		}
		if n := testutil.ToFloat64(s.m.lostFrames) + testutil.ToFloat64(s.m.setAside); n != 0 {
			t.Fatalf("%v frames lost or files set aside", n)
		}
		wantCounts(t, s, 0, 0, 4, 0, 1) // done, though the cursor does not say so
	}
	dir.Heal()
	must(t, l.Append(frame("g")))
	must(t, l.Ack(wantNext(t, l, "g")[0]))
	s = openMem(t, Config{}, dir)
	wantNext(t, s.Lane(0), "f", "g") // f was not done
}

// TestRemovedByHand: a segment that somebody has removed does not stop its lane.
func TestRemovedByHand(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{segmentBytes: 1}, dir)
	l := s.Lane(0)
	for _, text := range []string{"a", "b", "c"} {
		must(t, l.Append(frame(text)))
	}
	must(t, l.files.Remove(segmentName(2)))
	wantNext(t, l, "a", "c")
	if f, r := testutil.ToFloat64(s.m.lostFrames), testutil.ToFloat64(s.m.lostRecords); f != 1 || r != 1 {
		t.Fatalf("%v frames and %v records lost", f, r)
	}
}

// TestFullUntilDrained: nobody may append for long after an outage; the spool is
// not full for all that time.
func TestFullUntilDrained(t *testing.T) {
	s := openMem(t, Config{Lanes: 2, MaxBytes: 500, MinFreeBytes: -1}, disktest.New())
	must(t, s.Lane(0).Append(frame("a")))
	must(t, s.Lane(0).Append(frame("b")))
	refuse := func() {
		t.Helper()
		if err := s.Lane(1).Append(frame(random(600))); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		wantNothing(t, s.Lane(1)) // looking is not enough
		if h := s.Health(); h.State != Full {
			t.Fatalf("%+v", h)
		}
	}
	refuse()
	for _, seq := range wantNext(t, s.Lane(0), "a", "b") {
		if h := s.Health(); h.State != Full {
			t.Fatalf("%+v", h)
		}
		must(t, s.Lane(0).Ack(seq))
	}
	if h := s.Health(); h.State != Empty || h.Full != nil {
		t.Fatalf("%+v", h)
	}
	refuse() // an empty spool can be full
}

// gaugeOf gives a gauge of the spool.
func gaugeOf(t testing.TB, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() == "log_capturer_spool_"+name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

func TestHealth(t *testing.T) {
	now := t0
	dir := disktest.New()
	reg := prometheus.NewRegistry()
	s := openMem(t, Config{Now: func() time.Time { return now }, Registerer: reg, MaxBytes: 101_000, MinFreeBytes: -1}, dir)
	l := s.Lane(0)
	gauge := func(name string) float64 { return gaugeOf(t, reg, name) }
	if h := s.Health(); h.State != Empty || !h.Oldest.IsZero() || h.MaxBytes != 101_000 {
		t.Fatalf("%+v", h)
	}
	for i := range 21 { // 1,000 bytes and a header a second
		must(t, l.Append(Frame{Payload: []byte(random(1000)), Records: 7, Oldest: t0.Add(time.Duration(i) * time.Second).UnixNano()}))
		now = now.Add(time.Second)
	}
	h := s.Health()
	if h.State != Filling || h.Frames != 21 || h.Records != 147 || !h.Oldest.Equal(t0) || h.TimeLeft < 45*time.Second || h.TimeLeft > 60*time.Second {
		t.Fatalf("%+v", h)
	}
	if a, f, b := gauge("oldest_seconds"), gauge("frames"), gauge("bytes"); a != 21 || f != 21 || b != float64(h.DiskBytes) || gauge("time_left_seconds") < 45 {
		t.Fatalf("age %v, frames %v, bytes %v", a, f, b)
	}
	if r, most := gauge("records"), gauge("max_bytes"); r != 147 || most != 101_000 {
		t.Fatalf("records %v, max_bytes %v", r, most)
	}
	for range 15 {
		f, _, err := l.Next(nil)
		must(t, err)
		must(t, l.Ack(f.Seq))
		now = now.Add(time.Second)
	}
	if h := s.Health(); h.State != Draining || h.TimeLeft != 0 || h.Frames != 6 {
		t.Fatalf("%+v", h)
	}
	wantCounts(t, s, 21, 147, 15, 0, 0)
	if a, f, r, left := gauge("oldest_seconds"), gauge("frames"), gauge("records"), gauge("time_left_seconds"); a < 21 || f != 6 || r != 42 || left != 0 {
		t.Fatalf("age %v, frames %v, records %v, left %v", a, f, r, left)
	}
	if _, err := Open(Config{Files: dir.Mount(), Registerer: reg}); err == nil {
		t.Fatal("metrics registered twice")
	}
}

// TestTornTailIsCutOnce: the next start does not find it again.
func TestTornTailIsCutOnce(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{}, dir)
	must(t, s.Lane(0).Append(frame("a")))
	whole, _ := dir.Read(laneFile(segmentName(1)))
	must(t, s.Lane(0).Append(frame("b")))
	both, _ := dir.Read(laneFile(segmentName(1)))
	dir.Put(laneFile(segmentName(1)), both[:len(whole)+30])
	for _, torn := range []float64{1, 0} {
		s = openMem(t, Config{}, dir)
		if n := testutil.ToFloat64(s.m.torn); n != torn || s.Health().Frames != 1 {
			t.Fatalf("%v torn tails, want %v; %+v", n, torn, s.Health())
		}
	}
}

// TestKillThenPowerLoss: what a killed process had written and not synced is
// found; from then on it must not get lost.
func TestKillThenPowerLoss(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{}, dir)
	must(t, s.Lane(0).Append(frame("a")))
	dir.DieAfter(1, 100)
	if err := s.Lane(0).Append(frame("b")); !errors.Is(err, disktest.ErrDead) {
		t.Fatal(err)
	}
	s = openMem(t, Config{}, dir)
	must(t, s.Lane(0).Append(frame("c")))
	dir.PowerLoss(func(string, int) int { return 0 })
	s = openMem(t, Config{}, dir)
	wantNext(t, s.Lane(0), "a", "b", "c")
	wantNothing(t, s.Lane(0))
	if n := testutil.ToFloat64(s.m.lostFrames); n != 0 {
		t.Fatalf("%v frames lost", n)
	}
}

// TestLanesOfBefore: an agent that had more lanes has left frames.
func TestLanesOfBefore(t *testing.T) {
	data := t.TempDir()
	s, err := Open(Config{Dir: data, Lanes: 4, MinFreeBytes: -1})
	must(t, err)
	must(t, s.Lane(2).Append(frame("left")))
	must(t, s.Close())
	s, err = Open(Config{Dir: data, Lanes: 2, MinFreeBytes: -1})
	must(t, err)
	if s.Lanes() != 3 { // the fourth is empty
		t.Fatalf("%d lanes", s.Lanes())
	}
	seqs := wantNext(t, s.Lane(2), "left")
	must(t, s.Lane(2).Ack(seqs[0]))
	must(t, s.Close())
	s, err = Open(Config{Dir: data, Lanes: 2, MinFreeBytes: -1})
	must(t, err)
	if s.Lanes() != 2 {
		t.Fatalf("%d lanes", s.Lanes())
	}
	must(t, s.Close())
	if _, err := Open(Config{Dir: filepath.Join(data, "not there"), Lanes: 1}); err == nil {
		t.Fatal("opened without a data_dir")
	}
}

// TestConcurrent is for the race detector: one who appends, one who reads, one who looks.
func TestConcurrent(t *testing.T) {
	s := openMem(t, Config{Lanes: 2, segmentBytes: 2000}, disktest.New())
	const n = 300
	var wg sync.WaitGroup
	for i := range s.Lanes() {
		l := s.Lane(i)
		wg.Go(func() {
			for i := range n {
				if err := l.Append(frame(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := 0; i < n; {
				f, ok, err := l.Next(nil)
				if err != nil {
					t.Error(err)
					return
				}
				if !ok {
					s.Health()
					continue
				}
				if string(f.Payload) != fmt.Sprint(i) {
					t.Errorf("%q comes instead of %d", f.Payload, i)
				}
				if err := l.Ack(f.Seq); err != nil {
					t.Error(err)
				}
				i++
			}
		})
	}
	wg.Wait()
	if h := s.Health(); h.State != Empty || h.DiskBytes != 0 {
		t.Fatalf("%+v", h)
	}
}

// FuzzSegments puts any bytes in the place of an older and of the newest segment.
func FuzzSegments(f *testing.F) {
	cases, err := filepath.Glob("testdata/*/" + segmentName(1))
	must(f, err)
	for _, name := range cases {
		older, err := os.ReadFile(name)
		must(f, err)
		newest, _ := os.ReadFile(filepath.Join(filepath.Dir(name), segmentName(4))) // some have none
		cursor, _ := os.ReadFile(filepath.Join(filepath.Dir(name), cursorName))
		f.Add(older, newest, cursor, false)
		f.Add(older, newest, cursor, true)
	}
	f.Fuzz(func(t *testing.T, older, newest, cursor []byte, sums bool) {
		if sums { // the headers may say anything, and have the right checksum
			for _, b := range [][]byte{older, newest} {
				for i := range b {
					if h := b[i:]; bytes.HasPrefix(h, []byte(frameMagic)) && len(h) >= frameHeaderLen {
						binary.LittleEndian.PutUint32(h[frameHeaderLen-4:], checksum(h[:frameHeaderLen-4]))
					}
				}
			}
		}
		dir := disktest.New()
		dir.Put(laneFile(segmentName(1)), older)
		dir.Put(laneFile(segmentName(4)), newest)
		dir.Put(laneFile(cursorName), cursor)
		s := openMem(t, Config{}, dir)
		l := s.Lane(0)
		read := 0
		for last := uint64(0); ; read++ {
			f, ok, err := l.Next(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if f.Seq <= last {
				t.Fatalf("frame %d comes after %d", f.Seq, last)
			}
			last = f.Seq
			must(t, l.Ack(f.Seq))
		}
		if most := (len(older) + len(newest)) / frameHeaderLen; read > most {
			t.Fatalf("%d frames in the room of %d", read, most)
		}
		if h := s.Health(); h.Frames != 0 || h.Records != 0 || h.Bytes != 0 || h.DiskBytes != 0 {
			t.Fatalf("read to the end, and yet %+v", h)
		}
		must(t, l.Append(frame("new")))
		wantNext(t, l, "new")
	})
}
