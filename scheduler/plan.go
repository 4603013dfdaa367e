package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"reflect"
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// Limits of one decision. What does not fit is decided by the next call.
const (
	RecordsMax  = 1_000  // records of one Decision
	NominalsMax = 10_000 // nominal times looked at one by one in one call
	// CatchupMaxLimit is the greatest Catchup.Max that a policy may ask for.
	CatchupMaxLimit = NominalsMax / 2
	// PausedLook is how often, at most, a paused schedule is looked at to record
	// the nominal times that pass.
	PausedLook = 1 * time.Minute
)

// Plan is a schedule's spec and policy made ready. It never changes and holds no
// state: that is in the schedule (paused, remaining firings) and its progress,
// which the methods are given.
//
// The methods that take a *nola.Progress change it, and Advance and Trigger may
// count down the schedule's Remaining. What they change belongs into one commit
// with what the Decision says.
type Plan struct {
	compiled  *Compiled
	spec      nola.Spec
	calendars []nola.Calendar // those that spec may use
	policy    nola.Policy     // with its defaults filled in
}

// Decision says what became of nominal times.
type Decision struct {
	// Fire are the occurrences that start now. They are in Progress.Running
	// until Ended is told of their end.
	Fire []nola.Running
	// Records are the occurrences that ended without firing, oldest first;
	// adjacent ones with one outcome are one record.
	Records []nola.Occurrence
	// Cancel are the firings that were newly marked Canceled or Terminated. They
	// stay in Progress.Running until Ended is told of their end.
	Cancel []nola.Running
	// Spent is by how much the schedule's Remaining went down: if it is not
	// zero, the schedule itself changed too.
	Spent int64
	// More says that the call stopped at a limit: commit, and call again.
	More bool
	// Replayed says that the request was carried out before, at Nominal; nothing
	// changed.
	Replayed bool
	// Nominal is the nominal time of what was triggered or sent again.
	Nominal time.Time
}

// NewPlan checks and compiles the spec and policy of s. The error is a
// [*SpecError]. The warnings are those of [Compile] and, as of the schedule's
// last update, those of [Compiled.Warnings].
func NewPlan(s *nola.Schedule) (*Plan, []Warning, error) { return new(Zones).NewPlan(s) }

// NewPlan does what the function [NewPlan] does, with zones from z.
func (z *Zones) NewPlan(s *nola.Schedule) (*Plan, []Warning, error) {
	b := builder{zones: z, anchor: s.Created, given: s.Calendars}
	b.policy(s.Policy)
	b.build(s.Spec, Seed(s))
	if len(b.faults) > 0 {
		return nil, nil, &SpecError{Faults: b.faults}
	}
	out := b.out // alone: the builder goes
	p := &Plan{compiled: &out, spec: s.Spec, calendars: s.Calendars, policy: withDefaults(s.Policy)}
	asOf := s.Updated
	if asOf.IsZero() {
		asOf = s.Created
	}
	if !asOf.IsZero() {
		b.warns = append(b.warns, p.compiled.Warnings(asOf)...)
	}
	return p, b.warns, nil
}

// Seed is what a schedule's jitter and H depend on: its id, or the name of
// a reminder with the actor it belongs to.
func Seed(s *nola.Schedule) string {
	if s.Reminder {
		return string(s.Target.AppendCanonical(nil)) + s.ID
	}
	return s.ID
}

// Compiled is the spec of the plan, for previews.
func (p *Plan) Compiled() *Compiled { return p.compiled }

// Start is the progress of a schedule made at now: nominal times later than now
// are its own. Due is zero if there are none.
func (p *Plan) Start(s *nola.Schedule, now time.Time) nola.Progress {
	pr := nola.Progress{Through: now.UTC().Round(0), Counters: map[nola.Outcome]nola.Counter{}}
	pr.Due = p.due(s, &pr, now)
	return pr
}

// Paused reports whether occurrences that are due at a time fall into a pause.
func Paused(s *nola.Schedule, at time.Time) bool {
	return s.Paused && (s.PausedUntil.IsZero() || at.Before(s.PausedUntil))
}

// Waiting reports whether r is an occurrence whose nominal time has come but
// which still waits for its jitter: it fires at r.Started, not before. Only
// Replan makes such entries; all others run.
func Waiting(r nola.Running) bool { return r.Attempts == 0 }

