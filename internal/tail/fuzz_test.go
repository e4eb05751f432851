package tail

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// FuzzArchive: whatever an archive is, what is read of it at any offset is what
// unpacking it from its beginning gives.
func FuzzArchive(f *testing.F) {
	pack := func(text string, extra []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Extra = extra // Docker writes the time of the last entry here
		_, err := io.WriteString(w, text)
		if err = errors.Join(err, w.Close()); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	whole := pack("{\"log\":\"a\\n\"}\n{\"log\":\"b\\n\"}\n", []byte(`{"lastTime":"2025-11-07T12:00:00Z"}`))
	f.Add(whole, []byte{0, 14, 3, 0})
	f.Add(whole[:len(whole)-9], []byte{5})        // compression was killed
	f.Add(append(whole, whole...), []byte{30, 1}) // two members
	f.Add(append(whole, "rubbish"...), []byte{1}) // something behind it
	f.Add(pack(string(make([]byte, 200_000)), nil), []byte{255, 0, 128})
	f.Add([]byte{}, []byte{0})
	f.Add([]byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, []byte{0}) // an extra field without end
	const most = 1 << 20                                                     // of what is unpacked: an archive may be of gigabytes
	path := filepath.Join(f.TempDir(), "x.gz")
	f.Fuzz(func(t *testing.T, packed, offsets []byte) {
		var want []byte
		if zr, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
			want, _ = io.ReadAll(io.LimitReader(zr, most)) // what comes before the fault
		}
		if err := os.WriteFile(path, packed, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		a := &archive{fd: int(file.Fd())}
		buf := make([]byte, 1000)
		for _, o := range offsets {
			off := int64(o) * int64(len(want)) / 255
			n, err := a.readAt(buf, off)
			if err != nil && n > 0 || err == nil && n == 0 {
				t.Fatalf("%d bytes and %v", n, err)
			}
			if rest := want[off:]; !bytes.Equal(buf[:n], rest[:min(n, len(rest))]) || n < min(len(buf), len(rest)) {
				t.Fatalf("at %d: %d bytes, %v; %d are there", off, n, err, len(rest))
			}
		}
	})
}
