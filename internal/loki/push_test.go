package loki

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is a round time: Loki's texts are rounded to seconds, and the tests
// around limits choose where in the second they are.
var start = time.Date(2025, 11, 7, 12, 0, 0, 250_000_000, time.UTC)

// rig is a client, its store, a log and a clock that the test moves.
type rig struct {
	t   *testing.T
	srv *lokitest.Server
	c   *Client
	log *bytes.Buffer
	reg *prometheus.Registry
	mu  sync.Mutex
	at  time.Time
}

func (r *rig) now() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.at }

func (r *rig) pass(d time.Duration) { r.mu.Lock(); defer r.mu.Unlock(); r.at = r.at.Add(d) }

func newRig(t *testing.T, srv func(*lokitest.Options), cfg func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, at: start, log: new(bytes.Buffer), reg: prometheus.NewRegistry()}
	opt := lokitest.Default()
	opt.Now = r.now
	if srv != nil {
		srv(&opt)
	}
	r.srv = lokitest.New(opt)
	t.Cleanup(r.srv.Close)
	conf := Config{
		URL: r.srv.URL, StructuredMetadata: true, Timeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)), Registerer: r.reg,
	}
	if cfg != nil {
		cfg(&conf)
	}
	c, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	c.now = r.now
	c.window.most = 1 // what the store does to one request may depend on those before
	r.c = c
	t.Cleanup(c.Close)
	return r
}

// ignore is for those who wait for the end of the push.
func ignore(context.Context) {}

func (r *rig) push(b *entry.Batch) entry.Outcome {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := r.c.Push(ctx, b, ignore)
	r.consistent(b, out)
	return out
}

// consistent checks what holds after every push.
func (r *rig) consistent(b *entry.Batch, out entry.Outcome) {
	r.t.Helper()
	open := false
	for i := range b.Sections {
		for _, st := range b.Sections[i].State {
			open = open || st == entry.PartPending || st == entry.PartHeld
		}
	}
	if open != (out.Err != nil) {
		r.t.Fatalf("parts open: %v, error: %v", open, out.Err)
	}
	seen := map[int]bool{}
	for _, f := range b.Refusals {
		s := &b.Sections[f.Section]
		if seen[f.Line] || f.Line < s.First || f.Line >= s.First+s.Count || f.Reason == "" || b.Lines[f.Line].Flags&entry.FlagRefused == 0 {
			r.t.Fatalf("bad refusal %+v", f)
		}
		seen[f.Line] = true
	}
	for i := range b.Lines {
		if b.Lines[i].Flags&entry.FlagRefused != 0 && !seen[i] {
			r.t.Fatalf("line %d is refused and not listed", i)
		}
	}
}

func (r *rig) accepted(b *entry.Batch, out entry.Outcome) {
	r.t.Helper()
	if out.Err != nil || out.Config || out.RetryAfter != 0 {
		r.t.Fatalf("outcome %+v", out)
	}
	r.states(b, entry.PartAccepted)
}

// states checks the stdout parts.
func (r *rig) states(b *entry.Batch, want ...entry.PartState) {
	r.t.Helper()
	for i := range b.Sections {
		w := want[min(i, len(want)-1)]
		if got := b.Sections[i].State[entry.ClassStdout]; got != w {
			r.t.Fatalf("section %d: state %d, want %d", i, got, w)
		}
	}
}

func (r *rig) stored(want []string, labels ...string) {
	r.t.Helper()
	if got := r.srv.Texts(labels...); !slices.Equal(got, want) {
		r.t.Fatalf("stored %.300q, want %.300q", got, want)
	}
}

func refusedTexts(b *entry.Batch) (out []string) {
	for _, f := range b.Refusals {
		out = append(out, string(b.Message(&b.Lines[f.Line])))
	}
	return out
}

// wantRequests checks what was counted, of requests that all had one end: how many, also
// in the histogram of their times, and the bytes that were answered.
func (r *rig) wantRequests(code string, requests, wire int) {
	r.t.Helper()
	var seconds dto.Metric
	if err := r.c.metrics.seconds.Write(&seconds); err != nil {
		r.t.Fatal(err)
	}
	counted, timed := testutil.ToFloat64(r.c.metrics.requests.WithLabelValues(code)), seconds.GetHistogram().GetSampleCount()
	if counted != float64(requests) || timed != uint64(requests) {
		r.t.Errorf("%v requests counted as %s, and %d by their times, of %d", counted, code, timed, requests)
	}
	if n := testutil.ToFloat64(r.c.metrics.sent); n != float64(wire) {
		r.t.Errorf("%v bytes counted of %d", n, wire)
	}
}

func (r *rig) metric(reason string) float64 {
	return testutil.ToFloat64(r.c.metrics.errors.WithLabelValues(reason))
}

// batchOf makes a batch with one section of stdout lines.
func batchOf(src *entry.Source, lines ...testLine) *entry.Batch {
	b := new(entry.Batch)
	appendSection(b, src, lines...)
	return b
}

func line(at time.Time, text string) testLine { return testLine{at: at.UnixNano(), text: text} }

func numbered(at time.Time, n int, prefix string) (lines []testLine, texts []string) {
	for i := range n {
		text := fmt.Sprintf("%s%d", prefix, i)
		lines = append(lines, line(at.Add(time.Duration(i)), text))
		texts = append(texts, text)
	}
	return lines, texts
}

// proven pushes a line of each source alone, so that the streams may share
// pushes from then on.
func (r *rig) proven(at time.Time, sources ...*entry.Source) {
	r.t.Helper()
	for _, s := range sources {
		b := batchOf(s, line(at, "hello of "+s.Name))
		r.accepted(b, r.push(b))
	}
}

func (r *rig) requests() int { return len(r.srv.Requests()) }

