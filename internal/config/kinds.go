package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// kind is a type of value: how it is written, what is allowed, how it is read.
type kind[T any] struct {
	unit    string // of the value, for the reference; empty where there is none
	allowed string // completes "allowed: ..."
	bare    bool   // must not stand in quotes: a number, true or false
	text    bool   // text: a bare true or false is a mistake
	secret  bool   // the text must not be repeated in an error
	// parse gives the value, or what is wrong with the text: the words after
	// the text itself.
	parse func(text string) (value T, problem string)
	// show gives a value as it may be shown to anybody; nil: as the file has it.
	show func(T) any
}

// optional also allows the empty text, which gives the zero value.
func optional[T any](k kind[T]) kind[T] {
	parse := k.parse
	k.allowed += `, or "" for none`
	k.parse = func(text string) (v T, problem string) {
		if text == "" {
			return v, ""
		}
		return parse(text)
	}
	return k
}

func boolean() kind[bool] {
	return kind[bool]{
		allowed: "true or false",
		bare:    true,
		parse: func(s string) (bool, string) {
			switch s {
			case "true", "True", "TRUE":
				return true, ""
			case "false", "False", "FALSE":
				return false, ""
			}
			return false, "is not true or false"
		},
	}
}

func integer(low, high int) kind[int] {
	return kind[int]{
		allowed: fmt.Sprintf("a whole number from %d to %d", low, high),
		bare:    true,
		parse: func(s string) (int, string) {
			n, err := strconv.Atoi(s)
			switch {
			case err != nil:
				return 0, "is not a whole number"
			case n < low:
				return 0, "is too small"
			case n > high:
				return 0, "is too large"
			}
			return n, ""
		},
	}
}

// size is a number of bytes. zero says what 0 means, if that is something of its
// own or is allowed below low.
func size[T int | int64](low, high T, zero string) kind[T] {
	units := "KiB or MiB"
	if int64(high) >= 1<<30 {
		units = "KiB, MiB or GiB"
	}
	allowed := fmt.Sprintf("%s to %s: a number of bytes, or a whole number with %s", sizeText(int64(low)), sizeText(int64(high)), units)
	if zero != "" {
		allowed += ", or 0: " + zero
	}
	return kind[T]{
		unit:    "bytes",
		allowed: allowed,
		parse: func(s string) (T, string) {
			digits := strings.TrimRight(s, "BGKMi ")
			factor, known := map[string]uint64{
				"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
			}[strings.TrimLeft(s[len(digits):], " ")]
			n, err := strconv.ParseUint(digits, 10, 63)
			switch {
			case !known || err != nil:
				return 0, "is not a size"
			case n == 0 && zero != "":
				return 0, ""
			case n > uint64(high)/factor: // the product might not fit
				return 0, "is too large"
			case n*factor < uint64(low):
				return 0, "is too small"
			}
			return T(n * factor), ""
		},
	}
}

func sizeText(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "GiB"
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "KiB"
	}
	return strconv.FormatInt(n, 10)
}

// duration is a time span. zero says what 0 means, if it is allowed below low.
func duration(low, high time.Duration, zero string) kind[time.Duration] {
	allowed := fmt.Sprintf("%s to %s: a number with ms, s, m or h", durationText(low), durationText(high))
	if zero != "" {
		allowed += ", or 0: " + zero
	}
	return kind[time.Duration]{
		unit:    "time",
		allowed: allowed,
		show:    func(d time.Duration) any { return durationText(d) },
		parse: func(s string) (time.Duration, string) {
			v, err := time.ParseDuration(s)
			_, number := strconv.ParseFloat(s, 64)
			switch {
			case err != nil && number == nil:
				return 0, "has no unit"
			case err != nil:
				return 0, "is not a time span"
			case v == 0 && zero != "":
				return 0, ""
			case v < low:
				return 0, "is too short"
			case v > high:
				return 0, "is too long"
			}
			return v, ""
		},
	}
}

// durationText is d without units that are zero: 1h, not 1h0m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// choice is one of a few words.
func choice(words ...string) kind[string] {
	return kind[string]{
		allowed: strings.Join(words, " or "),
		parse: func(s string) (string, string) {
			if slices.Contains(words, s) {
				return s, ""
			}
			return "", "is not one of the values"
		},
	}
}

func logLevel() kind[slog.Level] {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	words := choice("debug", "info", "warn", "error")
	return kind[slog.Level]{
		allowed: words.allowed,
		parse: func(s string) (slog.Level, string) {
			s, problem := words.parse(s)
			return levels[s], problem
		},
		show: func(l slog.Level) any { return strings.ToLower(l.String()) },
	}
}

