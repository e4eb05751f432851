package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

const schemaFile = "../../configs/config.schema.json"

// TestReferenceJSONSchema: the schema that is checked in is the one of the keys.
func TestReferenceJSONSchema(t *testing.T) {
	want, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("configs/config.schema.json is not what the schema says: run go generate ./internal/config")
	}
	// Editors look for it beside the file that names it.
	example, err := os.ReadFile("../../configs/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)\A# yaml-language-server: \$schema=(\S+)$`).FindSubmatch(example)
	if len(m) != 2 || path.Join("../../configs", string(m[1])) != schemaFile {
		t.Errorf("the first line of configs/config.yaml does not name the schema: %q", m)
	}
}

// editor is the schema as an editor has it.
func editor(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("config.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.schema.json") // checked against the schema of schemas
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	decimal  = regexp.MustCompile(`^[+-]?[0-9]+$`)
	fraction = regexp.MustCompile(`^[+-]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?$`)
)

// plain is what an editor makes of a node: the core schema of YAML 1.2, in the
// terms of JSON.
func plain(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0])
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			list[i] = plain(item)
		}
		return list
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return m
	}
	if n.Style != 0 {
		return n.Value
	}
	switch v := n.Value; v {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	default:
		if !decimal.MatchString(v) && !fraction.MatchString(v) {
			return v
		}
		number := strings.TrimPrefix(v, "+")
		sign := ""
		if rest, negative := strings.CutPrefix(number, "-"); negative {
			sign, number = "-", rest
		}
		if number = strings.TrimLeft(number, "0"); number == "" || number[0] < '0' || number[0] > '9' {
			number = "0" + number
		}
		return json.Number(sign + strings.TrimSuffix(number, "."))
	}
}

// inEditor gives what an editor says of a file; nil is nothing.
func inEditor(t testing.TB, s *jsonschema.Schema, file string) error {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(file), &doc); err != nil {
		t.Fatalf("%v:\n%s", err, file)
	}
	return s.Validate(plain(&doc))
}

// at is a file with one key, in sections of their own lines.
func at(path, value string) string {
	var b strings.Builder
	names := strings.Split(path, ".")
	for i, name := range names {
		b.WriteString(strings.Repeat("  ", i) + name + ":")
		if i < len(names)-1 {
			b.WriteByte('\n')
		}
	}
	return b.String() + " " + value + "\n"
}

func TestJSONSchemaTakes(t *testing.T) {
	s := editor(t)
	example, err := os.ReadFile("../../configs/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{
		string(example),
		string(regexp.MustCompile(`(?m)^( *)#(\S)`).ReplaceAll(example, []byte("$1$2"))), // with every key
		"sinks:\n  loki:\n    labels:\n    headers:\nlog:\n",                             // sections without a key
	}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(Reference(), -1) {
		files = append(files, block[1])
	}
	if len(files) < 5 {
		t.Errorf("%d files", len(files))
	}
	for _, k := range schema() {
		files = append(files, at(k.path, k.def))
	}
	for _, file := range files {
		if err := inEditor(t, s, file); err != nil {
			t.Errorf("%s\n%v", file, err)
		}
	}
}

// wrongKind reports whether an error is one of a key or a type: what an editor
// must see as well.
func wrongKind(e Error) bool {
	for _, p := range []string{"unknown key", "is a section with", "is a list", "has no value", "is a single value", "is true or false, not text", "is text in quotes"} {
		if strings.HasPrefix(e.Problem, p) {
			return true
		}
	}
	return false
}

