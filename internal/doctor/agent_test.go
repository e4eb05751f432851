package doctor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/server"
)

func TestCheckAgent(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	two := []server.Problem{{What: "Docker cannot be reached", Remedy: "start Docker"}, {What: "the spool takes no more", Remedy: "see the message"}}
	used := dataDirFacts{Locked: true}
	for what, c := range map[string]struct {
		a    agentFacts
		d    dataDirFacts
		want []want
	}{
		"well":      {agentFacts{Address: "a:1", Status: server.StatusOK}, used, []want{{OK, "an agent runs at a:1 and is well", ""}}},
		"none":      {agentFacts{Address: "a:1", Err: refused}, dataDirFacts{}, []want{{Skip, "no agent runs", ""}}},
		"elsewhere": {agentFacts{Address: "a:1", Err: refused}, used, []want{{Warn, "nobody listens on a:1", "its configuration"}}},
		"any port":  {agentFacts{}, dataDirFacts{}, []want{{Skip, "cannot be found", ""}}},
		"runs":      {agentFacts{}, used, []want{{Skip, "an agent runs", ""}}},
		"foreign":   {agentFacts{Address: "a:1", Foreign: true}, dataDirFacts{}, []want{{Fail, "is no agent", "free port"}}},
		"hangs":     {agentFacts{Address: "a:1", Err: errNoAnswer(time.Second)}, used, []want{{Fail, "does not answer at a:1: no answer within 1s", "log"}}},
		"odd":       {agentFacts{Address: "a:1", Err: errors.New("no route")}, dataDirFacts{}, []want{{Warn, "no route", "server.host"}}},
		"degraded":  {agentFacts{Address: "a:1", Status: server.StatusDegraded, Problems: two[:1]}, used, []want{{Warn, "is degraded: Docker cannot be reached", "start Docker"}}},
		"unhealthy": {agentFacts{Address: "a:1", Status: server.StatusUnhealthy, Problems: two}, used, []want{{Fail, "is unhealthy: Docker cannot be reached", "start Docker"}, {Fail, "the spool takes no more", "see the message"}}},
		"silent":    {agentFacts{Address: "a:1", Status: server.StatusUnhealthy}, used, []want{{Fail, "is unhealthy", "/health"}}},
	} {
		got := checkAgent(c.a, c.d)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", what, got)
			continue
		}
		for i := range got {
			is(t, what, got[i], c.want[i])
		}
	}
}

// serverOf is the configuration of who listens at an address.
func serverOf(t *testing.T, address string) config.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return config.Server{Host: host, Port: n}
}

func TestGatherAgent(t *testing.T) {
	answers := map[string]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answers[r.URL.Path] == "" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable) // as an unhealthy agent
		_, _ = io.WriteString(w, answers[r.URL.Path])
	}))
	t.Cleanup(s.Close)
	at := serverOf(t, s.Listener.Addr().String())

	if a := gatherAgent(t.Context(), at); !a.Foreign {
		t.Errorf("404: %+v", a)
	}
	answers["/health"] = `{"status": "green", "problems": []}`
	if a := gatherAgent(t.Context(), at); !a.Foreign {
		t.Errorf("another's health: %+v", a)
	}
	answers["/health"] = `{"status": "unhealthy", "problems": [{"what": "w", "remedy": "r"}]}`
	a := gatherAgent(t.Context(), at)
	if a.Foreign || a.Err != nil || a.Status != server.StatusUnhealthy || len(a.Problems) != 1 || a.Problems[0].Remedy != "r" || a.Containers != nil {
		t.Errorf("unhealthy: %+v", a)
	}
	answers[server.ContainersPath] = `{"containers": [{"id": "1", "method": "streaming"}]}`
	// It listens on all addresses, loopback too.
	a = gatherAgent(t.Context(), config.Server{Host: "0.0.0.0", Port: at.Port})
	if len(a.Containers) != 1 || a.Containers["1"].Method != "streaming" || a.Address != s.Listener.Addr().String() {
		t.Errorf("containers: %+v", a)
	}
	if a := gatherAgent(t.Context(), config.Server{}); a.Address != "" || a.Err != nil {
		t.Errorf("any port: %+v", a)
	}
	s.Close()
	if a := gatherAgent(t.Context(), at); !errors.Is(a.Err, syscall.ECONNREFUSED) {
		t.Errorf("nobody: %+v", a)
	}
}

// TestGatherAgentHangs: it accepts connections, and that is all.
func TestGatherAgentHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errNoAnswer(50*time.Millisecond))
	defer cancel()
	if a := gatherAgent(ctx, serverOf(t, l.Addr().String())); a.Err == nil || a.Err.Error() != "no answer within 50ms" {
		t.Errorf("%+v", a)
	}
}
