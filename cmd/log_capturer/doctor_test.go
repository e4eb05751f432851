package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// doctorConfig writes a configuration with a store and without containers, so that
// no engine is needed.
func doctorConfig(t *testing.T, store string) (file, dataDir string) {
	t.Helper()
	dataDir = t.TempDir()
	file = filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("data_dir: %s\nserver: {port: 0}\nmonitors: {container: {enabled: false}}\nspool: {max_bytes: 0}\nsinks: {loki: {url: %q}}\n", dataDir, store)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dataDir
}

// TestDoctor: what it says, in which form, and with which exit status.
func TestDoctor(t *testing.T) {
	l := lokitest.New(lokitest.Default())
	t.Cleanup(l.Close)
	file, dataDir := doctorConfig(t, l.URL)
	status, out, stderr := subcommand(t, "doctor", "--config", file)
	if status != 0 || stderr != "" || !strings.Contains(out, "\nok    store                 "+l.URL+" answers a push of nothing") ||
		!regexp.MustCompile(`\n(ok  |warn)  summary  +checks: \d+ ok, \d+ warn, 0 failed, .*\n$`).MatchString(out) {
		t.Errorf("status %d, %q\n%s", status, stderr, out)
	}
	if strings.Contains(out, "\x1b") || len(l.Texts()) != 0 {
		t.Errorf("colours, or %q was stored:\n%q", l.Texts(), out)
	}
	if entries, err := os.ReadDir(dataDir); err != nil || len(entries) != 0 {
		t.Errorf("data_dir has %v, %v", entries, err)
	}

	status, out, _ = subcommand(t, "doctor", "-config", file, "--push-test", "--json")
	var report struct {
		Status string
		Checks []struct{ Name, Status, Message, Remedy string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || len(report.Checks) != 16 {
		t.Errorf("status %d, %v\n%s", status, err, out)
	}
	if len(l.Texts()) != 1 {
		t.Errorf("stored %q", l.Texts())
	}

	l.Always(&lokitest.Fault{Status: 403})
	status, out, _ = subcommand(t, "doctor", "--config", file)
	if status != 1 || !strings.Contains(out, "\nFAIL  store ") || !strings.Contains(out, " -> correct sinks.loki.basic_auth") || !strings.Contains(out, "\nFAIL  summary ") {
		t.Errorf("status %d\n%s", status, out)
	}
}

// TestDoctorCommandLine: a configuration that is wrong is a result as well.
func TestDoctorCommandLine(t *testing.T) {
	_, bad := files(t)
	status, out, stderr := subcommand(t, "doctor", "--config", bad)
	if status != 2 || stderr != "" || strings.Count(out, "\n") != 3 || !strings.HasPrefix(out, "FAIL  configuration         "+bad+":1: host: is a list") {
		t.Errorf("status %d, %q\n%s", status, stderr, out)
	}
	status, out, _ = subcommand(t, "doctor", "--config", bad, "--json")
	if status != 2 || !json.Valid([]byte(out)) {
		t.Errorf("status %d\n%s", status, out)
	}
	for _, args := range []string{"extra", "--nonsense", "--json=maybe"} {
		if status, out, stderr := subcommand(t, "doctor", args); status != 2 || out != "" || stderr == "" {
			t.Errorf("%s: status %d, %q, %q", args, status, out, stderr)
		}
	}
}

// TestDoctorColour: a file is no terminal, and a terminal may be asked for none.
func TestDoctorColour(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	f := newFixture(nil)
	if f.colour() {
		t.Error("a buffer is coloured")
	}
	f.program.out = out
	if f.colour() {
		t.Error("a file is coloured")
	}
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	t.Cleanup(func() { _ = pty.Close() })
	f.program.out = pty
	if !f.colour() {
		t.Error("a terminal is not coloured")
	}
	for name, value := range map[string]string{"NO_COLOR": "1", "TERM": "dumb"} {
		f.env = func(key string) (string, bool) { return value, key == name }
		if f.colour() {
			t.Errorf("%s=%s is not obeyed", name, value)
		}
	}
}
