package tail

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// maxPrintBytes bounds how much of a file's first line its print covers. It is
// more than Docker's longest entry (98,372 bytes) with usual attributes.
const maxPrintBytes = 128 << 10

// handleOf gives a hash of the kernel's handle of an open file, which contains
// inode number and generation, or of its inode number and birth time where the
// file system has no handles (overlay without nfs_export, some network file
// systems), or 0 where it has neither.
func handleOf(fd int, ino uint64) uint64 {
	var h uint64
	if fh, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH); err == nil {
		b := binary.LittleEndian.AppendUint32(nil, uint32(fh.Type()))
		h = xxhash.Sum64(append(b, fh.Bytes()...))
	} else {
		var st unix.Statx_t
		err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME|unix.STATX_INO, &st)
		if err != nil || st.Mask&unix.STATX_BTIME == 0 {
			return 0
		}
		b := binary.LittleEndian.AppendUint64(nil, ino)
		b = binary.LittleEndian.AppendUint64(b, uint64(st.Btime.Sec))
		h = xxhash.Sum64(binary.LittleEndian.AppendUint32(b, st.Btime.Nsec))
	}
	if h == 0 {
		h = 1 // 0 means unknown
	}
	return h
}

// printOf hashes the first line that read gives from offset 0, or its first
// maxPrintBytes. It gives 0 while there is no complete line.
func printOf(read func(buf []byte, off int64) (int, error)) (uint64, error) {
	buf := make([]byte, 4<<10)
	n := 0
	for {
		m, err := read(buf[n:], int64(n))
		n += m
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			return hashLine(buf[:i+1]), nil
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return 0, err
		case m == 0:
			return 0, nil
		case n >= maxPrintBytes:
			return hashLine(buf[:maxPrintBytes]), nil
		case n == len(buf):
			buf = append(buf, make([]byte, min(len(buf), maxPrintBytes-n))...)
		}
	}
}

func hashLine(line []byte) uint64 {
	if h := xxhash.Sum64(line); h != 0 {
		return h
	}
	return 1
}

// sameFile decides whether a file of the chain is the one that was saved.
// by is how sure it is.
func sameFile(saved, have entry.FileID) match {
	switch {
	case saved.Handle != 0 && saved.Handle == have.Handle:
		// The same inode of the same generation. A different first line means
		// that it has been truncated and written anew.
		if saved.Print != 0 && saved.Print != have.Print {
			return matchNone
		}
		return matchHandle
	case saved.Print != 0 && saved.Print == have.Print:
		// Its archive, or a copy.
		return matchPrint
	}
	return matchNone
}

type match uint8

const (
	matchNone match = iota
	matchPrint
	matchHandle
)
