package monitors

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

func TestPlanResume(t *testing.T) {
	file := func(n uint64) entry.FileID { return entry.FileID{Inode: n, Handle: n, Print: n} }
	pos := func(n uint64, offset, at int64, ordinal uint32) entry.Position {
		return entry.Position{File: file(n), Offset: offset, Time: at, Ordinal: ordinal}
	}
	find := func(id entry.FileID) (int64, bool) { return int64(id.Inode), id.Inode >= 2 && id.Inode <= 4 }
	offset := func(seq, off int64) skipRule { return skipRule{kind: skipByOffset, seq: seq, offset: off} }
	for name, c := range map[string]struct {
		saved [2]entry.Position
		want  resumePlan
	}{
		"nothing saved: all":            {want: resumePlan{}},
		"both at one place":             {[2]entry.Position{pos(3, 50, 9, 1), pos(3, 50, 8, 1)}, resumePlan{seq: 3, offset: 50, skip: [2]skipRule{offset(3, 50), offset(3, 50)}}},
		"the smaller offset":            {[2]entry.Position{pos(3, 70, 9, 1), pos(3, 50, 8, 1)}, resumePlan{seq: 3, offset: 50, skip: [2]skipRule{offset(3, 70), offset(3, 50)}}},
		"the older file":                {[2]entry.Position{pos(2, 70, 9, 1), pos(4, 50, 8, 1)}, resumePlan{seq: 2, offset: 70, skip: [2]skipRule{offset(2, 70), offset(4, 50)}}},
		"one stream never delivered":    {[2]entry.Position{pos(3, 70, 9, 1), {}}, resumePlan{skip: [2]skipRule{offset(3, 70), {}}}},
		"file gone":                     {[2]entry.Position{pos(1, 70, 9, 2), pos(1, 70, 8, 1)}, resumePlan{skip: [2]skipRule{{kind: skipByTime, time: 9, left: 2}, {kind: skipByTime, time: 8, left: 1}}, lost: [2]bool{true, true}}},
		"one file gone":                 {[2]entry.Position{pos(1, 70, 9, 2), pos(3, 10, 8, 1)}, resumePlan{skip: [2]skipRule{{kind: skipByTime, time: 9, left: 2}, offset(3, 10)}, lost: [2]bool{true, false}}},
		"file gone, stream was silent":  {[2]entry.Position{pos(1, 70, 0, 0), pos(1, 70, 8, 1)}, resumePlan{skip: [2]skipRule{{}, {kind: skipByTime, time: 8, left: 1}}, lost: [2]bool{true, true}}},
		"beginning of a file is a file": {[2]entry.Position{pos(3, 0, 9, 1), pos(3, 20, 8, 1)}, resumePlan{seq: 3, offset: 0, skip: [2]skipRule{offset(3, 0), offset(3, 20)}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := planResume(c.saved, find); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestResumePlanTimeBefore(t *testing.T) {
	at := func(seq, off int64) skipRule { return skipRule{kind: skipByOffset, seq: seq, offset: off} }
	saved := [2]entry.Position{{Offset: 1, Time: 20}, {Offset: 1, Time: 30}}
	for _, c := range []struct {
		name string
		plan resumePlan
		want int64
	}{
		{"both here: the later", resumePlan{seq: 3, offset: 5, skip: [2]skipRule{at(3, 5), at(3, 5)}}, 30},
		{"only stdout is here", resumePlan{seq: 3, offset: 5, skip: [2]skipRule{at(3, 5), at(3, 9)}}, 20},
		{"only stderr is here", resumePlan{seq: 3, offset: 5, skip: [2]skipRule{at(4, 5), at(3, 5)}}, 30},
		{"judged by time", resumePlan{skip: [2]skipRule{{kind: skipByTime, time: 20}, at(3, 5)}}, 0},
		{"from the oldest file", resumePlan{skip: [2]skipRule{at(3, 5), at(3, 5)}}, 20},
	} {
		if got := c.plan.timeBefore(saved); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestSkipRule(t *testing.T) {
	type ask struct {
		seq, end, t int64
		covered     bool
	}
	for name, c := range map[string]struct {
		rule skipRule
		asks []ask
	}{
		"nothing":            {skipRule{}, []ask{{1, 1, 1, false}}},
		"by offset":          {skipRule{kind: skipByOffset, seq: 2, offset: 50}, []ask{{1, 900, 1, true}, {2, 49, 1, true}, {2, 50, 1, true}, {2, 51, 1, false}}},
		"by offset, a later": {skipRule{kind: skipByOffset, seq: 2, offset: 50}, []ask{{3, 10, 1, false}, {2, 10, 1, false}}},
		"by time":            {skipRule{kind: skipByTime, time: 10, left: 2}, []ask{{1, 1, 9, true}, {1, 2, 10, true}, {1, 3, 10, true}, {1, 4, 10, false}, {1, 5, 9, false}}},
		"by time, newer":     {skipRule{kind: skipByTime, time: 10, left: 2}, []ask{{1, 1, 11, false}, {1, 1, 10, false}}},
		"by time, one left":  {skipRule{kind: skipByTime, time: 10, left: 2}, []ask{{1, 1, 10, true}, {1, 1, 11, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			rule := c.rule
			for i, a := range c.asks {
				if got := rule.covers(a.seq, a.end, a.t); got != a.covered {
					t.Fatalf("question %d %+v: %v", i, a, got)
				}
			}
		})
	}
	for _, c := range []struct {
		rule              skipRule
		seq, offset, last int64
		over              bool
	}{
		{skipRule{kind: skipByOffset, seq: 2, offset: 50}, 2, 49, 0, false},
		{skipRule{kind: skipByOffset, seq: 2, offset: 50}, 2, 50, 0, true},
		{skipRule{kind: skipByOffset, seq: 2, offset: 50}, 1, 99, 0, false},
		{skipRule{kind: skipByOffset, seq: 2, offset: 50}, 3, 0, 0, true},
		{skipRule{kind: skipByTime, time: 10}, 9, 9, 10 + crossStreams, false},
		{skipRule{kind: skipByTime, time: 10}, 1, 1, 11 + crossStreams, true},
	} {
		rule := c.rule
		rule.pass(c.seq, c.offset, c.last)
		if over := !rule.holds(); over != c.over {
			t.Errorf("%+v at %d:%d, time %d: over is %v", c.rule, c.seq, c.offset, c.last, over)
		}
	}
}

// at is a time of an entry, in microseconds after t0.
func at(us int) time.Time { return t0.Add(time.Duration(us) * time.Microsecond) }

// TestJoiner gives whole files to the reader.
func TestJoiner(t *testing.T) {
	const partial = entry.FlagPartial
	full := strings.Repeat("x", 16384)
	type line struct {
		text  string
		us    int
		class entry.Class
		flags entry.Flags
	}
	for name, c := range map[string]struct {
		maxLine int
		files   []string // oldest first
		running bool
		want    []line
		// Lines that are cut, or are no entries, and NUL bytes left out.
		cut, bad, nuls float64
	}{
		"plain": {files: []string{jsonEntry("stdout", "a\n", at(1)) + jsonEntry("stderr", "b\n", at(2))},
			want: []line{{"a", 1, 0, 0}, {"b", 2, 1, 0}}},
		"empty lines": {files: []string{jsonEntry("stdout", "\n", at(1)) + jsonEntry("stdout", "\n", at(1))},
			want: []line{{"", 1, 0, 0}, {"", 1, 0, 0}}},
		"fragments, the other stream between": {
			files: []string{jsonEntry("stdout", "a", at(1)) + jsonEntry("stderr", "e", at(2)) + jsonEntry("stdout", "b", at(1)) +
				jsonEntry("stderr", "f\n", at(2)) + jsonEntry("stdout", "c\n", at(1))},
			want: []line{{"ef", 2, 1, 0}, {"abc", 1, 0, 0}}},
		"fragments across rotations": {
			files: []string{jsonEntry("stdout", "a", at(1)), jsonEntry("stdout", "b", at(1)), jsonEntry("stdout", "c\n", at(1))},
			want:  []line{{"abc", 1, 0, 0}}},
		"exactly 16 KiB": {files: []string{jsonEntry("stdout", full, at(1)) + jsonEntry("stdout", "\n", at(1)) + jsonEntry("stdout", "n\n", at(2))},
			want: []line{{full, 1, 0, 0}, {"n", 2, 0, 0}}},
		"another time is another line": {files: []string{jsonEntry("stdout", "never ended", at(1)) + jsonEntry("stdout", "next\n", at(2))},
			want: []line{{"never ended", 1, 0, 0}, {"next", 2, 0, 0}}},
		"another time, both fragments": {files: []string{jsonEntry("stdout", "never ended", at(1)) + jsonEntry("stdout", "ne", at(2)) + jsonEntry("stdout", "xt\n", at(2))},
			want: []line{{"never ended", 1, 0, 0}, {"next", 2, 0, 0}}},
		"open at the exit": {files: []string{jsonEntry("stdout", "last ", at(1)) + jsonEntry("stdout", "words", at(1))},
			want: []line{{"last words", 1, 0, 0}}},
		"open while it runs": {running: true, files: []string{jsonEntry("stdout", "last words", at(1))}},
		"absent log is an empty fragment": {files: []string{`{"stream":"stdout","time":"` + at(1).Format(time.RFC3339Nano) + "\"}\n" + jsonEntry("stdout", "a\n", at(1))},
			want: []line{{"a", 1, 0, 0}}},
		"terminal": {files: []string{jsonEntry("stdout", "a\r\n", at(1)) + jsonEntry("stdout", "b\r", at(2)) + jsonEntry("stdout", "\n", at(2)) + jsonEntry("stdout", "50%\r", at(3))},
			want: []line{{"a", 1, 0, 0}, {"b", 2, 0, 0}, {"50%\r", 3, 0, 0}}},
		"too long, one entry": {maxLine: 4, files: []string{jsonEntry("stdout", "abcdefghij\n", at(1)) + jsonEntry("stdout", "abcd\n", at(2))},
			want: []line{{"abcd", 1, 0, partial}, {"efgh", 1, 0, partial}, {"ij", 1, 0, partial}, {"abcd", 2, 0, 0}}, cut: 1},
		"too long, cut at a rune": {maxLine: 4, files: []string{jsonEntry("stdout", "abcü\u20acd\n", at(1))},
			want: []line{{"abc", 1, 0, partial}, {"ü", 1, 0, partial}, {"\u20acd", 1, 0, partial}}, cut: 1},
		"too long, joined": {maxLine: 6, files: []string{jsonEntry("stdout", "abcd", at(1)) + jsonEntry("stdout", "efgh", at(1)) + jsonEntry("stdout", "i\n", at(1)) + jsonEntry("stdout", "after\n", at(2))},
			want: []line{{"abcd", 1, 0, partial}, {"efghi", 1, 0, partial}, {"after", 2, 0, 0}}, cut: 1},
		"too long, each fragment": {maxLine: 3, files: []string{jsonEntry("stdout", "abcd", at(1)) + jsonEntry("stdout", "efgh", at(1)) + jsonEntry("stdout", "\n", at(1))},
			want: []line{{"abc", 1, 0, partial}, {"d", 1, 0, partial}, {"efg", 1, 0, partial}, {"h", 1, 0, partial}}, cut: 1},
		"too long, and never ended": {maxLine: 3, files: []string{jsonEntry("stdout", "abcd", at(1)) + jsonEntry("stdout", "next\r\n", at(2))},
			want: []line{{"abc", 1, 0, partial}, {"d", 1, 0, partial}, {"nex", 2, 0, partial}, {"t", 2, 0, partial}}, cut: 2},
		"malformed": {files: []string{jsonEntry("stdout", "a\n", at(5)) + "no json\n" + jsonEntry("stderr", "b\n", at(4)) + "at \xff all\n\n" + jsonEntry("stdout", "c\n", at(6))},
			want: []line{{"a", 5, 0, 0}, {"no json", 5, 2, 0}, {"b", 4, 1, 0}, {"at \ufffd all", 5, 2, 0}, {"c", 6, 0, 0}}, bad: 2},
		"malformed and too long": {maxLine: 4, files: []string{jsonEntry("stdout", "a\n", at(5)) + "no json\n"},
			want: []line{{"a", 5, 0, 0}, {"no j", 5, 2, partial}, {"son", 5, 2, partial}}, bad: 1, cut: 1},
		"malformed between fragments": {files: []string{jsonEntry("stdout", "a", at(5)) + "no json\n" + jsonEntry("stdout", "b\n", at(5))},
			want: []line{{"no json", 5, 2, 0}, {"ab", 5, 0, 0}}, bad: 1},
		"entry glued to one that was cut": {files: []string{`{"log":"cu` + jsonEntry("stdout", "a\n", at(1))},
			want: []line{{`{"log":"cu`, 0, 2, 0}, {"a", 1, 0, 0}}, bad: 1},
		"no time": {files: []string{jsonEntry("stdout", "a\n", at(7)) + `{"log":"b\n","stream":"stderr"}` + "\n" + jsonEntry("stderr", "c\n", at(8))},
			want: []line{{"a", 7, 0, 0}, {"b", 7, 1, 0}, {"c", 8, 1, 0}}},
		"NULs": {files: []string{jsonEntry("stdout", "a\n", at(1)) + strings.Repeat("\x00", 5000) + jsonEntry("stdout", "b\n", at(2))},
			want: []line{{"a", 1, 0, 0}, {"b", 2, 0, 0}}, nuls: 5000},
		"NULs, more than a buffer": {files: []string{jsonEntry("stdout", "a\n", at(1)) + strings.Repeat("\x00", 3*readBytes) + jsonEntry("stdout", "b\n", at(2))},
			want: []line{{"a", 1, 0, 0}, {"b", 2, 0, 0}}, nuls: 3 * readBytes},
		"NULs before lines, good and bad": {files: []string{jsonEntry("stdout", "a\n", at(1)) + "\x00\x00" + jsonEntry("stdout", "b\n", at(2)) + "\x00no json\n" + "\x00" + jsonEntry("stdout", "c", at(3)) + jsonEntry("stdout", "d\n", at(3))},
			want: []line{{"a", 1, 0, 0}, {"b", 2, 0, 0}, {"no json", 2, 2, 0}, {"cd", 3, 0, 0}}, bad: 1, nuls: 4},
		"half a line in a file that nobody will finish": {files: []string{jsonEntry("stdout", "a\n", at(1)) + `{"log":"hal`, jsonEntry("stdout", "b\n", at(2))},
			want: []line{{"a", 1, 0, 0}, {`{"log":"hal`, 1, 2, 0}, {"b", 2, 0, 0}}, bad: 1},
		"open in a file that goes, shipped as it stands": {running: true,
			files: []string{jsonEntry("stdout", "begun", at(1)), jsonEntry("stderr", "a\n", at(2)) + strings.Repeat(jsonEntry("stderr", full+"\n", at(3)), 1+readBytes/len(full))},
			want: append([]line{{"a", 2, 1, 0}}, func() (l []line) {
				for i := range 1 + readBytes/len(full) {
					if i == readBytes/len(full)-1 { // a buffer ends here
						l = append(l, line{full, 3, 1, 0}, line{"begun", 1, 0, partial})
						continue
					}
					l = append(l, line{full, 3, 1, 0})
				}
				return l
			}()...)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, func(cfg *FileMonitorConfig) {
				if c.maxLine > 0 {
					cfg.MaxLineBytes = c.maxLine
				}
			})
			info := f.info("c")
			info.Running = c.running
			var paths []string
			for i, content := range c.files {
				path := info.LogPath
				if n := len(c.files) - 1 - i; n > 0 {
					path = fmt.Sprintf("%s.%d", path, n)
				}
				appendTo(t, path, content)
				paths = append(paths, path)
			}
			f.m.add(info)
			lines := f.work()
			checkPlaces(t, lines, paths...)
			var got []line
			for _, l := range lines {
				got = append(got, line{l.text, int(time.Duration(l.time-t0.UnixNano()) / time.Microsecond), l.class, l.flags})
			}
			want := c.want
			if name == "open in a file that goes, shipped as it stands" {
				// Where it comes depends on the buffer; that it comes does not.
				got, want = without(got, line{"begun", 1, 0, partial}), without(want, line{"begun", 1, 0, partial})
				if len(lines) != len(c.want) {
					t.Fatalf("%d lines, want %d", len(lines), len(c.want))
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			f.wantMetric("lines_cut_total", c.cut)
			f.wantMetric("parse_errors_total", c.bad)
			f.wantMetric("nul_bytes_total", c.nuls)
			f.wantMetric("lines_read_total", float64(len(lines)))
		})
	}
}

// What was there when a line began is gone once somebody has truncated the file: no
// place is said of it.
func TestPlaceOfALineBegunBeforeATruncation(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "a line that is there\n", at(1)), jsonEntry("stdout", "be", at(2)))
	f.m.add(info)
	if got := f.work(); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if err := os.Truncate(info.LogPath, 0); err != nil {
		t.Fatal(err)
	}
	f.write("c", jsonEntry("stdout", "gun\n", at(2)), jsonEntry("stdout", "new\n", at(3)))
	f.m.poll()
	f.m.tick(nil)
	got := f.work()
	if len(got) != 2 || got[0].text != "begun" || got[0].place != (entry.Place{}) || got[1].text != "new" {
		t.Fatalf("%+v", got)
	}
	checkPlaces(t, got[1:], info.LogPath)
}

func without[T comparable](in []T, x T) (out []T) {
	for _, v := range in {
		if v != x {
			out = append(out, v)
		}
	}
	return out
}

// TestJoinerPositions acknowledges what each entry alone has brought and starts
// again: a position never lies inside an entry, and never behind a fragment that
// is not shipped.
func TestJoinerPositions(t *testing.T) {
	entries := []string{
		jsonEntry("stdout", "a", at(1)), jsonEntry("stderr", "e\n", at(1)), jsonEntry("stdout", "b\n", at(1)),
		jsonEntry("stdout", "0123456789", at(2)), jsonEntry("stdout", "0123", at(2)), jsonEntry("stdout", "4567\n", at(2)),
		jsonEntry("stdout", "end\n", at(3)),
	}
	for n := range len(entries) + 1 {
		f := newFixture(t, nil, func(cfg *FileMonitorConfig) { cfg.MaxLineBytes = 8 })
		info := f.info("c")
		f.write("c", entries[:n]...)
		f.m.add(info)
		first := f.work()
		f.ack(first)
		f.m.mu.Lock()
		for _, lg := range f.m.logs {
			lg.tail.Close()
		}
		f.m.mu.Unlock()
		f.start(nil, func(cfg *FileMonitorConfig) { cfg.MaxLineBytes = 8 })
		f.write("c", entries[n:]...)
		f.m.add(info)
		second := f.work()
		var all strings.Builder
		for _, l := range append(first, second...) {
			if l.class == entry.ClassStdout {
				all.WriteString(l.text)
			}
		}
		if got, want := all.String(), "ab012345678901234567end"; got != want {
			t.Errorf("acknowledged after %d entries: %q, want %q", n, got, want)
		}
	}
}

// TestSkippingKeepsTheFartherPlace crashes again while the stream that had come
// farther is still passed over.
func TestSkippingKeepsTheFartherPlace(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	o1 := jsonEntry("stdout", "o1\n", at(1))
	f.write("c", o1, jsonEntry("stderr", "e1\n", at(2)), jsonEntry("stdout", "o2\n", at(3)), jsonEntry("stderr", "e2\n", at(4)))
	f.m.add(info)
	for _, l := range f.work() {
		if l.class == entry.ClassStderr {
			f.ack([]shipped{l})
		}
	}
	again := func(buf int) (lines []shipped) {
		f.m.logs["c"].tail.Close()
		f.start(nil, nil)
		f.m.add(info)
		for lg := f.m.take(0); lg != nil; lg = nil {
			var b entry.Batch
			j := f.joiner()
			f.m.read(j, lg, &b, make([]byte, buf))
			f.m.count(&j.counts)
			lines = linesOf(&b)
		}
		return lines
	}
	first := again(100) // one entry
	if got := texts(first); !reflect.DeepEqual(got, []string{"o1"}) {
		t.Fatalf("got %q", got)
	}
	f.ack(first)
	if got := texts(again(readBytes)); !reflect.DeepEqual(got, []string{"o2"}) {
		t.Errorf("got %q", got)
	}
	f.wantMetric("lines_already_delivered_total", 2) // e1 and e2
	f.wantMetric("lines_read_total", 1)
	f.wantMetric("file_read_bytes_total", float64(f.written-len(o1))) // what is passed over is read, too
	f.m.logs["c"].tail.Close()
}

func TestMalformedNotShipped(t *testing.T) {
	f := newFixture(t, nil, func(cfg *FileMonitorConfig) { cfg.ShipMalformed = false })
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "a\n", at(1)), "bro\xffken\n", jsonEntry("stdout", "b\n", at(2)))
	f.m.add(info)
	var b entry.Batch
	j := f.joiner()
	f.m.read(j, f.m.take(0), &b, make([]byte, readBytes))
	if len(b.Lines) != 3 || len(b.Refusals) != 1 || len(j.malformed) != 0 {
		t.Fatalf("%d lines, refusals %+v, %d copies", len(b.Lines), b.Refusals, len(j.malformed))
	}
	r := b.Refusals[0]
	if l := &b.Lines[r.Line]; r.Section != 0 || r.Reason != ReasonMalformed || l.Flags != entry.FlagRefused ||
		l.Class != entry.ClassMalformed || string(b.Message(l)) != "bro\xffken" || l.Time != at(1).UnixNano() {
		t.Errorf("refusal %+v, line %+v", r, l)
	}
}

func TestMalformedCopies(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	good := jsonEntry("stdout", "a\n", at(1))
	f.write("c", good, "bro\xffken\n")
	f.m.add(info)
	f.work()
	if len(f.copies.copies) != 1 {
		t.Fatalf("%d copies", len(f.copies.copies))
	}
	c := f.copies.copies[0]
	if string(c.Raw) != "bro\xffken" || c.Source.Path != info.LogPath || c.Place != (entry.Place{Inode: inodeOf(t, info.LogPath), Offset: int64(len(good))}) || c.Time != at(1).UnixNano() || c.Source.ID != "c" {
		t.Errorf("copy %+v", c)
	}
	if metric(t, f.reg, "parse_errors_total") != 1 || f.m.Health().MalformedAt.IsZero() {
		t.Error("malformed line is not counted")
	}
}

func TestIgnoreOlderThan(t *testing.T) {
	set := func(cfg *FileMonitorConfig) {
		cfg.FirstStart = t0.Add(time.Hour)
		cfg.IgnoreOlderThan = time.Hour - time.Second // ends at t0 + 1 s
	}
	f := newFixture(t, nil, set)
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "old\n", at(0)), "old junk\n", jsonEntry("stdout", "frag", at(10)), jsonEntry("stdout", "ment\n", at(10)),
		jsonEntry("stdout", "new\n", at(1e6)), jsonEntry("stderr", "newer\n", at(1e6+1)))
	f.m.add(info)
	lines := f.work()
	if got := texts(lines); !reflect.DeepEqual(got, []string{"new", "newer"}) {
		t.Errorf("got %q", got)
	}
	if n := metric(t, f.reg, "lines_ignored_total"); n != 4 {
		t.Errorf("%v entries counted as ignored", n)
	}
	// A container that is younger than the agent is read whole.
	f = newFixture(t, nil, set)
	info = f.info("c")
	info.Created = t0.Add(2 * time.Hour)
	f.write("c", jsonEntry("stdout", "old\n", at(0)))
	f.m.add(info)
	if got := texts(f.work()); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestReadFromEnd(t *testing.T) {
	set := func(cfg *FileMonitorConfig) { cfg.FirstStart, cfg.FromEnd = t0.Add(time.Hour), true }
	f := newFixture(t, nil, set)
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "old\n", at(0)))
	f.m.add(info)
	// One of the same age that has no log yet: what comes is new.
	later := f.info("later")
	f.m.add(later)
	f.work()
	f.write("c", jsonEntry("stdout", "new\n", at(1)))
	f.write("later", jsonEntry("stdout", "first\n", at(1)))
	f.m.poll()
	f.m.tick(nil)
	f.m.poll()
	if got := texts(f.work()); len(got) != 2 || got[0] == "old" || got[1] == "old" {
		t.Errorf("got %q", got)
	}
	// The place is kept: a crash before the first line does not move it.
	f.m.logs["c"].tail.Close()
	f.m.logs["later"].tail.Close()
	f.start(nil, set)
	f.write("c", jsonEntry("stdout", "newer\n", at(2)))
	f.m.add(info)
	if got := texts(f.work()); !reflect.DeepEqual(got, []string{"new", "newer"}) {
		t.Errorf("after a restart: %q", got)
	}
}

