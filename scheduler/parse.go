package scheduler

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/nolaproject/nola"
)

// Limits of expressions.
const (
	ExpressionBytesMax = 1_000
	// IntervalMin is the shortest interval.
	IntervalMin = 100 * time.Millisecond
)

// fieldKind is a field of an expression.
type fieldKind uint8

const (
	fieldSecond fieldKind = iota
	fieldMinute
	fieldHour
	fieldDay
	fieldMonth
	fieldWeekday
	fieldYear
	fieldKinds
)

var fieldFacts = [fieldKinds]struct {
	name   string
	lo, hi int
	legal  string
}{
	fieldSecond:  {"second", 0, 59, "0-59"},
	fieldMinute:  {"minute", 0, 59, "0-59"},
	fieldHour:    {"hour", 0, 23, "0-23"},
	fieldDay:     {"day of month", 1, 31, "1-31, L, L-n, nW, LW, L-nW, B, nB or L-nB"},
	fieldMonth:   {"month", 1, 12, "1-12 or JAN-DEC"},
	fieldWeekday: {"day of week", 0, 6, "0-7 or SUN-SAT, with #k or L behind it"},
	fieldYear:    {"year", YearMin, YearMax, "1970-9999"},
}

// layout is the order of the fields in an expression.
type layout []fieldKind

var (
	layoutUnix     = layout{fieldMinute, fieldHour, fieldDay, fieldMonth, fieldWeekday}
	layoutSeconds  = layout{fieldSecond, fieldMinute, fieldHour, fieldDay, fieldMonth, fieldWeekday}
	layoutYear     = layout{fieldMinute, fieldHour, fieldDay, fieldMonth, fieldWeekday, fieldYear}
	layoutFull     = layout{fieldSecond, fieldMinute, fieldHour, fieldDay, fieldMonth, fieldWeekday, fieldYear}
	layoutCroniter = layout{fieldMinute, fieldHour, fieldDay, fieldMonth, fieldWeekday, fieldSecond}
	layoutCronYear = layout{fieldMinute, fieldHour, fieldDay, fieldMonth, fieldWeekday, fieldSecond, fieldYear}
)

// dialect is how expressions are read.
type dialect struct {
	name string
	// layouts are the legal ones, the usual one first.
	layouts []layout
	either  bool // both day fields restrict: one of them suffices
	sunday1 bool // weekdays count from 1
	oneDay  bool // exactly one of the day fields must be ?
	lFirst  bool // the last Friday is L5 as well as 5L
	clamp   bool // 31W means the last day in a shorter month
	// anchored @every counts whole seconds, at least one, from the schedule's
	// creation, as robfig/cron does; otherwise it lies on the epoch grid.
	anchored bool
	// yearLo and yearHi bound the years, if set.
	yearLo, yearHi int
}

// years are the legal ones.
func (d *dialect) years() (lo, hi int) {
	if d.yearLo != 0 {
		return d.yearLo, d.yearHi
	}
	return YearMin, YearMax
}

var dialects = map[nola.CronDialect]*dialect{
	nola.DialectUnix:     {name: "unix", layouts: []layout{layoutUnix}, either: true, anchored: true},
	nola.DialectSeconds:  {name: "seconds", layouts: []layout{layoutSeconds}, either: true, anchored: true},
	nola.DialectFull:     {name: "full", layouts: []layout{layoutFull}},
	nola.DialectTemporal: {name: "temporal", layouts: []layout{layoutUnix, layoutYear, layoutFull}, yearLo: 2000, yearHi: 2100},
	nola.DialectQuartz:   {name: "quartz", layouts: []layout{layoutSeconds, layoutFull}, sunday1: true, oneDay: true},
	nola.DialectCroniter: {name: "croniter", layouts: []layout{layoutUnix, layoutCroniter, layoutCronYear}, either: true, lFirst: true, clamp: true},
}

