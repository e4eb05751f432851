package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite CONFIGURATION.md")

// envOf makes a lookup of a map.
func envOf(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

var testEnv = envOf(map[string]string{
	"LOKI": "http://loki:3100", "PORT": "9000", "EMPTY": "", "BAD": "s3cret", "DOLLAR": "${LOKI}$$",
	"COLON": "a: [b", "TRUE": "true", "LINES": "a\nb", "LATIN1": "\xe4",
})

// sink makes a file valid that says nothing of sinks.
const sink = "sinks: {stdout: {enabled: true}}\n"

func TestDefaultsAreRight(t *testing.T) {
	d := newDecoder("x", testEnv)
	if len(d.errs) > 0 {
		t.Fatalf("defaults of the schema:\n%v", d.errs)
	}
	cfg, err := parse("x", []byte("sinks: {loki: {url: http://loki}}"), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		DataDir:       "/var/lib/log_capturer",
		Server:        Server{Host: "127.0.0.1", Port: 8401},
		Log:           Log{Level: slog.LevelInfo, Format: "text"},
		ShutdownGrace: 5 * time.Second,
		Monitors: Monitors{Container{
			Enabled:             true,
			FileBasedMonitoring: FileBasedMonitoring{Enabled: true, LogDrivers: []string{"json-file"}, FallbackToStreaming: true},
			Streaming:           Streaming{Enabled: true, MaxStreams: 50},
			ReadFrom:            "beginning",
			IgnoreOlderThan:     168 * time.Hour,
			MaxLineBytes:        256 << 10,
		}},
		Spool: Spool{MaxBytes: 1 << 30, MinFreeBytes: 256 << 20},
		Sinks: Sinks{Loki: Loki{
			URL: "http://loki", Headers: map[string]Secret{}, Labels: map[string]string{},
			StructuredMetadata: true, ShipMalformed: true,
			BatchWait: 140 * time.Millisecond, BatchBytes: 1 << 20, Timeout: 10 * time.Second,
		}},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

// TestEveryKeyTakesEffect sets each key of the schema alone to something that
// is not its default, and looks for it where it must be, and nowhere else.
func TestEveryKeyTakesEffect(t *testing.T) {
	type c = Config
	set := map[string]struct {
		yaml string
		get  func(*Config) any
		want any
	}{
		"host":                       {"web-1", func(c *c) any { return c.Host }, "web-1"},
		"data_dir":                   {"/d", func(c *c) any { return c.DataDir }, "/d"},
		"shutdown_grace":             {"0", func(c *c) any { return c.ShutdownGrace }, time.Duration(0)},
		"server.host":                {"'::'", func(c *c) any { return c.Server.Host }, "::"},
		"server.port":                {"80", func(c *c) any { return c.Server.Port }, 80},
		"server.token_file":          {"/s", func(c *c) any { return c.Server.TokenFile }, "/s"},
		"server.pprof":               {"true", func(c *c) any { return c.Server.Pprof }, true},
		"log.level":                  {"debug", func(c *c) any { return c.Log.Level }, slog.LevelDebug},
		"log.format":                 {"json", func(c *c) any { return c.Log.Format }, "json"},
		"docker.host":                {"unix:///d.sock", func(c *c) any { return c.Docker.Host }, "unix:///d.sock"},
		"docker.containers_dir":      {"/c", func(c *c) any { return c.Docker.ContainersDir }, "/c"},
		"monitors.container.enabled": {"false", func(c *c) any { return c.Monitors.Container.Enabled }, false},
		"monitors.container.include": {"[labelled, 'name=web-?', image=*/app:1.*]", func(c *c) any { return c.Monitors.Container.Include },
			[]ContainerRule{{"labelled", "", ""}, {"name", "", "web-?"}, {"image", "", "*/app:1.*"}}},
		"monitors.container.exclude": {"[label=a.b, label=c=d=*]", func(c *c) any { return c.Monitors.Container.Exclude },
			[]ContainerRule{{"label", "a.b", ""}, {"label", "c", "d=*"}}},
		"monitors.container.file_based_monitoring.enabled":               {"false", func(c *c) any { return c.Monitors.Container.FileBasedMonitoring.Enabled }, false},
		"monitors.container.file_based_monitoring.fallback_to_streaming": {"false", func(c *c) any { return c.Monitors.Container.FileBasedMonitoring.FallbackToStreaming }, false},
		"monitors.container.streaming.enabled":                           {"false", func(c *c) any { return c.Monitors.Container.Streaming.Enabled }, false},
		"monitors.container.streaming.max_streams":                       {"1", func(c *c) any { return c.Monitors.Container.Streaming.MaxStreams }, 1},
		// The only value there is. That it goes through is seen by a list that is empty before.
		"monitors.container.file_based_monitoring.log_drivers": {"['json-file']", func(c *c) any { return c.Monitors.Container.FileBasedMonitoring.LogDrivers }, []string{"json-file"}},
		"monitors.container.read_from":                         {"end", func(c *c) any { return c.Monitors.Container.ReadFrom }, "end"},
		"monitors.container.ignore_older_than":                 {"0", func(c *c) any { return c.Monitors.Container.IgnoreOlderThan }, time.Duration(0)},
		"monitors.container.max_line_bytes":                    {"1MiB", func(c *c) any { return c.Monitors.Container.MaxLineBytes }, 1 << 20},
		"monitors.container.container_labels": {"[com.example.team, tier]", func(c *c) any { return c.Monitors.Container.ContainerLabels },
			[]ContainerLabel{{"com.example.team", "com_example_team"}, {"tier", "tier"}}},
		"spool.max_bytes":                     {"0", func(c *c) any { return c.Spool.MaxBytes }, int64(0)},
		"spool.min_free_bytes":                {"5GiB", func(c *c) any { return c.Spool.MinFreeBytes }, int64(5 << 30)},
		"sinks.loki.url":                      {"'https://l/push?a=b'", func(c *c) any { return c.Sinks.Loki.URL }, "https://l/push?a=b"},
		"sinks.loki.tenant_id":                {"007", func(c *c) any { return c.Sinks.Loki.TenantID }, "007"},
		"sinks.loki.basic_auth.username":      {"u", func(c *c) any { return c.Sinks.Loki.BasicAuth.Username }, "u"},
		"sinks.loki.basic_auth.password":      {"1e3", func(c *c) any { return c.Sinks.Loki.BasicAuth.Password.Reveal() }, "1e3"},
		"sinks.loki.basic_auth.password_file": {"/p", func(c *c) any { return c.Sinks.Loki.BasicAuth.PasswordFile }, "/p"},
		"sinks.loki.bearer_token_file":        {"/t", func(c *c) any { return c.Sinks.Loki.BearerTokenFile }, "/t"},
		"sinks.loki.tls.ca_file":              {"/ca", func(c *c) any { return c.Sinks.Loki.TLS.CAFile }, "/ca"},
		"sinks.loki.tls.cert_file":            {"/ce", func(c *c) any { return c.Sinks.Loki.TLS.CertFile }, "/ce"},
		"sinks.loki.tls.key_file":             {"/k", func(c *c) any { return c.Sinks.Loki.TLS.KeyFile }, "/k"},
		"sinks.loki.tls.server_name":          {"s", func(c *c) any { return c.Sinks.Loki.TLS.ServerName }, "s"},
		"sinks.loki.tls.insecure_skip_verify": {"true", func(c *c) any { return c.Sinks.Loki.TLS.InsecureSkipVerify }, true},
		"sinks.loki.headers":                  {"{x-a: b}", func(c *c) any { return c.Sinks.Loki.Headers }, map[string]Secret{"X-A": "b"}},
		"sinks.loki.labels":                   {"{env: prod}", func(c *c) any { return c.Sinks.Loki.Labels }, map[string]string{"env": "prod"}},
		"sinks.loki.structured_metadata":      {"false", func(c *c) any { return c.Sinks.Loki.StructuredMetadata }, false},
		"sinks.loki.ship_malformed":           {"false", func(c *c) any { return c.Sinks.Loki.ShipMalformed }, false},
		"sinks.loki.batch_wait":               {"1s", func(c *c) any { return c.Sinks.Loki.BatchWait }, time.Second},
		"sinks.loki.batch_bytes":              {"65536", func(c *c) any { return c.Sinks.Loki.BatchBytes }, 64 << 10},
		"sinks.loki.timeout":                  {"1m", func(c *c) any { return c.Sinks.Loki.Timeout }, time.Minute},
		"sinks.stdout.enabled":                {"true", func(c *c) any { return c.Sinks.Stdout.Enabled }, true},
	}
	for _, k := range schema() {
		x, ok := set[k.path]
		if !ok {
			t.Errorf("%s: no test that it takes effect", k.path)
			continue
		}
		delete(set, k.path)

		// As a file: a: {b: {c: value}}.
		file := strings.ReplaceAll(k.path, ".", ": {") + ": " + x.yaml + strings.Repeat("}", strings.Count(k.path, "."))
		d := newDecoder("x", testEnv)
		if k.path == "monitors.container.file_based_monitoring.log_drivers" {
			d.cfg.Monitors.Container.FileBasedMonitoring.LogDrivers = nil
		} else if got := x.get(d.cfg); reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: the test uses the default %v", k.path, got)
		}
		d.document([]byte(file))
		if len(d.errs) > 0 {
			t.Errorf("%s: %v", file, d.errs)
		}
		if got := x.get(d.cfg); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: got %#v, want %#v", file, got, x.want)
		}
		if n := differences(reflect.ValueOf(*newDecoder("x", testEnv).cfg), reflect.ValueOf(*d.cfg)); n > 1 ||
			n == 0 && k.path != "monitors.container.file_based_monitoring.log_drivers" {
			t.Errorf("%s: changed %d fields, want 1", file, n)
		}
	}
	for path := range set {
		t.Errorf("%s: tested, but no such key", path)
	}
}

// differences counts the fields, at any depth, that differ.
func differences(a, b reflect.Value) int {
	if a.Kind() != reflect.Struct {
		if reflect.DeepEqual(a.Interface(), b.Interface()) {
			return 0
		}
		return 1
	}
	n := 0
	for i := range a.NumField() {
		n += differences(a.Field(i), b.Field(i))
	}
	return n
}

// leaves counts the fields, at any depth, that are no structs.
func leaves(t reflect.Type) int {
	if t.Kind() != reflect.Struct {
		return 1
	}
	n := 0
	for i := range t.NumField() {
		n += leaves(t.Field(i).Type)
	}
	return n
}

func TestSchema(t *testing.T) {
	paths := map[string]bool{}
	for _, k := range schema() {
		if k.doc == "" || k.allowed == "" || k.set == nil || !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: incomplete", k.path)
		}
		if paths[k.path] {
			t.Errorf("%s: there twice", k.path)
		}
		paths[k.path] = true
	}
	for p := range paths {
		for q := range paths {
			if strings.HasPrefix(q, p+".") {
				t.Errorf("%s is a key and a section", p)
			}
		}
	}
	if n := leaves(reflect.TypeFor[Config]()); n != len(paths) {
		t.Errorf("Config has %d fields, the schema %d keys", n, len(paths))
	}
}

