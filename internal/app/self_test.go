package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/internal/monitors"
)

// TestSelfOf has what processes see of themselves: on hosts, in Docker's containers, in
// pods of cri-dockerd; with either version of cgroups.
func TestSelfOf(t *testing.T) {
	own, other := strings.Repeat("0a", 32), strings.Repeat("f7", 32)
	const uid, underscored = "fd698699-eabf-4c23-92ef-cf0bbdb78261", "fd698699_eabf_4c23_92ef_cf0bbdb78261"
	dockerFiles := func(id string) string {
		return "868 857 253:0 /var/lib/docker/containers/" + id + "/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda1 rw\n" +
			"869 857 253:0 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"
	}
	const v2 = "863 862 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n"
	// The pod's files; those of Docker are of the container that holds its network.
	inPod := "857 780 0:83 / / ro,relatime master:316 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/ABC,upperdir=/var/lib/docker/overlay2/" + other + "/diff\n" +
		"865 857 253:0 /var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~configmap/config /etc/log_capturer ro,relatime - ext4 /dev/vda1 rw\n" +
		"866 857 253:0 /var/lib/docker/containers /var/lib/docker/containers ro,relatime - ext4 /dev/vda1 rw\n" +
		"867 859 253:0 /var/lib/kubelet/pods/" + uid + "/containers/log-capturer/fc4135aa /dev/termination-log rw,relatime - ext4 /dev/vda1 rw\n" +
		dockerFiles(other) +
		"870 857 253:0 /var/lib/kubelet/pods/" + uid + "/etc-hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw\n" +
		"871 859 0:52 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k\n"
	pod := monitors.Self{PodUID: uid, PodContainer: "log-capturer"}
	podAndID := pod
	podAndID.ID = own

	for name, tc := range map[string]struct {
		cgroup, mountinfo string
		want              monitors.Self
	}{
		"nothing can be read": {},
		"a host, a container's file system mounted": {
			"0::/system.slice/log_capturer.service\n",
			"9 1 0:9 / /var/lib/docker/containers/" + own + "/mounts/shm rw - tmpfs shm rw\n" +
				"10 1 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" +
				"11 1 0:40 / /var/lib/docker/overlay2/" + own + "/merged rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/" + own + "/diff\n",
			monitors.Self{},
		},
		"Docker, cgroups version 2": {"0::/\n", v2 + dockerFiles(own), monitors.Self{ID: own}},
		"Docker, version 2, no namespace of cgroups": {
			"0::/system.slice/docker-" + own + ".scope\n",
			strings.Replace(v2, " / ", " /system.slice/docker-"+own+".scope ", 1) + dockerFiles(own), monitors.Self{ID: own},
		},
		"Docker, version 1": {
			"12:memory:/docker/" + own + "\n1:name=systemd:/docker/" + own + "\n0::/system.slice/containerd.service\n", dockerFiles(own), monitors.Self{ID: own},
		},
		"Docker, another's network, version 1":        {"12:memory:/docker/" + own + "\n", dockerFiles(other), monitors.Self{ID: own}},
		"Docker in Docker, version 1":                 {"4:memory:/docker/" + other + "/docker/" + own + "\n", dockerFiles(own), monitors.Self{ID: own}},
		"Docker, rootless, elsewhere":                 {"0::/\n", "1 2 0:1 /home/u/.local/share/docker/containers/" + own + "/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n", monitors.Self{ID: own}},
		"Docker, another's network, version 2: taken": {"0::/\n", v2 + dockerFiles(other), monitors.Self{ID: other}}, // nothing tells

		"pod, version 2": {"0::/\n", v2 + inPod, pod},
		"pod, version 2, mounted from above the namespace": {
			"0::/\n", strings.Replace(v2, " / ", " /../../kubepods-besteffort-pod"+underscored+".slice/docker-"+own+".scope ", 1) + inPod, podAndID,
		},
		"pod, version 2, host's cgroups": {
			"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + underscored + ".slice/docker-" + own + ".scope\n", inPod, podAndID,
		},
		"pod, version 1, cgroupfs": {"9:pids:/kubepods/burstable/pod" + uid + "/" + own + "\n8:cpu,cpuacct:/kubepods/burstable/pod" + uid + "/" + own + "\n", inPod, podAndID},
		"pod, version 1, by the mount": {
			"", "2643 2632 0:37 /kubepods/burstable/pod" + uid + "/" + own + " /sys/fs/cgroup/blkio ro,nosuid - cgroup cgroup rw,blkio\n" + inPod, podAndID,
		},
		"pod of a file of the kubelet's, on a file system of its own": {
			"0::/\n", "867 859 253:0 /pods/0123456789abcdef0123456789abcdef/containers/agent/00000001 /dev/termination-log rw - ext4 /dev/vdb rw\n",
			monitors.Self{PodUID: "0123456789abcdef0123456789abcdef", PodContainer: "agent"},
		},
		"not lines of mountinfo": {"x\n\n", "\n1 2\n - cgroup\n", monitors.Self{}},
	} {
		if got := selfOf(tc.cgroup, tc.mountinfo); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestSelf(t *testing.T) {
	id, proc := strings.Repeat("0a", 32), t.TempDir()
	if got := self(proc); got != (monitors.Self{}) {
		t.Errorf("without files: %+v", got)
	}
	for name, text := range map[string]string{"cgroup": "0::/\n", "mountinfo": "1 2 0:1 /containers/" + id + "/hosts /etc/hosts rw - ext4 /dev/vda1 rw\n"} {
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := self(proc); got.ID != id {
		t.Errorf("got %+v", got)
	}
}
