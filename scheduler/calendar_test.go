package scheduler_test

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

func date(t *testing.T, s string) nola.Date {
	t.Helper()
	d, err := nola.ParseDate(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func instant(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func compile(t *testing.T, s nola.Spec, seed string, options ...scheduler.Option) *scheduler.Compiled {
	t.Helper()
	c, _, err := scheduler.Compile(s, seed, options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// times writes the next n times on the clock of the zone.
func times(c *scheduler.Compiled, after time.Time, zone string, n int) string {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, at := range c.Between(after, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), n) {
		out = append(out, at.In(loc).Format("2006-01-02T15:04:05.999"))
	}
	return strings.Join(out, " ")
}

func TestEntries(t *testing.T) {
	bank := nola.Calendar{
		Name:  "bank",
		Dates: []nola.DateRange{{From: date(t, "2026-05-01")}, {From: date(t, "2026-12-24"), To: date(t, "2026-12-31")}},
		Rules: []nola.HolidayRule{{Month: "1", DayOfMonth: "1"}, {Easter: nola.EasterWestern, Offset: -2}, {Easter: nola.EasterWestern, Offset: 1}},
	}
	created := instant(t, "2026-03-03T03:03:03.5Z")
	for name, tt := range map[string]struct {
		spec  nola.Spec
		after string
		zone  string
		want  string
	}{
		"structured calendar": {
			nola.Spec{Calendar: []nola.CalendarSpec{{Hour: "9", Minute: "30", DayOfWeek: "mon-fri", TimeZone: "Europe/Berlin"}}},
			"2026-03-27T12:00:00Z", "Europe/Berlin", "2026-03-30T09:30:00 2026-03-31T09:30:00 2026-04-01T09:30:00",
		},
		"structured calendar, quartz weekdays": {
			nola.Spec{Calendar: []nola.CalendarSpec{{Hour: "9", DayOfMonth: "?", DayOfWeek: "2", Dialect: nola.DialectQuartz}}},
			"2026-03-27T12:00:00Z", "UTC", "2026-03-30T09:00:00 2026-04-06T09:00:00 2026-04-13T09:00:00",
		},
		"every 2 days over the gap": {
			nola.Spec{CalendarInterval: []nola.CalendarInterval{{Every: 2, Unit: nola.UnitDay, At: 9 * time.Hour, From: date(t, "2026-03-26"), TimeZone: "Europe/Berlin"}}},
			"2026-03-01T00:00:00Z", "Europe/Berlin", "2026-03-26T09:00:00 2026-03-28T09:00:00 2026-03-30T09:00:00",
		},
		"every 2 weeks from the creation": {
			nola.Spec{CalendarInterval: []nola.CalendarInterval{{Every: 2, Unit: nola.UnitWeek, At: 90 * time.Minute}}},
			"2026-03-03T03:03:03Z", "UTC", "2026-03-17T01:30:00 2026-03-31T01:30:00 2026-04-14T01:30:00",
		},
		"every month on the 31st": {
			nola.Spec{CalendarInterval: []nola.CalendarInterval{{Every: 1, Unit: nola.UnitMonth, From: date(t, "2028-01-31")}}},
			"2020-01-01T00:00:00Z", "UTC", "2028-01-31T00:00:00 2028-02-29T00:00:00 2028-03-31T00:00:00",
		},
		"every leap day, or the day before": {
			nola.Spec{CalendarInterval: []nola.CalendarInterval{{Every: 2, Unit: nola.UnitYear, From: date(t, "2024-02-29")}}},
			"2020-01-01T00:00:00Z", "UTC", "2024-02-29T00:00:00 2026-02-28T00:00:00 2028-02-29T00:00:00",
		},
		"interval from an anchor, behind it and before": {
			nola.Spec{Interval: []nola.Interval{{Every: 28 * 24 * time.Hour, Anchor: created}}},
			"2026-02-01T00:00:00Z", "UTC", "2026-02-03T03:03:03.5 2026-03-03T03:03:03.5 2026-03-31T03:03:03.5",
		},
		"interval from the creation": {
			nola.Spec{Interval: []nola.Interval{{Every: 250 * time.Millisecond, Anchored: true, Phase: 10 * time.Millisecond}}},
			"2026-03-03T03:03:03.5Z", "UTC", "2026-03-03T03:03:03.51 2026-03-03T03:03:03.76 2026-03-03T03:03:04.01",
		},
		"interval from the start": {
			nola.Spec{Interval: []nola.Interval{{Every: 7 * time.Hour, Anchored: true}}, Start: instant(t, "2026-04-01T01:00:00Z")},
			"2026-03-03T03:03:03.5Z", "UTC", "2026-04-01T01:00:00 2026-04-01T08:00:00 2026-04-01T15:00:00",
		},
		"@every of dialect unix counts from the creation": {
			nola.Spec{Cron: []nola.Cron{{Expression: "@every 90m", Dialect: nola.DialectUnix}}},
			"2026-03-03T03:03:03.5Z", "UTC", "2026-03-03T04:33:03 2026-03-03T06:03:03 2026-03-03T07:33:03",
		},
		"@every lies on the grid": {
			nola.Spec{Cron: []nola.Cron{{Expression: "@every 90m"}}},
			"2026-03-03T03:03:03.5Z", "UTC", "2026-03-03T04:30:00 2026-03-03T06:00:00 2026-03-03T07:30:00",
		},
		"first business day, with holidays": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 9 1B * *"}}, HolidayCalendar: "bank"},
			"2025-12-05T00:00:00Z", "UTC", "2026-01-02T09:00:00 2026-02-02T09:00:00 2026-03-02T09:00:00 2026-04-01T09:00:00 2026-05-04T09:00:00",
		},
		"last business day, with holidays": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 9 LB * *"}}, HolidayCalendar: "bank"},
			"2026-10-05T00:00:00Z", "UTC", "2026-10-30T09:00:00 2026-11-30T09:00:00 2026-12-23T09:00:00 2027-01-29T09:00:00",
		},
		"last but two, without a calendar": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 9 L-2B * *"}}},
			"2026-10-05T00:00:00Z", "UTC", "2026-10-28T09:00:00 2026-11-26T09:00:00",
		},
		"every business day around Easter": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 9 B * *"}}, HolidayCalendar: "bank"},
			"2026-04-01T12:00:00Z", "UTC", "2026-04-02T09:00:00 2026-04-07T09:00:00 2026-04-08T09:00:00",
		},
		"exclude of a calendar": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 9 * * *"}}, Exclude: []nola.Exclude{{HolidayCalendar: "bank"}}},
			"2026-12-23T00:00:00Z", "UTC", "2026-12-23T09:00:00 2027-01-02T09:00:00",
		},
		"exclude of a date takes the day": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 9 * * *"}}, Exclude: []nola.Exclude{{Calendar: &nola.CalendarSpec{Month: "12", DayOfMonth: "24-26"}}}},
			"2026-12-23T00:00:00Z", "UTC", "2026-12-23T09:00:00 2026-12-27T09:00:00",
		},
		"exclude of dialect temporal takes midnight": {
			nola.Spec{Cron: []nola.Cron{{Expression: "0 0,9 * * *"}}, Exclude: []nola.Exclude{{Calendar: &nola.CalendarSpec{Month: "12", DayOfMonth: "24", Dialect: nola.DialectTemporal}}}},
			"2026-12-23T10:00:00Z", "UTC", "2026-12-24T09:00:00 2026-12-25T00:00:00",
		},
		"exclude of a range of dates, in the entry's zone": {
			nola.Spec{Cron: []nola.Cron{{Expression: "CRON_TZ=Asia/Tokyo 0 1 * * *"}}, Exclude: []nola.Exclude{{Dates: nola.DateRange{From: date(t, "2026-05-02"), To: date(t, "2026-06-30")}}}},
			"2026-05-01T00:00:00Z", "Asia/Tokyo", "2026-07-01T01:00:00 2026-07-02T01:00:00",
		},
		"exclude of a range of dates, in its own zone": {
			nola.Spec{Cron: []nola.Cron{{Expression: "CRON_TZ=Asia/Tokyo 0 1 * * *"}}, Exclude: []nola.Exclude{{Dates: nola.DateRange{From: date(t, "2026-05-02"), To: date(t, "2026-06-30")}, TimeZone: "UTC"}}},
			"2026-05-01T00:00:00Z", "Asia/Tokyo", "2026-05-02T01:00:00 2026-07-02T01:00:00",
		},
		"exclude of single times": {
			nola.Spec{At: []time.Time{instant(t, "2026-05-02T00:00:00Z"), instant(t, "2026-05-03T00:00:00Z")}, Exclude: []nola.Exclude{{Dates: nola.DateRange{From: date(t, "2026-05-02")}}}},
			"2026-05-01T00:00:00Z", "UTC", "2026-05-03T00:00:00",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, tt.spec, "id", scheduler.Anchored(created), scheduler.WithCalendars(bank))
			if got := times(c, instant(t, tt.after), tt.zone, strings.Count(tt.want, " ")+1); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", scheduler.Describe(tt.spec), got, tt.want)
			}
		})
	}
}

