package app

import (
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// TestContainerView: what is lost of a container is shown, and a position once
// something is delivered.
func TestContainerView(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	file := entry.FileID{Inode: 7, Handle: 8}
	c := monitors.ContainerStatus{Method: monitors.MethodFileMonitor, Stats: &entry.Stats{}}
	c.Delivered = [entry.NumStreams]entry.Position{{File: file, Offset: 9, Time: at.UnixNano()}, {File: file}}
	v := containerView(&c)
	if v.BytesLost != 0 || v.Gaps != 0 || v.GapAfter != nil || v.GapBefore != nil {
		t.Errorf("nothing is lost: %+v", v)
	}
	if p, ok := v.Position["stdout"]; len(v.Position) != 1 || !ok || *p.Offset != 9 || p.Inode != 7 || !p.Time.Equal(at) {
		t.Errorf("of stdout alone something is delivered: %+v", v.Position)
	}
	c.Stats.LostBytes.Store(2)
	c.Stats.Gaps.Store(3)
	c.Stats.GapAfter.Store(at.UnixNano())
	c.Stats.GapBefore.Store(at.Add(time.Hour).UnixNano())
	v = containerView(&c)
	if v.BytesLost != 2 || v.Gaps != 3 || !v.GapAfter.Equal(at) || !v.GapBefore.Equal(at.Add(time.Hour)) {
		t.Errorf("%+v", v)
	}
}
