package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/server"
)

// agentServer is an agent's HTTP server that gives one answer to everything, and
// remembers what it was asked for.
type agentServer struct {
	*httptest.Server
	asked []string
}

func newAgentServer(t *testing.T, status int, answer string) *agentServer {
	a := &agentServer{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked = append(a.asked, r.Method+" "+r.RequestURI)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(a.Close)
	return a
}

// answerOf is what an agent with these containers answers.
func answerOf(t *testing.T, list ...server.Container) string {
	t.Helper()
	b, err := json.MarshalIndent(server.Containers{Containers: list}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// twoContainers is a table's worth.
func twoContainers() []server.Container {
	at := func(s string) *time.Time {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			panic(err)
		}
		return &t
	}
	return []server.Container{
		{
			Name: "db", Driver: "local", Method: server.MethodStreaming, Reason: "its driver keeps no file that can be read",
			LagSeconds: 12.9, LinesDelivered: 7, BytesLost: 1, Gaps: 2, Errors: 2,
			Position: map[string]server.Position{
				"stdout": {Time: at("2026-01-02T03:04:05Z")},
				"stderr": {Time: at("2026-01-02T05:04:06.9+01:00")}, // the newer one
			},
		},
		{Name: "web", Driver: "none", Method: server.MethodNone},
	}
}

const twoRows = `NAME  DRIVER  METHOD     REASON                                     POSITION              LAG  LINES  LOST            ERRORS
db    local   streaming  its driver keeps no file that can be read  2026-01-02T04:04:06Z  12s  7      1 byte, 2 gaps  2
web   none    none       -                                          -                     0s   0      0               0
`

func TestContainers(t *testing.T) {
	answer := answerOf(t, twoContainers()...)
	header, rows, _ := strings.Cut(twoRows, "\n")
	db, _, _ := strings.Cut(rows, "\n")
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, twoRows},
		{[]string{"--json"}, answer},
		{[]string{"b"}, twoRows}, // both have one
		{[]string{"d"}, header + "\n" + db + "\n"},
		{[]string{"d", "--method", "streaming"}, header + "\n" + db + "\n"},
		{[]string{"--method", "file_monitor"}, "NAME  DRIVER  METHOD  REASON  POSITION  LAG  LINES  LOST  ERRORS\n"},
		{[]string{"--method", "none", "w"}, "NAME  DRIVER  METHOD  REASON  POSITION  LAG  LINES  LOST  ERRORS\nweb   none    none    -       -         0s   0      0     0\n"},
		{[]string{"--method=streaming", "web"}, "NAME  DRIVER  METHOD  REASON  POSITION  LAG  LINES  LOST  ERRORS\n"},
	} {
		a := newAgentServer(t, 200, answer)
		status, out, stderr := subcommand(t, "containers", append([]string{"--url", a.URL}, c.args...)...)
		if status != 0 || out != c.want || stderr != "" {
			t.Errorf("%q: status %d, %q\n%s\nwant\n%s", c.args, status, stderr, out, c.want)
		}
		if len(a.asked) != 1 || a.asked[0] != "GET "+server.ContainersPath {
			t.Errorf("%q: asked for %q", c.args, a.asked)
		}
	}
}

// TestContainersDocument: the table in API.md is that of the answer in API.md.
func TestContainersDocument(t *testing.T) {
	text, err := os.ReadFile("../../API.md")
	if err != nil {
		t.Fatal(err)
	}
	answer := regexp.MustCompile("(?s)```json\n(\\{\n  \"containers\".*?)```").FindSubmatch(text)
	table := regexp.MustCompile("(?s)```text\n(NAME .*?)```").FindSubmatch(text)
	if answer == nil || table == nil {
		t.Fatal("API.md has no answer or no table")
	}
	a := newAgentServer(t, 200, string(answer[1]))
	if status, out, stderr := subcommand(t, "containers", "--url", a.URL); status != 0 || out != string(table[1]) {
		t.Errorf("status %d, %q: the table is\n%s\nAPI.md has\n%s", status, stderr, out, table[1])
	}
	if _, out, _ := subcommand(t, "containers", "--url", a.URL, "--json"); out != string(answer[1]) {
		t.Errorf("--json changes it to\n%s", out)
	}
}

