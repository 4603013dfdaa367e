package scheduler

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// A spec whose excludes take nearly all of its times makes a search long. What
// one may cost is counted in excludes asked and months looked at, and shared out
// among the entries; each of them comes forward all the same.
const (
	// searchMax bounds the search for the next nominal time. A search that ends
	// there has found how far there is none, and another goes on from that place.
	searchMax = 1 << 14
	// prevMax bounds the searches by which the nominal time before an instant is
	// found.
	prevMax = 1 << 18
	// compileMax bounds the search for the first nominal time of all. A spec that
	// needs more is refused: it would be due once in centuries, or never.
	compileMax = 1 << 18
	// stretchMax bounds what is searched at once without asking the excludes.
	stretchMax = searchMax / 4
	// lookCost is what one look at a nominal time may cost before it counts as
	// more than one of NominalsMax.
	lookCost = 64
)

const monthSeconds = 28 * daySeconds // of the shortest month

// exclude takes away the seconds at which a clock shows what cron matches.
type exclude struct {
	cron
	loc  *time.Location // nil: the clock of the entry that is judged
	path string
}

// until is the first Unix second from unix on that x does not take away, on the
// clock of loc if x has none of its own. It is math.MaxInt64 if there is none. It
// takes what it costs off left; once that is used up, it is a second behind unix
// up to which x takes all.
func (x *exclude) until(loc *time.Location, unix int64, left *int) int64 {
	if x.loc != nil {
		loc = x.loc
	}
	for {
		*left--
		s := stretchAt(loc, unix)
		naive := unix + s.offset
		if naive < 0 {
			return unix // before the years
		}
		n, ok := x.cron.until(naive, left)
		if !ok {
			return math.MaxInt64
		}
		if unix = n - s.offset; unix < s.end {
			return unix
		}
		if unix = s.end; *left <= 0 {
			return unix
		}
	}
}

// free is the first Unix second from unix on that no exclude takes away, or, if
// that cost more than left, one up to which they take all. It is unix itself only
// if that is free.
func (c *Compiled) free(loc *time.Location, unix int64, left *int) int64 {
	for again := true; again; {
		again = false
		for i := range c.excludes {
			until := c.excludes[i].until(loc, unix, left)
			if until == math.MaxInt64 {
				return until
			}
			if until > unix {
				unix, again = until, true
			}
		}
		if again && *left <= 0 {
			break
		}
	}
	return unix
}

// taken reports whether an exclude takes away a Unix second.
func (c *Compiled) taken(loc *time.Location, unix int64) bool {
	for i := range c.excludes {
		if left := 1; c.excludes[i].until(loc, unix, &left) > unix {
			return true
		}
	}
	return false
}

// nextCron is the first Unix second in [pos, limit) at which z is due, or limit.
// It is not sure if that cost more than left: then z is not due before.
func (c *Compiled) nextCron(z *zonedCron, pos, limit int64, left *int) (at int64, sure bool) {
	if len(c.excludes) == 0 {
		if at, ok := z.zoned(z.loc, z.seams, pos, limit); ok && at < limit {
			return at, true
		}
		return limit, true
	}
	perMonth := int64(1 + len(z.without))
	for pos < limit {
		far := min(limit, pos+stretchMax/perMonth*monthSeconds)
		at, ok := z.zoned(z.loc, z.seams, pos, far)
		if !ok || at > far {
			at = far
		}
		*left -= 1 + int((at-pos)/monthSeconds*perMonth)
		if pos = at; at < far {
			if pos = c.free(z.loc, at, left); pos == at {
				return at, true
			}
		}
		if pos < limit && *left <= 0 {
			return pos, false
		}
	}
	return limit, true
}

