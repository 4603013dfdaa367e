package main

import "slices"

// hostile is one module and what must come of it.
type hostile struct {
	Name string
	File string
	// At is where it ends: when it is pushed ("push"), when its memory is made
	// ("start") or in a turn whose payload is not empty ("turn"). At "compile" it is
	// within all limits and dear to compile: it may be refused for the time that
	// takes, and otherwise answers.
	At string
	// Reason is the error's; empty means that the turn answers.
	Reason string
	Limit  string `json:",omitempty"` // that the error names
	Text   string `json:",omitempty"` // that the error contains
	// Limits of the manifest; zero means the default.
	Steps       uint64 `json:",omitempty"`
	HostCalls   int    `json:",omitempty"`
	MemoryBytes int64  `json:",omitempty"`

	code []byte
}

// The reasons for which hostile modules end.
const (
	invalidModule = "INVALID_MODULE"
	guestTrap     = "GUEST_TRAP"
	guestFails    = "GUEST_ERROR"
	cpuBudget     = "CPU_BUDGET"
	memoryLimit   = "MEMORY_LIMIT"
	limitExceeded = "LIMIT_EXCEEDED"
	deadline      = "DEADLINE_EXCEEDED"
)

// fewSteps is the budget of misdeeds that are to end by it.
const fewSteps = 200_000

// corpus is all of them.
func corpus() []hostile {
	return slices.Concat(loops(), recursions(), bombs(), floods(), pointers(), traps(), starts(), pushes(), compileBombs())
}

// turn is a misdeed of a turn.
func turn(name, reason, limit, text string, misdeed []byte, more ...[]byte) hostile {
	return hostile{Name: name, At: "turn", Reason: reason, Limit: limit, Text: text, code: guest(misdeed, more...).bytes()}
}

func (h hostile) steps(n uint64) hostile {
	h.Steps = n
	return h
}

// loops never end by themselves.
func loops() []hostile {
	spin := forever()
	// large lets a guest have 40 MiB, that one instruction can move.
	const largeBytes = 40 << 20
	large := func(name string, code ...[]byte) hostile {
		h := turn(name, deadline, "", "", slices.Concat(grow(largeBytes>>16), forever(code...))).steps(1 << 62)
		h.MemoryBytes = largeBytes + 1<<20
		return h
	}
	return []hostile{
		turn("loop-to-deadline", deadline, "", "", spin).steps(1 << 62),
		turn("loop-to-budget", cpuBudget, "steps", "", spin).steps(fewSteps),
		turn("loop-br-table", deadline, "", "", slices.Concat([]byte{0x03, 0x40}, local(1), []byte{0x0e, 2, 0, 0, 0, 0x0b})).steps(1 << 62),
		turn("loop-nested", deadline, "", "", forever(forever())).steps(1 << 62),
		turn("loop-of-calls", deadline, "", "", forever(call(self+1)), function(nil)).steps(1 << 62),
		turn("loop-of-indirect-calls", deadline, "", "", forever(i32(1), []byte{0x11, typeNone, 0}), function(nil)).steps(1 << 62),
		turn("loop-long-body", deadline, "", "", forever(slices.Repeat(slices.Concat(i32(0), i32(7), []byte{0x36, 2, 0}), 10_000))).steps(1 << 62),
		turn("loop-divisions", deadline, "", "", forever(slices.Repeat(slices.Concat(local(0), local(1), []byte{0x70}, drop), 1_000))).steps(1 << 62),
		turn("loop-memory-fill", cpuBudget, "steps", "", forever(i32(0), i32(0), i32(131072), []byte{0xfc, 11, 0})).steps(fewSteps),
		turn("loop-memory-copy", deadline, "", "", forever(i32(1), i32(0), i32(131071), []byte{0xfc, 10, 0, 0})).steps(1 << 62),
		large("loop-large-fill", i32(0), i32(1), i32(largeBytes), []byte{0xfc, 11, 0}),
		large("loop-large-copy", i32(0), i32(1), i32(largeBytes-1), []byte{0xfc, 10, 0, 0}),
		large("loop-large-copy-back", i32(1), i32(0), i32(largeBytes-1), []byte{0xfc, 10, 0, 0}),
		turn("loop-sleep", cpuBudget, "steps", "", forever(callWith(pollOneoff, 1024, 2048, 1, 4096), drop)).steps(fewSteps),
	}
}

