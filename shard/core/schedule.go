package core

import (
	"slices"
	"strconv"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/scheduler"
)

// schedule is a schedule or a reminder in memory: from before it is due until
// what it did is committed.
type schedule struct {
	ref     nola.ScheduleRef
	loading bool
	due     bool // it is due, and loading
	exists  bool
	row     persistence.ScheduleRow
	plan    *scheduler.Plan
	last    nola.Occurrence // the newest record written, if of this tenure
	changed bool            // the schedule itself, by counting down
	onDisk  time.Time       // where its row in the due index stands, zero if nowhere
	waiting []*ScheduleOp
	flying  int // firings on their way
	pins    int // turns that rely on it being in memory
	seq     nola.Seq
	inGroup nola.Seq
	lingers bool // is to be evicted once the due index has been read
}

// gone reports whether the schedule was deleted, or replaced.
func (s *Shard) gone(sc *schedule) bool { return s.schedules[sc.ref] != sc || !sc.exists }

// ScheduleOpKind says what a ScheduleOp asks for.
type ScheduleOpKind uint8

// The kinds of operations on a schedule.
const (
	CreateSchedule   ScheduleOpKind = iota + 1 // Schedule; the same incarnation again changes nothing
	GetSchedule                                // fills Info
	UpdateSchedule                             // Change
	DeleteSchedule                             // Change.ETag
	TriggerSchedule                            // RequestID, Payload, Overlap; fills Occurrence
	BackfillSchedule                           // Backfill; fills Backfill
	CancelBackfill                             // Backfill.ID; fills Backfill
	SkipOccurrence                             // Nominal
	UnskipOccurrence                           // Nominal
	MoveOccurrence                             // Nominal, To
	RedriveLetter                              // Letter; fills Occurrence
	pinSchedule                                // keeps it in memory until the turn ends
)

// ScheduleOp asks something of one schedule. It is answered once what it did is
// durable.
type ScheduleOp struct {
	Ticket
	Kind      ScheduleOpKind
	Ref       nola.ScheduleRef
	Schedule  nola.Schedule
	Change    nola.ScheduleChange
	RequestID string
	Payload   []byte
	Overlap   nola.Overlap
	Backfill  nola.Backfill
	Nominal   time.Time
	To        time.Time
	Letter    uint64

	Info       nola.ScheduleInfo
	Occurrence nola.Occurrence
	Exists     bool // of what Pin looked up

	turn *Turn
}

// Pin makes the input after which a reminder of the turn's actor stays in
// memory until the turn ends, as the turn needs that wants to change it.
func Pin(t *Turn, name string) *ScheduleOp {
	return PinSchedule(t, nola.ScheduleRef{Target: t.Act.ref, ID: name, Reminder: true})
}

// PinSchedule is Pin for any schedule of the shard, as the turn needs that
// completes a deferred firing.
func PinSchedule(t *Turn, ref nola.ScheduleRef) *ScheduleOp {
	return &ScheduleOp{Kind: pinSchedule, Ref: ref, turn: t}
}

// schedule answers a schedule in memory, and starts to load it if it is not.
func (s *Shard) schedule(ref nola.ScheduleRef, out *Output) *schedule {
	if sc := s.schedules[ref]; sc != nil {
		return sc
	}
	sc := &schedule{ref: ref, loading: true}
	s.schedules[ref] = sc
	s.ask(out, Load{Kind: LoadSchedule, Ref: ref.Target, Schedule: ref, Row: &sc.row, sched: sc})
	return sc
}

func (s *Shard) loadedSchedule(l *Load, out *Output) {
	sc := l.sched
	if sc.due {
		sc.due = false
		s.due.reads(sc.ref.Target.Namespace, -1)
	}
	if s.schedules[sc.ref] != sc {
		return
	}
	sc.loading = false
	waiting := sc.waiting
	sc.waiting = nil
	if l.Err != nil {
		delete(s.schedules, sc.ref)
		s.due.after(s.now.Add(ioRetry), &localDue{row: sc.dueRow(s.now)})
		for _, op := range waiting {
			s.refuse(&op.Ticket, nola.Errorf(nola.ReasonUnavailable, "cannot read schedule %s from the store: %v", sc.ref.ID, l.Err), out)
		}
		return
	}
	if l.Found {
		sc.exists = true
		sc.onDisk = dueOnDisk(&sc.row.Progress)
		// A stored spec was valid once; should a newer version refuse it, the
		// schedule rests until it is updated.
		sc.plan, _, _ = scheduler.NewPlan(&sc.row.Schedule)
		if sc.plan != nil {
			// What ran when the last tenure ended fires again, with the same key.
			for _, run := range scheduler.Refire(&sc.row.Progress) {
				s.fire(sc, run, run.Started, out)
			}
		}
	}
	for _, op := range waiting {
		op.step(s, out)
	}
	s.advance(sc, out)
}

