package server

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// overviewOf makes options that show this overview.
func overviewOf(o Overview) Options {
	opts := options()
	opts.Overview = func(context.Context) Overview {
		o := o
		o.Containers = slices.Clone(o.Containers)
		return o
	}
	return opts
}

// askFor sends one request, as a browser if html is wanted.
func askFor(o Options, method, path, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	handler(o).ServeHTTP(w, r)
	return w
}

// someOverview has one of everything.
func someOverview() Overview {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	until := at.Add(-time.Minute)
	unread := int64(512)
	c := func(id, name, driver, method, state string, rate float64) ContainerStatus {
		return ContainerStatus{Container{ID: id, Name: name, Image: "nginx:1", Driver: driver, Method: method, Reason: "because", State: state}, rate + 1, rate}
	}
	file := c("i2", "web", "json-file", MethodFileMonitor, StateRunning, 1000.4)
	file.UnreadBytes, file.BytesLost, file.Gaps, file.LagSeconds = &unread, 2048, 1, 2.5
	broken := c("i1", "db", "local", MethodStreaming, StateRunning, 30)
	broken.Errors, broken.LastError, broken.LastErrorAt = 2, "it broke", &at
	return Overview{
		Time: at, Started: at.Add(-90 * time.Minute), Build: Build{"v1", "abc", "go1"}, LagSeconds: 2.5,
		Health: Health{
			Status: StatusUnhealthy, Problems: []Problem{{"the store does not accept lines: 503", "wait"}, {"Docker cannot be reached: gone", "start it"}},
			Monitors: map[string]any{"file_monitor": map[string]any{"state": "ok"}}, Docker: map[string]any{"state": "ok"},
			Spool: map[string]any{"state": "filling", "bytes": 10, "max_bytes": 100, "disk_bytes": 75, "time_left_seconds": 60},
			Sinks: map[string]any{"loki": map[string]any{"state": "unhealthy", "failing_since": at.Add(-time.Minute)}},
		},
		Positions: map[string]any{"state": "ok"},
		Events: []Event{
			{Problem{"the store does not accept lines: 503", "wait"}, troubleshooting + "#a", until, nil, 3},
			{Problem{"gone", "look"}, troubleshooting, at.Add(-time.Hour), &until, 1},
		},
		Containers: []ContainerStatus{file, c("i4", "old", "json-file", MethodFileMonitor, StateExited, 0), broken, c("i3", "quiet", "none", MethodNone, StateRunning, 0)},
	}
}

func TestStatus(t *testing.T) {
	w := askFor(overviewOf(someOverview()), "GET", StatusPath, "")
	if w.Code != 200 || w.Header().Get("Content-Type") != jsonType || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("got %d, %v", w.Code, w.Header())
	}
	var got AgentStatus
	dec := json.NewDecoder(w.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Headline != "In trouble: the store does not accept lines, and 1 more problem: 3 containers, 1,030 lines/s, lag 2.5 s" {
		t.Errorf("headline %q", got.Headline)
	}
	if got.Status != StatusUnhealthy || got.UptimeSeconds != 5400 || got.Build != (BuildInfo{"v1", "abc", "go1"}) {
		t.Errorf("%+v", got)
	}
	want := Totals{Containers: 4, Captured: 3, Running: 3, ReadPerSecond: got.Totals.ReadPerSecond, DeliveredPerSecond: 1030.4, LagSeconds: 2.5, UnreadBytes: 512, BytesLost: 2048, Gaps: 1, Errors: 2}
	if got.Totals != want || math.Abs(got.Totals.ReadPerSecond-1034.4) > 1e-9 {
		t.Errorf("totals %+v, want %+v", got.Totals, want)
	}
	if want := []Routing{{"json-file", MethodFileMonitor, 2, 1000.4}, {"local", MethodStreaming, 1, 30}, {"none", MethodNone, 1, 0}}; !slices.Equal(got.Routing, want) {
		t.Errorf("routing %+v", got.Routing)
	}
	var names []string
	for _, c := range got.Containers {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"db", "old", "quiet", "web"}) {
		t.Errorf("containers %q", names)
	}
	if len(got.Problems) != 2 || got.Problems[0].Until != nil || got.Problems[0].Times != 3 || got.Problems[1].Until == nil {
		t.Errorf("problems %+v", got.Problems)
	}
}

