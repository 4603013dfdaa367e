package wasmhost

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The engine fills the tables of every instance by evaluating an expression for
// each element, which takes most of the time in which an instance of a Go guest
// is made: all its functions stand in a table. What comes of it differs between
// two instances of a module in one pointer alone. So the tables of a module that
// does not change them are filled here, by a copy of what its first instance had.
//
// Nothing of this is in the engine's contract. [tablesWork] compares the shape of
// the engine's types with what is relied on, and tries it on a module, before
// anything is built on it; where it does not hold, the engine fills the tables.

// element is an entry of a table at the beginning.
type element struct {
	table, at uint32
	function  uint32 // of the metered module
	null      bool
}

// readElements reads how the tables begin. It answers nil for a module whose
// elements the engine must place itself.
func (m *parsed) readElements() []element {
	if m.sections[secElement].bytes == nil {
		return nil
	}
	r := newReader(m.sections[secElement], sectionNames[secElement])
	moved := (&meterer{parsed: m}).moved
	functions := uint64(m.imports) + uint64(len(m.functions))
	var all []element
	for range r.u32() {
		flags := r.u32()
		if r.err != nil || flags > 7 || flags&1 != 0 { // not active
			return nil
		}
		e := element{}
		if flags&2 != 0 {
			e.table = r.u32()
		}
		if r.u8() != 0x41 { // i32.const; nothing else is possible without imports
			return nil
		}
		e.at = uint32(r.signed(32))
		if r.u8() != 0x0b || flags == 2 && r.u8() != 0 || flags == 6 && r.u8() != typeFuncref {
			return nil
		}
		n := r.count("elements", len(r.b))
		if r.err != nil || int(e.table) >= len(m.tables) || m.tables[e.table].kind != typeFuncref ||
			uint64(e.at)+uint64(n) > uint64(m.tables[e.table].min) {
			return nil
		}
		for range n {
			e.null = false
			if expressions := flags&4 != 0; !expressions {
				e.function = r.u32()
			} else {
				switch r.u8() {
				case 0xd0: // ref.null
					e.null = r.u8() == typeFuncref
					e.function = 0
				case 0xd2: // ref.func
					e.function = r.u32()
				default:
					return nil
				}
				if r.u8() != 0x0b {
					return nil
				}
			}
			if r.err != nil || uint64(e.function) >= functions {
				return nil
			}
			filled := e
			filled.function = uint32(moved(e.function))
			all = append(all, filled)
			e.at++
		}
	}
	if r.err != nil || r.at != len(r.b) {
		return nil
	}
	return all
}

// engineFunction is what a reference of the engine points to.
type engineFunction struct {
	executable *byte
	instance   *byte // differs between instances
	typ        uint32
	index      uint32
}

// tables is how the tables of a module begin, as its first instance had them.
type tables struct {
	functions []engineFunction // without their instance
	places    []place
	imported  []element // refer to functions that are not the module's own
	local     uint32    // a function of the module itself
}

// place is where a function stands.
type place struct{ table, at, function uint32 }

// makeTables takes elements, later ones over earlier ones, as the engine makes
// them for m. imports is how many functions the metered module imports.
func makeTables(m api.Module, elements []element, imports uint32) *tables {
	e := referencesOf(m)
	t := &tables{local: imports}
	at := map[uint32]uint32{}
	last := make(map[[2]uint32]int, len(elements))
	for n, x := range elements {
		last[[2]uint32{x.table, x.at}] = n
	}
	for n, x := range elements {
		switch {
		case x.null, last[[2]uint32{x.table, x.at}] != n:
		case x.function < imports:
			t.imported = append(t.imported, x)
		default:
			n, ok := at[x.function]
			if !ok {
				n = uint32(len(t.functions))
				at[x.function] = n
				f := *functionAt(e.FunctionInstanceReference(x.function))
				f.instance = nil
				t.functions = append(t.functions, f)
			}
			t.places = append(t.places, place{x.table, x.at, n})
		}
	}
	return t
}

// fill fills the tables of m, which the engine has left empty. What it answers
// must be kept as long as m is used.
func (t *tables) fill(m api.Module) []engineFunction {
	e, refs := referencesOf(m), tablesOf(m)
	instance := functionAt(e.FunctionInstanceReference(t.local)).instance
	functions := slices.Clone(t.functions)
	for i := range functions {
		functions[i].instance = instance
	}
	for _, p := range t.places {
		refs[p.table][p.at] = uintptr(unsafe.Pointer(&functions[p.function]))
	}
	for _, x := range t.imported {
		refs[x.table][x.at] = e.FunctionInstanceReference(x.function)
	}
	return functions
}

