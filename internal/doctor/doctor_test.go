package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/docker/enginetest"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// fakeEngine speaks as much of Docker's API as is asked, on a socket of its own.
type fakeEngine struct {
	host, root string
	version    string
	containers []string // by name, in JSON; the ID is the name
	hang       bool
}

func newFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	e := &fakeEngine{version: "1.41"}
	var dir string
	dir, e.host = enginetest.Serve(t, e)
	e.root = dir + "/docker"
	return e
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.hang {
		<-r.Context().Done()
		return
	}
	path := r.URL.Path
	if strings.HasPrefix(path, "/v") {
		_, path, _ = strings.Cut(path[1:], "/")
		path = "/" + path
	}
	w.Header().Set("Api-Version", e.version)
	w.Header().Set("Content-Type", "application/json")
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	name, of, _ := strings.Cut(strings.TrimPrefix(path, "/containers/"), "/")
	switch {
	case path == "/_ping":
	case path == "/info":
		answer(map[string]any{"Name": "host1", "DockerRootDir": e.root, "ServerVersion": "20.10.24"})
	case path == "/containers/json":
		var list []map[string]any
		for _, n := range e.containers {
			list = append(list, map[string]any{"Id": n, "Names": []string{"/" + n}})
		}
		answer(list)
	case of == "logs" && name == "unreadable":
		w.WriteHeader(http.StatusNotImplemented)
		answer(map[string]any{"message": "configured logging driver does not support reading"})
	case of == "logs":
	case name == "gone":
		w.WriteHeader(http.StatusNotFound)
		answer(map[string]any{"message": "No such container: gone"})
	case of == "json":
		answer(e.inspect(name))
	default:
		http.Error(w, `{"message":"what?"}`, http.StatusBadRequest)
	}
}

// inspect gives a container that runs; its log driver is json-file if its name
// says nothing else.
func (e *fakeEngine) inspect(name string) map[string]any {
	driver := map[string]string{"local": "local", "unreadable": "syslog", "readable": "gelf"}[name]
	path := ""
	if driver == "" {
		driver, path = "json-file", e.logPath(name)
	}
	return map[string]any{
		"Id": name, "Name": "/" + name, "LogPath": path,
		"Config":     map[string]any{"Image": "app:1"},
		"HostConfig": map[string]any{"LogConfig": map[string]any{"Type": driver, "Config": map[string]string{"max-size": "10m", "max-file": "3"}}},
		"State":      map[string]any{"Status": "running", "Running": true, "StartedAt": "2026-01-02T03:04:05Z"},
	}
}

func (e *fakeEngine) logPath(name string) string {
	return filepath.Join(e.root, "containers", name, name+"-json.log")
}

// writeLog makes a container's log.
func (e *fakeEngine) writeLog(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(e.logPath(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.logPath(name), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// optionsFor are options by default, with an engine and a store.
func optionsFor(t *testing.T, host, store string) Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := "data_dir: " + t.TempDir() + "\nserver: {port: 0}\nspool: {max_bytes: 16MiB, min_free_bytes: 0}\n" +
		"docker: {host: " + host + "}\nsinks: {loki: {url: " + store + "}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return Options{File: "config.yaml", Config: cfg, Store: loki.Config{URL: cfg.Sinks.Loki.PushURL(), Timeout: time.Minute},
		Forecast: monitors.Forecast{Routing: monitors.RoutingConfig{
			Files: true, LogDrivers: []string{monitors.DriverJSONFile}, Fallback: true, Streaming: true,
		}}}
}

func (r *Report) check(t *testing.T, name string) Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no check %s: %+v", name, r.Checks)
	return Check{}
}

// TestRun looks at a machine that is well, of which a container is not.
func TestRun(t *testing.T) {
	e := newFakeEngine(t)
	e.containers = []string{"web", "local", "unreadable", "readable", "gone"}
	e.writeLog(t, "web")
	l := lokitest.New(lokitest.Default())
	t.Cleanup(l.Close)
	r := Run(t.Context(), optionsFor(t, e.host, l.URL))

	var names []string
	for _, c := range r.Checks {
		names = append(names, c.Name)
		// Where the tests run data_dir may be on anything.
		if want := (c.Name == nameTLS || c.Name == namePush || c.Name == nameAgent); c.Name != nameDataDir && c.Name != nameSpace &&
			(c.Status == Skip) != want || c.Status == Fail {
			t.Errorf("%+v", c)
		}
	}
	const order = "configuration, docker, docker api, containers directory, log files, inotify, descriptors, data_dir, data_dir space, " +
		"store address, store connection, store tls, store, store clock, store test push, agent"
	if got := strings.Join(names, ", "); got != order {
		t.Errorf("checks are %s", got)
	}
	if r.Status != Warn || r.Failed() {
		t.Errorf("it is %v", r.Status)
	}
	var got []string
	for _, c := range r.Containers {
		got = append(got, c.Name+" "+c.Method+" "+c.Status.String())
	}
	if want := "local streaming ok, readable streaming ok, unreadable none warn, web file_monitor ok"; strings.Join(got, ", ") != want {
		t.Errorf("containers: %q", got)
	}
}

