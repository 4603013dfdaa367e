package shard

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

// guest is the memory of an activation: its instance, and what belongs to it.
type guest struct {
	mu      sync.Mutex // guards running, ended, and changes of instance
	running bool
	ended   bool
	number  uint64        // of the newest turn that was begun
	began   atomic.Uint64 // the same, for who has no lock
	stop    core.Interrupt
	// wake is poked when a turn is to end that waits for a run token; nil until
	// one does.
	wake chan struct{}

	// The turn's own, while one runs.
	instance nola.Instance
	module   nola.Module
	version  uint64
	host     host
	kind     *typeUsage // nil until its first turn has been charged
	watched  *watched   // where that was
}

// end closes the guest for good, interrupting the turn that runs.
func (g *guest) end() {
	g.mu.Lock()
	g.ended = true
	in := g.instance
	if !g.running {
		g.instance = nil
	}
	running := g.running
	g.poke()
	g.mu.Unlock()
	switch {
	case in == nil:
	case running:
		in.Interrupt(nola.Errorf(nola.ReasonShardMoving, "the shard is moving to another owner; the turn was rolled back, try again"))
	default:
		in.Close()
	}
}

// poke wakes a turn that waits for a run token. The mutex is held.
func (g *guest) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// poked is what brings a value when the turn that waits may have to end.
func (g *guest) poked() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wake == nil {
		g.wake = make(chan struct{}, 1)
	}
	return g.wake
}

// begin claims the guest for a turn, unless the activation is over.
func (g *guest) begin(number uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return errNotBegun()
	}
	g.running, g.number = true, number
	g.began.Store(number)
	return nil
}

// Began reports whether the turn of that number has begun.
func (g *guest) Began(number uint64) bool { return g.began.Load() >= number }

func errNotBegun() error {
	return nola.Errorf(nola.ReasonShardMoving, "the shard is moving to another owner; it was not executed, try again")
}

// interrupt ends a turn that runs, or is about to; the core drops what it did.
func (g *guest) interrupt(i core.Interrupt) {
	g.mu.Lock()
	if i.Number >= g.stop.Number {
		g.stop = i
	}
	in := g.instance
	running := g.running && g.number == i.Number
	g.poke()
	g.mu.Unlock()
	if running && in != nil {
		in.Interrupt(i.Err)
	}
}

// stopped is why the turn that runs is to end before the guest is asked. It may
// have become so while its instance was made, when there was none to interrupt.
func (g *guest) stopped() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.ended:
		return errNotBegun()
	case g.stop.Number != g.number:
		return nil
	}
	return g.stop.Err
}

// finish gives the guest back.
func (g *guest) finish() {
	g.mu.Lock()
	g.running = false
	ended := g.ended
	g.mu.Unlock()
	if ended {
		g.replace(nil)
	}
}

