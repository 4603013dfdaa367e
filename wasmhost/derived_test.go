package wasmhost

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
)

// keptGuests are those whose binaries the repository holds.
var keptGuests = []string{"assemblyscript", "rust", "small", "tinygo", "wat"}

func keptGuest(t *testing.T, name string) []byte {
	t.Helper()
	code, err := os.ReadFile("../testdata/guests/" + name + "/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func prepareIn(t *testing.T, dir string, log *bytes.Buffer, codes ...[]byte) (*Runtime, []nola.Module) {
	t.Helper()
	r, err := New(t.Context(), Config{CacheDir: dir, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	var list []nola.Module
	for _, code := range codes {
		m, err := r.Prepare(t.Context(), code, nola.Manifest{})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return r, list
}

func filesIn(dir string) (found []string) {
	for _, pattern := range []string{"derived-*/*", "wazero-*/*"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		found = append(found, files...)
	}
	return found
}

// TestDerivedIsTheSame prepares modules as another process did before, and
// demands that what runs is no different.
func TestDerivedIsTheSame(t *testing.T) {
	dir := t.TempDir()
	var codes [][]byte
	for _, name := range keptGuests {
		codes = append(codes, keptGuest(t, name))
	}
	var first, second bytes.Buffer
	_, made := prepareIn(t, dir, &first, codes...)
	_, revived := prepareIn(t, dir, &second, codes...)
	const mark = "as it was made before"
	if n := strings.Count(first.String(), mark); n != 0 {
		t.Errorf("%d modules were there at first", n)
	}
	if n := strings.Count(second.String(), mark); n != len(codes) {
		t.Errorf("%d modules of %d were there the second time:\n%s", n, len(codes), &second)
	}
	for n, name := range keptGuests {
		a, b := made[n].(*module).compiled, revived[n].(*module).compiled
		if a.image.id() != b.image.id() || a.memoryMax() != b.memoryMax() || a.image.depth != b.image.depth ||
			fmt.Sprint(a.image.generators) != fmt.Sprint(b.image.generators) || len(a.layout.elements)+len(b.layout.elements) != 0 || (a.tables == nil) != (b.tables == nil) || a.shape.elements != b.shape.elements || a.shape.segments != b.shape.segments {
			t.Errorf("%s differs: %+v, made %+v", name, b.shape, a.shape)
		}
		i, err := revived[n].Instantiate(nola.ActorRef{})
		if err != nil {
			t.Fatal(err)
		}
		i.Close()
	}
	// Other limits are built into other code.
	r, _ := prepareIn(t, dir, &second)
	m, err := r.Prepare(t.Context(), codes[0], nola.Manifest{Limits: nola.Limits{CallDepth: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if d := m.(*module).compiled.image.depth; d != 7 {
		t.Errorf("the depth is %d", d)
	}
}

// TestForget removes what is kept of one module and leaves that of another.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	small, wat := keptGuest(t, "small"), keptGuest(t, "wat")
	var log bytes.Buffer
	prepareIn(t, dir, &log, wat)
	of := filesIn(dir)
	r, _ := prepareIn(t, dir, &log, small)
	if _, err := r.Prepare(t.Context(), small, nola.Manifest{Limits: nola.Limits{CallDepth: 7}}); err != nil {
		t.Fatal(err)
	}
	if n := len(filesIn(dir)); n != len(of)+4 {
		t.Fatalf("there are %d files: %q", n, filesIn(dir))
	}
	if err := r.Forget(sha256.Sum256(small)); err != nil {
		t.Fatal(err)
	}
	if got := filesIn(dir); fmt.Sprint(got) != fmt.Sprint(of) {
		t.Errorf("what is left is %q, want %q", got, of)
	}
	if err := r.Forget(sha256.Sum256(small)); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// TestOtherPipelinesAreThrownAway starts on what another version left.
func TestOtherPipelinesAreThrownAway(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"derived-0/a", "wazero-v0/b", "mine/c"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	prepareIn(t, dir, &log)
	if got := filesIn(dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine/c")); err != nil {
		t.Error(err)
	}
}

// TestPipelineVersion notices that something else is made of modules than the
// version of the pipeline says. If a guest's binary has changed, only its line
// changes; otherwise raise pipelineVersion, and look at images.golden.
func TestPipelineVersion(t *testing.T) {
	if !tablesWork() {
		t.Skip("the engine is not as expected, so that other code is made")
	}
	var got strings.Builder
	fmt.Fprintf(&got, "version %d\n", pipelineVersion)
	for _, name := range keptGuests {
		dir := t.TempDir()
		var log bytes.Buffer
		_, list := prepareIn(t, dir, &log, keptGuest(t, name))
		file := list[0].(*module).runtime.derivedFile(list[0].(*module).compiled.key)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := decodeDerived(b)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, part := range []any{d.Key, d.Metered, d.Image, fmt.Append(nil, d.MemoryMin, d.MemoryMax, d.TableElements, d.Segments, d.Imports, d.Elements, d.Globals, d.Values, d.Depth, d.Monotonic, d.Generators)} {
			b := part.([]byte)
			_ = binary.Write(h, binary.LittleEndian, uint64(len(b)))
			h.Write(b)
		}
		fmt.Fprintf(&got, "%s %x\n", name, h.Sum(nil))
	}
	want, err := os.ReadFile("testdata/pipeline.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("what is made of modules has changed:\n got %s\nwant %s", &got, want)
	}
}

// FuzzDerived reads damaged files.
func FuzzDerived(f *testing.F) {
	good, err := encodeDerived(&derived{Key: []byte{1}, Metered: []byte{2}, Image: make([]byte, pageBytes), Engine: []string{"wazero-v1/a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(derivedMagic))
	evil, err := encodeDerived(&derived{Engine: []string{"../x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(evil)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDerived(b)
		if err != nil {
			return
		}
		for _, name := range d.Engine {
			if !filepath.IsLocal(name) {
				t.Errorf("it leads to %q", name)
			}
		}
	})
}
