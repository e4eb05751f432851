package docker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

var day = time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)

// at is a moment i ms after noon.
func at(i int) time.Time { return day.Add(time.Duration(i) * time.Millisecond) }

// stamped is what the engine sends of an entry.
func stamped(t time.Time, text string) string {
	return t.Format("2006-01-02T15:04:05.000000000Z07:00") + " " + text
}

// framed puts the header of a multiplexed stream before it.
func framed(kind byte, text string) string {
	h := binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(text)))
	return string(h) + text
}

// got is a Frame that lasts.
type got struct {
	at       int64
	stderr   bool
	fragment bool
	text     string
}

func entryOf(t time.Time, stderr bool, text string) got {
	return got{t.UnixNano(), stderr, !strings.HasSuffix(text, "\n"), text}
}

// clip shows the beginning of something long.
func clip(v any) string {
	s := fmt.Sprintf("%+v", v)
	return fmt.Sprintf("%q", s[:min(len(s), 500)])
}

// drain reads a stream to its last word. Buffered is asked each time, and must
// not be wrong.
func drain(t interface {
	Helper()
	Errorf(string, ...any)
}, s *LogStream) (all []got, err error) {
	t.Helper()
	for {
		sure := s.Buffered()
		if again := s.Buffered(); again != sure {
			t.Errorf("Buffered says %v and then %v", sure, again)
		}
		f, err := s.Next()
		if err != nil {
			if sure {
				t.Errorf("Buffered has promised an entry, Next says %v", err)
			}
			if errors.Is(err, io.EOF) && err != io.EOF { //nolint:errorlint // Next promises it as it is
				t.Errorf("io.EOF is wrapped: %v", err)
			}
			if f, again := s.Next(); !errors.Is(again, err) || f.Text != nil || s.Buffered() {
				t.Errorf("after %v comes %+v, %v", err, f, again)
			}
			return all, err
		}
		all = append(all, got{f.Time, f.Stderr, f.Fragment, string(f.Text)})
	}
}

// stream makes a stream of a reader alone.
func stream(r io.Reader, bufSize int, cut func([]byte, bool) (Frame, int, bool, error)) *LogStream {
	here, there := net.Pipe()
	_ = there.Close()
	return &LogStream{
		what: "test", cause: func() error { return nil }, forget: func() bool { return true },
		conn: here, body: r, buf: make([]byte, bufSize), cut: cut,
	}
}

// wire is an engine that answers the log request with raw bytes, and then
// closes the connection.
type wire struct {
	running sync.WaitGroup
	mu      sync.Mutex
	answer  []byte // guarded by mu
}

func (e *wire) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	e.running.Go(func() {
		defer there.Close()
		r := bufio.NewReader(there)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if strings.HasSuffix(req.URL.Path, "/_ping") {
				if _, err := io.WriteString(there, "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
				continue
			}
			e.mu.Lock()
			answer := e.answer
			e.mu.Unlock()
			_, _ = there.Write(answer)
			return
		}
	})
	return here, nil
}

// ask opens a log whose answer is the given bytes.
func (e *wire) ask(t *testing.T, c *Client, answer []byte, o LogsOptions) (all []got, err error) {
	t.Helper()
	e.mu.Lock()
	e.answer = answer
	e.mu.Unlock()
	s, err := c.Logs(t.Context(), "a", o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return drain(t, s)
}

func newWire(t *testing.T) (*wire, *Client) {
	t.Helper()
	e := &wire{}
	c, err := New("unix:///fake/docker.sock", func(s *settings) { s.dial = e.dial })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); e.running.Wait() })
	return e, c
}

