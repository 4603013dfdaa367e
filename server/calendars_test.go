package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/memstore"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/shard"
)

// newVirtualWorld is a node whose clock shows noon of Sunday, 2026-11-01.
func newVirtualWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, clock: shard.NewVirtualClock(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)),
		disk: memstore.NewDisk(persistence.ClusterInfo{ID: [16]byte{1}, Shards: 4, Secret: [32]byte{2}}),
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	w.push("default", "keeper")
	return w
}

func dates(days ...string) (out []*nolav1.DateRange) {
	for _, d := range days {
		from, to, _ := strings.Cut(d, "..")
		out = append(out, &nolav1.DateRange{From: from, To: to})
	}
	return out
}

func (w *world) put(req *nolav1.PutCalendarRequest) (*nolav1.PutCalendarResponse, error) {
	res, err := w.Calendars.PutCalendar(context.Background(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (w *world) mustPut(name string, days ...string) *nolav1.PutCalendarResponse {
	w.t.Helper()
	res, err := w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Name: name, Dates: dates(days...)}})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func (w *world) deleteCalendar(name, etag string) error {
	_, err := w.Calendars.DeleteCalendar(context.Background(), connect.NewRequest(&nolav1.DeleteCalendarRequest{Name: name, Etag: etag}))
	return err
}

// dailyWithout fires at nine every day, but for the dates of a calendar.
func dailyWithout(id, calendar string) *nolav1.Schedule {
	s := yearly(id, "one")
	s.Spec = &nolav1.ScheduleSpec{
		Cron:    []*nolav1.CronSpec{{Expression: "0 9 * * *"}},
		Exclude: []*nolav1.ExcludeSpec{{Times: &nolav1.ExcludeSpec_HolidayCalendar{HolidayCalendar: calendar}}},
	}
	return s
}

func (w *world) mustCreate(s *nolav1.Schedule) *nolav1.Schedule {
	w.t.Helper()
	made, err := w.create(s, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

// preview is the days on which a spec fires, from the node's clock on.
func (w *world) preview(spec *nolav1.ScheduleSpec, count int32) []string {
	w.t.Helper()
	res, err := w.Schedules.PreviewSchedule(context.Background(), connect.NewRequest(&nolav1.PreviewScheduleRequest{Spec: spec, Count: count}))
	if err != nil {
		w.t.Fatal(err)
	}
	return days(res.Msg.GetTimes())
}

func days(times []*timestamppb.Timestamp) (out []string) {
	for _, t := range times {
		out = append(out, t.AsTime().Format(time.DateOnly))
	}
	return out
}

// fired is the days whose occurrence fired, oldest first.
func (w *world) fired(id string) (out []string) {
	w.t.Helper()
	res, err := w.Schedules.ListOccurrences(context.Background(), connect.NewRequest(&nolav1.ListOccurrencesRequest{ScheduleId: id}))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range res.Msg.GetOccurrences() {
		if o.GetOutcome() == nolav1.Outcome_OUTCOME_FIRED && o.GetError() == nil {
			out = append(out, o.GetNominalTime().AsTime().Format(time.DateOnly))
		} else {
			w.t.Errorf("occurrence %v did not fire well", o)
		}
	}
	slices.Reverse(out)
	return out
}

func (w *world) advanceTo(day string) {
	w.t.Helper()
	to, err := time.Parse(time.DateOnly, day)
	if err == nil {
		_, err = w.node.Advance(context.Background(), to.Add(12*time.Hour))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantDays(what string, got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestCalendarIsNotEmptiedInSilence: a calendar that holds something becomes one
// that holds nothing only if that is said.
func TestCalendarIsNotEmptiedInSilence(t *testing.T) {
	w := newVirtualWorld(t)
	w.mustPut("bank", "2026-12-24")
	nothing := &nolav1.Calendar{Name: "bank", Comment: "oops"}
	for _, dry := range []bool{true, false} {
		_, err := w.put(&nolav1.PutCalendarRequest{Calendar: nothing, DryRun: dry})
		w.want(nola.ReasonInvalidArgument, "nothing in the place of something", err)
	}
	if res, err := w.put(&nolav1.PutCalendarRequest{Calendar: nothing, AllowEmpty: true}); err != nil || res.GetCalendar().GetVersion() != 2 {
		t.Errorf("with allow_empty: %v, %v", res, err)
	}
	if _, err := w.put(&nolav1.PutCalendarRequest{Calendar: nothing}); err != nil {
		t.Errorf("nothing in the place of nothing: %v", err)
	}
}

// TestCalendarChangeMovesWhatFiresNext changes a calendar under a schedule: what
// the preview says is what fires, and what has been decided keeps its outcome.
func TestCalendarChangeMovesWhatFiresNext(t *testing.T) {
	w := newVirtualWorld(t)
	w.mustPut("bank", "2026-11-03")
	made := w.mustCreate(dailyWithout("daily", "bank"))
	w.mustCreate(yearly("other", "two"))
	w.wantDays("preview", w.preview(made.GetSpec(), 3), "2026-11-02", "2026-11-04", "2026-11-05")
	w.wantDays("next times", days(made.GetInfo().GetNextTimes())[:3], "2026-11-02", "2026-11-04", "2026-11-05")
	w.advanceTo("2026-11-04")
	w.wantDays("fired", w.fired("daily"), "2026-11-02", "2026-11-04")

	dry, err := w.put(&nolav1.PutCalendarRequest{DryRun: true, Calendar: &nolav1.Calendar{Name: "bank", Dates: dates("2026-11-02", "2026-11-06..2026-11-08")}})
	if err != nil {
		t.Fatal(err)
	}
	if dry.GetCalendar().GetVersion() != 1 {
		t.Errorf("a dry run changed the calendar: %v", dry.GetCalendar())
	}
	w.wantDays("preview after a dry run", w.preview(made.GetSpec(), 2), "2026-11-05", "2026-11-06")
	// It takes away a day that has fired, gives back one that has passed, and
	// moves what comes.
	res := w.mustPut("bank", "2026-11-02", "2026-11-06..2026-11-08")
	for what, got := range map[string]*nolav1.PutCalendarResponse{"dry run": dry, "change": res} {
		if len(got.GetUses()) != 1 || got.GetUseCount() != 1 || got.GetUses()[0].GetScheduleId() != "daily" ||
			got.GetUses()[0].GetFirstChange().AsTime().Format(time.DateOnly) != "2026-11-06" || got.GetUses()[0].GetNextTime().AsTime().Format(time.DateOnly) != "2026-11-05" {
			t.Errorf("the %s says %v", what, got)
		}
	}
	if res.GetCalendar().GetVersion() != 2 {
		t.Errorf("calendar %v, want version 2", res.GetCalendar())
	}
	w.wantDays("fired before the change", w.fired("daily"), "2026-11-02", "2026-11-04")
	coming := w.preview(made.GetSpec(), 3)
	w.wantDays("preview of the change", coming, "2026-11-05", "2026-11-09", "2026-11-10")
	now, err := w.schedule("daily")
	if err != nil {
		t.Fatal(err)
	}
	w.wantDays("next times of the change", days(now.GetInfo().GetNextTimes())[:3], coming...)
	if now.GetEtag() != made.GetEtag() || !now.GetInfo().GetUpdated().AsTime().Equal(made.GetInfo().GetUpdated().AsTime()) {
		t.Errorf("the schedule counts as changed: etag %s, updated %v", now.GetEtag(), now.GetInfo().GetUpdated().AsTime())
	}
	w.restart()
	w.advanceTo("2026-11-10")
	w.wantDays("fired after the change", w.fired("daily"), append([]string{"2026-11-02", "2026-11-04"}, coming...)...)
}

// TestCalendarChangeKeepsWhatWaits changes a calendar while an occurrence of the
// day that it takes away waits for its jitter.
func TestCalendarChangeKeepsWhatWaits(t *testing.T) {
	w := newVirtualWorld(t)
	w.mustPut("bank", "2026-12-24")
	s := dailyWithout("daily", "bank")
	s.Spec.Cron[0].Expression = "30 11 * * *"
	s.Spec.Jitter = durationpb.New(12 * time.Hour)
	w.mustCreate(s)
	w.advanceTo("2026-11-02")
	if got := w.fired("daily"); len(got) != 0 {
		t.Fatalf("the jitter of this schedule is so small that it fired: %v; give it another id", got)
	}
	w.mustPut("bank", "2026-11-02..2026-11-03")
	w.advanceTo("2026-11-04")
	w.wantDays("fired", w.fired("daily")[:1], "2026-11-02")
}

// TestCalendarInUse refuses to delete a calendar that schedules use, and names
// them.
func TestCalendarInUse(t *testing.T) {
	w := newVirtualWorld(t)
	first := w.mustPut("bank", "2026-11-03")
	w.mustPut("school", "2026-11-04")
	w.mustCreate(dailyWithout("a", "bank"))
	b := dailyWithout("b", "school")
	b.Spec.HolidayCalendar = "bank"
	w.mustCreate(b)
	w.mustCreate(dailyWithout("c", "school"))

	err := w.deleteCalendar("bank", "")
	w.want(nola.ReasonCalendarInUse, "deleting what is used", err)
	for _, id := range []string{`"a"`, `"b"`} {
		if !strings.Contains(fmt.Sprint(err), id) {
			t.Errorf("the refusal %v does not name %s", err, id)
		}
	}
	if strings.Contains(fmt.Sprint(err), `"c"`) {
		t.Errorf("the refusal %v names a schedule that uses another calendar", err)
	}
	w.want(nola.ReasonInvalidSpec, "a calendar that does not exist", func() error { _, err := w.create(dailyWithout("d", "bnak"), ""); return err }())
	// The calendar stays as it was, and can be used on.
	w.mustCreate(dailyWithout("e", "bank"))
	if err := w.deleteSchedule("a", ""); err != nil {
		t.Fatal(err)
	}
	if err := w.deleteSchedule("e", ""); err != nil {
		t.Fatal(err)
	}
	w.want(nola.ReasonCalendarInUse, "one user is left", w.deleteCalendar("bank", ""))
	// The last user turns to another calendar.
	if err := w.update(&nolav1.Schedule{ScheduleId: "b", Spec: dailyWithout("b", "school").Spec}, "spec"); err != nil {
		t.Fatal(err)
	}
	w.want(nola.ReasonETagMismatch, "another etag", w.deleteCalendar("bank", "1-x"))
	if err := w.deleteCalendar("bank", first.GetCalendar().GetEtag()); err != nil {
		t.Errorf("deleting what nobody uses: %v", err)
	}
	w.want(nola.ReasonCalendarNotFound, "deleting again", w.deleteCalendar("bank", ""))
	w.want(nola.ReasonInvalidSpec, "a calendar that was deleted", w.update(&nolav1.Schedule{ScheduleId: "c", Spec: dailyWithout("c", "bank").Spec}, "spec"))
	// A calendar that comes back has another etag than the one before.
	again := w.mustPut("bank", "2026-11-03")
	if again.GetCalendar().GetVersion() != 1 || again.GetCalendar().GetEtag() == first.GetCalendar().GetEtag() {
		t.Errorf("the new calendar %v is taken for the old one %v", again.GetCalendar(), first.GetCalendar())
	}
}

func (w *world) update(s *nolav1.Schedule, paths ...string) error {
	_, err := w.Schedules.UpdateSchedule(context.Background(), connect.NewRequest(&nolav1.UpdateScheduleRequest{Schedule: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}))
	return err
}

// TestPutCalendar covers etags, creation, repetition and refusals.
func TestPutCalendar(t *testing.T) {
	w := newVirtualWorld(t)
	cal := &nolav1.Calendar{
		Name: "bank", Comment: "closed", Dates: dates("2026-12-24", "2026-12-31..2027-01-01"),
		Rules: []*nolav1.HolidayRule{{Easter: nolav1.Easter_EASTER_WESTERN, Offset: -2}, {Month: "5", DayOfMonth: "1", Comment: "work"}},
	}
	first, err := w.put(&nolav1.PutCalendarRequest{Calendar: cal, CreateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.put(&nolav1.PutCalendarRequest{Calendar: cal, CreateOnly: true})
	w.want(nola.ReasonAlreadyExists, "creating again", err)
	got, err := w.Calendars.GetCalendar(context.Background(), connect.NewRequest(&nolav1.GetCalendarRequest{Name: "bank"}))
	if err != nil {
		t.Fatal(err)
	}
	have := got.Msg.GetCalendar()
	if have.GetComment() != "closed" || len(have.GetDates()) != 2 || len(have.GetRules()) != 2 || have.GetDates()[1].GetTo() != "2027-01-01" || have.GetRules()[0].GetOffset() != -2 {
		t.Errorf("got %v, put %v", have, cal)
	}
	listed, err := w.Calendars.ListCalendarDays(context.Background(), connect.NewRequest(&nolav1.ListCalendarDaysRequest{Name: "bank", To: "2027-05-01"}))
	if err != nil {
		t.Fatal(err)
	}
	w.wantDays("days", listed.Msg.GetDays(), "2026-12-24", "2026-12-31", "2027-01-01", "2027-03-26", "2027-05-01")

	same, err := w.put(&nolav1.PutCalendarRequest{Calendar: cal, Etag: "0-0"})
	if err != nil || same.GetCalendar().GetEtag() != first.GetCalendar().GetEtag() {
		t.Errorf("the same again: %v, %v; want no change", same, err)
	}
	cal.Dates = nil
	_, err = w.put(&nolav1.PutCalendarRequest{Calendar: cal, Etag: "0-0"})
	w.want(nola.ReasonETagMismatch, "another etag", err)
	second, err := w.put(&nolav1.PutCalendarRequest{Calendar: cal, Etag: first.GetCalendar().GetEtag()})
	if err != nil || second.GetCalendar().GetVersion() != 2 || second.GetCalendar().GetEtag() == first.GetCalendar().GetEtag() {
		t.Errorf("a change: %v, %v; want version 2 and another etag", second, err)
	}
	cal.Rules[1].Month = "13"
	_, err = w.put(&nolav1.PutCalendarRequest{Calendar: cal})
	w.want(nola.ReasonInvalidSpec, "month 13", err)
	_, err = w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Name: "bank", Dates: dates("2026-02-30")}})
	w.want(nola.ReasonInvalidSpec, "February 30", err)
	if !strings.Contains(fmt.Sprint(err), `"2026-02-30"`) {
		t.Errorf("the refusal %v does not name the date", err)
	}
	for _, to := range []string{"2026-13-01", "0000-00-00"} {
		_, err = w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Name: "bank", Dates: dates("2026-12-24.." + to)}})
		w.want(nola.ReasonInvalidSpec, to, err)
	}
	_, err = w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Namespace: "nowhere", Name: "bank"}})
	w.want(nola.ReasonNamespaceNotFound, "an unknown namespace", err)

	w.mustCreate(dailyWithout("daily", "bank"))
	_, err = w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Name: "bank", Dates: dates("1970-01-01..9999-12-31")}})
	w.want(nola.ReasonInvalidSpec, "a calendar that leaves a schedule without times", err)
	if !strings.Contains(fmt.Sprint(err), `"daily"`) {
		t.Errorf("the refusal %v does not name the schedule", err)
	}
	w.mustPut("autumn")
	list, err := w.Calendars.ListCalendars(context.Background(), connect.NewRequest(&nolav1.ListCalendarsRequest{PageSize: 1}))
	if err != nil || len(list.Msg.GetCalendars()) != 1 || list.Msg.GetCalendars()[0].GetName() != "autumn" || list.Msg.GetNextPageToken() == "" {
		t.Fatalf("first page %v, %v", list, err)
	}
	list, err = w.Calendars.ListCalendars(context.Background(), connect.NewRequest(&nolav1.ListCalendarsRequest{PageSize: 1, PageToken: list.Msg.GetNextPageToken()}))
	if err != nil || len(list.Msg.GetCalendars()) != 1 || list.Msg.GetCalendars()[0].GetVersion() != 2 || list.Msg.GetNextPageToken() != "" {
		t.Errorf("second page %v, %v", list, err)
	}
}

