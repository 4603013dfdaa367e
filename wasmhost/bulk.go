package wasmhost

// The engine runs a bulk operation in one piece, and nothing can stop it: a fill
// of a gigabyte would hold up the collector, and with it the whole process, for
// as long as it takes. So an operation of more than a piece becomes a call of a
// function of the meter's own, its mover, with the operands that it found on the
// stack. What is smaller is done in place, but for the later ones of a function
// that has very many: the engine makes several blocks of each, and the time it
// takes to compile a function grows with the square of their number.

// Bulk operations, by their numbers behind the prefix 0xfc.
const (
	memoryInit = 8
	memoryCopy = 10
	memoryFill = 11
	tableInit  = 12
	tableCopy  = 14
	tableSize  = 16
	tableFill  = 17
)

const (
	// What is moved for a step, as a power of two: 64 bytes of a memory, 8
	// elements of a table.
	bytesPerStepBits    = 6
	elementsPerStepBits = 3
	bytesPerStep        = 1 << bytesPerStepBits
	// pieceSteps is how much is moved at once: 1 MiB, of a table with the engine's
	// elements of 8 bytes as well.
	pieceSteps = 16 << 10
	// bulksInPlaceMax is how many of one function are done in place.
	bulksInPlaceMax = 100
	// bulkKindsMax bounds the movers of a module. Compilers write a handful.
	bulkKindsMax = 10_000
)

// bulk is an operation with the prefix 0xfc and the memories, tables or segments
// that it names.
type bulk struct{ sub, x, y uint32 }

// bulk reads one, behind the prefix.
func (r *reader) bulk() bulk {
	k := bulk{sub: r.u32()}
	switch {
	case k.two():
		k.x, k.y = r.u32(), r.u32()
	case k.sub >= memoryInit && k.sub <= tableFill:
		k.x = r.u32()
	}
	return k
}

func bulkOf(code []byte) bulk { return (&reader{b: code, at: 1}).bulk() }

// two says that the operation names two things.
func (k bulk) two() bool {
	return k.sub == memoryInit || k.sub == memoryCopy || k.sub == tableInit || k.sub == tableCopy
}

// moves says that the operation takes as long as the top of the stack says.
func (k bulk) moves() bool { return k.two() || k.sub == memoryFill || k.sub == tableFill }

// shift is the power of two of what is moved for a step.
func (k bulk) shift() byte {
	if k.sub == tableInit || k.sub == tableCopy || k.sub == tableFill {
		return elementsPerStepBits
	}
	return bytesPerStepBits
}

func (k bulk) append(out []byte) []byte {
	out = appendUnsigned(appendUnsigned(append(out, 0xfc), uint64(k.sub)), uint64(k.x))
	if k.two() {
		out = appendUnsigned(out, uint64(k.y))
	}
	return out
}

// bulk writes k, which takes as long as the number on top of the stack says.
// local is free for it.
func (w *meterer) bulk(out []byte, k bulk, local uint64, inPlace bool) []byte {
	typ, mover := w.mover(k)
	if !inPlace {
		return appendUnsigned(append(out, 0x10), mover)
	}
	out = appendUnsigned(append(out, 0x22), local) // local.tee
	out = appendSigned(append(out, 0x41), pieceSteps<<k.shift())
	out = appendSigned(append(out, 0x4b, 0x04), int64(typ)) // i32.gt_u; if
	out = appendUnsigned(append(out, 0x20), local)          // local.get
	out = appendUnsigned(append(out, 0x10), mover)
	out = append(out, 0x05) // else
	out = w.chargeLocal(out, local, k.shift())
	out = appendUnsigned(append(out, 0x20), local)
	return append(k.append(out), 0x0b)
}

// mover returns the function that does k, and the type of a block that does the
// same but for the number on top of the stack.
func (w *meterer) mover(k bulk) (block, function uint64) {
	second := byte(typeI32)
	if k.sub == tableFill && int64(k.x) < int64(len(w.tables)) {
		second = w.tables[k.x].kind
	}
	block = w.typeOf(signature{params: string([]byte{typeI32, second})})
	function, ok := w.movers[k]
	if !ok {
		function = w.moved(uint32(w.imports + len(w.functions) + len(w.movers)))
		w.movers[k] = function
		w.moverTypes = append(w.moverTypes, w.typeOf(signature{params: string([]byte{typeI32, second, typeI32})}))
		code := w.move(k)
		w.moverCode = append(appendUnsigned(w.moverCode, uint64(len(code))), code...)
	}
	return block, function
}

// move writes a mover. Its parameters are where to, where from or what, and how
// much. Beyond a piece it moves from the end, but where a copy lies before what
// it is taken from; and it first moves nothing at the far end of it all, for an
// operation that leads outside has to trap before it moves anything.
func (w *meterer) move(k bulk) []byte {
	const to, from, size = 0, 1, 2
	fills := k.sub == memoryFill || k.sub == tableFill
	copies := k.sub == memoryCopy || k.sub == tableCopy

	var out []byte
	put := func(code ...byte) { out = append(out, code...) }
	get := func(local byte) { put(0x20, local) }
	piece := func() { out = appendSigned(append(out, 0x41), pieceSteps<<k.shift()) }
	operate := func() { out = k.append(out) }
	atEnd := func(local byte) { // local + size
		get(local)
		if local == to || !fills {
			get(size)
			put(0x6a)
		}
	}
	wraps := func(local byte) { // out of the block, if local + size does
		atEnd(local)
		get(size)
		put(0x49, 0x0d, 0) // i32.lt_u; br_if
	}
	change := func(local, op byte) { // by a piece
		get(local)
		piece()
		put(op, 0x21, local)
	}
	again := func() { // while there is more than a piece
		get(size)
		piece()
		put(0x4b, 0x0d, 0, 0x0b) // i32.gt_u; br_if; end
	}
	charge := func() { out = w.charge(out, pieceSteps) }

	put(0, 0x02, 0x40) // no locals; block
	get(size)
	piece()
	put(0x4d, 0x0d, 0) // i32.le_u; br_if
	wraps(to)          // then it traps below, as a whole
	if !fills {
		wraps(from)
	}
	atEnd(to)
	atEnd(from)
	put(0x41, 0)
	operate()
	if copies {
		get(to)
		get(from)
		put(0x4d, 0x04, 0x40, 0x03, 0x40) // i32.le_u; if; loop
		charge()
		get(to)
		get(from)
		piece()
		operate()
		change(to, 0x6a)
		change(from, 0x6a)
		change(size, 0x6b)
		again()
		put(0x05) // else
	}
	put(0x03, 0x40) // loop
	charge()
	change(size, 0x6b)
	atEnd(to)
	atEnd(from)
	piece()
	operate()
	again()
	if copies {
		put(0x0b)
	}
	put(0x0b)
	out = w.chargeLocal(out, size, k.shift())
	get(to)
	get(from)
	get(size)
	operate()
	put(0x0b)
	return out
}
