package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// The limits of a planner.
const (
	// ClaimsMax is how many shards a node takes at once.
	ClaimsMax = 64
	// WaveMax is how many shards a node gives away at once: the more, the longer each is
	// without a server, for they want the same store. One that stays gives at most
	// wavePercent of what it has, but one at least.
	WaveMax     = 4
	wavePercent = 5
	// OverdueAfter is how long a shard waits for the node that it was released for;
	// then the one that it belongs to takes it.
	OverdueAfter = 5 * time.Second
)

// StepKind says what a step does.
type StepKind uint8

// The kinds of steps.
const (
	StepClaim   StepKind = iota + 1 // take the shard, whose row is From
	StepRelease                     // stop to serve the shard and release it for To
	StepDrop                        // stop to serve the shard: somebody else has it
)

// Step is one move of one shard.
type Step struct {
	Kind StepKind
	From ShardRow
	To   string // ID of a node, or empty
}

// View is what a node sees of its cluster.
type View struct {
	Alive   []NodeRow              // as Members.Alive
	Dead    func(node string) bool // as Members.Dead
	Settled bool                   // as Members.Settled
	Shards  []ShardRow             // all, in order
	Rules   []persistence.PlacementRule
	Serving func(nola.ShardID) nola.Epoch // under which this node serves a shard, 0 if it does not
}

// Planner decides which shards its node takes and which it gives away. It knows
// nothing but its view, and any number of planners with any views do no harm:
// claims and releases are conditional. Those with the same view agree. Times are
// readings of one clock. One goroutine at a time uses it.
type Planner struct {
	self string
	busy map[nola.ShardID]StepKind // steps that have not ended
	// vacant is since when a shard is seen without an owner.
	vacant map[nola.ShardID]vacancy
	// given are shards that were released by this node and not seen taken.
	given map[nola.ShardID]nola.Epoch

	shares []Share // what owners was made of
	owners []string

	// kept are shards of this node that belong to another one by their hash. It says
	// so in its row, and lets a shard go by saying so no more.
	name string // of the node, as last seen
	kept map[nola.ShardID]bool
	// offers are shards that this node gives to nodes to which they do not belong,
	// until those say that they keep them.
	offers map[nola.ShardID]offer
	// steady is when this node may move shards because of load again.
	steady time.Duration
	// moves are those because of load that nodes with this view would begin now.
	moves []Move
}

// offer is a shard on its way to where it is placed.
type offer struct {
	node, id string
	epoch    nola.Epoch
	arrived  time.Duration // when its new owner was first seen; 0: not yet
}

type vacancy struct {
	epoch nola.Epoch
	since time.Duration
}

// NewPlanner makes the planner of the node self.
func NewPlanner(self string) *Planner {
	return &Planner{
		self: self, busy: map[nola.ShardID]StepKind{},
		vacant: map[nola.ShardID]vacancy{}, given: map[nola.ShardID]nola.Epoch{},
		kept: map[nola.ShardID]bool{}, offers: map[nola.ShardID]offer{},
	}
}

// Plan answers what to do now. Each step is carried out once, and Ended is called
// when that is over, well or not.
func (p *Planner) Plan(now time.Duration, v View) []Step {
	p.place(now, v)
	ids := p.assign(v)
	p.rebalance(now, v, ids)
	claims, waves := 0, 0
	for _, kind := range p.busy {
		switch kind {
		case StepClaim:
			claims++
		case StepRelease:
			waves++
		}
	}
	served := 0
	for _, row := range v.Shards {
		if v.Serving(row.Shard) != 0 {
			served++
		}
		p.look(now, row)
		if _, ours := p.given[row.Shard]; ours {
			waves++
		}
	}
	room := p.room(v, served)
	var steps []Step
	for _, row := range v.Shards {
		if _, busy := p.busy[row.Shard]; busy {
			continue
		}
		step := p.next(now, v, row, ids)
		switch {
		case step.Kind == 0,
			step.Kind == StepClaim && claims >= ClaimsMax,
			step.Kind == StepRelease && waves >= room:
			continue
		case step.Kind == StepClaim:
			claims++
		case step.Kind == StepRelease:
			waves++
		}
		p.busy[row.Shard] = step.Kind
		p.steady = now + LoadRest
		steps = append(steps, step)
	}
	return steps
}

// Ending says how a step ended.
type Ending uint8

// The endings of a step.
const (
	EndedBadly Ending = iota // it is looked at again
	EndedWell                // what was passed on is served by its next owner, or has had its time
	EndedGiven               // the shard was released, and nobody has taken it yet
)

// Ended tells that a step is over.
func (p *Planner) Ended(s Step, how Ending) {
	delete(p.busy, s.From.Shard)
	if how == EndedGiven && s.To != "" {
		p.given[s.From.Shard] = s.From.Epoch
	}
}