// TestErrors has, for each way to be wrong, the exact lines.
func TestErrors(t *testing.T) {
	const labels = "letters, digits and _, not first a digit or __, and none of job, host, container_name, image, compose_project, compose_service, stream, malformed"
	const exclude = "name=GLOB, image=GLOB, label=KEY or label=KEY=GLOB (* is any text, ? one character)"
	const include = exclude + ", or labelled"
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"nothing", "", []string{
			"f:1: sinks: no destination for the lines; set sinks.loki.url, or sinks.stdout.enabled: true",
		}},
		{"comments only", "# nothing\n", []string{
			"f:1: sinks: no destination for the lines; set sinks.loki.url, or sinks.stdout.enabled: true",
		}},
		{"empty URL", "host: a\nsinks:\n  loki:\n    url: ''\n", []string{
			"f:2: sinks: no destination for the lines; set sinks.loki.url, or sinks.stdout.enabled: true",
		}},
		{"both", "sinks:\n  loki:\n    url: http://l\n  stdout:\n    enabled: true\n", []string{
			"f:5: sinks.stdout.enabled: is true although sinks.loki.url is set, and lines have one destination; choose one: remove sinks.loki.url or set this to false",
		}},
		{"no sections", "- a\n", []string{
			"f:1: is a list; a section with the keys host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
		}},
		{"a word", "hello\n", []string{
			"f:1: is a single value; a section with the keys host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
		}},
		{"two documents", sink + "---\nhost: a\n", []string{
			"f:2: a second YAML document begins here; one document per file",
		}},
		{"syntax", "host: a\nserver: {\n", []string{
			"f:2: is not YAML: did not find expected node content; two spaces per level, no tabs, quotes around text with special characters",
		}},
		{"syntax of a second document", sink + "---\na: [\n", []string{
			"f:3: is not YAML: did not find expected node content; two spaces per level, no tabs, quotes around text with special characters",
		}},
		{"tab", sink + "server:\n\tport: 1\n", []string{
			"f:3: is not YAML: found character that cannot start any token; two spaces per level, no tabs, quotes around text with special characters",
		}},
		{"not text", "host: \x01\n", []string{
			"f:1: is not YAML: control characters are not allowed; two spaces per level, no tabs, quotes around text with special characters",
		}},
		{"unquoted star", sink + "server:\n  host: *s3cret\n", []string{
			"f:3: a value that begins with * is not in quotes; two spaces per level, no tabs, quotes around text with special characters",
		}},
		{"alias", "host: &a x\nserver: {host: *a}\n" + sink, []string{
			"f:1: host: has a YAML anchor (text that begins with & needs quotes); a label value: text of one line, at most 2048 bytes, or \"\" for none",
			"f:2: server.host: is a YAML alias; an IP address or a host name, without a port",
		}},
		{"recursive alias", "server: &a\n  host: *a\n" + sink, []string{
			"f:1: server: has a YAML anchor (text that begins with & needs quotes); a section with the keys host, port, token_file, pprof",
		}},
		{"tags", "host: !!str x\nlog: !x {}\nserver: {host: !s3cret }\nmonitors: {container: {container_labels: !y [a]}}\n" + sink, []string{
			"f:1: host: has a YAML tag (text that begins with ! needs quotes); a label value: text of one line, at most 2048 bytes, or \"\" for none",
			"f:2: log: has a YAML tag (text that begins with ! needs quotes); a section with the keys level, format",
			"f:3: server.host: has a YAML tag (text that begins with ! needs quotes); an IP address or a host name, without a port",
			"f:4: monitors.container.container_labels: has a YAML tag (text that begins with ! needs quotes); a list; each item: a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
		}},
		{"unknown keys", "hosts: a\nServer: {}\nzzz: 1\nurl: x\nserver:\n  prot: 1\n  '': 2\n  ? [a]\n  : 3\nsinks:\n  stdout: {enabled: true}\n  loki:\n    urls: x\n    \"a\\nb\": x\n    cert_file: x\n    host: x\n<<: {}\n", []string{
			"f:1: hosts: unknown key, did you mean host?; allowed here: host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
			"f:2: Server: unknown key, did you mean server?; allowed here: host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
			"f:3: zzz: unknown key; allowed here: host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
			"f:4: url: unknown key, did you mean sinks.loki.url?; allowed here: host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
			"f:6: server.prot: unknown key, did you mean port?; allowed here: host, port, token_file, pprof",
			"f:7: server.\"\": unknown key; allowed here: host, port, token_file, pprof",
			"f:8: server: a key is a list; plain text as the key",
			"f:13: sinks.loki.urls: unknown key, did you mean url?; allowed here: url, tenant_id, basic_auth, bearer_token_file, tls, headers, labels, structured_metadata, ship_malformed, batch_wait, batch_bytes, timeout",
			"f:14: sinks.loki.\"a\\nb\": unknown key; allowed here: url, tenant_id, basic_auth, bearer_token_file, tls, headers, labels, structured_metadata, ship_malformed, batch_wait, batch_bytes, timeout",
			"f:15: sinks.loki.cert_file: unknown key, did you mean sinks.loki.tls.cert_file?; allowed here: url, tenant_id, basic_auth, bearer_token_file, tls, headers, labels, structured_metadata, ship_malformed, batch_wait, batch_bytes, timeout",
			"f:16: sinks.loki.host: unknown key; allowed here: url, tenant_id, basic_auth, bearer_token_file, tls, headers, labels, structured_metadata, ship_malformed, batch_wait, batch_bytes, timeout",
			"f:17: <<: unknown key; allowed here: host, data_dir, shutdown_grace, server, log, docker, monitors, spool, sinks",
		}},
		{"keys of other releases", sink + "spool: {max_size: 1GiB}\nmonitors:\n  container:\n    include_labels: []\n    file_based_monitoring: {poll: 2s}\n    streaming: {max_stream: 1}\n", []string{
			"f:2: spool.max_size: unknown key; allowed here: max_bytes, min_free_bytes",
			"f:5: monitors.container.include_labels: unknown key; allowed here: enabled, include, exclude, file_based_monitoring, streaming, read_from, ignore_older_than, max_line_bytes, container_labels",
			"f:6: monitors.container.file_based_monitoring.poll: unknown key; allowed here: enabled, log_drivers, fallback_to_streaming",
			"f:7: monitors.container.streaming.max_stream: unknown key, did you mean max_streams?; allowed here: enabled, max_streams",
		}},
		{"neither files nor streams", sink + "monitors:\n  container:\n    streaming: {enabled: false}\n    file_based_monitoring:\n      enabled: false\n      fallback_to_streaming: true\n", []string{
			"f:6: monitors.container.file_based_monitoring.enabled: is false and so is monitors.container.streaming.enabled: no container would be captured; one of the two true; to capture no containers, set monitors.container.enabled: false",
		}},
		{"neither files nor streams, and perhaps no containers", sink + "monitors:\n  container:\n    enabled: 'false'\n    streaming: {enabled: false}\n    file_based_monitoring: {enabled: false}\n", []string{
			"f:4: monitors.container.enabled: is text in quotes; true or false",
		}},
		{"streams", sink + "monitors:\n  container:\n    streaming: {enabled: 1, max_streams: 0}\n    file_based_monitoring: {enabled: x, fallback_to_streaming: [true]}\n", []string{
			"f:4: monitors.container.streaming.enabled: \"1\" is not true or false; true or false",
			"f:4: monitors.container.streaming.max_streams: \"0\" is too small; a whole number from 1 to 1000",
			"f:5: monitors.container.file_based_monitoring.enabled: \"x\" is not true or false; true or false",
			"f:5: monitors.container.file_based_monitoring.fallback_to_streaming: is a list; true or false",
		}},
		{"include", sink + "monitors:\n  container:\n    include:\n    - Name=a\n    - name=\n    - image\n    - label==x\n    - label=a=\n    - label=a.*\n    - ''\n    - labeled\n    - labelled=true\n    - [labelled]\n    - name: a\n    - name=/a\n    - true\n    -\n    - name=a\n    - 'name=a'\n    - \"label=a\\n\"\n    - image=${BAD} x\n    - name=$a\n", []string{
			"f:5: monitors.container.include[0]: \"Name=a\" is no rule of a kind that is known; " + include,
			"f:6: monitors.container.include[1]: \"name=\" has no pattern after the =; " + include,
			"f:7: monitors.container.include[2]: \"image\" has no pattern after the =; " + include,
			"f:8: monitors.container.include[3]: \"label==x\" has no label key; " + include,
			"f:9: monitors.container.include[4]: \"label=a=\" has no pattern after the last =; " + include,
			"f:10: monitors.container.include[5]: \"label=a.*\" has a space, * or ? in the label key, which is taken as it is; " + include,
			"f:11: monitors.container.include[6]: \"\" is empty; " + include,
			"f:12: monitors.container.include[7]: \"labeled\" is no rule of a kind that is known; " + include,
			"f:13: monitors.container.include[8]: \"labelled=true\" is no rule of a kind that is known; " + include,
			"f:14: monitors.container.include[9]: is a list; " + include,
			"f:15: monitors.container.include[10]: is a section with keys of its own; " + include,
			"f:16: monitors.container.include[11]: \"name=/a\" has a character that no container's name has; " + include,
			"f:17: monitors.container.include[12]: \"true\" is no rule of a kind that is known; " + include,
			"f:18: monitors.container.include[13]: has no value; " + include,
			"f:20: monitors.container.include[15]: is in the list twice; each item once",
			"f:21: monitors.container.include[16]: \"label=a\\n\" has a control character or a line end; " + include,
			"f:22: monitors.container.include[17]: the value has a character that no image reference has; " + include,
			"f:23: monitors.container.include[18]: has a $ that begins no ${VAR}; ${VAR}, ${VAR:-default}, or $$ for a dollar",
		}},
		{"exclude", sink + "monitors:\n  container:\n    exclude:\n    - labelled\n    - image=a|b\n    - label\n    - label=a =b\n", []string{
			"f:5: monitors.container.exclude[0]: \"labelled\" is a rule for include only; " + exclude,
			"f:6: monitors.container.exclude[1]: \"image=a|b\" has a character that no image reference has; " + exclude,
			"f:7: monitors.container.exclude[2]: \"label\" has no label key; " + exclude,
			"f:8: monitors.container.exclude[3]: \"label=a =b\" has a space, * or ? in the label key, which is taken as it is; " + exclude,
		}},
		{"include, exclude without a list", sink + "monitors:\n  container:\n    include: labelled,name=a\n    exclude: labelled\n", []string{
			"f:4: monitors.container.include: \"labelled,name=a\" is no rule of a kind that is known; " + include,
			"f:5: monitors.container.exclude: \"labelled\" is a rule for include only; " + exclude,
		}},
		{"include, exclude of wrong types", sink + "monitors:\n  container:\n    include:\n    exclude: {name: a}\n", []string{
			"f:4: monitors.container.include: has no value; a list; each item: " + include,
			"f:5: monitors.container.exclude: is a section with keys of its own; a list; each item: " + exclude,
		}},
		{"twice", "host: a\nserver: {port: 1}\nhost: b\n" + sink + "server: {}\n", []string{
			"f:3: host: is written twice, first in line 1; each key once",
			"f:5: server: is written twice, first in line 2; each key once",
		}},
		{"wrong types", "host: [a]\ndata_dir:\nserver:\n  host: {}\n  port: '1'\nlog: info\nmonitors:\n  container:\n    enabled: 'true'\n    container_labels: a\n    file_based_monitoring:\n      log_drivers:\n" + sink, []string{
			"f:1: host: is a list; a label value: text of one line, at most 2048 bytes, or \"\" for none",
			"f:2: data_dir: has no value; a path: text of one line, at most 4095 bytes",
			"f:4: server.host: is a section with keys of its own; an IP address or a host name, without a port",
			"f:5: server.port: is text in quotes; a whole number from 0 to 65535",
			"f:6: log: is a single value; a section with the keys level, format",
			"f:9: monitors.container.enabled: is text in quotes; true or false",
			"f:10: monitors.container.container_labels: is a single value; a list; each item: a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
			"f:12: monitors.container.file_based_monitoring.log_drivers: has no value; a list; each item: json-file",
		}},
		{"text that is true", sink + "host: true\n", []string{
			"f:2: host: is true or false, not text; a label value: text of one line, at most 2048 bytes, or \"\" for none (text that reads true or false needs quotes)",
		}},
		{"numbers", sink + "server:\n  port: 65536\n", []string{"f:3: server.port: \"65536\" is too large; a whole number from 0 to 65535"}},
		{"numbers, small", sink + "server:\n  port: -1\n", []string{"f:3: server.port: \"-1\" is too small; a whole number from 0 to 65535"}},
		{"numbers, not", sink + "server:\n  port: 1.5\n", []string{"f:3: server.port: \"1.5\" is not a whole number; a whole number from 0 to 65535"}},
		{"booleans", sink + "monitors: {container: {enabled: yes}}\n", []string{"f:2: monitors.container.enabled: \"yes\" is not true or false; true or false"}},
		{"choices", sink + "log: {level: trace, format: JSON}\n", []string{
			"f:2: log.level: \"trace\" is not one of the values; debug or info or warn or error",
			"f:2: log.format: \"JSON\" is not one of the values; text or json",
		}},
		{"durations", sink + "shutdown_grace: 5\n", []string{"f:2: shutdown_grace: \"5\" has no unit; 0s to 10m: a number with ms, s, m or h, or 0: stop at once"}},
		{"durations, not", sink + "shutdown_grace: 5 s\n", []string{"f:2: shutdown_grace: \"5 s\" is not a time span; 0s to 10m: a number with ms, s, m or h, or 0: stop at once"}},
		{"durations, long", sink + "shutdown_grace: 1h\n", []string{"f:2: shutdown_grace: \"1h\" is too long; 0s to 10m: a number with ms, s, m or h, or 0: stop at once"}},
		{"durations, short", sink + "shutdown_grace: -1s\n", []string{"f:2: shutdown_grace: \"-1s\" is too short; 0s to 10m: a number with ms, s, m or h, or 0: stop at once"}},
		{"sizes", sink + "spool:\n  max_bytes: 16MB\n  min_free_bytes: -1\n", []string{
			"f:3: spool.max_bytes: \"16MB\" is not a size; 16MiB to 1024GiB: a number of bytes, or a whole number with KiB, MiB or GiB, or 0: no spool",
			"f:4: spool.min_free_bytes: \"-1\" is not a size; 0 to 1024GiB: a number of bytes, or a whole number with KiB, MiB or GiB, or 0: no floor",
		}},
		{"sizes, small", sink + "spool: {max_bytes: 15MiB}\nmonitors: {container: {max_line_bytes: 0}}\n", []string{
			"f:2: spool.max_bytes: \"15MiB\" is too small; 16MiB to 1024GiB: a number of bytes, or a whole number with KiB, MiB or GiB, or 0: no spool",
			"f:3: monitors.container.max_line_bytes: \"0\" is too small; 1KiB to 1MiB: a number of bytes, or a whole number with KiB or MiB",
		}},
		{"drivers", sink + "monitors: {container: {file_based_monitoring: {log_drivers: [json-file, local]}}}\n", []string{
			"f:2: monitors.container.file_based_monitoring.log_drivers[1]: \"local\" is not one of the values; json-file",
		}},
		{"drivers, none", sink + "monitors: {container: {file_based_monitoring: {log_drivers: []}}}\n", []string{
			"f:2: monitors.container.file_based_monitoring.log_drivers: is empty; at least 1; each item: json-file",
		}},
		{"drivers, twice", sink + "monitors: {container: {file_based_monitoring: {log_drivers: [json-file, 'json-file']}}}\n", []string{
			"f:2: monitors.container.file_based_monitoring.log_drivers[1]: is in the list twice; each item once",
		}},
		{"container labels", sink + "monitors:\n  container:\n    container_labels:\n    - a.b\n    - a-b\n    - host\n    - 1st\n    - --x\n    - ''\n    - [x]\n    - é\n", []string{
			"f:7: monitors.container.container_labels[2]: \"host\" becomes \"host\", which is a label that every line has already; a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
			"f:8: monitors.container.container_labels[3]: \"1st\" becomes \"1st\", which is not a label name; a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
			"f:9: monitors.container.container_labels[4]: \"--x\" becomes \"__x\", which begins with __, which is reserved; a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
			"f:10: monitors.container.container_labels[5]: \"\" is empty; a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
			"f:11: monitors.container.container_labels[6]: is a list; a container label; every character but letters, digits and _ becomes _, and the name is then: " + labels,
		}},
		{"labels clash", "monitors:\n  container:\n    container_labels:\n    - a.b\n    - a-b\n    - env\nsinks:\n  stdout: {enabled: true}\n  loki:\n    labels: {env: x}\n", []string{
			"f:5: monitors.container.container_labels[1]: becomes the label \"a_b\", and so does monitors.container.container_labels[0]; each label once",
			"f:6: monitors.container.container_labels[2]: becomes the label \"env\", and so does sinks.loki.labels.env; each label once",
		}},
		{"static labels", "sinks:\n  stdout: {enabled: true}\n  loki:\n    labels:\n      job: x\n      a-b: x\n      a: ''\n      b: [x]\n      b: y\n      __c: y\n", []string{
			"f:5: sinks.loki.labels.job: is a label that every line has already; " + labels,
			"f:6: sinks.loki.labels.a-b: is not a label name; " + labels,
			"f:7: sinks.loki.labels.a: \"\" is empty; a label value: text of one line, at most 2048 bytes",
			"f:8: sinks.loki.labels.b: is a list; a label value: text of one line, at most 2048 bytes",
			"f:9: sinks.loki.labels.b: is written twice, first in line 8; each key once",
			"f:10: sinks.loki.labels.__c: begins with __, which is reserved; " + labels,
		}},
		{"too many labels", "monitors:\n  container:\n    container_labels: [a, b, c, d]\nsinks:\n  stdout: {enabled: true}\n  loki:\n    labels: {e: e, f: f, g: g, h: h}\n", []string{
			"f:3: monitors.container.container_labels: makes 16 labels, 8 of them the agent's own; at most 15 in all, Loki's limit: 7 in container_labels and sinks.loki.labels together",
		}},
		{"too many static labels", "sinks:\n  stdout: {enabled: true}\n  loki:\n    labels: {a: a, b: b, c: c, d: d, e: e, f: f, g: g, h: h}\n", []string{
			"f:4: sinks.loki.labels: makes 16 labels, 8 of them the agent's own; at most 15 in all, Loki's limit: 7 in container_labels and sinks.loki.labels together",
		}},
		{"docker", sink + "docker: {host: 'tcp://h', containers_dir: c}\n", []string{
			"f:2: docker.host: the value has no host and port; unix:///path/of/the.sock or tcp://HOST:PORT, or \"\" for none",
			"f:2: docker.containers_dir: \"c\" is not an absolute path; an absolute path, or \"\" for none",
		}},
		{"docker host with a password", sink + "docker: {host: 'tcp://u:s3cret@h:2375'}\n", []string{
			"f:2: docker.host: the value holds a user, which the engine's API does not know; unix:///path/of/the.sock or tcp://HOST:PORT, or \"\" for none",
		}},
		{"no space after the colon", "sinks:\n  loki: {url: http://l, basic_auth: {username: u, password:s3cret}, headers: {X-A:s3cret}}\n", []string{
			"f:2: sinks.loki.basic_auth.password:...: has a colon in the key: after the colon that ends it there must be a space; allowed here: username, password, password_file",
			"f:2: sinks.loki.headers.X-A:...: is not a header name; a header name that the agent does not set itself",
		}},
		{"server host", sink + "server: {host: '127.0.0.1:8401'}\n", []string{
			"f:2: server.host: \"127.0.0.1:8401\" is neither an IP address nor a host name; an IP address or a host name, without a port",
		}},
		{"basic auth without password", "sinks:\n  loki:\n    url: http://l\n    basic_auth:\n      username: u\n", []string{
			"f:5: sinks.loki.basic_auth.username: is set without a password; with password or password_file",
		}},
		{"basic auth without user", "sinks:\n  loki:\n    url: http://l\n    basic_auth:\n      password: s3cret\n", []string{
			"f:5: sinks.loki.basic_auth.password: is set without username; both or neither",
		}},
		{"basic auth without user, file", "sinks:\n  loki:\n    url: http://l\n    basic_auth:\n      password_file: p\n", []string{
			"f:5: sinks.loki.basic_auth.password_file: is set without username; both or neither",
		}},
		{"two passwords, two ways", "sinks:\n  loki:\n    url: http://l\n    basic_auth:\n      username: u\n      password_file: p\n      password: s3cret\n    bearer_token_file: t\n    headers: {authorization: s3cret}\n", []string{
			"f:6: sinks.loki.basic_auth.password_file: is set beside password; only one of the two",
			"f:8: sinks.loki.bearer_token_file: is set beside basic_auth; only one way to authenticate",
			"f:9: sinks.loki.headers.Authorization: is set beside basic_auth or bearer_token_file; only one way to authenticate",
		}},
		{"two ways", "sinks:\n  loki:\n    url: http://l\n    basic_auth: {username: u, password_file: p}\n    bearer_token_file: t\n", []string{
			"f:5: sinks.loki.bearer_token_file: is set beside basic_auth; only one way to authenticate",
		}},
		{"tls", "sinks:\n  loki:\n    url: http://l\n    tls:\n      cert_file: c\n", []string{
			"f:4: sinks.loki.tls: has no effect: sinks.loki.url begins with http://; only with https://",
			"f:5: sinks.loki.tls.cert_file: is set without key_file; both or neither",
		}},
		{"tls key", "sinks:\n  loki:\n    url: https://l\n    tls:\n      key_file: c\n", []string{
			"f:5: sinks.loki.tls.key_file: is set without cert_file; both or neither",
		}},
		{"headers", "sinks:\n  loki:\n    url: http://l\n    headers:\n      content-type: x\n      X-Scope-OrgID: x\n      'a b': x\n      a: \"s3cret\\n\"\n      A: x\n      b: [s3cret]\n", []string{
			"f:5: sinks.loki.headers.content-type: is set by the agent; a header name that the agent does not set itself",
			"f:6: sinks.loki.headers.X-Scope-OrgID: is set by sinks.loki.tenant_id; a header name that the agent does not set itself",
			"f:7: sinks.loki.headers.\"a b\": is not a header name; a header name that the agent does not set itself",
			"f:8: sinks.loki.headers.a: the value has a control character or a line end; a header value: text of one line, at most 4096 bytes",
			"f:9: sinks.loki.headers.A: is written twice, first in line 8; each key once",
			"f:10: sinks.loki.headers.b: is a list; a header value: text of one line, at most 4096 bytes",
		}},
		{"variables", sink + "host: ${NONE}\ndata_dir: $HOME\nserver:\n  host: ${LOKI\n  port: ${BAD}\nlog:\n  level: ${1}\n  format: ${X:-${Y}}\ndocker:\n  host: ${LINES}\n  containers_dir: ${LATIN1}\n", []string{
			"f:2: host: needs the environment variable NONE, which is not set; ${VAR}, ${VAR:-default}, or $$ for a dollar",
			"f:3: data_dir: has a $ that begins no ${VAR}; ${VAR}, ${VAR:-default}, or $$ for a dollar",
			"f:5: server.host: has a ${ without its }; ${VAR}, ${VAR:-default}, or $$ for a dollar",
			"f:6: server.port: the value is not a whole number; a whole number from 0 to 65535",
			"f:8: log.level: has a ${} that does not name a variable; ${VAR}, ${VAR:-default}, or $$ for a dollar",
			"f:9: log.format: has a $ in the default of ${X}; ${VAR}, ${VAR:-default}, or $$ for a dollar",
			"f:11: docker.host: the value has a control character or a line end; unix:///path/of/the.sock or tcp://HOST:PORT, or \"\" for none",
			"f:12: docker.containers_dir: the value is not valid UTF-8; an absolute path, or \"\" for none",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := parse("f", []byte(c.file), testEnv)
			var errs Errors
			if cfg != nil || !errors.As(err, &errs) {
				t.Fatalf("got %v, %v; want Errors", cfg, err)
			}
			if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Error("a secret is shown")
			}
		})
	}
}

