package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/monitors"
	"github.com/log-capturer/log_capturer/internal/server"
)

// logFacts is what there is of Docker's files.
type logFacts struct {
	// Dir is where this process sees the containers' directories, DirErr why they
	// cannot be read there.
	Dir    string
	DirErr error
	// Files has the logs by container ID, of containers that were started and
	// whose log driver is one that is read from files.
	Files map[string]fileFacts
}

// fileFacts is what there is of one log.
type fileFacts struct {
	Path string
	Err  error // why it cannot be read
	// Absent: there is no directory of the container here. Other: what the engine
	// calls by the same name is another file.
	Absent, Other bool
}

// gatherLogs looks at the files of containers.
func gatherLogs(ctx context.Context, f *monitors.Forecast, containers []docker.Container) logFacts {
	l := logFacts{Files: make(map[string]fileFacts)}
	if !f.Routing.Files || f.ContainersDir == "" && f.RootDir == "" {
		return l
	}
	l.Dir, l.DirErr = f.Dir(), f.TryDir(len(containers) > 0)
	for _, c := range containers {
		if c.StartedAt.IsZero() || !slices.Contains(f.Routing.LogDrivers, c.Driver) {
			continue
		}
		if ctx.Err() != nil { // the disk is very slow
			l.Files[c.ID] = fileFacts{Path: f.LogPath(c), Err: context.Cause(ctx)}
			continue
		}
		l.Files[c.ID] = lookAt(ctx, f.LogPath(c), c.LogPath)
	}
	return l
}

// lookAt looks at a log that the engine sees at another path, perhaps.
func lookAt(ctx context.Context, path, engines string) fileFacts {
	f := fileFacts{Path: path, Err: monitors.TryLog(path)}
	// In a rotation there is none for a moment.
	for range 3 {
		if !errors.Is(f.Err, fs.ErrNotExist) {
			break
		}
		select {
		case <-ctx.Done():
			return f
		case <-time.After(5 * time.Millisecond):
		}
		f.Err = monitors.TryLog(path)
	}
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		f.Absent = true
	}
	if path == engines || engines == "" {
		return f
	}
	here, err1 := os.Stat(path)
	there, err2 := os.Stat(engines)
	f.Other = err1 == nil && err2 == nil && !os.SameFile(here, there)
	return f
}

// roads says how many containers are read from files, and how many streamed.
func (p *policy) roads(e engineFacts, l logFacts) (files, streams int) {
	for _, c := range e.Containers {
		switch p.foresee(c, e, l).Method {
		case monitors.MethodFileMonitor:
			files++
		case monitors.MethodStreaming:
			streams++
		}
	}
	return files, min(streams, p.maxStream)
}

// foresee says how a container is captured by an agent like us.
func (p *policy) foresee(c docker.Container, e engineFacts, l logFacts) monitors.Foreseen {
	return p.forecast.Container(c, l.DirErr == nil && l.Files[c.ID].Err == nil, e.NoLog[c.ID])
}

// filesOff is the result of a check of files where none is read.
func filesOff(p policy, name string) (Check, bool) {
	if c, skip := notWatched(p, name); skip {
		return c, true
	}
	return Check{Name: name, Status: Skip, Message: "file_based_monitoring is off: everything is streamed"}, !p.forecast.Routing.Files
}

// trouble tells an error of Docker's files apart from what is to be done.
func trouble(err error) (what, remedy string) {
	var fe *monitors.FileError
	if errors.As(err, &fe) {
		return fe.What, fe.Remedy
	}
	return err.Error(), "look at the file system: its mount, and the kernel's log"
}

