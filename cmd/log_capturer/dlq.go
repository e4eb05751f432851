package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/log-capturer/log_capturer/internal/app"
	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/loki"
	"github.com/log-capturer/log_capturer/internal/server"
)

const dlqListDescription = `Shows the lines in data_dir/dead_letters: those that the store has refused for good,
and malformed ones, of which it has been sent a copy as a rule. It only reads,
whether the agent runs or not.

  TIME       when the line was put there
  CONTAINER  its name
  KIND       refused, or malformed: no entry of Docker's
  REASON     the store's words
  SIZE       of the line, in bytes
  TEXT       its beginning

Examples:

  log_capturer dlq list --config config.yaml            oldest first
  log_capturer dlq list --since 24h --container 'web*'  of a day, of some containers
  log_capturer dlq list --summary                       how many, by container and reason
  log_capturer dlq list --json | jq -r '.raw|@base64d'  the lines themselves

What a replay has sent is left out, unless --all is given.

Exit status: 0 done; 1 they cannot be read; 2 the configuration or the command
line is wrong.`

const dlqReplayDescription = `Sends the lines in data_dir/dead_letters again, with their labels and times, to the
store of the configuration: after its limits have been raised, say. What the store
accepts is remembered and not sent by a further replay; what it refuses stays.
The agent may run meanwhile. Nothing is deleted.

Copies of malformed lines were shipped when they were read, and are left out
unless --copies is given.

A replay that is killed has sent some lines that it could not remember, those of one
request at most: the next one sends them again.

Examples:

  log_capturer dlq replay --config config.yaml --dry-run    how many
  log_capturer dlq replay --config config.yaml              send them
  log_capturer dlq replay --container web --since 24h       some of them

Exit status: 0 all were accepted, or there were none; 1 some were refused, or the
store or the files cannot be used; 2 the configuration or the command line is
wrong.`

// kinds are what --kind may be.
var kinds = []string{string(deadletter.Refused), string(deadletter.Malformed)}

// dlqCommand is the subcommand dlq with its own.
func (p *program) dlqCommand(onUsageError cli.OnUsageErrorFunc) *cli.Command {
	filters := func(more ...cli.Flag) []cli.Flag {
		return append([]cli.Flag{
			&cli.StringFlag{Name: "container", Usage: "only of containers whose name is `NAME`, a pattern with * and ?, or whose ID begins so"},
			&cli.StringFlag{Name: "kind", Usage: "only of this `KIND`: " + strings.Join(kinds, ", ")},
			&cli.StringFlag{Name: "since", Usage: "only put there since `TIME`: an age such as 24h, or as 2006-01-02T15:04:05Z"},
		}, more...)
	}
	return &cli.Command{
		Name:         "dlq",
		Usage:        "look at the dead letters, or send them again",
		UsageText:    "log_capturer dlq list\nlog_capturer dlq replay",
		Description:  "Dead letters are lines that the store has refused for good, and malformed ones.",
		OnUsageError: onUsageError,
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return errors.New("dlq: list or replay")
		},
		Commands: []*cli.Command{
			{
				Name:         "list",
				Usage:        "show the dead letters",
				UsageText:    "log_capturer dlq list [--config FILE | --data-dir DIR] [--container NAME] [--kind KIND] [--since TIME] [--limit N] [--all] [--json | --summary]",
				Description:  dlqListDescription,
				OnUsageError: onUsageError,
				Flags: filters(
					&cli.StringFlag{Name: "data-dir", Usage: "read those of the agent with this `DIR`, without its configuration", TakesFile: true},
					&cli.IntFlag{Name: "limit", Usage: "only the newest `N`; 0 is no limit"},
					&cli.BoolFlag{Name: "all", Usage: "also what a replay has sent"},
					&cli.BoolFlag{Name: "json", Usage: "print the records, one a line, and no table"},
					&cli.BoolFlag{Name: "summary", Usage: "count them by container and reason"},
				),
				Action: p.dlqList,
			},
			{
				Name:         "replay",
				Usage:        "send the dead letters to the store again",
				UsageText:    "log_capturer dlq replay [--config FILE] [--container NAME] [--kind KIND] [--since TIME] [--copies] [--dry-run]",
				Description:  dlqReplayDescription,
				OnUsageError: onUsageError,
				Flags: filters(
					&cli.BoolFlag{Name: "copies", Usage: "also copies of malformed lines that were shipped"},
					&cli.BoolFlag{Name: "dry-run", Usage: "only count what would be sent"},
				),
				Action: p.dlqReplay,
			},
		},
	}
}

