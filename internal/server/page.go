package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// The status page is rendered here, for browsers with and without JavaScript.
// Its script only asks for the same words again (pagePath) and puts them where
// they have changed: how a thing is called and counted is decided in Go alone.

// pagePath is where the script of the page asks. It is no part of the API.
const pagePath = "/ui/page.json"

const htmlType = "text/html; charset=utf-8"

// Limits of what is shown of a text, in runes; the API has all of it.
const (
	maxWord   = 16
	maxName   = 128
	maxDetail = 400
)

// The tones of what is shown: how it is to look.
const (
	toneOK    = "ok"
	toneWarn  = "warn"
	toneBad   = "bad"
	toneMuted = "muted"
)

// pageView is the page in words.
type pageView struct {
	Assets   string        `json:"assets"` // another one here: the page is an old one's
	Tone     string        `json:"tone"`
	Verdict  string        `json:"verdict"`
	Figures  string        `json:"figures"`
	Time     string        `json:"time"`
	Problems []problemView `json:"problems"`
	Tiles    []tile        `json:"tiles"`
	Facts    []factList    `json:"facts"`
	Tables   []table       `json:"tables"`
}

type problemView struct {
	What   string `json:"what"`
	Remedy string `json:"remedy"`
	See    string `json:"see"`
}

// tile is one figure that is to be seen at a glance.
type tile struct {
	Label string `json:"label"`
	Value string `json:"value"`
	Note  string `json:"note"`
	Tone  string `json:"tone"`
	// Full is how full a thing is, of 100; nil for what cannot be.
	Full *int `json:"full,omitempty"`
}

// factList is a part of the agent in its own words.
type factList struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Facts []fact `json:"facts"`
}

type table struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Empty   string   `json:"empty"` // said when there are no rows
	Columns []column `json:"columns"`
	Rows    []row    `json:"rows"`
}

type column struct {
	Name string `json:"name"`
	// Number columns are sorted by Cell.Key, the largest first, others by text.
	Number bool `json:"number,omitempty"`
}

// Heads reports whether the cells of the i-th column name their rows.
func (t table) Heads(i int) bool { return i == 0 }

// row is one row. Its words are short because there may be a thousand.
type row struct {
	ID     string `json:"id"`
	Tone   string `json:"tone,omitempty"`
	Method string `json:"m,omitempty"`
	Cells  []cell `json:"c"`
}

type cell struct {
	Text string  `json:"t"`
	Note string  `json:"n,omitempty"`
	Tone string  `json:"o,omitempty"`
	Key  float64 `json:"k,omitempty"`
	Link string  `json:"l,omitempty"`
}

// viewPage puts a status into words.
func viewPage(o Overview) (pageView, error) {
	s := summarize(o)
	v := pageView{
		Tone: toneOf(string(s.Status)), Verdict: verdict(o.Health), Figures: figures(s.Totals), Time: clock(s.Time),
		Problems: []problemView{},
	}
	for _, p := range o.Health.Problems {
		_, see := kindOf(p.What)
		v.Problems = append(v.Problems, problemView{visible(p.What, maxEventText), visible(p.Remedy, maxEventText), see})
	}
	parts := []struct {
		id, title string
		part      any
	}{
		{"files", "Log files", s.Monitors["file_monitor"]},
		{"streams", "Streams", s.Monitors["streaming"]},
		{"docker", "Docker", s.Docker},
		{"sink-loki", "Store: Loki", s.Sinks["loki"]},
		{"sink-stdout", "Store: standard output", s.Sinks["stdout"]},
		{"spool", "Spool", s.Spool},
		{"positions", "Positions", s.Positions},
	}
	named := map[string]factList{}
	for _, p := range parts {
		if p.part == nil {
			continue
		}
		facts, err := factsOf(p.part, s.Time)
		if err != nil {
			return pageView{}, fmt.Errorf("%s: %w", p.title, err)
		}
		named[p.id] = factList{p.id, p.title, facts}
		v.Facts = append(v.Facts, named[p.id])
	}
	v.Facts = append(v.Facts, factList{"agent", "Agent", []fact{
		{"version", "Version", visible(s.Build.Version, maxName), "", ""},
		{"revision", "Revision", visible(s.Build.Revision, maxName), "", ""},
		{"go", "Built with", visible(s.Build.GoVersion, maxName), "", ""},
		{"started", "Started or reloaded", clock(s.Started), "", ""},
		{"uptime", "Running for", span(s.UptimeSeconds), "", ""},
	}})
	v.Tiles = tilesOf(s, named)
	v.Tables = []table{containersTable(s.Containers), routingTable(s.Routing), eventsTable(s.Problems, s.Time)}
	return v, nil
}

