package simulation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// output is one stream of a container, or its malformed lines: what was written,
// and what has come of it. It is guarded by sim.mu.
type output struct {
	c   *container
	tag string // every line's text begins with it and the line's number
	bad bool

	lines   []*line
	open    bool // the last line is a fragment so far
	time    int64
	ordinal uint32 // of the last entry among those of its time
	// at is the line that comes next, off how much of it has been shipped.
	at, off int
	torn    bool // what comes of it has no beginning
	// met is how many lines were written when the agent first had a position of the
	// container, if it has one. Times do not tell: they stand still between steps.
	met int
	// floor is by which line the position stood when the agent last started.
	floor int
}

// line is one as the container wrote it.
type line struct {
	text string
	time int64
	// ordinal is that of its last entry.
	ordinal uint32
	ended   bool // its newline was written
	run     int  // of the container
	knew    int  // the agent's run that had the name of that run before; 0: none
	poison  bool // the store will never take it

	copies  int      // delivered
	by      int      // the agent's run that delivered it last
	spooled bool     // it came from the spool then
	unsure  bool     // since then the store may have taken it and not said so
	dead    int      // records among the dead letters
	lost    string   // why it may be missing; empty: it may not
	entries []int    // behind which bytes the entries begin that it has more than one
	places  []spot   // of its entries
	pieces  []int    // behind which bytes it was cut, to be shipped in pieces
	sent    int      // how much of it has come in pieces
	passed  []string // the names of later lines that were delivered before it
}

// spot is where an entry is found: in a file, and by the API.
type spot struct {
	text    int // bytes of the line before it
	file    entry.Place
	ordinal uint32
}

// delivery is a line as the store takes it.
type delivery struct {
	src     *entry.Source
	class   entry.Class
	flags   entry.Flags
	time    int64
	text    string
	file    entry.Place
	at      uint32
	run     int  // of the agent
	unsure  bool // the store says nothing of it
	refused bool // it is a dead letter, not a line of the store
}

// output gives the output that a line is of.
func (s *sim) outputOf(d *delivery) *output {
	for _, c := range s.all {
		if c.id != d.src.ID {
			continue
		}
		if d.class == entry.ClassMalformed {
			return c.bad
		}
		return c.out[d.class]
	}
	return nil
}

// number gives the line that a text begins; false if it is the rest of one.
func (o *output) number(text string) (int, bool) {
	rest, ok := strings.CutPrefix(text, o.tag)
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(digits)
	return n, err == nil && n < len(o.lines)
}

// deliver takes account of a line that has come to the store. It gives the line
// that is complete with it. Called with mu held.
func (s *sim) deliver(d *delivery) *line {
	o := s.outputOf(d)
	if o == nil {
		s.wrong("a line of container %s, which does not exist: %q", d.src.ID, d.text)
		return nil
	}
	s.traceIn(o.tag, "  %s: %q flags %d%s", d.src.Name, d.text, d.flags, mark(d.unsure, " (the agent is not told)"))
	n, begins := o.number(d.text)
	if begins && n != o.at || begins && o.off > 0 {
		o.jump(s, n, d)
	}
	if !begins && !o.goesOn(d) {
		o.findRest(s, d)
	}
	if o.at >= len(o.lines) {
		s.wrong("%s: %q was never written", o.tag, d.text)
		return nil
	}
	l := o.lines[o.at]
	rest := l.text[o.off:]
	partial := d.flags&entry.FlagPartial != 0
	switch {
	case d.text == rest, partial && strings.HasPrefix(rest, d.text):
		s.checkPlace(o, l, o.off, d)
		o.off += len(d.text)
		if partial {
			l.sent = max(l.sent, o.off)
			if !slices.Contains(l.pieces, o.off) {
				l.pieces = append(l.pieces, o.off)
			}
		}
	case (!s.p.lossless || l.lost != "") && l.parts(o.off, d.text):
		o.tear(s, l) // a file with a part of it is gone
		return nil
	default:
		s.wrong("%s%d: %q (flags %d) stands where %q should", o.tag, o.at, d.text, d.flags, rest)
		return nil
	}
	s.checkLine(o, l, d)
	if d.text == "" && l.text != "" {
		o.at, o.off, o.torn = o.at+1, 0, false // the newline of a line that was shipped as a piece
		return nil
	}
	if o.off < len(l.text) || !l.ended && o.open && o.at == len(o.lines)-1 && partial {
		return nil
	}
	if o.torn {
		o.tear(s, l)
		return nil
	}
	if l.copies > 0 && !l.unsure {
		s.checkTwice(o, l, d)
	}
	other := func(name string) bool { return name != d.src.Name }
	if slices.Contains(l.passed, d.src.Name) && !slices.ContainsFunc(s.names(o.c, l, 0), other) && l.copies == 0 && l.lost == "" && !(s.unread && d.src.Log == 0) {
		s.wrong("%s%d came after a later line", o.tag, o.at)
	}
	if !d.unsure {
		l.copies++
		l.by, l.spooled = d.run, d.src.Log == 0
	}
	l.unsure = d.unsure
	o.at, o.off = o.at+1, 0
	s.delivered++
	return l
}

