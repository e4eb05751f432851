package deadletter

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/log-capturer/log_capturer/internal/disk/disktest"
)

// FuzzFile: whatever is in the file, it is read without harm, and a record that
// is appended to it is found.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","kind":"refused","container_name":"web","reason":"too long","raw":"aGVsbG8="}` + "\n"))
	f.Add([]byte(`{"kind":"malformed","position":"x@1","raw":""}` + "\n\n{\"kind\":\"refu"))
	f.Add([]byte("\x00\x00\x00{\"kind\":\"refused\"}\n[1]\nnull\n{}\n"))
	f.Add([]byte("{\"kind\":\"refused\",\"raw\":\"no base64\"}\r\n\xff\n"))
	f.Fuzz(func(t *testing.T, before []byte) {
		d := disktest.New()
		must(t, openMem(t, d, Options{}).Close())
		d.Put(memPath, before)
		l := openMem(t, d, Options{})
		must(t, l.Append([]Record{refused("appended")}))
		var last []byte
		dir, err := d.Mount().Sub(dirName)
		must(t, err)
		bad, err := EachIn(dir, func(s *Stored) error {
			var r Record
			if bytes.ContainsAny(s.Line, "\n\x00") || json.Unmarshal(s.Line, &r) != nil || r.Kind == "" || r.Kind != s.Kind {
				t.Errorf("a record of %q: %+v", s.Line, s.Record)
			}
			last = append(last[:0], s.Raw...)
			return nil
		})
		must(t, err)
		if string(last) != "appended" {
			t.Errorf("%d bad lines, and at the end %q", bad, last)
		}
	})
}
