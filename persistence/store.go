package persistence

import (
	"context"
	"errors"
	"io"

	"github.com/nolaproject/nola"
)

// Store is one engine. All methods may be called at once, except Commit.
type Store interface {
	// Cluster answers the facts that were fixed when the store was created.
	Cluster() ClusterInfo

	// Acquire raises the epoch of each shard in one durable step and answers
	// their heads, in the order asked. From then on batches of lower epochs are
	// refused. An error means that none was acquired.
	Acquire(ctx context.Context, shards []nola.ShardID) ([]Head, error)

	// Commit makes the batches durable, each atomic by itself, and answers a
	// verdict for each: nil is done; ErrFenced means never executed, now and for
	// ever; ErrTooLarge is a bug of the caller; any other error means that the
	// outcome is unknown until Resolve says it. One call at a time per store; a
	// shard has at most one batch in a call.
	Commit(batches []*Batch) []error

	// Resolve decides batches whose outcome is unknown: nil is done, ErrFenced
	// never executed. It tries until ctx ends, and answers ctx's error for what
	// is still undecided then.
	Resolve(ctx context.Context, batches []*Batch) []error

	// Pressure says how far the engine is behind, from 0 (idle) to 1 (stop
	// accepting work).
	Pressure() float64

	// Get reads one row. found is false if it does not exist. The value belongs
	// to the caller.
	Get(row Row) (value []byte, found bool, err error)

	// Scan calls fn with the rows of a range in the order of their keys (from
	// the end, in reverse), until fn answers false. The slices are valid during
	// the call only, and fn must not call the store. Keys are given as in Row.Key.
	Scan(r Range, fn func(key, value []byte) bool) error

	// ListActors answers the actors of one namespace whose type is typ (any, if
	// empty) and whose id starts with idPrefix, in the order of type and id,
	// those behind after only (zero: from the start), at most limit.
	ListActors(namespace, typ, idPrefix string, after nola.ActorRef, limit int) ([]nola.ActorRef, error)

	// PutObject stores immutable bytes under their SHA-256 digest. Storing the
	// same again changes nothing.
	PutObject(ctx context.Context, digest [32]byte, data []byte) error
	// GetObject answers the bytes, or ErrNotFound.
	GetObject(ctx context.Context, digest [32]byte) ([]byte, error)
	// DeleteObject forgets the bytes. Deleting what is not there is no error.
	DeleteObject(ctx context.Context, digest [32]byte) error

	// CatalogGet answers the value under key in the space, and its version,
	// which changes with every write; version 0 means that there is none.
	CatalogGet(ctx context.Context, space Space, key string) (value []byte, version uint64, err error)
	// CatalogPut writes the value if the version is still the one given (0: if
	// there is none), durably, and answers the new version; a nil value deletes.
	// It answers ErrConflict if the version has moved on.
	CatalogPut(ctx context.Context, space Space, key string, version uint64, value []byte) (uint64, error)
	// CatalogReserve is CatalogPut of an entry that counts only together with what
	// follows: a crash may lose it, but then everything that was committed or put
	// after CatalogReserve had returned as well. It need not wait for the disk.
	CatalogReserve(ctx context.Context, space Space, key string, version uint64, value []byte) (uint64, error)
	// CatalogList answers entries whose key starts with prefix and lies behind
	// after, in the order of keys, at most limit.
	CatalogList(ctx context.Context, space Space, prefix, after string, limit int) ([]CatalogEntry, error)

	// Close ends the store. No other call may be under way.
	Close() error
}

// Backuper is a Store that can copy itself while it works.
type Backuper interface {
	// Backup writes a consistent copy of everything committed before the call
	// into dir, which must not exist.
	Backup(ctx context.Context, dir string) error
}

// Fencer is a Store in whose place another one may commit.
type Fencer interface {
	// Fence looks into the store whether a shard that this one has acquired may have
	// been taken over by another, and answers ErrFenced then. The look began after
	// the call, and is shared by all who wait. After any other error nothing is known.
	Fence(ctx context.Context) error
}

// Metricser is a Store that tells figures of its own.
type Metricser interface {
	// Metrics writes the engine's figures in the Prometheus text format.
	Metrics(w io.Writer) error
}

// Laner is a Store whose nodes write logs that others see.
type Laner interface {
	// Lanes answers the logs of all nodes, in the order of their ids: those that are
	// written, and those that have ended and are not cleared away. It reads a row for
	// each.
	Lanes(ctx context.Context) ([]LaneInfo, error)
	// Unapplied answers how many entries of this store's own log may not be in the
	// tables; found is false while it has none.
	Unapplied() (lane [16]byte, entries uint64, found bool)
}