// TestTruncation lets somebody empty a log under the reader.
func TestTruncation(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	f.write("c", jsonEntry("stdout", "one\n", at(1)), jsonEntry("stderr", "two\n", at(2)))
	f.m.add(info)
	f.ack(f.work())
	if err := os.Truncate(info.LogPath, 0); err != nil {
		t.Fatal(err)
	}
	f.write("c", jsonEntry("stdout", "3\n", at(3)))
	f.m.poll()
	f.m.tick(nil)
	lines := f.work()
	if got := texts(lines); !reflect.DeepEqual(got, []string{"3"}) {
		t.Fatalf("got %q", got)
	}
	f.ack(lines)
	if n := metric(t, f.reg, "file_truncations_total"); n != 1 {
		t.Errorf("%v truncations counted", n)
	}
	// Truncated and written anew while the agent is down: what is there is told
	// apart from what was delivered by its times.
	f.m.logs["c"].tail.Close()
	if err := os.Truncate(info.LogPath, 0); err != nil {
		t.Fatal(err)
	}
	f.write("c", jsonEntry("stderr", "4\n", at(4)), jsonEntry("stdout", "5\n", at(5)))
	f.start(nil, nil)
	f.m.add(info)
	if got := texts(f.work()); !reflect.DeepEqual(got, []string{"4", "5"}) {
		t.Errorf("after a restart: %q", got)
	}
}

