package monitors

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestSelection(t *testing.T) {
	name := func(p string) Rule { return Rule{Field: "name", Pattern: p} }
	image := func(p string) Rule { return Rule{Field: "image", Pattern: p} }
	label := func(k, p string) Rule { return Rule{Field: "label", Label: k, Pattern: p} }
	labelled := Rule{Field: "labelled"}
	enable := func(v string) map[string]string { return map[string]string{enableLabel: v} }
	rules := func(r ...Rule) []Rule { return r }
	for _, tt := range []struct {
		about            string
		include, exclude []Rule
		labels           map[string]string
		want             bool
		reason           string
	}{
		{"no rules", nil, nil, nil, true, "all are included"},
		{"no", nil, nil, enable("false"), false, "label log_capturer.enable=false"},
		{"no, though included", rules(name("*")), nil, enable("false"), false, "label log_capturer.enable=false"},
		{"no, and excluded", nil, rules(name("*")), enable("0"), false, "label log_capturer.enable=0"},
		{"yes", nil, nil, enable("true"), true, "label log_capturer.enable=true"},
		{"yes, not included", rules(name("db")), nil, enable("yes"), true, "label log_capturer.enable=yes"},
		{"yes, but excluded", nil, rules(name("web")), enable("true"), false, "excluded by name=web"},
		{"excluded", nil, rules(name("db"), image("*/app:*")), nil, false, "excluded by image=*/app:*"},
		{"not excluded", nil, rules(name("we"), image("app:1.2")), nil, true, "all are included"},
		{"included and excluded", rules(name("web")), rules(name("w*")), nil, false, "excluded by name=w*"},
		{"included", rules(name("db"), name("we?")), nil, nil, true, "included by name=we?"},
		{"included by image", rules(image("registry:5000/team/app:1.2")), nil, nil, true, "included by image=registry:5000/team/app:1.2"},
		{"not included", rules(name("db"), image("app")), nil, nil, false, "no rule of include fits"},
		{"a label", rules(label("tier", "")), nil, map[string]string{"tier": ""}, true, "included by label=tier"},
		{"not that label", rules(label("tie", "")), nil, map[string]string{"tier": "x"}, false, "no rule of include fits"},
		{"a label's value", nil, rules(label("tier", "front*")), map[string]string{"tier": "frontend"}, false, "excluded by label=tier=front*"},
		{"not that value", rules(label("tier", "front")), nil, map[string]string{"tier": "frontend"}, false, "no rule of include fits"},
		{"a value that must be there", rules(label("tier", "*")), nil, nil, false, "no rule of include fits"},
		{"a key is no glob", rules(label("*", "")), nil, map[string]string{"tier": "x"}, false, "no rule of include fits"},
		{"labelled, without", rules(labelled), nil, nil, false, "no rule of include fits"},
		{"labelled, with", rules(labelled), nil, enable("on"), true, "label log_capturer.enable=on"},
		{"labelled, with another value", rules(labelled), nil, enable("maybe"), false, "no rule of include fits"},
		{"excluded by what it asks for", nil, rules(labelled), enable("true"), false, "excluded by labelled"},
		{"the label by its name", rules(label(enableLabel, "maybe")), nil, enable("maybe"), true, "included by label=log_capturer.enable=maybe"},
		{"an unknown field", rules(Rule{Field: "nom", Pattern: "*"}), nil, nil, false, "no rule of include fits"},
	} {
		t.Run(tt.about, func(t *testing.T) {
			got, reason := Selection{Include: tt.include, Exclude: tt.exclude}.decide("web", "registry:5000/team/app:1.2", tt.labels)
			if got != tt.want || reason != tt.reason {
				t.Errorf("%t, %q instead of %t, %q", got, reason, tt.want, tt.reason)
			}
		})
	}
}

