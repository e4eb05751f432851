package server

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
)

const browserAccepts = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

func TestPage(t *testing.T) {
	w := askFor(overviewOf(someOverview()), "GET", "/", browserAccepts)
	if w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	for name, want := range map[string]string{
		"Content-Type": htmlType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Vary": "Accept",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	body := html.UnescapeString(w.Body.String())
	for _, want := range []string{
		"In trouble: the store does not accept lines, and 1 more problem", "3 containers, 1,030 lines/s, lag 2.5 s",
		"2.0 KiB, 1 gap", "512 B unread", "it broke", "because", "json-file", "1 min 0 s", "since 2026-01-02 03:03:05 UTC", ", 3 times",
		"over after 59 min 0 s", `<meter min="0" max="100" low="50" high="80" optimum="0" value="75"`, "1 h 30 min", "started or reloaded",
		`href="` + troubleshooting + `#the-store-does-not-accept-lines--503-after-30-s"`,
	} {
		if !strings.Contains(strings.ToLower(body), strings.ToLower(want)) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if found := regexp.MustCompile(`(?i)\son[a-z]+\s*=|<style|\sstyle=|javascript:|<script(>|[^>]*[^r]>)`).FindString(w.Body.String()); found != "" {
		t.Errorf("the page has %q, which its policy forbids", found)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1) {
		if strings.HasPrefix(m[1], "/ui/") {
			if a := askFor(overviewOf(Overview{}), "GET", m[1], ""); a.Code != 200 {
				t.Errorf("%s: got %d", m[1], a.Code)
			}
		} else if !strings.HasPrefix(m[1], "#") && !strings.HasPrefix(m[1], "/") && !strings.HasPrefix(m[1], troubleshooting) {
			t.Errorf("the page leads to %s", m[1])
		}
	}
}

// TestPageForPrograms: who asks for no HTML gets the list of what there is.
func TestPageForPrograms(t *testing.T) {
	for _, accept := range []string{"", "*/*", "application/json"} {
		w := askFor(overviewOf(someOverview()), "GET", "/", accept)
		if w.Code != 200 || w.Header().Get("Content-Type") != textType || w.Body.String() != index || w.Header().Get("Vary") != "Accept" {
			t.Errorf("%q: got %d %v %q", accept, w.Code, w.Header(), w.Body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
		for _, path := range []string{"/", StatusPath, pagePath} {
			if w := askFor(overviewOf(someOverview()), method, path, browserAccepts); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: got %d", method, path, w.Code)
			}
		}
	}
}

// TestPageFeed: the script gets the words that the page has.
func TestPageFeed(t *testing.T) {
	o := overviewOf(someOverview())
	w := askFor(o, "GET", pagePath, "")
	var v pageView
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != jsonType {
		t.Fatalf("got %d %v %s", w.Code, err, w.Body)
	}
	page := html.UnescapeString(askFor(o, "GET", "/", browserAccepts).Body.String())
	if !strings.Contains(page, `data-assets="`+v.Assets+`"`) || v.Assets == "" {
		t.Errorf("assets %q", v.Assets)
	}
	words := []string{v.Verdict, v.Figures, v.Time}
	for _, p := range v.Problems {
		words = append(words, p.What, p.Remedy, p.See)
	}
	for _, x := range v.Tiles {
		words = append(words, x.Label, x.Value, x.Note)
	}
	for _, l := range v.Facts {
		words = append(words, l.Title)
		for _, f := range l.Facts {
			words = append(words, f.Label, f.Value)
		}
	}
	rows := 0
	for _, x := range v.Tables {
		words = append(words, x.Title, x.Empty)
		for _, c := range x.Columns {
			words = append(words, c.Name)
		}
		for _, r := range x.Rows {
			rows++
			for _, c := range r.Cells {
				words = append(words, c.Text, c.Note)
			}
		}
	}
	for _, word := range words {
		if !strings.Contains(page, word) {
			t.Errorf("%q is in the feed, not in the page", word)
		}
	}
	if rows != 4+3+2 || len(v.Facts) != 6 {
		t.Errorf("%d rows, %d lists of facts", rows, len(v.Facts))
	}
	var order []string
	for _, r := range v.Tables[0].Rows {
		order = append(order, r.Cells[0].Text+"/"+r.Tone)
	}
	if got := strings.Join(order, " "); got != "web/bad db/warn old/ quiet/" {
		t.Errorf("rows %s", got)
	}
}

// TestPageHostile: no text of a container's is markup, turns the direction of the
// page, or makes it long.
func TestPageHostile(t *testing.T) {
	for _, evil := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='x`, "javascript:alert(1)", "{{.}}", "</td></table><h1>",
		"\x00\x1b[2J\r\n\x7f\u009b", "\u202e\u2066\u200f", "a\xffb", strings.Repeat("<x>", 64<<10/3), "-->", "]]>",
	} {
		at := time.Now()
		o := Overview{
			Build: Build{evil, evil, evil},
			Health: Health{
				Status: Status(evil), Problems: []Problem{{evil, evil}},
				Monitors: map[string]any{"file_monitor": object(t, "state", evil, "error", evil, evil, evil), evil: evil},
				Docker:   map[string]any{"not_captured": map[string]int{evil: 1}},
				Sinks:    map[string]any{"loki": object(t, "state", evil, "last_error", evil)},
				Spool:    map[string]any{"state": evil, "max_bytes": 1},
			},
			Containers: []ContainerStatus{{Container: Container{
				ID: evil, Name: evil, Image: evil, Driver: evil, Method: evil, Reason: evil, State: evil, LastError: evil, LastErrorAt: &at, Errors: 1,
			}}},
		}
		var h History
		h.Observe(at, o.Health.Problems)
		o.Events = h.Events()
		want := elements(t, overviewOf(Overview{
			Health: Health{
				Status: "x", Problems: []Problem{{"x", "x"}}, Monitors: map[string]any{"file_monitor": object(t, "state", "x", "error", "x", "x", "x")},
				Docker: map[string]any{"not_captured": map[string]int{"x": 1}},
				Sinks:  map[string]any{"loki": object(t, "state", "x", "last_error", "x")}, Spool: map[string]any{"state": "x", "max_bytes": 1},
			},
			Containers: []ContainerStatus{{Container: Container{ID: "x", Name: "x", Image: "x", Driver: "x", Method: "x", Reason: "x", State: "x", LastError: "x", LastErrorAt: &at, Errors: 1}}},
			Events:     []Event{{Problem{"x", "x"}, troubleshooting, at, nil, 1}},
		}))
		if got := elements(t, overviewOf(o)); got != want {
			t.Errorf("%.40q: the page has other elements:\n%s\n%s", evil, got, want)
		}
		for _, path := range []string{"/", pagePath} {
			w := askFor(overviewOf(o), "GET", path, browserAccepts)
			if w.Code != 200 || w.Body.Len() > 64<<10 {
				t.Errorf("%.40q: %s: got %d, %d bytes", evil, path, w.Code, w.Body.Len())
			}
			if i := strings.IndexFunc(w.Body.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%.40q: %s has %q", evil, path, w.Body.String()[i:i+8])
			}
		}
	}
}

// object is a JSON object with these names and values, in this order.
func object(t *testing.T, words ...string) json.RawMessage {
	t.Helper()
	out := []byte("{")
	for i, word := range words {
		text, err := json.Marshal(word)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, text...), ":,"[i%2])
	}
	out[len(out)-1] = '}'
	return out
}

