package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// scheduleFileBytesMax bounds what schedule export writes and apply reads.
const scheduleFileBytesMax = 64 << 20

func (c *cli) scheduleExportCommand() *cobra.Command {
	var chosen selection
	cmd := leaf("export [PREFIX]", "Write schedules as a file that apply reads",
		fmt.Sprintf(`Write schedules to standard output as YAML, or with -o json or jsonl as JSON: what
people have set, without what is so by default and what has happened. Flags choose
as those of "nolactl schedule list" do, at most %d schedules and %s of text.
"nolactl schedule apply" makes the same schedules of it, in any namespace.`, bulkMax, bytesOf(scheduleFileBytesMax)),
		`nolactl schedule export > schedules.yaml
nolactl schedule export ni --label owner=ops -o json`,
		func(cmd *cobra.Command, args []string) error {
			filter, err := chosen.text(c, cmd.Flags(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return c.exportSchedules(cmd.Context(), filter)
		})
	chosen.register(c, cmd)
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) exportSchedules(ctx context.Context, filter string) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	if c.output == "" || c.output == formatTable {
		c.output = formatYAML
	}
	bytes := 0
	req := &nolav1.ListSchedulesRequest{Namespace: c.namespace, Filter: filter}
	list := c.scheduleListing(func(size int32, token string) ([]*nolav1.Schedule, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := ask(ctx, c.timeout, r.Schedules.ListSchedules, req)
		for i, s := range res.GetSchedules() {
			res.Schedules[i] = definition(s)
			bytes += proto.Size(s)
		}
		if bytes > scheduleFileBytesMax {
			return nil, "", usage("choose fewer, for example with --label or a prefix", "the schedules are longer than the %s that one file takes", bytesOf(scheduleFileBytesMax))
		}
		return res.GetSchedules(), res.GetNextPageToken(), err
	})
	return list.print(c, bulkMax)
}

func (c *cli) scheduleApplyCommand() *cobra.Command {
	var file string
	var opts applying
	cmd := leaf("apply", "Make schedules be what a file says",
		`Create the schedules of a YAML or JSON file that are not there, and change those that
differ. Of a schedule that is there, target, spec, policy and labels become what the
file says; what it leaves out becomes the default. Whether it is paused, its note and
its firings left stay as operators have set them, unless --state is given. Schedules
that the file does not name are left alone, unless --prune is given: then those of the
namespaces that the file names are deleted, or with --prune-label those alone that
have the label. They are counted and you are asked first; --yes answers.

The file holds one schedule, or several: under "schedules", as documents that --- parts,
or as lines of JSON. Nothing is changed if one of them is faulty.`,
		`nolactl schedule apply -f schedules.yaml --dry-run
nolactl schedule apply -f schedules.yaml
nolactl schedule apply -f schedules.yaml --prune --prune-label team=core --dry-run
nolactl schedule export | nolactl schedule apply -f -`,
		func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage("add -f FILE, or -f - for standard input", "no file is given")
			}
			list, err := c.schedulesOf(file)
			if err != nil {
				return err
			}
			if len(opts.pruneLabels) > 0 && !opts.prune {
				return usage("add --prune", "--prune-label chooses what --prune deletes, and that is not given")
			}
			return c.applySchedules(cmd.Context(), list, &opts)
		})
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML or JSON file that holds schedules; - reads standard input")
	cmd.Flags().BoolVar(&opts.dryRun, "dry-run", false, "show what would change, and change nothing")
	cmd.Flags().BoolVar(&opts.prune, "prune", false, "also delete the schedules that the file does not name")
	cmd.Flags().StringArrayVar(&opts.pruneLabels, "prune-label", nil, "prune only those with the label key=value, key=prefix* or any value of key; may be repeated")
	cmd.Flags().BoolVar(&opts.state, "state", false, "also pause, unpause, and set note and firings left as the file says")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// applying is what apply is told beside the file.
type applying struct {
	dryRun, state, prune bool
	pruneLabels          []string
}

