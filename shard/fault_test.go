package shard_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
	"github.com/nolaproject/nola/shard/core"
)

// TestCrashFaultAtEveryCommit lets the n-th batch of a fixed workload go wrong,
// for every n and every fault, and checks that what was acknowledged is there,
// that nothing happened twice, and that what was called from a turn that stands
// on lost effects has not happened.
func TestCrashFaultAtEveryCommit(t *testing.T) { atEveryCommit(t, 3, faultAt) }

// atEveryCommit calls f for every fault and every batch that may go wrong, one in
// so many unless NOLA_SLOW=1, until f answers that it made fewer batches.
func atEveryCommit(t *testing.T, step int, f func(t *testing.T, fault faultstore.Fault, shards, n int) (batches int)) {
	if os.Getenv("NOLA_SLOW") != "" {
		step = 1
	}
	for _, fault := range []faultstore.Fault{faultstore.FenceNow, faultstore.ErrorBefore, faultstore.ErrorAfter} {
		for _, shards := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", fault, shards), func(t *testing.T) {
				for n := 1; ; n += step {
					if batches := f(t, fault, shards, n); t.Failed() || batches < n {
						t.Logf("last: batch %d", n)
						return
					}
				}
			})
		}
	}
}

// newFaultWorld has the n-th batch go wrong and counts them.
func newFaultWorld(t *testing.T, fault faultstore.Fault, shards, n int, batches *int) *world {
	return newWorld(t, shards, func(w *world) {
		w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond}
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{Commit: func(int, int, *persistence.Batch) faultstore.Fault {
				if *batches++; *batches == n {
					return fault
				}
				return faultstore.None
			}})
		}
	})
}

// faultAt runs the workload with one fault and answers how many batches it made.
func faultAt(t *testing.T, fault faultstore.Fault, shards, n int) (batches int) {
	w := newFaultWorld(t, fault, shards, n, &batches)
	// Each step is retried under its key until it has a definite outcome.
	seq := uint64(0)
	do := func(id, op, payload string) string {
		seq++
		key := nola.Key{Session: nola.SessionID{1}, Seq: seq, AckedBelow: seq, FirstAttempt: time.Now()}
		for {
			r, err := w.keyed(id, op, payload, key)
			switch reason(err) {
			case "":
				return string(r.Payload)
			case nola.ReasonShardMoving, nola.ReasonOutcomeUnknown, nola.ReasonUnavailable:
			default:
				t.Errorf("%s at batch %d: %s %s: %v", fault, n, id, op, err)
				return ""
			}
		}
	}
	const rounds = 6
	for i := range rounds {
		if got := do("a", "inc", ""); got != strconv.Itoa(i+1) {
			t.Errorf("%s at batch %d: increment %d answered %s", fault, n, i+1, got)
		}
		do("b", "inccall", "c|inc") // a nested call out of a turn that stands on b's own writes
		do("d", "cast", "e|append|"+strconv.Itoa(i))
	}
	w.crash()
	// The fault may come only now, and refuse a read.
	for id, want := range map[string]string{"a": "6", "b": "6", "c": "6", "e": "0 1 2 3 4 5 "} {
		key := "n"
		if id == "e" {
			key = "log"
		}
		got := ""
		eventually(t, fmt.Sprintf("%s at batch %d: %s has %q, it has %q", fault, n, id, want, got), func() bool {
			var err error
			got, err = w.invoke(id, "get", key)
			return err == nil && got == want
		})
	}
	w.close()
	return batches
}

// TestNestedCallNeverStandsOnLostEffects fences the commit of a turn while the
// next turn of its actor, which saw its effects, calls an actor of another
// shard: that call must not have happened.
func TestNestedCallNeverStandsOnLostEffects(t *testing.T) {
	release := make(chan struct{})
	armed := false
	w := newWorld(t, 16, func(w *world) {
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{
				Commit: func(_, _ int, b *persistence.Batch) faultstore.Fault {
					if armed && b.Shard == nola.ShardOf(ref("a"), 16) {
						armed = false
						return faultstore.FenceNow
					}
					return faultstore.None
				},
				Delay: func(int) {
					if armed {
						<-release
					}
				},
			})
		}
	})
	if nola.ShardOf(ref("a"), 16) == nola.ShardOf(ref("c"), 16) {
		t.Fatal("a and c must live in different shards")
	}
	w.must("warm", "get", "") // from here on it is known that the guest has no STARTUP
	before := w.code.turns.Load()
	armed = true
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := w.invoke("a", "inc", ""); first <- err }()
	eventually(t, "the first turn has run", func() bool { return w.code.turns.Load() >= before+1 })
	go func() { _, err := w.invoke("a", "call", "c|inc"); second <- err }()
	eventually(t, "the second turn runs", func() bool { return w.code.turns.Load() >= before+2 })
	close(release)
	for _, c := range []chan error{first, second} {
		if err := <-c; reason(err) != nola.ReasonShardMoving {
			t.Errorf("%v, want SHARD_MOVING", err)
		}
	}
	if got := w.must("c", "get", ""); got != "" {
		t.Errorf("c counts %q: the nested call happened though what it stood on was lost", got)
	}
}