// parts reports whether a text is what is left of a line from a byte on, if some of its
// entries are missing.
func (l *line) parts(from int, text string) bool {
	ends := append(slices.Clone(l.entries), len(l.text))
	for _, end := range ends {
		if end <= from {
			continue
		}
		text = strings.TrimPrefix(text, l.text[from:end])
		from = end
	}
	return text == ""
}

// tear goes on behind a line of which only a part was there.
func (o *output) tear(s *sim, l *line) {
	if l.lost == "" && l.copies == 0 {
		l.lost = "torn"
		s.torn++
	}
	o.at, o.off, o.torn = o.at+1, 0, false
}

func mark(b bool, text string) string {
	if b {
		return text
	}
	return ""
}

// jump goes on with line n, which is not the one that comes next.
func (o *output) jump(s *sim, n int, d *delivery) {
	// What was begun is not finished: its file may be read again from before.
	for k := o.at; k < n; k++ {
		l := o.lines[k]
		if l.copies > 0 || l.unsure || l.poison || slices.Contains(l.passed, d.src.Name) {
			continue
		}
		if l.sent == len(l.text) {
			continue // in pieces, and its newline never came
		}
		l.passed = append(l.passed, d.src.Name) // it is late, or lost
	}
	o.at, o.off, o.torn = n, 0, false
}

// goesOn reports whether a text is what comes next of a line that was begun.
func (o *output) goesOn(d *delivery) bool {
	return o.off > 0 && o.at < len(o.lines) && strings.HasPrefix(o.lines[o.at].text[o.off:], d.text)
}

// findRest goes on with the line of which only the rest comes: its beginning was
// shipped as a piece, perhaps by the run before, or its file is gone.
func (o *output) findRest(s *sim, d *delivery) {
	fits := func(rest string) bool {
		return rest == d.text || d.flags&entry.FlagPartial != 0 && strings.HasPrefix(rest, d.text)
	}
	for k, l := range o.lines {
		if l.time != d.time {
			continue
		}
		for _, off := range l.pieces {
			if fits(l.text[off:]) {
				o.jump(s, k, d)
				o.off = off
				return
			}
		}
		for _, off := range l.entries {
			if fits(l.text[off:]) && (!s.p.lossless || l.lost != "") {
				o.jump(s, k, d)
				o.off, o.torn = off, true
				return
			}
		}
	}
}

func (s *sim) checkLine(o *output, l *line, d *delivery) {
	if l.poison && !d.refused {
		s.wrong("%s%d was to be refused and was not", o.tag, o.at)
	}
	if !o.bad && d.time != l.time {
		s.wrong("%s%d has the time %d, written with %d", o.tag, o.at, d.time, l.time)
	}
	if may := s.names(o.c, l, d.run); !slices.Contains(may, d.src.Name) {
		s.wrong("%s%d, of run %d of its container, bears the name %s; it may bear %v", o.tag, o.at, l.run, d.src.Name, may)
	}
	labels := d.src.Labels[d.class]
	if want := wantLabels(o, d.src.Name, d.class); labels.String() != want {
		s.wrong("%s%d has the labels %s, not %s", o.tag, o.at, labels, want)
	}
	if len(d.src.Metadata) == 0 || d.src.Metadata[0].Value != o.c.id {
		s.wrong("%s%d has the metadata %v", o.tag, o.at, d.src.Metadata)
	}
}

// names gives those that a line may bear from a run of the agent, or from any if that is
// 0: that of its run of the container if the agent had it before the line was written and
// no start since, else one of before, too.
func (s *sim) names(c *container, l *line, run int) (all []string) {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	sure := l.knew > 0 && (run == 0 && !s.damaged || l.knew == run && l.run == c.run)
	for _, n := range c.named {
		if (n.middle || n.from <= l.run) && (!sure || n.run >= l.run) {
			all = append(all, n.name)
		}
	}
	return all
}

