// Package docs runs the commands that the documents name, as they stand there.
package docs

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/lokitest"
	"github.com/log-capturer/log_capturer/internal/testbuffer"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// commands gives the lines of a document's sh blocks.
func commands(t *testing.T, file string) (all []string) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(harness.ReadFile(t, file), -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				all = append(all, line)
			}
		}
	}
	return all
}

// run starts a line of shell in the repository and gives what it prints; stop
// interrupts it and waits.
func run(t *testing.T, root, line string, env ...string) (out *testbuffer.Buffer, wait func() error, stop func() error) {
	t.Helper()
	out = &testbuffer.Buffer{}
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	wait = sync.OnceValue(func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(5 * time.Minute):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			return fmt.Errorf("%q does not end", line)
		}
	})
	stop = func() error {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		return wait()
	}
	t.Cleanup(func() {
		if err := stop(); err != nil && t.Failed() {
			t.Logf("%s: %v\n%s", line, err, out)
		}
	})
	return out, wait, stop
}

// TestReadme does what the README says, in its order, on a real engine with a
// running container.
func TestReadme(t *testing.T) {
	harness.NeedDocker(t)
	root := harness.Root(t)
	d := harness.StartDockerd(t)
	d.Run(t, harness.ContainerSpec{Name: "readme", Cmd: []string{"-lines", "0", "-rate", "10", "-prefix", "hello"}})
	dataDir := t.TempDir()
	env := []string{"DOCKER_HOST=" + d.Host, "LOG_CAPTURER_DATA_DIR=" + dataDir, "LOKI_URL="}
	lines := commands(t, "README.md")
	known := map[string]func(t *testing.T, line string){
		"make run": func(t *testing.T, line string) {
			out, _, stop := run(t, root, line, env...)
			harness.Eventually(t, 4*time.Minute, "make run says where to look", func() bool {
				return strings.Contains(out.String(), "log_capturer is running")
			})
			if !regexp.MustCompile(`\b1 container`).MatchString(out.String()) {
				t.Errorf("make run does not say that it reads one container:\n%s", out)
			}
			query := regexp.MustCompile(`(http://\S+)/select/vmui`).FindStringSubmatch(out.String())
			if query == nil {
				t.Fatalf("no address of the store's query page:\n%s", out)
			}
			harness.Eventually(t, 20*time.Second, "the container's lines are in the store", func() bool {
				resp, err := http.Get(query[1] + `/select/logsql/query?query=container_name:%3Dreadme&limit=1`)
				if err != nil {
					return false
				}
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				return err == nil && bytes.Contains(b, []byte("hello"))
			})
			_ = stop() // make tells of the interrupt
			if !strings.Contains(out.String(), "log_capturer has stopped") {
				t.Errorf("make run, interrupted, does not end well:\n%s", out)
			}
			for _, url := range []string{query[1], "http://127.0.0.1:8401/livez"} {
				if resp, err := http.Get(url); err == nil {
					_ = resp.Body.Close()
					t.Errorf("make run has ended and %s still answers", url)
				}
			}
		},
		// This test is part of what it runs; that the target is there must do.
		"make test": func(t *testing.T, line string) {
			if out, wait, _ := run(t, root, strings.Replace(line, "make", "make -n", 1)); wait() != nil {
				t.Error(out)
			}
		},
		"make build": simply(root, env),
		"bin/log_capturer validate -config configs/config.yaml": simply(root, append(env, "LOKI_URL=http://127.0.0.1:3100")),
		"bin/log_capturer -config configs/config.yaml": func(t *testing.T, line string) {
			out, _, stop := run(t, root, "exec "+line, append(env, "LOKI_URL=http://127.0.0.1:1")...)
			harness.Eventually(t, 20*time.Second, "the agent serves", func() bool {
				resp, err := http.Get("http://127.0.0.1:8401/livez")
				if err != nil {
					return false
				}
				return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
			})
			if err := stop(); err != nil {
				t.Errorf("the agent, interrupted: %v\n%s", err, out)
			}
		},
		"bin/log_capturer containers": func(t *testing.T, line string) {
			_, _, stop := run(t, root, "exec bin/log_capturer -config configs/config.yaml", append(env, "LOKI_URL=http://127.0.0.1:1")...)
			if !harness.Within(20*time.Second, func() bool {
				out, wait, _ := run(t, root, line, env...)
				return wait() == nil && strings.Contains(out.String(), "\nreadme  json-file  file_monitor  log driver json-file keeps a file  ")
			}) {
				t.Error("the container is not in the table")
			}
			if err := stop(); err != nil {
				t.Errorf("the agent, interrupted: %v", err)
			}
		},
	}
	known["bin/log_capturer doctor -config configs/config.yaml"] = func(t *testing.T, line string) {
		l := lokitest.New(lokitest.Default())
		defer l.Close()
		if out, wait, _ := run(t, root, line, append(env, "LOKI_URL="+l.URL)...); wait() != nil ||
			!strings.Contains(out.String(), "\nwarn  container readme      file_monitor: log driver json-file keeps a file; no max-size") {
			t.Errorf("%s:\n%s", line, out)
		}
	}
	known["bin/log_capturer dlq list -config configs/config.yaml"] = func(t *testing.T, line string) {
		dead := filepath.Join(dataDir, "dead_letters", "dead_letters.jsonl")
		record := `{"time":"2026-01-02T03:04:05Z","kind":"refused","container_name":"web","line_time":"` + time.Now().UTC().Format(time.RFC3339Nano) +
			`","reason":"too long","labels":{"container_name":"web"},"raw":"aGVsbG8="}` + "\n"
		f, err := os.OpenFile(dead, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(record)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if out, wait, _ := run(t, root, line, env...); wait() != nil || !strings.Contains(out.String(), "\n2026-01-02T03:04:05Z  web        refused  too long  5     hello\n") {
			t.Errorf("%s:\n%s", line, out)
		}
	}
	known["bin/log_capturer dlq replay -config configs/config.yaml"] = func(t *testing.T, line string) {
		l := lokitest.New(lokitest.Default())
		defer l.Close()
		if out, wait, _ := run(t, root, line, append(env, "LOKI_URL="+l.URL)...); wait() != nil || !slices.Equal(l.Texts(), []string{"hello"}) {
			t.Errorf("%s: stored %q:\n%s", line, l.Texts(), out)
		}
	}
	for _, line := range lines {
		try := known[line]
		if try == nil {
			t.Errorf("README names the command %q, which no test runs", line)
			continue
		}
		if !t.Run(line, func(t *testing.T) { try(t, line) }) {
			return // what follows builds on it
		}
	}
	for line := range known {
		if !slices.Contains(lines, line) {
			t.Errorf("README no longer names %q", line)
		}
	}
}

// simply runs a command that must end well.
func simply(root string, env []string) func(t *testing.T, line string) {
	return func(t *testing.T, line string) {
		if out, wait, _ := run(t, root, line, env...); wait() != nil {
			t.Errorf("%s:\n%s", line, out)
		}
	}
}
