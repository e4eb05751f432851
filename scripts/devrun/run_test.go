package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays the agent and the store, too: roleVar says which.
const roleVar = "DEVRUN_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "agent":
		os.Exit(fakeAgent())
	case "store":
		os.Exit(fakeStore())
	default:
		goleak.VerifyTestMain(m)
	}
}

// fakeAgent answers /health with DEVRUN_TEST_HEALTH until it is told to stop,
// then says on standard output whether its store was still there.
func fakeAgent() int {
	if os.Getenv("DEVRUN_TEST_CRASH") != "" {
		return 3
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", "127.0.0.1:"+os.Getenv("DEVRUN_TEST_PORT"))
	if err != nil {
		fmt.Println(err)
		return 4
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:errcheck // ends with the process
		w.WriteHeader(http.StatusServiceUnavailable) // an answer all the same
		fmt.Fprint(w, os.Getenv("DEVRUN_TEST_HEALTH"))
	}))
	fmt.Printf("agent: data in %s, args %q\n", os.Getenv("LOG_CAPTURER_DATA_DIR"), os.Args[1:])
	<-stop
	if os.Getenv("DEVRUN_TEST_STUBBORN") != "" {
		fmt.Fprintln(os.Stderr, "agent: not yet")
		<-stop
		fmt.Println("agent: stopped by the second signal")
		return 0
	}
	url := os.Getenv("LOKI_URL")
	if strings.HasSuffix(url, pushPath) {
		_, err = get(context.Background(), strings.TrimSuffix(url, pushPath)+"/health")
		fmt.Println("agent: store at the end:", err)
	} else {
		fmt.Println("agent: LOKI_URL", url)
	}
	return 0
}

func fakeStore() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if os.Getenv("DEVRUN_TEST_STORE_CRASH") != "" {
		return 5
	}
	for _, a := range os.Args[1:] {
		if addr, ok := strings.CutPrefix(a, "-httpListenAddr="); ok {
			go http.ListenAndServe(addr, nil) //nolint:errcheck // ends with the process
		}
	}
	fmt.Printf("store: args %q\n", os.Args[1:])
	<-stop
	fmt.Println("store: stopped")
	return 0
}

// output is what devrun and the agent write; safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	// seen is closed once the text holds want.
	want string
	seen chan struct{}
}

func newOutput(want string) *output { return &output{want: want, seen: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := strings.Contains(o.buf.String(), o.want)
	o.buf.Write(p)
	if !before && strings.Contains(o.buf.String(), o.want) {
		close(o.seen)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

const healthy = `{"status":"ok","monitors":{"file_monitor":{"files_monitored":12}},
	"docker":{"state":"ok","synced":true,"not_captured":{"journald":2,"none":1}}}`

const noDocker = `{"status":"unhealthy","monitors":{"file_monitor":{"files_monitored":0}},
	"docker":{"state":"unhealthy","error":"connection refused"},
	"problems":[{"what":"the engine does not answer","remedy":"start it"}]}`

// testConfig is set up so that the roles are played by this binary. The store
// (if any) needs its own role, so each binary is a link with a role script.
func testConfig(t *testing.T, out *output, withStore bool, env ...string) config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := func(role string) string {
		path := filepath.Join(dir, role)
		text := fmt.Sprintf("#!/bin/sh\nexport %s=%s\nexec %q \"$@\"\n", roleVar, role, self)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	port, err := freePort(t.Context(), 18401)
	if err != nil {
		t.Fatal(err)
	}
	c := config{
		agent: script("agent"), file: "agent.yaml", dir: filepath.Join(dir, "var"),
		out: out, agentErr: out,
		storePort: 19428, agentPort: port,
		readyAfter: 20 * time.Second, settle: 200 * time.Millisecond, stopAfter: 20 * time.Second,
		env: append(os.Environ(), append([]string{
			"DEVRUN_TEST_PORT=" + strconv.Itoa(port), "DEVRUN_TEST_HEALTH=" + healthy,
			// What is left of a process under coverage would be written here.
			"GOCOVERDIR=" + dir,
		}, env...)...),
	}
	if withStore {
		c.store = script("store")
	}
	return c
}

// runUntil runs devrun, sends signals one by one, each when its text has been
// written, and gives what run returned.
func runUntil(t *testing.T, c config, out *output, then func(signals chan<- os.Signal)) error {
	t.Helper()
	signals := make(chan os.Signal, 2)
	done := make(chan error, 1)
	go func() { done <- run(t.Context(), c, signals) }()
	select {
	case <-out.seen:
		then(signals)
	case err := <-done:
		return err
	}
	return <-done
}

func mustHave(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("lacks %q in:\n%s", w, text)
		}
	}
}

func TestRunWithStore(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, true)
	// The first port is taken: the next is to be used.
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c.storePort = taken.Addr().(*net.TCPAddr).Port

	err = runUntil(t, c, out, func(s chan<- os.Signal) { s <- os.Interrupt })
	if err != nil {
		t.Errorf("run = %v", err)
	}
	mustHave(t, out.String(),
		"12 containers from their files", "not 3 others",
		"/select/vmui", fmt.Sprintf("http://127.0.0.1:%d/health", c.agentPort),
		`args ["-config" "agent.yaml"]`,
		"agent: data in "+filepath.Join(c.dir, "log_capturer"),
		"agent: store at the end: <nil>", // so the agent was stopped first
	)
	if strings.Contains(out.String(), fmt.Sprintf("127.0.0.1:%d/select", c.storePort)) {
		t.Errorf("the port that was taken is shown:\n%s", out)
	}
	log, err := os.ReadFile(storeLog(c))
	if err != nil {
		t.Fatal(err)
	}
	mustHave(t, string(log), "-retentionPeriod=100y", "-storageDataPath="+filepath.Join(c.dir, "victoria-logs"), "store: stopped")
}

