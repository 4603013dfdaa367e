package shard_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
)

// deferred waits until the actor has deferred and answers the token that it
// wrote down.
func (w *world) deferred(id string) string {
	w.t.Helper()
	token := ""
	eventually(w.t, id+" has deferred", func() bool {
		token = w.must(id, "get", "token")
		return token != ""
	})
	return token
}

func (w *world) complete(id, token, payload string) error {
	w.t.Helper()
	tok, err := nola.ParseToken(token)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.m.CompleteInvocation(context.Background(), ref(id), nola.Completion{Token: tok, Payload: []byte(payload)})
	return err
}

type answer struct {
	result nola.Result
	err    error
}

// ask makes a call on another goroutine.
func (w *world) ask(inv *nola.Invocation) <-chan answer {
	c, m := make(chan answer, 1), w.m // the one of now
	go func() {
		r, err := m.Invoke(context.Background(), inv)
		c <- answer{r, err}
	}()
	return c
}

func deferCall(id, millis string) *nola.Invocation {
	return &nola.Invocation{Target: ref(id), Operation: "defer", Payload: []byte(millis)}
}

func TestDeferredCallIsAnsweredOnce(t *testing.T) {
	for name, complete := range map[string]func(w *world, token string) bool{
		"by a later turn": func(w *world, token string) bool { return w.must("a", "complete", token+"|done") == "true" },
		"by the API":      func(w *world, token string) bool { return w.complete("a", token, "done") == nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			inv := deferCall("a", "")
			inv.ID = nola.MakeInvocationID(time.Now(), [10]byte{1})
			call := w.ask(inv)
			token := w.deferred("a")
			select {
			case a := <-call:
				t.Fatalf("answered %q, %v before anybody replied", a.result.Payload, a.err)
			default:
			}
			if info, err := w.m.GetInvocation(context.Background(), ref("a"), inv.ID, nola.Key{}); err != nil || info.State != nola.InvocationPending {
				t.Errorf("the deferred invocation is in state %d, %v, want pending", info.State, err)
			}
			if complete(w, nola.Token{1}.String()) {
				t.Error("a wrong token answers something")
			}
			if !complete(w, token) {
				t.Fatal("the token is not known")
			}
			if a := <-call; a.err != nil || string(a.result.Payload) != "done" || a.result.ID != inv.ID {
				t.Errorf("the caller got %q, %v, want done", a.result.Payload, a.err)
			}
			if complete(w, token) {
				t.Error("the token answers a second time")
			}
			if got := w.must("a", "complete", token+"|again"); got != "false" {
				t.Errorf("a second reply found the token: %s", got)
			}
			if info, err := w.m.GetInvocation(context.Background(), ref("a"), inv.ID, nola.Key{}); err != nil || info.State != nola.InvocationSucceeded || string(info.Payload) != "done" {
				t.Errorf("afterwards it is in state %d with %q, %v", info.State, info.Payload, err)
			}
			if got := w.must("a", "get", ""); got != "1" {
				t.Errorf("the deferring turn ran %s times", got)
			}
		})
	}
}

func TestDeferredCallFailsWithTheText(t *testing.T) {
	w := newWorld(t, 4)
	call := w.ask(deferCall("a", ""))
	if got := w.must("a", "complete", w.deferred("a")+"||out of stock"); got != "true" {
		t.Fatal(got)
	}
	if a := <-call; reason(a.err) != nola.ReasonGuestError || a.err.Error() != "out of stock" {
		t.Errorf("the caller got %v", a.err)
	}
}

// TestDeferredCallDiesWithItsDeadline has a deferral time out, and looks whether
// the token is dead then, and what the turn did stands.
func TestDeferredCallDiesWithItsDeadline(t *testing.T) {
	w := newWorld(t, 4)
	key := nola.Key{User: "k"}
	inv := deferCall("a", "60")
	inv.Key = key
	a := <-w.ask(inv)
	if reason(a.err) != nola.ReasonDeadlineExceeded {
		t.Fatalf("the caller got %q, %v, want DEADLINE_EXCEEDED", a.result.Payload, a.err)
	}
	token := w.must("a", "get", "token")
	if err := w.complete("a", token, "late"); reason(err) != nola.ReasonInvocationNotFound {
		t.Errorf("a dead token answers %v, want INVOCATION_NOT_FOUND", err)
	}
	again := deferCall("a", "60")
	again.Key = key
	if a := <-w.ask(again); reason(a.err) != nola.ReasonDeadlineExceeded || !a.result.Replayed {
		t.Errorf("a retry got %v, replayed %t; what the turn did stands, so it must not run again", a.err, a.result.Replayed)
	}
	if got := w.must("a", "get", ""); got != "1" {
		t.Errorf("the turn's effects count %s", got)
	}
}

