package deadletter

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/disk/disktest"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// found gives the texts of all records, in order.
func found(t testing.TB, dataDir string) (raws []string) {
	t.Helper()
	raws, bad := foundIn(t, disk.OS(filepath.Join(dataDir, dirName)))
	if bad > 0 {
		t.Errorf("%d bad lines", bad)
	}
	return raws
}

// foundIn is found in the directory of the dead letters itself.
func foundIn(t testing.TB, dir disk.Dir) (raws []string, bad int) {
	t.Helper()
	bad, err := EachIn(dir, func(s *Stored) error {
		raws = append(raws, string(s.Raw))
		return nil
	})
	must(t, err)
	return raws, bad
}

// sizes gives the names and the whole size of what lies in dataDir.
func sizes(t testing.TB, dataDir string) (names []string, total int64) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dataDir, dirName))
	must(t, err)
	for _, e := range files {
		fi, err := e.Info()
		must(t, err)
		names = append(names, e.Name())
		total += fi.Size()
	}
	return names, total
}

func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// Files are set aside and found in order; a restart goes on with the same ones.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	o := Options{Now: clock, MaxBytes: 16 * 500} // a record has about 200
	for run := range 3 {
		l, err := Open(dir, o)
		must(t, err)
		for i := range 4 {
			must(t, l.Append([]Record{refused(fmt.Sprint(4*run + i))}))
		}
		if _, total := sizes(t, dir); testutil.ToFloat64(l.m.bytes) != float64(total) {
			t.Errorf("%v bytes, there are %d", testutil.ToFloat64(l.m.bytes), total)
		}
		must(t, l.Close())
	}
	names, _ := sizes(t, dir)
	if want := []string{"dead_letters-00000001.jsonl", "dead_letters-00000002.jsonl", "dead_letters-00000003.jsonl", fileName}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	if got := found(t, dir); !slices.Equal(got, numbers(0, 12)) {
		t.Errorf("records %q", got)
	}
}

// At the limit the oldest goes, is said and counted: but for copies and what a
// replay has sent.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	l, err := Open(dir, Options{Now: clock, MaxBytes: 16 * 250, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	must(t, err)
	defer l.Close()
	// In files of two: one replayed, the other a copy; then one that was never sent.
	must(t, l.Append([]Record{refused("0")}))
	l.AppendUnsynced([]Record{{Kind: Malformed, Raw: []byte("1")}})
	m, err := openMark(l.files)
	must(t, err)
	_, err = Each(dir, func(s *Stored) error {
		if string(s.Raw) == "0" {
			return m.add([]sum{s.sum})
		}
		return nil
	})
	must(t, err)
	must(t, m.close())

	n := 2
	more := func(until func() bool) {
		for range 100 {
			if until() {
				return
			}
			must(t, l.Append([]Record{refused(fmt.Sprint(n))}))
			n++
		}
		t.Fatal("it does not come")
	}
	more(func() bool { return found(t, dir)[0] != "0" })
	if lost := testutil.ToFloat64(l.m.dropped.WithLabelValues("refused")); lost != 0 || out.Len() > 0 {
		t.Errorf("%v lost: all that went had been sent; logged:\n%s", lost, &out)
	}
	first := found(t, dir)[0]
	more(func() bool { return found(t, dir)[0] != first })
	left := found(t, dir)
	if lost := int(testutil.ToFloat64(l.m.dropped.WithLabelValues("refused"))); lost == 0 || !slices.Equal(left, numbers(2+lost, n)) {
		t.Errorf("%d lost, %d left, of %d: %q", lost, len(left), n-2, left)
	}
	if lost := testutil.ToFloat64(l.m.dropped.WithLabelValues("malformed")); lost != 0 {
		t.Errorf("%v malformed lost: a copy was", lost)
	}
	for _, want := range []string{"level=ERROR", "the oldest dead letters were deleted", "file=dead_letters-0000000", "max_bytes=4000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if _, total := sizes(t, dir); total > 4000+500 {
		t.Errorf("%d bytes", total)
	}
}

