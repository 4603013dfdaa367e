package shard_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

func TestTimersFromOutside(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	soon := time.Now().Add(20 * time.Millisecond)
	for _, set := range []nola.Timer{
		{Name: "go", Operation: "append", Payload: []byte("x"), Due: time.Now().Add(time.Hour)},
		{Name: "go", Operation: "append", Payload: []byte("y"), Due: soon}, // in its place
		{Name: "stay", Operation: "append", Payload: []byte("z"), Due: soon.Add(time.Hour)},
		{Name: "gone", Operation: "append", Due: soon.Add(time.Hour)},
	} {
		if err := w.m.SetTimer(ctx, ref("a"), set); err != nil {
			t.Fatal(err)
		}
	}
	for want := true; ; want = false {
		if found, err := w.m.CancelTimer(ctx, ref("a"), "gone"); err != nil || found != want {
			t.Errorf("cancelled: %t, %v, want %t", found, err, want)
		}
		if !want {
			break
		}
	}
	eventually(t, "the timer fires once, with the newer payload", func() bool { return w.must("a", "get", "log") == "y " })
	if got := w.must("a", "payloads", ""); got != "stay:z " {
		t.Errorf("the listing is %q", got)
	}
	w.crash()
	if got := w.must("a", "payloads", ""); got != "stay:z " {
		t.Errorf("the listing after a crash is %q", got)
	}
	if err := w.m.SetTimer(ctx, nola.ActorRef{Namespace: "default", Type: "missing", ID: "a"}, nola.Timer{Name: "t", Operation: "inc", Due: soon}); reason(err) != nola.ReasonModuleNotFound {
		t.Errorf("a timer of an actor without a module: %v", err)
	}
}

func TestRemindersFromOutside(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	tick := nola.Reminder{Name: "tick", Operation: "inc", Spec: nola.Spec{Interval: []nola.Interval{{Every: 100 * time.Millisecond}}}}
	if err := w.m.SetReminder(ctx, ref("a"), tick); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reminder comes again", func() bool { return w.must("a", "get", "") >= "2" })
	if found, err := w.m.CancelReminder(ctx, ref("a"), "tick"); err != nil || !found {
		t.Fatal(found, err)
	}
	bad := tick
	bad.Spec = nola.Spec{Cron: []nola.Cron{{Expression: "61 * * * *"}}}
	if err := w.m.SetReminder(ctx, ref("a"), bad); reason(err) != nola.ReasonInvalidSpec {
		t.Errorf("a wrong spec: %v", err)
	}
}

// TestLimitsCountNames fills an actor with reminders, and frees a place and takes
// it again in one turn: names that were cancelled do not count.
func TestLimitsCountNames(t *testing.T) {
	w := newWorld(t, 1)
	for i := range nola.RemindersMax {
		w.must("a", "remind", fmt.Sprintf("r%d|inc|3600000", i))
	}
	if _, err := w.invoke("a", "remind", "more|inc|3600000"); reason(err) != nola.ReasonLimitExceeded {
		t.Fatalf("one more than the limit: %v", err)
	}
	w.must("a", "swapremind", "r0|other|inc|3600000")
	if _, err := w.invoke("a", "remind", "more|inc|3600000"); reason(err) != nola.ReasonLimitExceeded {
		t.Errorf("after one was put in the place of another: %v", err)
	}
	w.must("a", "unremind", "r1")
	w.must("a", "remind", "more|inc|3600000")

	for i := range nola.TimersMax / nola.TurnTimersMax {
		w.must("a", "timermany", fmt.Sprintf("%d|%d", i*nola.TurnTimersMax, nola.TurnTimersMax))
	}
	more := func() bool {
		_, err := w.invoke("a", "timer", "more|inc|3600000")
		return reason(err) != nola.ReasonLimitExceeded
	}
	if more() {
		t.Fatal("one timer more than the limit")
	}
	w.must("a", "swaptimer", "t0|other|inc|3600000")
	if more() {
		t.Error("one timer more than the limit, after one was put in the place of another")
	}
}

// TestShutdownThatSetsAReminder lets SHUTDOWN change a reminder, and looks whether
// the actor has left memory all the same.
func TestShutdownThatSetsAReminder(t *testing.T) {
	w := newWorld(t, 1)
	w.code.bye = func(h nola.Host) error {
		if _, err := h.CancelReminder("none"); err != nil { // pins it and leaves it
			return err
		}
		return h.SetReminder(nola.Reminder{Name: "later", Operation: "inc", Spec: nola.Spec{Interval: []nola.Interval{{Every: time.Hour}}}})
	}
	w.must("a", "inc", "")
	if _, err := w.m.PassivateActor(context.Background(), ref("a")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the actor has left memory", func() bool {
		return w.code.live.Load() == 0 && w.m.Shards()[0].Activations == 0
	})
	info, err := w.m.GetSchedule(context.Background(), nola.ScheduleRef{Target: ref("a"), ID: "later", Reminder: true})
	if err != nil || len(info.Next) == 0 {
		t.Errorf("the reminder: %v, %v", info.Next, err)
	}
}

