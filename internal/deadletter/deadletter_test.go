package deadletter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

var t0 = time.Date(2025, 11, 7, 12, 0, 0, 123456789, time.UTC)

func clock() time.Time { return t0 }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memFile is a file in memory on a disk that fails on demand.
type memFile struct {
	data                []byte
	synced              int
	room                int // bytes that may still be written; < 0 is no limit
	failSync, failTrunc bool
	writes              int
}

func (f *memFile) Write(b []byte) (int, error) {
	f.writes++
	n := len(b)
	if f.room >= 0 {
		n = min(n, f.room)
		f.room -= n
	}
	f.data = append(f.data, b[:n]...)
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (f *memFile) Truncate(size int64) error {
	if f.failTrunc {
		return syscall.EIO
	}
	f.data = f.data[:size]
	f.synced = min(f.synced, int(size))
	return nil
}

func (f *memFile) Sync() error {
	if f.failSync {
		return syscall.EIO
	}
	f.synced = len(f.data)
	return nil
}

func (f *memFile) Close() error { return nil }

func memLog(t testing.TB, f *memFile, logger *slog.Logger) *Log {
	t.Helper()
	l, err := newLog(f, state{size: int64(len(f.data)), torn: len(f.data) > 0 && f.data[len(f.data)-1] != '\n'}, Options{Now: clock, Logger: logger})
	must(t, err)
	return l
}

// read gives the records of a file and the number of lines that are none.
func read(data []byte) (records []Record, bad int) {
	for _, l := range bytes.Split(data, []byte("\n")) {
		if len(l) == 0 {
			continue
		}
		var r Record
		if json.Unmarshal(l, &r) != nil {
			bad++
			continue
		}
		records = append(records, r)
	}
	return records, bad
}

func refused(raw string) Record {
	return Record{Kind: Refused, ContainerID: "abc", ContainerName: "web", Stream: "stdout", LineTime: t0, Reason: "too old", Raw: []byte(raw)}
}

func TestFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := Open(dir, Options{Now: clock})
	must(t, err)
	r := refused("a <b> \xff\n")
	r.LineTime = time.Date(2025, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	r.Position = "1:2:3:4:5:6"
	r.Labels, r.Metadata, r.Partial = map[string]string{"stream": "stdout", "job": "j"}, map[string]string{"container_id": "abc"}, true
	must(t, l.Append([]Record{r}))
	l.AppendUnsynced([]Record{{Kind: Malformed, ContainerID: "abc", Reason: "entry <x> has no time"}})
	must(t, l.Close())
	name := filepath.Join(dir, "dead_letters", "dead_letters.jsonl")
	got, err := os.ReadFile(name)
	must(t, err)
	const want = `{"time":"2025-11-07T12:00:00.123456789Z","kind":"refused","container_id":"abc","container_name":"web","stream":"stdout","line_time":"2025-01-02T02:04:05Z","reason":"too old","position":"1:2:3:4:5:6","labels":{"job":"j","stream":"stdout"},"metadata":{"container_id":"abc"},"partial":true,"raw":"YSA8Yj4g/wo="}
{"time":"2025-11-07T12:00:00.123456789Z","kind":"malformed","copy":true,"container_id":"abc","container_name":"","stream":"","reason":"entry <x> has no time","raw":""}
`
	if string(got) != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	for n, mode := range map[string]fs.FileMode{name: 0o600, filepath.Dir(name): fs.ModeDir | 0o700} {
		fi, err := os.Stat(n)
		must(t, err)
		if fi.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", n, fi.Mode(), mode)
		}
	}
}

