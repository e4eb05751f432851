package loki

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/internal/entry"
)

// kind is what is to be done about an answer.
type kind uint8

const (
	// kindAccepted: all lines are taken.
	kindAccepted kind = iota
	// kindConfig: nothing is stored, and only a change of configuration helps.
	kindConfig
	// kindRetry: it is unknown what is stored; time may heal it.
	kindRetry
	// kindPause: nothing is stored; the store asks the whole tenant to wait.
	kindPause
	// kindStream: one stream is refused for now.
	kindStream
	// kindSplit: nothing is stored; the request is too large.
	kindSplit
	// kindLines: some lines or streams are refused for the reasons in the
	// verdict; the rest is stored.
	kindLines
	// kindUnknown: refused without a reason that we know.
	kindUnknown
)

// The values of the label reason of log_capturer_sink_errors_total.
const (
	reasonConfig   = "config"
	reasonRetry    = "server"
	reasonNetwork  = "network"
	reasonTimeout  = "timeout"
	reasonPause    = "rate_limit"
	reasonStream   = "stream_limit"
	reasonTooLarge = "too_large"
	reasonLines    = "lines_refused"
	reasonUnknown  = "unknown_400"
	reasonSecret   = "credentials"
)

// maxRetryAfter is the longest wait that a store may ask for.
const maxRetryAfter = 60 * time.Second

// verdict is what an answer means.
type verdict struct {
	kind   kind
	reason string        // a constant, for metrics
	text   string        // the store's words, shortened, for an operator
	after  time.Duration // Retry-After; 0 when absent

	// For kindStream: the stream as the store names it, "" when it does not.
	stream string
	// rate is set when it is its rate that is too high.
	rate bool

	// For kindLines. A limit applies when its n is above 0; n is how many lines
	// the store says it has refused for it.
	tooOld  timeLimit // lines before at; the text rounds at down to a second
	tooNew  timeLimit // lines from at on; likewise
	tooLong sizeLimit // lines longer than max bytes
	behind  behindLimit
	// labels are the streams refused because of their labels, as the store
	// names them.
	labels []string
	// noMetadata: lines with structured metadata are refused, all of them.
	noMetadata bool
	// bulky are the streams refused because of too much structured metadata.
	bulky []string
	// cut is set when the text was longer than we read: limits may be missing.
	cut bool
}

type timeLimit struct {
	at   int64 // ns since the epoch
	n    int
	text string
}

type sizeLimit struct {
	max, n int
	text   string
}

// behindLimit is the ingester's refusal of lines of one stream.
type behindLimit struct {
	timeLimit
	total  int    // lines of the stream that reached the ingester; 0: not said
	stream string // as the store names it
	// mixed is set when some of the n were refused for the stream's rate and
	// are to be sent again.
	mixed bool
}

// classify says what an answer means. It is pure but for the clock that a
// Retry-After with a date is compared with. cut tells that body is not all of
// the answer's text.
func classify(status int, header http.Header, body []byte, cut bool, now time.Time) verdict {
	v := verdict{after: retryAfter(header.Get("Retry-After"), now), cut: cut}
	v.text = "answer " + strconv.Itoa(status)
	if t := shorten(body); t != "" {
		v.text += ": " + t
	}
	set := func(k kind, reason string) verdict {
		v.kind, v.reason = k, reason
		return v
	}
	switch {
	case status == http.StatusNoContent, status == http.StatusOK && len(body) == 0 && !cut:
		return set(kindAccepted, "")
	case status == 260:
		v.text += " (ingestion is blocked at the store: look for block_ingestion_until in its limits)"
		return set(kindConfig, reasonConfig)
	case status == http.StatusOK:
		v.text += " (a push is answered without a body: does the URL name Loki's push API?)"
		return set(kindConfig, reasonConfig)
	case status >= 300 && status < 400:
		v.text += " (redirects are not followed: configure the final URL"
		if to := header.Get("Location"); to != "" {
			v.text += ", perhaps " + shorten([]byte(withoutSecrets(to)))
		}
		v.text += ")"
		return set(kindConfig, reasonConfig)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		v.text += " (check credentials and tenant_id)"
		return set(kindConfig, reasonConfig)
	case status == http.StatusNotFound:
		v.text += " (check the path of the URL)"
		return set(kindConfig, reasonConfig)
	case status == http.StatusRequestTimeout:
		return set(kindRetry, reasonTimeout)
	case status == http.StatusRequestEntityTooLarge:
		return set(kindSplit, reasonTooLarge)
	case status == http.StatusTooManyRequests:
		flat := flatten(body)
		v.rate = strings.Contains(flat, "per stream rate limit")
		if v.rate || strings.Contains(flat, "active stream limit") {
			v.stream = streamOf429(body, flat)
			return set(kindStream, reasonStream)
		}
		return set(kindPause, reasonPause)
	case status == http.StatusBadRequest:
		if readLimits(&v, body) {
			return set(kindLines, reasonLines)
		}
		return set(kindUnknown, reasonUnknown)
	case status == http.StatusInternalServerError && strings.Contains(flatten(body), "resourceexhausted"):
		return set(kindSplit, reasonTooLarge)
	case status >= 500:
		return set(kindRetry, reasonRetry)
	}
	// Other 2xx and 4xx do not come from Loki's push API.
	v.text += " (not an answer of Loki's push API: check the URL and what lies between)"
	return set(kindConfig, reasonConfig)
}

