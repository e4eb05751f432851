package harness

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Image is the image of all containers: nothing but tests/logwriter, which is
// its entry point.
const Image = "logwriter:1"

// ContainerSpec says what container to create.
type ContainerSpec struct {
	Name string
	// Image is Image when empty.
	Image string
	// Driver is json-file when empty.
	Driver  string
	LogOpts map[string]string
	Labels  map[string]string
	Env     []string
	TTY     bool
	// AutoRemove is docker run --rm.
	AutoRemove bool
	// Restart is a restart policy: "", always, on-failure, unless-stopped.
	Restart string
	// Cmd are flags of logwriter.
	Cmd []string
}

func (d *Dockerd) importImage() {
	d.tb.Helper()
	bin := d.buildLogwriter()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: "logwriter", Mode: 0o755, Size: int64(len(bin))})
	if err == nil {
		_, err = w.Write(bin)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		d.tb.Fatal(err)
	}
	ctx, cancel := d.limit()
	defer cancel()
	r, err := d.API.ImageImport(ctx, client.ImageImportSource{Source: &layer, SourceName: "-"}, Image,
		client.ImageImportOptions{Changes: []string{`ENTRYPOINT ["/logwriter"]`}})
	if err != nil {
		d.tb.Fatalf("import the image: %v", err)
	}
	defer r.Close()
	if answer, err := io.ReadAll(r); err != nil || bytes.Contains(answer, []byte(`"error"`)) {
		d.tb.Fatalf("import the image: %v: %s", err, answer)
	}
}

func (d *Dockerd) limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), apiLimit)
}

// ContainerState is what the engine says of a container.
type ContainerState struct {
	ID, Name string
	// Running is false for one that was created and not started, too.
	Running bool
}

// ListNow gives all containers. It and the other methods with Now are for
// goroutines that are not the test's, and where the engine may be down: they give
// their errors back.
func (d *Dockerd) ListNow(ctx context.Context) ([]ContainerState, error) {
	r, err := d.API.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	all := make([]ContainerState, 0, len(r.Items))
	for _, c := range r.Items {
		s := ContainerState{ID: c.ID, Running: c.State != container.StateExited && c.State != container.StateDead && c.State != container.StateCreated}
		if len(c.Names) > 0 {
			s.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		all = append(all, s)
	}
	return all, nil
}

// LogNow gives what the engine has of the log of a container without a TTY.
func (d *Dockerd) LogNow(ctx context.Context, id string) (stdout, stderr []byte, err error) {
	r, err := d.API.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	var out, errs bytes.Buffer
	var head [8]byte // stream, three zeros, length
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return out.Bytes(), errs.Bytes(), err
		}
		to := &out
		if head[0] == 2 {
			to = &errs
		}
		if _, err := io.CopyN(to, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return nil, nil, err
		}
	}
}

// StartNow starts a container.
func (d *Dockerd) StartNow(ctx context.Context, id string) error {
	_, err := d.API.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

// KillNow sends SIGKILL.
func (d *Dockerd) KillNow(ctx context.Context, id string) error {
	_, err := d.API.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"})
	return err
}

// TermNow sends SIGTERM; a container that does not run is no error.
func (d *Dockerd) TermNow(ctx context.Context, id string) error {
	_, err := d.API.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "TERM"})
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil
	}
	return err
}

// RemoveNow removes a container, killing it if need be; one that has gone, or is
// going, is no error.
func (d *Dockerd) RemoveNow(ctx context.Context, id string) error {
	_, err := d.API.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil
	}
	return err
}

// Running reports whether a container runs, and how often its restart policy has
// started it again.
func (d *Dockerd) Running(tb TB, id string) (running bool, restarts int) {
	tb.Helper()
	d.do(tb, "inspect", id, func(ctx context.Context) error {
		r, err := d.API.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err == nil {
			running, restarts = r.Container.State.Running, r.Container.RestartCount
		}
		return err
	})
	return running, restarts
}

// Create creates a container and gives its ID.
func (d *Dockerd) Create(tb TB, s ContainerSpec) string {
	tb.Helper()
	ctx, cancel := d.limit()
	defer cancel()
	id, err := d.CreateNow(ctx, s)
	if err != nil {
		tb.Fatalf("create container %s: %v", s.Name, err)
	}
	return id
}

// CreateNow creates a container and gives its ID.
func (d *Dockerd) CreateNow(ctx context.Context, s ContainerSpec) (string, error) {
	r, err := d.API.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: s.Name,
		Config: &container.Config{
			Image: cmp.Or(s.Image, Image), Cmd: s.Cmd, Labels: s.Labels, Env: s.Env, Tty: s.TTY,
		},
		HostConfig: &container.HostConfig{
			NetworkMode:   "none",
			AutoRemove:    s.AutoRemove,
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart)},
			LogConfig:     container.LogConfig{Type: cmp.Or(s.Driver, "json-file"), Config: s.LogOpts},
		},
	})
	return r.ID, err
}

// Run creates a container, starts it and gives its ID.
func (d *Dockerd) Run(tb TB, s ContainerSpec) string {
	tb.Helper()
	id := d.Create(tb, s)
	d.StartContainer(tb, id)
	return id
}

// StartContainer starts a container.
func (d *Dockerd) StartContainer(tb TB, id string) {
	tb.Helper()
	d.do(tb, "start", id, func(ctx context.Context) error {
		_, err := d.API.ContainerStart(ctx, id, client.ContainerStartOptions{})
		return err
	})
}

// StopContainer stops a container, by SIGKILL after grace.
func (d *Dockerd) StopContainer(tb TB, id string, grace time.Duration) {
	tb.Helper()
	seconds := int(grace / time.Second)
	d.do(tb, "stop", id, func(ctx context.Context) error {
		_, err := d.API.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds})
		return err
	})
}

// RestartContainer stops a container, by SIGKILL after grace, and starts it.
func (d *Dockerd) RestartContainer(tb TB, id string, grace time.Duration) {
	tb.Helper()
	seconds := int(grace / time.Second)
	d.do(tb, "restart", id, func(ctx context.Context) error {
		_, err := d.API.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: &seconds})
		return err
	})
}

// KillContainer sends SIGKILL to a container.
func (d *Dockerd) KillContainer(tb TB, id string) {
	tb.Helper()
	d.do(tb, "kill", id, func(ctx context.Context) error {
		_, err := d.API.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"})
		return err
	})
}

// Rename gives a container another name.
func (d *Dockerd) Rename(tb TB, id, name string) {
	tb.Helper()
	d.do(tb, "rename", id, func(ctx context.Context) error {
		_, err := d.API.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: name})
		return err
	})
}

// Remove removes a container, killing it if need be.
func (d *Dockerd) Remove(tb TB, id string) {
	tb.Helper()
	d.do(tb, "remove", id, func(ctx context.Context) error {
		_, err := d.API.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
		return err
	})
}

// Wait waits until a container is not running, at most for limit, and gives its
// exit status.
func (d *Dockerd) Wait(tb TB, id string, limit time.Duration) int {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	w := d.API.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case r := <-w.Result:
		if r.Error != nil {
			tb.Fatalf("wait for container %s: %s", id, r.Error.Message)
		}
		return int(r.StatusCode)
	case err := <-w.Error:
		tb.Fatalf("wait for container %s: %v", id, err)
		return -1
	}
}

func (d *Dockerd) do(tb TB, what, id string, f func(context.Context) error) {
	tb.Helper()
	ctx, cancel := d.limit()
	defer cancel()
	if err := f(ctx); err != nil {
		tb.Fatal(fmt.Errorf("%s container %s: %w", what, id, err))
	}
}
