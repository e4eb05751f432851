package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shownText are the fields of Config, by path, whose text everybody may see. A
// field that is not here, or is no Secret, fails TestEffectiveHidesSecrets: who
// adds one has to think about which it is.
func shownText() []string {
	return []string{
		"Host", "DataDir", "Server.Host", "Server.TokenFile", "Log.Format", "Docker.Host", "Docker.ContainersDir",
		"Monitors.Container.Include[].Field", "Monitors.Container.Include[].Label", "Monitors.Container.Include[].Pattern",
		"Monitors.Container.Exclude[].Field", "Monitors.Container.Exclude[].Label", "Monitors.Container.Exclude[].Pattern",
		"Monitors.Container.FileBasedMonitoring.LogDrivers[]", "Monitors.Container.ReadFrom",
		"Monitors.Container.ContainerLabels[].Container", "Monitors.Container.ContainerLabels[].Label",
		"Sinks.Loki.TenantID", "Sinks.Loki.BasicAuth.Username", "Sinks.Loki.BasicAuth.PasswordFile", "Sinks.Loki.BearerTokenFile",
		"Sinks.Loki.TLS.CAFile", "Sinks.Loki.TLS.CertFile", "Sinks.Loki.TLS.KeyFile", "Sinks.Loki.TLS.ServerName",
		"Sinks.Loki.Labels{}",
		"Sinks.Loki.URL", // but for what hideURL hides
	}
}

// fill puts a text of its own into each piece of text below v, and 1 into each
// number. It calls text with the path of each, and what was put there.
func fill(t *testing.T, v reflect.Value, path string, text func(path string, secret bool, put string)) {
	t.Helper()
	put := func(v reflect.Value, path string) string {
		word := fmt.Sprintf("canary-%x-end", path)
		if path == "Sinks.Loki.URL" {
			word = "https://user:" + word + "@h/push?token=" + word + "&" + word
		}
		text(path, v.Type() == reflect.TypeFor[Secret](), word)
		return word
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if path != "" {
				name = path + "." + name
			}
			fill(t, v.Field(i), name, text)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), path+"[]", text)
	case reflect.Map:
		one := reflect.New(v.Type().Elem()).Elem()
		one.SetString(put(one, path+"{}"))
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("X-Name"), one)
	case reflect.String:
		v.SetString(put(v, path))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	default:
		t.Fatalf("%s is a %s, of which this test knows nothing", path, v.Kind())
	}
}

// TestEffectiveHidesSecrets walks all of Config: no secret is in what is shown,
// and everything else is.
func TestEffectiveHidesSecrets(t *testing.T) {
	var cfg Config
	public := shownText()
	var hidden, shown []string
	fill(t, reflect.ValueOf(&cfg).Elem(), "", func(path string, secret bool, put string) {
		i := slices.Index(public, path)
		switch {
		case secret && i >= 0:
			t.Errorf("%s is a Secret and in shownText", path)
		case !secret && i < 0:
			t.Errorf("%s is new: make it a Secret, or add it to shownText", path)
		case !secret:
			public = slices.Delete(public, i, i+1)
		}
		name := regexp.MustCompile(`(?i)password|token|secret|key|credential|authorization`)
		if !secret && name.MatchString(path) && !strings.HasSuffix(path, "File") {
			t.Errorf("%s has the name of a secret and is none", path)
		}
		switch {
		case secret:
			hidden = append(hidden, put)
		case path == "Sinks.Loki.URL":
			hidden = append(hidden, regexp.MustCompile(`canary.*?-end`).FindString(put))
		case !strings.HasSuffix(path, ".Label"): // a label's name at the store follows from its own
			shown = append(shown, put)
		}
	})
	if len(public) > 0 {
		t.Errorf("shownText has %v, Config has not", public)
	}
	for i := range cfg.Monitors.Container.Include { // only known kinds are shown as written
		cfg.Monitors.Container.Include[i].Field = RuleImage
		cfg.Monitors.Container.Exclude[i].Field = RuleImage
	}
	shown = slices.DeleteFunc(shown, func(s string) bool { return strings.Contains(s, fmt.Sprintf("%x", "[].Field")) })
	out, err := json.Marshal(cfg.Effective())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range hidden {
		if strings.Contains(string(out), s) {
			t.Errorf("%s is shown in %s", s, out)
		}
	}
	for _, s := range shown {
		if !strings.Contains(string(out), s) {
			t.Errorf("%s is not shown in %s", s, out)
		}
	}
	if len(hidden) < 3 {
		t.Errorf("only %d secrets were looked for", len(hidden))
	}
}

// TestEffective: what is shown is what the file had, with its names; what was
// absent has its default. Given back as a file, it means the same.
func TestEffective(t *testing.T) {
	const file = `
server: {host: 0.0.0.0, token_file: /run/token, pprof: true}
log: {level: warn}
monitors: {container: {include: [labelled, name=web-*], exclude: [label=a, label=b=c*], container_labels: [com.example.team], ignore_older_than: 1h30m}}
sinks: {loki: {url: "https://loki/push?a=b", basic_auth: {username: u, password: secret1}, headers: {X-A: secret2}, labels: {env: prod}}}
`
	cfg, err := parse("f", []byte(file), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(cfg.Effective())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"server":{"host":"0.0.0.0","port":8401,"pprof":true,"token_file":"/run/token"}`, `"level":"warn"`,
		`"include":["labelled","name=web-*"]`, `"exclude":["label=a","label=b=c*"]`, `"container_labels":["com.example.team"]`,
		`"ignore_older_than":"1h30m"`, `"url":"https://loki/push?a=hidden"`, `"password":"[hidden]"`, `"headers":{"X-A":"[hidden]"}`,
		`"labels":{"env":"prod"}`, `"max_bytes":1073741824`, `"shutdown_grace":"5s"`, `"log_drivers":["json-file"]`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is not in %s", want, out)
		}
	}
	if strings.Contains(string(out), "secret") {
		t.Errorf("a secret is shown: %s", out)
	}
	again, err := parse("again", out, testEnv) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	again.Sinks.Loki.URL, again.Sinks.Loki.BasicAuth.Password, again.Sinks.Loki.Headers = cfg.Sinks.Loki.URL, cfg.Sinks.Loki.BasicAuth.Password, cfg.Sinks.Loki.Headers
	if !reflect.DeepEqual(again, cfg) {
		t.Errorf("got  %+v\nwant %+v", again, cfg)
	}
}

func TestHideURL(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"http://loki:3100":                 "http://loki:3100",
		"http://loki/push?a=b":             "http://loki/push?a=hidden",
		"http://loki/push?a=b=c&d;e=&f=%x": "http://loki/push?a=hidden&hidden&e=hidden&f=hidden",
		"http://u:p@loki/":                 "http://u:xxxxx@loki/",
		"http://loki/%zz":                  "[hidden]",
	} {
		if got := hideURL(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
