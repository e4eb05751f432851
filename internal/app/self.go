package app

import (
	"os"
	"regexp"
)

// Docker mounts files of the container's own directory into it: the paths in
// mountinfo tell its ID, whatever the cgroup version.
var selfMount = regexp.MustCompile(`/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) `)

// selfContainerID gives the ID of the container that this process runs in, or ""
// outside of one.
func selfContainerID(mountinfo string) string {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return ""
	}
	if m := selfMount.FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return ""
}
