package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Times are shown with the offset of their zone, in a form that parseTime reads.
const (
	clockLayout = "2006-01-02 15:04:05"
	zoneLayout  = "Z07:00"
)

// when is a time in the local zone, and how far off it is.
func (c *cli) when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return c.clock(t.AsTime()) + " (" + c.relative(t.AsTime()) + ")"
}

// clock is a time in the local zone, to the millisecond where that says more.
func (c *cli) clock(t time.Time) string {
	t = t.In(c.local)
	if t.Nanosecond() == 0 {
		return t.Format(clockLayout + zoneLayout)
	}
	return t.Format(clockLayout + ".000" + zoneLayout)
}

// relative is how far off a time is: "in 3s", "2h ago".
func (c *cli) relative(t time.Time) string {
	d := t.Sub(c.present())
	switch {
	case d >= time.Second/2:
		return "in " + roughly(d)
	case d <= -time.Second/2:
		return roughly(-d) + " ago"
	default:
		return "now"
	}
}

// roughly is a duration to about two digits.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	unit := func(of time.Duration, name string) string {
		return strconv.FormatInt(int64((d+of/2)/of), 10) + name
	}
	switch {
	case d < 90*time.Second:
		return unit(time.Second, "s")
	case d < 90*time.Minute:
		return unit(time.Minute, "m")
	case d < 36*time.Hour:
		return unit(time.Hour, "h")
	case d < 730*day:
		return unit(day, "d")
	default:
		return unit(365*day, "y")
	}
}

// exactly is a duration without needless zeros: "1h30m", "365d".
func exactly(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// took is a measured duration to three digits.
func took(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return exactly(d.Round(time.Second))
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

// timeHelp says which times parseTime reads.
const timeHelp = "2026-12-24T18:00:00+01:00, 2026-12-24 18:00, 2026-12-24, now, +90m or -24h"

// parseTime reads a point in time. One without an offset is on the clock of
// zone, one that begins with + or - counts from now.
func (c *cli) parseTime(s string, zone *time.Location) (time.Time, error) {
	s = strings.TrimSpace(s)
	if s == "now" {
		return c.present(), nil
	}
	if rest, ok := strings.CutPrefix(s, "+"); ok {
		d, err := parseDuration(rest)
		if err != nil {
			return time.Time{}, err
		}
		return c.present().Add(d), nil
	}
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		d, err := parseDuration(rest)
		if err != nil {
			return time.Time{}, err
		}
		return c.present().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, clockLayout + zoneLayout} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", clockLayout, "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write it like %s", s, timeHelp)
}

// timeArg is parseTime for the value of a flag; an empty value is no time.
func (c *cli) timeArg(flag, s string, zone *time.Location) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	t, err := c.parseTime(s, zone)
	if err != nil {
		return nil, usage("", "--%s: %s", flag, err)
	}
	return timestamppb.New(t), nil
}

// parseDuration reads what Go reads, and whole days and weeks before it: 90s,
// 1h30m, 2d12h, 1w.
func parseDuration(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	bad := fmt.Errorf("%q is no duration; write it like 90s, 1h30m, 2d12h or 1w", s)
	rest := strings.TrimSpace(s)
	var total time.Duration
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		count, behind, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(count, 10, 16)
		if err != nil {
			return 0, bad
		}
		total += time.Duration(n) * unit.of
		if total < 0 {
			return 0, bad
		}
		if rest = behind; rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || total > 0 && (d < 0 || total+d < 0) {
		return 0, bad
	}
	return total + d, nil
}

// durationArg is parseDuration for the value of a flag; an empty value is none.
func durationArg(flag, s string) (*durationpb.Duration, error) {
	if s == "" {
		return nil, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return nil, usage("", "--%s: %s", flag, err)
	}
	return durationpb.New(d), nil
}

// durationFlag is a flag that parseDuration reads.
type durationFlag struct{ d *time.Duration }

// String is the value that was set, empty for none.
func (f durationFlag) String() string {
	if f.d == nil || *f.d == 0 {
		return ""
	}
	return exactly(*f.d)
}

// Set reads the value.
func (f durationFlag) Set(s string) (err error) {
	*f.d, err = parseDuration(s)
	return err
}

// Type names the kind of value in help.
func (f durationFlag) Type() string { return "DURATION" }
