package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// scenario is a sort of fault.
type scenario struct {
	name, about string
	run         func(ctx context.Context, tb harness.TB, seed uint64, s scale) *world
}

// scenarios are all of them, in the order in which they run.
func scenarios() []scenario {
	return []scenario{
		{"kill", "the agent is killed by SIGKILL at random moments, now and then while the store fails", killed},
		{"store", "the store fails in every way, one after the other", storeFails},
		{"refused", "the store refuses one container's stream, then single lines of it, by 400", refused},
		{"outage", "the store is down for longer than three rotations of every log; the agent is killed meanwhile", outage},
		{"restart", "the agent is stopped by SIGTERM and started, with and without a store", restarted},
		{"reload", "SIGHUP, with and without a store", reloaded},
		{"freeze", "the agent is frozen by SIGSTOP while every log rotates three times; Docker keeps the files", frozen},
		{"freeze-unlinked", "the same, but rotation unlinks files: what is lost must be told exactly", frozenUnlinked},
		{"down-unlinked", "the agent is killed, and rotation unlinks files until it is started: what is lost must be told", downUnlinked},
		{"dockerd", "dockerd is stopped and killed, containers outlive it (live-restore)", dockerdRestarts},
		{"dockerd-dies", "dockerd is stopped and killed, containers die with it", dockerdDies},
		{"data-full", "the file system of data_dir is full in an outage; the agent is killed meanwhile", dataFull},
		{"docker-full", "the file system of Docker's logs is full", dockerFull},
	}
}

func killed(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.write(usual())
	w.churn(500*time.Millisecond, false)
	w.flowing(500)
	faults := storeFaults()
	for i := range s.kills {
		if i%3 == 2 {
			w.fault(faults[w.random.IntN(len(faults))])
		}
		w.sleep(w.between(0, 1500*time.Millisecond))
		w.kill(w.between(0, 400*time.Millisecond))
		if i%3 == 2 {
			w.sleep(w.between(0, time.Second))
			w.fault(fault{})
		}
	}
	w.note("%d kills", s.kills)
	return w
}

func storeFails(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.write(usual())
	w.churn(500*time.Millisecond, true)
	w.flowing(500)
	all := storeFaults()
	w.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if s.faults > 0 {
		all = all[:s.faults]
	}
	for _, f := range all {
		w.fault(f)
		w.sleep(w.between(s.hold/2, s.hold))
		w.fault(fault{})
		w.sleep(s.pause)
	}
	w.note("%d faults", len(all))
	return w
}

func refused(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	all := w.write(filesOnly(usual()))
	w.churn(500*time.Millisecond, true)
	w.flowing(500)
	for _, wr := range all[:min(len(all), 2)] {
		name := wr.out.name
		w.fault(fault{name: "400 for a stream", refuse: func(container string, _ int) bool { return container == name }})
		w.sleep(s.hold)
		w.fault(fault{})
		w.sleep(s.pause)
		w.fault(fault{name: "400 for lines", refuse: func(container string, n int) bool { return container == name && n%997 == 0 }})
		w.sleep(s.hold)
		w.fault(fault{})
		w.sleep(s.pause)
	}
	return w
}

func outage(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	// Docker keeps four files of each: the spool has what rotation takes.
	recipes := usual()
	for i := range recipes {
		recipes[i].maxFile = min(recipes[i].maxFile, 4)
		recipes[i].rate *= 2
	}
	all := w.write(recipes)
	w.churn(500*time.Millisecond, false)
	w.flowing(500)
	w.fault(fault{name: "down", down: true})
	w.sleep(3 * time.Second) // what is read goes to the spool
	for range s.rounds {
		w.kill(0)
		w.sleep(time.Second)
	}
	w.rotations(all, 4, 2*time.Minute)
	w.fault(fault{})
	w.flowing(500)
	return w
}