const okHeader = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/vnd.docker.raw-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// TestLogsCutAnywhere cuts a conversation at each byte.
func TestLogsCutAnywhere(t *testing.T) {
	long := strings.Repeat("y", fragmentSize)
	for _, tty := range []bool{false, true} {
		want := []got{
			entryOf(at(1), false, "first\n"),
			entryOf(at(2), !tty, "\n"),
			entryOf(at(3), false, "half"),
			entryOf(at(3), false, " and rest\r\n"),
			entryOf(at(4), false, "end without end"),
		}
		if tty { // only there does an end without a newline need more than a header
			want[2] = entryOf(at(3), false, long)
		}
		talk := []byte(okHeader)
		var ends []int // where each entry is whole
		for _, g := range want {
			text := stamped(time.Unix(0, g.at).UTC(), g.text)
			if !tty {
				kind := byte(1)
				if g.stderr {
					kind = 2
				}
				text = framed(kind, text)
			}
			talk = fmt.Appendf(talk, "%x\r\n%s", len(text), text)
			end := len(talk)
			if tty && g.fragment {
				end += len("\r\n2e\r\n") + stampMin // known by the time behind it
			}
			ends = append(ends, end)
			talk = append(talk, "\r\n"...)
		}
		if tty {
			ends[len(ends)-1] = len(talk) + len("0\r\n\r\n")
		}
		talk = append(talk, "0\r\n\r\n"...)

		e, c := newWire(t)
		for n := range len(talk) + 1 {
			if tty && n > 1000 && n < ends[2]-100 { // nothing but y
				continue
			}
			all, err := e.ask(t, c, talk[:n], LogsOptions{TTY: tty, Follow: true})
			whole := 0
			for _, end := range ends {
				if end <= n {
					whole++
				}
			}
			if len(all) != whole || whole > 0 && !reflect.DeepEqual(all, want[:whole]) {
				t.Errorf("tty %v, cut at %d: got %d entries %s, want %d", tty, n, len(all), clip(all), whole)
			}
			switch {
			case n < len(okHeader):
				if !IsUnavailable(err) {
					t.Errorf("tty %v, cut at %d in the header: %v", tty, n, err)
				}
			case n == len(talk):
				if !errors.Is(err, io.EOF) {
					t.Errorf("tty %v, whole: %v", tty, err)
				}
			default:
				if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "container a at unix://") {
					t.Errorf("tty %v, cut at %d: %v", tty, n, err)
				}
			}
		}
	}
}

// TestLogsUndelimited: without chunks the end says nothing.
func TestLogsUndelimited(t *testing.T) {
	e, c := newWire(t)
	body := framed(1, stamped(at(1), "x\n"))
	all, err := e.ask(t, c, []byte("HTTP/1.0 200 OK\r\n\r\n"+body), LogsOptions{})
	if len(all) != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ended by the connection alone: %v, %v", all, err)
	}
	if all, err = e.ask(t, c, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body), LogsOptions{}); len(all) != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("with a length: %v, %v", all, err)
	}
}

// TestCutFrame: what is a frame, and what is none.
func TestCutFrame(t *testing.T) {
	line := framed(1, stamped(at(1), "x\n"))
	good := entryOf(at(1), false, "x\n")
	for _, tc := range []struct {
		name, in string
		want     []got
		err      error
		says     string
	}{
		{"nothing", "", nil, io.EOF, ""},
		{"a line", line, []got{good}, io.EOF, ""},
		{"stdin is stdout", framed(0, stamped(at(1), "x\n")), []got{good}, io.EOF, ""},
		{"a fragment", framed(2, stamped(at(1), "x")), []got{entryOf(at(1), true, "x")}, io.EOF, ""},
		{"no text at all", framed(2, stamped(at(1), "")), []got{{at(1).UnixNano(), true, true, ""}}, io.EOF, ""},
		{"a newline in the text", framed(1, stamped(at(1), "a\nb\n")), []got{entryOf(at(1), false, "a\nb\n")}, io.EOF, ""},
		{"empty frames", framed(1, "") + framed(2, "") + line + framed(0, ""), []got{good}, io.EOF, ""},
		{"another zone", framed(1, stamped(at(1).In(time.FixedZone("", -(5*3600+30*60))), "x\n")), []got{good}, io.EOF, ""},
		{"no time known", framed(1, "0001-01-01T00:00:00.000000000Z x\n"), []got{{0, false, false, "x\n"}}, io.EOF, ""},
		{"half a header", line + "\x01\x00\x00", []got{good}, io.ErrUnexpectedEOF, "cut"},
		{"half a frame", line + line[:30], []got{good}, io.ErrUnexpectedEOF, "cut"},
		{"an error", line + framed(3, "Error grabbing logs: invalid character\n") + line, []got{good}, &DaemonError{}, "cannot read the log: Error grabbing logs: invalid character"},
		{"an empty error", framed(3, ""), nil, &DaemonError{}, "cannot read"},
		{"unknown type", line + framed(4, stamped(at(1), "x\n")), []got{good}, ErrProtocol, "04 00 00 00"},
		{"not zero", "\x01\x00\x01\x00\x00\x00\x00\x00", nil, ErrProtocol, ""},
		{"huge", "\x01\x00\x00\x00\x00\x10\x00\x01", nil, ErrProtocol, "00 10 00 01"},
		{"the most", "\x01\x00\x00\x00\x00\x10\x00\x00" + stamped(at(1), strings.Repeat("x", maxEntry-stampMin)), []got{entryOf(at(1), false, strings.Repeat("x", maxEntry-stampMin))}, io.EOF, ""},
		{"a TTY's", stamped(at(1), "x\n"), nil, ErrProtocol, ""},
		{"without a time", framed(1, "hello\n"), nil, ErrProtocol, "hello"},
	} {
		all, err := drain(t, stream(strings.NewReader(tc.in), 32, cutFrame))
		if !reflect.DeepEqual(all, tc.want) {
			t.Errorf("%s: got %s, want %s", tc.name, clip(all), clip(tc.want))
		}
		var daemon, wantDaemon *DaemonError
		if errors.As(tc.err, &wantDaemon) != errors.As(err, &daemon) || wantDaemon == nil && !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %v with %q", tc.name, err, tc.err, tc.says)
		}
	}
}

