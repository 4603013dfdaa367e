package main

import "slices"

// The types that every module has.
const (
	typeCall = iota // (i32 i32) -> i32
	typeNone        // () -> ()
	typeTwo         // (i32 i32) -> ()
	typeHost        // eight i32 -> i32
	typeOne         // (i32) -> ()
	typeLen         // () -> i32
	typeFour        // (i32 i32 i32 i32) -> i32
)

// The functions that every module imports, by their numbers.
const (
	guestRequest = iota
	guestResponse
	guestError
	hostCall
	hostResponseLen
	hostResponse
	hostErrorLen
	hostError
	consoleLog
	procExit
	pollOneoff
	fdWrite
	randomGet
	self // __guest_call, the first function of the module's own; others follow
)

var types = vector(
	[]byte{0x60, 2, i32t, i32t, 1, i32t}, []byte{0x60, 0, 0}, []byte{0x60, 2, i32t, i32t, 0},
	[]byte{0x60, 8, i32t, i32t, i32t, i32t, i32t, i32t, i32t, i32t, 1, i32t},
	[]byte{0x60, 1, i32t, 0}, []byte{0x60, 0, 1, i32t}, []byte{0x60, 4, i32t, i32t, i32t, i32t, 1, i32t},
)

var imports = vector(
	importOf("wapc", "__guest_request", typeTwo), importOf("wapc", "__guest_response", typeTwo), importOf("wapc", "__guest_error", typeTwo),
	importOf("wapc", "__host_call", typeHost), importOf("wapc", "__host_response_len", typeLen), importOf("wapc", "__host_response", typeOne),
	importOf("wapc", "__host_error_len", typeLen), importOf("wapc", "__host_error", typeOne), importOf("wapc", "__console_log", typeTwo),
	importOf("wasi_snapshot_preview1", "proc_exit", typeOne), importOf("wasi_snapshot_preview1", "poll_oneoff", typeFour),
	importOf("wasi_snapshot_preview1", "fd_write", typeFour), importOf("wasi_snapshot_preview1", "random_get", typeCall),
)

// Sections, by their numbers.
const (
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
)

// order is how sections stand in a module.
var order = []byte{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secStart, secElement, secDataCount, secCode, secData}

// binary is a module, section by section.
type binary map[byte][]byte

func (b binary) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, id := range order {
		if body, ok := b[id]; ok {
			out = append(append(append(out, id), number(len(body))...), body...)
		}
	}
	return out
}

// with returns b with another section.
func (b binary) with(id byte, body []byte) binary {
	c := binary{}
	for k, v := range b {
		c[k] = v
	}
	c[id] = body
	return c
}

// answerAt is where the answer "ok" lies.
const answerAt = 8

// guest makes a module of two pages of memory that answers "ok" to an empty
// payload and commits its misdeed on any other. Further functions, of type
// () -> (), are numbered from self+1; the table holds all of the module's own.
func guest(misdeed []byte, more ...[]byte) binary {
	kinds, elements := [][]byte{{typeCall}}, [][]byte{number(self)}
	for i := range more {
		kinds = append(kinds, []byte{typeNone})
		elements = append(elements, number(self+1+i))
	}
	call := function(nil, local(1), []byte{0x45, 0x04, 0x40}, i32(answerAt), i32(2), call(guestResponse), i32(1), []byte{0x0f, 0x0b}, misdeed, i32(1))
	return binary{
		secType: types, secImport: imports, secFunction: vector(kinds...),
		secTable:   {1, funcref, 0, 16},
		secMemory:  {1, 0, 2},
		secExport:  exports(),
		secElement: vector(slices.Concat([]byte{0}, i32(0), []byte{0x0b}, vector(elements...))),
		secCode:    vector(append([][]byte{call}, more...)...),
		secData:    vector(dataAt(answerAt, "ok")),
	}
}

// exports are memory, __guest_call, and more of the functions that a host looks for.
func exports(more ...[]byte) []byte {
	return vector(append([][]byte{export("memory", 2, 0), export("__guest_call", 0, self)}, more...)...)
}

func export(field string, kind byte, index int) []byte {
	return slices.Concat(name(field), []byte{kind}, number(index))
}

func importOf(module, field string, typ byte) []byte {
	return slices.Concat(name(module), name(field), []byte{0, typ})
}

func dataAt(at int, content string) []byte {
	return slices.Concat([]byte{0}, i32(at), []byte{0x0b}, name(content))
}

// function is a body with its groups of locals; its end is added.
func function(locals [][]byte, code ...[]byte) []byte {
	body := append(append(vector(locals...), slices.Concat(code...)...), 0x0b)
	return append(number(len(body)), body...)
}

// Value types.
const (
	i32t    = 0x7f
	i64t    = 0x7e
	funcref = 0x70
)

// Instructions.

func i32(n int) []byte {
	b := []byte{0x41}
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func call(f int) []byte  { return append([]byte{0x10}, number(f)...) }
func local(n int) []byte { return append([]byte{0x20}, number(n)...) }

// callWith calls f with constants.
func callWith(f int, args ...int) []byte {
	var b []byte
	for _, a := range args {
		b = append(b, i32(a)...)
	}
	return append(b, call(f)...)
}

// forever repeats code without end.
func forever(code ...[]byte) []byte {
	return slices.Concat([]byte{0x03, 0x40}, slices.Concat(code...), []byte{0x0c, 0, 0x0b})
}

// grow makes memory larger by so many pages.
func grow(pages int) []byte { return slices.Concat(i32(pages), []byte{0x40, 0, 0x1a}) }

var (
	drop        = []byte{0x1a}
	unreachable = []byte{0x00}
)

func number(n int) []byte {
	var b []byte
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func name(s string) []byte { return append(number(len(s)), s...) }

// vector joins entries behind their number.
func vector(entries ...[]byte) []byte {
	return append(number(len(entries)), slices.Concat(entries...)...)
}

// many is n times the same entry, behind their number.
func many(n int, entry ...byte) []byte { return append(number(n), slices.Repeat(entry, n)...) }
