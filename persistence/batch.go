package persistence

import "github.com/nolaproject/nola"

// OpKind is what an Op does.
type OpKind uint8

// The kinds of operations.
const (
	OpPut         OpKind = iota + 1 // Value becomes the row's value
	OpDelete                        // the row goes
	OpDeleteRange                   // rows with Key <= key < Value go, in this table of this actor or shard; an empty Value is unbounded
	OpDeleteActor                   // all rows that go with their actor, and its listing
	OpList                          // the actor appears in listings
)

// Op is one change of a batch, as engines see it.
type Op struct {
	Kind  OpKind
	Table Table
	Actor nola.ActorRef // zero in the tables of a shard
	Key   []byte
	Value []byte
}

// Batch is what a shard commits in one step: the effects of one or more turns,
// in order. A later operation on a row wins over an earlier one. A Batch is
// used by one goroutine at a time.
type Batch struct {
	Shard nola.ShardID
	Epoch nola.Epoch
	// Seq is the number this commit takes; the store checks that it follows the
	// last one.
	Seq nola.Seq

	ops   []Op
	bytes int
	// arena holds the keys and values of typed writes, one behind the other. When
	// it moves, those written before stay where they are.
	arena []byte
	cutAt int // where the next key or value starts
}

// The room that an empty batch keeps for its next use.
const (
	arenaKeptMax = 256 << 10 // bytes
	opsKeptMax   = 4096      // operations
)

// Reset empties b for reuse under a new head. What Ops answered before is
// overwritten from then on.
func (b *Batch) Reset(shard nola.ShardID, epoch nola.Epoch, seq nola.Seq) {
	b.Shard, b.Epoch, b.Seq = shard, epoch, seq
	clear(b.ops)
	b.ops, b.bytes = b.ops[:0], 0
	if cap(b.ops) > opsKeptMax {
		b.ops = nil
	}
	b.arena, b.cutAt = b.arena[:0], 0
	if cap(b.arena) > arenaKeptMax {
		b.arena = nil
	}
}

// Ops are the operations so far, in order.
func (b *Batch) Ops() []Op { return b.ops }

// Len is the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Bytes is about what the operations take in the store.
func (b *Batch) Bytes() int { return b.bytes }

const opOverheadBytes = 32 // of an operation beside its key and value, for Bytes

// Add appends an operation. The batch keeps the slices.
func (b *Batch) Add(op Op) {
	b.ops = append(b.ops, op)
	b.bytes += len(op.Key) + len(op.Value) + len(op.Actor.Namespace) + len(op.Actor.Type) + len(op.Actor.ID) + opOverheadBytes
}
