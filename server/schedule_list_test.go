package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// pages reads a list to its end, and answers the ids of each page.
func (w *world) pages(req *nolav1.ListSchedulesRequest) (pages []string) {
	w.t.Helper()
	for {
		res, err := w.Schedules.ListSchedules(context.Background(), connect.NewRequest(req))
		if err != nil {
			w.t.Fatal(err)
		}
		var ids []string
		for _, s := range res.Msg.GetSchedules() {
			ids = append(ids, s.GetScheduleId())
		}
		pages = append(pages, strings.Join(ids, " "))
		if req.PageToken = res.Msg.GetNextPageToken(); req.PageToken == "" {
			return pages
		}
		if len(pages) > 100 {
			w.t.Fatalf("a list has no end: %q", pages[:20])
		}
	}
}

func TestListSchedulesByNextDue(t *testing.T) {
	w := newWorld(t)
	soon := time.Now().Add(time.Hour)
	for id, hours := range map[string]int{"a": 5, "b": 2, "c": 9, "d": 2, "e": 1, "paused": 1, "wakes": 1} {
		s := yearly(id, "one")
		s.Spec = &nolav1.ScheduleSpec{At: []*timestamppb.Timestamp{timestamppb.New(soon.Add(time.Duration(hours) * time.Hour)), timestamppb.New(soon.Add(20 * time.Hour))}}
		switch id {
		case "paused":
			s.State = &nolav1.ScheduleState{Paused: true}
		case "wakes":
			s.State = &nolav1.ScheduleState{Paused: true, PausedUntil: timestamppb.New(soon.Add(19 * time.Hour))}
		}
		if _, err := w.create(s, ""); err != nil {
			t.Fatal(err)
		}
	}
	order := nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE
	for size, want := range map[int32]string{
		1: "e|b|d|a|c|wakes|paused", 2: "e b|d a|c wakes|paused", 3: "e b d|a c wakes|paused", 7: "e b d a c wakes paused",
	} {
		if got := strings.Join(w.pages(&nolav1.ListSchedulesRequest{PageSize: size, Order: order}), "|"); got != want {
			t.Errorf("in pages of %d: %s, want %s", size, got, want)
		}
	}
	if got := strings.Join(w.pages(&nolav1.ListSchedulesRequest{Filter: "paused=false id=*", PageSize: 2, Order: order}), "|"); got != "e b|d a|c" {
		t.Errorf("filtered: %s", got)
	}
	// a time that was skipped is not the next one, here as in GetSchedule
	ctx := context.Background()
	if _, err := w.Schedules.SkipOccurrence(ctx, connect.NewRequest(&nolav1.SkipOccurrenceRequest{ScheduleId: "e", NominalTime: timestamppb.New(soon.Add(time.Hour))})); err != nil {
		t.Fatal(err)
	}
	if got := w.pages(&nolav1.ListSchedulesRequest{Filter: "paused=false", Order: order})[0]; got != "b d a c e" {
		t.Errorf("with the first time of e skipped: %s", got)
	}
	byID, err := w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{PageSize: 1}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{PageToken: byID.Msg.GetNextPageToken(), Order: order}))
	w.want(nola.ReasonInvalidArgument, "a token of the other order", err)
}

func TestListSchedulesByNextDueIsBounded(t *testing.T) {
	w := newWorld(t)
	catalog := persistence.Catalog{Store: w.store}
	const most = 100_000
	put := func(i int) {
		t.Helper()
		entry := persistence.ScheduleEntry{Namespace: "default", ID: fmt.Sprintf("%06d", i), Target: nola.ActorRef{Namespace: "default", Type: "keeper", ID: "one"}}
		if _, err := catalog.PutScheduleEntry(context.Background(), 0, entry); err != nil {
			t.Fatal(err)
		}
	}
	for i := range most {
		put(i)
	}
	ask := func(filter string) error {
		_, err := w.Schedules.ListSchedules(context.Background(), connect.NewRequest(&nolav1.ListSchedulesRequest{Filter: filter, Order: nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE}))
		return err
	}
	if err := ask(""); err != nil {
		t.Errorf("%d schedules: %v", most, err)
	}
	put(most)
	err := ask("type=other")
	w.want(nola.ReasonLimitExceeded, "one more", err)
	if err == nil || !strings.Contains(err.Error(), "id=PREFIX*") {
		t.Errorf("the error does not say what helps: %v", err)
	}
	if err := ask("id=00*"); err != nil {
		t.Errorf("some of them: %v", err)
	}
	// in the order of ids a page ends instead, and the next one goes on
	pages := w.pages(&nolav1.ListSchedulesRequest{Filter: "type=other"})
	if len(pages) != 11 || strings.Join(pages, "") != "" {
		t.Errorf("%d pages in the order of ids, want 11 empty ones: 10,000 are looked at for each", len(pages))
	}
}

// readings is a store that counts how often entries of schedules are listed.
type readings struct {
	persistence.Store
	count *atomic.Int64
}

func (s readings) CatalogList(ctx context.Context, space persistence.Space, prefix, after string, limit int) ([]persistence.CatalogEntry, error) {
	if space == persistence.SpaceSchedule {
		s.count.Add(1)
	}
	return s.Store.CatalogList(ctx, space, prefix, after, limit)
}

