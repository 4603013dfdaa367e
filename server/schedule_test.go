package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func TestFilter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sd := nola.Schedule{
		ID: "night ly*1", Target: nola.ActorRef{Namespace: "default", Type: "cart", ID: "a/b"},
		Labels: map[string]string{"team": "the shop", "empty": ""}, Paused: true, PausedUntil: now.Add(time.Hour),
	}
	entry := persistence.ScheduleEntry{Namespace: "default", ID: sd.ID, Target: sd.Target}
	for text, want := range map[string]bool{
		"":                             true,
		"  \t ":                        true,
		`id="night ly*1"`:              true,
		`id="night ly*"`:               false, // the star is quoted
		`id="night ly"*`:               true,
		"id=night*":                    true,
		"id=*":                         true,
		"id=day*":                      false,
		"id=night":                     false,
		"actor=cart/a/b":               true,
		"actor=cart/a":                 false,
		"type=cart":                    true,
		"type=car*":                    false, // only ids have prefixes
		"paused=true":                  true,
		"paused=false":                 false,
		`label.team="the shop"`:        true,
		"label.team=shop":              false,
		"label.empty=":                 true,
		"label.none=":                  false,
		"label.team=the*":              true,
		"label.team=*":                 true,
		"label.team=shop*":             false,
		`label.team="the"*`:            true,
		`label.team="the*"`:            false, // the star is quoted
		"label.none=*":                 false,
		"type=cart id=n* paused=true":  true,
		"type=cart id=n* paused=false": false,
		"id=night* id=n*":              true,
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := f.passesEntry(&entry) && f.passes(&persistence.ScheduleRow{Schedule: sd}, now); got != want {
			t.Errorf("%q passes: %v, want %v", text, got, want)
		}
		if want && !strings.HasPrefix(sd.ID, f.prefix()) {
			t.Errorf("%q scans ids that start with %q", text, f.prefix())
		}
	}
	for text, want := range map[string]string{
		"nightly":           `byte 0: "nightly" has no value; write nightly=VALUE`,
		"id=a nightly x=":   `byte 5: "nightly" has no value`,
		"id=a  colour=red":  `byte 6: there is no term "colour"; legal are`,
		"id=":               "byte 0: id has no value",
		"paused=yes":        "paused=yes: want paused=true or paused=false",
		"failing=1":         "failing=1: want failing=true or failing=false",
		"id=a ran=never":    "byte 5: ran=never: want ran=true or ran=false",
		"missed_since=1h":   "want a time with its offset, such as missed_since=2026",
		"text=":             "text has no value; write text=VALUE",
		"actor=cart":        "want actor=TYPE/ID",
		`label.a="x`:        "no closing quote",
		`label.a="x"y`:      "byte 11: want white space",
		`label.a=x"y`:       "put all of it in double quotes",
		"label.=x":          "the label has no name",
		`id="\q"`:           "bad escape",
		"=x":                `there is no term ""`,
		"label.a=1 type= b": "byte 10: type has no value",
	} {
		_, err := parseFilter(text)
		if !errors.Is(err, &nola.Error{Reason: nola.ReasonInvalidArgument}) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %q", text, err, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`id=a* label.b="c d" paused=true`)
	f.Add(`id="\x00"*`)
	f.Add("\f") // white space elsewhere, a word here
	f.Fuzz(func(t *testing.T, text string) {
		if f, err := parseFilter(text); err == nil {
			f.passesEntry(&persistence.ScheduleEntry{})
			f.passes(&persistence.ScheduleRow{}, time.Time{})
		}
	})
}

// full is a schedule with everything that a client may say.
func full() *nolav1.Schedule {
	at := timestamppb.New(time.Date(2027, 1, 2, 3, 4, 5, 6, time.UTC))
	return &nolav1.Schedule{
		Namespace: "shop", ScheduleId: "nightly",
		Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Namespace: "shop", Type: "cart", Id: "a"}, Operation: "sweep", Payload: []byte("p")},
		Spec: &nolav1.ScheduleSpec{
			Cron: []*nolav1.CronSpec{{
				Expression: "0 3 * * *", Dialect: nolav1.CronDialect_CRON_DIALECT_UNIX, DayMatch: nolav1.DayMatch_DAY_MATCH_AND,
				TimeZone: "Europe/Berlin", Comment: "at night",
			}},
			Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(time.Hour), Phase: durationpb.New(time.Minute)}},
			At:       []*timestamppb.Timestamp{at}, TimeZone: "UTC", StartTime: at, EndTime: at, Jitter: durationpb.New(time.Second),
			DstGap: nolav1.DstGap_DST_GAP_SHIFT_BY_GAP, DstOverlap: nolav1.DstOverlap_DST_OVERLAP_FIRST_UNLESS_INTERVAL,
		},
		Policy: &nolav1.SchedulePolicy{
			Overlap: nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL,
			Catchup: &nolav1.CatchupPolicy{Mode: nolav1.CatchupMode_CATCHUP_MODE_FIRST, Window: durationpb.New(time.Hour), Max: 7},
		},
		State:  &nolav1.ScheduleState{Paused: true, Note: "why", PausedUntil: at, Limited: true, RemainingActions: 5},
		Labels: map[string]string{"team": "shop"},
	}
}

