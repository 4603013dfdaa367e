package server

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/server/cluster"
)

// formatVersion of the stored data, as clients see it.
const formatVersion = 1

// clusters serves ClusterService.
type clusters struct{ s *Server }

// GetCluster shows the facts that were fixed when the cluster was made.
func (c *clusters) GetCluster(context.Context, *connect.Request[nolav1.GetClusterRequest]) (*connect.Response[nolav1.GetClusterResponse], error) {
	info := c.s.cfg.Store.Cluster()
	return connect.NewResponse(&nolav1.GetClusterResponse{
		Cluster: &nolav1.Cluster{
			ClusterId:     hex.EncodeToString(info.ID[:]),
			NumShards:     uint32(info.Shards),
			FormatVersion: formatVersion,
			Store:         c.s.cfg.StoreName,
		},
		ServerTime:  timestamppb.New(c.s.cfg.Now()),
		VirtualTime: c.s.cfg.VirtualTime,
	}), nil
}

// advanceAtOnce bounds how long one request moves time.
const advanceAtOnce = 5 * time.Second

// AdvanceTime moves virtual time.
func (c *clusters) AdvanceTime(ctx context.Context, req *connect.Request[nolav1.AdvanceTimeRequest]) (*connect.Response[nolav1.AdvanceTimeResponse], error) {
	to := timeOf(req.Msg.GetTo())
	if by := req.Msg.GetBy(); by != nil {
		to = c.s.cfg.Now().Add(by.AsDuration())
	}
	ctx, cancel := context.WithTimeout(ctx, advanceAtOnce)
	defer cancel()
	at, err := c.s.cfg.Shards.Advance(ctx, to)
	if err != nil && !hasReason(err, nola.ReasonDeadlineExceeded) {
		return nil, err
	}
	return connect.NewResponse(&nolav1.AdvanceTimeResponse{
		ServerTime: timestamppb.New(at), TargetTime: timestamppb.New(to), Reached: err == nil,
	}), nil
}

// ListNodes lists the nodes that live.
func (c *clusters) ListNodes(_ context.Context, req *connect.Request[nolav1.ListNodesRequest]) (*connect.Response[nolav1.ListNodesResponse], error) {
	after, err := parseCursor("nodes", req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	nodes := c.nodes()
	if after != nil {
		nodes = slices.DeleteFunc(nodes, func(n *nolav1.Node) bool { return n.GetName() <= after[0] })
	}
	size := pageSize(req.Msg.GetPageSize())
	out := &nolav1.ListNodesResponse{Nodes: nodes[:min(size, len(nodes))]}
	if len(nodes) > size {
		out.NextPageToken = formatCursor("nodes", nodes[size-1].GetName())
	}
	return connect.NewResponse(out), nil
}

// nodes are those that live, in the order of their names.
func (c *clusters) nodes() []*nolav1.Node {
	if c.s.cfg.Cluster == nil {
		return []*nolav1.Node{{
			NodeId: c.nodeID(), Name: c.nodeID(), Address: c.s.cfg.Address, Version: c.s.cfg.Version, Started: timestamppb.New(c.s.started),
			Shards: uint32(len(c.s.cfg.Shards.Shards())), State: nolav1.NodeState_NODE_STATE_READY, Weight: cluster.WeightDefault,
		}}
	}
	var list []*nolav1.Node
	for _, n := range c.s.cfg.Cluster.Status().Nodes {
		list = append(list, nodeMessage(n))
	}
	return list
}

func nodeMessage(n cluster.NodeStatus) *nolav1.Node {
	m := &nolav1.Node{
		NodeId: n.ID, Name: n.Name, Address: n.Address, Version: n.Version, Started: timestamppb.New(n.Started),
		Shards: uint32(n.Shards), State: nolav1.NodeState_NODE_STATE_READY, Weight: uint32(n.Weight), Labels: n.Labels,
	}
	switch {
	case n.Leaving:
		m.State = nolav1.NodeState_NODE_STATE_LEAVING
	case n.Weight == 0:
		m.State = nolav1.NodeState_NODE_STATE_DRAINING
	}
	m.Load, m.Barred = n.Work.Load, n.Barred
	return m
}

// DrainNode has a node give its shards away.
func (c *clusters) DrainNode(ctx context.Context, req *connect.Request[nolav1.DrainNodeRequest]) (*connect.Response[nolav1.DrainNodeResponse], error) {
	if c.s.cfg.Cluster == nil {
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "this server is alone: there is no node that could take its shards; end it with SIGTERM, which finishes what was admitted")
	}
	n, err := c.s.cfg.Cluster.Drain(ctx, req.Msg.GetNode(), req.Msg.GetUndo())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.DrainNodeResponse{Node: nodeMessage(n)}), nil
}

