package scheduler

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// Compiled is a spec made ready to be asked for its nominal times. It never
// changes; any number of goroutines may ask it at once.
type Compiled struct {
	crons    []zonedCron // cron expressions, structured calendars and calendar intervals
	grids    []grid
	at       []time.Time // sorted, each once
	excludes []exclude
	loc      *time.Location // for excludes of what has no clock of its own
	start    time.Time      // zero is unbounded, as in nola.Spec
	end      time.Time
	jitter   time.Duration
	seed     uint64
	seams    seams
}

type zonedCron struct {
	cron
	loc        *time.Location
	seams      seams
	expression string
	path       string // in the spec
}

// grid is due at every multiple of every since the Unix epoch, plus phase.
type grid struct {
	every, phase time.Duration
	path         string
}

// The nominal times that can exist lie in [epoch-1 day, horizon): the years
// YearMin to YearMax on any clock.
var (
	beforeAll = time.Unix(-2*daySeconds, 0).UTC()
	horizon   = time.Unix(naiveMax+2*daySeconds, 0).UTC()
)

// Option tells Compile what a spec refers to besides itself.
type Option func(*builder)

// Anchored says when the schedule was created: anchored intervals and calendar
// intervals count from there if the spec has no start. Without it they count
// from the Unix epoch.
func Anchored(created time.Time) Option {
	return func(b *builder) { b.anchor = created }
}

// WithCalendars gives the named calendars that the spec may use.
func WithCalendars(calendars ...nola.Calendar) Option {
	return func(b *builder) { b.given = calendars }
}

// Seeded gives the seed to [Describe].
func Seeded(seed string) Option {
	return func(b *builder) { b.hash = seedHash(seed) }
}

// Compile checks spec and makes it ready. seed tells apart schedules that share
// a spec: it decides their jitter and what H stands for. The error is a
// [*SpecError] with every fault; a spec that can never be due is one. An empty
// spec is legal: its schedule fires when somebody triggers it. Compile loads the
// time zones it needs; where many specs are compiled, use [Zones.Compile].
func Compile(spec nola.Spec, seed string, options ...Option) (*Compiled, []Warning, error) {
	return new(Zones).Compile(spec, seed, options...)
}

// Compile does what the function [Compile] does, with zones from z.
func (z *Zones) Compile(spec nola.Spec, seed string, options ...Option) (*Compiled, []Warning, error) {
	b := builder{zones: z}
	b.with(options)
	b.build(spec, seed)
	if len(b.faults) > 0 {
		return nil, nil, &SpecError{Faults: b.faults}
	}
	return &b.out, b.warns, nil
}

// builder collects everything that is wrong before it gives up.
type builder struct {
	zones  *Zones
	spec   nola.Spec
	hash   uint64
	anchor time.Time
	given  []nola.Calendar
	named  map[string]*holidays
	out    Compiled
	faults []Fault
	warns  []Warning
}

func (b *builder) with(options []Option) {
	b.hash = seedHash("")
	for _, o := range options {
		o(b)
	}
}

func (b *builder) fault(field, token, legal, format string, args ...any) {
	if len(b.faults) < FaultsMax {
		b.faults = append(b.faults, Fault{Field: field, Token: token, Legal: legal, Message: fmt.Sprintf(format, args...)})
	}
}

// entries counts the entries of all kinds.
func entries(spec *nola.Spec) int {
	return len(spec.Cron) + len(spec.Calendar) + len(spec.Interval) + len(spec.CalendarInterval) + len(spec.At)
}