// TestCutText: a TTY's entries.
func TestCutText(t *testing.T) {
	x := strings.Repeat("x", fragmentSize)
	bad := strings.Repeat("x", fragmentSize-2) + "\uFFFD" // 16,383 bytes as written
	s := func(i int, text string) string { return stamped(at(i), text) }
	e := func(i int, text string) got { return entryOf(at(i), false, text) }
	for _, tc := range []struct {
		name, in string
		started  int // ms after noon; 0: not known
		want     []got
		err      error
	}{
		{"nothing", "", 0, nil, io.EOF},
		{"lines", s(1, "a\r\n") + s(2, "\n") + s(3, "b\n"), 0, []got{e(1, "a\r\n"), e(2, "\n"), e(3, "b\n")}, io.EOF},
		{"no end", s(1, "a\n") + s(2, "$ "), 0, []got{e(1, "a\n"), e(2, "$ ")}, io.EOF},
		{"no text", s(1, ""), 0, []got{{at(1).UnixNano(), false, true, ""}}, io.EOF},
		{"a time in the text", s(1, "see "+s(2, "there\n")), 0, []got{e(1, "see "+s(2, "there\n"))}, io.EOF},
		{"the text is a time", s(1, s(2, "\n")), 0, []got{e(1, s(2, "\n"))}, io.EOF},
		{"fragments", s(1, x) + s(1, x) + s(1, "rest\n"), 0, []got{e(1, x), e(1, x), e(1, "rest\n")}, io.EOF},
		{"exactly one fragment", s(1, x) + s(1, "\n"), 0, []got{e(1, x), e(1, "\n")}, io.EOF},
		{"a fragment and the end", s(1, x), 0, []got{e(1, x)}, io.EOF},
		{"a fragment and another time", s(1, x) + s(2, "y\n"), 0, []got{e(1, x), e(2, "y\n")}, io.EOF},
		{"a time shortly before the border", s(1, x[:fragmentSize-stampMin]+s(1, "")) + s(1, "y\n"), 0, []got{e(1, x[:fragmentSize-stampMin]+s(1, "")), e(1, "y\n")}, io.EOF},
		{"long without fragments", s(1, x+x+"\n") + s(2, "y\n"), 0, []got{e(1, x+x+"\n"), e(2, "y\n")}, io.EOF},
		{"a rune cut at the border", s(1, bad[:fragmentSize-2]+"\uFFFD\uFFFD") + s(1, "\uFFFDy\n"), 0, []got{e(1, bad[:fragmentSize-2]+"\uFFFD\uFFFD"), e(1, "\uFFFDy\n")}, io.EOF},
		{"U+FFFD as written", s(1, bad[3:]+"xx") + s(1, "y\n"), 0, []got{e(1, bad[3:]+"xx"), e(1, "y\n")}, io.EOF},
		{"all bytes bad", s(1, strings.Repeat("\uFFFD", fragmentSize)) + s(1, "\n"), 0, []got{e(1, strings.Repeat("\uFFFD", fragmentSize)), e(1, "\n")}, io.EOF},
		{"a forged time where bad bytes let none be expected", s(1, bad[1:]+s(2, "z")) + s(3, "y\n"), 0, []got{e(1, bad[1:]+s(2, "z")+s(3, "y\n"))}, io.EOF},
		{"a prompt of an earlier run", s(1, "$ ") + s(5, "a\n") + s(6, "b\n"), 4, []got{e(1, "$ "), e(5, "a\n"), e(6, "b\n")}, io.EOF},
		{"the same, start not known", s(1, "$ ") + s(5, "a\n"), 0, []got{e(1, "$ "+s(5, "a\n"))}, io.EOF},
		{"runs of prompts", s(1, "T ") + s(2, "$ ") + s(5, "$ "), 4, []got{e(1, "T "), e(2, "$ "), e(5, "$ ")}, io.EOF},
		{"a time of the past in an earlier run", s(3, "at "+s(2, "a\n")), 4, []got{e(3, "at "+s(2, "a\n"))}, io.EOF},
		{"a time of the future in an earlier run", s(3, "at "+stamped(day.AddDate(100, 0, 0), "a\n")), 4, []got{e(3, "at "+stamped(day.AddDate(100, 0, 0), "a\n"))}, io.EOF},
		{"a last piece without a newline", s(1, x) + s(1, "rest") + s(2, "y\n") + s(3, "z\n"), 0, []got{e(1, x), e(1, "rest"), e(2, "y\n"), e(3, "z\n")}, io.EOF},
		{"an empty one", s(1, x) + s(1, "") + s(2, "y\n"), 0, []got{e(1, x), {at(1).UnixNano(), false, true, ""}, e(2, "y\n")}, io.EOF},
		{"one before a fragment", s(1, x) + s(1, "rest") + s(2, x) + s(2, x) + s(2, "y") + s(3, "z\n"), 0, []got{e(1, x), e(1, "rest"), e(2, x), e(2, x), e(2, "y"), e(3, "z\n")}, io.EOF},
		{"a time in a fragment that is not the last", s(1, x) + s(1, s(2, x)[:fragmentSize]) + s(1, "y\n"), 0, []got{e(1, x), e(1, s(2, x)[:fragmentSize]), e(1, "y\n")}, io.EOF},
		{"a time of the past or future in a last piece", s(2, x) + s(2, s(1, s(1001, "y\n"))), 0, []got{e(2, x), e(2, s(1, s(1001, "y\n")))}, io.EOF},
		{"a limit: a time between in a last piece", s(1, x) + s(1, "is "+s(2, "y\n")), 0, []got{e(1, x), e(1, "is "), e(2, "y\n")}, io.EOF},
		{"a time in the present run", s(4, "at "+s(5, "a\n")), 4, []got{e(4, "at "+s(5, "a\n"))}, io.EOF},
		{"half a time", s(1, "a\n") + s(2, "")[:20], 0, []got{e(1, "a\n")}, io.ErrUnexpectedEOF},
		{"an error", s(1, "a\n") + "Error grabbing logs: bad\n", 0, []got{e(1, "a\n")}, &DaemonError{}},
		{"an error cut", s(1, "a\n") + "Error grabbing l", 0, []got{e(1, "a\n")}, io.ErrUnexpectedEOF},
		{"the text of an error", s(1, "Error grabbing logs: bad\n"), 0, []got{e(1, "Error grabbing logs: bad\n")}, io.EOF},
		{"frames", framed(1, s(1, "a\n")), 0, nil, ErrProtocol},
		{"no times", "hello\n", 0, nil, ErrProtocol},
		{"no times and no line", strings.Repeat("h", 100), 0, nil, ErrProtocol},
	} {
		for _, one := range []bool{false, true} {
			cutter := &ttyCutter{now: func() int64 { return at(1000).UnixNano() }}
			if tc.started > 0 {
				cutter.startedAt = at(tc.started).UnixNano()
			}
			var r io.Reader = strings.NewReader(tc.in)
			if one {
				if len(tc.in) > 40_000 {
					continue
				}
				r = &chopped{r: r, next: func() int { return 1 }}
			}
			all, err := drain(t, stream(r, 32, cutter.cutText))
			if !reflect.DeepEqual(all, tc.want) {
				t.Errorf("%s (byte by byte: %v): got %d %s\nwant %d %s", tc.name, one, len(all), clip(all), len(tc.want), clip(tc.want))
			}
			var daemon, wantDaemon *DaemonError
			if errors.As(tc.err, &wantDaemon) != errors.As(err, &daemon) || wantDaemon == nil && !errors.Is(err, tc.err) {
				t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
			}
		}
	}
}

