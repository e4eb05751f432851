package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestCapability: the value that setcap cap_dac_read_search=ep gives a file.
func TestCapability(t *testing.T) {
	want := "\x01\x00\x00\x02\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	if got := capability(capDacReadSearch); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// CAP_BPF, 39, is in the upper half.
	want = "\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"
	if got := capability(39); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	bin, empty := filepath.Join(dir, "bin"), filepath.Join(dir, "empty")
	for path, text := range map[string]string{bin: "ELF", empty: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(1700000000, 0)
	nodes := []node{
		{name: "d/", mode: 0o700, owner: user},
		{name: "d/bin", mode: 0o755, from: bin, capability: capability(capDacReadSearch)},
		{name: "d/text", mode: 0o644, text: "hello\n"},
	}
	var one, two bytes.Buffer
	if err := errors.Join(write(&one, at, nodes), write(&two, at, nodes)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same files give other bytes")
	}
	r := tar.NewReader(&one)
	for i, want := range []string{"", "ELF", "hello\n"} {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		n := nodes[i]
		if err != nil || string(text) != want || h.Name != n.name || h.Mode != n.mode || h.Uid != n.owner || h.Gid != n.owner ||
			!h.ModTime.Equal(at) || h.PAXRecords["SCHILY.xattr.security.capability"] != n.capability || (h.Typeflag == tar.TypeDir) != (i == 0) {
			t.Errorf("%+v with %q, %v; want %+v with %q", h, text, err, n, want)
		}
	}
	if h, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%+v, %v", h, err)
	}
	for _, from := range []string{empty, empty + ".none"} {
		if err := write(io.Discard, at, []node{{name: "f", mode: 0o644, from: from}}); err == nil {
			t.Errorf("%s is taken", from)
		}
	}
}

func TestEpoch(t *testing.T) {
	for s, want := range map[string]int64{"": 0, "0": 0, "1700000000": 1700000000, "-1": -1, "today": -1} {
		got, err := epoch(s)
		if (err != nil) != (want < 0) || err == nil && got.Unix() != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}
