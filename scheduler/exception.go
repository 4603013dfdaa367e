package scheduler

import (
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// Skip takes one nominal time out: it is recorded EXCLUDED_BY_USER instead of
// firing. Skipping it again changes nothing.
func (p *Plan) Skip(s *nola.Schedule, pr *nola.Progress, nominal, now time.Time) error {
	return p.except(s, pr, nominal, time.Time{}, now)
}

// Move has one nominal time fire at another instant, which has not come yet. Its
// identity stays that of the nominal time.
func (p *Plan) Move(s *nola.Schedule, pr *nola.Progress, nominal, to, now time.Time) error {
	if !to.After(now) {
		return occurrenceError("to", "%s has passed; move the occurrence to a time to come, or trigger the schedule", to.UTC().Format(time.RFC3339Nano))
	}
	return p.except(s, pr, nominal, to.UTC(), now)
}

// Unskip has a nominal time that was skipped or moved fire as the spec says.
func (p *Plan) Unskip(s *nola.Schedule, pr *nola.Progress, nominal, now time.Time) error {
	if err := p.mayChange(s, pr, nominal); err != nil {
		return err
	}
	if p.restore(pr, nominal.UTC()) {
		pr.Due = p.due(s, pr, now)
	}
	return nil
}

func (p *Plan) except(s *nola.Schedule, pr *nola.Progress, nominal, moved, now time.Time) error {
	if err := p.mayChange(s, pr, nominal); err != nil {
		return err
	}
	nominal = nominal.UTC()
	if e, ok := exceptionAt(pr, nominal); ok && e.Moved.Equal(moved) {
		return nil
	} else if !ok && len(pr.Exceptions) >= nola.ExceptionsMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "schedule_exceptions_max", nola.ExceptionsMax, "schedule %q has %d nominal times skipped or moved, no more are allowed; unskip some, or change the spec", s.ID, len(pr.Exceptions))
	}
	p.restore(pr, nominal)
	if !moved.IsZero() {
		if len(pr.Running) >= nola.RunningMax {
			return nola.LimitError(nola.ReasonLimitExceeded, "schedule_running_max", nola.RunningMax, "schedule %q has %d occurrences running or moved, no more are allowed; try again when some have ended", s.ID, len(pr.Running))
		}
		pr.Running = append(pr.Running, nola.Running{Nominal: nominal, Kind: nola.OccurrenceRegular, Started: moved})
	}
	i, _ := findException(pr, nominal)
	pr.Exceptions = slices.Insert(pr.Exceptions, i, nola.Exception{Nominal: nominal, Moved: moved})
	pr.Due = p.due(s, pr, now)
	return nil
}

// mayChange refuses what is no nominal time to come.
func (p *Plan) mayChange(s *nola.Schedule, pr *nola.Progress, nominal time.Time) error {
	n, ok := p.compiled.Next(nominal.Add(-1))
	switch {
	case !nominal.After(pr.Through):
		return occurrenceError("nominal_time", "%s has been decided already; see the history of schedule %q", nominal.UTC().Format(time.RFC3339Nano), s.ID)
	case !ok:
		return occurrenceError("nominal_time", "%s is no nominal time of schedule %q, and none comes after it", nominal.UTC().Format(time.RFC3339Nano), s.ID)
	case !n.Equal(nominal):
		return occurrenceError("nominal_time", "%s is no nominal time of schedule %q; the next one is %s", nominal.UTC().Format(time.RFC3339Nano), s.ID, n.Format(time.RFC3339Nano))
	}
	if e, ok := exceptionAt(pr, nominal); ok && !e.Moved.IsZero() && !slices.ContainsFunc(pr.Running, func(r nola.Running) bool { return Waiting(r) && r.Nominal.Equal(nominal) }) {
		return occurrenceError("nominal_time", "%s was moved to %s, which has come; see the history of schedule %q", nominal.UTC().Format(time.RFC3339Nano), e.Moved.Format(time.RFC3339Nano), s.ID)
	}
	return nil
}

func occurrenceError(field, format string, args ...any) error {
	e := nola.Errorf(nola.ReasonInvalidArgument, format, args...)
	e.Metadata = map[string]string{"field": field}
	return e
}

// restore takes an exception back, and reports whether there was one.
func (p *Plan) restore(pr *nola.Progress, nominal time.Time) bool {
	i, ok := findException(pr, nominal)
	if !ok {
		return false
	}
	if !pr.Exceptions[i].Moved.IsZero() {
		pr.Running = slices.DeleteFunc(pr.Running, func(r nola.Running) bool { return Waiting(r) && r.Nominal.Equal(nominal) })
	}
	pr.Exceptions = slices.Delete(pr.Exceptions, i, i+1)
	return true
}

func findException(pr *nola.Progress, nominal time.Time) (int, bool) {
	return slices.BinarySearchFunc(pr.Exceptions, nominal, func(e nola.Exception, n time.Time) int { return e.Nominal.Compare(n) })
}

func exceptionAt(pr *nola.Progress, nominal time.Time) (nola.Exception, bool) {
	if i, ok := findException(pr, nominal); ok {
		return pr.Exceptions[i], true
	}
	return nola.Exception{}, false
}

// beforeException is to, or the instant before the first exception behind the
// next nominal time if that is earlier.
func (st *step) beforeException(to time.Time) time.Time {
	if len(st.pr.Exceptions) == 0 {
		return to
	}
	n, ok := st.p.compiled.Next(st.pr.Through)
	if i, _ := findException(st.pr, n); ok && i < len(st.pr.Exceptions) {
		return earlier(to, st.pr.Exceptions[i].Nominal.Add(-1))
	}
	return to
}

func (st *step) dropException(nominal time.Time) {
	if i, ok := findException(st.pr, nominal); ok {
		st.pr.Exceptions = slices.Delete(st.pr.Exceptions, i, i+1)
	}
}

// keepExceptions drops the exceptions that have passed, and the skipped times
// that the plan does not know. A moved occurrence of an earlier spec still fires,
// so that its nominal time must not come about once more under a later one.
func (p *Plan) keepExceptions(pr *nola.Progress) {
	pr.Exceptions = slices.DeleteFunc(pr.Exceptions, func(e nola.Exception) bool {
		n, ok := p.compiled.Next(e.Nominal.Add(-1))
		return !e.Nominal.After(pr.Through) || e.Moved.IsZero() && (!ok || !n.Equal(e.Nominal))
	})
}
