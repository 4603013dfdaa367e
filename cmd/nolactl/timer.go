package main

import (
	"context"

	"github.com/spf13/cobra"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) timerCommand() *cobra.Command {
	cmd := c.group("timer", "Set, list and cancel timers and reminders of actors",
		`A timer wakes an actor once, a reminder again and again. Actors set them for
themselves; these commands set them from outside.`,
		`nolactl timer list counter/alice
nolactl timer set counter/alice flush --op flush --after 10m`)
	cmd.AddCommand(c.timerListCommand(), c.timerSetCommand(), c.timerCancelCommand())
	return cmd
}

func (c *cli) timerListCommand() *cobra.Command {
	var limit int
	cmd := leaf("list TYPE/ID", "List the timers and reminders of an actor",
		`List the wake-ups of an actor in the order of their names, as "nolactl actor
timers" does. With -o json their payloads are shown, too.`,
		`nolactl timer list counter/alice
nolactl timer list counter/alice -o json`,
		func(cmd *cobra.Command, args []string) error {
			return c.listTimers(cmd.Context(), args[0], limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

// timerFlags say when a timer or reminder is due, and what it runs.
type timerFlags struct {
	operation, file                  string
	after, at, cron, every, timeZone string
}

func (c *cli) timerSetCommand() *cobra.Command {
	var f timerFlags
	cmd := leaf("set TYPE/ID NAME [PAYLOAD]", "Set a timer or a reminder of an actor",
		`Set a timer, with --after or --at, or a reminder, with --cron or --every. One of the
same name is replaced. The payload is at most 256 KiB.`,
		`nolactl timer set counter/alice flush --op flush --after 10m
nolactl timer set counter/alice report '{"to":"ops"}' --op report --cron '0 3 * * *' --tz Europe/Berlin`,
		func(cmd *cobra.Command, args []string) error { return c.setTimer(cmd.Context(), args, f) })
	cmd.Flags().StringVar(&f.operation, "op", "", "operation to run (required)")
	cmd.Flags().StringVar(&f.after, "after", "", "due so much later, for example 90s or 2d")
	cmd.Flags().StringVar(&f.at, "at", "", "due at a time, for example "+timeHelp)
	cmd.Flags().StringVar(&f.cron, "cron", "", "remind by a cron expression of five fields")
	cmd.Flags().StringVar(&f.every, "every", "", "remind every so often, for example 1h")
	cmd.Flags().StringVar(&f.timeZone, "tz", "", "time zone of --cron; default UTC")
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "read the payload from a file")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) setTimer(ctx context.Context, args []string, f timerFlags) error {
	ref, err := c.parseRef(args[0])
	if err != nil {
		return err
	}
	payload, err := c.payloadOf(optional(args, 2), f.file, storedPayloadBytesMax)
	if err != nil {
		return err
	}
	req := &nolav1.SetTimerRequest{Actor: ref, Name: args[1], Operation: f.operation, Payload: payload}
	if err := c.timerWhen(req, f); err != nil {
		return err
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	res, err := ask(ctx, c.timeout, r.Actors.SetTimer, req)
	if err != nil {
		return err
	}
	what := "timer"
	if req.GetReminder() != nil {
		what = "reminder"
	}
	return c.say(res, args[1], "%s %s of %s set", what, args[1], refName(ref))
}

// timerWhen reads when the timer is due: one of the four ways to say it.
func (c *cli) timerWhen(req *nolav1.SetTimerRequest, f timerFlags) error {
	after, err := durationArg("after", f.after)
	if err != nil {
		return err
	}
	at, err := c.timeArg("at", f.at, c.local)
	if err != nil {
		return err
	}
	every, err := durationArg("every", f.every)
	if err != nil {
		return err
	}
	n := 0
	for _, given := range []string{f.after, f.at, f.cron, f.every} {
		if given != "" {
			n++
		}
	}
	switch {
	case f.operation == "":
		return usage("", "name the operation to run with --op")
	case n != 1:
		return usage("", "say when with one of --after, --at, --cron and --every")
	case f.timeZone != "" && f.cron == "":
		return usage("", "--tz goes with --cron")
	case f.cron != "":
		req.When = &nolav1.SetTimerRequest_Reminder{Reminder: &nolav1.Reminder{Period: &nolav1.Reminder_Cron{Cron: f.cron}, TimeZone: f.timeZone}}
	case every != nil:
		req.When = &nolav1.SetTimerRequest_Reminder{Reminder: &nolav1.Reminder{Period: &nolav1.Reminder_Every{Every: every}}}
	case at != nil:
		req.When = &nolav1.SetTimerRequest_DueTime{DueTime: at}
	default:
		req.When = &nolav1.SetTimerRequest_Delay{Delay: after}
	}
	return nil
}

func (c *cli) timerCancelCommand() *cobra.Command {
	var reminder bool
	cmd := leaf("cancel TYPE/ID NAME", "Cancel a timer or a reminder of an actor",
		`Cancel a timer, or with --reminder a reminder. Timers and reminders may have the same
names. Nothing of it fires afterwards.`,
		`nolactl timer cancel counter/alice flush
nolactl timer cancel counter/alice report --reminder`,
		func(cmd *cobra.Command, args []string) error {
			ref, r, err := c.refAndRemote(args[0])
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Actors.CancelTimer, &nolav1.CancelTimerRequest{Actor: ref, Name: args[1], Reminder: reminder})
			if err != nil {
				return err
			}
			what := "timer"
			if reminder {
				what = "reminder"
			}
			if !res.Found {
				return notFound("see what there is with `nolactl timer list "+quote(args[0])+"`", "%s has no %s %s", refName(ref), what, args[1])
			}
			return c.say(res, args[1], "%s %s of %s cancelled", what, args[1], refName(ref))
		})
	cmd.Flags().BoolVar(&reminder, "reminder", false, "NAME is a reminder's")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}
