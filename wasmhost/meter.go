package wasmhost

// The meter rewrites a module so that it counts its own work and leaves to the
// host now and then. A native loop cannot be preempted: without the meter one
// spinning guest would stop the whole process at the next garbage collection.
//
// Two globals and one imported function are added:
//
//   - steps (i64, exported) counts down at function entries, loop heads and
//     bulk operations. Below zero the guest calls the import with reasonSteps;
//     the host adds up, checks what there is to check, and grants another slice.
//   - depth (i32) counts down by the weight of a frame when a function that
//     calls others is entered and up when it is left; below zero the guest calls
//     the import with reasonDepth, which ends the turn. To see every way out,
//     the body is put into a block: a branch to the function's own label leads
//     to the end of that block by itself, and a return becomes such a branch.
//     A trap leaves the counter wrong, but the instance is broken then. Leaf
//     functions cannot recurse and go uncounted.
//
// An entry or a loop weighs one step and one more for each 256 instructions of
// its body, so that a step stands for a bounded stretch of straight code. A bulk
// operation weighs what it moves, and moves much piece by piece (bulk.go).
//
// The import follows the guest's own imports, so that every function defined in
// the module moves one number up: in calls, references, exports, elements and
// the start section. Functions of the meter's own follow those of the guest.
// Sections in which numbers might hide (names and other custom ones) are dropped.
const (
	meterModule = "nola"
	meterImport = "yield"
	meterExport = reservedPrefix + "steps"

	// What else is exported is for the host as well.
	reservedPrefix     = "nola."
	startExport        = reservedPrefix + "start"
	depthExport        = reservedPrefix + "depth"
	globalExportPrefix = reservedPrefix + "global."

	reasonSteps = 0
	reasonDepth = 1
)

// meter returns m with its meter. depth bounds nested frames. With a layout the
// module is written without what the layout holds; the layout that was heeded
// is returned, none if the code does what a reset could not take back.
func (m *parsed) meter(depth int, l *layout) ([]byte, *layout, error) {
	w := &meterer{parsed: m, layout: l, steps: uint64(m.globals), depth: uint64(m.globals) + 1, yield: uint64(m.imports), typeNumbers: map[signature]uint64{}, movers: map[bulk]uint64{}}
	w.out = make([]byte, 0, m.size()*5/4+1024)
	w.out = append(w.out, "\x00asm\x01\x00\x00\x00"...)

	// The code is written first, into its own buffer, for it adds types.
	code, err := w.code()
	if err != nil {
		return nil, nil, err
	}
	if w.lasting {
		w.layout = nil
	}
	sections := []struct {
		id    byte
		write func([]byte) ([]byte, error)
	}{
		{secType, w.typeSection},
		{secImport, w.importSection},
		{secFunction, w.functionSection},
		{secTable, w.tableSection},
		{secMemory, w.memorySection},
		{secGlobal, func(b []byte) ([]byte, error) { return w.globalSection(b, depth) }},
		{secExport, w.exportSection},
		{secStart, w.startSection},
		{secElement, w.elementSection},
		{secDataCount, w.dataSection},
		{secCode, func([]byte) ([]byte, error) { return code, nil }},
		{secData, w.dataSection},
	}
	for _, s := range sections {
		body, err := s.write(m.sections[s.id].bytes)
		if err != nil {
			return nil, nil, err
		}
		if body == nil {
			continue
		}
		w.out = append(w.out, s.id)
		w.out = appendUnsigned(w.out, uint64(len(body)))
		w.out = append(w.out, body...)
	}
	if len(w.out) > meteredBytesMax {
		return nil, nil, invalid("it grows to %d bytes with its meter, at most %d are allowed", len(w.out), meteredBytesMax)
	}
	return w.out, w.layout, nil
}

type meterer struct {
	*parsed
	layout       *layout // nil: the module is kept whole
	steps, depth uint64  // globals
	yield        uint64  // function
	out          []byte
	newTypes     []signature // appended to the guest's and to that of the import
	typeNumbers  map[signature]uint64
	movers       map[bulk]uint64 // functions
	moverTypes   []uint64        // of each, in the order of their numbers
	moverCode    []byte
}

func (m *parsed) size() int {
	n := 0
	for _, s := range m.sections {
		n += len(s.bytes)
	}
	return n
}

