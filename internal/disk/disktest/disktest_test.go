package disktest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/log-capturer/log_capturer/internal/disk"
	"pgregory.net/rapid"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kind is what is compared of an error.
func kind(err error) string {
	var locked *disk.LockedError
	for _, e := range []error{fs.ErrNotExist, fs.ErrExist, os.ErrClosed, io.EOF} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	switch {
	case errors.As(err, &locked):
		return "locked"
	case err != nil:
		return "error"
	}
	return ""
}

// TestLikeTheRealOne does the same to a directory in memory and to a real one.
func TestLikeTheRealOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path, err := os.MkdirTemp(t.TempDir(), "")
		must(t, err)
		dirs := [][2]disk.Dir{{New().Mount(), disk.OS(path)}}
		var files [][2]disk.File
		var locks [][2]io.Closer
		defer func() {
			for _, f := range files {
				_ = f[1].Close() // lest descriptors run out
			}
			for _, l := range locks {
				_ = l[1].Close()
			}
		}()
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		flag := rapid.SampledFrom([]int{
			os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_APPEND | os.O_CREATE, os.O_RDWR | os.O_APPEND,
			os.O_RDWR | os.O_CREATE | os.O_TRUNC, os.O_WRONLY | os.O_CREATE | os.O_EXCL,
		})
		// both does something in both, and compares what is told of it.
		both := func(do func(i int) (string, error)) bool {
			rt.Helper()
			got, err := do(0)
			want, wantErr := do(1)
			if got != want || kind(err) != kind(wantErr) {
				rt.Fatalf("in memory %q, %v; really %q, %v", got, err, want, wantErr)
			}
			return err == nil
		}
		dir := func(t *rapid.T) [2]disk.Dir { return rapid.SampledFrom(dirs).Draw(t, "dir") }
		onFile := func(do func(t *rapid.T, f [2]disk.File)) func(*rapid.T) {
			return func(t *rapid.T) {
				if len(files) == 0 {
					t.Skip("none is open")
				}
				do(t, rapid.SampledFrom(files).Draw(t, "file"))
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				d, n, flag := dir(t), name.Draw(t, "name"), flag.Draw(t, "flag")
				var f [2]disk.File
				if both(func(i int) (_ string, err error) { f[i], err = d[i].Open(n, flag); return "", err }) {
					files = append(files, f)
				}
			},
			"read": onFile(func(t *rapid.T, f [2]disk.File) {
				n, off := rapid.IntRange(1, 9).Draw(t, "bytes"), int64(rapid.IntRange(0, 12).Draw(t, "offset"))
				both(func(i int) (string, error) {
					b := make([]byte, n)
					n, err := f[i].ReadAt(b, off)
					return string(b[:n]), err
				})
			}),
			"append": onFile(func(t *rapid.T, f [2]disk.File) {
				text := rapid.SampledFrom([]string{"x", "yz", ""}).Draw(t, "text")
				if info, err := f[0].Info(); err != nil || f[0].(*file).flag&os.O_APPEND == 0 || info.Size > 20 {
					t.Skip("not for Write")
				}
				both(func(i int) (string, error) { n, err := f[i].Write([]byte(text)); return fmt.Sprint(n), err })
			}),
			"write": onFile(func(t *rapid.T, f [2]disk.File) {
				off := int64(rapid.IntRange(0, 12).Draw(t, "offset"))
				both(func(i int) (string, error) { n, err := f[i].WriteAt([]byte("123"), off); return fmt.Sprint(n), err })
			}),
			"truncate": onFile(func(t *rapid.T, f [2]disk.File) {
				info, err := f[0].Info()
				if err != nil || f[0].(*file).flag&(os.O_RDWR|os.O_WRONLY) == 0 {
					t.Skip("not for Truncate")
				}
				size := int64(rapid.IntRange(0, int(info.Size)).Draw(t, "size"))
				both(func(i int) (string, error) { return "", f[i].Truncate(size) })
			}),
			"sync": onFile(func(_ *rapid.T, f [2]disk.File) { both(func(i int) (string, error) { return "", f[i].Sync() }) }),
			"close": func(t *rapid.T) {
				if len(files) == 0 {
					t.Skip("none is open")
				}
				i := rapid.IntRange(0, len(files)-1).Draw(t, "file")
				both(func(k int) (string, error) { return "", files[i][k].Close() })
				both(func(k int) (string, error) { return "", files[i][k].Close() }) // twice
				files = append(files[:i], files[i+1:]...)
			},
			"rename": func(t *rapid.T) {
				d, from, to := dir(t), name.Draw(t, "from"), name.Draw(t, "to")
				both(func(i int) (string, error) { return "", d[i].Rename(from, to) })
			},
			"remove": func(t *rapid.T) {
				d, n := dir(t), name.Draw(t, "name")
				both(func(i int) (string, error) { return "", d[i].Remove(n) })
			},
			"sub": func(t *rapid.T) {
				d, n := dir(t), rapid.SampledFrom([]string{"d", "e", "a"}).Draw(t, "name")
				if n == "a" { // a file of that name, or nothing: then it would be a directory
					if _, err := d[0].Open(n, os.O_RDONLY); err != nil {
						t.Skip("no file")
					}
					if _, err := d[0].Sub(n); !errors.Is(err, syscall.ENOTDIR) {
						rt.Fatalf("a file is a directory: %v", err)
					}
					return
				}
				var s [2]disk.Dir
				if both(func(i int) (_ string, err error) { s[i], err = d[i].Sub(n); return "", err }) && len(dirs) < 4 {
					dirs = append(dirs, s)
				}
			},
			"lock": func(t *rapid.T) {
				if len(locks) > 0 && rapid.Bool().Draw(t, "unlock") {
					both(func(i int) (string, error) { return "", locks[0][i].Close() })
					locks = locks[1:]
					return
				}
				var l [2]io.Closer
				if both(func(i int) (_ string, err error) { l[i], err = dirs[0][i].Lock("lock"); return "", err }) {
					locks = append(locks, l)
				}
			},
			"": func(*rapid.T) {
				for _, d := range dirs {
					both(func(i int) (string, error) {
						if err := d[i].Sync(); err != nil {
							return "", err
						}
						all, err := d[i].List()
						var b strings.Builder
						for _, f := range all {
							if f.Name == "lock" {
								continue // there is no file in memory
							}
							if f.IsDir {
								fmt.Fprintln(&b, f.Name, "is a directory")
								continue
							}
							data, err := disk.ReadFile(d[i], f.Name)
							fmt.Fprintf(&b, "%s: %d bytes, %q, %v, open as", f.Name, f.Size, data, err)
							for n, open := range files {
								if info, err := open[i].Info(); err == nil && info.Inode == f.Inode {
									fmt.Fprint(&b, " ", n)
								}
							}
							fmt.Fprintln(&b)
						}
						return b.String(), err
					})
				}
			},
		})
	})
}

