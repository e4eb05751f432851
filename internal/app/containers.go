package app

import (
	"context"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
)

// listContainers tells how each container's log is captured.
func (a *agent) listContainers(context.Context) []server.Container {
	if a.containers == nil {
		return nil
	}
	all := a.containers.Containers()
	out := make([]server.Container, len(all))
	for i := range all {
		out[i] = containerView(&all[i])
	}
	return out
}

func containerView(c *monitors.ContainerStatus) server.Container {
	v := server.Container{
		ID: c.ID, Name: c.Name, Image: c.Image, Driver: c.Driver, Method: c.Method, Reason: c.Reason,
		State: server.StateExited, Position: make(map[string]server.Position),
		LagSeconds: c.Lag.Round(time.Millisecond).Seconds(), Errors: c.Errors, LastErrorAt: timeOrNil(c.LastErrAt.UTC()),
		LinesRead: c.Stats.Read.Load(), LinesDelivered: c.Stats.Delivered.Load(),
		LinesDeadLettered: c.Stats.DeadLettered.Load(), LinesMalformed: c.Stats.Malformed.Load(),
		BytesLost: c.Stats.LostBytes.Load(), Gaps: c.Stats.Gaps.Load(),
		GapAfter: unixOrNil(c.Stats.GapAfter.Load()), GapBefore: unixOrNil(c.Stats.GapBefore.Load()),
	}
	if c.Running {
		v.State = server.StateRunning
	}
	if c.Method == monitors.MethodFileMonitor {
		v.UnreadBytes = &c.UnreadBytes
	}
	switch {
	case c.LastErr != nil:
		v.LastError = c.LastErr.Error()
	case c.Err != nil: // why its file is not read
		v.LastError = c.Err.Error()
	}
	for s, pos := range c.Delivered {
		if pos.Offset == 0 && pos.Time == 0 {
			continue // nothing yet
		}
		var at server.Position
		at.Time = unixOrNil(pos.Time)
		if (pos.File != entry.FileID{}) {
			at.Offset, at.Inode = &pos.Offset, pos.File.Inode
		}
		v.Position[entry.Stream(s).String()] = at
	}
	return v
}

// unixOrNil gives a time of ns since the Unix epoch; nil for 0, which is none.
func unixOrNil(ns int64) *time.Time {
	if ns <= 0 {
		return nil
	}
	t := time.Unix(0, ns).UTC()
	return &t
}
