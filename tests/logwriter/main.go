// Command logwriter writes lines that a test can check: those of package lines,
// numbered from 1. It runs as the only process of a test container.
//
// Lines are written by one write(2) each, without the help of a buffer. On
// SIGTERM it stops after the line it is at, with status 0.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// options are the flags.
type options struct {
	lines       int
	rate        float64
	size        int
	prefix      string
	stderrEvery int
	emptyEvery  int
	kind        string
	before      time.Duration
	after       time.Duration
	exit        int
}

func main() {
	var o options
	flag.IntVar(&o.lines, "lines", 10, "lines to write in all; 0: without end")
	flag.Float64Var(&o.rate, "rate", 0, "lines per second; 0: as fast as possible")
	flag.IntVar(&o.size, "size", 0, "bytes of each line without its end; 0: as short as can be")
	flag.StringVar(&o.prefix, "prefix", "line", "what each line begins with")
	flag.IntVar(&o.stderrEvery, "stderr-every", 0, "each line with a number divisible by this goes to stderr; 0: none")
	flag.IntVar(&o.emptyEvery, "empty-every", 0, "each line with a number divisible by this is followed by an empty one on stdout; 0: none")
	flag.StringVar(&o.kind, "kind", lines.Plain, "plain, json, long (40,000 bytes unless -size says more), multibyte, nonl (the last line has no end)")
	flag.DurationVar(&o.before, "sleep-before", 0, "wait before the first line")
	flag.DurationVar(&o.after, "sleep-after", 0, "wait after the last line; negative: until SIGTERM")
	flag.IntVar(&o.exit, "exit", 0, "exit status after the last line")
	flag.Parse()
	if !slices.Contains(lines.Kinds(), o.kind) {
		fmt.Fprintf(os.Stderr, "logwriter: -kind %q is none of %v\n", o.kind, lines.Kinds())
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "logwriter:", err)
		os.Exit(1) //nolint:gocritic // the end of the process undoes the signal handler, too
	}
	if ctx.Err() == nil {
		os.Exit(o.exit)
	}
}

func run(ctx context.Context, o options) error {
	if !sleep(ctx, o.before) {
		return nil
	}
	start := time.Now()
	for n := 1; o.lines == 0 || n <= o.lines; n++ {
		if o.rate > 0 {
			due := start.Add(time.Duration(float64(n-1) / o.rate * float64(time.Second)))
			if !sleep(ctx, time.Until(due)) {
				return nil
			}
		} else if ctx.Err() != nil {
			return nil //nolint:nilerr // SIGTERM is an end like any other
		}
		to := os.Stdout
		if o.stderrEvery > 0 && n%o.stderrEvery == 0 {
			to = os.Stderr
		}
		text := lines.Line(o.kind, o.prefix, n, o.size)
		if o.kind != lines.NoNewline || n != o.lines {
			text += "\n"
		}
		if _, err := to.WriteString(text); err != nil {
			return fmt.Errorf("write line %d: %w", n, err)
		}
		if o.emptyEvery > 0 && n%o.emptyEvery == 0 {
			if _, err := os.Stdout.WriteString("\n"); err != nil {
				return fmt.Errorf("write the empty line after line %d: %w", n, err)
			}
		}
	}
	if o.after < 0 {
		<-ctx.Done()
		return nil
	}
	sleep(ctx, o.after)
	return nil
}

// sleep waits; false when the process is to end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
