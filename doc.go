// Package nola says the words of the domain and the treaty between the code
// that runs actors and the code that owns them.
//
// An actor is named by an [ActorRef] and lives in the shard that [ShardOf]
// says. What somebody asks of it is an [Invocation]; running one is a turn; what
// a turn did is its [Effects], a value that is committed as a whole or not at
// all. A [Runtime] turns module bytes into a [Module] and a Module into
// [Instance]s; an Instance runs one turn at a time and asks for everything
// outside its own memory through a [Host].
//
// The package holds no state, starts nothing and imports the standard library
// alone. What is written here as bytes ([ActorRef.AppendCanonical],
// [InvocationID], the hash of [ShardOf]) is storage format: it is fixed by
// golden tests and never changes without a new format version.
package nola
