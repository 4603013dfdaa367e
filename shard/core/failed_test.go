package core_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// failed ends a turn that did everything and failed, whatever its owner hands in of
// what it did.
func failed(l *leaver, turn *core.Turn, reason nola.Reason) {
	turn.Err = &nola.Error{Reason: reason, Message: "as planned"}
	turn.Effects = nola.Effects{
		Reply:  []byte("reply"),
		Writes: []nola.Write{{Key: "k", Value: []byte("v")}},
		Casts: []*nola.Invocation{{
			ID: nola.MakeInvocationID(l.now, [10]byte{99}), Kind: nola.KindCast, Operation: "inc",
			Target: nola.ActorRef{Namespace: "default", Type: "t", ID: "other"},
		}},
		Timers:   []nola.TimerChange{{Timer: nola.Timer{Name: "f", Operation: "inc", Due: l.now.Add(time.Hour)}}},
		Deferral: &nola.Deferral{Token: nola.Token{1}, Deadline: l.now.Add(time.Hour)},
	}
	l.step(turn)
}

// TestFailedTurnCommitsNothing: the core drops the effects of a turn that failed,
// of every kind and from wherever it came, also if its owner hands them in. What it
// commits is the outcome at most, and the place among what waits.
func TestFailedTurnCommitsNothing(t *testing.T) {
	bookkeeping := map[persistence.Table]bool{
		persistence.TableOutcome: true, persistence.TableUserKey: true, persistence.TableSession: true,
		persistence.TableBacklog: true, persistence.TableDue: true,
	}
	key := nola.Key{Session: nola.SessionID{7}, Seq: 1}
	for name, bring := range map[string]func(*leaver) *core.Call{
		"call":        func(l *leaver) *core.Call { return l.call("a") },
		"session key": func(l *leaver) *core.Call { return keyedCall(l, key) },
		"user key":    func(l *leaver) *core.Call { return keyedCall(l, nola.Key{User: "u"}) },
		"create":      func(l *leaver) *core.Call { c := l.call("a"); c.Inv.Create = true; return c },
		"cast":        func(l *leaver) *core.Call { c := l.call("a"); c.Inv.Kind = nola.KindCast; return c },
	} {
		for _, reason := range []nola.Reason{nola.ReasonGuestError, nola.ReasonGuestTrap, nola.ReasonDeadlineExceeded} {
			t.Run(fmt.Sprintf("%s/%s", name, reason), func(t *testing.T) {
				l := newLeaver(t)
				c := bring(l)
				l.step(c)
				failed(l, l.turn(), reason)
				for {
					b := l.s.TakeBatch()
					if b == nil {
						break
					}
					for _, op := range b.Ops() {
						if !bookkeeping[op.Table] || bytes.Contains(op.Key, []byte("other")) {
							t.Errorf("it commits %+v", op)
						}
					}
					l.step(&core.Committed{})
				}
				if !l.answered(&c.Ticket) || c.Inv.Kind == nola.KindCall && !errors.Is(c.Err, &nola.Error{Reason: reason}) {
					t.Errorf("it is answered %v", c.Err)
				}
				if c.Result.Payload != nil {
					t.Errorf("its reply %q is answered", c.Result.Payload)
				}
				// The next turn finds nothing of it.
				l.now = l.now.Add(time.Second)
				next := l.call("a")
				next.Inv.ID = nola.MakeInvocationID(l.now, [10]byte{50})
				l.step(next)
				turn := l.turn()
				if turn.Call != next {
					t.Fatalf("a turn begins for %+v, want the next call", turn.Call.Inv)
				}
				if value, found, _ := turn.Act.Lookup("k"); found {
					t.Errorf("the next turn reads %q", value)
				}
				if due, _ := turn.Act.LookupTimer("f"); !due.IsZero() {
					t.Errorf("the next turn sees a timer due at %s", due)
				}
			})
		}
	}
}

func keyedCall(l *leaver, key nola.Key) *core.Call {
	c := l.call("a")
	if !key.IsUser() {
		key.FirstAttempt = l.now
	}
	c.Inv.Key, c.Hash = key, nola.RequestHash(c.Inv.Operation, c.Inv.Payload)
	return c
}