// TestDeferredCallSurvivesACrash ends the node while a keyed call is deferred:
// the retry waits with the first, and one completion answers it.
func TestDeferredCallSurvivesACrash(t *testing.T) {
	for name, key := range map[string]nola.Key{
		"session": {Session: nola.SessionID{1}, Seq: 1, AckedBelow: 1, FirstAttempt: time.Now()},
		"user":    {User: "order-1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			call := func() *nola.Invocation {
				inv := deferCall("a", "")
				inv.Key = key
				return inv
			}
			first := w.ask(call())
			token := w.deferred("a")
			second := w.ask(call())
			w.crash()
			for _, c := range []<-chan answer{first, second} {
				if a := <-c; a.err == nil {
					t.Errorf("a caller got %q though nobody replied", a.result.Payload)
				}
			}
			third := w.ask(call())
			eventually(t, "the retry has arrived", func() bool {
				n := 0
				for _, s := range w.m.Shards() {
					n += s.Unanswered
				}
				return n > 0
			})
			for range 20 { // and more than enough has happened for its key to be known
				w.must("a", "get", "")
			}
			if info, err := w.m.GetInvocation(context.Background(), ref("a"), nola.InvocationID{}, key); err != nil || info.State != nola.InvocationPending {
				t.Errorf("by its key it is in state %d, %v, want pending", info.State, err)
			}
			if err := w.complete("a", token, "done"); err != nil {
				t.Fatal(err)
			}
			if a := <-third; a.err != nil || string(a.result.Payload) != "done" {
				t.Errorf("the retry got %q, %v", a.result.Payload, a.err)
			}
			if a := <-w.ask(call()); a.err != nil || string(a.result.Payload) != "done" || !a.result.Replayed {
				t.Errorf("a later retry got %q, %v, replayed %t", a.result.Payload, a.err, a.result.Replayed)
			}
			if got := w.must("a", "get", ""); got != "1" {
				t.Errorf("the deferring turn ran %s times", got)
			}
		})
	}
}

// TestDeferredCallOfAFencedShardMayHaveHappened ends the tenure of the shard while
// a call without a key is deferred: its turn is durable, so the answer must not
// be that it was never executed.
func TestDeferredCallOfAFencedShardMayHaveHappened(t *testing.T) {
	var armed atomic.Bool
	w := newWorld(t, 1, func(w *world) {
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{Commit: func(int, int, *persistence.Batch) faultstore.Fault {
				if armed.CompareAndSwap(true, false) {
					return faultstore.FenceNow
				}
				return faultstore.None
			}})
		}
	})
	call := w.ask(deferCall("a", ""))
	token := w.deferred("a")
	armed.Store(true)
	if _, err := w.invoke("b", "inc", ""); reason(err) != nola.ReasonShardMoving {
		t.Fatalf("the fenced commit: %v", err)
	}
	if a := <-call; reason(a.err) != nola.ReasonOutcomeUnknown {
		t.Errorf("the deferred call got %q, %v, want OUTCOME_UNKNOWN", a.result.Payload, a.err)
	}
	eventually(t, "the token is good in the next tenure", func() bool { return w.complete("a", token, "done") == nil })
}

func TestDeferredNestedCallHoldsItsCaller(t *testing.T) {
	for _, shards := range []int{1, 16} {
		w := newWorld(t, shards)
		call := w.ask(&nola.Invocation{Target: ref("outer"), Operation: "inccall", Payload: []byte("inner|defer|")})
		if err := w.complete("inner", w.deferred("inner"), "from outside"); err != nil {
			t.Fatal(err)
		}
		if a := <-call; a.err != nil || string(a.result.Payload) != "from outside" {
			t.Errorf("%d shards: the outer call got %q, %v", shards, a.result.Payload, a.err)
		}
		if got := w.must("outer", "get", ""); got != "1" {
			t.Errorf("%d shards: the outer turn ran %s times", shards, got)
		}
	}
}