// TestValues has, for each kind of value, what is taken and what is not.
func TestValues(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		path    string
		good    map[string]any // YAML to field
		bad     map[string]string
		example func(*Config) any
	}{
		{"monitors.container.max_line_bytes",
			map[string]any{"1024": 1024, "1KiB": 1024, "'2 KiB'": 2048, "1MiB": 1 << 20, "2000B": 2000},
			map[string]string{
				"1023": "is too small", "1KB": "is not a size", "1k": "is not a size", "1.5KiB": "is not a size", "KiB": "is not a size",
				"1048577": "is too large", "1GiB": "is too large", "4294967297KiB": "is too large", "0KiB": "is too small", "-1": "is not a size", "1_000": "is not a size",
				"0x400": "is not a size", "''": "is not a size", "2 0 KiB": "is not a size",
			},
			func(c *Config) any { return c.Monitors.Container.MaxLineBytes }},
		{"spool.max_bytes",
			map[string]any{
				"0": int64(0), "0MiB": int64(0), "16MiB": int64(16 << 20), "16777216": int64(16 << 20), "2GiB": int64(2 << 30),
				"1024GiB": int64(1 << 40), "1099511627776": int64(1 << 40),
			},
			map[string]string{
				"1": "is too small", "16777215": "is too small", "16383KiB": "is too small", "1099511627777": "is too large", "1025GiB": "is too large",
				// Times a GiB these are 0 and 2^63 in 64 bits.
				"17179869184GiB": "is too large", "8589934592GiB": "is too large",
				"9223372036854775808": "is not a size", "1TiB": "is not a size", "off": "is not a size",
			},
			func(c *Config) any { return c.Spool.MaxBytes }},
		{"spool.min_free_bytes",
			map[string]any{"0": int64(0), "1": int64(1), "5 GiB": int64(5 << 30)},
			map[string]string{"-1": "is not a size", "1025GiB": "is too large"},
			func(c *Config) any { return c.Spool.MinFreeBytes }},
		{"monitors.container.streaming.max_streams",
			map[string]any{"1": 1, "1000": 1000, "${NONE:-7}": 7},
			map[string]string{"0": "is too small", "1001": "is too large", "'5'": "is text in quotes", "unlimited": "is not a whole number"},
			func(c *Config) any { return c.Monitors.Container.Streaming.MaxStreams }},
		{"monitors.container.ignore_older_than",
			map[string]any{"0": time.Duration(0), "0s": time.Duration(0), "1m": time.Minute, "1h30m": 90 * time.Minute},
			map[string]string{"59s": "is too short", "7d": "is not a time span", "10000000h": "is not a time span", "1000000h": "is too long", "168": "has no unit"},
			func(c *Config) any { return c.Monitors.Container.IgnoreOlderThan }},
		{"sinks.loki.batch_wait",
			map[string]any{"1ms": time.Millisecond, "10s": 10 * time.Second},
			map[string]string{"0": "is too short", "11s": "is too long"},
			func(c *Config) any { return c.Sinks.Loki.BatchWait }},
		{"sinks.loki.batch_bytes",
			map[string]any{"3MiB": 3 << 20},
			map[string]string{"4MiB": "is too large", "63KiB": "is too small"},
			func(c *Config) any { return c.Sinks.Loki.BatchBytes }},
		{"sinks.loki.url",
			map[string]any{
				"http://l": "http://l", "https://l:1/a?b=c": "https://l:1/a?b=c", "'http://[::1]:3100'": "http://[::1]:3100", "''": "",
			},
			map[string]string{
				"loki:3100": "does not begin with http:// or https://", "ftp://l": "does not begin with http:// or https://", "http://": "has no host",
				"'http://:80'": "has no host", "'http://u:s3cret@l'": "holds a user: set sinks.loki.basic_auth instead", "'http://l#x'": "has a #fragment",
				"http://lökí": "beyond ASCII: write it in Punycode", "'http://l/push?a=b c'": "has a space in its query",
				"'http://l:0'": "has no port from 1 to 65535", "'http://l:x/s3cret'": "is not a URL", "'http://l/%zz'": "is not a URL",
			},
			func(c *Config) any { return c.Sinks.Loki.URL }},
		{"docker.host",
			map[string]any{"unix:///a": "unix:///a", "tcp://h:2375": "tcp://h:2375", "'tcp://[::1]:1'": "tcp://[::1]:1"},
			map[string]string{
				"/a": "has another scheme", "unix://a": "has no absolute path", "ssh://h": "has another scheme", "tcp://h:0": "has no host and port",
				"'tcp://:1'":           "has no host and port",
				"'tcp://u:s3cret@h:1'": "the value holds a user", "tcp://s3cret@h:1": "the value holds a user", "'tcp://h:1?t=s3cret'": "the value has no host and port",
				"'unix://u:s3cret@h/a'": "the value has no absolute path", "'https://u:s3cret@h'": "the value has another scheme",
			},
			func(c *Config) any { return c.Docker.Host }},
		{"server.host",
			map[string]any{"localhost": "localhost", "a.b-c.": "a.b-c.", "'::1'": "::1", "10.0.0.1": "10.0.0.1"},
			map[string]string{"''": "is empty", "a b": "is neither", "-a": "is neither", "'[::1]'": "is neither", long: "is too long"},
			func(c *Config) any { return c.Server.Host }},
		{"sinks.loki.tenant_id",
			map[string]any{"a-1": "a-1", "''": "", "1.10": "1.10", "2020-01-01": "2020-01-01"},
			map[string]string{"a b": "has a space", "é": "has a space or a character beyond ASCII"},
			func(c *Config) any { return c.Sinks.Loki.TenantID }},
		{"sinks.loki.basic_auth.username",
			map[string]any{"a b": "a b"},
			map[string]string{"a:b": "has a colon"},
			func(c *Config) any { return c.Sinks.Loki.BasicAuth.Username }},
		{"host",
			map[string]any{
				"${LOKI}": "http://loki:3100", "a${PORT}b${NONE:-c}": "a9000bc", "'${EMPTY}'": "", "${EMPTY:-x}": "x", "${NONE:-}": "",
				"a$$b": "a$b", "${DOLLAR}": "${LOKI}$$", "$${LOKI}": "${LOKI}", "${COLON}": "a: [b", "${TRUE}": "true", "${NONE:-$$}": "$", "é": "é",
				"'true'": "true",
			},
			map[string]string{"${LINES}": "has a control character", "\"a\\u007fb\"": "has a control character"},
			func(c *Config) any { return c.Host }},
		{"server.port",
			map[string]any{"${PORT}": 9000, "'${PORT}'": 9000, "${NONE:-1}": 1, "0": 0},
			map[string]string{"${EMPTY}": "the value is not a whole number"},
			func(c *Config) any { return c.Server.Port }},
		{"monitors.container.enabled",
			map[string]any{"${TRUE}": true, "FALSE": false, "False": false, "True": true, "TRUE": true},
			map[string]string{"on": "is not true or false", "1": "is not true or false"},
			func(c *Config) any { return c.Monitors.Container.Enabled }},
	} {
		file := func(v string) []byte {
			parts := strings.Split(c.path, ".")
			var b strings.Builder
			for i, p := range parts {
				b.WriteString(strings.Repeat("  ", i) + p + ":")
				if i < len(parts)-1 {
					b.WriteByte('\n')
				}
			}
			return []byte(b.String() + " " + v + "\n")
		}
		for v, want := range c.good {
			d := newDecoder("f", testEnv)
			d.document(file(v))
			if got := c.example(d.cfg); len(d.errs) > 0 || got != want {
				t.Errorf("%s: %s: got %v, %v; want %v", c.path, v, got, d.errs, want)
			}
		}
		for v, want := range c.bad {
			d := newDecoder("f", testEnv)
			before := c.example(d.cfg)
			d.document(file(v))
			if len(d.errs) != 1 || !strings.Contains(d.errs[0].Problem, want) || len(d.errs[0].Error()) > 400 {
				t.Errorf("%s: %.80s: got %v, want one error with %q", c.path, v, d.errs, want)
			}
			if strings.Contains(d.errs.Error(), "s3cret") {
				t.Errorf("%s: a secret is shown: %v", c.path, d.errs)
			}
			if got := c.example(d.cfg); got != before {
				t.Errorf("%s: %.80s: the field became %v", c.path, v, got)
			}
		}
	}
}

