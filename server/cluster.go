package server

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// formatVersion of the stored data, as clients see it.
const formatVersion = 1

// cluster serves ClusterService for a cluster of one node.
type cluster struct{ s *Server }

// GetCluster shows the facts that were fixed when the cluster was made.
func (c *cluster) GetCluster(context.Context, *connect.Request[nolav1.GetClusterRequest]) (*connect.Response[nolav1.GetClusterResponse], error) {
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
func (c *cluster) AdvanceTime(ctx context.Context, req *connect.Request[nolav1.AdvanceTimeRequest]) (*connect.Response[nolav1.AdvanceTimeResponse], error) {
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

// ListNodes lists this node.
func (c *cluster) ListNodes(_ context.Context, req *connect.Request[nolav1.ListNodesRequest]) (*connect.Response[nolav1.ListNodesResponse], error) {
	if _, err := parseCursor("nodes", req.Msg.GetPageToken(), 1); err != nil {
		return nil, err
	}
	out := &nolav1.ListNodesResponse{}
	if req.Msg.GetPageToken() == "" {
		out.Nodes = []*nolav1.Node{c.node()}
	}
	return connect.NewResponse(out), nil
}

// ListShards lists the shards of this node.
func (c *cluster) ListShards(_ context.Context, req *connect.Request[nolav1.ListShardsRequest]) (*connect.Response[nolav1.ListShardsResponse], error) {
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
	shards := c.s.cfg.Shards.Shards()
	slices.SortFunc(shards, func(a, b nola.ShardInfo) int { return cmp.Compare(a.Shard, b.Shard) })
	start, _ := slices.BinarySearchFunc(shards, from, func(sh nola.ShardInfo, from uint64) int { return cmp.Compare(uint64(sh.Shard), from) })
	shards = shards[start:]
	size := pageSize(req.Msg.GetPageSize())
	out := &nolav1.ListShardsResponse{}
	for _, sh := range shards[:min(size, len(shards))] {
		out.Shards = append(out.Shards, &nolav1.Shard{
			Shard:       uint32(sh.Shard),
			NodeId:      c.nodeID(),
			Epoch:       uint64(sh.Epoch),
			Seq:         uint64(sh.Seq),
			Activations: uint32(sh.Activations),
			Unanswered:  uint32(sh.Unanswered),
			Due:         uint32(sh.Due),
		})
	}
	if len(shards) > size {
		out.NextPageToken = formatCursor("shards", strconv.FormatUint(uint64(shards[size-1].Shard), 10))
	}
	return connect.NewResponse(out), nil
}

// LocateActor tells the shard of an actor and its owner.
func (c *cluster) LocateActor(_ context.Context, req *connect.Request[nolav1.LocateActorRequest]) (*connect.Response[nolav1.LocateActorResponse], error) {
	ref := refOf(req.Msg.GetActor())
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	id := c.s.shardOf(ref)
	out := &nolav1.LocateActorResponse{Shard: uint32(id)}
	for _, sh := range c.s.cfg.Shards.Shards() {
		if sh.Shard == id {
			out.Epoch, out.Node = uint64(sh.Epoch), c.node()
		}
	}
	return connect.NewResponse(out), nil
}

func (c *cluster) node() *nolav1.Node {
	return &nolav1.Node{
		NodeId:  c.nodeID(),
		Address: c.s.cfg.Address,
		Version: c.s.cfg.Version,
		Started: timestamppb.New(c.s.started),
		Shards:  uint32(len(c.s.cfg.Shards.Shards())),
	}
}

// nodeID names the one node of a cluster: the address that clients reach it at,
// which no other process can hold.
func (c *cluster) nodeID() string { return cmp.Or(c.s.cfg.Address, "local") }
