package loki

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// TestNothingIsLost: whatever mixture of refused lines, limits, shared pushes
// and outages, every line is stored or refused with a reason in the end, and
// what is stored keeps its order within a stream.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		at := start
		var clock atomic.Int64 // at, in Unix ns, for the store
		clock.Store(at.UnixNano())
		opt := lokitest.Default()
		opt.Now = func() time.Time { return time.Unix(0, clock.Load()).UTC() }
		opt.Limits.MaxLine = 60
		opt.Limits.NoMetadata = rapid.Bool().Draw(rt, "noMetadata")
		opt.Limits.ServiceName = rapid.Bool().Draw(rt, "serviceName")
		opt.Limits.MaxListed = rapid.IntRange(1, 10).Draw(rt, "listed")
		opt.Limits.MaxMessage = rapid.SampledFrom([]int{0, 300, 1000}).Draw(rt, "message")
		opt.Limits.HeadBlock = 0
		if rapid.Bool().Draw(rt, "poison") {
			opt.Poison = func(_, line string) bool { return strings.Contains(line, "7") }
		}
		srv := lokitest.New(opt)
		defer srv.Close()
		c, err := New(Config{
			URL: srv.URL, StructuredMetadata: rapid.Bool().Draw(rt, "metadata"),
			BatchBytes: rapid.SampledFrom([]int{200, 1000, 1 << 20}).Draw(rt, "batchBytes"),
		})
		if err != nil {
			rt.Fatal(err)
		}
		defer c.Close()
		c.now = opt.Now
		c.window.most = rapid.IntRange(1, maxFlights).Draw(rt, "flights")
		if rapid.Bool().Draw(rt, "slow") {
			c.poster = slowPoster{c.poster}
		}

		var sources []*entry.Source
		for i := range rapid.IntRange(1, 3).Draw(rt, "sources") {
			sources = append(sources, labelled(fmt.Sprint("c", i), entry.Label{Name: "image", Value: "x"}))
		}
		fault := rapid.SampledFrom([]lokitest.Fault{
			{}, {}, {}, {}, {Status: 503}, {Status: 429, Body: "slow down"}, {Status: 404}, {Status: 413},
			{Status: 429, Body: "Per stream rate limit exceeded"}, {Status: 500, Store: true}, {Reset: true},
			{Status: 503, Header: http.Header{"Retry-After": {"1"}}},
		})
		n := 0
		type sent struct {
			stream, text string
			refused      bool
		}
		var all []sent
		for range rapid.IntRange(1, 4).Draw(rt, "batches") {
			b := new(entry.Batch)
			first := len(all)
			for range rapid.IntRange(1, 4).Draw(rt, "sections") {
				src := sources[rapid.IntRange(0, len(sources)-1).Draw(rt, "source")]
				var lines []testLine
				for range rapid.IntRange(1, 6).Draw(rt, "lines") {
					n++
					text := fmt.Sprintf("line %d.", n)
					if rapid.IntRange(0, 9).Draw(rt, "long") == 0 {
						text += strings.Repeat("x", 60)
					}
					off := rapid.SampledFrom([]time.Duration{
						0, 0, 0, 0, time.Second, -time.Minute, -time.Hour, -time.Hour - time.Nanosecond, -70 * time.Minute, -2 * time.Hour,
						-7 * 24 * time.Hour, -7*24*time.Hour - time.Nanosecond, -8 * 24 * time.Hour,
						10 * time.Minute, 10*time.Minute + 1, time.Hour,
					}).Draw(rt, "off")
					lines = append(lines, testLine{at: at.Add(off).UnixNano() + int64(n), text: text, flags: entry.Flags(rapid.IntRange(0, 1).Draw(rt, "partial"))})
					all = append(all, sent{stream: src.Labels[0].String(), text: text})
				}
				appendSection(b, src, lines...)
			}
			for range rapid.IntRange(0, 3).Draw(rt, "faults") {
				srv.Next(fault.Draw(rt, "fault"))
			}
			for try := 0; ; try++ {
				before, told := len(srv.Requests()), 0
				out := c.Push(context.Background(), b, func(context.Context) {
					told++
					// As dispatch does: what is told of is over.
					stored := map[string]bool{}
					for _, l := range srv.Lines() {
						stored[l.Text] = true
					}
					open := map[*entry.Source]bool{}
					for i := range b.Sections {
						s := &b.Sections[i]
						switch s.State[0] {
						case entry.PartAccepted:
							s.State[0] = entry.PartEmpty
							if open[s.Source] {
								rt.Fatalf("section %d is told of before an earlier one of its stream", i)
							}
							lines := b.SectionLines(s)
							for k := range lines {
								if ln := &lines[k]; ln.Flags&entry.FlagRefused == 0 && !stored[string(b.Message(ln))] {
									rt.Fatalf("%q is told of and not stored", b.Message(ln))
								}
							}
						case entry.PartPending:
							open[s.Source] = true
						}
					}
				})
				// Each answer is told of but the last, and that one if what was left behind it need not be sent.
				if n := len(srv.Requests()) - before; told > n || out.Err == nil && told < n-1 {
					rt.Fatalf("%d requests, told of %d times: %v", n, told, out.Err)
				}
				if out.Err == nil {
					break
				}
				if try > 40 {
					// A line alone of which the store does not say what is
					// wrong stays pending: a matter of configuration.
					if out.Config && opt.Poison != nil {
						return
					}
					rt.Fatalf("never accepted: %v", out.Err)
				}
				for i := range b.Sections { // as dispatch does after a pause
					for cl := range b.Sections[i].State {
						switch state := &b.Sections[i].State[cl]; *state {
						case entry.PartHeld:
							*state = entry.PartPending
						case entry.PartAccepted:
							*state = entry.PartEmpty
						}
					}
				}
			}
			for i := range b.Lines {
				all[first+i].refused = b.Lines[i].Flags&entry.FlagRefused != 0
			}
			if refused := len(b.Refusals); refused > 0 {
				for _, f := range b.Refusals {
					if !all[first+f.Line].refused {
						rt.Fatal("a refusal of a line without the flag")
					}
				}
			}
			at = at.Add(rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Minute, 40 * time.Minute}).Draw(rt, "pass"))
			clock.Store(at.UnixNano())
		}
		place := map[string]int{} // in all
		for i, s := range all {
			place[s.text] = i
		}
		stored := map[string]int{}
		latest := map[string]int{} // by stream
		for _, l := range srv.Lines() {
			if stored[l.Text]++; stored[l.Text] > 1 {
				continue // what was sent again
			}
			i := place[l.Text]
			stream := all[i].stream
			if i < latest[stream] {
				rt.Fatalf("%q is stored after %q", l.Text, all[latest[stream]].text)
			}
			latest[stream] = i
		}
		for _, s := range all {
			if stored[s.text] == 0 && !s.refused {
				rt.Fatalf("%q is lost", s.text)
			}
			if s.refused && strings.HasSuffix(s.text, "x") && stored[s.text] > 0 {
				rt.Fatalf("%q is too long and was stored", s.text)
			}
		}
	})
}