func toneOf(state string) string {
	switch Status(state) {
	case StatusOK:
		return toneOK
	case StatusDegraded:
		return toneWarn
	default:
		return toneBad
	}
}

func tilesOf(s AgentStatus, parts map[string]factList) []tile {
	t := s.Totals
	rate := tile{Label: "Delivered", Value: perSecond(t.DeliveredPerSecond) + " lines/s", Note: "read: " + perSecond(t.ReadPerSecond) + " lines/s"}
	lag := tile{Label: "Lag", Value: span(t.LagSeconds), Note: size(t.UnreadBytes) + " unread in files"}
	if t.LagSeconds > lateSeconds {
		lag.Tone = toneWarn
	}
	counts := map[string]int64{}
	for _, r := range s.Routing {
		counts[r.Method] += int64(r.Containers)
	}
	containers := tile{Label: "Containers", Value: count(int64(t.Captured)), Note: fmt.Sprintf("%s from files, %s streamed, %s not captured",
		count(counts[MethodFileMonitor]), count(counts[MethodStreaming]), count(counts[MethodNone]))}
	lost := tile{Label: "Lost", Value: "nothing", Note: "since the start or reload"}
	if text, _ := lostOf(t.BytesLost, t.Gaps); text != "" {
		lost.Value, lost.Tone = text, toneBad
	}
	tiles := []tile{rate, lag, containers, lost}
	for _, id := range []string{"sink-loki", "sink-stdout"} {
		p, ok := parts[id]
		if !ok {
			continue
		}
		state := find(p.Facts, "state")
		store := tile{Label: strings.TrimPrefix(p.Title, "Store: "), Value: state.Value, Tone: state.Tone}
		if store.Tone == toneOK {
			store.Tone = ""
		}
		if at := find(p.Facts, "last_success"); at.Value != "" {
			store.Note = "last took lines " + at.ago
		}
		if at := find(p.Facts, "failing_since"); at.Value != "" {
			store.Note = "began to fail " + at.ago
		}
		tiles = append(tiles, store)
	}
	if p, ok := parts["spool"]; ok {
		tiles = append(tiles, spoolTile(p, s.Spool))
	}
	return tiles
}

// lateSeconds is from when on a lag is worth a colour.
const lateSeconds = 30

func spoolTile(p factList, spool any) tile {
	state := find(p.Facts, "state")
	t := tile{Label: "Spool", Value: state.Value, Tone: state.Tone}
	t.Note = find(p.Facts, "bytes").Value + " of " + find(p.Facts, "max_bytes").Value
	if left := find(p.Facts, "time_left_seconds"); left.Value != "" {
		t.Note += ", room for " + left.Value
	}
	if find(p.Facts, "error").Value != "" {
		t.Tone = toneBad
	}
	var bytes struct {
		DiskBytes float64 `json:"disk_bytes"`
		MaxBytes  float64 `json:"max_bytes"`
	}
	// It has been encoded a moment ago.
	if data, err := json.Marshal(spool); err == nil && json.Unmarshal(data, &bytes) == nil && bytes.MaxBytes > 0 {
		full := int(100 * min(max(bytes.DiskBytes/bytes.MaxBytes, 0), 1))
		t.Full = &full
	}
	return t
}

// lostOf says what is lost, and gives a number to sort by; "": nothing is.
func lostOf(bytes, gaps int64) (text string, key float64) {
	var parts []string
	if bytes > 0 {
		parts = append(parts, size(bytes))
	}
	if gaps > 0 {
		parts = append(parts, plural(gaps, "gap", "gaps"))
	}
	return strings.Join(parts, ", "), float64(bytes) + float64(gaps)
}

func containersTable(all []ContainerStatus) table {
	t := table{
		ID: "containers", Title: "Containers", Empty: "The engine has no container.",
		Columns: []column{{"Name", false}, {"Route", false}, {"State", false}, {"Lag", true}, {"Lines/s", true}, {"Delivered", true}, {"Lost", true}, {"Errors", true}},
		Rows:    make([]row, len(all)),
	}
	for i := range all {
		t.Rows[i] = containerRow(&all[i])
	}
	// What wants attention comes first; the rest stays sorted by name.
	rank := map[string]int{toneBad: -2, toneWarn: -1}
	slices.SortStableFunc(t.Rows, func(a, b row) int { return rank[a.Tone] - rank[b.Tone] })
	return t
}

