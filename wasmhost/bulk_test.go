package wasmhost

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
)

// What a module of bulkModule has.
const (
	bulkPages    = 72      // of memory, 4.5 MiB
	bulkData     = 5 << 19 // bytes of its segment
	bulkElements = 300_000 // of its tables and its segment of elements
)

// bulkModule exports a function for each bulk operation, of their three operands,
// and "sum", which depends on what both tables hold, and where.
func bulkModule() []byte {
	sized := func(body string) string { return string(appendUnsigned(nil, uint64(len(body)))) + body }
	section := func(id byte, parts ...string) string { return string(rune(id)) + sized(strings.Join(parts, "")) }
	number := func(n int) string { return string(appendUnsigned(nil, uint64(n))) }
	const operands = "\x20\x00\x20\x01\x20\x02"
	functions := []struct{ name, typ, code string }{
		{exportCall, "\x00", "\x41\x01"},
		{"memory.init", "\x01", operands + "\xfc\x08\x00\x00"},
		{"data.drop", "\x01", "\xfc\x09\x00"},
		{"memory.copy", "\x01", operands + "\xfc\x0a\x00\x00"},
		{"memory.fill", "\x01", operands + "\xfc\x0b\x00"},
		{"table.init", "\x01", operands + "\xfc\x0c\x00\x00"},
		{"elem.drop", "\x01", "\xfc\x0d\x00"},
		{"table.copy", "\x01", operands + "\xfc\x0e\x00\x00"},
		{"table.copy to another", "\x01", operands + "\xfc\x0e\x01\x00"},
		{"table.fill", "\x01", "\x20\x00\xd2\x00\x20\x02\xfc\x11\x00"},
		// Not in place any more.
		{"late memory.copy", "\x01", strings.Repeat("\x41\x00\x41\x00\x41\x00\xfc\x0b\x00", bulksInPlaceMax) + operands + "\xfc\x0a\x00\x00"},
		{"sum", "\x02", "\x03\x40" +
			"\x20\x01\x41\x03\x6c\x20\x00\x25\x00\xd1\x6a" + // local 1 * 3 + is_null(table 0 at i)
			"\x20\x00\x25\x01\xd1\x41\x05\x6c\x6a\x21\x01" + // + 5 * is_null(table 1 at i)
			"\x20\x00\x41\x01\x6a\x22\x00\xfc\x10\x00\x48\x0d\x00\x0b\x20\x01"},
	}
	var types, exports, bodies string
	for n, f := range functions {
		types += f.typ
		exports += sized(f.name) + "\x00" + number(n)
		locals := "\x00"
		if f.name == "sum" {
			locals = "\x01\x01\x7f"
		}
		bodies += sized(locals + f.code + "\x0b")
	}
	var elements strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, bulkData)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	for range bulkElements {
		elements.WriteString([]string{"\xd2\x01\x0b", "\xd0\x70\x0b"}[random.IntN(2)])
	}
	table := "\x70\x00" + number(bulkElements)
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(secType, "\x03", "\x60\x02\x7f\x7f\x01\x7f", "\x60\x03\x7f\x7f\x7f\x00", "\x60\x01\x7f\x01\x7f") +
		section(secFunction, number(len(functions)), types) +
		section(secTable, "\x02", table, table) +
		section(secMemory, "\x01\x00", number(bulkPages)) +
		section(secExport, number(len(functions)+1), exports, sized(exportMemory), "\x02\x00") +
		section(secElement, "\x02", "\x05\x70", number(bulkElements), elements.String(), "\x03\x00\x01\x00") +
		section(secDataCount, "\x01") +
		section(secCode, number(len(functions)), bodies) +
		section(secData, "\x01\x01", sized(string(data))))
}

