package main

import (
	"strings"
	"testing"
	"time"
)

// course makes samples of a life, each with figures by how far the life has come.
func course(n int, from, to time.Duration, of func(part float64) figuresOf) (all []sample) {
	for at := from; at < to; at += sampleEvery {
		f := of(float64(at-from) / float64(to-from))
		all = append(all, sample{at: at, life: n, memory: f.memory, goroutines: f.goroutines, descriptors: f.descriptors})
	}
	return all
}

func TestJudge(t *testing.T) {
	const mb = 1 << 20
	steady := figuresOf{memory: 30 * mb, goroutines: 30, descriptors: 150}
	for _, c := range []struct {
		what string
		of   func(part float64) figuresOf
		flat bool
	}{
		{"steady", func(float64) figuresOf { return steady }, true},
		{"grows at first only", func(p float64) figuresOf {
			f := steady
			f.memory *= min(1, p*20)
			return f
		}, true},
		{"a short peak at the end", func(p float64) figuresOf {
			f := steady
			if p > 0.97 {
				f.memory *= 3
			}
			return f
		}, true},
		{"memory leaks", func(p float64) figuresOf { f := steady; f.memory += p * 30 * mb; return f }, false},
		{"goroutines leak", func(p float64) figuresOf { f := steady; f.goroutines += p * 20; return f }, false},
		{"descriptors leak", func(p float64) figuresOf { f := steady; f.descriptors += p * 50; return f }, false},
	} {
		lives := judge(course(1, 0, time.Hour, c.of), time.Hour)
		if len(lives) != 1 || lives[0].flat() != c.flat {
			t.Errorf("%s: %v", c.what, lives)
		}
	}

	leaks := func(p float64) figuresOf { f := steady; f.goroutines += p * 50; return f }
	all := course(1, 0, 5*time.Minute, leaks) // too short to be judged
	all = append(all, course(2, 5*time.Minute, 30*time.Minute, func(float64) figuresOf { return steady })...)
	all = append(all, course(3, 30*time.Minute, time.Hour, leaks)...)
	lives := judge(all, time.Hour)
	if len(lives) != 2 || lives[0].n != 2 || !lives[0].flat() || lives[1].n != 3 || lives[1].flat() {
		t.Errorf("%v", lives)
	}
	if judge(nil, time.Hour) != nil {
		t.Error("a life without a sample")
	}
}

func TestReport(t *testing.T) {
	s := &soaking{
		o: options{seed: 7, duration: 10 * time.Minute, containers: 3, rate: 30}, faults: map[string]int{"store: 500": 2},
		events: []event{{time.Minute, "store: 500"}, {7 * time.Minute, "store: 500"}},
	}
	s.samples = course(1, 0, 10*time.Minute, func(p float64) figuresOf { return figuresOf{memory: 30 << 20, goroutines: 40, descriptors: 50} })
	for i := range s.samples {
		s.samples[i].arrived = 300 * (i + 1)
	}
	r := &result{name: "soak", f: figures{written: 18000, delivered: 18000}, ok: true}
	text := s.report(r, judge(s.samples, s.o.duration), sample{life: 1}, sample{life: 1})
	for _, want := range []string{
		"`-seed 7 -duration 10m0s -containers 3 -rate 30`", "soak: written 18000, delivered 18000,",
		"| 0-5 | 9000 | 30 | 1 | 30.0 | 40 | 50 |", "| 5-10 | 9000 | 30 | 1 |", "| 30.0, 30.0 | 0.0, 0.0 | 40, 40 | 50, 50 | flat |", "| store: 500 | 2 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not have %q:\n%s", want, text)
		}
	}
}

func TestSettled(t *testing.T) {
	before := sample{life: 1, goroutines: 20, descriptors: 12}
	for _, c := range []struct {
		after sample
		want  bool
	}{
		{sample{}, false}, // no sample could be taken
		{sample{life: 3, goroutines: 21, descriptors: 12}, true},
		{sample{life: 3, goroutines: 40, descriptors: 12}, false},
		{sample{life: 3, goroutines: 20, descriptors: 40}, false},
	} {
		if got := settled(before, c.after); got != c.want {
			t.Errorf("%+v: %v", c.after, got)
		}
	}
}
