package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads a file as docker compose does: checked against Compose's schema, with
// variables from env alone.
func load(t *testing.T, file string, env ...string) (*types.Project, error) {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{filepath.Join(deploy, file)}, cli.WithName("test"), cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	return o.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	if _, err := load(t, "compose/compose.yaml"); err == nil || !strings.Contains(err.Error(), "DOCKER_GID") {
		t.Errorf("without DOCKER_GID: %v", err)
	}
	p, err := load(t, "compose/compose.yaml", "DOCKER_GID=999", "DOCKER_ROOT=/srv/docker")
	if err != nil {
		t.Fatal(err)
	}
	if names := p.ServiceNames(); !slices.Equal(names, []string{"grafana", "log_capturer", "loki", "prometheus"}) {
		t.Errorf("services: %q", names)
	}
	for name, s := range p.Services {
		// The image of the agent brings its own.
		if (s.HealthCheck == nil) != (name == "log_capturer") {
			t.Errorf("%s: health check %v", name, s.HealthCheck)
		}
		if s.Restart != "unless-stopped" {
			t.Errorf("%s: restart %q", name, s.Restart)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is published at %q", name, port.HostIP)
			}
		}
		for _, v := range s.Volumes {
			// What is of the repository has to be there; Docker would make a directory.
			if dir, err := filepath.Abs(deploy); err != nil || !strings.HasPrefix(v.Source, dir) {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("%s mounts %s (read-only: %v): %v", name, v.Source, v.ReadOnly, err)
			}
		}
	}
	// Loki logs what it is sent.
	if got := p.Services["loki"].Labels["log_capturer.enable"]; got != "false" {
		t.Errorf("Loki's own log is captured: label %q", got)
	}
	least(t, p.Services["log_capturer"], "/srv/docker/containers")
	if got := p.Services["log_capturer"].GroupAdd; !slices.Equal(got, []string{"999"}) {
		t.Errorf("groups %q", got)
	}
}

func TestSwarm(t *testing.T) {
	env := []string{"DOCKER_GID=999", "LOKI_URL=http://loki:3100", "LOG_CAPTURER_IMAGE=example.com/log_capturer"}
	for i := range env {
		if _, err := load(t, "swarm/stack.yaml", slices.Delete(slices.Clone(env), i, i+1)...); err == nil {
			t.Errorf("without %s it is taken", env[i])
		}
	}
	p, err := load(t, "swarm/stack.yaml", env...)
	if err != nil {
		t.Fatal(err)
	}
	s := p.Services["agent"]
	if s.Deploy == nil || s.Deploy.Mode != "global" || s.User != "65532:999" {
		t.Errorf("deployed as %v, user %q", s.Deploy, s.User)
	}
	least(t, s, "/var/lib/docker/containers")
}

// least fails the test unless a service may do what the agent must and no more.
func least(t *testing.T, s types.ServiceConfig, containers string) {
	t.Helper()
	if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.CapAdd, []string{"DAC_READ_SEARCH"}) || !s.ReadOnly || s.Privileged {
		t.Errorf("capabilities without %q and with %q, read-only %v, privileged %v", s.CapDrop, s.CapAdd, s.ReadOnly, s.Privileged)
	}
	mounts := map[string]types.ServiceVolumeConfig{}
	for _, v := range s.Volumes {
		mounts[v.Target] = v
	}
	if v := mounts[containers]; v.Source != containers || !v.ReadOnly {
		t.Errorf("Docker's containers: %+v", v)
	}
	if v := mounts["/var/run/docker.sock"]; v.Source != v.Target {
		t.Errorf("Docker's socket: %+v", v)
	}
	if v := mounts["/var/lib/log_capturer"]; v.Type != types.VolumeTypeVolume {
		t.Errorf("what must survive: %+v", v)
	}
	if s.StopGracePeriod == nil || s.StopGracePeriod.String() != "15s" {
		t.Errorf("stop grace period %v", s.StopGracePeriod)
	}
}
