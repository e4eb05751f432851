package sink

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/grafana/loki/pkg/push"

	"github.com/log-capturer/log_capturer/bench/internal/genlog"
	"github.com/log-capturer/log_capturer/bench/internal/measure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines gives the texts of lines of container 0.
func lines(numbers ...int) (out [][]byte) {
	g := genlog.New(1)
	for _, n := range numbers {
		out = append(out, bytes.Clone(g.Text(0, n)))
	}
	return out
}

func TestCheckerCanFail(t *testing.T) {
	altered := lines(4)[0]
	altered[len(altered)-1] ^= 1
	long := lines(genlog.LongEvery - 1)[0]
	for _, c := range []struct {
		name    string
		lines   [][]byte
		want    Tally
		written int
		missing int
	}{
		{"all", lines(0, 1, 2, 3), Tally{Lines: 4, Containers: 1}, 4, 0},
		{"nothing", nil, Tally{}, 4, 4},
		{"missing", lines(0, 1, 3), Tally{Lines: 3, Containers: 1}, 5, 2},
		{"doubled", lines(0, 1, 1, 2, 0), Tally{Lines: 3, Doubled: 2, Containers: 1}, 3, 0},
		{"out of order", lines(0, 1, 3, 2), Tally{Lines: 4, Disordered: 1, Containers: 1}, 4, 0},
		// 10 and 20 are of the other stream.
		{"streams have no order", lines(1, 20, 2, 30, 3), Tally{Lines: 5, Containers: 1}, 0, 0},
		{"order of the other stream", lines(1, 20, 2, 10), Tally{Lines: 4, Disordered: 1, Containers: 1}, 0, 0},
		{"altered", append(lines(0), altered), Tally{Lines: 1, Altered: 1, Containers: 1}, 1, 0},
		{"foreign", [][]byte{[]byte("what is this"), {}}, Tally{Foreign: 2}, 0, 0},
		{"long in pieces", [][]byte{long[:16384], long[16384:]}, Tally{Lines: 1, Partial: 1, Pieces: 1, Containers: 1}, 0, 0},
		{"long joined", [][]byte{long}, Tally{Lines: 1, Containers: 1}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ch checker
			for _, l := range c.lines {
				ch.add(l)
			}
			if ch.tally != c.want {
				t.Errorf("%+v\nnot\n%+v", ch.tally, c.want)
			}
			if got := ch.missing([]int{c.written}); got != c.missing {
				t.Errorf("%d missing, not %d", got, c.missing)
			}
			if got := ch.missing([]int{c.written, 3}); got != c.missing+3 {
				t.Errorf("of a container that never came 3 are missing: %d", got)
			}
		})
	}
}

// at is the time of all lines of the tests below.
var at = time.Unix(1_700_000_000, 123_456_789)

func lokiBody(t testing.TB, texts [][]byte) []byte {
	t.Helper()
	var r push.PushRequest
	s := push.Stream{Labels: `{a="b"}`}
	for _, l := range texts {
		s.Entries = append(s.Entries, push.Entry{
			Timestamp: at, Line: string(l), StructuredMetadata: push.LabelsAdapter{{Name: "x", Value: "y"}},
		})
	}
	r.Streams = append(r.Streams, s)
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, b)
}

func nativeBody(t testing.TB, texts [][]byte) []byte {
	t.Helper()
	var b []byte
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	for _, l := range texts {
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
		text("tags")
		b = binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
		b = binary.AppendUvarint(b, 2)
		text("stream")
		text("stdout")
		text("_msg")
		text(string(l))
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

func otlpBody(t testing.TB, texts [][]byte) []byte {
	t.Helper()
	message := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	var scope []byte
	for _, l := range texts {
		record := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), uint64(at.UnixNano()))
		record = append(record, message(5, message(1, l))...)
		scope = append(scope, message(2, record)...)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(message(1, message(2, scope))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestProtocols(t *testing.T) {
	for _, c := range []struct {
		protocol, encoding string
		body               func(testing.TB, [][]byte) []byte
	}{
		{protocolLoki, "", lokiBody}, {protocolNative, "zstd", nativeBody}, {protocolOTLP, "gzip", otlpBody},
	} {
		t.Run(c.protocol, func(t *testing.T) {
			d, err := newDecoder()
			if err != nil {
				t.Fatal(err)
			}
			defer d.zstd.Close()
			want := lines(0, 1, 2)
			body := c.body(t, want)
			for range 2 { // what is reused must not be left over
				var got [][]byte
				if err := d.each(&request{protocol: c.protocol, encoding: c.encoding, body: body}, func(nanos int64, line []byte) {
					if nanos != at.UnixNano() {
						t.Errorf("time %d", nanos)
					}
					got = append(got, bytes.Clone(line))
				}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(bytes.Join(got, []byte("\n")), bytes.Join(want, []byte("\n"))) {
					t.Fatalf("%q\nnot\n%q", got, want)
				}
			}
			if err := d.each(&request{protocol: c.protocol, encoding: c.encoding, body: body[:len(body)/2]}, func(int64, []byte) {}); err == nil {
				t.Error("half a request is not noticed")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range [][]byte{lokiBody(f, lines(1)), nativeBody(f, lines(1)), otlpBody(f, lines(1)), nil} {
		for kind := range 4 {
			f.Add(kind, b)
		}
	}
	d, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(d.zstd.Close)
	f.Fuzz(func(_ *testing.T, kind int, body []byte) {
		kinds := []request{{protocol: protocolLoki}, {protocol: protocolNative}, {protocol: protocolOTLP}, {protocol: protocolNative, encoding: "zstd"}}
		r := kinds[uint(kind)%uint(len(kinds))]
		r.body = body
		_ = d.each(&r, func(int64, []byte) {}) // must not panic
	})
}

func post(t *testing.T, s *Server, path string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
	return w
}

func TestServerChecksWhatIsPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		done := make(chan error)
		ctx := t.Context()
		go func() { done <- s.Run(ctx) }()
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})

		post(t, s, "/hold", nil)
		s.measure(at)
		if w := post(t, s, protocolLoki, lokiBody(t, lines(0, 1, 1))); w.Code != http.StatusNoContent {
			t.Fatalf("answered %d", w.Code)
		}
		synctest.Wait()
		if st := s.Stats(false); st.Requests != 1 || st.Queued != 1 || st.Lines != 0 || st.Bytes == 0 {
			t.Errorf("held: %+v", st)
		}
		post(t, s, "/release", nil)
		synctest.Wait()
		want := Tally{Lines: 2, Doubled: 1, Containers: 1}
		st := s.Stats(true)
		if st.Tally != want || st.Queued != 0 || st.Errors != 0 {
			t.Errorf("released: %+v", st)
		}
		if late := time.Since(at); st.Latency != (measure.Latency{Count: 2, P50: late, P95: late, P99: late, Max: late}) {
			t.Errorf("latencies %+v, not %v", st.Latency, late)
		}
		s.measure(at.Add(time.Nanosecond)) // lines are older
		post(t, s, protocolLoki, lokiBody(t, lines(2)))
		post(t, s, protocolLoki, []byte("no snappy"))
		synctest.Wait()
		if st := s.Stats(true); st.Latency.Count != 0 || st.Errors != 1 || st.Error == "" || st.Lines != 3 {
			t.Errorf("after a measure and a bad request: %+v", st)
		}
		var missing int
		if err := json.Unmarshal(post(t, s, "/missing", []byte("[5]")).Body.Bytes(), &missing); err != nil || missing != 2 {
			t.Errorf("%d missing, %v", missing, err)
		}
	})
}