func TestAccepted(t *testing.T) {
	r := newRig(t, nil, func(c *Config) { c.TenantID = "acme"; c.Headers = map[string]string{"X-Extra": "1"} })
	src := labelled("web", entry.Label{Name: "image", Value: "nginx:1"})
	b := batchOf(src,
		testLine{at: start.UnixNano(), text: "out", class: entry.ClassStdout},
		testLine{at: start.UnixNano() + 1, text: "err", class: entry.ClassStderr},
		testLine{at: start.UnixNano() + 2, text: "half", class: entry.ClassStdout, flags: entry.FlagPartial},
		testLine{at: start.UnixNano() + 3, text: "odd", class: entry.ClassMalformed})
	appendSection(b, src, line(start.Add(4), "out2"))
	r.accepted(b, r.push(b))
	if got := b.Sections[0].State; got != [3]entry.PartState{entry.PartAccepted, entry.PartAccepted, entry.PartAccepted} {
		t.Fatalf("states %v", got)
	}
	if b.Sections[1].State[entry.ClassStderr] != entry.PartEmpty {
		t.Fatal("an empty part was changed")
	}
	r.stored([]string{"out", "half", "out2"}, "container_name", "web", "stream", "stdout")
	r.stored([]string{"err"}, "stream", "stderr")
	r.stored([]string{"odd"}, "malformed", "true")
	lines := r.srv.Lines("stream", "stdout")
	if m := lines[0].Metadata; len(m) != 1 || m["image"] != "nginx:1" {
		t.Fatalf("metadata %v", m)
	}
	if m := lines[1].Metadata; len(m) != 2 || m["partial"] != "true" {
		t.Fatalf("metadata of a piece %v", m)
	}
	if !lines[2].Time.Equal(start.Add(4)) {
		t.Fatalf("time %v", lines[2].Time)
	}
	req := r.srv.Requests()[0]
	if req.Header.Get("X-Scope-OrgID") != "acme" || req.Header.Get("X-Extra") != "1" || req.Header.Get("Content-Type") != "application/x-protobuf" ||
		req.Header.Get("User-Agent") != defaultUserAgent || req.Header.Get("Content-Encoding") != "" {
		t.Fatalf("headers %v", req.Header)
	}
	wire := 0
	for _, q := range r.srv.Requests() {
		wire += q.Wire
	}
	r.wantRequests("204", r.requests(), wire)
	h := r.c.Health()
	if !h.LastSuccess.Equal(start) || h.LastError != "" || !h.FailingSince.IsZero() || h.Config {
		t.Fatalf("health %+v", h)
	}
	// Nothing pending: nothing is sent.
	n := r.requests()
	r.accepted(b, r.push(b))
	if r.requests() != n {
		t.Fatal("a batch without pending parts was sent")
	}
}

func Test200WithoutBodyIsAccepted(t *testing.T) {
	r := newRig(t, nil, nil)
	r.srv.Next(lokitest.Fault{Status: 200})
	b := batchOf(labelled("a"), line(start, "x"))
	r.accepted(b, r.push(b))
}

// TestProgress: what a request has brought is told of while the next one hangs,
// once, and is left alone afterwards. A batch of one request has nothing to tell.
func TestProgress(t *testing.T) {
	r := newRig(t, nil, nil)
	a, b := labelled("a"), labelled("b")
	batch := batchOf(a, line(start.Add(-8*24*time.Hour), "ancient"), line(start, "a0"))
	appendSection(batch, b, line(start, "b0"))
	appendSection(batch, a, line(start.Add(1), "a1"))
	reached := make(chan struct{})
	r.srv.Next(lokitest.Fault{}, lokitest.Fault{Hang: true, Reached: reached})

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := make(chan []entry.PartState, 9)
	done := make(chan entry.Outcome, 1)
	go func() {
		done <- r.c.Push(ctx, batch, func(got context.Context) {
			if got != ctx {
				t.Error("another context")
			}
			var states []entry.PartState
			for i := range batch.Sections {
				st := &batch.Sections[i].State[entry.ClassStdout]
				states = append(states, *st)
				if *st == entry.PartAccepted { // as dispatch does
					*st = entry.PartEmpty
				}
			}
			if texts := refusedTexts(batch); !slices.Equal(texts, []string{"ancient"}) {
				t.Errorf("refused %q", texts)
			}
			batch.Refusals = batch.Refusals[:0]
			told <- states
		})
	}()
	<-reached // the second request is under way
	if len(told) != 1 {
		t.Fatalf("told %d times", len(told))
	}
	if got := <-told; !slices.Equal(got, []entry.PartState{entry.PartAccepted, entry.PartPending, entry.PartAccepted}) {
		t.Fatalf("states %v", got)
	}
	cancel()
	if out := <-done; out.Err == nil {
		t.Fatalf("outcome %+v", out)
	}
	r.states(batch, entry.PartEmpty, entry.PartPending, entry.PartEmpty)
	if len(told) != 0 || len(batch.Refusals) != 0 {
		t.Fatalf("told %d times more, %d refusals", len(told), len(batch.Refusals))
	}
	r.stored([]string{"a0", "a1"})

	if out := r.c.Push(context.Background(), batch, func(context.Context) { t.Error("told of the last request") }); out.Err != nil {
		t.Fatalf("outcome %+v", out)
	}
	r.states(batch, entry.PartEmpty, entry.PartAccepted, entry.PartEmpty)
	r.stored([]string{"a0", "a1", "b0"})
}

// TestConfigurationErrors: the row "260, 401, 403, 404, 3xx".
func TestConfigurationErrors(t *testing.T) {
	for _, status := range []int{260, 401, 403, 404, 301, 302, 307, 308, 405, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := newRig(t, nil, nil)
			f := lokitest.Fault{Status: status, Body: "because"}
			if status/100 == 3 {
				f.Header = http.Header{"Location": {"/elsewhere?token=hidden"}}
			}
			r.srv.Always(&f)
			b := batchOf(labelled("a"), line(start, "x"), line(start.Add(1), "y"))
			appendSection(b, labelled("b"), line(start, "z"))
			out := r.push(b)
			if out.Err == nil || !out.Config || !strings.Contains(out.Err.Error(), fmt.Sprint(status)) || strings.Contains(out.Err.Error(), "hidden") {
				t.Fatalf("outcome %+v", out)
			}
			r.states(b, entry.PartPending)
			if r.requests() != 1 || len(b.Refusals) != 0 {
				t.Fatalf("%d requests (a redirect followed?), %d refusals", r.requests(), len(b.Refusals))
			}
			h := r.c.Health()
			if !h.Config || !h.FailingSince.Equal(start) || h.LastError == "" {
				t.Fatalf("health %+v", h)
			}
			r.srv.Always(nil)
			r.pass(time.Second)
			r.accepted(b, r.push(b))
			r.stored([]string{"x", "y", "z"})
			if h := r.c.Health(); h.Config || !h.FailingSince.IsZero() || !h.LastSuccess.Equal(start.Add(time.Second)) {
				t.Fatalf("health after recovery %+v", h)
			}
		})
	}
}