func (sc *schedule) dueRow(due time.Time) persistence.DueRow {
	row := persistence.DueRow{Due: due, Target: sc.ref.Target, Kind: persistence.DueSchedule, Name: sc.ref.ID}
	if sc.ref.Reminder {
		row.Kind = persistence.DueReminder
	}
	return row
}

// dueOnDisk is when a new owner must look at a schedule: at once, if something
// runs.
func dueOnDisk(p *nola.Progress) time.Time {
	due := p.Due
	for _, r := range p.Running {
		if !scheduler.Waiting(r) && !r.Deferred && (due.IsZero() || r.Nominal.Before(due)) {
			due = r.Nominal
		}
	}
	return due
}

// advance decides what is due of a schedule now. It writes only what cannot
// wait: outcomes of nominal times that do not fire. A nominal time that fires
// is passed in the commit that holds its effects.
func (s *Shard) advance(sc *schedule, out *Output) {
	if sc.loading || !sc.exists || sc.plan == nil || s.fenced != nil {
		s.evict(sc)
		return
	}
	p := &sc.row.Progress
	if !p.Due.IsZero() && !p.Due.After(s.now) {
		before, due := s.open().batch.Bytes(), p.Due
		d := sc.plan.Advance(&sc.row.Schedule, p, s.now)
		// A due time that moves with nothing else would be lost when the schedule
		// leaves memory.
		if s.record(sc, d) || len(d.Fire) == 0 && !p.Due.Equal(due) {
			s.persistProgress(sc)
		}
		s.begin(sc, d, out)
		s.folded(before)
	}
	s.remind(sc)
	s.evict(sc)
}

// record writes the outcomes of a decision, and reports whether there were any.
func (s *Shard) record(sc *schedule, d scheduler.Decision) bool {
	sc.changed = sc.changed || d.Spent != 0
	for _, o := range d.Records {
		s.putOccurrence(sc, o)
	}
	return len(d.Records) > 0
}

// begin fires what a decision lets start, and ends at once what it takes back
// that waits for another attempt, or, if it is terminated, for its answer. A
// turn that runs is interrupted, if it is terminated. What waits in the mailbox
// ends when its turn comes, which is when the one that takes its place could
// begin.
func (s *Shard) begin(sc *schedule, d scheduler.Decision, out *Output) {
	for _, run := range d.Cancel {
		switch {
		case run.RetryAt.After(s.now):
			sc.flying--
		case run.Deferred && run.Terminated:
		default:
			if a := s.acts[sc.ref.Target]; run.Terminated && a != nil && a.runs(sc, &run) {
				out.Interrupts = append(out.Interrupts, Interrupt{Act: a, Number: a.turn.Number, Err: errReplaced(sc, true)})
			}
			continue
		}
		s.endOccurrence(sc, endOf(run, errReplaced(sc, run.Terminated)), nil)
	}
	for _, run := range d.Fire {
		s.fire(sc, run, time.Time{}, out)
	}
}

// runs reports whether the turn of a firing runs.
func (a *Activation) runs(sc *schedule, run *nola.Running) bool {
	c := a.turn.Call
	return a.running && c != nil && c.sched == sc && sameRun(&c.run, run)
}

func errReplaced(sc *schedule, terminated bool) *nola.Error {
	if terminated {
		return nola.Errorf(nola.ReasonTerminated, "a later occurrence of schedule %q took the place of this one while it ran, as its overlap policy says; nothing that its turn did stays", sc.ref.ID)
	}
	return nola.Errorf(nola.ReasonCanceled, "a later occurrence of schedule %q took the place of this one, as its overlap policy says", sc.ref.ID)
}

func errDeleted(sc *schedule) *nola.Error {
	return nola.Errorf(nola.ReasonTerminated, "schedule %q was deleted while this firing ran; nothing that its turn did stays", sc.ref.ID)
}

