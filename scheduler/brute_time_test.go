package scheduler_test

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// bruteTime is a cron entry that is tested time by time, with the time package alone.
// What each item of it means is written here anew.
type bruteTime struct {
	second, minute, hour, month bruteField
	day, weekday                bruteDays
	year                        bruteField
	calendar                    nola.Calendar   // of its holidays; none if it has no name
	holidays                    map[string]bool // the same, by date
	cron                        nola.Cron       // what is tested
}

// bruteField is a set of numbers.
type bruteField struct {
	text string
	in   map[int]bool // nil: all
}

// bruteDays is a field for days: one of its items must match.
type bruteDays struct {
	items []bruteItem // none: the field is open
	open  string      // how it is written then
}

type bruteItem struct {
	text    string
	matches func(day time.Time, holidays map[string]bool) bool
}

func only(n int) bruteField { return bruteField{fmt.Sprint(n), map[int]bool{n: true}} }

// interval reports whether the entry recurs within a day in the sense of the overlap
// policy "unless interval".
func (b *bruteTime) interval() bool {
	return strings.ContainsAny(b.second.text+b.minute.text+b.hour.text, "*-/")
}

func (b *bruteTime) matchesMinute(local time.Time) bool {
	return b.minute.in[local.Minute()] && b.hour.in[local.Hour()] && b.matchesDay(local)
}

func (b *bruteTime) matchesDay(local time.Time) bool {
	if !b.month.in[int(local.Month())] || b.year.in != nil && !b.year.in[local.Year()] {
		return false
	}
	some := func(f bruteDays) bool {
		for _, item := range f.items {
			if item.matches(local, b.holidays) {
				return true
			}
		}
		return len(f.items) == 0
	}
	if len(b.day.items) > 0 && len(b.weekday.items) > 0 && b.either() {
		return some(b.day) || some(b.weekday)
	}
	return some(b.day) && some(b.weekday)
}

// either reports whether one of two day fields that restrict suffices.
func (b *bruteTime) either() bool {
	switch b.cron.DayMatch {
	case nola.DayMatchOr:
		return true
	case nola.DayMatchAnd:
		return false
	}
	return b.cron.Dialect == nola.DialectUnix || b.cron.Dialect == nola.DialectSeconds
}