// TestContainerRules has the ways to write rules. Those that are wrong are in
// TestErrors.
func TestContainerRules(t *testing.T) {
	for in, want := range map[string][]ContainerRule{
		"[]":                      nil,
		"labelled":                {{Field: RuleLabelled}},
		"'labelled'":              {{Field: RuleLabelled}},
		"[labelled]":              {{Field: RuleLabelled}},
		"name=*":                  {{Field: RuleName, Pattern: "*"}},
		"name=${NONE:-a}-${PORT}": {{Field: RuleName, Pattern: "a-9000"}},
		"[name=a, name=b]":        {{Field: RuleName, Pattern: "a"}, {Field: RuleName, Pattern: "b"}},
		"image=example.com:5000/team/app:1.2@sha256:0f": {{Field: RuleImage, Pattern: "example.com:5000/team/app:1.2@sha256:0f"}},
		"'image=[::1]:5000/?'":                          {{Field: RuleImage, Pattern: "[::1]:5000/?"}},
		"label=a":                                       {{Field: RuleLabel, Label: "a"}},
		"label=a=*":                                     {{Field: RuleLabel, Label: "a", Pattern: "*"}},
		"label=a= b = ? é ":                             {{Field: RuleLabel, Label: "a", Pattern: " b = ? é"}}, // YAML trims the end
		"label=labelled":                                {{Field: RuleLabel, Label: "labelled"}},
	} {
		d := newDecoder("f", testEnv)
		d.document([]byte("monitors:\n  container:\n    include: " + in + "\n"))
		if got := d.cfg.Monitors.Container.Include; len(d.errs) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", in, got, d.errs, want)
		}
	}
}

