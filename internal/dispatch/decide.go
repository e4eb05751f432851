package dispatch

import "time"

// step is what the sender of a lane does next.
type step uint8

const (
	// stepWait: nothing can be sent now.
	stepWait step = iota
	// stepResend: the batch in hand is tried again.
	stepResend
	// stepTake: the oldest waiting batch is taken in hand and sent.
	stepTake
	// stepParked: a parked part that is due is tried.
	stepParked
)

// view is all that the choice of a step depends on.
type view struct {
	now time.Time
	// paused: nothing is sent before (the store as a whole has failed).
	paused time.Time
	// hand: a batch has been tried and is not done.
	hand bool
	// queued: a batch waits; full: it cannot take more lines.
	queued, full bool
	// ripe is when a batch that is not full may leave.
	ripe time.Time
	// draining: batches leave whether they are ripe or not.
	draining bool
	// blocked: so much is parked that no batch may be taken.
	blocked bool
	// parkedDue is when the first parked part may be tried; zero: there is none.
	parkedDue time.Time
	// afterParked: the last attempt was a parked part's, so that a batch that is
	// ready goes first.
	afterParked bool
}

// canTake reports whether any batch, full or not, would be taken at once.
func (v view) canTake() bool {
	return !v.now.Before(v.paused) && !v.hand && !v.blocked && (v.draining || !v.now.Before(v.ripe))
}

// decide chooses the next step, and for stepWait until when to wait; the zero
// time means until something is submitted.
func decide(v view) (step, time.Time) {
	if v.now.Before(v.paused) {
		return stepWait, v.paused
	}
	if v.hand {
		return stepResend, time.Time{}
	}
	ready := v.queued && (v.canTake() || v.full && !v.blocked)
	due := !v.parkedDue.IsZero() && !v.now.Before(v.parkedDue)
	switch {
	case due && !(ready && v.afterParked):
		return stepParked, time.Time{}
	case ready:
		return stepTake, time.Time{}
	}
	until := v.parkedDue
	// Without a batch no timer runs: readers mostly come at their own tick, when
	// the next is ripe already. One that is not wakes the sender, once, for this.
	if v.queued && !v.blocked && v.now.Before(v.ripe) && (until.IsZero() || v.ripe.Before(until)) {
		until = v.ripe
	}
	return stepWait, until
}

const (
	// A batch has at most nearFactor times Config.BatchBytes, farFactor times where the store is
	// far away; and not more than mostBytes, unless BatchBytes is.
	nearFactor, farFactor = 3, 6
	mostBytes             = 6 << 20
	// mostFromSpool is the like for what comes out of the spool: beside it there are the batches that go in.
	mostFromSpool = 3 << 20
	// batchTime is how long a batch may be under way for the next to be larger: a line of a
	// quiet container waits for two.
	batchTime = 50 * time.Millisecond
)

// nextLimit gives the size from which a lane's batches are full, after one of a size has been
// delivered in a time by a store at a distance (entry.Outcome): as much as can be in batchTime, within
// bounds. The store has several requests of a batch at once, and the next batch comes when all are
// answered: the larger it is, the less time goes by in waiting. The distance is the same for a larger
// batch, so what is beyond it may take batchTime by itself, as long as a line does not wait for more than
// three times the distance altogether. It is at most most, unless least is more. A batch that is much
// smaller than least says nothing.
func nextLimit(limit, least, most, size int, took, distance time.Duration) int {
	if size < least/2 {
		return limit
	}
	fits := func(within, needed time.Duration, factor int) float64 {
		return min(float64(size)*float64(within)/float64(max(needed, 1)), float64(factor*least))
	}
	near := fits(batchTime, took, nearFactor)
	far := fits(min(batchTime, 2*distance), took-distance, farFactor)
	return int(max(min(max(near, far), float64(most)), float64(least)))
}

// Pauses between attempts (loki-facts: 0.25 s to 10 s with jitter; what only a
// change of configuration will mend is tried slowly).
const (
	pauseMin       = 250 * time.Millisecond
	pauseMax       = 10 * time.Second
	configPauseMin = 5 * time.Second
	configPauseMax = 60 * time.Second
	retryAfterMax  = 60 * time.Second
)

// pause is how long to wait after the given number (1, 2, ...) of failed
// attempts in a row. random, in [0,1), takes off up to a quarter, so that agents
// which lost the store together do not come back together. The store's own wish,
// retryAfter, is honoured up to a minute.
func pause(fails int, config bool, retryAfter time.Duration, random float64) time.Duration {
	d, limit := pauseMin, pauseMax
	if config {
		d, limit = configPauseMin, configPauseMax
	}
	for i := 1; i < fails && d < limit; i++ {
		d *= 2
	}
	d = min(d, limit)
	d -= time.Duration(float64(d) / 4 * random)
	return max(d, min(retryAfter, retryAfterMax))
}
