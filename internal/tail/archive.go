package tail

import (
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// archive reads a compressed part of the chain from front to back. Offsets are
// those of the uncompressed content. What has been unpacked but not consumed is
// kept, so that a line that was cut by the caller's buffer can be read again.
type archive struct {
	fd   int
	zr   *gzip.Reader
	off  int64  // of held[0]
	held []byte // unpacked, not yet known to be consumed
	err  error  // io.EOF or what broke the archive, once hit
}

// readAt fills buf from offset off. Going back beyond what is held starts the
// archive anew. It returns io.EOF only with n == 0.
func (a *archive) readAt(buf []byte, off int64) (int, error) {
	if a.zr == nil || off < a.off {
		zr, err := gzip.NewReader(io.NewSectionReader(fdReader(a.fd), 0, 1<<62))
		if err != nil {
			if errors.Is(err, io.EOF) { // an empty file: compression was killed at once
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		*a = archive{fd: a.fd, zr: zr}
	}
	for {
		if drop := off - a.off; drop > 0 {
			drop = min(drop, int64(len(a.held)))
			a.held = append(a.held[:0], a.held[drop:]...)
			a.off += drop
		}
		if a.err != nil || (a.off == off && len(a.held) >= len(buf)) {
			break
		}
		have := len(a.held)
		a.held = append(a.held, make([]byte, 64<<10)...)
		n, err := a.zr.Read(a.held[have:])
		a.held = a.held[:have+n]
		a.err = err
	}
	if a.off != off || len(a.held) == 0 {
		return 0, a.err
	}
	return copy(buf, a.held), nil
}

// readOut reports whether there is known to be nothing from offset off on.
func (a *archive) readOut(off int64) bool {
	return errors.Is(a.err, io.EOF) && off >= a.off+int64(len(a.held))
}

// fdReader reads a raw descriptor.
type fdReader int

// ReadAt is io.ReaderAt.
func (fd fdReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := pread(int(fd), p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// pread is pread(2), repeated when a signal interrupts it.
func pread(fd int, p []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(fd, p, off)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
