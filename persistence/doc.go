// Package persistence makes a batch durable once, in order, under the newest
// epoch. It is the one door to durable state.
//
// [Store] is the contract of an engine: facts of the cluster, shards that are
// acquired by raising their epoch, commits of batches, reads of committed rows,
// immutable objects and a catalogue with compare-and-set. What is stored are
// rows in named [Table]s; a row belongs to an actor or to a shard. [Batch]
// and [Reader] say what the rows mean: typed records in, typed records out,
// encoded with a format version in front (golden files in testdata/).
//
// [Sorted] is the contract on top of any sorted map of bytes. Engines on one
// machine differ in the map alone: memstore, pebblestore. storetest is the suite
// that every engine passes, faultstore makes commits go wrong.
//
// Invariants.
//
//   - A batch is visible after a crash as a whole or not at all, and only if no
//     newer epoch existed when it was committed.
//   - Batches of one shard become visible in the order of their numbers, which
//     have no gaps.
//   - What Commit answered with nil survives a crash of the machine.
//   - Reads see committed batches only, and every batch that was committed
//     before the read began.
package persistence