// TestLongBulkOperationsAnswerAsRaw moves more than a piece, to and fro, over
// itself and beyond all ends, raw on the engine and piece by piece.
func TestLongBulkOperationsAnswerAsRaw(t *testing.T) {
	ctx := t.Context()
	code := bulkModule()
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
	defer engine.Close(ctx)
	raw, err := engine.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := r.compileWhole(ctx, code, codeKey{tableElements: 1 << 20, depth: 10_000, memoryBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{module: &module{runtime: r, compiled: c, manifest: nola.Manifest{}.WithDefaults()}}
	s, err := r.acquire(i)
	if err != nil {
		t.Fatal(err)
	}
	defer r.release(s, false)
	call := func(ctx context.Context, m api.Module, name string, args ...uint64) string {
		results, err := m.ExportedFunction(name).Call(ctx, args...)
		what := fmt.Sprint(results)
		if err != nil {
			what, _, _ = strings.Cut(err.Error(), "\n")
		}
		return what
	}
	check := func(name string, args ...uint64) {
		t.Helper()
		want := call(ctx, raw, name, args...)
		s.turn.beginInit(i) // it serves as the context
		got := call(&s.turn, s.engine, name, args...)
		if got != want {
			t.Errorf("%s %d: %s, raw %s", name, args, got, want)
		}
		a, _ := s.engine.Memory().Read(0, bulkPages*pageBytes)
		b, _ := raw.Memory().Read(0, bulkPages*pageBytes)
		if !bytes.Equal(a, b) {
			t.Fatalf("%s %d: the memory differs from the raw one's", name, args)
		}
		if strings.HasPrefix(name, "table") {
			if got, want := call(&s.turn, s.engine, "sum", 0), call(ctx, raw, "sum", 0); got != want {
				t.Fatalf("%s %d: the tables differ: %s, raw %s", name, args, got, want)
			}
		}
	}

	const memory, bytePiece, elementPiece = bulkPages * pageBytes, pieceSteps << bytesPerStepBits, pieceSteps << elementsPerStepBits
	for _, of := range []struct {
		names             []string
		end, source, unit uint64
	}{
		{[]string{"memory.init"}, memory, bulkData, bytePiece},
		{[]string{"memory.copy", "late memory.copy", "memory.fill"}, memory, memory, bytePiece},
		{[]string{"table.init"}, bulkElements, bulkElements, elementPiece},
		{[]string{"table.copy", "table.copy to another", "table.fill"}, bulkElements, bulkElements, elementPiece},
	} {
		for _, name := range of.names {
			for _, n := range []uint64{of.unit - 1, of.unit, of.unit + 1, 2*of.unit - 1, 2 * of.unit, 2*of.unit + 12_345} {
				check(name, 0, 0, n)
				check(name, 0, 1, n)
				check(name, 1, 0, n)
				check(name, 7, 3000, n)
				check(name, 3000, 7, n)
				check(name, of.end-n, of.source-n, n)
				check(name, of.end-n+1, 0, n) // one too far
				check(name, 0, of.source-n+1, n)
				check(name, 0, 1<<32-n, n) // wraps to 0
				check(name, 1<<32-n, 0, n)
				check(name, 1<<32-1, 1<<32-1, n)
			}
			for _, n := range []uint64{of.end, of.end + 1, 1<<32 - 1} {
				check(name, 0, 0, n)
				check(name, 1, 1, n)
				check(name, of.end, of.end, n)
				check(name, n, n, n)
			}
		}
	}
	for _, drop := range []string{"data.drop", "elem.drop"} {
		check(drop, 0, 0, 0)
	}
	check("memory.init", 0, 0, bytePiece+1)
	check("table.init", 0, 0, elementPiece+1)
	check("memory.init", 0, 0, 0)
}

// TestBulkOperationsWeighWhatTheyMove counts the steps of short ones and long
// ones, and how often the longest come to the host.
func TestBulkOperationsWeighWhatTheyMove(t *testing.T) {
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := r.compileWhole(t.Context(), bulkModule(), codeKey{tableElements: 1 << 20, depth: 10_000, memoryBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{module: &module{runtime: r, compiled: c, manifest: nola.Manifest{}.WithDefaults()}}
	s, err := r.acquire(i)
	if err != nil {
		t.Fatal(err)
	}
	defer r.release(s, false)
	steps := func(name string, args ...uint64) uint64 {
		s.turn.beginInit(i)
		s.turn.meter = s.engine.ExportedGlobal(meterExport).(api.MutableGlobal)
		s.turn.grant(0)
		if _, err := s.engine.ExportedFunction(name).Call(&s.turn, args...); err != nil {
			t.Fatal(err)
		}
		return s.turn.steps()
	}
	for _, n := range []uint64{0, 63, 64, 1000, 1 << 20, 1<<20 + 1, 3<<20 + 77} {
		for _, name := range []string{"memory.copy", "memory.fill"} {
			if got, want := steps(name, 0, 9, n), 1+n/bytesPerStep; got != want {
				t.Errorf("%s of %d bytes takes %d steps, want %d", name, n, got, want)
			}
		}
	}
	for _, n := range []uint64{0, 7, 8, 128 << 10, 128<<10 + 1, bulkElements} {
		for _, name := range []string{"table.copy", "table.init"} {
			if got, want := steps(name, 0, 0, n), 1+n>>elementsPerStepBits; got != want {
				t.Errorf("%s of %d elements takes %d steps, want %d", name, n, got, want)
			}
		}
	}
}
