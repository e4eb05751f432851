package simulation

import (
	"context"
	"errors"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// mode is how the store answers.
type mode int

const (
	modeOK     mode = iota
	modeSlow        // accepts after a while
	modeLong        // accepts after longer than the spool waits
	modeHang        // until the time-out or the end
	modeDown        // 500: nothing is stored
	modeUnsure      // everything is stored, then the connection breaks
	modeSome        // a part is stored and said so, then it fails
	modeLater       // 429 for all, with Retry-After
	modeConfig      // 401: a matter of configuration
	modeMixed       // each answer another one
	numModes
)

func (m mode) String() string {
	return [...]string{"ok", "slow", "long", "hang", "down", "unsure", "some", "later", "config", "mixed"}[m]
}

var errStore = errors.New("the store does not take it")

// sink is the store as one run of the agent sees it: dispatch.Sink. What it does
// depends on the scheduler's mode and on what it is given, not on when it is asked.
type sink struct {
	s *sim
	a *agent
}

// Push is dispatch.Sink.
func (k sink) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	s := k.s
	s.mu.Lock()
	do := s.mode
	r := s.draw(b)
	s.mu.Unlock()
	if do == modeMixed {
		do = mode(r() % uint64(modeMixed))
	}
	pause := time.Duration(r()%5)*time.Millisecond + 300*time.Microsecond // nothing else happens at that moment
	switch do {
	case modeSlow:
		pause += time.Duration(100+r()%500) * time.Millisecond
	case modeLong:
		pause += time.Duration(1000+r()%4000) * time.Millisecond
	case modeHang:
		pause += 10 * time.Second
	}
	timer := time.NewTimer(pause)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	down := entry.Outcome{Err: errStore}
	if k.a.dead() || s.over {
		return down
	}
	if ctx.Err() != nil {
		// The request was cut: who knows how far it had come.
		if do <= modeLong && r()%2 == 0 {
			k.take(b, true, len(b.Sections))
		}
		return down
	}
	switch do {
	case modeHang, modeDown:
		return down
	case modeUnsure:
		k.take(b, true, len(b.Sections))
		return down
	case modeLater:
		down.RetryAfter = 3 * time.Second
		return down
	case modeConfig:
		down.Config = true
		return down
	case modeSome:
		n := int(r() % uint64(len(b.Sections)+1))
		k.take(b, false, n)
		s.mu.Unlock()
		progress(ctx)
		s.mu.Lock()
		if b.Pending() {
			return down
		}
		return entry.Outcome{}
	}
	if k.take(b, false, len(b.Sections)) {
		return entry.Outcome{Err: errStore}
	}
	return entry.Outcome{}
}

// draw gives numbers that depend on the seed and on the lines that a batch begins
// with: what is asked at the same moment does not change them.
func (s *sim) draw(b *entry.Batch) func() uint64 {
	h := s.seed*0x9e3779b97f4a7c15 + 1
	for i := range b.Sections {
		sec := &b.Sections[i]
		for c, st := range sec.State {
			if st == entry.PartPending {
				for _, l := range b.SectionLines(sec) {
					if int(l.Class) == c {
						h += mix(uint64(l.Time) ^ uint64(l.Len)<<32) // in any order of the logs
						break
					}
				}
			}
		}
	}
	s.asked[h]++
	h = mix(h + uint64(s.asked[h]))
	return func() uint64 {
		h = mix(h)
		return h >> 8
	}
}

// mix is the finisher of splitmix64.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// take stores what is pending in the first sections of a batch, except what is
// held back and the poison. unsure: nobody is told. It reports whether anything is
// held. mu is held.
func (k sink) take(b *entry.Batch, unsure bool, sections int) (held bool) {
	stopped := map[string]bool{}
	for i := range b.Sections[:sections] {
		sec := &b.Sections[i]
		for c, st := range sec.State {
			if st != entry.PartPending {
				continue
			}
			labels := sec.Source.Labels[c].String()
			if k.s.heldStreams[labels] || stopped[labels] {
				held, stopped[labels] = true, true
				if !unsure {
					sec.State[c] = entry.PartHeld
				}
				continue
			}
			k.takePart(b, i, entry.Class(c), unsure)
			if !unsure {
				sec.State[c] = entry.PartAccepted
			}
		}
	}
	return held
}

func (k sink) takePart(b *entry.Batch, section int, class entry.Class, unsure bool) {
	sec := &b.Sections[section]
	lines := b.SectionLines(sec)
	for j := range lines {
		l := &lines[j]
		if l.Class != class || l.Flags&entry.FlagRefused != 0 {
			continue
		}
		d := delivery{
			src: sec.Source, class: class, flags: l.Flags, time: l.Time, text: string(b.Message(l)),
			file: sec.Place(l), at: l.At, run: k.a.run, unsure: unsure,
		}
		if o := k.s.outputOf(&d); o != nil {
			if n, ok := o.number(d.text); ok && o.lines[n].poison {
				k.s.checkPlace(o, o.lines[n], 0, &d)
				if !unsure {
					l.Flags |= entry.FlagRefused
					b.Refusals = append(b.Refusals, entry.Refusal{Section: section, Line: sec.First + j, Reason: "line is poison"})
				}
				continue
			}
		}
		k.s.deliver(&d)
	}
}
