package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// stored is a docker.Frame that lasts.
type stored struct {
	time             int64
	stderr, fragment bool
	text             string
}

// readStream reads a stream to its end, or its first n entries.
func readStream(s *docker.LogStream, n int) (all []stored, err error) {
	for n == 0 || len(all) < n {
		f, err := s.Next()
		if err != nil {
			return all, err
		}
		all = append(all, stored{f.Time, f.Stderr, f.Fragment, string(f.Text)})
	}
	return all, nil
}

// openLogs opens a log that is closed with the test.
func openLogs(t *testing.T, c *docker.Client, id string, o docker.LogsOptions) *docker.LogStream {
	t.Helper()
	s, err := c.Logs(t.Context(), id, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wholeLog reads what there is now.
func wholeLog(t *testing.T, c *docker.Client, id string, o docker.LogsOptions) []stored {
	t.Helper()
	all, err := readStream(openLogs(t, c, id, o), 0)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("after %d entries: %v", len(all), err)
	}
	return all
}

// texts joins the entries of each stream.
func texts(all []stored) (out, stderr string) {
	var b [2]strings.Builder
	for _, e := range all {
		if e.stderr {
			b[1].WriteString(e.text)
		} else {
			b[0].WriteString(e.text)
		}
	}
	return b[0].String(), b[1].String()
}

func TestDockerLogs(t *testing.T) {
	t.Setenv("TZ", "Asia/Kolkata") // the engine's: the local driver gives times in it
	d := StartDockerd(t)
	c, err := docker.New(d.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })

	for _, driver := range []string{"json-file", "local"} {
		for _, tty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tty %v", driver, tty), func(t *testing.T) {
				// Runes of two, three and four bytes are cut at the border.
				const n, size = 20, 40_000
				id := d.Create(t, ContainerSpec{Name: fmt.Sprintf("%s-%v", driver, tty), Driver: driver, TTY: tty, Cmd: []string{
					"-lines", fmt.Sprint(n), "-kind", lines.Multibyte, "-size", fmt.Sprint(size), "-stderr-every", "3", "-sleep-before", "1s",
				}})
				d.StartContainer(t, id)
				// Nothing has been written yet: the header comes all the same.
				o := docker.LogsOptions{Follow: true, TTY: tty}
				start := time.Now()
				s := openLogs(t, c, id, o)
				t.Logf("opened after %v", time.Since(start))
				all, err := readStream(s, 0)
				if !errors.Is(err, io.EOF) {
					t.Fatalf("following to the exit ended with %v", err)
				}
				var want [2]string
				for i := 1; i <= n; i++ {
					l := lines.Line(lines.Multibyte, "line", i, size)
					switch {
					case tty:
						want[0] += l + "\r\n"
					case i%3 == 0:
						want[1] += l + "\n"
					default:
						want[0] += l + "\n"
					}
				}
				if driver == "json-file" { // stores U+FFFD for each byte of a cut rune
					want[0], want[1] = asJSONFile(want[0]), asJSONFile(want[1])
				}
				// The local driver of 20.10 leaves the newline of a split line out.
				out, stderr := texts(all)
				noEnd := driver == "local" && !strings.Contains(out, "\n")
				t.Logf("split lines have no newline: %v", noEnd)
				if noEnd {
					want[0], want[1] = strings.ReplaceAll(want[0], "\n", ""), strings.ReplaceAll(want[1], "\n", "")
				}
				if out != want[0] || stderr != want[1] {
					t.Errorf("stdout has %d bytes, want %d; stderr %d, want %d", len(out), len(want[0]), len(stderr), len(want[1]))
				}
				// Each fragment has the time of its line.
				count := map[int64]int{}
				for _, e := range all {
					count[e.time]++
				}
				if len(all) != 3*n || len(count) != n {
					t.Errorf("%d entries with %d times, want %d with %d", len(all), len(count), 3*n, n)
				}
				if again := wholeLog(t, c, id, docker.LogsOptions{TTY: tty}); !reflect.DeepEqual(again, all) {
					t.Error("read again, the entries are others")
				}
				// since is inclusive, to the nanosecond. Newer engines go on to give
				// everything after the first that fits.
				times := slices.Sorted(maps.Keys(count))
				for _, since := range []int64{times[0], times[n/2], times[n-1], times[n-1] + 1} {
					old := func(e stored) bool { return e.time < since }
					got := wholeLog(t, c, id, docker.LogsOptions{TTY: tty, Since: time.Unix(0, since)})
					if want := slices.DeleteFunc(slices.Clone(all), old); !slices.Equal(slices.DeleteFunc(got, old), want) {
						t.Errorf("since %d gives %d entries, want %d", since, len(got), len(want))
					}
				}
			})
		}
	}

	t.Run("a prompt at the end of a run", func(t *testing.T) {
		id := d.Run(t, ContainerSpec{Name: "prompt", Driver: "local", TTY: true, Cmd: []string{"-lines", "2", "-kind", lines.NoNewline}})
		d.Wait(t, id, 20*time.Second)
		before := wholeLog(t, c, id, docker.LogsOptions{TTY: true})
		d.StartContainer(t, id)
		d.Wait(t, id, 20*time.Second)
		ctr, err := c.Inspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		all := wholeLog(t, c, id, docker.LogsOptions{TTY: true, StartedAt: ctr.StartedAt})
		var got []string
		for _, e := range all {
			got = append(got, e.text)
		}
		if want := []string{"line 1\r\n", "line 2", "line 1\r\n", "line 2"}; !slices.Equal(got, want) || !reflect.DeepEqual(all[:2], before) {
			t.Errorf("got %q, want %q", got, want)
		}
	})

	t.Run("refused", func(t *testing.T) {
		id := d.Run(t, ContainerSpec{Name: "none", Driver: "none", Cmd: []string{"-lines", "1"}})
		if _, err := c.Logs(t.Context(), id, docker.LogsOptions{Follow: true}); !errors.Is(err, docker.ErrNotReadable) {
			t.Errorf("driver none: %v", err)
		}
		d.Remove(t, id)
		if _, err := c.Logs(t.Context(), id, docker.LogsOptions{}); !docker.IsNotFound(err) {
			t.Errorf("a removed container: %v", err)
		}
	})

	t.Run("the engine dies", func(t *testing.T) {
		id := d.Run(t, ContainerSpec{Name: "cut", Driver: "local", Cmd: []string{"-lines", "0", "-rate", "20"}})
		s := openLogs(t, c, id, docker.LogsOptions{Follow: true})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		other, err := c.Logs(ctx, id, docker.LogsOptions{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		if all, err := readStream(s, 3); err != nil || all[2].text != "line 3\n" {
			t.Fatalf("%+v, %v", all, err)
		}
		cancel()
		if _, err := readStream(other, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("after its context: %v", err)
		}
		d.Kill9()
		if all, err := readStream(s, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d entries: %v", len(all), err)
		}
		if _, err := c.Logs(t.Context(), id, docker.LogsOptions{}); !docker.IsUnavailable(err) || !strings.Contains(err.Error(), "nobody listens") {
			t.Errorf("without an engine: %v", err)
		}
	})
}

// asJSONFile is what the json-file driver makes of text in which runes lie
// across the borders of fragments.
func asJSONFile(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		for len(body) >= 16<<10 {
			fixRunes(&b, body[:16<<10])
			body = body[16<<10:]
		}
		fixRunes(&b, body+"\n")
	}
	return b.String()
}

func fixRunes(b *strings.Builder, s string) {
	for _, r := range s { // U+FFFD for each byte that is none of a rune
		b.WriteRune(r)
	}
}
