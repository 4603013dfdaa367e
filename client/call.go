package client

import (
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// How calls are retried: after a random wait of at most backoffMin, then of twice
// as much each time, up to backoffMax; never before the server said.
const (
	RetriesDefault = 16
	backoffMin     = 20 * time.Millisecond
	backoffMax     = 2 * time.Second
)

// The retry budget bounds the load that retries add, over all calls of a client:
// each takes one token, each call that went well gives some back, and so does
// time. Retries of calls that reached nobody are free.
const (
	budgetMax       = 2_000
	budgetPerCall   = 0.2
	budgetPerSecond = 50
)

// answerMargin is the part of a call's time, and the most of it, that is left for
// the server's answer to arrive when it stops because of the deadline.
const (
	answerMarginPart = 10
	answerMarginMax  = 250 * time.Millisecond
)

// CallOption changes one call.
type CallOption func(*call)

// WithIdempotencyKey makes key recognise the call, for 24 hours, in place of a
// session key: give the same key again to retry a call after a restart.
func WithIdempotencyKey(key string) CallOption { return func(c *call) { c.key.User = key } }

// WithDelay has a cast delivered so much later. It does not concern calls.
func WithDelay(d time.Duration) CallOption { return func(c *call) { c.delay = d } }

// WithDeliverAt has a cast delivered at that time, or at once if it has passed.
// It does not concern calls.
func WithDeliverAt(t time.Time) CallOption { return func(c *call) { c.at = t } }

// call is one Invoke or Cast with its retries.
type call struct {
	key   nola.Key
	delay time.Duration
	at    time.Time
}

// Invoke runs one operation of an actor and answers its reply once its effects
// are durable. It retries, under one key, while that may help and ctx lasts.
func (c *Client) Invoke(ctx context.Context, ref nola.ActorRef, operation string, payload []byte, opts ...CallOption) (nola.Result, error) {
	var result nola.Result
	err := c.do(ctx, ref, opts, func(ctx context.Context, call *call, session *nolav1.SessionKey) error {
		req := &nolav1.InvokeRequest{
			Actor: refMessage(ref), Operation: operation, Payload: payload, IdempotencyKey: call.key.User, Session: session,
		}
		var err error
		if req.Timeout, err = timeoutOf(ctx); err != nil {
			return err
		}
		res, err := c.Actors.Invoke(ctx, connect.NewRequest(req))
		if err != nil {
			return err
		}
		result = nola.Result{Payload: res.Msg.GetPayload(), Replayed: res.Msg.GetReplayed()}
		copy(result.ID[:], res.Msg.GetInvocationId())
		return nil
	})
	return result, err
}

// timeoutOf is how long the server may take for a call, nil if ctx does not end.
func timeoutOf(ctx context.Context) (*durationpb.Duration, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, nil
	}
	left := time.Until(deadline)
	left -= min(left/answerMarginPart, answerMarginMax)
	if left <= 0 {
		return nil, context.DeadlineExceeded
	}
	return durationpb.New(min(left, nola.CallTimeoutMax)), nil
}

// Create makes an actor, which keeps init for its guest, and answers once that is
// durable. ALREADY_EXISTS says that there is one which this call has not made. The
// result has no payload. Create retries as Invoke does.
func (c *Client) Create(ctx context.Context, ref nola.ActorRef, init []byte, opts ...CallOption) (nola.Result, error) {
	var result nola.Result
	err := c.do(ctx, ref, opts, func(ctx context.Context, call *call, session *nolav1.SessionKey) error {
		req := &nolav1.CreateActorRequest{Actor: refMessage(ref), InitPayload: init, IdempotencyKey: call.key.User, Session: session}
		var err error
		if req.Timeout, err = timeoutOf(ctx); err != nil {
			return err
		}
		res, err := c.Actors.CreateActor(ctx, connect.NewRequest(req))
		if err != nil {
			return err
		}
		result = nola.Result{Replayed: res.Msg.GetReplayed()}
		copy(result.ID[:], res.Msg.GetInvocationId())
		return nil
	})
	return result, err
}

// Cast puts one invocation into the actor's durable backlog and answers its id
// once that is durable. The result has no payload; it is replayed if an earlier
// call under the same key had put it there. Cast retries as Invoke does.
func (c *Client) Cast(ctx context.Context, ref nola.ActorRef, operation string, payload []byte, opts ...CallOption) (nola.Result, error) {
	var result nola.Result
	err := c.do(ctx, ref, opts, func(ctx context.Context, call *call, session *nolav1.SessionKey) error {
		req := &nolav1.CastRequest{
			Actor: refMessage(ref), Operation: operation, Payload: payload, IdempotencyKey: call.key.User, Session: session,
		}
		switch {
		case !call.at.IsZero():
			req.Delivery = &nolav1.CastRequest_DeliverAt{DeliverAt: timestamppb.New(call.at)}
		case call.delay > 0:
			req.Delivery = &nolav1.CastRequest_Delay{Delay: durationpb.New(call.delay)}
		}
		res, err := c.Actors.Cast(ctx, connect.NewRequest(req))
		if err != nil {
			return err
		}
		result = nola.Result{Replayed: res.Msg.GetReplayed()}
		copy(result.ID[:], res.Msg.GetInvocationId())
		return nil
	})
	return result, err
}

