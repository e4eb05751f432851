package app

import (
	"slices"
	"testing"
	"time"
)

func TestProcessors(t *testing.T) {
	var set []int
	used := time.Duration(0)
	p := newProcessors(64, func(n int) { set = append(set, n) }, func() time.Duration { return used })
	now := time.Now()
	p.adapt(now) // nothing to compare with
	for _, cores := range []float64{0.9, 0.3, 0.2, 0.01, 0.4, 0.6, 1.9, 0.4, 0.24} {
		now = now.Add(samplePeriod)
		used += time.Duration(cores * float64(samplePeriod))
		p.adapt(now)
	}
	if want := []int{2, 1, 2, 1}; !slices.Equal(set, want) {
		t.Errorf("set %v, want %v", set, want)
	}
	used += time.Hour
	p.adapt(now) // no time has gone by
	if len(set) != 4 {
		t.Errorf("set %v", set)
	}

	set = nil
	one := newProcessors(1, func(n int) { set = append(set, n) }, func() time.Duration { return used })
	one.adapt(now)
	used += samplePeriod
	one.adapt(now.Add(samplePeriod))
	if !slices.Equal(set, []int{1}) {
		t.Errorf("with one core: set %v", set)
	}
	(*Processors)(nil).adapt(now)
}

func TestCPUTime(t *testing.T) {
	before := cpuTime()
	for began := time.Now(); cpuTime() == before; {
		if time.Since(began) > time.Minute {
			t.Fatal("no CPU time is counted")
		}
	}
}