// withdrawn ends the firing c, whose turn has come, if it was taken back.
func (s *Shard) withdrawn(c *Call) bool {
	sc := c.sched
	if !scheduler.Taken(&sc.row.Progress, c.run, false) {
		return false
	}
	sc.flying--
	before := s.open().batch.Bytes()
	err := errReplaced(sc, scheduler.Taken(&sc.row.Progress, c.run, true))
	s.endOccurrence(sc, endOf(c.run, err), nil)
	s.open().batch.PutOutcome(s.outcome(c, err))
	s.sweep.recorded(s)
	s.folded(before)
	s.remind(sc)
	return true
}

func endOf(run nola.Running, err error) scheduler.End {
	e := scheduler.End{Nominal: run.Nominal, Kind: run.Kind, RequestID: run.RequestID, OK: err == nil}
	if err != nil {
		e.Error, e.Reason, e.NotStarted = err.Error(), asError(err).Reason, neverBegan(err)
	}
	return e
}

// endOccurrence writes how a firing ended.
func (s *Shard) endOccurrence(sc *schedule, e scheduler.End, reply []byte) {
	paused := sc.row.Schedule.Paused
	o, ok := sc.plan.Ended(&sc.row.Schedule, &sc.row.Progress, e, s.now)
	if !ok {
		panic("core: an occurrence of schedule " + sc.ref.ID + " ended that did not run")
	}
	sc.changed = sc.changed || sc.row.Schedule.Paused != paused
	s.putOccurrence(sc, o)
	s.persistProgress(sc)
	g := s.open()
	g.firings = append(g.firings, Firing{Schedule: sc.ref, Occurrence: o, Reply: reply})
}

// remind keeps the schedule's next due time in memory.
func (s *Shard) remind(sc *schedule) {
	due := sc.row.Progress.Due
	if due.IsZero() || !sc.exists {
		s.due.remove(sc.dueRow(due))
		return
	}
	at := due
	if at.Before(s.now) {
		at = s.now // there is more to decide, at the next tick: others first
	}
	s.due.set(sc.dueRow(due), at, 0)
}

// fire sends an occurrence to its target. started is when an earlier attempt
// that may have called others began, zero if there was none.
func (s *Shard) fire(sc *schedule, run nola.Running, started time.Time, out *Output) {
	sd := &sc.row.Schedule
	kind := nola.KindSchedule
	if sc.ref.Reminder {
		kind = nola.KindReminder
	}
	payload := sd.Payload
	if run.Payload != nil {
		payload = run.Payload
	}
	sc.flying++
	c := &Call{
		origin: fromSchedule, sched: sc, run: run, Dep: sc.seq,
		Inv: &nola.Invocation{
			ID:   scheduler.OccurrenceKey(sd, run.Nominal, run.Kind, run.RequestID),
			Kind: kind, Target: sc.ref.Target, Operation: sd.Operation, Payload: payload,
			Caller:  nola.Caller{Name: sd.ID, Nominal: run.Nominal},
			Attempt: run.Attempts - 1, Started: started,
		},
	}
	if run.RetryAt.After(s.now) {
		s.due.after(run.RetryAt, &localDue{call: c})
		return
	}
	s.takeOff(c)
	c.step(s, out)
}

// carry hands the turn of a firing what those before it leave. That need not be
// durable yet, so the turn rests on it.
func (sc *schedule) carry(t *Turn) {
	if c := sc.plan.Carry(&sc.row.Progress); !c.IsZero() {
		t.Carry, t.dep = &c, max(t.dep, sc.seq)
	}
}

// endFiring writes what became of an occurrence, with the effects of its turn.
func (s *Shard) endFiring(t *Turn, out *Output) {
	c, sc := t.Call, t.Call.sched
	sc.flying--
	if s.gone(sc) {
		// The schedule was deleted while the turn ran: it has not fired.
		t.Act.fresh = true
		return
	}
	p := &sc.row.Progress
	if scheduler.Taken(p, c.run, true) {
		// Its place is taken: what the turn did never happened.
		t.Act.fresh = true
		t.Err = errReplaced(sc, true)
	} else if t.Err != nil && s.again(sc, c, t.Err) {
		return
	}
	e := endOf(c.run, t.Err)
	if t.Err == nil {
		c.Result.Payload = t.Effects.Reply
		e.Result = c.Result.Payload
		s.fold(t, out)
		if t.Effects.Deferral != nil {
			s.persistProgress(sc)
			s.remind(sc)
			return
		}
	}
	s.endOccurrence(sc, e, c.Result.Payload)
	s.open().batch.PutOutcome(s.outcome(c, t.Err))
	s.sweep.recorded(s)
	s.touched(t.Act)
	s.remind(sc)
}

