package cluster

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

var (
	seedFlag = flag.Uint64("seed", 0, "the one world to run; 0 runs many")
	deepFlag = flag.Int("deep", 60, "how many worlds to run")
)

const (
	worldLease = 3 * time.Second
	worldBeat  = 500 * time.Millisecond
	worldTick  = 50 * time.Millisecond
)

// world is a cluster in virtual time: the rows that its nodes share, and the
// nodes. Each node looks at the rows now and then and carries its steps out later,
// one part at a time, while others do the same.
type world struct {
	t     *testing.T
	seed  uint64
	rand  *rand.Rand
	now   time.Duration
	beats map[string]NodeRow
	rows  []ShardRow
	nodes []*node
	made  int
	// moves counts the claims of each shard.
	moves []int
	// costs of the shards; nil: nobody measures them.
	costs []uint64
	trace []string
}

type node struct {
	w         *world
	row       NodeRow
	dead      bool
	paused    bool
	confirmed time.Duration // when the last beat was sent that was acknowledged
	beatAt    time.Duration
	readAt    time.Duration
	view      View
	members   *Members
	planner   *Planner
	serving   map[nola.ShardID]nola.Epoch
	steps     []Step
	had       map[nola.ShardID]nola.Epoch // under which each shard was served last
	stopped   map[nola.ShardID]bool       // of releases whose first part was done
	passed    map[nola.ShardID]pass       // shards that were passed on, and may not be served yet
}

type pass struct {
	epoch nola.Epoch
	until time.Duration
}

func newWorld(t *testing.T, seed uint64, shards int) *world {
	w := &world{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), beats: map[string]NodeRow{}, moves: make([]int, shards)}
	for i := range shards {
		w.rows = append(w.rows, ShardRow{Shard: nola.ShardID(i)})
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("-seed %d, at %v: %s\n%s", w.seed, w.now, fmt.Sprintf(format, args...), strings.Join(w.trace[max(0, len(w.trace)-40):], "\n"))
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8v ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) join(name string, weight int) *node {
	n := &node{w: w}
	w.nodes = append(w.nodes, n)
	n.begin(name, weight)
	return n
}

// begin starts a process on a node.
func (n *node) begin(name string, weight int) {
	w := n.w
	w.made++
	n.row = NodeRow{ID: fmt.Sprintf("%s#%d", name, w.made), Name: name, Weight: weight, Started: time.Unix(0, int64(w.now)+int64(w.made))}
	n.members, n.planner = NewMembers(n.row.ID, worldLease), NewPlanner(n.row.ID)
	n.serving, n.steps, n.stopped = map[nola.ShardID]nola.Epoch{}, nil, map[nola.ShardID]bool{}
	n.had, n.passed = map[nola.ShardID]nola.Epoch{}, map[nola.ShardID]pass{}
	n.beatAt, n.readAt, n.confirmed, n.dead, n.paused = w.now, w.now, w.now, false, false
	w.log("%s begins, weight %d", n.row.ID, weight)
}

func (n *node) trusted() bool { return !n.dead && n.w.now < n.confirmed+worldLease*9/10 }

// run moves time.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; w.now += worldTick {
		for _, n := range w.nodes {
			if !n.dead && !n.paused {
				n.act()
			}
			w.check()
		}
	}
}

func (n *node) act() {
	w := n.w
	if !n.trusted() {
		n.begin(n.row.Name, n.row.Weight) // a lease that is over never comes back
	}
	if w.now >= n.beatAt {
		n.row.Beat++
		n.confirmed = w.now
		n.row.Work = n.work()
		w.beats[n.row.ID] = n.row
		n.beatAt = w.now + worldBeat
	}
	if w.now >= n.readAt {
		began := w.now
		var rows []NodeRow
		for _, row := range w.beats {
			rows = append(rows, row)
		}
		n.members.Read(began, w.now, rows, w.rows)
		n.view = View{
			Alive: n.members.Alive(), Dead: n.members.Dead, Settled: n.members.Settled(), Shards: slices.Clone(w.rows),
			Serving: func(s nola.ShardID) nola.Epoch { return n.serving[s] },
		}
		n.readAt = w.now + time.Duration(1+w.rand.IntN(10))*worldTick
		for _, id := range n.members.Gone(w.now, w.rows) {
			delete(w.beats, id)
		}
	}
	if n.view.Shards != nil && w.rand.IntN(3) == 0 {
		n.steps = append(n.steps, n.planner.Plan(w.now, n.view)...)
	}
	for range w.rand.IntN(4) {
		if len(n.steps) > 0 {
			n.part(w.rand.IntN(len(n.steps)))
		}
	}
}