// TestListSchedulesReadsManyAtOnce asks for small pages of what a filter nearly
// never lets pass.
func TestListSchedulesReadsManyAtOnce(t *testing.T) {
	var count atomic.Int64
	w := newWorld(t)
	w.wrap = func(s persistence.Store) persistence.Store { return readings{s, &count} }
	w.restart()
	catalog := persistence.Catalog{Store: w.store}
	for i := range 5_000 {
		entry := persistence.ScheduleEntry{Namespace: "default", ID: fmt.Sprintf("%06d", i), Target: nola.ActorRef{Namespace: "default", Type: "keeper", ID: "one"}}
		if _, err := catalog.PutScheduleEntry(context.Background(), 0, entry); err != nil {
			t.Fatal(err)
		}
	}
	count.Store(0)
	if pages := w.pages(&nolav1.ListSchedulesRequest{Filter: "type=other", PageSize: 1}); len(pages) != 1 {
		t.Errorf("%d pages, want one", len(pages))
	}
	if n := count.Load(); n > 16 {
		t.Errorf("the catalogue was read %d times for 5,000 entries", n)
	}
}

func TestListSchedulesByCalendar(t *testing.T) {
	w := newVirtualWorld(t)
	w.mustPut("bank", "2026-12-24")
	w.mustPut("school", "2026-12-24")
	for id, calendar := range map[string]string{"a": "bank", "b": "school", "c": "bank"} {
		if _, err := w.create(dailyWithout(id, calendar), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.create(yearly("plain", "one"), ""); err != nil {
		t.Fatal(err)
	}
	if got := w.pages(&nolav1.ListSchedulesRequest{Filter: "calendar=bank"})[0]; got != "a c" {
		t.Errorf("calendar=bank lets %q pass, want a c", got)
	}
	// one that is not used any more may still stand in the entry
	_, err := w.Schedules.UpdateSchedule(context.Background(), connect.NewRequest(&nolav1.UpdateScheduleRequest{
		Schedule: &nolav1.Schedule{ScheduleId: "a", Spec: dailyWithout("a", "school").Spec}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.pages(&nolav1.ListSchedulesRequest{Filter: "calendar=bank"})[0]; got != "c" {
		t.Errorf("after a has another one, calendar=bank lets %q pass, want c", got)
	}
	if got := w.pages(&nolav1.ListSchedulesRequest{Filter: "calendar=school id=a*", Order: nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE})[0]; got != "a" {
		t.Errorf("calendar=school id=a* lets %q pass, want a", got)
	}
}

func TestListSchedulesPagesHaveBoundedBytes(t *testing.T) {
	w := newWorld(t)
	const payload = 256 << 10 // the most that a target takes; 8 MiB hold 32 of them
	for i := range 35 {
		s := yearly(fmt.Sprintf("s%02d", i), fmt.Sprint(i))
		s.Target.Payload = make([]byte, payload)
		if _, err := w.create(s, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range []nolav1.ScheduleOrder{nolav1.ScheduleOrder_SCHEDULE_ORDER_ID, nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE} {
		pages := w.pages(&nolav1.ListSchedulesRequest{Order: order})
		if len(pages) != 2 || len(strings.Fields(pages[0])) != 32 || len(strings.Fields(pages[1])) != 3 {
			t.Errorf("%s: pages %q, want one of 32 and one of 3", order, pages)
		}
	}
}

func TestListSchedulesWithOutcomes(t *testing.T) {
	w := newWorld(t)
	w.push("default", "keeper")
	ctx := context.Background()
	for _, id := range []string{"idle", "good", "bad"} {
		s := yearly(id, id)
		if id == "bad" {
			s.Target.Operation = "fail"
		}
		if _, err := w.create(s, ""); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		for _, id := range []string{"good", "bad"} {
			if _, err := w.Schedules.TriggerSchedule(ctx, connect.NewRequest(&nolav1.TriggerScheduleRequest{ScheduleId: id})); err != nil {
				t.Fatal(err)
			}
			eventually(t, id+" has fired", func() bool {
				s, err := w.schedule(id)
				if err != nil {
					t.Fatal(err)
				}
				return len(s.GetInfo().GetRecent()) == i+1
			})
		}
	}
	for filter, want := range map[string]string{"failing=true": "bad", "failing=false": "good idle", "ran=true": "bad good", "ran=false": "idle", "text=FAIL": "bad", "late=true": ""} {
		if got := strings.Join(w.list(filter), " "); got != want {
			t.Errorf("filter %q lists %q, want %q", filter, got, want)
		}
	}
	for _, recent := range []int32{0, 2, 10} {
		for _, order := range []nolav1.ScheduleOrder{nolav1.ScheduleOrder_SCHEDULE_ORDER_ID, nolav1.ScheduleOrder_SCHEDULE_ORDER_NEXT_DUE} {
			res, err := w.Schedules.ListSchedules(ctx, connect.NewRequest(&nolav1.ListSchedulesRequest{Filter: "id=bad", Recent: recent, Order: order}))
			if err != nil {
				t.Fatal(err)
			}
			got := res.Msg.GetSchedules()[0].GetInfo().GetRecent()
			if len(got) != int(min(recent, 3)) {
				t.Errorf("recent=%d, %s: %d outcomes, want %d", recent, order, len(got), min(recent, 3))
			}
			for i, o := range got {
				if o.GetError() == nil || i > 0 && o.GetNominalTime().AsTime().After(got[i-1].GetNominalTime().AsTime()) {
					t.Errorf("recent=%d: outcome %d is %v, want failed ones, the newest first", recent, i, o)
				}
			}
		}
	}
}
