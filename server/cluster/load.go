package cluster

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// How shards move because of what they cost. A cost is in microseconds of one
// processor per second: about what the shard has its node do.
const (
	// HeavyMax is how many shards a node names with their costs, the dearest.
	HeavyMax = 32
	// PlacedMax is how many shards a node has that belong to another by their hash.
	PlacedMax = 64
	// LoadMovesMax is how many shards one node gives away at once because of its load.
	LoadMovesMax = 8
	// LoadRest is how long a node that has taken or given a shard takes no part in
	// moves because of load: until its costs are known again.
	LoadRest = time.Minute
	// loadTime is the time in which a measured cost counts to 1-1/e.
	loadTime = 20 * time.Second

	// A node whose load is above overPercent of its fair share gives shards away
	// until it has not more than fullPercent of it, and nobody is filled further. What
	// lies between the two keeps shards from going to and fro.
	overPercent = 130
	fullPercent = 110
	// worthPart is the part of a fair share that a shard must cost to be moved.
	worthPart = 200
	// idleLoad is the mean load of nodes below which nothing moves because of it: two
	// hundredths of a processor.
	idleLoad = 20_000

	// What a turn, 1,000 steps of a guest and 100 committed bytes are taken for, in
	// microseconds.
	turnCost  = 50
	stepsCost = 1000
	bytesCost = 100
)

// ShardCost is what a shard costs its node.
type ShardCost struct {
	Shard nola.ShardID
	Cost  uint64
}

// Placed says that a node has, or is about to have, a shard that belongs to another
// one by its hash.
type Placed struct {
	Shard nola.ShardID
	Node  string // name
}

// Work is what a node tells of its load.
type Work struct {
	// Steady says that the costs are known: the node has neither taken nor given a
	// shard for LoadRest.
	Steady bool
	Load   uint64      // of all its shards
	Heavy  []ShardCost // the dearest, at most HeavyMax, in the order of their numbers
	// Placed are the shards that the node keeps although they belong to others, and those
	// that it gives to others although they do not belong there: at most PlacedMax
	// and LoadMovesMax.
	Placed []Placed
}

// meter measures what shards cost, from counters that only grow.
type meter struct {
	at     time.Duration
	shards map[nola.ShardID]*reading
}

type reading struct {
	counted uint64
	cost    float64
}

func newMeter() *meter { return &meter{shards: map[nola.ShardID]*reading{}} }

// counted is what a shard has cost so far, in microseconds.
func counted(s nola.ShardInfo) uint64 {
	return s.Turns*turnCost + s.Steps/stepsCost + s.Bytes/bytesCost
}

// read takes the counters in that the node's shards have now. expect answers what a
// shard has cost at its owner before.
func (m *meter) read(now time.Duration, shards []nola.ShardInfo, expect func(nola.ShardID) uint64) {
	passed := (now - m.at).Seconds()
	weight := 1 - math.Exp(-passed/loadTime.Seconds())
	m.at = now
	old := m.shards
	m.shards = make(map[nola.ShardID]*reading, len(shards))
	for _, s := range shards {
		r, c := old[s.Shard], counted(s)
		switch {
		case r == nil:
			r = &reading{cost: float64(expect(s.Shard))}
		case passed > 0 && c >= r.counted:
			r.cost += weight * (float64(c-r.counted)/passed - r.cost)
		}
		r.counted = c
		m.shards[s.Shard] = r
	}
}

// work is what there is to tell.
func (m *meter) work() Work {
	var w Work
	for id, r := range m.shards {
		cost := uint64(r.cost)
		w.Load += cost
		if cost > 0 {
			w.Heavy = append(w.Heavy, ShardCost{id, cost})
		}
	}
	slices.SortFunc(w.Heavy, func(a, b ShardCost) int { return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Shard, b.Shard)) })
	w.Heavy = w.Heavy[:min(len(w.Heavy), HeavyMax)]
	slices.SortFunc(w.Heavy, func(a, b ShardCost) int { return cmp.Compare(a.Shard, b.Shard) })
	return w
}

// Move is a shard that moves, or would, and why.
type Move struct {
	Shard    nola.ShardID
	From, To string // IDs; From is empty if nobody has the shard
	Why      string
}

// bearer is a node in a plan of moves because of load.
type bearer struct {
	NodeRow
	load   uint64
	fair   uint64 // its part of all load, by its weight
	placed int
	gives  int
	shards []ShardCost // the dearest first
}

func (b *bearer) room() uint64 {
	full := b.fair * fullPercent / 100
	return full - min(b.load, full)
}

func (b *bearer) percent() uint64 { return b.load * 100 / max(1, b.fair) }

