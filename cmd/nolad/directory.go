package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore"
	"github.com/nolaproject/nola/server/cluster"
)

// directory is a cluster's rows in Cassandra or Scylla. The ID of a process is that
// of its lane. The store beats for the lane; what a node says of itself stands in a
// row beside that one.
type directory struct {
	store *cqlstore.Store
	lease time.Duration

	mu     sync.Mutex // guards the field below
	joined string
}

// memberSuffix marks the rows beside those of lanes.
const memberSuffix = "/member"

// The labels that carry what a row has no column for. Names of users' labels have no
// slash.
const (
	labelPeer    = "nola/peer"
	labelWeight  = "nola/weight"
	labelLeaving = "nola/leaving"
)

// Join opens a lane, and ends the one before.
func (d *directory) Join(ctx context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.joined != "" && d.store.NodeID() == d.joined {
		d.store.Renounce()
	}
	if _, err := d.store.Acquire(ctx, nil); err != nil { // no shard, but a lane
		return "", err
	}
	d.joined = d.store.NodeID()
	return d.joined, nil
}

// Beat writes the row of the node. It fails once the lane is lost, so that the node
// joins anew.
func (d *directory) Beat(ctx context.Context, row cluster.NodeRow) error {
	if d.store.NodeID() != row.ID {
		return errLaneLost
	}
	labels := map[string]string{labelPeer: row.Peer, labelWeight: strconv.Itoa(row.Weight), labelLeaving: strconv.FormatBool(row.Leaving)}
	maps.Copy(labels, row.Labels)
	n := cqlstore.Node{
		ID: row.ID + memberSuffix, Name: row.Name, Address: row.Address, Labels: labels, State: cqlstore.NodeReady,
		Beat: row.Beat, Lease: d.lease, Build: row.Version, Started: row.Started,
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
	var rows []cluster.NodeRow
	for _, n := range list {
		id, ok := strings.CutSuffix(n.ID, memberSuffix)
		if !ok {
			continue
		}
		row := cluster.NodeRow{ID: id, Name: n.Name, Address: n.Address, Peer: n.Labels[labelPeer], Version: n.Build, Started: n.Started, Beat: n.Beat}
		row.Weight, _ = strconv.Atoi(n.Labels[labelWeight]) // one that nobody wrote takes nothing
		row.Leaving = n.Labels[labelLeaving] == "true"
		maps.DeleteFunc(n.Labels, func(name, _ string) bool { return strings.Contains(name, "/") })
		row.Labels = n.Labels
		rows = append(rows, row)
	}
	return rows, nil
}

// Forget deletes the row of a dead node.
func (d *directory) Forget(ctx context.Context, node string) error {
	return d.store.Leave(ctx, node+memberSuffix)
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
			rows[row.Shard] = cluster.ShardRow{Shard: row.Shard, Epoch: row.Epoch, Node: row.Node, HandoffTo: row.HandoffTo}
		}
	}
	return rows, nil
}

// Claim takes a shard over.
func (d *directory) Claim(ctx context.Context, node string, from cluster.ShardRow) (persistence.Head, error) {
	if d.store.NodeID() != node {
		return persistence.Head{}, errLaneLost
	}
	heads, err := d.store.Acquire(ctx, []nola.ShardID{from.Shard})
	var held *cqlstore.HeldError
	switch {
	case errors.As(err, &held):
		return persistence.Head{}, cluster.ErrMoved
	case err != nil:
		return persistence.Head{}, err
	case d.store.NodeID() != node: // it was taken through the next lane: joining finds it
		return persistence.Head{}, errLaneLost
	}
	return heads[0], nil
}

// Release gives a shard away.
func (d *directory) Release(ctx context.Context, shard nola.ShardID, epoch nola.Epoch, to string) error {
	return d.store.Release(ctx, shard, epoch, to)
}