// TestOffsetDoesNotFit resumes in a file whose tail a power loss took.
func TestOffsetDoesNotFit(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	one, two := jsonEntry("stdout", "one\n", at(1)), jsonEntry("stdout", "two\n", at(2))
	f.write("c", one, two)
	f.m.add(info)
	f.ack(f.work())
	f.m.logs["c"].tail.Close()
	if err := os.Truncate(info.LogPath, int64(len(one))); err != nil {
		t.Fatal(err)
	}
	f.write("c", jsonEntry("stdout", "two again, longer\n", at(2)), jsonEntry("stdout", "three\n", at(3)))
	f.start(nil, nil)
	f.m.add(info)
	if got := texts(f.work()); !reflect.DeepEqual(got, []string{"three"}) {
		t.Errorf("got %q", got)
	}
	if n := metric(t, f.reg, "resumes_by_time_total"); n != 1 {
		t.Errorf("%v resumes by time", n)
	}
}

// TestLabelSwitch renames and restarts a container: lines bear the name of their
// own start, also when they are sent again after a crash of the agent.
func TestLabelSwitch(t *testing.T) {
	f := newFixture(t, nil, nil)
	info := f.info("c")
	info.Name = "old"
	f.write("c", jsonEntry("stdout", "1\n", at(1)), jsonEntry("stdout", "open", at(2)))
	f.m.add(info)
	lines := f.work()
	info.Name = "new"
	f.m.add(info) // renamed, not started again
	f.write("c", jsonEntry("stderr", "2\n", at(3)))
	f.m.poll()
	lines = append(lines, f.work()...)
	info.FinishedAt, info.StartedAt = at(10), at(20)
	f.m.add(info)
	f.write("c", jsonEntry("stdout", "3\n", at(15)), jsonEntry("stderr", "4\n", at(25)))
	f.m.poll()
	lines = append(lines, f.work()...)
	want := []string{"1 old", "2 old", "open old", "3 new", "4 new"}
	names := func(lines []shipped) (out []string) {
		for _, l := range lines {
			out = append(out, l.text+" "+l.name)
			if !strings.Contains(l.labels, `container_name="`+l.name+`"`) {
				t.Errorf("%q has labels %s", l.text, l.labels)
			}
		}
		return out
	}
	if got := names(lines); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	f.m.logs["c"].tail.Close()
	f.start(nil, nil) // nothing was acknowledged
	f.m.add(info)
	if got := names(f.work()); len(got) != 5 || got[0] != want[0] || got[4] != want[4] {
		t.Errorf("sent again: %q", got)
	}
	// A third name, not started under: nothing changes.
	f.m.logs["c"].tail.Close()
	f.start(nil, nil)
	info.Name = "newest"
	f.m.add(info)
	if got := names(f.work()); len(got) != 5 || got[0] != want[0] || got[4] != want[4] {
		t.Errorf("sent again after another rename: %q", got)
	}
}

