package persistence

import (
	"context"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	storev1 "github.com/nolaproject/nola/proto/nola/store/v1"
)

// CalendarState says what is under way with a calendar. The numbers are storage
// format.
type CalendarState uint8

// The states of a calendar.
const (
	CalendarSettled   CalendarState = 1 // every schedule that uses it has this version of it
	CalendarSpreading CalendarState = 2 // some may still have an older version
	CalendarDeleting  CalendarState = 3 // nobody may begin to use it
)

// CalendarEntry is a named calendar that exists in a namespace.
type CalendarEntry struct {
	nola.Calendar
	State CalendarState
	// Incarnation tells two calendars apart that bear one name one after another.
	Incarnation uint64
}

// Calendar answers a named calendar.
func (c Catalog) Calendar(ctx context.Context, namespace, name string) (CalendarEntry, uint64, error) {
	return catalogGet(ctx, c, SpaceCalendar, catalogKey(namespace, name), decodeCalendarEntry)
}

// PutCalendar creates or changes a named calendar.
func (c Catalog) PutCalendar(ctx context.Context, version uint64, rec CalendarEntry) (uint64, error) {
	return c.CatalogPut(ctx, SpaceCalendar, catalogKey(rec.Namespace, rec.Name), version, encodeCalendarEntry(nil, rec))
}

// DeleteCalendar forgets a named calendar. Schedules keep what they have of it.
func (c Catalog) DeleteCalendar(ctx context.Context, version uint64, namespace, name string) error {
	_, err := c.CatalogPut(ctx, SpaceCalendar, catalogKey(namespace, name), version, nil)
	return err
}

// Calendars answers the namespace's calendars whose names lie behind after, in
// order, at most limit.
func (c Catalog) Calendars(ctx context.Context, namespace, after string, limit int) ([]CalendarEntry, error) {
	if after != "" {
		after = catalogKey(namespace, after)
	}
	return catalogList(ctx, c, SpaceCalendar, catalogKey(namespace, ""), after, limit, decodeCalendarEntry)
}

func encodeCalendarEntry(b []byte, rec CalendarEntry) []byte {
	m := &storev1.CalendarEntry{State: uint32(rec.State), Calendar: calendarMessage(&rec.Calendar), Incarnation: rec.Incarnation}
	m.Calendar.Name = "" // the key has it
	return encodeMessage(b, m)
}

func decodeCalendarEntry(key string, value []byte) (CalendarEntry, error) {
	namespace, name, ok := strings.Cut(key, "\x00")
	if !ok {
		return CalendarEntry{}, damaged("calendar", errKey)
	}
	var m storev1.CalendarEntry
	if err := decodeMessage("calendar", value, &m); err != nil {
		return CalendarEntry{}, err
	}
	cal, err := calendarOf(namespace, m.Calendar)
	if err != nil {
		return CalendarEntry{}, damaged("calendar", err)
	}
	cal.Name = name
	return CalendarEntry{Calendar: cal, State: CalendarState(m.State), Incarnation: m.Incarnation}, nil
}

// calendarsMessage adds to the record of a schedule what of its spec looks at
// calendars.
func calendarsMessage(m *storev1.Schedule, s *nola.Schedule) {
	spec := m.Spec
	spec.HolidayCalendar = s.Spec.HolidayCalendar
	for i := range s.Spec.Calendar {
		spec.Calendar = append(spec.Calendar, calendarSpecMessage(&s.Spec.Calendar[i]))
	}
	for _, c := range s.Spec.CalendarInterval {
		spec.CalendarInterval = append(spec.CalendarInterval, &storev1.CalendarInterval{
			Every: int64(c.Every), Unit: uint32(c.Unit), AtNanos: int64(c.At), From: c.From.String(), TimeZone: c.TimeZone, Comment: c.Comment,
		})
	}
	for _, x := range s.Spec.Exclude {
		e := &storev1.Exclude{HolidayCalendar: x.HolidayCalendar, TimeZone: x.TimeZone, Comment: x.Comment}
		if x.Calendar != nil {
			e.Calendar = calendarSpecMessage(x.Calendar)
		}
		if x.Dates != (nola.DateRange{}) {
			e.Dates = dateRangeMessage(x.Dates)
		}
		spec.Exclude = append(spec.Exclude, e)
	}
	for i := range s.Calendars {
		m.Calendars = append(m.Calendars, calendarMessage(&s.Calendars[i]))
	}
}

