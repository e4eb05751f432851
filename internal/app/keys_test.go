package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/internal/server"
	"github.com/log-capturer/log_capturer/internal/testbuffer"
)

// keys are keys with their values: "a.b": 1.
type keys map[string]any

// keyCase is what is to be seen of one key or of some that go together.
type keyCase struct {
	set keys // what is to have an effect; a value may be a func(*keyWorld) any
	// with is set before, too. Without it, and set, the agent has its defaults, but for
	// where its data_dir, engine and store are.
	with keys
	// anew: what is set counts at a first start, and is tried at one, with a data_dir of
	// its own.
	anew  bool
	store lokitest.Options
	// write, unless nil, does what else there is to be done at the store and in the
	// logs, before the line that is always written.
	write func(*keyWorld)
	// see looks at the agent. It is called until it gives what is wanted: before, with
	// the defaults (empty: nothing is to be seen), and after the reload with what is set.
	see           func(*keyWorld) string
	before, after string
}

// keyWorld is an agent with its surroundings.
type keyWorld struct {
	*testing.T
	keyCase
	engine, other *playedEngine
	loki          *lokitest.Server
	phase         int // 1: with the defaults, 2: with what is set
	addr          string
	dataDir       string
	requests      int      // there were when the phase began
	texts         []string // the store had then
	streamed      int      // lines so far, by latency
	reload        chan struct{}
	listening     chan string
	done          chan error // of the agent, once it has ended
	out, log      testbuffer.Buffer
}

// TestKeys: each key of the configuration file has its effect in an agent that is put
// together as it always is, and gets it by a reload; before, the agent does what the
// default says.
func TestKeys(t *testing.T) {
	cases := keyCases(t)
	tested := make(map[string]bool)
	for _, c := range cases {
		for key := range c.set {
			tested[key] = true
		}
	}
	for _, key := range allKeys("", testConfig(t, "/d", "http://loki").Effective()) {
		if !tested[key] {
			t.Errorf("%s: no test that it has an effect in the agent", key)
		}
		delete(tested, key)
	}
	for key := range tested {
		t.Errorf("%s: tested, but no such key", key)
	}
	for _, c := range cases {
		names := slices.Sorted(maps.Keys(c.set))
		t.Run(strings.Join(names, "+"), func(t *testing.T) {
			t.Parallel()
			if c.before == c.after && names[0] != "monitors.container.file_based_monitoring.log_drivers" { // there is only one
				t.Fatal("nothing changes")
			}
			c.run(t)
		})
	}
}

// allKeys gives the keys of a configuration as it is shown.
func allKeys(prefix string, section map[string]any) (all []string) {
	for name, v := range section {
		if inner, ok := v.(map[string]any); ok && len(inner) > 0 {
			all = append(all, allKeys(prefix+name+".", inner)...)
		} else {
			all = append(all, prefix+name)
		}
	}
	return all
}

func (c keyCase) run(t *testing.T) {
	w := &keyWorld{
		T: t, keyCase: c, phase: 1, dataDir: t.TempDir(),
		reload: make(chan struct{}), listening: make(chan string, 1), done: make(chan error, 1),
	}
	containers := []played{{name: "web", labels: map[string]string{"team": "pay"}}, {name: "db", driver: "local"}}
	w.engine, w.other = playEngine(t, "engine", containers...), playEngine(t, "other", containers...)
	w.loki = lokitest.New(c.store)
	defer w.loki.Close()

	file := filepath.Join(t.TempDir(), "config.yaml")
	w.writeConfig(file, c.with)
	load := func() (*config.Config, error) {
		return config.Load(file, func(string) (string, bool) { return "", false })
	}
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.done <- Run(ctx, Options{
			Config: cfg, Load: load, Reload: w.reload, Out: &w.out,
			NewLogger: func(c *config.Config) *slog.Logger {
				return slog.New(slog.NewTextHandler(&w.log, nil)).With("made", c.Log.Level.String()+"/"+c.Log.Format)
			},
			Listening: func(addr string) { w.listening <- addr },
		})
	}()
	defer func() {
		w.loki.Always(nil)
		cancel()
		if err := <-w.done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(w.log.String())
		}
	}()

	w.begins()
	w.look(c.before)
	w.phase = 2
	if c.anew {
		w.dataDir = t.TempDir()
	}
	all := maps.Clone(c.set)
	maps.Copy(all, c.with)
	w.writeConfig(file, all)
	w.requests, w.texts = len(w.loki.Requests()), w.loki.Texts()
	w.reload <- struct{}{}
	w.begins()
	w.look(c.after)
}

