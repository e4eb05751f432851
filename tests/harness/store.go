package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// storeEnv names the store's binary.
const storeEnv = "VICTORIA_LOGS_BIN"

// Store is a VictoriaLogs of the test's own. It takes Loki's push protocol, but
// is no Loki: it refuses nothing and keeps duplicates. Its methods fail the test
// when something goes wrong.
type Store struct {
	tb   TB
	bin  string
	dir  string
	addr string
	http *http.Client
	proc *process
}

// StartStore starts a log store, and stops it when the test ends.
func StartStore(tb TB) *Store {
	tb.Helper()
	bin, err := findStore()
	if err != nil {
		missing(tb, err.Error())
	}
	addr, err := FreeAddr()
	if err != nil {
		tb.Fatal(err)
	}
	s := &Store{
		tb: tb, bin: bin, dir: tb.TempDir(), addr: addr,
		// No connection is kept: after an outage it would be a dead one.
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	tb.Cleanup(func() {
		if s.proc != nil && s.proc.running() {
			s.Stop()
		}
		showLog(tb, "victoria-logs", s.logFile(), "/flag.go:", "flushing storage")
	})
	s.Start()
	return s
}

// findStore looks for the binary: VICTORIA_LOGS_BIN, bin/victoria-logs below the
// module's root, PATH.
func findStore() (string, error) {
	if bin := os.Getenv(storeEnv); bin != "" {
		if _, err := exec.LookPath(bin); err != nil {
			return "", fmt.Errorf("%s: %w", storeEnv, err)
		}
		return filepath.Abs(bin)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	for _, name := range []string{filepath.Join(root, "bin", "victoria-logs"), "victoria-logs"} {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("victoria-logs is neither named by %s, nor in bin/ of the module, nor in PATH", storeEnv)
}

// given are the addresses that FreeAddr has given.
var given sync.Map

// FreeAddr gives an address that nothing listens on. Its port is none that the kernel
// chooses for others as a rule: it stays free while whoever uses it is away for a while.
func FreeAddr() (string, error) {
	const first, n = 20_000, 12_000
	err := errors.New("all have been given")
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(n))
		if _, before := given.LoadOrStore(addr, true); before {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("no free port: %w", err)
}

func (s *Store) logFile() string { return filepath.Join(s.dir, "store.log") }

// Start starts the store, also after Stop or Kill: at the same address, with the
// same data.
func (s *Store) Start() {
	s.tb.Helper()
	proc, err := startProcess(s.logFile(), s.bin, "-storageDataPath="+filepath.Join(s.dir, "data"),
		"-retentionPeriod=100y", "-httpListenAddr="+s.addr, "-loggerFormat=default")
	if err != nil {
		s.tb.Fatal(err)
	}
	s.proc = proc
	up := poll(30*time.Second, func() bool {
		resp, err := s.http.Get(s.url("/health", nil))
		if err != nil {
			return !proc.running()
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK || !proc.running()
	})
	if !up || !proc.running() {
		s.tb.Fatalf("victoria-logs did not come up at %s", s.addr)
	}
}

// Stop ends the store by SIGTERM; it keeps all it has accepted.
func (s *Store) Stop() {
	s.tb.Helper()
	if !s.proc.stop(30 * time.Second) {
		s.tb.Error("victoria-logs did not stop and was killed")
	}
}

// Kill kills the store. What it has accepted within the last 5 s is lost with it,
// flushed or not: it writes to disk no oftener. A test that counts lines takes
// Stop or Freeze for its outage.
func (s *Store) Kill() { s.proc.kill() }

// Freeze stops the store by SIGSTOP: it accepts connections and does not answer.
// Thaw lets it go on.
func (s *Store) Freeze() {
	s.tb.Helper()
	s.proc.freeze(s.tb)
}

// Thaw ends Freeze.
func (s *Store) Thaw() {
	s.tb.Helper()
	s.proc.signal(s.tb, syscall.SIGCONT)
}

func (s *Store) url(path string, q url.Values) string {
	return (&url.URL{Scheme: "http", Host: s.addr, Path: path, RawQuery: q.Encode()}).String()
}

// URL is the store's address, http://127.0.0.1:port.
func (s *Store) URL() string { return s.url("", nil) }

// PushURL is where to push to; text that happens to be JSON stays text.
func (s *Store) PushURL() string {
	return s.url("/insert/loki/api/v1/push", url.Values{"disable_message_parsing": {"1"}})
}

// Flush makes everything accepted so far visible to queries.
func (s *Store) Flush(tb TB) {
	tb.Helper()
	if _, err := s.get("/internal/force_flush", nil); err != nil {
		tb.Fatalf("flush the store: %v", err)
	}
}

// Query gives the lines that a LogsQL query finds, as fields: _msg, _time,
// _stream, labels and structured metadata. They come in no order, unless the
// query sorts ("… | sort by (_time)").
func (s *Store) Query(tb TB, logsQL string) []map[string]string {
	tb.Helper()
	s.Flush(tb)
	text, err := s.get("/select/logsql/query", url.Values{"query": {logsQL}})
	if err != nil {
		tb.Fatalf("query %s: %v", logsQL, err)
	}
	var rows []map[string]string
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		row := map[string]string{}
		err := dec.Decode(&row)
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			tb.Fatalf("query %s: %v", logsQL, err)
		}
		rows = append(rows, row)
	}
}

// Count gives how many lines a LogsQL filter finds.
func (s *Store) Count(tb TB, filter string) int {
	tb.Helper()
	rows := s.Query(tb, filter+" | stats count() as n")
	if len(rows) != 1 {
		tb.Fatalf("count of %s gave %d rows", filter, len(rows))
	}
	n, err := strconv.Atoi(rows[0]["n"])
	if err != nil {
		tb.Fatalf("count of %s: %v", filter, err)
	}
	return n
}

func (s *Store) get(path string, q url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.url(path, q), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return text, nil
}
