package shard

import (
	"context"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

// carryOut does what an order asks for, as a guest would do it in a turn.
func (h *host) carryOut(o *core.Order) (err error) {
	switch o.Kind {
	case core.SetTimer:
		return h.SetTimer(o.Timer)
	case core.CancelTimer:
		o.Found, err = h.CancelTimer(o.Name)
	case core.SetReminder:
		return h.SetReminder(o.Reminder)
	case core.CancelReminder:
		o.Found, err = h.CancelReminder(o.Name)
	default:
		if rec, found, _ := h.deferred(o.Completion.Token); found {
			o.ID = rec.Invocation.ID
		}
		o.Found, err = h.Complete(o.Completion)
	}
	return err
}

func (m *Manager) order(ctx context.Context, o *core.Order, bytes int) error {
	if err := o.Ref.Validate(); err != nil {
		return err
	}
	if err := m.enter(bytes); err != nil {
		return err
	}
	defer m.leaveNode(bytes)
	if m.wait(ctx, m.boxOf(o.Ref), o, &o.Ticket) {
		return errGone(ctx)
	}
	return o.Err
}

// CompleteInvocation answers a deferred invocation of the actor, once, and
// answers which one that was. It waits for its turn in the mailbox. A token that
// is not known, was used, or whose deadline has passed is INVOCATION_NOT_FOUND.
func (m *Manager) CompleteInvocation(ctx context.Context, ref nola.ActorRef, c nola.Completion) (nola.InvocationID, error) {
	o := &core.Order{Kind: core.CompleteInvocation, Ref: ref, Completion: c}
	err := m.order(ctx, o, len(c.Payload))
	if err == nil && !o.Found {
		err = nola.Errorf(nola.ReasonInvocationNotFound, "%s has no deferred invocation with this token: it was answered before, its deadline has passed, or the token is wrong", ref)
	}
	return o.ID, err
}

// SetTimer sets the actor's timer of that name, or replaces it. The actor exists
// from then on.
func (m *Manager) SetTimer(ctx context.Context, ref nola.ActorRef, t nola.Timer) error {
	if _, _, err := m.cfg.Modules.Module(ref.Namespace, ref.Type); err != nil {
		return err
	}
	if t.Name == "" {
		return nola.Errorf(nola.ReasonInvalidArgument, "a timer needs a name, under which it is cancelled or replaced")
	}
	return m.order(ctx, &core.Order{Kind: core.SetTimer, Ref: ref, Timer: t}, len(t.Payload))
}

// CancelTimer reports whether there was such a timer.
func (m *Manager) CancelTimer(ctx context.Context, ref nola.ActorRef, name string) (found bool, err error) {
	o := &core.Order{Kind: core.CancelTimer, Ref: ref, Name: name}
	err = m.order(ctx, o, 0)
	return o.Found, err
}

// SetReminder sets the actor's reminder of that name, or replaces it. The actor
// exists from then on.
func (m *Manager) SetReminder(ctx context.Context, ref nola.ActorRef, r nola.Reminder) error {
	if _, _, err := m.cfg.Modules.Module(ref.Namespace, ref.Type); err != nil {
		return err
	}
	return m.order(ctx, &core.Order{Kind: core.SetReminder, Ref: ref, Reminder: r}, len(r.Payload))
}

// CancelReminder reports whether there was such a reminder.
func (m *Manager) CancelReminder(ctx context.Context, ref nola.ActorRef, name string) (found bool, err error) {
	o := &core.Order{Kind: core.CancelReminder, Ref: ref, Name: name}
	err = m.order(ctx, o, 0)
	return o.Found, err
}
