package server_test

import (
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

var seed = flag.Int64("seed", 0, "seed of the random tests; 0 chooses one")

// randomSpec is due some dozens of times a day.
func randomSpec(r *rand.Rand) *nolav1.ScheduleSpec {
	pick := func(of ...string) string { return of[r.Intn(len(of))] }
	s := &nolav1.ScheduleSpec{
		TimeZone:   pick("", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"),
		DstGap:     nolav1.DstGap(r.Intn(4)),
		DstOverlap: nolav1.DstOverlap(r.Intn(5)),
	}
	for range 1 + r.Intn(2) {
		switch r.Intn(5) {
		case 0:
			s.Cron = append(s.Cron, &nolav1.CronSpec{Expression: fmt.Sprintf("%s %s * * %s", pick("*/20", "7,41", "H", "H/30", "0"), pick("*", "1-3", "0,2,23", "*/5"), pick("*", "6,0", "MON-SUN"))})
		case 1:
			s.Cron = append(s.Cron, &nolav1.CronSpec{
				Dialect:    nolav1.CronDialect_CRON_DIALECT_FULL,
				Expression: fmt.Sprintf("%d %s %s %s * * *", r.Intn(60), pick("*/15", "59", "0-10/3"), pick("*", "2", "1,3"), pick("*", "L,29", "24-31")),
			})
		case 2:
			s.Interval = append(s.Interval, &nolav1.IntervalSpec{Every: durationpb.New(time.Duration(600_000+r.Intn(6_000_000)) * time.Millisecond), Phase: durationpb.New(time.Duration(r.Intn(600_000)) * time.Millisecond)})
		case 3:
			s.Calendar = append(s.Calendar, &nolav1.CalendarSpec{Second: "30", Minute: pick("0,30", "*/25"), Hour: pick("*", "0-4")})
		default:
			s.CalendarInterval = append(s.CalendarInterval, &nolav1.CalendarIntervalSpec{Every: 1, Unit: nolav1.CalendarUnit_CALENDAR_UNIT_DAY, At: durationpb.New(time.Duration(r.Intn(4*60)) * time.Minute)})
		}
	}
	if r.Intn(3) == 0 {
		s.Exclude = append(s.Exclude, &nolav1.ExcludeSpec{Times: &nolav1.ExcludeSpec_Calendar{Calendar: &nolav1.CalendarSpec{DayOfWeek: pick("SAT", "SUN"), Hour: pick("", "0-3", "12-23")}}})
	}
	if r.Intn(3) == 0 {
		s.Jitter = durationpb.New(time.Duration(1+r.Intn(900)) * time.Second)
	}
	return s
}

// randomPolicy is one under which everything fires on time, as turns take no
// virtual time and go well.
func randomPolicy(r *rand.Rand) *nolav1.SchedulePolicy {
	p := &nolav1.SchedulePolicy{
		Overlap: nolav1.OverlapPolicy(r.Intn(7)), BufferLimit: uint32(r.Intn(3)), MaxConcurrent: uint32(r.Intn(3)), PauseAfterFailures: uint32(r.Intn(3)),
		Catchup: &nolav1.CatchupPolicy{Mode: nolav1.CatchupMode(r.Intn(5)), Window: durationpb.New(time.Duration(1+r.Intn(60)) * time.Minute), Spacing: durationpb.New(time.Duration(r.Intn(3)) * time.Second)},
	}
	if r.Intn(2) == 0 {
		p.Retry = &nolav1.RetryPolicy{Deadline: durationpb.New(time.Minute)}
	}
	return p
}

// TestPreviewIsWhatFires asks before schedules are made when they would fire, and
// looks what they did, a day and a change of the clocks later, with a crash on
// the way. It prints the seed that repeats it.
func TestPreviewIsWhatFires(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed=%d", *seed)
	r := rand.New(rand.NewSource(*seed))
	for _, start := range []time.Time{
		time.Date(2026, 3, 28, 18, 0, 0, 0, time.UTC), // Europe and, at the end, nobody else
		time.Date(2026, 10, 24, 18, 0, 0, 0, time.UTC),
		time.Date(2026, 4, 4, 3, 7, 0, 123e6, time.UTC), // Lord Howe
	} {
		t.Run(start.Format(time.DateOnly), func(t *testing.T) { previewIsWhatFires(t, r, start) })
	}
}

func previewIsWhatFires(t *testing.T, r *rand.Rand, start time.Time) {
	const schedules, day = 40, 24 * time.Hour
	s := nolatest.Start(t, nolatest.Options{VirtualTime: true, Runtime: guests{}, StartTime: start})
	s.Push("keeper", []byte("code"), nola.Manifest{})
	end := start.Add(day)
	made := make([]*nolav1.Schedule, 0, schedules)
	foretold := map[string][]time.Time{}
	for i := range schedules {
		sched := &nolav1.Schedule{
			ScheduleId: fmt.Sprint("s", i), Spec: randomSpec(r), Policy: randomPolicy(r),
			Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "keeper", Id: fmt.Sprint(i)}, Operation: "put"},
		}
		if r.Intn(5) == 0 {
			sched.State = &nolav1.ScheduleState{Limited: true, RemainingActions: int64(r.Intn(20))}
		}
		preview, err := s.Client.Schedules.PreviewSchedule(t.Context(), connect.NewRequest(&nolav1.PreviewScheduleRequest{
			Spec: sched.Spec, ScheduleId: sched.ScheduleId, Count: 1000, Until: timestamppb.New(end),
		}))
		if err != nil && reasonOf(err) != nola.ReasonInvalidSpec {
			t.Fatalf("%s: %v", protojson.Format(sched.Spec), err)
		}
		if err != nil { // the excludes take all of its times
			_, err := s.Client.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: sched}))
			if reasonOf(err) != nola.ReasonInvalidSpec {
				t.Fatalf("%s: the preview was refused, but not the schedule: %v", protojson.Format(sched.Spec), err)
			}
			continue
		}
		for _, at := range preview.Msg.GetTimes() {
			foretold[sched.ScheduleId] = append(foretold[sched.ScheduleId], at.AsTime())
		}
		_, err = s.Client.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: sched}))
		if reasonOf(err) == nola.ReasonInvalidSpec && len(preview.Msg.GetTimes()) == 0 {
			continue // it is due no more
		}
		if err != nil {
			t.Fatalf("%s: %v", protojson.Format(sched), err)
		}
		made = append(made, sched)
	}
	s.Advance(time.Duration(r.Int63n(int64(day))))
	s.Crash()
	s.AdvanceTo(end)
	compared := 0
	for _, sched := range made {
		want := foretold[sched.ScheduleId]
		if sched.GetState().GetLimited() {
			want = want[:min(len(want), int(sched.GetState().GetRemainingActions()))]
		}
		// What is held back by its jitter at the end has not fired.
		before := func(at time.Time) bool { return !at.After(end.Add(-sched.GetSpec().GetJitter().AsDuration())) }
		want = slices.DeleteFunc(slices.Clone(want), func(at time.Time) bool { return !before(at) })
		var got []time.Time
		for _, o := range occurrences(t, s, sched.ScheduleId) {
			if at := o.GetNominalTime().AsTime(); o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED && before(at) {
				if got = append(got, at); o.GetStartTime().AsTime().Before(at) {
					t.Errorf("%s fired at %s for %s", sched.ScheduleId, o.GetStartTime().AsTime(), at)
				}
			}
		}
		slices.SortFunc(got, time.Time.Compare)
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Fatalf("%s\nfired    %v\nforetold %v", protojson.Format(sched), got, want)
		}
		compared += len(want)
	}
	if compared < schedules {
		t.Errorf("only %d times of %d schedules were compared", compared, len(made))
	}
	t.Logf("%d times of %d schedules", compared, len(made))
}

// occurrences lists all that is known of a schedule's past.
func occurrences(t *testing.T, s *nolatest.Server, id string) (all []*nolav1.Occurrence) {
	t.Helper()
	for token := ""; ; {
		res, err := s.Client.Schedules.ListOccurrences(t.Context(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: id, PageSize: 100, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, res.Msg.GetOccurrences()...)
		if token = res.Msg.GetNextPageToken(); token == "" {
			return all
		}
	}
}