// again puts a firing that failed off to another attempt: as the schedule's
// policy says, or, if that says nothing, as the node does.
func (s *Shard) again(sc *schedule, c *Call, err error) bool {
	p := &sc.row.Progress
	var run nola.Running
	if sc.plan.Retries() {
		var ok bool
		if run, ok = sc.plan.Retry(p, endOf(c.run, err), s.now); !ok {
			return false
		}
	} else {
		if !s.retryable(err) || c.run.Attempts >= s.limits.AttemptsMax || scheduler.Taken(p, c.run, false) {
			return false
		}
		run = scheduler.Postpone(p, c.run, s.now.Add(s.limits.backoff(c.run.Attempts)))
	}
	inv := *c.Inv
	inv.Attempt = run.Attempts - 1
	s.due.after(run.RetryAt, &localDue{call: &Call{
		origin: fromSchedule, sched: sc, run: run, Dep: c.Dep, Inv: &inv, started: c.started,
	}})
	sc.flying++
	s.persistProgress(sc)
	return true
}

// neverBegan tells a firing that never began from one whose operation failed.
func neverBegan(err error) bool {
	switch asError(err).Reason {
	case nola.ReasonModuleNotFound, nola.ReasonOperationNotFound:
		return true
	}
	return false
}

// putOccurrence writes a record, as a part of the newest one if the two are one
// run of times that did not fire.
func (s *Shard) putOccurrence(sc *schedule, o nola.Occurrence) {
	b := &s.open().batch
	if sc.last.Count > 0 && sc.plan.Extend(&sc.last, o) {
		b.PutOccurrence(sc.ref.Target, sc.ref.Reminder, sc.ref.ID, sc.row.Records-1, sc.last)
		return
	}
	b.PutOccurrence(sc.ref.Target, sc.ref.Reminder, sc.ref.ID, sc.row.Records, o)
	sc.last = o
	sc.row.Records++
}

// persistProgress writes where the schedule stands, and moves its row in the
// due index if it stands elsewhere now.
func (s *Shard) persistProgress(sc *schedule) {
	g := s.open()
	p := &sc.row.Progress
	if sc.changed {
		sc.changed = false
		g.batch.PutSchedule(sc.ref.Target, &sc.row.Schedule)
	}
	g.batch.PutProgress(sc.ref.Target, sc.ref.Reminder, sc.ref.ID, p, sc.row.Records)
	if due := dueOnDisk(p); !due.Equal(sc.onDisk) {
		if !sc.onDisk.IsZero() {
			row := sc.dueRow(sc.onDisk)
			g.batch.DeleteDue(row.Due, row.Target, row.Kind, row.Name)
		}
		if !due.IsZero() {
			g.batch.PutDue(sc.dueRow(due))
		}
		sc.onDisk = due
	}
	s.touchedSchedule(sc)
}

func (s *Shard) touchedSchedule(sc *schedule) {
	g := s.open()
	sc.seq = g.batch.Seq
	if sc.inGroup != sc.seq {
		sc.inGroup = sc.seq
		g.scheds = append(g.scheds, sc)
	}
}

// evict drops a schedule from memory that has nothing to do for a while, or for which
// there is no room. While
// the due index is being read nothing is dropped: the read may have missed the
// schedule's row.
func (s *Shard) evict(sc *schedule) {
	const soon = 10 * time.Second
	if sc.loading || sc.flying > 0 || sc.pins > 0 || len(sc.waiting) > 0 || sc.seq > s.committed || s.schedules[sc.ref] != sc {
		return
	}
	if s.due.loading {
		if !sc.lingers {
			sc.lingers = true
			s.lingering = append(s.lingering, sc)
		}
		return
	}
	due := sc.row.Progress.Due
	if sc.exists && !due.IsZero() {
		if due.Before(s.now.Add(soon)) && len(s.schedules) <= s.limits.SchedulesMax {
			return
		}
		if compareDue(sc.dueRow(due), s.due.pos) > 0 {
			s.due.remove(sc.dueRow(due))
		}
	}
	delete(s.schedules, sc.ref)
}

