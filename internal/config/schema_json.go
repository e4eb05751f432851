package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// JSONSchema is the schema of the file for editors, as JSON Schema 2020-12:
// configs/config.schema.json. It knows keys, types, defaults and how values are
// written. What Load takes it takes as well; the bounds of sizes and time spans,
// and how keys go together, only Load knows. It fails when a key has a kind of
// value that it does not know.
func JSONSchema() ([]byte, error) {
	root := &section{}
	for _, k := range schema() {
		root.add(k)
	}
	sections, err := sectionShape(root)
	if err != nil {
		return nil, err
	}
	top := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$comment", `Made from the schema in internal/config by "go generate ./internal/config"; do not edit.`},
		{"title", "Configuration of log_capturer"},
		{"description", "Keys, types, defaults and how values are written. log_capturer validate knows more: bounds of sizes and time spans, and how keys go together."},
	}
	top = append(top, sections...)
	top = append(top, member{"$defs", object{
		{"variable", object{
			{"description", "Text with ${VAR} or ${VAR:-default}, which the environment replaces."},
			{"type", "string"},
			{"pattern", "^(?:[^$]|" + dollarPattern + ")*" + variablePattern + "(?:[^$]|" + dollarPattern + "|" + variablePattern + ")*$"},
		}},
		{"expanded", object{
			{"description", "Text with ${VAR}, ${VAR:-default}, or $$ for a dollar."},
			{"type", "string"},
			{"pattern", "^[^$]*(?:(?:" + dollarPattern + "|" + variablePattern + ")[^$]*)+$"},
		}},
	}})
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(top); err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return out.Bytes(), nil
}

// What expand takes.
const (
	dollarPattern   = `\$\$`
	variablePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*(?::-(?:[^}$]|\$\$)*)?\}`
)

// object is a JSON object whose members keep their order: editors offer keys in
// the order of the schema.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := enc.Encode(m.name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// sectionShape is a mapping with keys of the schema. One of which all keys are
// commented out has no value.
func sectionShape(s *section) (object, error) {
	var properties object
	for _, name := range s.names {
		var shape object
		var err error
		if k, ok := s.keys[name]; ok {
			shape, err = keyShape(k)
		} else {
			shape, err = sectionShape(s.sections[name])
		}
		if err != nil {
			return nil, err
		}
		properties = append(properties, member{name, shape})
	}
	return object{
		{"type", []string{"object", "null"}},
		{"additionalProperties", false},
		{"properties", properties},
	}, nil
}

// anchorLink is a link within the reference.
var anchorLink = regexp.MustCompile(`\[([^\]]*)\]\(#[^)]*\)`)

// keyShape is a key. What a key takes is told by its text for the reference,
// which the kinds make: it is all that a key keeps of its kind.
func keyShape(k key) (object, error) {
	var def any
	if err := yaml.Unmarshal([]byte(k.def), &def); err != nil {
		return nil, fmt.Errorf("%s: default: %w", k.path, err)
	}
	head := object{
		{"description", anchorLink.ReplaceAllString(k.doc, "$1 in CONFIGURATION.md") + "\n\nAllowed: " + k.allowed + "."},
		{"default", def},
	}
	var shape object
	var err error
	if items, ok := strings.CutPrefix(k.allowed, "list; each item: "); ok {
		shape, err = listShape(k, items)
	} else if items, ok := strings.CutPrefix(k.allowed, "a single item or a list; each item: "); ok {
		var one, many object
		one, err = scalarShape(k.unit, items)
		if err == nil {
			many, err = listShape(k, items)
		}
		shape = object{{"anyOf", []object{one, many}}}
	} else if rest, ok := strings.CutPrefix(k.allowed, "names and values; each name: "); ok {
		names, values, _ := strings.Cut(rest, "; each value: ")
		shape, err = dictShape(k.unit, names, values)
	} else {
		shape, err = scalarShape(k.unit, k.allowed)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.path, err)
	}
	return append(head, shape...), nil
}

func listShape(k key, items string) (object, error) {
	item, err := scalarShape(k.unit, items)
	if err != nil {
		return nil, err
	}
	shape := object{{"type", "array"}, {"items", item}, {"uniqueItems", true}}
	// Whether it may be empty is told by nothing but its own answer.
	d := &decoder{cfg: &Config{}, seen: map[string]int{}, env: func(string) (string, bool) { return "", false }}
	k.set(d, &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}, k.path)
	if len(d.errs) > 0 {
		shape = append(shape, member{"minItems", 1})
	}
	return shape, nil
}

// dictShape is a section of names that the user chooses.
func dictShape(unit, names, values string) (object, error) {
	var pattern string
	switch names {
	case headerName().allowed:
		pattern = tokenPattern.String()
	case labelName().allowed:
		pattern = "^(?:[a-zA-Z]|_(?:[a-zA-Z0-9]|$))[a-zA-Z0-9_]*$" // labelPattern, but not first __
	default:
		return nil, fmt.Errorf("the JSON Schema does not know the names %q", names)
	}
	value, err := scalarShape(unit, values)
	if err != nil {
		return nil, err
	}
	return object{
		{"type", []string{"object", "null"}},
		{"propertyNames", object{{"pattern", pattern}}},
		{"additionalProperties", value},
	}, nil
}

