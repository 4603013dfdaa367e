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
	"github.com/nolaproject/nola/scheduler"
)

// daysMax is how many days `calendar days` shows at most.
const daysMax = 1_000

func (c *cli) calendarCommand() *cobra.Command {
	cmd := c.group("calendar", "Manage named holiday calendars",
		`A calendar is a named set of dates of a namespace, such as the public holidays of
a country. A schedule leaves its dates out with --exclude-calendar, and takes them
for no business days with --holidays. A change of a calendar moves what fires next
in every schedule that uses it.`,
		`nolactl calendar put bank -f calendar.yaml
nolactl calendar days bank`)
	cmd.AddCommand(
		c.calendarPutCommand(), c.calendarGetCommand(), c.calendarListCommand(),
		c.calendarDaysCommand(), c.calendarDeleteCommand(),
	)
	return cmd
}

func (c *cli) calendarPutCommand() *cobra.Command {
	var file, etag string
	var create, dry, empty bool
	cmd := leaf("put NAME", "Make a calendar, or change it",
		`Make the calendar of a YAML or JSON file, or replace what it says. The file has a
list of dates, such as 2026-12-24 or 2026-12-24..2026-12-31, and a list of rules for
dates that come back:

  dates: [2026-12-24..2026-12-31]
  rules:
    - {month: "12", day_of_month: "25"}
    - {easter: western, offset: -2}

Every schedule that uses the calendar is planned anew; the answer names those whose
coming times change. If the file has an etag, as "calendar get -o yaml" writes it,
somebody else's change is not overwritten. A file without dates and rules empties a
calendar only with --empty.`,
		`nolactl calendar put bank -f calendar.yaml
nolactl calendar put bank -f calendar.yaml --dry-run`,
		func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usage("for example: nolactl calendar put "+args[0]+" -f calendar.yaml", "-f is missing: the file that holds the calendar")
			}
			cal, err := c.calendarFile(file)
			if err != nil {
				return err
			}
			if cal.Name != "" && cal.Name != args[0] {
				return usage("name it the same, or leave the name out of the file", "%s holds calendar %q, not %q", file, cal.Name, args[0])
			}
			if cal.Namespace != "" && cal.Namespace != c.namespace {
				return usage("add -n "+cal.Namespace, "%s holds a calendar of namespace %q, not %q", file, cal.Namespace, c.namespace)
			}
			if !cmd.Flags().Changed("etag") {
				etag = cal.Etag
			}
			cal.Namespace, cal.Name = c.namespace, args[0]
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.PutCalendarRequest{Calendar: cal, Etag: etag, CreateOnly: create, DryRun: dry, AllowEmpty: empty}
			res, err := ask(cmd.Context(), c.timeout, r.Calendars.PutCalendar, req)
			if err != nil {
				return err
			}
			return c.show(res, args[0], func() error { return c.showPut(res, args[0], dry) })
		})
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML or JSON file of the calendar; - reads standard input")
	cmd.Flags().StringVar(&etag, "etag", "", "etag that the calendar must have (default that of the file)")
	cmd.Flags().BoolVar(&create, "create", false, "refuse if the calendar exists")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing, show which schedules would change")
	cmd.Flags().BoolVar(&empty, "empty", false, "let a file without dates and rules take the place of a calendar that has some")
	cmd.ValidArgsFunction = c.completeCalendars
	return cmd
}

// showPut says what became of a calendar and of the schedules that use it.
func (c *cli) showPut(res *nolav1.PutCalendarResponse, name string, dry bool) error {
	if dry {
		fmt.Fprintf(c.out, "calendar %s would change; %s\n", clean(name), uses(res))
	} else {
		fmt.Fprintf(c.out, "calendar %s stands in version %d; %s\n", clean(name), res.Calendar.GetVersion(), uses(res))
	}
	if len(res.Uses) == 0 {
		return nil
	}
	t := c.table("SCHEDULE", "NEXT", "FIRST CHANGE")
	for _, use := range res.Uses {
		change := "none"
		if use.FirstChange != nil {
			change = c.when(use.FirstChange)
		}
		t.row(use.ScheduleId, c.when(use.NextTime), change)
	}
	return t.flush()
}

func uses(res *nolav1.PutCalendarResponse) string {
	switch res.UseCount {
	case 0:
		return "no schedule uses it"
	case 1:
		return "1 schedule uses it"
	}
	return fmt.Sprintf("%d schedules use it", res.UseCount)
}

// calendarFile reads a calendar from a file.
func (c *cli) calendarFile(file string) (*nolav1.Calendar, error) {
	cal := &nolav1.Calendar{}
	if err := c.decodeFile(file, cal); err != nil {
		return nil, err
	}
	return cal, nil
}

