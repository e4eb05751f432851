package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// bench is what the harness needs of a test, for one scenario. Its methods may be
// called from any goroutine, but for those that do not return.
type bench struct {
	w io.Writer

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// fatal is what ends a scenario.
type fatal string

// run calls f, and then the cleanups. It reports whether nothing has failed.
func (b *bench) run(f func()) (ok bool) {
	b.guard(f)
	for len(b.cleanups) > 0 {
		all := b.cleanups
		b.cleanups = nil
		for _, c := range slices.Backward(all) {
			b.guard(c)
		}
	}
	return !b.Failed()
}

func (b *bench) guard(f func()) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fatal:
			b.Error(string(r))
		default:
			panic(r)
		}
	}()
	f()
}

// Helper implements harness.TB, as the others do.
func (b *bench) Helper() {}

// Cleanup is for the goroutine of the scenario.
func (b *bench) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

// TempDir gives a directory that is removed at the end.
func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "lcf")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Failed reports whether there was an error.
func (b *bench) Failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// Log prints.
func (b *bench) Log(args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprint(b.w, "  ", fmt.Sprintln(args...))
}

// Error is Log of a failure.
func (b *bench) Error(args ...any) {
	b.mu.Lock()
	b.failed = true
	b.mu.Unlock()
	b.Log(append([]any{"FAILURE:"}, args...)...)
}

// Fatal ends the scenario.
func (b *bench) Fatal(args ...any) { panic(fatal(fmt.Sprint(args...))) }

// Logf is Log with a format.
func (b *bench) Logf(f string, args ...any) { b.Log(fmt.Sprintf(f, args...)) }

// Errorf is Error with a format.
func (b *bench) Errorf(f string, args ...any) { b.Error(fmt.Sprintf(f, args...)) }

// Fatalf is Fatal with a format.
func (b *bench) Fatalf(f string, args ...any) { b.Fatal(fmt.Sprintf(f, args...)) }

// Skipf ends the scenario as a failure: what is missing here cannot be proven.
func (b *bench) Skipf(f string, args ...any) { b.Fatalf(f, args...) }
