package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// previewVector is a row of the scheduler's schedule.jsonl.
type previewVector struct {
	ID, Dialect string
	Spec        struct {
		Cron, Calendar, Exclude json.RawMessage
		Cron7                   string
		Interval                []struct {
			Every int64 `json:"every_s"`
			Phase int64 `json:"phase_s"`
		}
		TZ         string
		Start, End time.Time
		Jitter     float64 `json:"jitter_s"`
	}
	Policy struct {
		Gap     string `json:"dst_gap"`
		Overlap string `json:"dst_overlap"`
		Days    string `json:"dom_dow"`
	}
	After       time.Time
	Inclusive   bool
	Expect      []time.Time
	ExpectError bool `json:"expect_error"`
	ThenNone    bool `json:"then_none"`
	Ours, Note  string
	Quirk       bool
}

func several[T any](t *testing.T, raw json.RawMessage) (out []T) {
	t.Helper()
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	if raw[0] != '[' {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (v *previewVector) dayMatch() nolav1.DayMatch {
	switch {
	case v.Policy.Days == "or":
		return nolav1.DayMatch_DAY_MATCH_OR
	case v.Policy.Days == "and", strings.HasPrefix(v.Dialect, "cronos"):
		return nolav1.DayMatch_DAY_MATCH_AND
	}
	return nolav1.DayMatch_DAY_MATCH_UNSPECIFIED
}

// request asks the row; full asks its canonical seven fields.
func (v *previewVector) request(t *testing.T, full bool) *nolav1.PreviewScheduleRequest {
	t.Helper()
	dialect := map[string]nolav1.CronDialect{
		"unix5": nolav1.CronDialect_CRON_DIALECT_UNIX, "cronos5": nolav1.CronDialect_CRON_DIALECT_UNIX, "netres5": nolav1.CronDialect_CRON_DIALECT_UNIX,
		"sec6": nolav1.CronDialect_CRON_DIALECT_SECONDS, "cronos6": nolav1.CronDialect_CRON_DIALECT_SECONDS, "year6": nolav1.CronDialect_CRON_DIALECT_FULL,
		"temporal": nolav1.CronDialect_CRON_DIALECT_TEMPORAL, "quartz": nolav1.CronDialect_CRON_DIALECT_QUARTZ, "croniter": nolav1.CronDialect_CRON_DIALECT_CRONITER,
	}[v.Dialect]
	stamp := func(at time.Time) *timestamppb.Timestamp {
		if at.IsZero() {
			return nil
		}
		return timestamppb.New(at)
	}
	s := &nolav1.ScheduleSpec{
		TimeZone: v.Spec.TZ, StartTime: stamp(v.Spec.Start), EndTime: stamp(v.Spec.End),
		Jitter: durationpb.New(time.Duration(v.Spec.Jitter * float64(time.Second))),
		DstGap: map[string]nolav1.DstGap{"first_after": nolav1.DstGap_DST_GAP_FIRST_AFTER, "shift_by_gap": nolav1.DstGap_DST_GAP_SHIFT_BY_GAP}[v.Policy.Gap],
		DstOverlap: map[string]nolav1.DstOverlap{
			"first": nolav1.DstOverlap_DST_OVERLAP_FIRST, "last": nolav1.DstOverlap_DST_OVERLAP_LAST,
			"first_unless_interval": nolav1.DstOverlap_DST_OVERLAP_FIRST_UNLESS_INTERVAL,
		}[v.Policy.Overlap],
	}
	for _, text := range several[string](t, v.Spec.Cron) {
		s.Cron = append(s.Cron, &nolav1.CronSpec{Expression: text, Dialect: dialect, DayMatch: v.dayMatch()})
	}
	if full {
		s.Cron = []*nolav1.CronSpec{{Expression: v.Spec.Cron7, Dialect: nolav1.CronDialect_CRON_DIALECT_FULL, DayMatch: v.dayMatch()}}
	}
	wall := func(f map[string]string) *nolav1.CalendarSpec {
		return &nolav1.CalendarSpec{
			Second: f["second"], Minute: f["minute"], Hour: f["hour"], DayOfMonth: f["day_of_month"], Month: f["month"],
			DayOfWeek: f["day_of_week"], Year: f["year"], Dialect: dialect, DayMatch: v.dayMatch(),
		}
	}
	for _, f := range several[map[string]string](t, v.Spec.Calendar) {
		s.Calendar = append(s.Calendar, wall(f))
	}
	for _, f := range several[map[string]string](t, v.Spec.Exclude) {
		s.Exclude = append(s.Exclude, &nolav1.ExcludeSpec{Times: &nolav1.ExcludeSpec_Calendar{Calendar: wall(f)}})
	}
	for _, iv := range v.Spec.Interval {
		s.Interval = append(s.Interval, &nolav1.IntervalSpec{
			Every: durationpb.New(time.Duration(iv.Every) * time.Second), Phase: durationpb.New(time.Duration(iv.Phase) * time.Second),
		})
	}
	after := v.After
	if v.Inclusive {
		after = after.Add(-1)
	}
	return &nolav1.PreviewScheduleRequest{Spec: s, After: timestamppb.New(after), Count: int32(len(v.Expect) + 1)}
}

// aside is why a row is not asked as its source says, empty if it is.
func (v *previewVector) aside() string {
	switch {
	case v.Quirk:
		return "quirk of the source"
	case v.ExpectError && v.Ours != "same":
		return "refused by the source, accepted or refused here"
	}
	return ""
}

// forms are the forms in which a row is asked: as its source has it, and as its
// canonical seven fields where it has them. Sources of year6 and of the third Saturday
// read their own form in another way than it is read here.
func (v *previewVector) forms() (full []bool) {
	if v.ExpectError {
		return []bool{false}
	}
	if v.Spec.Cron7 != "" && v.Spec.Calendar == nil {
		full = append(full, true)
	}
	if v.Spec.Cron7 == "" || v.Dialect != "year6" && !strings.Contains(v.Note, "third-Saturday") {
		full = append(full, false)
	}
	return full
}

// TestPreviewVectors asks every vector of the scheduler through the API, in the forms
// in which the scheduler's own test asks it. Of those whose source is not followed it
// demands a sound answer.
func TestPreviewVectors(t *testing.T) {
	const (
		rowsWant  = 451
		formsWant = 687
		asideWant = 18
	)
	w := newWorld(t)
	f, err := os.Open("../scheduler/testdata/schedule.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, asked, aside := 0, 0, map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var v previewVector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		rows++
		if why := v.aside(); why != "" {
			aside[why]++
			v.answered(t, w)
			continue
		}
		for _, full := range v.forms() {
			asked++
			res, err := w.Schedules.PreviewSchedule(context.Background(), connect.NewRequest(v.request(t, full)))
			switch {
			case v.ExpectError && (reasonOf(err) == nola.ReasonInvalidSpec || reasonOf(err) == nola.ReasonInvalidArgument):
			case v.ExpectError:
				t.Errorf("%s: got %v %v (%s), want a refusal", v.ID, res, err, reasonOf(err))
			case err != nil && len(v.Expect) == 0 && (strings.Contains(err.Error(), "would never fire") || strings.Contains(err.Error(), "needs at least one entry")):
			case err != nil:
				t.Errorf("%s, in full %t: %v", v.ID, full, err)
			default:
				v.compare(t, res.Msg.GetTimes())
			}
		}
	}
	t.Logf("%d rows, asked in %d forms", rows, asked)
	left := 0
	for _, why := range slices.Sorted(maps.Keys(aside)) {
		t.Logf("%d rows aside: %s", aside[why], why)
		left += aside[why]
	}
	if rows < rowsWant || asked < formsWant || left > asideWant {
		t.Errorf("%d rows, %d forms were asked, %d rows not, want at least %d and %d, and at most %d", rows, asked, left, rowsWant, formsWant, asideWant)
	}
}

// answered demands rising times, or a refusal of the spec.
func (v *previewVector) answered(t *testing.T, w *world) {
	t.Helper()
	req := v.request(t, false)
	req.Count = 5
	res, err := w.Schedules.PreviewSchedule(context.Background(), connect.NewRequest(req))
	if err != nil {
		if reasonOf(err) != nola.ReasonInvalidSpec {
			t.Errorf("%s: %v, want times or %s", v.ID, err, nola.ReasonInvalidSpec)
		}
		return
	}
	last := req.GetAfter().AsTime()
	for _, at := range res.Msg.GetTimes() {
		if !at.AsTime().After(last) {
			t.Errorf("%s: %s comes behind %s", v.ID, at.AsTime(), last)
		}
		last = at.AsTime()
	}
}

func (v *previewVector) compare(t *testing.T, got []*timestamppb.Timestamp) {
	t.Helper()
	if v.ThenNone && len(got) != len(v.Expect) || len(got) < len(v.Expect) {
		t.Errorf("%s: got %d times, want %d", v.ID, len(got), len(v.Expect))
		return
	}
	jitter := time.Duration(v.Spec.Jitter * float64(time.Second))
	for i, want := range v.Expect {
		at := got[i].AsTime()
		if jitter > 0 {
			// A preview has the nominal times, and the hash is ours: a jittered time of
			// the source lies within the jitter, and before the next nominal time.
			if want.Before(at) || !want.Before(at.Add(jitter)) || i+1 < len(got) && !want.Before(got[i+1].AsTime()) {
				t.Errorf("%s: nominal time %d is %s, which does not fit %s", v.ID, i, at, want.UTC())
				return
			}
			continue
		}
		if !at.Equal(want) {
			t.Errorf("%s: time %d is %s, want %s", v.ID, i, at, want.UTC())
			return
		}
	}
}

// TestCalendarEntriesComeBack creates a schedule with entries of every kind and
// reads it again.
func TestCalendarEntriesComeBack(t *testing.T) {
	w := newWorld(t)
	start := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	spec := &nolav1.ScheduleSpec{
		Calendar: []*nolav1.CalendarSpec{{Hour: "9", Minute: "H", DayOfWeek: "mon-fri", Dialect: nolav1.CronDialect_CRON_DIALECT_FULL, DayMatch: nolav1.DayMatch_DAY_MATCH_AND, TimeZone: "Europe/Berlin", Comment: "office"}},
		Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Hour), Anchor: timestamppb.New(start)}, {Every: durationpb.New(time.Hour), Anchored: true}},
		CalendarInterval: []*nolav1.CalendarIntervalSpec{{
			Every: 2, Unit: nolav1.CalendarUnit_CALENDAR_UNIT_WEEK, At: durationpb.New(9 * time.Hour), From: "2024-05-06", TimeZone: "Asia/Tokyo", Comment: "pay",
		}},
		Exclude: []*nolav1.ExcludeSpec{
			{Times: &nolav1.ExcludeSpec_Calendar{Calendar: &nolav1.CalendarSpec{Month: "12", DayOfMonth: "24-26", Dialect: nolav1.CronDialect_CRON_DIALECT_AUTO}}, TimeZone: "Europe/Paris", Comment: "feast"},
			{Times: &nolav1.ExcludeSpec_Dates{Dates: &nolav1.DateRange{From: "2024-08-01", To: "2024-08-31"}}},
		},
		DstGap: nolav1.DstGap_DST_GAP_SKIP, DstOverlap: nolav1.DstOverlap_DST_OVERLAP_BOTH,
	}
	created, err := w.Schedules.CreateSchedule(context.Background(), connect.NewRequest(&nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		ScheduleId: "all-kinds", Spec: spec,
		Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "counter", Id: "a"}, Operation: "add"},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.Schedules.GetSchedule(context.Background(), connect.NewRequest(&nolav1.GetScheduleRequest{ScheduleId: "all-kinds"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*nolav1.ScheduleSpec{created.Msg.GetSchedule().GetSpec(), got.Msg.GetSchedule().GetSpec()} {
		if !proto.Equal(s, spec) {
			t.Errorf("the spec came back as\n%v, want\n%v", s, spec)
		}
	}
}
