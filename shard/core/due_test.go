package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/scheduler"
	"github.com/nolaproject/nola/shard/core"
)

// behind is a schedule of every second that nobody has looked at for a day, and
// that fires none of what it missed. It ends in time for nothing to fire now.
func behind(t *testing.T, id string, now time.Time) persistence.ScheduleRow {
	t.Helper()
	sd := nola.Schedule{
		Namespace: "default", ID: id, Incarnation: 1, Operation: "tick", ETag: 1,
		Target: nola.ActorRef{Namespace: "default", Type: "clock", ID: id},
		Spec:   nola.Spec{Cron: []nola.Cron{{Expression: "* * * * * *", Dialect: nola.DialectSeconds}}, End: now.Add(-time.Minute)},
		Policy: nola.Policy{Catchup: nola.Catchup{Mode: nola.CatchupNone}},
	}
	plan, _, err := scheduler.NewPlan(&sd)
	if err != nil {
		t.Fatal(err)
	}
	return persistence.ScheduleRow{Schedule: sd, Progress: plan.Start(&sd, now.Add(-24*time.Hour))}
}

// TestWhatATickMakesDueWaitsForTheNext has two schedules decide about a day of
// seconds each. One decision takes them a part of the way; the rest is due at
// once, and must wait for the next tick, or the first one keeps everybody out
// until it is done.
func TestWhatATickMakesDueWaitsForTheNext(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rows := map[string]persistence.ScheduleRow{"a": behind(t, "a", now), "b": behind(t, "b", now)}
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{})
	var out core.Output
	step := func(in core.Input) {
		t.Helper()
		out.Reset()
		for todo := []core.Input{in}; len(todo) > 0; todo = todo[1:] {
			s.Step(now, todo[0], &out)
			for _, l := range out.Loads {
				switch l.Kind {
				case core.LoadDue:
					for id, row := range rows {
						l.Due = append(l.Due, persistence.DueRow{Due: row.Progress.Due, Target: row.Schedule.Target, Kind: persistence.DueSchedule, Name: id})
					}
				case core.LoadSchedule:
					l.Row, l.Found = rows[l.Schedule.ID], true
				default:
					t.Fatalf("a load of kind %d", l.Kind)
				}
				todo = append(todo, l)
			}
			out.Loads = out.Loads[:0]
		}
	}
	through := func(id string) time.Time {
		t.Helper()
		op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: nola.ScheduleRef{Target: rows[id].Schedule.Target, ID: id}}
		step(op)
		if op.Err != nil {
			t.Fatal(op.Err)
		}
		return op.Info.Progress.Through
	}
	const part = scheduler.NominalsMax * time.Second
	start := rows["a"].Progress.Through
	step(&core.Tick{}) // reads what is due, and decides a first part
	if a, b := through("a"), through("b"); !a.Equal(start.Add(part)) || !b.Equal(a) {
		t.Fatalf("at first they came to %s and %s, want %s", a, b, start.Add(part))
	}
	ticks := 1
	end := rows["a"].Schedule.Spec.End
	for last := through("a"); last.Before(end); ticks++ {
		if wake := s.Wake(); wake.IsZero() || wake.After(now) {
			t.Fatalf("with times to decide the shard wants to be woken at %s, it is %s", wake, now)
		}
		step(&core.Tick{})
		want := last.Add(part)
		if want.After(end) {
			want = end
		}
		a, b := through("a"), through("b")
		if !a.Equal(want) || !b.Equal(want) {
			t.Fatalf("tick %d brought them to %s and %s, want %s", ticks, a, b, want)
		}
		last = a
	}
	if want := int(24*time.Hour/part) + 1; ticks != want {
		t.Errorf("a day took %d ticks, want %d", ticks, want)
	}
	if wake := s.Wake(); !wake.After(now) {
		t.Errorf("with nothing to decide the shard wants to be woken at %s, it is %s", wake, now)
	}
}

// TestUnknownSpecRests loads a schedule whose spec this version refuses, and of
// which a firing ran when the last tenure ended. Nobody can say what the end of
// that firing means, so it does not begin again.
func TestUnknownSpecRests(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	row := behind(t, "a", now)
	row.Schedule.Spec = nola.Spec{Cron: []nola.Cron{{Expression: "0 25 * * *"}}}
	row.Progress.Running = []nola.Running{{Nominal: now, Kind: nola.OccurrenceRegular, Started: now, Attempts: 1}}
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{})
	var out core.Output
	for todo := []core.Input{&core.Tick{}}; len(todo) > 0; todo = todo[1:] {
		out.Reset()
		s.Step(now, todo[0], &out)
		if len(out.Turns) > 0 {
			t.Fatalf("a turn begins: %+v", out.Turns[0])
		}
		for _, l := range out.Loads {
			switch l.Kind {
			case core.LoadDue:
				l.Due = append(l.Due, persistence.DueRow{Due: now, Target: row.Schedule.Target, Kind: persistence.DueSchedule, Name: "a"})
			case core.LoadSchedule:
				l.Row, l.Found = row, true
			default:
				t.Fatalf("a load of kind %d: the firing begins", l.Kind)
			}
			todo = append(todo, l)
		}
	}
}