func (c *cli) calendarGetCommand() *cobra.Command {
	cmd := leaf("get NAME", "Show one calendar", `Show one calendar. With -o yaml it is written as "calendar put" reads it.`,
		`nolactl calendar get bank
nolactl calendar get bank -o yaml > mine.yaml && nolactl calendar put bank -f mine.yaml`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			cal, err := c.getCalendar(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			return c.show(cal, cal.Name, func() error {
				d := c.details()
				d.fact("Calendar", cal.Name)
				d.fact("Version", fmt.Sprint(cal.Version))
				if cal.Comment != "" {
					d.fact("Comment", oneLine(cal.Comment))
				}
				d.fact("Days", calendarLines(cal)...)
				d.fact("Created", c.when(cal.Created))
				d.fact("Updated", c.when(cal.Updated))
				return d.flush()
			})
		})
	cmd.ValidArgsFunction = c.completeCalendars
	return cmd
}

func (c *cli) getCalendar(ctx context.Context, r *client.Client, name string) (*nolav1.Calendar, error) {
	res, err := ask(ctx, c.timeout, r.Calendars.GetCalendar, &nolav1.GetCalendarRequest{Namespace: c.namespace, Name: name})
	return res.GetCalendar(), err
}

// calendarLines is what a calendar holds, an entry a line.
func calendarLines(cal *nolav1.Calendar) []string {
	var lines []string
	for _, d := range cal.Dates {
		line := d.From
		if d.To != "" {
			line += ".." + d.To
		}
		lines = append(lines, line)
	}
	for _, r := range cal.Rules {
		line := fieldsText(&nolav1.CalendarSpec{DayOfMonth: r.DayOfMonth, Month: r.Month, DayOfWeek: r.DayOfWeek, Year: r.Year})
		switch {
		case r.Easter != 0 && r.Offset == 0:
			line = word(r.Easter) + " Easter Sunday"
		case r.Easter != 0:
			line = fmt.Sprintf("%s Easter Sunday %+d days", word(r.Easter), r.Offset)
		}
		if r.Comment != "" {
			line += " # " + oneLine(r.Comment)
		}
		lines = append(lines, line)
	}
	return lines
}

