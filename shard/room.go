package shard

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/shard/core"
)

// room is the memory of guests on this node. Above Config.InstanceBytesMax idle
// actors leave, those idle longest first; a turn that finds the runtime's own
// limit reached waits for what they free.
type room struct {
	bytes    atomic.Int64 // of instances, as their turns last told it
	shedding atomic.Bool  // the clock has been asked to have actors leave
	asked    atomic.Int64 // bytes that shards were asked for, and have not looked yet
	waiting  atomic.Int64 // turns
	shard    int          // where the clock goes on to have actors leave
	mu       sync.Mutex   // guards freed
	freed    chan struct{}
}

func (r *room) init() { r.freed = make(chan struct{}) }

// next is closed when memory is free again.
func (r *room) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.freed
}

// free wakes who waits for memory.
func (r *room) free() {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	close(r.freed)
	r.freed = make(chan struct{})
	r.mu.Unlock()
}

// noteBytes remembers what the instances of b hold, and asks for idle actors to
// leave if all hold too much.
func (m *Manager) noteBytes(b *box, bytes int64) {
	if b.bytes.Load() == bytes {
		return
	}
	more := bytes - b.bytes.Swap(bytes)
	switch all := m.room.bytes.Add(more); {
	case more < 0:
		m.room.free()
	case all > m.cfg.InstanceBytesMax:
		m.makeRoom()
	}
}

// makeRoom has idle actors leave soon.
func (m *Manager) makeRoom() {
	if m.room.shedding.CompareAndSwap(false, true) {
		select {
		case m.clock.poke <- struct{}{}:
		default:
		}
	}
}

// The parts that leave at once: of the budget, so that not every actor that comes
// must wait until another one has left; and of what one shard holds, so that
// those idle longest are found without asking all shards.
const (
	shedPart      = 16
	shedShardPart = 8
)

// shed has idle actors leave while instances take more memory than they may, or
// somebody waits for memory. It is the clock's, which asks the shards in turn.
func (m *Manager) shed() {
	m.room.shedding.Store(false)
	over := m.room.bytes.Load() - m.room.asked.Load() - m.cfg.InstanceBytesMax
	if over <= 0 && m.room.waiting.Load() == 0 {
		return
	}
	over = max(over, 0) + m.cfg.InstanceBytesMax/shedPart
	part := over / shedShardPart
	for range m.boxes {
		if over <= 0 {
			return
		}
		b := m.boxes[m.room.shard]
		m.room.shard = (m.room.shard + 1) % len(m.boxes)
		if has := b.bytes.Load(); has > 0 {
			bytes := min(has, max(part, has/shedShardPart)+1)
			m.room.asked.Add(bytes)
			m.bring(b, &core.Shed{Bytes: bytes})
			over -= bytes
		}
	}
}

var errNodeOverloaded = &nola.Error{Reason: nola.ReasonNodeOverloaded}

// roomPatience is how long a turn waits for memory.
const roomPatience = 2 * time.Second

// instantiate makes an instance of module for the turn, which must have none: who
// waits for memory must hold none. It has the memory that the actor keeps, if there
// is one of its image. If there is no memory for it, the turn lets others have its
// run token and waits for idle actors to leave; NODE_OVERLOADED means that they did
// not, or that too many turns wait.
func (r *runner) instantiate(h *host, module nola.Module) (nola.Instance, error) {
	m, ref, kept := r.m, h.t.Act.Ref(), h.t.Act.Memory()
	if h.g.instance != nil {
		panic(fmt.Sprintf("shard: %s is to have a second instance", ref))
	}
	in, err := instanceOf(module, ref, kept)
	if !errors.Is(err, errNodeOverloaded) {
		return in, err
	}
	if n := m.parked.Add(1); n > int64(m.cfg.ParkedMax) {
		m.parked.Add(-1)
		return nil, err
	}
	m.room.waiting.Add(1)
	r.release()
	defer r.resume()
	defer m.parked.Add(-1)
	defer m.room.waiting.Add(-1)
	patience := roomPatience
	if d := h.inv.Deadline; !d.IsZero() {
		patience = min(patience, d.Sub(m.cfg.Now()))
	}
	timer := time.NewTimer(patience) // of the real clock: it is real memory
	defer timer.Stop()
	for {
		freed := m.room.next()
		if in, err = instanceOf(module, ref, kept); !errors.Is(err, errNodeOverloaded) {
			return in, err
		}
		m.makeRoom()
		select {
		case <-freed:
		case <-timer.C:
			return nil, err
		case <-m.ctx.Done():
			return nil, err
		}
	}
}

// instanceOf makes an instance, with the memory that is kept if it is of its image.
func instanceOf(module nola.Module, ref nola.ActorRef, kept *nola.Memory) (nola.Instance, error) {
	in, err := module.Instantiate(ref)
	if err != nil || !fits(in, module, kept) {
		return in, err
	}
	if err := in.(nola.Keeper).Restore(kept); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// fits reports whether the memory that is kept is of the image of an instance of
// module.
func fits(in nola.Instance, module nola.Module, kept *nola.Memory) bool {
	if kept == nil || module.Manifest().Mode != nola.ModeMemory {
		return false
	}
	k, ok := in.(nola.Keeper)
	return ok && k.Image() == kept.Image
}