func (in *ScheduleOp) step(s *Shard, out *Output) {
	if s.fenced != nil || s.leaving != nil && in.turn == nil || in.turn != nil && in.turn.epoch != s.epoch {
		s.refuse(&in.Ticket, errMoving(s.id), out)
		return
	}
	sc := s.schedule(in.Ref, out)
	if sc.loading {
		if len(sc.waiting) >= s.limits.MailboxMax {
			s.refuse(&in.Ticket, errOverloaded(s.id, int64(s.limits.MailboxMax), "schedule operations"), out)
			return
		}
		sc.waiting = append(sc.waiting, in)
		return
	}
	if in.Kind == pinSchedule {
		sc.pins++
		in.Exists = sc.exists
		in.turn.pinned = append(in.turn.pinned, sc.ref)
		s.decide(&in.Ticket, out)
		return
	}
	before := s.open().batch.Bytes()
	var err error
	switch in.Kind {
	case CreateSchedule:
		err = s.createSchedule(sc, in)
	case GetSchedule:
		err = sc.mustExist()
	case UpdateSchedule:
		var done bool
		if done, err = s.updateSchedule(sc, in, out); !done && err == nil {
			s.putOff(sc, in, out)
			s.folded(before)
			return
		}
	case DeleteSchedule:
		if err = sc.mustBe(in.Change.ETag); err == nil {
			s.dropSchedule(&sc.row, out)
		}
	default:
		err = s.changeProgress(sc, in, out)
	}
	if err == nil && sc.exists {
		in.Info = s.info(sc)
	}
	in.Err = err
	s.park(&in.Ticket, sc.seq, out)
	s.folded(before)
	s.evict(sc)
}

func (sc *schedule) mustExist() error {
	if !sc.exists {
		return nola.Errorf(nola.ReasonScheduleNotFound, "schedule %q does not exist", sc.ref.ID)
	}
	return nil
}

// mustBe wants the schedule to exist, with that etag if it is not zero.
func (sc *schedule) mustBe(etag uint64) error {
	if err := sc.mustExist(); err != nil {
		return err
	}
	have := sc.row.Schedule.ETag
	if etag == 0 || etag == have {
		return nil
	}
	e := nola.Errorf(nola.ReasonETagMismatch, "schedule %q was changed by somebody else: its etag is %d, not %d; read it again", sc.ref.ID, have, etag)
	e.Metadata = map[string]string{"etag": strconv.FormatUint(have, 10)}
	return e
}

func (s *Shard) info(sc *schedule) nola.ScheduleInfo {
	const ahead = 10
	info := nola.ScheduleInfo{Schedule: sc.row.Schedule, Progress: sc.row.Progress.Clone()}
	if sc.plan != nil {
		info.Next = sc.plan.Upcoming(&sc.row.Schedule, &sc.row.Progress, s.now, ahead)
	}
	return info
}

func (s *Shard) createSchedule(sc *schedule, in *ScheduleOp) error {
	if sc.exists {
		if sc.row.Schedule.Incarnation == in.Schedule.Incarnation {
			return nil
		}
		return nola.Errorf(nola.ReasonAlreadyExists, "schedule %q exists already", sc.ref.ID)
	}
	sd := in.Schedule
	sd.Created, sd.Updated, sd.ETag = s.now, s.now, max(1, sd.ETag)
	return s.plant(sc, sd)
}

// plant makes sd the schedule, from now on.
func (s *Shard) plant(sc *schedule, sd nola.Schedule) error {
	plan, _, err := scheduler.NewPlan(&sd)
	if err != nil {
		return err
	}
	sc.exists, sc.plan = true, plan
	sc.row.Schedule, sc.row.Progress = sd, plan.Start(&sd, s.now)
	s.open().batch.PutSchedule(sc.ref.Target, &sc.row.Schedule)
	s.persistProgress(sc)
	s.remind(sc)
	return nil
}

// putOff has an operation go on at the next tick, so that others come first.
func (s *Shard) putOff(sc *schedule, in *ScheduleOp, out *Output) {
	if len(sc.waiting) >= s.limits.MailboxMax {
		s.refuse(&in.Ticket, errOverloaded(s.id, int64(s.limits.MailboxMax), "schedule operations"), out)
		return
	}
	if sc.waiting = append(sc.waiting, in); len(sc.waiting) == 1 {
		s.due.after(s.now, &localDue{sched: sc})
	}
}