// dlqFilter reads the flags that choose records.
func dlqFilter(c *cli.Command, now time.Time) (deadletter.Filter, error) {
	f := deadletter.Filter{Container: c.String("container"), Kind: deadletter.Kind(c.String("kind"))}
	if f.Kind != "" && !slices.Contains(kinds, string(f.Kind)) {
		return f, fmt.Errorf("--kind %q: one of %s", f.Kind, strings.Join(kinds, ", "))
	}
	if s := c.String("since"); s != "" {
		if age, err := time.ParseDuration(s); err == nil && age >= 0 {
			f.Since = now.Add(-age)
		} else if f.Since, err = time.Parse(time.RFC3339, s); err != nil {
			return f, fmt.Errorf("--since %q: an age such as 24h, or a time such as %s", s, now.UTC().Format(time.RFC3339))
		}
	}
	if err := f.Check(); err != nil {
		return f, fmt.Errorf("--container: %w", err)
	}
	return f, nil
}

// dlqList is the subcommand of that name.
func (p *program) dlqList(_ context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	filter, err := dlqFilter(c, time.Now())
	limit := c.Int("limit")
	switch {
	case err != nil:
		return fmt.Errorf("dlq list: %w", err)
	case limit < 0:
		return fmt.Errorf("dlq list: --limit %d: 0, which is no limit, or more", limit)
	case c.Bool("json") && c.Bool("summary"):
		return errors.New("dlq list: --json and --summary: only one of the two")
	case c.IsSet("config") && c.IsSet("data-dir"):
		return errors.New("dlq list: --config and --data-dir both say where the dead letters are: only one of the two")
	}
	dir := c.String("data-dir")
	if dir == "" {
		_, cfg, err := p.load(c)
		if err != nil {
			return err
		}
		dir = cfg.DataDir
	}

	out := bufio.NewWriter(p.out)
	var show shown = &dlqTable{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	switch {
	case c.Bool("json"):
		show = dlqJSON{out}
	case c.Bool("summary"):
		show = &dlqSummary{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0), groups: map[dlqGroup]*dlqCount{}}
	}
	newest := &last{to: show, n: limit}
	bad, err := deadletter.Each(dir, func(s *deadletter.Stored) error {
		if (!s.Replayed || c.Bool("all")) && filter.Takes(&s.Record) {
			return newest.add(s)
		}
		return nil
	})
	if err == nil {
		err = cmp.Or(newest.end(), show.end(), out.Flush())
	}
	if err != nil {
		p.complain("log_capturer: dlq list: %s\n", server.PrintableText(err.Error()))
		return statusError(exitFail)
	}
	p.sayBad(bad)
	return nil
}

// sayBad tells of lines that are no records.
func (p *program) sayBad(n int) {
	if n > 0 {
		p.complain("log_capturer: lines in the files that are no records, and were left out: %d\n", n)
	}
}

// shown is a way of showing records.
type shown interface {
	add(s *deadletter.Stored) error
	end() error
}

// last passes on the newest records only.
type last struct {
	to   shown
	n    int // 0: all
	ring []deadletter.Stored
	at   int // of the oldest in ring, once it is full
}