var (
	autoDialect = &dialect{name: "auto"}
	// yearLast is what auto takes six fields for whose last one is a year.
	yearLast = &dialect{name: "auto", layouts: []layout{layoutYear}}
)

// names of months and weekdays, in lower case. Abbreviations are the usual ones
// only, so that a slip such as "janu" is not taken for a month.
var (
	monthNames = map[string]int{
		"jan": 1, "january": 1, "feb": 2, "february": 2, "mar": 3, "march": 3, "apr": 4, "april": 4,
		"may": 5, "jun": 6, "june": 6, "jul": 7, "july": 7, "aug": 8, "august": 8, "sep": 9, "sept": 9, "september": 9,
		"oct": 10, "october": 10, "nov": 11, "november": 11, "dec": 12, "december": 12,
	}
	weekdayNames = map[string]int{
		"su": 0, "sun": 0, "sunday": 0, "mo": 1, "mon": 1, "monday": 1, "tu": 2, "tue": 2, "tues": 2, "tuesday": 2,
		"we": 3, "wed": 3, "weds": 3, "wednesday": 3, "th": 4, "thu": 4, "thur": 4, "thurs": 4, "thursday": 4,
		"fr": 5, "fri": 5, "friday": 5, "sa": 6, "sat": 6, "saturday": 6,
	}
)

const macroNames = "@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly or @every DURATION"

// parsed is one cron entry as read: an expression or, for @every, an interval.
type parsed struct {
	cron     cron
	interval nola.Interval
	isEvery  bool
	hashed   bool   // H stands in it
	zone     string // from the prefix
	prefixed bool
	layout   layout
	dialect  *dialect
}

// parser reads one expression. Its cost is linear in the length of the text.
type parser struct {
	text   string // as the user wrote it
	lower  string // the same bytes with A-Z in lower case
	d      *dialect
	index  int // of the field being read, from 1
	field  fieldKind
	path   string // where text stands in the spec, if it is no whole expression
	seed   uint64 // of H
	out    parsed
	faults []Fault
	warns  []Warning
}

func parseCron(c nola.Cron, seed uint64) (parsed, []Fault, []Warning) {
	p := &parser{text: c.Expression, seed: seed}
	p.run(c)
	return p.out, p.faults, p.warns
}

func (p *parser) run(c nola.Cron) {
	if len(p.text) > ExpressionBytesMax {
		p.text = clip(p.text)
		p.fault(0, len(p.text), "", fmt.Sprintf("the expression has %d bytes, at most %d are allowed", len(c.Expression), ExpressionBytesMax), "")
		return
	}
	p.lower = lowerASCII(p.text)
	start, end := p.body()
	if len(p.faults) > 0 {
		return
	}
	if p.text[start] == '@' {
		p.macro(c.Dialect, start, end)
		return
	}
	spans := fieldsOf(p.text, start, end)
	if p.choose(c.Dialect, spans, start, end); p.out.layout == nil {
		return
	}
	p.fields(spans)
	if len(p.faults) == 0 {
		p.finish(c.DayMatch)
	}
}

// body finds the fields or the macro between the zone prefix and the comment.
func (p *parser) body() (start, end int) {
	start, end = trim(p.text, 0, len(p.text))
	for _, prefix := range [...]string{"CRON_TZ=", "TZ="} {
		if !strings.HasPrefix(p.text[start:end], prefix) {
			continue
		}
		at := start + len(prefix)
		stop := at
		for stop < end && !isSpace(p.text[stop]) {
			stop++
		}
		p.out.prefixed, p.out.zone = true, p.text[at:stop]
		if p.out.zone == "" {
			p.fault(start, stop, "an IANA name", "the time zone behind "+prefix+" is empty", prefix+"Europe/Berlin 0 3 * * *")
		}
		start, end = trim(p.text, stop, end)
		break
	}
	for i := start; i < end; i++ {
		if p.text[i] == '#' && (i == start || isSpace(p.text[i-1])) {
			start, end = trim(p.text, start, i)
			break
		}
	}
	if start >= end && len(p.faults) == 0 {
		p.fault(0, len(p.text), "five fields or a macro", "the expression is empty", "0 3 * * *")
	}
	return start, end
}

