package monitors

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/log-capturer/log_capturer/internal/tail/dockertest"
)

func TestLooksByPath(t *testing.T) {
	for turn := range 3 * pathPolls {
		for first := range 2 * pathPolls {
			looks := 0
			for poll := first; poll < first+pathPolls; poll++ {
				if looksByPath(poll, turn, 0) {
					looks++
				}
				if !looksByPath(poll, turn, 1) {
					t.Errorf("poll %d does not look by path although the path could not be seen", poll)
				}
			}
			if looks != 1 {
				t.Errorf("turn %d: %d looks by path in the %d polls from %d on", turn, looks, pathPolls, first)
			}
		}
	}
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
		for before := range pathPolls {
			t.Run(fmt.Sprintf("%s/%d", c.name, before), func(t *testing.T) {
				f := unwatched(t, "c")
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
// it was shows when it is the log's turn to be looked at by its path. The logs take
// turns, and one that is missing is looked at by each poll from then on.
func TestPollFindsLostDirectories(t *testing.T) {
	var ids []string
	for i := range 2 * pathPolls {
		ids = append(ids, fmt.Sprintf("c%d", i))
	}
	f := unwatched(t, ids...)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(f.dir, away); err != nil {
		t.Fatal(err)
	}
	for poll := 1; poll < pathPolls+unseenPolls; poll++ {
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
		if want := 2 * min(poll, pathPolls); missing != want {
			t.Errorf("after %d polls %d logs are missing, want %d", poll, missing, want)
		}
		if want := 2 * max(0, poll-unseenPolls+1); read != want {
			t.Errorf("after %d polls %d logs are handed to the reader, want %d", poll, read, want)
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

// TestPollSettlesAccounts: a look at the file held sets right, as one at the path does,
// what notifications have told too often.
func TestPollSettlesAccounts(t *testing.T) {
	f := unwatched(t, "c")
	for range pathPolls {
		lg := f.m.logs["c"]
		lg.created, lg.blind = 7, true
		f.m.poll()
		if lg.created != 0 || lg.blind {
			t.Errorf("%d files created, blind %v", lg.created, lg.blind)
		}
	}
}
