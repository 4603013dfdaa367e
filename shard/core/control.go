package core

import (
	"fmt"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// ControlKind says what a Control orders.
type ControlKind uint8

// The kinds of orders.
const (
	Describe  ControlKind = iota + 1 // fills Info
	Passivate                        // the actor leaves memory once its queue is empty
	Delete                           // the actor and all it owns go
)

// Control orders something of one actor. Passivate and Delete wait for their
// turn in the mailbox, behind everything that arrived before.
type Control struct {
	Ticket
	Kind ControlKind
	Ref  nola.ActorRef
	Info nola.ActorInfo

	act *Activation
}

func (in *Control) step(s *Shard, out *Output) {
	if err := s.shut(); err != nil {
		s.refuse(&in.Ticket, err, out)
		return
	}
	if in.Kind == Passivate && s.acts[in.Ref] == nil {
		s.decide(&in.Ticket, out) // it is not in memory
		return
	}
	a := s.activation(in.Ref, out)
	in.act = a
	if a.loading {
		if len(a.waiting) >= s.limits.MailboxMax {
			s.refuse(&in.Ticket, errMailboxFull(a.ref, s.limits.MailboxMax), out)
			return
		}
		a.waiting = append(a.waiting, in)
		return
	}
	switch in.Kind {
	case Describe:
		in.Info = s.describe(a)
		s.park(&in.Ticket, a.dep, out)
		s.runNext(a, out)
	case Passivate, Delete:
		if a.queue.n >= s.limits.MailboxMax {
			s.refuse(&in.Ticket, errMailboxFull(a.ref, s.limits.MailboxMax), out)
			return
		}
		a.unlist()
		a.queue.push(&Call{control: in, after: a.tail, act: a})
		a.hurry(out)
		s.runNext(a, out)
	default:
		panic(fmt.Sprintf("core: control kind %d", in.Kind))
	}
}

func (s *Shard) describe(a *Activation) nola.ActorInfo {
	info := nola.ActorInfo{
		Ref: a.ref, Shard: s.id, Exists: a.exists, Created: a.meta.Created, Active: a.Shell != nil && !a.fresh,
		Mailbox: a.queue.n + a.casts.n, Backlog: int(a.tail - a.head),
		Turns: a.turns, Steps: a.steps, MemoryBytes: a.bytes, LastUsed: a.used,
	}
	if a.running && a.turn.Call != nil {
		info.Mailbox++
	}
	return info
}

// obey carries out an order whose turn has come. It reports whether the actor
// may go on with the next.
func (s *Shard) obey(a *Activation, c *Call, out *Output) bool {
	in := c.control
	switch in.Kind {
	case Passivate:
		if a.queue.n > 0 || a.head < a.tail {
			s.refuse(&in.Ticket, nola.Errorf(nola.ReasonUnavailable, "%s has work waiting and stays in memory", a.ref), out)
			return true
		}
		in.Info.Active = a.Shell != nil && !a.fresh
		s.park(&in.Ticket, a.dep, out)
		s.passivate(a, "asked", out)
		return false
	default:
		a.running, a.order = true, in // no turn may start until its names are known
		s.ask(out, Load{Kind: LoadOwned, Ref: a.ref, Limit: nola.TimersMax + nola.RemindersMax, act: a, call: c})
		return false
	}
}

// loadedOwned deletes an actor, now that all it owns in the due index is known.
func (s *Shard) loadedOwned(l *Load, out *Output) {
	a, in := l.act, l.call.control
	if s.acts[a.ref] != a || s.fenced != nil {
		return
	}
	a.running, a.order = false, nil
	if l.Err != nil {
		s.refuse(&in.Ticket, nola.Errorf(nola.ReasonUnavailable, "cannot read what %s owns from the store: %v", a.ref, l.Err), out)
		s.runNext(a, out)
		return
	}
	before := s.open().batch.Bytes()
	b := &s.open().batch
	drop := func(row persistence.DueRow) {
		b.DeleteDue(row.Due, row.Target, row.Kind, row.Name)
		s.forgetDue(row)
	}
	names := make(map[string]bool)
	for name, t := range a.timers {
		names[name] = true
		if !t.due.IsZero() {
			drop(persistence.DueRow{Due: t.due, Target: a.ref, Kind: persistence.DueTimer, Name: name})
		}
	}
	for _, t := range l.Timers {
		if !names[t.Name] {
			drop(persistence.DueRow{Due: t.Due, Target: a.ref, Kind: persistence.DueTimer, Name: t.Name})
		}
	}
	found := a.exists || len(l.Timers) > 0
	s.dropDeferred(a, l.Deferred, out)
	for _, rows := range [][]persistence.ScheduleRow{l.Rows, l.Reminders} {
		for i := range rows {
			found = true
			s.dropSchedule(&rows[i], out)
		}
	}
	// Those in memory that the store does not have yet.
	for ref, sc := range s.schedules {
		if ref.Target == a.ref && !sc.loading && sc.exists {
			found = true
			s.dropSchedule(&sc.row, out)
		}
	}
	if !found {
		s.refuse(&in.Ticket, nola.Errorf(nola.ReasonActorNotFound, "actor %s does not exist", a.ref), out)
		s.runNext(a, out)
		return
	}
	b.DeleteActor(a.ref)
	s.touched(a)
	a.deleting = s.openSeq()
	s.park(&in.Ticket, a.deleting, out)
	s.folded(before)
	s.dropDueCalls(a)
}

// dropDueCalls takes timers and firings out of the mailbox of a deleted actor.
func (s *Shard) dropDueCalls(a *Activation) {
	var keep callList
	for c := a.queue.pop(); c != nil; c = a.queue.pop() {
		timer := c.origin == fromDue && c.due.Kind == persistence.DueTimer
		if !timer && c.origin != fromSchedule {
			keep.push(c)
		} else {
			s.land(c)
		}
	}
	a.queue = keep
	a.firing = nil
}

// deleted begins anew: the actor's rows are gone, and its next turn starts with
// a fresh instance.
func (s *Shard) deleted(a *Activation) {
	a.deleting = 0
	a.exists, a.meta = false, persistence.Meta{}
	a.cells, a.cellBytes, a.timers, a.timersCounted = nil, 0, nil, false
	a.reminders, a.deferred, a.deferredCounted = nil, nil, false
	a.memory = nil
	a.fresh = true
}
