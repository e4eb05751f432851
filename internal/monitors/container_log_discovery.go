package monitors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/docker"
	"github.com/log-capturer/log_capturer/internal/entry"
)

// DriverJSONFile is the log driver whose files are read.
const DriverJSONFile = "json-file"

// statusCreated is Docker's state of a container that was never started.
const statusCreated = "created"

// inspectors is how many containers are inspected at once at most: the engine
// answers in about a millisecond, and a thousand must not take a second.
const inspectors = 8

// inspector tells of one container.
type inspector interface {
	Inspect(ctx context.Context, id string) (docker.Container, error)
}

// Engine is what discovery asks of the Docker engine.
type Engine interface {
	inspector
	List(ctx context.Context) ([]docker.Summary, error)
}

// ContainerLogFileInfo is a container, and where its log is.
type ContainerLogFileInfo struct {
	// ID is the container's full ID, Name its name without the slash.
	ID, Name string
	// Host is the value of the label host.
	Host string
	// Image is the reference that the container was created from.
	Image string
	// Labels are the container's labels.
	Labels map[string]string
	// Driver is the log driver, LogPath the log as this process sees it.
	Driver, LogPath string
	// TTY says that the container has a terminal: the API streams its log
	// without frames.
	TTY bool
	// Running is false for a container that has exited: nothing is added to
	// its log before it is started again. One that is created and not started
	// yet counts as running.
	Running bool
	// StartedAt and FinishedAt are of the last start and the last exit; zero
	// if there was none. A running container's FinishedAt is of the run before.
	Created, StartedAt, FinishedAt time.Time
	// Err says why the log cannot be read now, with what to do; nil if it can.
	// It is fs.ErrNotExist for a container that has not been started yet. Set
	// by DiscoverContainerLogFiles, and for a container that is streamed for
	// this reason.
	Err error

	// stats, unless nil, are the container's counters so far.
	stats *entry.Stats
}

// CheckLogDrivers refuses the drivers whose files are not read.
func CheckLogDrivers(drivers []string) error {
	for _, d := range drivers {
		if d != DriverJSONFile {
			return fmt.Errorf("log driver %q: only the files of %q are read", d, DriverJSONFile)
		}
	}
	return nil
}

// LogPath gives the path of a container's log as this process sees it. The
// engine tells its own path, and none before the first start; containersDir,
// unless empty, is where this process sees the engine's directory of containers.
func LogPath(containersDir string, c docker.Container) string {
	if containersDir == "" {
		return c.LogPath
	}
	return filepath.Join(containersDir, c.ID, c.ID+"-json.log")
}

// fileInfoOf says where a container's log is.
func fileInfoOf(containersDir string, c docker.Container) ContainerLogFileInfo {
	return ContainerLogFileInfo{
		ID: c.ID, Name: c.Name, Image: c.Image, Labels: c.Labels,
		Driver: c.Driver, LogPath: LogPath(containersDir, c), TTY: c.TTY,
		Running: c.Running || c.Status == statusCreated, Created: c.Created, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt,
	}
}

// DiscoverContainerLogFiles gives every container, running or not, whose log
// driver is one of drivers, sorted by name. A log that is missing or cannot be
// read is told in its Err and is no failure of the whole; a container that
// vanishes meanwhile is left out. containersDir is as for LogPath; where it is
// empty a container that was never started has no path.
func DiscoverContainerLogFiles(ctx context.Context, engine Engine, drivers []string, containersDir string) ([]ContainerLogFileInfo, error) {
	if err := CheckLogDrivers(drivers); err != nil {
		return nil, err
	}
	list, err := engine.List(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.ID
	}
	var infos []ContainerLogFileInfo
	var failed []error
	inspectAll(ctx, engine, ids, func(c docker.Container, err error) {
		switch {
		case errors.Is(err, docker.ErrNotFound):
		case err != nil:
			failed = append(failed, err)
		case slices.Contains(drivers, c.Driver):
			info := fileInfoOf(containersDir, c)
			info.Err = checkReadable(info.LogPath)
			infos = append(infos, info)
		}
	})
	slices.SortFunc(infos, func(a, b ContainerLogFileInfo) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return infos, errors.Join(failed...)
}

// inspectAll inspects containers, some at a time, and gives each answer to got,
// one at a time, from goroutines that have ended when it returns.
func inspectAll(ctx context.Context, engine inspector, ids []string, got func(docker.Container, error)) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(inspectors)
	for _, id := range ids {
		g.Go(func() error {
			c, err := engine.Inspect(ctx, id)
			if c.ID == "" {
				c.ID = id
			}
			mu.Lock()
			defer mu.Unlock()
			got(c, err)
			return nil
		})
	}
	_ = g.Wait() // its functions give no errors
}

