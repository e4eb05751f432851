package server

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistory(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	store := func(why string) Problem { return Problem{"the store does not accept lines: " + why, "wait"} }
	docker := Problem{"Docker cannot be reached: gone", "start it"}
	var h History
	if got := h.Events(); got == nil || len(got) != 0 {
		t.Errorf("at the start: %v", got)
	}
	show := func() (out string) {
		for _, e := range h.Events() {
			until := "-"
			if e.Until != nil {
				until = e.Until.Sub(begin).String()
			}
			out += fmt.Sprintf("%s [%v %s x%d] ", strings.ReplaceAll(e.What, "the store does not accept lines", "store"), e.Since.Sub(begin), until, e.Times)
		}
		return strings.TrimSpace(out)
	}
	for _, step := range []struct {
		at       time.Duration
		problems []Problem
		want     string
	}{
		{0, nil, ""},
		{time.Second, []Problem{store("503 after 1 s")}, "store: 503 after 1 s [1s - x1]"},
		{2 * time.Second, []Problem{docker, store("503 after 2 s")}, "Docker cannot be reached: gone [2s - x1] store: 503 after 2 s [1s - x1]"},
		{3 * time.Second, []Problem{docker}, "Docker cannot be reached: gone [2s - x1] store: 503 after 2 s [1s 3s x1]"},
		{4 * time.Second, nil, "Docker cannot be reached: gone [2s 4s x1] store: 503 after 2 s [1s 3s x1]"},
		{time.Minute, []Problem{store("500")}, "store: 500 [1s - x2] Docker cannot be reached: gone [2s 4s x1]"}, // soon: the same again
		{2 * time.Minute, nil, "store: 500 [1s 2m0s x2] Docker cannot be reached: gone [2s 4s x1]"},
		{8 * time.Minute, []Problem{store("502"), docker}, "store: 502 [8m0s - x1] Docker cannot be reached: gone [8m0s - x1] store: 500 [1s 2m0s x2] Docker cannot be reached: gone [2s 4s x1]"},
	} {
		h.Observe(begin.Add(step.at), step.problems)
		if got := show(); got != step.want {
			t.Errorf("%v: got  %s\nwant %s", step.at, got, step.want)
		}
	}
	if see := h.Events()[0].See; !strings.HasSuffix(see, "#the-store-does-not-accept-lines--503-after-30-s") {
		t.Errorf("see %s", see)
	}
}

// TestHistoryIsBounded: whatever comes, there is room for it, what is wrong now is
// there, and texts are short.
func TestHistoryIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h History
		now := time.Unix(0, 0)
		problem := rapid.Custom(func(t *rapid.T) Problem {
			what := rapid.SampledFrom([]string{"a", "b", "c", "d", "1 of 2 logs cannot be read: x", strings.Repeat("y", 5000)}).Draw(t, "what")
			return Problem{what + rapid.StringN(0, 2, -1).Draw(t, "more"), "do"}
		})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "pause")) * time.Second)
			problems := rapid.SliceOfN(problem, 0, 5).Draw(t, "problems")
			h.Observe(now, problems)
			events := h.Events()
			if len(events) > maxEvents {
				t.Fatalf("%d events", len(events))
			}
			open := 0
			for _, e := range events {
				if e.Until == nil {
					open++
				}
				if len([]rune(e.What)) > 10*maxEventText+1 {
					t.Fatalf("a text of %d bytes", len(e.What))
				}
			}
			kinds := map[string]bool{}
			for _, p := range problems {
				kind, _ := kindOf(p.What)
				kinds[kind] = true
			}
			if open != len(kinds) {
				t.Fatalf("%d problems are there, %d kinds were given", open, len(kinds))
			}
		}
	})
}

// TestGuides: the document for trouble has the sections that the page links to, and
// none besides.
func TestGuides(t *testing.T) {
	part := section(t, "HYBRID_MONITOR_TROUBLESHOOTING.md", "What /health says")
	var there, known []string
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(part, -1) {
		there = append(there, m[1])
	}
	for _, g := range guides() {
		known = append(known, g.heading)
		if !strings.HasPrefix(strings.TrimPrefix(g.heading, "`"), g.begins) {
			t.Errorf("%q does not begin with %q", g.heading, g.begins)
		}
		// A problem as it may be found leads to this section, not to another.
		what := strings.NewReplacer("…", "17").Replace(strings.Split(strings.Trim(g.heading, "`"), "`")[0])
		if kind, see := kindOf(what); kind != g.begins || see != troubleshooting+"#"+anchor(g.heading) {
			t.Errorf("%q leads to %q, %s", what, kind, see)
		}
	}
	slices.Sort(there)
	slices.Sort(known)
	if !slices.Equal(there, known) {
		t.Errorf("the document has\n%s\nguides has\n%s", strings.Join(there, "\n"), strings.Join(known, "\n"))
	}
	for heading, want := range map[string]string{
		"`Docker cannot be reached: …` (503)":     "docker-cannot-be-reached--503",
		"`… of … logs cannot be read: …`":         "-of--logs-cannot-be-read-",
		"`log files contain … that are Docker's`": "log-files-contain--that-are-dockers",
	} {
		if got := anchor(heading); got != want {
			t.Errorf("%s: got %s", heading, got)
		}
	}
	kind, see := kindOf("something new at 3 places: why")
	if kind != "something new at … places" || see != troubleshooting+"#what-health-says" {
		t.Errorf("unknown: %q, %s", kind, see)
	}
}
