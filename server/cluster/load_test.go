package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// loaded is a cluster whose nodes have shards of known costs, in one view.
type loaded struct {
	v     View
	costs []uint64
	now   time.Duration
	plans map[string]*Planner
	moved []int
}

// newLoaded makes nodes of those weights whose shards are where their hash has them.
func newLoaded(weights []int, costs []uint64) *loaded {
	c := &loaded{costs: costs, plans: map[string]*Planner{}, now: time.Hour, moved: make([]int, len(costs))}
	c.v = View{Settled: true, Dead: func(string) bool { return false }}
	var shares []Share
	for i, weight := range weights {
		name := fmt.Sprintf("n%03d", i)
		c.v.Alive = append(c.v.Alive, NodeRow{ID: name + "#1", Name: name, Weight: weight})
		c.plans[name+"#1"] = NewPlanner(name + "#1")
		shares = append(shares, Share{name, weight})
	}
	for i, owner := range Assign(len(costs), shares) {
		c.v.Shards = append(c.v.Shards, ShardRow{Shard: nola.ShardID(i), Epoch: 1, Node: owner + "#1"})
	}
	return c
}

// measure has each node tell of its load.
func (c *loaded) measure() {
	for i := range c.v.Alive {
		n := &c.v.Alive[i]
		m := newMeter()
		for _, row := range c.v.Shards {
			if row.Node == n.ID {
				m.shards[row.Shard] = &reading{cost: float64(c.costs[row.Shard])}
			}
		}
		n.Work = m.work()
		n.Work.Placed, n.Work.Steady = c.plans[n.ID].Placed(), c.plans[n.ID].Steady(c.now)
	}
}

// round has each node plan with the same view, and carries out what they say. It
// answers how many shards moved.
func (c *loaded) round(t *testing.T) (moves int) {
	t.Helper()
	c.now += time.Second
	c.measure()
	next := slices.Clone(c.v.Shards)
	var first []string
	for _, n := range c.v.Alive {
		v := c.v
		v.Serving = func(id nola.ShardID) nola.Epoch {
			if row := c.v.Shards[id]; row.Node == n.ID {
				return row.Epoch
			}
			return 0
		}
		p := c.plans[n.ID]
		steps := p.Plan(c.now, v)
		if desired := p.Desired(v); first == nil {
			first = desired
		} else if !slices.Equal(first, desired) {
			t.Fatal("nodes with the same view do not agree where shards belong")
		}
		for _, s := range steps {
			row := &next[s.From.Shard]
			switch s.Kind {
			case StepRelease:
				row.Node, row.HandoffTo = "", s.To
			case StepClaim:
				*row = ShardRow{Shard: row.Shard, Epoch: row.Epoch + 1, Node: n.ID}
				moves++
				c.moved[row.Shard]++
			}
			how := EndedWell
			if s.Kind == StepRelease {
				how = EndedGiven
			}
			p.Ended(s, how)
		}
	}
	c.v.Shards = next
	return moves
}

// rests goes on until nothing has moved for longer than nodes rest, and answers
// how many shards were moved.
func (c *loaded) rests(t *testing.T) (moves int) {
	t.Helper()
	quiet := 0
	for range 30_000 {
		if n := c.round(t); n > 0 {
			quiet, moves = 0, moves+n
		} else if quiet++; quiet > int(LoadRest/time.Second)+10 {
			return moves
		}
	}
	t.Fatalf("shards still move after %d moves", moves)
	return 0
}

// percents are the loads of the nodes in percent of their shares.
func (c *loaded) percents() (list []uint64) {
	c.measure()
	var load, weight uint64
	for _, n := range c.v.Alive {
		load, weight = load+n.Work.Load, weight+uint64(n.Weight)
	}
	for _, n := range c.v.Alive {
		list = append(list, n.Work.Load*100/max(1, load*uint64(n.Weight)/weight))
	}
	return list
}

// Whatever shards cost, nodes come to rest after few moves; no shard goes to and
// fro; and who is left with too much has nothing that another could take.
func TestLoadSettles(t *testing.T) {
	for i := range *deepFlag {
		seed := uint64(i + 1)
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		r := rand.New(rand.NewPCG(seed, 2))
		weights := make([]int, 2+r.IntN(6))
		for i := range weights {
			weights[i] = 50 + r.IntN(150)
		}
		costs := make([]uint64, 16+r.IntN(100))
		for i := range costs {
			switch r.IntN(8) {
			case 0:
				costs[i] = uint64(r.IntN(400_000))
			case 1:
			default:
				costs[i] = uint64(5_000 + r.IntN(20_000))
			}
		}
		c := newLoaded(weights, costs)
		before := c.percents()
		moves := c.rests(t)
		if moves > len(costs) {
			t.Errorf("-seed %d: %d moves of %d shards", seed, moves, len(costs))
		}
		for id, n := range c.moved {
			if n > 2 {
				t.Errorf("-seed %d: shard %d moved %d times", seed, id, n)
			}
		}
		after := c.percents()
		if slices.Max(after) > max(slices.Max(before), overPercent) {
			t.Errorf("-seed %d: loads were %d %%, and are %d %%", seed, before, after)
		}
		// Costs that waver by a twentieth move nothing more than they must.
		steady := slices.Clone(c.costs)
		again := 0
		for range 5 {
			for i := range c.costs {
				c.costs[i] = steady[i] * uint64(950+r.IntN(100)) / 1000
			}
			again += c.rests(t)
		}
		if again > 3*LoadMovesMax {
			t.Errorf("-seed %d: %d moves though nothing has changed", seed, again)
		}
	}
}