// TestTheWokenGoBackToSleep wakes many actors at one instant, for one turn each that
// nobody waits for: no instance is left, and each guest was told. Who is woken
// again soon, and who is called, keeps the instance.
func TestTheWokenGoBackToSleep(t *testing.T) {
	const sleepers = 200
	w := newWorld(t, 4, func(w *world) { w.cfg.Limits = core.Limits{AsleepMax: sleepers} })
	told := atomic.Int64{}
	w.code.shutdown = func() error { told.Add(1); return nil }
	ctx := context.Background()
	wake := func(id string) {
		t.Helper()
		if _, err := w.m.Cast(ctx, &nola.Invocation{Target: ref(id), Operation: "inc"}, time.Now().Add(50*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	turns := func(id string, want uint64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s has had %d turns and rests", id, want), func() bool {
			info, err := w.m.DescribeActor(ctx, ref(id))
			return err == nil && info.Turns == want && info.Mailbox == 0
		})
	}
	w.must("called", "inc", "")
	for i := range sleepers {
		wake(fmt.Sprint("s", i))
	}
	for i := range sleepers {
		turns(fmt.Sprint("s", i), 1)
	}
	eventually(t, "the instances are gone but that of the actor that was called", func() bool { return w.code.live.Load() == 1 })
	if n := told.Load(); n != sleepers {
		t.Errorf("SHUTDOWN ran %d times, want %d", n, sleepers)
	}
	wake("s0")
	turns("s0", 2)
	if n := w.code.live.Load(); n != 2 {
		t.Errorf("%d instances after one was woken twice, want 2", n)
	}
	if got := w.must("s0", "memory", ""); got != "2" { // it is the one of the second timer
		t.Errorf("the instance has run %s turns, want 2", got)
	}
	for i := range sleepers {
		if got := w.must(fmt.Sprint("s", i), "get", ""); got == "" {
			t.Errorf("s%d has lost its count", i)
		}
	}
}

// TestSleepersAreBounded wakes more actors for one turn than a shard remembers: the
// others leave memory as a whole, and each has done what it was woken for.
func TestSleepersAreBounded(t *testing.T) {
	const sleepers, most = 50, 8
	w := newWorld(t, 1, func(w *world) { w.cfg.Limits = core.Limits{AsleepMax: most} })
	for i := range sleepers {
		if _, err := w.m.Cast(t.Context(), &nola.Invocation{Target: ref(fmt.Sprint("s", i)), Operation: "inc"}, time.Now().Add(50*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all have had their turn", func() bool { return w.code.turns.Load() >= sleepers })
	eventually(t, fmt.Sprintf("%d are remembered", most), func() bool { return w.m.Shards()[0].Activations == most })
	for i := range sleepers {
		if got := w.must(fmt.Sprint("s", i), "get", ""); got != "1" {
			t.Errorf("s%d has counted to %q, want 1", i, got)
		}
	}
}

// TestDueRowsAreBounded sets many more timers within the look-ahead window than
// memory may hold, and has them all fire, also those that were set meanwhile.
func TestDueRowsAreBounded(t *testing.T) {
	const most, timers = 64, 1000
	w := newWorld(t, 1, func(w *world) {
		w.cfg.Limits = core.Limits{DueRowsMax: most, DueMax: 16, DueRunningMax: 8}
	})
	ctx := context.Background()
	due := time.Now().Add(300 * time.Millisecond)
	for i := range timers {
		id := fmt.Sprint("a", i%20)
		if err := w.m.SetTimer(ctx, ref(id), nola.Timer{Name: fmt.Sprint("t", i), Operation: "inc", Due: due.Add(time.Duration(i%300) * time.Millisecond)}); err != nil {
			t.Fatal(err)
		}
		if n := w.m.Shards()[0].Due; n > most {
			t.Fatalf("%d rows are in memory, the limit is %d", n, most)
		}
	}
	eventually(t, "all timers have fired, once each", func() bool {
		for i := range 20 {
			if w.must(fmt.Sprint("a", i), "get", "") != fmt.Sprint(timers/20) {
				return false
			}
		}
		return true
	})
	if got := strings.TrimSpace(w.must("a0", "timers", "")); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestDelayedCastsAreLimited fills an actor with delayed casts, over a crash, and
// looks whether there is room again once they have run.
func TestDelayedCastsAreLimited(t *testing.T) {
	const most = 5
	w := newWorld(t, 1, func(w *world) { w.cfg.Limits = core.Limits{DelayedMax: most} })
	cast := func(after time.Duration) error {
		_, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref("a"), Operation: "inc"}, time.Now().Add(after))
		return err
	}
	for range most {
		if err := cast(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := cast(time.Hour); reason(err) != nola.ReasonBacklogFull {
		t.Errorf("one more than the limit: %v, want BACKLOG_FULL", err)
	}
	w.crash()
	eventually(t, "all have run", func() bool { return w.must("a", "get", "") == fmt.Sprint(most) })
	for range most {
		if err := cast(time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	w.crash()
	if err := cast(time.Hour); reason(err) != nola.ReasonBacklogFull {
		t.Errorf("one more than the limit after a crash: %v, want BACKLOG_FULL", err)
	}
}
