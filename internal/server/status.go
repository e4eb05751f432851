package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The addresses of what is shown of the agent as a whole.
const (
	StatusPath = "/api/v1/status"
	ConfigPath = "/api/v1/config"
)

// Overview is everything that the agent has to say about itself at one moment.
type Overview struct {
	Time    time.Time
	Started time.Time
	Build   Build
	Health  Health
	// Events are the latest problems, the newest first.
	Events     []Event
	Containers []ContainerStatus
	// LagSeconds is for how long the line that waits longest has been there:
	// unread, not accepted by the store, or in the spool.
	LagSeconds float64
	// Positions is how the saved positions are; encodable as JSON.
	Positions any
}

// ContainerStatus is a container with what its lines come to at present.
type ContainerStatus struct {
	Container
	// Lines in a second, over the last ten to twenty.
	ReadPerSecond      float64 `json:"read_per_second"`
	DeliveredPerSecond float64 `json:"delivered_per_second"`
}

// AgentStatus is the answer of StatusPath.
type AgentStatus struct {
	Headline      string    `json:"headline"` // for people: the text may change
	Status        Status    `json:"status"`
	Time          time.Time `json:"time"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Build         BuildInfo `json:"build"`
	Totals        Totals    `json:"totals"`
	// Routing counts the containers by log driver and method.
	Routing []Routing `json:"routing"`
	// Health is as Health's, but for its problems, which Problems has.
	Monitors  map[string]any `json:"monitors"`
	Docker    any            `json:"docker,omitempty"`
	Spool     any            `json:"spool,omitempty"`
	Sinks     map[string]any `json:"sinks"`
	Positions any            `json:"positions,omitempty"`
	// Problems are the latest, the newest first, those that are over as well.
	Problems   []Event           `json:"problems"`
	Containers []ContainerStatus `json:"containers"`
}

// BuildInfo is Build as JSON.
type BuildInfo struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	GoVersion string `json:"go_version"`
}

// Totals are sums over all containers.
type Totals struct {
	Containers         int     `json:"containers"`
	Captured           int     `json:"captured"` // read from files or streamed
	Running            int     `json:"running"`
	ReadPerSecond      float64 `json:"read_per_second"`
	DeliveredPerSecond float64 `json:"delivered_per_second"`
	LagSeconds         float64 `json:"lag_seconds"`
	UnreadBytes        int64   `json:"unread_bytes"`
	BytesLost          int64   `json:"bytes_lost"`
	Gaps               int64   `json:"gaps"`
	Errors             int64   `json:"errors"`
}

// Routing is how many containers with one log driver are read by one method.
type Routing struct {
	Driver             string  `json:"driver"`
	Method             string  `json:"method"`
	Containers         int     `json:"containers"`
	DeliveredPerSecond float64 `json:"delivered_per_second"`
}

// summarize makes the answer of an overview. Containers come by name and then ID.
func summarize(o Overview) AgentStatus {
	s := AgentStatus{
		Status: o.Health.Status, Time: o.Time.UTC(), Started: o.Started.UTC(),
		UptimeSeconds: o.Time.Sub(o.Started).Truncate(time.Second).Seconds(),
		Build:         BuildInfo(o.Build),
		Monitors:      o.Health.Monitors, Docker: o.Health.Docker, Spool: o.Health.Spool, Sinks: o.Health.Sinks, Positions: o.Positions,
		Problems: o.Events, Containers: o.Containers, Routing: []Routing{},
	}
	// No null where a script expects something to walk through.
	if s.Monitors == nil {
		s.Monitors = map[string]any{}
	}
	if s.Sinks == nil {
		s.Sinks = map[string]any{}
	}
	if s.Problems == nil {
		s.Problems = []Event{}
	}
	if s.Containers == nil {
		s.Containers = []ContainerStatus{}
	}
	slices.SortFunc(s.Containers, func(a, b ContainerStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	t := &s.Totals
	t.LagSeconds = o.LagSeconds
	routes := map[[2]string]*Routing{}
	for i := range s.Containers {
		c := &s.Containers[i]
		if c.Position == nil {
			c.Position = map[string]Position{}
		}
		t.Containers++
		if c.Method != MethodNone {
			t.Captured++
		}
		if c.State == StateRunning {
			t.Running++
		}
		if c.UnreadBytes != nil {
			t.UnreadBytes += *c.UnreadBytes
		}
		t.ReadPerSecond += c.ReadPerSecond
		t.DeliveredPerSecond += c.DeliveredPerSecond
		t.BytesLost += c.BytesLost
		t.Gaps += c.Gaps
		t.Errors += c.Errors
		r := routes[[2]string{c.Driver, c.Method}]
		if r == nil {
			r = &Routing{Driver: c.Driver, Method: c.Method}
			routes[[2]string{c.Driver, c.Method}] = r
		}
		r.Containers++
		r.DeliveredPerSecond += c.DeliveredPerSecond
	}
	for _, r := range routes {
		s.Routing = append(s.Routing, *r)
	}
	slices.SortFunc(s.Routing, func(a, b Routing) int {
		return cmp.Or(cmp.Compare(b.Containers, a.Containers), cmp.Compare(a.Driver, b.Driver), cmp.Compare(a.Method, b.Method))
	})
	s.Headline = verdict(o.Health) + ": " + figures(*t)
	return s
}

// verdict says in a few words whether all is well.
func verdict(h Health) string {
	if len(h.Problems) == 0 {
		if h.Status == StatusOK {
			return "All is well"
		}
		return "Something is wrong"
	}
	what := h.Problems[0].What
	if first, _, found := strings.Cut(what, ": "); found {
		what = first
	}
	word := "In trouble"
	if h.Status == StatusDegraded {
		word = "Attention"
	}
	what = visible(what, 120)
	if n := len(h.Problems) - 1; n > 0 {
		return fmt.Sprintf("%s: %s, and %s", word, what, plural(int64(n), "more problem", "more problems"))
	}
	return word + ": " + what
}

// figures are what one wants to know beside the verdict.
func figures(t Totals) string {
	return fmt.Sprintf("%s, %s lines/s, lag %s", plural(int64(t.Captured), "container", "containers"), perSecond(t.DeliveredPerSecond), span(t.LagSeconds))
}

// statusHandler serves StatusPath.
func statusHandler(overview func(context.Context) Overview) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		replyJSON(w, "the status", summarize(overview(ctx)))
	}
}

// configHandler serves ConfigPath.
func configHandler(config func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { replyJSON(w, "the configuration", config()) }
}

// replyJSON answers with v, or says that what cannot be shown.
func replyJSON(w http.ResponseWriter, what string, v any) {
	body, err := encode(v)
	if err != nil {
		reply(w, http.StatusInternalServerError, textType,
			fmt.Appendf(nil, "%s cannot be shown: %v: report this as a mistake in log_capturer\n", what, err))
		return
	}
	reply(w, http.StatusOK, jsonType, body)
}
