package cluster

import (
	"slices"
	"time"

	"github.com/nolaproject/nola"
)

// The limits of a planner.
const (
	// ClaimsMax is how many shards a node takes at once.
	ClaimsMax = 64
	// WaveMax is how many shards a node gives away at once. One that stays gives at
	// most wavePercent of what it has, but one at least.
	WaveMax     = 32
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
	Alive   []NodeRow                     // as Members.Alive
	Dead    func(node string) bool        // as Members.Dead
	Settled bool                          // as Members.Settled
	Shards  []ShardRow                    // all, in order
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
	}
}

// Plan answers what to do now. Each step is carried out once, and Ended is called
// when that is over, well or not.
func (p *Planner) Plan(now time.Duration, v View) []Step {
	ids := p.assign(v)
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
		steps = append(steps, step)
	}
	return steps
}

// Ended tells that a step is over. released is set if the shard was released.
func (p *Planner) Ended(s Step, released bool) {
	delete(p.busy, s.From.Shard)
	if released && s.To != "" {
		p.given[s.From.Shard] = s.From.Epoch
	}
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
		if n.ID == p.self && (n.Weight == 0 || n.Leaving) {
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
	return slices.ContainsFunc(v.Alive, func(n NodeRow) bool { return n.ID == p.self && !n.Leaving })
}

// assign answers the ID of the node that each shard belongs to. Where all nodes
// give their shards away, who has one keeps it, and those that stay take what has
// lost its owner.
func (p *Planner) assign(v View) []string {
	var shares []Share
	ids, leaving := map[string]string{}, map[string]bool{}
	for _, n := range v.Alive {
		if !n.Leaving && n.Weight > 0 {
			shares = append(shares, Share{n.Name, n.Weight})
		}
		ids[n.Name], leaving[n.ID] = n.ID, n.Leaving
	}
	all := len(shares) == 0
	if all {
		for _, n := range v.Alive {
			if !n.Leaving {
				shares = append(shares, Share{n.Name, 1})
			}
		}
	}
	if len(p.owners) != len(v.Shards) || !slices.Equal(shares, p.shares) {
		p.shares, p.owners = shares, Assign(len(v.Shards), shares)
	}
	desired := make([]string, len(p.owners))
	for i, name := range p.owners {
		desired[i] = ids[name]
		if owner := v.Shards[i].Node; all && owner != "" && !v.Dead(owner) && !leaving[owner] {
			desired[i] = owner
		}
	}
	return desired
}
