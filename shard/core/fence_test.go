package core_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// TestFencedTwice closes a shard that had been fenced before: who was told that
// the outcome is unknown must not be told anything else, nor be told again.
func TestFencedTwice(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{})
	var out core.Output
	call := &core.Call{Inv: &nola.Invocation{
		ID: nola.MakeInvocationID(now, [10]byte{1}), Kind: nola.KindCall, Deadline: now.Add(time.Minute),
		Target: nola.ActorRef{Namespace: "default", Type: "t", ID: "a"}, Operation: "put",
	}}
	s.Step(now, call, &out)
	for len(out.Loads) > 0 {
		l := out.Loads[0]
		out.Loads = out.Loads[1:]
		s.Step(now, l, &out)
	}
	if len(out.Turns) != 1 {
		t.Fatalf("%d turns begin, want one", len(out.Turns))
	}
	turn := out.Turns[0]
	turn.Effects.Writes = []nola.Write{{Key: "k", Value: []byte("v")}}
	out.Reset()
	s.Step(now, turn, &out)
	if s.TakeBatch() == nil {
		t.Fatal("there is nothing to commit")
	}
	out.Reset()
	s.Step(now, &core.Fenced{Unknown: true}, &out)
	if len(out.Answers) != 1 || !errors.Is(call.Err, &nola.Error{Reason: nola.ReasonOutcomeUnknown}) {
		t.Fatalf("%d are answered, the call with %v", len(out.Answers), call.Err)
	}
	told := call.Err
	out.Reset()
	s.Step(now, &core.Fenced{}, &out)
	if len(out.Answers) != 0 || call.Err != told {
		t.Errorf("fenced again, %d are answered, the call with %v", len(out.Answers), call.Err)
	}
}
