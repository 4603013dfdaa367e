package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/scheduler"
)

// filter is what ListSchedules lets pass: everything for which all terms hold.
// It is decided by the entry of the catalogue and the two rows of a schedule, so
// that no term costs more than another.
type filter struct{ terms []filterTerm }

type filterTerm struct {
	key    string // the word before the equals sign; label for label.KEY
	label  string
	value  string
	prefix bool      // value is where it starts
	since  time.Time // value of missed_since
}

// parseFilter reads the filter language of ListSchedules.
func parseFilter(text string) (filter, error) {
	var f filter
	fault := func(at int, format string, args ...any) error {
		e := nola.Errorf(nola.ReasonInvalidArgument, "filter, byte %d: %s", at, fmt.Sprintf(format, args...))
		e.Metadata = map[string]string{"field": "filter", "byte": strconv.Itoa(at)}
		return e
	}
	const space = " \t\r\n"
	for rest := strings.TrimLeft(text, space); rest != ""; rest = strings.TrimLeft(rest, space) {
		at := len(text) - len(rest)
		end := strings.IndexAny(rest, "="+space)
		if end < 0 || rest[end] != '=' {
			word := rest
			if end >= 0 {
				word = rest[:end]
			}
			return f, fault(at, "%q has no value; write %s=VALUE", word, word)
		}
		term := filterTerm{key: rest[:end]}
		rest = rest[end+1:]
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return f, fault(at, "the quoted value of %s has no closing quote, or a bad escape", term.key)
			}
			if term.value, err = strconv.Unquote(quoted); err != nil {
				return f, fault(at, "the quoted value of %s has a bad escape", term.key)
			}
			rest = rest[len(quoted):]
			term.prefix = strings.HasPrefix(rest, "*")
			rest = strings.TrimPrefix(rest, "*")
			if rest != "" && !strings.ContainsRune(space, rune(rest[0])) {
				return f, fault(len(text)-len(rest), "want white space after the quoted value of %s", term.key)
			}
		} else {
			end := strings.IndexAny(rest, space)
			if end < 0 {
				end = len(rest)
			}
			term.value, term.prefix = strings.CutSuffix(rest[:end], "*")
			rest = rest[end:]
			if strings.Contains(term.value, `"`) {
				return f, fault(at, "the value of %s has a quote inside; put all of it in double quotes", term.key)
			}
		}
		if label, ok := strings.CutPrefix(term.key, "label."); ok {
			if label == "" {
				return f, fault(at, "the label has no name; write label.KEY=VALUE")
			}
			term.key, term.label = "label", label
		}
		if term.prefix && term.key != "id" && term.key != "label" {
			term.value, term.prefix = term.value+"*", false
		}
		switch term.key {
		case "label":
		case "text", "id", "type", "calendar":
			if term.value == "" && !term.prefix {
				return f, fault(at, "%s has no value; write %s=VALUE", term.key, term.key)
			}
		case "actor":
			if typ, id, ok := strings.Cut(term.value, "/"); !ok || typ == "" || id == "" {
				return f, fault(at, "actor=%s: want actor=TYPE/ID", term.value)
			}
		case "paused", "failing", "late", "ran":
			if term.value != "true" && term.value != "false" {
				return f, fault(at, "%s=%s: want %s=true or %s=false", term.key, term.value, term.key, term.key)
			}
		case "missed_since":
			var err error
			if term.since, err = time.Parse(time.RFC3339Nano, term.value); err != nil {
				return f, fault(at, "missed_since=%s: want a time with its offset, such as missed_since=2026-03-01T06:00:00Z", term.value)
			}
		default:
			return f, fault(at, "there is no term %q; legal are text, id, actor, type, calendar, label.KEY, paused, failing, late, ran and missed_since", term.key)
		}
		f.terms = append(f.terms, term)
	}
	return f, nil
}

// prefix is what the ids of all that pass start with.
func (f *filter) prefix() string {
	longest := ""
	for _, t := range f.terms {
		if t.key == "id" && len(t.value) > len(longest) {
			longest = t.value
		}
	}
	return longest
}

