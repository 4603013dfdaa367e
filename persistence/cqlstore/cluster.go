package cqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/lane"
)

// What the nodes of a cluster tell each other through its tables. The machines
// that decide with it are lane.Keeper and lane.Watcher.

// NodeState says what a node wants of the others. The numbers are storage format.
type NodeState uint8

// The states of a node.
const (
	NodeReady    NodeState = 1 // it takes shards
	NodeDraining NodeState = 2 // it gives its shards away
)

// Node is the row of one process. Its ID is used by no other process, before or
// after it.
type Node struct {
	ID      string
	Name    string // of the place, such as a host; several processes may have it one after another
	Address string
	Zone    string
	Labels  map[string]string
	State   NodeState
	Beat    uint64 // number of its sign of life, from 1
	Lease   time.Duration
	Shards  int
	Load    float64
	Build   string
	Started time.Time
}

// nodeGone is the timestamp with which the row of a node is deleted: above that of
// any beat.
const nodeGone = int64(1) << 53

// Beat writes the row of a node, once: of several the one with the greatest number
// wins. After an error it may have been written, or be written later.
func (s *Store) Beat(ctx context.Context, n Node) error {
	if n.ID == "" || n.Beat == 0 {
		return errNoNode
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	err := s.lanes.exec(ctx, stmtNodeBeat, n.ID, n.Name, n.Address, n.Zone, n.Labels, int(n.State), int64(n.Beat), int(n.Lease/time.Millisecond), n.Shards, n.Load, n.Build, n.Started.UnixMilli(), int64(n.Beat)) //nolint:gosec // beats are few
	if err != nil {
		return describe(stmtNodeBeat, err)
	}
	return nil
}

// Nodes answers the rows of all nodes that gave a sign of life within an hour, or
// did not leave, in no order. It is a quorum read, tried once.
func (s *Store) Nodes(ctx context.Context) (list []Node, err error) {
	began := uptime()
	iter := s.bulk.query(ctx, stmtNodesRead).Iter()
	var n Node
	var state, leaseMS int
	var beat, started int64
	for iter.Scan(&n.ID, &n.Name, &n.Address, &n.Zone, &n.Labels, &state, &beat, &leaseMS, &n.Shards, &n.Load, &n.Build, &started) {
		n.State, n.Beat, n.Lease, n.Started = NodeState(state), uint64(beat), time.Duration(leaseMS)*time.Millisecond, time.UnixMilli(started) //nolint:gosec // what Beat wrote
		list = append(list, n)
		n = Node{}
	}
	if err := iter.Close(); err != nil {
		return nil, describe(stmtNodesRead, err)
	}
	s.watch(began, uptime(), list)
	return list, nil
}

// watch lets the watcher see what was read, so that whoever waits for a lease has
// waited since then.
func (s *Store) watch(began, ended time.Duration, rows []Node) {
	sightings := make([]lane.Sighting, len(rows))
	for i, row := range rows {
		sightings[i] = lane.Sighting{Node: row.ID, Number: row.Beat, Lease: row.Lease}
	}
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	s.watcher.Read(began, ended, sightings)
}

// Renounce ends the lane of this store, as when its lease is over: all its shards
// are fenced, and the next Acquire opens another lane. Others need not wait then.
func (s *Store) Renounce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own
	if own == nil || own.lost || s.closed.Load() {
		return
	}
	s.lose(own)
}

// Leave removes the row of a node that has released its shards.
func (s *Store) Leave(ctx context.Context, id string) error {
	if err := s.lanes.exec(ctx, stmtNodeLeave, nodeGone, id); err != nil {
		return describe(stmtNodeLeave, err)
	}
	return nil
}

// ShardRow says who owns a shard, as far as the tables know.
type ShardRow struct {
	Shard     nola.ShardID
	Epoch     nola.Epoch
	Lane      lane.ID // zero: released
	Node      string  // ID of the owner's process; empty: released
	Address   string
	HandoffTo string // ID of the node that shall have it; empty: any
	Floor     lane.Timestamp
}

// ShardRows answers the rows of all shards, in the order of their numbers. It is a quorum read of
// the whole table; rows may have changed while it was read.
func (s *Store) ShardRows(ctx context.Context) (list []ShardRow, err error) {
	err = again(ctx, func() error {
		list = list[:0]
		iter := s.bulk.query(ctx, stmtShardsRead).Iter()
		var shard int
		var at, floor int64
		var id gocql.UUID
		var row ShardRow
		for iter.Scan(&shard, &at, &id, &row.Node, &row.Address, &row.HandoffTo, &floor) {
			row.Shard, row.Epoch, row.Lane, row.Floor = nola.ShardID(shard), epoch(&at), lane.ID(id), lane.Timestamp(floor) //nolint:gosec // what was written
			list = append(list, row)
			row = ShardRow{}
		}
		return iter.Close()
	})
	if err != nil {
		return nil, describe(stmtShardsRead, err)
	}
	slices.SortFunc(list, func(a, b ShardRow) int { return cmp.Compare(a.Shard, b.Shard) })
	return list, nil
}