// TestCutTextWithoutEnd: a line without end of no engine is given in pieces,
// the same at each reading.
func TestCutTextWithoutEnd(t *testing.T) {
	in := stamped(at(1), strings.Repeat("z", 5*maxEntry/2)+"\n") + stamped(at(2), "next\n")
	var first []got
	for _, size := range []int{1 << 20, 4097} {
		cutter := &ttyCutter{now: func() int64 { return at(9).UnixNano() }}
		all, err := drain(t, stream(&chopped{r: strings.NewReader(in), next: func() int { return size }}, 32, cutter.cutText))
		text := ""
		for _, g := range all[:len(all)-1] {
			text += g.text
			if g.at != at(1).UnixNano() {
				t.Errorf("a piece has another time: %v", g.at)
			}
		}
		if !errors.Is(err, io.EOF) || len(all) != 4 || text != strings.Repeat("z", 5*maxEntry/2)+"\n" || all[3] != entryOf(at(2), false, "next\n") {
			t.Errorf("%d entries with %d bytes, %v", len(all), len(text), err)
		}
		if first != nil && !reflect.DeepEqual(all, first) {
			t.Error("read otherwise, the pieces are others")
		}
		first = all
	}
}

func TestStamp(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want string // RFC 3339; "": none
	}{
		{"2025-11-07T12:00:00.000000001Z x", "2025-11-07T12:00:00.000000001Z"},
		{"2025-11-07T12:00:00.1Z ", "2025-11-07T12:00:00.1Z"},
		{"2025-11-07T12:00:00Z ", "2025-11-07T12:00:00Z"},
		{"2025-11-07T12:00:00.5+05:30 x", "2025-11-07T06:30:00.5Z"},
		{"2024-02-29T23:59:59.999999999-01:00 x", "2024-03-01T00:59:59.999999999Z"},
		{"1969-12-31T23:59:59.999999999Z x", "1969-12-31T23:59:59.999999999Z"},
		{"2025-11-07T12:00:00.Z x", ""},
		{"2025-11-07T12:00:00.0000000000Z x", ""},
		{"2025-11-07T12:00:00.000000001Z", ""},
		{"2025-11-07T12:00:00.000000001Zx", ""},
		{"2025-11-07T12:00:00.000000001", ""},
		{"2025-11-07T12:00:00+05:3x x", ""},
		{"2025-11-07T12:00:00+05:30", ""},
		{"2025-13-07T12:00:00Z x", ""},
		{"2025-02-30T12:00:00Z x", ""},
		{"2025-11-07T24:00:00Z x", ""},
		{"2025-11-07 12:00:00Z x", ""},
		{"2025-11-0:T12:00:00Z x", ""},
		{"", ""},
	} {
		ns, n := stamp([]byte(tc.in))
		if tc.want == "" {
			if n != 0 {
				t.Errorf("%q is taken for a time: %d, %d", tc.in, ns, n)
			}
			continue
		}
		want, err := time.Parse(time.RFC3339Nano, tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if ns != want.UnixNano() || n != strings.IndexByte(tc.in, ' ')+1 {
			t.Errorf("%q: %d, %d, want %d", tc.in, ns, n, want.UnixNano())
		}
	}
}

