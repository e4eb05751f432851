package server

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// listing makes options that show these containers.
func listing(list ...Container) Options {
	o := options()
	o.Containers = func(context.Context) []Container { return list }
	return o
}

// ask sends one request for the containers.
func ask(o Options, method string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler(o).ServeHTTP(w, httptest.NewRequest(method, ContainersPath, nil))
	return w
}

func TestContainers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	offset, unread := int64(4096), int64(0)
	for _, c := range []struct {
		name string
		list []Container
		code int
		body string // compacted when it is JSON
	}{
		{"none", nil, 200, `{"containers":[]}`},
		{
			"little known", []Container{{ID: "i"}}, 200,
			`{"containers":[{"id":"i","name":"","image":"","driver":"","method":"","reason":"","state":"","position":{},"lag_seconds":0,` +
				`"lines_read":0,"lines_delivered":0,"lines_dead_lettered":0,"lines_malformed":0,"bytes_lost":0,"gaps":0,"errors":0}]}`,
		},
		{
			"all known", []Container{{
				ID: "i", Name: "web", Image: "nginx:1", Driver: "json-file", Method: MethodFileMonitor, Reason: "its file can be read", State: StateRunning,
				Position:   map[string]Position{"stdout": {Time: &at, Offset: &offset, Inode: 7}, "stderr": {Time: &at}},
				LagSeconds: 1.5, UnreadBytes: &unread,
				LinesRead: 5, LinesDelivered: 4, LinesDeadLettered: 3, LinesMalformed: 2, BytesLost: 7, Gaps: 8, GapAfter: &at, GapBefore: &at, Errors: 1, LastError: "EIO", LastErrorAt: &at,
			}}, 200,
			`{"containers":[{"id":"i","name":"web","image":"nginx:1","driver":"json-file","method":"file_monitor","reason":"its file can be read","state":"running",` +
				`"position":{"stderr":{"time":"2026-01-02T03:04:05.6Z"},"stdout":{"time":"2026-01-02T03:04:05.6Z","offset":4096,"inode":7}},` +
				`"lag_seconds":1.5,"unread_bytes":0,` +
				`"lines_read":5,"lines_delivered":4,"lines_dead_lettered":3,"lines_malformed":2,"bytes_lost":7,"gaps":8,"gap_after":"2026-01-02T03:04:05.6Z","gap_before":"2026-01-02T03:04:05.6Z","errors":1,"last_error":"EIO","last_error_at":"2026-01-02T03:04:05.6Z"}]}`,
		},
		{
			"a mistake in the agent", []Container{{LagSeconds: math.NaN()}}, 500,
			"the containers cannot be shown: json: unsupported value: NaN: report this as a mistake in log_capturer\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ask(listing(c.list...), "GET")
			body, wantType := w.Body.String(), textType
			if c.code == 200 {
				wantType = jsonType
				var b bytes.Buffer
				if err := json.Compact(&b, w.Body.Bytes()); err != nil {
					t.Fatal(err)
				}
				body = b.String()
			}
			if w.Code != c.code || body != c.body {
				t.Errorf("got %d\n%s\nwant %d\n%s", w.Code, body, c.code, c.body)
			}
			for name, want := range map[string]string{"Content-Type": wantType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestContainersSorted: by name; of two with one name, such as a container and
// its successor, by ID.
func TestContainersSorted(t *testing.T) {
	w := ask(listing(
		Container{Name: "b", ID: "1"}, Container{Name: "a", ID: "3"}, Container{Name: "", ID: "4"}, Container{Name: "a", ID: "2"},
	), "GET")
	var got Containers
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, c := range got.Containers {
		order = append(order, c.Name+c.ID)
	}
	if want := []string{"4", "a2", "a3", "b1"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

// TestContainersHostileText: what comes from outside comes back as it was, and
// does nothing to a terminal on its way.
func TestContainersHostileText(t *testing.T) {
	const evil = "\"},{\"id\":\"\x1b[2J\u009b31m\r\n\x00\x7f</script>\u2028\u202e\U000e0041é"
	c := Container{ID: evil, Name: evil, Image: evil, Driver: evil, Method: evil, Reason: evil, State: evil, LastError: evil,
		Position: map[string]Position{evil: {}}}
	body := ask(listing(c), "GET").Body.Bytes()
	if raw := bytes.IndexAny(body, "\x1b\u009b\r\x00\x7f\u2028\u202e\U000e0041"); raw >= 0 {
		t.Errorf("there is a raw %q in\n%s", body[raw:raw+4], body)
	}
	var got Containers
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	if len(got.Containers) != 1 || got.Containers[0].Name != evil || got.Containers[0].LastError != evil {
		t.Errorf("got %+v", got)
	}
	if _, ok := got.Containers[0].Position[evil]; !ok {
		t.Errorf("got the position %+v", got.Containers[0].Position)
	}
	if broken := ask(listing(Container{Name: "a\xffb"}), "GET").Body.Bytes(); !json.Valid(broken) || !bytes.Contains(broken, []byte(`"a\ufffdb"`)) {
		t.Errorf("no UTF-8: got %s", broken)
	}
}

func TestContainersRequests(t *testing.T) {
	calls := 0
	o := options()
	o.Containers = func(ctx context.Context) []Container {
		calls++
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the context has no deadline")
		}
		return nil
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if w := ask(o, method); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	w := httptest.NewRecorder()
	handler(o).ServeHTTP(w, httptest.NewRequest("GET", ContainersPath+"/x", nil))
	if w.Code != 404 || calls != 0 {
		t.Errorf("below: got %d; %d calls", w.Code, calls)
	}
	if w := ask(options(), "GET"); w.Code != 404 {
		t.Errorf("without containers: got %d", w.Code)
	}

	url, _ := start(t, o)
	c := client(t)
	_, body, header := get(t, c, "GET", url+ContainersPath)
	code, empty, head := get(t, c, "HEAD", url+ContainersPath)
	if code != 200 || empty != "" || head.Get("Content-Length") != header.Get("Content-Length") || len(body) == 0 {
		t.Errorf("HEAD: got %d, %q, %v; GET has %d bytes", code, empty, head, len(body))
	}
}

// TestContainersLimit: one request more than allowed is refused, and the next
// one after the others is answered.
func TestContainersLimit(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	o := options()
	o.Containers = func(context.Context) []Container {
		entered <- struct{}{}
		<-release
		return nil
	}
	h := handler(o)
	w := wantLimit(t, h, ContainersPath, maxListings, entered, release)
	if w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "try again") {
		t.Errorf("one too many: got %v, %q", w.Header(), w.Body)
	}
	w = httptest.NewRecorder()
	again := make(chan struct{})
	go func() {
		defer close(again)
		h.ServeHTTP(w, httptest.NewRequest("GET", ContainersPath, nil))
	}()
	<-entered
	if <-again; w.Code != 200 {
		t.Errorf("afterwards: got %d", w.Code)
	}
}

// TestDocument: API.md names every path that is served, and its example of the
// containers is one that this server could have given.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../API.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(index, -1) {
		if !bytes.Contains(text, []byte("`"+path+"`")) && !bytes.Contains(text, []byte(" "+path+"`")) {
			t.Errorf("API.md says nothing of %s", path)
		}
	}
	example := regexp.MustCompile("(?s)```json\n(\\{\n  \"containers\".*?)```").FindSubmatch(text)
	if example == nil {
		t.Fatal("API.md has no example of the containers")
	}
	dec := json.NewDecoder(bytes.NewReader(example[1]))
	dec.DisallowUnknownFields()
	var list Containers
	if err := dec.Decode(&list); err != nil {
		t.Fatal(err)
	}
	if got := ask(listing(list.Containers...), "GET").Body.String(); got != string(example[1]) {
		t.Errorf("API.md has\n%s\nthe server gives\n%s", example[1], got)
	}
}
