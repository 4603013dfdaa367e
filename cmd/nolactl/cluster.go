package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) nodeCommand() *cobra.Command {
	cmd := c.group("node", "See the nodes of the cluster, and drain one", `A node is one process of the cluster.`,
		`nolactl node list
nolactl node drain nola-1`)
	var limit int
	list := leaf("list", "List the nodes of the cluster", `List the processes that make up the cluster.`,
		`nolactl node list
nolactl node list -o name`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Node]{
				what: "nodes",
				head: []string{"NODE", "STATE", "SHARDS", "WEIGHT", "ADDRESS", "VERSION", "STARTED"},
				row: func(n *nolav1.Node) []string {
					return []string{nodeName(n), nodeState(n), fmt.Sprint(n.Shards), fmt.Sprint(n.Weight), n.Address, n.Version, c.when(n.Started)}
				},
				name: nodeName,
				wrap: func(all []*nolav1.Node) proto.Message { return &nolav1.ListNodesResponse{Nodes: all} },
				fetch: func(size int32, token string) ([]*nolav1.Node, string, error) {
					req := &nolav1.ListNodesRequest{PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListNodes, req)
					return res.GetNodes(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	list.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.AddCommand(list, c.drainCommand())
	return cmd
}

// nodeName is the name of a node; servers of older releases have none.
func nodeName(n *nolav1.Node) string { return cmp.Or(n.Name, n.NodeId) }

func nodeState(n *nolav1.Node) string {
	return strings.ToLower(strings.TrimPrefix(n.State.String(), "NODE_STATE_"))
}

// drainPoll is how often the progress of a drain is looked at.
const drainPoll = 500 * time.Millisecond

func (c *cli) drainCommand() *cobra.Command {
	var undo, noWait bool
	cmd := leaf("drain NODE", "Have a node give its shards to the others",
		`Have a node give its shards to the others, a few at a time, and take none any more.
It goes on to serve clients, whose calls it passes on. The command waits until the
node has no shard left; --undo has it take part again. The node forgets it when it
restarts. SIGTERM does the same before it ends the process.`,
		`nolactl node drain nola-1
nolactl node drain nola-1 --undo`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Cluster.DrainNode, &nolav1.DrainNodeRequest{Node: args[0], Undo: undo})
			if err != nil {
				return err
			}
			if undo || noWait {
				return c.show(res, nodeName(res.Node), func() error {
					c.note("%s is told; `nolactl node list` shows how far it is", nodeName(res.Node))
					return nil
				})
			}
			return c.awaitDrain(cmd.Context(), r, res)
		})
	cmd.Args = cobra.ExactArgs(1)
	cmd.Flags().BoolVar(&undo, "undo", false, "have the node take shards again")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it has no shard left")
	return cmd
}

// awaitDrain waits until the node has no shard left.
func (c *cli) awaitDrain(ctx context.Context, r *client.Client, res *nolav1.DrainNodeResponse) error {
	left := uint32(math.MaxUint32)
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		list, err := ask(ctx, c.timeout, r.Cluster.ListNodes, &nolav1.ListNodesRequest{PageSize: 1000})
		if err != nil {
			return err
		}
		at := slices.IndexFunc(list.Nodes, func(n *nolav1.Node) bool { return n.NodeId == res.Node.NodeId })
		if at < 0 || list.Nodes[at].Shards == 0 {
			return c.show(res, nodeName(res.Node), func() error {
				c.note("%s serves no shard any more", nodeName(res.Node))
				return nil
			})
		}
		if n := list.Nodes[at].Shards; n != left {
			left = n
			c.note("%s has %d shards left", nodeName(res.Node), n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *cli) shardCommand() *cobra.Command {
	cmd := c.group("shard", "See the shards and who owns them",
		`Actors are spread over a fixed number of shards. A node owns a shard for one epoch.`,
		`nolactl shard list
nolactl shard plan --dry-run`)
	var limit int
	list := leaf("list", "List the shards with their owners", `List the shards in the order of their numbers.`,
		`nolactl shard list
nolactl shard list --limit 8 -o jsonl`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Shard]{
				what: "shards",
				head: []string{"SHARD", "NODE", "EPOCH", "SEQ", "ACTIVATIONS", "UNANSWERED", "DUE"},
				row: func(s *nolav1.Shard) []string {
					owner := s.NodeId
					if owner == "" {
						owner = "-"
					}
					return []string{
						fmt.Sprint(s.Shard), owner, fmt.Sprint(s.Epoch), fmt.Sprint(s.Seq),
						fmt.Sprint(s.Activations), fmt.Sprint(s.Unanswered), fmt.Sprint(s.Due),
					}
				},
				name: func(s *nolav1.Shard) string { return fmt.Sprint(s.Shard) },
				wrap: func(all []*nolav1.Shard) proto.Message { return &nolav1.ListShardsResponse{Shards: all} },
				fetch: func(size int32, token string) ([]*nolav1.Shard, string, error) {
					req := &nolav1.ListShardsRequest{PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListShards, req)
					return res.GetShards(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	list.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.AddCommand(list, c.planCommand())
	return cmd
}

func (c *cli) planCommand() *cobra.Command {
	var dryRun bool
	cmd := leaf("plan", "Tell which shards move, and where to",
		`Tell which shards are not where they belong, where they are and where they move to,
and why. It only shows: nodes move shards by themselves, a few at a time, so that each
node has shards in proportion to its weight.`,
		`nolactl shard plan --dry-run
nolactl shard plan --dry-run -o json`,
		func(cmd *cobra.Command, _ []string) error {
			if !dryRun {
				return usage("", "nodes carry the plan out by themselves: see it with --dry-run, and change it with `nolactl node drain` or the nodes' weights")
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			nodes, err := ask(cmd.Context(), c.timeout, r.Cluster.ListNodes, &nolav1.ListNodesRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			states := map[string]*nolav1.Node{}
			for _, n := range nodes.Nodes {
				states[n.NodeId] = n
			}
			return listing[*nolav1.Shard]{
				what: "shards that move",
				head: []string{"SHARD", "FROM", "TO", "WHY"},
				row: func(s *nolav1.Shard) []string {
					return []string{fmt.Sprint(s.Shard), planName(states, s.NodeId), planName(states, s.DesiredNodeId), planReason(states, s)}
				},
				name: func(s *nolav1.Shard) string { return fmt.Sprint(s.Shard) },
				wrap: func(all []*nolav1.Shard) proto.Message { return &nolav1.ListShardsResponse{Shards: all} },
				fetch: func(_ int32, token string) ([]*nolav1.Shard, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListShards, &nolav1.ListShardsRequest{PageSize: 1000, PageToken: token})
					moves := slices.DeleteFunc(res.GetShards(), func(s *nolav1.Shard) bool { return s.NodeId == s.DesiredNodeId || s.DesiredNodeId == "" })
					return moves, res.GetNextPageToken(), err
				},
			}.print(c, 0)
		})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the plan")
	return cmd
}

func planName(nodes map[string]*nolav1.Node, id string) string {
	if n := nodes[id]; n != nil {
		return nodeName(n)
	}
	return cmp.Or(id, "-")
}

// planReason says why a shard moves.
func planReason(nodes map[string]*nolav1.Node, s *nolav1.Shard) string {
	switch n := nodes[s.NodeId]; {
	case s.NodeId == "":
		return "nobody serves it"
	case n == nil:
		return "its node is not seen alive"
	case n.State == nolav1.NodeState_NODE_STATE_DRAINING:
		return "its node is drained"
	case n.State == nolav1.NodeState_NODE_STATE_LEAVING:
		return "its node is about to end"
	}
	return "the weights of the nodes that live give it to the other"
}

func (c *cli) locateCommand() *cobra.Command {
	cmd := leaf("locate TYPE/ID", "Tell where an actor lives",
		`Tell the shard of an actor and the node that owns it. The actor need not exist.`,
		`nolactl locate counter/alice
nolactl locate 'counter/{order-17}/cart' -o json`,
		func(cmd *cobra.Command, args []string) error {
			ref, r, err := c.refAndRemote(args[0])
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Cluster.LocateActor, &nolav1.LocateActorRequest{Actor: ref})
			if err != nil {
				return err
			}
			return c.show(res, fmt.Sprint(res.Shard), func() error {
				d := c.details()
				d.fact("Actor", refName(ref))
				d.fact("Shard", fmt.Sprint(res.Shard))
				if res.Node == nil {
					d.fact("Node", "none owns the shard now")
				} else {
					d.fact("Node", nodeName(res.Node)+" at "+res.Node.Address)
					d.fact("Epoch", fmt.Sprint(res.Epoch))
				}
				return d.flush()
			})
		})
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}