func (p *parser) macro(want nola.CronDialect, start, end int) {
	word := p.lower[start:end]
	p.d = autoDialect
	if want != nola.DialectAuto {
		d, ok := dialects[want]
		if !ok {
			p.fault(start, end, "", fmt.Sprintf("cron dialect %d is unknown", want), "")
			return
		}
		p.d = d
	}
	p.out.dialect = p.d
	if word == "@every" || strings.HasPrefix(word, "@every ") || strings.HasPrefix(word, "@every\t") {
		p.every(start+len("@every"), end)
		return
	}
	c := &p.out.cron
	*c = cron{second: 1, minute: 1, hour: 1, day: 1 << 1, month: allMonths, weekday: 0x7f, anyWeekday: true}
	switch word {
	case "@yearly", "@annually":
		c.month = 1 << 1
	case "@monthly":
	case "@weekly":
		c.anyDay, c.anyWeekday, c.weekday, c.day = true, false, 1, allDays
	case "@daily", "@midnight":
		c.anyDay, c.day = true, allDays
	case "@hourly":
		c.anyDay, c.day, c.hour, c.repeats = true, allDays, 1<<24-1, true
	case "@reboot":
		p.fault(start, end, macroNames, "@reboot has no meaning here: a schedule does not belong to a machine", "")
	default:
		p.fault(start, end, macroNames, fmt.Sprintf("%q is no macro; legal are %s", clip(p.text[start:end]), macroNames), "")
	}
}

const (
	allDays   = uint32(1<<32 - 2)
	allMonths = uint16(1<<13 - 2)
)

func (p *parser) every(start, end int) {
	start, end = trim(p.text, start, end)
	const legal = "DURATION or DURATION/PHASE, such as 1h30m or 1d/6h; units ms, s, m, h, d, w"
	slash := strings.IndexByte(p.text[start:end], '/')
	stop := end
	if slash >= 0 {
		stop = start + slash
	}
	every, err := ParseDuration(p.text[start:stop])
	if err != nil {
		p.fault(start, stop, legal, fmt.Sprintf("@every: %q is no duration; legal is %s", clip(p.text[start:stop]), legal), "")
		return
	}
	if p.d.anchored && every > 0 {
		if whole := max(every.Truncate(time.Second), time.Second); whole != every {
			p.warn(WarnWholeSeconds, fmt.Sprintf("dialect %s reads @every in whole seconds, at least one: it is due every %s", p.d.name, whole))
			every = whole
		}
		p.out.interval.Anchored = true
	}
	if every < IntervalMin {
		p.fault(start, stop, legal, fmt.Sprintf("@every: %s is too short, at least %s is needed", p.text[start:stop], IntervalMin), "")
		return
	}
	p.out.isEvery, p.out.interval.Every = true, every
	if slash >= 0 {
		phase, err := ParseDuration(p.text[stop+1 : end])
		switch {
		case err != nil:
			p.fault(stop+1, end, legal, fmt.Sprintf("@every: phase %q is no duration; legal is %s", clip(p.text[stop+1:end]), legal), "")
		case phase >= every:
			p.fault(stop+1, end, legal, fmt.Sprintf("@every: phase %s must be shorter than the interval %s", phase, every), (phase % every).String())
		}
		p.out.interval.Phase = phase
	}
	if p.out.prefixed {
		p.warn(WarnZoneIgnored, "an interval counts elapsed time: the time zone has no influence")
	}
}

