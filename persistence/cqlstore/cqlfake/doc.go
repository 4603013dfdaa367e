// Package cqlfake is a server for tests that speaks enough of CQL, over the
// native protocol, version 4, for a store to run on it: keyspaces and tables,
// reads of a partition or of a whole table, plain writes with timestamps,
// conditional writes and batches of one partition. It keeps its rows in memory
// and merges writes as Cassandra and ScyllaDB do: cell by cell, the greater
// timestamp wins, and of equal ones a deletion.
//
// What it is for are faults: [Server.Inject] decides for each request what becomes
// of it, such as a write that is executed and answered as timed out, or executed
// long after that. What it does not understand it refuses, as a real server would;
// nothing is passed over in silence.
//
// There is one replica. That a quorum of several is needed, and what differs
// between them, is for tests with real servers.
package cqlfake
