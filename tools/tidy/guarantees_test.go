package tidy

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"
)

// namedTest is a test as documents name it; its package may stand in front, and
// then serves those behind it as well.
var namedTest = regexp.MustCompile("`(?:([a-z][a-z0-9/]*)|((?:Test|Fuzz)[A-Z][A-Za-z0-9]*))`")

// checkNamedTests wants every test that a document names to exist, in the
// package named last before it.
func checkNamedTests(tr tree) []string {
	tests := map[string]map[string]bool{} // by directory
	packages := map[string]bool{}
	for _, s := range tr.sources() {
		packages[s.dir] = true
		if !s.test {
			continue
		}
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				if tests[s.dir] == nil {
					tests[s.dir] = map[string]bool{}
				}
				tests[s.dir][f.Name.Name] = true
			}
		}
	}
	var problems []string
	for _, name := range tr.names() {
		if path.Dir(name) != "docs" || path.Ext(name) != ".md" {
			continue
		}
		for i, paragraph := range strings.Split(tr[name], "\n\n") {
			dir := ""
			for _, m := range namedTest.FindAllStringSubmatch(paragraph, -1) {
				switch {
				case m[1] != "" && packages[m[1]]:
					dir = m[1]
				case m[2] != "" && !tests[dir][m[2]]:
					problems = append(problems, fmt.Sprintf("%s: paragraph %d names the test %s of package %q, which does not exist: a promise without a test is a hope", name, i+1, m[2], dir))
				}
			}
		}
	}
	return problems
}

func TestNamedTests(t *testing.T) { holds(t, checkNamedTests) }

func TestNamedTestsCanFail(t *testing.T) {
	const test = "package p\n\nfunc TestA() {}\n"
	canFail(t, checkNamedTests, map[string]example{
		"missing":         {tree{"p/a_test.go": test, "docs/a.md": "see `p` `TestB`\n"}, "names the test TestB of package \"p\""},
		"other package":   {tree{"p/a_test.go": test, "q/a_test.go": "package q\n", "docs/a.md": "see `p` `TestA`, `q` `TestA`\n"}, "TestA of package \"q\""},
		"without package": {tree{"p/a_test.go": test, "docs/a.md": "see `TestA`\n"}, "TestA of package \"\""},
		"next paragraph":  {tree{"p/a_test.go": test, "docs/a.md": "see `p`\n\nand `TestA`\n"}, "TestA"},
		"there":           {tree{"p/a_test.go": test, "docs/a.md": "see `p` `TestA`\nand `TestA`\n"}, ""},
		"not a test":      {tree{"p/a_test.go": test, "docs/a.md": "`Testing` `testA`\n"}, ""},
	})
}