// choose settles which field is which.
func (p *parser) choose(want nola.CronDialect, spans []span, start, end int) {
	n := len(spans)
	p.d = autoDialect
	if want == nola.DialectAuto {
		switch {
		case n == 5:
			p.d, p.out.layout = dialects[nola.DialectUnix], layoutUnix
		case n == 7:
			p.d, p.out.layout = dialects[nola.DialectFull], layoutFull
		case n == 6 && hasYear(p.text[spans[5].start:spans[5].end]):
			p.d, p.out.layout = yearLast, layoutYear
		case n == 6:
			p.fault(start, end, "a dialect", fmt.Sprintf("six fields are ambiguous: they may mean %s (dialect seconds) or %s (dialect temporal); name the dialect", layoutSeconds, layoutYear), "")
		default:
			p.fault(start, end, "5 fields", fmt.Sprintf("found %s, expected 5: %s", countFields(n), layoutUnix), "")
		}
	} else if d, ok := dialects[want]; !ok {
		p.fault(start, end, "", fmt.Sprintf("cron dialect %d is unknown", want), "")
	} else {
		p.d = d
		for _, l := range d.layouts {
			if len(l) == n {
				p.out.layout = l
			}
		}
		if p.out.layout == nil {
			p.fault(start, end, fmt.Sprintf("%d fields", len(d.layouts[0])), fmt.Sprintf("found %s, dialect %s has %s", countFields(n), d.name, d.expects()), "")
		}
	}
	p.out.dialect = p.d
}

func (l layout) String() string {
	parts := make([]string, len(l))
	for i, k := range l {
		parts[i] = strings.ReplaceAll(fieldFacts[k].name, " ", "-")
	}
	return strings.Join(parts, " ")
}

func (d *dialect) expects() string {
	parts := make([]string, len(d.layouts))
	for i, l := range d.layouts {
		parts[i] = fmt.Sprintf("%d: %s", len(l), l)
	}
	return strings.Join(parts, ", or ")
}

func countFields(n int) string {
	if n == 1 {
		return "1 field"
	}
	return strconv.Itoa(n) + " fields"
}

// hasYear reports whether a field holds a number that can only be a year.
func hasYear(s string) bool {
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && isDigit(s[j]) {
			j++
		}
		if j-i == 4 && s[i:j] >= "1970" {
			return true
		}
		i = j + 1
	}
	return false
}

func (p *parser) fields(spans []span) {
	c := &p.out.cron
	*c = cron{second: 1} // where there is no second field, it is second 0
	for i, s := range spans {
		p.index, p.field = i+1, p.out.layout[i]
		p.one(c, s)
	}
	p.index = 0
	if p.d.oneDay && len(p.faults) == 0 {
		p.oneDay(spans)
	}
	p.hashWarning()
}

func (p *parser) hashWarning() {
	if p.out.hashed && p.seed == seedHash("") {
		p.warn(WarnUnseeded, "H is chosen by the schedule's id, and none is known here; a schedule will have other times")
	}
}

// oneDay checks Quartz's rule that one of the day fields is ?.
func (p *parser) oneDay(spans []span) {
	questions, day := 0, span{}
	for i, s := range spans {
		if k := p.out.layout[i]; k == fieldDay || k == fieldWeekday {
			day = s
			if p.text[s.start:s.end] == "?" {
				questions++
			}
		}
	}
	if questions != 1 {
		p.fault(day.start, day.end, "?", "dialect quartz wants ? in exactly one of day of month and day of week", "")
	}
}

