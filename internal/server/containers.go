package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"
)

// ContainersPath is where the containers are shown.
const ContainersPath = "/api/v1/containers"

// The values of Container.Method.
const (
	MethodFileMonitor = "file_monitor"
	MethodStreaming   = "streaming"
	MethodNone        = "none" // not captured
)

// The values of Container.State.
const (
	StateRunning = "running"
	StateExited  = "exited"
)

// Container is how the log of one container is captured. It has no field for
// what may hold secrets: environment, command, labels.
type Container struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Image  string `json:"image"`
	Driver string `json:"driver"` // Docker's log driver
	Method string `json:"method"` // MethodFileMonitor, MethodStreaming or MethodNone
	Reason string `json:"reason"` // why this method; for people
	State  string `json:"state"`  // StateRunning or StateExited
	// Position is where the delivered part ends, by stream ("stdout",
	// "stderr"). A stream of which nothing is delivered is absent.
	Position map[string]Position `json:"position"`
	// LagSeconds is for how long there has been something that is not read.
	LagSeconds float64 `json:"lag_seconds"`
	// UnreadBytes is nil where it cannot be known: for all but files.
	UnreadBytes *int64 `json:"unread_bytes,omitempty"`
	// The lines, and what is lost, are counted since the start or reload of the agent.
	LinesRead         int64      `json:"lines_read"`
	LinesDelivered    int64      `json:"lines_delivered"`
	LinesDeadLettered int64      `json:"lines_dead_lettered"`
	LinesMalformed    int64      `json:"lines_malformed"`
	BytesLost         int64      `json:"bytes_lost"`          // of log files that were open
	Gaps              int64      `json:"gaps"`                // places where lines are missing that were never seen
	GapAfter          *time.Time `json:"gap_after,omitempty"` // the latest gap lies between these
	GapBefore         *time.Time `json:"gap_before,omitempty"`
	Errors            int64      `json:"errors"`
	LastError         string     `json:"last_error,omitempty"` // no secrets: it is shown to everybody
	LastErrorAt       *time.Time `json:"last_error_at,omitempty"`
}

// Position is how far one stream of a container is delivered.
type Position struct {
	// Time is that of the last delivered entry.
	Time *time.Time `json:"time,omitempty"`
	// Offset is that behind the entry in its file, in bytes, and Inode names
	// the file; nil and 0 when the container is streamed.
	Offset *int64 `json:"offset,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
}

// Containers is the answer of ContainersPath.
type Containers struct {
	Containers []Container `json:"containers"`
}

// maxListings is how many requests for what grows with the number of containers
// are answered at once, of each kind: with a thousand each takes a megabyte until
// its client has read it.
const maxListings = 4

// containersHandler serves ContainersPath: all containers, sorted by name and
// then ID.
func containersHandler(containers func(context.Context) []Container) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		list := containers(ctx)
		slices.SortFunc(list, func(a, b Container) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
		})
		// No null where a script expects something to walk through.
		if list == nil {
			list = []Container{}
		}
		for i := range list {
			if list[i].Position == nil {
				list[i].Position = map[string]Position{}
			}
		}
		replyJSON(w, "the containers", Containers{list})
	}
}
