package app

import (
	"context"
	"sync"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
)

// samplePeriod is how often the agent looks at itself: rates are over one to two
// of them, and a problem that nobody asks about is known as long after it came.
// It costs an fstat(2) for each log file that is written to.
const samplePeriod = 10 * time.Second

// positionsView is .positions of /api/v1/status.
type positionsView struct {
	State   string `json:"state"` // ok or degraded
	DataDir string `json:"data_dir"`
	Error   string `json:"error,omitempty"`
}

// overview gives everything for the status page.
func (a *agent) overview(ctx context.Context) server.Overview {
	now := time.Now()
	o := server.Overview{Time: now, Started: a.started, Build: a.buildInfo, Health: a.health(ctx)}
	a.history.Observe(now, o.Health.Problems)
	o.Events = a.history.Events()
	positions := positionsView{State: string(server.StatusOK), DataDir: a.cfg.DataDir}
	if err := a.positions.Health(); err != nil {
		positions.State, positions.Error = string(server.StatusDegraded), err.Error()
	}
	o.Positions = positions
	for _, l := range a.dispatcher.Health() {
		o.LagSeconds = max(o.LagSeconds, l.OldestPending.Round(time.Millisecond).Seconds())
	}
	if a.spool != nil {
		if oldest := a.spool.Health().Oldest; !oldest.IsZero() {
			o.LagSeconds = max(o.LagSeconds, now.Sub(oldest).Round(time.Millisecond).Seconds())
		}
	}
	if a.containers == nil {
		return o
	}
	all := a.containers.Containers()
	rates := a.rates.at(now, all)
	o.Containers = make([]server.ContainerStatus, len(all))
	for i := range all {
		c := &o.Containers[i]
		c.Container = containerView(&all[i])
		c.ReadPerSecond, c.DeliveredPerSecond = rates[i].read, rates[i].delivered
		if c.Method != server.MethodNone {
			o.LagSeconds = max(o.LagSeconds, c.LagSeconds)
		}
	}
	return o
}

// sample is what is done each samplePeriod.
func (a *agent) sample(ctx context.Context) {
	now := time.Now()
	a.history.Observe(now, a.health(ctx).Problems)
	if a.containers != nil {
		a.rates.sample(now, a.containers.Counters())
	}
}

// rates remembers what the containers' counters were one and two periods ago. It
// is safe for concurrent use.
type rates struct {
	mu          sync.Mutex
	older, last counters
}

// counters are those of all containers at one moment; one that is not there was
// at 0.
type counters struct {
	at    time.Time
	lines map[*entry.Stats]lineCounts
}

type lineCounts struct{ read, delivered int64 }

// rate is in lines per second.
type rate struct{ read, delivered float64 }

// newRates begins at now, when all counters are 0.
func newRates(now time.Time) *rates {
	return &rates{older: counters{at: now}, last: counters{at: now}}
}

func (r *rates) sample(now time.Time, all []*entry.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := counters{now, r.older.lines} // the memory of those that nobody asks for any more
	if c.lines == nil {
		c.lines = make(map[*entry.Stats]lineCounts, len(all))
	}
	clear(c.lines)
	for _, s := range all {
		c.lines[s] = lineCounts{s.Read.Load(), s.Delivered.Load()}
	}
	r.older, r.last = r.last, c
}

// at gives the rate of each container, in the same order.
func (r *rates) at(now time.Time, all []monitors.ContainerStatus) []rate {
	r.mu.Lock()
	defer r.mu.Unlock()
	older := r.older
	out := make([]rate, len(all))
	// A moment is too short to tell.
	seconds := max(now.Sub(older.at).Seconds(), 1)
	for i := range all {
		s := all[i].Stats
		was := older.lines[s]
		out[i] = rate{float64(s.Read.Load()-was.read) / seconds, float64(s.Delivered.Load()-was.delivered) / seconds}
	}
	return out
}
