package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// almanac is a server in virtual time, whose guests are Go, with an eye on one
// schedule.
type almanac struct {
	*nolatest.Server
	t     *testing.T
	start time.Time
}

func newAlmanac(t *testing.T) *almanac {
	t.Helper()
	return newAlmanacAt(t, time.Time{})
}

// newAlmanacAt lets time begin at start.
func newAlmanacAt(t *testing.T, start time.Time) *almanac {
	t.Helper()
	s := nolatest.Start(t, nolatest.Options{VirtualTime: true, StartTime: start, Runtime: guests{}})
	s.Push("keeper", []byte("code"), nola.Manifest{})
	return &almanac{s, t, s.Now()}
}

// at is so many hours after the start.
func (a *almanac) at(hours float64) *timestamppb.Timestamp {
	return timestamppb.New(a.start.Add(time.Duration(hours * float64(time.Hour))))
}

// hour says when something was, in hours from the start.
func (a *almanac) hour(at *timestamppb.Timestamp) string {
	return fmt.Sprint(at.AsTime().Sub(a.start).Hours())
}

// hourly makes schedule "a", due every hour.
func (a *almanac) hourly(operation string, policy *nolav1.SchedulePolicy) *nolav1.CreateScheduleResponse {
	a.t.Helper()
	return a.make("a", "keeper", operation, policy)
}

func (a *almanac) make(id, module, operation string, policy *nolav1.SchedulePolicy) *nolav1.CreateScheduleResponse {
	a.t.Helper()
	return a.makeOf(id, module, operation, policy, &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Hour)}}})
}

func (a *almanac) makeOf(id, module, operation string, policy *nolav1.SchedulePolicy, spec *nolav1.ScheduleSpec) *nolav1.CreateScheduleResponse {
	a.t.Helper()
	res, err := a.Client.Schedules.CreateSchedule(context.Background(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		ScheduleId: id, Policy: policy,
		Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: module, Id: "one"}, Operation: operation},
		Spec:   spec,
	}}))
	if err != nil {
		a.t.Fatal(err)
	}
	return res.Msg
}

func (a *almanac) skip(at *timestamppb.Timestamp) error {
	_, err := a.Client.Schedules.SkipOccurrence(context.Background(), connect.NewRequest(&nolav1.SkipOccurrenceRequest{ScheduleId: "a", NominalTime: at}))
	return err
}

func (a *almanac) unskip(at *timestamppb.Timestamp) error {
	_, err := a.Client.Schedules.UnskipOccurrence(context.Background(), connect.NewRequest(&nolav1.UnskipOccurrenceRequest{ScheduleId: "a", NominalTime: at}))
	return err
}

func (a *almanac) move(at, to *timestamppb.Timestamp) error {
	_, err := a.Client.Schedules.MoveOccurrence(context.Background(), connect.NewRequest(&nolav1.MoveOccurrenceRequest{ScheduleId: "a", NominalTime: at, To: to}))
	return err
}

