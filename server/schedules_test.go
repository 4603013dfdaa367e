package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// yearly is a schedule that does not fire while a test runs.
func yearly(id, actor string) *nolav1.Schedule {
	return &nolav1.Schedule{
		ScheduleId: id,
		Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "keeper", Id: actor}, Operation: "put", Payload: []byte(id)},
		Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(100 * 365 * 24 * time.Hour)}}},
	}
}

func (w *world) create(s *nolav1.Schedule, requestID string) (*nolav1.Schedule, error) {
	res, err := w.Schedules.CreateSchedule(context.Background(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: s, RequestId: requestID}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetSchedule(), nil
}

func (w *world) schedule(id string) (*nolav1.Schedule, error) {
	res, err := w.Schedules.GetSchedule(context.Background(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: id}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetSchedule(), nil
}

func (w *world) deleteSchedule(id, etag string) error {
	_, err := w.Schedules.DeleteSchedule(context.Background(), connect.NewRequest(&nolav1.DeleteScheduleRequest{ScheduleId: id, Etag: etag}))
	return err
}

func TestCreateSchedule(t *testing.T) {
	w := newWorld(t)
	w.push("default", "keeper")
	first, err := w.create(yearly("a", "one"), "request 1")
	if err != nil {
		t.Fatal(err)
	}
	if first.GetEtag() == "" || len(first.GetInfo().GetNextTimes()) == 0 || first.GetInfo().GetCreated() == nil {
		t.Errorf("schedule %v lacks an etag, next times or its creation", first)
	}
	again, err := w.create(yearly("a", "one"), "request 1")
	if err != nil || again.GetEtag() != first.GetEtag() || !again.GetInfo().GetCreated().AsTime().Equal(first.GetInfo().GetCreated().AsTime()) {
		t.Errorf("the same request answers %v, error %v, want %v", again, err, first)
	}
	_, err = w.create(yearly("a", "one"), "request 2")
	w.want(nola.ReasonAlreadyExists, "another request", err)
	_, err = w.create(yearly("a", "two"), "")
	w.want(nola.ReasonAlreadyExists, "another target", err)

	never := yearly("never", "one")
	never.Spec = &nolav1.ScheduleSpec{At: []*timestamppb.Timestamp{timestamppb.New(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))}}
	_, err = w.create(never, "")
	w.want(nola.ReasonInvalidSpec, "a spec in the past", err)
	never.Spec = &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{Expression: "61 * * * *"}}}
	_, err = w.create(never, "")
	w.want(nola.ReasonInvalidSpec, "a faulty expression", err)
	elsewhere := yearly("b", "one")
	elsewhere.Namespace = "nowhere"
	_, err = w.create(elsewhere, "")
	w.want(nola.ReasonNamespaceNotFound, "an unknown namespace", err)
	_, err = w.schedule("never")
	w.want(nola.ReasonScheduleNotFound, "a refused schedule", err)

	if err := w.deleteSchedule("a", "77"); reasonOf(err) != nola.ReasonETagMismatch {
		t.Errorf("another etag: %v", err)
	}
	if err := w.deleteSchedule("a", first.GetEtag()); err != nil {
		t.Fatal(err)
	}
	w.want(nola.ReasonScheduleNotFound, "deleting again", w.deleteSchedule("a", ""))
	if _, err := w.create(yearly("a", "two"), "request 1"); err != nil {
		t.Errorf("the id is not free after deletion: %v", err)
	}
}

