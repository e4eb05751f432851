package monitors

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// withAndWithoutVectors runs a test as on the processor at hand, and as on one on
// which texts are decoded word by word.
func withAndWithoutVectors(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if jsonVectors {
		t.Run("with vectors", f)
		jsonVectors = false
		defer func() { jsonVectors = true }()
	}
	t.Run("without vectors", f)
}

// jsonASCIIEscape is how Docker writes ASCII that it escapes and that has no escape of one
// character.
var jsonASCIIEscape = regexp.MustCompile(`^\\u00[0-7][0-9a-f]$`)

// jsonTextByByte is what jsonText promises.
func jsonTextByByte(src []byte) (text []byte, read int, high bool) {
	for i := 0; i < len(src); {
		switch c := src[i]; {
		case c == '"', c < ' ':
			return text, i, high
		case c != '\\':
			text, high = append(text, c), high || c >= 0x80
			i++
		case i+1 < len(src) && jsonSimpleEscapes[src[i+1]] != 0:
			text = append(text, jsonSimpleEscapes[src[i+1]])
			i += 2
		case i+6 <= len(src) && (i+1)/jsonBlock == (i+5)/jsonBlock && jsonASCIIEscape.Match(src[i:i+6]):
			c, _ := strconv.ParseUint(string(src[i+4:i+6]), 16, 8)
			text = append(text, byte(c))
			i += 6
		case i+6 <= len(src) && (i+1)/jsonBlock == (i+5)/jsonBlock && string(src[i:i+6]) == `\ufffd`:
			text = append(text, "\ufffd"...)
			i += 6
		default:
			return text, i, high
		}
	}
	return text, len(src), high
}

// jsonTextCheck compares both for the whole blocks of src.
func jsonTextCheck(t jsonTester, src []byte) {
	t.Helper()
	src = src[:len(src)/jsonBlock*jsonBlock]
	want, wantRead, wantHigh := jsonTextByByte(src)
	const guard = "not to be touched"
	dst := append(make([]byte, len(src)), guard...)
	behind := append([]byte("7"), src...) // a digit: it must not matter
	read, wrote, high := jsonText(&dst[0], &behind[1], len(src)/jsonBlock)
	if read != wantRead || wrote != len(want) || (high != 0) != wantHigh {
		t.Fatalf("of %q: read %d, wrote %d, not ASCII %t, want %d, %d, %t", src, read, wrote, high != 0, wantRead, len(want), wantHigh)
	}
	if !bytes.Equal(dst[:wrote], want) {
		t.Fatalf("of %q: %q, want %q", src, dst[:wrote], want)
	}
	if string(dst[len(src):]) != guard {
		t.Fatalf("of %q: written behind the room: %q", src, dst[len(src):])
	}
}

// TestJSONText tries texts of which an escape, a run of backslashes, the end lies at
// each place of a block and across blocks.
func TestJSONText(t *testing.T) {
	if !jsonVectors {
		t.Skip("this processor has no AVX-512 with VBMI2")
	}
	for _, piece := range []string{
		`"`, `\n"`, `\"`, `\\`, `\\"`, `\\\"`, `\\\\"`, "\x1f", "\n", "\x7f", " ", `\/`, `\b\f\r\t`, `\u003c`, `\u0026\u003e`, `\\u003c`, `\\\u001b`, `\u000a`, `\u007f"`,
		`\u0080`, `\u003C`, `\u003g`, `\u003:`, `\u003/`, "\\u003`", `\u0`, `\u00`, `\u003`, `\u0-1c`, `\u1041`, `\u0141`, `\u00\u003c`, `\u003c\u2028`, `\u2028\u003c`, `\ufffd`, `\ufffd\u003c\ufffd\"`, `\uffff`, `\u1ffd`, `\uf1fd`, `\uff1d`, `\ufffc`, `\uFFFD`, `\uffd`, `\uf`, `\uff`, `\u2028\ufffd`, `\ufffd\u2028`, `\\ufffd`, "\\u003\xbc", `\x`, "\\\x00", "\\\xa2", "\\\xff", "\xff", "ä", "\x80\"",
	} {
		for at := range 3 * jsonBlock {
			src := bytes.Repeat([]byte("a"), 4*jsonBlock)
			copy(src[at:], piece)
			jsonTextCheck(t, src)
			copy(src[at:], bytes.Repeat([]byte(piece), len(src)))
			jsonTextCheck(t, src)
		}
	}
	for c := range 256 { // each byte as it is and behind a backslash
		src := bytes.Repeat([]byte("a"), jsonBlock)
		src[20] = byte(c)
		jsonTextCheck(t, src)
		src[19] = '\\'
		jsonTextCheck(t, src)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		src := make([]byte, jsonBlock*(1+r.IntN(jsonMaxBlocks)))
		common := r.IntN(100)
		for i := 0; i < len(src); {
			switch n := r.IntN(100); {
			case n < common:
				src[i] = "aZ 0~\xe4"[r.IntN(6)]
			case n < 99 && n%2 == 0:
				i += copy(src[i:], fmt.Sprintf(`\u%04x`, []int{0xfffd, 0xffff, r.IntN(0x90), r.IntN(0x90)}[r.IntN(4)]))
				continue
			case n < 99:
				src[i] = "\\\\\\nrtbf/\\"[r.IntN(9)]
			default:
				src[i] = byte(r.IntN(256))
			}
			i++
		}
		jsonTextCheck(t, src)
	}
}