func TestTornLineAtOpen(t *testing.T) {
	whole := `{"time":"2025-11-07T12:00:00Z","kind":"refused","raw":"YQ=="}` + "\n"
	for name, c := range map[string]struct {
		before string
		bad    int
	}{
		"new":            {"", 0},
		"whole":          {whole, 0},
		"torn":           {whole + whole[:30], 1},
		"only torn":      {whole[:30], 1},
		"no newline":     {whole + whole[:len(whole)-1], 0}, // a whole record after all
		"NULs":           {whole + "\x00\x00\x00", 1},
		"torn and ended": {whole + whole[:30] + "\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, dirName), 0o700))
			file := filepath.Join(dir, dirName, fileName)
			must(t, os.WriteFile(file, []byte(c.before), 0o600))
			earlier, _ := read([]byte(c.before))
			for i := range 2 { // once more over what the first run left
				l, err := Open(dir, Options{Now: clock})
				must(t, err)
				must(t, l.Append([]Record{refused(fmt.Sprint(i))}))
				if fi, err := os.Stat(file); err != nil || fi.Size() != l.size {
					t.Fatalf("size %d, want that of the file: %v, %v", l.size, fi.Size(), err)
				}
				must(t, l.Close())
			}
			data, err := os.ReadFile(file)
			must(t, err)
			got, bad := read(data)
			if bad != c.bad || len(got) != len(earlier)+2 || string(got[len(got)-2].Raw) != "0" || string(got[len(got)-1].Raw) != "1" {
				t.Fatalf("%d records, %d bad lines:\n%q", len(got), bad, data)
			}
			if !bytes.HasPrefix(data, []byte(c.before)) {
				t.Fatal("what was there has changed")
			}
		})
	}
}

func TestDiskFails(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(f *memFile)
		want error
		left int // bad lines left behind
	}{
		"no room at all":                   {func(f *memFile) { f.room = 0 }, syscall.ENOSPC, 0},
		"room for half a record":           {func(f *memFile) { f.room = 50 }, syscall.ENOSPC, 0},
		"sync":                             {func(f *memFile) { f.failSync = true }, syscall.EIO, 0},
		"half a record, not to be removed": {func(f *memFile) { f.room, f.failTrunc = 50, true }, syscall.ENOSPC, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := &memFile{room: -1}
			l := memLog(t, f, nil)
			must(t, l.Append([]Record{refused("one")}))
			good := string(f.data)
			c.fail(f)
			if err := l.Append([]Record{refused("two"), refused("three")}); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if c.left == 0 && string(f.data) != good {
				t.Fatalf("left behind:\n%s", f.data)
			}
			if testutil.ToFloat64(l.m.total.WithLabelValues("refused")) != 1 || testutil.ToFloat64(l.m.bytes) != float64(len(f.data)) {
				t.Fatal("counted what was not kept")
			}
			f.room, f.failSync, f.failTrunc = -1, false, false
			must(t, l.Append([]Record{refused("two"), refused("three")}))
			got, bad := read(f.data)
			if len(got) != 3 || bad != c.left || string(got[1].Raw) != "two" || string(got[2].Raw) != "three" || f.synced != len(f.data) {
				t.Fatalf("%d bad lines, synced %d of %d:\n%s", bad, f.synced, len(f.data), f.data)
			}
			if got := testutil.ToFloat64(l.m.writeErrors); got != 1 {
				t.Fatalf("%v write errors", got)
			}
		})
	}
}