func TestOneOfManyCreates(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 20 {
		wg.Go(func() {
			_, err := w.create(yearly("a", fmt.Sprint(i)), fmt.Sprint(i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if reasonOf(err) != nola.ReasonAlreadyExists {
				t.Errorf("create %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d schedules were made under one id", made)
	}
}

// breaking is a store whose catalogue fails writes of schedules when told.
type breaking struct {
	persistence.Store
	mu    sync.Mutex
	after int // so many writes succeed; negative: all
}

func (b *breaking) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	if space == persistence.SpaceSchedule {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.after == 0 {
			return 0, errDead
		}
		b.after--
	}
	return b.Store.CatalogPut(ctx, space, key, version, value)
}

func (b *breaking) CatalogReserve(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (uint64, error) {
	return b.CatalogPut(ctx, space, key, version, value)
}

func (b *breaking) set(after int) {
	b.mu.Lock()
	b.after = after
	b.mu.Unlock()
}

func TestScheduleIDsAreRepaired(t *testing.T) {
	w := newWorld(t)
	b := &breaking{after: -1}
	w.wrap = func(s persistence.Store) persistence.Store { b.Store = s; return b }
	w.restart()

	if _, err := w.create(yearly("a", "one"), "request 1"); err != nil {
		t.Fatal(err)
	}

	// The schedule is deleted, but its id not freed.
	b.set(0)
	w.want(nola.ReasonInternal, "id not freed", w.deleteSchedule("a", ""))
	b.set(-1)
	w.restart()
	_, err := w.schedule("a")
	w.want(nola.ReasonScheduleNotFound, "a dangling id", err)
	if list := w.list(""); len(list) != 0 {
		t.Errorf("a dangling id is listed: %v", list)
	}
	if _, err := w.create(yearly("a", "three"), "request 3"); err != nil {
		t.Errorf("a dangling id is not free: %v", err)
	}

	// The actor is deleted with its schedules.
	if _, err := w.Actors.DeleteActor(context.Background(), connect.NewRequest(&nolav1.DeleteActorRequest{Actor: &nolav1.ActorRef{Type: "keeper", Id: "three"}})); err != nil {
		w.want(nola.ReasonActorNotFound, "an actor with nothing but schedules", err)
	} else if _, err := w.create(yearly("a", "one"), "request 4"); err != nil {
		t.Errorf("the id of a deleted actor's schedule is not free: %v", err)
	}
}

func (w *world) list(filter string) (ids []string) {
	w.t.Helper()
	for token := ""; ; {
		res, err := w.Schedules.ListSchedules(context.Background(), connect.NewRequest(&nolav1.ListSchedulesRequest{Filter: filter, PageSize: 3, PageToken: token}))
		if err != nil {
			w.t.Fatal(err)
		}
		if len(res.Msg.GetSchedules()) > 3 {
			w.t.Errorf("a page has %d schedules, at most 3 were asked for", len(res.Msg.GetSchedules()))
		}
		for _, s := range res.Msg.GetSchedules() {
			ids = append(ids, s.GetScheduleId())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			return ids
		}
	}
}

func TestListSchedules(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		s := yearly(fmt.Sprintf("s%d", i), fmt.Sprint(i%2))
		s.State = &nolav1.ScheduleState{Paused: i >= 5}
		if i == 4 {
			s.Labels = map[string]string{"team": "the shop"}
		}
		if _, err := w.create(s, ""); err != nil {
			t.Fatal(err)
		}
	}
	for filter, want := range map[string]string{
		"":                            "s0 s1 s2 s3 s4 s5 s6",
		"actor=keeper/1":              "s1 s3 s5",
		"actor=keeper/1 paused=false": "s1 s3",
		"paused=true":                 "s5 s6",
		`label.team="the shop"`:       "s4",
		"id=s3":                       "s3",
		"id=s*":                       "s0 s1 s2 s3 s4 s5 s6",
		"id=x*":                       "",
		"type=other":                  "",
	} {
		if got := strings.Join(w.list(filter), " "); got != want {
			t.Errorf("filter %q lists %q, want %q", filter, got, want)
		}
	}
	ctx := context.Background()
	_, err := w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{Filter: "what"}))
	w.want(nola.ReasonInvalidArgument, "a bad filter", err)
	_, err = w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{PageToken: "what"}))
	w.want(nola.ReasonInvalidArgument, "a bad token", err)
	_, err = w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{Namespace: "nowhere"}))
	w.want(nola.ReasonNamespaceNotFound, "an unknown namespace", err)
}

