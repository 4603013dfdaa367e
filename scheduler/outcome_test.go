package scheduler_test

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// ledger keeps what became of each regular nominal time, and complains of a
// second outcome, or of one that comes too soon.
type ledger struct {
	t       *testing.T
	what    string
	outcome map[time.Time]nola.Outcome
	fired   map[time.Time]bool
	moved   map[time.Time]time.Time // by nominal time
	high    time.Time               // the latest the clock has shown
}

func (l *ledger) put(n time.Time, o nola.Outcome) {
	if old, ok := l.outcome[n]; ok {
		l.t.Fatalf("%s: %s is %s and was %s", l.what, n, o, old)
	}
	l.outcome[n] = o
}

// decision books d; c expands the ranges.
func (l *ledger) decision(d scheduler.Decision, c *scheduler.Compiled, now time.Time) {
	for _, r := range d.Fire {
		if r.Kind != nola.OccurrenceRegular {
			continue
		}
		if l.fired[r.Nominal] {
			l.t.Fatalf("%s: %s fires twice", l.what, r.Nominal)
		}
		if at, ok := l.moved[r.Nominal]; ok && at.After(now) || !ok && r.Nominal.After(now) {
			l.t.Fatalf("%s: %s fires early, at %s, moved %v to %s", l.what, r.Nominal, now, ok, at)
		}
		l.fired[r.Nominal] = true
	}
	for _, o := range d.Records {
		if o.Kind != nola.OccurrenceRegular {
			continue
		}
		if _, moved := l.moved[o.Last]; o.Last.After(l.high) && !moved {
			l.t.Fatalf("%s: %s is %s at %s, before it has come", l.what, o.Last, o.Outcome, now)
		}
		if o.Count == 1 {
			l.put(o.Nominal, o.Outcome)
			continue
		}
		times := c.Between(o.Nominal.Add(-1), o.Last, o.Count+1)
		if len(times) != o.Count || !times[0].Equal(o.Nominal) || !times[len(times)-1].Equal(o.Last) {
			l.t.Fatalf("%s: record %+v does not describe the times %v", l.what, o, times)
		}
		for _, n := range times {
			l.put(n, o.Outcome)
		}
	}
}

func randomSpec(r *rand.Rand) nola.Spec {
	s := nola.Spec{}
	switch r.Intn(5) {
	case 0:
		s.Interval = []nola.Interval{{Every: time.Duration(10+r.Intn(300)) * 100 * time.Millisecond}}
	case 1:
		s.Cron = []nola.Cron{{Expression: "*/7 * * * * *", Dialect: nola.DialectSeconds}}
	case 2:
		s.Cron = []nola.Cron{{Expression: "* * * * *"}}
		s.Interval = []nola.Interval{{Every: 45 * time.Second, Phase: 250 * time.Millisecond}}
	case 3:
		s.Cron = []nola.Cron{{Expression: "*/10 * * * *"}}
		s.TimeZone = "Europe/Berlin" // the clock starts at its change of offset
		s.DSTGap, s.DSTOverlap = nola.DSTGap(r.Intn(3)), nola.DSTOverlap(r.Intn(4))
	default:
		s.Interval = []nola.Interval{{Every: time.Duration(5+r.Intn(120)) * time.Second}}
	}
	if r.Intn(2) == 0 {
		s.Jitter = time.Duration(r.Intn(60)) * time.Second
	}
	return s
}

func randomPolicy(r *rand.Rand) nola.Policy {
	return nola.Policy{
		Overlap: nola.Overlap(r.Intn(7)),
		Catchup: nola.Catchup{
			Mode: nola.CatchupMode(r.Intn(5)), Window: time.Duration(r.Intn(2)) * 90 * time.Second, Max: r.Intn(20),
			Spacing: time.Duration(r.Intn(3)) * time.Second,
		},
		BufferLimit: r.Intn(4), MaxConcurrent: r.Intn(3), PauseAfterFailures: r.Intn(4),
		Retry: nola.Retry{Deadline: time.Duration(r.Intn(3)) * time.Minute},
	}
}

