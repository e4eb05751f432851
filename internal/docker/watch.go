package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/moby/moby/client"
)

const (
	// pingEvery is how often the engine is asked for a sign of life while
	// events are awaited: a frozen one would keep the stream open for ever.
	pingEvery = 30 * time.Second
	// replay is how far before the subscription events are asked for. The
	// engine answers before it subscribes (moby getEvents flushes the header
	// first): an event between that and our list would be lost. Replay and
	// subscription are one step there. A clock that differs by more than this
	// (a remote engine) only takes the protection away.
	replay = time.Second
	// steady is how long a connection must have lasted for the next pause to be
	// the shortest one again.
	steady = 30 * time.Second
)

// Watcher is told what happens to containers. All methods are called from the
// goroutine of Watch, one at a time. They may take their time; meanwhile events
// queue up. ctx is that of Watch: a lost connection does not end it.
//
// Events may be older than the list before them, and come twice: what counts is
// the state after the last one.
type Watcher interface {
	// Resync gives all containers there are. It comes before any event, after
	// every loss of the connection, after a loss of events and every 5 minutes.
	Resync(ctx context.Context, all []Summary)
	// Event gives one event, in the engine's order.
	Event(ctx context.Context, e Event)
	// Disconnected is called once when the engine is lost, or not there in the
	// beginning. The next Resync says that it is back.
	Disconnected(err error)
}

// Watch follows the containers of the engine until ctx ends, and survives
// everything else. It returns nil. At most one Watch may run on a Client.
func (c *Client) Watch(ctx context.Context, w Watcher) error {
	// ±50 % around 0.5 s to 6.6 s: pauses lie between 0.25 s and 10 s.
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: 500 * time.Millisecond, Multiplier: 2,
		RandomizationFactor: 0.5, MaxInterval: 6600 * time.Millisecond,
	}
	defer c.metrics.up.Set(0)
	var lostAt time.Time // start of the outage; zero while there is none
	connected := false   // once
	for ctx.Err() == nil {
		var upAt time.Time
		err := c.watchOnce(ctx, w, func() {
			upAt = time.Now()
			c.metrics.up.Set(1)
			if connected {
				c.metrics.reconnects.Inc()
			}
			connected = true
			if !lostAt.IsZero() {
				c.log.Info("the Docker engine is back", "host", c.host, "outage", upAt.Sub(lostAt).Round(time.Millisecond))
				lostAt = time.Time{}
			}
		})
		c.metrics.up.Set(0)
		if ctx.Err() != nil {
			break
		}
		if lostAt.IsZero() {
			lostAt = time.Now()
			c.log.Error("the Docker engine is not reachable; retrying, containers that start meanwhile are found when it is back",
				"host", c.host, "error", err)
			w.Disconnected(err)
		}
		if !upAt.IsZero() && time.Since(upAt) >= steady {
			pauses.Reset()
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-ctx.Done():
		}
	}
	return nil
}

// watchOnce serves one connection. It calls up when events are subscribed to
// and the first list has come in, returns why the connection was lost, and
// leaves no goroutine behind.
func (c *Client) watchOnce(ctx context.Context, w Watcher, up func()) error {
	if err := c.ping(ctx); err != nil {
		return err
	}
	stream, end := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end(nil)

	events, err := c.subscribe(stream, end)
	if err != nil {
		return err
	}
	q := newQueue(queueCap)
	running.Go(func() { q.close(read(events, q)) })
	running.Go(func() { c.beat(stream, end) })

	all, err := c.List(ctx)
	if err != nil {
		return err
	}
	up()
	w.Resync(ctx, all)
	timer := time.NewTimer(c.resyncEvery)
	defer timer.Stop()
	for ctx.Err() == nil {
		due := false
		it := q.take()
		switch {
		case it.overflow:
			c.log.Warn("container events came faster than they were handled and were dropped; listing all containers instead",
				"host", c.host, "queue", queueCap)
			due = true
		case it.event != nil:
			c.metrics.events.WithLabelValues(it.event.Action).Inc()
			w.Event(ctx, *it.event)
		case it.err != nil:
			if cause := context.Cause(stream); cause != nil {
				return cause
			}
			return c.fail(ctx, "read events", lost(it.err))
		default:
			select {
			case <-q.wake:
			case <-timer.C:
				due = true
			case <-ctx.Done():
			}
		}
		if !due { // events without end must not put the list off for ever
			select {
			case <-timer.C:
				due = true
			default:
			}
		}
		if due {
			if all, err = c.List(ctx); err != nil {
				return err
			}
			w.Resync(ctx, all)
			timer.Reset(c.resyncEvery)
		}
	}
	return ctx.Err()
}

// lost says what the end of the stream means.
func lost(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the engine closed the event stream (it is shutting down, or was restarted)", ErrUnavailable)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the event stream was cut (the engine died, or was restarted): %w", ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: the event stream was lost: %w", ErrUnavailable, err)
	}
}

// acceptedKey is the context key of an *atomic.Bool that noteAccepted sets.
type acceptedKey struct{}

// noteAccepted sees every response. Events gives a stream in any case and tells
// only by a later error that the engine has refused it, which is too late for
// who must not list before the subscription.
func noteAccepted(resp *http.Response) {
	if accepted, ok := resp.Request.Context().Value(acceptedKey{}).(*atomic.Bool); ok && resp.StatusCode == http.StatusOK {
		accepted.Store(true)
	}
}

// subscribe opens the event stream, which lasts until stream ends; it calls end
// when the engine does not answer in time.
func (c *Client) subscribe(stream context.Context, end context.CancelCauseFunc) (client.EventsResult, error) {
	const what = "subscribe to events"
	timer := time.AfterFunc(callTimeout, func() {
		end(fmt.Errorf("%w: no answer within %v (is the engine overloaded, or stopped?)", ErrUnavailable, callTimeout))
	})
	defer timer.Stop()
	cur, err := c.connect(stream)
	if err != nil {
		return client.EventsResult{}, c.fail(stream, what, err)
	}
	var accepted atomic.Bool
	since := time.Now().Add(-replay)
	// Returns when the engine has sent the header, or failed.
	res := cur.api.Events(context.WithValue(stream, acceptedKey{}, &accepted), client.EventsListOptions{
		Since:   fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
		Filters: make(client.Filters).Add("type", "container").Add("event", watchedActions()...),
	})
	if accepted.Load() && timer.Stop() {
		return res, nil
	}
	// Ends at once, or by the timer.
	return client.EventsResult{}, c.fail(stream, what, read(res, newQueue(0)))
}

// read carries events from the stream to the queue, never waiting for anyone,
// until the stream has ended and the moby client's goroutine with it.
func read(res client.EventsResult, q *queue) (err error) {
	for {
		select {
		case m := <-res.Messages:
			if e, ok := toEvent(m); ok {
				q.push(e)
			}
		case e, open := <-res.Err:
			if !open {
				return err
			}
			err = e
		}
	}
}

// beat ends the stream when the engine gives no sign of life.
func (c *Client) beat(stream context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := c.ping(stream); err != nil {
				end(err)
				return
			}
		case <-stream.Done():
			return
		}
	}
}
