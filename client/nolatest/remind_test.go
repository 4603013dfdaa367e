package nolatest_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/shard"
)

// witness notes at which virtual time turns end.
type witness struct {
	mu    sync.Mutex // guards the fields below
	turns []string
	now   func() time.Time
	start time.Time
}

func (w *witness) turn(kind nola.Kind, ref nola.ActorRef, _ time.Duration, _ uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind == nola.KindReminder || kind == nola.KindTimer || kind == nola.KindSchedule {
		end := "ok"
		if err != nil {
			end = "failed"
		}
		w.turns = append(w.turns, fmt.Sprint(ref.ID, " ", w.now().Sub(w.start), " ", end))
	}
}

// seen answers what was noted since it was asked last.
func (w *witness) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.turns
	w.turns = nil
	return out
}

// watched is a server in virtual time with a witness.
func watched(t *testing.T) (*nolatest.Server, *witness) {
	t.Helper()
	w := &witness{}
	s := nolatest.Start(t, nolatest.Options{VirtualTime: true, Limits: shard.Config{Events: shard.Events{Turn: w.turn}}})
	w.now, w.start = s.Now, s.Now()
	s.PushFile("kitchen", "../../testdata/guests/kitchen.wasm")
	return s, w
}

// TestRemindersInVirtualTime lets reminders come, each at its own time: one by
// interval, one by the clock of a zone on the night in which it changes; and none
// after they are cancelled, also when the server stops between.
func TestRemindersInVirtualTime(t *testing.T) {
	w := &witness{}
	s := nolatest.Start(t, nolatest.Options{
		VirtualTime: true, StartTime: time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC),
		Limits: shard.Config{Events: shard.Events{Turn: w.turn}},
	})
	w.now, w.start = s.Now, s.Now()
	s.PushFile("kitchen", "../../testdata/guests/kitchen.wasm")
	set := func(id string, r *nolav1.Reminder) {
		t.Helper()
		_, err := s.Client.Actors.SetTimer(t.Context(), connect.NewRequest(&nolav1.SetTimerRequest{
			Actor: &nolav1.ActorRef{Type: "kitchen", Id: id}, Name: "r", Operation: "inc", When: &nolav1.SetTimerRequest_Reminder{Reminder: r},
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	set("often", &nolav1.Reminder{Period: &nolav1.Reminder_Every{Every: durationpb.New(5 * time.Hour)}})
	set("dawn", &nolav1.Reminder{Period: &nolav1.Reminder_Cron{Cron: "0 4 * * *"}, TimeZone: "Europe/Berlin"})
	var seen []string
	for range 3 {
		s.Advance(7 * time.Hour)
		s.Restart()
		seen = append(seen, w.seen()...)
	}
	// 4 o'clock is 14 hours away, as one of the hours between is left out.
	epoch := w.start.Sub(time.Unix(0, 0)) % (5 * time.Hour)
	var want []string
	for at := 5*time.Hour - epoch; at <= 21*time.Hour; at += 5 * time.Hour {
		want = append(want, fmt.Sprint("often ", at, " ok"))
	}
	want = append(want, "dawn 14h0m0s ok")
	slices.Sort(want)
	slices.Sort(seen)
	if !slices.Equal(seen, want) {
		t.Errorf("in 21 hours came\n%q, want\n%q", seen, want)
	}
	for _, id := range []string{"often", "dawn"} {
		if _, err := s.Client.Actors.CancelTimer(t.Context(), connect.NewRequest(&nolav1.CancelTimerRequest{Actor: &nolav1.ActorRef{Type: "kitchen", Id: id}, Name: "r", Reminder: true})); err != nil {
			t.Fatal(err)
		}
	}
	s.Advance(365 * 24 * time.Hour)
	if seen := w.seen(); len(seen) > 0 {
		t.Errorf("after the cancel came %d, the first ones %q", len(seen), seen[:min(len(seen), 3)])
	}
}

// TestBackoffInVirtualTime has a timer and firings fail again and again. Each
// attempt comes at its own virtual time, none is skipped by a long advance, and
// what is left when the attempts are used up is a dead letter.
func TestBackoffInVirtualTime(t *testing.T) {
	s, w := watched(t)
	if _, err := s.Client.Actors.SetTimer(t.Context(), connect.NewRequest(&nolav1.SetTimerRequest{
		Actor: &nolav1.ActorRef{Type: "kitchen", Id: "timer"}, Name: "t", Operation: "exit", When: &nolav1.SetTimerRequest_Delay{Delay: durationpb.New(time.Hour)},
	})); err != nil {
		t.Fatal(err)
	}
	_, err := s.Client.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		ScheduleId: "daily",
		Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "kitchen", Id: "firing"}, Operation: "nope"},
		Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(24 * time.Hour)}}},
		Policy: &nolav1.SchedulePolicy{Retry: &nolav1.RetryPolicy{
			Deadline: durationpb.New(time.Hour), BackoffMin: durationpb.New(10 * time.Minute), BackoffMax: durationpb.New(20 * time.Minute),
		}},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	s.Advance(12 * time.Hour)
	want := []string{"timer 1h0m0s failed", "timer 1h0m1s failed", "timer 1h0m3s failed", "timer 1h0m7s failed", "timer 1h0m15s failed"}
	if seen := w.seen(); !slices.Equal(seen, want) {
		t.Errorf("the attempts of a timer came at\n%q, want\n%q", seen, want)
	}
	s.Advance(12*time.Hour + 5*time.Minute) // into the first pause
	s.Restart()                             // the pause goes on
	s.Advance(6 * time.Hour)
	want = []string{"firing 24h0m0s failed", "firing 24h10m0s failed", "firing 24h30m0s failed", "firing 24h50m0s failed"}
	if seen := w.seen(); !slices.Equal(seen, want) {
		t.Errorf("the attempts of a firing came at\n%q, want\n%q", seen, want)
	}
	letters, err := s.Client.Schedules.ListDeadLetters(t.Context(), connect.NewRequest(&nolav1.ListDeadLettersRequest{ScheduleId: "daily"}))
	if err != nil || len(letters.Msg.GetDeadLetters()) != 1 || letters.Msg.GetDeadLetters()[0].GetAttempts() != 4 {
		t.Errorf("dead letters: %v, %v, want one after 4 attempts", letters.Msg.GetDeadLetters(), err)
	}
}
