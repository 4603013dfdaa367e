package wasmhost_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// BenchmarkBare is the limit row: the same guest on the engine alone, with host
// functions that do nothing.
func BenchmarkBare(b *testing.B) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	wapc := r.NewHostModuleBuilder("wapc")
	i32 := api.ValueTypeI32
	for name, n := range map[string]int{"__guest_request": 2, "__guest_response": 2, "__guest_error": 2, "__host_response": 1, "__host_error": 1} {
		wapc.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, s []uint64) {
			if n == 2 {
				m.Memory().WriteString(uint32(s[0]), "noop")
			}
		}), []api.ValueType{i32, i32}[:n], nil).Export(name)
	}
	for name, n := range map[string]int{"__host_call": 8, "__host_response_len": 0, "__host_error_len": 0} {
		wapc.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, s []uint64) { s[0] = 1 }),
			[]api.ValueType{i32, i32, i32, i32, i32, i32, i32, i32}[:n], []api.ValueType{i32}).Export(name)
	}
	if _, err := wapc.Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	m, err := r.InstantiateWithConfig(ctx, smallGuest(b), wazero.NewModuleConfig().WithName(""))
	if err != nil {
		b.Fatal(err)
	}
	f := m.ExportedFunction("__guest_call")
	stack := make([]uint64, 2)
	b.ReportAllocs()
	for b.Loop() {
		stack[0], stack[1] = 4, 0
		if err := f.CallWithStack(ctx, stack); err != nil || stack[0] != 1 {
			b.Fatal(err)
		}
	}
}

func benchmarkInvoke(b *testing.B, code []byte, op, payload string) {
	r := newRuntime(b, wasmhost.Config{})
	i := instantiate(b, prepare(b, r, code, nola.Manifest{}))
	w := newWorld()
	turn := &nola.Turn{Operation: op, Payload: []byte(payload), Deadline: time.Now().Add(time.Hour)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Invoke(turn, w); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(turn.Steps), "steps/op")
}

func BenchmarkInvoke(b *testing.B) {
	for _, op := range []struct{ op, payload string }{{"noop", ""}, {"echo", "0123456789abcdef"}, {"inc", ""}, {"host", "KV-GET\x00n"}, {"host", "KV-PUT\x00\x02nvalue"}} {
		b.Run("small/"+op.op+"/"+strings.SplitN(op.payload, "\x00", 2)[0], func(b *testing.B) { benchmarkInvoke(b, smallGuest(b), op.op, op.payload) })
	}
}

// BenchmarkCalls compares code that does nothing but call, raw and metered: the
// worst case of the meter.
func BenchmarkCalls(b *testing.B) {
	g := guestOf(nil, []byte{0x41, 20, 0x10, 1, 0x1a, 0x41, 1})
	fib := function(0x20, 0, 0x41, 2, 0x48, 0x04, 0x40, 0x20, 0, 0x0f, 0x0b,
		0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x20, 0, 0x41, 2, 0x6b, 0x10, 1, 0x6a)
	g = g.with(1, vector([]byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 1, 0x7f, 1, 0x7f})).
		with(3, vector([]byte{0}, []byte{1})).
		with(10, vector(function(0x41, 20, 0x10, 1, 0x1a, 0x41, 1), fib))
	b.Run("raw", func(b *testing.B) {
		ctx := context.Background()
		r := wazero.NewRuntime(ctx)
		defer r.Close(ctx)
		m, err := r.Instantiate(ctx, g.bytes())
		if err != nil {
			b.Fatal(err)
		}
		f := m.ExportedFunction("__guest_call")
		stack := make([]uint64, 2)
		for b.Loop() {
			if err := f.CallWithStack(ctx, stack); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("metered", func(b *testing.B) { benchmarkInvoke(b, g.bytes(), "op", "") })
}

// BenchmarkPrepare makes a module ready that was prepared before by another
// process: what a start of the server does for each module that is called.
func BenchmarkPrepare(b *testing.B) {
	for name, code := range map[string][]byte{"small": smallGuest(b), "tinygo": builtGuest(b, "tinygo"), "go": kitchen(b)} {
		b.Run(name, func(b *testing.B) {
			config := wasmhost.Config{CacheDir: b.TempDir()}
			for first := true; first || b.Loop(); first = false {
				r, err := wasmhost.New(b.Context(), config)
				if err != nil {
					b.Fatal(err)
				}
				m, err := r.Prepare(b.Context(), code, nola.Manifest{})
				if err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(m.Close(), r.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
