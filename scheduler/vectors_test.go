package scheduler_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// vector is one row of testdata/schedule.jsonl.
type vector struct {
	ID      string
	Dialect string
	Spec    struct {
		Cron     json.RawMessage
		Cron7    string
		Calendar json.RawMessage
		Interval []struct {
			Every int64 `json:"every_s"`
			Phase int64 `json:"phase_s"`
		}
		Exclude json.RawMessage
		TZ      string
		Start   time.Time
		End     time.Time
		Jitter  float64 `json:"jitter_s"`
	}
	Policy struct {
		Gap     string `json:"dst_gap"`
		Overlap string `json:"dst_overlap"`
		Days    string `json:"dom_dow"`
	}
	After       time.Time
	Inclusive   bool
	Expect      []time.Time
	ExpectError bool   `json:"expect_error"`
	ThenNone    bool   `json:"then_none"`
	JitterSeed  string `json:"jitter_seed"`
	Ours        string
	Quirk       bool
	Note        string
}

func lines[T any](t *testing.T, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []T
	for s := bufio.NewScanner(f); s.Scan(); {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v: %s", path, err, s.Text())
		}
		out = append(out, v)
	}
	return out
}

// oneOrMany reads a JSON value or a list of such values.
func oneOrMany[T any](t *testing.T, raw json.RawMessage) []T {
	t.Helper()
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var many []T
	if raw[0] == '[' {
		if err := json.Unmarshal(raw, &many); err != nil {
			t.Fatal(err)
		}
		return many
	}
	var one T
	if err := json.Unmarshal(raw, &one); err != nil {
		t.Fatal(err)
	}
	return []T{one}
}

var vectorDialects = map[string]nola.CronDialect{
	"unix5": nola.DialectUnix, "cronos5": nola.DialectUnix, "netres5": nola.DialectUnix,
	"sec6": nola.DialectSeconds, "cronos6": nola.DialectSeconds,
	"year6": nola.DialectFull, "temporal": nola.DialectTemporal, "quartz": nola.DialectQuartz, "croniter": nola.DialectCroniter,
}

// dayMatch is the rule that the row's source uses for two restricted day fields.
func (v vector) dayMatch() nola.DayMatch {
	switch {
	case v.Policy.Days == "or":
		return nola.DayMatchOr
	case v.Policy.Days == "and", strings.HasPrefix(v.Dialect, "cronos"):
		return nola.DayMatchAnd
	}
	return nola.DayMatchDefault
}

// spec is the row as ours; full asks its canonical seven fields.
func (v vector) spec(t *testing.T, full bool) nola.Spec {
	t.Helper()
	s := nola.Spec{
		TimeZone: v.Spec.TZ, Start: v.Spec.Start, End: v.Spec.End,
		Jitter: time.Duration(v.Spec.Jitter * float64(time.Second)),
		DSTGap: map[string]nola.DSTGap{
			"": nola.GapSkip, "skip": nola.GapSkip, "first_after": nola.GapFirstAfter, "shift_by_gap": nola.GapShift,
		}[v.Policy.Gap],
		DSTOverlap: map[string]nola.DSTOverlap{
			"": nola.OverlapBoth, "both": nola.OverlapBoth, "first": nola.OverlapFirst, "last": nola.OverlapLast,
			"first_unless_interval": nola.OverlapFirstUnlessInterval,
		}[v.Policy.Overlap],
	}
	for _, expr := range oneOrMany[string](t, v.Spec.Cron) {
		s.Cron = append(s.Cron, nola.Cron{Expression: expr, Dialect: vectorDialects[v.Dialect], DayMatch: v.dayMatch()})
	}
	if full {
		s.Cron = []nola.Cron{{Expression: v.Spec.Cron7, Dialect: nola.DialectFull, DayMatch: v.dayMatch()}}
	}
	for _, cal := range oneOrMany[fields](t, v.Spec.Calendar) {
		s.Calendar = append(s.Calendar, cal.spec(v))
	}
	for _, cal := range oneOrMany[fields](t, v.Spec.Exclude) {
		x := cal.spec(v)
		s.Exclude = append(s.Exclude, nola.Exclude{Calendar: &x})
	}
	for _, iv := range v.Spec.Interval {
		s.Interval = append(s.Interval, nola.Interval{Every: time.Duration(iv.Every) * time.Second, Phase: time.Duration(iv.Phase) * time.Second})
	}
	return s
}

// fields are a structured calendar of the vectors.
type fields struct {
	Second, Minute, Hour, Month, Year string
	DayOfMonth                        string `json:"day_of_month"`
	DayOfWeek                         string `json:"day_of_week"`
}

func (f fields) spec(v vector) nola.CalendarSpec {
	return nola.CalendarSpec{
		Second: f.Second, Minute: f.Minute, Hour: f.Hour, DayOfMonth: f.DayOfMonth, Month: f.Month, DayOfWeek: f.DayOfWeek, Year: f.Year,
		Dialect: vectorDialects[v.Dialect], DayMatch: v.dayMatch(),
	}
}

// quirk is why a row is not asked as its source says, empty if it is.
func (v vector) quirk() string {
	switch {
	case v.Quirk:
		return "quirk of the source"
	case v.ExpectError && v.Ours != "same":
		return "refused by the source, accepted or refused here"
	}
	return ""
}

