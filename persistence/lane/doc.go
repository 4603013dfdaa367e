// Package lane is the protocol by which processes share a store that has only
// quorum reads, quorum writes and conditional writes (Cassandra, ScyllaDB). It
// is step machines without a clock, a thread or I/O: they say which [Statement]s
// to send, take each [Answer] in, and say what is decided. Engine, simulator and
// model explorer drive the same code.
//
// # The rows
//
// A lane is a log that one process writes, for all its shards, and never another
// one: a [Head], touched by conditional statements alone, and a ring of slots
// that are overwritten in place by plain writes, each with the timestamp of its
// [Entry]. A process has one lane at a time; a lane that is sealed stays sealed,
// and the id of a lane is never used again.
//
// # How state moves
//
// A [Writer] creates its lane and appends entries. Its states:
//
//	opening -> open -> sealed      a read or a condition found the head sealed or gone
//	        |       -> refused     the store will never take an entry: seal the lane oneself
//	        |       -> damaged     somebody else wrote to the lane: stop, alarm
//	        -> abandoned           no definite answer to the creation: take another id
//
// In [ModeQuorum] an entry is a plain write. It is committed when a read of the
// head that started after the acknowledgements of this entry and all before it
// says that the lane is not sealed. In [ModeLWT] entry and head are one
// conditional batch, and its answer commits. A writer that is not open commits
// nothing more by itself: what is undecided is decided by recovering the lane
// (Writer.Settle).
//
// A [Recoverer] finds out where a lane ends, whose writer is dead or has lost it.
// Many may work on one lane, the writer's own process too, and all agree:
//
//	sealing -> reading -> rewriting -> deciding -> ended
//	   |          |                       |  ^
//	inserting  checking               rereading
//
// It seals the lane, then reads the ring, and follows the chain of entries from
// the greatest Applied that any slot says. What is not known to be committed it
// writes again, the same bytes with the same timestamp, so that a quorum has it
// before the end is decided, once for ever, by a conditional write. Who loses
// that one takes the winner's end, and reads the ring again if its own chain is
// shorter. A head that is missing is inserted sealed, without a ring; entries that
// lie beside it are what a store has left of more. A chain that misses an entry
// known to be committed is looked at again, in case the lane was trimmed, and is
// damaged otherwise: nothing is guessed.
//
// A [Claimer] takes one shard over, from a lane that was recovered or from nobody:
//
//	reading -> applying -> claiming -> owned
//	   ^                      |   |
//	   +----------------------+   +-> lost
//
// It applies what the dead lane has committed for the shard in its present epoch,
// and then raises the epoch and names its own lane, if the row still says what it
// said. A [Releaser] gives one shard of a living lane away, after all its entries
// were applied: to nobody, or to another lane, for which it makes the claim. It is told
// by nobody whether that lane is still open, and need not know: a lane that has ended
// committed nothing for the shard in its new epoch, trimmed or not, and is recovered like
// any other before the shard is taken from it.
//
// A [Keeper] holds the lease of its node by beats, and a [Watcher] tells whose
// lease is over. The lease decides when others may seal a lane, and how long
// memory may answer reads; no commit rests on it. Each side reads its own clock
// alone, one that goes on while the machine sleeps (CLOCK_BOOTTIME), and each must
// be right in its rate only, to within 5 %.
//
//	starting -> held -> lapsed
//	    +-----------------^
//
// # Invariants
//
//   - The bytes and the timestamp of an entry never change once they were sent;
//     it is sent again until its fate is definite.
//   - Entries are committed in order, and an entry that was reported committed
//     lies at or below the final number of its lane.
//   - Entry n says that everything up to n minus the ring's size was applied, so
//     no entry is overwritten before its effects are in the tables.
//   - The end of a lane is decided once, after it was sealed and every entry up to
//     it is at a quorum. Entries beyond it do not exist.
//   - The entries that a recoverer answers are all from the first that may not be
//     applied up to the end.
//   - A shard is taken from a lane only after that lane was recovered and what it
//     had committed for the shard is in the tables, or from nobody, or out of the hand
//     of its owner, after that had applied everything. Each claim raises the epoch.
//   - A shard is served only by the process whose lane its row has named, each epoch
//     once.
//   - The row of a shard carries a floor above which its new owner writes: the end
//     of the lane it came from, or the clock of the owner that gave it away.
//   - When a watcher says that a node is dead, the lease of its keeper is over, and
//     a lease that is over never comes back.
//   - Every operation has a timestamp of its own, above all before it in the lane
//     and above the floor of its shard, so that effects may be applied by anybody,
//     any number of times.
//
// The tests hold the machines against them in models of the store, exhaustively
// within bounds (wider ones with -wide) and on random ways (-deep, -seed), and
// break each rule of the protocol once to see what it is for.
package lane
