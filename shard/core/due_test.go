package core_test

import (
	"fmt"
	"slices"
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

// desk steps inputs into a shard and answers what the shard asks the store for.
type desk struct {
	t   *testing.T
	s   *core.Shard
	now time.Time
	out core.Output // of the last step
	// load fills in what the store has. If it is false, the store has not answered
	// yet. Without it the store is empty.
	load func(*core.Load) bool
}

func newDesk(t *testing.T, limits core.Limits, load func(*core.Load) bool) *desk {
	return &desk{
		t: t, s: core.New(core.Opened{Head: persistence.Head{Epoch: 1}}, 1, limits.WithDefaults()),
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), load: load,
	}
}

func (d *desk) step(in core.Input) {
	d.out.Reset()
	for todo := []core.Input{in}; len(todo) > 0; todo = todo[1:] {
		d.s.Step(d.now, todo[0], &d.out)
		for _, l := range d.out.Loads {
			if d.load == nil || d.load(l) {
				todo = append(todo, l)
			}
		}
		d.out.Loads = d.out.Loads[:0]
	}
}

// ticks lets the shard do what it wants to do now. seen is told after each tick.
func (d *desk) ticks(seen func()) {
	d.t.Helper()
	for n := 0; ; n++ {
		if wake := d.s.Wake(); wake.IsZero() || wake.After(d.now) {
			return
		}
		if n > 10_000 {
			d.t.Fatal("the shard wants to be woken without end")
		}
		d.step(&core.Tick{})
		seen()
	}
}

// dueTimer is a timer of an actor of its own.
func dueTimer(namespace string, id int, due time.Time) persistence.DueRow {
	target := nola.ActorRef{Namespace: namespace, Type: "t", ID: fmt.Sprint(id)}
	return persistence.DueRow{Due: due, Target: target, Kind: persistence.DueTimer, Name: "t", Invocation: &nola.Invocation{Target: target}}
}

// dueSchedule is the row of a schedule of an actor of its own.
func dueSchedule(namespace string, id int, due time.Time) persistence.DueRow {
	target := nola.ActorRef{Namespace: namespace, Type: "clock", ID: fmt.Sprint(id)}
	return persistence.DueRow{Due: due, Target: target, Kind: persistence.DueSchedule, Name: "s"}
}

// TestWhatATickMakesDueWaitsForTheNext has two schedules decide about a day of
// seconds each. One decision takes them a part of the way; the rest is due at
// once, and must wait for the next tick, or the first one keeps everybody out
// until it is done.
func TestWhatATickMakesDueWaitsForTheNext(t *testing.T) {
	rows := map[string]persistence.ScheduleRow{}
	d := newDesk(t, core.Limits{}, func(l *core.Load) bool {
		switch l.Kind {
		case core.LoadDue:
			for id, row := range rows {
				l.Due = append(l.Due, persistence.DueRow{Due: row.Progress.Due, Target: row.Schedule.Target, Kind: persistence.DueSchedule, Name: id})
			}
		case core.LoadSchedule:
			*l.Row, l.Found = rows[l.Schedule.ID], true
		default:
			t.Fatalf("a load of kind %d", l.Kind)
		}
		return true
	})
	s, now := d.s, d.now
	rows["a"], rows["b"] = behind(t, "a", now), behind(t, "b", now)
	through := func(id string) time.Time {
		t.Helper()
		op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: nola.ScheduleRef{Target: rows[id].Schedule.Target, ID: id}}
		d.step(op)
		if op.Err != nil {
			t.Fatal(op.Err)
		}
		return op.Info.Progress.Through
	}
	const part = scheduler.NominalsMax * time.Second
	start := rows["a"].Progress.Through
	d.step(&core.Tick{}) // reads what is due, and decides a first part
	if a, b := through("a"), through("b"); !a.Equal(start.Add(part)) || !b.Equal(a) {
		t.Fatalf("at first they came to %s and %s, want %s", a, b, start.Add(part))
	}
	ticks := 1
	end := rows["a"].Schedule.Spec.End
	for last := through("a"); last.Before(end); ticks++ {
		if wake := s.Wake(); wake.IsZero() || wake.After(now) {
			t.Fatalf("with times to decide the shard wants to be woken at %s, it is %s", wake, now)
		}
		d.step(&core.Tick{})
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
	var row persistence.ScheduleRow
	d := newDesk(t, core.Limits{}, func(l *core.Load) bool {
		switch l.Kind {
		case core.LoadDue:
			l.Due = append(l.Due, persistence.DueRow{Due: row.Progress.Running[0].Nominal, Target: row.Schedule.Target, Kind: persistence.DueSchedule, Name: "a"})
		case core.LoadSchedule:
			*l.Row, l.Found = row, true
		default:
			t.Fatalf("a load of kind %d: the firing begins", l.Kind)
		}
		return true
	})
	row = behind(t, "a", d.now)
	row.Schedule.Spec = nola.Spec{Cron: []nola.Cron{{Expression: "0 25 * * *"}}}
	row.Progress.Running = []nola.Running{{Nominal: d.now, Kind: nola.OccurrenceRegular, Started: d.now, Attempts: 1}}
	if d.step(&core.Tick{}); len(d.out.Turns) > 0 {
		t.Fatalf("a turn begins: %+v", d.out.Turns[0])
	}
}

