package docs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
)

// actorLanguages are those in which the guide for authors has a whole actor, by
// the program that builds it.
var actorLanguages = []string{"cargo", "clang-19", "node_modules/.bin/asc"}

// TestActorsOfTheGuide builds the counter that docs/actors.md shows in each
// language, as it says, and has a server run it. A language whose compiler is
// not here is left out.
func TestActorsOfTheGuide(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "actors.md"))
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	var sources []block
	list, _ := blocks(string(text))
	for _, b := range list {
		switch {
		case b.name == "":
		case b.kind != "sh":
			sources = append(sources, b)
		default:
			shown = append(shown, b.name)
			files := sources
			sources = nil
			t.Run(filepath.Base(b.name), func(t *testing.T) { runActor(t, files, b) })
		}
	}
	if !slices.Equal(shown, actorLanguages) {
		t.Errorf("the guide shows actors built with %q, want %q", shown, actorLanguages)
	}
}

// runActor writes the sources of an actor, builds it and counts with it.
func runActor(t *testing.T, sources []block, build block) {
	if len(sources) == 0 {
		t.Fatalf("line %d: no source stands before the commands", build.line)
	}
	dir := t.TempDir()
	for _, b := range sources {
		file := filepath.Join(dir, b.name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if missing := needs(dir, build.name); missing != nil {
		t.Skipf("%s is not ready here: %v", build.name, missing)
	}
	for _, c := range commands(build) {
		if out, err := shell(t, dir, c.text); err != nil {
			t.Fatalf("line %d: %s: %v\n%s", c.line, c.text, err, out)
		}
	}
	s := nolatest.Start(t)
	s.PushFile("counter", filepath.Join(dir, "counter.wasm"))
	for _, want := range []string{"1", "2", "3"} {
		if got := s.Invoke("counter/a", "inc", "ignored"); got != want {
			t.Errorf("inc = %q, want %q", got, want)
		}
	}
	s.Restart()
	if got := s.Invoke("counter/a", "inc", ""); got != "4" {
		t.Errorf("after a restart inc = %q, want 4", got)
	}
	if _, err := s.Call("counter/a", "fly", ""); !errors.Is(err, &nola.Error{Reason: nola.ReasonOperationNotFound}) {
		t.Errorf("an operation that it does not have: %v", err)
	}
}

// needs says why a program cannot build in dir. What it would fetch must be
// there already: tests ask no registry.
func needs(dir, program string) error {
	if strings.HasPrefix(program, "node_modules/") {
		have, err := filepath.Abs(filepath.Join(root, "testdata", "guests", "assemblyscript", "node_modules"))
		if err == nil {
			_, err = os.Stat(filepath.Join(filepath.Dir(have), filepath.FromSlash(program)))
		}
		if err == nil {
			err = os.Symlink(have, filepath.Join(dir, "node_modules"))
		}
		return err
	}
	if _, err := exec.LookPath(program); err != nil {
		return err
	}
	if program == "cargo" {
		fetch := exec.Command("cargo", "fetch", "--offline", "--target", "wasm32-unknown-unknown")
		fetch.Dir = dir
		if out, err := fetch.CombinedOutput(); err != nil {
			return errors.New(strings.TrimSpace(string(out)))
		}
		target, err := exec.Command("rustc", "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
		if err == nil {
			_, err = os.Stat(strings.TrimSpace(string(target)))
		}
		return err
	}
	return nil
}

func shell(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CARGO_NET_OFFLINE=true")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
