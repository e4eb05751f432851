package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/log-capturer/log_capturer/bench/internal/genlog"
	"github.com/log-capturer/log_capturer/bench/internal/sink"
)

// sinkCommand runs the store until ctx ends.
func sinkCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench sink", flag.ContinueOnError)
	addr := fs.String("addr", "", "where agents push to")
	control := fs.String("control", "", "where the driver asks")
	answer := fs.Duration("answer", 0, "after how long a push is answered")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pushes, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *control)
	if err != nil {
		return errors.Join(err, pushes.Close())
	}
	s := sink.New(*answer)
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { return s.ServePushes(ctx, pushes) })
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error { <-ctx.Done(); return srv.Close() })
	return g.Wait()
}

// written is what a writer has done, its answer.
type written struct {
	// Counts is how many lines each container has, those before the writer included.
	Counts []int
	// Bytes is how much the writer has added.
	Bytes int64
	// Late is by how much it was behind its plan at most: if that is much, the
	// machine could not keep up, and less than was asked for was measured.
	Late time.Duration
}

// writePlan says what a writer writes.
type writePlan struct {
	root       string
	containers int
	first      int // number of the first line of each
	// rate is lines per second in all, in turns. Unless burst is 0, every container
	// writes so many lines at once instead, every burstEvery.
	rate       float64
	burst      int
	burstEvery time.Duration
	span       time.Duration
	seed       uint64
}

// args gives the plan as writeCommand takes it.
func (p *writePlan) args() []string {
	return []string{
		"-root", p.root, "-containers", fmt.Sprint(p.containers), "-first", fmt.Sprint(p.first), "-rate", fmt.Sprint(p.rate),
		"-burst", fmt.Sprint(p.burst), "-burst-every", p.burstEvery.String(), "-for", p.span.String(), "-seed", fmt.Sprint(p.seed),
	}
}

// writeCommand adds lines to logs for a time, each by a write(2) of its own as Docker
// does, and prints what it has written.
func writeCommand(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench write", flag.ContinueOnError)
	var p writePlan
	fs.StringVar(&p.root, "root", "", "the engine's root directory")
	fs.IntVar(&p.containers, "containers", 0, "number of containers")
	fs.IntVar(&p.first, "first", 0, "number of the first line of each")
	fs.Float64Var(&p.rate, "rate", 0, "lines per second in all")
	fs.IntVar(&p.burst, "burst", 0, "lines that each container writes at once")
	fs.DurationVar(&p.burstEvery, "burst-every", time.Second, "how often")
	fs.DurationVar(&p.span, "for", 0, "how long")
	fs.Uint64Var(&p.seed, "seed", 1, "of the lines")
	if err := fs.Parse(args); err != nil {
		return err
	}
	done, err := p.write(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(done)
}

func (p *writePlan) write(ctx context.Context) (written, error) {
	w := written{Counts: make([]int, p.containers)}
	files := make([]*os.File, p.containers)
	for i := range files {
		f, err := os.OpenFile(genlog.LogPath(p.root, i), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return w, err
		}
		defer f.Close() //nolint:errcheck,gocritic // each write was checked; all end together
		files[i], w.Counts[i] = f, p.first
	}
	g := genlog.New(p.seed)
	var buf []byte
	line := func(container int) error {
		buf = g.Append(buf[:0], container, w.Counts[container], time.Now())
		w.Counts[container]++
		w.Bytes += int64(len(buf))
		_, err := files[container].Write(buf)
		return err
	}
	step := time.Millisecond
	if p.burst > 0 {
		step = p.burstEvery
	}
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	start := time.Now()
	lines := 0
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return w, ctx.Err()
		}
		elapsed := time.Since(start)
		if elapsed >= p.span {
			return w, nil
		}
		if p.burst > 0 {
			for i := range p.containers {
				for range p.burst {
					if err := line(i); err != nil {
						return w, err
					}
				}
			}
			continue
		}
		due := int(elapsed.Seconds() * p.rate)
		if due > lines {
			w.Late = max(w.Late, elapsed-time.Duration(float64(lines+1)/p.rate*float64(time.Second)))
		}
		for ; lines < due; lines++ {
			if err := line(lines % p.containers); err != nil {
				return w, err
			}
		}
	}
}
