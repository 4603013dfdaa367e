package wasmhost

// What the meter weighs.
const (
	instructionsPerStep = 256 // of a function's or a loop's body
	localsPerFrame      = 32  // a frame with so many locals counts twice
)

// edit is a change to the body of a function at one place.
type edit struct {
	at, end int // the bytes it replaces; none for an insertion
	kind    editKind
	value   uint64
}

type editKind uint8

const (
	editCharge editKind = iota // insert: take value steps
	editBulk                   // replace: a bulk operation that is charged for
	editCall                   // replace the operand: the function, one further
	editReturn                 // replace: a branch by value labels, out of the body
)

// body is what is known of a function after its instructions were read.
type body struct {
	view
	locals       uint32 // with parameters
	groups       int    // of declared locals
	groupsAt     int    // where they begin
	codeAt       int    // where instructions begin
	instructions int
	edits        []edit
	calls        bool // it calls functions, so its depth counts
	bulks        int  // bulk operations
}

// block is an open block, loop or if.
type block struct {
	loop  int // 1 + the number of the edit that charges its iterations, 0 if it is none
	start int // instructions before it
}

// scan reads the body of a function and notes what the meter has to change. It
// refuses what is not WebAssembly 2.0 without threads, and every operand that
// could come to mean something else by what the meter adds: types, functions,
// globals, locals, labels.
func (m *parsed) scan(index int, code view, edits []edit, blocks []block) (b body, _ []block, err error) {
	r := newReader(code, "code")
	b = body{view: code, edits: edits[:0]}
	b.locals = uint32(len(m.types[m.functions[index]].params))
	b.groups = r.count("groups of locals", functionLocalsMax)
	b.groupsAt = r.at
	for range b.groups {
		n := r.u32()
		r.valueType()
		if r.err == nil && int64(n)+int64(b.locals) > functionLocalsMax {
			r.fail("function %d has more than %d parameters and locals", m.imports+index, functionLocalsMax)
		}
		if r.err != nil {
			return b, blocks, r.err
		}
		b.locals += n
	}
	b.codeAt = r.at

	blocks = append(blocks[:0], block{})
	opened, branches := 1, 0
	for len(blocks) > 0 {
		start := r.at
		op := r.u8()
		if op >= 0x0c && op <= 0x0e { // br, br_if, br_table
			branches++
		}
		if r.err != nil {
			return b, blocks, r.err
		}
		b.instructions++
		switch {
		case op == 0x0b: // end
			last := blocks[len(blocks)-1]
			blocks = blocks[:len(blocks)-1]
			if last.loop > 0 {
				b.edits[last.loop-1].value = weigh(b.instructions - last.start)
			}
		case op == 0x02, op == 0x03, op == 0x04: // block, loop, if
			m.blockType(r)
			next := block{start: b.instructions}
			if op == 0x03 {
				b.edits = append(b.edits, edit{at: r.at, end: r.at, kind: editCharge})
				next.loop = len(b.edits)
			}
			if len(blocks) > functionNestingMax {
				r.fail("blocks are nested deeper than %d", functionNestingMax)
			}
			opened++
			blocks = append(blocks, next)
		case op == 0x0c, op == 0x0d: // br, br_if
			r.label(len(blocks))
		case op == 0x0e: // br_table
			for range r.count("labels", functionBytesMax) + 1 {
				r.label(len(blocks))
			}
		case op == 0x0f: // return
			b.edits = append(b.edits, edit{at: start, end: r.at, kind: editReturn, value: uint64(len(blocks) - 1)})
		case op == 0x10, op == 0xd2: // call, ref.func
			at := r.at
			f := m.function(r)
			b.calls = b.calls || op == 0x10
			if int64(f) >= int64(m.imports) {
				b.edits = append(b.edits, edit{at: at, end: r.at, kind: editCall, value: uint64(f) + 1})
			}
		case op == 0x11: // call_indirect
			m.typeAt(r, r.u32())
			r.u32()
			b.calls = true
		case op >= 0x20 && op <= 0x22: // local.get, local.set, local.tee
			if n := r.u32(); r.err == nil && n >= b.locals {
				r.fail("local %d does not exist, function %d has %d", n, m.imports+index, b.locals)
			}
		case op == 0x23, op == 0x24: // global.get, global.set
			m.global(r)
		case op == 0xfc:
			k := r.bulk()
			switch sub := k.sub; {
			case sub <= 7: // saturating truncations
			case sub <= 17:
				m.lasting = m.lasting || sub != memoryCopy && sub != memoryFill && sub != tableSize
				if k.moves() {
					b.bulks++
					b.edits = append(b.edits, edit{at: start, end: r.at, kind: editBulk})
				}
			default:
				r.unknown(start, "0xfc %d", sub)
			}
		case op == 0xfd:
			r.vector(start)
		default:
			m.lasting = m.lasting || op == 0x26 // table.set
			r.plain(start, op)
		}
		if r.err != nil {
			return b, blocks, r.err
		}
	}
	r.end()
	if r.err == nil && opened+branches > functionBranchesMax {
		r.fail("function %d has %d blocks and branches, at most %d are allowed; split it", m.imports+index, opened+branches, functionBranchesMax)
	}
	if r.err == nil && int64(opened)*int64(b.locals) > functionVariablesMax {
		r.fail("function %d has %d locals and %d blocks, their product may be %d at most", m.imports+index, b.locals, opened, functionVariablesMax)
	}
	if r.err != nil {
		return b, blocks, r.err
	}
	return b, blocks, nil
}

