package shard_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
	"github.com/nolaproject/nola/shard"
	"github.com/nolaproject/nola/shard/core"
)

func TestConcurrentCallsAreCountedOnce(t *testing.T) {
	for _, shards := range []int{1, 16} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			const clients = 8
			each := 1000
			if os.Getenv("NOLA_SLOW") != "" {
				each = 20_000
			}
			w := newWorld(t, shards)
			replies := make([][]int, clients)
			var wg sync.WaitGroup
			for c := range clients {
				wg.Go(func() {
					for range each {
						got, err := w.invoke("one", "inc", "")
						n, _ := strconv.Atoi(got)
						if err != nil || len(replies[c]) > 0 && n <= replies[c][len(replies[c])-1] {
							t.Errorf("client %d: reply %q after %d: %v", c, got, len(replies[c]), err)
							return
						}
						replies[c] = append(replies[c], n)
					}
				})
			}
			wg.Wait()
			all := slices.Concat(replies...)
			slices.Sort(all)
			for i, n := range all {
				if n != i+1 {
					t.Fatalf("reply %d is %d: the replies must be exactly 1..%d", i, n, clients*each)
				}
			}
			if len(all) != clients*each {
				t.Fatalf("%d replies, want %d", len(all), clients*each)
			}
			w.crash()
			if got := w.must("one", "get", ""); got != strconv.Itoa(clients*each) {
				t.Errorf("after a crash the counter is %s, want %d", got, clients*each)
			}
		})
	}
}

func TestManyActors(t *testing.T) {
	w := newWorld(t, 16)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 200 {
				w.must(fmt.Sprint("a", i), "inc", "")
			}
		})
	}
	wg.Wait()
	for i := range 200 {
		if got := w.must(fmt.Sprint("a", i), "get", ""); got != "16" {
			t.Fatalf("actor %d counts %s, want 16", i, got)
		}
	}
}

func TestFailedTurnLeavesNothing(t *testing.T) {
	for _, how := range []string{"error", "trap"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, 4)
			w.must("a", "inc", "")
			want := nola.ReasonGuestError
			if how == "trap" {
				want = nola.ReasonGuestTrap
			}
			if _, err := w.invoke("a", "fail", how); reason(err) != want {
				t.Fatalf("fail: %v, want %s", err, want)
			}
			if got := w.must("a", "get", ""); got != "1" {
				t.Errorf("n = %s after the failed turn, want 1", got)
			}
			if got := w.must("a", "memory", ""); got != "2" {
				t.Errorf("the instance has run %s turns, want 2: it must be a fresh one", got)
			}
			if got := w.must("a", "timers", ""); got != "" {
				t.Errorf("timers %q were left behind", got)
			}
			if got := w.must("other", "get", ""); got != "" {
				t.Errorf("the cast left: n = %q", got)
			}
		})
	}
}

func TestStateIsReadBack(t *testing.T) {
	w := newWorld(t, 4)
	for i := range 10 {
		w.must("a", "put", fmt.Sprintf("k%d|v%d", i, i))
	}
	w.crash() // the store has ten, the overlay what comes now
	w.must("a", "put", "k3|new")
	w.must("a", "put", "k55|between")
	if got := w.must("a", "del", "k7|"); got != "true" {
		t.Errorf("del k7 = %s", got)
	}
	if got := w.must("a", "del", "k7|"); got != "false" {
		t.Errorf("second del k7 = %s", got)
	}
	for arg, want := range map[string]string{
		"k|100":     "k0=v0 k1=v1 k2=v2 k3=new k4=v4 k5=v5 k55=between k6=v6 k8=v8 k9=v9 false",
		"k|3":       "k0=v0 k1=v1 k2=v2 true",
		"k|3|k3":    "k3=new k4=v4 k5=v5 true",
		"k|3||r":    "k9=v9 k8=v8 k6=v6 true",
		"k|3|k6|r":  "k6=v6 k55=between k5=v5 true",
		"k5|9":      "k5=v5 k55=between false",
		"nothing|9": "false",
	} {
		if got := w.must("a", "list", arg); got != want {
			t.Errorf("list %s = %q, want %q", arg, got, want)
		}
	}
}