// elements gives the tags of the page with the names of their attributes, in order.
func elements(t *testing.T, o Options) string {
	t.Helper()
	w := askFor(o, "GET", "/", browserAccepts)
	if w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	var out []string
	for _, m := range regexp.MustCompile(`<(/?[a-zA-Z][a-zA-Z0-9]*)((?:\s+[a-zA-Z-]+(?:="[^"]*")?)*)\s*>`).FindAllStringSubmatch(w.Body.String(), -1) {
		out = append(out, m[1]+regexp.MustCompile(`="[^"]*"`).ReplaceAllString(m[2], ""))
	}
	if n := strings.Count(w.Body.String(), "<"); n != len(out)+1 { // and the doctype
		t.Errorf("%d of %d angles are tags", len(out), n-1)
	}
	return strings.Join(out, " ")
}

func TestPageThatCannotBeShown(t *testing.T) {
	for _, o := range []Overview{{Health: Health{Docker: math.NaN()}}, {Positions: "text"}} {
		for _, path := range []string{"/", pagePath} {
			if w := askFor(overviewOf(o), "GET", path, browserAccepts); w.Code != 500 || !strings.Contains(w.Body.String(), "report this as a mistake") {
				t.Errorf("%s: got %d %s", path, w.Code, w.Body)
			}
		}
	}
}