func create(t testing.TB, d disk.Dir, name, text string) disk.File {
	t.Helper()
	f, err := d.Open(name, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	must(t, err)
	_, err = f.Write([]byte(text))
	must(t, err)
	return f
}

func want(t testing.TB, d *Disk, name, text string) {
	t.Helper()
	if seen, _ := d.Read(name); string(seen) != text {
		t.Fatalf("%s has %q, want %q", name, seen, text)
	}
}

func all(_ string, n int) int    { return n }
func nothing(string, int) int    { return 0 }
func halves(_ string, n int) int { return n / 2 }

func TestPowerLoss(t *testing.T) {
	for name, c := range map[string]struct {
		do                func(t *testing.T, d *Disk, f disk.File, dir disk.Dir) // f has "old" and is synced, and so is its name
		none, half, whole string                                                 // of it
		names             [3]int
	}{
		"nothing since": {func(*testing.T, *Disk, disk.File, disk.Dir) {}, "old", "old", "old", [3]int{1, 1, 1}},
		"a write": {func(t *testing.T, _ *Disk, f disk.File, _ disk.Dir) {
			_, err := f.Write([]byte("1234"))
			must(t, err)
		}, "old", "old\x00\x003", "old1234", [3]int{1, 1, 1}},
		"a truncation": {func(t *testing.T, _ *Disk, f disk.File, _ disk.Dir) { must(t, f.Truncate(1)) }, "old", "old", "o", [3]int{1, 1, 1}},
		"a failed sync": {func(t *testing.T, d *Disk, f disk.File, _ disk.Dir) {
			_, err := f.Write([]byte("lost"))
			must(t, err)
			d.Fail(Sync)
			if err := f.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			d.Heal()
			_, err = f.Write([]byte("kept"))
			must(t, err)
			must(t, f.Sync())
			want(t, d, "s/f", "oldlostkept")
		}, "old\x00\x00\x00\x00kept", "old\x00\x00\x00\x00kept", "old\x00\x00\x00\x00kept", [3]int{1, 1, 1}},
		"new names": {func(t *testing.T, _ *Disk, _ disk.File, dir disk.Dir) {
			for _, name := range []string{"a", "b"} {
				must(t, create(t, dir, name, "x").Sync())
			}
		}, "old", "old", "old", [3]int{1, 2, 3}},
		"a rename": {func(t *testing.T, d *Disk, _ disk.File, dir disk.Dir) {
			must(t, create(t, dir, "tmp", "new").Sync())
			must(t, dir.Rename("tmp", "f"))
			want(t, d, "s/f", "new")
		}, "old", "old", "new", [3]int{1, 2, 1}},
		"a removal": {func(t *testing.T, _ *Disk, _ disk.File, dir disk.Dir) { must(t, dir.Remove("f")) }, "old", "old", "", [3]int{1, 1, 0}},
		"a removal that is synced": {func(t *testing.T, _ *Disk, _ disk.File, dir disk.Dir) {
			must(t, dir.Remove("f"))
			must(t, dir.Sync())
		}, "", "", "", [3]int{0, 0, 0}},
		"a write during a sync": {func(t *testing.T, d *Disk, f disk.File, _ disk.Dir) {
			d.DuringSync(func() {
				if _, err := f.Write([]byte("2")); err != nil {
					t.Error(err)
				}
			})
			_, err := f.Write([]byte("1"))
			must(t, err)
			must(t, f.Sync())
		}, "old1", "old1", "old12", [3]int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for i, choose := range []func(string, int) int{nothing, halves, all} {
				d := New()
				dir, err := d.Mount().Sub("s")
				must(t, err)
				f := create(t, dir, "f", "old")
				must(t, f.Sync())
				must(t, dir.Sync())
				c.do(t, d, f, dir)
				if _, synced := d.Read("s/f"); i == 0 && name != "a rename" && name != "a removal" && string(synced) != c.none {
					t.Errorf("%q is said to be on the disk, %q is", synced, c.none)
				}
				d.PowerLoss(choose)
				want(t, d, "s/f", []string{c.none, c.half, c.whole}[i])
				dir, err = d.Mount().Sub("s")
				must(t, err)
				if names, err := dir.List(); err != nil || len(names) != c.names[i] {
					t.Errorf("%d: %+v, %v; want %d", i, names, err, c.names[i])
				}
			}
		})
	}
}

