//go:build packaging

package packaging

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// checkout copies the source to a directory of another name: without what is built
// and what is git's.
func checkout(t *testing.T, from, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case slices.Contains([]string{".git", "bin", "var"}, rel):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil // of a work tree, .git is a file
		case e.IsDir():
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), text, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// release makes a release from a copy of the source, and gives where it lies.
func release(t *testing.T, dir, version string, env ...string) string {
	t.Helper()
	out := filepath.Join(dir, "out")
	env = append(env, "OUT="+out, "VERSION="+version, "SOURCE_DATE_EPOCH=1700000000", "NFPM="+filepath.Join(harness.Root(t), "bin", "nfpm"))
	command(t, env, filepath.Join(dir, "scripts", "release.sh"))
	return out
}

// TestReleaseIsReproducible: two builds in different directories, of people with
// different habits, are the same byte for byte.
func TestReleaseIsReproducible(t *testing.T) {
	here := checkout(t, harness.Root(t), "here")
	there := checkout(t, here, "another-place") // a copy of the copy, whoever is editing
	one := release(t, here, "v1.2.3", "TZ=UTC", "LC_ALL=C")
	two := release(t, there, "v1.2.3", "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOFLAGS=-p=1")
	files, err := os.ReadDir(one)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		a, errA := os.ReadFile(filepath.Join(one, f.Name()))
		b, errB := os.ReadFile(filepath.Join(two, f.Name()))
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not the same twice", f.Name())
		}
	}
	want := []string{
		"SHA256SUMS", "log-capturer_1.2.3_amd64.deb", "log-capturer_1.2.3_arm64.deb",
		"log_capturer_v1.2.3_linux_amd64.tar.gz", "log_capturer_v1.2.3_linux_arm64.tar.gz",
	}
	if !slices.Equal(names, want) {
		t.Errorf("a release is %q, want %q", names, want)
	}
	command(t, nil, "bash", "-c", "cd '"+one+"' && sha256sum --check --strict SHA256SUMS")
}

// dpkg is a Debian system that has nothing but its list of packages. Maintainer
// scripts run outside of it and are told where it is.
type dpkg struct {
	t    *testing.T
	root string
}

func newDpkg(t *testing.T) dpkg {
	t.Helper()
	d := dpkg{t, t.TempDir()}
	for _, dir := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(d.path("var/lib/dpkg/"+dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.write("var/lib/dpkg/status", "")
	return d
}

// path is where a file of the system really is.
func (d dpkg) path(name string) string { return filepath.Join(d.root, name) }

func (d dpkg) run(args ...string) {
	d.t.Helper()
	args = append([]string{"--root=" + d.root, "--force-script-chrootless", "--force-confold"}, args...)
	command(d.t, []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, "dpkg", args...)
}

func (d dpkg) write(name, text string) {
	d.t.Helper()
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// text gives a file of the system, "" if there is none.
func (d dpkg) text(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(d.path(name))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	return string(b)
}

// TestDebianPackage installs, upgrades, removes and purges the package.
func TestDebianPackage(t *testing.T) {
	need(t, "dpkg")
	if os.Geteuid() != 0 {
		t.Skip("dpkg wants root")
	}
	arch := strings.TrimSpace(command(t, nil, "dpkg", "--print-architecture"))
	src := checkout(t, harness.Root(t), "source")
	deb := func(version, debian string) string {
		return filepath.Join(release(t, src, version, "ARCHS="+arch), "log-capturer_"+debian+"_"+arch+".deb")
	}
	d := newDpkg(t)
	d.run("--install", deb("v1.2.3", "1.2.3"))

	bin := d.path("usr/bin/log_capturer")
	if out := command(t, nil, bin, "version"); !strings.Contains(out, " v1.2.3 ") {
		t.Errorf("installed is %q", out)
	}
	const conf = "etc/log_capturer/config.yaml"
	command(t, []string{"LOKI_URL=http://127.0.0.1:3100"}, bin, "validate", "--config", d.path(conf))
	unit := d.text("lib/systemd/system/log_capturer.service")
	if unit != harness.ReadFile(t, unitFile) {
		t.Errorf("the unit installed is\n%s", unit)
	}
	// What the unit names is what the package has.
	for _, file := range regexp.MustCompile(`/(?:usr|etc)/[\w./-]+`).FindAllString(unit, -1) {
		if _, err := os.Stat(d.path(file)); err != nil {
			t.Error(err)
		}
	}
	for path, mode := range map[string]fs.FileMode{bin: 0o755, d.path(conf): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if out := command(t, nil, "bash", "-c", "source '"+d.path("usr/share/bash-completion/completions/log_capturer")+"' && complete -p log_capturer"); !strings.Contains(out, "log_capturer") {
		t.Errorf("completion: %q", out)
	}

	// A configuration that was edited survives, also removal.
	const edited = "sinks: {stdout: {enabled: true}}\n"
	d.write(conf, edited)
	d.write("var/lib/private/log_capturer/positions.journal", "x")
	const later, debianLater = "v1.2.3-4-gabcdef0", "1.2.3+4+gabcdef0" // as git describes it
	command(t, nil, "dpkg", "--compare-versions", debianLater, "gt", "1.2.3")
	d.run("--install", deb(later, debianLater))
	if got := d.text(conf); got != edited {
		t.Errorf("an upgrade leaves the configuration %q", got)
	}
	if out := command(t, nil, bin, "version"); !strings.Contains(out, " "+later+" ") {
		t.Errorf("upgraded to %q", out)
	}
	d.run("--remove", "log-capturer")
	if _, err := os.Stat(bin); !os.IsNotExist(err) || d.text(conf) != edited || d.text("var/lib/private/log_capturer/positions.journal") != "x" {
		t.Errorf("removed: %v, configuration %q", err, d.text(conf))
	}
	d.run("--purge", "log-capturer")
	for _, name := range []string{conf, "etc/default/log_capturer", "var/lib/private/log_capturer"} {
		if _, err := os.Stat(d.path(name)); !os.IsNotExist(err) {
			t.Errorf("purged, and %s is there: %v", name, err)
		}
	}
}

// TestVersionIsChecked: before anything is built.
func TestVersionIsChecked(t *testing.T) {
	_, err := try(t, []string{"OUT=" + t.TempDir(), "VERSION=v1/2"}, filepath.Join(harness.Root(t), "scripts", "release.sh"))
	if err == nil || !strings.Contains(err.Error(), "VERSION=v1/2 is no version") {
		t.Error(err)
	}
}