// word is text of one line that is not empty.
func word(what string, maxBytes int) kind[string] {
	return kind[string]{
		allowed: fmt.Sprintf("%s: text of one line, at most %d bytes", what, maxBytes),
		text:    true,
		parse: func(s string) (string, string) {
			switch {
			case s == "":
				return "", "is empty"
			case len(s) > maxBytes:
				return "", "is too long"
			case !utf8.ValidString(s):
				return "", "is not valid UTF-8"
			case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
				return "", "has a control character or a line end"
			}
			return s, ""
		},
	}
}

// secret is a word that is never shown.
func secret(what string) kind[Secret] {
	w := word(what, 4096)
	return kind[Secret]{allowed: w.allowed, text: true, secret: true, parse: func(s string) (Secret, string) {
		v, problem := w.parse(s)
		return Secret(v), problem
	}}
}

// also adds a check to a kind of text.
func also(k kind[string], allowed string, check func(string) (problem string)) kind[string] {
	parse := k.parse
	k.allowed = allowed
	k.parse = func(s string) (string, string) {
		s, problem := parse(s)
		if problem == "" {
			problem = check(s)
		}
		return s, problem
	}
	return k
}

// maxPath is Linux's PATH_MAX, without the final NUL.
const maxPath = 4095

func filePath() kind[string] { return word("a path", maxPath) }

func absolutePath() kind[string] {
	return also(filePath(), "an absolute path", func(s string) string {
		if !filepath.IsAbs(s) {
			return "is not an absolute path"
		}
		return ""
	})
}

var hostNamePattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

// hostName is an IP address or a name to be looked up.
func hostName() kind[string] {
	return also(word("a host", 253), "an IP address or a host name, without a port", func(s string) string {
		if net.ParseIP(s) == nil && !hostNamePattern.MatchString(s) {
			return "is neither an IP address nor a host name"
		}
		return ""
	})
}

// dockerHost is never repeated in an error: it may hold credentials by mistake.
func dockerHost() kind[string] {
	k := also(word("an address", maxPath), "unix:///path/of/the.sock or tcp://HOST:PORT", func(s string) string {
		if path, ok := strings.CutPrefix(s, "unix://"); ok {
			if !filepath.IsAbs(path) {
				return "has no absolute path"
			}
			return ""
		}
		addr, ok := strings.CutPrefix(s, "tcp://")
		if !ok {
			return "has another scheme"
		}
		if strings.Contains(addr, "@") {
			return "holds a user, which the engine's API does not know"
		}
		host, port, err := net.SplitHostPort(addr)
		if n, e := strconv.Atoi(port); err != nil || host == "" || e != nil || n < 1 || n > 65535 {
			return "has no host and port"
		}
		return ""
	})
	k.secret = true
	return k
}

// lokiURL is never repeated in an error: it may hold credentials by mistake.
func lokiURL() kind[string] {
	k := also(word("a URL", maxPath), "http://HOST:PORT or https://HOST:PORT, with or without a path and a query", func(s string) string {
		u, err := url.Parse(s)
		switch {
		case err != nil:
			return "is not a URL"
		case u.Scheme != "http" && u.Scheme != "https":
			return "does not begin with http:// or https://"
		case u.Hostname() == "":
			return "has no host"
		case u.User != nil:
			return "holds a user: set sinks.loki.basic_auth instead"
		case u.Fragment != "":
			return "has a #fragment"
		case strings.ContainsFunc(u.Host, func(r rune) bool { return r > '~' }):
			return "has a host with characters beyond ASCII: write it in Punycode (xn--...)"
		case strings.Contains(u.RawQuery, " "):
			return "has a space in its query: write it as %20"
		}
		if p := u.Port(); p != "" {
			if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
				return "has no port from 1 to 65535"
			}
		}
		return ""
	})
	k.secret = true
	k.show = func(s string) any { return hideURL(s) }
	return k
}

// tenantID is laxer than Loki (dskit, tenant.ValidTenantID), since what stands
// before it may have rules of its own; the length is Loki's.
func tenantID() kind[string] {
	return also(word("a tenant", 150), "1 to 150 printable ASCII characters without spaces", func(s string) string {
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "has a space or a character beyond ASCII"
		}
		return ""
	})
}

// userName has no colon: it ends the name in basic authentication (RFC 7617).
func userName() kind[string] {
	return also(word("a user", 1024), "text of one line without a colon", func(s string) string {
		if strings.Contains(s, ":") {
			return "has a colon"
		}
		return ""
	})
}

var tokenPattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, 5.6.2

// headerName is the name of a request header that the sink does not set itself.
func headerName() kind[string] {
	ours := map[string]string{
		"X-Scope-Orgid": "is set by sinks.loki.tenant_id",
	}
	for _, name := range []string{
		"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Trailer",
		"Transfer-Encoding", "Upgrade",
	} {
		ours[name] = "is set by the agent"
	}
	return kind[string]{
		allowed: "a header name that the agent does not set itself",
		parse: func(s string) (string, string) {
			if !tokenPattern.MatchString(s) || len(s) > maxQuoted {
				return "", "is not a header name"
			}
			s = textproto.CanonicalMIMEHeaderKey(s)
			return s, ours[s]
		},
	}
}

