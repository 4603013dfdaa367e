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
