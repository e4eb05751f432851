package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/spool"
)

// Sink is the store. Push makes one attempt to deliver the pending parts of a
// batch and leaves each part's state, and the lines refused for good, in the
// batch. It is called by one goroutine per lane, and returns soon after ctx has
// ended. Parts of one stream are to be accepted in order: after one that is not
// accepted, none of the same stream. A part whose every line is refused is
// accepted. Only pending parts may be sent, without the lines that bear
// FlagRefused.
//
// An attempt may take many requests. A sink calls progress after each answer but the
// last, on Push's own goroutine and with its ctx: the store is there, and parts that have
// become PartAccepted are acknowledged then, so that a kill does not repeat them. Afterwards
// these parts are PartEmpty and Batch.Refusals is empty, and Batch.Enough may be set, which ends
// the attempt as soon as what is under way has ended; nothing else has changed. After
// the last request Push just returns.
type Sink interface {
	Push(ctx context.Context, b *entry.Batch, progress func(ctx context.Context)) entry.Outcome
}

// Acks takes the spans that are done: the positions. The slice is the caller's
// again afterwards. Called by one goroutine per lane.
type Acks interface {
	Ack(spans []entry.Span) error
}

// DeadLetters keeps lines that the store will never take; they are durable when
// Append returns nil. Called by one goroutine per lane.
type DeadLetters interface {
	Append(b *entry.Batch, refusals []entry.Refusal) error
}

// Defaults of Config.
const (
	DefaultLanes          = 2
	DefaultBatchBytes     = 1 << 20
	DefaultBatchesPerLane = 2
	// DefaultParkedBytes is more than what the batches of a lane have when they are as large as they
	// get (mostBytes): one stream that is refused does not stop the others, whatever was read of it.
	DefaultParkedBytes = 16 << 20
)

// Config is what a Dispatcher is made of. A number that is zero means its
// default, where there is one.
type Config struct {
	// Lanes is the number of ordered lanes, and so of batches under way.
	Lanes int
	// BatchBytes is the size (entry.Batch.Size) from which a batch is full, at least; that of
	// a lane's batches grows with what the store takes in a short time (see nextLimit).
	// Readers stop appending there; a batch is larger by one reading at most.
	BatchBytes int
	// BatchWait is the least time between the departures of two batches of a
	// lane of which the later is not full; zero: none. The function BatchWait gives it for a tick.
	BatchWait time.Duration
	// BatchesPerLane bounds the memory: batches being filled, waiting or sent. With
	// two, one can be filled while the other is sent. Each more is one more that a
	// line of a quiet container waits for when a loud one keeps the lane full.
	BatchesPerLane int
	// ParkedBytes bounds, by lane, what is parked: a lane that has parked more
	// takes no batch until some is delivered. It may be passed by one batch.
	ParkedBytes int

	Sink Sink
	// Spool takes what the sink does not, unless it is nil; it has at least
	// SpoolLanes(Lanes) lanes, and is not closed before Run has returned. Stats gives the counters
	// of a container whose lines come from there, nil if it is not known (yet);
	// without it they get counters of their own.
	Spool *spool.Spool
	Stats func(containerID, name string) *entry.Stats

	Acks        Acks
	DeadLetters DeadLetters
	// Wake, unless nil, is called when a source is no longer held (its Held is
	// false already). It must not block.
	Wake func(*entry.Source)
	// Random, unless nil, gives the numbers in [0,1) for the jitter of pauses, in
	// the place of chance. It is safe for concurrent use.
	Random func() float64

	Logger *slog.Logger
	// Registerer takes the metrics; nil: nobody does.
	Registerer prometheus.Registerer
}

