package scheduler_test

import (
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

var benchSpecs = []struct {
	name string
	spec nola.Spec
}{
	{"every-minute", nola.Spec{Cron: []nola.Cron{{Expression: "* * * * *"}}}},
	{"nightly-utc", nola.Spec{Cron: []nola.Cron{{Expression: "0 3 * * *"}}}},
	{"nightly-berlin", nola.Spec{Cron: []nola.Cron{{Expression: "0 3 * * *"}}, TimeZone: "Europe/Berlin"}},
	{"weekday-newyork", nola.Spec{Cron: []nola.Cron{{Expression: "*/15 9-17 * * mon-fri"}}, TimeZone: "America/New_York"}},
	{"last-friday", nola.Spec{Cron: []nola.Cron{{Expression: "0 0 18 * * 5L *", Dialect: nola.DialectFull}}, TimeZone: "Europe/Berlin"}},
	{"leap-day-berlin", nola.Spec{Cron: []nola.Cron{{Expression: "0 0 29 2 *"}}, TimeZone: "Europe/Berlin"}},
	{"interval", nola.Spec{Interval: []nola.Interval{{Every: 5 * time.Minute, Phase: time.Second}}}},
}

func BenchmarkNext(b *testing.B) {
	from := time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)
	for _, bb := range benchSpecs {
		b.Run(bb.name, func(b *testing.B) {
			c, _, err := scheduler.Compile(bb.spec, "")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			at := from
			for b.Loop() {
				next, ok := c.Next(at)
				if at = next; !ok || at.Year() > 2027 {
					at = from
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, bb := range benchSpecs {
		b.Run(bb.name, func(b *testing.B) {
			var zones scheduler.Zones
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := zones.Compile(bb.spec, "id"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPrev(b *testing.B) {
	at := time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)
	for _, bb := range benchSpecs {
		b.Run(bb.name, func(b *testing.B) {
			c, _, err := scheduler.Compile(bb.spec, "")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := c.Prev(at); !ok {
					b.Fatal("no time comes before")
				}
			}
		})
	}
}

func BenchmarkDescribe(b *testing.B) {
	for _, bb := range benchSpecs {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if scheduler.Describe(bb.spec, scheduler.Seeded("id")) == "" {
					b.Fatal("no words")
				}
			}
		})
	}
}

// BenchmarkFiring decides one nominal time and the end of its firing.
func BenchmarkFiring(b *testing.B) {
	sd := &nola.Schedule{ID: "id", Spec: nola.Spec{Interval: []nola.Interval{{Every: time.Second}}}}
	p, _, err := scheduler.NewPlan(sd)
	if err != nil {
		b.Fatal(err)
	}
	pr := p.Start(sd, time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC))
	b.ReportAllocs()
	for b.Loop() {
		now := pr.Due
		for _, r := range p.Advance(sd, &pr, now).Fire {
			p.Ended(sd, &pr, scheduler.End{Nominal: r.Nominal, Kind: r.Kind, OK: true}, now)
		}
	}
}