// TestOutages: the row "other 5xx, 408, network, time-out".
func TestOutages(t *testing.T) {
	for name, tt := range map[string]struct {
		f      lokitest.Fault
		reason string
		after  time.Duration
	}{
		"500":                {f: lokitest.Fault{Status: 500, Body: "ring is empty"}, reason: reasonRetry},
		"502":                {f: lokitest.Fault{Status: 502}, reason: reasonRetry},
		"503 wait":           {f: lokitest.Fault{Status: 503, Header: http.Header{"Retry-After": {"7"}}}, reason: reasonRetry, after: 7 * time.Second},
		"503 wait long":      {f: lokitest.Fault{Status: 503, Header: http.Header{"Retry-After": {"3600"}}}, reason: reasonRetry, after: time.Minute},
		"504":                {f: lokitest.Fault{Status: 504}, reason: reasonRetry},
		"408":                {f: lokitest.Fault{Status: 408}, reason: reasonTimeout},
		"hang":               {f: lokitest.Fault{Hang: true}, reason: reasonTimeout},
		"reset":              {f: lokitest.Fault{Reset: true}, reason: reasonNetwork},
		"400 cut in half":    {f: lokitest.Fault{Status: 400, CutBody: true, Body: strings.Repeat("has timestamp too old: ", 9)}, reason: reasonNetwork},
		"stored, then reset": {f: lokitest.Fault{Reset: true, Store: true}, reason: reasonNetwork},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(c *Config) {
				if tt.f.Hang {
					c.Timeout = 50 * time.Millisecond
				}
			})
			r.srv.Next(tt.f)
			b := batchOf(labelled("a"), line(start, "x"), line(start.Add(1), "y"))
			appendSection(b, labelled("b"), line(start, "z"))
			out := r.push(b)
			if out.Err == nil || out.Config || out.RetryAfter != tt.after {
				t.Fatalf("outcome %+v", out)
			}
			r.states(b, entry.PartPending)
			if len(b.Refusals) != 0 || r.metric(tt.reason) != 1 {
				t.Fatalf("%d refusals, counted %v", len(b.Refusals), r.metric(tt.reason))
			}
			if h := r.c.Health(); h.Config || h.FailingSince.IsZero() {
				t.Fatalf("health %+v", h)
			}
			r.accepted(b, r.push(b))
			r.stored([]string{"x", "y", "z"})
		})
	}
}

func TestNobodyListens(t *testing.T) {
	r := newRig(t, nil, nil)
	r.srv.Close()
	b := batchOf(labelled("a"), line(start, "x"))
	out := r.push(b)
	if out.Err == nil || out.Config {
		t.Fatalf("outcome %+v", out)
	}
	r.states(b, entry.PartPending)
}

// TestOurEndIsNoFault: a push that we end ourselves does not count against the
// store.
func TestOurEndIsNoFault(t *testing.T) {
	r := newRig(t, nil, nil)
	reached := make(chan struct{})
	r.srv.Always(&lokitest.Fault{Hang: true, Reached: reached})
	ctx, cancel := context.WithCancel(context.Background())
	b := batchOf(labelled("a"), line(start, "x"))
	done := make(chan entry.Outcome)
	go func() { done <- r.c.Push(ctx, b, ignore) }()
	<-reached
	cancel()
	out := <-done
	r.consistent(b, out)
	if out.Err == nil || out.Config || !r.c.Health().FailingSince.IsZero() {
		t.Fatalf("outcome %+v, health %+v", out, r.c.Health())
	}
	if late, broken := r.metric(reasonTimeout), r.metric(reasonNetwork); late != 1 || broken != 0 {
		t.Errorf("counted %v times as not in time, %v times as of the network", late, broken)
	}
	r.wantRequests("error", 1, 0)
}

