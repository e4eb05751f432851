package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// life is what is to be said of one life of the agent's process.
type life struct {
	n          int // its number
	from, to   time.Duration
	early, end figuresOf // medians of the second tenth of its samples, and of the last
}

// figuresOf are an agent's costs.
type figuresOf struct{ memory, heap, goroutines, descriptors float64 }

// What an agent may have grown by from the second tenth of its life to the last
// one: memory by a part or by some bytes, whichever is more. The others depend on
// how many containers happen to come and go, and on connections.
const (
	memoryPart   = 0.20
	memoryBytes  = 16 << 20
	goroutinesBy = 10
	descriptorBy = 25
)

func (l *life) flat() bool {
	return l.end.memory <= max(l.early.memory*(1+memoryPart), l.early.memory+memoryBytes) &&
		l.end.goroutines <= l.early.goroutines+goroutinesBy &&
		l.end.descriptors <= l.early.descriptors+descriptorBy
}

func (l *life) word() string {
	if l.flat() {
		return "flat"
	}
	return "GROWN"
}

func (l *life) String() string {
	return fmt.Sprintf("life %d, %v to %v: memory %.1f to %.1f MiB (heap %.1f to %.1f), goroutines %.0f to %.0f, descriptors %.0f to %.0f: %s",
		l.n, l.from.Round(time.Second), l.to.Round(time.Second), l.early.memory/(1<<20), l.end.memory/(1<<20), l.early.heap/(1<<20), l.end.heap/(1<<20),
		l.early.goroutines, l.end.goroutines, l.early.descriptors, l.end.descriptors, l.word())
}

// judgedFrom is how long a life must be to be judged: as a part of the soak.
const judgedFrom = 0.15

// judge gives the lives that are long enough to be judged.
func judge(samples []sample, whole time.Duration) (lives []life) {
	byLife := make(map[int][]sample)
	for _, x := range samples {
		byLife[x.life] = append(byLife[x.life], x)
	}
	for _, n := range slices.Sorted(maps.Keys(byLife)) {
		all := byLife[n]
		from, to := all[0].at, all[len(all)-1].at
		if tenth := len(all) / 10; tenth > 0 && float64(to-from) >= judgedFrom*float64(whole) {
			lives = append(lives, life{n: n, from: from, to: to, early: medians(all[tenth : 2*tenth]), end: medians(all[len(all)-tenth:])})
		}
	}
	return lives
}