// TestCalendarChangeIsFinishedAfterARestart leaves a calendar as a process leaves
// it that ends between storing it and giving it to the schedules.
func TestCalendarChangeIsFinishedAfterARestart(t *testing.T) {
	w := newVirtualWorld(t)
	w.mustPut("bank", "2026-11-03")
	w.mustPut("school", "2026-11-02")
	made := w.mustCreate(dailyWithout("daily", "bank"))
	catalog := persistence.Catalog{Store: w.store}
	rec, version, err := catalog.Calendar(t.Context(), "default", "bank")
	if err != nil {
		t.Fatal(err)
	}
	rec.Version, rec.State, rec.Dates = 2, persistence.CalendarSpreading, []nola.DateRange{{From: nola.Date{Year: 2026, Month: 11, Day: 2}}}
	if _, err := catalog.PutCalendar(t.Context(), version, rec); err != nil {
		t.Fatal(err)
	}
	going, version, err := catalog.Calendar(t.Context(), "default", "school")
	if err != nil {
		t.Fatal(err)
	}
	going.State = persistence.CalendarDeleting
	if _, err := catalog.PutCalendar(t.Context(), version, going); err != nil {
		t.Fatal(err)
	}
	_, err = w.create(dailyWithout("late", "school"), "")
	w.want(nola.ReasonUnavailable, "using a calendar that goes", err)
	w.restart()
	eventually(t, "both calendars are settled", func() bool {
		catalog := persistence.Catalog{Store: w.store}
		list, err := catalog.Calendars(t.Context(), "default", "", 10)
		return err == nil && len(list) == 2 && list[0].State == persistence.CalendarSettled && list[1].State == persistence.CalendarSettled
	})
	now, err := w.schedule("daily")
	if err != nil {
		t.Fatal(err)
	}
	w.wantDays("next times", days(now.GetInfo().GetNextTimes())[:2], w.preview(made.GetSpec(), 2)...)
	w.wantDays("next times", days(now.GetInfo().GetNextTimes())[:2], "2026-11-03", "2026-11-04")
	w.mustCreate(dailyWithout("late", "school"))
}

