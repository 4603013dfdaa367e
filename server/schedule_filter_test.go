package server

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

func TestFilterOfProgress(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := now.Add(-2 * nola.CatchupGrace)
	just := now.Add(-nola.CatchupGrace / 2)
	count := func(outcome nola.Outcome, last time.Time) map[nola.Outcome]nola.Counter {
		return map[nola.Outcome]nola.Counter{outcome: {Count: 1, First: last, Last: last}}
	}
	running := nola.Running{Nominal: long, Started: long, Kind: nola.OccurrenceRegular, Attempts: 1}
	retrying, jittered := running, nola.Running{Nominal: long, Started: now.Add(time.Hour), Kind: nola.OccurrenceRegular}
	retrying.RetryAt = now.Add(time.Minute)
	for name, tt := range map[string]struct {
		sd  nola.Schedule
		pr  nola.Progress
		yes []string // filters that let it pass
		no  []string
	}{
		"new": {
			pr:  nola.Progress{Due: now.Add(time.Hour)},
			yes: []string{"failing=false", "late=false", "ran=false"},
			no:  []string{"failing=true", "late=true", "ran=true", "missed_since=2020-01-01T00:00:00Z"},
		},
		"fired": {
			pr:  nola.Progress{Counters: count(nola.OutcomeFired, long)},
			yes: []string{"ran=true", "failing=false"},
			no:  []string{"ran=false", "missed_since=2020-01-01T00:00:00Z"},
		},
		"runs for the first time": {
			pr:  nola.Progress{Running: []nola.Running{running}},
			yes: []string{"ran=true", "failing=false", "late=false"},
		},
		"waits for its jitter": {
			pr:  nola.Progress{Running: []nola.Running{jittered}},
			yes: []string{"ran=false", "late=false"},
		},
		"only skipped so far":   {pr: nola.Progress{Counters: count(nola.OutcomePaused, long)}, yes: []string{"ran=false"}},
		"failed":                {pr: nola.Progress{Failures: 1, Counters: count(nola.OutcomeFired, long)}, yes: []string{"failing=true", "ran=true"}, no: []string{"failing=false"}},
		"waits for its attempt": {pr: nola.Progress{Running: []nola.Running{retrying}}, yes: []string{"failing=true", "late=false"}},
		"due just now":          {pr: nola.Progress{Due: just}, yes: []string{"late=false"}},
		"due long ago":          {pr: nola.Progress{Due: long}, yes: []string{"late=true"}, no: []string{"late=false"}},
		"due long ago, paused":  {sd: nola.Schedule{Paused: true}, pr: nola.Progress{Due: long}, yes: []string{"late=false"}},
		"waits for catch-up":    {pr: nola.Progress{Late: []nola.Span{{First: long, Last: long, Count: 1}}}, yes: []string{"late=true"}},
		"waits long in the buffer": {
			pr:  nola.Progress{Buffer: []nola.Running{{Nominal: long, Kind: nola.OccurrenceRegular}}},
			yes: []string{"late=true"},
		},
		"waits in the buffer":    {pr: nola.Progress{Buffer: []nola.Running{{Nominal: just, Kind: nola.OccurrenceRegular}}}, yes: []string{"late=false"}},
		"a backfill waits":       {pr: nola.Progress{Buffer: []nola.Running{{Nominal: long, Kind: nola.OccurrenceBackfill}}}, yes: []string{"late=false"}},
		"missed":                 {pr: nola.Progress{Counters: count(nola.OutcomeMissedWindow, long)}, yes: []string{"missed_since=2026-03-01T11:59:58Z", "missed_since=2026-03-01T12:59:58+01:00"}, no: []string{"missed_since=2026-03-01T11:59:59Z"}},
		"dropped":                {pr: nola.Progress{Counters: count(nola.OutcomeBufferDropped, long)}, yes: []string{"missed_since=2026-03-01T00:00:00Z"}},
		"could not start":        {pr: nola.Progress{Counters: count(nola.OutcomeFailedStart, long)}, yes: []string{"missed_since=2026-03-01T00:00:00Z", "ran=false"}},
		"skipped is not missed":  {pr: nola.Progress{Counters: count(nola.OutcomeSkippedOverlap, long)}, no: []string{"missed_since=2026-03-01T00:00:00Z"}},
		"excluded is not missed": {pr: nola.Progress{Counters: count(nola.OutcomeExcludedByUser, long)}, no: []string{"missed_since=2026-03-01T00:00:00Z"}},
	} {
		for _, list := range []struct {
			want    bool
			filters []string
		}{{true, tt.yes}, {false, tt.no}} {
			for _, text := range list.filters {
				f, err := parseFilter(text)
				if err != nil {
					t.Fatal(err)
				}
				if f.passes(&persistence.ScheduleRow{Schedule: tt.sd, Progress: tt.pr}, now) != list.want {
					t.Errorf("%s: %s passes: %v, want %v", name, text, !list.want, list.want)
				}
			}
		}
	}
}

func TestFilterOfText(t *testing.T) {
	sd := nola.Schedule{
		ID: "Nightly-7", Target: nola.ActorRef{Type: "cart", ID: "alice"}, Operation: "sweep", Note: "Ärger with the disk", PauseReason: "3 firings failed",
		Labels: map[string]string{"team": "shop"},
		Spec: nola.Spec{
			Cron:             []nola.Cron{{Expression: "0 3 * * *", Comment: "before dawn"}},
			Calendar:         []nola.CalendarSpec{{Comment: "quarterly"}},
			CalendarInterval: []nola.CalendarInterval{{Comment: "each fortnight"}},
			Exclude:          []nola.Exclude{{Comment: "no holidays"}},
		},
	}
	for text, want := range map[string]bool{
		"nightly": true, "LY-7": true, "cart/al": true, "sweep": true, "ärger": true, "firings": true, "team=sh": true,
		"0 3 *": true, "dawn": true, "quarter": true, "fortnight": true, "holiday": true, "nothing": false,
	} {
		f, err := parseFilter(`text="` + text + `"`)
		if err != nil {
			t.Fatal(err)
		}
		if f.passes(&persistence.ScheduleRow{Schedule: sd}, time.Time{}) != want {
			t.Errorf("text %q is found: %v, want %v", text, !want, want)
		}
	}
}
