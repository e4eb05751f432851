package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command is one of the program's, by its first argument.
func command(ctx context.Context, args []string, out io.Writer) error {
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	switch name {
	case "run":
		return runCommand(ctx, args, out)
	case "report":
		return reportCommand(args)
	case "sink":
		return sinkCommand(ctx, args)
	case "write":
		return writeCommand(ctx, args, out)
	default:
		return fmt.Errorf("%q is no command: run, report", name)
	}
}

// runCommand measures.
func runCommand(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var o options
	var only, agents string
	fs.StringVar(&only, "run", "", "workloads to run, by comma; default all: "+strings.Join(workloadNames(), ","))
	fs.StringVar(&agents, "agents", "", "agents to run, by comma; default all whose program is in -bin: "+strings.Join(agentNames(), ","))
	fs.BoolVar(&o.sizes.short, "short", false, "small sizes: it tries whether it works, and measures nothing worth keeping")
	fs.IntVar(&o.sizes.lines, "lines", 0, "lines of a backlog in all (2,000,000); cores-1 and cores-2 have three times as many")
	fs.IntVar(&o.sizes.containers, "containers", 0, "containers of the steady workloads (50)")
	fs.DurationVar(&o.sizes.window, "for", 0, "how long the steady workloads are measured (60s)")
	fs.IntVar(&o.repeat, "repeat", 1, "how often each is measured; the report has medians")
	fs.Uint64Var(&o.seed, "seed", 1, "of the lines")
	fs.StringVar(&o.bin, "bin", "bin", "where the agents' programs are")
	fs.StringVar(&o.dir, "dir", "", "where logs are written, a gigabyte of them (the system's directory for temporary files)")
	var keep, report, profiles string
	fs.StringVar(&keep, "json", "", "file that the results are added to")
	fs.StringVar(&report, "report", "", "Markdown file whose part between the marks is replaced by the results; its plot goes beside it")
	fs.StringVar(&profiles, "profiles", "", "directory for CPU profiles of the agent, one per workload with a window; profiling costs a little CPU")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%q is no flag", fs.Arg(0))
	}
	if o.repeat < 1 {
		return errors.New("-repeat must be at least 1")
	}
	o.profiles = profiles
	var err error
	if o.workloads, err = choose(only, workloads(o.sizes), func(w workload) string { return w.Name }); err != nil {
		return err
	}
	if o.agents, err = choose(agents, allAgents(), func(a agent) string { return a.name }); err != nil {
		return err
	}
	if agents == "" {
		o.agents = slices.DeleteFunc(o.agents, func(a agent) bool {
			missing := !a.built(o.bin)
			if missing {
				fmt.Fprintf(out, "%s is left out: there is no %s (make bench-peers)\n", a.name, a.program)
			}
			return missing
		})
	}
	run, err := measureAll(ctx, o, out)
	if err != nil {
		return err
	}
	if keep != "" {
		if err := addResults(keep, run); err != nil {
			return err
		}
	}
	if report != "" {
		return writeReport(report, run)
	}
	return run.bad()
}

// choose gives those of all that are named, in their own order; "" names all.
func choose[T any](names string, all []T, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var chosen []T
	for n := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(x T) bool { return name(x) == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no %q", n)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
