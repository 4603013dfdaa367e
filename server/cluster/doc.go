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
//	owned by A -> owned by B                       A gives it away, or its lease is over
//	owned by A -> released for B -> owned by B     A gives it away, and B has to claim it
//	released for B -> owned by C                   B has not come for it
//
// A has most of what the shard has committed written to its tables first, ends what it
// has admitted, makes B the owner by one write, and tells B, which takes the shard up
// without a look at the directory. If that word gets lost, B finds itself in the shard's
// row. Calls wait meanwhile: at A until they can be told of B, at B until it serves the
// shard. All other moves are found by looking.
//
// # Where a shard belongs
//
// By its hash it belongs to a node in proportion to the nodes' weights, among those
// whose labels the rules of placement allow (rules.go). Each shard has actors of
// every type, so each rule holds for all shards. Exceptions are made for load
// (load.go), by the owner's word alone, in its row:
//
//	kept    "I have this shard, and keep it"
//	offered "I have this shard, and give it to that node", until that keeps it
//
// They end with the process that made them. What to move is computed by each node
// from the same rows, and carried out by the owner.
//
// Which nodes are drained, and the rules, stand in the catalogue. Nodes tell which
// version they go by, and shards that are served move when it is the same one.
//
// # Invariants
//
//   - A shard is claimed only from nobody, from a node whose lease is over, or
//     from oneself, or its owner claims it for another node; each claim raises the epoch.
//   - A node that lives loses a shard only by its own hand.
//   - Nodes with the same view agree on where each shard belongs, and a view that
//     has settled moves each shard once at most.
//   - Load moves a shard only from a node that has far too much, or home, and fills
//     nobody above what makes it stop; while costs stay, all comes to rest.
//   - A node that a rule bars takes no shard, from nobody, but for what it was made the
//     owner of before both sides knew the rule, and that it gives away again.
//   - One step of a shard at a time is under way at a node.
//   - A node gives away a few shards at a time, and the next ones when those are served.
package cluster
