package loki

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

const (
	// maxSplits is how many requests an attempt spends on finding the lines
	// that are refused without a known reason.
	maxSplits = 64
	// maxAnswer is how much of an answer is read. Loki's 400 names every line
	// that is too old with its second: with time it can be long.
	maxAnswer = 1 << 20
	// maxAgain is how often a request is sent again because the store says it
	// refused more lines than its limits explain; then the lines are searched.
	maxAgain = 2
)

// Client delivers batches to one endpoint. Push is safe for concurrent use with
// different batches.
type Client struct {
	cfg     Config
	url     *url.URL
	shown   string // the URL without secrets
	auth    *auth
	hide    []string // not to be told: values of headers, the proxy's password
	poster  poster
	proxy   *url.URL // from the environment; nil: none
	log     *slog.Logger
	metrics *metrics
	health  health
	table   streamTable
	now     func() time.Time
	window  window

	metaOff   atomic.Bool // the store takes no structured metadata
	saidSplit atomic.Bool
	badSecret atomic.Bool

	mu   sync.Mutex
	free []*lane
}

// New makes a client. Close it.
func New(cfg Config) (*Client, error) {
	c, err := newClient(cfg, http.ProxyFromEnvironment)
	if err != nil {
		return nil, fmt.Errorf("loki sink: %w", err)
	}
	return c, nil
}

// newClient makes a client. proxyOf gives the proxy of a request, nil for none.
func newClient(cfg Config, proxyOf func(*http.Request) (*url.URL, error)) (*Client, error) {
	if cfg.BatchBytes <= 0 {
		cfg.BatchBytes = defaultBatchBytes
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	u, err := endpoint(&cfg)
	if err != nil {
		return nil, err
	}
	a, err := newAuth(&cfg)
	if err != nil {
		return nil, err
	}
	h, err := header(&cfg)
	if err != nil {
		return nil, err
	}
	if a.value != "" {
		h.Del("Authorization") // there is one already
	}
	t, err := tlsConfig(cfg.TLS)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	proxy, err := proxyOf(&http.Request{URL: u})
	if err != nil {
		// The error repeats it, password included.
		return nil, errors.New("the proxy that HTTP_PROXY or HTTPS_PROXY of the environment names is not a URL")
	}
	c := &Client{
		cfg: cfg, url: u, shown: withoutSecrets(u.String()), auth: a, proxy: proxy,
		log: cfg.Logger, metrics: m, now: time.Now, window: window{n: 1, most: maxFlights},
	}
	if proxy == nil {
		c.poster = newConnections(u, h, t, cfg.Timeout)
	} else {
		c.poster = newProxied(u, proxy, h, t, cfg.Timeout)
	}
	for _, v := range cfg.Headers {
		if len(v) >= 8 {
			c.hide = append(c.hide, v)
		}
	}
	if proxy != nil && proxy.User != nil {
		password, _ := proxy.User.Password()
		for _, v := range []string{password, base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))} {
			if len(v) >= 4 {
				c.hide = append(c.hide, v)
			}
		}
	}
	return c, nil
}

// Close closes the idle connections. No Push may be under way.
func (c *Client) Close() { c.poster.close() }

// Health tells how the store has been doing. Safe for concurrent use.
func (c *Client) Health() Health { return c.health.get() }

// take gives a lane from those that are free. There are as many as pushes were
// ever under way at once.
func (c *Client) take() *lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		l := c.free[n-1]
		c.free = c.free[:n-1]
		return l
	}
	return new(lane)
}

func (c *Client) give(l *lane) {
	l.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, l)
}

// Push makes one attempt at the pending parts of the batch. See entry.Outcome
// and the PartStates for what it leaves behind. When some parts are pending and
// others held, the outcome speaks of the pending ones.
//
// progress is called after each answer but the last: the store is there. Parts may have
// become PartAccepted; it may change the states of these and clear the refusals.
func (c *Client) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	l := c.take()
	defer c.give(l)
	at := attempt{c: c, l: l}
	at.plan(b)
	at.run(ctx, progress)
	return at.finish()
}

