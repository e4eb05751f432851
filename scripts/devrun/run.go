package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type config struct {
	agent, store string // binaries
	file         string // the agent's configuration
	dir          string
	env          []string
	out          io.Writer // what devrun has to say, and the agent's output
	agentErr     io.Writer // the agent's own log

	storePort int // the first to try
	agentPort int // server.port of the configuration

	readyAfter time.Duration // how long a child may take until it answers
	settle     time.Duration // how long to wait for the agent to find containers
	stopAfter  time.Duration // how long a child may take to end
}

// pushPath is where VictoriaLogs takes Loki's protocol. Messages that happen to
// be JSON stay text; structured metadata become fields.
const pushPath = "/insert/loki/api/v1/push?disable_message_parsing=1"

// run returns when the agent and the store have ended: nil if a signal asked
// for it.
func run(ctx context.Context, c config, signals <-chan os.Signal) error {
	if err := os.MkdirAll(c.dir, 0o750); err != nil {
		return fmt.Errorf("making the directory for data: %w", err)
	}
	env, storeURL := c.env, ""
	var store *child
	if c.store != "" {
		var err error
		if store, storeURL, err = startStore(ctx, c); err != nil {
			return err
		}
		defer store.stop(c.stopAfter, nil)
		if stopped, err := waitReady(ctx, c, store, storeURL+"/health", signals); stopped || err != nil {
			return err
		}
		env = setEnv(env, "LOKI_URL", storeURL+pushPath)
	}

	// Asked of the port, not of the agent that failed to get it: /health would
	// be answered by whoever has it.
	if !portFree(ctx, c.agentPort) {
		return fmt.Errorf("port %d of 127.0.0.1 is taken, the agent needs it: is another log_capturer running?", c.agentPort)
	}
	data, err := filepath.Abs(filepath.Join(c.dir, "log_capturer"))
	if err != nil {
		return fmt.Errorf("finding the agent's data directory: %w", err)
	}
	env = setEnv(env, "LOG_CAPTURER_DATA_DIR", data)
	agent, err := start("log_capturer", c.agent, []string{"-config", c.file}, env, c.out, c.agentErr)
	if err != nil {
		return err
	}
	defer agent.stop(c.stopAfter, signals)

	agentURL := "http://127.0.0.1:" + strconv.Itoa(c.agentPort)
	if stopped, err := waitReady(ctx, c, agent, agentURL+"/health", signals); stopped || err != nil {
		return err
	}
	reading := settledHealth(ctx, c, agentURL+"/health", agent.done)
	printWhere(c, env, storeURL, agentURL, reading)

	var storeDone <-chan struct{} // nil, and so never, without a store
	if store != nil {
		storeDone = store.done
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case sig := <-signals:
		fmt.Fprintf(c.out, "\n%s: stopping (once more: at once)\n", sig)
		return agentsLastWord(agent.stop(c.stopAfter, signals))
	case <-agent.done:
		return exitError{what: agent.name, code: agent.code()}
	case <-storeDone:
		return fmt.Errorf("%s ended (%s), see %s", store.name, store.cmd.ProcessState, storeLog(c))
	}
}

// agentsLastWord judges how the agent ended after it had been asked to.
func agentsLastWord(code int) error {
	if code != 0 {
		return exitError{what: "log_capturer", code: code}
	}
	return nil
}

// exitError is a child's end that nobody asked for, or that did not go well.
type exitError struct {
	what string
	code int // -1: killed by a signal
}

func (e exitError) Error() string {
	if e.code < 0 {
		return e.what + " was killed"
	}
	return fmt.Sprintf("%s ended with exit code %d", e.what, e.code)
}

func storeLog(c config) string { return filepath.Join(c.dir, "victoria-logs.log") }

// startStore starts the store on the next free port; its output goes to a file,
// it would drown the agent's.
func startStore(ctx context.Context, c config) (*child, string, error) {
	port, err := freePort(ctx, c.storePort)
	if err != nil {
		return nil, "", err
	}
	log, err := os.Create(storeLog(c))
	if err != nil {
		return nil, "", fmt.Errorf("making the store's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor; nothing is written here
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	store, err := start("victoria-logs", c.store, []string{
		"-httpListenAddr=" + addr,
		"-storageDataPath=" + filepath.Join(c.dir, "victoria-logs"),
		"-retentionPeriod=100y", // it drops what is older, without a word
	}, c.env, log, log)
	if err != nil {
		return nil, "", err
	}
	return store, "http://" + addr, nil
}

// waitReady waits until url answers. It reports whether a signal came instead.
func waitReady(ctx context.Context, c config, ch *child, url string, signals <-chan os.Signal) (stopped bool, err error) {
	deadline := time.NewTimer(c.readyAfter)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = get(ctx, url); err == nil {
			return false, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-signals:
			return true, nil
		case <-ch.done:
			if ch.name == "victoria-logs" {
				return false, fmt.Errorf("%w, see %s", exitError{ch.name, ch.code()}, storeLog(c))
			}
			return false, exitError{ch.name, ch.code()}
		case <-deadline.C:
			return false, fmt.Errorf("%s does not answer after %s: %w", ch.name, c.readyAfter, err)
		}
	}
}

func printWhere(c config, env []string, storeURL, agentURL string, reading health) {
	rows := reading.rows()
	if storeURL != "" {
		rows = append(rows,
			[2]string{"query", storeURL + "/select/vmui"},
			[2]string{"", "for example: job:=log_capturer"})
	} else {
		rows = append(rows, [2]string{"store", "LOKI_URL (" + redact(getEnv(env, "LOKI_URL")) + ")"})
	}
	rows = append(rows,
		[2]string{"health", agentURL + "/health"},
		[2]string{"metrics", agentURL + "/metrics"},
		[2]string{"kept in", c.dir},
		[2]string{"stop", "ctrl-C"})
	var b strings.Builder
	b.WriteString("\nlog_capturer is running.\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-8s %s\n", r[0], r[1])
	}
	b.WriteString("\n")
	fmt.Fprint(c.out, b.String())
}

// redact takes user, password and query out of a URL that is to be shown.
func redact(url string) string {
	url, _, _ = strings.Cut(url, "?")
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "", url
	}
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if scheme != "" {
		host = scheme + "://" + host
	}
	if path != "" {
		host += "/" + path
	}
	return host
}

// freePort finds the first of a few ports that nobody listens on.
func freePort(ctx context.Context, from int) (int, error) {
	const tries = 50
	for p := from; p < from+tries; p++ {
		if portFree(ctx, p) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d on 127.0.0.1", from, from+tries-1)
}

func portFree(ctx context.Context, port int) bool {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	return l.Close() == nil
}

// setEnv gives a copy of env in which name has the value.
func setEnv(env []string, name, value string) []string {
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			out = append(out, kv)
		}
	}
	return append(out, name+"="+value)
}

func getEnv(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