// TestRunFails: what is wrong is seen through all parts.
func TestRunFails(t *testing.T) {
	e := newFakeEngine(t)
	e.containers = []string{"web"}
	o := optionsFor(t, e.host, "http://127.0.0.1:1") // and there is no directory
	r := Run(t.Context(), o)
	if got := statuses(r.Checks); got[1:5] != "ooF-" || got[9:15] != "oF----" || !r.Failed() {
		t.Errorf("%s: %+v", got, r.Checks)
	}
	if c := r.Containers[0]; c.Method != "streaming" || c.Status != Warn || !strings.Contains(c.Message, "the log file cannot be read") {
		t.Errorf("%+v", c)
	}
	e.version = "1.39"
	r = Run(t.Context(), o)
	is(t, "an old engine", r.check(t, nameAPI), want{Fail, "API 1.39: 1.40 is needed", "19.03"})
	o.Config.Docker.Host = strings.TrimSuffix(e.host, "d.sock") + "none.sock"
	r = Run(t.Context(), o)
	is(t, "no socket", r.check(t, nameEngine), want{Fail, "none.sock does not exist", "is Docker running?"})
	o.Config.Docker.Host = "bogus://"
	r = Run(t.Context(), o)
	is(t, "no address", r.check(t, nameEngine), want{Fail, "neither unix:///path nor tcp", "docker.host"})
}

// TestRunHangs: neither engine nor store answers; it ends all the same. ctx stands
// for the limits, which are longer.
func TestRunHangs(t *testing.T) {
	e := newFakeEngine(t)
	e.hang = true
	l := lokitest.New(lokitest.Default())
	t.Cleanup(l.Close)
	l.Always(&lokitest.Fault{Hang: true})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("too late"))
	defer cancel()
	began := time.Now()
	r := Run(ctx, optionsFor(t, e.host, l.URL))
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	is(t, "engine", r.check(t, nameEngine), want{Fail, "too late", "start Docker"})
	is(t, "store", r.check(t, nameStore), want{Fail, "too late", "store's log"})
}

// TestBegin: what does not end is left behind.
func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		release := make(chan struct{})
		stuck := begin(t.Context(), time.Second, func(context.Context) int { <-release; return 1 })
		obeys := begin(t.Context(), time.Second, func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
		quick := begin(t.Context(), time.Second, func(context.Context) int { return 2 })
		if n, ok := quick(); n != 2 || !ok {
			t.Errorf("%d, %v", n, ok)
		}
		if err, ok := obeys(); !ok || err == nil || err.Error() != "no answer within 1s" {
			t.Errorf("%v, %v", err, ok)
		}
		if n, ok := stuck(); ok {
			t.Errorf("%d", n)
		}
		if took := time.Since(began); took != time.Second+patience {
			t.Errorf("it took %v", took)
		}
		close(release)
	})
	is(t, "stuck", stuck(nameDataDir, "/d"), want{Fail, "/d cannot be looked at", "mount"})
}

// report is one with some of everything.
func report() Report {
	return newReport(
		[]Check{{nameConfig, OK, "c.yaml is valid", ""}, {nameEngine, Fail, "gone\x1b[31m\n", "start it"}, {nameClock, Skip, "no clock", ""}},
		[]Container{
			{ID: "1", Name: "db", Image: "db:1", Driver: "local", Method: "streaming", Status: OK, Message: "no file"},
			{ID: "2", Name: "web\u202e", Driver: "json-file", Status: Warn, Message: "<hm>", Remedy: "do"},
		})
}

func TestText(t *testing.T) {
	r := report()
	const text = `ok    configuration         c.yaml is valid
FAIL  docker                gone?[31m? -> start it
skip  store clock           no clock
ok    container db          streaming: no file
warn  container web?        <hm> -> do
FAIL  summary               checks: 1 ok, 0 warn, 1 failed, 1 skipped; containers: 1 ok, 1 warn, 0 failed, 0 skipped, 1 captured
`
	if got := string(r.Text(false)); got != text {
		t.Errorf("%s", got)
	}
	coloured := string(r.Text(true))
	if !strings.Contains(coloured, "\x1b[31mFAIL\x1b[0m  docker") || strings.Count(coloured, "\x1b") != 12 {
		t.Errorf("%q", coloured)
	}
}

func TestJSON(t *testing.T) {
	r := report()
	b := r.JSON()
	for _, part := range []string{`"status": "fail"`, `"message": "<hm>"`, `web\u202e`, `"remedy": "start it"`} {
		if !bytes.Contains(b, []byte(part)) {
			t.Errorf("%s is not in\n%s", part, b)
		}
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || !bytes.Equal(back.JSON(), b) {
		t.Errorf("%v\n%s", err, b)
	}
	if err := json.Unmarshal([]byte(`{"status": "fine"}`), &back); err == nil {
		t.Error("an unknown status is taken")
	}
	empty := newReport(nil, nil)
	if empty.Status != OK || empty.Failed() {
		t.Errorf("%+v", empty)
	}
}

func TestNotValid(t *testing.T) {
	r := NotValid(errors.New("c:1: a\nc:2: b"))
	if len(r.Checks) != 2 || r.Checks[1].Message != "c:2: b" || !r.Failed() || !strings.Contains(string(r.JSON()), `"containers": []`) {
		t.Errorf("%s", r.JSON())
	}
}

// TestShown: how figures look.
func TestShown(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1 << 10: "1.0 KiB", 1<<20 + 1<<19: "1.5 MiB", 1 << 40: "1.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
	if a, b := took(1234567), took(1234*time.Millisecond); a != "1.2ms" || b != "1.23s" {
		t.Error(a, b)
	}
	if number(1, "a", "b") != "1 a" || number(2, "a", "b") != "2 b" {
		t.Error("numbers")
	}
}
