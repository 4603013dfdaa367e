package server

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (a *actors) CompleteInvocation(ctx context.Context, req *connect.Request[nolav1.CompleteInvocationRequest]) (*connect.Response[nolav1.CompleteInvocationResponse], error) {
	m := req.Msg
	token, err := nola.ParseToken(m.GetToken())
	if err != nil {
		return nil, err
	}
	c := nola.Completion{Token: token, Payload: m.GetPayload()}
	if text, ok := m.GetOutcome().(*nolav1.CompleteInvocationRequest_Error); ok {
		c.Err = &nola.Error{Reason: nola.ReasonGuestError, Message: text.Error}
	}
	id, err := a.s.cfg.Shards.CompleteInvocation(ctx, refOf(m.GetActor()), c)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CompleteInvocationResponse{InvocationId: id[:]}), nil
}

// ListDeferred lists the deferred invocations of an actor.
func (a *actors) ListDeferred(_ context.Context, req *connect.Request[nolav1.ListDeferredRequest]) (*connect.Response[nolav1.ListDeferredResponse], error) {
	ref := refOf(req.Msg.GetActor())
	list, err := a.s.reader.DeferredAll(a.s.shardOf(ref), ref, nola.DeferredMax)
	if err != nil {
		return nil, fmt.Errorf("deferred invocations of %s: %w", ref, err)
	}
	slices.SortStableFunc(list, func(x, y persistence.DeferredRecord) int { return x.Deadline.Compare(y.Deadline) })
	res := &nolav1.ListDeferredResponse{}
	for i := range list {
		rec := &list[i]
		m := &nolav1.DeferredInvocation{Token: rec.Token.String(), Deadline: timeMessage(rec.Deadline), ScheduleId: rec.Schedule}
		if inv := rec.Invocation; inv != nil {
			id := inv.Identity()
			m.InvocationId, m.Operation = id[:], inv.Operation
			if rec.Schedule != "" {
				m.NominalTime = timeMessage(inv.Caller.Nominal)
			}
		}
		res.Deferred = append(res.Deferred, m)
	}
	return connect.NewResponse(res), nil
}

func (a *actors) SetTimer(ctx context.Context, req *connect.Request[nolav1.SetTimerRequest]) (*connect.Response[nolav1.SetTimerResponse], error) {
	m, ref := req.Msg, refOf(req.Msg.GetActor())
	if r := m.GetReminder(); r != nil {
		spec := nola.Spec{TimeZone: r.GetTimeZone()}
		switch {
		case r.GetCron() != "":
			spec.Cron = []nola.Cron{{Expression: r.GetCron()}}
		case r.GetEvery() != nil:
			spec.Interval = []nola.Interval{{Every: r.GetEvery().AsDuration()}}
		default:
			return nil, nola.Errorf(nola.ReasonInvalidArgument, "reminder: set cron or every")
		}
		err := a.s.cfg.Shards.SetReminder(ctx, ref, nola.Reminder{Name: m.GetName(), Operation: m.GetOperation(), Payload: m.GetPayload(), Spec: spec})
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&nolav1.SetTimerResponse{}), nil
	}
	due := a.dueOf(m.GetDueTime(), m.GetDelay())
	if err := a.s.cfg.Shards.SetTimer(ctx, ref, nola.Timer{Name: m.GetName(), Operation: m.GetOperation(), Payload: m.GetPayload(), Due: due}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.SetTimerResponse{DueTime: timeMessage(due)}), nil
}

func (a *actors) CancelTimer(ctx context.Context, req *connect.Request[nolav1.CancelTimerRequest]) (*connect.Response[nolav1.CancelTimerResponse], error) {
	m := req.Msg
	cancel := a.s.cfg.Shards.CancelTimer
	if m.GetReminder() {
		cancel = a.s.cfg.Shards.CancelReminder
	}
	found, err := cancel(ctx, refOf(m.GetActor()), m.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nolav1.CancelTimerResponse{Found: found}), nil
}