func (b *builder) build(spec nola.Spec, seed string) {
	if n := entries(&spec); n > nola.SpecEntriesMax {
		b.fault("spec", "", "", "the spec has %d entries, at most %d are allowed", n, nola.SpecEntriesMax)
		return
	}
	c := &b.out
	b.spec, b.hash = spec, seedHash(seed)
	c.start, c.end, c.jitter, c.seed = spec.Start, spec.End, spec.Jitter, b.hash
	b.bounds(spec)
	b.calendars(&spec)
	c.loc = b.zone("time_zone", spec.TimeZone)
	for i, entry := range spec.Cron {
		b.cron(i, entry, spec, c.loc)
	}
	for i := range spec.Calendar {
		b.wall(fmt.Sprintf("calendar[%d]", i), &spec.Calendar[i])
	}
	for i, iv := range spec.Interval {
		b.interval(fmt.Sprintf("interval[%d]", i), iv)
	}
	for i := range spec.CalendarInterval {
		b.calendarInterval(fmt.Sprintf("calendar_interval[%d]", i), &spec.CalendarInterval[i])
	}
	for i, at := range spec.At {
		if y := at.UTC().Year(); y < YearMin || y > YearMax {
			b.fault(fmt.Sprintf("at[%d]", i), at.Format(time.RFC3339), "1970-9999", "at[%d]: the year %d lies outside %d-%d", i, y, YearMin, YearMax)
		}
		c.at = append(c.at, at.UTC().Round(0))
	}
	slices.SortFunc(c.at, time.Time.Compare)
	c.at = slices.CompactFunc(c.at, time.Time.Equal)
	b.excludes(&spec)
	if len(b.faults) > 0 || c.empty() {
		return
	}
	var before []zonedCron // attach leaves out what is excluded whole
	if len(c.excludes) > 0 {
		before = slices.Clone(c.crons)
	} else {
		before = c.crons
	}
	c.attach()
	if first, ok, _ := c.search(beforeAll, compileMax); !ok && (first.IsZero() || !c.anyFires()) {
		b.fault("spec", "", "", "%s; the schedule would never fire", whyNever(*c, before))
	} else if ok && c.jitter > 0 {
		if second, ok := c.Next(first); ok && second.Sub(first) < c.jitter {
			b.warns = append(b.warns, Warning{Code: WarnJitterCapped, Message: fmt.Sprintf("jitter %s is longer than the %s to the next nominal time; it never passes that", c.jitter, second.Sub(first))})
		}
	}
}

// empty reports that the spec has no entries.
func (c *Compiled) empty() bool { return len(c.crons)+len(c.grids)+len(c.at) == 0 }

// anyFires reports whether a time of some entry was found, beside others that
// searching has come to no end with.
func (c *Compiled) anyFires() bool {
	most := compileMax / (len(c.crons) + len(c.grids) + 1)
	one := *c
	one.crons, one.grids = nil, nil
	if _, ok, _ := one.search(beforeAll, most); ok {
		return true
	}
	one.at = nil
	for i := range c.crons {
		one.crons = c.crons[i : i+1]
		if _, ok, _ := one.search(beforeAll, most); ok {
			return true
		}
	}
	one.crons = nil
	for i := range c.grids {
		one.grids = c.grids[i : i+1]
		if _, ok, _ := one.search(beforeAll, most); ok {
			return true
		}
	}
	return false
}

// whyNever tells whether c would be due if crons were all its entries of that
// kind and nothing was excluded.
func whyNever(c Compiled, crons []zonedCron) string {
	excluded := len(c.excludes) > 0
	c.crons, c.excludes = crons, nil
	for i := range crons {
		crons[i].without = nil
	}
	if _, ok := c.Next(beforeAll); ok && excluded {
		return "the excludes leave no nominal time"
	}
	return "no nominal time lies between start_time and end_time"
}

func (b *builder) bounds(spec nola.Spec) {
	if !spec.Start.IsZero() && !spec.End.IsZero() && spec.End.Before(spec.Start) {
		b.fault("end_time", spec.End.Format(time.RFC3339), "", "end_time %s lies before start_time %s", spec.End.Format(time.RFC3339), spec.Start.Format(time.RFC3339))
	}
	if spec.Jitter < 0 {
		b.fault("jitter", spec.Jitter.String(), ">= 0", "jitter %s is negative", spec.Jitter)
	}
	switch spec.DSTGap {
	case nola.GapSkip:
	case nola.GapFirstAfter:
		b.out.seams.afterGap = true
	case nola.GapShift:
		b.out.seams.shiftGap = true
	default:
		b.fault("dst_gap", fmt.Sprint(spec.DSTGap), "skip, first_after or shift_by_gap", "dst_gap %d is unknown; legal are skip, first_after and shift_by_gap", spec.DSTGap)
	}
	switch spec.DSTOverlap {
	case nola.OverlapBoth, nola.OverlapFirstUnlessInterval:
	case nola.OverlapFirst:
		b.out.seams.firstOnly = true
	case nola.OverlapLast:
		b.out.seams.lastOnly = true
	default:
		b.fault("dst_overlap", fmt.Sprint(spec.DSTOverlap), "both, first, last or first_unless_interval", "dst_overlap %d is unknown; legal are both, first, last and first_unless_interval", spec.DSTOverlap)
	}
}

