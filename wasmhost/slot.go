package wasmhost

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/nolaproject/nola"
)

// slot is an instance of the engine: a memory, globals and tables to run turns
// of one activation in. Making one costs far more than setting one back to its
// module's image, so a slot goes from activation to activation. In between it is
// idle, and looks as if it had never been used.
//
// A slot is used by one activation at a time. Idle ones belong to the runtime,
// linked from the one released last to the one released first.
type slot struct {
	code    *compiled
	engine  api.Module
	call    api.Function
	stack   [2]uint64 // of call: two parameters in, one result out
	globals []api.MutableGlobal
	tables  []engineFunction // what the engine's tables point to, if they were filled here
	depth   api.MutableGlobal
	memory  memory
	turn    turn
	// generators are those to seed when an activation begins.
	generators []int
	held       atomic.Int64 // bytes, a share of Runtime.bytes

	newer, older *slot // of those idle; guarded by Runtime.mu, as is since
	since        time.Time
}

// acquire takes a slot for an activation of m, and a share of its code.
func (r *Runtime) acquire(i *instance) (*slot, error) {
	c := i.module.compiled
	r.mu.Lock()
	if r.closed || c.shares == 0 {
		r.mu.Unlock()
		e := nola.Errorf(nola.ReasonUnavailable, "the module was closed meanwhile; try again")
		return nil, e
	}
	c.shares++
	if n := len(c.idle); n > 0 {
		s := c.idle[n-1]
		c.idle[n-1], c.idle = nil, c.idle[:n-1]
		r.unlink(s)
		r.mu.Unlock()
		r.slotsReused.Add(1)
		return s, nil
	}
	r.mu.Unlock()
	s, err := r.newSlot(c)
	if err == nil {
		err = s.open(i)
	}
	if err != nil {
		if s != nil {
			s.close()
		}
		r.unshare(c)
		return nil, err
	}
	r.slotsMade.Add(1)
	return s, nil
}

// release gives a slot back. It is kept if it could be set back to the image.
func (r *Runtime) release(s *slot, keep bool) {
	c := s.code
	keep = keep && s.held.Load() <= r.config.IdleBytesMax && s.reset()
	if !keep {
		s.close()
		r.slotsDropped.Add(1)
	}
	now := r.config.Now()
	r.mu.Lock()
	if keep && !r.closed {
		c.idle = append(c.idle, s)
		s.since = now
		r.link(s)
	} else if keep {
		defer s.close()
	}
	stale := r.oldest != nil && now.Sub(r.oldest.since) > r.config.IdleAfter
	r.mu.Unlock()
	r.unshare(c)
	for (stale || r.idleBytes.Load() > r.config.IdleBytesMax) && r.evict() {
		stale = false // one for each that is released is enough to catch up
	}
}

// link makes s the newest of the idle slots. The mutex is held.
func (r *Runtime) link(s *slot) {
	s.older = r.newest
	if s.older != nil {
		s.older.newer = s
	} else {
		r.oldest = s
	}
	r.newest = s
	r.idleBytes.Add(s.held.Load())
}

// unlink takes s out of the idle slots. The mutex is held.
func (r *Runtime) unlink(s *slot) {
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		r.newest = s.older
	}
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		r.oldest = s.newer
	}
	s.newer, s.older = nil, nil
	r.idleBytes.Add(-s.held.Load())
}

// evict closes the slot that has been idle longest, and reports whether there
// was one.
func (r *Runtime) evict() bool {
	r.mu.Lock()
	s := r.oldest
	if s != nil {
		// Slots of one module become idle in the order of its list.
		c := s.code
		c.idle = c.idle[:copy(c.idle, c.idle[1:])]
		r.unlink(s)
	}
	r.mu.Unlock()
	if s == nil {
		return false
	}
	s.close()
	r.slotsEvicted.Add(1)
	return true
}

