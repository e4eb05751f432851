package deadletter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/entry"
)

// fakeSink is a store in memory. judge says what becomes of a line: taken, or
// the reason why not; by default it is taken.
type fakeSink struct {
	judge   func(text string) string
	answer  func(push int) *entry.Outcome // of a push that takes nothing; nil: it works
	after   func(push int)                // called when a push is done
	state   entry.PartState               // of what such a push leaves; 0 is pending
	pushes  int
	largest int
	lines   []string // "time labels metadata flags text"
}

func (f *fakeSink) Push(_ context.Context, b *entry.Batch, _ func(context.Context)) entry.Outcome {
	f.pushes++
	f.largest = max(f.largest, b.Size())
	if f.after != nil {
		defer f.after(f.pushes)
	}
	if f.answer != nil {
		if out := f.answer(f.pushes); out != nil {
			for i := range b.Sections {
				for c, st := range b.Sections[i].State {
					if st == entry.PartPending && f.state != 0 {
						b.Sections[i].State[c] = f.state
					}
				}
			}
			return *out
		}
	}
	for i := range b.Sections {
		s := &b.Sections[i]
		for c := range s.State {
			if s.State[c] == entry.PartPending {
				s.State[c] = entry.PartAccepted
			} else {
				continue
			}
			all := b.SectionLines(s)
			for k := range all {
				l := &all[k]
				text := string(b.Message(l))
				if f.judge != nil {
					if why := f.judge(text); why != "" {
						l.Flags |= entry.FlagRefused
						b.Refusals = append(b.Refusals, entry.Refusal{Section: i, Line: s.First + k, Reason: why})
						continue
					}
				}
				f.lines = append(f.lines, fmt.Sprintf("%d %s %v %d %s", l.Time, s.Source.Labels[l.Class], s.Source.Metadata, l.Flags, text))
			}
		}
	}
	return entry.Outcome{}
}

// texts are the last words of the lines.
func (f *fakeSink) texts() (all []string) {
	for _, l := range f.lines {
		all = append(all, l[strings.LastIndexByte(l, ' ')+1:])
	}
	return all
}

// written makes a data_dir with these records.
func written(t testing.TB, records ...Record) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := Open(dir, Options{Now: clock, MaxBytes: 64 << 10})
	must(t, err)
	for _, r := range records {
		must(t, l.Append([]Record{r}))
	}
	must(t, l.Close())
	return dir
}

func several(n int) (all []Record) {
	for i := range n {
		all = append(all, refused(fmt.Sprint(i)))
	}
	return all
}

func replayTo(t testing.TB, dir string, s Sink, o ReplayOptions) Replayed {
	t.Helper()
	o.Sink = s
	if o.BatchBytes == 0 {
		o.BatchBytes = 1 << 20
	}
	res, err := Replay(t.Context(), dir, o)
	must(t, err)
	return res
}

