package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// TestUsageIsWhatTurnsCost calls actors of several types at once, asleep and awake,
// and compares the sums with what each turn said that it took.
func TestUsageIsWhatTurnsCost(t *testing.T) {
	m := smallGuest(t)
	var mu sync.Mutex
	want := map[nola.ActorRef]nola.Usage{}
	w := newWorld(t, 16, func(w *world) {
		w.current = m
		w.cfg.Events.Turn = func(_ nola.Kind, ref nola.ActorRef, _ time.Duration, steps uint64, _ error) {
			mu.Lock()
			defer mu.Unlock()
			for _, key := range []nola.ActorRef{ref, {Namespace: ref.Namespace, Type: ref.Type}} {
				u := want[key]
				u.Ref, u.Turns, u.Steps = key, u.Turns+1, u.Steps+steps
				want[key] = u
			}
		}
	})
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for n := range 200 {
				to := nola.ActorRef{Namespace: fmt.Sprint("n", n%2), Type: fmt.Sprint("t", n%3), ID: fmt.Sprint(c, n%7)}
				op := []string{"inc", "echo", "nope"}[n%3]
				_, _ = w.m.Invoke(context.Background(), &nola.Invocation{Target: to, Operation: op})
				if n%11 == 0 {
					if _, err := w.m.PassivateActor(context.Background(), to); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	for name, got := range map[string][]nola.Usage{"type": w.m.TypeUsage(), "actor": w.m.ActorUsage()} {
		if !slices.IsSortedFunc(got, func(a, b nola.Usage) int {
			return cmp.Or(cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Type, b.Ref.Type), cmp.Compare(a.Ref.ID, b.Ref.ID))
		}) {
			t.Errorf("by %s it is not in order", name)
		}
		for _, u := range got {
			if u.RunTime <= 0 || u.RunTime > time.Hour {
				t.Errorf("%v ran for %s", u.Ref, u.RunTime)
			}
			u.RunTime = 0
			if u != want[u.Ref] {
				t.Errorf("got %+v, want %+v", u, want[u.Ref])
			}
			delete(want, u.Ref)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing are %v", want)
	}
}

// TestUsageLeavesNestedCallsOut has a turn call another actor that is busy for a
// while: that time is the other one's alone, so that all turns took no longer
// together than it took to call.
func TestUsageLeavesNestedCallsOut(t *testing.T) {
	for _, inner := range []string{"b", "elsewhere"} {
		w := newWorld(t, 16)
		began := time.Now()
		w.must("a", "call", inner+"|busy|20000")
		took := time.Since(began)
		var sum time.Duration
		list := w.m.ActorUsage()
		for _, u := range list {
			sum += u.RunTime
		}
		if len(list) != 2 || sum > took {
			t.Errorf("the turns took %s together, the call %s: %+v", sum, took, list)
		}
	}
}
