package scheduler

import (
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// arrive lets an occurrence whose time has come, at came, start, wait or be left
// out. In the buffer, Started is that time: a clock that was set back must reach
// it again. A regular one that nobody could fire in time is late, whether the
// catch-up policy chose it alone or among others.
func (st *step) arrive(r nola.Running, came time.Time) {
	r.Started, r.Attempts = came, 0
	r.Late = r.Late || r.Kind == nola.OccurrenceRegular && st.now.Sub(came) > nola.CatchupGrace
	st.pr.Buffer = append(st.pr.Buffer, r)
	st.pump()
}

// pump goes through the buffer, in order, and decides by the overlap policy of
// each occurrence: it starts, is left out, or goes on waiting. A policy that was
// not chosen for the occurrence itself is the schedule's of now.
func (st *step) pump() {
	waiting := st.pr.Buffer
	if len(waiting) == 0 {
		return
	}
	newest := -1 // of those that take the place of others
	for i := range waiting {
		if replaces(st.p.overlapOf(&waiting[i])) {
			newest = i
		}
	}
	var keep []nola.Running
	oneWaits := false
	for i, r := range waiting {
		o := st.p.overlapOf(&r)
		free := !r.Started.After(st.now) && room(st.pr, st.p.limit(o))
		switch {
		case len(st.d.Records) >= RecordsMax:
			st.d.More = true
			keep = append(keep, waiting[i:]...)
			st.pr.Buffer = keep
			return
		case r.Kind == nola.OccurrenceRegular && Paused(st.s, st.now):
			st.record(r, nola.OutcomePaused)
		case r.Kind == nola.OccurrenceRegular && st.exhausted():
			st.record(r, nola.OutcomeExhausted)
		case free && replaces(o) && i != newest:
			st.record(r, nola.OutcomeSkippedOverlap)
		case free:
			st.start(r)
		case r.Started.After(st.now) && len(keep) < st.p.policy.BufferLimit:
			keep = append(keep, r)
		case o == nola.OverlapAllowAll, o == nola.OverlapSkip && (oneWaits || !onlyLate(st.pr)), o == nola.OverlapBufferOne && oneWaits:
			st.record(r, nola.OutcomeSkippedOverlap)
		case len(keep) >= st.p.policy.BufferLimit && replaces(o):
			// the newest is the one that counts
			st.record(keep[0], nola.OutcomeBufferDropped)
			keep = append(keep[1:], r)
			st.replace(o)
		case len(keep) >= st.p.policy.BufferLimit:
			st.record(r, nola.OutcomeBufferDropped)
		default:
			oneWaits = oneWaits || o == nola.OverlapSkip || o == nola.OverlapBufferOne
			keep = append(keep, r)
			if replaces(o) {
				st.replace(o)
			}
		}
	}
	st.pr.Buffer = keep
}

// stirs is when pump has something to decide, zero if only an end can bring it.
func (p *Plan) stirs(s *nola.Schedule, pr *nola.Progress, now time.Time) time.Time {
	var first time.Time
	for i := range pr.Buffer {
		r := &pr.Buffer[i]
		leaves := r.Kind == nola.OccurrenceRegular && (Paused(s, now) || s.Limited && s.Remaining <= 0)
		if !leaves && !room(pr, p.limit(p.overlapOf(r))) {
			continue
		}
		if at := laterOf(now, r.Started); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

func (p *Plan) overlapOf(r *nola.Running) nola.Overlap {
	if r.Overlap != 0 {
		return r.Overlap
	}
	return p.policy.Overlap
}

// replaces reports whether an occurrence takes the place of those that run.
func replaces(o nola.Overlap) bool {
	return o == nola.OverlapCancelOther || o == nola.OverlapTerminateOther
}

// limit is how many firings may run for a further one to start.
func (p *Plan) limit(o nola.Overlap) int {
	switch {
	case p.policy.MaxConcurrent > 0:
		return p.policy.MaxConcurrent
	case o == nola.OverlapAllowAll:
		return nola.RunningMax
	}
	return 1
}

// room reports whether fewer than limit firings run.
func room(pr *nola.Progress, limit int) bool {
	if len(pr.Running) >= nola.RunningMax {
		return false
	}
	n := 0
	for i := range pr.Running {
		if !Waiting(pr.Running[i]) {
			n++
		}
	}
	return n < limit
}

// onlyLate reports whether all that runs is the schedule's own making: late
// times and backfills, which do not cost a regular time its firing.
func onlyLate(pr *nola.Progress) bool {
	return !slices.ContainsFunc(pr.Running, func(r nola.Running) bool {
		return !Waiting(r) && !r.Late && r.Kind != nola.OccurrenceBackfill && r.Kind != nola.OccurrenceRedrive
	})
}

// start lets an occurrence fire.
func (st *step) start(r nola.Running) {
	r.Started, r.Attempts = st.now, 1
	st.pr.Running = append(st.pr.Running, r)
	st.d.Fire = append(st.d.Fire, r)
	if st.s.Limited && r.Kind == nola.OccurrenceRegular {
		st.s.Remaining--
		st.d.Spent++
	}
}

// replace takes back what runs, for an occurrence that takes its place.
func (st *step) replace(o nola.Overlap) {
	hard := o == nola.OverlapTerminateOther
	for i := range st.pr.Running {
		r := &st.pr.Running[i]
		if Waiting(*r) || r.Canceled && (r.Terminated || !hard) {
			continue
		}
		r.Canceled, r.Terminated = true, r.Terminated || hard
		st.d.Cancel = append(st.d.Cancel, *r)
	}
}

// feed starts late times and those of backfills where there is room.
func (st *step) feed() {
	late := st.p.policy.Catchup
	for len(st.pr.Late) > 0 && !st.d.More {
		if st.left <= 0 || len(st.d.Records) >= RecordsMax {
			st.d.More = true
			return
		}
		head := st.pr.Late[0]
		edge := st.now.Add(-late.Window)
		switch {
		case Paused(st.s, st.now):
			st.dropHeld(time.Time{}, 0, nola.OutcomePaused)
			continue
		case st.exhausted():
			st.dropHeld(time.Time{}, 0, nola.OutcomeExhausted)
			continue
		case head.First.Before(edge):
			st.dropHeld(edge, 0, nola.OutcomeMissedWindow)
			continue
		}
		if !room(st.pr, st.p.limit(st.p.policy.Overlap)) || st.now.Before(laterOf(st.pr.LateReady, head.First)) {
			break
		}
		st.left--
		st.shorten(head.First, 1)
		r := regular(head.First)
		r.Late = true
		st.start(r)
		if late.Spacing > 0 {
			st.pr.LateReady = st.now.Add(late.Spacing)
		}
	}
	for i := range st.pr.Backfills {
		if !st.d.More {
			st.backfill(&st.pr.Backfills[i])
		}
	}
}
