package docker

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
)

// Info is what the agent needs to know of an engine.
type Info struct {
	// Name is the engine's host name.
	Name string
	// RootDir is DockerRootDir as the engine sees it: in a container of its own
	// the agent may see it elsewhere. Userns-remap's suffix is included.
	RootDir string
	// ServerVersion is the engine's version, APIVersion the one negotiated.
	ServerVersion, APIVersion string
	// LoggingDriver is the default of new containers.
	LoggingDriver string
}

// Summary is one container of a list.
type Summary struct {
	ID string
	// Name is without the slash; empty while a container is half removed.
	Name string
	// Image is the reference as given, or the image's ID once the reference
	// names another image.
	Image  string
	Labels map[string]string
	// Status is Docker's state: created, running, paused, restarting, removing,
	// exited or dead. Running is true for the second to the fourth.
	Status  string
	Running bool
	Created time.Time
}

// Container is one container as inspected. It holds no environment.
type Container struct {
	ID, Name string
	// Image is the reference as given at creation, ImageID the image's digest.
	Image, ImageID string
	Labels         map[string]string
	// Driver is the log driver and LogOptions its options, defaults of the
	// engine included.
	Driver     string
	LogOptions map[string]string
	// LogPath is where the engine sees the json-file log; empty until the first
	// start and for other drivers.
	LogPath string
	TTY     bool
	// Status and Running are as in Summary.
	Status  string
	Running bool
	// StartedAt and FinishedAt are those of the last start and exit; zero when
	// there was none.
	Created, StartedAt, FinishedAt time.Time
}

// The actions that are watched. What is left out says nothing about a log that
// these do not: restart follows a start at once, kill comes before a die (or
// before nothing), a paused container is still running, the log options of a
// container cannot be updated.
const (
	ActionCreate  = "create"
	ActionStart   = "start"
	ActionDie     = "die"
	ActionStop    = "stop"
	ActionRename  = "rename"
	ActionDestroy = "destroy"
)

// watchedActions is the filter of the subscription. A filter matters: the
// engine keeps 1,024 matching events for a subscriber and drops in silence when
// one waits for 100 ms (moby daemon/events/events.go); health checks alone give
// three events each.
func watchedActions() []string {
	return []string{ActionCreate, ActionStart, ActionDie, ActionStop, ActionRename, ActionDestroy}
}

// Event is something that happened to a container.
type Event struct {
	// Action is one of the Action constants.
	Action string
	ID     string
	// Name is without the slash; after a rename the new one.
	Name  string
	Image string
	// Labels are the container's, as far as an event can tell: Docker mixes
	// them with attributes of its own, so that a label named image, name,
	// exitCode, execDuration or oldName is missing. Inspect knows all.
	Labels map[string]string
	// Time is the engine's.
	Time time.Time
	// ExitCode is that of a die, else -1. A container's label named exitCode
	// hides it (moby copies labels over attributes).
	ExitCode int
}

func toInfo(i system.Info, apiVersion string) Info {
	return Info{
		Name: i.Name, RootDir: i.DockerRootDir,
		ServerVersion: i.ServerVersion, APIVersion: apiVersion,
		LoggingDriver: i.LoggingDriver,
	}
}

func toSummary(s container.Summary) Summary {
	return Summary{
		ID: s.ID, Name: listName(s.Names), Image: s.Image, Labels: s.Labels,
		Status: string(s.State), Running: runningState(s.State),
		Created: time.Unix(s.Created, 0),
	}
}

// listName picks the container's own name: legacy links add names of the form
// /other/alias.
func listName(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

func runningState(s container.ContainerState) bool {
	return s == container.StateRunning || s == container.StatePaused || s == container.StateRestarting
}

func toContainer(r container.InspectResponse) Container {
	c := Container{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), ImageID: r.Image, LogPath: r.LogPath,
		Created: parseTime(r.Created),
	}
	if r.Config != nil {
		c.Image, c.Labels, c.TTY = r.Config.Image, r.Config.Labels, r.Config.Tty
	}
	if r.HostConfig != nil {
		c.Driver, c.LogOptions = r.HostConfig.LogConfig.Type, r.HostConfig.LogConfig.Config
	}
	if s := r.State; s != nil {
		c.Status = string(s.Status)
		c.Running = s.Running || s.Paused || s.Restarting
		c.StartedAt, c.FinishedAt = parseTime(s.StartedAt), parseTime(s.FinishedAt)
	}
	return c
}

// parseTime gives the zero time for what is no time; Docker writes year 1 for
// never, which is the zero time.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// toEvent converts a message; false when it is not about a container's watched
// action (an engine is free to ignore a filter it does not know).
func toEvent(m events.Message) (Event, bool) {
	if m.Type != events.ContainerEventType || m.Actor.ID == "" {
		return Event{}, false
	}
	e := Event{Action: string(m.Action), ID: m.Actor.ID, ExitCode: -1, Time: time.Unix(0, m.TimeNano)}
	if m.TimeNano == 0 {
		e.Time = time.Unix(m.Time, 0)
	}
	own := []string{"image", "name"}
	switch e.Action {
	case ActionCreate, ActionStart, ActionStop, ActionDestroy:
	case ActionDie:
		if code, err := strconv.Atoi(m.Actor.Attributes["exitCode"]); err == nil {
			e.ExitCode = code
		}
		own = append(own, "exitCode", "execDuration")
	case ActionRename:
		own = append(own, "oldName")
	default:
		return Event{}, false
	}
	e.Name = strings.TrimPrefix(m.Actor.Attributes["name"], "/")
	e.Image = m.Actor.Attributes["image"]
	e.Labels = maps.Clone(m.Actor.Attributes)
	for _, k := range own {
		delete(e.Labels, k)
	}
	return e, true
}