// FuzzStamp compares with package time.
func FuzzStamp(f *testing.F) {
	f.Add("2025-11-07T12:00:00.000000001Z x")
	f.Add("2025-11-07T12:00:00.5+05:30 ")
	f.Fuzz(func(t *testing.T, in string) {
		ns, n := stamp([]byte(in))
		if n == 0 {
			return
		}
		want, err := time.Parse(time.RFC3339Nano, in[:n-1])
		if err != nil {
			t.Fatalf("%q taken for a time: %v", in[:n], err)
		}
		if y := want.Year(); y > 1678 && y < 2262 && ns != want.UnixNano() {
			t.Fatalf("%q: %d, want %d", in[:n], ns, want.UnixNano())
		}
	})
}

// chopped reads as many bytes at a time as next says.
type chopped struct {
	r    io.Reader
	next func() int
}

func (c *chopped) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), max(1, c.next()))]) }

// simple is the demultiplexer in its simplest form.
func simple(in []byte) (all []got, err error) {
	r := bytes.NewReader(in)
	for {
		h := make([]byte, frameHeader)
		if _, err := io.ReadFull(r, h); err != nil {
			return all, err
		}
		size := binary.BigEndian.Uint32(h[4:])
		if h[0] > 3 || h[1] != 0 || h[2] != 0 || h[3] != 0 || size > maxEntry {
			return all, ErrProtocol
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(r, text); err != nil {
			return all, io.ErrUnexpectedEOF
		}
		if h[0] == 3 {
			return all, &DaemonError{Text: strings.TrimSpace(string(text))}
		}
		if size == 0 {
			continue
		}
		ns, n := stamp(text)
		if n == 0 {
			return all, ErrProtocol
		}
		rest := string(text[n:])
		all = append(all, got{ns, h[0] == 2, !strings.HasSuffix(rest, "\n"), rest})
	}
}

// FuzzCutFrame compares with simple, whatever comes and however it is read.
func FuzzCutFrame(f *testing.F) {
	line := framed(1, stamped(at(1), "x\n"))
	f.Add([]byte(line+framed(2, stamped(at(2), "y"))+framed(3, "bad")), []byte{1, 9, 40})
	f.Add([]byte(line+framed(0, "")+line+"\x01\x00"), []byte{200})
	f.Add([]byte(framed(2, stamped(at(2), strings.Repeat("long", 100)))+framed(7, "")), []byte{64, 3})
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		i := 0
		next := func() int {
			if len(sizes) == 0 {
				return 1 << 10
			}
			i++
			return int(sizes[i%len(sizes)])
		}
		all, err := drain(t, stream(&chopped{bytes.NewReader(in), next}, 16, cutFrame))
		want, wantErr := simple(in)
		if !reflect.DeepEqual(all, want) {
			t.Fatalf("got %s, want %s", clip(all), clip(want))
		}
		var d, wantD *DaemonError
		if errors.As(wantErr, &wantD) {
			if !errors.As(err, &d) || d.Text != wantD.Text {
				t.Fatalf("got %v, want %v", err, wantErr)
			}
		} else if !errors.Is(err, wantErr) {
			t.Fatalf("got %v, want %v", err, wantErr)
		}
	})
}

