package monitors

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// jsonDockerString appends text as moby's jsonlog writes a string
// (daemon/logger/jsonfilelog/jsonlog, ffjsonWriteJSONBytesAsString).
func jsonDockerString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case r == '\\' || r == '"':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r < 0x20 || r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029':
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = append(dst, text[:size]...)
		}
		text = text[size:]
	}
	return append(dst, '"')
}

// jsonDockerEntry appends an entry as moby's jsonlog writes it; attrs is raw.
func jsonDockerEntry(dst []byte, log, stream, attrs string, t time.Time) []byte {
	dst = append(dst, '{')
	for _, f := range []struct{ key, value string }{{"log", log}, {"stream", stream}} {
		if f.value != "" {
			dst = append(dst, `"`+f.key+`":`...)
			dst = append(jsonDockerString(dst, f.value), ',')
		}
	}
	if attrs != "" {
		dst = append(dst, `"attrs":`+attrs+`,`...)
	}
	dst = append(dst, `"time":"`...)
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, "\"}\n"...)
}

// jsonParsed is what a call to ParseDockerJSONLogLine came to, comparable.
type jsonParsed struct {
	Message  string
	Stream   entry.Stream
	Time     string // RFC 3339, empty for 0
	Fragment bool
	Attrs    string
	Raw      string
	NULs     int
	Err      error
}

type jsonTester interface {
	Helper()
	Fatalf(string, ...any)
}

// jsonParseAll parses all of data, and checks what must hold for every call. A processor
// with vectors has to come to what one without does.
func jsonParseAll(t jsonTester, l *DockerJSONLogLine, data []byte) []jsonParsed {
	t.Helper()
	all := jsonParseEach(t, l, data)
	if jsonVectors {
		jsonVectors = false
		defer func() { jsonVectors = true }()
		if without := jsonParseEach(t, &DockerJSONLogLine{}, data); !slices.Equal(all, without) {
			t.Fatalf("of %q\nwith vectors %+v\nwithout      %+v", data, all, without)
		}
	}
	return all
}

func jsonParseEach(t jsonTester, l *DockerJSONLogLine, data []byte) []jsonParsed {
	t.Helper()
	const before = "arena before\n"
	var all []jsonParsed
	for rest := data; len(rest) > 0; {
		n, arena, err := ParseDockerJSONLogLine(l, rest, []byte(before))
		line := len(rest)
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line = i + 1
		}
		if n <= 0 || n > line {
			t.Fatalf("consumed %d bytes of a line of %d: %q", n, line, rest)
		}
		if got := string(arena); got != before+string(l.Message) {
			t.Fatalf("arena is %q, message %q", got, l.Message)
		}
		if !utf8.Valid(l.Message) {
			t.Fatalf("message is not UTF-8: %q", l.Message)
		}
		if err != nil {
			newline := n - len(bytes.TrimSuffix(rest[:n], []byte("\n")))
			if len(l.Raw)+l.NULs+newline != n || !bytes.Contains(rest[:n], l.Raw) {
				t.Fatalf("of %q: raw %q and %d NULs do not add up", rest[:n], l.Raw, l.NULs)
			}
			if len(l.Message) > 0 || l.Time != 0 || l.Stream != entry.Stdout || l.Attrs != nil {
				t.Fatalf("of %q: an error and yet %+v", rest[:n], l)
			}
		} else if l.Raw != nil {
			t.Fatalf("of %q: no error and yet raw %q", rest[:n], l.Raw)
		}
		p := jsonParsed{
			Message: string(l.Message), Stream: l.Stream, Fragment: l.Fragment,
			Attrs: string(l.Attrs), Raw: string(l.Raw), NULs: l.NULs, Err: err,
		}
		if l.Time != 0 {
			p.Time = time.Unix(0, l.Time).UTC().Format(time.RFC3339Nano)
		}
		all = append(all, p)
		rest = rest[n:]
	}
	return all
}

type jsonCase struct {
	name string
	in   string
	want []jsonParsed
}

// jsonRunCases runs the cases with a new line value each, and then all of them
// in a row with a single one, whose cache must not change anything.
func jsonRunCases(t *testing.T, cases []jsonCase) {
	t.Helper()
	var shared DockerJSONLogLine
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				for _, l := range []*DockerJSONLogLine{{}, &shared} {
					got := jsonParseAll(t, l, []byte(c.in))
					for i := range max(len(got), len(c.want)) {
						if i >= len(got) || i >= len(c.want) || got[i] != c.want[i] {
							t.Fatalf("of %q\ngot  %+v\nwant %+v", c.in, got, c.want)
						}
					}
				}
			}
		})
	}
}

const (
	jsonT  = `2025-11-07T12:00:00.123456789Z`
	jsonTT = `,"stream":"stdout","time":"` + jsonT + `"}`
)

