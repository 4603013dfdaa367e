package main

import (
	"context"
	"fmt"
	"time"
)

// unit is what a figure counts; it says too whether more is better.
type unit string

const (
	perSecond unit = "/s"
	millis    unit = "ms"
	nanos     unit = "ns"
	mebibytes unit = "MiB"
	byteCount unit = "B"
)

func (u unit) moreIsBetter() bool { return u == perSecond }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// sample is what one row brought in one round.
type sample struct {
	Value   float64  `json:"value"`             // in the row's unit
	Latency *latency `json:"latency,omitempty"` // of the calls, or the lateness of firings
	Errors  int      `json:"errors"`
	Error   string   `json:"error,omitempty"` // one of them
	Note    string   `json:"note,omitempty"`
}

// latency is in milliseconds.
type latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

func latencyOf(h *histogram) *latency {
	return &latency{P50: ms(h.quantile(0.5)), P99: ms(h.quantile(0.99)), P999: ms(h.quantile(0.999)), Max: ms(h.max)}
}

// rateSample is the sample of a row in calls per second.
func rateSample(t *tally) sample {
	return withErrors(sample{Value: t.rate(), Latency: latencyOf(&t.hist)}, t)
}

// latencySample is the sample of a row whose value is its median latency.
func latencySample(t *tally) sample {
	return withErrors(sample{Value: ms(t.hist.quantile(0.5)), Latency: latencyOf(&t.hist)}, t)
}

func withErrors(s sample, t *tally) sample {
	s.Errors = t.errors
	if t.err != nil {
		s.Error = t.err.Error()
	}
	return s
}

// row is a line of the table.
type row struct {
	name    string
	unit    unit
	limit   string // what the value is shown as a share of; empty if of nothing
	targets []target
}

// target is a bound on something that a round has measured.
type target struct {
	text    string
	atLeast bool // or at most
	limits  []string
	// of returns what is bounded and its bound, false if the round lacks what is
	// needed for it, for example a row that was not asked for.
	of func(view) (actual, bound float64, ok bool)
}

func (t target) met(actual, bound float64) bool {
	if t.atLeast {
		return actual >= bound
	}
	return actual <= bound
}

// view is what a target sees of a round.
type view struct {
	own    sample
	bounds bounds
	rows   map[string]sample
}

func shareOfLimit(limit string, share float64) target {
	return target{
		text: fmt.Sprintf(">= %.2f x %s", share, short(limit)), atLeast: true, limits: []string{limit},
		of: func(v view) (float64, float64, bool) {
			l := v.bounds[limit]
			return v.own.Value / l, share, l > 0
		},
	}
}

func shareOfRow(name, as string, share float64) target {
	return target{
		text: fmt.Sprintf(">= %g x %s", share, as), atLeast: true,
		of: func(v view) (float64, float64, bool) {
			o, ok := v.rows[name]
			return v.own.Value / o.Value, share, ok && o.Value > 0
		},
	}
}

func notAboveRow(name, as string) target {
	return target{
		text: "p50 <= " + as,
		of: func(v view) (float64, float64, bool) {
			o, ok := v.rows[name]
			return v.own.Value, o.Value, ok
		},
	}
}

func p99OfRow(name, as string, times float64) target {
	return target{
		text: fmt.Sprintf("p99 <= %g x %s", times, as),
		of: func(v view) (float64, float64, bool) {
			o, ok := v.rows[name]
			return v.own.latency().P99, times * o.latency().P99, ok && v.own.Latency != nil && o.Latency != nil
		},
	}
}

func valueAtMost(bound float64, u unit) target {
	return target{
		text: fmt.Sprintf("<= %g %s", bound, u),
		of:   func(v view) (float64, float64, bool) { return v.own.Value, bound, true },
	}
}

func valueAtLeast(bound float64, u unit) target {
	return target{
		text: fmt.Sprintf(">= %g%s", bound, u), atLeast: true,
		of: func(v view) (float64, float64, bool) { return v.own.Value, bound, true },
	}
}

// p99WithinRow bounds the slowest by those of another row.
func p99WithinRow(name, as string, factor float64) target {
	return target{
		text: fmt.Sprintf("p99 <= %g x %s", factor, as),
		of: func(v view) (float64, float64, bool) {
			o, ok := v.rows[name]
			return v.own.latency().P99, factor * o.latency().P99, ok && v.own.Latency != nil && o.Latency != nil
		},
	}
}

func p50AtMost(bound float64) target {
	return target{
		text: fmt.Sprintf("p50 <= %g ms", bound),
		of: func(v view) (float64, float64, bool) {
			return v.own.latency().P50, bound, v.own.Latency != nil
		},
	}
}

func p99AtMost(bound float64) target {
	return target{
		text: fmt.Sprintf("p99 <= %g ms", bound),
		of: func(v view) (float64, float64, bool) {
			return v.own.latency().P99, bound, v.own.Latency != nil
		},
	}
}

// p50WithinLimits bounds the median by the sum of latency limits and an allowance.
func p50WithinLimits(allowance float64, limits ...string) target {
	text := "p50 <= "
	for _, l := range limits {
		text += short(l) + " + "
	}
	return target{
		text: text + fmt.Sprintf("%g ms", allowance), limits: limits,
		of: func(v view) (float64, float64, bool) {
			bound := allowance
			for _, l := range limits {
				if v.bounds[l] <= 0 {
					return 0, 0, false
				}
				bound += v.bounds[l]
			}
			return v.own.latency().P50, bound, v.own.Latency != nil
		},
	}
}

func (s sample) latency() latency {
	if s.Latency == nil {
		return latency{}
	}
	return *s.Latency
}

// short is the first word of a limit's name.
func short(limit string) string { return limit[:2] }

// experiment measures one row, or several that come of the same run.
type experiment struct {
	rows []row
	// run measures once. It returns an error if the rows cannot be measured at all;
	// calls that fail belong into the samples.
	run func(ctx context.Context, b *bench) (map[string]sample, error)
	// needs names what the caller must give, or is empty.
	needs func(b *bench) string
}

// block is a set of experiments that is measured between the same limits.
type block struct {
	name        string
	also        []string // limits to measure although no row is compared with them
	experiments []experiment
}

// limits are those that the rows of the block are compared with. Without any, echo
// and disk tell whether the machine was quiet.
func (b block) limits() []string {
	var names []string
	wanted := map[string]bool{}
	for _, l := range b.also {
		wanted[l] = true
	}
	for _, e := range b.experiments {
		for _, r := range e.rows {
			wanted[r.limit] = true
			for _, t := range r.targets {
				for _, l := range t.limits {
					wanted[l] = true
				}
			}
		}
	}
	for _, l := range limitNames {
		if wanted[l] {
			names = append(names, l)
		}
	}
	if len(names) == 0 {
		names = []string{echoMany, fsyncOne}
	}
	return names
}
