package monitors

import (
	"strings"
	"unicode/utf8"
)

// The values of Rule.Field.
const (
	ruleName     = "name"
	ruleImage    = "image"
	ruleLabel    = "label"
	ruleLabelled = "labelled"
)

// Rule fits some containers. A rule whose Field is none of those below fits
// none.
type Rule struct {
	// Field is what the rule looks at: "name" (without Docker's slash), "image"
	// (the reference as it was given when the container was made), "label", or
	// "labelled", for containers that ask for it by log_capturer.enable=true.
	Field string
	// Label is the key that "label" looks at, taken literally.
	Label string
	// Pattern is a glob that must fit the whole: * is any run of characters,
	// also / and none, ? is one character, all else is itself. It is empty for
	// "labelled", and for a "label" that only wants the label to be there.
	Pattern string
}

// String is the rule as it is written in the configuration.
func (r Rule) String() string {
	switch {
	case r.Field == ruleLabelled:
		return r.Field
	case r.Field != ruleLabel:
		return r.Field + "=" + r.Pattern
	case r.Pattern == "":
		return r.Field + "=" + r.Label
	}
	return r.Field + "=" + r.Label + "=" + r.Pattern
}

// fits says whether the rule fits a container.
func (r Rule) fits(name, image string, labels map[string]string) bool {
	switch r.Field {
	case ruleName:
		return globFits(r.Pattern, name)
	case ruleImage:
		return globFits(r.Pattern, image)
	case ruleLabel:
		value, ok := labels[r.Label]
		return ok && (r.Pattern == "" || globFits(r.Pattern, value))
	case ruleLabelled:
		return enabled(labels)
	}
	return false
}

// Selection says which containers are captured.
type Selection struct {
	Include []Rule // empty: all
	Exclude []Rule // wins over Include
}

// decide says whether a container is captured, and why, in words for an
// operator. The first of these that holds counts:
//
//   - its label log_capturer.enable says no: it is not, whatever the
//     configuration says, for whoever runs it may know what must not leave it;
//   - a rule of Exclude fits: it is not, though it may ask to be, for the
//     operator of the agent has the last word on what is taken;
//   - its label says yes: it is;
//   - Include is empty, or one of its rules fits: it is; else it is not.
func (s Selection) decide(name, image string, labels map[string]string) (captured bool, reason string) {
	wish := wishOf(labels)
	if wish == wishOut {
		return false, "label " + enableLabel + "=" + labels[enableLabel]
	}
	for _, r := range s.Exclude {
		if r.fits(name, image, labels) {
			return false, "excluded by " + r.String()
		}
	}
	if wish == wishIn {
		return true, "label " + enableLabel + "=" + labels[enableLabel]
	}
	if len(s.Include) == 0 {
		return true, "all are included"
	}
	for _, r := range s.Include {
		if r.fits(name, image, labels) {
			return true, "included by " + r.String()
		}
	}
	return false, "no rule of include fits"
}

// enabled says whether a container asks to be captured, by its enable label.
func enabled(labels map[string]string) bool { return wishOf(labels) == wishIn }

// wish is what a container says of itself by its enable label.
type wish uint8

const (
	wishNone wish = iota // nothing, or nothing that is understood
	wishIn
	wishOut
)

// wishOf reads the enable label. It takes the words that YAML and Compose files
// have for true and false. Any other value, such as a variable that came out
// empty, is as good as no label: it must not take a container out that was
// meant to be in, nor the other way about.
func wishOf(labels map[string]string) wish {
	switch strings.ToLower(strings.TrimSpace(labels[enableLabel])) {
	case "true", "1", "yes", "on":
		return wishIn
	case "false", "0", "no", "off":
		return wishOut
	}
	return wishNone
}

// globFits says whether the pattern (see Rule.Pattern) fits all of s. A byte
// that is no UTF-8 counts as a character of its own.
//
// It tries again from the last star only, which is enough: what stars before it
// have taken can stay as it is, since the last one can take any more. So it
// takes at most len(pattern) × len(s) steps, whoever wrote the two.
func globFits(pattern, s string) bool {
	p, i := 0, 0
	star, from := 0, 0 // behind the last star, 0: none; where what follows it was last tried in s
	for i < len(s) {
		_, size := utf8.DecodeRuneInString(s[i:])
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, from = p, i
			continue
		}
		if p < len(pattern) {
			_, n := utf8.DecodeRuneInString(pattern[p:])
			if pattern[p] == '?' || pattern[p:p+n] == s[i:i+size] {
				p += n
				i += size
				continue
			}
		}
		if star == 0 {
			return false
		}
		_, size = utf8.DecodeRuneInString(s[from:])
		from += size
		p, i = star, from
	}
	return strings.Trim(pattern[p:], "*") == ""
}
