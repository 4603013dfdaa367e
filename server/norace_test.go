//go:build !race

package server_test

// hostSlowdown is how much more time than in production the host is given.
const hostSlowdown = 1
