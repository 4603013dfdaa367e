package server

import (
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// calendarEntriesOf adds to spec what of m looks at calendars. A date that does
// not exist comes out as one that the scheduler refuses with its place.
func calendarEntriesOf(spec *nola.Spec, m *nolav1.ScheduleSpec) {
	spec.HolidayCalendar = m.GetHolidayCalendar()
	for _, c := range m.GetCalendar() {
		spec.Calendar = append(spec.Calendar, calendarSpecOf(c))
	}
	for _, c := range m.GetCalendarInterval() {
		spec.CalendarInterval = append(spec.CalendarInterval, nola.CalendarInterval{
			Every: int(c.GetEvery()), Unit: nola.CalendarUnit(c.GetUnit()), At: c.GetAt().AsDuration(), From: dateOf(c.GetFrom()),
			TimeZone: c.GetTimeZone(), Comment: c.GetComment(),
		})
	}
	for _, e := range m.GetExclude() {
		x := nola.Exclude{HolidayCalendar: e.GetHolidayCalendar(), TimeZone: e.GetTimeZone(), Comment: e.GetComment()}
		if c := e.GetCalendar(); c != nil {
			cal := calendarSpecOf(c)
			x.Calendar = &cal
		}
		if d := e.GetDates(); d != nil {
			x.Dates = nola.DateRange{From: dateOf(d.GetFrom()), To: dateOf(d.GetTo())}
		}
		spec.Exclude = append(spec.Exclude, x)
	}
}

func calendarSpecOf(m *nolav1.CalendarSpec) nola.CalendarSpec {
	return nola.CalendarSpec{
		Second: m.GetSecond(), Minute: m.GetMinute(), Hour: m.GetHour(),
		DayOfMonth: m.GetDayOfMonth(), Month: m.GetMonth(), DayOfWeek: m.GetDayOfWeek(), Year: m.GetYear(),
		Dialect: nola.CronDialect(fromOne(m.GetDialect())), DayMatch: nola.DayMatch(m.GetDayMatch()),
		TimeZone: m.GetTimeZone(), Comment: m.GetComment(),
	}
}

// dateOf reads a date of the API; empty is none. What is written like a date but
// is none comes out as it was written, so that the refusal can say it.
func dateOf(s string) nola.Date {
	if s == "" {
		return nola.Date{}
	}
	d, err := nola.ParseDate(s)
	if err == nil {
		return d
	}
	if _, err := fmt.Sscanf(s, "%4d-%2d-%2d", &d.Year, &d.Month, &d.Day); err != nil || d.IsZero() {
		return nola.Date{Day: -1}
	}
	return d
}

// calendarEntriesMessage adds to m what of spec looks at calendars.
func calendarEntriesMessage(m *nolav1.ScheduleSpec, spec *nola.Spec) {
	m.HolidayCalendar = spec.HolidayCalendar
	for i := range spec.Calendar {
		m.Calendar = append(m.Calendar, calendarSpecMessage(&spec.Calendar[i]))
	}
	for _, c := range spec.CalendarInterval {
		m.CalendarInterval = append(m.CalendarInterval, &nolav1.CalendarIntervalSpec{
			Every: int32(c.Every), Unit: nolav1.CalendarUnit(c.Unit), At: durationpb.New(c.At), From: c.From.String(),
			TimeZone: c.TimeZone, Comment: c.Comment,
		})
	}
	for _, x := range spec.Exclude {
		e := &nolav1.ExcludeSpec{TimeZone: x.TimeZone, Comment: x.Comment}
		if x.Calendar != nil {
			e.Times = &nolav1.ExcludeSpec_Calendar{Calendar: calendarSpecMessage(x.Calendar)}
		} else if x.HolidayCalendar != "" {
			e.Times = &nolav1.ExcludeSpec_HolidayCalendar{HolidayCalendar: x.HolidayCalendar}
		} else if x.Dates != (nola.DateRange{}) {
			e.Times = &nolav1.ExcludeSpec_Dates{Dates: &nolav1.DateRange{From: x.Dates.From.String(), To: x.Dates.To.String()}}
		}
		m.Exclude = append(m.Exclude, e)
	}
}

func calendarSpecMessage(c *nola.CalendarSpec) *nolav1.CalendarSpec {
	return &nolav1.CalendarSpec{
		Second: c.Second, Minute: c.Minute, Hour: c.Hour, DayOfMonth: c.DayOfMonth, Month: c.Month, DayOfWeek: c.DayOfWeek, Year: c.Year,
		Dialect: toOne[nolav1.CronDialect](c.Dialect), DayMatch: nolav1.DayMatch(c.DayMatch), TimeZone: c.TimeZone, Comment: c.Comment,
	}
}

// calendarOf is the calendar that a client wrote, without what the server adds.
func calendarOf(m *nolav1.Calendar) nola.Calendar {
	c := nola.Calendar{Namespace: namespaceOr(m.GetNamespace()), Name: m.GetName(), Comment: m.GetComment()}
	for _, d := range m.GetDates() {
		c.Dates = append(c.Dates, nola.DateRange{From: dateOf(d.GetFrom()), To: dateOf(d.GetTo())})
	}
	for _, r := range m.GetRules() {
		c.Rules = append(c.Rules, nola.HolidayRule{
			DayOfMonth: r.GetDayOfMonth(), Month: r.GetMonth(), DayOfWeek: r.GetDayOfWeek(), Year: r.GetYear(),
			Easter: nola.Easter(r.GetEaster()), Offset: int(r.GetOffset()), Comment: r.GetComment(),
		})
	}
	return c
}

func calendarMessage(rec *persistence.CalendarEntry) *nolav1.Calendar {
	m := &nolav1.Calendar{
		Namespace: rec.Namespace, Name: rec.Name, Comment: rec.Comment, Version: rec.Version, Etag: calendarETag(rec),
		Created: timeMessage(rec.Created), Updated: timeMessage(rec.Updated),
	}
	for _, d := range rec.Dates {
		m.Dates = append(m.Dates, &nolav1.DateRange{From: d.From.String(), To: d.To.String()})
	}
	for _, r := range rec.Rules {
		m.Rules = append(m.Rules, &nolav1.HolidayRule{
			DayOfMonth: r.DayOfMonth, Month: r.Month, DayOfWeek: r.DayOfWeek, Year: r.Year,
			Easter: nolav1.Easter(r.Easter), Offset: int32(r.Offset), Comment: r.Comment,
		})
	}
	return m
}
