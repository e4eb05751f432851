package main

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"

	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// output is what a container writes: lines numbered from 1, all of which follow
// from these values and their number. The name is the container's, and unique.
type output struct {
	name, kind  string
	size        int
	stderrEvery int
	lines       int // 0: until it is stopped
}

// line gives the text of line n.
func (o *output) line(n int) string { return lines.Line(o.kind, o.name, n, o.size) }

// Indexes of a container's streams.
const (
	stdout = iota
	stderr
	numStreams
)

var streamNames = [numStreams]string{"stdout", "stderr"}

// stream gives where line n goes.
func (o *output) stream(n int) int {
	if o.stderrEvery > 0 && n%o.stderrEvery == 0 {
		return stderr
	}
	return stdout
}

// number gives the number of a line of this output by how it begins; 0 if it is
// none of it.
func (o *output) number(text string) int {
	rest, ok := strings.CutPrefix(text, o.name)
	if !ok || !strings.HasPrefix(rest, " ") {
		return 0
	}
	digits, _, _ := strings.Cut(rest[1:], " ")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 {
		return 0
	}
	return n
}

// set is a set of line numbers: a bit for each up to the largest.
type set struct{ words []uint64 }

// add reports whether n is new.
func (s *set) add(n int) bool {
	for n/64 >= len(s.words) {
		s.words = append(s.words, 0)
	}
	w, bit := &s.words[n/64], uint64(1)<<(n%64)
	was := *w&bit != 0
	*w |= bit
	return !was
}

func (s *set) has(n int) bool { return n/64 < len(s.words) && s.words[n/64]&(1<<(n%64)) != 0 }

func (s *set) count() (n int) {
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// figures are numbers of lines. written = delivered + dead + lost + reported.
type figures struct {
	written   int // by Docker
	delivered int // accepted by the store, each counted once
	dead      int // not delivered, and in the dead-letter file
	lost      int // neither, and the agent has not said so
	reported  int // neither, and the agent has said that lines of this container are lost

	doubled    int // accepted once more
	disordered int // accepted for the first time behind a later line of the same stream
	foreign    int // accepted, and not what was written
	malformed  int // shipped raw, because they were no entries of Docker's
	never      int // written by the container, but not by Docker: none of the above
}

func (f *figures) plus(o figures) {
	f.written += o.written
	f.delivered += o.delivered
	f.dead += o.dead
	f.lost += o.lost
	f.reported += o.reported
	f.doubled += o.doubled
	f.disordered += o.disordered
	f.foreign += o.foreign
	f.malformed += o.malformed
	f.never += o.never
}

// good reports whether nothing was lost in silence, made up, or shuffled.
func (f *figures) good() bool { return f.lost+f.foreign+f.disordered == 0 }

func (f *figures) String() string {
	s := fmt.Sprintf("written %d, delivered %d, dead-lettered %d, doubled %d, lost %d, lost and reported %d",
		f.written, f.delivered, f.dead, f.doubled, f.lost, f.reported)
	for _, more := range []struct {
		what string
		n    int
	}{
		{"out of order", f.disordered}, {"never written", f.foreign}, {"shipped raw", f.malformed},
		{"not written by Docker", f.never},
	} {
		if more.n > 0 {
			s += fmt.Sprintf(", %s %d", more.what, more.n)
		}
	}
	return s
}

// few is how many examples of each kind of trouble are kept.
const few = 5

// book is what has become of the lines of one container: a few bits for each.
type book struct {
	out   output
	seen  set
	dead  set
	never set // lines that Docker has not written

	written int // number of the last line; valid if closed
	closed  bool

	last                           [numStreams]int // the highest number so far
	doubled, disordered, malformed int
	foreign                        int
	odd                            []string // examples of what is foreign or disordered
}

// wrong counts a line that is not one that was written.
func (b *book) wrong(n *int, what string) {
	*n++
	if len(b.odd) < few {
		b.odd = append(b.odd, what)
	}
}

// deliver notes a line that the store has accepted.
func (b *book) deliver(stream, text string) {
	n := b.out.number(text)
	if n == 0 || stream != streamNames[b.out.stream(n)] || text != b.out.line(n) {
		b.wrong(&b.foreign, fmt.Sprintf("%s %.60q", stream, text))
		return
	}
	if !b.seen.add(n) {
		b.doubled++
		return
	}
	s := b.out.stream(n)
	if n < b.last[s] {
		b.wrong(&b.disordered, fmt.Sprintf("line %d behind line %d of %s", n, b.last[s], stream))
	}
	b.last[s] = max(n, b.last[s])
}

// figures adds up. reported says whether the agent has told of losses of this
// container.
func (b *book) figures(reported bool) (f figures, missing []span) {
	f = figures{doubled: b.doubled, disordered: b.disordered, foreign: b.foreign, malformed: b.malformed}
	for n := 1; n <= b.written; n++ {
		switch {
		case b.seen.has(n):
			f.delivered++
		case b.dead.has(n):
			f.dead++
		case b.never.has(n):
			f.never++
			continue
		default:
			if reported {
				f.reported++
			} else {
				f.lost++
			}
			missing = grow(missing, n)
		}
		f.written++
	}
	if beyond := b.seen.count() - f.delivered; beyond > 0 {
		f.foreign += beyond
	}
	return f, missing
}

// complete reports whether nothing is missing.
func (b *book) complete() bool {
	if !b.closed {
		return false
	}
	f, _ := b.figures(false)
	return f.lost == 0
}

// span is the lines from first to last.
type span struct{ first, last int }

// grow adds a number that is higher than all before.
func grow(all []span, n int) []span {
	if l := len(all); l > 0 && all[l-1].last == n-1 {
		all[l-1].last = n
		return all
	}
	return append(all, span{n, n})
}

// ledger has the books of all containers. Its methods may be called from any
// goroutine.
type ledger struct {
	mu       sync.Mutex
	books    map[string]*book
	arrived  int // lines accepted, also those that come twice
	strange  int // lines of containers that are none of ours
	examples []string
}

func newLedger() *ledger { return &ledger{books: make(map[string]*book)} }

// open begins the book of a container. It must be called before it can write.
func (l *ledger) open(o output) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.books[o.name] != nil {
		panic("two containers with the name " + o.name)
	}
	l.books[o.name] = &book{out: o}
}

