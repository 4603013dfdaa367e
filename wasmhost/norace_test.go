//go:build !race

package wasmhost_test

// hostSlowdown is how much slower than in production the host's own work is.
const hostSlowdown = 1
