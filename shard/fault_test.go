package shard_test

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
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

// TestNestedCallsStandOnWhatIsDurable fences every commit in turn of the shard where
// turns follow one another whose effects are not durable yet, and which call an
// actor of another shard: such a call has happened only if what its caller had
// seen is durable.
func TestNestedCallsStandOnWhatIsDurable(t *testing.T) {
	const shards = 16
	home, other := nola.ShardOf(ref("a"), shards), ref("c")
	beside := ref("b") // an actor of a's shard
	for i := 0; nola.ShardOf(beside, shards) != home; i++ {
		beside.ID = fmt.Sprint("b", i)
	}
	if nola.ShardOf(other, shards) == home {
		t.Fatal("a and c must live in different shards")
	}
	key := func(seq uint64) nola.Key {
		return nola.Key{Session: nola.SessionID{3}, Seq: seq, FirstAttempt: time.Now()}
	}
	type step struct {
		op, payload string
		keyed       bool
	}
	for name, tt := range map[string]struct {
		steps []step // calls to a, in this order
		turns int64  // that begin though nothing is durable
		seen  string // the actor whose effect the last step has seen
	}{
		"a turn before":                 {[]step{{"inc", "", false}, {"call", "c|inc", false}}, 2, "a"},
		"a turn before, keyed":          {[]step{{"inc", "", true}, {"call", "c|inc", true}}, 2, "a"},
		"two turns before":              {[]step{{"inc", "", true}, {"get", "", false}, {"inccall", "c|inc", true}}, 3, "a"},
		"through an actor beside":       {[]step{{"inc", "", false}, {"call", beside.ID + "|call|c|inc", false}}, 3, "a"},
		"what an actor beside has done": {[]step{{"calltwo", beside.ID + "|inc|c|inc", false}}, 2, beside.ID},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				var batches atomic.Int64
				var armed atomic.Bool
				var m *module
				var before int64
				w := newWorld(t, shards, func(w *world) {
					w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond}
					m = w.code
					w.wrap = func(s persistence.Store) persistence.Store {
						return faultstore.New(s, faultstore.Plan{
							Commit: func(_, _ int, b *persistence.Batch) faultstore.Fault {
								if armed.Load() && b.Shard == home && batches.Add(1) == int64(n) {
									return faultstore.FenceNow
								}
								return faultstore.None
							},
							Delay: func(int) {
								if armed.Load() && batches.Load() == 0 { // the first: all begin before it ends
									eventually(t, fmt.Sprintf("commit %d fenced: %d turns begin", n, tt.turns), func() bool { return m.turns.Load() >= before+tt.turns })
								}
							},
						})
					}
				})
				w.must("warm", "get", "") // from here on it is known that the guest has no STARTUP
				before = w.code.turns.Load()
				armed.Store(true)
				answered := make(chan struct{}, len(tt.steps))
				for i, s := range tt.steps {
					inv := &nola.Invocation{Target: ref("a"), Operation: s.op, Payload: []byte(s.payload)}
					if s.keyed {
						inv.Key = key(uint64(i))
					}
					if err := w.m.Begin(t.Context(), inv, func(nola.Result, error) { answered <- struct{}{} }); err != nil {
						t.Fatal(err)
					}
				}
				for range tt.steps {
					<-answered
				}
				armed.Store(false)
				w.crash()
				if called, seen := w.must("c", "get", ""), w.must(tt.seen, "get", ""); called != "" && seen == "" {
					t.Errorf("commit %d fenced: the nested call happened, and what its caller had seen of %s is lost", n, tt.seen)
				}
				w.close()
				if t.Failed() || batches.Load() < int64(n) {
					break
				}
			}
		})
	}
}
