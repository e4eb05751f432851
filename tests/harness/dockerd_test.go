package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
	"github.com/moby/moby/client"
)

// told is a docker.Watcher that hands on what it is told.
type told struct{ c chan call }

// call is one call of a Watcher.
type call struct {
	what  string // resync, disconnected, or an event's action
	event docker.Event
	all   []docker.Summary
	err   error
}

func (w told) Resync(_ context.Context, all []docker.Summary) { w.c <- call{what: "resync", all: all} }
func (w told) Event(_ context.Context, e docker.Event)        { w.c <- call{what: e.Action, event: e} }
func (w told) Disconnected(err error)                         { w.c <- call{what: "disconnected", err: err} }

// next gives the next call of any of the given kinds within limit, passing over
// others.
func (w told) next(t *testing.T, limit time.Duration, what ...string) call {
	t.Helper()
	deadline := time.After(limit)
	var others []string
	for {
		select {
		case c := <-w.c:
			if slices.Contains(what, c.what) {
				return c
			}
			others = append(others, c.what)
		case <-deadline:
			t.Fatalf("not told %v within %v, only %v", what, limit, others)
		}
	}
}

// watch starts a Watch that ends with the test.
func watch(t *testing.T, d *Dockerd, opts ...docker.Option) (*docker.Client, told) {
	t.Helper()
	c, err := docker.New(d.Host, opts...)
	if err != nil {
		t.Fatal(err)
	}
	w := told{make(chan call, 10_000)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Watch(ctx, w); err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, w
}

// entry is an entry of Docker's json-file.
type entry struct {
	Log, Stream string
	Time        time.Time
}

func readLog(t *testing.T, path string) []entry {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for l := range bytes.Lines(text) {
		var e entry
		if err := json.Unmarshal(l, &e); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		all = append(all, e)
	}
	return all
}

func TestDockerd(t *testing.T) {
	d := StartDockerd(t)
	c, w := watch(t, d)
	if all := w.next(t, 10*time.Second, "resync").all; len(all) != 0 {
		t.Errorf("a new engine has containers: %+v", all)
	}

	t.Run("info", func(t *testing.T) {
		info, err := c.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		host, _ := os.Hostname()
		if info.RootDir != d.DataRoot || info.Name != host || info.LoggingDriver != "json-file" || info.ServerVersion == "" || info.APIVersion == "" {
			t.Errorf("%+v", info)
		}
	})

	t.Run("its parts are those chosen", func(t *testing.T) {
		want, err := exec.LookPath(dockerdBin())
		if err == nil {
			want, err = filepath.EvalSymlinks(want)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.Pid())); err != nil || got != want {
			t.Errorf("dockerd is %s, want %s: %v", got, want, err)
		}
		info, err := d.API.Info(t.Context(), client.InfoOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r, ok := info.Info.Runtimes[info.Info.DefaultRuntime]
		if chosen := os.Getenv(runcEnv); !ok || chosen != "" && r.Path != chosen || chosen == "" && info.Info.DefaultRuntime == chosenRuntime {
			t.Errorf("the runtime is %s, %+v; chosen is %q", info.Info.DefaultRuntime, r, chosen)
		}
		t.Logf("%s: version %s, runtime %s", want, info.Info.ServerVersion, r.Path)
	})

	t.Run("lines of each kind", func(t *testing.T) {
		for _, kind := range lines.Kinds() {
			const n = 7
			id := d.Run(t, ContainerSpec{Name: "kind-" + kind, Cmd: []string{
				"-lines", fmt.Sprint(n), "-kind", kind, "-prefix", "p", "-size", "300", "-stderr-every", "3",
			}})
			if code := d.Wait(t, id, 20*time.Second); code != 0 {
				t.Fatalf("%s: exit status %d", kind, code)
			}
			text := map[string]string{}
			for _, e := range readLog(t, d.LogPath(id)) {
				text[e.Stream] += e.Log
			}
			want := map[string]string{}
			for i := 1; i <= n; i++ {
				l := lines.Line(kind, "p", i, 300) + "\n"
				if kind == lines.NoNewline && i == n {
					l = strings.TrimSuffix(l, "\n")
				}
				if i%3 == 0 {
					want["stderr"] += l
				} else {
					want["stdout"] += l
				}
			}
			for _, s := range []string{"stdout", "stderr"} {
				if text[s] != want[s] {
					t.Errorf("%s: %s has %d bytes, want %d:\n%.300q\n%.300q", kind, s, len(text[s]), len(want[s]), text[s], want[s])
				}
			}
		}
	})

	t.Run("inspect and list", func(t *testing.T) {
		before := time.Now()
		id := d.Run(t, ContainerSpec{
			Name: "insp", TTY: true, LogOpts: map[string]string{"max-size": "1m", "max-file": "2"},
			Labels: map[string]string{"com.example/a": "1", "name": "a label", "exitCode": "a label too"},
			Env:    []string{"PASSWORD=hunter2"}, Cmd: []string{"-lines", "1", "-sleep-after", "-1s"},
		})
		got, err := c.Inspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != id || got.Name != "insp" || got.Image != Image || !strings.HasPrefix(got.ImageID, "sha256:") ||
			got.Driver != "json-file" || got.LogOptions["max-size"] != "1m" || got.LogOptions["max-file"] != "2" ||
			got.LogPath != d.LogPath(id) || !got.TTY || !got.Running || got.Status != "running" ||
			got.Labels["com.example/a"] != "1" || got.StartedAt.Before(before.Add(-time.Second)) || !got.FinishedAt.IsZero() {
			t.Errorf("inspect of a running container: %+v", got)
		}
		if strings.Contains(fmt.Sprintf("%+v", got), "hunter2") {
			t.Error("inspect gives the environment away")
		}
		if _, err := os.Stat(got.LogPath); err != nil {
			t.Error(err)
		}
		// Labels that look like attributes of events.
		if e := w.next(t, 10*time.Second, docker.ActionCreate).event; e.Name == "" {
			t.Errorf("%+v", e)
		}
		for {
			e := w.next(t, 10*time.Second, docker.ActionStart).event
			if e.ID != id {
				continue
			}
			if e.Name != "insp" || e.Image != Image || e.Labels["com.example/a"] != "1" || e.Labels["image"] != "" || e.ExitCode != -1 {
				t.Errorf("start: %+v", e)
			}
			if d := time.Since(e.Time); d < 0 || d > time.Minute {
				t.Errorf("start: time %v", e.Time)
			}
			break
		}
		d.Rename(t, id, "other")
		if e := w.next(t, 10*time.Second, docker.ActionRename).event; e.ID != id || e.Name != "other" || e.Labels["oldName"] != "" {
			t.Errorf("rename: %+v", e)
		}
		d.StopContainer(t, id, 10*time.Second)
		if e := w.next(t, 10*time.Second, docker.ActionDie).event; e.ID != id || e.ExitCode != -1 { // its label hides the code
			t.Errorf("die: %+v", e)
		}
		got, err = c.Inspect(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != id || got.Running || got.Status != "exited" || got.FinishedAt.Before(got.StartedAt) {
			t.Errorf("inspect of an exited container: %+v", got)
		}
		all, err := c.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(s docker.Summary) bool { return s.ID == id })
		if i < 0 || all[i].Name != "other" || all[i].Running || all[i].Status != "exited" || all[i].Image != Image ||
			all[i].Labels["com.example/a"] != "1" || all[i].Created.Before(before.Add(-2*time.Second)) {
			t.Errorf("list: %d %+v", i, all)
		}
		d.Remove(t, id)
		if _, err := c.Inspect(t.Context(), id); !docker.IsNotFound(err) {
			t.Errorf("inspect of a removed container: %v", err)
		}
	})

	t.Run("events of short-lived containers", func(t *testing.T) {
		// docker run --rm: the file is there from the start on, and has gone
		// before destroy is told.
		const n = 5
		order := map[string][]string{}
		for i := range n {
			id := d.Run(t, ContainerSpec{Name: fmt.Sprintf("short%d", i), AutoRemove: true, Cmd: []string{"-lines", "1", "-exit", "3"}})
			order[id] = nil
		}
		for left := n; left > 0; {
			e := w.next(t, 20*time.Second, docker.ActionCreate, docker.ActionStart, docker.ActionDie, docker.ActionStop, docker.ActionDestroy).event
			if _, ours := order[e.ID]; !ours {
				continue
			}
			order[e.ID] = append(order[e.ID], e.Action)
			switch e.Action {
			case docker.ActionDie:
				if e.ExitCode != 3 {
					t.Errorf("die: %+v", e)
				}
			case docker.ActionDestroy:
				left--
				if _, err := os.Stat(d.LogPath(e.ID)); err == nil {
					t.Errorf("destroy was told before the log had gone")
				}
			}
		}
		for id, got := range order {
			if want := []string{"create", "start", "die", "destroy"}; !slices.Equal(got, want) {
				t.Errorf("container %.12s: %v, want %v", id, got, want)
			}
		}
	})

	t.Run("restart policy", func(t *testing.T) {
		id := d.Run(t, ContainerSpec{Name: "again", Restart: "on-failure", Cmd: []string{"-lines", "1", "-exit", "1"}})
		var got []string
		for len(got) < 5 {
			if e := w.next(t, 20*time.Second, docker.ActionCreate, docker.ActionStart, docker.ActionDie).event; e.ID == id {
				got = append(got, e.Action)
			}
		}
		if want := []string{"create", "start", "die", "start", "die"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		d.Remove(t, id)
	})
}

// TestDockerdOutages: what Watch tells when the engine is restarted, dies and
// freezes; and that the harness can do all of it.
func TestDockerdOutages(t *testing.T) {
	d := StartDockerd(t, WithLiveRestore())
	var logs bytes.Buffer
	c, w := watch(t, d, docker.WithLogger(slog.New(slog.NewTextHandler(&logs, nil))))
	w.next(t, 10*time.Second, "resync")
	id := d.Run(t, ContainerSpec{Name: "survivor", Cmd: []string{"-lines", "0", "-rate", "50", "-prefix", "s"}})
	w.next(t, 10*time.Second, docker.ActionStart)

	resynced := func(how string) {
		t.Helper()
		got := w.next(t, 20*time.Second, "disconnected", "resync")
		if got.what != "disconnected" || !docker.IsUnavailable(got.err) {
			t.Errorf("%s: told %+v, want a disconnection", how, got)
		}
		got = w.next(t, 20*time.Second, "disconnected", "resync")
		if got.what != "resync" || len(got.all) != 1 || got.all[0].ID != id || !got.all[0].Running {
			t.Errorf("%s: told %+v, want a resync with the running container", how, got)
		}
	}
	pid := d.Pid()
	d.Restart()
	if d.Pid() == pid {
		t.Error("the engine was not restarted")
	}
	resynced("restart")

	d.Kill9()
	if _, err := c.List(t.Context()); !docker.IsUnavailable(err) || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("list without an engine: %v", err)
	}
	d.Start()
	resynced("kill -9")

	// The container has lived through both.
	before := readLog(t, d.LogPath(id))
	if !poll(10*time.Second, func() bool { return len(readLog(t, d.LogPath(id))) > len(before) }) {
		t.Error("the container does not write any more")
	}

	d.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	if _, err := c.List(ctx); err == nil {
		t.Error("a frozen engine answers")
	}
	cancel()
	d.Thaw()
	if _, err := c.List(t.Context()); err != nil {
		t.Errorf("after the thaw: %v", err)
	}
	d.KillContainer(t, id)
	if e := w.next(t, 20*time.Second, docker.ActionDie).event; e.ID != id || e.ExitCode != 137 {
		t.Errorf("die: %+v", e)
	}
}

// TestDockerdLeavesNothing: neither a living daemon nor a killed one with a
// running container leaves processes, mounts, cgroups or files.
func TestDockerdLeavesNothing(t *testing.T) {
	NeedDocker(t)
	var d *Dockerd
	shims := 0
	t.Run("killed", func(t *testing.T) {
		d = StartDockerd(t)
		d.Run(t, ContainerSpec{Name: "left", Cmd: []string{"-lines", "0", "-rate", "1"}})
		d.Kill9()
		shims = len(d.shims())
	})
	if shims != 1 {
		t.Errorf("the killed daemon had left %d shims, want 1: the rest of this test means nothing", shims)
	}
	if p := append(append(d.shims(), d.containerds()...), d.cgroupProcesses()...); len(p) > 0 {
		t.Errorf("processes are left: %v", p)
	}
	if dirs := d.cgroupDirs(); len(dirs) > 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
	if _, err := os.Stat(d.dir); err == nil {
		t.Errorf("%s is left", d.dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), d.dir+"/") {
		t.Error("mounts are left")
	}
	if err := syscall.Kill(d.Pid(), 0); err == nil {
		t.Error("the daemon is left")
	}
}