// A node with several dear shards gives some of them away; one whose load is a
// single shard keeps that one, and gives the others away.
func TestLoadSpreads(t *testing.T) {
	const shards = 64
	base := newLoaded([]int{100, 100, 100, 100}, make([]uint64, shards))
	busy := base.v.Shards[0].Node
	t.Run("dear shards", func(t *testing.T) {
		costs := make([]uint64, shards)
		for i, row := range base.v.Shards {
			if costs[i] = 10_000; row.Node == busy {
				costs[i] = 40_000
			}
		}
		c := newLoaded([]int{100, 100, 100, 100}, costs)
		moves := c.rests(t)
		if most := slices.Max(c.percents()); most > overPercent || moves > 16 {
			t.Errorf("after %d moves a node has %d %% of its share", moves, most)
		}
		if c.moved[0] > 1 {
			t.Errorf("shard 0 moved %d times", c.moved[0])
		}
		// Once they cost as little as the others, they go home.
		for i := range costs {
			costs[i] = 10_000
		}
		back := c.rests(t)
		percents, away := c.percents(), 0
		for i, row := range c.v.Shards {
			home := base.v.Shards[i].Node
			if row.Node == home {
				continue
			}
			away++
			at := slices.IndexFunc(c.v.Alive, func(n NodeRow) bool { return n.ID == home })
			if n := c.v.Alive[at]; (n.Work.Load+costs[i])*100/(n.Work.Load*100/percents[at]) <= 100 {
				t.Errorf("after %d moves shard %d is at %s, though %s, to which it belongs, has %d %% of its share", back, i, row.Node, home, percents[at])
			}
		}
		if back == 0 || away >= moves {
			t.Errorf("%d of %d shards are still away after %d moves", away, moves, back)
		}
	})
	t.Run("one hot shard", func(t *testing.T) {
		costs := make([]uint64, shards)
		for i := range costs {
			costs[i] = 10_000
		}
		costs[0] = 900_000
		c := newLoaded([]int{100, 100, 100, 100}, costs)
		c.rests(t)
		alone := 0
		for _, row := range c.v.Shards {
			if row.Node == busy {
				alone++
			}
		}
		if c.v.Shards[0].Node != busy || c.moved[0] != 0 || alone != 1 {
			t.Errorf("the hot shard is at %s with %d others, and moved %d times", c.v.Shards[0].Node, alone-1, c.moved[0])
		}
	})
	t.Run("idle", func(t *testing.T) {
		costs := make([]uint64, shards)
		costs[0], costs[1] = 50_000, 20_000
		if moves := newLoaded([]int{100, 100, 100, 100}, costs).rests(t); moves != 0 {
			t.Errorf("%d moves on a cluster with little to do", moves)
		}
	})
}

// What a shard costs follows its counters, and starts with what its owner before has
// told of it.
func TestMeter(t *testing.T) {
	m := newMeter()
	info := nola.ShardInfo{Shard: 3}
	none := func(nola.ShardID) uint64 { return 0 }
	for i := range 200 {
		info.Turns += 1000
		info.Steps += 100_000_000
		info.Bytes += 1_000_000
		m.read(time.Duration(i)*time.Second, []nola.ShardInfo{info}, none)
	}
	// 1,000 turns of 50 us, 100 ms of steps, and 10 ms of bytes, each second.
	if w := m.work(); w.Load < 155_000 || w.Load > 160_000 || len(w.Heavy) != 1 {
		t.Errorf("load %+v, want about 160,000", w)
	}
	m.read(201*time.Second, []nola.ShardInfo{{Shard: 5}}, func(nola.ShardID) uint64 { return 777 })
	if w := m.work(); w.Load != 777 || !slices.Equal(w.Heavy, []ShardCost{{5, 777}}) {
		t.Errorf("a shard that was taken counts %+v", w)
	}
	list := make([]nola.ShardInfo, 2*HeavyMax)
	for i := range list {
		list[i].Shard = nola.ShardID(100 + i)
	}
	m.read(202*time.Second, list, func(id nola.ShardID) uint64 { return uint64(id) })
	if w := m.work(); len(w.Heavy) != HeavyMax || w.Heavy[0].Shard != 100+HeavyMax {
		t.Errorf("%d shards are named, from %d on", len(w.Heavy), w.Heavy[0].Shard)
	}
}
