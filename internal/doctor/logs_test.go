package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
)

// closed is an error of a log that the agent may not read.
func closed() error {
	return &monitors.FileError{What: "open /l: permission denied", Remedy: "give it CAP_DAC_READ_SEARCH"}
}

// containersOf makes containers with json-file.
func containersOf(ids ...string) (all []docker.Container) {
	for _, id := range ids {
		all = append(all, docker.Container{ID: id, Name: "n-" + id, Driver: "json-file", StartedAt: time.Unix(1, 0), Running: true})
	}
	return all
}

func TestCheckDirectory(t *testing.T) {
	filesOff := with(func(p *policy) { p.forecast.Routing.Files = false })
	alone := with(func(p *policy) { p.forecast.Routing.Fallback = false })
	answers := engineFacts{Info: docker.Info{RootDir: "/var/lib/docker"}}
	good, absent, other := fileFacts{Path: "/d/1/1.log"}, fileFacts{Path: "/d/2/2.log", Err: fs.ErrNotExist, Absent: true}, fileFacts{Path: "/d/3/3.log", Other: true}
	for what, c := range map[string]struct {
		p    policy
		e    engineFacts
		l    logFacts
		want want
	}{
		"well":         {hybrid(), answers, logFacts{Dir: "/d", Files: map[string]fileFacts{"1": good}}, want{OK, "/d is the engine's", ""}},
		"nothing yet":  {hybrid(), answers, logFacts{Dir: "/d"}, want{OK, "no log to tell", ""}},
		"closed":       {hybrid(), answers, logFacts{Dir: "/d", DirErr: closed()}, want{Fail, "would be streamed", "CAP_DAC_READ_SEARCH"}},
		"closed alone": {alone, answers, logFacts{Dir: "/d", DirErr: closed()}, want{Fail, "permission denied", "CAP_DAC_READ_SEARCH"}},
		"broken":       {hybrid(), answers, logFacts{Dir: "/d", DirErr: errors.New("input/output error")}, want{Fail, "input/output error", "file system"}},
		"another":      {hybrid(), answers, logFacts{Dir: "/d", Files: map[string]fileFacts{"2": absent}}, want{Fail, "1 container of 1 are not in /d", "docker.containers_dir"}},
		"one removed":  {hybrid(), answers, logFacts{Dir: "/d", Files: map[string]fileFacts{"1": good, "2": absent}}, want{Warn, "1 container of 2", "docker.containers_dir"}},
		"a copy":       {hybrid(), answers, logFacts{Dir: "/d", Files: map[string]fileFacts{"1": good, "3": other}}, want{Fail, "/d/3/3.log is not the file", "docker.containers_dir"}},
		"no root":      {hybrid(), engineFacts{Err: errors.New("x")}, logFacts{}, want{Skip, "does not tell", ""}},
		"not used":     {filesOff, answers, logFacts{}, want{Skip, "file_based_monitoring is off", ""}},
	} {
		is(t, what, checkDirectory(c.p, c.e, c.l), c.want)
	}
}

func TestCheckLogFiles(t *testing.T) {
	two := engineFacts{Containers: containersOf("1", "2")}
	good, bad := fileFacts{Path: "/d/1.log"}, fileFacts{Path: "/d/2.log", Err: closed()}
	alone := with(func(p *policy) { p.forecast.Routing.Streaming = false })
	oneOut := with(func(p *policy) {
		p.forecast.Selection.Exclude = []monitors.Rule{{Field: "name", Pattern: "n-2"}}
	})
	for what, c := range map[string]struct {
		p    policy
		e    engineFacts
		l    logFacts
		want want
	}{
		"well":         {hybrid(), two, logFacts{Files: map[string]fileFacts{"1": good, "2": good}}, want{OK, "2 of 2 can be read, such as /d/1.log", ""}},
		"one":          {hybrid(), two, logFacts{Files: map[string]fileFacts{"1": good, "2": bad}}, want{Warn, "1 of 2 cannot be read (what is in there would be streamed", "CAP_DAC"}},
		"one alone":    {alone, two, logFacts{Files: map[string]fileFacts{"1": good, "2": bad}}, want{Fail, "1 of 2 cannot be read: open /l", "CAP_DAC"}},
		"all":          {hybrid(), two, logFacts{Files: map[string]fileFacts{"1": bad, "2": bad}}, want{Fail, "2 of 2", "CAP_DAC"}},
		"excluded":     {oneOut, two, logFacts{Files: map[string]fileFacts{"1": good, "2": bad}}, want{OK, "1 of 1", ""}},
		"none":         {hybrid(), two, logFacts{}, want{Skip, "no container has a log file", ""}},
		"no directory": {hybrid(), two, logFacts{DirErr: closed()}, want{Skip, "directory cannot be read", ""}},
		"no engine":    {hybrid(), engineFacts{Err: errors.New("x")}, logFacts{}, want{Skip, "Docker", ""}},
	} {
		is(t, what, checkLogFiles(c.p, c.e, c.l), c.want)
	}
}

