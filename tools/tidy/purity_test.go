package tidy

import (
	"go/ast"
	"slices"
	"testing"
)

// pure lists the packages whose output is a function of their input.
var pure = []string{"scheduler", "shard/core", "persistence/lane"}

// impureImports maps packages that would let something else in to the way it
// comes in instead.
var impureImports = map[string]string{
	"context":      "the core returns what to do; it does not wait",
	"sync":         "one owner steps the machine",
	"sync/atomic":  "one owner steps the machine",
	"math/rand":    "chance comes in as input",
	"math/rand/v2": "chance comes in as input",
	"crypto/rand":  "chance comes in as input",
	"log":          "facts leave as output",
	"log/slog":     "facts leave as output",
	"os":           "the machine underneath is the shell's business",
	"net":          "the machine underneath is the shell's business",
	"net/http":     "the machine underneath is the shell's business",
}

// clockNames are the functions of package time that look at a clock or wait.
var clockNames = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// checkPurity looks for clocks, chance and concurrency in the pure packages.
func checkPurity(tr tree) []string {
	var problems []string
	for _, s := range tr.sources() {
		if s.test || !slices.ContainsFunc(pure, func(dir string) bool { return within(s.dir, dir) }) {
			continue
		}
		for _, spec := range s.ast.Imports {
			imported := importPath(spec)
			if why, ok := impureImports[imported]; ok {
				problems = append(problems, s.at(spec.Pos(), "%s is pure and may not import %s: %s", s.dir, imported, why))
			}
		}
		imports := s.imports()
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				problems = append(problems, s.at(n.Pos(), "%s is pure and may not start a goroutine: the shell has the threads", s.dir))
			case *ast.SelectorExpr:
				if name, ok := selected(n, imports, "time"); ok && slices.Contains(clockNames, name) {
					problems = append(problems, s.at(n.Pos(), "%s is pure and may not use time.%s: take `now` as an argument and return when to be called again", s.dir, name))
				}
			}
			return true
		})
	}
	return problems
}

// selected returns the name a selector takes from an imported package.
func selected(n *ast.SelectorExpr, imports map[string]string, imported string) (string, bool) {
	base, ok := n.X.(*ast.Ident)
	if !ok || imports[base.Name] != imported {
		return "", false
	}
	return n.Sel.Name, true
}

func TestPurity(t *testing.T) { holds(t, checkPurity) }

func TestPurityCanFail(t *testing.T) {
	canFail(t, checkPurity, map[string]example{
		"clock":          {tree{"scheduler/a.go": "package scheduler\n\nimport \"time\"\n\nvar t = time.Now()\n"}, "scheduler/a.go:5: scheduler is pure and may not use time.Now"},
		"renamed clock":  {tree{"shard/core/a.go": "package core\n\nimport t \"time\"\n\nvar c = t.After(1)\n"}, "time.After"},
		"goroutine":      {tree{"shard/core/a.go": "package core\n\nfunc f() { go f() }\n"}, "start a goroutine"},
		"chance":         {tree{"scheduler/a.go": "package scheduler\n\nimport _ \"math/rand/v2\"\n"}, "chance comes in as input"},
		"context":        {tree{"shard/core/a.go": "package core\n\nimport _ \"context\"\n"}, "it does not wait"},
		"mutex":          {tree{"shard/core/a.go": "package core\n\nimport _ \"sync\"\n"}, "one owner"},
		"duration":       {tree{"scheduler/a.go": "package scheduler\n\nimport \"time\"\n\nvar t = time.Second\n"}, ""},
		"own time":       {tree{"scheduler/a.go": "package scheduler\n\nvar time struct{ Now int }\n\nvar t = time.Now\n"}, ""},
		"the shell":      {tree{"shard/a.go": "package shard\n\nimport \"time\"\n\nvar t = time.Now()\n"}, ""},
		"test of a pure": {tree{"scheduler/a_test.go": "package scheduler\n\nimport \"time\"\n\nvar t = time.Now()\n"}, ""},
	})
}

// checkSleep looks for tests that wait for time to pass.
func checkSleep(tr tree) []string {
	var problems []string
	for _, s := range tr.sources() {
		if !s.test {
			continue
		}
		imports := s.imports()
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if n, ok := n.(*ast.SelectorExpr); ok {
				if name, ok := selected(n, imports, "time"); ok && name == "Sleep" {
					problems = append(problems, s.at(n.Pos(), "a test may not sleep: wait for the event itself, or run in a synctest bubble and move its clock through a timer"))
				}
			}
			return true
		})
	}
	return problems
}

func TestNoTestSleeps(t *testing.T) { holds(t, checkSleep) }

func TestNoTestSleepsCanFail(t *testing.T) {
	const sleeps = "package p\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"
	canFail(t, checkSleep, map[string]example{
		"test":    {tree{"a_test.go": sleeps}, "a_test.go:5: a test may not sleep"},
		"product": {tree{"a.go": sleeps}, ""},
		"comment": {tree{"a_test.go": "package p\n\n// time.Sleep would be too short.\n"}, ""},
	})
}
