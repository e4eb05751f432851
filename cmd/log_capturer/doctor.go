package main

import (
	"context"
	"os"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/app"
	"github.com/log-capturer/log_capturer/internal/config"
)

const doctorDescription = `Looks at this machine as an agent with this configuration would find it: Docker's
socket and API, its directory and log files, limits of the kernel, data_dir, the way
to the store, the agent that runs, if one does, and for each container whether it is
captured, and why. One line each, and what to do after "->" where there is something:

  ok    all is well
  warn  it works, and wants attention
  FAIL  it does not
  skip  not looked at, or not captured as was wanted

What can be seen depends on who looks: run it as the agent runs, as its user and in its
container. A running agent is not disturbed. The store gets a push of nothing, which
says whether it takes the credentials; with --push-test also a line, with the label
job="log_capturer_doctor". It takes 10 seconds or so at most, whatever hangs.

Examples:

  log_capturer doctor --config config.yaml              everything
  log_capturer doctor --push-test                       and whether the store takes a line
  log_capturer doctor --json | jq -r '.checks[] | select(.status == "fail").message'

Exit status: 0 nothing failed, there may be warnings; 1 something failed; 2 the
configuration or the command line is wrong.`

// doctorCommand is the subcommand doctor.
func (p *program) doctorCommand(onUsageError cli.OnUsageErrorFunc) *cli.Command {
	return &cli.Command{
		Name:         "doctor",
		Usage:        "look for what keeps logs from being captured here",
		UsageText:    "log_capturer doctor [--config FILE] [--json] [--push-test]",
		Description:  doctorDescription,
		OnUsageError: onUsageError,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print an object with status, checks and containers instead of lines"},
			&cli.BoolFlag{Name: "push-test", Usage: "push a line to the store"},
		},
		Action: p.doctor,
	}
}

// doctor is the subcommand of that name.
func (p *program) doctor(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	file := c.String("config")
	report, wrong := app.Diagnose(ctx, file, func() (*config.Config, error) { return config.Load(file, p.env) }, c.Bool("push-test"))
	text := report.Text(p.colour())
	if c.Bool("json") {
		text = report.JSON()
	}
	if _, err := p.out.Write(text); err != nil {
		p.complain("log_capturer: write the result: %v\n", err)
		return statusError(exitFail)
	}
	switch {
	case wrong != nil:
		return statusError(exitUsage)
	case report.Failed():
		return statusError(exitFail)
	}
	return nil
}

// colour says whether the output is a terminal that may be coloured.
func (p *program) colour() bool {
	f, ok := p.out.(*os.File)
	if no, set := p.env("NO_COLOR"); !ok || set && no != "" {
		return false
	}
	if term, _ := p.env("TERM"); term == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