// Advance decides every nominal time that is due by now and sets pr.Due to when
// it wants to be called again, zero if only Ended, Trigger or Replan can bring
// something new. It may be called at any time, with any clock reading: a clock
// that was set back repeats nothing, since only times later than pr.Through are
// looked at.
//
// An occurrence more than nola.CatchupGrace past due was unattended and falls
// under the catch-up policy: those older than the window are missed; of the
// others ALL fires the newest Max, LAST and FIRST one, NONE none. With ALL the
// late ones stand aside, in order, until the overlap policy lets one start. They
// hold up nothing: a regular time that finds only late ones, or those of a
// backfill, running is not skipped but waits for the end of these.
func (p *Plan) Advance(s *nola.Schedule, pr *nola.Progress, now time.Time) Decision {
	st := p.step(s, pr, now)
	st.postponed()
	st.pump()
	st.nominals()
	st.feed()
	return st.end()
}

func (p *Plan) step(s *nola.Schedule, pr *nola.Progress, now time.Time) *step {
	return &step{p: p, s: s, pr: pr, now: now.UTC().Round(0), left: NominalsMax}
}

// end answers what the step decided, with the next due time set.
func (st *step) end() Decision {
	if st.d.More {
		st.pr.Due = st.now
	} else {
		st.pr.Due = st.p.due(st.s, st.pr, st.now)
	}
	return st.d
}

// step is one call of Advance, or of what changes the progress otherwise.
type step struct {
	p   *Plan
	s   *nola.Schedule
	pr  *nola.Progress
	now time.Time
	d   Decision
	// left is how many more nominal times may be looked at.
	left int
}

// postponed decides the entries that wait for their jitter or were moved.
func (st *step) postponed() {
	for i := 0; i < len(st.pr.Running); {
		r := st.pr.Running[i]
		if !Waiting(r) || r.Started.After(st.now) {
			i++
			continue
		}
		st.pr.Running = slices.Delete(st.pr.Running, i, i+1)
		c := st.p.policy.Catchup
		switch {
		case Paused(st.s, r.Started):
			st.record(r, nola.OutcomePaused)
		case st.exhausted():
			st.record(r, nola.OutcomeExhausted)
		case st.now.Sub(r.Started) > nola.CatchupGrace && (c.Mode == nola.CatchupNone || r.Started.Before(st.now.Add(-c.Window))):
			st.record(r, nola.OutcomeMissedWindow)
		default:
			st.arrive(r, r.Started)
			i = 0 // the order of Running may have changed
		}
	}
}

func (st *step) nominals() {
	for len(st.pr.Exceptions) > 0 && !st.pr.Exceptions[0].Nominal.After(st.pr.Through) {
		st.pr.Exceptions = slices.Delete(st.pr.Exceptions, 0, 1)
	}
	for {
		n, ok, cost := st.p.compiled.search(st.pr.Through, searchMax)
		if n.IsZero() || n.After(st.now) {
			st.pr.FirstTaken = false
			return
		}
		if ok && st.p.compiled.Jittered(n).After(st.now) {
			st.pr.FirstTaken = false
			return
		}
		if st.left <= 0 || len(st.d.Records) >= RecordsMax {
			st.d.More = true
			return
		}
		if st.left -= cost / lookCost; !ok { // no time lies before n
			st.pr.Through = n.Add(-1)
			continue
		}
		due := st.p.compiled.Jittered(n)
		if e, ok := exceptionAt(st.pr, n); ok {
			st.left--
			st.pr.Through = n
			st.dropException(n)
			if e.Moved.IsZero() {
				st.record(regular(n), nola.OutcomeExcludedByUser)
			}
			continue
		}
		switch {
		case Paused(st.s, due):
			until := st.now
			if u := st.s.PausedUntil; !u.IsZero() && !u.After(until) {
				until = u.Add(-1)
			}
			st.span(st.p.compiled.settled(until), nola.OutcomePaused)
		case st.exhausted():
			st.span(st.p.compiled.settled(st.now), nola.OutcomeExhausted)
		case st.now.Sub(due) > nola.CatchupGrace:
			st.late(n)
		default:
			st.pr.FirstTaken = false
			st.pass(n)
		}
	}
}

func regular(n time.Time) nola.Running {
	return nola.Running{Nominal: n, Kind: nola.OccurrenceRegular}
}