func (b *builder) zone(field, name string) *time.Location {
	loc, err := b.zones.Location(name)
	if err != nil {
		b.fault(field, name, "an IANA time zone such as Europe/Berlin", "%s: %q is no time zone: %v", field, clip(name), err)
		return time.UTC
	}
	return loc
}

func (b *builder) cron(i int, entry nola.Cron, spec nola.Spec, base *time.Location) {
	p, faults, warns := parseCron(entry, b.hash)
	b.warns = append(b.warns, warns...)
	loc := base
	if entry.TimeZone != "" {
		loc = b.zone(fmt.Sprintf("cron[%d].time_zone", i), entry.TimeZone)
	}
	if p.zone != "" {
		at := Fault{Expression: entry.Expression, Field: "time zone", Token: p.zone}
		at.Start = indexOf(entry.Expression, p.zone)
		at.End = at.Start + len(p.zone)
		named := entry.TimeZone
		if named == "" {
			named = spec.TimeZone
		}
		if named != "" && named != p.zone {
			at.Message = fmt.Sprintf("the expression names the time zone %s and the spec names %s; name it once, or give the entry its own time_zone", clip(p.zone), clip(named))
			faults = append(faults, at)
		} else if l, err := b.zones.Location(p.zone); err != nil {
			at.Message, at.Legal = fmt.Sprintf("%q is no time zone: %v", clip(p.zone), err), "an IANA time zone such as Europe/Berlin"
			faults = append(faults, at)
		} else {
			loc = l
		}
	}
	if room := FaultsMax - len(b.faults); len(faults) > room {
		faults = faults[:room]
	}
	if b.faults = append(b.faults, faults...); len(faults) > 0 {
		return
	}
	path := fmt.Sprintf("cron[%d]", i)
	if p.isEvery {
		b.out.grids = append(b.out.grids, b.grid(path, p.interval))
		return
	}
	z := zonedCron{cron: p.cron, loc: loc, expression: entry.Expression, path: path}
	b.add(z, entry.Expression)
}

// wall adds a structured calendar.
func (b *builder) wall(path string, s *nola.CalendarSpec) {
	loc := b.out.loc
	if s.TimeZone != "" {
		loc = b.zone(path+".time_zone", s.TimeZone)
	}
	if p := b.structured(path, s, "0"); p != nil {
		b.add(zonedCron{cron: p.out.cron, loc: loc, path: path}, "")
	}
}

func (b *builder) calendarInterval(path string, s *nola.CalendarInterval) {
	loc := b.out.loc
	if s.TimeZone != "" {
		loc = b.zone(path+".time_zone", s.TimeZone)
	}
	from := s.From
	if from.IsZero() {
		// west of Greenwich the epoch shows the day before the first one
		from = nola.DateOf(b.origin().In(loc))
		if first := (nola.Date{Year: YearMin, Month: time.January, Day: 1}); from.Compare(first) < 0 {
			from = first
		}
	}
	n := len(b.faults)
	if s.Every < 1 || s.Every > nola.CalendarEveryMax {
		b.fault(path+".every", fmt.Sprint(s.Every), fmt.Sprintf("1-%d", nola.CalendarEveryMax), "%s.every is %d, legal is 1 to %d", path, s.Every, nola.CalendarEveryMax)
	}
	if s.Unit < nola.UnitDay || s.Unit > nola.UnitYear {
		b.fault(path+".unit", fmt.Sprint(s.Unit), "day, week, month or year", "%s.unit %d is unknown; legal are day, week, month and year", path, s.Unit)
	}
	if s.At < 0 || s.At >= 24*time.Hour || s.At%time.Second != 0 {
		b.fault(path+".at", s.At.String(), "00:00:00-23:59:59", "%s.at is %s, it must be whole seconds from 0 to less than 24 h", path, s.At)
	}
	if !from.Valid() || from.Year < YearMin || from.Year > YearMax {
		b.fault(path+".from", from.String(), "a date from 1970-01-01 to 9999-12-31", "%s.from: %q is no date from 1970 to 9999", path, from)
	}
	if len(b.faults) > n {
		return
	}
	tod := int64(s.At / time.Second)
	b.add(zonedCron{loc: loc, path: path, cron: cron{
		second: 1 << (tod % 60), minute: 1 << (tod / 60 % 60), hour: 1 << (tod / 3600),
		day: allDays, month: allMonths, weekday: 0x7f, anyDay: true, anyWeekday: true,
		every: newDayGrid(s.Every, s.Unit, from),
	}}, "")
}