// What is sent: labels, metadata, time and text as they were.
func TestReplaySends(t *testing.T) {
	full := refused("full")
	full.Labels, full.Metadata, full.Partial = map[string]string{"job": "j", "stream": "stdout"}, map[string]string{"container_id": "abc", "a": "b"}, true
	bare := refused("bare")
	bare.Stream, bare.LineTime = "stderr", time.Time{}
	malformed := Record{Kind: Malformed, ContainerID: "abc", ContainerName: "web", LineTime: t0, Reason: "malformed", Raw: []byte("123456\u00fc\xff")}
	dir := written(t, full, bare, malformed)
	f, err := os.OpenFile(filepath.Join(dir, dirName, fileName), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("half a rec\n" + `{"kind":"malformed","container_name":"web","position":"f@1","raw":"Y29weQ=="}` + "\ntorn")
	must(t, errors.Join(err, f.Close()))

	o := ReplayOptions{MaxLineBytes: 7, Labels: map[string]string{"host": "h", "job": ""}}
	o.DryRun = true
	if res := replayTo(t, dir, nil, o); res.Sent != 3 || res.Bare != 2 || res.Copies != 1 || res.Bad != 1 {
		t.Errorf("dry run: %+v", res)
	}
	o.DryRun = false
	var s fakeSink
	if res := replayTo(t, dir, &s, o); res.Sent != 3 || res.Bare != 2 || res.Copies != 1 || res.Bad != 1 || len(res.Refused) != 0 || res.Before != 0 {
		t.Errorf("%+v", res)
	}
	ns := t0.UnixNano()
	want := []string{
		fmt.Sprint(ns, ` {job="j", stream="stdout"} [{a b} {container_id abc}] 1 full`),
		`0 {container_name="web", host="h", stream="stderr"} [{container_id abc}] 0 bare`,
		fmt.Sprint(ns, ` {container_name="web", host="h", malformed="true"} [{container_id abc}] 1 123456`),
		fmt.Sprint(ns, ` {container_name="web", host="h", malformed="true"} [{container_id abc}] 1 `, "\u00fc\ufffd"),
	}
	if !slices.Equal(s.lines, want) {
		t.Errorf("sent\n%q\nwant\n%q", s.lines, want)
	}

	s = fakeSink{}
	if res := replayTo(t, dir, &s, o); res.Sent != 0 || res.Before != 3 || s.pushes != 0 {
		t.Errorf("again: %+v in %d pushes", res, s.pushes)
	}
	o.Copies = true
	if res := replayTo(t, dir, &s, o); res.Sent != 1 || !slices.Equal(s.texts(), []string{"copy"}) {
		t.Errorf("copies: %+v, %q", res, s.texts())
	}
}

// In order, in bounded batches, over all files; an agent goes on beside it.
func TestReplayBatches(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{MaxBytes: 16 * 2000})
	must(t, err)
	defer l.Close()
	for i := range 60 {
		must(t, l.Append([]Record{refused(fmt.Sprint(i))}))
	}
	s := fakeSink{}
	s.after = func(push int) { must(t, l.Append([]Record{refused(fmt.Sprint(59 + push))})) }
	if res := replayTo(t, dir, &s, ReplayOptions{BatchBytes: 300}); !slices.Equal(s.texts(), numbers(0, res.Sent)) || res.Sent < 60 || s.pushes < 6 || s.largest > 400 {
		t.Errorf("%+v; %d pushes, the largest of %d bytes: %q", res, s.pushes, s.largest, s.texts())
	}
	s.after = nil
	pushed := s.pushes
	replayTo(t, dir, &s, ReplayOptions{})
	if want := numbers(0, 60+pushed); !slices.Equal(s.texts(), want) {
		t.Errorf("after all: %q", s.texts())
	}
}

func TestReplayFilters(t *testing.T) {
	other := refused("other")
	other.ContainerName = "db"
	dir := written(t, append(several(3), other)...)
	var s fakeSink
	if res := replayTo(t, dir, &s, ReplayOptions{Filter: Filter{Container: "db"}}); res.Sent != 1 || !slices.Equal(s.texts(), []string{"other"}) {
		t.Errorf("%+v, %q", res, s.texts())
	}
	if res := replayTo(t, dir, &s, ReplayOptions{}); res.Sent != 3 || res.Before != 1 {
		t.Errorf("%+v", res)
	}
}