// TestATickBringsAboutSoMuch has many timers due at one instant. A tick that took
// them all would keep callers out of the shard until the last one is under way.
func TestATickBringsAboutSoMuch(t *testing.T) {
	const count, atOnce = 300, 16
	var rows []persistence.DueRow
	actors := 0
	d := newDesk(t, core.Limits{DueTurnsMax: count + 1, DueMax: count + 1, DueRowsMax: 2 * count}, func(l *core.Load) bool {
		switch l.Kind {
		case core.LoadDue:
			l.Due, rows = rows, nil
		case core.LoadActor:
			actors++
			return false
		}
		return true
	})
	for i := range count {
		rows = append(rows, dueTimer("default", i, d.now))
	}
	last := 0
	d.ticks(func() {
		if n := actors - last; n > atOnce || n == 0 && actors < count {
			t.Fatalf("a tick brought about %d timers, at most %d is right, and at least 1", n, atOnce)
		}
		last = actors
	})
	if actors != count {
		t.Errorf("%d timers were brought about, %d were due", actors, count)
	}
}

// TestUpdateDecidesInParts pauses a schedule of every second that nobody has looked
// at for a day. One step decides a part; calls come in between, and in the end each
// second has its outcome once.
func TestUpdateDecidesInParts(t *testing.T) {
	var row persistence.ScheduleRow
	d := newDesk(t, core.Limits{}, func(l *core.Load) bool {
		if l.Kind == core.LoadSchedule {
			*l.Row, l.Found = row, true
		}
		return true
	})
	row = behind(t, "a", d.now)
	answered := func(ticket *core.Ticket) bool { return slices.Contains(d.out.Answers, ticket) }
	ref := nola.ScheduleRef{Target: row.Schedule.Target, ID: "a"}
	look := func() nola.Progress {
		t.Helper()
		op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: ref}
		d.step(op)
		return op.Info.Progress
	}
	paused := true
	pause := &core.ScheduleOp{Kind: core.UpdateSchedule, Ref: ref, Change: nola.ScheduleChange{Paused: &paused}}
	d.step(pause)
	done := answered(&pause.Ticket)
	last := row.Progress.Through
	for ticks := 0; ; ticks++ {
		through := look().Through
		if part := through.Sub(last); part > 5*scheduler.NominalsMax*time.Second {
			t.Fatalf("step %d decided %s of seconds at once", ticks, part)
		}
		if last = through; !d.s.Wake().Equal(d.now) && d.s.Wake().After(d.now) {
			break
		}
		if ticks > 100 {
			t.Fatalf("after %d ticks the schedule has come to %s", ticks, last)
		}
		d.step(&core.Tick{})
		done = done || answered(&pause.Ticket)
	}
	if batch := d.s.TakeBatch(); batch != nil {
		d.step(&core.Committed{})
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
	const count, most, atOnce = 100, 8, 4
	var rows []persistence.DueRow
	d := newDesk(t, core.Limits{DueTurnsMax: most, DueAtOnce: atOnce}, func(l *core.Load) bool {
		if l.Kind == core.LoadDue {
			l.Due, rows = rows, nil
		}
		return true
	})
	for i := range count {
		rows = append(rows, dueTimer("herd", i, d.now.Add(-time.Minute)))
	}
	rows = append(rows, dueTimer("other", 0, d.now.Add(-time.Second)))
	var given []*core.Turn
	begun := map[string]int{}
	take := func() {
		for _, turn := range d.out.Turns {
			begun[turn.Act.Ref().Namespace]++
			given = append(given, turn)
		}
	}
	d.ticks(take)
	if got := begun["herd"]; got != most {
		t.Errorf("%d turns of the herd wait or run, want %d", got, most)
	}
	if begun["other"] != 1 {
		t.Errorf("the other namespace has %d turns, want 1", begun["other"])
	}
	for len(given) > 0 {
		turn := given[0]
		given = given[1:]
		d.step(turn)
		take()
		d.ticks(take)
		if len(given) > most+1 { // one is the other namespace's
			t.Fatalf("%d turns wait or run", len(given))
		}
	}
	if begun["herd"] != count || begun["other"] != 1 {
		t.Errorf("turns began %v, want %d and 1", begun, count)
	}
}

