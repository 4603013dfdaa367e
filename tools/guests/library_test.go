package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
)

// what the operation library of the kitchen guest answers.
const library = `Put:
Get: 41 true
AddInt: 42
PutJSON:
GetJSON: a b true
List: n 42 false
Delete: true
Create:
Call: hi
Call of what fails: true
Cast: 32
CastAfter: 32
Now: true
SetTimer:
Timers: t tick hi 1h0m0s
CancelTimer: true
SetTimerAt:
SetReminder:
CancelReminder: true
Random: 16
Self: kitchen a library
Caller: client 0 true
Config: hello true
Log:
ReplyError: false
`

// TestLibrary goes through the guest library on a server, as Go builds it and as
// TinyGo does.
func TestLibrary(t *testing.T) {
	for name, build := range map[string]func(t *testing.T, dir, out string){"go": withGo, "tinygo": withTinyGo} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "kitchen.wasm")
			build(t, filepath.Join(guestsDir, "kitchen"), out)
			code, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			s := nolatest.Start(t)
			s.Push("kitchen", code, nola.Manifest{Env: map[string]string{"greeting": "hello"}})
			if got := s.Invoke("kitchen/a", "library", ""); got != library {
				t.Errorf("it answers\n%swant\n%s", got, library)
			}
		})
	}
}

func withGo(t *testing.T, dir, out string) {
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

func withTinyGo(t *testing.T, dir, out string) {
	for _, g := range all {
		if g.name != "tinygo" {
			continue
		}
		compiler, _, missing := g.find(t.Context(), dir)
		if missing != "" {
			t.Skip(missing)
		}
		g.build = func(out string) []string {
			return []string{"build", "-target", "../tinygo/target.json", "-opt=z", "-no-debug", "-buildmode=c-shared", "-o", out, "."}
		}
		if err := g.make(t.Context(), dir, compiler, out); err != nil {
			t.Fatal(err)
		}
	}
}
