package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// scheduleFlags describe a schedule on a command line. A flag that was not given
// leaves its part as it is.
type scheduleFlags struct {
	file, target, op, payload string
	cron, every, at           []string
	dayMatch                  string
	tz, from, until, jitter   string
	dstGap, dstOverlap        string
	policy                    policyFlags
	paused                    bool
	note                      string
	limit                     int64
	labels                    []string
	dialect                   string
	calendars, excludes       []string
	holidays                  string
	excludeCalendars          []string
}

// noLimit is what --limit takes for no limit on the firings.
const noLimit = -1

// registerSpec adds the flags that say when.
func (f *scheduleFlags) registerSpec(c *cli, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.tz, "tz", "", "IANA time zone, for example Europe/Berlin (default UTC)")
	fs.StringVar(&f.from, "from", "", "no firing before this time, for example "+timeHelp)
	fs.StringVar(&f.until, "until", "", "no firing after this time")
	fs.StringVar(&f.dayMatch, "day-match", "", "how day of month and day of week combine: "+strings.Join(words(nolav1.DayMatch(0)), ", "))
	fs.StringVar(&f.dstGap, "dst-gap", "", "local times that the clocks jump over: "+strings.Join(words(nolav1.DstGap(0)), ", "))
	fs.StringVar(&f.dstOverlap, "dst-overlap", "", "local times that come twice: "+strings.Join(words(nolav1.DstOverlap(0)), ", "))
	fs.StringVar(&f.dialect, "dialect", "", "how cron expressions are read: "+strings.Join(words(nolav1.CronDialect(0)), ", "))
	fs.StringArrayVar(&f.excludes, "exclude", nil, "never at these times: fields such as 'month=12 day_of_month=24-26', or dates FROM..TO; may be repeated")
	fs.StringVar(&f.holidays, "holidays", "", "named calendar whose dates are no business days (1B, LB and the like)")
	fs.StringArrayVar(&f.excludeCalendars, "exclude-calendar", nil, "never on the dates of this named calendar; may be repeated")
	complete(cmd, "holidays", c.completeCalendarFlag)
	complete(cmd, "exclude-calendar", c.completeCalendarFlag)
	completeWords(cmd, "dialect", words(nolav1.CronDialect(0)))
	completeWords(cmd, "day-match", words(nolav1.DayMatch(0)))
	completeWords(cmd, "dst-gap", words(nolav1.DstGap(0)))
	completeWords(cmd, "dst-overlap", words(nolav1.DstOverlap(0)))
}

// register adds all flags but --target, which only a new schedule takes.
func (f *scheduleFlags) register(c *cli, cmd *cobra.Command) {
	f.registerSpec(c, cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.op, "op", "", "operation that a firing calls")
	fs.StringVar(&f.payload, "payload", "", "payload of the call; - reads standard input")
	fs.StringArrayVar(&f.cron, "cron", nil, "cron expression, or @hourly, @every 90s and the like; may be repeated")
	fs.StringArrayVar(&f.calendars, "calendar", nil, "wall-clock times by fields, such as 'hour=9 day_of_week=mon-fri'; may be repeated")
	fs.StringArrayVar(&f.every, "every", nil, "interval such as 90m, or 90m/15m with its offset; may be repeated")
	fs.StringArrayVar(&f.at, "at", nil, "single time on the clock of --tz; may be repeated")
	fs.StringVar(&f.jitter, "jitter", "", "spread the firings over so much time behind their nominal times")
	fs.BoolVar(&f.paused, "paused", false, "do not fire until unpaused")
	fs.StringVar(&f.note, "note", "", "note for people, for example why it is paused")
	fs.Int64Var(&f.limit, "limit", noLimit, "rest after so many firings; -1 for no limit")
	fs.StringArrayVar(&f.labels, "label", nil, "label key=value, or key- to take it out; may be repeated")
	f.policy.register(cmd)
}

// apply puts the flags that were given into s, and names the parts of it that
// they touched.
func (f *scheduleFlags) apply(c *cli, given *pflag.FlagSet, s *nolav1.Schedule) (mask []string, err error) {
	touched := func(path string, flags ...string) bool {
		for _, name := range flags {
			if given.Changed(name) {
				mask = append(mask, path)
				return true
			}
		}
		return false
	}
	if s.Target == nil {
		s.Target = &nolav1.ScheduleTarget{}
	}
	if touched("target.operation", "op") {
		s.Target.Operation = f.op
	}
	if touched("target.payload", "payload") {
		if s.Target.Payload, err = c.payloadOf(&f.payload, "", storedPayloadBytesMax); err != nil {
			return nil, err
		}
	}
	if touched("spec", "cron", "calendar", "every", "at", "exclude", "exclude-calendar", "holidays", "dialect",
		"tz", "from", "until", "jitter", "dst-gap", "dst-overlap", "day-match") {
		if s.Spec == nil {
			s.Spec = &nolav1.ScheduleSpec{}
		}
		if err := f.applySpec(c, given, s.Spec); err != nil {
			return nil, err
		}
	}
	if touched("policy", policyFlagNames...) {
		if s.Policy == nil {
			s.Policy = &nolav1.SchedulePolicy{}
		}
		if err := f.policy.apply(given, s.Policy); err != nil {
			return nil, err
		}
	}
	if s.State == nil {
		s.State = &nolav1.ScheduleState{}
	}
	if touched("state.paused", "paused") {
		s.State.Paused = f.paused
		if s.State.PausedUntil != nil {
			s.State.PausedUntil = nil
			mask = append(mask, "state.paused_until")
		}
	}
	if touched("state.note", "note") {
		s.State.Note = f.note
	}
	if touched("state.limited", "limit") {
		if f.limit < noLimit {
			return nil, usage("", "--limit is %d; want a number of firings, or -1 for no limit", f.limit)
		}
		s.State.Limited, s.State.RemainingActions = f.limit != noLimit, max(f.limit, 0)
		mask = append(mask, "state.remaining_actions")
	}
	if touched("labels", "label") {
		if s.Labels, err = labelsArg(s.Labels, f.labels); err != nil {
			return nil, err
		}
	}
	return mask, nil
}