func TestEaster(t *testing.T) {
	for kind, dates := range map[nola.Easter][]string{
		nola.EasterWestern:  {"1971-04-11", "2000-04-23", "2008-03-23", "2011-04-24", "2024-03-31", "2025-04-20", "2026-04-05", "2038-04-25", "2049-04-18", "2285-03-22"},
		nola.EasterOrthodox: {"2000-04-30", "2008-04-27", "2011-04-24", "2024-05-05", "2025-04-20", "2026-04-12", "2038-04-25", "2105-04-05"},
	} {
		for _, want := range dates {
			d := date(t, want)
			c := &nola.Calendar{Rules: []nola.HolidayRule{{Easter: kind}}}
			got := scheduler.CalendarDays(c, nola.Date{Year: d.Year, Month: 1, Day: 1}, nola.Date{Year: d.Year, Month: 12, Day: 31}, 5)
			if len(got) != 1 || got[0] != d {
				t.Errorf("easter %d of %d is %v, want %s", kind, d.Year, got, want)
			}
		}
	}
	// an offset may lead into the year before
	c := &nola.Calendar{Rules: []nola.HolidayRule{{Easter: nola.EasterWestern, Offset: -200}}}
	if got := scheduler.CalendarDays(c, date(t, "2025-09-01"), date(t, "2025-12-31"), 5); len(got) != 1 || got[0] != date(t, "2025-09-17") {
		t.Errorf("200 days before 2026-04-05 is %v", got)
	}
}