// passesEntry decides the terms that an entry of the catalogue decides.
func (f *filter) passesEntry(e *persistence.ScheduleEntry) bool {
	for _, t := range f.terms {
		ok := true
		switch t.key {
		case "id":
			ok = e.ID == t.value || t.prefix && strings.HasPrefix(e.ID, t.value)
		case "actor":
			ok = e.Target.Type+"/"+e.Target.ID == t.value
		case "type":
			ok = e.Target.Type == t.value
		case "calendar":
			ok = slices.Contains(e.Calendars, t.value) // it may use it
		}
		if !ok {
			return false
		}
	}
	return true
}

// passes decides the other terms.
func (f *filter) passes(row *persistence.ScheduleRow, now time.Time) bool {
	for _, t := range f.terms {
		ok := true
		switch t.key {
		case "text":
			ok = mentions(&row.Schedule, t.value)
		case "calendar":
			ok = slices.Contains(row.Schedule.Spec.CalendarNames(), t.value)
		case "label":
			value, has := row.Schedule.Labels[t.label]
			ok = has && (value == t.value || t.prefix && strings.HasPrefix(value, t.value))
		case "paused":
			ok = scheduler.Paused(&row.Schedule, now) == (t.value == "true")
		case "failing":
			ok = failing(&row.Progress) == (t.value == "true")
		case "late":
			ok = late(row, now) == (t.value == "true")
		case "ran":
			ok = ran(&row.Progress) == (t.value == "true")
		case "missed_since":
			ok = missedSince(&row.Progress, t.since)
		}
		if !ok {
			return false
		}
	}
	return true
}

// mentions reports whether a schedule has the text, in any case, in one of the
// things that people write.
func mentions(sd *nola.Schedule, text string) bool {
	text = strings.ToLower(text)
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	if has(sd.ID) || has(sd.Target.Type+"/"+sd.Target.ID) || has(sd.Operation) || has(sd.Note) || has(sd.PauseReason) {
		return true
	}
	for key, value := range sd.Labels {
		if has(key + "=" + value) {
			return true
		}
	}
	for i := range sd.Spec.Cron {
		if has(sd.Spec.Cron[i].Expression) || has(sd.Spec.Cron[i].Comment) {
			return true
		}
	}
	return slices.ContainsFunc(sd.Spec.Calendar, func(e nola.CalendarSpec) bool { return has(e.Comment) }) ||
		slices.ContainsFunc(sd.Spec.CalendarInterval, func(e nola.CalendarInterval) bool { return has(e.Comment) }) ||
		slices.ContainsFunc(sd.Spec.Exclude, func(e nola.Exclude) bool { return has(e.Comment) })
}

// failing reports whether the newest firing failed, or waits for another attempt
// after one that failed.
func failing(pr *nola.Progress) bool {
	return pr.Failures > 0 || slices.ContainsFunc(pr.Running, func(r nola.Running) bool { return !r.RetryAt.IsZero() })
}

// late reports whether a time that should have fired more than the grace ago
// still waits for its start: for the node, for its catch-up, or for the end of
// an earlier firing. What people asked for, such as a backfill, is never late.
func late(row *persistence.ScheduleRow, now time.Time) bool {
	pr, before := &row.Progress, now.Add(-nola.CatchupGrace)
	if len(pr.Late) > 0 || !pr.Due.IsZero() && pr.Due.Before(before) && !scheduler.Paused(&row.Schedule, now) {
		return true
	}
	return slices.ContainsFunc(pr.Buffer, func(r nola.Running) bool {
		return r.Kind == nola.OccurrenceRegular && r.Nominal.Before(before)
	})
}

// ran reports whether a firing has ever started.
func ran(pr *nola.Progress) bool {
	return pr.Counters[nola.OutcomeFired].Count > 0 || slices.ContainsFunc(pr.Running, func(r nola.Running) bool { return !scheduler.Waiting(r) })
}

// missedSince reports whether a nominal time at since or later should have fired
// and never will: nobody was there, too many waited, or the target was gone.
func missedSince(pr *nola.Progress, since time.Time) bool {
	for _, outcome := range [...]nola.Outcome{nola.OutcomeMissedWindow, nola.OutcomeBufferDropped, nola.OutcomeFailedStart} {
		if c := pr.Counters[outcome]; c.Count > 0 && !c.Last.Before(since) {
			return true
		}
	}
	return false
}
