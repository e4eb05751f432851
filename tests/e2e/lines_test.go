package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// TestLines: lines of every kind, of containers before and after the agent's
// start, exited and running, with their labels.
func TestLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := output{name: "before", lines: 2000, stderrEvery: 3}
	running := output{name: "running", lines: 900, stderrEvery: 2}
	long := output{name: "long-before", kind: lines.Long, lines: 20, stderrEvery: 3, size: 70_000}
	s := before.spec()
	s.Labels = map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "web-1", "com.example.other": "no"}
	id := w.run(s)
	w.d.Wait(t, id, 20*time.Second)
	w.d.Wait(t, w.run(long.spec()), 20*time.Second)
	w.run(running.spec("-rate", "300"))

	a := w.agent("")
	all := []output{
		before, running, long,
		{name: "after", lines: 2000, stderrEvery: 3},
		{name: "json", kind: lines.JSON, lines: 300, stderrEvery: 7, size: 300},
		{name: "long", kind: lines.Long, lines: 30, stderrEvery: 2},
		{name: "multibyte", kind: lines.Multibyte, lines: 100, stderrEvery: 3, size: 50},
		// Docker cuts within runes: the halves are U+FFFD each, in its files
		// too, so that only the files tell what was written.
		{name: "nonl", kind: lines.NoNewline, lines: 5, stderrEvery: 2},
		{name: "nonl-stderr", kind: lines.NoNewline, lines: 4, stderrEvery: 2},
		// With the line end these fill one fragment and two exactly.
		{name: "border", lines: 20, size: 16_383},
		{name: "border1", lines: 20, size: 16_384},
		{name: "border2", lines: 20, size: 32_768},
	}
	for _, o := range all[3:] {
		w.run(o.spec())
	}
	tty := output{name: "tty", lines: 500}
	s = tty.spec()
	s.TTY = true
	w.run(s)
	all = append(all, tty)
	w.once(all...)

	t.Run("runes cut by Docker", func(t *testing.T) {
		o := output{name: "cut-runes", kind: lines.Multibyte, lines: 30, stderrEvery: 3, size: 40_000}
		id := w.run(o.spec())
		w.d.Wait(t, id, 20*time.Second)
		w.onceLines(o.name, onDisk(t, w.d.LogPath(id)))
	})

	t.Run("empty lines", func(t *testing.T) {
		o := output{name: "empty", lines: 100}
		id := w.run(o.spec("-empty-every", "5"))
		w.d.Wait(t, id, 20*time.Second)
		want := onDisk(t, w.d.LogPath(id))
		if len(want) != 120 {
			t.Fatalf("%d lines written", len(want))
		}
		w.onceLines(o.name, want)
	})

	t.Run("labels", func(t *testing.T) {
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range w.labelled("before") {
			want := fmt.Sprintf(`{compose_project="shop",compose_service="web-1",container_name="before",host=%q,image="logwriter",job="log_capturer",stream=%q}`, host, l.stream)
			if l.labels != want || l.container != id || l.fields["image_ref"] != harness.Image || l.fields["partial"] != "" {
				t.Fatalf("labels %s, want %s; all: %v", l.labels, want, l.fields)
			}
		}
		l := w.labelled("tty")[0]
		want := fmt.Sprintf(`{container_name="tty",host=%q,image="logwriter",job="log_capturer",stream="stdout"}`, host)
		if l.labels != want {
			t.Errorf("labels %s, want %s", l.labels, want)
		}
		for _, name := range []string{"long", "border2"} {
			if l := w.labelled(name)[0]; l.fields["partial"] != "" {
				t.Errorf("a line joined from fragments is marked partial: %.100v", l.fields)
			}
		}
	})

	t.Run("times", func(t *testing.T) {
		want := onDisk(t, w.d.LogPath(id))
		if o := compare(want, w.found("before")); !o.lossless() || o.doubled != 0 {
			t.Errorf("with times: %s", &o)
		}
	})

	m := a.Metrics()
	if m["log_capturer_parse_errors_total"] != 0 || m[metricDead] != 0 {
		t.Errorf("parse errors %v, dead letters %v", m["log_capturer_parse_errors_total"], m[metricDead])
	}
	w.health(a, 5*time.Second, 200, "ok", nil)
	if n := m[`log_capturer_routing_decision_total{driver="json-file",method="file_monitor"}`]; n < float64(len(all)) {
		t.Errorf("%v routing decisions", n)
	}
}

// TestLinesTooLong: what is longer than max_line_bytes is shipped in pieces.
func TestLinesTooLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent("monitors: {container: {max_line_bytes: 20KiB}}")
	o := output{name: "pieces", kind: lines.Long, lines: 6, size: 70_000, stderrEvery: 2}
	w.run(o.spec())
	var got []line
	if !harness.Within(20*time.Second, func() bool {
		bytes := 0
		got = w.labelled(o.name)
		for _, l := range got {
			bytes += len(l.text)
		}
		return bytes >= 6*70_000
	}) {
		t.Fatalf("%d pieces", len(got))
	}
	// All pieces of a line have its time, and the store gives them in no order:
	// what can be said is that each is a part of its line, and all are there.
	byTime := map[time.Time][]line{}
	for _, l := range got {
		if len(l.text) > 20<<10 || l.fields["partial"] != "true" {
			t.Errorf("a piece of %d bytes at %v, partial=%q", len(l.text), l.at, l.fields["partial"])
		}
		byTime[l.at] = append(byTime[l.at], l)
	}
	if len(byTime) != o.lines {
		t.Errorf("pieces of %d times, want %d", len(byTime), o.lines)
	}
	want := map[string]bool{}
	for _, l := range o.want() {
		want[l.stream+l.text] = true
	}
	for _, pieces := range byTime {
		if text := join(pieces, want); text == "" {
			t.Errorf("%d pieces do not make a line that was written: %.40q", len(pieces), pieces[0].text)
		} else {
			delete(want, text)
		}
	}
	if n := a.Metrics()["log_capturer_lines_cut_total"]; n != float64(o.lines) {
		t.Errorf("%v lines cut, want %d", n, o.lines)
	}
}

// join finds the order of pieces that makes a wanted text of their stream.
func join(pieces []line, want map[string]bool) string {
	// The pattern within the lines repeats: a short piece would fit everywhere.
	slices.SortFunc(pieces, func(a, b line) int { return len(b.text) - len(a.text) })
	for text := range want {
		rest := text
		if cut, ok := strings.CutPrefix(rest, pieces[0].stream); ok {
			rest = cut
		} else {
			continue
		}
		used := make([]bool, len(pieces))
	next:
		for rest != "" {
			for i, p := range pieces {
				if !used[i] && strings.HasPrefix(rest, p.text) && p.text != "" {
					used[i], rest = true, rest[len(p.text):]
					continue next
				}
			}
			break
		}
		whole := rest == ""
		for _, u := range used {
			whole = whole && u
		}
		if whole {
			return text
		}
	}
	return ""
}