// TestHashed checks that H depends on the id alone, stays in its range, and
// spreads.
func TestHashed(t *testing.T) {
	spec := nola.Spec{Cron: []nola.Cron{{Expression: "H H(1-5) H * *"}}}
	after := instant(t, "2026-02-01T00:00:00Z")
	minutes := map[int]int{}
	for i := range 600 {
		id := fmt.Sprint("schedule-", i)
		one, _ := compile(t, spec, id).Next(after)
		two, _ := compile(t, spec, id).Next(after)
		if !one.Equal(two) {
			t.Fatalf("%s is due at %s and at %s", id, one, two)
		}
		if one.Hour() < 1 || one.Hour() > 5 || one.Day() > 28 || one.Month() != time.February {
			t.Fatalf("%s is due at %s", id, one)
		}
		minutes[one.Minute()]++
	}
	for m := range 60 {
		if minutes[m] > 40 || len(minutes) < 50 {
			t.Fatalf("600 schedules fall on minutes %v", minutes)
		}
	}
	c := compile(t, nola.Spec{Cron: []nola.Cron{{Expression: "H/15 H(8-10)/2 * * *"}}}, "x")
	list := c.Between(after, after.Add(24*time.Hour), 100)
	if n := len(list); n != 4 && n != 8 || list[1].Sub(list[0]) != 15*time.Minute || list[0].Minute() >= 15 {
		t.Fatalf("H/15 is due at %v", list)
	}
	_, warns, err := scheduler.Compile(spec, "")
	if err != nil || len(warns) == 0 || warns[0].Code != scheduler.WarnUnseeded {
		t.Fatalf("H without an id: %v %v", warns, err)
	}
	if a, b := scheduler.Describe(spec, scheduler.Seeded("a")), scheduler.Describe(spec, scheduler.Seeded("b")); a == b {
		t.Fatalf("both are described as %q", a)
	}
}