func TestScheduleGoesThereAndBack(t *testing.T) {
	want := full()
	sd, err := scheduleOf(want)
	if err != nil {
		t.Fatal(err)
	}
	if c := sd.Spec.Cron[0]; c.Dialect != nola.DialectUnix || c.DayMatch != nola.DayMatchAnd {
		t.Errorf("cron became %+v", c)
	}
	if sd.Spec.DSTGap != nola.GapShift || sd.Spec.DSTOverlap != nola.OverlapFirstUnlessInterval {
		t.Errorf("gap %d, overlap %d", sd.Spec.DSTGap, sd.Spec.DSTOverlap)
	}
	got := scheduleMessage(&nola.ScheduleInfo{Schedule: sd})
	got.Info, got.Etag = nil, ""
	if !proto.Equal(got, want) {
		t.Errorf("there and back\n got %v\nwant %v", got, want)
	}

	sd, err = scheduleOf(&nolav1.Schedule{ScheduleId: "x", Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "t", Id: "i"}}, Spec: &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{}}}})
	if err != nil {
		t.Fatal(err)
	}
	if sd.Namespace != "default" || sd.Target.Namespace != "default" || sd.Spec.Cron[0].Dialect != nola.DialectAuto || sd.Spec.DSTGap != nola.GapSkip ||
		sd.Spec.DSTOverlap != nola.OverlapBoth || sd.Policy.Overlap != nola.OverlapSkip || sd.Policy.Catchup.Mode != nola.CatchupLast {
		t.Errorf("defaults became %+v", sd)
	}
}

func TestChangeOf(t *testing.T) {
	sd, err := scheduleOf(full())
	if err != nil {
		t.Fatal(err)
	}
	have := &nola.ScheduleInfo{Schedule: sd}
	asked := &nolav1.Schedule{
		Namespace: "shop", ScheduleId: "nightly",
		Target: &nolav1.ScheduleTarget{Operation: "other"},
		Spec:   &nolav1.ScheduleSpec{TimeZone: "Asia/Tokyo"},
		State:  &nolav1.ScheduleState{Note: "new"},
		Policy: &nolav1.SchedulePolicy{Catchup: &nolav1.CatchupPolicy{Max: 9}},
	}
	c, want, err := changeOf(have, asked, []string{"target.operation", "spec.time_zone", "state.note", "policy.catchup.max", "labels"})
	if err != nil {
		t.Fatal(err)
	}
	if *c.Operation != "other" || c.Payload != nil || c.Spec.TimeZone != "Asia/Tokyo" || len(c.Spec.Cron) != 1 || *c.Note != "new" ||
		c.Paused != nil || c.Remaining != nil || c.Policy.Catchup.Max != 9 || c.Policy.Catchup.Mode != nola.CatchupFirst || len(*c.Labels) != 0 {
		t.Errorf("change %+v", c)
	}
	if want.Target != sd.Target {
		t.Errorf("target became %s", want.Target)
	}
	for path, asked := range map[string]*nolav1.Schedule{
		"target":     {Target: &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: "cart", Id: "another"}, Operation: "o"}},
		"etag":       {},
		"spec.none":  {},
		"labels.a":   {},
		"spec.cron.": {},
	} {
		if _, _, err := changeOf(have, asked, []string{path}); !errors.Is(err, &nola.Error{Reason: nola.ReasonInvalidArgument}) {
			t.Errorf("%s: error %v, want INVALID_ARGUMENT", path, err)
		}
	}
	if have.Schedule.Operation != "sweep" || have.Schedule.Spec.TimeZone != "UTC" || len(have.Schedule.Labels) != 1 {
		t.Errorf("the schedule itself was changed: %+v", have.Schedule)
	}
}

func TestCursor(t *testing.T) {
	token := formatCursor("things", "a", "b\x00c")
	if parts, err := parseCursor("things", token, 2); err != nil || parts[0] != "a" || parts[1] != "b\x00c" {
		t.Errorf("parts %q, error %v", parts, err)
	}
	if parts, err := parseCursor("things", "", 2); parts != nil || err != nil {
		t.Errorf("empty token: parts %q, error %v", parts, err)
	}
	for _, bad := range []string{"!", "AAAA", formatCursor("others", "a", "b"), formatCursor("things", "a"), formatCursor("things", "a", "")} {
		if _, err := parseCursor("things", bad, 2); err == nil {
			t.Errorf("token %q is accepted", bad)
		}
	}
}

func TestIDLocks(t *testing.T) {
	var l idLocks
	unlock, err := l.lock(context.Background(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.lock(context.Background(), "a", "c")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.lock(ctx, "a", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v while it is held, want the context's", err)
	}
	got := make(chan func())
	go func() {
		unlock, _ := l.lock(context.Background(), "a", "b")
		got <- unlock
	}()
	unlock()
	(<-got)()
	if len(l.held) != 0 {
		t.Errorf("%d locks are held", len(l.held))
	}
}
