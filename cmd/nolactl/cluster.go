package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
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
				head: []string{"NODE", "STATE", "SHARDS", "WEIGHT", "LOAD", "ADDRESS", "LABELS", "VERSION", "STARTED"},
				row: func(n *nolav1.Node) []string {
					return []string{nodeName(n), nodeState(n), fmt.Sprint(n.Shards), fmt.Sprint(n.Weight), loadName(n.Load), n.Address, labelNames(n.Labels), n.Version, c.when(n.Started)}
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
	if n.Barred != "" && n.State == nolav1.NodeState_NODE_STATE_READY {
		return "barred"
	}
	return strings.ToLower(strings.TrimPrefix(n.State.String(), "NODE_STATE_"))
}

// loadName is a load in processors, for people.
func loadName(load uint64) string { return fmt.Sprintf("%.2f cpu", float64(load)/1e6) }

// labelNames are labels as NAME=VALUE, in order.
func labelNames(labels map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, name+"="+labels[name])
	}
	return cmp.Or(strings.Join(list, ","), "-")
}

// drainPoll is how often the progress of a drain is looked at.
const drainPoll = 500 * time.Millisecond

func (c *cli) drainCommand() *cobra.Command {
	var undo, noWait bool
	cmd := leaf("drain NODE", "Have a node give its shards to the others",
		`Have a node give its shards to the others, a few at a time, and take none any more.
It goes on to serve clients, whose calls it passes on. The command waits until the
node has no shard left; --undo has it take part again. Until then the node stays
drained, also when it restarts. SIGTERM gives the shards away before it ends the
process, and does not drain the node for later.`,
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
				head: []string{"SHARD", "NODE", "EPOCH", "SEQ", "ACTIVATIONS", "UNANSWERED", "DUE", "COST"},
				row: func(s *nolav1.Shard) []string {
					owner := s.NodeId
					if owner == "" {
						owner = "-"
					}
					return []string{
						fmt.Sprint(s.Shard), owner, fmt.Sprint(s.Epoch), fmt.Sprint(s.Seq),
						fmt.Sprint(s.Activations), fmt.Sprint(s.Unanswered), fmt.Sprint(s.Due), loadName(s.Cost),
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
node has shards in proportion to its weight, and none has far more load than its share.`,
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
					return []string{fmt.Sprint(s.Shard), planName(states, s.NodeId), planName(states, s.DesiredNodeId), cmp.Or(s.MoveReason, planReason(states, s))}
				},
				name: func(s *nolav1.Shard) string { return fmt.Sprint(s.Shard) },
				wrap: func(all []*nolav1.Shard) proto.Message { return &nolav1.ListShardsResponse{Shards: all} },
				fetch: func(_ int32, token string) ([]*nolav1.Shard, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListShards, &nolav1.ListShardsRequest{PageSize: 1000, PageToken: token})
					moves := slices.DeleteFunc(res.GetShards(), func(s *nolav1.Shard) bool {
						return s.MoveReason == "" && (s.NodeId == s.DesiredNodeId || s.DesiredNodeId == "")
					})
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

func (c *cli) laneCommand() *cobra.Command {
	cmd := c.group("lane", "See the logs of the nodes",
		`On a store cql each process of the cluster writes one log, its lane. When it has ended,
its lane is sealed, and cleared away when no shard needs it any more.`,
		`nolactl lane list
nolactl lane list -o json`)
	list := leaf("list", "List the lanes", `List the lanes that are not cleared away. APPLY is how many entries may not be in the
tables yet, as far as the node that writes the lane lives and answers.`,
		`nolactl lane list
nolactl lane list -o name`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			optional := func(n *uint64) string {
				if n == nil {
					return "-"
				}
				return fmt.Sprint(*n)
			}
			return listing[*nolav1.Lane]{
				what: "lanes",
				head: []string{"LANE", "NODE", "MODE", "SEALED", "FINAL", "APPLY"},
				row: func(l *nolav1.Lane) []string {
					return []string{l.LaneId, l.NodeId, l.Mode, fmt.Sprint(l.Sealed), optional(l.FinalSeq), optional(l.Unapplied)}
				},
				name: func(l *nolav1.Lane) string { return l.LaneId },
				wrap: func(all []*nolav1.Lane) proto.Message { return &nolav1.ListLanesResponse{Lanes: all} },
				fetch: func(int32, string) ([]*nolav1.Lane, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListLanes, &nolav1.ListLanesRequest{})
					return res.GetLanes(), "", err
				},
			}.print(c, 0)
		})
	cmd.AddCommand(list)
	return cmd
}

func (c *cli) placementCommand() *cobra.Command {
	cmd := c.group("placement", "Say by labels which nodes serve actors",
		`A rule says which labels the nodes that serve actors of a namespace, or of one type,
must have, should have and should not have. Each shard has actors of all types, so a
rule counts for every shard: namespace and type tell whose rule it is.`,
		`nolactl placement list
nolactl placement set shop --require zone=eu`)
	list := leaf("list", "List the rules of placement", `List the rules of placement.`,
		`nolactl placement list
nolactl placement list -o json`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.PlacementRule]{
				what: "rules",
				head: []string{"OF", "REQUIRE", "PREFER", "AVOID"},
				row: func(p *nolav1.PlacementRule) []string {
					return []string{placementName(p), labelNames(p.Require), labelNames(p.Prefer), labelNames(p.Avoid)}
				},
				name: placementName,
				wrap: func(all []*nolav1.PlacementRule) proto.Message {
					return &nolav1.ListPlacementRulesResponse{Rules: all}
				},
				fetch: func(int32, string) ([]*nolav1.PlacementRule, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListPlacementRules, &nolav1.ListPlacementRulesRequest{})
					return res.GetRules(), "", err
				},
			}.print(c, 0)
		})
	cmd.AddCommand(list, c.placementSetCommand(), c.placementDeleteCommand())
	return cmd
}

func placementName(p *nolav1.PlacementRule) string {
	if p.Type == "" {
		return p.Namespace
	}
	return p.Namespace + "/" + p.Type
}

func (c *cli) placementSetCommand() *cobra.Command {
	rule := &nolav1.PlacementRule{}
	cmd := leaf("set NAMESPACE[/TYPE]", "Set the rule of a namespace or type",
		`Set the rule of a namespace or type, in place of the one before. It is refused if no
node that lives has all labels that this and the other rules require. A node that
lacks a preferred label has a tenth of its weight; one that has a label to avoid serves
shards only if all others are away.`,
		`nolactl placement set shop --require zone=eu
nolactl placement set shop/report --prefer disk=fast --avoid spot=yes`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			rule.Namespace, rule.Type, _ = strings.Cut(args[0], "/")
			res, err := ask(cmd.Context(), c.timeout, r.Cluster.SetPlacementRule, &nolav1.SetPlacementRuleRequest{Rule: rule})
			if err != nil {
				return err
			}
			return c.show(res, args[0], func() error {
				c.note("the rule of %s is set; `nolactl shard plan --dry-run` shows what moves", args[0])
				return nil
			})
		})
	cmd.Args = cobra.ExactArgs(1)
	cmd.Flags().StringToStringVar(&rule.Require, "require", nil, "label that a node must have, NAME=VALUE; may be repeated")
	cmd.Flags().StringToStringVar(&rule.Prefer, "prefer", nil, "label that a node should have, NAME=VALUE; may be repeated")
	cmd.Flags().StringToStringVar(&rule.Avoid, "avoid", nil, "label that a node should not have, NAME=VALUE; may be repeated")
	return cmd
}

func (c *cli) placementDeleteCommand() *cobra.Command {
	cmd := leaf("delete NAMESPACE[/TYPE]", "Delete the rule of a namespace or type", `Delete the rule of a namespace or type.`,
		`nolactl placement delete shop
nolactl placement delete shop/report`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.DeletePlacementRuleRequest{}
			req.Namespace, req.Type, _ = strings.Cut(args[0], "/")
			res, err := ask(cmd.Context(), c.timeout, r.Cluster.DeletePlacementRule, req)
			if err != nil {
				return err
			}
			return c.show(res, args[0], func() error {
				c.note("the rule of %s is deleted", args[0])
				return nil
			})
		})
	cmd.Args = cobra.ExactArgs(1)
	return cmd
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
