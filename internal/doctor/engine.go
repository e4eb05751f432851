package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/docker"
)

const (
	// slowEngine is how long a healthy engine never takes for a ping.
	slowEngine = time.Second
	// inspectors is how many containers are asked about at once.
	inspectors = 8
)

// engineFacts is what Docker's API tells.
type engineFacts struct {
	Host string
	// Announced is the API version that the engine says it has, after Took.
	Announced string
	Took      time.Duration
	// Err is why the engine could not be reached; Trouble and Remedy are what is
	// wrong with its socket, if that is the reason.
	Err             error
	Trouble, Remedy string
	// Info is valid without InfoErr.
	Info    docker.Info
	InfoErr error
	// Containers are those that could be inspected; ListErr is why there may be
	// more.
	Containers []docker.Container
	ListErr    error
	// NoLog has the containers whose logs the engine cannot read back.
	NoLog map[string]bool
}

// gatherEngine asks the engine.
func gatherEngine(ctx context.Context, cfg *config.Config) (f engineFacts) {
	if !cfg.Monitors.Container.Enabled {
		return f
	}
	c, err := docker.New(cfg.Docker.Host)
	if err != nil {
		f.Err = err
		return f
	}
	defer c.Close() //nolint:errcheck // idle connections
	f.Host = c.Host()
	began := time.Now()
	f.Announced, f.Err = c.Announced(ctx)
	f.Took = time.Since(began)
	if f.Err != nil {
		if ctx.Err() == nil {
			f.Trouble, f.Remedy = docker.SocketTrouble(f.Host, f.Err)
		}
		return f
	}
	if f.Info, f.InfoErr = c.Info(ctx); f.InfoErr != nil {
		return f
	}
	list, err := c.List(ctx)
	if err != nil {
		f.ListErr = err
		return f
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(inspectors)
	f.NoLog = make(map[string]bool)
	for _, s := range list {
		g.Go(func() error {
			one, noLog, err := inspect(ctx, c, s.ID)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				f.Containers = append(f.Containers, one)
				f.NoLog[s.ID] = noLog
			case !docker.IsNotFound(err):
				f.ListErr = err
			}
			return nil
		})
	}
	_ = g.Wait() // its functions give no errors
	return f
}

// inspect asks about one container, and, if it depends on its log driver, whether
// its log can be read back: the engine says so when the log is opened.
func inspect(ctx context.Context, c *docker.Client, id string) (one docker.Container, noLog bool, err error) {
	one, err = c.Inspect(ctx, id)
	if err != nil || slices.Contains([]string{"json-file", "local", "journald", "none"}, one.Driver) {
		return one, false, err
	}
	log, err := c.Logs(ctx, id, docker.LogsOptions{Since: time.Now(), TTY: one.TTY, StartedAt: one.StartedAt})
	if err == nil {
		_ = log.Close() // nothing was read
	}
	// Any other failure says nothing of the driver.
	return one, errors.Is(err, docker.ErrNotReadable), nil
}

func notWatched(p policy, name string) (Check, bool) {
	return Check{Name: name, Status: Skip, Message: "monitors.container.enabled is false: no container is captured"}, !p.enabled
}

// checkEngine: can the engine be talked to?
func checkEngine(p policy, f engineFacts) Check {
	if c, skip := notWatched(p, nameEngine); skip {
		return c
	}
	switch {
	case f.Err != nil && f.Trouble != "":
		return Check{nameEngine, Fail, f.Trouble, f.Remedy}
	case f.Err != nil:
		return Check{nameEngine, Fail, f.Err.Error(), "start Docker, or set docker.host (or DOCKER_HOST) to where it listens; `docker info` must answer there"}
	case f.Took > slowEngine:
		return Check{nameEngine, Warn, fmt.Sprintf("%s answers, but after %s", f.Host, took(f.Took)), "see what keeps Docker busy: the agent gives up after 10 s"}
	}
	return Check{Name: nameEngine, Status: OK, Message: fmt.Sprintf("%s answers in %s", f.Host, took(f.Took))}
}

// checkAPI: is the engine's API one that we speak, and does it tell what we need?
func checkAPI(p policy, f engineFacts) Check {
	if c, skip := notWatched(p, nameAPI); skip {
		return c
	}
	switch {
	case f.Err != nil:
		return Check{Name: nameAPI, Status: Skip, Message: "Docker does not answer"}
	case olderThan(f.Announced, docker.MinAPIVersion):
		return Check{nameAPI, Fail, fmt.Sprintf("the engine has API %s: %s is needed", f.Announced, docker.MinAPIVersion), "update Docker to 19.03 or newer"}
	case f.InfoErr != nil:
		return Check{nameAPI, Fail, f.InfoErr.Error(), "unset DOCKER_API_VERSION if it is set; a proxy before the socket must let GET /info, /events and /containers pass"}
	case f.ListErr != nil:
		return Check{nameAPI, Fail, f.ListErr.Error(), "a proxy before the socket must let GET /containers pass; else see Docker's own log"}
	}
	return Check{Name: nameAPI, Status: OK, Message: fmt.Sprintf("Engine %s with API %s, %s is used; at least %s is needed", f.Info.ServerVersion, f.Announced, f.Info.APIVersion, docker.MinAPIVersion)}
}

// olderThan compares API versions such as 1.40. One that cannot be read is not
// older: the next call tells.
func olderThan(version, than string) bool {
	a, okA := parseVersion(version)
	b, okB := parseVersion(than)
	return okA && okB && slices.Compare(a, b) < 0
}

func parseVersion(s string) ([]int, bool) {
	major, minor, ok := strings.Cut(s, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return []int{a, b}, ok && err1 == nil && err2 == nil
}