func calendarSpecMessage(c *nola.CalendarSpec) *storev1.CalendarSpec {
	return &storev1.CalendarSpec{
		Second: c.Second, Minute: c.Minute, Hour: c.Hour, DayOfMonth: c.DayOfMonth, Month: c.Month, DayOfWeek: c.DayOfWeek, Year: c.Year,
		Dialect: uint32(c.Dialect), DayMatch: uint32(c.DayMatch), TimeZone: c.TimeZone, Comment: c.Comment,
	}
}

func calendarMessage(c *nola.Calendar) *storev1.Calendar {
	m := &storev1.Calendar{Name: c.Name, Version: c.Version, Comment: c.Comment, Created: stamp(c.Created), Updated: stamp(c.Updated)}
	for _, r := range c.Dates {
		m.Dates = append(m.Dates, dateRangeMessage(r))
	}
	for _, r := range c.Rules {
		m.Rules = append(m.Rules, &storev1.HolidayRule{
			DayOfMonth: r.DayOfMonth, Month: r.Month, DayOfWeek: r.DayOfWeek, Year: r.Year, Easter: uint32(r.Easter), Offset: int64(r.Offset), Comment: r.Comment,
		})
	}
	return m
}

func dateRangeMessage(r nola.DateRange) *storev1.DateRange {
	return &storev1.DateRange{From: r.From.String(), To: r.To.String()}
}

// calendarsOf reads what calendarsMessage wrote.
func calendarsOf(s *nola.Schedule, m *storev1.Schedule) (err error) {
	spec := m.GetSpec()
	s.Spec.HolidayCalendar = spec.GetHolidayCalendar()
	for _, c := range spec.GetCalendar() {
		s.Spec.Calendar = append(s.Spec.Calendar, calendarSpecOf(c))
	}
	for _, c := range spec.GetCalendarInterval() {
		iv := nola.CalendarInterval{Every: int(c.Every), Unit: nola.CalendarUnit(c.Unit), At: time.Duration(c.AtNanos), TimeZone: c.TimeZone, Comment: c.Comment}
		if iv.From, err = dateOf(c.From); err != nil {
			return err
		}
		s.Spec.CalendarInterval = append(s.Spec.CalendarInterval, iv)
	}
	for _, e := range spec.GetExclude() {
		x := nola.Exclude{HolidayCalendar: e.HolidayCalendar, TimeZone: e.TimeZone, Comment: e.Comment}
		if e.Calendar != nil {
			c := calendarSpecOf(e.Calendar)
			x.Calendar = &c
		}
		if x.Dates, err = dateRangeOf(e.Dates); err != nil {
			return err
		}
		s.Spec.Exclude = append(s.Spec.Exclude, x)
	}
	for _, c := range m.GetCalendars() {
		cal, err := calendarOf(s.Namespace, c)
		if err != nil {
			return err
		}
		s.Calendars = append(s.Calendars, cal)
	}
	return nil
}

func calendarSpecOf(m *storev1.CalendarSpec) nola.CalendarSpec {
	return nola.CalendarSpec{
		Second: m.Second, Minute: m.Minute, Hour: m.Hour, DayOfMonth: m.DayOfMonth, Month: m.Month, DayOfWeek: m.DayOfWeek, Year: m.Year,
		Dialect: nola.CronDialect(m.Dialect), DayMatch: nola.DayMatch(m.DayMatch), TimeZone: m.TimeZone, Comment: m.Comment,
	}
}

func calendarOf(namespace string, m *storev1.Calendar) (nola.Calendar, error) {
	c := nola.Calendar{
		Namespace: namespace, Name: m.GetName(), Version: m.GetVersion(), Comment: m.GetComment(),
		Created: moment(m.GetCreated()), Updated: moment(m.GetUpdated()),
	}
	for _, d := range m.GetDates() {
		r, err := dateRangeOf(d)
		if err != nil {
			return c, err
		}
		c.Dates = append(c.Dates, r)
	}
	for _, r := range m.GetRules() {
		c.Rules = append(c.Rules, nola.HolidayRule{
			DayOfMonth: r.DayOfMonth, Month: r.Month, DayOfWeek: r.DayOfWeek, Year: r.Year, Easter: nola.Easter(r.Easter), Offset: int(r.Offset), Comment: r.Comment,
		})
	}
	return c, nil
}

func dateRangeOf(m *storev1.DateRange) (r nola.DateRange, err error) {
	if r.From, err = dateOf(m.GetFrom()); err != nil {
		return r, err
	}
	r.To, err = dateOf(m.GetTo())
	return r, err
}

func dateOf(s string) (nola.Date, error) {
	if s == "" {
		return nola.Date{}, nil
	}
	return nola.ParseDate(s)
}
