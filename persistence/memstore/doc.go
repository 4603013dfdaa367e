// Package memstore is the engine that keeps everything in memory, for tests and
// simulations: the same store as the one on disk, on an ordered map.
//
// A [Disk] is what survives: a store that is opened on it finds what the one
// before it has committed, and ends that one, whose calls answer
// persistence.ErrClosed from then on. Those that join it work side by side.
package memstore