// A batch that was written whole but not synced, nor taken back, is in the file
// twice after the second try: that is documented, and each is whole.
func TestSyncFailsAndCannotBeTakenBack(t *testing.T) {
	f := &memFile{room: -1, failSync: true, failTrunc: true}
	l := memLog(t, f, nil)
	if err := l.Append([]Record{refused("one")}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	f.failSync = false
	must(t, l.Append([]Record{refused("one")}))
	if got, bad := read(f.data); len(got) != 2 || bad != 0 || bytes.Contains(f.data, []byte("\n\n")) {
		t.Fatalf("%q", f.data)
	}
}

func TestOneWriteAndSyncOnlyWhenAsked(t *testing.T) {
	f := &memFile{room: -1}
	l := memLog(t, f, nil)
	l.AppendUnsynced([]Record{{Kind: Malformed}, {Kind: Malformed}})
	l.AppendUnsynced(nil)
	if f.writes != 1 || f.synced != 0 {
		t.Fatalf("%d writes, %d bytes synced", f.writes, f.synced)
	}
	must(t, l.Append([]Record{refused("a"), refused("b"), {Kind: "of another time"}}))
	must(t, l.Append(nil))
	if f.writes != 2 || f.synced != len(f.data) {
		t.Fatalf("%d writes, %d bytes synced", f.writes, f.synced)
	}
}

func TestCopiesNeverFail(t *testing.T) {
	f := &memFile{room: -1}
	var out bytes.Buffer
	l := memLog(t, f, slog.New(slog.NewTextHandler(&out, nil)))
	copies := []Record{{Kind: Malformed, Raw: []byte("x")}, {Kind: Malformed, Raw: []byte("y")}}
	f.room = 10
	for range 3 {
		l.AppendUnsynced(copies)
	}
	f.room = -1
	l.AppendUnsynced(copies)
	if lost := testutil.ToFloat64(l.m.copiesLost); lost != 6 {
		t.Errorf("%v copies lost, want 6", lost)
	}
	if got, bad := read(f.data); len(got) != 2 || bad != 0 {
		t.Errorf("%q", f.data)
	}
	for _, text := range []string{"cannot be kept", "kept again"} {
		if n := strings.Count(out.String(), text); n != 1 {
			t.Errorf("%q was logged %d times:\n%s", text, n, &out)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	dir := t.TempDir()
	l, err := Open(dir, Options{Registerer: reg, Now: clock})
	must(t, err)
	must(t, l.Append([]Record{refused("a"), refused("b"), {Kind: "of another time"}}))
	want := fmt.Sprintf(`
# HELP log_capturer_dead_letters_bytes Size of the files of dead letters.
# TYPE log_capturer_dead_letters_bytes gauge
log_capturer_dead_letters_bytes %d
# HELP log_capturer_dead_letters_total Lines written to the dead letters: refused by the store, or copies of malformed ones.
# TYPE log_capturer_dead_letters_total counter
log_capturer_dead_letters_total{reason="malformed"} 0
log_capturer_dead_letters_total{reason="other"} 1
log_capturer_dead_letters_total{reason="refused"} 2
`, l.size)
	must(t, testutil.GatherAndCompare(reg, strings.NewReader(want), "log_capturer_dead_letters_bytes", "log_capturer_dead_letters_total"))
	must(t, l.Close())
	must(t, l.Close())
	if err := l.Append([]Record{refused("late")}); !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Registerer: reg}); err == nil {
		t.Fatal("registered twice")
	}
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{})
	must(t, err)
	var wg sync.WaitGroup
	const each = 50
	for i := range 4 {
		wg.Go(func() {
			for j := range each {
				raw := fmt.Sprint(i, ":", j)
				if i%2 == 0 {
					l.AppendUnsynced([]Record{{Kind: Malformed, Raw: []byte(raw)}})
				} else if err := l.Append([]Record{refused(raw)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, l.Close())
	data, err := os.ReadFile(filepath.Join(dir, dirName, fileName))
	must(t, err)
	got, bad := read(data)
	if len(got) != 4*each || bad != 0 {
		t.Fatalf("%d records, %d bad lines", len(got), bad)
	}
}

// Whatever is appended with whatever faults and restarts between: every record
// that Append took is in the file once and synced, in order; one that it
// refused is not there, unless the disk would not take it back.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &memFile{room: -1}
		var l *Log
		start := func() {
			var err error
			l, err = newLog(f, state{size: int64(len(f.data)), torn: len(f.data) > 0 && f.data[len(f.data)-1] != '\n'}, Options{Now: clock})
			if err != nil {
				t.Fatal(err)
			}
		}
		start()
		var kept []string
		next, kill, sound := 0, false, true // sound: no fault of Truncate so far
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var rs []Record
				var raws []string
				for range rapid.IntRange(1, 3).Draw(t, "records") {
					next++
					raws = append(raws, fmt.Sprint(next))
					rs = append(rs, refused(fmt.Sprint(next)))
				}
				if l.Append(rs) == nil {
					kept = append(kept, raws...)
					if f.synced != len(f.data) {
						t.Fatal("not synced")
					}
				}
			},
			"fault": func(t *rapid.T) {
				f.room = rapid.IntRange(0, 600).Draw(t, "room")
				f.failSync = rapid.Bool().Draw(t, "sync")
				f.failTrunc = rapid.Bool().Draw(t, "truncate")
				sound = sound && !f.failTrunc
			},
			"heal": func(*rapid.T) { f.room, f.failSync, f.failTrunc = -1, false, false },
			"kill": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "in a write") {
					f.data = append(f.data, `{"time":"2025-11`...)
					kill = true
				}
				start()
			},
			"power loss": func(*rapid.T) {
				f.data = f.data[:f.synced]
				start()
			},
			"": func(t *rapid.T) {
				got, bad := read(f.data)
				if bad > 0 && sound && !kill {
					t.Fatalf("%d bad lines", bad)
				}
				i := 0
				for _, r := range got {
					if i < len(kept) && string(r.Raw) == kept[i] {
						i++
					} else if sound {
						t.Fatalf("%q is there and was not kept; kept %q", r.Raw, kept)
					}
				}
				if i < len(kept) {
					t.Fatalf("%q is not there:\n%s", kept[i], f.data)
				}
			},
		})
	})
}

