package scheduler

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/nolaproject/nola"
)

// holidays are days that a named calendar or a range of dates holds.
type holidays struct {
	months []monthDays // sorted
	ranges []dayRange  // sorted, apart from each other: those longer than a month
	rules  []*cron     // date fields; the time of day is not looked at
	easter []easterRule
}

type monthDays struct {
	month int32 // year*12 + month - 1
	days  uint32
}

// dayRange is from lo up to and including hi, in days after 1970-01-01.
type dayRange struct{ lo, hi int64 }

type easterRule struct {
	kind   nola.Easter
	offset int64
}

// days is the set of days of the month that starts first days after the epoch.
func (h *holidays) days(y, m int, first int64) uint32 {
	set := uint32(0)
	month := int32(y*12 + m - 1)
	lo, hi := 0, len(h.months)
	for lo < hi {
		if mid := (lo + hi) / 2; h.months[mid].month < month {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(h.months) && h.months[lo].month == month {
		set = h.months[lo].days
	}
	last := int64(daysIn(y, m))
	for _, r := range h.ranges {
		if r.lo >= first+last {
			break
		}
		if r.hi < first {
			continue
		}
		from, to := max(r.lo-first, 0)+1, min(r.hi-first, last-1)+1
		set |= uint32(1)<<(to+1) - uint32(1)<<from
	}
	for _, r := range h.rules {
		set |= r.dates(y, m, first)
	}
	for _, r := range h.easter {
		for year := y - 1; year <= y+1; year++ { // an offset may leave the year
			if d := easterSunday(year, r.kind) + r.offset - first; 0 <= d && d < last {
				set |= 1 << (d + 1)
			}
		}
	}
	return set
}

// easterSunday counts in days after 1970-01-01.
func easterSunday(y int, kind nola.Easter) int64 {
	golden := y % 19
	if kind == nola.EasterOrthodox {
		// the Paschal full moon of the Julian calendar, by the golden number
		moon := (19*golden + 15) % 30
		weekday := (2*(y%4) + 4*(y%7) - moon + 34) % 7
		n := moon + weekday + 114
		julian := daysOf(y, n/31) + int64(n%31)
		return julian + int64(y/100-y/400-2)
	}
	// the Gregorian computus: epact with its solar and lunar corrections
	century := y / 100
	epact := (19*golden + century - century/4 - (century-(century+8)/25+1)/3 + 15) % 30
	weekday := (32 + 2*(century%4) + 2*(y%100/4) - epact - y%4) % 7
	late := (golden + 11*epact + 22*weekday) / 451
	n := epact + weekday - 7*late + 114
	return daysOf(y, n/31) + int64(n%31)
}

// dayGrid is every n-th day, week or month from a first date on.
type dayGrid struct {
	n     int64
	unit  nola.CalendarUnit
	first int64 // in days after 1970-01-01
	month int   // of first: year*12 + month - 1
	day   int   // of first
}

func newDayGrid(n int, unit nola.CalendarUnit, from nola.Date) *dayGrid {
	g := &dayGrid{
		n: int64(n), unit: unit, month: from.Year*12 + int(from.Month) - 1, day: from.Day,
		first: daysOf(from.Year, int(from.Month)) + int64(from.Day) - 1,
	}
	switch unit {
	case nola.UnitWeek:
		g.n, g.unit = g.n*7, nola.UnitDay
	case nola.UnitYear:
		g.n, g.unit = g.n*12, nola.UnitMonth
	}
	return g
}

func (g *dayGrid) days(y, m int, first int64) uint32 {
	last := daysIn(y, m)
	if g.unit == nola.UnitMonth {
		since := int64(y*12 + m - 1 - g.month)
		if since < 0 || since%g.n != 0 {
			return 0
		}
		return 1 << min(g.day, last)
	}
	at := g.first
	if first > at {
		at += (first - at + g.n - 1) / g.n * g.n
	}
	set := uint32(0)
	for d := at - first + 1; d <= int64(last); d += g.n {
		set |= 1 << d
	}
	return set
}

// calendars compiles the named calendars that the spec uses.
func (b *builder) calendars(spec *nola.Spec) {
	names := spec.CalendarNames()
	if len(names) > nola.CalendarsPerSpecMax {
		b.fault("spec", "", "", "the spec uses %d named calendars, at most %d are allowed", len(names), nola.CalendarsPerSpecMax)
		return
	}
	for _, name := range names {
		i := slices.IndexFunc(b.given, func(c nola.Calendar) bool { return c.Name == name })
		if i < 0 {
			field := "holiday_calendar"
			if name != spec.HolidayCalendar {
				field = fmt.Sprintf("exclude[%d].holiday_calendar", slices.IndexFunc(spec.Exclude, func(x nola.Exclude) bool { return x.HolidayCalendar == name }))
			}
			b.fault(field, name, "the name of a calendar of the namespace", "%s: there is no calendar %q; create it first, or correct the name", field, clip(name))
			continue
		}
		h := b.calendar(&b.given[i])
		if b.named == nil {
			b.named = make(map[string]*holidays, len(names))
		}
		b.named[name] = h
	}
}

// CheckCalendar refuses a calendar whose dates or rules are not legal, with a
// [*SpecError] that names every fault.
func CheckCalendar(c *nola.Calendar) error {
	var b builder
	b.calendar(c)
	if len(b.faults) > 0 {
		return &SpecError{Faults: b.faults}
	}
	return nil
}

// CalendarDays lists the days of a legal calendar from one date to another, both
// inclusive, at most limit of them.
func CalendarDays(c *nola.Calendar, from, to nola.Date, limit int) []nola.Date {
	var b builder
	h := b.calendar(c)
	if len(b.faults) > 0 {
		return nil
	}
	var out []nola.Date
	for y, m := from.Year, int(from.Month); y <= YearMax && (y < to.Year || y == to.Year && m <= int(to.Month)); {
		for set := h.days(y, m, daysOf(y, m)); set != 0; set &= set - 1 {
			d := nola.Date{Year: y, Month: time.Month(m), Day: bits.TrailingZeros32(set)}
			if d.Compare(from) < 0 || d.Compare(to) > 0 {
				continue
			}
			if out = append(out, d); len(out) >= limit {
				return out
			}
		}
		if m++; m > 12 {
			y, m = y+1, 1
		}
	}
	return out
}

func (b *builder) calendar(c *nola.Calendar) *holidays {
	path := "calendar"
	if c.Name != "" {
		path = "calendar " + clip(c.Name)
	}
	if len(c.Dates) > nola.CalendarDatesMax || len(c.Rules) > nola.CalendarRulesMax {
		b.fault(path, "", "", "%s has %d dates and %d rules, at most %d and %d are allowed", path, len(c.Dates), len(c.Rules), nola.CalendarDatesMax, nola.CalendarRulesMax)
		return nil
	}
	h := &holidays{}
	var spans []dayRange
	for i, r := range c.Dates {
		if s, ok := b.dateRange(fmt.Sprintf("%s: dates[%d]", path, i), r); ok {
			spans = append(spans, s)
		}
	}
	h.add(spans)
	for i := range c.Rules {
		b.rule(h, fmt.Sprintf("%s: rules[%d]", path, i), &c.Rules[i])
	}
	return h
}

func (b *builder) dateRange(path string, r nola.DateRange) (dayRange, bool) {
	to := r.To
	if to.IsZero() {
		to = r.From
	}
	for _, d := range [2]nola.Date{r.From, to} {
		if !d.Valid() || d.Year < YearMin || d.Year > YearMax {
			b.fault(path, d.String(), "a date from 1970-01-01 to 9999-12-31", "%s: %q is no date from 1970 to 9999", path, d.String())
			return dayRange{}, false
		}
	}
	s := dayRange{dayOf(r.From), dayOf(to)}
	if s.hi < s.lo {
		b.fault(path, to.String(), "not before "+r.From.String(), "%s: %s lies before %s", path, to, r.From)
		return s, false
	}
	return s, true
}

// add takes spans into the set: short ones as months, long ones as ranges.
func (h *holidays) add(spans []dayRange) {
	slices.SortFunc(spans, func(a, b dayRange) int { return cmp.Compare(a.lo, b.lo) })
	var merged []dayRange
	for _, s := range spans {
		if n := len(merged); n > 0 && s.lo <= merged[n-1].hi+1 {
			merged[n-1].hi = max(merged[n-1].hi, s.hi)
		} else {
			merged = append(merged, s)
		}
	}
	const long = 31
	for _, s := range merged {
		if s.hi-s.lo >= long {
			h.ranges = append(h.ranges, s)
			continue
		}
		for day := s.lo; day <= s.hi; day++ {
			y, m, d := civil(day)
			month := int32(y*12 + m - 1)
			if n := len(h.months); n == 0 || h.months[n-1].month != month {
				h.months = append(h.months, monthDays{month: month})
			}
			h.months[len(h.months)-1].days |= 1 << d
		}
	}
}

func (b *builder) rule(h *holidays, path string, r *nola.HolidayRule) {
	fields := nola.CalendarSpec{DayOfMonth: r.DayOfMonth, Month: r.Month, DayOfWeek: r.DayOfWeek, Year: r.Year}
	none := r.DayOfMonth+r.Month+r.DayOfWeek+r.Year == ""
	switch {
	case r.Easter > nola.EasterOrthodox:
		b.fault(path, fmt.Sprint(r.Easter), "western or orthodox", "%s: easter %d is unknown; legal are western and orthodox", path, r.Easter)
	case r.Easter != nola.EasterNone && !none:
		b.fault(path, "", "", "%s: a rule is either Easter with an offset or date fields, not both; make two rules", path)
	case r.Easter == nola.EasterNone && none:
		b.fault(path, "", "", "%s: the rule is empty; set month and day_of_month, or easter", path)
	case r.Easter == nola.EasterNone && r.Offset != 0:
		b.fault(path, fmt.Sprint(r.Offset), "0", "%s: an offset goes with easter only", path)
	case r.Offset < -easterOffsetMax || r.Offset > easterOffsetMax:
		b.fault(path, fmt.Sprint(r.Offset), fmt.Sprintf("-%d to %d", easterOffsetMax, easterOffsetMax), "%s: offset %d lies outside -%d to %d", path, r.Offset, easterOffsetMax, easterOffsetMax)
	case r.Easter != nola.EasterNone:
		h.easter = append(h.easter, easterRule{r.Easter, int64(r.Offset)})
	default:
		p := b.structured(path, &fields, "*")
		if p == nil {
			return
		}
		if c := &p.out.cron; c.businessAll || c.business|c.businessLast != 0 {
			b.fault(path, r.DayOfMonth, "", "%s: a calendar decides which days are business days, so its own rules cannot ask for them", path)
			return
		}
		c := p.out.cron
		h.rules = append(h.rules, &c)
	}
}

const easterOffsetMax = 200

func dayOf(d nola.Date) int64 { return daysOf(d.Year, int(d.Month)) + int64(d.Day) - 1 }

// structured reads the fields of a structured calendar. Nil means that it has
// faults. unset is what an empty field of the time of day means.
func (b *builder) structured(path string, s *nola.CalendarSpec, unset string) *parser {
	kind := s.Dialect
	if kind == nola.DialectAuto {
		kind = nola.DialectFull
	}
	d, ok := dialects[kind]
	if !ok {
		b.fault(path+".dialect", fmt.Sprint(s.Dialect), "", "%s: cron dialect %d is unknown", path, s.Dialect)
		return nil
	}
	p := &parser{d: d, seed: b.hash}
	c := &p.out.cron
	for _, f := range [...]struct {
		kind              fieldKind
		name, text, unset string
	}{
		{fieldSecond, "second", s.Second, unset},
		{fieldMinute, "minute", s.Minute, unset},
		{fieldHour, "hour", s.Hour, unset},
		{fieldDay, "day_of_month", s.DayOfMonth, "*"},
		{fieldMonth, "month", s.Month, "*"},
		{fieldWeekday, "day_of_week", s.DayOfWeek, "*"},
		{fieldYear, "year", s.Year, "*"},
	} {
		p.text, p.field, p.path = strings.TrimSpace(f.text), f.kind, path+"."+f.name
		if p.text == "" {
			p.text = f.unset
		}
		switch {
		case len(p.text) > ExpressionBytesMax:
			n := len(p.text)
			p.text = clip(p.text)
			p.fault(0, len(p.text), "", fmt.Sprintf("the field has %d bytes, at most %d are allowed", n, ExpressionBytesMax), "")
		case strings.ContainsAny(p.text, " \t\r\n"):
			p.fault(0, len(p.text), p.legal(), fmt.Sprintf("%q is more than one field", clip(p.text)), strings.Join(strings.Fields(p.text), ","))
		default:
			p.lower = lowerASCII(p.text)
			p.one(c, span{0, len(p.text)})
		}
	}
	p.text, p.path = "", path
	if len(p.faults) == 0 {
		p.finish(s.DayMatch)
		p.hashWarning()
	}
	room := max(0, FaultsMax-len(b.faults))
	b.faults = append(b.faults, p.faults[:min(room, len(p.faults))]...)
	for _, w := range p.warns {
		w.Message = path + ": " + w.Message
		b.warns = append(b.warns, w)
	}
	if len(p.faults) > 0 {
		return nil
	}
	return p
}
