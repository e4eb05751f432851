package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
	"go.uber.org/goleak"
)

// suite is the testing.TB of what all tests share: it lives until the last of
// them has ended. What fails outside of a test ends the run.
type suite struct {
	testing.TB // for its unexported method; never set

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func (s *suite) Helper()                      {}
func (s *suite) Log(args ...any)              { fmt.Fprintln(os.Stderr, args...) }
func (s *suite) Cleanup(f func())             { s.cleanups = append(s.cleanups, f) }
func (s *suite) Failed() bool                 { return s.failed }
func (s *suite) Error(args ...any)            { s.failed = true; s.Log(args...) }
func (s *suite) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (s *suite) Skipf(f string, args ...any)  { s.Fatalf(f, args...) } // the test has asked before
func (s *suite) Logf(f string, args ...any)   { s.Log(fmt.Sprintf(f, args...)) }
func (s *suite) Errorf(f string, args ...any) { s.Error(fmt.Sprintf(f, args...)) }
func (s *suite) Fatalf(f string, args ...any) { s.Fatal(fmt.Sprintf(f, args...)) }

// shared are the suite and its engine, made by the first test that wants it.
var shared struct {
	suite
	engine *harness.Dockerd
}

// sharedEngine gives the engine of all tests that do not stop it.
func sharedEngine(t *testing.T) *harness.Dockerd {
	t.Helper()
	harness.NeedDocker(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.engine == nil {
		shared.engine = harness.StartDockerd(&shared.suite)
	}
	return shared.engine
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	shared.failed = shared.failed || code != 0
	for _, f := range slices.Backward(shared.cleanups) {
		f()
	}
	if shared.failed {
		code = 1
	}
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
