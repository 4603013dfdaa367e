package scheduler_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func counterSchedule(spec nola.Spec, policy nola.Policy) *nola.Schedule {
	return &nola.Schedule{
		Namespace: "default", ID: "tick", Incarnation: 1, Spec: spec, Policy: policy,
		Target: nola.ActorRef{Namespace: "default", Type: "counter", ID: "alice"},
	}
}

// settle calls Advance until nothing is left to decide at now, ending each firing
// at once, and returns what fired and how often it was called.
func settle(t *testing.T, p *scheduler.Plan, s *nola.Schedule, pr *nola.Progress, now time.Time) (fired []time.Time, calls int) {
	t.Helper()
	for {
		d := p.Advance(s, pr, now)
		if calls++; calls > 10_000 {
			t.Fatal("Advance does not come to an end")
		}
		if len(d.Records) > scheduler.RecordsMax {
			t.Fatalf("%d records in one decision", len(d.Records))
		}
		for _, r := range d.Fire {
			fired = append(fired, r.Nominal)
			if _, ok := p.Ended(s, pr, scheduler.End{Nominal: r.Nominal, Kind: r.Kind, OK: true}, now); !ok {
				t.Fatalf("%+v does not run", r)
			}
		}
		if pr.Due.IsZero() || pr.Due.After(now) {
			return fired, calls
		}
	}
}

func TestCatchup(t *testing.T) {
	every := func(d time.Duration) nola.Spec { return nola.Spec{Interval: []nola.Interval{{Every: d}}} }
	cron := func(exprs ...string) nola.Spec {
		var s nola.Spec
		for _, e := range exprs {
			s.Cron = append(s.Cron, nola.Cron{Expression: e, Dialect: nola.DialectSeconds})
		}
		return s
	}
	at := func(d time.Duration) time.Time { return t0.Add(d) }
	for name, tt := range map[string]struct {
		spec    nola.Spec
		catchup nola.Catchup
		down    time.Duration
		fired   []time.Time
		missed  uint64
		calls   int // at most
	}{
		"last by default":    {every(time.Minute), nola.Catchup{}, 10*time.Minute + 30*time.Second, []time.Time{at(10 * time.Minute)}, 9, 1},
		"first":              {every(time.Minute), nola.Catchup{Mode: nola.CatchupFirst}, 10*time.Minute + 30*time.Second, []time.Time{at(time.Minute)}, 9, 1},
		"none":               {every(time.Minute), nola.Catchup{Mode: nola.CatchupNone}, 10*time.Minute + 30*time.Second, nil, 10, 1},
		"none, but on time":  {every(time.Minute), nola.Catchup{Mode: nola.CatchupNone}, 10*time.Minute + time.Second, []time.Time{at(10 * time.Minute)}, 9, 1},
		"all":                {every(time.Minute), nola.Catchup{Mode: nola.CatchupAll}, 3*time.Minute + 30*time.Second, []time.Time{at(time.Minute), at(2 * time.Minute), at(3 * time.Minute)}, 0, 4},
		"all, newest two":    {every(time.Minute), nola.Catchup{Mode: nola.CatchupAll, Max: 2}, 10*time.Minute + 30*time.Second, []time.Time{at(9 * time.Minute), at(10 * time.Minute)}, 8, 3},
		"all in a window":    {every(time.Minute), nola.Catchup{Mode: nola.CatchupAll, Window: 100 * time.Second}, 10*time.Minute + 30*time.Second, []time.Time{at(9 * time.Minute), at(10 * time.Minute)}, 8, 3},
		"none in the window": {every(time.Hour), nola.Catchup{Window: time.Minute}, 90 * time.Minute, nil, 1, 1},
		"a year of ticks":    {every(100 * time.Millisecond), nola.Catchup{Mode: nola.CatchupNone}, 365 * 24 * time.Hour, nil, 365*24*36_000 - 10 - 1, 1},
		"first of many":      {cron("* * * * * *", "30 * * * * *"), nola.Catchup{Mode: nola.CatchupFirst}, 12*time.Hour + 1500*time.Millisecond, []time.Time{at(time.Second)}, 12*3600 - 1, 6},
		"last of many":       {cron("* * * * * *", "30 * * * * *"), nola.Catchup{Mode: nola.CatchupLast}, 12*time.Hour + 1500*time.Millisecond, []time.Time{at(12 * time.Hour)}, 12*3600 - 1, 6},
		"newest two of many": {cron("* * * * * *", "30 * * * * *"), nola.Catchup{Mode: nola.CatchupAll, Max: 2}, 12*time.Hour + 1500*time.Millisecond, []time.Time{at(12*time.Hour - time.Second), at(12 * time.Hour)}, 12*3600 - 2, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := counterSchedule(tt.spec, nola.Policy{Catchup: tt.catchup})
			p := plan(t, s)
			pr := p.Start(s, t0)
			fired, calls := settle(t, p, s, &pr, t0.Add(tt.down))
			late := slices.DeleteFunc(fired, func(n time.Time) bool {
				// on-time ones come last and are not what most rows are about
				return t0.Add(tt.down).Sub(n) <= nola.CatchupGrace && !slices.ContainsFunc(tt.fired, n.Equal)
			})
			if !slices.EqualFunc(late, tt.fired, time.Time.Equal) {
				t.Errorf("fired %v, want %v", late, tt.fired)
			}
			if got := pr.Counters[nola.OutcomeMissedWindow].Count; got != tt.missed {
				t.Errorf("%d missed, want %d", got, tt.missed)
			}
			if calls > tt.calls {
				t.Errorf("%d calls, want at most %d", calls, tt.calls)
			}
		})
	}
}

