package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/server"
)

const (
	// defaultURL is where an agent answers that is configured as by default.
	defaultURL = "http://127.0.0.1:8401"
	// askTimeout is how long an agent may take for its whole answer.
	askTimeout = 10 * time.Second
	// maxAnswer bounds an answer, in bytes. A container takes about one KiB.
	maxAnswer = 64 << 20
	// maxCell is how many characters of one value the table shows.
	maxCell = 60
)

const containersDescription = `Asks a running agent how it captures the log of each container:

  METHOD    file_monitor (from Docker's file), streaming (through Docker's API),
            or none: not captured
  REASON    why
  POSITION  time of the newest line that the store has accepted
  LAG       for how long there has been something that is not read
  LINES     accepted by the store since the start or reload of the agent
  LOST      since then: lines that had been read, bytes of files that could not be
            read to their ends, and gaps: files that were never seen
  ERRORS    since then

Examples:

  log_capturer containers                               all of this host's agent
  log_capturer containers web                           those with "web" in their names
  log_capturer containers --method none                 those that are not captured
  log_capturer containers --config config.yaml          the agent with this configuration
  log_capturer containers --url http://10.1.2.3:8401    an agent elsewhere
  log_capturer containers --json | jq '.containers[] | select(.gaps > 0 or .bytes_lost > 0)'

The agent is asked at --url; with --config at the server.host and server.port of
that file, for which variables must be set as for the agent.

Exit status: 0 answered; 1 no agent can be reached, or it does not answer; 2 the
configuration or the command line is wrong.`

// containersCommand is the subcommand containers.
func (p *program) containersCommand(onUsageError cli.OnUsageErrorFunc) *cli.Command {
	return &cli.Command{
		Name:         "containers",
		Usage:        "show how a running agent captures each container",
		UsageText:    "log_capturer containers [--url URL | --config FILE] [--json] [--method METHOD] [NAME]",
		Description:  containersDescription,
		OnUsageError: onUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "url", Usage: "ask the agent at `URL`", Value: defaultURL},
			&cli.StringFlag{Name: "method", Usage: "only containers captured by `METHOD`: " + strings.Join(methods, ", ")},
			&cli.BoolFlag{Name: "json", Usage: "print the agent's answer, of which API.md tells, and no table"},
		},
		Action: p.containers,
	}
}

// methods are the ways of capture.
var methods = []string{server.MethodFileMonitor, server.MethodStreaming, server.MethodNone}

// filter chooses containers; an empty field lets all pass.
type filter struct{ name, method string }

func (f filter) takes(c server.Container) bool {
	return strings.Contains(c.Name, f.name) && (f.method == "" || f.method == c.Method)
}

// containers is the subcommand of that name.
func (p *program) containers(ctx context.Context, c *cli.Command) error {
	f := filter{c.Args().First(), c.String("method")}
	switch {
	case c.NArg() > 1:
		return fmt.Errorf("containers: unexpected argument %q: one part of a name is enough", c.Args().Get(1))
	case f.method != "" && !slices.Contains(methods, f.method):
		return fmt.Errorf("containers: --method %q: one of %s", f.method, strings.Join(methods, ", "))
	case c.Bool("json") && f != filter{}:
		return errors.New("containers: --json prints the whole answer: choose from it with jq, without --method and NAME")
	case c.IsSet("url") && c.IsSet("config"):
		return errors.New("containers: --url and --config both say where the agent is: only one of the two")
	}
	base, err := p.agentAt(c)
	if err != nil {
		return err
	}

	// The agent is asked directly: it is on this host or near it. A connection
	// that is kept would outlive its use.
	rt := &http.Transport{DisableKeepAlives: true}
	answer, list, err := ask(ctx, rt, base)
	if err != nil {
		p.complain("log_capturer: %s\n", server.PrintableText(err.Error()))
		return statusError(exitFail)
	}
	if !c.Bool("json") {
		answer = table(list, f)
	}
	if _, err := p.out.Write(answer); err != nil {
		p.complain("log_capturer: write the result: %v\n", err)
		return statusError(exitFail)
	}
	return nil
}

// agentAt says where the agent is that the command line names.
func (p *program) agentAt(c *cli.Command) (*url.URL, error) {
	if !c.IsSet("config") {
		return parseURL(c.String("url"))
	}
	cfg, err := config.Load(c.String("config"), p.env)
	if err != nil {
		p.complain("%v\n", err)
		return nil, statusError(exitUsage)
	}
	return agentURL(cfg.Server)
}

