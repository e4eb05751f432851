package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/bench/internal/measure"
)

// The marks around the part of a report that is the program's.
const (
	beginMark = "<!-- results: begin -->"
	endMark   = "<!-- results: end -->"
)

// addResults adds a run to those in a file.
func addResults(name string, run *Run) error {
	runs, err := readRuns(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	text, err := json.MarshalIndent(append(runs, *run), "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644) //nolint:gosec // as anybody's
}

func readRuns(name string) (runs []Run, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &runs); err != nil {
		return nil, fmt.Errorf("results in %s: %w", name, err)
	}
	return runs, nil
}

// reportCommand makes a report of a run that was kept.
func reportCommand(args []string) error {
	fs := flag.NewFlagSet("bench report", flag.ContinueOnError)
	name := fs.String("json", "", "file with results; of several runs in it the last is taken")
	report := fs.String("report", "", "Markdown file whose part between the marks is replaced")
	if err := fs.Parse(args); err != nil {
		return err
	}
	runs, err := readRuns(*name)
	if err != nil {
		return err
	}
	if len(runs) == 0 {
		return fmt.Errorf("there is no run in %s", *name)
	}
	return writeReport(*report, &runs[len(runs)-1])
}

// writeReport puts a run into a Markdown file, which is made if need be, and its plot
// beside it.
func writeReport(name string, run *Run) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte("# Performance\n\n"+beginMark+"\n"+endMark+"\n"), nil
	}
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks to put results between: %s and %s, each on a line of its own", name, beginMark, endMark)
	}
	cells := summarize(run.Results)
	plot := strings.TrimSuffix(name, filepath.Ext(name)) + ".svg"
	if err := os.WriteFile(plot, []byte(plotOf(cells)), 0o644); err != nil { //nolint:gosec // as anybody's
		return err
	}
	body := before + beginMark + "\n" + markdown(run, cells, filepath.Base(plot)) + endMark + after
	return os.WriteFile(name, []byte(body), 0o644) //nolint:gosec // as anybody's
}

// cell is one agent at one workload: the medians of its repetitions.
type cell struct {
	Result
	runs int
	// cpu is CPU time from the lowest to the highest repetition, in seconds.
	cpuMin, cpuMax float64
	wrong          []string
}

// summarize gives the cells in the order in which their first results came.
func summarize(results []Result) (cells []cell) {
	type key struct{ workload, agent string }
	groups := make(map[key][]Result)
	var order []key
	for _, r := range results {
		k := key{r.Workload, r.Agent}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], r)
	}
	for _, k := range order {
		all := groups[k]
		c := cell{runs: len(all)}
		for _, r := range all {
			if why := r.wrong(); why != "" {
				c.wrong = append(c.wrong, why)
			}
		}
		good := slices.DeleteFunc(slices.Clone(all), func(r Result) bool { return r.Problem != "" })
		if len(good) == 0 {
			c.Result = all[0]
			cells = append(cells, c)
			continue
		}
		c.Result = good[0]
		seconds := valuesOf(good, func(r *Result) float64 { return r.CPU.Seconds() })
		c.cpuMin, c.cpuMax = slices.Min(seconds), slices.Max(seconds)
		for _, f := range medianOf {
			f.set(&c.Result, measure.Median(valuesOf(good, f.get)))
		}
		cells = append(cells, c)
	}
	return cells
}

func valuesOf(rs []Result, get func(*Result) float64) (out []float64) {
	for i := range rs {
		out = append(out, get(&rs[i]))
	}
	return out
}

