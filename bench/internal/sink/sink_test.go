package sink

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
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

// pusher gives a function that pushes over one connection, and gives the answer's status.
func pusher(t *testing.T, s *Server) func(path string, body []byte) int {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); s.serve(t.Context(), theirs); _ = theirs.Close() }()
	t.Cleanup(func() { _ = ours.Close(); <-done })
	answers := bufio.NewReader(ours)
	return func(path string, body []byte) int {
		r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
		if err := r.Write(ours); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, r)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
}

func TestServerChecksWhatIsPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(0)
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
		push := pusher(t, s)
		if status := push(protocolLoki, lokiBody(t, lines(0, 1, 1))); status != http.StatusNoContent {
			t.Fatalf("answered %d", status)
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
		push(protocolLoki, lokiBody(t, lines(2)))
		push(protocolLoki, []byte("no snappy"))
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

// TestPushesOverTCP sends what agents send, by a client of theirs.
func TestPushesOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(0)
	post(t, s, "/hold?room=9000000", nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.ServePushes(ctx, l) }()
	client := &http.Client{Transport: &http.Transport{}}
	url := "http://" + l.Addr().String()
	large := bytes.Repeat([]byte("many bytes"), 800_000) // more than fits the kernel's buffers, and than is left of the room for the second
	var want [][]byte
	for _, c := range []struct {
		path, encoding string
		body           io.Reader
		want           []byte
		status         int
	}{
		{protocolLoki, "", bytes.NewReader(large), large, http.StatusNoContent},
		{protocolNative + "?version=v1", "zstd", bytes.NewReader(large[1:]), large[1:], http.StatusOK},
		{protocolLoki, "", bytes.NewReader([]byte("short")), []byte("short"), http.StatusNoContent},
		{protocolOTLP, "gzip", io.MultiReader(bytes.NewReader(large)), large, http.StatusOK}, // in chunks
		{protocolLoki, "", http.NoBody, []byte{}, http.StatusNoContent},
		{"/elsewhere", "", bytes.NewReader([]byte("lost")), nil, http.StatusNotFound},
		{protocolLoki, "", bytes.NewReader([]byte("anew")), []byte("anew"), http.StatusNoContent},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+c.path, c.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Encoding", c.encoding)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: answered %d", c.path, resp.StatusCode)
		}
		if c.want == nil {
			continue
		}
		want = append(want, c.want)
		st := s.Stats(false)
		if st.Requests != len(want) || st.Queued != len(want) {
			t.Fatalf("%s: %+v", c.path, st)
		}
		if got := s.queue[len(want)-1]; got.encoding != c.encoding {
			t.Errorf("%s: encoding %q", c.path, got.encoding)
		}
	}
	for i, r := range s.queue {
		if !bytes.Equal(r.body, want[i]) {
			t.Errorf("request %d is not what was sent: %d bytes, not %d", i, len(r.body), len(want[i]))
		}
	}
	cancel() // while the client keeps a connection
	if err := <-done; err != nil {
		t.Error(err)
	}
	client.CloseIdleConnections()
}

func TestHoldWithoutSense(t *testing.T) {
	for _, room := range []string{"much", "-1"} {
		if w := post(t, New(0), "/hold?room="+room, nil); w.Code != http.StatusBadRequest {
			t.Errorf("room %s: answered %d", room, w.Code)
		}
	}
}
