package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Status is how the agent is as a whole.
type Status string

// The states of Health.Status.
const (
	// StatusOK: all is as it should be.
	StatusOK Status = "ok"
	// StatusDegraded: lines are delivered, and something wants attention. 200.
	StatusDegraded Status = "degraded"
	// StatusUnhealthy: lines are not delivered, or will soon be lost. 503.
	StatusUnhealthy Status = "unhealthy"
)

// Problem is one thing that is wrong, and what the operator can do about it.
type Problem struct {
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Health is what /health shows. The parts are whatever their owners give; they
// must be encodable as JSON.
type Health struct {
	Status Status `json:"status"`
	// Monitors are the sources by name: "file_monitor" and its siblings.
	Monitors map[string]any `json:"monitors"`
	Docker   any            `json:"docker,omitempty"`
	// Spool is what the store has not taken; nil without a spool.
	Spool any `json:"spool,omitempty"`
	// Sinks are the destinations by name.
	Sinks map[string]any `json:"sinks"`
	// Problems is empty when the status is ok.
	Problems []Problem `json:"problems"`
}

// healthTimeout bounds the context of the health, ready and containers
// functions.
const healthTimeout = 5 * time.Second

// healthHandler serves /health: 503 when unhealthy, else 200.
func healthHandler(health func(context.Context) Health) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		h := health(ctx)
		// No null where a script expects something to walk through.
		if h.Monitors == nil {
			h.Monitors = map[string]any{}
		}
		if h.Sinks == nil {
			h.Sinks = map[string]any{}
		}
		if h.Problems == nil {
			h.Problems = []Problem{}
		}
		code := http.StatusServiceUnavailable // also for a status that is none of ours
		if h.Status == StatusOK || h.Status == StatusDegraded {
			code = http.StatusOK
		}
		body, err := encode(h)
		if err != nil {
			code = http.StatusServiceUnavailable
			body, err = encode(Health{
				Status: StatusUnhealthy, Monitors: map[string]any{}, Sinks: map[string]any{},
				Problems: []Problem{{
					What:   fmt.Sprintf("the health of a component cannot be shown: %v", err),
					Remedy: "report this as a mistake in log_capturer; the metrics are not affected",
				}},
			})
			if err != nil { // plain text is always encodable
				panic(err)
			}
		}
		reply(w, code, jsonType, body)
	}
}

// readyHandler serves /readyz: 200 once ready gives nil, else 503 and why not.
func readyHandler(ready func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		if err := ready(ctx); err != nil {
			reply(w, http.StatusServiceUnavailable, textType, fmt.Appendf(nil, "not ready: %v\n", err))
			return
		}
		reply(w, http.StatusOK, textType, []byte("ready\n"))
	}
}

const textType = "text/plain; charset=utf-8"

// reply writes a whole answer. For HEAD net/http leaves the body out.
func reply(w http.ResponseWriter, code int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}