// one reads one field.
func (p *parser) one(c *cron, f span) {
	var set uint64
	star := false
	for at := f.start; at <= f.end; {
		stop := at
		for stop < f.end && p.lower[stop] != ',' {
			stop++
		}
		if stop == at {
			p.fault(f.start, f.end, p.legal(), fmt.Sprintf("%s %q has an empty item in its list", p.where(), clip(p.text[f.start:f.end])), "")
			return
		}
		all, ok := p.item(c, at, stop, &set)
		if !ok && len(p.faults) >= FaultsMax {
			return
		}
		star = star || all
		at = stop + 1
	}
	if star && p.field == fieldWeekday && c.hasNth {
		p.fault(f.start, f.end, p.legal(), p.where()+" mixes * with the n-th weekday of a month; write one of the two", "")
	}
	switch p.field {
	case fieldSecond:
		c.second = set
	case fieldMinute:
		c.minute = set
	case fieldHour:
		c.hour = uint32(set)
	case fieldDay:
		c.day, c.anyDay = uint32(set), star
	case fieldMonth:
		c.month = uint16(set)
	case fieldWeekday:
		c.weekday, c.anyWeekday = uint8(set), star
	case fieldYear:
		if star {
			c.years = nil
		}
	}
	if p.field <= fieldHour && strings.ContainsAny(p.text[f.start:f.end], "*-/?") {
		c.repeats = true
	}
}

// item reads one item of a list into set. all reports that it is * or ?.
func (p *parser) item(c *cron, at, stop int, set *uint64) (all, ok bool) {
	facts := &fieldFacts[p.field]
	base, step := stop, 1
	for i := at; i < stop; i++ {
		if p.lower[i] == '/' {
			base = i
			break
		}
	}
	if base < stop {
		n, good := number(p.lower[base+1 : stop])
		size := facts.hi - facts.lo + 1
		if !good || n < 1 || n > size {
			p.fault(base+1, stop, fmt.Sprintf("1-%d", size), fmt.Sprintf("%s: step %q is not a number from 1 to %d", p.where(), clip(p.text[base+1:stop]), size), "")
			return false, false
		}
		step = n
	}
	if base == at {
		p.fault(at, stop, p.legal(), fmt.Sprintf("%s: %q has nothing in front of the slash", p.where(), clip(p.text[at:stop])), "*"+clip(p.text[at:stop]))
		return false, false
	}
	word := p.lower[at:base]
	if word == "*" || word == "?" {
		if step == 1 {
			p.addRange(c, set, facts.lo, facts.hi, 1)
			return true, true
		}
		p.uneven(at, stop, step)
		p.addRange(c, set, facts.lo, facts.hi, step)
		return false, true
	}
	if word[0] == 'h' {
		return false, p.hashed(c, at, base, stop, step, set)
	}
	switch p.field {
	case fieldDay:
		if special, good := p.dayItem(c, at, base, stop, step, set); special {
			return false, good
		}
	case fieldWeekday:
		if special, good := p.weekdayItem(c, at, base, stop); special {
			return false, good
		}
	}
	dash := strings.IndexByte(word, '-')
	if dash < 0 {
		lo, good := p.value(at, base)
		if !good {
			return false, false
		}
		if base == stop {
			p.addRange(c, set, p.wrap(lo), p.wrap(lo), 1)
			return false, true
		}
		if facts.hi-lo < step {
			p.warn(WarnUnevenStep, fmt.Sprintf("%s: %q means %d alone, the step leads out of the field", p.where(), p.text[at:stop], lo))
		}
		p.addRange(c, set, p.wrap(lo), facts.hi, step)
		return false, true
	}
	lo, good := p.value(at, at+dash)
	hi, good2 := p.value(at+dash+1, base)
	if !good || !good2 {
		return false, false
	}
	if p.field == fieldWeekday && lo == 7 && hi != 7 {
		lo = 0
	}
	if lo > hi && p.field == fieldYear {
		p.fault(at, base, p.legal(), fmt.Sprintf("%s: range %q ends before it starts", p.where(), p.text[at:base]), fmt.Sprintf("%d-%d", hi, lo))
		return false, false
	}
	p.addRange(c, set, lo, hi, step)
	return false, true
}

// hashDayMax keeps a hashed day of month in every month.
const hashDayMax = 28

