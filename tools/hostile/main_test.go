package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCorpusIsFresh compares the committed corpus with what the program writes.
func TestCorpusIsFresh(t *testing.T) {
	dir, committed := t.TempDir(), filepath.Join("../..", directory)
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, d := range []string{dir, committed} {
		files, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			names[f.Name()] = true
		}
	}
	for name := range names {
		if want, got := read(t, filepath.Join(dir, name)), read(t, filepath.Join(committed, name)); !bytes.Equal(want, got) {
			t.Errorf("%s is stale: run `go run ./tools/hostile` and commit what changes", name)
		}
	}
	if n := len(names) - 1; n < 40 {
		t.Errorf("the corpus has %d modules, want 40 at least", n)
	}
}

// read returns the content of a file, expanded; nothing if there is none.
func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil && strings.HasSuffix(name, ".gz") {
		b, err = expand(b)
	}
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return b
}