// copier does what Docker's does to the output of a run: lines, fragments of 16
// KiB, all with the time of the first. oldLocal: the last piece of a split line
// has no newline.
func copier(out string, oldLocal bool, clock func() time.Time) (entries []got) {
	for len(out) > 0 {
		line, _, terminated := strings.Cut(out, "\n")
		out = out[len(line):]
		t := clock()
		split := len(line) >= fragmentSize
		for len(line) >= fragmentSize {
			entries = append(entries, entryOf(t, false, line[:fragmentSize]))
			line = line[fragmentSize:]
		}
		if terminated {
			out = out[1:]
			if !split || !oldLocal {
				line += "\n"
			}
		}
		if line != "" || terminated {
			entries = append(entries, entryOf(t, false, line))
		}
	}
	return entries
}

// storedAs is what the json-file driver makes of bytes that are no UTF-8.
func storedAs(text string) string {
	var b strings.Builder
	for _, r := range text { // an invalid byte comes as U+FFFD, one at a time
		b.WriteRune(r)
	}
	return b.String()
}

// TestTTYModel: whatever a container writes, in whatever pieces it comes, the
// entries of a TTY are found again.
func TestTTYModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := 0
		clock := func() time.Time { now++; return at(now) }
		driver := rapid.SampledFrom([]string{"json-file", "local", "local of 20.10"}).Draw(t, "driver")
		zone := time.FixedZone("", 60*rapid.IntRange(-720, 720).Draw(t, "zone")) // 0 is Z
		runs := rapid.IntRange(1, 3).Draw(t, "runs")
		var want []got
		var started int64
		for run := range runs {
			started = clock().UnixNano()
			kinds := []string{"x", "é", "漢", "\xff", "\uFFFD", "T", "2", " ", "\n", "\r\n", "Error grabbing logs: x", "2025-"}
			if run == runs-1 { // what other times do is said at cutText
				kinds = append(kinds, stamped(at(0), ""), stamped(day.AddDate(1, 0, 0), ""))
			}
			var out strings.Builder
			for _, piece := range rapid.SliceOfN(rapid.SampledFrom(kinds), 0, 12).Draw(t, "pieces") {
				n := 1
				if rapid.IntRange(0, 3).Draw(t, "repeat") == 0 && !strings.Contains(piece, "\n") {
					n = rapid.SampledFrom([]int{2, fragmentSize - 60, fragmentSize - 31, fragmentSize - 1, fragmentSize, fragmentSize + 1}).Draw(t, "times") / len(piece)
				}
				out.WriteString(strings.Repeat(piece, max(n, 1)))
			}
			want = append(want, copier(out.String(), driver == "local of 20.10", clock)...)
		}
		var in bytes.Buffer
		for i := range want {
			if driver == "json-file" {
				want[i].text = storedAs(want[i].text)
			}
			in.WriteString(stamped(time.Unix(0, want[i].at).In(zone), want[i].text))
		}
		size := rapid.SampledFrom([]int{7, 31, 1000, fragmentSize, 1 << 20}).Draw(t, "read")
		cutter := &ttyCutter{startedAt: started, now: func() int64 { return at(now).UnixNano() }}
		all, err := drain(t, stream(&chopped{&in, func() int { return size }}, 64, cutter.cutText))
		if !errors.Is(err, io.EOF) || len(all) != len(want) {
			t.Fatalf("%v, %d entries, want %d:\n%s\n%s", err, len(all), len(want), clip(all), clip(want))
		}
		for i := range want {
			if all[i] != want[i] {
				t.Fatalf("entry %d: got %d bytes %s\nwant %d bytes %s", i, len(all[i].text), clip(all[i]), len(want[i].text), clip(want[i]))
			}
		}
	})
}

// TestLogsRequest: what the engine is asked.
func TestLogsRequest(t *testing.T) {
	for _, tc := range []struct {
		host, id string
		o        LogsOptions
		want     string // host and URI
	}{
		{"unix:///x.sock", "abc", LogsOptions{}, "api.moby.localhost /v1.41/containers/abc/logs?stderr=1&stdout=1&timestamps=1"},
		{"tcp://h:1", "abc", LogsOptions{Follow: true}, "h:1 /v1.41/containers/abc/logs?follow=1&stderr=1&stdout=1&timestamps=1"},
		{"tcp://h:1/base", "a/../b?c", LogsOptions{TTY: true}, "h:1 /base/v1.41/containers/a/../b%3Fc/logs?stderr=1&stdout=1&timestamps=1"},
		{"unix:///x.sock", "abc", LogsOptions{Since: time.Unix(1700000000, 5)}, "api.moby.localhost /v1.41/containers/abc/logs?since=1700000000.000000005&stderr=1&stdout=1&timestamps=1"},
		{"unix:///x.sock", "abc", LogsOptions{Since: time.Unix(0, 1)}, "api.moby.localhost /v1.41/containers/abc/logs?since=0.000000001&stderr=1&stdout=1&timestamps=1"},
		{"unix:///x.sock", "abc", LogsOptions{Since: time.Unix(-1, 1)}, "api.moby.localhost /v1.41/containers/abc/logs?stderr=1&stdout=1&timestamps=1"},
	} {
		req, err := (&Client{host: tc.host}).logsRequest(t.Context(), "1.41", tc.id, tc.o)
		if err != nil {
			t.Errorf("%+v: %v", tc, err)
			continue
		}
		if got := req.Host + " " + req.URL.RequestURI(); got != tc.want {
			t.Errorf("asked %s\nwant  %s", got, tc.want)
		}
	}
	if _, err := (&Client{host: "unix:///x.sock"}).logsRequest(t.Context(), "1.41", "", LogsOptions{}); err == nil {
		t.Error("took no ID at all")
	}
}

