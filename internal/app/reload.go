package app

import (
	"context"
	"errors"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
)

// reload asks for a reload; result has room for one and takes what is wrong with
// the configuration, nil if it will be used.
type reload struct{ result chan error }

// reload asks for the configuration to be read anew and used (POST /-/reload).
// It gives the configuration's faults. The agent stops soon after it has returned
// nil.
func (a *agent) reload(ctx context.Context) error {
	r := reload{result: make(chan error, 1)}
	select {
	case a.reloads <- r:
	case <-ctx.Done():
		return errors.New("the agent is stopping")
	}
	return <-r.result
}

// wait waits until the agent is to stop, and gives the configuration that it is
// to go on with, if any. Faulty ones are told and change nothing. Meanwhile it
// looks at the agent from time to time.
func (a *agent) wait(ctx context.Context, o Options) *config.Config {
	look := time.NewTicker(samplePeriod)
	defer look.Stop()
	for {
		var r reload
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			a.sample(ctx)
			o.Processors.adapt(time.Now())
			continue
		case <-o.Reload:
			r.result = make(chan error, 1)
		case r = <-a.reloads:
		}
		cfg, err := a.load(o)
		r.result <- err
		if err == nil {
			a.log.Info("configuration is read anew: what is under way is delivered, then the agent goes on with it")
			return cfg
		}
		a.log.Error("new configuration has faults; the old one stays in force", "error", err)
	}
}

func (a *agent) load(o Options) (*config.Config, error) {
	if o.Load == nil {
		return nil, errors.New("this agent cannot reload its configuration")
	}
	return o.Load()
}