// TestDeferredFiringRunsUntilCompleted looks at a schedule whose run is
// deferred: it stays running over crashes, its overlap policy skips what comes
// meanwhile, and the completion ends the occurrence.
func TestDeferredFiringRunsUntilCompleted(t *testing.T) {
	w := newWorld(t, 4)
	sched := nola.ScheduleRef{Target: ref("job"), ID: "s"}
	_, err := w.m.CreateSchedule(context.Background(), nola.Schedule{
		Namespace: "default", ID: "s", Incarnation: 1, Target: sched.Target, Operation: "defer",
		Spec: nola.Spec{At: []time.Time{time.Now().Add(-time.Hour)}},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.TriggerSchedule(context.Background(), sched, "r1", 0, nil); err != nil {
		t.Fatal(err)
	}
	token := w.deferred("job")
	for round := range 2 {
		info, err := w.m.GetSchedule(context.Background(), sched)
		if err != nil || len(info.Progress.Running) != 1 {
			t.Fatalf("round %d: %d firings run, %v, want 1", round, len(info.Progress.Running), err)
		}
		o, err := w.m.TriggerSchedule(context.Background(), sched, fmt.Sprint("skip", round), nola.OverlapSkip, nil)
		if err != nil || o.Outcome != nola.OutcomeSkippedOverlap {
			t.Errorf("round %d: a trigger meanwhile is %s, %v, want SKIPPED_OVERLAP", round, o.Outcome, err)
		}
		w.crash()
	}
	if _, err := w.m.PassivateActor(context.Background(), ref("job")); err != nil {
		t.Fatal(err)
	}
	if err := w.complete("job", token, "done"); err != nil {
		t.Fatal(err)
	}
	info, err := w.m.GetSchedule(context.Background(), sched)
	if err != nil || len(info.Progress.Running) != 0 || info.Progress.Counters[nola.OutcomeFired].Count != 1 {
		t.Errorf("after the completion %d run, fired %d, %v", len(info.Progress.Running), info.Progress.Counters[nola.OutcomeFired].Count, err)
	}
	if got := w.must("job", "get", ""); got != "1" {
		t.Errorf("the run's turn ran %s times", got)
	}
}

// TestTerminatedDeferredFiring has a later occurrence take the place of one that
// waits for its answer: it ends as terminated, and the answer changes nothing.
func TestTerminatedDeferredFiring(t *testing.T) {
	w := newWorld(t, 2)
	ctx := context.Background()
	sched := nola.ScheduleRef{Target: ref("job"), ID: "s"}
	_, err := w.m.CreateSchedule(ctx, nola.Schedule{
		Namespace: "default", ID: "s", Incarnation: 1, Target: sched.Target, Operation: "defer",
		Spec: nola.Spec{At: []time.Time{time.Now().Add(-time.Hour)}},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.TriggerSchedule(ctx, sched, "one", 0, nil); err != nil {
		t.Fatal(err)
	}
	first := w.deferred("job")
	if _, err := w.m.TriggerSchedule(ctx, sched, "two", nola.OverlapTerminateOther, nil); err != nil {
		t.Fatal(err)
	}
	var second string
	eventually(t, "the second is deferred", func() bool {
		second = w.must("job", "get", "token")
		return second != first
	})
	w.crash()
	for _, token := range []string{first, second} {
		if err := w.complete("job", token, "done"); err != nil {
			t.Fatal(err)
		}
	}
	info, err := w.m.GetSchedule(ctx, sched)
	if err != nil {
		t.Fatal(err)
	}
	var ended []string
	for _, o := range info.Recent {
		if o.RequestID != "" {
			ended = append(ended, fmt.Sprint(o.RequestID, " ", o.OK, " ", o.Reason))
		}
	}
	slices.Sort(ended)
	if want := []string{"one false TERMINATED", "two true "}; !slices.Equal(ended, want) || len(info.Progress.Running) != 0 {
		t.Errorf("ended %q with %d running, want %q", ended, len(info.Progress.Running), want)
	}
}

func TestDeferredIsLimited(t *testing.T) {
	w := newWorld(t, 1)
	for i := range nola.DeferredMax {
		if _, err := w.m.Cast(context.Background(), deferCall("a", ""), time.Time{}); err != nil {
			t.Fatalf("cast %d: %v", i, err)
		}
	}
	full := func() bool {
		_, err := w.invoke("a", "defer", "1000")
		return reason(err) == nola.ReasonLimitExceeded
	}
	if !full() {
		t.Fatal("one more than the limit can be deferred")
	}
	w.crash()
	if !full() {
		t.Fatal("after a crash one more than the limit can be deferred")
	}
	if err := w.complete("a", w.must("a", "get", "token"), ""); err != nil {
		t.Fatal(err)
	}
	if call := w.ask(deferCall("a", "20")); reason((<-call).err) != nola.ReasonDeadlineExceeded {
		t.Error("there is no room after one was answered")
	}
}

func TestDeferredEndsWithItsActor(t *testing.T) {
	w := newWorld(t, 4)
	call := w.ask(deferCall("a", ""))
	token := w.deferred("a")
	if err := w.m.DeleteActor(context.Background(), ref("a")); err != nil {
		t.Fatal(err)
	}
	if a := <-call; reason(a.err) != nola.ReasonCanceled {
		t.Errorf("the caller got %q, %v, want CANCELED", a.result.Payload, a.err)
	}
	if err := w.complete("a", token, "x"); reason(err) != nola.ReasonInvocationNotFound {
		t.Errorf("the token of a deleted actor answers %v", err)
	}
}

// TestCrashBetweenDeferAndReply lets the n-th batch of a workload go wrong that
// defers calls and answers them, for every n and every fault: each call gets
// exactly one answer, the one that was given, and its turn ran once.
func TestCrashBetweenDeferAndReply(t *testing.T) { atEveryCommit(t, 2, deferFaultAt) }

func deferFaultAt(t *testing.T, fault faultstore.Fault, shards, n int) (batches int) {
	w := newFaultWorld(t, fault, shards, n, &batches)
	defer w.close()
	again := func(err error) bool {
		switch reason(err) {
		case nola.ReasonShardMoving, nola.ReasonOutcomeUnknown, nola.ReasonUnavailable:
			return true
		}
		return false
	}
	for i := range 3 {
		id, op, payload := fmt.Sprint("d", i), "defer", ""
		if i == 2 {
			id, op, payload = "caller", "call", "d2|defer|"
		}
		key := nola.Key{Session: nola.SessionID{1}, Seq: uint64(i + 1), AckedBelow: uint64(i + 1), FirstAttempt: time.Now()}
		call := make(chan answer, 1)
		go func() {
			for {
				r, err := w.keyed(id, op, payload, key)
				if !again(err) {
					call <- answer{r, err}
					return
				}
			}
		}()
		// The token is good as soon as it can be read: what is read is durable.
		deferrer, token := fmt.Sprint("d", i), ""
		eventually(t, fmt.Sprintf("%s at batch %d: %s has deferred", fault, n, deferrer), func() bool {
			var err error
			token, err = w.invoke(deferrer, "get", "token")
			return err == nil && token != ""
		})
		want := fmt.Sprint("answer ", i)
		for first := true; ; first = false {
			err := w.complete(deferrer, token, want)
			if err == nil || !first && reason(err) == nola.ReasonInvocationNotFound {
				break // done now, or by the attempt before
			}
			if !again(err) {
				t.Fatalf("%s at batch %d: complete %s: %v", fault, n, deferrer, err)
			}
		}
		if a := <-call; a.err != nil || string(a.result.Payload) != want {
			t.Fatalf("%s at batch %d: call %d got %q, %v, want %q", fault, n, i, a.result.Payload, a.err, want)
		}
		got := ""
		eventually(t, fmt.Sprintf("%s at batch %d: %s can be read", fault, n, deferrer), func() bool {
			var err error
			got, err = w.invoke(deferrer, "get", "")
			return err == nil
		})
		if got != "1" {
			t.Fatalf("%s at batch %d: the turn of %s counts %s", fault, n, deferrer, got)
		}
		if err := w.complete(deferrer, token, "twice"); !again(err) && reason(err) != nola.ReasonInvocationNotFound {
			t.Fatalf("%s at batch %d: a second completion of %s: %v", fault, n, deferrer, err)
		}
	}
	return batches
}