// hashed reads H, H(a-b), H/s and H(a-b)/s: a value that the seed chooses.
func (p *parser) hashed(c *cron, at, base, stop, step int, set *uint64) bool {
	facts := &fieldFacts[p.field]
	lo, hi := facts.lo, facts.hi
	switch p.field {
	case fieldDay:
		hi = hashDayMax
	case fieldYear:
		p.fault(at, stop, p.legal(), p.where()+": H would choose one year of thousands; write the years", "*")
		return false
	}
	if inside, found := strings.CutPrefix(p.lower[at:base], "h("); found {
		inside, closed := strings.CutSuffix(inside, ")")
		dash := strings.IndexByte(inside, '-')
		if !closed || dash < 0 {
			p.fault(at, base, "H or H(a-b)", fmt.Sprintf("%s: %q is not H or H(a-b), with /step behind it", p.where(), clip(p.text[at:base])), "")
			return false
		}
		from := at + len("h(")
		a, good := p.value(from, from+dash)
		b, good2 := p.value(from+dash+1, base-1)
		if !good || !good2 {
			return false
		}
		if a > b || b > facts.hi {
			p.fault(from, base-1, p.legal(), fmt.Sprintf("%s: the range of %q ends before it starts", p.where(), clip(p.text[at:base])), "")
			return false
		}
		lo, hi = a, b
	} else if base-at != 1 {
		p.fault(at, base, "H or H(a-b)", fmt.Sprintf("%s: %q is not H or H(a-b), with /step behind it", p.where(), clip(p.text[at:base])), "")
		return false
	}
	p.out.hashed = true
	size := hi - lo + 1
	if base < stop {
		size = min(size, step)
	} else {
		step = size
	}
	h := mix(p.seed ^ uint64(p.field+1)*fnvPrime)
	n, _ := bits.Mul64(h, uint64(size))
	p.addRange(c, set, lo+int(n), hi, step)
	return true
}

// wrap takes the second name of Sunday for the first.
func (p *parser) wrap(n int) int {
	if p.field == fieldWeekday && n == 7 {
		return 0
	}
	return n
}

// addRange adds lo, lo+step, ... hi; behind the end of the field it goes on at
// its start.
func (p *parser) addRange(c *cron, set *uint64, lo, hi, step int) {
	if p.field == fieldYear {
		c.years = append(c.years, yearRange{lo, hi, step})
		return
	}
	facts := &fieldFacts[p.field]
	size := facts.hi - facts.lo + 1
	if lo > hi {
		hi += size
	}
	for n := lo; n <= hi; n += step {
		*set |= 1 << ((n-facts.lo)%size + facts.lo)
	}
}

// businessMax is how many days from Monday to Friday a month has at most.
const businessMax = 23

// dayItem reads what only the day of month knows: L, L-n, LW, L-nW, nW, n-L, and
// B, nB, LB, L-nB.
func (p *parser) dayItem(c *cron, at, base, stop, step int, set *uint64) (special, ok bool) {
	word := p.lower[at:base]
	if !strings.ContainsAny(word, "lwb") {
		return false, false
	}
	bad := func(what string) (bool, bool) {
		p.fault(at, stop, p.legal(), fmt.Sprintf("%s: %q %s", p.where(), clip(p.text[at:stop]), what), "")
		return true, false
	}
	if rest, found := strings.CutSuffix(word, "-l"); found && base > at {
		if lo, good := number(rest); good && 1 <= lo && lo <= 31 {
			p.addRange(c, set, lo, 31, step)
			return true, true
		}
		return bad("is no range up to the last day")
	}
	if base < stop {
		return bad("takes no step")
	}
	work, business := strings.HasSuffix(word, "w"), strings.HasSuffix(word, "b")
	word = strings.TrimRight(word, "wb")
	if business && word == "" && base-at == 1 {
		c.businessAll = true
		return true, true
	}
	if base-at-len(word) > 1 {
		return bad("is neither nW nor nB")
	}
	if rest, found := strings.CutPrefix(word, "l"); found {
		back := 0
		if rest != "" {
			n, good := number(strings.TrimPrefix(rest, "-"))
			if !good || rest[0] != '-' || n > 30 {
				return bad("is not L, L-n, LW, L-nW, LB or L-nB with n from 0 to 30")
			}
			back = n
		}
		switch {
		case business && back > businessMax-1:
			return bad(fmt.Sprintf("goes back further than the %d business days a month has at most", businessMax))
		case business:
			c.businessLast |= 1 << back
		case work:
			c.dayLastNear |= 1 << back
		default:
			c.dayLast |= 1 << back
		}
		return true, true
	}
	n, good := number(word)
	if !good || n < 1 || n > 31 || !work && !business {
		return bad("is not nW or nB with n from 1 to 31")
	}
	switch {
	case business && n > businessMax:
		return bad(fmt.Sprintf("asks for more than the %d business days a month has at most", businessMax))
	case business:
		c.business |= 1 << n
	case p.d.clamp && n > 28:
		c.nearClamped |= 1 << n
	default:
		c.dayNear |= 1 << n
	}
	return true, true
}