func TestTriggerIsIdempotentAndBounded(t *testing.T) {
	s := counterSchedule(nola.Spec{}, nola.Policy{Overlap: nola.OverlapAllowAll})
	p := plan(t, s)
	pr := p.Start(s, t0)
	for i := range nola.RunningMax {
		if d, err := p.Trigger(s, &pr, t0, "r"+string(rune('A'+i)), []byte("x"), 0); err != nil || len(d.Fire) != 1 {
			t.Fatalf("trigger %d: %+v, %v", i, d, err)
		}
	}
	if d, err := p.Trigger(s, &pr, t0, "rA", nil, 0); err != nil || !d.Replayed || len(d.Fire) != 0 {
		t.Errorf("the same request again: %+v, %v", d, err)
	}
	_, err := p.Trigger(s, &pr, t0, "one more", nil, 0)
	var public *nola.Error
	if !errors.As(err, &public) || public.Reason != nola.ReasonLimitExceeded || slices.ContainsFunc(pr.Requests, func(r nola.Request) bool { return r.ID == "one more" }) {
		t.Errorf("one too many: %v", err)
	}
	// each end finds its own, although they share the nominal time
	if o, ok := p.Ended(s, &pr, scheduler.End{Nominal: t0, Kind: nola.OccurrenceTrigger, RequestID: "rB", OK: true}, t0); !ok || !o.OK || len(pr.Running) != nola.RunningMax-1 || pr.Running[0].RequestID != "rA" {
		t.Errorf("end of rB: %+v %v", o, ok)
	}
}