// attempt is one Push.
type attempt struct {
	c       *Client
	l       *lane
	took    bool // the store has accepted lines
	budget  int  // requests left to search for lines
	stopped bool
	err     string // why parts are pending
	config  bool
	after   time.Duration
	quiet   bool // our own context ended: no fault of the store
	overlap bool // a request was sent while another was on its way
}

// plan decides on the first requests.
func (a *attempt) plan(b *entry.Batch) {
	c, l := a.c, a.l
	a.budget = maxSplits
	now := c.now()
	l.collect(b, c.cfg.StructuredMetadata && !c.metaOff.Load())
	l.travellers, l.order, l.ends = l.travellers[:0], l.order[:0], l.ends[:0]
	c.table.mu.Lock()
	for i := range l.streams {
		st := c.table.get(l.streams[i].text, now)
		l.streams[i].bare, l.streams[i].most = st.bare, st.most
		l.travellers = append(l.travellers, traveller{proven: st.proven, spread: st.spread, sent: st.sent, most: st.most})
	}
	c.table.mu.Unlock()
	l.fill()
	for i := range l.streams {
		st := &l.streams[i]
		l.travellers[i].size = streamSize(len(st.text), st.size)
		l.travellers[i].oldest, l.travellers[i].fall = st.oldest, st.fall
		if !l.travellers[i].proven.IsZero() || st.lo == st.hi {
			continue // a store has taken them, or there is nothing to send
		}
		if why := badLabels(st.labels); why != "" {
			a.hold(int32(i), why, true)
		}
	}
	l.order, l.ends = plan(l.travellers, now, c.cfg.BatchBytes, l.order, l.ends)
	l.share(c.cfg.BatchBytes, c.window.get() > 1)
}

// badLabels says why no store takes a set of labels, or "". Limits that can be
// configured at the store (how many, how long) are left to its answer; values
// are cut when a set is made.
func badLabels(labels []entry.Label) string {
	if len(labels) == 0 {
		return "the stream has no label"
	}
	for i := range labels {
		name := labels[i].Name
		for j := range len(name) {
			c := name[j]
			if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (j == 0 || c < '0' || c > '9') {
				return "the label name " + strconv.Quote(name) + " has a character that is not allowed"
			}
		}
		if name == "" {
			return "a label has no name"
		}
	}
	return ""
}

// run sends what is on the stack until it is empty or an answer concerns all. While the answer
// to a request is on its way others are sent, of other streams: a store far away, or one that
// takes its time, would have us wait for most of it. Lines of one stream are never in two requests at
// once, and no request is sent beside one that is in any doubt.
func (a *attempt) run(ctx context.Context, progress func(context.Context)) {
	l := a.l
	for !a.stopped && len(l.stack)+len(l.flights) > 0 {
		if n := len(l.flights); n > 0 {
			l.encodeAhead()
			free := l.mayFollow() && !l.flights[0].answered()
			if full := n >= a.c.window.get(); full || !free {
				a.land(ctx, progress, full && free)
				continue
			}
		}
		r := l.stack[len(l.stack)-1]
		l.stack = l.stack[:len(l.stack)-1]
		if l.dirty {
			if r = l.prune(r); r.from == r.to {
				continue
			}
		}
		if r.split >= 0 && !l.splits[r.split].sized {
			if a.budget == 0 {
				a.leave(r)
				continue
			}
			a.budget--
		}
		a.overlap = a.overlap || len(l.flights) > 0
		a.c.send(ctx, l, r)
	}
	for len(l.flights) > 0 {
		a.land(ctx, progress, false)
	}
}