// TestLaneStays renames and restarts a container, and the agent between: its lines keep
// to the lane of the first name, where older ones of a name may still be in the spool.
func TestLaneStays(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.outlet = newFakeOutlet(2)
	info := f.info("c")
	for i, name := range []string{"a", "bb", "cccc", "bb", "dd"} {
		f.start(nil, func(c *FileMonitorConfig) { c.Outlet = f.outlet })
		info.Name, info.FinishedAt, info.StartedAt = name, at(10*i-1), at(10*i)
		f.write("c", jsonEntry("stdout", "line\n", at(10*i)))
		f.m.add(info)
		lines := f.work()
		if len(lines) != 1 || lines[0].name != name {
			t.Fatalf("as %s: %+v", name, lines)
		}
		f.ack(lines)
		if lg := f.m.logs["c"]; lg.lane != 1 || lg.src.Lane != 1 {
			t.Errorf("as %s: read in lane %d, sent in lane %d", name, lg.lane, lg.src.Lane)
		}
		f.m.logs["c"].tail.Close()
	}
}

func TestNameNote(t *testing.T) {
	for _, n := range []nameNote{
		{name: "web", started: at(1), first: "web"},
		{name: "web", started: time.Time{}, first: "web"},
		{name: "web-2", started: at(3), before: "web", since: 99, first: "web"},
		{name: "web-3", started: at(4), before: "web-2", since: 99, first: "web"},
		{name: "web", started: at(5), before: "web-2", since: 99, first: "web"},
	} {
		got, ok := parseNameNote(n.String())
		if !ok || got.name != n.name || !got.started.Equal(n.started) || got.before != n.before || got.since != n.since || got.first != n.first {
			t.Errorf("%+v became %q, that %+v", n, n.String(), got)
		}
	}
	for _, s := range noNameNotes {
		if got, ok := parseNameNote(s); ok {
			t.Errorf("%q is %+v", s, got)
		}
	}
}