// ListLanes lists the logs of the nodes.
func (c *clusters) ListLanes(ctx context.Context, _ *connect.Request[nolav1.ListLanesRequest]) (*connect.Response[nolav1.ListLanesResponse], error) {
	out := &nolav1.ListLanesResponse{}
	store, ok := c.s.cfg.Store.(persistence.Laner)
	if !ok {
		return connect.NewResponse(out), nil
	}
	lanes, err := store.Lanes(ctx)
	if err != nil {
		return nil, err
	}
	unapplied := map[[16]byte]uint64{}
	if c.s.cfg.Cluster != nil {
		ctx, cancel := context.WithTimeout(ctx, shardsTimeout)
		defer cancel()
		unapplied = c.s.cfg.Cluster.Unapplied(ctx)
	} else if id, n, found := store.Unapplied(); found {
		unapplied[id] = n
	}
	for _, l := range lanes {
		m := &nolav1.Lane{LaneId: hex.EncodeToString(l.ID[:]), NodeId: l.Node, Mode: l.Mode, Sealed: l.Sealed}
		if l.Final >= 0 {
			m.FinalSeq = proto.Uint64(uint64(l.Final))
		}
		if n, found := unapplied[l.ID]; found {
			m.Unapplied = proto.Uint64(n)
		}
		out.Lanes = append(out.Lanes, m)
	}
	return connect.NewResponse(out), nil
}

// errAlone refuses what needs other nodes.
func errAlone() error {
	return nola.Errorf(nola.ReasonInvalidArgument, "this server is alone: rules of placement are for the nodes of a cluster")
}

// ListPlacementRules lists the rules of placement.
func (c *clusters) ListPlacementRules(ctx context.Context, _ *connect.Request[nolav1.ListPlacementRulesRequest]) (*connect.Response[nolav1.ListPlacementRulesResponse], error) {
	if c.s.cfg.Cluster == nil {
		return nil, errAlone()
	}
	rules, err := c.s.cfg.Cluster.Rules(ctx)
	if err != nil {
		return nil, err
	}
	out := &nolav1.ListPlacementRulesResponse{}
	for _, r := range rules {
		out.Rules = append(out.Rules, &nolav1.PlacementRule{Namespace: r.Namespace, Type: r.Type, Require: r.Require, Prefer: r.Prefer, Avoid: r.Avoid})
	}
	return connect.NewResponse(out), nil
}

