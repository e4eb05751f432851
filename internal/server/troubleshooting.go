package server

import (
	"strings"
	"unicode"
)

// troubleshooting is the document that says what to do about each problem.
const troubleshooting = "https://github.com/log-capturer/log_capturer/blob/main/HYBRID_MONITOR_TROUBLESHOOTING.md"

// guide is a section of that document.
type guide struct {
	// begins is how the text of the problem begins, each number in it as "…".
	begins string
	// heading is that of the section, as it stands there.
	heading string
}

// guides are all sections about problems of the health.
func guides() []guide {
	return []guide{
		{"lines were lost: log files had been rotated away", "`lines were lost: log files had been rotated away before they were read` (503)"},
		{"lines were lost: the rest of log files", "`lines were lost: the rest of log files had to be given up` (503)"},
		{"lines were lost: containers were removed", "`lines were lost: containers were removed before their streams had been read to the end` (503)"},
		{"Docker cannot be reached", "`Docker cannot be reached: …` (503)"},
		{"no log can be read from its file", "`no log can be read from its file: …` (503)"},
		{"no log can be read:", "`no log can be read: …` (503)"},
		{"… of … logs cannot be read", "`… of … logs cannot be read: …`"},
		{"… containers are streamed because their log files", "`… containers are streamed because their log files cannot be read: …`"},
		{"… containers cannot be streamed", "`… containers cannot be streamed: …`"},
		{"… containers are not captured", "`… containers are not captured: their logs cannot be read as the agent is configured`"},
		{"the store does not accept lines", "`the store does not accept lines: …` (503 after 30 s)"},
		{"the spool takes no more", "`the spool takes no more: …` (503)"},
		{"the spool cannot be written", "`the spool cannot be written: …` (503)"},
		{"the store refuses … streams for now", "`the store refuses … streams for now: …`"},
		{"the dead-letter file cannot be written", "`the dead-letter file cannot be written: …` (503 after 30 s)"},
		{"the store has refused lines for good", "`the store has refused lines for good; they are in the dead-letter file`"},
		{"log files contain lines that are no entries", "`log files contain lines that are no entries of Docker's`"},
		{"positions not saved", "`positions not saved since …`"},
	}
}

// kindOf gives what stays the same while a problem lasts, although numbers and
// the reason in its text change, and the address of what is to be done about it.
func kindOf(what string) (kind, see string) {
	what = withoutNumbers(what)
	for _, g := range guides() {
		if strings.HasPrefix(what, g.begins) {
			return g.begins, troubleshooting + "#" + anchor(g.heading)
		}
	}
	kind, _, _ = strings.Cut(what, ": ")
	return kind, troubleshooting + "#what-health-says"
}

// withoutNumbers gives text with "…" for each number.
func withoutNumbers(text string) string {
	var b strings.Builder
	in := false
	for _, r := range text {
		digit := r >= '0' && r <= '9'
		switch {
		case !digit:
			b.WriteRune(r)
		case !in:
			b.WriteRune('…')
		}
		in = digit
	}
	return b.String()
}

// anchor gives the name by which GitHub's rendering of Markdown links to a
// heading: lower case, spaces as hyphens, no punctuation but those and "_".
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