// TestNoNamespaceTakesAllDueReads is the same while the store is slow: what is read
// for turns that are due counts like these turns.
func TestNoNamespaceTakesAllDueReads(t *testing.T) {
	const count, most = 100, 8
	for name, row := range map[string]func(string, int, time.Time) persistence.DueRow{"timers": dueTimer, "schedules": dueSchedule} {
		t.Run(name, func(t *testing.T) {
			var rows []persistence.DueRow
			var asked []*core.Load
			reads := map[string]int{}
			d := newDesk(t, core.Limits{DueTurnsMax: most}, func(l *core.Load) bool {
				switch l.Kind {
				case core.LoadDue:
					l.Due, rows = rows, nil
					return true
				case core.LoadActor, core.LoadSchedule:
					reads[l.Ref.Namespace]++
					asked = append(asked, l)
				}
				return false
			})
			for i := range count {
				rows = append(rows, row("herd", i, d.now.Add(-time.Minute)))
			}
			rows = append(rows, row("other", 0, d.now.Add(-time.Second)))
			nothing := func() {}
			d.ticks(nothing)
			if reads["herd"] != most || reads["other"] != 1 {
				t.Errorf("reads have begun: %v, want %d and 1", reads, most)
			}
			for len(asked) > 0 {
				l := asked[0]
				asked = asked[1:]
				d.step(l)
				for _, turn := range d.out.Turns {
					d.step(turn)
				}
				d.ticks(nothing)
				if len(asked) > most+1 { // one is the other namespace's
					t.Fatalf("%d reads are under way", len(asked))
				}
			}
			if reads["herd"] != count || reads["other"] != 1 {
				t.Errorf("reads began: %v, want %d and 1", reads, count)
			}
		})
	}
}

// beginner is the shell of an actor whose turns have begun up to that number.
type beginner uint64

func (b beginner) Began(number uint64) bool { return number <= uint64(b) }

func begin(turn *core.Turn) { turn.Act.Shell = beginner(turn.Number) }

