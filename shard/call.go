package shard

import (
	"strings"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

// Call runs an operation of another actor, on this goroutine if that actor is
// idle. What the caller's turn has read is durable before the call leaves the
// shard.
func (h *host) Call(c nola.OutCall) ([]byte, error) {
	ref, err := h.target(&c)
	if err != nil {
		return nil, err
	}
	m, r := h.r.m, h.r
	self := h.t.Act.Ref()
	if h.t.Shutdown != "" {
		return nil, nola.Errorf(nola.ReasonInvalidArgument, "an actor on its way out of memory cannot call others; cast instead")
	}
	chain := append(append(make([]nola.ActorRef, 0, len(h.inv.Chain)+1), h.inv.Chain...), self)
	if err := checkChain(chain, ref); err != nil {
		return nil, err
	}
	if err := h.begin(); err != nil {
		return nil, err
	}
	h.calls++
	left := time.Now()
	defer func() { h.away += time.Since(left) }()
	inv := &nola.Invocation{
		ID: h.derived("call", h.calls), Kind: nola.KindCall, Target: ref, Operation: c.Operation,
		Payload: append([]byte(nil), c.Payload...), Create: c.Create, Chain: chain, Deadline: h.deadline(),
		Caller: nola.Caller{Actor: self, Parent: h.inv.ID},
	}
	call := &core.Call{Inv: inv, Dep: h.t.Dep()}
	if !h.startedAt.IsZero() {
		inv.Key = nola.Key{Session: nola.SessionID(h.inv.Identity()), Seq: uint64(h.calls), Nested: true, FirstAttempt: h.startedAt}
		call.Hash = nola.RequestHash(inv.Operation, inv.Payload)
	}
	b := m.boxOf(ref)
	if b == h.b {
		call.Early, call.By = true, h.t
	} else {
		barrier := &core.Barrier{Turn: h.t}
		if err := r.ask(h.b, barrier, &barrier.Ticket); err != nil {
			return nil, err
		}
		call.Dep = 0 // all of it is durable
	}
	if _, _, err := m.cfg.Modules.Module(ref.Namespace, ref.Type); err != nil {
		return nil, err
	}
	if m.cfg.Peers != nil && b != h.b && b.epoch.Load() == 0 {
		return r.abroad(h, inv)
	}
	err = r.ask(b, call, &call.Ticket)
	if call.Early {
		h.t.Saw(call.Dep)
	}
	switch {
	case err != nil && m.cfg.Peers != nil && b != h.b && homeless(err, inv):
		return r.abroad(h, inv) // it has moved just now
	case err == nil && call.Unwritten && b != h.b:
		err = m.trusted(m.ctx, b.id)
	}
	if err != nil {
		return nil, err
	}
	return call.Result.Payload, nil
}

// checkChain refuses a call to an actor that waits for this very call.
func checkChain(chain []nola.ActorRef, target nola.ActorRef) error {
	for _, ref := range chain {
		if ref == target {
			names := make([]string, 0, len(chain)+1)
			for _, x := range append(chain[:len(chain):len(chain)], target) {
				names = append(names, x.String())
			}
			text := strings.Join(names, " -> ")
			e := nola.Errorf(nola.ReasonCallCycle, "the call would wait for itself: %s; use a cast instead", text)
			e.Metadata = map[string]string{"chain": text}
			return e
		}
	}
	if len(chain) > nola.CallChainMax {
		return nola.LimitError(nola.ReasonNestedCalls, "call_chain", nola.CallChainMax, "%d turns wait for one another in this call, the limit; use casts", len(chain))
	}
	return nil
}

// begin makes it durable that a turn which may be retried calls others now,
// once per turn.
func (h *host) begin() error {
	if h.started {
		return nil
	}
	start := &core.Start{Turn: h.t}
	if err := h.r.ask(h.b, start, &start.Ticket); err != nil {
		return err
	}
	h.started, h.startedAt = true, start.At
	return nil
}

// ask steps an input on behalf of the turn that runs on this goroutine, and
// waits for its answer. While it has to wait, others may have the run token.
func (r *runner) ask(b *box, in core.Input, t *core.Ticket) error {
	w := r.m.newWaiter()
	t.Shell = w
	r.drive(b, in, w, true)
	call, _ := in.(*core.Call)
	if !w.answered() {
		if err := r.park(b, w, call); err != nil {
			return err
		}
	}
	r.resume()
	return t.Err
}

// park waits for an answer; at most ParkedMax turns do so at once.
func (r *runner) park(b *box, w *waiter, call *core.Call) error {
	m := r.m
	n := m.parked.Add(1)
	defer m.parked.Add(-1)
	if call != nil && n > int64(m.cfg.ParkedMax) {
		r.drive(b, &core.Cancel{Call: call, Err: errParked(m.cfg.ParkedMax)}, w, true)
		// If it could not be taken back, its turn runs already: it will not be
		// long.
	}
	if r.await(m.ctx, b, w, call, true) {
		r.resume()
		return nola.Errorf(nola.ReasonUnavailable, "the node is stopping; the turn was rolled back, try again")
	}
	return nil
}

func errParked(limit int) error {
	err := nola.LimitError(nola.ReasonNestedCalls, "parked_turns", int64(limit), "%d turns of this node wait in nested calls, its limit; try again later", limit)
	err.RetryAfter = parkedRetry
	return err
}

const parkedRetry = 100 * time.Millisecond // what refused nested calls are told to wait