// pass lets the next nominal time come about.
func (st *step) pass(n time.Time) {
	st.left--
	st.pr.Through = n
	st.arrive(regular(n), st.p.compiled.Jittered(n))
}

// late decides unattended times, from n on.
func (st *step) late(n time.Time) {
	c, policy := st.p.compiled, st.p.policy.Catchup
	cut := c.settled(st.now.Add(-nola.CatchupGrace - 1))
	if edge := st.now.Add(-policy.Window); n.Before(edge) {
		st.span(earlier(cut, edge.Add(-1)), nola.OutcomeMissedWindow)
		return
	}
	switch policy.Mode {
	case nola.CatchupNone:
		st.span(cut, nola.OutcomeMissedWindow)
	case nola.CatchupFirst:
		if !st.pr.FirstTaken {
			st.pr.FirstTaken = true
			st.pass(n)
		}
		st.span(cut, nola.OutcomeMissedWindow)
	case nola.CatchupLast:
		last, ok := c.Prev(cut.Add(1))
		for ok && last.After(n) {
			if _, out := exceptionAt(st.pr, last); !out {
				break
			}
			last, ok = c.Prev(last)
		}
		if ok && last.After(n) {
			st.span(last.Add(-1), nola.OutcomeMissedWindow)
			return
		}
		st.pass(n)
	default:
		st.hold(cut)
	}
}

// hold puts the late times up to cut aside, so that they start one after
// another, and misses the oldest where they are more than the maximum.
func (st *step) hold(cut time.Time) {
	c := st.p.compiled
	held := 0
	for _, span := range st.pr.Late {
		held += span.Count
	}
	total, _, _, _ := c.walk(st.pr.Through, cut, st.left, 0)
	if surplus := total + int64(held) - int64(st.p.policy.Catchup.Max); surplus > 0 {
		if held > 0 {
			st.missHeld(min(surplus, int64(held)))
		} else {
			st.take(cut, surplus, nola.OutcomeMissedWindow)
		}
		return
	}
	if !c.grid() && total >= int64(st.left) {
		// the count was cut short and says nothing: a fresh call, with room for
		// twice the maximum, will know
		st.left = 0
		return
	}
	to := st.beforeException(cut)
	count, first, last, looks := c.walk(st.pr.Through, to, st.left, 0)
	joins := false
	if k := len(st.pr.Late); k > 0 {
		next, ok := c.Next(st.pr.Late[k-1].Last)
		joins = ok && next.Equal(first)
	}
	switch {
	case joins:
		span := &st.pr.Late[len(st.pr.Late)-1]
		span.Last, span.Count = last, span.Count+int(count)
	case len(st.pr.Late) >= nola.LateSpansMax:
		st.span(to, nola.OutcomeMissedWindow)
		return
	default:
		st.pr.Late = append(st.pr.Late, nola.Span{First: first, Last: last, Count: int(count)})
	}
	st.left -= looks
	st.pr.Through = last
}

// missHeld misses the oldest n of the times that stand aside.
func (st *step) missHeld(n int64) { st.dropHeld(time.Time{}, n, nola.OutcomeMissedWindow) }

// dropHeld gives times that stand aside an outcome, from the first span: those
// before edge, if it is not zero, and at most n of them, if n is not zero.
func (st *step) dropHeld(edge time.Time, n int64, o nola.Outcome) {
	head := st.pr.Late[0]
	to := head.Last
	if !edge.IsZero() {
		to = earlier(to, edge.Add(-1))
	}
	count, first, last, looks := st.p.compiled.walk(head.First.Add(-1), to, max(st.left, 1), n)
	if count == 0 { // the spec knows these times no more
		st.pr.Late = slices.Delete(st.pr.Late, 0, 1)
		return
	}
	st.left -= min(looks, st.left)
	st.add(nola.Occurrence{Nominal: first, Kind: nola.OccurrenceRegular, Outcome: o, Last: last, Count: int(count)})
	st.shorten(last, int(count))
}