// TestJSONSchemaFinds: for each key and section there is, what Load calls an
// unknown key or a wrong type an editor marks, too.
func TestJSONSchemaFinds(t *testing.T) {
	s := editor(t)
	files := map[string]bool{"- a\n": true, "hello\n": true} // those that must be of the kind
	sections := map[string]bool{}
	for _, k := range schema() {
		for i, c := range k.path {
			if c == '.' {
				sections[k.path[:i]] = true
			}
		}
		for _, v := range []string{"{zzz: 1}", "[[a]]", "[{}]", "[null]", "{a: [b]}", "{a: true}", "null", "true", "'true'", "'1'", "[]", "1", "x", "1.5"} {
			files[at(k.path, v)] = false
		}
		files[at(k.path+"s", k.def)] = true
		files[at(k.path, "~")] = k.path != "sinks.loki.headers" && k.path != "sinks.loki.labels"
	}
	files["servers: {}\n"] = true
	for path := range sections {
		files[at(path, "{zzz: 1}")] = true
		files[at(path, "[a]")] = true
		files[at(path, "a")] = true
		files[at(path, "true")] = true
	}
	found := map[string]int{}
	for file, must := range files {
		_, err := parse("f", []byte(file), testEnv)
		var errs Errors
		if err != nil && !errors.As(err, &errs) {
			t.Fatal(err)
		}
		wrong := false
		for _, e := range errs {
			if wrongKind(e) {
				wrong = true
				found[strings.Fields(e.Problem)[0]+" "+strings.Fields(e.Problem)[1]]++
			}
		}
		if must && !wrong {
			t.Errorf("%s\nof no wrong kind: %v", file, errs)
		}
		if wrong && inEditor(t, s, file) == nil {
			t.Errorf("%s\nthe editor does not see: %v", file, errs)
		}
	}
	for _, kind := range []string{"unknown key,", "unknown key", "is a", "has no", "is true", "is text"} {
		if kind != "unknown key," && found[kind] == 0 && found[kind+","] == 0 {
			t.Errorf("%q is not among %v", kind, found)
		}
	}
	// These are no types, and are seen all the same.
	for _, file := range []string{
		at("server.port", "65536"), at("shutdown_grace", "5"), at("shutdown_grace", "5 s"), at("spool.max_bytes", "16MB"), at("spool.max_bytes", "15"),
		at("log.level", "trace"), at("monitors.container.read_from", "middle"), at("monitors.container.file_based_monitoring.log_drivers", "[]"),
		at("monitors.container.file_based_monitoring.log_drivers", "[json-file, json-file]"), at("monitors.container.exclude", "labelled"),
		at("sinks.loki.url", "loki:3100"), at("docker.host", "/var/run/docker.sock"), at("docker.containers_dir", "containers"), at("data_dir", "$HOME/data"),
		at("host", "'${LOKI'"), at("sinks.loki.labels", "{a-b: x}"), at("sinks.loki.labels", "{__a: x}"), at("sinks.loki.headers", "{'a b': x}"),
		at("sinks.loki.tenant_id", "a b"), at("sinks.loki.basic_auth.username", "'a:b'"), at("data_dir", "''"), at("host", "\"a\\nb\""),
		at("server.port", "'${1}'"), at("log.level", "'$${LOKI}'"),
	} {
		if _, err := parse("f", []byte(sink+file), testEnv); err == nil {
			t.Errorf("%s: is right", file)
		}
		if inEditor(t, s, file) == nil {
			t.Errorf("%s: the editor does not see it", file)
		}
	}
}

// TestJSONSchemaAgrees: whatever Load takes an editor takes, and what Load calls
// an unknown key or a wrong type it does not.
func TestJSONSchemaAgrees(t *testing.T) {
	s := editor(t)
	keys := slices.DeleteFunc(schema(), func(k key) bool { return k.path == "sinks.stdout.enabled" }) // in each file
	values := []string{
		"true", "False", "0", "00", "-0", "+5", "007", "1", "8401", "65536", "1.5", "-1", "1e3", ".5", "''", "'1'", "x", "json", "info", "json-file", "[json-file]", "[]",
		"[a.b, c]", "[1, 2]", "{a: b}", "{a: 1, _: x}", "{A: true}", "{}", "~", "5s", "1h30m", "'5s'", "0s", "'0'", "-0s", "+.5s", "100ms", "2m", "64KiB", "2 MiB", "'1024'", "1GiB", "1MB", "0MiB",
		"/a", "a/b", "unix:///a", "tcp://h:1", "http://l", "HTTPS://l/x?a=b", "'http://[::1]:1/push'", "'::1'", "10.0.0.1", "2020-01-01", "é", "a b", "labelled", "name=a*", "[label=a, image=b]",
		"beginning", "end", "text", "'${PORT}'", "'${NONE:-5s}'", "'${NONE:-true}'", "'a${PORT}b$$'", "$$", "'a$$b'", "$HOME", "'${NONE:-a b}'", "'${NONE:-$$}'", "'${NONE}'",
		"'/$$/${LOKI}'", "['name=${PORT}']", "{a: '${PORT}'}",
	}
	taken, wrong := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var file string
		top := func(k key) string { name, _, _ := strings.Cut(k.path, "."); return name }
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 3, top).Draw(t, "keys") {
			file += at(k.path, rapid.SampledFrom(values).Draw(t, k.path))
		}
		if strings.Contains(file, "sinks:\n") {
			file = strings.Replace(file, "sinks:\n", "sinks:\n  stdout: {enabled: true}\n", 1)
		} else {
			file += sink
		}
		_, err := parse("f", []byte(file), testEnv)
		var errs Errors
		if err != nil && !errors.As(err, &errs) {
			t.Fatal(err)
		}
		kind := false
		for _, e := range errs {
			kind = kind || wrongKind(e)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(file), &doc); err != nil {
			t.Fatalf("%v:\n%s", err, file)
		}
		says := s.Validate(plain(&doc))
		switch {
		case err == nil && says != nil:
			t.Errorf("%s\nis right, and the editor says %v", file, says)
		case kind && says == nil:
			t.Errorf("%s\nthe editor does not see: %v", file, errs)
		}
		if err == nil {
			taken++
		} else if kind {
			wrong++
		}
	})
	if taken == 0 || wrong == 0 { // of 100, on average 15 and 45
		t.Errorf("%d files were right, %d of wrong kinds", taken, wrong)
	}
}