// TestTurnReadsItsOwnWrites: what a turn wrote it reads back at once, by itself and
// in lists, over what turns before it wrote and what is stored.
func TestTurnReadsItsOwnWrites(t *testing.T) {
	w := newWorld(t, 4)
	w.must("a", "put", "k1|stored")
	w.must("a", "put", "k2|stored")
	w.must("a", "put", "k3|stored")
	for _, crash := range []bool{false, true} {
		if crash {
			w.crash()
			w.must("a", "put", "k1|before")
		}
		_, err := w.invoke("a", "own", "k2|k3|k0")
		if err == nil {
			t.Fatal("the turn was to fail")
		}
		if got := err.Error(); got != "k2=own k3= k0=new k0=new k1="+map[bool]string{false: "stored", true: "before"}[crash]+" k2=own false" {
			t.Errorf("after a crash %v: the turn reads %q", crash, got)
		}
		if got := w.must("a", "list", "k|9"); strings.Contains(got, "own") || !strings.Contains(got, "k3=stored") || strings.Contains(got, "k0") {
			t.Errorf("the turn that failed left %q", got)
		}
	}
}

// TestTurnSeesWhatIsNotDurable: while the commit of turns before is under way, the
// next one reads and lists what they left, over what is stored.
func TestTurnSeesWhatIsNotDurable(t *testing.T) {
	var armed atomic.Bool
	listed := make(chan struct{})
	w := newWorld(t, 4, func(w *world) {
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{Delay: func(int) {
				if armed.Load() {
					<-listed
				}
			}})
		}
	})
	for _, put := range []string{"k1|stored", "k2|stored", "k3|stored"} {
		w.must("a", "put", put)
	}
	w.crash()
	w.must("a", "get", "k1") // it is loaded
	armed.Store(true)
	before := w.code.turns.Load()
	results := make(chan string, 4)
	for _, in := range [][2]string{{"put", "k2|new"}, {"put", "k0|new"}, {"del", "k3"}, {"list", "k|9"}} {
		inv := &nola.Invocation{Target: ref("a"), Operation: in[0], Payload: []byte(in[1])}
		err := w.m.Begin(t.Context(), inv, func(r nola.Result, err error) {
			if err != nil {
				t.Error(err)
			}
			results <- string(r.Payload)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all four turns have begun before any commit ends", func() bool { return w.code.turns.Load() >= before+4 })
	close(listed)
	got := make(map[string]bool)
	for range cap(results) {
		got[<-results] = true
	}
	if want := "k0=new k1=stored k2=new false"; !got[want] {
		t.Errorf("the answers are %v, want a list %q", got, want)
	}
}

func sessionKey(seq uint64) nola.Key {
	return nola.Key{Session: nola.SessionID{7}, Seq: seq, AckedBelow: 0, FirstAttempt: time.Now()}
}

func TestKeysRecogniseRetries(t *testing.T) {
	session, user := sessionKey(5), nola.Key{User: "order-1"}
	for name, key := range map[string]nola.Key{"session": session, "user": user} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			first, err := w.keyed("a", "inc", "", key)
			if err != nil || first.Replayed || string(first.Payload) != "1" {
				t.Fatalf("first: %+v %v", first, err)
			}
			for _, crash := range []bool{false, true} {
				if crash {
					w.crash()
				}
				again, err := w.keyed("a", "inc", "", key)
				if err != nil || !again.Replayed || string(again.Payload) != "1" || again.ID != first.ID {
					t.Fatalf("again (crash %v): %+v %v", crash, again, err)
				}
			}
			if _, err := w.keyed("a", "inc", "other", key); reason(err) != nola.ReasonKeyReused {
				t.Errorf("another payload: %v, want KEY_REUSED", err)
			}
			if got := w.must("a", "get", ""); got != "1" {
				t.Errorf("n = %s, want 1", got)
			}
			info, err := w.m.GetInvocation(context.Background(), ref("a"), nola.InvocationID{}, key)
			if err != nil || info.State != nola.InvocationSucceeded || string(info.Payload) != "1" {
				t.Errorf("GetInvocation: %+v %v", info, err)
			}
			info, err = w.m.GetInvocation(context.Background(), ref("a"), first.ID, nola.Key{})
			if err != nil || info.State != nola.InvocationSucceeded || string(info.Payload) != "1" {
				t.Errorf("GetInvocation by its id: %+v %v", info, err)
			}
			// A guest's error is an outcome, and is remembered.
			bad := key
			bad.Seq++
			if bad.IsUser() {
				bad.User += "-bad"
			}
			if _, err := w.keyed("a", "fail", "", bad); reason(err) != nola.ReasonGuestError {
				t.Errorf("fail: %v", err)
			}
			turns := w.code.turns.Load()
			r, err := w.keyed("a", "fail", "", bad)
			if reason(err) != nola.ReasonGuestError || w.code.turns.Load() != turns {
				t.Errorf("fail again: %+v %v, it must not run again", r, err)
			}
			info, err = w.m.GetInvocation(context.Background(), ref("a"), nola.InvocationID{}, bad)
			if err != nil || info.State != nola.InvocationFailed || info.Err == nil || info.Err.Message != "as asked" {
				t.Errorf("GetInvocation of the failure: %+v %v", info, err)
			}
		})
	}
}

func TestKeyThatMayBeForgottenIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	old := sessionKey(1)
	old.FirstAttempt = time.Now().Add(-nola.SessionRetention - time.Second)
	if _, err := w.keyed("a", "inc", "", old); reason(err) != nola.ReasonKeyExpired {
		t.Errorf("old key: %v, want KEY_EXPIRED", err)
	}
	// The slot of call 1 is taken over by call 1025: call 1 was acknowledged.
	at := time.Now()
	key := func(seq, acked uint64) nola.Key {
		return nola.Key{Session: nola.SessionID{9}, Seq: seq, AckedBelow: acked, FirstAttempt: at}
	}
	for _, seq := range []uint64{1, 1 + nola.SessionWindow} {
		if _, err := w.keyed("a", "inc", "", key(seq, seq)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.keyed("a", "inc", "", key(1, 1)); reason(err) != nola.ReasonKeyExpired {
		t.Errorf("acknowledged key: %v, want KEY_EXPIRED", err)
	}
	if got := w.must("a", "get", ""); got != "2" {
		t.Errorf("n = %s, want 2", got)
	}
}

// TestLateKeyTakesNoSlot: a call that arrives after the client has gone on by a
// whole window, and that is not known, is refused: run, its outcome would take the
// slot of the call a window ahead, which would then be run twice.
func TestLateKeyTakesNoSlot(t *testing.T) {
	w := newWorld(t, 1)
	at := time.Now()
	key := func(seq, acked uint64) nola.Key {
		return nola.Key{Session: nola.SessionID{9}, Seq: seq, AckedBelow: acked, FirstAttempt: at}
	}
	ahead := key(1+nola.SessionWindow, 2)
	done := make(chan error, 1)
	go func() { _, err := w.keyed("a", "waitinc", "g", ahead); done <- err }()
	eventually(t, "the call ahead runs", func() bool { return w.code.turns.Load() >= 1 })
	if _, err := w.keyed("a", "inc", "", key(2+2*nola.SessionWindow, 2)); reason(err) != nola.ReasonInvalidKey {
		t.Errorf("a call beyond the window: %v, want INVALID_KEY", err)
	}
	late := make(chan error, 1)
	go func() { _, err := w.keyed("a", "inc", "", key(1, 1)); late <- err }()
	// It is refused while the call ahead runs, or waits behind it for its turn.
	eventually(t, "the late call is in", func() bool { return len(late) > 0 || w.m.Shards()[0].Unanswered >= 2 })
	close(w.code.gate("g"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := <-late; reason(err) != nola.ReasonKeyExpired {
		t.Errorf("the late call: %v, want KEY_EXPIRED", err)
	}
	for _, crash := range []bool{false, true} {
		if crash {
			w.crash()
		}
		if r, err := w.keyed("a", "waitinc", "g", ahead); err != nil || !r.Replayed {
			t.Errorf("the call ahead again (crash %v): %+v %v, want its recorded answer", crash, r, err)
		}
	}
	if got := w.must("a", "get", ""); got != "1" {
		t.Errorf("n = %s, want 1", got)
	}
}

func TestRetryWaitsForTheFirst(t *testing.T) {
	w := newWorld(t, 1)
	key := sessionKey(1)
	results := make(chan nola.Result, 2)
	for range 2 {
		go func() {
			r, err := w.keyed("a", "waitinc", "g", key)
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	eventually(t, "the first turn runs", func() bool { return w.code.turns.Load() >= 1 })
	info, err := w.m.GetInvocation(context.Background(), ref("a"), nola.InvocationID{}, key)
	if err != nil || info.State != nola.InvocationPending {
		t.Errorf("GetInvocation while it runs: %+v %v", info, err)
	}
	if r, err := w.keyed("a", "waitinc", "other", key); reason(err) != nola.ReasonKeyReused {
		t.Errorf("another payload while it runs: %+v %v, want KEY_REUSED", r, err)
	}
	close(w.code.gate("g"))
	a, b := <-results, <-results
	if string(a.Payload) != "1" || string(b.Payload) != "1" || a.Replayed == b.Replayed {
		t.Errorf("results %+v %+v: want one and its replay", a, b)
	}
}

func TestCastsKeepTheirOrder(t *testing.T) {
	const n = 20_000
	w := newWorld(t, 4)
	ctx := context.Background()
	for i := range n {
		inv := &nola.Invocation{Target: ref("a"), Operation: "inc"}
		if i%100 == 0 {
			inv.Operation, inv.Payload = "append", []byte(strconv.Itoa(i))
		}
		if _, err := w.m.Cast(ctx, inv, time.Time{}); err != nil {
			t.Fatalf("cast %d: %v", i, err)
		}
	}
	if got := w.must("a", "get", ""); got != strconv.Itoa(n-n/100) {
		t.Errorf("the call sees %s increments, want %d", got, n-n/100)
	}
	var want strings.Builder
	for i := 0; i < n; i += 100 {
		fmt.Fprintf(&want, "%d ", i)
	}
	if got := w.must("a", "get", "log"); got != want.String() {
		t.Errorf("order %.200q", got)
	}
}

func TestCastBacklogSurvivesCrash(t *testing.T) {
	const n = 3000
	w := newWorld(t, 4)
	go func() { _, _ = w.invoke("a", "wait", "g") }()
	eventually(t, "the actor is busy", func() bool { return w.code.turns.Load() >= 1 })
	ids := make([]nola.InvocationID, n)
	for i := range n {
		id, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "inc"}, time.Time{})
		if err != nil {
			t.Fatalf("cast %d: %v", i, err)
		}
		ids[i] = id
	}
	info, err := w.m.GetInvocation(context.Background(), ref("a"), ids[n-1], nola.Key{})
	if err != nil || info.State != nola.InvocationPending {
		t.Errorf("GetInvocation of a waiting cast: %+v %v", info, err)
	}
	w.crash()
	if got := w.must("a", "get", ""); got != strconv.Itoa(n) {
		t.Errorf("n = %s, want %d", got, n)
	}
	info, err = w.m.GetInvocation(context.Background(), ref("a"), ids[n-1], nola.Key{})
	if err != nil || info.State != nola.InvocationSucceeded || string(info.Payload) != strconv.Itoa(n) {
		t.Errorf("GetInvocation of the last cast: %+v %v", info, err)
	}
}

func TestCastsBetweenActors(t *testing.T) {
	const n = 1000
	w := newWorld(t, 8)
	for i := range 4 {
		w.must(fmt.Sprint("s", i), "castmany", fmt.Sprintf("d%d|%d", i%2, n))
	}
	for i := range 2 {
		id := fmt.Sprint("d", i)
		eventually(t, "all casts arrive", func() bool { return strings.Count(w.must(id, "get", "log"), " ") == 2*n })
		// Casts of one sender keep their order: each number appears twice, and
		// the sequence splits into two ascending ones.
		seen := make(map[string]int)
		for _, x := range strings.Fields(w.must(id, "get", "log")) {
			seen[x]++
		}
		if len(seen) != n {
			t.Errorf("%s has %d different numbers, want %d", id, len(seen), n)
		}
		for x, c := range seen {
			if c != 2 {
				t.Errorf("%s got %s %d times, want 2", id, x, c)
			}
		}
	}
}

func TestCastsOfOneSenderKeepOrder(t *testing.T) {
	w := newWorld(t, 8)
	for range 3 {
		w.must("s", "castmany", "d|500")
	}
	eventually(t, "all casts arrive", func() bool { return strings.Count(w.must("d", "get", "log"), " ") == 1500 })
	for i, x := range strings.Fields(w.must("d", "get", "log")) {
		if x != strconv.Itoa(i%500) {
			t.Fatalf("entry %d is %s, want %d", i, x, i%500)
		}
	}
}

func TestTrappedCastIsTriedAgain(t *testing.T) {
	w := newWorld(t, 2, func(w *world) { w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond} })
	cast := func(op, arg string) nola.InvocationID {
		id, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("a"), Operation: op, Payload: []byte(arg)}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	state := func(id nola.InvocationID) nola.InvocationInfo {
		info, err := w.m.GetInvocation(context.Background(), ref("a"), id, nola.Key{})
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	good, bad, failed := cast("flaky", "3"), cast("trap", ""), cast("fail", "")
	eventually(t, "the flaky cast succeeds", func() bool { return state(good).State == nola.InvocationSucceeded })
	eventually(t, "the trapping cast is given up", func() bool { return state(bad).State == nola.InvocationFailed })
	eventually(t, "the failing cast is consumed", func() bool { return state(failed).State == nola.InvocationFailed })
	if i := state(good); i.Attempts != 4 {
		t.Errorf("flaky took %d attempts, want 4", i.Attempts)
	}
	if i := state(bad); i.Attempts != 5 || i.Err == nil || i.Err.Reason != nola.ReasonGuestTrap {
		t.Errorf("trap: %+v, want 5 attempts and GUEST_TRAP", i)
	}
	if i := state(failed); i.Attempts != 1 || i.Err == nil || i.Err.Message != "as asked" {
		t.Errorf("fail: %+v, want one attempt and the guest's own text", i)
	}
	if got := w.must("a", "get", ""); got != "1" {
		t.Errorf("n = %s, want 1", got)
	}
}

func TestTimers(t *testing.T) {
	w := newWorld(t, 4)
	w.must("a", "timer", "soon|inc|1")
	eventually(t, "the timer fires", func() bool { return w.must("a", "get", "") == "1" })
	if got := w.must("a", "timers", ""); got != "" {
		t.Errorf("timers after firing: %q", got)
	}
	w.must("a", "timer", "later|inc|3600000")
	w.must("a", "timer", "gone|inc|3600000")
	if got := w.must("a", "untimer", "gone"); got != "true" {
		t.Errorf("cancel: %s", got)
	}
	if got := w.must("a", "untimer", "gone"); got != "false" {
		t.Errorf("second cancel: %s", got)
	}
	w.crash()
	if got := w.must("a", "timers", ""); got != "later:inc " {
		t.Errorf("timers after a crash: %q", got)
	}
	w.must("a", "timer", "later|inc|1") // the same name replaces
	eventually(t, "the replaced timer fires", func() bool { return w.must("a", "get", "") == "2" })
	w.crash()
	if got := w.must("a", "get", "") + w.must("a", "timers", ""); got != "2" {
		t.Errorf("after another crash: %q", got)
	}
}

func TestDelayedCast(t *testing.T) {
	w := newWorld(t, 4)
	id, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "inc"}, time.Now().Add(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	w.crash()
	eventually(t, "the delayed cast runs", func() bool {
		info, err := w.m.GetInvocation(context.Background(), ref("a"), id, nola.Key{})
		return err == nil && info.State == nola.InvocationSucceeded
	})
}

func TestNestedCalls(t *testing.T) {
	for _, shards := range []int{1, 16} {
		w := newWorld(t, shards)
		if got := w.must("a", "call", "b|inc"); got != "1" {
			t.Errorf("call: %q", got)
		}
		if got := w.must("a", "call", "b|call|c|call|d|inc"); got != "1" {
			t.Errorf("chain: %q", got)
		}
		_, err := w.invoke("a", "call", "b|call|a|get")
		if reason(err) != nola.ReasonCallCycle || !strings.Contains(err.Error(), "t/a -> t/b -> t/a") {
			t.Errorf("cycle: %v", err)
		}
		if _, err := w.invoke("a", "call", "b|fail"); reason(err) != nola.ReasonGuestError || err.Error() != "as asked" {
			t.Errorf("error of the callee: %v", err)
		}
	}
}

func TestNestedCallsDoNotBlockTheNode(t *testing.T) {
	w := newWorld(t, 8, func(w *world) { w.cfg.Tokens = 2 })
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 20 {
				w.must(fmt.Sprint("a", i), "call", fmt.Sprintf("b%d|call|c%d|inc", i%4, i%3))
			}
		})
	}
	wg.Wait()
	total := 0
	for i := range 3 {
		n, _ := strconv.Atoi(w.must(fmt.Sprint("c", i), "get", ""))
		total += n
	}
	if total != 64*20 {
		t.Errorf("%d increments, want %d", total, 64*20)
	}
}