// FuzzRoundTrip: any record is one line of valid JSON that gives it back. Text
// that is not UTF-8 is mended; the raw line never is.
func FuzzRoundTrip(f *testing.F) {
	f.Add(int64(1), "abc", "web", "stdout", int64(2), "too <old>", "1:2:3:4:5:6", []byte("a\nb\xff\x00"))
	f.Add(int64(-1<<62), "\xff", "\u2028", "", int64(0), "\n\"\\", "", []byte(nil))
	f.Fuzz(func(t *testing.T, now int64, id, name, stream string, at int64, reason, position string, raw []byte) {
		// Seconds, for years that RFC 3339 has not.
		in := Record{
			Time: time.Unix(now, 7), Kind: Malformed, ContainerID: id, ContainerName: name, Stream: stream,
			LineTime: time.Unix(at, 9), Reason: reason, Position: position, Raw: raw,
		}
		file := &memFile{room: -1}
		l := memLog(t, file, nil)
		must(t, l.Append([]Record{in}))
		if bytes.Count(file.data, []byte("\n")) != 1 || file.data[len(file.data)-1] != '\n' || !utf8.Valid(file.data) {
			t.Fatalf("not one line: %q", file.data)
		}
		got, bad := read(file.data)
		if bad != 0 || len(got) != 1 {
			t.Fatalf("%q", file.data)
		}
		want := in
		mend := func(s *string) {
			// encoding/json puts one U+FFFD for each bad byte.
			*s = string([]rune(*s))
		}
		for _, s := range []*string{&want.ContainerID, &want.ContainerName, &want.Stream, &want.Reason, &want.Position} {
			mend(s)
		}
		year := func(t time.Time) time.Time {
			if y := t.UTC().Year(); y < 0 || y > 9999 {
				return time.Time{}
			}
			return t
		}
		g := got[0]
		if !g.Time.Equal(year(want.Time)) || !g.LineTime.Equal(year(want.LineTime)) || !bytes.Equal(g.Raw, raw) {
			t.Fatalf("got %+v, want %+v", g, want)
		}
		g.Time, g.LineTime, g.Raw, want.Time, want.LineTime, want.Raw = time.Time{}, time.Time{}, nil, time.Time{}, time.Time{}, nil
		if fmt.Sprintf("%q", fmt.Sprint(g)) != fmt.Sprintf("%q", fmt.Sprint(want)) {
			t.Fatalf("got %+v, want %+v", g, want)
		}
	})
}