// TestDueTurnsThatWaitForOthers has as many due turns as a namespace may have, and
// none of them ends: they may wait for timers behind them. Those come in time.
func TestDueTurnsThatWaitForOthers(t *testing.T) {
	const count, most = 1000, 8
	var rows []persistence.DueRow
	d := newDesk(t, core.Limits{DueTurnsMax: most, DueAtOnce: 4, DueMax: count, DueRowsMax: count}, func(l *core.Load) bool {
		if l.Kind == core.LoadDue {
			l.Due, rows = rows, nil
		}
		return true
	})
	start := d.now
	for i := range count {
		rows = append(rows, dueTimer("default", i, start))
	}
	begun := 0
	for begun < count {
		d.step(&core.Tick{})
		begun += len(d.out.Turns)
		for _, turn := range d.out.Turns {
			begin(turn)
		}
		wake := d.s.Wake()
		if begun < count && (wake.IsZero() || wake.Sub(start) > time.Second) {
			t.Fatalf("%d of %d turns have begun, and the shard wants to be woken %s later", begun, count, wake.Sub(start))
		}
		if wake.After(d.now) {
			d.now = wake
		}
	}
	if d.now.Equal(start) {
		t.Errorf("%d turns began at once", count)
	}
}

// TestDueTurnsThatEnd: a namespace gets more turns when all it has have begun and none
// has ended for a while, and has no more than it may once they end. It gets new ones
// when half of those have ended, all at once.
func TestDueTurnsThatEnd(t *testing.T) {
	const count, most = 100, 8
	var rows []persistence.DueRow
	d := newDesk(t, core.Limits{DueTurnsMax: most}, func(l *core.Load) bool {
		if l.Kind == core.LoadDue {
			l.Due, rows = rows, nil
		}
		return true
	})
	for i := range count {
		rows = append(rows, dueTimer("default", i, d.now))
	}
	var given []*core.Turn
	take := func() { given = append(given, d.out.Turns...) }
	d.ticks(take)
	for range 3 { // they wait for nobody but their owner
		d.now = d.s.Wake()
		d.ticks(take)
		if len(given) != most {
			t.Fatalf("with one not begun %d turns are given, want %d", len(given), most)
		}
		for _, turn := range given[:most-1] {
			begin(turn)
		}
	}
	begin(given[most-1])
	d.now = d.s.Wake()
	d.ticks(take)
	if len(given) != 2*most {
		t.Fatalf("with all begun and none ended %d turns are given, want %d", len(given), 2*most)
	}
	for len(given) > most/2+1 {
		before := len(given)
		d.step(given[0])
		given = given[1:]
		take()
		if d.ticks(take); len(given) >= before {
			t.Fatalf("with %d turns that wait or run there are new ones", before-1)
		}
	}
	d.step(given[0])
	given = given[1:]
	if d.ticks(take); len(given) != most {
		t.Errorf("when half have ended %d turns wait or run, want %d", len(given), most)
	}
}

// TestSchedulesInMemoryAreBounded asks twice for more schedules than may stay in
// memory because they are due soon: most are read twice.
func TestSchedulesInMemoryAreBounded(t *testing.T) {
	const count, most = 50, 8
	reads := 0
	var d *desk
	d = newDesk(t, core.Limits{SchedulesMax: most}, func(l *core.Load) bool {
		if l.Kind == core.LoadSchedule {
			reads++
			*l.Row, l.Found = behind(t, l.Schedule.ID, d.now), true
			l.Row.Schedule.Spec.End = time.Time{}
			l.Row.Progress.Through, l.Row.Progress.Due = d.now, d.now.Add(time.Second)
		}
		return true
	})
	d.step(&core.Tick{}) // reads what is due: nothing
	for round, right := range []func(int) bool{
		func(n int) bool { return n == count },
		func(n int) bool { return n >= count-most && n < count },
	} {
		reads = 0
		for i := range count {
			id := fmt.Sprint((i + round*(count-most/2)) % count) // the second time beginning with those that came last
			op := &core.ScheduleOp{Kind: core.GetSchedule, Ref: nola.ScheduleRef{Target: nola.ActorRef{Namespace: "default", Type: "clock", ID: id}, ID: id}}
			if d.step(op); op.Err != nil {
				t.Fatal(op.Err)
			}
		}
		if !right(reads) {
			t.Errorf("round %d read %d of %d schedules, %d may stay in memory", round, reads, count, most)
		}
	}
}
