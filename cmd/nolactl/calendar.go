package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// applyCalendars puts --dialect, --calendar, --holidays and what is excluded into
// spec.
func (f *scheduleFlags) applyCalendars(given *pflag.FlagSet, spec *nolav1.ScheduleSpec) error {
	for _, text := range f.calendars {
		entry, err := calendarArg("calendar", text)
		if err != nil {
			return err
		}
		spec.Calendar = append(spec.Calendar, entry)
	}
	if given.Changed("holidays") {
		spec.HolidayCalendar = f.holidays
	}
	if given.Changed("exclude") || given.Changed("exclude-calendar") {
		spec.Exclude = nil
	}
	for _, text := range f.excludes {
		if from, to, found := strings.Cut(text, ".."); found || !strings.Contains(text, "=") {
			for _, day := range [...]string{from, to} {
				if _, err := nola.ParseDate(day); err != nil && day != "" {
					return usage("", "--exclude: %s", err)
				}
			}
			spec.Exclude = append(spec.Exclude, &nolav1.ExcludeSpec{Times: &nolav1.ExcludeSpec_Dates{Dates: &nolav1.DateRange{From: from, To: to}}})
			continue
		}
		entry, err := calendarArg("exclude", text)
		if err != nil {
			return err
		}
		spec.Exclude = append(spec.Exclude, &nolav1.ExcludeSpec{Times: &nolav1.ExcludeSpec_Calendar{Calendar: entry}})
	}
	for _, name := range f.excludeCalendars {
		if err := nola.ValidateCalendarName(name); err != nil {
			return usage("", "--exclude-calendar: %s", err)
		}
		spec.Exclude = append(spec.Exclude, &nolav1.ExcludeSpec{Times: &nolav1.ExcludeSpec_HolidayCalendar{HolidayCalendar: name}})
	}
	if given.Changed("dialect") {
		dialect, err := enumArg[nolav1.CronDialect]("dialect", f.dialect)
		if err != nil {
			return err
		}
		for _, entry := range spec.Cron {
			entry.Dialect = dialect
		}
	}
	return nil
}

// calendarFields are the fields of a structured calendar in their order.
func calendarFields(s *nolav1.CalendarSpec) ([]string, []*string) {
	return []string{"second", "minute", "hour", "day_of_month", "month", "day_of_week", "year"},
		[]*string{&s.Second, &s.Minute, &s.Hour, &s.DayOfMonth, &s.Month, &s.DayOfWeek, &s.Year}
}

// calendarArg reads "hour=9 day_of_week=mon-fri".
func calendarArg(flag, text string) (*nolav1.CalendarSpec, error) {
	s := &nolav1.CalendarSpec{}
	names, values := calendarFields(s)
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		i := slices.Index(names, name)
		if i < 0 || value == "" {
			return nil, usage("fields are "+strings.Join(names, ", "), "--%s: %q is not FIELD=VALUE", flag, word)
		}
		*values[i] = value
	}
	return s, nil
}

// calendarText is what of a spec looks at calendars, an entry a line.
func calendarText(spec *nolav1.ScheduleSpec) []string {
	var lines []string
	add := func(line, zone, comment string) {
		if zone != "" {
			line += " " + zone
		}
		if comment != "" {
			line += " # " + oneLine(comment)
		}
		lines = append(lines, line)
	}
	for _, e := range spec.GetCalendar() {
		zone := e.TimeZone
		if zone == "" {
			zone = spec.GetTimeZone()
		}
		add("calendar "+fieldsText(e), zone, e.Comment)
	}
	for _, e := range spec.GetCalendarInterval() {
		line := fmt.Sprintf("every %d %s at %s", e.Every, word(e.Unit), time.Unix(0, 0).UTC().Add(e.GetAt().AsDuration()).Format(time.TimeOnly))
		if e.From != "" {
			line += " from " + e.From
		}
		zone := e.TimeZone
		if zone == "" {
			zone = spec.GetTimeZone()
		}
		add(line, zone, e.Comment)
	}
	for _, e := range spec.GetExclude() {
		line := "except "
		if d := e.GetDates(); e.GetHolidayCalendar() != "" {
			line += "the dates of " + e.GetHolidayCalendar()
		} else if d == nil {
			line += fieldsText(e.GetCalendar())
		} else if line += d.From; d.To != "" {
			line += ".." + d.To
		}
		add(line, e.TimeZone, e.Comment)
	}
	if spec.GetHolidayCalendar() != "" {
		lines = append(lines, "holidays of "+spec.GetHolidayCalendar())
	}
	return lines
}

func fieldsText(s *nolav1.CalendarSpec) string {
	names, values := calendarFields(s)
	var out []string
	for i, v := range values {
		if *v != "" {
			out = append(out, names[i]+"="+*v)
		}
	}
	return strings.Join(out, " ")
}