// TestLogsRefused: what the engine may answer instead.
func TestLogsRefused(t *testing.T) {
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<html>no</html>")
	}
	kinds := []error{ErrNotFound, ErrConflict, ErrNotReadable, ErrUnavailable}
	for _, tc := range []struct {
		name string
		hook http.HandlerFunc
		want error // of kinds, or nil for none of them
		says string
		took time.Duration
	}{
		{"404", status(404), ErrNotFound, "made to fail with 404", 0},
		{"409", status(409), ErrConflict, "made to fail with 409", 0},
		{"501", status(501), ErrNotReadable, "made to fail with 501", 0},
		{"500", status(500), ErrUnavailable, "made to fail with 500", 0},
		{"503", status(503), ErrUnavailable, "made to fail with 503", 0},
		{"400", status(400), nil, "made to fail with 400", 0},
		{"301", status(301), nil, "made to fail with 301", 0},
		{"a proxy's page", page, nil, "403 Forbidden", 0},
		{"cut", cut, ErrUnavailable, "no answer", 0},
		{"hang", hang, ErrUnavailable, "no answer within 10s", callTimeout},
		{"hang in the message", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `{"mess`)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}, ErrUnavailable, "no answer within 10s", callTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newFakeEngine(t)
				e.set(func() { e.hooks["/containers/a/logs"] = tc.hook })
				start := time.Now()
				s, err := e.client(t).Logs(t.Context(), "a", LogsOptions{Follow: true})
				if err == nil || s != nil {
					t.Fatalf("got %v, %v", s, err)
				}
				if took := time.Since(start); took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
				for _, k := range kinds {
					if is := tc.want != nil && errors.Is(k, tc.want); errors.Is(err, k) != is {
						t.Errorf("%v: is %v: %v", err, k, errors.Is(err, k))
					}
				}
				for _, s := range []string{"read logs of container a at unix:///fake/docker.sock", tc.says} {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("%q does not say %q", err, s)
					}
				}
			})
		})
	}
}

// TestLogsOverTLS: with the certificates of the environment, as every call.
func TestLogsOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		if r.URL.Path == "/base/v1.44/containers/a/logs" {
			_, _ = io.WriteString(w, framed(1, stamped(at(1), "x\n")))
			_ = http.NewResponseController(w).Flush() // chunked
		}
	}))
	defer srv.Close()
	key, err := x509.MarshalPKCS8PrivateKey(srv.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for name, text := range map[string][]byte{
		"ca.pem": cert, "cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DOCKER_CERT_PATH", dir)
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	c, err := New("tcp://" + srv.Listener.Addr().String() + "/base")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Logs(t.Context(), "a", LogsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := drain(t, s); len(all) != 1 || all[0] != entryOf(at(1), false, "x\n") || !errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v", all, err)
	}
	// Another's certificate is not believed, nor a file that has gone.
	for _, text := range []string{"no certificate", ""} {
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := c.Logs(t.Context(), "a", LogsOptions{}); err == nil {
			t.Errorf("ca.pem is %q, and the log is open: %v", text, s)
		}
	}
}

// TestLogsRefusedConnection: the engine is gone after the first call.
func TestLogsRefusedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		c := e.client(t)
		if _, err := c.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.set(func() { e.refuse = true })
		if _, err := c.Logs(t.Context(), "a", LogsOptions{}); !IsUnavailable(err) || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("got %v", err)
		}
		_ = c.Close() // nothing is known of the engine any more
		if _, err := c.Logs(t.Context(), "a", LogsOptions{}); !IsUnavailable(err) {
			t.Errorf("got %v", err)
		}
	})
}

// follow serves a log that goes on until the client goes away.
func follow(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		hang(w, r)
	}
}

