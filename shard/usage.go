package shard

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nolaproject/nola"
)

// Limits of what a node remembers of what turns have cost.
const (
	// usageTypesMax is how many types of actors are told apart; those of further
	// ones are summed for each namespace.
	usageTypesMax = 1_000
	// usageNamespacesMax is for how many namespaces they are; beyond it for all.
	usageNamespacesMax = 1_000
	// usageActorsMax is how many actors are watched at once.
	usageActorsMax = 8_192
)

// usage sums what turns have cost since the node was opened: by type exactly, by
// actor for those that cost most. Turns are charged under the mutex of one of
// several stripes, the same for all actors of a shard; who reads merges them.
type usage struct {
	since   time.Time
	stripes []stripe // a power of two

	mu    sync.RWMutex // guards what follows; taken before a stripe's
	types map[typeName]*typeUsage
	rests int
}

type stripe struct {
	mu     sync.Mutex // guards actors, and the cells of this stripe in all types
	actors sketch
	_      [64]byte // each on cache lines of its own
}

// cost is what one or several turns took.
type cost struct {
	turns, steps uint64
	ran          time.Duration
}

func (c *cost) add(d cost) {
	c.turns += d.turns
	c.steps += d.steps
	c.ran += d.ran
}

type typeName struct{ namespace, name string }

// typeUsage is the sum for one type of actors, or for those that no sum is left for.
type typeUsage struct {
	typeName
	cells []cell // by stripe
}

type cell struct {
	cost
	_ [40]byte
}

func (u *usage) init(now time.Time, shards, tokens int) {
	u.since = now
	u.types = make(map[typeName]*typeUsage)
	stripes := 1
	for stripes*2 <= shards && stripes < 4*tokens && stripes < usageActorsMax/128 {
		stripes *= 2
	}
	u.stripes = make([]stripe, stripes)
	for i := range u.stripes {
		u.stripes[i].actors.init(usageActorsMax / stripes)
	}
}

// charge adds what a turn of an actor of that shard took. The turn is g's.
func (u *usage) charge(g *guest, shard nola.ShardID, ref nola.ActorRef, c cost) {
	if g.kind == nil {
		g.kind = u.typeOf(ref)
	}
	at := int(shard) & (len(u.stripes) - 1)
	s := &u.stripes[at]
	s.mu.Lock()
	g.kind.cells[at].add(c)
	g.watched = s.actors.add(g.watched, ref, c)
	s.mu.Unlock()
}

// typeOf finds the sum that an actor's turns go into.
func (u *usage) typeOf(ref nola.ActorRef) *typeUsage {
	name := typeName{ref.Namespace, ref.Type}
	u.mu.RLock()
	t := u.types[name]
	u.mu.RUnlock()
	if t != nil {
		return t
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.types)-u.rests < usageTypesMax {
		return u.sum(name)
	}
	if t := u.types[name]; t != nil {
		return t
	}
	rest := typeName{ref.Namespace, nola.UsageRest}
	if u.types[rest] == nil && u.rests >= usageNamespacesMax {
		rest.namespace = nola.UsageRest
	}
	if u.types[rest] == nil {
		u.rests++
	}
	return u.sum(rest)
}

// sum finds or makes a sum. The mutex is held.
func (u *usage) sum(name typeName) *typeUsage {
	t := u.types[name]
	if t == nil {
		name = typeName{strings.Clone(name.namespace), strings.Clone(name.name)}
		t = &typeUsage{name, make([]cell, len(u.stripes))}
		u.types[name] = t
	}
	return t
}

// TypeUsage answers what the turns of each type of actors have cost since the node
// was opened, in the order of namespaces and types. There are at most 1,000 types;
// what further ones cost is summed under the type [nola.UsageRest] of their
// namespace, or of the namespace UsageRest if there are more than 1,000 of these.
func (m *Manager) TypeUsage() []nola.Usage { return m.usage.byType() }