// TestATickBringsAboutSoMuch has many timers due at one instant. A tick that took
// them all would keep callers out of the shard until the last one is under way.
func TestATickBringsAboutSoMuch(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const count, atOnce = 300, 16
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{})
	var out core.Output
	rows := func(l *core.Load) {
		for i := range count {
			target := nola.ActorRef{Namespace: "default", Type: "t", ID: fmt.Sprint(i)}
			l.Due = append(l.Due, persistence.DueRow{Due: now, Target: target, Kind: persistence.DueTimer, Name: "t", Invocation: &nola.Invocation{Target: target}})
		}
	}
	loaded := 0
	var step func(core.Input) int
	step = func(in core.Input) (actors int) {
		out.Reset()
		s.Step(now, in, &out)
		for _, l := range out.Loads {
			if l.Kind == core.LoadDue && loaded == 0 {
				loaded++
				rows(l)
				return actors + step(l)
			}
			if l.Kind == core.LoadActor {
				actors++
			}
		}
		return actors
	}
	all := 0
	for in := 0; all < count; in++ {
		if wake := s.Wake(); wake.IsZero() || wake.After(now) {
			t.Fatalf("after %d of %d the shard wants to be woken at %s", all, count, wake)
		}
		n := step(&core.Tick{})
		if n == 0 || n > atOnce {
			t.Fatalf("tick %d brought about %d timers, at most %d is right, and at least 1", in, n, atOnce)
		}
		all += n
	}
	if all != count {
		t.Errorf("%d timers were brought about, %d were due", all, count)
	}
}

// TestUpdateDecidesInParts pauses a schedule of every second that nobody has looked
// at for a day. One step decides a part; calls come in between, and in the end each
// second has its outcome once.
func TestUpdateDecidesInParts(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	row := behind(t, "a", now)
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{})
	var out core.Output
	answered := func(ticket *core.Ticket) bool {
		for _, a := range out.Answers {
			if a == ticket {
				return true
			}
		}
		return false
	}
	step := func(in core.Input) {
		t.Helper()
		out.Reset()
		for todo := []core.Input{in}; len(todo) > 0; todo = todo[1:] {
			s.Step(now, todo[0], &out)
			for _, l := range out.Loads {
				if l.Kind == core.LoadSchedule {
					l.Row, l.Found = row, true
				}
				todo = append(todo, l)
			}
			out.Loads = out.Loads[:0]
		}
	}
	ref := nola.ScheduleRef{Target: row.Schedule.Target, ID: "a"}
	look := func() nola.Progress {
		t.Helper()
		op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: ref}
		step(op)
		return op.Info.Progress
	}
	paused := true
	pause := &core.ScheduleOp{Kind: core.UpdateSchedule, Ref: ref, Change: nola.ScheduleChange{Paused: &paused}}
	step(pause)
	done := answered(&pause.Ticket)
	last := row.Progress.Through
	for ticks := 0; ; ticks++ {
		through := look().Through
		if part := through.Sub(last); part > 5*scheduler.NominalsMax*time.Second {
			t.Fatalf("step %d decided %s of seconds at once", ticks, part)
		}
		if last = through; !s.Wake().Equal(now) && s.Wake().After(now) {
			break
		}
		if ticks > 100 {
			t.Fatalf("after %d ticks the schedule has come to %s", ticks, last)
		}
		step(&core.Tick{})
		done = done || answered(&pause.Ticket)
	}
	if batch := s.TakeBatch(); batch != nil {
		out.Reset()
		s.Step(now, &core.Committed{}, &out)
		done = done || answered(&pause.Ticket)
	}
	if !done || pause.Err != nil || !pause.Info.Schedule.Paused {
		t.Errorf("the pause: answered %t, %v, %+v", done, pause.Err, pause.Info.Schedule.Paused)
	}
	day := uint64(24*time.Hour/time.Second) - 60
	if c := look().Counters[nola.OutcomeMissedWindow]; c.Count != day {
		t.Errorf("of %d seconds %d have the outcome MISSED_WINDOW", day, c.Count)
	}
}

