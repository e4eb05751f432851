package loki

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	now := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
	at := func(s string) int64 {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixNano()
	}
	behind := "entry with timestamp 2025-11-07 10:00:00.5 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2025-11-07T10:00:00Z, oldest acceptable timestamp is: 2025-11-07T10:59:59Z',\nuser 'x', total ignored: 3 out of 7 for stream: {a=\"b, c}\", d=\"e\"}"
	tests := []struct {
		name   string
		status int
		body   string
		kind   kind
		check  func(verdict) bool
	}{
		{name: "204", status: 204, kind: kindAccepted},
		{name: "200 empty", status: 200, kind: kindAccepted},
		{name: "200 with a page", status: 200, body: "<html>log in", kind: kindConfig},
		{name: "201", status: 201, kind: kindConfig},
		{name: "260", status: 260, body: "ingestion blocked", kind: kindConfig},
		{name: "301", status: 301, kind: kindConfig},
		{name: "307", status: 307, kind: kindConfig},
		{name: "401", status: 401, body: "no org id", kind: kindConfig},
		{name: "403", status: 403, kind: kindConfig},
		{name: "404", status: 404, body: "404 page not found", kind: kindConfig},
		{name: "405", status: 405, kind: kindConfig},
		{name: "408", status: 408, kind: kindRetry},
		{name: "413", status: 413, kind: kindSplit},
		{name: "422", status: 422, kind: kindConfig},
		{name: "500", status: 500, body: "at least 2 live replicas required", kind: kindRetry},
		{name: "500 too large", status: 500, body: "rpc error: code = ResourceExhausted desc = trying to send message larger than max (5 vs. 4)", kind: kindSplit},
		{name: "502", status: 502, kind: kindRetry},
		{name: "503 naming it", status: 503, body: "ResourceExhausted", kind: kindRetry},
		{name: "504", status: 504, kind: kindRetry},
		{name: "429 tenant", status: 429, body: "Ingestion rate limit exceeded for user x (limit: 4194304 bytes/sec) while attempting to ingest '1' lines", kind: kindPause},
		{name: "429 of a proxy", status: 429, body: "slow down", kind: kindPause},
		{name: "429 stream rate", status: 429, kind: kindStream,
			body:  "entry with timestamp 2025-11-07 ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{a=\"b\"}' totaling 10B, consider splitting',\nuser 'x', total ignored: 1 out of 1 for stream: {a=\"b\"}",
			check: func(v verdict) bool { return v.stream == `{a="b"}` }},
		{name: "429 stream limit", status: 429, kind: kindStream,
			body:  "Maximum active stream limit exceeded when trying to create stream {a=\"b\"}, reduce the number of active streams, user: 'x'",
			check: func(v verdict) bool { return v.stream == `{a="b"}` }},
		{name: "429 tenant, a label that lies", status: 429, kind: kindPause,
			body: "Ingestion rate limit exceeded for user {x=\"per stream rate limit\"}"},
		{name: "400 too old", status: 400, kind: kindLines,
			body: `entry for stream '{a="b"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2025-10-31T12:00:00Z`,
			check: func(v verdict) bool {
				return v.tooOld.n == 1 && v.tooOld.at == at("2025-10-31T12:00:00Z") && v.tooNew.n == 0 && v.behind.n == 0 && v.tooLong.n == 0
			}},
		{name: "400 too old, other zone", status: 400, kind: kindLines,
			body:  `entry for stream '{a="b"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2025-10-31T14:00:00+02:00`,
			check: func(v verdict) bool { return v.tooOld.at == at("2025-10-31T12:00:00Z") }},
		{name: "400 too old without the limit", status: 400, kind: kindLines,
			body:  `entry for stream '{a="b"}' has timestamp too old: 2020-01-01T00:00:00Z`,
			check: func(v verdict) bool { return v.tooOld.n == 1 && v.tooOld.at == at("2020-01-01T00:00:00Z") }},
		{name: "400 several reasons", status: 400, kind: kindLines,
			body: `12 errors like: entry for stream '{a="b"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2025-10-31T12:00:00Z; ` +
				`2 errors like: entry for stream '{a="b"}' has timestamp too old: 2020-01-01T00:00:01Z, oldest acceptable timestamp is: 2025-10-31T12:00:00Z; ` +
				`3 errors like: entry for stream '{a="b"}' has timestamp too new: 2026-01-01T00:00:00Z; ` +
				`1 errors like: entry for stream '{a="b"}' has timestamp too new: 2025-12-01T00:00:00Z; ` +
				`5 errors like: Max entry size '262144' bytes exceeded for stream '{a="b"}' while adding an entry with length '300000' bytes; ` +
				`1 errors like: entry for stream '{c="d"}' has 16 label names; limit 15; 1 errors like: stream '{e="f"}' has label name too long: 'xxxx'`,
			check: func(v verdict) bool {
				return v.tooOld.n == 14 && v.tooNew.n == 4 && v.tooNew.at == at("2025-12-01T00:00:00Z") &&
					v.tooLong.n == 5 && v.tooLong.max == 262144 && strings.Join(v.labels, "|") == `{c="d"}|{e="f"}` && !v.noMetadata
			}},
		{name: "400 too far behind", status: 400, body: behind, kind: kindLines,
			check: func(v verdict) bool {
				return v.behind.n == 3 && v.behind.total == 7 && v.behind.at == at("2025-11-07T10:59:59Z") &&
					v.behind.stream == `{a="b, c}", d="e"}` && !v.behind.mixed && v.tooOld.n == 0
			}},
		{name: "400 too far behind and too fast", status: 400, kind: kindLines,
			body:  "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) ...',\n" + behind,
			check: func(v verdict) bool { return v.behind.mixed }},
		{name: "400 too far behind over gRPC", status: 400, body: "rpc error: code = Code(400) desc = " + behind, kind: kindLines},
		{name: "400 line too long", status: 400, kind: kindLines,
			body:  `Max entry size '10' bytes exceeded for stream '{a="b"}' while adding an entry with length '11' bytes`,
			check: func(v verdict) bool { return v.tooLong.n == 1 && v.tooLong.max == 10 }},
		{name: "400 label value too long", status: 400, kind: kindLines,
			body:  `stream '{a="b"}' has label value too long: 'b'`,
			check: func(v verdict) bool { return len(v.labels) == 1 && v.labels[0] == `{a="b"}` }},
		{name: "400 labels unparsable", status: 400, kind: kindLines,
			body:  `Error parsing labels '{a-b="c"}' with error: 1:3: parse error`,
			check: func(v verdict) bool { return len(v.labels) == 1 && v.labels[0] == `{a-b="c"}` }},
		{name: "400 labels missing", status: 400, kind: kindLines,
			body:  `missing required labels team for user x for stream {a="b"}`,
			check: func(v verdict) bool { return len(v.labels) == 1 && v.labels[0] == `{a="b"}` }},
		{name: "400 structured metadata", status: 400, kind: kindLines,
			body:  "stream '{a=\"b\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata`",
			check: func(v verdict) bool { return v.noMetadata && len(v.bulky) == 0 }},
		{name: "400 structured metadata too large", status: 400, kind: kindLines,
			body:  "stream '{a=\"b\"}' has structured metadata too large: '70000' bytes, limit: '65536' bytes.",
			check: func(v verdict) bool { return !v.noMetadata && len(v.bulky) == 1 && v.bulky[0] == `{a="b"}` }},
		{name: "400 unknown", status: 400, body: "no", kind: kindUnknown},
		{name: "400 empty", status: 400, kind: kindUnknown},
		{name: "400 out of order", status: 400, body: "entry with timestamp x ignored, reason: 'entry out of order',\nuser 'x', total ignored: 1 out of 1 for stream: {}", kind: kindUnknown},
		{name: "400 a label that lies", status: 400, kind: kindUnknown,
			body: `odd stream {a="has timestamp too old: 2020-01-01T00:00:00Z, \"oldest acceptable timestamp is: 2030-01-01T00:00:00Z"}`},
		{name: "400 a limit that cannot be read", status: 400, kind: kindUnknown, body: "has timestamp too old: yesterday"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := classify(tt.status, http.Header{}, []byte(tt.body), false, now)
			if v.kind != tt.kind {
				t.Fatalf("kind %d, want %d (%s)", v.kind, tt.kind, v.text)
			}
			if tt.check != nil && !tt.check(v) {
				t.Fatalf("verdict %+v", v)
			}
			if (v.kind == kindAccepted) != (v.reason == "") {
				t.Fatalf("reason %q for kind %d", v.reason, v.kind)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 11, 7, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-3": 0, "60": time.Minute, "61": time.Minute, "99999999999999": time.Minute,
		"soon":                          0,
		"Fri, 07 Nov 2025 12:00:30 GMT": 30 * time.Second,
		"Fri, 07 Nov 2025 11:00:00 GMT": 0,
		"Fri, 07 Nov 2025 14:00:00 GMT": time.Minute,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// FuzzClassify: no text of a store makes us fail, and no text is taken for an
// acceptance.
func FuzzClassify(f *testing.F) {
	f.Add(400, `2 errors like: entry for stream '{a="b"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2025-10-31T12:00:00Z; x`, "3")
	f.Add(400, "total ignored: 3 out of 7 for stream: {a=\"b\\", "")
	f.Add(429, "per stream rate limit for stream: {", "Fri, 07 Nov 2025 12:00:30 GMT")
	f.Fuzz(func(t *testing.T, status int, body, after string) {
		v := classify(status, http.Header{"Retry-After": {after}}, []byte(body), false, time.Now())
		if v.kind == kindAccepted && status != 204 && (status != 200 || body != "") {
			t.Fatalf("%d %q was taken for an acceptance", status, body)
		}
		if v.after < 0 || v.after > maxRetryAfter {
			t.Fatalf("Retry-After %s", v.after)
		}
		if v.kind == kindLines && v.tooOld.n+v.tooNew.n+v.tooLong.n+v.behind.n+len(v.labels)+len(v.bulky) == 0 && !v.noMetadata {
			t.Fatal("no limit in the verdict")
		}
		parseLabels(v.stream)
		parseLabels(body)
	})
}
