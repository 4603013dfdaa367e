package nolatest_test

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	"github.com/nolaproject/nola/guest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// relay is a schedule of one firing an hour, each of which hands a number on to
// the next one.
type relay struct {
	*nolatest.Server
	t *testing.T
}

func newRelay(t *testing.T, overlap nolav1.OverlapPolicy) relay {
	t.Helper()
	s := nolatest.Start(t, nolatest.Options{VirtualTime: true, Dir: filepath.Join(t.TempDir(), "data")})
	s.PushFile("kitchen", "../../testdata/guests/kitchen.wasm")
	_, err := s.Client.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{
		Schedule: &nolav1.Schedule{
			ScheduleId: "hourly",
			Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "kitchen", Id: "a"}, Operation: "relay"},
			Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Hour)}}},
			Policy:     &nolav1.SchedulePolicy{Overlap: overlap},
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	return relay{s, t}
}

// set has the firings to come answer, or fail with, so many bytes.
func (r relay) set(key, n string) {
	r.t.Helper()
	r.Invoke("kitchen/a", "set", `{"key":"`+key+`","value":"`+n+`"}`)
}

// fires lets an hour pass and demands that its firing was left what want says.
func (r relay) fires(what string, want guest.Carry) {
	r.t.Helper()
	r.Advance(time.Hour)
	var got guest.Carry
	if err := json.Unmarshal([]byte(r.Invoke("kitchen/a", "value", "left")), &got); err != nil {
		r.t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		r.t.Errorf("%s: left were %+v\nwant %+v", what, got, want)
	}
}

// TestCarryThroughAGuest has each firing hand its result on to the next one,
// over crashes of the server, a failure, and a result that is too long.
func TestCarryThroughAGuest(t *testing.T) {
	r := newRelay(t, nolav1.OverlapPolicy_OVERLAP_POLICY_UNSPECIFIED)
	start := r.Now()
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }

	r.fires("the first", guest.Carry{})
	r.Crash()
	r.fires("the second", guest.Carry{Result: []byte("1"), ResultBytes: 1, ResultNominal: hour(1)})
	r.set("fail", "1500")
	r.fires("one that failed keeps nothing itself", guest.Carry{Result: []byte("1"), ResultBytes: 1, ResultNominal: hour(1)})
	r.Crash()
	r.set("fail", "0")
	r.fires("after a failure", guest.Carry{
		Result: []byte("2"), ResultBytes: 1, ResultNominal: hour(2),
		Failure: strings.Repeat("f", nola.CarryErrorMax), FailureBytes: 1500, FailureReason: string(nola.ReasonGuestError), FailureNominal: hour(3),
	})
	r.set("answer", "65537")
	r.fires("after one that went well", guest.Carry{Result: []byte("3"), ResultBytes: 1, ResultNominal: hour(4)})
	r.set("answer", "65536")
	r.Crash()
	r.fires("after a result that is too long", guest.Carry{ResultBytes: nola.CarryBytesMax + 1, ResultNominal: hour(5)})
	r.Crash()
	r.fires("after a result of the greatest length", guest.Carry{Result: []byte(strings.Repeat("a", nola.CarryBytesMax)), ResultBytes: nola.CarryBytesMax, ResultNominal: hour(6)})
	r.Invoke("kitchen/a", "relay", "")
	if got := r.Invoke("kitchen/a", "value", "left"); got != r.zero() {
		t.Errorf("a call was left %.100s", got)
	}
}

func (r relay) zero() string {
	r.t.Helper()
	b, err := json.Marshal(guest.Carry{})
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// TestAllowAllCarriesNothing: its firings do not follow each other.
func TestAllowAllCarriesNothing(t *testing.T) {
	r := newRelay(t, nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL)
	r.fires("the first", guest.Carry{})
	r.fires("the second", guest.Carry{})
}
