package scheduler_test

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

func TestWhy(t *testing.T) {
	s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: time.Minute}}}, nola.Policy{Overlap: nola.OverlapBufferAll, BufferLimit: 1, Catchup: nola.Catchup{Mode: nola.CatchupNone}})
	s.Created = t0
	p := plan(t, s)
	pr := p.Start(s, t0)
	at := func(minutes float64) time.Time { return t0.Add(time.Duration(minutes * float64(time.Minute))) }
	var list []nola.Occurrence
	for _, m := range []float64{10, 11, 12, 13} { // the first wakes late; it runs, the next waits, the others find no room
		list = append(list, p.Advance(s, &pr, at(m)).Records...)
	}
	if err := p.Skip(s, &pr, at(20), at(13)); err != nil {
		t.Fatal(err)
	}
	if err := p.Move(s, &pr, at(21), at(15.5), at(13)); err != nil {
		t.Fatal(err)
	}
	s.Paused, s.PausedUntil = true, at(16.5)
	for asked, want := range map[float64]string{
		-1: "BEFORE_CREATION", 0.5: "NOT_NOMINAL", 3: "MISSED_WINDOW", 10: "RUNNING", 11: "BUFFERED", 12: "BUFFER_DROPPED",
		16: "PAUSED", 17: "COMING", 20: "SKIPPED", 21: "MOVED",
	} {
		v := p.Why(s, &pr, list, at(asked), at(13))
		if v.Rule != want || v.Text == "" {
			t.Errorf("minute %v: %+v, want %s", asked, v, want)
		}
	}
	p.Ended(s, &pr, scheduler.End{Nominal: at(10), Kind: nola.OccurrenceRegular, OK: true}, at(13.5))
	if v := p.Why(s, &pr, nil, at(10), at(14)); v.Rule != "FORGOTTEN" {
		t.Errorf("a time without a record: %+v", v)
	}
}

// TestWhyNamesTheExclude asks of times that different excludes take away, and of
// one that no entry has.
func TestWhyNamesTheExclude(t *testing.T) {
	s := counterSchedule(nola.Spec{
		Cron: []nola.Cron{{Expression: "0 9 * * *"}},
		Exclude: []nola.Exclude{
			{HolidayCalendar: "bank", Comment: "closed"},
			{Dates: nola.DateRange{From: nola.Date{Year: 2026, Month: time.August, Day: 3}, To: nola.Date{Year: 2026, Month: time.August, Day: 7}}},
			{Calendar: &nola.CalendarSpec{DayOfWeek: "sun"}},
		},
	}, nola.Policy{})
	s.Calendars = []nola.Calendar{{Name: "bank", Version: 3, Dates: []nola.DateRange{{From: nola.Date{Year: 2026, Month: time.December, Day: 24}}}}}
	s.Created = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := plan(t, s)
	pr := p.Start(s, s.Created)
	for at, want := range map[string]string{
		"2026-12-24T09:00:00Z": `EXCLUDED the entries of the spec have this time, and exclude[0], the calendar "bank" in version 3 (closed), takes it away`,
		"2026-08-05T09:00:00Z": "EXCLUDED the entries of the spec have this time, and exclude[1], the dates 2026-08-03 to 2026-08-07, takes it away",
		"2026-03-01T09:00:00Z": "EXCLUDED the entries of the spec have this time, and exclude[2], a structured calendar, takes it away",
		"2026-12-24T10:00:00Z": "NOT_NOMINAL it is no nominal time of the spec; the next one is 2026-12-25T09:00:00Z",
		"2026-12-25T09:00:00Z": "COMING it comes, and fires then",
	} {
		asked, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		v := p.Why(s, &pr, nil, asked, s.Created)
		if got := v.Rule + " " + v.Text; got != want {
			t.Errorf("%s: %s\nwant %s", at, got, want)
		}
	}
}

// TestBackfillIsRefusedAtOnce: with the reason, before anything is stored.
func TestBackfillIsRefusedAtOnce(t *testing.T) {
	s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: time.Second}}}, nola.Policy{})
	p := plan(t, s)
	pr := p.Start(s, t0)
	for name, b := range map[string]nola.Backfill{
		"a century of seconds": {ID: "b", Start: t0.AddDate(-100, 0, 0), End: t0},
		"times to come":        {ID: "b", Start: t0, End: t0.Add(time.Second)},
		"turned around":        {ID: "b", Start: t0, End: t0.Add(-time.Second)},
		"leaves some out":      {ID: "b", Start: t0.Add(-time.Minute), End: t0, Overlap: nola.OverlapSkip},
		"no id":                {Start: t0.Add(-time.Minute), End: t0},
		"too fast":             {ID: "b", Start: t0.Add(-time.Minute), End: t0, Rate: nola.BackfillRateMax + 1},
	} {
		if _, _, err := p.Backfill(s, &pr, b, t0); err == nil || len(pr.Backfills) > 0 {
			t.Errorf("%s: %v, %d backfills", name, err, len(pr.Backfills))
		}
	}
}

