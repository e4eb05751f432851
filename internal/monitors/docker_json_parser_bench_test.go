package monitors

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// jsonBenchData makes about 4 MiB of entries, more than the caches near a core
// hold, of texts that next returns; every 16th goes to stderr.
func jsonBenchData(attrs string, next func(r *rand.Rand) string) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2025, 11, 7, 12, 0, 0, 123456789, time.UTC)
	var data []byte
	for i := 0; len(data) < 4<<20; i++ {
		stream := "stdout"
		if i%16 == 15 {
			stream = "stderr"
		}
		at = at.Add(time.Duration(r.IntN(2e6)))
		data = jsonDockerEntry(data, next(r), stream, attrs, at)
	}
	return data
}

func jsonBenchAccess(r *rand.Rand) string {
	return fmt.Sprintf("10.%d.%d.%d - - [07/Nov/2025:12:00:%02d +0000] \"GET /api/v1/items/%d?page=%d HTTP/1.1\" %d %d \"https://example.org/list\" \"Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0\"\n",
		r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(60), r.IntN(1e6), r.IntN(50), 200+r.IntN(4)*100, r.IntN(1e5))
}

func jsonBenchApp(r *rand.Rand) string {
	return fmt.Sprintf("{\"level\":\"info\",\"ts\":\"2025-11-07T12:00:%02d.%03dZ\",\"logger\":\"http\",\"msg\":\"request <done>\",\"method\":\"POST\",\"path\":\"/v1/orders/%d\",\"status\":%d,\"user\":{\"id\":%d,\"name\":\"user-%d\"},\"tags\":[\"a\",\"b\"]}\n",
		r.IntN(60), r.IntN(1000), r.IntN(1e7), 200+r.IntN(4), r.IntN(1e6), r.IntN(1000))
}

func jsonBenchShort(r *rand.Rand) string { return fmt.Sprintf("tick %d\n", r.IntN(1e6)) }

func jsonBenchStack(r *rand.Rand) string {
	return fmt.Sprintf("\tat org.example.service.%s.handle(%s.java:%d) ~[app.jar:1.%d]\n",
		strings.Repeat("module.", 1+r.IntN(4)), strings.Repeat("Handler", 1+r.IntN(2)), r.IntN(900), r.IntN(30))
}

func jsonBenchCyrillic(r *rand.Rand) string {
	return fmt.Sprintf("Пользователь %d вошёл в систему, адрес 10.0.0.%d, язык русский — 日本語\n", r.IntN(1e6), r.IntN(256))
}

func jsonBenchColored(r *rand.Rand) string {
	return fmt.Sprintf("\x1b[2m2025-11-07T12:00:00.%06dZ\x1b[0m \x1b[32m INFO\x1b[0m \x1b[1mrequest\x1b[0m{\x1b[3mid\x1b[0m=%d}: \x1b[2mshop::orders\x1b[0m: done in %d ms\n",
		r.IntN(1e6), r.IntN(1e6), r.IntN(1000))
}

func jsonBenchMarkup(r *rand.Rand) string {
	return fmt.Sprintf("<order id=\"%d\"><state>%s</state><total currency=\"EUR\">%d</total></order> from /orders?page=%d&sort=-created&limit=%d\n",
		r.IntN(1e6), []string{"new", "paid & sent", "returned"}[r.IntN(3)], r.IntN(1e5), r.IntN(50), r.IntN(100))
}

func jsonBenchFragment(r *rand.Rand) string {
	return strings.Repeat(fmt.Sprintf("%08d abcdefg ", r.IntN(1e8)), 1024)[:16384]
}

func jsonBenchMixed(r *rand.Rand) string {
	switch n := r.IntN(100); {
	case n < 40:
		return jsonBenchAccess(r)
	case n < 65:
		return jsonBenchApp(r)
	case n < 75:
		return jsonBenchShort(r)
	case n < 90:
		return jsonBenchStack(r)
	case n < 99:
		return jsonBenchCyrillic(r)
	default:
		return jsonBenchFragment(r)[:r.IntN(4096)] + "\n"
	}
}

// BenchmarkParseDockerJSONLogLine: MB/s are bytes of the file.
func BenchmarkParseDockerJSONLogLine(b *testing.B) {
	const attrs = `{"com.docker.compose.project":"shop","com.docker.compose.service":"web","tag":"web/1"}`
	for _, c := range []struct {
		name  string
		attrs string
		next  func(*rand.Rand) string
	}{
		{"access", "", jsonBenchAccess},
		{"access with attrs", attrs, jsonBenchAccess},
		{"app JSON", "", jsonBenchApp},
		{"short", "", jsonBenchShort},
		{"stack", "", jsonBenchStack},
		{"non-ASCII", "", jsonBenchCyrillic},
		{"not UTF-8", "", jsonBenchLatin1},
		{"colored", "", jsonBenchColored},
		{"markup", "", jsonBenchMarkup},
		{"fragments", "", jsonBenchFragment},
		{"mixed", "", jsonBenchMixed},
	} {
		b.Run(c.name, func(b *testing.B) {
			jsonBench(b, jsonBenchData(c.attrs, c.next))
		})
	}
}

// BenchmarkJSONCarefulLine is the way of lines that are not quite Docker's.
func BenchmarkJSONCarefulLine(b *testing.B) {
	data := jsonBenchData("", jsonBenchMixed)
	jsonBench(b, []byte(strings.ReplaceAll(string(data), `{"log":"`, `{"log": "`)))
}

func jsonBench(b *testing.B, data []byte) {
	var l DockerJSONLogLine
	arena := make([]byte, 0, 1<<20)
	lines := 0
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		lines = 0
		for rest := data; len(rest) > 0; lines++ {
			if len(arena) > 1<<19 { // a batch is full
				arena = arena[:0]
			}
			n, grown, err := ParseDockerJSONLogLine(&l, rest, arena)
			if err != nil {
				b.Fatal(err)
			}
			arena, rest = grown, rest[n:]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(lines), "ns/line")
}

// jsonBenchLatin1 is of a program that writes ISO 8859-1: Docker writes \ufffd for each
// byte that is not UTF-8.
func jsonBenchLatin1(r *rand.Rand) string {
	return fmt.Sprintf("Auftrag %d f\xfcr M\xfcller, Stra\xdfe %d, gepr\xfcft und \xfcbergeben\n", r.IntN(1e6), r.IntN(256))
}
