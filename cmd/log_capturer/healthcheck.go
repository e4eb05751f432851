package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/server"
)

// healthcheckTimeout is how long the agent may take to say that it lives: less
// than those who run the check wait (the Dockerfile: 5 s), so that the reason is
// told.
const healthcheckTimeout = 3 * time.Second

const healthcheckDescription = `Asks the agent with this configuration whether it lives (/livez), at server.host
and server.port. It is for a HEALTHCHECK in an image that has nothing else to ask
with. That the store or Docker is away is not asked: nobody is to be restarted
for that, see /health.

Exit status: 0 it lives; 1 it does not answer, or the configuration cannot be read.`

// healthcheckCommand is the subcommand healthcheck.
func (p *program) healthcheckCommand(onUsageError cli.OnUsageErrorFunc) *cli.Command {
	return &cli.Command{
		Name:         "healthcheck",
		Usage:        "ask the running agent whether it lives; for a container's HEALTHCHECK",
		UsageText:    "log_capturer healthcheck [-config FILE]",
		Description:  healthcheckDescription,
		OnUsageError: onUsageError,
		Action:       p.healthcheck,
	}
}

// healthcheck is the subcommand of that name. It does not exit with status 2,
// which Docker keeps for itself in health checks.
func (p *program) healthcheck(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	cfg, err := config.Load(c.String("config"), p.env)
	if err != nil {
		p.complain("%v\n", err)
		return statusError(exitFail)
	}
	// One connection, and it ends with the check.
	rt := &http.Transport{DisableKeepAlives: true}
	if err := alive(ctx, rt, cfg.Server); err != nil {
		p.complain("log_capturer: healthcheck: %s\n", server.PrintableText(err.Error()))
		return statusError(exitFail)
	}
	return nil
}

// alive asks the agent with this configuration whether it lives, and gives why
// not.
func alive(ctx context.Context, rt http.RoundTripper, s config.Server) error {
	if s.Port == 0 {
		return errors.New("server.port is 0, any free port: set the port that is to be asked")
	}
	base, err := agentURL(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("livez").String(), nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the agent at %s has not answered within %v", base.Host, healthcheckTimeout)
	case err != nil:
		var of *url.Error // names the request once more
		if errors.As(err, &of) {
			err = of.Err
		}
		return fmt.Errorf("no agent answers at %s: %w", base.Host, err)
	}
	defer func() { _ = res.Body.Close() }() // only read from
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // the status is enough
		return fmt.Errorf("the agent at %s answers %s: %s", base.Host, res.Status, cell(strings.TrimSpace(string(body)), 200))
	}
	return nil
}
