package scheduler_test

import (
	"archive/zip"
	"flag"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

var (
	allZones = flag.Bool("allzones", os.Getenv("NOLA_SLOW") != "", "check every zone at every change of offset (a minute or two), not a sample; so does NOLA_SLOW=1")
	seedFlag = flag.Int64("seed", 0, "seed of the random tests; 0 chooses one")
)

// seeded gives a random source and prints what repeats its run.
func seeded(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed=%d", seed)
	return rand.New(rand.NewSource(seed))
}

// zoneNames lists the zones of the database that comes with Go.
func zoneNames(t *testing.T) []string {
	t.Helper()
	//nolint:staticcheck // SA1019: the toolchain that runs the test is the one whose zones it reads
	path := filepath.Join(runtime.GOROOT(), "lib", "time", "zoneinfo.zip")
	z, err := zip.OpenReader(path)
	if os.IsNotExist(err) {
		t.Skipf("no zone database at %s", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var out []string
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, "/") {
			out = append(out, f.Name)
		}
	}
	slices.Sort(out)
	return out
}

// brute lists the instants in (from, to] at which b is due in loc, looking at
// second with the time package alone. The seams it finds by comparing neighbouring
// offsets, 15 s apart (all offsets since 1975 are multiples of that).
func brute(b *bruteTime, loc *time.Location, gap nola.DSTGap, overlap nola.DSTOverlap, from, to time.Time) []time.Time {
	const tick = 15 * time.Second
	if overlap == nola.OverlapFirstUnlessInterval {
		overlap = nola.OverlapFirst
		if b.interval() {
			overlap = nola.OverlapBoth
		}
	}
	offset := func(u time.Time) time.Duration {
		_, o := u.In(loc).Zone()
		return time.Duration(o) * time.Second
	}
	naive := func(u time.Time, o time.Duration) time.Time { return u.Add(o).UTC() }
	type seam struct {
		at            time.Time
		before, after time.Duration
	}
	var seams []seam
	lo, hi := from.Add(-50*time.Hour).Truncate(tick), to.Add(50*time.Hour)
	for u, last := lo, offset(lo); u.Before(hi); u = u.Add(tick) {
		if o := offset(u); o != last {
			seams = append(seams, seam{u, last, o})
			last = o
		}
	}
	due := map[int64]bool{}
	for u := from.Truncate(tick); !u.After(to); u = u.Add(tick) {
		o := offset(u)
		if !b.matchesMinute(naive(u, o)) {
			continue
		}
		drop := false
		for i, s := range seams {
			inAfter := !u.Before(s.at) && (i+1 == len(seams) || u.Before(seams[i+1].at))
			inBefore := u.Before(s.at) && (i == 0 || !u.Before(seams[i-1].at))
			if s.after >= s.before {
				continue
			}
			n := naive(u, o)
			if overlap == nola.OverlapFirst && inAfter && n.Before(naive(s.at, s.before)) ||
				overlap == nola.OverlapLast && inBefore && !n.Before(naive(s.at, s.after)) {
				drop = true
			}
		}
		for s := range int(tick.Seconds()) {
			if at := u.Add(time.Duration(s) * time.Second); !drop && b.second.in[naive(at, o).Second()] {
				due[at.Unix()] = true
			}
		}
	}
	for _, s := range seams {
		for n := naive(s.at, s.before); n.Before(naive(s.at, s.after)); n = n.Add(time.Second) {
			if !b.second.in[n.Second()] || !b.matchesMinute(n) {
				continue
			}
			switch gap {
			case nola.GapFirstAfter:
				due[s.at.Unix()] = true
			case nola.GapShift:
				due[n.Add(-s.before).Unix()] = true
			}
		}
	}
	var out []time.Time
	for u := range due {
		if t := time.Unix(u, 0).UTC(); t.After(from) && !t.After(to) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// TestAgainstEnumerator compares the segment search with an enumerator that
// shares no code with it, around changes of offset in the zones of the world.
func TestAgainstEnumerator(t *testing.T) {
	r := seeded(t)
	names := zoneNames(t)
	if !*allZones {
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		names = append([]string{"Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Antarctica/Troll", "Africa/Cairo", "America/St_Johns"}, names[:24]...)
	}
	cases, full := 0, 0
	var zones scheduler.Zones
	for _, name := range names {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		var changes []time.Time
		for u := time.Date(1975, 1, 1, 0, 0, 0, 0, time.UTC); u.Year() < 2038; {
			_, end := u.In(loc).ZoneBounds()
			if end.IsZero() {
				break
			}
			changes = append(changes, end)
			u = end
		}
		if len(changes) == 0 {
			changes = append(changes, time.Date(2024, 3, 31, 1, 0, 0, 0, time.UTC))
		}
		if n := 2; !*allZones && len(changes) > n {
			r.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
			changes = changes[:n]
		}
		for _, at := range changes {
			b := randomTime(r, at.In(loc))
			gap, overlap := nola.DSTGap(r.Intn(3)), nola.DSTOverlap(r.Intn(4))
			c := b.compile(t, &zones, nola.Spec{TimeZone: name, DSTGap: gap, DSTOverlap: overlap})
			from := at.Add(-30*time.Hour - time.Duration(r.Intn(3600))*time.Second).UTC()
			to := at.Add(30 * time.Hour).UTC()
			want := brute(b, loc, gap, overlap, from, to)
			if c == nil {
				if len(want) > 0 {
					t.Fatalf("%+v in %s would never fire, it is said, but does at %s", b.cron, name, want[0])
				}
				continue
			}
			got := c.Between(from, to, len(want)+5)
			if !slices.EqualFunc(got, want, time.Time.Equal) {
				t.Fatalf("%+v in %s, gap %d, overlap %d, around %s\n got %v\nwant %v", b.cron, name, gap, overlap, at, got, want)
			}
			for range 20 { // the answer is the same from anywhere in a gap, forwards and backwards
				u := from.Add(time.Duration(r.Int63n(int64(to.Sub(from)))))
				i, _ := slices.BinarySearchFunc(want, u, func(w, u time.Time) int {
					if w.After(u) {
						return 1
					}
					return -1
				})
				if next, _ := c.Next(u); i < len(want) && !next.Equal(want[i]) {
					t.Fatalf("%+v in %s, gap %d, overlap %d: next after %s is %s, want %s", b.cron, name, gap, overlap, u, next, want[i])
				}
				if prev, _ := c.Prev(u.Add(1)); i > 0 && !prev.Equal(want[i-1]) {
					t.Fatalf("%+v in %s, gap %d, overlap %d: the last up to %s is %s, want %s", b.cron, name, gap, overlap, u, prev, want[i-1])
				}
			}
			if cases++; len(want) > 0 {
				full++
			}
		}
	}
	t.Logf("%d zones, %d changes of offset, times around %d of them", len(names), cases, full)
	if full < cases/4 {
		t.Errorf("there are times around %d changes of offset of %d, too few to show anything", full, cases)
	}
}

// TestDaysAgainstEnumerator compares the days of months with those of an enumerator
// that looks at every day of some years.
func TestDaysAgainstEnumerator(t *testing.T) {
	r := seeded(t)
	cases, years := 60, 4
	if *allZones {
		cases, years = 2_000, 12
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	full := 0
	var zones scheduler.Zones
	for range cases {
		loc := []*time.Location{time.UTC, berlin}[r.Intn(2)]
		// At noon, which no change of offset reaches.
		from := time.Date(1971+r.Intn(160), time.Month(1+r.Intn(12)), 1+r.Intn(28), 12, 0, 0, 0, loc)
		if r.Intn(20) == 0 {
			from = time.Date(9995-years, 1, 1, 12, 0, 0, 0, loc)
		}
		b := randomTime(r, from.AddDate(0, 0, r.Intn(400)))
		b.second, b.minute, b.hour = only(0), only(0), only(12)
		b.render()
		c := b.compile(t, &zones, nola.Spec{TimeZone: loc.String()})
		var want []time.Time
		to := from.AddDate(years, 0, 0)
		for at := from.AddDate(0, 0, 1); !at.After(to); at = at.AddDate(0, 0, 1) {
			if b.matchesDay(at) {
				want = append(want, at)
			}
		}
		if len(want) > 0 {
			full++
		}
		if c == nil {
			if len(want) > 0 {
				t.Fatalf("%+v would never fire, it is said, but does at %s", b.cron, want[0])
			}
			continue
		}
		if got := c.Between(from, to, len(want)+5); !slices.EqualFunc(got, want, time.Time.Equal) {
			i := 0
			for i < len(got) && i < len(want) && got[i].Equal(want[i]) {
				i++
			}
			t.Fatalf("%+v, holidays %v, from %s: %d times of %d agree, then\n got %v\nwant %v", b.cron, b.calendar.Dates, from, i, len(want), got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
		}
		for back, i := to.Add(1), len(want)-1; i >= 0; i-- {
			prev, _ := c.Prev(back)
			if back = prev; !prev.Equal(want[i]) {
				t.Fatalf("%+v, holidays %v: backwards comes %s, want %s", b.cron, b.calendar.Dates, prev, want[i])
			}
		}
	}
	t.Logf("%d expressions over %d years each, %d of them with times", cases, years, full)
	if full < cases/2 {
		t.Errorf("%d expressions of %d have times, too few to show anything", full, cases)
	}
}

// TestLastDayOfLeapYear covers the years that a zone's rule alone describes:
// there the time package ends the stretch of a leap year a day early.
func TestLastDayOfLeapYear(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Sydney", "Pacific/Chatham"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		c := compile(t, nola.Spec{Cron: []nola.Cron{{Expression: "30 */7 * * *"}}, TimeZone: zone}, "")
		from := time.Date(2040, 12, 29, 0, 0, 0, 0, loc)
		var want []time.Time
		for at := from; at.Before(from.AddDate(0, 0, 5)); at = at.Add(time.Minute) {
			if at.After(from) && at.Minute() == 30 && at.Hour()%7 == 0 {
				want = append(want, at)
			}
		}
		if got := c.Between(from, from.AddDate(0, 0, 5), 100); !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Errorf("%s\n got %v\nwant %v", zone, got, want)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"*/15 0,12 1-31/2 jan-dec mon#2", "TZ=Europe/Berlin", "CRON_TZ=", "@every 1h/5m", "@every 9999999999999999999w", "٠ 0 * * *", "1 2 3 4 5 6 7 8",
		"*/0 * * * *", "99999999999999999999 * * * *", "0 0 L-3W,LW,15W,L * 5L,fri#1 2024-2030/2", ",,,,,", "- - - - -", "H(1-5)/2 H H * H", "0 9 LB,2B,B * *", "0 0 1W * * # note", "L L L L L L L", "#", "@",
	} {
		f.Add(s, uint8(0))
		f.Add(s, uint8(6))
	}
	f.Fuzz(func(t *testing.T, text string, dialect uint8) {
		spec := nola.Spec{Cron: []nola.Cron{{Expression: text, Dialect: nola.CronDialect(dialect % 8)}}}
		c, _, err := scheduler.Compile(spec, "seed")
		scheduler.Describe(spec)
		if err != nil {
			if err.(*scheduler.SpecError).Render() == "" || err.Error() == "" {
				t.Fatalf("%q: a refusal without words", text)
			}
			return
		}
		at := time.Date(2024, 2, 28, 0, 0, 0, 0, time.UTC)
		for range 5 {
			next, ok := c.Next(at)
			if !ok {
				return
			}
			if !next.After(at) {
				t.Fatalf("%q: next after %s is %s", text, at, next)
			}
			at = next
		}
	})
}

func TestLongInputIsCheap(t *testing.T) {
	for _, text := range []string{strings.Repeat("1,", 480) + "1 * * * *", strings.Repeat("x,", 400) + "1 * * * *", strings.Repeat("*/", 1<<20), strings.Repeat(" ", 1<<20), strings.Repeat("1 ", 400)} {
		n := testing.AllocsPerRun(1, func() { _, _, _ = scheduler.Compile(nola.Spec{Cron: []nola.Cron{{Expression: text}}}, "") })
		if n > 2000 {
			t.Errorf("%.20q... of %d bytes costs %.0f allocations", text, len(text), n)
		}
	}
}
