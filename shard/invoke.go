package shard

import (
	"context"
	"sync"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

var runners = sync.Pool{New: func() any { return new(runner) }}

// runner lends a runner for the length of one request.
func (m *Manager) runner() *runner {
	r := runners.Get().(*runner)
	r.m = m
	return r
}

// enter counts a request in, or refuses it.
func (m *Manager) enter(bytes int) error {
	if m.draining.Load() {
		e := nola.Errorf(nola.ReasonUnavailable, "the node is shutting down; it was not executed, try another node or try again")
		e.RetryAfter = drainRetry
		return e
	}
	const about = int64(10 * time.Millisecond)
	if now := m.cfg.Now().UnixNano(); now-m.lastCall.Load() > about || now < m.lastCall.Load() {
		m.lastCall.Store(now)
	}
	if n := m.calls.Add(1); n > int64(m.cfg.CallsMax) {
		m.calls.Add(-1)
		return errNodeFull("calls", int64(m.cfg.CallsMax))
	}
	if n := m.callBytes.Add(int64(bytes)); n > m.cfg.CallBytesMax {
		m.leaveNode(bytes)
		return errNodeFull("call_bytes", m.cfg.CallBytesMax)
	}
	return nil
}

const drainRetry = time.Second

// called reports whether somebody calls, or did within the last second. In virtual
// time nobody is kept waiting.
func (m *Manager) called() bool {
	ago := m.cfg.Now().UnixNano() - m.lastCall.Load()
	return m.cfg.Virtual == nil && ago >= 0 && ago < int64(time.Second) // the clock may have been set back
}

func errNodeFull(limit string, value int64) error {
	e := nola.LimitError(nola.ReasonNodeOverloaded, limit, value, "the node holds %d unanswered %s, its limit; it was not executed, try again later", value, limit)
	e.RetryAfter = drainRetry / 10
	return e
}

func (m *Manager) leaveNode(bytes int) {
	m.callBytes.Add(-int64(bytes))
	if m.calls.Add(-1) == 0 && m.draining.Load() {
		select {
		case m.idle <- struct{}{}:
		default:
		}
	}
}

// wait drives an input until its ticket is decided. gone is true if the caller
// left before; what it asked for takes its course.
func (m *Manager) wait(ctx context.Context, b *box, in core.Input, t *core.Ticket) (gone bool) {
	w := m.newWaiter()
	t.Shell = w
	m.work.begin()
	defer m.work.end()
	r := m.runner()
	r.drive(b, in, w, false)
	r.release()
	call, _ := in.(*core.Call)
	gone = r.await(ctx, b, w, call, false)
	r.release()
	if !gone {
		r.spare = nil
		runners.Put(r)
	}
	return gone
}

func errGone(ctx context.Context) error {
	return nola.Errorf(nola.ReasonOutcomeUnknown, "the caller's wait ended (%v) after the turn had started; it may have happened: ask with the key of the call", ctx.Err())
}

// check refuses invocations that no actor may get.
func (m *Manager) check(inv *nola.Invocation) error {
	if err := inv.Target.Validate(); err != nil {
		return err
	}
	switch {
	case inv.Operation == "" && !inv.Create:
		return nola.Errorf(nola.ReasonInvalidArgument, "the operation is empty; name the operation to run")
	case len(inv.Operation) > nola.OperationBytesMax:
		return nola.Errorf(nola.ReasonInvalidArgument, "the operation has %d bytes, at most %d are allowed", len(inv.Operation), nola.OperationBytesMax)
	case len(inv.Payload) > nola.PayloadBytesMax:
		return nola.LimitError(nola.ReasonLimitExceeded, "payload_bytes", nola.PayloadBytesMax, "the payload has %d bytes, at most %d are allowed", len(inv.Payload), nola.PayloadBytesMax)
	}
	if err := inv.Key.Validate(); err != nil {
		return err
	}
	_, _, err := m.cfg.Modules.Module(inv.Target.Namespace, inv.Target.Type)
	return err
}

// Invoke runs one call and answers when its effects are durable. It takes inv
// over. A zero ID is filled in; a zero Deadline is nola.CallTimeoutDefault from
// now. If ctx ends once the turn has started, the answer is OUTCOME_UNKNOWN and
// the call takes its course.
func (m *Manager) Invoke(ctx context.Context, inv *nola.Invocation) (nola.Result, error) {
	if err := m.check(inv); err != nil {
		return nola.Result{}, err
	}
	inv.Kind = nola.KindCall
	c, gone, err := m.call(ctx, inv)
	switch {
	case err != nil:
		return nola.Result{ID: inv.ID}, err
	case gone:
		return nola.Result{ID: inv.ID}, errGone(ctx)
	}
	return m.result(ctx, c)
}

// result is what a call came to, if memory may be asked.
func (m *Manager) result(ctx context.Context, c *core.Call) (nola.Result, error) {
	if c.Unwritten {
		if err := m.trusted(ctx, nola.ShardOf(c.Inv.Target, len(m.boxes))); err != nil {
			return nola.Result{ID: c.Inv.ID}, err
		}
	}
	return c.Result, c.Err
}

// Begin puts one call into its actor's mailbox, as Invoke does, and returns
// before it is answered: calls begun one after another reach an actor in that
// order. done is called once with what Invoke would answer, on any goroutine, and
// must not wait; it is not called if Begin answers an error. A call that has not
// started when ctx ends is taken back.
func (m *Manager) Begin(ctx context.Context, inv *nola.Invocation, done func(nola.Result, error)) error {
	if err := m.check(inv); err != nil {
		return err
	}
	inv.Kind = nola.KindCall
	if err := m.enter(len(inv.Payload)); err != nil {
		return err
	}
	c := m.newCall(inv)
	n := &begun{m: m, call: c, bytes: len(inv.Payload), done: done}
	c.Shell = n
	b := m.boxOf(inv.Target)
	m.work.begin()
	defer m.work.end()
	var out core.Output
	n.set.Lock()
	m.step(b, c, &out)
	n.forgetDeadline = m.after(inv.Deadline, func() { m.bring(b, &core.Cancel{Call: c, Err: core.ErrExpired(inv)}) })
	n.forgetCaller = context.AfterFunc(ctx, func() { m.bring(b, &core.Cancel{Call: c, Err: errCanceled(ctx)}) })
	n.set.Unlock()
	// What is read here is what puts the call into its place.
	for len(out.Loads) > 0 {
		loads := out.Loads
		out.Loads = nil
		m.fill(b, loads...)
		for _, l := range loads {
			m.step(b, l, &out)
		}
	}
	m.answer(&out)
	m.closeAll(&out)
	m.leave(b, &out)
	return nil
}

// begun is a call that no goroutine waits with.
type begun struct {
	m     *Manager
	call  *core.Call
	bytes int
	done  func(nola.Result, error)

	set            sync.Mutex // held until the fields below are: others may decide the call before
	forgetDeadline func()
	forgetCaller   func() bool
}

// decided tells what the call came to.
func (n *begun) decided() {
	n.set.Lock()
	n.forgetDeadline()
	n.forgetCaller()
	n.set.Unlock()
	if n.m.cfg.Strict && n.call.Unwritten {
		n.m.wg.Go(func() { // as it waits for the store; it ends with the manager at the latest
			n.done(n.m.result(n.m.ctx, n.call))
			n.m.leaveNode(n.bytes)
		})
		return
	}
	n.m.leaveNode(n.bytes)
	n.done(n.m.result(n.m.ctx, n.call))
}

// after has f called at a time, on a goroutine of its own, unless that is
// forgotten before.
func (m *Manager) after(at time.Time, f func()) (forget func()) {
	v := m.cfg.Virtual
	if v == nil {
		t := time.AfterFunc(at.Sub(m.cfg.Now()), f)
		return func() { t.Stop() }
	}
	t := v.timer(at, m.work.begin)
	forgotten := make(chan struct{})
	go func() { // ends with the manager at the latest
		defer m.stopTimer(v, t)
		select {
		case now := <-t.c:
			f()
			t.c <- now // its share of the work goes back with it
		case <-forgotten:
		case <-m.ctx.Done():
		}
	}()
	return func() { close(forgotten) }
}

func (m *Manager) call(ctx context.Context, inv *nola.Invocation) (c *core.Call, gone bool, err error) {
	bytes := len(inv.Payload)
	if err := m.enter(bytes); err != nil {
		return nil, false, err
	}
	defer m.leaveNode(bytes)
	c = m.newCall(inv)
	return c, m.wait(ctx, m.boxOf(inv.Target), c, &c.Ticket), nil
}

// newCall fills in what an invocation lacks.
func (m *Manager) newCall(inv *nola.Invocation) *core.Call {
	if inv.ID.IsZero() {
		inv.ID = m.newID()
	}
	if inv.Deadline.IsZero() && inv.Kind == nola.KindCall {
		inv.Deadline = m.cfg.Now().Add(nola.CallTimeoutDefault)
	}
	c := &core.Call{Inv: inv}
	if !inv.Key.IsZero() {
		c.Hash = nola.RequestHash(inv.Operation, inv.Payload)
	}
	return c
}

// Cast makes an invocation durable in its target's backlog, or, if due lies
// ahead, in the due index, and answers its id. It takes inv over.
func (m *Manager) Cast(ctx context.Context, inv *nola.Invocation, due time.Time) (nola.InvocationID, error) {
	if err := m.check(inv); err != nil {
		return nola.InvocationID{}, err
	}
	inv.Kind, inv.Due = nola.KindCast, due
	if !due.IsZero() {
		if err := checkDue(due); err != nil {
			return nola.InvocationID{}, err
		}
		if len(inv.Payload) > nola.TimerPayloadMax {
			return nola.InvocationID{}, nola.LimitError(nola.ReasonLimitExceeded, "delayed_payload_bytes", nola.TimerPayloadMax, "the payload of a delayed cast has %d bytes, at most %d are allowed", len(inv.Payload), nola.TimerPayloadMax)
		}
	}
	c, gone, err := m.call(ctx, inv)
	switch {
	case err != nil:
		return inv.ID, err
	case gone:
		return inv.ID, errGone(ctx)
	}
	return c.Result.ID, c.Err
}

// CreateActor makes an actor exist: its guest is started with init. It answers
// ALREADY_EXISTS if it does already.
func (m *Manager) CreateActor(ctx context.Context, ref nola.ActorRef, init []byte) error {
	_, err := m.Invoke(ctx, &nola.Invocation{Target: ref, Payload: init, Create: true})
	return err
}

// GetInvocation tells how an invocation ended, or that it has not. Either id or
// key is set.
func (m *Manager) GetInvocation(ctx context.Context, ref nola.ActorRef, id nola.InvocationID, key nola.Key) (nola.InvocationInfo, error) {
	if err := ref.Validate(); err != nil {
		return nola.InvocationInfo{}, err
	}
	b := m.boxOf(ref)
	epoch := b.epoch.Load()
	q := &core.Query{Ref: ref, ID: id, Key: key}
	if m.wait(ctx, b, q, &q.Ticket) {
		return nola.InvocationInfo{}, nola.Errorf(nola.ReasonCanceled, "the caller left")
	}
	if q.Err != nil {
		return nola.InvocationInfo{}, q.Err
	}
	info, err := m.recorded(b, q)
	if err == nil {
		// Last, for what was read is of the present only if the shard was ours then.
		err = m.trusted(ctx, b.id)
	}
	if err == nil && m.cfg.Peers != nil && b.epoch.Load() != epoch {
		err = errMoving(b.id)
	}
	if err != nil {
		return nola.InvocationInfo{}, err
	}
	return info, nil
}

// recorded answers what the store says of the invocation that q asks for, and q of
// what the store does not have yet.
func (m *Manager) recorded(b *box, q *core.Query) (nola.InvocationInfo, error) {
	if q.Key.IsZero() {
		if q.Pending {
			return nola.InvocationInfo{ID: q.ID, State: nola.InvocationPending}, nil
		}
		return m.outcome(b, q.Ref, q.ID)
	}
	rec, found, err := m.keyed(b, q.Ref, q.Key)
	switch {
	case err != nil:
		return nola.InvocationInfo{}, errStore(err)
	case q.Pending:
		return nola.InvocationInfo{State: nola.InvocationPending}, nil
	case found && !rec.Deferred.IsZero():
		return nola.InvocationInfo{ID: rec.ID, State: nola.InvocationPending, Attempts: rec.Attempts}, nil
	case !found || rec.State == persistence.StatePending:
		return nola.InvocationInfo{State: nola.InvocationNotRecorded}, nil
	}
	// A keyed cast is recorded as accepted; how it ended stands under its id.
	if info, err := m.outcome(b, q.Ref, rec.ID); err != nil || info.State != nola.InvocationNotRecorded {
		return info, err
	}
	return infoOf(rec), nil
}

func (m *Manager) keyed(b *box, ref nola.ActorRef, key nola.Key) (persistence.OutcomeRecord, bool, error) {
	if key.IsUser() {
		return m.reader.UserKey(b.id, ref, key.User)
	}
	return m.reader.Session(b.id, ref, key)
}

func (m *Manager) outcome(b *box, ref nola.ActorRef, id nola.InvocationID) (nola.InvocationInfo, error) {
	rec, found, err := m.reader.Outcome(b.id, id)
	if err != nil {
		return nola.InvocationInfo{}, errStore(err)
	}
	if !found || rec.Target != ref {
		return nola.InvocationInfo{ID: id, State: nola.InvocationNotRecorded}, nil
	}
	return infoOf(rec), nil
}

func infoOf(rec persistence.OutcomeRecord) nola.InvocationInfo {
	info := nola.InvocationInfo{ID: rec.ID, Payload: rec.Reply, Err: rec.Err, Attempts: rec.Attempts, Ended: rec.Time}
	switch rec.State {
	case persistence.StateSucceeded:
		info.State = nola.InvocationSucceeded
	case persistence.StateFailed:
		info.State = nola.InvocationFailed
	default:
		info.State, info.Ended = nola.InvocationPending, time.Time{}
	}
	return info
}

func (m *Manager) control(ctx context.Context, kind core.ControlKind, ref nola.ActorRef) (nola.ActorInfo, error) {
	if err := ref.Validate(); err != nil {
		return nola.ActorInfo{}, err
	}
	if err := m.enter(0); err != nil {
		return nola.ActorInfo{}, err
	}
	defer m.leaveNode(0)
	c := &core.Control{Kind: kind, Ref: ref}
	b := m.boxOf(ref)
	if m.wait(ctx, b, c, &c.Ticket) {
		return nola.ActorInfo{}, errGone(ctx)
	}
	if kind == core.Describe && c.Err == nil {
		c.Err = m.trusted(ctx, b.id)
	}
	return c.Info, c.Err
}

// DescribeActor describes an actor that exists or is in memory;
// ACTOR_NOT_FOUND otherwise.
func (m *Manager) DescribeActor(ctx context.Context, ref nola.ActorRef) (nola.ActorInfo, error) {
	info, err := m.control(ctx, core.Describe, ref)
	if err == nil && !info.Exists && !info.Active {
		err = nola.Errorf(nola.ReasonActorNotFound, "actor %s does not exist; it springs into being with its first call that writes", ref)
	}
	if info.Active {
		_, info.ModuleVersion, _ = m.cfg.Modules.Module(ref.Namespace, ref.Type)
	}
	return info, err
}

// PassivateActor takes an actor out of memory, behind what waits in its mailbox. It
// reports whether the actor was there.
func (m *Manager) PassivateActor(ctx context.Context, ref nola.ActorRef) (bool, error) {
	info, err := m.control(ctx, core.Passivate, ref)
	return info.Active, err
}

// DeleteActor removes an actor with its state, timers, reminders and the
// schedules that aim at it, behind what waits in its mailbox; nothing of it
// fires afterwards. Recorded outcomes stay until they expire.
func (m *Manager) DeleteActor(ctx context.Context, ref nola.ActorRef) error {
	_, err := m.control(ctx, core.Delete, ref)
	return err
}

func (m *Manager) schedule(ctx context.Context, op *core.ScheduleOp) error {
	if err := op.Ref.Target.Validate(); err != nil {
		return err
	}
	if err := m.enter(len(op.Payload)); err != nil {
		return err
	}
	defer m.leaveNode(len(op.Payload))
	b := m.boxOf(op.Ref.Target)
	if m.wait(ctx, b, op, &op.Ticket) {
		return errGone(ctx)
	}
	if op.Kind == core.GetSchedule && op.Err == nil {
		op.Err = m.trusted(ctx, b.id)
	}
	switch {
	case op.Err != nil:
		return op.Err
	case op.Kind != core.CreateSchedule && op.Kind != core.GetSchedule && op.Kind != core.UpdateSchedule:
		return nil
	case op.Kind == core.CreateSchedule && len(op.Info.Progress.Counters) == 0:
		return nil // it is new: no outcome was counted, so none is recorded
	}
	const recent = 10
	list, err := m.reader.Occurrences(b.id, op.Ref.Target, op.Ref.Reminder, op.Ref.ID)
	if err != nil {
		return errStore(err)
	}
	op.Info.Recent = list[:min(recent, len(list))]
	return nil
}

// CreateSchedule makes a schedule; creating the same incarnation again changes
// nothing. The caller sees to it that its id is unique in the namespace.
func (m *Manager) CreateSchedule(ctx context.Context, s nola.Schedule, requestID string) (nola.ScheduleInfo, error) {
	op := &core.ScheduleOp{Kind: core.CreateSchedule, Ref: nola.ScheduleRef{Target: s.Target, ID: s.ID}, Schedule: s, RequestID: requestID}
	err := m.schedule(ctx, op)
	return op.Info, err
}

// GetSchedule describes a schedule or a reminder.
func (m *Manager) GetSchedule(ctx context.Context, ref nola.ScheduleRef) (nola.ScheduleInfo, error) {
	op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: ref}
	err := m.schedule(ctx, op)
	return op.Info, err
}

