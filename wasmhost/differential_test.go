package wasmhost_test

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// TestMeteredCodeAnswersAsRaw runs code with everything that the meter
// rewrites, raw on the engine and metered under ours, and compares.
func TestMeteredCodeAnswersAsRaw(t *testing.T) {
	multi := []byte{0x60, 0, 2, 0x7f, 0x7f}
	b := guestOf([][]byte{importOf("wapc", "__guest_response", typeI32s)}, nil)
	// f1 counts down from its argument with a loop and an early return, f2
	// returns two values by a branch out of nested blocks, f3 is called through
	// a table that a passive segment filled.
	code := vector(
		function(
			0x41, 0, 0x41, 0, 0x41, 3, 0xfc, 12, 1, 0, // table.init segment 1
			0x41, 16, 0x41, 0x2a, 0x41, 4, 0xfc, 11, 0, // memory.fill
			0x41, 32, 0x41, 16, 0x41, 4, 0xfc, 10, 0, 0, // memory.copy
			0x41, 0, 0x20, 1, 0x10, 2, // f1(payload length)
			0x10, 3, 0x6c, 0x6a, // f2: a*b, added
			0x41, 2, 0x11, 5, 0, 0x6a, // f3 through the table, added
			0x41, 32, 0x28, 2, 0, 0x6a, // what was filled, added
			0x36, 2, 0, // stored at 0
			0x41, 0, 0x41, 4, 0x10, 0, // the reply
			0x41, 1,
		),
		function( // f1 (i32) -> i32
			0x20, 0, 0x45, 0x04, 0x40, 0x41, 7, 0x0f, 0x0b,
			0x03, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b,
			0x20, 0, 0x10, 2, 0x1a, 0x41, 11, 0x0f,
		),
		function( // f2 () -> i32 i32
			0x02, 0x40, 0x02, 0x40, 0x41, 3, 0x41, 5, 0x10, 4, 0x0d, 2, 0x0c, 2, 0x0b, 0x0b, 0x00,
		),
		function(0x41, 0xc0, 0), // f3 () -> i32: 64
	)
	b = b.with(1, vector(
		[]byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 0, 0}, []byte{0x60, 2, 0x7f, 0x7f, 0},
		[]byte{0x60, 1, 0x7f, 1, 0x7f}, multi, []byte{0x60, 0, 1, 0x7f})).
		with(3, vector([]byte{0}, []byte{3}, []byte{4}, []byte{5})).
		with(4, []byte{1, 0x70, 0, 4}).
		with(9, vector([]byte{0, 0x41, 3, 0x0b, 1, 4}, []byte{1, 0, 3, 4, 4, 4})).
		with(10, code)

	ctx := context.Background()
	raw := wazero.NewRuntime(ctx)
	defer raw.Close(ctx)
	var reply []byte
	if _, err := raw.NewHostModuleBuilder("wapc").NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, s []uint64) {
		v, _ := m.Memory().Read(uint32(s[0]), uint32(s[1]))
		reply = append(reply[:0], v...)
	}), []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, nil).Export("__guest_response").Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := raw.Instantiate(ctx, b.bytes())
	if err != nil {
		t.Fatal(err)
	}
	i := instantiate(t, prepare(t, newRuntime(t, wasmhost.Config{}), b.bytes(), nola.Manifest{}))
	for n := range 200 {
		if _, err := m.ExportedFunction("__guest_call").Call(ctx, 0, uint64(n)); err != nil {
			t.Fatal(err)
		}
		payload := string(make([]byte, n))
		if got := mustInvoke(t, i, newWorld(), "", payload); got != string(reply) {
			t.Fatalf("with %d bytes: metered %x, raw %x", n, got, reply)
		}
	}
}
