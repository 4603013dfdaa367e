package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// halves takes all seconds of some years away, in two excludes that neither take
// a day nor all times of the entry: there is nothing to leap over.
func halves(years string) []nola.Exclude {
	return []nola.Exclude{
		{Calendar: &nola.CalendarSpec{Second: "0-29", Year: years}},
		{Calendar: &nola.CalendarSpec{Second: "30-59", Year: years}},
	}
}

// TestAdvanceOverExcluded follows a schedule through two years whose million
// minutes are all excluded, one by one. No call may look at them all, and the
// first time behind them fires.
func TestAdvanceOverExcluded(t *testing.T) {
	sd := &nola.Schedule{
		ID: "closed", Created: time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC),
		Spec: nola.Spec{Cron: []nola.Cron{{Expression: "15,45 * * * * * *", Dialect: nola.DialectFull}}, Exclude: halves("2026-2027")},
	}
	want := time.Date(2028, 1, 1, 0, 0, 15, 0, time.UTC)
	for name, late := range map[string]bool{"in time": false, "after two years": true} {
		t.Run(name, func(t *testing.T) {
			p, _, err := scheduler.NewPlan(sd)
			if err != nil {
				t.Fatal(err)
			}
			pr := p.Start(sd, sd.Created)
			now, calls := sd.Created, 0
			var fired []nola.Running
			for ; len(fired) == 0; calls++ {
				if pr.Due.IsZero() || calls > 10_000 {
					t.Fatalf("after %d calls, at %s, it is due at %v and has not fired", calls, now, pr.Due)
				}
				if now = pr.Due; late && now.Before(want) {
					now = want
				}
				d := p.Advance(sd, &pr, now)
				if fired = d.Fire; len(d.Records) > 0 {
					t.Fatalf("at %s: %+v, want no record of what is no nominal time", now, d.Records)
				}
			}
			if !fired[0].Nominal.Equal(want) {
				t.Errorf("it fires %s, want %s", fired[0].Nominal, want)
			}
			if calls < 3 {
				t.Errorf("%d calls: one looked at two years at once", calls)
			}
		})
	}
}

// TestExcludesDoNotHideEntries holds that an entry comes about again behind any
// number of excluded times, also those from the first one on.
func TestExcludesDoNotHideEntries(t *testing.T) {
	c := compile(t, nola.Spec{
		Cron:    []nola.Cron{{Expression: "15,45 * * * * * *", Dialect: nola.DialectFull}},
		At:      []time.Time{time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)},
		Exclude: halves("1970-2026"),
	}, "")
	if got, ok := c.Next(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); !ok || !got.Equal(time.Date(2027, 1, 1, 0, 0, 15, 0, time.UTC)) {
		t.Errorf("the entry is due at %v, %t", got, ok)
	}
	if got, ok := c.Next(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)); ok {
		t.Errorf("%s comes before the times between, at which nobody has looked", got)
	}
}

// TestBackfillOverExcluded counts and fires the times on both sides of a month
// without any.
func TestBackfillOverExcluded(t *testing.T) {
	excludes := halves("2026")
	for i := range excludes {
		excludes[i].Calendar.Month = "3"
	}
	sd := &nola.Schedule{
		ID: "closed", Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Spec: nola.Spec{Cron: []nola.Cron{{Expression: "15 * * * * * *", Dialect: nola.DialectFull}}, Exclude: excludes},
	}
	p, _, err := scheduler.NewPlan(sd)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	b := nola.Backfill{ID: "b", Start: time.Date(2026, 2, 28, 23, 50, 0, 0, time.UTC), End: time.Date(2026, 4, 1, 0, 10, 0, 0, time.UTC)}
	n, first, last, err := p.CountBackfill(&b, now)
	if got, want := fmt.Sprint(n, first, last, err), fmt.Sprint(20, b.Start.Add(15*time.Second), b.End.Add(-45*time.Second), nil); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestPrevOverExcluded asks for the time before an instant that lies behind days
// of excluded ones, more than one search goes through.
func TestPrevOverExcluded(t *testing.T) {
	lone := time.Date(2026, 1, 5, 20, 0, 0, 0, time.UTC)
	before := time.Date(2026, 1, 9, 0, 0, 0, 0, time.UTC)
	spec := nola.Spec{
		Cron: []nola.Cron{{Expression: "15,45 * * * * * *", Dialect: nola.DialectFull}},
		Exclude: []nola.Exclude{
			{Calendar: &nola.CalendarSpec{Second: "1-29", Month: "1", Year: "2026"}},
			{Calendar: &nola.CalendarSpec{Second: "30-59", Month: "1", Year: "2026"}},
		},
	}
	last := time.Date(2025, 12, 31, 23, 59, 45, 0, time.UTC)
	if got, ok := compile(t, spec, "").Prev(before); !ok || !got.Equal(last) {
		t.Errorf("before %s comes %v, %t, want %s", before, got, ok, last)
	}
	spec.At = []time.Time{lone}
	if got, ok := compile(t, spec, "").Prev(before); !ok || !got.Equal(lone) {
		t.Errorf("before %s comes %v, %t, want %s, amid the excluded times", before, got, ok, lone)
	}
}