func epoch(v *int64) nola.Epoch { return nola.Epoch(deref(v)) } //nolint:gosec // never negative

// NodeID is the id under which this store owns its shards, empty before the first
// Acquire or Join, and from the loss of its lane until it has another.
func (s *Store) NodeID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil || s.own.lost {
		return ""
	}
	return s.own.node
}

// ErrMoved is the answer of Claim if the row of the shard has changed.
var ErrMoved = errors.New("cqlstore: the shard has another owner or epoch than was read")

// Join opens a lane and answers the id of the node under which it claims, which
// nobody has used before. The lane before, if any, ends: what was under way in it
// is decided, and its shards are fenced. With Config.External the caller holds the
// lease of that node from then on, by Beat.
func (s *Store) Join(ctx context.Context) (node string, err error) {
	if err := s.usable(ctx); err != nil {
		return "", err
	}
	s.mu.Lock()
	if own := s.own; own != nil && !own.lost {
		s.lose(own)
	}
	s.mu.Unlock()
	ctx, stop := s.within(ctx)
	defer stop()
	own, err := s.openLane(ctx)
	if err != nil {
		return "", s.acquireError(err)
	}
	return own.node, nil
}

// Claim takes a shard over whose row was read as from, for the node that Join has
// answered. The caller knows that the owner that from names is dead, or is this
// node itself: nobody is waited for. It answers ErrMoved if the row has changed,
// or the lane of this node was lost.
func (s *Store) Claim(ctx context.Context, node string, from ShardRow) (persistence.Head, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.Head{}, err
	}
	if int(from.Shard) >= s.cluster.Shards {
		return persistence.Head{}, fmt.Errorf("cqlstore: claim shard %d: the cluster has %d", from.Shard, s.cluster.Shards)
	}
	ctx, stop := s.within(ctx)
	defer stop()
	s.mu.Lock()
	own := s.own
	ours := own != nil && !own.lost && own.node == node
	s.mu.Unlock()
	if !ours {
		return persistence.Head{}, ErrMoved
	}
	row, found, err := s.shardRow(ctx, from.Shard)
	switch {
	case err != nil:
		return persistence.Head{}, s.acquireError(err)
	case !found || row.Epoch != from.Epoch || row.Lane != from.Lane:
		return persistence.Head{}, ErrMoved
	}
	c := lane.Claim{Shard: from.Shard, Node: node, Lane: own.id, Overdue: true, Row: row}
	switch {
	case row.Lane == own.id:
		var t *tenure
		if t, err = s.adopt(ctx, own, from.Shard, row, nil); t != nil {
			return persistence.Head{Shard: t.shard, Epoch: t.epoch, Seq: t.start}, nil
		}
		if err == nil {
			err = s.giveUp(ctx, own, from.Shard, node)
		}
		if err == nil {
			c.Row, _, err = s.shardRow(ctx, from.Shard)
		}
	case !row.Lane.IsZero():
		var r *recovery
		if r, err = s.recoverOnce(ctx, row.Lane, func() error { return nil }); err == nil {
			c.From, c.Effects = r.ended, r.byShard[from.Shard]
		}
	}
	if err != nil {
		return persistence.Head{}, s.acquireError(err)
	}
	return s.taken(s.claimFrom(ctx, own, c))
}

// taken answers where a shard stands that was taken by t; nil says that it has moved.
func (s *Store) taken(t *tenure, err error) (persistence.Head, error) {
	switch {
	case err != nil:
		return persistence.Head{}, s.acquireError(err)
	case t == nil:
		return persistence.Head{}, ErrMoved
	}
	return persistence.Head{Shard: t.shard, Epoch: t.epoch, Seq: t.start}, nil
}

// Release gives a shard that this store has acquired under that epoch to the node
// of that id, or to any if it is empty. Batches of the shard that are under way end
// first; from then on, also after an error, it is fenced, unless the error says that
// the cluster refuses the release.
func (s *Store) Release(ctx context.Context, shard nola.ShardID, epoch nola.Epoch, to string) error {
	own, ctx, stop, err := s.owning(ctx, shard, epoch)
	if err != nil {
		return err
	}
	defer stop()
	return s.giveUp(ctx, own, shard, to)
}

