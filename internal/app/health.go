package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
	"github.com/log-capturer/log_capturer/internal/spool"
)

const (
	// storeGrace is how long the store may fail before that is unhealthy.
	storeGrace = 30 * time.Second
	// recent is how long something that happened is shown as a problem.
	recent = 15 * time.Minute
)

// fileMonitorView is .monitors.file_monitor of /health.
type fileMonitorView struct {
	State          string `json:"state"` // ok, degraded or unhealthy
	FilesMonitored int    `json:"files_monitored"`
	FilesFailed    int    `json:"files_failed"`
	FilesHeld      int64  `json:"files_held"`
	StreamsRefused int    `json:"logs_held_by_store"`
	// FileSystemAccess is "ok" or why logs cannot be read.
	FileSystemAccess string  `json:"file_system_access"`
	LagBytes         int64   `json:"lag_bytes"`   // not read yet
	LagSeconds       float64 `json:"lag_seconds"` // age of the oldest batch on its way
}

// streamMonitorView is .monitors.streaming of /health.
type streamMonitorView struct {
	State          string  `json:"state"`           // ok, degraded or unhealthy
	Containers     int     `json:"containers"`      // running, on this road
	Following      int     `json:"following"`       // connections that stay
	InTurns        int     `json:"in_turns"`        // connections of the moment
	MaxStreams     int     `json:"max_streams"`     // bound on both
	Failed         int     `json:"failed"`          // containers that cannot be streamed now
	Error          string  `json:"error,omitempty"` // why one of them cannot
	StreamsRefused int     `json:"logs_held_by_store"`
	InsteadOfFiles int     `json:"instead_of_files"` // containers whose breaker is open
	LagSeconds     float64 `json:"lag_seconds"`      // for how long the log that waits longest is unread
}

// dockerView is .docker of /health.
type dockerView struct {
	State       string         `json:"state"`
	Error       string         `json:"error,omitempty"`
	Since       *time.Time     `json:"since,omitempty"` // of the error
	Synced      bool           `json:"synced"`
	NotCaptured map[string]int `json:"not_captured"` // containers by log driver
	Excluded    int            `json:"excluded"`     // by include, exclude or their own label
}

// sinkView is one of .sinks of /health.
type sinkView struct {
	State        string     `json:"state"`
	FailingSince *time.Time `json:"failing_since,omitempty"`
	LastSuccess  *time.Time `json:"last_success,omitempty"`
	LastError    string     `json:"last_error,omitempty"`
	PendingBytes int        `json:"pending_bytes"`
	ParkedBytes  int        `json:"parked_bytes"`
	DeadLetters  int64      `json:"dead_letters"`
}

// spoolView is .spool of /health.
type spoolView struct {
	State           string     `json:"state"` // empty, filling, draining or full
	Frames          uint64     `json:"frames"`
	Records         uint64     `json:"records"` // lines
	Bytes           int64      `json:"bytes"`
	DiskBytes       int64      `json:"disk_bytes"`
	MaxBytes        int64      `json:"max_bytes"`
	Oldest          *time.Time `json:"oldest,omitempty"`            // time of the oldest line
	TimeLeftSeconds float64    `json:"time_left_seconds,omitempty"` // at the present rate
	Error           string     `json:"error,omitempty"`
}

// states is what health is made of: the components' own words at one moment.
type states struct {
	now       time.Time
	files     monitors.FileHealth
	streams   monitors.StreamHealth
	fallsBack bool                      // what cannot be read from a file is streamed
	engine    *monitors.ContainerHealth // nil: not watched
	lanes     []dispatch.LaneHealth
	loki      *loki.Health  // nil: stdout
	spool     *spool.Health // nil: none
	positions error
	dead      deadHealth
}

// deadHealth is the state of the dead-letter file.
type deadHealth struct {
	at      time.Time // of the newest record that was refused for good
	records int64     // since the start
}

func (a *agent) health(context.Context) server.Health {
	s := states{now: time.Now(), files: a.files.Health(), streams: a.streams.Health(), lanes: a.dispatcher.Health(), positions: a.positions.Health(), dead: a.dead.health()}
	c := a.cfg.Monitors.Container
	s.fallsBack = c.FileBasedMonitoring.FallbackToStreaming && c.Streaming.Enabled
	if a.containers != nil {
		h := a.containers.Health()
		s.engine = &h
	}
	if a.loki != nil {
		h := a.loki.Health()
		s.loki = &h
	}
	if a.spool != nil {
		h := a.spool.Health()
		s.spool = &h
	}
	return judge(s)
}

// ready says why the agent does not read yet.
func (a *agent) ready(context.Context) error {
	if a.containers == nil {
		return nil
	}
	switch h := a.containers.Health(); {
	case h.Err != nil:
		return h.Err
	case !h.Synced:
		return errors.New("the containers have not been listed yet")
	}
	return nil
}

