package cluster

import (
	"context"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// WeightMax is the greatest weight of a node, and WeightDefault that of one that
// was not told.
const (
	WeightMax     = 1000
	WeightDefault = 100
)

// NodeRow is what a node says of itself with each beat.
type NodeRow struct {
	// ID names one process, from its first beat to the end of its lease. It is made
	// afresh for each.
	ID string
	// Name is the machine's, the same after a restart; no two nodes share one.
	Name string
	// Address is where clients reach the node, Peer where other nodes do.
	Address string
	Peer    string
	Version string
	// Weight is the node's share of the shards, in proportion to the others' weights:
	// 0 to WeightMax. A node of weight 0 gives its shards away.
	Weight int
	// Leaving says that the node is about to end: it takes nothing.
	Leaving bool
	Labels  map[string]string
	// Rules is the version of the placement that the node goes by.
	Rules uint64
	// Work is what the node's shards cost.
	Work    Work
	Started time.Time
	// Beat numbers the beats of the ID, from 1.
	Beat uint64
	// Lease is how long a beat keeps the node's shards; others wait for as long.
	Lease time.Duration
}

// ShardRow says who owns a shard. Epochs only increase.
type ShardRow struct {
	Shard nola.ShardID
	Epoch nola.Epoch // 0: nobody ever owned it
	Node  string     // ID of the owner; empty: released
	// HandoffTo is the ID of the node that shall have a released shard; empty: any.
	HandoffTo string
}

// Directory is what the nodes of a cluster know of each other: rows in the store
// that they share. Its methods may be called at once. After an error the outcome
// is unknown.
type Directory interface {
	// Join makes the ID of a process, never used before, under which this node beats
	// and claims from now on. The one before, if any, is over.
	Join(ctx context.Context) (node string, err error)
	// Beat writes the row of this node. Of several the greatest Beat wins.
	Beat(ctx context.Context, row NodeRow) error
	// Nodes reads the rows of all nodes, with every beat that was acknowledged
	// before the call.
	Nodes(ctx context.Context) ([]NodeRow, error)
	// Forget deletes the row of a node that is dead and owns nothing.
	Forget(ctx context.Context, node string) error
	// Shards reads the rows of all shards, in the order of their numbers.
	Shards(ctx context.Context) ([]ShardRow, error)
	// Claim makes node, which Join has answered, the owner of the shard under a
	// higher epoch, if its row is still from, and answers where the shard stands: what its owner before has
	// committed is in the store. The owner that from names is dead, or node itself; if it
	// names none, the row need not have been read before.
	// It answers ErrMoved if the row has changed.
	Claim(ctx context.Context, node string, from ShardRow) (persistence.Head, error)
	// Flush makes the Release of a shard short that this node serves under that epoch.
	Flush(ctx context.Context, shard nola.ShardID, epoch nola.Epoch) error
	// Release gives a shard away that this node owns under that epoch, and has stopped to
	// serve; to is the node that shall have it, or empty. Either nobody owns it then, or,
	// by the same write, that node does: see Passed.
	Release(ctx context.Context, shard nola.ShardID, epoch nola.Epoch, to string) (Passed, error)
	// TakeUp answers where a shard stands of which node, which Join has answered, was made
	// the owner by the one before, who has sent this word. It answers ErrMoved if that is
	// over, or the word was taken up before. A node that gets no word finds itself in the
	// shard's row, and claims it.
	TakeUp(ctx context.Context, node string, shard nola.ShardID, word []byte) (persistence.Head, error)
}

// Passed tells of a shard that was given away how its next owner comes to it.
type Passed struct {
	Epoch nola.Epoch // under which that owns it already; 0: it has to claim it
	Word  []byte     // for its TakeUp
}