// TestTooOld, first of the row "400 too old, too new, line too long".
func TestTooOld(t *testing.T) {
	r := newRig(t, nil, nil)
	limit := start.Add(-7 * 24 * time.Hour) // a quarter into its second
	b := batchOf(labelled("a"),
		line(limit.Add(-time.Hour), "older"),
		line(limit.Add(-1), "just older"), // in the second that the text names
		line(limit, "at the limit"),
		line(limit.Add(500*time.Millisecond), "same second"),
		line(limit.Add(time.Minute), "newer"))
	appendSection(b, labelled("b"), line(limit.Add(-1), "b older"), line(limit, "b kept"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, []string{"older", "just older", "b older"}) {
		t.Fatalf("refused %q", got)
	}
	if !strings.Contains(b.Refusals[0].Reason, "oldest acceptable timestamp") {
		t.Fatalf("reason %q", b.Refusals[0].Reason)
	}
	r.stored([]string{"at the limit", "same second", "newer"}, "container_name", "a")
	r.stored([]string{"b kept"}, "container_name", "b")
	if r.requests() != 2 {
		t.Fatalf("%d requests, want one for each stream", r.requests())
	}
}

func TestTooNew(t *testing.T) {
	r := newRig(t, nil, nil)
	limit := start.Add(10 * time.Minute)
	b := batchOf(labelled("a"),
		line(limit.Add(-100*time.Millisecond), "same second"),
		line(limit, "at the limit"),
		line(limit.Add(1), "just newer"),
		line(limit.Add(time.Hour), "newer"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, []string{"just newer", "newer"}) {
		t.Fatalf("refused %q", got)
	}
	r.stored([]string{"same second", "at the limit"})
	// The lines refused count for nothing in what was sent last.
	if s := r.c.table.m[b.Sections[0].Source.Labels[0].String()]; s.sent != limit.UnixNano() {
		t.Fatalf("newest line sent %v", time.Unix(0, s.sent).UTC())
	}
}

func TestLineTooLong(t *testing.T) {
	r := newRig(t, nil, nil)
	long, fits := strings.Repeat("x", 256<<10+1), strings.Repeat("y", 256<<10)
	b := batchOf(labelled("a"), line(start, "x"), line(start.Add(1), long), line(start.Add(2), fits), line(start.Add(3), long+"z"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); len(got) != 2 || got[0] != long || got[1] != long+"z" {
		t.Fatalf("%d refused", len(got))
	}
	r.stored([]string{"x", fits})
	if r.requests() != 1 {
		t.Fatalf("%d requests", r.requests())
	}
}

// TestAllLimitsAtOnce: several reasons in one text, several streams in one push.
func TestAllLimitsAtOnce(t *testing.T) {
	r := newRig(t, nil, nil)
	a, z := labelled("a"), labelled("z")
	r.proven(start, a, z)
	n := r.requests()
	long := strings.Repeat("x", 50<<10)
	lim := lokitest.DefaultLimits()
	lim.MaxLine, lim.MaxAge = 40<<10, 20*time.Minute
	r.srv.SetLimits(lim)
	b := batchOf(a, line(start.Add(-25*time.Minute), "old"), line(start.Add(1), "fine a"), line(start.Add(2), long))
	appendSection(b, z, line(start.Add(-21*time.Minute), "old too"), line(start.Add(3), "fine z"), line(start.Add(time.Hour), "new"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, []string{"old", long, "old too", "new"}) {
		t.Fatalf("refused %.200q", got)
	}
	r.stored([]string{"hello of a", "fine a"}, "container_name", "a")
	r.stored([]string{"hello of z", "fine z"}, "container_name", "z")
	if r.requests() != n+1 {
		t.Fatalf("%d requests more", r.requests()-n)
	}
}

// TestTooFarBehind: the row "400 too far behind", with lines before, in and
// after the second that the text rounds to.
func TestTooFarBehind(t *testing.T) {
	r := newRig(t, nil, nil)
	src := labelled("a")
	r.proven(start, src)
	limit := start.Add(-time.Hour)
	b := batchOf(src,
		line(limit.Add(-time.Hour), "1"), line(limit.Add(-1), "2"), line(limit, "3"), line(limit.Add(time.Millisecond), "4"), line(start.Add(1), "5"))
	appendSection(b, labelled("b"), line(limit.Add(-time.Hour), "of another stream"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, []string{"1", "2"}) {
		t.Fatalf("refused %q", got)
	}
	r.stored([]string{"hello of a", "3", "4", "5"}, "container_name", "a")
	r.stored([]string{"of another stream"}, "container_name", "b")
	if r.requests() != 3 {
		t.Fatalf("%d requests", r.requests())
	}
}

// TestTooFarBehindMoves: the limit moves within one push when times fall; what
// was stored may be a dead letter, too, but nothing is lost.
func TestTooFarBehindMoves(t *testing.T) {
	r := newRig(t, nil, nil)
	b := batchOf(labelled("a"), line(start.Add(-3*time.Hour), "early"), line(start, "late"), line(start.Add(-2*time.Hour), "fallen"))
	r.accepted(b, r.push(b))
	refused := refusedTexts(b)
	if !slices.Contains(refused, "fallen") {
		t.Fatalf("refused %q", refused)
	}
	for _, text := range []string{"early", "late", "fallen"} {
		if !slices.Contains(refused, text) && !slices.Contains(r.srv.Texts(), text) {
			t.Fatalf("%q is lost", text)
		}
	}
}

// TestManyTooFarBehind: more lines than the text lists.
func TestManyTooFarBehind(t *testing.T) {
	r := newRig(t, nil, nil)
	src := labelled("a")
	r.proven(start, src)
	old, texts := numbered(start.Add(-2*time.Hour), 50, "old")
	fresh, kept := numbered(start.Add(time.Second), 50, "new")
	b := batchOf(src, append(old, fresh...)...)
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, texts) {
		t.Fatalf("refused %q", got)
	}
	r.stored(append([]string{"hello of a"}, kept...))
}

// TestBehindHidesTooOld: when the ingester refuses, Loki does not tell what the
// distributor has dropped. The numbers give it away, and nothing is lost.
func TestBehindHidesTooOld(t *testing.T) {
	r := newRig(t, nil, nil)
	src := labelled("a")
	newest := start.Add(-7*24*time.Hour + 90*time.Minute) // the limits are half an hour apart
	r.proven(newest, src)
	b := batchOf(src, line(newest.Add(-2*time.Hour), "too old"), line(newest.Add(-80*time.Minute), "too far behind"), line(newest.Add(1), "fine"))
	r.accepted(b, r.push(b))
	got := refusedTexts(b)
	slices.Sort(got)
	if !slices.Equal(got, []string{"too far behind", "too old"}) {
		t.Fatalf("refused %q", got)
	}
	r.stored([]string{"hello of a", "fine"})
}

// TestBehindAndTooLong: as before, with a line that no time limit explains.
func TestBehindAndTooLong(t *testing.T) {
	r := newRig(t, nil, nil)
	src := labelled("a")
	r.proven(start, src)
	long := strings.Repeat("x", 300<<10)
	b := batchOf(src, line(start.Add(-2*time.Hour), "behind"), line(start.Add(1), long), line(start.Add(2), "fine"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, []string{"behind", long}) {
		t.Fatalf("refused %.100q", got)
	}
	r.stored([]string{"hello of a", "fine"})
}

// TestLastStreamOnly: why streams travel alone. The stand-in answers 204 to
// [refused, fine], and the plan does not let it come to that.
func TestLastStreamOnly(t *testing.T) {
	r := newRig(t, nil, nil)
	a, z := labelled("a"), labelled("z")
	r.proven(start, a, z)
	b := batchOf(a, line(start.Add(-2*time.Hour), "would be lost"))
	appendSection(b, z, line(start.Add(1), "fine"))
	r.accepted(b, r.push(b))
	if got := refusedTexts(b); !slices.Equal(got, []string{"would be lost"}) {
		t.Fatalf("refused %q", got)
	}
	r.stored([]string{"hello of z", "fine"}, "container_name", "z")
}

func TestStreamsShareOnceProven(t *testing.T) {
	r := newRig(t, nil, nil)
	var sources []*entry.Source
	for i := range 20 {
		sources = append(sources, labelled(fmt.Sprintf("c%02d", i)))
	}
	batch := func(at time.Time) *entry.Batch {
		b := new(entry.Batch)
		for _, s := range sources {
			appendSection(b, s, line(at, "at "+at.Format(time.TimeOnly)))
		}
		return b
	}
	b := batch(start)
	r.accepted(b, r.push(b))
	if r.requests() != 20 {
		t.Fatalf("%d requests for 20 new streams", r.requests())
	}
	r.pass(19 * time.Minute)
	b = batch(start.Add(19 * time.Minute))
	r.accepted(b, r.push(b))
	if r.requests() != 21 {
		t.Fatalf("%d requests for 20 proven streams", r.requests()-20)
	}
	if got := len(r.srv.Requests()[20].Streams); got != 20 {
		t.Fatalf("%d streams shared the push", got)
	}
	// To be accepted in a shared push proves nothing.
	r.pass(12 * time.Minute)
	b = batch(start.Add(31 * time.Minute))
	r.accepted(b, r.push(b))
	if got := r.requests() - 21; got != 20 {
		t.Fatalf("%d requests after half an hour", got)
	}
	if got := len(r.srv.Texts()); got != 60 {
		t.Fatalf("%d lines stored", got)
	}
}

// TestLabelErrors: the row "400 labels".
func TestLabelErrors(t *testing.T) {
	wide := func(name string) *entry.Source {
		s := labelled(name)
		var ls []entry.Label
		for i := range 16 {
			ls = append(ls, entry.Label{Name: fmt.Sprintf("l%d", i), Value: name})
		}
		s.Labels[entry.ClassStdout] = entry.NewLabels(ls...)
		return s
	}
	named := func(name string) *entry.Source {
		s := labelled(name)
		s.Labels[entry.ClassStdout] = entry.NewLabels(entry.Label{Name: strings.Repeat("n", 1025), Value: "v"})
		return s
	}
	illegal := func(name string) *entry.Source {
		s := labelled(name)
		s.Labels[entry.ClassStdout] = entry.NewLabels(entry.Label{Name: "a-b", Value: "v"})
		return s
	}
	none := func(name string) *entry.Source {
		s := labelled(name)
		s.Labels[entry.ClassStdout] = entry.NewLabels()
		return s
	}
	for name, bad := range map[string]func(string) *entry.Source{"many": wide, "long name": named, "illegal": illegal, "none": none} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, nil)
			b := batchOf(bad("bad"), line(start, "held"))
			appendSection(b, labelled("good"), line(start, "fine"))
			out := r.push(b)
			if out.Err == nil || !out.Config {
				t.Fatalf("outcome %+v", out)
			}
			r.states(b, entry.PartHeld, entry.PartAccepted)
			r.stored([]string{"fine"})
			if h := r.c.Health(); h.Held == "" || !h.FailingSince.IsZero() {
				t.Fatalf("health %+v", h)
			}
			if len(b.Refusals) != 0 {
				t.Fatal("lines of a stream with bad labels are no dead letters")
			}
		})
	}
	t.Run("shared push", func(t *testing.T) {
		// The store's limits are lowered while the streams share pushes.
		r := newRig(t, nil, nil)
		bad, good := labelled("bad"), labelled("good")
		bad.Labels[entry.ClassStdout] = entry.NewLabels(append(bad.Labels[0].Pairs(), entry.Label{Name: "extra", Value: "1"})...)
		r.proven(start, bad, good)
		lim := lokitest.DefaultLimits()
		lim.MaxLabels = 2
		r.srv.SetLimits(lim)
		n := r.requests()
		b := batchOf(bad, line(start.Add(1), "held"))
		appendSection(b, good, line(start.Add(1), "fine"))
		out := r.push(b)
		if out.Err == nil || !out.Config || r.requests() != n+1 {
			t.Fatalf("outcome %+v, %d requests", out, r.requests()-n)
		}
		r.states(b, entry.PartHeld, entry.PartAccepted)
		r.stored([]string{"hello of good", "fine"}, "container_name", "good")
	})
	t.Run("value cut", func(t *testing.T) {
		r := newRig(t, nil, nil)
		s := labelled("long")
		s.Labels[entry.ClassStdout] = entry.NewLabels(entry.Label{Name: "v", Value: strings.Repeat("é", 3000)})
		b := batchOf(s, line(start, "fine"))
		r.accepted(b, r.push(b))
	})
}

// TestStructuredMetadataNotAllowed: the row of that name.
func TestStructuredMetadataNotAllowed(t *testing.T) {
	r := newRig(t, func(o *lokitest.Options) { o.Limits.NoMetadata = true }, nil)
	with, without := labelled("with", entry.Label{Name: "image", Value: "x"}), labelled("without")
	b := batchOf(with, line(start, "a"), line(start.Add(1), "b"))
	appendSection(b, without, line(start, "c"), testLine{at: start.UnixNano() + 1, text: "d", flags: entry.FlagPartial}, line(start.Add(2), "e"))
	r.accepted(b, r.push(b))
	r.stored([]string{"a", "b"}, "container_name", "with")
	r.stored([]string{"c", "d", "e"}, "container_name", "without")
	if n := r.requests(); n != 3 {
		t.Fatalf("%d requests: refused, again, the other stream", n)
	}
	b = batchOf(with, line(start.Add(9), "f"))
	r.accepted(b, r.push(b))
	if n := r.requests(); n != 4 {
		t.Fatalf("%d requests: metadata was sent again", n)
	}
	if n := strings.Count(r.log.String(), "structured metadata"); n < 1 || strings.Count(r.log.String(), "level=WARN") != 1 {
		t.Fatalf("said: %s", r.log)
	}
}

// TestStructuredMetadataNotAllowedPartly: only lines with metadata are sent
// again: those without are stored.
func TestStructuredMetadataNotAllowedPartly(t *testing.T) {
	r := newRig(t, func(o *lokitest.Options) { o.Limits.NoMetadata = true }, nil)
	b := batchOf(labelled("a"), line(start, "plain"), testLine{at: start.UnixNano() + 1, text: "piece", flags: entry.FlagPartial}, line(start.Add(-8*24*time.Hour), "old"))
	r.accepted(b, r.push(b))
	r.stored([]string{"plain", "piece"})
	if got := refusedTexts(b); !slices.Equal(got, []string{"old"}) {
		t.Fatalf("refused %q", got)
	}
	if q := r.srv.Requests(); len(q) != 2 || q[1].Lines != 1 {
		t.Fatalf("requests %+v", q)
	}
}

func TestStructuredMetadataTooLarge(t *testing.T) {
	r := newRig(t, nil, nil)
	big, small := labelled("big", entry.Label{Name: "m", Value: strings.Repeat("x", 70<<10)}), labelled("small", entry.Label{Name: "m", Value: "1"})
	for i := range 2 {
		b := batchOf(big, line(start.Add(time.Duration(i)), fmt.Sprint("big", i)))
		appendSection(b, small, line(start.Add(time.Duration(i)), fmt.Sprint("small", i)))
		r.accepted(b, r.push(b))
	}
	r.stored([]string{"big0", "big1"}, "container_name", "big")
	for _, l := range r.srv.Lines("container_name", "small") {
		if l.Metadata["m"] != "1" {
			t.Fatal("metadata of another stream is missing")
		}
	}
	if strings.Count(r.log.String(), "level=WARN") != 1 {
		t.Fatalf("said: %s", r.log)
	}
}

func TestMetadataOffByConfig(t *testing.T) {
	r := newRig(t, nil, func(c *Config) { c.StructuredMetadata = false })
	b := batchOf(labelled("a", entry.Label{Name: "image", Value: "x"}), testLine{at: start.UnixNano(), text: "piece", flags: entry.FlagPartial})
	r.accepted(b, r.push(b))
	if m := r.srv.Lines()[0].Metadata; len(m) != 0 {
		t.Fatalf("metadata %v", m)
	}
}

// TestPoison: the row "400 of unknown reason".
func TestPoison(t *testing.T) {
	poison := func(o *lokitest.Options) {
		o.Poison = func(_, line string) bool { return strings.HasPrefix(line, "bad") }
	}
	t.Run("one in a thousand", func(t *testing.T) {
		r := newRig(t, poison, nil)
		lines, texts := numbered(start, 1000, "good")
		lines[617].text = "bad"
		b := batchOf(labelled("a"), lines...)
		r.accepted(b, r.push(b))
		if got := refusedTexts(b); !slices.Equal(got, []string{"bad"}) {
			t.Fatalf("refused %q", got)
		}
		r.stored(slices.Delete(texts, 617, 618))
		if n := r.requests(); n > 1+2*10 {
			t.Fatalf("%d requests", n)
		}
	})
	t.Run("several, in a shared push", func(t *testing.T) {
		r := newRig(t, poison, nil)
		a, z := labelled("a"), labelled("z")
		r.proven(start, a, z)
		b := batchOf(a, line(start.Add(1), "1"), line(start.Add(2), "bad2"), line(start.Add(3), "3"))
		appendSection(b, z, line(start.Add(1), "bad4"), line(start.Add(2), "5"))
		r.accepted(b, r.push(b))
		if got := refusedTexts(b); !slices.Equal(got, []string{"bad2", "bad4"}) {
			t.Fatalf("refused %q", got)
		}
	})
	t.Run("all: no line is to blame", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Poison = func(_, _ string) bool { return true } }, nil)
		lines, _ := numbered(start, 500, "x")
		b := batchOf(labelled("a"), lines...)
		out := r.push(b)
		if out.Err == nil || !out.Config || len(b.Refusals) != 0 {
			t.Fatalf("outcome %+v, %d refusals", out, len(b.Refusals))
		}
		r.states(b, entry.PartPending)
		if n := r.requests(); n != 1+maxSplits {
			t.Fatalf("%d requests", n)
		}
	})
	t.Run("a single line, no other taken", func(t *testing.T) {
		r := newRig(t, poison, nil)
		b := batchOf(labelled("a"), line(start, "bad"))
		out := r.push(b)
		if out.Err == nil || !out.Config || len(b.Refusals) != 0 {
			t.Fatalf("outcome %+v", out)
		}
	})
	t.Run("a stream of which none is taken waits alone", func(t *testing.T) {
		r := newRig(t, poison, nil)
		b := batchOf(labelled("a"), line(start, "bad1"), line(start.Add(1), "bad2"))
		appendSection(b, labelled("z"), line(start, "fine"))
		out := r.push(b)
		if out.Err == nil || !out.Config || len(b.Refusals) != 0 {
			t.Fatalf("outcome %+v", out)
		}
		r.states(b, entry.PartHeld, entry.PartAccepted)
	})
	t.Run("more than the search has requests for", func(t *testing.T) {
		r := newRig(t, poison, nil)
		lines, _ := numbered(start, 400, "good")
		for i := 0; i < 400; i += 20 {
			lines[i].text = fmt.Sprint("bad", i)
		}
		b := batchOf(labelled("a"), lines...)
		for range 20 {
			n, had := r.requests(), len(b.Refusals)
			out := r.push(b)
			if r.requests()-n > 1+maxSplits {
				t.Fatalf("%d requests in one attempt", r.requests()-n)
			}
			if out.Err == nil {
				break
			}
			if out.Config || len(b.Refusals) == had {
				t.Fatalf("no progress: %+v", out)
			}
		}
		r.states(b, entry.PartAccepted)
		if len(b.Refusals) != 20 || len(r.srv.Texts()) != 380 {
			t.Fatalf("%d refused, %d stored", len(b.Refusals), len(r.srv.Texts()))
		}
	})
	t.Run("what follows lines that are left is left, too", func(t *testing.T) {
		r := newRig(t, poison, func(c *Config) { c.BatchBytes = 9000 })
		lines, _ := numbered(start, 400, "good")
		for i := 0; i < 200; i += 5 {
			lines[i].text = fmt.Sprint("bad", i)
		}
		b := batchOf(labelled("a"), lines...)
		if out := r.push(b); out.Err == nil || out.Config {
			t.Fatalf("outcome %+v", out)
		}
		if slices.Contains(r.srv.Texts(), "good399") {
			t.Fatal("the end of the stream was sent before its middle")
		}
		for range 5 {
			r.push(b)
		}
		r.states(b, entry.PartAccepted)
		if got := r.srv.Texts(); got[len(got)-1] != "good399" || len(b.Refusals) != 40 || len(got) != 360 {
			t.Fatalf("%d refused, %d stored", len(b.Refusals), len(got))
		}
	})
	t.Run("an outage in the middle of the search", func(t *testing.T) {
		r := newRig(t, poison, nil)
		r.srv.Next(lokitest.Fault{}, lokitest.Fault{}, lokitest.Fault{Status: 503})
		b := batchOf(labelled("a"), line(start, "1"), line(start.Add(1), "2"), line(start.Add(2), "bad"), line(start.Add(3), "4"))
		out := r.push(b)
		if out.Err == nil || out.Config || len(b.Refusals) != 0 {
			t.Fatalf("outcome %+v", out)
		}
		r.accepted(b, r.push(b))
		r.stored([]string{"1", "2", "4"})
	})
}

