package app

import (
	"runtime"
	"syscall"
	"time"
)

const (
	// maxProcessors is how many processors are of use: there are two lanes.
	maxProcessors = 2
	// Of one core, what is used on average over a samplePeriod before there are
	// more processors, and below which there is one again.
	manyAbove, oneBelow = 0.5, 0.25
)

// Processors lets the agent run on one processor while that suffices. Little work
// costs a fifth more on two, since each wakes the other for it, and more the more there
// are (docs/reports/performance.md). One takes some 300 MB of Docker's files a second.
//
// It sets what counts for the whole process: there is one, of main. A nil one does
// nothing. It is used by one goroutine at a time.
type Processors struct {
	most int
	set  func(n int)
	cpu  func() time.Duration

	n    int
	at   time.Time     // of the last look
	used time.Duration // until then
}

// NewProcessors begins with all that are of use: much may be waiting at the start.
func NewProcessors() *Processors {
	return newProcessors(runtime.GOMAXPROCS(0), func(n int) { runtime.GOMAXPROCS(n) }, cpuTime)
}

func newProcessors(available int, set func(n int), cpu func() time.Duration) *Processors {
	most := min(available, maxProcessors)
	set(most)
	return &Processors{most: most, set: set, cpu: cpu, n: most}
}

// adapt takes account of what was used since the last time.
func (p *Processors) adapt(now time.Time) {
	if p == nil {
		return
	}
	used := p.cpu()
	if !p.at.IsZero() && now.After(p.at) {
		cores := (used - p.used).Seconds() / now.Sub(p.at).Seconds()
		if n := processors(p.n, p.most, cores); n != p.n {
			p.n = n
			p.set(n)
		}
	}
	p.at, p.used = now, used
}

// processors gives how many there are to be, of at most so many, when there are n and so
// many cores were used.
func processors(n, most int, cores float64) int {
	switch {
	case cores > manyAbove:
		return most
	case cores < oneBelow:
		return 1
	}
	return n
}

// cpuTime is the CPU time that this process has taken.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot fail for this process (getrusage(2))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
