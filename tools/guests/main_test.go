package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const guestsDir = "../../testdata/guests"

// TestDigests holds the binaries of the repository against what is written
// beside them, and their sources too, those of the guest library included: whoever
// changes one must have built the other.
func TestDigests(t *testing.T) {
	for _, g := range all {
		t.Run(g.name, func(t *testing.T) {
			dir := filepath.Join(guestsDir, g.name)
			have, err := readRecord(dir, g.name)
			if err != nil {
				t.Fatal(err)
			}
			if len(have.files) == 0 || have.files[0].name != g.name+".wasm" {
				t.Fatalf("the record begins with %v, want the binary", have.files)
			}
			want, err := g.inputs(dir)
			if err != nil {
				t.Fatal(err)
			}
			binary, err := digestOf(dir, g.name+".wasm")
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range append(want, binary) {
				if !slices.Contains(have.files, d) {
					t.Errorf("%s is not the file whose digest is recorded; go run ./tools/guests builds %s.wasm from its sources", d.name, g.name)
				}
			}
		})
	}
}

// TestBinariesAreBuiltFromTheirSources builds each guest with the compiler that
// made it, and demands the same bytes.
func TestBinariesAreBuiltFromTheirSources(t *testing.T) {
	for _, g := range all {
		t.Run(g.name, func(t *testing.T) {
			dir := filepath.Join(guestsDir, g.name)
			have, err := readRecord(dir, g.name)
			if err != nil {
				t.Fatal(err)
			}
			compiler, version, missing := g.find(t.Context(), dir)
			if missing != "" {
				t.Skip(missing)
			}
			if version != have.compiler {
				t.Skipf("%s made it, here is %s", have.compiler, version)
			}
			out := filepath.Join(t.TempDir(), "guest.wasm")
			if err := g.make(t.Context(), dir, compiler, out); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, g.name+".wasm"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s made of the sources %d bytes that are not the %d of %s.wasm; go run ./tools/guests -rewrite", version, len(got), len(want), g.name)
			}
		})
	}
}

// TestUpdate has a guest whose compiler is the Go tool, with a source that
// changes.
func TestUpdate(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "made"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("library.go", "package library\n")
	write("library_test.go", "package library\n")
	write("made/main.go", "package main\n\nfunc main() {}\n")
	made := guest{
		name: "made", sources: []string{"main.go"}, library: []string{"../*.go"},
		compiler: inPath("no-such-compiler", "go"), version: []string{"version"},
		build: func(out string) []string { return []string{"build", "-o", out, "main.go"} },
		get:   "it comes with this test",
	}
	run := func(want string, rewrite bool) {
		t.Helper()
		got, err := update(t.Context(), dir, []guest{made}, rewrite)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("got %q, want one line that begins with %q", got, want)
		}
	}
	run("guests: built made", true)
	run("guests: up to date made", false)
	write("library_test.go", "package library // changed\n")
	run("guests: up to date made", false)
	write("library.go", "package library // changed\n")
	run("guests: built made", false)
	write("made/main.go", "package main\n\nfunc main() { println() }\n")
	run("guests: built made", false)
	run("guests: up to date made", false)

	record := filepath.Join(dir, "made", "made.wasm.sha256")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	write("made/made.wasm.sha256", "# go: an older one\n"+rest)
	run("guests: up to date made", false)
	write("made/main.go", "package main\n\nfunc main() { println(1) }\n")
	run("guests: skipped made (go: an older one made it, here is "+strings.TrimPrefix(head, "# ")+": go run ./tools/guests -rewrite)", false)
	made.compiler = inPath("no-such-compiler")
	run("guests: skipped made (no compiler: it comes with this test)", false)
	run("guests: skipped made (no compiler: it comes with this test)", true)
	made.compiler, made.ready = inPath("go"), func(context.Context, string) string { return "no target" }
	run("guests: skipped made (no target)", true)
	made.ready = nil
	run("guests: built made", true)

	write("made/main.go", "package main\n\nfunc main() { no }\n")
	if _, err := update(t.Context(), dir, []guest{made}, true); err == nil || !strings.Contains(err.Error(), "undefined: no") {
		t.Errorf("a source that does not compile: %v", err)
	}
}