// origin is what anchored entries count from.
func (b *builder) origin() time.Time {
	switch {
	case !b.spec.Start.IsZero():
		return b.spec.Start
	case !b.anchor.IsZero():
		return b.anchor
	}
	return time.Unix(0, 0).UTC()
}

// add takes an entry in that is searched on the clock of a zone.
func (b *builder) add(z zonedCron, expression string) {
	z.seams = b.out.seams
	if b.spec.DSTOverlap == nola.OverlapFirstUnlessInterval && !z.repeats {
		z.seams.firstOnly = true
	}
	z.holidays = b.named[b.spec.HolidayCalendar]
	horizon := int64(naiveMax)
	if len(z.years) == 0 && z.holidays == nil && z.every == nil {
		// dates and weekdays repeat after 400 years
		horizon = daysOf(YearMin+400, 1) * daySeconds
	}
	if _, ok := z.next(0, horizon); !ok {
		f := Fault{
			Expression: expression, Field: "expression", End: len(expression), Token: expression,
			Message: fmt.Sprintf("no date from %d to %d matches; the entry would never fire", YearMin, YearMax),
		}
		if expression == "" {
			f.Field, f.Message = z.path, z.path+": "+f.Message
		}
		b.faults = append(b.faults, f)
		return
	}
	if w, ok := z.lint(); ok {
		b.warns = append(b.warns, w)
	}
	b.out.crons = append(b.out.crons, z)
}

// lint warns of what the fields alone show.
func (z *zonedCron) lint() (Warning, bool) {
	const plain = uint32(1)<<29 - 2
	late := z.day &^ plain
	switch {
	case !z.anyDay && z.day&plain == 0 && late != 0 && z.dayLast|z.dayNear|z.dayLastNear|z.nearClamped|z.business|z.businessLast == 0 && !z.businessAll:
		return Warning{WarnShortMonths, z.expression, fmt.Sprintf("day %d does not exist in every month, and such months are left out; L is the last day of each", bits.TrailingZeros32(late))}, true
	case z.second == 1<<60-1 && z.minute == 1<<60-1:
		return Warning{WarnEverySecond, z.expression, "the entry is due every second of each matching hour; put 0 in the second field for once a minute"}, true
	}
	return Warning{}, false
}

func (b *builder) interval(field string, iv nola.Interval) {
	switch {
	case iv.Every < IntervalMin:
		b.fault(field+".every", iv.Every.String(), ">= "+IntervalMin.String(), "%s.every is %s, at least %s is needed", field, iv.Every, IntervalMin)
	case iv.Phase < 0 || iv.Phase >= iv.Every:
		b.fault(field+".phase", iv.Phase.String(), fmt.Sprintf("0s <= phase < %s", iv.Every), "%s.phase is %s, it must not be negative and must be shorter than every, %s", field, iv.Phase, iv.Every)
	default:
		b.out.grids = append(b.out.grids, b.grid(field, iv))
	}
}

// grid settles where an interval counts from.
func (b *builder) grid(path string, iv nola.Interval) grid {
	g := grid{every: iv.Every, phase: iv.Phase, path: path}
	origin := iv.Anchor
	switch {
	case !origin.IsZero():
	case iv.Anchored:
		origin = b.origin()
	default:
		return g
	}
	if path := path + ".anchor"; origin.Unix() < 0 || origin.Year() > YearMax {
		b.fault(path, origin.Format(time.RFC3339), "1970-9999", "%s: the year %d lies outside %d-%d", path, origin.Year(), YearMin, YearMax)
		return g
	}
	if iv.Every%time.Second == 0 && iv.Anchor.IsZero() {
		origin = origin.Truncate(time.Second)
	}
	// the distance behind the last multiple of every since the epoch
	if g.phase = rem(origin, iv.Every); iv.Phase >= iv.Every-g.phase {
		g.phase -= iv.Every // then the sum stays in range
	}
	g.phase += iv.Phase
	return g
}

// rem is how far t lies behind the last multiple of every since the Unix epoch.
func rem(t time.Time, every time.Duration) time.Duration {
	// the nanoseconds since the epoch do not fit 64 bits behind the year 2262
	hi, lo := bits.Mul64(uint64(t.Unix()), 1e9)
	lo, carry := bits.Add64(lo, uint64(t.Nanosecond()), 0)
	return time.Duration(bits.Rem64(hi+carry, lo, uint64(every)))
}

