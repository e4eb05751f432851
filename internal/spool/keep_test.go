package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
)

// damage flips a bit of the payload of the frame of a segment with one.
func damage(t *testing.T, d *disktest.Disk, segment uint64) {
	t.Helper()
	data, _ := d.Read(laneFile(segmentName(segment)))
	if len(data) <= segmentHeaderLen+frameHeaderLen {
		t.Fatalf("segment %d has no payload", segment)
	}
	data = bytes.Clone(data)
	data[segmentHeaderLen+frameHeaderLen] ^= 1
	d.Put(laneFile(segmentName(segment)), data)
}

// ackAll reads and acknowledges what is in a lane.
func ackAll(t *testing.T, l *Lane) {
	t.Helper()
	for {
		f, ok, err := l.Next(nil)
		must(t, err)
		if !ok {
			return
		}
		must(t, l.Ack(f.Seq))
	}
}

// keptNames gives the names of the files in the first lane but the cursor.
func keptNames(t *testing.T, s *Spool) []string {
	t.Helper()
	return slices.DeleteFunc(names(t, s), func(name string) bool { return name == cursorName })
}

// TestNotUnderstood: a segment with such frames stays as it is, for its user alone and not
// counted, once all of it is done; the agent that understands it has them from there.
func TestNotUnderstood(t *testing.T) {
	for _, c := range []struct {
		byNewer bool
		kind    string
	}{{true, keptVersion}, {false, keptLost}} {
		t.Run(c.kind, func(t *testing.T) {
			data := t.TempDir()
			s, err := Open(Config{Dir: data, Lanes: 1})
			must(t, err)
			l := s.Lane(0)
			texts := []string{"a", "b", "c"}
			for _, text := range texts {
				must(t, l.Append(frame(text)))
			}
			if name := l.NotUnderstood(4, c.byNewer); name != "" {
				t.Errorf("a frame that is not there is kept as %s", name)
			}
			lane := filepath.Join(data, dirName)
			before, err := os.ReadFile(filepath.Join(lane, laneDir(0), segmentName(1)))
			must(t, err)
			var name string
			for _, seq := range wantNext(t, l, texts...) {
				// The first is of another kind, and another agent may understand it all the same.
				name = l.NotUnderstood(seq, c.byNewer && seq > 1)
				if _, err := os.Stat(filepath.Join(lane, name)); !os.IsNotExist(err) {
					t.Fatalf("%s before all of it is done: %v", name, err)
				}
				must(t, l.Ack(seq))
			}
			after, err := os.ReadFile(filepath.Join(lane, name))
			must(t, err)
			if !bytes.Equal(after, before) || filepath.Base(name) != segmentName(1)+"."+c.kind {
				t.Errorf("%s has %d bytes, not %d", name, len(after), len(before))
			}
			if info, err := os.Stat(filepath.Join(lane, name)); err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if n := testutil.ToFloat64(s.m.setAside); n != 0 || s.Health().DiskBytes != 0 || !l.Empty() {
				t.Errorf("set aside %v, %+v", n, s.Health())
			}
			must(t, s.Close())

			other := filepath.Join(t.TempDir(), dirName, laneDir(0))
			must(t, os.MkdirAll(other, 0o700))
			must(t, os.Rename(filepath.Join(lane, name), filepath.Join(other, segmentName(1))))
			s, err = Open(Config{Dir: filepath.Dir(filepath.Dir(other)), Lanes: 1})
			must(t, err)
			wantNext(t, s.Lane(0), texts...)
			wantNothing(t, s.Lane(0))
			must(t, s.Close())
		})
	}
}

