package deadletter

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/log-capturer/log_capturer/internal/disk"
	"github.com/log-capturer/log_capturer/internal/entry"
)

const (
	// replayTries is how often in a row a store may fail to take anything before
	// a replay gives up.
	replayTries = 5
	// The pauses between tries double from the first to the last.
	firstPause, lastPause = 500 * time.Millisecond, 10 * time.Second
)

// Sink is a store. Push makes one attempt at what is pending in the batch; its
// result is in the batch and the outcome.
type Sink interface {
	Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome
}

// ReplayOptions say what is sent, and how. Sink may be nil for a dry run.
type ReplayOptions struct {
	Sink   Sink
	Filter Filter
	// Copies sends copies of malformed lines as well, which were shipped when
	// they were read: for a store that has lost them.
	Copies bool
	// DryRun sends and remembers nothing.
	DryRun bool
	// BatchBytes bounds a batch of several records, about.
	BatchBytes int
	// MaxLineBytes is where a malformed line is cut, as the agent does it.
	MaxLineBytes int
	// Labels are for records without any, of an older version: what is known of
	// the host. The container's name and the stream are added.
	Labels map[string]string
}

// Replayed is what a replay came to, in records.
type Replayed struct {
	// Sent: accepted by the store, and remembered; in a dry run, those that
	// would have been sent.
	Sent int
	// Before: left out, for an earlier replay has sent them. Copies: left out.
	Before, Copies int
	// Bare: of those sent, without labels of their own.
	Bare int
	// Bad: lines of the files that are no records.
	Bad int
	// Refused are those that the store did not take; they stay. Most come first.
	Refused []Refusal
}

// Refusal is why so many records of a container stay.
type Refusal struct {
	Container, Reason string
	Records           int
}

// Replay sends the dead letters in dataDir again: in the order in which they
// were written, one batch after the other, with their labels and times. What
// the store takes is remembered on disk after each request, in a file of its own
// beside the records, and not sent again by a later replay; what it refuses
// stays. The records themselves are only read, so that an agent may append, set
// files aside and delete old ones meanwhile; what it appends may be left for
// the next replay.
//
// Delivery is at least once: a replay that is killed, or that cannot write what
// it has to remember, has sent the request under way, and the next replay sends
// those lines again. Records that are the same to the byte count as one.
//
// The result holds after an error, too. A store that takes nothing in several
// tries ends the replay with an error; one that refuses some records does not.
// Replay starts no goroutine; the end of ctx ends it between two requests.
func Replay(ctx context.Context, dataDir string, o ReplayOptions) (Replayed, error) {
	if _, err := os.Stat(dataDir); err != nil {
		return Replayed{}, fmt.Errorf("replay dead letters (is it the agent's data_dir?): %w", err)
	}
	path := filepath.Join(dataDir, dirName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return Replayed{}, nil // never any
	}
	dir := disk.OS(path)
	r := replay{o: o, seen: map[sum]bool{}, sources: map[string]*entry.Source{}, refused: map[Refusal]int{}}
	if o.DryRun {
		done, err := readMark(dir)
		if err != nil {
			return r.res, err
		}
		r.res.Bad, err = each(dir, done, func(s *Stored) error { return r.take(ctx, s) })
		return r.res, err
	}
	m, err := openMark(dir)
	if err != nil {
		return r.res, err
	}
	r.mark = m
	r.res.Bad, err = each(dir, m.done, func(s *Stored) error { return r.take(ctx, s) })
	if err == nil {
		err = r.flush(ctx)
	}
	if err == nil {
		err = m.keep(r.seen)
	}
	for why, n := range r.refused {
		why.Records = n
		r.res.Refused = append(r.res.Refused, why)
	}
	slices.SortFunc(r.res.Refused, func(a, b Refusal) int {
		return cmp.Or(b.Records-a.Records, cmp.Compare(a.Container, b.Container), cmp.Compare(a.Reason, b.Reason))
	})
	return r.res, errors.Join(err, m.close())
}