// TestTenantRate: the row "429 tenant rate".
func TestTenantRate(t *testing.T) {
	r := newRig(t, func(o *lokitest.Options) { o.Limits.TenantRate, o.Limits.TenantBurst = 10, 10 }, nil)
	b := batchOf(labelled("a"), line(start, "12345678"))
	appendSection(b, labelled("b"), line(start, "12345678"))
	appendSection(b, labelled("c"), line(start, "12345678"))
	out := r.push(b)
	if out.Err == nil || out.Config {
		t.Fatalf("outcome %+v", out)
	}
	r.states(b, entry.PartAccepted, entry.PartPending, entry.PartPending)
	if r.requests() != 2 {
		t.Fatalf("%d requests: the lane must pause at once", r.requests())
	}
	for range 2 {
		r.pass(time.Second)
		out = r.push(b)
	}
	r.accepted(b, out)
	if n := len(r.srv.Texts()); n != 3 {
		t.Fatalf("%d lines stored", n)
	}
}

// reopen has what is held sent again.
func reopen(b *entry.Batch) {
	for i := range b.Sections {
		if b.Sections[i].State[0] == entry.PartHeld {
			b.Sections[i].State[0] = entry.PartPending
		}
	}
}

// TestStreamRate: the row "429 stream rate".
func TestStreamRate(t *testing.T) {
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprint("whole=", whole), func(t *testing.T) {
			r := newRig(t, func(o *lokitest.Options) {
				o.Limits.StreamRate, o.Limits.StreamBurst, o.Limits.WholeStream = 100, 100, whole
			}, nil)
			a, m, z := labelled("a"), labelled("m"), labelled("z")
			r.proven(start, a, m, z)
			r.pass(10 * time.Second)
			n := r.requests()
			loud := strings.Repeat("!", 60)
			b := batchOf(a, line(start.Add(1), "quiet a"))
			appendSection(b, m, line(start.Add(1), "quiet m"))
			appendSection(b, z, line(start.Add(1), loud), line(start.Add(2), loud+loud))
			out := r.push(b)
			if out.Err == nil || out.Config {
				t.Fatalf("outcome %+v", out)
			}
			r.states(b, entry.PartAccepted, entry.PartAccepted, entry.PartHeld)
			r.stored([]string{"hello of a", "quiet a"}, "container_name", "a")
			r.stored([]string{"hello of m", "quiet m"}, "container_name", "m")
			if got := r.requests() - n; got != 3 {
				t.Fatalf("%d requests: together, then the other two alone", got)
			}
			if h := r.c.Health(); h.Held == "" || !h.FailingSince.IsZero() {
				t.Fatalf("health %+v", h)
			}
			// Its own pause later, with a limit that lets it through.
			lim := lokitest.DefaultLimits()
			r.srv.SetLimits(lim)
			r.pass(time.Minute)
			reopen(b)
			r.accepted(b, r.push(b))
			r.stored([]string{"hello of z", loud, loud + loud}, "container_name", "z")
		})
	}
}

