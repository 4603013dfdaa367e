package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) scheduleCommand() *cobra.Command {
	cmd := c.group("schedule", "Call actors at the times of a spec",
		`A schedule calls an operation of an actor at times that its spec names: cron
expressions, intervals, single times. Every nominal time ends in one recorded
outcome.`,
		`nolactl schedule create morning --target counter/alice --op inc --cron '0 6 * * *' --tz Europe/Berlin
nolactl schedule next '*/15 9-17 * * mon-fri' --tz Europe/Berlin --explain`)
	cmd.AddCommand(
		c.scheduleCreateCommand(), c.scheduleListCommand(), c.scheduleDescribeCommand(), c.scheduleSetCommand(),
		c.scheduleEditCommand(), c.schedulePauseCommand(), c.scheduleUnpauseCommand(), c.scheduleTriggerCommand(),
		c.scheduleHistoryCommand(), c.scheduleDeleteCommand(), c.scheduleNextCommand(),
		c.scheduleBackfillCommand(), c.scheduleBackfillsCommand(), c.scheduleCancelBackfillCommand(), c.scheduleSkipCommand(),
		c.scheduleUnskipCommand(), c.scheduleMoveCommand(), c.scheduleLettersCommand(), c.scheduleRedriveCommand(), c.scheduleWhyCommand(),
		c.scheduleExportCommand(), c.scheduleApplyCommand(),
	)
	return cmd
}

func (c *cli) scheduleCreateCommand() *cobra.Command {
	var f scheduleFlags
	var requestID string
	var dryRun bool
	cmd := leaf("create [ID]", "Make a schedule",
		`Make a schedule from flags, from a YAML or JSON file, or from both: flags win. The
file holds what "nolactl schedule describe -o yaml" shows.

Intervals count from the Unix epoch: "--every 90m/15m" fires 15 minutes behind each
multiple of 90 minutes. Times without an offset are on the clock of --tz, and on
that of this machine without it.`,
		`nolactl schedule create beep --target counter/alice --op inc --every 1s
nolactl schedule create morning --target counter/alice --op inc --cron '0 3 * * *' --tz Europe/Berlin --catchup all,2h,10
nolactl schedule create import --target counter/alice --op inc --every 1h --overlap buffer-all --buffer-limit 20 --retry 2h,5s..10m --pause-after-failures 3
nolactl schedule create report -f schedule.yaml --paused --note 'until the launch'
nolactl schedule create twice --target counter/alice --op add --payload '{"by":2}' --at 2099-01-01 --at 2099-07-01 --limit 2 --label team=core --dry-run`,
		func(cmd *cobra.Command, args []string) error {
			s, err := c.newSchedule(cmd.Flags(), args, &f)
			if err != nil {
				return err
			}
			if dryRun {
				return c.previewSchedule(cmd.Context(), s)
			}
			return c.createSchedule(cmd.Context(), s, requestID)
		})
	f.register(c, cmd)
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "YAML or JSON file that holds the schedule; - reads standard input")
	cmd.Flags().StringVar(&f.target, "target", "", "actor that is called, TYPE/ID")
	cmd.Flags().StringVar(&requestID, "request-id", "", "makes a retry recognisable (default a random one)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show when it would fire, and make nothing")
	complete(cmd, "target", c.completeRef)
	return cmd
}

// newSchedule puts a schedule together from file, flags and arguments.
func (c *cli) newSchedule(given *pflag.FlagSet, args []string, f *scheduleFlags) (*nolav1.Schedule, error) {
	s := &nolav1.Schedule{}
	if f.file != "" {
		list, err := c.schedulesOf(f.file)
		if err != nil {
			return nil, err
		}
		if len(list) > 1 {
			return nil, usage("make them all with `nolactl schedule apply -f "+quote(f.file)+"`", "%s holds %d schedules, want one", f.file, len(list))
		}
		if len(list) == 1 { // else flags say everything
			s = list[0]
		}
	}
	if s.Namespace == "" {
		s.Namespace = c.namespace
	}
	if _, err := f.apply(c, given, s); err != nil {
		return nil, err
	}
	if len(args) > 0 {
		s.ScheduleId = args[0]
	}
	if f.target != "" {
		ref, err := c.parseRef(f.target)
		if err != nil {
			return nil, err
		}
		s.Target.Actor = ref
		if !strings.Contains(strings.SplitN(f.target, "/", 2)[0], ":") {
			s.Target.Actor.Namespace = s.Namespace
		}
	}
	return s, complain(s)
}