// weekdayItem reads what only the day of week knows: d#k, dL, d#L.
func (p *parser) weekdayItem(c *cron, at, base, stop int) (special, ok bool) {
	word := p.lower[at:base]
	hash := strings.IndexByte(word, '#')
	lastAt := -1
	switch {
	case hash >= 0:
	case len(word) > 1 && word[len(word)-1] == 'l':
		lastAt = base - 1
	case len(word) > 1 && word[0] == 'l' && p.d.lFirst:
		lastAt = at
	case word == "l" && p.d.sunday1:
		p.fault(at, base, p.legal(), p.where()+": L alone means Saturday in dialect quartz; write 7 or SAT", "7")
		return true, false
	default:
		return false, false
	}
	if base < stop {
		p.fault(at, stop, p.legal(), fmt.Sprintf("%s: %q takes no step", p.where(), clip(p.text[at:stop])), "")
		return true, false
	}
	from, to, k := at, base, 0
	switch {
	case hash >= 0:
		to = at + hash
		nth := word[hash+1:]
		if nth != "l" {
			if len(nth) != 1 || nth[0] < '1' || nth[0] > '5' {
				p.fault(to+1, base, "1-5 or L", fmt.Sprintf("%s: %q in %q is not a number from 1 to 5", p.where(), clip(nth), clip(p.text[at:base])), "")
				return true, false
			}
			k = int(nth[0] - '0')
		}
	case lastAt == at:
		from++
	default:
		to--
	}
	d, good := p.value(from, to)
	if !good {
		return true, false
	}
	c.hasNth = true
	c.nth[p.wrap(d)] |= 1 << k
	return true, true
}

// value reads a number or a name of the field.
func (p *parser) value(at, stop int) (int, bool) {
	facts := &fieldFacts[p.field]
	word := p.lower[at:stop]
	if word == "" {
		p.fault(max(at-1, 0), stop, p.legal(), p.where()+": a value is missing next to the dash", "")
		return 0, false
	}
	lo, hi := facts.lo, facts.hi
	if p.field == fieldYear {
		lo, hi = p.d.years()
	}
	if p.field == fieldWeekday {
		hi = 7
		if p.d.sunday1 {
			lo = 1
		}
	}
	if n, ok := number(word); ok {
		if n < lo || n > hi {
			p.fault(at, stop, p.legal(), fmt.Sprintf("%s: %s is out of range, legal is %s", p.where(), clip(p.text[at:stop]), p.legal()), p.near(n))
			return 0, false
		}
		if p.field == fieldWeekday && p.d.sunday1 {
			n--
		}
		return n, true
	}
	var names map[string]int
	switch p.field {
	case fieldMonth:
		names = monthNames
	case fieldWeekday:
		names = weekdayNames
	}
	if n, ok := names[word]; ok {
		return n, true
	}
	suggestion := ""
	if len(word) > 3 {
		if _, ok := names[word[:3]]; ok {
			suggestion = strings.ToUpper(word[:3])
		}
	}
	p.fault(at, stop, p.legal(), fmt.Sprintf("%s: %q is no %s, legal is %s", p.where(), clip(p.text[at:stop]), fieldFacts[p.field].name, p.legal()), suggestion)
	return 0, false
}

