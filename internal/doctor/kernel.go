package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// The agent has one instance of inotify for files that appear and one for writes,
	// and a watch for each log in both.
	instances     = 2
	watchesPerLog = 2
	// eventsPerContainer is how many events of one directory may wait: a rotation
	// is four.
	eventsPerContainer = 4
	// otherDescriptors are those that are no log files: sockets, the spool, the
	// positions and the like, as the agent counts them.
	otherDescriptors = 64
)

// kernelFacts are the limits of the kernel, and of this process.
type kernelFacts struct {
	// Instances, Watches and Events are fs.inotify.max_user_instances,
	// max_user_watches and max_queued_events; LimitsErr is why they are not known.
	Instances, Watches, Events int
	LimitsErr                  error
	// InotifyErr is why this user cannot have an instance, or a watch, any more.
	InotifyErr error
	// Descriptors is RLIMIT_NOFILE, in Go the hard limit.
	Descriptors    uint64
	DescriptorsErr error
}

// gatherKernel reads the limits, and tries what the agent needs.
func gatherKernel(proc string) (k kernelFacts) {
	for name, to := range map[string]*int{"max_user_instances": &k.Instances, "max_user_watches": &k.Watches, "max_queued_events": &k.Events} {
		b, err := os.ReadFile(filepath.Join(proc, "sys", "fs", "inotify", name))
		if err == nil {
			*to, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		if err != nil {
			k.LimitsErr = err
		}
	}
	k.InotifyErr = tryInotify(proc)
	var lim unix.Rlimit
	k.DescriptorsErr = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	k.Descriptors = lim.Cur
	return k
}

// tryInotify asks for what the agent needs: an instance for files that appear and one
// for writes, with a watch in each.
func tryInotify(dir string) error {
	for range instances {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("inotify_init1: %w", err)
		}
		defer unix.Close(fd) //nolint:errcheck,gocritic // two, and nothing was written
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
			return fmt.Errorf("inotify_add_watch: %w", err)
		}
	}
	return nil
}

// checkInotify: will the agent be woken when something is written? files is how
// many containers are read from files: each takes watchesPerLog. Without, the agent
// reads every 2 s: nothing is lost, and so nothing is worse than a warning.
func checkInotify(p policy, k kernelFacts, files int) Check {
	if c, skip := filesOff(p, nameInotify); skip {
		return c
	}
	const late = ": lines come up to 2 s late"
	switch {
	case errors.Is(k.InotifyErr, unix.EMFILE):
		return Check{nameInotify, Warn, fmt.Sprintf("user %d has used up the %d instances of inotify%s", os.Geteuid(), k.Instances, late),
			fmt.Sprintf("sysctl -w fs.inotify.max_user_instances=%d", max(512, 2*k.Instances))}
	case errors.Is(k.InotifyErr, unix.ENOSPC):
		return Check{nameInotify, Warn, fmt.Sprintf("user %d has used up the %d watches of inotify%s", os.Geteuid(), k.Watches, late),
			fmt.Sprintf("sysctl -w fs.inotify.max_user_watches=%d", max(65536, 2*k.Watches))}
	case k.InotifyErr != nil:
		return Check{nameInotify, Warn, k.InotifyErr.Error() + late, "allow the agent the system calls of inotify (seccomp profile of its container)"}
	case k.LimitsErr != nil:
		return Check{nameInotify, Warn, "the limits are not known: " + k.LimitsErr.Error(), "let the agent see /proc/sys/fs/inotify"}
	case k.Watches < watchesPerLog*files:
		return Check{nameInotify, Warn, fmt.Sprintf("max_user_watches is %d, for %s%s for the others", k.Watches, number(files, "log", "logs"), late),
			fmt.Sprintf("sysctl -w fs.inotify.max_user_watches=%d", max(65536, 2*watchesPerLog*files))}
	case k.Events < eventsPerContainer*files:
		return Check{nameInotify, Warn, fmt.Sprintf("max_queued_events is %d, for %s: many that rotate at once are found up to 2 s late", k.Events, number(files, "log", "logs")),
			fmt.Sprintf("sysctl -w fs.inotify.max_queued_events=%d", max(16384, 2*eventsPerContainer*files))}
	}
	return Check{Name: nameInotify, Status: OK, Message: fmt.Sprintf("%s to watch; max_user_instances %d, max_user_watches %d, max_queued_events %d", number(files, "log", "logs"), k.Instances, k.Watches, k.Events)}
}

// checkDescriptors: may the agent have enough files open? It holds one for each log
// and one for each stream. With fewer it opens and closes them in turn.
func checkDescriptors(k kernelFacts, files, streams int) Check {
	if k.DescriptorsErr != nil {
		return Check{nameDescriptors, Warn, "the limit is not known: " + k.DescriptorsErr.Error(), "see ulimit -n"}
	}
	need := uint64(files + streams + otherDescriptors)
	message := fmt.Sprintf("%d may be open here; %s and %s take about %d", k.Descriptors, number(files, "log", "logs"), number(streams, "stream", "streams"), need)
	if k.Descriptors < need {
		return Check{nameDescriptors, Warn, message, fmt.Sprintf("raise the agent's limit to %d (systemd: LimitNOFILE, container: --ulimit nofile)", max(4096, 2*need))}
	}
	return Check{Name: nameDescriptors, Status: OK, Message: message}
}