// agentURL is where an agent with this configuration can be asked on its host.
func agentURL(s config.Server) (*url.URL, error) {
	if s.Port == 0 {
		return nil, errors.New("containers: server.port is 0, any free port: the agent's log says which it has; name it with --url")
	}
	host := s.Host
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() { // all addresses, loopback too
		host = "127.0.0.1"
		if a.Is6() {
			host = "::1"
		}
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(s.Port))}, nil
}

// parseURL reads the address of an agent, which may be below a path of a proxy.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		// Without the text: it may hold a password.
		return nil, errors.New("containers: --url: not the address of an agent, such as " + defaultURL)
	}
	return u, nil
}

// ask gets the containers of the agent at base: the answer, as JSON that a
// terminal can show, and what it says. An error has one line, which names the
// agent and what to do.
func ask(ctx context.Context, rt http.RoundTripper, base *url.URL) ([]byte, []server.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	where := base.Redacted()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(server.ContainersPath).String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the agent at %s: %w", where, err)
	}
	client := http.Client{Transport: rt}
	res, err := client.Do(req)
	if err != nil {
		var of *url.Error // names the request once more
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, nil, unreached(where, err)
	}
	defer func() { _ = res.Body.Close() }() // only read from
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, nil, unreached(where, err)
	case res.StatusCode == http.StatusNotFound:
		return nil, nil, fmt.Errorf("what answers at %s does not know %s: another program, or an older log_capturer: name the agent with --url or --config", where, server.ContainersPath)
	case res.StatusCode != http.StatusOK:
		return nil, nil, fmt.Errorf("the agent at %s answers %s: %s", where, res.Status, cell(strings.TrimSpace(string(body[:min(len(body), 1<<10)])), 200))
	case len(body) > maxAnswer:
		return nil, nil, fmt.Errorf("the answer from %s is larger than %d MiB: is it an agent's? Name the agent with --url or --config", where, maxAnswer>>20)
	}
	var answer struct{ Containers *[]server.Container }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Containers == nil {
		return nil, nil, fmt.Errorf("what answers at %s does not answer as an agent does: name the agent with --url or --config", where)
	}
	return server.Printable(body), *answer.Containers, nil
}

// unreached is the error of an agent that does not answer, or not to the end.
func unreached(where string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the agent at %s has not answered within %v: try again; its log and %s/health may say why", where, askTimeout, where)
	}
	return fmt.Errorf("no agent answers at %s: %w: start it, or say where it is with --url or --config", where, err)
}

// table shows those of the containers that the filter takes, in their order.
func table(list []server.Container, f filter) []byte {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // to memory
	row("NAME", "DRIVER", "METHOD", "REASON", "POSITION", "LAG", "LINES", "LOST", "ERRORS")
	for _, c := range list {
		if f.takes(c) {
			row(cell(c.Name, maxCell), cell(c.Driver, maxCell), cell(c.Method, maxCell), cell(c.Reason, maxCell),
				newest(c.Position), lag(c.LagSeconds), strconv.FormatInt(c.LinesDelivered, 10), lost(&c), strconv.FormatInt(c.Errors, 10))
		}
	}
	_ = w.Flush() // to memory
	return b.Bytes()
}

// cell is a text from outside as a value of the table: on one line, at most
// limit characters, harmless to a terminal.
func cell(s string, limit int) string {
	if s = server.PrintableText(s); s == "" {
		return "-"
	}
	if r := []rune(s); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return s
}

// newest is the time of the newest delivered line of all streams.
func newest(position map[string]server.Position) string {
	var t time.Time
	for _, p := range position {
		if p.Time != nil && p.Time.After(t) {
			t = *p.Time
		}
	}
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// lost shows what was lost of a container's log.
func lost(c *server.Container) string {
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{c.BytesLost, "bytes"}, {c.Gaps, "gaps"}} {
		if p.n == 1 {
			p.what = strings.TrimSuffix(p.what, "s")
		}
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "0")
}

// lag shows seconds in the largest unit of which there are some, rounded down.
func lag(seconds float64) string {
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	switch {
	case seconds < minute:
		return fmt.Sprintf("%ds", int(max(seconds, 0)))
	case seconds < hour:
		return fmt.Sprintf("%dm", int(seconds)/minute)
	case seconds < day:
		return fmt.Sprintf("%dh", int(seconds)/hour)
	case seconds < 1000*day:
		return fmt.Sprintf("%dd", int(seconds)/day)
	default: // a clock has been set
		return ">999d"
	}
}
