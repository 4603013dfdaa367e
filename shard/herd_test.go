package shard_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nolaproject/nola"
)

// herd sets timers of as many actors, due in a second, and answers when.
func herd(t *testing.T, w *world, count int, payload string) (due time.Time) {
	t.Helper()
	return herdIn(t, w, time.Second, count, payload)
}

func herdIn(t *testing.T, w *world, in time.Duration, count int, payload string) (due time.Time) {
	t.Helper()
	due = time.Now().Add(in)
	for i := range count {
		tm := nola.Timer{Name: "t", Operation: "busy", Payload: []byte(payload), Due: due}
		if err := w.m.SetTimer(context.Background(), ref(fmt.Sprint("h", i)), tm); err != nil {
			t.Fatal(err)
		}
	}
	return due
}

// awaitTurns looks every millisecond until so many turns have begun.
func awaitTurns(w *world, count int64) {
	for tick := time.NewTicker(time.Millisecond); w.code.turns.Load() < count; {
		<-tick.C
	}
}

// TestHerdLetsCallsThrough has 400 timers due at one instant, whose turns take a
// millisecond of a processor each, and calls meanwhile. In the bubble time passes
// only while everybody waits, so what a call takes is what it waited for a
// processor that the herd had.
func TestHerdLetsCallsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 2 })
		const count = 400
		due := herd(t, w, count, "1000")
		// A share of half of the processors, and half of the time.
		end := due.Add(4*count*time.Millisecond/2 + time.Second/10)
		<-time.After(time.Until(due) - time.Second/2)
		for calls := 0; time.Now().Before(end); calls++ {
			began := time.Now()
			w.must("caller", "inc", "")
			if took := time.Since(began); took > 0 {
				t.Fatalf("call %d, %s after the herd was due, waited for %s", calls, began.Sub(due), took)
			}
			<-time.After(time.Millisecond)
		}
		for i := range count {
			if got := w.must(fmt.Sprint("h", i), "get", ""); got != "1" {
				t.Fatalf("%s after it was due, timer %d of the herd has fired %q times", time.Since(due), i, got)
			}
		}
	})
}

// TestHerdAloneHasTheProcessors has nobody call while the same herd drains.
func TestHerdAloneHasTheProcessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 2 })
		const count = 400
		due := herd(t, w, count, "1000")
		awaitTurns(w, count)
		if took := time.Since(due); took > count*time.Millisecond/2+10*time.Millisecond {
			t.Errorf("two processors took %s for %d ms of work", took, count)
		}
	})
}

// TestHerdWaitsInTheIndex has two calls keep the processors from a herd of actors that
// are not in memory, for longer than shards wait for a turn to end. What has not begun
// stays in the due index, but for as many turns as a namespace may have.
func TestHerdWaitsInTheIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count, shards, turnsMax = 1600, 16, 16
		w := newWorld(t, shards, func(w *world) { w.cfg.Tokens = 2 })
		due := herdIn(t, w, 2*idleAfter, count, "1000")
		<-time.After(time.Until(due) + time.Millisecond)
		var calls sync.WaitGroup
		for i := range w.cfg.Tokens {
			calls.Go(func() { w.must(fmt.Sprint("slow", i), "busy", "150000") })
		}
		for w.code.turns.Load() < count {
			waiting := count - int(w.code.turns.Load())
			for _, s := range w.m.Shards() {
				waiting -= s.Due
			}
			if waiting > shards*turnsMax {
				t.Fatalf("%s after it was due, %d turns of the herd wait outside of the index, want %d at most", time.Since(due), waiting, shards*turnsMax)
			}
			<-time.After(time.Millisecond)
		}
		calls.Wait()
	})
}

// TestSlowTimerHoldsUpNoOther has timers due together with ones that are busy for
// a minute, while somebody calls.
func TestSlowTimerHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 4 })
		slow := time.Now().Add(time.Second / 2)
		for i := range 2 {
			tm := nola.Timer{Name: "t", Operation: "busy", Payload: []byte("20000000"), Due: slow}
			if err := w.m.SetTimer(t.Context(), ref(fmt.Sprint("slow", i)), tm); err != nil {
				t.Fatal(err)
			}
		}
		const count = 10
		due := herd(t, w, count, "1000")
		for time.Since(due) < time.Second {
			w.must("caller", "inc", "")
			<-time.After(10 * time.Millisecond)
		}
		for i := range count {
			if got := w.must(fmt.Sprint("h", i), "get", ""); got != "1" {
				t.Fatalf("a second after it was due, timer %d has fired %q times; two guests are busy", i, got)
			}
		}
	})
}

// idlers makes actors whose SHUTDOWN takes a millisecond of a processor, and waits
// until half a second before all are to leave memory.
func idlers(w *world, count int) {
	w.code.shutdown = func() error {
		<-time.After(time.Millisecond)
		return nil
	}
	for i := range count {
		w.must(fmt.Sprint("i", i), "inc", "")
	}
	<-time.After(idleAfter - time.Second/2)
}

const idleAfter = 5 * time.Minute // the default of core.Limits

// TestShutdownLetsCallsThrough has 400 actors leave memory at one instant, and calls
// of others meanwhile: there is always a processor for them.
func TestShutdownLetsCallsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, func(w *world) { w.cfg.Tokens = 2 })
		w.must("caller", "inc", "")
		const count = 400
		idlers(w, count)
		w.must("caller", "inc", "") // nobody is kept waiting for whom nobody calls
		<-time.After(time.Second / 2)
		began := time.Now()
		for time.Since(began) < 4*count*time.Millisecond/2+time.Second/10 {
			asked := time.Now()
			w.must("caller", "inc", "")
			if took := time.Since(asked); took > 0 {
				t.Fatalf("a call %s after the others began to leave waited for %s", asked.Sub(began), took)
			}
			<-time.After(time.Millisecond)
		}
		if n := w.code.live.Load(); n != 1 {
			t.Errorf("%d instances are left, want that of the actor that is called", n)
		}
	})
}

// TestCallHurriesShutdown calls the last of many actors that leave memory at one
// instant. Its SHUTDOWN is queued behind those of all others, for which the call
// does not wait.
func TestCallHurriesShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(w *world) { w.cfg.Tokens = 2 })
		const count = 400
		idlers(w, count)
		<-time.After(time.Second/2 + 5*time.Millisecond)
		before := w.code.live.Load()
		began := time.Now()
		if got := w.must(fmt.Sprint("i", count-1), "inc", ""); got != "2" {
			t.Errorf("the actor has counted to %q, want 2", got)
		}
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("the call waited for %s; %d of %d actors had not left when it came", took, before, count)
		}
		if before < count/2 {
			t.Fatalf("only %d of %d actors had not left when the call came: it shows nothing", before, count)
		}
	})
}

// TestTimersAreNeverEarly has timers due a millisecond after one another, so that
// the shard looks at its due index just before each: none comes before its time, and
// with processors to spare none after it.
func TestTimersAreNeverEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		const count = 50
		first := time.Now().Add(time.Second)
		for i := range count {
			tm := nola.Timer{Name: fmt.Sprint("t", i), Operation: "inc", Due: first.Add(time.Duration(i) * time.Millisecond)}
			if err := w.m.SetTimer(t.Context(), ref("a"), tm); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Until(first) - time.Millisecond/2)
		for i := range count + 1 {
			want := fmt.Sprint(i)
			if i == 0 {
				want = ""
			}
			if got := w.must("a", "get", ""); got != want {
				t.Fatalf("half a millisecond before timer %d is due the actor has counted to %q, want %q", i, got, want)
			}
			<-time.After(time.Millisecond)
		}
	})
}
