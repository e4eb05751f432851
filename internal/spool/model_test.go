package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// modelFrame is what the model knows of a frame that was given to Append.
type modelFrame struct {
	id      uint32
	records int
	seq     uint64 // in the present process, once given
	sure    bool   // Append returned nil
	acked   bool   // and so were all before it
	saved   bool   // the cursor was written behind it
	closed  bool   // a clean close came after that
}

// model runs one lane against a list. A frame of which Append returned nil must be
// given, in order, until it has been acknowledged.
type model struct {
	files *disktest.Disk
	cfg   Config
	s     *Spool
	all   []*modelFrame
	// due are the frames that may come from Next, in order; given those that
	// have come and are not behind the cursor.
	due, given []*modelFrame
	done       map[uint64]bool // given and acknowledged, though not all before
	// frames and records the present process must report; faulty: some fault may have
	// left files behind, or made memory differ from the disk.
	frames, records int
	faulty          bool
	// doubt: a sync and the truncation after it may both have failed; a kill then a
	// power loss bring a frame that was never confirmed and take it away again.
	doubt bool
}

func (m *model) lane() *Lane { return m.s.Lane(0) }

// sick reports whether any fault is on.
func (m *model) sick() bool {
	ops, full := m.files.Failing()
	return ops != 0 || full
}

// failing reports whether all of these operations fail.
func (m *model) failing(ops disktest.Op) bool {
	now, _ := m.files.Failing()
	return now&ops == ops
}

// unreadable reports whether the disk may not give back what is there.
func (m *model) unreadable() bool { return m.failing(disktest.Open) || m.failing(disktest.Read) }

func (m *model) open(t *rapid.T) {
	var err error
	m.cfg.Files = m.files.Mount()
	m.s, err = Open(m.cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	h := m.s.Health()
	m.frames, m.records = int(h.Frames), int(h.Records)
	m.given, m.done = nil, map[uint64]bool{}
}

// crash starts again, after the process alone has died or the power has failed.
func (m *model) crash(t *rapid.T, power bool) {
	m.faulty = false
	m.files.Heal()
	m.files.Kill()
	if power {
		m.files.PowerLoss(func(label string, n int) int { return rapid.IntRange(0, n).Draw(t, label) })
		for _, f := range m.all {
			f.saved = f.closed
		}
	}
	m.due = nil
	for _, f := range m.all {
		if !f.saved {
			m.due = append(m.due, f)
		}
	}
	m.open(t)
}

func payload(id uint32, size int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, id)
	rnd := rand.New(rand.NewPCG(uint64(id), 0))
	for range size {
		b = append(b, byte(rnd.Uint32()))
	}
	return b
}

func (m *model) append(t *rapid.T) {
	var frames []Frame
	var added []*modelFrame
	records := 0
	for range rapid.IntRange(1, 3).Draw(t, "frames") {
		f := &modelFrame{id: uint32(len(m.all)), records: rapid.IntRange(1, 9).Draw(t, "records")}
		m.all = append(m.all, f)
		added = append(added, f)
		records += f.records
		frames = append(frames, Frame{Payload: payload(f.id, rapid.IntRange(0, 200).Draw(t, "size")), Records: f.records, Oldest: int64(1000 + f.id)})
	}
	before := m.files.Used()
	reserved := rapid.IntRange(0, 3).Draw(t, "reserved") == 0
	write := m.lane().Append
	if reserved {
		write = m.lane().AppendReserved
	}
	err := write(frames...)
	if errors.Is(err, ErrFull) {
		if strings.Contains(err.Error(), " spool.") && m.files.Used() != before { // a limit of ours
			t.Fatalf("%v, and yet something was written", err)
		}
		if h := m.s.Health(); h.State != Full || h.Full == nil {
			t.Fatalf("health %+v after %v", h, err)
		}
	}
	if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, disktest.ErrDead) && !m.sick() {
		t.Fatalf("append on a sound disk: %v", err)
	}
	m.due = append(m.due, added...)
	if ofCap, _ := m.s.cfg.reserve(); err == nil && !reserved && m.s.Health().DiskBytes > m.cfg.MaxBytes-ofCap {
		t.Fatalf("%+v: the reserve is used", m.s.Health())
	}
	if err == nil {
		for _, f := range added {
			f.sure = true
		}
		m.frames += len(added)
		m.records += records
	}
}

