package scheduler

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/nolaproject/nola"
)

// FaultsMax is how many faults one refusal reports at most.
const FaultsMax = 50

// Fault is one thing that is wrong with a spec.
type Fault struct {
	// Expression is the text that holds the fault, as the user wrote it; empty
	// where the fault is not in a text.
	Expression string
	// Field names what is wrong: a field of a cron expression such as "hour", or
	// a path into the spec such as "interval[0].every".
	Field string
	// Index is the position of the field in the expression, from 1; 0 if the
	// fault does not lie in one field.
	Index int
	// Start and End are the byte offsets of the offending text in Expression.
	Start, End int
	// Token is the offending text.
	Token string
	// Legal says what is legal there.
	Legal string
	// Suggestion is what the user probably meant; may be empty.
	Suggestion string
	// Message is the whole complaint in one sentence.
	Message string
}

// Render draws the fault for a terminal: the expression, a row of carets under
// the offending text, and the message.
func (f Fault) Render() string {
	var b strings.Builder
	if f.Expression != "" {
		start := min(max(f.Start, 0), len(f.Expression))
		end := min(max(f.End, start), len(f.Expression))
		b.WriteString("  ")
		b.WriteString(printable(f.Expression))
		b.WriteString("\n  ")
		b.WriteString(strings.Repeat(" ", utf8.RuneCountInString(f.Expression[:start])))
		b.WriteString(strings.Repeat("^", max(1, utf8.RuneCountInString(f.Expression[start:end]))))
		b.WriteByte('\n')
	}
	b.WriteString(f.Message)
	if f.Suggestion != "" {
		b.WriteString("; did you mean ")
		b.WriteString(f.Suggestion)
		b.WriteByte('?')
	}
	return b.String()
}

// printable keeps one column per rune: control characters become spaces.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// SpecError is the refusal of a spec, with all its faults. errors.As also finds
// the [nola.Error] in it: reason INVALID_SPEC, the same message, and in its
// metadata the first fault and the number of all.
type SpecError struct {
	// Faults are never empty, in the order of the spec.
	Faults []Fault
}

// Error is every fault's message, with the text it complains about.
func (e *SpecError) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteString("; ")
		}
		if f.Expression != "" && (i == 0 || e.Faults[i-1].Expression != f.Expression) {
			fmt.Fprintf(&b, "cron %q: ", clip(f.Expression))
		}
		b.WriteString(f.Message)
		if f.Suggestion != "" {
			fmt.Fprintf(&b, " (did you mean %s?)", f.Suggestion)
		}
	}
	return b.String()
}

// Unwrap is the error that clients see.
func (e *SpecError) Unwrap() error {
	f := e.Faults[0]
	meta := map[string]string{"field": f.Field, "faults": fmt.Sprint(len(e.Faults))}
	if f.Expression != "" {
		meta["expression"] = clip(f.Expression)
		meta["index"] = fmt.Sprint(f.Index)
		meta["start"] = fmt.Sprint(f.Start)
		meta["end"] = fmt.Sprint(f.End)
	}
	if f.Token != "" {
		meta["token"] = clip(f.Token)
	}
	if f.Legal != "" {
		meta["legal"] = f.Legal
	}
	if f.Suggestion != "" {
		meta["suggestion"] = f.Suggestion
	}
	return &nola.Error{Reason: nola.ReasonInvalidSpec, Message: e.Error(), Metadata: meta}
}

// Render draws every fault for a terminal.
func (e *SpecError) Render() string {
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.Render()
	}
	return strings.Join(parts, "\n")
}

// clip keeps messages short when the input is not.
func clip(s string) string {
	const shown = 120
	if len(s) <= shown {
		return s
	}
	cut := shown
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// WarningCode names a kind of warning, for programs.
type WarningCode string

// The warnings.
const (
	WarnBothDays     WarningCode = "BOTH_DAY_FIELDS" // day of month and day of week are both restricted
	WarnUnevenStep   WarningCode = "UNEVEN_STEP"     // a step does not divide its field
	WarnShortMonths  WarningCode = "SHORT_MONTHS"    // only days that some months lack
	WarnRare         WarningCode = "RARE"            // less than once in five years
	WarnNoMore       WarningCode = "NO_MORE"         // no nominal time is left
	WarnZoneIgnored  WarningCode = "ZONE_IGNORED"    // an interval under a time zone
	WarnGap          WarningCode = "DST_GAP"         // the next gap of the zone swallows or moves a time
	WarnOverlap      WarningCode = "DST_OVERLAP"     // the next repeated hour repeats a time
	WarnJitterCapped WarningCode = "JITTER_CAPPED"   // jitter is longer than the time to the next nominal time
	WarnEverySecond  WarningCode = "EVERY_SECOND"    // every second, where once a minute was probably meant
	WarnWholeSeconds WarningCode = "WHOLE_SECONDS"   // @every of a dialect that knows whole seconds only
	WarnUnseeded     WarningCode = "UNSEEDED"        // H without a schedule's id
	WarnMidnightOnly WarningCode = "MIDNIGHT_ONLY"   // an exclude of dialect temporal takes midnight, not the day
)

// Warning is something legal that surprises people.
type Warning struct {
	Code       WarningCode
	Expression string // empty if it concerns the whole spec
	Message    string
}