// TestAnswersAreProgress: of a stream that is sent in small requests each answer tells that the store is
// there, though none completes a part; and the requests of one attempt show what one may have.
func TestAnswersAreProgress(t *testing.T) {
	r := newRig(t, nil, nil)
	src := labelled("loud")
	r.proven(start, src)
	text := ""
	for id := range r.c.table.m {
		text = id
	}
	r.c.table.shrink(text, 20<<10, r.now())
	var before int
	for try := range 2 {
		var in []testLine
		for i := range 1024 {
			in = append(in, line(start.Add(time.Duration(1+i+try<<20)), strings.Repeat("x", 512)))
		}
		b := batchOf(src, in...)
		n, told := r.requests(), 0
		out := r.c.Push(t.Context(), b, func(context.Context) { told++ })
		r.accepted(b, out)
		if n = r.requests() - n; told != n-1 || !out.Took {
			t.Errorf("%d requests of a part, told of %d times, took %v", n, told, out.Took)
		}
		if try == 0 && n < 20 || try == 1 && n > 2 {
			t.Errorf("%d requests in push %d, %d in the one before", n, try, before)
		}
		before = n
	}
}

// TestStreamBurst: a store that never takes as much of a stream at once as is to be sent gets less
// and less, and then more again; each line once where it takes all of a request or none.
func TestStreamBurst(t *testing.T) {
	r := newRig(t, func(o *lokitest.Options) {
		o.Limits.StreamRate, o.Limits.StreamBurst, o.Limits.WholeStream = 50<<10, 100<<10, true
	}, nil)
	src, quiet := labelled("loud"), labelled("quiet")
	r.proven(start, src, quiet)
	want := []string{"hello of loud"}
	b := new(entry.Batch)
	for s := range 2 {
		var in []testLine
		for i := range 300 {
			text := fmt.Sprintf("%d.%d ", s, i) + strings.Repeat("x", 1000)
			want = append(want, text)
			in = append(in, line(start.Add(time.Duration(s*300+i+1)), text))
		}
		appendSection(b, src, in...)
	}
	tries := 0
	for ; b.Pending(); tries++ {
		if tries > 60 {
			t.Fatal("it does not end")
		}
		r.push(b)
		reopen(b)
		r.pass(2 * time.Second)
	}
	r.stored(want, "container_name", "loud")
	// 600 kB at 50 a second; some tries are for nothing.
	t.Logf("%d tries", tries)
	if tries > 20 {
		t.Errorf("%d tries", tries)
	}
	r.srv.SetLimits(lokitest.DefaultLimits())
	requests := 0
	for range 12 {
		b, n := new(entry.Batch), r.requests()
		for i := range 4 {
			appendSection(b, src, line(start.Add(time.Duration(1+i)*time.Second), strings.Repeat("y", 200<<10)))
		}
		r.accepted(b, r.push(b))
		r.pass(time.Minute)
		requests = r.requests() - n
	}
	if requests != 1 {
		t.Errorf("%d requests, where it may have one again", requests)
	}
}