func TestUpdateSchedule(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	made, err := w.create(yearly("a", "one"), "")
	if err != nil {
		t.Fatal(err)
	}
	update := func(s *nolav1.Schedule, etag string, paths ...string) (*nolav1.Schedule, error) {
		s.ScheduleId = "a"
		req := &nolav1.UpdateScheduleRequest{Schedule: s, Etag: etag}
		if paths != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		res, err := w.Schedules.UpdateSchedule(ctx, connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		return res.Msg.GetSchedule(), nil
	}
	got, err := update(&nolav1.Schedule{Spec: &nolav1.ScheduleSpec{TimeZone: "Europe/Berlin"}, State: &nolav1.ScheduleState{Note: "n"}}, made.GetEtag(), "spec.time_zone", "state.note")
	if err != nil {
		t.Fatal(err)
	}
	if got.GetSpec().GetTimeZone() != "Europe/Berlin" || len(got.GetSpec().GetInterval()) != 1 || got.GetState().GetNote() != "n" || got.GetEtag() == made.GetEtag() {
		t.Errorf("updated to %v", got)
	}
	_, err = update(&nolav1.Schedule{Labels: map[string]string{"a": "b"}}, made.GetEtag())
	w.want(nola.ReasonETagMismatch, "an old etag", err)
	var e *nola.Error
	if errors.As(err, &e); e.Metadata["etag"] != got.GetEtag() {
		t.Errorf("metadata %v, want the etag %s", e.Metadata, got.GetEtag())
	}
	if got, err = update(&nolav1.Schedule{Labels: map[string]string{"a": "b"}}, ""); err != nil || got.GetLabels()["a"] != "b" || got.GetState().GetNote() != "n" {
		t.Errorf("updated to %v, error %v", got, err)
	}
	moved := yearly("a", "two")
	_, err = update(moved, "")
	w.want(nola.ReasonInvalidArgument, "another target", err)
	if err != nil && !strings.Contains(err.Error(), "keeper/one") {
		t.Errorf("error %v does not name the target", err)
	}
	for _, etag := range []string{"x", "0", got.GetEtag() + "x"} {
		_, err = update(&nolav1.Schedule{Labels: map[string]string{"c": "d"}}, etag)
		w.want(nola.ReasonInvalidArgument, "the etag "+etag, err)
	}
	_, err = update(&nolav1.Schedule{}, "")
	w.want(nola.ReasonInvalidArgument, "nothing to update", err)
	_, err = update(&nolav1.Schedule{}, "", "spec")
	w.want(nola.ReasonInvalidSpec, "a spec without entries", err)

	paused, err := w.Schedules.PauseSchedule(ctx, connect.NewRequest(&nolav1.PauseScheduleRequest{ScheduleId: "a", Note: "why"}))
	if err != nil || !paused.Msg.GetSchedule().GetState().GetPaused() || paused.Msg.GetSchedule().GetState().GetNote() != "why" || len(paused.Msg.GetSchedule().GetInfo().GetNextTimes()) != 0 {
		t.Errorf("paused %v, error %v", paused, err)
	}
	unpaused, err := w.Schedules.UnpauseSchedule(ctx, connect.NewRequest(&nolav1.UnpauseScheduleRequest{ScheduleId: "a"}))
	if err != nil || unpaused.Msg.GetSchedule().GetState().GetPaused() || len(unpaused.Msg.GetSchedule().GetInfo().GetNextTimes()) == 0 {
		t.Errorf("unpaused %v, error %v", unpaused, err)
	}
	_, err = w.Schedules.PauseSchedule(ctx, connect.NewRequest(&nolav1.PauseScheduleRequest{ScheduleId: "a", Until: timestamppb.New(time.Unix(1, 0))}))
	w.want(nola.ReasonInvalidArgument, "a pause that is over", err)
}

// TestEveryFaultOfASpecIsADetail: one for each, with its place, whoever refuses
// the spec. Of more than fit, the error tells the number.
func TestEveryFaultOfASpecIsADetail(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.push("default", "keeper")
	if _, err := w.create(yearly("a", "one"), ""); err != nil {
		t.Fatal(err)
	}
	spec := func(expressions ...string) *nolav1.ScheduleSpec {
		s := &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Hour), Phase: durationpb.New(time.Minute)}}}
		for _, e := range expressions {
			s.Cron = append(s.Cron, &nolav1.CronSpec{Expression: e})
		}
		return s
	}
	faults := func(err error) (texts []string, all string) {
		t.Helper()
		w.want(nola.ReasonInvalidSpec, "a faulty spec", err)
		var ce *connect.Error
		if !errors.As(err, &ce) {
			t.Fatalf("%v is no error of the wire", err)
		}
		size := 0
		for _, d := range ce.Details() {
			m, err := d.Value()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *errdetails.ErrorInfo:
				all = m.GetMetadata()["faults"]
			case *nolav1.SpecFault:
				size += proto.Size(m)
				texts = append(texts, fmt.Sprintf("%s %q %d", m.GetField(), m.GetExpression()[m.GetBegin():m.GetEnd()], m.GetIndex()))
				if m.GetMessage() == "" || !strings.Contains(ce.Message(), m.GetMessage()) {
					t.Errorf("fault %v is not in the message %q", m, ce.Message())
				}
			}
		}
		if size > 8<<10 {
			t.Errorf("details of %d bytes", size)
		}
		return texts, all
	}
	refused := spec("0 25 * * mno", "0 3 31 13 *")
	faulty := yearly("b", "one")
	faulty.Spec = refused
	_, create := w.create(faulty, "")
	_, preview := w.Schedules.PreviewSchedule(ctx, connect.NewRequest(&nolav1.PreviewScheduleRequest{Spec: refused}))
	update := w.update(&nolav1.Schedule{ScheduleId: "a", Spec: refused}, "spec")
	for name, err := range map[string]error{"create": create, "preview": preview, "update": update} {
		texts, all := faults(err)
		if want := []string{`hour "25" 2`, `day of week "mno" 5`, `month "13" 4`}; !slices.Equal(texts, want) || all != "3" {
			t.Errorf("%s: %s faults %q, want %q", name, all, texts, want)
		}
	}
	wide := yearly("b", "one")
	wide.Spec = spec(strings.Repeat("60,", 300) + "60 * * * *")
	if texts, all := faults(func() error { _, err := w.create(wide, ""); return err }()); all != "50" || len(texts) == 0 || len(texts) >= 50 {
		t.Errorf("of %s faults %d are told one by one, want some of 50", all, len(texts))
	}
}

