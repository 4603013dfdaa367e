package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// What the store and the network are taken to cost in a fleet.
const (
	fleetTick    = 10 * time.Millisecond
	fleetRead    = 20 * time.Millisecond // all rows of nodes and shards
	fleetPlain   = 5 * time.Millisecond  // a quorum read or write
	fleetLWT     = 15 * time.Millisecond // a conditional write, and up to as much again
	fleetHandOff = 10 * time.Millisecond // until a shard that is given away is at rest
)

// fleet is a cluster of many nodes in virtual time: real Members and Planners over
// rows that answer after the times above. What Member does between them is here as
// it is there: a look every twelfth of a lease, a plan after each step, ClaimsMax claims
// at once, a dead lane recovered once by each node that claims from it.
type fleet struct {
	rand  *rand.Rand
	now   time.Duration
	beats map[string]NodeRow
	rows  []ShardRow
	nodes []*craft
	made  int
	lwts  int
	moves []int
	// since is when each shard was last seen without a server; served how long that
	// lasted for those that have one again.
	since  []time.Duration
	served []time.Duration
}

// craft is a node of a fleet.
type craft struct {
	name      string
	row       NodeRow
	dead      bool
	members   *Members
	planner   *Planner
	serving   map[nola.ShardID]nola.Epoch
	recovered map[string]bool // lanes of dead nodes
	beatAt    time.Duration
	lookAt    time.Duration
	planAt    time.Duration // when what was read has arrived; 0: nothing is read
	view      View
	jobs      []job
}

type job struct {
	step     Step
	took, at time.Duration // at its end
}

func newFleet(seed uint64, nodes, shards int) *fleet {
	f := &fleet{rand: rand.New(rand.NewPCG(seed, 3)), beats: map[string]NodeRow{}, moves: make([]int, shards), since: make([]time.Duration, shards)}
	for i := range shards {
		f.rows = append(f.rows, ShardRow{Shard: nola.ShardID(i)})
	}
	for i := range nodes {
		c := &craft{name: fmt.Sprintf("node-%03d", i)}
		f.nodes = append(f.nodes, c)
		f.start(c)
	}
	return f
}

// start begins a process within a second.
func (f *fleet) start(c *craft) {
	f.made++
	id := fmt.Sprintf("%s#%d", c.name, f.made)
	c.row = NodeRow{ID: id, Name: c.name, Weight: WeightDefault, Started: time.Unix(0, int64(f.now)+int64(f.made))}
	c.members, c.planner = NewMembers(id, LeaseDefault), NewPlanner(id)
	c.serving, c.recovered, c.jobs, c.planAt, c.dead = map[nola.ShardID]nola.Epoch{}, map[string]bool{}, nil, 0, false
	begins := f.now + time.Duration(f.rand.IntN(1000))*time.Millisecond
	c.beatAt, c.lookAt = begins, begins
	f.lwts++ // its lane
}

func (f *fleet) lwt() time.Duration {
	f.lwts++
	return fleetLWT + time.Duration(f.rand.Int64N(int64(fleetLWT)))
}

// until moves time until done, for at most half a minute.
func (f *fleet) until(done func() bool) (took time.Duration) {
	began := f.now
	for !done() {
		if f.now > began+30*time.Second {
			return -1
		}
		f.now += fleetTick
		for _, c := range f.nodes {
			if !c.dead {
				f.act(c)
			}
		}
	}
	return f.now - began
}

