// Package wasmhost runs one guest call safely and boundedly. It implements
// [nola.Runtime] on wazero and speaks the waPC protocol.
//
// # A module
//
// Bytes become a module in steps, each a pure function of what came before:
// parse (parse.go: sections, limits, imports, exports), meter (meter.go: count
// the work, bound the depth, leave to the host now and then), compile (wazero,
// through its cache). Bytes that fail a step are refused as INVALID_MODULE with
// the section and the offset, and leave nothing behind. The bytes compiled are
// never the bytes given: only metered code runs.
//
// # An image and its slots
//
// The initialisers of a module run once, under a fixed clock and a fixed random
// stream; what they leave in memory and globals is the module's image (image.go).
// An instance of the engine that begins as the image is a slot (slot.go): it
// serves one activation, is set back to the image, and is idle until the next.
// A module that changes its tables, or whose state cannot be read otherwise,
// has no image: each activation has an instance of the engine of its own.
//
// What was made of a module is kept on disk beside the engine's code (derived.go):
// a later process checks it and uses it. What an instance has become since its
// image can be kept and given to another one (keep.go): that is memory mode.
//
// What goes beyond the contracts of the engine and the system stands in two
// files, tables.go (how tables begin) and pages_linux.go (memories that share
// pages). Each tries what it relies on once, before it is used, and has a slower
// way that passes the same tests.
//
// # An instance
//
// An instance is fresh, idle, in a turn, or broken; it has a slot until it is
// closed. A slot that broke or grew is not used again. A guest
// that answers, be it with an error text, leaves it idle; a trap, a spent
// budget, a passed deadline or an interrupt leaves it broken, and a broken
// instance refuses further turns.
//
// # What always holds
//
//   - Guest code leaves to Go at least once in every slice of steps. There the
//     host checks the step budget, the deadline and interrupts, and there the
//     scheduler and the collector of the whole process get their turn. A step
//     stands for a bounded amount of work: function entries and loop heads weigh
//     what their bodies hold, bulk operations what they move, a piece at a time.
//   - Nothing of an activation is left in a slot for the next one, and what they
//     draw at random differs, be it from generators that the image holds seeded.
//   - Slots hold no more than Config.InstancesBytesMax together.
//   - The same turn on the same memory takes the same number of steps.
//   - Bytes that outlive a host function are copied out of guest memory in it;
//     every pointer and length is checked, and a bad one is a trap.
//   - A guest sees no clock, no randomness, no files, no environment but what
//     [nola.Host] hands out.
//   - The package starts no goroutine but one for each compilation, which ends
//     soon after the time of its caller and before the runtime is closed.
package wasmhost