// TestEveryNominalTimeHasOneOutcome drives schedules at random: clocks that jump
// both ways by up to a day, changes of offset, ends that went well or not,
// pauses, updates, triggers, backfills, times skipped and moved, buffers that
// overflow. Whatever happens, each nominal time has one outcome, or runs, or
// waits, or is later than Through; and no backfill's time starts twice.
func TestEveryNominalTimeHasOneOutcome(t *testing.T) {
	r := seeded(t)
	for round := range 300 {
		s := &nola.Schedule{
			Namespace: "default", ID: fmt.Sprint("s", round), Spec: randomSpec(r), Policy: randomPolicy(r), Limited: r.Intn(5) == 0, Remaining: int64(r.Intn(50)),
		}
		p := plan(t, s)
		now := time.Date(2026, []time.Month{3, 10}[r.Intn(2)], 29-4*(round%2), 0, 30, 0, r.Intn(1e9), time.UTC)
		pr := p.Start(s, now)
		l := &ledger{
			t: t, what: fmt.Sprintf("round %d, spec %+v, policy %+v", round, s.Spec, s.Policy),
			outcome: map[time.Time]nola.Outcome{}, fired: map[time.Time]bool{}, moved: map[time.Time]time.Time{}, high: now,
		}
		type era struct {
			p        *scheduler.Plan
			from, to time.Time // nominal times in (from, to] are this plan's, and the pending one
		}
		eras := []era{{p: p, from: pr.Through}}
		filled := map[string]bool{}
		decided := func(d scheduler.Decision) {
			l.decision(d, eras[len(eras)-1].p.Compiled(), now)
			for _, f := range d.Fire {
				key := f.RequestID + f.Nominal.String()
				if f.Kind == nola.OccurrenceBackfill && filled[key] {
					t.Fatalf("%s: the backfill starts %s twice", l.what, f.Nominal)
				}
				filled[key] = true
			}
		}
		for step := range 200 {
			switch r.Intn(16) {
			case 0:
				now = now.Add(-time.Duration(r.Intn(300)) * time.Second)
			case 1:
				now = now.Add(time.Duration(r.Intn(1200)) * time.Second)
			case 2, 3:
				if !pr.Due.IsZero() && pr.Due.After(now) {
					now = pr.Due
				}
			case 4:
				if r.Intn(8) == 0 {
					now = now.Add([]time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour}[r.Intn(4)])
				}
			default:
				now = now.Add(time.Duration(r.Intn(20_000)) * time.Millisecond)
			}
			l.high = later(l.high, now)
			switch r.Intn(12) {
			case 0, 1, 2:
				if len(pr.Running) == 0 {
					break
				}
				e := pr.Running[r.Intn(len(pr.Running))]
				end := scheduler.End{Nominal: e.Nominal, Kind: e.Kind, RequestID: e.RequestID, OK: r.Intn(2) == 0, NotStarted: r.Intn(9) == 0}
				if !end.OK && !scheduler.Waiting(e) {
					if again, ok := p.Retry(&pr, end, now); ok {
						if !again.RetryAt.After(now) || again.RetryAt.Sub(again.Started) > s.Policy.Retry.Deadline {
							t.Fatalf("%s: the next attempt of %+v is at %s", l.what, again, again.RetryAt)
						}
						scheduler.Attempting(&pr, again)
						break
					}
				}
				o, ok := p.Ended(s, &pr, end, now)
				if ok == scheduler.Waiting(e) {
					t.Fatalf("%s: end of %+v: %v", l.what, e, ok)
				}
				if ok && o.Kind == nola.OccurrenceRegular {
					l.put(o.Nominal, o.Outcome)
				}
				if len(pr.DeadLetters) > 0 && r.Intn(3) == 0 {
					if d, err := p.Redrive(s, &pr, pr.DeadLetters[0].Number, now); err == nil {
						decided(d)
					}
				}
			case 3:
				id := fmt.Sprint("request-", r.Intn(30))
				seen := slices.ContainsFunc(pr.Requests, func(r nola.Request) bool { return r.ID == id })
				d, err := p.Trigger(s, &pr, now, id, nil, nola.Overlap(r.Intn(7)))
				if err == nil && d.Replayed != seen {
					t.Fatalf("%s: trigger %s replayed %v, want %v", l.what, id, d.Replayed, seen)
				}
				decided(d)
			case 4:
				if r.Intn(3) != 0 {
					break
				}
				next := *s
				switch r.Intn(4) {
				case 0:
					next.Paused = !s.Paused
				case 1:
					next.Paused, next.PausedUntil = true, now.Add(time.Duration(r.Intn(120)-10)*time.Second)
				case 2:
					next.Policy = randomPolicy(r)
				default:
					next.Spec = randomSpec(r)
				}
				np := plan(t, &next)
				d := np.Replan(&next, &pr, s, p, now)
				decided(d)
				if !d.More {
					next.Remaining = s.Remaining
					s, p = &next, np
					eras[len(eras)-1].to = pr.Through
					eras = append(eras, era{p: p, from: pr.Through})
				}
			case 5:
				n, ok := p.Compiled().Next(now.Add(time.Duration(r.Intn(300)) * time.Second))
				if !ok {
					break
				}
				switch r.Intn(4) {
				case 0, 1:
					if p.Skip(s, &pr, n, now) == nil {
						delete(l.moved, n)
					}
				case 2:
					to := now.Add(time.Duration(1+r.Intn(600)) * time.Second)
					if p.Move(s, &pr, n, to, now) == nil {
						l.moved[n] = to
					}
				default:
					if p.Unskip(s, &pr, n, now) == nil {
						delete(l.moved, n)
					}
				}
			case 6:
				b := nola.Backfill{ID: fmt.Sprint("b", r.Intn(5)), Start: now.Add(-time.Hour), End: now.Add(-time.Duration(r.Intn(50)) * time.Minute), Reverse: r.Intn(2) == 0}
				_, d, err := p.Backfill(s, &pr, b, now)
				if err != nil {
					t.Fatalf("%s: backfill: %v", l.what, err)
				}
				decided(d)
				if r.Intn(8) == 0 {
					if _, err := p.CancelBackfill(s, &pr, b.ID, now); err != nil {
						t.Fatal(err)
					}
				}
			default:
				for calls := 0; ; calls++ {
					d := p.Advance(s, &pr, now)
					decided(d)
					if !d.More {
						break
					}
					if calls > 1000 {
						t.Fatalf("%s: Advance does not come to an end", l.what)
					}
				}
				if !pr.Due.IsZero() && !pr.Due.After(now) {
					t.Fatalf("%s: step %d: due %s is not later than %s", l.what, step, pr.Due, now)
				}
			}
			if len(pr.Running) > nola.RunningMax || len(pr.Late) > nola.LateSpansMax || len(pr.Exceptions) > nola.ExceptionsMax {
				t.Fatalf("%s: %d run, %d spans are late, %d exceptions", l.what, len(pr.Running), len(pr.Late), len(pr.Exceptions))
			}
		}
		eras[len(eras)-1].to = pr.Through
		open := map[time.Time]int{}
		for _, list := range [][]nola.Running{pr.Running, pr.Buffer} {
			for _, e := range list {
				if e.Kind == nola.OccurrenceRegular {
					open[e.Nominal]++
				}
			}
		}
		for _, span := range pr.Late {
			times := p.Compiled().Between(span.First.Add(-1), span.Last, span.Count+1)
			if len(times) != span.Count {
				t.Fatalf("%s: %+v holds %d times", l.what, span, len(times))
			}
			for _, n := range times {
				open[n]++
			}
		}
		known := map[time.Time]bool{}
		for _, e := range eras {
			for _, n := range e.p.Compiled().Between(e.from, e.to, 1<<20) {
				_, ended := l.outcome[n]
				if ended && open[n] > 0 || !ended && open[n] != 1 {
					t.Fatalf("%s: %s has an outcome: %v, waits or runs %d times", l.what, n, ended, open[n])
				}
				known[n] = true
			}
		}
		for n, o := range l.outcome {
			if _, moved := l.moved[n]; !known[n] && !moved {
				t.Fatalf("%s: %s is %s and no nominal time", l.what, n, o)
			}
		}
		counted := uint64(0)
		for _, c := range pr.Counters {
			counted += c.Count
		}
		if counted < uint64(len(l.outcome)) {
			t.Fatalf("%s: %d counted, %d outcomes", l.what, counted, len(l.outcome))
		}
	}
}