func (c *cli) calendarListCommand() *cobra.Command {
	var limit int
	cmd := leaf("list", "List the calendars of a namespace", `List the calendars of a namespace in the order of their names.`,
		`nolactl calendar list
nolactl calendar list -o name`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Calendar]{
				what: "calendars",
				head: []string{"NAME", "VERSION", "UPDATED", "COMMENT"},
				row: func(m *nolav1.Calendar) []string {
					return []string{m.Name, fmt.Sprint(m.Version), c.when(m.Updated), oneLine(m.Comment)}
				},
				name: func(m *nolav1.Calendar) string { return m.Name },
				wrap: func(all []*nolav1.Calendar) proto.Message { return &nolav1.ListCalendarsResponse{Calendars: all} },
				fetch: func(size int32, token string) ([]*nolav1.Calendar, string, error) {
					req := &nolav1.ListCalendarsRequest{Namespace: c.namespace, PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Calendars.ListCalendars, req)
					return res.GetCalendars(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	return cmd
}

func (c *cli) calendarDaysCommand() *cobra.Command {
	var file, from, to string
	var limit int32
	cmd := leaf("days [NAME]", "List the days of a calendar",
		`List the days that a calendar holds, from today on for a year unless told
otherwise. With -f the calendar is that of a file, and no server is asked.`,
		`nolactl calendar days bank --from 2026-01-01 --to 2026-12-31
nolactl calendar days -f calendar.yaml`,
		func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > daysMax {
				return usage("", "--limit is %d, it must lie between 1 and %d", limit, daysMax)
			}
			if (len(args) == 1) == (file != "") {
				return usage("", "name a calendar, or a file with -f, and not both")
			}
			for flag, text := range map[string]string{"from": from, "to": to} {
				if _, err := nola.ParseDate(text); text != "" && err != nil {
					return usage("", "--%s: %s", flag, err)
				}
			}
			if file != "" {
				return c.fileDays(file, from, to, int(limit))
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.ListCalendarDaysRequest{Namespace: c.namespace, Name: args[0], From: from, To: to, Limit: limit}
			res, err := ask(cmd.Context(), c.timeout, r.Calendars.ListCalendarDays, req)
			if err != nil {
				return err
			}
			return c.showDays(res)
		})
	cmd.Flags().StringVarP(&file, "file", "f", "", "file of the calendar; - reads standard input")
	cmd.Flags().StringVar(&from, "from", "", "first day of interest, such as 2026-01-01 (default today)")
	cmd.Flags().StringVar(&to, "to", "", "last day of interest (default a year later)")
	cmd.Flags().Int32Var(&limit, "limit", daysMax, "show at most so many")
	cmd.ValidArgsFunction = c.completeCalendars
	return cmd
}

// fileDays lists the days of a calendar in a file. The dates were checked as they
// were read.
func (c *cli) fileDays(file, from, to string, limit int) error {
	c.offline = true
	m, err := c.calendarFile(file)
	if err != nil {
		return err
	}
	cal, err := calendarOf(m)
	if err != nil {
		return usage("", "%s: %s", file, err)
	}
	if err := scheduler.CheckCalendar(&cal); err != nil {
		return err
	}
	first := nola.DateOf(c.now().UTC())
	if from != "" {
		first, _ = nola.ParseDate(from)
	}
	last, _ := nola.ParseDate(to)
	if to == "" {
		last = nola.DateOf(time.Date(first.Year+1, first.Month, first.Day, 0, 0, 0, 0, time.UTC))
	}
	res := &nolav1.ListCalendarDaysResponse{}
	for _, d := range scheduler.CalendarDays(&cal, first, last, limit) {
		res.Days = append(res.Days, d.String())
	}
	return c.showDays(res)
}

func (c *cli) showDays(res *nolav1.ListCalendarDaysResponse) error {
	if c.output == formatName {
		for _, day := range res.Days {
			fmt.Fprintln(c.out, clean(day))
		}
		return nil
	}
	return c.show(res, "", func() error {
		if len(res.Days) == 0 {
			c.note("no days")
			return nil
		}
		t := c.table("DAY", "")
		for _, day := range res.Days {
			name := ""
			if d, err := nola.ParseDate(day); err == nil {
				name = time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC).Weekday().String()
			}
			t.row(day, name)
		}
		return t.flush()
	})
}

func (c *cli) calendarDeleteCommand() *cobra.Command {
	var etag string
	cmd := leaf("delete NAME", "Remove a calendar that no schedule uses",
		`Remove a calendar. While schedules use it that is refused, and they are named.`,
		`nolactl calendar delete old --yes
nolactl calendar delete old -y -o name`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			if err := c.confirm("delete calendar %s of namespace %s", args[0], c.namespace); err != nil {
				return err
			}
			req := &nolav1.DeleteCalendarRequest{Namespace: c.namespace, Name: args[0], Etag: etag}
			res, err := ask(cmd.Context(), c.timeout, r.Calendars.DeleteCalendar, req)
			if err != nil {
				return err
			}
			return c.say(res, args[0], "calendar %s deleted", args[0])
		})
	cmd.Flags().StringVar(&etag, "etag", "", "etag that the calendar must have")
	cmd.ValidArgsFunction = c.completeCalendars
	return cmd
}

func (c *cli) completeCalendars(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeCalendarFlag(cmd, nil, typed)
}

func (c *cli) completeCalendarFlag(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return c.completing(cmd, func(ctx context.Context, r *client.Client) []string {
		res, _ := ask(ctx, completionWait, r.Calendars.ListCalendars, &nolav1.ListCalendarsRequest{Namespace: c.namespace, PageSize: pageMax})
		var names []string
		for _, m := range res.GetCalendars() {
			names = append(names, m.Name)
		}
		return beginningWith(names, typed)
	})
}

// calendarOf is a calendar as the scheduler takes it.
func calendarOf(m *nolav1.Calendar) (nola.Calendar, error) {
	cal := nola.Calendar{Name: m.Name, Comment: m.Comment}
	for i, d := range m.Dates {
		var r nola.DateRange
		var err error
		if r.From, err = nola.ParseDate(d.From); err == nil && d.To != "" {
			r.To, err = nola.ParseDate(d.To)
		}
		if err != nil {
			return cal, fmt.Errorf("dates[%d]: %w", i, err)
		}
		cal.Dates = append(cal.Dates, r)
	}
	for _, r := range m.Rules {
		cal.Rules = append(cal.Rules, nola.HolidayRule{
			DayOfMonth: r.DayOfMonth, Month: r.Month, DayOfWeek: r.DayOfWeek, Year: r.Year,
			Easter: nola.Easter(r.Easter), Offset: int(r.Offset), Comment: r.Comment,
		})
	}
	return cal, nil
}

// offlineCalendars reads the calendars that a spec names, for who asks no server.
func (c *cli) offlineCalendars(files []string) ([]nola.Calendar, error) {
	var all []nola.Calendar
	for _, arg := range files {
		name, file, found := strings.Cut(arg, "=")
		if !found {
			return nil, usage("for example --calendar-file bank=calendar.yaml", "--calendar-file: %q is not NAME=FILE", arg)
		}
		m, err := c.calendarFile(file)
		if err != nil {
			return nil, err
		}
		cal, err := calendarOf(m)
		if err != nil {
			return nil, usage("", "%s: %s", file, err)
		}
		cal.Name = name
		all = append(all, cal)
	}
	return all, nil
}