// replay is one run.
type replay struct {
	o       ReplayOptions
	mark    *mark // nil in a dry run
	seen    map[sum]bool
	res     Replayed
	sources map[string]*entry.Source // by what makes them differ
	refused map[Refusal]int          // without Records
	vain    int                      // batches in a row of which nothing was taken

	// A record is a section of the batch: its state is that of the record.
	b     entry.Batch
	batch []sending // the record of each section
	took  bool      // the store took or judged something since this was last reset
}

// sending is a record in the batch.
type sending struct {
	sum   sum
	name  string
	class entry.Class
	bare  bool
	why   string // the store's reason to refuse it
	over  bool   // remembered, or refused
}

// take puts a record into the batch, if it is to be sent, and sends the batch
// when it is full.
func (r *replay) take(ctx context.Context, s *Stored) error {
	if r.seen[s.sum] {
		return nil
	}
	r.seen[s.sum] = true
	switch {
	case !r.o.Filter.Takes(&s.Record):
	case s.Replayed:
		r.res.Before++
	case s.Copy && !r.o.Copies:
		r.res.Copies++
	case r.o.DryRun:
		r.res.Sent++
		if len(s.Labels) == 0 {
			r.res.Bare++
		}
	default:
		if r.b.Size()+len(s.Raw) >= r.o.BatchBytes {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		r.add(s)
	}
	return nil
}

// add makes a record a section of the batch.
func (r *replay) add(s *Stored) {
	src, class := r.source(&s.Record)
	r.batch = append(r.batch, sending{sum: s.sum, name: s.ContainerName, class: class, bare: len(s.Labels) == 0})
	text, flags := s.Raw, entry.Flags(0)
	if s.Partial {
		flags = entry.FlagPartial
	}
	if s.Kind == Malformed { // not sent yet in this form
		text = bytes.ToValidUTF8(text, []byte("\ufffd"))
	}
	r.b.Begin(src)
	for more := true; more; {
		piece := text
		if s.Kind == Malformed && r.o.MaxLineBytes > 0 && len(text) > r.o.MaxLineBytes {
			piece, flags = text[:runes(text, r.o.MaxLineBytes)], entry.FlagPartial
		}
		off := len(r.b.Text)
		r.b.Text = append(r.b.Text, piece...)
		r.b.Add(nanoseconds(s.LineTime), off, class, flags)
		text = text[len(piece):]
		more = len(text) > 0
	}
	r.b.End()
}

// runes gives the largest number of bytes up to limit that does not end inside
// a rune.
func runes(text []byte, limit int) int {
	for n := limit; n > 0 && n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return limit
}

// nanoseconds gives a time as lines have it: 0 for none.
func nanoseconds(t time.Time) int64 {
	if y := t.Year(); y < 1678 || y > 2261 { // what an int64 holds
		return 0
	}
	return t.UnixNano()
}

// source gives what a record's line is labelled with, and under which class.
func (r *replay) source(rec *Record) (*entry.Source, entry.Class) {
	class := entry.ClassMalformed
	switch rec.Stream {
	case entry.Stdout.String():
		class = entry.ClassStdout
	case entry.Stderr.String():
		class = entry.ClassStderr
	}
	labels, metadata := rec.Labels, rec.Metadata
	if len(labels) == 0 {
		labels = make(map[string]string, len(r.o.Labels)+2)
		maps.Copy(labels, r.o.Labels)
		labels["container_name"] = rec.ContainerName
		if class == entry.ClassMalformed {
			labels["malformed"] = "true"
		} else {
			labels["stream"] = rec.Stream
		}
		if metadata == nil && rec.ContainerID != "" {
			metadata = map[string]string{"container_id": rec.ContainerID}
		}
	}
	set, more := entry.NewLabels(pairs(labels)...), pairs(metadata)
	key := fmt.Sprintf("%d %q %q %s %q", class, rec.ContainerID, rec.ContainerName, set, more)
	src := r.sources[key]
	if src == nil {
		src = &entry.Source{ID: rec.ContainerID, Name: rec.ContainerName, Metadata: more, Stats: new(entry.Stats)}
		src.Labels[class] = set
		r.sources[key] = src
	}
	return src, class
}

func pairs(m map[string]string) []entry.Label {
	var all []entry.Label
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, entry.Label{Name: name, Value: entry.CleanValue(m[name])})
	}
	return all
}

