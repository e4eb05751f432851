package deadletter

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the want files of testdata anew; look at the difference")

// TestCases opens the directories of testdata, each a dead_letters. Each has a README that
// says what happened to it; want is what is made of it by an agent that starts there,
// writes one record and ends, and by who lists the records then.
func TestCases(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/README")
	must(t, err)
	if len(cases) < 8 {
		t.Fatalf("only %d cases found", len(cases))
	}
	for _, readme := range cases {
		src := filepath.Dir(readme)
		t.Run(filepath.Base(src), func(t *testing.T) {
			data := t.TempDir()
			dir := filepath.Join(data, dirName)
			must(t, os.Mkdir(dir, 0o700))
			entries, err := os.ReadDir(src)
			must(t, err)
			for _, e := range entries {
				if e.Name() != "README" && e.Name() != "want" {
					b, err := os.ReadFile(filepath.Join(src, e.Name()))
					must(t, err)
					must(t, os.WriteFile(filepath.Join(dir, e.Name()), b, 0o600))
				}
			}
			var log bytes.Buffer
			l, err := Open(data, Options{Now: clock, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
				ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key != slog.MessageKey && a.Key != slog.LevelKey {
						return slog.Attr{}
					}
					return a
				},
			}))})
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

			want := filepath.Join(src, "want")
			if *update {
				must(t, os.WriteFile(want, got.Bytes(), 0o600))
			}
			b, err := os.ReadFile(want)
			must(t, err)
			if got.String() != string(b) {
				t.Errorf("got\n%swant\n%s", got.String(), b)
			}
		})
	}
}