// bounded are log-opts that nothing is to be said of.
var bounded = map[string]string{"max-size": "50m", "max-file": "3"}

func TestJudgeContainer(t *testing.T) {
	p := hybrid()
	alone := with(func(p *policy) { p.forecast.Routing.Fallback = false })
	agent := func(method, reason, lastErr string) *server.Container {
		return &server.Container{Method: method, Reason: reason, LastError: lastErr}
	}
	for what, c := range map[string]struct {
		p       policy
		driver  string
		opts    map[string]string
		labels  map[string]string
		fileErr error
		noLog   bool
		agents  *server.Container
		method  string
		want    want
	}{
		"file":               {p, "json-file", bounded, nil, nil, false, nil, "file_monitor", want{OK, "log driver json-file keeps a file", ""}},
		"stream":             {p, "local", nil, nil, nil, false, nil, "streaming", want{OK, "keeps no file that can be read", ""}},
		"no cache":           {p, "syslog", nil, nil, nil, true, nil, "none", want{Warn, "the engine cannot read its log back", "json-file"}},
		"not allowed":        {alone, "local", nil, nil, nil, false, nil, "none", want{Warn, "fallback_to_streaming is off", "json-file"}},
		"driver none":        {p, "none", nil, nil, nil, false, nil, "none", want{Skip, "keeps nothing", ""}},
		"excluded":           {p, "json-file", nil, map[string]string{"log_capturer.enable": "false"}, nil, false, nil, "none", want{Skip, "label log_capturer.enable=false", ""}},
		"unreadable":         {p, "json-file", bounded, nil, closed(), false, nil, "streaming", want{Warn, "the log file cannot be read; open /l: permission denied", "CAP_DAC"}},
		"unreadable, alone":  {alone, "json-file", bounded, nil, closed(), false, nil, "file_monitor", want{Fail, "fallback_to_streaming is off; open /l", "CAP_DAC"}},
		"unbounded":          {p, "json-file", nil, nil, nil, false, nil, "file_monitor", want{Warn, "no max-size", "max-size and max-file"}},
		"agent agrees":       {p, "json-file", bounded, nil, nil, false, agent("file_monitor", "says the agent", ""), "file_monitor", want{OK, "says the agent", ""}},
		"agent disagrees":    {p, "json-file", bounded, nil, nil, false, agent("streaming", "says the agent", "boom"), "streaming", want{Warn, "says the agent; seen from here it would be file_monitor: log driver json-file keeps a file; boom", "run this command as the agent runs"}},
		"agent reads it":     {p, "json-file", bounded, nil, closed(), false, agent("file_monitor", "says the agent", ""), "file_monitor", want{Warn, "seen from here it would be streaming", "run this command as the agent runs"}},
		"agent, not allowed": {alone, "json-file", bounded, nil, closed(), false, agent("file_monitor", "says the agent", ""), "file_monitor", want{Fail, "says the agent; open /l", "CAP_DAC"}},
	} {
		one := docker.Container{ID: "1", Name: "web", Driver: c.driver, LogOptions: c.opts, Labels: c.labels, StartedAt: time.Unix(1, 0)}
		e := engineFacts{Containers: []docker.Container{one}, NoLog: map[string]bool{"1": c.noLog}}
		l := logFacts{Files: map[string]fileFacts{"1": {Err: c.fileErr}}}
		a := agentFacts{}
		if c.agents != nil {
			a.Containers = map[string]server.Container{"1": *c.agents}
		}
		all := judgeContainers(c.p, e, l, a)
		if len(all) != 1 {
			t.Fatalf("%s: %v", what, all)
		}
		got := all[0]
		is(t, what, Check{got.Name, got.Status, got.Message, got.Remedy}, c.want)
		if got.Method != c.method || got.ID != "1" || got.Name != "web" || got.Driver != c.driver {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if all := judgeContainers(with(func(p *policy) { p.enabled = false }), engineFacts{Containers: containersOf("1")}, logFacts{}, agentFacts{}); len(all) != 0 {
		t.Errorf("not enabled: %v", all)
	}
	all := judgeContainers(p, engineFacts{Containers: containersOf("b", "a")}, logFacts{DirErr: closed()}, agentFacts{})
	if all[0].ID != "a" || all[0].Method != "streaming" {
		t.Errorf("no directory: %+v", all)
	}
}

// TestRoads: what the limits are held against.
func TestRoads(t *testing.T) {
	p := with(func(p *policy) { p.maxStream = 1 })
	e := engineFacts{Containers: containersOf("1", "2", "3", "4")}
	e.Containers[1].Driver, e.Containers[2].Driver, e.Containers[3].Driver = "local", "local", "none"
	if files, streams := p.roads(e, logFacts{}); files != 1 || streams != 1 {
		t.Errorf("%d files, %d streams", files, streams)
	}
}

func TestLogOptions(t *testing.T) {
	for what, c := range map[string]struct {
		driver string
		o      map[string]string
		want   []string // beginnings
	}{
		"bounded":           {"json-file", bounded, nil},
		"nothing":           {"json-file", nil, []string{"no max-size"}},
		"endless":           {"json-file", map[string]string{"max-size": "-1"}, []string{"no max-size"}},
		"no max-file":       {"json-file", map[string]string{"max-size": "10m"}, []string{"max-file=1"}},
		"one file":          {"json-file", map[string]string{"max-size": "10m", "max-file": "1"}, []string{"max-file=1"}},
		"small":             {"json-file", map[string]string{"max-size": "100k", "max-file": "3"}, []string{"max-size=100k with max-file=3"}},
		"large enough":      {"json-file", map[string]string{"max-size": "1mb", "max-file": "2"}, nil},
		"a fraction":        {"json-file", map[string]string{"max-size": "0.5g", "max-file": "2"}, nil},
		"compressed":        {"json-file", map[string]string{"max-size": "10m", "max-file": "3", "compress": "true"}, []string{"compress=true"}},
		"not compressed":    {"json-file", map[string]string{"max-size": "10m", "max-file": "3", "compress": "false"}, nil},
		"compress alone":    {"json-file", map[string]string{"max-size": "10m", "compress": "true"}, []string{"max-file=1"}},
		"non-blocking":      {"json-file", map[string]string{"max-size": "10m", "max-file": "3", "mode": "non-blocking"}, []string{"mode=non-blocking"}},
		"blocking":          {"json-file", map[string]string{"max-size": "10m", "max-file": "3", "mode": "blocking"}, nil},
		"another driver":    {"local", nil, nil},
		"another, dropping": {"gelf", map[string]string{"mode": "non-blocking"}, []string{"mode=non-blocking"}},
	} {
		got := logOptions(c.driver, c.o)
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i].what, c.want[i]) && got[i].remedy != ""
		}
		if !ok {
			t.Errorf("%s: %v, want %q", what, got, c.want)
		}
	}
}

