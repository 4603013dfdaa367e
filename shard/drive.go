package shard

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

// waiter is somebody who waits for a ticket.
type waiter struct {
	// events brings nil when the ticket is decided, or a turn to run: at most
	// one of each at a time, so that nobody who sends ever waits.
	events chan *core.Turn
	work   *work // what is in events holds a share
	state  atomic.Int32
	done   bool // the waiter's own: it has seen the decision
	ran    bool // the waiter's own: it has run the turn of its call
}

// The states of a waiter.
const (
	working int32 = iota // it does something itself
	waiting
	handed // a turn is on its way to it
	left   // nobody waits any more
)

func (m *Manager) newWaiter() *waiter {
	return &waiter{events: make(chan *core.Turn, 2), work: &m.work}
}

// owns reports whether t does what w waits for.
func (w *waiter) owns(t *core.Turn) bool {
	switch {
	case t.Call != nil:
		return t.Call.Shell == any(w)
	case t.Order != nil:
		return t.Order.Shell == any(w)
	default:
		return false
	}
}

// runner is a goroutine at work: it holds a run token or none.
type runner struct {
	m     *Manager
	token hold
	holds bool
	spare *claim // used before, with nothing in it
	// pooled marks a goroutine of the pool. It is one of the workers unless turning
	// is set: it runs a turn that got a token, or has been at one task for long. The
	// pool's mutex guards turning, busy and shares.
	pooled  bool
	turning bool
	busy    bool // of the pool: does a task
	shares  bool // has a share of what may do so
	out     core.Output
	loads   []*core.Load // used before, with nothing in it

	// Of the turn that runs, which is the innermost of those on the goroutine:
	current   *host
	namespace string
	steps     uint64    // taken since the token was, or since the last yield
	since     time.Time // when that was
}

// step steps b's core, notes when it wants to be woken, and interrupts turns.
func (m *Manager) step(b *box, in core.Input, out *core.Output) {
	b.mu.Lock()
	b.core.Step(m.cfg.Now(), in, out)
	for _, t := range out.Turns {
		if t.Act.Shell == nil {
			t.Act.Shell = new(guest) // here, so that whoever ends the activation finds it
		}
	}
	var guests []*guest // taken here: once a turn has ended, the activation may give its guest up
	for _, i := range out.Interrupts {
		guests = append(guests, i.Act.Shell.(*guest))
	}
	wake, bytes := b.core.Wake(), b.core.Bytes()
	// In the order of the steps, or a wake-up is lost, or somebody waits for what is
	// queued afterwards.
	m.clock.note(b, wake)
	for _, t := range out.Ends {
		m.pool.submitEnd(b, t)
	}
	b.mu.Unlock()
	m.noteBytes(b, bytes)
	for n, i := range out.Interrupts {
		guests[n].interrupt(i)
	}
	for _, t := range out.Hurry {
		m.pool.hurry(t)
	}
	if m.room.waiting.Load() > 0 {
		for _, t := range out.Ends {
			m.pool.hurry(t)
		}
	}
	out.Ends, out.Hurry = out.Ends[:0], out.Hurry[:0]
	clear(out.Interrupts)
	out.Interrupts = out.Interrupts[:0]
}

// drive steps in and does what follows until nothing is left to do at once, or
// own has been answered. With own it runs no turn but that of own, since another
// might take long, or wait for a turn below on this goroutine. nested says that
// there is one: then it does not lead a commit.
func (r *runner) drive(b *box, in core.Input, own *waiter, nested bool) {
	m := r.m
	out := &r.out
	if nested {
		out = new(core.Output) // the outer one is in use
	}
	out.Reset()
	m.step(b, in, out)
	for {
		m.answer(out)
		m.closeAll(out)
		m.send(b, out)
		switch {
		case len(out.Loads) > 0:
			loads := out.Loads
			r.loads, out.Loads = loads, r.loads[:0]
			m.fill(b, loads...)
			for _, l := range loads {
				m.step(b, l, out)
			}
			clear(loads)
		case (len(out.Turns) > 0 || out.Commit) && own != nil && own.answered():
			m.leave(b, out)
			return
		case len(out.Turns) > 0:
			t, others := out.Turns[0], out.Turns[1:]
			switch {
			case own == nil && !r.mayTurn(t.Act.Ref().Namespace):
				t, others = nil, out.Turns
			case own != nil && !own.owns(t):
				t, others = nil, out.Turns
			}
			for _, other := range others {
				m.handOn(b, other)
			}
			out.Turns = out.Turns[:0]
			if t == nil {
				continue
			}
			if out.Commit {
				out.Commit = false
				if m.commit.request(b) {
					m.commit.handOver()
				}
			}
			if own != nil {
				own.ran = true
			}
			r.turn(b, t)
			m.step(b, t, out)
		case out.Commit:
			out.Commit = false
			if !m.commit.request(b) {
				continue
			}
			if nested || r.pooled { // who does what nobody waits for goes on with it
				m.commit.handOver()
				continue
			}
			r.release()
			if m.commitReady() {
				m.commit.handOver()
			}
		default:
			return
		}
	}
}

