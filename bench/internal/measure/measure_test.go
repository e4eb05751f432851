package measure

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 0.99, 7},
		{[]float64{1, 2}, 0.5, 1},
		{[]float64{1, 2, 3}, 0.5, 2},
		{[]float64{1, 2}, 0, 1},
		{[]float64{1, 2}, 1, 2},
		{hundred, 0.5, 50},
		{hundred, 0.95, 95},
		{hundred, 0.99, 99},
		{hundred, 0.991, 100},
		{hundred, 1, 100},
	} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %v of %d values is %v, not %v", c.q, len(c.values), got, c.want)
		}
	}
}

func TestSummarizeAndMedian(t *testing.T) {
	got := Summarize([]time.Duration{4, 1, 3, 2})
	if want := (Latency{Count: 4, P50: 2, P95: 4, P99: 4, Max: 4}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if (Summarize(nil) != Latency{}) {
		t.Error("nothing measured, and a latency")
	}
	values := []float64{9, 1, 5}
	if Median(values) != 5 || values[0] != 9 {
		t.Error("no median, or the values were moved")
	}
}

func TestCPUGrowsWithWork(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("CPU time went from %v to %v", before, after)
	}
	if m, err := MemoryOf(os.Getpid()); err != nil || m.Resident < 1<<20 || m.Peak < m.Resident/2 {
		t.Errorf("%+v, %v", m, err)
	}
	woken, err := WakeUps(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(5 * time.Millisecond)
	if again, err := WakeUps(os.Getpid()); err != nil || again <= woken {
		t.Errorf("wake-ups went from %d to %d, %v", woken, again, err)
	}
	if _, err := CPU(1 << 22); err == nil {
		t.Error("CPU time of a process that is not there")
	}
}

func TestStartOnKeepsToCores(t *testing.T) {
	all, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat", "/proc/self/status")
	var out strings.Builder
	cmd.Stdout = &out
	last := all[len(all)-1]
	if err := StartOn([]int{last}, cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(out.String(), "Cpus_allowed_list:")
	list, _, _ := strings.Cut(rest, "\n")
	after, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(strings.TrimSpace(list), ",-") || !slices.Equal(all, after) {
		t.Errorf("the program had cores %q; this process has %v, before %v", list, after, all)
	}
}