// recursions go down without end.
func recursions() []hostile {
	again := func(f int) []byte { return call(f) }
	return []hostile{
		turn("recursion", limitExceeded, "call_depth", "", again(self+1), function(nil, again(self+1))),
		turn("recursion-mutual", limitExceeded, "call_depth", "", again(self+1), function(nil, again(self+2)), function(nil, again(self+1))),
		turn("recursion-indirect", limitExceeded, "call_depth", "", again(self+1), function(nil, i32(1), []byte{0x11, typeNone, 0})),
		turn("recursion-large-frames", limitExceeded, "call_depth", "", again(self+1), function([][]byte{append(number(9_000), i64t)}, again(self+1))),
		turn("recursion-with-loops", cpuBudget, "steps", "", again(self+1), function(nil, forever(again(self+1), again(self+1)))).steps(100),
		turn("re-entry", limitExceeded, "call_depth", "", slices.Concat(callWith(self, 1, 1), drop)),
		turn("re-entry-by-table", limitExceeded, "call_depth", "", slices.Concat(i32(1), i32(1), i32(0), []byte{0x11, typeCall, 0}, drop)),
	}
}

// bombs ask for too much memory.
func bombs() []hostile {
	tableGrow := slices.Concat([]byte{0xd0, funcref}, i32(50_000), []byte{0xfc, 15, 0}, drop)
	return []hostile{
		turn("memory-then-trap", memoryLimit, "memory_bytes", "", slices.Concat(grow(60_000), unreachable)),
		turn("memory-page-by-page", cpuBudget, "steps", "", forever(grow(1))).steps(fewSteps / 10),
		turn("memory-negative", guestTrap, "", "unreachable", slices.Concat(grow(-1), unreachable)),
		turn("table-without-end", cpuBudget, "steps", "", forever(tableGrow)).steps(fewSteps),
	}
}

// newlines fills memory from 64 KiB on with line ends, and puts vectors for WASI
// that each name all of it at 16 KiB.
func newlines() []byte {
	const vectors, from, size = 16 << 10, 64 << 10, 64 << 10
	b := slices.Concat(i32(from), i32('\n'), i32(size), []byte{0xfc, 11, 0})
	for i := range 1024 {
		b = slices.Concat(b, i32(vectors+8*i), i32(from), []byte{0x36, 2, 0}, i32(vectors+8*i+4), i32(size), []byte{0x36, 2, 0})
	}
	return b
}

// ask makes a host call whose name lies at 16 KiB; it leaves whether it succeeded.
func ask(operation, payload, n int) []byte {
	return callWith(hostCall, 0, 0, 0, 0, 16<<10, operation, payload, n)
}