// thrice does something with a store, without one, and with one that hangs.
func thrice(ctx context.Context, tb harness.TB, seed uint64, s scale, what func(w *world)) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.write(usual())
	w.churn(500*time.Millisecond, false)
	w.flowing(500)
	for range s.rounds {
		for _, f := range []fault{{}, {name: "down", down: true}, {name: "hang", hang: true}} {
			w.fault(f)
			w.sleep(w.between(0, 1500*time.Millisecond))
			what(w)
			w.sleep(w.between(0, 500*time.Millisecond))
			w.fault(fault{})
			w.sleep(s.pause)
		}
	}
	return w
}

func restarted(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	return thrice(ctx, tb, seed, s, (*world).restart)
}

func reloaded(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	return thrice(ctx, tb, seed, s, (*world).reload)
}

// rotating are recipes of containers whose logs rotate once a second or so.
func rotating(files int) []recipe {
	return []recipe{
		{name: "small", size: 200, rate: 400, stderrEvery: 9, maxSize: "100k", maxFile: files},
		{name: "tiny", size: 100, rate: 300, stderrEvery: 2, maxSize: "50k", maxFile: files},
		{name: "zipped", size: 200, rate: 300, maxSize: "100k", maxFile: files, compress: true},
	}
}

func frozen(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	all := w.write(rotating(30))
	w.write(unrotated(usual()))
	w.churn(500*time.Millisecond, false)
	for range s.rounds {
		w.flowing(500)
		w.a.Freeze()
		w.rotations(all, 3, time.Minute)
		w.a.Thaw()
	}
	return w
}

// generations watches a log from file to file.
type generations struct {
	rotation
	out   *output
	first []int // numbers of the first lines of the files
	todo  bool  // that of the file that is there now is to be read yet
}

func (g *generations) look() {
	before := g.n
	g.rotation.look()
	if g.todo = g.todo || g.n != before; !g.todo {
		return
	}
	f, err := os.Open(g.path)
	if err != nil {
		return // missing for a moment
	}
	defer f.Close()
	head := make([]byte, 8<<10)
	n, _ := f.Read(head)
	w := new(written)
	w.parseEntries(g.out, head[:n])
	if w.first > 0 {
		g.first = append(g.first, w.first)
		g.todo = false
	}
}

func frozenUnlinked(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.mayReport = true
	all := w.write(rotating(2)[:2])
	w.write(filesOnly(usual()))
	w.flowing(2000)
	gaps := func() int {
		m, err := w.a.Scrape()
		if err != nil {
			tb.Fatal(err)
		}
		return int(m["log_capturer_file_gaps_total"])
	}
	before, gone := gaps(), 0
	for range s.rounds {
		var watches []*generations
		for _, wr := range all {
			watches = append(watches, &generations{rotation: *newRotation(w.d.LogPath(wr.id)), out: &wr.out})
		}
		w.a.Freeze()
		if !harness.Within(time.Minute, func() bool {
			ok := true
			for _, g := range watches {
				g.look()
				ok = ok && len(g.first) >= 5
			}
			return ok || ctx.Err() != nil
		}) {
			tb.Fatal("the logs do not rotate five times within a minute")
		}
		w.a.Thaw()
		w.flowing(3000)
		w.sleep(3 * time.Second) // what comes now is newer than all of this
		for _, g := range watches {
			for i := range len(g.first) - 1 {
				// Near the border stdout and stderr may have overtaken one another.
				const border = 40
				from, to := g.first[i]+border, g.first[i+1]-border
				switch missing := w.ledger.missing(g.out.name, from, to); missing {
				case 0:
				case to - from:
					gone++
				default:
					tb.Errorf("%s: of lines %d to %d of one file %d are missing: neither all nor none", g.out.name, from, to, missing)
				}
			}
		}
	}
	if got := gaps() - before; got != gone || gone == 0 {
		tb.Errorf("rotation took %d files unread, and the agent counts %d", gone, got)
	}
	w.note("%d files unlinked unread, as the agent counts", gone)
	return w
}

