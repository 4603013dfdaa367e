package scheduler

import "math/bits"

// Years that a nominal time may lie in, on the local clock.
const (
	YearMin = 1970
	YearMax = 9999
)

const (
	daySeconds = 24 * 60 * 60
	// naiveMax is the second behind the last one of YearMax on a clock without
	// offset.
	naiveMax = 253402300800
)

// cron is a compiled expression: what the local clock must show. Bit n of a set
// stands for the value n.
type cron struct {
	second, minute uint64
	hour           uint32
	day            uint32 // 1-31
	dayLast        uint32 // bit n: L-n
	dayNear        uint32 // bit n: nW
	dayLastNear    uint32 // bit n: L-nW
	nearClamped    uint32 // bit n: nW, or the workday nearest the last day of a shorter month
	month          uint16 // 1-12
	weekday        uint8  // 0-6, Sunday is 0
	hasNth         bool
	anyDay         bool     // the day of month is written * or ?
	anyWeekday     bool     // the day of week is written * or ?
	either         bool     // both day fields restrict and one of them suffices
	repeats        bool     // a time field is written with *, - or /
	nth            [7]uint8 // per weekday, bit k: the k-th of the month; bit 0: the last
	years          []yearRange

	business     uint32    // bit n: the n-th business day of the month
	businessLast uint32    // bit n: the business day n before the last one
	businessAll  bool      // every business day
	holidays     *holidays // no business days; nil: only weekends are none
	only         *holidays // the days that match at all; nil: every day
	every        *dayGrid  // the days that match at all; nil: every day
	without      []*cron   // matches of these do not match; they look at the days alone
}

// yearRange is lo, lo+step, ... up to hi. No ranges mean every year.
type yearRange struct{ lo, hi, step int }

// next finds the first matching second of a clock without offset in [from, limit).
func (c *cron) next(from, limit int64) (int64, bool) {
	from = max(from, 0)
	limit = min(limit, naiveMax)
	if from >= limit {
		return 0, false
	}
	days := from / daySeconds
	tod := int(from - days*daySeconds)
	y, m, d := civil(days)
	for {
		if ny, ok := c.yearFrom(y); !ok {
			return 0, false
		} else if ny != y {
			y, m, d, tod = ny, 1, 1, 0
		}
		left := uint32(c.month) >> m
		if m > 12 || left == 0 {
			y, m, d, tod = y+1, 1, 1, 0
			continue
		}
		if skip := bits.TrailingZeros32(left); skip > 0 {
			m, d, tod = m+skip, 1, 0
		}
		first := daysOf(y, m)
		if first*daySeconds >= limit {
			return 0, false
		}
		mask := c.days(y, m, first)
		for _, x := range c.without {
			mask &^= x.dates(y, m, first)
		}
		mask = mask >> d << d
		for mask != 0 {
			day := bits.TrailingZeros32(mask)
			if day != d {
				d, tod = day, 0
			}
			if t, ok := c.timeFrom(tod); ok {
				at := (first+int64(d)-1)*daySeconds + int64(t)
				return at, at < limit
			}
			mask &= mask - 1
			d, tod = d+1, 0
		}
		m, d, tod = m+1, 1, 0
	}
}

// timeFrom finds the first matching second of the day that is not before tod.
func (c *cron) timeFrom(tod int) (int, bool) {
	h, m, s := tod/3600, tod/60%60, tod%60
	if c.hour>>h&1 != 0 {
		if c.minute>>m&1 != 0 {
			if left := c.second >> s; left != 0 {
				return tod + bits.TrailingZeros64(left), true
			}
		}
		if left := c.minute >> (m + 1); left != 0 {
			return h*3600 + (m+1+bits.TrailingZeros64(left))*60 + bits.TrailingZeros64(c.second), true
		}
	}
	left := c.hour >> (h + 1)
	if left == 0 {
		return 0, false
	}
	h += 1 + bits.TrailingZeros32(left)
	return h*3600 + bits.TrailingZeros64(c.minute)*60 + bits.TrailingZeros64(c.second), true
}