func TestRefusals(t *testing.T) {
	cal := func(c nola.CalendarSpec) nola.Spec { return nola.Spec{Calendar: []nola.CalendarSpec{c}} }
	every := func(c nola.CalendarInterval) nola.Spec {
		return nola.Spec{CalendarInterval: []nola.CalendarInterval{c}}
	}
	hourly := []nola.Cron{{Expression: "0 * * * *"}}
	for name, tt := range map[string]struct {
		spec  nola.Spec
		field string
		want  string
	}{
		"field of a calendar":       {cal(nola.CalendarSpec{Minute: "5,61"}), "calendar[0].minute", "61 is out of range"},
		"two fields in one":         {cal(nola.CalendarSpec{Hour: "5 6"}), "calendar[0].hour", "more than one field"},
		"year of dialect temporal":  {cal(nola.CalendarSpec{Year: "1999", Dialect: nola.DialectTemporal}), "calendar[0].year", "2000-2100"},
		"no such day":               {cal(nola.CalendarSpec{Month: "2", DayOfMonth: "30"}), "calendar[0]", "never fire"},
		"unit":                      {every(nola.CalendarInterval{Every: 1}), "calendar_interval[0].unit", "day, week, month and year"},
		"every 0":                   {every(nola.CalendarInterval{Unit: nola.UnitDay}), "calendar_interval[0].every", "1 to 36500"},
		"time of day":               {every(nola.CalendarInterval{Every: 1, Unit: nola.UnitDay, At: 24 * time.Hour}), "calendar_interval[0].at", "less than 24 h"},
		"date":                      {every(nola.CalendarInterval{Every: 1, Unit: nola.UnitDay, From: nola.Date{Year: 2026, Month: 2, Day: 30}}), "calendar_interval[0].from", "2026-02-30"},
		"unknown holiday calendar":  {nola.Spec{Cron: hourly, HolidayCalendar: "bnak"}, "holiday_calendar", `no calendar "bnak"`},
		"unknown excluded calendar": {nola.Spec{Cron: hourly, Exclude: []nola.Exclude{{HolidayCalendar: "bnak"}}}, "exclude[0].holiday_calendar", `no calendar "bnak"`},
		"exclude of nothing":        {nola.Spec{Cron: hourly, Exclude: []nola.Exclude{{}}}, "exclude[0]", "exactly one"},
		"exclude of two":            {nola.Spec{Cron: hourly, Exclude: []nola.Exclude{{Calendar: &nola.CalendarSpec{}, Dates: nola.DateRange{From: date(t, "2026-01-01")}}}}, "exclude[0]", "exactly one"},
		"excluded for ever":         {nola.Spec{Cron: hourly, Exclude: []nola.Exclude{{Calendar: &nola.CalendarSpec{}}}}, "spec", "the excludes leave no nominal time"},
		"excluded piece by piece": {
			nola.Spec{Interval: []nola.Interval{{Every: 24 * time.Hour}}, Exclude: []nola.Exclude{{Calendar: &nola.CalendarSpec{Hour: "0-11"}}, {Calendar: &nola.CalendarSpec{Hour: "12-23", DayOfWeek: "mon"}}}},
			"spec", "the excludes leave no nominal time",
		},
		"H of years":      {nola.Spec{Cron: []nola.Cron{{Expression: "0 0 0 * * * H", Dialect: nola.DialectFull}}}, "year", "H"},
		"H without end":   {nola.Spec{Cron: []nola.Cron{{Expression: "H(1-5 * * * *"}}}, "minute", "H(a-b)"},
		"H out of range":  {nola.Spec{Cron: []nola.Cron{{Expression: "H(1-75) * * * *"}}}, "minute", "75"},
		"no business day": {nola.Spec{Cron: []nola.Cron{{Expression: "0 0 24B * *"}}}, "day of month", "23 business days"},
		"WB":              {nola.Spec{Cron: []nola.Cron{{Expression: "0 0 1WB * *"}}}, "day of month", "nW nor nB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := scheduler.Compile(tt.spec, "")
			var e *scheduler.SpecError
			if !errors.As(err, &e) || e.Faults[0].Field != tt.field || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v (%+v), want a fault of %q that says %q", err, e, tt.field, tt.want)
			}
		})
	}
}

