package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/scheduler"
)

// nextCountMax is how many times `schedule next` tells at most.
const nextCountMax = 1_000

func (c *cli) scheduleNextCommand() *cobra.Command {
	var f scheduleFlags
	var after string
	var count int
	var explain bool
	var id string
	var files []string
	cmd := leaf("next EXPRESSION", "Tell when a cron expression fires, without a server",
		`Tell the next times of a cron expression, or of a macro such as @daily or
@every 90s. No server is asked: the same engine runs here. Of a schedule that is there,
"nolactl schedule describe" tells the next times. With --explain it also
shows how the expression is read, where the clocks change, and what may surprise.`,
		`nolactl schedule next '0 3 * * *' --tz Europe/Berlin
nolactl schedule next '30 2 * * *' --tz Europe/Berlin --after 2026-03-27 --count 4 --explain
nolactl schedule next '0 9 L * *' --exclude 'day_of_week=sat,sun' --exclude 2026-12-24..2026-12-31
nolactl schedule next '0 9 1B * *' --holidays bank --calendar-file bank=calendar.yaml
nolactl schedule next 'H 3 * * *' --id nightly
nolactl schedule next '@every 90s' --count 3 -o json`,
		func(cmd *cobra.Command, args []string) error {
			if count < 1 || count > nextCountMax {
				return usage("", "--count is %d, it must lie between 1 and %d", count, nextCountMax)
			}
			f.cron = args
			calendars, err := c.offlineCalendars(files)
			if err != nil {
				return err
			}
			return c.notAnID(args[0], c.next(cmd.Flags(), &f, calendars, id, after, count, explain))
		})
	f.registerSpec(c, cmd)
	cmd.Flags().StringArrayVar(&files, "calendar-file", nil, "NAME=FILE of a calendar that --holidays or --exclude-calendar names; may be repeated")
	cmd.Flags().StringVar(&after, "after", "", "begin behind this time (default now)")
	cmd.Flags().StringVar(&id, "id", "", "id of the schedule, which chooses what H stands for")
	cmd.Flags().IntVar(&count, "count", previewCount, "how many times")
	cmd.Flags().BoolVar(&explain, "explain", false, "show how it is read and what may surprise")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// notAnID adds to the refusal of an expression of one word, which none but a
// macro can be, that it may be the id of a schedule.
func (c *cli) notAnID(expression string, err error) error {
	var faulty *scheduler.SpecError
	if !errors.As(err, &faulty) || len(strings.Fields(expression)) != 1 || strings.HasPrefix(expression, "@") {
		return err
	}
	p := c.explain(err)
	p.hints = append(p.hints,
		fmt.Sprintf("if it is the id of a schedule, `nolactl schedule describe %s` tells its next times", quote(expression)),
		fmt.Sprintf("to ask for an expression as that schedule reads it: `nolactl schedule next 'H 3 * * *' --id %s`", quote(expression)))
	return p
}

func (c *cli) next(given *pflag.FlagSet, f *scheduleFlags, calendars []nola.Calendar, id, after string, count int, explain bool) error {
	c.offline = true
	wire := &nolav1.ScheduleSpec{}
	if err := f.applySpec(c, given, wire); err != nil {
		return err
	}
	var err error
	zone := time.UTC
	if wire.TimeZone != "" {
		if zone, err = c.zoneOf(wire.TimeZone); err != nil {
			return err
		}
	}
	now := c.now()
	if after != "" {
		if now, err = c.parseTime(after, zone); err != nil {
			return usage("", "--after: %s", err)
		}
	}
	spec := specOf(wire)
	compiled, warnings, err := scheduler.Compile(spec, id, scheduler.Anchored(now), scheduler.WithCalendars(calendars...))
	if err != nil {
		return err
	}
	warnings = append(warnings, compiled.Warnings(now)...) // of what comes after now, which moves below
	res := &nolav1.PreviewScheduleResponse{Description: scheduler.Describe(spec, scheduler.Seeded(id))}
	for range count {
		t, ok := compiled.Next(now)
		if !ok {
			break
		}
		res.Times = append(res.Times, timestamppb.New(t))
		now = t
	}
	for _, w := range warnings {
		res.Warnings = append(res.Warnings, &nolav1.ScheduleWarning{Code: string(w.Code), Message: w.Message})
	}
	if explain {
		res.Description += fmt.Sprintf("; DST gap %s, DST overlap %s",
			enumText(wire.DstGap, nolav1.DstGap_DST_GAP_SKIP), enumText(wire.DstOverlap, nolav1.DstOverlap_DST_OVERLAP_BOTH))
		c.warn(res.Warnings)
	}
	return c.showPreview(res, zone, explain)
}

// showPreview writes times on the clock of zone. With explain it also writes the
// description, the distance between times, and where the offset changes.
func (c *cli) showPreview(p *nolav1.PreviewScheduleResponse, zone *time.Location, explain bool) error {
	if c.output == formatName {
		for _, t := range p.Times {
			fmt.Fprintln(c.out, t.AsTime().In(zone).Format(time.RFC3339Nano))
		}
		return nil
	}
	return c.show(p, "", func() error {
		if explain && p.Description != "" {
			fmt.Fprintln(c.out, clean(p.Description))
		}
		if len(p.Times) == 0 {
			c.note("no times")
			return nil
		}
		if !explain {
			t := c.table("TIME", "")
			for _, at := range p.Times {
				t.row(at.AsTime().In(zone).Format(clockLayout+" -07:00 MST"), c.relative(at.AsTime()))
			}
			return t.flush()
		}
		t := c.table("TIME", "", "STEP", "")
		for i, at := range p.Times {
			local := at.AsTime().In(zone)
			step, mark := "-", ""
			if i > 0 {
				before := p.Times[i-1].AsTime().In(zone)
				step = exactly(local.Sub(before))
				mark = clocksChange(before, local)
			}
			t.row(local.Format(clockLayout+" -07:00 MST"), c.relative(local), step, mark)
		}
		return t.flush()
	})
}

// clocksChange tells that the offset of the zone differs between two times.
func clocksChange(before, after time.Time) string {
	_, was := before.Zone()
	_, is := after.Zone()
	d := exactly(time.Duration(max(is-was, was-is)) * time.Second)
	switch {
	case is > was:
		return "the clocks went forward by " + d
	case is < was:
		return "the clocks went back by " + d
	default:
		return ""
	}
}

// specOf is a spec as the scheduler takes it.
func specOf(s *nolav1.ScheduleSpec) nola.Spec {
	spec := nola.Spec{HolidayCalendar: s.GetHolidayCalendar(), TimeZone: s.GetTimeZone(), Jitter: s.GetJitter().AsDuration()}
	for _, e := range s.GetCron() {
		spec.Cron = append(spec.Cron, nola.Cron{Expression: e.Expression, Dialect: nola.CronDialect(max(e.Dialect-1, 0)), DayMatch: nola.DayMatch(e.DayMatch), TimeZone: e.TimeZone, Comment: e.Comment})
	}
	for _, e := range s.GetInterval() {
		spec.Interval = append(spec.Interval, nola.Interval{Every: e.GetEvery().AsDuration(), Phase: e.GetPhase().AsDuration()})
	}
	for _, e := range s.GetExclude() {
		x := nola.Exclude{TimeZone: e.TimeZone, Comment: e.Comment}
		if d := e.GetDates(); d != nil {
			// the words were checked as they were read
			x.Dates.From, _ = nola.ParseDate(d.From)
			x.Dates.To, _ = nola.ParseDate(d.To)
		} else if x.HolidayCalendar = e.GetHolidayCalendar(); x.HolidayCalendar == "" {
			f := e.GetCalendar()
			x.Calendar = &nola.CalendarSpec{
				Second: f.GetSecond(), Minute: f.GetMinute(), Hour: f.GetHour(), DayOfMonth: f.GetDayOfMonth(), Month: f.GetMonth(),
				DayOfWeek: f.GetDayOfWeek(), Year: f.GetYear(), Dialect: nola.CronDialect(max(f.GetDialect()-1, 0)), DayMatch: nola.DayMatch(f.GetDayMatch()),
			}
		}
		spec.Exclude = append(spec.Exclude, x)
	}
	for _, t := range s.GetAt() {
		spec.At = append(spec.At, t.AsTime())
	}
	if s.GetStartTime() != nil {
		spec.Start = s.StartTime.AsTime()
	}
	if s.GetEndTime() != nil {
		spec.End = s.EndTime.AsTime()
	}
	// On the wire zero means unspecified, which stands for the first policy.
	spec.DSTGap = nola.DSTGap(max(s.GetDstGap()-1, 0))
	spec.DSTOverlap = nola.DSTOverlap(max(s.GetDstOverlap()-1, 0))
	return spec
}
