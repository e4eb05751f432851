package spool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
)

func TestReserveSizes(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		max, floor, segment int64
		lanes               int
		ofCap, ofFloor      int64
	}{
		{1 << 30, 256 * mib, 16 * mib, 4, 68 * mib, 64 * mib},
		{16 * mib, 256 * mib, mib / 2, 4, 4 * mib, 6 * mib},
		{1 << 40, 0, 16 * mib, 4, 68 * mib, 0},
		{1, -1, 64 << 10, 2, 0, 0},
	} {
		cfg := Config{Lanes: c.lanes, MaxBytes: c.max, MinFreeBytes: c.floor, segmentBytes: c.segment}
		if ofCap, ofFloor := cfg.reserve(); ofCap != c.ofCap || ofFloor != c.ofFloor {
			t.Errorf("%+v: %d of the cap, %d of the floor", c, ofCap, ofFloor)
		}
	}
}

// Where Append finds no room AppendReserved still does, up to the cap and down to a
// part of the floor.
func TestAppendReserved(t *testing.T) {
	for _, limit := range []string{"spool.max_bytes", "spool.min_free_bytes"} {
		t.Run(limit, func(t *testing.T) {
			dir := disktest.New()
			cfg := Config{Lanes: 2, MaxBytes: 40_000, MinFreeBytes: -1}
			if limit == "spool.min_free_bytes" {
				dir.Fill(80_000)
				cfg.MaxBytes, cfg.MinFreeBytes = 1<<30, 40_000
			}
			s := openMem(t, cfg, dir)
			fill := func(appendTo func(...Frame) error) (frames int64) {
				for {
					err := appendTo(Frame{Payload: []byte(random(1000)), Records: 1, Oldest: 1})
					if errors.Is(err, ErrFull) && strings.Contains(err.Error(), limit) {
						return frames
					}
					must(t, err)
					frames++
				}
			}
			common := fill(s.Lane(0).Append)
			ofReserve := fill(s.Lane(1).AppendReserved)
			if limit == "spool.max_bytes" && (common < 25 || common > 29 || ofReserve < 8 || ofReserve > 10) ||
				limit != "spool.max_bytes" && (common < 30 || ofReserve < 8 || ofReserve > 10) {
				t.Errorf("%d frames, then %d", common, ofReserve)
			}
			if fill(s.Lane(1).Append) != 0 {
				t.Error("the reserve is everybody's")
			}
		})
	}
}

// With a cap that was lowered below what lies there nothing is added, and what moves
// within the spool still finds room.
func TestCapLowered(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{Lanes: 2, MinFreeBytes: -1}, dir)
	for range 100 {
		must(t, s.Lane(0).Append(Frame{Payload: []byte(random(1000)), Records: 1, Oldest: 1}))
	}
	must(t, s.Close())
	s = openMem(t, Config{Lanes: 2, MaxBytes: 40_000, MinFreeBytes: -1}, dir)
	if err := s.Lane(0).Append(frame("a")); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	for i := range 100 {
		f, ok, err := s.Lane(0).Next(nil)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := s.Lane(1).AppendReserved(f); err != nil {
			if i < 9 || i > 10 { // a quarter of the cap
				t.Fatal(i, err)
			}
			break
		}
	}
}

// Scan gives what Next is still to give, and changes nothing.
func TestScan(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{segmentBytes: 200}, dir)
	l := s.Lane(0)
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprint("frame ", i))
		must(t, l.Append(frame(want[i])))
	}
	scan := func() (got []string) {
		must(t, l.Scan(func(f Frame) error {
			got = append(got, string(f.Payload))
			return nil
		}))
		return got
	}
	if got := scan(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	seqs := wantNext(t, l, want[:10]...)
	for _, seq := range seqs[:7] {
		must(t, l.Ack(seq))
	}
	if got := scan(); !slices.Equal(got, want[10:]) {
		t.Errorf("%q", got)
	}
	must(t, s.Close())
	if err := l.Scan(func(Frame) error { return nil }); err == nil {
		t.Error("a closed lane is scanned")
	}
	s = openMem(t, Config{segmentBytes: 200}, dir)
	l = s.Lane(0)
	if got := scan(); !slices.Equal(got, want[7:]) {
		t.Errorf("%q", got)
	}
	stop := errors.New("stop")
	n := 0
	if err := l.Scan(func(Frame) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d frames", err, n)
	}
	dir.Fail(disktest.Open)
	if err := l.Scan(func(Frame) error { return nil }); err == nil {
		t.Error("what cannot be opened is not told")
	}
	dir.Heal()
	wantNext(t, l, want[7:]...)
	wantNothing(t, l)
	if got := scan(); got != nil {
		t.Errorf("%q", got)
	}
}

// What the disk does not give back of one segment hides nothing of the others.
func TestScanUnreadable(t *testing.T) {
	dir := disktest.New()
	s := openMem(t, Config{segmentBytes: 1}, dir)
	for _, text := range []string{"a", "b", "c"} {
		must(t, s.Lane(0).Append(frame(text)))
	}
	must(t, s.Close())
	s, err := Open(Config{Files: badSector{Dir: dir.Mount(), name: segmentName(2), to: 1 << 30}, Lanes: 1})
	must(t, err)
	defer s.Close()
	var got []string
	err = s.Lane(0).Scan(func(f Frame) error {
		got = append(got, string(f.Payload))
		return nil
	})
	if !errors.Is(err, errUnread) || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("%q, %v", got, err)
	}
}