// goOn takes up what was put off.
func (s *Shard) goOn(sc *schedule, out *Output) {
	if s.schedules[sc.ref] != sc {
		return
	}
	waiting := sc.waiting
	sc.waiting = nil
	for _, op := range waiting {
		op.step(s, out)
	}
}

// updateSchedule changes a schedule. One that has many nominal times to decide
// before is not done at once: then only some of those are decided.
func (s *Shard) updateSchedule(sc *schedule, in *ScheduleOp, out *Output) (done bool, err error) {
	if err := sc.mustBe(in.Change.ETag); err != nil {
		return false, err
	}
	ch, sd := &in.Change, sc.row.Schedule
	set(&sd.Operation, ch.Operation)
	set(&sd.Payload, ch.Payload)
	set(&sd.Spec, ch.Spec)
	set(&sd.Calendars, ch.Calendars)
	set(&sd.Policy, ch.Policy)
	if ch.Paused != nil {
		sd.Paused, sd.PauseReason, sd.PausedBy = *ch.Paused, "", ""
		if sd.Paused {
			sd.PausedBy = ch.PausedBy
		}
	}
	set(&sd.PausedUntil, ch.PausedUntil)
	set(&sd.Note, ch.Note)
	set(&sd.Limited, ch.Limited)
	set(&sd.Remaining, ch.Remaining)
	set(&sd.Labels, ch.Labels)
	plan, _, err := scheduler.NewPlan(&sd)
	if err != nil {
		return false, err
	}
	if (*ch != nola.ScheduleChange{ETag: ch.ETag, Calendars: ch.Calendars}) {
		sd.ETag++
		sd.Updated = s.now
	}
	if sc.plan != nil {
		d := plan.Replan(&sd, &sc.row.Progress, &sc.row.Schedule, sc.plan, s.now)
		s.record(sc, d)
		s.begin(sc, d, out)
		if d.More {
			s.persistProgress(sc)
			s.remind(sc)
			return false, nil
		}
		if ch.Remaining == nil {
			sd.Remaining = sc.row.Schedule.Remaining
		}
	}
	sc.plan, sc.row.Schedule = plan, sd
	s.open().batch.PutSchedule(sc.ref.Target, &sc.row.Schedule)
	s.persistProgress(sc)
	s.remind(sc)
	return true, nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// changeProgress carries out what changes where a schedule stands and not what
// it is.
func (s *Shard) changeProgress(sc *schedule, in *ScheduleOp, out *Output) error {
	if err := sc.mustExist(); err != nil {
		return err
	}
	if sc.plan == nil {
		return nola.Errorf(nola.ReasonInvalidSpec, "the spec of schedule %q is not understood by this version; update it", sc.ref.ID)
	}
	sd, p := &sc.row.Schedule, &sc.row.Progress
	var d scheduler.Decision
	var err error
	switch in.Kind {
	case TriggerSchedule:
		d, err = sc.plan.Trigger(sd, p, s.now, in.RequestID, in.Payload, in.Overlap)
	case BackfillSchedule:
		in.Backfill, d, err = sc.plan.Backfill(sd, p, in.Backfill, s.now)
	case CancelBackfill:
		in.Backfill, err = sc.plan.CancelBackfill(sd, p, in.Backfill.ID, s.now)
	case SkipOccurrence:
		err = sc.plan.Skip(sd, p, in.Nominal, s.now)
	case UnskipOccurrence:
		err = sc.plan.Unskip(sd, p, in.Nominal, s.now)
	case MoveOccurrence:
		err = sc.plan.Move(sd, p, in.Nominal, in.To, s.now)
	case RedriveLetter:
		d, err = sc.plan.Redrive(sd, p, in.Letter, s.now)
	}
	if err != nil {
		return err
	}
	if !d.Replayed {
		s.record(sc, d)
		s.persistProgress(sc)
		s.begin(sc, d, out)
		s.remind(sc)
	}
	switch in.Kind {
	case TriggerSchedule:
		in.Occurrence = s.stands(sc, d, nola.OccurrenceTrigger, in.RequestID)
	case RedriveLetter:
		in.Occurrence = s.stands(sc, d, nola.OccurrenceRedrive, scheduler.LetterRequest(in.Letter))
	}
	return nil
}

// stands is the occurrence that a request made, now or before. One that has
// ended before has its nominal time and no outcome: that is in the records.
func (s *Shard) stands(sc *schedule, d scheduler.Decision, kind nola.OccurrenceKind, requestID string) nola.Occurrence {
	o := nola.Occurrence{Nominal: d.Nominal, Kind: kind, RequestID: requestID, Last: d.Nominal, Count: 1}
	for _, rec := range d.Records {
		if rec.Kind == kind && rec.RequestID == requestID {
			return rec
		}
	}
	is := func(r nola.Running) bool { return r.Kind == kind && r.RequestID == requestID }
	if i := slices.IndexFunc(sc.row.Progress.Running, is); i >= 0 {
		r := sc.row.Progress.Running[i]
		o.Outcome, o.Started, o.Attempts = nola.OutcomeRunning, r.Started, r.Attempts
	} else if slices.ContainsFunc(sc.row.Progress.Buffer, is) {
		o.Outcome = nola.OutcomeBuffered
	}
	return o
}

// dropSchedule deletes a schedule with everything it has coming. Nothing of it
// fires any more: a turn that runs for it is interrupted, and dropped at its end.
func (s *Shard) dropSchedule(row *persistence.ScheduleRow, out *Output) {
	sd := &row.Schedule
	ref := nola.ScheduleRef{Target: sd.Target, ID: sd.ID, Reminder: sd.Reminder}
	sc := s.schedules[ref]
	if sc == nil || sc.loading {
		fresh := &schedule{ref: ref, exists: true, row: *row, onDisk: dueOnDisk(&row.Progress)}
		if sc != nil {
			fresh.waiting, fresh.pins = sc.waiting, sc.pins
		}
		sc = fresh
		s.schedules[ref] = sc
	}
	if !sc.exists {
		return
	}
	b := &s.open().batch
	b.DeleteSchedule(ref.Target, ref.Reminder, ref.ID)
	if !sc.onDisk.IsZero() {
		due := sc.dueRow(sc.onDisk)
		b.DeleteDue(due.Due, due.Target, due.Kind, due.Name)
	}
	s.due.remove(sc.dueRow(time.Time{}))
	// A new object takes its place, so that firings of the old one find that
	// their schedule is gone.
	next := &schedule{ref: ref, waiting: sc.waiting, pins: sc.pins}
	sc.exists, sc.waiting = false, nil
	s.schedules[ref] = next
	s.touchedSchedule(next)
	sc.seq = next.seq
	for _, op := range next.waiting {
		s.refuse(&op.Ticket, next.mustExist(), out)
	}
	next.waiting = nil
	if a := s.acts[ref.Target]; a != nil {
		if c := a.turn.Call; a.running && c != nil && c.sched == sc {
			out.Interrupts = append(out.Interrupts, Interrupt{Act: a, Number: a.turn.Number, Err: errDeleted(sc)})
		}
		for c := a.queue.head; c != nil; {
			after := c.next
			if c.sched == sc {
				a.queue.remove(c)
				s.land(c)
			}
			c = after
		}
	}
}

// changeReminder sets, replaces or cancels a reminder of the actor. The turn has
// pinned it.
func (s *Shard) changeReminder(t *Turn, ch *nola.ReminderChange, out *Output) {
	ref := nola.ScheduleRef{Target: t.Act.ref, ID: ch.Name, Reminder: true}
	sc := s.schedules[ref]
	if sc == nil || sc.loading {
		panic("core: reminder " + ch.Name + " is not pinned")
	}
	if sc.exists {
		s.dropSchedule(&sc.row, out)
		sc = s.schedules[ref]
	}
	if t.Act.reminders == nil {
		t.Act.reminders = make(map[string]reminderCell)
	}
	t.Act.reminders[ch.Name] = reminderCell{exists: !ch.Cancel, seq: s.openSeq()}
	if ch.Cancel {
		return
	}
	sd := nola.Schedule{
		Namespace: ref.Target.Namespace, ID: ch.Name, Incarnation: s.unique(),
		Target: ref.Target, Operation: ch.Operation, Payload: ch.Payload, Spec: ch.Spec,
		Reminder: true, Created: s.now, Updated: s.now, ETag: 1,
	}
	if err := s.plant(sc, sd); err != nil {
		panic("core: the spec of reminder " + ch.Name + " was not checked: " + err.Error())
	}
}