// TestOneSector: what was there is overwritten whole or not at all.
func TestOneSector(t *testing.T) {
	d := New()
	d.Put("f", []byte("old"))
	f, err := d.Mount().Open("f", os.O_RDWR)
	must(t, err)
	_, err = f.WriteAt([]byte("new"), 0)
	must(t, err)
	d.PowerLoss(halves)
	want(t, d, "f", "old")
}

// TestTheDeadChangeNothing: whatever is left of a run that is over has no effect, and what
// it held is free.
func TestTheDeadChangeNothing(t *testing.T) {
	for name, end := range map[string]func(*Disk, disk.File){
		"killed":     func(d *Disk, _ disk.File) { d.Kill() },
		"power loss": func(d *Disk, _ disk.File) { d.PowerLoss(all) },
		"in a write": func(d *Disk, f disk.File) {
			d.DieAfter(0, 0)
			if _, err := f.Write([]byte("dying")); !errors.Is(err, ErrDead) {
				t.Errorf("dying: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := New()
			dir := d.Mount()
			f := create(t, dir, "f", "text")
			lock, err := dir.Lock("lock")
			must(t, err)
			end(d, f)
			_, open := dir.Open("new", os.O_RDWR|os.O_CREATE)
			_, write := f.Write([]byte("more"))
			_, writeAt := f.WriteAt([]byte("more"), 0)
			_, read := f.ReadAt(make([]byte, 1), 0)
			_, info := f.Info()
			_, list := dir.List()
			_, sub := dir.Sub("sub")
			_, free := dir.Free()
			_, again := dir.Lock("another")
			for i, err := range []error{
				open, write, writeAt, read, info, list, sub, free, again, f.Sync(), f.Truncate(0), f.Close(),
				dir.Rename("f", "g"), dir.Remove("f"), dir.Sync(),
			} {
				if !errors.Is(err, ErrDead) {
					t.Errorf("%d: %v", i, err)
				}
			}
			living, err := d.Mount().Lock("lock")
			must(t, err)
			if err := lock.Close(); !errors.Is(err, ErrDead) {
				t.Error(err)
			}
			if _, err := d.Mount().Lock("lock"); err == nil {
				t.Error("the dead have unlocked what the living hold")
			}
			must(t, living.Close())
			want(t, d, "f", "text")
			if names, err := d.Mount().List(); err != nil || len(names) != 1 {
				t.Errorf("%+v, %v", names, err)
			}
		})
	}
}

func TestDieAfter(t *testing.T) {
	d := New()
	f := create(t, d.Mount(), "f", "")
	d.DieAfter(2, 50)
	for range 2 {
		_, err := f.Write([]byte("ab"))
		must(t, err)
	}
	if _, err := f.Write([]byte("cdef")); !errors.Is(err, ErrDead) {
		t.Fatal(err)
	}
	want(t, d, "f", "ababcd")
	must(t, create(t, d.Mount(), "f", "+").Sync()) // the next run lives
	want(t, d, "f", "ababcd+")
}

func TestFaults(t *testing.T) {
	for op, do := range map[Op]func(d disk.Dir, f disk.File) error{
		Open:     func(d disk.Dir, _ disk.File) error { _, err := d.Open("f", os.O_RDONLY); return err },
		Read:     func(_ disk.Dir, f disk.File) error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		Write:    func(_ disk.Dir, f disk.File) error { _, err := f.Write([]byte("x")); return err },
		Truncate: func(_ disk.Dir, f disk.File) error { return f.Truncate(1) },
		Sync:     func(_ disk.Dir, f disk.File) error { return f.Sync() },
		SyncDir:  func(d disk.Dir, _ disk.File) error { return d.Sync() },
		Rename:   func(d disk.Dir, _ disk.File) error { return d.Rename("f", "g") },
		Remove:   func(d disk.Dir, _ disk.File) error { return d.Remove("f") },
	} {
		d := New()
		dir := d.Mount()
		f := create(t, dir, "f", "text")
		d.Fail(op)
		if now, full := d.Failing(); now != op || full {
			t.Errorf("%d: %d, %v fail", op, now, full)
		}
		if err := do(dir, f); !errors.Is(err, syscall.EIO) {
			t.Errorf("%d: %v", op, err)
		}
		want(t, d, "f", "text")
		d.Heal()
		if err := do(dir, f); err != nil {
			t.Errorf("%d: %v", op, err)
		}
	}
}

func TestFull(t *testing.T) {
	d := New()
	dir := d.Mount()
	f := create(t, dir, "f", "text")
	d.Fill(2)
	if n, err := f.Write([]byte("abc")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(n, err)
	}
	want(t, d, "f", "textab")
	must(t, f.Truncate(4))
	if free, err := dir.Free(); free != 2 || err != nil {
		t.Fatal(free, err)
	}
	must(t, dir.Remove("f"))
	create(t, dir, "g", "sixsix")
	if d.Used() != 6 {
		t.Fatal(d.Used())
	}
	d.Heal()
	create(t, dir, "g", "more")
}

func TestClone(t *testing.T) {
	d := New()
	create(t, d.Mount(), "f", "text")
	c := d.Clone()
	create(t, d.Mount(), "f", "+")
	c.PowerLoss(nothing)
	want(t, c, "f", "text")
	want(t, d, "f", "text+")
	d.PowerLoss(nothing)
	want(t, d, "f", "")
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	d := New()
	dir := d.Mount()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			f, err := dir.Open("f", os.O_RDWR|os.O_CREATE|os.O_APPEND)
			if err != nil {
				t.Error(err)
				return
			}
			for range 100 {
				_, err := f.Write([]byte{byte('0' + i)})
				if err := errors.Join(err, f.Sync()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen, synced := d.Read("f")
	if len(seen) != 400 || string(seen) != string(synced) || d.Counts() != (Counts{Writes: 400, Syncs: 400}) {
		t.Fatalf("%d bytes, %d synced, %+v", len(seen), len(synced), d.Counts())
	}
}