// noNameNotes are texts that are no nameNote's.
var noNameNotes = []string{
	"", "web", " 2025-11-07T12:00:00Z", "web noon", "web 2025-11-07T12:00:00Z ",
	"web 2025-11-07T12:00:00Z x", "web 2025-11-07T12:00:00Z x y", "web 2025-11-07T12:00:00Z x 1 y z",
	// A field is empty.
	"web 2025-11-07T12:00:00Z  1", "web 2025-11-07T12:00:00Z  1 y", "web 2025-11-07T12:00:00Z x 1 ",
	// The same could be said otherwise.
	"web 2025-11-07T12:00:00.10Z", "web 2025-11-07T13:00:00+01:00", "web 2025-11-07T12:00:00Z x +1", "web 2025-11-07T12:00:00Z x 1 x",
}

// FuzzNameNote: what is read as a note is what String writes of it.
func FuzzNameNote(f *testing.F) {
	for _, s := range noNameNotes {
		f.Add(s)
	}
	f.Add("web-3 2025-11-07T12:00:04Z web-2 99 web")
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseNameNote(s)
		if !ok {
			return
		}
		if got := n.String(); got != s {
			t.Errorf("%q was read as %+v, which is written %q", s, n, got)
		}
		if n.name == "" || n.first == "" {
			t.Errorf("%q was read as %+v", s, n)
		}
	})
}

