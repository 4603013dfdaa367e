package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// logLinesMax is how many kept lines a server hands out.
const logLinesMax = 1_000

func (c *cli) logsCommand() *cobra.Command {
	var follow bool
	var limit int
	cmd := leaf("logs TYPE/ID", "Show what an actor logged",
		`Show the newest lines that an actor logged, the oldest of them first, and with -f
those to come. A bounded number of lines is kept in memory: they are an aid, not a
record.`,
		`nolactl logs counter/alice
nolactl logs counter/alice --limit 20 -o jsonl
nolactl logs counter/alice -f --timeout 2s`,
		func(cmd *cobra.Command, args []string) error {
			return c.logs(cmd.Context(), args[0], follow, limit)
		})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the lines to come, until interrupted or --timeout is over")
	cmd.Flags().IntVar(&limit, "limit", 100, "begin with at most so many kept lines")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) logs(ctx context.Context, name string, follow bool, limit int) error {
	if limit < 1 || limit > logLinesMax {
		return usage("", "--limit is %d, it must lie between 1 and %d", limit, logLinesMax)
	}
	if follow && (c.output == formatJSON || c.output == formatYAML) {
		return usage("use -o jsonl", "-o %s needs an end, and --follow has none", c.output)
	}
	ref, r, err := c.refAndRemote(name)
	if err != nil {
		return err
	}
	if !follow || c.timed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	stream, err := r.Actors.TailLogs(ctx, connect.NewRequest(&nolav1.TailLogsRequest{Actor: ref, Follow: follow, Limit: int32(limit)}))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // all that was wanted has been received
	all := &nolav1.TailLogsResponse{}
	for stream.Receive() {
		for _, e := range stream.Msg().Entries {
			if c.output == formatJSON || c.output == formatYAML {
				all.Entries = append(all.Entries, e)
				continue
			}
			id := hex.EncodeToString(e.InvocationId)
			if err := c.show(e, id, func() error { return c.logLine(e) }); err != nil {
				return err
			}
		}
	}
	if err := stream.Err(); err != nil && (!follow || !isOver(ctx, err)) {
		return err
	}
	if c.output == formatJSON || c.output == formatYAML {
		return c.write(all, "")
	}
	return nil
}

// isOver tells whether a stream ended because we were told to stop following.
func isOver(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	// The deadline travels with the request: the server may notice it first.
	_, timed := ctx.Deadline()
	return timed && !errors.Is(err, context.Canceled) && connect.CodeOf(err) == connect.CodeDeadlineExceeded
}

func (c *cli) logLine(e *nolav1.LogEntry) error {
	at := e.Time.AsTime().In(c.local).Format(clockLayout + ".000" + zoneLayout)
	_, err := fmt.Fprintf(c.out, "%s  %-5s  %s\n", at, oneLine(e.Level), clean(strings.TrimRight(e.Message, "\n")))
	return err
}