func TestTriggerAndOccurrences(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.push("default", "keeper")
	if _, err := w.create(yearly("a", "one"), ""); err != nil {
		t.Fatal(err)
	}
	trigger := func(id string, payload []byte) *nolav1.Occurrence {
		t.Helper()
		res, err := w.Schedules.TriggerSchedule(ctx, connect.NewRequest(&nolav1.TriggerScheduleRequest{
			ScheduleId: "a", RequestId: id, Payload: payload, Overlap: nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL,
		}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.GetOccurrence()
	}
	occurrences := func() (all []*nolav1.Occurrence) {
		t.Helper()
		for token := ""; ; {
			res, err := w.Schedules.ListOccurrences(ctx, connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: "a", PageSize: 2, PageToken: token}))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, res.Msg.GetOccurrences()...)
			if token = res.Msg.GetNextPageToken(); token == "" {
				return all
			}
		}
	}
	fired := func(n int) func() bool {
		return func() bool {
			count := 0
			for _, o := range occurrences() {
				if o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED {
					count++
				}
			}
			return count == n
		}
	}
	o := trigger("1", []byte("own"))
	if o.GetKind() != nolav1.OccurrenceKind_OCCURRENCE_KIND_TRIGGER || o.GetNominalTime() == nil {
		t.Errorf("triggered %v", o)
	}
	eventually(t, "one firing", fired(1))
	if res, err := w.Invoke(ctx, nola.ActorRef{Type: "keeper", ID: "one"}, "get", nil); err != nil || string(res.Payload) != "own" {
		t.Errorf("the firing stored %q, error %v", res.Payload, err)
	}
	trigger("1", nil)
	for i := range 4 {
		trigger(fmt.Sprintf("more %d", i), nil)
		eventually(t, "another firing", fired(i+2))
	}
	all := occurrences()
	for i := 1; i < len(all); i++ {
		if all[i].GetNominalTime().AsTime().After(all[i-1].GetNominalTime().AsTime()) {
			t.Errorf("occurrence %d is newer than the one before it", i)
		}
	}
	if len(all) != 5 {
		t.Errorf("%d occurrences, want 5", len(all))
	}
	_, err := w.Schedules.TriggerSchedule(ctx, connect.NewRequest(&nolav1.TriggerScheduleRequest{ScheduleId: "none"}))
	w.want(nola.ReasonScheduleNotFound, "an unknown schedule", err)
}