// retryAfter reads a Retry-After header, seconds or an HTTP date.
func retryAfter(s string, now time.Time) time.Duration {
	if s == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		d = time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// flatten gives the text in ASCII lower case, with the contents of quoted label
// values blanked, so that what a container put into a label is not taken for
// the store's words. Offsets are those of the text.
func flatten(body []byte) string {
	b := make([]byte, len(body))
	for i, c := range body {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	for i := 0; i+1 < len(b); i++ {
		if b[i] != '=' || b[i+1] != '"' {
			continue
		}
		for i += 2; i < len(b) && b[i] != '"'; i++ {
			if b[i] == '\\' && i+1 < len(b) {
				b[i] = '_'
				i++
			}
			b[i] = '_'
		}
	}
	return string(b)
}

// readLimits finds in the text of a 400 every reason that we know, and reports
// whether there is any. One text may name several: "2 errors like: ...; 1
// errors like: ..." (Loki, pkg/util/errors.go, GroupedErrors).
func readLimits(v *verdict, body []byte) bool {
	flat := flatten(body)
	found := false
	each := func(marker string, f func(start, end int)) {
		for at := 0; ; {
			i := strings.Index(flat[at:], marker)
			if i < 0 {
				return
			}
			i += at
			at = i + len(marker)
			f(i, at)
		}
	}
	each("has timestamp too old: ", func(start, end int) {
		t, ok := timeAt(body, end)
		if !ok {
			return
		}
		// The limit itself follows; very old Lokis name only the line's time.
		if i := strings.Index(near(flat, end), "oldest acceptable timestamp is: "); i >= 0 {
			if limit, ok := timeAt(body, end+i+len("oldest acceptable timestamp is: ")); ok {
				t = limit
			}
		}
		if v.tooOld.n == 0 || t > v.tooOld.at {
			v.tooOld.at, v.tooOld.text = t, "timestamp too old, oldest acceptable timestamp is: "+stamp(t)
		}
		v.tooOld.n += count(flat, start)
		found = true
	})
	each("has timestamp too new: ", func(start, end int) {
		t, ok := timeAt(body, end)
		if !ok {
			return
		}
		if v.tooNew.n == 0 || t < v.tooNew.at {
			v.tooNew.at, v.tooNew.text = t, "timestamp too new"
		}
		v.tooNew.n += count(flat, start)
		found = true
	})
	each("max entry size '", func(start, end int) {
		n, ok := numberAt(flat, end)
		if !ok {
			return
		}
		if v.tooLong.n == 0 || n < v.tooLong.max {
			v.tooLong.max, v.tooLong.text = n, "line too long, max entry size is "+strconv.Itoa(n)+" bytes"
		}
		v.tooLong.n += count(flat, start)
		found = true
	})
	each("entry too far behind", func(start, end int) {
		i := strings.Index(near(flat, end), "oldest acceptable timestamp is: ")
		if i < 0 {
			return
		}
		t, ok := timeAt(body, end+i+len("oldest acceptable timestamp is: "))
		if !ok {
			return
		}
		if v.behind.n == 0 || t > v.behind.at {
			v.behind.at, v.behind.text = t, "entry too far behind, oldest acceptable timestamp is: "+stamp(t)
		}
		v.behind.n++ // those listed; the total follows
		found = true
	})
	if v.behind.n > 0 {
		v.behind.mixed = strings.Contains(flat, "per stream rate limit")
		if i := strings.LastIndex(flat, "total ignored: "); i >= 0 {
			i += len("total ignored: ")
			if n, ok := numberAt(flat, i); ok {
				v.behind.n = max(v.behind.n, n)
			}
			if j := strings.Index(near(flat, i), " out of "); j >= 0 {
				v.behind.total, _ = numberAt(flat, i+j+len(" out of "))
			}
			v.behind.stream = selectorAfter(body, flat, i)
		}
	}
	for _, m := range [...]string{
		"label names; limit", "has label name too long", "has label value too long", "has duplicate label name",
	} {
		each(m, func(start, _ int) {
			v.labels = append(v.labels, selectorBefore(body, flat, start))
			found = true
		})
	}
	for _, m := range [...]string{"error parsing labels '", "missing required labels "} {
		each(m, func(_, end int) {
			v.labels = append(v.labels, selectorAfter(body, flat, end))
			found = true
		})
	}
	each("at least one label pair is required", func(int, int) {
		v.labels = append(v.labels, "{}")
		found = true
	})
	for _, m := range [...]string{"has structured metadata too large", "has too many structured metadata"} {
		each(m, func(start, _ int) {
			v.bulky = append(v.bulky, selectorBefore(body, flat, start))
			found = true
		})
	}
	each("structured metadata", func(start, _ int) {
		rest := near(flat, start)
		if strings.Contains(rest, "disallowed") || strings.Contains(rest, "not allowed") {
			v.noMetadata = true
			found = true
		}
	})
	return found
}

// near gives a piece of the text from i on that a single message covers.
func near(s string, i int) string { return s[i:min(len(s), i+160)] }

// count reads the number in the "N errors like: " that precedes the message at
// i. Without one the message stands for one line.
func count(flat string, i int) int {
	const like = " errors like: "
	j := strings.LastIndex(flat[:i], like)
	if j < 0 {
		return 1
	}
	k := j
	for k > 0 && '0' <= flat[k-1] && flat[k-1] <= '9' {
		k--
	}
	n, err := strconv.Atoi(flat[k:j])
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// timeAt reads an RFC 3339 time that ends where such a time must end.
func timeAt(body []byte, i int) (int64, bool) {
	j := i
	for j < len(body) && j-i < 40 && strings.IndexByte("0123456789-+:.TZ", body[j]) >= 0 {
		j++
	}
	t, err := time.Parse(time.RFC3339Nano, string(body[i:j]))
	// The years that nanoseconds since 1970 can hold.
	if err != nil || t.Year() < 1678 || t.Year() > 2261 {
		return 0, false
	}
	return t.UnixNano(), true
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func numberAt(s string, i int) (int, bool) {
	j := i
	for j < len(s) && j-i < 18 && '0' <= s[j] && s[j] <= '9' {
		j++
	}
	n, err := strconv.Atoi(s[i:j])
	return n, err == nil
}

// selectorAfter gives the first {...} from i on.
func selectorAfter(body []byte, flat string, i int) string {
	a := strings.IndexByte(flat[i:], '{')
	if a < 0 {
		return ""
	}
	a += i
	z := strings.IndexByte(flat[a:], '}')
	if z < 0 {
		return ""
	}
	return string(body[a : a+z+1])
}

// selectorBefore gives the last {...} before i.
func selectorBefore(body []byte, flat string, i int) string {
	z := strings.LastIndexByte(flat[:i], '}')
	if z < 0 {
		return ""
	}
	a := strings.LastIndexByte(flat[:z], '{')
	if a < 0 {
		return ""
	}
	return string(body[a : z+1])
}

// streamOf429 gives the stream that a 429 names.
func streamOf429(body []byte, flat string) string {
	for _, m := range [...]string{"for stream: ", "trying to create stream ", "for stream '"} {
		if i := strings.LastIndex(flat, m); i >= 0 {
			return selectorAfter(body, flat, i)
		}
	}
	return ""
}

// parseLabels reads the text by which the store names a stream.
func parseLabels(text string) ([]entry.Label, bool) {
	rest, ok := strings.CutPrefix(text, "{")
	if !ok {
		return nil, false
	}
	var out []entry.Label
	for {
		rest = strings.TrimLeft(rest, " ,")
		if rest == "}" {
			return out, true
		}
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, false
		}
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil {
			return nil, false
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, false
		}
		out = append(out, entry.Label{Name: name, Value: value})
		rest = after[len(quoted):]
	}
}

// covers reports whether the store's name of a stream has all of our labels. It
// may have more: Loki adds service_name (discover_service_name) and
// __stream_shard__ (shard_streams).
func covers(named []entry.Label, ours []entry.Label) bool {
next:
	for _, o := range ours {
		for _, n := range named {
			if n == o {
				continue next
			}
		}
		return false
	}
	return true
}

// shorten gives the store's words in one line of at most 300 bytes, without
// control characters.
func shorten(b []byte) string {
	const most = 300
	cut := len(b) > most
	if cut {
		b = b[:most]
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b), ""))
	s = strings.TrimSpace(s)
	if cut {
		s += "..."
	}
	return s
}
