package monitors

import (
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
func nameNote(name string, started time.Time) string {
	return name + " " + started.UTC().Format(time.RFC3339Nano)
}

// nameSince gives the name kept in a note if it is of the same start.
func nameSince(note string, started time.Time) (string, bool) {
	name, when, ok := strings.Cut(note, " ")
	if !ok || name == "" {
		return "", false
	}
	t, err := time.Parse(time.RFC3339Nano, when)
	return name, err == nil && t.Equal(started)
}

// shortID is an ID as docker ps shows it, for messages.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