// land waits for the answer to the request that was sent first, and does what it asks for. narrow
// tells that it is the window that keeps another from being sent meanwhile.
func (a *attempt) land(ctx context.Context, progress func(context.Context), narrow bool) {
	c, l := a.c, a.l
	f := l.flights[0]
	l.flights = slices.Delete(l.flights, 0, 1)
	l.fly(f.request, false)
	v := c.receive(ctx, l, &f)
	now := time.Now()
	c.window.note(v.kind, now.Sub(f.start), narrow, now)
	if v.reason != "" {
		c.metrics.errors.WithLabelValues(v.reason).Inc()
	}
	a.after = max(a.after, v.after)
	// What the answer means depends on what was sent.
	meta := l.withMeta
	l.withMeta = f.withMeta
	a.act(ctx, f.request, &v)
	l.withMeta = l.withMeta && meta
	if len(l.stack)+len(l.flights) > 0 && !a.stopped {
		l.complete(f.request)
		progress(ctx)
		if l.b.Enough {
			a.stop("no more is sent: the agent stops", false)
			a.quiet = true
		}
	}
}

// act does what a verdict asks for.
func (a *attempt) act(ctx context.Context, r request, v *verdict) {
	l := a.l
	n := l.count(r)
	switch v.kind {
	case kindAccepted:
		a.accept(r)
	case kindConfig, kindRetry, kindPause:
		if !a.stopped {
			a.quiet = ctx.Err() != nil
		}
		a.stop(v.text, v.kind == kindConfig)
	case kindStream:
		l.dirty = true
		id := l.find(r, v.stream)
		if id >= 0 {
			a.hold(id, v.text, false)
			if v.rate {
				a.c.table.shrink(l.streams[id].text, l.sizeOf(r, id), a.c.now())
			}
		}
		l.oneByOne(r, id)
	case kindSplit:
		a.tooLarge(r, v, n)
	case kindLines:
		a.apply(r, v)
	case kindUnknown:
		a.search(r, v, n)
	}
}

// stop ends the attempt; what is not settled stays pending. What was on its way with the
// request that did may have a reason of its own: the first counts.
func (a *attempt) stop(text string, config bool) {
	if !a.stopped {
		a.stopped, a.err, a.config = true, text, config
	}
}

// hold parks a stream: the rest of its lines is not sent in this attempt.
func (a *attempt) hold(id int32, text string, config bool) {
	st := &a.l.streams[id]
	if st.held == "" {
		st.held, st.heldConfig = text, config
	}
}

// accept notes that all lines of a request are taken.
func (a *attempt) accept(r request) {
	c, l := a.c, a.l
	now := c.now()
	alone := r.to-r.from == 1
	for i := r.from; i < r.to; i++ {
		s := &l.spans[i]
		if newest, n := l.mark(s, linePending); n > 0 {
			st := &l.streams[s.stream]
			c.table.accepted(st.text, newest, alone, now)
			if st.most > 0 {
				st.took += s.size
				c.table.grow(st.text, st.took, now)
			}
		}
	}
	if r.split >= 0 {
		l.splits[r.split].took = true
	}
	a.took = true
	c.health.success(now)
}

// mark makes the lines of a span that are in a state accepted, and gives the
// newest of them and their number.
func (l *lane) mark(s *span, from uint8) (newest int64, n int) {
	for pos := s.lo; pos < s.hi; pos++ {
		if l.state[pos] != from {
			continue
		}
		l.state[pos] = lineAccepted
		if t := l.line(pos).Time; n == 0 || t > newest {
			newest = t
		}
		n++
	}
	return newest, n
}

