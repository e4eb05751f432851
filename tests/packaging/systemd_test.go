package packaging

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

const unitFile = "deploy/systemd/log_capturer.service"

// maxExposure is the highest figure of `systemd-analyze security`, times ten, that
// the unit may have. 0 is locked up, 100 wide open.
const maxExposure = 15

// directives gives the values of a unit file's directives, in their order.
func directives(unit string) map[string][]string {
	all := map[string][]string{}
	for l := range strings.Lines(unit) {
		if key, value, ok := strings.Cut(strings.TrimSpace(l), "="); ok && !strings.HasPrefix(key, "#") {
			all[key] = append(all[key], value)
		}
	}
	return all
}

// TestUnit has systemd read the unit, and judge how much the agent could do if it
// were taken over.
func TestUnit(t *testing.T) {
	analyze := need(t, "systemd-analyze")
	unit := harness.ReadFile(t, unitFile)
	dir := t.TempDir()
	file := filepath.Join(dir, "log_capturer.service")
	// Where the package puts the binary there is none on this machine.
	if err := os.WriteFile(file, []byte(replaced(t, unit, "ExecStart=/usr/bin/log_capturer", "ExecStart="+agentBin(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := try(t, nil, analyze, "verify", "--man=no", "--recursive-errors=no", file); err != nil || out != "" {
		t.Errorf("%s %v", out, err)
	}
	out, err := try(t, nil, analyze, "security", "--offline=true", fmt.Sprintf("--threshold=%d", maxExposure), file)
	if err != nil {
		t.Error(err)
	}
	figure := regexp.MustCompile(`Overall exposure level for \S+: (\d+\.\d) `).FindStringSubmatch(out)
	if figure == nil {
		t.Fatalf("no figure in\n%s", out)
	}
	if documented := "(`systemd-analyze security`: " + figure[1] + ","; !strings.Contains(strings.Join(strings.Fields(harness.ReadFile(t, "README.md")), " "), documented) {
		t.Errorf("README.md does not say %q", documented)
	}

	stop, err := time.ParseDuration(directives(unit)["TimeoutStopSec"][0])
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LOKI_URL", "http://127.0.0.1:3100")
	cfg, err := config.Load(filepath.Join(harness.Root(t), "configs", "config.yaml"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if stop < 2*cfg.ShutdownGrace {
		t.Errorf("TimeoutStopSec=%v leaves no room beside shutdown_grace %v", stop, cfg.ShutdownGrace)
	}
	if want := "/var/lib/" + directives(unit)["StateDirectory"][0]; cfg.DataDir != want {
		t.Errorf("StateDirectory is %s, data_dir is %s", want, cfg.DataDir)
	}
}

// unitUser is who the agent is under the unit in these tests: nobody that the
// machine knows.
const unitUser = 65533

// startRestricted starts the agent with what the unit leaves it, as far as that can be
// had without systemd: a user that is nobody, one capability, the group of the socket,
// no new privileges, a file system of which only data_dir can be written, and the
// system calls of a filter. It does not wait for it.
func startRestricted(t *testing.T, a *harness.Agent, host, filter string) {
	t.Helper()
	setpriv, unshare := need(t, "setpriv"), need(t, "unshare")
	group := strings.TrimSpace(command(t, nil, "stat", "-c", "%g", strings.TrimPrefix(host, "unix://")))
	bin := a.Bin
	if err := os.Mkdir(a.DataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(a.DataDir(), unitUser, unitUser); err != nil {
		t.Fatal(err)
	}
	a.Bin = filepath.Join(a.Dir, "restricted")
	script := fmt.Sprintf(`#!/bin/sh
set -e
mount --bind %[1]s %[1]s
mount -o remount,bind,ro /
exec %[2]s --reuid %[3]d --regid %[3]d --groups %[4]s --no-new-privs \
	--bounding-set -all,+dac_read_search --inh-caps -all,+dac_read_search --ambient-caps -all,+dac_read_search -- \
	%[5]s %[6]s %[7]s "$@"
`, a.DataDir(), setpriv, unitUser, group, buildConfine(t), filter, bin)
	inner := filepath.Join(a.Dir, "inner")
	for name, text := range map[string]string{
		inner: script,
		a.Bin: fmt.Sprintf("#!/bin/sh\nexec %s --mount --propagation private -- %s \"$@\"\n", unshare, inner),
	} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a.Launch()
}

// TestUnitRestrictions runs the agent with what the unit leaves it. That is enough for
// all of its work: to read real logs through rotation and stream others, to ship them,
// to reload, to spool while the store is away, to profile itself, to stop.
func TestUnitRestrictions(t *testing.T) {
	harness.NeedDocker(t)
	unit := directives(harness.ReadFile(t, unitFile))
	for key, want := range map[string]string{
		"AmbientCapabilities": "CAP_DAC_READ_SEARCH", "CapabilityBoundingSet": "CAP_DAC_READ_SEARCH",
		"NoNewPrivileges": "yes", "ProtectSystem": "strict", "DynamicUser": "yes", "SupplementaryGroups": "docker",
		"SystemCallArchitectures": "native", "MemoryDenyWriteExecute": "yes",
	} {
		if !slices.Equal(unit[key], []string{want}) {
			t.Errorf("%s is %q; this test tries %q", key, unit[key], want)
		}
	}
	d := harness.StartDockerd(t)
	s := harness.StartStore(t)
	a := harness.NewAgent(t, d.Host, s.PushURL(), "")
	text, err := os.ReadFile(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.Config, []byte(replaced(t, string(text), "server: {", "server: {pprof: true, ")), 0o600); err != nil {
		t.Fatal(err)
	}
	startRestricted(t, a, d.Host, unitFilter(t, unit, ""))
	harness.Eventually(t, 10*time.Second, "the agent serves", func() bool { _, err := a.Scrape(); return err == nil || !a.Running() })
	if !a.Running() {
		t.Fatalf("the agent has ended:\n%s", a.Log())
	}
	restricted(t, a.Pid(), unitUser)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", a.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S+ / ro,`).Match(mounts) {
		t.Errorf("the file system can be written:\n%s", mounts)
	}

	const n = 5000
	write := func(name, driver string) string {
		return d.Run(t, harness.ContainerSpec{Name: name, Driver: driver,
			LogOpts: map[string]string{"max-size": "100k", "max-file": "3", "compress": "true"},
			Cmd:     []string{"-prefix", name, "-lines", fmt.Sprint(n), "-rate", "2500"}})
	}
	arrive := func(name string) {
		t.Helper()
		filter := fmt.Sprintf("{container_name=%q}", name)
		harness.Eventually(t, 60*time.Second, "all lines of "+name+" arrive", func() bool { return !a.Running() || s.Count(t, filter) >= n })
		got := map[string]bool{}
		for _, r := range s.Query(t, filter+" | fields _msg") {
			got[r["_msg"]] = true
		}
		for i := 1; i <= n; i++ {
			if l := lines.Line(lines.Plain, name, i, 0); !got[l] {
				t.Fatalf("%q has not arrived", l)
			}
		}
	}
	private(t, d.LogPath(write("web", "json-file")))
	write("local", "local")
	arrive("web")
	arrive("local")
	m := a.Metrics()
	if m[`log_capturer_logs_processed_total{method="file_monitor",result="delivered"}`] != n || m["log_capturer_file_rotation_total"] == 0 {
		t.Errorf("read from files: %v lines, %v rotations", m[`log_capturer_logs_processed_total{method="file_monitor",result="delivered"}`], m["log_capturer_file_rotation_total"])
	}
	if code, body := a.Health(); code != 200 {
		t.Errorf("/health: %d %v", code, body)
	}
	if strings.Contains(a.Log(), "level=ERROR") || strings.Contains(a.Log(), "level=WARN") {
		t.Errorf("the agent logs:\n%s", a.Log())
	}

	a.Signal(syscall.SIGHUP)
	const began = "log_capturer_start_time_seconds"
	harness.Eventually(t, 30*time.Second, "the agent has reloaded", func() bool {
		now, err := a.Scrape()
		return !a.Running() || err == nil && now[began] != m[began]
	})
	s.Stop()
	write("outage", "json-file")
	harness.Eventually(t, 60*time.Second, "all lines are in the spool", func() bool {
		now, err := a.Scrape()
		return !a.Running() || err == nil && now["log_capturer_spool_records"] == n
	})
	s.Start()
	arrive("outage")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	profile, err := client.Get("http://" + a.Addr + "/debug/pprof/profile?seconds=1")
	if err != nil {
		t.Fatal(err)
	}
	if _ = profile.Body.Close(); profile.StatusCode != http.StatusOK {
		t.Errorf("a profile: status %d", profile.StatusCode)
	}
	a.Signal(syscall.SIGTERM)
	if status := a.Exit(15 * time.Second); status != 0 {
		t.Errorf("exit status %d:\n%s", status, a.Log())
	}
}

// TestUnitFilterHolds: a call that the filter does not have ends the agent, so that
// TestUnitRestrictions notices each one that the unit would refuse.
func TestUnitFilterHolds(t *testing.T) {
	harness.NeedDocker(t)
	d := harness.StartDockerd(t)
	d.Run(t, harness.ContainerSpec{Name: "web", Cmd: []string{"-lines", "1"}})
	for _, call := range []string{"inotify_add_watch", "name_to_handle_at", "fsync"} {
		t.Run(call, func(t *testing.T) {
			a := harness.NewAgent(t, d.Host, "http://127.0.0.1:1/push", "")
			startRestricted(t, a, d.Host, unitFilter(t, directives(harness.ReadFile(t, unitFile)), call))
			if status := a.Exit(30 * time.Second); status == 0 || !strings.Contains(a.Log(), "SIGSYS") {
				t.Errorf("exit status %d:\n%s", status, a.Log())
			}
		})
	}
}