// floods call the host without end.
func floods() []hostile {
	// naming gives a guest of the misdeed a host operation's name, and a payload.
	naming := func(h hostile, misdeed []byte, operation, payload string) hostile {
		h.code = guest(misdeed).with(secData, vector(dataAt(answerAt, "ok"), dataAt(16<<10, operation), dataAt(20<<10, payload))).bytes()
		return h
	}
	few := func(h hostile) hostile {
		h.HostCalls = 1000
		return h
	}
	large := slices.Concat(grow(200), i32(1<<20), i32('1'), i32(7<<20), []byte{0xfc, 11, 0})
	// text puts JSON at 1 MiB: what payload has, its last piece over and over.
	const textAt, textBytes = 1 << 20, 7 << 20
	move := func(to, from, n int) []byte { return slices.Concat(i32(to), i32(from), i32(n), []byte{0xfc, 10, 0, 0}) }
	text := func(payload string, piece int) []byte {
		b := slices.Concat(grow(200), move(textAt, 20<<10, len(payload)))
		for at, n := textAt+len(payload), piece; at < textAt+textBytes; at, n = at+n, 2*n {
			b = append(b, move(at, at-n, min(n, textAt+textBytes-at))...)
		}
		return b
	}
	flood := func(name, payload string, piece int, end string) hostile {
		// the end overwrites the last of the pieces
		closed := slices.Concat(text(payload, piece), move(textAt+textBytes-len(end), 20<<10+len(payload), len(end)))
		return naming(turn(name, deadline, "", "", nil), slices.Concat(closed, forever(ask(12, textAt, textBytes), drop)), "INVOKE-ACTOR", payload+end).steps(1 << 62)
	}
	handOn := slices.Concat(i32(0), call(hostError), i32(0), call(hostErrorLen), call(guestError))
	return []hostile{
		few(naming(turn("flood-kv-get", limitExceeded, "host_calls", "", nil), forever(ask(6, 20<<10, 1), drop), "KV-GET", "k")),
		few(naming(turn("flood-kv-put", limitExceeded, "host_calls", "", nil), forever(ask(6, 20<<10, 4096), drop), "KV-PUT", "\x02k")),
		few(naming(turn("flood-unknown-operation", limitExceeded, "host_calls", "", nil), forever(ask(4, 20<<10, 1), drop), "FLY!", "k")),
		naming(turn("flood-bad-json", deadline, "", "", nil), slices.Concat(large, forever(ask(12, 1<<20, 7<<20), drop)), "INVOKE-ACTOR", "").steps(1 << 62),
		flood("flood-json-values", `{"fields":[1,`, len("1,"), `11]}`),
		flood("flood-json-escapes", `{"actor_id":"\u0041`, len(`\u0041`), `"}`),
		flood("flood-json-payload", `{"payload":"AAAA`, len("AAAA"), `"}`),
		naming(turn("huge-host-request", limitExceeded, "host_call_bytes", "", nil), slices.Concat(grow(200), ask(6, 0, 9<<20), drop, handOn), "KV-PUT", ""),
		naming(turn("flood-host-error", deadline, "", "", nil), slices.Concat(ask(4, 0, 0), drop, forever(callWith(hostError, 32<<10))), "FLY!", "").steps(1 << 62),
		turn("flood-log", deadline, "", "", forever(callWith(consoleLog, 0, 131072))).steps(1 << 62),
		turn("flood-log-to-budget", cpuBudget, "steps", "", forever(callWith(consoleLog, 0, 131072))).steps(fewSteps),
		turn("flood-stdout", deadline, "", "", slices.Concat(newlines(), forever(callWith(fdWrite, 1, 16<<10, 1024, 0), drop))).steps(1 << 62),
		turn("flood-stderr", deadline, "", "", slices.Concat(newlines(), forever(callWith(fdWrite, 2, 16<<10, 1024, 0), drop))).steps(1 << 62),
		turn("flood-random", deadline, "", "", slices.Concat(grow(200), forever(callWith(randomGet, 0, 12<<20), drop))).steps(1 << 62),
		turn("flood-response", deadline, "", "", slices.Concat(grow(200), forever(callWith(guestResponse, 0, 512<<10)))).steps(1 << 62),
		turn("flood-error", deadline, "", "", slices.Concat(grow(200), forever(callWith(guestError, 0, 12<<20)))).steps(1 << 62),
		turn("flood-request", deadline, "", "", forever(callWith(guestRequest, 0, 1024))).steps(1 << 62),
		turn("huge-reply", limitExceeded, "reply_bytes", "", slices.Concat(grow(200), callWith(guestResponse, 0, 12<<20))),
		turn("huge-error", guestFails, "", "", slices.Concat(grow(200), callWith(guestError, 0, 12<<20))),
	}
}

// pointers lead out of memory, on every function that takes one.
func pointers() []hostile {
	const end = 128 << 10
	bad := func(name, text string, f int, args ...int) hostile {
		code := callWith(f, args...)
		switch f {
		case hostCall, fdWrite, pollOneoff, randomGet:
			code = append(code, drop...)
		}
		h := turn("pointer-"+name, guestTrap, "", text, code)
		if text == "" {
			h.Reason = "" // WASI has an error number for it
		}
		return h
	}
	return []hostile{
		bad("request-operation", "the operation of ", guestRequest, -1, 0),
		bad("request-payload", "the payload of ", guestRequest, 0, end),
		bad("response", "the reply of 32 bytes", guestResponse, end-16, 32),
		bad("response-length", "the reply of 4294967295 bytes", guestResponse, 1, -1),
		bad("error", "the error text of ", guestError, end, 1),
		bad("log", "the log message of ", consoleLog, -16, 32),
		bad("host-call-binding", "the binding of ", hostCall, end, 1, 0, 0, 0, 0, 0, 0),
		bad("host-call-namespace", "the namespace of ", hostCall, 0, 0, end, 1, 0, 0, 0, 0),
		bad("host-call-operation", "the host operation of ", hostCall, 0, 0, 0, 0, end, 1, 0, 0),
		bad("host-call-payload", "the payload of ", hostCall, 0, 0, 0, 0, 0, 0, end, 1),
		turn("pointer-host-error", guestTrap, "", "the host error of ", slices.Concat(callWith(hostCall, 0, 0, 0, 0, 0, 0, 0, 0), drop, callWith(hostError, end-1))),
		bad("write-vectors", "", fdWrite, 1, end-4, 1, 0),
		bad("write-count", "", fdWrite, 1, 0, -1, 0),
		bad("poll", "", pollOneoff, end-4, 0, 1, 0),
		bad("random", "", randomGet, end-4, 64),
	}
}

