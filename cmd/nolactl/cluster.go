package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) nodeCommand() *cobra.Command {
	cmd := c.group("node", "See the nodes of the cluster", `A node is one process of the cluster.`,
		`nolactl node list
nolactl node list -o json`)
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
				head: []string{"NODE", "ADDRESS", "VERSION", "SHARDS", "STARTED"},
				row: func(n *nolav1.Node) []string {
					return []string{n.NodeId, n.Address, n.Version, fmt.Sprint(n.Shards), c.when(n.Started)}
				},
				name: func(n *nolav1.Node) string { return n.NodeId },
				wrap: func(all []*nolav1.Node) proto.Message { return &nolav1.ListNodesResponse{Nodes: all} },
				fetch: func(size int32, token string) ([]*nolav1.Node, string, error) {
					req := &nolav1.ListNodesRequest{PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListNodes, req)
					return res.GetNodes(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	list.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.AddCommand(list)
	return cmd
}

func (c *cli) shardCommand() *cobra.Command {
	cmd := c.group("shard", "See the shards and who owns them",
		`Actors are spread over a fixed number of shards. A node owns a shard for one epoch.`,
		`nolactl shard list
nolactl shard list -o json`)
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
	cmd.AddCommand(list)
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
					d.fact("Node", res.Node.NodeId+" at "+res.Node.Address)
					d.fact("Epoch", fmt.Sprint(res.Epoch))
				}
				return d.flush()
			})
		})
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}
