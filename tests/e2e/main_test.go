package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
	"go.uber.org/goleak"
)

// suite is the testing.TB of what tests share: it lives until the last of them has
// ended. What fails outside of a test ends the run.
type suite struct {
	testing.TB // for its unexported method; never set

	failed   atomic.Bool
	cleanups []func()
}

func (s *suite) Helper()                      {}
func (s *suite) Log(args ...any)              { fmt.Fprintln(os.Stderr, args...) }
func (s *suite) Cleanup(f func())             { s.cleanups = append(s.cleanups, f) } // called with shared.mu
func (s *suite) Failed() bool                 { return s.failed.Load() }
func (s *suite) Error(args ...any)            { s.failed.Store(true); s.Log(args...) }
func (s *suite) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (s *suite) Skipf(f string, args ...any)  { s.Fatalf(f, args...) } // the test has asked before
func (s *suite) Logf(f string, args ...any)   { s.Log(fmt.Sprintf(f, args...)) }
func (s *suite) Errorf(f string, args ...any) { s.Error(fmt.Sprintf(f, args...)) }
func (s *suite) Fatalf(f string, args ...any) { s.Fatal(fmt.Sprintf(f, args...)) }

// shared are the suite and its engines: as many as tests have run at a time.
var shared struct {
	suite
	mu   sync.Mutex
	idle []*harness.Dockerd // the one used last is the last
}

// sharedEngine gives an engine that is the test's alone until it ends; then another
// test gets it, if this one leaves it as it was. A test that stops or kills it starts
// its own.
func sharedEngine(t *testing.T) *harness.Dockerd {
	t.Helper()
	harness.NeedDocker(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var d *harness.Dockerd
	if n := len(shared.idle); n > 0 {
		d, shared.idle = shared.idle[n-1], shared.idle[:n-1]
	} else {
		d = harness.StartDockerd(&shared.suite)
	}
	t.Cleanup(func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.idle = append(shared.idle, d)
	})
	return d
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if code != 0 {
		shared.failed.Store(true)
	}
	for _, f := range slices.Backward(shared.cleanups) {
		f()
	}
	if shared.Failed() {
		code = 1
	}
	if code == 0 && wholeSuite() {
		if err := everyMetricMoved(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