// traps are what the machine itself refuses.
func traps() []hostile {
	return []hostile{
		turn("unreachable", guestTrap, "", "unreachable", unreachable),
		turn("divide-by-zero", guestTrap, "", "integer divide by zero", slices.Concat(i32(1), i32(0), []byte{0x6d}, drop)),
		turn("divide-overflow", guestTrap, "", "integer overflow", slices.Concat(i32(-1<<31), i32(-1), []byte{0x6d}, drop)),
		turn("nan-to-integer", guestTrap, "", "invalid conversion to integer", []byte{0x43, 0, 0, 0xc0, 0x7f, 0xa8, 0x1a}),
		turn("nan-to-long", guestTrap, "", "invalid conversion to integer", slices.Concat([]byte{0x44}, []byte{1, 0, 0, 0, 0, 0, 0xf0, 0xff}, []byte{0xb0}, drop)),
		turn("infinity-to-unsigned", guestTrap, "", "integer overflow", slices.Concat([]byte{0x44}, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x7f}, []byte{0xab}, drop)),
		turn("offset-overflow-store", guestTrap, "", "out of bounds memory access", slices.Concat(i32(-8), i32(1), []byte{0x36, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})),
		turn("offset-overflow-vector", guestTrap, "", "out of bounds memory access", slices.Concat(i32(131072-15), []byte{0xfd, 0, 0, 0}, drop)),
		turn("copy-overflow", guestTrap, "", "out of bounds memory access", slices.Concat(i32(-1), i32(-1), i32(2), []byte{0xfc, 10, 0, 0})),
		turn("offset-overflow", guestTrap, "", "out of bounds memory access", slices.Concat(i32(-1), []byte{0x28, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}, drop)),
		turn("store-at-the-end", guestTrap, "", "out of bounds memory access", slices.Concat(i32(131072-3), i32(1), []byte{0x36, 0, 0})),
		turn("bulk-out-of-bounds", guestTrap, "", "out of bounds memory access", slices.Concat(i32(1), i32(0), i32(-1), []byte{0xfc, 11, 0})),
		turn("call-null", guestTrap, "", "invalid table access", slices.Concat(i32(9), []byte{0x11, typeNone, 0})),
		turn("call-outside-table", guestTrap, "", "invalid table access", slices.Concat(i32(-1), []byte{0x11, typeNone, 0})),
		turn("call-of-another-type", guestTrap, "", "indirect call type mismatch", slices.Concat(i32(0), []byte{0x11, typeNone, 0})),
		turn("exit", guestTrap, "", "exit code 3", callWith(procExit, 3)),
		turn("exit-with-0", guestTrap, "", "exit code 0", callWith(procExit, 0)),
		turn("answer-of-neither-kind", guestFails, "", "was unsuccessful", []byte{0x41, 2, 0x0f}),
	}
}