// owning answers the lane through which this store owns a shard under that epoch, and
// ctx until the store is closed.
func (s *Store) owning(ctx context.Context, shard nola.ShardID, epoch nola.Epoch) (*ownLane, context.Context, func(), error) {
	if err := s.usable(ctx); err != nil {
		return nil, nil, nil, err
	}
	if int(shard) >= s.cluster.Shards {
		return nil, nil, nil, fmt.Errorf("cqlstore: release shard %d: the cluster has %d", shard, s.cluster.Shards)
	}
	s.mu.Lock()
	own := s.own
	t := s.tenure(shard)
	s.mu.Unlock()
	if own == nil || t == nil || t.epoch != epoch {
		return nil, nil, nil, errNotOwned(shard, epoch)
	}
	ctx, stop := s.within(ctx)
	return own, ctx, stop, nil
}

// Successor is a node that a shard is passed to, as it tells of itself: see Lane. What
// was true once will do.
type Successor struct {
	Node    string
	Address string
	Lane    lane.ID
}

// Passed says of a shard that was passed on what its next owner has to know.
type Passed struct {
	Shard nola.ShardID
	Epoch nola.Epoch // 0: it was not
	Lane  lane.ID    // that owns the shard
	Floor lane.Timestamp
	Seq   nola.Seq // of its last batch
	// Buckets are the partitions of its tables, each a table's number and a lower bound;
	// nil: too many to tell, the next owner reads them.
	Buckets [][]byte
}

// Lane answers the lane of this store, and the node under which it claims: all zero
// while it has none.
func (s *Store) Lane() (node string, id lane.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil || s.own.lost {
		return "", id
	}
	return s.own.node, s.own.id
}

// Pass is Release to a node that owns the shard from then on, without a claim of its own.
// Somebody tells it so (TakeUp); otherwise it finds its name in the shard's row, and
// claims what is its own. If it has ended, its shard is taken from it like any other. If
// what is answered has no epoch, the shard belongs to whom its row names.
func (s *Store) Pass(ctx context.Context, shard nola.ShardID, epoch nola.Epoch, to Successor) (Passed, error) {
	if to.Node == "" || to.Lane.IsZero() {
		return Passed{}, fmt.Errorf("cqlstore: pass shard %d: to a node without a lane", shard)
	}
	own, ctx, stop, err := s.owning(ctx, shard, epoch)
	if err != nil {
		return Passed{}, err
	}
	defer stop()
	if to.Lane == own.id {
		return Passed{}, fmt.Errorf("cqlstore: pass shard %d: to the node that has it", shard)
	}
	by := s.sender // as if it claimed
	by.node, by.addr = to.Node, to.Address
	return s.give(ctx, own, shard, by, func(t *tenure) (*lane.Releaser, lane.Output) {
		return own.w.Pass(shard, t.epoch, to.Lane)
	})
}

// TakeUp has this store own a shard that was passed to its lane, as the owner before
// tells, for the node that Join has answered. It answers ErrMoved if that is over, or
// was before: then the row of the shard says more.
func (s *Store) TakeUp(ctx context.Context, node string, p Passed) (persistence.Head, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.Head{}, err
	}
	ctx, stop := s.within(ctx)
	defer stop()
	s.mu.Lock()
	own := s.own
	ours := own != nil && !own.lost && own.node == node && own.id == p.Lane
	s.mu.Unlock()
	if slices.ContainsFunc(p.Buckets, func(b []byte) bool { return len(b) == 0 }) {
		return persistence.Head{}, fmt.Errorf("cqlstore: take shard %d up: what was told of its tables cannot be understood", p.Shard)
	}
	if !ours || p.Epoch == 0 || int(p.Shard) >= s.cluster.Shards {
		return persistence.Head{}, ErrMoved
	}
	// That the row names this lane under that epoch was so once. Only this store gives
	// the shard on from there, and whoever else takes it seals the lane first.
	row := lane.ShardRow{Epoch: p.Epoch, Lane: p.Lane, Floor: p.Floor}
	return s.taken(s.adopt(ctx, own, p.Shard, row, &p))
}

// Flush brings what is committed of a shard that this store has acquired under that
// epoch into the tables, while it is served, so that its Release takes less.
func (s *Store) Flush(ctx context.Context, shard nola.ShardID, epoch nola.Epoch) error {
	s.mu.Lock()
	t := s.tenure(shard)
	s.mu.Unlock()
	if t == nil || t.epoch != epoch {
		return errNotOwned(shard, epoch)
	}
	ctx, stop := s.within(ctx)
	defer stop()
	return s.applyShard(ctx, t)
}

func errNotOwned(shard nola.ShardID, epoch nola.Epoch) error {
	return fmt.Errorf("cqlstore: release shard %d: this store does not own it under epoch %d", shard, epoch)
}