func (a *almanac) trigger(requestID string) (*nolav1.Occurrence, error) {
	res, err := a.Client.Schedules.TriggerSchedule(context.Background(), connect.NewRequest(&nolav1.TriggerScheduleRequest{ScheduleId: "a", RequestId: requestID}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetOccurrence(), nil
}

func (a *almanac) backfill(id string, from, to float64, change ...func(*nolav1.BackfillScheduleRequest)) (*nolav1.BackfillScheduleResponse, error) {
	req := &nolav1.BackfillScheduleRequest{ScheduleId: "a", RequestId: id, StartTime: a.at(from), EndTime: a.at(to)}
	for _, f := range change {
		f(req)
	}
	res, err := a.Client.Schedules.BackfillSchedule(context.Background(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (a *almanac) getBackfill(id string) (*nolav1.Backfill, error) {
	res, err := a.Client.Schedules.GetBackfill(context.Background(), connect.NewRequest(&nolav1.GetBackfillRequest{ScheduleId: "a", BackfillId: id}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetBackfill(), nil
}

func (a *almanac) cancelBackfill(id string) (*nolav1.Backfill, error) {
	res, err := a.Client.Schedules.CancelBackfill(context.Background(), connect.NewRequest(&nolav1.CancelBackfillRequest{ScheduleId: "a", BackfillId: id}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetBackfill(), nil
}

func (a *almanac) letters() (*nolav1.ListDeadLettersResponse, error) {
	res, err := a.Client.Schedules.ListDeadLetters(context.Background(), connect.NewRequest(&nolav1.ListDeadLettersRequest{ScheduleId: "a"}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (a *almanac) redrive(number uint64) (*nolav1.Occurrence, error) {
	res, err := a.Client.Schedules.RedriveDeadLetter(context.Background(), connect.NewRequest(&nolav1.RedriveDeadLetterRequest{ScheduleId: "a", Number: number}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetOccurrence(), nil
}

func (a *almanac) explain(at *timestamppb.Timestamp) (*nolav1.ExplainOccurrenceResponse, error) {
	res, err := a.Client.Schedules.ExplainOccurrence(context.Background(), connect.NewRequest(&nolav1.ExplainOccurrenceRequest{ScheduleId: "a", Time: at}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// why demands that a rule decides over an hour.
func (a *almanac) why(hours float64, rule string) *nolav1.ExplainOccurrenceResponse {
	a.t.Helper()
	v, err := a.explain(a.at(hours))
	if err != nil {
		a.t.Fatal(err)
	}
	if v.GetRule() != rule || v.GetExplanation() == "" {
		a.t.Errorf("hour %v is decided by %s (%q), want %s", hours, v.GetRule(), v.GetExplanation(), rule)
	}
	return v
}

// history tells what became of the schedule's times, the oldest first: nominal
// hour, outcome, and the hour of the start if it is another one.
func (a *almanac) history(id string) (lines []string) {
	a.t.Helper()
	res, err := a.Client.Schedules.ListOccurrences(context.Background(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: id, PageSize: 100}))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, o := range slices.Backward(res.Msg.GetOccurrences()) {
		line := a.hour(o.GetNominalTime()) + " " + strings.TrimPrefix(o.GetOutcome().String(), "OUTCOME_")
		if o.GetStartTime() != nil && !o.GetStartTime().AsTime().Equal(o.GetNominalTime().AsTime()) {
			line += " at " + a.hour(o.GetStartTime())
		}
		lines = append(lines, line)
	}
	return lines
}

func (a *almanac) wantHistory(id string, want ...string) {
	a.t.Helper()
	if got := a.history(id); !slices.Equal(got, want) {
		a.t.Errorf("history %q\nwant    %q", got, want)
	}
}

// refused demands an error of that reason.
func refused(t *testing.T, what string, err error, want nola.Reason) {
	t.Helper()
	if reasonOf(err) != want {
		t.Errorf("%s: error %v (%s), want %s", what, err, reasonOf(err), want)
	}
}

func TestSkipMoveAndWhy(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("put", nil)
	for _, err := range []error{a.skip(a.at(1)), a.skip(a.at(1)), a.move(a.at(2), a.at(2.5)), a.skip(a.at(3)), a.unskip(a.at(3)), a.move(a.at(4), a.at(1.5)), a.unskip(a.at(4))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	res, err := a.Client.Schedules.GetSchedule(t.Context(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	if next := res.Msg.GetSchedule().GetInfo().GetNextTimes(); len(next) < 3 || a.hour(next[0]) != "2.5" || a.hour(next[1]) != "3" || a.hour(next[2]) != "4" {
		t.Errorf("next times %v, want hours 2.5, 3, 4", next)
	}
	a.why(1, "SKIPPED")
	a.why(2, "MOVED")
	a.why(3, "COMING")
	if v := a.why(1.5, "NOT_NOMINAL"); a.hour(v.GetNominalTime()) != "2" {
		t.Errorf("behind hour 1.5 comes %v, want hour 2", v.GetNominalTime())
	}
	a.why(-1, "BEFORE_CREATION")

	a.Advance(4 * time.Hour)
	// In the order in which they were decided.
	a.wantHistory("a", "1 EXCLUDED_BY_USER", "2 FIRED at 2.5", "3 FIRED", "4 FIRED")
	if v := a.why(1, "EXCLUDED_BY_USER"); v.GetOccurrence().GetOutcome() != nolav1.Outcome_OUTCOME_EXCLUDED_BY_USER {
		t.Errorf("the record of hour 1 is %v", v.GetOccurrence())
	}
	if v := a.why(2, "FIRED"); a.hour(v.GetOccurrence().GetStartTime()) != "2.5" {
		t.Errorf("the record of hour 2 is %v", v.GetOccurrence())
	}
	refused(t, "skip what has been decided", a.skip(a.at(3)), nola.ReasonInvalidArgument)
	refused(t, "unskip what has been decided", a.unskip(a.at(1)), nola.ReasonInvalidArgument)
	refused(t, "skip what is no nominal time", a.skip(a.at(5.5)), nola.ReasonInvalidArgument)
	refused(t, "move into the past", a.move(a.at(5), a.at(3.5)), nola.ReasonInvalidArgument)
}

func TestBackfills(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("put", nil)
	plan, err := a.backfill("dry", -5, 0, func(r *nolav1.BackfillScheduleRequest) { r.DryRun = true })
	if err != nil {
		t.Fatal(err)
	}
	if b := plan.GetBackfill(); b.GetTotal() != 6 || a.hour(plan.GetFirstTime()) != "-5" || a.hour(plan.GetLastTime()) != "0" {
		t.Errorf("a dry run answers %v, from %v to %v, want 6 times", b, plan.GetFirstTime(), plan.GetLastTime())
	}
	a.Advance(time.Second)
	a.wantHistory("a")
	_, err = a.getBackfill("dry")
	refused(t, "a backfill that was only thought of", err, nola.ReasonBackfillNotFound)

	slow := func(r *nolav1.BackfillScheduleRequest) { r.Rate = 1 }
	first, err := a.backfill("slow", -5, 0, slow)
	if err != nil {
		t.Fatal(err)
	}
	a.Advance(time.Second)
	again, err := a.backfill("slow", -5, 0, slow)
	if err != nil {
		t.Fatal(err)
	}
	if b := again.GetBackfill(); !b.GetCreateTime().AsTime().Equal(first.GetBackfill().GetCreateTime().AsTime()) || b.GetStarted() == 0 || b.GetStarted() == 6 {
		t.Errorf("the same request again answers %v, made as %v", b, first.GetBackfill())
	}
	ended, err := a.cancelBackfill("slow")
	if err != nil || ended.GetState() != nolav1.BackfillState_BACKFILL_STATE_CANCELED {
		t.Fatalf("canceled: %v, %v", ended, err)
	}
	a.Advance(time.Minute)
	if b, err := a.getBackfill("slow"); err != nil || b.GetStarted() != ended.GetStarted() || b.GetSucceeded() != b.GetStarted() || b.GetFinishTime() == nil {
		t.Errorf("after it was canceled: %v, %v, want %d started", b, err, ended.GetStarted())
	}
	if n := len(a.history("a")); n != int(ended.GetStarted()) {
		t.Errorf("%d times fired, %d were started", n, ended.GetStarted())
	}

	if _, err := a.backfill("back", -5, 0, func(r *nolav1.BackfillScheduleRequest) { r.Reverse = true }); err != nil {
		t.Fatal(err)
	}
	a.Advance(time.Minute)
	b, err := a.getBackfill("back")
	if err != nil || b.GetState() != nolav1.BackfillState_BACKFILL_STATE_DONE || b.GetSucceeded() != 6 || a.hour(b.GetLastNominalTime()) != "-5" {
		t.Errorf("backwards: %v, %v, want it done with 6, hour -5 last", b, err)
	}
	list, err := a.Client.Schedules.ListBackfills(t.Context(), connect.NewRequest(&nolav1.ListBackfillsRequest{ScheduleId: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, b := range list.Msg.GetBackfills() {
		ids = append(ids, b.GetBackfillId())
	}
	if !slices.Equal(ids, []string{"back", "slow"}) {
		t.Errorf("backfills %q, want the newest first", ids)
	}

	_, err = a.cancelBackfill("none")
	refused(t, "cancel what is not there", err, nola.ReasonBackfillNotFound)
	_, err = a.backfill("decades", -50*365*24, 0)
	refused(t, "half a century of hours", err, nola.ReasonLimitExceeded)
	_, err = a.backfill("future", -1, 1)
	refused(t, "times to come", err, nola.ReasonInvalidArgument)
	_, err = a.backfill("reversed", 0, -1)
	refused(t, "an end before its start", err, nola.ReasonInvalidArgument)
	_, err = a.backfill("skips", -1, 0, func(r *nolav1.BackfillScheduleRequest) { r.Overlap = nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP })
	refused(t, "a policy that leaves times out", err, nola.ReasonInvalidArgument)
}

// TestBackfillOfACentury asks for every second of a hundred years: the call itself is
// refused, says which limit it passes, and leaves nothing.
func TestBackfillOfACentury(t *testing.T) {
	now := time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC)
	a := newAlmanacAt(t, now)
	a.makeOf("a", "keeper", "put", nil, &nolav1.ScheduleSpec{
		Cron: []*nolav1.CronSpec{{Expression: "* * * * * *", Dialect: nolav1.CronDialect_CRON_DIALECT_SECONDS}},
	})
	for _, dry := range []bool{true, false} {
		_, err := a.backfill("century", 0, 0, func(r *nolav1.BackfillScheduleRequest) {
			r.StartTime, r.DryRun = timestamppb.New(now.AddDate(-100, 0, 0)), dry
		})
		refused(t, "a century of seconds", err, nola.ReasonLimitExceeded)
		var e *nola.Error
		if want := "backfill_times_max"; !errors.As(err, &e) || e.Metadata["limit"] != want {
			t.Errorf("a century of seconds, dry run %t: %v, want limit %s passed", dry, err, want)
		}
	}
	_, err := a.getBackfill("century")
	refused(t, "a backfill that was refused", err, nola.ReasonBackfillNotFound)
	a.wantHistory("a")
	// What is allowed still is.
	if b, err := a.backfill("minute", 0, 0, func(r *nolav1.BackfillScheduleRequest) { r.StartTime = timestamppb.New(now.Add(-time.Minute)) }); err != nil || b.GetBackfill().GetTotal() != 61 {
		t.Errorf("a minute of seconds: %v, %v, want 61 times", b, err)
	}
}

// TestOccurrencesOfOneInstant reads the history by pages of one record, where
// triggers and backfills share a nominal time, while they run, while they wait,
// and once they have ended, also between two pages.
func TestOccurrencesOfOneInstant(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("fail", &nolav1.SchedulePolicy{Retry: &nolav1.RetryPolicy{Deadline: durationpb.New(10 * time.Minute)}})
	for _, id := range []string{"t2", "t1", "t3", "waits 2", "waits 1"} {
		overlap := nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL
		if strings.HasPrefix(id, "waits") {
			overlap = nolav1.OverlapPolicy_OVERLAP_POLICY_BUFFER_ALL
		}
		_, err := a.Client.Schedules.TriggerSchedule(t.Context(), connect.NewRequest(&nolav1.TriggerScheduleRequest{ScheduleId: "a", RequestId: id, Overlap: overlap}))
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(between func()) (lines []string) {
		t.Helper()
		for token := ""; ; between() {
			res, err := a.Client.Schedules.ListOccurrences(t.Context(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: "a", PageSize: 1, PageToken: token}))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range res.Msg.GetOccurrences() {
				lines = append(lines, fmt.Sprint(a.hour(o.GetNominalTime()), " ", o.GetRequestId(), " ", strings.TrimPrefix(o.GetOutcome().String(), "OUTCOME_")))
			}
			if token = res.Msg.GetNextPageToken(); token == "" || len(lines) > 20 {
				return lines
			}
		}
	}
	is := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q\nwant %q", what, got, want)
		}
	}
	still := func() {}
	is("while they run", read(still), "0 t1 RUNNING", "0 t2 RUNNING", "0 t3 RUNNING", "0 waits 1 BUFFERED", "0 waits 2 BUFFERED")
	ends := func() { a.Advance(15 * time.Minute) }
	is("while they end", read(ends), "0 t1 RUNNING", "0 t2 FIRED", "0 t3 FIRED", "0 waits 1 FIRED", "0 waits 2 FIRED")
	for _, id := range []string{"b2", "b1"} {
		if _, err := a.backfill(id, -1, 0, func(r *nolav1.BackfillScheduleRequest) { r.Overlap = nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL }); err != nil {
			t.Fatal(err)
		}
	}
	a.AdvanceTo(a.Now().Add(20 * time.Minute))
	is("of two backfills", read(still), "1  FIRED",
		"0 t1 FIRED", "0 t2 FIRED", "0 t3 FIRED", "0 waits 1 FIRED", "0 waits 2 FIRED", "0 b1 FIRED", "0 b2 FIRED", "-1 b1 FIRED", "-1 b2 FIRED")
}

// TestTriggerWithoutRemainingActions: a schedule that is exhausted fires when
// somebody asks for it, and at no time of its own.
func TestTriggerWithoutRemainingActions(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("put", nil)
	_, err := a.Client.Schedules.UpdateSchedule(t.Context(), connect.NewRequest(&nolav1.UpdateScheduleRequest{
		Schedule:   &nolav1.Schedule{ScheduleId: "a", State: &nolav1.ScheduleState{Limited: true}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"state.limited"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.trigger("key"); err != nil {
		t.Fatal(err)
	}
	a.Advance(time.Hour)
	a.wantHistory("a", "0 FIRED")
	a.why(2, "EXHAUSTED")
}

// TestRecordsAreKeptHoweverOld: records make room for others, and only then.
func TestRecordsAreKeptHoweverOld(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("put", nil)
	const days = 10
	a.Advance(days * 24 * time.Hour)
	res, err := a.Client.Schedules.ListOccurrences(t.Context(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: "a", PageSize: 1000}))
	if err != nil {
		t.Fatal(err)
	}
	all := res.Msg.GetOccurrences()
	if len(all) != days*24 || a.hour(all[len(all)-1].GetNominalTime()) != "1" {
		t.Errorf("%d records after %d days, the oldest %v", len(all), days, all[len(all)-1])
	}
}

func TestDeadLetters(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("fail", &nolav1.SchedulePolicy{Retry: &nolav1.RetryPolicy{Deadline: durationpb.New(time.Minute), MaxAttempts: 3}})
	a.Advance(time.Hour + time.Minute)
	res, err := a.letters()
	if err != nil || len(res.GetDeadLetters()) != 1 {
		t.Fatalf("dead letters %v, %v, want one", res, err)
	}
	l := res.GetDeadLetters()[0]
	if l.GetNumber() != 1 || a.hour(l.GetNominalTime()) != "1" || l.GetAttempts() != 3 || l.GetError().GetReason() != string(nola.ReasonGuestError) || l.GetError().GetMessage() != "as asked" {
		t.Errorf("the dead letter is %v", l)
	}
	_, err = a.Client.Schedules.UpdateSchedule(t.Context(), connect.NewRequest(&nolav1.UpdateScheduleRequest{
		Schedule:   &nolav1.Schedule{ScheduleId: "a", Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "keeper", Id: "one"}, Operation: "put"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"target.operation"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	o, err := a.redrive(1)
	if err != nil || o.GetKind() != nolav1.OccurrenceKind_OCCURRENCE_KIND_REDRIVE || a.hour(o.GetNominalTime()) != "1" {
		t.Errorf("sent again: %v, %v", o, err)
	}
	a.AdvanceTo(a.Now())
	if res, err := a.letters(); err != nil || len(res.GetDeadLetters()) != 0 {
		t.Errorf("after it was sent again: %v, %v", res, err)
	}
	if got := a.history("a"); len(got) != 2 || !strings.HasPrefix(got[1], "1 FIRED at 1.01") && !strings.HasPrefix(got[0], "1 FIRED at 1.01") {
		t.Errorf("history %q, want hour 1 twice, the second a minute later", got)
	}
	_, err = a.redrive(1)
	refused(t, "send it once more", err, nola.ReasonDeadLetterNotFound)
}

// TestCarryIsShown looks at what the firings of a schedule leave to the next one.
func TestCarryIsShown(t *testing.T) {
	a := newAlmanac(t)
	carry := func() *nolav1.ScheduleCarry {
		t.Helper()
		res, err := a.Client.Schedules.GetSchedule(t.Context(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: "a"}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.GetSchedule().GetInfo().GetCarry()
	}
	if _, err := a.Call("keeper/one", "put", "hello"); err != nil {
		t.Fatal(err)
	}
	a.hourly("get", nil)
	if c := carry(); c != nil {
		t.Errorf("before the first firing: %v", c)
	}
	a.Advance(time.Hour)
	if c := carry(); string(c.GetResult()) != "hello" || !c.GetResultTime().AsTime().Equal(a.at(1).AsTime()) || c.GetErrorTime() != nil || c.GetResultTooLong() {
		t.Errorf("after a firing that went well: %v", c)
	}
	_, err := a.Client.Schedules.UpdateSchedule(t.Context(), connect.NewRequest(&nolav1.UpdateScheduleRequest{
		Schedule: &nolav1.Schedule{ScheduleId: "a", Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "keeper", Id: "one"}, Operation: "fail"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"target"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	a.Advance(time.Hour)
	if c := carry(); string(c.GetResult()) != "hello" || c.GetError() != "as asked" || !c.GetErrorTime().AsTime().Equal(a.at(2).AsTime()) {
		t.Errorf("after one that failed: %v", c)
	}
	list, err := a.Client.Schedules.ListSchedules(t.Context(), connect.NewRequest(&nolav1.ListSchedulesRequest{}))
	if err != nil || list.Msg.GetSchedules()[0].GetInfo().GetCarry() != nil {
		t.Errorf("a list brings the result along: %v, %v", list, err)
	}
}

// TestScheduleThatIsNotThere asks everything of it.
func TestScheduleThatIsNotThere(t *testing.T) {
	a := newAlmanac(t)
	for what, f := range map[string]func() error{
		"skip":            func() error { return a.skip(a.at(1)) },
		"unskip":          func() error { return a.unskip(a.at(1)) },
		"move":            func() error { return a.move(a.at(1), a.at(2)) },
		"trigger":         func() error { _, err := a.trigger("x"); return err },
		"backfill":        func() error { _, err := a.backfill("x", -1, 0); return err },
		"get backfill":    func() error { _, err := a.getBackfill("x"); return err },
		"cancel backfill": func() error { _, err := a.cancelBackfill("x"); return err },
		"letters":         func() error { _, err := a.letters(); return err },
		"redrive":         func() error { _, err := a.redrive(1); return err },
		"why":             func() error { _, err := a.explain(a.at(1)); return err },
		"list backfills": func() error {
			_, err := a.Client.Schedules.ListBackfills(context.Background(), connect.NewRequest(&nolav1.ListBackfillsRequest{ScheduleId: "a"}))
			return err
		},
	} {
		refused(t, what, f(), nola.ReasonScheduleNotFound)
	}
}

func TestMissingModuleIsWarnedOf(t *testing.T) {
	a := newAlmanac(t)
	res := a.make("early", "absent", "put", nil)
	if w := res.GetWarnings(); len(w) != 1 || w[0].GetCode() != string(nola.ReasonModuleNotFound) || w[0].GetField() != "target.actor.type" || !strings.Contains(w[0].GetMessage(), `"absent"`) {
		t.Errorf("warnings %v, want one of the missing module", w)
	}
	a.Advance(time.Hour + 30*time.Minute)
	a.Push("absent", []byte("late"), nola.Manifest{})
	a.Advance(30 * time.Minute)
	if got := a.history("early"); len(got) != 2 || !strings.HasPrefix(got[0], "1 FAILED_START") || got[1] != "2 FIRED" {
		t.Errorf("history %q, want FAILED_START and FIRED", got)
	}
	if w := a.make("late", "absent", "put", nil).GetWarnings(); len(w) != 0 {
		t.Errorf("warnings %v of a module that is there", w)
	}
}

// TestTriggerIsReplayed triggers under one key, before and after the firing has
// ended, and after a crash.
func TestTriggerIsReplayed(t *testing.T) {
	a := newAlmanac(t)
	a.hourly("put", nil)
	first, err := a.trigger("key")
	if err != nil {
		t.Fatal(err)
	}
	for _, between := range []func(){func() {}, func() { a.Advance(30 * time.Minute) }, a.Crash} {
		between()
		again, err := a.trigger("key")
		if err != nil || !again.GetNominalTime().AsTime().Equal(first.GetNominalTime().AsTime()) || again.GetKind() != first.GetKind() {
			t.Errorf("the same key answers %v, %v, want %v", again, err, first)
		}
	}
	other, err := a.trigger("another key")
	if err != nil || other.GetNominalTime().AsTime().Equal(first.GetNominalTime().AsTime()) {
		t.Errorf("another key answers %v, %v", other, err)
	}
	a.AdvanceTo(a.Now())
	a.wantHistory("a", "0 FIRED", "0.5 FIRED")
}