// TestCalendarsChangeBesideSchedules has schedules made while their calendar
// changes and is deleted: in the end each has the version that stands. One that
// comes while there is no calendar is refused.
func TestCalendarsChangeBesideSchedules(t *testing.T) {
	w := newVirtualWorld(t)
	w.mustPut("bank", "2026-11-02")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 10 {
				if _, err := w.create(dailyWithout(fmt.Sprintf("s%d-%d", i, n), "bank"), ""); err != nil && reasonOf(err) != nola.ReasonUnavailable && reasonOf(err) != nola.ReasonInvalidSpec {
					t.Errorf("create: %v", err)
				}
			}
		})
	}
	put := func(day int) {
		if _, err := w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Name: "bank", Dates: dates(fmt.Sprintf("2026-11-%02d", day))}}); err != nil {
			t.Errorf("put: %v", err)
		}
	}
	wg.Go(func() {
		for n := range 10 {
			put(3 + n)
		}
	})
	wg.Go(func() {
		for range 10 {
			// it may come before the first schedule
			if err := w.deleteCalendar("bank", ""); err == nil {
				put(2)
			} else if reasonOf(err) != nola.ReasonCalendarInUse && reasonOf(err) != nola.ReasonCalendarNotFound {
				t.Errorf("delete: %v", err)
			}
		}
	})
	wg.Wait()
	list, err := w.Schedules.ListSchedules(context.Background(), connect.NewRequest(&nolav1.ListSchedulesRequest{PageSize: 1000}))
	if err != nil || len(list.Msg.GetSchedules()) == 0 {
		t.Fatalf("%d schedules, %v", len(list.Msg.GetSchedules()), err)
	}
	for _, s := range list.Msg.GetSchedules() {
		w.wantDays(s.GetScheduleId(), days(s.GetInfo().GetNextTimes()), w.preview(s.GetSpec(), 10)...)
	}
}

