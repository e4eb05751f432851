package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// Kinds of failure, for errors.Is.
var (
	// ErrNotFound: there is no such container (any more).
	ErrNotFound = errors.New("no such container")
	// ErrUnavailable: the engine cannot be reached or does not answer; the same
	// call may succeed later.
	ErrUnavailable = errors.New("engine not available")
	// ErrConflict: the container is being removed; its log cannot be read.
	ErrConflict = errors.New("container is being removed")
	// ErrNotReadable: the container's log driver cannot be read back (none, or
	// a remote one with its cache disabled).
	ErrNotReadable = errors.New("log driver cannot be read")
	// ErrProtocol: what came as a log is none.
	ErrProtocol = errors.New("no log stream of a Docker engine (is a proxy between the agent and Docker, or the container's TTY setting wrong?)")
)

// IsNotFound reports whether err says that the container does not exist.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// IsUnavailable reports whether err says that the engine could not be asked.
func IsUnavailable(err error) bool { return errors.Is(err, ErrUnavailable) }

// fail wraps the error of a call with what was tried, where, and what to do.
// ctx is the caller's, without the call's own time limit: when it has ended,
// that is the reason and no fault of the engine.
func (c *Client) fail(ctx context.Context, call string, err error) error {
	where := fmt.Sprintf("docker: %s at %s", call, c.host)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", where, context.Cause(ctx))
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", where, ErrNotFound, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w: no answer within %v (is the engine overloaded, or stopped?)",
			where, ErrUnavailable, callTimeout.Round(time.Second))
	case client.IsErrConnectionFailed(err):
		if hint := socketHint(c.host, err); hint != "" {
			return fmt.Errorf("%s: %w: %s", where, ErrUnavailable, hint)
		}
		return fmt.Errorf("%s: %w: %w", where, ErrUnavailable, err)
	case cerrdefs.IsInternal(err), cerrdefs.IsUnavailable(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w: %w", where, ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", where, err)
	}
}

// socketHint is what SocketTrouble says, in one; "" when it says nothing.
func socketHint(host string, err error) string {
	what, remedy := SocketTrouble(host, err)
	if what == "" {
		return ""
	}
	return what + ": " + remedy
}

// SocketTrouble looks at a unix socket that could not be connected to, and says
// what is wrong and what an operator should do about it; nothing when the socket
// looks fine or host is none. The moby client replaces the reason of a failed
// connect by a text of its own, so that the reason is looked up.
func SocketTrouble(host string, err error) (what, remedy string) {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return "", ""
	}
	var st unix.Stat_t
	statErr := unix.Stat(path, &st)
	switch {
	case errors.Is(statErr, syscall.ENOENT):
		return path + " does not exist", fmt.Sprintf("is Docker running? In a container mount the socket (-v %s:%s)", path, path)
	case errors.Is(statErr, syscall.EACCES):
		return fmt.Sprintf("no permission to look at %s as user %d", path, os.Geteuid()), "its directory is closed to the agent"
	case statErr != nil:
		return "", ""
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return path + " is a directory", "it was mounted before Docker had made the socket; start Docker, remove the directory, then recreate the agent's container"
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return path + " is no socket", "check docker.host"
	case errors.Is(unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS), syscall.EACCES):
		return fmt.Sprintf("no permission on %s as user %d", path, os.Geteuid()),
			fmt.Sprintf("give the agent the group %d (systemd: SupplementaryGroups=%d, container: --group-add %d)", st.Gid, st.Gid, st.Gid)
	case errors.Is(err, syscall.ECONNREFUSED),
		strings.Contains(err.Error(), "Cannot connect to the Docker daemon"): // moby's text for it
		return "nobody listens on " + path, "is Docker running? A container that mounts the socket keeps the old one when Docker makes a new one: recreate it, or mount the directory"
	default:
		return "", ""
	}
}