// How sizes and time spans are written (size, time.ParseDuration).
const (
	sizePattern     = `^[0-9]+ *(?:B|KiB|MiB|GiB)?$`
	durationPattern = `^[+-]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)$`
)

var (
	integerAllowed  = regexp.MustCompile(`^a whole number from (\d+) to (\d+)$`)
	sizeAllowed     = regexp.MustCompile(`^(\S+) to (\S+): a number of bytes`)
	durationAllowed = regexp.MustCompile(`^\S+ to \S+: a number with `)
	lineAllowed     = regexp.MustCompile(`: text of one line, at most (\d+) bytes$`)
	choiceAllowed   = regexp.MustCompile(`^[a-z-]+(?: or [a-z-]+)*$`)
)

// scalarShape is one value, or a variable in its place. A dollar stands in
// variables only, so what is without one is the value itself.
func scalarShape(unit, allowed string) (object, error) {
	required, isOptional := strings.CutSuffix(allowed, optional(kind[string]{}).allowed)
	var values []object
	if isOptional {
		values = append(values, object{{"const", ""}})
	}
	ref := "#/$defs/variable"
	zero := strings.Contains(required, ", or 0: ")
	if zero {
		values = append(values, object{{"const", 0}})
	}
	m := integerAllowed.FindStringSubmatch(required)
	switch {
	case required == boolean().allowed:
		values = append(values, object{{"type", "boolean"}})
	case m != nil:
		values = append(values, object{{"type", "integer"}, {"minimum", json.Number(m[1])}, {"maximum", json.Number(m[2])}})
	case unit == "bytes" && sizeAllowed.MatchString(required):
		m = sizeAllowed.FindStringSubmatch(required)
		low, problemLow := size[int64](0, math.MaxInt64, "").parse(m[1])
		high, problemHigh := size[int64](0, math.MaxInt64, "").parse(m[2])
		if problemLow+problemHigh != "" {
			return nil, fmt.Errorf("the bounds %s and %s: %s%s", m[1], m[2], problemLow, problemHigh)
		}
		values = append(values,
			object{{"type", "integer"}, {"minimum", low}, {"maximum", high}},
			object{{"type", "string"}, {"pattern", sizePattern}})
	case unit == "time" && durationAllowed.MatchString(required):
		values = append(values, object{{"type", "string"}, {"pattern", durationPattern}})
	case choiceAllowed.MatchString(required):
		values = append(values, object{{"enum", strings.Split(required, " or ")}})
	default:
		text, err := textShapes(required)
		if err != nil {
			return nil, err
		}
		values = append(values, text...)
		ref = "#/$defs/expanded"
	}
	return object{{"anyOf", append(values, object{{"$ref", ref}})}}, nil
}

// textShapes is text without a dollar. Where any text will do, what YAML takes
// for a number is text as well.
func textShapes(allowed string) ([]object, error) {
	const line = `^[^$\x00-\x1f\x7f]+$`
	known, ok := map[string]struct {
		pattern string
		numbers bool
	}{
		absolutePath().allowed:       {`^/[^$\x00-\x1f\x7f]*$`, false},
		hostName().allowed:           {`^[A-Za-z0-9_.:-]+$`, true},
		dockerHost().allowed:         {`^(?:unix:///|tcp://)[^$\x00-\x1f\x7f]*$`, false},
		lokiURL().allowed:            {`^[Hh][Tt][Tt][Pp][Ss]?://[^$\x00-\x1f\x7f]+$`, false},
		tenantID().allowed:           {`^[!-#%-~]+$`, true},
		userName().allowed:           {`^[^$:\x00-\x1f\x7f]+$`, true},
		containerLabel().allowed:     {line, true},
		containerRule(true).allowed:  {`^(?:labelled|(?:name|image|label)=[^$\x00-\x1f\x7f]+)$`, false},
		containerRule(false).allowed: {`^(?:name|image|label)=[^$\x00-\x1f\x7f]+$`, false},
	}[allowed]
	shape := object{{"type", "string"}}
	if m := lineAllowed.FindStringSubmatch(allowed); !ok && m != nil {
		known.pattern, known.numbers, ok = line, true, true
		maxBytes, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		// The schema counts characters, of which there are no more than bytes.
		shape = append(shape, member{"maxLength", maxBytes})
	}
	if !ok {
		return nil, errors.New("the JSON Schema does not know what is " + allowed)
	}
	shapes := []object{append(shape, member{"pattern", known.pattern})}
	if known.numbers {
		shapes = append(shapes, object{{"type", "number"}})
	}
	return shapes, nil
}