func TestVectors(t *testing.T) {
	passed, aside := 0, map[string]int{}
	rows := lines[vector](t, "testdata/schedule.jsonl")
	for _, v := range rows {
		if why := v.quirk(); why != "" {
			aside[why]++
			t.Run(v.ID, v.answered)
			continue
		}
		ok := t.Run(v.ID, func(t *testing.T) {
			if v.ExpectError {
				v.refused(t)
				return
			}
			if v.Spec.Cron7 != "" && v.Spec.Calendar == nil {
				v.ask(t, v.spec(t, true))
			}
			if v.Spec.Cron7 == "" || (v.Dialect != "year6" && !strings.Contains(v.Note, "third-Saturday")) {
				v.ask(t, v.spec(t, false))
			}
		})
		if ok {
			passed++
		}
	}
	t.Logf("schedule vectors: %d of %d passed", passed, len(rows))
	for _, why := range slices.Sorted(maps.Keys(aside)) {
		t.Logf("schedule vectors: %d aside: %s", aside[why], why)
	}
}

// answered checks that a row whose source is not followed gets a sound answer:
// rising times, or a refusal that says where.
func (v vector) answered(t *testing.T) {
	c, _, err := scheduler.Compile(v.spec(t, false), "")
	if err != nil {
		v.refused(t)
		return
	}
	last := v.After
	for range 5 {
		next, ok := c.Next(last)
		if !ok {
			return
		}
		if !next.After(last) {
			t.Fatalf("%s: next after %s is %s", v.ID, last, next)
		}
		last = next
	}
}

func (v vector) refused(t *testing.T) {
	t.Helper()
	s := v.spec(t, false)
	_, _, err := scheduler.Compile(s, "")
	var spec *scheduler.SpecError
	var public *nola.Error
	if !errors.As(err, &spec) || !errors.As(err, &public) || public.Reason != nola.ReasonInvalidSpec {
		t.Fatalf("%s: %+v compiled with error %v, want a refusal", v.ID, s, err)
	}
	for _, f := range spec.Faults {
		if f.Message == "" || f.Field == "" || f.Start < 0 || f.End < f.Start || f.End > len(f.Expression) {
			t.Errorf("fault without its place: %+v", f)
		}
	}
}

func (v vector) ask(t *testing.T, s nola.Spec) {
	t.Helper()
	what := fmt.Sprintf("%s %+v after %s", v.ID, s, v.After.Format(time.RFC3339Nano))
	c, _, err := scheduler.Compile(s, v.JitterSeed, scheduler.Anchored(v.After))
	if err != nil {
		if len(v.Expect) == 0 && strings.Contains(err.Error(), "would never fire") {
			return
		}
		t.Fatalf("%s: %v", what, err)
	}
	after := v.After
	if v.Inclusive {
		after = after.Add(-1)
	}
	for i, want := range v.Expect {
		got, ok := c.Next(after)
		switch {
		case !ok:
			t.Fatalf("%s: result %d is none, want %s", what, i, want)
		case s.Jitter > 0:
			// the hash is ours: only the bounds can be compared
			following, more := c.Next(got)
			if want.Before(got) || !want.Before(got.Add(s.Jitter)) || more && !want.Before(following) {
				t.Fatalf("%s: nominal time %d is %s, which does not fit %s", what, i, got, want)
			}
			if j := c.Jittered(got); j.Before(got) || !j.Before(got.Add(s.Jitter)) || more && !j.Before(following) {
				t.Fatalf("%s: %s is jittered to %s", what, got, j)
			}
		case !got.Equal(want):
			t.Fatalf("%s: result %d is %s, want %s", what, i, got.In(want.Location()).Format(time.RFC3339), want.Format(time.RFC3339))
		}
		if !s.Start.After(after) {
			v.constant(t, c, after, got)
		}
		after = want
	}
	if v.ThenNone {
		if got, ok := c.Next(after); ok {
			t.Fatalf("%s: then %s, want none", what, got)
		}
	}
}

// constant checks that asking from anywhere in a gap gives the same answer, and
// that looking back agrees.
func (v vector) constant(t *testing.T, c *scheduler.Compiled, from, next time.Time) {
	t.Helper()
	gap := next.Sub(from)
	parts := []time.Duration{0, 1, gap / 7, gap / 3, gap / 2, gap - gap/5, gap - time.Second, gap - 1}
	for r := rand.New(rand.NewSource(from.Unix())); len(parts) < 14; { // the same each time
		parts = append(parts, time.Duration(r.Int63n(int64(max(gap, 1)))))
	}
	for _, part := range parts {
		if part < 0 || part >= gap {
			continue
		}
		if got, ok := c.Next(from.Add(part)); !ok || !got.Equal(next) {
			t.Fatalf("%s: next after %s is %s, but after %s it is %s", v.ID, from, next, from.Add(part), got)
		}
	}
	if got, ok := c.Prev(next.Add(1)); !ok || !got.Equal(next) {
		t.Fatalf("%s: the last time before %s is %s %v, want %s", v.ID, next.Add(1), got, ok, next)
	}
	if got, ok := c.Prev(next); ok && got.After(from) {
		t.Fatalf("%s: %s lies between %s and %s", v.ID, got, from, next)
	}
}
