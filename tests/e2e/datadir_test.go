package e2e

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/tests/harness"
)

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