func (f *fleet) act(c *craft) {
	const every = LeaseDefault / beatsPerLease
	if f.now >= c.beatAt {
		c.row.Beat++
		f.beats[c.row.ID] = c.row
		c.beatAt = f.now + every
	}
	switch {
	case c.planAt != 0 && f.now >= c.planAt:
		c.planAt = 0
		f.plan(c)
		for _, id := range c.members.Gone(f.now, f.rows) {
			delete(f.beats, id)
		}
	case c.planAt == 0 && f.now >= c.lookAt:
		c.planAt = f.now + fleetRead
		c.lookAt = c.planAt + every/2
		rows := slices.Collect(maps.Values(f.beats))
		shards := slices.Clone(f.rows)
		c.members.Read(f.now, c.planAt, rows, shards)
		c.view = View{
			Alive: c.members.Alive(), Dead: c.members.Dead, Settled: c.members.Settled(), Shards: shards,
			Serving: func(id nola.ShardID) nola.Epoch { return c.serving[id] },
		}
	}
	jobs := c.jobs
	c.jobs = nil
	for _, j := range jobs {
		if f.now < j.at {
			c.jobs = append(c.jobs, j)
			continue
		}
		f.end(c, j)
	}
}

// plan has a node begin what is to be done.
func (f *fleet) plan(c *craft) {
	for _, s := range c.planner.Plan(f.now, c.view) {
		took := f.lasts(c, s)
		c.jobs = append(c.jobs, job{s, took, f.now + took})
	}
}

// lasts answers how long a step takes, and counts its conditional writes.
func (f *fleet) lasts(c *craft, s Step) (d time.Duration) {
	switch s.Kind {
	case StepClaim:
		if dead := s.From.Node; dead != "" && !c.recovered[dead] {
			c.recovered[dead] = true
			d = f.lwt() + fleetPlain + f.lwt() // seal, read the ring, decide its end
		}
		return d + 2*fleetPlain + f.lwt() // read the row, apply, claim
	case StepRelease:
		return fleetHandOff + f.lwt() + fleetPlain // pass it on, and its next owner reads
	}
	return 0
}

func (f *fleet) end(c *craft, j job) {
	s := j.step
	row := &f.rows[s.From.Shard]
	done := *row == s.From
	switch {
	case s.Kind == StepDrop:
		delete(c.serving, s.From.Shard)
	case s.Kind == StepClaim && done:
		*row = ShardRow{Shard: row.Shard, Epoch: row.Epoch + 1, Node: c.row.ID}
		c.serving[row.Shard] = row.Epoch
		f.moves[row.Shard]++
		f.served = append(f.served, f.now-f.since[row.Shard])
	case s.Kind == StepRelease && done:
		delete(c.serving, row.Shard)
		*row = ShardRow{Shard: row.Shard, Epoch: row.Epoch + 1, Node: s.To}
		for _, other := range f.nodes {
			if other.row.ID == s.To && !other.dead { // it is told
				other.serving[row.Shard] = row.Epoch
				f.moves[row.Shard]++
				f.served = append(f.served, j.took-fleetHandOff)
			}
		}
	}
	how := EndedBadly
	if done {
		how = EndedWell
	}
	c.planner.Ended(s, how)
	if done { // what is next follows from this row
		c.view.Shards[row.Shard] = *row
		f.plan(c)
	}
}

// kill ends nodes without a word.
func (f *fleet) kill(nodes []*craft) (shards int) {
	for _, c := range nodes {
		c.dead = true
		for id := range c.serving {
			f.since[id] = f.now
			shards++
		}
	}
	return shards
}

// allServed reports whether each shard is served.
func (f *fleet) allServed() bool {
	alive := map[string]*craft{}
	for _, c := range f.nodes {
		if !c.dead {
			alive[c.row.ID] = c
		}
	}
	for _, row := range f.rows {
		if c := alive[row.Node]; c == nil || c.serving[row.Shard] != row.Epoch {
			return false
		}
	}
	return true
}

// atHome reports whether each shard is served by the node it belongs to.
func (f *fleet) atHome() bool {
	var shares []Share
	ids := map[string]string{}
	for _, c := range f.nodes {
		if !c.dead {
			shares = append(shares, Share{c.name, c.row.Weight})
			ids[c.name] = c.row.ID
		}
	}
	for i, owner := range Assign(len(f.rows), shares) {
		if f.rows[i].Node != ids[owner] {
			return false
		}
	}
	return f.allServed()
}

