package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

func TestNew(t *testing.T) {
	for _, tc := range []struct{ arg, env, want string }{
		{"", "", "unix:///var/run/docker.sock"},
		{"", "tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"},
		{"unix:///run/a.sock", "tcp://10.0.0.1:2375", "unix:///run/a.sock"},
		{"tcp://h:1", "", "tcp://h:1"},
		{"/var/run/docker.sock", "", ""},
		{"unix://", "", ""},
		{"ssh://host", "", ""},
		{"tcp://", "", ""},
		{"tcp://user:secret@h:1", "", ""},
		{"tcp://secret@h:1", "", ""},
		{"tcp://h:1?token=secret", "", ""},
		{"tcp://h:1#secret", "", ""},
		{"unix://user:secret@h/a.sock", "", ""},
		{"https://secret@h/", "", ""},
		{"secret:secret", "", ""},
		{"", "tcp://user:secret@h:1", ""},
		{"unix:///" + strings.Repeat("x", 108), "", ""},
		{"%zz", "", ""},
		{"tcp://user:secret@h:1\n", "", ""},
	} {
		t.Setenv("DOCKER_HOST", tc.env)
		c, err := New(tc.arg)
		switch {
		case tc.want == "" && err == nil:
			t.Errorf("New(%q) took it", tc.arg)
		case tc.want == "" && strings.Contains(err.Error(), "secret"):
			t.Errorf("New(%q) with DOCKER_HOST=%q gives the password away: %v", tc.arg, tc.env, err)
		case tc.want != "" && (err != nil || c.Host() != tc.want):
			t.Errorf("New(%q) with DOCKER_HOST=%q: %v, %v, want %s", tc.arg, tc.env, c, err, tc.want)
		}
	}
	if _, err := New("unix:///a", WithResyncEvery(0)); err == nil {
		t.Error("New took a resync interval of 0")
	}
	reg := prometheus.NewRegistry()
	if _, err := New("unix:///a", WithRegisterer(reg)); err != nil {
		t.Error(err)
	}
	if _, err := New("unix:///a", WithRegisterer(reg)); err == nil {
		t.Error("New registered its metrics twice")
	}
	t.Setenv("DOCKER_API_VERSION", "latest")
	if _, err := New("unix:///a"); err == nil {
		t.Error("New took a wrong DOCKER_API_VERSION")
	}
}

func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		created := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
		e.set(func() {
			e.list = []map[string]any{
				{"Id": "a", "Names": []string{"/other/alias", "/web"}, "Image": "app:1", "State": "running", "Created": created.Unix(), "Labels": map[string]string{"k": "v"}},
				{"Id": "b", "Names": nil, "Image": "sha256:1", "State": "exited"},
			}
			e.inspect["a"] = map[string]any{"Id": "a", "Name": "/web", "State": map[string]any{"Status": "running", "Running": true}}
		})
		c := e.client(t)
		info, err := c.Info(t.Context())
		want := Info{Name: "host1", RootDir: "/var/lib/docker", ServerVersion: "20.10.24", APIVersion: "1.41", LoggingDriver: "json-file"}
		if err != nil || info != want {
			t.Errorf("Info gave %+v, %v", info, err)
		}
		all, err := c.List(t.Context())
		if err != nil || len(all) != 2 {
			t.Fatalf("List gave %+v, %v", all, err)
		}
		if a := all[0]; a.ID != "a" || a.Name != "web" || a.Image != "app:1" || !a.Running || a.Status != "running" || !a.Created.Equal(created) || a.Labels["k"] != "v" {
			t.Errorf("List gave %+v", a)
		}
		if b := all[1]; b.Name != "" || b.Running || b.Status != "exited" {
			t.Errorf("List gave %+v", b)
		}
		ctr, err := c.Inspect(t.Context(), "a")
		if err != nil || ctr.Name != "web" || !ctr.Running {
			t.Errorf("Inspect gave %+v, %v", ctr, err)
		}
		for _, r := range e.seen() {
			if !strings.Contains(r, "/v1.41/") && !strings.HasSuffix(r, "/_ping") {
				t.Errorf("request %s is not of the negotiated version", r)
			}
		}
	})
}