func (c *cli) createSchedule(ctx context.Context, s *nolav1.Schedule, requestID string) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	req := &nolav1.CreateScheduleRequest{Schedule: s, RequestId: requestIDOr(requestID)}
	res, err := ask(ctx, c.timeout, r.Schedules.CreateSchedule, req)
	if err != nil {
		return hinted{err, map[nola.Reason]string{
			nola.ReasonAlreadyExists:  fmt.Sprintf("change it with `nolactl schedule set %s`, or choose another id", quote(s.ScheduleId)),
			nola.ReasonOutcomeUnknown: "repeat it with --request-id " + req.RequestId + ": it is made once",
		}}
	}
	c.warn(res.Warnings)
	return c.scheduleChanged(res.Schedule, "created")
}

// requestIDOr is the id that was given, or a new random one.
func requestIDOr(id string) string {
	if id != "" {
		return id
	}
	var b [16]byte
	rand.Read(b[:]) // never fails: the program ends first
	return hex.EncodeToString(b[:])
}

// scheduleChanged tells what was done to a schedule, and when it fires next.
func (c *cli) scheduleChanged(s *nolav1.Schedule, done string) error {
	return c.show(s, s.GetScheduleId(), func() error {
		line := fmt.Sprintf("schedule %s %s", s.GetScheduleId(), done)
		if next := s.GetInfo().GetNextTimes(); len(next) > 0 {
			line += ", next " + c.when(next[0])
		}
		_, err := fmt.Fprintln(c.out, clean(line))
		return err
	})
}

func (c *cli) warn(warnings []*nolav1.ScheduleWarning) {
	for _, w := range warnings {
		where := ""
		if w.Field != "" {
			where = w.Field + ": "
		}
		c.note("warning: %s%s (%s)", where, oneLine(w.Message), w.Code)
	}
}

// previewCount is how many times a preview shows.
const previewCount = 10

func (c *cli) previewSchedule(ctx context.Context, s *nolav1.Schedule) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	res, err := ask(ctx, c.timeout, r.Schedules.PreviewSchedule, &nolav1.PreviewScheduleRequest{Namespace: s.Namespace, Spec: s.Spec, ScheduleId: s.ScheduleId, Count: previewCount})
	if err != nil {
		return err
	}
	c.warn(res.Warnings)
	zone, err := c.zoneOf(s.Spec.TimeZone)
	if err != nil {
		return err
	}
	return c.showPreview(res, zone, true)
}

func (c *cli) listSchedules(ctx context.Context, req *nolav1.ListSchedulesRequest, limit int) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	return c.scheduleListing(func(size int32, token string) ([]*nolav1.Schedule, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := ask(ctx, c.timeout, r.Schedules.ListSchedules, req)
		return res.GetSchedules(), res.GetNextPageToken(), err
	}).print(c, limit)
}

func targetText(t *nolav1.ScheduleTarget) string {
	return refName(t.GetActor()) + " " + t.GetOperation()
}

func (c *cli) stateWord(s *nolav1.ScheduleState) string {
	switch {
	case s.GetPaused():
		return "paused"
	case s.GetLimited() && s.GetRemainingActions() == 0:
		return "exhausted"
	default:
		return "active"
	}
}

func counted(info *nolav1.ScheduleInfo, outcome nolav1.Outcome) uint64 {
	for _, n := range info.GetCounters() {
		if n.Outcome == outcome {
			return n.Count
		}
	}
	return 0
}

// lastOutcome is the outcomes that came with a schedule, the newest first, and
// how long ago that was.
func (c *cli) lastOutcome(info *nolav1.ScheduleInfo) string {
	recent := info.GetRecent()
	if len(recent) == 0 {
		return "-"
	}
	var all []string
	for _, o := range recent {
		all = append(all, outcomeText(o))
	}
	return strings.Join(all, ", ") + " " + c.relative(recent[0].NominalTime.AsTime())
}