// What is refused again stays, is told, and does not keep the rest back.
func TestReplayRefused(t *testing.T) {
	dir := written(t, several(10)...)
	s := fakeSink{judge: func(text string) string {
		if text == "3" || text == "7" {
			return "too old"
		}
		return ""
	}}
	res := replayTo(t, dir, &s, ReplayOptions{BatchBytes: 120})
	if want := []Refusal{{"web", "too old", 2}}; res.Sent != 8 || !slices.Equal(res.Refused, want) {
		t.Errorf("%+v, want refused %+v", res, want)
	}
	s = fakeSink{}
	if res := replayTo(t, dir, &s, ReplayOptions{}); res.Sent != 2 || res.Before != 8 || !slices.Equal(s.texts(), []string{"3", "7"}) {
		t.Errorf("the second time: %+v %q", res, s.texts())
	}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		left, tries, vain int
		config, held      bool
		want              next
	}{
		{left: 0, tries: 1, vain: 1, want: nextBatch},
		{left: 1, tries: 0, want: nextTry}, // something was taken
		{left: 1, tries: 0, config: true, want: nextTry},
		{left: 1, tries: 1, vain: 1, want: nextTry},
		{left: 1, tries: replayTries - 1, vain: 1, held: true, want: nextTry},
		{left: 1, tries: replayTries, vain: 1, want: nextEnd},
		{left: 1, tries: replayTries, vain: 1, held: true, want: nextLeave},
		{left: 1, tries: 1, vain: 1, config: true, want: nextLeave},
		{left: 1, tries: 1, vain: replayTries, config: true, want: nextEnd},
		{left: 1, tries: 1, vain: replayTries, config: true, held: true, want: nextLeave},
	} {
		if got := decide(c.left, c.tries, c.vain, c.config, c.held); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// threeRecords is a bound that three records of several fit below, with their metadata, and four do not.
const threeRecords = 110

func TestReplayStoreFails(t *testing.T) {
	down := errors.New("connection refused")
	for name, c := range map[string]struct {
		records int
		answer  func(push int) *entry.Outcome
		state   entry.PartState
		pushes  int
		sent    int
		err     string
		refused []Refusal
		within  time.Duration
	}{
		"for a while": {10, func(push int) *entry.Outcome {
			if push%3 != 0 {
				return &entry.Outcome{Err: down}
			}
			return nil
		}, 0, 12, 10, "", nil, time.Minute},
		"asks for a pause": {2, func(push int) *entry.Outcome {
			if push == 1 {
				return &entry.Outcome{Err: down, RetryAfter: 40 * time.Second}
			}
			return nil
		}, 0, 2, 2, "", nil, 41 * time.Second},
		"for good": {10, func(push int) *entry.Outcome {
			if push > 1 {
				return &entry.Outcome{Err: down}
			}
			return nil
		}, 0, 1 + replayTries, 3, "the store takes nothing: connection refused", nil, time.Minute},
		"one stream for a while": {3, func(push int) *entry.Outcome {
			if push < 3 {
				return &entry.Outcome{Err: down}
			}
			return nil
		}, entry.PartHeld, 3, 3, "", nil, time.Minute},
		"one stream":                   {3, func(int) *entry.Outcome { return &entry.Outcome{Err: down} }, entry.PartHeld, replayTries, 0, "", []Refusal{{"web", "connection refused", 3}}, time.Minute},
		"one stream, by configuration": {3, func(int) *entry.Outcome { return &entry.Outcome{Err: down, Config: true} }, entry.PartHeld, 1, 0, "", []Refusal{{"web", "connection refused", 3}}, 0},
		"a batch of poison": {10, func(push int) *entry.Outcome {
			if push == 2 {
				return &entry.Outcome{Err: down, Config: true}
			}
			return nil
		}, 0, 4, 7, "", []Refusal{{"web", "connection refused", 3}}, 0},
		"by configuration": {100, func(int) *entry.Outcome { return &entry.Outcome{Err: down, Config: true} }, 0, replayTries, 0, "the store takes nothing: connection refused", []Refusal{{"web", "connection refused", 3 * (replayTries - 1)}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, several(c.records)...)
			synctest.Test(t, func(t *testing.T) {
				s := fakeSink{answer: c.answer, state: c.state}
				began := time.Now()
				res, err := Replay(t.Context(), dir, ReplayOptions{Sink: &s, BatchBytes: threeRecords})
				if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
					t.Errorf("error %v, want %q", err, c.err)
				}
				if res.Sent != c.sent || s.pushes != c.pushes || !slices.Equal(res.Refused, c.refused) || time.Since(began) > c.within {
					t.Errorf("%+v, %d pushes, %v; want %d, %d, %v, %v", res, s.pushes, time.Since(began), c.sent, c.pushes, c.refused, c.within)
				}
				// The next one sends what is left, and no more.
				s.answer = nil
				if _, err := Replay(t.Context(), dir, ReplayOptions{Sink: &s, BatchBytes: 1000}); err != nil || len(s.lines) != c.records {
					t.Errorf("after all: %v, %d lines", err, len(s.lines))
				}
			})
		})
	}
}

