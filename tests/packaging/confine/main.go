// Command confine runs another command under a seccomp filter:
//
//	confine FILTER COMMAND [ARGUMENT...]
//
// FILTER is a file with the filter's BPF instructions, struct sock_filter each, in the
// machine's byte order. It takes the place of systemd where there is none.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "confine: %v\n", err)
		os.Exit(1)
	}
}

// run returns only when the command could not be started.
func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: confine FILTER COMMAND [ARGUMENT...]")
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return fmt.Errorf("read the filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(text)/unix.SizeofSockFilter)
	if _, err := binary.Decode(text, binary.NativeEndian, filter); err != nil || len(filter) == 0 {
		return fmt.Errorf("%s is no filter: %w", args[1], err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// For all threads of the Go runtime: any of them may be the one that calls exec.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call takes a pointer
	runtime.KeepAlive(&program)
	if errno != 0 {
		return fmt.Errorf("load the filter: %w", errno)
	}
	return fmt.Errorf("start %s: %w", args[2], unix.Exec(args[2], args[2:], os.Environ()))
}
