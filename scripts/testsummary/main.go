// Command testsummary reads what `go test -json` writes and says at the end
// what a reader of a CI log wants to know: what failed and why, which tests did
// not run and for what reason, and how many there were.
//
//	go test -json ./... | testsummary
//
// Several runs may be written one after the other into the same input. Output
// of tests that pass is left out; a failed test's is shown in full, where it
// happened. The last line is always
//
//	N passed, N failed, N skipped
//
// where tests and subtests count alike, and a package that failed without a
// failing test (it did not build, its TestMain failed, it timed out) counts as
// one failure. The exit status is 1 when anything failed, when a test or
// package never came to an end, or when no test ran.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// notes are texts given by a flag that may be repeated.
type notes []string

func (n *notes) String() string     { return strings.Join(*n, "; ") }
func (n *notes) Set(s string) error { *n = append(*n, s); return nil }

func main() {
	var notRun notes
	flag.Var(&notRun, "not-run", "`text` to list under \"Not run:\" beside the skipped tests; may be repeated")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "testsummary: unexpected argument %q; it reads standard input\n", flag.Arg(0))
		os.Exit(2)
	}
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "testsummary: %v\n", err)
		s.broken = true
	}
	if !s.finish(notRun) {
		os.Exit(1)
	}
}
