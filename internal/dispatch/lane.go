package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// slot is a batch with what the lane knows about it.
type slot struct {
	entry.Batch
	since   time.Time // when its oldest lines were submitted
	size    int       // Batch.Size when it was submitted last
	refused bool      // some of its lines bear FlagRefused
	parked  bool      // it belongs to a parkedStream
}

const (
	// warmFor is for how long a lane, or a lane of the spool, keeps its memory, some MiB, when
	// nothing needs it; a lane at most twice as long.
	warmFor = 10 * time.Second
	// smallBatch is as much memory as a batch may have at all times (entry.Batch.Memory), in bytes.
	smallBatch = 256 << 10
)

// waiter is a goroutine that waits in Reserve.
type waiter struct{ granted chan *slot } // room for one

// wakeOn says what is to wake the sender before its timer does.
type wakeOn uint8

const (
	wakeNever wakeOn = iota // it is at work, or pauses
	wakeFull                // a batch that is full
	wakeAny                 // any batch, which is then as good as in the sender's hand
	wakeFirst               // the first batch: how long it may wait is not known before
)

// lane is one ordered road to the store.
type lane struct {
	d     *Dispatcher
	index int
	// wake has room for one: the sender is to look again.
	wake    chan struct{}
	latency latency

	mu sync.Mutex
	// The rest of this group is guarded by mu. The lane's batches, at most
	// BatchesPerLane (made counts them), are in one place each: waiting, oldest
	// first, and all but the newest were full when they were handed on; with a reader; in the sender's hand; or
	// free.
	queue    []*slot
	reserved *slot
	hand     *slot // written by the sender only
	free     []*slot
	made     int
	limit    int // from which a batch is full
	// claimed: the one batch in the queue is as good as in the sender's hand.
	claimed bool
	// used is the most memory that a batch has needed since the last look at that; warm is when to
	// look again, zero while no batch has more than a little.
	used     int
	warm     time.Time
	waiters  []*waiter // first come, first served
	spare    []*waiter
	wakeOn   wakeOn
	draining bool
	health   LaneHealth // all but PendingBytes
	oldest   time.Time  // of what is parked; zero: nothing is

	// The rest belongs to the sender.
	paused      time.Time // nothing is sent before
	fails       int       // attempts in a row that left something pending
	failing     bool
	ripe        time.Time // when a batch that is not full may leave
	afterParked bool
	sending     *slot        // in the present attempt
	progress    bool         // parts were accepted in the present attempt
	spans       []entry.Span // to be acknowledged by settle
	onProgress  func(context.Context)
	parkingLot
}

func newLane(d *Dispatcher, index int) *lane {
	n := d.cfg.BatchesPerLane
	l := &lane{
		d: d, index: index, limit: d.cfg.BatchBytes,
		wake:       make(chan struct{}, 1),
		queue:      make([]*slot, 0, n),
		free:       make([]*slot, 0, n),
		parkingLot: newParkingLot(),
	}
	l.onProgress = l.arrived // once: a method value costs an allocation
	return l
}

func (l *lane) newWaiter() *waiter {
	if n := len(l.spare); n > 0 {
		w := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return w
	}
	return &waiter{granted: make(chan *slot, 1)}
}

// grantable takes a batch for a reader, or gives nil. Called with mu held.
func (l *lane) grantable() *slot {
	sl := l.anyGrantable()
	if sl != nil {
		sl.Limit = l.limit
	}
	return sl
}

func (l *lane) anyGrantable() *slot {
	if l.reserved != nil {
		return nil
	}
	if n := len(l.queue); n > 0 && l.queue[n-1].size < l.limit && !(l.claimed && n == 1) {
		sl := l.queue[n-1]
		l.queue = l.queue[:n-1]
		return sl
	}
	if n := len(l.free); n > 0 {
		sl := l.free[n-1]
		l.free = l.free[:n-1]
		return sl
	}
	if l.made < l.d.cfg.BatchesPerLane {
		l.made++
		return new(slot)
	}
	return nil
}

// grant serves the first in the queue of readers. Called with mu held, after
// every change that may make a batch grantable; so nothing is grantable while a
// reader waits.
func (l *lane) grant() {
	if len(l.waiters) == 0 {
		return
	}
	sl := l.grantable()
	if sl == nil {
		return
	}
	w := l.waiters[0]
	l.waiters = l.waiters[:copy(l.waiters, l.waiters[1:])]
	l.reserved = sl
	w.granted <- sl
}

