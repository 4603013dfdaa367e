package shard_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

func (w *world) info(r nola.ScheduleRef) nola.ScheduleInfo {
	w.t.Helper()
	info, err := w.m.GetSchedule(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// running makes a schedule one of whose firings runs, until the gate is opened.
func (w *world) running(policy nola.Policy) nola.ScheduleRef {
	w.t.Helper()
	r := w.schedule("s", "a", "gated", nola.Spec{At: []time.Time{time.Now().Add(20 * time.Millisecond)}}, policy)
	eventually(w.t, "a firing runs", func() bool { return len(w.info(r).Progress.Running) == 1 })
	return r
}

func TestBackfillThroughCrashes(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	r := w.schedule("s", "a", "nominal", every(time.Hour), nola.Policy{})
	end := time.Now().Truncate(time.Hour)
	b := nola.Backfill{ID: "b", Start: end.Add(-29 * time.Hour), End: end, Rate: nola.BackfillRateMax}
	for range 2 { // the second answers the first
		got, err := w.m.BackfillSchedule(ctx, r, b)
		if err != nil || got.Total != 30 {
			t.Fatalf("backfill: %+v %v", got, err)
		}
	}
	for range 3 {
		want := w.distinct("a") + 3
		eventually(t, "three more times are filled in", func() bool { return w.distinct("a") >= min(want, 30) })
		w.crash()
	}
	eventually(t, "the backfill ends", func() bool { return w.info(r).Progress.Backfills[0].State == nola.BackfillDone })
	if b := w.info(r).Progress.Backfills[0]; b.OK != 30 || b.Failed != 0 || w.distinct("a") != 30 {
		t.Errorf("%+v, the target saw %d times, want 30", b, w.distinct("a"))
	}
	second := int64(time.Second)
	_, err := w.m.BackfillSchedule(ctx, w.schedule("second", "b", "nominal", nola.Spec{Interval: []nola.Interval{{Every: time.Duration(second)}}}, nola.Policy{}),
		nola.Backfill{ID: "century", Start: end.Add(-50 * 365 * 24 * time.Hour), End: end})
	if reason(err) != nola.ReasonLimitExceeded {
		t.Errorf("a backfill of half a century of seconds: %v", err)
	}
}

func TestDeadLetterIsRedriven(t *testing.T) {
	w := newWorld(t, 1, func(w *world) { w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond} })
	ctx := context.Background()
	retry := nola.Retry{Deadline: time.Minute, BackoffMin: nola.RetryBackoffMin, AttemptsMax: 3}
	r := w.schedule("s", "a", "fail", every(time.Hour), nola.Policy{Retry: retry, PauseAfterFailures: 1})
	if _, err := w.m.TriggerSchedule(ctx, r, "req", 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is a dead letter", func() bool { return len(w.info(r).Progress.DeadLetters) == 1 })
	w.crash()
	info := w.info(r)
	l := info.Progress.DeadLetters[0]
	if l.Number != 1 || l.Attempts != 3 || string(l.Payload) != "x" || l.Reason != nola.ReasonGuestError {
		t.Errorf("dead letter %+v", l)
	}
	if !info.Schedule.Paused || info.Schedule.PauseReason == "" || info.Schedule.ETag != 1 {
		t.Errorf("after a failure the schedule is %+v, want it paused, with a reason and its etag", info.Schedule)
	}
	if o := info.Recent[0]; o.Reason != nola.ReasonGuestError || o.RequestID != "req" {
		t.Errorf("record %+v", o)
	}
	op := "nominal"
	if _, err := w.m.UpdateSchedule(ctx, r, nola.ScheduleChange{Operation: &op}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.RedriveDeadLetter(ctx, r, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes well", func() bool { return w.distinct("a") == 1 })
	if got := w.info(r).Progress; len(got.DeadLetters) != 0 || got.LettersMade != 1 {
		t.Errorf("letters %+v", got.DeadLetters)
	}
	if _, err := w.m.RedriveDeadLetter(ctx, r, 1); reason(err) != nola.ReasonDeadLetterNotFound {
		t.Errorf("a second time: %v", err)
	}
	// The same trigger after its end answers the time it had.
	o, err := w.m.TriggerSchedule(ctx, r, "req", 0, nil)
	if err != nil || !o.Nominal.Equal(l.Nominal) {
		t.Errorf("the same trigger again: %+v %v, want its nominal time %s", o, err, l.Nominal)
	}
}

func TestBufferedFiringsSurviveCrash(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	r := w.running(nola.Policy{Overlap: nola.OverlapBufferAll, BufferLimit: 2})
	var outcomes []nola.Outcome
	for i := range 3 {
		o, err := w.m.TriggerSchedule(ctx, r, fmt.Sprint(i), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, o.Outcome)
	}
	if want := []nola.Outcome{nola.OutcomeBuffered, nola.OutcomeBuffered, nola.OutcomeBufferDropped}; !slices.Equal(outcomes, want) {
		t.Errorf("outcomes %v, want %v", outcomes, want)
	}
	w.crash()
	close(w.code.gate("firing"))
	eventually(t, "all that waited have fired", func() bool {
		p := w.info(r).Progress
		return p.Counters[nola.OutcomeFired].Count == 3 && len(p.Buffer)+len(p.Running) == 0
	})
}

// TestTerminateOtherRollsBack has the second firing interrupt the first, which
// waits for a gate that is shut. That is no failure of the first.
func TestTerminateOtherRollsBack(t *testing.T) {
	w := newWorld(t, 1)
	ctx := context.Background()
	r := w.running(nola.Policy{Overlap: nola.OverlapTerminateOther, PauseAfterFailures: 1})
	if _, err := w.m.TriggerSchedule(ctx, r, "two", 0, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second runs", func() bool {
		p := w.info(r).Progress
		return len(p.Running) == 1 && p.Running[0].RequestID == "two"
	})
	if p := w.info(r).Progress; p.Counters[nola.OutcomeTerminated].Count != 1 || p.Failures != 0 || !p.Carry.IsZero() {
		t.Errorf("after the first was terminated: %+v", p)
	}
	close(w.code.gate("firing"))
	eventually(t, "the second has ended", func() bool { return w.info(r).Progress.Counters[nola.OutcomeFired].Count == 1 })
	var ended []string
	for _, o := range w.info(r).Recent {
		ended = append(ended, fmt.Sprint(o.RequestID, " ", o.Outcome, " ", o.OK, " ", o.Reason))
	}
	slices.Sort(ended)
	if want := []string{" TERMINATED false TERMINATED", "two FIRED true "}; !slices.Equal(ended, want) {
		t.Errorf("ended %q, want %q", ended, want)
	}
	if n := w.distinct("a"); n != 1 {
		t.Errorf("the target keeps %d firings, want that of the second alone", n)
	}
}

func TestSkippedAndMovedOccurrences(t *testing.T) {
	w := newWorld(t, 2)
	ctx := context.Background()
	r := w.schedule("s", "a", "nominal", every(time.Hour), nola.Policy{})
	next := w.info(r).Next
	if err := w.m.SkipOccurrence(ctx, r, next[1]); err != nil {
		t.Fatal(err)
	}
	if err := w.m.MoveOccurrence(ctx, r, next[0], time.Now().Add(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := w.m.SkipOccurrence(ctx, r, next[0].Add(time.Minute)); reason(err) != nola.ReasonInvalidArgument {
		t.Errorf("what is no nominal time: %v", err)
	}
	w.crash()
	eventually(t, "the moved one fires", func() bool { return w.distinct("a") == 1 })
	if after := w.info(r).Next; !after[0].Equal(next[2]) {
		t.Errorf("next is %s, want %s", after[0], next[2])
	}
	if err := w.m.UnskipOccurrence(ctx, r, next[1]); err != nil {
		t.Fatal(err)
	}
	if after := w.info(r).Next; !after[0].Equal(next[1]) {
		t.Errorf("next is %s after the unskip, want %s", after[0], next[1])
	}
}

func TestDeleteLooksAtTheETag(t *testing.T) {
	w := newWorld(t, 2)
	ctx := context.Background()
	r := w.schedule("s", "a", "nominal", every(time.Hour), nola.Policy{})
	if err := w.m.DeleteSchedule(ctx, r, 2); reason(err) != nola.ReasonETagMismatch {
		t.Errorf("delete with a stale etag: %v", err)
	}
	if err := w.m.DeleteSchedule(ctx, r, 1); err != nil {
		t.Error(err)
	}
}

// TestNothingFiresAfterTheActorIsDeleted: its schedules, reminders, timers and
// what waits in a buffer go with it.
func TestNothingFiresAfterTheActorIsDeleted(t *testing.T) {
	w := newWorld(t, 2)
	ctx := context.Background()
	r := w.schedule("s", "a", "nominal", every(100*time.Millisecond), nola.Policy{Overlap: nola.OverlapBufferAll})
	w.must("a", "remind", "r|nominal|100")
	w.must("a", "timer", "t|nominal|200")
	if err := w.m.DeleteActor(ctx, ref("a")); err != nil {
		t.Fatal(err)
	}
	w.must("b", "wait150", "")
	w.crash()
	w.must("b", "wait150", "")
	if got := w.must("a", "get", "log"); got != "" {
		t.Errorf("after the delete fired %q", got)
	}
	reader := persistence.Reader{Store: w.store}
	rows, err := reader.Due(nola.ShardOf(r.Target, w.store.Cluster().Shards), persistence.DueRow{}, time.Now().Add(24*time.Hour), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Target == r.Target && row.Kind != persistence.DueKeyExpiry {
			t.Errorf("the due index still has %+v", row)
		}
	}
}

// TestDeleteInterruptsTheFiring deletes a schedule whose firing runs, and waits
// for a gate that stays shut. Only its interruption lets the actor go on, and
// nothing that it did stays.
func TestDeleteInterruptsTheFiring(t *testing.T) {
	w := newWorld(t, 1)
	r := w.running(nola.Policy{Retry: nola.Retry{Deadline: time.Minute, BackoffMin: nola.RetryBackoffMin}})
	if err := w.m.DeleteSchedule(context.Background(), r, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := w.invoke("a", "get", "log"); got != "" || err != nil {
		t.Errorf("after the delete the actor has %q, %v", got, err)
	}
	w.crash()
	close(w.code.gate("firing"))
	if got := w.must("a", "get", "log"); got != "" {
		t.Errorf("the firing came back after a crash: %q", got)
	}
}

// TestDeleteActorWaitsForTheFiring deletes an actor whose firing runs: the turn
// ends before the delete is answered, and what it did goes with the actor.
func TestDeleteActorWaitsForTheFiring(t *testing.T) {
	fired := make(chan nola.Occurrence, 1)
	w := newWorld(t, 1, func(w *world) {
		w.cfg.Events.Fired = func(_ nola.ScheduleRef, o nola.Occurrence, _ []byte) { fired <- o }
	})
	w.running(nola.Policy{})
	deleted := make(chan error, 1)
	go func() { deleted <- w.m.DeleteActor(context.Background(), ref("a")) }()
	eventually(t, "the delete waits its turn", func() bool {
		info, err := w.m.DescribeActor(context.Background(), ref("a"))
		return err == nil && info.Mailbox == 2
	})
	select {
	case err := <-deleted:
		t.Fatalf("the delete was answered with %v while a firing runs", err)
	default:
	}
	close(w.code.gate("firing"))
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	if o := <-fired; o.Outcome != nola.OutcomeFired {
		t.Errorf("the firing ended as %v", o.Outcome)
	}
	if got := w.must("a", "get", "log"); got != "" {
		t.Errorf("of the deleted actor there is %q", got)
	}
}

// TestTriggerDoesNotWaitForItsTurn demands that a trigger is answered once it is
// durable, while what it fired runs.
func TestTriggerDoesNotWaitForItsTurn(t *testing.T) {
	w := newWorld(t, 1)
	r := w.schedule("s", "a", "gated", every(time.Hour), nola.Policy{})
	answered := make(chan error, 1)
	go func() {
		_, err := w.m.TriggerSchedule(context.Background(), r, "one", 0, nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the trigger waits for its turn")
	}
	close(w.code.gate("firing"))
	eventually(t, "it has fired", func() bool { return w.info(r).Progress.Counters[nola.OutcomeFired].Count == 1 })
}