func (m *model) next(t *rapid.T) {
	f, ok, err := m.lane().Next(nil)
	if err != nil {
		if !m.unreadable() {
			t.Fatalf("next: %v", err)
		}
		return
	}
	must := func(f *modelFrame) bool { return f.sure && !f.acked }
	if !ok {
		for _, d := range m.due {
			if must(d) {
				t.Fatalf("frame %d is missing", d.id)
			}
		}
		m.due = nil
		return
	}
	id := binary.LittleEndian.Uint32(f.Payload)
	if string(f.Payload) != string(payload(id, len(f.Payload)-4)) || f.Oldest != int64(1000+id) {
		t.Fatalf("frame %d came back as another", id)
	}
	for len(m.due) > 0 && m.due[0].id != id {
		if must(m.due[0]) {
			t.Fatalf("frame %d comes instead of %d", id, m.due[0].id)
		}
		m.due = m.due[1:]
	}
	if len(m.due) == 0 {
		t.Fatalf("frame %d must not come", id)
	}
	d := m.due[0]
	d.seq, d.acked, d.saved, d.closed = f.Seq, false, false, false
	if d.records != f.Records {
		t.Fatalf("frame %d has %d records", id, f.Records)
	}
	m.due, m.given = m.due[1:], append(m.given, d)
}

// scan must give what Next will; it may give what was never confirmed.
func (m *model) scan(t *rapid.T) {
	due := m.due
	err := m.lane().Scan(func(f Frame) error {
		id := binary.LittleEndian.Uint32(f.Payload)
		for len(due) > 0 && due[0].id != id {
			if due[0].sure && !due[0].acked {
				return fmt.Errorf("frame %d is scanned instead of %d", id, due[0].id)
			}
			due = due[1:]
		}
		if len(due) == 0 {
			return fmt.Errorf("frame %d must not come", id)
		}
		due = due[1:]
		return nil
	})
	if m.unreadable() {
		return
	}
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	for _, f := range due {
		if f.sure && !f.acked {
			t.Fatalf("frame %d is not scanned", f.id)
		}
	}
}

func (m *model) ack(t *rapid.T) {
	if len(m.given) == 0 {
		if err := m.lane().Ack(1 << 40); !errors.Is(err, ErrNotGiven) {
			t.Fatalf("ack of nothing: %v", err)
		}
		return
	}
	i := rapid.IntRange(0, len(m.given)-1).Draw(t, "which")
	if rapid.Bool().Draw(t, "oldest") {
		i = 0
	}
	f := m.given[i]
	err := m.lane().Ack(f.seq)
	if m.done[f.seq] {
		if !errors.Is(err, ErrNotGiven) {
			t.Fatalf("second ack: %v", err)
		}
		return
	}
	m.done[f.seq] = true
	m.frames--
	m.records -= f.records
	for len(m.given) > 0 && m.done[m.given[0].seq] {
		m.given[0].acked = true
		m.given = m.given[1:]
	}
	if err == nil {
		m.markSaved()
	}
}

// markSaved notes that the cursor is on the disk, as far as a kill goes.
func (m *model) markSaved() {
	limit := len(m.all)
	if len(m.given) > 0 {
		limit = int(m.given[0].id)
	} else if len(m.due) > 0 {
		limit = int(m.due[0].id)
	}
	for _, f := range m.all[:limit] {
		f.saved = f.saved || f.acked
	}
}