// TestNoNamespaceTakesAllDueTurns has many timers of one namespace due, and behind
// them one of another. The first namespace gets as many turns as the limit says, the
// rest waits in the index; the other one's turn comes at once.
func TestNoNamespaceTakesAllDueTurns(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const count, most, atOnce = 100, 8, 4
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{DueTurnsMax: most, DueAtOnce: atOnce}.WithDefaults())
	timer := func(namespace string, id int, due time.Time) persistence.DueRow {
		target := nola.ActorRef{Namespace: namespace, Type: "t", ID: fmt.Sprint(id)}
		return persistence.DueRow{Due: due, Target: target, Kind: persistence.DueTimer, Name: "t", Invocation: &nola.Invocation{Target: target}}
	}
	var rows []persistence.DueRow
	for i := range count {
		rows = append(rows, timer("herd", i, now.Add(-time.Minute)))
	}
	rows = append(rows, timer("other", 0, now.Add(-time.Second)))
	var out core.Output
	var given []*core.Turn
	begun := map[string]int{}
	step := func(in core.Input) {
		t.Helper()
		out.Reset()
		for todo := []core.Input{in}; len(todo) > 0; todo = todo[1:] {
			s.Step(now, todo[0], &out)
			for _, l := range out.Loads {
				if l.Kind == core.LoadDue {
					l.Due, rows = rows, nil
				}
				todo = append(todo, l)
			}
			out.Loads = out.Loads[:0]
		}
		for _, turn := range out.Turns {
			begun[turn.Act.Ref().Namespace]++
			given = append(given, turn)
		}
	}
	// ticks lets the shard do what it wants to do now.
	ticks := func() {
		t.Helper()
		for n := 0; ; n++ {
			if wake := s.Wake(); wake.IsZero() || wake.After(now) {
				return
			}
			if n > count {
				t.Fatal("the shard wants to be woken without end")
			}
			step(&core.Tick{})
		}
	}
	ticks()
	if got := begun["herd"]; got < most || got >= most+atOnce {
		t.Errorf("%d turns of the herd wait or run, at most %d are right, and %d more of the last tick", got, most, atOnce-1)
	}
	if begun["other"] != 1 {
		t.Errorf("the other namespace has %d turns, want 1", begun["other"])
	}
	for len(given) > 0 {
		turn := given[0]
		given = given[1:]
		step(turn)
		ticks()
		if len(given) > most+atOnce { // one is the other namespace's
			t.Fatalf("%d turns wait or run", len(given))
		}
	}
	if begun["herd"] != count || begun["other"] != 1 {
		t.Errorf("turns began %v, want %d and 1", begun, count)
	}
}

// TestDueTurnsThatWaitForOthers has as many due turns as a namespace may have, and
// none of them ends: they may wait for timers behind them. Those come in time.
func TestDueTurnsThatWaitForOthers(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := start
	const count, most = 1000, 8
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{DueTurnsMax: most, DueAtOnce: 4}.WithDefaults())
	var out core.Output
	begun, asked := 0, false
	for begun < count {
		out.Reset()
		for todo := []core.Input{&core.Tick{}}; len(todo) > 0; todo = todo[1:] {
			s.Step(now, todo[0], &out)
			for _, l := range out.Loads {
				if l.Kind == core.LoadDue && !asked {
					asked = true
					for i := range count {
						target := nola.ActorRef{Namespace: "default", Type: "t", ID: fmt.Sprint(i)}
						l.Due = append(l.Due, persistence.DueRow{Due: start, Target: target, Kind: persistence.DueTimer, Name: "t", Invocation: &nola.Invocation{Target: target}})
					}
				}
				todo = append(todo, l)
			}
			out.Loads = out.Loads[:0]
		}
		begun += len(out.Turns)
		wake := s.Wake()
		if begun < count && (wake.IsZero() || wake.Sub(start) > time.Second) {
			t.Fatalf("%d of %d turns have begun, and the shard wants to be woken %s later", begun, count, wake.Sub(start))
		}
		if wake.After(now) {
			now = wake
		}
	}
	if now.Equal(start) {
		t.Errorf("%d turns began at once", count)
	}
}

// TestSchedulesInMemoryAreBounded asks twice for more schedules than may stay in
// memory because they are due soon: most are read twice.
func TestSchedulesInMemoryAreBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const count, most = 50, 8
	s := core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, core.Limits{SchedulesMax: most}.WithDefaults())
	var out core.Output
	reads := 0
	step := func(in core.Input) {
		t.Helper()
		out.Reset()
		for todo := []core.Input{in}; len(todo) > 0; todo = todo[1:] {
			s.Step(now, todo[0], &out)
			for _, l := range out.Loads {
				if l.Kind == core.LoadSchedule {
					reads++
					l.Row, l.Found = behind(t, l.Schedule.ID, now), true
					l.Row.Schedule.Spec.End = time.Time{}
					l.Row.Progress.Through, l.Row.Progress.Due = now, now.Add(time.Second)
				}
				todo = append(todo, l)
			}
			out.Loads = out.Loads[:0]
		}
	}
	step(&core.Tick{}) // reads what is due: nothing
	for round, right := range []func(int) bool{
		func(n int) bool { return n == count },
		func(n int) bool { return n >= count-most && n < count },
	} {
		reads = 0
		for i := range count {
			id := fmt.Sprint((i + round*(count-most/2)) % count) // the second time beginning with those that came last
			op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: nola.ScheduleRef{Target: nola.ActorRef{Namespace: "default", Type: "clock", ID: id}, ID: id}}
			if step(op); op.Err != nil {
				t.Fatal(op.Err)
			}
		}
		if !right(reads) {
			t.Errorf("round %d read %d of %d schedules, %d may stay in memory", round, reads, count, most)
		}
	}
}
