package monitors

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

// TestPathTurn: each log has its turn once in a number of polls that grows with the
// number of logs, up to pathPolls.
func TestPathTurn(t *testing.T) {
	for logs, within := range map[int]int{
		0: 1, 1: 1, 3*pathLooks - 1: 1, 3 * pathLooks: 3, 5*pathLooks - 1: 3, 5 * pathLooks: 5,
		pathPolls*pathLooks - 1: 5, pathPolls * pathLooks: pathPolls, 100 * pathPolls * pathLooks: pathPolls,
	} {
		for turn := range 3 * pathPolls {
			for first := range 2 * pathPolls {
				looks := 0
				for poll := first; poll < first+within; poll++ {
					p := newPathTurn(poll, logs, false)
					if p.has(turn, 0) {
						looks++
					}
					if !p.has(turn, 1) {
						t.Errorf("poll %d does not look by path although the path could not be seen", poll)
					}
					if p.all = true; !p.has(turn, 0) {
						t.Errorf("poll %d does not look by path although other paths have gone", poll)
					}
				}
				if looks != 1 {
					t.Errorf("%d logs, turn %d: %d looks by path in the %d polls from %d on", logs, turn, looks, within, first)
				}
			}
		}
	}
}

// TestPathTurnOfChangingNumbers: however many logs come and go from poll to poll, each has
// its turn within pathPolls of them.
func TestPathTurnOfChangingNumbers(t *testing.T) {
	for turn := range 2 * pathPolls {
		sure := false // a poll looks at it whatever the number is then
		for poll := range pathPolls {
			all := true
			for logs := range 2 * pathPolls * pathLooks {
				all = all && newPathTurn(poll, logs, false).has(turn, 0)
			}
			sure = sure || all
		}
		if !sure {
			t.Errorf("turn %d can be missed by %d polls", turn, pathPolls)
		}
	}
}

// crowd is the names of so many logs that each is looked at by its path in one of turns
// polls.
func crowd(turns int) (ids []string) {
	for i := range turns * pathLooks {
		ids = append(ids, fmt.Sprintf("c%d", i))
	}
	return ids
}

// unwatched gives a fixture with idle logs, whose notifications are all lost. Looks at
// the files held do from the next poll on.
func unwatched(t *testing.T, ids ...string) *fixture {
	t.Helper()
	f := newFixture(t, nil, func(cfg *FileMonitorConfig) { cfg.Settled = -1 })
	for _, id := range ids {
		f.idle(id)
	}
	for range pathPolls {
		f.m.poll()
	}
	f.wantMetric("file_events_missed_total", 0)
	t.Cleanup(func() {
		for _, lg := range f.m.logs {
			if lg.tail != nil {
				lg.tail.Close()
			}
		}
	})
	dockertest.AwaitTick(t, f.dir)
	return f
}

// TestPollFindsAtOnce: what happens to a file is found by the next poll, whether it
// looks at the log by its path or not.
func TestPollFindsAtOnce(t *testing.T) {
	const turns = 3
	line := func(text string) string { return jsonEntry("stdout", text+"\n", at(0)) }
	for _, c := range []struct {
		name string
		do   func(f *fixture, path string) error
		want []string // read then
	}{
		{"written", func(f *fixture, _ string) error {
			f.write("c", line("new"))
			return nil
		}, []string{"new"}},
		{"truncated", func(_ *fixture, path string) error { return os.Truncate(path, 0) }, nil},
		{"truncated and written", func(f *fixture, path string) error {
			err := os.Truncate(path, 0)
			f.write("c", line("new"))
			return err
		}, []string{"new"}},
		{"renamed", func(_ *fixture, path string) error { return os.Rename(path, path+".1") }, nil},
		{"renamed and made anew", func(f *fixture, path string) error {
			f.write("c", line("last"))
			err := os.Rename(path, path+".1")
			f.write("c", line("new"))
			return err
		}, []string{"last", "new"}},
		{"unlinked", func(_ *fixture, path string) error { return os.Remove(path) }, nil},
		{"replaced", func(_ *fixture, path string) error {
			next := path + ".next"
			if err := os.WriteFile(next, []byte(line("new")), 0o600); err != nil {
				return err
			}
			return os.Rename(next, path)
		}, []string{"new"}},
	} {
		for before := range turns {
			t.Run(fmt.Sprintf("%s/%d", c.name, before), func(t *testing.T) {
				f := unwatched(t, append(crowd(turns), "c")...)
				for range before {
					f.m.poll()
				}
				if err := c.do(f, f.path("c")); err != nil {
					t.Fatal(err)
				}
				f.m.poll()
				f.wantMetric("file_events_missed_total", 1)
				if got := texts(f.work()); !slices.Equal(got, c.want) {
					t.Errorf("read %q", got)
				}
			})
		}
	}
}