// tooLarge halves a request that is too large for the store.
func (a *attempt) tooLarge(r request, v *verdict, n int32) {
	l := a.l
	l.dirty = true
	if n == 1 && strings.HasPrefix(v.text, "answer 500") {
		// One line is no large message: the store means its memory.
		a.stop(v.text, false)
		return
	}
	if r.split < 0 {
		l.splits = append(l.splits, search{sized: true})
		r.split = int32(len(l.splits) - 1)
	}
	if n == 1 {
		a.suspect(r, v, true)
		return
	}
	if a.c.saidSplit.CompareAndSwap(false, true) {
		a.c.log.Warn("the store refuses requests of this size; they are sent in halves: lower sinks.loki.batch_bytes or raise the store's limit",
			"url", a.c.shown, "bytes", l.bytes(r), "answer", v.text)
	}
	l.halve(r, r.split)
}

// search goes on to find the lines for which a request is refused.
func (a *attempt) search(r request, v *verdict, n int32) {
	l := a.l
	l.dirty = true
	if r.split < 0 {
		l.splits = append(l.splits, search{})
		r.split = int32(len(l.splits) - 1)
	}
	sp := &l.splits[r.split]
	sp.sized, sp.reason = false, v.text
	if n == 1 {
		a.suspect(r, v, false)
		return
	}
	l.halve(r, r.split)
}

// suspect notes the one line of a request, which was refused alone.
func (a *attempt) suspect(r request, v *verdict, large bool) {
	l := a.l
	l.splits[r.split].reason = v.text
	for i := r.from; i < r.to; i++ {
		s := l.spans[i]
		for pos := s.lo; pos < s.hi; pos++ {
			if l.state[pos] == linePending {
				l.suspects = append(l.suspects, suspect{pos, r.split, large, v.text})
			}
		}
	}
}

// leave gives a request up that the search has no request left for.
func (a *attempt) leave(r request) {
	a.l.dirty = true
	a.l.splits[r.split].open = true
	for i := r.from; i < r.to; i++ {
		a.l.streams[a.l.spans[i].stream].stuck = true
	}
}

// judge ends the searches. A line refused alone is to blame only when the store
// took another of the same search; otherwise it may be the stream, or we, that
// the store does not like, which is a matter of configuration. A 413 for a
// single line leaves less doubt: that the store has ever taken lines is enough.
func (a *attempt) judge() {
	l := a.l
	ever := a.took || !a.c.health.get().LastSuccess.IsZero()
	for _, s := range l.suspects {
		if l.state[s.pos] != linePending || !l.splits[s.split].took && !(s.large && ever) {
			continue
		}
		_, p := l.partOf(s.pos)
		l.refuse(s.pos, p, s.reason)
	}
	for i := range l.splits {
		sp := &l.splits[i]
		if a.stopped || !a.unsettled(int32(i)) {
			continue
		}
		switch {
		case sp.took:
			// Progress was made; the next attempt goes on with what is left.
			a.stop("the store refuses lines without a reason that is known; the search for them goes on: "+sp.reason, false)
		case a.took:
			// The store takes other streams: those of this search wait alone.
			for _, s := range l.suspects {
				if int(s.split) == i {
					id, _ := l.partOf(s.pos)
					a.hold(id, sp.reason, true)
				}
			}
			if sp.open {
				a.stop(sp.reason, true)
			}
		default:
			a.stop(sp.reason, true)
		}
	}
}

// unsettled reports whether a search has lines left that are neither accepted
// nor refused.
func (a *attempt) unsettled(split int32) bool {
	if a.l.splits[split].open {
		return true
	}
	for _, s := range a.l.suspects {
		if s.split == split && a.l.state[s.pos] == linePending {
			return true
		}
	}
	return false
}

