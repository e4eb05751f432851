package lokitest

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)

func serveFor(t *testing.T, change func(*Options)) *Server {
	t.Helper()
	opt := Default()
	opt.Now = func() time.Time { return now }
	if change != nil {
		change(&opt)
	}
	s := New(opt)
	t.Cleanup(func() { s.Close(); http.DefaultClient.CloseIdleConnections() })
	return s
}

func streamOf(labels string, entries ...push.Entry) push.Stream {
	return push.Stream{Labels: labels, Entries: entries}
}

func at(d time.Duration, text string) push.Entry {
	return push.Entry{Timestamp: now.Add(d), Line: text}
}

func send(t *testing.T, s *Server, streams ...push.Stream) (int, string) {
	t.Helper()
	plain, err := (&push.PushRequest{Streams: streams}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(s.URL, "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, plain)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestOnlyTheLastStreamIsReported: the trap that this package exists for.
func TestOnlyTheLastStreamIsReported(t *testing.T) {
	s := serveFor(t, nil)
	send(t, s, streamOf(`{a="1"}`, at(0, "x")))
	status, _ := send(t, s, streamOf(`{a="1"}`, at(-2*time.Hour, "gone")), streamOf(`{a="2"}`, at(0, "fine")))
	if status != 204 || !slices.Equal(s.Texts(), []string{"x", "fine"}) {
		t.Fatalf("%d, stored %q", status, s.Texts())
	}
	status, body := send(t, s, streamOf(`{a="2"}`, at(1, "fine too")), streamOf(`{a="1"}`, at(-2*time.Hour, "told"), at(1, "valid")))
	if status != 400 || !strings.Contains(body, "entry too far behind") || !strings.Contains(body, "total ignored: 1 out of 2") {
		t.Fatalf("%d %s", status, body)
	}
	if !slices.Equal(s.Texts("a", "1"), []string{"x", "valid"}) {
		t.Fatalf("the valid part of a 400 is stored; have %q", s.Texts())
	}
}

// TestDistributorTellsAll: its reasons come for every stream, unless the
// ingester has something to say.
func TestDistributorTellsAll(t *testing.T) {
	s := serveFor(t, func(o *Options) { o.Limits.MaxLine = 10 })
	status, body := send(t, s,
		streamOf(`{a="1"}`, at(-8*24*time.Hour, "old"), at(0, "a fine"), at(11*time.Minute, "new")),
		streamOf(`{a="2"}`, at(0, "longer than ten"), at(0, "also longer 10")),
		streamOf(`{a="3", a="3"}`, at(0, "twice")))
	for _, want := range []string{
		`1 errors like: entry for stream '{a="1", service_name="unknown_service"}' has timestamp too old: 2025-10-30T12:00:00Z, oldest acceptable timestamp is: 2025-10-31T12:00:00Z`,
		"has timestamp too new: 2025-11-07T12:11:00Z", "Max entry size '10' bytes exceeded", "duplicate label name",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if status != 400 || !slices.Equal(s.Texts(), []string{"a fine"}) {
		t.Fatalf("%d, stored %q", status, s.Texts())
	}
	_, body = send(t, s, streamOf(`{a="1"}`, at(-8*24*time.Hour, "old"), at(-2*time.Hour, "behind")))
	if strings.Contains(body, "too old") || !strings.Contains(body, "total ignored: 1 out of 1") {
		t.Fatalf("the ingester's answer hides the distributor's; have %s", body)
	}
}

func TestRepeatedLinesAreDropped(t *testing.T) {
	s := serveFor(t, func(o *Options) { o.Limits.HeadBlock = 30 })
	for range 2 {
		send(t, s, streamOf(`{a="1"}`, at(0, "one"), at(1, "two"), at(1, "two, other text")))
	}
	if got := s.Texts(); !slices.Equal(got, []string{"one", "two", "two, other text"}) {
		t.Fatalf("stored %q", got)
	}
	send(t, s, streamOf(`{a="1"}`, at(2, "something longer than the block")), streamOf(`{a="1"}`, at(0, "one")))
	if n := len(s.Texts()); n != 5 {
		t.Fatalf("stored %q: a repeated line outside of the head block stays", s.Texts())
	}
}

func TestRates(t *testing.T) {
	clock := now
	s := serveFor(t, func(o *Options) {
		o.Now = func() time.Time { return clock }
		o.Limits.StreamRate, o.Limits.StreamBurst = 10, 10
		o.Limits.TenantRate, o.Limits.TenantBurst = 15, 15
		o.Limits.MaxStreams = 2
	})
	if status, body := send(t, s, streamOf(`{a="1"}`, at(0, "12345678901"))); status != 429 || !strings.Contains(body, "Per stream rate limit") {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := send(t, s, streamOf(`{a="2"}`, at(0, "12345"))); status != 429 || !strings.Contains(body, "Ingestion rate limit") {
		t.Fatalf("%d %s", status, body)
	}
	clock = clock.Add(time.Second)
	if status, body := send(t, s, streamOf(`{a="2"}`, at(0, "12345"))); status != 204 {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := send(t, s, streamOf(`{a="3"}`, at(0, "1"))); status != 429 || !strings.Contains(body, "Maximum active stream limit") {
		t.Fatalf("%d %s", status, body)
	}
	if got := s.Texts(); !slices.Equal(got, []string{"12345"}) {
		t.Fatalf("stored %q", got)
	}
}

func TestWhatIsNoPush(t *testing.T) {
	s := serveFor(t, nil)
	post := func(kind, encoding, body string) int {
		req, err := http.NewRequest(http.MethodPost, s.URL, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		if encoding != "" {
			req.Header.Set("Content-Encoding", encoding)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := post("text/plain", "", ""); got != 415 {
		t.Errorf("text: %d", got)
	}
	if got := post("application/x-protobuf", "zstd", ""); got != 400 {
		t.Errorf("zstd: %d", got)
	}
	if got := post("application/x-protobuf", "", "no snappy"); got != 400 {
		t.Errorf("not compressed: %d", got)
	}
	if status, _ := send(t, s); status != 422 {
		t.Errorf("no streams: %d", status)
	}
}

func TestFaults(t *testing.T) {
	s := serveFor(t, nil)
	s.Next(Fault{Status: 503, Body: "later", Header: http.Header{"Retry-After": {"3"}}}, Fault{Delay: time.Millisecond})
	if status, body := send(t, s, streamOf(`{a="1"}`, at(0, "x"))); status != 503 || body != "later" {
		t.Fatalf("%d %s", status, body)
	}
	if status, _ := send(t, s, streamOf(`{a="1"}`, at(0, "x"))); status != 204 {
		t.Fatalf("%d", status)
	}
	s.Always(&Fault{Status: 500, Store: true})
	if status, _ := send(t, s, streamOf(`{a="1"}`, at(1, "y"))); status != 500 {
		t.Fatalf("%d", status)
	}
	q := s.Requests()
	if len(q) != 3 || q[0].Lines != 1 || q[0].Status != 503 || !slices.Equal(s.Texts(), []string{"x", "y"}) || !slices.Equal(s.Streams(), []string{`{a="1"}`}) {
		t.Fatalf("%+v, stored %q", q, s.Texts())
	}
}