func (u *usage) byType() []nola.Usage {
	u.mu.RLock()
	defer u.mu.RUnlock()
	list := make([]nola.Usage, 0, len(u.types))
	for _, t := range u.types {
		var c cost
		for at := range u.stripes {
			u.stripes[at].mu.Lock()
			c.add(t.cells[at].cost)
			u.stripes[at].mu.Unlock()
		}
		list = append(list, nola.Usage{Ref: nola.ActorRef{Namespace: t.namespace, Type: t.name}, Turns: c.turns, Steps: c.steps, RunTime: c.ran})
	}
	slices.SortFunc(list, func(a, b nola.Usage) int { return compareRefs(a.Ref, b.Ref) })
	return list
}

// ActorUsage answers the actors whose turns have taken most steps since the node
// was opened, at most 8,192, in the order of their names. It is an estimate in
// bounded memory (SpaceSaving): Steps is never too low, and at most StepsError too
// high. The shards are dealt out to up to 64 groups with an equal part of the
// places; StepsError, and the steps of an actor that is missing, are at most the
// steps of its group divided by the places of the group. Turns and RunTime are
// counted since the actor is among them.
func (m *Manager) ActorUsage() []nola.Usage { return m.usage.byActor() }

func (u *usage) byActor() []nola.Usage {
	var list []nola.Usage
	for i := range u.stripes {
		s := &u.stripes[i]
		s.mu.Lock()
		for _, w := range s.actors.heap {
			list = append(list, nola.Usage{Ref: w.ref, Turns: w.turns, Steps: w.steps, StepsError: w.over, RunTime: w.ran})
		}
		s.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b nola.Usage) int { return compareRefs(a.Ref, b.Ref) })
	return list
}

func compareRefs(a, b nola.ActorRef) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Type, b.Type), strings.Compare(a.ID, b.ID))
}

// UsageSince is since when TypeUsage and ActorUsage count.
func (m *Manager) UsageSince() time.Time { return m.usage.since }

// sketch keeps the actors of a stripe that have taken most steps, by the
// SpaceSaving algorithm: an actor that is not watched takes the place of the one
// that has taken the fewest, and is charged with these too.
type sketch struct {
	max    int
	actors map[nola.ActorRef]*watched
	// heap has the least first by steps as they were when it was last in order
	// there; steps only grow, so that the least is set right when it is asked for.
	heap []*watched
}

// watched is an actor in a sketch.
type watched struct {
	ref nola.ActorRef
	cost
	over   uint64 // of steps, those that were another's
	sorted uint64 // steps that the heap goes by
}

func (s *sketch) init(actors int) {
	s.max, s.actors = actors, make(map[nola.ActorRef]*watched)
}

// add charges an actor and answers its place. w is where it was before, if it is
// known; another may have it now.
func (s *sketch) add(w *watched, ref nola.ActorRef, c cost) *watched {
	if w == nil || w.ref != ref {
		if w = s.actors[ref]; w == nil {
			w = s.watch(ref)
		}
	}
	w.add(c)
	return w
}

// watch makes a place for an actor.
func (s *sketch) watch(ref nola.ActorRef) *watched {
	var w *watched
	if len(s.heap) < s.max {
		w = new(watched)
		s.heap = append(s.heap, w)
		for at := len(s.heap) - 1; at > 0; at = (at - 1) / 2 { // none has fewer steps than none
			s.heap[at], s.heap[(at-1)/2] = s.heap[(at-1)/2], s.heap[at]
		}
	} else {
		w = s.least()
		delete(s.actors, w.ref)
		w.over, w.cost = w.steps, cost{steps: w.steps}
	}
	// Its strings may be parts of a request.
	w.ref = nola.ActorRef{Namespace: strings.Clone(ref.Namespace), Type: strings.Clone(ref.Type), ID: strings.Clone(ref.ID)}
	s.actors[w.ref] = w
	return w
}

// least is the actor with the fewest steps.
func (s *sketch) least() *watched {
	for {
		w := s.heap[0]
		if w.sorted == w.steps {
			return w
		}
		w.sorted = w.steps
		s.sink()
	}
}

// sink puts the first of the heap where it belongs.
func (s *sketch) sink() {
	h := s.heap
	for at := 0; ; {
		least := 2*at + 1
		if least >= len(h) {
			return
		}
		if right := least + 1; right < len(h) && h[right].sorted < h[least].sorted {
			least = right
		}
		if h[at].sorted <= h[least].sorted {
			return
		}
		h[at], h[least] = h[least], h[at]
		at = least
	}
}