// await waits until w's ticket is decided, and runs the turn of its own call if
// that is handed over meanwhile. It gives the run token back while it waits.
// When ctx ends or the deadline passes it takes call back (if there is one); if
// the turn has started by then, a deadline no longer counts, but a caller whose
// ctx has ended leaves: gone is true then. The caller's share of the work is
// given up while it waits.
func (r *runner) await(ctx context.Context, b *box, w *waiter, call *core.Call, nested bool) (gone bool) {
	if w.answered() {
		return false
	}
	held := r.holds
	r.release()
	if held {
		defer r.resume()
	}
	var expired <-chan time.Time
	if call != nil && !w.ran && !call.Inv.Deadline.IsZero() {
		if v := r.m.cfg.Virtual; v != nil {
			t := v.timer(call.Inv.Deadline, r.m.work.begin)
			defer r.m.stopTimer(v, t)
			expired = t.c
		} else {
			t := time.NewTimer(call.Inv.Deadline.Sub(r.m.cfg.Now()))
			defer t.Stop()
			expired = t.C
		}
	}
	done := ctx.Done()
	w.work.end()
	for !w.done {
		w.state.Store(waiting)
		select {
		case t := <-w.events:
			r.event(b, w, t, nested)
			continue
		case <-expired:
			expired = nil
			if !w.state.CompareAndSwap(waiting, working) {
				w.work.end() // the timer's
				r.event(b, w, <-w.events, nested)
				continue
			}
			r.drive(b, &core.Cancel{Call: call, Err: core.ErrExpired(call.Inv)}, w, nested)
			r.release()
			if !w.answered() {
				w.work.end() // the timer's
			}
		case <-done:
			done = nil
			if !w.state.CompareAndSwap(waiting, left) {
				r.event(b, w, <-w.events, nested)
				continue
			}
			w.work.begin()
			if call != nil {
				r.drive(b, &core.Cancel{Call: call, Err: errCanceled(ctx)}, w, nested)
				r.release()
			}
			return !w.answered()
		}
	}
	return false
}

// event takes in what came to a waiter, with its share of the work, which is kept
// once the waiter has seen the decision.
func (r *runner) event(b *box, w *waiter, t *core.Turn, nested bool) {
	w.state.Store(working)
	if t == nil {
		w.done = true
		return
	}
	w.ran = true
	r.turn(b, t)
	r.drive(b, t, w, nested)
	r.release()
	if !w.answered() {
		w.work.end()
	}
}

func errCanceled(ctx context.Context) *nola.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e := nola.Errorf(nola.ReasonDeadlineExceeded, "the caller's deadline passed while the call waited for its turn; it was not executed")
		e.Metadata = map[string]string{"where": "queue"}
		return e
	}
	return nola.Errorf(nola.ReasonCanceled, "the caller left while the call waited for its turn; it was not executed")
}

// leave passes on everything that out still asks for.
func (m *Manager) leave(b *box, out *core.Output) {
	m.send(b, out)
	for _, l := range out.Loads {
		m.pool.submit(task{box: b, load: l})
	}
	for _, t := range out.Turns {
		m.handOn(b, t)
	}
	if out.Commit && m.commit.request(b) {
		m.commit.handOver()
	}
	out.Loads, out.Turns, out.Commit = out.Loads[:0], out.Turns[:0], false
}

// handOn gives a turn to the caller that waits for it, or to the pool.
func (m *Manager) handOn(b *box, t *core.Turn) {
	if t.Call != nil {
		if w, ok := t.Call.Shell.(*waiter); ok && w.state.CompareAndSwap(waiting, handed) {
			w.work.begin()
			w.events <- t
			return
		}
	}
	m.pool.submit(task{box: b, turn: t})
}

// answer wakes those whose tickets are decided, and tells of firings.
func (m *Manager) answer(out *core.Output) {
	for _, t := range out.Answers {
		switch w := t.Shell.(type) {
		case *begun:
			w.decided()
		case *waiter:
			w.work.begin()
			w.events <- nil
			if w.work.virtual && w.state.Load() == left {
				select { // nobody else may look any more
				case <-w.events:
					w.work.end()
				default:
				}
			}
		}
	}
	clear(out.Answers)
	out.Answers = out.Answers[:0]
	if f := m.cfg.Events.Fired; f != nil {
		for _, x := range out.Firings {
			f(x.Schedule, x.Occurrence, x.Reply)
		}
	}
	out.Firings = out.Firings[:0]
}

// send brings casts to the shards they are for.
func (m *Manager) send(b *box, out *core.Output) {
	for _, d := range out.Sends {
		m.pool.submit(task{box: b, delivery: d})
	}
	out.Sends = out.Sends[:0]
}

// closeAll ends the instances of activations that are gone.
func (m *Manager) closeAll(out *core.Output) {
	for _, a := range out.Closed {
		if g, ok := a.Shell.(*guest); ok {
			g.end()
		}
	}
	if len(out.Closed) > 0 {
		m.room.free()
	}
	out.Closed = out.Closed[:0]
}

// answered reports whether the decision has come, without waiting.
func (w *waiter) answered() bool {
	if w.done {
		return true
	}
	// A turn is handed to a waiter only while it waits, so what is there now can
	// only be the decision.
	select {
	case <-w.events:
		w.done = true
		w.work.end() // who asks holds one
	default:
	}
	return w.done
}

// bring steps an input that nobody waits for, on the pool.
func (m *Manager) bring(b *box, in core.Input) { m.pool.submit(task{box: b, input: in}) }
