package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	"github.com/nolaproject/nola/server"
	"github.com/nolaproject/nola/wasmhost"
)

// TestDevPushesWhatHasChanged starts again and again over a directory of modules
// in which the manifest changes and the code does not.
func TestDevPushesWhatHasChanged(t *testing.T) {
	store, err := memstore.New(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	host, err := wasmhost.New(context.Background(), wasmhost.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	code, err := os.ReadFile("../../testdata/guests/small/small.wasm")
	if err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(t.TempDir(), "small.wasm")
	if err := os.WriteFile(module, code, 0o600); err != nil {
		t.Fatal(err)
	}
	catalog := persistence.Catalog{Store: store}
	for _, step := range []struct {
		manifest string // none if empty
		want     string // in what is printed, or in the error
		version  uint64
		env      string
	}{
		{"", "version 1 pushed", 1, ""},
		{"", "version 1 is unchanged", 1, ""},
		{"env: {GREETING: hello}\nlimits: {turn_timeout: 5s, memory_bytes: 33554432}\n", "version 2 pushed", 2, "hello"},
		{`{"env": {"GREETING": "hello"}, "limits": {"turnTimeout": "5s", "memory_bytes": 33554432}}`, "version 2 is unchanged", 2, "hello"},
		{"env: {GREETING: ahoy}\n", "version 3 pushed", 3, "ahoy"},
		{"enw: {GREETING: ahoy}\n", `unknown field "enw"; docs/actors.md`, 3, "ahoy"},
		{"env: [\n", "small.yaml", 3, "ahoy"},
		{"limits: {memory_bytes: 1}\n", "memory", 3, "ahoy"},
		{"# nothing\n", "version 4 pushed", 4, ""},
	} {
		if step.manifest != "" {
			if err := os.WriteFile(manifestFile(module), []byte(step.manifest), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		said, err := pushFile(context.Background(), server.NewModules(store, host), catalog, "small", module)
		if err != nil {
			said = strings.ReplaceAll(err.Error(), "\u00a0", " ") // which protojson puts in at random
		}
		mod, _, err := catalog.Module(context.Background(), nola.DefaultNamespace, "small")
		if err != nil {
			t.Fatal(err)
		}
		rec, _, err := catalog.ModuleVersion(context.Background(), nola.DefaultNamespace, "small", mod.Default)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said, step.want) || rec.Version != step.version || rec.Manifest.Env["GREETING"] != step.env {
			t.Errorf("manifest %q: said %q, version %d with env %v; want %q, version %d, GREETING %q", step.manifest, said, rec.Version, rec.Manifest.Env, step.want, step.version, step.env)
		}
	}
}

// hear is a Writer that hands each piece of text to a function.
type hear func(string)

func (h hear) Write(p []byte) (int, error) {
	h(string(p))
	return len(p), nil
}

// TestDevIsReadyWithItsModules asks /readyz while modules are pushed: who waits
// for it must find them.
func TestDevIsReadyWithItsModules(t *testing.T) {
	dir := t.TempDir()
	code, err := os.ReadFile("../../testdata/guests/small/small.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "counter.wasm"), code, 0o600); err != nil {
		t.Fatal(err)
	}
	ready := func(url string) bool {
		res, err := http.Get(url + "/readyz")
		if err != nil {
			t.Error(err)
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	url, pushed := "", make(chan string, 1)
	said := hear(func(text string) {
		switch {
		case strings.Contains(text, "URL"):
			url = strings.Fields(text[strings.Index(text, "URL"):])[1]
			if ready(url) {
				t.Error("it says it is ready before it has its modules")
			}
		case strings.HasPrefix(text, "module counter"):
			if !strings.Contains(text, "pushed") {
				t.Error(text)
			}
			pushed <- url
		}
	})
	ended := make(chan error, 1)
	go func() {
		ended <- (&dev{listen: "127.0.0.1:0", ephemeral: true, modules: dir, time: timeReal, logLevel: "error"}).run(ctx, said, io.Discard)
	}()
	for url := <-pushed; !ready(url); {
		runtime.Gosched() // it is about to say so
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestExampleManifests reads what lies beside the examples.
func TestExampleManifests(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/main.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples, error %v", err)
	}
	for _, file := range files {
		name := filepath.Join(filepath.Dir(file), "manifest.yaml")
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := readManifest(name)
		if err != nil || m.Validate() != nil || len(m.Operations) == 0 {
			t.Errorf("%s: %+v, error %v", name, m, err)
		}
		if registered := strings.Count(string(source), "guest.Register("); registered != len(m.Operations) {
			t.Errorf("%s lists %q, but the example registers %d operations", name, m.Operations, registered)
		}
		for _, op := range m.Operations {
			if !strings.Contains(string(source), `guest.Register("`+op+`"`) {
				t.Errorf("%s lists %q, which the example does not register", name, op)
			}
		}
	}
}