// TestWaitingCallsHoldNoToken: more turns wait for a busy actor than there are run
// tokens, those that are lent to others included; all of them have begun, and
// others are served.
func TestWaitingCallsHoldNoToken(t *testing.T) {
	for _, shards := range []int{1, 16} {
		const callers = 200
		w := newWorld(t, shards, func(w *world) { w.cfg.Tokens = 2 })
		var wg sync.WaitGroup
		wg.Go(func() { w.must("busy", "wait", "g") })
		eventually(t, "the actor is busy", func() bool { return w.code.turns.Load() >= 1 })
		for i := range callers {
			wg.Go(func() { w.must(fmt.Sprint("a", i), "call", "busy|inc") })
		}
		eventually(t, fmt.Sprintf("%d shards: all callers wait", shards), func() bool { return w.code.turns.Load() >= 1+callers })
		if got := w.must("other", "inc", ""); got != "1" {
			t.Errorf("another actor answers %s", got)
		}
		close(w.code.gate("g"))
		wg.Wait()
		if got := w.must("busy", "get", ""); got != strconv.Itoa(callers) {
			t.Errorf("%d shards: %s increments, want %d", shards, got, callers)
		}
	}
}

func TestRetriedTurnRepeatsNoNestedCall(t *testing.T) {
	for _, shards := range []int{1, 16} {
		w := newWorld(t, shards, func(w *world) { w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond} })
		id, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "callthentrap", Payload: []byte("b|inc")}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the cast succeeds", func() bool {
			info, err := w.m.GetInvocation(context.Background(), ref("a"), id, nola.Key{})
			return err == nil && info.State == nola.InvocationSucceeded
		})
		if got := w.must("a", "get", "got") + " " + w.must("b", "get", ""); got != "1 1" {
			t.Errorf("%d shards: got and n are %q, want \"1 1\": the nested call must not run twice", shards, got)
		}
		// The same for a call with a key that is tried again after a crash.
		for _, key := range []nola.Key{{User: "u"}, sessionKey(3)} {
			if _, err := w.keyed("k", "callthentrap", "c|inc|keyed", key); reason(err) != nola.ReasonGuestTrap {
				t.Fatalf("first attempt: %v", err)
			}
			w.crash()
			if _, err := w.keyed("k", "callthentrap", "c|inc|keyed", key); reason(err) != nola.ReasonGuestTrap {
				t.Fatalf("second attempt: %v", err)
			}
		}
		if got := w.must("c", "get", ""); got != "2" {
			t.Errorf("%d shards: c counts %s, want 2: one for each key", shards, got)
		}
	}
}

