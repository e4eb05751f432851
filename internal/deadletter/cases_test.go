package deadletter

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/log-capturer/log_capturer/internal/disk/casetest"
)

// TestCases opens the directories of testdata, each a dead_letters. Each has a README that
// says what happened to it; want is what is made of it by an agent that starts there,
// writes one record and ends, and by who lists the records then.
func TestCases(t *testing.T) {
	casetest.Run(t, 8, func(t *testing.T, c casetest.Case) []byte {
		data := t.TempDir()
		dir := filepath.Join(data, dirName)
		must(t, os.Mkdir(dir, 0o700))
		c.Copy(t, dir)
		var log bytes.Buffer
		l, err := Open(data, Options{Now: clock, Logger: casetest.Logger(&log)})
		must(t, err)
		must(t, l.Append([]Record{refused("new")}))
		must(t, l.Close())

		var got bytes.Buffer
		bad, err := Each(data, func(s *Stored) error {
			fmt.Fprintf(&got, "%s: %q, copy %v, replayed %v\n", s.Kind, s.Raw, s.Copy, s.Replayed)
			return nil
		})
		fmt.Fprintf(&got, "no records: %d\n", bad)
		if err != nil {
			fmt.Fprintf(&got, "error: %v\n", err)
		}
		names, _ := sizes(t, data)
		fmt.Fprintf(&got, "files: %v\n", names)
		got.Write(log.Bytes())
		return got.Bytes()
	})
}