// TestAssets: what never changes under its name is asked for once.
func TestAssets(t *testing.T) {
	u := mustUI()
	if len(u.assets) != 3 {
		t.Fatalf("%d assets", len(u.assets))
	}
	url, _ := start(t, overviewOf(Overview{}))
	c := client(t)
	for _, a := range u.assets {
		code, body, h := get(t, c, "GET", url+a.path)
		if code != 200 || body != string(a.data) || h.Get("Content-Type") != a.contentType || h.Get("Etag") != a.etag ||
			!strings.Contains(h.Get("Cache-Control"), "immutable") || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %d, %v", a.path, code, h)
		}
		code, body, h = get(t, c, "HEAD", url+a.path)
		if code != 200 || body != "" || h.Get("Content-Length") != fmt.Sprint(len(a.data)) {
			t.Errorf("HEAD %s: got %d, %q, %v", a.path, code, body, h)
		}
		if code, _, _ := get(t, c, "POST", url+a.path); code != 405 {
			t.Errorf("POST %s: got %d", a.path, code)
		}
		r := askWith(t, url+a.path, "If-None-Match", a.etag)
		if r != 304 {
			t.Errorf("%s, known already: got %d", a.path, r)
		}
		if r := askWith(t, url+a.path, "If-None-Match", `"other"`); r != 200 {
			t.Errorf("%s, another known: got %d", a.path, r)
		}
	}
	for _, path := range []string{"/ui/", "/ui/page.js", "/ui/page.html", "/ui/../server.go", "/ui/page.xyz.js"} {
		if w := askFor(overviewOf(Overview{}), "GET", path, ""); w.Code != 404 && w.Code != 307 && w.Code != 301 {
			t.Errorf("%s: got %d", path, w.Code)
		}
	}
	// What changes is never taken from a cache.
	if r := askWith(t, url+pagePath, "If-None-Match", "*"); r != 200 {
		t.Errorf("the feed: got %d", r)
	}
}

// BenchmarkPage is what the page of a thousand containers costs.
func BenchmarkPage(b *testing.B) {
	o := someOverview()
	for i := range 1000 {
		c := o.Containers[0]
		c.ID, c.Name = fmt.Sprintf("%064d", i), fmt.Sprintf("service-%04d", i)
		c.BytesLost, c.Gaps = 0, 0
		o.Containers = append(o.Containers, c)
	}
	for _, path := range []string{"/", pagePath, StatusPath} {
		b.Run(path, func(b *testing.B) {
			h := handler(overviewOf(o))
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Accept", "text/html")
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				b.SetBytes(int64(w.Body.Len()))
			}
		})
	}
}

// TestPageIsShared: however many ask, a page is made once within pageFor, and not
// given up with who asked first.
func TestPageIsShared(t *testing.T) {
	for _, path := range []string{"/", pagePath} {
		synctest.Test(t, func(t *testing.T) {
			made := 0
			release := make(chan struct{})
			o := options()
			o.Overview = func(ctx context.Context) Overview {
				if _, ok := ctx.Deadline(); !ok {
					t.Error("the context has no deadline")
				}
				made++
				<-release
				if ctx.Err() != nil {
					t.Error("given up with the first request")
				}
				return Overview{Time: time.Now()}
			}
			h := handler(o)
			first, leave := context.WithCancel(t.Context())
			ask := func(ctx context.Context) string {
				r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
				r.Header.Set("Accept", "text/html")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != 200 {
					t.Errorf("%s: got %d", path, w.Code)
				}
				return w.Body.String()
			}
			bodies := make(chan string, maxConnections)
			go func() { bodies <- ask(first) }()
			synctest.Wait()
			for range maxConnections - 1 {
				go func() { bodies <- ask(t.Context()) }()
			}
			leave()
			close(release)
			one := <-bodies
			for range maxConnections - 1 {
				if b := <-bodies; b != one {
					t.Error("another page")
				}
			}
			if made != 1 {
				t.Errorf("made %d times", made)
			}
			time.Sleep(pageFor)
			if ask(t.Context()) == one || made != 2 {
				t.Errorf("an old page is shown, made %d times", made)
			}
		})
	}
}
