package scheduler_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// scenario is one row of testdata/policy.jsonl.
type scenario struct {
	ID   string
	Spec struct {
		Interval []struct {
			Every int64 `json:"every_s"`
		}
		Calendar map[string]string
		Jitter   int64 `json:"jitter_s"`
	}
	Policies struct {
		Overlap string
		Window  int64 `json:"catchup_window_s"`
		Pause   bool  `json:"pause_on_failure"`
		Buffer  int   `json:"buffer_limit"`
	}
	State struct {
		Paused    bool
		Limited   bool  `json:"limited_actions"`
		Remaining int64 `json:"remaining_actions"`
	}
	Created       time.Time
	LastProcessed time.Time `json:"last_processed"`
	Wakes         time.Time
	Events        []struct {
		At       time.Time
		Op       string
		Start    time.Time
		End      time.Time
		Ranges   int `json:"as_ranges"`
		Overlap  string
		Token    string `json:"conflict_token"`
		Policies struct{ Overlap string }
		Spec     struct {
			Interval []struct {
				Every int64 `json:"every_s"`
			}
			Jitter int64 `json:"jitter_s"`
		}
	}
	Expect []struct {
		Nominal, Starts, Ends time.Time
		Result                string
		Carried               json.RawMessage `json:"gets_last_result"`
	}
	ExpectCount int   `json:"expect_count"`
	Run         int64 `json:"run_duration_s"`
	Checks      []struct {
		At        time.Time
		Skipped   *uint64 `json:"overlap_skipped"`
		Missed    *uint64 `json:"missed_catchup_window"`
		Remaining *int64  `json:"remaining_actions"`
		NextTimes *int    `json:"next_times"`
		Buffered  *int    `json:"buffer_size"`
		Dropped   *uint64 `json:"buffer_dropped"`
		Paused    *bool
	}
	// A decision of the buffer alone.
	Buffer []struct {
		ID      int
		Overlap string
	}
	Running     bool
	Start, Keep []int
	Skipped     *uint64 `json:"overlap_skipped"`
	Terminate   bool
}

func overlapOf(name string) nola.Overlap {
	return map[string]nola.Overlap{
		"": 0, "SKIP": nola.OverlapSkip, "BUFFER_ONE": nola.OverlapBufferOne, "BUFFER_ALL": nola.OverlapBufferAll,
		"CANCEL_OTHER": nola.OverlapCancelOther, "TERMINATE_OTHER": nola.OverlapTerminateOther, "ALLOW_ALL": nola.OverlapAllowAll,
	}[name]
}

func (v scenario) schedule() *nola.Schedule {
	s := &nola.Schedule{
		Namespace: "default", ID: "myschedule", Target: nola.ActorRef{Namespace: "default", Type: "counter", ID: "alice"},
		Policy:  nola.Policy{Overlap: overlapOf(v.Policies.Overlap), Catchup: nola.Catchup{Mode: nola.CatchupAll, Window: time.Duration(v.Policies.Window) * time.Second}, BufferLimit: v.Policies.Buffer},
		Paused:  v.State.Paused,
		Limited: v.State.Limited, Remaining: v.State.Remaining,
	}
	if v.Policies.Pause {
		s.Policy.PauseAfterFailures = 1
	}
	s.Spec.Jitter = time.Duration(v.Spec.Jitter) * time.Second
	for _, iv := range v.Spec.Interval {
		s.Spec.Interval = append(s.Spec.Interval, nola.Interval{Every: time.Duration(iv.Every) * time.Second})
	}
	if cal := v.Spec.Calendar; cal != nil {
		field := func(name, unset string) string {
			if cal[name] == "" {
				return unset
			}
			return cal[name]
		}
		s.Spec.Cron = []nola.Cron{{Dialect: nola.DialectFull, Expression: fmt.Sprintf("0 %s %s %s %s * %s", field("minute", "0"), field("hour", "0"), field("day_of_month", "*"), field("month", "*"), field("year", "*"))}}
	}
	return s
}

