package monitors

import (
	"bytes"
	"math/rand/v2"
	"testing"
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

// jsonTextByByte is what jsonText promises.
func jsonTextByByte(src []byte) (text []byte, read int, high bool) {
	for i := 0; i < len(src); {
		switch c := src[i]; {
		case c == '"', c < ' ':
			return text, i, high
		case c != '\\':
			text, high = append(text, c), high || c >= 0x80
			i++
		default:
			if i+1 == len(src) || jsonSimpleEscapes[src[i+1]] == 0 {
				return text, i, high
			}
			text = append(text, jsonSimpleEscapes[src[i+1]])
			i += 2
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
	read, wrote, high := jsonText(&dst[0], &src[0], len(src)/jsonBlock)
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
		`"`, `\n"`, `\"`, `\\`, `\\"`, `\\\"`, `\\\\"`, "\x1f", "\n", "\x7f", " ", `\/`, `\b\f\r\t`, `\u0041`, `\x`, "\\\x00", "\\\xa2", "\\\xff", "\xff", "ä", "\x80\"",
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
		for i := range src {
			switch n := r.IntN(100); {
			case n < common:
				src[i] = "aZ 0~\xe4"[r.IntN(6)]
			case n < 99:
				src[i] = "\\\\\\nrtbf/\\"[r.IntN(9)]
			default:
				src[i] = byte(r.IntN(256))
			}
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
