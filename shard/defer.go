package shard

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// Defer has the turn end without a reply.
func (h *host) Defer(timeout time.Duration) (nola.Token, error) {
	switch {
	case h.turn.Operation == nola.OperationStartup || h.turn.Operation == nola.OperationShutdown:
		return nola.Token{}, nola.Errorf(nola.ReasonInvalidArgument, "%s cannot be deferred; defer in the operation that somebody asked for", h.turn.Operation)
	case h.deferral != nil:
		return h.deferral.Token, nil
	case timeout < 0 || timeout > nola.DeferTimeoutMax:
		return nola.Token{}, nola.LimitError(nola.ReasonLimitExceeded, "defer_timeout", int64(nola.DeferTimeoutMax/time.Second), "the timeout of a deferred invocation must lie between 0 and %s, not at %s", nola.DeferTimeoutMax, timeout)
	}
	deadline := h.t.Now.Add(timeout)
	switch call := h.inv.Kind == nola.KindCall; {
	case call && !h.inv.Deadline.IsZero() && (timeout == 0 || h.inv.Deadline.Before(deadline)):
		deadline = h.inv.Deadline
	case timeout == 0:
		deadline = h.t.Now.Add(nola.DeferTimeoutDefault)
	}
	if err := h.countDeferred(); err != nil {
		return nola.Token{}, err
	}
	h.deferral = &nola.Deferral{Token: h.token(), Deadline: deadline}
	return h.deferral.Token, nil
}

// token is HMAC-SHA-256 of the cluster's secret over the actor and the
// invocation's identity, cut to 16 bytes: equal on every retry, and not to be
// guessed from any id. The text in front keeps it apart from random streams.
func (h *host) token() nola.Token {
	mac := hmac.New(sha256.New, h.r.m.info.Secret[:])
	id := h.inv.Identity()
	mac.Write([]byte("deferred\x00"))
	mac.Write(h.t.Act.Ref().AppendCanonical(nil))
	mac.Write(id[:])
	return nola.Token(mac.Sum(nil)[:16])
}

// countDeferred refuses one deferred invocation more than an actor may have.
func (h *host) countDeferred() error {
	n, known := h.t.Act.DeferredCount()
	if !known {
		rows, err := h.r.m.reader.DeferredAll(h.b.id, h.t.Act.Ref(), nola.DeferredMax)
		if err != nil {
			return errStore(err)
		}
		waits := make(map[nola.Token]bool, len(rows))
		for i := range rows {
			waits[rows[i].Token] = true
		}
		h.t.Act.OverlayDeferred(func(token nola.Token, w bool) { waits[token] = w })
		n = count(waits)
		h.t.DeferredCounted, h.t.DeferredCount = true, n
	}
	if n-len(h.completions) >= nola.DeferredMax {
		return nola.LimitError(nola.ReasonLimitExceeded, "deferred", nola.DeferredMax, "%s has %d deferred invocations, its limit; answer some first", h.t.Act.Ref(), n)
	}
	return nil
}

// count answers how many names are there.
func count[K comparable](names map[K]bool) (n int) {
	for _, there := range names {
		if there {
			n++
		}
	}
	return n
}

// Complete answers an invocation that an earlier turn deferred.
func (h *host) Complete(c nola.Completion) (bool, error) {
	switch {
	case h.deferral != nil && h.deferral.Token == c.Token:
		return false, nola.Errorf(nola.ReasonInvalidArgument, "this token is of the turn that runs: it can be answered once the turn has ended, from a later turn or through the API")
	case len(c.Payload) > nola.PayloadBytesMax:
		return false, nola.LimitError(nola.ReasonLimitExceeded, "payload_bytes", nola.PayloadBytesMax, "the answer has %d bytes, at most %d are allowed", len(c.Payload), nola.PayloadBytesMax)
	case c.Err != nil && len(c.Err.Message) > nola.CompletionErrorMax:
		return false, nola.LimitError(nola.ReasonLimitExceeded, "completion_error_bytes", nola.CompletionErrorMax, "the text of the error has %d bytes, at most %d are allowed", len(c.Err.Message), nola.CompletionErrorMax)
	}
	rec, found, err := h.deferred(c.Token)
	if err != nil || !found || !h.expires() && !h.t.Now.Before(rec.Deadline) {
		return false, err
	}
	if len(h.completions) >= nola.TurnCompletionsMax {
		return false, nola.LimitError(nola.ReasonLimitExceeded, "turn_completions", nola.TurnCompletionsMax, "the turn has answered %d deferred invocations, its limit", len(h.completions))
	}
	if err := h.spend(len(c.Payload)); err != nil {
		return false, err
	}
	if rec.Schedule != "" {
		op := core.PinSchedule(h.t, rec.ScheduleRef())
		if err := h.r.ask(h.b, op, &op.Ticket); err != nil {
			return false, err
		}
	}
	c.Payload = bytes.Clone(c.Payload)
	h.completions = append(h.completions, c)
	return true, nil
}

// deferred answers a deferred invocation as the turn sees it.
func (h *host) deferred(token nola.Token) (persistence.DeferredRecord, bool, error) {
	for i := range h.completions {
		if h.completions[i].Token == token {
			return persistence.DeferredRecord{}, false, nil
		}
	}
	if rec, found, known := h.t.Act.LookupDeferred(token); known {
		return rec, found, nil
	}
	if rec, read := h.t.DeferredReads[token]; read {
		return rec, true, nil
	}
	rec, found, err := h.r.m.reader.Deferred(h.b.id, h.t.Act.Ref(), token)
	if err != nil {
		return rec, false, errStore(err)
	}
	if found {
		if h.t.DeferredReads == nil {
			h.t.DeferredReads = make(map[nola.Token]persistence.DeferredRecord)
		}
		h.t.DeferredReads[token] = rec
	}
	return rec, found, nil
}

func (h *host) expires() bool { return h.t.Order != nil && h.t.Order.Expires() }
