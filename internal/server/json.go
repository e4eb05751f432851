package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const jsonType = "application/json; charset=utf-8"

// encode gives v as JSON that is made for people too.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // never shown as HTML: the content type and nosniff say so
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return Printable(b.Bytes()), nil
}

// Printable gives valid JSON as JSON of the same meaning that a terminal can
// show: what is not printable in a string, such as U+009B, which begins a
// command to some terminals, or the marks that turn the direction of text, is
// escaped. encoding/json leaves all from U+007F on as it is.
func Printable(valid []byte) []byte {
	var out []byte
	done := 0 // what is in out already
	for i := 0; i < len(valid); {
		r, n := utf8.DecodeRune(valid[i:])
		if shown := r == '\n' || r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1); !shown {
			out = append(out, valid[done:i]...)
			switch hi, lo := utf16.EncodeRune(r); {
			case r == '\r': // between tokens: JSON has none within strings
				out = append(out, '\n')
			case hi != unicode.ReplacementChar:
				out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
			default: // also a byte that is not UTF-8, as U+FFFD
				out = fmt.Appendf(out, `\u%04x`, r)
			}
			done = i + n
		}
		i += n
	}
	if out == nil {
		return valid
	}
	return append(out, valid[done:]...)
}
