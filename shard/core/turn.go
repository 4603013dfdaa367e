package core

import (
	"errors"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// ShutdownMemory is the reason of a SHUTDOWN by which memory is to be freed.
const ShutdownMemory = "memory"

// Turn is one guest call: what is to run, and, when its owner steps it back,
// what it did.
type Turn struct {
	Act  *Activation
	Call *Call
	// Number tells the turn from the others of its activation; later ones have
	// greater numbers, and none has 0.
	Number uint64
	// Shutdown, if set, is the reason why the actor's instance goes: the guest is
	// told, Call is nil.
	Shutdown string
	// Order, if set, is what is done without the guest; Call is nil.
	Order *Order
	// Fresh demands a new instance: what the old one remembers never happened.
	Fresh bool
	// Now is the turn's one time.
	Now time.Time
	// Carry is what earlier firings of the schedule leave to this one; nil if
	// there is nothing, or no schedule is behind the turn.
	Carry *nola.Carry

	// The owner sets these before it steps the turn back.
	Effects nola.Effects
	Err     error
	// Bytes is the memory of the actor's instance after the turn.
	Bytes int64
	// TimerReads are the due times that the turn read from the store for the
	// timers it changes; zero for those that are not there.
	TimerReads map[string]time.Time
	// Counted says that the turn counted the actor's timers before it changed
	// any, and TimerCount how many there were.
	Counted    bool
	TimerCount int
	// DeferredReads are the deferred invocations that the turn read from the store
	// for those it completes.
	DeferredReads map[nola.Token]persistence.DeferredRecord
	// DeferredCounted says that the turn counted the actor's deferred invocations,
	// and DeferredCount how many there were before it.
	DeferredCounted bool
	DeferredCount   int

	epoch  nola.Epoch
	dep    nola.Seq
	pinned []nola.ScheduleRef
}

// Dep is the last group that the turn has seen something of.
func (t *Turn) Dep() nola.Seq { return t.dep }

// Epoch is the tenure in which the turn started. Numbers of groups, as in Dep,
// mean nothing in another one.
func (t *Turn) Epoch() nola.Epoch { return t.epoch }

// WasDue reports whether the turn is for something that became due (a timer, a
// firing, a cast that had to wait), and nobody waits for it.
func (t *Turn) WasDue() bool { return t.Call != nil && t.Call.wasDue() }

func (c *Call) wasDue() bool { return c.origin == fromDue || c.origin == fromSchedule }

// Unawaited reports whether no caller waits for the turn's answer. The deadline of its
// call is that of this attempt, which begins with the turn.
func (t *Turn) Unawaited() bool { return t.Call != nil && t.Call.origin != fromCaller }

// Saw tells that the turn has seen something of the group seq: a nested call
// brought it.
func (t *Turn) Saw(seq nola.Seq) { t.dep = max(t.dep, seq) }

// step takes in the end of a turn.
func (t *Turn) step(s *Shard, out *Output) {
	a := t.Act
	if t.epoch != s.epoch || s.acts[a.ref] != a || s.fenced != nil {
		return // abandoned: everybody has been answered
	}
	pinned := t.pinned
	for _, ref := range pinned {
		s.schedules[ref].pins--
	}
	a.running = false
	s.turns--
	s.due.turned(t, -1)
	a.number++
	if t.Shutdown == "" {
		a.turns++
	}
	a.steps += t.Effects.Steps
	a.used = s.now
	s.setBytes(a, t.Bytes)
	a.wokenOnce = a.turns == 1 && t.Call != nil && t.Call.origin != fromCaller && a.bytes > 0
	before := s.open().batch.Bytes()
	switch c := t.Call; {
	case t.Shutdown != "":
		if t.Err == nil && !t.Effects.Empty() {
			s.fold(t, out)
		}
		s.sleep(a)
	case t.Order != nil:
		s.endOrder(t, out)
	case c.origin == fromCaller:
		s.endCall(t, out)
	case c.origin == fromSchedule:
		s.land(c)
		s.endFiring(t, out)
	default:
		s.land(c)
		s.endCast(t, out)
	}
	s.folded(before)
	s.setBytes(a, t.Bytes) // again, for what a keeps may have changed
	for _, ref := range pinned {
		if sc := s.schedules[ref]; sc != nil {
			s.evict(sc)
		}
	}
	if !a.running { // An actor may be idle for long: it must not hold what its last turn was about.
		*t = Turn{Act: a, Number: t.Number}
	}
	// Only now: folding goes by what the turn found in the overlay.
	s.prune(a)
	s.runNext(a, out)
}

// endCall answers a caller, and remembers the answer under the call's key.
func (s *Shard) endCall(t *Turn, out *Output) {
	c, a := t.Call, t.Act
	seq := t.dep
	wrote := t.Err == nil && (!t.Effects.Empty() || c.Inv.Create)
	if wrote {
		s.fold(t, out)
		seq = s.openSeq()
		if t.Effects.Deferral != nil {
			return
		}
	}
	s.release(c)
	c.Result = nola.Result{ID: c.Inv.ID}
	if t.Err == nil {
		c.Result.Payload = t.Effects.Reply
	}
	c.Err = t.Err
	c.Unwritten = !wrote
	if k := c.entry; k != nil {
		if wrote || t.Err == nil && t.Effects.Called || isGuestError(t.Err) {
			s.remember(a, k, s.outcome(c, t.Err))
			c.Unwritten = false
			seq = s.openSeq()
		}
		s.concluded(a, k, c, seq, out)
	}
	s.answerAt(c, seq, out)
}

func isGuestError(err error) bool {
	return errors.Is(err, &nola.Error{Reason: nola.ReasonGuestError})
}

// outcome is what is kept of how c ended.
func (s *Shard) outcome(c *Call, err error) persistence.OutcomeRecord {
	r := persistence.OutcomeRecord{
		ID: c.Inv.ID, Target: c.Inv.Target, Seq: c.Inv.Key.Seq, Hash: c.Hash,
		Time: s.now, State: persistence.StateSucceeded, Reply: c.Result.Payload, Attempts: c.Inv.Attempt + 1,
	}
	if err != nil {
		r.State, r.Reply, r.Err = persistence.StateFailed, nil, asError(err)
	}
	return r
}

// asError is err as clients see it.
func asError(err error) *nola.Error {
	var e *nola.Error
	if errors.As(err, &e) {
		return e
	}
	return nola.Errorf(nola.ReasonInternal, "%v", err)
}

// endCast consumes a cast or a timer, or puts it off to another attempt.
func (s *Shard) endCast(t *Turn, out *Output) {
	c, a := t.Call, t.Act
	if t.Err != nil && s.retryable(t.Err) && c.Inv.Attempt+1 < s.limits.AttemptsMax {
		s.consume(a, c)
		s.later(c, t.Err)
		return
	}
	s.consume(a, c)
	if t.Err == nil {
		c.Result.Payload = t.Effects.Reply
		s.fold(t, out)
		if t.Effects.Deferral != nil {
			return
		}
	}
	s.open().batch.PutOutcome(s.outcome(c, t.Err))
	s.sweep.recorded(s)
	s.touched(a)
}

// retryable reports whether another attempt may go better: everything may, but
// what the guest itself refused or does not know.
func (s *Shard) retryable(err error) bool {
	e := asError(err)
	return e.Reason != nola.ReasonGuestError && e.Reason != nola.ReasonOperationNotFound
}

// consume removes the row that c came from. It goes before the turn's effects,
// which may set the same timer anew.
func (s *Shard) consume(a *Activation, c *Call) {
	b := &s.open().batch
	if c.origin == fromBacklog {
		b.DeleteBacklog(a.ref, c.number)
		return
	}
	b.DeleteDue(c.due.Due, a.ref, c.due.Kind, c.due.Name)
	if c.due.Kind == persistence.DueCast {
		s.countDelayed(a, -1)
	}
	if c.due.Kind == persistence.DueTimer {
		b.DeleteTimer(a.ref, c.due.Name)
		a.setTimer(c.due.Name, timerCell{seq: s.openSeq()})
	}
}

func (a *Activation) setTimer(name string, t timerCell) {
	if a.timers == nil {
		a.timers = make(map[string]timerCell)
	}
	a.timers[name] = t
}

// later puts c into the due index for another attempt. What it came from has
// been consumed in the same group.
func (s *Shard) later(c *Call, err error) {
	inv := *c.Inv
	inv.Attempt++
	inv.Deadline = time.Time{}
	row := persistence.DueRow{
		Due: s.now.Add(s.limits.backoff(inv.Attempt)), Target: inv.Target,
		Kind: persistence.DueCast, Name: string(inv.ID[:]), Invocation: &inv,
	}
	s.putDue(row)
	s.countDelayed(c.act, 1)
	r := s.outcome(c, err)
	r.State = persistence.StatePending
	s.open().batch.PutOutcome(r)
	s.sweep.recorded(s)
	s.touched(c.act)
}

// touched lists a in the open group, so that it hears of the commit.
func (s *Shard) touched(a *Activation) {
	seq := s.openSeq()
	a.dep = seq
	if a.inGroup != seq {
		a.inGroup = seq
		g := s.open()
		g.acts = append(g.acts, a)
	}
}

// fold writes a turn's effects into the open group and the overlay.
func (s *Shard) fold(t *Turn, out *Output) {
	a, e := t.Act, &t.Effects
	s.touched(a)
	seq := s.openSeq()
	b := &s.open().batch
	made := !a.exists
	if made {
		a.exists = true
		a.meta = persistence.Meta{Created: s.now, Incarnation: s.unique()}
		if c := t.Call; c != nil && c.Inv.Create {
			a.meta.InitPayload = c.Inv.Payload
		}
		b.ListActor(a.ref)
	}
	if e.Memory != nil {
		s.keepMemory(a, e.Memory)
		made = made || a.meta.KeepsMemory != (a.memory != nil)
		a.meta.KeepsMemory = a.memory != nil
	}
	if made {
		b.PutMeta(a.ref, a.meta)
	}
	for _, w := range e.Writes {
		if w.Deleted {
			b.DeleteState(a.ref, w.Key)
		} else {
			b.PutState(a.ref, w.Key, w.Value)
		}
		a.setCell(w.Key, cell{value: w.Value, deleted: w.Deleted, seq: seq})
	}
	for _, inv := range e.Casts {
		s.post(inv)
	}
	if t.Counted {
		a.timerCount, a.timersCounted = t.TimerCount, true
	}
	for i := range e.Timers {
		s.changeTimer(t, &e.Timers[i])
	}
	for i := range e.Reminders {
		s.changeReminder(t, &e.Reminders[i], out)
	}
	if t.DeferredCounted {
		a.deferredCount, a.deferredCounted = t.DeferredCount, true
	}
	for i := range e.Completions {
		s.complete(t, &e.Completions[i], out)
	}
	if e.Deferral != nil {
		s.postpone(t)
	}
}

// changeTimer sets, replaces or cancels a timer of the actor.
func (s *Shard) changeTimer(t *Turn, ch *nola.TimerChange) {
	a := t.Act
	b := &s.open().batch
	old, known := a.LookupTimer(ch.Name)
	if !known {
		old = t.TimerReads[ch.Name]
	}
	if !old.IsZero() {
		a.timerCount--
		b.DeleteDue(old, a.ref, persistence.DueTimer, ch.Name)
		s.forgetDue(persistence.DueRow{Due: old, Target: a.ref, Kind: persistence.DueTimer, Name: ch.Name})
		if c := a.firing[ch.Name]; c != nil && c.queued {
			a.queue.remove(c)
			s.land(c)
			delete(a.firing, ch.Name)
		}
	}
	if ch.Cancel {
		b.DeleteTimer(a.ref, ch.Name)
		a.setTimer(ch.Name, timerCell{seq: s.openSeq()})
		return
	}
	a.timerCount++
	due := ch.Due.Round(0)
	b.PutTimer(a.ref, persistence.TimerRecord{Name: ch.Name, Operation: ch.Operation, Due: due})
	a.setTimer(ch.Name, timerCell{due: due, operation: ch.Operation, payload: ch.Payload, seq: s.openSeq()})
	s.putDue(persistence.DueRow{
		Due: due, Target: a.ref, Kind: persistence.DueTimer, Name: ch.Name,
		Invocation: &nola.Invocation{
			ID: s.derive(due, "timer", a.ref, ch.Name), Kind: nola.KindTimer, Target: a.ref,
			Operation: ch.Operation, Payload: ch.Payload, Due: due,
			Caller: nola.Caller{Actor: a.ref, Name: ch.Name, Nominal: due},
		},
	})
}

// over refuses what a turn asks for whose tenure has ended.
func (s *Shard) over(ticket *Ticket, t *Turn, out *Output) bool {
	if s.fenced == nil && t.epoch == s.epoch {
		return false
	}
	s.refuse(ticket, errMoving(s.id), out)
	return true
}

// Start says that the turn is about to call another actor for the first time.
// It is answered at once, with Dep raised to the group that makes the start
// durable; a call that leaves the shard waits for that group. From then on a
// retry of the turn finds the answers that its nested calls got.
type Start struct {
	Ticket
	Turn *Turn
	// At is when the first such attempt began: the time under which the keys of
	// the nested calls are filed. Zero if the turn is never retried.
	At time.Time
}

func (in *Start) step(s *Shard, out *Output) {
	t := in.Turn
	c := t.Call
	if s.over(&in.Ticket, t, out) {
		return
	}
	defer s.decide(&in.Ticket, out)
	if c == nil {
		return
	}
	inv := c.Inv
	if !inv.Key.IsZero() && !inv.Key.IsUser() {
		in.At = inv.Key.FirstAttempt
		return
	}
	if c.origin == fromCaller && inv.Key.IsZero() {
		return
	}
	if c.started || !inv.Started.IsZero() {
		in.At = inv.Started
		return
	}
	before := s.open().batch.Bytes()
	c.started = true
	switch {
	case c.entry != nil && !c.entry.startedAt.IsZero():
		in.At = c.entry.startedAt
	case c.origin == fromSchedule:
		in.At = c.run.Started
	default:
		in.At = s.now
	}
	started := *inv
	started.Started = in.At
	c.Inv = &started
	b := &s.open().batch
	switch c.origin {
	case fromCaller:
		s.rememberStart(t.Act, c, in.At)
	case fromBacklog:
		b.PutBacklog(t.Act.ref, persistence.BacklogRow{Number: c.number, Total: c.total, Invocation: &started})
	case fromDue:
		c.due.Invocation = &started
		b.PutDue(c.due)
	case fromSchedule:
		s.persistProgress(c.sched)
	}
	t.dep = max(t.dep, s.openSeq())
	s.touched(t.Act)
	s.folded(before)
}
