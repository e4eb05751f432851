package monitors

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkPoll is the poll over 1,000 idle logs: where a look at the files held may
// do, and where each is looked at by its path. It reports CPU time of this process,
// since on a busy machine the other kind says little.
func BenchmarkPoll(b *testing.B) {
	for _, kind := range []struct {
		name    string
		settled time.Duration
	}{{"held", -1}, {"path", 24 * time.Hour}} {
		b.Run(kind.name, func(b *testing.B) {
			f := newFixture(b, nil, func(cfg *FileMonitorConfig) { cfg.Settled = kind.settled })
			const logs = 1000
			for i := range logs {
				f.idle(fmt.Sprintf("%064d", i))
			}
			f.m.poll()
			b.ReportAllocs()
			cpu := cpuTime(b)
			for b.Loop() {
				f.m.poll()
			}
			b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(b.N)/logs, "cpu-ns/log")
			if missed := metric(b, f.reg, "file_events_missed_total"); missed > 0 {
				b.Errorf("%v logs were not idle", missed)
			}
			for _, lg := range f.m.logs {
				lg.tail.Close()
			}
		})
	}
}