// shorten takes the times up to last, count of them, off the first span.
func (st *step) shorten(last time.Time, count int) {
	head := &st.pr.Late[0]
	next, ok := st.p.compiled.Next(last)
	if !ok || next.After(head.Last) {
		st.pr.Late = slices.Delete(st.pr.Late, 0, 1)
		return
	}
	head.First, head.Count = next, head.Count-count
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// span gives the nominal times up to to, both ends included, one outcome. It
// ends before a time that was skipped or moved.
func (st *step) span(to time.Time, o nola.Outcome) { st.take(to, 0, o) }

// take does so for the first n of them; 0 means all.
func (st *step) take(to time.Time, n int64, o nola.Outcome) {
	to = st.beforeException(to)
	count, first, last, looks := st.p.compiled.walk(st.pr.Through, to, st.left, n)
	if count == 0 {
		return
	}
	st.left -= looks
	st.pr.Through = last
	st.add(nola.Occurrence{Nominal: first, Kind: nola.OccurrenceRegular, Outcome: o, Last: last, Count: int(count)})
}

// record gives one occurrence an outcome that is not a firing.
func (st *step) record(r nola.Running, o nola.Outcome) {
	st.add(nola.Occurrence{Nominal: r.Nominal, Kind: r.Kind, RequestID: r.RequestID, Outcome: o, Ended: st.now, Last: r.Nominal, Count: 1})
}

func (st *step) add(o nola.Occurrence) {
	if o.Ended.IsZero() {
		o.Ended = st.now
	}
	count(st.pr, o)
	if k := len(st.d.Records); k > 0 && st.p.Extend(&st.d.Records[k-1], o) {
		return
	}
	st.d.Records = append(st.d.Records, o)
}

func (st *step) exhausted() bool { return st.s.Limited && st.s.Remaining <= 0 }

// Extend adds next to last and reports true if the two are one run of adjacent
// nominal times with the same outcome that did not fire. Use it to join the
// first record of a Decision to the newest one stored.
func (p *Plan) Extend(last *nola.Occurrence, next nola.Occurrence) bool {
	if last.Outcome != next.Outcome || last.Kind != nola.OccurrenceRegular || next.Kind != nola.OccurrenceRegular {
		return false
	}
	switch last.Outcome {
	case nola.OutcomeSkippedOverlap, nola.OutcomeBufferDropped, nola.OutcomeMissedWindow, nola.OutcomePaused, nola.OutcomeExhausted:
	default:
		return false
	}
	// last may stem from an earlier spec, whose times are nobody's neighbours here
	if n, ok := p.compiled.Next(last.Last.Add(-1)); !ok || !n.Equal(last.Last) {
		return false
	}
	if n, ok := p.compiled.Next(last.Last); !ok || !n.Equal(next.Nominal) {
		return false
	}
	last.Last, last.Ended = next.Last, next.Ended
	last.Count += next.Count
	return true
}

func count(pr *nola.Progress, o nola.Occurrence) {
	if pr.Counters == nil {
		pr.Counters = map[nola.Outcome]nola.Counter{}
	}
	c := pr.Counters[o.Outcome]
	if c.Count == 0 || o.Nominal.Before(c.First) {
		c.First = o.Nominal
	}
	if o.Last.After(c.Last) {
		c.Last = o.Last
	}
	c.Count += uint64(o.Count)
	pr.Counters[o.Outcome] = c
}

// due is when Advance has something to decide next, zero if never.
func (p *Plan) due(s *nola.Schedule, pr *nola.Progress, now time.Time) time.Time {
	due := firstWaiting(pr)
	sooner := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	now = now.UTC().Round(0)
	sooner(p.stirs(s, pr, now))
	if len(pr.Late) > 0 && (room(pr, p.limit(p.policy.Overlap)) || Paused(s, now) || s.Limited && s.Remaining <= 0) {
		sooner(laterOf(now, laterOf(pr.LateReady, pr.Late[0].First)))
	}
	for i := range pr.Backfills {
		if b := &pr.Backfills[i]; b.State == nola.BackfillRunning && p.backfillRoom(pr, b) {
			if _, ok := p.backfillNext(b); ok {
				sooner(laterOf(now, b.Ready))
			}
		}
	}
	if s.Limited && s.Remaining <= 0 {
		return due
	}
	at, ok, _ := p.compiled.search(pr.Through, searchMax)
	if at.IsZero() {
		return due
	}
	if ok {
		at = p.compiled.Jittered(at)
	} // else it goes on from there: no time lies before
	if look := now.Add(PausedLook); Paused(s, at) && at.Before(look) {
		at = look
		if u := s.PausedUntil; !u.IsZero() && u.Before(at) {
			at = u.UTC()
		}
	}
	sooner(at)
	return due
}

func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func firstWaiting(pr *nola.Progress) time.Time {
	var first time.Time
	for _, r := range pr.Running {
		if Waiting(r) && (first.IsZero() || r.Started.Before(first)) {
			first = r.Started
		}
	}
	return first
}

// Trigger fires once at now because somebody asked, also while the schedule is
// paused or has no firings remaining; it takes none of them. requestID makes it
// idempotent among the last nola.RequestsMax triggers. overlap zero means the
// schedule's own policy, which may skip the trigger or let it wait. Beyond
// nola.RunningMax, or with more payload than nola.OwnPayloadsMax, it is refused.
func (p *Plan) Trigger(s *nola.Schedule, pr *nola.Progress, now time.Time, requestID string, payload []byte, overlap nola.Overlap) (Decision, error) {
	if requestID == "" {
		return Decision{}, nola.Errorf(nola.ReasonInvalidArgument, "schedule %q: a trigger needs a request id", s.ID)
	}
	for _, r := range pr.Requests {
		if r.ID == requestID {
			return Decision{Replayed: true, Nominal: r.Nominal}, nil
		}
	}
	if overlap > nola.OverlapAllowAll {
		return Decision{}, nola.Errorf(nola.ReasonInvalidArgument, "schedule %q: overlap policy %d is unknown; legal are %s", s.ID, overlap, overlapNames)
	}
	if len(pr.Running) >= nola.RunningMax {
		return Decision{}, nola.LimitError(nola.ReasonLimitExceeded, "schedule_running_max", nola.RunningMax, "schedule %q has %d firings running, no more are allowed; try again when some have ended", s.ID, len(pr.Running))
	}
	if bytes := ownPayloads(pr) + len(payload); len(payload) > 0 && bytes > nola.OwnPayloadsMax {
		return Decision{}, nola.LimitError(nola.ReasonLimitExceeded, "schedule_payloads_bytes_max", nola.OwnPayloadsMax, "the triggers of schedule %q that run, wait or have failed hold %d bytes of payload with this one, %d are allowed; wait for some to end, or clear its dead letters", s.ID, bytes, nola.OwnPayloadsMax)
	}
	st := p.step(s, pr, now)
	pr.Requests = append(pr.Requests, nola.Request{ID: requestID, Nominal: st.now})
	if n := len(pr.Requests) - nola.RequestsMax; n > 0 {
		pr.Requests = slices.Delete(pr.Requests, 0, n)
	}
	st.arrive(nola.Running{Nominal: st.now, Kind: nola.OccurrenceTrigger, RequestID: requestID, Payload: payload, Overlap: overlap}, st.now)
	d := st.end()
	d.Nominal = st.now
	return d, nil
}

func ownPayloads(pr *nola.Progress) int {
	n := 0
	for i := range pr.Running {
		n += len(pr.Running[i].Payload)
	}
	for i := range pr.Buffer {
		n += len(pr.Buffer[i].Payload)
	}
	for i := range pr.DeadLetters {
		n += len(pr.DeadLetters[i].Payload)
	}
	return n
}

// Refire lists the firings that run and are not deferred, for a new owner that must start them again
// under the same keys, and counts the attempt.
//
// One that waits for another attempt has not used it up yet.
func Refire(pr *nola.Progress) []nola.Running {
	var out []nola.Running
	for i := range pr.Running {
		if r := &pr.Running[i]; !Waiting(*r) && !r.Deferred {
			if r.RetryAt.IsZero() {
				r.Attempts++
			}
			out = append(out, *r)
		}
	}
	return out
}

// Replan moves a schedule from one version to the next: before and old are the
// version and plan until now, s and p those from now on. Pause and unpause are
// changes too. What was due by now is decided under the old version first. If
// the spec changed, or the days of one of its calendars, the new one's times
// count from now on; an occurrence of the old one that waits for its jitter still
// fires, under the new policy (unless nola.RunningMax firings run: then it is
// skipped), one in the buffer follows the new policy, late times that stood aside
// are missed, and a backfill goes on with the times of the new spec.
//
// If the Decision says More, the change has not been made: commit, and call
// Replan again. Decision.Spent went off before.Remaining: take it off s.Remaining
// too, unless the change is to set that.
func (p *Plan) Replan(s *nola.Schedule, pr *nola.Progress, before *nola.Schedule, old *Plan, now time.Time) Decision {
	d := old.Advance(before, pr, now)
	if d.More {
		return d
	}
	if before.Paused && !s.Paused {
		pr.Failures = 0
	}
	if !reflect.DeepEqual(old.spec, p.spec) || !slices.EqualFunc(old.calendars, p.calendars, sameDays) {
		st := old.step(before, pr, now)
		st.d = d
		for len(pr.Late) > 0 && st.left > 0 {
			st.dropHeld(time.Time{}, 0, nola.OutcomeMissedWindow)
		}
		if len(pr.Late) > 0 {
			st.d.More = true
			pr.Due = st.now
			return st.d
		}
		if n, ok := old.compiled.Next(pr.Through); ok && !n.After(st.now) {
			if e, out := exceptionAt(pr, n); out {
				if e.Moved.IsZero() {
					st.record(regular(n), nola.OutcomeExcludedByUser)
				}
			} else if len(pr.Running) < nola.RunningMax {
				pr.Running = append(pr.Running, nola.Running{Nominal: n, Kind: nola.OccurrenceRegular, Started: old.compiled.Jittered(n)})
			} else {
				st.record(regular(n), nola.OutcomeSkippedOverlap)
			}
		}
		if st.now.After(pr.Through) {
			pr.Through = st.now
		}
		p.keepExceptions(pr)
		d = st.d
	}
	// What waits follows the new policy.
	after := s
	if d.Spent != 0 {
		copied := *s
		copied.Remaining -= d.Spent
		after = &copied
	}
	st := p.step(after, pr, now)
	st.d = d
	st.pump()
	return st.end()
}

// sameDays reports whether two named calendars hold the same days for the same
// specs.
func sameDays(a, b nola.Calendar) bool {
	return a.Name == b.Name && slices.Equal(a.Dates, b.Dates) && slices.EqualFunc(a.Rules, b.Rules, func(r, q nola.HolidayRule) bool {
		r.Comment, q.Comment = "", ""
		return r == q
	})
}

// Upcoming lists when the next occurrences will fire, as far as is known now, at
// most n: the nominal times, without those that were skipped, and with the new
// times of those that were moved.
func (p *Plan) Upcoming(s *nola.Schedule, pr *nola.Progress, now time.Time, n int) []time.Time {
	if s.Limited {
		n = int(min(int64(n), s.Remaining))
	}
	from := now.UTC().Round(0)
	if pr.Through.After(from) {
		from = pr.Through
	}
	var pausedTo time.Time
	if s.Paused {
		if s.PausedUntil.IsZero() {
			return nil
		}
		if pausedTo = s.PausedUntil.Add(-1); pausedTo.After(from) {
			from = pausedTo
		}
	}
	// one that has come may still wait for its jitter
	if last, ok := p.compiled.Prev(from.Add(1)); ok && last.After(pr.Through) && p.compiled.Jittered(last).After(from) {
		from = last.Add(-1)
	}
	var out []time.Time
	for _, t := range p.compiled.Between(from, horizon, max(n, 0)+len(pr.Exceptions)) {
		if _, ok := exceptionAt(pr, t); !ok {
			out = append(out, t)
		}
	}
	for _, e := range pr.Exceptions {
		if e.Moved.After(now) && e.Moved.After(pausedTo) {
			out = append(out, e.Moved)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out[:min(len(out), max(n, 0))]
}

// OccurrenceKey is the identity of an occurrence, the same whoever asks and how
// often: the id of its invocation and its idempotency key. Its first six bytes
// are the nominal time in milliseconds; the tail is a SHA-256 of target,
// schedule id, incarnation, nominal time, kind and request id, cut to ten bytes.
func OccurrenceKey(s *nola.Schedule, nominal time.Time, kind nola.OccurrenceKind, requestID string) nola.InvocationID {
	b := s.Target.AppendCanonical(make([]byte, 0, 256))
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.ID)))
	b = append(b, s.ID...)
	if s.Reminder {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, s.Incarnation)
	b = binary.BigEndian.AppendUint64(b, uint64(nominal.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(nominal.Nanosecond()))
	b = append(b, byte(kind))
	b = append(b, requestID...)
	sum := sha256.Sum256(b)
	return nola.MakeInvocationID(nominal, [10]byte(sum[:10]))
}