func TestExplain(t *testing.T) {
	if err := explain(errors.New("plain")); err.Error() != "plain" {
		t.Error(err)
	}
	_, err := os.Open(t.TempDir() + "/containers/id/id-json.log")
	if got := explain(err); !errors.Is(got, os.ErrNotExist) || !strings.Contains(got.Error(), "docker.containers_dir") {
		t.Error(got)
	}
	err = &os.PathError{Op: "open", Path: t.TempDir() + "/x", Err: os.ErrPermission}
	if got := explain(err); !errors.Is(got, os.ErrPermission) || !strings.Contains(got.Error(), "CAP_DAC_READ_SEARCH") {
		t.Error(got)
	}
}

// TestUnreadOfLogThatCannotBeRead: that a log was idle once does not hide what it has
// grown by since.
func TestUnreadOfLogThatCannotBeRead(t *testing.T) {
	f := newFixture(t, nil, func(cfg *FileMonitorConfig) { cfg.Settled = -1 })
	info := f.idle("c")
	f.m.poll()
	if h := f.m.Health(); h.UnreadBytes != 0 {
		t.Fatalf("%d bytes unread of an idle log", h.UnreadBytes)
	}
	forbidReads(t, info.LogPath)
	f.told(info, "more")
	f.m.tick(nil)
	f.work()
	if h := f.m.Health(); h.Failed != 1 || h.UnreadBytes == 0 {
		t.Errorf("failed %d, unread %d bytes", h.Failed, h.UnreadBytes)
	}
	f.m.logs["c"].tail.Close()
}