// TestContainersCommandLine: mistakes are told before anybody is asked.
func TestContainersCommandLine(t *testing.T) {
	ok, bad := files(t)
	anyPort := filepath.Join(t.TempDir(), "any.yaml")
	if err := os.WriteFile(anyPort, []byte("server: {port: 0}\nsinks: {stdout: {enabled: true}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const notURL = "containers: --url: not the address of an agent, such as http://127.0.0.1:8401\n"
	for _, c := range []struct{ args, want string }{
		{"a b", "containers: unexpected argument \"b\": one part of a name is enough\n"},
		{"--method files", "containers: --method \"files\": one of file_monitor, streaming, none\n"},
		{"--json a", "containers: --json prints the whole answer: "},
		{"--json --method none", "containers: --json prints the whole answer: "},
		{"--url http://h:1 --config " + ok, "containers: --url and --config both say where the agent is"},
		{"--url h:1", notURL},
		{"--url 127.0.0.1:8401", notURL},
		{"--url /health", notURL},
		{"--url ftp://u:s3cret@h", notURL},
		{"--url http://u:s3cret@h:port", notURL},
		{"--url http://h/?a=b", notURL},
		{"--config " + bad, bad + ":1: host: is a list"},
		{"--config " + ok + ".none", "read configuration: open "},
		{"--config " + anyPort, "containers: server.port is 0, any free port: "},
		{"--nosuch", "flag provided but not defined: -nosuch\n"},
	} {
		status, out, stderr := subcommand(t, "containers", strings.Fields(c.args)...)
		if status != 2 || out != "" || !strings.HasPrefix(strings.TrimPrefix(stderr, "log_capturer: "), c.want) || strings.Contains(stderr, "s3cret") {
			t.Errorf("%s: status %d, %q, %q; want %q", c.args, status, out, stderr, c.want)
		}
	}
}

// TestContainersOfAConfiguration: the agent is asked where its configuration
// lets it listen; the flag may stand before the subcommand.
func TestContainersOfAConfiguration(t *testing.T) {
	a := newAgentServer(t, 200, answerOf(t, twoContainers()...))
	path := filepath.Join(t.TempDir(), "c.yaml")
	_, port, err := net.SplitHostPort(a.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "server: {host: 0.0.0.0, port: %s}\nsinks: {stdout: {enabled: true}}\n", port), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"containers", "-config", path}, {"--config=" + path, "containers"}} {
		f := newFixture(nil)
		if status := f.main(t.Context(), append([]string{"log_capturer"}, args...)); status != 0 || f.out.String() != twoRows {
			t.Errorf("%q: status %d, %s%s", args, status, &f.out, &f.err)
		}
	}
}

func TestAgentURL(t *testing.T) {
	for _, c := range []struct {
		host string
		want string
	}{
		{"127.0.0.1", "http://127.0.0.1:8401"},
		{"0.0.0.0", "http://127.0.0.1:8401"},
		{"::", "http://[::1]:8401"},
		{"::1", "http://[::1]:8401"},
		{"10.1.2.3", "http://10.1.2.3:8401"},
		{"localhost", "http://localhost:8401"},
		{"fe80::1%eth0", "http://[fe80::1%25eth0]:8401"},
	} {
		u, err := agentURL(config.Server{Host: c.host, Port: 8401})
		if err != nil || u.String() != c.want {
			t.Errorf("%s: got %v, %v", c.host, u, err)
		}
	}
}

// TestContainersWithoutAnAgent: one line that names the agent and what to do.
func TestContainersWithoutAnAgent(t *testing.T) {
	gone := newAgentServer(t, 200, "")
	gone.Close()
	address := strings.TrimPrefix(gone.URL, "http://")
	for _, args := range [][]string{{}, {"--json"}} {
		status, out, stderr := subcommand(t, "containers", append([]string{"--url", "http://u:s3cret@" + address}, args...)...)
		want := "log_capturer: no agent answers at http://u:xxxxx@" + address + ": dial tcp " + address + ": connect: connection refused: start it, or say where it is with --url or --config\n"
		if status != 1 || out != "" || stderr != want {
			t.Errorf("%q: status %d, %q, %q; want %q", args, status, out, stderr, want)
		}
	}
}

// TestContainersWrongAnswers: what is no agent's answer is no table.
func TestContainersWrongAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		want   string // "URL" stands for the server's
	}{
		{404, "404 page not found\n", "what answers at URL does not know /api/v1/containers: another program, or an older log_capturer: name the agent with --url or --config"},
		{503, "4 such requests are being answered already:\ntry again\n", "the agent at URL answers 503 Service Unavailable: 4 such requests are being answered already:?try again"},
		{500, "", "the agent at URL answers 500 Internal Server Error: -"},
		{502, strings.Repeat("\x1b[2J", 1000), "the agent at URL answers 502 Bad Gateway: " + strings.Repeat("?[2J", 49) + "?[2…"},
		{200, "", "what answers at URL does not answer as an agent does: "},
		{200, "<html>", "what answers at URL does not answer as an agent does: "},
		{200, `{"status":"ok"}`, "what answers at URL does not answer as an agent does: "},
		{200, `{"containers":null}`, "what answers at URL does not answer as an agent does: "},
		{200, `{"containers":[{"id":1}]}`, "what answers at URL does not answer as an agent does: "},
		{200, `{"containers":[]}{"containers":[]}`, "what answers at URL does not answer as an agent does: "},
	} {
		a := newAgentServer(t, c.status, c.answer)
		for _, args := range [][]string{{}, {"--json"}} {
			status, out, stderr := subcommand(t, "containers", append([]string{"--url", a.URL}, args...)...)
			want := "log_capturer: " + strings.ReplaceAll(c.want, "URL", a.URL)
			if status != 1 || out != "" || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%q: status %d, %q, %q; want %q", args, status, out, stderr, want)
			}
		}
	}
}

