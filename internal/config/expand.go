package config

import "strings"

// expand replaces ${VAR} and ${VAR:-default} in s by the value of the variable,
// and $$ by a dollar. As in a shell, the default stands for a variable that is
// unset or empty. What a variable holds is not expanded again. used reports
// whether a variable (or a default) was put in; problem is "" when all is well,
// and never repeats s, which may be a secret.
func expand(s string, env func(string) (string, bool)) (out string, used bool, problem string) {
	if !strings.Contains(s, "$") {
		return s, false, ""
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			b.WriteString(s)
			return b.String(), used, ""
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch {
		case strings.HasPrefix(s, "$"):
			b.WriteByte('$')
			s = s[1:]
		case strings.HasPrefix(s, "{"):
			body, rest, closed := strings.Cut(s[1:], "}")
			if !closed {
				return "", false, "has a ${ without its }"
			}
			s = rest
			name, def, hasDef := strings.Cut(body, ":-")
			if !isVariable(name) {
				return "", false, "has a ${} that does not name a variable"
			}
			// A default is plain text; its own $ must be doubled too.
			if strings.Contains(strings.ReplaceAll(def, "$$", ""), "$") {
				return "", false, "has a $ in the default of ${" + name + "}"
			}
			v, set := env(name)
			switch {
			case hasDef && v == "":
				v = strings.ReplaceAll(def, "$$", "$")
			case !set:
				return "", false, "needs the environment variable " + name + ", which is not set"
			}
			b.WriteString(v)
			used = true
		default:
			return "", false, "has a $ that begins no ${VAR}"
		}
	}
}

// expandAllowed is what is allowed where expand finds a problem.
const expandAllowed = "${VAR}, ${VAR:-default}, or $$ for a dollar"

// isVariable reports whether s can name an environment variable (POSIX).
func isVariable(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		digit := '0' <= c && c <= '9'
		if !letter && (i == 0 || !digit) {
			return false
		}
	}
	return s != ""
}
