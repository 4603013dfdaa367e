package core_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// leaver is a shard whose loads find nothing and are filled at once.
type leaver struct {
	t   *testing.T
	s   *core.Shard
	now time.Time
	out core.Output
}

func newLeaver(t *testing.T) *leaver {
	l := &leaver{t: t, s: core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{})}
	l.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return l
}

func (l *leaver) step(in core.Input) {
	l.s.Step(l.now, in, &l.out)
	for len(l.out.Loads) > 0 {
		load := l.out.Loads[0]
		l.out.Loads = l.out.Loads[1:]
		l.s.Step(l.now, load, &l.out)
	}
}

func (l *leaver) call(id string) *core.Call {
	c := &core.Call{Inv: &nola.Invocation{
		ID: nola.MakeInvocationID(l.now, [10]byte{id[0]}), Kind: nola.KindCall, Deadline: l.now.Add(time.Minute),
		Target: nola.ActorRef{Namespace: "default", Type: "t", ID: id}, Operation: "put",
	}}
	return c
}

func (l *leaver) turn() *core.Turn {
	l.t.Helper()
	if len(l.out.Turns) == 0 {
		l.t.Fatal("no turn begins")
	}
	turn := l.out.Turns[0]
	l.out.Turns = l.out.Turns[1:]
	return turn
}

func (l *leaver) answered(t *core.Ticket) bool { return slices.Contains(l.out.Answers, t) }

// A shard that leaves ends what it has, and takes nothing new in.
func TestLeave(t *testing.T) {
	moving := &nola.Error{Reason: nola.ReasonShardMoving}
	l := newLeaver(t)
	first, second := l.call("a"), l.call("a")
	l.step(first)
	l.step(second)
	running := l.turn()
	leave := &core.Leave{}
	l.step(leave)
	if l.answered(&leave.Ticket) {
		t.Fatal("it leaves while a turn runs")
	}
	late := l.call("b")
	l.step(late)
	if !l.answered(&late.Ticket) || !errors.Is(late.Err, moving) {
		t.Fatalf("a call after it answered %v", late.Err)
	}
	for name, in := range map[string]core.Input{
		"control": &core.Control{Kind: core.Describe, Ref: late.Inv.Target}, "order": &core.Order{Kind: core.CancelTimer, Ref: late.Inv.Target},
		"schedule": &core.ScheduleOp{Kind: core.GetSchedule, Ref: nola.ScheduleRef{Target: late.Inv.Target, ID: "s"}},
		"delivery": &core.Delivery{From: 7},
	} {
		before := len(l.out.Answers)
		l.step(in)
		if len(l.out.Answers) != before+1 || !errors.Is(l.out.Answers[before].Err, moving) {
			t.Errorf("%s: not refused", name)
		}
	}
	nested := l.call("c") // by the turn that runs
	nested.Early, nested.By = true, running
	l.step(nested)
	inner := l.turn()
	l.step(inner)
	if !l.answered(&nested.Ticket) || nested.Err != nil {
		t.Fatalf("a call of a turn that runs answered %v", nested.Err)
	}
	running.Effects.Writes = []nola.Write{{Key: "k", Value: []byte("v")}}
	l.step(running)
	l.step(l.turn()) // of what had been admitted
	if l.answered(&leave.Ticket) {
		t.Fatal("it leaves before everything is durable")
	}
	if wake := l.s.Wake(); !wake.IsZero() {
		t.Errorf("it wants to be woken at %s", wake)
	}
	if l.s.TakeBatch() == nil {
		t.Fatal("there is nothing to commit")
	}
	l.step(&core.Committed{})
	for i, c := range []*core.Call{first, second} {
		if !l.answered(&c.Ticket) || c.Err != nil {
			t.Errorf("admitted call %d answered %v", i, c.Err)
		}
	}
	if !l.answered(&leave.Ticket) {
		t.Error("nothing is left to do, and it does not leave")
	}
	if first.Unwritten || !second.Unwritten {
		t.Errorf("unwritten: %v of a call that wrote, %v of one that did not", first.Unwritten, second.Unwritten)
	}
}

// A shard that leaves starts nothing of what waits in the store.
func TestLeaveStartsNothing(t *testing.T) {
	l := newLeaver(t)
	cast := l.call("a")
	cast.Inv.Kind = nola.KindCast
	l.step(cast) // its turn begins, with the cast committed or not
	turn := l.turn()
	again := l.call("a")
	again.Inv.Kind, again.Inv.ID = nola.KindCast, nola.MakeInvocationID(l.now, [10]byte{9})
	l.step(again)
	leave := &core.Leave{}
	l.step(leave)
	l.step(turn)
	for l.s.TakeBatch() != nil {
		l.step(&core.Committed{})
	}
	if len(l.out.Turns) != 0 {
		t.Error("a cast of the backlog begins")
	}
	if !l.answered(&leave.Ticket) {
		t.Error("it waits for a cast of the backlog")
	}
}

func TestVacantRefuses(t *testing.T) {
	l := newLeaver(t)
	l.s = core.Vacant(3, 8, core.Limits{})
	c := l.call("a")
	l.step(c)
	if !l.answered(&c.Ticket) || !errors.Is(c.Err, &nola.Error{Reason: nola.ReasonShardMoving}) {
		t.Errorf("answered %v", c.Err)
	}
	if !l.s.Wake().IsZero() || l.s.TakeBatch() != nil {
		t.Error("it wants something")
	}
	leave := &core.Leave{}
	if l.step(leave); !l.answered(&leave.Ticket) {
		t.Error("it does not leave")
	}
}
