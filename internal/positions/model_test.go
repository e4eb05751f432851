package positions

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// The model: a plain list of spans per stream, and what the disk may hold.

type pair [entry.NumStreams]entry.Position

// state is what a journal can say of one key.
type state struct {
	known bool
	pos   pair
	note  string
}

type modelStream struct {
	spans []modelSpan // of the current number, all of them, from 1
	base  entry.Position
}

type modelSpan struct {
	end  entry.Position
	done bool
}

func (m *modelStream) prefix() (pos entry.Position, done int) {
	pos = m.base
	for _, s := range m.spans {
		if !s.done {
			break
		}
		pos = s.end
		done++
	}
	return pos, done
}

type modelLog struct {
	note       string
	number     uint32
	registered bool
	streams    [entry.NumStreams]modelStream
}

func (l *modelLog) inFlight() (n int) {
	for i := range l.streams {
		_, done := l.streams[i].prefix()
		n += len(l.streams[i].spans) - done
	}
	return n
}

func (l *modelLog) state() state {
	if l == nil {
		return state{}
	}
	st := state{known: true, note: l.note}
	for i := range l.streams {
		st.pos[i], _ = l.streams[i].prefix()
	}
	return st
}

type model struct {
	logs map[string]*modelLog
	// history of each key, oldest first; written and synced are the index of
	// the state that the last write and sync that succeeded have made safe.
	history         map[string][]state
	written, synced map[string]int
	// doubtful: a write has failed since the last that succeeded; parts of it
	// may be in the file.
	doubtful bool
	// cannotCut: a half-written record may have had to stay.
	cannotCut bool
	next      int64 // so that every position is another
}

var modelKeys = []string{"a0", "b1", "with space\n\"", ""}

func newModel() *model {
	m := &model{
		logs: map[string]*modelLog{}, history: map[string][]state{},
		written: map[string]int{}, synced: map[string]int{},
	}
	for _, k := range modelKeys {
		m.history[k] = []state{{}}
	}
	return m
}

func (m *model) end() entry.Position {
	m.next++
	return entry.Position{File: entry.FileID{Inode: 1, Handle: 2, Print: 3}, Offset: m.next, Time: m.next * 10, Ordinal: 1}
}

// record adds the states that memory has now to the histories.
func (m *model) record() {
	for _, k := range modelKeys {
		h := m.history[k]
		if st := m.logs[k].state(); st != h[len(h)-1] {
			m.history[k] = append(h, st)
		}
	}
}

func (m *model) mark(which map[string]int) {
	for _, k := range modelKeys {
		which[k] = len(m.history[k]) - 1
	}
}

func (m *model) wrote(err error) {
	m.record()
	if err != nil {
		m.doubtful = true
		return
	}
	m.doubtful = false
	m.mark(m.written)
}

