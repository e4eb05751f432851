package docker

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// requestsOf are the requests to an engine that each method of moby's client makes
// that the package may call. Those without any ask nobody.
func requestsOf() map[string][]string {
	return map[string][]string{
		"Ping":             {"HEAD /_ping", "GET /_ping"}, // the second if the engine does not answer the first
		"Info":             {"GET /info"},
		"Events":           {"GET /events"},
		"ContainerList":    {"GET /containers/json"},
		"ContainerInspect": {"GET /containers/{id}/json"},
		"Close":            nil,
		"ClientVersion":    nil,
		"Dialer":           nil, // for Logs, which asks by itself
	}
}

const logsRequestForm = "GET /containers/{id}/logs"

// TestRequests: what the package asks of an engine is what docs/security.md says,
// for a proxy before the engine's socket to let through.
func TestRequests(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	list, allowed := fenced(t, string(text), "http"), regexp.MustCompile(fenced(t, string(text), "regex"))
	documented := strings.Split(list, "\n")
	slices.Sort(documented)

	want := []string{logsRequestForm}
	for _, requests := range requestsOf() {
		want = append(want, requests...)
	}
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		t.Errorf("docs/security.md has %q, want %q", documented, want)
	}

	// No other method of moby's client is called, and requests are made in one
	// place only.
	for _, called := range calledOfMoby(t) {
		if _, ok := requestsOf()[called]; !ok {
			t.Errorf("%s of moby's client is called, which docs/security.md does not know", called)
		}
	}

	var seen []string
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		e.set(func() {
			e.inspect["a"] = map[string]any{"Id": "a"}
			e.hooks["/containers/a/logs"] = func(http.ResponseWriter, *http.Request) {}
		})
		c := e.client(t)
		if _, err := c.Announced(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := c.Info(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := c.Inspect(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		s, err := c.Logs(t.Context(), "a", LogsOptions{})
		if err != nil {
			t.Error(err)
		} else if err := s.Close(); err != nil {
			t.Error(err)
		}
		watching(t, c, &recorder{}) // lists, too
		synctest.Wait()
		<-e.subs
		time.Sleep(DefaultResyncEvery)
		synctest.Wait()
		seen = e.seen()
	})
	for _, request := range seen {
		if !allowed.MatchString(request) {
			t.Errorf("%s is not let through by the pattern of docs/security.md", request)
		}
	}
	for _, form := range want {
		// The first ping is enough for an engine that answers it.
		fits := regexp.MustCompile("^" + strings.ReplaceAll(strings.Replace(form, " /", ` (/v[0-9.]+)?/`, 1), "{id}", "a") + "$")
		if form != "GET /_ping" && !slices.ContainsFunc(seen, fits.MatchString) {
			t.Errorf("%s was not asked among %q", form, seen)
		}
	}
}

// fenced gives the one block of a language.
func fenced(t *testing.T, text, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)```"+language+"\n(.*?)\n```").FindAllStringSubmatch(text, -1)
	if len(m) != 1 {
		t.Fatalf("%d blocks of %s", len(m), language)
	}
	return m[0][1]
}

// calledOfMoby gives the methods of moby's client that the package calls, and
// fails where a request is made elsewhere than in logsRequest.
func calledOfMoby(t *testing.T) (names []string) {
	t.Helper()
	production := func(fi fs.FileInfo) bool { return !strings.HasSuffix(fi.Name(), "_test.go") }
	pkgs, err := parser.ParseDir(token.NewFileSet(), ".", production, parser.SkipObjectResolution) //nolint:staticcheck // no build tags here
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	ast.Inspect(pkgs["docker"], func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch x := sel.X.(type) {
		case *ast.Ident:
			if x.Name == "api" {
				names = append(names, sel.Sel.Name)
			}
		case *ast.SelectorExpr:
			if x.Sel.Name == "api" {
				names = append(names, sel.Sel.Name)
			}
		}
		if strings.HasPrefix(sel.Sel.Name, "NewRequest") {
			requests++
		}
		return true
	})
	if requests != 1 || !slices.Contains(names, "ContainerList") {
		t.Errorf("%d requests are made, and %q called", requests, names)
	}
	return names
}