// TestStatusOfNothing has no null for what a script walks through.
func TestStatusOfNothing(t *testing.T) {
	w := askFor(overviewOf(Overview{Health: Health{Status: StatusOK}}), "GET", StatusPath, "")
	if body := w.Body.String(); w.Code != 200 || strings.Contains(body, "null") || !strings.Contains(body, `"headline": "All is well: 0 containers, 0 lines/s, lag 0 s"`) {
		t.Errorf("got %d %s", w.Code, body)
	}
	w = askFor(overviewOf(Overview{Health: Health{Docker: math.NaN()}}), "GET", StatusPath, "")
	if w.Code != 500 || !strings.Contains(w.Body.String(), "the status cannot be shown: json: unsupported value: NaN: report this") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if w := askFor(options(), "GET", StatusPath, ""); w.Code != 404 {
		t.Errorf("without an overview: got %d", w.Code)
	}
}

func TestVerdict(t *testing.T) {
	problem := func(what string) Problem { return Problem{what, "do"} }
	for _, c := range []struct {
		h    Health
		want string
	}{
		{Health{Status: StatusOK}, "All is well"},
		{Health{}, "Something is wrong"}, // a mistake must not look well
		{Health{Status: StatusUnhealthy}, "Something is wrong"},
		{Health{Status: StatusDegraded, Problems: []Problem{problem("3 containers are not captured: why")}}, "Attention: 3 containers are not captured"},
		{Health{Status: StatusUnhealthy, Problems: []Problem{problem("no colon"), problem("b"), problem("c")}}, "In trouble: no colon, and 2 more problems"},
		{Health{Status: StatusUnhealthy, Problems: []Problem{problem("a\x1b\u202e" + strings.Repeat("x", 200))}}, `In trouble: a\x1b\u202e` + strings.Repeat("x", 117) + "…"},
	} {
		if got := verdict(c.h); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	o := options()
	o.Config = func() any { return map[string]any{"sinks": map[string]string{"password": "[hidden]"}} }
	if w := askFor(o, "GET", ConfigPath, ""); w.Code != 200 || w.Body.String() != "{\n  \"sinks\": {\n    \"password\": \"[hidden]\"\n  }\n}\n" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	o.Config = func() any { return math.NaN() }
	if w := askFor(o, "GET", ConfigPath, ""); w.Code != 500 {
		t.Errorf("got %d", w.Code)
	}
	if w := askFor(options(), "GET", ConfigPath, ""); w.Code != 404 {
		t.Errorf("without one: got %d", w.Code)
	}
}

// TestStatusLimit: the status is bounded as the containers are.
func TestStatusLimit(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	o := options()
	o.Overview = func(ctx context.Context) Overview {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the context has no deadline")
		}
		entered <- struct{}{}
		<-release
		return Overview{}
	}
	wantLimit(t, handler(o), StatusPath, maxListings, entered, release)
}

// TestReloadBody: what nobody has asked for is not read.
func TestReloadBody(t *testing.T) {
	url, _ := start(t, options())
	body := &endless{}
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/-/reload", body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client(t).Do(req)
	if err == nil { // else the connection was closed while the body was still being sent
		_ = res.Body.Close()
		if res.StatusCode != http.StatusAccepted {
			t.Errorf("got %d", res.StatusCode)
		}
	}
	if n := body.read(); n > 16<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

// endless is a body without an end; it gives up where nobody should have read to.
type endless struct {
	mu sync.Mutex
	n  int
}

func (e *endless) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n += len(p); e.n > 64<<20 {
		return 0, errors.New("too much was read")
	}
	return len(p), nil
}

func (e *endless) read() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// section gives a part of a document of the repository.
func section(t *testing.T, document, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", document))
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", document, heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// TestStatusDocument: API.md has each field of the answer, and no other.
func TestStatusDocument(t *testing.T) {
	part := section(t, "API.md", "GET /api/v1/status")
	said := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`"+`.*?) \|`).FindAllStringSubmatch(part, -1) {
		for _, m := range regexp.MustCompile("`([a-z_.\\[\\]]+)`").FindAllStringSubmatch(row[1], -1) {
			said[m[1]] = true
		}
	}
	there := map[string]bool{}
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			inner := f.Type
			path := prefix + name
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
				name += "[]"
			}
			switch {
			case f.Anonymous:
				walk(prefix, inner)
			case inner == reflect.TypeFor[ContainerStatus]() || inner.Kind() != reflect.Struct || inner == reflect.TypeFor[time.Time]():
				there[path] = true
			default:
				if path != "build" && path != "totals" && path != "routing" {
					there[path] = true
				}
				walk(prefix+name+".", inner)
			}
		}
	}
	walk("", reflect.TypeFor[AgentStatus]())
	if !maps.Equal(said, there) {
		t.Errorf("API.md has\n%v\nthe answer has\n%v", slices.Sorted(maps.Keys(said)), slices.Sorted(maps.Keys(there)))
	}
}
