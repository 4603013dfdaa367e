package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/server"
)

// manifestBytesMax bounds a manifest that `nolad dev` reads.
const manifestBytesMax = 1 << 20

// manifestFile is where the manifest of the module in a file lies: beside it,
// under its name.
func manifestFile(module string) string { return strings.TrimSuffix(module, ".wasm") + ".yaml" }

// readManifest reads a manifest as `nolactl module push --manifest` takes it, in
// YAML or JSON. No file is the empty manifest.
func readManifest(file string) (nola.Manifest, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nola.Manifest{}, nil
	}
	if err != nil {
		return nola.Manifest{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, manifestBytesMax+1))
	if err != nil {
		return nola.Manifest{}, err
	}
	if len(text) > manifestBytesMax {
		return nola.Manifest{}, fmt.Errorf("%s has more than %d bytes, at most so many are allowed", file, manifestBytesMax)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nola.Manifest{}, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if tree == nil {
		return nola.Manifest{}, nil
	}
	if mode, ok := tree["mode"].(string); ok { // kv and memory, as nolactl takes them
		if long := "MODULE_MODE_" + strings.ToUpper(mode); nolav1.ModuleMode_value[long] != 0 {
			tree["mode"] = long
		}
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		return nola.Manifest{}, fmt.Errorf("%s: %w", file, err)
	}
	m := &nolav1.ModuleManifest{}
	if err := protojson.Unmarshal(raw, m); err != nil {
		what := err.Error()
		if _, rest, ok := strings.Cut(what, "): "); ok { // behind a position in the JSON that nobody wrote
			what = rest
		}
		return nola.Manifest{}, fmt.Errorf("%s: %s; docs/actors.md lists what a manifest may say", file, what)
	}
	return server.ManifestOf(m), nil
}
