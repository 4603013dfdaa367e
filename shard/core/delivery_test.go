package core_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// TestDeliveryHoldsItsTargets: what a delivery needs is read once each, however long
// the other reads take, and is not put out of memory meanwhile.
func TestDeliveryHoldsItsTargets(t *testing.T) {
	for name, used := range map[string]bool{"never used": false, "idle": true} {
		t.Run(name, func(t *testing.T) {
			var slow *core.Load
			reads := map[string]int{}
			d := newDesk(t, core.Limits{}, func(l *core.Load) bool {
				if l.Kind != core.LoadActor {
					return true
				}
				if reads[l.Ref.ID]++; l.Ref.ID == "slow" {
					slow = l
					return false
				}
				return true
			})
			ref := func(id string) nola.ActorRef { return nola.ActorRef{Namespace: "default", Type: "t", ID: id} }
			cast := func(id string) *nola.Invocation {
				return &nola.Invocation{ID: nola.MakeInvocationID(d.now, [10]byte{id[0]}), Kind: nola.KindCast, Target: ref(id), Operation: "put"}
			}
			end := func() {
				for len(d.out.Turns) > 0 {
					turn := d.out.Turns[0]
					turn.Act.Shell = struct{}{}
					d.step(turn)
				}
				for d.s.TakeBatch() != nil {
					d.step(&core.Committed{})
				}
			}
			if used {
				c := cast("a")
				c.Kind, c.Deadline = nola.KindCall, d.now.Add(time.Minute)
				d.step(&core.Call{Inv: c})
				end()
			}
			in := &core.Delivery{From: 7, Epoch: 1, Rows: []persistence.OutboxRow{{Number: 1, Invocation: cast("a")}, {Number: 2, Invocation: cast("slow")}}}
			d.step(in)
			d.now = d.now.Add(time.Hour)
			d.step(&core.Tick{})
			if len(d.out.Ends) > 0 {
				t.Error("an actor is told to end while a delivery waits for it")
			}
			d.step(slow)
			if len(d.out.Turns) == 0 {
				t.Fatal("the casts do not run")
			}
			end()
			if reads["a"] != 1 || reads["slow"] != 1 {
				t.Errorf("the actors were read %v times", reads)
			}
			if !slices.Equal(in.Taken, []bool{true, true}) {
				t.Errorf("taken: %v", in.Taken)
			}
		})
	}
}