func weigh(instructions int) uint64 { return 1 + uint64(instructions)/instructionsPerStep }

func (r *reader) valueType() byte {
	t := r.u8()
	if r.err == nil && (t < typeV128 || t > typeI32) && t != typeFuncref && t != typeExtern {
		r.fail("value type %#x is not known in WebAssembly 2.0", t)
	}
	return t
}

func (m *parsed) blockType(r *reader) {
	if r.at < len(r.b) && r.b[r.at] == 0x40 {
		r.at++
		return
	}
	if r.at < len(r.b) && r.b[r.at]&0xc0 == 0x40 {
		r.valueType()
		return
	}
	if t := r.signed(33); r.err == nil && (t < 0 || t >= int64(len(m.types))) {
		r.fail("block type %d does not exist, there are %d types", t, len(m.types))
	}
}

func (m *parsed) function(r *reader) uint32 {
	n := r.u32()
	if have := m.imports + len(m.functions); r.err == nil && int64(n) >= int64(have) {
		r.fail("function %d does not exist, there are %d", n, have)
	}
	return n
}

func (m *parsed) global(r *reader) {
	if n := r.u32(); r.err == nil && int64(n) >= int64(m.globals) {
		r.fail("global %d does not exist, there are %d", n, m.globals)
	}
}

func (r *reader) label(open int) {
	if n := r.u32(); r.err == nil && int64(n) >= int64(open) {
		r.fail("a branch out of %d blocks, %d are open", int64(n)+1, open)
	}
}

func (r *reader) unknown(at int, format string, args ...any) {
	r.at = at
	args = append(append([]any{}, args...), "not an instruction of WebAssembly 2.0 (threads, tail calls, exceptions and garbage collection are not supported)")
	r.fail("instruction "+format+": %s", args...)
}

// plain skips the operands of an instruction that needs no attention.
func (r *reader) plain(at int, op byte) {
	switch {
	case op <= 0x01, op == 0x05, op == 0x1a, op == 0x1b: // unreachable, nop, else, drop, select
	case op == 0x1c: // select with types
		r.valueTypes("types")
	case op == 0x25, op == 0x26: // table.get, table.set
		r.u32()
	case op >= 0x28 && op <= 0x3e: // loads and stores
		r.u32()
		r.u32()
	case op == 0x3f, op == 0x40: // memory.size, memory.grow
		r.u8()
	case op == 0x41:
		r.signed(32)
	case op == 0x42:
		r.signed(64)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op >= 0x45 && op <= 0xc4: // comparisons, arithmetic, conversions
	case op == 0xd0: // ref.null
		r.valueType()
	case op == 0xd1: // ref.is_null
	default:
		r.unknown(at, "%#02x", op)
	}
}

// vector skips the operands of a SIMD instruction.
func (r *reader) vector(at int) {
	switch sub := r.u32(); {
	case r.err != nil:
	case sub <= 11, sub == 92, sub == 93: // loads and stores
		r.u32()
		r.u32()
	case sub == 12, sub == 13: // v128.const, i8x16.shuffle
		r.take(16)
	case sub >= 21 && sub <= 34: // lanes
		r.u8()
	case sub >= 84 && sub <= 91: // lanes in memory
		r.u32()
		r.u32()
		r.u8()
	case sub <= 255:
	default:
		r.unknown(at, "0xfd %d", sub)
	}
}
