package dispatch

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// After each attempt, in this order: bury, divert, settle. The lines refused for
// good must be durable, and refer to the batch as the sink saw it, before their
// sections are touched; a span must know of all places its lines are in before
// it can be called done. While an attempt goes on: bury and settle (see arrived).
//
// Part states afterwards: PartPending is still to be sent from here, PartEmpty
// has nothing to be sent from here (it was counted, or moved).

// bury gives the lines that the sink refused to the dead letters, for as long as
// it takes. It reports false when ctx ended first; then nothing of this attempt
// may be settled.
func (l *lane) bury(ctx context.Context, sl *slot) bool {
	if len(sl.Refusals) == 0 {
		return true
	}
	sl.refused = true
	said := time.Now()
	for fails := 1; ; fails++ {
		err := l.d.cfg.DeadLetters.Append(&sl.Batch, sl.Refusals)
		if err == nil {
			break
		}
		now := time.Now()
		l.mu.Lock()
		if l.health.DeadLettersSince.IsZero() {
			l.health.DeadLettersSince = now
		}
		l.health.DeadLettersError = err.Error()
		l.mu.Unlock()
		if l.d.deadTrouble.begin(l.index, false, now) || now.Sub(said) >= repeatEvery {
			said = now
			l.d.cfg.Logger.Error("dead-letter file cannot be written; its lane waits until it can (is the disk full?)", "error", err)
		}
		if wait(ctx, pause(fails, false, 0, l.d.random()), nil); ctx.Err() != nil {
			return false
		}
	}
	for i := range sl.Refusals {
		src := sl.Sections[sl.Refusals[i].Section].Source
		src.Stats.DeadLettered.Add(1)
		l.d.metrics.of(src.Method).deadLettered.Inc()
	}
	clear(sl.Refusals)
	sl.Refusals = sl.Refusals[:0]
	if say, lasted := l.d.deadTrouble.end(l.index, time.Now()); say {
		l.d.cfg.Logger.Info("dead-letter file can be written again", "after", lasted)
	}
	l.mu.Lock()
	l.health.DeadLettersSince, l.health.DeadLettersError = time.Time{}, ""
	l.mu.Unlock()
	return true
}

// settle counts the parts that have been accepted, acknowledges the spans that
// are done, and lets sources go of which nothing is parked any more. It notes in
// progress that a part was accepted.
func (l *lane) settle(sl *slot, now time.Time) {
	b := &sl.Batch
	var freed []*entry.Source
	for i := range b.Sections {
		s := &b.Sections[i]
		var took [entry.NumClasses]bool
		total := 0
		for c, state := range s.State {
			if state != entry.PartAccepted && state != entry.PartKept {
				continue
			}
			s.State[c] = entry.PartEmpty
			if sl.parked && l.unpark(s.Source) {
				freed = append(freed, s.Source)
			}
			refused, taken := sl.done(s, entry.Class(c))
			n := int(s.Lines[c]) - refused
			if state == entry.PartKept {
				if !l.d.drains { // else it only goes aside
					l.d.metrics.of(s.Source.Method).spooled.Add(float64(n - taken))
				}
				l.delivered(s.Source, entry.Class(c), taken)
				continue
			}
			took[c] = true
			total += n
			l.progress = true
			l.delivered(s.Source, entry.Class(c), n)
		}
		if total > 0 && s.Source.Method == methodFile {
			l.latency.observe(b, s, took, total, now.UnixNano())
		}
		for st := range s.Seq {
			if s.Seq[st] == 0 || undone(s, entry.Stream(st)) {
				continue
			}
			span := entry.Span{Log: s.Source.Log, Stream: entry.Stream(st), Seq: s.Seq[st]}
			s.Seq[st] = 0
			if l.lastPlace(span) {
				l.spans = append(l.spans, span)
			}
		}
	}
	l.ack(now)
	for _, src := range freed {
		src.Held.Store(false)
		l.d.cfg.Wake(src)
	}
}

// partsIn gives the parts of a batch that are in one of the states, in order. What is
// given may be changed.
func partsIn(b *entry.Batch, states ...entry.PartState) iter.Seq2[*entry.Section, entry.Class] {
	return func(yield func(*entry.Section, entry.Class) bool) {
		for i := range b.Sections {
			s := &b.Sections[i]
			for c, state := range s.State {
				if slices.Contains(states, state) && !yield(s, entry.Class(c)) {
					return
				}
			}
		}
	}
}

// delivered counts lines that the store has accepted, and notes that there were any.
func (l *lane) delivered(src *entry.Source, class entry.Class, n int) {
	if n == 0 {
		return
	}
	l.progress = true
	m := l.d.metrics.of(src.Method)
	src.Stats.Delivered.Add(int64(n))
	m.delivered.Add(float64(n))
	if class == entry.ClassMalformed {
		m.malformed.Add(float64(n))
	}
}

// left counts the lines of a part that are still to be sent.
func (sl *slot) left(s *entry.Section, class entry.Class) int {
	refused, taken := sl.done(s, class)
	return int(s.Lines[class]) - refused - taken
}

// done counts the lines of a part that are refused for good, and those that are accepted
// though the part is not.
func (sl *slot) done(s *entry.Section, class entry.Class) (refused, taken int) {
	if !sl.refused && !sl.Taken {
		return 0, 0
	}
	return doneLines(&sl.Batch, s, class)
}

func doneLines(b *entry.Batch, s *entry.Section, class entry.Class) (refused, taken int) {
	lines := b.SectionLines(s)
	for i := range lines {
		switch {
		case lines[i].Class != class:
		case lines[i].Flags&entry.FlagRefused != 0:
			refused++
		case lines[i].Flags&entry.FlagTaken != 0:
			taken++
		}
	}
	return refused, taken
}

// undone reports whether any part of a stream in a section is still to be sent
// from there.
func undone(s *entry.Section, stream entry.Stream) bool {
	for c, state := range s.State {
		if entry.Class(c).Stream() == stream && (state == entry.PartPending || state == entry.PartHeld) {
			return true
		}
	}
	return false
}

// ack acknowledges the spans that the present attempt has brought home. A
// failure is no reason to stop: what has not been written down is only sent
// again after a restart.
func (l *lane) ack(now time.Time) {
	if len(l.spans) == 0 {
		return
	}
	err := l.d.cfg.Acks.Ack(l.spans)
	l.spans = l.spans[:0]
	if err == nil {
		if say, lasted := l.d.ackTrouble.end(l.index, now); say {
			l.d.cfg.Logger.Info("positions can be written again", "after", lasted)
		}
		return
	}
	l.d.metrics.ackErrors.Inc()
	if l.d.ackTrouble.begin(l.index, false, now) {
		l.d.cfg.Logger.Error("positions cannot be written; what is delivered meanwhile may be sent again after a restart (is the disk full?)", "error", err)
	}
}