// days is the set of matching days of a matching month that starts first days
// after the epoch.
func (c *cron) days(y, m int, first int64) uint32 {
	last := daysIn(y, m)
	all := uint32(1)<<(last+1) - 2
	if c.only != nil {
		all &= c.only.days(y, m, first)
	}
	if c.every != nil {
		all &= c.every.days(y, m, first)
	}
	if c.anyDay && c.anyWeekday {
		return all
	}
	wd := weekdayOf(first)
	month := func() uint32 {
		set := c.monthDays(wd, last)
		if c.businessAll || c.business|c.businessLast != 0 {
			set |= c.businessDays(y, m, first, wd, last)
		}
		return set
	}
	switch {
	case c.anyWeekday:
		return month() & all
	case c.anyDay:
		return c.weekDays(wd, last) & all
	case c.either:
		return (month() | c.weekDays(wd, last)) & all
	default:
		return month() & c.weekDays(wd, last) & all
	}
}

// dates is the set of matching days of any month.
func (c *cron) dates(y, m int, first int64) uint32 {
	if c.month>>m&1 == 0 {
		return 0
	}
	if from, ok := c.yearFrom(y); !ok || from != y {
		return 0
	}
	return c.days(y, m, first)
}

// businessDays is what business days add to the day-of-month field.
func (c *cron) businessDays(y, m int, first int64, wd, last int) uint32 {
	const workdays = 0b0111110
	week := uint32(workdays)
	week = (week>>wd | week<<(7-wd)) & 0x7f
	open := (week * 0x10204081) << 1 & (1<<(last+1) - 2)
	if c.holidays != nil {
		open &^= c.holidays.days(y, m, first)
	}
	if c.businessAll {
		return open
	}
	set, count := uint32(0), bits.OnesCount32(open)
	for n := 1; open != 0; n++ {
		if c.business>>n&1 != 0 || c.businessLast>>(count-n)&1 != 0 {
			set |= open & -open
		}
		open &= open - 1
	}
	return set
}

// until is the first second from naive on that does not match, or false if all
// to the end of the years match. It steps over whole months, days, hours and
// minutes. It takes each month off left; once that is used up, it is a second up
// to which all match.
func (c *cron) until(naive int64, left *int) (int64, bool) {
	const all60, all24 = uint64(1<<60 - 1), uint32(1<<24 - 1)
	for naive < naiveMax {
		days := naive / daySeconds
		y, m, d := civil(days)
		first := daysOf(y, m)
		set := c.dates(y, m, first)
		if set>>d&1 == 0 {
			return naive, true
		}
		if c.hour != all24 || c.minute != all60 || c.second != all60 {
			if t, ok := c.gapFrom(int(naive - days*daySeconds)); ok {
				return days*daySeconds + int64(t), true
			}
			naive = (days + 1) * daySeconds
			continue
		}
		if c.always() {
			return 0, false
		}
		last := daysIn(y, m)
		if rest := ^set >> d & (1<<(last-d+1) - 1); rest != 0 {
			return (days + int64(bits.TrailingZeros32(rest))) * daySeconds, true
		}
		naive = (first + int64(last)) * daySeconds
		if *left--; *left <= 0 {
			return naive, true
		}
	}
	return 0, false
}

// always reports that every day matches.
func (c *cron) always() bool {
	return c.anyDay && c.anyWeekday && c.month == allMonths && len(c.years) == 0 && c.only == nil && c.every == nil
}

// gapFrom finds the first second of the day, from tod on, that does not match.
func (c *cron) gapFrom(tod int) (int, bool) {
	const all60 = uint64(1<<60 - 1)
	for tod < daySeconds {
		h, m, s := tod/3600, tod/60%60, tod%60
		switch {
		case c.hour>>h&1 == 0 || c.minute>>m&1 == 0:
			return tod, true
		case c.second != all60:
			if n := bits.TrailingZeros64(^(c.second >> s)); s+n < 60 {
				return tod + n, true
			}
			tod += 60 - s
		case c.minute != all60:
			if n := bits.TrailingZeros64(^(c.minute >> m)); m+n < 60 {
				return h*3600 + (m+n)*60, true
			}
			tod = (h + 1) * 3600
		default:
			tod = (h + 1) * 3600
		}
	}
	return 0, false
}

