package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/server"
)

// maxAnswer bounds an answer of an agent, in bytes. A container takes about one KiB.
const maxAnswer = 64 << 20

// agentFacts is what an agent that runs says of itself.
type agentFacts struct {
	// Address is where it should listen; "" if that is any port.
	Address string
	// Err is why there is no answer: ECONNREFUSED if no one is there.
	Err error
	// Foreign: what answers is no agent.
	Foreign  bool
	Status   server.Status
	Problems []server.Problem
	// Containers are those that it knows, by ID.
	Containers map[string]server.Container
}

// gatherAgent asks the agent that has this configuration.
func gatherAgent(ctx context.Context, s config.Server) (a agentFacts) {
	if s.Port == 0 {
		return a
	}
	host := s.Host
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() { // all addresses, loopback too
		host = "127.0.0.1"
		if addr.Is6() {
			host = "::1"
		}
	}
	a.Address = net.JoinHostPort(host, strconv.Itoa(s.Port))
	// Directly, whatever proxy there is: it is on this host.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var h struct {
		Status   server.Status
		Problems *[]server.Problem
	}
	known := map[server.Status]bool{server.StatusOK: true, server.StatusDegraded: true, server.StatusUnhealthy: true}
	err := get(ctx, &client, a.Address, "/health", &h)
	switch {
	case errors.Is(err, errNotJSON) || err == nil && (h.Problems == nil || !known[h.Status]):
		a.Foreign = true
		return a
	case err != nil:
		a.Err = err
		return a
	}
	a.Status, a.Problems = h.Status, *h.Problems
	var list server.Containers
	if err := get(ctx, &client, a.Address, server.ContainersPath, &list); err == nil { // else they are judged from here
		a.Containers = make(map[string]server.Container, len(list.Containers))
		for _, c := range list.Containers {
			a.Containers[c.ID] = c
		}
	}
	return a
}

// errNotJSON is given for an answer that is no JSON.
var errNotJSON = errors.New("no JSON")

// get decodes the answer of an agent, whatever its status.
func get(ctx context.Context, client *http.Client, address, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if json.Unmarshal(body, v) != nil {
		return errNotJSON
	}
	return nil
}

// checkAgent passes on what the agent that runs says of itself: one line for each
// of its problems. A data_dir that is locked tells that there is one.
func checkAgent(a agentFacts, d dataDirFacts) []Check {
	one := func(s Status, message, remedy string) []Check {
		return []Check{{nameAgent, s, message, remedy}}
	}
	const elsewhere = "is this its configuration? Its log says where it listens"
	switch {
	case a.Address == "" && d.Locked:
		return one(Skip, "an agent runs; server.port is 0, any free port: its log says which", "")
	case a.Address == "":
		return one(Skip, "server.port is 0, any free port: a running agent cannot be found", "")
	case a.Foreign:
		return one(Fail, "what answers at "+a.Address+" is no agent: the agent cannot listen there", "set server.port to a free port, or stop the other program")
	case errors.Is(a.Err, syscall.ECONNREFUSED) && !d.Locked:
		return one(Skip, "no agent runs: nobody listens on "+a.Address, "")
	case errors.Is(a.Err, syscall.ECONNREFUSED):
		return one(Warn, "an agent uses data_dir, but nobody listens on "+a.Address, elsewhere)
	case a.Err != nil && d.Locked:
		return one(Fail, fmt.Sprintf("an agent uses data_dir and does not answer at %s: %v", a.Address, plain(a.Err)), "see its log; SIGQUIT makes it write what it is at, and ends it")
	case a.Err != nil:
		return one(Warn, fmt.Sprintf("nothing answers at %s as an agent does: %v", a.Address, plain(a.Err)), "set server.host and server.port to where the agent is to listen")
	case len(a.Problems) == 0 && a.Status == server.StatusOK:
		return one(OK, "an agent runs at "+a.Address+" and is well", "")
	}
	s := Warn
	if a.Status == server.StatusUnhealthy {
		s = Fail
	}
	var all []Check
	for _, p := range a.Problems {
		all = append(all, Check{nameAgent, s, fmt.Sprintf("the agent at %s is %s: %s", a.Address, a.Status, p.What), p.Remedy})
	}
	if len(all) == 0 {
		return one(s, fmt.Sprintf("the agent at %s is %s", a.Address, a.Status), "see its /health and its log")
	}
	return all
}
