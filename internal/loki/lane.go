package loki

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// Where a line is, by its place in lane.lines.
const (
	linePending uint8 = iota
	lineAccepted
	lineRefused
	// lineRest is a line of a push that was refused in part, not itself hit by
	// a limit: to be accepted, unless the store's numbers say otherwise.
	lineRest
)

// part is the lines of one class of one section.
type part struct {
	section    int32
	class      entry.Class
	next       int32 // the stream's next part, -1: none
	lo, hi     int32 // its lines are lane.lines[lo:hi]
	meta, metz int32 // its encoded metadata is lane.meta[meta:metz]
}

// stream is the lines of a batch that go under one label text.
type stream struct {
	text        string
	labels      []entry.Label
	first, last int32 // its parts
	todo        int32 // the first that complete has not told of; -1: none
	count       int32 // lines, at most
	lo, hi      int32 // its lines are lane.lines[lo:hi], those of its parts in order
	size        int   // bytes of its entries in a request
	oldest      int64 // ns since the epoch
	newest      int64 // likewise
	fall        int64 // the most that a line is older than one before it, ns
	bare        bool  // goes without metadata
	most        int   // see streamState
	took        int   // bytes that the store has accepted in this attempt, where most is not 0
	// held is why the stream is refused for now, "" when it is not; heldConfig
	// is set when that is a matter of configuration.
	held       string
	heldConfig bool
	// stuck is set when lines of the stream are left pending in the middle:
	// what follows them is not sent in this attempt.
	stuck bool
	// flying is set while a request with lines of it is on its way.
	flying bool
}

// limit is the largest request of the stream, if one may have so many bytes.
func (st *stream) limit(all int) int {
	if st.most > 0 {
		return min(st.most, all)
	}
	return all
}

// span is a run of lines of one stream; those that are settled are left out.
type span struct {
	stream int32
	lo, hi int32
	size   int // bytes of its entries in a request
	n      int32
}

// request is lane.spans[from:to].
type request struct {
	from, to int32
	split    int32 // index in lane.splits of the search it belongs to, -1: none
	round    int32 // how many requests of its stream share made before it
	again    uint8 // how often its lines were sent again for numbers that do not add up
}

// flight is a request on its way.
type flight struct {
	exchange
	request
	withMeta bool // it went with structured metadata, as far as its streams do
	start    time.Time
	bytes    int // compressed
}

// search is a request that was refused whole, on its way to the lines that are
// to blame.
type search struct {
	took   bool   // a line of it was accepted
	sized  bool   // only for its size so far: that ends by itself and is not limited
	open   bool   // not followed to its end
	reason string // why the last was refused
}

// suspect is a line that was refused alone.
type suspect struct {
	pos, split int32
	large      bool // for its size (413), not for an unknown reason
	reason     string
}

// lane is the memory of one Push. It belongs to one goroutine at a time and is
// kept for the next Push.
type lane struct {
	b        *entry.Batch
	withMeta bool

	byText     map[string]int32
	streams    []stream
	parts      []part
	lines      []uint32 // indices into Batch.Lines, by stream
	state      []uint8  // of each of lines
	meta       []byte
	travellers []traveller
	order      []int32
	ends       []int32
	spans      []span
	stack      []request
	dirty      bool // sizes or lines of requests on the stack have changed: to be pruned
	splits     []search
	suspects   []suspect
	times      []int64

	flights []flight // in the order in which they were sent
	enc     encoder
	ahead   encoded // of the request that is next; set while others are on their way
	answer  []byte
}

// encoded is what encode made of a request.
type encoded struct {
	of    request
	bytes []byte // in encoder.out; nil: there is none
}

// keepBytes bounds what a lane keeps of a buffer between pushes.
const keepBytes = 8 << 20

// release drops what refers to the batch.
func (l *lane) release() {
	l.b = nil
	clear(l.byText)
	clear(l.streams)
	l.streams = l.streams[:0]
	clear(l.suspects)
	l.suspects = l.suspects[:0]
	clear(l.splits)
	l.splits = l.splits[:0]
	l.ahead = encoded{}
	if cap(l.enc.out) > keepBytes {
		l.enc.out = nil
	}
	if cap(l.lines) > keepBytes/4 {
		l.lines, l.state = nil, nil
	}
}

