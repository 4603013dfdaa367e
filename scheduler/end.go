package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nolaproject/nola"
)

// End is how a firing ended.
type End struct {
	Nominal   time.Time
	Kind      nola.OccurrenceKind
	RequestID string // of a trigger, backfill or dead letter
	// NotStarted says that the operation could not be started at all.
	NotStarted bool
	OK         bool
	Reason     nola.Reason
	Error      string
	Result     []byte // what the operation answered
}

// Ended takes a firing out of pr.Running and returns its record: FIRED,
// FAILED_START, or TERMINATED if that is its reason. It is false, and nothing changes, if no such firing runs. pr.Due
// may now lie in the past: something waited for this end. A failure may pause
// s; it has changed if s.Paused has.
func (p *Plan) Ended(s *nola.Schedule, pr *nola.Progress, e End, now time.Time) (nola.Occurrence, bool) {
	i := findRunning(pr, e.Nominal, e.Kind, e.RequestID)
	if i < 0 {
		return nola.Occurrence{}, false
	}
	now = now.UTC().Round(0)
	r := pr.Running[i]
	pr.Running = slices.Delete(pr.Running, i, i+1)
	o := nola.Occurrence{
		Nominal: r.Nominal, Kind: r.Kind, Outcome: nola.OutcomeFired, OK: e.OK && !e.NotStarted, Error: e.Error, Reason: e.Reason,
		RequestID: r.RequestID, Started: r.Started, Ended: now, Attempts: r.Attempts, Last: r.Nominal, Count: 1,
	}
	switch {
	case e.Reason == nola.ReasonTerminated:
		o.Outcome = nola.OutcomeTerminated
	case e.NotStarted:
		o.Outcome = nola.OutcomeFailedStart
	}
	count(pr, o)
	if r.Kind == nola.OccurrenceBackfill {
		p.backfilled(pr, r.RequestID, o.OK, now)
	}
	if o.OK {
		pr.Failures = 0
		pr.Carry = nola.Carry{ResultBytes: len(e.Result), ResultNominal: r.Nominal}
		if len(e.Result) <= nola.CarryBytesMax {
			pr.Carry.Result = slices.Clone(e.Result)
		}
	} else if e.Reason != nola.ReasonCanceled && e.Reason != nola.ReasonTerminated {
		p.failed(s, pr, r, o)
	}
	pr.Due = p.due(s, pr, now)
	return o, true
}

// failed does what a failure for good brings about.
func (p *Plan) failed(s *nola.Schedule, pr *nola.Progress, r nola.Running, o nola.Occurrence) {
	text := o.Error
	if len(text) > nola.CarryErrorMax {
		text = strings.ToValidUTF8(text[:nola.CarryErrorMax], "")
	}
	c := &pr.Carry
	c.Failure, c.FailureBytes, c.FailureReason, c.FailureNominal = text, len(o.Error), o.Reason, r.Nominal
	if p.policy.Retry.Deadline > 0 {
		pr.LettersMade++
		pr.DeadLetters = append(pr.DeadLetters, nola.DeadLetter{
			Number: pr.LettersMade, Nominal: r.Nominal, Kind: r.Kind, RequestID: r.RequestID, Payload: r.Payload,
			Reason: o.Reason, Error: text, Attempts: r.Attempts, Started: r.Started, Failed: o.Ended,
		})
		if n := len(pr.DeadLetters) - nola.DeadLettersMax; n > 0 {
			pr.DeadLetters = slices.Delete(pr.DeadLetters, 0, n)
			pr.LettersLost += uint64(n)
		}
	}
	if r.Kind != nola.OccurrenceRegular && r.Kind != nola.OccurrenceTrigger {
		return
	}
	pr.Failures++
	if most := p.policy.PauseAfterFailures; most > 0 && pr.Failures >= most && !s.Paused {
		s.Paused, s.PausedUntil, s.PausedBy = true, time.Time{}, ""
		s.PauseReason = fmt.Sprintf("%d firings failed one after another, the last one with: %s", pr.Failures, text)
	}
}

func findRunning(pr *nola.Progress, nominal time.Time, kind nola.OccurrenceKind, requestID string) int {
	return slices.IndexFunc(pr.Running, func(r nola.Running) bool {
		return !Waiting(r) && r.Kind == kind && r.RequestID == requestID && r.Nominal.Equal(nominal)
	})
}

// Retries reports whether the policy says itself how often a firing is tried.
func (p *Plan) Retries() bool { return p.policy.Retry.Deadline > 0 }

