package lane

import (
	"slices"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// claimRule is a rule of claims and hand-overs that a model breaks on purpose.
type claimRule int

const (
	claimRuleNone          claimRule = iota
	claimRuleSeal                    // the dead lane need not be recovered
	claimRuleApply                   // the claim does not wait until the effects are at a quorum
	claimRuleRaise                   // the new owner's clock ignores the floor
	claimRuleFinalTS                 // the floor leaves out the end of the dead lane
	claimRuleStore                   // the floor is used and not stored
	claimRuleEpoch                   // the claim asks for the lane alone
	claimRuleReleaseApply            // a shard is released before everything was applied
	claimRuleReleaseAnswer           // its owner serves it again without an answer to the release
	claimRuleFilter                  // what older tenures have in the lane is applied again
	claimRuleLag                     // entries say too little of what was applied, for longer than deletions are remembered
	claimRuleAdopt                   // a shard is taken up whose row is ours, and the clock ignores the floor
	claimRulePassApply               // a shard is passed on before everything was applied
	claimRulePassEpoch               // passing a shard on asks for the lane alone
	claimRulePassLane                // passing a shard on asks for the epoch alone
	claimRulePassAnswer              // the next owner is told of its shard before the row names it
	claimRulePassFloor               // the next owner's clock ignores the floor that it is told
	claimRulePassStale               // the next owner takes up what it is told of also if it had that since
)

const (
	modelEpochs = 4
	modelOps    = 3
	modelDelete = 2 // this write deletes the key
	modelShard  = nola.ShardID(7)
)

// claimWall are the wall clocks of X, B and C. That of X is far ahead.
var claimWall = [3]Timestamp{6, 1, 1}

func laneOf(k int) ID { return ID{byte(k + 1)} }

// modelOp is a write of the one key that the model has.
type modelOp struct {
	state   uint8 // 1 sent, 2 committed, 3 dropped
	by      int
	epoch   nola.Epoch
	effects Effects
	again   bool // a claimer has applied it after what it deleted or wrote was purged
	told    bool // an entry says that it was applied, wherever the ring is read
}

type modelNode struct {
	own     uint8 // 1 serves the shard, 2 releases it
	epoch   nola.Epoch
	clock   Timestamp
	sealed  bool // its lane
	ended   bool
	gone    bool // does nothing any more
	final   Timestamp
	claimer *Claimer
	release *Releaser
	told    *ShardRow // what an owner has told of a shard that it has passed on; it may come late, and again
}

// claimWork is a statement under way.
type claimWork struct {
	by   int
	to   Statement
	acts uint8    // of a conditional one: 1 its condition held, 2 it did not
	row  ShardRow // what it found
	lost bool     // nobody waits for the answer any more
}

// claimWorld is one shard with one key, and three nodes with a lane each. What
// happens inside a lane is one step here (laneWorld opens it up). Effects of what
// is committed reach each replica at any time, by whomever. The second write is a
// deletion, and a world may forget it.
type claimWorld struct {
	broken claimRule
	passes bool // owners may pass the shard on; otherwise they release it alone
	ops    int  // that are sent at most
	epochs nola.Epoch
	active int // nodes that come for the shard
	row    ShardRow
	nodes  [3]modelNode
	sent   [modelOps]modelOp
	count  int
	cells  [replicas]int // the operation that each replica holds, from 1
	work   []claimWork
	purges bool
	purged Timestamp // writes up to here are too old to be under way
	failed bool      // a node has given up a claim, which may be executed yet
	bad    string
}

func newClaimWorld(broken claimRule, ops int, epochs nola.Epoch, nodes int) *claimWorld {
	w := &claimWorld{active: nodes, broken: broken, ops: ops, epochs: epochs, row: ShardRow{Epoch: 1, Lane: laneOf(0)}}
	w.nodes[0] = modelNode{own: 1, epoch: 1}
	return w
}

func (w *claimWorld) copy() *claimWorld {
	c := *w
	c.work = slices.Clone(w.work)
	return &c
}

func (w *claimWorld) fault() string { return w.bad }

func (w *claimWorld) ts(op int) Timestamp {
	if op == 0 {
		return 0
	}
	return w.sent[op-1].effects.First
}

func (w *claimWorld) applied(op int) bool {
	var mask uint8
	for i, c := range w.cells {
		if w.ts(c) >= w.ts(op) {
			mask |= 1 << i
		}
	}
	return quorum(mask)
}

// open is the operation of a lane that is not decided, from 1, or 0.
func (w *claimWorld) open(k int) int {
	for i, op := range w.sent[:w.count] {
		if op.by == k && op.state == 1 {
			return i + 1
		}
	}
	return 0
}

func (w *claimWorld) commit(op int) {
	o := &w.sent[op-1]
	o.state = 2
	if w.row.Epoch > o.epoch {
		w.bad = "a commit is accepted after a later claim of the shard"
	}
}

func (w *claimWorld) moves() []move[*claimWorld] {
	all := make([]move[*claimWorld], 0, 16)
	add := func(do func(w *claimWorld), label string, args ...any) {
		all = append(all, move[*claimWorld]{func(w *claimWorld) {
			do(w)
			w.check()
		}, label, args})
	}
	for op := 1; op <= w.count; op++ {
		o := w.sent[op-1]
		for i, c := range w.cells {
			if o.state == 2 && w.ts(c) < w.ts(op) && (o.effects.First > w.purged || o.again) {
				add(func(w *claimWorld) { w.cells[i] = op }, "write %d reaches replica %d", op, i)
			}
		}
		if o.state == 1 && !w.nodes[o.by].sealed {
			add(func(w *claimWorld) { w.commit(op) }, "write %d is committed", op)
		}
	}
	if w.purges && w.cells == [replicas]int{modelDelete, modelDelete, modelDelete} {
		add((*claimWorld).purge, "the store forgets that the key was deleted")
	}
	for k := range w.nodes {
		w.nodeMoves(k, add)
	}
	for at := range w.work {
		w.workMoves(at, add)
	}
	return all
}

// purge has all replicas forget a deletion that all of them have, gc_grace after it.
// No claim and no write takes that long, a node has heard of its seal by then, and an
// entry of each living lane says that what was applied then is.
func (w *claimWorld) purge() {
	w.purged, w.cells = w.ts(modelDelete), [replicas]int{}
	for i := range w.sent[:w.count] {
		if o := &w.sent[i]; o.effects.First <= w.purged {
			o.again = false
			o.told = o.told || o.state == 2 && !w.nodes[o.by].sealed && w.broken != claimRuleLag
		}
	}
	for k := range w.nodes {
		n := &w.nodes[k]
		if !n.sealed && n.claimer == nil {
			continue
		}
		n.claimer = nil
		if n.sealed {
			n.own, n.release, n.gone = 0, nil, true
		}
		w.work = slices.DeleteFunc(w.work, func(job claimWork) bool { return job.by == k })
	}
}

func (w *claimWorld) nodeMoves(k int, add func(do func(w *claimWorld), label string, args ...any)) {
	n, who, open := w.nodes[k], "XBC"[k], w.open(k)
	switch {
	case !n.sealed && (open > 0 || n.own == 1):
		add(func(w *claimWorld) { w.nodes[k].sealed = true }, "the lane of %c is sealed", who)
	case n.sealed && !n.ended:
		add(func(w *claimWorld) { w.end(k, 0) }, "the lane of %c ends without what is open", who)
		if open > 0 {
			add(func(w *claimWorld) { w.end(k, open) }, "the lane of %c ends with write %d", who, open)
		}
	}
	if n.own == 1 && w.count < w.ops && open == 0 && !n.ended {
		add(func(w *claimWorld) { w.write(k) }, "%c writes", who)
	}
	if n.own == 1 && n.sealed {
		add(func(w *claimWorld) { w.nodes[k].own = 0 }, "%c finds its lane sealed", who)
	}
	if n.own == 1 && open == 0 && (w.allApplied(k, n.epoch) || w.broken == claimRuleReleaseApply) {
		add(func(w *claimWorld) {
			n := &w.nodes[k]
			r, out := (&Writer{lane: laneOf(k), clock: n.clock}).Release(modelShard, n.epoch, "")
			n.own, n.release = 2, r
			w.take(k, out)
		}, "%c releases the shard", who)
	}
	if n.own == 1 && open == 0 && w.passes && n.epoch < w.epochs && (w.allApplied(k, n.epoch) || w.broken == claimRulePassApply) {
		for j := range w.active {
			if j == k {
				continue
			}
			// Whether that lane is open, the owner need not know.
			add(func(w *claimWorld) {
				n := &w.nodes[k]
				r, out := (&Writer{lane: laneOf(k), clock: n.clock}).Pass(modelShard, n.epoch, laneOf(j))
				n.own, n.release = 2, r
				w.take(k, out)
				if w.broken == claimRulePassAnswer {
					w.tell(r)
				}
			}, "%c passes the shard to %c", who, "XBC"[j])
		}
	}
	if t := n.told; t != nil && n.own == 0 && n.claimer == nil && !n.gone && !n.ended && (n.epoch < t.Epoch || w.broken == claimRulePassStale) {
		add(func(w *claimWorld) {
			n := &w.nodes[k]
			n.own, n.epoch = 1, t.Epoch
			if w.broken != claimRulePassFloor {
				n.clock = max(n.clock, t.Floor)
			}
		}, "%c takes up what it is told of, epoch %d", who, t.Epoch)
	}
	if n.own == 2 && w.passes && !w.failed && n.release.to.Epoch > n.epoch {
		add(func(w *claimWorld) {
			n := &w.nodes[k]
			for i := range w.work {
				w.work[i].lost = w.work[i].lost || w.work[i].by == k
			}
			r, out := (&Writer{lane: laneOf(k), clock: n.clock}).Release(modelShard, n.epoch, "")
			w.failed, n.release = true, r
			w.take(k, out)
		}, "%c waits no longer, and releases the shard", who)
	}
	if n.own == 2 && w.broken == claimRuleReleaseAnswer {
		add(func(w *claimWorld) { w.nodes[k].own = 1 }, "%c serves the shard again", who)
	}
	if n.claimer != nil && n.claimer.phase == ClaimClaiming && !w.failed {
		add(func(w *claimWorld) {
			w.nodes[k].claimer, w.failed = nil, true
			for i := range w.work {
				w.work[i].lost = w.work[i].lost || w.work[i].by == k
			}
		}, "%c's claim fails", who)
	}
	if n.own == 0 && n.claimer == nil && w.row.Lane == laneOf(k) && n.epoch < w.row.Epoch && !n.gone {
		add(func(w *claimWorld) {
			n := &w.nodes[k]
			n.own, n.epoch = 1, w.row.Epoch
			if w.broken != claimRuleAdopt {
				n.clock = max(n.clock, w.row.Floor)
			}
		}, "%c takes up what is its own", who)
	}
	if k >= w.active || n.gone || n.own != 0 || n.claimer != nil || w.row.Lane == laneOf(k) || w.row.Epoch >= w.epochs {
		return
	}
	c := Claim{Shard: modelShard, Lane: laneOf(k), Row: w.row}
	if !w.row.Lane.IsZero() {
		from := int(w.row.Lane[0] - 1)
		if !w.nodes[from].ended && w.broken != claimRuleSeal {
			return
		}
		c.From = Ended{Lane: w.row.Lane, FinalTS: w.nodes[from].final}
		if w.broken == claimRuleFinalTS || w.broken == claimRuleStore {
			c.From.FinalTS = 0
		}
		for _, o := range w.sent[:w.count] {
			if o.by != from || o.state != 2 || o.told {
				continue
			}
			f := o.effects
			if w.broken == claimRuleFilter {
				f.Batch = modelBatch(w.row.Epoch, f.Batch.Seq)
			}
			c.Effects = append(c.Effects, f)
		}
	}
	add(func(w *claimWorld) {
		m, out := NewClaimer(c)
		w.nodes[k].claimer = m
		w.take(k, out)
	}, "%c comes for the shard", who)
}

func (w *claimWorld) allApplied(k int, epoch nola.Epoch) bool {
	for i, o := range w.sent[:w.count] {
		if o.by == k && o.epoch == epoch && o.state == 2 && o.effects.First > w.purged && !w.applied(i+1) {
			return false
		}
	}
	return true
}

func (w *claimWorld) write(k int) {
	n := &w.nodes[k]
	n.clock = max(n.clock+1, claimWall[k])
	b := modelBatch(n.epoch, nola.Seq(w.count+1))
	w.sent[w.count] = modelOp{state: 1, by: k, epoch: n.epoch, effects: Effects{Batch: b, First: n.clock}}
	w.count++
}

func modelBatch(epoch nola.Epoch, n nola.Seq) *persistence.Batch {
	b := new(persistence.Batch)
	b.Reset(modelShard, epoch, n)
	return b
}

func (w *claimWorld) end(k, with int) {
	n := &w.nodes[k]
	n.ended = true
	if with > 0 {
		w.commit(with)
	} else if open := w.open(k); open > 0 {
		w.sent[open-1].state = 3
	}
	for _, o := range w.sent[:w.count] {
		if o.by == k && o.state == 2 {
			n.final = max(n.final, o.effects.First)
		}
	}
}

func (w *claimWorld) take(k int, out Output) {
	for _, s := range append(out.Send, out.Again...) {
		w.work = append(w.work, claimWork{by: k, to: s})
		if to, ok := s.(ApplyEffects); ok {
			w.sent[to.Effects.Batch.Seq-1].again = to.Effects.First <= w.purged
		}
	}
}

func (w *claimWorld) workMoves(at int, add func(do func(w *claimWorld), label string, args ...any)) {
	job := w.work[at]
	who := "XBC"[job.by]
	switch to := job.to.(type) {
	case ApplyEffects:
		if w.applied(int(to.Effects.Batch.Seq)) || w.broken == claimRuleApply {
			add(func(w *claimWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c has write %d applied", who, to.Effects.Batch.Seq)
		}
		return
	case ClaimShard:
		if job.acts == 0 {
			add(func(w *claimWorld) { w.execute(at, to.From, to.To) }, "%c's claim of epoch %d for %c is executed", who, to.To.Epoch, "XBC"[to.To.Lane[0]-1])
		}
	case ReleaseShard:
		if job.acts == 0 {
			add(func(w *claimWorld) { w.execute(at, to.From, to.To) }, "%c's release is executed", who)
		}
	}
	switch job.acts {
	case 1:
		add(func(w *claimWorld) { w.answer(at, Answer{Outcome: Done}) }, "%c knows that its %T was applied", who, job.to)
		add(func(w *claimWorld) { w.answer(at, Answer{Outcome: Unknown}) }, "the answer to %c's %T is lost", who, job.to)
	case 2:
		add(func(w *claimWorld) { w.answer(at, Answer{Outcome: NotApplied, Found: true, Shard: job.row}) }, "%c knows that its %T was not applied", who, job.to)
	}
}

func (w *claimWorld) execute(at int, from, to ShardRow) {
	job := &w.work[at]
	job.acts, job.row = 2, w.row
	passed := to.Lane != laneOf(job.by) && !to.Lane.IsZero()
	if (w.row.Lane == from.Lane || passed && w.broken == claimRulePassLane) &&
		(w.row.Epoch == from.Epoch || w.broken == claimRuleEpoch || passed && w.broken == claimRulePassEpoch) {
		job.acts = 1
		w.row = to
	}
}

func (w *claimWorld) answer(at int, a Answer) {
	job := w.work[at]
	a.To = job.to
	w.work = slices.Delete(w.work, at, at+1)
	n := &w.nodes[job.by]
	if job.lost {
		return
	}
	if gives(job.to, laneOf(job.by)) {
		if n.release == nil { // served again, and lost
			return
		}
		r := *n.release
		n.release = &r
		w.take(job.by, r.Step(a))
		if r.phase == ReleaseGone {
			n.own, n.release = 0, nil
			w.tell(&r)
		}
		return
	}
	c := *n.claimer
	n.claimer = &c
	w.take(job.by, c.Step(a))
	switch c.phase {
	case ClaimOwned:
		floor := c.row.Floor
		if w.broken == claimRuleStore && !c.claim.From.Lane.IsZero() {
			floor = max(floor, w.nodes[c.claim.From.Lane[0]-1].final)
		}
		if w.broken != claimRuleRaise {
			n.clock = max(n.clock, floor)
		}
		n.own, n.epoch, n.claimer = 1, c.row.Epoch, nil
	case ClaimLost:
		n.claimer = nil
	}
}

// tell tells the next owner of a shard that was passed to it.
func (w *claimWorld) tell(r *Releaser) {
	if row, passed := r.Passed(); passed || w.broken == claimRulePassAnswer && !row.Lane.IsZero() {
		w.nodes[row.Lane[0]-1].told = &row
	}
}

// gives reports whether a statement is of the owner, of that lane, that gives a shard
// away.
func gives(s Statement, by ID) bool {
	switch s := s.(type) {
	case ReleaseShard:
		return true
	case ClaimShard:
		return s.To.Lane != by
	}
	return false
}

// check looks whether one node has an epoch, and whether the owner, with any two
// replicas and what it remembers of its own, sees the last committed write.
func (w *claimWorld) check() {
	for i, n := range w.nodes {
		for _, m := range w.nodes[:i] {
			if n.own != 0 && m.own != 0 && n.epoch == m.epoch {
				w.bad = "two nodes have one epoch"
			}
		}
	}
	if w.bad != "" || w.row.Lane.IsZero() {
		return
	}
	k := int(w.row.Lane[0] - 1)
	if n := w.nodes[k]; n.own != 1 || n.epoch != w.row.Epoch {
		return
	}
	last, memory := 0, 0
	for i, o := range w.sent[:w.count] {
		if o.state != 2 {
			continue
		}
		if last == 0 || o.epoch >= w.sent[last-1].epoch {
			last = i + 1
		}
		if o.by == k && o.epoch == w.row.Epoch && w.ts(i+1) >= w.ts(memory) {
			memory = i + 1
		}
	}
	for skip := range replicas {
		best := memory
		for i, c := range w.cells {
			if i != skip && w.ts(c) > w.ts(best) {
				best = c
			}
		}
		if best != last && (best != 0 || last != modelDelete || w.purged < w.ts(last)) {
			w.bad = "the owner does not see the last committed write"
		}
	}
}

func appendRow(b []byte, r ShardRow) []byte {
	return append(appendInts(b, int64(r.Epoch), int64(r.Floor)), r.Lane[0])
}

func (w *claimWorld) key(b []byte) []byte {
	b = appendInts(appendFlags(appendRow(b, w.row), w.failed), w.purged)
	for _, n := range w.nodes {
		b = appendInts(b, int64(n.own), int64(n.epoch), int64(n.clock), int64(n.final))
		b = appendFlags(b, n.sealed, n.ended, n.gone, n.claimer != nil, n.release != nil)
		if c := n.claimer; c != nil {
			b = appendRow(appendInts(b, int64(c.phase), int64(c.open), int64(len(c.waiting))), c.row)
			b = append(appendInts(b, int64(len(c.claim.Effects)), int64(c.claim.From.FinalTS)), c.claim.From.Lane[0])
		}
		if r := n.release; r != nil {
			b = appendRow(appendFlags(b, r.unknown), r.to)
		}
		if n.told != nil {
			b = appendRow(append(b, 1), *n.told)
		}
		b = append(b, 0xff)
	}
	for _, o := range w.sent[:w.count] {
		b = appendInts(b, int64(o.state), int64(o.by), int64(o.epoch), int64(o.effects.First))
		b = appendFlags(b, o.again, o.told)
	}
	cells := w.cells
	slices.Sort(cells[:])
	for _, c := range cells {
		b = appendInts(b, int64(c))
	}
	b = append(b, 0xff)
	var each [][]byte
	for _, job := range w.work {
		e := appendFlags(appendRow(appendInts(nil, int64(job.by), int64(job.acts)), job.row), job.lost)
		switch to := job.to.(type) {
		case ApplyEffects:
			e = appendInts(append(e, 2), int64(to.Effects.Batch.Seq))
		case ClaimShard:
			e = appendRow(appendRow(append(e, 3), to.From), to.To)
		case ReleaseShard:
			e = appendRow(appendRow(append(e, 4), to.From), to.To)
		}
		each = append(each, e)
	}
	slices.SortFunc(each, slices.Compare)
	for _, e := range each {
		b = append(append(b, e...), 0xff)
	}
	return b
}

// TestExploreClaims tries everything that can happen to a shard that is claimed,
// released and claimed again.
func TestExploreClaims(t *testing.T) {
	for name, w := range map[string]*claimWorld{
		"one write, three tenures, two nodes": newClaimWorld(claimRuleNone, 1, 3, 2),
		"two writes, two tenures, two nodes":  newClaimWorld(claimRuleNone, 2, 2, 2),
		"a deletion is forgotten":             newPurgeWorld(claimRuleNone, 2),
		"another's deletion is forgotten":     newPurgeWorld(claimRuleNone, modelEpochs).lent(t),
		"passed, one write, two tenures":      newPassWorld(claimRuleNone, 1, 2, 2),
	} {
		t.Run(name, func(t *testing.T) { holds(t, w, 600_000) })
	}
	if !*wide {
		return
	}
	for name, w := range map[string]*claimWorld{
		"two writes, three tenures, two nodes":   newClaimWorld(claimRuleNone, 2, 3, 2),
		"one write, two tenures, three nodes":    newClaimWorld(claimRuleNone, 1, 2, 3),
		"a deletion is forgotten, three tenures": newPurgeWorld(claimRuleNone, 3),
		"passed, one write, three tenures":       newPassWorld(claimRuleNone, 1, 3, 2),
		"passed, two writes, two tenures":        newPassWorld(claimRuleNone, 2, 2, 2),
		"passed, one write, three nodes":         newPassWorld(claimRuleNone, 1, 2, 3),
	} {
		t.Run(name, func(t *testing.T) { holds(t, w, wideLimit) })
	}
}

// newPassWorld is a claimWorld in which owners pass the shard on, too.
func newPassWorld(broken claimRule, ops int, epochs nola.Epoch, nodes int) *claimWorld {
	w := newClaimWorld(broken, ops, epochs, nodes)
	w.passes = true
	return w
}

// newPurgeWorld is a claimWorld that forgets deletions.
func newPurgeWorld(broken claimRule, epochs nola.Epoch) *claimWorld {
	w := newClaimWorld(broken, 2, epochs, 2)
	w.purges = true
	return w
}

// lent lets X write and give the shard to B, which deletes what X wrote.
func (w *claimWorld) lent(t *testing.T) *claimWorld {
	t.Helper()
	for _, label := range []string{
		"X writes", "write 1 is committed", "write 1 reaches replica 0", "write 1 reaches replica 1",
		"X releases the shard", "X's release is executed", "X knows that its lane.ReleaseShard was applied",
		"B comes for the shard", "B's claim of epoch 2 for B is executed", "B knows that its lane.ClaimShard was applied",
		"B writes", "write 2 is committed", "write 2 reaches replica 0", "write 2 reaches replica 1",
	} {
		moves := w.moves()
		i := slices.IndexFunc(moves, func(m move[*claimWorld]) bool { return m.String() == label })
		if i < 0 {
			t.Fatalf("no such move: %s, of %v", label, moves)
		}
		moves[i].do(w)
	}
	return w
}

// TestClaimRulesMatter breaks one rule after the other and wants the explorer to
// see what it leads to.
func TestClaimRulesMatter(t *testing.T) {
	for name, tt := range map[string]struct {
		broken claimRule
		ops    int
		nodes  int
		fault  string
	}{
		"claim from a lane that was not recovered": {claimRuleSeal, 1, 2, "does not see"},
		"claim before applying":                    {claimRuleApply, 1, 2, "does not see"},
		"clock is not raised":                      {claimRuleRaise, 2, 2, "does not see"},
		"floor without the end of the lane":        {claimRuleFinalTS, 2, 2, "does not see"},
		"floor is not stored":                      {claimRuleStore, 2, 3, "does not see"},
		"claim does not ask for the epoch":         {claimRuleEpoch, 1, 2, "two nodes have one epoch"},
		"release before applying":                  {claimRuleReleaseApply, 1, 2, "does not see"},
		"served again without an answer":           {claimRuleReleaseAnswer, 1, 2, "does not see"},
		"taken up without the floor":               {claimRuleAdopt, 2, 2, "does not see"},
	} {
		t.Run(name, func(t *testing.T) {
			breaks(t, newClaimWorld(tt.broken, tt.ops, modelEpochs, tt.nodes), 600_000, tt.fault)
		})
	}
	for name, tt := range map[string]struct {
		broken claimRule
		ops    int
		nodes  int
		fault  string
	}{
		"passed before applying":                  {claimRulePassApply, 1, 2, "does not see"},
		"passed without asking for the epoch":     {claimRulePassEpoch, 1, 2, "two nodes have one epoch"},
		"served before the row says so":           {claimRulePassAnswer, 1, 3, "two nodes have one epoch"},
		"what is told is taken without its floor": {claimRulePassFloor, 2, 2, "does not see"},
		"what is told is taken a second time":     {claimRulePassStale, 1, 2, "after a later claim"},
	} {
		t.Run(name, func(t *testing.T) {
			breaks(t, newPassWorld(tt.broken, tt.ops, modelEpochs, tt.nodes), 600_000, tt.fault)
		})
	}
	// An epoch has one lane, or none: that the row names ours still, its epoch says.
	t.Run("alone: passed without asking for the lane", func(t *testing.T) {
		holds(t, newPassWorld(claimRulePassLane, 1, 2, 2), 600_000)
	})
	t.Run("what a deletion forgot is applied again", func(t *testing.T) {
		breaks(t, newPurgeWorld(claimRuleFilter, modelEpochs).lent(t), 600_000, "does not see")
	})
	t.Run("applied, and not said before it is forgotten", func(t *testing.T) {
		breaks(t, newPurgeWorld(claimRuleLag, 2), 600_000, "does not see")
	})
	// While deletions are remembered, timestamps alone do.
	t.Run("alone: older tenures are applied again", func(t *testing.T) {
		holds(t, newClaimWorld(claimRuleFilter, 2, modelEpochs, 2).lent(t), 600_000)
	})
}

// TestWanderClaims takes random ways through more writes of a shard.
func TestWanderClaims(t *testing.T) {
	deep(t, *deepRuns, func(seed uint64) *claimWorld {
		w := newClaimWorld(claimRuleNone, modelOps, modelEpochs, 3)
		w.passes = seed%2 == 0
		return w
	}, 300)
}