// ruleText is the rule as it is written.
func ruleText(r ContainerRule) string {
	switch {
	case r.Field == RuleLabelled:
		return r.Field
	case r.Field != RuleLabel:
		return r.Field + "=" + r.Pattern
	case r.Pattern == "":
		return r.Field + "=" + r.Label
	}
	return r.Field + "=" + r.Label + "=" + r.Pattern
}

// FuzzContainerRule: a rule that is taken says all that was written, and means
// something.
func FuzzContainerRule(f *testing.F) {
	for _, s := range []string{"labelled", "name=a*", "image=a/b:?", "label=a", "label=a=b=c", "label==", "name", "", "=", "label=a="} {
		f.Add(s)
	}
	include, exclude := containerRule(true), containerRule(false)
	f.Fuzz(func(t *testing.T, s string) {
		r, problem := include.parse(s)
		if other, p := exclude.parse(s); s != RuleLabelled && (other != r || p != problem) || s == RuleLabelled && p == "" {
			t.Errorf("%q: in include %+v %s, in exclude %+v %s", s, r, problem, other, p)
		}
		if problem != "" {
			if r != (ContainerRule{}) {
				t.Errorf("%q: %s, and yet %+v", s, problem, r)
			}
			return
		}
		checkRule(t, r)
		if got := ruleText(r); got != s {
			t.Errorf("%q: got %+v, which is %q", s, r, got)
		}
	})
}

