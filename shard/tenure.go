package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/shard/core"
)

// Peers are the other nodes of a cluster. Every error of its methods is a
// *nola.Error or one of ctx.
type Peers interface {
	// Trusted reports whether no other node can have taken a shard from this one:
	// memory may answer then.
	Trusted() bool
	// Invoke runs a call of an actor here on an actor of another shard, wherever
	// that is, as Manager.Invoke does.
	Invoke(ctx context.Context, inv *nola.Invocation) (nola.Result, error)
	// Deliver brings casts to a shard that is not served here, and sets d.Taken.
	Deliver(ctx context.Context, d *Delivery) error
}

// Delivery is a group of casts on its way from one shard to another.
type Delivery = core.Delivery

// Serving answers the epoch under which a shard is served here, 0 if it is not.
// It takes no lock.
func (m *Manager) Serving(id nola.ShardID) nola.Epoch { return nola.Epoch(m.boxes[id].epoch.Load()) }

// OpenShard starts to serve a shard under the epoch of its head, which the caller
// has acquired. It reads what the shard must know to start. One call for a shard
// at a time, and none during its CloseShard.
func (m *Manager) OpenShard(head persistence.Head) error {
	if m.draining.Load() {
		return fmt.Errorf("shard %d: the node is shutting down", head.Shard)
	}
	b := m.boxes[head.Shard]
	if epoch := b.epoch.Load(); epoch != 0 {
		return fmt.Errorf("shard %d: it is served under epoch %d, and is to be opened under %d", head.Shard, epoch, head.Epoch)
	}
	c, err := m.open(head)
	if err != nil {
		return err
	}
	m.install(b, c)
	return nil
}

// install has the shard served by c.
func (m *Manager) install(b *box, c *core.Shard) {
	b.mu.Lock()
	b.core = c
	b.epoch.Store(uint64(c.Epoch()))
	b.mu.Unlock()
	m.bring(b, &core.Resume{})
}

// CloseShard stops to serve a shard: nothing new is taken in, and what was
// admitted is answered and durable before it returns, or has been answered
// SHARD_MOVING, rolled back, when ctx ends. Afterwards this node commits nothing
// more to the shard. Closing one that is not served changes nothing.
func (m *Manager) CloseShard(ctx context.Context, id nola.ShardID) {
	b := m.boxes[id]
	if b.epoch.Load() == 0 {
		return
	}
	leave := &core.Leave{}
	m.wait(ctx, b, leave, &leave.Ticket)
	if !m.vacate(b, true) {
		m.DropShard(id)
	}
}

// DropShard stops to serve a shard at once. What was admitted and is not durable
// is rolled back and answered SHARD_MOVING; a commit under way ends first.
func (m *Manager) DropShard(id nola.ShardID) {
	m.commit.running.Lock() // so that no batch of it is under way
	defer m.commit.running.Unlock()
	m.vacate(m.boxes[id], false)
}

// vacate has nobody serve a shard of which no batch is under way. If left is set, it
// does so only if the shard has nothing left to commit: then a commit of other shards
// need not be waited for.
func (m *Manager) vacate(b *box, left bool) bool {
	var out core.Output
	b.mu.Lock()
	if left && !b.core.Left() {
		b.mu.Unlock()
		return false
	}
	b.epoch.Store(0)
	b.core.Step(m.cfg.Now(), &core.Fenced{}, &out)
	b.core = core.Vacant(b.id, m.info.Shards, m.cfg.Limits)
	m.clock.note(b, time.Time{})
	b.mu.Unlock()
	m.noteBytes(b, 0)
	m.answer(&out)
	m.closeAll(&out)
	return true
}

// Deliver takes casts in that another node brings, and sets d.Taken once what it
// took is durable.
func (m *Manager) Deliver(ctx context.Context, d *Delivery) error {
	if err := m.enter(0); err != nil {
		return err
	}
	defer m.leaveNode(0)
	if m.wait(ctx, m.boxes[d.To], d, &d.Ticket) {
		return errGone(ctx)
	}
	return d.Err
}

// trusted refuses an answer out of memory that another node may know better.
func (m *Manager) trusted(ctx context.Context, id nola.ShardID) error {
	fencer, able := m.cfg.Store.(persistence.Fencer)
	switch {
	case m.cfg.Strict && able:
		err := fencer.Fence(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errGone(ctx)
		}
		if !errors.Is(err, persistence.ErrFenced) {
			return errStore(err)
		}
	case m.held():
		return nil
	}
	e := nola.Errorf(nola.ReasonShardMoving, "the node's lease is over, so that shard %d may have another owner; nothing was changed, try again", id)
	e.RetryAfter = leaseRetry
	return e
}

// held reports whether no other process can have taken a shard from this one.
func (m *Manager) held() bool {
	if m.cfg.Peers != nil {
		return m.cfg.Peers.Trusted()
	}
	leased, is := m.cfg.Store.(persistence.Leased)
	return !is || leased.Held()
}

// errMoving is for what was read of a shard that was given away meanwhile.
func errMoving(id nola.ShardID) error {
	e := nola.Errorf(nola.ReasonShardMoving, "shard %d is moving to another owner; nothing was changed, try again", id)
	e.RetryAfter = leaseRetry
	return e
}

const leaseRetry = 100 * time.Millisecond // what those are told to wait whose answer is not trusted

// abroad runs a nested call on another node. While the shard has no owner it asks
// again, as guests do not: the call has a key, or was never executed. If it ends
// without an answer the turn is rolled back, whatever the guest makes of it.
func (r *runner) abroad(h *host, inv *nola.Invocation) ([]byte, error) {
	m := r.m
	ctx, stop := context.WithDeadline(m.ctx, inv.Deadline)
	defer stop()
	r.release()
	defer r.resume()
	n := m.parked.Add(1)
	defer m.parked.Add(-1)
	if n > int64(m.cfg.ParkedMax) {
		return nil, errParked(m.cfg.ParkedMax)
	}
	for wait := abroadMin; ; wait = min(2*wait, abroadMax) {
		attempt := *inv
		result, err := m.cfg.Peers.Invoke(ctx, &attempt)
		if err == nil || !homeless(err, inv) {
			return result.Payload, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			err = h.g.stopped()
		case <-ctx.Done():
			timer.Stop()
		}
		if err != nil {
			h.lost = err
			return nil, err
		}
	}
}

// How long a nested call waits for its target to have an owner again.
const (
	abroadMin = 10 * time.Millisecond
	abroadMax = 200 * time.Millisecond
)

// homeless reports whether a call may be tried again: nobody executed it, or a key
// recognises it, and it did not reach who could.
func homeless(err error, inv *nola.Invocation) bool {
	var e *nola.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Reason {
	case nola.ReasonShardMoving, nola.ReasonNoOwner, nola.ReasonUnavailable:
		return true
	case nola.ReasonOutcomeUnknown:
		return !inv.Key.IsZero()
	}
	return false
}
