package monitors

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/log-capturer/log_capturer/internal/docker"
)

func TestForecast(t *testing.T) {
	const self = "self"
	f := &Forecast{
		Routing:   RoutingConfig{Files: true, LogDrivers: []string{DriverJSONFile}, Fallback: true, Streaming: true},
		Selection: Selection{Exclude: []Rule{{Field: ruleName, Pattern: "out*"}}},
		RootDir:   "/root", Self: Self{ID: self, PodUID: "uid", PodContainer: "agent"},
	}
	for what, c := range map[string]struct {
		c               docker.Container
		readable, noLog bool
		want            Foreseen
	}{
		"file":                 {docker.Container{Driver: "json-file"}, true, false, Foreseen{MethodFileMonitor, "log driver json-file keeps a file", false}},
		"unreadable":           {docker.Container{Driver: "json-file"}, false, false, Foreseen{MethodStreaming, reasonUnreadable, false}},
		"stream":               {docker.Container{Driver: "syslog"}, true, false, Foreseen{MethodStreaming, "log driver syslog keeps no file that can be read", false}},
		"no log":               {docker.Container{Driver: "syslog"}, true, true, Foreseen{"none", noLogReason, false}},
		"excluded":             {docker.Container{Driver: "json-file", Name: "out1"}, true, false, Foreseen{"none", "excluded by name=out*", true}},
		"self":                 {docker.Container{Driver: "json-file", ID: self}, true, false, Foreseen{"none", "the agent's own container; label log_capturer.enable=true captures it", true}},
		"self, by its pod":     {docker.Container{Driver: "json-file", Labels: map[string]string{podUIDLabel: "uid", podContainerLabel: "agent"}}, true, false, Foreseen{"none", "the agent's own container; label log_capturer.enable=true captures it", true}},
		"beside it in the pod": {docker.Container{Driver: "json-file", Labels: map[string]string{podUIDLabel: "uid", podContainerLabel: "other"}}, true, false, Foreseen{MethodFileMonitor, "log driver json-file keeps a file", false}},
		"in another pod":       {docker.Container{Driver: "json-file", Labels: map[string]string{podUIDLabel: "uid2", podContainerLabel: "agent"}}, true, false, Foreseen{MethodFileMonitor, "log driver json-file keeps a file", false}},
		"self, too":            {docker.Container{Driver: "json-file", ID: self, Labels: map[string]string{enableLabel: "true"}}, true, false, Foreseen{MethodFileMonitor, "log driver json-file keeps a file", false}},
	} {
		if got := f.Container(c.c, c.readable, c.noLog); got != c.want {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}

// TestForecastPaths: where logs are looked for.
func TestForecastPaths(t *testing.T) {
	f := &Forecast{RootDir: "/root"}
	if got := f.LogPath(docker.Container{ID: "1"}); got != "/root/containers/1/1-json.log" {
		t.Errorf("never started: %s", got)
	}
	if got := f.LogPath(docker.Container{ID: "1", LogPath: "/engine/1.log"}); got != "/engine/1.log" || f.Dir() != "/root/containers" {
		t.Errorf("%s, %s", got, f.Dir())
	}
	f.ContainersDir = filepath.Join(t.TempDir(), "c")
	if got := f.LogPath(docker.Container{ID: "1", LogPath: "/engine/1.log"}); got != f.ContainersDir+"/1/1-json.log" {
		t.Errorf("configured: %s", got)
	}
	var fe *FileError
	if err := f.TryDir(false); !errors.As(err, &fe) || !errors.Is(err, fs.ErrNotExist) || err.Error() != fe.What+": "+fe.Remedy || fe.Remedy == "" {
		t.Errorf("no directory: %v", err)
	}
	log := f.LogPath(docker.Container{ID: "1"})
	if err := TryLog(log); !errors.As(err, &fe) || fe.Remedy == "" {
		t.Errorf("no log: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(TryLog(log), f.TryDir(true)); err != nil {
		t.Error(err)
	}
}
