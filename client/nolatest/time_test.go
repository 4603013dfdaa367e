package nolatest_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestAdvance lets 30 days pass, with a restart between, and calls again with
// the client of before.
func TestAdvance(t *testing.T) {
	s := nolatest.Start(t, nolatest.Options{VirtualTime: true})
	s.PushFile("small", small)
	s.Invoke("small/bob", "inc", "")
	_, err := s.Client.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{
		Schedule: &nolav1.Schedule{
			ScheduleId: "monthly",
			Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "small", Id: "bob"}, Operation: "inc"},
			Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(24 * time.Hour)}}},
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	start := s.Now()
	s.Advance(15*24*time.Hour - 1)
	if got := s.Invoke("small/bob", "get", ""); got != "15" {
		t.Errorf("a nanosecond before 15 days: %q", got)
	}
	s.Restart()
	s.Advance(15*24*time.Hour + 1)
	if got := s.Invoke("small/bob", "get", ""); got != "31" {
		t.Errorf("after 30 days: %q", got)
	}
	if got := s.Now().Sub(start); got != 30*24*time.Hour {
		t.Errorf("%s have passed", got)
	}
}