// apply handles a 400 whose reasons we know: the limits are applied to all
// lines of the request, the rest counts as stored.
func (a *attempt) apply(r request, v *verdict) {
	c, l := a.c, a.l
	now := c.now()
	l.dirty = true
	lost := v.cut    // the text does not explain all that was refused
	unnamed := false // a stream is meant, and we cannot say which
	hadMeta := l.withMeta
	bulky := int32(-1) // any one: set when some stream's metadata is too large
	for _, name := range v.labels {
		if id := l.find(r, name); id >= 0 {
			a.hold(id, v.text, true)
		} else {
			unnamed = true
		}
	}
	for _, name := range v.bulky {
		id := l.find(r, name)
		if id < 0 || !hadMeta || l.streams[id].bare {
			unnamed = unnamed || id < 0
			lost = true
			continue
		}
		bulky = id
	}
	behind := int32(-1)
	if v.behind.n > 0 {
		if behind = l.find(r, v.behind.stream); behind < 0 {
			unnamed = true
		}
	}
	if unnamed {
		if r.to-r.from > 1 {
			l.oneByOne(r, -1)
			return
		}
		lost = true
	}
	if v.noMetadata && !hadMeta {
		lost = true
	}

	var oldAt, newAt, behindAt int64
	if v.tooOld.n > 0 {
		oldAt = l.below(r, v.tooOld, -1)
	}
	if v.tooNew.n > 0 {
		newAt = l.above(r, v.tooNew)
	}
	if behind >= 0 {
		behindAt = l.below(r, v.behind.timeLimit, behind)
	}
	var nOld, nNew, nLong, nBehind, nSent int
	var last int64 // time of the line before, of the stream that is behind
	fell := false  // its times fall
	for i := r.from; i < r.to; i++ {
		s := &l.spans[i]
		st := &l.streams[s.stream]
		if l.skip(s.stream) {
			continue
		}
		stripped := v.noMetadata || bulky >= 0 && a.isBulky(r, v, s.stream)
		for pi := st.first; pi >= 0; pi = l.parts[pi].next {
			p := &l.parts[pi]
			for pos := max(s.lo, p.lo); pos < min(s.hi, p.hi); pos++ {
				if l.state[pos] != linePending {
					continue
				}
				ln := l.line(pos)
				if s.stream == behind {
					fell = fell || nSent > 0 && ln.Time < last
					last = ln.Time
					nSent++
				}
				switch {
				case v.tooOld.n > 0 && ln.Time < oldAt:
					nOld++
					l.refuse(pos, p, v.tooOld.text)
				case v.tooNew.n > 0 && ln.Time >= newAt:
					nNew++
					l.refuse(pos, p, v.tooNew.text)
				case v.tooLong.n > 0 && int(ln.Len) > v.tooLong.max:
					nLong++
					l.refuse(pos, p, v.tooLong.text)
				case s.stream == behind && ln.Time < behindAt:
					nBehind++
					l.refuse(pos, p, v.behind.text)
				case stripped && (l.metaLen(st, p) > 0 || ln.Flags&entry.FlagPartial != 0 && l.withMeta && !st.bare):
					// Stays pending: to be sent again without metadata.
				default:
					l.state[pos] = lineRest
				}
			}
		}
	}
	lost = lost || nOld < v.tooOld.n || nNew < v.tooNew.n || nLong < v.tooLong.n
	// The limit moves with each line that is taken. Where times fall, a line may
	// have been taken before a younger one was refused, and the count fits the
	// wrong lines: what seems to be taken is sent again, under a limit that is
	// final by then.
	//
	// What the distributor has dropped before the ingester saw the stream it
	// does not tell when the ingester refuses, too; nor what it has dropped of other
	// streams, whose lines are sent again in any case. A shard of a stream has
	// fewer lines anyway.
	hidden := behind >= 0 && (fell || v.behind.mixed || nBehind < v.behind.n ||
		v.behind.total > 0 && v.behind.total < nSent && !strings.Contains(v.behind.stream, "__stream_shard__"))
	took := false
	for i := r.from; i < r.to; i++ {
		s := &l.spans[i]
		if lost || behind >= 0 && (hidden || s.stream != behind) {
			for pos := s.lo; pos < s.hi; pos++ {
				if l.state[pos] == lineRest {
					l.state[pos] = linePending
				}
			}
			continue
		}
		if newest, n := l.mark(s, lineRest); n > 0 {
			c.table.accepted(l.streams[s.stream].text, newest, false, now)
			took = true
		}
	}
	if took {
		a.took = true
		if r.split >= 0 {
			l.splits[r.split].took = true
		}
		c.health.success(now)
	}

	if v.noMetadata && hadMeta {
		l.withMeta = false
		if c.metaOff.CompareAndSwap(false, true) {
			c.log.Warn("the store does not allow structured metadata; lines are sent without it from now on: set sinks.loki.structured_metadata to false, or allow it at the store (limits_config.allow_structured_metadata)",
				"url", c.shown)
		}
	}
	for _, name := range v.bulky {
		if id := l.find(r, name); id >= 0 {
			l.streams[id].bare = true
			if c.table.strip(l.streams[id].text, now) {
				c.log.Warn("the store refuses a stream's structured metadata as too large; its lines are sent without it",
					"url", c.shown, "stream", shorten([]byte(l.streams[id].text)))
			}
		}
	}
	// Again with what is left, if anything is.
	if lost || hidden {
		r.again++
	}
	rest := l.prune(r)
	if rest.from == rest.to {
		return
	}
	if rest.again > maxAgain {
		a.search(rest, v, l.count(rest))
		return
	}
	l.stack = append(l.stack, rest)
}

