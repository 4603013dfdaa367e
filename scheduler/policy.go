package scheduler

import (
	"fmt"
	"time"

	"github.com/nolaproject/nola"
)

const overlapNames = "SKIP, BUFFER_ONE, BUFFER_ALL, CANCEL_OTHER, TERMINATE_OTHER and ALLOW_ALL"

// policy finds what is wrong with a policy.
func (b *builder) policy(p nola.Policy) {
	if p.Overlap > nola.OverlapAllowAll {
		b.fault("policy.overlap", fmt.Sprint(uint8(p.Overlap)), overlapNames, "policy.overlap %d is unknown; legal are %s", p.Overlap, overlapNames)
	}
	within := func(field string, got, most int) {
		if got < 0 || got > most {
			b.fault(field, fmt.Sprint(got), fmt.Sprintf("0-%d", most), "%s is %d, legal is 1 to %d, or 0 for the default", field, got, most)
		}
	}
	within("policy.buffer_limit", p.BufferLimit, nola.BufferLimitMax)
	within("policy.max_concurrent", p.MaxConcurrent, nola.RunningMax)
	within("policy.pause_after_failures", p.PauseAfterFailures, nola.FailuresMax)
	b.catchup(p.Catchup)
	b.retry(p.Retry)
}

func (b *builder) catchup(c nola.Catchup) {
	if c.Mode > nola.CatchupNone {
		b.fault("policy.catchup.mode", fmt.Sprint(uint8(c.Mode)), "ALL, LAST, FIRST or NONE", "policy.catchup.mode %d is unknown; legal are ALL, LAST, FIRST and NONE", c.Mode)
	}
	if c.Window != 0 && c.Window < nola.CatchupWindowMin {
		b.fault("policy.catchup.window", c.Window.String(), ">= "+nola.CatchupWindowMin.String(), "policy.catchup.window is %s, at least %s is needed", c.Window, nola.CatchupWindowMin)
	}
	if c.Max < 0 || c.Max > CatchupMaxLimit {
		b.fault("policy.catchup.max", fmt.Sprint(c.Max), fmt.Sprintf("1-%d", CatchupMaxLimit), "policy.catchup.max is %d, legal is 1 to %d", c.Max, CatchupMaxLimit)
	}
	b.duration("policy.catchup.spacing", c.Spacing, 0, nola.CatchupSpacingMax)
}

func (b *builder) retry(r nola.Retry) {
	b.duration("policy.retry.deadline", r.Deadline, 0, nola.RetryDeadlineMax)
	b.duration("policy.retry.backoff_min", r.BackoffMin, nola.RetryBackoffMin, nola.RetryDeadlineMax)
	b.duration("policy.retry.backoff_max", r.BackoffMax, nola.RetryBackoffMin, nola.RetryDeadlineMax)
	if r.AttemptsMax < 0 || r.AttemptsMax > nola.RetryAttemptsMax {
		b.fault("policy.retry.max_attempts", fmt.Sprint(r.AttemptsMax), fmt.Sprintf("0-%d", nola.RetryAttemptsMax), "policy.retry.max_attempts is %d, legal is 1 to %d, or 0 for no bound but the deadline", r.AttemptsMax, nola.RetryAttemptsMax)
	}
	if r != (nola.Retry{}) && r.Deadline == 0 {
		b.fault("policy.retry.deadline", "0s", "> 0s", "policy.retry has no deadline; say how long a failed firing is tried again")
	}
	if least := retryOf(r).BackoffMin; r.BackoffMax != 0 && r.BackoffMax < least {
		b.fault("policy.retry.backoff_max", r.BackoffMax.String(), ">= "+least.String(), "policy.retry.backoff_max is %s, less than backoff_min, %s", r.BackoffMax, least)
	}
}

// duration wants d to be zero, or to lie between least and most.
func (b *builder) duration(field string, d, least, most time.Duration) {
	if d != 0 && (d < least || d < 0 || d > most) {
		b.fault(field, d.String(), fmt.Sprintf("%s-%s", least, most), "%s is %s, legal is %s to %s", field, d, least, most)
	}
}

func withDefaults(p nola.Policy) nola.Policy {
	if p.Overlap == 0 {
		p.Overlap = nola.OverlapSkip
	}
	if p.BufferLimit == 0 {
		p.BufferLimit = nola.BufferLimitDefault
	}
	if p.Catchup.Mode == 0 {
		p.Catchup.Mode = nola.CatchupLast
	}
	if p.Catchup.Window == 0 {
		p.Catchup.Window = nola.CatchupWindowDefault
	}
	if p.Catchup.Max == 0 {
		p.Catchup.Max = nola.CatchupMaxDefault
	}
	p.Retry = retryOf(p.Retry)
	return p
}

func retryOf(r nola.Retry) nola.Retry {
	if r.BackoffMin == 0 {
		r.BackoffMin = nola.RetryBackoffMinDefault
	}
	if r.BackoffMax == 0 {
		r.BackoffMax = max(nola.RetryBackoffMaxDefault, r.BackoffMin)
	}
	return r
}