// TestLogsSilent: a silent container is waited for; the context ends it at once,
// as Close does.
func TestLogsSilent(t *testing.T) {
	errWhy := errors.New("shutting down")
	for _, how := range []string{"context", "close"} {
		synctest.Test(t, func(t *testing.T) {
			e := newFakeEngine(t)
			e.set(func() { e.hooks["/containers/a/logs"] = follow(framed(1, stamped(at(1), "x\n"))) })
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			s, err := e.client(t).Logs(ctx, "a", LogsOptions{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			if f, err := s.Next(); err != nil || string(f.Text) != "x\n" {
				t.Fatalf("%+v, %v", f, err)
			}
			if s.Buffered() {
				t.Error("Buffered knows of an entry that is not there")
			}
			const week = 7 * 24 * time.Hour
			start := time.Now()
			want := errWhy
			time.AfterFunc(week, func() {
				if how == "close" {
					want = net.ErrClosed
					_ = s.Close()
				} else {
					cancel(errWhy)
				}
			})
			f, err := s.Next()
			if !errors.Is(err, want) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: got %+v, %v", how, f, err)
			}
			if d := time.Since(start); d != week {
				t.Errorf("%s: ended after %v", how, d)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLogsContextBefore: an ended context opens nothing, nor gives what has
// come already.
func TestLogsContextBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		line := framed(1, stamped(at(1), "x\n"))
		e.set(func() { e.hooks["/containers/a/logs"] = follow(line + line) })
		c := e.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		s, err := c.Logs(ctx, "a", LogsOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(); err != nil || !s.Buffered() {
			t.Fatal(err)
		}
		cancel()
		if f, err := s.Next(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %+v, %v", f, err)
		}
		if _, err := c.Logs(ctx, "a", LogsOptions{}); !errors.Is(err, context.Canceled) || IsUnavailable(err) {
			t.Errorf("got %v", err)
		}
		// While the engine does not answer.
		e.set(func() { e.hooks["/containers/a/logs"] = hang })
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if _, err := c.Logs(ctx, "a", LogsOptions{}); !errors.Is(err, context.Canceled) || IsUnavailable(err) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// descriptors counts this process's open files.
func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestLogsLeaveNothing: streams have no goroutine in net/http, and leave neither
// goroutines nor descriptors, whether closed or ended by their context.
func TestLogsLeaveNothing(t *testing.T) {
	before, files := goleak.IgnoreCurrent(), descriptors(t)
	sock := shortSocket(t)
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	line := framed(2, stamped(at(1), "x\n"))
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		if strings.HasSuffix(r.URL.Path, "/logs") {
			follow(line)(w, r)
		}
	})}}
	srv.Start()
	c, err := New("unix://" + sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	const n = 200
	var open []*LogStream
	for i := range n {
		s, err := c.Logs(ctx, "a", LogsOptions{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		if f, err := s.Next(); err != nil || !f.Stderr {
			t.Fatalf("stream %d: %+v, %v", i, f, err)
		}
		open = append(open, s)
	}
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if k := bytes.Count(stacks, []byte("net/http.(*persistConn)")); k > 8 { // those of the ping: two, named some times
		t.Errorf("%d open streams have goroutines of net/http's client: %d mentions", n, k)
	}
	for _, s := range open[:n/2] {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	for _, s := range open[n/2:] {
		if _, err := s.Next(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	srv.Close()
	goleak.VerifyNone(t, before) // waits for a while
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors, %d before", now, files)
	}
}

// repeat gives the same text for ever.
type repeat struct {
	text []byte
	i    int
}

func (r *repeat) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.text[r.i:])
		n += k
		r.i = (r.i + k) % len(r.text)
	}
	return n, nil
}

func TestNextAllocatesNothing(t *testing.T) {
	lines := func(kind func(string) string) []byte {
		return []byte(kind(stamped(at(1), strings.Repeat("a", 100)+"\n")) + kind(stamped(at(2), strings.Repeat("b", fragmentSize))) + kind(stamped(at(2), "c\n")))
	}
	for name, s := range map[string]*LogStream{
		"frames": stream(&repeat{text: lines(func(s string) string { return framed(1, s) })}, logReadSize, cutFrame),
		"tty":    stream(&repeat{text: lines(func(s string) string { return s })}, logReadSize, (&ttyCutter{}).cutText),
	} {
		next := func() {
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
			_ = s.Buffered()
		}
		for range 100 {
			next()
		}
		if n := testing.AllocsPerRun(3000, next); n != 0 {
			t.Errorf("%s: %v allocations per entry", name, n)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	line := stamped(at(1), strings.Repeat("a", 100)+"\n")
	for _, bc := range []struct {
		name string
		text string
		cut  func([]byte, bool) (Frame, int, bool, error)
	}{
		{"frames", framed(1, line), cutFrame},
		{"tty", line, (&ttyCutter{}).cutText},
	} {
		b.Run(bc.name, func(b *testing.B) {
			s := stream(&repeat{text: []byte(bc.text)}, logReadSize, bc.cut)
			b.SetBytes(int64(len(bc.text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
