package monitors

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// jsonOracle is what encoding/json makes of a line: whether it is an entry, and
// which. known is false where the parser differs on purpose: keys that differ in
// case only are other keys here, and nesting is limited.
func jsonOracle(line []byte) (want jsonParsed, is, known bool) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(line, &keys) != nil || keys == nil {
		return want, false, true
	}
	for key := range keys {
		for _, name := range []string{"log", "stream", "time", "attrs"} {
			if key != name && strings.EqualFold(key, name) {
				return want, false, false
			}
		}
	}
	if bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{")) > jsonMaxDepth {
		return want, false, false
	}
	var fields struct {
		Log    *string         `json:"log"`
		Stream *string         `json:"stream"`
		Time   *string         `json:"time"`
		Attrs  json.RawMessage `json:"attrs"`
	}
	if json.Unmarshal(line, &fields) != nil {
		return want, false, true
	}
	want.Fragment = true
	if fields.Log != nil {
		message, ended := strings.CutSuffix(*fields.Log, "\n")
		want.Message, want.Fragment = message, !ended
	}
	if fields.Stream != nil && *fields.Stream == "stderr" {
		want.Stream = entry.Stderr
	}
	timed := false
	if fields.Time != nil && len(*fields.Time) <= 64 {
		at, err := time.Parse(time.RFC3339Nano, *fields.Time)
		if timed = err == nil && at.Equal(time.Unix(0, at.UnixNano())); timed && at.UnixNano() != 0 {
			want.Time = time.Unix(0, at.UnixNano()).UTC().Format(time.RFC3339Nano)
		}
	}
	if bytes.HasPrefix(fields.Attrs, []byte("{")) {
		want.Attrs = string(fields.Attrs)
	}
	return want, fields.Log != nil || fields.Stream != nil || timed, true
}

func FuzzParseDockerJSONLogLine(f *testing.F) {
	at := time.Date(2025, 11, 7, 12, 0, 0, 123456789, time.UTC)
	good := string(jsonDockerEntry(nil, "a \"text\"\twith <some> \xff ä € \u2028 escapes\r\n", "stderr", `{"log":"a","tag":"b"}`, at))
	for _, seed := range []string{
		`{"log":"test message\n","stream":"stdout","time":"2025-11-07T12:00:00.123Z"}` + "\n",
		good, good + good, good[:len(good)-1] + good, good[:30] + good, "\x00\x00" + good, good[:len(good)-1] + "\x00\x00\n" + good,
		good[:40] + strings.Repeat("\x00", 600) + good[40:],
		`{"stream":"stderr","time":"` + jsonT + `"}`, `{"time":"2025-11-07T12:00:00+01:00","log":null}`, "\n", "\x00\n", "{}",
		`{"log":"\ud83d\ude00\ud83d\n","stream":"stdout","time":"` + jsonT + `"}` + "\n",
		`{"log":"a","x":[1,-0.5e+3,{"b":[true,false,null]},{},[]],"lo\u0067":"b","stream":"stdin"}`,
		"{\"log\":\"\xe2\x82\xac\xe2\x82\\n\"" + jsonTT + "\n",
		`{"log":"` + strings.Repeat(`{"log":"`, 20) + `a"` + jsonTT + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// What holds for each call, and that the end is reached.
		var cached DockerJSONLogLine
		all := jsonParseAll(t, &cached, data)
		if len(all) == 0 {
			return
		}
		// The cache, the fast way and what comes after the line change nothing.
		if again := jsonParseAll(t, &cached, data); again[0] != all[0] {
			t.Fatalf("with a cache: %+v instead of %+v", again[0], all[0])
		}
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line = data[:i]
		}
		if alone := jsonParseAll(t, &DockerJSONLogLine{}, line); len(alone) > 0 && alone[0] != all[0] {
			t.Fatalf("without the newline: %+v instead of %+v", alone[0], all[0])
		}
		var l DockerJSONLogLine
		n, _, err := jsonCarefulLine(&l, data, nil)
		if fn, _, ferr := ParseDockerJSONLogLine(&DockerJSONLogLine{}, data, nil); fn != n || ferr != err { //nolint:errorlint // the very same error is meant
			t.Fatalf("fast: %d, %v; careful: %d, %v", fn, ferr, n, err)
		}
		if string(l.Message) != all[0].Message || l.Stream != all[0].Stream || l.Fragment != all[0].Fragment || string(l.Attrs) != all[0].Attrs {
			t.Fatalf("fast: %+v; careful: %+v", all[0], l)
		}

		want, is, known := jsonOracle(line)
		switch {
		case !known:
		case is:
			if all[0] != want {
				t.Fatalf("of %q\ngot  %+v\nwant %+v", line, all[0], want)
			}
		case err == nil:
			// Not an entry as a whole: only for what stands around one.
			got := all[0]
			got.NULs = 0
			want, is, known := jsonOracle(bytes.Trim(data[:n], "\x00\n"))
			if known && (!is || got != want) {
				t.Fatalf("of %q\ngot  %+v\nwant %+v", data[:n], got, want)
			}
			rest := bytes.TrimPrefix(line[min(n, len(line)):], []byte("\n"))
			if l.NULs == 0 && !jsonMayFollow(rest) || l.NULs == 0 && len(rest) == 0 {
				t.Fatalf("%q was taken for an entry", line)
			}
		}
	})
}
