package server_test

import (
	"context"
	"slices"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/server"
)

// counting is a runtime that knows which of its modules are open.
type counting struct{ open []string }

func (c *counting) Prepare(_ context.Context, _ []byte, m nola.Manifest) (nola.Module, error) {
	c.open = append(c.open, m.Env["version"])
	return &counted{guest: guest{manifest: m.WithDefaults()}, runtime: c}, nil
}

func (c *counting) Close() error { return nil }

type counted struct {
	guest
	runtime *counting
}

func (g *counted) Close() error {
	at := slices.Index(g.runtime.open, g.manifest.Env["version"])
	g.runtime.open = slices.Delete(g.runtime.open, at, at+1)
	return nil
}

// TestReplacedModulesAreClosed pushes, goes back and deletes, and looks at which
// modules the registry holds: only those that actors run.
func TestReplacedModulesAreClosed(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	runtime := &counting{}
	m := server.NewModules(store, runtime)
	push := func(version string) error {
		_, err := m.Push(t.Context(), "default", "a", []byte("code"), nola.Manifest{Env: map[string]string{"version": version}})
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"a push", func() error { return push("1") }, []string{"1"}},
		{"another one", func() error { return push("2") }, []string{"2"}},
		{"the same again", func() error { return push("2") }, []string{"2"}},
		{"going back", func() error { _, err := m.SetDefault(t.Context(), "default", "a", 1); return err }, []string{"1"}},
		{"deleting it", func() error { return m.Delete(t.Context(), "default", "a", false) }, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if !slices.Equal(runtime.open, step.want) {
			t.Errorf("after %s versions %q are open, want %q", step.what, runtime.open, step.want)
		}
	}
}