func (l *last) add(s *deadletter.Stored) error {
	if l.n == 0 {
		return l.to.add(s)
	}
	kept := *s
	kept.Line = bytes.Clone(s.Line)
	if len(l.ring) < l.n {
		l.ring = append(l.ring, kept)
		return nil
	}
	l.ring[l.at] = kept
	l.at = (l.at + 1) % l.n
	return nil
}

func (l *last) end() error {
	for i := range l.ring {
		if err := l.to.add(&l.ring[(l.at+i)%len(l.ring)]); err != nil {
			return err
		}
	}
	return nil
}

// dlqJSON shows records as they are in the files.
type dlqJSON struct{ w io.Writer }

func (d dlqJSON) add(s *deadletter.Stored) error {
	_, err := d.w.Write(append(slices.Clip(server.Printable(s.Line)), '\n'))
	return err
}

func (dlqJSON) end() error { return nil }

// dlqTable shows a row for each record.
type dlqTable struct {
	w     *tabwriter.Writer
	begun bool
}

func (d *dlqTable) header() error {
	if d.begun {
		return nil
	}
	d.begun = true
	return row(d.w, "TIME", "CONTAINER", "KIND", "REASON", "SIZE", "TEXT")
}

func (d *dlqTable) add(s *deadletter.Stored) error {
	text := s.Raw[:min(len(s.Raw), 4*(maxCell+1))] // a character is at most four bytes
	return cmp.Or(d.header(), row(d.w, s.Time.UTC().Format(time.RFC3339), dlqName(&s.Record), cell(string(s.Kind), maxCell), cell(s.Reason, maxCell),
		strconv.Itoa(len(s.Raw)), cell(string(text), maxCell)))
}

func (d *dlqTable) end() error { return cmp.Or(d.header(), d.w.Flush()) }

func row(w io.Writer, cells ...string) error {
	_, err := fmt.Fprintln(w, strings.Join(cells, "\t"))
	return err
}

// dlqName is what a container is called in a table.
func dlqName(r *deadletter.Record) string {
	if r.ContainerName == "" {
		return cell(r.ContainerID[:min(len(r.ContainerID), 12)], maxCell)
	}
	return cell(r.ContainerName, maxCell)
}

// dlqSummary counts records.
type dlqSummary struct {
	w      *tabwriter.Writer
	groups map[dlqGroup]*dlqCount
}

type dlqGroup struct{ container, kind, reason string }

type dlqCount struct {
	records, bytes int64
	oldest, newest time.Time
}

// stamp is a time in a store's words: it differs from push to push.
var stamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

func (d *dlqSummary) add(s *deadletter.Stored) error {
	g := dlqGroup{dlqName(&s.Record), string(s.Kind), stamp.ReplaceAllString(s.Reason, "…")}
	n := d.groups[g]
	if n == nil {
		n = &dlqCount{oldest: s.Time, newest: s.Time}
		d.groups[g] = n
	}
	n.records++
	n.bytes += int64(len(s.Raw))
	if s.Time.Before(n.oldest) {
		n.oldest = s.Time
	}
	if s.Time.After(n.newest) {
		n.newest = s.Time
	}
	return nil
}

func (d *dlqSummary) end() error {
	err := row(d.w, "CONTAINER", "KIND", "REASON", "RECORDS", "BYTES", "OLDEST", "NEWEST")
	groups := make([]dlqGroup, 0, len(d.groups))
	for g := range d.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b dlqGroup) int {
		return cmp.Or(cmp.Compare(d.groups[b].records, d.groups[a].records),
			cmp.Compare(a.container, b.container), cmp.Compare(a.kind, b.kind), cmp.Compare(a.reason, b.reason))
	})
	for _, g := range groups {
		n := d.groups[g]
		err = cmp.Or(err, row(d.w, g.container, cell(g.kind, maxCell), cell(g.reason, maxCell), strconv.FormatInt(n.records, 10), strconv.FormatInt(n.bytes, 10),
			n.oldest.UTC().Format(time.RFC3339), n.newest.UTC().Format(time.RFC3339)))
	}
	return cmp.Or(err, d.w.Flush())
}

