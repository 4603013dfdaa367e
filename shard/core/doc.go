// Package core decides everything that a shard does next. It is a value stepped
// by inputs: no goroutine, no lock, no clock, no I/O, so that the same code runs
// under a server's threads and under a simulator's seed.
//
// Whoever owns a [Shard] calls [Shard.Step] with the time and an [Input], one
// call at a time, and then does what the [Output] says: run turns, read rows,
// wake those whose answers are decided, carry casts to other shards, and commit.
// What comes of it is stepped in again: a finished *[Turn], a filled *[Load], a
// *[Committed].
//
// # How state moves
//
// An actor in memory is an [Activation]. It is loading, then idle or running a
// turn; it ends by passivation or with the shard. One that was woken for a single
// turn which nobody waited for stays, but without an instance. A turn reads what all turns
// before it left, committed or not; what it did is folded into the open group
// at its end. Groups commit in order, one at a time. An answer waits in the
// gate until the group that holds its cause is durable.
//
// # Invariants
//
//   - An actor has at most one turn, and its turns end in the order in which
//     they started.
//   - Whatever leaves (an answer, an envelope) rests on committed groups only.
//     The one exception stays inside the shard: a nested call to an actor of the
//     same shard is answered before its commit, because the caller's effects
//     come in the same group or a later one.
//   - An activation's overlay changes only while none of its turns runs, so a
//     turn may read it without a lock.
//   - A row of the due index goes in the group that holds what it caused.
//   - Every nominal time of a schedule has exactly one outcome, or is running,
//     or lies ahead.
//   - After Fenced nothing is answered as done that was not, and the shard takes
//     no further input but ends.
package core