// place keeps account of the shards that are not where their hash has them.
func (p *Planner) place(now time.Duration, v View) {
	home := p.home(v)
	names := map[string]string{}
	for _, n := range v.Alive {
		names[n.ID] = n.Name
	}
	p.name = names[p.self]
	keeps := func(n NodeRow, id nola.ShardID) bool { return slices.Contains(n.Work.Placed, Placed{id, n.Name}) }
	for _, n := range v.Alive {
		for _, s := range n.Work.Placed {
			arrived := n.ID != p.self && s.Node == p.name && int(s.Shard) < len(v.Shards) && v.Shards[s.Shard].Node == p.self
			if arrived && len(p.kept) < PlacedMax {
				p.kept[s.Shard] = true
			}
		}
		for id, o := range p.offers {
			if n.ID == o.id && keeps(n, id) {
				delete(p.offers, id)
			}
		}
	}
	for id := range p.kept {
		if v.Shards[id].Node != p.self || home[id] == p.name {
			delete(p.kept, id)
		}
	}
	for id, o := range p.offers {
		row := v.Shards[id]
		if names[o.id] == "" || row.Epoch > o.epoch+1 || row.Node != "" && row.Node != p.self && row.Node != o.id {
			delete(p.offers, id)
			continue
		}
		if row.Node == o.id && o.arrived == 0 {
			o.arrived = now
			p.offers[id] = o
		}
		if o.arrived != 0 && now-o.arrived > LoadRest { // it does not keep it
			delete(p.offers, id)
		}
	}
}

// rebalance begins to move shards because of load, if everything is at rest.
func (p *Planner) rebalance(now time.Duration, v View, ids []string) {
	p.moves = nil
	if !v.Settled {
		return
	}
	shares, fallback := v.shares()
	if fallback {
		return
	}
	weights := map[string]int{}
	for _, s := range shares {
		weights[s.Name] = s.Weight
	}
	names := map[string]string{}
	var takers []NodeRow
	for _, n := range v.Alive {
		names[n.ID] = n.Name
		if weight, may := weights[n.Name]; may {
			n.Weight = weight
			takers = append(takers, n)
		}
		for _, s := range n.Work.Placed {
			if s.Node != n.Name {
				return // a shard is on its way
			}
		}
	}
	owners := make([]string, len(v.Shards))
	for i, row := range v.Shards {
		if row.Node != ids[i] || row.Node == "" {
			return
		}
		owners[i] = names[row.Node]
	}
	p.moves = balance(takers, owners, p.home(v))
	if len(p.busy) > 0 || len(p.offers) > 0 || now < p.steady {
		return
	}
	for _, m := range p.moves {
		if m.From != p.self {
			continue
		}
		p.steady = now + LoadRest
		if name := names[m.To]; p.kept[m.Shard] && p.owners[m.Shard] == name {
			delete(p.kept, m.Shard) // it goes home
		} else {
			p.offers[m.Shard] = offer{node: name, id: m.To, epoch: v.Shards[m.Shard].Epoch}
		}
	}
}

// Placed answers what the node has to say in its row of shards that are not where
// their hash has them.
func (p *Planner) Placed() []Placed {
	var list []Placed
	for id := range p.kept {
		if _, offered := p.offers[id]; !offered {
			list = append(list, Placed{id, p.name})
		}
	}
	for id, o := range p.offers {
		list = append(list, Placed{id, o.node})
	}
	slices.SortFunc(list, func(a, b Placed) int { return cmp.Compare(a.Shard, b.Shard) })
	return list
}

// Steady reports whether the costs of the node's shards are known well enough.
func (p *Planner) Steady(now time.Duration) bool { return now >= p.steady }

// Rests reports whether nothing is on its way: every shard has the owner to whom it
// belongs, and this node serves what it owns.
func (p *Planner) Rests(v View) bool {
	if len(p.busy)+len(p.offers)+len(p.moves) > 0 {
		return false
	}
	for i, id := range p.assign(v) {
		row := v.Shards[i]
		if row.Node != id || id == p.self && v.Serving(row.Shard) != row.Epoch {
			return false
		}
	}
	return true
}

// Moves answers the shards that are not where they belong, and those that the nodes
// would move now because of load, each with the reason.
func (p *Planner) Moves(v View) []Move {
	moves := slices.Clone(p.moves)
	rows := map[string]NodeRow{}
	for _, n := range v.Alive {
		rows[n.ID] = n
	}
	home := p.home(v)
	for i, to := range p.assign(v) {
		row := v.Shards[i]
		if len(rows) == 0 {
			break // nobody is seen yet
		}
		if _, lives := rows[row.Node]; row.Node != "" && row.Node == to || to == "" && lives && requires(v.Rules, rows[row.Node].Labels) == "" {
			continue
		}
		m := Move{Shard: row.Shard, From: row.Node, To: to}
		from, lives := rows[row.Node]
		switch barred := requires(v.Rules, from.Labels); {
		case to == "":
			m.Why = cmp.Or(v.unserved(), "no node may serve it")
		case row.Node == "" && row.HandoffTo != "":
			m.Why = "it is on its way"
		case row.Node == "":
			m.Why = "nobody serves it"
		case !lives:
			m.Why = "its node is not seen alive"
		case from.Leaving:
			m.Why = "its node is about to end"
		case from.Weight == 0:
			m.Why = "its node is drained"
		case barred != "":
			m.Why = barred
		case rows[to].Name != home[i]:
			m.Why = "load: its node has given it away"
		default:
			m.Why = "the names, weights and labels of the nodes that live give it to the other"
		}
		moves = append(moves, m)
	}
	slices.SortFunc(moves, func(a, b Move) int { return cmp.Compare(a.Shard, b.Shard) })
	return moves
}