func plan(t *testing.T, s *nola.Schedule) *scheduler.Plan {
	t.Helper()
	p, _, err := scheduler.NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPolicyVectors drives each scenario through virtual time in steps of a
// second and compares what started.
func TestPolicyVectors(t *testing.T) {
	for _, v := range lines[scenario](t, "testdata/policy.jsonl") {
		if v.Buffer != nil {
			t.Run(v.ID, v.decideBuffer)
		} else {
			t.Run(v.ID, v.run)
		}
	}
}

// decideBuffer has the occurrences come about at once, behind one that runs if
// the row says so, which ends meanwhile if it does not.
func (v scenario) decideBuffer(t *testing.T) {
	s := counterSchedule(nola.Spec{}, nola.Policy{})
	p := plan(t, s)
	pr := p.Start(s, t0)
	started := map[time.Time]bool{}
	terminated := false
	do := func(d scheduler.Decision) {
		for _, r := range d.Fire {
			started[r.Nominal] = true
		}
		terminated = terminated || slices.ContainsFunc(d.Cancel, func(r nola.Running) bool { return r.Terminated })
	}
	if v.Running {
		if _, err := p.Trigger(s, &pr, t0, "runs", nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	nominal := func(id int) time.Time { return t0.Add(time.Duration(id) * time.Second) }
	for _, b := range v.Buffer {
		pr.Buffer = append(pr.Buffer, nola.Running{Nominal: nominal(b.ID), Kind: nola.OccurrenceTrigger, RequestID: fmt.Sprint(b.ID), Overlap: overlapOf(b.Overlap)})
	}
	do(p.Advance(s, &pr, t0.Add(time.Minute)))
	want := map[time.Time]bool{}
	for _, id := range v.Start {
		want[nominal(id)] = true
	}
	if !maps.Equal(started, want) {
		t.Errorf("started %v, want %v", started, want)
	}
	var keep, wantKeep []time.Time
	for _, r := range pr.Buffer {
		keep = append(keep, r.Nominal)
	}
	for _, id := range v.Keep {
		wantKeep = append(wantKeep, nominal(id))
	}
	if !slices.EqualFunc(keep, wantKeep, time.Time.Equal) {
		t.Errorf("%v wait, want %v", keep, wantKeep)
	}
	if got := pr.Counters[nola.OutcomeSkippedOverlap].Count; v.Skipped != nil && got != *v.Skipped {
		t.Errorf("%d were skipped, want %d", got, *v.Skipped)
	}
	if terminated != v.Terminate {
		t.Errorf("terminated: %v, want %v", terminated, v.Terminate)
	}
	if len(started)+len(keep)+int(pr.Counters[nola.OutcomeSkippedOverlap].Count) != len(v.Buffer) {
		t.Errorf("%d started, %d wait, %d were skipped, of %d", len(started), len(keep), pr.Counters[nola.OutcomeSkippedOverlap].Count, len(v.Buffer))
	}
}

func (v scenario) run(t *testing.T) {
	s := v.schedule()
	p := plan(t, s)
	now, pr := v.Created, nola.Progress{}
	if v.LastProcessed.IsZero() {
		pr = p.Start(s, now)
	} else {
		pr = p.Start(s, v.LastProcessed)
		now = v.Wakes
	}
	end := now.Add(time.Minute)
	for _, e := range v.Expect {
		end = later(end, later(e.Starts, e.Ends))
	}
	for _, c := range v.Checks {
		end = later(end, c.At)
	}
	for _, e := range v.Events {
		end = later(end, e.At)
	}
	backfilled := map[time.Time]int{}
	if v.ExpectCount > 0 {
		end = end.Add(3 * time.Hour)
	}
	if v.Policies.Pause {
		// The source notices a failure when it wakes next; ours when it commits,
		// so that it lies between the two looks.
		v.Expect[0].Ends = v.Checks[1].At.Add(-time.Minute)
	}
	type start struct{ nominal, at time.Time }
	var starts []start
	do := func(d scheduler.Decision) {
		for _, r := range d.Fire {
			if r.Kind == nola.OccurrenceBackfill {
				backfilled[r.Nominal]++
			}
			if v.ExpectCount == 0 {
				starts = append(starts, start{r.Nominal, now})
			} else if r.Kind == nola.OccurrenceRegular && !now.Equal(r.Nominal) {
				t.Errorf("%s starts at %s: the backfill delays it", r.Nominal, now)
			}
		}
		if result := p.Carry(&pr).Result; result != nil && len(v.Expect) > 1 && v.Expect[1].Carried != nil {
			t.Errorf("at %s the result %q is carried, want none", now, result)
		}
	}
	for ; !now.After(end); now = now.Add(time.Second) {
		for _, e := range v.Expect { // a run without a stated end ends at once
			ends := e.Ends
			if ends.IsZero() {
				ends = now
			}
			for _, r := range slices.Clone(pr.Running) {
				if r.Nominal.Equal(e.Nominal) && !ends.After(now) {
					p.Ended(s, &pr, scheduler.End{Nominal: r.Nominal, Kind: r.Kind, RequestID: r.RequestID, OK: e.Result == "", Result: []byte("done")}, now)
				}
			}
		}
		for _, r := range slices.Clone(pr.Running) {
			if v.ExpectCount > 0 && !now.Before(r.Started.Add(time.Duration(v.Run)*time.Second)) {
				p.Ended(s, &pr, scheduler.End{Nominal: r.Nominal, Kind: r.Kind, RequestID: r.RequestID, OK: true}, now)
			}
		}
		if !pr.Due.IsZero() && !pr.Due.After(now) {
			do(p.Advance(s, &pr, now))
		}
		for i, e := range v.Events {
			if !e.At.Equal(now) || e.Token == "stale" {
				continue
			}
			next := *s
			switch e.Op {
			case "trigger":
				d, err := p.Trigger(s, &pr, now, fmt.Sprint("request-", i), nil, overlapOf(e.Overlap))
				if err != nil {
					t.Fatal(err)
				}
				do(d)
				continue
			case "backfill":
				parts := max(e.Ranges, 1)
				each := (e.End.Sub(e.Start) + time.Hour) / time.Duration(parts)
				for part := range parts {
					b := nola.Backfill{ID: fmt.Sprint("backfill-", i, "-", part), Start: e.Start, End: e.End, Overlap: overlapOf(e.Overlap)}
					if parts > 1 {
						b.Start = e.Start.Add(time.Duration(part) * each)
						b.End = b.Start.Add(each - time.Second)
					}
					_, d, err := p.Backfill(s, &pr, b, now)
					if err != nil {
						t.Fatal(err)
					}
					do(d)
				}
				continue
			case "pause", "unpause":
				next.Paused = e.Op == "pause"
			case "update":
				next.Policy.Overlap = overlapOf(e.Policies.Overlap)
				next.Spec = nola.Spec{Jitter: time.Duration(e.Spec.Jitter) * time.Second}
				for _, iv := range e.Spec.Interval {
					next.Spec.Interval = append(next.Spec.Interval, nola.Interval{Every: time.Duration(iv.Every) * time.Second})
				}
			}
			np := plan(t, &next)
			do(np.Replan(&next, &pr, s, p, now))
			s, p = &next, np
		}
		for _, c := range v.Checks {
			if !c.At.Equal(now) {
				continue
			}
			if c.Skipped != nil && pr.Counters[nola.OutcomeSkippedOverlap].Count != *c.Skipped {
				t.Errorf("at %s %d were skipped, want %d", now, pr.Counters[nola.OutcomeSkippedOverlap].Count, *c.Skipped)
			}
			if c.Buffered != nil && len(pr.Buffer) != *c.Buffered {
				t.Errorf("at %s %d wait, want %d", now, len(pr.Buffer), *c.Buffered)
			}
			if c.Dropped != nil && pr.Counters[nola.OutcomeBufferDropped].Count != *c.Dropped {
				t.Errorf("at %s %d were dropped, want %d", now, pr.Counters[nola.OutcomeBufferDropped].Count, *c.Dropped)
			}
			if c.Paused != nil && s.Paused != *c.Paused {
				t.Errorf("at %s paused is %v, want %v", now, s.Paused, *c.Paused)
			}
			if c.Missed != nil && pr.Counters[nola.OutcomeMissedWindow].Count != *c.Missed {
				t.Errorf("at %s %d were missed, want %d", now, pr.Counters[nola.OutcomeMissedWindow].Count, *c.Missed)
			}
			if c.Remaining != nil && s.Remaining != *c.Remaining {
				t.Errorf("at %s %d remain, want %d", now, s.Remaining, *c.Remaining)
			}
			if c.NextTimes != nil && len(p.Upcoming(s, &pr, now, 10)) != *c.NextTimes {
				t.Errorf("at %s the next times are %v, want %d", now, p.Upcoming(s, &pr, now, 10), *c.NextTimes)
			}
		}
	}
	if v.ExpectCount > 0 {
		for n, times := range backfilled {
			if times != 1 {
				t.Errorf("%s was started %d times", n, times)
			}
		}
		if len(backfilled) != v.ExpectCount {
			t.Errorf("%d times were filled in, want %d", len(backfilled), v.ExpectCount)
		}
		for _, b := range pr.Backfills {
			if b.State != nola.BackfillDone || b.OK != b.Total {
				t.Errorf("backfill %+v has not ended well", b)
			}
		}
		return
	}
	if s.Spec.Jitter > 0 {
		// the offsets are another hash's: compare the nominal times, and that
		// none starts before its own jittered time, to the second of the steps
		for i, got := range starts[:min(len(starts), len(v.Expect))] {
			due := p.Compiled().Jittered(got.nominal)
			if !got.nominal.Equal(v.Expect[i].Nominal) && !due.After(end) || got.at.Before(due) || got.at.Sub(due) > time.Second {
				t.Errorf("start %d: %s at %s, want %s at %s", i, got.nominal, got.at, v.Expect[i].Nominal, due)
			}
		}
		if len(starts) < len(v.Expect)-1 {
			t.Errorf("%d started, want %d", len(starts), len(v.Expect))
		}
		return
	}
	for i, got := range starts {
		if i < len(v.Expect) && (!got.nominal.Equal(v.Expect[i].Nominal) || !got.at.Equal(v.Expect[i].Starts)) {
			t.Errorf("start %d: %s at %s, want %s at %s", i, got.nominal, got.at, v.Expect[i].Nominal, v.Expect[i].Starts)
		}
	}
	if len(starts) < len(v.Expect) || len(starts) > len(v.Expect) && !starts[len(v.Expect)].at.After(v.last()) {
		t.Errorf("%d started, want %d: %v", len(starts), len(v.Expect), starts)
	}
}

// last is when the last expected start happens: what starts later is not stated.
func (v scenario) last() time.Time {
	var last time.Time
	for _, e := range v.Expect {
		last = later(last, e.Starts)
	}
	return last
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
