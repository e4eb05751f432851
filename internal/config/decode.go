package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder carries out one reading of one file. It belongs to one goroutine and
// is used once.
type decoder struct {
	file string
	env  func(string) (string, bool)
	cfg  *Config
	root *section
	// seen has the line of every section, key and list item that the file
	// holds, by path.
	seen map[string]int
	errs Errors
}

// newDecoder makes a decoder whose Config holds the defaults of the schema.
func newDecoder(file string, env func(string) (string, bool)) *decoder {
	d := &decoder{
		file: "defaults of the schema",
		env:  func(string) (string, bool) { return "", false },
		cfg:  &Config{},
		root: &section{},
		seen: map[string]int{},
	}
	for _, k := range schema() {
		d.root.add(k)
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(k.def), &doc); err != nil {
			d.fail(1, k.path, err.Error(), "")
			continue
		}
		k.set(d, doc.Content[0], k.path)
	}
	clear(d.seen)
	d.file, d.env = file, env
	return d
}

// section is a mapping of the schema.
type section struct {
	names    []string // in the order of the schema
	keys     map[string]key
	sections map[string]*section
}

func (s *section) add(k key) {
	for name, rest, more := strings.Cut(k.path, "."); ; name, rest, more = strings.Cut(rest, ".") {
		if s.keys == nil {
			s.keys, s.sections = map[string]key{}, map[string]*section{}
		}
		if !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
		if !more {
			s.keys[name] = k
			return
		}
		if s.sections[name] == nil {
			s.sections[name] = &section{}
		}
		s = s.sections[name]
	}
}

func (d *decoder) fail(line int, key, problem, allowed string) {
	d.errs = append(d.errs, Error{File: d.file, Line: max(line, 1), Key: key, Problem: problem, Allowed: allowed})
}

// failed reports whether something is wrong at or below one of the keys. What
// depends on them is then not checked: it would be a consequence.
func (d *decoder) failed(keys ...string) bool {
	return slices.ContainsFunc(d.errs, func(e Error) bool {
		return slices.ContainsFunc(keys, func(k string) bool {
			rest, ok := strings.CutPrefix(e.Key, k)
			return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
		})
	})
}

// line is where a key stands in the file, or the nearest section around it.
func (d *decoder) line(path string) int {
	for {
		if n, ok := d.seen[path]; ok {
			return n
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return 1
		}
		path = path[:i]
	}
}

