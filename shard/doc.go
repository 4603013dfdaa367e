// Package shard gives the shards of one node what their cores lack: a clock,
// goroutines, a store and guests.
//
// # Who does what
//
// The goroutine that brings an input steps the shard's core under the shard's
// mutex and then does what the core says must happen next, itself: it reads
// what is to be read, runs the turn under a run token, and commits if nobody
// does. What nobody waits for (casts, timers, firings) is brought by a small
// pool, in which what is due leaves room for calls. One commit at a time carries the ready groups of all shards: whoever
// finds none under way leads it; what gathers meanwhile goes to one committer
// goroutine.
//
// While more turns are ready than there are run tokens, tokens go round by
// namespace: the one whose turns have taken the fewest steps is next, and a long
// turn hands its token over when it yields.
//
// A caller runs turns of its actor only until its own call is answered; then it
// hands the next turn to the caller that waits for it.
//
// What turns have cost is summed by type exactly, and by actor in a sketch of bounded
// memory (usage.go). Shards are dealt out to groups, each with a mutex of its own,
// which is all that a turn takes for it.
//
// # States of a shard
//
// A shard is open under an epoch until it is fenced; then its memory is dropped,
// every waiting caller gets a definite answer, and the shard is opened anew
// under a higher epoch.
//
// # Invariants
//
//   - A store, a guest or a callback is never called with a shard's mutex held.
//   - A turn that could not commit leaves no instance behind.
//   - No goroutine outlives Close.
package shard
