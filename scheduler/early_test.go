package scheduler_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// TestAdvanceIsNotEarly looks a nanosecond before something is due: nothing is
// decided, also not that it waits.
func TestAdvanceIsNotEarly(t *testing.T) {
	minutes := nola.Spec{Interval: []nola.Interval{{Every: time.Minute}}}
	jittered := minutes
	jittered.Jitter = 30 * time.Second
	for name, spec := range map[string]nola.Spec{"regular": minutes, "jittered": jittered, "moved": minutes} {
		t.Run(name, func(t *testing.T) {
			s := counterSchedule(spec, nola.Policy{})
			p := plan(t, s)
			pr := p.Start(s, t0)
			n := t0.Add(time.Minute)
			due := p.Compiled().Jittered(n)
			if name == "moved" {
				due = n.Add(-10 * time.Second)
				if err := p.Move(s, &pr, n, due, t0); err != nil {
					t.Fatal(err)
				}
			}
			before := pr.Clone()
			d := p.Advance(s, &pr, due.Add(-1))
			if !reflect.DeepEqual(d, scheduler.Decision{}) || !reflect.DeepEqual(pr, before) {
				t.Errorf("a nanosecond early: %+v, and progress %+v, which was %+v", d, pr, before)
			}
			if d := p.Advance(s, &pr, due); len(d.Fire) != 1 || !d.Fire[0].Nominal.Equal(n) {
				t.Errorf("when it is due: %+v", d)
			}
		})
	}
}

// TestUpcomingWhenTheClockWasSetBack: what has had its outcome is not foretold
// again.
func TestUpcomingWhenTheClockWasSetBack(t *testing.T) {
	s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: time.Hour}}}, nola.Policy{})
	p := plan(t, s)
	pr := p.Start(s, t0)
	settle(t, p, s, &pr, t0.Add(24*time.Hour))
	back := t0.Add(30 * time.Minute)
	foretold := p.Upcoming(s, &pr, back, 1)
	if want := t0.Add(25 * time.Hour); len(foretold) != 1 || !foretold[0].Equal(want) {
		t.Errorf("foretold %v, want %s", foretold, want)
	}
}

// TestCenturyOfSecondsIsRefusedAtOnce has a backfill counted whose times must be
// looked at one by one: it is refused at the limit, which the error names.
func TestCenturyOfSecondsIsRefusedAtOnce(t *testing.T) {
	s := counterSchedule(nola.Spec{Cron: []nola.Cron{{Expression: "* * * * * *", Dialect: nola.DialectSeconds}}}, nola.Policy{})
	p := plan(t, s)
	refused := make(chan error, 1)
	go func() {
		pr := p.Start(s, t0)
		_, _, err := p.Backfill(s, &pr, nola.Backfill{ID: "b", Start: t0.AddDate(-100, 0, 0), End: t0}, t0)
		refused <- err
	}()
	select {
	case err := <-refused:
		var e *nola.Error
		if !errors.As(err, &e) || e.Reason != nola.ReasonLimitExceeded || e.Metadata["limit"] != "backfill_times_max" {
			t.Errorf("refused with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still counts after 10 s")
	}
}
