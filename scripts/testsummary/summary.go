package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json` and
// `go help buildjson`).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of the build's events, which have no Package
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string  // of a package's "fail": the ImportPath that did not build
}

// testID names a test of a package; an empty test is the package itself.
type testID struct{ pkg, test string }

// result is a test worth a line at the end.
type result struct {
	testID
	text string
}

// summary collects events. It is used by one goroutine.
type summary struct {
	out io.Writer

	// output is what a test (or package, or build) has written so far; it is
	// dropped when the test passes.
	output map[testID][]string
	// running are tests that have started and not ended, in order of their
	// start; open the same of packages.
	running map[testID]struct{}
	open    map[string]struct{}
	order   []testID
	// paused are those of the running that wait for others to end (t.Parallel).
	paused map[testID]struct{}
	// failedIn counts the failed tests of a package.
	failedIn map[string]int

	passed, failed int
	failures       []result
	skips          []result
	broken         bool // input was unreadable
}

func newSummary(out io.Writer) *summary {
	return &summary{
		out:      out,
		output:   make(map[testID][]string),
		running:  make(map[testID]struct{}),
		open:     make(map[string]struct{}),
		paused:   make(map[testID]struct{}),
		failedIn: make(map[string]int),
	}
}

// read takes events until the end of the input. A line that is no event (a
// program's own output that bypassed the test, a message of the go command) is
// passed through.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] == '{' && json.Unmarshal(line, &e) == nil && e.Action != "" {
				s.add(&e)
			} else {
				fmt.Fprintf(s.out, "%s\n", strings.TrimRight(string(line), "\r\n"))
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events of go test: %w", err)
		}
	}
}

func (s *summary) add(e *event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		id = testID{pkg: e.ImportPath}
		s.output[id] = append(s.output[id], e.Output)
	case "build-fail":
		// The packages that needed it fail by themselves; the reason is shown
		// once, here.
		id = testID{pkg: e.ImportPath}
		fmt.Fprintf(s.out, "--- does not build: %s\n%s", e.ImportPath, strings.Join(s.output[id], ""))
		delete(s.output, id)
	case "output":
		s.output[id] = append(s.output[id], e.Output)
	case "start":
		s.open[e.Package] = struct{}{}
	case "run":
		s.running[id] = struct{}{}
		s.order = append(s.order, id)
	case "pause":
		s.paused[id] = struct{}{}
	case "cont":
		delete(s.paused, id)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
			return
		}
		s.endTest(id, e)
	}
}

func (s *summary) endTest(id testID, e *event) {
	out := s.output[id]
	delete(s.output, id)
	delete(s.running, id)
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skips = append(s.skips, result{id, skipReason(out)})
	case "fail":
		s.fail(id, fmt.Sprintf("%.2fs", e.Elapsed), out)
	}
}

// fail records a failure and shows its output at once: whoever watches should
// not wait for the end of all tests.
func (s *summary) fail(id testID, text string, out []string) {
	s.failed++
	s.failedIn[id.pkg]++
	s.failures = append(s.failures, result{id, text})
	fmt.Fprintf(s.out, "--- FAIL: %s (%s)\n", id, text)
	for _, line := range out {
		if !isFrame(line) {
			io.WriteString(s.out, line) //nolint:errcheck // a summary that cannot be written can be told to nobody
		}
	}
	if n := len(out); n > 0 && !strings.HasSuffix(out[n-1], "\n") {
		fmt.Fprintln(s.out)
	}
}

func (s *summary) endPackage(e *event) {
	id := testID{pkg: e.Package}
	out := s.output[id]
	delete(s.output, id)
	delete(s.open, e.Package)
	// What is still running will not end: the package timed out, or a test
	// took the process with it.
	s.failUnfinished(func(t testID) bool { return t.pkg == e.Package })
	switch {
	case e.Action == "fail" && e.FailedBuild != "":
		s.fail(id, "does not build", nil)
	case e.Action == "fail" && s.failedIn[e.Package] == 0:
		s.fail(id, "the package failed without a failing test", out)
	case e.Action == "fail":
		// What the package itself wrote often says more than the test (a data
		// race, a panic's stack, the seed of -shuffle).
		fmt.Fprintf(s.out, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
		for _, line := range out {
			if t := strings.TrimSpace(line); t != "FAIL" && !strings.HasPrefix(t, "FAIL\t") {
				fmt.Fprintf(s.out, "      %s\n", strings.TrimRight(line, "\n"))
			}
		}
	case e.Action == "pass":
		fmt.Fprintf(s.out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case e.Action == "skip":
		fmt.Fprintf(s.out, "-     %s  no tests\n", e.Package)
	}
}

func (s *summary) failUnfinished(which func(testID) bool) {
	for _, t := range s.order {
		if _, still := s.running[t]; !still || !which(t) {
			continue
		}
		text := "did not come to an end"
		if _, waits := s.paused[t]; waits {
			text = "was not run: others had not ended"
		}
		out := s.output[t]
		delete(s.output, t)
		delete(s.running, t)
		delete(s.paused, t)
		s.fail(t, text, out)
	}
}

// finish writes the lists and the last line, and reports whether all is well.
func (s *summary) finish(notRun []string) bool {
	s.failUnfinished(func(testID) bool { return true })
	for pkg := range s.open {
		s.fail(testID{pkg: pkg}, "go test ended before the package did", s.output[testID{pkg: pkg}])
	}

	if len(s.failures) > 0 {
		fmt.Fprintln(s.out, "\nFailed:")
		for _, f := range s.failures {
			fmt.Fprintf(s.out, "  %s (%s)\n", f.testID, f.text)
		}
	}
	if len(s.skips)+len(notRun) > 0 {
		fmt.Fprintln(s.out, "\nNot run:")
		for _, k := range s.skips {
			fmt.Fprintf(s.out, "  %s: %s\n", k.testID, k.text)
		}
		for _, n := range notRun {
			fmt.Fprintf(s.out, "  %s\n", n)
		}
	}
	none := s.passed+s.failed == 0
	if none {
		fmt.Fprintln(s.out, "\nNo test ran: nothing has been checked.")
	}
	fmt.Fprintf(s.out, "\n%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skips))
	return s.failed == 0 && !none && !s.broken
}

// String is the package's path from the module's root, and the test.
func (t testID) String() string {
	pkg := strings.TrimPrefix(t.pkg, "github.com/log-capturer/log_capturer/")
	if t.test == "" {
		return pkg
	}
	return pkg + " " + t.test
}

// isFrame tells the lines that the testing package writes around a test from
// those of the test.
func isFrame(line string) bool {
	for _, p := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME ", "--- FAIL: ", "--- SKIP: ", "--- PASS: "} {
		if strings.HasPrefix(strings.TrimLeft(line, " "), p) {
			return true
		}
	}
	return false
}

// logPrefix is what t.Log and t.Skip put before a text.
var logPrefix = regexp.MustCompile(`^\s+\S+\.go:\d+: `)

// skipReason is the text given to t.Skip, on one line. t.Log before it cannot
// be told from it and is kept.
func skipReason(out []string) string {
	var words []string
	for _, line := range out {
		if isFrame(line) {
			continue
		}
		if t := strings.TrimSpace(logPrefix.ReplaceAllString(line, "")); t != "" {
			words = append(words, t)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
