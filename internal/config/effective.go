package config

import (
	"net/url"
	"strings"
)

// Effective gives every key with its value in force, nested and named as in the
// file, to be encoded and shown: a secret is a placeholder. Values are what JSON
// has: text, numbers, true and false, lists and maps.
func (c *Config) Effective() map[string]any {
	all := map[string]any{}
	for _, k := range schema() {
		section, path := all, k.path
		for name, rest, more := strings.Cut(path, "."); more; name, rest, more = strings.Cut(path, ".") {
			inner, ok := section[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
				section[name] = inner
			}
			section, path = inner, rest
		}
		section[path] = k.get(c)
	}
	return all
}

// shown gives a value as it may be shown to anybody.
func (k kind[T]) shown(v T) any {
	if k.show != nil {
		return k.show(v)
	}
	if s, ok := any(v).(Secret); ok {
		return s.String() // whoever encodes it cannot get at the text
	}
	return v
}

func (k kind[T]) shownAll(values []T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = k.shown(v)
	}
	return all
}

// hideURL gives a URL without what may be a secret in it: a password, and the
// values of its query.
func hideURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return Secret(s).String()
	}
	query := strings.FieldsFunc(u.RawQuery, func(r rune) bool { return r == '&' || r == ';' })
	for i, part := range query {
		if name, _, ok := strings.Cut(part, "="); ok {
			query[i] = name + "=hidden"
		} else {
			query[i] = "hidden"
		}
	}
	u.RawQuery = strings.Join(query, "&")
	return u.Redacted()
}

// String gives the rule as the file has it.
func (r ContainerRule) String() string {
	switch {
	case r.Field == RuleLabelled:
		return RuleLabelled
	case r.Field != RuleLabel:
		return r.Field + "=" + r.Pattern
	case r.Pattern == "":
		return RuleLabel + "=" + r.Label
	default:
		return RuleLabel + "=" + r.Label + "=" + r.Pattern
	}
}