func jsonGood(message string) jsonParsed { return jsonParsed{Message: message, Time: jsonT} }

func jsonBad(raw string, nuls int) jsonParsed {
	return jsonParsed{Raw: raw, NULs: nuls, Err: errJSONMalformed}
}

func TestParseDockerJSONLogLine(t *testing.T) {
	// log as it stands between the quotes, and what it decodes to
	logs := []struct{ name, log, want string }{
		{"empty line", `\n`, ""},
		{"quotes and backslashes", `\"a\" \\ \\\" \\n\n`, `"a" \ \" \n`},
		{"carriage return is left", `tty\r\n`, "tty\r"},
		{"only one newline is cut", `a\n\n`, "a\n"},
		{"newline inside", `a\nb\n`, "a\nb"},
		{"newline and an escape", `a\n\u0009\n`, "a\n\t"},
		{"newline written in hex", `a\u000a`, "a"},
		{"control characters", `\u0000\u0001\u0009\u001b[0m\u001F\n`, "\x00\x01\t\x1b[0m\x1f"},
		{"markup", `\u003ca href=\"x\"\u003e \u0026amp; \u003C/a\u003E\n`, `<a href="x"> &amp; </a>`},
		{"separators", `a\u2028b\u2029\n`, "a\u2028b\u2029"},
		{"invalid UTF-8 as Docker writes it", `a\ufffd\ufffdb\n`, "a\ufffd\ufffdb"},
		{"short escapes that Docker does not use", `\b\f\t\/\n`, "\b\f\t/"},
		{"raw UTF-8", "äöü € 日本語 😀\\n", "äöü € 日本語 😀"},
		{"raw DEL and separators", "\x7f\u2028\u2029\\n", "\x7f\u2028\u2029"},
		{"escaped UTF-8", `\u00e4\u20AC\u65e5\n`, "ä€日"},
		{"surrogate pair", `\ud83d\ude00\uD83D\uDE00\n`, "😀😀"},
		{"high surrogate alone", `\ud83dx\n`, "\ufffdx"},
		{"high surrogate at the end", `x\ud83d`, "x\ufffd"},
		{"low surrogate alone", `\ude00\n`, "\ufffd"},
		{"low surrogate twice", `\ude00\ude00\n`, "\ufffd\ufffd"},
		{"high surrogate before what is above the low ones", `\ud83d\ue000\n`, "\ufffd\ue000"},
		{"high surrogate twice, then a low one", `\ud83d\ud83d\ude00\n`, "\ufffd😀"},
		{"high surrogate before another escape", `\ud83d\u0041\ud83d\n\n`, "\ufffdA\ufffd\n"},
		{"invalid raw UTF-8", "a\xff\xfeb\xc3\\n", "a\ufffd\ufffdb\ufffd"},
		{"rune cut by an escape", "\xe2\x82\\u00ac\\n", "\ufffd\ufffd¬"},
		{"UTF-8 of a surrogate", "\xed\xa0\x80\\n", "\ufffd\ufffd\ufffd"},
		{"overlong", "\xc0\x80\\n", "\ufffd\ufffd"},
		{"what looks like an entry", `{\"log\":\"x\",\"time\":\"\"}\n`, `{"log":"x","time":""}`},
		{"JSON", `{\"a\":\"b\",\"c\":[\"d\",\"e\"],\"f\":\":\",\"\":\"\"}\n`, `{"a":"b","c":["d","e"],"f":":","":""}`},
		{"words of each kind of byte", `12345678\"1234567\\123456\u003c12345\n`, `12345678"1234567\123456<12345`},
	}
	var cases []jsonCase
	for _, c := range logs {
		want := jsonGood(c.want)
		want.Fragment = !strings.HasSuffix(c.log, `\n`) && !strings.HasSuffix(c.log, `\u000a`)
		cases = append(cases, jsonCase{c.name, `{"log":"` + c.log + `"` + jsonTT + "\n", []jsonParsed{want}})
	}
	// Each kind of byte at each place of a word, behind texts of each length.
	for n := range 40 {
		text := strings.Repeat("abcdefgh", 5)[:n]
		want := jsonGood(text + "\"" + text + "\\" + text + "<ä")
		cases = append(cases, jsonCase{fmt.Sprintf("text of %d", n),
			`{"log":"` + text + `\"` + text + `\\` + text + `\u003cä\n"` + jsonTT + "\n", []jsonParsed{want}})
	}
	frag := jsonGood("no end")
	frag.Fragment = true
	long := strings.Repeat("x", 16384)
	longFrag := jsonGood(long)
	longFrag.Fragment = true
	controls := jsonGood(strings.Repeat("\x01", 16384))
	controls.Fragment = true
	stderr := jsonGood("to stderr")
	stderr.Stream = entry.Stderr
	cases = append(cases, []jsonCase{
		{"the contract's example", `{"log":"test message\n","stream":"stdout","time":"2025-11-07T12:00:00.123Z"}` + "\n",
			[]jsonParsed{{Message: "test message", Time: "2025-11-07T12:00:00.123Z"}}},
		{"fragment", `{"log":"no end"` + jsonTT + "\n", []jsonParsed{frag}},
		{"16 KiB fragment and its rest", `{"log":"` + long + `"` + jsonTT + "\n" + `{"log":"\n"` + jsonTT + "\n",
			[]jsonParsed{longFrag, jsonGood("")}},
		{"the longest entry", `{"log":"` + strings.Repeat(`\u0001`, 16384) + `"` + jsonTT + "\n", []jsonParsed{controls}},
		{"stderr", `{"log":"to stderr\n","stream":"stderr","time":"` + jsonT + `"}` + "\n", []jsonParsed{stderr}},
		{"two", `{"log":"a\n"` + jsonTT + "\n" + `{"log":"b\n"` + jsonTT + "\n", []jsonParsed{jsonGood("a"), jsonGood("b")}},
		{"without newline at the end of a file", `{"log":"a\n"` + jsonTT, []jsonParsed{jsonGood("a")}},
		{"spaces", " { \"log\" : \"a\\n\" ,\t\"stream\":\"stdout\" , \"time\": \"" + jsonT + "\" } \r\n", []jsonParsed{jsonGood("a")}},
		{"another order", `{"time":"` + jsonT + `","stream":"stderr","log":"to stderr\n"}` + "\n", []jsonParsed{stderr}},
		{"unknown keys", `{"a":{"log":["b",1.5e-3,true,{}]},"log":"a\n","Log":null,"x":[],"stream":"stdout","time":"` + jsonT + `"}` + "\n",
			[]jsonParsed{jsonGood("a")}},
		{"escaped keys and values", `{"lo\u0067":"a\n","\u0073tream":"std\u006fut","time":"2025-11-07T12:00:00.123456789\u005a"}` + "\n",
			[]jsonParsed{jsonGood("a")}},
		{"the last of equal keys", `{"log":"b\n","stream":"stderr","log":"a\n","stream":"stdout","time":"x","time":"` + jsonT + `"}` + "\n",
			[]jsonParsed{jsonGood("a")}},
		{"unknown stream", `{"log":"a\n","stream":"stdin","time":"` + jsonT + `"}` + "\n", []jsonParsed{jsonGood("a")}},
	}...)
	jsonRunCases(t, cases)

	// The contract's example again, by its time.
	var l DockerJSONLogLine
	if _, _, err := ParseDockerJSONLogLine(&l, []byte(`{"log":"test message\n","stream":"stdout","time":"2025-11-07T12:00:00.123Z"}`), nil); err != nil ||
		l.Time != time.Date(2025, 11, 7, 12, 0, 0, 123e6, time.UTC).UnixNano() {
		t.Errorf("time %d, error %v", l.Time, err)
	}
}

