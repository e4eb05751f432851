package app

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/dispatch"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
)

func TestJudge(t *testing.T) {
	now := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tc := range []struct {
		name string
		s    states
		want server.Status
		// says is part of a problem; "" when there must be none.
		says string
	}{
		{name: "all is well", want: server.StatusOK},
		{"docker is gone", states{engine: &monitors.ContainerHealth{Err: errors.New("no such socket")}}, server.StatusUnhealthy, "no such socket"},
		{"a driver without files", states{engine: &monitors.ContainerHealth{NotCaptured: map[string]int{"local": 2, "none": 1}}}, server.StatusDegraded, "2 containers are not captured"},
		{"a driver that keeps nothing", states{engine: &monitors.ContainerHealth{NotCaptured: map[string]int{"none": 1}}}, server.StatusOK, ""},
		{"containers that are not wanted", states{engine: &monitors.ContainerHealth{Excluded: 3}}, server.StatusOK, ""},
		{"no directory", states{engine: &monitors.ContainerHealth{DirErr: errors.New("not mounted"), Broken: 2, BrokenBy: errors.New("not mounted")}, fallsBack: true}, server.StatusUnhealthy, "no log can be read from its file (they are streamed through the Docker API meanwhile"},
		{"a breaker is open", states{engine: &monitors.ContainerHealth{Broken: 1, BrokenBy: errors.New("EIO")}}, server.StatusDegraded, "1 containers are streamed because their log files cannot be read: EIO"},
		{"the only log, before it is streamed", states{files: monitors.FileHealth{FilesMonitored: 1, Failed: 1, FailedBy: errors.New("EIO")}, fallsBack: true}, server.StatusDegraded, "1 of 1 logs cannot be read: EIO"},
		{"streams fail", states{streams: monitors.StreamHealth{Failed: 2, FailedBy: errors.New("no engine")}}, server.StatusDegraded, "2 containers cannot be streamed: no engine"},
		{"a stream has lost lines", states{streams: monitors.StreamHealth{GapAt: ago(time.Minute)}}, server.StatusUnhealthy, "removed before their streams had been read"},
		{"one log of many", states{files: monitors.FileHealth{FilesMonitored: 5, Failed: 1, FailedBy: errors.New("EIO")}}, server.StatusDegraded, "1 of 5 logs cannot be read: EIO"},
		{"every log", states{files: monitors.FileHealth{FilesMonitored: 5, Failed: 5, FailedBy: errors.New("EACCES")}}, server.StatusUnhealthy, "no log can be read: EACCES"},
		{"lines lost a while ago", states{files: monitors.FileHealth{GapAt: ago(10 * time.Minute)}}, server.StatusUnhealthy, "lines were lost"},
		{"lines lost long ago", states{files: monitors.FileHealth{GapAt: ago(16 * time.Minute)}}, server.StatusOK, ""},
		{"the rest of a file lost", states{files: monitors.FileHealth{LostAt: ago(14 * time.Minute)}}, server.StatusUnhealthy, "lines were lost: the rest of log files"},
		{"the rest of a file lost long ago", states{files: monitors.FileHealth{LostAt: ago(16 * time.Minute)}}, server.StatusOK, ""},
		{"malformed lines", states{files: monitors.FileHealth{MalformedAt: ago(time.Minute)}}, server.StatusDegraded, "no entries of Docker's"},
		{"the store fails since a moment", states{lanes: []dispatch.LaneHealth{{}, {FailingSince: ago(29 * time.Second), LastError: "503"}}}, server.StatusDegraded, "the store does not accept lines: 503"},
		{"the store fails for long", states{lanes: []dispatch.LaneHealth{{FailingSince: ago(31 * time.Second), LastError: "503"}}}, server.StatusUnhealthy, "503"},
		{"a wrong password", states{lanes: []dispatch.LaneHealth{{FailingSince: ago(time.Second), LastError: "401", Config: true}}}, server.StatusDegraded, "401"},
		{"a stream is refused", states{lanes: []dispatch.LaneHealth{{HeldStreams: 2, HeldError: "429"}}}, server.StatusDegraded, "refuses 2 streams for now: 429"},
		{"no dead letters since a moment", states{lanes: []dispatch.LaneHealth{{DeadLettersSince: ago(time.Second), DeadLettersError: "ENOSPC"}}}, server.StatusDegraded, "ENOSPC"},
		{"no dead letters for long", states{lanes: []dispatch.LaneHealth{{DeadLettersSince: ago(time.Minute), DeadLettersError: "ENOSPC"}}}, server.StatusUnhealthy, "ENOSPC"},
		{"dead letters", states{dead: deadHealth{at: ago(time.Minute), records: 3}}, server.StatusDegraded, "refused lines for good"},
		{"positions are not saved", states{positions: errors.New("positions not saved: EIO")}, server.StatusDegraded, "EIO"},
		{
			"the worst counts",
			states{positions: errors.New("EIO"), engine: &monitors.ContainerHealth{Err: errors.New("gone")}, dead: deadHealth{at: now}},
			server.StatusUnhealthy, "refused lines for good",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.s.now = now
			tc.s.loki = &loki.Health{}
			h := judge(tc.s)
			if h.Status != tc.want {
				t.Errorf("status %s, want %s", h.Status, tc.want)
			}
			all := ""
			for _, p := range h.Problems {
				if p.What == "" || p.Remedy == "" {
					t.Errorf("a problem without words or remedy: %+v", p)
				}
				all += p.What + "\n"
			}
			if tc.says == "" && all != "" || !strings.Contains(all, tc.says) {
				t.Errorf("problems %q, want %q", all, tc.says)
			}
			if h.Monitors["file_monitor"] == nil || h.Monitors["streaming"] == nil || h.Sinks["loki"] == nil {
				t.Errorf("a component is missing: %+v", h)
			}
		})
	}
}

func TestJudgeWithoutEngine(t *testing.T) {
	h := judge(states{now: time.Now()})
	if h.Status != server.StatusOK || h.Docker != nil || h.Sinks["stdout"] == nil {
		t.Errorf("%+v", h)
	}
}