// putBack takes the reserved batch from its reader. Called with mu held.
func (l *lane) putBack() {
	sl := l.reserved
	l.reserved = nil
	if len(sl.Sections) == 0 {
		sl.Reset()
		l.free = append(l.free, sl)
		l.noteEmpty()
	} else {
		if sl.size == 0 {
			sl.since = time.Now()
		}
		sl.size = sl.Size()
		l.queue = append(l.queue, sl)
		switch {
		case l.wakeOn == wakeAny:
			l.claimed = true
			l.wakeUp()
		case l.wakeOn == wakeFirst, l.wakeOn == wakeFull && sl.size >= l.limit:
			l.wakeUp()
		}
	}
	l.grant()
}

// wakeUp makes the sender look again. Called with mu held.
func (l *lane) wakeUp() {
	l.wakeOn = wakeNever
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// empty reports whether nothing is left in the lane. Called with mu held.
func (l *lane) empty() bool {
	return len(l.queue) == 0 && l.hand == nil && l.reserved == nil && l.health.HeldStreams == 0
}

// noteEmpty tells Drain. Called with mu held.
func (l *lane) noteEmpty() {
	if l.draining && l.empty() {
		select {
		case l.d.drained <- struct{}{}:
		default:
		}
	}
}

// run is the sender: it carries out what decide chooses.
func (l *lane) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		todo, until := l.next(time.Now())
		switch todo {
		case stepTake:
			l.take(ctx)
		case stepResend:
			l.send(ctx)
		case stepParked:
			l.afterParked = true
			l.sendParked(ctx)
		case stepWait:
			var expired <-chan time.Time
			if !until.IsZero() {
				timer.Reset(time.Until(until))
				expired = timer.C
			}
			select {
			case <-l.wake:
			case <-expired:
			case <-ctx.Done():
			}
		}
	}
}

// next chooses the next step; for stepTake the batch is in hand afterwards.
func (l *lane) next(now time.Time) (step, time.Time) {
	due := l.parkedDue()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.publishParked()
	l.noteEmpty()
	if l.draining && l.d.spooling != nil {
		// What the store does not take now goes to the spool.
		if soon := now.Add(pauseMin); l.paused.After(soon) {
			l.paused = soon
		}
		if due.After(now) {
			due = now
			if l.notBefore.After(now) {
				due = l.notBefore
			}
		}
	}
	v := view{
		now: now, paused: l.paused, hand: l.hand != nil,
		ripe: l.ripe, draining: l.draining,
		blocked:   l.parkedBytes > l.d.cfg.ParkedBytes,
		parkedDue: due, afterParked: l.afterParked,
	}
	if n := len(l.queue); n > 0 {
		v.queued = true
		v.full = n > 1 || l.queue[0].size >= l.limit
	}
	todo, until := decide(v)
	l.coolDown(now)
	if !l.warm.IsZero() && (until.IsZero() || l.warm.Before(until)) {
		until = l.warm
	}
	l.claimed = false
	l.wakeOn = wakeNever
	switch {
	case todo == stepTake:
		l.hand = l.queue[0]
		l.queue = l.queue[:copy(l.queue, l.queue[1:])]
	case todo != stepWait || now.Before(v.paused) || v.blocked:
	case v.canTake():
		l.wakeOn = wakeAny
	case !v.queued && !v.hand:
		l.wakeOn = wakeFirst
	default:
		l.wakeOn = wakeFull
	}
	l.grant() // the batch that was claimed, if it is not taken after all
	return todo, until
}

// take sends a batch for the first time, without what belongs behind lines that
// are parked already.
func (l *lane) take(ctx context.Context) {
	l.afterParked = false
	l.divert(l.hand, entry.Outcome{}, time.Now())
	if !l.hand.Pending() {
		l.settle(l.hand, time.Now())
		l.release()
		return
	}
	l.ripe = time.Now().Add(l.d.cfg.BatchWait)
	l.send(ctx)
}

// push makes one attempt with a batch.
func (l *lane) push(ctx context.Context, sl *slot) entry.Outcome {
	l.sending, l.progress = sl, false
	defer func() { l.sending = nil }()
	out := l.d.cfg.Sink.Push(ctx, &sl.Batch, l.onProgress)
	l.progress = l.progress || out.Took
	return out
}

// arrived settles what has been accepted while the attempt goes on. Nothing is
// diverted yet: what will have to be is still pending in the batch, so that its
// span is not done.
func (l *lane) arrived(ctx context.Context) {
	if l.bury(ctx, l.sending) {
		l.settle(l.sending, time.Now())
	}
}

// send makes one attempt with the batch in hand.
func (l *lane) send(ctx context.Context) {
	sl := l.hand
	asked := time.Now()
	out := l.push(ctx, sl)
	now := time.Now()
	if !l.bury(ctx, sl) {
		return
	}
	l.divert(sl, out, now)
	l.settle(sl, now)
	switch {
	case !sl.Pending():
		switch {
		case out.Kept && !l.d.drains: // the spool has it
			l.startSmall()
		case out.Err == nil && !out.Kept && l.fails == 0:
			l.adapt(sl.size, now.Sub(asked), out.Distance)
		}
		l.succeed(now, out.Kept)
		l.release()
	case ctx.Err() == nil:
		l.fail(out, now)
	}
}