func TestPreviewSchedule(t *testing.T) {
	w := newWorld(t)
	res, err := w.Schedules.PreviewSchedule(context.Background(), connect.NewRequest(&nolav1.PreviewScheduleRequest{
		Spec:  &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{Expression: "0 9 13 * 5"}}},
		After: timestamppb.New(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)), Count: 2,
	}))
	if err != nil {
		t.Fatal(err)
	}
	var times []string
	for _, at := range res.Msg.GetTimes() {
		times = append(times, at.AsTime().Format(time.RFC3339))
	}
	if got, want := strings.Join(times, " "), "2026-02-06T09:00:00Z 2026-02-13T09:00:00Z"; got != want {
		t.Errorf("times %s, want %s", got, want)
	}
	if res.Msg.GetDescription() == "" {
		t.Error("no description")
	}
	if len(res.Msg.GetWarnings()) == 0 || res.Msg.GetWarnings()[0].GetCode() != "BOTH_DAY_FIELDS" || res.Msg.GetWarnings()[0].GetField() != "cron[0]" {
		t.Errorf("warnings %v, want one of cron[0] about both day fields", res.Msg.GetWarnings())
	}
	_, err = w.Schedules.PreviewSchedule(context.Background(), connect.NewRequest(&nolav1.PreviewScheduleRequest{
		Spec:   &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{Expression: "0 9 13 * *"}}},
		Policy: &nolav1.SchedulePolicy{Retry: &nolav1.RetryPolicy{Deadline: durationpb.New(time.Second), BackoffMin: durationpb.New(time.Hour), BackoffMax: durationpb.New(time.Minute)}},
	}))
	w.want(nola.ReasonInvalidSpec, "a faulty policy", err)
	_, err = w.Schedules.PreviewSchedule(context.Background(), connect.NewRequest(&nolav1.PreviewScheduleRequest{Spec: &nolav1.ScheduleSpec{}}))
	w.want(nola.ReasonInvalidSpec, "an empty spec", err)
}

// TestETagOfAnEarlierSchedule holds that what somebody has seen of a schedule is
// nothing that the next one of that id ever has.
func TestETagOfAnEarlierSchedule(t *testing.T) {
	w := newWorld(t)
	w.push("default", "keeper")
	first, err := w.create(yearly("a", "one"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.deleteSchedule("a", first.GetEtag()); err != nil {
		t.Fatal(err)
	}
	next, err := w.create(yearly("a", "one"), "")
	if err != nil {
		t.Fatal(err)
	}
	w.want(nola.ReasonETagMismatch, "delete with the etag of the schedule before", w.deleteSchedule("a", first.GetEtag()))
	if err := w.deleteSchedule("a", next.GetEtag()); err != nil {
		t.Error(err)
	}
}