func TestParseDockerJSONLogLineAbsentFields(t *testing.T) {
	jsonRunCases(t, []jsonCase{
		{"log", `{"stream":"stderr","time":"` + jsonT + `"}` + "\n", []jsonParsed{{Stream: entry.Stderr, Fragment: true, Time: jsonT}}},
		{"empty log", `{"log":""` + jsonTT + "\n", []jsonParsed{{Fragment: true, Time: jsonT}}},
		{"stream", `{"log":"a\n","time":"` + jsonT + `"}` + "\n", []jsonParsed{jsonGood("a")}},
		{"log and stream", `{"time":"` + jsonT + `"}` + "\n", []jsonParsed{{Fragment: true, Time: jsonT}}},
		{"time", `{"log":"a\n","stream":"stdout"}` + "\n", []jsonParsed{{Message: "a"}}},
		{"bad time", `{"log":"a\n","stream":"stdout","time":"yesterday"}` + "\n", []jsonParsed{{Message: "a"}}},
		{"bad time of the right form", `{"log":"a\n","stream":"stdout","time":"2025-02-29T12:00:00.123456789Z"}` + "\n", []jsonParsed{{Message: "a"}}},
		{"null", `{"log":null,"stream":"stderr","attrs":null,"time":null}` + "\n", []jsonParsed{{Stream: entry.Stderr, Fragment: true}}},
		{"null after a value", `{"log":"a\n","log":null,"stream":"stderr","stream":null,"time":"` + jsonT + `"}` + "\n",
			[]jsonParsed{{Fragment: true, Time: jsonT}}},
		{"all", "{}\n", []jsonParsed{jsonBad("{}", 0)}},
		{"all null", `{"log":null,"stream":null,"time":null}` + "\n", []jsonParsed{jsonBad(`{"log":null,"stream":null,"time":null}`, 0)}},
		{"all but a bad time", `{"time":"yesterday"}` + "\n", []jsonParsed{jsonBad(`{"time":"yesterday"}`, 0)}},
	})
}