// What an agent without a limit has left is trimmed at the start.
func TestLimitAtOpen(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{Now: clock, MaxBytes: 16 * 400})
	must(t, err)
	for i := range 20 {
		must(t, l.Append([]Record{refused(fmt.Sprint(i))}))
	}
	must(t, l.Close())
	l, err = Open(dir, Options{Now: clock, MaxBytes: 2000})
	must(t, err)
	defer l.Close()
	got := found(t, dir)
	if _, total := sizes(t, dir); total > 2000 || len(got) == 0 || !slices.Equal(got, numbers(20-len(got), 20)) {
		t.Errorf("%d bytes, records %q", total, got)
	}
	if lost := int(testutil.ToFloat64(l.m.dropped.WithLabelValues("refused"))); lost != 20-len(got) {
		t.Errorf("%d lost, want %d", lost, 20-len(got))
	}
}

// A flood of malformed lines: no fsync, no write beyond the share of copies, and
// the refused ones stay. A day later there is a new share.
func TestFlood(t *testing.T) {
	d := disktest.New()
	now := t0
	var out bytes.Buffer
	o := Options{Now: func() time.Time { return now }, MaxBytes: 16 * 10_000, Logger: slog.New(slog.NewTextHandler(&out, nil))}
	l := openMem(t, d, o)
	copies := []Record{{Kind: Malformed, Raw: bytes.Repeat([]byte("x"), 100)}}
	must(t, l.Append([]Record{refused("kept")}))
	before := d.Counts()
	for range 1000 {
		l.AppendUnsynced(copies)
	}
	if after := d.Counts(); after.Syncs != before.Syncs || l.size > 5000+500 || l.size < 5000 {
		t.Errorf("%+v, before %+v, %d bytes", after, before, l.size)
	}
	raws, _ := foundIn(t, l.files)
	if lost := int(testutil.ToFloat64(l.m.copiesLost)); len(raws) == 1 || len(raws)-1+lost != 1000 {
		t.Errorf("%d copies kept, %d counted as lost", len(raws)-1, lost)
	}
	must(t, l.Append([]Record{refused("kept, too")}))

	// A restart does not renew the share; a day does.
	must(t, l.Close())
	l = openMem(t, d, o)
	size := l.size
	if l.AppendUnsynced(copies); l.size != size {
		t.Error("a restart has renewed the share")
	}
	now = now.Add(copiesFor)
	l.AppendUnsynced(copies)
	if files, err := l.files.List(); err != nil || len(files) != 2 || l.size == 0 || l.size > size {
		t.Errorf("files %+v, %v, the present one has %d bytes", files, err, l.size)
	}
	if n := strings.Count(out.String(), "cannot be kept"); n != 2 || !strings.Contains(out.String(), "have their share") || strings.Count(out.String(), "kept again") != 1 {
		t.Errorf("logged:\n%s", &out)
	}
}

// A file that was begun when the clock was wrong, far in the future, does not keep copies
// out until then.
func TestClockSetBack(t *testing.T) {
	d := disktest.New()
	now := t0.AddDate(70, 0, 0)
	o := Options{Now: func() time.Time { return now }, MaxBytes: 16 * 10_000}
	l := openMem(t, d, o)
	copies := []Record{{Kind: Malformed, Raw: bytes.Repeat([]byte("x"), 100)}}
	for range 1000 {
		l.AppendUnsynced(copies)
	}
	must(t, l.Close())
	now = t0
	l = openMem(t, d, o)
	lost := testutil.ToFloat64(l.m.copiesLost)
	l.AppendUnsynced(copies)
	if n := testutil.ToFloat64(l.m.copiesLost); n != lost {
		t.Errorf("%v copies are lost", n-lost)
	}
}

