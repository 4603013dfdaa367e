package core

import (
	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/scheduler"
)

// deferral is a deferred invocation as the overlay knows it. What the overlay
// does not know, the store does.
type deferral struct {
	rec  persistence.DeferredRecord
	over bool     // it has been answered
	call *Call    // whose caller waits, nil if nobody does
	seq  nola.Seq // of the group that holds the row, or its deletion
}

// LookupDeferred reads the overlay of deferred invocations: known is false if
// only the store can tell. It may be used by the actor's turn while that runs.
func (a *Activation) LookupDeferred(token nola.Token) (rec persistence.DeferredRecord, found, known bool) {
	d, ok := a.deferred[token]
	return d.rec, ok && !d.over, ok
}

// OverlayDeferred calls fn with each deferred invocation that the overlay knows
// to wait, or to be over.
func (a *Activation) OverlayDeferred(fn func(token nola.Token, waits bool)) {
	for token, d := range a.deferred {
		fn(token, !d.over)
	}
}

// DeferredCount answers how many deferred invocations the actor has, if that is
// known.
func (a *Activation) DeferredCount() (n int, known bool) { return a.deferredCount, a.deferredCounted }

func (a *Activation) setDeferral(token nola.Token, d deferral) {
	if a.deferred == nil {
		a.deferred = make(map[nola.Token]deferral)
	}
	a.deferred[token] = d
}

func deferredRow(ref nola.ActorRef, rec *persistence.DeferredRecord) persistence.DueRow {
	return persistence.DueRow{Due: rec.Deadline, Target: ref, Kind: persistence.DueDeferred, Name: string(rec.Token[:])}
}

// postpone writes that the turn's invocation is answered later. A caller that
// waits goes on waiting, and goes on being counted.
func (s *Shard) postpone(t *Turn) {
	c, a := t.Call, t.Act
	inv := *c.Inv
	inv.Payload, inv.Chain = nil, nil
	rec := persistence.DeferredRecord{
		Token: t.Effects.Deferral.Token, Deadline: t.Effects.Deferral.Deadline.Round(0), Invocation: &inv, Hash: c.Hash,
	}
	if c.origin == fromSchedule {
		rec.Schedule, rec.Kind, rec.RequestID = c.sched.ref.ID, c.run.Kind, c.run.RequestID
		for i := range c.sched.row.Progress.Running {
			if r := &c.sched.row.Progress.Running[i]; sameRun(r, &c.run) {
				r.Deferred = true
			}
		}
	}
	b := &s.open().batch
	b.PutDeferred(a.ref, &rec)
	s.putDue(deferredRow(a.ref, &rec))
	d := deferral{rec: rec, seq: s.openSeq()}
	if c.origin == fromCaller {
		d.call = c
		a.awaited++
		s.awaited++
	}
	a.setDeferral(rec.Token, d)
	a.deferredCount++
	o := s.outcome(c, nil)
	o.State, o.Reply, o.Deferred = persistence.StatePending, nil, rec.Token
	b.PutOutcome(o)
	s.sweep.recorded(s)
	if e := c.entry; e != nil {
		s.rememberDeferred(a, e, o)
	}
}

func sameRun(x, y *nola.Running) bool {
	return x.Nominal.Equal(y.Nominal) && x.Kind == y.Kind && x.RequestID == y.RequestID
}

// rememberDeferred writes that the call of a key has been deferred. The entry
// stays, so that retries wait with the first.
func (s *Shard) rememberDeferred(a *Activation, e *keyEntry, r persistence.OutcomeRecord) {
	b := &s.open().batch
	if !e.key.IsUser() {
		b.PutSession(a.ref, e.key, r)
		return
	}
	s.countUserKey(a, e)
	e.started = true // and counted
	b.PutUserKey(a.ref, e.key.User, r)
}

// rejoin makes a retry of a call that was deferred before this activation wait
// for its answer.
func (s *Shard) rejoin(e *keyEntry) {
	if !e.cancelled {
		e.waiters = append([]*Call{e.call}, e.waiters...)
	}
	e.call, e.cancelled = nil, false
}

// complete answers a deferred invocation with the effects of a turn, which has
// pinned the schedule if it is a firing.
func (s *Shard) complete(t *Turn, c *nola.Completion, out *Output) {
	a := t.Act
	d, known := a.deferred[c.Token]
	if !known {
		d.rec, known = t.DeferredReads[c.Token]
	}
	if !known || d.over || d.rec.Invocation == nil {
		return
	}
	var err error
	if c.Err != nil {
		err = c.Err
	}
	if d.rec.Schedule != "" {
		s.endRun(&d.rec, c.Payload, err)
	}
	s.conclusion(a, d, c.Payload, err, out)
}