// TestContainersHostileText: nothing that comes from outside does anything to a
// terminal, or makes rows and columns of its own.
func TestContainersHostileText(t *testing.T) {
	const evil = "a\x1b[2J\tb\nc\u009b31m\x7f\u202e\U000e0041\r\v\f"
	list := []server.Container{
		{Name: evil, Driver: evil, Method: evil, Reason: evil},
		{Name: strings.Repeat("n", 5000), Reason: strings.Repeat("ü", 61)},
	}
	a := newAgentServer(t, 200, answerOf(t, list...))
	_, out, _ := subcommand(t, "containers", "--url", a.URL)
	lines := strings.Split(out, "\n")
	if len(lines) != 4 || strings.Count(lines[1], "a?[2J?b?c?31m??????") != 4 {
		t.Errorf("got\n%s", out)
	}
	if !strings.HasPrefix(lines[2], strings.Repeat("n", 59)+"…  -") || !strings.Contains(lines[2], "  "+strings.Repeat("ü", 59)+"…  ") {
		t.Errorf("got\n%s", out)
	}
	status, all, _ := subcommand(t, "containers", "--url", a.URL, "--json")
	for name, s := range map[string]string{"table": out, "JSON": all} {
		if i := strings.IndexAny(s, "\x1b\t\u009b\x7f\u202e\U000e0041\r\v\f"); i >= 0 {
			t.Errorf("%s: there is a raw %q", name, s[i:i+1])
		}
	}
	var got server.Containers
	if err := json.Unmarshal([]byte(all), &got); err != nil || status != 0 || got.Containers[0].Name != evil {
		t.Errorf("JSON: status %d, %v, %+v", status, err, got)
	}
}

func TestContainersCannotBeWritten(t *testing.T) {
	a := newAgentServer(t, 200, answerOf(t, twoContainers()...))
	f := newFixture(nil)
	f.program.out = failingWriter{}
	if status := f.main(t.Context(), []string{"log_capturer", "containers", "--url", a.URL}); status != 1 || !strings.Contains(f.err.String(), "no space") {
		t.Errorf("got %d, %s", status, &f.err)
	}
}

// roundTrip is a network of one function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// endless is a body of spaces that never ends.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read += len(p)
	return len(p), nil
}
func (e *endless) Close() error { return nil }

func TestAskIsBounded(t *testing.T) {
	base, err := parseURL("http://h:1/proxy/")
	if err != nil {
		t.Fatal(err)
	}
	body := &endless{}
	_, _, err = ask(t.Context(), roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.URL.String() != "http://h:1/proxy/api/v1/containers" {
			t.Errorf("asked for %s", r.URL)
		}
		return &http.Response{StatusCode: 200, Body: body}, nil
	}), base)
	if err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") || body.read > maxAnswer+1 {
		t.Errorf("got %v after %d bytes", err, body.read)
	}
}

// silentBody blocks until its request is over.
type silentBody struct{ ctx context.Context } //nolint:containedctx // a request's body has its request's context

func (b silentBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}
func (silentBody) Close() error { return nil }

// TestAskTimesOut: whether the agent says nothing, or begins and goes no further.
func TestAskTimesOut(t *testing.T) {
	base := &url.URL{Scheme: "http", Host: "h:1"}
	for name, rt := range map[string]roundTrip{
		"nothing": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"half": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(bytes.NewBufferString(`{"cont`), silentBody{r.Context()}))}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				_, _, err := ask(t.Context(), rt, base)
				want := "the agent at http://h:1 has not answered within 10s: try again; its log and http://h:1/health may say why"
				if d := time.Since(begin); d != 10*time.Second || err == nil || err.Error() != want {
					t.Errorf("got %v after %v", err, d)
				}
			})
		})
	}
	_, _, err := ask(t.Context(), roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, io.ErrUnexpectedEOF
	}), base)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

func TestLag(t *testing.T) {
	for seconds, want := range map[float64]string{
		-1: "0s", 0: "0s", 0.99: "0s", 12: "12s", 59.9: "59s", 60: "1m", 3599: "59m", 3600: "1h",
		86399: "23h", 86400: "1d", 86400 * 1000: ">999d", 1e300: ">999d",
	} {
		if got := lag(seconds); got != want {
			t.Errorf("%v: got %s, want %s", seconds, got, want)
		}
	}
}