// A record that a new file's disk would not sync is taken back there, too.
func TestSyncFailsInANewFile(t *testing.T) {
	for _, op := range []disktest.Op{disktest.Sync, disktest.SyncDir} {
		d := disktest.New()
		l := openMem(t, d, Options{MaxBytes: 16 * 100})
		must(t, l.Append([]Record{refused("0")}))
		l.rotate()
		d.Fail(op)
		if l.Append([]Record{refused("1")}) == nil {
			t.Fatal("no error")
		}
		if files, err := l.files.List(); err != nil || len(files) != 2 || len(data(d)) > 0 {
			t.Fatalf("files %+v, %v", files, err)
		}
		d.Heal()
		must(t, l.Append([]Record{refused("1")}))
		d.PowerLoss(func(string, int) int { return 0 })
		if got, bad := foundIn(t, openMem(t, d, Options{}).files); bad > 0 || !slices.Equal(got, numbers(0, 2)) {
			t.Errorf("%d bad lines, records %q", bad, got)
		}
	}
}

// Where no new file can be begun the old one goes on, and nothing is lost.
func TestSetAsideFails(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	l, err := Open(dir, Options{Now: clock, MaxBytes: 16 * 400, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	must(t, err)
	defer l.Close()
	inTheWay := filepath.Join(dir, dirName, freshName)
	must(t, os.Mkdir(inTheWay, 0o700))
	for i := range 8 {
		must(t, l.Append([]Record{refused(fmt.Sprint(i))}))
	}
	if n := strings.Count(out.String(), "no new file of dead letters can be begun"); n != 1 || testutil.ToFloat64(l.m.writeErrors) == 0 {
		t.Errorf("said %d times:\n%s", n, &out)
	}
	must(t, os.Remove(inTheWay))
	must(t, l.Append([]Record{refused("8")}))
	if names, _ := sizes(t, dir); len(names) != 2 {
		t.Errorf("files %q", names)
	}
	// Somebody deletes the file under the agent: the next one is a new one.
	for l.size < l.fileBytes() {
		must(t, l.Append([]Record{refused("gone")}))
	}
	must(t, os.Remove(filepath.Join(dir, dirName, fileName)))
	must(t, l.Append([]Record{refused("9")}))
	if got := found(t, dir); !slices.Equal(got, append(numbers(0, 8), "9")) { // 8 was in that file
		t.Errorf("records %q", got)
	}
}

// A reader beside a writer that sets files aside sees, each time, all that was
// there before it began, once and in order. Several rounds, for it is a matter of
// luck what meets what.
func TestReadWhileWritten(t *testing.T) {
	for range 5 {
		readWhileWritten(t)
	}
}

func readWhileWritten(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	l, err := Open(dir, Options{MaxBytes: 16 * 2500}) // room for all
	must(t, err)
	const all = 150
	written := make(chan int, all)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(written)
		for i := range all {
			if err := l.Append([]Record{refused(fmt.Sprint(i))}); err != nil {
				t.Error(err)
				return
			}
			written <- i
		}
	})
	for least := range written {
		got := found(t, dir)
		if len(got) <= least || !slices.Equal(got, numbers(0, len(got))) {
			t.Fatalf("after %d: %d records: %q", least, len(got), got)
		}
	}
	wg.Wait()
	must(t, l.Close())
}