// SetPlacementRule sets the rule of a namespace or type.
func (c *clusters) SetPlacementRule(ctx context.Context, req *connect.Request[nolav1.SetPlacementRuleRequest]) (*connect.Response[nolav1.SetPlacementRuleResponse], error) {
	if c.s.cfg.Cluster == nil {
		return nil, errAlone()
	}
	r := req.Msg.GetRule()
	err := c.s.cfg.Cluster.SetRule(ctx, persistence.PlacementRule{Namespace: r.GetNamespace(), Type: r.GetType(), Require: r.GetRequire(), Prefer: r.GetPrefer(), Avoid: r.GetAvoid()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.SetPlacementRuleResponse{}), nil
}

// DeletePlacementRule deletes the rule of a namespace or type.
func (c *clusters) DeletePlacementRule(ctx context.Context, req *connect.Request[nolav1.DeletePlacementRuleRequest]) (*connect.Response[nolav1.DeletePlacementRuleResponse], error) {
	if c.s.cfg.Cluster == nil {
		return nil, errAlone()
	}
	if err := c.s.cfg.Cluster.DeleteRule(ctx, req.Msg.GetNamespace(), req.Msg.GetType()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.DeletePlacementRuleResponse{}), nil
}

// ListShards lists all shards, with the work of those whose nodes answer.
func (c *clusters) ListShards(ctx context.Context, req *connect.Request[nolav1.ListShardsRequest]) (*connect.Response[nolav1.ListShardsResponse], error) {
	after, err := parseCursor("shards", req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	from := uint64(0)
	if after != nil {
		last, err := strconv.ParseUint(after[0], 10, 32)
		if err != nil {
			return nil, errPageToken()
		}
		from = last + 1
	}
	shards := c.shards(ctx)
	start, _ := slices.BinarySearchFunc(shards, from, func(sh *nolav1.Shard, from uint64) int { return cmp.Compare(uint64(sh.GetShard()), from) })
	shards = shards[start:]
	size := pageSize(req.Msg.GetPageSize())
	out := &nolav1.ListShardsResponse{Shards: shards[:min(size, len(shards))]}
	if len(shards) > size {
		out.NextPageToken = formatCursor("shards", strconv.FormatUint(uint64(shards[size-1].GetShard()), 10))
	}
	return connect.NewResponse(out), nil
}

// shardsTimeout is how long nodes may take to tell of their shards.
const shardsTimeout = 2 * time.Second

func (c *clusters) shards(ctx context.Context) []*nolav1.Shard {
	work := map[nola.ShardID]nola.ShardInfo{}
	var list []*nolav1.Shard
	if c.s.cfg.Cluster == nil {
		for _, sh := range c.s.cfg.Shards.Shards() {
			work[sh.Shard] = sh
			list = append(list, &nolav1.Shard{Shard: uint32(sh.Shard), NodeId: c.nodeID(), Epoch: uint64(sh.Epoch), DesiredNodeId: c.nodeID()})
		}
	} else {
		ctx, cancel := context.WithTimeout(ctx, shardsTimeout)
		defer cancel()
		work = c.s.cfg.Cluster.AllShards(ctx)
		status := c.s.cfg.Cluster.Status()
		for i, row := range status.Shards {
			list = append(list, &nolav1.Shard{Shard: uint32(row.Shard), NodeId: row.Node, Epoch: uint64(row.Epoch), DesiredNodeId: status.Desired[i]})
		}
		for _, m := range status.Moves {
			list[m.Shard].DesiredNodeId, list[m.Shard].MoveReason = m.To, m.Why
		}
		for _, n := range status.Nodes {
			for _, s := range n.Work.Heavy {
				if int(s.Shard) < len(list) && list[s.Shard].NodeId == n.ID {
					list[s.Shard].Cost = s.Cost
				}
			}
		}
	}
	for _, sh := range list {
		w := work[nola.ShardID(sh.GetShard())]
		sh.Seq, sh.Activations, sh.Unanswered, sh.Due = uint64(w.Seq), uint32(w.Activations), uint32(w.Unanswered), uint32(w.Due)
	}
	slices.SortFunc(list, func(a, b *nolav1.Shard) int { return cmp.Compare(a.GetShard(), b.GetShard()) })
	return list
}

// LocateActor tells the shard of an actor and its owner.
func (c *clusters) LocateActor(_ context.Context, req *connect.Request[nolav1.LocateActorRequest]) (*connect.Response[nolav1.LocateActorResponse], error) {
	ref := refOf(req.Msg.GetActor())
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	id := c.s.shardOf(ref)
	out := &nolav1.LocateActorResponse{Shard: uint32(id)}
	owner := c.nodeID()
	if c.s.cfg.Cluster == nil {
		for _, sh := range c.s.cfg.Shards.Shards() {
			if sh.Shard == id {
				out.Epoch = uint64(sh.Epoch)
			}
		}
	} else if shards := c.s.cfg.Cluster.Status().Shards; int(id) < len(shards) {
		out.Epoch, owner = uint64(shards[id].Epoch), shards[id].Node
	}
	for _, n := range c.nodes() {
		if n.GetNodeId() == owner {
			out.Node = n
		}
	}
	return connect.NewResponse(out), nil
}

// nodeID names the one node of a server that is alone: the address that clients
// reach it at, which no other process can hold.
func (c *clusters) nodeID() string { return cmp.Or(c.s.cfg.Address, "local") }