// near is the legal value that an illegal number was probably meant to be.
func (p *parser) near(n int) string {
	switch {
	case p.field == fieldWeekday && n == 8:
		return "7 or SUN"
	case n == fieldFacts[p.field].hi+1 && p.field <= fieldHour:
		return "0"
	case n == 0 && fieldFacts[p.field].lo == 1:
		return "1"
	}
	return ""
}

// uneven warns of a step that does not divide its field: */45 fires at 0 and 45.
func (p *parser) uneven(at, stop, step int) {
	facts := &fieldFacts[p.field]
	size := facts.hi - facts.lo + 1
	if p.field > fieldHour || size%step == 0 {
		return
	}
	p.warn(WarnUnevenStep, fmt.Sprintf("%s: %d does not divide %d, so the distance between firings is uneven: %q starts again at %d each time", p.where(), step, size, p.text[at:stop], facts.lo))
}

// finish settles how the day fields combine.
func (p *parser) finish(match nola.DayMatch) {
	c := &p.out.cron
	if c.anyDay || c.anyWeekday {
		return
	}
	switch match {
	case nola.DayMatchOr:
		c.either = true
	case nola.DayMatchAnd:
	default:
		c.either = p.d.either
	}
	rule := "a day must match both"
	if c.either {
		rule = "a day must match one of them"
	}
	p.warn(WarnBothDays, "day of month and day of week are both set: "+rule+"; day_match chooses")
}

func (p *parser) where() string { return fieldFacts[p.field].name }

func (p *parser) legal() string {
	if p.field == fieldWeekday && p.d.sunday1 {
		return "1-7 or SUN-SAT, with #k or L behind it"
	}
	if p.field == fieldYear {
		lo, hi := p.d.years()
		return fmt.Sprintf("%d-%d", lo, hi)
	}
	return fieldFacts[p.field].legal
}

func (p *parser) fault(start, end int, legal, message, suggestion string) {
	if len(p.faults) >= FaultsMax {
		return
	}
	f := Fault{Expression: p.text, Index: p.index, Start: start, End: end, Token: p.text[start:end], Legal: legal, Message: message, Suggestion: suggestion, Field: "expression"}
	switch {
	case p.path != "":
		f.Field = p.path
		f.Message = p.path + ": " + message
	case p.index > 0:
		f.Field = p.where()
		f.Message = fmt.Sprintf("field %d, %s", p.index, message)
	}
	p.faults = append(p.faults, f)
}

func (p *parser) warn(code WarningCode, message string) {
	p.warns = append(p.warns, Warning{Code: code, Expression: p.text, Message: message})
}

// span is a piece of the text, as byte offsets.
type span struct{ start, end int }

func fieldsOf(s string, start, end int) []span {
	out := make([]span, 0, 8)
	for i := start; i < end; {
		for i < end && isSpace(s[i]) {
			i++
		}
		j := i
		for j < end && !isSpace(s[j]) {
			j++
		}
		if j > i {
			out = append(out, span{i, j})
		}
		i = j
	}
	return out
}

func trim(s string, start, end int) (int, int) {
	for start < end && isSpace(s[start]) {
		start++
	}
	for end > start && isSpace(s[end-1]) {
		end--
	}
	return start, end
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }
func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// number reads ASCII digits. Numbers beyond any field come back as a large one.
func number(s string) (int, bool) {
	if s == "" {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = min(n*10+int(s[i]-'0'), 1_000_000)
	}
	return n, true
}

func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
