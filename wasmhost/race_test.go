//go:build race

package wasmhost_test

// hostSlowdown is how much slower than in production the host's own work is:
// the race detector watches each of its reads and writes. Parsing one large
// request then takes longer than a turn may outlive its deadline.
const hostSlowdown = 10

// compilesSlowly says that compiling takes ten times as long, too: the runtimes
// of tests take what an earlier one has compiled, see newRuntime.
const compilesSlowly = true
