package core

import (
	"fmt"

	"github.com/nolaproject/nola"
)

// ask has rows read for this tenure.
func (s *Shard) ask(out *Output, l Load) {
	l.epoch = s.epoch
	var p *Load
	if n := len(s.loads); n > 0 {
		p, s.loads = s.loads[n-1], s.loads[:n-1]
	} else {
		p = new(Load)
	}
	*p = l
	out.Loads = append(out.Loads, p)
}

// loadsMax is how many loads are kept to be used again.
const loadsMax = 8

// step takes in what was read. What an earlier tenure asked for is dropped. Nobody
// may look at the load afterwards.
func (l *Load) step(s *Shard, out *Output) {
	if s.fenced != nil || l.epoch != s.epoch {
		return
	}
	switch l.Kind {
	case LoadActor:
		s.loadedActor(l, out)
	case LoadKey:
		s.loadedKey(l, out)
	case LoadBacklog:
		s.loadedBacklog(l, out)
	case LoadDue:
		s.loadedDue(l, out)
	case LoadSchedule:
		s.loadedSchedule(l, out)
	case LoadOutbox:
		s.loadedOutbox(l, out)
	case LoadOwned:
		s.loadedOwned(l, out)
	case LoadExpired:
		s.expiredKeys(l, out)
	default:
		panic(fmt.Sprintf("core: load kind %d", l.Kind))
	}
	if *l = (Load{}); len(s.loads) < loadsMax {
		s.loads = append(s.loads, l)
	}
}

// Query asks whether an invocation is on its way. It is answered with Pending
// set if so; otherwise the store knows all there is to know.
type Query struct {
	Ticket
	Ref nola.ActorRef
	ID  nola.InvocationID
	Key nola.Key

	Pending bool
}

func (in *Query) step(s *Shard, out *Output) {
	if s.fenced != nil {
		s.refuse(&in.Ticket, s.fenced, out)
		return
	}
	seq := s.committed
	if a := s.acts[in.Ref]; a != nil {
		seq = a.dep
		if in.Key.IsZero() {
			in.Pending = a.holds(in.ID)
		} else if e := a.keys[idOf(in.Key)]; e != nil && e.seq == 0 {
			in.Pending = true
		}
	}
	s.park(&in.Ticket, seq, out)
}

// holds reports whether the invocation waits or runs.
func (a *Activation) holds(id nola.InvocationID) bool {
	if a.running && a.turn.Call != nil && a.turn.Call.Inv.ID == id {
		return true
	}
	for _, l := range []*callList{&a.queue, &a.casts} {
		for c := l.head; c != nil; c = c.next {
			if c.Inv != nil && c.Inv.ID == id {
				return true
			}
		}
	}
	for _, in := range a.waiting {
		if c, ok := in.(*Call); ok && c.Inv.ID == id {
			return true
		}
	}
	return false
}
