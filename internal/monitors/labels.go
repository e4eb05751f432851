package monitors

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// Names that are fixed by the contract with the users.
const (
	labelJob            = "job"
	labelHost           = "host"
	labelContainerName  = "container_name"
	labelImage          = "image"
	labelComposeProject = "compose_project"
	labelComposeService = "compose_service"
	labelStream         = "stream"
	labelMalformed      = "malformed"

	metadataContainerID = "container_id"
	metadataImageRef    = "image_ref"

	jobName = "log_capturer"

	// Container labels that Docker Compose sets.
	composeProjectLabel = "com.docker.compose.project"
	composeServiceLabel = "com.docker.compose.service"
)

// LabelConfig says which labels lines bear.
type LabelConfig struct {
	// ContainerLabels are the container labels that become labels.
	ContainerLabels []ContainerLabel
	// Static are labels of every line.
	Static map[string]string
}

// ContainerLabel is a label of a container that becomes a label of its lines.
type ContainerLabel struct {
	Container string // its name at the container
	Label     string // its name at the store
}

// ImageRepository cuts tag and digest off an image reference. A reference that
// is the image's bare ID is kept.
func ImageRepository(ref string) string {
	if at := strings.IndexByte(ref, '@'); at >= 0 {
		ref = ref[:at]
	}
	// A colon before the last slash belongs to a registry's port.
	if colon := strings.LastIndexByte(ref, ':'); colon > strings.LastIndexByte(ref, '/') && !strings.HasPrefix(ref, "sha256:") {
		ref = ref[:colon]
	}
	return ref
}

// labelsOf gives a container's label sets by class, and its structured metadata.
func labelsOf(cfg LabelConfig, c ContainerLogFileInfo) (labels [entry.NumClasses]entry.Labels, metadata []entry.Label) {
	base := make([]entry.Label, 0, 8+len(cfg.Static)+len(cfg.ContainerLabels))
	for name, value := range cfg.Static {
		base = append(base, entry.Label{Name: name, Value: value})
	}
	for _, l := range cfg.ContainerLabels {
		base = append(base, entry.Label{Name: l.Label, Value: c.Labels[l.Container]})
	}
	base = append(base,
		entry.Label{Name: labelJob, Value: jobName},
		entry.Label{Name: labelHost, Value: c.Host},
		entry.Label{Name: labelContainerName, Value: c.Name},
		entry.Label{Name: labelImage, Value: ImageRepository(c.Image)},
		entry.Label{Name: labelComposeProject, Value: c.Labels[composeProjectLabel]},
		entry.Label{Name: labelComposeService, Value: c.Labels[composeServiceLabel]},
	)
	with := func(name, value string) entry.Labels {
		return entry.NewLabels(append(base[:len(base):len(base)], entry.Label{Name: name, Value: value})...)
	}
	labels[entry.ClassStdout] = with(labelStream, "stdout")
	labels[entry.ClassStderr] = with(labelStream, "stderr")
	labels[entry.ClassMalformed] = with(labelMalformed, "true")
	metadata = []entry.Label{{Name: metadataContainerID, Value: c.ID}}
	if c.Image != "" {
		metadata = append(metadata, entry.Label{Name: metadataImageRef, Value: entry.CleanValue(c.Image)})
	}
	return labels, metadata
}

// nameNote is what is kept beside a log's position: the name under which the
// container's lines are shipped since its start. It lets lines that are sent
// again after a restart of the agent bear the same name, whatever renames have
// come between.
type nameNote struct {
	name    string
	started time.Time
	// before is the name of the lines older than since (Unix ns), whose
	// delivery may not be complete yet; empty if it is the same.
	before string
	since  int64
	// first is the first name that the log's lines bore. It chooses their lane, for
	// ever: two lanes would not keep their order, and some may be in the spool.
	first string
}

// String gives "name start", "name start before since" or, if before is not the first
// name, "name start before since first".
func (n nameNote) String() string {
	s := n.name + " " + n.started.UTC().Format(time.RFC3339Nano)
	if n.before != "" {
		s += " " + n.before + " " + strconv.FormatInt(n.since, 10)
		if n.first != n.before {
			s += " " + n.first
		}
	}
	return s
}

// parseNameNote reads what String wrote; false if it is anything else.
func parseNameNote(note string) (n nameNote, ok bool) {
	f := strings.Split(note, " ")
	if len(f) != 2 && len(f) != 4 && len(f) != 5 || slices.Contains(f, "") {
		return nameNote{}, false
	}
	n.name, n.first = f[0], f[0]
	var err error
	if n.started, err = time.Parse(time.RFC3339Nano, f[1]); err != nil {
		return nameNote{}, false
	}
	if len(f) > 2 {
		n.before, n.first = f[2], f[2]
		if n.since, err = strconv.ParseInt(f[3], 10, 64); err != nil {
			return nameNote{}, false
		}
	}
	if len(f) == 5 {
		n.first = f[4]
	}
	// Times, numbers and a first name can be written in other ways than String's.
	if n.String() != note {
		return nameNote{}, false
	}
	return n, true
}

// namesOf says which name a container's lines bear now, and under which name
// those before a time are shipped, if that is another. saved is the note kept
// with the log's position.
func namesOf(c ContainerLogFileInfo, saved string) nameNote {
	n, ok := parseNameNote(saved)
	switch {
	case !ok:
		return nameNote{name: c.Name, started: c.StartedAt, first: c.Name}
	case n.started.Equal(c.StartedAt):
		return n // renames since then count from the next start
	}
	return n.startedAgain(c)
}

// startedAgain gives the names after another start. Of three names the middle
// one is taken to have been the first, too: lines as old as that have long been
// delivered.
func (n nameNote) startedAgain(c ContainerLogFileInfo) nameNote {
	if n.name == c.Name {
		n.started = c.StartedAt
		return n
	}
	since, _ := runSince(c)
	return nameNote{name: c.Name, started: c.StartedAt, before: n.name, since: since, first: n.first}
}

// runSince is the time from which on a log's entries are of its latest run. The first
// ones may be older than the start that Docker tells, which looks at the clock only when
// the process has been started (by up to 105 ms, in 120 starts on a very busy machine), so
// that of the exit before is taken as long as it is known: Docker keeps the last exit
// only. exact is false if it is not.
func runSince(c ContainerLogFileInfo) (since int64, exact bool) {
	switch {
	case !c.Running:
		return c.StartedAt.UnixNano(), false
	case c.FinishedAt.IsZero():
		return 0, true
	}
	return c.FinishedAt.UnixNano(), true
}

// shortID is an ID as docker ps shows it, for messages.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