func TestReplayStopped(t *testing.T) {
	dir := written(t, several(10)...)
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("signal: interrupt")
		ctx, cancel := context.WithCancelCause(t.Context())
		s := fakeSink{answer: func(push int) *entry.Outcome {
			if push == 1 {
				return nil
			}
			time.AfterFunc(100*time.Millisecond, func() { cancel(stop) }) // within the pause
			return &entry.Outcome{Err: errors.New("down")}
		}}
		res, err := Replay(ctx, dir, ReplayOptions{Sink: &s, BatchBytes: threeRecords})
		if !errors.Is(err, stop) || res.Sent != 3 {
			t.Errorf("%+v, %v", res, err)
		}
		s.answer = nil
		if replayTo(t, dir, &s, ReplayOptions{}); !slices.Equal(s.texts(), numbers(0, 10)) {
			t.Errorf("%q", s.texts())
		}
	})
}

// oneByOne is a store that takes a batch in requests of one record.
type oneByOne struct {
	fakeSink
	dies int // after so many requests
}

func (o *oneByOne) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	for i := range b.Sections {
		one := *b
		one.Sections = b.Sections[i : i+1]
		o.fakeSink.Push(ctx, &one, progress)
		if o.pushes == o.dies {
			panic("killed")
		}
		progress(ctx)
	}
	return entry.Outcome{}
}

// Killed within a batch, a replay has only the request under way sent again.
func TestReplayKilledBetweenRequests(t *testing.T) {
	dir := written(t, several(10)...)
	s := oneByOne{dies: 4}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("not killed")
			}
		}()
		replayTo(t, dir, &s, ReplayOptions{})
	}()
	must(t, os.Remove(filepath.Join(dir, dirName, lockName))) // a killed process gives it back
	if res := replayTo(t, dir, &s, ReplayOptions{}); res.Sent != 7 || res.Before != 3 || !slices.Equal(s.texts(), slices.Concat(numbers(0, 4), numbers(3, 10))) {
		t.Errorf("%+v, %q", res, s.texts())
	}
}

func TestReplayOnceAtATime(t *testing.T) {
	dir := written(t, several(1)...)
	var second error
	s := fakeSink{after: func(int) { _, second = Replay(t.Context(), dir, ReplayOptions{}) }}
	replayTo(t, dir, &s, ReplayOptions{})
	if locked := new(disk.LockedError); !errors.As(second, &locked) || locked.PID != os.Getpid() {
		t.Errorf("the second: %v", second)
	}
}

