package scheduler

import (
	"fmt"
	"time"

	"github.com/nolaproject/nola"
)

// Verdict says which rule let a time fire, or not.
type Verdict struct {
	// Nominal is the time asked for, or the next nominal time behind it.
	Nominal time.Time
	// Rule is a stable word: the name of an outcome, or NOT_NOMINAL, EXCLUDED,
	// BEFORE_CREATION, RUNNING, BUFFERED, LATE, JITTER, SKIPPED, MOVED, PAUSED,
	// EXHAUSTED, COMING or FORGOTTEN.
	Rule string
	Text string
	// Occurrence is its record, if there is one.
	Occurrence nola.Occurrence
}

// Why explains what became, or becomes, of the regular time at, as of now; list
// are the records that are kept.
func (p *Plan) Why(s *nola.Schedule, pr *nola.Progress, list []nola.Occurrence, at, now time.Time) Verdict {
	at = at.UTC()
	v := Verdict{Nominal: at}
	say := func(rule, format string, args ...any) Verdict {
		v.Rule, v.Text = rule, fmt.Sprintf(format, args...)
		return v
	}
	for _, o := range list {
		if o.Kind == nola.OccurrenceRegular && !at.Before(o.Nominal) && !at.After(o.Last) && (o.Count == 1 || p.isNominal(at)) {
			v.Occurrence = o
			return say(o.Outcome.String(), "%s", p.reasonOf(&o))
		}
	}
	for _, r := range pr.Running {
		if r.Kind != nola.OccurrenceRegular || !r.Nominal.Equal(at) {
			continue
		}
		switch e, moved := exceptionAt(pr, at); {
		case !Waiting(r) && !r.RetryAt.IsZero():
			return say("RUNNING", "attempt %d begins at %s", r.Attempts, stamp(r.RetryAt))
		case !Waiting(r):
			return say("RUNNING", "it runs since %s, attempt %d", stamp(r.Started), r.Attempts)
		case moved && !e.Moved.IsZero():
			return say("MOVED", "it was moved and fires at %s", stamp(r.Started))
		default:
			return say("JITTER", "it waits for its jitter and fires at %s", stamp(r.Started))
		}
	}
	for i, r := range pr.Buffer {
		if r.Kind == nola.OccurrenceRegular && r.Nominal.Equal(at) {
			return say("BUFFERED", "it waits for a firing that runs to end; %d wait before it", i)
		}
	}
	n, ok := p.compiled.Next(at.Add(-1))
	if !ok || !n.Equal(at) {
		if by := excludedBy(s, at); by != "" {
			v.Nominal = n
			return say("EXCLUDED", "the entries of the spec have this time, and %s takes it away", by)
		}
	}
	switch {
	case !ok:
		return say("NOT_NOMINAL", "it is no nominal time of the spec, and none comes after it")
	case !n.Equal(at):
		v.Nominal = n
		return say("NOT_NOMINAL", "it is no nominal time of the spec; the next one is %s", stamp(n))
	case at.Before(s.Created):
		return say("BEFORE_CREATION", "the schedule was made later, at %s; a backfill fires such times", stamp(s.Created))
	}
	for _, span := range pr.Late {
		if !at.Before(span.First) && !at.After(span.Last) {
			return say("LATE", "it passed unattended and waits for its turn in the catch-up")
		}
	}
	if !at.After(pr.Through) {
		return say("FORGOTTEN", "it has been decided, and its record made room for newer ones")
	}
	due := p.compiled.Jittered(at)
	if e, ok := exceptionAt(pr, at); ok && e.Moved.IsZero() {
		return say("SKIPPED", "somebody took it out; it will be recorded EXCLUDED_BY_USER")
	} else if ok {
		return say("MOVED", "it was moved to %s", stamp(e.Moved))
	}
	switch {
	case Paused(s, due):
		return say("PAUSED", "the schedule is paused%s", pauseText(s))
	case s.Limited && s.Remaining <= 0:
		return say("EXHAUSTED", "no firings remain")
	case !due.After(now):
		return say("COMING", "it is due and about to be decided")
	case due.After(at):
		return say("COMING", "it comes, and fires at %s with its jitter", stamp(due))
	}
	return say("COMING", "it comes, and fires then")
}

