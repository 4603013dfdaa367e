package wasmhost

import (
	"context"
	"math"

	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
)

// imported is a function that guests may import.
type imported struct {
	signature
	call func(t *turn, m api.Module, stack []uint64)
}

// imports are all of them, by module and name. The signature is the one of the
// protocol; parse refuses any other.
var imports = map[string]map[string]imported{
	"wapc":                   wapcImports,
	"wasi_snapshot_preview1": wasiImports,
	"env":                    assemblyScriptImports,
}

// defineImports makes the host modules of the engine.
func (r *Runtime) defineImports(ctx context.Context) error {
	define := func(module string, functions map[string]imported) error {
		b := r.engine.NewHostModuleBuilder(module)
		for name, f := range functions {
			call := f.call
			b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
				call(ctx.(*turn), m, stack)
			}), []api.ValueType(f.params), []api.ValueType(f.results)).Export(name)
		}
		_, err := b.Instantiate(ctx)
		return err
	}
	for module, functions := range imports {
		if err := define(module, functions); err != nil {
			return err
		}
	}
	return define(meterModule, map[string]imported{
		meterImport: {signature{"\x7f", ""}, func(t *turn, m api.Module, s []uint64) { t.yield(m, uint32(s[0])) }},
	})
}

// sign makes a signature: i, I, f and F stand for i32, i64, f32 and f64.
func sign(params, results string) signature {
	types := map[byte]byte{'i': typeI32, 'I': typeI64, 'f': typeF32, 'F': typeF64}
	list := func(s string) string {
		b := []byte(s)
		for i := range b {
			b[i] = types[b[i]]
		}
		return string(b)
	}
	return signature{list(params), list(results)}
}

// wapcImports is the waPC protocol.
var wapcImports = map[string]imported{
	"__guest_request": {sign("ii", ""), func(t *turn, m api.Module, s []uint64) {
		if t.turn == nil {
			return // the initialisers have no request
		}
		if op := t.turn.Operation; !m.Memory().WriteString(uint32(s[0]), op) && op != "" {
			t.trap("the operation of %d bytes does not fit at %#x into the memory of %d bytes", len(op), uint32(s[0]), m.Memory().Size())
		}
		t.store(m, "payload", uint32(s[1]), t.turn.Payload)
	}},
	"__guest_response": {sign("ii", ""), func(t *turn, m api.Module, s []uint64) {
		b := t.load(m, "reply", uint32(s[0]), uint32(s[1]))
		if n := len(b); n > t.limits.ReplyBytes {
			t.end(t.replyTooLarge(n))
		}
		t.charge(len(b))
		t.reply = said(t.reply, b)
	}},
	"__guest_error": {sign("ii", ""), func(t *turn, m api.Module, s []uint64) {
		b := t.load(m, "error text", uint32(s[0]), uint32(s[1]))
		b = b[:min(len(b), guestErrorBytesMax)]
		t.charge(len(b))
		t.failure = said(t.failure, b)
	}},
	"__host_call": {sign("iiiiiiii", "i"), func(t *turn, m api.Module, s []uint64) {
		t.load(m, "binding", uint32(s[0]), uint32(s[1]))
		t.load(m, "namespace", uint32(s[2]), uint32(s[3]))
		op := t.load(m, "host operation", uint32(s[4]), uint32(s[5]))
		payload := t.load(m, "payload", uint32(s[6]), uint32(s[7]))
		s[0] = 0
		if t.hostCall(op, payload) {
			s[0] = 1
		}
	}},
	"__host_response_len": {sign("", "i"), func(t *turn, _ api.Module, s []uint64) { s[0] = uint64(len(t.hostReply)) }},
	"__host_response": {sign("i", ""), func(t *turn, m api.Module, s []uint64) {
		t.store(m, "host reply", uint32(s[0]), t.hostReply)
	}},
	"__host_error_len": {sign("", "i"), func(t *turn, _ api.Module, s []uint64) { s[0] = uint64(len(t.hostText)) }},
	"__host_error": {sign("i", ""), func(t *turn, m api.Module, s []uint64) {
		t.store(m, "host error", uint32(s[0]), []byte(t.hostText))
	}},
	"__console_log": {sign("ii", ""), func(t *turn, m api.Module, s []uint64) {
		b := t.load(m, "log message", uint32(s[0]), uint32(s[1]))
		t.charge(min(len(b), nola.LogMessageBytesMax))
		t.message(levelInfo, b)
	}},
}

// guestErrorBytesMax cuts a guest's error text.
const guestErrorBytesMax = 64 << 10

// said copies what the guest says in place of what it said before in the same
// turn: one that says it again and again would fill the heap. It is never nil.
func said(before, b []byte) []byte {
	if before == nil {
		before = make([]byte, 0, len(b))
	}
	return append(before[:0], b...)
}

// load reads guest memory. What it returns is a view, to be used or copied
// before the guest goes on.
func (t *turn) load(m api.Module, what string, at, n uint32) []byte {
	b, ok := m.Memory().Read(at, n)
	if !ok {
		t.trap("the %s of %d bytes at %#x lies outside the memory of %d bytes", what, n, at, m.Memory().Size())
	}
	return b
}

// store writes guest memory.
func (t *turn) store(m api.Module, what string, at uint32, b []byte) {
	if len(b) > 0 && !m.Memory().Write(at, b) {
		t.trap("the %s of %d bytes does not fit at %#x into the memory of %d bytes", what, len(b), at, m.Memory().Size())
	}
	t.charge(len(b))
}

// assemblyScriptImports is what AssemblyScript's standard library wants.
var assemblyScriptImports = map[string]imported{
	"abort": {sign("iiii", ""), func(t *turn, m api.Module, s []uint64) {
		t.trap("abort: %s at %s:%d:%d", utf16At(m, uint32(s[0])), utf16At(m, uint32(s[1])), uint32(s[2]), uint32(s[3]))
	}},
	"trace": {sign("iiFFFFF", ""), func(t *turn, m api.Module, s []uint64) {
		t.message(levelDebug, []byte(utf16At(m, uint32(s[0]))))
	}},
	"seed": {sign("", "F"), func(t *turn, _ api.Module, s []uint64) {
		var b [8]byte
		t.fill(b[:])
		n := uint64(0)
		for _, c := range b {
			n = n<<8 | uint64(c)
		}
		s[0] = math.Float64bits(float64(n >> 11))
	}},
}

// utf16At reads an AssemblyScript string: UTF-16, its length in bytes before it.
func utf16At(m api.Module, at uint32) string {
	n, ok := m.Memory().ReadUint32Le(at - 4)
	if !ok || at < 4 {
		return "?"
	}
	b, ok := m.Memory().Read(at, min(n, 512)&^1)
	if !ok {
		return "?"
	}
	text := make([]rune, 0, len(b)/2)
	for i := 0; i < len(b); i += 2 {
		text = append(text, rune(b[i])|rune(b[i+1])<<8)
	}
	return string(text)
}
