package packaging

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// syscallGroups reads what `systemd-analyze syscall-filter` prints: the members of
// each @group, which may be groups.
func syscallGroups(text string) map[string][]string {
	groups := map[string][]string{}
	group := ""
	for line := range strings.Lines(text) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case strings.HasPrefix(line, "@"):
			group = word
			groups[group] = nil
		default:
			groups[group] = append(groups[group], word)
		}
	}
	return groups
}

// allowedCalls gives the names of the system calls that a unit's SystemCallFilter
// allows. The first value must be a list of what is allowed; @default always is
// (systemd.exec(5)).
func allowedCalls(filters []string, groups map[string][]string) (map[string]bool, error) {
	if len(filters) == 0 || strings.HasPrefix(filters[0], "~") {
		return nil, fmt.Errorf("%q does not begin with what is allowed", filters)
	}
	allowed := map[string]bool{}
	var put func(word string, allow bool) error
	put = func(word string, allow bool) error {
		if !strings.HasPrefix(word, "@") {
			if allow {
				allowed[word] = true
			} else {
				delete(allowed, word)
			}
			return nil
		}
		members, ok := groups[word]
		if !ok {
			return fmt.Errorf("systemd has no group %s", word)
		}
		for _, m := range members {
			if err := put(m, allow); err != nil {
				return err
			}
		}
		return nil
	}
	for _, f := range append([]string{"@default"}, filters...) {
		names, refused := strings.CutPrefix(f, "~")
		for _, word := range strings.Fields(names) {
			if err := put(word, !refused); err != nil {
				return nil, err
			}
		}
	}
	return allowed, nil
}

func TestAllowedCalls(t *testing.T) {
	groups := syscallGroups("@default\n    # Always\n    exit\n\n@files\n    # Files\n    @more\n    read\n@more\n    # More\n    chown\n    write\n# Not listed\n")
	for _, tc := range []struct {
		filters []string
		want    []string // nil: an error
	}{
		{[]string{"@files"}, []string{"chown", "exit", "read", "write"}},
		{[]string{"@files", "~@more"}, []string{"exit", "read"}},
		{[]string{"@files ptrace", "~chown read", "read"}, []string{"exit", "ptrace", "read", "write"}},
		{[]string{"@files", "~@none"}, nil},
		{[]string{"~@more"}, nil},
		{nil, nil},
	} {
		got, err := allowedCalls(tc.filters, groups)
		if (err != nil) != (tc.want == nil) || !slices.Equal(slices.Sorted(maps.Keys(got)), tc.want) {
			t.Errorf("%q: got %v, %v; want %q", tc.filters, got, err, tc.want)
		}
	}
}

// syscallNumbers gives the numbers of the system calls of this machine by the kernel's
// names, as golang.org/x/sys has them.
func syscallNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	dir := strings.TrimSpace(command(t, nil, "go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys"))
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "unix", "zsysnum_linux_"+runtime.GOARCH+".go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		name, isCall := strings.CutPrefix(spec.Names[0].Name, "SYS_")
		value, isNumber := spec.Values[0].(*ast.BasicLit)
		if isCall && isNumber {
			n, err := strconv.ParseUint(value.Value, 10, 32)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			numbers[strings.ToLower(name)] = uint32(n)
		}
		return true
	})
	return numbers
}

// auditArch is how the kernel tells a filter this machine's architecture.
func auditArch(t *testing.T) uint32 {
	t.Helper()
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	}
	t.Skipf("no filter is known for %s", runtime.GOARCH)
	return 0
}

// Offsets in struct seccomp_data, and of the lower half of an argument, on a machine
// whose lower half comes first.
const (
	seccompNr   = 0
	seccompArch = 4
)

func seccompArg(i int) uint32 { return uint32(16 + 8*i) }

// seccompFilter compiles the filter that systemd makes of a unit's
//
//	SystemCallFilter=          calls
//	SystemCallArchitectures=native
//	RestrictAddressFamilies=   families
//	MemoryDenyWriteExecute=yes
//
// to what `confine` reads. What it refuses gives the signal SIGSYS instead of an error,
// which ends a Go program with the stack of the call: the agent must neither need
// what is refused nor try it and do without in silence.
func seccompFilter(t *testing.T, calls map[string]bool, families []uint32) []byte {
	t.Helper()
	var program []unix.SockFilter
	add := func(code uint16, k uint32, jt, jf int) {
		program = append(program, unix.SockFilter{Code: code, Jt: uint8(jt), Jf: uint8(jf), K: k})
	}
	load := func(offset uint32) { add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0) }
	and := func(mask uint32) { add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, mask, 0, 0) }
	// unlessEqual skips so many instructions if what is loaded is not k.
	unlessEqual := func(k uint32, skip int) { add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, k, 0, skip) }
	allow := func() { add(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW, 0, 0) }
	refuse := func() { add(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_TRAP, 0, 0) }

	load(seccompArch)
	add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, auditArch(t), 1, 0)
	refuse()
	load(seccompNr)
	numbers := syscallNumbers(t)
	// The numbers of what is not listed: for another architecture, most of it.
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		nr, ok := numbers[name]
		if !ok {
			continue
		}
		switch name {
		case "socket":
			unlessEqual(nr, 2+2*len(families))
			load(seccompArg(0))
			for _, f := range families {
				unlessEqual(f, 1)
				allow()
			}
			refuse()
		case "mmap":
			unlessEqual(nr, 5)
			load(seccompArg(2))
			and(unix.PROT_WRITE | unix.PROT_EXEC)
			unlessEqual(unix.PROT_WRITE|unix.PROT_EXEC, 1)
			refuse()
			allow()
		case "mprotect", "pkey_mprotect":
			unlessEqual(nr, 5)
			load(seccompArg(2))
			and(unix.PROT_EXEC)
			unlessEqual(unix.PROT_EXEC, 1)
			refuse()
			allow()
		default:
			unlessEqual(nr, 1)
			allow()
		}
	}
	refuse()
	var out bytes.Buffer
	if err := binary.Write(&out, binary.NativeEndian, program); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unitFilter writes the filter of the unit to a file. Of the calls that the unit
// allows without is left out, if it is one.
func unitFilter(t *testing.T, unit map[string][]string, without string) string {
	t.Helper()
	calls, err := allowedCalls(unit["SystemCallFilter"], syscallGroups(command(t, nil, need(t, "systemd-analyze"), "syscall-filter")))
	if err != nil {
		t.Fatal(err)
	}
	if without != "" && !calls[without] {
		t.Fatalf("the unit does not allow %s", without)
	}
	delete(calls, without)
	known := map[string]uint32{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6}
	var families []uint32
	for _, word := range strings.Fields(strings.Join(unit["RestrictAddressFamilies"], " ")) {
		f, ok := known[word]
		if !ok {
			t.Fatalf("RestrictAddressFamilies has %s, of which this test knows nothing", word)
		}
		families = append(families, f)
	}
	file := filepath.Join(t.TempDir(), "filter")
	if err := os.WriteFile(file, seccompFilter(t, calls, families), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// buildConfine builds the program that runs another one under a filter.
func buildConfine(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "confine")
	command(t, []string{"CGO_ENABLED=0"}, "go", "build", "-o", bin, "./tests/packaging/confine")
	return bin
}
