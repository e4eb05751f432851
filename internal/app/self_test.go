package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSelfContainerID(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for name, tc := range map[string]struct{ mountinfo, want string }{
		"in a container": {
			"1 2 0:1 / / rw - overlay overlay rw\n" +
				"649 630 254:1 /var/lib/docker/containers/" + id + "/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda1 rw\n", id,
		},
		"rootless, elsewhere": {"1 2 0:1 /home/u/.local/share/docker/containers/" + id + "/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n", id},
		"on the host, with a container's file system mounted": {
			"9 1 0:9 / /var/lib/docker/containers/" + id + "/mounts/shm rw - tmpfs shm rw\n", "",
		},
		"empty": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(file, []byte(tc.mountinfo), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := selfContainerID(file); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if got := selfContainerID(filepath.Join(t.TempDir(), "absent")); got != "" {
		t.Errorf("without mountinfo: %q", got)
	}
}
