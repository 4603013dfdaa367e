package wasmhost

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/nolaproject/nola"
)

// Limits of a module. They keep the work of checking and compiling it within
// bounds that do not depend on who sent it.
const (
	ModuleBytesMax       = 64 << 20  // a module as pushed
	meteredBytesMax      = 128 << 20 // the same with its meter
	typesMax             = 10_000
	importsMax           = 1_000
	functionsMax         = 100_000
	tablesMax            = 16
	globalsMax           = 10_000
	exportsMax           = 10_000
	segmentsMax          = 100_000  // element segments, data segments
	functionBytesMax     = 2 << 20  // the body of one function
	functionLocalsMax    = 10_000   // parameters and locals of one function
	functionNestingMax   = 10_000   // blocks within blocks
	functionBranchesMax  = 10_000   // blocks and branches of one function: compiling it takes their square
	functionVariablesMax = 20 << 20 // locals times blocks of one function, what its compilation costs
	signatureMax         = 1_000    // parameters or results of one type
	nameBytesMax         = 4 << 10  // a name of an import or export
)

const (
	pageBytes   = 64 << 10
	memoryPages = 65_536 // of a 32-bit memory
)

// The sections, by their numbers in the binary format.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secNumber
)

var sectionNames = [secNumber]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count",
}

// sectionRanks is the order in which sections may stand.
var sectionRanks = [secNumber]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7,
	secStart: 8, secElement: 9, secDataCount: 10, secCode: 11, secData: 12,
}

// Value types and the kinds of what is imported and exported.
const (
	typeI32     = 0x7f
	typeI64     = 0x7e
	typeF32     = 0x7d
	typeF64     = 0x7c
	typeV128    = 0x7b
	typeFuncref = 0x70
	typeExtern  = 0x6f

	kindFunction = 0
	kindTable    = 1
	kindMemory   = 2
	kindGlobal   = 3
)

// signature is the type of a function: one byte for each value.
type signature struct{ params, results string }

func (s signature) String() string {
	list := func(ts string) string {
		names := make([]string, len(ts))
		for i := range len(ts) {
			names[i] = valueTypeName(ts[i])
		}
		return "(" + strings.Join(names, " ") + ")"
	}
	return list(s.params) + " -> " + list(s.results)
}

func valueTypeName(t byte) string {
	switch t {
	case typeI32:
		return "i32"
	case typeI64:
		return "i64"
	case typeF32:
		return "f32"
	case typeF64:
		return "f64"
	case typeV128:
		return "v128"
	case typeFuncref:
		return "funcref"
	case typeExtern:
		return "externref"
	}
	return fmt.Sprintf("%#02x", t)
}

// parsed is a module whose shape was checked. It keeps views of the bytes it
// was parsed from.
type parsed struct {
	sections  [secNumber]view
	types     []signature
	imports   int      // functions; nothing else may be imported
	functions []uint32 // types of the functions defined here
	tables    []table
	memory    limits
	globals   int
	elements  int // of all tables at their smallest
	segments  int // of data
	codes     []view
	lasting   bool // the code changes tables, or needs its data segments; known once it was scanned
}

// view is a part of the module and where it begins.
type view struct {
	bytes  []byte
	offset int
}

type limits struct {
	min, max uint32
	hasMax   bool
}

type table struct {
	kind byte
	limits
}

// invalid refuses a module.
func invalid(format string, args ...any) *nola.Error {
	return nola.Errorf(nola.ReasonInvalidModule, "invalid module: "+format, args...)
}