// replace takes a new instance, or none, and closes the one before.
func (g *guest) replace(in nola.Instance) {
	g.mu.Lock()
	old := g.instance
	g.instance = in
	g.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// startups remembers which modules have no STARTUP or SHUTDOWN operation.
type startups struct {
	without sync.Map // of startupKey
}

type startupKey struct {
	module    nola.Module
	operation string
}

// lacks reports whether a module is known not to have the operation.
func (s *startups) lacks(m nola.Module, operation string) bool {
	_, known := s.without.Load(startupKey{m, operation})
	return known
}

var errUnavailable = &nola.Error{Reason: nola.ReasonUnavailable}

var errOperationNotFound = &nola.Error{Reason: nola.ReasonOperationNotFound}

// turn runs t's guest under a run token, and fills in what it did.
func (r *runner) turn(b *box, t *core.Turn) {
	m := r.m
	g := t.Act.Shell.(*guest)
	if t.Err = g.begin(t.Number); t.Err != nil {
		return
	}
	defer g.finish()
	h := &g.host
	h.reset(r, b, t, g)
	outer := r.current
	r.current = h
	defer func() {
		r.current = outer
		h.inv, h.turn = nil, nola.Turn{} // the actor may be idle for long
	}()
	if t.Err = r.hold(h, outer != nil); t.Err != nil {
		if t.Shutdown != "" {
			g.replace(nil)
		}
		return
	}
	m.begun.Add(1)
	began := time.Now()
	switch {
	case t.Order != nil:
		h.inv = &nola.Invocation{ID: m.newID(), Target: t.Act.Ref(), Deadline: t.Now.Add(h.waited + nola.TurnTimeoutDefault)}
		if t.Err = h.carryOut(t.Order); t.Err == nil {
			h.effects(&t.Effects)
		}
		if g.instance != nil {
			t.Bytes = g.instance.Bytes()
		}
		return
	case t.Call != nil:
		h.inv = t.Call.Inv
	}
	reply, err := r.run(h)
	if h.lost != nil {
		err = h.lost
	}
	if err == nil && t.Shutdown == "" {
		err = h.keep()
	}
	t.Err = err
	if err == nil {
		h.effects(&t.Effects)
		t.Effects.Reply = reply
	}
	t.Effects.Steps = h.steps
	b.turns.Add(1)
	b.steps.Add(h.steps)
	t.Effects.Called = h.calls > 0
	if err != nil || t.Shutdown != "" {
		g.replace(nil) // what it remembers is not what is committed
		m.room.free()
	}
	if g.instance != nil {
		t.Bytes = g.instance.Bytes()
	} else {
		t.Bytes = 0
	}
	took, turns := time.Since(began), uint64(1)
	if t.Shutdown != "" {
		turns = 0 // it is the last one's end
	}
	m.usage.charge(g, b.id, t.Act.Ref(), cost{turns, h.steps, took - h.away})
	if f := m.cfg.Events.Turn; f != nil && t.Shutdown == "" {
		f(h.inv.Kind, t.Act.Ref(), took, h.steps, err)
	}
}

// run has the guest do what h.inv asks for, on a fresh instance if need be.
func (r *runner) run(h *host) ([]byte, error) {
	m, t, g := r.m, h.t, h.g
	ref := t.Act.Ref()
	if t.Shutdown != "" {
		if g.instance == nil || g.keeps() || m.starts.lacks(g.module, nola.OperationShutdown) {
			return nil, nil
		}
		h.inv = &nola.Invocation{ID: m.newID(), Target: ref, Operation: nola.OperationShutdown, Payload: []byte(t.Shutdown), Deadline: t.Now.Add(h.waited + nola.TurnTimeoutDefault)}
		_, err := h.invoke(nola.OperationShutdown, h.inv.Payload)
		if errors.Is(err, errOperationNotFound) {
			m.starts.without.Store(startupKey{g.module, nola.OperationShutdown}, true)
			h.steps = 0 // others are not asked, and cost nothing
			return nil, nil
		}
		return nil, err
	}
	module, version, err := m.cfg.Modules.Module(ref.Namespace, ref.Type)
	if err != nil {
		return nil, err
	}
	for t.Fresh || g.instance == nil || g.module != module {
		g.replace(nil)
		g.module, g.version = module, version
		err := r.start(h)
		if err == nil {
			break
		}
		// A module that was replaced since is closed, and makes no instances.
		if !errors.Is(err, errUnavailable) {
			return nil, err
		}
		newer, version2, again := m.cfg.Modules.Module(ref.Namespace, ref.Type)
		if again != nil || newer == module {
			return nil, err
		}
		module, version = newer, version2
	}
	if h.inv.Create && h.inv.Operation == "" {
		return nil, nil
	}
	if err := h.settle(); err != nil {
		return nil, err
	}
	return h.invoke(h.inv.Operation, h.inv.Payload)
}

// start makes an instance and tells the guest that it begins to live.
func (r *runner) start(h *host) error {
	m, t, g := r.m, h.t, h.g
	in, err := r.instantiate(h, g.module)
	if err != nil {
		return err
	}
	g.replace(in)
	h.began, h.anew, h.memory = true, false, nil
	if recalled, err := r.recall(h); recalled || err != nil {
		return err
	}
	if m.starts.lacks(g.module, nola.OperationStartup) {
		return nil
	}
	payload := t.Act.InitPayload()
	if h.inv.Create {
		payload = h.inv.Payload
	}
	steps, random := h.steps, h.random
	if random != nil {
		drawn := *random
		random = &drawn
	}
	_, err = h.invoke(nola.OperationStartup, payload)
	if errors.Is(err, errOperationNotFound) {
		// The turn costs and draws what it does wherever it is known that there is
		// no such operation.
		h.steps, h.random = steps, random
		// The instance may not be used after an error.
		m.starts.without.Store(startupKey{g.module, nola.OperationStartup}, true)
		g.replace(nil) // first: who waits for memory must hold none
		if in, err = r.instantiate(h, g.module); err != nil {
			return err
		}
		g.replace(in)
		return nil
	}
	return err
}
