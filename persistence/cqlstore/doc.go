// Package cqlstore is the store contract on a Cassandra or ScyllaDB cluster,
// shared by many nodes.
//
// Such a cluster has quorum reads, quorum writes and conditional writes, and no
// more. Package lane is the protocol on top of them; this package sends what its
// machines want sent, once each, and tells them what became of it. A [Store]
// commits through one lane, and recovers those of the dead. statements.go has every
// statement with its consistency, schema.go the tables, rows.go where rows lie.
//
// # How state moves
//
// A committed batch is visible at once in the owner's memory, and is written into
// the tables later, by plain writes with the timestamps of its operations: of many
// writes to one row the last alone. The ring of the lane keeps what is not in the
// tables yet. A shard's tenure:
//
//	none -> claimed -> served -> stopped -> released   Release, or Acquire of one's own
//	                      |         ^
//	                      +---------+-> gone           the lane was lost
//
// A lane that is lost (sealed by others, refused by the cluster, its lease over) is
// recovered by its own store like any other, which decides every batch that was
// under way; the next Acquire opens another one.
//
// # Invariants
//
//   - No conditional statement is sent again by the driver; a plain one goes to one
//     more coordinator if the first one hangs. What has an unknown outcome is sent
//     again by the machine that sent it, byte for byte.
//   - A row that a conditional statement touches is touched by such alone.
//   - Every plain write has a timestamp of its own, from the lane's clock, and may
//     be repeated by anybody at any time.
//   - What is committed is in the memory of the shard's owner or in the tables, and
//     what is only in memory is in the ring.
//   - A page of a scan is of one state. A bucket that has rows is in the table of
//     buckets.
//   - Nothing is guessed: a lane that misses what it acknowledged stops the node.
package cqlstore
