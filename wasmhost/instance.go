package wasmhost

import (
	"sync/atomic"

	"github.com/nolaproject/nola"
)

// instance implements nola.Instance: what one activation knows of its slot.
// Interrupts come to it and not to the slot, for they may come late, when the
// slot serves another activation.
type instance struct {
	module *module
	self   nola.ActorRef
	slot   *slot // nil once it is closed
	signal atomic.Pointer[interruption]
	begun  bool // its first turn has begun
	broken bool
}

// Invoke implements [nola.Instance].
func (i *instance) Invoke(turn *nola.Turn, host nola.Host) ([]byte, error) {
	if i.broken {
		return nil, nola.Errorf(nola.ReasonInternal, "%s: the instance broke in an earlier turn, or is closed; close it and make a new one", i.self)
	}
	if !i.signal.CompareAndSwap(nil, &running) {
		i.broken = true
		return nil, i.signal.Load().err
	}
	s := i.slot
	t := &s.turn
	t.begin(i, turn, host)
	s.stack[0], s.stack[1] = uint64(len(turn.Operation)), uint64(len(turn.Payload))
	err := s.call.CallWithStack(t, s.stack[:])
	turn.Steps = t.steps()
	var reply []byte
	if err != nil {
		i.broken = true
		err = t.classify(err)
	} else {
		reply, err = t.result(uint32(s.stack[0]))
	}
	t.finish()
	return reply, err
}

// Interrupt implements [nola.Instance].
func (i *instance) Interrupt(err error) {
	in := &interruption{err}
	for s := i.signal.Load(); s == nil || s == &running; s = i.signal.Load() {
		if i.signal.CompareAndSwap(s, in) {
			return
		}
	}
}

// Bytes implements [nola.Instance].
func (i *instance) Bytes() int64 {
	if i.slot == nil {
		return 0
	}
	return i.slot.held.Load()
}

// Close implements [nola.Instance]. A second time does nothing.
func (i *instance) Close() {
	if s := i.slot; s != nil {
		i.slot = nil
		i.module.runtime.release(s, !i.broken)
	}
	i.broken = true
}