func TestCalendarRefusals(t *testing.T) {
	for want, c := range map[string]nola.Calendar{
		"2026-02-30":           {Dates: []nola.DateRange{{From: nola.Date{Year: 2026, Month: 2, Day: 30}}}},
		"lies before":          {Dates: []nola.DateRange{{From: date(t, "2026-02-03"), To: date(t, "2026-02-02")}}},
		"the rule is empty":    {Rules: []nola.HolidayRule{{}}},
		"not both":             {Rules: []nola.HolidayRule{{Easter: nola.EasterWestern, Month: "1"}}},
		"goes with easter":     {Rules: []nola.HolidayRule{{Month: "1", Offset: 1}}},
		"outside -200":         {Rules: []nola.HolidayRule{{Easter: nola.EasterWestern, Offset: 201}}},
		"cannot ask for them":  {Rules: []nola.HolidayRule{{DayOfMonth: "1B"}}},
		"13 is out of range":   {Rules: []nola.HolidayRule{{Month: "13", DayOfMonth: "1"}}},
		"legal are western":    {Rules: []nola.HolidayRule{{Easter: 9}}},
		"at most 10000 and 20": {Dates: make([]nola.DateRange, nola.CalendarDatesMax+1)},
	} {
		if err := scheduler.CheckCalendar(&c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", c.Rules, err, want)
		}
	}
}

// TestExcludesAgainstFilter compares specs with excludes with the times of the
// same specs without them, each looked at on its own with the time package.
func TestExcludesAgainstFilter(t *testing.T) {
	r := seeded(t)
	names := zoneNames(t)
	for range 100 {
		zone := names[r.Intn(len(names))]
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Date(1990+r.Intn(60), time.Month(1+r.Intn(12)), 1+r.Intn(28), r.Intn(24), r.Intn(60), r.Intn(60), 0, time.UTC)
		b := randomTime(r, from.AddDate(0, 0, r.Intn(40)))
		b.second = only(0) // for there are enough times
		b.render()
		if b.compile(t, new(scheduler.Zones), nola.Spec{}) == nil {
			continue
		}
		spec := nola.Spec{
			TimeZone: zone, DSTGap: nola.DSTGap(r.Intn(3)), DSTOverlap: nola.DSTOverlap(r.Intn(4)),
			Cron: []nola.Cron{b.cron}, HolidayCalendar: b.calendar.Name,
			Interval: []nola.Interval{{Every: time.Duration(1+r.Intn(50_000)) * time.Second}},
		}
		calendars := scheduler.WithCalendars(b.calendar)
		bare := compile(t, spec, "", calendars)
		var taken []func(time.Time) bool
		for range 1 + r.Intn(3) {
			x, f := randomExclude(r)
			spec.Exclude, taken = append(spec.Exclude, x), append(taken, f)
		}
		c, _, err := scheduler.Compile(spec, "", calendars)
		if err != nil {
			if strings.Contains(err.Error(), "leave no nominal time") {
				continue
			}
			t.Fatal(err)
		}
		to := from.AddDate(0, 0, 40)
		var want []time.Time
		all := bare.Between(from, to, 100_000)
		if len(all) == 100_000 { // the others are not known
			to = all[len(all)-1]
		}
	next:
		for _, at := range all {
			for _, f := range taken {
				if f(at.In(loc)) {
					continue next
				}
			}
			want = append(want, at)
		}
		got := c.Between(from, to, 100_000)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%+v from %s: got %d times, want %d\n%s", spec, from, len(got), len(want), firstDifference(got, want))
		}
		for i := range min(len(want), 20) {
			if prev, ok := c.Prev(want[i].Add(1)); !ok || !prev.Equal(want[i]) {
				t.Fatalf("%+v: the last up to %s is %s", spec, want[i], prev)
			}
		}
	}
}