// parse checks the shape of a module: that it is well formed as far as the
// meter relies on it, that it is within the limits, that the host has what it
// imports and that it exports what the host calls. The bodies of functions are
// checked by the meter, their types by the compiler.
func parse(code []byte, tableElementsMax int) (*parsed, error) {
	switch {
	case len(code) == 0:
		return nil, invalid("it has no bytes")
	case len(code) > ModuleBytesMax:
		e := nola.LimitError(nola.ReasonInvalidModule, "module_bytes", ModuleBytesMax, "invalid module: it has %d bytes, at most %d are allowed", len(code), ModuleBytesMax)
		return nil, e
	case len(code) < 8 || !bytes.Equal(code[:4], []byte("\x00asm")):
		return nil, invalid("not WebAssembly: it must begin with 00 61 73 6d 01 00 00 00, got % x", code[:min(8, len(code))])
	case !bytes.Equal(code[4:8], []byte{1, 0, 0, 0}):
		return nil, invalid("WebAssembly version % x is not supported: want 01 00 00 00, a core module (a component must be unwrapped first)", code[4:8])
	}
	m := &parsed{}
	if err := m.split(code); err != nil {
		return nil, err
	}
	steps := []struct {
		section int
		parse   func(*reader)
	}{
		{secType, m.parseTypes},
		{secImport, m.parseImports},
		{secFunction, m.parseFunctions},
		{secTable, func(r *reader) { m.parseTables(r, tableElementsMax) }},
		{secMemory, m.parseMemory},
		{secGlobal, func(r *reader) { m.globals = r.count("globals", globalsMax) }},
		{secExport, m.parseExports},
		{secElement, func(r *reader) { r.count("segments", segmentsMax) }},
		{secDataCount, func(r *reader) { r.count32("segments", segmentsMax) }},
		{secCode, m.parseCode},
		{secData, func(r *reader) { m.segments = r.count("segments", segmentsMax) }},
	}
	for _, s := range steps {
		r := newReader(m.sections[s.section], sectionNames[s.section])
		if m.sections[s.section].bytes == nil {
			if s.section == secExport || s.section == secMemory {
				s.parse(r) // says what is missing
			}
		} else {
			s.parse(r)
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	if len(m.codes) != len(m.functions) {
		return nil, invalid("%d functions are declared but %d have code", len(m.functions), len(m.codes))
	}
	return m, nil
}

func (m *parsed) split(code []byte) error {
	r := newReader(view{code, 0}, "module")
	r.at = 8
	last := 0
	for r.at < len(r.b) {
		start := r.at
		id := r.u8()
		if r.err == nil && id >= secNumber {
			return invalid("byte %d: section number %d is unknown, want 0 to %d", start, id, secNumber-1)
		}
		size := r.u32()
		if r.err != nil {
			return r.err
		}
		if int64(size) > int64(len(r.b)-r.at) {
			return invalid("%s section at byte %d: it claims %d bytes, %d are left; is the file cut short?", sectionNames[id], start, size, len(r.b)-r.at)
		}
		body := view{r.b[r.at : r.at+int(size) : r.at+int(size)], r.at}
		r.at += int(size)
		if id == secCustom {
			c := newReader(body, sectionNames[id])
			if c.name(); c.err != nil {
				return c.err
			}
			continue
		}
		if rank := sectionRanks[id]; rank <= last {
			return invalid("%s section at byte %d: it stands twice or out of order", sectionNames[id], start)
		} else {
			last = rank
		}
		m.sections[id] = body
	}
	return nil
}

func (m *parsed) parseTypes(r *reader) {
	n := r.count("types", typesMax)
	for range n {
		if form := r.u8(); r.err == nil && form != 0x60 {
			r.fail("a type of form %#x, want 0x60, a function", form)
		}
		m.types = append(m.types, signature{r.valueTypes("parameters"), r.valueTypes("results")})
		if r.err != nil {
			return
		}
	}
	r.end()
}

func (m *parsed) parseImports(r *reader) {
	n := r.count("imports", importsMax)
	for range n {
		module, name, kind := r.name(), r.name(), r.u8()
		if r.err != nil {
			return
		}
		known, ok := imports[module]
		switch {
		case !ok:
			r.fail("import %s.%s: module %q is unknown; known are %s", module, name, module, joinKeys(imports))
			return
		case kind != kindFunction:
			r.fail("import %s.%s: only functions can be imported", module, name)
			return
		}
		want, ok := known[name]
		if !ok {
			r.fail("import %s.%s is unknown; module %q has %s", module, name, module, joinKeys(known))
			return
		}
		if got := m.typeAt(r, r.u32()); r.err == nil && got != want.signature {
			r.fail("import %s.%s has type %s, want %s", module, name, got, want.signature)
		}
		if r.err != nil {
			return
		}
		m.imports++
	}
	r.end()
}

func joinKeys[V any](m map[string]V) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return strings.Join(keys, ", ")
}

func (m *parsed) typeAt(r *reader, index uint32) signature {
	if r.err == nil && int64(index) >= int64(len(m.types)) {
		r.fail("type %d does not exist, there are %d", index, len(m.types))
	}
	if r.err != nil {
		return signature{}
	}
	return m.types[index]
}

func (m *parsed) parseFunctions(r *reader) {
	n := r.count("functions", functionsMax)
	for range n {
		t := r.u32()
		m.typeAt(r, t)
		if r.err != nil {
			return
		}
		m.functions = append(m.functions, t)
	}
	r.end()
}

func (m *parsed) parseTables(r *reader, elementsMax int) {
	n := r.count("tables", tablesMax)
	for range n {
		t := table{kind: r.u8()}
		if r.err == nil && t.kind != typeFuncref && t.kind != typeExtern {
			r.fail("a table of type %#x, want funcref or externref", t.kind)
		}
		t.limits = r.limits()
		if r.err != nil {
			return
		}
		if int64(t.min) > int64(elementsMax) {
			r.fail("table %d asks for %d elements, at most %d are allowed (limits.table_elements of the manifest)", len(m.tables), t.min, elementsMax)
			return
		}
		if !t.hasMax || int64(t.max) > int64(elementsMax) {
			t.max, t.hasMax = uint32(elementsMax), true
		}
		m.elements += int(t.min)
		m.tables = append(m.tables, t)
	}
	r.end()
}

func (m *parsed) parseMemory(r *reader) {
	if r.b == nil {
		r.err = invalid("it has no memory; a guest must define one and export it as \"memory\"")
		return
	}
	if n := r.count("memories", 1_000); r.err == nil && n != 1 {
		r.fail("%d memories, want exactly one", n)
	}
	m.memory = r.limits()
	if r.err != nil {
		return
	}
	if !m.memory.hasMax {
		m.memory.max = memoryPages
	}
	if m.memory.min > memoryPages || m.memory.max > memoryPages {
		r.fail("a memory of %d to %d pages, at most %d are possible", m.memory.min, m.memory.max, memoryPages)
	}
	r.end()
}

// Names of what a guest exports.
const (
	exportMemory     = "memory"
	exportCall       = "__guest_call"
	exportStart      = "_start"
	exportInitialize = "_initialize"
	exportInit       = "wapc_init"
)

func (m *parsed) parseExports(r *reader) {
	type export struct {
		kind  byte
		index uint32
	}
	found := map[string]export{}
	if r.b != nil {
		n := r.count("exports", exportsMax)
		for range n {
			name := r.name()
			e := export{r.u8(), r.u32()}
			if r.err != nil {
				return
			}
			if strings.HasPrefix(name, reservedPrefix) {
				r.fail("export %q is reserved for the host", name)
				return
			}
			found[name] = e
		}
		r.end()
	}
	if r.err != nil && r.b != nil {
		return
	}
	if e, ok := found[exportMemory]; !ok || e.kind != kindMemory {
		r.err = invalid("it does not export its memory as %q", exportMemory)
		return
	}
	for name, want := range map[string]signature{
		exportCall:       {"\x7f\x7f", "\x7f"},
		exportStart:      {},
		exportInitialize: {},
		exportInit:       {},
	} {
		e, ok := found[name]
		if !ok && name != exportCall {
			continue
		}
		if !ok || e.kind != kindFunction {
			r.err = invalid("it does not export the function %q of type %s, through which a waPC host calls a guest; build it with a waPC SDK or the guest package (in Go: -buildmode=c-shared)", name, want)
			return
		}
		defined := int64(e.index) - int64(m.imports)
		if defined < 0 || defined >= int64(len(m.functions)) {
			r.fail("export %q: function %d does not exist or is imported", name, e.index)
			return
		}
		if got := m.types[m.functions[defined]]; got != want {
			r.fail("export %q has type %s, want %s", name, got, want)
			return
		}
	}
}

func (m *parsed) parseCode(r *reader) {
	n := r.count("functions", functionsMax)
	for i := range n {
		size := r.u32()
		if r.err == nil && size > functionBytesMax {
			r.fail("function %d has %d bytes, at most %d are allowed", m.imports+i, size, functionBytesMax)
		}
		at := r.base + r.at
		body := r.take(int(size))
		if r.err != nil {
			return
		}
		m.codes = append(m.codes, view{body, at})
	}
	r.end()
}

// release forgets the module's bytes; the numbers stay.
func (m *parsed) release() {
	m.sections, m.codes, m.functions, m.types = [secNumber]view{}, nil, nil, nil
}