// medianOf is what the median is taken of.
var medianOf = []struct {
	get func(*Result) float64
	set func(*Result, float64)
}{
	{func(r *Result) float64 { return float64(r.CPU) }, func(r *Result, v float64) { r.CPU = time.Duration(v) }},
	{func(r *Result) float64 { return float64(r.Wall) }, func(r *Result, v float64) { r.Wall = time.Duration(v) }},
	{func(r *Result) float64 { return float64(r.SinkCPU) }, func(r *Result, v float64) { r.SinkCPU = time.Duration(v) }},
	{func(r *Result) float64 { return float64(r.Lines) }, func(r *Result, v float64) { r.Lines = int(v) }},
	{func(r *Result) float64 { return float64(r.Bytes) }, func(r *Result, v float64) { r.Bytes = int64(v) }},
	{func(r *Result) float64 { return float64(r.Peak) }, func(r *Result, v float64) { r.Peak = int64(v) }},
	{func(r *Result) float64 { return float64(r.Resident) }, func(r *Result, v float64) { r.Resident = int64(v) }},
	{func(r *Result) float64 { return float64(r.WakeUps) }, func(r *Result, v float64) { r.WakeUps = int64(v) }},
	{func(r *Result) float64 { return float64(r.Wire) }, func(r *Result, v float64) { r.Wire = int64(v) }},
	{func(r *Result) float64 { return float64(r.Latency.P50) }, func(r *Result, v float64) { r.Latency.P50 = time.Duration(v) }},
	{func(r *Result) float64 { return float64(r.Latency.P95) }, func(r *Result, v float64) { r.Latency.P95 = time.Duration(v) }},
	{func(r *Result) float64 { return float64(r.Latency.P99) }, func(r *Result, v float64) { r.Latency.P99 = time.Duration(v) }},
	{func(r *Result) float64 { return float64(r.Latency.Max) }, func(r *Result, v float64) { r.Latency.Max = time.Duration(v) }},
	{func(r *Result) float64 { return r.Load }, func(r *Result, v float64) { r.Load = v }},
}

// figure is a row of a workload's table.
type figure struct {
	name   string
	digits int
	value  func(*Result) float64
	// counts of what must not be have no ratios.
	plain bool
}

// figures gives the rows that say something of a workload.
func figures(r *Result) []figure {
	rows := []figure{{"CPU seconds", 3, func(r *Result) float64 { return r.CPU.Seconds() }, false}}
	if r.Latency.Count > 0 || r.Lines == 0 {
		rows = append(rows,
			figure{"CPU, % of one core", 3, (*Result).percent, false},
			figure{"wake-ups per second", 1, func(r *Result) float64 { return ratio(float64(r.WakeUps), r.Wall.Seconds()) }, false})
	} else {
		rows = append(rows,
			figure{"wall seconds", 3, func(r *Result) float64 { return r.Wall.Seconds() }, false},
			figure{"MB of Docker's JSON per wall second", 1, (*Result).pace, false},
			figure{"CPU seconds of the sink", 3, func(r *Result) float64 { return r.SinkCPU.Seconds() }, true})
	}
	if r.Lines > 0 {
		rows = append(rows,
			figure{"MB of Docker's JSON per CPU second", 1, (*Result).speed, false},
			figure{"lines per CPU second", 0, func(r *Result) float64 { return ratio(float64(r.Lines), r.CPU.Seconds()) }, false})
	}
	rows = append(rows,
		figure{"peak memory, MB", 1, func(r *Result) float64 { return float64(r.Peak) / 1e6 }, false},
		figure{"resident memory, MB", 1, func(r *Result) float64 { return float64(r.Resident) / 1e6 }, false},
		figure{"goroutines", 0, func(r *Result) float64 { return float64(r.Goroutines) }, true})
	if r.Latency.Count > 0 {
		for _, q := range []struct {
			name string
			get  func(measure.Latency) time.Duration
		}{
			{"p50", func(l measure.Latency) time.Duration { return l.P50 }},
			{"p95", func(l measure.Latency) time.Duration { return l.P95 }},
			{"p99", func(l measure.Latency) time.Duration { return l.P99 }},
			{"max", func(l measure.Latency) time.Duration { return l.Max }},
		} {
			rows = append(rows, figure{"written to accepted, " + q.name + ", ms", 1, func(r *Result) float64 { return float64(q.get(r.Latency)) / 1e6 }, false})
		}
	}
	return append(rows,
		figure{"bytes on the wire, MB", 3, func(r *Result) float64 { return float64(r.Wire) / 1e6 }, false},
		figure{"requests", 0, func(r *Result) float64 { return float64(r.Requests) }, true},
		figure{"missing / doubled / out of order", 0, nil, true},
		figure{"writer behind its plan, ms at most", 1, func(r *Result) float64 { return float64(r.Late) / 1e6 }, true},
		figure{"load average", 1, func(r *Result) float64 { return r.Load }, true})
}

