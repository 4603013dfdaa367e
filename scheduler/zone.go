package scheduler

import (
	"math"
	"time"
)

// Zones remembers the time zones that specs name, so that many schedules share
// one copy of each. The zero Zones is ready. It is not safe for concurrent use;
// what it returns is.
type Zones struct {
	loaded map[string]*time.Location
}

// Location finds a zone by its IANA name in the zone database of the process.
// Empty is UTC. "Local" is refused: it means another zone on every machine.
func (z *Zones) Location(name string) (*time.Location, error) {
	if name == "" || name == "UTC" {
		return time.UTC, nil
	}
	if loc, ok := z.loaded[name]; ok {
		return loc, nil
	}
	if name == "Local" {
		return nil, errLocalZone
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	if z.loaded == nil {
		z.loaded = make(map[string]*time.Location)
	}
	z.loaded[name] = loc
	return loc, nil
}

type zoneError string

func (e zoneError) Error() string { return string(e) }

const errLocalZone = zoneError("it depends on the machine")

// stretch is a span of Unix seconds [start, end) in which a zone has one offset.
type stretch struct {
	start, end int64
	offset     int64
}

func stretchAt(loc *time.Location, unix int64) stretch {
	t := time.Unix(unix, 0).In(loc)
	s := stretch{start: math.MinInt64, end: math.MaxInt64}
	_, offset := t.Zone()
	s.offset = int64(offset)
	from, to := t.ZoneBounds()
	if !from.IsZero() {
		s.start = from.Unix()
	}
	if !to.IsZero() {
		s.end = to.Unix()
	}
	if s.end <= unix {
		// Behind a zone's last listed change, ZoneBounds ends each year after
		// 365 days: on the last day of a leap year that is over already.
		s.end = unix - unix%daySeconds + daySeconds
	}
	return s
}

// offsetSpread is longer than any two offsets of a zone lie apart, with room to
// spare: within it of a seam, the clock may show a time twice or never.
const offsetSpread = 3 * daySeconds

// seams says how a local time is treated that a change of offset skips or
// repeats.
type seams struct {
	shiftGap, afterGap  bool
	firstOnly, lastOnly bool
}

// zoned finds the first Unix second in [pos, far) at which the clock of loc shows
// a time that c matches; what it finds at far or later is not sure to be the
// first. Inside a stretch of constant offset the local clock is
// linear and c.next searches it; the seams between stretches follow the policy.
//
// A whole stretch without a match is left in one step. Where the next match is
// far away, the stretches between are jumped over: once offsetSpread has been
// walked, no seam can show a time before the place where the search began.
func (c *cron) zoned(loc *time.Location, how seams, pos, far int64) (int64, bool) {
	if loc == time.UTC {
		return c.next(pos, far)
	}
	if pos < -offsetSpread {
		pos = -offsetSpread
	}
	began := pos
	moved := int64(math.MaxInt64) // a shifted time that lies behind its stretch
	for pos < far {
		s := stretchAt(loc, pos)
		from := pos + s.offset
		best := moved
		if s.start != math.MinInt64 && pos-s.start < offsetSpread && (how.shiftGap || how.afterGap || how.firstOnly) {
			before := stretchAt(loc, s.start-1).offset
			switch {
			case before < s.offset && how.shiftGap:
				if n, ok := c.next(pos+before, s.start+s.offset); ok {
					best = min(best, n-before)
				}
			case before < s.offset && how.afterGap && pos == s.start:
				if _, ok := c.next(pos+before, s.start+s.offset); ok {
					return pos, true
				}
			case before > s.offset && how.firstOnly:
				from = max(from, s.start+before)
			}
		}
		limit := int64(naiveMax)
		if s.end != math.MaxInt64 {
			limit = s.end + s.offset
		}
		found, ok := c.next(from, far+offsetSpread)
		if ok && found < limit && how.lastOnly && s.end != math.MaxInt64 && found >= limit-offsetSpread {
			if after := stretchAt(loc, s.end).offset; after < s.offset {
				limit = s.end + after
			}
		}
		if ok && found < limit {
			best = min(best, found-s.offset)
		}
		switch {
		case best < s.end:
			return best, true
		case best != math.MaxInt64: // here s.end is finite
			moved, pos = best, s.end
		case s.end == math.MaxInt64:
			return 0, false
		case s.end-began <= offsetSpread:
			pos = s.end
		case !ok:
			return 0, false
		default:
			pos = max(s.end, found-s.offset-offsetSpread)
			began = pos
		}
	}
	return 0, false
}