// isBulky reports whether the verdict names the stream as one with too much
// metadata.
func (a *attempt) isBulky(r request, v *verdict, id int32) bool {
	for _, name := range v.bulky {
		if a.l.find(r, name) == id {
			return true
		}
	}
	return false
}

// below gives the time before which lines are refused by a limit that the store
// rounds down to a second: the number of lines refused tells the rest. Only
// lines of one stream count, or of all with -1.
func (l *lane) below(r request, lim timeLimit, only int32) int64 {
	end := lim.at + 1e9
	l.times = l.times[:0]
	l.each(r, only, func(t int64) {
		if t < end {
			l.times = append(l.times, t)
		}
	})
	if len(l.times) < lim.n {
		return end
	}
	slices.Sort(l.times)
	return max(lim.at, l.times[lim.n-1]+1)
}

// above is the like for lines refused from a time on, the lowest that the store
// has named.
func (l *lane) above(r request, lim timeLimit) int64 {
	l.times = l.times[:0]
	l.each(r, -1, func(t int64) {
		if t >= lim.at {
			l.times = append(l.times, t)
		}
	})
	if len(l.times) < lim.n {
		return lim.at
	}
	slices.Sort(l.times)
	return min(lim.at+1e9, l.times[len(l.times)-lim.n])
}

// each calls f with the time of each pending line of a request.
func (l *lane) each(r request, only int32, f func(int64)) {
	for i := r.from; i < r.to; i++ {
		s := &l.spans[i]
		if only >= 0 && s.stream != only || l.skip(s.stream) {
			continue
		}
		for pos := s.lo; pos < s.hi; pos++ {
			if l.state[pos] == linePending {
				f(l.line(pos).Time)
			}
		}
	}
}

// finish ends the attempt.
func (a *attempt) finish() entry.Outcome {
	c, l := a.c, a.l
	a.judge()
	pending, held := l.finish()
	out := entry.Outcome{RetryAfter: a.after, Took: a.took}
	if held {
		n, text, stream, config := 0, "", "", true
		for i := range l.streams {
			if st := &l.streams[i]; st.held != "" {
				if n++; text == "" {
					text, stream = st.held, st.text
				}
				config = config && st.heldConfig
			}
		}
		text = fmt.Sprintf("push to %s: %d stream(s) refused for now, the first %s: %s", c.shown, n, shorten([]byte(stream)), text)
		text = c.scrub(text)
		c.health.held(c.now(), text)
		if !pending {
			out.Err, out.Config = errors.New(text), config
		}
	}
	if pending {
		text := "push to " + c.shown + ": " + a.err
		if a.err == "" {
			text += "lines are left to be sent"
		}
		text = c.scrub(text)
		out.Err, out.Config = errors.New(text), a.config
		if !a.quiet {
			c.health.failure(c.now(), text, a.config)
		}
	}
	if out.Err == nil {
		out.RetryAfter = 0
	}
	if a.overlap && !l.lopsided() {
		out.Distance = c.window.distance(time.Now())
	}
	return out
}