// Desired answers the ID of the node that each shard belongs to, as last planned;
// empty if there is none.
func (p *Planner) Desired(v View) []string { return p.assign(v) }

// look keeps account of shards without an owner.
func (p *Planner) look(now time.Duration, row ShardRow) {
	if row.Node != "" {
		delete(p.vacant, row.Shard)
	} else if was, found := p.vacant[row.Shard]; !found || was.epoch != row.Epoch {
		p.vacant[row.Shard] = vacancy{row.Epoch, now}
	}
	if epoch, found := p.given[row.Shard]; found && (row.Epoch != epoch || row.Node == "" && p.overdue(now, row)) {
		delete(p.given, row.Shard)
	}
}

func (p *Planner) overdue(now time.Duration, row ShardRow) bool {
	was, found := p.vacant[row.Shard]
	return found && now-was.since >= OverdueAfter
}

// room is how many shards may be on their way from this node.
func (p *Planner) room(v View, served int) int {
	for _, n := range v.Alive {
		if n.ID == p.self && (n.Weight == 0 || n.Leaving || requires(v.Rules, n.Labels) != "") {
			return WaveMax
		}
	}
	return max(1, min(WaveMax, served*wavePercent/100))
}

// next is what to do about one shard, if anything.
func (p *Planner) next(now time.Duration, v View, row ShardRow, ids []string) Step {
	mine := v.Serving(row.Shard)
	desired := ids[row.Shard]
	claim := Step{Kind: StepClaim, From: row}
	switch {
	case mine != 0 && row.Epoch > mine:
		return Step{Kind: StepDrop, From: row}
	case mine != 0 && row.Epoch == mine && row.Node == p.self:
		if desired == p.self || desired == "" || !v.Settled {
			return Step{}
		}
		return Step{Kind: StepRelease, From: row, To: desired}
	case mine != 0: // the row was read before we took the shard
		return Step{}
	case row.Node == p.self: // a claim whose answer never came, or a shard that was fenced
		return claim
	case row.Node != "":
		if desired == p.self && v.Dead(row.Node) {
			return claim
		}
	case row.HandoffTo == p.self && p.takes(v):
		return claim
	case desired == p.self && v.Settled && (row.HandoffTo == "" || v.Dead(row.HandoffTo) || p.overdue(now, row)):
		return claim
	}
	return Step{}
}

// takes reports whether this node wants shards at all.
func (p *Planner) takes(v View) bool {
	return slices.ContainsFunc(v.Alive, func(n NodeRow) bool { return n.ID == p.self && !n.Leaving && requires(v.Rules, n.Labels) == "" })
}

// home answers the name of the node that each shard belongs to by its hash; empty if
// no node may have it.
func (p *Planner) home(v View) []string {
	shares, _ := v.shares()
	if len(p.owners) != len(v.Shards) || !slices.Equal(shares, p.shares) {
		p.shares, p.owners = shares, Assign(len(v.Shards), shares)
	}
	return p.owners
}

// assign answers the ID of the node that each shard belongs to: by its hash, unless
// its owner, or who has just given it away, says otherwise. Where all nodes that may
// have shards give them away, who has one keeps it, and those that stay take what has
// lost its owner.
func (p *Planner) assign(v View) []string {
	shares, fallback := v.shares()
	ids, takes := map[string]string{}, map[string]bool{}
	for _, s := range shares {
		takes[s.Name] = true
	}
	for _, n := range v.Alive {
		ids[n.Name] = n.ID
	}
	home := p.home(v)
	desired := make([]string, len(home))
	for i, name := range home {
		desired[i] = ids[name]
	}
	if fallback {
		for _, n := range v.Alive {
			for i := range desired {
				if takes[n.Name] && v.Shards[i].Node == n.ID {
					desired[i] = n.ID
				}
			}
		}
		return desired
	}
	for _, own := range []bool{false, true} { // the owner's word counts most
		for _, n := range v.Alive {
			for _, s := range n.Work.Placed {
				if int(s.Shard) >= len(desired) || !takes[s.Node] {
					continue
				}
				row, to := v.Shards[s.Shard], ids[s.Node]
				if own && row.Node == n.ID || !own && row.Node != n.ID && (row.Node == to || row.Node == "" && row.HandoffTo == to) {
					desired[s.Shard] = to
				}
			}
		}
	}
	return desired
}