// checkRule checks what a component relies on.
func checkRule(t *testing.T, r ContainerRule) {
	t.Helper()
	ok := false
	switch r.Field {
	case RuleName, RuleImage:
		ok = r.Label == "" && r.Pattern != ""
	case RuleLabel:
		ok = r.Label != ""
	case RuleLabelled:
		ok = r.Label == "" && r.Pattern == ""
	}
	if !ok {
		t.Errorf("rule %+v", r)
	}
}

func TestPushURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://l:3100":                     "http://l:3100/loki/api/v1/push",
		"http://l:3100/":                    "http://l:3100/loki/api/v1/push",
		"http://l/tenant/":                  "http://l/tenant/loki/api/v1/push",
		"http://l/a%2Fb/?x=y":               "http://l/a%2Fb/loki/api/v1/push?x=y",
		"http://l/loki/api/v1/push":         "http://l/loki/api/v1/push",
		"http://l/insert/v1/push?a=b&c=d%2": "http://l/insert/v1/push?a=b&c=d%2",
		"http://l?a=/push":                  "http://l/loki/api/v1/push?a=/push",
		"":                                  "",
	} {
		if got := (Loki{URL: in}).PushURL(); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestServerAddress(t *testing.T) {
	if got := (Server{Host: "::1", Port: 8401}).Address(); got != "[::1]:8401" {
		t.Errorf("got %q", got)
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	type pub struct {
		S Secret
		M map[string]Secret
	}
	x := pub{"s3cret", map[string]Secret{"a": "s3cret"}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10s"} {
		if got := fmt.Sprintf(verb, x) + fmt.Sprintf(verb, x.S); strings.Contains(got, "s3cret") || strings.Contains(got, "733363726574") {
			t.Errorf("%s: %s", verb, got)
		}
	}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "s", x.S, "x", x)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "s", x.S, "x", x)
	j, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	if all := b.String() + string(j) + string(y); strings.Contains(all, "s3cret") {
		t.Error(all)
	}
	if x.S.Reveal() != "s3cret" || Secret("").String() != "" {
		t.Error("Reveal or String is wrong")
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	write := func(data string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff# with a byte order mark\r\nsinks:\r\n  loki:\r\n    url: ${LOKI}\r\n")
	cfg, err := Load(path, testEnv)
	if err != nil || cfg.Sinks.Loki.URL != "http://loki:3100" {
		t.Fatalf("got %v, %v", cfg, err)
	}
	write("a: 1\n")
	if _, err = Load(path, testEnv); !strings.HasPrefix(fmt.Sprint(err), path+":1: ") {
		t.Errorf("got %v", err)
	}
	write(strings.Repeat("#", maxFileBytes+1))
	if _, err = Load(path, testEnv); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
	if _, err = Load(path+"x", testEnv); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "-config FILE") {
		t.Errorf("got %v", err)
	}
	if _, err = Load(dir, testEnv); err == nil {
		t.Error("a directory was read")
	}
}

func TestExampleFile(t *testing.T) {
	const path = "../../configs/config.yaml"
	cfg, err := Load(path, testEnv)
	if err != nil {
		t.Fatal(err)
	}
	// What the file sets is the default, but for the destination.
	want := newDecoder("x", testEnv).cfg
	want.Sinks.Loki.URL = "http://127.0.0.1:3100"
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	if cfg, err = Load(path, envOf(map[string]string{"LOKI_URL": "http://loki"})); err != nil || cfg.Sinks.Loki.URL != "http://loki" {
		t.Errorf("got %v, %v", cfg, err)
	}

	// With all that is off turned on, every key is there, and is right.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = regexp.MustCompile(`(?m)^( *)#(\S)`).ReplaceAll(data, []byte("$1$2"))
	d := newDecoder(path, testEnv)
	d.document(data)
	if len(d.errs) > 0 {
		t.Errorf("with every key:\n%v", d.errs)
	}
	for _, k := range schema() {
		if d.seen[k.path] == 0 {
			t.Errorf("%s is not in %s", k.path, path)
		}
	}
}

func TestReference(t *testing.T) {
	const path = "../../CONFIGURATION.md"
	want := Reference()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("CONFIGURATION.md is not what the schema says: run go generate ./internal/config")
	}
	for _, k := range schema() {
		if !strings.Contains(want, "| `"+k.path+"` | `"+k.def+"` |") {
			t.Errorf("%s is not in the reference", k.path)
		}
	}
	borders := 0 // of the table, as its first line has them
	for line := range strings.Lines(want) {
		n := strings.Count(line, "|") - strings.Count(line, `\|`)
		switch {
		case !strings.HasPrefix(line, "|"):
			borders = 0
		case borders == 0:
			borders = n
		case n != borders:
			t.Errorf("%d borders, not %d: %s", n, borders, line)
		}
	}
	// The files and error lines that it shows are true.
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(want, -1) {
		if _, err := parse("x", []byte(block[1]), testEnv); err != nil {
			t.Errorf("%s: %v", block[1], err)
		}
	}
	_, err = parse("config.yaml", []byte("\n\nserver:\n  port: 84o1\n\n\nsinks:\n  loki:\n    tenant: a\n    url: http://l\n"), testEnv)
	_, shown, _ := strings.Cut(want, "```text\n")
	shown, _, _ = strings.Cut(shown, ", ...\n```")
	if !strings.HasPrefix(fmt.Sprint(err), shown) {
		t.Errorf("shown\n%s\ngot\n%v", shown, err)
	}
}