// work is what the node tells of its load.
func (n *node) work() Work {
	if n.w.costs == nil {
		return Work{}
	}
	m := newMeter()
	for id := range n.serving {
		m.shards[id] = &reading{cost: float64(n.w.costs[id])}
	}
	work := m.work()
	work.Steady, work.Placed = n.planner.Steady(n.w.now), n.planner.Placed()
	return work
}

// part carries out one part of a step.
func (n *node) part(i int) {
	w, s := n.w, n.steps[i]
	row := &w.rows[s.From.Shard]
	how := EndedBadly
	switch s.Kind {
	case StepClaim:
		switch {
		case *row == s.From && row.Node == n.row.ID && n.had[row.Shard] < row.Epoch:
			n.takeUp(row.Shard) // it was passed to this node
		case *row == s.From:
			if row.Node != "" && row.Node != n.row.ID {
				for _, other := range w.nodes {
					if other.row.ID == row.Node && other.trusted() {
						w.fail("%s takes shard %d from %s, whose lease is not over", n.row.ID, row.Shard, row.Node)
					}
				}
			}
			*row = ShardRow{Shard: row.Shard, Epoch: row.Epoch + 1, Node: n.row.ID}
			n.takeUp(row.Shard)
		}
	case StepDrop:
		delete(n.serving, s.From.Shard)
	case StepRelease:
		if !n.stopped[s.From.Shard] {
			n.stopped[s.From.Shard] = true
			delete(n.serving, s.From.Shard)
			return
		}
		if p, was := n.passed[s.From.Shard]; was {
			if how = EndedWell; w.now < p.until && !w.took(s, p.epoch) {
				return
			}
			break
		}
		switch {
		case *row != s.From:
		case w.rand.IntN(3) == 0:
			how = EndedGiven
			row.Node, row.HandoffTo = "", s.To
			w.log("%s releases shard %d for %s", n.row.ID, row.Shard, s.To)
		default:
			row.Epoch, row.Node = row.Epoch+1, s.To
			n.passed[row.Shard] = pass{row.Epoch, w.now + OverdueAfter}
			w.log("%s passes shard %d to %s", n.row.ID, row.Shard, s.To)
			for _, other := range w.nodes { // the word may get lost
				if other.row.ID == s.To && other.trusted() && !other.paused && w.rand.IntN(2) == 0 {
					other.takeUp(row.Shard)
				}
			}
			return
		}
	}
	delete(n.stopped, s.From.Shard)
	delete(n.passed, s.From.Shard)
	n.steps = slices.Delete(n.steps, i, i+1)
	n.planner.Ended(s, how)
}

// took reports whether a shard was taken up that was passed on, or its next owner is dead.
func (w *world) took(s Step, epoch nola.Epoch) bool {
	for _, other := range w.nodes {
		if other.row.ID == s.To && !other.dead {
			return other.had[s.From.Shard] >= epoch
		}
	}
	return true
}

// takeUp has a node serve a shard that it owns by its row.
func (n *node) takeUp(id nola.ShardID) {
	n.serving[id], n.had[id] = n.w.rows[id].Epoch, n.w.rows[id].Epoch
	n.w.moves[id]++
	n.w.log("%s takes shard %d, epoch %d", n.row.ID, id, n.serving[id])
}

// check holds the world against what must always be true.
func (w *world) check() {
	for i := range w.rows {
		var servers []string
		for _, n := range w.nodes {
			if n.serving[nola.ShardID(i)] != 0 && n.trusted() {
				servers = append(servers, n.row.ID)
			}
		}
		if len(servers) > 1 {
			w.fail("shard %d is served by %v", i, servers)
		}
	}
}

