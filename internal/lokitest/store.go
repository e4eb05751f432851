package lokitest

import (
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/loki/pkg/push"
)

// store is the distributor and the one ingester behind it.
type store struct {
	limits  Limits
	streams map[string]*stream
	order   []string
	tenant  bucket
}

type stream struct {
	labels  map[string]string
	lines   []Line
	highest time.Time
	last    Line
	rate    bucket
	head    map[string]struct{} // time and text of the lines in the head block
	headLen int
}

// bucket is a token bucket of bytes.
type bucket struct {
	level float64
	at    time.Time
	used  bool
}

func (b *bucket) allow(now time.Time, n, rate, burst int) bool {
	if rate == 0 {
		return true
	}
	if !b.used {
		b.level, b.used = float64(burst), true
	} else {
		b.level = min(float64(burst), b.level+now.Sub(b.at).Seconds()*float64(rate))
	}
	b.at = now
	if float64(n) > b.level {
		return false
	}
	b.level -= float64(n)
	return true
}

func newStore(l Limits) store { return store{limits: l, streams: map[string]*stream{}} }

// ParseLabels reads {a="b", c="d"}.
func ParseLabels(text string) (map[string]string, error) {
	rest, ok := strings.CutPrefix(text, "{")
	if !ok {
		return nil, fmt.Errorf("1:1: parse error: no {")
	}
	labels := map[string]string{}
	for {
		rest = strings.TrimLeft(rest, " ")
		if rest == "}" {
			return labels, nil
		}
		name, after, ok := strings.Cut(rest, "=")
		if !ok || !validName(name) {
			return nil, fmt.Errorf("parse error: bad label name %q", name)
		}
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil {
			return nil, fmt.Errorf("parse error: label %s: unterminated quoted string", name)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("parse error: label %s: %w", name, err)
		}
		if _, dup := labels[name]; dup {
			return nil, fmt.Errorf("duplicate label name: '%s'", name)
		}
		labels[name] = value
		rest = after[len(quoted):]
		if rest == "}" {
			return labels, nil
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, fmt.Errorf("parse error: no comma after label %s", name)
		}
	}
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// labelText writes labels sorted, as Loki names a stream.
func labelText(labels map[string]string) string {
	names := make([]string, 0, len(labels))
	for n := range labels {
		names = append(names, n)
	}
	sort.Strings(names)
	for i, n := range names {
		names[i] = n + "=" + strconv.Quote(labels[n])
	}
	return "{" + strings.Join(names, ", ") + "}"
}

// grouped collects the distributor's reasons: equal ones once, with their
// number.
type grouped struct {
	n     map[string]int
	order []string
}

func (g *grouped) add(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if g.n == nil {
		g.n = map[string]int{}
	}
	if g.n[text] == 0 {
		g.order = append(g.order, text)
	}
	g.n[text]++
}

func (g *grouped) String() string {
	if len(g.order) == 1 && g.n[g.order[0]] == 1 {
		return g.order[0]
	}
	var parts []string
	for _, t := range g.order {
		parts = append(parts, fmt.Sprintf("%d errors like: %s", g.n[t], t))
	}
	return strings.Join(parts, "; ")
}

func (st *store) push(req *push.PushRequest, now time.Time, tenant string) (int, string) {
	if tenant == "" {
		tenant = "fake"
	}
	if len(req.Streams) == 0 {
		return http.StatusUnprocessableEntity, "error at least one valid stream is required for ingestion"
	}
	type kept struct {
		text    string // as stored
		named   string // as answers name it
		labels  map[string]string
		entries []push.Entry
	}
	var (
		reasons grouped
		streams []kept
		bytes   int
		n       int
	)
	for _, s := range req.Streams {
		if len(s.Entries) == 0 {
			continue
		}
		labels, err := ParseLabels(s.Labels)
		if err != nil {
			reasons.add("Error parsing labels '%s' with error: %s", s.Labels, err)
			continue
		}
		k := kept{text: labelText(labels), labels: labels}
		k.named = k.text
		if st.limits.ServiceName {
			with := map[string]string{"service_name": "unknown_service"}
			if v := labels["container_name"]; v != "" {
				with["service_name"] = v
			}
			for name, v := range labels {
				with[name] = v
			}
			k.named = labelText(with)
		}
		if !st.checkLabels(k.labels, k.named, tenant, &reasons) {
			continue
		}
		for _, e := range s.Entries {
			if st.checkLine(&e, k.named, now, &reasons) {
				k.entries = append(k.entries, e)
				bytes += entryBytes(&e)
				n++
			}
		}
		if len(k.entries) > 0 {
			streams = append(streams, k)
		}
	}
	refused := func() (int, string) {
		if len(reasons.order) > 0 {
			return http.StatusBadRequest, reasons.String()
		}
		return http.StatusNoContent, ""
	}
	if len(streams) == 0 {
		return refused()
	}
	if !st.tenant.allow(now, bytes, st.limits.TenantRate, st.limits.TenantBurst) {
		return http.StatusTooManyRequests, fmt.Sprintf(
			"Ingestion rate limit exceeded for user %s (limit: %d bytes/sec) while attempting to ingest '%d' lines totaling '%d' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased",
			tenant, st.limits.TenantRate, n, bytes)
	}
	status, text := 0, ""
	for _, k := range streams {
		// Each stream overwrites what was to be said of the one before.
		status, text = st.ingest(k.text, k.named, k.labels, k.entries, now, tenant)
	}
	if status != 0 {
		return status, text
	}
	return refused()
}

func (st *store) checkLabels(labels map[string]string, named, tenant string, reasons *grouped) bool {
	l := &st.limits
	if len(labels) == 0 {
		reasons.add("error at least one label pair is required per stream")
		return false
	}
	for _, name := range l.RequiredLabels {
		if labels[name] == "" {
			reasons.add("missing required labels %s for user %s for stream %s", name, tenant, named)
			return false
		}
	}
	if l.MaxLabels > 0 && len(labels) > l.MaxLabels {
		reasons.add("entry for stream '%s' has %d label names; limit %d", named, len(labels), l.MaxLabels)
		return false
	}
	for name, value := range labels {
		if l.MaxLabelName > 0 && len(name) > l.MaxLabelName {
			reasons.add("stream '%s' has label name too long: '%s'", named, name)
			return false
		}
		if l.MaxLabelValue > 0 && len(value) > l.MaxLabelValue {
			reasons.add("stream '%s' has label value too long: '%s'", named, value)
			return false
		}
	}
	return true
}

func entryBytes(e *push.Entry) int { return len(e.Line) + metadataBytes(e) }

func metadataBytes(e *push.Entry) int {
	n := 0
	for _, m := range e.StructuredMetadata {
		n += len(m.Name) + len(m.Value)
	}
	return n
}

// checkLine is the distributor's check, in its order.
func (st *store) checkLine(e *push.Entry, named string, now time.Time, reasons *grouped) bool {
	l := &st.limits
	at := e.Timestamp.Format(time.RFC3339)
	oldest := now.Add(-l.MaxAge)
	switch {
	case l.MaxAge > 0 && e.Timestamp.Before(oldest):
		reasons.add("entry for stream '%s' has timestamp too old: %s, oldest acceptable timestamp is: %s", named, at, oldest.Format(time.RFC3339))
	case l.MaxAhead > 0 && e.Timestamp.After(now.Add(l.MaxAhead)):
		reasons.add("entry for stream '%s' has timestamp too new: %s", named, at)
	case l.MaxLine > 0 && len(e.Line) > l.MaxLine:
		reasons.add("Max entry size '%d' bytes exceeded for stream '%s' while adding an entry with length '%d' bytes", l.MaxLine, named, len(e.Line))
	case l.NoMetadata && len(e.StructuredMetadata) > 0:
		reasons.add("stream '%s' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it.", named)
	case l.MaxMetadata > 0 && metadataBytes(e) > l.MaxMetadata:
		reasons.add("stream '%s' has structured metadata too large: '%d' bytes, limit: '%d' bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it.", named, metadataBytes(e), l.MaxMetadata)
	case l.MaxMetadataN > 0 && len(e.StructuredMetadata) > l.MaxMetadataN:
		reasons.add("stream '%s' has too many structured metadata labels: '%d', limit: '%d'. Please see `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it.", named, len(e.StructuredMetadata), l.MaxMetadataN)
	default:
		return true
	}
	return false
}

// ingest is the ingester's way with one stream. It gives the status 0 when all
// lines are in.
func (st *store) ingest(text, named string, labels map[string]string, entries []push.Entry, now time.Time, tenant string) (int, string) {
	l := &st.limits
	s := st.streams[text]
	if s == nil {
		if l.MaxStreams > 0 && len(st.streams) >= l.MaxStreams {
			return http.StatusTooManyRequests, fmt.Sprintf(
				"Maximum active stream limit exceeded when trying to create stream %s, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: '%s'", named, tenant)
		}
		s = &stream{labels: labels, head: map[string]struct{}{}}
		st.streams[text] = s
		st.order = append(st.order, text)
	}
	type failed struct {
		e      *push.Entry
		reason string
		rate   bool
	}
	var (
		bad     []failed
		take    []*push.Entry
		last    = s.last
		highest = s.highest
		bytes   int
	)
	tooFast := func(e *push.Entry) failed {
		return failed{e, fmt.Sprintf(
			"Per stream rate limit exceeded (limit: %dB/sec) while attempting to ingest for stream '%s' totaling %dB, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased",
			l.StreamRate, named, entryBytes(e)), true}
	}
	for i := range entries {
		e := &entries[i]
		if e.Timestamp.Equal(last.Time) && e.Line == last.Text {
			continue
		}
		if !l.WholeStream && !s.rate.allow(now, entryBytes(e), l.StreamRate, l.StreamBurst) {
			bad = append(bad, tooFast(e))
			continue
		}
		cutoff := highest.Add(-l.MaxBehind)
		if l.MaxBehind > 0 && !highest.IsZero() && cutoff.After(e.Timestamp) {
			bad = append(bad, failed{e, fmt.Sprintf(
				"entry too far behind, entry timestamp is: %s, oldest acceptable timestamp is: %s",
				e.Timestamp.Format(time.RFC3339), cutoff.Format(time.RFC3339)), false})
			continue
		}
		last = Line{Time: e.Timestamp, Text: e.Line}
		if e.Timestamp.After(highest) {
			highest = e.Timestamp
		}
		bytes += entryBytes(e)
		take = append(take, e)
	}
	if l.WholeStream && !s.rate.allow(now, bytes, l.StreamRate, l.StreamBurst) {
		bad = bad[:0]
		for _, e := range take {
			bad = append(bad, tooFast(e))
		}
		take = nil
	}
	for _, e := range take {
		s.append(text, e, l.HeadBlock)
	}
	if len(bad) == 0 {
		return 0, ""
	}
	var b strings.Builder
	for i, f := range bad {
		if l.MaxListed > 0 && i == l.MaxListed {
			break
		}
		fmt.Fprintf(&b, "entry with timestamp %s ignored, reason: '%s',\n", f.e.Timestamp, f.reason)
	}
	fmt.Fprintf(&b, "user '%s', total ignored: %d out of %d for stream: %s", tenant, len(bad), len(entries), named)
	if bad[len(bad)-1].rate {
		return http.StatusTooManyRequests, b.String()
	}
	return http.StatusBadRequest, b.String()
}

func (s *stream) append(text string, e *push.Entry, headBlock int) {
	line := Line{Time: e.Timestamp, Text: e.Line, Stream: text}
	for _, m := range e.StructuredMetadata {
		if line.Metadata == nil {
			line.Metadata = map[string]string{}
		}
		line.Metadata[m.Name] = m.Value
	}
	s.last = line
	if e.Timestamp.After(s.highest) {
		s.highest = e.Timestamp
	}
	if headBlock > 0 {
		key := strconv.FormatInt(e.Timestamp.UnixNano(), 10) + "\x00" + e.Line
		if _, dup := s.head[key]; dup {
			return
		}
		if s.headLen += len(e.Line); s.headLen > headBlock {
			clear(s.head)
			s.headLen = len(e.Line)
		}
		s.head[key] = struct{}{}
	}
	s.lines = append(s.lines, line)
}

func (st *store) lines(want []string) []Line {
	var out []Line
next:
	for _, text := range st.order {
		s := st.streams[text]
		for i := 0; i+1 < len(want); i += 2 {
			if s.labels[want[i]] != want[i+1] {
				continue next
			}
		}
		out = append(out, s.lines...)
	}
	return out
}