// BatchWait gives Config.BatchWait for readers that look for new lines every tick. It is
// less than the tick, so that what a tick brings leaves at once, and not by a timer of
// its own a moment later.
func BatchWait(tick time.Duration) time.Duration { return tick - tick/4 }

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Lanes, DefaultLanes)
	def(&c.BatchBytes, DefaultBatchBytes)
	def(&c.BatchesPerLane, DefaultBatchesPerLane)
	def(&c.ParkedBytes, DefaultParkedBytes)
	if c.Wake == nil {
		c.Wake = func(*entry.Source) {}
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Dispatcher owns the lanes. Its methods are safe for concurrent use.
type Dispatcher struct {
	cfg     Config
	lanes   []*lane
	metrics *metrics
	// drained has room for one: some lane has become empty during a drain.
	drained  chan struct{}
	spooling *spooling // nil without a spool
	drains   bool      // it is the second dispatcher of a spooling
	// random gives a number in [0,1) for the jitter of pauses.
	random func() float64

	// What goes wrong for a while, said once for all lanes.
	storeTrouble, heldTrouble, ackTrouble, deadTrouble *trouble
}

// New makes a Dispatcher. It starts nothing. It panics when its metrics are
// registered already.
func New(cfg Config) *Dispatcher {
	cfg = cfg.withDefaults()
	d := &Dispatcher{
		cfg:          cfg,
		metrics:      newMetrics(),
		drained:      make(chan struct{}, 1),
		random:       cfg.Random,
		storeTrouble: newTrouble(cfg.Lanes),
		heldTrouble:  newTrouble(cfg.Lanes),
		ackTrouble:   newTrouble(cfg.Lanes),
		deadTrouble:  newTrouble(cfg.Lanes),
	}
	for i := range cfg.Lanes {
		d.lanes = append(d.lanes, newLane(d, i))
	}
	if cfg.Spool != nil {
		d.spooling = newSpooling(d)
		d.cfg.Sink = d.spooling
	}
	if cfg.Registerer != nil {
		d.metrics.register(cfg.Registerer, d)
	}
	return d
}

// Lanes is the number of lanes.
func (d *Dispatcher) Lanes() int { return len(d.lanes) }

// LaneOf gives the lane of a container by its name, always the same one for the
// same number of lanes. By name and not by ID: a recreated container has the
// same labels and so goes on with the same streams of the store.
func (d *Dispatcher) LaneOf(name string) int {
	return int(xxhash.Sum64String(name) % uint64(len(d.lanes)))
}

// Reserve gives the lane's open batch for appending: the newest waiting batch if
// it has room, else an empty one. It waits until there is one, in turn with
// others who wait, or until ctx ends. The batch is the caller's until Submit,
// which must follow; nobody else can append to the lane meanwhile, and the
// batch cannot leave, so hold it no longer than one reading takes.
func (d *Dispatcher) Reserve(ctx context.Context, lane int) (*entry.Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, reserveError(lane, err)
	}
	l := d.lanes[lane]
	l.mu.Lock()
	// While anyone waits nothing is grantable (see grant): nobody is passed.
	if sl := l.grantable(); sl != nil {
		l.reserved = sl
		l.mu.Unlock()
		return &sl.Batch, nil
	}
	w := l.newWaiter()
	l.waiters = append(l.waiters, w)
	l.mu.Unlock()

	select {
	case sl := <-w.granted:
		l.mu.Lock()
		l.spare = append(l.spare, w)
		l.mu.Unlock()
		return &sl.Batch, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiters, w); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
	} else {
		<-w.granted // at the same moment: give it back
		l.putBack()
	}
	l.spare = append(l.spare, w)
	return nil, reserveError(lane, ctx.Err())
}

func reserveError(lane int, err error) error {
	return fmt.Errorf("wait for room in lane %d: %w", lane, err)
}

// Submit hands a reserved batch back. Whether it is full, and the time of the
// last departure, decide when it leaves. An empty batch is only returned. It
// panics when b is not the batch that Reserve gave.
func (d *Dispatcher) Submit(lane int, b *entry.Batch) {
	l := d.lanes[lane]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved == nil || b != &l.reserved.Batch {
		panic("dispatch: Submit of a batch that is not reserved")
	}
	l.putBack()
}