func indexOf(s, part string) int {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			return i
		}
	}
	return 0
}

// Next is the first nominal time strictly after after, in UTC. It is false when
// there is none, or where excludes take so many times one after another that
// looking at them costs too much. Next does not allocate.
func (c *Compiled) Next(after time.Time) (time.Time, bool) {
	at, ok, _ := c.search(after, searchMax)
	if !ok {
		return time.Time{}, false
	}
	return at, true
}

// search finds the first nominal time after after. If that costs more than most,
// it is false, and no nominal time lies between after and at; if there is none at
// all, at is zero.
func (c *Compiled) search(after time.Time, most int) (at time.Time, ok bool, cost int) {
	return c.within(after, horizon, most)
}

// within does so for the times before end.
func (c *Compiled) within(after, end time.Time, most int) (at time.Time, ok bool, cost int) {
	if !c.start.IsZero() && after.Before(c.start) {
		after = c.start.Add(-1)
	}
	if after.Before(beforeAll) {
		after = beforeAll
	}
	if !c.end.IsZero() && c.end.Before(end) {
		end = c.end.Add(1)
	}
	if !after.Before(end) {
		return time.Time{}, false, 0
	}
	best, found := end, false
	share := most / max(1, len(c.grids)+len(c.crons))
	// Once an entry is not sure, best is where it stopped, and not found.
	for i := range c.grids {
		left := share
		if at, sure := c.nextGrid(c.grids[i], after, best, &left); at.Before(best) {
			best, found = at, sure
		}
		cost += share - left
	}
	if len(c.at) > 0 {
		i, same := slices.BinarySearchFunc(c.at, after, time.Time.Compare)
		if same {
			i++
		}
		for ; i < len(c.at) && c.at[i].Before(best); i++ {
			if !c.taken(c.loc, c.at[i].Unix()) {
				best, found = c.at[i], true
			}
		}
	}
	pos, limit := after.Unix()+1, best.Unix()
	if best.Nanosecond() > 0 {
		limit++
	}
	for i := range c.crons {
		left := share
		if at, sure := c.nextCron(&c.crons[i], pos, limit, &left); at < limit {
			limit, best, found = at, time.Unix(at, 0), sure
		}
		cost += share - left
	}
	if !best.Before(end) {
		return time.Time{}, false, cost
	}
	return best.UTC(), found, cost
}

// next is the next point of the grid, at the epoch plus phase or later.
func (g grid) next(after time.Time) time.Time {
	since := after.Add(-g.phase)
	if since.Unix() < 0 {
		return time.Unix(0, int64(g.phase))
	}
	return after.Add(g.every - rem(since, g.every))
}

// Prev is the last nominal time strictly before before, in UTC. It is false when
// there is none. Where excludes take so many times one after another that
// looking at them costs too much, it is an earlier nominal time, or false.
func (c *Compiled) Prev(before time.Time) (time.Time, bool) {
	if before.After(horizon) {
		before = horizon
	}
	left := prevMax
	// find a time before it, looking back twice as far each time
	var found time.Time
	for back := int64(1); ; back *= 2 {
		from := time.Unix(before.Unix()-back, 0)
		if from.Before(beforeAll) {
			from = beforeAll
		}
		n, ok := c.nextBefore(from, before, &left)
		if ok {
			found = n
			break
		}
		if !from.After(beforeAll) {
			return time.Time{}, false
		}
	}
	// between found and before lie times or none: halve the distance until the next is not before
	upper := before
	for {
		n, ok := c.nextBefore(found, before, &left)
		if !ok {
			return found, true
		}
		found = n
		for {
			half := halfway(found, upper)
			if !half.After(found) {
				break
			}
			n, ok := c.nextBefore(half, before, &left)
			if ok {
				found = n
				break
			}
			upper = half // no nominal time lies in (half, before)
		}
	}
}

// nextBefore is the first nominal time after after and before before. It goes on
// behind what one search finds excluded, as long as that costs no more than left;
// one search it makes in any case.
func (c *Compiled) nextBefore(after, before time.Time, left *int) (time.Time, bool) {
	for {
		at, ok, cost := c.within(after, before, searchMax)
		*left -= cost
		switch {
		case at.IsZero():
			return time.Time{}, false
		case ok:
			return at, true
		case *left <= 0:
			return time.Time{}, false
		}
		after = at.Add(-1)
	}
}