// methodCell says by which method a log is read.
func methodCell(method string) cell {
	switch method {
	case MethodFileMonitor:
		return cell{Text: "file", Tone: "file"}
	case MethodStreaming:
		return cell{Text: "streaming", Tone: "stream"}
	case MethodNone:
		return cell{Text: "not captured", Tone: toneMuted}
	}
	return cell{Text: visible(method, maxName)}
}

func containerRow(c *ContainerStatus) row {
	id, name := visible(c.ID, maxName), visible(c.Name, maxName)
	if name == "" {
		name = id
	}
	route := methodCell(c.Method)
	route.Note = visible(c.Reason, maxDetail)
	state := cell{Text: visible(c.State, maxWord)}
	if c.State != StateRunning {
		state.Tone = toneMuted
	}
	lag := cell{Text: span(c.LagSeconds), Key: c.LagSeconds}
	if c.UnreadBytes != nil && *c.UnreadBytes > 0 {
		lag.Note = size(*c.UnreadBytes) + " unread"
	}
	rate := cell{Text: perSecond(c.DeliveredPerSecond), Key: c.DeliveredPerSecond}
	delivered := cell{Text: count(c.LinesDelivered), Key: float64(c.LinesDelivered)}
	var notes []string
	if c.LinesDeadLettered > 0 {
		notes = append(notes, plural(c.LinesDeadLettered, "dead letter", "dead letters"))
	}
	if c.LinesMalformed > 0 {
		notes = append(notes, count(c.LinesMalformed)+" malformed")
	}
	delivered.Note = strings.Join(notes, ", ")
	lost := cell{Text: "0", Tone: toneMuted}
	errs := cell{Text: count(c.Errors), Key: float64(c.Errors), Note: visible(c.LastError, maxDetail)}
	if c.Errors == 0 {
		errs.Tone = toneMuted
	}
	if c.LastErrorAt != nil && errs.Note != "" {
		errs.Note = clock(*c.LastErrorAt) + ": " + errs.Note
	}
	r := row{ID: id, Method: visible(c.Method, maxWord)}
	if c.Method == MethodNone {
		lag.Text, rate.Text = "-", "-"
	} else if c.LagSeconds > lateSeconds {
		lag.Tone, r.Tone = toneWarn, toneWarn
	}
	if c.LastError != "" {
		errs.Tone, r.Tone = toneWarn, toneWarn
	}
	if text, key := lostOf(c.BytesLost, c.Gaps); text != "" {
		lost = cell{Text: text, Tone: toneBad, Key: key}
		if c.GapAfter != nil && c.GapBefore != nil {
			lost.Note = "the latest gap: " + clock(*c.GapAfter) + " to " + clock(*c.GapBefore)
		}
		r.Tone = toneBad
	}
	r.Cells = []cell{{Text: name, Note: visible(c.Image, maxName)}, route, state, lag, rate, delivered, lost, errs}
	return r
}

func routingTable(all []Routing) table {
	t := table{
		ID: "routing", Title: "Routing by log driver", Empty: "There is no container yet.",
		Columns: []column{{"Driver", false}, {"Method", false}, {"Containers", true}, {"Lines/s", true}}, Rows: []row{},
	}
	for _, r := range all {
		driver, method := visible(r.Driver, maxName), methodCell(r.Method)
		t.Rows = append(t.Rows, row{ID: driver + " " + method.Text, Cells: []cell{
			{Text: driver},
			method,
			{Text: count(int64(r.Containers)), Key: float64(r.Containers)},
			{Text: perSecond(r.DeliveredPerSecond), Key: r.DeliveredPerSecond},
		}})
	}
	return t
}

func eventsTable(events []Event, now time.Time) table {
	t := table{
		ID: "events", Title: "Latest problems", Empty: "There has been no problem since the start or reload.",
		Columns: []column{{"Problem", false}, {"When", true}, {"What to do", false}}, Rows: []row{},
	}
	for _, e := range events {
		when := cell{Text: "since " + clock(e.Since), Tone: toneBad, Key: float64(e.Since.Unix())}
		if e.Until != nil {
			when.Text, when.Note, when.Tone = clock(e.Since), "over after "+span(e.Until.Sub(e.Since).Seconds()), toneMuted
		} else {
			when.Note = "for " + span(now.Sub(e.Since).Seconds())
		}
		if e.Times > 1 {
			when.Note += fmt.Sprintf(", %d times", e.Times)
		}
		t.Rows = append(t.Rows, row{ID: clock(e.Since) + " " + e.What, Cells: []cell{{Text: e.What}, when, {Text: e.Remedy, Link: e.See}}})
	}
	return t
}

