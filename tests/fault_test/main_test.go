package main

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/tests/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// TestFaults is a short version of some scenarios; `make fault-test` runs all of
// them for longer.
func TestFaults(t *testing.T) {
	harness.NeedDocker(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := scale{kills: 5, faults: 3, hold: 2 * time.Second, pause: 500 * time.Millisecond, rounds: 1}
	all, err := choose(scenarios(), "kill,store,freeze")
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range all {
		t.Run(sc.name, func(t *testing.T) {
			f, good := sc.run(t.Context(), t, seed, s).settle()
			t.Log(&f)
			if !good || f.written < 1000 {
				t.Errorf("%s", &f)
			}
		})
	}
}
