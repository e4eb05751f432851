// Package genlog makes the logs of the benchmark: what Docker's json-file driver
// would have written of containers with a usual mixture of lines. A line is a
// function of the seed, its container and its number, and each can be told from
// all others after the trip.
//
//	Generator.Append --> <id>-json.log --> an agent --> Parse, Continuation <-- sink
package genlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	// pieceBytes is how much of a line Docker puts into one entry.
	pieceBytes = 16384
	// LongEvery is how rare lines are that are longer than that.
	LongEvery = 2000

	containerDigits, numberDigits, sumDigits = 5, 9, 8
	// prefixBytes is the length of "#00012.000000345.1a2b3c4d ".
	prefixBytes = 1 + containerDigits + 1 + numberDigits + 1 + sumDigits + 1
	// continuationMark begins each piece of a long line but the first.
	continuationMark = '+'
)

// MaxContainers is how many containers can be told apart.
const MaxContainers = 100_000

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Stderr reports whether a line goes to standard error.
func Stderr(number int) bool { return number%10 == 0 }

// Long reports whether a line is longer than one entry of Docker's.
func Long(number int) bool { return number%LongEvery == LongEvery-1 }

// ContainerID gives the ID of a container, as Docker's look.
func ContainerID(container int) string {
	sum := sha256.Sum256([]byte(ContainerName(container)))
	return hex.EncodeToString(sum[:])
}

// ContainerName gives its name.
func ContainerName(container int) string { return fmt.Sprintf("bench-%05d", container) }

// LogPath gives where the engine with a root directory keeps a container's log.
func LogPath(root string, container int) string {
	id := ContainerID(container)
	return filepath.Join(root, "containers", id, id+"-json.log")
}

// Identity is what a line says of itself.
type Identity struct {
	Container, Number int
	// Whole: the text is what it was when it was made.
	Whole bool
}

// Parse reads the identity of a delivered line; false if it has none. A line end
// that the agent has left does not matter.
func Parse(line []byte) (Identity, bool) {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if len(line) < prefixBytes || line[0] != '#' || line[1+containerDigits] != '.' ||
		line[2+containerDigits+numberDigits] != '.' || line[prefixBytes-1] != ' ' {
		return Identity{}, false
	}
	c, ok1 := decimal(line[1 : 1+containerDigits])
	n, ok2 := decimal(line[2+containerDigits : 2+containerDigits+numberDigits])
	var sum [sumDigits / 2]byte
	_, err := hex.Decode(sum[:], line[prefixBytes-1-sumDigits:prefixBytes-1])
	if !ok1 || !ok2 || err != nil {
		return Identity{}, false
	}
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	return Identity{Container: c, Number: n, Whole: checksum(line) == want}, true
}

// Continuation reports whether a text is a further piece of a long line, which an
// agent that does not join them ships by itself.
func Continuation(line []byte) bool { return len(line) > 0 && line[0] == continuationMark }

// checksum covers a line's text and its identity, without the sum itself.
func checksum(line []byte) uint32 {
	head := crc32.Update(0, castagnoli, line[:prefixBytes-1-sumDigits])
	return crc32.Update(head, castagnoli, line[prefixBytes:])
}

func decimal(digits []byte) (n int, ok bool) {
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int(d-'0')
	}
	return n, true
}

// Generator makes lines. It is not safe for concurrent use.
type Generator struct {
	seed uint64
	rnd  random
	text []byte // reused
}

// New gives the generator of a seed.
func New(seed uint64) *Generator { return &Generator{seed: seed} }

// Text gives the line as the container writes it, without the line end; valid until
// the next call. Container and number must be below MaxContainers and 1e9.
func (g *Generator) Text(container, number int) []byte {
	g.rnd = random(g.seed*0x9e3779b97f4a7c15 ^ uint64(container)<<40 ^ uint64(number))
	t := g.text[:0]
	t = append(t, '#')
	t = padded(t, container, containerDigits)
	t = append(t, '.')
	t = padded(t, number, numberDigits)
	t = append(t, ".00000000 "...)
	t = g.body(t, number)
	var sum [sumDigits / 2]byte
	s := checksum(t)
	sum[0], sum[1], sum[2], sum[3] = byte(s>>24), byte(s>>16), byte(s>>8), byte(s)
	hex.Encode(t[prefixBytes-1-sumDigits:], sum[:])
	g.text = t
	return t
}

// Append appends what Docker would write for a line at a time: one entry, or for a
// long line several.
func (g *Generator) Append(dst []byte, container, number int, at time.Time) []byte {
	text := g.Text(container, number)
	at = at.UTC()
	for {
		piece := text[:min(len(text), pieceBytes)]
		text = text[len(piece):]
		// Like Docker: a line of exactly one piece has its end in an entry of
		// its own.
		last := len(piece) < pieceBytes
		dst = append(dst, `{"log":"`...)
		dst = escape(dst, piece)
		if last {
			dst = append(dst, `\n`...)
		}
		dst = append(dst, `","stream":"`...)
		if Stderr(number) {
			dst = append(dst, "stderr"...)
		} else {
			dst = append(dst, "stdout"...)
		}
		dst = append(dst, `","time":"`...)
		dst = at.AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, "\"}\n"...)
		if last {
			return dst
		}
	}
}

func (g *Generator) body(t []byte, number int) []byte {
	if Long(number) {
		return g.long(t)
	}
	switch p := g.rnd.below(100); {
	case p < 35:
		return g.access(t)
	case p < 65:
		return g.application(t)
	case p < 80:
		return g.short(t)
	case p < 89:
		return g.trace(t)
	case p < 96:
		return g.foreign(t)
	default:
		return g.colored(t)
	}
}