// applySpec puts the flags that say when into spec. Entries that are given
// replace all that were there.
func (f *scheduleFlags) applySpec(c *cli, given *pflag.FlagSet, spec *nolav1.ScheduleSpec) (err error) {
	if given.Changed("tz") {
		spec.TimeZone = f.tz
	}
	zone, err := c.zoneOf(spec.TimeZone)
	if err != nil {
		return err
	}
	if given.Changed("cron") || given.Changed("calendar") || given.Changed("every") || given.Changed("at") {
		spec.Cron, spec.Calendar, spec.Interval, spec.CalendarInterval, spec.At = nil, nil, nil, nil, nil
	}
	for _, expression := range f.cron {
		spec.Cron = append(spec.Cron, &nolav1.CronSpec{Expression: expression})
	}
	if err := f.applyCalendars(given, spec); err != nil {
		return err
	}
	for _, s := range f.every {
		iv, err := parseInterval(s)
		if err != nil {
			return err
		}
		spec.Interval = append(spec.Interval, iv)
	}
	for _, s := range f.at {
		t, err := c.parseTime(s, zone)
		if err != nil {
			return usage("", "--at: %s", err)
		}
		spec.At = append(spec.At, timestamppb.New(t))
	}
	if given.Changed("day-match") {
		match, err := enumArg[nolav1.DayMatch]("day-match", f.dayMatch)
		if err != nil {
			return err
		}
		for _, entry := range spec.Cron {
			entry.DayMatch = match
		}
	}
	if given.Changed("from") {
		if spec.StartTime, err = c.timeArg("from", f.from, zone); err != nil {
			return err
		}
	}
	if given.Changed("until") {
		if spec.EndTime, err = c.timeArg("until", f.until, zone); err != nil {
			return err
		}
	}
	if given.Changed("jitter") {
		if spec.Jitter, err = durationArg("jitter", f.jitter); err != nil {
			return err
		}
	}
	if given.Changed("dst-gap") {
		if spec.DstGap, err = enumArg[nolav1.DstGap]("dst-gap", f.dstGap); err != nil {
			return err
		}
	}
	if given.Changed("dst-overlap") {
		if spec.DstOverlap, err = enumArg[nolav1.DstOverlap]("dst-overlap", f.dstOverlap); err != nil {
			return err
		}
	}
	return nil
}

// zoneOf is the clock on which times without an offset are read. Without a zone
// in the spec it is that of this machine, as for every other time.
func (c *cli) zoneOf(name string) (*time.Location, error) {
	if name == "" {
		return c.local, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, usage("time zones are written like Europe/Berlin or UTC", "--tz: there is no time zone %q", name)
	}
	return zone, nil
}

// parseInterval reads EVERY or EVERY/OFFSET.
func parseInterval(s string) (*nolav1.IntervalSpec, error) {
	every, phase, _ := strings.Cut(s, "/")
	iv := &nolav1.IntervalSpec{}
	var err error
	if iv.Phase, err = durationArg("every", phase); err != nil {
		return nil, err
	}
	if iv.Every, err = durationArg("every", every); err == nil && iv.Every == nil {
		err = usage("", "--every: write an interval like 90m, or 90m/15m with its offset")
	}
	return iv, err
}

// specText is a spec, an entry a line.
func (c *cli) specText(spec *nolav1.ScheduleSpec) []string {
	var lines []string
	for _, e := range spec.GetCron() {
		line := "cron " + e.Expression
		zone := e.TimeZone
		if zone == "" {
			zone = spec.GetTimeZone()
		}
		if zone != "" {
			line += " " + zone
		}
		if e.DayMatch != 0 {
			line += ", days " + word(e.DayMatch)
		}
		if e.Dialect > nolav1.CronDialect_CRON_DIALECT_AUTO {
			line += ", dialect " + word(e.Dialect)
		}
		if e.Comment != "" {
			line += " # " + oneLine(e.Comment)
		}
		lines = append(lines, line)
	}
	for _, e := range spec.GetInterval() {
		line := "every " + exactly(e.Every.AsDuration())
		if p := e.Phase.AsDuration(); p != 0 {
			line += " + " + exactly(p)
		}
		if e.Anchor != nil {
			line += " from " + c.clock(e.Anchor.AsTime())
		} else if e.Anchored {
			line += " from its start"
		}
		lines = append(lines, line)
	}
	for _, t := range spec.GetAt() {
		lines = append(lines, "at "+c.clock(t.AsTime()))
	}
	return append(lines, calendarText(spec)...)
}

// specBrief is a spec in a cell of a table.
func (c *cli) specBrief(spec *nolav1.ScheduleSpec) string {
	lines := c.specText(spec)
	switch len(lines) {
	case 0:
		return "-"
	case 1:
		return lines[0]
	default:
		return lines[0] + " and " + strconv.Itoa(len(lines)-1) + " more"
	}
}

// completeWords completes a flag that takes one of a few words.
func completeWords(cmd *cobra.Command, flag string, all []string) {
	complete(cmd, flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return all, cobra.ShellCompDirectiveNoFileComp
	})
}
