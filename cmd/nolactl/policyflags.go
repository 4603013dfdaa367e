package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// policyFlags describe on a command line what becomes of times that cannot
// simply fire, and of firings that fail. A flag that was not given leaves its
// part as it is.
type policyFlags struct {
	catchup, spacing, overlap, retry               string
	bufferLimit, maxConcurrent, pauseAfterFailures uint32
}

// policyFlagNames are the flags that touch a schedule's policy.
var policyFlagNames = []string{"catchup", "catchup-spacing", "overlap", "buffer-limit", "max-concurrent", "pause-after-failures", "retry"}

func (p *policyFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&p.catchup, "catchup", "", "times that passed unattended: MODE[,WINDOW][,MAX], MODE being "+strings.Join(words(nolav1.CatchupMode(0)), ", "))
	fs.StringVar(&p.spacing, "catchup-spacing", "", "least distance between the starts of two late times, with --catchup all")
	fs.StringVar(&p.overlap, "overlap", "", "times that come while a firing runs: "+strings.Join(words(nolav1.OverlapPolicy(0)), ", "))
	fs.Uint32Var(&p.bufferLimit, "buffer-limit", 0, fmt.Sprintf("so many times may wait for an earlier firing to end (default %d)", nola.BufferLimitDefault))
	fs.Uint32Var(&p.maxConcurrent, "max-concurrent", 0, fmt.Sprintf("so many firings may run before --overlap decides (default 1, and %d with allow-all)", nola.RunningMax))
	fs.Uint32Var(&p.pauseAfterFailures, "pause-after-failures", 0, "pause when so many firings failed one after another (default never)")
	fs.StringVar(&p.retry, "retry", "", "try a firing that failed again: DEADLINE[,MIN..MAX][,ATTEMPTS], from MIN to MAX apart (default 1s..1m); '' for none")
	completeWords(cmd, "catchup", words(nolav1.CatchupMode(0)))
	completeWords(cmd, "overlap", words(nolav1.OverlapPolicy(0)))
}

// apply puts the flags that were given into policy.
func (p *policyFlags) apply(given *pflag.FlagSet, policy *nolav1.SchedulePolicy) (err error) {
	if given.Changed("overlap") {
		if policy.Overlap, err = enumArg[nolav1.OverlapPolicy]("overlap", p.overlap); err != nil {
			return err
		}
	}
	if given.Changed("buffer-limit") {
		policy.BufferLimit = p.bufferLimit
	}
	if given.Changed("max-concurrent") {
		policy.MaxConcurrent = p.maxConcurrent
	}
	if given.Changed("pause-after-failures") {
		policy.PauseAfterFailures = p.pauseAfterFailures
	}
	if given.Changed("catchup") {
		spacing := policy.GetCatchup().GetSpacing() // has a flag of its own
		if policy.Catchup, err = parseCatchup(p.catchup); err != nil {
			return err
		}
		policy.Catchup.Spacing = spacing
	}
	if given.Changed("catchup-spacing") {
		if policy.Catchup == nil {
			policy.Catchup = &nolav1.CatchupPolicy{}
		}
		if policy.Catchup.Spacing, err = durationArg("catchup-spacing", p.spacing); err != nil {
			return err
		}
	}
	if given.Changed("retry") {
		if policy.Retry, err = parseRetry(p.retry); err != nil {
			return err
		}
	}
	return nil
}

