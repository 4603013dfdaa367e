package shard_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/faultstore"
	"github.com/nolaproject/nola/shard/core"
)

var seed = flag.Int64("seed", 0, "seed of the random tests; 0 chooses one")

// TestCrashOutcomesUnderEverything drives schedules whose targets go well, fail,
// trap, lack the operation or the module, or run on while their buffer overflows:
// with a clock that is set forward and back by minutes, an hour and a day, commits
// that go wrong, crashes, pauses and updates across due times, which change the
// period too. In the end each nominal time since the creation has exactly one
// outcome, no firing was early, and the targets saw none twice. It prints the seed
// that repeats it.
func TestCrashOutcomesUnderEverything(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	rounds := 1
	if os.Getenv("NOLA_SLOW") != "" {
		rounds = 40
	}
	for round := range rounds {
		outcomesUnderEverything(t, *seed+int64(round))
		if t.Failed() {
			return
		}
	}
}

func outcomesUnderEverything(t *testing.T, seed int64) {
	t.Logf("repeat with -seed=%d", seed)
	const (
		firstPeriod = 7 * time.Minute
		jitterMax   = 2 * time.Minute
	)
	r := rand.New(rand.NewSource(seed))
	var clock wallClock
	faults := rand.New(rand.NewSource(seed + 1))
	var faulty atomic.Bool
	faulty.Store(true)
	w := newWorld(t, 1+r.Intn(4), func(w *world) {
		w.cfg.Now = clock.now
		w.cfg.Limits = core.Limits{BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond}
		w.wrap = func(s persistence.Store) persistence.Store {
			return faultstore.New(s, faultstore.Plan{Commit: func(int, int, *persistence.Batch) faultstore.Fault {
				if !faulty.Load() || faults.Intn(12) > 0 {
					return faultstore.None
				}
				return []faultstore.Fault{faultstore.FenceNow, faultstore.ErrorBefore, faultstore.ErrorAfter}[faults.Intn(3)]
			}})
		}
	})
	ctx := context.Background()
	undone := func(err error) bool {
		switch reason(err) {
		case nola.ReasonShardMoving, nola.ReasonOutcomeUnknown, nola.ReasonUnavailable:
			return true
		}
		return false
	}
	// What a fault undoes is done again: each of these may be done twice.
	again := func(what string, f func() error) {
		t.Helper()
		eventually(t, what, func() bool {
			err := f()
			if undone(err) {
				return false
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			return true
		})
	}
	policies := map[string]nola.Policy{
		"skip":  {},
		"all":   {Overlap: nola.OverlapBufferAll, Catchup: nola.Catchup{Mode: nola.CatchupAll, Max: 20}},
		"first": {Overlap: nola.OverlapAllowAll, Catchup: nola.Catchup{Mode: nola.CatchupFirst, Window: 2 * time.Hour}},
		"none":  {Overlap: nola.OverlapCancelOther, Catchup: nola.Catchup{Mode: nola.CatchupNone}},
	}
	var refs []nola.ScheduleRef
	stretches := make(map[string][]stretch) // by schedule
	for id, target := range map[string]nola.ScheduleRef{
		"skip":  {Target: ref("skip"), ID: "nominal"},
		"all":   {Target: ref("all"), ID: "nominal"},
		"first": {Target: ref("first"), ID: "nominal"},
		"none":  {Target: ref("none"), ID: "nominal"},
		"fails": {Target: ref("fails"), ID: "fail"},
		"traps": {Target: ref("traps"), ID: "trap"},
		"lacks": {Target: ref("lacks"), ID: "no such operation"},
		"gone":  {Target: nola.ActorRef{Namespace: "default", Type: "missing", ID: "gone"}, ID: "nominal"},
		"full":  {Target: ref("full"), ID: "gated"},
	} {
		policy := policies[id]
		if id == "full" {
			policy = nola.Policy{Overlap: nola.OverlapBufferAll, BufferLimit: 2, Catchup: nola.Catchup{Mode: nola.CatchupAll, Max: 3}}
		}
		sd := nola.Schedule{Namespace: "default", ID: id, Incarnation: 1, Target: target.Target, Operation: target.ID, Spec: every(firstPeriod), Policy: policy}
		again("create "+id, func() error {
			_, err := w.m.CreateSchedule(ctx, sd, "")
			return err
		})
		refs = append(refs, nola.ScheduleRef{Target: target.Target, ID: id})
		stretches[id] = []stretch{{every: firstPeriod}}
	}
	period := func(s nola.ScheduleRef) time.Duration {
		of := stretches[s.ID]
		return of[len(of)-1].every
	}
	slices.SortFunc(refs, func(a, b nola.ScheduleRef) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	look := func(s nola.ScheduleRef) (info nola.ScheduleInfo) {
		t.Helper()
		again("read "+s.ID, func() (err error) {
			info, err = w.m.GetSchedule(ctx, s)
			return err
		})
		return info
	}
	// To look also tells the shard the new time.
	settled := func(s nola.ScheduleRef) bool {
		p := look(s).Progress
		return (p.Due.IsZero() || p.Due.After(clock.now())) && len(p.Running)+len(p.Buffer)+len(p.Late) == 0
	}
	// linger gives what was begun some time to end. It need not: what a clock that
	// was set back has put into the future waits for its time. settle comes last.
	linger := func() {
		for _, s := range refs {
			for tries := 50; tries > 0 && s.ID != "full" && !settled(s); tries-- {
				<-time.After(time.Millisecond)
			}
		}
	}
	settle := func() {
		t.Helper()
		for _, s := range refs {
			eventually(t, fmt.Sprintf("schedule %s settles (-seed=%d)", s.ID, seed), func() bool { return settled(s) })
		}
	}
	// brink sets the clock to shortly before a nominal time of a schedule, which comes by itself then,
	// amid whatever follows.
	brink := func(s nola.ScheduleRef) {
		now, every := time.Duration(clock.now().UnixNano()), period(s)
		clock.jump(every - now%every - time.Duration(r.Intn(20_000))*time.Microsecond)
	}
	jitter := func() time.Duration { return time.Duration(r.Intn(3)) * jitterMax / 2 }
	// change gives a schedule another period, once, and notes from when on it counts.
	change := func(s nola.ScheduleRef, spec nola.Spec) {
		t.Helper()
		before, ahead := look(s), clock.now()
		after := nola.ScheduleInfo{}
		again("change "+s.ID, func() (err error) {
			after, err = w.m.UpdateSchedule(ctx, s, nola.ScheduleChange{Spec: &spec, ETag: before.Schedule.ETag})
			if reason(err) != nola.ReasonETagMismatch {
				return err
			}
			// It was made, and its answer lost. What it has decided since is of the new
			// period: that counts from the update on, or from where the old one had got
			// to if the clock had been set back before that.
			if after, err = w.m.GetSchedule(ctx, s); err == nil && !before.Progress.Through.After(ahead) {
				after.Progress.Through = after.Schedule.Updated
			}
			return err
		})
		stretches[s.ID] = append(stretches[s.ID], stretch{after.Progress.Through, spec.Interval[0].Every})
	}
	for range 25 {
		switch r.Intn(9) {
		case 0:
			clock.jump([]time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour}[r.Intn(4)])
		case 1:
			w.crash()
		case 2, 3:
			s, pause := refs[r.Intn(len(refs))], r.Intn(2) == 0
			again("pause "+s.ID, func() error {
				_, err := w.m.UpdateSchedule(ctx, s, nola.ScheduleChange{Paused: &pause})
				return err
			})
		case 4:
			s := refs[r.Intn(len(refs))]
			spec := every(period(s)) // the same nominal times
			spec.Jitter = jitter()
			again("update "+s.ID, func() error {
				_, err := w.m.UpdateSchedule(ctx, s, nola.ScheduleChange{Spec: &spec})
				return err
			})
		case 5:
			s, spec := refs[r.Intn(len(refs))], every(time.Duration(5+r.Intn(6))*time.Minute)
			spec.Jitter = jitter()
			switch r.Intn(4) {
			case 0:
				brink(s)
			case 1: // between a nominal time and when it fires
				brink(s)
				clock.jump(time.Duration(1+r.Intn(60)) * time.Second)
			case 2: // over times that nobody has looked at when the update comes
				clock.jump(time.Duration(r.Intn(20)) * time.Minute)
			}
			change(s, spec)
		default:
			clock.jump(time.Duration(r.Intn(20)) * time.Minute)
		}
		if r.Intn(2) == 0 {
			brink(refs[r.Intn(len(refs))])
		}
		if r.Intn(2) == 0 {
			for _, s := range refs {
				look(s)
			}
			if r.Intn(3) == 0 {
				w.crash() // amid what that has begun
			}
			continue
		}
		linger()
	}
	faulty.Store(false)
	close(w.code.gate("firing"))
	for _, s := range refs {
		pause := false
		again("unpause "+s.ID, func() error {
			_, err := w.m.UpdateSchedule(ctx, s, nola.ScheduleChange{Paused: &pause})
			return err
		})
	}
	clock.jump(10 * 24 * time.Hour) // whatever it shows now, it passes where it has been
	for range 3 {
		clock.jump(26 * time.Hour)
		brink(refs[r.Intn(len(refs))])
		settle()
	}
	upTo := clock.now()
	settle()
	brink(refs[r.Intn(len(refs))])
	for _, s := range refs {
		last := time.Unix(0, upTo.Add(-jitterMax).UnixNano()/int64(period(s))*int64(period(s)))
		if through := look(s).Progress.Through; through.Before(last) {
			t.Errorf("%s has come to %s, its time %s has passed", s.ID, through, last)
		}
		fired := w.accountedIn(s, stretches[s.ID])
		switch s.ID {
		case "skip", "all", "first", "none", "full":
			w.sawAll(s.ID, fired)
		}
		if t.Failed() {
			t.Fatalf("repeat with -seed=%d", seed)
		}
	}
}
