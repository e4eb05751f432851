package loki

import "time"

// Loki's ingester answers only what became of the last stream of a push
// (pkg/ingester/instance.go, Push): of [A refused, B fine] it says 204 and A's
// lines are gone. A push for each stream would be safe and too dear (about
// 100 us of Loki's CPU each). So streams share a push only while a refusal is
// not to be expected: while each is small (no rate limit), was accepted alone a
// short time ago (no stream limit: an idle stream is only dropped after
// chunk_idle_period, 30 min), and its lines are not much behind the newest that
// was sent (too far behind is 1 h).
const (
	togetherBytes  = 64 << 10
	togetherFor    = 30 * time.Minute
	togetherBehind = 30 * time.Minute
	// spreadFor is how much earlier a stream may be due to travel alone again,
	// by a hash of its labels, so that 1,000 streams are not due at once.
	spreadFor = 10 * time.Minute
)

// traveller is what is known of a stream that is to be sent.
type traveller struct {
	size   int       // bytes of the stream in a request
	proven time.Time // when it was last accepted in a push of its own; zero: never
	spread time.Duration
	sent   int64 // newest line sent, ns since the epoch; no meaning while not proven
	oldest int64 // oldest line to be sent
	most   int   // bytes of it that a request may have, 0: any number
	fall   int64 // the most that a line to be sent is older than one before it, ns
}

// mayShare reports whether a stream may share a push with others.
func mayShare(t traveller, now time.Time) bool {
	if t.proven.IsZero() || t.size > togetherBytes || t.most > 0 && t.size > t.most {
		return false
	}
	age := now.Sub(t.proven)
	return age >= 0 && age <= togetherFor-t.spread && t.oldest >= t.sent-int64(togetherBehind) && t.fall <= int64(togetherBehind)
}

// plan shares out streams over pushes of at most limit bytes. It appends the
// indices of the streams to order, and for each push the end of its run in
// order to ends. A stream that is larger than limit has a push of its own and
// must be split by lines.
func plan(ts []traveller, now time.Time, limit int, order, ends []int32) (_, _ []int32) {
	size, open := 0, false
	for i := range ts {
		if !mayShare(ts[i], now) {
			continue
		}
		if open && size+ts[i].size > limit {
			ends = append(ends, int32(len(order)))
			size = 0
		}
		order = append(order, int32(i))
		size, open = size+ts[i].size, true
	}
	if open {
		ends = append(ends, int32(len(order)))
	}
	for i := range ts {
		if !mayShare(ts[i], now) {
			order = append(order, int32(i))
			ends = append(ends, int32(len(order)))
		}
	}
	return order, ends
}