// TestDeleteNamespaceRemovesCalendars frees the names of its calendars.
func TestDeleteNamespaceRemovesCalendars(t *testing.T) {
	w := newVirtualWorld(t)
	ctx := context.Background()
	make := func() error {
		_, err := w.Namespaces.CreateNamespace(ctx, connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: "shop"}))
		return err
	}
	if err := make(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.put(&nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{Namespace: "shop", Name: "bank"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Namespaces.DeleteNamespace(ctx, connect.NewRequest(&nolav1.DeleteNamespaceRequest{Namespace: "shop"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone", func() bool { return make() == nil })
	_, err := w.Calendars.GetCalendar(ctx, connect.NewRequest(&nolav1.GetCalendarRequest{Namespace: "shop", Name: "bank"}))
	w.want(nola.ReasonCalendarNotFound, "a calendar of a namespace that was deleted", err)
}

// undeletable is a store that fails to remove an entry, once.
type undeletable struct {
	persistence.Store
	once sync.Once
}

func (s *undeletable) CatalogPut(ctx context.Context, space persistence.Space, key string, version uint64, value []byte) (got uint64, err error) {
	if value == nil {
		s.once.Do(func() { err = errDead })
	}
	if err != nil {
		return 0, err
	}
	return s.Store.CatalogPut(ctx, space, key, version, value)
}

// TestFailedDeleteLeavesCalendarInUse fails to delete a calendar when it is marked
// as going already. It is free for use again without a restart.
func TestFailedDeleteLeavesCalendarInUse(t *testing.T) {
	w := newVirtualWorld(t)
	w.wrap = func(s persistence.Store) persistence.Store { return &undeletable{Store: s} }
	w.restart()
	w.mustPut("bank", "2026-11-03")
	if err := w.deleteCalendar("bank", ""); err == nil {
		t.Fatal("the calendar was deleted by a store that cannot")
	}
	eventually(t, "the calendar can be used", func() bool {
		_, err := w.create(dailyWithout("a", "bank"), "request")
		return err == nil
	})
	w.want(nola.ReasonCalendarInUse, "deleting what is used", w.deleteCalendar("bank", ""))
}

// thrifty is a store that notes how many calendars are read at once at most.
type thrifty struct {
	persistence.Store
	most atomic.Int64
}

func (s *thrifty) CatalogList(ctx context.Context, space persistence.Space, prefix, after string, limit int) ([]persistence.CatalogEntry, error) {
	if space == persistence.SpaceCalendar {
		s.most.Store(max(s.most.Load(), int64(limit)))
	}
	return s.Store.CatalogList(ctx, space, prefix, after, limit)
}

// TestListCalendarsPages lists calendars, which may be long, without having many
// of them in memory, and each once.
func TestListCalendarsPages(t *testing.T) {
	w := newVirtualWorld(t)
	store := &thrifty{}
	w.wrap = func(s persistence.Store) persistence.Store { store.Store = s; return store }
	w.restart()
	var want []string
	for i := range 45 {
		want = append(want, fmt.Sprintf("c%02d", i))
		w.mustPut(want[i], "2026-11-03")
	}
	for size, pages := range map[int32]int{0: 1, 1: 45, 7: 7, 20: 3, 45: 1, 46: 1} {
		var got []string
		req := &nolav1.ListCalendarsRequest{PageSize: size}
		for n := 1; ; n++ {
			res, err := w.Calendars.ListCalendars(t.Context(), connect.NewRequest(req))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range res.Msg.GetCalendars() {
				got = append(got, m.GetName())
			}
			if req.PageToken = res.Msg.GetNextPageToken(); req.PageToken == "" {
				if n != pages {
					t.Errorf("page size %d: %d pages, want %d", size, n, pages)
				}
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("page size %d: %v", size, got)
		}
	}
	if most := store.most.Load(); most > 20 {
		t.Errorf("%d calendars are read at once", most)
	}
}