// TestStreamLimit: the row "429 stream limit".
func TestStreamLimit(t *testing.T) {
	r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxStreams = 2 }, nil)
	b := new(entry.Batch)
	for _, name := range []string{"a", "b", "c", "d"} {
		appendSection(b, labelled(name), line(start, name))
	}
	out := r.push(b)
	if out.Err == nil || out.Config {
		t.Fatalf("outcome %+v", out)
	}
	r.states(b, entry.PartAccepted, entry.PartAccepted, entry.PartHeld, entry.PartHeld)
	r.stored([]string{"a", "b"})
}

// TestUnnamedStreamRefused: a 429 that does not say which stream.
func TestUnnamedStreamRefused(t *testing.T) {
	r := newRig(t, nil, nil)
	a, z := labelled("a"), labelled("z")
	r.proven(start, a, z)
	r.srv.Next(lokitest.Fault{Status: 429, Body: "per stream rate limit exceeded"}, lokitest.Fault{Status: 429, Body: "Per stream rate limit exceeded"})
	b := batchOf(a, line(start.Add(1), "1"))
	appendSection(b, z, line(start.Add(1), "2"))
	out := r.push(b)
	if out.Err == nil {
		t.Fatalf("outcome %+v", out)
	}
	r.states(b, entry.PartHeld, entry.PartAccepted)
}

// TestTooLarge: the row "413, or 500 naming ResourceExhausted".
func TestTooLarge(t *testing.T) {
	t.Run("500", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxMessage = 1000 }, nil)
		lines, texts := numbered(start, 100, "some text of a line ")
		b := batchOf(labelled("a"), lines...)
		r.accepted(b, r.push(b))
		r.stored(texts)
		if strings.Count(r.log.String(), "level=WARN") != 1 {
			t.Fatalf("said: %s", r.log)
		}
	})
	t.Run("500, a single line", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxMessage = 10 }, nil)
		b := batchOf(labelled("a"), line(start, "x"))
		if out := r.push(b); out.Err == nil || out.Config || len(b.Refusals) != 0 {
			t.Fatalf("outcome %+v", out)
		}
	})
	t.Run("413", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxBody = 400 }, nil)
		lines, texts := numbered(start, 300, "")
		noise := noiseOf(600)
		lines[123].text = noise // too large even alone, and incompressible
		b := batchOf(labelled("a"), lines...)
		r.accepted(b, r.push(b))
		if got := refusedTexts(b); !slices.Equal(got, []string{noise}) {
			t.Fatalf("refused %d", len(got))
		}
		r.stored(slices.Delete(texts, 123, 124))
	})
	t.Run("413 for all: nothing is to blame", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxBody = 5 }, nil)
		b := batchOf(labelled("a"), line(start, "x"), line(start.Add(1), "y"))
		if out := r.push(b); out.Err == nil || !out.Config || len(b.Refusals) != 0 {
			t.Fatalf("outcome %+v", out)
		}
		r.states(b, entry.PartPending)
	})
	t.Run("413 for a single line, later", func(t *testing.T) {
		r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxBody = 400 }, nil)
		src := labelled("a")
		r.proven(start, src)
		b := batchOf(src, line(start.Add(1), noiseOf(600)))
		r.accepted(b, r.push(b))
		if len(b.Refusals) != 1 {
			t.Fatal("the line blocks its lane")
		}
	})
}

