package simulation

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed alone and print its trace")
	simFrom  = flag.Uint64("sim.from", 1, "the first seed")
	simOut   = flag.String("sim.out", "", "a directory for the traces of seeds that fail")
	simTwice = flag.Bool("sim.twice", false, "run each seed twice and compare")
	simSeeds = flag.Int("sim.seeds", 300, "how many seeds")
)

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400) // each seed leaves some megabytes of short-lived buffers
	goleak.VerifyTestMain(m)
}

// runSeed runs one seed.
func runSeed(t *testing.T, root string, seed uint64, v variant, keep bool) (res result) {
	dir := filepath.Join(root, fmt.Sprint(seed))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(*testing.T) { res = simulate(seed, v, keep, dir) })
	return res
}

// tempRoot is a directory on a disk in memory, if there is one.
func tempRoot(t *testing.T) string {
	t.Helper()
	base := "/dev/shm"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	root, err := os.MkdirTemp(base, "sim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	return root
}

// TestSimulation runs many seeds.
func TestSimulation(t *testing.T) {
	root := tempRoot(t)
	if *simSeed != 0 {
		res := runSeed(t, root, *simSeed, variant{}, true)
		t.Logf("seed %d: hash %x, %s\n%s", *simSeed, res.hash, res, strings.Join(res.trace, "\n"))
		if res.failure != "" {
			t.Fatalf("seed %d: %s", *simSeed, res.failure)
		}
		return
	}
	var next, failures, differ atomic.Int64
	var sum [7]atomic.Int64
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for {
					i := next.Add(1) - 1
					if i >= int64(*simSeeds) || failures.Load() > 20 {
						return
					}
					seed := *simFrom + uint64(i)
					res := runSeed(t, root, seed, variant{}, *simTwice || *simOut != "")
					if *simTwice {
						if again := runSeed(t, root, seed, variant{}, true); again.hash != res.hash {
							differ.Add(1)
							if n := differ.Load(); n < 4 {
								for i := range min(len(res.trace), len(again.trace)) {
									if res.trace[i] != again.trace[i] {
										t.Logf("seed %d differs at %d:\n%s\n---\n%s", seed, i, strings.Join(res.trace[max(0, i-6):min(len(res.trace), i+4)], "\n"), strings.Join(again.trace[max(0, i-6):min(len(again.trace), i+4)], "\n"))
										break
									}
								}
							}
						}
					}
					if res.failure != "" {
						failures.Add(1)
						if *simOut != "" {
							if err := os.WriteFile(filepath.Join(*simOut, fmt.Sprintf("seed-%d.txt", seed)), []byte(strings.Join(res.trace, "\n")+"\n"), 0o600); err != nil {
								t.Error(err)
							}
						}
						t.Errorf("seed %d: %s (replay: go test ./internal/simulation -run TestSimulation -v -sim.seed=%d)", seed, res.failure, seed)
					}
					for k, n := range []int{res.written, res.delivered, res.doubled, res.excused, res.missing, res.starts, res.silent} {
						sum[k].Add(int64(n))
					}
				}
			})
		}
	})
	if *simTwice {
		t.Logf("%d seeds differ", differ.Load())
	}
	t.Logf("%d seeds in %v: %d lines written, %d deliveries, %d of them doubled, %d lines could not be had, %d were lost (%d of them, with notifications missing, not reported), %d starts",
		next.Load(), time.Since(began).Round(time.Millisecond), sum[0].Load(), sum[1].Load(), sum[2].Load(), sum[3].Load(), sum[4].Load(), sum[6].Load(), sum[5].Load())
}

func (r result) String() string {
	return fmt.Sprintf("%d lines written, %d delivered, %d doubled, %d excused, %d missing, %d starts", r.written, r.delivered, r.doubled, r.excused, r.missing, r.starts)
}
