package core_test

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// ask makes a schedule operation whose answer is durable.
func (l *leaver) ask(op *core.ScheduleOp) nola.ScheduleInfo {
	l.t.Helper()
	op.Ref = nola.ScheduleRef{Target: nola.ActorRef{Namespace: "default", Type: "t", ID: "a"}, ID: "s"}
	l.step(op)
	l.commit()
	if op.Err != nil {
		l.t.Fatal(op.Err)
	}
	return op.Info
}

// hourly makes a schedule of every hour, and answers its first time. A turn of
// another actor keeps it in memory.
func (l *leaver) hourly() time.Time {
	l.t.Helper()
	l.step(&core.Tick{})
	l.step(l.call("keeper"))
	l.step(core.PinSchedule(l.turn(), nola.ScheduleRef{Target: nola.ActorRef{Namespace: "default", Type: "t", ID: "a"}, ID: "s"}))
	return l.ask(&core.ScheduleOp{Kind: core.CreateSchedule, Schedule: nola.Schedule{
		Namespace: "default", ID: "s", Incarnation: 1, Operation: "tick", Target: nola.ActorRef{Namespace: "default", Type: "t", ID: "a"},
		Spec: nola.Spec{Interval: []nola.Interval{{Every: time.Hour}}},
	}}).Next[0]
}

// at ticks at a time, until nothing more comes of it.
func (l *leaver) at(now time.Time) {
	l.now = now
	for range 3 {
		l.step(&core.Tick{})
		l.commit()
	}
}

// TestRefusedFiringIsTriedAgain has the turn of a firing end with a refusal that
// may pass: that is no outcome. The attempt is durable, the next one follows, and
// the nominal time has one outcome in the end.
func TestRefusedFiringIsTriedAgain(t *testing.T) {
	for _, refusal := range []nola.Reason{nola.ReasonMailboxFull, nola.ReasonModuleNotFound, nola.ReasonGuestTrap} {
		t.Run(string(refusal), func(t *testing.T) {
			l := newLeaver(t)
			n := l.hourly()
			l.at(n)
			turn := l.turn()
			turn.Err = &nola.Error{Reason: refusal, Message: "as planned"}
			l.step(turn)
			durable := false
			for b := l.s.TakeBatch(); b != nil; b = l.s.TakeBatch() {
				for _, op := range b.Ops() {
					durable = durable || op.Table == persistence.TableProgress
					if op.Table == persistence.TableOccurrence {
						t.Errorf("the refusal is an outcome: %+v", op)
					}
				}
				l.step(&core.Committed{})
			}
			if !durable {
				t.Error("the attempt is not durable")
			}
			l.at(n.Add(time.Minute))
			turn = l.turn()
			if c := turn.Call.Inv; !c.Caller.Nominal.Equal(n) || c.Attempt != 1 {
				t.Fatalf("the next turn is attempt %d of %s", c.Attempt, c.Caller.Nominal)
			}
			l.step(turn)
			l.commit()
			p := l.ask(&core.ScheduleOp{Kind: core.GetSchedule}).Progress
			if c := p.Counters[nola.OutcomeFired]; len(p.Counters) != 1 || c.Count != 1 || len(p.Running) != 0 {
				t.Errorf("counters %+v, running %+v, want one that fired", p.Counters, p.Running)
			}
		})
	}
}

// TestDeletedScheduleLeavesTheMailbox deletes a schedule whose firing waits behind
// a call: no turn begins for it. One that runs leaves nothing.
func TestDeletedScheduleLeavesTheMailbox(t *testing.T) {
	t.Run("waits", func(t *testing.T) {
		l := newLeaver(t)
		n := l.hourly()
		l.step(l.call("a"))
		first := l.turn()
		l.at(n)
		l.ask(&core.ScheduleOp{Kind: core.DeleteSchedule})
		l.step(first)
		l.commit()
		l.at(n.Add(time.Minute))
		if len(l.out.Turns) > 0 {
			t.Errorf("a turn begins for %+v", l.out.Turns[0].Call.Inv)
		}
	})
	t.Run("runs", func(t *testing.T) {
		l := newLeaver(t)
		n := l.hourly()
		l.at(n)
		turn := l.turn()
		l.ask(&core.ScheduleOp{Kind: core.DeleteSchedule})
		turn.Effects.Writes = []nola.Write{{Key: "k", Value: []byte("v")}}
		l.step(turn)
		for b := l.s.TakeBatch(); b != nil; b = l.s.TakeBatch() {
			for _, op := range b.Ops() {
				t.Errorf("after the delete it commits %+v", op)
			}
			l.step(&core.Committed{})
		}
	})
}

// TestRefusedUpdateChangesNothing: what comes beside a faulty spec is not taken.
func TestRefusedUpdateChangesNothing(t *testing.T) {
	l := newLeaver(t)
	l.hourly()
	before := l.ask(&core.ScheduleOp{Kind: core.GetSchedule})
	paused, spec := true, nola.Spec{Cron: []nola.Cron{{Expression: "99 * * * *"}}}
	op := &core.ScheduleOp{
		Kind: core.UpdateSchedule, Ref: nola.ScheduleRef{Target: before.Schedule.Target, ID: "s"},
		Change: nola.ScheduleChange{Spec: &spec, Paused: &paused, Policy: &nola.Policy{Overlap: nola.OverlapAllowAll}},
	}
	l.step(op)
	if op.Err == nil || !l.answered(&op.Ticket) {
		t.Errorf("answered at once %v with %v", l.answered(&op.Ticket), op.Err)
	}
	if l.s.TakeBatch() != nil {
		t.Error("the refusal commits something")
	}
	after := l.ask(&core.ScheduleOp{Kind: core.GetSchedule})
	if s := after.Schedule; s.Paused || s.Policy.Overlap != before.Schedule.Policy.Overlap || s.ETag != before.Schedule.ETag || len(s.Spec.Interval) != 1 || !after.Next[0].Equal(before.Next[0]) {
		t.Errorf("it became %+v", after)
	}
}

// TestFiringThatIsAlwaysRefused: when no attempt is left, the refusal is the one
// outcome.
func TestFiringThatIsAlwaysRefused(t *testing.T) {
	l := newLeaver(t)
	n := l.hourly()
	l.at(n)
	attempts := 0
	for ; len(l.out.Turns) > 0 && attempts < 100; attempts++ {
		turn := l.turn()
		turn.Err = &nola.Error{Reason: nola.ReasonMailboxFull, Message: "as planned"}
		l.step(turn)
		l.commit()
		l.at(l.now.Add(time.Minute))
	}
	p := l.ask(&core.ScheduleOp{Kind: core.GetSchedule}).Progress
	if attempts < 2 || len(p.Running) != 0 || len(p.Counters) != 1 || p.Counters[nola.OutcomeFired].Count != 1 {
		t.Errorf("after %d attempts: running %+v, counters %+v", attempts, p.Running, p.Counters)
	}
}
