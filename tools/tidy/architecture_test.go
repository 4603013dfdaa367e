package tidy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var tableRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|[^|]*\\|([^|]*)\\|([^|]*)\\|$")

// checkArchitecture wants the table in ARCHITECTURE.md to be the one that is
// enforced.
func checkArchitecture(tr tree, enforced []row) []string {
	told := map[string][]string{}
	var problems []string
	for _, m := range tableRow.FindAllStringSubmatch(tr["ARCHITECTURE.md"], -1) {
		told[m[1]] = []string{strings.TrimSpace(m[2]), strings.TrimSpace(m[3])}
	}
	for _, r := range enforced {
		want := []string{codeList(r.ours, r.free), codeList(r.others, r.free)}
		got, ok := told[r.packages]
		delete(told, r.packages)
		switch {
		case !ok:
			problems = append(problems, fmt.Sprintf("ARCHITECTURE.md: the table has no row for %s, which may import %s and %s", r.packages, want[0], want[1]))
		case got[0] != want[0]:
			problems = append(problems, fmt.Sprintf("ARCHITECTURE.md: %s may import of ours %s, it says %s", r.packages, want[0], got[0]))
		case got[1] != want[1]:
			problems = append(problems, fmt.Sprintf("ARCHITECTURE.md: %s may import of others %s, it says %s", r.packages, want[1], got[1]))
		}
	}
	for name := range told {
		problems = append(problems, fmt.Sprintf("ARCHITECTURE.md: the table has a row for %s, which nothing enforces (tools/tidy/imports_test.go)", name))
	}
	return problems
}

func codeList(names []string, free bool) string {
	switch {
	case free:
		return "everything"
	case len(names) == 0:
		return "-"
	}
	return "`" + strings.Join(names, "`, `") + "`"
}

func TestArchitecture(t *testing.T) {
	holds(t, func(tr tree) []string { return checkArchitecture(tr, table) })
}

func TestArchitectureCanFail(t *testing.T) {
	rows := []row{{packages: "p/...", ours: []string{".", "q"}}, {packages: "q", free: true}}
	canFail(t, func(tr tree) []string { return checkArchitecture(tr, rows) }, map[string]example{
		"row missing":   {tree{"ARCHITECTURE.md": "| `p/...` | d | `.`, `q` | - |\n"}, "no row for q"},
		"row too many":  {tree{"ARCHITECTURE.md": "| `p/...` | d | `.`, `q` | - |\n| `q` | d | everything | everything |\n| `r` | d | - | - |\n"}, "row for r"},
		"ours differ":   {tree{"ARCHITECTURE.md": "| `p/...` | d | `.` | - |\n| `q` | d | everything | everything |\n"}, "of ours `.`, `q`, it says `.`"},
		"others differ": {tree{"ARCHITECTURE.md": "| `p/...` | d | `.`, `q` | `m` |\n| `q` | d | everything | everything |\n"}, "of others -, it says `m`"},
		"same":          {tree{"ARCHITECTURE.md": "| `p/...` | d | `.`, `q` | - |\n| `q` | d | everything | everything |\n"}, ""},
	})
}