// Run sends until ctx ends, one goroutine per lane; it returns nil when all have
// stopped. A request in flight is cut; what it would have delivered stays
// unacknowledged. Run is called once.
func (d *Dispatcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range d.lanes {
		wg.Go(func() { l.run(ctx) })
	}
	if d.spooling != nil {
		wg.Go(func() { d.spooling.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Drain sends what is waiting, without regard to BatchWait, and returns nil when
// every lane is empty, parked parts included. With a spool, what the store does
// not take within a second goes there, and what is there stays; without one,
// pauses after failures are kept. The readers must have stopped, and Run must go on
// until Drain has returned. If ctx ends first, the error says how much is left; it
// will be read again at the next start.
func (d *Dispatcher) Drain(ctx context.Context) error {
	if d.spooling != nil {
		d.spooling.hurry()
	}
	for _, l := range d.lanes {
		l.mu.Lock()
		l.draining = true
		l.wakeUp()
		l.mu.Unlock()
	}
	for {
		left := 0
		for _, l := range d.lanes {
			l.mu.Lock()
			if !l.empty() {
				left++
			}
			l.mu.Unlock()
		}
		if left == 0 {
			return nil
		}
		select {
		case <-d.drained:
		case <-ctx.Done():
			bytes := 0
			for _, h := range d.Health() {
				bytes += h.PendingBytes + h.ParkedBytes
			}
			return fmt.Errorf("drain: %d of %d lanes still hold about %d bytes that will be read again at the next start: %w",
				left, len(d.lanes), bytes, ctx.Err())
		}
	}
}

// LaneHealth is the state of one lane.
type LaneHealth struct {
	// FailingSince is when the store began to fail; zero: it does not. LastError
	// is why, Config that only a change of configuration will help.
	FailingSince time.Time
	LastError    string
	Config       bool
	// Slow: the store takes long, so that lines go by way of the spool.
	Slow bool
	// PendingBytes wait or are being sent. OldestPending is for how long the
	// oldest of them, or of what is parked, has been in the lane; 0: nothing is.
	PendingBytes  int
	OldestPending time.Duration
	// HeldStreams of the store are refused for now, and have ParkedBytes waiting.
	// HeldError is the store's last word about one of them, HeldConfig that one
	// of them needs a change of configuration.
	HeldStreams int
	ParkedBytes int
	HeldError   string
	HeldConfig  bool
	// DeadLettersSince is when the dead letters began to fail, which blocks the
	// lane; zero: they do not. DeadLettersError is why.
	DeadLettersSince time.Time
	DeadLettersError string
}

// Health gives the state of every lane.
func (d *Dispatcher) Health() []LaneHealth {
	now := time.Now()
	all := make([]LaneHealth, len(d.lanes))
	for i, l := range d.lanes {
		all[i] = l.healthAt(now)
	}
	if d.spooling != nil {
		for i, h := range d.spooling.back.Health() {
			all[i%len(all)] = all[i%len(all)].with(h)
		}
		for i := range all {
			all[i].Slow = d.spooling.lanes[i].isSlow()
		}
	}
	return all
}

// with gives the state of two halves of a lane: what comes from its readers, and
// from the spool.
func (h LaneHealth) with(other LaneHealth) LaneHealth {
	if h.FailingSince.IsZero() || !other.FailingSince.IsZero() && other.FailingSince.Before(h.FailingSince) {
		h.FailingSince, h.LastError, h.Config = other.FailingSince, other.LastError, other.Config
	}
	if h.DeadLettersSince.IsZero() {
		h.DeadLettersSince, h.DeadLettersError = other.DeadLettersSince, other.DeadLettersError
	}
	if other.HeldError != "" {
		h.HeldError = other.HeldError // the store's word; the readers' half may only be waiting for it
	}
	h.HeldConfig = h.HeldConfig || other.HeldConfig
	h.PendingBytes += other.PendingBytes
	h.ParkedBytes += other.ParkedBytes
	h.HeldStreams = max(h.HeldStreams, other.HeldStreams) // mostly the same ones
	h.OldestPending = max(h.OldestPending, other.OldestPending)
	return h
}
