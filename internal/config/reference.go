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
	b.WriteString(referenceContainers)
	b.WriteString(referenceSpool)
	b.WriteString(referenceRules)
	return b.String()
}

// cell escapes what would end a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const referenceIntro = `# Configuration

<!-- Made from the schema in internal/config by "go generate ./internal/config"; do not edit. -->

log_capturer reads one YAML file: ` + "`-config FILE`" + `, by default ` + "`/etc/log_capturer/config.yaml`" + `. A commented
example is ` + "[`configs/config.yaml`](configs/config.yaml)" + `. The file is read at the
start, and again on SIGHUP or ` + "`POST /-/reload`" + `: every key can be changed so. Only a destination has to be configured:

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
replaced after the YAML has been parsed: what they hold cannot change the structure of the file and needs no quoting. A
reload finds them as they were at the start of the process.

**Sizes** are whole numbers of bytes (` + "`262144`" + `) or with a unit (` + "`256KiB`, `1MiB`, `1GiB`" + `). **Time spans** have a unit: ` + "`100ms`, `5s`, `168h`" + `.
**Paths** that are not absolute are relative to the directory the agent is started in.

**Secrets** (the password, the values of headers) are never logged or printed. A mistake in one of them, in the URL, or in
what came from a variable is reported without the text.

## Keys
`

const referenceContainers = `
## Which containers are captured

` + "`monitors.container.include` and `exclude`" + ` are lists of rules in the style of ` + "`docker ps --filter`" + `; a single rule needs no list:

| Rule | Fits containers |
|---|---|
| ` + "`name=GLOB`" + ` | with this name, as ` + "`docker ps`" + ` shows it |
| ` + "`image=GLOB`" + ` | made from this image, as it was written when the container was created, such as ` + "`example.com/team/app:1.2`" + ` |
| ` + "`label=KEY`" + ` | with this label, whatever its value |
| ` + "`label=KEY=GLOB`" + ` | with this label and value |
| ` + "`labelled`" + ` | with the label ` + "`log_capturer.enable=true`" + ` (in ` + "`include`" + ` only) |

In a glob ` + "`*`" + ` is any text (also none, also with ` + "`/`" + `) and ` + "`?`" + ` one character. It must fit as a whole: ` + "`name=web`" + ` does not fit
` + "`web-1`, `name=web*`" + ` does. It is no regular expression, and the key of a label is no glob.

A container is captured if a rule of ` + "`include`" + ` fits it, or there is none, and no rule of ` + "`exclude`" + ` does. The label
` + "`log_capturer.enable`" + ` at a container has its own say: ` + "`false`" + ` (or ` + "`0`, `no`, `off`" + `) always takes it out; ` + "`true`" + ` (or ` + "`1`, `yes`, `on`" + `) counts as included, whatever
` + "`include`" + ` says, but ` + "`exclude`" + ` still wins. The agent's own container needs it. A rename counts from the container's next start.

` + "```yaml" + `
monitors:
  container:
    include: labelled             # opt-in: only containers that ask for it
    exclude:
      - name=*-debug
      - image=example.com/vendor/*
      - label=com.example.logs=none
sinks:
  loki:
    url: http://loki:3100
` + "```" + `

## Files and streams

Each container is read from its log driver's file or streamed through the Docker API. What the engine can read back, it
streams: the drivers ` + "`json-file`, `local` and `journald`" + `, and those with the engine's cache, unless ` + "`cache-disabled`" + ` is set. Below
are the keys ` + "`file_based_monitoring.enabled`, `file_based_monitoring.fallback_to_streaming` and `streaming.enabled`" + `; a file is one
of a driver in ` + "`log_drivers`" + `:

| ` + "`enabled`" + ` | ` + "`fallback_to_streaming`" + ` | ` + "`streaming.enabled`" + ` | Readable file | File that cannot be read | Other driver that the engine can read back | ` + "`none`" + `, or a driver that the engine cannot read back |
|---|---|---|---|---|---|---|
| true | true | true | file | streaming | streaming | not captured |
| true | true | false | file | file, tried again | not captured | not captured |
| true | false | either | file | file, tried again | not captured | not captured |
| false | either | true | streaming | streaming | streaming | not captured |
| false | either | false | refused | refused | refused | refused |

The last row is a mistake, since nothing would be captured: to want that, set ` + "`monitors.container.enabled: false`" + `, and
these keys do not matter.
`

const referenceSpool = `
## The spool

What the store has not taken a second after it began to fail is written to ` + "`data_dir/spool`" + `, compressed and synced, and sent from
there, oldest first, once the store takes it; meanwhile the logs are read on, so that rotation may go on, too. ` + "`GET /health`" + ` says
what lies there and how long there will be room at the present rate (` + "`.spool.time_left_seconds`" + `).

- It is full when one more batch would pass ` + "`spool.max_bytes`" + ` or leave less than ` + "`spool.min_free_bytes`" + `. Then lines wait as
  they do without a spool: a few MiB in memory, the others unread in Docker's logs, where rotation may take them.
- A ` + "`max_bytes`" + ` below what lies there deletes nothing: it is full until enough has been sent.
- With ` + "`max_bytes: 0`" + `, or with the sink ` + "`stdout`" + `, there is no spool. What an earlier run has left there stays, and is sent when there
  is a spool again. Let it be drained before it is switched off: what is late by then the store may refuse as too old.
- Files with lines that could not be read again stay there under other names, beside the limit: the newest two of each of four
  lanes (in all 128 MiB, or a quarter of ` + "`max_bytes`" + ` if that is less), and all that a newer agent wrote. They may be deleted.
- What lies there is sent to the destination that is configured then, with the labels that the lines had when they were read.

` + "`docs/formats/spool.md`" + ` describes the files. They hold what the logs hold: keep ` + "`data_dir`" + ` as private.
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