// covers reports whether c matches every time of day that o matches.
func (c *cron) covers(o *cron) bool {
	return o.hour&^c.hour == 0 && o.minute&^c.minute == 0 && o.second&^c.second == 0
}

// monthDays is what the day-of-month field allows in a month of last days whose
// first day is the weekday wd.
func (c *cron) monthDays(wd, last int) uint32 {
	set := c.day
	for rest := c.dayLast; rest != 0; rest &= rest - 1 {
		if d := last - bits.TrailingZeros32(rest); d >= 1 {
			set |= 1 << d
		}
	}
	for rest := c.dayNear; rest != 0; rest &= rest - 1 {
		if d := bits.TrailingZeros32(rest); d <= last {
			set |= 1 << nearestWorkday(d, wd, last)
		}
	}
	for rest := c.nearClamped; rest != 0; rest &= rest - 1 {
		set |= 1 << nearestWorkday(min(bits.TrailingZeros32(rest), last), wd, last)
	}
	for rest := c.dayLastNear; rest != 0; rest &= rest - 1 {
		if d := last - bits.TrailingZeros32(rest); d >= 1 {
			set |= 1 << nearestWorkday(d, wd, last)
		}
	}
	return set
}

// nearestWorkday is the day from Monday to Friday nearest to d, in the same month.
func nearestWorkday(d, wd, last int) int {
	switch (wd + d - 1) % 7 {
	case 6: // Saturday
		if d == 1 {
			return 3
		}
		return d - 1
	case 0: // Sunday
		if d == last {
			return d - 2
		}
		return d + 1
	default:
		return d
	}
}

// weekDays is what the day-of-week field allows.
func (c *cron) weekDays(wd, last int) uint32 {
	week := uint32(c.weekday)
	week = (week>>wd | week<<(7-wd)) & 0x7f // bit 0 is now the weekday of the 1st
	set := (week * 0x10204081) << 1         // the same for every week of the month
	if !c.hasNth {
		return set
	}
	for w, ks := range c.nth {
		if ks == 0 {
			continue
		}
		d := 1 + (w-wd+7)%7
		for rest := ks >> 1; rest != 0; rest &= rest - 1 {
			if n := d + 7*bits.TrailingZeros8(rest); n <= last {
				set |= 1 << n
			}
		}
		if ks&1 != 0 {
			set |= 1 << (d + (last-d)/7*7)
		}
	}
	return set
}

func (c *cron) yearFrom(y int) (int, bool) {
	if y > YearMax {
		return 0, false
	}
	if len(c.years) == 0 {
		return y, true
	}
	best := YearMax + 1
	for _, r := range c.years {
		n := r.lo
		if y > r.lo {
			n += (y - r.lo + r.step - 1) / r.step * r.step
		}
		if n <= r.hi {
			best = min(best, n)
		}
	}
	return best, best <= YearMax
}

func leap(y int) bool { return y%4 == 0 && (y%100 != 0 || y%400 == 0) }

func daysIn(y, m int) int {
	if m == 2 {
		if leap(y) {
			return 29
		}
		return 28
	}
	return 30 + (m+m>>3)&1
}

// civil is the date that lies days after 1970-01-01. It counts in years that
// start in March, so that the leap day is the last one.
func civil(days int64) (y, m, d int) {
	z := days + 719468
	era := z / 146097
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = int(doy - (153*mp+2)/5 + 1)
	m = int(mp + 3)
	if m > 12 {
		m -= 12
	}
	y = int(yoe + era*400)
	if m <= 2 {
		y++
	}
	return y, m, d
}

// daysOf is how many days the first of a month lies after 1970-01-01.
func daysOf(y, m int) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	yy := int64(y)
	return 365*yy + yy/4 - yy/100 + yy/400 + int64((153*(m-3)+2)/5) - 719468
}

// weekdayOf is the weekday of a day counted from 1970-01-01, a Thursday.
func weekdayOf(days int64) int { return int((days + 4) % 7) }