func downUnlinked(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.mayReport = true
	all := w.write(rotating(2))
	w.write(unrotated(usual()))
	for range s.rounds {
		w.flowing(2000)
		w.a.Kill9()
		w.rotations(all, 4, time.Minute)
		w.a.Start()
	}
	w.flowing(500)
	return w
}

// engineTrouble stops dockerd, kills it, stops it …, and calls after each time.
func engineTrouble(w *world, after func()) {
	w.mayNever = true // what dockerd has read of a pipe dies with it
	for i := range 2 * w.scale.rounds {
		if i%2 == 0 {
			w.d.Stop()
		} else {
			w.d.Kill9()
		}
		w.sleep(w.between(0, time.Second))
		w.d.Start()
		after()
		w.sleep(time.Second)
		if err := w.fleet.excuse(w.ctx); err != nil {
			w.tb.Fatal(err)
		}
	}
}

func dockerdRestarts(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil, harness.WithLiveRestore())
	w.write(shortLines(usual()))
	w.churn(500*time.Millisecond, false)
	w.flowing(500)
	engineTrouble(w, func() { w.flowing(500) })
	return w
}

func dockerdDies(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.write(shortLines(usual()))
	w.churn(500*time.Millisecond, false)
	w.flowing(500)
	engineTrouble(w, func() {
		w.write(shortLines(usual()))
		w.flowing(500)
	})
	return w
}

// mount mounts a small file system for the time of the scenario.
func (w *world) mount(dir, size string) {
	w.tb.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.tb.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		w.tb.Fatalf("mount a tmpfs at %s: %v", dir, err)
	}
	w.tb.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill fills the file system of a directory but for some bytes; the file that it
// gives is to be removed again.
func (w *world) fill(dir string, leave int64) (ballast string) {
	w.tb.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		w.tb.Fatal(err)
	}
	ballast = filepath.Join(dir, "ballast")
	if n := int64(st.Bavail)*st.Bsize - leave; n > 0 {
		f, err := os.Create(ballast)
		if err == nil {
			err = unix.Fallocate(int(f.Fd()), 0, 0, n)
			_ = f.Close()
		}
		if err != nil {
			w.tb.Fatal(fmt.Errorf("fill %s: %w", dir, err))
		}
	}
	return ballast
}

func dataFull(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "spool: {min_free_bytes: 0}", func(w *world) { w.mount(w.a.DataDir(), "8m") })
	w.write(filesOnly(usual()))
	w.flowing(500)
	for range s.rounds {
		w.fault(fault{name: "down", down: true})
		ballast := w.fill(w.a.DataDir(), 256<<10)
		if !harness.Within(40*time.Second, func() bool {
			m, err := w.a.Scrape()
			return err == nil && m["log_capturer_spool_full"] == 1
		}) {
			tb.Fatal("the spool does not say that it is full")
		}
		w.sleep(s.hold)
		w.kill(0) // it must start on a full disk, too
		w.sleep(s.hold)
		w.fault(fault{})
		w.sleep(s.pause)
		if err := os.Remove(ballast); err != nil {
			tb.Fatal(err)
		}
		w.flowing(500)
	}
	return w
}

func dockerFull(ctx context.Context, tb harness.TB, seed uint64, s scale) *world {
	w := newWorld(ctx, tb, seed, s, "", nil)
	w.mayNever = true // the engine drops what it cannot write
	w.mount(w.d.ContainersDir(), "64m")
	recipes := filesOnly(shortLines(usual()))
	for i := range recipes {
		recipes[i].maxSize = "" // nothing is unlinked: what Docker has written can be read at the end
		recipes[i].rate = min(recipes[i].rate, 200)
	}
	w.write(recipes)
	w.flowing(500)
	for range s.rounds {
		ballast := w.fill(w.d.ContainersDir(), w.random.Int64N(1<<20))
		w.sleep(s.hold + 2*time.Second)
		if err := os.Remove(ballast); err != nil {
			tb.Fatal(err)
		}
		w.flowing(500)
	}
	return w
}