// Without dead letters there is nothing to do, and nothing is made.
func TestReplayNothing(t *testing.T) {
	dir := t.TempDir()
	if res := replayTo(t, dir, nil, ReplayOptions{}); res.Sent != 0 {
		t.Errorf("%+v", res)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if _, err := Replay(t.Context(), filepath.Join(dir, "none"), ReplayOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What cannot be remembered is an error before anything is sent, and one after.
func TestReplayCannotRemember(t *testing.T) {
	dir := written(t, several(3)...)
	inTheWay := filepath.Join(dir, dirName, markName+".tmp")
	must(t, os.Mkdir(inTheWay, 0o700))
	var s fakeSink
	if _, err := Replay(t.Context(), dir, ReplayOptions{Sink: &s}); err == nil || s.pushes != 0 {
		t.Errorf("%v after %d pushes", err, s.pushes)
	}
	must(t, os.Remove(inTheWay))
	m, err := openMark(disk.OS(filepath.Join(dir, dirName)))
	must(t, err)
	must(t, m.f.Close())
	if err := m.add([]sum{{1}}); err == nil || !strings.Contains(err.Error(), "may be sent again") {
		t.Error(err)
	}
	_ = m.close()
	newer := filepath.Join(dir, dirName, markName)
	must(t, os.WriteFile(newer, []byte("log_capturer replayed dead letters v2\n"), 0o600))
	if _, err := Replay(t.Context(), dir, ReplayOptions{Sink: &s}); err == nil || !strings.Contains(err.Error(), "version") || s.pushes != 0 {
		t.Errorf("a newer version: %v", err)
	}
}

// The mark does not outgrow the records.
func TestMarkForgets(t *testing.T) {
	dir := written(t, several(20)...)
	replayTo(t, dir, &fakeSink{}, ReplayOptions{})
	must(t, os.Remove(filepath.Join(dir, dirName, fileName)))
	l, err := Open(dir, Options{Now: clock})
	must(t, err)
	must(t, l.Append(several(1)))
	must(t, l.Close())
	replayTo(t, dir, &fakeSink{}, ReplayOptions{})
	data, err := os.ReadFile(filepath.Join(dir, dirName, markName))
	must(t, err)
	if n := bytes.Count(data, []byte("\n")); n != 2 {
		t.Errorf("%d lines:\n%s", n, data)
	}
}

// FuzzMark: whatever is in the file, what can be read of it comes back when it
// is written again.
func FuzzMark(f *testing.F) {
	f.Add([]byte(markHeader + "\n00112233445566778899aabbccddeeff\n0011"))
	f.Add([]byte(markHeader[:7]))
	f.Add([]byte(""))
	f.Add([]byte(markHeader + "\nzz112233445566778899aabbccddeeff\n00112233445566778899AABBCCDDEEFF"))
	dir := disk.OS(f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) {
		done, err := parseMark(data)
		if err != nil {
			return
		}
		m := mark{dir: dir}
		must(t, m.write(done))
		must(t, m.f.Close())
		again, err := readMark(dir)
		if err != nil || !maps.Equal(again, done) {
			t.Fatalf("%v: %d of %d", err, len(again), len(done))
		}
	})
}

// Whatever an agent appends between and during replays, and however replays
// end: while the limit is not reached the store has every record in the end, in
// order within each replay; one that was remembered is never sent again.
func TestReplayModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(t, err)
		l, err := Open(dir, Options{MaxBytes: 16 * 1000})
		must(t, err)
		defer l.Close()
		n := 0
		appendSome := func() {
			var records []Record
			for range rapid.IntRange(1, 4).Draw(rt, "records") {
				records = append(records, refused(fmt.Sprint(n)))
				n++
			}
			must(t, l.Append(records))
		}
		counts := map[string]int{}
		killed := errors.New("killed")
		replay := func(s *fakeSink) (res Replayed, err error) {
			defer func() {
				if r := recover(); r != nil {
					err = killed
					// A process that is killed gives its lock back.
					must(t, os.Remove(filepath.Join(dir, dirName, lockName)))
				}
				last := -1
				for _, text := range s.texts() {
					var i int
					_, scan := fmt.Sscan(text, &i)
					must(t, scan)
					if i <= last {
						rt.Fatalf("%d after %d", i, last)
					}
					last = i
					counts[text]++
				}
			}()
			return Replay(t.Context(), dir, ReplayOptions{Sink: s, BatchBytes: 100})
		}
		unremembered := 0
		for range rapid.IntRange(1, 6).Draw(rt, "rounds") {
			appendSome()
			s := &fakeSink{}
			end := rapid.IntRange(0, 4).Draw(rt, "the push at which it ends")
			kill := rapid.Bool().Draw(rt, "it is killed")
			s.after = func(push int) {
				if push == 2 {
					appendSome()
				}
				if push == end && kill {
					panic(killed) // the store has the batch, and nobody remembers
				}
			}
			s.answer = func(push int) *entry.Outcome {
				if push >= end && !kill {
					return &entry.Outcome{Err: errors.New("no"), Config: true}
				}
				return nil
			}
			if _, err := replay(s); errors.Is(err, killed) {
				unremembered++
			}
		}
		var s fakeSink
		if _, err := replay(&s); err != nil {
			rt.Fatal(err)
		}
		for i := range n {
			if c := counts[fmt.Sprint(i)]; c == 0 || c > 1 && unremembered == 0 {
				rt.Fatalf("%d was sent %d times", i, c)
			}
		}
		s = fakeSink{}
		if res, err := replay(&s); err != nil || res.Sent != 0 {
			rt.Fatalf("once more: %+v, %v", res, err)
		}
	})
}
