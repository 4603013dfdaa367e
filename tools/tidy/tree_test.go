package tidy

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path under which our own packages are imported.
const module = "github.com/nolaproject/nola"

// tree is the repository, or a made-up one: contents by slash-separated path.
type tree map[string]string

// repository reads the files that git tracks or would track.
func repository(t *testing.T) tree {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("the root of the repository is not where this test expects it: %v", err)
	}
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the files of the repository (these checks need a git clone): %v", err)
	}
	files := tree{}
	for _, name := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		file := filepath.Join(root, filepath.FromSlash(name))
		info, err := os.Lstat(file)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !info.Mode().IsRegular()) {
			continue // deleted but not yet committed, or a link
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	return files
}

// names returns the paths of the tree in order.
func (tr tree) names() []string {
	names := make([]string, 0, len(tr))
	for name := range tr {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// source is one parsed Go file.
type source struct {
	name      string // path in the tree
	dir       string // "." for the root
	test      bool
	generated bool
	set       *token.FileSet
	ast       *ast.File
}

var (
	generatedMark = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	majorVersion  = regexp.MustCompile(`^v[0-9]+$`)
)

// sources parses the Go files of the tree. Files that do not parse are left to
// the compiler, and copies of others to their authors.
func (tr tree) sources() []source {
	var all []source
	for _, name := range tr.names() {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, "thirdparty/") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, tr[name], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		all = append(all, source{
			name:      name,
			dir:       path.Dir(name),
			test:      strings.HasSuffix(name, "_test.go"),
			generated: generatedMark.MatchString(tr[name]),
			set:       set,
			ast:       file,
		})
	}
	return all
}

// at formats a problem at a place of the source.
func (s source) at(pos token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.name, s.set.Position(pos).Line, fmt.Sprintf(format, args...))
}

// imports returns the imported paths by the name the file uses for them.
func (s source) imports() map[string]string {
	byName := map[string]string{}
	for _, spec := range s.ast.Imports {
		imported := importPath(spec)
		name := path.Base(imported)
		if majorVersion.MatchString(name) {
			name = path.Base(path.Dir(imported))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		byName[name] = imported
	}
	return byName
}

func importPath(spec *ast.ImportSpec) string {
	imported, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(fmt.Sprintf("the parser accepted the import path %s: %v", spec.Path.Value, err))
	}
	return imported
}

// within reports whether the path is the prefix or lies below it.
func within(p, prefix string) bool {
	return p == prefix || strings.HasPrefix(p, prefix+"/")
}

func isText(content string) bool {
	return !bytes.ContainsRune([]byte(content), 0)
}

// check is one rule: it returns the problems of a tree, in the tree's order.
type check func(tree) []string

// holds runs a check over the repository.
func holds(t *testing.T, c check) {
	t.Helper()
	for _, problem := range c(repository(t)) {
		t.Error(problem)
	}
}

// example is a made-up tree and a part of the one problem it has; no problem if
// want is empty.
type example struct {
	files tree
	want  string
}

// canFail runs a check over made-up trees.
func canFail(t *testing.T, c check, examples map[string]example) {
	t.Helper()
	for name, e := range examples {
		t.Run(name, func(t *testing.T) {
			got := c(e.files)
			switch {
			case e.want == "" && len(got) > 0:
				t.Errorf("problems in a tree without any: %q", got)
			case e.want != "" && len(got) != 1:
				t.Errorf("%d problems %q, want one that says %q", len(got), got, e.want)
			case e.want != "" && !strings.Contains(got[0], e.want):
				t.Errorf("problem %q does not say %q", got[0], e.want)
			}
		})
	}
}
