package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// What TestLoad is to do: lines per second of all containers together, for how many
// seconds, and how the agent gets them: files, or streaming, by the rollback switch.
// Without the first it is skipped. The last is a file for the figures, each with its
// name and a tab before it.
const (
	loadRateEnv    = "LOG_CAPTURER_LOAD_RATE"
	loadSecondsEnv = "LOG_CAPTURER_LOAD_SECONDS"
	loadMethodEnv  = "LOG_CAPTURER_LOAD_METHOD"
	loadFiguresEnv = "LOG_CAPTURER_LOAD_FIGURES"
)

// TestLoad lets 50 containers write, and prints what the agent makes of it and
// what that costs. It fails where a line is missing, doubled, out of order or
// not one that was written, and where less was delivered than was asked for.
// tests/load_test.sh runs it.
func TestLoad(t *testing.T) {
	const (
		n, size = 50, 150
		// settle is how long all of it has, once every container is read, before
		// it is measured; drain how long the rest may take at the end.
		settle, drain = 10 * time.Second, 2 * time.Minute
	)
	if os.Getenv(loadRateEnv) == "" {
		t.Skipf("it measures for a minute; tests/load_test.sh runs it (%s=1000)", loadRateEnv)
	}
	rate, span := envNumber(t, loadRateEnv), time.Duration(envNumber(t, loadSecondsEnv))*time.Second
	// An interrupted test takes its engine down like any other.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()

	w := newMeasuredWorld(t)
	c := startClock(t, true)
	method, extra := byFile, ""
	if os.Getenv(loadMethodEnv) == "streaming" {
		method, extra = byStream, allStreamed
	}
	a := w.agentTo(c.url, extra, "")
	a.Start()
	tallies := make(map[string]*tally)
	var ids []string
	for i := range n {
		o := output{name: fmt.Sprintf("load%d", i), size: size, stderrEvery: 10}
		// Rotation as in production: it bounds the disk, too.
		s := rotated(o.spec("-rate", strconv.FormatFloat(float64(rate)/n, 'f', -1, 64)), "10m", "3", false)
		tallies[o.name], ids = newTally(o), append(ids, w.create(s))
	}
	w.each(ids, w.d.StartNow)
	w.methodOf(a, method, n)
	collect := func() {
		for name, got := range c.take() {
			if tallies[name] == nil {
				t.Fatalf("lines of a container %q that is none of the test's: %q", name, got[0].text)
			}
			tallies[name].add(got...)
		}
	}
	// The lines are taken from the store every second, so that memory does not
	// depend on how long this lasts.
	during := func(d time.Duration) {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for end := time.After(d); ; collect() {
			select {
			case <-tick.C:
			case <-end:
				return
			case <-ctx.Done():
				t.Fatal("interrupted")
			}
		}
	}
	t.Logf("%d containers are read by the agent at http://%s; it is measured for %v", n, a.Addr, span)
	during(settle)

	c.delays()
	before := c.total()
	m := w.measure(a, func() { during(span) })
	late, inSpan, loaded := c.delays(), c.total()-before, load(t)
	resident, f, engineFDs := residentMB(t, a.Pid()), a.Metrics(), descriptors(t, w.d.Pid())

	w.stillRunning(ids)
	w.each(ids, w.d.KillNow)
	written := make(map[string]int)
	for i, id := range ids {
		w.d.Wait(t, id, time.Minute)
		written[fmt.Sprintf("load%d", i)] = lastWritten(t, w.d.LogPath(id))
	}
	arrived := func() (sum totals) {
		collect()
		for name, y := range tallies {
			sum.plus(y.against(written[name]))
		}
		return sum
	}
	harness.Within(drain, func() bool { return ctx.Err() != nil || arrived().missing == 0 })
	if ctx.Err() != nil {
		t.Fatal("interrupted")
	}
	w.balanced(a) // what is sent twice may come behind the last line
	sum := arrived()

	fmt.Printf("\n%d containers, %d lines/s of %d bytes in all, %v, by %s\n", n, rate, size, span, method)
	var figures strings.Builder
	for _, row := range []struct {
		what, value string
	}{
		{"lines written", strconv.Itoa(sum.written)},
		{"delivered", strconv.Itoa(sum.delivered)},
		{"missing", strconv.Itoa(sum.missing)},
		{"doubled", strconv.Itoa(sum.doubled)},
		{"out of order", strconv.Itoa(sum.disordered)},
		{"never written", strconv.Itoa(sum.foreign)},
		{"delivered per second", fmt.Sprintf("%.0f", float64(inSpan)/m.took.Seconds())},
		{"CPU, % of one core", fmt.Sprintf("%.2f", m.percent(m.agent))},
		{"resident MB", fmt.Sprintf("%.1f", resident)},
		{"goroutines", fmt.Sprint(f[metricGoroutines])},
		{"descriptors", fmt.Sprint(f[metricFDs])},
		{"written to accepted, p50", quantile(late, 0.50).Round(time.Millisecond).String()},
		{"written to accepted, p95", quantile(late, 0.95).Round(time.Millisecond).String()},
		{"written to accepted, p99", quantile(late, 0.99).Round(time.Millisecond).String()},
		{"the engine's CPU, % of one core", fmt.Sprintf("%.1f", m.percent(m.engine))},
		{"the engine's descriptors", strconv.Itoa(engineFDs)},
		{"load average", loaded},
	} {
		fmt.Printf("  %-31s %12s\n", row.what, row.value)
		fmt.Fprintf(&figures, "%s\t%s\n", row.what, row.value)
	}
	fmt.Println()
	if file := os.Getenv(loadFiguresEnv); file != "" {
		if err := os.WriteFile(file, []byte(figures.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
	if bad := sum.missing + sum.doubled + sum.disordered + sum.foreign; bad > 0 {
		t.Errorf("the delivered lines are not those that were written: %+v", sum)
	}
	// Of slow writers each may be a line behind.
	if want := float64(rate) * span.Seconds(); float64(inSpan) < 0.9*want-n {
		t.Errorf("%d lines delivered within %v instead of about %.0f: this is more than the writers, the engine or the agent can do on this machine", inSpan, span, want)
	}
}

// envNumber gives a number of at least 1 from the environment.
func envNumber(t *testing.T, name string) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a whole number, at least 1", name, os.Getenv(name))
	}
	return n
}

// take gives the lines since it was last called, by container, in the order in
// which they came.
func (c *clock) take() map[string][]line {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.lines
	c.lines = make(map[string][]line)
	return all
}

// tally counts what arrives of the lines of an output, whose number is not known
// beforehand.
type tally struct {
	o                            output
	seen                         []bool         // by number of the line
	last                         map[string]int // the highest number so far, by stream
	doubled, disordered, foreign int
}

func newTally(o output) *tally { return &tally{o: o, last: make(map[string]int)} }

// add counts lines, in the order in which they came.
func (y *tally) add(got ...line) {
	for _, l := range got {
		rest, _ := strings.CutPrefix(l.text, y.o.name+" ")
		digits, _, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || l.stream != y.o.stream(n) || l.text != lines.Line(lines.Plain, y.o.name, n, y.o.size) {
			y.foreign++
			continue
		}
		for len(y.seen) <= n {
			y.seen = append(y.seen, false)
		}
		if y.seen[n] {
			y.doubled++
			continue
		}
		y.seen[n] = true
		if n < y.last[l.stream] {
			y.disordered++
		}
		y.last[l.stream] = max(n, y.last[l.stream])
	}
}

// stream gives where line n goes.
func (o output) stream(n int) string {
	if o.stderrEvery > 0 && n%o.stderrEvery == 0 {
		return "stderr"
	}
	return "stdout"
}

// against gives what has become of lines 1 to written. What is above that was
// never written.
func (y *tally) against(written int) totals {
	s := totals{written: written, doubled: y.doubled, disordered: y.disordered, foreign: y.foreign}
	for n, seen := range y.seen {
		switch {
		case seen && n <= written:
			s.delivered++
		case seen:
			s.foreign++
		}
	}
	s.missing = written - s.delivered
	return s
}

// totals are numbers of lines; written is delivered and missing together.
type totals struct{ written, delivered, missing, doubled, disordered, foreign int }

func (s *totals) plus(o totals) {
	s.written += o.written
	s.delivered += o.delivered
	s.missing += o.missing
	s.doubled += o.doubled
	s.disordered += o.disordered
	s.foreign += o.foreign
}

// lastWritten gives the number of the last line that the engine has in the log of
// a container that has ended; 0 if there is none.
func lastWritten(t *testing.T, path string) int {
	t.Helper()
	last := 0
	for _, file := range []string{path + ".1", path} { // it may just have rotated
		for _, l := range entries(t, lastBytes(t, file, 64<<10)) {
			f := strings.Fields(l.text)
			if len(f) < 2 {
				t.Fatalf("%s: a line without a number: %q", file, l.text)
			}
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			last = max(last, n) // stdout and stderr may have overtaken one another
		}
	}
	return last
}

// lastBytes gives the whole lines within the last bytes of a file; none if there
// is no file.
func lastBytes(t *testing.T, file string, limit int64) []byte {
	t.Helper()
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	from := max(info.Size()-limit, 0)
	text, err := io.ReadAll(io.NewSectionReader(f, from, limit))
	if err != nil {
		t.Fatal(err)
	}
	if from > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text
}

func TestTally(t *testing.T) {
	t.Parallel()
	o := output{name: "c", size: 20, stderrEvery: 3}
	l := func(n int) line { return line{stream: o.stream(n), text: lines.Line(lines.Plain, "c", n, 20)} }
	other := func(stream, text string) line { return line{stream: stream, text: text} }
	for _, c := range []struct {
		what    string
		written int
		got     []line
		want    totals
	}{
		{"nothing", 0, nil, totals{}},
		{"all, stderr behind stdout", 5, []line{l(1), l(2), l(4), l(3), l(5)}, totals{written: 5, delivered: 5}},
		{"in the middle and at the end", 5, []line{l(1), l(3), l(4)}, totals{written: 5, delivered: 3, missing: 2}},
		{"none at all", 2, nil, totals{written: 2, missing: 2}},
		{"doubled, later", 4, []line{l(1), l(2), l(3), l(4), l(1), l(4)}, totals{written: 4, delivered: 4, doubled: 2}},
		{"out of order", 5, []line{l(2), l(1), l(3), l(5), l(4)}, totals{written: 5, delivered: 5, disordered: 2}},
		{"above the last", 1, []line{l(1), l(2)}, totals{written: 1, delivered: 1, foreign: 1}},
		{"of the other stream", 1, []line{other("stderr", l(1).text)}, totals{written: 1, missing: 1, foreign: 1}},
		{"cut", 1, []line{other("stdout", l(1).text[:19])}, totals{written: 1, missing: 1, foreign: 1}},
		{"of somebody else", 1, []line{other("stdout", "d 1 xxx"), other("stdout", ""), other("stdout", "c -1")}, totals{written: 1, missing: 1, foreign: 3}},
	} {
		y := newTally(o)
		y.add(c.got...)
		if got := y.against(c.written); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func TestLastWritten(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	text := func(numbers ...int) string {
		var b strings.Builder
		for i, n := range numbers {
			b.WriteString(crafted(lines.Line(lines.Plain, "c", n, 40), "stdout", at.Add(time.Duration(i))))
		}
		return b.String()
	}
	many := make([]int, 2000) // more than is looked at
	for i := range many {
		many[i] = i + 1
	}
	got := []int{}
	for _, files := range [][2]string{{}, {"", text(1, 2, 4, 3)}, {text(7, 8), ""}, {text(7, 8), text(9)}, {"", text(many...)}} {
		path := t.TempDir() + "/log"
		for i, name := range []string{path + ".1", path} {
			if files[i] == "" {
				continue
			}
			if err := os.WriteFile(name, []byte(files[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, lastWritten(t, path))
	}
	if want := []int{0, 4, 8, 9, 2000}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