func halfway(a, b time.Time) time.Time {
	if s := b.Unix() - a.Unix(); s > 1<<32 {
		return time.Unix(a.Unix()+s/2, int64(a.Nanosecond()))
	}
	return a.Add(b.Sub(a) / 2)
}

// Between lists the nominal times after from, up to and including to, at most
// limit of them.
func (c *Compiled) Between(from, to time.Time, limit int) []time.Time {
	var out []time.Time
	for len(out) < limit {
		n, ok := c.Next(from)
		if !ok || n.After(to) {
			break
		}
		out = append(out, n)
		from = n
	}
	return out
}

// Jittered is when the occurrence of a nominal time is due: nominal plus an
// offset, in whole milliseconds, evenly spread below the spec's jitter and below
// the distance to the next nominal time, so that occurrences keep their order.
//
// The offset is span * h / 2^64 with span the smaller of the two and h the
// MurmurHash3 64-bit finalizer of (FNV-1a 64 of the seed) xor (FNV-1a 64 of the
// nominal time as Unix seconds and nanoseconds, each eight bytes big-endian).
func (c *Compiled) Jittered(nominal time.Time) time.Time {
	if c.jitter <= 0 {
		return nominal
	}
	span := c.jitter
	if next, ok := c.Next(nominal); ok {
		span = min(span, next.Sub(nominal))
	}
	h := uint64(fnvOffset)
	for _, word := range [2]uint64{uint64(nominal.Unix()), uint64(nominal.Nanosecond())} {
		for shift := 56; shift >= 0; shift -= 8 {
			h = (h ^ word>>shift&0xff) * fnvPrime
		}
	}
	offset, _ := bits.Mul64(mix(h^c.seed), uint64(span))
	return nominal.Add(time.Duration(offset).Truncate(time.Millisecond))
}

const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

func seedHash(seed string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(seed) {
		h = (h ^ uint64(seed[i])) * fnvPrime
	}
	return h
}

func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// settled is the latest instant such that every nominal time up to it is due by
// until.
func (c *Compiled) settled(until time.Time) time.Time {
	if c.jitter <= 0 {
		return until
	}
	last, ok := c.Prev(until.Add(1))
	if ok && c.Jittered(last).After(until) {
		return last.Add(-1)
	}
	return until
}

// grid reports whether the spec is one interval, so that its times can be
// counted without looking at them.
func (c *Compiled) grid() bool {
	return len(c.grids) == 1 && len(c.crons) == 0 && len(c.at) == 0 && len(c.excludes) == 0
}

// walk counts the nominal times after from, up to and including to, and says
// which is the first and which the last. It counts at most n of them, if n is
// not 0, and looks at no more than steps one by one; looks are how many that was,
// where one that costs much is more than one.
func (c *Compiled) walk(from, to time.Time, steps int, n int64) (count int64, first, last time.Time, looks int) {
	first, ok, looks := c.nextBy(from, to, steps)
	if !ok {
		return 0, time.Time{}, last, looks
	}
	if c.grid() {
		if !c.end.IsZero() && c.end.Before(to) {
			to = c.end
		}
		every := c.grids[0].every
		count = int64(to.Sub(first)/every) + 1
		if n > 0 {
			count = min(count, n)
		}
		return count, first, first.Add(time.Duration(count-1) * every), 1
	}
	for last = first; ; {
		count++
		if looks >= steps || n > 0 && count >= n {
			return count, first, last, looks
		}
		next, ok, more := c.nextBy(last, to, steps-looks)
		if looks += more; !ok {
			return count, first, last, looks
		}
		last = next
	}
}

// nextBy is the first nominal time after after, up to and including to. It goes
// on behind what one search finds excluded, until that was as much as so many
// looks at nominal times; looks are how many it was.
func (c *Compiled) nextBy(after, to time.Time, most int) (at time.Time, ok bool, looks int) {
	for looks < most || looks == 0 {
		at, ok, cost := c.search(after, searchMax)
		looks += 1 + cost/lookCost
		if ok || at.IsZero() || at.After(to) {
			return at, ok && !at.After(to), looks
		}
		after = at.Add(-1)
	}
	return time.Time{}, false, looks
}