// TestTurnRetriedMuchLaterRepeatsNoNestedCall: the node dies under a turn that has
// called another actor, and what brought the turn about is tried again hours later:
// the answers of its calls are found although they are filed by time.
func TestTurnRetriedMuchLaterRepeatsNoNestedCall(t *testing.T) {
	for name, tt := range map[string]struct {
		key   nola.Key
		cast  bool
		delay time.Duration
		later time.Duration
	}{
		"user key":     {key: nola.Key{User: "u"}, later: 5 * time.Hour},
		"session key":  {key: nola.Key{Session: nola.SessionID{5}, Seq: 1}, later: 9 * time.Minute},
		"cast":         {cast: true, later: 5 * time.Hour},
		"delayed cast": {cast: true, delay: time.Millisecond, later: 5 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			// The keys of nested calls are filed by the hour: the retry comes in another one.
			start := time.Now().Truncate(time.Hour).Add(time.Hour + 55*time.Minute)
			var ahead atomic.Int64 // how far the clock is
			ahead.Store(int64(time.Until(start)))
			now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			w := newWorld(t, 16, func(w *world) { w.cfg.Now = now })
			w.must("warm", "get", "")
			if !tt.key.IsUser() {
				tt.key.FirstAttempt = now()
			}
			bring := func() chan nola.Result {
				inv := &nola.Invocation{Target: ref("a"), Operation: "callwait", Payload: []byte("b|inc|g"), Key: tt.key}
				done := make(chan nola.Result, 1)
				if tt.cast {
					inv.Key = nola.Key{}
					var due time.Time
					if tt.delay > 0 {
						due = now().Add(tt.delay)
					}
					if _, err := w.m.Cast(t.Context(), inv, due); err != nil {
						t.Fatal(err)
					}
					return nil
				}
				go func() {
					r, _ := w.m.Invoke(context.Background(), inv)
					done <- r
				}()
				return done
			}
			answered := bring()
			eventually(t, "the nested call is durable", func() bool { return w.must("b", "get", "") == "1" })
			w.crash()
			if answered != nil {
				<-answered
			}
			ahead.Add(int64(tt.later))
			w.must("b", "get", "") // the shard of b knows the new time
			close(w.code.gate("g"))
			if !tt.cast {
				bring()
			}
			eventually(t, "the turn ends well", func() bool { return w.must("a", "get", "got") != "" })
			if got := w.must("a", "get", "got") + " " + w.must("b", "get", ""); got != "1 1" {
				t.Errorf("the reply and the count are %q, want \"1 1\": the nested call must not run twice", got)
			}
		})
	}
}