// parseCatchup reads MODE[,WINDOW][,MAX].
func parseCatchup(s string) (*nolav1.CatchupPolicy, error) {
	parts := strings.Split(s, ",")
	mode, err := enumArg[nolav1.CatchupMode]("catchup", parts[0])
	if err != nil {
		return nil, err
	}
	p := &nolav1.CatchupPolicy{Mode: mode}
	for _, part := range parts[1:] {
		part = strings.TrimSpace(part)
		if n, err := strconv.ParseUint(part, 10, 32); err == nil && p.Max == 0 {
			p.Max = uint32(n)
			continue
		}
		if p.Window != nil {
			return nil, usage("for example --catchup all,2h,100", "--catchup: %q is too much; want MODE[,WINDOW][,MAX]", part)
		}
		if p.Window, err = durationArg("catchup", part); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// parseRetry reads DEADLINE[,MIN..MAX][,ATTEMPTS]; an empty text is no policy.
func parseRetry(s string) (*nolav1.RetryPolicy, error) {
	if s == "" {
		return nil, nil
	}
	parts := strings.Split(s, ",")
	p := &nolav1.RetryPolicy{}
	var err error
	if p.Deadline, err = durationArg("retry", parts[0]); err == nil && p.Deadline == nil {
		err = usage("for example --retry 2h,5s..10m,20", "--retry: the deadline is missing; want DEADLINE[,MIN..MAX][,ATTEMPTS]")
	}
	if err != nil {
		return nil, err
	}
	for _, part := range parts[1:] {
		part = strings.TrimSpace(part)
		least, most, isRange := strings.Cut(part, "..")
		switch n, isNumber := strconv.ParseUint(part, 10, 32); {
		case isNumber == nil && n > 0 && p.MaxAttempts == 0:
			p.MaxAttempts = uint32(n)
		case isRange && p.BackoffMin == nil && p.BackoffMax == nil:
			if p.BackoffMin, err = durationArg("retry", least); err != nil {
				return nil, err
			}
			if p.BackoffMax, err = durationArg("retry", most); err != nil {
				return nil, err
			}
		default:
			return nil, usage("for example --retry 2h,5s..10m,20", "--retry: %q is neither MIN..MAX nor a number of attempts, or one too many", part)
		}
	}
	return p, nil
}

// policyFacts shows the policy that is in force.
func (d details) policyFacts(p *nolav1.SchedulePolicy) {
	d.fact("Overlap", enumText(p.GetOverlap(), nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP))
	running := 1
	if p.GetOverlap() == nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL {
		running = nola.RunningMax
	}
	d.fact("Running at once", countText(p.GetMaxConcurrent(), strconv.Itoa(running)))
	d.fact("Waiting at most", countText(p.GetBufferLimit(), strconv.Itoa(nola.BufferLimitDefault)))
	d.fact("Catch-up", catchupText(p.GetCatchup()))
	d.fact("Retry", retryText(p.GetRetry()))
	failures := countText(p.GetPauseAfterFailures(), "never")
	if p.GetPauseAfterFailures() > 0 {
		failures += " failures in a row"
	}
	d.fact("Pause after", failures)
}

// countText is a number, or the default that is in force where it is zero.
func countText(n uint32, byDefault string) string {
	if n == 0 {
		return byDefault + " (default)"
	}
	return fmt.Sprint(n)
}

func catchupText(p *nolav1.CatchupPolicy) string {
	window := exactly(nola.CatchupWindowDefault) + " (default)"
	if p.GetWindow() != nil {
		window = exactly(p.Window.AsDuration())
	}
	text := fmt.Sprintf("%s, window %s, at most %s", enumText(p.GetMode(), nolav1.CatchupMode_CATCHUP_MODE_LAST), window, countText(p.GetMax(), strconv.Itoa(nola.CatchupMaxDefault)))
	if spacing := p.GetSpacing().AsDuration(); spacing > 0 {
		text += ", " + exactly(spacing) + " apart"
	}
	return text
}

func retryText(p *nolav1.RetryPolicy) string {
	if p == nil {
		return "the node's own few attempts, none after an error of the operation (default)"
	}
	text := "until " + exactly(p.GetDeadline().AsDuration()) + " after the first attempt, " +
		durationText(p.GetBackoffMin(), nola.RetryBackoffMinDefault) + " to " + durationText(p.GetBackoffMax(), nola.RetryBackoffMaxDefault) + " apart"
	if p.GetMaxAttempts() > 0 {
		text += fmt.Sprintf(", at most %d attempts", p.MaxAttempts)
	}
	return text
}

// durationText is a duration, or the default that is in force where it is not
// set.
func durationText(d *durationpb.Duration, byDefault time.Duration) string {
	if d == nil {
		return exactly(byDefault) + " (default)"
	}
	return exactly(d.AsDuration())
}
