package scheduler

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/nolaproject/nola"
)

// Describe says in plain words when a spec is due, for people. What cannot be
// read is quoted as it is. With [Seeded] it says what H stands for.
func Describe(spec nola.Spec, options ...Option) string {
	var b builder
	b.with(options)
	var parts []string
	for _, c := range spec.Cron {
		parts = append(parts, describeCron(c, spec.TimeZone, b.hash))
	}
	for i := range spec.Calendar {
		parts = append(parts, b.describeWall(&spec.Calendar[i], "0", orElse(spec.Calendar[i].TimeZone, spec.TimeZone)))
	}
	for _, iv := range spec.Interval {
		parts = append(parts, describeInterval(iv))
	}
	for _, ci := range spec.CalendarInterval {
		parts = append(parts, describeCalendarInterval(ci, orElse(ci.TimeZone, spec.TimeZone)))
	}
	for i, at := range spec.At {
		if i == 3 && len(spec.At) > 4 {
			parts = append(parts, fmt.Sprintf("at %d further times", len(spec.At)-i))
			break
		}
		parts = append(parts, "at "+at.UTC().Format(time.RFC3339))
	}
	if len(parts) == 0 {
		return "only when triggered"
	}
	out := strings.Join(parts, "; and ")
	for i := range spec.Exclude {
		out += ", except " + b.describeExclude(&spec.Exclude[i])
	}
	if spec.HolidayCalendar != "" {
		out += ", with the holidays of " + clip(spec.HolidayCalendar)
	}
	if !spec.Start.IsZero() {
		out += ", from " + spec.Start.UTC().Format(time.RFC3339)
	}
	if !spec.End.IsZero() {
		out += ", until " + spec.End.UTC().Format(time.RFC3339)
	}
	if spec.Jitter > 0 {
		out += ", spread over " + duration(spec.Jitter)
	}
	return out
}

