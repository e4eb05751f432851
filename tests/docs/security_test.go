package docs

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/tests/harness"
)

const securityDoc = "docs/security.md"

// TestSecurityNamesTests: each test that the document gives as a proof is there,
// and each fuzz target of the module is in the document.
func TestSecurityNamesTests(t *testing.T) {
	root := harness.Root(t)
	tests := map[string]bool{} // "internal/x TestY"
	decl := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, top := range []string{"cmd", "internal", "scripts", "tests"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			pkg, err := filepath.Rel(root, filepath.Dir(path))
			for _, m := range decl.FindAllSubmatch(text, -1) {
				tests[pkg+" "+string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_/]+ (?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(harness.ReadFile(t, securityDoc), -1) {
		named[m[1]] = true
		if !tests[m[1]] {
			t.Errorf("%s: there is no %s", securityDoc, m[1])
		}
	}
	if len(named) < 40 {
		t.Errorf("%s names only %d tests", securityDoc, len(named))
	}
	for test := range tests {
		if strings.Contains(test, " Fuzz") && !named[test] {
			t.Errorf("%s does not name %s", securityDoc, test)
		}
	}
}

// socketProxy is an engine's socket of which only some requests get through.
type socketProxy struct {
	host    string
	allowed *regexp.Regexp // fits "METHOD /path"
	to      *httputil.ReverseProxy

	mu      sync.Mutex
	passed  map[string]bool // without version, and {id} for IDs
	refused []string
}

func startSocketProxy(t *testing.T, engine string, allowed *regexp.Regexp) *socketProxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "lc") // a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(engine, "unix://")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	p := &socketProxy{
		host: "unix://" + dir + "/p.sock", allowed: allowed, passed: map[string]bool{},
		to: &httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
			Transport:     transport,
			FlushInterval: -1, // answers are not buffered
		},
	}
	l, err := net.Listen("unix", dir+"/p.sock")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
		transport.CloseIdleConnections()
		_ = os.RemoveAll(dir)
	})
	return p
}

var (
	versionPrefix = regexp.MustCompile(`^/v[0-9.]+`)
	containerPath = regexp.MustCompile(`^/containers/[^/]+/`)
)

func (p *socketProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := r.Method + " " + r.URL.Path
	ok := p.allowed.MatchString(request)
	p.mu.Lock()
	if ok {
		p.passed[r.Method+" "+containerPath.ReplaceAllString(versionPrefix.ReplaceAllString(r.URL.Path, ""), "/containers/{id}/")] = true
	} else {
		p.refused = append(p.refused, request)
	}
	p.mu.Unlock()
	if !ok {
		http.Error(w, `{"message":"not allowed"}`, http.StatusForbidden)
		return
	}
	p.to.ServeHTTP(w, r)
}

// TestSocketProxy: behind a proxy that lets through what the document says, and
// nothing else, the agent captures files and streams, and doctor has no complaint.
func TestSocketProxy(t *testing.T) {
	harness.NeedDocker(t)
	text := harness.ReadFile(t, securityDoc)
	patterns, listed := blocks(text, "regex"), blocks(text, "http")
	if len(patterns) != 1 || len(listed) != 1 {
		t.Fatalf("%s has %d patterns and %d lists of requests", securityDoc, len(patterns), len(listed))
	}
	allowed := regexp.MustCompile(strings.TrimSpace(patterns[0]))
	for _, request := range []string{
		"POST /v1.41/containers/create", "GET /v1.41/containers/a/archive", "GET /containers/a/export", "GET /v1.41/containers/../secrets",
		"DELETE /containers/a", "GET /v1.41/containers/a/json/../archive", "GET /images/json", "GET /v1.41/secrets", "POST /v1.41/containers/a/logs", "GET /v1.41/containers/a/logs/x",
	} {
		if allowed.MatchString(request) {
			t.Errorf("%s is let through", request)
		}
	}

	d := harness.StartDockerd(t)
	p := startSocketProxy(t, d.Host, allowed)
	store := lokitest.New(lokitest.Default())
	defer store.Close()
	a := harness.StartAgent(t, p.host, store.URL, "")
	for _, driver := range []string{"json-file", "local"} {
		d.Run(t, harness.ContainerSpec{Name: "by-" + driver, Driver: driver, Cmd: []string{"-lines", "10", "-prefix", "of-" + driver + "-"}})
	}
	harness.Eventually(t, 30*time.Second, "the lines of both are stored", func() bool {
		all := store.Texts()
		return slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, "of-json-file-") }) &&
			slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, "of-local-") })
	})
	out, err := exec.Command(a.Bin, "doctor", "-config", a.Config).CombinedOutput()
	if err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	a.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.refused) > 0 {
		t.Errorf("refused: %q", p.refused)
	}
	for request := range p.passed {
		if !slices.Contains(strings.Split(listed[0], "\n"), request) {
			t.Errorf("%s is not in the document", request)
		}
	}
	if want := "GET /containers/{id}/logs"; !p.passed[want] {
		t.Errorf("no %s among %v", want, p.passed)
	}
}
