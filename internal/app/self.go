package app

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/log-capturer/log_capturer/internal/monitors"
)

var (
	// cgroupID finds containers' IDs in the path of a cgroup: docker/ID,
	// docker-ID.scope, kubepods/…/ID.
	cgroupID = regexp.MustCompile(`[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$)`)
	// podFile is a file that the kubelet mounts into each container of a pod:
	// /dev/termination-log, as a rule.
	podFile = regexp.MustCompile(`/pods/([0-9a-f-]{32,36})/containers/([^/]+)/[0-9a-f]{8}$`)
	// dockerFile is a file of a container's own directory that Docker mounts into it.
	dockerFile = regexp.MustCompile(`/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf)$`)
)

// self says in which container this process runs, by a /proc/PID directory; nothing
// if that cannot be read.
func self(proc string) monitors.Self {
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(proc, name)) // without it nothing is known
		return string(text)
	}
	return selfOf(read("cgroup"), read("mountinfo"))
}

// selfOf says in which container the process runs that has these cgroups and mounts
// (cgroups(7), proc(5)); nothing outside of one.
//
// The path of a cgroup has the container's ID, unless the process has a namespace of
// cgroups, which Docker gives it with version 2: there the path is "/". In a pod the
// kubelet's mounts name pod and container. What is left are Docker's mounts, which are
// the last resort: a container that shares the network of another has that one's, and in
// a pod they are those of the container that holds its network.
func selfOf(cgroup, mountinfo string) monitors.Self {
	var self monitors.Self
	note := func(path string) {
		if all := cgroupID.FindAllStringSubmatch(path, -1); all != nil {
			self.ID = all[len(all)-1][1] // the innermost of containers in containers
		}
	}
	var shared string
	for line := range strings.Lines(mountinfo) {
		mount, source, _ := strings.Cut(line, " - ")
		f := strings.Fields(mount)
		if len(f) < 5 {
			continue
		}
		root := f[3] // what is mounted, as a path of its file system
		if strings.HasPrefix(source, "cgroup") {
			note(root)
		}
		if m := podFile.FindStringSubmatch(root); m != nil {
			self.PodUID, self.PodContainer = m[1], m[2]
		}
		if m := dockerFile.FindStringSubmatch(root); m != nil {
			shared = m[1]
		}
	}
	for line := range strings.Lines(cgroup) {
		note(strings.TrimSpace(line))
	}
	if self == (monitors.Self{}) {
		self.ID = shared
	}
	return self
}
