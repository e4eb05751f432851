// Package casetest runs a test over cases: the directories in a package's testdata.
// Each has files as something has left them, a README that says what that was, and
// want, what is to be made of them.
//
// With the flag -update of its test the want files are written anew.
package casetest

import (
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the want files of testdata anew; look at the difference")

const (
	readme = "README"
	want   = "want"
)

// Case is a directory of testdata.
type Case struct{ dir string }

// Run makes a subtest of each case, of which there must be at least so many. What f
// gives must be what is in the case's want.
func Run(t *testing.T, least int, f func(t *testing.T, c Case) (got []byte)) {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	must(t, err)
	var cases []Case
	for _, e := range entries {
		if e.Name() != "fuzz" { // where `go test -fuzz` puts what it has found
			cases = append(cases, Case{filepath.Join("testdata", e.Name())})
		}
	}
	if len(cases) < least {
		t.Fatalf("only %d cases found", len(cases))
	}
	for _, c := range cases {
		t.Run(filepath.Base(c.dir), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(c.dir, readme))
			if err != nil || len(text) < 20 {
				t.Fatalf("a case says what it is: %v", err)
			}
			got := f(t, c)
			name := filepath.Join(c.dir, want)
			if *update {
				must(t, os.WriteFile(name, got, 0o600))
			}
			expected, err := os.ReadFile(name)
			must(t, err)
			if string(got) != string(expected) {
				t.Errorf("got\n%s\nwant\n%s", got, expected)
			}
		})
	}
}

// Copy puts the files of a case into a directory.
func (c Case) Copy(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(c.dir)
	must(t, err)
	for _, e := range entries {
		if e.Name() != readme && e.Name() != want {
			b, err := os.ReadFile(filepath.Join(c.dir, e.Name()))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, e.Name()), b, 0o600))
		}
	}
}

// Logger writes level and message, and nothing that differs from run to run.
func Logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key != slog.MessageKey && a.Key != slog.LevelKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