// checkReadable opens a log for reading and says what to do if that fails.
func checkReadable(path string) error {
	f, err := openLogFile(path)
	if err != nil {
		return explain(err)
	}
	return f.Close()
}

// openLogFile opens what may be no plain file, without waiting for one.
func openLogFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// FileError is why a log cannot be read from its file.
type FileError struct {
	// What is the error with what was found, Remedy what an operator can do.
	What, Remedy string

	err error
}

func (e *FileError) Error() string { return e.What + ": " + e.Remedy }

func (e *FileError) Unwrap() error { return e.err }

// explain adds to the error of a log's file what an operator can do about it, as
// a *FileError, where there is something to say. It names the first directory on
// the way that is missing or closed, with its mode.
func explain(err error) error {
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		at, mode := blockedAt(pe.Path)
		return &FileError{
			What:   fmt.Sprintf("%v (%s has mode %v and uid %d may not pass)", err, at, mode, os.Geteuid()),
			Remedy: "run the agent as root or give it the capability CAP_DAC_READ_SEARCH", err: err,
		}
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(pe.Path)
		if parent := filepath.Dir(dir); !exists(parent) {
			return &FileError{
				What:   fmt.Sprintf("%v: Docker's directory %s is not visible here", err, parent),
				Remedy: "mount it read-only at the same path, or set docker.containers_dir to where it is mounted", err: err,
			}
		}
		if !exists(dir) {
			return &FileError{
				What:   fmt.Sprintf("%v: the container's directory is not visible here", err),
				Remedy: fmt.Sprintf("is %s that of this engine (docker info: Docker Root Dir)?", filepath.Dir(dir)), err: err,
			}
		}
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// blockedAt gives the first part of a path that cannot be entered or read, and
// its mode.
func blockedAt(path string) (string, fs.FileMode) {
	for p := path; ; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err == nil {
			return p, st.Mode().Perm()
		}
		if p == filepath.Dir(p) {
			return p, 0
		}
	}
}

// checkContainersDir says why no log can be found in Docker's directory of
// containers, with what to do; nil if they can. There are containers, so that it
// must not be empty, if containers is true.
func checkContainersDir(dir string, containers bool) error {
	const mount = "mount Docker's directory read-only at the same path, or set docker.containers_dir to where it is mounted"
	// To be passed is enough: who may not list it can read the logs all the same.
	_, err := os.Stat(dir + "/.")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &FileError{What: err.Error(), Remedy: mount, err: err}
	case err != nil:
		return explain(err)
	case !containers:
		return nil
	}
	d, err := os.Open(dir)
	if err == nil {
		_, err = d.Readdirnames(1)
		_ = d.Close()
	}
	if errors.Is(err, io.EOF) {
		return &FileError{What: dir + " is empty, though Docker has containers", Remedy: mount, err: err}
	}
	return nil
}

// tryLog says why a log cannot be read from its file; nil if it can.
func tryLog(path string) error {
	dir, err := os.ReadDir(filepath.Dir(path))
	if err != nil && len(dir) == 0 {
		return explain(err)
	}
	f, err := openLogFile(path)
	if err != nil {
		return explain(err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if _, err := f.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
