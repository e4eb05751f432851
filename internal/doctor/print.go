package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/log-capturer/log_capturer/internal/server"
)

// shown is how a status begins a line, and with which colour of a terminal.
var shown = [...]struct{ word, colour string }{
	Skip: {"skip", "\x1b[2m"},
	OK:   {"ok  ", "\x1b[32m"},
	Warn: {"warn", "\x1b[33m"},
	Fail: {"FAIL", "\x1b[31m"},
}

// Text gives the report, a line for each check and each container, and one that
// sums up at the end. What is no character to show becomes a question mark.
func (r *Report) Text(colour bool) []byte {
	var b bytes.Buffer
	width := len(nameDirectory)
	line := func(s Status, name, message, remedy string) {
		word := shown[s].word
		if colour {
			word = shown[s].colour + word + "\x1b[0m"
		}
		_, _ = fmt.Fprintf(&b, "%s  %-*s  %s", word, width, server.PrintableText(name), server.PrintableText(message)) // to memory
		if remedy != "" {
			_, _ = fmt.Fprintf(&b, " -> %s", server.PrintableText(remedy))
		}
		b.WriteByte('\n')
	}
	for _, c := range r.Checks {
		line(c.Status, c.Name, c.Message, c.Remedy)
	}
	for _, c := range r.Containers {
		message := c.Message
		if c.Method != "" {
			message = c.Method + ": " + message
		}
		line(c.Status, "container "+c.Name, message, c.Remedy)
	}
	line(r.Status, "summary", r.summary(), "")
	return b.Bytes()
}

// summary counts.
func (r *Report) summary() string {
	var checks, containers [len(shown)]int
	captured := 0
	for _, c := range r.Checks {
		checks[c.Status]++
	}
	for _, c := range r.Containers {
		containers[c.Status]++
		if c.Method == server.MethodFileMonitor || c.Method == server.MethodStreaming {
			captured++
		}
	}
	return fmt.Sprintf("checks: %s; containers: %s, %d captured", counts(checks), counts(containers), captured)
}

func counts(n [len(shown)]int) string {
	return fmt.Sprintf("%d ok, %d warn, %d failed, %d skipped", n[OK], n[Warn], n[Fail], n[Skip])
}

// JSON gives the report as an object that a terminal can show, too.
func (r *Report) JSON() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // never shown as HTML
	if err := enc.Encode(r); err != nil {
		panic(err) // texts and numbers are always encodable
	}
	return server.Printable(b.Bytes())
}
