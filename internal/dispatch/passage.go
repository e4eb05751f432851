package dispatch

import (
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

const (
	// spoolAfter is for how long the store may fail, or be silent, before a batch
	// goes to the spool: the readers must not wait, for rotation does not.
	spoolAfter = time.Second

	// quickBelow is how quick the store has to be before lines go to it directly
	// again, once it has been too slow.
	quickBelow = spoolAfter / 2

	// leastPatience is how long a request may take at least: longer than the store
	// takes as a rule.
	leastPatience = 250 * time.Millisecond
)

// passage is all that the way of a batch depends on, which comes from the readers.
type passage struct {
	// empty: nothing of the lane is in its queue, and so on its way from there.
	empty bool
	// known: it is known which streams have lines in the side.
	known bool
	// slow: the store takes long (see pace).
	slow bool
	// unlinked: lines of the batch are in no file that has a name.
	unlinked bool
	// draining: the dispatcher is being drained; late: for longer than spoolAfter.
	draining, late bool
	// failing is for how long the store has failed without a break.
	failing time.Duration
}

// way is how a batch goes.
type way struct {
	// divert: lines whose stream is aside are held first.
	divert bool
	// spool: to the spool; store: to the store. If both, to the store only when the
	// spool does not take it.
	spool, store bool
	// patience is for how long the store may be silent; 0: as long as the sink
	// allows.
	patience time.Duration
}

// way chooses. A batch goes to the store directly only when nothing can be
// overtaken by it.
func (p passage) way() way {
	w := way{
		// What has to get to the disk must not pass there what is in the queue.
		divert: p.known && (p.empty || !p.draining && !p.unlinked),
		store:  p.known && p.empty,
	}
	w.spool = !w.store || p.slow || p.late
	switch {
	case w.spool: // If it takes nothing, to cut a request gains nothing.
	case p.unlinked:
		w.patience = leastPatience
	default:
		w.patience = max(spoolAfter-p.failing, leastPatience)
	}
	return w
}

// keeps decides, after an attempt that left something pending, that it goes to the
// spool. To ask again makes sense only if the store may have changed its mind, and
// there is time for that within the second.
func (p passage) keeps(out entry.Outcome) bool {
	return p.draining || p.unlinked || out.Config ||
		p.failing >= spoolAfter/2 || p.failing+out.RetryAfter >= spoolAfter
}

// pace is whether a lane's lines go by way of the spool because the store takes
// long. A request that is cut may have been accepted, and is sent twice: a store that
// is merely slow, or far away, must not get everything twice for ever. So after a
// cut all goes through the spool, from where requests may take their time, until
// one of them was quick. If the lane is cut again soon after that, it takes longer
// and longer until it is trusted again: that some small requests are quick says
// nothing of the large ones.
type pace struct {
	slow  bool
	since time.Time     // it is so, or is not
	wait  time.Duration // slow for at least so long
}

const (
	paceWaitMin = 10 * time.Second
	paceWaitMax = 10 * time.Minute
)

// cut gives the pace after a request was cut.
func (p pace) cut(now time.Time) pace {
	wait := min(max(2*p.wait, paceWaitMin), paceWaitMax)
	if now.Sub(p.since) >= paceWaitMax {
		wait = 0 // it has long been well
	}
	return pace{slow: true, since: now, wait: wait}
}

// quick gives the pace after all requests of an attempt were quick.
func (p pace) quick(now time.Time) pace {
	if !p.slow || now.Sub(p.since) < p.wait {
		return p
	}
	return pace{since: now, wait: p.wait}
}
