package nola

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of calendars.
const (
	CalendarNameBytesMax = 128
	CalendarDatesMax     = 10_000 // dates of one named calendar
	CalendarRulesMax     = 200    // rules of one named calendar
	CalendarsPerSpecMax  = 10     // named calendars that one spec uses
	CalendarEveryMax     = 36_500 // units of a calendar interval
)

// CalendarSpec is due at the wall-clock times at which every field matches. The
// fields are those of a cron expression of dialect full, with all its syntax.
// Where Second, Minute or Hour is empty it is 0; the other fields match
// everything where they are empty.
type CalendarSpec struct {
	Second, Minute, Hour         string
	DayOfMonth, Month, DayOfWeek string
	Year                         string
	// Dialect says how the fields are read, as for a cron expression: which
	// number Sunday has, which years are legal. DialectAuto is DialectFull.
	Dialect  CronDialect
	DayMatch DayMatch
	TimeZone string
	Comment  string
}

// CalendarUnit is what a calendar interval counts. The numbers are storage format.
type CalendarUnit uint8

// The units.
const (
	UnitDay   CalendarUnit = 1
	UnitWeek  CalendarUnit = 2
	UnitMonth CalendarUnit = 3
	UnitYear  CalendarUnit = 4
)

// CalendarInterval is due every so many days, weeks, months or years at one
// wall-clock time. It counts from the date From. Months and years keep its day,
// or have the last day of a shorter month.
type CalendarInterval struct {
	Every int // 1-CalendarEveryMax
	Unit  CalendarUnit
	// At is the time of day, in whole seconds, below 24 h.
	At time.Duration
	// From is the first date. Zero: the date, in the time zone of the entry, of
	// the spec's Start or, without one, of the schedule's creation.
	From     Date
	TimeZone string
	Comment  string
}

// Exclude takes times away from a spec: those that one of Calendar,
// HolidayCalendar and Dates matches. Exactly one of them is set. The clock it
// looks at is that of TimeZone or, if that is empty, of the entry whose time it
// judges.
type Exclude struct {
	// Calendar matches the wall-clock times that match its fields. Other than in
	// an entry, an empty Second, Minute or Hour matches everything, so that
	// a date alone takes the whole day; dialect temporal keeps the 0 of its
	// origin. Its own TimeZone is not used.
	Calendar *CalendarSpec
	// HolidayCalendar matches the dates of a named calendar.
	HolidayCalendar string
	// Dates matches whole days.
	Dates    DateRange
	TimeZone string
	Comment  string
}

// Date is a day of the Gregorian calendar. The zero Date is none.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// ParseDate reads YYYY-MM-DD.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("%.40q is no date; write one like 2026-12-24", s)
	}
	return DateOf(t), nil
}

// DateOf is the date that t shows in its location.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// IsZero reports whether d is none.
func (d Date) IsZero() bool { return d == Date{} }

// String is YYYY-MM-DD; of the zero Date, nothing.
func (d Date) String() string {
	if d.IsZero() {
		return ""
	}
	return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day)
}

// Valid reports whether the date exists.
func (d Date) Valid() bool {
	return d.Month >= 1 && d.Month <= 12 && DateOf(time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC)) == d
}

// Compare orders dates.
func (d Date) Compare(other Date) int {
	return (d.Year*10_000 + int(d.Month)*100 + d.Day) - (other.Year*10_000 + int(other.Month)*100 + other.Day)
}

// DateRange is the days from From to To, both inclusive. A zero To is From.
type DateRange struct{ From, To Date }

// Calendar is a named set of dates of a namespace, such as the public holidays
// of a country. Specs name it; what it says goes into every schedule that does.
type Calendar struct {
	Namespace string
	Name      string
	// Version counts the changes, from 1.
	Version uint64
	Dates   []DateRange
	Rules   []HolidayRule
	Comment string
	Created time.Time
	Updated time.Time
}

// HolidayRule is a date that comes back. Either Easter is set, and the rule
// matches the day that lies Offset days after Easter Sunday (before it, if
// negative), or the date fields are, with the syntax of dialect full:
// DayOfMonth 25W in December is the workday nearest Christmas Day. An empty
// field matches everything; not all may be empty.
type HolidayRule struct {
	DayOfMonth, Month, DayOfWeek, Year string
	Easter                             Easter
	Offset                             int // -200 to 200
	Comment                            string
}

// Easter is a way to reckon the date of Easter. The numbers are storage format.
type Easter uint8

// The ways.
const (
	EasterNone     Easter = 0
	EasterWestern  Easter = 1 // by the Gregorian calendar
	EasterOrthodox Easter = 2 // by the Julian calendar, as a Gregorian date
)

// CalendarNames are the named calendars that s uses, sorted, each once.
func (s *Spec) CalendarNames() []string {
	var out []string
	if s.HolidayCalendar != "" {
		out = append(out, s.HolidayCalendar)
	}
	for i := range s.Exclude {
		if name := s.Exclude[i].HolidayCalendar; name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ValidateCalendarName refuses what cannot name a calendar.
func ValidateCalendarName(name string) error {
	if name == "" || len(name) > CalendarNameBytesMax || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) {
		return Errorf(ReasonInvalidArgument, "%.60q is no name of a calendar; use 1 to %d letters, digits, dots, hyphens and underscores", name, CalendarNameBytesMax)
	}
	return nil
}