// collect sorts the pending lines of the batch by stream.
func (l *lane) collect(b *entry.Batch, withMeta bool) {
	l.b, l.withMeta, l.dirty = b, withMeta, false
	l.parts, l.meta, l.spans, l.stack = l.parts[:0], l.meta[:0], l.spans[:0], l.stack[:0]
	if l.byText == nil {
		l.byText = make(map[string]int32)
	}
	for i := range b.Sections {
		s := &b.Sections[i]
		meta := int32(len(l.meta))
		encoded := false
		for c := range s.State {
			if s.State[c] != entry.PartPending {
				continue
			}
			if !encoded {
				encoded = true
				for _, m := range s.Source.Metadata {
					l.meta = appendPair(l.meta, m)
				}
			}
			labels := &s.Source.Labels[c]
			id, ok := l.byText[labels.String()]
			if !ok {
				id = int32(len(l.streams))
				l.byText[labels.String()] = id
				l.streams = append(l.streams, stream{text: labels.String(), labels: labels.Pairs(), first: -1, last: -1, todo: -1})
			}
			p := int32(len(l.parts))
			l.parts = append(l.parts, part{
				section: int32(i), class: entry.Class(c), next: -1, meta: meta, metz: int32(len(l.meta)),
			})
			st := &l.streams[id]
			if st.first < 0 {
				st.first, st.todo = p, p
			} else {
				l.parts[st.last].next = p
			}
			st.last = p
			st.count += s.Lines[c]
		}
	}
}

// fill puts the lines into place and measures the streams. It follows collect
// and the setting of stream.bare.
func (l *lane) fill() {
	total := int32(0)
	for i := range l.streams {
		total += l.streams[i].count
	}
	l.lines = slices.Grow(l.lines[:0], int(total))[:total]
	l.state = slices.Grow(l.state[:0], int(total))[:total]
	clear(l.state)
	pos := int32(0)
	for i := range l.streams {
		st := &l.streams[i]
		st.lo = pos
		first := true
		for pi := st.first; pi >= 0; pi = l.parts[pi].next {
			p := &l.parts[pi]
			meta := l.metaLen(st, p)
			p.lo = pos
			s := &l.b.Sections[p.section]
			for k := s.First; k < s.First+s.Count; k++ {
				ln := &l.b.Lines[k]
				if ln.Class != p.class || ln.Flags&entry.FlagsDone != 0 {
					continue
				}
				l.lines[pos] = uint32(k)
				pos++
				m := meta
				if ln.Flags&entry.FlagPartial != 0 && l.withMeta && !st.bare {
					m += len(partialMetadata)
				}
				st.size += entrySize(ln.Time, int(ln.Len), m)
				if first {
					st.oldest, st.newest, first = ln.Time, ln.Time, false
				}
				st.oldest, st.newest = min(st.oldest, ln.Time), max(st.newest, ln.Time)
				st.fall = max(st.fall, st.newest-ln.Time)
			}
			p.hi = pos
		}
		st.hi = pos
	}
	l.lines, l.state = l.lines[:pos], l.state[:pos]
}

func (l *lane) metaLen(st *stream, p *part) int {
	if !l.withMeta || st.bare {
		return 0
	}
	return int(p.metz - p.meta)
}

// lopsided reports whether one stream has most of the bytes. Its requests are sent one after the
// other: a larger batch would only have more of them.
func (l *lane) lopsided() bool {
	most, all := 0, 0
	for i := range l.streams {
		most, all = max(most, l.streams[i].size), all+l.streams[i].size
	}
	return most > all/2
}

// line is the line at a place.
func (l *lane) line(pos int32) *entry.Line { return &l.b.Lines[l.lines[pos]] }

