package stdout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/log-capturer/log_capturer/internal/entry"
)

func add(b *entry.Batch, class entry.Class, flags entry.Flags, text string) {
	off := len(b.Text)
	b.Text = append(b.Text, text...)
	b.Add(time.Date(2025, 11, 7, 12, 0, 0, 123_000_000, time.UTC).UnixNano(), off, class, flags)
}

func TestPush(t *testing.T) {
	b := new(entry.Batch)
	web := &entry.Source{Name: "web"}
	b.Begin(web)
	add(b, entry.ClassStdout, 0, "hello\tworld")
	add(b, entry.ClassStderr, 0, "grüße \\ \x1b[31mred\x1b[0m\r\n\x00\x7f\xff\u0085\u202e")
	add(b, entry.ClassStdout, entry.FlagRefused, "refused before")
	b.End()
	b.Begin(&entry.Source{Name: "other"})
	add(b, entry.ClassMalformed, 0, "")
	add(b, entry.ClassStderr, 0, "held")
	b.End()
	b.Sections[1].State[entry.ClassStderr] = entry.PartHeld
	var out bytes.Buffer
	if o := New(&out).Push(context.Background(), b, ignore); o != (entry.Outcome{}) {
		t.Fatalf("outcome %+v", o)
	}
	want := "2025-11-07T12:00:00.123000000Z stdout web hello\tworld\n" +
		"2025-11-07T12:00:00.123000000Z stderr web grüße \\\\ \\x1b[31mred\\x1b[0m\\x0d\\x0a\\x00\\x7f\\xff\\u0085\\u202e\n" +
		"2025-11-07T12:00:00.123000000Z stdout other \n"
	if out.String() != want {
		t.Fatalf("printed\n%q, want\n%q", out.String(), want)
	}
	if got := b.Sections[0].State; got != [3]entry.PartState{entry.PartAccepted, entry.PartAccepted, entry.PartEmpty} {
		t.Fatalf("states %v", got)
	}
	if got := b.Sections[1].State; got != [3]entry.PartState{entry.PartEmpty, entry.PartHeld, entry.PartAccepted} {
		t.Fatalf("states %v", got)
	}
}

// limited takes so many writes and then fails.
type limited struct {
	n   int
	out bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	if l.n--; l.n < 0 {
		return 0, io.ErrClosedPipe
	}
	return l.out.Write(p)
}

func ignore(context.Context) {}

// threeWrites makes a batch that takes three.
func threeWrites() *entry.Batch {
	b := new(entry.Batch)
	for range 3 {
		b.Begin(&entry.Source{Name: "c"})
		add(b, entry.ClassStdout, 0, strings.Repeat("x", flushBytes))
		b.End()
	}
	return b
}

// firstAccepted checks that of the three sections of a batch the first is accepted, and no other.
func firstAccepted(t *testing.T, b *entry.Batch) {
	t.Helper()
	for i, want := range []entry.PartState{entry.PartAccepted, entry.PartPending, entry.PartPending} {
		if got := b.Sections[i].State[0]; got != want {
			t.Fatalf("section %d: state %d, want %d", i, got, want)
		}
	}
}

// TestProgress: what a write has printed is told of while more is to be written.
func TestProgress(t *testing.T) {
	b := threeWrites()
	var out bytes.Buffer
	told := 0
	o := New(&out).Push(context.Background(), b, func(context.Context) {
		s := b.Sections[told].State[entry.ClassStdout]
		told++
		if n := strings.Count(out.String(), "\n"); s != entry.PartAccepted || n != told {
			t.Errorf("state %d with %d of 3 lines printed", s, n)
		}
	})
	if o.Err != nil || told != 2 || b.Pending() {
		t.Fatalf("told %d times, outcome %+v", told, o)
	}
}

// TestEnough: nothing more is written once that is asked for, and what was is accepted.
func TestEnough(t *testing.T) {
	b := threeWrites()
	var out bytes.Buffer
	o := New(&out).Push(context.Background(), b, func(context.Context) { b.Enough = true })
	if n := strings.Count(out.String(), "\n"); o.Err == nil || n != 1 {
		t.Fatalf("%d lines printed, outcome %+v", n, o)
	}
	firstAccepted(t, b)
}

func TestAcceptedOnlyWhenWritten(t *testing.T) {
	b := threeWrites()
	w := &limited{n: 1}
	s := New(w)
	o := s.Push(context.Background(), b, ignore)
	if !errors.Is(o.Err, io.ErrClosedPipe) || s.Err() == nil {
		t.Fatalf("outcome %+v", o)
	}
	firstAccepted(t, b)
	w.n = 10
	if o := s.Push(context.Background(), b, ignore); o.Err != nil || s.Err() != nil || b.Pending() {
		t.Fatalf("outcome %+v", o)
	}
	if n := strings.Count(w.out.String(), "\n"); n != 3 {
		t.Fatalf("%d lines printed", n)
	}
}

func TestCancelled(t *testing.T) {
	b := new(entry.Batch)
	b.Begin(&entry.Source{Name: "c"})
	add(b, entry.ClassStdout, 0, "x")
	b.End()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	if o := New(&out).Push(ctx, b, ignore); !errors.Is(o.Err, context.Canceled) || !b.Pending() || out.Len() != 0 {
		t.Fatalf("outcome %+v", o)
	}
}

// FuzzVisible: nothing that steers a terminal comes through, and different
// texts look different.
func FuzzVisible(f *testing.F) {
	f.Add("\x1b]0;title\x07", "\\x1b]0;title\\x07")
	f.Add("a\xc2", "a\\xc2")
	f.Fuzz(func(t *testing.T, x, y string) {
		vx, vy := appendVisible(nil, x), appendVisible(nil, []byte(y))
		if x != y && bytes.Equal(vx, vy) {
			t.Fatalf("%q and %q look the same", x, y)
		}
		if !utf8.Valid(vx) {
			t.Fatalf("%q is not UTF-8", vx)
		}
		for _, r := range string(vx) {
			if r != '\t' && !unicode.IsPrint(r) {
				t.Fatalf("%q came through", r)
			}
		}
	})
}
