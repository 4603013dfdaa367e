package nolatest_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestTerminateStopsAGuest has a firing take the place of one whose guest loops,
// with no limit in its way but the deadline of a turn.
func TestTerminateStopsAGuest(t *testing.T) {
	s := nolatest.Start(t)
	code, err := os.ReadFile("../../testdata/guests/kitchen.wasm")
	if err != nil {
		t.Fatal(err)
	}
	s.Push("kitchen", code, nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}})
	schedules := s.Client.Schedules
	_, err = schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{
		Schedule: &nolav1.Schedule{
			ScheduleId: "spinner",
			Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "kitchen", Id: "a"}, Operation: "spin"},
			Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(24 * 365 * time.Hour)}}},
			Policy:     &nolav1.SchedulePolicy{Overlap: nolav1.OverlapPolicy_OVERLAP_POLICY_TERMINATE_OTHER, PauseAfterFailures: 1},
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	trigger := func(id, payload string) {
		t.Helper()
		_, err := schedules.TriggerSchedule(t.Context(), connect.NewRequest(&nolav1.TriggerScheduleRequest{
			ScheduleId: "spinner", RequestId: id, Payload: []byte(payload),
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	trigger("one", "")
	trigger("two", "once")
	var done []*nolav1.Occurrence
	for len(done) < 2 { // each round is a turn of the actor, behind those before
		s.Invoke("kitchen/a", "echo", "")
		res, err := schedules.ListOccurrences(t.Context(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: "spinner"}))
		if err != nil {
			t.Fatal(err)
		}
		done = slices.DeleteFunc(res.Msg.GetOccurrences(), func(o *nolav1.Occurrence) bool {
			return o.GetOutcome() == nolav1.Outcome_OUTCOME_RUNNING || o.GetOutcome() == nolav1.Outcome_OUTCOME_BUFFERED
		})
	}
	if took := time.Since(began); took > nola.TurnTimeoutDefault {
		t.Errorf("it took %s, as long as a turn may take", took)
	}
	for _, o := range done {
		want, reason := nolav1.Outcome_OUTCOME_TERMINATED, string(nola.ReasonTerminated)
		if o.GetRequestId() == "two" {
			want, reason = nolav1.Outcome_OUTCOME_FIRED, ""
		}
		if o.GetOutcome() != want || o.GetError().GetReason() != reason {
			t.Errorf("%s ended with %s, %v, want %s", o.GetRequestId(), o.GetOutcome(), o.GetError(), want)
		}
	}
	if got := s.Invoke("kitchen/a", "value", "spun"); got != "1" {
		t.Errorf("the last one counted %s", got)
	}
	if got, err := s.Call("kitchen/a", "value", "left"); err == nil {
		t.Errorf("a terminated turn left %q behind", got)
	}
	if got := s.Invoke("kitchen/a", "timerList", "{}"); got != `{"timers":[]}` {
		t.Errorf("timers are left: %s", got)
	}
	res, err := schedules.GetSchedule(t.Context(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: "spinner"}))
	if err != nil || res.Msg.GetSchedule().GetState().GetPaused() {
		t.Errorf("after it was terminated the schedule is %v, %v: that is no failure", res.Msg.GetSchedule().GetState(), err)
	}
}