// conclusion writes how a deferred invocation ended, and answers who waits.
func (s *Shard) conclusion(a *Activation, d deferral, payload []byte, err error, out *Output) {
	rec, inv := &d.rec, d.rec.Invocation
	b := &s.open().batch
	row := deferredRow(a.ref, rec)
	b.DeleteDeferred(a.ref, rec.Token)
	b.DeleteDue(row.Due, row.Target, row.Kind, row.Name)
	s.forgetDue(row)
	seq := s.openSeq()
	a.setDeferral(rec.Token, deferral{over: true, seq: seq})
	a.deferredCount--
	s.touched(a)

	c := d.call
	if c == nil {
		c = &Call{Inv: inv, Hash: rec.Hash}
	} else {
		a.awaited--
		s.awaited--
		s.release(c)
	}
	c.Result, c.Err = nola.Result{ID: inv.ID, Payload: payload}, err
	if err != nil {
		c.Result.Payload = nil
	}
	o := s.outcome(c, err)
	b.PutOutcome(o)
	s.sweep.recorded(s)
	if inv.Kind == nola.KindCall && !inv.Key.IsZero() {
		s.concludeKey(a, c, o, out)
	}
	if d.call != nil {
		s.answerAt(c, seq, out)
	}
}

// concludeKey remembers the outcome of a deferred call under its key, and
// answers its retries.
func (s *Shard) concludeKey(a *Activation, c *Call, o persistence.OutcomeRecord, out *Output) {
	id := idOf(c.Inv.Key)
	e := a.keys[id]
	if e == nil || e.seq != 0 {
		e = &keyEntry{id: id, key: c.Inv.Key, hash: c.Hash}
		if a.keys == nil {
			a.keys = make(map[keyID]*keyEntry)
		}
		a.keys[id] = e
	}
	if e.looking {
		e.looking = false
		s.rejoin(e)
	}
	e.started = true // a user's key was counted when the call was deferred
	s.remember(a, e, o)
	s.concluded(a, e, c, e.seq, out)
}

// endRun ends the occurrence of a deferred firing. If the schedule was deleted
// meanwhile, or the occurrence ended by other means, nothing of it is left to
// end.
func (s *Shard) endRun(rec *persistence.DeferredRecord, payload []byte, err error) {
	ref := rec.ScheduleRef()
	sc := s.schedules[ref]
	if sc == nil || sc.loading {
		panic("core: schedule " + ref.ID + " is not pinned")
	}
	nominal := rec.Invocation.Caller.Nominal
	if !sc.exists || sc.plan == nil || scheduler.OccurrenceKey(&sc.row.Schedule, nominal, rec.Kind, rec.RequestID) != rec.Invocation.ID {
		return
	}
	p := &sc.row.Progress
	run := nola.Running{Nominal: nominal, Kind: rec.Kind, RequestID: rec.RequestID}
	if !scheduler.Runs(p, run) {
		return
	}
	e := endOf(run, err)
	if err != nil {
		payload = nil
	}
	e.Result = payload
	s.endOccurrence(sc, e, payload)
	s.remind(sc)
}

// dropDeferred ends what a deleted actor has deferred; stored is what the store
// has of it.
func (s *Shard) dropDeferred(a *Activation, stored []persistence.DeferredRecord, out *Output) {
	gone := nola.Errorf(nola.ReasonCanceled, "%s was deleted before the deferred invocation was answered", a.ref)
	for i := range stored {
		if _, known := a.deferred[stored[i].Token]; !known {
			s.conclusion(a, deferral{rec: stored[i]}, nil, gone, out)
		}
	}
	for _, token := range sortedTokens(a.deferred) {
		if d := a.deferred[token]; !d.over {
			s.conclusion(a, d, nil, gone, out)
		}
	}
}

// abandonDeferred answers the callers of deferred invocations when the shard
// ends. Those whose deferral is or may be durable, everything up to the group
// last, have been executed.
func (s *Shard) abandonDeferred(a *Activation, last nola.Seq, out *Output) {
	for _, token := range sortedTokens(a.deferred) {
		d := a.deferred[token]
		if d.over || d.call == nil || d.seq > last {
			continue
		}
		err := nola.Errorf(nola.ReasonOutcomeUnknown, "the call was deferred and still waits for its answer, while its shard is moving to another owner: ask with the key of the call")
		s.release(d.call)
		s.refuse(&d.call.Ticket, err, out)
		if e := d.call.entry; e != nil {
			for _, c := range e.waiters {
				s.refuse(&c.Ticket, err, out)
			}
		}
	}
}