// starts go wrong before there is an actor.
func starts() []hostile {
	start := func(name, reason, limit, text, exported string, code ...[]byte) hostile {
		b := guest(nil, function(nil, code...))
		if exported == "" {
			b = b.with(secStart, number(self+1))
		} else {
			b = b.with(secExport, exports(export(exported, 0, self+1)))
		}
		return hostile{Name: "start-" + name, At: "start", Reason: reason, Limit: limit, Text: text, Steps: fewSteps, code: b.bytes()}
	}
	outside := guest(nil)
	// Every eight bytes of memory look like the end of a generator of random numbers.
	store := slices.Concat([]byte{0x03, 0x40}, local(0), []byte{0x42, 0x8c, 0x80, 0x80, 0x80, 0xc0, 0x03, 0x37, 3, 0}, // i64.store 28<<32 | 12
		local(0), i32(8), []byte{0x6a, 0x22, 0}, i32(2<<16), []byte{0x49, 0x0d, 0, 0x0b})
	generators := guest(nil, function([][]byte{append(number(1), i32t)}, store)).with(secStart, number(self+1))
	return []hostile{
		{Name: "start-false-generators", At: "push", Reason: invalidModule, Text: "look like generators", code: generators.bytes()},
		start("loop", cpuBudget, "steps", "", "", forever()),
		start("loop-in-initialize", cpuBudget, "steps", "", "_initialize", forever()),
		start("recursion", limitExceeded, "call_depth", "", "wapc_init", call(self+1)),
		start("trap", guestTrap, "", "unreachable", "", unreachable),
		start("trap-in-init", guestTrap, "", "unreachable", "wapc_init", unreachable),
		start("exit", guestTrap, "", "exit code 7", "_start", callWith(procExit, 7)),
		start("exit-in-init", guestTrap, "", "exit code 0", "wapc_init", callWith(procExit, 0)),
		start("memory", memoryLimit, "memory_bytes", "", "_initialize", grow(60_000), unreachable),
		start("bad-pointer", guestTrap, "", "the reply of", "wapc_init", callWith(guestResponse, -1, 1)),
		{Name: "start-data-outside", At: "start", Reason: guestTrap, Text: "out of bounds memory access", code: outside.with(secData, vector(dataAt(131071, "ok"))).bytes()},
		// The engine leaves out what does not fit; nothing is written outside.
		{Name: "start-elements-outside", At: "turn", code: outside.with(secElement, vector(slices.Concat([]byte{0}, i32(16), []byte{0x0b}, vector(number(self))))).bytes()},
	}
}

// pushes are refused before anything of them runs.
func pushes() []hostile {
	good := guest(nil)
	push := func(name, text string, b binary) hostile {
		return hostile{Name: "push-" + name, At: "push", Reason: invalidModule, Text: text, code: b.bytes()}
	}
	branches := slices.Repeat(slices.Concat(i32(1), []byte{0x04, 0x40, 0x0b}), 10_001)
	body := func(locals [][]byte, code ...[]byte) binary {
		return good.with(secCode, vector(function(locals, append(code, i32(1))...)))
	}
	limit := func(h hostile, name string) hostile {
		h.Limit = name
		return h
	}
	nested := func(depth int) []byte {
		return slices.Concat(slices.Repeat([]byte{0x02, 0x40}, depth), slices.Repeat([]byte{0x0b}, depth))
	}
	return []hostile{
		limit(push("memory", "its memory begins with", good.with(secMemory, append([]byte{1, 0}, number(65_536)...))), "memory_bytes"),
		push("memories", "2 memories", good.with(secMemory, []byte{2, 0, 1, 0, 1})),
		push("shared-memory", "threads are not supported", good.with(secMemory, []byte{1, 3, 1, 2})),
		push("table", "limits.table_elements", good.with(secTable, append([]byte{1, funcref, 0}, number(1<<32-1)...))),
		push("tables", "at most 16", good.with(secTable, many(17, funcref, 0, 1))),
		push("globals", "at most 10000", good.with(secGlobal, many(10_001, i32t, 0, 0x41, 0, 0x0b))),
		push("types", "at most 10000", good.with(secType, many(10_001, 0x60, 0, 0))),
		push("imports", "at most 1000", good.with(secImport, many(1_001, importOf("wapc", "__console_log", typeTwo)...))),
		push("exports", "at most 10000", good.with(secExport, many(10_001, export("memory", 2, 0)...))),
		push("data-segments", "at most 100000", good.with(secData, many(100_001, 0, 0x41, 0, 0x0b, 0))),
		push("element-segments", "at most 100000", good.with(secElement, many(100_001, 0, 0x41, 0, 0x0b, 0))),
		push("functions", "at most 100000", good.with(secFunction, many(100_001, typeNone))),
		push("claimed-functions", "at most 100000", good.with(secFunction, number(1<<32-1))),
		push("code-without-functions", "are declared", good.with(secCode, number(0))),
		push("locals", "parameters and locals", body([][]byte{append(number(1<<32-1), i64t)})),
		push("nesting", "nested deeper", body(nil, nested(10_001))),
		push("locals-times-blocks", "their product", body([][]byte{append(number(9_000), i64t)}, slices.Repeat([]byte{0x02, 0x40, 0x0b}, 3_000))),
		push("branches", "blocks and branches", body(nil, branches)),
		push("long-function", "at most 2097152", body(nil, slices.Repeat([]byte{0x01}, 2<<20))),
		push("long-number", "more than 32 bits", good.with(secFunction, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})),
		push("unknown-import", "is unknown", good.with(secImport, vector(importOf("wasi_snapshot_preview1", "path_escape", typeNone)))),
		push("import-of-the-meter", "is unknown", good.with(secImport, vector(importOf("nola", "yield", typeOne)))),
		push("export-of-the-meter", "reserved", good.with(secExport, exports(export("nola.steps", 0, self)))),
		push("global-of-the-meter", "does not exist", body(nil, []byte{0x23, 0, 0x1a})),
		push("set-global-of-the-meter", "does not exist", body(nil, []byte{0x42, 0, 0x24, 0})),
		push("atomics", "not an instruction", body(nil, []byte{0xfe, 0x03, 0})),
		push("tail-call", "not an instruction", body(nil, []byte{0x12, self})),
		push("branch-out", "a branch out of", body(nil, []byte{0x0c, 1})),
		push("wrong-types", "does not compile", body(nil, []byte{0x42, 0, 0x45, 0x1a})),
		push("unknown-function", "does not exist", body(nil, call(1<<20))),
	}
}

