package scheduler

import (
	"fmt"
	"time"
)

// rareYears is how many years without a nominal time are worth a warning, and
// seamYears how far ahead changes of offset are looked at.
const (
	rareYears = 5
	seamYears = 2
)

// Warnings are what is surprising about the nominal times after now: that none
// is left, that they are rare, and what the next gap and the next repeated hour
// of each zone do to them.
func (c *Compiled) Warnings(now time.Time) []Warning {
	if c.empty() {
		return nil
	}
	var out []Warning
	first, ok, _ := c.search(now, searchMax)
	switch {
	case first.IsZero():
		return []Warning{{Code: WarnNoMore, Message: "no nominal time lies after " + now.UTC().Format(time.RFC3339)}}
	case !ok:
		return []Warning{{Code: WarnRare, Message: fmt.Sprintf("the excludes take every time up to %s, and more were not looked at; make them fewer and longer, or give the spec a start_time behind them", first.Format(time.RFC3339))}}
	}
	from := now
	if c.start.After(from) {
		from = c.start
	}
	second, more := c.Next(first)
	switch limit := from.AddDate(rareYears, 0, 0); {
	case first.After(limit):
		out = append(out, Warning{Code: WarnRare, Message: fmt.Sprintf("the next time is %s, more than %d years away", first.Format(time.RFC3339), rareYears)})
	case len(c.crons) > 0 && more && second.After(first.AddDate(rareYears, 0, 0)):
		out = append(out, Warning{Code: WarnRare, Message: fmt.Sprintf("it is due less than once in %d years: %s, then %s", rareYears, first.Format(time.RFC3339), second.Format(time.RFC3339))})
	}
	for i := range c.crons {
		out = append(out, c.crons[i].seamWarnings(from.Unix(), from.AddDate(seamYears, 0, 0).Unix())...)
	}
	return out
}

// seamWarnings looks for the first gap and the first overlap in [pos, until)
// that touch a time of the entry.
func (z *zonedCron) seamWarnings(pos, until int64) []Warning {
	everyHour := z.hour == 1<<24-1
	if z.loc == time.UTC || everyHour && z.seams == (seams{}) {
		return nil // hour after hour, a gap or an overlap changes no distance
	}
	var out []Warning
	gap, overlap := false, false
	for !gap || !overlap {
		s := stretchAt(z.loc, pos)
		if s.end >= until {
			break
		}
		after := stretchAt(z.loc, s.end).offset
		when := func(naive int64) string { return time.Unix(naive, 0).UTC().Format("2006-01-02 15:04:05") }
		switch {
		case after > s.offset && !gap:
			if n, ok := z.next(s.end+s.offset, s.end+after); ok {
				gap = true
				what := "is skipped"
				switch {
				case z.seams.afterGap:
					what = "becomes " + when(s.end+after)
				case z.seams.shiftGap:
					what = "becomes " + when(n+after-s.offset)
				}
				out = append(out, Warning{WarnGap, z.expression, fmt.Sprintf("%s does not exist in %s: it %s (dst_gap)", when(n), z.loc, what)})
			}
		case after < s.offset && !overlap:
			if n, ok := z.next(s.end+after, s.end+s.offset); ok {
				overlap = true
				what := "counts twice"
				switch {
				case z.seams.firstOnly:
					what = "counts once, the first time"
				case z.seams.lastOnly:
					what = "counts once, the second time"
				}
				out = append(out, Warning{WarnOverlap, z.expression, fmt.Sprintf("%s exists twice in %s: it %s (dst_overlap)", when(n), z.loc, what)})
			}
		}
		pos = s.end
	}
	return out
}
