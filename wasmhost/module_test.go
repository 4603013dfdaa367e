package wasmhost_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/wasmhost"
)

// binary writes modules for tests, section by section.
type binary struct{ sections []section }

type section struct {
	id   byte
	body []byte
}

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

// with returns b with a section, put where it belongs; nil removes it.
func (b binary) with(id byte, body []byte) binary {
	order := []byte{1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11}
	sections := slices.DeleteFunc(slices.Clone(b.sections), func(s section) bool { return s.id == id })
	if body != nil {
		sections = append(sections, section{id, body})
	}
	slices.SortStableFunc(sections, func(x, y section) int { return slices.Index(order, x.id) - slices.Index(order, y.id) })
	return binary{sections}
}

func (b binary) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range b.sections {
		out = append(out, s.id)
		out = append(append(out, number(len(s.body))...), s.body...)
	}
	return out
}

// function is code without locals; its end is added.
func function(code ...byte) []byte {
	body := append(append([]byte{0}, code...), 0x0b)
	return append(number(len(body)), body...)
}

func importOf(module, field string, typ byte) []byte {
	return slices.Concat(name(module), name(field), []byte{0, typ})
}

func export(field string, kind, index byte) []byte { return append(name(field), kind, index) }

// The types of what follows.
const (
	typeCall = 0 // (i32 i32) -> i32
	typeNone = 1 // () -> ()
	typeI32s = 2 // (i32 i32) -> ()
	typeHost = 3 // eight i32 -> i32
	typeOne  = 4 // (i32) -> ()
	typeLen  = 5 // () -> i32
)

// guestOf makes a guest with one page of memory, the imports given, and
// __guest_call of code. Further functions follow it, of type () -> ().
func guestOf(imports [][]byte, code []byte, more ...[]byte) binary {
	kinds := [][]byte{{typeCall}}
	for range more {
		kinds = append(kinds, []byte{typeNone})
	}
	b := binary{}.
		with(1, vector(
			[]byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 0, 0}, []byte{0x60, 2, 0x7f, 0x7f, 0},
			[]byte{0x60, 8, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 1, 0x7f, 0}, []byte{0x60, 0, 1, 0x7f})).
		with(3, vector(kinds...)).
		with(5, []byte{1, 0, 1}).
		with(7, vector(export("memory", 2, 0), export("__guest_call", 0, byte(len(imports))))).
		with(10, vector(append([][]byte{function(code...)}, more...)...))
	if imports != nil {
		b = b.with(2, vector(imports...))
	}
	return b
}

// ok answers nothing, successfully.
var ok = []byte{0x41, 1}