// TestLateTimesDoNotCostARegularOne: a regular time that comes while late ones
// run waits for the one that runs, and is not skipped.
func TestLateTimesDoNotCostARegularOne(t *testing.T) {
	s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: time.Minute}}}, nola.Policy{Catchup: nola.Catchup{Mode: nola.CatchupAll, Spacing: 10 * time.Second}})
	p := plan(t, s)
	pr := p.Start(s, t0)
	now := t0.Add(20*time.Minute + 30*time.Second)
	starts := map[time.Time]time.Time{}
	for end := now.Add(10 * time.Minute); now.Before(end); now = now.Add(time.Second) {
		for _, r := range append([]nola.Running(nil), pr.Running...) {
			if now.Sub(r.Started) >= 7*time.Second {
				p.Ended(s, &pr, scheduler.End{Nominal: r.Nominal, Kind: r.Kind, OK: true}, now)
			}
		}
		for _, r := range p.Advance(s, &pr, now).Fire {
			starts[r.Nominal] = now
		}
	}
	if c := pr.Counters[nola.OutcomeSkippedOverlap]; c.Count > 0 || len(starts) != 30 {
		t.Errorf("%d were skipped, %d of 30 started", c.Count, len(starts))
	}
	for m := 21; m <= 30; m++ {
		n := t0.Add(time.Duration(m) * time.Minute)
		if late := starts[n].Sub(n); late < 0 || late > 7*time.Second {
			t.Errorf("%s started %s late", n, late)
		}
	}
}

// TestALateTimeDoesNotCostTheOneBehindIt: a regular time that comes while the one
// runs that a catch-up chose as the last or the first waits for its end, with jitter too.
func TestALateTimeDoesNotCostTheOneBehindIt(t *testing.T) {
	for _, mode := range []nola.CatchupMode{nola.CatchupLast, nola.CatchupFirst} {
		for _, jitter := range []time.Duration{0, time.Nanosecond} {
			s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: 2 * time.Second}}, Jitter: jitter}, nola.Policy{Catchup: nola.Catchup{Mode: mode}})
			p := plan(t, s)
			pr := p.Start(s, t0)
			at := func(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }
			if fire := p.Advance(s, &pr, at(4.5)).Fire; len(fire) != 1 || !fire[0].Nominal.Equal(at(2)) {
				t.Fatalf("mode %d, jitter %s: at first %v fire, want second 2", mode, jitter, fire)
			}
			if _, ok := p.Ended(s, &pr, scheduler.End{Nominal: at(2), Kind: nola.OccurrenceRegular, OK: true}, at(4.7)); !ok {
				t.Fatalf("mode %d, jitter %s: second 2 does not run", mode, jitter)
			}
			if fire := p.Advance(s, &pr, at(4.7)).Fire; len(fire) != 1 || !fire[0].Nominal.Equal(at(4)) {
				t.Errorf("mode %d, jitter %s: then %v fire, want second 4; counters %+v", mode, jitter, fire, pr.Counters)
			}
		}
	}
}

// TestLastSkipsWhatWasTakenOut: a LAST catch-up fires the newest time that nobody
// took out.
func TestLastSkipsWhatWasTakenOut(t *testing.T) {
	s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: time.Minute}}}, nola.Policy{})
	p := plan(t, s)
	pr := p.Start(s, t0)
	if err := p.Skip(s, &pr, t0.Add(5*time.Minute), t0); err != nil {
		t.Fatal(err)
	}
	fired, _ := settle(t, p, s, &pr, t0.Add(5*time.Minute+30*time.Second))
	if len(fired) != 1 || !fired[0].Equal(t0.Add(4*time.Minute)) {
		t.Errorf("fired %v, want minute 4 alone", fired)
	}
	if pr.Counters[nola.OutcomeExcludedByUser].Count != 1 || pr.Counters[nola.OutcomeMissedWindow].Count != 3 {
		t.Errorf("counters %+v, want one excluded and three missed", pr.Counters)
	}
}