// excludedBy names the exclude of the spec that takes away a time which the spec
// would have without it; empty if none does.
func excludedBy(s *nola.Schedule, at time.Time) string {
	var zones Zones
	has := func(excludes []nola.Exclude) bool {
		bare := *s
		bare.Spec.Exclude = excludes
		p, _, err := zones.NewPlan(&bare)
		return err == nil && p.isNominal(at)
	}
	if len(s.Spec.Exclude) == 0 || !has(nil) {
		return ""
	}
	for i := range s.Spec.Exclude {
		if has(s.Spec.Exclude[i : i+1]) {
			continue
		}
		e := &s.Spec.Exclude[i]
		text := fmt.Sprintf("exclude[%d]", i)
		switch {
		case e.HolidayCalendar != "":
			text += fmt.Sprintf(", the calendar %q", e.HolidayCalendar)
			for _, c := range s.Calendars {
				if c.Name == e.HolidayCalendar {
					text += fmt.Sprintf(" in version %d", c.Version)
				}
			}
		case e.Calendar != nil:
			text += ", a structured calendar"
		case e.Dates.To.IsZero() || e.Dates.To == e.Dates.From:
			text += ", the date " + e.Dates.From.String()
		default:
			text += fmt.Sprintf(", the dates %s to %s", e.Dates.From, e.Dates.To)
		}
		if e.Comment != "" {
			text += fmt.Sprintf(" (%s)", e.Comment)
		}
		return text + ","
	}
	return ""
}

func (p *Plan) isNominal(at time.Time) bool {
	n, ok := p.compiled.Next(at.Add(-1))
	return ok && n.Equal(at)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func pauseText(s *nola.Schedule) string {
	text := ""
	if s.PausedBy != "" {
		text += " by " + s.PausedBy
	}
	if !s.PausedUntil.IsZero() {
		text += " until " + stamp(s.PausedUntil)
	}
	switch {
	case s.PauseReason != "":
		text += ": " + s.PauseReason
	case s.Note != "":
		text += ": " + s.Note
	}
	return text
}

// reasonOf puts a record into words.
func (p *Plan) reasonOf(o *nola.Occurrence) string {
	switch o.Outcome {
	case nola.OutcomeFired:
		switch {
		case o.OK:
			return fmt.Sprintf("it fired at %s and went well, attempt %d", stamp(o.Started), o.Attempts)
		case o.Reason == nola.ReasonCanceled:
			return "it started and was taken back: " + o.Error
		}
		return fmt.Sprintf("it fired at %s and failed for good with attempt %d: %s", stamp(o.Started), o.Attempts, o.Error)
	case nola.OutcomeTerminated:
		return "it was taken back while it ran: " + o.Error
	case nola.OutcomeFailedStart:
		return "its operation could not be started: " + o.Error
	case nola.OutcomeSkippedOverlap:
		return "an earlier firing still ran, or a later one took its place, as policy.overlap says"
	case nola.OutcomeBufferDropped:
		return fmt.Sprintf("policy.buffer_limit occurrences waited already; it is %d now", p.policy.BufferLimit)
	case nola.OutcomeMissedWindow:
		return "nobody could fire it in time, and policy.catchup (mode, window, max) left it out"
	case nola.OutcomePaused:
		return "the schedule was paused"
	case nola.OutcomeExcludedByUser:
		return "somebody took it out"
	case nola.OutcomeExhausted:
		return "no firings remained"
	}
	return fmt.Sprintf("its outcome %d is one of a later version", o.Outcome)
}
