package scheduler_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/scheduler"
)

// hostileDialects are the dialects, with the fields of their longest form.
var hostileDialects = map[nola.CronDialect]string{
	nola.DialectUnix:     "minute hour day month weekday",
	nola.DialectSeconds:  "second minute hour day month weekday",
	nola.DialectTemporal: "minute hour day month weekday year",
	nola.DialectQuartz:   "second minute hour day month weekday year",
	nola.DialectCroniter: "minute hour day month weekday second year",
	nola.DialectFull:     "second minute hour day month weekday year",
	nola.DialectAuto:     "second minute hour day month weekday year",
}

// hostileText is an expression of the dialect with a field set.
func hostileText(d nola.CronDialect, field, text string) string {
	var parts []string
	for _, name := range strings.Fields(hostileDialects[d]) {
		switch {
		case name == field:
			parts = append(parts, text)
		case d == nola.DialectQuartz && (name == "weekday" && field != "weekday" || name == "day" && field == "weekday"):
			parts = append(parts, "?")
		case d == nola.DialectTemporal && name == "year":
			parts = append(parts, "2000-2100")
		case name == "second":
			parts = append(parts, "0")
		default:
			parts = append(parts, "*")
		}
	}
	return strings.Join(parts, " ")
}

// TestHostileExpressionsAreRefused asks for what is no expression, in all dialects:
// each is refused with a fault that names the field and points at the text.
func TestHostileExpressionsAreRefused(t *testing.T) {
	const huge = "99999999999999999999"
	type refusal struct{ text, field, token, want string }
	for d, names := range hostileDialects {
		cases := []refusal{
			{"", "expression", "", "empty"},
			{"TZ=Europe/Berlin", "expression", "TZ=Europe/Berlin", "empty"},
			{"CRON_TZ=Europe/Berlin", "expression", "CRON_TZ=Europe/Berlin", "empty"},
			{"  TZ=Europe/Berlin # at noon", "expression", "  TZ=Europe/Berlin # at noon", "empty"},
			{"TZ= " + hostileText(d, "", ""), "expression", "TZ=", "the time zone behind TZ= is empty"},
			{"TZ=Europe/Berlin\u00a0" + hostileText(d, "", ""), "", "", ""}, // no space that parts words here
			{huge, "expression", huge, "1 field"},
			{"@every " + huge + "h", "expression", huge + "h", "no duration"},
			{"@every 1h/" + huge + "h", "expression", huge + "h", "no duration"},
			{"@every ١h", "expression", "١h", "no duration"},
			{"@" + huge, "expression", "@" + huge, "no macro"},
		}
		for _, field := range strings.Fields(names) {
			name := map[string]string{"day": "day of month", "weekday": "day of week"}[field]
			if name == "" {
				name = field
			}
			at := func(item, token, want string) {
				cases = append(cases, refusal{hostileText(d, field, item), name, token, want})
			}
			low := "1"
			if field == "year" {
				low = "2000"
			}
			at(huge, huge, "out of range")
			at(low+","+huge, huge, "out of range")
			at(low+"-"+huge, huge, "out of range")
			at(huge+"-"+low, huge, "out of range")
			at("*/"+huge, huge, "step")
			at("*/0", "0", "step")
			at("-1", "", "missing")
			at("H(1-"+huge+")", "", "")
			at("H/"+huge, huge, "step")
			// Digits of other scripts are none: Arabic-Indic, Devanagari, full width.
			for _, digit := range []string{"٠", "١", "१", "１"} {
				at(digit, digit, "is no "+name)
				at(low+"-"+digit, digit, "is no "+name)
				at("*/"+digit, digit, "step")
			}
			switch field {
			case "day":
				at("L-"+huge, "L-"+huge, "0 to 30")
				at(huge+"W", huge+"W", "1 to 31")
				at("L-"+huge+"B", "L-"+huge+"B", "")
				at("١W", "١W", "1 to 31")
			case "weekday":
				at("1#"+huge, huge, "1 to 5")
				at("1#١", "١", "1 to 5")
				at(huge+"#1", huge, "out of range")
				at(huge+"L", huge, "out of range")
			}
		}
		for _, c := range cases {
			_, _, err := scheduler.Compile(nola.Spec{Cron: []nola.Cron{{Expression: c.text, Dialect: d}}}, "seed")
			var e *scheduler.SpecError
			var public *nola.Error
			if !errors.As(err, &e) || !errors.As(err, &public) || public.Reason != nola.ReasonInvalidSpec {
				t.Errorf("dialect %d: %q: error %v, want %s", d, c.text, err, nola.ReasonInvalidSpec)
				continue
			}
			f := e.Faults[0]
			if c.field != "" && f.Field != c.field || c.token != "" && f.Token != c.token || !strings.Contains(f.Message, c.want) {
				t.Errorf("dialect %d: %q: fault %+v, want one of %q at %q that says %q", d, c.text, f, c.field, c.token, c.want)
			}
			if f.Start < 0 || f.End < f.Start || f.End > len(c.text) || c.text[f.Start:f.End] != f.Token {
				t.Errorf("dialect %d: %q: the fault is said to lie at %d to %d, where no %q stands", d, c.text, f.Start, f.End, f.Token)
			}
		}
	}
}

