package monitors

import (
	"cmp"
	"slices"
	"time"
)

const (
	// turnEvery is the least time from the start of a container's turn to the
	// start of its next. Docker's `since` seeks nothing: for each turn the
	// daemon decodes the container's whole history from its oldest file, to
	// throw away all but the end.
	turnEvery = 10 * time.Second

	// turnShare is which part of the connections is kept for turns when not all
	// containers can be followed. The rest are worth more to followers: they
	// are up to date, and cost the daemon its history but once.
	turnShare = 5
)

// streamView is what the plan needs to know of a container that is streamed.
type streamView struct {
	id      string
	running bool
	// following and turning: a connection is open, of that kind. Never both. A
	// connection that was told to stop counts until it is closed.
	following, turning bool
	// unread: it has exited, and its log has not been read to its end since.
	unread bool
	// readAt is when its log was last known to be read to its end; zero: never.
	readAt time.Time
	// turnAt is when its last turn began; zero: it had none.
	turnAt time.Time
	// retryAt is when it may be tried again after an error; zero: at any time.
	retryAt time.Time
	// stopped: it must not be read now, since the store holds it back or it has
	// been removed.
	stopped bool
}

// open says whether it has a connection.
func (v *streamView) open() bool { return v.following || v.turning }

// follower says whether it has a connection for as long as it runs. That of one
// that has exited is about to end: it is as good as a turn.
func (v *streamView) follower() bool { return v.following && v.running }

// turnDue is when its next turn may begin.
func (v *streamView) turnDue() time.Time { return later(v.retryAt, v.turnAt.Add(turnEvery)) }

// queued is a view in the order of who has waited longest.
type queued struct {
	*streamView
	// waited is for how long it has not been read. A turn counts although it
	// failed, so that the container goes to the back of the queue as well:
	// otherwise a few such would have all the turns.
	waited time.Duration
}

func (v *streamView) queued(now time.Time) queued {
	return queued{v, now.Sub(later(v.readAt, v.turnAt))} // the longest there is if both are zero
}

func longestFirst(a, b queued) int {
	if c := cmp.Compare(b.waited, a.waited); c != 0 {
		return c
	}
	return cmp.Compare(a.id, b.id)
}

// streamPlan says what to do with connections. Those in stop must be closed
// before the new ones are opened; that done, there are never more than the
// limit.
type streamPlan struct {
	follow []string // open one for as long as the container runs
	turn   []string // open one that ends where the log ends now
	stop   []string // close it
	// next is when to plan again if there is no news before: the earliest time
	// at which a container for which there is a slot may be read. Zero: only
	// news (a container, a connection that ends) can change the plan.
	next time.Time
}

// planStreams divides limit connections (at least 1) to the engine among the
// containers that are streamed: limit bounds connections, not containers.
//
//   - As long as all that run can be followed, they are, with room left for one
//     turn if any exited one is still to be read. Those are read in turns, in
//     the slots that the running ones leave.
//   - Otherwise one slot in turnShare is kept for turns, at least one, and the
//     others are for followers. Who follows goes on, since beginning costs the
//     daemon a read of the whole history; a free slot goes to the one that has
//     waited longest. The other running ones and the exited ones are read in
//     turns, whoever has waited longest first. Surplus followers make room, but
//     only as many as there are turns to begin now, the most recently read
//     first: they lose least.
//
// So each is read in the end: nobody has a second turn while another that could
// have had one waits. The times of those that have never been read are zero, so
// that they come first; who fears that new ones come for ever, faster than they
// can be read, gives readAt the time at which a container became known.
//
// A turn that has begun is stopped only if the limit itself was lowered below
// what is open. The plan depends on views as a set: their order has no effect.
func planStreams(views []streamView, limit int, now time.Time) streamPlan {
	var plan streamPlan
	var open, waiting []queued
	running, following, turning := 0, 0, 0
	unread := 0
	for i := range views {
		v := &views[i]
		if v.stopped {
			if v.open() {
				plan.stop = append(plan.stop, v.id)
			}
			continue
		}
		if v.running {
			running++
		} else if v.unread {
			unread = 1 // one turn at a time is enough to get through them
		}
		switch {
		case v.follower():
			following++
			open = append(open, v.queued(now))
		case v.open():
			turning++
			open = append(open, v.queued(now))
		case v.running || v.unread:
			waiting = append(waiting, v.queued(now))
		}
	}
	slices.Sort(plan.stop)
	slices.SortFunc(open, longestFirst)
	slices.SortFunc(waiting, longestFirst)

	followSlots := running
	if running+unread > limit {
		followSlots = limit - max(1, limit/turnShare)
	}
	turnSlots := limit - followSlots

	// What begins. Where there is a slot for each that runs, none of them gets as
	// far as a turn. While turns hold more than their slots, followers wait for
	// them to end; while followers do, turns have them stopped.
	left := waiting[:0]
	for _, v := range waiting {
		switch {
		case v.running && following < followSlots && following+turning < limit && !v.retryAt.After(now):
			plan.follow = append(plan.follow, v.id)
			following++
		case turning < turnSlots && !v.turnDue().After(now):
			plan.turn = append(plan.turn, v.id)
			turning++
		default:
			left = append(left, v)
		}
	}

	// What has to end for that.
	stop := func(v queued, n *int) {
		plan.stop = append(plan.stop, v.id)
		*n--
	}
	for _, v := range slices.Backward(open) {
		if v.follower() && following > followSlots && following+turning > limit {
			stop(v, &following)
		}
	}
	for _, v := range slices.Backward(open) {
		if !v.follower() && following+turning > limit {
			stop(v, &turning)
		}
	}

	for _, v := range left {
		var at time.Time
		switch {
		case v.running && following < followSlots:
			at = v.retryAt
		case turning < turnSlots:
			at = v.turnDue()
		}
		if at.After(now) && (plan.next.IsZero() || at.Before(plan.next)) {
			plan.next = at
		}
	}
	return plan
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