// verdict collects problems and keeps the worst status.
type verdict struct {
	status   server.Status
	problems []server.Problem
}

func (v *verdict) add(s server.Status, what, remedy string) {
	if v.status != server.StatusUnhealthy {
		v.status = s
	}
	v.problems = append(v.problems, server.Problem{What: what, Remedy: remedy})
}

// of gives what adds a problem of a component, and keeps the component's worst
// state.
func (v *verdict) of(state *string) func(s server.Status, what, remedy string) {
	return func(s server.Status, what, remedy string) {
		v.add(s, what, remedy)
		if *state != string(server.StatusUnhealthy) {
			*state = string(s)
		}
	}
}

// judge decides how the agent is. Which problem weighs how much is promised in
// docs/contract.md.
func judge(s states) server.Health {
	v := verdict{status: server.StatusOK}
	file := judgeFiles(s, &v)
	streaming := judgeStreams(s, &v)
	engine := judgeEngine(s, &v)
	name, sink := judgeSink(s, &v)
	if s.positions != nil {
		v.add(server.StatusDegraded, s.positions.Error(), "make room on the file system of data_dir, or mend it; until then lines may be sent twice after a restart")
	}
	h := server.Health{
		Monitors: map[string]any{"file_monitor": file, "streaming": streaming},
		Sinks:    map[string]any{name: sink},
	}
	if engine != nil {
		h.Docker = engine
	}
	if sp := judgeSpool(s, &v); sp != nil {
		h.Spool = sp
	}
	h.Status, h.Problems = v.status, v.problems
	return h
}

func judgeSpool(s states, v *verdict) *spoolView {
	if s.spool == nil {
		return nil
	}
	h := s.spool
	view := &spoolView{
		State: string(h.State), Frames: h.Frames, Records: h.Records, Bytes: h.Bytes, DiskBytes: h.DiskBytes, MaxBytes: h.MaxBytes,
		TimeLeftSeconds: h.TimeLeft.Round(time.Second).Seconds(),
	}
	if !h.Oldest.IsZero() {
		oldest := h.Oldest.UTC()
		view.Oldest = &oldest
	}
	switch {
	case h.Full != nil:
		view.Error = h.Full.Error()
		v.add(server.StatusUnhealthy, "the spool takes no more: "+view.Error, "see the message; until then lines wait in their logs, where rotation may take them")
	case h.WriteError != nil:
		view.Error = h.WriteError.Error()
		v.add(server.StatusUnhealthy, "the spool cannot be written: "+view.Error, "make room on the file system of data_dir, or mend it; until then lines wait in their logs, where rotation may take them")
	}
	return view
}

func judgeFiles(s states, v *verdict) fileMonitorView {
	f := s.files
	view := fileMonitorView{
		State: string(server.StatusOK), FilesMonitored: f.FilesMonitored, FilesFailed: f.Failed, FilesHeld: f.FilesHeld,
		StreamsRefused: f.Held, FileSystemAccess: "ok", LagBytes: f.UnreadBytes,
	}
	for _, l := range s.lanes {
		view.LagSeconds = max(view.LagSeconds, l.OldestPending.Round(time.Millisecond).Seconds())
	}
	set := v.of(&view.State)
	var dirErr error
	if s.engine != nil {
		dirErr = s.engine.DirErr
	}
	switch {
	case dirErr != nil:
		view.FileSystemAccess = dirErr.Error()
		instead := ""
		if s.fallsBack {
			instead = " (they are streamed through the Docker API meanwhile, which costs more and loses lines at fast rotation)"
		}
		set(server.StatusUnhealthy, "no log can be read from its file"+instead+": "+dirErr.Error(), "see the message; the directory is tried again by itself")
	case f.Failed > 0:
		view.FileSystemAccess = f.FailedBy.Error()
		status, which := server.StatusDegraded, fmt.Sprintf("%d of %d logs cannot be read", f.Failed, f.FilesMonitored)
		if f.Failed == f.FilesMonitored && !s.fallsBack {
			status, which = server.StatusUnhealthy, "no log can be read"
		}
		set(status, which+": "+f.FailedBy.Error(), "see the message; the logs are tried again by themselves")
	}
	if within(s.now, f.GapAt) {
		set(server.StatusUnhealthy, "lines were lost: log files had been rotated away before they were read", "larger or more log files (log-opts max-size, max-file) bridge longer outages")
	}
	if within(s.now, f.LostAt) {
		set(server.StatusUnhealthy, "lines were lost: the rest of log files had to be given up", "the log says of each container why, and what would have saved it")
	}
	if within(s.now, f.MalformedAt) {
		set(server.StatusDegraded, "log files contain lines that are no entries of Docker's", "see the dead-letter file; usual causes are a full disk, a power loss or a program that writes to the files")
	}
	return view
}

