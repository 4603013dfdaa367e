package scheduler

import (
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// backfillRunning bounds how many firings may run for one of a backfill with
// ALLOW_ALL to start, so that regular times find room.
const backfillRunning = nola.RunningMax / 2

// CountBackfill says what a backfill of b's range would fire: how many nominal
// times, the first and the last. A range with more than nola.BackfillTimesMax
// times, or one that has not passed yet, is refused; so is a policy that would
// leave some of them out.
func (p *Plan) CountBackfill(b *nola.Backfill, now time.Time) (n int, first, last time.Time, err error) {
	switch {
	case b.Overlap != 0 && b.Overlap != nola.OverlapBufferAll && b.Overlap != nola.OverlapAllowAll:
		return 0, first, last, backfillError("overlap", "a backfill fires all its times: with overlap BUFFER_ALL, the default, one after the other, with ALLOW_ALL side by side")
	case b.Rate < 0 || b.Rate > nola.BackfillRateMax:
		return 0, first, last, backfillError("rate", "rate is %d, legal is 1 to %d starts a second, or 0 for %d", b.Rate, nola.BackfillRateMax, nola.BackfillRate)
	case b.End.Before(b.Start):
		return 0, first, last, backfillError("end_time", "end_time %s lies before start_time %s", b.End.UTC().Format(time.RFC3339Nano), b.Start.UTC().Format(time.RFC3339Nano))
	case b.End.After(now):
		return 0, first, last, backfillError("end_time", "end_time %s has not come yet, it is %s; times to come fire by themselves", b.End.UTC().Format(time.RFC3339Nano), now.UTC().Format(time.RFC3339Nano))
	}
	count, first, last, looks := p.compiled.walk(b.Start.Add(-1), b.End, nola.BackfillTimesMax+1, 0)
	if looks > nola.BackfillTimesMax && count <= nola.BackfillTimesMax {
		return 0, first, last, nola.LimitError(nola.ReasonLimitExceeded, "backfill_times_max", nola.BackfillTimesMax, "the excludes of the spec make the range from %s to %s too long to count its nominal times; ask for a shorter range", b.Start.UTC().Format(time.RFC3339Nano), b.End.UTC().Format(time.RFC3339Nano))
	}
	if count > nola.BackfillTimesMax {
		return 0, first, last, nola.LimitError(nola.ReasonLimitExceeded, "backfill_times_max", nola.BackfillTimesMax, "the range from %s to %s holds more than %d nominal times, the most that one backfill fires; ask for a shorter range", b.Start.UTC().Format(time.RFC3339Nano), b.End.UTC().Format(time.RFC3339Nano), nola.BackfillTimesMax)
	}
	return int(count), first, last, nil
}

func backfillError(field, format string, args ...any) error {
	e := nola.Errorf(nola.ReasonInvalidArgument, format, args...)
	e.Metadata = map[string]string{"field": field}
	return e
}

// Backfill starts to fire the nominal times of b's range again; b says ID, Start,
// End, Overlap, Rate and Reverse. It works while the schedule is paused and takes
// none of its remaining firings. A backfill with the same id is answered instead
// of made, with Decision.Replayed. At most nola.BackfillsMax run at once.
func (p *Plan) Backfill(s *nola.Schedule, pr *nola.Progress, b nola.Backfill, now time.Time) (nola.Backfill, Decision, error) {
	if b.ID == "" {
		return b, Decision{}, backfillError("request_id", "schedule %q: a backfill needs a request id", s.ID)
	}
	running := 0
	for _, have := range pr.Backfills {
		if have.ID == b.ID {
			return have, Decision{Replayed: true}, nil
		}
		if have.State == nola.BackfillRunning {
			running++
		}
	}
	n, _, _, err := p.CountBackfill(&b, now)
	if err != nil {
		return b, Decision{}, err
	}
	if running >= nola.BackfillsMax {
		return b, Decision{}, nola.LimitError(nola.ReasonLimitExceeded, "backfills_max", nola.BackfillsMax, "schedule %q has %d backfills running, no more are allowed; wait for one to end, or cancel one", s.ID, running)
	}
	st := p.step(s, pr, now)
	made := nola.Backfill{
		ID: b.ID, Start: b.Start.UTC(), End: b.End.UTC(), Overlap: b.Overlap, Rate: b.Rate, Reverse: b.Reverse,
		State: nola.BackfillRunning, Total: n, Created: st.now,
	}
	if made.Overlap == 0 {
		made.Overlap = nola.OverlapBufferAll
	}
	if made.Rate == 0 {
		made.Rate = nola.BackfillRate
	}
	if len(pr.Backfills) >= nola.BackfillsKept {
		i := slices.IndexFunc(pr.Backfills, func(b nola.Backfill) bool { return b.State != nola.BackfillRunning })
		pr.Backfills = slices.Delete(pr.Backfills, i, i+1)
	}
	pr.Backfills = append(pr.Backfills, made)
	st.feed()
	d := st.end()
	return pr.Backfills[len(pr.Backfills)-1], d, nil
}

// CancelBackfill ends a backfill: nothing more of it starts. What runs goes on.
// A backfill that has ended stays as it is.
func (p *Plan) CancelBackfill(s *nola.Schedule, pr *nola.Progress, id string, now time.Time) (nola.Backfill, error) {
	i := slices.IndexFunc(pr.Backfills, func(b nola.Backfill) bool { return b.ID == id })
	if i < 0 {
		return nola.Backfill{}, nola.Errorf(nola.ReasonBackfillNotFound, "schedule %q has no backfill %q; the newest %d are kept", s.ID, id, nola.BackfillsKept)
	}
	b := &pr.Backfills[i]
	if b.State == nola.BackfillRunning {
		b.State, b.Ended = nola.BackfillCanceled, now.UTC().Round(0)
		pr.Due = p.due(s, pr, now)
	}
	return *b, nil
}

// backfill starts what the backfill's rate and the overlap policy allow.
func (st *step) backfill(b *nola.Backfill) {
	for b.State == nola.BackfillRunning {
		n, ok := st.p.backfillNext(b)
		if !ok {
			if b.Started == b.OK+b.Failed {
				b.State, b.Ended = nola.BackfillDone, st.now
			}
			return
		}
		if !st.p.backfillRoom(st.pr, b) || b.Ready.After(st.now) {
			return
		}
		if st.left--; st.left < 0 {
			st.d.More = true
			return
		}
		// a second in which nobody looked is made up for, no more
		b.Ready = laterOf(b.Ready, st.now.Add(-time.Second)).Add(time.Second / time.Duration(b.Rate))
		b.Cursor = n
		b.Started++
		st.start(nola.Running{Nominal: n, Kind: nola.OccurrenceBackfill, RequestID: b.ID, Overlap: b.Overlap})
	}
}

// backfillNext is the nominal time that the backfill fires next.
func (p *Plan) backfillNext(b *nola.Backfill) (time.Time, bool) {
	if b.Reverse {
		before := b.End.Add(1)
		if !b.Cursor.IsZero() {
			before = b.Cursor
		}
		n, ok := p.compiled.Prev(before)
		return n, ok && !n.Before(b.Start)
	}
	after := b.Start.Add(-1)
	if !b.Cursor.IsZero() {
		after = b.Cursor
	}
	n, ok, _ := p.compiled.nextBy(after, b.End, NominalsMax)
	return n, ok
}

func (p *Plan) backfillRoom(pr *nola.Progress, b *nola.Backfill) bool {
	limit := p.limit(b.Overlap)
	if b.Overlap == nola.OverlapAllowAll {
		limit = min(limit, backfillRunning)
	}
	return room(pr, limit)
}

// backfilled counts the end of a backfill's firing.
func (p *Plan) backfilled(pr *nola.Progress, id string, ok bool, now time.Time) {
	i := slices.IndexFunc(pr.Backfills, func(b nola.Backfill) bool { return b.ID == id })
	if i < 0 {
		return
	}
	b := &pr.Backfills[i]
	if ok {
		b.OK++
	} else {
		b.Failed++
	}
	if _, more := p.backfillNext(b); !more && b.State == nola.BackfillRunning && b.Started == b.OK+b.Failed {
		b.State, b.Ended = nola.BackfillDone, now
	}
}
