//go:build race

package server_test

// hostSlowdown is how much more time than in production the host is given: under the race
// detector parsing the largest request, which is done in one piece, takes half a second.
const hostSlowdown = 2