// LaneInfo is the log of one process.
type LaneInfo struct {
	ID     [16]byte
	Node   string // ID of its process
	Mode   string
	Sealed bool // nothing can be appended any more
	// Final is the number of the last entry, -1 until that is decided.
	Final int64
}

// The errors of a store.
var (
	ErrFenced   = errors.New("persistence: a newer epoch exists")
	ErrTooLarge = errors.New("persistence: batch is larger than the engine's limit")
	ErrNotFound = errors.New("persistence: not found")
	ErrConflict = errors.New("persistence: the entry was changed meanwhile")
	ErrClosed   = errors.New("persistence: store is closed")
)

// Leased is a Store whose shards another process may take over once the lease of
// this one is over. Who owns shards of it answers nothing out of memory then.
type Leased interface {
	// Held reports whether the lease is held: no other process can have taken a
	// shard that was not released. It takes no lock and asks nobody.
	Held() bool
}

// BatchBytesMax is the size at which a batch must be closed; one turn may pass
// it by its own effects, bounded by nola.TurnBytesMax.
const BatchBytesMax = 4 << 20

// BatchBytesLimit is the size above which every engine answers ErrTooLarge. A
// batch that was closed at BatchBytesMax plus everything one turn may write,
// with its keys and its reply, stays below it.
const BatchBytesLimit = 8 * BatchBytesMax

// ClusterInfo are facts that never change.
type ClusterInfo struct {
	ID     [16]byte
	Shards int
	// Secret keys the random streams of turns.
	Secret [32]byte
}

// Head is where a shard stands.
type Head struct {
	Shard nola.ShardID
	Epoch nola.Epoch
	Seq   nola.Seq // of the last commit, 0 if there was none
}

// Table names a kind of rows. The numbers are storage format.
type Table uint8

// The tables. Rows of the first group belong to an actor and go with it when it
// is deleted; rows of the second belong to an actor and stay; rows of the third
// belong to a shard (Row.Actor is zero).
const (
	TableMeta       Table = 1  // one row, empty key
	TableState      Table = 2  // the actor's own keys
	TableTimer      Table = 3  // name; 4 is not used
	TableSchedule   Table = 5  // reminder flag, id
	TableProgress   Table = 6  // as TableSchedule
	TableOccurrence Table = 7  // schedule's key behind its length (2 bytes), number mod nola.OccurrencesMax (2 bytes)
	TableDeferred   Table = 8  // token (16 bytes)
	TableMemory     Table = 12 // empty: the head; number of a page (4 bytes)

	TableUserKey Table = 16 // SHA-256 of the key, 16 bytes; the empty key counts them

	TableDue     Table = 32 // due time (8 bytes), canonical ref, kind, name
	TableOutcome Table = 33 // invocation id
	TableSession Table = 34 // nested flag, bucket of first attempt (8 bytes), canonical ref, session, seq mod nola.SessionWindow (2 bytes)
	TableOutbox  Table = 35 // receiving shard (4 bytes), number (8 bytes)
	TableInbox   Table = 36 // sending shard (4 bytes)
	TableBacklog Table = 37 // canonical ref, number (8 bytes)
	TableFloors  Table = 38 // one row, empty key
)

// OfActor reports whether rows of t belong to an actor.
func (t Table) OfActor() bool { return t < TableDue }

// GoesWithActor reports whether rows of t are deleted with their actor.
func (t Table) GoesWithActor() bool { return t < TableUserKey }

// Row names a row.
type Row struct {
	Table Table
	Shard nola.ShardID
	Actor nola.ActorRef // zero in the tables of a shard
	Key   []byte
}

// Range names rows of one table of one actor or shard: those with
// From <= key < To; an empty To is unbounded.
type Range struct {
	Table   Table
	Shard   nola.ShardID
	Actor   nola.ActorRef
	From    []byte
	To      []byte
	Reverse bool
}

// Space is a part of the catalogue. The numbers are storage format.
type Space uint8

// The spaces of the catalogue.
const (
	SpaceNamespace Space = 1 // name
	SpaceModule    Space = 2 // namespace NUL name
	SpaceVersion   Space = 3 // namespace NUL name NUL version (8 hex digits)
	SpaceSchedule  Space = 4 // namespace NUL schedule id
	SpaceCalendar  Space = 5 // namespace NUL name
	SpacePlacement Space = 6 // "placement"
)

// CatalogEntry is one entry of a listing.
type CatalogEntry struct {
	Key     string
	Value   []byte
	Version uint64
}
