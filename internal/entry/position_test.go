package entry

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The text form is kept on disk: what is written here must be read for ever.
func TestPositionText(t *testing.T) {
	tests := []struct {
		name string
		pos  Position
		text string
	}{
		{"zero", Position{}, "-"},
		{"every field", Position{
			File: FileID{Inode: 10, Handle: 0xab, Print: 0xcdef}, Offset: 4096, Time: 1700000000123456789, Ordinal: 3,
		}, "10:ab:cdef:4096:1700000000123456789:3"},
		{"of the Docker API", Position{Time: 7, Ordinal: 1}, "0:0:0:0:7:1"},
		{"of an archive's content", Position{File: FileID{Print: 1}, Offset: 9}, "0:0:1:9:0:0"},
		{"before the epoch", Position{Time: -1, Ordinal: 1}, "0:0:0:0:-1:1"},
		{"largest", Position{
			File:   FileID{Inode: math.MaxUint64, Handle: math.MaxUint64, Print: math.MaxUint64},
			Offset: math.MaxInt64, Time: math.MaxInt64, Ordinal: math.MaxUint32,
		}, "18446744073709551615:ffffffffffffffff:ffffffffffffffff:9223372036854775807:9223372036854775807:4294967295"},
		{"earliest", Position{Time: math.MinInt64}, "0:0:0:0:-9223372036854775808:0"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.pos.String(); got != tc.text {
				t.Errorf("String gives %q, want %q", got, tc.text)
			}
			if got := string(tc.pos.AppendText([]byte("before "))); got != "before "+tc.text {
				t.Errorf("AppendText gives %q", got)
			}
			if got, err := ParsePosition(tc.text); err != nil || got != tc.pos {
				t.Errorf("ParsePosition gives %+v, %v; want %+v", got, err, tc.pos)
			}
			if got, want := tc.pos.IsZero(), tc.text == "-"; got != want {
				t.Errorf("IsZero gives %v, want %v", got, want)
			}
		})
	}
}

// Several texts may stand for one position; only the first is ever written.
func TestParsePositionOtherForms(t *testing.T) {
	tests := []struct {
		text string
		want Position
	}{
		{"0:0:0:0:0:0", Position{}},
		{"1:AB:CD:2:3:4", Position{File: FileID{Inode: 1, Handle: 0xab, Print: 0xcd}, Offset: 2, Time: 3, Ordinal: 4}},
		{"01:00a:0b:02:003:04", Position{File: FileID{Inode: 1, Handle: 10, Print: 11}, Offset: 2, Time: 3, Ordinal: 4}},
	}
	for _, tc := range tests {
		if got, err := ParsePosition(tc.text); err != nil || got != tc.want {
			t.Errorf("ParsePosition(%q) gives %+v, %v; want %+v", tc.text, got, err, tc.want)
		}
	}
}

