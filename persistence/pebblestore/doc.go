// Package pebblestore is the engine on a local directory, with Pebble as its
// sorted map: what a single server uses unless told otherwise.
//
// # The directory
//
//	NOLA-STORE  says that the directory is ours, in which format, and whether its creation was finished
//	LOCK        held by the process that has the directory open
//	db/         Pebble's files; the keys in it are described at persistence.Sorted
//
// One Commit is one Pebble batch, synced, for all shards in it: the write-ahead
// log is the only log, and the shards' heads are in the same batch.
//
// A directory on a network file system is not safe: its locks are not.
//
// # When the disk fails
//
// After a write or sync of the log has failed, nobody knows what the disk holds,
// and a second attempt may lie. So the process ends (Options.Fatal) and finds
// out when it starts again. The same holds for a full disk. What Commit has
// answered with nil is on disk at that time, what it has not answered may be.
package pebblestore
