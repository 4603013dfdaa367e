package shard_test

import (
	"context"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard"
)

var virtualStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newVirtualWorld(t *testing.T, change ...func(*world)) (*world, *shard.VirtualClock) {
	clock := shard.NewVirtualClock(virtualStart)
	return newWorld(t, 4, append(change, func(w *world) { w.cfg.Virtual = clock })...), clock
}

func (w *world) advance(t *testing.T, to time.Time) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if at, err := w.m.Advance(ctx, to); err != nil || !at.Equal(to) {
		t.Fatalf("advance to %s: %s, %v", to, at, err)
	}
}

// TestAdvanceFiresEachAtItsTime lets a schedule run for 30 days and looks at once
// at what became of each nominal time.
func TestAdvanceFiresEachAtItsTime(t *testing.T) {
	const days = 30
	fired := make(chan nola.Occurrence, 2*days)
	w, clock := newVirtualWorld(t, func(w *world) {
		w.cfg.Events.Fired = func(_ nola.ScheduleRef, o nola.Occurrence, _ []byte) { fired <- o }
	})
	_, err := w.m.CreateSchedule(context.Background(), nola.Schedule{
		Namespace: "default", ID: "daily", Incarnation: 1, Target: ref("a"), Operation: "inc",
		Spec:   nola.Spec{Cron: []nola.Cron{{Expression: "0 6 * * *"}}},
		Policy: nola.Policy{Overlap: nola.OverlapSkip, Catchup: nola.Catchup{Mode: nola.CatchupLast}},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.advance(t, clock.Now().Add(days*24*time.Hour))
	if len(fired) != days {
		t.Fatalf("%d firings in %d days", len(fired), days)
	}
	for day := range days {
		o := <-fired
		want := virtualStart.Add(time.Duration(day)*24*time.Hour + 6*time.Hour)
		if !o.Nominal.Equal(want) || !o.Started.Equal(want) || !o.Ended.Equal(want) || !o.OK {
			t.Errorf("firing %d: %+v, want one at %s", day, o, want)
		}
	}
}

// TestAdvanceSettles casts into the future, across shards, and reads at once.
func TestAdvanceSettles(t *testing.T) {
	w, clock := newVirtualWorld(t)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		inv := &nola.Invocation{Target: ref(id), Operation: "inc"}
		if _, err := w.m.Cast(context.Background(), inv, clock.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	w.advance(t, clock.Now().Add(time.Hour-1))
	if got := w.must("a", "get", ""); got != "" && got != "0" {
		t.Errorf("a nanosecond early: %q", got)
	}
	w.advance(t, clock.Now().Add(1))
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		if got := w.must(id, "get", ""); got != "1" {
			t.Errorf("%s after its hour: %q", id, got)
		}
	}
}

func TestAdvanceRefuses(t *testing.T) {
	w, clock := newVirtualWorld(t)
	if _, err := w.m.Advance(context.Background(), clock.Now().Add(-1)); reason(err) != nola.ReasonInvalidArgument {
		t.Errorf("backwards: %v", err)
	}
	if _, err := w.m.Advance(context.Background(), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)); reason(err) != nola.ReasonInvalidArgument {
		t.Errorf("too far: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if at, err := w.m.Advance(ctx, clock.Now().Add(time.Hour)); reason(err) != nola.ReasonDeadlineExceeded || !at.Equal(virtualStart) {
		t.Errorf("by a caller that has left: %s, %v", at, err)
	}
	real := newWorld(t, 1)
	if _, err := real.m.Advance(context.Background(), time.Now()); reason(err) != nola.ReasonTimeNotVirtual {
		t.Errorf("in real time: %v", err)
	}
}
