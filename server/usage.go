package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// usageDefault is how many lines GetUsage answers unless asked for more or fewer.
const usageDefault = 100

// GetUsage tells what turns have cost on this node.
func (c *clusters) GetUsage(_ context.Context, req *connect.Request[nolav1.GetUsageRequest]) (*connect.Response[nolav1.GetUsageResponse], error) {
	shards := c.s.cfg.Shards
	types := shards.TypeUsage()
	if only := req.Msg.GetNamespace(); only != "" {
		if err := nola.ValidateName("namespace", only); err != nil {
			return nil, err
		}
		types = slices.DeleteFunc(types, func(u nola.Usage) bool { return u.Ref.Namespace != only })
	}
	var list []nola.Usage
	switch req.Msg.GetBy() {
	case nolav1.UsageBy_USAGE_BY_NAMESPACE:
		list = byNamespace(types)
	case nolav1.UsageBy_USAGE_BY_ACTOR:
		list = shards.ActorUsage()
		if only := req.Msg.GetNamespace(); only != "" {
			list = slices.DeleteFunc(list, func(u nola.Usage) bool { return u.Ref.Namespace != only })
		}
	default:
		list = slices.Clone(types)
	}
	slices.SortStableFunc(list, func(a, b nola.Usage) int { // they are in the order of names
		switch req.Msg.GetSort() {
		case nolav1.UsageSort_USAGE_SORT_TURNS:
			return cmp.Compare(b.Turns, a.Turns)
		case nolav1.UsageSort_USAGE_SORT_RUN_TIME:
			return cmp.Compare(b.RunTime, a.RunTime)
		default:
			return cmp.Compare(b.Steps, a.Steps)
		}
	})
	out := &nolav1.GetUsageResponse{
		Since: timestamppb.New(shards.UsageSince()), ServerTime: timestamppb.New(c.s.cfg.Now()), NodeId: c.nodeID(),
	}
	if c.s.cfg.Cluster != nil {
		out.NodeId = c.s.cfg.Cluster.ID()
	}
	var total nola.Usage
	for i := range types {
		total = sumOf(total, types[i])
	}
	out.Total = usageMessage(total)
	limit := cmp.Or(int(req.Msg.GetLimit()), usageDefault)
	for _, u := range list[:min(limit, len(list))] {
		out.Usage = append(out.Usage, usageMessage(u))
	}
	return connect.NewResponse(out), nil
}

// byNamespace sums types, which are in the order of their namespaces.
func byNamespace(types []nola.Usage) (list []nola.Usage) {
	for _, u := range types {
		u.Ref.Type = ""
		if n := len(list); n > 0 && list[n-1].Ref == u.Ref {
			list[n-1] = sumOf(list[n-1], u)
			continue
		}
		list = append(list, u)
	}
	return list
}

// sumOf is a with b added to it.
func sumOf(a, b nola.Usage) nola.Usage {
	a.Turns += b.Turns
	a.Steps += b.Steps
	a.RunTime += b.RunTime
	return a
}

func usageMessage(u nola.Usage) *nolav1.Usage {
	return &nolav1.Usage{
		Namespace: u.Ref.Namespace, Type: u.Ref.Type, Id: u.Ref.ID,
		Turns: u.Turns, Steps: u.Steps, StepsError: u.StepsError, RunTime: durationpb.New(u.RunTime),
	}
}
