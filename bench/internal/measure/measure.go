// Package measure reads what a process has cost, keeps processes to cores, and
// sums up what was measured.
package measure

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU gives the CPU time that a process has used so far, that of ended threads
// included, to the nanosecond: user and system time in /proc come in ticks of 10 ms.
func CPU(pid int) (time.Duration, error) {
	var ts unix.Timespec
	// The clock of another process: CPUCLOCK_SCHED, see clock_getcpuclockid(3).
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory is what a process has in memory, in bytes.
type Memory struct{ Resident, Peak int64 }

// MemoryOf reads it.
func MemoryOf(pid int) (Memory, error) {
	s, err := readStatus(fmt.Sprintf("/proc/%d/status", pid))
	return Memory{Resident: s["VmRSS"] << 10, Peak: s["VmHWM"] << 10}, err
}

// WakeUps gives how often the threads of a process have waited for something so far;
// without those of threads that have ended.
func WakeUps(pid int) (n int64, err error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range threads {
		s, err := readStatus(fmt.Sprintf("/proc/%d/task/%s/status", pid, t.Name()))
		if err != nil {
			return 0, err
		}
		n += s["voluntary_ctxt_switches"]
	}
	return n, nil
}

// readStatus gives the numbers in a status file of /proc, memory in KiB.
func readStatus(name string) (map[string]int64, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	numbers := make(map[string]int64)
	for l := range strings.Lines(string(text)) {
		key, rest, _ := strings.Cut(l, ":")
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err == nil { // names, masks and lists are of no interest
			numbers[key] = n
		}
	}
	return numbers, nil
}

// Cores gives the numbers of the cores that this process may use.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("cores of this process: %w", err)
	}
	var cores []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

// StartOn starts a program that may use only the given cores, as taskset does.
func StartOn(cores []int, cmd *exec.Cmd) error {
	// A child inherits the cores of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("cores of this thread: %w", err)
	}
	for _, c := range cores {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("keep %s to cores %v: %w", cmd.Path, cores, err)
	}
	err := cmd.Start()
	if back := unix.SchedSetaffinity(0, &before); back != nil && err == nil {
		err = fmt.Errorf("give the thread its cores back: %w", back)
	}
	return err
}

// Latency is what is told of many durations.
type Latency struct {
	Count              int
	P50, P95, P99, Max time.Duration
}

// Summarize sums durations up; it sorts them.
func Summarize(d []time.Duration) Latency {
	if len(d) == 0 {
		return Latency{}
	}
	slices.Sort(d)
	return Latency{
		Count: len(d), P50: Quantile(d, 0.50), P95: Quantile(d, 0.95), P99: Quantile(d, 0.99), Max: d[len(d)-1],
	}
}

// Quantile gives the smallest of sorted values that at least the share q (0 to 1)
// of them does not exceed: the nearest rank. Without values it is 0.
func Quantile[T ~int64 | ~float64](sorted []T, q float64) T {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(q * float64(len(sorted)))
	if float64(rank) < q*float64(len(sorted)) {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median gives the middle one of values, of an even number the lower one.
func Median(values []float64) float64 {
	s := slices.Clone(values)
	slices.Sort(s)
	return Quantile(s, 0.5)
}