// UpdateSchedule changes a schedule; ETAG_MISMATCH if somebody else did since
// the caller read it.
func (m *Manager) UpdateSchedule(ctx context.Context, ref nola.ScheduleRef, c nola.ScheduleChange) (nola.ScheduleInfo, error) {
	op := &core.ScheduleOp{Kind: core.UpdateSchedule, Ref: ref, Change: c}
	err := m.schedule(ctx, op)
	return op.Info, err
}

// DeleteSchedule removes a schedule, in one step with the look at its etag, which
// must be etag unless that is zero; nothing of it fires afterwards.
func (m *Manager) DeleteSchedule(ctx context.Context, ref nola.ScheduleRef, etag uint64) error {
	return m.schedule(ctx, &core.ScheduleOp{Kind: core.DeleteSchedule, Ref: ref, Change: nola.ScheduleChange{ETag: etag}})
}

// TriggerSchedule fires a schedule now, once per request id, and answers the
// occurrence: running, or buffered or skipped by the overlap policy (the
// schedule's own if overlap is zero). If the request was carried out before and
// has ended, the occurrence has its nominal time and no outcome. payload replaces
// the schedule's unless nil.
func (m *Manager) TriggerSchedule(ctx context.Context, ref nola.ScheduleRef, requestID string, overlap nola.Overlap, payload []byte) (nola.Occurrence, error) {
	op := &core.ScheduleOp{Kind: core.TriggerSchedule, Ref: ref, RequestID: requestID, Overlap: overlap, Payload: payload}
	if len(payload) > nola.TimerPayloadMax {
		return nola.Occurrence{}, nola.LimitError(nola.ReasonLimitExceeded, "schedule_payload_bytes", nola.TimerPayloadMax, "the payload has %d bytes, at most %d are allowed", len(payload), nola.TimerPayloadMax)
	}
	err := m.schedule(ctx, op)
	return op.Occurrence, err
}