// measure counts a span's lines and bytes.
func (l *lane) measure(s *span) {
	st := &l.streams[s.stream]
	s.size, s.n = 0, 0
	for pi := st.first; pi >= 0; pi = l.parts[pi].next {
		p := &l.parts[pi]
		meta := l.metaLen(st, p)
		for pos := max(s.lo, p.lo); pos < min(s.hi, p.hi); pos++ {
			if l.state[pos] != linePending {
				continue
			}
			ln := l.line(pos)
			m := meta
			if ln.Flags&entry.FlagPartial != 0 && l.withMeta && !st.bare {
				m += len(partialMetadata)
			}
			s.size += entrySize(ln.Time, int(ln.Len), m)
			s.n++
		}
	}
}

// body gives the compressed body of a request, which encodeAhead may have made already:
// one whose lines have changed since is another (prune). It is valid until the next is made.
func (l *lane) body(r request) []byte {
	made := l.ahead
	l.ahead = encoded{}
	if made.bytes != nil && made.of == r {
		return made.bytes
	}
	return l.encode(r)
}

// encodeAhead makes the body of the next request, if there is one and it is not made yet. The
// memory is that of the one before, which has been sent: meanwhile the store is at work, and its
// answer on the way. It was for nothing if that changes what is sent next. What is to be pruned first
// would always be another request.
func (l *lane) encodeAhead() {
	if n := len(l.stack); n > 0 && !l.dirty && (l.ahead.bytes == nil || l.ahead.of != l.stack[n-1]) {
		l.ahead = encoded{of: l.stack[n-1], bytes: l.encode(l.stack[n-1])}
	}
}

// mayFollow reports whether the next request may be sent while others are on their way: all that
// has been answered was as it should be, and it has no stream that one of them has.
func (l *lane) mayFollow() bool {
	n := len(l.stack)
	if n == 0 || l.dirty {
		return false
	}
	r := &l.stack[n-1]
	for i := r.from; i < r.to; i++ {
		if l.streams[l.spans[i].stream].flying {
			return false
		}
	}
	return true
}

// fly notes that a request is on its way, or is not any more.
func (l *lane) fly(r request, flying bool) {
	for i := r.from; i < r.to; i++ {
		l.streams[l.spans[i].stream].flying = flying
	}
}

// encode makes the compressed body of a request.
func (l *lane) encode(r request) []byte {
	l.enc.reset()
	total := 0
	for i := r.from; i < r.to; i++ {
		s := &l.spans[i]
		if s.n == 0 {
			continue
		}
		st := &l.streams[s.stream]
		total += streamSize(len(st.text), s.size)
		l.enc.stream(st.text, s.size)
		for pi := st.first; pi >= 0; pi = l.parts[pi].next {
			p := &l.parts[pi]
			meta := l.meta[p.meta:][:l.metaLen(st, p)]
			for pos := max(s.lo, p.lo); pos < min(s.hi, p.hi); pos++ {
				if l.state[pos] != linePending {
					continue
				}
				ln := l.line(pos)
				var more []byte
				if ln.Flags&entry.FlagPartial != 0 && l.withMeta && !st.bare {
					more = partialMetadata
				}
				l.enc.entry(ln.Time, l.b.Message(ln), meta, more)
			}
		}
	}
	return l.enc.finish(total)
}

// add puts a run of spans appended since from on the stack.
func (l *lane) add(from int, split int32, again uint8) {
	if from < len(l.spans) {
		l.stack = append(l.stack, request{from: int32(from), to: int32(len(l.spans)), split: split, again: again})
	}
}

// share makes the first requests: as planned, no larger than limit. Those of streams that are
// larger come in rounds, one of each stream, since two of one are never on their way at once;
// or, where requests are sent one by one, stream by stream: a section is told of when all of it is
// accepted, and that is sooner then.
func (l *lane) share(limit int, rounds bool) {
	at := int32(0)
	for _, end := range l.ends {
		ids := l.order[at:end]
		at = end
		if len(ids) == 1 {
			st := &l.streams[ids[0]]
			if most := st.limit(limit); streamSize(len(st.text), st.size) > most {
				l.cutStream(ids[0], most)
				continue
			}
		}
		from := len(l.spans)
		for _, id := range ids {
			st := &l.streams[id]
			if st.lo < st.hi && st.held == "" {
				l.spans = append(l.spans, span{stream: id, lo: st.lo, hi: st.hi, size: st.size, n: st.hi - st.lo})
			}
		}
		l.add(from, -1, 0)
	}
	if rounds {
		slices.SortStableFunc(l.stack, func(a, b request) int { return cmp.Compare(a.round, b.round) })
	}
	slices.Reverse(l.stack) // the last is taken first
}