func FuzzJSONText(f *testing.F) {
	if !jsonVectors {
		f.Skip("this processor has no AVX-512 with VBMI2")
	}
	f.Add([]byte(`{\"level\":\"info\",\"msg\":\"a \\\\ b\",\"more\":\"\t\u0041 and so on until a block is full\"}\n","stream"`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) >= jsonBlock {
			jsonTextCheck(t, src)
		}
	})
}

// jsonUTF8Check compares it with the standard library; text ends where it may be read.
func jsonUTF8Check(t jsonTester, text []byte) {
	t.Helper()
	if want := utf8.Valid(text); jsonUTF8(&text[0], len(text)) != want {
		t.Fatalf("of %q: %t, want %t", text, !want, want)
	}
}

// TestJSONUTF8 tries what four bytes may begin with, at the end of a text and inside, at
// each place of a block and across blocks.
func TestJSONUTF8(t *testing.T) {
	if !jsonVectors {
		t.Skip("this processor has no AVX-512 with VBMI2")
	}
	ascii := bytes.Repeat([]byte("a"), 3*jsonBlock)
	edges := []byte{0x7f, 0x80, 0xbf, 0xc0}
	for _, at := range []int{0, jsonBlock - 3, jsonBlock - 1} {
		text := bytes.Clone(ascii[:jsonBlock+9])
		for first := 0x7f; first <= 0xff; first++ {
			for second := range 256 {
				for _, third := range edges {
					for _, fourth := range edges {
						copy(text[at:], []byte{byte(first), byte(second), third, fourth})
						jsonUTF8Check(t, text)
					}
				}
			}
		}
	}
	for _, piece := range []string{"ä", "—", "日", "😀", "\xc3", "\xe2\x80", "\xf0\x9f\x98", "\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xc1\xbf"} {
		for n := 1; n <= len(ascii); n++ {
			for at := range n {
				text := bytes.Clone(ascii[:n])
				copy(text[at:], piece)
				jsonUTF8Check(t, text)
			}
			full := bytes.Repeat([]byte(piece), n)
			jsonUTF8Check(t, full)
			jsonUTF8Check(t, full[:n])
		}
	}
}

// TestJSONUTF8ReadsNoFurther has texts end where memory does that may be read.
func TestJSONUTF8ReadsNoFurther(t *testing.T) {
	if !jsonVectors {
		t.Skip("this processor has no AVX-512 with VBMI2")
	}
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem) //nolint:errcheck // the test's own
	if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3*jsonBlock; n++ {
		text := mem[page-n : page]
		copy(text, bytes.Repeat([]byte("ä"), n))
		jsonUTF8Check(t, text)
	}
}

func FuzzJSONUTF8(f *testing.F) {
	if !jsonVectors {
		f.Skip("this processor has no AVX-512 with VBMI2")
	}
	f.Add([]byte("Пользователь вошёл в систему, адрес 10.0.0.1 — 日本語, 😀 and \xf4\x8f\xbf\xbf to the end of more than one block"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 0 {
			jsonUTF8Check(t, text)
		}
	})
}