// BackfillSchedule fires the nominal times of a range again, as in
// scheduler.Plan.Backfill; once per id.
func (m *Manager) BackfillSchedule(ctx context.Context, ref nola.ScheduleRef, b nola.Backfill) (nola.Backfill, error) {
	op := &core.ScheduleOp{Kind: core.BackfillSchedule, Ref: ref, Backfill: b}
	err := m.schedule(ctx, op)
	return op.Backfill, err
}

// CancelBackfill ends a backfill: nothing more of it starts.
func (m *Manager) CancelBackfill(ctx context.Context, ref nola.ScheduleRef, id string) (nola.Backfill, error) {
	op := &core.ScheduleOp{Kind: core.CancelBackfill, Ref: ref, Backfill: nola.Backfill{ID: id}}
	err := m.schedule(ctx, op)
	return op.Backfill, err
}

// SkipOccurrence takes one nominal time to come out of the row.
func (m *Manager) SkipOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal time.Time) error {
	return m.schedule(ctx, &core.ScheduleOp{Kind: core.SkipOccurrence, Ref: ref, Nominal: nominal})
}

// UnskipOccurrence has a nominal time that was skipped or moved fire as the spec
// says.
func (m *Manager) UnskipOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal time.Time) error {
	return m.schedule(ctx, &core.ScheduleOp{Kind: core.UnskipOccurrence, Ref: ref, Nominal: nominal})
}

// MoveOccurrence has one nominal time to come fire at another instant.
func (m *Manager) MoveOccurrence(ctx context.Context, ref nola.ScheduleRef, nominal, to time.Time) error {
	return m.schedule(ctx, &core.ScheduleOp{Kind: core.MoveOccurrence, Ref: ref, Nominal: nominal, To: to})
}

// RedriveDeadLetter fires a dead letter again and answers the occurrence.
func (m *Manager) RedriveDeadLetter(ctx context.Context, ref nola.ScheduleRef, number uint64) (nola.Occurrence, error) {
	op := &core.ScheduleOp{Kind: core.RedriveLetter, Ref: ref, Letter: number}
	err := m.schedule(ctx, op)
	return op.Occurrence, err
}