// scrub takes secrets out of a text that a store or a proxy may have echoed.
func (c *Client) scrub(s string) string {
	secret, encoded := c.auth.secrets()
	for _, h := range [...]string{secret, encoded} {
		if len(h) >= 4 {
			s = strings.ReplaceAll(s, h, "[redacted]")
		}
	}
	for _, h := range c.hide {
		s = strings.ReplaceAll(s, h, "[redacted]")
	}
	return s
}

// send sends one request.
func (c *Client) send(ctx context.Context, l *lane, r request) {
	now := c.now()
	authorization, err := c.auth.header(now)
	if err != nil {
		// The secret known before may still be good.
		c.metrics.errors.WithLabelValues(reasonSecret).Inc()
		if c.badSecret.CompareAndSwap(false, true) {
			c.log.Warn("the file with the store's credentials cannot be read; those read before are used", "error", err)
		}
	} else if c.badSecret.CompareAndSwap(true, false) {
		c.log.Info("the file with the store's credentials can be read again")
	}
	payload := l.body(r)
	start := time.Now()
	l.flights = append(l.flights, flight{
		request: r, withMeta: l.withMeta, start: start, bytes: len(payload),
		exchange: c.poster.send(ctx, start.Add(c.cfg.Timeout), authorization, payload),
	})
	l.fly(r, true)
}

// receive waits for the answer to a request and says what it means.
func (c *Client) receive(ctx context.Context, l *lane, f *flight) verdict {
	answer, err := f.receive(ctx, l)
	c.metrics.seconds.Observe(time.Since(f.start).Seconds())
	if err != nil {
		c.metrics.requests.WithLabelValues("error").Inc()
		return c.broken(ctx, err, answer.status)
	}
	c.metrics.requests.WithLabelValues(strconv.Itoa(answer.status)).Inc()
	c.metrics.sent.Add(float64(f.bytes))
	v := classify(answer.status, answer.header, l.answer, answer.cut, c.now())
	if v.kind == kindConfig && (answer.status == http.StatusUnauthorized || answer.status == http.StatusForbidden) {
		c.auth.refused()
	}
	return v
}

// readText reads an answer's text into a buffer, which it may replace. cut tells that there is
// more.
func readText(buf []byte, r io.Reader) (text []byte, cut bool, err error) {
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, 4<<10)
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), maxAnswer+1)])
		buf = buf[:len(buf)+n]
		if len(buf) > maxAnswer {
			return buf[:maxAnswer], true, nil
		}
		if err == io.EOF {
			return buf, false, nil
		}
		if err != nil {
			return buf, false, err
		}
	}
}

// broken is the verdict on a request without an answer, or with half of one:
// what the store did with it is unknown.
func (c *Client) broken(ctx context.Context, err error, status int) verdict {
	v := verdict{kind: kindRetry, reason: reasonNetwork}
	var untrusted *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil:
		v.reason = reasonTimeout // we have waited as long as we would
		v.text = "given up: " + context.Cause(ctx).Error()
	case isTimeout(err):
		v.reason = reasonTimeout
		v.text = fmt.Sprintf("no answer within %s", c.cfg.Timeout)
	case errors.As(err, &untrusted):
		v.kind, v.reason = kindConfig, reasonConfig
		v.text = "the store's certificate is not trusted: " + err.Error() + " (check tls.ca_file and tls.server_name)"
	default:
		v.text = shorten([]byte(err.Error()))
	}
	if status != 0 {
		v.text = fmt.Sprintf("answer %d was cut off: %s", status, v.text)
	}
	return v
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