func monthEnd(t time.Time) int {
	return time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func worked(weekday time.Weekday) bool { return weekday != time.Saturday && weekday != time.Sunday }

// nearest reports whether day is the one from Monday to Friday that lies nearest to
// the n-th of its month, in this month.
func nearest(day time.Time, n int) bool {
	end := monthEnd(day)
	if n < 1 || n > end {
		return false
	}
	for away := range 3 {
		for _, d := range []int{n - away, n + away} {
			if at := time.Date(day.Year(), day.Month(), d, 0, 0, 0, 0, time.UTC); 1 <= d && d <= end && worked(at.Weekday()) {
				return d == day.Day()
			}
		}
	}
	return false
}

// business counts the business days of the month from its first day up to day, and
// from day to its last; both are 0 if day is none.
func business(day time.Time, holidays map[string]bool) (before, behind int) {
	at := time.Date(day.Year(), day.Month(), 1, 0, 0, 0, 0, time.UTC)
	is := func() bool { return worked(at.Weekday()) && !holidays[at.Format(time.DateOnly)] }
	found := false
	for ; at.Month() == day.Month(); at = at.AddDate(0, 0, 1) {
		switch {
		case !is():
		case at.Day() < day.Day():
			before++
		case at.Day() == day.Day():
			before, behind, found = before+1, 1, true
		default:
			behind++
		}
	}
	if !found {
		return 0, 0
	}
	return before, behind
}

// randomDay is an item of the field of days in a month.
func randomDay(r *rand.Rand) bruteItem {
	n := 1 + r.Intn(31)
	of := func(text string, matches func(time.Time) bool) bruteItem {
		return bruteItem{text, func(day time.Time, _ map[string]bool) bool { return matches(day) }}
	}
	switch r.Intn(12) {
	case 0:
		to := n + r.Intn(32-n)
		return of(fmt.Sprintf("%d-%d", n, to), func(day time.Time) bool { return n <= day.Day() && day.Day() <= to })
	case 1:
		step := 2 + r.Intn(20)
		return of(fmt.Sprintf("%d/%d", n, step), func(day time.Time) bool { return day.Day() >= n && (day.Day()-n)%step == 0 })
	case 2:
		step := 2 + r.Intn(20)
		return of(fmt.Sprintf("*/%d", step), func(day time.Time) bool { return day.Day()%step == 1%step })
	case 3:
		return of("L", func(day time.Time) bool { return day.AddDate(0, 0, 1).Day() == 1 })
	case 4:
		return of(fmt.Sprintf("L-%d", n-1), func(day time.Time) bool { return day.Day() == monthEnd(day)-n+1 })
	case 5:
		return of(fmt.Sprintf("%dW", n), func(day time.Time) bool { return nearest(day, n) })
	case 6:
		return of("LW", func(day time.Time) bool { return nearest(day, monthEnd(day)) })
	case 7:
		return of(fmt.Sprintf("L-%dW", n-1), func(day time.Time) bool { return nearest(day, monthEnd(day)-n+1) })
	case 8, 9:
		n = 1 + n%23 // a month has no more of them
		if r.Intn(2) == 0 {
			return bruteItem{fmt.Sprintf("%dB", n), func(day time.Time, holidays map[string]bool) bool {
				before, _ := business(day, holidays)
				return before == n
			}}
		}
		text := fmt.Sprintf("L-%dB", n-1)
		if n == 1 {
			text = "LB"
		}
		return bruteItem{text, func(day time.Time, holidays map[string]bool) bool {
			_, behind := business(day, holidays)
			return behind == n
		}}
	}
	return of(fmt.Sprint(n), func(day time.Time) bool { return day.Day() == n })
}

// randomWeekday is an item of the field of weekdays.
func randomWeekday(r *rand.Rand, dialect nola.CronDialect) bruteItem {
	d := time.Weekday(r.Intn(7))
	name := func(d time.Weekday) string {
		switch {
		case r.Intn(2) == 0:
			return strings.ToUpper(d.String()[:3])
		case dialect == nola.DialectQuartz:
			return fmt.Sprint(int(d) + 1)
		case d == time.Sunday && r.Intn(2) == 0:
			return "7"
		}
		return fmt.Sprint(int(d))
	}
	of := func(text string, matches func(time.Time) bool) bruteItem {
		return bruteItem{text, func(day time.Time, _ map[string]bool) bool { return matches(day) }}
	}
	switch r.Intn(5) {
	case 0:
		k := 1 + r.Intn(5)
		return of(fmt.Sprintf("%s#%d", name(d), k), func(day time.Time) bool { return day.Weekday() == d && (day.Day()+6)/7 == k })
	case 1:
		text := name(d) + []string{"L", "#L"}[r.Intn(2)]
		return of(text, func(day time.Time) bool { return day.Weekday() == d && day.AddDate(0, 0, 7).Month() != day.Month() })
	case 2:
		to := min(d+time.Weekday(r.Intn(4)), time.Saturday)
		return of(strings.ToUpper(d.String()[:3]+"-"+to.String()[:3]), func(day time.Time) bool { return d <= day.Weekday() && day.Weekday() <= to })
	}
	return of(name(d), func(day time.Time) bool { return day.Weekday() == d })
}

// randomDays is a field of up to three items, of which one matches day half of the
// time.
func randomDays(r *rand.Rand, day time.Time, item func() bruteItem) bruteDays {
	var f bruteDays
	for range 1 + r.Intn(3) {
		f.items = append(f.items, item())
	}
	for tries := 30; tries > 0 && r.Intn(30) > 0; tries-- {
		if x := item(); x.matches(day, nil) {
			f.items[0] = x
			break
		}
	}
	return f
}

// randomField is a list of numbers, ranges and steps from lo to hi.
func randomField(r *rand.Rand, lo, hi, most int, names []string) bruteField {
	f := bruteField{in: map[int]bool{}}
	size := hi - lo + 1
	name := func(n int) string {
		if len(names) > 0 && r.Intn(2) == 0 {
			return names[n-lo]
		}
		return fmt.Sprint(n)
	}
	var parts []string
	for range 1 + r.Intn(most) {
		a, n, step := r.Intn(size), 1, 1
		text := name(lo + a)
		switch r.Intn(6) {
		case 0: // a range, which may lead over the end of the field
			n = 1 + r.Intn(min(size, 12))
			text += "-" + name(lo+(a+n-1)%size)
			if step = 1 + r.Intn(3); step > 1 {
				text += fmt.Sprintf("/%d", step)
			}
		case 1:
			n, step = size-a, 1+r.Intn(size)
			text += fmt.Sprintf("/%d", step)
		}
		for i := 0; i < n; i += step {
			f.in[lo+(a+i)%size] = true
		}
		parts = append(parts, text)
	}
	f.text = strings.Join(parts, ",")
	return f
}

func openField(lo, hi int) bruteField {
	f := bruteField{text: "*", in: map[int]bool{}}
	for n := lo; n <= hi; n++ {
		f.in[n] = true
	}
	return f
}

// randomYears holds the year most of the time.
func randomYears(r *rand.Rand, year int) bruteField {
	f := bruteField{in: map[int]bool{}}
	lo := max(year-r.Intn(3), 1970)
	switch step := 1 + r.Intn(4); r.Intn(4) {
	case 0:
		f.text = fmt.Sprint(year)
		f.in[year] = true
	case 1:
		f.text = fmt.Sprintf("%d,%d-%d", lo-1, lo, lo+2)
		for _, y := range []int{lo - 1, lo, lo + 1, lo + 2} {
			f.in[y] = true
		}
		if lo == 1970 {
			return randomYears(r, year)
		}
	case 2:
		f.text = fmt.Sprintf("%d/%d", lo, step)
		for y := lo; y <= 9999; y += step {
			f.in[y] = true
		}
	default:
		return bruteField{text: "*"}
	}
	return f
}

// randomTime is an entry that matches times near about more often than not.
func randomTime(r *rand.Rand, about time.Time) *bruteTime {
	b := &bruteTime{second: only(0), month: openField(1, 12), year: bruteField{text: "*"}}
	b.cron.Dialect = []nola.CronDialect{nola.DialectFull, nola.DialectFull, nola.DialectSeconds, nola.DialectUnix, nola.DialectQuartz}[r.Intn(5)]
	b.cron.DayMatch = nola.DayMatch(r.Intn(3))
	b.minute = randomField(r, 0, 59, 3, nil)
	switch r.Intn(4) {
	case 0:
		b.hour = openField(0, 23)
	case 1: // the hours in which clocks change
		b.hour = randomField(r, 0, 3, 3, nil)
		if strings.ContainsAny(b.hour.text, "-/") { // of another field, these mean more
			b.hour = only(2)
		}
	default:
		b.hour = randomField(r, 0, 23, 4, nil)
	}
	if b.cron.Dialect != nola.DialectUnix && r.Intn(3) == 0 {
		b.second = randomField(r, 0, 59, 2, nil)
	}
	if r.Intn(4) == 0 {
		names := []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
		b.month = randomField(r, 1, 12, 3, names)
		if m := int(about.Month()); r.Intn(4) > 0 && !b.month.in[m] {
			b.month.text += "," + names[m-1]
			b.month.in[m] = true
		}
	}
	if seven := b.cron.Dialect == nola.DialectFull || b.cron.Dialect == nola.DialectQuartz; seven && r.Intn(4) == 0 {
		b.year = randomYears(r, about.Year())
	}
	b.day.open, b.weekday.open = "*", "*"
	quartz := b.cron.Dialect == nola.DialectQuartz // wants one open day field, and marks it
	kind := r.Intn(5)
	if quartz && kind == 0 {
		kind = 1
	}
	if kind <= 1 {
		b.day = randomDays(r, about, func() bruteItem { return randomDay(r) })
	}
	if kind%2 == 0 && kind < 4 {
		b.weekday = randomDays(r, about, func() bruteItem { return randomWeekday(r, b.cron.Dialect) })
	}
	if quartz {
		if b.weekday.open = "?"; kind != 1 {
			b.weekday.open, b.day.open = "*", "?"
		}
	}
	if r.Intn(2) == 0 {
		b.calendar.Name, b.holidays = "holidays", map[string]bool{}
		first := time.Date(about.Year(), about.Month(), 1, 0, 0, 0, 0, time.UTC)
		for range 1 + r.Intn(100) {
			day := first.AddDate(0, 0, r.Intn(1000)-200)
			b.calendar.Dates = append(b.calendar.Dates, nola.DateRange{From: nola.DateOf(day), To: nola.DateOf(day)})
			b.holidays[day.Format(time.DateOnly)] = true
		}
	}
	b.render()
	return b
}

// compile compiles the entry alone. One that no date matches is refused: c is nil then.
func (b *bruteTime) compile(t *testing.T, zones *scheduler.Zones, spec nola.Spec) (c *scheduler.Compiled) {
	t.Helper()
	spec.Cron, spec.HolidayCalendar = []nola.Cron{b.cron}, b.calendar.Name
	c, _, err := zones.Compile(spec, "", scheduler.WithCalendars(b.calendar))
	if err != nil && !strings.Contains(err.Error(), "never fire") {
		t.Fatalf("%+v: %v", b.cron, err)
	}
	return c
}

// render writes the entry down in its dialect.
func (b *bruteTime) render() {
	days := func(f bruteDays) string {
		if len(f.items) == 0 {
			return f.open
		}
		var parts []string
		for _, item := range f.items {
			parts = append(parts, item.text)
		}
		return strings.Join(parts, ",")
	}
	parts := []string{b.second.text, b.minute.text, b.hour.text, days(b.day), b.month.text, days(b.weekday), b.year.text}
	switch b.cron.Dialect {
	case nola.DialectUnix:
		parts = parts[1:6]
	case nola.DialectSeconds:
		parts = parts[:6]
	}
	b.cron.Expression = strings.Join(parts, " ")
}
