package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// bulkMax is how many schedules one command changes at most.
const bulkMax = 10_000

// bulkNamesMax is how many of them a question names.
const bulkNamesMax = 5

// bulk is a change of one schedule, or of all that a selection chooses.
type bulk struct {
	selection
	all, dryRun bool

	do, done string // the words for the change, for example pause and paused
	tail     string // what goes with the schedules, for the question
}

func (b *bulk) register(c *cli, cmd *cobra.Command) {
	b.selection.register(c, cmd)
	cmd.Flags().BoolVar(&b.all, "all", false, "all schedules of the namespace")
	cmd.Flags().BoolVar(&b.dryRun, "dry-run", false, "list the schedules that would be "+b.done+", and change nothing")
	cmd.ValidArgsFunction = c.completeSchedules
}

// help says in the help of a command how it works on many schedules.
func (b *bulk) help() string {
	return fmt.Sprintf(`

Instead of an id, flags choose schedules as those of "nolactl schedule list" do, all
of them with --all, at most %d. They are counted and you are asked first; --yes
answers, and --dry-run lists them and changes nothing. Schedules that were deleted
meanwhile are passed over. What has failed may be run again.`, bulkMax)
}

// one answers the schedule that is named, "" if flags choose.
func (b *bulk) one(cmd *cobra.Command, args []string) (string, error) {
	chosen := b.all || b.given(cmd.Flags())
	switch {
	case len(args) > 0 && chosen:
		return "", usage("", "name a schedule or choose some by flags, not both")
	case len(args) == 0 && !chosen:
		return "", usage("for example --label team=core, or --all", "no schedule is named, and no flag chooses some")
	case len(args) > 0 && b.dryRun:
		return "", usage("see it with `nolactl schedule describe "+quote(args[0])+"`", "--dry-run is for schedules that flags choose")
	}
	return strings.Join(args, ""), nil
}

// run changes all that are chosen, one after another.
func (b *bulk) run(c *cli, cmd *cobra.Command, change func(ctx context.Context, r *client.Client, s *nolav1.Schedule) (*nolav1.Schedule, error)) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	chosen, err := b.choose(c, cmd, r)
	if err != nil {
		return err
	}
	if len(chosen) == 0 || b.dryRun {
		if err := c.scheduleListing(b.page(chosen)).print(c, 0); err != nil {
			return err
		}
		if b.dryRun {
			c.note("dry run: %s would be %s; nothing was changed", count(len(chosen)), b.done)
		}
		return nil
	}
	if err := c.confirm("%s %s%s: %s", b.do, count(len(chosen)), b.tail, someNames(chosen)); err != nil {
		return err
	}
	return b.change(ctx, c, r, chosen, change)
}

// choose reads what the flags choose, without the payloads.
func (b *bulk) choose(c *cli, cmd *cobra.Command, r *client.Client) (chosen []*nolav1.Schedule, err error) {
	filter, err := b.text(c, cmd.Flags(), "")
	if err != nil {
		return nil, err
	}
	req := &nolav1.ListSchedulesRequest{Namespace: c.namespace, Filter: filter, PageSize: pageMax}
	for {
		res, err := ask(cmd.Context(), c.timeout, r.Schedules.ListSchedules, req)
		if err != nil {
			return nil, err
		}
		for _, s := range res.Schedules {
			s.GetTarget().Payload = nil
		}
		if chosen = append(chosen, res.Schedules...); len(chosen) > bulkMax {
			return nil, usage("choose fewer, for example with --label or --filter 'id=PREFIX*'", "more than %d schedules are chosen", bulkMax)
		}
		if req.PageToken = res.NextPageToken; req.PageToken == "" {
			return chosen, nil
		}
	}
}

func (b *bulk) change(ctx context.Context, c *cli, r *client.Client, chosen []*nolav1.Schedule, change func(ctx context.Context, r *client.Client, s *nolav1.Schedule) (*nolav1.Schedule, error)) error {
	var changed []*nolav1.Schedule
	left := 0
	var shown time.Time
	for i, s := range chosen {
		if now := c.now(); c.errIsTerminal && now.Sub(shown) >= progressEvery {
			shown = now
			fmt.Fprintf(c.errOut, "\r\x1b[K%s: %d of %d", b.done, i, len(chosen))
		}
		now, err := change(ctx, r, s)
		if err == nil {
			changed = append(changed, now)
			continue
		}
		switch p := c.explain(err); nola.Reason(p.reason) {
		case nola.ReasonScheduleNotFound:
		case nola.ReasonETagMismatch:
			left++
		default:
			b.endProgress(c, shown)
			p.message = fmt.Sprintf("stopped at schedule %s, with %d of %d %s: %s", s.ScheduleId, len(changed), len(chosen), b.done, p.message)
			p.hints = append(p.hints, "run the command again to go on")
			return p
		}
	}
	b.endProgress(c, shown)
	if c.output == "" || c.output == formatTable {
		if _, err := fmt.Fprintf(c.out, "%s %s\n", count(len(changed)), b.done); err != nil {
			return err
		}
	} else if err := c.scheduleListing(b.page(changed)).print(c, 0); err != nil {
		return err
	}
	if left > 0 {
		return &problem{
			code: exitConflict, reason: string(nola.ReasonETagMismatch),
			message: fmt.Sprintf("%s changed after being chosen, and left alone", count(left)), hints: []string{"look at them, and run the command again"},
		}
	}
	return nil
}

func (b *bulk) endProgress(c *cli, shown time.Time) {
	if !shown.IsZero() {
		fmt.Fprint(c.errOut, "\r\x1b[K")
	}
}

// page is a list that is there already, as a page of a listing.
func (b *bulk) page(all []*nolav1.Schedule) func(int32, string) ([]*nolav1.Schedule, string, error) {
	return func(int32, string) ([]*nolav1.Schedule, string, error) { return all, "", nil }
}

func count(n int) string {
	if n == 1 {
		return "1 schedule"
	}
	return fmt.Sprintf("%d schedules", n)
}

func someNames(all []*nolav1.Schedule) string {
	var names []string
	for _, s := range all[:min(len(all), bulkNamesMax)] {
		names = append(names, s.ScheduleId)
	}
	text := strings.Join(names, ", ")
	if more := len(all) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// scheduleListing shows schedules that fetch brings.
func (c *cli) scheduleListing(fetch func(size int32, token string) ([]*nolav1.Schedule, string, error)) listing[*nolav1.Schedule] {
	return listing[*nolav1.Schedule]{
		what: "schedules",
		head: []string{"ID", "TARGET", "SPEC", "STATE", "FIRED", "LAST", "NEXT"},
		row: func(s *nolav1.Schedule) []string {
			next := "-"
			if t := s.GetInfo().GetNextTimes(); len(t) > 0 {
				next = c.when(t[0])
			}
			return []string{
				s.ScheduleId, targetText(s.Target), c.specBrief(s.Spec), c.stateWord(s.State),
				fmt.Sprint(counted(s.Info, nolav1.Outcome_OUTCOME_FIRED)), c.lastOutcome(s.Info), next,
			}
		},
		name:  func(s *nolav1.Schedule) string { return s.ScheduleId },
		wrap:  func(all []*nolav1.Schedule) proto.Message { return &nolav1.ListSchedulesResponse{Schedules: all} },
		fetch: fetch,
	}
}