// document decodes a whole file.
func (d *decoder) document(data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // empty, or comments only: the defaults
	}
	if err == nil {
		if e := dec.Decode(&next); e == nil {
			d.fail(next.Line, "", "a second YAML document begins here", "one document per file")
		} else if !errors.Is(e, io.EOF) {
			err = e
		}
	}
	if err != nil {
		line, problem := syntaxError(err, data)
		d.fail(line, "", problem, "two spaces per level, no tabs, quotes around text with special characters")
		return
	}
	d.mapping(doc.Content[0], d.root, "")
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: line (\d+): `)
	yamlAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
)

// syntaxError gives the line and text of an error of the YAML library. Its
// line is where the construct begins, which can be a little before the mistake.
func syntaxError(err error, data []byte) (line int, problem string) {
	text := err.Error()
	if m := yamlAnchor.FindStringSubmatch(text); m != nil {
		// Its text may be a secret that begins with "*": it is not repeated,
		// and the line has to be found.
		i := bytes.Index(data, []byte("*"+m[1]))
		return 1 + bytes.Count(data[:max(i, 0)], []byte("\n")), "a value that begins with * is not in quotes"
	}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return max(line, 1), "is not YAML: " + strings.TrimPrefix(text, "yaml: ")
}

// mapping decodes a mapping whose keys are those of s.
func (d *decoder) mapping(n *yaml.Node, s *section, path string) {
	if n.Kind != yaml.MappingNode || decorated(n) {
		if isNull(n) {
			return // every key of the section is commented out
		}
		d.fail(n.Line, path, describe(n), "a section with the keys "+strings.Join(s.names, ", "))
		return
	}
	for name, pair := range d.pairs(n, path, func(s string) (string, string) { return s, "" }, "") {
		at := join(path, name)
		d.seen[at] = pair.key.Line
		if k, ok := s.keys[name]; ok {
			k.set(d, pair.value, at)
		} else if sub, ok := s.sections[name]; ok {
			d.mapping(pair.value, sub, at)
		} else {
			problem := "unknown key" + hint(name, s)
			if strings.Contains(name, ":") {
				problem = "has a colon in the key: after the colon that ends it there must be a space"
			}
			d.fail(pair.key.Line, at, problem, "allowed here: "+strings.Join(s.names, ", "))
		}
	}
}

type pair struct{ key, value *yaml.Node }

// pairs gives the entries of a mapping in order. clean makes a name of a key,
// or says what is wrong with it. A key that is no plain text, or that stands
// there twice, is reported and left out.
func (d *decoder) pairs(n *yaml.Node, path string, clean func(string) (name, problem string), allowed string) func(func(string, pair) bool) {
	return func(yield func(string, pair) bool) {
		first := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			p := pair{n.Content[i], n.Content[i+1]}
			if p.key.Kind != yaml.ScalarNode {
				d.fail(p.key.Line, path, "a key "+describe(p.key), "plain text as the key")
				continue
			}
			name, problem := clean(p.key.Value)
			at := join(path, p.key.Value)
			if problem != "" {
				d.fail(p.key.Line, at, problem, allowed)
				continue
			}
			if line, twice := first[name]; twice {
				d.fail(p.key.Line, at, "is written twice, first in line "+strconv.Itoa(line), "each key once")
				continue
			}
			first[name] = p.key.Line
			if !yield(name, p) {
				return
			}
		}
	}
}

// join gives the path of a key. A name that would spoil an error's one line is
// quoted. What follows a colon in it is left out: {password:x} lacks a space, and is
// a key with its value, perhaps a secret one.
func join(path, name string) string {
	if before, _, found := strings.Cut(name, ":"); found {
		name = before + ":..."
	}
	if !plainKey(name) {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func plainKey(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c == '"' || c >= 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxQuoted
}

// maxQuoted is how many bytes of a value or name an error repeats.
const maxQuoted = 64

func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(strings.ToValidUTF8(s[:maxQuoted], "")) + "..."
	}
	return strconv.Quote(s)
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && !decorated(n) && n.ShortTag() == "!!null"
}

// decorated reports whether a node has a tag or an anchor. Neither is of use
// here, and text that begins with ! or & and lacks its quotes looks like one.
func decorated(n *yaml.Node) bool { return n.Style&yaml.TaggedStyle != 0 || n.Anchor != "" }

// describe says what a node is that was not expected there, without its text.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return "is a YAML alias"
	case n.Style&yaml.TaggedStyle != 0:
		return "has a YAML tag (text that begins with ! needs quotes)"
	case n.Anchor != "":
		return "has a YAML anchor (text that begins with & needs quotes)"
	case n.Kind == yaml.MappingNode:
		return "is a section with keys of its own"
	case n.Kind == yaml.SequenceNode:
		return "is a list"
	case isNull(n):
		return "has no value"
	case n.ShortTag() == "!!bool":
		return "is true or false, not text"
	default:
		return "is a single value"
	}
}

// scalar reads one value of kind k. ok is false when it was not of that kind,
// which has then been reported.
func scalar[T any](d *decoder, n *yaml.Node, path string, k kind[T]) (v T, ok bool) {
	if n.Kind != yaml.ScalarNode || decorated(n) || isNull(n) {
		d.fail(n.Line, path, describe(n), k.allowed)
		return v, false
	}
	text, used, problem := expand(n.Value, d.env)
	if problem != "" {
		d.fail(n.Line, path, problem, expandAllowed)
		return v, false
	}
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch {
	case used: // what a variable holds has no type of its own
	case k.bare && quoted:
		d.fail(n.Line, path, "is text in quotes", k.allowed)
		return v, false
	case k.text && n.ShortTag() == "!!bool":
		d.fail(n.Line, path, describe(n), k.allowed+" (text that reads true or false needs quotes)")
		return v, false
	}
	v, problem = k.parse(text)
	if problem == "" {
		return v, true
	}
	// What comes from the environment may be a secret put in the wrong place.
	subject := "the value"
	if !used && !k.secret {
		subject = quote(text)
	}
	d.fail(n.Line, path, subject+" "+problem, k.allowed)
	return v, false
}

// list reads a list of values of kind k, at least minItems, each once.
func list[T any](d *decoder, n *yaml.Node, path string, k kind[T], minItems int) (out []T, ok bool) {
	allowed := "a list; each item: " + k.allowed
	if n.Kind != yaml.SequenceNode || decorated(n) {
		d.fail(n.Line, path, describe(n), allowed)
		return nil, false
	}
	if len(n.Content) < minItems {
		d.fail(n.Line, path, "is empty", fmt.Sprintf("at least %d; each item: %s", minItems, k.allowed))
		return nil, false
	}
	before := len(d.errs)
	first := map[string]int{}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.seen[at] = item.Line
		v, ok := scalar(d, item, at, k)
		if !ok {
			continue
		}
		if _, twice := first[item.Value]; twice {
			d.fail(item.Line, at, "is in the list twice", "each item once")
			continue
		}
		first[item.Value] = i
		out = append(out, v)
	}
	return out, len(d.errs) == before
}

// dict reads a mapping from names to values of kind k.
func dict[T any](d *decoder, n *yaml.Node, path string, names kind[string], k kind[T]) (out map[string]T, ok bool) {
	if isNull(n) {
		return nil, true // every name is commented out
	}
	if n.Kind != yaml.MappingNode || decorated(n) {
		d.fail(n.Line, path, describe(n), "a section of names and values; each name: "+names.allowed)
		return nil, false
	}
	before := len(d.errs)
	out = make(map[string]T, len(n.Content)/2)
	for name, p := range d.pairs(n, path, names.parse, names.allowed) {
		d.seen[join(path, name)] = p.key.Line
		if v, ok := scalar(d, p.value, join(path, p.key.Value), k); ok {
			out[name] = v
		}
	}
	return out, len(d.errs) == before
}

// hint proposes the key that may have been meant by an unknown one: one beside
// it that is spelled nearly so or begins so, or the only one of that name
// elsewhere.
func hint(name string, s *section) string {
	best, dist := "", 3
	for _, k := range s.names {
		if n := distance(name, k); n < dist && n < len(k) {
			best, dist = k, n
		}
	}
	for _, k := range s.names {
		if best == "" && len(name) >= 3 && strings.HasPrefix(k, name) {
			best = k
		}
	}
	if best != "" {
		return ", did you mean " + best + "?"
	}
	for _, k := range schema() {
		if k.path == name || strings.HasSuffix(k.path, "."+name) {
			if best != "" {
				return "" // not the only one
			}
			best = k.path
		}
	}
	if best != "" {
		return ", did you mean " + best + "?"
	}
	return ""
}

// distance is the number of single-byte edits that make b of a (Levenshtein).
// Names that are far too long to be a misspelling are not compared.
func distance(a, b string) int {
	if len(a) > 2*len(b)+2 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