func TestWishOf(t *testing.T) {
	for value, want := range map[string]wish{
		"true": wishIn, "TRUE": wishIn, " True\t": wishIn, "1": wishIn, "yes": wishIn, "Yes": wishIn, "on": wishIn, "ON\n": wishIn,
		"false": wishOut, "FALSE": wishOut, " False": wishOut, "0": wishOut, "no": wishOut, "No ": wishOut, "off": wishOut, "oFF": wishOut,
		"": wishNone, " ": wishNone, "t": wishNone, "f": wishNone, "2": wishNone, "00": wishNone, "tr ue": wishNone, "\"true\"": wishNone,
		"disabled": wishNone, "${ENABLE}": wishNone,
	} {
		if got := wishOf(map[string]string{enableLabel: value}); got != want {
			t.Errorf("%q: %d instead of %d", value, got, want)
		}
	}
	if got := wishOf(nil); got != wishNone {
		t.Errorf("without labels: %d", got)
	}
}

func TestGlobFits(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false}, {"b", "ab", false},
		{"*", "", true}, {"*", "a/b", true}, {"**", "a", true}, {"?", "", false}, {"?", "/", true}, {"?", "é", true}, {"??", "é", false},
		{"*??", "é", false}, {"?*", "é", true}, {"*?", "", false}, {"*?*", "a", true},
		{"web-*", "web-", true}, {"web-*", "web", false}, {"*-1", "web-1", true}, {"*-1", "web-11", false}, {"w*b*1", "web-b-1", true},
		{"*ab", "aab", true}, {"a*b*c", "abcbc", true}, {"a*b*c", "abcb", false}, {"*a*", "bbb", false}, {"*/app:1.*", "r/t/app:1.2", true},
		{"a.c", "abc", false}, {"[ab]", "a", false}, {"[ab]", "[ab]", true}, {`\*`, "*", false}, {`\*`, `\x`, true},
		{"?", "\xff", true}, {"\xff", "\xff", true}, {"\xff", "\xfe", false}, {"\xff", "\uFFFD", false}, {"\xc3", "é", false}, {"*\xa9", "é", false},
	} {
		if got := globFits(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q on %q: %t", tt.pattern, tt.s, got)
		}
	}
}

// TestGlobHostile has patterns that take time exponential in the number of
// stars with a matcher that goes back to each. The time is bounded generously:
// such a matcher would not end within this year.
func TestGlobHostile(t *testing.T) {
	began := time.Now()
	text := strings.Repeat("a", 5000)
	for _, pattern := range []string{
		strings.Repeat("a*", 500) + "b", strings.Repeat("*a", 500) + "b", strings.Repeat("*?", 500) + "b",
		strings.Repeat("*a?*", 300) + "b", "*" + strings.Repeat("a", 2500) + "b",
	} {
		if globFits(pattern, text) {
			t.Errorf("%.20q fits", pattern)
		}
		if !globFits(pattern, text+"b") {
			t.Errorf("%.20q does not fit with a b", pattern)
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

// FuzzGlob compares with the definition, written down as a table of which
// beginning of the pattern fits which beginning of the text.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"", ""}, {"*", "a/b"}, {"a?c*", "abcd"}, {"*??", "é"}, {"*\xa9", "é"}, {"a*b*c", "abcbc"}, {"*a*b", "aabab"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern)*len(s) > 1<<16 {
			return
		}
		if got, want := globFits(pattern, s), globOracle(characters(pattern), characters(s)); got != want {
			t.Errorf("%q on %q: %t instead of %t", pattern, s, got, want)
		}
	})
}

func globOracle(pattern, s []string) bool {
	fits := make([]bool, len(s)+1) // what there is of the pattern, on s[:i]
	fits[0] = true
	for _, p := range pattern {
		next := make([]bool, len(s)+1)
		for i := range next {
			switch {
			case p == "*":
				next[i] = fits[i] || i > 0 && next[i-1]
			case i > 0:
				next[i] = fits[i-1] && (p == "?" || p == s[i-1])
			}
		}
		fits = next
	}
	return fits[len(s)]
}

// characters cuts a text into runes and bytes that are none.
func characters(s string) (all []string) {
	for s != "" {
		_, size := utf8.DecodeRuneInString(s)
		all = append(all, s[:size])
		s = s[size:]
	}
	return all
}
