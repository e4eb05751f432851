package app

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// An agent starts on every data_dir that is damaged in one of the ways that the packages
// which keep something there know of, serves, stops, and starts again.
func TestDamagedDataDirs(t *testing.T) {
	s := lokitest.New(lokitest.Options{})
	defer s.Close()
	for pkg, below := range map[string]string{
		"positions":  ".",
		"spool":      "spool/lane-0",
		"deadletter": "dead_letters",
	} {
		cases, err := filepath.Glob("../" + pkg + "/testdata/*/README")
		if err != nil || len(cases) < 8 {
			t.Fatalf("%d cases of %s: %v", len(cases), pkg, err)
		}
		for _, readme := range cases {
			src := filepath.Dir(readme)
			t.Run(pkg+"/"+filepath.Base(src), func(t *testing.T) {
				data := t.TempDir()
				lay(t, src, filepath.Join(data, below))
				for range 2 {
					addr, stop := start(t, testConfig(t, data, s.URL), nil)
					if code, body := get(t, addr, "/livez"); code != http.StatusOK {
						t.Errorf("/livez is %d: %s", code, body)
					}
					if err := stop(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// lay copies the files of a case, without what is said about them.
func lay(t *testing.T, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "README" || e.Name() == "want" {
			continue
		}
		in, err := os.Open(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(to, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(out, in)
		if err := errors.Join(err, in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