// references is the part of the engine that makes references to functions, which
// it keeps as long as its instance.
type references interface {
	FunctionInstanceReference(function uint32) uintptr
}

func referencesOf(m api.Module) references {
	e, _ := reflect.ValueOf(m).Elem().FieldByName("Engine").Interface().(references)
	return e
}

// tablesOf is the tables of m, to be written to.
func tablesOf(m api.Module) [][]uintptr {
	all := reflect.ValueOf(m).Elem().FieldByName("Tables")
	refs := make([][]uintptr, all.Len())
	for i := range refs {
		refs[i], _ = all.Index(i).Elem().FieldByName("References").Interface().([]uintptr)
	}
	return refs
}

func functionAt(ref uintptr) *engineFunction {
	return *(**engineFunction)(unsafe.Pointer(&ref))
}

// tablesWork tries once that the engine is as this file takes it to be.
var tablesWork = sync.OnceValue(func() (ok bool) {
	defer func() {
		if recover() != nil { // a type that is not there, or is another
			ok = false
		}
	}()
	return tablesTried(context.Background())
})

// triedModule has two functions that answer 7 and 9, one that answers what the
// element of a table answers, and a table whose elements are declared only.
var triedModule = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x0a\x02\x60\x00\x01\x7f\x60\x01\x7f\x01\x7f" + // types () -> i32, i32 -> i32
	"\x03\x05\x04\x00\x00\x01\x01" +
	"\x04\x04\x01\x70\x00\x04" + // a table of four
	"\x07\x0d\x02\x04call\x00\x02\x02of\x00\x03" +
	"\x09\x06\x01\x03\x00\x02\x00\x01" + // declared: functions 0 and 1
	"\x0a\x1d\x04\x04\x00\x41\x07\x0b\x04\x00\x41\x09\x0b" +
	"\x07\x00\x20\x00\x11\x00\x00\x0b" + // call_indirect () -> i32
	"\x09\x00\x20\x00\x20\x00\x11\x01\x00\x0b") // call_indirect i32 -> i32

func tablesTried(ctx context.Context) bool {
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer func() { _ = r.Close(ctx) }() // it has nothing that can fail
	code, err := r.CompileModule(ctx, triedModule)
	if err != nil {
		return false
	}
	var first *tables
	var kept [][]engineFunction
	calls := make([]api.Function, 0, 4)
	for n := range 2 {
		m, err := r.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			return false
		}
		if n == 0 {
			if !engineLooksRight(m) {
				return false
			}
			first = makeTables(m, []element{{at: 0, function: 1}, {at: 1, null: true}, {at: 3, function: 0}}, 0)
		}
		kept = append(kept, first.fill(m))
		calls = append(calls, m.ExportedFunction("call"), m.ExportedFunction("of"))
	}
	answers := func(f api.Function, at uint64, want uint64) bool {
		got, err := f.Call(ctx, at)
		return err == nil && len(got) == 1 && got[0] == want
	}
	for n := 0; n < len(calls); n += 2 {
		call, of := calls[n], calls[n+1]
		if !answers(call, 0, 9) || !answers(call, 3, 7) {
			return false
		}
		for _, wrong := range []struct {
			f  api.Function
			at uint64
		}{{call, 1}, {call, 2}, {call, 4}, {of, 0}} { // null, null, outside, of another type
			if _, err := wrong.f.Call(ctx, wrong.at); err == nil {
				return false
			}
		}
	}
	return len(kept) == 2
}

// engineLooksRight compares the type behind references with ours.
func engineLooksRight(m api.Module) bool {
	engine := reflect.TypeOf(referencesOf(m))
	if engine == nil || engine.Kind() != reflect.Pointer {
		return false
	}
	field, ok := engine.Elem().FieldByName("localFunctionInstances")
	if !ok || field.Type.Kind() != reflect.Slice || field.Type.Elem().Kind() != reflect.Pointer {
		return false
	}
	theirs, ours := field.Type.Elem().Elem(), reflect.TypeFor[engineFunction]()
	if theirs.Kind() != reflect.Struct || theirs.Size() != ours.Size() || theirs.NumField() != ours.NumField() {
		return false
	}
	names := []string{"executable", "moduleContextOpaquePtr", "typeID", "indexInModule"}
	for i := range ours.NumField() {
		a, b := theirs.Field(i), ours.Field(i)
		if a.Name != names[i] || a.Offset != b.Offset || a.Type.Kind() != b.Type.Kind() {
			return false
		}
	}
	refs := tablesOf(m)
	return len(refs) == 1 && len(refs[0]) == 4
}