// Limits of Loki's defaults (max_label_name_length, max_label_value_length,
// max_label_names_per_series); what exceeds them is refused with a 400.
const (
	maxLabelName  = 1024
	maxLabelValue = 2048
	maxLabels     = 15
)

// fixedLabels are the labels that lines have from the agent.
func fixedLabels() []string {
	return []string{"job", "host", "container_name", "image", "compose_project", "compose_service", "stream", "malformed"}
}

var labelPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// labelProblem says what is wrong with a label's name at the store.
func labelProblem(name string) string {
	switch {
	case !labelPattern.MatchString(name):
		return "is not a label name"
	case strings.HasPrefix(name, "__"):
		return "begins with __, which is reserved"
	case len(name) > maxLabelName:
		return "is too long"
	case slices.Contains(fixedLabels(), name):
		return "is a label that every line has already"
	}
	return ""
}

const labelAllowed = "letters, digits and _, not first a digit or __, and none of job, host, container_name, image, " +
	"compose_project, compose_service, stream, malformed"

func labelName() kind[string] {
	return kind[string]{allowed: labelAllowed, parse: func(s string) (string, string) { return s, labelProblem(s) }}
}

func labelValue() kind[string] { return word("a label value", maxLabelValue) }

var notInLabel = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// containerLabel is the name of a label of a container.
func containerLabel() kind[ContainerLabel] {
	w := word("a container label", maxLabelName)
	return kind[ContainerLabel]{
		allowed: "a container label; every character but letters, digits and _ becomes _, and the name is then: " + labelAllowed,
		text:    true,
		parse: func(s string) (ContainerLabel, string) {
			if _, problem := w.parse(s); problem != "" {
				return ContainerLabel{}, problem
			}
			label := notInLabel.ReplaceAllString(s, "_")
			if problem := labelProblem(label); problem != "" {
				return ContainerLabel{}, "becomes " + quote(label) + ", which " + problem
			}
			return ContainerLabel{Container: s, Label: label}, ""
		},
		show: func(l ContainerLabel) any { return l.Container },
	}
}

// maxRule is more than a name, an image reference or a sensible label needs.
const maxRule = 1024

// What a glob of a name or an image reference may consist of (Docker's
// RestrictedNamePattern; the grammar of package reference). Anything else, such
// as a regular expression or the slash of `docker inspect`, would never fit, and
// what was to be excluded would be captured in silence.
var (
	nameGlob  = regexp.MustCompile(`^[A-Za-z0-9_.*?-]+$`)
	imageGlob = regexp.MustCompile(`^[A-Za-z0-9_.:/@+\[\]*?-]+$`)
)

// containerRule is a rule about containers; the word labelled is one only where
// it is asked for.
func containerRule(labelled bool) kind[ContainerRule] {
	w := word("a rule", maxRule)
	allowed := "name=GLOB, image=GLOB, label=KEY or label=KEY=GLOB (* is any text, ? one character)"
	if labelled {
		allowed += ", or labelled"
	}
	return kind[ContainerRule]{allowed: allowed, show: func(r ContainerRule) any { return r.String() }, parse: func(s string) (ContainerRule, string) {
		if _, problem := w.parse(s); problem != "" {
			return ContainerRule{}, problem
		}
		if s == RuleLabelled {
			if !labelled {
				return ContainerRule{}, "is a rule for include only"
			}
			return ContainerRule{Field: RuleLabelled}, ""
		}
		field, pattern, _ := strings.Cut(s, "=")
		r := ContainerRule{Field: field, Pattern: pattern}
		var problem string
		switch field {
		case RuleName:
			problem = globProblem(pattern, nameGlob, "container's name")
		case RuleImage:
			problem = globProblem(pattern, imageGlob, "image reference")
		case RuleLabel:
			var value bool
			r.Label, r.Pattern, value = strings.Cut(pattern, "=")
			switch {
			case r.Label == "":
				problem = "has no label key"
			case strings.ContainsAny(r.Label, "*? "):
				problem = "has a space, * or ? in the label key, which is taken as it is"
			case value && r.Pattern == "":
				problem = "has no pattern after the last =" // label=KEY is "whatever its value"
			}
		default:
			problem = "is no rule of a kind that is known"
		}
		if problem != "" {
			return ContainerRule{}, problem
		}
		return r, ""
	}}
}

// globProblem says what is wrong with a glob for text that is made of valid.
func globProblem(glob string, valid *regexp.Regexp, what string) string {
	switch {
	case glob == "":
		return "has no pattern after the ="
	case !valid.MatchString(glob):
		return "has a character that no " + what + " has"
	}
	return ""
}