// delivered is a line as the store gets it.
type delivered struct {
	container, stream, text string
	malformed               bool
}

// deliver notes lines that the store has accepted in one push.
func (l *ledger) deliver(all []delivered) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range all {
		l.arrived++
		b := l.books[d.container]
		switch {
		case b == nil:
			if l.strange++; len(l.examples) < few {
				l.examples = append(l.examples, fmt.Sprintf("%s: %.60q", d.container, d.text))
			}
		case d.malformed:
			b.malformed++
		default:
			b.deliver(d.stream, d.text)
		}
	}
}

// deadLetter notes a line that was found in the dead-letter file.
func (l *ledger) deadLetter(container, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.books[container]; b != nil {
		if n := b.out.number(text); n > 0 && text == b.out.line(n) {
			b.dead.add(n)
		}
	}
}

// excuse notes lines that Docker has not written.
func (l *ledger) excuse(container string, never []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range never {
		l.books[container].never.add(n)
	}
}

// close notes how many lines a container has written that will write no more.
func (l *ledger) close(container string, written int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[container]
	b.written, b.closed = written, true
}

// complete reports whether a container's lines have all arrived.
func (l *ledger) complete(container string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[container]
	return b == nil || b.complete()
}

// missing gives how many of the lines from from to before to have not arrived.
func (l *ledger) missing(container string, from, to int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := from; i < to; i++ {
		if !l.books[container].seen.has(i) {
			n++
		}
	}
	return n
}

// count gives how many lines have arrived, with those that came twice.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.arrived
}

// progress gives how many lines have arrived, and how many of those that were
// written have not.
func (l *ledger) progress() (arrived, missing int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.books {
		f, _ := b.figures(false)
		missing += f.lost
	}
	return l.arrived, missing
}

// account is what has become of all lines, with what is wrong about them in
// words. reported says whether the agent has told of losses of a container.
func (l *ledger) account(reported func(container string) bool) (sum figures, trouble []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum.foreign = l.strange
	for _, e := range l.examples {
		trouble = append(trouble, "a container that is none of ours: "+e)
	}
	for name, b := range l.books {
		rep := reported(name)
		f, missing := b.figures(rep)
		sum.plus(f)
		if len(missing) > 0 {
			trouble = append(trouble, fmt.Sprintf("%s: of %d lines %d are lost (reported: %v), in %d spans: %v", name, b.written, f.lost+f.reported, rep, len(missing), missing[:min(few, len(missing))]))
		}
		for _, o := range b.odd {
			trouble = append(trouble, name+": "+o)
		}
		if !b.closed {
			trouble = append(trouble, name+": it is not known how much it has written")
		}
	}
	return sum, trouble
}