// TestFleet has 100 nodes serve 1,000 shards and lose ten nodes at once. What it
// finds stands in docs/scaling.md, word for word.
func TestFleet(t *testing.T) {
	f := newFleet(1, 100, 1000)
	var lines []string
	tell := func(what string, took time.Duration, moved int) {
		t.Helper()
		if took < 0 {
			t.Fatalf("%s: not within half a minute", what)
		}
		slices.Sort(f.served)
		half := f.served[len(f.served)/2]
		lines = append(lines, fmt.Sprintf("| %s | %d | %.1f s | %.2f s | %.2f s | %d |", what, moved, took.Seconds(), half.Seconds(), f.served[len(f.served)-1].Seconds(), f.lwts))
		f.served, f.lwts = nil, 0
	}
	count := func() (n int) {
		for _, m := range f.moves {
			n += m
		}
		clear(f.moves)
		return n
	}
	once := func(what string) {
		t.Helper()
		for id, n := range f.moves {
			if n > 1 {
				t.Errorf("%s: shard %d was claimed %d times", what, id, n)
			}
		}
	}
	took := f.until(f.atHome)
	tell("100 nodes start within 1 s", took, count())
	quiet := f.now + 10*time.Second
	f.until(func() bool { return f.now >= quiet })
	if f.lwts != 0 || count() != 0 {
		t.Errorf("%d conditional writes in ten seconds in which nothing happens", f.lwts)
	}

	lost := f.kill(f.nodes[20:30])
	took = f.until(f.allServed)
	once("ten nodes lost")
	if n := count(); n != lost {
		t.Errorf("%d shards were claimed, %d had lost their owner", n, lost)
	}
	if most := LeaseDefault*watchPercentOfLease/100 + LeaseDefault/beatsPerLease + time.Second; took > most {
		t.Errorf("all shards are served again after %s, want %s at most", took, most)
	}
	tell("10 nodes are lost at once", took, lost)

	for _, c := range f.nodes[20:30] {
		f.start(c)
	}
	took = f.until(f.atHome)
	once("ten nodes are back")
	moved := count()
	tell("the 10 nodes are back", took, moved)

	for _, c := range f.nodes[40:50] {
		c.row.Weight = 0
	}
	took = f.until(func() bool {
		for _, c := range f.nodes[40:50] {
			if len(c.serving) > 0 {
				return false
			}
		}
		return f.allServed()
	})
	once("ten nodes are drained")
	moved = count()
	tell("10 nodes are drained at once", took, moved)

	doc, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if !strings.Contains(string(doc), line+"\n") {
			t.Errorf("docs/scaling.md lacks the line\n%s", line)
		}
	}
}

// watchPercentOfLease is how long a node must have given no sign of life to count as
// dead, as persistence/lane has it.
const watchPercentOfLease = 105

func BenchmarkAssign(b *testing.B) {
	for _, size := range []struct{ shards, nodes int }{{1000, 100}, {10_000, 100}} {
		list := shares(size.nodes)
		b.Run(fmt.Sprintf("%dx%d", size.shards, size.nodes), func(b *testing.B) {
			for b.Loop() {
				Assign(size.shards, list)
			}
		})
	}
}

// BenchmarkPlan is one look of a node at a cluster in which nothing happens.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ shards, nodes int }{{1000, 100}, {10_000, 100}} {
		weights := make([]int, size.nodes)
		for i := range weights {
			weights[i] = WeightDefault
		}
		costs := make([]uint64, size.shards)
		for i := range costs {
			costs[i] = 20_000
		}
		c := newLoaded(weights, costs)
		c.measure()
		self := c.v.Alive[0].ID
		v := c.v
		v.Serving = func(id nola.ShardID) nola.Epoch {
			if row := v.Shards[id]; row.Node == self {
				return row.Epoch
			}
			return 0
		}
		p := NewPlanner(self)
		b.Run(fmt.Sprintf("%dx%d", size.shards, size.nodes), func(b *testing.B) {
			for b.Loop() {
				p.Plan(time.Hour, v)
			}
		})
	}
}