// where is what the metadata of an error say about the place of the call.
func where(err error) string {
	var e *nola.Error
	if errors.As(err, &e) {
		return e.Metadata["where"]
	}
	return ""
}

func TestDeadlineInTheQueue(t *testing.T) {
	w := newWorld(t, 1)
	go func() { _, _ = w.invoke("a", "wait", "g") }()
	eventually(t, "the actor is busy", func() bool { return w.code.turns.Load() >= 1 })
	_, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "inc", Deadline: time.Now().Add(20 * time.Millisecond)})
	if reason(err) != nola.ReasonDeadlineExceeded || where(err) != "queue" {
		t.Errorf("expired: %v in the %s", err, where(err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = w.m.Invoke(ctx, &nola.Invocation{Target: ref("a"), Operation: "inc"})
	if reason(err) != nola.ReasonDeadlineExceeded || where(err) != "queue" {
		t.Errorf("caller left: %v in the %s", err, where(err))
	}
	close(w.code.gate("g"))
	if got := w.must("a", "get", ""); got != "" {
		t.Errorf("n = %q: refused calls must not run", got)
	}
}

func TestMailboxFull(t *testing.T) {
	w := newWorld(t, 1, func(w *world) { w.cfg.Limits = core.Limits{MailboxMax: 10} })
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = w.invoke("a", "wait", "g") })
	eventually(t, "the actor is busy", func() bool { return w.code.turns.Load() >= 1 })
	refused := make(chan error, 100)
	for range 50 {
		wg.Go(func() {
			if _, err := w.invoke("a", "inc", ""); err != nil {
				refused <- err
			}
		})
	}
	eventually(t, "forty are refused", func() bool { return len(refused) == 40 })
	if got := w.must("b", "inc", ""); got != "1" {
		t.Errorf("another actor answers %s", got)
	}
	close(w.code.gate("g"))
	wg.Wait()
	for range 40 {
		err := <-refused
		e, ok := err.(*nola.Error)
		if !ok || e.Reason != nola.ReasonMailboxFull || e.RetryAfter <= 0 || e.Metadata["limit"] != "mailbox" {
			t.Fatalf("refusal %#v", err)
		}
	}
	if got := w.must("a", "get", ""); got != "10" {
		t.Errorf("n = %s, want 10", got)
	}
}