// TestCallErrors: each call, failing in each way.
func TestCallErrors(t *testing.T) {
	calls := map[string]func(context.Context, *Client) error{
		"get info":            func(ctx context.Context, c *Client) error { _, err := c.Info(ctx); return err },
		"list containers":     func(ctx context.Context, c *Client) error { _, err := c.List(ctx); return err },
		"inspect container a": func(ctx context.Context, c *Client) error { _, err := c.Inspect(ctx, "a"); return err },
	}
	paths := map[string]string{"get info": "/info", "list containers": "/containers/json", "inspect container a": "/containers/a/json"}
	ways := []struct {
		name        string
		hook        http.HandlerFunc
		notFound    bool
		unavailable bool
		took        time.Duration
		says        string
	}{
		{"404", status(404), true, false, 0, "made to fail with 404"},
		{"400", status(400), false, false, 0, "made to fail with 400"},
		{"409", status(409), false, false, 0, "made to fail with 409"},
		{"500", status(500), false, true, 0, "made to fail with 500"},
		{"503", status(503), false, true, 0, "made to fail with 503"},
		{"hang", hang, false, true, callTimeout, "no answer within 10s"},
		{"hang in the body", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"Name":`))
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}, false, true, callTimeout, "no answer within 10s"},
		{"cut before the header", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, true, 0, ""},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[{"Id":"a"`)) }, false, false, 0, ""},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`<html>`)) }, false, false, 0, "invalid character"},
	}
	for call, f := range calls {
		for _, way := range ways {
			t.Run(call+"/"+way.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newFakeEngine(t)
					e.set(func() { e.hooks[paths[call]] = way.hook })
					start := time.Now()
					err := f(t.Context(), e.client(t))
					if err == nil {
						t.Fatal("no error")
					}
					if took := time.Since(start); took != way.took {
						t.Errorf("took %v, want %v", took, way.took)
					}
					if IsNotFound(err) != way.notFound {
						t.Errorf("%v: IsNotFound is not %v", err, way.notFound)
					}
					if way.name != "half an answer" && IsUnavailable(err) != way.unavailable { // Info hides the cause
						t.Errorf("%v: IsUnavailable is not %v", err, way.unavailable)
					}
					for _, s := range []string{call, "unix:///fake/docker.sock", way.says} {
						if !strings.Contains(err.Error(), s) {
							t.Errorf("%q does not say %q", err, s)
						}
					}
				})
			})
		}
	}
}

// TestCallEndedByCaller: the caller's end is no fault of the engine.
func TestCallEndedByCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		e.set(func() { e.hooks["/info"] = hang })
		c := e.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := c.Info(ctx)
		if !errors.Is(err, context.Canceled) || IsUnavailable(err) {
			t.Errorf("got %v", err)
		}
		// One waits for the other's negotiation, and does not wait for ever.
		e.set(func() { e.hooks["/_ping"] = hang })
		_ = c.Close()
		var both sync.WaitGroup
		start := time.Now()
		for range 2 {
			both.Go(func() {
				if _, err := c.Info(t.Context()); !IsUnavailable(err) {
					t.Errorf("got %v", err)
				}
			})
		}
		both.Wait()
		if d := time.Since(start); d != callTimeout {
			t.Errorf("took %v, want %v", d, callTimeout)
		}
	})
}

