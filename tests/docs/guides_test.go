package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/log-capturer/log_capturer/internal/config"
	"github.com/log-capturer/log_capturer/tests/harness"
)

// guides are the documents for operators, in which configurations in yaml blocks are
// the agent's own, those in yml, ini and json blocks are other programs', commands in
// sh blocks are run by TestGuides, and commands in bash blocks are for other machines.
var guides = []string{"docs/migrating.md", "docs/operations.md", "docs/recipes.md", "docs/security.md"}

// notRun are the commands of bash blocks, and why no test runs them.
var notRun = map[string]string{
	"docker compose up --detach --force-recreate":                                                                    "Compose and a project of somebody's",
	"docker ps --all --quiet | xargs docker inspect --format '{{.HostConfig.LogConfig.Type}}' | sort | uniq --count": "as the one in the sh block, which is run",
	"docker plugin disable loki": "a plugin that has to be pulled",
	"docker plugin rm loki":      "a plugin that has to be pulled",
}

// blocks gives the fenced blocks of a language, also those within lists.
func blocks(text, language string) (all []string) {
	for _, m := range regexp.MustCompile("(?ms)^( *)```"+language+"\n(.*?)^ *```").FindAllStringSubmatch(text, -1) {
		all = append(all, regexp.MustCompile("(?m)^"+m[1]).ReplaceAllString(m[2], ""))
	}
	return all
}

// TestExamples: each configuration in the guides is taken by what is behind
// `log_capturer validate`, and by the schema for editors.
func TestExamples(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(harness.Root(t), "configs", "config.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	inEditor := func(name, text string) {
		t.Helper()
		var values any
		if err := yaml.Unmarshal([]byte(text), &values); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := schema.Validate(values); err != nil {
			t.Errorf("%s:\n%s\n%v", name, text, err)
		}
	}
	for _, file := range []string{"configs/config.yaml", "deploy/compose/log_capturer.yaml", "deploy/kubernetes/base/config.yaml"} {
		inEditor(file, harness.ReadFile(t, file))
	}
	env := map[string]string{"TENANT": "team-a", "LOKI_PASSWORD": "secret", "API_KEY": "secret"}
	for _, guide := range guides {
		examples := blocks(harness.ReadFile(t, guide), "yaml")
		if least := map[string]int{"docs/migrating.md": 4, "docs/recipes.md": 14}[guide]; len(examples) < least {
			t.Errorf("%s has only %d configurations", guide, len(examples))
		}
		for _, text := range examples {
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(file, func(name string) (string, bool) { v, ok := env[name]; return v, ok }); err != nil {
				t.Errorf("%s:\n%s\n%v", guide, text, err)
			}
			inEditor(guide, text)
		}
		// Other programs' are not checked by them; what is no YAML at all is a slip.
		for _, text := range blocks(harness.ReadFile(t, guide), "yml") {
			var values map[string]any
			if err := yaml.Unmarshal([]byte(text), &values); err != nil || len(values) == 0 {
				t.Errorf("%s:\n%s\n%v", guide, text, err)
			}
		}
	}
}

// TestGuides runs the commands of the guides on a real engine with a running
// container, beside an agent as it is by default. There is no store.
func TestGuides(t *testing.T) {
	harness.NeedDocker(t)
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("docker's command line is not installed:", err)
	}
	agent := runningAgent(t, "guide")

	type expectation struct {
		says  string
		fails bool
	}
	known := map[string]expectation{
		"bin/log_capturer validate -config configs/config.yaml": {says: "configs/config.yaml: ok\n"},
		doctorLine:                                                        {says: "\nFAIL  store connection ", fails: true}, // for there is no store
		"bin/log_capturer containers":                                     {says: "\nguide  json-file  file_monitor  "},
		"curl -sS http://127.0.0.1:8401/health":                           {says: `"file_monitor"`},
		"curl -sS -X POST http://127.0.0.1:8401/-/reload":                 {says: "the new configuration is taken over\n"},
		"bin/log_capturer dlq list --summary -config configs/config.yaml": {says: "CONTAINER  KIND  REASON  RECORDS"},
		`docker ps --all --quiet | xargs docker inspect --format '{{.Name}} {{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}'`: {says: "/guide json-file "},
	}
	named := map[string]bool{}
	for _, guide := range guides {
		for _, line := range commands(t, guide) {
			want, ok := known[line]
			if !ok {
				t.Errorf("%s names the command %q, which no test runs", guide, line)
				continue
			}
			if named[line] {
				continue
			}
			named[line] = true
			agent.ready(t) // it has been reloaded
			says := func(out string) bool { return strings.Contains(out, want.says) }
			if last, answered := agent.answers(t, line, want.fails, says); !answered {
				t.Errorf("%s: %s\ndoes not answer as it should:\n%s", guide, line, last)
			}
		}
	}
	for line := range known {
		if !named[line] {
			t.Errorf("no guide names %q any more", line)
		}
	}
}

// TestGuidesForOtherMachines: commands that no test can run are shell at least, and
// it is known why.
func TestGuidesForOtherMachines(t *testing.T) {
	found := map[string]bool{}
	for _, guide := range guides {
		for _, block := range blocks(harness.ReadFile(t, guide), "bash") {
			if out, err := exec.Command("bash", "-n", "-c", block).CombinedOutput(); err != nil {
				t.Errorf("%s:\n%s\n%s", guide, block, out)
			}
			for line := range strings.Lines(block) {
				line = strings.TrimSpace(line)
				found[line] = true
				if notRun[line] == "" {
					t.Errorf("%s: %q: a command that nobody runs, and nobody says why", guide, line)
				}
			}
		}
	}
	for line := range notRun {
		if !found[line] {
			t.Errorf("no guide names %q any more", line)
		}
	}
}

// slug is the anchor that a heading gets (GitHub's rule).
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

// TestLinks: what a document links to within the repository is there, heading and
// all; and every document is linked to.
func TestLinks(t *testing.T) {
	root := harness.Root(t)
	var documents []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "var"}, d.Name())) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(d.Name(), ".md") {
			name, err := filepath.Rel(root, path)
			documents = append(documents, name)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?s)\n *```.*?\n *```")
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchors := map[string]map[string]bool{}
	for _, doc := range documents {
		anchors[doc] = map[string]bool{}
		for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(harness.ReadFile(t, doc), ""), -1) {
			anchors[doc][slug(m[1])] = true
		}
	}
	linked := map[string]bool{"README.md": true}
	for _, doc := range documents {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(fence.ReplaceAllString(harness.ReadFile(t, doc), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := doc
			if target != "" {
				to = filepath.Join(filepath.Dir(doc), target)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: %s: %v", doc, m[1], err)
				continue
			}
			if anchor != "" && !anchors[to][anchor] {
				t.Errorf("%s: %s: no such heading", doc, m[1])
			}
			if to != doc {
				linked[to] = true
				linked[filepath.Dir(to)] = linked[filepath.Dir(to)] || filepath.Base(to) == "README.md"
			}
		}
	}
	for _, doc := range documents {
		if !linked[doc] && !linked[filepath.Dir(doc)] {
			t.Errorf("no document links to %s", doc)
		}
	}
}
