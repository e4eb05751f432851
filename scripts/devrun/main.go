// Command devrun is what `make run` runs: the agent, and beside it a local log
// store unless LOKI_URL names one. It says where to look, waits for ctrl-C (or
// SIGTERM, or the end of either), and stops both: the agent first, so that its
// last lines still find a store.
//
// The two are children in process groups of their own, so that a terminal's
// ctrl-C reaches them in that order too, and are killed by the kernel should
// devrun itself be killed: nothing is left running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	// The children are bound to the life of the thread that starts them
	// (PR_SET_PDEATHSIG), which therefore must not end before the program.
	runtime.LockOSThread()

	c := config{
		out:        os.Stdout,
		agentErr:   os.Stderr,
		env:        os.Environ(),
		storePort:  9428,
		agentPort:  8401,
		readyAfter: 30 * time.Second,
		settle:     3 * time.Second,
		stopAfter:  20 * time.Second,
	}
	flag.StringVar(&c.agent, "agent", "bin/log_capturer", "the agent's `binary`")
	flag.StringVar(&c.store, "store", "", "VictoriaLogs' `binary`; empty: lines go to LOKI_URL")
	flag.StringVar(&c.file, "config", "configs/config.yaml", "the agent's configuration `file`")
	flag.StringVar(&c.dir, "dir", "var", "`directory` of what both keep")
	flag.Parse()

	// Two may come before they are handled: stop, and stop at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)

	if err := run(context.Background(), c, signals); err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		var exit exitError
		if errors.As(err, &exit) && exit.code > 0 {
			os.Exit(exit.code)
		}
		os.Exit(1)
	}
}
