package deadletter

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// model is what the log is held to: a record that Append took is found by every
// reader, once and in order, through faults, kills and power losses, until the cap
// takes the oldest; then it is counted.
type model struct {
	d   *disktest.Disk
	o   Options
	l   *Log
	now time.Time

	next  int      // number of the next record, which is its text, too
	kept  []string // that Append took
	never []string // that it did not take
	// sound: nothing has kept the log from taking back what it could not keep.
	sound bool
	// dropped were counted by the runs before.
	dropped float64
}

func (m *model) open(t *rapid.T) {
	m.d.Kill()
	m.o.Files = m.d.Mount()
	l, err := Open("", m.o)
	if err != nil { // it says so, and has lost nothing
		m.d.Heal()
		if l, err = Open("", m.o); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	m.l = l
}

// restart ends the run, and begins another one.
func (m *model) restart(t *rapid.T) {
	m.dropped = m.counted()
	m.open(t)
}

// counted gives the records that the cap has taken.
func (m *model) counted() float64 {
	return m.dropped + testutil.ToFloat64(m.l.m.dropped.WithLabelValues(string(Refused)))
}

func (m *model) records(t *rapid.T) (all []Record, raws []string) {
	for range rapid.IntRange(1, 3).Draw(t, "records") {
		raws = append(raws, strconv.Itoa(m.next))
		all = append(all, refused(raws[len(raws)-1]))
		m.next++
	}
	return all, raws
}

func (m *model) append(t *rapid.T) {
	records, raws := m.records(t)
	err := m.l.Append(records)
	if err == nil {
		m.kept = append(m.kept, raws...)
		return
	}
	m.never = append(m.never, raws...)
	if ops, full := m.d.Failing(); ops == 0 && !full && !errors.Is(err, disktest.ErrDead) {
		t.Fatalf("append on a sound disk: %v", err)
	}
}

func (m *model) copies(t *rapid.T) {
	records, _ := m.records(t)
	for i := range records {
		records[i].Kind = Malformed
	}
	m.l.AppendUnsynced(records)
}

// check looks at what a reader would find now.
func (m *model) check(t *rapid.T) {
	dir, err := m.d.Clone().Mount().Sub(dirName)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	bad, err := EachIn(dir, func(s *Stored) error {
		raw := string(s.Raw)
		if n, err := strconv.Atoi(raw); err != nil || n >= m.next || slices.Contains(found, raw) {
			t.Fatalf("record %q comes after %q", raw, found)
		}
		if s.Copy != (s.Kind == Malformed) {
			t.Fatalf("record %q is of kind %s, copy %v", raw, s.Kind, s.Copy)
		}
		found = append(found, raw)
		return nil
	})
	if err != nil || m.sound && bad > 0 {
		t.Fatalf("%d bad lines, %v", bad, err)
	}
	var left []string // in the order in which they were found
	for _, raw := range found {
		if slices.Contains(m.kept, raw) {
			left = append(left, raw)
		}
	}
	lost := len(m.kept) - len(left)
	if !slices.Equal(left, m.kept[lost:]) {
		t.Fatalf("others than the oldest are gone; found %q of %q", found, m.kept)
	}
	if counted := m.counted(); float64(lost) > counted {
		t.Fatalf("%d records are gone, %v are counted; found %q of %q", lost, counted, found, m.kept)
	}
	if i := slices.IndexFunc(m.never, func(raw string) bool { return slices.Contains(found, raw) }); m.sound && i >= 0 {
		t.Fatalf("%s is there, and Append gave an error", m.never[i])
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{d: disktest.New(), now: t0, sound: true}
		m.o = Options{
			Now:      func() time.Time { return m.now },
			MaxBytes: rapid.SampledFrom([]int64{16 * 200, 16 * 1000, 1 << 20}).Draw(t, "cap"),
		}
		m.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append,
			"copies": m.copies,
			"a day":  func(*rapid.T) { m.now = m.now.Add(copiesFor) },
			"fault": func(t *rapid.T) {
				op := rapid.SampledFrom([]disktest.Op{0, disktest.Truncate, disktest.Sync, disktest.SyncDir, disktest.Open, disktest.Rename, disktest.Remove}).Draw(t, "fault")
				if op == 0 {
					m.d.Fill(int64(rapid.IntRange(0, 600).Draw(t, "room")))
				}
				m.d.Fail(op)
				m.sound = m.sound && op != disktest.Truncate
			},
			"heal": func(*rapid.T) { m.d.Heal() },
			"close": func(t *rapid.T) {
				if err := m.l.Close(); err != nil {
					if ops, _ := m.d.Failing(); ops&disktest.Sync == 0 {
						t.Fatalf("close on a sound disk: %v", err)
					}
				}
				m.restart(t)
			},
			"kill": m.restart,
			"die": func(t *rapid.T) {
				m.d.DieAfter(rapid.IntRange(0, 8).Draw(t, "changes until"), rapid.IntRange(0, 100).Draw(t, "part of a write"))
				m.sound = false
				if rapid.Bool().Draw(t, "append") {
					m.append(t)
				} else {
					m.copies(t)
				}
				m.restart(t)
			},
			"power loss": func(t *rapid.T) {
				m.d.PowerLoss(func(what string, n int) int { return rapid.IntRange(0, n).Draw(t, what) })
				m.sound = false
				m.restart(t)
			},
			"": m.check,
		})
	})
}
