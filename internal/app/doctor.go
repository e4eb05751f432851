package app

import (
	"context"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/doctor"
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
		SelfID: selfContainerID("/proc/self/mountinfo"), PushTest: pushTest,
	}), nil
}
