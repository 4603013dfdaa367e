package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) scheduleBackfillCommand() *cobra.Command {
	var from, until, overlap, requestID string
	var rate uint32
	var reverse, dryRun bool
	cmd := leaf("backfill ID", "Fire the nominal times of a range in the past again",
		`Fire the nominal times of a range in the past, each as an occurrence of its own,
also while the schedule is paused. Both ends are inclusive. They fire one after the
other, or side by side with --overlap allow-all; at most 100,000 of them.`,
		`nolactl schedule backfill nightly --from 2026-01-01 --until 2026-01-31 --dry-run
nolactl schedule backfill tick --from 2026-02-01 --rate 5 --reverse --request-id repair-17`,
		func(cmd *cobra.Command, args []string) error {
			req := &nolav1.BackfillScheduleRequest{
				Namespace: c.namespace, ScheduleId: args[0], RequestId: requestIDOr(requestID), Rate: rate, Reverse: reverse, DryRun: dryRun,
			}
			var err error
			if req.StartTime, err = c.timeArg("from", from, c.local); err != nil {
				return err
			}
			if req.EndTime, err = c.timeArg("until", until, c.local); err != nil {
				return err
			}
			if req.StartTime == nil {
				return usage("for example --from 2026-01-01", "the range has no start")
			}
			if req.EndTime == nil {
				req.EndTime = timestamppb.New(c.present())
			}
			if req.Overlap, err = enumArg[nolav1.OverlapPolicy]("overlap", overlap); err != nil {
				return err
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.BackfillSchedule, req)
			if err != nil {
				return err
			}
			if dryRun {
				return c.say(res, args[0], "it would fire %d times", res.GetBackfill().GetTotal())
			}
			return c.say(res.Backfill, res.GetBackfill().GetBackfillId(), "backfill %s of schedule %s fires %d times", res.GetBackfill().GetBackfillId(), args[0], res.GetBackfill().GetTotal())
		})
	cmd.Flags().StringVar(&from, "from", "", "first instant of the range, for example "+timeHelp)
	cmd.Flags().StringVar(&until, "until", "", "last instant of the range (default now)")
	cmd.Flags().StringVar(&overlap, "overlap", "", "buffer-all, one after the other (default), or allow-all")
	cmd.Flags().StringVar(&requestID, "request-id", "", "makes a retry recognisable, and names the backfill (default a random one)")
	cmd.Flags().Uint32Var(&rate, "rate", 0, "starts a second at most (default 10)")
	cmd.Flags().BoolVar(&reverse, "reverse", false, "begin with the newest")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say how many times would fire, and fire none")
	completeWords(cmd, "overlap", words(nolav1.OverlapPolicy(0)))
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleBackfillsCommand() *cobra.Command {
	cmd := leaf("backfills ID", "List the backfills of a schedule",
		`List the backfills of a schedule with how far they are, the newest first; the newest
20 are kept.`,
		`nolactl schedule backfills nightly
nolactl schedule backfills tick -o json`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Backfill]{
				what: "backfills",
				head: []string{"ID", "STATE", "FROM", "UNTIL", "TOTAL", "STARTED", "FAILED"},
				row: func(b *nolav1.Backfill) []string {
					return []string{b.BackfillId, word(b.State), c.when(b.StartTime), c.when(b.EndTime), fmt.Sprint(b.Total), fmt.Sprint(b.Started), fmt.Sprint(b.Failed)}
				},
				name: func(b *nolav1.Backfill) string { return b.BackfillId },
				wrap: func(all []*nolav1.Backfill) proto.Message { return &nolav1.ListBackfillsResponse{Backfills: all} },
				fetch: func(int32, string) ([]*nolav1.Backfill, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Schedules.ListBackfills, &nolav1.ListBackfillsRequest{Namespace: c.namespace, ScheduleId: args[0]})
					return res.GetBackfills(), "", err
				},
			}.print(c, 0)
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleCancelBackfillCommand() *cobra.Command {
	cmd := leaf("cancel-backfill ID BACKFILL", "End a backfill",
		`End a backfill: nothing more of it starts, what runs goes on.`,
		`nolactl schedule cancel-backfill nightly repair-17
nolactl schedule cancel-backfill tick repair-18 -o json`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.CancelBackfillRequest{Namespace: c.namespace, ScheduleId: args[0], BackfillId: args[1]}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.CancelBackfill, req)
			if err != nil {
				return err
			}
			return c.say(res.Backfill, args[1], "backfill %s is %s after %d of %d starts", args[1], word(res.GetBackfill().GetState()), res.GetBackfill().GetStarted(), res.GetBackfill().GetTotal())
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

// occurrenceTimes reads the times of an occurrence from arguments.
func (c *cli) occurrenceTimes(args []string) (out []*timestamppb.Timestamp, err error) {
	for _, arg := range args {
		t, err := c.parseTime(arg, c.local)
		if err != nil {
			return nil, usage("", "%s", err)
		}
		out = append(out, timestamppb.New(t))
	}
	return out, nil
}

// occurrenceCommand makes a command that changes what one occurrence does.
func (c *cli) occurrenceCommand(use, short, long, example string, run func(ctx context.Context, r *client.Client, id string, at []*timestamppb.Timestamp) (proto.Message, string, error)) *cobra.Command {
	cmd := leaf(use, short, long, example, func(cmd *cobra.Command, args []string) error {
		at, err := c.occurrenceTimes(args[1:])
		if err != nil {
			return err
		}
		r, err := c.dial(nil)
		if err != nil {
			return err
		}
		res, done, err := run(cmd.Context(), r, args[0], at)
		if err != nil {
			return err
		}
		return c.say(res, args[0], "schedule %s: %s %s", args[0], c.when(at[0]), done)
	})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleSkipCommand() *cobra.Command {
	return c.occurrenceCommand("skip ID TIME", "Take one nominal time out",
		`Take one nominal time to come out of a schedule; it is recorded as excluded by user.`,
		`nolactl schedule skip nightly 2099-12-24T03:00:00Z
nolactl schedule skip tick +2h`,
		func(ctx context.Context, r *client.Client, id string, at []*timestamppb.Timestamp) (proto.Message, string, error) {
			res, err := ask(ctx, c.timeout, r.Schedules.SkipOccurrence, &nolav1.SkipOccurrenceRequest{Namespace: c.namespace, ScheduleId: id, NominalTime: at[0]})
			return res, "does not fire", err
		})
}

func (c *cli) scheduleUnskipCommand() *cobra.Command {
	return c.occurrenceCommand("unskip ID TIME", "Let a nominal time fire again that was skipped or moved",
		`Take back that a nominal time was skipped or moved: it fires as the spec says.`,
		`nolactl schedule unskip nightly 2099-12-24T03:00:00Z
nolactl schedule unskip tick +2h`,
		func(ctx context.Context, r *client.Client, id string, at []*timestamppb.Timestamp) (proto.Message, string, error) {
			res, err := ask(ctx, c.timeout, r.Schedules.UnskipOccurrence, &nolav1.UnskipOccurrenceRequest{Namespace: c.namespace, ScheduleId: id, NominalTime: at[0]})
			return res, "fires as the spec says", err
		})
}

func (c *cli) scheduleMoveCommand() *cobra.Command {
	return c.occurrenceCommand("move ID TIME TO", "Let one nominal time fire at another instant",
		`Let one nominal time to come fire at another instant. Its nominal time stays what it
was.`,
		`nolactl schedule move nightly 2099-12-24T03:00:00Z 2099-12-24T09:00:00Z
nolactl schedule move tick +2h +3h`,
		func(ctx context.Context, r *client.Client, id string, at []*timestamppb.Timestamp) (proto.Message, string, error) {
			req := &nolav1.MoveOccurrenceRequest{Namespace: c.namespace, ScheduleId: id, NominalTime: at[0], To: at[1]}
			res, err := ask(ctx, c.timeout, r.Schedules.MoveOccurrence, req)
			return res, "fires at " + c.when(at[1]), err
		})
}

func (c *cli) scheduleWhyCommand() *cobra.Command {
	cmd := leaf("why ID TIME", "Say why a time fired, or did not, or will",
		`Say which rule let a time fire or not: spec, an exclude or calendar by name, pause, overlap, buffer, catch-up, a time
that was skipped or moved, remaining firings.`,
		`nolactl schedule why nightly 2026-01-24T03:00:00Z
nolactl schedule why tick +2h`,
		func(cmd *cobra.Command, args []string) error {
			at, err := c.occurrenceTimes(args[1:])
			if err != nil {
				return err
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.ExplainOccurrenceRequest{Namespace: c.namespace, ScheduleId: args[0], Time: at[0]}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.ExplainOccurrence, req)
			if err != nil {
				return err
			}
			return c.say(res, res.GetRule(), "%s: %s (%s)", c.when(at[0]), oneLine(res.GetExplanation()), res.GetRule())
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleLettersCommand() *cobra.Command {
	cmd := leaf("letters ID", "List the dead letters of a schedule",
		`List the firings that failed until the end of the retry policy, the newest first. The
newest 50 are kept until they are sent again.`,
		`nolactl schedule letters nightly
nolactl schedule letters tick -o json`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.DeadLetter]{
				what: "dead letters",
				head: []string{"NUMBER", "NOMINAL", "ATTEMPTS", "FAILED", "ERROR"},
				row: func(l *nolav1.DeadLetter) []string {
					return []string{fmt.Sprint(l.Number), c.when(l.NominalTime), fmt.Sprint(l.Attempts), c.when(l.FailTime), errorText(l.Error)}
				},
				name: func(l *nolav1.DeadLetter) string { return fmt.Sprint(l.Number) },
				wrap: func(all []*nolav1.DeadLetter) proto.Message {
					return &nolav1.ListDeadLettersResponse{DeadLetters: all}
				},
				fetch: func(int32, string) ([]*nolav1.DeadLetter, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Schedules.ListDeadLetters, &nolav1.ListDeadLettersRequest{Namespace: c.namespace, ScheduleId: args[0]})
					return res.GetDeadLetters(), "", err
				},
			}.print(c, 0)
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleRedriveCommand() *cobra.Command {
	cmd := leaf("redrive ID NUMBER", "Send a dead letter again",
		`Fire a dead letter again, as an occurrence of its own, and take it off the list.`,
		`nolactl schedule redrive nightly 1
nolactl schedule redrive tick 2 -o json`,
		func(cmd *cobra.Command, args []string) error {
			number, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return usage("see `nolactl schedule letters "+quote(args[0])+"`", "%q is no number of a dead letter", args[1])
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.RedriveDeadLetterRequest{Namespace: c.namespace, ScheduleId: args[0], Number: number}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.RedriveDeadLetter, req)
			if err != nil {
				return err
			}
			return c.say(res.Occurrence, args[0], "dead letter %d of schedule %s sent again: %s", number, args[0], outcomeText(res.Occurrence))
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}