func TestEach(t *testing.T) {
	line := func(raw string) string { return `{"kind":"refused","raw":"` + raw + `"}` }
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
		bad   int
	}{
		"no directory":    {nil, nil, 0},
		"empty":           {map[string]string{fileName: ""}, nil, 0},
		"torn":            {map[string]string{fileName: line("YQ==") + "\n" + line("Yg==")[:9]}, []string{"a"}, 0},
		"whole after all": {map[string]string{fileName: line("YQ==") + "\n" + line("Yg==")}, []string{"a", "b"}, 0},
		"torn before":     {map[string]string{fileName: line("YQ==")[:9] + "\n\n" + line("Yg==") + "\n"}, []string{"b"}, 1},
		"no records":      {map[string]string{fileName: "[]\n{}\n{\"kind\":7}\nnull\n" + line("?") + "\n" + line("YQ==") + "\n"}, []string{"a"}, 5},
		"NULs":            {map[string]string{fileName: line("YQ==") + "\n\x00\x00\x00"}, []string{"a"}, 0},
		"later fields":    {map[string]string{fileName: `{"kind":"later","raw":"YQ==","more":[1]}` + "\n"}, []string{"a"}, 0},
		"in order": {map[string]string{
			fileName: line("ZA==") + "\n", "dead_letters-00000009.jsonl": line("Yg==") + "\n", "dead_letters-00000010.jsonl": line("Yw==") + "\n",
			"dead_letters-00000001.jsonl": line("YQ==") + "\n", "dead_letters-x.jsonl": line("eA==") + "\n", "dead_letters-00000002.jsonl.gz": "x", freshName: line("eA==") + "\n",
		}, []string{"a", "b", "c", "d"}, 0},
		"none is written": {map[string]string{"dead_letters-00000009.jsonl": line("YQ==") + "\n"}, []string{"a"}, 0},
		"too long":        {map[string]string{fileName: strings.Repeat("x", 3*maxLine) + "\n" + line("YQ==") + "\n"}, []string{"a"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.files != nil {
				must(t, os.Mkdir(filepath.Join(dir, dirName), 0o700))
			}
			for name, text := range c.files {
				must(t, os.WriteFile(filepath.Join(dir, dirName, name), []byte(text), 0o600))
			}
			var got []string
			bad, err := Each(dir, func(s *Stored) error {
				got = append(got, string(s.Raw))
				return nil
			})
			if err != nil || bad != c.bad || !slices.Equal(got, c.want) {
				t.Errorf("%q, %d bad, %v; want %q, %d", got, bad, err, c.want, c.bad)
			}
		})
	}
	if _, err := Each(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "is it the agent's data_dir?") {
		t.Errorf("no data_dir: %v", err)
	}
	stop := errors.New("enough")
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, dirName), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, dirName, fileName), []byte(line("YQ==")+"\n"), 0o600))
	// It is set aside while it is read: then it is found under both names.
	must(t, os.Link(filepath.Join(dir, dirName, fileName), filepath.Join(dir, dirName, "dead_letters-00000001.jsonl")))
	if got := found(t, dir); !slices.Equal(got, []string{"a"}) {
		t.Errorf("found %q", got)
	}
	if _, err := Each(dir, func(*Stored) error { return stop }); err != stop { //nolint:errorlint // as it is
		t.Errorf("got %v", err)
	}
}

func TestFilter(t *testing.T) {
	r := Record{Time: t0, Kind: Refused, ContainerID: "abc123", ContainerName: "web-1"}
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Container: "web-1"}, true},
		{Filter{Container: "web"}, false},
		{Filter{Container: "web*"}, true},
		{Filter{Container: "abc"}, true},
		{Filter{Container: "bc"}, false},
		{Filter{Kind: Refused}, true},
		{Filter{Kind: Malformed}, false},
		{Filter{Since: t0}, true},
		{Filter{Since: t0.Add(1)}, false},
		{Filter{Container: "web*", Kind: Malformed}, false},
	} {
		if got := c.f.Takes(&r); got != c.want {
			t.Errorf("%+v: %v", c.f, got)
		}
	}
	if (Filter{Container: "[a"}).Check() == nil || (Filter{Container: "web*"}).Check() != nil {
		t.Error("Check")
	}
}

// Lines of any lengths, read through a buffer that grows, are those of the text.
func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		var text strings.Builder
		for range rapid.IntRange(0, 5).Draw(t, "lines") {
			l := strings.Repeat(rapid.SampledFrom([]string{"", "x", "yz"}).Draw(t, "text"), rapid.SampledFrom([]int{1, 100, 40_000, 70_000}).Draw(t, "times"))
			want = append(want, l)
			text.WriteString(l + "\n")
		}
		rest := rapid.SampledFrom([]string{"", "rest"}).Draw(t, "rest")
		text.WriteString(rest)
		var got []string
		var left string
		err := lines(strings.NewReader(text.String()), func(line []byte, ended bool) error {
			if ended {
				got = append(got, string(line))
			} else {
				left = string(line)
			}
			return nil
		})
		if err != nil || !slices.Equal(got, want) || left != rest {
			t.Fatalf("%v: %d lines, want %d; %q is left, want %q", err, len(got), len(want), left, rest)
		}
	})
}