func TestPrepareRefuses(t *testing.T) {
	fill := []byte{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 0} // for which the meter adds a function
	r := newRuntime(t, wasmhost.Config{})
	good := guestOf(nil, ok)
	prepare(t, r, good.bytes(), nola.Manifest{})
	code := good.bytes()
	for _, tt := range []struct {
		name string
		code []byte
		want string
	}{
		{"nothing", nil, "no bytes"},
		{"garbage", []byte("#!/bin/sh\n"), "not WebAssembly"},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00"), "component"},
		{"cut in a section", code[:len(code)-3], "code section at byte"},
		{"cut in the header", code[:6], "not WebAssembly"},
		{"an empty module", []byte("\x00asm\x01\x00\x00\x00"), "no memory"},
		{"oversized", make([]byte, wasmhost.ModuleBytesMax+1), "at most 67108864 are allowed"},
		{"unknown section", append(slices.Clone(code), 77, 0), "section number 77 is unknown"},
		{"section twice", append(slices.Clone(code), 10, 1, 0), "code section at byte"},
		{"no __guest_call", good.with(7, vector(export("memory", 2, 0))).bytes(), `"__guest_call"`},
		{"__guest_call is no function", good.with(7, vector(export("memory", 2, 0), export("__guest_call", 2, 0))).bytes(), `"__guest_call"`},
		{"__guest_call of another type", guestOf(nil, ok, function()).with(7, vector(export("memory", 2, 0), export("__guest_call", 0, 1))).bytes(), "has type () -> (), want (i32 i32) -> (i32)"},
		{"memory not exported", good.with(7, vector(export("__guest_call", 0, 0))).bytes(), `"memory"`},
		{"no memory", good.with(5, nil).bytes(), "no memory"},
		{"unknown module imported", guestOf([][]byte{importOf("gl", "draw", typeNone)}, ok).bytes(), `import gl.draw: module "gl" is unknown; known are env, wapc, wasi_snapshot_preview1`},
		{"unknown function imported", guestOf([][]byte{importOf("wapc", "__host_fly", typeNone)}, ok).bytes(), "import wapc.__host_fly is unknown; module \"wapc\" has __console_log"},
		{"import of another type", guestOf([][]byte{importOf("wapc", "__console_log", typeNone)}, ok).bytes(), "has type () -> (), want (i32 i32) -> ()"},
		{"the meter imported", guestOf([][]byte{importOf("nola", "yield", typeOne)}, ok).bytes(), `module "nola" is unknown`},
		{"the meter exported", good.with(7, vector(export("memory", 2, 0), export("__guest_call", 0, 0), export("nola.steps", 0, 0))).bytes(), "reserved"},
		{"memory imported", guestOf(nil, ok).with(2, vector(slices.Concat(name("env"), name("memory"), []byte{2, 0, 1}))).bytes(), "only functions can be imported"},
		{"shared memory", good.with(5, []byte{1, 3, 1, 2}).bytes(), "threads are not supported"},
		{"two memories", good.with(5, []byte{2, 0, 1, 0, 1}).bytes(), "2 memories, want exactly one"},
		{"64-bit memory", good.with(5, []byte{1, 4, 1}).bytes(), "64-bit memory?"},
		{"too much memory", good.with(5, append([]byte{1, 0}, number(300)...)).bytes(), "limits.memory_bytes of the manifest allows 16777216"},
		{"impossible memory", good.with(5, append([]byte{1, 0}, number(65537)...)).bytes(), "at most 65536 are possible"},
		{"memory upside down", good.with(5, []byte{1, 1, 2, 1}).bytes(), "a maximum of 1 below the minimum of 2"},
		{"huge table", good.with(4, append([]byte{1, 0x70, 0}, number(70_000)...)).bytes(), "limits.table_elements"},
		{"atomics", guestOf(nil, []byte{0xfe, 0x10, 2, 0, 0x41, 1}).bytes(), "instruction 0xfe: not an instruction of WebAssembly 2.0"},
		{"tail call", guestOf(nil, []byte{0x12, 0}).bytes(), "instruction 0x12"},
		{"unknown function called", guestOf(nil, []byte{0x10, 9, 0x41, 1}).bytes(), "function 9 does not exist"},
		{"the meter's function called", guestOf(nil, slices.Concat(fill, []byte{0x41, 0, 0x41, 0, 0x41, 0, 0x10, 1, 0x41, 1})).bytes(), "function 1 does not exist"},
		{"the meter's function exported", guestOf(nil, slices.Concat(fill, ok)).with(7, vector(export("memory", 2, 0), export("__guest_call", 0, 0), export("x", 0, 1))).bytes(), "function 1 does not exist"},
		{"the meter's function in a table", guestOf(nil, slices.Concat(fill, ok)).with(4, []byte{1, 0x70, 0, 4}).with(9, vector([]byte{0, 0x41, 0, 0x0b, 1, 1})).bytes(), "function 1 does not exist"},
		{"the meter's function referred to", guestOf(nil, slices.Concat(fill, []byte{0xd2, 1, 0x1a}, ok)).bytes(), "function 1 does not exist"},
		{"the meter's function in a global", guestOf(nil, slices.Concat(fill, ok)).with(6, vector([]byte{0x70, 0, 0xd2, 1, 0x0b})).bytes(), "function 1 does not exist"},
		{"the meter's global used", guestOf(nil, []byte{0x23, 0, 0x1a, 0x41, 1}).bytes(), "global 0 does not exist"},
		{"the meter's local used", guestOf(nil, []byte{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 0, 0x20, 2, 0x1a, 0x41, 1}).bytes(), "local 2 does not exist"},
		{"a branch out of the meter's block", guestOf(nil, []byte{0x10, 0, 0x41, 1, 0x0c, 1}).bytes(), "a branch out of 2 blocks, 1 are open"},
		{"the meter's type used", guestOf(nil, []byte{0x02, 6, 0x0b, 0x41, 1}).bytes(), "block type 6 does not exist"},
		{"types do not fit", guestOf(nil, []byte{0x42, 1}).bytes(), "does not compile"},
		{"instructions behind the end", guestOf(nil, []byte{0x41, 1, 0x0b, 0x01}).bytes(), "bytes too many"},
		{"code without its declaration", good.with(3, vector()).with(7, vector(export("memory", 2, 0))).bytes(), `"__guest_call"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.Prepare(context.Background(), tt.code, nola.Manifest{})
			if !errors.Is(err, &nola.Error{Reason: nola.ReasonInvalidModule}) {
				t.Fatalf("got %v, want INVALID_MODULE", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want it to contain %q", err, tt.want)
			}
		})
	}
}

func TestManifestIsChecked(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	for want, m := range map[string]nola.Manifest{
		`capability "FLY" is unknown`: {Capabilities: []string{"KV-GET", "FLY"}},
		`mode "disk"`:                 {Mode: "disk"},
		"limits.call_depth 100001":    {Limits: nola.Limits{CallDepth: 100_001}},
	} {
		_, err := r.Prepare(context.Background(), smallGuest(t), m)
		if !errors.Is(err, &nola.Error{Reason: nola.ReasonInvalidArgument}) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want INVALID_ARGUMENT with %q", err, want)
		}
	}
	_, err := wasmhost.New(context.Background(), wasmhost.Config{InstancesBytesMax: 1, CompileConcurrency: -1, CompileTimeout: -1})
	for _, want := range []string{"InstancesBytesMax 1", "CompileConcurrency -1", "CompileTimeout -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want it to contain %q", err, want)
		}
	}
}

// TestBadPointers passes ranges outside of memory to every function that takes
// one.
func TestBadPointers(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	far := []byte{0x41, 0xf0, 0xff, 0x03} // i32.const 65520
	long := []byte{0x41, 0x20}            // i32.const 32
	last := []byte{0x41, 0x7f}            // i32.const -1
	zero := []byte{0x41, 0}
	for _, tt := range []struct {
		name, field string
		typ         byte
		args        [][]byte
		result      bool
		prepare     [][]byte // a host call first
		want        string
	}{
		{name: "request operation", field: "__guest_request", typ: typeI32s, args: [][]byte{last, zero}, want: "the operation of 2 bytes does not fit at 0xffffffff"},
		{name: "request payload", field: "__guest_request", typ: typeI32s, args: [][]byte{zero, far}, want: "the payload of 64 bytes does not fit at 0xfff0 into the memory of 65536 bytes"},
		{name: "response", field: "__guest_response", typ: typeI32s, args: [][]byte{far, long}, want: "the reply of 32 bytes at 0xfff0 lies outside the memory of 65536 bytes"},
		{name: "response length", field: "__guest_response", typ: typeI32s, args: [][]byte{zero, last}, want: "the reply of 4294967295 bytes"},
		{name: "error", field: "__guest_error", typ: typeI32s, args: [][]byte{last, last}, want: "the error text of 4294967295 bytes"},
		{name: "log", field: "__console_log", typ: typeI32s, args: [][]byte{far, long}, want: "the log message of 32 bytes"},
		{name: "host call binding", field: "__host_call", typ: typeHost, args: [][]byte{far, long, zero, zero, zero, zero, zero, zero}, result: true, want: "the binding of 32 bytes"},
		{name: "host call namespace", field: "__host_call", typ: typeHost, args: [][]byte{zero, zero, far, long, zero, zero, zero, zero}, result: true, want: "the namespace of 32 bytes"},
		{name: "host call operation", field: "__host_call", typ: typeHost, args: [][]byte{zero, zero, zero, zero, far, long, zero, zero}, result: true, want: "the host operation of 32 bytes"},
		{name: "host call payload", field: "__host_call", typ: typeHost, args: [][]byte{zero, zero, zero, zero, zero, zero, last, long}, result: true, want: "the payload of 32 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code := slices.Concat(tt.args...)
			code = append(code, 0x10, 0)
			if tt.result {
				code = append(code, 0x1a)
			}
			g := guestOf([][]byte{importOf("wapc", tt.field, tt.typ)}, append(code, ok...))
			i := instantiate(t, prepare(t, r, g.bytes(), nola.Manifest{}))
			_, err := invoke(i, newWorld(), "op", strings.Repeat("p", 64))
			if reason, _ := reasonOf(t, err); reason != nola.ReasonGuestTrap || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %s %q, want GUEST_TRAP with %q", reason, err, tt.want)
			}
			if _, err := invoke(i, newWorld(), "op", ""); err == nil || !strings.Contains(err.Error(), "broke in an earlier turn") {
				t.Errorf("the broken instance answers %v", err)
			}
		})
	}
	t.Run("host response and error", func(t *testing.T) {
		// SELF answers text; an unknown operation, the empty one, fails with some.
		for field, data := range map[string]string{"__host_response": "SELF", "__host_error": "NONE"} {
			call := slices.Concat(zero, zero, zero, zero, zero, []byte{0x41, 4}, zero, zero, []byte{0x10, 0, 0x1a}, far, []byte{0x10, 1}, ok)
			g := guestOf([][]byte{importOf("wapc", "__host_call", typeHost), importOf("wapc", field, typeOne)}, call).
				with(11, vector(slices.Concat([]byte{0, 0x41, 0, 0x0b}, name(data))))
			i := instantiate(t, prepare(t, r, g.bytes(), nola.Manifest{}))
			_, err := invoke(i, newWorld(), "op", "")
			if reason, _ := reasonOf(t, err); reason != nola.ReasonGuestTrap || !strings.Contains(err.Error(), "does not fit at 0xfff0") {
				t.Errorf("%s: got %s %v", field, reason, err)
			}
		}
	})
}

// TestRawTraps checks traps of the machine, and that a module's own maximum of
// memory is a memory limit too.
func TestRawTraps(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	for name, tt := range map[string]struct {
		guest  binary
		reason nola.Reason
		want   string
	}{
		"unreachable":     {guestOf(nil, []byte{0x00}), nola.ReasonGuestTrap, "guest trap: unreachable"},
		"division by 0":   {guestOf(nil, []byte{0x41, 1, 0x41, 0, 0x6d}), nola.ReasonGuestTrap, "integer divide by zero"},
		"wild read":       {guestOf(nil, []byte{0x41, 0x7f, 0x28, 2, 0}), nola.ReasonGuestTrap, "out of bounds memory access"},
		"recursion":       {guestOf(nil, []byte{0x41, 0, 0x41, 0, 0x10, 0}), nola.ReasonLimitExceeded, "nested deeper than 10000 frames"},
		"its own maximum": {guestOf(nil, []byte{0x41, 5, 0x40, 0, 0x1a, 0x00}).with(5, []byte{1, 1, 1, 3}), nola.ReasonMemoryLimit, "196608 bytes"},
		"bulk loop":       {guestOf(nil, []byte{0x03, 0x40, 0x41, 0, 0x41, 0, 0x41, 0xff, 0xff, 3, 0xfc, 11, 0, 0x0c, 0, 0x0b, 0x41, 1}), nola.ReasonCPUBudget, "steps"},
		"false":           {guestOf(nil, []byte{0x41, 0}), nola.ReasonGuestError, `call to "op" was unsuccessful`},
	} {
		t.Run(name, func(t *testing.T) {
			i := instantiate(t, prepare(t, r, tt.guest.bytes(), nola.Manifest{}))
			_, err := invoke(i, newWorld(), "op", "")
			if reason, _ := reasonOf(t, err); reason != tt.reason || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %s %q, want %s with %q", reason, err, tt.reason, tt.want)
			}
		})
	}
}

// TestInitialisers covers what may go wrong before there is an actor.
func TestInitialisers(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{})
	self := nola.ActorRef{Namespace: "default", Type: "test", ID: "a"}
	exit := func(code byte) binary {
		return guestOf([][]byte{importOf("wasi_snapshot_preview1", "proc_exit", typeOne)}, ok, function(0x41, code, 0x10, 0)).
			with(7, vector(export("memory", 2, 0), export("__guest_call", 0, 1), export("_start", 0, 2)))
	}
	m := prepare(t, r, exit(0).bytes(), nola.Manifest{})
	if got := mustInvoke(t, instantiate(t, m), newWorld(), "op", ""); got != "" {
		t.Errorf("after _start ended with 0 the guest answers %q", got)
	}
	for want, g := range map[string]binary{
		"exit code 7": exit(7),
		"steps":       guestOf(nil, ok, function(0x03, 0x40, 0x0c, 0, 0x0b)).with(8, []byte{1}), // a start section that loops
		"unreachable": guestOf(nil, ok, function(0x00)).with(7, vector(export("memory", 2, 0), export("__guest_call", 0, 0), export("wapc_init", 0, 1))),
	} {
		_, err := prepare(t, r, g.bytes(), nola.Manifest{Limits: nola.Limits{Steps: 10_000_000}}).Instantiate(self)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestInstancesBytesMax(t *testing.T) {
	r := newRuntime(t, wasmhost.Config{InstancesBytesMax: 1 << 20})
	m := prepare(t, r, smallGuest(t), nola.Manifest{})
	self := nola.ActorRef{Namespace: "default", Type: "test", ID: "a"}
	var held []nola.Instance
	for {
		i, err := m.Instantiate(self)
		if err != nil {
			var e *nola.Error
			if !errors.As(err, &e) || e.Reason != nola.ReasonNodeOverloaded || e.RetryAfter == 0 || e.Metadata["limit"] != "instances_bytes" {
				t.Errorf("got %#v", err)
			}
			break
		}
		if i.Bytes() < 64<<10 {
			t.Fatalf("an instance says it holds %d bytes", i.Bytes())
		}
		if held = append(held, i); len(held) > 16 {
			t.Fatal("17 instances of more than 64 KiB fit into 1 MiB")
		}
	}
	if len(held) < 8 {
		t.Errorf("only %d instances fit into 1 MiB", len(held))
	}
	for _, i := range held {
		i.Close()
	}
	i, err := m.Instantiate(self)
	if err != nil {
		t.Fatalf("after all were closed: %v", err)
	}
	i.Close()
}