// cutStream makes requests of the lines of one stream, in order. Where it can it cuts between
// two parts: of a part in two requests nothing is acknowledged before both are accepted. A line that is
// larger than limit has a request of its own.
func (l *lane) cutStream(id int32, limit int) {
	st := &l.streams[id]
	if st.held != "" {
		return
	}
	cur := span{stream: id, lo: st.lo, hi: st.lo}
	round := int32(0)
	emit := func() {
		if cur.n > 0 {
			at := int32(len(l.spans))
			l.spans = append(l.spans, cur)
			l.stack = append(l.stack, request{from: at, to: at + 1, split: -1, round: round})
			round++
		}
		cur = span{stream: id, lo: cur.hi, hi: cur.hi}
	}
	for pi := st.first; pi >= 0; pi = l.parts[pi].next {
		p := &l.parts[pi]
		meta := l.metaLen(st, p)
		before := cur // without lines of this part
		for pos := p.lo; pos < p.hi; pos++ {
			ln := l.line(pos)
			m := meta
			if ln.Flags&entry.FlagPartial != 0 && l.withMeta && !st.bare {
				m += len(partialMetadata)
			}
			n := entrySize(ln.Time, int(ln.Len), m)
			if streamSize(len(st.text), cur.size+n) > limit && cur.lo < p.lo {
				begun := span{stream: id, lo: p.lo, hi: cur.hi, size: cur.size - before.size, n: cur.n - before.n}
				cur = before
				emit()
				cur = begun
			}
			if streamSize(len(st.text), cur.size+n) > limit {
				emit()
			}
			cur.size, cur.n, cur.hi = cur.size+n, cur.n+1, pos+1
		}
	}
	emit()
}

// halve puts the two halves of a request on the stack, the first on top.
func (l *lane) halve(r request, split int32) {
	half := l.count(r) / 2
	left := len(l.spans)
	var cut struct{ span, pos int32 }
	n := int32(0)
find:
	for i := r.from; i < r.to; i++ {
		s := l.spans[i]
		for pos := s.lo; pos < s.hi; pos++ {
			if l.state[pos] != linePending {
				continue
			}
			if n == half {
				cut.span, cut.pos = i, pos
				break find
			}
			n++
		}
	}
	for i := r.from; i <= cut.span; i++ {
		s := l.spans[i]
		if i == cut.span {
			s.hi = cut.pos
		}
		l.put(s)
	}
	right := len(l.spans)
	for i := cut.span; i < r.to; i++ {
		s := l.spans[i]
		if i == cut.span {
			s.lo = cut.pos
		}
		l.put(s)
	}
	end := len(l.spans)
	l.stack = append(l.stack,
		request{from: int32(right), to: int32(end), split: split},
		request{from: int32(left), to: int32(right), split: split})
}

// put measures a span and appends it unless it has no line to be sent.
func (l *lane) put(s span) {
	if s.lo >= s.hi {
		return
	}
	l.measure(&s)
	if s.n > 0 {
		l.spans = append(l.spans, s)
	}
}

// oneByOne gives each stream of a request, but one, a request of its own.
func (l *lane) oneByOne(r request, but int32) {
	for i := r.to - 1; i >= r.from; i-- {
		if s := l.spans[i]; s.stream != but {
			from := len(l.spans)
			l.put(s)
			l.add(from, r.split, r.again)
		}
	}
}

// prune leaves out of a request what is held or settled, and measures it anew.
func (l *lane) prune(r request) request {
	from := len(l.spans)
	for i := r.from; i < r.to; i++ {
		if s := l.spans[i]; !l.skip(s.stream) {
			l.put(s)
		}
	}
	r.from, r.to = int32(from), int32(len(l.spans))
	return r
}