// access is a line of a web server.
func (g *Generator) access(t []byte) []byte {
	t = fmt.Appendf(t, `10.%d.%d.%d - - [07/Nov/2025:12:%02d:%02d +0000] "%s %s?page=%d&sort=-created HTTP/1.1" %d %d "https://shop.example/%x" "`,
		g.rnd.below(256), g.rnd.below(256), g.rnd.below(256), g.rnd.below(60), g.rnd.below(60),
		pick(g, methods), pick(g, paths), g.rnd.below(90), pick(g, codes), g.rnd.below(90000), g.rnd.below(1<<24))
	t = append(t, pick(g, browsers)...)
	return append(t, '"')
}

// application is the JSON of a program's logger, quotes and all.
func (g *Generator) application(t []byte) []byte {
	return fmt.Appendf(t, `{"level":"%s","ts":"2025-11-07T12:%02d:%02d.%03dZ","caller":"http/server.go:%d","msg":"%s","trace_id":"%016x%016x","span_id":"%016x","method":"%s","path":"%s","status":%d,"duration_ms":%d.%d,"user":{"id":%d,"plan":"%s"},"sql":"select \"id\", \"total\" from \"orders\" where \"user\" = %d"}`,
		pick(g, levels), g.rnd.below(60), g.rnd.below(60), g.rnd.below(1000), g.rnd.below(900), pick(g, messages),
		g.rnd.next(), g.rnd.next(), g.rnd.next(), pick(g, methods), pick(g, paths), pick(g, codes),
		g.rnd.below(900), g.rnd.below(10), g.rnd.below(100000), pick(g, plans), g.rnd.below(100000))
}

func (g *Generator) short(t []byte) []byte {
	return fmt.Appendf(t, "worker %d: %s", g.rnd.below(64), pick(g, messages))
}

// trace is one line of a stack trace.
func (g *Generator) trace(t []byte) []byte {
	return fmt.Appendf(t, "\tat com.example.shop.%s.lambda$list$%d(%s.java:%d) ~[shop.jar!/:1.%d.%d]",
		pick(g, classes), g.rnd.below(9), pick(g, classes), g.rnd.below(900), g.rnd.below(20), g.rnd.below(20))
}

func (g *Generator) foreign(t []byte) []byte {
	return fmt.Appendf(t, "%s %d", pick(g, foreign), g.rnd.below(100000))
}

// colored has escape sequences, as programs write to what they take for a terminal.
func (g *Generator) colored(t []byte) []byte {
	return fmt.Appendf(t, "\x1b[3%dm%s\x1b[0m [%d] C:\\srv\\%s -> <b>%s</b>",
		g.rnd.below(8), pick(g, levels), g.rnd.below(9000), pick(g, classes), pick(g, messages))
}

// long is a line of two to four pieces.
func (g *Generator) long(t []byte) []byte {
	size := pieceBytes + 1 + g.rnd.below(3*pieceBytes)
	for len(t) < size {
		t = append(t, `{"id":`...)
		t = strconv.AppendUint(t, g.rnd.next()>>40, 10)
		t = append(t, `,"state":"`...)
		t = append(t, pick(g, messages)...)
		t = append(t, `"},`...)
	}
	t = t[:size]
	for i := pieceBytes; i < len(t); i += pieceBytes {
		t[i] = continuationMark
	}
	return t
}

var (
	methods  = []string{"GET", "GET", "GET", "POST", "PUT", "DELETE"}
	paths    = []string{"/api/v1/orders", "/api/v1/orders/8c1f/items", "/static/app.4f2c.js", "/healthz", "/api/v2/users/me/settings", "/search"}
	codes    = []int{200, 200, 200, 201, 204, 304, 400, 404, 500}
	levels   = []string{"info", "info", "info", "debug", "warn", "error"}
	plans    = []string{"free", "team", "enterprise"}
	messages = []string{"request done", "done", "cache miss, asking the origin", "retrying after a time-out", "connection reset by peer", "job finished", "configuration loaded"}
	classes  = []string{"OrderService", "PaymentGateway", "InventoryController", "SessionFilter"}
	browsers = []string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
		"curl/8.5.0",
	}
	foreign = []string{
		"Größe der Anfrage überschritten, Gerät „Küche“ übernommen, Zähler",
		"пользователь вошёл в систему, номер сеанса",
		"リクエストが完了しました、注文番号",
		"déjà traité : numéro de la requête",
		"deploy finished 🚀 build",
	}
)

func pick[T any](g *Generator, of []T) T { return of[g.rnd.below(len(of))] }

// random is splitmix64: small, fast, and the same everywhere.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below gives a number from 0 to n-1; the bias does not matter here.
func (r *random) below(n int) int { return int(r.next() >> 32 * uint64(n) >> 32) }

func padded(dst []byte, n, digits int) []byte {
	at := len(dst)
	for range digits {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= at; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// escape appends text as Docker's encoder writes it. The text is valid UTF-8.
func escape(dst, text []byte) []byte {
	from := 0
	for i := 0; i < len(text); {
		b := text[i]
		if b >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(text[i:])
			if r == '\u2028' || r == '\u2029' {
				dst = append(dst, text[from:i]...)
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&0xf])
				from = i + n
			}
			i += n
			continue
		}
		if b >= 0x20 && b != '"' && b != '\\' && b != '<' && b != '>' && b != '&' {
			i++
			continue
		}
		dst = append(dst, text[from:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xf])
		}
		i++
		from = i
	}
	return append(dst, text[from:]...)
}