// schedulesOf reads the schedules of a file, each with its namespace.
func (c *cli) schedulesOf(file string) ([]*nolav1.Schedule, error) {
	text, err := c.payloadOf(nil, file, scheduleFileBytesMax)
	if err != nil {
		return nil, err
	}
	trees, err := documents(file, text)
	if err != nil {
		return nil, err
	}
	var list []*nolav1.Schedule
	for _, tree := range trees {
		fields, ok := tree.(map[string]any)
		if ok && len(fields) == 0 { // what export makes of no schedules
			continue
		}
		if ok && fields["schedules"] != nil {
			several := &nolav1.ListSchedulesResponse{}
			if err := c.fill(file, tree, several); err != nil {
				return nil, err
			}
			list = append(list, several.Schedules...)
			continue
		}
		one := &nolav1.Schedule{}
		if err := c.fill(file, tree, one); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	if len(list) > bulkMax {
		return nil, usage("split the file", "%s holds %d schedules, at most %d are taken at once", file, len(list), bulkMax)
	}
	for _, s := range list {
		if c.namespaced && s.Namespace != "" && s.Namespace != c.namespace {
			return nil, usage("name the namespace once", "%s says namespace %q, and -n says %q", file, s.Namespace, c.namespace)
		}
		if s.Namespace == "" {
			s.Namespace = c.namespace
		}
		s.Info, s.Etag = nil, "" // answered by the server, and of no use to it
	}
	return list, nil
}

// complain says what a schedule lacks.
func complain(s *nolav1.Schedule) error {
	spec := s.Spec
	switch {
	case s.ScheduleId == "":
		return usage("for example `nolactl schedule create nightly …`, or scheduleId: nightly in a file", "the schedule has no id")
	case s.GetTarget().GetActor() == nil:
		return usage("add --target TYPE/ID, or target.actor in a file", "schedule %s has no target", s.ScheduleId)
	case s.Target.Operation == "":
		return usage("add --op OPERATION, or target.operation in a file", "schedule %s has no operation to call", s.ScheduleId)
	case len(spec.GetCron())+len(spec.GetCalendar())+len(spec.GetInterval())+len(spec.GetCalendarInterval())+len(spec.GetAt()) == 0:
		return usage("add --cron, --calendar, --every or --at; in a file one of spec.cron, spec.calendar, spec.interval, spec.calendar_interval and spec.at", "schedule %s has no times", s.ScheduleId)
	}
	return nil
}

// planned is what a file comes to for one of its schedules.
type planned struct {
	want *nolav1.Schedule
	have *nolav1.Schedule // nil: it is to be created
	mask []string         // the parts that differ
	gone bool             // the file does not name it: have is to be deleted
}

func (p *planned) word() string {
	switch {
	case p.gone:
		return "deleted"
	case p.have == nil:
		return "created"
	case len(p.mask) > 0:
		return "changed"
	default:
		return "unchanged"
	}
}

func (c *cli) applySchedules(ctx context.Context, list []*nolav1.Schedule, opts *applying) error {
	if opts.prune && len(list) == 0 {
		return usage("`nolactl schedule delete --all` deletes all", "the file names no schedule, and --prune would delete all that there are")
	}
	seen := map[string]bool{}
	for _, s := range list {
		if err := complain(s); err != nil {
			return err
		}
		key := s.Namespace + "\x00" + s.ScheduleId
		if seen[key] {
			return usage("keep one of them", "schedule %s stands in the file twice", s.ScheduleId)
		}
		seen[key] = true
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	var plan []planned
	for _, s := range list {
		p, err := c.planSchedule(ctx, r, s, opts.state)
		if err != nil {
			return err
		}
		plan = append(plan, p)
	}
	if opts.prune {
		pruned, err := c.planPrune(ctx, r, list, seen, opts.pruneLabels)
		if err != nil {
			return err
		}
		plan = append(plan, pruned...)
	}
	if opts.dryRun {
		return c.showPlan(plan)
	}
	var gone []*nolav1.Schedule
	for _, p := range plan {
		if p.gone {
			gone = append(gone, p.have)
		}
	}
	if len(gone) > 0 {
		if err := c.confirm("apply the file, and delete %s that it does not name, with what they have recorded: %s", count(len(gone)), someNames(gone)); err != nil {
			return err
		}
	}
	return c.carryOut(ctx, r, plan)
}

// planPrune finds the schedules of the namespaces of list that seen does not name.
func (c *cli) planPrune(ctx context.Context, r *client.Client, list []*nolav1.Schedule, seen map[string]bool, labels []string) (plan []planned, err error) {
	chosen := selection{labels: labels}
	filter, err := chosen.text(c, pflag.NewFlagSet("", pflag.ContinueOnError), "")
	if err != nil {
		return nil, err
	}
	spaces := map[string]bool{}
	for _, s := range list {
		if spaces[s.Namespace] {
			continue
		}
		spaces[s.Namespace] = true
		req := &nolav1.ListSchedulesRequest{Namespace: s.Namespace, Filter: filter, PageSize: pageMax}
		for more := true; more; more = req.PageToken != "" {
			res, err := ask(ctx, c.timeout, r.Schedules.ListSchedules, req)
			if err != nil {
				return nil, err
			}
			for _, have := range res.Schedules {
				if !seen[have.Namespace+"\x00"+have.ScheduleId] {
					have.GetTarget().Payload = nil
					plan = append(plan, planned{want: have, have: have, gone: true})
				}
			}
			if len(plan) > bulkMax {
				return nil, usage("choose fewer with --prune-label", "more than %d schedules would be pruned", bulkMax)
			}
			req.PageToken = res.NextPageToken
		}
	}
	return plan, nil
}

// planSchedule compares a schedule of a file with the one that is there, and has
// the server check what would be new.
func (c *cli) planSchedule(ctx context.Context, r *client.Client, s *nolav1.Schedule, state bool) (planned, error) {
	p := planned{want: s}
	at := func(err error) error {
		e := c.explain(err)
		e.message = fmt.Sprintf("schedule %s: %s; nothing was changed", s.ScheduleId, e.message)
		return e
	}
	if s.Target.Actor.Namespace == "" {
		s.Target.Actor.Namespace = s.Namespace
	}
	res, err := ask(ctx, c.timeout, r.Schedules.GetSchedule, &nolav1.GetScheduleRequest{Namespace: s.Namespace, ScheduleId: s.ScheduleId})
	switch {
	case err == nil:
		p.have = res.Schedule
		if !proto.Equal(p.have.GetTarget().GetActor(), s.Target.Actor) {
			return p, &problem{
				code: exitConflict, hints: []string{fmt.Sprintf("run `nolactl schedule delete %s` first, or give the new one another id", quote(s.ScheduleId))},
				message: fmt.Sprintf("schedule %s calls %s and the file says %s, but the target actor of a schedule never changes; nothing was changed", s.ScheduleId, refName(p.have.GetTarget().GetActor()), refName(s.Target.Actor)),
			}
		}
		have, want := definition(p.have), definition(s)
		if !state {
			if s.State != nil && !proto.Equal(have.State, want.State) {
				c.note("schedule %s: its state differs from the file and stays as it is; --state changes it too", s.ScheduleId)
			}
			s.State, want.State = p.have.State, have.State
		}
		p.mask = changedParts(have, want)
	case nola.Reason(c.explain(err).reason) != nola.ReasonScheduleNotFound:
		return p, at(err)
	}
	if p.have == nil || slices.Contains(p.mask, "spec") || slices.Contains(p.mask, "policy") {
		req := &nolav1.PreviewScheduleRequest{Namespace: s.Namespace, Spec: s.Spec, Policy: s.Policy, ScheduleId: s.ScheduleId, Count: 1}
		res, err := ask(ctx, c.timeout, r.Schedules.PreviewSchedule, req)
		if err != nil {
			return p, at(err)
		}
		if len(res.Times) == 0 && (p.have == nil || slices.Contains(p.mask, "spec")) {
			return p, usage("take it out of the file, or give its spec a later time", "schedule %s has no time left at which it would fire; nothing was changed", s.ScheduleId)
		}
	}
	return p, nil
}

// showPlan writes what would change, line by line.
func (c *cli) showPlan(plan []planned) error {
	if c.output != "" && c.output != formatTable {
		return c.showApplied(plan)
	}
	for _, p := range plan {
		if _, err := fmt.Fprintf(c.out, "schedule %s would be %s\n", clean(p.want.ScheduleId), p.word()); err != nil {
			return err
		}
		if p.have == nil || p.gone || len(p.mask) == 0 {
			continue
		}
		before, err := encode(definition(p.have), formatYAML)
		if err != nil {
			return err
		}
		after, err := encode(definition(p.want), formatYAML)
		if err != nil {
			return err
		}
		for _, line := range lineDiff(string(before), string(after)) {
			if _, err := fmt.Fprintln(c.out, clean("  "+line)); err != nil {
				return err
			}
		}
	}
	c.note("dry run: %s; nothing was changed", tally(plan))
	return nil
}

// carryOut makes the changes, and stops at the first that fails.
func (c *cli) carryOut(ctx context.Context, r *client.Client, plan []planned) error {
	words := c.output == "" || c.output == formatTable
	for i := range plan {
		p := &plan[i]
		made := p.want
		var warnings []*nolav1.ScheduleWarning
		var err error
		switch {
		case p.gone:
			_, err = ask(ctx, c.timeout, r.Schedules.DeleteSchedule, &nolav1.DeleteScheduleRequest{Namespace: p.have.Namespace, ScheduleId: p.have.ScheduleId, Etag: p.have.Etag})
			if err != nil && nola.Reason(c.explain(err).reason) == nola.ReasonScheduleNotFound {
				err = nil // somebody else was faster
			}
		case p.have == nil:
			var res *nolav1.CreateScheduleResponse
			res, err = ask(ctx, c.timeout, r.Schedules.CreateSchedule, &nolav1.CreateScheduleRequest{Schedule: p.want, RequestId: requestIDOr("")})
			if err == nil {
				made, warnings = res.Schedule, res.Warnings
			}
		case len(p.mask) > 0:
			var res *nolav1.UpdateScheduleResponse
			res, err = ask(ctx, c.timeout, r.Schedules.UpdateSchedule, updateRequest(p.want, p.mask, p.have.Etag))
			if err == nil {
				made, warnings = res.Schedule, res.Warnings
			}
		}
		if err != nil {
			e := c.explain(err)
			e.message = fmt.Sprintf("stopped at schedule %s: %s (done before: %s)", p.want.ScheduleId, e.message, tally(plan[:i]))
			e.hints = append(e.hints, "run the command again to go on")
			return e
		}
		p.want = made
		c.warn(warnings)
		if words && p.gone {
			if _, err := fmt.Fprintf(c.out, "schedule %s deleted\n", clean(p.want.ScheduleId)); err != nil {
				return err
			}
		} else if words && p.word() != "unchanged" {
			if err := c.scheduleChanged(p.want, p.word()); err != nil {
				return err
			}
		}
	}
	if !words {
		return c.showApplied(plan)
	}
	_, err := fmt.Fprintln(c.out, tally(plan))
	return err
}

// showApplied writes the schedules that are new or changed for programs.
func (c *cli) showApplied(plan []planned) error {
	var list []*nolav1.Schedule
	for _, p := range plan {
		if p.word() != "unchanged" && !p.gone {
			list = append(list, p.want)
		}
	}
	return c.scheduleListing(func(int32, string) ([]*nolav1.Schedule, string, error) { return list, "", nil }).print(c, 0)
}

func tally(plan []planned) string {
	counts := map[string]int{}
	for _, p := range plan {
		counts[p.word()]++
	}
	text := fmt.Sprintf("%d created, %d changed, %d unchanged", counts["created"], counts["changed"], counts["unchanged"])
	if n := counts["deleted"]; n > 0 {
		text += fmt.Sprintf(", %d deleted", n)
	}
	return text
}