// TestKeptAreBounded: of segments that nobody can read the newest stay; all of those that
// another agent can, and of those that were set aside at a start.
func TestKeptAreBounded(t *testing.T) {
	d := disktest.New()
	s := openMem(t, Config{segmentBytes: 1}, d)
	l := s.Lane(0)
	old := segmentName(1) + "." + keptDamaged
	d.Put(laneFile(old), []byte("of a start"))
	want := []string{old}
	for i := range 3 * mostKeptLost {
		must(t, l.Append(frame("lost"), frame("sent")))
		damage(t, d, l.next-2)
		if i >= 2*mostKeptLost {
			want = append(want, segmentName(l.next-2)+"."+keptLost)
		}
		must(t, l.Append(frame("newer")))
		want = append(want, segmentName(l.next-1)+"."+keptVersion)
		must(t, l.Ack(wantNext(t, l, "sent")[0]))
		seq := wantNext(t, l, "newer")[0]
		l.NotUnderstood(seq, true)
		must(t, l.Ack(seq))
	}
	must(t, l.Append(frame("sent")))
	if name := l.NotUnderstood(1, true); name != "" {
		t.Errorf("for a frame that was done before, %s is kept", name)
	}
	ackAll(t, l)
	slices.Sort(want)
	if got := keptNames(t, s); !slices.Equal(got, want) {
		t.Errorf("kept\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := testutil.ToFloat64(s.m.setAside); n != 0 || s.Health().DiskBytes != 0 {
		t.Errorf("set aside %v, %+v", n, s.Health())
	}
}

// TestKeptUnderAnotherNameEach: a segment whose number has come again takes no other's place.
func TestKeptUnderAnotherNameEach(t *testing.T) {
	wantKept := func(t *testing.T, s *Spool, want ...string) {
		t.Helper()
		if got := keptNames(t, s); !slices.Equal(got, want) {
			t.Errorf("kept %v, not %v", got, want)
		}
	}
	t.Run("at a start", func(t *testing.T) {
		d := disktest.New()
		var both [][]byte
		for range 2 { // an older agent comes, and has nothing to write, until the newer one has
			s := openMem(t, Config{}, d)
			must(t, s.Lane(0).Append(frame(fmt.Sprint("lines ", len(both)))))
			data, _ := d.Read(laneFile(segmentName(1)))
			data = bytes.Clone(data)
			data[len(segmentMagic)]++
			binary.LittleEndian.PutUint32(data[segmentHeaderLen-4:], checksum(data[:segmentHeaderLen-4]))
			d.Put(laneFile(segmentName(1)), data)
			both = append(both, data)
			openMem(t, Config{}, d)
		}
		names := []string{segmentName(1) + "." + keptVersion, segmentName(1) + "." + keptVersion + "-2"}
		wantKept(t, openMem(t, Config{}, d), names...)
		for i, name := range names {
			if data, _ := d.Read(laneFile(name)); !bytes.Equal(data, both[i]) {
				t.Errorf("%s has %d bytes, not those of %d", name, len(data), i)
			}
		}
	})
	t.Run("when it is done", func(t *testing.T) {
		d := disktest.New()
		d.Put(laneFile(segmentName(1)+"."+keptVersion), []byte("of a run before"))
		s := openMem(t, Config{segmentBytes: 1}, d)
		l := s.Lane(0)
		must(t, l.Append(frame("a")))
		seq := wantNext(t, l, "a")[0]
		name := segmentName(1) + "." + keptVersion + "-2"
		if got := l.NotUnderstood(seq, true); got != laneDir(0)+"/"+name {
			t.Errorf("kept as %s", got)
		}
		must(t, l.Ack(seq))
		wantKept(t, s, segmentName(1)+"."+keptVersion, name)
	})
	t.Run("the newest stays, whatever its number", func(t *testing.T) {
		d := disktest.New()
		for _, n := range []uint64{1, 8, 9} {
			d.Put(laneFile(segmentName(n)+"."+keptLost), []byte("of a run before"))
		}
		s := openMem(t, Config{segmentBytes: 1}, d)
		must(t, s.Lane(0).Append(frame("a")))
		damage(t, d, 1)
		wantNothing(t, s.Lane(0))
		wantKept(t, s, segmentName(1)+"."+keptLost+"-2", segmentName(9)+"."+keptLost)
	})
}

// TestKeptForTheDiskToComeBack: of a place that the disk did not give back for long the
// lines are there, once it does.
func TestKeptForTheDiskToComeBack(t *testing.T) {
	d := disktest.New()
	now := t0
	cfg := Config{Now: func() time.Time { return now }}
	s := openMem(t, cfg, d)
	l := s.Lane(0)
	must(t, l.Append(frame("a")))
	d.Fail(disktest.Read)
	if _, _, err := l.Next(nil); err == nil {
		t.Fatal("it was read")
	}
	now = now.Add(readPatience)
	wantNothing(t, l)
	d.Heal()
	kept := laneFile(segmentName(1) + "." + keptLost)
	if got := keptNames(t, s); len(got) != 1 || laneFile(got[0]) != kept {
		t.Fatalf("%v", got)
	}
	data, synced := d.Read(kept)
	if !bytes.Equal(data, synced) {
		t.Errorf("%d bytes, of which %d would last", len(data), len(synced))
	}
	other := disktest.New()
	other.Put(laneFile(segmentName(1)), data)
	wantNext(t, openMem(t, Config{}, other).Lane(0), "a")
}

// TestNotKept: where a segment cannot have another name, room for what comes matters more.
func TestNotKept(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails func(d *disktest.Disk)
		warns int
		kept  string // by the disk that has failed
		later string // once it is sound, and something else was sent
	}{
		{"no rename", func(d *disktest.Disk) { d.Fail(disktest.Rename) }, 1, "", ""},
		{"nor is it removed", func(d *disktest.Disk) { d.Fail(disktest.Rename | disktest.Remove) }, 1, segmentName(1), ""},
		{"read-only", (*disktest.Disk).ReadOnly, 1, segmentName(1), ""},
		{"full", func(d *disktest.Disk) { d.Fill(0) }, 0, segmentName(1) + "." + keptLost, segmentName(1) + "." + keptLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := disktest.New()
			var log bytes.Buffer
			s := openMem(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, d)
			l := s.Lane(0)
			must(t, l.Append(frame("a")))
			damage(t, d, 1)
			c.fails(d)
			for range 2 {
				wantNothing(t, l)
			}
			d.Heal()
			if got := strings.Join(keptNames(t, s), " "); got != c.kept {
				t.Errorf("%q, not %q", got, c.kept)
			}
			if n := strings.Count(log.String(), "cannot be kept"); n != c.warns {
				t.Errorf("said %d times:\n%s", n, log.String())
			}
			must(t, l.Append(frame("b")))
			ackAll(t, l)
			if got := strings.Join(keptNames(t, s), " "); got != c.later || s.Health().DiskBytes != 0 {
				t.Errorf("later %q, not %q; %+v", got, c.later, s.Health())
			}
		})
	}
}

