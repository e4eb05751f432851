package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// Status is what a check came to. The order is that of severity.
type Status uint8

// The statuses.
const (
	Skip Status = iota // not looked at, for the reason in the message
	OK
	Warn // works, and wants attention
	Fail
)

var statusNames = [...]string{Skip: "skip", OK: "ok", Warn: "warn", Fail: "fail"}

// String gives skip, ok, warn or fail.
func (s Status) String() string { return statusNames[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Status) UnmarshalText(text []byte) error {
	i := slices.Index(statusNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is no status of a check", text)
	}
	*s = Status(i)
	return nil
}

// Check is the result of one check. No text has a secret in it; texts come from
// outside in part and may hold anything else.
type Check struct {
	Name    string `json:"name"`
	Status  Status `json:"status"`
	Message string `json:"message"`          // what was found
	Remedy  string `json:"remedy,omitempty"` // what to do; empty when all is well
}

// Container says how the log of a container is captured, and why.
type Container struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Image  string `json:"image"`
	Driver string `json:"driver"`
	// Method is file_monitor, streaming or none; empty if it is not known.
	Method string `json:"method"`
	Status Status `json:"status"`
	// Message is the reason, and what deserves a warning.
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// Report is all that was found.
type Report struct {
	Status     Status      `json:"status"` // the worst of all
	Checks     []Check     `json:"checks"`
	Containers []Container `json:"containers"` // by name
}

// Failed says whether anything has failed.
func (r *Report) Failed() bool { return r.Status == Fail }

func newReport(checks []Check, containers []Container) Report {
	r := Report{Status: OK, Checks: checks, Containers: containers}
	for _, c := range checks {
		r.Status = max(r.Status, c.Status)
	}
	for _, c := range containers {
		r.Status = max(r.Status, c.Status)
	}
	return r
}

// Time limits. All gathering is side by side, but that of files, which follows the
// engine's: the whole takes no longer than engineLimit + logsLimit + 2 × patience.
const (
	engineLimit = 6 * time.Second
	logsLimit   = 3 * time.Second
	localLimit  = 5 * time.Second // data_dir and limits of the kernel
	storeLimit  = 5 * time.Second // for the push of nothing, and again for the test push
	agentLimit  = 4 * time.Second
	// patience is for what is cut off at its limit to say so.
	patience = 300 * time.Millisecond
)

// Options say what is looked at.
type Options struct {
	// File is the name of the configuration, Config what it says.
	File   string
	Config *config.Config
	// Store is what the agent's client of the store is made of. Not used with the
	// stdout sink.
	Store loki.Config
	// Forecast is how an agent decides which containers are captured, and how.
	Forecast monitors.Forecast
	// PushTest lets a line be pushed to the store.
	PushTest bool
}

// Run looks at everything. It takes about 10 seconds at most, whatever hangs; a
// file system that hangs keeps a goroutine beyond that. The error of ctx ends it
// sooner.
func Run(ctx context.Context, o Options) Report {
	cfg := o.Config
	c := cfg.Monitors.Container
	p := policy{enabled: c.Enabled, forecast: o.Forecast, maxStream: c.Streaming.MaxStreams}

	waitEngine := begin(ctx, engineLimit, func(ctx context.Context) engineFacts { return gatherEngine(ctx, cfg) })
	waitKernel := begin(ctx, localLimit, func(context.Context) kernelFacts { return gatherKernel("/proc") })
	waitDir := begin(ctx, localLimit, func(context.Context) dataDirFacts { return gatherDataDir(cfg.DataDir) })
	waitStore := begin(ctx, 2*storeLimit, func(ctx context.Context) storeFacts { return gatherStore(ctx, o) })
	waitAgent := begin(ctx, agentLimit, func(ctx context.Context) agentFacts { return gatherAgent(ctx, cfg.Server) })

	engine, answered := waitEngine()
	if !answered {
		engine.Err = errNoAnswer(engineLimit)
	}
	p.forecast.RootDir = engine.Info.RootDir
	logs, read := begin(ctx, logsLimit, func(ctx context.Context) logFacts { return gatherLogs(ctx, &p.forecast, engine.Containers) })()
	if !read {
		logs = logFacts{Dir: p.forecast.Dir(), DirErr: errNoAnswer(logsLimit)}
	}
	agent, answered := waitAgent()
	if !answered {
		agent.Err = errNoAnswer(agentLimit)
	}

	checks := []Check{{Name: nameConfig, Status: OK, Message: o.File + " is valid"}}
	checks = append(checks, checkEngine(p, engine), checkAPI(p, engine), checkDirectory(p, engine, logs), checkLogFiles(p, engine, logs))
	if kernel, ok := waitKernel(); ok {
		files, streams := p.roads(engine, logs)
		checks = append(checks, checkInotify(p, kernel, files), checkDescriptors(kernel, files, streams))
	} else {
		checks = append(checks, stuck(nameInotify, "/proc"), stuck(nameDescriptors, "/proc"))
	}
	dir, ok := waitDir()
	if ok {
		checks = append(checks, checkDataDir(dir), checkSpace(dir, cfg.Spool, cfg.Sinks.Stdout.Enabled))
	} else {
		checks = append(checks, stuck(nameDataDir, cfg.DataDir), stuck(nameSpace, cfg.DataDir))
	}
	store, ok := waitStore()
	if !ok && store.Err == nil {
		store.Err = errNoAnswer(2 * storeLimit)
	}
	checks = append(checks, checkStore(store)...)
	checks = append(checks, checkAgent(agent, dir)...)
	return newReport(checks, judgeContainers(p, engine, logs, agent))
}

// NotValid is the report on a configuration that cannot be used: nothing else is
// looked at.
func NotValid(err error) Report {
	var checks []Check
	for line := range strings.SplitSeq(err.Error(), "\n") {
		checks = append(checks, Check{nameConfig, Fail, line, "correct the file; `log_capturer validate` checks it"})
	}
	return newReport(checks, []Container{})
}

// The names of the checks, in their order.
const (
	nameConfig      = "configuration"
	nameEngine      = "docker"
	nameAPI         = "docker api"
	nameDirectory   = "containers directory"
	nameLogFiles    = "log files"
	nameInotify     = "inotify"
	nameDescriptors = "descriptors"
	nameDataDir     = "data_dir"
	nameSpace       = "data_dir space"
	nameAddress     = "store address"
	nameConnection  = "store connection"
	nameTLS         = "store tls"
	nameStore       = "store"
	nameClock       = "store clock"
	namePush        = "store test push"
	nameAgent       = "agent"
)

// begin gathers facts in a goroutine, whose context ends after a limit. wait gives
// them, or false if they do not come: a system call that hangs ends with nothing.
func begin[T any](ctx context.Context, limit time.Duration, gather func(context.Context) T) (wait func() (T, bool)) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoAnswer(limit))
	result := make(chan T, 1)
	go func() { result <- gather(ctx) }()
	return func() (facts T, ok bool) {
		defer cancel()
		select {
		case facts = <-result:
			return facts, true
		case <-ctx.Done():
		}
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case facts = <-result:
			return facts, true
		case <-timer.C:
			return facts, false
		}
	}
}

// errNoAnswer is the error of what has taken too long.
type errNoAnswer time.Duration

func (e errNoAnswer) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// stuck is the result of a check whose facts have not come.
func stuck(name, path string) Check {
	return Check{name, Fail, path + " cannot be looked at: the file system does not answer", "look at its mount: a network file system whose server is gone, or a failing disk"}
}

// policy is what the configuration says of containers.
type policy struct {
	enabled   bool
	forecast  monitors.Forecast
	maxStream int
}

// byName orders containers.
func byName(a, b Container) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) }

// number is a number of things.
func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// size shows bytes in the largest binary unit of which there is one.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/(1<<10), 0
	for f >= 1<<10 {
		f /= 1 << 10
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// took shows a duration for people.
func took(d time.Duration) string {
	if d < time.Second {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