// Retry puts a firing that failed off to another attempt, which it answers, with
// RetryAt set. It is false if none may follow: Ended is to be told then.
func (p *Plan) Retry(pr *nola.Progress, e End, now time.Time) (nola.Running, bool) {
	i := findRunning(pr, e.Nominal, e.Kind, e.RequestID)
	if i < 0 || !p.Retries() || pr.Running[i].Canceled {
		return nola.Running{}, false
	}
	r, policy := &pr.Running[i], p.policy.Retry
	pause := policy.BackoffMin
	for range r.Attempts - 1 {
		if pause = 2 * pause; pause >= policy.BackoffMax {
			pause = policy.BackoffMax
			break
		}
	}
	at := now.UTC().Round(0).Add(pause)
	if at.Sub(r.Started) > policy.Deadline || policy.AttemptsMax > 0 && r.Attempts >= policy.AttemptsMax {
		return nola.Running{}, false
	}
	r.RetryAt = at
	r.Attempts++
	return *r, true
}

// Postpone puts a firing that failed off to another attempt at at, without asking
// the policy.
func Postpone(pr *nola.Progress, r nola.Running, at time.Time) nola.Running {
	if i := findRunning(pr, r.Nominal, r.Kind, r.RequestID); i >= 0 {
		pr.Running[i].RetryAt = at
		pr.Running[i].Attempts++
		r = pr.Running[i]
	}
	return r
}

// Taken reports whether a firing is to be taken back: by a later one that takes
// its place, before its turn has begun, or with hard set even after.
func Taken(pr *nola.Progress, r nola.Running, hard bool) bool {
	i := findRunning(pr, r.Nominal, r.Kind, r.RequestID)
	return i >= 0 && pr.Running[i].Canceled && (!hard || pr.Running[i].Terminated)
}

// Runs reports whether a firing has not ended.
func Runs(pr *nola.Progress, r nola.Running) bool {
	return findRunning(pr, r.Nominal, r.Kind, r.RequestID) >= 0
}

// Attempting says that the attempt which a firing waited for begins.
func Attempting(pr *nola.Progress, r nola.Running) {
	if i := findRunning(pr, r.Nominal, r.Kind, r.RequestID); i >= 0 {
		pr.Running[i].RetryAt = time.Time{}
	}
}

// Carry is what the next firing learns of those before: the result of the newest
// that went well, and the error of a newer one that failed. The caller may keep
// it. With ALLOW_ALL firings do not follow each other, and nothing is carried.
func (p *Plan) Carry(pr *nola.Progress) nola.Carry {
	if p.policy.Overlap == nola.OverlapAllowAll {
		return nola.Carry{}
	}
	return pr.Carry // its bytes are replaced as a whole, never written to
}

// Redrive fires a dead letter again, under an identity of its own. It waits for
// what runs, as with BUFFER_ALL. A letter that was sent again already, and runs
// or waits, is answered with Decision.Replayed.
func (p *Plan) Redrive(s *nola.Schedule, pr *nola.Progress, number uint64, now time.Time) (Decision, error) {
	id := LetterRequest(number)
	for _, list := range [][]nola.Running{pr.Running, pr.Buffer} {
		for _, r := range list {
			if r.Kind == nola.OccurrenceRedrive && r.RequestID == id {
				return Decision{Replayed: true, Nominal: r.Nominal}, nil
			}
		}
	}
	i := slices.IndexFunc(pr.DeadLetters, func(l nola.DeadLetter) bool { return l.Number == number })
	if i < 0 {
		return Decision{}, nola.Errorf(nola.ReasonDeadLetterNotFound, "schedule %q has no dead letter %d; the newest %d are kept until they are sent again", s.ID, number, nola.DeadLettersMax)
	}
	if len(pr.Buffer) >= p.policy.BufferLimit {
		return Decision{}, nola.LimitError(nola.ReasonLimitExceeded, "buffer_limit", int64(p.policy.BufferLimit), "schedule %q has %d occurrences waiting, no more are allowed; try again when some have started", s.ID, len(pr.Buffer))
	}
	l := pr.DeadLetters[i]
	pr.DeadLetters = slices.Delete(pr.DeadLetters, i, i+1)
	st := p.step(s, pr, now)
	st.arrive(nola.Running{Nominal: l.Nominal, Kind: nola.OccurrenceRedrive, RequestID: id, Payload: l.Payload, Overlap: nola.OverlapBufferAll}, st.now)
	d := st.end()
	d.Nominal = l.Nominal
	return d, nil
}

// LetterRequest is the request id of the occurrence that sends a dead letter
// again.
func LetterRequest(number uint64) string { return fmt.Sprintf("letter-%d", number) }
