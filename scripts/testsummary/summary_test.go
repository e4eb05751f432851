package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goTest runs `go test -json` on packages made of the given files ("dir/name"
// to text) and gives its output.
func goTest(t *testing.T, files map[string]string, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.test/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	// The tests that run this one must not lend it their settings.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stdout.Len() == 0 {
		t.Fatalf("go test wrote nothing; on standard error: %s", stderr.String())
	}
	return stdout.Bytes()
}

func summarize(t *testing.T, in []byte, notRun ...string) (text string, ok bool) {
	t.Helper()
	var out bytes.Buffer
	s := newSummary(&out)
	if err := s.read(bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	ok = s.finish(notRun)
	return out.String(), ok
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return lines[len(lines)-1]
}

const header = "package p\n\nimport \"testing\"\n\n"

// TestRealRuns reads what the go command really writes.
func TestRealRuns(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		args  []string
		ok    bool
		last  string
		has   []string
		hasNo []string
	}{
		{
			name: "pass and skip",
			files: map[string]string{"p/p_test.go": header + `
func TestGood(t *testing.T) { t.Log("never seen"); t.Run("sub", func(t *testing.T) {}) }
func TestSkipped(t *testing.T) { t.Skip("needs dockerd:\n  not found") }
func TestBare(t *testing.T) { t.SkipNow() }
`},
			args: []string{"./..."},
			ok:   true,
			last: "2 passed, 0 failed, 2 skipped",
			has: []string{
				"Not run:\n",
				"  example.test/m/p TestSkipped: needs dockerd: not found\n",
				"  example.test/m/p TestBare: no reason given\n",
				"ok    example.test/m/p",
			},
			hasNo: []string{"never seen", "Failed:"},
		},
		{
			name: "failure in a subtest",
			files: map[string]string{"p/p_test.go": header + `
func TestGood(t *testing.T) {}
func TestBad(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("three is not four") }) }
`},
			args:  []string{"./..."},
			last:  "1 passed, 2 failed, 0 skipped",
			has:   []string{"three is not four", "Failed:\n", "  example.test/m/p TestBad/sub ("},
			hasNo: []string{"Not run:"},
		},
		{
			name: "does not build",
			files: map[string]string{
				"p/p_test.go": header + "func TestBad(t *testing.T) { undefined() }\n",
				"q/q_test.go": header + "func TestGood(t *testing.T) {}\n",
			},
			args: []string{"./..."},
			last: "1 passed, 1 failed, 0 skipped",
			has:  []string{"undefined: undefined", "  example.test/m/p (does not build)\n"},
		},
		{
			name: "panic takes the package with it",
			files: map[string]string{"p/p_test.go": header + `
func TestA(t *testing.T) { t.Run("sub", func(t *testing.T) { panic("on purpose") }) }
func TestB(t *testing.T) {}
`},
			args: []string{"./..."},
			last: "0 passed, 2 failed, 0 skipped",
			has:  []string{"panic: on purpose", "p_test.go:"},
		},
		{
			name: "panic before others go on in parallel",
			files: map[string]string{"p/p_test.go": header + `
func TestA(t *testing.T) { t.Parallel() }
func TestB(t *testing.T) { panic("on purpose") }
`},
			args: []string{"./..."},
			last: "0 passed, 2 failed, 0 skipped",
			has:  []string{"example.test/m/p TestA (was not run: others had not ended)\n", "example.test/m/p TestB ("},
		},
		{
			name: "parallel tests",
			files: map[string]string{"p/p_test.go": header + `
func TestA(t *testing.T) { t.Parallel(); t.Log("of A"); t.Error("A fails") }
func TestB(t *testing.T) { t.Parallel(); t.Log("of B") }
`},
			args:  []string{"-parallel=2", "./..."},
			last:  "1 passed, 1 failed, 0 skipped",
			has:   []string{"of A", "example.test/m/p TestA ("},
			hasNo: []string{"of B"},
		},
		{
			name: "TestMain fails after the tests",
			files: map[string]string{"p/p_test.go": `package p

import ("fmt"; "os"; "testing")

func TestMain(m *testing.M) { m.Run(); fmt.Println("goroutines leaked"); os.Exit(1) }
func TestA(t *testing.T) {}
`},
			args: []string{"./..."},
			last: "1 passed, 1 failed, 0 skipped",
			has:  []string{"goroutines leaked", "  example.test/m/p (the package failed without a failing test)\n"},
		},
		{
			name: "time-out",
			files: map[string]string{"p/p_test.go": header + `
func TestGood(t *testing.T) {}
func TestStuck(t *testing.T) { <-make(chan int) }
`},
			args: []string{"-timeout=200ms", "./..."},
			last: "1 passed, 1 failed, 0 skipped",
			has:  []string{"test timed out", "example.test/m/p TestStuck"},
		},
		{
			name: "no test at all",
			files: map[string]string{
				"p/p.go": "package p\n",
				"q/q.go": "package q\n",
			},
			args: []string{"./..."},
			last: "0 passed, 0 failed, 0 skipped",
			has:  []string{"No test ran"},
		},
		{
			name:  "only skipped",
			files: map[string]string{"p/p_test.go": header + `func TestS(t *testing.T) { t.Skip("no") }`},
			args:  []string{"./..."},
			last:  "0 passed, 0 failed, 1 skipped",
			has:   []string{"No test ran", "TestS: no\n"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, ok := summarize(t, goTest(t, tt.files, tt.args...))
			if ok != tt.ok {
				t.Errorf("finish = %v, want %v", ok, tt.ok)
			}
			if got := lastLine(text); got != tt.last {
				t.Errorf("last line %q, want %q", got, tt.last)
			}
			for _, want := range tt.has {
				if !strings.Contains(text, want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, no := range tt.hasNo {
				if strings.Contains(text, no) {
					t.Errorf("has %q", no)
				}
			}
			if t.Failed() {
				t.Logf("summary:\n%s", text)
			}
		})
	}
}

// TestCutShort: what is left of the events when go test is killed must not pass
// for success.
func TestCutShort(t *testing.T) {
	const start = `{"Action":"start","Package":"p"}` + "\n"
	const run = `{"Action":"run","Package":"p","Test":"TestA"}` + "\n"
	const pass = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
	const end = `{"Action":"pass","Package":"p"}` + "\n"
	for _, tt := range []struct {
		name, in string
		ok       bool
		last     string
	}{
		{"nothing", "", false, "0 passed, 0 failed, 0 skipped"},
		{"whole", start + run + pass + end, true, "1 passed, 0 failed, 0 skipped"},
		{"two runs", start + run + pass + end + start + run + pass + end, true, "2 passed, 0 failed, 0 skipped"},
		{"package never ends", start + run + pass, false, "1 passed, 1 failed, 0 skipped"},
		{"test never ends", start + run, false, "0 passed, 2 failed, 0 skipped"},
		{"package passes over a test", start + run + end, false, "0 passed, 1 failed, 0 skipped"},
		{"words of the go command", "go: updates to go.mod needed\n" + start + run + pass + end, true, "1 passed, 0 failed, 0 skipped"},
		{"last line without an end", start + run + pass + strings.TrimSuffix(end, "\n"), true, "1 passed, 0 failed, 0 skipped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, ok := summarize(t, []byte(tt.in))
			if got := lastLine(text); got != tt.last || ok != tt.ok {
				t.Errorf("last line %q, ok %v; want %q, %v\n%s", got, ok, tt.last, tt.ok, text)
			}
		})
	}
}

func TestNotRunFlagAndForeignLines(t *testing.T) {
	in := "go: warning: something\n" +
		`{"Action":"start","Package":"p"}` + "\n" +
		`{"Action":"run","Package":"p","Test":"TestA"}` + "\n" +
		`{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" +
		`{"Action":"pass","Package":"p"}` + "\n"
	text, ok := summarize(t, []byte(in), "race detector: no C compiler")
	if !ok {
		t.Error("a note alone must not fail the run")
	}
	for _, want := range []string{"go: warning: something\n", "Not run:\n  race detector: no C compiler\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q in:\n%s", want, text)
		}
	}
}

// TestReadError: input that breaks off with an error is reported, not taken for
// its end.
func TestReadError(t *testing.T) {
	broken := errors.New("broken pipe")
	s := newSummary(io.Discard)
	err := s.read(io.MultiReader(strings.NewReader("x\n"), &failingReader{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("read = %v, want %v", err, broken)
	}
}

type failingReader struct{ err error }

func (f *failingReader) Read([]byte) (int, error) { return 0, f.err }
