// Command rootfs writes the file system of the container image as a tar, which the
// Dockerfile only has to unpack:
//
//	log_capturer, configuration, CA certificates --> rootfs.tar --> docker build
//
// A tar, because that is the one way by which the agent's file capability and the
// owner of its data directory reach an image in every builder, without root and
// without an image to run setcap in. The same files give the same bytes.
package main

import (
	"archive/tar"
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// user is who the agent runs as in the container, and owns its data directory. It
// is nobody on the host.
const user = 65532

// capDacReadSearch is CAP_DAC_READ_SEARCH of linux/capability.h: to read files and
// list directories whatever their permissions. Docker's log files are root's.
const capDacReadSearch = 2

// capability is the value of the extended attribute security.capability (struct
// vfs_cap_data, revision 2) that makes one capability permitted and effective.
func capability(bit int) string {
	const revision2, effective = 0x02000000, 1
	b := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	permitted := uint64(1) << bit
	for _, v := range []uint32{uint32(permitted), 0, uint32(permitted >> 32), 0} { // permitted, inheritable; low, high
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return string(b)
}

// node is a file or directory of the image.
type node struct {
	name  string // a directory's ends in /
	mode  int64
	owner int
	// from is the file that it is a copy of; text is its content otherwise.
	from, text string
	capability string
}

// write writes the nodes as a tar, all of one time.
func write(w io.Writer, at time.Time, nodes []node) error {
	t := tar.NewWriter(w)
	for _, n := range nodes {
		h := &tar.Header{Name: n.name, Mode: n.mode, Uid: n.owner, Gid: n.owner, ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		content := []byte(n.text)
		switch {
		case n.name[len(n.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		case n.from != "":
			var err error
			if content, err = os.ReadFile(n.from); err != nil {
				return err
			}
			if len(content) == 0 {
				return fmt.Errorf("%s is empty", n.from)
			}
		}
		if n.capability != "" {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": n.capability}
		}
		h.Size = int64(len(content))
		err := t.WriteHeader(h)
		if err == nil {
			_, err = t.Write(content)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return t.Close()
}

// epoch gives the time of SOURCE_DATE_EPOCH, and 1970 where that is not set.
func epoch(s string) (time.Time, error) {
	if s == "" {
		return time.Unix(0, 0), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: seconds since 1970", s)
	}
	return time.Unix(n, 0), nil
}

func run() (err error) {
	bin := flag.String("bin", "bin/log_capturer", "the agent, linked statically")
	config := flag.String("config", "configs/config.yaml", "its configuration")
	ca := flag.String("ca", "/etc/ssl/certs/ca-certificates.crt", "certificates of the authorities that https:// stores are checked against")
	license := flag.String("license", "LICENSE", "the licence")
	out := flag.String("o", "bin/image/rootfs.tar", "the tar to write")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	at, err := epoch(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(*out) // half of it is worse than nothing
		}
	}()
	w := bufio.NewWriter(f)
	if err := write(w, at, []node{
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, text: fmt.Sprintf("root:x:0:\nlog_capturer:x:%d:\n", user)},
		{name: "etc/log_capturer/", mode: 0o755},
		{name: "etc/log_capturer/config.yaml", mode: 0o644, from: *config},
		{name: "etc/passwd", mode: 0o644, text: fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nlog_capturer:x:%d:%d::/var/lib/log_capturer:/sbin/nologin\n", user, user)},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, from: *ca},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "usr/bin/log_capturer", mode: 0o755, from: *bin, capability: capability(capDacReadSearch)},
		{name: "usr/share/", mode: 0o755},
		{name: "usr/share/doc/", mode: 0o755},
		{name: "usr/share/doc/log_capturer/", mode: 0o755},
		{name: "usr/share/doc/log_capturer/LICENSE", mode: 0o644, from: *license},
		{name: "var/", mode: 0o755},
		{name: "var/lib/", mode: 0o755},
		{name: "var/lib/log_capturer/", mode: 0o700, owner: user},
	}); err != nil {
		return err
	}
	return w.Flush()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "rootfs: %v\n", err)
		os.Exit(1)
	}
}