func TestParsePositionErrors(t *testing.T) {
	tests := []struct {
		text string
		says string // what the error names
		is   error  // its cause, where it is a number's
	}{
		{"", "1 fields", nil},
		{"--", "1 fields", nil},
		{" -", "1 fields", nil},
		{"1", "1 fields", nil},
		{"1:2:3:4:5", "5 fields", nil},
		{"1:2:3:4:5:6:", "more than 6 fields", nil},
		{"1:2:3:4:5:6:7", "more than 6 fields", nil},
		{strings.Repeat(":", 1000), "more than 6 fields", nil},
		{":::::", "field 1", strconv.ErrSyntax},
		{":2:3:4:5:6", "field 1", strconv.ErrSyntax},
		{"-1:2:3:4:5:6", "field 1", strconv.ErrSyntax},
		{"+1:2:3:4:5:6", "field 1", strconv.ErrSyntax},
		{" 1:2:3:4:5:6", "field 1", strconv.ErrSyntax},
		{"a:2:3:4:5:6", "field 1", strconv.ErrSyntax},
		{"18446744073709551616:2:3:4:5:6", "field 1", strconv.ErrRange},
		{"1:g:3:4:5:6", "field 2", strconv.ErrSyntax},
		{"1:0x2:3:4:5:6", "field 2", strconv.ErrSyntax},
		{"1:10000000000000000:3:4:5:6", "field 2", strconv.ErrRange},
		{"1:2:-3:4:5:6", "field 3", strconv.ErrSyntax},
		{"1:2:10000000000000000:4:5:6", "field 3", strconv.ErrRange},
		{"1:2:3:-4:5:6", "field 4", strconv.ErrSyntax},
		{"1:2:3:1_0:5:6", "field 4", strconv.ErrSyntax},
		{"1:2:3:9223372036854775808:5:6", "field 4", strconv.ErrRange},
		{"1:2:3:4::6", "field 5", strconv.ErrSyntax},
		{"1:2:3:4:5.0:6", "field 5", strconv.ErrSyntax},
		{"1:2:3:4:9223372036854775808:6", "field 5", strconv.ErrRange},
		{"1:2:3:4:-9223372036854775809:6", "field 5", strconv.ErrRange},
		{"1:2:3:4:5:", "field 6", strconv.ErrSyntax},
		{"1:2:3:4:5:-6", "field 6", strconv.ErrSyntax},
		{"1:2:3:4:5:6\n", "field 6", strconv.ErrSyntax},
		{"1:2:3:4:5:6\x00", "field 6", strconv.ErrSyntax},
		{"1:2:3:4:5:4294967296", "field 6", strconv.ErrRange},
		{"x:2:3:4:y:z", "field 1", strconv.ErrSyntax}, // the first of several
	}
	for _, tc := range tests {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParsePosition(tc.text)
			if err == nil {
				t.Fatalf("no error, but %+v", got)
			}
			if !got.IsZero() {
				t.Errorf("gives %+v beside an error", got)
			}
			if !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), strconv.Quote(tc.text)) {
				t.Errorf("the error %q does not say %q of %q", err, tc.says, tc.text)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("the error %q is not %q", err, tc.is)
			}
		})
	}
}

func TestPositionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Position{
			File: FileID{
				Inode:  rapid.Uint64().Draw(t, "inode"),
				Handle: rapid.Uint64().Draw(t, "handle"),
				Print:  rapid.Uint64().Draw(t, "print"),
			},
			Offset:  rapid.Int64Min(0).Draw(t, "offset"),
			Time:    rapid.Int64().Draw(t, "time"),
			Ordinal: rapid.Uint32().Draw(t, "ordinal"),
		}
		text := p.String()
		// The positions file separates by spaces and line ends.
		if text == "" || strings.ContainsAny(text, " \t\r\n") {
			t.Fatalf("%q is empty or has white space", text)
		}
		got, err := ParsePosition(text)
		if err != nil || got != p {
			t.Fatalf("%q was read as %+v, %v; want %+v", text, got, err, p)
		}
	})
}

// Positions are written for every span: into memory that is there.
func TestPositionAppendTextAllocatesNothing(t *testing.T) {
	p := Position{File: FileID{Inode: math.MaxUint64, Handle: math.MaxUint64, Print: math.MaxUint64}, Offset: math.MaxInt64, Time: math.MinInt64, Ordinal: math.MaxUint32}
	buf := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() { buf = p.AppendText(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{
		"", "-", "--", ":::::", "0:0:0:0:0:0", "1:2:3:4:5", "1:2:3:4:5:6", "1:2:3:4:5:6:7", "1:AB:cd:4:+5:06", "1:2:3:4:-5:6", "1:2:3:-4:5:6",
		"10:ab:cdef:4096:1700000000123456789:3",
		"18446744073709551615:ffffffffffffffff:ffffffffffffffff:9223372036854775807:9223372036854775807:4294967295",
		"18446744073709551616:2:3:4:5:6", "1:2:3:9223372036854775808:5:6", "1:2:3:4:5:4294967296",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(s)
		if err != nil {
			if !p.IsZero() {
				t.Fatalf("%q gives %+v beside the error %v", s, p, err)
			}
			return
		}
		if p.Offset < 0 {
			t.Fatalf("%q gives the negative offset %d", s, p.Offset)
		}
		again, err := ParsePosition(p.String())
		if err != nil || again != p {
			t.Fatalf("%q is %+v, written as %q, read as %+v, %v", s, p, p.String(), again, err)
		}
	})
}