// adapt brings the limit up to date, after a batch of which the store has taken all.
func (l *lane) adapt(size int, took, distance time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := mostBytes
	if l.d.drains {
		most = mostFromSpool
	}
	l.limit = nextLimit(l.limit, l.d.cfg.BatchBytes, most, size, took, distance)
}

// startSmall lets batches be as small as at first: nothing is known of how quick the store
// will be.
func (l *lane) startSmall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = l.d.cfg.BatchBytes
}

// release makes the batch in hand, which is done, free for readers.
func (l *lane) release() {
	sl := l.hand
	used, kept := sl.Memory()
	sl.Reset()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hand = nil
	sl.since, sl.size, sl.refused = time.Time{}, 0, false
	l.free = append(l.free, sl)
	l.used = max(l.used, used)
	if l.warm.IsZero() && kept > smallBatch {
		l.warm = time.Now().Add(warmFor)
	}
	l.publishParked()
	l.noteEmpty()
	l.grant()
}

// dropFree gives back the memory of the batches that are free.
func (l *lane) dropFree() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sl := range l.free {
		sl.Batch = entry.Batch{}
	}
}

// coolDown gives back the memory of free batches, once it is time, that is much more than any
// batch has needed for warmFor: what a backlog takes, or a giant line, is not kept for ever.
// Called with mu held.
func (l *lane) coolDown(now time.Time) {
	if l.warm.IsZero() || now.Before(l.warm) {
		return
	}
	enough := max(smallBatch, 4*l.used)
	l.used, l.warm = 0, time.Time{}
	large := l.made > len(l.free) // or may be: those that are in use
	for _, sl := range l.free {
		_, kept := sl.Memory()
		if kept > enough {
			sl.Batch, kept = entry.Batch{}, 0
		}
		large = large || kept > smallBatch
	}
	if large {
		l.warm = now.Add(warmFor)
	}
}

// errNoReason stands in for the word of a sink that gave none.
var errNoReason = errors.New("the store left lines undelivered without giving a reason")

func reason(out entry.Outcome) error {
	if out.Err == nil {
		return errNoReason
	}
	return out.Err
}

// fail notes an attempt that left something pending, and sets the pause. The
// pauses start afresh when the attempt brought anything home.
func (l *lane) fail(out entry.Outcome, now time.Time) {
	l.d.metrics.failed.Inc()
	if l.progress {
		l.fails = 0
	}
	l.fails++
	l.failing = true
	l.paused = now.Add(pause(l.fails, out.Config, out.RetryAfter, l.d.random()))
	err := reason(out)
	l.startSmall()
	l.mu.Lock()
	if l.health.FailingSince.IsZero() {
		l.health.FailingSince = now
	}
	l.health.LastError, l.health.Config = err.Error(), out.Config
	l.mu.Unlock()
	if !l.d.storeTrouble.begin(l.index, out.Config, now) {
		return
	}
	if out.Config {
		l.d.cfg.Logger.Error("log store refuses all lines until the configuration is changed, here or there; they are kept and tried again", "error", err)
	} else {
		l.d.cfg.Logger.Warn("log store does not take lines; they are kept and tried again", "error", err)
	}
}

// succeed notes an attempt that left nothing pending. kept: the store has not
// taken it; who keeps it deals with the store, and tells when it does.
func (l *lane) succeed(now time.Time, kept bool) {
	if !l.failing {
		return
	}
	l.failing = false
	l.fails = 0
	l.paused = time.Time{}
	l.mu.Lock()
	l.health.FailingSince, l.health.LastError, l.health.Config = time.Time{}, "", false
	l.mu.Unlock()
	if say, lasted := l.d.storeTrouble.end(l.index, now); say && !kept {
		l.d.cfg.Logger.Info("log store takes lines again", "after", lasted)
	}
}

// healthAt gives the lane's state.
func (l *lane) healthAt(now time.Time) LaneHealth {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.health
	oldest := l.oldest
	count := func(sl *slot) {
		if sl == nil || sl.size == 0 {
			return
		}
		h.PendingBytes += sl.size
		if oldest.IsZero() || sl.since.Before(oldest) {
			oldest = sl.since
		}
	}
	count(l.hand)
	count(l.reserved)
	for _, sl := range l.queue {
		count(sl)
	}
	if !oldest.IsZero() {
		h.OldestPending = max(0, now.Sub(oldest))
	}
	return h
}