//go:embed ui
var uiFiles embed.FS

// asset is a file of the page, under a name that changes with what is in it.
type asset struct {
	name, path, etag, contentType string
	data                          []byte
}

// ui is everything that the page needs beside the agent's words.
type ui struct {
	page   *template.Template
	assets map[string]asset // by name without the extension
	all    string           // changes when any part changes
}

// mustUI makes the page out of the program's own files: a fault in them is a
// mistake that every test of the page finds.
func mustUI() *ui {
	u, err := newUI()
	if err != nil {
		panic(err)
	}
	return u
}

func newUI() (*ui, error) {
	u := &ui{assets: map[string]asset{}}
	sum := sha256.New()
	for name, contentType := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		data, err := uiFiles.ReadFile("ui/" + name)
		if err != nil {
			return nil, err
		}
		hash := sha256.Sum256(data)
		short := base64.RawURLEncoding.EncodeToString(hash[:9])
		ext := path.Ext(name)
		base := strings.TrimSuffix(name, ext)
		key := strings.TrimPrefix(ext, ".")
		u.assets[key] = asset{name, "/ui/" + base + "." + short + ext, `"` + short + `"`, contentType, data}
	}
	source, err := uiFiles.ReadFile("ui/page.html")
	if err != nil {
		return nil, err
	}
	for _, part := range [][]byte{u.assets["css"].data, u.assets["js"].data, u.assets["svg"].data, source} {
		sum.Write(part)
	}
	u.all = base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:9])
	u.page, err = template.New("page").Parse(string(source))
	return u, err
}

// register adds the page and its files.
func (u *ui) register(mux *http.ServeMux, overview func(context.Context) Overview) {
	for _, a := range u.assets {
		mux.HandleFunc("GET "+a.path, a.serve)
	}
	shown := u.handler(overview, false)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			reply(w, http.StatusOK, textType, []byte(index))
			return
		}
		shown.ServeHTTP(w, r)
	})
	mux.Handle("GET "+pagePath, u.handler(overview, true))
}

// serve gives a file that never changes under its name.
func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Etag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.data))
}

// policy lets the page load its own script, style and icon, ask its own server,
// and nothing else: markup that got into it in spite of all could do nothing.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageFor is for how long a page that was made is shown to whoever asks next: many
// who look at it cost the agent no more than one does.
const pageFor = time.Second

// madePage is a page as it is sent, or why there is none.
type madePage struct {
	body []byte
	err  error
}

// handler gives the page, or what its script asks for.
func (u *ui) handler(overview func(context.Context) Overview, feed bool) http.HandlerFunc {
	contentType := htmlType
	if feed {
		contentType = jsonType
	}
	var (
		mu   sync.Mutex // held while a page is made: the others wait for it
		last madePage
		at   time.Time // when last was made
	)
	recent := func(ctx context.Context) madePage {
		mu.Lock()
		defer mu.Unlock()
		if at.IsZero() || time.Since(at) >= pageFor {
			// Not only for who asks first, who may go away.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
			defer cancel()
			last, at = u.render(ctx, overview, feed), time.Now()
		}
		return last
	}
	return func(w http.ResponseWriter, r *http.Request) {
		p := recent(r.Context())
		if p.err != nil {
			reply(w, http.StatusInternalServerError, textType,
				fmt.Appendf(nil, "the page cannot be shown: %v: report this as a mistake in log_capturer; /health and /metrics are not affected\n", p.err))
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		reply(w, http.StatusOK, contentType, p.body)
	}
}

// render makes the page, or what its script asks for.
func (u *ui) render(ctx context.Context, overview func(context.Context) Overview, feed bool) madePage {
	view, err := viewPage(overview(ctx))
	if err != nil {
		return madePage{err: err}
	}
	view.Assets = u.all
	var b bytes.Buffer
	if feed {
		err = json.NewEncoder(&b).Encode(view)
	} else {
		err = u.page.Execute(&b, struct {
			pageView
			Script, Style, Icon string
		}{view, u.assets["js"].path, u.assets["css"].path, u.assets["svg"].path})
	}
	return madePage{b.Bytes(), err}
}