// TestGatherLogs looks at real files: as a rule root looks, whom no mode stops.
func TestGatherLogs(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "containers")
	log := func(dir, id string) string { return filepath.Join(dir, id, id+"-json.log") }
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(log(dir, "1"))
	all := containersOf("1", "2", "3", "4")
	for i := range all {
		all[i].LogPath = log(dir, all[i].ID)
	}
	all[2].StartedAt = time.Time{} // never started
	all[3].Driver = "local"
	p := hybrid()
	p.forecast.RootDir = root
	l := gatherLogs(t.Context(), &p.forecast, all)
	if l.Dir != dir || l.DirErr != nil || len(l.Files) != 2 {
		t.Fatalf("%+v", l)
	}
	if got := l.Files["1"]; got != (fileFacts{Path: log(dir, "1")}) {
		t.Errorf("there: %+v", got)
	}
	if got := l.Files["2"]; !got.Absent || got.Other || !errors.Is(got.Err, fs.ErrNotExist) {
		t.Errorf("not there: %+v", got)
	}

	// The same at another path, and another directory with the same names.
	link, elsewhere := filepath.Join(t.TempDir(), "link"), t.TempDir()
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	write(log(elsewhere, "1"))
	for at, other := range map[string]bool{link: false, elsewhere: true} {
		p.forecast.ContainersDir = at
		if got := gatherLogs(t.Context(), &p.forecast, all[:1]).Files["1"]; got.Other != other || got.Err != nil || got.Path != log(at, "1") {
			t.Errorf("%s: %+v", at, got)
		}
	}
	p.forecast.ContainersDir = t.TempDir()
	l = gatherLogs(t.Context(), &p.forecast, all[:1])
	var fe *monitors.FileError
	if !errors.As(l.DirErr, &fe) || !strings.Contains(fe.What, "is empty") || !strings.Contains(fe.Remedy, "docker.containers_dir") {
		t.Errorf("an empty directory: %v", l.DirErr)
	}
	late, cancel := context.WithCancelCause(t.Context())
	cancel(errNoAnswer(time.Second))
	p.forecast.ContainersDir = ""
	if got := gatherLogs(late, &p.forecast, all[:1]).Files["1"]; got.Err == nil || got.Err.Error() != "no answer within 1s" {
		t.Errorf("a slow disk: %+v", got)
	}
	p.forecast.Routing.Files = false
	if l := gatherLogs(t.Context(), &p.forecast, all); l.Dir != "" || len(l.Files) != 0 {
		t.Errorf("files that are not read were looked at: %+v", l)
	}
}