// do makes a key and tries the call until it is over. What it answers is, or
// wraps, a *nola.Error.
func (c *Client) do(ctx context.Context, ref nola.ActorRef, opts []CallOption, try func(context.Context, *call, *nolav1.SessionKey) error) (err error) {
	if ref.Namespace == "" {
		ref.Namespace = nola.DefaultNamespace
	}
	if err := ref.Validate(); err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
	}
	call := &call{}
	for _, o := range opts {
		o(call)
	}
	if err := call.key.Validate(); err != nil {
		return err
	}
	var s *session
	if !call.key.IsUser() {
		s, call.key, err = c.sessions.begin(ctx, ref)
		if err != nil {
			return asFailure(err)
		}
		defer func() { c.sessions.end(s, call.key.Seq, !hasReason(err, nola.ReasonOutcomeUnknown)) }()
	}
	maybe := false // an attempt may have run
	for retry := 0; ; retry++ {
		f := c.attempt(ctx, call, s, try)
		if f == nil {
			c.budget.give()
			return nil
		}
		verdict := judge(f)
		switch verdict {
		case ran:
			return f
		case mayHaveRun:
			maybe = true
		}
		hopeless := c.opts.FailFast && !maybe && neverSent(f.cause)
		if !hopeless && retriable(f) && ctx.Err() == nil && retry < c.opts.Retries && (f.unsent || c.budget.take()) && pause(ctx, retry, f.err.RetryAfter) {
			continue
		}
		if maybe {
			return unknown(ref, call.key, f.err)
		}
		return f
	}
}

// attempt tries once.
func (c *Client) attempt(ctx context.Context, call *call, s *session, try func(context.Context, *call, *nolav1.SessionKey) error) *failure {
	var key *nolav1.SessionKey
	if s != nil {
		if call.key.FirstAttempt.IsZero() {
			now, err := c.ServerTime(ctx)
			if err != nil {
				f := asFailure(err)
				f.unsent = true // the call itself
				return f
			}
			call.key.FirstAttempt = now
		} else {
			call.key.AckedBelow = c.sessions.ackedBelow(s)
		}
		key = &nolav1.SessionKey{
			Id: call.key.Session[:], Seq: call.key.Seq, AckedBelow: call.key.AckedBelow, FirstAttempt: timestamppb.New(call.key.FirstAttempt),
		}
	}
	if err := try(ctx, call, key); err != nil {
		return asFailure(err)
	}
	return nil
}

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return &failure{err: f.err, answered: f.answered, unsent: f.unsent, cause: f.cause}
	}
	e, _ := fromConnect(err, "")
	return &failure{err: e, unsent: true, cause: err}
}

// verdict is what an attempt's failure says about its execution.
type verdict int

const (
	neverRan   verdict = iota // refused, or rolled back: it had no effects
	mayHaveRun                // nobody knows
	ran                       // it ran to an end that its key answers for
)

func judge(f *failure) verdict {
	switch {
	case f.unsent:
		return neverRan
	case !f.answered:
		return mayHaveRun
	}
	switch f.err.Reason {
	case nola.ReasonGuestError, nola.ReasonGuestTrap, nola.ReasonCPUBudget, nola.ReasonMemoryLimit:
		return ran
	case nola.ReasonOutcomeUnknown, nola.ReasonCanceled, nola.ReasonInternal:
		return mayHaveRun
	}
	return neverRan
}

// retriable reports whether the same call has a chance: the server says when, or
// the way to it was broken. A key makes the retry safe.
func retriable(f *failure) bool {
	switch f.err.Reason {
	case nola.ReasonUnavailable, nola.ReasonShardMoving, nola.ReasonNoOwner, nola.ReasonOutcomeUnknown:
		return true
	case nola.ReasonCanceled:
		return !f.answered // the server's end of the connection: the caller still waits
	case nola.ReasonDeadlineExceeded:
		return false
	}
	return f.answered && f.err.RetryAfter > 0
}

// pause waits before a retry, and reports whether there is time for it.
func pause(ctx context.Context, retry int, atLeast time.Duration) bool {
	most := backoffMax
	if retry < 16 {
		most = min(most, backoffMin<<retry)
	}
	wait := atLeast + time.Duration(rand.Int64N(int64(most)))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// budget is the retry budget of a client. The zero budget is full.
type budget struct {
	mu    sync.Mutex
	spent float64 // tokens that are missing
	since time.Time
}

func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if !b.since.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.since).Seconds()*budgetPerSecond)
	}
	b.since = now
	if b.spent+1 > budgetMax {
		return false
	}
	b.spent++
	return true
}

func (b *budget) give() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-budgetPerCall)
}

func refMessage(ref nola.ActorRef) *nolav1.ActorRef {
	return &nolav1.ActorRef{Namespace: ref.Namespace, Type: ref.Type, Id: ref.ID}
}

// keyMetadata is what a program needs to ask GetInvocation.
func keyMetadata(k nola.Key) map[string]string {
	if k.IsUser() {
		return map[string]string{"idempotency_key": k.User}
	}
	return map[string]string{
		"session": hex.EncodeToString(k.Session[:]), "seq": strconv.FormatUint(k.Seq, 10),
		"first_attempt": k.FirstAttempt.UTC().Format(time.RFC3339Nano),
	}
}

func hasReason(err error, reason nola.Reason) bool {
	return errors.Is(err, &nola.Error{Reason: reason})
}
