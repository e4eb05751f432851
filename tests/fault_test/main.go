// Command fault_test lets the real agent read the logs of a real Docker engine,
// both of its own, and does to them what can go wrong: see scenarios. Containers
// write numbered lines all the time; the program's own store knows each line that
// it has accepted, and at the end each is accounted for. The last line says what
// has become of them; the exit status is 0 only if none was lost in silence, made
// up, or out of order, and if the agent's own counters add up.
//
// What the containers have written is known in this way:
//
//   - They write lines 1, 2, 3, …; the last one is found in Docker's log of a
//     container that has ended. So all numbers up to it were written by Docker.
//   - Where Docker itself loses lines (its daemon is killed, its disk is full),
//     Docker's own files are the oracle: a number that they do not have, though
//     they have lines of before and of after, was not written. These are counted
//     by themselves, and an error in every other scenario.
//
// docs/measuring.md says how to run it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

type options struct {
	seed       uint64
	kills      int
	duration   time.Duration
	containers int
	rate       int
	report     string
	keep       string
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout))
}

func run(args []string, stdout io.Writer) int {
	var o options
	var names string
	var list bool
	flags := flag.NewFlagSet("fault_test", flag.ContinueOnError)
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "seed of all that is random")
	flags.StringVar(&names, "run", "", "scenarios to run, separated by commas; all if empty")
	flags.BoolVar(&list, "list", false, "list the scenarios")
	flags.IntVar(&o.kills, "kills", 50, "how often the scenario kill kills the agent")
	flags.DurationVar(&o.duration, "duration", 0, "soak for so long instead of running scenarios")
	flags.IntVar(&o.containers, "containers", 100, "containers of the soak")
	flags.IntVar(&o.rate, "rate", 2000, "lines per second of all containers of the soak together")
	flags.StringVar(&o.report, "report", "", "file for the soak's report, in Markdown")
	flags.StringVar(&o.keep, "keep-log", "", "directory for the agent's logs")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return 2
	}
	if list {
		for _, s := range scenarios() {
			fmt.Fprintf(stdout, "%-16s %s\n", s.name, s.about)
		}
		return 0
	}
	chosen, err := choose(scenarios(), names)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault_test:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintf(stdout, "fault_test: -seed %d\n", o.seed)
	if o.duration > 0 {
		return verdict(stdout, []result{soak(ctx, stdout, o)})
	}
	s := scale{kills: o.kills, hold: 4 * time.Second, pause: 1500 * time.Millisecond, rounds: 2}
	var all []result
	for i, sc := range chosen {
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(stdout, "%s: %s\n", sc.name, sc.about)
		r := play(ctx, stdout, sc, o.seed+uint64(i), s, o.keep)
		fmt.Fprintln(stdout, r.String())
		all = append(all, r)
	}
	if len(all) < len(chosen) {
		all = append(all, result{name: "interrupted"})
	}
	return verdict(stdout, all)
}

// choose gives the scenarios with the names in a list with commas.
func choose(all []scenario, names string) ([]scenario, error) {
	if names == "" {
		return all, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q: -list lists them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// result is what has come of a scenario.
type result struct {
	name  string
	f     figures
	took  time.Duration
	notes []string
	ok    bool
}

func (r *result) String() string {
	end := "ok"
	if !r.ok {
		end = "FAILED"
	}
	notes := ""
	for _, n := range r.notes {
		notes += ", " + n
	}
	return fmt.Sprintf("%s: %s%s, %v: %s", r.name, &r.f, notes, r.took.Round(time.Second), end)
}

// play runs one scenario.
func play(ctx context.Context, stdout io.Writer, sc scenario, seed uint64, s scale, keep string) result {
	r := result{name: sc.name}
	began := time.Now()
	b := &bench{w: stdout}
	good := false
	ok := b.run(func() {
		s.keep = func(a *harness.Agent) {
			if keep != "" {
				keepLog(a, filepath.Join(keep, sc.name+".log"))
			}
		}
		w := sc.run(ctx, b, seed, s)
		r.f, good = w.settle()
		r.notes = w.notes
	})
	r.ok, r.took = ok && good, time.Since(began)
	return r
}

func keepLog(a *harness.Agent, file string) {
	_ = os.MkdirAll(filepath.Dir(file), 0o750)
	_ = os.WriteFile(file, []byte(a.Log()), 0o600)
}

// verdict prints the last line and gives the exit status.
func verdict(stdout io.Writer, all []result) int {
	var sum figures
	ok := true
	for _, r := range all {
		sum.plus(r.f)
		ok = ok && r.ok
	}
	end, code := "ok", 0
	if !ok || !sum.good() {
		end, code = "FAILED", 1
	}
	fmt.Fprintf(stdout, "fault_test: %s: %s\n", &sum, end)
	return code
}