// checkDirectory: are Docker's files here, and are they the engine's?
func checkDirectory(p policy, e engineFacts, l logFacts) Check {
	c, skip := filesOff(p, nameDirectory)
	switch {
	case skip:
		return c
	case l.Dir == "":
		return Check{Name: nameDirectory, Status: Skip, Message: "Docker does not tell where its directory is"}
	case l.DirErr != nil:
		what, remedy := trouble(l.DirErr)
		return Check{nameDirectory, Fail, what + instead(p), remedy}
	}
	absent, other, path := 0, 0, ""
	for _, f := range l.Files {
		switch {
		case f.Other:
			other++
			path = f.Path
		case f.Absent:
			absent++
			path = f.Path
		}
	}
	switch {
	case other > 0:
		return Check{nameDirectory, Fail, fmt.Sprintf("%s is not the file of that container that the engine in %s has", path, e.Info.RootDir),
			"set docker.containers_dir to where the engine's directory is mounted, or leave it empty if the path is the same"}
	case absent > 0:
		s := Warn // they may have been removed this moment
		if absent == len(l.Files) {
			s = Fail
		}
		return Check{nameDirectory, s, fmt.Sprintf("%s of %d are not in %s, such as %s", number(absent, "container", "containers"), len(l.Files), l.Dir, filepath.Dir(path)),
			fmt.Sprintf("mount the directory containers in %s (docker info: Docker Root Dir) there, or set docker.containers_dir to where it is", e.Info.RootDir)}
	}
	if e.Err != nil || len(l.Files) == 0 {
		return Check{Name: nameDirectory, Status: OK, Message: l.Dir + " can be entered; there is no log to tell whether it is the engine's"}
	}
	return Check{Name: nameDirectory, Status: OK, Message: fmt.Sprintf("%s is the engine's, with all of %s", l.Dir, number(len(l.Files), "container with a log", "containers with logs"))}
}

// instead says what is done about files that cannot be read.
func instead(p policy) string {
	if p.forecast.Routing.FallsBack() {
		return " (what is in there would be streamed, which costs more and loses lines at fast rotation)"
	}
	return ""
}

// checkLogFiles: may real logs be read?
func checkLogFiles(p policy, e engineFacts, l logFacts) Check {
	c, skip := filesOff(p, nameLogFiles)
	switch {
	case skip:
		return c
	case e.Err != nil:
		return Check{Name: nameLogFiles, Status: Skip, Message: "Docker does not answer"}
	case l.DirErr != nil:
		return Check{Name: nameLogFiles, Status: Skip, Message: "the containers directory cannot be read"}
	}
	total, failed, good := 0, 0, ""
	var err error
	for _, c := range e.Containers {
		f, ok := l.Files[c.ID]
		if !ok || p.foresee(c, e, l).Excluded {
			continue
		}
		total++
		if f.Err != nil {
			failed++
			err = f.Err
		} else {
			good = f.Path
		}
	}
	switch {
	case total == 0:
		return Check{Name: nameLogFiles, Status: Skip, Message: "no container has a log file that is to be read"}
	case failed > 0:
		what, remedy := trouble(err)
		s := Fail
		if failed < total && p.forecast.Routing.FallsBack() {
			s = Warn
		}
		return Check{nameLogFiles, s, fmt.Sprintf("%d of %d cannot be read%s: %s", failed, total, instead(p), what), remedy}
	}
	return Check{Name: nameLogFiles, Status: OK, Message: fmt.Sprintf("%d of %d can be read, such as %s", total, total, good)}
}

// judgeContainers says of each container how it is captured. What a running agent
// says of one counts more than what it looks like from here.
func judgeContainers(p policy, e engineFacts, l logFacts, a agentFacts) []Container {
	all := make([]Container, 0, len(e.Containers))
	if !p.enabled {
		return all
	}
	for _, c := range e.Containers {
		var agents *server.Container
		if at, ok := a.Containers[c.ID]; ok {
			agents = &at
		}
		all = append(all, judgeContainer(p.forecast.Routing, c, p.foresee(c, e, l), l.Files[c.ID].Err, agents))
	}
	slices.SortFunc(all, byName)
	return all
}