func describeInterval(iv nola.Interval) string {
	out := "every " + duration(iv.Every)
	if iv.Phase > 0 {
		out += ", " + duration(iv.Phase) + " into each"
	}
	switch {
	case !iv.Anchor.IsZero():
		out += ", counted from " + iv.Anchor.UTC().Format(time.RFC3339)
	case iv.Anchored:
		out += ", counted from its start"
	}
	return out
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func describeCalendarInterval(ci nola.CalendarInterval, zone string) string {
	unit := map[nola.CalendarUnit]string{nola.UnitDay: "day", nola.UnitWeek: "week", nola.UnitMonth: "month", nola.UnitYear: "year"}[ci.Unit]
	out := "every " + unit
	if ci.Every != 1 {
		out = fmt.Sprintf("every %d %ss", ci.Every, unit)
	}
	at := time.Unix(0, 0).UTC().Add(ci.At)
	layout := "15:04"
	if at.Second() != 0 {
		layout = time.TimeOnly
	}
	out += " at " + at.Format(layout)
	if !ci.From.IsZero() {
		out += ", counted from " + ci.From.String()
	}
	return out + " (" + orElse(zone, "UTC") + ")"
}

func (b *builder) describeWall(s *nola.CalendarSpec, unset, zone string) string {
	p := b.structured("calendar", s, unset)
	if p == nil {
		return "a calendar that cannot be read"
	}
	return p.out.cron.words(orElse(zone, "UTC"))
}

func (b *builder) describeExclude(x *nola.Exclude) string {
	switch {
	case x.Calendar != nil:
		unset := "*"
		if x.Calendar.Dialect == nola.DialectTemporal {
			unset = "0"
		}
		p := b.structured("exclude", x.Calendar, unset)
		if p == nil {
			return "a calendar that cannot be read"
		}
		c := &p.out.cron
		if c.covers(&cron{second: 1<<60 - 1, minute: 1<<60 - 1, hour: 1<<24 - 1}) {
			return strings.TrimSpace(c.dayWords() + c.monthsAndYears())
		}
		return c.times() + c.dayWords() + c.monthsAndYears()
	case x.HolidayCalendar != "":
		return "on the days of " + clip(x.HolidayCalendar)
	case x.Dates.To.IsZero() || x.Dates.To == x.Dates.From:
		return "on " + x.Dates.From.String()
	default:
		return "from " + x.Dates.From.String() + " to " + x.Dates.To.String()
	}
}

// duration writes whole weeks, days, hours, ... without the zeros of
// time.Duration.
func duration(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{7 * 24 * time.Hour, "week"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if d >= u.size && d%u.size == 0 {
			if d == u.size {
				return u.name
			}
			return fmt.Sprintf("%d %ss", d/u.size, u.name)
		}
	}
	return d.String()
}

func describeCron(entry nola.Cron, zone string, seed uint64) string {
	p, faults, _ := parseCron(entry, seed)
	if len(faults) > 0 {
		return fmt.Sprintf("%q", clip(entry.Expression))
	}
	if p.isEvery {
		return describeInterval(p.interval)
	}
	if entry.TimeZone != "" {
		zone = entry.TimeZone
	}
	if p.zone != "" {
		zone = p.zone
	}
	if zone == "" {
		zone = "UTC"
	}
	return p.cron.words(zone)
}

func (c *cron) words(zone string) string {
	return c.times() + c.dayWords() + c.monthsAndYears() + " (" + zone + ")"
}

func (c *cron) monthsAndYears() string {
	out := ""
	if c.month != allMonths {
		out += " in " + list(uint64(c.month), func(n int) string { return time.Month(n).String() })
	}
	if len(c.years) > 0 {
		var years []string
		for _, r := range c.years {
			switch {
			case r.lo == r.hi:
				years = append(years, strconv.Itoa(r.lo))
			case r.step == 1:
				years = append(years, fmt.Sprintf("%d to %d", r.lo, r.hi))
			default:
				years = append(years, fmt.Sprintf("every %s year from %d to %d", ordinal(r.step), r.lo, r.hi))
			}
		}
		out += " of " + and(years)
	}
	return out
}

// times describes the time of day.
func (c *cron) times() string {
	const all60, all24 = uint64(1<<60 - 1), uint32(1<<24 - 1)
	h, m, s := bits.OnesCount32(c.hour), bits.OnesCount64(c.minute), bits.OnesCount64(c.second)
	if h*m*s <= 6 {
		var at []string
		for t, ok := c.timeFrom(0); ok; t, ok = c.timeFrom(t + 1) {
			if c.second == 1 {
				at = append(at, fmt.Sprintf("%02d:%02d", t/3600, t/60%60))
			} else {
				at = append(at, fmt.Sprintf("%02d:%02d:%02d", t/3600, t/60%60, t%60))
			}
			if t == daySeconds-1 {
				break
			}
		}
		return "at " + and(at)
	}
	within := ""
	if c.hour != all24 {
		within = " in the hours " + list(uint64(c.hour), strconv.Itoa)
	}
	switch {
	case c.second == all60 && c.minute == all60:
		return "every second" + within
	case c.second == 1 && c.minute == all60:
		return "every minute" + within
	case c.second == 1 && stride(c.minute) > 0:
		return fmt.Sprintf("every %d minutes", stride(c.minute)) + within
	case c.second == 1 && c.minute == 1:
		return "every hour" + within
	case c.second == 1:
		return "at minute " + list(c.minute, strconv.Itoa) + " of every hour" + within
	case c.minute == all60 && stride(c.second) > 0:
		return fmt.Sprintf("every %d seconds", stride(c.second)) + within
	case c.minute == all60:
		return "at second " + list(c.second, strconv.Itoa) + " of every minute" + within
	default:
		return "at second " + list(c.second, strconv.Itoa) + " of the minutes " + list(c.minute, strconv.Itoa) + within
	}
}

// stride is n if set is 0, n, 2n, ... up to 60 and n divides 60; else 0.
func stride(set uint64) int {
	const size = 60
	if set&1 == 0 || set == 1 {
		return 0
	}
	n := bits.TrailingZeros64(set &^ 1)
	want := uint64(0)
	for i := 0; i < size; i += n {
		want |= 1 << i
	}
	if n == 1 || size%n != 0 || set != want {
		return 0
	}
	return n
}

// dayWords describes the two day fields.
func (c *cron) dayWords() string {
	month, week := "", ""
	if !c.anyDay {
		month = "on " + and(c.monthWords())
	}
	if !c.anyWeekday {
		week = "on " + and(c.weekWords())
	}
	switch {
	case month == "" && week == "":
		return " every day"
	case month == "":
		return " " + week
	case week == "":
		return " " + month
	case c.either:
		return " " + month + " or " + week
	default:
		return " " + month + " if it is " + strings.TrimPrefix(week, "on ")
	}
}

func (c *cron) monthWords() []string {
	var out []string
	if c.day != 0 {
		out = append(out, "day "+list(uint64(c.day), strconv.Itoa))
	}
	each(uint64(c.dayLast), func(n int) { out = append(out, fromEnd(n, "day")) })
	each(uint64(c.dayNear|c.nearClamped), func(n int) { out = append(out, fmt.Sprintf("the workday nearest day %d", n)) })
	if c.businessAll {
		out = append(out, "every business day")
	}
	each(uint64(c.business), func(n int) { out = append(out, fmt.Sprintf("the %s business day", ordinal(n))) })
	each(uint64(c.businessLast), func(n int) { out = append(out, fromEnd(n, "business day")) })
	each(uint64(c.dayLastNear), func(n int) {
		if n == 0 {
			out = append(out, "the last workday")
			return
		}
		out = append(out, "the workday nearest "+fromEnd(n, "day"))
	})
	return out
}

func fromEnd(n int, what string) string {
	if n == 0 {
		return "the last " + what
	}
	return fmt.Sprintf("the last %s but %d", what, n)
}

func (c *cron) weekWords() []string {
	var out []string
	if c.weekday != 0 {
		out = append(out, list(uint64(c.weekday), func(n int) string { return time.Weekday(n).String() }))
	}
	for w, ks := range c.nth {
		each(uint64(ks), func(k int) {
			if k == 0 {
				out = append(out, "the last "+time.Weekday(w).String())
				return
			}
			out = append(out, fmt.Sprintf("the %s %s", ordinal(k), time.Weekday(w)))
		})
	}
	return out
}

func ordinal(n int) string {
	switch {
	case n%100/10 != 1 && n%10 == 1:
		return strconv.Itoa(n) + "st"
	case n%100/10 != 1 && n%10 == 2:
		return strconv.Itoa(n) + "nd"
	case n%100/10 != 1 && n%10 == 3:
		return strconv.Itoa(n) + "rd"
	}
	return strconv.Itoa(n) + "th"
}

func each(set uint64, f func(int)) {
	for ; set != 0; set &= set - 1 {
		f(bits.TrailingZeros64(set))
	}
}

// list names the members of a set, three and more in a row as a range.
func list(set uint64, name func(int) string) string {
	var parts []string
	for set != 0 {
		lo := bits.TrailingZeros64(set)
		n := bits.TrailingZeros64(^(set >> lo))
		if n >= 3 {
			parts = append(parts, name(lo)+" to "+name(lo+n-1))
		} else {
			for i := range n {
				parts = append(parts, name(lo+i))
			}
		}
		set &^= (1<<n - 1) << lo
	}
	return and(parts)
}

func and(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}