func judgeStreams(s states, v *verdict) streamMonitorView {
	h := s.streams
	view := streamMonitorView{
		State: string(server.StatusOK), Containers: h.Running, Following: h.Following, InTurns: h.InTurns, MaxStreams: h.MaxStreams,
		Failed: h.Failed, StreamsRefused: h.Held, LagSeconds: h.Lag.Round(time.Millisecond).Seconds(),
	}
	set := v.of(&view.State)
	if h.Failed > 0 {
		view.Error = h.FailedBy.Error()
		set(server.StatusDegraded, fmt.Sprintf("%d containers cannot be streamed: %s", h.Failed, view.Error), "see the message; they are tried again by themselves")
	}
	if within(s.now, h.GapAt) {
		set(server.StatusUnhealthy, "lines were lost: containers were removed before their streams had been read to the end", "use the log driver json-file for containers that are removed soon, or raise streaming.max_streams")
	}
	if s.engine != nil && s.engine.Broken > 0 {
		view.InsteadOfFiles = s.engine.Broken
		if s.engine.DirErr == nil { // else it has been said
			set(server.StatusDegraded, fmt.Sprintf("%d containers are streamed because their log files cannot be read: %v", s.engine.Broken, s.engine.BrokenBy), "see the message; the files are tried again by themselves")
		}
	}
	return view
}

func judgeEngine(s states, v *verdict) *dockerView {
	if s.engine == nil {
		return nil
	}
	e := s.engine
	view := &dockerView{State: string(server.StatusOK), Synced: e.Synced, NotCaptured: e.NotCaptured, Excluded: e.Excluded}
	if e.Err != nil {
		view.State, view.Error, view.Since = string(server.StatusUnhealthy), e.Err.Error(), &e.Since
		v.add(server.StatusUnhealthy, "Docker cannot be reached: "+e.Err.Error(), "start Docker, or set docker.host; the agent goes on trying, and reads the logs it knows")
	}
	total := 0
	for driver, n := range e.NotCaptured {
		if driver != "none" { // that keeps nothing, as was wanted
			total += n
		}
	}
	if total > 0 {
		v.add(server.StatusDegraded, fmt.Sprintf("%d containers are not captured: their logs cannot be read as the agent is configured", total), "`log_capturer containers` says why for each; use the log driver json-file, or allow streaming")
	}
	return view
}

func judgeSink(s states, v *verdict) (name string, view sinkView) {
	view = sinkView{State: string(server.StatusOK), DeadLetters: s.dead.records}
	name = "stdout"
	if s.loki != nil {
		name = "loki"
		view.LastSuccess = timeOrNil(s.loki.LastSuccess)
	}
	set := v.of(&view.State)
	var since, deadSince time.Time
	var deadErr, heldErr string
	config, held := false, 0
	for _, l := range s.lanes {
		view.PendingBytes += l.PendingBytes
		view.ParkedBytes += l.ParkedBytes
		if !l.FailingSince.IsZero() && (since.IsZero() || l.FailingSince.Before(since)) {
			since, view.LastError, config = l.FailingSince, l.LastError, l.Config
		}
		if !l.DeadLettersSince.IsZero() && (deadSince.IsZero() || l.DeadLettersSince.Before(deadSince)) {
			deadSince, deadErr = l.DeadLettersSince, l.DeadLettersError
		}
		if l.HeldStreams > 0 {
			held += l.HeldStreams
			heldErr = l.HeldError
			config = config || l.HeldConfig
		}
	}
	status := func(since time.Time) server.Status {
		if s.now.Sub(since) > storeGrace {
			return server.StatusUnhealthy
		}
		return server.StatusDegraded
	}
	if !since.IsZero() {
		view.FailingSince = &since
		remedy := "nothing is lost while there is room for it; the agent goes on trying"
		if config {
			remedy = "correct the configuration here or at the store; the agent goes on trying"
		}
		set(status(since), "the store does not accept lines: "+view.LastError, remedy)
	}
	if held > 0 {
		set(server.StatusDegraded, fmt.Sprintf("the store refuses %d streams for now: %s", held, heldErr), "raise the store's limits, or let the container log less; its lines wait")
	}
	if !deadSince.IsZero() {
		set(status(deadSince), "the dead-letter file cannot be written: "+deadErr, "make room on the file system of data_dir, or mend it")
	}
	if within(s.now, s.dead.at) {
		set(server.StatusDegraded, "the store has refused lines for good; they are in the dead-letter file", "see the reasons in data_dir/dead_letters")
	}
	return name, view
}

func within(now, at time.Time) bool { return !at.IsZero() && now.Sub(at) < recent }

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