// TestKeptAfterKill: what another agent understands is kept also where this one is killed, at
// any change of the disk: by it or by the next. All but the segment of whose last frame it has
// written that it is done, and no more.
func TestKeptAfterKill(t *testing.T) {
	for changes := range 100 {
		d := disktest.New()
		s := openMem(t, Config{segmentBytes: 200}, d)
		for i := range 6 { // three segments
			must(t, s.Lane(0).Append(frame(fmt.Sprint(i, random(40)))))
		}
		d.DieAfter(changes, 0)
		reject := func() (all bool) {
			for {
				f, ok, err := s.Lane(0).Next(nil)
				if !ok || err != nil {
					return err == nil
				}
				s.Lane(0).NotUnderstood(f.Seq, true)
				if s.Lane(0).Ack(f.Seq) != nil {
					return false
				}
			}
		}
		all := reject()
		s = openMem(t, Config{segmentBytes: 200}, d)
		reject()
		if s.Health().Frames != 0 {
			t.Fatalf("killed after %d changes: %+v", changes, s.Health())
		}
		got := keptNames(t, s)
		if len(got) < 2 || slices.ContainsFunc(got, func(name string) bool { return !strings.HasSuffix(name, "."+keptVersion) }) {
			t.Errorf("killed after %d changes: %v", changes, got)
		}
		if all && len(got) == 3 {
			return // it was not killed
		}
	}
	t.Error("three segments are never kept")
}