func firstDifference(got, want []time.Time) string {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !got[i].Equal(want[i]) {
			return fmt.Sprintf("at %d: got %v, want %v", i, got[min(i, len(got)):min(i+3, len(got))], want[min(i, len(want)):min(i+3, len(want))])
		}
	}
	return "none"
}

func randomExclude(r *rand.Rand) (nola.Exclude, func(time.Time) bool) {
	in := func(n, lo, hi int) bool { return lo <= n && n <= hi }
	switch r.Intn(5) {
	case 0:
		lo := r.Intn(24)
		hi := lo + r.Intn(24-lo)
		return nola.Exclude{Calendar: &nola.CalendarSpec{Hour: fmt.Sprintf("%d-%d", lo, hi)}}, func(t time.Time) bool { return in(t.Hour(), lo, hi) }
	case 1:
		lo := r.Intn(7)
		hi := lo + r.Intn(7-lo)
		return nola.Exclude{Calendar: &nola.CalendarSpec{DayOfWeek: fmt.Sprintf("%d-%d", lo, hi)}}, func(t time.Time) bool { return in(int(t.Weekday()), lo, hi) }
	case 2:
		lo, step := r.Intn(60), 1+r.Intn(20)
		return nola.Exclude{Calendar: &nola.CalendarSpec{Minute: fmt.Sprintf("%d-59/%d", lo, step), DayOfMonth: "2-27"}},
			func(t time.Time) bool { return t.Minute() >= lo && (t.Minute()-lo)%step == 0 && in(t.Day(), 2, 27) }
	case 3:
		s := r.Intn(60)
		return nola.Exclude{Calendar: &nola.CalendarSpec{Second: fmt.Sprintf("%d-59", s), Month: "3,10"}},
			func(t time.Time) bool { return t.Second() >= s && (t.Month() == 3 || t.Month() == 10) }
	default:
		y, m, d := 1990+r.Intn(60), time.Month(1+r.Intn(12)), 1+r.Intn(28)
		from := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
		to := from.AddDate(0, 0, r.Intn(400))
		return nola.Exclude{Dates: nola.DateRange{From: nola.DateOf(from), To: nola.DateOf(to)}}, func(t time.Time) bool {
			return nola.DateOf(t).Compare(nola.DateOf(from)) >= 0 && nola.DateOf(t).Compare(nola.DateOf(to)) <= 0
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	bank := nola.Calendar{Name: "bank", Dates: []nola.DateRange{{From: nola.Date{Year: 2026, Month: 5, Day: 1}}}, Rules: []nola.HolidayRule{{Month: "1", DayOfMonth: "1"}, {Easter: nola.EasterWestern}}}
	specs := map[string]nola.Spec{
		"all kinds": {
			Cron:             []nola.Cron{{Expression: "H 9 2B,LW,L-3 * *", TimeZone: "Europe/Berlin"}, {Expression: "*/7 * * * mon#2"}},
			Calendar:         []nola.CalendarSpec{{Hour: "7", Year: "2024-2040/2"}},
			Interval:         []nola.Interval{{Every: time.Hour, Anchored: true}},
			CalendarInterval: []nola.CalendarInterval{{Every: 3, Unit: nola.UnitMonth, TimeZone: "America/New_York"}},
			At:               []time.Time{time.Unix(1<<31, 0)},
			Exclude:          []nola.Exclude{{HolidayCalendar: "bank"}, {Calendar: &nola.CalendarSpec{Hour: "2-3"}, TimeZone: "Asia/Tokyo"}, {Dates: nola.DateRange{From: nola.Date{Year: 2026, Month: 8, Day: 1}, To: nola.Date{Year: 2026, Month: 9, Day: 30}}}},
			HolidayCalendar:  "bank", TimeZone: "Australia/Lord_Howe", DSTGap: nola.GapShift, DSTOverlap: nola.OverlapFirst,
		},
	}
	for _, bb := range benchSpecs {
		specs[bb.name] = bb.spec
	}
	for name, spec := range specs {
		c := compile(t, spec, "id", scheduler.WithCalendars(bank))
		at := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
		if n := testing.AllocsPerRun(200, func() { at, _ = c.Next(at) }); n != 0 {
			t.Errorf("%s: Next costs %.1f allocations", name, n)
		}
	}
}

// TestReplanWithAnotherCalendar changes the days of a calendar alone: what waits
// follows that as it follows a change of the spec. Another comment is no change.
func TestReplanWithAnotherCalendar(t *testing.T) {
	now := time.Date(2026, 11, 10, 12, 0, 0, 0, time.UTC)
	on := func(day int) time.Time { return time.Date(2026, 11, day, 9, 0, 0, 0, time.UTC) }
	before := &nola.Schedule{
		ID: "daily", Created: on(1),
		Spec: nola.Spec{
			Cron:    []nola.Cron{{Expression: "0 9 * * *"}},
			Exclude: []nola.Exclude{{HolidayCalendar: "bank"}},
		},
		Calendars: []nola.Calendar{{Name: "bank", Version: 1, Dates: []nola.DateRange{{From: nola.Date{Year: 2026, Month: 11, Day: 11}}}, Rules: []nola.HolidayRule{{Month: "5", DayOfMonth: "1"}}}},
		Policy:    nola.Policy{Catchup: nola.Catchup{Mode: nola.CatchupAll, Spacing: time.Hour}},
	}
	for name, tt := range map[string]struct {
		change     func(*nola.Calendar)
		missed     int
		exceptions int
		next       time.Time
	}{
		"other days": {func(c *nola.Calendar) {
			c.Dates = []nola.DateRange{{From: nola.Date{Year: 2026, Month: 11, Day: 12}}}
		}, 2, 0, on(11)},
		"another comment": {func(c *nola.Calendar) { c.Comment, c.Rules[0].Comment = "closed", "work" }, 0, 1, on(13)},
	} {
		t.Run(name, func(t *testing.T) {
			old, _, err := scheduler.NewPlan(before)
			if err != nil {
				t.Fatal(err)
			}
			after := *before
			after.Calendars = slices.Clone(before.Calendars)
			after.Calendars[0].Version, after.Calendars[0].Rules = 2, slices.Clone(before.Calendars[0].Rules)
			tt.change(&after.Calendars[0])
			changed, _, err := scheduler.NewPlan(&after)
			if err != nil {
				t.Fatal(err)
			}
			pr := nola.Progress{
				Through: on(10), Counters: map[nola.Outcome]nola.Counter{}, LateReady: on(30),
				Late:       []nola.Span{{First: on(8), Last: on(9), Count: 2}},
				Exceptions: []nola.Exception{{Nominal: on(12)}},
			}
			d := changed.Replan(&after, &pr, before, old, now)
			missed := 0
			for _, rec := range d.Records {
				if rec.Outcome == nola.OutcomeMissedWindow {
					missed += rec.Count
				}
			}
			if missed != tt.missed || len(pr.Exceptions) != tt.exceptions {
				t.Errorf("%d missed and exceptions %v, want %d and %d", missed, pr.Exceptions, tt.missed, tt.exceptions)
			}
			if got := changed.Upcoming(&after, &pr, now, 1); len(got) != 1 || !got[0].Equal(tt.next) {
				t.Errorf("next is %v, want %v", got, tt.next)
			}
		})
	}
}