// TestUpcomingIsWhatFires compares what is said to come with what then does.
func TestUpcomingIsWhatFires(t *testing.T) {
	r := seeded(t)
	for round := range 200 {
		s := counterSchedule(randomSpec(r), nola.Policy{Overlap: nola.OverlapAllowAll})
		s.Limited, s.Remaining = r.Intn(4) == 0, int64(r.Intn(8))
		now := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
		if r.Intn(4) == 0 {
			s.Paused, s.PausedUntil = true, now.Add(time.Duration(r.Intn(600))*time.Second)
		}
		p := plan(t, s)
		pr := p.Start(s, now)
		for range 4 {
			n, ok := p.Compiled().Next(now.Add(time.Duration(r.Intn(200)) * time.Second))
			if !ok || s.Paused {
				continue
			}
			if r.Intn(2) == 0 {
				_ = p.Skip(s, &pr, n, now)
			} else if s.Spec.Jitter == 0 {
				_ = p.Move(s, &pr, n, now.Add(time.Duration(1+r.Intn(500))*time.Second+time.Microsecond), now)
			}
		}
		want := p.Upcoming(s, &pr, now, 10)
		moved := map[time.Time]time.Time{}
		for _, e := range pr.Exceptions {
			moved[e.Nominal] = e.Moved
		}
		var got []time.Time
		for !pr.Due.IsZero() && len(got) < len(want)+1 {
			now = pr.Due
			for _, f := range p.Advance(s, &pr, now).Fire {
				at := f.Nominal
				if m := moved[at]; !m.IsZero() {
					at = m
				}
				got = append(got, at)
				p.Ended(s, &pr, scheduler.End{Nominal: f.Nominal, Kind: f.Kind, OK: true}, now)
			}
			if len(want) == 0 && now.Sub(t0) > 365*24*time.Hour {
				break
			}
			if len(want) == 0 {
				break
			}
		}
		if len(got) < len(want) || !slices.EqualFunc(got[:len(want)], want, time.Time.Equal) {
			t.Fatalf("round %d, spec %+v, exceptions %+v:\nfired   %v\nforetold %v", round, s.Spec, pr.Exceptions, got, want)
		}
	}
}