// begins waits until the agent serves.
func (w *keyWorld) begins() {
	w.Helper()
	select {
	case w.addr = <-w.listening:
	case err := <-w.done:
		w.done <- nil
		w.Fatal("the agent has ended: ", err)
	}
}

// look writes a line and looks until it sees what is wanted.
func (w *keyWorld) look(want string) {
	w.Helper()
	if w.write != nil {
		w.write(w)
	}
	for _, e := range []*playedEngine{w.engine, w.other} {
		e.write(w, 0, entryText(w.hello(e), time.Now()))
	}
	if want == "" {
		return
	}
	var got string
	if !eventually(func() bool { got = w.see(w); return got == want }) {
		w.Errorf("phase %d: got %q, want %q", w.phase, got, want)
	}
}

// eventually waits until something holds, and reports whether it does in time.
func eventually(ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(8 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// hello is the line that is always written, to the log of the container of an engine.
func (w *keyWorld) hello(e *playedEngine) string {
	return fmt.Sprintf("hello %d of %s", w.phase, e.name)
}

// writeConfig writes a configuration file with these keys.
func (w *keyWorld) writeConfig(file string, set keys) {
	w.Helper()
	all := keys{
		"data_dir": w.dataDir, "server.port": 0, "docker.host": w.engine.host,
		"sinks.loki.url": strings.TrimSuffix(w.loki.URL, "/loki/api/v1/push"),
	}
	maps.Copy(all, set)
	root := make(map[string]any)
	for key, v := range all {
		if of, ok := v.(func(*keyWorld) any); ok {
			v = of(w)
		}
		path := strings.Split(key, ".")
		section := root
		for _, name := range path[:len(path)-1] {
			inner, ok := section[name].(map[string]any)
			if !ok {
				inner = make(map[string]any)
				section[name] = inner
			}
			section = inner
		}
		section[path[len(path)-1]] = v
	}
	text, err := yaml.Marshal(root)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// line gives the line of this phase as the store has it.
func (w *keyWorld) line() (l lokitest.Line, ok bool) {
	for _, l := range w.loki.Lines() {
		if l.Text == w.hello(w.engine) || l.Text == w.hello(w.other) {
			return l, true
		}
	}
	return l, false
}

// times gives how often the store has got a text in this phase, once it has got its line.
func times(text string) func(w *keyWorld) string {
	return func(w *keyWorld) string {
		if _, ok := w.line(); !ok {
			return ""
		}
		return strconv.Itoa(count(w.loki.Texts(), text) - count(w.texts, text))
	}
}

func count(texts []string, text string) (n int) {
	for _, t := range texts {
		if t == text {
			n++
		}
	}
	return n
}

// label gives a label of the line of this phase.
func label(name string) func(w *keyWorld) string {
	return func(w *keyWorld) string {
		l, ok := w.line()
		if !ok {
			return ""
		}
		labels, err := lokitest.ParseLabels(l.Stream)
		if err != nil {
			w.Fatal(err)
		}
		return name + "=" + labels[name]
	}
}

// accepted tells whether the store takes the lines of this phase, or what /health says
// of that, as far as it is one of these texts.
func accepted(refusals ...string) func(w *keyWorld) string {
	return func(w *keyWorld) string {
		if _, ok := w.line(); ok {
			return "accepted"
		}
		said := fmt.Sprint(w.health("sinks", "loki", "last_error"))
		for _, r := range refusals {
			if strings.Contains(said, r) {
				return r
			}
		}
		return said
	}
}

// request gives what is said of the last request of this phase.
func request(of func(lokitest.Request) string) func(w *keyWorld) string {
	return func(w *keyWorld) string {
		if _, ok := w.line(); !ok {
			return ""
		}
		all := w.loki.Requests()[w.requests:]
		return of(all[len(all)-1])
	}
}

// health gives something of /health, nil if it is not there.
func (w *keyWorld) health(path ...string) (v any) {
	_, body := get(w, w.addr, "/health")
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		w.Fatal(err)
	}
	for _, p := range path {
		section, _ := v.(map[string]any)
		v = section[p]
	}
	return v
}

// ofHealth gives something of /health as text.
func ofHealth(path ...string) func(*keyWorld) string {
	return func(w *keyWorld) string { return fmt.Sprint(w.health(path...)) }
}

// methods gives how each container is captured, once that is known.
func methods(w *keyWorld) string {
	if code, _ := get(w, w.addr, "/readyz"); code != http.StatusOK {
		return "not ready"
	}
	var all struct{ Containers []server.Container }
	_, body := get(w, w.addr, server.ContainersPath)
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, c := range all.Containers {
		out = append(out, c.Name+":"+c.Method)
	}
	if out == nil {
		return "nothing"
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// code gives the status of an answer to somebody elsewhere, who has a token.
func code(path string, header http.Header) func(*keyWorld) string {
	return func(w *keyWorld) string {
		code, _ := ask(w, w.addr, "GET", path, header)
		return strconv.Itoa(code)
	}
}

// writeLine writes a line to the log of the engine's first container.
func (w *keyWorld) writeLine(text string) { w.engine.write(w, 0, entryText(text, time.Now())) }

// latency is how long a streamed line takes that comes just after another has left. Those
// of files are read at a pace of their own.
func latency(w *keyWorld) string {
	var took time.Duration
	for i := range 2 {
		w.streamed++
		text, began := fmt.Sprintf("quick %d?", w.streamed), time.Now()
		say := w.engine.say.Load()
		if say == nil || w.health("monitors", "streaming", "following") != 1.0 {
			return "not followed"
		}
		select {
		case *say <- text:
		case <-time.After(time.Second): // that was the connection of the agent before
			return "not followed"
		}
		if !eventually(func() bool { return slices.Contains(w.loki.Texts(), text) }) {
			return "not at all"
		}
		if i == 1 {
			took = time.Since(began)
		}
	}
	if took < time.Second {
		return "under 1 s"
	}
	return "over 1 s"
}

// stop tells how long the agent takes to begin anew while the store hangs.
func stop(w *keyWorld) string {
	reached := make(chan struct{})
	w.loki.Next(lokitest.Fault{Hang: true, Reached: reached})
	w.loki.Always(&lokitest.Fault{Hang: true})
	w.writeLine("held")
	<-reached
	began := time.Now()
	w.reload <- struct{}{}
	w.begins()
	w.loki.Always(nil)
	if time.Since(began) > 4*time.Second {
		return "over 4 s"
	}
	return "at once"
}

// freePort is one that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// tooMuchFree is more than there is free where tests have their directories.
func tooMuchFree(t *testing.T) string {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &fs); err != nil {
		t.Fatal(err)
	}
	gib := fs.Bavail*uint64(fs.Bsize)>>30 + 1
	if gib > 1024 {
		t.Skip("spool.min_free_bytes: more is free than can be set")
	}
	return fmt.Sprintf("%dGiB", gib)
}

// identity makes a certificate of its own authority, for store.test, and the files of it.
func identity(t *testing.T) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"store.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile = secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile = secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var shippingBegins = regexp.MustCompile(`msg="shipping begins" made=(\S+)`)

// keyCases are the keys, in the order of the reference.
func keyCases(t *testing.T) []keyCase {
	t.Helper()
	const monitor = "monitors.container."
	const captured = "db:streaming web:file_monitor"
	const loki = "sinks.loki."
	port := freePort(t)
	const token = "0123456789abcdef"
	tokenFile := secretFile(t, token+"\n")
	elsewhere := http.Header{"X-Forwarded-For": {"192.0.2.1"}, "Authorization": {"Bearer " + token}}
	pair, certFile, keyFile := identity(t)
	secured := lokitest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}}}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	mutual := lokitest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}}
	dataDir := t.TempDir()

	cases := []keyCase{
		{set: keys{"host": "box"}, see: label("host"), before: "host=engine", after: "host=box"},
		{
			set: keys{"data_dir": dataDir},
			see: func(w *keyWorld) string {
				entries, err := os.ReadDir(dataDir)
				if err != nil {
					w.Fatal(err)
				}
				var names []string
				for _, e := range entries {
					names = append(names, e.Name())
				}
				return fmt.Sprint(names)
			},
			before: "[]", after: "[dead_letters lock positions.journal spool]",
		},
		{
			set: keys{"shutdown_grace": 0}, with: keys{"spool.max_bytes": 0},
			see: stop, before: "over 4 s", after: "at once",
		},
		{
			set:    keys{"server.host": "127.0.0.2"},
			see:    func(w *keyWorld) string { host, _, _ := net.SplitHostPort(w.addr); return host },
			before: "127.0.0.1", after: "127.0.0.2",
		},
		{
			set:   keys{"server.port": port},
			see:   func(w *keyWorld) string { _, port, _ := net.SplitHostPort(w.addr); return port },
			after: strconv.Itoa(port),
		},
		{set: keys{"server.token_file": tokenFile}, see: code(server.ConfigPath, elsewhere), before: "403", after: "200"},
		{set: keys{"server.pprof": true}, see: code("/debug/pprof/", nil), before: "404", after: "200"},
		{
			set: keys{"log.level": "warn", "log.format": "json"},
			see: func(w *keyWorld) string {
				all := shippingBegins.FindAllStringSubmatch(w.log.String(), -1)
				if len(all) < w.phase {
					return ""
				}
				return all[len(all)-1][1]
			},
			before: "INFO/text", after: "WARN/json",
		},
		{
			set: keys{"docker.host": func(w *keyWorld) any { return w.other.host }},
			see: label("host"), before: "host=engine", after: "host=other",
		},
		{
			set: keys{"docker.containers_dir": func(w *keyWorld) any { return w.other.dir() }}, anew: true,
			see:    func(w *keyWorld) string { l, _ := w.line(); return l.Text },
			before: "hello 1 of engine", after: "hello 2 of other",
		},
		{set: keys{monitor + "enabled": false}, see: methods, before: captured, after: "nothing"},
		{set: keys{monitor + "include": "name=w*"}, see: methods, before: captured, after: "db:none web:file_monitor"},
		{set: keys{monitor + "exclude": "name=w*"}, see: methods, before: captured, after: "db:streaming web:none"},
		{set: keys{monitor + "file_based_monitoring.enabled": false}, see: methods, before: captured, after: "db:streaming web:streaming"},
		{set: keys{monitor + "file_based_monitoring.log_drivers": []string{"json-file"}}, see: methods, before: captured, after: captured},
		{set: keys{monitor + "file_based_monitoring.fallback_to_streaming": false}, see: methods, before: captured, after: "db:none web:file_monitor"},
		{set: keys{monitor + "streaming.enabled": false}, see: methods, before: captured, after: "db:none web:file_monitor"},
		{set: keys{monitor + "streaming.max_streams": 7}, see: ofHealth("monitors", "streaming", "max_streams"), before: "50", after: "7"},
		{
			set: keys{monitor + "read_from": "end"}, anew: true,
			see: func(w *keyWorld) string { // how often the first line of all is read in this phase
				again := fmt.Sprintf("again %d", w.phase)
				if texts := w.loki.Texts(); slices.Contains(texts, again) {
					const first = "hello 1 of engine"
					return strconv.Itoa(count(texts, first) - count(w.texts, first))
				}
				w.writeLine(again) // and the next, if this is before what is taken for the end
				return ""
			},
			before: "1", after: "0",
		},
		{
			set: keys{monitor + "ignore_older_than": 0}, anew: true,
			write: func(w *keyWorld) { w.engine.write(w, 0, entryText("old", time.Now().Add(-8*24*time.Hour))) },
			see:   times("old"), before: "0", after: "2",
		},
		{
			set:   keys{monitor + "max_line_bytes": "1KiB"},
			write: func(w *keyWorld) { w.writeLine(strings.Repeat("x", 1500)) },
			see: func(w *keyWorld) string {
				if _, ok := w.line(); !ok {
					return ""
				}
				var pieces []int
				for _, text := range w.loki.Texts() {
					if strings.HasPrefix(text, "xxx") {
						pieces = append(pieces, len(text))
					}
				}
				return fmt.Sprint(pieces)
			},
			before: "[1500]", after: "[1500 1024 476]",
		},
		{set: keys{monitor + "container_labels": []string{"team"}}, see: label("team"), before: "team=", after: "team=pay"},
		{set: keys{"spool.max_bytes": "16MiB"}, see: ofHealth("spool", "max_bytes"), before: "1.073741824e+09", after: "1.6777216e+07"},
		{set: keys{"spool.max_bytes": 0}, see: ofHealth("spool", "state"), before: "empty", after: "<nil>"},
		{
			set: keys{"spool.min_free_bytes": func(w *keyWorld) any { return tooMuchFree(w.T) }}, with: keys{"shutdown_grace": "100ms"},
			write: func(w *keyWorld) { w.loki.Always(&lokitest.Fault{Status: http.StatusServiceUnavailable}) },
			see:   ofHealth("spool", "state"), before: "filling", after: "full",
		},
		{
			set: keys{loki + "url": func(w *keyWorld) any { return w.loki.URL + "?a=b" }},
			see: request(func(r lokitest.Request) string { return "query " + r.Query }), before: "query ", after: "query a=b",
		},
		{set: keys{loki + "tenant_id": "t1"}, store: lokitest.Options{Tenant: "t1"}, see: accepted("401"), before: "401", after: "accepted"},
		{
			set:   keys{loki + "basic_auth.username": "u", loki + "basic_auth.password": "p"},
			store: lokitest.Options{User: "u", Password: "p"}, see: accepted("401"), before: "401", after: "accepted",
		},
		{
			set:   keys{loki + "basic_auth.username": "u", loki + "basic_auth.password_file": tokenFile},
			store: lokitest.Options{User: "u", Password: token}, see: accepted("401"), before: "401", after: "accepted",
		},
		{set: keys{loki + "bearer_token_file": tokenFile}, store: lokitest.Options{Token: token}, see: accepted("401"), before: "401", after: "accepted"},
		{
			set: keys{loki + "tls.ca_file": certFile}, with: keys{loki + "tls.server_name": "store.test"}, store: secured,
			see: accepted("unknown authority"), before: "unknown authority", after: "accepted",
		},
		{
			set: keys{loki + "tls.server_name": "store.test"}, with: keys{loki + "tls.ca_file": certFile}, store: secured,
			see: accepted("127.0.0.1"), before: "127.0.0.1", after: "accepted",
		},
		{
			set:   keys{loki + "tls.cert_file": certFile, loki + "tls.key_file": keyFile},
			with:  keys{loki + "tls.ca_file": certFile, loki + "tls.server_name": "store.test"},
			store: mutual, see: accepted("certificate required"), before: "certificate required", after: "accepted",
		},
		{
			set: keys{loki + "tls.insecure_skip_verify": true}, store: secured,
			see: accepted("x509"), before: "x509", after: "accepted",
		},
		{
			set: keys{loki + "headers": map[string]string{"X-Site": "north"}},
			see: request(func(r lokitest.Request) string { return "site=" + r.Header.Get("X-Site") }), before: "site=", after: "site=north",
		},
		{set: keys{loki + "labels": map[string]string{"env": "prod"}}, see: label("env"), before: "env=", after: "env=prod"},
		{
			set: keys{loki + "structured_metadata": false},
			see: func(w *keyWorld) string {
				l, ok := w.line()
				if !ok {
					return ""
				}
				return "id=" + l.Metadata["container_id"]
			},
			before: "id=" + containerID(0), after: "id=",
		},
		{
			set:   keys{loki + "ship_malformed": false},
			write: func(w *keyWorld) { w.writeLine("good"); w.engine.write(w, 0, "no entry\n") },
			see:   times("no entry"), before: "1", after: "0",
		},
		{set: keys{loki + "batch_wait": "2s"}, see: latency, before: "under 1 s", after: "over 1 s"},
		{
			set: keys{loki + "batch_bytes": "64KiB"},
			write: func(w *keyWorld) {
				w.engine.write(w, 0, strings.Repeat(entryText(strings.Repeat("x", 1000), time.Now()), 300))
			},
			see: func(w *keyWorld) string {
				if _, ok := w.line(); !ok {
					return ""
				}
				for _, r := range w.loki.Requests()[w.requests:] {
					if r.Bytes > 64<<10 {
						return "over 64 KiB"
					}
				}
				return "at most 64 KiB"
			},
			before: "over 64 KiB", after: "at most 64 KiB",
		},
		{
			set: keys{loki + "timeout": "200ms"}, with: keys{"spool.max_bytes": 0},
			write: func(w *keyWorld) {
				if w.phase == 2 {
					w.loki.Next(lokitest.Fault{Hang: true})
				}
			},
			see: accepted(), after: "accepted",
		},
		{
			set: keys{"sinks.stdout.enabled": true, loki + "url": ""},
			see: func(w *keyWorld) string {
				if strings.Contains(w.out.String(), w.hello(w.engine)) {
					return "written"
				}
				return accepted()(w)
			},
			before: "accepted", after: "written",
		},
	}
	return cases
}