// TestModel runs the store against the model, on a file system that fails, with
// crashes between any two steps.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := disktest.New()
		cfg := Config{compactBytes: int64(rapid.SampledFrom([]int{1, 600, 1 << 20}).Draw(t, "compact at"))}
		m := newModel()
		reopen := func() *Store {
			files.Kill()
			cfg.Files = files.Mount()
			s, err := Open(cfg)
			if err != nil { // it says so, and touches nothing
				files.Heal()
				if s, err = Open(cfg); err != nil {
					t.Fatalf("open: %v", err)
				}
			}
			return s
		}
		s := reopen()
		first := s.FirstStart()
		key := rapid.SampledFrom(modelKeys)
		stream := rapid.IntRange(0, entry.NumStreams-1)
		registered := func() (out []string) {
			for _, k := range modelKeys {
				if l := m.logs[k]; l != nil && l.registered {
					out = append(out, k)
				}
			}
			return out
		}
		ack := func(t *rapid.T) {
			var spans []entry.Span
			for range rapid.IntRange(1, 6).Draw(t, "spans") {
				l := m.logs[key.Draw(t, "key")]
				sp := entry.Span{Log: 1 << 30, Stream: entry.Stream(stream.Draw(t, "stream")), Seq: 1}
				if l != nil && l.number != 0 {
					sp.Log = l.number
					// Past ones, known ones and one that is not.
					sp.Seq = uint64(rapid.IntRange(0, len(l.streams[sp.Stream].spans)+1).Draw(t, "seq"))
					if sp.Seq > 0 && int(sp.Seq) <= len(l.streams[sp.Stream].spans) {
						l.streams[sp.Stream].spans[sp.Seq-1].done = true
					}
				}
				spans = append(spans, sp)
			}
			m.wrote(s.Ack(spans))
		}
		// adopt checks what was read after a crash against may, and goes on from it.
		// Where a hole may have swallowed the record of a note, an older one or
		// none may stand beside the position.
		adopt := func(powerLoss bool, may func(k string) []state) {
			s = reopen()
			hole := powerLoss && testutil.ToFloat64(s.m.badRecords) > 0
			if got := s.FirstStart(); !got.Equal(first) {
				t.Fatalf("first start is %v, was %v", got, first)
			}
			for _, k := range modelKeys {
				var got state
				if saved, ok := s.Lookup(k); ok {
					got = state{known: true, pos: saved.Positions, note: saved.Note}
					if saved.Read != saved.Positions {
						t.Fatalf("%q: read %v, delivered %v with nothing in flight", k, saved.Read, saved.Positions)
					}
				}
				ok := false
				for _, st := range may(k) {
					ok = ok || st == got
					if hole && st.known && st.pos == got.pos {
						ok = ok || got.note == "" || slices.ContainsFunc(may(k), func(o state) bool { return o.note == got.note })
					}
				}
				if !ok {
					t.Fatalf("%q: read %+v\nmay be %+v", k, got, may(k))
				}
				delete(m.logs, k)
				if got.known {
					l := &modelLog{note: got.note}
					for i := range l.streams {
						l.streams[i].base = got.pos[i]
					}
					m.logs[k] = l
				}
				if s.Health() == nil { // Open has synced it
					m.history[k] = []state{got}
				} else {
					m.history[k] = append(slices.Clone(m.history[k][m.synced[k]:]), got)
				}
				m.written[k], m.synced[k] = len(m.history[k])-1, 0
			}
			ops, _ := files.Failing()
			m.doubtful, m.cannotCut = false, ops&disktest.Truncate != 0 || s.Health() != nil
		}

		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				k, note := key.Draw(t, "key"), rapid.SampledFrom([]string{"", "web@1", "we\nb \"@2"}).Draw(t, "note")
				saved, known := s.Lookup(k)
				start := saved.Read
				if !known || rapid.IntRange(0, 9).Draw(t, "elsewhere") == 0 {
					start = pair{m.end(), m.end()}
				}
				number := s.Register(k, note, start)
				l := m.logs[k]
				if l == nil {
					l = &modelLog{}
					m.logs[k] = l
				}
				if l.number == 0 || (!l.registered && l.inFlight() == 0) {
					for i := range l.streams {
						pos, _ := l.streams[i].prefix()
						l.streams[i] = modelStream{base: pos}
					}
				} else if l.number != number {
					t.Fatalf("%q: number %d became %d with spans in flight", k, l.number, number)
				}
				for other, o := range m.logs {
					if other != k && o.number == number && (o.registered || o.inFlight() > 0) {
						t.Fatalf("%q and %q share the number %d", k, other, number)
					}
				}
				l.note, l.number, l.registered = note, number, true
				for i := range l.streams {
					m.move(&l.streams[i], start[i])
				}
				// Whether it was written shows in Health, and there is nothing
				// to write when nothing has changed.
				m.record()
				if s.writeErr == nil && len(s.dirty) == 0 {
					m.wrote(nil)
				} else if s.writeErr != nil {
					m.wrote(s.writeErr)
				}
			},
			"begin": func(t *rapid.T) {
				reg := registered()
				if len(reg) == 0 {
					t.Skip()
				}
				l := m.logs[rapid.SampledFrom(reg).Draw(t, "key")]
				lines := [entry.NumStreams]int{rapid.IntRange(0, 2).Draw(t, "out"), rapid.IntRange(0, 2).Draw(t, "err")}
				ends := pair{m.end(), m.end()}
				seqs := s.Begin(l.number, ends, lines)
				for i := range l.streams {
					ms := &l.streams[i]
					want := uint64(0)
					if lines[i] > 0 {
						ms.spans = append(ms.spans, modelSpan{end: ends[i]})
						want = uint64(len(ms.spans))
					} else {
						m.move(ms, ends[i])
					}
					if seqs[i] != want {
						t.Fatalf("span number %d, want %d", seqs[i], want)
					}
				}
				m.record()
			},
			"ack": ack,
			"unregister": func(t *rapid.T) {
				if reg := registered(); len(reg) > 0 {
					l := m.logs[rapid.SampledFrom(reg).Draw(t, "key")]
					s.Unregister(l.number)
					l.registered = false
				}
			},
			"forget": func(t *rapid.T) {
				k := key.Draw(t, "key")
				l := m.logs[k]
				err := s.Forget(k)
				switch {
				case l == nil:
					if err != nil {
						t.Fatalf("forget of nothing: %v", err)
					}
				case l.inFlight() > 0:
					if !errors.Is(err, ErrInFlight) {
						t.Fatalf("forget with spans in flight: %v", err)
					}
				default:
					delete(m.logs, k)
					m.wrote(err)
				}
			},
			"flush": func(t *rapid.T) {
				ops, full := files.Failing()
				healthy := ops&^disktest.Truncate == 0 && !full
				if rapid.Bool().Draw(t, "compact") {
					s.rewrite = 0
					s.compactAfter = time.Time{}
				}
				m.record()
				before := map[string]int{}
				m.mark(before)
				if rapid.Bool().Draw(t, "ack during the sync") {
					files.DuringSync(func() { ack(t) })
				}
				err := s.flush()
				files.DuringSync(nil)
				if err != nil && healthy {
					t.Fatalf("flush on a sound disk: %v", err)
				}
				if err == nil {
					m.synced = before
				}
				if len(s.dirty) == 0 {
					m.wrote(nil)
				} else {
					m.wrote(s.writeErr)
				}
			},
			"fault": func(t *rapid.T) {
				op := rapid.SampledFrom([]disktest.Op{0, disktest.Truncate, disktest.Sync, disktest.Rename, disktest.SyncDir, disktest.Open}).Draw(t, "fault")
				if op == 0 {
					files.Fill(int64(rapid.IntRange(0, 300).Draw(t, "room")))
				}
				files.Fail(op)
				m.cannotCut = m.cannotCut || op == disktest.Truncate
			},
			"heal": func(*rapid.T) { files.Heal() },
			"kill": func(t *rapid.T) {
				couldCut := !m.cannotCut
				if rapid.Bool().Draw(t, "disk mended") {
					files.Heal()
				}
				adopt(false, func(k string) []state {
					h := m.history[k]
					if m.doubtful { // any record of a failed write may have got through
						return h[m.written[k]:]
					}
					return h[m.written[k] : m.written[k]+1]
				})
				if couldCut && testutil.ToFloat64(s.m.badRecords) > 0 {
					t.Fatal("the journal is damaged, though every half-written record could be cut off")
				}
			},
			"power loss": func(t *rapid.T) {
				files.Heal()
				files.PowerLoss(func(label string, n int) int { return rapid.IntRange(0, n).Draw(t, label) })
				adopt(true, func(k string) []state { return m.history[k][m.synced[k]:] })
			},
			"": func(t *rapid.T) {
				if got := len(s.Keys()); got != len(m.logs) {
					t.Fatalf("%d keys, want %d", got, len(m.logs))
				}
				total := 0
				for k, l := range m.logs {
					saved, ok := s.Lookup(k)
					if want := l.state(); !ok || saved.Positions != want.pos || saved.Note != want.note {
						t.Fatalf("%q: memory has %+v, want %+v", k, saved, want)
					}
					if l.number != 0 {
						if l.registered || l.inFlight() > 0 {
							if got := s.InFlight(l.number); got != l.inFlight() {
								t.Fatalf("%q: %d in flight, want %d", k, got, l.inFlight())
							}
						}
					}
					total += l.inFlight()
				}
				if s.inFlight != total {
					t.Fatalf("%d in flight in all, want %d", s.inFlight, total)
				}
				if (s.Health() != nil) != (s.writeErr != nil || s.syncErr != nil) {
					t.Fatalf("health %v, write %v, sync %v", s.Health(), s.writeErr, s.syncErr)
				}
			},
		})
	})
}

// move is the model's Begin without lines.
func (m *model) move(ms *modelStream, end entry.Position) {
	if _, done := ms.prefix(); done < len(ms.spans) {
		ms.spans[len(ms.spans)-1].end = end
		return
	}
	// Nothing in flight: the prefix ends there.
	if n := len(ms.spans); n > 0 {
		ms.spans[n-1].end = end
	} else {
		ms.base = end
	}
}