// nextGrid is the first point of an interval after after and before limit that is
// not excluded, or limit. It is not sure if that cost more than left: then there
// is none before.
func (c *Compiled) nextGrid(iv grid, after, limit time.Time, left *int) (at time.Time, sure bool) {
	for at = iv.next(after); at.Before(limit); at = iv.next(after) {
		unix := at.Unix()
		*left--
		until := c.free(c.loc, unix, left)
		if until == unix {
			return at, true
		}
		if until >= limit.Unix()+1 {
			break
		}
		if *left <= 0 {
			return time.Unix(until, 0), false
		}
		after = time.Unix(until, -1)
	}
	return limit, true
}

func (b *builder) excludes(spec *nola.Spec) {
	if n := len(spec.Exclude); n > nola.SpecExcludesMax {
		b.fault("exclude", "", "", "the spec has %d excludes, at most %d are allowed", n, nola.SpecExcludesMax)
		return
	}
	for i := range spec.Exclude {
		b.exclude(fmt.Sprintf("exclude[%d]", i), &spec.Exclude[i])
	}
}

func (b *builder) exclude(path string, e *nola.Exclude) {
	x := exclude{path: path}
	if e.TimeZone != "" {
		x.loc = b.zone(path+".time_zone", e.TimeZone)
	}
	kinds := 0
	if e.Calendar != nil {
		kinds++
		unset := "*"
		if e.Calendar.Dialect == nola.DialectTemporal {
			unset = "0"
		}
		if e.Calendar.TimeZone != "" {
			b.fault(path+".calendar.time_zone", e.Calendar.TimeZone, "", "%s: the time zone of an exclude stands in %s.time_zone", path, path)
		}
		p := b.structured(path+".calendar", e.Calendar, unset)
		if p == nil {
			return
		}
		x.cron = p.out.cron
		x.holidays = b.named[b.spec.HolidayCalendar]
		if unset == "0" && e.Calendar.Hour+e.Calendar.Minute+e.Calendar.Second == "" {
			b.warns = append(b.warns, Warning{Code: WarnMidnightOnly, Message: path + ": in dialect temporal it takes 00:00:00 alone, not the whole day; leave the dialect out to take the day"})
		}
	}
	if e.HolidayCalendar != "" {
		kinds++
		x.cron = wholeDays(b.named[e.HolidayCalendar])
	}
	if e.Dates != (nola.DateRange{}) {
		kinds++
		h := &holidays{}
		if s, ok := b.dateRange(path+".dates", e.Dates); ok {
			h.add([]dayRange{s})
		}
		x.cron = wholeDays(h)
	}
	if kinds != 1 {
		b.fault(path, "", "calendar, holiday_calendar or dates", "%s has %d of calendar, holiday_calendar and dates; it needs exactly one", path, kinds)
		return
	}
	b.out.excludes = append(b.out.excludes, x)
}

// wholeDays matches every second of the days of h.
func wholeDays(h *holidays) cron {
	if h == nil {
		h = &holidays{}
	}
	return cron{
		second: 1<<60 - 1, minute: 1<<60 - 1, hour: 1<<24 - 1, day: allDays, month: allMonths, weekday: 0x7f,
		anyDay: true, anyWeekday: true, only: h,
	}
}

// attach leaves out the entries that the excludes take whole, and lets the search of each entry leave out whole days where that says the
// same as looking at each time: where no time moves to another wall-clock time.
func (c *Compiled) attach() {
	for i := range c.crons {
		z := &c.crons[i]
		if z.seams.afterGap || z.seams.shiftGap {
			continue
		}
		for j := range c.excludes {
			x := &c.excludes[j]
			if (x.loc == nil || x.loc == z.loc) && x.covers(&z.cron) {
				z.without = append(z.without, &x.cron)
			}
		}
	}
	if len(c.excludes) > 0 {
		c.crons = slices.DeleteFunc(c.crons, func(z zonedCron) bool {
			left := compileMax / len(c.crons)
			at, sure := c.nextCron(&z, beforeAll.Unix(), horizon.Unix(), &left)
			return sure && at == horizon.Unix()
		})
	}
}
