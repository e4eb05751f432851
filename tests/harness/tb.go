package harness

// TB is what the harness needs of whoever uses it: a test, or a program that
// does as a test does. Fatal, Fatalf and Skipf do not return; they, Error and
// Errorf are for the goroutine that runs the test. Cleanups run at the end, the
// last one first.
type TB interface {
	Helper()
	Cleanup(f func())
	TempDir() string
	Failed() bool
	Log(args ...any)
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}