func medians(all []sample) figuresOf {
	of := func(get func(sample) float64) float64 {
		var v []float64
		for _, x := range all {
			v = append(v, get(x))
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	return figuresOf{
		memory:      of(func(x sample) float64 { return x.memory }),
		heap:        of(func(x sample) float64 { return x.heap }),
		goroutines:  of(func(x sample) float64 { return x.goroutines }),
		descriptors: of(func(x sample) float64 { return x.descriptors }),
	}
}

// report gives the soak's report, in Markdown.
func (s *soaking) report(r *result, lives []life, before, after sample) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Soak: %d containers for %v, with faults", s.o.containers, s.o.duration)
	p("")
	p("Made by `make soak` (`tests/fault_test`). The agent, the Docker engine, its containers and")
	p("the store were the program's own. Every line is numbered; the store tells which it has accepted.")
	p("")
	p("- Date: %s", s.began.UTC().Format(time.RFC3339))
	p("- Machine: %s", machine())
	p("- Agent: %s", s.version())
	p("- Parameters: `-seed %d -duration %v -containers %d -rate %d`", s.o.seed, s.o.duration, s.o.containers, s.o.rate)
	p("- Containers that have come and gone: %d", s.ended)
	p("- Faults: %d, one after the other; see below", len(s.events))
	p("")
	p("```\n%s\n```", r)
	p("")
	p("## Every five minutes")
	p("")
	p("Lines accepted are with those that came twice; the others are the highest of the samples,")
	p("taken every %v.", sampleEvery)
	p("")
	p("| minutes | lines accepted | per second | faults | memory, MiB | goroutines | descriptors | spool, MiB | lines in the spool |")
	p("|---|---|---|---|---|---|---|---|---|")
	arrived := 0
	for from := time.Duration(0); from < s.o.duration; from += bucketOf {
		to := min(from+bucketOf, s.o.duration)
		var top sample
		for _, x := range s.samples {
			if x.at >= from && x.at < to {
				top.memory, top.goroutines, top.descriptors = max(top.memory, x.memory), max(top.goroutines, x.goroutines), max(top.descriptors, x.descriptors)
				top.spoolBytes, top.spoolLines = max(top.spoolBytes, x.spoolBytes), max(top.spoolLines, x.spoolLines)
				top.arrived = x.arrived
			}
		}
		faults := 0
		for _, e := range s.events {
			if e.at >= from && e.at < to {
				faults++
			}
		}
		lines := max(0, top.arrived-arrived)
		arrived = max(arrived, top.arrived)
		p("| %.0f-%.0f | %d | %.0f | %d | %.1f | %.0f | %.0f | %.1f | %.0f |", from.Minutes(), to.Minutes(), lines, float64(lines)/(to-from).Seconds(),
			faults, top.memory/(1<<20), top.goroutines, top.descriptors, top.spoolBytes/(1<<20), top.spoolLines)
	}
	p("")
	p("## Does it grow?")
	p("")
	p("Medians of the second tenth of a life of the agent's process, and of its last tenth, for each life of at")
	p("least %.0f %% of the soak. Flat: memory has not grown by more than %.0f %% or %d MiB, whichever is more,",
		judgedFrom*100, memoryPart*100, memoryBytes>>20)
	p("goroutines by no more than %d, descriptors by no more than %d. In the second half of the soak the agent", goroutinesBy, descriptorBy)
	p("is not stopped, so that one life is long. Memory is resident, with the pages of the program's own")
	p("file; the heap is the size at which it is collected, about twice what is in use, and is not judged.")
	p("")
	p("| life | minutes | memory, MiB | heap, MiB | goroutines | descriptors | |")
	p("|---|---|---|---|---|---|---|")
	for _, l := range lives {
		p("| %d | %.1f-%.1f | %.1f, %.1f | %.1f, %.1f | %.0f, %.0f | %.0f, %.0f | %s |", l.n, l.from.Minutes(), l.to.Minutes(),
			l.early.memory/(1<<20), l.end.memory/(1<<20), l.early.heap/(1<<20), l.end.heap/(1<<20), l.early.goroutines, l.end.goroutines, l.early.descriptors, l.end.descriptors, l.word())
	}
	p("")
	p("Without containers, before the first and after the last: goroutines %.0f and %.0f (at most %d more, for", before.goroutines, after.goroutines, settledGoroutines)
	p("connections that are kept), descriptors %.0f and %.0f (at most %d more), memory %.1f and %.1f MiB (not judged).",
		before.descriptors, after.descriptors, settledDescriptors, before.memory/(1<<20), after.memory/(1<<20))
	p("")
	p("## Faults")
	p("")
	p("| fault | times |")
	p("|---|---|")
	for _, name := range slices.Sorted(maps.Keys(s.faults)) {
		p("| %s | %d |", name, s.faults[name])
	}
	return b.String()
}

// machine says what this ran on.
func machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	memory := "?"
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kb); err == nil {
			memory = fmt.Sprintf("%.1f GiB", float64(kb)/(1<<20))
		}
	}
	return fmt.Sprintf("%d cores, %s of memory, Linux %s, %s", runtime.NumCPU(), memory, bytes.TrimSpace(kernel),
		firstLine(cmp.Or(os.Getenv("LOG_CAPTURER_DOCKERD"), "dockerd"), "--version"))
}

// version is what the agent says it is.
func (s *soaking) version() string {
	if s.w == nil || s.w.a == nil {
		return "?"
	}
	return firstLine(s.w.a.Bin, "version")
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output() //nolint:gosec // of whoever runs this
	if err != nil {
		return name + ": " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
