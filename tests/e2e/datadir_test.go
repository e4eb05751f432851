package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// TestDamagedDataDir: agents start on what a disk or a kill has damaged, and count what
// they leave out. What is made of each case in testdata is for its package to test.
func TestDamagedDataDir(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		positions, lane0, lane1 string
		moved                   []string
	}{
		{"torn_end", "torn_end", "cursor_garbage", []string{
			`log_capturer_positions_skipped_records_total{reason="torn"}`, "log_capturer_spool_torn_tails_total", "log_capturer_spool_damaged_cursors_total",
			// The frames of the cases are sound, and no lines.
			`log_capturer_lost_lines_total{reason="spool_unreadable"}`,
		}},
		{"flipped_bit", "flipped_bit_in_payload", "version_2", []string{
			`log_capturer_positions_skipped_records_total{reason="damaged"}`,
			"log_capturer_spool_lost_frames_total", "log_capturer_spool_lost_records_total", "log_capturer_spool_set_aside_segments_total",
		}},
		{"unknown_record", "sound", "sound", []string{`log_capturer_positions_skipped_records_total{reason="unknown"}`}},
	} {
		t.Run(c.positions, func(t *testing.T) {
			t.Parallel()
			w, l := patient(t)
			w.mayLog = []string{"spool segment ", "frame of the spool cannot be read back"}
			a := w.agentTo(l.URL, "", "")
			root := harness.Root(t)
			for below, from := range map[string]string{".": "positions/testdata/" + c.positions, "spool/lane-0": "spool/testdata/" + c.lane0, "spool/lane-1": "spool/testdata/" + c.lane1} {
				if err := os.CopyFS(filepath.Join(a.DataDir(), below), os.DirFS(filepath.Join(root, "internal", from))); err != nil {
					t.Fatal(err)
				}
			}
			a.Start()
			o := output{name: "after", lines: 100}
			w.run(o.spec())
			arrivesOnce(t, l, o.name, o.want())
			for _, name := range c.moved {
				harness.Eventually(t, 10*time.Second, name+" moves", func() bool { return a.Metrics()[name] > 0 })
			}
		})
	}
}

// TestReadOnlyDataDir: the agent is started where the file system of data_dir is mounted
// read-only, as Linux does after errors of the disk. It goes on from its positions and
// says what is wrong; as soon as data_dir can be written again everything is saved, and
// nothing is doubled.
func TestReadOnlyDataDir(t *testing.T) {
	t.Parallel()
	w, l := patient(t)
	w.mayLog = []string{"positions cannot be", "dead letters cannot be written"}
	a := w.agentTo(l.URL, "spool: {min_free_bytes: 0}", "")
	if err := os.MkdirAll(a.DataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	mount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", a.DataDir(), "tmpfs", flags, "size=8m"); err != nil {
			t.Fatal(err)
		}
	}
	mount(0)
	t.Cleanup(func() { _ = unix.Unmount(a.DataDir(), unix.MNT_DETACH) })

	first := output{name: "first", lines: 2000, size: 100}
	w.run(first.spec())
	a.Start()
	arrivesOnce(t, l, first.name, first.want())
	w.drained(a)
	a.Stop()

	mount(unix.MS_REMOUNT | unix.MS_RDONLY)
	second := output{name: "second", lines: 2000, size: 100}
	w.run(second.spec())
	a.Start()
	harness.Eventually(t, 15*time.Second, "it is a problem", func() bool {
		_, b := a.Health()
		return contains(problems(b), "mount the file system of data_dir for writing")
	})
	arrivesOnce(t, l, first.name, first.want())
	arrivesOnce(t, l, second.name, second.want())
	appendTo(t, w.d.LogPath(w.run(output{name: "garbled", lines: 1}.spec())), "garbage\n")
	for _, name := range []string{
		"log_capturer_positions_write_errors_total", "log_capturer_dispatch_ack_errors_total",
		"log_capturer_dead_letters_write_errors_total", "log_capturer_dead_letters_copies_lost_total",
	} {
		harness.Eventually(t, 10*time.Second, name+" moves", func() bool { return a.Metrics()[name] > 0 })
	}

	mount(unix.MS_REMOUNT)
	harness.Eventually(t, 20*time.Second, "the positions are saved", func() bool {
		_, b := a.Health()
		return !contains(problems(b), "data_dir")
	})
	a.Kill9()
	a.Start()
	third := output{name: "third", lines: 10, size: 100}
	w.run(third.spec())
	arrivesOnce(t, l, third.name, third.want())
	arrivesOnce(t, l, second.name, second.want())
	a.Stop()
}
