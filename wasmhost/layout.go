package wasmhost

import "strconv"

// globalsResetMax is how many mutable globals a module may have for its
// instances to be reset; each costs a few nanoseconds at every activation.
const globalsResetMax = 256

// layout is what a module begins with and what an instance can be set back to:
// the contents of its memory, its mutable globals, its start function. A module
// metered with a layout does none of it by itself; the host does, once, keeps
// what came of it as an image, and gives every instance a copy.
type layout struct {
	globals  []uint32  // the mutable ones
	exported []string  // their names, once metered
	elements []element // of tables; none if the engine places them
	data     []segment
	start    uint32
	hasStart bool
}

// segment is data that stands in the memory from the beginning.
type segment struct {
	at    uint32
	bytes []byte
}

// add adds a mutable global.
func (l *layout) add(number uint32) {
	l.globals = append(l.globals, number)
	l.exported = append(l.exported, globalExportPrefix+strconv.Itoa(int(number)))
}

// exports is the number of exports that the layout needs.
func (l *layout) exports() int {
	n := 1 + len(l.globals)
	if l.hasStart {
		n++
	}
	return n
}

// layout reads what a module begins with. It answers nil for a module whose
// instances cannot be set back through the engine: one with passive segments,
// with mutable references or vectors, or that the compiler will refuse anyway.
func (m *parsed) layout() *layout {
	l := &layout{}
	if m.readGlobals(l) && m.readData(l) && m.readStart(l) {
		return l
	}
	return nil
}

func (m *parsed) readGlobals(l *layout) bool {
	if m.sections[secGlobal].bytes == nil {
		return true
	}
	r := newReader(m.sections[secGlobal], sectionNames[secGlobal])
	r.u32()
	for i := range m.globals {
		typ, mutable := r.valueType(), r.u8()
		m.skipConstant(r)
		if r.err != nil {
			return false
		}
		if mutable == 0 {
			continue
		}
		if typ < typeF64 || len(l.globals) == globalsResetMax {
			return false
		}
		l.add(uint32(i))
	}
	return true
}

// skipConstant reads over a constant expression.
func (m *parsed) skipConstant(r *reader) {
	(&meterer{parsed: m}).constant(nil, r)
}

func (m *parsed) readData(l *layout) bool {
	if m.sections[secData].bytes == nil {
		return m.sections[secDataCount].bytes == nil
	}
	r := newReader(m.sections[secData], sectionNames[secData])
	n := r.u32()
	if m.sections[secDataCount].bytes != nil {
		c := newReader(m.sections[secDataCount], sectionNames[secDataCount])
		if c.u32() != n || c.at != len(c.b) {
			return false
		}
	}
	l.data = make([]segment, 0, n)
	for range n {
		switch flags := r.u32(); flags {
		case 0:
		case 2:
			if r.u32() != 0 {
				return false
			}
		default:
			return false
		}
		if r.u8() != 0x41 { // i32.const; nothing else is possible without imports
			return false
		}
		at := uint32(r.signed(32))
		if r.u8() != 0x0b {
			return false
		}
		size := r.count("bytes of data", len(r.b))
		b := r.take(size)
		if r.err != nil || uint64(at)+uint64(size) > uint64(m.memory.min)*pageBytes {
			return false
		}
		l.data = append(l.data, segment{at, b})
	}
	return r.at == len(r.b)
}

func (m *parsed) readStart(l *layout) bool {
	if m.sections[secStart].bytes == nil {
		return true
	}
	r := newReader(m.sections[secStart], sectionNames[secStart])
	f := r.u32()
	if r.err != nil || r.at != len(r.b) || int64(f) < int64(m.imports) || int64(f) >= int64(m.imports)+int64(len(m.functions)) {
		return false
	}
	l.start, l.hasStart = f, true
	return m.types[m.functions[int(f)-m.imports]] == signature{}
}