// outcomeText is the outcome of an occurrence, with "failed" for a firing whose
// call failed: on the wire only its error tells it from one that went well.
func outcomeText(o *nolav1.Occurrence) string {
	s := word(o.GetOutcome())
	if o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED && o.GetError() != nil {
		s = "failed"
	}
	return s
}

func (c *cli) getSchedule(ctx context.Context, r *client.Client, id string) (*nolav1.Schedule, error) {
	res, err := ask(ctx, c.timeout, r.Schedules.GetSchedule, &nolav1.GetScheduleRequest{Namespace: c.namespace, ScheduleId: id})
	return res.GetSchedule(), err
}

func (c *cli) scheduleDescribeCommand() *cobra.Command {
	cmd := leaf("describe ID", "Show one schedule",
		`Show a schedule with the policies that are in force, what has happened and what
comes next.`,
		`nolactl schedule describe tick
nolactl schedule describe nightly -o yaml`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			s, err := c.getSchedule(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			return c.show(s, s.GetScheduleId(), func() error { return c.describeSchedule(s) })
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) describeSchedule(s *nolav1.Schedule) error {
	d := c.details()
	d.fact("Schedule", s.ScheduleId)
	d.fact("Namespace", s.Namespace)
	d.fact("Target", targetText(s.Target))
	if p := s.Target.GetPayload(); len(p) > 0 {
		d.fact("Payload", fmt.Sprintf("%s (%s)", brief(p), bytesOf(len(p))))
	}
	state := c.stateWord(s.State)
	if s.State.GetPaused() && s.State.GetPausedUntil() != nil {
		state += " until " + c.when(s.State.PausedUntil)
	}
	d.fact("State", state)
	if s.State.GetPausedBy() != "" {
		d.fact("Paused by", s.State.PausedBy)
	}
	if s.State.GetPauseReason() != "" {
		d.fact("Paused itself", oneLine(s.State.PauseReason))
	}
	if s.State.GetNote() != "" {
		d.fact("Note", oneLine(s.State.Note))
	}
	if s.State.GetLimited() {
		d.fact("Firings left", fmt.Sprint(s.State.RemainingActions))
	}
	d.fact("Spec", c.specText(s.Spec)...)
	d.fact("Time zone", orDefault(s.Spec.GetTimeZone(), "UTC"))
	if t := s.Spec.GetStartTime(); t != nil {
		d.fact("From", c.when(t))
	}
	if t := s.Spec.GetEndTime(); t != nil {
		d.fact("Until", c.when(t))
	}
	if j := s.Spec.GetJitter().AsDuration(); j > 0 {
		d.fact("Jitter", exactly(j))
	}
	d.fact("DST gap", enumText(s.Spec.GetDstGap(), nolav1.DstGap_DST_GAP_SKIP))
	d.fact("DST overlap", enumText(s.Spec.GetDstOverlap(), nolav1.DstOverlap_DST_OVERLAP_BOTH))
	d.policyFacts(s.Policy)
	if len(s.Labels) > 0 {
		d.fact("Labels", labelsText(s.Labels))
	}
	info := s.Info
	d.fact("Etag", s.Etag)
	d.fact("Created", c.when(info.GetCreated()))
	d.fact("Updated", c.when(info.GetUpdated()))
	var counters []string
	for _, n := range info.GetCounters() {
		counters = append(counters, fmt.Sprintf("%d %s, last %s", n.Count, word(n.Outcome), c.when(n.LastTime)))
	}
	d.fact("Outcomes", counters...)
	if n := info.GetFailures(); n > 0 {
		d.fact("Failed in a row", fmt.Sprint(n))
	}
	if n := info.GetDeadLetters(); n > 0 {
		d.fact("Dead letters", fmt.Sprintf("%d, see `nolactl schedule letters %s`", n, quote(s.ScheduleId)))
	}
	if carry := info.GetCarry(); carry.GetResultTime() != nil {
		text := fmt.Sprintf("%s (%s)", brief(carry.Result), bytesOf(len(carry.Result)))
		if carry.ResultTooLong {
			text = "too long to be kept"
		}
		d.fact("Last result", text+", of "+c.when(carry.ResultTime))
	}
	if carry := info.GetCarry(); carry.GetErrorTime() != nil {
		d.fact("Last failure", oneLine(carry.Error)+", of "+c.when(carry.ErrorTime))
	}
	for i, o := range info.GetRunning() {
		d.fact(onlyFirst(i, "Running"), "since "+c.when(o.StartTime))
	}
	for i, o := range info.GetRecent() {
		d.fact(onlyFirst(i, "Recent"), c.recentText(o))
	}
	if len(info.GetNextTimes()) == 0 {
		d.fact("Next", "never")
	}
	for i, t := range info.GetNextTimes() {
		d.fact(onlyFirst(i, "Next"), c.when(t))
	}
	return d.flush()
}

func (c *cli) recentText(o *nolav1.Occurrence) string {
	s := c.when(o.NominalTime) + " " + outcomeText(o)
	if o.Count > 1 {
		s += fmt.Sprintf(" %d times", o.Count)
	}
	if o.Error != nil {
		s += ": " + errorText(o.Error)
	}
	return s
}

func onlyFirst(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

func orDefault(s, byDefault string) string {
	if s == "" {
		return byDefault + " (default)"
	}
	return s
}

// enumText is a policy, or the one that is in force where none was chosen.
func enumText[E interface {
	protoreflect.Enum
	~int32
}](e, byDefault E) string {
	if e == 0 {
		return word(byDefault) + " (default)"
	}
	return word(e)
}

func (c *cli) scheduleSetCommand() *cobra.Command {
	var f scheduleFlags
	cmd := leaf("set ID", "Change parts of a schedule",
		`Change what the flags name and leave the rest. --cron, --every and --at together
replace all entries of the spec. An empty value takes a part out, as in --until ''
and --retry ''; 0 takes back a --buffer-limit, --max-concurrent or
--pause-after-failures.
The target actor of a schedule never changes.`,
		`nolactl schedule set tick --every 5s --jitter 500ms
nolactl schedule set tick --overlap buffer-all --buffer-limit 20 --max-concurrent 3
nolactl schedule set nightly --retry 2h,5s..10m,20 --pause-after-failures 3 --catchup all --catchup-spacing 10s
nolactl schedule set nightly --tz Europe/Lisbon --label owner- --label team=core`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			s, err := c.getSchedule(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			mask, err := f.apply(c, cmd.Flags(), s)
			if err != nil {
				return err
			}
			if len(mask) == 0 {
				return usage("run `nolactl schedule set --help` for the flags", "nothing to change was given")
			}
			return c.updateSchedule(cmd.Context(), r, s, mask)
		})
	cmd.Aliases = []string{"update"}
	f.register(c, cmd)
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) updateSchedule(ctx context.Context, r *client.Client, s *nolav1.Schedule, mask []string) error {
	res, err := ask(ctx, c.timeout, r.Schedules.UpdateSchedule, updateRequest(s, mask, s.Etag))
	if err != nil {
		return err
	}
	c.warn(res.Warnings)
	return c.scheduleChanged(res.Schedule, "changed")
}

func updateRequest(s *nolav1.Schedule, mask []string, etag string) *nolav1.UpdateScheduleRequest {
	s.Info = nil
	return &nolav1.UpdateScheduleRequest{Schedule: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, Etag: etag}
}

func (c *cli) schedulePauseCommand() *cobra.Command {
	var note, until string
	many := bulk{do: "pause", done: "paused"}
	cmd := leaf("pause [ID]", "Stop schedules from firing",
		`Stop a schedule from firing, until it is unpaused or until a time. Nominal times
that pass are recorded as paused.`+many.help(),
		`nolactl schedule pause nightly --note 'database maintenance'
nolactl schedule pause tick --until +2h
nolactl schedule pause --label owner=ops --dry-run
nolactl schedule pause --type counter --note 'database maintenance' --yes`,
		func(cmd *cobra.Command, args []string) error {
			end, err := c.timeArg("until", until, c.local)
			if err != nil {
				return err
			}
			id, err := many.one(cmd, args)
			if err != nil {
				return err
			}
			if id == "" {
				return many.run(c, cmd, func(ctx context.Context, r *client.Client, s *nolav1.Schedule) (*nolav1.Schedule, error) {
					req := &nolav1.PauseScheduleRequest{Namespace: c.namespace, ScheduleId: s.ScheduleId, Note: note, Until: end}
					res, err := ask(ctx, c.timeout, r.Schedules.PauseSchedule, req)
					return res.GetSchedule(), err
				})
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.PauseScheduleRequest{Namespace: c.namespace, ScheduleId: id, Note: note, Until: end}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.PauseSchedule, req)
			if err != nil {
				return err
			}
			done := "paused"
			if end != nil {
				done += " until " + c.when(end)
			}
			return c.say(res.Schedule, id, "schedule %s %s", id, done)
		})
	cmd.Flags().StringVar(&note, "note", "", "why, for people")
	cmd.Flags().StringVar(&until, "until", "", "end of the pause, for example "+timeHelp)
	many.register(c, cmd)
	return cmd
}

func (c *cli) scheduleUnpauseCommand() *cobra.Command {
	var note string
	many := bulk{do: "unpause", done: "unpaused"}
	cmd := leaf("unpause [ID]", "Let schedules fire again",
		`Let a schedule fire again, from its next nominal time on.`+many.help(),
		`nolactl schedule unpause nightly
nolactl schedule unpause nightly --note 'maintenance is over'
nolactl schedule unpause --paused --label owner=ops --yes`,
		func(cmd *cobra.Command, args []string) error {
			id, err := many.one(cmd, args)
			if err != nil {
				return err
			}
			if id == "" {
				return many.run(c, cmd, func(ctx context.Context, r *client.Client, s *nolav1.Schedule) (*nolav1.Schedule, error) {
					req := &nolav1.UnpauseScheduleRequest{Namespace: c.namespace, ScheduleId: s.ScheduleId, Note: note}
					res, err := ask(ctx, c.timeout, r.Schedules.UnpauseSchedule, req)
					return res.GetSchedule(), err
				})
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.UnpauseScheduleRequest{Namespace: c.namespace, ScheduleId: id, Note: note}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.UnpauseSchedule, req)
			if err != nil {
				return err
			}
			return c.scheduleChanged(res.Schedule, "unpaused")
		})
	cmd.Flags().StringVar(&note, "note", "", "why, for people")
	many.register(c, cmd)
	return cmd
}

func (c *cli) scheduleTriggerCommand() *cobra.Command {
	var requestID, overlap, payload string
	cmd := leaf("trigger ID", "Fire a schedule once, now",
		`Fire a schedule once, now, whatever its spec says and also while it is paused. The
command returns when the firing is recorded; "nolactl schedule history" tells how it
ended.`,
		`nolactl schedule trigger nightly
nolactl schedule trigger nightly --payload '{"by":3}' --overlap allow-all --request-id rerun-17`,
		func(cmd *cobra.Command, args []string) error {
			req := &nolav1.TriggerScheduleRequest{Namespace: c.namespace, ScheduleId: args[0], RequestId: requestIDOr(requestID)}
			var err error
			if req.Overlap, err = enumArg[nolav1.OverlapPolicy]("overlap", overlap); err != nil {
				return err
			}
			if cmd.Flags().Changed("payload") {
				if req.Payload, err = c.payloadOf(&payload, "", storedPayloadBytesMax); err != nil {
					return err
				}
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.TriggerSchedule, req)
			if err != nil {
				return hinted{err, map[nola.Reason]string{
					nola.ReasonOutcomeUnknown: "repeat it with --request-id " + req.RequestId + ": it fires once",
				}}
			}
			return c.say(res.Occurrence, args[0], "schedule %s triggered at %s: %s",
				args[0], c.clock(res.Occurrence.GetNominalTime().AsTime()), outcomeText(res.Occurrence))
		})
	cmd.Flags().StringVar(&requestID, "request-id", "", "makes a retry recognisable, while it is one of the newest 100 (default a random one)")
	cmd.Flags().StringVar(&overlap, "overlap", "", "instead of the schedule's policy: "+strings.Join(words(nolav1.OverlapPolicy(0)), ", "))
	cmd.Flags().StringVar(&payload, "payload", "", "instead of the schedule's payload; - reads standard input")
	completeWords(cmd, "overlap", words(nolav1.OverlapPolicy(0)))
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleHistoryCommand() *cobra.Command {
	var limit int
	cmd := leaf("history ID", "List what became of the nominal times",
		`List what runs, what waits for that and the recorded outcomes of a schedule, those
of the newest times first. The last 1,000 records are kept, however old they are.
Adjacent times that did not fire for the same reason are one line.`,
		`nolactl schedule history tick
nolactl schedule history tick --limit 5 -o json`,
		func(cmd *cobra.Command, args []string) error {
			return c.scheduleHistory(cmd.Context(), args[0], limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) scheduleHistory(ctx context.Context, id string, limit int) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	return listing[*nolav1.Occurrence]{
		what: "occurrences",
		head: []string{"NOMINAL TIME", "KIND", "OUTCOME", "LATE", "TOOK", "ATTEMPTS", "DETAIL"},
		row:  c.occurrenceRow,
		name: func(o *nolav1.Occurrence) string { return o.NominalTime.AsTime().Format(time.RFC3339Nano) },
		wrap: func(all []*nolav1.Occurrence) proto.Message { return &nolav1.ListOccurrencesResponse{Occurrences: all} },
		fetch: func(size int32, token string) ([]*nolav1.Occurrence, string, error) {
			req := &nolav1.ListOccurrencesRequest{Namespace: c.namespace, ScheduleId: id, PageSize: size, PageToken: token}
			res, err := ask(ctx, c.timeout, r.Schedules.ListOccurrences, req)
			return res.GetOccurrences(), res.GetNextPageToken(), err
		},
	}.print(c, limit)
}

func (c *cli) occurrenceRow(o *nolav1.Occurrence) []string {
	between := func(a, b *timestamppb.Timestamp) string {
		if a == nil || b == nil {
			return "-"
		}
		return took(b.AsTime().Sub(a.AsTime()))
	}
	detail := "-"
	switch {
	case o.Error != nil:
		detail = errorText(o.Error)
	case o.Count > 1:
		detail = fmt.Sprintf("%d times, to %s", o.Count, c.clock(o.LastNominalTime.AsTime()))
	}
	lasted := "-"
	if o.StartTime != nil {
		lasted = between(o.StartTime, o.EndTime)
	}
	return []string{
		c.when(o.NominalTime), word(o.Kind), outcomeText(o), between(o.NominalTime, o.StartTime), lasted,
		fmt.Sprint(o.Attempts), detail,
	}
}

func (c *cli) scheduleDeleteCommand() *cobra.Command {
	many := bulk{do: "delete", done: "deleted", tail: " with their history"}
	cmd := leaf("delete [ID]", "Remove schedules with their history",
		`Remove a schedule with its history. A firing that runs is interrupted
and rolled back, but not what it had called.`+many.help()+`
Schedules that somebody changed meanwhile are left alone.`,
		`nolactl schedule delete tick --yes
nolactl schedule delete nightly --yes -o name
nolactl schedule delete --never-ran --paused --dry-run
nolactl schedule delete --label owner=ops --yes`,
		func(cmd *cobra.Command, args []string) error {
			id, err := many.one(cmd, args)
			if err != nil {
				return err
			}
			if id == "" {
				return many.run(c, cmd, func(ctx context.Context, r *client.Client, s *nolav1.Schedule) (*nolav1.Schedule, error) {
					req := &nolav1.DeleteScheduleRequest{Namespace: c.namespace, ScheduleId: s.ScheduleId, Etag: s.Etag}
					_, err := ask(ctx, c.timeout, r.Schedules.DeleteSchedule, req)
					return s, err
				})
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			if err := c.confirm("delete schedule %s with its history", id); err != nil {
				return err
			}
			req := &nolav1.DeleteScheduleRequest{Namespace: c.namespace, ScheduleId: id}
			res, err := ask(cmd.Context(), c.timeout, r.Schedules.DeleteSchedule, req)
			if err != nil {
				return err
			}
			return c.say(res, id, "schedule %s deleted", id)
		})
	many.register(c, cmd)
	return cmd
}