// reserve takes n bytes of the node's budget, at the cost of idle slots if it
// must, and reports whether they were there.
func (r *Runtime) reserve(n int64) bool {
	for {
		held := r.bytes.Load()
		switch {
		case n <= 0 || held+n <= r.config.InstancesBytesMax:
			if r.bytes.CompareAndSwap(held, held+n) {
				return true
			}
		case !r.evict():
			return false
		}
	}
}

func (r *Runtime) overloaded(need int64) *nola.Error {
	e := nola.LimitError(nola.ReasonNodeOverloaded, "instances_bytes", r.config.InstancesBytesMax, "the node's actors in memory hold %d of %d bytes, the next one needs %d; try again when some have gone to sleep", r.bytes.Load(), r.config.InstancesBytesMax, need)
	e.RetryAfter = nodeRetryAfter
	return e
}

// newSlot makes an empty slot, within the node's budget.
func (r *Runtime) newSlot(c *compiled) (*slot, error) {
	s := &slot{code: c}
	s.memory.slot = s
	shape := c.shape
	fixed := instanceBytes + int64(shape.elements)*elementBytes
	if c.image == nil {
		fixed += int64(shape.segments) * segmentBytes
	}
	if !r.reserve(fixed) {
		return nil, r.overloaded(fixed + int64(shape.memory.min)*pageBytes)
	}
	s.held.Store(fixed)
	s.memory.max = c.memoryMax()
	s.turn.init(s)
	if !s.memory.begin(uint64(shape.memory.min) * pageBytes) {
		s.close()
		return nil, r.overloaded(fixed + int64(shape.memory.min)*pageBytes)
	}
	return s, nil
}

// open makes the engine's part of a slot, for i.
func (s *slot) open(i *instance) error {
	if s.code.image == nil {
		return s.start(i)
	}
	t := &s.turn
	t.beginInit(i)
	err := s.instantiate()
	if err == nil {
		image := s.code.image
		s.generators = image.generators
		if have, want := uint64(s.engine.Memory().Size()), uint64(len(image.bytes)); have < want {
			if _, ok := s.engine.Memory().Grow(uint32((want - have) / pageBytes)); !ok {
				err = errNoRoom
			}
		}
		s.setGlobals()
		s.call = s.engine.ExportedFunction(exportCall)
		t.clock = clock{monotonic: image.monotonic}
	}
	if err != nil {
		err = t.classify(err)
	}
	t.finish()
	return err
}

// instantiate has the engine make its part.
func (s *slot) instantiate() error {
	r := s.code.runtime
	m, err := r.engine.InstantiateModule(&s.turn, s.code.code, moduleConfig)
	if err != nil {
		return err
	}
	s.engine = m
	s.turn.meter = m.ExportedGlobal(meterExport).(api.MutableGlobal)
	l := s.code.layout
	if l == nil {
		return nil
	}
	if len(l.elements) > 0 { // this is the first one
		s.code.tables = makeTables(m, l.elements, uint32(s.code.shape.imports)+1)
	}
	if t := s.code.tables; t != nil {
		s.tables = t.fill(m)
	}
	s.depth = m.ExportedGlobal(depthExport).(api.MutableGlobal)
	s.globals = make([]api.MutableGlobal, len(l.globals))
	for n, name := range l.exported {
		s.globals[n] = m.ExportedGlobal(name).(api.MutableGlobal)
	}
	return nil
}

func (s *slot) setGlobals() {
	image := s.code.image
	for n, g := range s.globals {
		g.Set(image.globals[n])
	}
	s.depth.Set(image.depth)
}

// reset sets a slot back to the image: nothing is left of the activation that
// used it. It answers false for one that cannot be used again.
func (s *slot) reset() bool {
	image := s.code.image
	if image == nil || s.engine.IsClosed() || !s.memory.reset() {
		return false
	}
	s.setGlobals()
	s.turn.forget()
	s.turn.clock = clock{monotonic: image.monotonic}
	return true
}

// close releases everything.
func (s *slot) close() {
	if s.engine != nil {
		_ = s.engine.Close(context.Background()) // it has nothing that can fail
	}
	s.memory.unmap()
	s.code.runtime.bytes.Add(-s.held.Swap(0))
}
