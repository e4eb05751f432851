package app

import (
	"context"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/doctor"
	"github.com/log-capturer/log_capturer/internal/monitors"
)

// Diagnose looks at this machine as an agent with the configuration in file would
// find it. load reads the file; its error is given, with a report that has nothing
// but that. pushTest lets a line be pushed to the store. It takes about ten
// seconds at most, whatever hangs.
func Diagnose(ctx context.Context, file string, load func() (*config.Config, error), pushTest bool) (doctor.Report, error) {
	cfg, err := load()
	if err != nil {
		return doctor.NotValid(err), err
	}
	return doctor.Run(ctx, doctor.Options{
		File: file, Config: cfg, Store: LokiConfig(cfg.Sinks.Loki),
		Forecast: forecast(cfg), PushTest: pushTest,
	}), nil
}

// forecast gives what a configuration says of which containers are captured, and
// how. The agent and the doctor decide by it.
func forecast(cfg *config.Config) monitors.Forecast {
	c := cfg.Monitors.Container
	return monitors.Forecast{
		Routing: monitors.RoutingConfig{
			Files: c.FileBasedMonitoring.Enabled, LogDrivers: c.FileBasedMonitoring.LogDrivers,
			Fallback: c.FileBasedMonitoring.FallbackToStreaming, Streaming: c.Streaming.Enabled,
		},
		Selection:     monitors.Selection{Include: rules(c.Include), Exclude: rules(c.Exclude)},
		ContainersDir: cfg.Docker.ContainersDir, Self: self("/proc/self"),
	}
}

func rules(from []config.ContainerRule) []monitors.Rule {
	rules := make([]monitors.Rule, len(from))
	for i, r := range from {
		rules[i] = monitors.Rule(r)
	}
	return rules
}