// judgeContainer says how one container is captured. foreseen is how it looks from
// here, fileErr why its file cannot be read from here, agents what the running
// agent says of it, nil if there is none.
func judgeContainer(r monitors.RoutingConfig, c docker.Container, foreseen monitors.Foreseen, fileErr error, agents *server.Container) Container {
	v := Container{ID: c.ID, Name: c.Name, Image: c.Image, Driver: c.Driver, Method: foreseen.Method, Status: OK, Message: foreseen.Reason}
	var remedies []string
	add := func(s Status, what, remedy string) {
		v.Status = max(v.Status, s)
		if what != "" {
			v.Message += "; " + what
		}
		if remedy != "" && !slices.Contains(remedies, remedy) {
			remedies = append(remedies, remedy)
		}
	}
	fileWhat, fileRemedy := "", ""
	if fileErr != nil {
		fileWhat, fileRemedy = trouble(fileErr)
	}
	if agents != nil {
		v.Method, v.Message = agents.Method, agents.Reason
		if agents.Method != foreseen.Method {
			add(Warn, fmt.Sprintf("seen from here it would be %s: %s", foreseen.Method, foreseen.Reason),
				"run this command as the agent runs (its user, its container, its configuration), or see `log_capturer containers --json`")
		}
		if agents.LastError != "" && fileWhat == "" {
			fileWhat, fileRemedy = agents.LastError, "see the error; the agent tries it again by itself"
		}
	}
	listed := slices.Contains(r.LogDrivers, c.Driver)
	switch {
	case v.Method == server.MethodNone && (foreseen.Excluded || c.Driver == "none"):
		v.Status = Skip // as was wanted
		return v
	case v.Method == server.MethodNone:
		add(Warn, "", "give it the log driver json-file, or allow streaming and the engine's cache (log-opts cache-disabled)")
	case v.Method == server.MethodStreaming && listed && r.Files:
		add(Warn, fileWhat, fileRemedy)
	case v.Method == server.MethodFileMonitor && fileErr != nil && foreseen.Method == v.Method:
		add(Fail, fileWhat, fileRemedy)
	}
	for _, f := range logOptions(c.Driver, c.LogOptions) {
		add(Warn, f.what, f.remedy)
	}
	v.Remedy = strings.Join(remedies, "; ")
	return v
}

// finding is something that deserves a warning.
type finding struct{ what, remedy string }

// smallLog is what a log should keep at least, in bytes: a burst of some thousand
// lines.
const smallLog = 1 << 20

// logOptions looks at a container's log-opts, in which Docker's defaults are filled
// in only as far as the engine's configuration has them.
func logOptions(driver string, o map[string]string) (all []finding) {
	if o["mode"] == "non-blocking" {
		all = append(all, finding{"mode=non-blocking: Docker drops lines when its buffer is full, and tells nobody",
			"leave mode out of its log-opts, or raise max-buffer-size"})
	}
	if driver != monitors.DriverJSONFile {
		return all
	}
	maxSize, bounded := parseSize(o["max-size"])
	files, err := strconv.Atoi(o["max-file"])
	if err != nil {
		files = 1 // Docker's default
	}
	switch {
	case !bounded:
		all = append(all, finding{"no max-size: its log grows until the disk is full", "set log-opts max-size and max-file, such as 50m and 3"})
	case files <= 1:
		all = append(all, finding{"max-file=1: a rotation deletes the only file, with all that was written while the agent was down", "set log-opts max-file to 3 or more"})
	case maxSize*int64(files) < smallLog:
		all = append(all, finding{fmt.Sprintf("max-size=%s with max-file=%d keeps less than 1 MB: a burst of lines may rotate it away before it is read", o["max-size"], files), "raise log-opts max-size, to 10m for instance"})
	}
	if compress, err := strconv.ParseBool(o["compress"]); bounded && files > 1 && err == nil && compress {
		all = append(all, finding{"compress=true: each rotation costs Docker CPU, and to go on in such a file after a stop it is unpacked from its start", "leave compress out of its log-opts unless disk is short"})
	}
	return all
}

// parseSize reads a size as Docker does: a number with k, m or g, perhaps. It is
// false for none, and for -1, no limit.
func parseSize(s string) (int64, bool) {
	s = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "b")
	unit := int64(1)
	for suffix, u := range map[string]int64{"k": 1000, "m": 1000 * 1000, "g": 1000 * 1000 * 1000} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = rest, u
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	return int64(n * float64(unit)), err == nil && n > 0
}
