package monitors

import (
	"cmp"
	"path/filepath"

	"github.com/log-capturer/log_capturer/internal/docker"
)

// noLogReason is why a container is not captured that would have to be streamed.
const noLogReason = "the engine cannot read its log back"

// Forecast says how an agent would read the logs of containers, by the functions
// that a ContainerMonitor decides with. It reads nothing but files' names and
// first bytes, and may be used by anyone.
type Forecast struct {
	Routing   RoutingConfig
	Selection Selection
	// ContainersDir and Self are as in ContainerMonitorConfig, RootDir is the
	// engine's.
	ContainersDir, RootDir string
	Self                   Self
}

// Foreseen is how a container's log would be read.
type Foreseen struct {
	// Method is MethodFileMonitor, MethodStreaming or "none", Reason why.
	Method, Reason string
	// Excluded: it is not to be captured, by include, exclude, or its own label.
	Excluded bool
}

// Dir is where this process sees the containers' directories.
func (f *Forecast) Dir() string { return containersDirOf(f.ContainersDir, f.RootDir) }

// TryDir says why no log can be found in the directory, a *FileError as a rule;
// nil if they can. There are containers, so that it must not be empty, if
// containers is true.
func (f *Forecast) TryDir(containers bool) error { return checkContainersDir(f.Dir(), containers) }

// LogPath is where this process sees a container's log.
func (f *Forecast) LogPath(c docker.Container) string {
	return fileInfoFor(f.ContainersDir, f.RootDir, c).LogPath
}

// Container says how the log of a container is read that has just been met:
// under the name that it has now. Readable says whether its file can be read;
// noLog that the engine, asked for its log, cannot read it back.
func (f *Forecast) Container(c docker.Container, readable, noLog bool) Foreseen {
	info := fileInfoFor(f.ContainersDir, f.RootDir, c)
	if reason := f.Selection.excludes(c.Name, info, f.Self); reason != "" {
		return Foreseen{Method: routeNone.method(), Reason: reason, Excluded: true}
	}
	route, reason := decideRoute(f.Routing, c.Driver, readable)
	if route == routeStream && noLog {
		route, reason = routeNone, noLogReason
	}
	return Foreseen{Method: route.method(), Reason: reason}
}

// FallsBack says whether a container is streamed if its file cannot be read.
func (c RoutingConfig) FallsBack() bool { return c.fallsBack() }

// TryLog says why a log cannot be read from its file, a *FileError where there is
// something to do about it; nil if it can.
func TryLog(path string) error { return tryLog(path) }

// containersDirOf is where this process sees the containers' directories: as
// configured, else where the engine sees them.
func containersDirOf(configured, root string) string {
	return cmp.Or(configured, filepath.Join(root, "containers"))
}

// fileInfoFor says where a container's log is, also before its first start,
// when the engine does not.
func fileInfoFor(configured, root string, c docker.Container) ContainerLogFileInfo {
	if configured == "" && c.LogPath == "" {
		configured = containersDirOf("", root)
	}
	return fileInfoOf(configured, c)
}

// Self is the container that the agent runs in, as far as that can be told. The zero
// value is none.
type Self struct {
	// ID is its full ID, or "".
	ID string
	// PodUID and PodContainer are, in a pod, the pod's UID and the container's name
	// there, which its labels have.
	PodUID, PodContainer string
}

// Labels that the kubelet gives the containers of a pod, by way of cri-dockerd.
const (
	podUIDLabel       = "io.kubernetes.pod.uid"
	podContainerLabel = "io.kubernetes.container.name"
)

// is says whether that is the agent's container; in a pod also one that it ran in
// before a restart, which has another ID.
func (s Self) is(c ContainerLogFileInfo) bool {
	return s.ID != "" && c.ID == s.ID ||
		s.PodUID != "" && c.Labels[podUIDLabel] == s.PodUID && c.Labels[podContainerLabel] == s.PodContainer
}

// excludes says why a container is not to be captured; empty if it is.
func (s Selection) excludes(name string, c ContainerLogFileInfo, self Self) string {
	captured, reason := s.decide(name, c.Image, c.Labels)
	switch {
	case self.is(c) && !enabled(c.Labels):
		return "the agent's own container; label " + enableLabel + "=true captures it"
	case captured:
		return ""
	}
	return reason
}