// TestLongExpressionsCostInProportion reads expressions of all dialects at a quarter of
// their greatest length and at all of it. Four times the text may take about four
// times as long; where time went with the square of the length it would be sixteen. The
// shortest of many readings is compared, and there are more of these until the two
// agree.
func TestLongExpressionsCostInProportion(t *testing.T) {
	const (
		most  = 8
		short = scheduler.ExpressionBytesMax / 4
	)
	items := []string{"1,", "1-5,", "*/7,", "H(1-5)/2,", "x,", ",", "1-", "/", "9999999,", "*", "#", "٠,", "JAN,"}
	special := map[string][]string{
		"day":     {"L,", "L-3,", "15W,", "L-3W,", "2B,", "LB,"},
		"weekday": {"1#2,", "5L,", "MON,", "SUN-FRI,", "1#"},
		"year":    {"2020,", "2020-2030/2,", "2000/3,"},
	}
	type text func(bytes int) string
	fill := func(piece string, n int) string { return strings.Repeat(piece, n/len(piece)+1)[:max(n, 0)] }
	worst, worstText := 0.0, ""
	for d, names := range hostileDialects {
		texts := []text{
			func(n int) string { return fill(" ", n) },
			func(n int) string { return fill("1 ", n) },
			func(n int) string { return "TZ=" + fill("Europe/", n-3) },
			func(n int) string { return "@every " + fill("1h", n-7) },
			func(n int) string { return "@" + fill("yearly", n-1) },
			func(n int) string { return hostileText(d, "", "") + " # " + fill("note # ", n-40) },
		}
		for _, field := range strings.Fields(names) {
			for _, item := range slices.Concat(items, special[field]) {
				texts = append(texts, func(n int) string {
					return hostileText(d, field, strings.TrimRight(fill(item, n-len(hostileText(d, field, ""))-1), "-,/")+"1")
				})
			}
		}
		for _, text := range texts {
			specs := [2]nola.Spec{}
			for i, n := range []int{short, scheduler.ExpressionBytesMax} {
				specs[i] = nola.Spec{Cron: []nola.Cron{{Expression: text(n), Dialect: d}}}
			}
			least := [2]time.Duration{math.MaxInt64, math.MaxInt64}
			ratio := math.Inf(1)
			for tries := 0; tries < 5 || ratio > most && tries < 500; tries++ {
				for i, spec := range specs {
					began := time.Now()
					_, _, _ = scheduler.Compile(spec, "seed")
					least[i] = min(least[i], max(time.Since(began), 1))
				}
				ratio = float64(least[1]) / float64(least[0])
			}
			if ratio > worst {
				worst, worstText = ratio, fmt.Sprintf("dialect %d, %.60q", d, specs[0].Cron[0].Expression)
			}
			if ratio > most {
				t.Errorf("dialect %d: %.80q... takes %s with %d bytes, %s with %d: %.1f times as long", d, specs[0].Cron[0].Expression, least[0], short, least[1], scheduler.ExpressionBytesMax, ratio)
			}
		}
	}
	t.Logf("at most %.1f times as long: %s", worst, worstText)
}