// TestReferenceOfRoads: the truth table of the reference has each setting of its
// three switches once, and refuses what is refused. What it says of files and
// streams is the monitors' to keep.
func TestReferenceOfRoads(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (true|false) \| (true|false|either) \| (true|false|either) \| (.*) \|$`).FindAllStringSubmatch(Reference(), -1)
	for i := range 8 {
		on := func(bit int) string { return strconv.FormatBool(i&bit != 0) }
		files, fallback, streams := on(4), on(2), on(1)
		var said []string
		for _, r := range rows {
			if r[1] == files && (r[2] == fallback || r[2] == "either") && (r[3] == streams || r[3] == "either") {
				said = append(said, r[4])
			}
		}
		if len(said) != 1 {
			t.Errorf("%s, %s, %s: %d rows", files, fallback, streams, len(said))
			continue
		}
		file := fmt.Sprintf("monitors: {container: {file_based_monitoring: {enabled: %s, fallback_to_streaming: %s}, streaming: {enabled: %s}}}\n", files, fallback, streams)
		_, err := parse("x", []byte(sink+file), testEnv)
		if refused := strings.Contains(said[0], "refused"); refused != (err != nil) {
			t.Errorf("%s: the reference says %s; got %v", file, said[0], err)
		}
		file = strings.Replace(file, "{container: {", "{container: {enabled: false, ", 1)
		if _, err := parse("x", []byte(sink+file), testEnv); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"port", "prot", 2}, {"url", "urls", 1}, {"kitten", "sitting", 3},
		{strings.Repeat("x", 1e6), "port", 1e6},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%.20s, %s: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// FuzzParse: no bytes make the package panic; what is wrong is one line each,
// in order, with a line that the file has; what is right obeys the invariants
// that components rely on. Run it with -fuzzminimizetime=20x: making the large
// seeds smaller takes all the time otherwise.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../../configs/config.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add(regexp.MustCompile(`(?m)^( *)#(\S)`).ReplaceAll(example, []byte("$1$2")))
	for _, s := range []string{
		"", sink, "a: &a [*a]", "spool: {max_bytes: 16 MiB, min_free_bytes: 0}\n" + sink, "server: {port: ${PORT}}", "? [a]\n: b", "<<: *x", "--- a\n--- b", "host: !!binary x", "sinks: {loki: {headers: {a: b, A: c}}}",
		"monitors: {container: {include: labelled, exclude: [name=a*, 'label=b=?', image=c]}}\n" + sink,
		"monitors: {container: {file_based_monitoring: {enabled: false}, streaming: {enabled: false, max_streams: 0}}}\n" + sink,
		"monitors: {container: {max_line_bytes: 1 KiB, ignore_older_than: 0, container_labels: [a.b, a_b]}}", "host: |\n  a\n", "host: ${A:-${B}}", "host: *a'b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := parse("f", data, testEnv)
		if err != nil {
			var errs Errors
			if cfg != nil || !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("got %v, %v", cfg, err)
			}
			last := 1
			for _, e := range errs {
				if n := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 3; e.Line < last || e.Line > n+strings.Count(string(data), "\u2028")+strings.Count(string(data), "\u2029")+strings.Count(string(data), "\u0085") {
					t.Errorf("line %d after %d, of %d: %v", e.Line, last, n, e)
				}
				last = e.Line
				if strings.Contains(e.Error(), "s3cret") && !strings.Contains(string(data), "s3cret") {
					t.Errorf("shows what a variable holds: %v", e)
				}
				if line := e.Error(); strings.ContainsAny(line, "\n\r") || !utf8.ValidString(line) {
					t.Errorf("not one line: %q", line)
				}
			}
			return
		}
		if (cfg.Sinks.Loki.URL != "") == cfg.Sinks.Stdout.Enabled {
			t.Error("not exactly one destination")
		}
		names := slices.Collect(maps.Keys(cfg.Sinks.Loki.Labels))
		for _, l := range cfg.Monitors.Container.ContainerLabels {
			names = append(names, l.Label)
		}
		names = append(names, fixedLabels()...)
		slices.Sort(names)
		if n := len(names); n > maxLabels || len(slices.Compact(names)) != n {
			t.Errorf("labels %v", names)
		}
		if c := cfg.Monitors.Container; c.MaxLineBytes < 1<<10 || c.MaxLineBytes > 1<<20 || len(c.FileBasedMonitoring.LogDrivers) == 0 || c.IgnoreOlderThan < 0 ||
			c.Streaming.MaxStreams < 1 || c.Streaming.MaxStreams > 1000 || c.Enabled && !c.FileBasedMonitoring.Enabled && !c.Streaming.Enabled {
			t.Errorf("got %+v", c)
		}
		for _, r := range slices.Concat(cfg.Monitors.Container.Include, cfg.Monitors.Container.Exclude) {
			checkRule(t, r)
		}
		if slices.Contains(cfg.Monitors.Container.Exclude, ContainerRule{Field: RuleLabelled}) {
			t.Error("labelled excludes")
		}
		if s := cfg.Spool; s.MaxBytes != 0 && s.MaxBytes < 16<<20 || s.MaxBytes > 1<<40 || s.MinFreeBytes < 0 || s.MinFreeBytes > 1<<40 {
			t.Errorf("got %+v", s)
		}
		if l := cfg.Sinks.Loki; l.BatchBytes > 3<<20 || l.Timeout <= 0 || l.BatchWait <= 0 || l.URL != "" && !strings.HasPrefix(l.PushURL(), "http") {
			t.Errorf("got %+v", l)
		}
	})
}

// FuzzExpand checks expand against what it is meant to undo: text whose dollars
// are doubled comes back as it was.
func FuzzExpand(f *testing.F) {
	f.Add("a$b", "${PORT}")
	f.Add("", "${NONE:-x}")
	f.Fuzz(func(t *testing.T, plain, s string) {
		out, used, problem := expand(strings.ReplaceAll(plain, "$", "$$"), testEnv)
		if out != plain || used || problem != "" {
			t.Errorf("%q: got %q, %v, %s", plain, out, used, problem)
		}
		if out, _, problem := expand(s, testEnv); problem == "" && !strings.Contains(s, "$") && out != s {
			t.Errorf("%q: got %q", s, out)
		}
		if n, err := strconv.Atoi(s); err == nil {
			if out, used, _ := expand("${NONE:-"+s+"}", testEnv); !used || out != s {
				t.Errorf("default %d: got %q", n, out)
			}
		}
	})
}
