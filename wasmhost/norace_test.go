//go:build !race

package wasmhost_test

// hostSlowdown is how much slower than in production the host's own work is.
const hostSlowdown = 1

// compilesSlowly is false: each runtime of a test compiles for itself.
const compilesSlowly = false
