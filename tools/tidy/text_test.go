package tidy

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// foreign is a way of speaking that has no place in the repository.
type foreign struct {
	pattern *regexp.Regexp
	why     string
}

// foreignWords say what the texts of the project leave out: it speaks of itself
// alone, to readers on any machine.
var foreignWords = []foreign{
	{regexp.MustCompile(`(?:^|[^\w.*-])/(?:root|tmp|home)/`), "a path of one machine: take it from a flag, a temporary directory or the repository's root"},
	{regexp.MustCompile(`(?:^|[^.\w])(?:TODO|FIXME|XXX|HACK)\b`), "a marker of unfinished work: finish it or leave it out"},
}

// checkWords looks for foreign words in all text but sums, licences and copies.
func checkWords(tr tree) []string {
	var problems []string
	for _, name := range tr.names() {
		if strings.HasPrefix(name, "thirdparty/") || name == "tools/tidy/text_test.go" || // the patterns above
			path.Ext(name) == ".sum" || path.Base(name) == "LICENSE" || !isText(tr[name]) {
			continue
		}
		for i, line := range strings.Split(tr[name], "\n") {
			for _, f := range foreignWords {
				if found := f.pattern.FindString(line); found != "" {
					problems = append(problems, fmt.Sprintf("%s:%d: %q: %s", name, i+1, strings.TrimSpace(found), f.why))
				}
			}
		}
	}
	return problems
}

func TestWords(t *testing.T) { holds(t, checkWords) }

func TestWordsCanFail(t *testing.T) {
	canFail(t, checkWords, map[string]example{
		"machine path":     {tree{"a.md": "ok\nsee /home/notes\n"}, `a.md:2: "/home/": a path of one machine`},
		"temporary path":   {tree{"a.go": "open(\"/tmp/x\")\n"}, "a path of one machine"},
		"marker":           {tree{"a.go": "// TODO: more\n"}, "unfinished work"},
		"url path":         {tree{"a.md": "POST /v1/work/actor/home/x\n"}, ""},
		"build mode":       {tree{"a.md": "-buildmode=c-shared\nc-shared/design\n"}, ""},
		"context":          {tree{"a.go": "ctx := context.TODO()\n"}, ""},
		"session of a key": {tree{"a.md": "the session of this key\n"}, ""},
		"binary":           {tree{"a.wasm": "\x00asm /tmp/x\n"}, ""},
		"a copy":           {tree{"thirdparty/a.proto": "// TODO: theirs\n"}, ""},
	})
}

var (
	requirement = regexp.MustCompile(`(?m)^(?:require)?\s+([a-z0-9][\w.-]*\.[\w.-]+(?:/\S+)?) v\S+( // indirect)?$`)
	reasonLine  = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
)

// checkReasons wants a line in RATIONALE.md for every module we import from, and
// no line for a module that is gone. What is imported decides, and what go.mod
// calls direct.
func checkReasons(tr tree) []string {
	var problems []string
	required := map[string]bool{} // by module: direct
	for _, m := range requirement.FindAllStringSubmatch(tr["go.mod"], -1) {
		required[m[1]] = m[2] == ""
	}
	for _, s := range tr.sources() {
		for _, spec := range s.ast.Imports {
			imported, owner := importPath(spec), ""
			for m := range required {
				if within(imported, m) && len(m) > len(owner) {
					owner = m
				}
			}
			if owner != "" {
				required[owner] = true
			}
		}
	}
	reasons := map[string]bool{}
	for _, m := range reasonLine.FindAllStringSubmatch(tr["RATIONALE.md"], -1) {
		reasons[m[1]] = true
		if _, ok := required[m[1]]; !ok {
			problems = append(problems, fmt.Sprintf("RATIONALE.md: gives a reason for %s, which go.mod does not require", m[1]))
		}
	}
	for m, direct := range required {
		if direct && !reasons[m] {
			problems = append(problems, fmt.Sprintf("RATIONALE.md: no line \"| `%s` | why | instead of |\": say why we depend on it", m))
		}
	}
	slices.Sort(problems)
	return problems
}

func TestReasons(t *testing.T) { holds(t, checkReasons) }

func TestReasonsCanFail(t *testing.T) {
	const (
		direct   = "module m\n\nrequire (\n\texample.org/a v1.0.0\n)\n"
		indirect = "module m\n\nrequire (\n\texample.org/a v1.0.0 // indirect\n\texample.org/a/b v1.0.0 // indirect\n)\n"
	)
	canFail(t, checkReasons, map[string]example{
		"direct":       {tree{"go.mod": direct}, "no line \"| `example.org/a` |"},
		"single":       {tree{"go.mod": "module m\n\nrequire example.org/a v1.0.0\n"}, "`example.org/a`"},
		"imported":     {tree{"go.mod": indirect, "a.go": "package m\n\nimport _ \"example.org/a/b/c\"\n"}, "`example.org/a/b`"},
		"gone":         {tree{"go.mod": "module m\n", "RATIONALE.md": "| `example.org/a` | x | y |\n"}, "does not require"},
		"not imported": {tree{"go.mod": indirect}, ""},
		"reason given": {tree{"go.mod": direct, "RATIONALE.md": "| `example.org/a` | x | y |\n"}, ""},
	})
}

var (
	codeFence  = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$")
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	link       = regexp.MustCompile(`\]\(\s*<?([^)>\s]+)>?(?:\s+"[^"]*")?\s*\)|(?m)^\[[^\]^]+\]:\s*(\S+)`)
	withScheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:`)
)

// checkLinks wants the target of every relative link in a document to exist.
func checkLinks(tr tree) []string {
	dirs := map[string]bool{}
	for name := range tr {
		for dir := path.Dir(name); !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	var problems []string
	for _, name := range tr.names() {
		if path.Ext(name) != ".md" || strings.HasPrefix(name, "thirdparty/") {
			continue
		}
		prose := inlineCode.ReplaceAllString(codeFence.ReplaceAllString(tr[name], ""), "`code`")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			target, _, _ := strings.Cut(m[1]+m[2], "#")
			if target == "" || withScheme.MatchString(target) {
				continue
			}
			file := path.Join(path.Dir(name), target)
			if strings.HasPrefix(target, "/") {
				file = strings.TrimPrefix(path.Clean(target), "/")
			}
			if _, ok := tr[file]; !ok && !dirs[file] {
				problems = append(problems, fmt.Sprintf("%s: links to %s, which is not in the repository", name, target))
			}
		}
	}
	return problems
}

func TestLinks(t *testing.T) { holds(t, checkLinks) }

func TestLinksCanFail(t *testing.T) {
	canFail(t, checkLinks, map[string]example{
		"missing":   {tree{"docs/a.md": "see [b](b.md)\n"}, "docs/a.md: links to b.md"},
		"reference": {tree{"a.md": "see [b]\n\n[b]: docs/b.md\n"}, "docs/b.md"},
		"present":   {tree{"docs/a.md": "[b](../b.md#part), [d](../docs), [m](#here)\n", "b.md": ""}, ""},
		"elsewhere": {tree{"a.md": "[x](https://example.org/x), [y](mailto:x@example.org)\n"}, ""},
		"code":      {tree{"a.md": "```go\nm[k](v)\n```\nand `m[k](v)`\n"}, ""},
	})
}