func (l *lane) skip(id int32) bool { return l.streams[id].held != "" || l.streams[id].stuck }

// count is the number of lines of a request.
func (l *lane) count(r request) int32 {
	n := int32(0)
	for i := r.from; i < r.to; i++ {
		n += l.spans[i].n
	}
	return n
}

// sizeOf is the number of bytes of one stream in a request.
func (l *lane) sizeOf(r request, id int32) (n int) {
	for i := r.from; i < r.to; i++ {
		if s := &l.spans[i]; s.stream == id {
			n += s.size
		}
	}
	return n
}

func (l *lane) bytes(r request) int {
	n := 0
	for i := r.from; i < r.to; i++ {
		if s := &l.spans[i]; s.n > 0 {
			n += streamSize(len(l.streams[s.stream].text), s.size)
		}
	}
	return n
}

// find gives the stream of a request that the store means by a name. A request
// of one stream leaves no doubt. -1: none.
func (l *lane) find(r request, name string) int32 {
	if r.to-r.from == 1 {
		return l.spans[r.from].stream
	}
	best, most := int32(-1), -1
	named, ok := parseLabels(name)
	for i := r.from; i < r.to; i++ {
		id := l.spans[i].stream
		st := &l.streams[id]
		if st.text == name {
			return id
		}
		if ok && len(st.labels) > most && covers(named, st.labels) {
			best, most = id, len(st.labels)
		}
	}
	return best
}

// refuse marks a line of a part as refused for good.
func (l *lane) refuse(pos int32, p *part, reason string) {
	l.state[pos] = lineRefused
	k := l.lines[pos]
	l.b.Lines[k].Flags |= entry.FlagRefused
	l.b.Refusals = append(l.b.Refusals, entry.Refusal{Section: int(p.section), Line: int(k), Reason: reason})
}

// partOf gives the stream and the part that a place belongs to.
func (l *lane) partOf(pos int32) (id int32, p *part) {
	for i := range l.streams {
		st := &l.streams[i]
		if pos < st.lo || pos >= st.hi {
			continue
		}
		for pi := st.first; pi >= 0; pi = l.parts[pi].next {
			if p := &l.parts[pi]; p.lo <= pos && pos < p.hi {
				return int32(i), p
			}
		}
	}
	panic("loki: a line outside of all streams")
}

// settled reports whether no line of a part is pending.
func (l *lane) settled(p *part) bool { return bytes.IndexByte(l.state[p.lo:p.hi], linePending) < 0 }

// complete writes into the batch which parts of a request's streams are accepted
// now. A stream's parts are told of in order; one that waits for the judgement of a
// suspect keeps back those behind it.
func (l *lane) complete(r request) {
	for i := r.from; i < r.to; i++ {
		st := &l.streams[l.spans[i].stream]
		for st.todo >= 0 && l.settled(&l.parts[st.todo]) {
			p := &l.parts[st.todo]
			l.b.Sections[p.section].State[p.class] = entry.PartAccepted
			st.todo = p.next
		}
	}
}

// markTaken marks the lines of a part that is not settled which the store has accepted.
func (l *lane) markTaken(p *part) {
	for pos := p.lo; pos < p.hi; pos++ {
		if l.state[pos] == lineAccepted {
			l.line(pos).Flags |= entry.FlagTaken
			l.b.Taken = true
		}
	}
}

// finish writes the states of the parts into the batch, but for those that
// complete has told of, and reports which are left.
func (l *lane) finish() (pending, held bool) {
	for i := range l.streams {
		st := &l.streams[i]
		for pi := st.todo; pi >= 0; pi = l.parts[pi].next {
			p := &l.parts[pi]
			to := entry.PartAccepted
			if !l.settled(p) {
				l.markTaken(p)
				if st.held != "" {
					to, held = entry.PartHeld, true
				} else {
					to, pending = entry.PartPending, true
				}
			}
			l.b.Sections[p.section].State[p.class] = to
		}
	}
	return pending, held
}
