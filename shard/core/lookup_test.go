package core_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// TestKeyIsReadWithItsActor brings calls with session keys to an actor that is not in
// memory: the key of the first one is asked for while the actor is. In whichever order
// the two come, and also if the key cannot be read yet, new calls run in their order,
// one that was executed before is answered as it was then, and one whose caller has left
// does nothing.
func TestKeyIsReadWithItsActor(t *testing.T) {
	const fresh, next, known, left = "fresh", "next", "known", "left"
	for _, order := range [][]string{
		{fresh, next, known, left}, {known, fresh, left, next}, {left, fresh, next, known}, {fresh, known, left, next},
	} {
		for _, first := range []core.LoadKind{core.LoadActor, core.LoadKey} {
			for _, failed := range []bool{false, true} {
				t.Run(fmt.Sprint(order, " load ", first, " first, failed ", failed), func(t *testing.T) {
					l := newLeaver(t)
					l.step(&core.Tick{}) // the start of the due index is read: nothing is there
					calls := map[string]*core.Call{}
					for n, name := range order {
						c := l.call("a")
						c.Inv.Key = nola.Key{Session: nola.SessionID{1}, Seq: uint64(n + 1), FirstAttempt: l.now}
						calls[name] = c
						l.s.Step(l.now, c, &l.out)
					}
					l.s.Step(l.now, &core.Cancel{Call: calls[left], Err: nola.Errorf(nola.ReasonCanceled, "gone")}, &l.out)
					if kinds := len(l.out.Loads); kinds != 2 || l.out.Loads[0].Kind == l.out.Loads[1].Kind {
						t.Fatalf("%d loads at once, want the actor's and that of the first key", kinds)
					}
					if l.out.Loads[0].Kind != first {
						slices.Reverse(l.out.Loads)
					}
					for n := 0; len(l.out.Loads) > 0; n++ {
						load := l.out.Loads[0]
						l.out.Loads = l.out.Loads[1:]
						switch {
						case load.Kind != core.LoadKey:
						case failed && n < 2 && first == core.LoadKey:
							load.Err = errors.New("not yet")
						case load.Key.Seq == calls[known].Inv.Key.Seq:
							load.Found = true
							load.Record = persistence.OutcomeRecord{Target: load.Ref, State: persistence.StateSucceeded, Seq: load.Key.Seq, Reply: []byte("then"), Time: l.now}
						}
						l.s.Step(l.now, load, &l.out)
					}
					for _, name := range []string{fresh, next} {
						turn := l.turn()
						if turn.Call != calls[name] {
							t.Errorf("the turn of another call begins, want that of %s", name)
						}
						l.step(turn)
						l.commit()
						if c := calls[name]; !l.answered(&c.Ticket) || c.Err != nil {
							t.Errorf("%s: %v", name, c.Err)
						}
					}
					if len(l.out.Turns) != 0 {
						t.Errorf("%d more turns begin", len(l.out.Turns))
					}
					if c := calls[known]; !l.answered(&c.Ticket) || c.Err != nil || !c.Result.Replayed || string(c.Result.Payload) != "then" {
						t.Errorf("the call that was executed before: %+v, %v", c.Result, c.Err)
					}
				})
			}
		}
	}
}