func TestMissingModuleLeavesNothing(t *testing.T) {
	w := newWorld(t, 4)
	for i := range 100 {
		r := nola.ActorRef{Namespace: "default", Type: "missing", ID: fmt.Sprint(i)}
		_, err := w.m.Invoke(context.Background(), &nola.Invocation{Target: r, Operation: "x"})
		if reason(err) != nola.ReasonModuleNotFound {
			t.Fatalf("%v", err)
		}
	}
	for _, s := range w.m.Shards() {
		if s.Activations != 0 {
			t.Errorf("shard %d holds %d activations", s.Shard, s.Activations)
		}
	}
}

func TestPassivation(t *testing.T) {
	w := newWorld(t, 4, func(w *world) { w.cfg.Limits = core.Limits{IdleAfter: 20 * time.Millisecond} })
	for i := range 50 {
		w.must(fmt.Sprint(i), "inc", "")
	}
	eventually(t, "all are passivated", func() bool {
		n := 0
		for _, s := range w.m.Shards() {
			n += s.Activations
		}
		return n == 0 && w.code.live.Load() == 0
	})
	for i := range 50 {
		if got := w.must(fmt.Sprint(i), "inc", ""); got != "2" {
			t.Errorf("actor %d answers %s, want 2", i, got)
		}
	}
}

func TestPassivateActor(t *testing.T) {
	w := newWorld(t, 4)
	w.must("a", "inc", "")
	for _, want := range []bool{true, false} {
		if was, err := w.m.PassivateActor(t.Context(), ref("a")); err != nil || was != want {
			t.Errorf("passivate: it was in memory %v, %v; want %v", was, err, want)
		}
		eventually(t, "the actor leaves", func() bool { return w.code.live.Load() == 0 })
	}
	if got := w.must("a", "memory", "") + w.must("a", "inc", ""); got != "12" {
		t.Errorf("turns of the instance and the count are %q, want \"12\": a fresh instance, and committed state", got)
	}
}

func TestPassivationByMemory(t *testing.T) {
	w := newWorld(t, 4, func(w *world) { w.cfg.InstanceBytesMax = 10 << 16 })
	for i := range 100 {
		w.must(fmt.Sprint(i), "inc", "")
	}
	eventually(t, "ten instances are left", func() bool { return w.code.live.Load() <= 10 })
}

