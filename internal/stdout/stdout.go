package stdout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// Sink prints batches. Safe for concurrent use; one batch is written at a time.
type Sink struct {
	w io.Writer

	mu  sync.Mutex
	buf []byte
	err error // of the last write, nil when it succeeded
}

// New makes a sink that prints to w.
func New(w io.Writer) *Sink { return &Sink{w: w} }

// flushBytes is how much is written at once.
const flushBytes = 64 << 10

// Push prints the pending parts of a batch, section by section in the order in
// which they were read. A section's parts are accepted when all of its lines
// have been written. After a failed write the rest stays pending; a part of
// what the failed write held may have been printed and is printed again.
// progress is called after each write but the last.
func (s *Sink) Push(ctx context.Context, b *entry.Batch, progress func(context.Context)) entry.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = s.buf[:0]
	written := 0 // sections before this one are printed
	flush := func(end int) error {
		if len(s.buf) > 0 {
			if _, s.err = s.w.Write(s.buf); s.err != nil {
				return s.err
			}
			s.buf = s.buf[:0]
		}
		for ; written < end; written++ {
			accept(&b.Sections[written])
		}
		return nil
	}
	for i := range b.Sections {
		if err := ctx.Err(); err != nil {
			return entry.Outcome{Err: fmt.Errorf("print lines: given up: %w", err)}
		}
		sec := &b.Sections[i]
		lines := b.SectionLines(sec)
		for k := range lines {
			l := &lines[k]
			if sec.State[l.Class] != entry.PartPending || l.Flags&entry.FlagsDone != 0 {
				continue
			}
			s.buf = appendLine(s.buf, l, sec.Source.Name, b.Message(l))
		}
		if len(s.buf) >= flushBytes {
			if err := flush(i + 1); err != nil {
				return failed(err)
			}
			if written < len(b.Sections) {
				if progress(ctx); b.Enough {
					return entry.Outcome{Err: errors.New("print lines: the agent stops")}
				}
			}
		}
	}
	if err := flush(len(b.Sections)); err != nil {
		return failed(err)
	}
	return entry.Outcome{}
}

func failed(err error) entry.Outcome {
	return entry.Outcome{Err: fmt.Errorf("print lines to standard output (is its reader gone?): %w", err)}
}

func accept(s *entry.Section) {
	for c := range s.State {
		if s.State[c] == entry.PartPending {
			s.State[c] = entry.PartAccepted
		}
	}
}

// Err is why the last write failed; nil when it succeeded.
func (s *Sink) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// appendLine formats one line: time, stream, container and message with a blank
// between, the time in UTC with nanoseconds.
func appendLine(b []byte, l *entry.Line, container string, text []byte) []byte {
	b = time.Unix(0, l.Time).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
	b = append(b, ' ')
	b = append(b, l.Class.Stream().String()...)
	b = append(b, ' ')
	b = appendVisible(b, container)
	b = append(b, ' ')
	b = appendVisible(b, text)
	return append(b, '\n')
}

const hex = "0123456789abcdef"

// appendVisible appends text of which no character steers a terminal: control
// characters (C0, DEL, C1), the invisible ones that turn the direction of text
// and other format characters, and bytes that are not UTF-8 are shown by their
// numbers. A tab is kept; a backslash is doubled, so that what is shown can be
// told from what was written.
func appendVisible[T string | []byte](b []byte, text T) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '\\':
			b = append(b, '\\', '\\')
			i++
		case c == '\t' || c >= ' ' && c < 0x7f:
			b = append(b, c)
			i++
		case c < utf8.RuneSelf:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
			i++
		default:
			r, n := utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
			case unicode.IsPrint(r):
				b = append(b, text[i:i+n]...)
			case r > 0xffff:
				b = fmt.Appendf(b, "\\U%08x", r)
			default:
				b = fmt.Appendf(b, "\\u%04x", r)
			}
			i += n
		}
	}
	return b
}