// TestFragmentsShareMemory has many logs with long lines: only one whose line is not at its end
// has memory for it.
func TestFragmentsShareMemory(t *testing.T) {
	f := newFixture(t, nil, nil)
	piece := strings.Repeat("x", 16<<10)
	line := []string{jsonEntry("stdout", piece, at(1)), jsonEntry("stdout", piece, at(1)), jsonEntry("stdout", "end\n", at(1))}
	const logs = 20
	for i := range logs {
		id := fmt.Sprint("c", i)
		info := f.info(id)
		f.write(id, line...)
		if i%10 == 0 {
			f.write(id, jsonEntry("stderr", piece, at(2)))
		}
		f.m.add(info)
	}
	var b entry.Batch
	buf := make([]byte, readBytes)
	for lane := range f.m.ready {
		j := f.joiner()
		for lg := f.m.take(lane); lg != nil; lg = f.m.take(lane) {
			f.m.read(j, lg, &b, buf)
		}
		if n := cap(j.spare); n > maxSpare {
			t.Errorf("lane %d keeps %d bytes for the next fragment", lane, n)
		}
		before := cap(j.spare)
		if lg := f.m.logs["c1"]; lg.lane == lane { // a line of the same length needs no more
			f.write("c1", line...)
			f.m.read(j, lg, &b, buf)
			if before == 0 || cap(j.spare) != before {
				t.Errorf("memory of %d bytes after another line, %d before", cap(j.spare), before)
			}
		}
	}
	for id, lg := range f.m.logs {
		for s := range lg.streams {
			if st := &lg.streams[s]; (st.frag != nil) != st.open || cap(st.frag) > maxSpare {
				t.Errorf("log %s, stream %d: open %v, memory of %d bytes", id, s, st.open, cap(st.frag))
			}
		}
		lg.tail.Close()
	}
	if open := f.m.logs["c0"].streams[entry.Stderr].open; !open {
		t.Error("no line is open")
	}
}