// dlqReplay is the subcommand of that name.
func (p *program) dlqReplay(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	filter, err := dlqFilter(c, time.Now())
	if err != nil {
		return fmt.Errorf("dlq replay: %w", err)
	}
	path, cfg, err := p.load(c)
	if err != nil {
		return err
	}
	if cfg.Sinks.Loki.URL == "" {
		p.complain("log_capturer: dlq replay: %s names no store: set sinks.loki.url\n", path)
		return statusError(exitUsage)
	}
	o := deadletter.ReplayOptions{
		Filter: filter, Copies: c.Bool("copies"), DryRun: c.Bool("dry-run"),
		BatchBytes: cfg.Sinks.Loki.BatchBytes, MaxLineBytes: cfg.Monitors.Container.MaxLineBytes,
		Labels: hostLabels(cfg),
	}
	if !o.DryRun {
		store, err := loki.New(p.replayStore(cfg))
		if err != nil {
			p.complain("log_capturer: dlq replay: %s\n", server.PrintableText(err.Error()))
			return statusError(exitFail)
		}
		defer store.Close()
		o.Sink = store
	}
	ctx, release := p.untilSignal(ctx)
	defer release()
	res, err := deadletter.Replay(ctx, cfg.DataDir, o)
	if said := p.sayReplayed(&res, o.DryRun); said != nil {
		p.complain("log_capturer: write the result: %v\n", said)
		return statusError(exitFail)
	}
	p.sayBad(res.Bad)
	if err != nil {
		p.complain("log_capturer: dlq replay: %s\n", server.PrintableText(err.Error()))
	}
	if err != nil || len(res.Refused) > 0 {
		return statusError(exitFail)
	}
	return nil
}

// sayReplayed prints what a replay came to.
func (p *program) sayReplayed(res *deadletter.Replayed, dry bool) error {
	var b bytes.Buffer
	say := func(n int, what string) {
		if n > 0 {
			_, _ = fmt.Fprintf(&b, "%s: %d\n", what, n) // to memory
		}
	}
	if dry {
		_, _ = fmt.Fprintf(&b, "would be sent: %d\n", res.Sent)
	} else {
		_, _ = fmt.Fprintf(&b, "sent and accepted: %d\n", res.Sent)
	}
	say(res.Bare, "  of them without labels of their own, with those of the configuration instead")
	say(res.Before, "left out, an earlier replay has sent them")
	say(res.Copies, "left out, copies of malformed lines that were shipped (--copies sends them)")
	for _, r := range res.Refused {
		say(r.Records, "not accepted, kept: "+cell(r.Container, maxCell)+": "+server.PrintableText(r.Reason))
	}
	_, err := p.out.Write(b.Bytes())
	return err
}

// untilSignal gives a context that ends with the first signal to stop. release
// ends it, too.
func (p *program) untilSignal(ctx context.Context) (_ context.Context, release func()) {
	signals, stop := p.notify()
	ctx, cancel := context.WithCancelCause(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGHUP {
					cancel(fmt.Errorf("signal: %v", s))
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, func() {
		stop()
		cancel(nil)
		waiting.Wait()
	}
}

// hostLabels are the labels that do not depend on the container, as far as the
// configuration has them.
func hostLabels(cfg *config.Config) map[string]string {
	labels := map[string]string{"job": "log_capturer", "host": cfg.Host}
	for name, value := range cfg.Sinks.Loki.Labels {
		labels[name] = value
	}
	return labels
}

// replayStore is the agent's store.
func (p *program) replayStore(cfg *config.Config) loki.Config {
	c := app.LokiConfig(cfg.Sinks.Loki)
	c.Logger = newLogger(p.err, cfg.Log)
	return c
}
