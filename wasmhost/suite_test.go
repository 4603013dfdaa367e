package wasmhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
)

// TestCorpusAnswersAsRaw runs the modules of the WebAssembly test suite, as the
// engine's source has them, in three ways: as they are, with the meter, and with
// the meter from an image. All exported functions must answer the same, and
// leave the same memory and the same globals.
func TestCorpusAnswersAsRaw(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Skipf("the engine's source is not to be found: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "internal/integration_test/spectest/v2/testdata/*.wasm"))
	if err != nil || len(files) == 0 {
		t.Skipf("the engine's source has no test modules here: %v", err)
	}
	// A sample; most of the suite is made not to be valid.
	const step = 7
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ran, images := 0, 0
	for n := 0; n < len(files); n += step {
		code, err := adapt(files[n])
		if err != nil {
			continue // it is made not to be valid, or imports what no guest gets
		}
		base := filepath.Base(files[n])
		want, fine := observeRaw(t, code)
		if !fine {
			continue
		}
		for _, whole := range []bool{false, true} {
			got, image := observeOurs(t, r, code, whole)
			if got != want {
				t.Errorf("%s, kept whole: %t\n%s", base, whole, firstDifference(got, want))
			}
			if image {
				images++
			}
		}
		ran++
	}
	t.Logf("%d modules of %d, %d from an image", ran, len(files)/step, images)
	if ran < 100 || images < 100 {
		t.Errorf("only %d modules ran, %d of them from an image", ran, images)
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("got  %.300s\nwant %.300s", x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(x), len(y))
}

// adapt gives a module what every guest has: a memory, exported, and
// __guest_call. Its globals are exported, so that they can be seen.
func adapt(file string) ([]byte, error) {
	code, err := readModule(file)
	if err != nil {
		return nil, err
	}
	m := &parsed{}
	if err := m.split(code); err != nil {
		return nil, err
	}
	count := func(section int) (n uint32, rest []byte) {
		b := m.sections[section].bytes
		if b == nil {
			return 0, nil
		}
		r := newReader(m.sections[section], sectionNames[section])
		n = r.u32()
		return n, b[r.at:]
	}
	if n, _ := count(secImport); n > 0 {
		return nil, fmt.Errorf("it imports")
	}
	put := func(section int, add []byte) (number uint32) {
		n, rest := count(section)
		m.sections[section].bytes = slices.Concat(appendUnsigned(nil, uint64(n)+1), rest, add)
		return n
	}
	if m.sections[secMemory].bytes == nil {
		m.sections[secMemory].bytes = []byte{1, 0, 1}
	}
	typ := put(secType, []byte{0x60, 2, typeI32, typeI32, 1, typeI32})
	f := put(secFunction, appendUnsigned(nil, uint64(typ)))
	put(secCode, []byte{4, 0, 0x41, 1, 0x0b})
	if !bytes.Contains(m.sections[secExport].bytes, append([]byte{6}, exportMemory...)) {
		put(secExport, append(appendName(nil, exportMemory), kindMemory, 0))
	}
	put(secExport, appendUnsigned(append(appendName(nil, exportCall), kindFunction), uint64(f)))
	globals, _ := count(secGlobal)
	for n := range globals {
		put(secExport, appendUnsigned(append(appendName(nil, corpusGlobal(n)), kindGlobal), uint64(n)))
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, id := range []int{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secStart, secElement, secDataCount, secCode, secData} {
		if b := m.sections[id].bytes; b != nil {
			out = append(appendUnsigned(append(out, byte(id)), uint64(len(b))), b...)
		}
	}
	_, err = parse(out, 65_536)
	return out, err
}

func corpusGlobal(n uint32) string { return fmt.Sprintf("corpus.global.%d", n) }

// observe calls every exported function with a few arguments, and
// writes down what comes of it.
func observe(ctx context.Context, m api.Module, before func()) string {
	var out strings.Builder
	definitions := m.ExportedFunctionDefinitions()
	names := make([]string, 0, len(definitions))
	for name := range definitions {
		if !strings.HasPrefix(name, reservedPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, values := range [][]uint64{{0, 0}, {1, 3}, {7, 1 << 16}, {0xffffffff, 2}} {
		for _, name := range names {
			d := definitions[name]
			args := make([]uint64, len(d.ParamTypes()))
			usable := true
			for i, p := range d.ParamTypes() {
				args[i] = values[i%2]
				usable = usable && p >= typeF64
			}
			if !usable || len(args) > 8 {
				continue
			}
			before()
			results, err := m.ExportedFunction(name).Call(ctx, args...)
			what := ""
			if err != nil {
				what, _, _ = strings.Cut(err.Error(), "\n")
			}
			for i, p := range d.ResultTypes() {
				if p < typeV128 { // references are addresses
					results = slices.Delete(results, i, len(results))
					break
				}
			}
			b, _ := m.Memory().Read(0, m.Memory().Size())
			var globals []uint64
			for n := uint32(0); ; n++ {
				g := m.ExportedGlobal(corpusGlobal(n))
				if g == nil {
					break
				}
				if g.Type() >= typeV128 { // references are addresses
					globals = append(globals, g.Get())
				}
			}
			fmt.Fprintf(&out, "%s(%v) = %v %s, memory %d %x, globals %x\n", name, args, results, what, len(b), checksum(b), globals)
		}
	}
	return out.String()
}

const (
	corpusMemory = 16 << 20
	rawTimeout   = 200 * time.Millisecond // modules that take longer are left out
)

func observeRaw(t *testing.T, code []byte) (string, bool) {
	ctx, cancel := context.WithTimeout(t.Context(), rawTimeout)
	defer cancel()
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithMemoryLimitPages(corpusMemory/pageBytes).WithCoreFeatures(api.CoreFeaturesV2).WithCloseOnContextDone(true))
	defer engine.Close(ctx)
	m, err := engine.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return "", false
	}
	out := observe(ctx, m, func() {})
	return out, ctx.Err() == nil && !strings.Contains(out, "stack overflow")
}

func observeOurs(t *testing.T, r *Runtime, code []byte, whole bool) (_ string, image bool) {
	t.Helper()
	manifest := nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}}.WithDefaults()
	key := codeKey{tableElements: 65_536, depth: 10_000, memoryBytes: corpusMemory}
	c := &compiled{runtime: r, ready: make(chan struct{}), key: key, shares: 1}
	var err error
	if whole {
		c, err = r.compileWhole(t.Context(), code, key)
	} else {
		err = r.compile(t.Context(), code, c)
	}
	if err != nil {
		return err.Error(), false
	}
	i := &instance{module: &module{runtime: r, compiled: c, manifest: manifest}}
	s, err := r.acquire(i)
	if err != nil {
		return err.Error(), false
	}
	out := ""
	for range 2 {
		s.turn.beginInit(i) // it serves as the context
		s.turn.meter = s.engine.ExportedGlobal(meterExport).(api.MutableGlobal)
		out = observe(&s.turn, s.engine, func() {
			if s.depth != nil {
				s.depth.Set(uint64(c.key.depth))
			}
		})
		if c.image == nil || !s.reset() { // what was reset must answer the same
			break
		}
	}
	r.release(s, false)
	r.unshare(c)
	return out, c.image != nil
}

func readModule(file string) ([]byte, error) { return os.ReadFile(file) }

func checksum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:8]
}