// noiseOf gives text that snappy cannot shorten.
func noiseOf(n int) string {
	out := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte('!' + x%90)
	}
	return string(out)
}

// TestBatchBytes: a batch larger than a request may be is sent in several, in
// order; a line that is larger has its own.
func TestBatchBytes(t *testing.T) {
	const limit = 10_000
	r := newRig(t, nil, func(c *Config) { c.BatchBytes = limit })
	src := labelled("a", entry.Label{Name: "image", Value: "x:1"})
	lines, texts := numbered(start, 2000, "line ")
	texts[700] = strings.Repeat("long ", 3000)
	lines[700].text = texts[700]
	b := batchOf(src, lines[:1000]...)
	appendSection(b, src, lines[1000:]...)
	r.accepted(b, r.push(b))
	r.stored(texts)
	over := 0
	for _, q := range r.srv.Requests() {
		if q.Bytes > limit {
			over++
			if q.Lines != 1 {
				t.Fatalf("%d bytes with %d lines", q.Bytes, q.Lines)
			}
		} else if q.Lines > 1 && q.Bytes < limit*9/10 && q.Status != 204 {
			t.Fatalf("request %+v", q)
		}
	}
	if over != 1 {
		t.Fatalf("%d requests above the limit", over)
	}
	// Proven streams are packed below the limit as well.
	var sources []*entry.Source
	for i := range 30 {
		sources = append(sources, labelled(fmt.Sprint("s", i)))
	}
	r.proven(start, sources...)
	n := r.requests()
	b = new(entry.Batch)
	for _, s := range sources {
		appendSection(b, s, line(start.Add(1), noiseOf(900)))
	}
	r.accepted(b, r.push(b))
	for _, q := range r.srv.Requests()[n:] {
		if q.Bytes > limit || len(q.Streams) < 2 {
			t.Fatalf("request of %d bytes, %d streams", q.Bytes, len(q.Streams))
		}
	}
}

// TestHalfSent: what was accepted before an outage is not sent again where a
// part tells.
func TestHalfSent(t *testing.T) {
	r := newRig(t, nil, func(c *Config) { c.BatchBytes = 2000 })
	src := labelled("a")
	b := new(entry.Batch)
	var all []string
	for i := range 4 {
		lines, texts := numbered(start.Add(time.Duration(i)*time.Second), 40, fmt.Sprintf("%d-some text-", i))
		appendSection(b, src, lines...)
		all = append(all, texts...)
	}
	r.srv.Next(lokitest.Fault{}, lokitest.Fault{}, lokitest.Fault{Status: 503})
	if out := r.push(b); out.Err == nil {
		t.Fatal("no error")
	}
	if b.Sections[0].State[0] != entry.PartAccepted || b.Sections[3].State[0] != entry.PartPending {
		t.Fatalf("states %v %v", b.Sections[0].State, b.Sections[3].State)
	}
	r.accepted(b, r.push(b))
	r.stored(all)
}

// TestHostileAnswer: an answer without end is not read to its end, and control
// characters do not reach the log.
func TestHostileAnswer(t *testing.T) {
	r := newRig(t, nil, nil)
	r.srv.Next(lokitest.Fault{Status: 503, Body: "\x1b[2J" + strings.Repeat("x", 4<<20)})
	b := batchOf(labelled("a"), line(start, "x"))
	out := r.push(b)
	if out.Err == nil || len(out.Err.Error()) > 600 || strings.Contains(out.Err.Error(), "\x1b") {
		t.Fatalf("error of %d bytes", len(out.Err.Error()))
	}
	r.accepted(b, r.push(b))
}

// TestCutReasons: a 400 so long that it is not read to its end costs a repeat,
// no line.
func TestCutReasons(t *testing.T) {
	r := newRig(t, func(o *lokitest.Options) { o.Limits.MaxLine = 10 }, nil)
	src := labelled(strings.Repeat("n", 1500))
	var lines []testLine
	for i := range 3000 { // a reason of its own for each length
		lines = append(lines, line(start.Add(time.Duration(i)), strings.Repeat("x", 11+i%1000)))
	}
	lines[1500].text = "fits"
	// Its reason comes last, where the text is no longer read.
	lines = append(lines, line(start.Add(time.Hour), "new"))
	b := batchOf(src, lines...)
	out := r.push(b)
	for range 5 {
		if out.Err == nil {
			break
		}
		out = r.push(b)
	}
	r.accepted(b, out)
	if len(b.Refusals) != 3000 {
		t.Fatalf("%d refused", len(b.Refusals))
	}
	r.stored([]string{"fits"})
	if n := len(r.srv.Requests()[0].Answer); n <= maxAnswer {
		t.Fatalf("the answer of %d bytes is too short for this test", n)
	}
}

func TestLanesConcurrently(t *testing.T) {
	r := newRig(t, nil, nil)
	var wg sync.WaitGroup
	for lane := range 4 {
		wg.Go(func() {
			src := labelled(fmt.Sprint("lane", lane))
			b := new(entry.Batch)
			for i := range 30 {
				b.Reset()
				lines, _ := numbered(start.Add(time.Duration(i)*time.Second), 50, fmt.Sprintf("%d-%d-", lane, i))
				appendSection(b, src, lines...)
				if out := r.c.Push(context.Background(), b, ignore); out.Err != nil {
					t.Error(out.Err)
				}
				r.c.Health()
			}
		})
	}
	wg.Wait()
	if n := len(r.srv.Texts()); n != 4*30*50 {
		t.Fatalf("%d lines stored", n)
	}
	if len(r.c.free) > 4 {
		t.Fatalf("%d lanes in memory", len(r.c.free))
	}
}

// TestAnswerBeforeTheBodyIsRead: a request's memory is not used again while it is
// still sent. The race detector tells.
func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	c, err := New(Config{URL: srv.URL, BatchBytes: 3 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := batchOf(labelled("a"), line(start, noiseOf(2<<20)))
	for range 10 {
		if out := c.Push(context.Background(), b, ignore); out.Err == nil || out.Config {
			t.Fatalf("outcome %+v", out)
		}
	}
}