// settled holds the world against what must be true once nothing has happened for
// a while.
func (w *world) settled() {
	var living []Share
	ids := map[string]string{}
	for _, n := range w.nodes {
		if !n.dead && !n.paused {
			living = append(living, Share{n.row.Name, n.row.Weight})
			ids[n.row.Name] = n.row.ID
		}
	}
	if len(living) == 0 {
		return
	}
	all := true
	for _, s := range living {
		all = all && s.Weight == 0
	}
	want := Assign(len(w.rows), living)
	for i, row := range w.rows {
		serves := slices.ContainsFunc(w.nodes, func(n *node) bool {
			return n.row.ID == row.Node && n.trusted() && n.serving[row.Shard] == row.Epoch
		})
		switch {
		case !serves:
			w.fail("shard %d is served by nobody: %+v", i, row)
		case w.costs != nil:
			for _, n := range w.nodes {
				if n.dead || n.paused {
					continue
				}
				if at := n.planner.Desired(n.view)[i]; at != row.Node {
					w.fail("shard %d is served by %s, %s thinks that it belongs to %s", i, row.Node, n.row.ID, at)
				}
			}
		case !all && row.Node != ids[want[i]]:
			w.fail("shard %d is served by %s, it belongs to %s", i, row.Node, want[i])
		}
	}
	before := slices.Clone(w.moves)
	if w.run(20 * time.Second); w.costs != nil {
		w.run(2 * LoadRest)
	}
	if !slices.Equal(before, w.moves) {
		w.fail("shards move though nothing happens")
	}
}

// Whatever happens to the nodes, a shard is served by one node at most; when it
// is over, each is served by the node it belongs to, and none moves any more.
func TestWorlds(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = nil
		for i := range *deepFlag {
			seeds = append(seeds, uint64(i+1))
		}
	}
	placed := 0
	for _, seed := range seeds {
		w := newWorld(t, seed, 24)
		loads := 0
		if seed%5 == 0 { // shards move because of what they cost, too
			w.costs = make([]uint64, len(w.rows))
			for i := range w.costs {
				w.costs[i] = uint64(w.rand.IntN(100_000))
			}
			w.costs[w.rand.IntN(len(w.rows))] = 500_000
		}
		for i := range 1 + w.rand.IntN(4) {
			w.join(fmt.Sprint("n", i), 100)
		}
		for range 30 {
			w.event()
			w.run(time.Duration(w.rand.IntN(4000)) * time.Millisecond)
			if w.costs != nil && w.rand.IntN(6) == 0 {
				w.run(LoadRest)
			}
		}
		for _, n := range w.nodes {
			if n.paused {
				n.paused = false
			}
		}
		w.run(30 * time.Second)
		if w.costs != nil {
			w.run(6 * LoadRest)
		}
		w.settled()
		for _, n := range w.nodes {
			loads += len(n.row.Work.Placed)
		}
		if placed += loads; *seedFlag != 0 {
			t.Logf("%d shards are not where their hash has them", loads)
		}
	}
	if *seedFlag == 0 && placed == 0 {
		t.Error("no shard was ever moved because of load")
	}
}

// event is something that happens to a cluster.
func (w *world) event() {
	if len(w.nodes) < 5 && w.rand.IntN(6) == 0 {
		w.join(fmt.Sprint("n", len(w.nodes)), 50+w.rand.IntN(100))
		return
	}
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	switch w.rand.IntN(6) {
	case 0:
		n.dead = true
		w.log("%s is killed", n.row.ID)
	case 1:
		if n.dead {
			n.begin(n.row.Name, 100)
		}
	case 2:
		n.paused = !n.paused
		w.log("%s paused: %v", n.row.ID, n.paused)
	case 3:
		n.row.Weight = 0
		w.log("%s drains", n.row.ID)
	case 4:
		n.row.Weight = 100
	case 5:
		if len(n.steps) > 0 { // a step is lost on its way, as if the store had failed
			s := n.steps[0]
			n.steps = n.steps[1:]
			delete(n.stopped, s.From.Shard)
			delete(n.passed, s.From.Shard)
			n.planner.Ended(s, EndedBadly)
		}
	}
}