func (m *model) close() error {
	err := m.s.Close()
	if err == nil {
		m.markSaved()
		for _, f := range m.all {
			f.closed = f.closed || f.saved
		}
	}
	return err
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			files: disktest.New(),
			cfg: Config{
				Lanes: 1, MaxBytes: rapid.SampledFrom([]int64{1 << 40, 1500}).Draw(t, "cap"),
				MinFreeBytes: rapid.SampledFrom([]int64{-1, 100}).Draw(t, "floor"), segmentBytes: 400,
			},
		}
		m.open(t)
		ops := map[string]func(*rapid.T){"append": m.append, "next": m.next, "ack": m.ack}
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append,
			"next":   m.next,
			"scan":   m.scan,
			"ack":    m.ack,
			"drain": func(t *rapid.T) {
				if m.unreadable() {
					t.Skip()
				}
				for m.next(t); len(m.due) > 0; m.next(t) {
				}
				m.next(t) // notices that there is no more
				for len(m.given) > 0 {
					m.ack(t)
				}
				if h := m.s.Health(); !m.lane().Empty() || h.Frames != 0 || h.Records != 0 || h.Bytes != 0 || !h.Oldest.IsZero() {
					t.Fatalf("drained, and yet %+v", h)
				}
				if !m.faulty && !m.doubt {
					all, err := m.lane().files.List()
					if err != nil || strings.Contains(fmt.Sprint(all), segmentSuffix) {
						t.Fatalf("drained, and yet there are %v, %v", all, err)
					}
				}
			},
			"fault": func(t *rapid.T) {
				m.faulty = true
				op := rapid.SampledFrom([]disktest.Op{0, disktest.Truncate, disktest.Sync, disktest.SyncDir, disktest.Open, disktest.Read, disktest.Remove}).Draw(t, "fault")
				if op == 0 {
					m.files.Fill(int64(rapid.IntRange(0, 300).Draw(t, "room")))
				}
				m.files.Fail(op)
			},
			"heal":          func(*rapid.T) { m.files.Heal() },
			"crash between": func(t *rapid.T) { m.crash(t, rapid.Bool().Draw(t, "power")) },
			"crash during": func(t *rapid.T) {
				m.files.Heal()
				m.files.DieAfter(rapid.IntRange(0, 12).Draw(t, "changes until"), rapid.IntRange(0, 100).Draw(t, "part of a write"))
				if op := rapid.SampledFrom([]string{"append", "ack", "close"}).Draw(t, "op"); op == "close" {
					_ = m.close() // dead or not
				} else {
					ops[op](t)
				}
				m.crash(t, rapid.Bool().Draw(t, "power"))
			},
			"close": func(t *rapid.T) {
				if err := m.close(); err != nil && !m.faulty {
					t.Fatalf("close on a sound disk: %v", err)
				}
				m.crash(t, rapid.Bool().Draw(t, "power"))
			},
			"": func(t *rapid.T) {
				h := m.s.Health()
				m.doubt = m.doubt || m.failing(disktest.Sync|disktest.Truncate)
				if !m.doubt && (int(h.Frames) != m.frames || int(h.Records) != m.records) {
					t.Fatalf("%d frames and %d records are said to wait, %d and %d do", h.Frames, h.Records, m.frames, m.records)
				}
				if h.DiskBytes > m.cfg.MaxBytes {
					t.Fatalf("%d bytes in use, %d allowed", h.DiskBytes, m.cfg.MaxBytes)
				}
				if !m.faulty && m.files.Used() > h.DiskBytes+2*cursorSlotLen {
					t.Fatalf("%d bytes on disk, %d are said to be", m.files.Used(), h.DiskBytes)
				}
				if n := testutil.ToFloat64(m.s.m.lostFrames); n != 0 && !m.doubt {
					t.Fatalf("%v frames are said to be lost", n)
				}
			},
		})
	})
}
