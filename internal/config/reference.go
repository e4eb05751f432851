package config

import (
	"fmt"
	"strings"
)

// Reference is the reference document of every key, as Markdown:
// CONFIGURATION.md at the root of the repository.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceIntro)
	var order []string
	sections := map[string][]key{}
	for _, k := range schema() {
		section := ""
		if i := strings.LastIndexByte(k.path, '.'); i >= 0 {
			section = k.path[:i]
		}
		if sections[section] == nil {
			order = append(order, section)
		}
		sections[section] = append(sections[section], k)
	}
	for _, section := range order {
		title := "Top level"
		if section != "" {
			title = "`" + section + "`"
		}
		fmt.Fprintf(&b, "\n### %s\n\n| Key | Default | Unit | Allowed | Effect |\n|---|---|---|---|---|\n", title)
		for _, k := range sections[section] {
			unit := k.unit
			if unit == "" {
				unit = "-"
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", k.path, k.def, unit, cell(k.allowed), cell(k.doc))
		}
	}
	b.WriteString(referenceRules)
	return b.String()
}

// cell escapes what would end a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const referenceIntro = `# Configuration

<!-- Made from the schema in internal/config by "go generate ./internal/config"; do not edit. -->

log_capturer reads one YAML file: ` + "`-config FILE`" + `, by default ` + "`/etc/log_capturer/config.yaml`" + `. A commented
example is ` + "[`configs/config.yaml`](configs/config.yaml)" + `. The file is read at the
start, and again on SIGHUP or ` + "`POST /-/reload`" + `. Only a destination has to be configured:

` + "```yaml" + `
sinks:
  loki:
    url: http://loki:3100
` + "```" + `

**Check a file** without starting anything:

` + "```console" + `
$ log_capturer validate -config config.yaml
config.yaml: ok
` + "```" + `

Everything in the file must be right, or the agent does not start and exits with status 2. There is one line for each
mistake, all at once, with the file, the line, the key, what is wrong and what is allowed:

` + "```text" + `
config.yaml:4: server.port: "84o1" is not a whole number; a whole number from 0 to 65535
config.yaml:9: sinks.loki.tenant: unknown key, did you mean tenant_id?; allowed here: url, tenant_id, ...
` + "```" + `

An unknown key, a key that is written twice, a wrong type and a value outside its bounds are mistakes; so are YAML aliases,
anchors and tags. A section without any key (all commented out) is as if it were absent.

**Variables.** In values (not in keys), ` + "`${VAR}`" + ` is replaced by an environment variable, and ` + "`${VAR:-default}`" + ` by the
default if the variable is unset or empty. A variable without a default must be set. ` + "`$$`" + ` is a dollar. Variables are
replaced after the YAML has been parsed: what they hold cannot change the structure of the file and needs no quoting.

**Sizes** are whole numbers of bytes (` + "`262144`" + `) or with a unit (` + "`256KiB`, `1MiB`" + `). **Time spans** have a unit: ` + "`100ms`, `5s`, `168h`" + `.
**Paths** that are not absolute are relative to the directory the agent is started in.

**Secrets** (the password, the values of headers) are never logged or printed. A mistake in one of them, in the URL, or in
what came from a variable is reported without the text.

## Keys
`

const referenceRules = `
## How keys go together

- Exactly one destination: ` + "`sinks.loki.url`" + ` or ` + "`sinks.stdout.enabled: true`" + `. Both, or neither, is a mistake.
- One way to authenticate: ` + "`basic_auth`" + ` (a user with either a password or a password file), or ` + "`bearer_token_file`" + `,
  or a header ` + "`Authorization`" + ` of your own.
- ` + "`tls.cert_file` and `tls.key_file`" + ` go together, and ` + "`tls`" + ` goes only with an ` + "`https://`" + ` URL.
- Labels: lines have the labels ` + "`job`, `host`, `container_name`, `image`, `compose_project`, `compose_service`, `stream`" + `,
  malformed lines also ` + "`malformed`" + `. ` + "`container_labels` and `sinks.loki.labels`" + ` may add seven more, since Loki takes at
  most 15. No two may have the same name once rendered: ` + "`com.example.team` and `com_example_team`" + ` are the same label.
`