func TestRunWithLokiURL(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, false, "LOKI_URL=http://user:secret@loki.test:3100/push?token=secret")
	if err := runUntil(t, c, out, func(s chan<- os.Signal) { s <- syscall.SIGTERM }); err != nil {
		t.Errorf("run = %v", err)
	}
	mustHave(t, out.String(), "LOKI_URL (http://loki.test:3100/push)", "agent: LOKI_URL http://user:secret@loki.test:3100/push?token=secret")
	if own, _, _ := strings.Cut(out.String(), "agent: LOKI_URL"); strings.Contains(own, "secret") {
		t.Errorf("a secret is shown:\n%s", own)
	}
}

func TestDockerNotReachable(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, false, "LOKI_URL=http://loki.test", "DEVRUN_TEST_HEALTH="+noDocker)
	if err := runUntil(t, c, out, func(s chan<- os.Signal) { s <- syscall.SIGTERM }); err != nil {
		t.Errorf("run = %v", err)
	}
	mustHave(t, out.String(), "Docker is not reachable", "problem  the engine does not answer", "start it")
	if strings.Contains(out.String(), "0 containers") {
		t.Errorf("says that there are none:\n%s", out)
	}
}

func TestSecondSignalIsPassedOn(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, false, "LOKI_URL=http://loki.test", "DEVRUN_TEST_STUBBORN=1")
	first := newOutput("agent: not yet")
	c.agentErr = first
	err := runUntil(t, c, out, func(s chan<- os.Signal) {
		s <- os.Interrupt
		<-first.seen // two signals at once would be one
		s <- os.Interrupt
	})
	if err != nil {
		t.Errorf("run = %v", err)
	}
	mustHave(t, out.String(), "agent: stopped by the second signal")
}

func TestStubbornAgentIsKilled(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, false, "LOKI_URL=http://loki.test", "DEVRUN_TEST_STUBBORN=1")
	c.stopAfter = 300 * time.Millisecond
	err := runUntil(t, c, out, func(s chan<- os.Signal) { s <- os.Interrupt })
	var exit exitError
	if !errors.As(err, &exit) || exit.code != -1 {
		t.Errorf("run = %v, want that the agent was killed", err)
	}
}

func TestAgentFailsToStart(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, true, "DEVRUN_TEST_CRASH=1")
	err := runUntil(t, c, out, func(chan<- os.Signal) { t.Error("said to be running") })
	var exit exitError
	if !errors.As(err, &exit) || exit.code != 3 || exit.what != "log_capturer" {
		t.Errorf("run = %v, want the agent's exit code 3", err)
	}
	log, err := os.ReadFile(storeLog(c))
	if err != nil {
		t.Fatal(err)
	}
	mustHave(t, string(log), "store: stopped")
}

func TestStoreFailsToStart(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, true, "DEVRUN_TEST_STORE_CRASH=1")
	err := runUntil(t, c, out, func(chan<- os.Signal) { t.Error("said to be running") })
	if err == nil || !strings.Contains(err.Error(), "victoria-logs.log") {
		t.Errorf("run = %v, want an error that names the store's log", err)
	}
}

func TestAgentsPortTaken(t *testing.T) {
	out := newOutput("is running")
	c := testConfig(t, out, false, "LOKI_URL=http://loki.test")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.agentPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = runUntil(t, c, out, func(chan<- os.Signal) { t.Error("said to be running") })
	if err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("run = %v, want an error about the port", err)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"http://loki:3100":                        "http://loki:3100",
		"https://u:p@loki.test/api/push?token=x":  "https://loki.test/api/push",
		"https://u:p@ss@loki.test/loki":           "https://loki.test/loki",
		"loki:3100/push":                          "loki:3100/push",
		"u:p@loki:3100":                           "loki:3100",
		"http://loki.test/a/b@c?x=http://u:p@q/r": "http://loki.test/a/b@c",
	} {
		if got := redact(in); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}
