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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var t0 = time.Date(2025, 11, 7, 12, 0, 0, 123456789, time.UTC)

func clock() time.Time { return t0 }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memPath is where the file lies on a disk in memory.
const memPath = dirName + "/" + fileName

// openMem opens the dead letters on a disk in memory; the one before is killed.
func openMem(t testing.TB, d *disktest.Disk, o Options) *Log {
	t.Helper()
	d.Kill()
	o.Files = d.Mount()
	if o.Now == nil {
		o.Now = clock
	}
	l, err := Open("", o)
	must(t, err)
	return l
}

// data gives the bytes of the file in memory.
func data(d *disktest.Disk) []byte {
	seen, _ := d.Read(memPath)
	return seen
}

// isSynced reports whether all of it is on the disk.
func isSynced(d *disktest.Disk) bool {
	seen, synced := d.Read(memPath)
	return bytes.Equal(seen, synced)
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
	r.Position, r.Inode = "/log@7", 101
	r.Labels, r.Metadata, r.Partial = map[string]string{"stream": "stdout", "job": "j"}, map[string]string{"container_id": "abc"}, true
	must(t, l.Append([]Record{r}))
	l.AppendUnsynced([]Record{{Kind: Malformed, ContainerID: "abc", Reason: "entry <x> has no time"}})
	must(t, l.Close())
	name := filepath.Join(dir, "dead_letters", "dead_letters.jsonl")
	got, err := os.ReadFile(name)
	must(t, err)
	const want = `{"time":"2025-11-07T12:00:00.123456789Z","kind":"refused","container_id":"abc","container_name":"web","stream":"stdout","line_time":"2025-01-02T02:04:05Z","reason":"too old","position":"/log@7","inode":101,"labels":{"job":"j","stream":"stdout"},"metadata":{"container_id":"abc"},"partial":true,"raw":"YSA8Yj4g/wo="}
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
		fail func(d *disktest.Disk)
		want error
		left int // bad lines left behind
	}{
		"no room at all":         {func(d *disktest.Disk) { d.Fill(0) }, syscall.ENOSPC, 0},
		"room for half a record": {func(d *disktest.Disk) { d.Fill(50) }, syscall.ENOSPC, 0},
		"sync":                   {func(d *disktest.Disk) { d.Fail(disktest.Sync) }, syscall.EIO, 0},
		"half a record, not to be removed": {func(d *disktest.Disk) {
			d.Fill(50)
			d.Fail(disktest.Truncate)
		}, syscall.ENOSPC, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := disktest.New()
			l := openMem(t, d, Options{})
			must(t, l.Append([]Record{refused("one")}))
			good := string(data(d))
			c.fail(d)
			if err := l.Append([]Record{refused("two"), refused("three")}); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if c.left == 0 && string(data(d)) != good {
				t.Fatalf("left behind:\n%s", data(d))
			}
			if testutil.ToFloat64(l.m.total.WithLabelValues("refused")) != 1 || testutil.ToFloat64(l.m.bytes) != float64(len(data(d))) {
				t.Fatal("counted what was not kept")
			}
			d.Heal()
			must(t, l.Append([]Record{refused("two"), refused("three")}))
			got, bad := read(data(d))
			if len(got) != 3 || bad != c.left || string(got[1].Raw) != "two" || string(got[2].Raw) != "three" || !isSynced(d) {
				t.Fatalf("%d bad lines, synced %v:\n%s", bad, isSynced(d), data(d))
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
	d := disktest.New()
	l := openMem(t, d, Options{})
	d.Fail(disktest.Sync | disktest.Truncate)
	if err := l.Append([]Record{refused("one")}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	d.Heal()
	must(t, l.Append([]Record{refused("one")}))
	if got, bad := read(data(d)); len(got) != 2 || bad != 0 || bytes.Contains(data(d), []byte("\n\n")) {
		t.Fatalf("%q", data(d))
	}
}

// On a file system that is read-only the agent starts, what is refused waits, and is
// written as soon as it can be.
func TestReadOnly(t *testing.T) {
	d := disktest.New()
	l := openMem(t, d, Options{})
	must(t, l.Append([]Record{refused("before")}))
	must(t, l.Close())
	d.ReadOnly()
	var out bytes.Buffer
	l = openMem(t, d, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if !strings.Contains(out.String(), "mount the file system of data_dir for writing") {
		t.Errorf("said: %s", &out)
	}
	for range 2 {
		if err := l.Append([]Record{refused("a")}); !errors.Is(err, syscall.EROFS) {
			t.Fatal(err)
		}
	}
	d.Heal()
	must(t, l.Append([]Record{refused("a")}))
	if raws, bad := foundIn(t, l.files); bad != 0 || !slices.Equal(raws, []string{"before", "a"}) || !isSynced(d) {
		t.Errorf("%q, %d bad", raws, bad)
	}
	must(t, l.Close())
	if err := l.Append([]Record{refused("b")}); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := Open("", Options{Files: readOnly(t)}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("without a directory: %v", err)
	}
}

func readOnly(t *testing.T) disk.Dir {
	t.Helper()
	d := disktest.New()
	d.ReadOnly()
	return d.Mount()
}

// A file that cannot be read does not keep the agent from its start.
func TestUnreadableAtOpen(t *testing.T) {
	d := disktest.New()
	l := openMem(t, d, Options{})
	must(t, l.Append([]Record{refused("before")}))
	must(t, l.Close())
	for _, renames := range []bool{false, true} {
		d.Kill()
		files := unreadable{Dir: d.Mount(), renames: renames, healed: new(bool)}
		l, err := Open("", Options{Files: files, Now: clock})
		if renames != (err == nil) {
			t.Fatal(renames, err)
		}
		if err != nil {
			continue
		}
		must(t, l.Append([]Record{refused("after")}))
		must(t, l.Close())
		*files.healed = true
		if raws, bad := foundIn(t, l.files); bad != 0 || !slices.Equal(raws, []string{"before", "after"}) {
			t.Errorf("%q, %d bad", raws, bad)
		}
	}
}

// unreadable is a directory of which the file that is written cannot be read.
type unreadable struct {
	disk.Dir
	renames bool
	healed  *bool
}

func (u unreadable) Sub(name string) (disk.Dir, error) {
	sub, err := u.Dir.Sub(name)
	return unreadable{sub, u.renames, u.healed}, err
}

func (u unreadable) Open(name string, flag int) (disk.File, error) {
	f, err := u.Dir.Open(name, flag)
	if name != fileName {
		return f, err
	}
	return unreadableFile{f, u.healed}, err
}

func (u unreadable) Rename(from, to string) error {
	if !u.renames {
		return syscall.EIO
	}
	return u.Dir.Rename(from, to)
}

type unreadableFile struct {
	disk.File
	healed *bool
}

func (f unreadableFile) ReadAt(b []byte, off int64) (int, error) {
	if *f.healed {
		return f.File.ReadAt(b, off)
	}
	return 0, syscall.EIO
}

func TestOneWriteAndSyncOnlyWhenAsked(t *testing.T) {
	d := disktest.New()
	l := openMem(t, d, Options{})
	before := d.Counts()
	since := func(writes, syncs int) {
		t.Helper()
		if c := d.Counts(); c.Writes-before.Writes != writes || c.Syncs-before.Syncs != syncs {
			t.Fatalf("%+v, and %+v before", c, before)
		}
	}
	l.AppendUnsynced([]Record{{Kind: Malformed}, {Kind: Malformed}})
	l.AppendUnsynced(nil)
	since(1, 0)
	must(t, l.Append([]Record{refused("a"), refused("b"), {Kind: "of another time"}}))
	must(t, l.Append(nil))
	since(2, 1)
	if !isSynced(d) {
		t.Fatal("not all is synced")
	}
}

func TestCopiesNeverFail(t *testing.T) {
	d := disktest.New()
	var out bytes.Buffer
	l := openMem(t, d, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	copies := []Record{{Kind: Malformed, Raw: []byte("x")}, {Kind: Malformed, Raw: []byte("y")}}
	d.Fill(10)
	for range 3 {
		l.AppendUnsynced(copies)
	}
	d.Heal()
	l.AppendUnsynced(copies)
	if lost := testutil.ToFloat64(l.m.copiesLost); lost != 6 {
		t.Errorf("%v copies lost, want 6", lost)
	}
	if got, bad := read(data(d)); len(got) != 2 || bad != 0 {
		t.Errorf("%q", data(d))
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
		d := disktest.New()
		l := openMem(t, d, Options{})
		must(t, l.Append([]Record{in}))
		text := data(d)
		if bytes.Count(text, []byte("\n")) != 1 || text[len(text)-1] != '\n' || !utf8.Valid(text) {
			t.Fatalf("not one line: %q", text)
		}
		got, bad := read(text)
		if bad != 0 || len(got) != 1 {
			t.Fatalf("%q", text)
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
