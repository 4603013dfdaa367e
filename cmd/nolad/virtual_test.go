package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// ephemeral starts `nolad dev --ephemeral` and waits until it serves.
func ephemeral(t *testing.T, args ...string) *process {
	t.Helper()
	p := spawnCommand(t, "", append([]string{"dev", "--ephemeral", "--demo=false", "--listen", "127.0.0.1:0"}, args...)...)
	p.awaitReady()
	return p
}

// serverTime is the server's time, and whether that is virtual.
func serverTime(t *testing.T, c *client.Client) (time.Time, bool) {
	t.Helper()
	res, err := c.Cluster.GetCluster(t.Context(), connect.NewRequest(&nolav1.GetClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetServerTime().AsTime(), res.Msg.GetVirtualTime()
}

// TestVirtualTime moves the time of a server by months, over the API and by nolactl:
// each nominal time on the way fires once, at exactly its time, and has settled when
// the request is answered.
func TestVirtualTime(t *testing.T) {
	const (
		day    = 24 * time.Hour
		leap   = 30 * day
		every  = 6 * time.Hour
		timers = 3
	)
	nolactl := filepath.Join(t.TempDir(), "nolactl")
	if out, err := exec.Command("go", "build", "-o", nolactl, "../nolactl").CombinedOutput(); err != nil {
		t.Fatalf("building nolactl: %v\n%s", err, out)
	}
	p := ephemeral(t, "--time=virtual")
	c := p.dial()
	start, virtual := serverTime(t, c)
	if !virtual {
		t.Fatal("the server does not say that its time is virtual")
	}
	code, err := os.ReadFile("../../testdata/guests/small/small.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Name: "small", Wasm: code})); err != nil {
		t.Fatal(err)
	}
	_, err = c.Schedules.CreateSchedule(t.Context(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		ScheduleId: "six-hourly",
		Target:     &nolav1.ScheduleTarget{Actor: actorMessage("small", "scheduled"), Operation: "inc"},
		Spec:       &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{Expression: "0 */6 * * *"}}},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"soon", "late", "behind"} { // the last one is due a day after the first leap
		due := start.Add(time.Duration(i+1) * (leap + day) / timers)
		_, err := c.Actors.SetTimer(t.Context(), connect.NewRequest(&nolav1.SetTimerRequest{
			Actor: actorMessage("small", "timed"), Name: name, Operation: "inc", When: &nolav1.SetTimerRequest_DueTime{DueTime: timestamppb.New(due)},
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := serverTime(t, c); !now.Equal(start) {
		t.Errorf("nobody has moved time, and it went from %s to %s", start, now)
	}
	for to := (&nolav1.AdvanceTimeRequest{Target: &nolav1.AdvanceTimeRequest_By{By: durationpb.New(leap)}}); ; {
		res, err := c.Cluster.AdvanceTime(t.Context(), connect.NewRequest(to))
		if err != nil {
			t.Fatal(err)
		}
		if res.Msg.GetReached() {
			break
		}
		to.Target = &nolav1.AdvanceTimeRequest_To{To: res.Msg.GetTargetTime()} // a slow machine takes several requests
	}
	came := func(until time.Time, timersWant string) {
		t.Helper()
		if now, _ := serverTime(t, c); !now.Equal(until) {
			t.Errorf("time has come to %s, want %s", now, until)
		}
		if got := invoke(t, c, "small", "timed", "get", ""); got != timersWant {
			t.Errorf("%s timers have fired by %s, want %s", got, until, timersWant)
		}
		want := int(until.Unix()/int64(every.Seconds()) - start.Unix()/int64(every.Seconds()))
		if got := invoke(t, c, "small", "scheduled", "get", ""); got != strconv.Itoa(want) {
			t.Errorf("the target was woken %s times by %s, want %d", got, until, want)
		}
		list := occurrences(t, c, "six-hourly")
		if len(list) != want {
			t.Errorf("%d occurrences by %s, want %d", len(list), until, want)
		}
		at := start.Truncate(every)
		for _, o := range list {
			at = at.Add(every)
			if nominal := o.GetNominalTime().AsTime(); !nominal.Equal(at) || !o.GetStartTime().AsTime().Equal(at) || o.GetOutcome() != nolav1.Outcome_OUTCOME_FIRED || o.GetError() != nil {
				t.Errorf("occurrence %v, want one that fired at %s", o, at)
			}
		}
	}
	came(start.Add(leap), "2")

	advance := exec.Command(nolactl, "--server", p.url, "time", "advance", "30d")
	advance.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := advance.CombinedOutput(); err != nil || !strings.Contains(string(out), start.Add(2*leap).Format(time.RFC3339)) {
		t.Errorf("nolactl time advance: %v, %s; want the time %s", err, out, start.Add(2*leap))
	}
	came(start.Add(2*leap), "3")

	_, err = c.Cluster.AdvanceTime(t.Context(), connect.NewRequest(&nolav1.AdvanceTimeRequest{Target: &nolav1.AdvanceTimeRequest_To{To: timestamppb.New(start)}}))
	if reasonOf(err) != nola.ReasonInvalidArgument {
		t.Errorf("time that is to go back: %v, want %s", err, nola.ReasonInvalidArgument)
	}
}

// TestRealTimeIsNotMoved: without --time=virtual a server's time is that of the world.
func TestRealTimeIsNotMoved(t *testing.T) {
	c := ephemeral(t).dial()
	before, virtual := serverTime(t, c)
	if virtual {
		t.Error("the server says that its time is virtual")
	}
	_, err := c.Cluster.AdvanceTime(t.Context(), connect.NewRequest(&nolav1.AdvanceTimeRequest{Target: &nolav1.AdvanceTimeRequest_By{By: durationpb.New(time.Hour)}}))
	if reasonOf(err) != nola.ReasonTimeNotVirtual {
		t.Errorf("time was moved by an hour: %v, want %s", err, nola.ReasonTimeNotVirtual)
	}
	if now, _ := serverTime(t, c); now.Sub(before) > 30*time.Minute {
		t.Errorf("the time was %s, and is %s now", before, now)
	}
}