// yieldType is the number of the type of the import; further new types follow.
func (w *meterer) yieldType() uint64 { return uint64(len(w.types)) }

func (w *meterer) dataSection(b []byte) ([]byte, error) {
	if w.layout != nil {
		return nil, nil
	}
	return b, nil
}

// extend begins a section like old with add further entries and returns it with
// the old entries; the caller appends the new ones.
func extend(old []byte, add int) []byte {
	n, rest := uint32(0), old
	if old != nil {
		r := reader{b: old}
		n = r.u32()
		rest = old[r.at:]
	}
	return append(appendUnsigned(make([]byte, 0, len(old)+64), uint64(n)+uint64(add)), rest...)
}

func (w *meterer) typeSection(old []byte) ([]byte, error) {
	b := extend(old, 1+len(w.newTypes))
	b = append(b, 0x60, 1, typeI32, 0)
	for _, t := range w.newTypes {
		b = append(b, 0x60)
		b = appendName(b, t.params)
		b = appendName(b, t.results)
	}
	return b, nil
}

func (w *meterer) importSection(old []byte) ([]byte, error) {
	b := extend(old, 1)
	b = appendName(b, meterModule)
	b = appendName(b, meterImport)
	b = append(b, kindFunction)
	return appendUnsigned(b, w.yieldType()), nil
}

func (w *meterer) functionSection(old []byte) ([]byte, error) {
	if len(w.moverTypes) == 0 {
		return old, nil
	}
	b := extend(old, len(w.moverTypes))
	for _, t := range w.moverTypes {
		b = appendUnsigned(b, t)
	}
	return b, nil
}

func (w *meterer) tableSection(old []byte) ([]byte, error) {
	if old == nil {
		return nil, nil
	}
	b := appendUnsigned(nil, uint64(len(w.tables)))
	for _, t := range w.tables {
		b = append(b, t.kind, 1)
		b = appendUnsigned(b, uint64(t.min))
		b = appendUnsigned(b, uint64(t.max))
	}
	return b, nil
}

// memorySection drops the maximum: the allocator knows it, and so it sees when
// a guest is refused.
func (w *meterer) memorySection([]byte) ([]byte, error) {
	return appendUnsigned([]byte{1, 0}, uint64(w.memory.min)), nil
}

func (w *meterer) globalSection(old []byte, depth int) ([]byte, error) {
	b := appendUnsigned(nil, uint64(w.globals)+2)
	if old != nil {
		r := newReader(w.sections[secGlobal], "global")
		r.u32()
		for range w.globals {
			b = append(b, r.valueType(), r.u8())
			b = w.constant(b, r)
		}
		r.end()
		if r.err != nil {
			return nil, r.err
		}
	}
	b = append(b, typeI64, 1, 0x42, 0, 0x0b)
	b = append(b, typeI32, 1, 0x41)
	b = appendSigned(b, int64(depth))
	return append(b, 0x0b), nil
}

