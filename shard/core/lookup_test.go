package core_test

import (
	"fmt"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// TestKeysAreReadWithTheirActor brings calls with keys to an actor that is not in
// memory: all that they need of the store is asked at once, and in whichever order it
// comes, a new call runs, one that was executed before is answered as it was then, and
// one whose caller has left does nothing.
func TestKeysAreReadWithTheirActor(t *testing.T) {
	orders := 0
	for order := range permutations(4) {
		orders++
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			l := newLeaver(t)
			l.step(&core.Tick{}) // the start of the due index is read: nothing is there
			keyed := func(seq uint64) *core.Call {
				c := l.call("a")
				c.Inv.Key = nola.Key{Session: nola.SessionID{1}, Seq: seq, FirstAttempt: l.now}
				l.s.Step(l.now, c, &l.out)
				return c
			}
			fresh, known, left := keyed(1), keyed(2), keyed(3)
			l.s.Step(l.now, &core.Cancel{Call: left, Err: nola.Errorf(nola.ReasonCanceled, "gone")}, &l.out)
			loads := l.out.Loads
			l.out.Loads = nil
			if len(loads) != 4 {
				t.Fatalf("%d loads at once, want those of the actor and of three keys", len(loads))
			}
			for _, n := range order {
				load := loads[n]
				if load.Kind == core.LoadKey && load.Key.Seq == 2 {
					load.Found = true
					load.Record = persistence.OutcomeRecord{Target: load.Ref, State: persistence.StateSucceeded, Seq: 2, Reply: []byte("then"), Time: l.now}
				}
				l.s.Step(l.now, load, &l.out)
			}
			if n := len(l.out.Loads); n != 0 {
				t.Errorf("%d loads more are asked for", n)
			}
			turn := l.turn()
			if turn.Call != fresh {
				t.Error("the first turn is not that of the new call")
			}
			l.step(turn)
			l.commit()
			if len(l.out.Turns) != 0 {
				t.Errorf("%d more turns begin", len(l.out.Turns))
			}
			if !l.answered(&fresh.Ticket) || fresh.Err != nil {
				t.Errorf("the new call: %v", fresh.Err)
			}
			if !l.answered(&known.Ticket) || known.Err != nil || !known.Result.Replayed || string(known.Result.Payload) != "then" {
				t.Errorf("the call that was executed before: %+v, %v", known.Result, known.Err)
			}
		})
	}
	if orders != 24 {
		t.Errorf("%d orders, want 24", orders)
	}
}

// permutations yields the orders of n things.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		var from func(k int) bool
		from = func(k int) bool {
			if k == n {
				return yield(append([]int(nil), order...))
			}
			for i := k; i < n; i++ {
				order[k], order[i] = order[i], order[k]
				more := from(k + 1)
				order[k], order[i] = order[i], order[k]
				if !more {
					return false
				}
			}
			return true
		}
		from(0)
	}
}
