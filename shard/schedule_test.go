package shard_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
	"github.com/nolaproject/nola/shard"
	"github.com/nolaproject/nola/shard/core"
)

// wallClock is the real clock, moved by an offset: a clock that people set.
type wallClock struct{ offset atomic.Int64 }

func (c *wallClock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func (c *wallClock) jump(d time.Duration) { c.offset.Add(int64(d)) }

func every(d time.Duration) nola.Spec { return nola.Spec{Interval: []nola.Interval{{Every: d}}} }

func (w *world) schedule(id, target, op string, spec nola.Spec, policy nola.Policy) nola.ScheduleRef {
	w.t.Helper()
	s := nola.Schedule{Namespace: "default", ID: id, Incarnation: 1, Target: ref(target), Operation: op, Spec: spec, Policy: policy}
	if _, err := w.m.CreateSchedule(context.Background(), s, ""); err != nil {
		w.t.Fatal(err)
	}
	return nola.ScheduleRef{Target: ref(target), ID: id}
}

// stretch says that a schedule is due at every multiple of a period later than a time.
type stretch struct {
	after time.Time
	every time.Duration
}

// accounted checks that every nominal time of an interval schedule since its creation
// has exactly one outcome or still runs, and answers what fired.
func (w *world) accounted(r nola.ScheduleRef, every time.Duration) (fired []nola.Occurrence) {
	w.t.Helper()
	return w.accountedIn(r, []stretch{{every: every}})
}

// accountedIn does so for a schedule whose period has changed: each stretch ends where
// the next one begins, the first begins when the schedule was made. The counters and
// what runs or waits together must be as many as the nominal times, and each of these
// must be in one record, or run or wait.
func (w *world) accountedIn(r nola.ScheduleRef, stretches []stretch) (fired []nola.Occurrence) {
	w.t.Helper()
	info, err := w.m.GetSchedule(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	reader := persistence.Reader{Store: w.store}
	// Read last: they may be ahead of info, not behind.
	list, err := reader.Occurrences(nola.ShardOf(r.Target, w.store.Cluster().Shards), r.Target, r.Reminder, r.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(list) >= nola.OccurrencesMax {
		w.t.Fatalf("%s has %d records: the first are gone", r.ID, len(list))
	}
	through := info.Progress.Through
	until := through
	for _, o := range list {
		if o.Kind == nola.OccurrenceRegular && o.Last.After(until) {
			until = o.Last
		}
	}
	var times []time.Time
	for i, st := range stretches {
		after, end := st.after, until
		if i == 0 {
			after = info.Schedule.Created
		}
		if i+1 < len(stretches) {
			end = stretches[i+1].after
		}
		first := after.UnixNano()/int64(st.every) + 1
		for n := time.Unix(0, first*int64(st.every)); !n.After(end); n = n.Add(st.every) {
			times = append(times, n)
		}
	}
	passed, _ := slices.BinarySearchFunc(times, through.Add(1), time.Time.Compare)
	records := make([]int, len(times))
	for _, o := range list {
		if o.Kind != nola.OccurrenceRegular {
			continue
		}
		i, starts := slices.BinarySearchFunc(times, o.Nominal, time.Time.Compare)
		end, ends := slices.BinarySearchFunc(times, o.Last, time.Time.Compare)
		if end++; !starts || !ends || end-i != o.Count {
			w.t.Errorf("%s has a record that does not fit its nominal times: %+v", r.ID, o)
			continue
		}
		for ; i < end; i++ {
			records[i]++
		}
		if o.Outcome == nola.OutcomeFired {
			fired = append(fired, o)
			if o.Started.Before(o.Nominal) {
				w.t.Errorf("%s fired at %s, before its time %s", r.ID, o.Started, o.Nominal)
			}
		}
	}
	pending := make(map[int64]bool)
	for _, run := range slices.Concat(info.Progress.Running, info.Progress.Buffer) {
		pending[run.Nominal.UnixNano()] = true
	}
	undecided := len(pending)
	for _, span := range info.Progress.Late {
		undecided += span.Count
		for _, n := range times {
			if !n.Before(span.First) && !n.After(span.Last) {
				pending[n.UnixNano()] = true
			}
		}
	}
	for i, n := range times {
		open := i >= passed || pending[n.UnixNano()] // when info was read
		if records[i] > 1 || records[i] == 0 && !open {
			w.t.Errorf("%s: nominal time %s has %d outcomes, want 1", r.ID, n.UTC().Format(time.RFC3339Nano), records[i])
		}
	}
	counted := uint64(0)
	for outcome, c := range info.Progress.Counters {
		if counted += c.Count; outcome == 0 {
			w.t.Errorf("%s: %d times without an outcome", r.ID, c.Count)
		}
	}
	if counted+uint64(undecided) != uint64(passed) {
		w.t.Errorf("%s: %d outcomes and %d times that run or wait, of the %d times from %s to %s", r.ID, counted, undecided, passed, info.Schedule.Created, through)
	}
	return fired
}

// distinct checks that the target saw no nominal time twice, and answers how
// many it saw.
func (w *world) distinct(target string) int { return len(w.nominals(target)) }

// sawAll checks that the target saw the nominal times of what fired, but for those
// whose place a later one took before their turns began.
func (w *world) sawAll(target string, fired []nola.Occurrence) {
	w.t.Helper()
	seen := w.nominals(target)
	for _, o := range fired {
		if o.Reason != nola.ReasonCanceled && !seen[strconv.FormatInt(o.Nominal.UnixMilli(), 10)] {
			w.t.Errorf("%s did not see %d (%s), which fired: %+v; it saw %v", target, o.Nominal.UnixMilli(), o.Nominal, o, slices.Sorted(maps.Keys(seen)))
		}
	}
}

func (w *world) nominals(target string) map[string]bool {
	w.t.Helper()
	seen := make(map[string]bool)
	for _, x := range strings.Fields(w.must(target, "get", "log")) {
		if seen[x] {
			w.t.Errorf("%s saw nominal time %s twice", target, x)
		}
		seen[x] = true
	}
	return seen
}

func TestScheduleFires(t *testing.T) {
	w := newWorld(t, 4)
	r := w.schedule("s", "a", "nominal", every(100*time.Millisecond), nola.Policy{})
	eventually(t, "five firings", func() bool { return w.distinct("a") >= 5 })
	info, err := w.m.GetSchedule(context.Background(), r)
	if err != nil || info.Progress.Counters[nola.OutcomeFired].Count < 5 || len(info.Recent) == 0 || len(info.Next) == 0 {
		t.Errorf("info %+v %v", info, err)
	}
	if err := w.m.DeleteSchedule(context.Background(), r, 0); err != nil {
		t.Fatal(err)
	}
	n := w.distinct("a")
	if _, err := w.m.GetSchedule(context.Background(), r); reason(err) != nola.ReasonScheduleNotFound {
		t.Errorf("after delete: %v", err)
	}
	w.crash()
	w.must("b", "wait150", "")
	if got := w.distinct("a"); got != n {
		t.Errorf("%d firings, %d when the delete was acknowledged", got, n)
	}
}

func TestScheduleThroughCrashes(t *testing.T) {
	const period = 100 * time.Millisecond
	w := newWorld(t, 4)
	all := nola.Policy{Catchup: nola.Catchup{Mode: nola.CatchupAll}}
	allow := nola.Policy{Overlap: nola.OverlapAllowAll, Catchup: nola.Catchup{Mode: nola.CatchupAll}}
	refs := []nola.ScheduleRef{
		w.schedule("skip", "a", "nominal", every(period), nola.Policy{}),
		w.schedule("all", "b", "nominal", every(period), all),
		w.schedule("allow", "c", "nominal", every(period), allow),
	}
	w.must("d", "remind", "r|nominal|100")
	refs = append(refs, nola.ScheduleRef{Target: ref("d"), ID: "r", Reminder: true})
	for round := range 5 {
		want := w.distinct("b") + 3
		eventually(t, "three more firings", func() bool { return w.distinct("b") >= want })
		_ = round
		w.crash()
	}
	want := w.distinct("d") + 2
	eventually(t, "firing goes on", func() bool { return w.distinct("d") >= want })
	for _, r := range refs {
		fired := w.accounted(r, period)
		// Between the two reads it may fire: the target is ahead at most.
		w.sawAll(r.Target.ID, fired)
		if len(fired) == 0 {
			t.Errorf("%s has not fired", r.ID)
		}
	}
	if got := w.must("d", "unremind", "r"); got != "true" {
		t.Errorf("cancel of the reminder: %s", got)
	}
}

func TestRunningFiringSurvivesCrash(t *testing.T) {
	w := newWorld(t, 4)
	r := w.schedule("s", "a", "gated", every(100*time.Millisecond), nola.Policy{})
	eventually(t, "a firing runs and the next are skipped", func() bool {
		info, err := w.m.GetSchedule(context.Background(), r)
		return err == nil && info.Progress.Counters[nola.OutcomeSkippedOverlap].Count >= 2
	})
	w.crash()
	close(w.code.gate("firing"))
	eventually(t, "it fires after the crash", func() bool { return w.distinct("a") >= 2 })
	w.accounted(r, 100*time.Millisecond)
}

// TestLoneFiringSurvivesCrash crashes while a firing runs whose schedule is due again
// in an hour only. It runs again after the crash although nobody asks for the
// schedule meanwhile, and nothing of it comes due.
func TestLoneFiringSurvivesCrash(t *testing.T) {
	w := newWorld(t, 4)
	r := w.schedule("s", "a", "gated", every(time.Hour), nola.Policy{})
	if _, err := w.m.TriggerSchedule(context.Background(), r, "req", 0, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the firing runs", func() bool { return w.code.turns.Load() > 0 })
	w.crash()
	close(w.code.gate("firing"))
	// Asking for the actor alone brings nothing about.
	eventually(t, "it fires after the crash", func() bool { return w.distinct("a") == 1 })
	info, err := w.m.GetSchedule(context.Background(), r)
	if c := info.Progress.Counters[nola.OutcomeFired]; err != nil || c.Count != 1 {
		t.Errorf("%d firings have an outcome, want one; %v", c.Count, err)
	}
}

// TestFiringThatCannotStart fires at an actor without a module, and an operation that
// the module does not have: the one outcome of each says that it did not start.
func TestFiringThatCannotStart(t *testing.T) {
	w := newWorld(t, 1, func(w *world) { w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond} })
	ctx := context.Background()
	for id, target := range map[string]nola.ActorRef{
		"module":    {Namespace: "default", Type: "missing", ID: "a"},
		"operation": ref("a"),
	} {
		s := nola.Schedule{
			Namespace: "default", ID: id, Incarnation: 1, Target: target, Operation: "no such",
			Spec: nola.Spec{At: []time.Time{time.Now().Add(50 * time.Millisecond)}},
		}
		if _, err := w.m.CreateSchedule(ctx, s, ""); err != nil {
			t.Fatal(err)
		}
		var info nola.ScheduleInfo
		eventually(t, "the firing ends", func() (ended bool) {
			var err error
			info, err = w.m.GetSchedule(ctx, nola.ScheduleRef{Target: target, ID: id})
			return err == nil && len(info.Recent) > 0
		})
		if o := info.Recent[0]; len(info.Recent) != 1 || o.Outcome != nola.OutcomeFailedStart || o.Error == "" || info.Progress.Counters[nola.OutcomeFired].Count != 0 {
			t.Errorf("no %s: %+v, want one FAILED_START that says why", id, info.Recent)
		}
	}
}

func TestClockJumps(t *testing.T) {
	var clock wallClock
	w := newWorld(t, 4, func(w *world) { w.cfg.Now = clock.now })
	r := w.schedule("s", "a", "nominal", every(100*time.Millisecond), nola.Policy{})
	w.must("b", "timer", "half|inc|1800000")
	w.must("b", "timer", "two|inc|7200000")
	key := nola.Key{Session: nola.SessionID{5}, Seq: 1, FirstAttempt: clock.now()}
	if _, err := w.keyed("k", "inc", "", key); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it fires", func() bool { return w.distinct("a") >= 3 })
	clock.jump(time.Hour)
	eventually(t, "the timer of half an hour fires", func() bool { return w.must("b", "get", "") == "1" })
	n := w.distinct("a")
	eventually(t, "it goes on after the jump", func() bool { return w.distinct("a") >= n+3 })
	clock.jump(-time.Hour)
	if got := w.must("b", "get", ""); got != "1" {
		t.Errorf("after the jump back %s timers have fired, want 1", got)
	}
	if res, err := w.keyed("k", "inc", "", key); err == nil && !res.Replayed || err != nil && reason(err) != nola.ReasonKeyExpired {
		t.Errorf("the keyed call after the jumps: %+v %v, it must not run again", res, err)
	}
	// A look at the schedule while its cursor lies ahead of the clock.
	etag := uint64(1)
	for _, paused := range []bool{true, false} {
		info, err := w.m.UpdateSchedule(context.Background(), r, nola.ScheduleChange{ETag: etag, Paused: &paused})
		if err != nil {
			t.Fatal(err)
		}
		etag = info.Schedule.ETag
	}
	w.crash()
	w.distinct("a")
	w.accounted(r, 100*time.Millisecond)
	clock.jump(time.Hour)
	n = w.distinct("a")
	eventually(t, "it goes on when time has caught up", func() bool { return w.distinct("a") >= n+3 })
	w.accounted(r, 100*time.Millisecond)
}

// TestDeletedActorsScheduleIsForgotten deletes an actor whose schedule is due in an
// hour, so that memory does not hold it, and lets the hour pass: it does not fire,
// and that of another actor does.
func TestDeletedActorsScheduleIsForgotten(t *testing.T) {
	var clock wallClock
	w := newWorld(t, 1, func(w *world) { w.cfg.Now = clock.now })
	w.must("a", "inc", "")
	r := w.schedule("s", "a", "nominal", every(time.Hour), nola.Policy{})
	w.schedule("s", "b", "nominal", every(time.Hour), nola.Policy{})
	if err := w.m.DeleteActor(context.Background(), ref("a")); err != nil {
		t.Fatal(err)
	}
	clock.jump(time.Hour)
	eventually(t, "the other actor's schedule fires", func() bool { return w.distinct("b") > 0 })
	if n := w.distinct("a"); n != 0 {
		t.Errorf("the schedule of the deleted actor has fired %d times", n)
	}
	if info, err := w.m.GetSchedule(context.Background(), r); reason(err) != nola.ReasonScheduleNotFound {
		t.Errorf("the schedule of the deleted actor: %+v, %v, want %s", info, err, nola.ReasonScheduleNotFound)
	}
}

func TestTriggerAndPause(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	r := w.schedule("s", "a", "nominal", every(time.Hour), nola.Policy{})
	for range 2 {
		if _, err := w.m.TriggerSchedule(ctx, r, "req-1", 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the trigger fires", func() bool { return w.distinct("a") == 1 })
	paused := true
	info, err := w.m.UpdateSchedule(ctx, r, nola.ScheduleChange{ETag: 1, Paused: &paused})
	if err != nil || !info.Schedule.Paused || len(info.Next) != 0 {
		t.Errorf("pause: %+v %v", info, err)
	}
	if _, err := w.m.UpdateSchedule(ctx, r, nola.ScheduleChange{ETag: 1, Paused: &paused}); reason(err) != nola.ReasonETagMismatch {
		t.Errorf("stale etag: %v", err)
	}
	bad := nola.Spec{Cron: []nola.Cron{{Expression: "99 * * * *"}}}
	if _, err := w.m.UpdateSchedule(ctx, r, nola.ScheduleChange{Spec: &bad}); reason(err) != nola.ReasonInvalidSpec {
		t.Errorf("bad spec: %v", err)
	}
	if err := w.m.DeleteActor(ctx, ref("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.GetSchedule(ctx, r); reason(err) != nola.ReasonScheduleNotFound {
		t.Errorf("schedule of a deleted actor: %v", err)
	}
}

func TestFailingFiring(t *testing.T) {
	w := newWorld(t, 1, func(w *world) { w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond} })
	ctx := context.Background()
	at := []time.Time{time.Now().Add(50 * time.Millisecond)}
	r := w.schedule("trap", "a", "trap", nola.Spec{At: at}, nola.Policy{})
	f := w.schedule("fail", "a", "fail", nola.Spec{At: at}, nola.Policy{})
	for _, x := range []struct {
		ref      nola.ScheduleRef
		attempts int
	}{{r, 5}, {f, 1}} {
		var o nola.Occurrence
		eventually(t, "the firing ends", func() bool {
			info, err := w.m.GetSchedule(ctx, x.ref)
			if err != nil || len(info.Recent) == 0 {
				return false
			}
			o = info.Recent[0]
			return true
		})
		if o.Outcome != nola.OutcomeFired || o.OK || o.Attempts != x.attempts || o.Error == "" {
			t.Errorf("%s: %+v, want a failed firing after %d attempts", x.ref.ID, o, x.attempts)
		}
	}
	if got := w.must("a", "get", ""); got != "" {
		t.Errorf("n = %q: a failed firing leaves nothing", got)
	}
}

func TestManyTimersAtOnce(t *testing.T) {
	const n = 2000
	w := newWorld(t, 8)
	due := time.Now().Add(200 * time.Millisecond)
	for i := range n {
		if _, err := w.m.Cast(context.Background(), &nola.Invocation{Target: ref(fmt.Sprint(i % 100)), Operation: "inc"}, due); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		eventually(t, "all arrive", func() bool { return w.must(fmt.Sprint(i), "get", "") == fmt.Sprint(n/100) })
	}
}

// TestCrashStopIsNoOutcome: that the node stops ends no firing and no cast, even if the
// attempt that it interrupts was to be their last. They wait in nested calls, and
// another commit is under way as it stops, so that they end in time for a next one.
func TestCrashStopIsNoOutcome(t *testing.T) {
	var hold atomic.Int64
	var held, release chan struct{}
	interrupted := make(chan struct{}, 2)
	w := newWorld(t, 2, func(w *world) {
		w.cfg.Limits = core.Limits{AttemptsMax: 1}
		w.cfg.Events.Turn = func(_ nola.Kind, _ nola.ActorRef, _ time.Duration, _ uint64, err error) {
			if err != nil {
				interrupted <- struct{}{}
			}
		}
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{Delay: func(int) {
				if hold.Add(-1) == 0 {
					close(held)
					<-release
				}
			}})
		}
	})
	ctx := context.Background()
	s := nola.Schedule{
		Namespace: "default", ID: "s", Incarnation: 1, Target: ref("fired"), Operation: "inccall", Payload: []byte("busy|wait|go"),
		Spec: every(time.Hour), Policy: nola.Policy{Retry: nola.Retry{AttemptsMax: 1, Deadline: time.Hour}},
	}
	if _, err := w.m.CreateSchedule(ctx, s, ""); err != nil {
		t.Fatal(err)
	}
	r := nola.ScheduleRef{Target: s.Target, ID: s.ID}
	if _, err := w.m.TriggerSchedule(ctx, r, "req", 0, nil); err != nil {
		t.Fatal(err)
	}
	w.must("sender", "cast", "cast to|inccall|busy|wait|go")
	rounds := 50
	if os.Getenv("NOLA_SLOW") != "" {
		rounds = 500
	}
	for range rounds {
		w.called(2)
		held, release = make(chan struct{}), make(chan struct{})
		hold.Store(2) // mostly that of the timer, which nobody waits for
		answered := make(chan error, 1)
		go func(m *shard.Manager) {
			_, err := m.Invoke(ctx, &nola.Invocation{Target: ref("other"), Operation: "timer", Payload: []byte("t|inc|1")})
			answered <- err
		}(w.m)
		<-held
		closed := make(chan struct{})
		go func() { w.close(); close(closed) }()
		<-interrupted
		close(release)
		<-closed
		switch err := <-answered; reason(err) {
		case "", nola.ReasonShardMoving, nola.ReasonOutcomeUnknown, nola.ReasonUnavailable:
		default:
			t.Fatalf("who sets a timer as the node stops is answered %v", err)
		}
		for len(interrupted) > 0 {
			<-interrupted
		}
		w.start()
	}
	close(w.code.gate("go"))
	for _, id := range []string{"fired", "cast to"} {
		eventually(t, id+" runs again", func() bool { return w.must(id, "get", "") == "1" })
	}
	info, err := w.m.GetSchedule(ctx, r)
	if err != nil || len(info.Recent) != 1 || !info.Recent[0].OK {
		t.Errorf("the firing has the records %+v, want one that went well; %v", info.Recent, err)
	}
}

// called waits until n calls wait for their answers.
func (w *world) called(n int) {
	w.t.Helper()
	eventually(w.t, "calls wait", func() bool {
		calls := 0
		for _, s := range w.m.Shards() {
			calls += s.Unanswered
		}
		return calls == n
	})
}

// TestCastsToManyNewActors: casts that reach a shard together find all their targets,
// although none of these is in memory, or has anything in the store.
func TestCastsToManyNewActors(t *testing.T) {
	const casts = 10
	for range 20 {
		w := newWorld(t, 2)
		for i := range casts {
			w.must("sender", "cast", fmt.Sprintf("new%d|inccall|busy|wait|go", i))
		}
		w.called(casts)
		close(w.code.gate("go"))
		w.close()
	}
}