func TestDeleteActor(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	if err := w.m.DeleteActor(ctx, ref("a")); reason(err) != nola.ReasonActorNotFound {
		t.Errorf("delete of nothing: %v", err)
	}
	key := sessionKey(1)
	if _, err := w.keyed("a", "inc", "", key); err != nil {
		t.Fatal(err)
	}
	w.must("a", "timer", "x|inc|50")
	if info, err := w.m.DescribeActor(ctx, ref("a")); err != nil || !info.Exists || !info.Active {
		t.Errorf("describe: %+v %v", info, err)
	}
	if err := w.m.DeleteActor(ctx, ref("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.DescribeActor(ctx, ref("a")); reason(err) != nola.ReasonActorNotFound {
		t.Errorf("describe after delete: %v", err)
	}
	if got := w.must("a", "get", "") + w.must("a", "timers", ""); got != "" {
		t.Errorf("left behind: %q", got)
	}
	if r, err := w.keyed("a", "inc", "", key); err != nil || !r.Replayed {
		t.Errorf("the keyed outcome must stay: %+v %v", r, err)
	}
	w.crash()
	if got := w.must("a", "get", "") + w.must("a", "timers", ""); got != "" {
		t.Errorf("back after a crash: %q", got)
	}
}

func TestCreateActor(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	if err := w.m.CreateActor(ctx, ref("a"), []byte("init")); err != nil {
		t.Fatal(err)
	}
	if err := w.m.CreateActor(ctx, ref("a"), nil); reason(err) != nola.ReasonAlreadyExists {
		t.Errorf("again: %v", err)
	}
	w.crash()
	if err := w.m.CreateActor(ctx, ref("a"), nil); reason(err) != nola.ReasonAlreadyExists {
		t.Errorf("after a crash: %v", err)
	}
}

func TestRandomIsOnePerInvocation(t *testing.T) {
	w := newWorld(t, 1)
	if a, b := w.must("a", "random", ""), w.must("a", "random", ""); a == b {
		t.Error("two calls drew the same")
	}
	key := sessionKey(1)
	a, err := w.keyed("a", "random", "", key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.keyed("a", "random", "", key)
	if err != nil || string(a.Payload) != string(b.Payload) {
		t.Errorf("a retry drew %s, the first attempt %s: %v", b.Payload, a.Payload, err)
	}
}

func TestDrain(t *testing.T) {
	w := newWorld(t, 4)
	done := make(chan error, 1)
	go func() { _, err := w.invoke("a", "waitinc", "g"); done <- err }()
	eventually(t, "the turn runs", func() bool { return w.code.turns.Load() >= 1 })
	drained := make(chan error, 1)
	go func() { drained <- w.m.Drain(context.Background()) }()
	eventually(t, "intake is stopped", func() bool {
		_, err := w.invoke("b", "inc", "")
		return reason(err) == nola.ReasonUnavailable
	})
	select {
	case err := <-drained:
		t.Fatalf("drained with a turn running: %v", err)
	default:
	}
	close(w.code.gate("g"))
	if err := <-done; err != nil {
		t.Errorf("the running turn: %v", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t, 1, func(w *world) { w.cfg.LogBytesMax = 1000 })
	w.must("a", "log", "hello")
	if l := w.m.Logs(ref("a"), 10); len(l) != 1 || l[0].Message != "hello" || l[0].Level != "info" {
		t.Errorf("logs: %+v", l)
	}
	for i := range 20 {
		w.must("b", "log", strings.Repeat("x", 40)+fmt.Sprint(i))
	}
	if l := w.m.Logs(ref("a"), 10); len(l) != 0 {
		t.Errorf("the silent actor's log must have made room: %+v", l)
	}
}

var _ = shard.Config{}

func TestBegunCallsKeepTheirOrder(t *testing.T) {
	w := newWorld(t, 4)
	for _, keyed := range []bool{false, true} {
		answers := make(chan error, 500)
		id := fmt.Sprint("a", keyed)
		for i := range cap(answers) {
			inv := &nola.Invocation{Target: ref(id), Operation: "append", Payload: []byte(strconv.Itoa(i))}
			if keyed {
				inv.Key = sessionKey(uint64(i))
			}
			if err := w.m.Begin(t.Context(), inv, func(_ nola.Result, err error) { answers <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
		}
		for i, x := range strings.Fields(w.must(id, "get", "log")) {
			if x != strconv.Itoa(i) {
				t.Fatalf("keyed %v: entry %d is %s", keyed, i, x)
			}
		}
	}
}

// TestBegunCallIsTakenBack demands that a call that waits behind another is
// answered at its deadline, or when its caller leaves, and is never executed.
func TestBegunCallIsTakenBack(t *testing.T) {
	for _, why := range []string{"deadline", "caller"} {
		t.Run(why, func(t *testing.T) {
			w := newWorld(t, 1)
			first := make(chan error, 1)
			go func() {
				_, err := w.invoke("a", "waitinc", "one")
				first <- err
			}()
			eventually(t, "the first turn runs", func() bool { return w.code.turns.Load() >= 1 })
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			inv := &nola.Invocation{Target: ref("a"), Operation: "append", Payload: []byte("x")}
			want := nola.ReasonCanceled
			if why == "deadline" {
				inv.Deadline, want = time.Now().Add(time.Millisecond), nola.ReasonDeadlineExceeded
			}
			second := make(chan error, 2)
			if err := w.m.Begin(ctx, inv, func(_ nola.Result, err error) { second <- err }); err != nil {
				t.Fatal(err)
			}
			if why == "caller" {
				leave()
			}
			var e *nola.Error
			if err := <-second; !errors.As(err, &e) || e.Reason != want {
				t.Errorf("it was answered %v, want %s", err, want)
			}
			close(w.code.gate("one"))
			if err := <-first; err != nil {
				t.Error(err)
			}
			if log := w.must("a", "get", "log"); log != "" {
				t.Errorf("it was executed: %q", log)
			}
			if len(second) > 0 {
				t.Error("it was answered twice")
			}
		})
	}
}