// One change of the nodes moves the shards that must move, each once.
func TestMovesAreBounded(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"a node is killed":   func(w *world) { w.nodes[1].dead = true },
		"two are killed":     func(w *world) { w.nodes[1].dead, w.nodes[3].dead = true, true },
		"a node joins":       func(w *world) { w.join("new", 100) },
		"a node drains":      func(w *world) { w.nodes[2].row.Weight = 0 },
		"a node restarts":    func(w *world) { w.nodes[0].begin("n0", 100) },
		"a node grows":       func(w *world) { w.nodes[0].row.Weight = 250 },
		"all nodes drain":    func(w *world) { drainAll(w) },
		"all but one killed": func(w *world) { w.nodes[1].dead, w.nodes[2].dead, w.nodes[3].dead = true, true, true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 7, 64)
			for i := range 4 {
				w.join(fmt.Sprint("n", i), 100)
			}
			w.run(30 * time.Second)
			w.settled()
			before, moves := slices.Clone(w.rows), slices.Clone(w.moves)
			change(w)
			w.run(60 * time.Second)
			w.settled()
			for i, row := range w.rows {
				moved := w.moves[i] - moves[i]
				if must := row.Node != before[i].Node; moved > 1 || (moved == 1) != must {
					t.Errorf("shard %d moved %d times, from %s to %s", i, moved, before[i].Node, row.Node)
				}
			}
		})
	}
}

func drainAll(w *world) {
	for _, n := range w.nodes {
		n.row.Weight = 0
	}
}

// The shards of a killed node are claimed within its lease, the time between two
// looks, and no more.
func TestDeadOwnersAreReplacedSoon(t *testing.T) {
	w := newWorld(t, 3, 64)
	for i := range 3 {
		w.join(fmt.Sprint("n", i), 100)
	}
	w.run(20 * time.Second)
	w.settled()
	dead := w.nodes[1]
	dead.dead = true
	killed := w.now
	w.run(worldLease*105/100 + 2*time.Second)
	for _, row := range w.rows {
		if row.Node == dead.row.ID {
			w.fail("shard %d still belongs to a node that was killed at %v", row.Shard, killed)
		}
	}
}

// A node gives its shards away in waves.
func TestDrainGoesInWaves(t *testing.T) {
	p := NewPlanner("a")
	v := View{
		Alive: []NodeRow{{ID: "a", Name: "a", Weight: 0}, {ID: "b", Name: "b", Weight: 100}}, Settled: true,
		Dead: func(string) bool { return false }, Serving: func(nola.ShardID) nola.Epoch { return 1 },
	}
	for i := range 100 {
		v.Shards = append(v.Shards, ShardRow{Shard: nola.ShardID(i), Epoch: 1, Node: "a"})
	}
	steps := p.Plan(0, v)
	if len(steps) != WaveMax {
		t.Fatalf("the first wave has %d shards, want %d", len(steps), WaveMax)
	}
	for _, s := range steps {
		if s.Kind != StepRelease || s.To != "b" {
			t.Fatalf("step %+v", s)
		}
		v.Shards[s.From.Shard].Node, v.Shards[s.From.Shard].HandoffTo = "", "b"
		p.Ended(s, EndedGiven)
	}
	v.Serving = func(s nola.ShardID) nola.Epoch {
		if v.Shards[s].Node == "a" {
			return 1
		}
		return 0
	}
	if again := p.Plan(time.Second, v); len(again) != 0 {
		t.Errorf("%d more shards are given away before the first have arrived", len(again))
	}
	const arrived = WaveMax / 2
	for i := range arrived {
		v.Shards[steps[i].From.Shard] = ShardRow{Shard: steps[i].From.Shard, Epoch: 2, Node: "b"}
	}
	if again := p.Plan(time.Second, v); len(again) != arrived {
		t.Errorf("%d shards are given away after %d have arrived", len(again), arrived)
	}
	v.Alive[0].Weight = 100
	v.Shards = v.Shards[:60]
	for i := range v.Shards {
		v.Shards[i] = ShardRow{Shard: nola.ShardID(i), Epoch: 3, Node: "a"}
	}
	v.Serving = func(nola.ShardID) nola.Epoch { return 3 }
	p = NewPlanner("a")
	if steps := p.Plan(0, v); len(steps) != 60*wavePercent/100 {
		t.Errorf("a node that stays gives %d of 60 shards away at once", len(steps))
	}
}
