package main

import (
	"cmp"
	"fmt"
	"time"
)

// workload is what an agent has to do.
type workload struct {
	Name string
	// what says it in the report.
	what       string
	containers int
	// preload is how many lines each has before the agent starts. The agent has
	// caught up when all of them have arrived.
	preload int
	// rate is lines per second in all, that come then; burst is how many each
	// writes at once instead, every burstEvery. Neither: nothing comes.
	rate       float64
	burst      int
	burstEvery time.Duration
	// warm and window are how long the agent goes on after it has caught up,
	// until it is measured, and while it is. Without a window what is measured is
	// catching up.
	warm, window time.Duration
	// quiet is after how long without a request a held sink looks at what it has.
	// It is longer than agents wait for company; one that waits longer is waited for.
	quiet time.Duration
	// cores is how many the agent has. shared: so has the sink, the same ones.
	cores  int
	shared bool
	// answer is after how long the store answers.
	answer time.Duration
	// oursOnly: other agents are left out. idle: so are those that do not wait.
	oursOnly, idle bool
}

// The two that are compared with each other.
const (
	oneCoreName  = "cores-1"
	twoCoresName = "cores-2"
)

// sizes are what flags say of the workloads; zero values take the defaults.
type sizes struct {
	short      bool
	lines      int
	containers int
	window     time.Duration
}

// workloads gives all there are.
func workloads(s sizes) []workload {
	lines, containers, window, warm, quiet := 2_000_000, 50, time.Minute, 10*time.Second, 3*time.Second
	many, startLines, burst, linear := 1000, 10, 2000, []int{10, 100, 1000, 5000}
	if s.short {
		lines, containers, window, warm, quiet = 100_000, 10, 3*time.Second, time.Second/2, time.Second/2
		many, burst, linear = 100, 200, []int{10, 100}
	}
	lines, containers, window = cmp.Or(s.lines, lines), cmp.Or(s.containers, containers), cmp.Or(s.window, window)
	backlog := func(name string, lines, logs int) workload {
		return workload{
			Name: name, what: fmt.Sprintf("%d lines in %d files", lines, logs),
			containers: logs, preload: lines / logs, cores: 1,
		}
	}
	// Where two cores are to do twice as much as one, the sink's work must not be done by a third, or
	// by the second of one: it has the same cores. There are more lines, so that the start counts for less,
	// and more files, so that the lanes of ours have about as many: of 20 one has 14, of 50 it has 27.
	scaled := func(name string, cores int) workload {
		w := backlog(name, 3*lines, 200)
		w.what += fmt.Sprintf("; agent and sink together have this many cores: %d", cores)
		w.cores, w.shared, w.oursOnly = cores, true, true
		return w
	}
	// A store on another machine, or one that has more to do.
	far := func(answer time.Duration) workload {
		w := backlog(fmt.Sprintf("far-%d", answer.Milliseconds()), lines, 50)
		w.what += fmt.Sprintf("; the store answers after %v", answer)
		w.answer = answer
		return w
	}
	all := []workload{
		backlog("backlog", lines, 20),
		backlog(fmt.Sprintf("backlog-%d", many), lines, many),
		scaled(oneCoreName, 1),
		scaled(twoCoresName, 2),
		far(10 * time.Millisecond),
		far(50 * time.Millisecond),
		{Name: "startup", what: fmt.Sprintf("%d files of %d lines, from the start to the last line", many, startLines), containers: many, preload: startLines, cores: 1},
	}
	for _, rate := range []float64{1000, 10_000, 50_000} {
		all = append(all, workload{
			Name: fmt.Sprintf("steady-%.0f", rate), what: fmt.Sprintf("%d containers, %.0f lines/s in all", containers, rate),
			containers: containers, preload: 1, rate: rate, warm: warm, window: window, cores: 1,
		})
	}
	const burstEvery = 5 * time.Second
	all = append(all,
		workload{
			Name: "burst", what: fmt.Sprintf("%d containers, %d lines of each at once, every %v", containers, burst, burstEvery),
			containers: containers, preload: 1, burst: burst, burstEvery: burstEvery, warm: warm, window: max(window, 2*burstEvery), cores: 1,
		},
		workload{
			Name: "many-small", what: fmt.Sprintf("%d containers, 10 lines/s of each", many),
			containers: many, preload: 1, rate: 10 * float64(many), warm: warm, window: window, cores: 1,
		},
		workload{
			Name: "idle", what: fmt.Sprintf("%d files without news", many),
			containers: many, preload: startLines, warm: warm, window: window, cores: 1, idle: true,
		},
	)
	for _, n := range linear {
		all = append(all, workload{
			Name: fmt.Sprintf("idle-%d", n), what: fmt.Sprintf("%d files without news", n),
			containers: n, preload: 1, warm: warm, window: window, cores: 1, idle: true, oursOnly: true,
		})
	}
	for _, n := range linear {
		all = append(all, workload{
			Name: fmt.Sprintf("spread-%d", n), what: fmt.Sprintf("1000 lines/s in all, spread over %d containers", n),
			containers: n, preload: 1, rate: 1000, warm: warm, window: window, cores: 1, oursOnly: true,
		})
	}
	for i := range all {
		all[i].quiet = quiet
	}
	return all
}

func workloadNames() (names []string) {
	for _, w := range workloads(sizes{}) {
		names = append(names, w.Name)
	}
	return names
}

// suits reports whether a workload says anything of an agent.
func (w *workload) suits(a agent) bool {
	switch {
	case w.oursOnly:
		return a.name == agentOurs
	case w.idle:
		return a.idle
	default:
		return true
	}
}
