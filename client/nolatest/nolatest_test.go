package nolatest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
)

// small is a guest of a few kilobytes.
const small = "../../testdata/guests/small/small.wasm"

func TestServer(t *testing.T) {
	for name, options := range map[string]func(t *testing.T) nolatest.Options{
		"in memory": func(*testing.T) nolatest.Options { return nolatest.Options{} },
		"on disk":   func(t *testing.T) nolatest.Options { return nolatest.Options{Dir: filepath.Join(t.TempDir(), "data")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := nolatest.Start(t, options(t))
			if v := s.PushFile("small", small); v != 1 {
				t.Errorf("first version is %d", v)
			}
			n := 0
			inc := func() {
				t.Helper()
				n++
				if got := s.Invoke("small/alice", "inc", ""); got != strconv.Itoa(n) {
					t.Fatalf("inc number %d answered %q", n, got)
				}
			}
			inc()
			s.Restart()
			inc()
			s.Crash()
			inc()
			if v := s.PushFile("small", small); v != 1 {
				t.Errorf("the same bytes again became version %d", v)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	s := nolatest.Start(t)
	_, err := s.Call("absent/alice", "inc", "")
	if want := (&nola.Error{Reason: nola.ReasonModuleNotFound}); !errors.Is(err, want) {
		t.Errorf("call of a module that does not exist: %v", err)
	}
	if _, err := s.Call("alice", "inc", ""); err == nil {
		t.Error("an actor without a type was called")
	}
}

// TestLeavesNothing starts a server in the directory of another one.
func TestLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	t.Run("first", func(t *testing.T) {
		s := nolatest.Start(t, nolatest.Options{Dir: dir})
		s.PushFile("small", small)
		s.Invoke("small/alice", "inc", "")
	})
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	s := nolatest.Start(t, nolatest.Options{Dir: dir})
	if got := s.Invoke("small/alice", "inc", ""); got != "2" {
		t.Errorf("inc in the next server answered %q", got)
	}
}