// balance answers which shards should move because of what they cost. takers are
// the nodes that may have shards, with the weight that counts; owners answers who
// has each shard, home to whom it belongs by its hash (names). It moves a shard
// only from a node that has far too much, or to where it belongs, and only to a
// node that has not too much afterwards. It depends on nothing but its arguments.
func balance(takers []NodeRow, owners, home []string) []Move {
	bearers, byName := bearersOf(takers, owners)
	if bearers == nil {
		return nil
	}
	var moves []Move
	move := func(s ShardCost, from, to *bearer, why string) {
		from.load -= min(s.Cost, from.load)
		to.load += s.Cost
		from.gives++
		if home[s.Shard] != to.Name {
			to.placed++
		}
		moves = append(moves, Move{s.Shard, from.ID, to.ID, why})
	}
	for {
		from, s, to := heaviest(bearers, byName, home)
		if to == nil {
			break
		}
		why := fmt.Sprintf("load: %s has %d %% of its share and %s %d %%; the shard costs %s", from.Name, from.percent(), to.Name, to.percent(), processor(s.Cost))
		from.shards = slices.DeleteFunc(from.shards, func(o ShardCost) bool { return o.Shard == s.Shard })
		move(s, from, to, why)
	}
	if len(moves) > 0 {
		return moves
	}
	// Where all is well, what was moved away goes home when there is room again.
	for _, from := range bearers {
		for _, s := range from.shards {
			to := byName[home[s.Shard]]
			if to == nil || to == from || !to.Work.Steady || !from.Work.Steady || from.gives >= LoadMovesMax || to.load+s.Cost > to.fair {
				continue
			}
			move(s, from, to, fmt.Sprintf("it belongs to %s, which has room for it again", to.Name))
		}
	}
	return moves
}

// processor is a cost, for people.
func processor(cost uint64) string {
	return fmt.Sprintf("%.1f %% of a processor", float64(cost)/10_000)
}

func bearersOf(takers []NodeRow, owners []string) ([]*bearer, map[string]*bearer) {
	var load, weight uint64
	byName := map[string]*bearer{}
	var list []*bearer
	for _, n := range takers {
		b := &bearer{NodeRow: n, load: n.Work.Load}
		for _, p := range n.Work.Placed {
			if p.Node == n.Name {
				b.placed++
			}
		}
		load += n.Work.Load
		weight += uint64(n.Weight)
		byName[n.Name] = b
		list = append(list, b)
	}
	if weight == 0 || load < idleLoad*uint64(len(list)) {
		return nil, nil
	}
	for _, b := range list {
		b.fair = load * uint64(b.Weight) / weight
	}
	for i, owner := range owners {
		if b := byName[owner]; b != nil {
			b.shards = append(b.shards, ShardCost{nola.ShardID(i), 0})
		}
	}
	for _, b := range list {
		b.price()
	}
	slices.SortFunc(list, func(a, b *bearer) int { return cmp.Compare(a.Name, b.Name) })
	return list, byName
}

// price fills the costs of the bearer's shards in. Those it does not name share the
// rest of its load.
func (b *bearer) price() {
	named := map[nola.ShardID]uint64{}
	rest := b.load
	for _, s := range b.Work.Heavy {
		named[s.Shard] = s.Cost
	}
	others := uint64(0)
	for _, s := range b.shards {
		if c, found := named[s.Shard]; found {
			rest -= min(c, rest)
		} else {
			others++
		}
	}
	for i := range b.shards {
		s := &b.shards[i]
		var found bool
		if s.Cost, found = named[s.Shard]; !found {
			s.Cost = rest / others
		}
	}
	slices.SortFunc(b.shards, func(a, b ShardCost) int { return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Shard, b.Shard)) })
}

// heaviest answers the next shard to be moved, from the node that has most above its
// share of those that can give one; to is nil if there is none.
func heaviest(bearers []*bearer, byName map[string]*bearer, home []string) (from *bearer, s ShardCost, to *bearer) {
	for _, b := range bearers {
		if !b.Work.Steady || b.gives >= LoadMovesMax || from != nil && b.percent() <= from.percent() {
			continue
		}
		// Who has begun goes on until it is not full any more.
		if least := uint64(overPercent); b.percent() <= least && (b.gives == 0 || b.percent() <= fullPercent) {
			continue
		}
		for _, c := range b.shards {
			if c.Cost < max(1, b.fair/worthPart) || c.Cost > b.load-b.fair {
				continue
			}
			if t := taker(bearers, byName[home[c.Shard]], b, c); t != nil {
				from, s, to = b, c, t
				break
			}
		}
	}
	return from, s, to
}

// taker answers who should have a shard: whom it belongs to if there is room, or who
// has least.
func taker(bearers []*bearer, home, from *bearer, s ShardCost) (best *bearer) {
	fits := func(b *bearer) bool { return b != from && b.Work.Steady && b.gives == 0 && b.room() >= s.Cost }
	if home != nil && fits(home) {
		return home
	}
	for _, b := range bearers {
		if fits(b) && b.placed < PlacedMax && (best == nil || b.percent() < best.percent()) {
			best = b
		}
	}
	return best
}