func (w *meterer) exportSection(old []byte) ([]byte, error) {
	r := newReader(w.sections[secExport], "export")
	n := r.u32()
	more := 1
	if w.layout != nil {
		more += w.layout.exports()
	}
	b := appendUnsigned(make([]byte, 0, len(old)+32), uint64(n)+uint64(more))
	for range n {
		name, kind := r.name(), r.u8()
		b = append(appendName(b, name), kind)
		if kind == kindFunction {
			b = appendUnsigned(b, w.moved(w.function(r)))
		} else {
			index := r.u32()
			if kind == kindGlobal && int64(index) >= int64(w.globals) {
				r.fail("export %q: global %d does not exist, there are %d", name, index, w.globals)
			}
			b = appendUnsigned(b, uint64(index))
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	b = append(appendName(b, meterExport), kindGlobal)
	b = appendUnsigned(b, w.steps)
	if w.layout == nil {
		return b, nil
	}
	b = append(appendName(b, depthExport), kindGlobal)
	b = appendUnsigned(b, w.depth)
	for n, g := range w.layout.globals {
		b = append(appendName(b, w.layout.exported[n]), kindGlobal)
		b = appendUnsigned(b, uint64(g))
	}
	if w.layout.hasStart {
		b = append(appendName(b, startExport), kindFunction)
		b = appendUnsigned(b, w.moved(w.layout.start))
	}
	return b, nil
}

func (w *meterer) startSection(old []byte) ([]byte, error) {
	if old == nil || w.layout != nil {
		return nil, nil
	}
	r := newReader(w.sections[secStart], "start")
	f := w.function(r)
	r.end()
	if r.err != nil {
		return nil, r.err
	}
	return appendUnsigned(nil, w.moved(f)), nil
}

// moved is the new number of a function.
func (w *meterer) moved(f uint32) uint64 {
	if int64(f) >= int64(w.imports) {
		return uint64(f) + 1
	}
	return uint64(f)
}

// constant copies a constant expression.
func (w *meterer) constant(b []byte, r *reader) []byte {
	for r.err == nil {
		start := r.at
		op := r.u8()
		switch op {
		case 0x0b, 0x41, 0x42, 0x43, 0x44, 0xd0:
			if op != 0x0b {
				r.plain(start, op)
			}
		case 0x23:
			w.global(r)
		case 0xd2:
			b = appendUnsigned(append(b, op), w.moved(w.function(r)))
			continue
		case 0xfd:
			r.vector(start)
		default:
			if r.err == nil {
				r.at = start
				r.fail("instruction %#02x cannot stand in a constant expression", op)
			}
		}
		b = append(b, r.b[start:r.at]...)
		if op == 0x0b {
			break
		}
	}
	return b
}

func (w *meterer) elementSection(old []byte) ([]byte, error) {
	if old == nil {
		return nil, nil
	}
	r := newReader(w.sections[secElement], "element")
	n := r.u32()
	b := appendUnsigned(make([]byte, 0, len(old)*5/4), uint64(n))
	for i := range n {
		flags := r.u32()
		if r.err == nil && flags > 7 {
			r.fail("segment %d of form %d, want 0 to 7", i, flags)
		}
		passive, explicit, expressions := flags&1 != 0, flags&2 != 0, flags&4 != 0
		if w.layout != nil && len(w.layout.elements) > 0 {
			b = w.declared(b, r, flags)
		} else {
			b = appendUnsigned(b, uint64(flags))
			if !passive {
				if explicit {
					b = appendUnsigned(b, uint64(r.u32()))
				}
				b = w.constant(b, r)
			}
			if passive || explicit {
				b = append(b, r.u8())
			}
		}
		items := r.count("elements", len(r.b))
		b = appendUnsigned(b, uint64(items))
		for range items {
			if expressions {
				b = w.constant(b, r)
			} else {
				b = appendUnsigned(b, w.moved(w.function(r)))
			}
			if r.err != nil {
				break
			}
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	r.end()
	if r.err != nil {
		return nil, r.err
	}
	return b, nil
}

// declared writes the head of an active segment of elements as that of one that
// only names its functions, so that the code may refer to them.
func (w *meterer) declared(b []byte, r *reader, flags uint32) []byte {
	if flags&2 != 0 {
		r.u32() // the table
	}
	w.constant(nil, r) // the place
	kind := byte(0)
	if flags&4 != 0 {
		kind = typeFuncref
	}
	if flags&2 != 0 {
		kind = r.u8()
	}
	return append(appendUnsigned(b, uint64(flags|3)), kind)
}

// code writes the code section.
func (w *meterer) code() ([]byte, error) {
	// How many there will be is known at the end.
	const countBytes = 5
	out := make([]byte, countBytes, len(w.sections[secCode].bytes)*5/4+64)
	var (
		function []byte
		edits    []edit
		blocks   []block
	)
	for i, c := range w.codes {
		var (
			b   body
			err error
		)
		if b, blocks, err = w.scan(i, c, edits, blocks); err != nil {
			return nil, err
		}
		edits = b.edits
		function = w.body(function[:0], &b, w.types[w.functions[i]].results)
		out = append(appendUnsigned(out, uint64(len(function))), function...)
		if len(out) > meteredBytesMax {
			return nil, invalid("it grows beyond %d bytes with its meter", meteredBytesMax)
		}
		if len(w.movers) > bulkKindsMax {
			return nil, invalid("it has more than %d bulk operations that differ in their tables and segments", bulkKindsMax)
		}
	}
	n := len(w.codes) + len(w.movers)
	for i := range countBytes - 1 {
		out[i] = byte(n) | 0x80
		n >>= 7
	}
	return append(out, w.moverCode...), nil
}

// body writes one function.
func (w *meterer) body(out []byte, b *body, results string) []byte {
	groups := b.groups
	if b.bulks > 0 {
		groups++
	}
	out = appendUnsigned(out, uint64(groups))
	out = append(out, b.bytes[b.groupsAt:b.codeAt]...)
	if b.bulks > 0 {
		out = append(out, 1, typeI32)
	}
	weight := 1 + uint64(b.locals)/localsPerFrame
	out = w.charge(out, weigh(b.instructions))
	if b.calls {
		out = w.enter(out, weight)
		out = append(out, 0x02)
		out = w.blockOf(out, results)
	}
	at, bulks := b.codeAt, 0
	for _, e := range b.edits {
		if e.kind == editReturn && !b.calls {
			continue
		}
		out = append(out, b.bytes[at:e.at]...)
		at = e.end
		switch e.kind {
		case editCharge:
			out = w.charge(out, e.value)
		case editBulk:
			bulks++
			out = w.bulk(out, bulkOf(b.bytes[e.at:e.end]), uint64(b.locals), bulks <= bulksInPlaceMax)
		case editCall:
			out = appendUnsigned(out, e.value)
		case editReturn:
			out = appendUnsigned(append(out, 0x0c), e.value)
		}
	}
	out = append(out, b.bytes[at:]...)
	if b.calls {
		out = w.leave(out, weight)
		out = append(out, 0x0b)
	}
	return out
}

// blockOf appends the type of a block that takes nothing and gives results.
func (w *meterer) blockOf(out []byte, results string) []byte {
	switch len(results) {
	case 0:
		return append(out, 0x40)
	case 1:
		return append(out, results[0])
	}
	return appendSigned(out, int64(w.typeOf(signature{results: results})))
}

// typeOf is the number of a type of the meter's own.
func (w *meterer) typeOf(s signature) uint64 {
	n, ok := w.typeNumbers[s]
	if !ok {
		w.newTypes = append(w.newTypes, s)
		n = w.yieldType() + uint64(len(w.newTypes))
		w.typeNumbers[s] = n
	}
	return n
}

// charge takes n steps.
func (w *meterer) charge(out []byte, n uint64) []byte {
	out = appendUnsigned(append(out, 0x23), w.steps)       // global.get steps
	out = appendSigned(append(out, 0x42), int64(n))        // i64.const n
	out = appendUnsigned(append(out, 0x7d, 0x24), w.steps) // i64.sub; global.set steps
	return w.check(out)
}

// chargeLocal takes as many steps as the number in a local, shifted right.
func (w *meterer) chargeLocal(out []byte, local uint64, shift byte) []byte {
	out = appendUnsigned(append(out, 0x23), w.steps)           // global.get steps
	out = appendUnsigned(append(out, 0x20), local)             // local.get
	out = append(out, 0x41, shift, 0x76, 0xad, 0x7d)           // i32.const shift; i32.shr_u; i64.extend_i32_u; i64.sub
	return w.check(appendUnsigned(append(out, 0x24), w.steps)) // global.set steps
}

func (w *meterer) check(out []byte) []byte {
	out = appendUnsigned(append(out, 0x23), w.steps)
	out = append(out, 0x42, 0, 0x53, 0x04, 0x40, 0x41, reasonSteps, 0x10) // i64.const 0; i64.lt_s; if; i32.const; call
	return append(appendUnsigned(out, w.yield), 0x0b)
}

func (w *meterer) enter(out []byte, weight uint64) []byte {
	out = appendUnsigned(append(out, 0x23), w.depth)
	out = appendSigned(append(out, 0x41), int64(weight))
	out = appendUnsigned(append(out, 0x6b, 0x24), w.depth) // i32.sub; global.set
	out = appendUnsigned(append(out, 0x23), w.depth)
	out = append(out, 0x41, 0, 0x48, 0x04, 0x40, 0x41, reasonDepth, 0x10) // i32.const 0; i32.lt_s; if; i32.const; call
	return append(appendUnsigned(out, w.yield), 0x0b)
}

func (w *meterer) leave(out []byte, weight uint64) []byte {
	out = appendUnsigned(append(out, 0x23), w.depth)
	out = appendSigned(append(out, 0x41), int64(weight))
	return appendUnsigned(append(out, 0x6a, 0x24), w.depth) // i32.add; global.set
}