func TestParseDockerJSONLogLineAttrs(t *testing.T) {
	line := func(attrs string) string {
		return `{"log":"a\n","stream":"stdout","attrs":` + attrs + `,"time":"` + jsonT + `"}` + "\n"
	}
	with := func(attrs string) jsonParsed {
		p := jsonGood("a")
		p.Attrs = attrs
		return p
	}
	nested := strings.Repeat(`{"a":[`, jsonMaxDepth/2) + strings.Repeat(`]}`, jsonMaxDepth/2)
	tooDeep := `{"a":` + nested + `}`
	jsonRunCases(t, []jsonCase{
		{"object", line(`{"env":"prod","tag":"a\"}b"}`), []jsonParsed{with(`{"env":"prod","tag":"a\"}b"}`)}},
		{"empty object", line(`{}`), []jsonParsed{with(`{}`)}},
		{"a label named log", line(`{"log":"x"}`), []jsonParsed{with(`{"log":"x"}`)}},
		{"the same, others, none", line(`{"a":"1"}`) + line(`{"a":"1"}`) + line(`{"a":"12"}`) + line(`{"a":"1","b":"2"}`) + `{"log":"a\n"` + jsonTT + "\n" + line(`{"a":"1"}`),
			[]jsonParsed{with(`{"a":"1"}`), with(`{"a":"1"}`), with(`{"a":"12"}`), with(`{"a":"1","b":"2"}`), with(""), with(`{"a":"1"}`)}},
		{"what begins like the last", line(`{"a":"1"}`) + line(`{"a":"1"}}`), []jsonParsed{with(`{"a":"1"}`), jsonBad(strings.TrimSpace(line(`{"a":"1"}}`)), 0)}},
		{"spaces", line(` {"a": "1" } `), []jsonParsed{with(`{"a": "1" }`)}},
		{"nested", line(nested), []jsonParsed{with(nested)}},
		{"nested too deeply", line(tooDeep), []jsonParsed{jsonBad(strings.TrimSuffix(line(tooDeep), "\n"), 0)}},
		{"no object", line(`[1]`), []jsonParsed{with("")}},
		{"broken", line(`{"a"}`), []jsonParsed{jsonBad(strings.TrimSuffix(line(`{"a"}`), "\n"), 0)}},
		{"newline inside", `{"log":"a\n","stream":"stdout","attrs":{` + "\n" + `"a":"1"},"time":"` + jsonT + `"}` + "\n",
			[]jsonParsed{jsonBad(`{"log":"a\n","stream":"stdout","attrs":{`, 0), jsonBad(`"a":"1"},"time":"`+jsonT+`"}`, 0)}},
		{"last in another order", `{"log":"a\n"` + strings.TrimSuffix(jsonTT, "}") + `,"attrs":{"a":"1"}}` + "\n", []jsonParsed{with(`{"a":"1"}`)}},
	})
}