// checkPlace checks that what would be said of where a text stands, one that begins
// behind some bytes of a line, is where an entry was written that has it.
func (s *sim) checkPlace(o *output, l *line, off int, d *delivery) {
	if d.text == "" {
		return
	}
	streamed := d.src.Method == monitors.MethodStreaming
	path := o.c.path()
	if streamed {
		path = ""
	}
	if d.src.Path != path {
		s.wrong("%q is said to come from %q", d.text, d.src.Path)
	}
	for i, p := range l.places {
		if off < p.text || i+1 < len(l.places) && off >= l.places[i+1].text {
			continue
		}
		if o.c.w != nil && o.c.w.Compress && d.file.Inode != 0 {
			p.file.Inode = d.file.Inode // it may be an archive's
		}
		if streamed && d.at == p.ordinal && d.file == (entry.Place{}) || !streamed && d.file == p.file {
			return
		}
	}
	s.wrong("%q is said to stand at %+v, number %d: %d bytes into a line with the entries %+v", d.text, d.file, d.at, off, l.places)
}

// wantLabels are those that the contract promises.
func wantLabels(o *output, name string, class entry.Class) string {
	kind := entry.Label{Name: "stream", Value: class.Stream().String()}
	if o.bad {
		kind = entry.Label{Name: "malformed", Value: "true"}
	}
	return entry.NewLabels(
		entry.Label{Name: "job", Value: "log_capturer"}, entry.Label{Name: "host", Value: "host"},
		entry.Label{Name: "container_name", Value: name}, entry.Label{Name: "image", Value: "repo/app"}, kind).String()
}

// checkTwice checks that a line may come again: the run of the agent that had
// delivered it has ended before that was saved.
func (s *sim) checkTwice(o *output, l *line, d *delivery) {
	s.doubled++
	spooled := d.src.Log == 0
	switch {
	case (spooled || l.spooled) && d.run > 1:
		// A frame of which a part was delivered, or put aside, comes again as a
		// whole. And a kill can have come between the copy to the spool, or in it,
		// and the word that the copy is good, which a power loss may take back; so
		// there are two, or more by the next.
	case o.bad && !s.p.lossless:
		// Where its file is gone a log goes on by time, which a malformed line has not.
	case d.run == l.by:
		s.wrong("%s%d comes twice in one run of the agent", o.tag, o.at)
	case !o.bad && o.at < o.floor:
		s.wrong("%s%d comes again from its log, of which %d lines were saved as delivered at the start", o.tag, o.at, o.floor)
	}
}

// setFloors notes how far the positions stand at a start of the agent.
func (s *sim) setFloors(lookup func(id string) ([entry.NumStreams]entry.Position, bool)) {
	for _, c := range s.all {
		saved, _ := lookup(c.id)
		c.knows = 0
		for i, o := range c.out {
			pos := saved[i]
			o.floor = 0
			for o.floor < len(o.lines) && covers(pos, o.lines[o.floor]) {
				if l := o.lines[o.floor]; l.run == c.run && l.knew > 0 && !s.damaged {
					c.knows = c.run // the name is kept with the position
				}
				o.floor++
			}
		}
	}
}

// covers reports whether a position is behind a line.
func covers(pos entry.Position, l *line) bool {
	return l.time < pos.Time || l.time == pos.Time && l.ordinal <= pos.Ordinal
}

// excuse lets lines be missing that nobody could deliver, for a reason.
func (o *output) excuse(why string) {
	for _, l := range o.lines {
		if l.copies == 0 && l.dead == 0 && l.lost == "" {
			l.lost = why
		}
	}
}

// missing counts the lines that have not come, and gives the first that may not be
// missing.
func (s *sim) missing() (n int, first string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		for _, o := range []*output{c.out[0], c.out[1], c.bad} {
			for i, l := range o.lines {
				if l.copies > 0 || l.dead > 0 {
					continue
				}
				if l.sent == len(l.text) && !o.bad {
					continue // shipped as a piece: its newline never came
				}
				if l.sent > 0 && s.p.roads && l.lost == "" {
					l.lost = "the road has changed between its pieces"
				}
				if (l.lost == "" || l.lost == "torn") && !s.p.lossless && (!c.met || i < o.met) {
					l.lost = "the agent had not met its container"
				}
				if l.lost != "" && l.lost != "torn" {
					s.excused++
					continue
				}
				n++
				if first == "" {
					first = fmt.Sprintf("%s%d %q, written at %d by %s", o.tag, i, l.text, l.time, c.name)
				}
			}
		}
	}
	return n, first
}
