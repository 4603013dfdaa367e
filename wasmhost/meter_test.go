package wasmhost

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// FuzzMeter feeds the parser and the meter anything. What the meter lets pass
// and the engine then compiles must have been valid before: the meter may not
// turn nonsense into sense. And what was valid must compile afterwards.
func FuzzMeter(f *testing.F) {
	small, err := os.ReadFile("../testdata/guests/small/small.wasm")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small)
	f.Add(small[:len(small)/2])
	for _, code := range sampleModules() {
		f.Add(code)
	}
	ctx := context.Background()
	config := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2)
	engine := wazero.NewRuntimeWithConfig(ctx, config)
	compiles := func(code []byte) error {
		c, err := engine.CompileModule(ctx, code)
		if err == nil {
			err = c.Close(ctx)
		}
		return err
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		m, err := parse(code, 65_536)
		if err != nil {
			return
		}
		metered, _, err := m.meter(10_000, m.layout())
		if err != nil {
			return
		}
		before, after := compiles(code), compiles(metered)
		if before != nil && strings.HasPrefix(before.Error(), "section custom") {
			return // the meter leaves custom sections out, and their faults with them
		}
		if (before == nil) != (after == nil) {
			t.Errorf("raw: %v\nmetered: %v\nmodule %x", before, after, code)
		}
	})
}

func TestSamplesCompile(t *testing.T) {
	ctx := context.Background()
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
	defer engine.Close(ctx)
	for i, code := range sampleModules() {
		m, err := parse(code, 65_536)
		if err != nil {
			t.Fatalf("sample %d: %v", i, err)
		}
		metered, _, err := m.meter(10_000, m.layout())
		if err != nil {
			t.Fatalf("sample %d: %v", i, err)
		}
		for what, code := range map[string][]byte{"raw": code, "metered": metered} {
			if _, err := engine.CompileModule(ctx, code); err != nil {
				t.Errorf("sample %d, %s: %v", i, what, err)
			}
		}
	}
}

// sampleModules have what the small guest lacks: elements of several forms,
// references, a start section, blocks with several results, bulk operations.
func sampleModules() [][]byte {
	sized := func(body string) string { return string(appendUnsigned(nil, uint64(len(body)))) + body }
	section := func(id byte, parts ...string) string { return string(rune(id)) + sized(strings.Join(parts, "")) }
	return [][]byte{[]byte("\x00asm\x01\x00\x00\x00" +
		section(secType, "\x03", "\x60\x02\x7f\x7f\x01\x7f", "\x60\x00\x00", "\x60\x00\x02\x7f\x7f") +
		section(secFunction, "\x03\x00\x01\x02") +
		section(secTable, "\x01\x70\x00\x04") +
		section(secMemory, "\x01\x00\x01") +
		section(secGlobal, "\x02", "\x7f\x01\x41\x05\x0b", "\x70\x00\xd2\x01\x0b") +
		section(secExport, "\x02", sized("memory"), "\x02\x00", sized("__guest_call"), "\x00\x00") +
		section(secStart, "\x01") +
		section(secElement, "\x03", "\x00\x41\x00\x0b\x02\x01\x02", "\x05\x70\x02\xd2\x00\x0b\xd0\x70\x0b", "\x03\x00\x01\x02") +
		section(secDataCount, "\x01") +
		section(secCode, "\x03",
			sized("\x00"+"\x41\x00\x41\x00\x41\x01\xfc\x08\x00\x00"+"\x02\x02\x10\x02\x0b\x6a"+"\x41\x01\x11\x01\x00"+"\x0f\x0b"),
			sized("\x00\x03\x40\x41\x00\x0d\x00\x0b\x0b"),
			sized("\x01\x01\x7f"+"\x20\x00\x04\x40\x41\x03\x41\x04\x0f\x0b"+"\x41\x01\x41\x02\x0b")) +
		section(secData, "\x01\x01\x01x"))}
}
