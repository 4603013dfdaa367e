package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

const (
	// topMax is how many lines a server hands out.
	topMax = 10_000
	// topIntervalMin is the least time between two looks.
	topIntervalMin = 100 * time.Millisecond
)

// What top tells apart, and sorts by.
var (
	topBy = map[string]nolav1.UsageBy{
		"namespace": nolav1.UsageBy_USAGE_BY_NAMESPACE, "type": nolav1.UsageBy_USAGE_BY_TYPE, "actor": nolav1.UsageBy_USAGE_BY_ACTOR,
	}
	topSorts = map[string]nolav1.UsageSort{
		"steps": nolav1.UsageSort_USAGE_SORT_STEPS, "turns": nolav1.UsageSort_USAGE_SORT_TURNS, "time": nolav1.UsageSort_USAGE_SORT_RUN_TIME,
	}
	topByNames   = []string{"namespace", "type", "actor"}
	topSortNames = []string{"steps", "turns", "time"}
)

// top is what the command was asked for.
type top struct {
	by, sort string
	limit    int
	watch    bool
	interval time.Duration
}

func (c *cli) topCommand() *cobra.Command {
	t := top{interval: 2 * time.Second}
	cmd := leaf("top [namespace|type|actor]", "Show whose turns cost most",
		`Show what turns have cost on the node that answers: by type, by namespace or by
actor. STEPS are those of the meter, the same for the same turn on the same state; TIME is
how long turns ran, without the calls that they waited for. Without --watch it is all
since the node began; with it, what came about in each interval.

Actors are those that have taken most steps of all, at most 8,192. Their steps may be
too high by what ± says, and never too low. A line * sums what the node does not tell
apart. With -n only one namespace is shown.`,
		`nolactl top
nolactl top actor --sort time --limit 5
nolactl top namespace -o json
nolactl top --watch --interval 500ms --timeout 2s`,
		func(cmd *cobra.Command, args []string) error {
			t.by = "type"
			if len(args) > 0 {
				t.by = args[0]
			}
			return c.top(cmd.Context(), t)
		})
	f := cmd.Flags()
	f.StringVar(&t.sort, "sort", "steps", "what comes first: "+strings.Join(topSortNames, ", "))
	f.IntVar(&t.limit, "limit", 20, "show at most so many")
	f.BoolVarP(&t.watch, "watch", "w", false, "look again and again, until interrupted or --timeout is over")
	f.Var(durationFlag{&t.interval}, "interval", "with --watch, how long to wait between two looks (default 2s)")
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return topByNames, cobra.ShellCompDirectiveNoFileComp
	}
	complete(cmd, "sort", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return topSortNames, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func (c *cli) top(ctx context.Context, t top) error {
	req := &nolav1.GetUsageRequest{By: topBy[t.by], Sort: topSorts[t.sort], Limit: int32(min(t.limit, topMax))}
	switch {
	case req.By == 0:
		return usage("", "%q is none of %s", t.by, strings.Join(topByNames, ", "))
	case req.Sort == 0:
		return usage("", "--sort is %q, it must be one of %s", t.sort, strings.Join(topSortNames, ", "))
	case t.limit < 1 || t.limit > topMax:
		return usage("", "--limit is %d, it must lie between 1 and %d", t.limit, topMax)
	case t.interval < topIntervalMin:
		return usage("", "--interval is %s, it must be at least %s", t.interval, topIntervalMin)
	case t.watch && (c.output == formatJSON || c.output == formatYAML):
		return usage("use -o jsonl", "-o %s needs an end, and --watch has none", c.output)
	}
	if c.namespaced {
		req.Namespace = c.namespace
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	if t.watch {
		return c.watchTop(ctx, r, t, req)
	}
	res, err := ask(ctx, c.timeout, r.Cluster.GetUsage, req)
	if err != nil {
		return err
	}
	c.note("node %s since %s: %d turns, %d steps", res.NodeId, c.when(res.Since), res.Total.GetTurns(), res.Total.GetSteps())
	return c.showTop(t, res)
}

// watchTop shows what came about between two looks, again and again.
func (c *cli) watchTop(ctx context.Context, r *client.Client, t top, req *nolav1.GetUsageRequest) error {
	if c.timed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	req.Limit = topMax // who costs most now need not be who did before
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	var before *nolav1.GetUsageResponse
	for {
		res, err := ask(ctx, c.timeout, r.Cluster.GetUsage, req)
		if err != nil {
			if isOver(ctx, err) {
				return nil
			}
			return err
		}
		if before != nil && before.NodeId == res.NodeId && before.Since.AsTime().Equal(res.Since.AsTime()) {
			since := usageSince(before, res, t)
			c.note("node %s in %s: %d turns, %d steps", res.NodeId, res.ServerTime.AsTime().Sub(before.ServerTime.AsTime()).Round(time.Millisecond), since.Total.Turns, since.Total.Steps)
			if err := c.showTop(t, since); err != nil {
				return err
			}
		}
		before = res
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// usageSince is what came about between two answers of a node, sorted and cut as t
// wants it.
func usageSince(before, after *nolav1.GetUsageResponse, t top) *nolav1.GetUsageResponse {
	type name struct{ namespace, typ, id string }
	known := make(map[name]*nolav1.Usage, len(before.Usage))
	for _, u := range before.Usage {
		known[name{u.Namespace, u.Type, u.Id}] = u
	}
	out := &nolav1.GetUsageResponse{Since: before.ServerTime, ServerTime: after.ServerTime, NodeId: after.NodeId, Total: usageMinus(after.Total, before.Total)}
	for _, u := range after.Usage {
		if u = usageMinus(u, known[name{u.Namespace, u.Type, u.Id}]); u.Turns > 0 || u.Steps > 0 {
			out.Usage = append(out.Usage, u)
		}
	}
	slices.SortStableFunc(out.Usage, func(a, b *nolav1.Usage) int {
		return cmp.Or(-cmp.Compare(usageKey(a, t.sort), usageKey(b, t.sort)),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Id, b.Id))
	})
	out.Usage = out.Usage[:min(t.limit, len(out.Usage))]
	return out
}

func usageKey(u *nolav1.Usage, sort string) uint64 {
	switch sort {
	case "turns":
		return u.Turns
	case "time":
		return uint64(max(0, u.RunTime.AsDuration()))
	default:
		return u.Steps
	}
}

// usageMinus is how much more u is than before. Of an actor that was not watched all
// the time it is what is sure.
func usageMinus(u, before *nolav1.Usage) *nolav1.Usage {
	d := &nolav1.Usage{Namespace: u.GetNamespace(), Type: u.GetType(), Id: u.GetId()}
	if before.GetStepsError() != u.GetStepsError() || before.GetTurns() > u.GetTurns() {
		before = &nolav1.Usage{Steps: u.GetStepsError()} // it was away in between
	}
	d.Turns, d.Steps = u.GetTurns()-before.GetTurns(), u.GetSteps()-min(before.GetSteps(), u.GetSteps())
	d.RunTime = durationpb.New(u.GetRunTime().AsDuration() - before.GetRunTime().AsDuration())
	return d
}

func usageName(u *nolav1.Usage) string {
	switch {
	case u.Type == "":
		return u.Namespace
	case u.Id == "":
		return u.Namespace + ":" + u.Type
	default:
		return u.Namespace + ":" + u.Type + "/" + u.Id
	}
}

func (c *cli) showTop(t top, res *nolav1.GetUsageResponse) error {
	row := func(u *nolav1.Usage) []string {
		steps := fmt.Sprint(u.Steps)
		if u.StepsError > 0 {
			steps += " ±" + fmt.Sprint(u.StepsError)
		}
		of := uint64(0)
		if all := res.Total.GetSteps(); all > 0 {
			of = u.Steps * 100 / all
		}
		return []string{usageName(u), fmt.Sprint(u.Turns), steps, fmt.Sprintf("%d%%", min(of, 100)), u.RunTime.AsDuration().Round(time.Microsecond).String()}
	}
	return listing[*nolav1.Usage]{
		what:  "turns",
		head:  []string{strings.ToUpper(t.by), "TURNS", "STEPS", "OF ALL", "TIME"},
		row:   row,
		name:  usageName,
		wrap:  func([]*nolav1.Usage) proto.Message { return res },
		fetch: func(int32, string) ([]*nolav1.Usage, string, error) { return res.Usage, "", nil },
	}.print(c, 0)
}