// next is what is to be done after a push.
type next uint8

const (
	nextBatch next = iota // nothing is left
	nextTry               // the same again, after a pause
	nextLeave             // what is left stays; the next batch may fare better
	nextEnd               // the store cannot be reached
)

// decide says what is to be done when left records are neither taken nor
// refused. tries is how many pushes in a row took nothing of this batch, vain of
// how many batches in a row, this one included, nothing was taken. held: the
// store speaks of single streams.
func decide(left, tries, vain int, config, held bool) next {
	switch {
	case left == 0:
		return nextBatch
	case tries == 0:
		return nextTry
	case !config && tries < replayTries:
		return nextTry
	case held || config && vain < replayTries:
		// A record that the store refuses without a reason that is known looks
		// like a fault of the configuration when it is sent alone.
		return nextLeave
	}
	return nextEnd
}

// flush sends the batch until nothing of it is left to be tried.
func (r *replay) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	defer func() {
		r.b.Reset()
		clear(r.batch)
		r.batch = r.batch[:0]
		if len(r.sources) > 4096 {
			clear(r.sources)
		}
	}()
	r.vain++
	pause := firstPause
	for tries := 0; ; {
		r.took = false
		var failed error
		out := r.o.Sink.Push(ctx, &r.b, func(context.Context) {
			_, _, err := r.settle()
			failed = cmp.Or(failed, err)
		})
		left, held, err := r.settle()
		if err := cmp.Or(failed, err); err != nil {
			return err
		}
		tries++
		if r.took {
			tries, r.vain, pause = 0, 0, firstPause
		}
		if left > 0 && ctx.Err() != nil {
			return fmt.Errorf("replay was stopped: %w", context.Cause(ctx))
		}
		switch decide(left, tries, r.vain, out.Config, held) {
		case nextBatch:
			return nil
		case nextEnd:
			return fmt.Errorf("the store takes nothing: %w", out.Err)
		case nextLeave:
			for i := range r.batch {
				if s := &r.batch[i]; !s.over {
					r.refused[Refusal{Container: s.name, Reason: out.Err.Error()}]++
				}
			}
			return nil
		case nextTry:
		}
		timer := time.NewTimer(max(pause, out.RetryAfter))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("replay was stopped: %w", context.Cause(ctx))
		}
		pause = min(2*pause, lastPause)
	}
}

// settle remembers what the store has taken, counts what it has refused, and
// makes the rest pending again. held reports whether all that is left was held
// back by stream.
func (r *replay) settle() (left int, held bool, err error) {
	for _, f := range r.b.Refusals {
		r.batch[f.Section].why = f.Reason
	}
	r.b.Refusals = r.b.Refusals[:0]
	var sums []sum
	bare := 0
	held = true
	for i := range r.batch {
		s := &r.batch[i]
		state := &r.b.Sections[i].State[s.class]
		switch {
		case s.over:
		case *state != entry.PartAccepted:
			held = held && *state == entry.PartHeld
			*state = entry.PartPending
			left++
		case s.why != "":
			s.over, r.took = true, true
			r.refused[Refusal{Container: s.name, Reason: s.why}]++
		default:
			s.over, r.took = true, true
			sums = append(sums, s.sum)
			if s.bare {
				bare++
			}
		}
	}
	if err := r.mark.add(sums); err != nil {
		return left, held, err
	}
	r.res.Sent += len(sums)
	r.res.Bare += bare
	return left, held, nil
}
