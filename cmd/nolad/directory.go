package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/persistence/lane"
	"github.com/nolaproject/nola/server/cluster"
)

// directory is a cluster's rows in Cassandra or Scylla. The ID of a process is that
// of its lane, and the beats of the node are what keeps others from its lane: the
// store gives no sign of life of its own (cqlstore.Config.External).
type directory struct {
	store *cqlstore.Store

	mu   sync.Mutex          // guards the fields below
	rows []cqlstore.ShardRow // as last read
	// heirs are the nodes, by ID, that tell their lane: what is passed to it they take
	// up. Those of an older release do not tell it, and claim what is released for them.
	heirs map[string]cqlstore.Successor
}

// The labels that carry what a row has no column for. Names of users' labels have no
// slash.
const (
	labelPeer    = "nola/peer"
	labelWeight  = "nola/weight"
	labelLeaving = "nola/leaving"
	labelRules   = "nola/rules"
	labelWork    = "nola/work"
	labelLane    = "nola/lane"
)

// Join opens a lane, and ends the one before.
func (d *directory) Join(ctx context.Context) (string, error) {
	return d.store.Join(ctx)
}

// Beat writes the row of the node. It fails once the lane is lost, so that the node
// joins anew.
func (d *directory) Beat(ctx context.Context, row cluster.NodeRow) error {
	node, own := d.store.Lane()
	if node != row.ID {
		return errLaneLost
	}
	work, err := json.Marshal(row.Work)
	if err != nil {
		return fmt.Errorf("write the load of this node: %w", err)
	}
	labels := map[string]string{
		labelPeer: row.Peer, labelWeight: strconv.Itoa(row.Weight), labelLeaving: strconv.FormatBool(row.Leaving),
		labelRules: strconv.FormatUint(row.Rules, 10), labelWork: string(work), labelLane: hex.EncodeToString(own[:]),
	}
	maps.Copy(labels, row.Labels)
	n := cqlstore.Node{
		ID: row.ID, Name: row.Name, Address: row.Address, Labels: labels, State: cqlstore.NodeReady,
		Beat: row.Beat, Lease: row.Lease, Load: float64(row.Work.Load), Build: row.Version, Started: row.Started,
	}
	if row.Weight == 0 || row.Leaving {
		n.State = cqlstore.NodeDraining
	}
	return d.store.Beat(ctx, n)
}

var errLaneLost = errors.New("the lane of this node is lost")

// Nodes reads what all nodes say of themselves.
func (d *directory) Nodes(ctx context.Context) ([]cluster.NodeRow, error) {
	list, err := d.store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]cluster.NodeRow, 0, len(list))
	heirs := map[string]cqlstore.Successor{}
	for _, n := range list {
		heir := cqlstore.Successor{Node: n.ID, Address: n.Address}
		if id, err := hex.DecodeString(n.Labels[labelLane]); err == nil && len(id) == len(heir.Lane) {
			heir.Lane = [16]byte(id)
			heirs[n.ID] = heir
		}
		row := cluster.NodeRow{ID: n.ID, Name: n.Name, Address: n.Address, Peer: n.Labels[labelPeer], Version: n.Build, Started: n.Started, Beat: n.Beat, Lease: n.Lease}
		row.Weight, _ = strconv.Atoi(n.Labels[labelWeight]) // one that nobody wrote takes nothing
		row.Leaving = n.Labels[labelLeaving] == "true" || row.Peer == ""
		row.Rules, _ = strconv.ParseUint(n.Labels[labelRules], 10, 64)
		if err := json.Unmarshal([]byte(n.Labels[labelWork]), &row.Work); err != nil {
			row.Work = cluster.Work{} // of another release: it takes no part in moves because of load
		}
		maps.DeleteFunc(n.Labels, func(name, _ string) bool { return strings.Contains(name, "/") })
		row.Labels = n.Labels
		rows = append(rows, row)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heirs = heirs
	return rows, nil
}

// Forget deletes the row of a dead node, and clears lanes away that nobody needs.
func (d *directory) Forget(ctx context.Context, node string) error {
	if err := d.store.Leave(ctx, node); err != nil {
		return err
	}
	return d.store.Tidy(ctx)
}