// TestCallsOverSockets uses the transports of the product.
func TestCallsOverSockets(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		if strings.HasSuffix(r.URL.Path, "/info") {
			_, _ = fmt.Fprintf(w, `{"Name":%q}`, r.URL.Path)
		}
	})
	tcp := httptest.NewServer(h)
	defer tcp.Close()
	path := shortSocket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	sock := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	sock.Start()
	defer sock.Close()
	// Certificates are for tcp alone.
	t.Setenv("DOCKER_CERT_PATH", "")
	for _, host := range []string{"tcp://" + tcp.Listener.Addr().String(), "unix://" + path} {
		c, err := New(host)
		if err != nil {
			t.Fatal(err)
		}
		info, err := c.Info(t.Context())
		if err != nil || info.Name != "/v1.44/info" || info.APIVersion != "1.44" {
			t.Errorf("%s: %+v, %v", host, info, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("DOCKER_CERT_PATH", filepath.Join(path, "nowhere"))
	if _, err := New("unix://" + path); err != nil {
		t.Errorf("a unix socket wants certificates: %v", err)
	}
	if _, err := New("tcp://h:1"); err == nil {
		t.Error("New took a DOCKER_CERT_PATH that does not exist")
	}
}

func shortSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lc") // t.TempDir may be longer than a socket's path can be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "d.sock")
}

// TestSocketHints: what an operator is told, by what is at the socket's path.
func TestSocketHints(t *testing.T) {
	listen := func(t *testing.T, path string) {
		t.Helper()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	for _, tc := range []struct {
		name, want string
		make       func(t *testing.T, path string)
	}{
		{"nothing", "does not exist: is Docker running? In a container mount the socket (-v ", func(*testing.T, string) {}},
		{"directory", "is a directory: it was mounted before Docker had made the socket", func(t *testing.T, p string) {
			if err := os.Mkdir(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}},
		{"file", "is no socket: check docker.host", func(t *testing.T, p string) {
			if err := os.WriteFile(p, nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}},
		{"stale socket", "nobody listens on ", func(t *testing.T, p string) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			if err := os.Chmod(p, 0o777); err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
		}},
		{"closed socket", "give the agent the group " + fmt.Sprint(os.Getegid()), func(t *testing.T, p string) {
			listen(t, p)
			if err := os.Chmod(p, 0o444); err != nil { // to connect is to write
				t.Fatal(err)
			}
		}},
		{"closed directory", "its directory is closed to the agent", func(t *testing.T, p string) {
			listen(t, p)
			if err := os.Chmod(filepath.Dir(p), 0); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := shortSocket(t)
			tc.make(t, path)
			var err error
			unprivileged(t, func() {
				// The moby client's own goroutines would be privileged, so that the
				// error is given; that it looks like this is checked below.
				text := "Cannot connect to the Docker daemon at x. Is the docker daemon running?"
				err = errors.New(socketHint("unix://"+path, errors.New(text)))
			})
			if !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("the hint is %q, want %q and the path in it", err, tc.want)
			}
			if strings.HasPrefix(tc.name, "closed") {
				return
			}
			c, err := New("unix://" + path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = c.Info(t.Context()); !IsUnavailable(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Info says %q, want %q in it", err, tc.want)
			}
		})
	}
	if h := socketHint("tcp://127.0.0.1:1", errors.New("x")); h != "" {
		t.Errorf("hint %q for a tcp host", h)
	}
}

// unprivileged runs f on a thread without root's rights. The thread dies with
// its goroutine.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if os.Geteuid() == 0 {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
				done <- fmt.Errorf("setresuid: %w", errno)
				return
			}
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestToContainer(t *testing.T) {
	const text = `{
		"Id":"abc","Name":"/web","Image":"sha256:feed","Created":"2025-11-07T12:00:00.5Z",
		"LogPath":"/var/lib/docker/containers/abc/abc-json.log","Driver":"overlay2",
		"State":{"Status":%q,"Running":%v,"Paused":%v,"Restarting":%v,"StartedAt":"2025-11-07T12:00:01.000000001Z","FinishedAt":"0001-01-01T00:00:00Z"},
		"Config":{"Image":"app:1","Tty":true,"Env":["PASSWORD=secret"],"Labels":{"k":"v"}},
		"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}}}}`
	for _, tc := range []struct {
		status                      string
		running, paused, restarting bool
		want                        bool
	}{
		{"running", true, false, false, true},
		{"paused", true, true, false, true},
		{"restarting", false, false, true, true},
		{"created", false, false, false, false},
		{"exited", false, false, false, false},
		{"removing", false, false, false, false},
		{"dead", false, false, false, false},
	} {
		var r container.InspectResponse
		if err := json.Unmarshal(fmt.Appendf(nil, text, tc.status, tc.running, tc.paused, tc.restarting), &r); err != nil {
			t.Fatal(err)
		}
		got := toContainer(r)
		want := Container{
			ID: "abc", Name: "web", Image: "app:1", ImageID: "sha256:feed", Labels: map[string]string{"k": "v"},
			Driver: "json-file", LogOptions: map[string]string{"max-size": "1m"},
			LogPath: "/var/lib/docker/containers/abc/abc-json.log", TTY: true, Status: tc.status, Running: tc.want,
			Created:   time.Date(2025, 11, 7, 12, 0, 0, 5e8, time.UTC),
			StartedAt: time.Date(2025, 11, 7, 12, 0, 1, 1, time.UTC),
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if strings.Contains(fmt.Sprintf("%+v", got), "secret") {
			t.Error("the environment got out")
		}
		if s := toSummary(container.Summary{State: container.ContainerState(tc.status)}); s.Running != tc.want {
			t.Errorf("a list says Running=%v for %s", s.Running, tc.status)
		}
	}
	if got := toContainer(container.InspectResponse{ID: "abc"}); !reflect.DeepEqual(got, Container{ID: "abc"}) {
		t.Errorf("an empty answer gave %+v", got)
	}
}

func TestToEvent(t *testing.T) {
	attrs := func(kv ...string) map[string]string {
		m := map[string]string{"image": "app:1", "name": "web", "tier": "front"}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	labels := map[string]string{"tier": "front"}
	at := time.Unix(5, 7)
	for _, tc := range []struct {
		name   string
		typ    events.Type
		action events.Action
		id     string
		attrs  map[string]string
		want   Event
		ok     bool
	}{
		{"start", "container", "start", "a", attrs(), Event{Action: "start", ID: "a", Name: "web", Image: "app:1", Labels: labels, Time: at, ExitCode: -1}, true},
		{"a label like an attribute of another action", "container", "start", "a", attrs("exitCode", "3"), Event{Action: "start", ID: "a", Name: "web", Image: "app:1", Labels: map[string]string{"tier": "front", "exitCode": "3"}, Time: at, ExitCode: -1}, true},
		{"die", "container", "die", "a", attrs("exitCode", "137", "execDuration", "9"), Event{Action: "die", ID: "a", Name: "web", Image: "app:1", Labels: labels, Time: at, ExitCode: 137}, true},
		{"die, hidden code", "container", "die", "a", attrs("exitCode", "label"), Event{Action: "die", ID: "a", Name: "web", Image: "app:1", Labels: labels, Time: at, ExitCode: -1}, true},
		{"rename", "container", "rename", "a", attrs("oldName", "/old"), Event{Action: "rename", ID: "a", Name: "web", Image: "app:1", Labels: labels, Time: at, ExitCode: -1}, true},
		{"no attributes", "container", "destroy", "a", nil, Event{Action: "destroy", ID: "a", Time: at, ExitCode: -1}, true},
		{"exec", "container", "exec_start: sh", "a", attrs(), Event{}, false},
		{"network", "network", "destroy", "a", attrs(), Event{}, false},
		{"no id", "container", "start", "", attrs(), Event{}, false},
	} {
		m := events.Message{Type: tc.typ, Action: tc.action, Actor: events.Actor{ID: tc.id, Attributes: tc.attrs}, Time: 5, TimeNano: at.UnixNano()}
		got, ok := toEvent(m)
		if ok != tc.ok || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, %v\nwant %+v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
	if e, _ := toEvent(events.Message{Type: "container", Action: "start", Actor: events.Actor{ID: "a"}, Time: 5}); !e.Time.Equal(time.Unix(5, 0)) {
		t.Errorf("without nanoseconds the time is %v", e.Time)
	}
	for _, a := range watchedActions() {
		if _, ok := toEvent(events.Message{Type: "container", Action: events.Action(a), Actor: events.Actor{ID: "a"}}); !ok {
			t.Errorf("%s is subscribed to, and then ignored", a)
		}
	}
}