// compileBombs are within all limits, and made to take the compiler long.
func compileBombs() []hostile {
	bomb := func(name string, b binary) hostile {
		return hostile{Name: "compile-" + name, At: "compile", code: b.bytes()}
	}
	with := func(more ...[]byte) binary { return guest(nil, more...) }
	// manyOf is n functions beside __guest_call, none of them in the table.
	manyOf := func(n int, f []byte) binary {
		b := guest(nil)
		kinds := append([][]byte{{typeCall}}, slices.Repeat([][]byte{{typeNone}}, n)...)
		call := function(nil, local(1), []byte{0x45, 0x04, 0x40}, i32(answerAt), i32(2), call(guestResponse), i32(1), []byte{0x0f, 0x0b}, i32(1))
		return b.with(secFunction, vector(kinds...)).with(secCode, vector(append([][]byte{call}, slices.Repeat([][]byte{f}, n)...)...))
	}
	arithmetic := slices.Concat(local(0), i32(7), []byte{0x6c}, i32(9), []byte{0x6a, 0x21, 0})
	table := slices.Concat([]byte{0x02, 0x40}, i32(3), []byte{0x0e}, number(100_000), slices.Repeat([]byte{0}, 100_001), []byte{0x0b})
	deep := slices.Concat(slices.Repeat([]byte{0x02, 0x40}, 9_000), slices.Repeat([]byte{0x0b}, 9_000))
	branches := func(n int) []byte { return slices.Repeat(slices.Concat(i32(1), []byte{0x04, 0x40, 0x05, 0x0b}), n) }
	locals := [][]byte{append(number(1_000), i64t)}
	return []hostile{
		bomb("many-functions", manyOf(90_000, function(nil))),
		bomb("many-bodies", manyOf(2_000, function([][]byte{append(number(1), i32t)}, slices.Repeat(arithmetic, 50)))),
		bomb("long-body", with(function([][]byte{append(number(1), i32t)}, slices.Repeat(arithmetic, 100_000)))),
		bomb("large-br-table", with(function(nil, table))),
		bomb("many-fills", with(function(nil, slices.Repeat(slices.Concat(i32(0), i32(0), i32(1), []byte{0xfc, 11, 0}), 50_000)))),
		bomb("deep-blocks", with(function(nil, deep))),
		bomb("many-branches", with(function(nil, branches(9_900)))),
		bomb("many-locals", with(function(locals, slices.Repeat(slices.Concat([]byte{0x20}, number(999), []byte{0x21, 0}), 50_000)))),
	}
}
