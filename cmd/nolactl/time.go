package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) timeCommand() *cobra.Command {
	cmd := c.group("time", "See and move the time of a server",
		`A server lives in real time, or, started with "nolad dev --ephemeral --time=virtual",
in virtual time, which stands still until it is moved.`,
		`nolactl time now
nolactl time advance 30d`)
	now := leaf("now", "Tell the server's time", `Tell the time by the server's clock, and whether that stands still.`,
		`nolactl time now
nolactl time now -o json`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Cluster.GetCluster, &nolav1.GetClusterRequest{})
			if err != nil {
				return err
			}
			at := res.ServerTime.AsTime().Format(time.RFC3339Nano)
			kind := "real"
			if res.VirtualTime {
				kind = "virtual"
			}
			return c.say(res, at, "%s (%s time)", at, kind)
		})
	advance := leaf("advance DURATION|TIME", "Move virtual time forward",
		`Move virtual time on by a duration, or to a time. Everything that is due on the way
fires, each at its own time, and has settled when the command returns. If it is cut
off, time stands where it got to; advance again to go on.`,
		`nolactl time advance 30d
nolactl time advance 2099-01-01T00:00:00Z`,
		func(cmd *cobra.Command, args []string) error {
			req := &nolav1.AdvanceTimeRequest{}
			if d, err := parseDuration(strings.TrimPrefix(args[0], "+")); err == nil {
				if d < 0 {
					return usage("", "time moves forward only")
				}
				req.Target = &nolav1.AdvanceTimeRequest_By{By: durationpb.New(d)}
			} else if t, err := c.parseTime(args[0], c.local); err == nil {
				req.Target = &nolav1.AdvanceTimeRequest_To{To: timestamppb.New(t)}
			} else {
				return usage("", "%q is neither a duration, like 90s, 1h30m or 30d, nor a time, like 2026-12-24T18:00:00Z", args[0])
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			for {
				res, err := ask(cmd.Context(), c.timeout, r.Cluster.AdvanceTime, req)
				if err != nil {
					return err
				}
				at := res.ServerTime.AsTime().Format(time.RFC3339Nano)
				if res.Reached {
					return c.say(res, at, "it is %s; all that was due has fired", at)
				}
				if c.errIsTerminal {
					fmt.Fprintf(c.errOut, "it is %s, on the way to %s\n", at, res.TargetTime.AsTime().Format(time.RFC3339Nano))
				}
				req.Target = &nolav1.AdvanceTimeRequest_To{To: res.TargetTime}
			}
		})
	cmd.AddCommand(now, advance)
	return cmd
}