// markdown gives the tables: a column for each agent, and beside each but ours how
// ours compares.
func markdown(run *Run, cells []cell, plot string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nMeasured on %s.\n\n![Figures of the agents side by side](%s)\n", run.Machine, plot)
	for _, group := range byWorkload(cells) {
		first := group[0]
		fmt.Fprintf(&b, "\n### %s: %s\n\n", first.Workload, first.What)
		if first.runs > 1 {
			fmt.Fprintf(&b, "Medians of %d runs; ", first.runs)
			for i, c := range group {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "CPU seconds of %s %.3f to %.3f", c.Agent, c.cpuMin, c.cpuMax)
			}
			b.WriteString(".\n\n")
		}
		ours := slices.IndexFunc(group, func(c cell) bool { return c.Agent == agentOurs })
		b.WriteString("| |")
		for i, c := range group {
			fmt.Fprintf(&b, " %s |", c.Agent)
			if i != ours && ours >= 0 {
				fmt.Fprintf(&b, " ours / %s |", c.Agent)
			}
		}
		b.WriteString("\n|---|")
		b.WriteString(strings.Repeat("---:|", len(group)))
		if ours >= 0 {
			b.WriteString(strings.Repeat("---:|", len(group)-1))
		}
		b.WriteString("\n")
		typical := max(0, slices.IndexFunc(group, func(c cell) bool { return c.Problem == "" }))
		for _, f := range figures(&group[typical].Result) {
			fmt.Fprintf(&b, "| %s |", f.name)
			for i := range group {
				c := &group[i]
				fmt.Fprintf(&b, " %s |", f.text(c))
				if i != ours && ours >= 0 {
					fmt.Fprintf(&b, " %s |", f.compared(&group[ours], c))
				}
			}
			b.WriteString("\n")
		}
		for _, c := range group {
			for _, why := range c.wrong {
				first, _, _ := strings.Cut(why, "\n")
				fmt.Fprintf(&b, "\n%s: %s.\n", c.Agent, first)
			}
		}
	}
	if one, two := scaling(cells); one != nil && two != nil {
		fmt.Fprintf(&b, "\n### Scaling\n\nTwo cores, which the sink shares, read a backlog %.2f times as fast as one, by the clock. The agent used %.2f of the two, and the sink %.2f. A CPU second of the agent read %.2f times as much as with one core.\n",
			ratio(two.pace(), one.pace()), two.percent()/100, ratio(two.SinkCPU.Seconds(), two.Wall.Seconds()), ratio(two.speed(), one.speed()))
	}
	b.WriteString("\n")
	return b.String()
}

// scaling gives what ours did with a backlog on one core and on two; nil what was not
// measured.
func scaling(cells []cell) (one, two *Result) {
	for i := range cells {
		c := &cells[i]
		switch {
		case c.Agent != agentOurs || c.Problem != "":
		case c.Workload == oneCoreName:
			one = &c.Result
		case c.Workload == twoCoresName && c.Cores == 2:
			two = &c.Result
		}
	}
	return one, two
}

func (f *figure) text(c *cell) string {
	switch {
	case c.Problem != "":
		return ""
	case f.value == nil:
		return fmt.Sprintf("%d / %d / %d", c.Missing, c.Doubled, c.Disordered)
	}
	v := f.value(&c.Result)
	if v == 0 && f.plain {
		return ""
	}
	return fmt.Sprintf("%.*f", f.digits, v)
}

func (f *figure) compared(ours, other *cell) string {
	if f.plain || ours.Problem != "" || other.Problem != "" || f.value(&other.Result) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", f.value(&ours.Result)/f.value(&other.Result))
}

func byWorkload(cells []cell) (groups [][]cell) {
	for _, c := range cells {
		i := slices.IndexFunc(groups, func(g []cell) bool { return g[0].Workload == c.Workload })
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], c)
	}
	return groups
}