// TestSoManyRequestIDsAreRemembered: the newest 100 triggers and 20 backfills
// are answered again, an older one is made again.
func TestSoManyRequestIDsAreRemembered(t *testing.T) {
	s := counterSchedule(nola.Spec{Interval: []nola.Interval{{Every: time.Minute}}}, nola.Policy{Overlap: nola.OverlapAllowAll})
	p := plan(t, s)
	pr := p.Start(s, t0)
	trigger := func(i int) bool {
		id := fmt.Sprint("trigger ", i)
		d, err := p.Trigger(s, &pr, t0, id, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.Ended(s, &pr, scheduler.End{Nominal: d.Nominal, Kind: nola.OccurrenceTrigger, RequestID: id, OK: true}, t0)
		return d.Replayed
	}
	backfill := func(i int) bool {
		id := fmt.Sprint("backfill ", i)
		_, d, err := p.Backfill(s, &pr, nola.Backfill{ID: id, Start: t0, End: t0}, t0)
		if err != nil {
			t.Fatal(err)
		}
		p.Ended(s, &pr, scheduler.End{Nominal: t0, Kind: nola.OccurrenceBackfill, RequestID: id, OK: true}, t0)
		return d.Replayed
	}
	for what, tt := range map[string]struct {
		do func(i int) (replayed bool)
		n  int
	}{"trigger": {trigger, 100}, "backfill": {backfill, 20}} {
		for i := range 1 + tt.n {
			if tt.do(i) {
				t.Errorf("%s %d is taken for an earlier one", what, i)
			}
		}
		for i := 1; i <= tt.n; i++ {
			if !tt.do(i) {
				t.Errorf("%s %d of the newest %d is made again", what, i, tt.n)
			}
		}
		if tt.do(0) {
			t.Errorf("the %s before the newest %d is remembered", what, tt.n)
		}
	}
}

// The keys are storage format: a changed one would fire old occurrences again.
func TestOccurrenceKeyGolden(t *testing.T) {
	s := counterSchedule(nola.Spec{}, nola.Policy{})
	base := scheduler.OccurrenceKey(s, t0, nola.OccurrenceRegular, "")
	if got, want := base.String(), "019b76daa8009e75e9889dc48c107a91"; got != want {
		t.Errorf("key is %s, want %s", got, want)
	}
	if !base.Time().Equal(t0) {
		t.Errorf("key carries %s, want %s", base.Time(), t0)
	}
	seen := map[nola.InvocationID]bool{base: true}
	again := *s
	again.Incarnation++
	reminder := *s
	reminder.Reminder = true
	for _, k := range []nola.InvocationID{
		scheduler.OccurrenceKey(&again, t0, nola.OccurrenceRegular, ""), scheduler.OccurrenceKey(&reminder, t0, nola.OccurrenceRegular, ""),
		scheduler.OccurrenceKey(s, t0.Add(1), nola.OccurrenceRegular, ""), scheduler.OccurrenceKey(s, t0, nola.OccurrenceTrigger, "a"),
		scheduler.OccurrenceKey(s, t0, nola.OccurrenceTrigger, "b"),
	} {
		if seen[k] {
			t.Errorf("key %s names two occurrences", k)
		}
		seen[k] = true
	}
}

// The offsets are documented: operators rely on them staying.
func TestJitterGolden(t *testing.T) {
	c, _, err := scheduler.Compile(nola.Spec{Interval: []nola.Interval{{Every: time.Hour}}, Jitter: time.Hour}, "mynsid-myschedule")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	spread := map[int]int{}
	for i := range 1200 {
		n := t0.Add(time.Duration(i) * time.Hour)
		offset := c.Jittered(n).Sub(n)
		if i < 3 {
			got = append(got, offset.String())
		}
		spread[int(offset/(5*time.Minute))]++
	}
	if want := "23m18.254s 10m18.231s 27m16.118s"; strings.Join(got, " ") != want {
		t.Errorf("offsets %s, want %s", strings.Join(got, " "), want)
	}
	for twelfth := range 12 {
		if n := spread[twelfth]; n < 60 || n > 140 {
			t.Errorf("%d of 1200 offsets lie in twelfth %d, want about 100", n, twelfth)
		}
	}
}

func TestFaultsComeAtOnceWithTheirPlace(t *testing.T) {
	_, _, err := scheduler.Compile(nola.Spec{
		Cron:     []nola.Cron{{Expression: "61 24 * foo 8"}, {Expression: "0 0 * * * 1"}},
		Interval: []nola.Interval{{Every: time.Millisecond}}, TimeZone: "Mars/Olympus", Jitter: -1,
	}, "")
	var spec *scheduler.SpecError
	if !errors.As(err, &spec) {
		t.Fatalf("error is %v", err)
	}
	var got []string
	for _, f := range spec.Faults {
		got = append(got, f.Field+" "+f.Token)
	}
	want := []string{"jitter -1ns", "time_zone Mars/Olympus", "minute 61", "hour 24", "month foo", "day of week 8", "expression 0 0 * * * 1", "interval[0].every 1ms"}
	if !slices.Equal(got, want) {
		t.Errorf("faults\n got %q\nwant %q", got, want)
	}
	const drawn = "  61 24 * foo 8\n              ^\nfield 5, day of week: 8 is out of range, legal is 0-7 or SUN-SAT, with #k or L behind it; did you mean 7 or SUN?"
	if got := spec.Faults[5].Render(); got != drawn {
		t.Errorf("drawn\n%s\nwant\n%s", got, drawn)
	}
}

func TestWarnings(t *testing.T) {
	for name, tt := range map[string]struct {
		spec nola.Spec
		want []scheduler.WarningCode
	}{
		"plain":        {nola.Spec{Cron: []nola.Cron{{Expression: "0 3 * * *"}}}, nil},
		"both days":    {nola.Spec{Cron: []nola.Cron{{Expression: "0 3 1 * mon"}}}, []scheduler.WarningCode{scheduler.WarnBothDays}},
		"uneven":       {nola.Spec{Cron: []nola.Cron{{Expression: "*/45 * * * *"}}}, []scheduler.WarningCode{scheduler.WarnUnevenStep}},
		"31st":         {nola.Spec{Cron: []nola.Cron{{Expression: "0 3 31 * *"}}}, []scheduler.WarningCode{scheduler.WarnShortMonths}},
		"rare":         {nola.Spec{Cron: []nola.Cron{{Expression: "0 3 29 2 0", DayMatch: nola.DayMatchAnd}}}, []scheduler.WarningCode{scheduler.WarnBothDays, scheduler.WarnShortMonths, scheduler.WarnRare}},
		"none left":    {nola.Spec{At: []time.Time{t0.Add(-1)}}, []scheduler.WarningCode{scheduler.WarnNoMore}},
		"gap, overlap": {nola.Spec{Cron: []nola.Cron{{Expression: "30 2 * * *"}}, TimeZone: "Europe/Berlin"}, []scheduler.WarningCode{scheduler.WarnGap, scheduler.WarnOverlap}},
		"hourly":       {nola.Spec{Cron: []nola.Cron{{Expression: "30 * * * *"}}, TimeZone: "Europe/Berlin"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, warns, err := scheduler.Compile(tt.spec, "")
			if err != nil {
				t.Fatal(err)
			}
			var got []scheduler.WarningCode
			for _, w := range append(warns, c.Warnings(t0)...) {
				got = append(got, w.Code)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("warnings %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	cron := func(e string) nola.Spec {
		return nola.Spec{Cron: []nola.Cron{{Expression: e}}, TimeZone: "Europe/Berlin"}
	}
	for want, spec := range map[string]nola.Spec{
		"at 03:00 every day (Europe/Berlin)":                                        cron("0 3 * * *"),
		"every 15 minutes in the hours 9 to 17 on Monday to Friday (Europe/Berlin)": cron("*/15 9-17 * * mon-fri"),
		"at 18:00 on the last Friday (Europe/Berlin)":                               cron("0 18 * * 5L"),
		"at 00:00 on the last workday in January to March (Europe/Berlin)":          cron("0 0 LW 1-3 *"),
		"at 09:30 on day 1 and 15 or on Monday (Europe/Berlin)":                     cron("30 9 1,15 * 1"),
		"only when triggered": {},
		"every 2 hours, 5 minutes into each, spread over 30 seconds": {Interval: []nola.Interval{{Every: 2 * time.Hour, Phase: 5 * time.Minute}}, Jitter: 30 * time.Second},
	} {
		if got := scheduler.Describe(spec); got != want {
			t.Errorf("described as %q, want %q", got, want)
		}
	}
}
