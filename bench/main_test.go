package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/bench/internal/measure"
	"github.com/log-capturer/log_capturer/bench/internal/sink"
)

func TestMain(m *testing.M) {
	// The benchmark starts itself for its sink and its writer.
	if name, value, _ := strings.Cut(childEnv, "="); os.Getenv(name) == value {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// TestSmoke runs small workloads with the real agent and the floor, so that the
// benchmark does not rot.
func TestSmoke(t *testing.T) {
	bin := t.TempDir()
	for program, pkg := range map[string]string{"log_capturer": "../cmd/log_capturer", "bench-floor": "./floor"} {
		to := filepath.Join(bin, program)
		if have := os.Getenv("LOG_CAPTURER_BIN"); program == "log_capturer" && have != "" {
			if err := os.Symlink(have, to); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if out, err := exec.Command("go", "build", "-o", to, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	dir := t.TempDir()
	report, keep := filepath.Join(dir, "performance.md"), filepath.Join(dir, "results.json")
	var out bytes.Buffer
	err := command(t.Context(), []string{
		"-short", "-run", "backlog,far-10,steady-1000", "-agents", "log_capturer,floor", "-lines", "20000", "-for", "500ms",
		"-bin", bin, "-dir", dir, "-json", keep, "-report", report,
	}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	runs, err := readRuns(keep)
	if err != nil || len(runs) != 1 || len(runs[0].Results) != 6 {
		t.Fatalf("%d runs, %v\n%s", len(runs), err, &out)
	}
	for _, r := range runs[0].Results {
		held := r.Workload != "steady-1000"
		if why := r.wrong(); why != "" || r.Lines == 0 || r.CPU <= 0 || r.Wall <= 0 || r.Peak < 1<<20 || r.Wire == 0 || r.Bytes == 0 || (r.SinkCPU > 0) != held {
			t.Errorf("%s, %s: %q %+v", r.Workload, r.Agent, why, r)
		}
		if held && r.Tally.Lines != 20_000 || !held && r.Latency.P99 <= 0 || r.Workload == "far-10" && r.Wall < 10*time.Millisecond {
			t.Errorf("%s, %s: %+v", r.Workload, r.Agent, r)
		}
	}
	text, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(text), "ours / floor") {
		t.Errorf("%v\n%s", err, text)
	}
}

// result gives one that has nothing wrong.
func result(workload, agent string, cpu time.Duration) Result {
	return Result{
		Workload: workload, What: "work", Agent: agent, Cores: 1, Lines: 1000, Bytes: 200e6,
		CPU: cpu, Wall: 4 * time.Second, Memory: measure.Memory{Resident: 10e6, Peak: 20e6},
		Tally: sink.Tally{Lines: 1000}, Wire: 5e6, Requests: 5,
	}
}

func TestSummarizeTakesMedians(t *testing.T) {
	bad := result("backlog", agentOurs, time.Hour)
	bad.Problem = "it has ended"
	lost := result("backlog", agentOurs, 3*time.Second)
	lost.Missing = 2
	cells := summarize([]Result{
		result("backlog", agentOurs, time.Second), bad, result("backlog", agentFloor, time.Second),
		result("backlog", agentOurs, 2*time.Second), lost,
	})
	if len(cells) != 2 || cells[0].Agent != agentOurs || cells[1].Agent != agentFloor {
		t.Fatalf("%+v", cells)
	}
	c := cells[0]
	if c.CPU != 2*time.Second || c.cpuMin != 1 || c.cpuMax != 3 || c.runs != 4 {
		t.Errorf("median %v, from %v to %v in %d runs", c.CPU, c.cpuMin, c.cpuMax, c.runs)
	}
	if want := []string{"it has ended", "2 lines missing, 0 doubled, 0 out of order, 0 altered, 0 foreign"}; !slices.Equal(c.wrong, want) {
		t.Errorf("said %q", c.wrong)
	}
}

func TestBadIsOfOurs(t *testing.T) {
	other := result("backlog", "vlagent", 1)
	other.Missing = 1
	run := Run{Results: []Result{result("backlog", agentOurs, 1), other}}
	if err := run.bad(); err != nil {
		t.Errorf("another agent's fault fails the run: %v", err)
	}
	for _, spoil := range []func(*Result){
		func(r *Result) { r.Missing = 1 }, func(r *Result) { r.Doubled = 1 }, func(r *Result) { r.Disordered = 1 },
		func(r *Result) { r.Altered = 1 }, func(r *Result) { r.Foreign = 1 }, func(r *Result) { r.Problem = "x" },
	} {
		r := result("backlog", agentOurs, 1)
		spoil(&r)
		if (&Run{Results: []Result{r}}).bad() == nil {
			t.Errorf("passes: %+v", r)
		}
	}
}

func TestReport(t *testing.T) {
	two := result(twoCoresName, agentOurs, 2*time.Second)
	two.Cores, two.Wall, two.SinkCPU = 2, 2*time.Second, 400*time.Millisecond
	broken := result("backlog", "otelcol", 0)
	broken.Problem = "it has ended\nwith many words"
	run := &Run{Machine: Machine{CPU: "some <core>"}, Results: []Result{
		result("backlog", agentOurs, time.Second), result("backlog", agentFloor, 2*time.Second), broken,
		result(oneCoreName, agentOurs, time.Second), two,
	}}
	name := filepath.Join(t.TempDir(), "r.md")
	if err := os.WriteFile(name, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second replaces the first
		if err := writeReport(name, run); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		"before\n" + beginMark, endMark + "\nafter\n", "(r.svg)",
		"| | log_capturer | floor | ours / floor | otelcol | ours / otelcol |",
		"| CPU seconds | 1.000 | 2.000 | 0.50 |  |  |",
		"| MB of Docker's JSON per CPU second | 200.0 | 100.0 | 2.00 |  |  |",
		"| missing / doubled / out of order | 0 / 0 / 0 | 0 / 0 / 0 |  |  |  |",
		"otelcol: it has ended.\n", "| CPU seconds of the sink | 0.400 |\n",
		"Two cores, which the sink shares, read a backlog 2.00 times as fast as one, by the clock. The agent used 1.00 of the two, and the sink 0.20. A CPU second of the agent read 0.50 times as much as with one core.\n",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("not once: %q", want)
		}
	}
	if strings.Contains(text, "old") || t.Failed() {
		t.Errorf("in\n%s", text)
	}
	svg, err := os.ReadFile(strings.TrimSuffix(name, ".md") + ".svg")
	if err != nil {
		t.Fatal(err)
	}
	d, bars := xml.NewDecoder(bytes.NewReader(svg)), 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 1+2+2 { // the ground, and two panels of two
		t.Errorf("%d bars", bars)
	}
	if err := os.WriteFile(name, []byte("no marks"), 0o600); err != nil {
		t.Fatal(err)
	}
	if writeReport(name, run) == nil {
		t.Error("a file without marks was written over")
	}
}

func TestResultsAreKept(t *testing.T) {
	name := filepath.Join(t.TempDir(), "r.json")
	r := result("backlog", agentOurs, time.Second)
	r.Lines, r.Tally.Lines, r.Latency = 7, 8, measure.Latency{Count: 1, P99: time.Second}
	for range 2 {
		if err := addResults(name, &Run{Results: []Result{r}}); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := readRuns(name)
	if err != nil || len(runs) != 2 || runs[1].Results[0] != r {
		t.Errorf("%+v, %v", runs, err)
	}
}

func TestWriterKeepsToItsPlan(t *testing.T) {
	d := &dataset{dir: t.TempDir() + "/logs", w: workload{containers: 3, preload: 2}, seed: 1}
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	p := writePlan{root: d.dir, containers: 3, first: 2, rate: 1000, span: 200 * time.Millisecond, seed: 1}
	done, err := p.write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, n := range done.Counts {
		lines += n - 2
	}
	// It may be late on a busy machine, but never early.
	if lines == 0 || lines > 200 || slices.Max(done.Counts)-slices.Min(done.Counts) > 1 || done.Bytes == 0 {
		t.Errorf("%+v", done)
	}
	p.burst, p.burstEvery, p.first = 5, 50*time.Millisecond, done.Counts[0]
	again, err := p.write(t.Context())
	if err != nil || again.Counts[2] == p.first || (again.Counts[2]-p.first)%5 != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.write(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-run", "nothing"}, {"-agents", "nobody"}, {"-repeat", "0"}, {"stray"}, {"-short", "stray"}, {"report", "-json", "/none"},
	} {
		if err := command(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q passes", args)
		}
	}
	seen := make(map[string]bool)
	for _, n := range workloadNames() {
		if seen[n] {
			t.Errorf("two workloads %q", n)
		}
		seen[n] = true
	}
}