// Shards reads the rows of all shards.
func (d *directory) Shards(ctx context.Context) ([]cluster.ShardRow, error) {
	list, err := d.store.ShardRows(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]cluster.ShardRow, d.store.Cluster().Shards)
	if len(list) != len(rows) {
		return nil, fmt.Errorf("%d shards have rows, the cluster has %d; run `nolad schema setup` again", len(list), len(rows))
	}
	for _, row := range list {
		if int(row.Shard) < len(rows) {
			rows[row.Shard] = shardRow(row)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = list
	return rows, nil
}

func shardRow(row cqlstore.ShardRow) cluster.ShardRow {
	return cluster.ShardRow{Shard: row.Shard, Epoch: row.Epoch, Node: row.Node, HandoffTo: row.HandoffTo}
}

// Claim takes a shard over. The row of one that has an owner names a lane, which the
// planner does not know: it is that of the last read, if nothing has changed.
func (d *directory) Claim(ctx context.Context, node string, from cluster.ShardRow) (persistence.Head, error) {
	row := cqlstore.ShardRow{Shard: from.Shard, Epoch: from.Epoch}
	if from.Node != "" {
		row = d.row(from.Shard)
		if shardRow(row) != from {
			return persistence.Head{}, cluster.ErrMoved
		}
	}
	head, err := d.store.Claim(ctx, node, row)
	if errors.Is(err, cqlstore.ErrMoved) {
		err = cluster.ErrMoved
	}
	return head, err
}

// row answers the row of a shard as last read.
func (d *directory) row(id nola.ShardID) cqlstore.ShardRow {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.rows {
		if r.Shard == id {
			return r
		}
	}
	return cqlstore.ShardRow{}
}

// Flush has less to do left for Release.
func (d *directory) Flush(ctx context.Context, shard nola.ShardID, epoch nola.Epoch) error {
	return d.store.Flush(ctx, shard, epoch)
}

// Release gives a shard away: at once to a node that tells its lane.
func (d *directory) Release(ctx context.Context, shard nola.ShardID, epoch nola.Epoch, to string) (cluster.Passed, error) {
	d.mu.Lock()
	heir, tells := d.heirs[to]
	d.mu.Unlock()
	if !tells {
		return cluster.Passed{}, d.store.Release(ctx, shard, epoch, to)
	}
	p, err := d.store.Pass(ctx, shard, epoch, heir)
	if err != nil || p.Epoch == 0 {
		return cluster.Passed{}, err
	}
	data, err := json.Marshal(word{hex.EncodeToString(p.Lane[:]), p.Epoch, p.Floor, p.Seq, p.Buckets})
	if err != nil {
		return cluster.Passed{}, fmt.Errorf("write what the next owner of shard %d has to know: %w", shard, err)
	}
	return cluster.Passed{Epoch: p.Epoch, Word: data}, nil
}

// word is what a node is told of a shard that was passed to it.
type word struct {
	Lane  string         `json:"lane"`
	Epoch nola.Epoch     `json:"epoch"`
	Floor lane.Timestamp `json:"floor"`
	Seq   nola.Seq       `json:"seq"`
	// Buckets is null if the next owner has to read them.
	Buckets [][]byte `json:"buckets"`
}

// TakeUp takes up a shard that was passed to this node.
func (d *directory) TakeUp(ctx context.Context, node string, shard nola.ShardID, data []byte) (persistence.Head, error) {
	var w word
	if err := json.Unmarshal(data, &w); err != nil {
		return persistence.Head{}, fmt.Errorf("what the owner of shard %d before this one has sent: %w", shard, err)
	}
	p := cqlstore.Passed{Shard: shard, Epoch: w.Epoch, Floor: w.Floor, Seq: w.Seq, Buckets: w.Buckets}
	id, err := hex.DecodeString(w.Lane)
	if err != nil || len(id) != len(p.Lane) {
		return persistence.Head{}, fmt.Errorf("what the owner of shard %d before this one has sent names no lane: %q", shard, w.Lane)
	}
	p.Lane = lane.ID(id)
	head, err := d.store.TakeUp(ctx, node, p)
	if errors.Is(err, cqlstore.ErrMoved) {
		err = cluster.ErrMoved
	}
	return head, err
}