func TestParseDockerJSONLogLineMalformed(t *testing.T) {
	var cases []jsonCase
	for _, line := range []string{
		"", "\r", " ", "x", "null", `"log"`, "[]", `{`, `{"log`, `{"log"`, `{"log":`, `{"log":"`, `{"log":"a`, `{"log":"a\`, `{"log":"a\n"`,
		`{"log":"a\n",`, `{"log":"a\n",}`, `{"log":"a\n"}}`, `{"log":"a\n"} x`, `{"log":"a\n" "stream":"stdout"}`, `{"log" "a\n"}`, `{log:"a"}`,
		`{"log":5}`, `{"log":["a"]}`, `{"log":{}}`, `{"log":nul}`, `{"log":nullx}`, `{"log":true,"time":"` + jsonT + `"}`, `{"log":"a","stream":1}`, `{"log":"a","time":1}`,
		`{"log":"a","x":01}`, `{"log":"a","x":1.}`, `{"log":"a","x":-}`, `{"log":"a","x":1e}`, `{"log":"a","x":+1}`, `{"log":"a","x":tru}`, `{"log":"a","x":[1,]}`,
		`{"log":"a","x":[1}`, `{"log":"a","x":{"a":1]}`, `{"log":"a","x":{"a" 1}}`, `{"log":"a","x":{1:1}}`, `{"log":"a","x":"\x"}`, "{\"log\":\"a\",\"x\":\"\t\"}", `{"log":"a","x":"\u0041`, `{"log":"a","x":`, `{"log":"a","x":[1`, `{"log":"a","x":[1,`,
		`{"log":"` + strings.Repeat("x", 100), `{"log":"` + strings.Repeat("x", 100) + `\u`,
		`{"log":"\x"` + jsonTT, `{"log":"\u12"` + jsonTT, `{"log":"\u12g4"` + jsonTT, `{"log":"\ud83d\u12"` + jsonTT, `{"log":"\`, `{"log":"\u`, `{"log":"\u003`,
		"{\"log\":\"tab\there\"" + jsonTT, "{\"log\":\"nul\x00here\"" + jsonTT, "{\"log\":\"a long text and then a control: \x1f\"" + jsonTT,
		`{"log":"a"` + jsonTT + "x", `{"log":"a"` + jsonTT + `{"time":"` + jsonT + `"}`,
		`{"log":"a\n","stream":"stdout","time":"` + jsonT, `{"log":"a\n","stream":"stdout","time":"` + jsonT + `"`, `{"log":"a\n","stream":"stdout"` + jsonT,
	} {
		cases = append(cases, jsonCase{line, line + "\n" + `{"log":"next\n"` + jsonTT + "\n", []jsonParsed{jsonBad(line, 0), jsonGood("next")}})
		if line != "" {
			cases = append(cases, jsonCase{line + " at the end", line, []jsonParsed{jsonBad(line, 0)}})
		}
	}
	jsonRunCases(t, cases)

	var l DockerJSONLogLine
	if n, arena, err := ParseDockerJSONLogLine(&l, nil, []byte("a")); n != 0 || string(arena) != "a" || !errors.Is(err, errJSONMalformed) {
		t.Errorf("without data: n %d, arena %q, error %v", n, arena, err)
	}
}

func TestParseDockerJSONLogLineResync(t *testing.T) {
	after := `{"log":"after\n"` + jsonTT
	attrs := `{"log":"after\n","stream":"stdout","attrs":{"log":"v"},"time":"` + jsonT + `"}`
	withAttrs := jsonGood("after")
	withAttrs.Attrs = `{"log":"v"}`
	many := strings.Repeat(jsonEntryStart, 3*jsonMaxResync)
	cases := []jsonCase{
		{"twice", `{"log":"x{"log":"y` + after + "\n", []jsonParsed{jsonBad(`{"log":"x{"log":"y`, 0), jsonGood("after")}},
		{"many times", many + after + "\n", []jsonParsed{jsonBad(many, 0), jsonGood("after")}},
		{"the last is cut, too", `{"log":"x` + after + `{"log":"y` + "\n", []jsonParsed{jsonBad(`{"log":"x`, 0), jsonGood("after"), jsonBad(`{"log":"y`, 0)}},
		{"none is good", `{"log":"x{"log":"y` + "\n", []jsonParsed{jsonBad(`{"log":"x{"log":"y`, 0)}},
		{"garbage before", `garbage` + after + "\n", []jsonParsed{jsonBad(`garbage`, 0), jsonGood("after")}},
		{"a good one with a label named log", `{"log":"x` + attrs + "\n", []jsonParsed{jsonBad(`{"log":"x`, 0), withAttrs}},
		{"cut behind a label named log", `{"log":"x","attrs":{"log":"v"}` + after + "\n", []jsonParsed{jsonBad(`{"log":"x","attrs":{"log":"v"}`, 0), jsonGood("after")}},
		{"cut behind a label named log, alone", `{"log":"x","attrs":{"log":"v"}` + "\n", []jsonParsed{jsonBad(`{"log":"x","attrs":{"log":"v"}`, 0)}},
		{"only the newline is missing", `{"log":"a\n"` + jsonTT + `{"log":"b\n"` + jsonTT + after + "\n", []jsonParsed{jsonGood("a"), jsonGood("b"), jsonGood("after")}},
		{"only the newline is missing, then one is cut", `{"log":"a\n"` + jsonTT + `{"log":"b` + after + "\n", []jsonParsed{jsonGood("a"), jsonBad(`{"log":"b`, 0), jsonGood("after")}},
		{"at the end of a file", `{"log":"x` + after, []jsonParsed{jsonBad(`{"log":"x`, 0), jsonGood("after")}},
	}
	// An entry cut at each of its bytes.
	whole := `{"log":"a \\ \u003c\n","stream":"stdout","attrs":{"log":"a","z":"b"},"time":"` + jsonT + `"}`
	for i := 1; i < len(whole); i++ {
		cases = append(cases, jsonCase{fmt.Sprintf("cut at %d", i), whole[:i] + after + "\n", []jsonParsed{jsonBad(whole[:i], 0), jsonGood("after")}})
	}
	jsonRunCases(t, cases)
}

func TestParseDockerJSONLogLineNULs(t *testing.T) {
	good := `{"log":"a\n"` + jsonTT
	nuls := func(n int) string { return strings.Repeat("\x00", n) }
	with := func(n int) jsonParsed {
		p := jsonGood("a")
		p.NULs = n
		return p
	}
	only := func(n int) jsonParsed { return jsonParsed{NULs: n, Err: errJSONNULs} }
	jsonRunCases(t, []jsonCase{
		{"only", nuls(3) + "\n" + good + "\n", []jsonParsed{only(3), with(0)}},
		{"only, at the end of a file", nuls(5000), []jsonParsed{only(5000)}},
		{"before a good entry", nuls(5000) + good + "\n", []jsonParsed{with(5000)}},
		{"behind a good entry", good + nuls(7) + "\n", []jsonParsed{with(7)}},
		{"around a good entry", nuls(2) + good + nuls(3) + "\n" + good + "\n", []jsonParsed{with(5), with(0)}},
		{"around a bad one", nuls(2) + "x\x00y" + nuls(3) + "\n", []jsonParsed{jsonBad("x\x00y", 5)}},
		{"between good ones", good + nuls(9) + good + "\n", []jsonParsed{with(0), with(9)}},
		{"between a good one and a bad one", good + nuls(9) + "x\n", []jsonParsed{with(0), jsonBad("x", 9)}},
		{"between a cut one and a good one", `{"log":"x` + nuls(9) + good + "\n", []jsonParsed{jsonBad(`{"log":"x`, 9), with(0)}},
		{"a cut one, then good ones around NULs", `{"log":"x` + good + nuls(9) + good + "\n", []jsonParsed{jsonBad(`{"log":"x`+good, 9), with(0)}},
		{"behind a cut one", `{"log":"x` + nuls(9) + "\n", []jsonParsed{jsonBad(`{"log":"x`, 9)}},
		{"hole in a bad line", `{"log":"x` + nuls(jsonHole) + "rest\"}\n", []jsonParsed{jsonBad(`{"log":"x`, 0), jsonBad(`rest"}`, jsonHole)}},
		{"hole behind a good entry behind a cut one", `{"log":"x` + good + nuls(jsonHole) + good + "\n", []jsonParsed{jsonBad(`{"log":"x`, 0), with(0), with(jsonHole)}},
		{"less than a hole", "x" + nuls(jsonHole-1) + "y\n", []jsonParsed{jsonBad("x"+nuls(jsonHole-1)+"y", 0)}},
		{"before a newline alone", nuls(4) + "\n\n", []jsonParsed{only(4), jsonBad("", 0)}},
	})
}

// TestParseDockerJSONLogLineTime compares with time.Parse, on the fast and the
// careful way, with and without a cached minute.
func TestParseDockerJSONLogLineTime(t *testing.T) {
	times := []string{
		"2025-11-07T12:00:00Z", "2025-11-07T12:00:59Z", "2025-11-07T12:00:60Z", "2025-11-07T12:60:00Z", "2025-11-07T24:00:00Z",
		"2025-11-07T23:59:59.999999999Z", "2025-11-08T00:00:00Z", "2025-11-30T23:59:59.9Z", "2025-12-01T00:00:00.0Z", "2025-12-31T23:59:59.999999999Z",
		"2026-01-01T00:00:00.000000001Z", "2025-11-07T13:00:00Z", "2025-11-07T12:01:00Z", "2025-11-07T12:59:59.5Z",
		"2024-02-29T12:00:00.000000001Z", "2025-02-29T12:00:00.000000001Z", "2000-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2100-02-28T00:00:00Z",
		"2024-02-30T00:00:00Z", "2025-04-31T00:00:00Z", "2025-00-01T00:00:00Z", "2025-13-01T00:00:00Z", "2025-01-00T00:00:00Z", "2025-01-32T00:00:00Z",
		"1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000001Z", "1969-12-31T23:59:59.999999999Z", "1900-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
		"1677-09-21T00:12:43.145224191Z", "1677-09-21T00:12:43.145224192Z", "2262-04-11T23:47:16.854775807Z", "2262-04-11T23:47:16.854775808Z",
		"2261-12-31T23:59:59.999999999Z", "2262-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "10000-01-01T00:00:00Z",
		"2025-11-07T12:00:00.1234567891Z", "2025-11-07T12:00:00.12345678912345Z", "2025-11-07T12:00:00.Z", "2025-11-07T12:00:00,5Z",
		"2025-11-07T12:00:00+00:00", "2025-11-07T12:00:00.123456789+02:00", "2025-11-07T12:00:00.123456789-11:30", "2025-11-07T00:00:00.5+14:00",
		"2025-11-07T12:00:00.123456789", "2025-11-07T12:00:00.123456789z", "2025-11-07t12:00:00.123456789Z", "2025-11-07 12:00:00.123456789Z",
		"2025-11-07T12:00:00.123456789+0200", "2025-11-07T12:00:00.123456789+99:99", "2025-11-07T12:00:00.123456789Zx", " 2025-11-07T12:00:00.123456789Z",
		"2025-11-07T1:00:00Z", "2025-11-07T12:00:0Z", "2025-1-07T12:00:00Z", "2025-11-07T12:00", "2025-11-07", "", "x", "-025-11-07T12:00:00Z",
		"2025-11-07T12:00:0/Z", "2025-11-07T12:00:0:Z", "2025-11-07T12:00:/0Z", "2025-11-07T12:00:00.12/Z", "2025-11-07T12:00:00.12:Z",
		"2025-11-07T12:00:00.12345678:Z", "2025-11-07T12:00:00.12345678/Z", "2025-11-07T12:00:00.1234567Z9Z", "2025/11/07T12:00:00Z", "202\u00e4-11-07T12:00:00Z", "2025-11-07T12:00:00.1\u00e4Z",
		"2025-11-07T12:00:00." + strings.Repeat("1", 100) + "Z",
	}
	for i := range 10 {
		times = append(times, "2025-11-07T12:00:00."+"987654321"[:i]+"Z", "2025-11-07T12:00:00."+"000000000"[:i]+"Z",
			"2025-11-07T12:00:00."+"000000001"[9-i:]+"Z", "2025-11-07T12:00:59."+"999999999"[:i]+"Z")
	}
	for day := time.Date(1996, 1, 1, 23, 59, 59, 1, time.UTC); day.Year() < 2005; day = day.AddDate(0, 0, 1) {
		times = append(times, day.Format(time.RFC3339Nano), day.Add(time.Second).Format(time.RFC3339Nano))
	}
	check := func(l *DockerJSONLogLine, way, s, in string) {
		t.Helper()
		want := int64(0)
		// Longer texts are not looked at: no time that anyone writes.
		if p, err := time.Parse(time.RFC3339Nano, s); err == nil && len(s) <= 64 && p.Equal(time.Unix(0, p.UnixNano())) {
			want = p.UnixNano()
		}
		_, _, err := ParseDockerJSONLogLine(l, []byte(in), nil)
		if err != nil || l.Time != want || string(l.Message) != "a" {
			t.Errorf("%s, %q: time %d instead of %d, message %q, error %v", way, s, l.Time, want, l.Message, err)
		}
	}
	var cached DockerJSONLogLine
	for _, s := range times {
		line := `{"log":"a\n","stream":"stdout","time":"` + s + `"}` + "\n"
		check(&DockerJSONLogLine{}, "more lines follow", s, line+line)
		check(&DockerJSONLogLine{}, "last line", s, line)
		check(&DockerJSONLogLine{}, "careful", s, " "+line)
		check(&cached, "cached", s, line+line)
		check(&cached, "cached last line", s, line)
		check(&cached, "cached careful", s, " "+line)
	}
}

// TestJSONFastLineTakesDockersEntries makes sure that what Docker writes all the
// time does not go the careful way unnoticed.
func TestJSONFastLineTakesDockersEntries(t *testing.T) {
	withAndWithoutVectors(t, testJSONFastLineTakesDockersEntries)
}

func testJSONFastLineTakesDockersEntries(t *testing.T) {
	at := time.Date(2025, 11, 7, 12, 0, 0, 123456789, time.UTC)
	for _, line := range []string{
		string(jsonDockerEntry(nil, "\n", "stdout", "", at)),
		string(jsonDockerEntry(nil, "a <b> \"c\" \\ \t\x00 ä 😀 \xff \u2028\r\n", "stderr", "", at)),
		string(jsonDockerEntry(nil, strings.Repeat("x", 16384), "stdout", "", at)),
		string(jsonDockerEntry(nil, "x\n", "stdout", `{"tag":"a/b"}`, at)),
		string(jsonDockerEntry(nil, "x\n", "stdout", "", at.Truncate(100*time.Microsecond))),
		string(jsonDockerEntry(nil, "x\n", "stdout", "", at.Truncate(time.Second))) + "\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		var l DockerJSONLogLine
		if _, _, ok := jsonFastLine(&l, []byte(line), nil); !ok {
			t.Errorf("not fast: %q", line)
		}
	}
}

// TestParseDockerJSONLogLineArena tries each amount of room in the arena.
func TestParseDockerJSONLogLineArena(t *testing.T) {
	withAndWithoutVectors(t, testParseDockerJSONLogLineArena)
}

func testParseDockerJSONLogLineArena(t *testing.T) {
	const text = "a \"text\"\twith <some> escapes, {\"fifteen letters\":\"b\",\"cd\":\"ef\",\"\":\"\"}, ä, € and \u2028, longer than a few words"
	line := string(jsonDockerEntry(nil, text+"\n", "stdout", "", time.Unix(1e9, 1)))
	for _, in := range []string{line, " " + line} {
		for room := range 150 {
			arena := append(make([]byte, 0, 5+room), "first"...)
			l := &DockerJSONLogLine{}
			_, got, err := ParseDockerJSONLogLine(l, []byte(in), arena)
			if err != nil || string(got) != "first"+text {
				t.Fatalf("room of %d: %q, error %v", room, got, err)
			}
			if string(arena) != "first" {
				t.Fatalf("room of %d: the caller's text has become %q", room, arena)
			}
		}
	}
}

func TestParseDockerJSONLogLineAllocatesNothing(t *testing.T) {
	withAndWithoutVectors(t, testParseDockerJSONLogLineAllocatesNothing)
}

func testParseDockerJSONLogLineAllocatesNothing(t *testing.T) {
	at := time.Date(2025, 11, 7, 12, 0, 0, 123456789, time.UTC)
	entryOf := func(log, stream, attrs string) string { return string(jsonDockerEntry(nil, log, stream, attrs, at)) }
	for name, line := range map[string]string{
		"plain":         entryOf("plain text of some length, as it is written all day\n", "stdout", ""),
		"escapes":       entryOf("{\"a\":\"b\\c\",\"d\":\"<e>\"}\t\x01\u2028ä\n", "stderr", ""),
		"attrs":         entryOf("x\n", "stdout", `{"com.docker.compose.service":"web","tag":"a"}`),
		"no log":        entryOf("", "stdout", ""),
		"no stream":     entryOf("x\n", "", ""),
		"short time":    `{"log":"x\n","stream":"stdout","time":"2025-11-07T12:00:00.1Z"}` + "\n",
		"no time":       `{"log":"x\n","stream":"stdout"}` + "\n",
		"other order":   `{"time":"` + jsonT + `","attrs":{"a":[1,{}]},"log":"x\u003c\n"}` + "\n",
		"invalid UTF-8": "{\"log\":\"x\xff\\n\"" + jsonTT + "\n",
		"malformed":     "no JSON\n",
		"cut":           `{"log":"xxx` + entryOf("x\n", "stdout", ""),
		"NULs":          strings.Repeat("\x00", 100) + "\n",
		"empty":         "\n",
	} {
		var l DockerJSONLogLine
		data, arena := []byte(line), make([]byte, 0, 4096)
		parse := func() { _, arena, _ = ParseDockerJSONLogLine(&l, data, arena[:0]) }
		parse() // copies the attrs once
		if n := testing.AllocsPerRun(100, parse); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestParseDockerJSONLogLineGivesBackWhatDockerWrote encodes random files as
// Docker does, and expects each entry back.
func TestParseDockerJSONLogLineGivesBackWhatDockerWrote(t *testing.T) {
	text := rapid.OneOf(
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.StringMatching(`[ -~]{0,100}`),
		rapid.Map(rapid.SliceOf(rapid.SampledFrom([]string{"\\", "\"", "\n", "\r", "\t", "\x00", "<", "&", "a", "abcdefg", "12345678", "ä", "€", "😀", "\u2028", "\xff", "\xe2\x82", "u003c", `{"log":"`})),
			func(s []string) string { return strings.Join(s, "") }),
	)
	attrs := rapid.SampledFrom([]string{"", "", `{"a":"b"}`, `{"log":"x","z":"{}"}`})
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		var want []jsonParsed
		for range rapid.IntRange(1, 8).Draw(t, "entries") {
			log := text.Draw(t, "text")
			if rapid.Bool().Draw(t, "end") {
				log += "\n"
			}
			stream := rapid.SampledFrom([]entry.Stream{entry.Stdout, entry.Stderr}).Draw(t, "stream")
			at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "nanoseconds"))
			at = at.Truncate(rapid.SampledFrom([]time.Duration{1, 1000, 100000, time.Millisecond, time.Second}).Draw(t, "clock"))
			a := attrs.Draw(t, "attrs")
			data = jsonDockerEntry(data, log, stream.String(), a, at)
			message, ended := strings.CutSuffix(log, "\n")
			p := jsonParsed{Message: string([]rune(message)), Stream: stream, Fragment: !ended, Attrs: a}
			if at.UnixNano() != 0 {
				p.Time = at.UTC().Format(time.RFC3339Nano)
			}
			want = append(want, p)
		}
		got := jsonParseAll(t, &DockerJSONLogLine{}, data)
		if len(got) != len(want) {
			t.Fatalf("%d entries of %d from %q", len(got), len(want), data)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("entry %d\ngot  %+v\nwant %+v", i, got[i], want[i])
			}
		}
	})
}
