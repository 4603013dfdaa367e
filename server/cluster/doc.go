// Package cluster makes several nodes one: it decides which of them serves which
// shard, and carries requests to the one that does.
//
// # Who decides what
//
// Nobody is elected. Each node beats into a [Directory], reads the beats of the
// others, and from the same rows each comes to the same assignment ([Assign]).
// [Members] tells who is alive, [Planner] what the node must take and give away;
// both are step machines without clock, chance or I/O. That two nodes may see
// different things for a while does no harm: a shard changes hands by a
// conditional write alone, which raises its epoch, and the store takes commits of
// the newest epoch only.
//
// # How a shard moves
//
//	owned by A -> released for B -> owned by B     A gives it away
//	owned by A -> owned by B                       A's lease is over
//	released for B -> owned by C                   B has not come for it
//
// # Invariants
//
//   - A shard is claimed only from nobody, from a node whose lease is over, or
//     from oneself; each claim raises the epoch.
//   - A node that lives loses a shard only by its own release.
//   - Nodes with the same view agree on where each shard belongs, and a view that
//     has settled moves each shard once at most.
//   - A node gives away a few shards at a time, and the next ones when those have
//     arrived.
package cluster