// TestPollFindsLostDirectories: that a log's directory is gone while its file is as
// it was shows when it is the log's turn to be looked at by its path. The next poll
// looks at all.
func TestPollFindsLostDirectories(t *testing.T) {
	const turns = 3
	ids := crowd(turns)
	f := unwatched(t, ids...)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(f.dir, away); err != nil {
		t.Fatal(err)
	}
	for poll, want := range []struct{ missing, read int }{
		{pathLooks, 0}, {len(ids), 0}, {len(ids), pathLooks}, {len(ids), len(ids)},
	} {
		f.m.poll()
		missing, read := 0, 0
		for _, lg := range f.m.logs {
			if lg.unseen > 0 {
				missing++
			}
			if lg.state == stateQueued {
				read++
			}
		}
		if missing != want.missing || read != want.read {
			t.Errorf("after %d polls %d logs are missing and %d handed to the reader, want %d and %d", poll+1, missing, read, want.missing, want.read)
		}
	}
	f.work()
	if h := f.m.Health(); h.Failed != len(ids) {
		t.Errorf("%d logs have failed", h.Failed)
	}
	// It comes back.
	if err := os.Rename(away, f.dir); err != nil {
		t.Fatal(err)
	}
	for _, lg := range f.m.logs {
		lg.retryAt = t0
	}
	f.m.poll()
	f.work()
	if h := f.m.Health(); h.Failed != 0 {
		t.Errorf("%d logs have failed after the directory has come back: %v", h.Failed, h.FailedBy)
	}
}

// TestPollFindsDirectoriesLostAgain: a directory that comes back counts as lost again also
// when it goes before a poll has seen it.
func TestPollFindsDirectoriesLostAgain(t *testing.T) {
	f := unwatched(t, "c")
	away := filepath.Join(t.TempDir(), "away")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	lost := func() {
		t.Helper()
		move(f.dir, away)
		for range unseenPolls {
			f.m.poll()
		}
		f.work()
		if h := f.m.Health(); h.Failed != 1 {
			t.Errorf("%+v", h)
		}
	}
	lost()
	move(away, f.dir)
	f.m.mu.Lock()
	f.m.enqueue(f.m.logs["c"]) // as the poll does when it is tried again
	f.m.mu.Unlock()
	f.work()
	if h := f.m.Health(); h.Failed != 0 {
		t.Errorf("%+v", h)
	}
	lost()
}

// TestPollFindsOneLostDirectory: one that stays away makes no poll but one look at all.
func TestPollFindsOneLostDirectory(t *testing.T) {
	const turns = 3
	f := unwatched(t, crowd(turns)...)
	if err := os.Rename(filepath.Dir(f.path("c7")), filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	found, all := 0, 0
	for range turns + unseenPolls {
		if f.m.anyGone {
			all++
		}
		f.m.poll()
		if f.m.logs["c7"].unseen == 1 {
			found++
		}
	}
	if found != 1 || all != 1 || f.m.logs["c7"].state != stateQueued {
		t.Errorf("found in %d polls, %d looked at all, state %v", found, all, f.m.logs["c7"].state)
	}
}

// TestPollSettlesAccounts: a look at the file held sets right, as one at the path does,
// what notifications have told too often.
func TestPollSettlesAccounts(t *testing.T) {
	const turns = 3
	f := unwatched(t, append(crowd(turns), "c")...)
	for range turns {
		lg := f.m.logs["c"]
		lg.created, lg.blind = 7, true
		f.m.poll()
		if lg.created != 0 || lg.blind {
			t.Errorf("%d files created, blind %v", lg.created, lg.blind)
		}
	}
}
